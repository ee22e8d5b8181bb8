/* cost_gpu.c - what every row of ops.def launches and moves on a GPU.
 *
 * In:  the Program: calls with the shapes of their operands.
 * Out: sums of launches, products and bytes.
 *
 * A rule hands the arguments that the emitted call has (emit_ops.c, emit_tensors.c) to the
 * function of cost_gpu_launch.h that stands for the kernel's launcher. */
#include "cost_gpu_launch.h"
#include "fuse.h"

#include <string.h>

/* A call of the plan, and where its numbers go. */
typedef struct {
    const Program *p;
    const Device *d;
    const Call *call;
    const Op *op;
    bool first; /* micro-batch */
    double least;
    Tally t;
} Case;

typedef void GpuRule(Case *c);

/* --------------------------------------------------------------------- arguments */

static const Value *value_of(const Case *c, const Ref *r)
{
    return &c->p->graph->values.at[r->value];
}

static const Shape *in_shape(const Case *c, int i)
{
    return &value_of(c, &c->call->in[i])->shape;
}

static const Shape *out_shape(const Case *c, int i)
{
    return &value_of(c, &c->call->out[i])->shape;
}

static int64_t last_dim(const Shape *s)
{
    return s->rank ? s->dim[s->rank - 1] : 1;
}

static int64_t batch_of(const Case *c, const Ref *r)
{
    return value_of(c, r)->batched ? c->p->microbatch : 1;
}

static int64_t elements(const Case *c, const Ref *r)
{
    return shape_count(&value_of(c, r)->shape) * batch_of(c, r);
}

/* Of [rows, last dimension]. */
static int64_t rows(const Case *c, const Ref *r)
{
    return elements(c, r) / last_dim(&value_of(c, r)->shape);
}

static double bytes_of(const Case *c, const Ref *r)
{
    return r->buffer == NONE ? 0 : (double)value_bytes(c->p, r->value);
}

static int element_bytes(const Case *c, const Ref *r)
{
    const Dtype t = value_of(c, r)->type;
    return t == DT_U8 ? 1 : dtype_is_half(t) ? GPU_HALF : GPU_FLOAT;
}

static bool has_input(const Case *c, int i)
{
    return i < c->call->nin && c->call->in[i].buffer != NONE;
}

/* Whether the call adds to its result: gradients of weights, after the first micro-batch. */
static bool accumulates(const Case *c, int i)
{
    int buffer = c->call->out[i].buffer;
    return !c->first && buffer != NONE && c->d->buffers.at[buffer].class == BUFFER_GRAD;
}

/* The dimensions with the batch in front. */
static int full_dims(const Case *c, const Ref *r, int64_t dim[MAX_RANK + 1])
{
    const Shape *s = &value_of(c, r)->shape;
    dim[0] = batch_of(c, r);
    memcpy(dim + 1, s->dim, sizeof *dim * (size_t)s->rank);
    return s->rank + 1;
}

static void strides_of(const int64_t *dim, int rank, int64_t *stride)
{
    int64_t step = 1;
    for (int i = rank - 1; i >= 0; i--) {
        stride[i] = step;
        step *= dim[i];
    }
}

/* Rows of a table that a call can touch at most. */
static double touched(const Case *c, const Ref *ids, const Shape *table)
{
    return GPU_FLOAT * (double)least_of(elements(c, ids), table->dim[0]) * (double)last_dim(table);
}

/* ------------------------------------------------------------------------- least */

static double least_in(const Case *c, int i)
{
    const Ref *in = c->call->in;
    for (int k = 0; k < i; k++)
        if (in[k].buffer == in[i].buffer && in[k].value == in[i].value)
            return 0;
    if (c->op->kind == OP_SLICE)
        return bytes_of(c, &c->call->out[0]);
    if (c->op->kind == OP_EMBEDDING && i == 1)
        return touched(c, &in[0], in_shape(c, 1));
    return bytes_of(c, &in[i]);
}

static double least_out(const Case *c, int i)
{
    const Ref *out = &c->call->out[i];
    if (!accumulates(c, i))
        return bytes_of(c, out);
    if (c->op->kind == OP_EMBEDDING_DW)
        return 2 * touched(c, &c->call->in[1], out_shape(c, 0));
    return 2 * bytes_of(c, out);
}

static double least_of_call(const Case *c)
{
    double sum = 0;
    for (int i = 0; i < c->call->nin; i++)
        sum += least_in(c, i);
    for (int i = 0; i < c->call->nout; i++)
        sum += least_out(c, i);
    return sum;
}

/* ------------------------------------------------------------------ layers, losses */

static void gpu_one_pass(Case *c)
{
    tally_kernels(&c->t, 1, c->least);
}

static void gpu_linear(Case *c)
{
    const Ref *x = &c->call->in[0];
    tally_linear(&c->t, rows(c, x), last_dim(out_shape(c, 0)), last_dim(in_shape(c, 0)),
                 has_input(c, 2));
}

static void gpu_linear_dx(Case *c)
{
    const Ref *dy = &c->call->in[0];
    tally_product(&c->t, rows(c, dy), last_dim(out_shape(c, 0)), last_dim(in_shape(c, 0)), false);
}

static void gpu_linear_dw(Case *c)
{
    const Ref *dy = &c->call->in[0];
    int64_t n = last_dim(in_shape(c, 0)), k = last_dim(in_shape(c, 1));
    bool turned = c->op->attr.transposed;
    tally_product(&c->t, turned ? k : n, turned ? n : k, rows(c, dy), accumulates(c, 0));
}

static void gpu_embedding_dw(Case *c)
{
    const Shape *table = out_shape(c, 0);
    tally_embedding_dw(&c->t, elements(c, &c->call->in[1]), table->dim[0], table->dim[1],
                       accumulates(c, 0));
}

/* x [B,C,H,W] and y [B,K,OH,OW] */
static ImageShape image_of(const Case *c, const Ref *x, const Ref *y, int64_t groups)
{
    const Shape *in = &value_of(c, x)->shape, *out = &value_of(c, y)->shape;
    const Attr *a = &c->op->attr;
    return (ImageShape){batch_of(c, x), in->dim[0],  in->dim[1],  in->dim[2],
                        out->dim[0],    out->dim[1], out->dim[2], a->kernel,
                        a->stride,      a->pad,      groups};
}

static void gpu_conv2d(Case *c)
{
    ImageShape s = image_of(c, &c->call->in[0], &c->call->out[0], c->op->attr.groups);
    tally_conv2d(&c->t, &s, has_input(c, 2));
}

static void gpu_conv2d_dx(Case *c)
{
    ImageShape s = image_of(c, &c->call->out[0], &c->call->in[0], c->op->attr.groups);
    tally_conv2d_dx(&c->t, &s);
}

static void gpu_conv2d_dw(Case *c)
{
    ImageShape s = image_of(c, &c->call->in[1], &c->call->in[0], c->op->attr.groups);
    tally_conv2d_dw(&c->t, &s, accumulates(c, 0));
}

static void gpu_maxpool2d(Case *c)
{
    ImageShape s = image_of(c, &c->call->in[0], &c->call->out[0], 1);
    tally_pool(&c->t, &s, c->least);
}

static void gpu_maxpool2d_dx(Case *c)
{
    ImageShape s = image_of(c, &c->call->out[0], &c->call->in[0], 1);
    tally_maxpool2d_dx(&c->t, &s, c->least);
}

static void gpu_avgpool2d_dx(Case *c)
{
    ImageShape s = image_of(c, &c->call->out[0], &c->call->in[0], 1);
    tally_avgpool2d_dx(&c->t, &s, c->least);
}

/* Rows of the last dimension. Where they are long, what comes in is read again: forward x, as
 * pieces meet the weights once; on the way back dy, x and w. */
static void norm_rows(Case *c, const Ref *x, int inputs)
{
    const int64_t n = last_dim(&value_of(c, x)->shape);
    double again = 0;
    for (int i = 0; i < inputs; i++)
        again += bytes_of(c, &c->call->in[i]);
    tally_norm(&c->t, rows(c, x), n, n % 4 == 0, again, c->least);
}

static void gpu_layernorm(Case *c)
{
    norm_rows(c, &c->call->in[0], 1);
}

static void gpu_layernorm_dx(Case *c)
{
    norm_rows(c, &c->call->in[1], 3);
}

static void norm_weights(Case *c, bool bias)
{
    const Ref *x = &c->call->in[1];
    tally_norm_dw(&c->t, rows(c, x), last_dim(in_shape(c, 1)), bias, c->least);
}

static void gpu_layernorm_dw(Case *c)
{
    norm_weights(c, c->call->nout > 1 && c->call->out[1].buffer != NONE);
}

static void gpu_rmsnorm_dw(Case *c)
{
    norm_weights(c, false);
}

/* A row: the channels of a group of a sample. */
static void norm_groups(Case *c, const Ref *x, int inputs)
{
    int64_t count = batch_of(c, x) * c->op->attr.groups, channels = value_of(c, x)->shape.dim[0];
    int64_t inner = shape_count(&value_of(c, x)->shape) / channels;
    double again = 0;
    for (int i = 0; i < inputs; i++)
        again += bytes_of(c, &c->call->in[i]);
    tally_norm(&c->t, count, channels / c->op->attr.groups * inner, inner % 4 == 0, again,
               c->least);
}

static void gpu_groupnorm(Case *c)
{
    norm_groups(c, &c->call->in[0], 1);
}

static void gpu_groupnorm_dx(Case *c)
{
    norm_groups(c, &c->call->in[1], 3);
}

static void gpu_groupnorm_dw(Case *c)
{
    tally_groupnorm_dw(&c->t, batch_of(c, &c->call->in[1]), in_shape(c, 1)->dim[0], c->least);
}

static void gpu_softmax(Case *c)
{
    tally_softmax(&c->t, last_dim(in_shape(c, 0)), bytes_of(c, &c->call->in[0]), c->least);
}

static void gpu_softmax_dx(Case *c)
{
    double again = bytes_of(c, &c->call->in[0]) + bytes_of(c, &c->call->in[1]);
    tally_softmax(&c->t, last_dim(in_shape(c, 1)), again, c->least);
}

static void gpu_dropout(Case *c)
{
    tally_dropout(&c->t, batch_of(c, &c->call->out[0]), shape_count(out_shape(c, 0)), c->least);
}

/* Keys and values are read once for every tile of queries, half of them where causal; on the way
 * back likewise, and queries and their gradients for every tile of keys. The one tensor of all
 * three is a third of each. */
static double read_again(const Case *c, int q, bool packed)
{
    enum { TILE = 64 };
    const Ref *k = &c->call->in[packed ? q : q + 1];
    const Shape *x = &value_of(c, &c->call->in[q])->shape;
    const double tiles = (double)ceil_div(x->dim[x->rank - 2], TILE);
    const double each = packed ? bytes_of(c, k) * 2 / 3 : 2 * bytes_of(c, k);
    return each * (tiles - 1) * (c->op->attr.causal ? 0.5 : 1);
}

static void gpu_attention(Case *c)
{
    tally_kernels(&c->t, 1, c->least + read_again(c, 0, c->call->nin == 1));
}

/* The sums over dout o first, of as many heads as the scratch holds; then dq; then dk and dv. */
static void gpu_attention_dx(Case *c)
{
    const bool packed = c->call->nin == 4;
    const Shape *q = in_shape(c, 1);
    const int64_t t = q->dim[q->rank - 2], group = c->op->attr.heads / c->op->attr.kv_heads;
    int64_t heads = batch_of(c, &c->call->in[1]) * c->op->attr.kv_heads;
    for (int i = 0; i < q->rank - 2; i++)
        heads *= q->dim[i];
    const int64_t fit = GPU_ROOM / (group * t), most = fit > 0 ? fit : heads;
    const double out = bytes_of(c, &c->call->in[0]) + bytes_of(c, &c->call->in[c->call->nin - 2]);
    const int64_t width = last_dim(q) / c->op->attr.heads / (packed ? 3 : 1);
    const bool apart = c->t.in == GPU_HALF && width > 64 && width <= 128; /* dk and dv */
    tally_kernels(&c->t, ceil_div(heads, most) * ((fit > 0 ? 3 : 2) + apart),
                  2 * c->least + out + 2 * read_again(c, 1, packed));
}

static void gpu_cross_entropy(Case *c)
{
    const Shape *logits = in_shape(c, 0);
    tally_row_means(&c->t, batch_of(c, &c->call->in[0]), shape_count(logits) / last_dim(logits),
                    c->least);
}

/* ------------------------------------------------------------------------ tensors */

/* Strides of the matrices of `x` seen with `rank` leading dimensions, 0 where it is broadcast. */
static void broadcast_strides(const Case *c, const Ref *x, int rank, int64_t *stride)
{
    int64_t own[MAX_RANK + 1];
    int n = full_dims(c, x, own) - 2;
    int64_t step = own[n] * own[n + 1];
    for (int i = 0; i < rank; i++)
        stride[i] = 0;
    for (int i = n - 1, k = rank - 1; i >= 1; i--, k--) {
        stride[k] = own[i] == 1 ? 0 : step;
        step *= own[i];
    }
    stride[0] = own[0] > 1 ? step : 0;
}

static void gpu_matmul(Case *c)
{
    const Ref *all[3] = {&c->call->in[0], &c->call->in[1], &c->call->out[0]};
    const Shape *a = in_shape(c, 0), *y = out_shape(c, 0);
    int64_t own[MAX_RANK + 1];
    ProductBatch batch = {.rank = 1}; /* the batch of samples first */
    for (int i = 0; i < 3; i++)
        batch.rank = (int)most_of(batch.rank, value_of(c, all[i])->shape.rank - 1);
    for (int i = 0; i < batch.rank; i++)
        batch.dim[i] = 1;
    for (int t = 0; t < 3; t++) {
        int n = full_dims(c, all[t], own) - 2;
        for (int i = n - 1, k = batch.rank - 1; i >= 1; i--, k--)
            batch.dim[k] = most_of(batch.dim[k], own[i]);
        batch.dim[0] = most_of(batch.dim[0], own[0]);
    }
    broadcast_strides(c, all[0], batch.rank, batch.a);
    broadcast_strides(c, all[1], batch.rank, batch.b);
    broadcast_strides(c, all[2], batch.rank, batch.c);
    tally_matmul(&c->t, c->op->attr.ta, c->op->attr.tb, y->dim[y->rank - 2], y->dim[y->rank - 1],
                 a->dim[a->rank - (c->op->attr.ta ? 2 : 1)], &batch, accumulates(c, 0));
}

static void reduction(Case *c, const Ref *x, unsigned mask)
{
    int64_t dim[MAX_RANK + 1];
    int rank = full_dims(c, x, dim);
    tally_reduce(&c->t, rank, dim, mask, c->least);
}

static void gpu_sum(Case *c)
{
    reduction(c, &c->call->in[0], c->op->attr.dims << 1 | (c->op->attr.batch ? 1u : 0u));
}

static void gpu_max(Case *c)
{
    reduction(c, &c->call->in[0], c->op->attr.dims << 1);
}

/* The part [from, from + size) of dimension `a` of `whole`, to or from `part`. */
static void copy_part(Case *c, const Ref *whole, const Ref *part, int64_t from, bool to_whole)
{
    int64_t dw[MAX_RANK + 1], dp[MAX_RANK + 1], sw[MAX_RANK + 1], sp[MAX_RANK + 1];
    int rank = full_dims(c, whole, dw);
    full_dims(c, part, dp);
    strides_of(dw, rank, sw);
    strides_of(dp, rank, sp);
    if (dp[0] != dw[0]) {
        dp[0] = dw[0];
        sp[0] = 0; /* the same for every sample */
    }
    int64_t offset = from * sw[c->op->attr.a + 1];
    int size = element_bytes(c, whole);
    if (to_whole)
        tally_copy(&c->t, rank, dp, sw, sp, offset, 0, size);
    else
        tally_copy(&c->t, rank, dp, sp, sw, 0, offset, size);
}

static void gpu_split(Case *c)
{
    int64_t from = 0;
    for (int i = 0; i < c->call->nout; i++) {
        copy_part(c, &c->call->in[0], &c->call->out[i], from, false);
        from += out_shape(c, i)->dim[c->op->attr.a];
    }
}

static void gpu_concat(Case *c)
{
    int64_t from = 0;
    for (int i = 0; i < c->call->nin; i++) {
        copy_part(c, &c->call->out[0], &c->call->in[i], from, true);
        from += in_shape(c, i)->dim[c->op->attr.a];
    }
}

static void gpu_slice(Case *c)
{
    copy_part(c, &c->call->in[0], &c->call->out[0], c->op->attr.from, false);
}

static void gpu_slice_dx(Case *c)
{
    tally_kernels(&c->t, 1, bytes_of(c, &c->call->out[0]));
    copy_part(c, &c->call->out[0], &c->call->in[0], c->op->attr.from, true);
}

static void gpu_transpose(Case *c)
{
    int64_t dx[MAX_RANK + 1], dy[MAX_RANK + 1], sx[MAX_RANK + 1], sy[MAX_RANK + 1];
    int rank = full_dims(c, &c->call->in[0], dx);
    full_dims(c, &c->call->out[0], dy);
    strides_of(dx, rank, sx);
    strides_of(dy, rank, sy);
    int a = c->op->attr.a + 1, b = c->op->attr.b + 1;
    int64_t between = sx[a];
    sx[a] = sx[b];
    sx[b] = between;
    tally_copy(&c->t, rank, dy, sy, sx, 0, 0, element_bytes(c, &c->call->out[0]));
}

/* Shares the storage of its operand; never a call. */
static void gpu_reshape(Case *c)
{
    (void)c;
}

#define gpu_embedding gpu_one_pass
#define gpu_rmsnorm gpu_layernorm
#define gpu_avgpool2d gpu_maxpool2d
#define gpu_arange gpu_one_pass
#define gpu_accuracy gpu_cross_entropy
#define gpu_fused gpu_one_pass
#define gpu_fill gpu_one_pass
#define gpu_rmsnorm_dx gpu_layernorm_dx
#define gpu_max_dx gpu_one_pass
#define gpu_cross_entropy_dx gpu_one_pass
#define gpu_accumulate gpu_one_pass
#define gpu_rope gpu_one_pass

/* A MAP alone is never a call: fuse() has made them FUSED. */
static GpuRule *const gpu_rules[OP_COUNT] = {
#define OP(ID, name, sig) [OP_##ID] = gpu_##name,
#define PART(ID, name) [OP_##ID] = gpu_##name,
#define INNER(ID, name) [OP_##ID] = gpu_##name,
#include "ops.def"
};

/* ------------------------------------------------------------------------- a call */

/* A tail is a kernel of its own behind the operation's; leaves in c->least what that one moves. */
static void add_tail(Case *c)
{
    const Ref *own = &c->call->out[tail_result(c->op)];
    double once = bytes_of(c, own), first = bytes_of(c, own);
    for (int i = 0; i < c->call->nin; i++) {
        if (i < tail_operands(c->op->kind))
            first += least_in(c, i);
        else
            once += least_in(c, i);
    }
    for (int i = 0; i < ((const MapProgram *)c->op->map)->nout; i++)
        once += least_out(c, i);
    tally_kernels(&c->t, 1, once);
    c->least = first;
}

void tally_call(Arena *a, const Program *p, const Device *d, const Call *call, bool first,
                int64_t times, GpuWork *to)
{
    Case c = {.p = p,
              .d = d,
              .call = call,
              .first = first,
              .t = {a, to, OP_NONE, times, GPU_FLOAT, GPU_FLOAT}};
    switch (call->kind) {
    case CALL_LOAD:
    case CALL_LOSS:
        to->copies += times;
        break;
    case CALL_METRIC:
        break; /* is fetched in evaluations alone */
    case CALL_OP:
        c.op = &p->graph->ops.at[call->op];
        c.t.op = c.op->kind;
        if (call->nin > 0)
            c.t.in = element_bytes(&c, &call->in[0]);
        c.t.out = element_bytes(&c, &call->out[0]);
        c.least = least_of_call(&c);
        to->least += c.least * (double)times;
        if (has_tail(c.op))
            add_tail(&c);
        gpu_rules[c.op->kind](&c);
        break;
    }
}

GpuWork cost_gpu_call(Arena *a, const Program *p, const Device *d, const Call *call, bool first)
{
    GpuWork work = {0};
    tally_call(a, p, d, call, first, 1, &work);
    return work;
}
