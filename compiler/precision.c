/* precision.c - which tensors are 16 bits wide in mixed precision.
 *
 * In:  the forward operations, on f32; what moves or casts inputs on the inputs' own types.
 * Out: the same, where the operands and results of matrix products (linear, matmul, attention)
 *      are bf16 or f16, and what stands between f32 and 16 bits is an operation: a cast.
 *
 * Products read 16 bits and give 16 bits. What only moves elements keeps their type. Norms,
 * softmax, sums, convolutions and losses read f32 (sums and cross entropy 16 bits as well) and
 * give f32. Element-wise operations read both and compute in f32. A norm or an element-wise
 * operation whose result only products read writes 16 bits itself, since the products would
 * round it anyway; a result that others read as well is f32 and has a rounded copy. So what is
 * added up over the layers, the residual stream, stays f32. Inputs that have these 16 bits to begin
 * with are read by products as they are.
 *
 * A weight that a product reads has a rounded copy, a value of its own, which is made from the
 * f32 weight at the start of every step; a gradient of a weight is always f32.
 */
#include "program.h"

#include <string.h>

/* What the readers of a value make of it. */
enum { WANT_HALF = 1, WANT_WIDE = 2 /* f32 if there is one */, MUST_WIDE = 4 };

typedef struct {
    Graph *g;
    Dtype half;
    unsigned *want;          /* [values] */
    ValueId *rounded, *wide; /* [values]: its copy of the other type, or NONE */
    ValueId *instead;        /* [values]: what is read instead of it, or NONE */
    VEC(Op) ops;             /* as they come out */
    int nvalues;             /* before any copies */
} Mixed;

typedef enum {
    ROLE_WIDE,    /* f32 in and out */
    ROLE_PRODUCT, /* 16 bits in and out */
    ROLE_MOVE,    /* gives the type of its operands */
    ROLE_MAP,     /* reads any */
    ROLE_NORM,    /* f32 in, any out */
    ROLE_SUM      /* reads any, gives f32 */
} Role;

static Role role_of(OpKind kind)
{
    switch (kind) {
    case OP_LINEAR:
    case OP_MATMUL:
    case OP_ATTENTION:
        return ROLE_PRODUCT;
    case OP_ROPE:
    case OP_DROPOUT:
    case OP_SPLIT:
    case OP_CONCAT:
    case OP_RESHAPE:
    case OP_TRANSPOSE:
    case OP_SLICE:
        return ROLE_MOVE;
    case OP_LAYERNORM:
    case OP_RMSNORM:
        return ROLE_NORM;
    case OP_SUM:
    case OP_CROSS_ENTROPY:
    case OP_ACCURACY:
        return ROLE_SUM;
    default:
        return op_is_map(kind) ? ROLE_MAP : ROLE_WIDE;
    }
}

/* The bias of linear is f32. */
static bool is_factor(const Op *op, int i)
{
    return role_of(op->kind) == ROLE_PRODUCT && !(op->kind == OP_LINEAR && i == 2);
}

static void find_wants(Mixed *x)
{
    const Graph *g = x->g;
    x->want[g->loss] |= MUST_WIDE;
    for (int i = 0; i < g->metrics.n; i++)
        x->want[g->metrics.at[i].value] |= MUST_WIDE;
    for (OpId o = g->ops.n - 1; o >= 0; o--) {
        const Op *op = &g->ops.at[o];
        const Role role = role_of(op->kind);
        unsigned moved = 0;
        for (int i = 0; i < op->nout; i++)
            moved |= x->want[op->out[i]];
        for (int i = 0; i < op->nin; i++)
            if (op->in[i] != NONE)
                x->want[op->in[i]] |= is_factor(op, i)                       ? WANT_HALF
                                      : role == ROLE_MOVE                    ? moved
                                      : role == ROLE_MAP || role == ROLE_SUM ? WANT_WIDE
                                                                             : MUST_WIDE;
    }
}

/* Adds `y = cast x` behind the operations so far; `near` gives its place in the model. */
static ValueId cast(Mixed *x, ValueId v, Dtype type, const Op *near)
{
    Graph *g = x->g;
    Op op = {.kind = OP_CAST,
             .at = g->values.at[v].at,
             .device = NONE,
             .forward = NONE,
             .nin = 1,
             .nout = 1,
             .in = arena_copy(g->arena, &v, sizeof v),
             .out = ARENA_ARRAY(g->arena, ValueId, 1)};
    if (near) {
        op.at = near->at;
        op.path = near->path;
        op.frame = near->frame;
        op.statement = near->statement;
        op.device = near->device;
        op.recompute = near->recompute;
    }
    Value y = g->values.at[v];
    y.kind = VALUE_OP;
    y.type = type;
    y.def = x->ops.n;
    op.out[0] = graph_add_value(g, y);
    VEC_PUSH(g->arena, &x->ops, op);
    return op.out[0];
}

static ValueId weight_copy(Mixed *x, ValueId v)
{
    Graph *g = x->g;
    Weight *w = &g->weights.at[g->values.at[v].index];
    if (w->half == NONE) {
        Value copy = g->values.at[v];
        copy.type = x->half;
        w->half = graph_add_value(g, copy);
    }
    return g->weights.at[g->values.at[v].index].half;
}

/* The value as this type, for the operation that is about to be added. */
static ValueId as_type(Mixed *x, ValueId v, Dtype type)
{
    Graph *g = x->g;
    const Value *from = &g->values.at[v];
    if (from->type == type || from->kind == VALUE_CONST)
        return v;
    if (from->kind == VALUE_WEIGHT)
        return weight_copy(x, v);
    ValueId *copy = type == x->half ? &x->rounded[v] : &x->wide[v];
    if (*copy == NONE)
        *copy = cast(x, v, type, from->def == NONE ? NULL : &x->ops.at[from->def]);
    return *copy;
}

/* Operands that are moved together have one type: f32 as soon as one is. */
static Dtype moved_type(const Mixed *x, const Op *op)
{
    Dtype type = x->g->values.at[op->in[0]].type;
    for (int i = 1; i < op->nin; i++)
        if (x->g->values.at[op->in[i]].type != type)
            type = DT_F32;
    return type;
}

static void fit_operands(Mixed *x, Op *op)
{
    const Role role = role_of(op->kind);
    for (int i = 0; i < op->nin; i++) {
        if (op->in[i] == NONE || !dtype_is_float(x->g->values.at[op->in[i]].type))
            continue;
        if (is_factor(op, i))
            op->in[i] = as_type(x, op->in[i], x->half);
        else if (role == ROLE_MOVE)
            op->in[i] = as_type(x, op->in[i], moved_type(x, op));
        else if (role != ROLE_MAP && role != ROLE_SUM)
            op->in[i] = as_type(x, op->in[i], DT_F32);
    }
}

static void fit_results(Mixed *x, const Op *op)
{
    Graph *g = x->g;
    const Role role = role_of(op->kind);
    for (int i = 0; i < op->nout; i++) {
        Value *y = &g->values.at[op->out[i]];
        const bool only_half = x->want[op->out[i]] == WANT_HALF;
        if (!dtype_is_float(y->type) || (i > 0 && role != ROLE_MOVE)) /* statistics are f32 */
            continue;
        if (role == ROLE_MOVE)
            y->type = g->values.at[op->in[0]].type;
        else if (role == ROLE_PRODUCT || ((role == ROLE_MAP || role == ROLE_NORM) && only_half))
            y->type = x->half;
    }
}

/* What is cast to f32 from 16 bits is its own rounded copy. true: that is all that is read. */
static bool undo_cast(Mixed *x, const Op *op)
{
    if (op->kind != OP_CAST || x->g->values.at[op->in[0]].type != x->half)
        return false;
    const ValueId from = op->in[0], to = op->out[0];
    x->rounded[to] = from;
    if (x->want[to] != WANT_HALF)
        return false;
    x->instead[to] = from;
    return true;
}

/* Copies stand right behind what they copy, whoever reads them: in its turn of a loop. */
static void copy_results(Mixed *x, OpId o)
{
    const Op op = x->ops.at[o];
    for (int i = 0; i < op.nout; i++) {
        const ValueId v = op.out[i];
        const Value *y = &x->g->values.at[v];
        if (y->type == DT_F32 && x->want[v] & WANT_HALF && x->rounded[v] == NONE)
            x->rounded[v] = cast(x, v, x->half, &op);
        else if (y->type == x->half && x->want[v] & MUST_WIDE)
            x->wide[v] = cast(x, v, DT_F32, &op);
    }
}

void mix_precision(Graph *g, Precision precision)
{
    if (precision != PRECISION_BF16 && precision != PRECISION_F16)
        return;
    const int n = g->values.n, most = 4 * n + 16; /* copies: at most two of each */
    Mixed x = {.g = g,
               .half = precision == PRECISION_BF16 ? DT_BF16 : DT_F16,
               .want = ARENA_ARRAY(g->arena, unsigned, most),
               .rounded = ARENA_ARRAY(g->arena, ValueId, most),
               .wide = ARENA_ARRAY(g->arena, ValueId, most),
               .instead = ARENA_ARRAY(g->arena, ValueId, most),
               .nvalues = n};
    for (ValueId v = 0; v < most; v++)
        x.rounded[v] = x.wide[v] = x.instead[v] = NONE;
    find_wants(&x);
    for (int i = 0; i < g->inputs.n; i++)
        if (g->inputs.at[i].type == DT_F32 && x.want[g->inputs.at[i].value] & WANT_HALF)
            x.rounded[g->inputs.at[i].value] = cast(&x, g->inputs.at[i].value, x.half, NULL);
    for (OpId o = 0; o < g->ops.n; o++) {
        Op op = g->ops.at[o];
        if (undo_cast(&x, &op))
            continue;
        for (int i = 0; i < op.nin; i++)
            if (op.in[i] != NONE && x.instead[op.in[i]] != NONE)
                op.in[i] = x.instead[op.in[i]];
        fit_operands(&x, &op);
        fit_results(&x, &op);
        const OpId id = x.ops.n;
        for (int i = 0; i < op.nout; i++)
            g->values.at[op.out[i]].def = id;
        VEC_PUSH(g->arena, &x.ops, op);
        copy_results(&x, id);
    }
    if (g->values.at[g->loss].type != DT_F32)
        g->loss = x.wide[g->loss];
    for (int i = 0; i < g->metrics.n; i++)
        if (g->values.at[g->metrics.at[i].value].type != DT_F32)
            g->metrics.at[i].value = x.wide[g->metrics.at[i].value];
    g->ops.at = x.ops.at;
    g->ops.n = x.ops.n;
    g->ops.cap = x.ops.cap;
}
