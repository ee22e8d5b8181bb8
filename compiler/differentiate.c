/* differentiate.c - reverse-mode differentiation of the Graph.
 *
 * In:  the forward operations, in the order of evaluation.
 * Out: the same, followed by the backward operations, in their order of evaluation.
 *
 * Walking the forward operations from last to first, each one's rule (grad_rules.c) turns
 * the gradient of its results into contributions to the gradients of its operands. A tensor
 * that several operations use collects their contributions one by one, latest use first:
 *
 *     g3 = d3          x used by operations 1, 2, 3
 *     g2 = g3 + d2
 *     g1 = g2 + d1     the gradient of x
 *
 * The chain fixes the order of the sums before anything is placed, so that the bits of a
 * gradient do not depend on how the model is split; and since each partial sum can be
 * formed where its contribution is, one message per device crosses each boundary.
 *
 * Every use of a weight gets a gradient of its own, accumulated over the micro-batches in
 * their order; the uses are summed once, before the update.
 *
 * Backward operations are split in W, which serve only gradients of weights, and B, the
 * rest: what the devices before this one wait for.
 */
#include <stdlib.h>
#include <string.h>

#include "grad.h"
#include "program.h"

static GradRule *const rules[OP_COUNT] = {
#define OP(ID, name, sig) [OP_##ID] = grad_##name,
#define PART(ID, name) [OP_##ID] = grad_##name,
#define MAP(ID, name, sig, expr) [OP_##ID] = grad_##name,
#include "ops.def"
};

static void make_one_again(Grad *c, OpId o);

/* Inside a region its values are those made again; what came into it was kept, but for what is
 * made again wherever it is read. */
static ValueId as_read(Grad *c, ValueId v)
{
    int region = c->region[c->forward];
    OpId def = v == NONE ? NONE : c->g->values.at[v].def;
    if (def == NONE)
        return v;
    if (c->g->ops.at[def].remat == REMAT_ALONE) {
        if (c->again[v] == NONE)
            make_one_again(c, def);
        return c->again[v];
    }
    return region != NONE && c->region[def] == region ? c->again[v] : v;
}

static ValueId forward_in(const Grad *c, int i)
{
    return c->g->ops.at[c->forward].in[i];
}

ValueId grad_in(Grad *c, int i)
{
    return as_read(c, forward_in(c, i));
}

ValueId grad_out(Grad *c, int i)
{
    return as_read(c, c->g->ops.at[c->forward].out[i]);
}

ValueId grad_of_result(const Grad *c, int i)
{
    return c->grad[c->g->ops.at[c->forward].out[i]];
}

bool grad_wanted(const Grad *c, int i)
{
    ValueId v = forward_in(c, i);
    return v != NONE && c->needs[v];
}

/* A backward operation stands where its forward operation stood. */
static Op backward_op(const Grad *c, OpKind kind, const Attr *attr)
{
    const Op *f = &c->g->ops.at[c->forward];
    Op op = {.kind = kind,
             .phase = PHASE_B,
             .at = f->at,
             .path = f->path,
             .frame = f->frame,
             .statement = f->statement,
             .device = f->device,
             .forward = c->forward};
    if (attr)
        op.attr = *attr;
    return op;
}

ValueId grad_op(Grad *c, OpKind kind, const Attr *attr, const ValueId *in, int nin, ValueId like)
{
    Graph *g = c->g;
    Value shape = g->values.at[like];
    bool batched = shape.batched;
    /* gradients of weights are f32, those of tensors as wide as the tensor */
    Dtype type = shape.kind != VALUE_WEIGHT && dtype_is_half(shape.type) ? shape.type : DT_F32;
    OpId id = graph_add_op(g, backward_op(c, kind, attr), in, nin, 1, type, shape.shape, batched);
    ValueId out = g->ops.at[id].out[0];
    /* a gradient is called after the tensor that it is the gradient of */
    if (shape.name || shape.def == NONE)
        g->values.at[out].name = shape.name;
    else
        g->values.at[out].name = op_name(g->ops.at[shape.def].kind);
    return out;
}

ValueId grad_result(Grad *c, ValueId v, ValueId like)
{
    Graph *g = c->g;
    Op *op = &g->ops.at[g->values.at[v].def];
    Value x = g->values.at[v], shape = g->values.at[like];
    x.type = shape.type;
    x.shape = shape.shape;
    x.batched = shape.batched;
    x.name = shape.name          ? shape.name
             : shape.def == NONE ? NULL
                                 : op_name(g->ops.at[shape.def].kind);
    ValueId *out = ARENA_ARRAY(g->arena, ValueId, op->nout + 1);
    memcpy(out, op->out, sizeof *out * (size_t)op->nout);
    out[op->nout++] = graph_add_value(g, x);
    op->out = out;
    return out[op->nout - 1];
}

ValueId grad_op1(Grad *c, OpKind kind, ValueId like, ValueId a)
{
    return grad_op(c, kind, NULL, &a, 1, like);
}

ValueId grad_op2(Grad *c, OpKind kind, ValueId like, ValueId a, ValueId b)
{
    return grad_op(c, kind, NULL, (ValueId[]){a, b}, 2, like);
}

ValueId grad_op3(Grad *c, OpKind kind, ValueId like, ValueId a, ValueId b, ValueId d)
{
    return grad_op(c, kind, NULL, (ValueId[]){a, b, d}, 3, like);
}

/* Sums d over the dimensions in which `like` was broadcast. */
static ValueId reduce_to(Grad *c, ValueId d, ValueId like)
{
    const Value *dv = &c->g->values.at[d], *lv = &c->g->values.at[like];
    int missing = dv->shape.rank - lv->shape.rank;
    unsigned dims = 0;
    for (int i = 0; i < dv->shape.rank; i++)
        if (i < missing || (lv->shape.dim[i - missing] == 1 && dv->shape.dim[i] != 1))
            dims |= 1u << i;
    bool batch = dv->batched && !lv->batched;
    if (dims == 0 && !batch)
        return d;
    Attr attr = {.dims = dims, .batch = batch, .scale = 1};
    ValueId sum = grad_op(c, OP_SUM, &attr, &d, 1, like);
    c->g->values.at[sum].type = DT_F32;
    return sum;
}

static bool accumulates(const Op *op)
{
    return op->kind == OP_SUM || op->kind == OP_MATMUL;
}

static void make_weight_grad(Grad *c, ValueId v, ValueId weight)
{
    Value *d = &c->g->values.at[v];
    d->kind = VALUE_GRAD;
    d->index = c->g->values.at[weight].index;
    d->use = c->uses[d->index]++;
}

void grad_give(Grad *c, int i, ValueId d)
{
    ValueId to = forward_in(c, i);
    if (to == NONE || !c->needs[to])
        return;
    int before = c->g->ops.n;
    d = reduce_to(c, d, to);
    if (c->g->values.at[to].kind == VALUE_WEIGHT) {
        OpId def = c->g->values.at[d].def;
        bool fresh = def >= before || (def == c->g->ops.n - 1 && d != c->dy);
        if (!(fresh && accumulates(&c->g->ops.at[def])))
            d = grad_op1(c, OP_ACCUMULATE, to, d);
        make_weight_grad(c, d, to);
        return;
    }
    if (c->g->values.at[d].type != c->g->values.at[to].type)
        d = grad_op1(c, OP_CAST, to, d);
    c->grad[to] = c->grad[to] == NONE ? d : grad_op2(c, OP_ADD, to, c->grad[to], d);
}

void grad_give_weights(Grad *c, OpKind kind, const Attr *attr, const ValueId *in, int nin,
                       int first, int n)
{
    bool any = false;
    for (int i = first; i < first + n; i++)
        any = any || grad_wanted(c, i);
    if (!any)
        return;
    Graph *g = c->g;
    Shape shape = g->values.at[grad_in(c, first)].shape;
    OpId id = graph_add_op(g, backward_op(c, kind, attr), in, nin, n, DT_F32, shape, false);
    for (int i = 0; i < n; i++) {
        ValueId *out = &g->ops.at[id].out[i];
        if (!grad_wanted(c, first + i)) {
            *out = NONE;
            continue;
        }
        ValueId w = grad_in(c, first + i);
        g->values.at[*out].shape = g->values.at[w].shape;
        make_weight_grad(c, *out, w);
    }
}

/* Which values depend on a weight that is trained. */
static void find_needs(Grad *c, int nops, int nvalues)
{
    const Graph *g = c->g;
    for (int v = 0; v < nvalues; v++) {
        const Value *x = &g->values.at[v];
        c->needs[v] = x->kind == VALUE_WEIGHT && !g->weights.at[x->index].frozen;
    }
    for (int o = 0; o < nops; o++) {
        const Op *op = &g->ops.at[o];
        bool any = false;
        for (int i = 0; i < op->nin; i++)
            any = any || (op->in[i] != NONE && c->needs[op->in[i]]);
        for (int i = 0; i < op->nout; i++)
            if (dtype_is_float(g->values.at[op->out[i]].type))
                c->needs[op->out[i]] = any;
    }
}

/* B are the operations that the gradient of an operation's result needs, W the rest. */
static void mark_phases(Graph *g, int first, const ValueId *grad, int nforward)
{
    bool *is_b = calloc((size_t)g->values.n + 1, 1);
    if (!is_b)
        exit(2);
    for (int v = 0; v < nforward; v++)
        if (grad[v] != NONE && g->values.at[v].def != NONE)
            is_b[grad[v]] = true;
    for (int o = g->ops.n - 1; o >= first; o--) {
        Op *op = &g->ops.at[o];
        bool b = false;
        for (int i = 0; i < op->nout; i++)
            b = b || (op->out[i] != NONE && is_b[op->out[i]]);
        op->phase = b ? PHASE_B : PHASE_W;
        for (int i = 0; b && i < op->nin; i++)
            if (op->in[i] != NONE)
                is_b[op->in[i]] = true;
    }
    free(is_b);
}

/* ------------------------------------------------------------------- recompute
 *
 * Operations inside recompute { } run again at the start of their backward pass, from what
 * came into the region; so nothing that is made inside has to be kept. A region is a run of
 * such operations within one turn of a loop. A layer that is to run again is one, whatever it
 * says inside. Operations that run again alone do so where their first reader is. */

static void find_regions(Grad *c, int nops)
{
    const Graph *g = c->g;
    FrameId before = NONE; /* what bounds the region of the operation before */
    for (OpId o = 0, n = 0; o < nops; o++) {
        Op *op = &g->ops.at[o];
        FrameId layer = op->remat == REMAT_LAYER ? graph_layer_of(g, op->frame) : 0;
        op->recompute = op->recompute || layer > 0;
        FrameId bound = layer > 0 ? layer : op->recompute ? graph_turn_of(g, op->frame) : NONE;
        if (bound != NONE && bound != before)
            n++;
        c->region[o] = bound == NONE ? NONE : n;
        before = bound;
    }
}

/* Puts one operation into the backward pass once more. */
static void make_one_again(Grad *c, OpId o)
{
    Graph *g = c->g;
    const OpId under_way = c->forward;
    Op op = g->ops.at[o];
    ValueId *in = ARENA_ARRAY(g->arena, ValueId, op.nin + 1);
    c->forward = o;
    for (int i = 0; i < op.nin; i++)
        in[i] = grad_in(c, i);
    c->forward = under_way;
    op.phase = PHASE_B;
    op.forward = o;
    op.recompute = false;
    op.remat = REMAT_NONE;
    op.again = true;
    Value like = g->values.at[op.out[0]];
    OpId id = graph_add_op(g, op, in, op.nin, op.nout, like.type, like.shape, like.batched);
    for (int i = 0; i < op.nout; i++) {
        Value from = g->values.at[op.out[i]];
        Value *to = &g->values.at[g->ops.at[id].out[i]];
        to->type = from.type;
        to->shape = from.shape;
        to->batched = from.batched;
        to->name = from.name;
        to->at = from.at;
        c->again[op.out[i]] = g->ops.at[id].out[i];
    }
}

/* Copies the operations of the region that ends with `last` into the backward pass. */
static void make_again(Grad *c, OpId last)
{
    OpId first = last;
    while (first > 0 && c->region[first - 1] == c->region[last])
        first--;
    for (OpId o = first; o <= last; o++)
        make_one_again(c, o);
}

/* Drops operations that were made again although no gradient needs them. */
static void drop_unused(Graph *g, int nforward)
{
    bool *used = ARENA_ARRAY(g->arena, bool, g->values.n);
    bool *dead = ARENA_ARRAY(g->arena, bool, g->ops.n);
    for (OpId o = g->ops.n - 1; o >= nforward; o--) {
        const Op *op = &g->ops.at[o];
        bool any = !op->again;
        for (int i = 0; i < op->nout; i++)
            any = any || used[op->out[i]];
        dead[o] = !any;
        for (int i = 0; any && i < op->nin; i++)
            if (op->in[i] != NONE)
                used[op->in[i]] = true;
    }
    int n = nforward;
    for (OpId o = nforward; o < g->ops.n; o++) {
        if (dead[o]) {
            for (int i = 0; i < g->ops.at[o].nout; i++)
                g->values.at[g->ops.at[o].out[i]].def = NONE;
            continue;
        }
        g->ops.at[n] = g->ops.at[o];
        for (int i = 0; i < g->ops.at[n].nout; i++)
            if (g->ops.at[n].out[i] != NONE)
                g->values.at[g->ops.at[n].out[i]].def = n;
        n++;
    }
    g->ops.n = n;
}

/* For the placement: where a region is cut, its second part reads what the first kept. */
static void note_originals(const Grad *c)
{
    Graph *g = c->g;
    g->original = ARENA_ARRAY(g->arena, ValueId, g->values.n);
    for (ValueId v = 0; v < g->values.n; v++)
        g->original[v] = NONE;
    for (ValueId v = 0; v < c->nvalues; v++)
        if (c->again[v] != NONE)
            g->original[c->again[v]] = v;
}

bool differentiate(Graph *g, const Settings *s, Diag *d)
{
    int nops = g->ops.n, nvalues = g->values.n;
    Grad c = {.g = g,
              .grad = ARENA_ARRAY(g->arena, ValueId, nvalues),
              .needs = ARENA_ARRAY(g->arena, bool, nvalues),
              .uses = ARENA_ARRAY(g->arena, int, g->weights.n + 1),
              .nvalues = nvalues,
              .again = ARENA_ARRAY(g->arena, ValueId, nvalues),
              .region = ARENA_ARRAY(g->arena, int, nops + 1)};
    for (int v = 0; v < nvalues; v++)
        c.grad[v] = c.again[v] = NONE;
    find_regions(&c, nops);
    int region = NONE; /* under way */
    find_needs(&c, nops, nvalues);
    if (!c.needs[g->loss]) {
        diag_error(d, g->loss_at, "the loss does not depend on a weight that is trained");
        diag_help(d, "a weight inside freeze { } is not trained");
        return false;
    }
    c.forward = g->values.at[g->loss].def;
    Attr seed = {.scale = 1.0 / (double)s->train.batch,
                 .scaled = s->train.precision == PRECISION_F16};
    c.grad[g->loss] = grad_op(&c, OP_FILL, &seed, NULL, 0, g->loss);
    for (OpId o = nops - 1; o >= 0; o--) {
        const Op *op = &g->ops.at[o];
        bool any = false, wanted = false;
        for (int i = 0; i < op->nout; i++)
            any = any || c.grad[op->out[i]] != NONE;
        for (int i = 0; i < op->nin; i++)
            wanted = wanted || (op->in[i] != NONE && c.needs[op->in[i]]);
        if (!any || !wanted)
            continue;
        if (c.region[o] != NONE && c.region[o] != region) {
            region = c.region[o];
            OpId last = o; /* what comes after it in the region has no gradient */
            make_again(&c, last);
            op = &g->ops.at[o];
        }
        c.forward = o;
        c.dy = c.grad[op->out[0]];
        rules[op->kind](&c);
    }
    drop_unused(g, nops);
    note_originals(&c);
    mark_phases(g, nops, c.grad, nvalues);
    return diag_errors(d) == 0;
}
