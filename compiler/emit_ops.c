/* emit_ops.c - how the rows of ops.def are spelled on the host, one call each: layers and losses;
 * tensors are in emit_tensors.c. */
#include "emit_ops.h"

/* --------------------------------------------------------------------- layers */

void spell_linear(Emit *e, const Call *c, const Op *op)
{
    BEGIN_THEN(IN(0), "linear_forward", IN(0), IN(1), IN(2));
    arg_rows(e, IN(0));
    arg_int(e, last(shape(e, IN(0))));
    arg_int(e, last(shape(e, OUT(0))));
    arg_bool(e, op->attr.transposed);
    end_then(e, c, op, IN(0));
}

void spell_linear_dx(Emit *e, const Call *c, const Op *op)
{
    BEGIN_THEN(IN(0), "linear_backward_input", IN(0), IN(1));
    arg_rows(e, IN(0));
    arg_int(e, last(shape(e, OUT(0))));
    arg_int(e, last(shape(e, IN(0))));
    arg_bool(e, op->attr.transposed);
    end_then(e, c, op, IN(0));
}

void spell_linear_dw(Emit *e, const Call *c, const Op *op)
{
    BEGIN_LIKE(IN(0), "linear_backward_weight", OUT(0), IN(0), IN(1));
    arg_rows(e, IN(0));
    arg_int(e, last(shape(e, IN(1))));
    arg_int(e, last(shape(e, IN(0))));
    arg_bool(e, op->attr.transposed);
    arg_accumulate(e, OUT(0));
    END();
}

void spell_embedding(Emit *e, const Call *c, const Op *op)
{
    (void)op;
    BEGIN("embedding_forward", OUT(0), IN(0), IN(1));
    arg_elements(e, IN(0));
    arg_int(e, last(shape(e, OUT(0))));
    END();
}

void spell_embedding_dw(Emit *e, const Call *c, const Op *op)
{
    (void)op;
    BEGIN("embedding_backward_weight", OUT(0), IN(0), IN(1));
    arg_elements(e, IN(1));
    arg_int(e, shape(e, OUT(0))->dim[0]);
    arg_int(e, shape(e, OUT(0))->dim[1]);
    arg_accumulate(e, OUT(0));
    END();
}

/* The shapes of a convolution or pooling from x [C,H,W] and y [K,OH,OW]. */
static void arg_conv(Emit *e, const Ref *x, const Ref *y, const Attr *a, int64_t groups)
{
    const Shape *in = shape(e, x), *out = shape(e, y);
    emit_arg(e, "&(Conv2d){%s, %lld, %lld, %lld, %lld, %lld, %lld, %lld, %lld, %lld, %lld}",
             value(e, x)->batched ? "B" : "1", (long long)in->dim[0], (long long)in->dim[1],
             (long long)in->dim[2], (long long)out->dim[0], (long long)out->dim[1],
             (long long)out->dim[2], (long long)a->kernel, (long long)a->stride, (long long)a->pad,
             (long long)groups);
}

void spell_conv2d(Emit *e, const Call *c, const Op *op)
{
    BEGIN("conv2d_forward", OUT(0), IN(0), IN(1), IN(2));
    arg_conv(e, IN(0), OUT(0), &op->attr, op->attr.groups);
    arg_bool(e, op->attr.relu);
    END();
}

void spell_conv2d_dx(Emit *e, const Call *c, const Op *op)
{
    BEGIN("conv2d_backward_input", OUT(0), IN(0), IN(1));
    arg_conv(e, OUT(0), IN(0), &op->attr, op->attr.groups);
    END();
}

void spell_conv2d_dw(Emit *e, const Call *c, const Op *op)
{
    BEGIN("conv2d_backward_weight", OUT(0), IN(0), IN(1));
    arg_conv(e, IN(1), IN(0), &op->attr, op->attr.groups);
    arg_accumulate(e, OUT(0));
    END();
}

void spell_layernorm(Emit *e, const Call *c, const Op *op)
{
    BEGIN_LIKE(OUT(0), "layernorm_forward", OUT(0), OUT(1), OUT(2), IN(0), IN(1), IN(2));
    arg_rows(e, IN(0));
    arg_int(e, last(shape(e, IN(0))));
    emit_arg(e, "%s", emit_number(e, op->attr.eps));
    END();
}

void spell_layernorm_dx(Emit *e, const Call *c, const Op *op)
{
    BEGIN_THEN(IN(0), "layernorm_backward_input", IN(0), IN(1), IN(2), IN(3), IN(4));
    arg_rows(e, IN(1));
    arg_int(e, last(shape(e, IN(1))));
    end_then(e, c, op, IN(0));
}

void spell_layernorm_dw(Emit *e, const Call *c, const Op *op)
{
    (void)op;
    const Ref absent = {.buffer = NONE, .entry = NONE, .value = NONE};
    const Ref *bias = c->nout > 1 ? OUT(1) : &absent;
    BEGIN_LIKE(IN(0), "layernorm_backward_weight", OUT(0), bias, IN(0), IN(1), IN(2), IN(3));
    arg_rows(e, IN(1));
    arg_int(e, last(shape(e, IN(1))));
    arg_accumulate(e, OUT(0));
    END();
}

void spell_rmsnorm(Emit *e, const Call *c, const Op *op)
{
    BEGIN_LIKE(OUT(0), "rmsnorm_forward", OUT(0), OUT(1), IN(0), IN(1));
    arg_rows(e, IN(0));
    arg_int(e, last(shape(e, IN(0))));
    emit_arg(e, "%s", emit_number(e, op->attr.eps));
    END();
}

void spell_rmsnorm_dx(Emit *e, const Call *c, const Op *op)
{
    BEGIN_THEN(IN(0), "rmsnorm_backward_input", IN(0), IN(1), IN(2), IN(3));
    arg_rows(e, IN(1));
    arg_int(e, last(shape(e, IN(1))));
    end_then(e, c, op, IN(0));
}

void spell_rmsnorm_dw(Emit *e, const Call *c, const Op *op)
{
    (void)op;
    BEGIN_LIKE(IN(0), "rmsnorm_backward_weight", OUT(0), IN(0), IN(1), IN(2));
    arg_rows(e, IN(1));
    arg_int(e, last(shape(e, IN(1))));
    arg_accumulate(e, OUT(0));
    END();
}

/* x [B, C, inner] */
static void arg_groups(Emit *e, const Ref *x, int64_t groups)
{
    const Shape *s = shape(e, x);
    emit_arg(e, "%s", value(e, x)->batched ? "B" : "1");
    arg_int(e, s->dim[0]);
    arg_int(e, s->dim[0] ? shape_count(s) / s->dim[0] : 0);
    arg_int(e, groups);
}

void spell_groupnorm(Emit *e, const Call *c, const Op *op)
{
    BEGIN("groupnorm_forward", OUT(0), OUT(1), OUT(2), IN(0), IN(1), IN(2));
    arg_groups(e, IN(0), op->attr.groups);
    emit_arg(e, "%s", emit_number(e, op->attr.eps));
    END();
}

void spell_groupnorm_dx(Emit *e, const Call *c, const Op *op)
{
    BEGIN("groupnorm_backward_input", OUT(0), IN(0), IN(1), IN(2), IN(3), IN(4));
    arg_groups(e, IN(1), op->attr.groups);
    END();
}

void spell_groupnorm_dw(Emit *e, const Call *c, const Op *op)
{
    BEGIN("groupnorm_backward_weight", OUT(0), OUT(1), IN(0), IN(1), IN(2), IN(3));
    arg_groups(e, IN(1), op->attr.groups);
    arg_accumulate(e, OUT(0));
    END();
}

void spell_maxpool2d(Emit *e, const Call *c, const Op *op)
{
    BEGIN("maxpool2d_forward", OUT(0), IN(0));
    arg_conv(e, IN(0), OUT(0), &op->attr, shape(e, IN(0))->dim[0]);
    END();
}

void spell_maxpool2d_dx(Emit *e, const Call *c, const Op *op)
{
    BEGIN("maxpool2d_backward", OUT(0), IN(0), IN(1));
    arg_conv(e, OUT(0), IN(0), &op->attr, shape(e, OUT(0))->dim[0]);
    END();
}

void spell_avgpool2d(Emit *e, const Call *c, const Op *op)
{
    BEGIN("avgpool2d_forward", OUT(0), IN(0));
    arg_conv(e, IN(0), OUT(0), &op->attr, shape(e, IN(0))->dim[0]);
    END();
}

void spell_avgpool2d_dx(Emit *e, const Call *c, const Op *op)
{
    BEGIN("avgpool2d_backward", OUT(0), IN(0));
    arg_conv(e, OUT(0), IN(0), &op->attr, shape(e, OUT(0))->dim[0]);
    END();
}

/* --------------------------------------------------------------------- losses */

/* samples, inner rows, classes */
static void arg_logits(Emit *e, const Ref *logits)
{
    const Shape *s = shape(e, logits);
    emit_arg(e, "%s", value(e, logits)->batched ? "B" : "1");
    arg_int(e, shape_count(s) / last(s));
    arg_int(e, last(s));
}

void spell_cross_entropy(Emit *e, const Call *c, const Op *op)
{
    (void)op;
    BEGIN_LIKE(IN(0), "cross_entropy_forward", OUT(0), OUT(1), IN(0), IN(1));
    arg_logits(e, IN(0));
    END();
}

void spell_cross_entropy_dx(Emit *e, const Call *c, const Op *op)
{
    (void)op;
    BEGIN_LIKE(IN(0), "cross_entropy_backward", OUT(0), IN(0), IN(1), IN(2), IN(3));
    arg_logits(e, IN(0));
    END();
}

void spell_accuracy(Emit *e, const Call *c, const Op *op)
{
    (void)op;
    BEGIN_LIKE(IN(0), "accuracy_forward", OUT(0), IN(0), IN(1));
    arg_logits(e, IN(0));
    END();
}

static EmitRule *const rules[OP_COUNT] = {
#define OP(ID, name, sig) [OP_##ID] = spell_##name,
#define PART(ID, name) [OP_##ID] = spell_##name,
#define INNER(ID, name) [OP_##ID] = spell_##name,
#include "ops.def"
};

void emit_op(Emit *e, const Call *c)
{
    const Op *op = &e->p->graph->ops.at[c->op];
    rules[op->kind](e, c, op);
}
