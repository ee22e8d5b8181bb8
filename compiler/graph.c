/* graph.c - building the Graph, its shapes, and the checker of its invariants.
 *
 * In: values, operations and weights, one at a time, from elaborate and later passes.
 * Out: flat arrays; every index that is handed out stays valid while the graph grows. */
#include "graph.h"

#include <string.h>

typedef struct {
    const char *name;
    const char *expression; /* NULL: not element by element */
} OpRow;

static const OpRow op_rows[OP_COUNT] = {
    [OP_NONE] = {"none", NULL},
#define OP(ID, name, sig) [OP_##ID] = {#name, NULL},
#define PART(ID, name) [OP_##ID] = {#name, NULL},
#define MAP(ID, name, sig, expr) [OP_##ID] = {#name, expr},
#define MAPGRAD(ID, name, expr) [OP_##ID] = {#name, expr},
#define INNER(ID, name) [OP_##ID] = {#name, NULL},
#include "ops.def"
};

const char *op_name(OpKind kind)
{
    return (unsigned)kind < OP_COUNT ? op_rows[kind].name : "?";
}

bool op_is_map(OpKind kind)
{
    return (unsigned)kind < OP_COUNT && op_rows[kind].expression;
}

const char *op_map_expression(OpKind kind)
{
    return (unsigned)kind < OP_COUNT ? op_rows[kind].expression : NULL;
}

Graph *graph_new(Arena *a)
{
    Graph *g = ARENA_NEW(a, Graph);
    g->arena = a;
    g->loss = NONE;
    g->loss_at = NO_PLACE;
    return g;
}

ValueId graph_add_value(Graph *g, Value v)
{
    VEC_PUSH(g->arena, &g->values, v);
    return g->values.n - 1;
}

ValueId graph_add_const(Graph *g, double number, Place at)
{
    Value v = {.kind = VALUE_CONST, .type = DT_F32, .number = number, .def = NONE, .at = at};
    return graph_add_value(g, v);
}

OpId graph_add_op(Graph *g, Op op, const ValueId *in, int nin, int nout, Dtype type, Shape shape,
                  bool batched)
{
    OpId id = g->ops.n;
    op.nin = nin;
    op.nout = nout;
    op.in = nin ? arena_copy(g->arena, in, sizeof *in * (size_t)nin) : NULL;
    op.out = nout ? ARENA_ARRAY(g->arena, ValueId, nout) : NULL;
    Value v = {
        .kind = VALUE_OP, .type = type, .shape = shape, .batched = batched, .def = id, .at = op.at};
    for (int i = 0; i < nout; i++)
        op.out[i] = graph_add_value(g, v);
    VEC_PUSH(g->arena, &g->ops, op);
    return id;
}

WeightId graph_add_weight(Graph *g, Weight w)
{
    WeightId id = g->weights.n;
    Value v = {.kind = VALUE_WEIGHT,
               .type = DT_F32,
               .shape = w.shape,
               .index = id,
               .def = NONE,
               .name = w.name,
               .at = w.at};
    w.value = graph_add_value(g, v);
    w.half = NONE;
    VEC_PUSH(g->arena, &g->weights, w);
    return id;
}

FrameId graph_add_frame(Graph *g, Frame f)
{
    VEC_PUSH(g->arena, &g->frames, f);
    return g->frames.n - 1;
}

FrameId graph_turn_of(const Graph *g, FrameId f)
{
    while (f > 0 && g->frames.at[f].kind != FRAME_TURN)
        f = g->frames.at[f].parent;
    return f;
}

FrameId graph_layer_of(const Graph *g, FrameId f)
{
    FrameId turn = 0, block = 0;
    for (; f > 0; f = g->frames.at[f].parent) {
        if (g->frames.at[f].kind == FRAME_BLOCK) {
            block = f;
            turn = 0;
        } else if (turn == 0) {
            turn = f;
        }
    }
    return turn > 0 ? turn : block;
}

int64_t shape_count(const Shape *s)
{
    int64_t n = 1;
    for (int i = 0; i < s->rank; i++)
        n *= s->dim[i];
    return n;
}

bool shape_equal(const Shape *a, const Shape *b)
{
    if (a->rank != b->rank)
        return false;
    for (int i = 0; i < a->rank; i++)
        if (a->dim[i] != b->dim[i])
            return false;
    return true;
}

bool attr_equal(const Attr *a, const Attr *b)
{
    return a->ta == b->ta && a->tb == b->tb && a->transposed == b->transposed &&
           a->kernel == b->kernel && a->stride == b->stride && a->pad == b->pad &&
           a->groups == b->groups && a->a == b->a && a->b == b->b && a->from == b->from &&
           a->to == b->to && a->dims == b->dims && a->batch == b->batch &&
           memcmp(&a->scale, &b->scale, sizeof a->scale) == 0 &&
           memcmp(&a->eps, &b->eps, sizeof a->eps) == 0 && memcmp(&a->p, &b->p, sizeof a->p) == 0 &&
           a->relu == b->relu && a->scaled == b->scaled && a->heads == b->heads &&
           a->kv_heads == b->kv_heads && a->causal == b->causal &&
           memcmp(&a->base, &b->base, sizeof a->base) == 0 && a->inverse == b->inverse;
}

bool shape_broadcast(const Shape *a, const Shape *b, Shape *out)
{
    Shape r = {.rank = a->rank > b->rank ? a->rank : b->rank};
    for (int i = 0; i < r.rank; i++) {
        int64_t x = i < a->rank ? a->dim[a->rank - 1 - i] : 1;
        int64_t y = i < b->rank ? b->dim[b->rank - 1 - i] : 1;
        if (x != y && x != 1 && y != 1)
            return false;
        r.dim[r.rank - 1 - i] = x == 1 ? y : x;
    }
    *out = r;
    return true;
}

const char *dtype_name(Dtype t)
{
    switch (t) {
    case DT_F32:
        return "f32";
    case DT_BF16:
        return "bf16";
    case DT_F16:
        return "f16";
    case DT_I32:
        return "i32";
    case DT_U8:
        return "u8";
    }
    return "?";
}

const char *shape_show(Arena *a, Dtype type, const Shape *s)
{
    Text t = {.arena = a};
    text_add(&t, dtype_name(type));
    for (int i = 0; i < s->rank; i++)
        text_printf(&t, "%s%lld", i ? ", " : "[", (long long)s->dim[i]);
    if (s->rank)
        text_add(&t, "]");
    return t.at;
}

/* ---- the checker ---- */

#define BROKEN(...) (fputs("graph: ", to), fprintf(to, __VA_ARGS__), fputc('\n', to), false)

static bool check_value(const Graph *g, ValueId id, FILE *to)
{
    const Value *v = &g->values.at[id];
    if (v->shape.rank < 0 || v->shape.rank > MAX_RANK)
        return BROKEN("v%d has rank %d", id, v->shape.rank);
    for (int i = 0; i < v->shape.rank; i++)
        if (v->shape.dim[i] < 1 || v->shape.dim[i] > MAX_DIM)
            return BROKEN("v%d: dimension %d is %lld", id, i, (long long)v->shape.dim[i]);
    switch (v->kind) {
    case VALUE_INPUT:
        if (v->index < 0 || v->index >= g->inputs.n || g->inputs.at[v->index].value != id)
            return BROKEN("v%d is not the value of its input", id);
        return v->batched || BROKEN("input v%d has no batch", id);
    case VALUE_WEIGHT:
        if (v->index < 0 || v->index >= g->weights.n ||
            (g->weights.at[v->index].value != id && g->weights.at[v->index].half != id))
            return BROKEN("v%d is not the value of its weight", id);
        if (!shape_equal(&v->shape, &g->weights.at[v->index].shape))
            return BROKEN("v%d has not the shape of its weight", id);
        return !v->batched || BROKEN("weight v%d has a batch", id);
    case VALUE_CONST:
        return (v->shape.rank == 0 && !v->batched) || BROKEN("constant v%d is no scalar", id);
    case VALUE_GRAD:
        if (v->index < 0 || v->index >= g->weights.n)
            return BROKEN("v%d is the gradient of no weight", id);
        return true;
    case VALUE_OP:
        return true;
    }
    return BROKEN("v%d has no kind", id);
}

/* Is `id` a value that exists before operation `before`? */
static bool check_use(const Graph *g, ValueId id, OpId before, const char *user, FILE *to)
{
    if (id < 0 || id >= g->values.n)
        return BROKEN("%s (op %d) uses value %d, which is not there", user, before, id);
    const Value *v = &g->values.at[id];
    if (v->kind != VALUE_OP && v->kind != VALUE_GRAD)
        return true;
    if (v->def < 0 || v->def >= before)
        return BROKEN("%s (op %d) uses v%d before op %d makes it", user, before, id, v->def);
    const Op *maker = &g->ops.at[v->def];
    for (int i = 0; i < maker->nout; i++)
        if (maker->out[i] == id)
            return true;
    return BROKEN("v%d is not among the outputs of op %d", id, v->def);
}

static bool check_op(const Graph *g, OpId id, FILE *to)
{
    const Op *op = &g->ops.at[id];
    if (op->kind <= OP_NONE || op->kind >= OP_COUNT)
        return BROKEN("op %d has no kind", id);
    const char *name = op_name(op->kind);
    for (int i = 0; i < op->nin; i++)
        if (op->in[i] != NONE && !check_use(g, op->in[i], id, name, to))
            return false;
    if (op->nout < 1)
        return BROKEN("%s (op %d) makes nothing", name, id);
    for (int i = 0; i < op->nout; i++) {
        ValueId v = op->out[i];
        if (v < 0 || v >= g->values.n || g->values.at[v].def != id)
            return BROKEN("%s (op %d): output %d is not its own", name, id, i);
    }
    if (op->frame < 0 || op->frame >= g->frames.n)
        return BROKEN("%s (op %d) is in frame %d, which is not there", name, id, op->frame);
    if (op->forward != NONE && (op->forward < 0 || op->forward >= id))
        return BROKEN("%s (op %d) is the gradient of op %d", name, id, op->forward);
    if (op->device < NONE)
        return BROKEN("%s (op %d) is on device %d", name, id, op->device);
    return true;
}

static bool check_weights(const Graph *g, FILE *to)
{
    for (WeightId i = 0; i < g->weights.n; i++) {
        const Weight *w = &g->weights.at[i];
        if (!w->name || !w->name[0])
            return BROKEN("weight %d has no name", i);
        if (w->value < 0 || w->value >= g->values.n || g->values.at[w->value].index != i ||
            g->values.at[w->value].kind != VALUE_WEIGHT)
            return BROKEN("weight %s has lost its value", w->name);
        if (w->frame < 0 || w->frame >= g->frames.n)
            return BROKEN("weight %s is in frame %d, which is not there", w->name, w->frame);
    }
    return true;
}

static bool check_result(const Graph *g, ValueId id, const char *what, FILE *to)
{
    if (!check_use(g, id, g->ops.n, what, to))
        return false;
    return g->values.at[id].shape.rank == 0 || BROKEN("%s v%d is no scalar", what, id);
}

bool graph_check(const Graph *g, FILE *to)
{
    for (ValueId i = 0; i < g->values.n; i++)
        if (!check_value(g, i, to))
            return false;
    for (OpId i = 0; i < g->ops.n; i++)
        if (!check_op(g, i, to))
            return false;
    if (!check_weights(g, to))
        return false;
    if (g->frames.n < 1 || g->frames.at[0].kind != FRAME_MODEL)
        return BROKEN("frame 0 is not the model");
    for (FrameId i = 1; i < g->frames.n; i++)
        if (g->frames.at[i].parent < 0 || g->frames.at[i].parent >= i)
            return BROKEN("frame %d has the parent %d", i, g->frames.at[i].parent);
    for (int i = 0; i < g->metrics.n; i++)
        if (!check_result(g, g->metrics.at[i].value, "metric", to))
            return false;
    if (!check_result(g, g->loss, "loss", to))
        return false;
    return g->values.at[g->loss].batched || BROKEN("the loss has no batch");
}
