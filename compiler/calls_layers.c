/* calls_layers.c - linear, embedding, the norms and dropout: shapes and weights. */
#include "calls.h"

#include <math.h>

static Weight uniform_by(double fan_in)
{
    return (Weight){.init = INIT_UNIFORM, .init_value = 1 / sqrt(fan_in)};
}

static Weight constant_of(double v)
{
    return (Weight){.init = INIT_CONSTANT, .init_value = v};
}

/* x[…, k], weight[n, k] ([k, n] where transposed), bias[n] → [..., n] */
bool call_linear(Call *c)
{
    ValueId in[3] = {call_float(c, "x"), NONE, NONE};
    int64_t n;
    if (in[0] == NONE || !call_rank(c, in[0], 1, false, "at least one dimension") ||
        !call_int(c, "n", 1, MAX_DIM, &n))
        return false;
    bool bias = call_bool(c, "bias"), transposed = call_bool(c, "transposed");
    if (!call_name_layer(c, bias || !call_has(c, "weight") ? NAME_OWNER : NAME_SOFT))
        return false;
    Shape shape = value_shape(c, in[0]);
    int64_t k = shape.dim[shape.rank - 1];
    shape.dim[shape.rank - 1] = n;
    Shape w = transposed ? shape_of(2, k, n, 0, 0) : shape_of(2, n, k, 0, 0);
    in[1] = call_main_weight(c, w, transposed, uniform_by((double)k));
    if (bias && in[1] != NONE)
        in[2] = call_weight(c, "bias", shape_of(1, n, 0, 0, 0), uniform_by((double)k));
    if (in[1] == NONE || (bias && in[2] == NONE))
        return false;
    Op op = elab_op(c->e, OP_LINEAR, c->at, c->layer);
    op.attr.transposed = transposed;
    return call_emit(c, op, in, 3, DT_F32, shape);
}

/* ids i32[…], weight[count, n] → [..., n] */
bool call_embedding(Call *c)
{
    ValueId in[2] = {call_tensor(c, "ids"), NONE};
    Value ids = c->e->graph->values.at[in[0]];
    int64_t count, n;
    if (ids.type != DT_I32) {
        elab_error(c->e, call_arg(c, "ids").at, "embedding needs i32, but %s",
                   show_is(c->e, in[0]));
        note_value(c->e, in[0]);
        return false;
    }
    if (!call_int(c, "count", 1, MAX_DIM, &count) || !call_int(c, "n", 1, MAX_DIM, &n))
        return false;
    if (ids.shape.rank == MAX_RANK) {
        elab_error(c->e, c->at, "the result would have more than %d dimensions: %s", MAX_RANK,
                   show_is(c->e, in[0]));
        return false;
    }
    if (!call_name_layer(c, call_has(c, "weight") ? NAME_SOFT : NAME_OWNER))
        return false;
    limit_integers(c->e, in[0], count, c->name, c->at);
    Weight normal = {.init = INIT_NORMAL, .init_value = 1};
    in[1] = call_main_weight(c, shape_of(2, count, n, 0, 0), false, normal);
    if (in[1] == NONE)
        return false;
    Shape shape = ids.shape;
    shape.dim[shape.rank++] = n;
    return call_emit(c, elab_op(c->e, OP_EMBEDDING, c->at, c->layer), in, 2, DT_F32, shape);
}

static bool norm_eps(Call *c, Op *op)
{
    op->attr.eps = call_real(c, "eps");
    if (op->attr.eps >= 0)
        return true;
    elab_error(c->e, call_arg(c, "eps").at, "eps of %s must not be negative", c->name);
    return false;
}

/* Adds the operation and gives its outputs after the first the shape of the statistics. */
static bool finish_norm(Call *c, Op op, const ValueId *in, int nin, int nout, Shape stats)
{
    OpId id = elab_add(c->e, op, in, nin, nout, DT_F32, value_shape(c, in[0]));
    if (id == NONE)
        return false;
    Graph *g = c->e->graph;
    for (int i = 1; i < nout; i++)
        g->values.at[g->ops.at[id].out[i]].shape = stats;
    return call_finish(c, g->ops.at[id].out[0]);
}

/* layernorm and rmsnorm: over the last dimension; out = {y, mean, rstd} and {y, rstd}. */
static bool last_dim_norm(Call *c, bool bias, int nout)
{
    ValueId in[3] = {call_float(c, "x"), NONE, NONE};
    if (in[0] == NONE || !call_rank(c, in[0], 1, false, "at least one dimension") ||
        !call_name_layer(c, NAME_OWNER))
        return false;
    Op op = elab_op(c->e, c->kind, c->at, c->layer);
    if (!norm_eps(c, &op))
        return false;
    Shape stats = value_shape(c, in[0]);
    Shape w = shape_of(1, stats.dim[stats.rank - 1], 0, 0, 0);
    stats.dim[--stats.rank] = 0;
    in[1] = call_weight(c, "weight", w, constant_of(1));
    if (bias)
        in[2] = call_weight(c, "bias", w, constant_of(0));
    return finish_norm(c, op, in, c->kind == OP_RMSNORM ? 2 : 3, nout, stats);
}

bool call_layernorm(Call *c)
{
    return last_dim_norm(c, call_bool(c, "bias"), 3);
}

bool call_rmsnorm(Call *c)
{
    return last_dim_norm(c, false, 2);
}

/* [c, …] in `groups` groups of channels; out = {y, mean[groups], rstd[groups]} */
bool call_groupnorm(Call *c)
{
    ValueId in[3] = {call_float(c, "x"), NONE, NONE};
    int64_t groups;
    if (in[0] == NONE || !call_rank(c, in[0], 1, false, "[channels, …]") ||
        !call_int(c, "groups", 1, MAX_DIM, &groups))
        return false;
    int64_t channels = value_shape(c, in[0]).dim[0];
    if (channels % groups) {
        elab_error(c->e, call_arg(c, "groups").at, "%lld groups do not divide the %lld channels",
                   (long long)groups, (long long)channels);
        note_value(c->e, in[0]);
        return false;
    }
    if (!call_name_layer(c, NAME_OWNER))
        return false;
    Op op = elab_op(c->e, OP_GROUPNORM, c->at, c->layer);
    op.attr.groups = groups;
    if (!norm_eps(c, &op))
        return false;
    Shape w = shape_of(1, channels, 0, 0, 0);
    in[1] = call_weight(c, "weight", w, constant_of(1));
    in[2] = call_weight(c, "bias", w, constant_of(0));
    return finish_norm(c, op, in, 3, 3, shape_of(1, groups, 0, 0, 0));
}

/* The path is the key of its random numbers, so it always has one. */
bool call_dropout(Call *c)
{
    ValueId x = call_float(c, "x");
    double p = call_real(c, "p");
    if (x == NONE)
        return false;
    if (!(p >= 0 && p <= 1)) {
        elab_error(c->e, call_arg(c, "p").at, "p of dropout is a probability, from 0 to 1, not %g",
                   p);
        return false;
    }
    if (!call_name_layer(c, NAME_SOFT))
        return false;
    Op op = elab_op(c->e, OP_DROPOUT, c->at, c->layer);
    op.attr.p = p;
    return call_emit(c, op, &x, 1, DT_F32, value_shape(c, x));
}
