/* calls_attention.c - attention and what it is made of: rotation of q and k, and the product
 * of three that never holds its scores.
 *
 * q[…, t, heads x width], k and v[…, s, kv_heads x width] → [..., t, heads x width]. Where the
 * three are the parts of one split, the operation reads them where they lie and the split is
 * not needed any more: its only operand is the whole. */
#include "calls.h"

typedef struct {
    ValueId v[3];
    Shape shape[3];
    int64_t heads, kv_heads, width;
} Heads;

static bool cannot(Call *c, const char *argument, const char *why)
{
    elab_error(c->e, call_arg(c, argument).at, "%s", why);
    return false;
}

static bool fits_heads(Call *c, Heads *h)
{
    static const char *const names[3] = {"q", "k", "v"};
    for (int i = 0; i < 3; i++) {
        h->v[i] = call_float(c, names[i]);
        if (h->v[i] == NONE || !call_rank(c, h->v[i], 2, false, "[positions, width]"))
            return false;
        h->shape[i] = value_shape(c, h->v[i]);
    }
    if (!call_int(c, "heads", 1, MAX_DIM, &h->heads))
        return false;
    h->kv_heads = h->heads;
    if (call_has(c, "kv_heads") && !call_int(c, "kv_heads", 1, MAX_DIM, &h->kv_heads))
        return false;
    int64_t d = h->shape[0].dim[h->shape[0].rank - 1];
    h->width = d / h->heads;
    const char *no = NULL, *at = "q";
    if (d % h->heads)
        at = "heads",
        no = arena_printf(c->e->arena, "%lld heads do not divide the width of q, %lld",
                          (long long)h->heads, (long long)d);
    else if (h->heads % h->kv_heads)
        at = "kv_heads",
        no = arena_printf(c->e->arena, "%lld kv_heads do not divide the %lld heads",
                          (long long)h->kv_heads, (long long)h->heads);
    if (no)
        return cannot(c, at, no);
    for (int i = 1; i < 3; i++) {
        Shape other = h->shape[i], like = h->shape[0];
        like.dim[like.rank - 1] = h->kv_heads * h->width;
        if (other.rank == like.rank) /* k may have positions of its own; v has those of k */
            like.dim[like.rank - 2] = h->shape[1].dim[h->shape[1].rank - 2];
        if (shape_equal(&other, &like))
            continue;
        elab_error(c->e, call_arg(c, names[i]).at,
                   "%s of attention with %lld heads and %lld kv_heads should be %s, but %s",
                   names[i], (long long)h->heads, (long long)h->kv_heads,
                   shape_show(c->e->arena, DT_F32, &like), show_is(c->e, h->v[i]));
        note_value(c->e, h->v[i - 1]);
        note_value(c->e, h->v[i]);
        return false;
    }
    return true;
}

/* What has no batch where others have one is repeated for every sample. */
static void give_batch(Call *c, ValueId *v)
{
    Graph *g = c->e->graph;
    bool any =
        g->values.at[v[0]].batched || g->values.at[v[1]].batched || g->values.at[v[2]].batched;
    for (int i = 0; i < 3; i++) {
        if (!any || g->values.at[v[i]].batched)
            continue;
        Op op = elab_op(c->e, OP_CONCAT, c->at, NULL);
        v[i] = elab_add1(c->e, op, &v[i], 1, DT_F32, value_shape(c, v[i]));
        if (v[i] == NONE)
            return;
        g->values.at[v[i]].batched = true;
    }
}

static ValueId rotated(Call *c, ValueId v, int64_t heads, double base)
{
    Op op = elab_op(c->e, OP_ROPE, c->at, NULL);
    op.attr.heads = heads;
    op.attr.base = base;
    return elab_add1(c->e, op, &v, 1, DT_F32, value_shape(c, v));
}

/* Are the three the parts of one split of the last dimension? Then the whole. */
static ValueId whole_of(const Call *c, const ValueId v[3])
{
    const Graph *g = c->e->graph;
    OpId def = g->values.at[v[0]].def;
    if (def == NONE)
        return NONE;
    const Op *op = &g->ops.at[def];
    if (op->kind != OP_SPLIT || op->nout != 3 || op->out[0] != v[0] || op->out[1] != v[1] ||
        op->out[2] != v[2] || op->attr.a != g->values.at[op->in[0]].shape.rank - 1)
        return NONE;
    return op->in[0];
}

bool call_attention(Call *c)
{
    Heads h;
    if (!fits_heads(c, &h))
        return false;
    double base = call_real(c, "rope");
    if (base < 0 || (base > 0 && base <= 1))
        return cannot(c, "rope", "rope is the base of the rotation, more than 1; 0 means none");
    if (base > 0 && h.width % 2)
        return cannot(c, "rope",
                      arena_printf(c->e->arena,
                                   "rope turns pairs, but a head is %lld wide: %lld / "
                                   "%lld heads",
                                   (long long)h.width, (long long)(h.width * h.heads),
                                   (long long)h.heads));
    if (!call_name_layer(c, NAME_PLAIN))
        return false;
    give_batch(c, h.v);
    if (base > 0 && !c->e->stop) {
        h.v[0] = rotated(c, h.v[0], h.heads, base);
        h.v[1] = rotated(c, h.v[1], h.kv_heads, base);
    }
    if (c->e->stop || h.v[0] == NONE || h.v[1] == NONE || h.v[2] == NONE)
        return false;
    Op op = elab_op(c->e, OP_ATTENTION, c->at, c->layer);
    op.attr.heads = h.heads;
    op.attr.kv_heads = h.kv_heads;
    op.attr.causal = call_bool(c, "causal");
    ValueId whole = whole_of(c, h.v);
    OpId id = elab_add(c->e, op, whole == NONE ? h.v : &whole, whole == NONE ? 3 : 1, 2, DT_F32,
                       h.shape[0]);
    if (id == NONE)
        return false;
    Shape lse = h.shape[0]; /* […, heads, t] */
    lse.dim[lse.rank - 1] = lse.dim[lse.rank - 2];
    lse.dim[lse.rank - 2] = h.heads;
    Graph *g = c->e->graph;
    g->values.at[g->ops.at[id].out[1]].shape = lse;
    return call_finish(c, g->ops.at[id].out[0]);
}
