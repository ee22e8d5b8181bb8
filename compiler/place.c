/* place.c - which chunk and which device every operation is on.
 *
 * In:  the Graph with its backward operations; annotations; how many devices there are.
 * Out: Placement. Chunks are numbered in the order of the data; activations flow from lower
 *      to higher chunks only, gradients from higher to lower only.
 *
 * Annotated operations stay where they were put. Each gap of operations without annotation
 * between two annotated ones (or the ends) is cut into contiguous pieces for the devices
 * from the one before to the one after, so that the largest device load is smallest: a
 * search for the bottleneck over the greedy fill, which is exact for contiguous pieces. Of the
 * cuts that are nearly as good, the one between the outermost things (turns of a loop before
 * statements of a block) with the least to send is taken.
 *
 *     ops        a a . . . . . . b b        a, b annotated with devices 0 and 2
 *     device     0 0 0 0 1 1 1 2 2 2
 *
 * Under schedule = interleaved a model without annotations is cut as for twice as many devices,
 * and piece k is on device k modulo their number.
 */
#include <stdlib.h>
#include <string.h>

#include "cost.h"
#include "program.h"

typedef struct {
    Graph *g;
    int nforward;     /* forward operations come first */
    int ndevices;     /* gpu[0] … gpu[ndevices - 1] */
    int *device;      /* [forward ops]: NONE until placed */
    double *cost;     /* [forward ops]: seconds of forward and backward, or memory */
    double *load;     /* [devices] */
    double *crossing; /* [forward ops]: bytes alive between op - 1 and op */
} Placer;

/* Slack of the bottleneck within which a cut may move to a better place. */
static const double slack = 1.05;

/* How deep the innermost frame is that holds both operations: small is a better cut. */
static int common_depth(const Graph *g, FrameId a, FrameId b)
{
    int da = 0, db = 0;
    for (FrameId f = a; f > 0; f = g->frames.at[f].parent)
        da++;
    for (FrameId f = b; f > 0; f = g->frames.at[f].parent)
        db++;
    while (a != b) {
        if (da >= db)
            a = g->frames.at[a].parent, da--;
        else
            b = g->frames.at[b].parent, db--;
    }
    return da;
}

/* Fills devices lo … hi from the front with operations [from, to); false when it does
 * not fit under `limit`. Without `limit` being passed the last device takes the rest. */
static bool gap_fits(const Placer *p, int from, int to, int lo, int hi, double limit)
{
    int d = lo;
    double load = p->load[d];
    for (int o = from; o < to; o++) {
        while (load + p->cost[o] > limit && d < hi)
            load = p->load[++d];
        load += p->cost[o];
        if (load > limit)
            return false;
    }
    return true;
}

/* Cuts one gap under `limit` (which it fits) and assigns its operations. */
static void gap_assign(Placer *p, int from, int to, int lo, int hi, double limit)
{
    for (int d = lo; d < hi && from < to; d++) {
        /* the furthest end that this device can take … */
        int last = from;
        double load = p->load[d];
        while (last < to && load + p->cost[last] <= limit)
            load += p->cost[last++];
        /* … and, for the rest, the earliest start that the devices after it can take */
        int first = to;
        int e = hi;
        double rest = p->load[e];
        while (first > from) {
            while (rest + p->cost[first - 1] > limit && e > d)
                rest = p->load[--e];
            if (e == d)
                break;
            rest += p->cost[--first];
        }
        if (first <= from && p->load[d] <= 0)
            first = from + 1; /* no device stays empty for the sake of a better cut */
        if (first > last)
            first = last;
        /* of equally good cuts the one nearest to an even share of what is left */
        double even = p->load[d], own = load;
        for (int k = d + 1; k <= hi; k++)
            even += p->load[k];
        for (int o = from; o < to; o++)
            even += p->cost[o];
        even /= hi - d + 1;
        int best = last, best_depth = 1 << 30;
        double best_bytes = 0, best_off = 0;
        for (int cut = last; cut >= first; cut--) {
            int depth =
                cut == 0 || cut == p->nforward
                    ? 0
                    : common_depth(p->g, p->g->ops.at[cut - 1].frame, p->g->ops.at[cut].frame);
            double bytes = cut == p->nforward ? 0 : p->crossing[cut];
            double off = own > even ? own - even : even - own;
            bool same = depth == best_depth && !(bytes < best_bytes) && !(bytes > best_bytes);
            if (depth < best_depth || (depth == best_depth && bytes < best_bytes) ||
                (same && off < best_off))
                best = cut, best_depth = depth, best_bytes = bytes, best_off = off;
            if (cut > from)
                own -= p->cost[cut - 1];
        }
        for (; from < best; from++) {
            p->device[from] = d;
            p->load[d] += p->cost[from];
        }
    }
    for (; from < to; from++) {
        p->device[from] = hi;
        p->load[hi] += p->cost[from];
    }
}

typedef struct {
    int from, to, lo, hi;
} Gap;

static int find_gaps(const Placer *p, Gap *gaps)
{
    int n = 0, before = NONE;
    for (int o = 0; o < p->nforward;) {
        if (p->device[o] != NONE) {
            before = p->device[o++];
            continue;
        }
        int to = o;
        while (to < p->nforward && p->device[to] == NONE)
            to++;
        int lo = before == NONE ? 0 : before;
        int hi = to < p->nforward ? p->device[to] : p->ndevices - 1;
        gaps[n++] = (Gap){o, to, lo, hi < lo ? lo : hi};
        o = to;
    }
    return n;
}

static bool gaps_fit(const Placer *p, const Gap *gaps, int n, double limit)
{
    for (int i = 0; i < n; i++)
        if (!gap_fits(p, gaps[i].from, gaps[i].to, gaps[i].lo, gaps[i].hi, limit))
            return false;
    return true;
}

/* Gaps are filled one after the other; loads of earlier ones count for later ones. */
static void assign_gaps(Placer *p, Gap *gaps, int n)
{
    for (int i = 0; i < n; i++) {
        double low = 0, high = 0;
        for (int d = 0; d < p->ndevices; d++)
            high = p->load[d] > high ? p->load[d] : high;
        for (int o = gaps[i].from; o < gaps[i].to; o++)
            high += p->cost[o];
        for (int turn = 0; turn < 60; turn++) {
            double mid = (low + high) / 2;
            if (gaps_fit(p, &gaps[i], 1, mid))
                high = mid;
            else
                low = mid;
        }
        gap_assign(p, gaps[i].from, gaps[i].to, gaps[i].lo, gaps[i].hi, high * slack);
    }
}

/* Bytes of the values that are made before each operation and used at or after it. */
static void find_crossing(Placer *p)
{
    const Graph *g = p->g;
    int *last_use = ARENA_ARRAY(g->arena, int, g->values.n);
    for (int v = 0; v < g->values.n; v++)
        last_use[v] = NONE;
    for (int o = 0; o < p->nforward; o++)
        for (int i = 0; i < g->ops.at[o].nin; i++)
            if (g->ops.at[o].in[i] != NONE)
                last_use[g->ops.at[o].in[i]] = o;
    double *delta = ARENA_ARRAY(g->arena, double, p->nforward + 2);
    for (int v = 0; v < g->values.n; v++) {
        OpId def = g->values.at[v].def;
        if (def == NONE || def >= p->nforward || last_use[v] == NONE)
            continue;
        double bytes = (double)shape_count(&g->values.at[v].shape);
        delta[def + 1] += bytes;
        delta[last_use[v] + 1] -= bytes;
    }
    double alive = 0;
    for (int o = 0; o < p->nforward; o++)
        p->crossing[o] = alive += delta[o];
}

/* Bytes that an operation brings to its device: what it makes, for the micro-batches in
 * flight, and the weights that it is the first to use, with gradients and state. */
static void find_memory(Placer *p, const Model *m, int64_t samples)
{
    const Graph *g = p->g;
    bool *seen = ARENA_ARRAY(g->arena, bool, g->weights.n + 1);
    const Train *t = &m->settings.train;
    int copies = t->optimizer != OPTIMIZER_SGD ? 4 : t->momentum > 0 ? 3 : 2;
    for (OpId o = 0; o < p->nforward; o++) {
        const Op *op = &g->ops.at[o];
        for (int i = 0; i < op->nout && op->kind != OP_RESHAPE; i++)
            p->cost[o] +=
                (double)(shape_count(&g->values.at[op->out[i]].shape) * samples) * p->ndevices;
        for (int i = 0; i < op->nin; i++) {
            const Value *v = op->in[i] == NONE ? NULL : &g->values.at[op->in[i]];
            if (!v || v->kind != VALUE_WEIGHT || seen[v->index])
                continue;
            seen[v->index] = true;
            bool frozen = g->weights.at[v->index].frozen;
            p->cost[o] += (double)shape_count(&v->shape) * (frozen ? 1 : copies);
        }
    }
}

/* What the forward operation and its gradients cost. */
static void find_costs(Placer *p, const Model *m, int64_t samples)
{
    const Graph *g = p->g;
    if (m->settings.parallel.split == SPLIT_MEMORY) {
        find_memory(p, m, samples);
        return;
    }
    for (OpId o = 0; o < g->ops.n; o++) {
        const Op *op = &g->ops.at[o];
        OpId home = op->forward == NONE ? o : op->forward;
        p->cost[home] += cost_seconds(&m->settings.devices, cost_of(g, op, samples));
    }
}

/* Operations that only metrics need run in evaluation, next to their last operand. */
static void find_metric_only(const Graph *g, int nforward, bool *metric_only)
{
    bool *needed = ARENA_ARRAY(g->arena, bool, g->values.n);
    needed[g->loss] = true;
    for (OpId o = nforward; o < g->ops.n; o++)
        for (int i = 0; i < g->ops.at[o].nin; i++)
            if (g->ops.at[o].in[i] != NONE)
                needed[g->ops.at[o].in[i]] = true;
    for (OpId o = nforward - 1; o >= 0; o--) {
        const Op *op = &g->ops.at[o];
        bool any = false;
        for (int i = 0; i < op->nout; i++)
            any = any || needed[op->out[i]];
        metric_only[o] = !any;
        for (int i = 0; any && i < op->nin; i++)
            if (op->in[i] != NONE)
                needed[op->in[i]] = true;
    }
}

static void follow_operands(Placer *p, const bool *metric_only)
{
    const Graph *g = p->g;
    for (OpId o = 0; o < p->nforward; o++) {
        const Op *op = &g->ops.at[o];
        OpId latest = NONE;
        for (int i = 0; i < op->nin; i++)
            if (op->in[i] != NONE && g->values.at[op->in[i]].def > latest)
                latest = g->values.at[op->in[i]].def;
        if (metric_only[o] && op->device == NONE && latest != NONE)
            p->device[o] = p->device[latest];
    }
}

/* Groups the forward operations into chunks: from the first that is left, every
 * operation of its device whose operands are in chunks already. */
static void make_chunks(Placer *p, Placement *pl, int *chunk_device)
{
    const Graph *g = p->g;
    int left = p->nforward, first = 0;
    for (OpId o = 0; o < p->nforward; o++)
        pl->chunk_of[o] = NONE;
    while (left > 0) {
        while (pl->chunk_of[first] != NONE)
            first++;
        int chunk = pl->nchunks++, device = p->device[first];
        chunk_device[chunk] = device;
        for (OpId o = first; o < p->nforward; o++) {
            if (pl->chunk_of[o] != NONE || p->device[o] != device)
                continue;
            bool ready = true;
            const Op *op = &g->ops.at[o];
            for (int i = 0; i < op->nin && ready; i++) {
                OpId def = op->in[i] == NONE ? NONE : g->values.at[op->in[i]].def;
                ready = def == NONE || pl->chunk_of[def] != NONE;
            }
            if (ready)
                pl->chunk_of[o] = chunk, left--;
        }
    }
}

/* A backward operation is where its forward operation is, or where the latest of its
 * operands is made (backward runs from the last chunk to the first). */
static void place_backward(const Placer *p, Placement *pl)
{
    const Graph *g = p->g;
    for (OpId o = p->nforward; o < g->ops.n; o++) {
        const Op *op = &g->ops.at[o];
        int chunk = pl->chunk_of[op->forward];
        for (int i = 0; i < op->nin; i++) { /* a recompute region that is cut */
            ValueId was = op->in[i] == NONE ? NONE : g->original[op->in[i]];
            if (was != NONE && pl->chunk_of[g->values.at[was].def] != chunk)
                op->in[i] = was;
        }
        for (int i = 0; i < op->nin; i++) {
            OpId def = op->in[i] == NONE ? NONE : g->values.at[op->in[i]].def;
            if (def != NONE && def >= p->nforward && pl->chunk_of[def] < chunk)
                chunk = pl->chunk_of[def];
        }
        pl->chunk_of[o] = chunk;
    }
}

/* Numbers the devices that have work, in the order of their names. */
static void number_devices(const Placer *p, Placement *pl, const int *chunk_device, const Model *m,
                           Diag *d)
{
    Arena *a = p->g->arena;
    int *index = ARENA_ARRAY(a, int, p->ndevices);
    for (int c = 0; c < pl->nchunks; c++)
        index[chunk_device[c]] = 1;
    pl->device_number = ARENA_ARRAY(a, int, p->ndevices);
    for (int k = 0; k < p->ndevices; k++) {
        if (index[k]) {
            index[k] = pl->ndevices;
            pl->device_number[pl->ndevices++] = k;
        } else {
            diag_warning(d, m->settings.devices.at, "%s[%d] has nothing to do",
                         m->settings.devices.name, k);
            index[k] = NONE;
        }
    }
    pl->device_of = ARENA_ARRAY(a, int, pl->nchunks);
    for (int c = 0; c < pl->nchunks; c++)
        pl->device_of[c] = index[chunk_device[c]];
    /* a weight lives where it was put, or with its first use */
    const Graph *g = p->g;
    pl->weight_owner = ARENA_ARRAY(a, int, g->weights.n + 1);
    for (int w = 0; w < g->weights.n; w++) {
        int k = g->weights.at[w].device;
        pl->weight_owner[w] = k != NONE && k < p->ndevices ? index[k] : NONE;
    }
    for (OpId o = 0; o < g->ops.n; o++)
        for (int i = 0; i < g->ops.at[o].nin; i++) {
            ValueId v = g->ops.at[o].in[i];
            if (v == NONE || g->values.at[v].kind != VALUE_WEIGHT)
                continue;
            int w = g->values.at[v].index;
            if (pl->weight_owner[w] == NONE)
                pl->weight_owner[w] = pl->device_of[pl->chunk_of[o]];
        }
}

static int count_devices(const Model *m)
{
    const Graph *g = m->graph;
    if (m->settings.devices.count)
        return m->settings.devices.count;
    int n = 1;
    for (OpId o = 0; o < g->ops.n; o++)
        n = g->ops.at[o].device >= n ? g->ops.at[o].device + 1 : n;
    for (int w = 0; w < g->weights.n; w++)
        n = g->weights.at[w].device >= n ? g->weights.at[w].device + 1 : n;
    return n;
}

/* How often the data goes through all devices. An interleaved pipeline that the model does not
 * place itself is cut into that many pieces for each device. */
static int count_turns(const Model *m)
{
    const Graph *g = m->graph;
    if (m->settings.parallel.schedule != SCHEDULE_INTERLEAVED)
        return 1;
    for (OpId o = 0; o < g->ops.n; o++)
        if (g->ops.at[o].device != NONE)
            return 1;
    return 2;
}

static void find_roots(const Graph *g, Placement *pl)
{
    pl->root = ARENA_ARRAY(g->arena, ValueId, g->values.n);
    for (ValueId v = 0; v < g->values.n; v++)
        pl->root[v] = v;
    for (OpId o = 0; o < g->ops.n; o++) {
        const Op *op = &g->ops.at[o];
        if (op->kind == OP_RESHAPE)
            pl->root[op->out[0]] = pl->root[op->in[0]];
    }
}

Placement *place(Model *m, Diag *d)
{
    Graph *g = m->graph;
    Arena *a = g->arena;
    int nforward = 0;
    while (nforward < g->ops.n && g->ops.at[nforward].forward == NONE &&
           g->ops.at[nforward].phase == PHASE_F)
        nforward++;
    const int ndevices = count_devices(m);
    Placer p = {.g = g,
                .nforward = nforward,
                .ndevices = ndevices * count_turns(m),
                .device = ARENA_ARRAY(a, int, nforward + 1),
                .cost = ARENA_ARRAY(a, double, nforward + 1),
                .crossing = ARENA_ARRAY(a, double, nforward + 2)};
    p.load = ARENA_ARRAY(a, double, p.ndevices);
    Placement *pl = ARENA_NEW(a, Placement);
    pl->chunk_of = ARENA_ARRAY(a, int, g->ops.n + 1);
    pl->metric_only = ARENA_ARRAY(a, bool, g->ops.n + 1);
    find_metric_only(g, nforward, pl->metric_only);
    find_crossing(&p);
    find_costs(&p, m, m->settings.parallel.microbatch ? m->settings.parallel.microbatch : 8);
    for (OpId o = 0; o < nforward; o++) {
        p.device[o] = g->ops.at[o].device;
        if (pl->metric_only[o])
            p.cost[o] = 0;
        if (p.device[o] != NONE)
            p.load[p.device[o]] += p.cost[o];
    }
    Gap *gaps = ARENA_ARRAY(a, Gap, nforward + 1);
    assign_gaps(&p, gaps, find_gaps(&p, gaps));
    follow_operands(&p, pl->metric_only);
    int *chunk_device = ARENA_ARRAY(a, int, nforward + 1);
    make_chunks(&p, pl, chunk_device);
    for (int c = 0; c < pl->nchunks; c++)
        chunk_device[c] %= ndevices;
    p.ndevices = ndevices;
    place_backward(&p, pl);
    number_devices(&p, pl, chunk_device, m, d);
    find_roots(g, pl);
    return diag_errors(d) ? NULL : pl;
}

void default_microbatch(Model *m, const Placement *pl)
{
    if (m->settings.parallel.microbatch)
        return;
    int64_t batch = m->settings.train.batch, n = batch / (4 * (int64_t)pl->ndevices);
    n = n < 1 ? 1 : n;
    while (batch % n != 0)
        n--;
    m->settings.parallel.microbatch = n;
}
