/* lower.c - from placed operations to the phases and buffers of each device.
 *
 * In:  the Graph with backward and fused operations, and where they are.
 * Out: a Program whose devices have phases (calls and loops), buffers without addresses,
 *      weights, and the links between devices; actions, slots and offsets come later.
 *
 * For every device, chunk by chunk in the order of the data: F; then E, what only metrics
 * need; then, from the last chunk to the first, B. A tensor gets a buffer on the device that
 * makes it; an operand that another device makes gets a buffer here and a link that fills it,
 * once per device; an input gets a buffer and a load at the start of the first phase that
 * reads it.
 *
 * A tied weight has a copy on every device that uses it. The devices send the sums of their
 * gradients to the owner, which adds them in the order of the uses, updates, and sends the
 * new weight back.
 */
#include "lower.h"

#include <string.h>

#include "cost.h"

/* --------------------------------------------------------------------- buffers */

ValueId lower_root(const Lower *l, ValueId v)
{
    return l->pl->root[v];
}

static Device *here(Lower *l)
{
    return &l->p->devices.at[l->device];
}

int lower_add_buffer(Lower *l, ValueId v, int count, BufferClass class, const char *label)
{
    const Value *x = &l->g->values.at[v];
    Device *d = here(l);
    bool gradient =
        x->def != NONE && l->g->ops.at[x->def].forward != NONE && !l->g->ops.at[x->def].again;
    int64_t size = value_bytes(l->p, v);
    const char *kind = class == BUFFER_WEIGHT  ? "w"
                       : class == BUFFER_GRAD  ? "g"
                       : class == BUFFER_STATE ? "o"
                       : gradient              ? "d"
                                               : "v";
    Buffer b = {.class = class,
                .value = v,
                .count = count,
                .ring = count,
                .slots = 1,
                .size = size,
                .stride = round_up(size, BUFFER_ALIGN),
                .name = lower_unique_name(l, label, kind),
                .gradient = gradient,
                .link = NONE};
    VEC_PUSH(l->arena, &d->buffers, b);
    if (d->buffers.n > l->entry_cap) {
        int cap = d->buffers.n * 2 + 64;
        ValueId *entry = ARENA_ARRAY(l->arena, ValueId, cap);
        if (l->entry_cap)
            memcpy(entry, l->entry, sizeof *entry * (size_t)l->entry_cap);
        l->entry = entry;
        l->entry_cap = cap;
    }
    l->entry[d->buffers.n - 1] = NONE;
    return d->buffers.n - 1;
}

void lower_set_home(Lower *l, ValueId v, int buffer, int member)
{
    ValueId root = lower_root(l, v);
    if (l->home[root].buffer == NONE)
        VEC_PUSH(l->arena, &l->touched, root);
    l->home[root] = (Home){buffer, member};
    if (l->travels[root]) {
        OpId def = l->g->values.at[root].def;
        if (def != NONE && l->pl->device_of[l->pl->chunk_of[def]] == l->device)
            l->source[root] = (Home){buffer, member};
    }
}

void lower_add_weights(Lower *l, WeightRun run)
{
    int uses = l->uses[run.weight];
    run.grad = ARENA_ARRAY(l->arena, int, uses + 1);
    for (int u = 0; u < uses; u++)
        run.grad[u] = NONE;
    VEC_PUSH(l->arena, &here(l)->weights, run);
}

/* The buffer for the sums of one use of the weights of a run, made at its first use. */
static int grad_buffer(Lower *l, WeightRun *run, int use)
{
    if (run->grad[use] == NONE) {
        int count = run->count;
        const char *label = arena_printf(l->arena, "%s%s%s", run->prefix, run->suffix,
                                         use ? arena_printf(l->arena, ".use_%d", use) : "");
        ValueId like = l->g->weights.at[run->weight].value;
        run->grad[use] = lower_add_buffer(l, like, count, BUFFER_GRAD, label);
    }
    return run->grad[use];
}

WeightRun *lower_run_of(Lower *l, int buffer)
{
    Device *d = here(l);
    for (int i = 0; i < d->weights.n; i++)
        if (d->weights.at[i].buffer == buffer)
            return &d->weights.at[i];
    return NULL;
}

/* The rounded copies of a run of weights on the device under way; nothing is at home yet. */
int lower_add_halves(Lower *l, WeightRun *run)
{
    const Weight *w = &l->g->weights.at[run->weight];
    const char *label = arena_printf(l->arena, "%s%s.%s", run->prefix, run->suffix,
                                     dtype_name(l->g->values.at[w->half].type));
    run->half = lower_add_buffer(l, w->half, run->count, BUFFER_WEIGHT, label);
    return run->half;
}

/* Where the copy of a weight is that is at home already, or made so. */
static Home half_home(Lower *l, ValueId root)
{
    const Weight *w = &l->g->weights.at[l->g->values.at[root].index];
    Home whole = lower_home(l, w->value);
    WeightRun *run = lower_run_of(l, whole.buffer);
    if (run->half == NONE)
        lower_add_halves(l, run);
    lower_set_home(l, root, run->half, whole.member);
    return l->home[root];
}

static Home weight_home(Lower *l, ValueId root)
{
    int w = l->g->values.at[root].index;
    const char *name = l->g->weights.at[w].name;
    if (root == l->g->weights.at[w].half)
        return half_home(l, root);
    int b = lower_add_buffer(l, root, 1, BUFFER_WEIGHT, name);
    lower_set_home(l, root, b, 0);
    NamePattern p = pattern_single(name);
    WeightRun run = {.weight = w,
                     .count = 1,
                     .buffer = b,
                     .half = NONE,
                     .prefix = p.prefix,
                     .suffix = p.suffix,
                     .first = p.first};
    lower_add_weights(l, run);
    return l->home[root];
}

/* An input is loaded by the first phase that reads it; what another device makes comes
 * over a link. */
static Home arriving_home(Lower *l, ValueId root)
{
    const Value *v = &l->g->values.at[root];
    int b = lower_add_buffer(l, root, 1, BUFFER_SCRATCH, lower_label(l, root));
    lower_set_home(l, root, b, 0);
    if (v->kind == VALUE_INPUT)
        return l->home[root];
    const Op *op = &l->g->ops.at[v->def];
    int from_chunk = l->pl->chunk_of[v->def];
    Link link = {.kind = op->forward == NONE ? LINK_ACTIVATION : LINK_GRADIENT,
                 .from = l->pl->device_of[from_chunk],
                 .to = l->device,
                 .from_chunk = from_chunk,
                 .to_chunk = l->chunk,
                 .value = root,
                 .target = {.buffer = b, .entry = NONE, .value = root},
                 .bytes = value_bytes(l->p, root),
                 .name = lower_label(l, root)};
    here(l)->buffers.at[b].link = l->p->links.n;
    here(l)->buffers.at[b].class = BUFFER_KEPT;
    VEC_PUSH(l->arena, &l->p->links, link);
    return l->home[root];
}

Home lower_home(Lower *l, ValueId v)
{
    const Value *x = &l->g->values.at[v];
    if (x->kind == VALUE_GRAD) {
        Home w = l->home[l->g->weights.at[x->index].value];
        WeightRun *run = lower_run_of(l, w.buffer);
        return (Home){grad_buffer(l, run, x->use), w.member};
    }
    ValueId root = lower_root(l, v);
    if (l->home[root].buffer != NONE)
        return l->home[root];
    return l->g->values.at[root].kind == VALUE_WEIGHT ? weight_home(l, root)
                                                      : arriving_home(l, root);
}

Ref lower_ref(Lower *l, ValueId v)
{
    Ref r = {.buffer = NONE, .entry = NONE, .value = v};
    if (v == NONE || l->g->values.at[v].kind == VALUE_CONST)
        return r;
    Home h = lower_home(l, v);
    r.buffer = h.buffer;
    r.at = h.member;
    return r;
}

/* ---------------------------------------------------------------------- phases */

typedef VEC(int) IntList;

static void run_after(Lower *l, Chunk *c, RunKind kind, int other)
{
    for (int k = 0; k < c->after[kind].n; k++)
        if (c->after[kind].at[k] == other)
            return;
    VEC_PUSH(l->arena, &c->after[kind], other);
}

/* An input that this phase is the first on its device to read is loaded at its start; where
 * the F of a chunk before has loaded it, this phase comes after that. E, lowered last, may
 * find that a chunk behind it loads the input: it loads it, too. */
static void find_input(Lower *l, Chunk *c, ValueId root, IntList *inputs)
{
    int input = l->g->values.at[root].index;
    bool first = l->home[root].buffer == NONE;
    if (first)
        l->loader[input] = l->kind == RUN_F ? c->number : NONE;
    int loader = l->loader[input];
    lower_home(l, root);
    for (int i = 0; i < inputs->n; i++)
        if (inputs->at[i] == input)
            return;
    if (first || (l->kind == RUN_E && (loader == NONE || loader > c->number)))
        VEC_PUSH(l->arena, inputs, input);
    else if (!run_goes_back(l->kind) && loader != NONE && loader != c->number)
        run_after(l, c, l->kind, loader);
}

static int chunk_of_value(const Lower *l, ValueId v)
{
    OpId def = l->g->values.at[lower_root(l, v)].def;
    return def == NONE ? 0 : l->pl->chunk_of[def];
}

static void add_loads(Lower *l, Chunk *c, Run *run, const OpId *ops, int n)
{
    IntList inputs = {0};
    for (int i = 0; i < n; i++) {
        const Op *op = &l->g->ops.at[ops[i]];
        for (int k = 0; k < op->nin; k++) {
            ValueId root = op->in[k] == NONE ? NONE : lower_root(l, op->in[k]);
            if (root != NONE && l->g->values.at[root].kind == VALUE_INPUT)
                find_input(l, c, root, &inputs);
        }
    }
    for (int i = 0; l->kind == RUN_E && i < l->g->metrics.n; i++) {
        ValueId root = lower_root(l, l->g->metrics.at[i].value);
        if (l->g->values.at[root].kind == VALUE_INPUT && chunk_of_value(l, root) == c->number)
            find_input(l, c, root, &inputs);
    }
    if (inputs.n)
        VEC_PUSH(l->arena, &run->steps, (Step){.turns = 1, .ncalls = inputs.n});
    for (int i = 0; i < inputs.n; i++) {
        Call call = {.kind = CALL_LOAD, .input = inputs.at[i], .nout = 1};
        call.out = ARENA_NEW(l->arena, Ref);
        call.out[0] = lower_ref(l, l->g->inputs.at[inputs.at[i]].value);
        VEC_PUSH(l->arena, &run->calls, call);
    }
}

static void add_report(Lower *l, Run *run, CallKind kind, int number, ValueId v)
{
    Call call = {.kind = kind, .op = NONE, .input = number, .nin = 1};
    call.in = ARENA_NEW(l->arena, Ref);
    call.in[0] = lower_ref(l, v);
    if (!run->steps.n || run->steps.at[run->steps.n - 1].turns > 1)
        VEC_PUSH(l->arena, &run->steps, (Step){.first = run->calls.n, .turns = 1});
    VEC_PUSH(l->arena, &run->calls, call);
    run->steps.at[run->steps.n - 1].ncalls++;
}

/* Which other chunks make operands of the operation. */
static void add_dependencies(Lower *l, Chunk *c, RunKind kind, const Op *op)
{
    for (int i = 0; i < op->nin; i++) {
        OpId def = op->in[i] == NONE ? NONE : l->g->values.at[lower_root(l, op->in[i])].def;
        if (def == NONE || l->pl->chunk_of[def] == c->number)
            continue;
        int other = l->pl->chunk_of[def];
        if (run_goes_back(kind) && l->g->ops.at[def].forward == NONE)
            continue; /* it came with this chunk's own F */
        run_after(l, c, kind, other);
    }
}

static void lower_run(Lower *l, int chunk, RunKind kind, const OpId *ops, int n)
{
    Chunk *c = &l->p->chunks.at[chunk];
    Run *run = &c->run[kind];
    l->chunk = chunk;
    l->kind = kind;
    add_loads(l, c, run, ops, n);
    roll(l, run, ops, n, run_goes_back(kind));
    if (kind == RUN_F && chunk_of_value(l, l->g->loss) == chunk)
        add_report(l, run, CALL_LOSS, 0, l->g->loss);
    for (int i = 0; kind == RUN_E && i < l->g->metrics.n; i++)
        if (chunk_of_value(l, l->g->metrics.at[i].value) == chunk)
            add_report(l, run, CALL_METRIC, i, l->g->metrics.at[i].value);
    c->has[kind] = kind == RUN_F || run->calls.n > 0;
    for (int i = 0; i < n; i++) {
        Cost cost = cost_of(l->g, &l->g->ops.at[ops[i]], l->p->microbatch);
        c->flops[kind] += cost.flops;
        c->seconds[kind] += l->pl->seconds[ops[i]];
        add_dependencies(l, c, kind, &l->g->ops.at[ops[i]]);
    }
}

/* ----------------------------------------------------------------- tied weights */

static void add_tied_link(Lower *l, LinkKind kind, int from, int to, int source, int target,
                          ValueId value, const char *name)
{
    Link link = {.kind = kind,
                 .from = from,
                 .to = to,
                 .from_chunk = NONE,
                 .to_chunk = NONE,
                 .value = value,
                 .source = {.buffer = source, .entry = NONE, .value = value},
                 .target = {.buffer = target, .entry = NONE, .value = value},
                 .bytes = value_bytes(l->p, value),
                 .name = name};
    l->p->devices.at[to].buffers.at[target].link = l->p->links.n;
    VEC_PUSH(l->arena, &l->p->links, link);
}

static WeightRun *find_weight(Device *d, WeightId w)
{
    for (int i = 0; i < d->weights.n; i++) {
        WeightRun *r = &d->weights.at[i];
        for (int k = 0; k < r->count; k++)
            if (r->weight + k * r->step == w)
                return r;
    }
    return NULL;
}

/* Gradients of a shared weight go to its owner, the new weight back. */
static void tie(Lower *l, WeightId w)
{
    Program *p = l->p;
    int owner = l->pl->weight_owner[w];
    const Weight *weight = &l->g->weights.at[w];
    l->device = owner;
    WeightRun *home = find_weight(&p->devices.at[owner], w);
    for (int u = 0; u < l->uses[w]; u++) {
        for (int d = 0; d < p->devices.n; d++) {
            WeightRun *copy = d == owner ? NULL : find_weight(&p->devices.at[d], w);
            if (!copy || copy->grad[u] == NONE)
                continue;
            int target = grad_buffer(l, home, u);
            add_tied_link(l, LINK_WEIGHT_GRADIENT, d, owner, copy->grad[u], target, weight->value,
                          weight->name);
            home = find_weight(&p->devices.at[owner], w);
        }
    }
    for (int d = 0; d < p->devices.n; d++) {
        WeightRun *copy = d == owner ? NULL : find_weight(&p->devices.at[d], w);
        if (copy && l->uses[w] > 0)
            add_tied_link(l, LINK_WEIGHT, owner, d, home->buffer, copy->buffer, weight->value,
                          weight->name);
    }
}

static void find_shared(Lower *l)
{
    const Graph *g = l->g;
    int *first = ARENA_ARRAY(l->arena, int, g->weights.n + 1);
    for (int w = 0; w < g->weights.n; w++)
        first[w] = l->pl->weight_owner[w];
    for (OpId o = 0; o < g->ops.n; o++) {
        const Op *op = &g->ops.at[o];
        int d = l->pl->device_of[l->pl->chunk_of[o]];
        for (int i = 0; i < op->nin; i++) {
            if (op->in[i] == NONE)
                continue;
            ValueId root = lower_root(l, op->in[i]);
            const Value *v = &g->values.at[root];
            if (v->kind == VALUE_WEIGHT && first[v->index] != d)
                l->shared[v->index] = true;
            if (v->def != NONE && l->pl->device_of[l->pl->chunk_of[v->def]] != d)
                l->travels[root] = true;
        }
        for (int i = 0; i < op->nout; i++) {
            const Value *v = op->out[i] == NONE ? NULL : &g->values.at[op->out[i]];
            if (v && v->kind == VALUE_GRAD && v->use >= l->uses[v->index])
                l->uses[v->index] = v->use + 1;
        }
    }
}

/* --------------------------------------------------------------------- the pass */

static void begin_device(Lower *l, int device)
{
    l->device = device;
    for (int i = 0; i < l->touched.n; i++)
        l->home[l->touched.at[i]].buffer = NONE;
    l->touched.n = 0;
}

/* Operations by chunk and phase, in order: a counting sort. */
typedef struct {
    OpId *ops;
    int *first; /* [chunks * RUN_KINDS + 1] */
} Lists;

/* Which operations are W where the backward pass is in two: those that nothing in I needs, and
 * nothing in another chunk. */
static bool *find_late(const Lower *l)
{
    const Graph *g = l->g;
    bool *late = ARENA_ARRAY(l->arena, bool, g->ops.n + 1);
    bool *early = ARENA_ARRAY(l->arena, bool, g->values.n + 1); /* needed before W */
    int *reader = ARENA_ARRAY(l->arena, int, g->values.n + 1);  /* 1 + the chunk of a reader */
    for (OpId o = g->ops.n - 1; o >= 0; o--) {
        const Op *op = &g->ops.at[o];
        const int chunk = 1 + l->pl->chunk_of[o];
        if (op->kind == OP_RESHAPE)
            continue;
        late[o] = op->phase == PHASE_W;
        for (int i = 0; i < op->nout && late[o]; i++) {
            const ValueId v = op->out[i] == NONE ? NONE : lower_root(l, op->out[i]);
            late[o] = v == NONE || (!early[v] && (reader[v] == 0 || reader[v] == chunk));
        }
        for (int i = 0; i < op->nin; i++) {
            const ValueId v = op->in[i] == NONE ? NONE : lower_root(l, op->in[i]);
            if (v == NONE)
                continue;
            early[v] = early[v] || !late[o] || (reader[v] && reader[v] != chunk);
            reader[v] = chunk;
        }
    }
    return late;
}

static RunKind list_kind(const Lower *l, OpId o)
{
    const Op *op = &l->g->ops.at[o];
    if (op->forward != NONE || op->phase != PHASE_F)
        return !schedule_splits(l->p->model->settings.parallel.schedule) ? RUN_B
               : l->late[o]                                                    ? RUN_W
                                                                               : RUN_I;
    return l->pl->metric_only[o] ? RUN_E : RUN_F;
}

static Lists sort_ops(const Lower *l)
{
    const Graph *g = l->g;
    int n = l->pl->nchunks * RUN_KINDS;
    Lists s = {ARENA_ARRAY(l->arena, OpId, g->ops.n + 1), ARENA_ARRAY(l->arena, int, n + 2)};
    for (int turn = 0; turn < 2; turn++) {
        for (OpId o = 0; o < g->ops.n; o++) {
            if (g->ops.at[o].kind == OP_RESHAPE)
                continue;
            int k = l->pl->chunk_of[o] * RUN_KINDS + (int)list_kind(l, o);
            if (turn == 0)
                s.first[k + 2]++;
            else
                s.ops[s.first[k + 1]++] = o;
        }
        for (int k = 0; turn == 0 && k < n; k++)
            s.first[k + 2] += s.first[k + 1];
    }
    return s;
}

static void lower_device(Lower *l, int device, const Lists *lists)
{
    Program *p = l->p;
    begin_device(l, device);
    Device *d = &p->devices.at[device];
    static const RunKind forward[] = {RUN_F, RUN_E};
    for (int k = 0; k < 2; k++) /* all F before any E: what E loads, training does not see */
        for (int i = 0; i < d->chunks.n; i++) {
            int c = d->chunks.at[i], at = c * RUN_KINDS + (int)forward[k];
            lower_run(l, c, forward[k], lists->ops + lists->first[at],
                      lists->first[at + 1] - lists->first[at]);
        }
    for (int i = d->chunks.n - 1; i >= 0; i--)
        for (int k = RUN_B; k <= RUN_W; k++) {
            int c = d->chunks.at[i], at = c * RUN_KINDS + k;
            lower_run(l, c, (RunKind)k, lists->ops + lists->first[at],
                      lists->first[at + 1] - lists->first[at]);
        }
    for (int w = 0; w < l->g->weights.n; w++)
        if (l->pl->weight_owner[w] == device && l->shared[w])
            lower_home(l, l->g->weights.at[w].value);
}

static void finish_weights(Lower *l, Device *d, int device)
{
    static const int states[] = {[OPTIMIZER_SGD] = 1, [OPTIMIZER_ADAM] = 2, [OPTIMIZER_ADAMW] = 2};
    const Train *t = &l->p->model->settings.train;
    int nstates = t->optimizer == OPTIMIZER_SGD && t->momentum == 0 ? 0 : states[t->optimizer];
    l->device = device;
    for (int i = 0; i < d->weights.n; i++) {
        WeightRun *r = &d->weights.at[i];
        r->owner = l->pl->weight_owner[r->weight] == device;
        r->ngrads = 0;
        for (int u = 0; u < l->uses[r->weight]; u++)
            if (r->grad[u] != NONE)
                r->grad[r->ngrads++] = r->grad[u];
        if (!r->owner)
            r->ngrads = 0;
        if (r->ngrads == 0)
            continue;
        r->nstates = nstates;
        for (int k = 0; k < nstates; k++) {
            ValueId like = l->g->weights.at[r->weight].value;
            const char *label = arena_printf(l->arena, "%s%s.%s", r->prefix, r->suffix,
                                             nstates == 1 ? "momentum"
                                             : k == 0     ? "m"
                                                          : "v");
            r->state[k] = lower_add_buffer(l, like, r->count, BUFFER_STATE, label);
            d->buffers.at[r->state[k]].state = k;
        }
    }
}

/* What a step may hold before its tables outgrow a machine: runs, and messages. */
enum { MOST_PER_STEP = 1 << 24 };

static bool step_fits(const Model *m, int64_t each, const char *what, Diag *d)
{
    int64_t n = m->settings.train.batch / m->settings.parallel.microbatch;
    if (n <= MOST_PER_STEP / (each > 0 ? each : 1))
        return true;
    diag_error(d, m->settings.parallel.microbatch_at,
               "a step of %lld micro-batches and %lld %s is too long", (long long)n,
               (long long)each, what);
    diag_help(d, "a larger parallel.microbatch makes it shorter");
    return false;
}

Program *lower(Model *m, Placement *pl, Diag *d)
{
    if (!step_fits(m, pl->nchunks, "chunks", d))
        return NULL;
    Graph *g = m->graph;
    Arena *a = g->arena;
    Program *p = ARENA_NEW(a, Program);
    p->model = m;
    p->graph = g;
    p->microbatch = m->settings.parallel.microbatch;
    p->microbatches = (int)(m->settings.train.batch / p->microbatch);
    bool f64 = m->settings.train.precision == PRECISION_F64;
    p->real_size = f64 ? 8 : 4;
    p->real_name = f64 ? "double" : "float";
    Lower l = {.arena = a,
               .g = g,
               .p = p,
               .pl = pl,
               .home = ARENA_ARRAY(a, Home, g->values.n + 1),
               .source = ARENA_ARRAY(a, Home, g->values.n + 1),
               .travels = ARENA_ARRAY(a, bool, g->values.n + 1),
               .shared = ARENA_ARRAY(a, bool, g->weights.n + 1),
               .uses = ARENA_ARRAY(a, int, g->weights.n + 1),
               .loader = ARENA_ARRAY(a, int, g->inputs.n + 1),
               .position = ARENA_ARRAY(a, int, g->ops.n + 1)};
    for (ValueId v = 0; v < g->values.n; v++)
        l.home[v].buffer = l.source[v].buffer = NONE;
    for (OpId o = 0; o < g->ops.n; o++)
        l.position[o] = NONE;
    find_shared(&l);
    for (int i = 0; i < pl->ndevices; i++) {
        Device dev = {.number = pl->device_number[i]};
        dev.name = arena_printf(a, "%s[%d]", m->settings.devices.name, dev.number);
        VEC_PUSH(a, &p->devices, dev);
    }
    for (int c = 0; c < pl->nchunks; c++) {
        VEC_PUSH(a, &p->chunks, (Chunk){.device = pl->device_of[c], .number = c});
        VEC_PUSH(a, &p->devices.at[pl->device_of[c]].chunks, c);
    }
    l.late = find_late(&l);
    Lists lists = sort_ops(&l);
    for (int i = 0; i < pl->ndevices; i++)
        lower_device(&l, i, &lists);
    for (int i = 0; i < p->links.n; i++) {
        Link *link = &p->links.at[i];
        Home h = l.source[link->value];
        link->source =
            (Ref){.buffer = h.buffer, .at = h.member, .entry = NONE, .value = link->value};
    }
    for (WeightId w = 0; w < g->weights.n; w++)
        if (l.shared[w])
            tie(&l, w);
    for (int i = 0; i < p->devices.n; i++) {
        finish_weights(&l, &p->devices.at[i], i);
        lower_classify(p, i);
    }
    return step_fits(m, p->links.n, "links", d) ? p : NULL;
}
