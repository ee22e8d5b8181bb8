/* limits.c - which integers the inputs may hold: below the vocabulary, the classes.
 *
 * Kernels index by integers without looking, so what they rely on is checked when a sample
 * is loaded. Integers come from inputs and arange alone, by way of calls that move them:
 * one walk over the operations, last to first, takes every limit to where the integers are
 * made. A limit of a part of an input holds for all of it. */
#include "elaborate.h"

void limit_integers(Elab *e, ValueId v, int64_t count, const char *call, Place at)
{
    VEC_PUSH(e->arena, &e->limits, (Limit){v, count, call, at});
}

/* least[v]: number + 1 of the strictest limit of value v; 0: none. */
static void take(const Elab *e, int *least, ValueId v, int limit)
{
    if (limit && (!least[v] || e->limits.at[limit - 1].count < e->limits.at[least[v] - 1].count))
        least[v] = limit;
}

static void check_arange(Elab *e, const Op *op, int limit)
{
    int64_t n = e->graph->values.at[op->out[0]].shape.dim[0];
    if (!limit || n <= e->limits.at[limit - 1].count)
        return;
    const Limit *l = &e->limits.at[limit - 1];
    elab_error(e, l->at, "%s takes integers below %lld, but arange makes 0 to %lld", l->call,
               (long long)l->count, (long long)n - 1);
    elab_note(e, op->at, "arange(%lld) is here", (long long)n);
}

void limits_settle(Elab *e)
{
    Graph *g = e->graph;
    int *least = ARENA_ARRAY(e->arena, int, g->values.n);
    for (int i = 0; i < e->limits.n; i++)
        take(e, least, e->limits.at[i].value, i + 1);
    for (OpId id = g->ops.n - 1; id >= 0; id--) {
        const Op *op = &g->ops.at[id];
        if (g->values.at[op->out[0]].type != DT_I32)
            continue;
        for (int o = 0; o < op->nout; o++)
            for (int i = 0; i < op->nin; i++)
                take(e, least, op->in[i], least[op->out[o]]);
        if (op->kind == OP_ARANGE)
            check_arange(e, op, least[op->out[0]]);
    }
    for (int i = 0; i < g->inputs.n; i++) {
        Input *in = &g->inputs.at[i];
        if (least[in->value])
            in->limit = e->limits.at[least[in->value] - 1].count;
    }
}
