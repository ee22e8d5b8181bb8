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
 * A convolution that only a relu reads takes the relu into its last step.
 */
#include "fuse.h"

#include <string.h>

#include "program.h"

typedef struct {
    Graph *g;
    const Placement *pl;
    int *uses;       /* [values]: operations that read it */
    OpId *first_use; /* [values]: the first of them */
    bool *dead;      /* [ops]: merged into another … */
    OpId *into;      /* … this one */
} Fuser;

bool map_equal(const MapProgram *a, const MapProgram *b)
{
    if (a->n != b->n || a->nout != b->nout)
        return false;
    for (int i = 0; i < a->n; i++) {
        const MapInstr *x = &a->instr[i], *y = &b->instr[i];
        if (x->kind != y->kind || x->noperands != y->noperands ||
            memcmp(x->operand, y->operand, sizeof x->operand) != 0)
            return false;
    }
    return memcmp(a->out, b->out, sizeof(int) * (size_t)a->nout) == 0;
}

static bool reads(const Op *op, int operands, ValueId v)
{
    for (int i = 0; i < operands; i++)
        if (op->in[i] == v)
            return true;
    return false;
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

/* Every MAP operation becomes a program of one instruction. */
static void make_programs(Graph *g)
{
    for (OpId o = 0; o < g->ops.n; o++) {
        Op *op = &g->ops.at[o];
        if (!op_is_map(op->kind))
            continue;
        MapProgram *m = ARENA_NEW(g->arena, MapProgram);
        m->n = m->nout = 1;
        m->instr[0] = (MapInstr){.kind = op->kind, .noperands = op->nin};
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

static bool can_merge(const Fuser *f, OpId producer, OpId consumer)
{
    const Graph *g = f->g;
    const Op *p = &g->ops.at[producer], *c = &g->ops.at[consumer];
    if (p->kind != OP_FUSED || p->phase != c->phase || !same_loop(g, p, c))
        return false;
    if (f->pl->chunk_of[producer] != f->pl->chunk_of[consumer] ||
        f->pl->metric_only[producer] != f->pl->metric_only[consumer] ||
        graph_turn_of(g, p->frame) != graph_turn_of(g, c->frame))
        return false;
    for (int i = 0; i < p->nout; i++)
        if (f->first_use[p->out[i]] != NONE && f->first_use[p->out[i]] < consumer)
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
    f->dead[producer] = true;
    f->into[producer] = consumer;
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
            f->pl->chunk_of[def] != f->pl->chunk_of[o] ||
            graph_turn_of(g, c->frame) != graph_turn_of(g, r->frame) ||
            f->pl->metric_only[def] != f->pl->metric_only[o])
            continue;
        c->attr.relu = true;
        c->out[0] = r->out[0];
        g->values.at[r->out[0]].def = def;
        f->dead[o] = true;
        f->into[o] = def;
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
        n++;
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

void fuse(Graph *g, Placement *pl)
{
    Fuser f = {.g = g,
               .pl = pl,
               .uses = ARENA_ARRAY(g->arena, int, g->values.n),
               .first_use = ARENA_ARRAY(g->arena, OpId, g->values.n),
               .dead = ARENA_ARRAY(g->arena, bool, g->ops.n),
               .into = ARENA_ARRAY(g->arena, OpId, g->ops.n)};
    count_uses(&f);
    fuse_convolutions(&f);
    make_programs(g);
    count_uses(&f);
    /* A merged producer's operands are read by the consumer from then on: a later
     * position, so first_use stays a lower bound and the test stays safe. */
    for (OpId o = 0; o < g->ops.n; o++)
        while (!f.dead[o] && g->ops.at[o].kind == OP_FUSED && fuse_into(&f, o))
            ;
    compact(&f, pl);
}
