/* graph_dump.c - the Graph as text, one line each, for people and golden tests.
 *
 * In: a graph, and the sources for the names of places (NULL: no places).
 * Out, in this order: inputs, weights, operations in their order, loss, metrics:
 *
 *   input  v0 f32[1000] x  # m.mdl:3
 *   weight w:layer1.bias f32[500] uniform(0.0316228)  # m.mdl:6
 *   v3 f32[500] = linear v0, w:layer1.weight, w:layer1.bias  # layer1  @gpu[0]  m.mdl:6
 *
 * An operand is a value's number, w:NAME for a weight, g:NAME for the gradient of one
 * (g:NAME/1 for its second use), the number itself for a constant, - for an absent one. */
#include "graph.h"

#include <string.h>

/* One piece of the remark at the end of a line; *first: nothing stands there yet. */
static void print_remark(FILE *to, bool *first, const char *what)
{
    fprintf(to, *first ? "  # %s" : "  %s", what);
    *first = false;
}

static void print_place(const Graph *g, const Diag *d, Place at, bool first, FILE *to)
{
    const Source *s = d && at.file >= 0 ? diag_source(d, at.file) : NULL;
    if (!s)
        return;
    const char *slash = strrchr(s->name, '/');
    print_remark(to, &first, arena_printf(g->arena, "%s:%d", slash ? slash + 1 : s->name, at.line));
}

static void print_value(const Graph *g, ValueId id, FILE *to)
{
    if (id == NONE) {
        fputc('-', to);
        return;
    }
    const Value *v = &g->values.at[id];
    switch (v->kind) {
    case VALUE_WEIGHT:
        fprintf(to, "w:%s", g->weights.at[v->index].name);
        break;
    case VALUE_GRAD:
        fprintf(to, "g:%s", g->weights.at[v->index].name);
        if (v->use)
            fprintf(to, "/%d", v->use);
        break;
    case VALUE_CONST:
        fprintf(to, "%.9g", v->number);
        break;
    case VALUE_INPUT:
    case VALUE_OP:
        fprintf(to, "v%d", id);
        break;
    }
}

static void print_int(FILE *to, const char *name, int64_t n)
{
    if (n)
        fprintf(to, " %s=%lld", name, (long long)n);
}

static void print_dims(FILE *to, unsigned dims)
{
    const char *between = " dims=[";
    for (int i = 0; i < MAX_RANK; i++)
        if (dims >> i & 1) {
            fprintf(to, "%s%d", between, i);
            between = ", ";
        }
    if (dims)
        fputc(']', to);
}

/* What the row does not speak of is zero; so whatever is not zero is worth printing. */
static void print_attr(const Op *op, FILE *to)
{
    const Attr *x = &op->attr;
    if (x->ta)
        fputs(" transpose_a", to);
    if (x->tb)
        fputs(" transpose_b", to);
    if (x->transposed)
        fputs(" transposed", to);
    print_int(to, "kernel", x->kernel);
    print_int(to, "stride", x->stride);
    print_int(to, "pad", x->pad);
    print_int(to, "groups", x->groups);
    if (op->kind == OP_SPLIT || op->kind == OP_CONCAT || op->kind == OP_SLICE ||
        op->kind == OP_SLICE_DX)
        fprintf(to, " dim=%d", x->a);
    else if (x->a || x->b)
        fprintf(to, " dims=%d,%d", x->a, x->b);
    if (op->kind == OP_SLICE || op->kind == OP_SLICE_DX)
        fprintf(to, " from=%lld to=%lld", (long long)x->from, (long long)x->to);
    print_dims(to, x->dims);
    if (x->batch)
        fputs(" batch", to);
    if (x->scale != 0 && x->scale != 1)
        fprintf(to, " scale=%.9g", x->scale);
    if (x->scaled)
        fputs(" scaled", to);
    if (x->eps != 0)
        fprintf(to, " eps=%.9g", x->eps);
    if (x->relu)
        fputs(" relu", to);
    if (op->kind == OP_DROPOUT)
        fprintf(to, " p=%.9g", x->p);
    print_int(to, "heads", x->heads);
    print_int(to, "kv_heads", x->kv_heads);
    if (x->causal)
        fputs(" causal", to);
    if (x->base != 0)
        fprintf(to, " base=%.9g", x->base);
    if (x->inverse)
        fputs(" inverse", to);
}

static void dump_op(const Graph *g, const Diag *d, const Op *op, FILE *to)
{
    bool batched = false;
    for (int i = 0; i < op->nout; i++) {
        const Value *v = &g->values.at[op->out[i]];
        if (i)
            fputs(", ", to);
        print_value(g, op->out[i], to);
        fprintf(to, " %s", shape_show(g->arena, v->type, &v->shape));
        batched |= v->batched;
    }
    fprintf(to, " = %s", op_name(op->kind));
    for (int i = 0; i < op->nin; i++) {
        fputs(i ? ", " : " ", to);
        print_value(g, op->in[i], to);
    }
    print_attr(op, to);
    bool first = true;
    if (op->phase != PHASE_F)
        print_remark(to, &first, op->phase == PHASE_B ? "B" : "W");
    if (op->path)
        print_remark(to, &first, op->path);
    if (!batched)
        print_remark(to, &first, "(no batch)");
    if (op->recompute)
        print_remark(to, &first, "recompute");
    if (op->device != NONE)
        print_remark(to, &first, arena_printf(g->arena, "@gpu[%d]", op->device));
    print_place(g, d, op->at, first, to);
    fputc('\n', to);
}

static void dump_weight(const Graph *g, const Diag *d, const Weight *w, FILE *to)
{
    static const char *const kinds[] = {"constant", "uniform", "normal"};
    fprintf(to, "weight w:%s %s %s(%.6g)", w->name, shape_show(g->arena, DT_F32, &w->shape),
            kinds[w->init], w->init_value);
    if (w->frozen)
        fputs(" frozen", to);
    bool first = true;
    if (w->device != NONE)
        print_remark(to, &first, arena_printf(g->arena, "@gpu[%d]", w->device));
    print_place(g, d, w->at, first, to);
    fputc('\n', to);
}

void graph_dump(const Graph *g, const Diag *d, FILE *to)
{
    for (int i = 0; i < g->inputs.n; i++) {
        const Input *in = &g->inputs.at[i];
        fprintf(to, "%s v%d %s %s", in->target ? "target" : "input ", in->value,
                shape_show(g->arena, in->type, &in->shape), in->name);
        if (in->limit)
            fprintf(to, " below %lld", (long long)in->limit);
        print_place(g, d, in->at, true, to);
        fputc('\n', to);
    }
    for (int i = 0; i < g->weights.n; i++)
        dump_weight(g, d, &g->weights.at[i], to);
    for (int i = 0; i < g->ops.n; i++)
        dump_op(g, d, &g->ops.at[i], to);
    if (g->loss != NONE) {
        fputs("loss ", to);
        print_value(g, g->loss, to);
        print_place(g, d, g->loss_at, true, to);
        fputc('\n', to);
    }
    for (int i = 0; i < g->metrics.n; i++) {
        fprintf(to, "metric %s ", g->metrics.at[i].name);
        print_value(g, g->metrics.at[i].value, to);
        print_place(g, d, g->metrics.at[i].at, true, to);
        fputc('\n', to);
    }
}
