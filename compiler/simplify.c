/* simplify.c - the same model in fewer operations, before its gradients are added.
 *
 * In: the graph as elaborated. Out: the same values of the loss and the metrics, to the bit.
 *
 *     y = linear x, w; z = add y, b    →    z = linear x, w, b
 *
 * where b is a weight with one number for each output and nobody else reads y. */
#include "program.h"

static int *count_readers(const Graph *g)
{
    int *n = ARENA_ARRAY(g->arena, int, g->values.n);
    for (OpId o = 0; o < g->ops.n; o++)
        for (int i = 0; i < g->ops.at[o].nin; i++)
            if (g->ops.at[o].in[i] != NONE)
                n[g->ops.at[o].in[i]]++;
    n[g->loss]++;
    for (int i = 0; i < g->metrics.n; i++)
        n[g->metrics.at[i].value]++;
    return n;
}

static bool is_bias(const Graph *g, ValueId v, const Shape *of)
{
    const Value *b = &g->values.at[v];
    return b->kind == VALUE_WEIGHT && b->shape.rank == 1 && of->rank > 0 &&
           b->shape.dim[0] == of->dim[of->rank - 1];
}

/* The linear operation whose result the addition gives a bias, or NONE. */
static OpId find_linear(const Graph *g, const int *readers, const Op *add, int operand)
{
    const ValueId y = add->in[operand], b = add->in[1 - operand];
    const OpId def = g->values.at[y].def;
    const Op *linear = def == NONE ? NULL : &g->ops.at[def];
    if (!linear || linear->kind != OP_LINEAR || linear->in[2] != NONE || readers[y] != 1 ||
        !is_bias(g, b, &g->values.at[y].shape) ||
        !shape_equal(&g->values.at[y].shape, &g->values.at[add->out[0]].shape) ||
        linear->device != add->device || linear->recompute != add->recompute ||
        graph_turn_of(g, linear->frame) != graph_turn_of(g, add->frame))
        return NONE;
    return def;
}

static void take_bias(Graph *g, OpId linear, const Op *add, int operand)
{
    Op *op = &g->ops.at[linear];
    Value *result = &g->values.at[add->out[0]];
    op->in[2] = add->in[1 - operand];
    if (!result->name)
        result->name = g->values.at[op->out[0]].name;
    op->out[0] = add->out[0];
    result->def = linear;
}

void simplify(Graph *g)
{
    const int *readers = count_readers(g);
    int n = 0;
    for (OpId o = 0; o < g->ops.n; o++) {
        const Op op = g->ops.at[o];
        OpId linear = NONE;
        for (int i = 0; op.kind == OP_ADD && i < 2 && linear == NONE; i++) {
            linear = find_linear(g, readers, &op, i);
            if (linear != NONE)
                take_bias(g, linear, &op, i);
        }
        if (linear != NONE)
            continue;
        for (int i = 0; i < op.nout; i++)
            g->values.at[op.out[i]].def = n;
        g->ops.at[n++] = op;
    }
    g->ops.n = n;
}
