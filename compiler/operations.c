/* operations.c - leaving operations in the graph, with all that surrounds them. */
#include "elaborate.h"

Op elab_op(const Elab *e, OpKind kind, Place at, const Layer *layer)
{
    return (Op){.kind = kind,
                .at = at,
                .path = layer ? layer->path : NULL,
                .frame = e->frame,
                .statement = e->statement,
                .device = e->device,
                .recompute = e->recompute,
                .forward = NONE};
}

bool elab_check_shape(Elab *e, Place at, const Shape *s)
{
    int64_t n = 1;
    bool fits = true;
    for (int i = 0; i < s->rank && fits; i++)
        fits = s->dim[i] <= MAX_DIM && mul_i64(n, s->dim[i], &n) && n <= ELAB_MAX_COUNT;
    if (!fits) {
        elab_error(e, at, "the tensor %s is too large", shape_show(e->arena, DT_F32, s));
        elab_help(e, "a dimension is at most 2^40, and all of a tensor at most 2^59 elements");
    }
    return fits;
}

OpId elab_add(Elab *e, Op op, const ValueId *in, int nin, int nout, Dtype type, Shape shape)
{
    Graph *g = e->graph;
    if (e->stop || !elab_check_shape(e, op.at, &shape))
        return NONE;
    if (g->ops.n >= ELAB_MAX_OPS) {
        elab_error(e, op.at, "the model has more than %d operations", ELAB_MAX_OPS);
        e->stop = true;
        return NONE;
    }
    bool batched = false;
    for (int i = 0; i < nin; i++)
        batched |= in[i] != NONE && g->values.at[in[i]].batched;
    OpId id = graph_add_op(g, op, in, nin, nout, type, shape, batched);
    for (int i = 0; i < nout; i++)
        g->values.at[g->ops.at[id].out[i]].name = op.path;
    return id;
}

ValueId elab_add1(Elab *e, Op op, const ValueId *in, int nin, Dtype type, Shape shape)
{
    OpId id = elab_add(e, op, in, nin, 1, type, shape);
    return id == NONE ? NONE : e->graph->ops.at[id].out[0];
}

ValueId elab_float(Elab *e, ValueId v, Place at)
{
    Value value = e->graph->values.at[v];
    if (value.type == DT_F32)
        return v;
    return elab_add1(e, elab_op(e, OP_CAST, at, NULL), &v, 1, DT_F32, value.shape);
}

const char *show_shape(Elab *e, ValueId v)
{
    const Value *value = &e->graph->values.at[v];
    return shape_show(e->arena, value->type, &value->shape);
}

const char *show_is(Elab *e, ValueId v)
{
    const char *name = e->graph->values.at[v].name;
    return arena_printf(e->arena, "%s is %s", name ? name : "this", show_shape(e, v));
}

void note_value(Elab *e, ValueId v)
{
    const Value *value = &e->graph->values.at[v];
    elab_note(e, value->at, "%s%s%s comes from here", value->name ? value->name : "",
              value->name ? ": " : "", show_shape(e, v));
}
