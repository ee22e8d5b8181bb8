/* grad_rules.c - the gradient of every operation, by its row in ops.def.
 *
 * Each rule reads as the chain rule: y = f(a, b), dy is given, da and db are handed out.
 * Weights come first, so that dy can be forgotten after the gradient of the input. */
#include "grad.h"

#define IN(i) grad_in(c, i)
#define OUT(i) grad_out(c, i)
#define DY (c->dy)
#define ATTR (&c->g->ops.at[c->forward].attr)

/* ------------------------------------------------------------- element by element */

void grad_add(Grad *c)
{
    grad_give(c, 0, DY);
    grad_give(c, 1, DY);
}

void grad_sub(Grad *c)
{
    grad_give(c, 0, DY);
    if (grad_wanted(c, 1))
        grad_give(c, 1, grad_op1(c, OP_NEG, OUT(0), DY));
}

void grad_mul(Grad *c)
{
    if (grad_wanted(c, 0))
        grad_give(c, 0, grad_op2(c, OP_MUL, OUT(0), DY, IN(1)));
    if (grad_wanted(c, 1))
        grad_give(c, 1, grad_op2(c, OP_MUL, OUT(0), DY, IN(0)));
}

void grad_div(Grad *c)
{
    if (grad_wanted(c, 0))
        grad_give(c, 0, grad_op2(c, OP_DIV, OUT(0), DY, IN(1)));
    if (grad_wanted(c, 1))
        grad_give(c, 1, grad_op3(c, OP_DIV_GRAD_B, OUT(0), DY, OUT(0), IN(1)));
}

void grad_neg(Grad *c)
{
    grad_give(c, 0, grad_op1(c, OP_NEG, OUT(0), DY));
}

/* Gradients in terms of the result (y) or of the operand (x). */
#define FROM_RESULT(name, KIND)                                                                    \
    void grad_##name(Grad *c)                                                                      \
    {                                                                                              \
        grad_give(c, 0, grad_op2(c, KIND, OUT(0), DY, OUT(0)));                                    \
    }
#define FROM_OPERAND(name, KIND)                                                                   \
    void grad_##name(Grad *c)                                                                      \
    {                                                                                              \
        grad_give(c, 0, grad_op2(c, KIND, OUT(0), DY, IN(0)));                                     \
    }

FROM_RESULT(relu, OP_RELU_GRAD)
FROM_OPERAND(gelu, OP_GELU_GRAD)
FROM_OPERAND(silu, OP_SILU_GRAD)
FROM_RESULT(sigmoid, OP_SIGMOID_GRAD)
FROM_RESULT(tanh, OP_TANH_GRAD)
FROM_RESULT(exp, OP_MUL)
FROM_OPERAND(log, OP_DIV)
FROM_RESULT(sqrt, OP_SQRT_GRAD)
FROM_OPERAND(abs, OP_ABS_GRAD)
FROM_OPERAND(square, OP_SQUARE_GRAD)

void grad_bce_term(Grad *c)
{
    if (grad_wanted(c, 0))
        grad_give(c, 0, grad_op3(c, OP_BCE_GRAD, OUT(0), DY, IN(0), IN(1)));
    if (grad_wanted(c, 1))
        grad_give(c, 1, grad_op2(c, OP_BCE_GRAD_Y, OUT(0), DY, IN(0)));
}

void grad_cast(Grad *c)
{
    if (dtype_is_float(c->g->values.at[IN(0)].type)) /* from integers nothing flows back */
        grad_give(c, 0, grad_op1(c, OP_CAST, IN(0), DY));
}

/* ------------------------------------------------------------------------ layers */

/* The gradient of a bias: dy summed over the batch and the dimensions in `dims`. */
static void give_bias(Grad *c, int operand, unsigned dims)
{
    if (!grad_wanted(c, operand))
        return;
    Attr attr = {.dims = dims, .batch = c->g->values.at[DY].batched, .scale = 1};
    grad_give_weights(c, OP_SUM, &attr, &DY, 1, operand, 1);
}

void grad_linear(Grad *c)
{
    ValueId dy = DY;
    int rank = c->g->values.at[dy].shape.rank;
    grad_give_weights(c, OP_LINEAR_DW, ATTR, (ValueId[]){dy, IN(0)}, 2, 1, 1);
    give_bias(c, 2, (1u << (rank - 1)) - 1);
    if (grad_wanted(c, 0)) {
        Attr attr = *ATTR;
        grad_give(c, 0, grad_op(c, OP_LINEAR_DX, &attr, (ValueId[]){dy, IN(1)}, 2, IN(0)));
    }
}

void grad_embedding(Grad *c)
{
    grad_give_weights(c, OP_EMBEDDING_DW, ATTR, (ValueId[]){DY, IN(0)}, 2, 1, 1);
}

void grad_conv2d(Grad *c)
{
    grad_give_weights(c, OP_CONV2D_DW, ATTR, (ValueId[]){DY, IN(0)}, 2, 1, 1);
    give_bias(c, 2, 6u); /* height and width of [channels, height, width] */
    if (grad_wanted(c, 0)) {
        Attr attr = *ATTR;
        grad_give(c, 0, grad_op(c, OP_CONV2D_DX, &attr, (ValueId[]){DY, IN(1)}, 2, IN(0)));
    }
}

/* Norms: out = {y, mean, rstd} or {y, rstd}; the second weight, the bias, may be absent. */
static void norm_rule(Grad *c, OpKind dw, OpKind dx, int nweights, int nstats)
{
    if (nweights == 2 && IN(2) == NONE)
        nweights = 1;
    Attr attr = *ATTR;
    ValueId in[5] = {DY, IN(0), OUT(1), nstats == 2 ? OUT(2) : NONE};
    grad_give_weights(c, dw, &attr, in, 2 + nstats, 1, nweights);
    if (!grad_wanted(c, 0))
        return;
    ValueId x[5] = {DY, IN(0), IN(1), OUT(1), nstats == 2 ? OUT(2) : NONE};
    grad_give(c, 0, grad_op(c, dx, &attr, x, 3 + nstats, IN(0)));
}

void grad_layernorm(Grad *c)
{
    norm_rule(c, OP_LAYERNORM_DW, OP_LAYERNORM_DX, 2, 2);
}

void grad_rmsnorm(Grad *c)
{
    norm_rule(c, OP_RMSNORM_DW, OP_RMSNORM_DX, 1, 1);
}

void grad_groupnorm(Grad *c)
{
    norm_rule(c, OP_GROUPNORM_DW, OP_GROUPNORM_DX, 2, 2);
}

/* ----------------------------------------------------------------------- tensors */

/* c = op(a) op(b):  d op(a) = dc op(b)^T,  d op(b) = op(a)^T dc */
void grad_matmul(Grad *c)
{
    ValueId dc = DY, a = IN(0), b = IN(1);
    bool ta = ATTR->ta, tb = ATTR->tb;
    if (grad_wanted(c, 0)) {
        Attr attr = ta ? (Attr){.ta = tb, .tb = true} : (Attr){.ta = false, .tb = !tb};
        ValueId in[2] = {ta ? b : dc, ta ? dc : b};
        grad_give(c, 0, grad_op(c, OP_MATMUL, &attr, in, 2, a));
    }
    if (grad_wanted(c, 1)) {
        Attr attr = tb ? (Attr){.ta = true, .tb = ta} : (Attr){.ta = !ta, .tb = false};
        ValueId in[2] = {tb ? dc : a, tb ? a : dc};
        grad_give(c, 1, grad_op(c, OP_MATMUL, &attr, in, 2, b));
    }
}

void grad_softmax(Grad *c)
{
    grad_give(c, 0, grad_op2(c, OP_SOFTMAX_DX, IN(0), DY, OUT(0)));
}

/* in = {q, k, v} or the whole that they are parts of; out = {o, lse} */
void grad_attention(Grad *c)
{
    Attr attr = *ATTR;
    int n = c->g->ops.at[c->forward].nin;
    ValueId in[6] = {DY, IN(0), n == 3 ? IN(1) : OUT(0), n == 3 ? IN(2) : OUT(1), OUT(0), OUT(1)};
    ValueId d = grad_op(c, OP_ATTENTION_DX, &attr, in, n + 3, IN(0));
    if (n == 1) {
        grad_give(c, 0, d);
        return;
    }
    ValueId parts[3] = {d, grad_result(c, d, IN(1)), grad_result(c, d, IN(2))};
    for (int i = 0; i < 3; i++)
        if (grad_wanted(c, i))
            grad_give(c, i, parts[i]);
}

void grad_rope(Grad *c)
{
    Attr attr = *ATTR;
    attr.inverse = !attr.inverse;
    grad_give(c, 0, grad_op(c, OP_ROPE, &attr, &DY, 1, IN(0)));
}

void grad_dropout(Grad *c)
{
    Attr attr = *ATTR;
    grad_give(c, 0, grad_op(c, OP_DROPOUT, &attr, &DY, 1, IN(0)));
}

void grad_maxpool2d(Grad *c)
{
    Attr attr = *ATTR;
    grad_give(c, 0, grad_op(c, OP_MAXPOOL2D_DX, &attr, (ValueId[]){DY, IN(0)}, 2, IN(0)));
}

void grad_avgpool2d(Grad *c)
{
    Attr attr = *ATTR;
    grad_give(c, 0, grad_op(c, OP_AVGPOOL2D_DX, &attr, &DY, 1, IN(0)));
}

/* dy with the reduced dimensions put back as ones, to be broadcast. */
static ValueId keep_dims(Grad *c, ValueId dy, unsigned dims)
{
    Value like = c->g->values.at[IN(0)];
    Value shaped = {.kind = VALUE_OP, .type = DT_F32, .shape = like.shape, .batched = like.batched};
    for (int i = 0; i < shaped.shape.rank; i++)
        if (dims >> i & 1u)
            shaped.shape.dim[i] = 1;
    ValueId r = grad_op1(c, OP_RESHAPE, dy, dy);
    c->g->values.at[r].shape = shaped.shape;
    return r;
}

void grad_sum(Grad *c)
{
    Attr attr = *ATTR;
    ValueId kept = keep_dims(c, DY, attr.dims);
    Place at = c->g->ops.at[c->forward].at;
    ValueId scale = graph_add_const(c->g, attr.scale, at);
    grad_give(c, 0, grad_op2(c, OP_MUL, IN(0), kept, scale));
}

void grad_max(Grad *c)
{
    Attr attr = *ATTR;
    ValueId in[3] = {DY, IN(0), OUT(0)};
    grad_give(c, 0, grad_op(c, OP_MAX_DX, &attr, in, 3, IN(0)));
}

void grad_split(Grad *c)
{
    Attr attr = *ATTR;
    int n = c->g->ops.at[c->forward].nout;
    ValueId *in = ARENA_ARRAY(c->g->arena, ValueId, n);
    for (int i = 0; i < n; i++) {
        in[i] = grad_of_result(c, i);
        if (in[i] == NONE)
            in[i] = grad_op(c, OP_FILL, &(Attr){.scale = 0}, NULL, 0, OUT(i));
    }
    grad_give(c, 0, grad_op(c, OP_CONCAT, &attr, in, n, IN(0)));
}

void grad_concat(Grad *c)
{
    int n = c->g->ops.at[c->forward].nin, dim = ATTR->a;
    int64_t from = 0;
    for (int i = 0; i < n; i++) {
        int64_t size = c->g->values.at[IN(i)].shape.dim[dim];
        Attr attr = {.a = dim, .from = from, .to = from + size};
        from += size;
        if (!grad_wanted(c, i))
            continue;
        ValueId part = grad_op(c, OP_SLICE, &attr, &DY, 1, IN(i));
        c->g->values.at[part].batched = c->g->values.at[DY].batched;
        grad_give(c, i, part);
    }
}

void grad_reshape(Grad *c)
{
    grad_give(c, 0, grad_op1(c, OP_RESHAPE, IN(0), DY));
}

void grad_transpose(Grad *c)
{
    Attr attr = *ATTR;
    grad_give(c, 0, grad_op(c, OP_TRANSPOSE, &attr, &DY, 1, IN(0)));
}

void grad_slice(Grad *c)
{
    Attr attr = *ATTR;
    grad_give(c, 0, grad_op(c, OP_SLICE_DX, &attr, &DY, 1, IN(0)));
}

void grad_arange(Grad *c)
{
    (void)c; /* integers */
}

/* ------------------------------------------------------------------------ losses */

void grad_cross_entropy(Grad *c)
{
    ValueId in[4] = {IN(0), OUT(1), IN(1), DY};
    grad_give(c, 0, grad_op(c, OP_CROSS_ENTROPY_DX, NULL, in, 4, IN(0)));
}

void grad_accuracy(Grad *c)
{
    (void)c; /* a count: nothing flows back */
}
