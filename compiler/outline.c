/* outline.c - what a way of cutting a model into pieces would cost.
 *
 * In:  a Graph with its backward pass; seconds of its operations.
 * Out: units and the tensors that go between them; for a way of cutting, the time of a step.
 *
 * The time is that of an ideal pipeline: every device takes its runs in the order of the schedule,
 * a run begins when its device is free and what it reads has come, and a message takes the time of
 * its bytes. What the plan has besides (transfers that wait for others, buffers that must be free)
 * only adds to that.
 */
#include "outline.h"

#include "cost.h"
#include "profile.h"
#include "schedule.h"
#include "schedule_file.h"

/* --------------------------------------------------------------------------- the row */

/* How deep the innermost frame is that holds both. */
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

static int count_forward(const Graph *g)
{
    int n = 0;
    while (n < g->ops.n && g->ops.at[n].forward == NONE && g->ops.at[n].phase == PHASE_F)
        n++;
    return n;
}

/* Operations that only metrics need run in evaluation, next to their last operand. */
static bool *find_metric_only(Arena *a, const Graph *g, int nforward)
{
    bool *needed = ARENA_ARRAY(a, bool, g->values.n);
    bool *metric_only = ARENA_ARRAY(a, bool, g->ops.n + 1);
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
    return metric_only;
}

/* Does the operation take part in training, with some work? */
static bool has_work(const Outline *o, OpId op)
{
    return !o->metric_only[op] && o->model->graph->ops.at[op].kind != OP_RESHAPE;
}

static void find_units(Outline *o)
{
    const Graph *g = o->model->graph;
    bool open = false; /* the last unit has no work yet */
    for (OpId i = 0; i < o->nforward; i++) {
        const Op *op = &g->ops.at[i];
        Unit *last = o->units.n ? &o->units.at[o->units.n - 1] : NULL;
        const bool same = last && last->device == op->device;
        const bool joins =
            same && (open || !has_work(o, i) || g->ops.at[i - 1].statement == op->statement);
        if (!joins) {
            VEC_PUSH(
                o->arena, &o->units,
                (Unit){.first = i,
                       .device = op->device,
                       .depth = last ? common_depth(g, g->ops.at[i - 1].frame, op->frame) : 0});
            last = &o->units.at[o->units.n - 1];
            open = true;
        }
        open = open && !has_work(o, i);
        last->end = i + 1;
    }
}

static int *units_of_ops(const Outline *o)
{
    int *unit = ARENA_ARRAY(o->arena, int, o->model->graph->ops.n + 1);
    for (int u = 0; u < o->units.n; u++)
        for (OpId i = o->units.at[u].first; i < o->units.at[u].end; i++)
            unit[i] = u;
    for (OpId i = o->nforward; i < o->model->graph->ops.n; i++)
        unit[i] = unit[o->model->graph->ops.at[i].forward];
    return unit;
}

static void add_seconds(Outline *o, const int *unit)
{
    const Graph *g = o->model->graph;
    for (OpId i = 0; i < g->ops.n; i++) {
        Unit *u = &o->units.at[unit[i]];
        if (i < o->nforward) {
            u->forward += o->metric_only[i] ? 0 : o->seconds[i];
        } else if (g->ops.at[i].phase == PHASE_W) {
            u->weights += o->seconds[i];
            u->has_weights = u->has_weights || g->ops.at[i].kind != OP_RESHAPE;
        } else {
            u->inward += o->seconds[i];
            u->has_inward = u->has_inward || g->ops.at[i].kind != OP_RESHAPE;
        }
    }
}

/* Weights belong to the unit that is the first to use them. */
static void add_weights(Outline *o)
{
    const Graph *g = o->model->graph;
    const Train *t = &o->model->settings.train;
    const int each = t->precision == PRECISION_F64 ? 8 : 4;
    const int states = t->optimizer != OPTIMIZER_SGD ? 2 : t->momentum > 0 ? 1 : 0;
    bool *seen = ARENA_ARRAY(o->arena, bool, g->weights.n + 1);
    for (int u = 0; u < o->units.n; u++)
        for (OpId i = o->units.at[u].first; i < o->units.at[u].end; i++)
            for (int k = 0; k < g->ops.at[i].nin; k++) {
                const ValueId v = g->ops.at[i].in[k];
                if (v == NONE || g->values.at[v].kind != VALUE_WEIGHT ||
                    seen[g->values.at[v].index])
                    continue;
                const Weight *w = &g->weights.at[g->values.at[v].index];
                const int64_t n = shape_count(&w->shape);
                const int copies = w->frozen ? 1 : 2 + states;
                seen[g->values.at[v].index] = true;
                o->units.at[u].fixed += copies * round_up(n * each, BUFFER_ALIGN) +
                                        (w->half != NONE ? round_up(n * 2, BUFFER_ALIGN) : 0);
                if (!w->frozen)
                    o->units.at[u].update += cost_seconds(
                        &o->model->settings.devices, (Cost){0, 2.0 * (double)(copies * n * each)});
            }
}

ValueId outline_root(const Graph *g, ValueId v)
{
    while (g->values.at[v].def != NONE && g->ops.at[g->values.at[v].def].kind == OP_RESHAPE)
        v = g->ops.at[g->values.at[v].def].in[0];
    return v;
}

/* Whether a gradient comes back to the value: it depends on a weight that is trained. */
static bool *find_trained(const Outline *o)
{
    const Graph *g = o->model->graph;
    bool *trained = ARENA_ARRAY(o->arena, bool, g->values.n + 1);
    for (WeightId w = 0; w < g->weights.n; w++) {
        trained[g->weights.at[w].value] = !g->weights.at[w].frozen;
        if (g->weights.at[w].half != NONE)
            trained[g->weights.at[w].half] = !g->weights.at[w].frozen;
    }
    for (OpId i = 0; i < o->nforward; i++)
        for (int k = 0; k < g->ops.at[i].nin; k++)
            for (int r = 0; r < g->ops.at[i].nout; r++)
                if (g->ops.at[i].in[k] != NONE && trained[g->ops.at[i].in[k]])
                    trained[g->ops.at[i].out[r]] = true;
    return trained;
}

int64_t outline_bytes(const Outline *o, ValueId v)
{
    const Value *x = &o->model->graph->values.at[v];
    const bool wide = o->model->settings.train.precision == PRECISION_F64 && x->type == DT_F32;
    const int each = x->type == DT_U8 ? 1 : dtype_is_half(x->type) ? 2 : wide ? 8 : 4;
    return shape_count(&x->shape) * each * (x->batched ? o->microbatch : 1);
}

/* What one unit makes and others, or its backward pass, read. */
static void find_flows(Outline *o, const int *unit)
{
    const Graph *g = o->model->graph;
    const bool *trained = find_trained(o);
    int *flow = ARENA_ARRAY(o->arena, int, g->values.n + 1); /* 1 + number, by root */
    bool *late = ARENA_ARRAY(o->arena, bool, g->values.n + 1);
    int *keeper = ARENA_ARRAY(o->arena, int, g->values.n + 1); /* 1 + unit, by root */
    for (OpId i = 0; i < g->ops.n; i++) {
        if (i < o->nforward && !has_work(o, i))
            continue;
        for (int k = 0; k < g->ops.at[i].nin; k++) {
            const ValueId v =
                g->ops.at[i].in[k] == NONE ? NONE : outline_root(g, g->ops.at[i].in[k]);
            const OpId def = v == NONE ? NONE : g->values.at[v].def;
            if (def >= o->nforward && g->ops.at[i].phase == PHASE_W &&
                g->ops.at[def].phase == PHASE_B && !late[v]) {
                o->units.at[unit[def]].late += round_up(outline_bytes(o, v), BUFFER_ALIGN);
                late[v] = true;
            }
            if (def == NONE || def >= o->nforward)
                continue;
            if (i >= o->nforward) {
                if (!keeper[v] || unit[i] + 1 < keeper[v])
                    keeper[v] = unit[i] + 1;
                continue;
            }
            if (unit[def] == unit[i])
                continue;
            if (!flow[v]) {
                VEC_PUSH(o->arena, &o->flows,
                         (Flow){.maker = unit[def],
                                .bytes = outline_bytes(o, v),
                                .gradient = trained[v],
                                .readers = ARENA_ARRAY(o->arena, int, 4)});
                flow[v] = o->flows.n;
            }
            Flow *f = &o->flows.at[flow[v] - 1];
            if (f->nreaders && f->readers[f->nreaders - 1] == unit[i])
                continue;
            if (f->nreaders >= 4 && (f->nreaders & (f->nreaders - 1)) == 0) {
                int *more = ARENA_ARRAY(o->arena, int, 2 * f->nreaders);
                for (int r = 0; r < f->nreaders; r++)
                    more[r] = f->readers[r];
                f->readers = more;
            }
            f->readers[f->nreaders++] = unit[i];
        }
    }
    /* a device that only sends a tensor keeps none */
    for (ValueId v = 0; v < g->values.n; v++)
        if (keeper[v])
            o->units.at[keeper[v] - 1].kept += round_up(outline_bytes(o, v), BUFFER_ALIGN);
    double *delta = ARENA_ARRAY(o->arena, double, o->units.n + 2), alive = 0;
    for (int f = 0; f < o->flows.n; f++) {
        const Flow *x = &o->flows.at[f];
        delta[x->maker + 1] += (double)x->bytes;
        delta[x->readers[x->nreaders - 1] + 1] -= (double)x->bytes;
    }
    for (int u = 0; u < o->units.n; u++)
        o->units.at[u].crossing = alive += delta[u];
}

/* ------------------------------------------------------------------------ how many */

static int count_devices(const Model *m)
{
    const Graph *g = m->graph;
    if (m->settings.devices.count)
        return m->settings.devices.count;
    if (m->settings.parallel.file && !schedule_model_places(m))
        return m->settings.parallel.file->ndevices;
    int n = 1;
    for (OpId o = 0; o < g->ops.n; o++)
        n = g->ops.at[o].device >= n ? g->ops.at[o].device + 1 : n;
    for (int w = 0; w < g->weights.n; w++)
        n = g->weights.at[w].device >= n ? g->weights.at[w].device + 1 : n;
    return n;
}

/* Whether a file says how many pieces there are, and where. */
static bool is_from_file(const Outline *o)
{
    return o->model->settings.parallel.file && !schedule_model_places(o->model);
}

/* How often the data goes through all devices: a pipeline that the model does not place itself is
 * cut into that many pieces for each device. */
static int count_turns(const Outline *o)
{
    const Parallel *p = &o->model->settings.parallel;
    for (int u = 0; u < o->units.n; u++)
        if (o->units.at[u].device != NONE)
            return 1;
    return p->chunks                                                             ? p->chunks
           : p->schedule == SCHEDULE_INTERLEAVED || p->schedule == SCHEDULE_ZB_V ? 2
                                                                                 : 1;
}

/* Round and round, or there and back again, or as a file says. */
static const int *place_pieces(const Outline *o)
{
    if (is_from_file(o))
        return o->model->settings.parallel.file->device_of;
    int *device = ARENA_ARRAY(o->arena, int, o->npieces);
    for (int k = 0; k < o->npieces; k++) {
        const int turn = k / o->ndevices, at = k % o->ndevices;
        const bool back = o->model->settings.parallel.schedule == SCHEDULE_ZB_V && turn % 2;
        device[k] = back ? o->ndevices - 1 - at : at;
    }
    return device;
}

/* Devices that will have work: those annotated, and those between two annotated ones (or an end)
 * where something in between is not. */
static int count_stages(const Outline *o)
{
    bool *used = ARENA_ARRAY(o->arena, bool, o->ndevices);
    int before = 0, n = 0;
    for (int u = 0; u < o->units.n;) {
        if (o->units.at[u].device != NONE) {
            before = o->units.at[u++].device;
            used[before] = true;
            continue;
        }
        while (u < o->units.n && o->units.at[u].device == NONE)
            u++;
        const int after = u < o->units.n ? o->units.at[u].device : o->ndevices - 1;
        for (int d = before; d <= after; d++)
            used[d] = true;
        used[before] = true;
    }
    for (int d = 0; d < o->ndevices; d++)
        n += used[d];
    return n < o->units.n ? n : o->units.n;
}

static void find_microbatch(Outline *o, Model *m)
{
    if (!m->settings.parallel.microbatch) {
        const int64_t batch = m->settings.train.batch;
        int64_t n = batch / (4 * (int64_t)count_stages(o));
        n = n < 1 ? 1 : n;
        while (batch % n != 0)
            n--;
        m->settings.parallel.microbatch = n;
    }
    o->microbatch = m->settings.parallel.microbatch;
    o->microbatches = (int)(m->settings.train.batch / o->microbatch);
}

void outline_shape(Outline *o)
{
    o->ndevices = count_devices(o->model);
    o->npieces =
        is_from_file(o) ? o->model->settings.parallel.file->nchunks : o->ndevices * count_turns(o);
    o->device_of = place_pieces(o);
}

Outline *outline_make(Arena *a, Model *m)
{
    const Graph *g = m->graph;
    Outline *o = ARENA_NEW(a, Outline);
    *o = (Outline){
        .arena = a, .model = m, .nforward = count_forward(g), .ndevices = count_devices(m)};
    o->metric_only = find_metric_only(a, g, o->nforward);
    find_units(o);
    find_microbatch(o, m);
    outline_shape(o);
    double *seconds = cost_table(a, g, &m->settings.devices, o->microbatch);
    if (m->profile)
        profile_apply(m->profile, g, seconds);
    o->seconds = seconds;
    const int *unit = units_of_ops(o);
    add_seconds(o, unit);
    add_weights(o);
    find_flows(o, unit);
    return o;
}

/* --------------------------------------------------------------------------- a look */

typedef struct {
    const Outline *o;
    Arena *arena;
    Program program; /* chunks and devices alone: what schedule() reads */
    int *chunk_of;   /* [units] */
} Look;

/* As place() groups operations: from the first unit that is left, every unit of its piece whose
 * operands are in chunks already. */
static void look_chunks(Look *l, const int *piece)
{
    const Outline *o = l->o;
    const int n = o->units.n;
    int *ready = ARENA_ARRAY(l->arena, int, n + 1); /* 1 + the last unit that must be in a chunk */
    bool simple = true;
    for (int u = 1; u < n; u++)
        simple = simple && piece[u] >= piece[u - 1];
    for (int u = 0; u < n; u++)
        l->chunk_of[u] = NONE;
    (void)ready;
    for (int first = 0, left = n; left > 0;) {
        while (l->chunk_of[first] != NONE)
            first++;
        const int chunk = l->program.chunks.n;
        VEC_PUSH(l->arena, &l->program.chunks,
                 (Chunk){.device = o->device_of[piece[first]], .number = chunk});
        if (simple) {
            for (int u = first; u < n && piece[u] == piece[first]; u++, left--)
                l->chunk_of[u] = chunk;
            continue;
        }
        bool *waits = ARENA_ARRAY(l->arena, bool, n + 1);
        for (int u = first; u < n; u++)
            waits[u] = l->chunk_of[u] == NONE && piece[u] != piece[first];
        /* flows are in the order of their makers' first readers: settle until nothing changes */
        for (bool moved = true; moved;) {
            moved = false;
            for (int f = 0; f < o->flows.n; f++) {
                const Flow *x = &o->flows.at[f];
                for (int r = 0; r < x->nreaders && waits[x->maker]; r++)
                    if (!waits[x->readers[r]] && l->chunk_of[x->readers[r]] == NONE)
                        waits[x->readers[r]] = moved = true;
            }
        }
        for (int u = first; u < n; u++)
            if (l->chunk_of[u] == NONE && !waits[u])
                l->chunk_of[u] = chunk, left--;
    }
}

static void look_runs(Look *l)
{
    const Outline *o = l->o;
    const bool split = schedule_splits(o->model->settings.parallel.schedule);
    for (int u = 0; u < o->units.n; u++) {
        const Unit *x = &o->units.at[u];
        Chunk *c = &l->program.chunks.at[l->chunk_of[u]];
        const RunKind inward = split ? RUN_I : RUN_B, weights = split ? RUN_W : RUN_B;
        c->has[RUN_F] = true;
        c->has[inward] = c->has[inward] || x->has_inward;
        c->has[weights] = c->has[weights] || x->has_weights;
        c->seconds[RUN_F] += x->forward;
        c->seconds[inward] += x->inward;
        c->seconds[weights] += x->weights;
    }
    int *index = ARENA_ARRAY(l->arena, int, o->ndevices);
    for (int c = 0; c < l->program.chunks.n; c++)
        index[l->program.chunks.at[c].device] = 1;
    for (int d = 0; d < o->ndevices; d++)
        if (index[d]) {
            index[d] = l->program.devices.n;
            VEC_PUSH(l->arena, &l->program.devices, (Device){.number = d});
        }
    for (int c = 0; c < l->program.chunks.n; c++) {
        Chunk *x = &l->program.chunks.at[c];
        x->device = index[x->device];
        VEC_PUSH(l->arena, &l->program.devices.at[x->device].chunks, c);
    }
}

/* A message from one chunk to another. */
static void add_message(Look *l, int from, int to, bool back, int64_t bytes)
{
    Program *p = &l->program;
    Chunk *c = &p->chunks.at[to];
    const RunKind run = back ? (RunKind)back_of(c) : RUN_F;
    int i = 0;
    while (i < c->after[run].n && c->after[run].at[i] != from)
        i++;
    if (i == c->after[run].n)
        VEC_PUSH(l->arena, &c->after[run], from);
    if (bytes && p->chunks.at[from].device != c->device)
        VEC_PUSH(l->arena, &p->links,
                 (Link){.kind = back ? LINK_GRADIENT : LINK_ACTIVATION,
                        .from = p->chunks.at[from].device,
                        .to = c->device,
                        .from_chunk = from,
                        .to_chunk = to,
                        .bytes = bytes});
}

/* The value goes to every chunk that reads it; its gradient comes back through all of them. */
static void look_messages(Look *l)
{
    for (int f = 0; f < l->o->flows.n; f++) {
        const Flow *x = &l->o->flows.at[f];
        const int maker = l->chunk_of[x->maker];
        const Chunk *chunks = l->program.chunks.at;
        for (int r = 0; r < x->nreaders; r++) {
            const int to = l->chunk_of[x->readers[r]];
            int before = maker; /* the nearest earlier chunk that reads it */
            bool again = to == maker, same_device = false;
            for (int k = 0; k < r; k++) {
                const int other = l->chunk_of[x->readers[k]];
                again = again || other == to;
                same_device = same_device || chunks[other].device == chunks[to].device;
                before = other < to && other > before ? other : before;
            }
            if (again)
                continue;
            add_message(l, maker, to, false, same_device ? 0 : x->bytes);
            if (x->gradient && back_of(&chunks[to]) != NONE && back_of(&chunks[before]) != NONE)
                add_message(l, to, before, true, x->bytes);
        }
    }
}

/* How many micro-batches of a chunk the device itself holds. */
static int held_there(const Look *l, const Pace *pace, int chunk)
{
    const Settings *s = &l->o->model->settings;
    const bool away = s->parallel.offload != OFFLOAD_NONE && s->devices.host_link > 0 &&
                      offload_pays(pace->held[chunk], pace->waiting[chunk]);
    return away ? OFFLOAD_SLOTS + pace->waiting[chunk] : pace->held[chunk];
}

/* From a step to the next, with the updates. */
static double find_period(const Look *l, const Pace *pace)
{
    const Program *p = &l->program;
    double *update = ARENA_ARRAY(l->arena, double, p->devices.n), most = 0;
    for (int u = 0; u < l->o->units.n; u++)
        update[p->chunks.at[l->chunk_of[u]].device] += l->o->units.at[u].update;
    for (int d = 0; d < p->devices.n; d++)
        most = pace->spans[d] + update[d] > most ? pace->spans[d] + update[d] : most;
    return most;
}

/* The order of the schedule for a way of cutting. The graph is for its arena alone. */
static Pace look_pace(Look *l, Graph *graph, const Outline *o, const int *piece)
{
    *l = (Look){.o = o,
                .arena = graph->arena,
                .program = {.graph = graph, .model = o->model, .microbatches = o->microbatches},
                .chunk_of = ARENA_ARRAY(graph->arena, int, o->units.n + 1)};
    look_chunks(l, piece);
    look_runs(l);
    look_messages(l);
    const Parallel *s = &o->model->settings.parallel;
    const SlotList *lists = s->file && s->file->nchunks == l->program.chunks.n
                                ? schedule_file_runs(s->file, &l->program)
                                : schedule(&l->program, s->schedule, false);
    return schedule_pace(l->arena, &l->program, lists);
}

Outlook outline_look(const Outline *o, const int *piece)
{
    Graph none = {.arena = arena_new()};
    Look l;
    const Pace pace = look_pace(&l, &none, o, piece);
    Outlook out = {.seconds = find_period(&l, &pace)};
    double *bytes = ARENA_ARRAY(l.arena, double, l.program.devices.n);
    for (int u = 0; u < o->units.n; u++) {
        const int c = l.chunk_of[u], d = l.program.chunks.at[c].device;
        bytes[d] += (double)o->units.at[u].fixed +
                    (double)o->units.at[u].kept * held_there(&l, &pace, c) +
                    (double)o->units.at[u].late * pace.waiting[c];
        if (u > 0 && piece[u] != piece[u - 1]) {
            const int before = l.program.chunks.at[l.chunk_of[u - 1]].device;
            const double slots = CROSSING_SLOTS * o->units.at[u].crossing;
            bytes[d] += before == d ? 0 : slots;
            bytes[before] += before == d ? 0 : slots;
        }
    }
    for (int d = 0; d < l.program.devices.n; d++) {
        out.bytes = bytes[d] > out.bytes ? bytes[d] : out.bytes;
    }
    arena_free(none.arena);
    return out;
}

OutlineHeld outline_held(const Outline *o, const int *piece, Arena *a)
{
    Graph none = {.arena = arena_new()};
    Look l;
    const Pace pace = look_pace(&l, &none, o, piece);
    const OutlineHeld out = {.kept = ARENA_ARRAY(a, int, o->units.n + 1),
                             .late = ARENA_ARRAY(a, int, o->units.n + 1)};
    for (int u = 0; u < o->units.n; u++) {
        out.kept[u] = held_there(&l, &pace, l.chunk_of[u]);
        out.late[u] = pace.waiting[l.chunk_of[u]];
    }
    arena_free(none.arena);
    return out;
}
