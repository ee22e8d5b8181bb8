/* emit_ops.c - how every row of ops.def is spelled on the host: one call each.
 *
 * Weights' gradients are summed over the micro-batches in place: the first one writes
 * (accumulate is `m > 0`). */
#include <string.h>

#include "emit.h"

typedef void EmitRule(Emit *e, const Call *c, const Op *op);

static const Value *value(const Emit *e, const Ref *r)
{
    return &e->p->graph->values.at[r->value];
}

static const Shape *shape(const Emit *e, const Ref *r)
{
    return &value(e, r)->shape;
}

static int64_t last(const Shape *s)
{
    return s->rank ? s->dim[s->rank - 1] : 1;
}

/* Rows of [rows, last dimension]. */
static void arg_rows(Emit *e, const Ref *r)
{
    int64_t n = last(shape(e, r));
    emit_arg_count(e, value(e, r)->batched, n ? shape_count(shape(e, r)) / n : 0);
}

static void arg_elements(Emit *e, const Ref *r)
{
    emit_arg_count(e, value(e, r)->batched, shape_count(shape(e, r)));
}

static void arg_int(Emit *e, int64_t n)
{
    emit_arg(e, "%lld", (long long)n);
}

static void arg_bool(Emit *e, bool b)
{
    emit_arg(e, "%s", b ? "true" : "false");
}

static bool is_grad(const Emit *e, const Ref *r)
{
    return r->buffer != NONE && e->d->buffers.at[r->buffer].class == BUFFER_GRAD;
}

static void arg_accumulate(Emit *e, const Ref *r)
{
    if (is_grad(e, r)) {
        e->used_m = true;
        emit_arg(e, "m > 0");
    } else {
        emit_arg(e, "false");
    }
}

/* name(s->team, refs… */
static void begin(Emit *e, const char *name, int n, const Ref *const *refs)
{
    emit_call(e, name);
    emit_arg(e, "s->team");
    for (int i = 0; i < n; i++)
        emit_arg_ref(e, refs[i]);
}
#define BEGIN(name, ...)                                                      \
    begin(e, name, (int)(sizeof((const Ref *[]){__VA_ARGS__}) / sizeof(Ref *)), \
          (const Ref *const[]){__VA_ARGS__})
#define IN(i) (&c->in[i])
#define OUT(i) (&c->out[i])
#define END() emit_end(e, "", ";")

/* --------------------------------------------------------------------- layers */

static void emit_linear(Emit *e, const Call *c, const Op *op)
{
    BEGIN("linear_forward", OUT(0), IN(0), IN(1), IN(2));
    arg_rows(e, IN(0));
    arg_int(e, last(shape(e, IN(0))));
    arg_int(e, last(shape(e, OUT(0))));
    arg_bool(e, op->attr.transposed);
    END();
}

static void emit_linear_dx(Emit *e, const Call *c, const Op *op)
{
    BEGIN("linear_backward_input", OUT(0), IN(0), IN(1));
    arg_rows(e, IN(0));
    arg_int(e, last(shape(e, OUT(0))));
    arg_int(e, last(shape(e, IN(0))));
    arg_bool(e, op->attr.transposed);
    END();
}

static void emit_linear_dw(Emit *e, const Call *c, const Op *op)
{
    BEGIN("linear_backward_weight", OUT(0), IN(0), IN(1));
    arg_rows(e, IN(0));
    arg_int(e, last(shape(e, IN(1))));
    arg_int(e, last(shape(e, IN(0))));
    arg_bool(e, op->attr.transposed);
    arg_accumulate(e, OUT(0));
    END();
}

static void emit_embedding(Emit *e, const Call *c, const Op *op)
{
    (void)op;
    BEGIN("embedding_forward", OUT(0), IN(0), IN(1));
    arg_elements(e, IN(0));
    arg_int(e, last(shape(e, OUT(0))));
    END();
}

static void emit_embedding_dw(Emit *e, const Call *c, const Op *op)
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

static void emit_conv2d(Emit *e, const Call *c, const Op *op)
{
    BEGIN("conv2d_forward", OUT(0), IN(0), IN(1), IN(2));
    arg_conv(e, IN(0), OUT(0), &op->attr, op->attr.groups);
    arg_bool(e, op->attr.relu);
    END();
}

static void emit_conv2d_dx(Emit *e, const Call *c, const Op *op)
{
    BEGIN("conv2d_backward_input", OUT(0), IN(0), IN(1));
    arg_conv(e, OUT(0), IN(0), &op->attr, op->attr.groups);
    END();
}

static void emit_conv2d_dw(Emit *e, const Call *c, const Op *op)
{
    BEGIN("conv2d_backward_weight", OUT(0), IN(0), IN(1));
    arg_conv(e, IN(1), IN(0), &op->attr, op->attr.groups);
    arg_accumulate(e, OUT(0));
    END();
}

static void emit_layernorm(Emit *e, const Call *c, const Op *op)
{
    BEGIN("layernorm_forward", OUT(0), OUT(1), OUT(2), IN(0), IN(1), IN(2));
    arg_rows(e, IN(0));
    arg_int(e, last(shape(e, IN(0))));
    emit_arg(e, "%s", emit_number(e, op->attr.eps));
    END();
}

static void emit_layernorm_dx(Emit *e, const Call *c, const Op *op)
{
    (void)op;
    BEGIN("layernorm_backward_input", OUT(0), IN(0), IN(1), IN(2), IN(3), IN(4));
    arg_rows(e, IN(1));
    arg_int(e, last(shape(e, IN(1))));
    END();
}

static void emit_layernorm_dw(Emit *e, const Call *c, const Op *op)
{
    (void)op;
    const Ref absent = {.buffer = NONE, .entry = NONE, .value = NONE};
    const Ref *bias = c->nout > 1 ? OUT(1) : &absent;
    BEGIN("layernorm_backward_weight", OUT(0), bias, IN(0), IN(1), IN(2), IN(3));
    arg_rows(e, IN(1));
    arg_int(e, last(shape(e, IN(1))));
    arg_accumulate(e, OUT(0));
    END();
}

static void emit_rmsnorm(Emit *e, const Call *c, const Op *op)
{
    BEGIN("rmsnorm_forward", OUT(0), OUT(1), IN(0), IN(1));
    arg_rows(e, IN(0));
    arg_int(e, last(shape(e, IN(0))));
    emit_arg(e, "%s", emit_number(e, op->attr.eps));
    END();
}

static void emit_rmsnorm_dx(Emit *e, const Call *c, const Op *op)
{
    (void)op;
    BEGIN("rmsnorm_backward_input", OUT(0), IN(0), IN(1), IN(2), IN(3));
    arg_rows(e, IN(1));
    arg_int(e, last(shape(e, IN(1))));
    END();
}

static void emit_rmsnorm_dw(Emit *e, const Call *c, const Op *op)
{
    (void)op;
    BEGIN("rmsnorm_backward_weight", OUT(0), IN(0), IN(1), IN(2));
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

static void emit_groupnorm(Emit *e, const Call *c, const Op *op)
{
    BEGIN("groupnorm_forward", OUT(0), OUT(1), OUT(2), IN(0), IN(1), IN(2));
    arg_groups(e, IN(0), op->attr.groups);
    emit_arg(e, "%s", emit_number(e, op->attr.eps));
    END();
}

static void emit_groupnorm_dx(Emit *e, const Call *c, const Op *op)
{
    BEGIN("groupnorm_backward_input", OUT(0), IN(0), IN(1), IN(2), IN(3), IN(4));
    arg_groups(e, IN(1), op->attr.groups);
    END();
}

static void emit_groupnorm_dw(Emit *e, const Call *c, const Op *op)
{
    BEGIN("groupnorm_backward_weight", OUT(0), OUT(1), IN(0), IN(1), IN(2), IN(3));
    arg_groups(e, IN(1), op->attr.groups);
    arg_accumulate(e, OUT(0));
    END();
}

/* -------------------------------------------------------------------- tensors */

static const char *list(Emit *e, const int64_t *x, int n)
{
    Text t = {.arena = e->arena};
    text_add(&t, "{");
    for (int i = 0; i < n; i++)
        text_printf(&t, "%s%lld", i ? ", " : "", (long long)x[i]);
    text_add(&t, n ? "}" : "0}");
    return t.at;
}

/* Dimensions of a tensor with its batch in front (1 where it has none). */
static int full_dims(const Emit *e, const Ref *r, int64_t dim[MAX_RANK + 1])
{
    const Value *v = value(e, r);
    dim[0] = v->batched ? e->p->microbatch : 1;
    memcpy(dim + 1, v->shape.dim, sizeof(int64_t) * (size_t)v->shape.rank);
    return v->shape.rank + 1;
}

/* Strides of `x` seen with `rank` dimensions `dim`, 0 where it is broadcast. */
static void broadcast_strides(const Emit *e, const Ref *x, int rank, const int64_t *dim,
                              int skip, int64_t *stride)
{
    int64_t own[MAX_RANK + 1], step = 1;
    int n = full_dims(e, x, own);
    for (int i = n - 1; i > n - 1 - skip; i--)
        step *= own[i];
    for (int i = 0; i < rank; i++)
        stride[i] = 0;
    int k = rank - 1;
    for (int i = n - 1 - skip; i >= 1; i--, k--) {
        stride[k] = own[i] == 1 ? 0 : step;
        step *= own[i];
    }
    stride[0] = value(e, x)->batched && own[0] > 1 ? step : 0;
}

static void emit_matmul(Emit *e, const Call *c, const Op *op)
{
    const Ref *a = IN(0), *b = IN(1), *y = OUT(0);
    int64_t da[MAX_RANK + 1], db[MAX_RANK + 1], dy[MAX_RANK + 1], dim[MAX_RANK + 1];
    int ra = full_dims(e, a, da), rb = full_dims(e, b, db), ry = full_dims(e, y, dy);
    int rank = 1; /* of the leading dimensions, the batch first */
    rank = ra - 2 > rank ? ra - 2 : rank;
    rank = rb - 2 > rank ? rb - 2 : rank;
    rank = ry - 2 > rank ? ry - 2 : rank;
    const int64_t *all[3] = {da, db, dy};
    int ranks[3] = {ra - 2, rb - 2, ry - 2};
    for (int i = 0; i < rank; i++)
        dim[i] = 1;
    for (int t = 0; t < 3; t++) {
        for (int i = ranks[t] - 1, k = rank - 1; i >= 1; i--, k--)
            dim[k] = all[t][i] > dim[k] ? all[t][i] : dim[k];
        dim[0] = all[t][0] > dim[0] ? all[t][0] : dim[0];
    }
    int64_t sa[MAX_RANK + 1], sb[MAX_RANK + 1], sc[MAX_RANK + 1];
    broadcast_strides(e, a, rank, dim, 2, sa);
    broadcast_strides(e, b, rank, dim, 2, sb);
    broadcast_strides(e, y, rank, dim, 2, sc);
    const Shape *x = shape(e, a);
    int64_t k = x->dim[x->rank - (op->attr.ta ? 2 : 1)];
    BEGIN("matmul", y, a, b);
    arg_bool(e, op->attr.ta);
    arg_bool(e, op->attr.tb);
    arg_int(e, dy[ry - 2]);
    arg_int(e, dy[ry - 1]);
    arg_int(e, k);
    emit_arg(e, "&(MatmulBatch){%d, %s, %s, %s, %s}", rank, list(e, dim, rank), list(e, sa, rank),
             list(e, sb, rank), list(e, sc, rank));
    arg_accumulate(e, y);
    END();
}

static void emit_softmax(Emit *e, const Call *c, const Op *op)
{
    (void)op;
    BEGIN("softmax_forward", OUT(0), IN(0));
    arg_rows(e, IN(0));
    arg_int(e, last(shape(e, IN(0))));
    END();
}

static void emit_softmax_dx(Emit *e, const Call *c, const Op *op)
{
    (void)op;
    BEGIN("softmax_backward", OUT(0), IN(0), IN(1));
    arg_rows(e, IN(1));
    arg_int(e, last(shape(e, IN(1))));
    END();
}

/* The layer's path in turn i, as the runtime hashes it. */
static void arg_path(Emit *e, const Call *c)
{
    const char *prefix = emit_string(e->arena, c->prefix), *suffix = emit_string(e->arena, c->suffix);
    if (c->first < 0) {
        emit_arg(e, "dropout_key(s, %s, -1, %s)", prefix, suffix);
        return;
    }
    e->used_i = true;
    emit_arg(e, "dropout_key(s, %s, %lld %c %lld * i, %s)", prefix, (long long)c->first,
             c->number_step < 0 ? '-' : '+',
             (long long)(c->number_step < 0 ? -c->number_step : c->number_step), suffix);
}

static void emit_dropout(Emit *e, const Call *c, const Op *op)
{
    bool batched = value(e, OUT(0))->batched;
    BEGIN("dropout", OUT(0), IN(0));
    emit_arg(e, "s->training ? %.17g : 0", op->attr.p);
    arg_path(e, c);
    e->used_m = e->used_m || batched;
    emit_arg(e, "%s", batched ? "m * B" : "0");
    emit_arg(e, "%s", batched ? "B" : "1");
    arg_int(e, shape_count(shape(e, OUT(0))));
    END();
}

static void emit_maxpool2d(Emit *e, const Call *c, const Op *op)
{
    BEGIN("maxpool2d_forward", OUT(0), IN(0));
    arg_conv(e, IN(0), OUT(0), &op->attr, shape(e, IN(0))->dim[0]);
    END();
}

static void emit_maxpool2d_dx(Emit *e, const Call *c, const Op *op)
{
    BEGIN("maxpool2d_backward", OUT(0), IN(0), IN(1));
    arg_conv(e, OUT(0), IN(0), &op->attr, shape(e, OUT(0))->dim[0]);
    END();
}

static void emit_avgpool2d(Emit *e, const Call *c, const Op *op)
{
    BEGIN("avgpool2d_forward", OUT(0), IN(0));
    arg_conv(e, IN(0), OUT(0), &op->attr, shape(e, IN(0))->dim[0]);
    END();
}

static void emit_avgpool2d_dx(Emit *e, const Call *c, const Op *op)
{
    BEGIN("avgpool2d_backward", OUT(0), IN(0));
    arg_conv(e, OUT(0), IN(0), &op->attr, shape(e, OUT(0))->dim[0]);
    END();
}

/* rank, dims and mask of x with its batch in front; bit 0 is the batch. Neighbours that are
 * reduced or kept together are written as one dimension. */
static void arg_reduction(Emit *e, const Ref *x, unsigned dims, bool batch)
{
    int64_t dim[MAX_RANK + 1], merged[MAX_RANK + 1];
    int rank = full_dims(e, x, dim), n = 0;
    unsigned mask = dims << 1 | (batch ? 1u : 0u), out = 0;
    for (int i = 0; i < rank; i++) {
        unsigned bit = mask >> i & 1u;
        if (dim[i] == 1 && rank > 1 && (n > 0 || i + 1 < rank))
            continue;
        if (n > 0 && (out >> (n - 1) & 1u) == bit) {
            merged[n - 1] *= dim[i];
            continue;
        }
        merged[n] = dim[i];
        out |= bit << n++;
    }
    emit_arg(e, "%d", n);
    emit_arg(e, "(const int64_t[])%s", list(e, merged, n));
    emit_arg(e, "%uu", out);
}

static void emit_sum(Emit *e, const Call *c, const Op *op)
{
    BEGIN("reduce_sum", OUT(0), IN(0));
    arg_reduction(e, IN(0), op->attr.dims, op->attr.batch);
    emit_arg(e, "%.17g", op->attr.scale);
    arg_accumulate(e, OUT(0));
    END();
}

static void emit_max(Emit *e, const Call *c, const Op *op)
{
    BEGIN("reduce_max", OUT(0), IN(0));
    arg_reduction(e, IN(0), op->attr.dims, false);
    END();
}

static void emit_max_dx(Emit *e, const Call *c, const Op *op)
{
    BEGIN("reduce_max_backward", OUT(0), IN(0), IN(1), IN(2));
    arg_reduction(e, IN(1), op->attr.dims, false);
    END();
}

static void emit_accumulate(Emit *e, const Call *c, const Op *op)
{
    (void)op;
    BEGIN("reduce_sum", OUT(0), IN(0));
    emit_arg(e, "1");
    int64_t n = shape_count(shape(e, IN(0)));
    emit_arg(e, "(const int64_t[])%s", list(e, &n, 1));
    emit_arg(e, "0u");
    emit_arg(e, "1.0");
    arg_accumulate(e, OUT(0));
    END();
}

static void strides_of(const int64_t *dim, int rank, int64_t *stride)
{
    int64_t step = 1;
    for (int i = rank - 1; i >= 0; i--) {
        stride[i] = step;
        step *= dim[i];
    }
}

static void arg_offset(Emit *e, const Ref *r, int64_t offset)
{
    if (offset == 0)
        emit_arg_ref(e, r);
    else if (r->entry == NONE)
        emit_arg(e, "%s + %lld", emit_ref(e, r), (long long)offset);
    else
        emit_arg(e, "(%s) + %lld", emit_ref(e, r), (long long)offset);
}

/* y + y0 and x + x0 are walked over dim[rank]; neighbours that are contiguous in both are
 * written as one dimension, dimensions of 1 not at all. */
static void copy(Emit *e, const Ref *y, int64_t y0, const Ref *x, int64_t x0, int rank,
                 const int64_t *dim, const int64_t *ys, const int64_t *xs)
{
    int64_t d[MAX_RANK + 1], a[MAX_RANK + 1], b[MAX_RANK + 1];
    int n = 0;
    for (int i = 0; i < rank; i++) {
        if (dim[i] == 1 && !(n == 0 && i == rank - 1))
            continue;
        if (n > 0 && a[n - 1] == ys[i] * dim[i] && b[n - 1] == xs[i] * dim[i]) {
            d[n - 1] *= dim[i];
            a[n - 1] = ys[i];
            b[n - 1] = xs[i];
            continue;
        }
        d[n] = dim[i];
        a[n] = ys[i];
        b[n++] = xs[i];
    }
    emit_call(e, "copy_strided");
    emit_arg(e, "s->team");
    arg_offset(e, y, y0);
    arg_offset(e, x, x0);
    emit_arg(e, "%d", n);
    emit_arg(e, "(const int64_t[])%s", list(e, d, n));
    emit_arg(e, "(const int64_t[])%s", list(e, a, n));
    emit_arg(e, "(const int64_t[])%s", list(e, b, n));
    emit_arg(e, "(int)sizeof(%s)", emit_ctype(e, value(e, y)->type));
    END();
}

/* Copies the part [from, from + size) of dimension `a` (per sample) of `whole` to or from
 * `part`, which has that size. */
static void copy_part(Emit *e, const Ref *whole, const Ref *part, int a, int64_t from,
                      bool to_whole)
{
    int64_t dw[MAX_RANK + 1], dp[MAX_RANK + 1], sw[MAX_RANK + 1], sp[MAX_RANK + 1];
    int rank = full_dims(e, whole, dw);
    full_dims(e, part, dp);
    strides_of(dw, rank, sw);
    strides_of(dp, rank, sp);
    if (!value(e, part)->batched && value(e, whole)->batched) {
        dp[0] = dw[0];
        sp[0] = 0; /* the same for every sample */
    }
    int64_t offset = from * sw[a + 1];
    if (to_whole)
        copy(e, whole, offset, part, 0, rank, dp, sw, sp);
    else
        copy(e, part, 0, whole, offset, rank, dp, sp, sw);
}

static void emit_split(Emit *e, const Call *c, const Op *op)
{
    int64_t from = 0;
    for (int i = 0; i < c->nout; i++) {
        copy_part(e, IN(0), OUT(i), op->attr.a, from, false);
        from += shape(e, OUT(i))->dim[op->attr.a];
    }
}

static void emit_concat(Emit *e, const Call *c, const Op *op)
{
    int64_t from = 0;
    for (int i = 0; i < c->nin; i++) {
        copy_part(e, OUT(0), IN(i), op->attr.a, from, true);
        from += shape(e, IN(i))->dim[op->attr.a];
    }
}

static void emit_slice(Emit *e, const Call *c, const Op *op)
{
    copy_part(e, IN(0), OUT(0), op->attr.a, op->attr.from, false);
}

static void emit_slice_dx(Emit *e, const Call *c, const Op *op)
{
    BEGIN("fill", OUT(0));
    emit_arg(e, "0");
    arg_elements(e, OUT(0));
    END();
    copy_part(e, OUT(0), IN(0), op->attr.a, op->attr.from, true);
}

static void emit_transpose(Emit *e, const Call *c, const Op *op)
{
    int64_t dx[MAX_RANK + 1], dy[MAX_RANK + 1], sx[MAX_RANK + 1], sy[MAX_RANK + 1];
    int rank = full_dims(e, IN(0), dx);
    full_dims(e, OUT(0), dy);
    strides_of(dx, rank, sx);
    strides_of(dy, rank, sy);
    int a = op->attr.a + 1, b = op->attr.b + 1;
    int64_t t = sx[a];
    sx[a] = sx[b];
    sx[b] = t;
    copy(e, OUT(0), 0, IN(0), 0, rank, dy, sy, sx);
}

static void emit_reshape(Emit *e, const Call *c, const Op *op)
{
    (void)e, (void)c, (void)op; /* shares the storage of its operand; never a call */
}

static void emit_arange(Emit *e, const Call *c, const Op *op)
{
    (void)op;
    emit_call(e, "arange_fill");
    emit_arg_ref(e, OUT(0));
    arg_int(e, shape_count(shape(e, OUT(0))));
    END();
}

static void emit_fill(Emit *e, const Call *c, const Op *op)
{
    BEGIN("fill", OUT(0));
    emit_arg(e, "%s", emit_number(e, op->attr.scale));
    arg_elements(e, OUT(0));
    END();
}

static void emit_fused(Emit *e, const Call *c, const Op *op)
{
    (void)op;
    emit_fused_call(e, c);
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

static void emit_cross_entropy(Emit *e, const Call *c, const Op *op)
{
    (void)op;
    BEGIN("cross_entropy_forward", OUT(0), OUT(1), IN(0), IN(1));
    arg_logits(e, IN(0));
    END();
}

static void emit_cross_entropy_dx(Emit *e, const Call *c, const Op *op)
{
    (void)op;
    BEGIN("cross_entropy_backward", OUT(0), IN(0), IN(1), IN(2), IN(3));
    arg_logits(e, IN(0));
    END();
}

static void emit_accuracy(Emit *e, const Call *c, const Op *op)
{
    (void)op;
    BEGIN("accuracy_forward", OUT(0), IN(0), IN(1));
    arg_logits(e, IN(0));
    END();
}

static EmitRule *const rules[OP_COUNT] = {
#define OP(ID, name, sig) [OP_##ID] = emit_##name,
#define MAP(ID, name, sig, expr)
#define MAPGRAD(ID, name, expr)
#define INNER(ID, name) [OP_##ID] = emit_##name,
#define SUGAR(name, sig)
#define LATER(name, sig, when)
#include "ops.def"
#undef OP
#undef MAP
#undef MAPGRAD
#undef INNER
#undef SUGAR
#undef LATER
};

void emit_op(Emit *e, const Call *c)
{
    const Op *op = &e->p->graph->ops.at[c->op];
    rules[op->kind](e, c, op);
}
