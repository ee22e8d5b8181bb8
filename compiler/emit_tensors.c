/* emit_tensors.c - how products, reductions and moves of tensors are spelled on the host.
 *
 * Kernels see the batch as one more dimension in front. Dimensions that a kernel would walk as
 * one are written as one. */
#include <string.h>

#include "emit_ops.h"

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

/* Strides of the leading dimensions of the matrices `x` seen with `rank` of them, 0 where it is
 * broadcast. */
static void broadcast_strides(const Emit *e, const Ref *x, int rank, int64_t *stride)
{
    int64_t own[MAX_RANK + 1];
    int n = full_dims(e, x, own) - 2;
    int64_t step = own[n] * own[n + 1];
    for (int i = 0; i < rank; i++)
        stride[i] = 0;
    for (int i = n - 1, k = rank - 1; i >= 1; i--, k--) {
        stride[k] = own[i] == 1 ? 0 : step;
        step *= own[i];
    }
    stride[0] = value(e, x)->batched && own[0] > 1 ? step : 0;
}

void spell_matmul(Emit *e, const Call *c, const Op *op)
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
    broadcast_strides(e, a, rank, sa);
    broadcast_strides(e, b, rank, sb);
    broadcast_strides(e, y, rank, sc);
    const Shape *x = shape(e, a);
    int64_t k = x->dim[x->rank - (op->attr.ta ? 2 : 1)];
    if (is_half(e, a)) {
        emit_kernel(e, "matmul_half");
        emit_arg(e, "%s", emit_half_kind(value(e, a)->type));
        emit_arg_ref(e, y);
        arg_bool(e, !is_half(e, y));
        emit_arg_ref(e, a);
        emit_arg_ref(e, b);
    } else {
        BEGIN("matmul", y, a, b);
    }
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

void spell_softmax(Emit *e, const Call *c, const Op *op)
{
    (void)op;
    BEGIN("softmax_forward", OUT(0), IN(0));
    arg_rows(e, IN(0));
    arg_int(e, last(shape(e, IN(0))));
    END();
}

void spell_softmax_dx(Emit *e, const Call *c, const Op *op)
{
    (void)op;
    BEGIN("softmax_backward", OUT(0), IN(0), IN(1));
    arg_rows(e, IN(1));
    arg_int(e, last(shape(e, IN(1))));
    END();
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

/* Part `part` of three that lie side by side in x, or x itself where they do not. */
static void arg_part(Emit *e, const Ref *x, bool packed, int part)
{
    arg_offset(e, x, packed ? last(shape(e, x)) / 3 * part : 0);
}

/* The shapes of attention, from q, k and v or the one tensor of all. */
static void arg_attention(Emit *e, const Ref *q, const Ref *k, const Ref *v, bool packed,
                          const Attr *a)
{
    const Shape *x = shape(e, q), *y = shape(e, k);
    int64_t t = x->dim[x->rank - 2], s = y->dim[y->rank - 2];
    int64_t width = last(x) / a->heads / (packed ? 3 : 1), samples = 1;
    for (int i = 0; i < x->rank - 2; i++)
        samples *= x->dim[i];
    emit_arg(e, "&(Attention){%s, %lld, %lld, %lld, %lld, %lld, %lld, %lld, %lld, %s}",
             emit_count(e, value(e, q)->batched, samples), (long long)t, (long long)s,
             (long long)a->heads, (long long)a->kv_heads, (long long)width, (long long)last(x),
             (long long)last(y), (long long)last(shape(e, v)), a->causal ? "true" : "false");
}

void spell_attention(Emit *e, const Call *c, const Op *op)
{
    bool packed = c->nin == 1;
    const Ref *q = IN(0), *k = packed ? q : IN(1), *v = packed ? q : IN(2);
    BEGIN_LIKE(IN(0), "attention_forward", OUT(0), OUT(1));
    arg_part(e, q, packed, 0);
    arg_part(e, k, packed, 1);
    arg_part(e, v, packed, 2);
    arg_attention(e, q, k, v, packed, &op->attr);
    END();
}

void spell_attention_dx(Emit *e, const Call *c, const Op *op)
{
    bool packed = c->nin == 4;
    const Ref *dq = OUT(0), *dk = packed ? dq : OUT(1), *dv = packed ? dq : OUT(2);
    const Ref *q = IN(1), *k = packed ? q : IN(2), *v = packed ? q : IN(3);
    begin(e, IN(0), "attention_backward", 0, NULL);
    arg_part(e, dq, packed, 0);
    arg_part(e, dk, packed, 1);
    arg_part(e, dv, packed, 2);
    emit_arg_ref(e, IN(0));
    arg_part(e, q, packed, 0);
    arg_part(e, k, packed, 1);
    arg_part(e, v, packed, 2);
    emit_arg_ref(e, IN(c->nin - 2));
    emit_arg_ref(e, IN(c->nin - 1));
    arg_attention(e, q, k, v, packed, &op->attr);
    END();
}

void spell_rope(Emit *e, const Call *c, const Op *op)
{
    const Shape *x = shape(e, IN(0));
    int64_t t = x->dim[x->rank - 2];
    BEGIN_LIKE(IN(0), "rope", OUT(0), IN(0));
    emit_arg_count(e, value(e, IN(0))->batched, shape_count(x) / t / last(x));
    arg_int(e, t);
    arg_int(e, op->attr.heads);
    arg_int(e, last(x) / op->attr.heads);
    emit_arg(e, "%s", emit_number(e, op->attr.base));
    arg_bool(e, op->attr.inverse);
    END();
}

/* The layer's path in turn i, as the runtime hashes it. */
static void arg_path(Emit *e, const Call *c)
{
    const char *prefix = emit_string(e->arena, c->prefix),
               *suffix = emit_string(e->arena, c->suffix);
    if (c->first < 0) {
        emit_arg(e, "dropout_key(s, %s, -1, %s)", prefix, suffix);
        return;
    }
    e->used_i = true;
    int64_t step = c->number_step < 0 ? -c->number_step : c->number_step;
    const char *times = step == 1 ? "" : arena_printf(e->arena, "%lld * ", (long long)step);
    emit_arg(e, "dropout_key(s, %s, %lld %c %si, %s)", prefix, (long long)c->first,
             c->number_step < 0 ? '-' : '+', times, suffix);
}

void spell_dropout(Emit *e, const Call *c, const Op *op)
{
    bool batched = value(e, OUT(0))->batched;
    BEGIN_LIKE(IN(0), "dropout", OUT(0), IN(0));
    emit_arg(e, "s->training ? %s : 0", emit_shortest(e, op->attr.p, 17));
    arg_path(e, c);
    e->used_m = e->used_m || batched;
    emit_arg(e, "%s", batched ? "m * B" : "0");
    emit_arg(e, "%s", batched ? "B" : "1");
    arg_int(e, shape_count(shape(e, OUT(0))));
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

void spell_sum(Emit *e, const Call *c, const Op *op)
{
    BEGIN_LIKE(IN(0), "reduce_sum", OUT(0), IN(0));
    arg_reduction(e, IN(0), op->attr.dims, op->attr.batch);
    emit_arg(e, "%.17g", op->attr.scale);
    arg_accumulate(e, OUT(0));
    END();
}

void spell_max(Emit *e, const Call *c, const Op *op)
{
    BEGIN("reduce_max", OUT(0), IN(0));
    arg_reduction(e, IN(0), op->attr.dims, false);
    END();
}

void spell_max_dx(Emit *e, const Call *c, const Op *op)
{
    BEGIN("reduce_max_backward", OUT(0), IN(0), IN(1), IN(2));
    arg_reduction(e, IN(1), op->attr.dims, false);
    END();
}

void spell_accumulate(Emit *e, const Call *c, const Op *op)
{
    (void)op;
    BEGIN_LIKE(IN(0), "reduce_sum", OUT(0), IN(0));
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
    emit_kernel(e, "copy_strided");
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

void spell_split(Emit *e, const Call *c, const Op *op)
{
    int64_t from = 0;
    for (int i = 0; i < c->nout; i++) {
        copy_part(e, IN(0), OUT(i), op->attr.a, from, false);
        from += shape(e, OUT(i))->dim[op->attr.a];
    }
}

void spell_concat(Emit *e, const Call *c, const Op *op)
{
    int64_t from = 0;
    for (int i = 0; i < c->nin; i++) {
        copy_part(e, OUT(0), IN(i), op->attr.a, from, true);
        from += shape(e, IN(i))->dim[op->attr.a];
    }
}

void spell_slice(Emit *e, const Call *c, const Op *op)
{
    copy_part(e, IN(0), OUT(0), op->attr.a, op->attr.from, false);
}

void spell_slice_dx(Emit *e, const Call *c, const Op *op)
{
    BEGIN_LIKE(OUT(0), "fill", OUT(0));
    emit_arg(e, "0");
    arg_elements(e, OUT(0));
    END();
    copy_part(e, OUT(0), IN(0), op->attr.a, op->attr.from, true);
}

void spell_transpose(Emit *e, const Call *c, const Op *op)
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

void spell_reshape(Emit *e, const Call *c, const Op *op)
{
    (void)e, (void)c, (void)op; /* shares the storage of its operand; never a call */
}

void spell_arange(Emit *e, const Call *c, const Op *op)
{
    (void)op;
    if (e->gpu)
        emit_kernel(e, "arange_fill");
    else
        emit_call(e, "arange_fill");
    emit_arg_ref(e, OUT(0));
    arg_int(e, shape_count(shape(e, OUT(0))));
    if (e->gpu)
        emit_kernel_end(e);
    else
        emit_end(e, "", ";");
}

void spell_fill(Emit *e, const Call *c, const Op *op)
{
    BEGIN_LIKE(OUT(0), "fill", OUT(0));
    emit_arg(e, "%s%s", emit_number(e, op->attr.scale), op->attr.scaled ? " * s->loss_scale" : "");
    arg_elements(e, OUT(0));
    END();
}

void spell_fused(Emit *e, const Call *c, const Op *op)
{
    (void)op;
    emit_fused_call(e, c);
}
