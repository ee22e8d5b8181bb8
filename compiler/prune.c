/* prune.c - takes out of the graph what reaches neither the loss nor a metric.
 *
 * In: the graph as elaborated. Out: the same graph with the operations, values and weights
 * that matter, renumbered in their order; inputs and frames all stay. Marks from the
 * results backwards: operations stand in the order of evaluation, so one walk does. */
#include "elaborate.h"

#include <string.h>

typedef struct {
    Elab *e;
    Graph *g;
    bool *value, *op; /* matters */
    bool *loss;       /* value reaches the loss */
} Prune;

static void mark(Prune *p)
{
    Graph *g = p->g;
    p->value[g->loss] = p->loss[g->loss] = true;
    for (int i = 0; i < g->metrics.n; i++)
        p->value[g->metrics.at[i].value] = true;
    for (OpId id = g->ops.n - 1; id >= 0; id--) {
        const Op *op = &g->ops.at[id];
        bool loss = false;
        for (int i = 0; i < op->nout; i++) {
            p->op[id] |= p->value[op->out[i]];
            loss |= p->loss[op->out[i]];
        }
        for (int i = 0; i < op->nin && p->op[id]; i++)
            if (op->in[i] != NONE) {
                p->value[op->in[i]] = true;
                p->loss[op->in[i]] |= loss;
            }
        for (int i = 0; i < op->nout && p->op[id]; i++)
            p->value[op->out[i]] = true;
    }
    for (int i = 0; i < g->inputs.n; i++)
        p->value[g->inputs.at[i].value] = true;
}

/* ---- what is left out is said, once for the largest layer that has no effect ---- */

/* Calls for "h", "h.0", "h.0.attn" of "h.0.attn": true as soon as one is not in the table. */
static const char *first_unknown_prefix(Elab *e, const Table *known, const char *path)
{
    for (const char *s = path;; s++) {
        if (*s && *s != '.')
            continue;
        const char *prefix = *s ? arena_strndup(e->arena, path, (size_t)(s - path)) : path;
        if (table_find(known, prefix) < 0)
            return prefix;
        if (!*s)
            return NULL;
    }
}

static void add_prefixes(Elab *e, Table *known, const char *path)
{
    const char *prefix;
    while ((prefix = first_unknown_prefix(e, known, path)))
        table_set(e->arena, known, prefix, 0);
}

/* The outermost call of a block whose layers are all under the prefix; else the place itself. */
static Place place_of(const Graph *g, FrameId frame, const char *prefix, Place at)
{
    size_t n = strlen(prefix);
    for (FrameId f = frame; f > 0; f = g->frames.at[f].parent) {
        const Frame *fr = &g->frames.at[f];
        if (fr->kind == FRAME_BLOCK && !strncmp(fr->path, prefix, n) &&
            (!fr->path[n] || fr->path[n] == '.'))
            at = fr->at;
    }
    return at;
}

static void warn_unused(Prune *p, const Table *live, Table *said, const char *path, FrameId frame,
                        Place at)
{
    Elab *e = p->e;
    const char *prefix = first_unknown_prefix(e, live, path);
    if (!prefix || table_find(said, prefix) >= 0)
        return;
    table_set(e->arena, said, prefix, 0);
    diag_warning(e->diag, place_of(p->g, frame, prefix, at),
                 "%s has no effect on the loss and is left out", prefix);
}

static void warn(Prune *p)
{
    Graph *g = p->g;
    Table live = {0}, said = {0};
    for (int i = 0; i < g->weights.n; i++)
        if (p->value[g->weights.at[i].value])
            add_prefixes(p->e, &live, g->weights.at[i].name);
    for (OpId id = 0; id < g->ops.n; id++)
        if (p->op[id] && g->ops.at[id].path)
            add_prefixes(p->e, &live, g->ops.at[id].path);
    for (OpId id = 0; id < g->ops.n; id++) {
        const Op *op = &g->ops.at[id];
        if (!p->op[id] && op->path)
            warn_unused(p, &live, &said, op->path, op->frame, op->at);
    }
    for (int i = 0; i < g->weights.n; i++) {
        const Weight *w = &g->weights.at[i];
        if (!p->value[w->value])
            warn_unused(p, &live, &said, w->name, w->frame, w->at);
    }
}

/* ---- renumbering ---- */

static void keep_values(Prune *p, ValueId *to)
{
    Graph *g = p->g;
    int n = 0;
    for (ValueId v = 0; v < g->values.n; v++) {
        to[v] = p->value[v] ? n : NONE;
        if (p->value[v])
            g->values.at[n++] = g->values.at[v];
    }
    g->values.n = n;
}

static void keep_ops(Prune *p, const ValueId *to)
{
    Graph *g = p->g;
    int n = 0;
    for (OpId id = 0; id < g->ops.n; id++) {
        Op op = g->ops.at[id];
        if (!p->op[id])
            continue;
        for (int i = 0; i < op.nin; i++)
            op.in[i] = op.in[i] == NONE ? NONE : to[op.in[i]];
        for (int i = 0; i < op.nout; i++) {
            op.out[i] = to[op.out[i]];
            g->values.at[op.out[i]].def = n;
        }
        g->ops.at[n++] = op;
    }
    g->ops.n = n;
}

static void keep_weights(Prune *p, const ValueId *to)
{
    Graph *g = p->g;
    int n = 0;
    for (WeightId i = 0; i < g->weights.n; i++) {
        Weight w = g->weights.at[i];
        if (to[w.value] == NONE)
            continue;
        w.value = to[w.value];
        g->values.at[w.value].index = n;
        g->weights.at[n++] = w;
    }
    g->weights.n = n;
}

static bool can_train(const Prune *p)
{
    for (int i = 0; i < p->g->weights.n; i++)
        if (!p->g->weights.at[i].frozen && p->loss[p->g->weights.at[i].value])
            return true;
    return false;
}

void prune(Elab *e)
{
    Graph *g = e->graph;
    Prune p = {.e = e, .g = g};
    p.value = ARENA_ARRAY(e->arena, bool, g->values.n);
    p.loss = ARENA_ARRAY(e->arena, bool, g->values.n);
    p.op = ARENA_ARRAY(e->arena, bool, g->ops.n + 1);
    mark(&p);
    warn(&p);
    if (!can_train(&p)) {
        elab_error(e, g->loss_at, "there is nothing to train: the loss depends on no weight%s",
                   g->weights.n ? " that is not frozen" : "");
        return;
    }
    ValueId *to = ARENA_ARRAY(e->arena, ValueId, g->values.n);
    keep_values(&p, to);
    keep_ops(&p, to);
    keep_weights(&p, to);
    for (int i = 0; i < g->inputs.n; i++)
        g->inputs.at[i].value = to[g->inputs.at[i].value];
    for (int i = 0; i < g->metrics.n; i++)
        g->metrics.at[i].value = to[g->metrics.at[i].value];
    g->loss = to[g->loss];
}
