/* calls_loss.c - reductions, losses and metrics.
 *
 * Losses are scalars per sample: cross_entropy is an operation of its own; mse and bce
 * are element-wise operations and a sum scaled by one over the elements. */
#include "calls.h"

unsigned all_dims(const Shape *s)
{
    return (1u << s->rank) - 1;
}

static Shape without_dims(Shape s, unsigned mask)
{
    Shape y = {0};
    for (int i = 0; i < s.rank; i++)
        if (!(mask >> i & 1))
            y.dim[y.rank++] = s.dim[i];
    return y;
}

ValueId emit_sum(Call *c, ValueId v, unsigned mask, double scale)
{
    if (!mask)
        return v;
    Op op = elab_op(c->e, OP_SUM, c->at, c->layer);
    op.attr.dims = mask;
    op.attr.scale = scale;
    return elab_add1(c->e, op, &v, 1, DT_F32, without_dims(value_shape(c, v), mask));
}

/* The dimensions to reduce, as bits; *count: elements of x that become one. */
static bool reduce_dims(Call *c, ValueId x, unsigned *mask, int64_t *count)
{
    Shape s = value_shape(c, x);
    Term dims = call_arg(c, "dims");
    *mask = 0;
    *count = 1;
    if (dims.kind == TERM_ABSENT) {
        if (!call_rank(c, x, 1, false, "at least one dimension"))
            return false;
        *mask = 1u << (s.rank - 1);
    }
    for (int i = 0; dims.kind == TERM_LIST && i < dims.list.n; i++) {
        Term d = dims.list.of[i];
        if (d.integer < 0 || d.integer >= s.rank) {
            elab_error(c->e, d.at, "%s has no dimension %lld: %s", c->name, (long long)d.integer,
                       show_is(c->e, x));
            elab_help(c->e, "dimensions count from 0, per sample: the batch has no number");
            return false;
        }
        if (*mask >> d.integer & 1) {
            elab_error(c->e, d.at, "dimension %lld is given twice", (long long)d.integer);
            return false;
        }
        *mask |= 1u << d.integer;
    }
    for (int i = 0; i < s.rank; i++)
        if (*mask >> i & 1)
            *count *= s.dim[i];
    return true;
}

static bool reduce(Call *c, bool mean)
{
    ValueId x = call_float(c, "x");
    unsigned mask;
    int64_t count;
    if (x == NONE || !reduce_dims(c, x, &mask, &count) || !call_name_layer(c, NAME_PLAIN))
        return false;
    return call_finish(c, emit_sum(c, x, mask, mean ? 1 / (double)count : 1));
}

bool call_sum(Call *c)
{
    return reduce(c, false);
}

bool call_mean(Call *c)
{
    return reduce(c, true);
}

bool call_max(Call *c)
{
    ValueId x = call_float(c, "x");
    unsigned mask;
    int64_t count;
    if (x == NONE || !reduce_dims(c, x, &mask, &count) || !call_name_layer(c, NAME_PLAIN))
        return false;
    if (!mask)
        return call_finish(c, x);
    Op op = elab_op(c->e, OP_MAX, c->at, c->layer);
    op.attr.dims = mask;
    return call_emit(c, op, &x, 1, DT_F32, without_dims(value_shape(c, x), mask));
}

/* ---- classes ---- */

/* logits [..., n] against y i32 […]. */
static bool check_classes(Call *c, ValueId logits, ValueId y)
{
    Elab *e = c->e;
    if (e->graph->values.at[y].type != DT_I32) {
        elab_error(e, call_arg(c, "y").at, "%s needs classes in i32, but %s", c->name,
                   show_is(e, y));
        note_value(e, y);
        return false;
    }
    if (!call_rank(c, logits, 1, false, "one number per class"))
        return false;
    Shape rows = value_shape(c, logits), labels = value_shape(c, y);
    rows.rank--;
    if (shape_equal(&rows, &labels))
        return true;
    elab_error(e, c->at, "%s of logits %s needs classes %s, but y is %s", c->name,
               show_shape(e, logits), shape_show(e->arena, DT_I32, &rows), show_shape(e, y));
    note_value(e, logits);
    note_value(e, y);
    return false;
}

/* Rows and classes are read side by side, sample by sample: a weight or arange is repeated
 * for every sample where the other one has a batch. */
static bool share_batch(Call *c, ValueId in[2])
{
    Graph *g = c->e->graph;
    for (int i = 0; i < 2; i++) {
        Value v = g->values.at[in[i]];
        if (v.batched || !g->values.at[in[1 - i]].batched || v.shape.rank == 0)
            continue;
        OpId id = elab_add(c->e, elab_op(c->e, OP_CONCAT, c->at, c->layer), &in[i], 1, 1, v.type,
                           v.shape);
        if (id == NONE)
            return false;
        in[i] = g->ops.at[id].out[0];
        g->values.at[in[i]].batched = true;
    }
    return true;
}

bool call_cross_entropy(Call *c)
{
    ValueId in[2] = {call_float(c, "logits"), call_tensor(c, "y")};
    if (in[0] == NONE || !check_classes(c, in[0], in[1]))
        return false;
    Shape s = value_shape(c, in[0]);
    if (!call_name_layer(c, NAME_PLAIN))
        return false;
    limit_integers(c->e, in[1], s.dim[s.rank - 1], c->name, c->at);
    if (!share_batch(c, in))
        return false;
    OpId id = elab_add(c->e, elab_op(c->e, OP_CROSS_ENTROPY, c->at, c->layer), in, 2, 2, DT_F32,
                       (Shape){0});
    if (id == NONE)
        return false;
    Graph *g = c->e->graph;
    g->values.at[g->ops.at[id].out[1]].shape = value_shape(c, in[1]);
    return call_finish(c, g->ops.at[id].out[0]);
}

bool call_accuracy(Call *c)
{
    ValueId in[2] = {call_float(c, "logits"), call_tensor(c, "y")};
    if (in[0] == NONE || !check_classes(c, in[0], in[1]) || !call_name_layer(c, NAME_PLAIN) ||
        !share_batch(c, in))
        return false;
    return call_emit(c, elab_op(c->e, OP_ACCURACY, c->at, c->layer), in, 2, DT_F32, (Shape){0});
}

/* ---- element by element ---- */

/* Both as f32; the shape of the one that the other is broadcast to. */
static bool pair(Call *c, const char *first, const char *second, ValueId in[2], Shape *shape)
{
    in[0] = call_float(c, first);
    in[1] = call_float(c, second);
    if (in[0] == NONE || in[1] == NONE)
        return false;
    Shape a = value_shape(c, in[0]), b = value_shape(c, in[1]);
    if (shape_broadcast(&a, &b, shape) && (shape_equal(shape, &a) || shape_equal(shape, &b)))
        return true;
    elab_error(c->e, c->at, "%s needs two tensors of one shape, not %s and %s", c->name,
               show_shape(c->e, in[0]), show_shape(c->e, in[1]));
    note_value(c->e, in[0]);
    note_value(c->e, in[1]);
    return false;
}

static bool finish_mean(Call *c, ValueId v, Shape shape)
{
    if (v == NONE)
        return false;
    return call_finish(c, emit_sum(c, v, all_dims(&shape), 1 / (double)shape_count(&shape)));
}

bool call_mse(Call *c)
{
    ValueId in[2];
    Shape shape;
    if (!pair(c, "a", "b", in, &shape) || !call_name_layer(c, NAME_PLAIN))
        return false;
    ValueId d = elab_add1(c->e, elab_op(c->e, OP_SUB, c->at, c->layer), in, 2, DT_F32, shape);
    if (d == NONE)
        return false;
    d = elab_add1(c->e, elab_op(c->e, OP_SQUARE, c->at, c->layer), &d, 1, DT_F32, shape);
    return finish_mean(c, d, shape);
}

bool call_bce(Call *c)
{
    ValueId in[2];
    Shape shape;
    if (!pair(c, "logits", "y", in, &shape) || !call_name_layer(c, NAME_PLAIN))
        return false;
    ValueId t = elab_add1(c->e, elab_op(c->e, OP_BCE_TERM, c->at, c->layer), in, 2, DT_F32, shape);
    return finish_mean(c, t, shape);
}
