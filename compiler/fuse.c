/* fuse.c - turns chains of element-wise operations into single loops.
 *
 * In:  a Graph whose operations are placed in chunks.
 * Out: every MAP operation has become an OP_FUSED with a MapProgram. A producer moves into
 *      its consumer when both make tensors of one shape, in one chunk, one phase and one turn
 *      of a loop, and nobody between the two needs the producer's result. Results that
 *      others need later become further results of the fused loop.
 *
 *      v5 = add v3, v4                 v5, v6 = fused v3, v4:  t0 = a + b
 *      v6 = gelu v5            →                               t1 = gelu(t0)
 *
 * The arithmetic of an element is the same with and without fusing, so this does not
 * change a bit of any result; it saves passes over memory.
 *
 * A convolution that only a relu reads takes the relu into its last step. Products with weights
 * and backward norms take the loop that reads their result, as a tail that runs on every part of
 * the result while it is in the cache.
 *
 * The gradient of the logits of a cross entropy is put in their place where nobody reads them
 * any more.
 */
#include "fuse.h"

#include <string.h>

#include "program.h"

typedef struct {
    Graph *g;
    Placement *pl;
    int *uses;       /* [values]: operations that read it */
    OpId *first_use; /* [values]: the first of them */
    bool *dead;      /* [ops]: merged into another … */
    OpId *into;      /* … this one */
} Fuser;

bool map_equal(const MapProgram *a, const MapProgram *b)
{
    if (a->n != b->n || a->nout != b->nout || a->own != b->own)
        return false;
    for (int i = 0; i < a->n; i++) {
        const MapInstr *x = &a->instr[i], *y = &b->instr[i];
        if (x->kind != y->kind || x->type != y->type || x->noperands != y->noperands ||
            memcmp(x->operand, y->operand, sizeof x->operand) != 0)
            return false;
    }
    return memcmp(a->out, b->out, sizeof(int) * (size_t)a->nout) == 0;
}

bool maps_alike(const Op *a, const Op *b)
{
    return (!a->map && !b->map) || (a->map && b->map && map_equal(a->map, b->map));
}

int tail_operands(OpKind kind)
{
    switch (kind) {
    case OP_LINEAR:
        return 3;
    case OP_LINEAR_DX:
        return 2;
    case OP_LAYERNORM_DX:
        return 5;
    case OP_RMSNORM_DX:
        return 4;
    default:
        return 0;
    }
}

static bool reads(const Op *op, int operands, ValueId v)
{
    for (int i = 0; i < operands; i++)
        if (op->in[i] == v)
            return true;
    return false;
}

static void drop(Fuser *f, OpId merged, OpId into)
{
    f->dead[merged] = true;
    f->into[merged] = into;
    f->pl->seconds[into] += f->pl->seconds[merged];
}

/* An operation that reads a value twice counts once. */
static void count_uses(Fuser *f)
{
    const Graph *g = f->g;
    for (ValueId v = 0; v < g->values.n; v++)
        f->uses[v] = 0, f->first_use[v] = NONE;
    for (OpId o = 0; o < g->ops.n; o++) {
        const Op *op = &g->ops.at[o];
        for (int i = 0; i < op->nin && !f->dead[o]; i++) {
            ValueId v = op->in[i];
            if (v == NONE || reads(op, i, v))
                continue;
            f->uses[v]++;
            if (f->first_use[v] == NONE)
                f->first_use[v] = o;
        }
    }
    f->uses[g->loss]++;
    for (int i = 0; i < g->metrics.n; i++)
        f->uses[g->metrics.at[i].value]++;
}

/* What runs again, but is read where it was kept: the placement cut between it and its readers. */
static void drop_unread(Fuser *f)
{
    const Graph *g = f->g;
    for (OpId o = g->ops.n - 1; o >= 0; o--) {
        const Op *op = &g->ops.at[o];
        bool any = !op->again;
        for (int i = 0; i < op->nout && !any; i++)
            any = op->out[i] != NONE && f->uses[op->out[i]] > 0;
        if (any)
            continue;
        f->dead[o] = true;
        f->into[o] = op->forward;
        for (int i = 0; i < op->nout; i++)
            if (op->out[i] != NONE)
                f->g->values.at[op->out[i]].def = NONE;
        for (int i = 0; i < op->nin; i++)
            if (op->in[i] != NONE && !reads(op, i, op->in[i]))
                f->uses[op->in[i]]--;
    }
}

/* Every MAP operation becomes a program of one instruction. */
static void make_programs(Graph *g)
{
    for (OpId o = 0; o < g->ops.n; o++) {
        Op *op = &g->ops.at[o];
        if (!op_is_map(op->kind))
            continue;
        MapProgram *m = ARENA_NEW(g->arena, MapProgram);
        m->at = op->at;
        m->n = m->nout = 1;
        m->instr[0] = (MapInstr){
            .kind = op->kind, .type = g->values.at[op->out[0]].type, .noperands = op->nin};
        for (int i = 0; i < op->nin; i++)
            m->instr[0].operand[i] = ~i;
        op->kind = OP_FUSED;
        op->map = m;
    }
}

static bool same_loop(const Graph *g, const Op *a, const Op *b)
{
    const Value *x = &g->values.at[a->out[0]], *y = &g->values.at[b->out[0]];
    return x->batched == y->batched && shape_equal(&x->shape, &y->shape);
}

/* Results of one shape, in one place and phase, and nobody between the two reads the first. */
static bool adjoin(const Fuser *f, OpId producer, OpId consumer)
{
    const Graph *g = f->g;
    const Op *p = &g->ops.at[producer], *c = &g->ops.at[consumer];
    if (p->phase != c->phase || !same_loop(g, p, c))
        return false;
    if (f->pl->chunk_of[producer] != f->pl->chunk_of[consumer] ||
        f->pl->metric_only[producer] != f->pl->metric_only[consumer] ||
        graph_turn_of(g, p->frame) != graph_turn_of(g, c->frame))
        return false;
    for (int i = 0; i < p->nout; i++)
        if (f->first_use[p->out[i]] != NONE && f->first_use[p->out[i]] < consumer)
            return false;
    return true;
}

static bool can_merge(const Fuser *f, OpId producer, OpId consumer)
{
    const Op *p = &f->g->ops.at[producer], *c = &f->g->ops.at[consumer];
    if (p->kind != OP_FUSED || !adjoin(f, producer, consumer))
        return false;
    const MapProgram *mp = p->map, *mc = c->map;
    return mp->n + mc->n <= MAP_MAX_INSTRS && p->nin + c->nin <= MAP_MAX_INSTRS;
}

static int add_operand(ValueId *in, int *nin, ValueId v)
{
    for (int i = 0; i < *nin; i++)
        if (in[i] == v)
            return i;
    in[*nin] = v;
    return (*nin)++;
}

/* Copies the instructions of `from`, whose operands are in[], behind those of `to`. */
static void append(MapProgram *to, const MapProgram *from, const Op *op, ValueId *in, int *nin,
                   const Op *producer, const MapProgram *made)
{
    int base = to->n;
    for (int i = 0; i < from->n; i++) {
        MapInstr x = from->instr[i];
        for (int k = 0; k < x.noperands; k++) {
            if (x.operand[k] >= 0) {
                x.operand[k] += base;
                continue;
            }
            ValueId v = op->in[~x.operand[k]];
            int result = NONE;
            for (int r = 0; producer && r < producer->nout; r++)
                if (producer->out[r] == v)
                    result = made->out[r];
            x.operand[k] = result != NONE ? result : ~add_operand(in, nin, v);
        }
        to->instr[to->n++] = x;
    }
}

static void merge(Fuser *f, OpId producer, OpId consumer)
{
    Graph *g = f->g;
    Op *p = &g->ops.at[producer], *c = &g->ops.at[consumer];
    const MapProgram *mp = p->map, *mc = c->map;
    MapProgram *m = ARENA_NEW(g->arena, MapProgram);
    ValueId in[2 * MAP_MAX_INSTRS], out[2 * MAP_MAX_INSTRS];
    int nin = 0;
    m->at = mc->at;
    append(m, mp, p, in, &nin, NULL, NULL);
    append(m, mc, c, in, &nin, p, mp);
    for (int i = 0; i < c->nout; i++) {
        out[m->nout] = c->out[i];
        m->out[m->nout++] = mp->n + mc->out[i];
    }
    for (int r = 0; r < p->nout; r++) {
        if (f->uses[p->out[r]] > (reads(c, c->nin, p->out[r]) ? 1 : 0)) { /* others need it */
            out[m->nout] = p->out[r];
            m->out[m->nout++] = mp->out[r];
        }
    }
    for (int i = 0; i < p->nin; i++)
        if (!reads(p, i, p->in[i]) && reads(c, c->nin, p->in[i]))
            f->uses[p->in[i]]--;
    c->map = m;
    c->nin = nin;
    c->in = arena_copy(g->arena, in, sizeof *in * (size_t)nin);
    c->nout = m->nout;
    c->out = arena_copy(g->arena, out, sizeof *out * (size_t)c->nout);
    for (int i = 0; i < c->nout; i++)
        g->values.at[out[i]].def = consumer;
    drop(f, producer, consumer);
}

/* Takes producers into `o` as long as there are any. */
static bool fuse_into(Fuser *f, OpId o)
{
    const Op *c = &f->g->ops.at[o];
    for (int i = 0; i < c->nin; i++) {
        OpId def = c->in[i] == NONE ? NONE : f->g->values.at[c->in[i]].def;
        if (def != NONE && def < o && can_merge(f, def, o)) {
            merge(f, def, o);
            return true;
        }
    }
    return false;
}

/* ---- tails */

static bool can_tail(const Fuser *f, OpId producer, OpId loop)
{
    const Op *p = &f->g->ops.at[producer];
    return tail_operands(p->kind) > 0 && !p->map && p->nout == 1 && adjoin(f, producer, loop);
}

/* The loop becomes the tail of the operation that makes its operand, in the loop's position. */
static void make_tail(Fuser *f, OpId producer, OpId loop)
{
    Graph *g = f->g;
    const Op p = g->ops.at[producer], l = g->ops.at[loop];
    const ValueId own = p.out[0];
    const MapProgram *old = l.map;
    MapProgram *m = arena_copy(g->arena, old, sizeof *old);
    Op op = p;
    int moved[2 * MAP_MAX_INSTRS], extra = 0;
    op.in = ARENA_ARRAY(g->arena, ValueId, p.nin + l.nin);
    op.out = ARENA_ARRAY(g->arena, ValueId, l.nout + 1);
    memcpy(op.in, p.in, sizeof *op.in * (size_t)p.nin);
    memcpy(op.out, l.out, sizeof *op.out * (size_t)l.nout);
    for (int i = 0; i < l.nin; i++) {
        moved[i] = l.in[i] == own ? 0 : 1 + extra;
        if (l.in[i] != own)
            op.in[p.nin + extra++] = l.in[i];
    }
    for (int i = 0; i < m->n; i++)
        for (int k = 0; k < m->instr[i].noperands; k++)
            if (m->instr[i].operand[k] < 0)
                m->instr[i].operand[k] = ~moved[~m->instr[i].operand[k]];
    op.nin += extra;
    op.nout = l.nout;
    m->own = l.nout;
    for (int i = l.nout - 1; i >= 0 && f->uses[own] == 1; i--)
        if (g->values.at[l.out[i]].type == g->values.at[own].type)
            m->own = i;
    if (m->own == l.nout)
        op.out[op.nout++] = own;
    op.map = m;
    for (int i = 0; i < op.nout; i++)
        g->values.at[op.out[i]].def = loop;
    g->ops.at[loop] = op;
    drop(f, producer, loop);
}

/* Of two operands that could take the loop, the one made last. */
static void find_tails(Fuser *f)
{
    const Graph *g = f->g;
    for (OpId o = 0; o < g->ops.n; o++) {
        const Op *l = &g->ops.at[o];
        OpId best = NONE;
        for (int i = 0; l->kind == OP_FUSED && !f->dead[o] && i < l->nin; i++) {
            OpId def = l->in[i] == NONE ? NONE : g->values.at[l->in[i]].def;
            if (def != NONE && def < o && def > best && can_tail(f, def, o))
                best = def;
        }
        if (best != NONE)
            make_tail(f, best, o);
    }
}

/* y = relu(conv2d(x)) where nobody else reads the convolution. */
static void fuse_convolutions(Fuser *f)
{
    Graph *g = f->g;
    for (OpId o = 0; o < g->ops.n; o++) {
        Op *r = &g->ops.at[o];
        if (r->kind != OP_RELU || g->values.at[r->in[0]].def == NONE)
            continue;
        OpId def = g->values.at[r->in[0]].def;
        Op *c = &g->ops.at[def];
        if (c->kind != OP_CONV2D || f->uses[r->in[0]] != 1 ||
            g->values.at[r->in[0]].type != g->values.at[r->out[0]].type ||
            f->pl->chunk_of[def] != f->pl->chunk_of[o] ||
            graph_turn_of(g, c->frame) != graph_turn_of(g, r->frame) ||
            f->pl->metric_only[def] != f->pl->metric_only[o])
            continue;
        c->attr.relu = true;
        c->out[0] = r->out[0];
        g->values.at[r->out[0]].def = def;
        drop(f, o, def);
    }
}

/* Drops the operations that were merged, here and in the placement. */
static void compact(Fuser *f, Placement *pl)
{
    Graph *g = f->g;
    OpId *moved = ARENA_ARRAY(g->arena, OpId, g->ops.n);
    int n = 0;
    for (OpId o = 0; o < g->ops.n; o++) {
        moved[o] = n;
        if (f->dead[o])
            continue;
        g->ops.at[n] = g->ops.at[o];
        pl->chunk_of[n] = pl->chunk_of[o];
        pl->metric_only[n] = pl->metric_only[o];
        pl->seconds[n] = pl->seconds[o];
        n++;
    }
    pl->fused = ARENA_ARRAY(g->arena, OpId, g->ops.n + 1);
    for (OpId o = 0; o < g->ops.n; o++) {
        OpId to = o;
        while (f->dead[to])
            to = f->into[to];
        pl->fused[o] = moved[to];
    }
    g->ops.n = n;
    for (OpId o = 0; o < n; o++) {
        OpId forward = g->ops.at[o].forward;
        while (forward != NONE && f->dead[forward])
            forward = f->into[forward];
        g->ops.at[o].forward = forward == NONE ? NONE : moved[forward];
    }
    for (ValueId v = 0; v < g->values.n; v++)
        if (g->values.at[v].def != NONE)
            g->values.at[v].def = moved[g->values.at[v].def];
}

/* ---- logits */

/* Is the operation the last to read v, on its device and in every order of phases? */
static bool reads_last(const Graph *g, const Placement *pl, OpId last, ValueId v)
{
    const int device = pl->device_of[pl->chunk_of[last]];
    for (OpId o = 0; o < g->ops.n; o++) {
        const Op *op = &g->ops.at[o];
        for (int i = 0; i < op->nin && o != last; i++) {
            if (op->in[i] == NONE || pl->root[op->in[i]] != v)
                continue;
            if (o > last || op->phase == PHASE_W || pl->device_of[pl->chunk_of[o]] != device)
                return false;
        }
    }
    return true;
}

/* Is a value that `maker` makes read in its chunk alone? Then no message carries it. */
static bool stays(const Graph *g, const Placement *pl, OpId maker, ValueId v)
{
    for (OpId o = 0; o < g->ops.n; o++)
        for (int i = 0; i < g->ops.at[o].nin; i++)
            if (g->ops.at[o].in[i] != NONE && pl->root[g->ops.at[o].in[i]] == v &&
                pl->chunk_of[o] != pl->chunk_of[maker])
                return false;
    return true;
}

/* The gradient of logits takes their place: the largest tensor of a language model is there
 * once. */
static void share_logits(Graph *g, Placement *pl)
{
    for (OpId o = 0; o < g->ops.n; o++) {
        const Op *op = &g->ops.at[o];
        if (op->kind != OP_CROSS_ENTROPY_DX)
            continue;
        const ValueId logits = op->in[0], d = op->out[0];
        const OpId def = g->values.at[logits].def;
        if (def != NONE && pl->root[logits] == logits && pl->root[d] == d &&
            pl->chunk_of[def] == pl->chunk_of[o] && graph_turn_of(g, op->frame) == 0 &&
            graph_turn_of(g, g->ops.at[def].frame) == 0 && g->values.at[logits].kind == VALUE_OP &&
            g->values.at[logits].type == g->values.at[d].type && reads_last(g, pl, o, logits) &&
            stays(g, pl, def, logits) && stays(g, pl, o, d))
            for (ValueId v = 0; v < g->values.n; v++)
                pl->root[v] = pl->root[v] == d ? logits : pl->root[v];
    }
}

void fuse(Graph *g, Placement *pl)
{
    Fuser f = {.g = g,
               .pl = pl,
               .uses = ARENA_ARRAY(g->arena, int, g->values.n),
               .first_use = ARENA_ARRAY(g->arena, OpId, g->values.n),
               .dead = ARENA_ARRAY(g->arena, bool, g->ops.n),
               .into = ARENA_ARRAY(g->arena, OpId, g->ops.n)};
    count_uses(&f);
    drop_unread(&f);
    count_uses(&f);
    fuse_convolutions(&f);
    make_programs(g);
    count_uses(&f);
    /* A merged producer's operands are read by the consumer from then on: a later
     * position, so first_use stays a lower bound and the test stays safe. */
    for (OpId o = 0; o < g->ops.n; o++)
        while (!f.dead[o] && g->ops.at[o].kind == OP_FUSED && fuse_into(&f, o))
            ;
    count_uses(&f);
    find_tails(&f);
    compact(&f, pl);
    share_logits(g, pl);
}
