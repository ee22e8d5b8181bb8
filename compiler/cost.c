/* cost.c - floating-point operations of each row of ops.def, and bytes of any. */
#include "cost.h"

#include <stddef.h>

/* FLOPs for all samples; n is the number of elements of the first result. */
typedef double CostRule(const Graph *g, const Op *op, double n);

static const Shape *in_shape(const Graph *g, const Op *op, int i)
{
    return &g->values.at[op->in[i]].shape;
}

static double last_dim(const Shape *s)
{
    return s->rank ? (double)s->dim[s->rank - 1] : 1;
}

/* Moves data only. */
static double cost_none(const Graph *g, const Op *op, double n)
{
    (void)g, (void)op, (void)n;
    return 0;
}

static double cost_each(const Graph *g, const Op *op, double n)
{
    (void)g, (void)op;
    return n;
}

/* A few passes of arithmetic over the first operand's elements. */
static double cost_norm(const Graph *g, const Op *op, double n)
{
    (void)g, (void)op;
    return 8 * n;
}

static double cost_linear(const Graph *g, const Op *op, double n)
{
    return 2 * n * last_dim(in_shape(g, op, 0));
}

static double cost_linear_dx(const Graph *g, const Op *op, double n)
{
    return 2 * n * last_dim(in_shape(g, op, 0));
}

/* dw[n,k] = dy[rows,n]^T x[rows,k]; `samples` of the operands are in their own count. */
static double rows_of(const Graph *g, const Op *op)
{
    const Shape *s = in_shape(g, op, 0);
    return (double)shape_count(s) / last_dim(s);
}

static double cost_linear_dw(const Graph *g, const Op *op, double n)
{
    return 2 * n * rows_of(g, op);
}

static double cost_conv2d(const Graph *g, const Op *op, double n)
{
    double taps = (double)(op->attr.kernel * op->attr.kernel);
    return 2 * n * taps * (double)in_shape(g, op, 0)->dim[0] / (double)op->attr.groups;
}

static double cost_conv2d_dx(const Graph *g, const Op *op, double n)
{
    /* as many products as the forward pass: every weight times every dy */
    const Shape *w = in_shape(g, op, 1), *dy = in_shape(g, op, 0);
    (void)n;
    return 2 * (double)shape_count(dy) * (double)(w->dim[1] * w->dim[2] * w->dim[3]);
}

static double cost_conv2d_dw(const Graph *g, const Op *op, double n)
{
    const Shape *dy = in_shape(g, op, 0);
    return 2 * n * (double)(dy->dim[1] * dy->dim[2]);
}

static double cost_matmul(const Graph *g, const Op *op, double n)
{
    const Shape *a = in_shape(g, op, 0);
    return 2 * n * (double)a->dim[a->rank - (op->attr.ta ? 2 : 1)];
}

/* Two products of queries and keys, half of them where causal. */
static double cost_attention(const Graph *g, const Op *op, double n)
{
    const Shape *k = in_shape(g, op, op->nin == 3 ? 1 : 0);
    (void)n;
    double pairs = 4.0 * (double)k->dim[k->rank - 2] * (op->attr.causal ? 0.5 : 1);
    return pairs * (double)shape_count(&g->values.at[op->out[0]].shape);
}

/* Five: the scores are computed again. */
static double cost_attention_dx(const Graph *g, const Op *op, double n)
{
    const Shape *k = in_shape(g, op, op->nin == 6 ? 2 : 1);
    (void)n;
    double pairs = 10.0 * (double)k->dim[k->rank - 2] * (op->attr.causal ? 0.5 : 1);
    return pairs * (double)shape_count(in_shape(g, op, 0));
}

static double cost_pool(const Graph *g, const Op *op, double n)
{
    (void)g;
    return n * (double)(op->attr.kernel * op->attr.kernel);
}

static double cost_fused(const Graph *g, const Op *op, double n)
{
    (void)g;
    return n * (double)op->nin;
}

#define cost_layernorm cost_norm
#define cost_rmsnorm cost_norm
#define cost_groupnorm cost_norm
#define cost_embedding cost_none
#define cost_softmax cost_norm
#define cost_dropout cost_each
#define cost_rope cost_fused
#define cost_maxpool2d cost_pool
#define cost_avgpool2d cost_pool
#define cost_sum cost_each
#define cost_max cost_each
#define cost_split cost_none
#define cost_concat cost_none
#define cost_reshape cost_none
#define cost_transpose cost_none
#define cost_slice cost_none
#define cost_arange cost_none
#define cost_cross_entropy cost_each
#define cost_accuracy cost_each
#define cost_fill cost_none
#define cost_embedding_dw cost_each
#define cost_layernorm_dx cost_norm
#define cost_layernorm_dw cost_norm
#define cost_rmsnorm_dx cost_norm
#define cost_rmsnorm_dw cost_norm
#define cost_groupnorm_dx cost_norm
#define cost_groupnorm_dw cost_norm
#define cost_softmax_dx cost_norm
#define cost_maxpool2d_dx cost_each
#define cost_avgpool2d_dx cost_pool
#define cost_max_dx cost_each
#define cost_slice_dx cost_none
#define cost_cross_entropy_dx cost_norm
#define cost_accumulate cost_each

static CostRule *const rules[OP_COUNT] = {
#define OP(ID, name, sig) [OP_##ID] = cost_##name,
#define PART(ID, name) [OP_##ID] = cost_##name,
#define MAP(ID, name, sig, expr) [OP_##ID] = cost_each,
#define MAPGRAD(ID, name, expr) [OP_##ID] = cost_each,
#define INNER(ID, name) [OP_##ID] = cost_##name,
#include "ops.def"
};

/* The work is counted per row of the batch where any operand or result has one. */
static bool works_per_sample(const Graph *g, const Op *op)
{
    for (int i = 0; i < op->nin; i++)
        if (op->in[i] != NONE && g->values.at[op->in[i]].batched)
            return true;
    for (int i = 0; i < op->nout; i++)
        if (op->out[i] != NONE && g->values.at[op->out[i]].batched)
            return true;
    return false;
}

static double bytes_of(const Graph *g, ValueId v, int64_t samples)
{
    if (v == NONE)
        return 0;
    const Value *x = &g->values.at[v];
    double each = x->type == DT_U8 ? 1 : dtype_is_half(x->type) ? 2 : 4;
    return (double)shape_count(&x->shape) * each * (x->batched ? (double)samples : 1);
}

Cost cost_of(const Graph *g, const Op *op, int64_t samples)
{
    Cost c = {0, 0};
    if (op->kind == OP_RESHAPE)
        return c;
    ValueId first = NONE;
    for (int i = 0; i < op->nout && first == NONE; i++)
        first = op->out[i];
    double n = first == NONE ? 0 : (double)shape_count(&g->values.at[first].shape);
    c.flops = rules[op->kind](g, op, n) * (works_per_sample(g, op) ? (double)samples : 1);
    for (int i = 0; i < op->nin; i++)
        c.bytes += bytes_of(g, op->in[i], samples);
    for (int i = 0; i < op->nout; i++)
        c.bytes += bytes_of(g, op->out[i], samples);
    return c;
}

double cost_seconds(const Devices *d, Cost c)
{
    double arithmetic = c.flops / d->compute, traffic = c.bytes / d->bandwidth;
    return arithmetic > traffic ? arithmetic : traffic;
}

double cost_transfer_seconds(const Devices *d, int from, int to, double bytes)
{
    bool same_node = d->per_node == 0 || from / d->per_node == to / d->per_node;
    return d->latency + bytes / (same_node ? d->link : d->node_link);
}

/* ------------------------------------------------------------------- all operations */

/* Element by element, so that a value can go from one to the next without touching memory. */
static bool is_pass(const Op *op)
{
    return op_is_map(op->kind) || op->kind == OP_FUSED;
}

/* Whose result a pass over it can take while it is in the cache. */
static bool hands_on(OpKind kind)
{
    return op_is_map(kind) || kind == OP_FUSED || kind == OP_LINEAR || kind == OP_LINEAR_DX ||
           kind == OP_LAYERNORM_DX || kind == OP_RMSNORM_DX || kind == OP_CONV2D;
}

static bool is_streamed(const Graph *g, const Op *op, ValueId v)
{
    const OpId def = v == NONE ? NONE : g->values.at[v].def;
    if (def == NONE || !is_pass(op))
        return false;
    const Op *from = &g->ops.at[def];
    const Value *y = &g->values.at[op->out[0]];
    return hands_on(from->kind) && from->phase == op->phase &&
           g->values.at[v].batched == y->batched &&
           shape_equal(&g->values.at[v].shape, &y->shape) &&
           graph_turn_of(g, from->frame) == graph_turn_of(g, op->frame);
}

double *cost_table(Arena *a, const Graph *g, const Devices *d, int64_t samples)
{
    double *seconds = ARENA_ARRAY(a, double, g->ops.n + 1);
    Cost *costs = ARENA_ARRAY(a, Cost, g->ops.n + 1);
    int *readers = ARENA_ARRAY(a, int, g->values.n + 1);
    for (OpId o = 0; o < g->ops.n; o++) {
        costs[o] = cost_of(g, &g->ops.at[o], samples);
        for (int i = 0; i < g->ops.at[o].nin; i++)
            if (g->ops.at[o].in[i] != NONE)
                readers[g->ops.at[o].in[i]]++;
    }
    for (OpId o = 0; o < g->ops.n; o++) {
        const Op *op = &g->ops.at[o];
        seconds[o] = op->kind == OP_RESHAPE ? 0 : d->call;
        for (int i = 0; i < op->nin; i++) {
            const ValueId v = op->in[i];
            if (!is_streamed(g, op, v))
                continue;
            seconds[o] = 0; /* a part of the loop, or the kernel, before it */
            costs[o].bytes -= bytes_of(g, v, samples);
            if (readers[v] == 1)
                costs[g->values.at[v].def].bytes -= bytes_of(g, v, samples);
        }
    }
    for (OpId o = 0; o < g->ops.n; o++)
        seconds[o] += cost_seconds(d, costs[o]);
    return seconds;
}
