/* expected.c - what a model's steps have to come to, from its graph alone (executor.h).
 *
 * In:  the graph; which operations a loop's one call stands for.
 * Out: the names of all weights, optimizer states and reports after the steps.
 *
 * Operations are evaluated in the order in which the graph has them, micro-batch by micro-batch, on
 * names, without buffers, devices or schedule. */
#include "executor.h"

#include <string.h>

Name name_const(double number)
{
    uint64_t bits;
    memcpy(&bits, &number, sizeof bits);
    return name_with(NAME_CONST, bits);
}

Name name_text(Name x, const char *text)
{
    for (const char *s = text; s && *s; s++)
        x = name_with(x, (uint64_t)(unsigned char)*s);
    return x;
}

Name name_pattern(Arena *a, Name x, const char *prefix, const char *suffix, int64_t first,
                  int64_t number)
{
    return name_text(x, first < 0 ? prefix
                                  : arena_printf(a, "%s%lld%s", prefix, (long long)number, suffix));
}

Name name_input(int input, int step, int m)
{
    return name_with(name_with(name_with(NAME_INPUT, (uint64_t)input), (uint64_t)step),
                     (uint64_t)m);
}

Name name_result(Name operands, int k, Name before)
{
    Name x = name_with(operands, (uint64_t)k);
    return before ? name_with(before, x) : x;
}

typedef struct {
    const Program *p;
    const Graph *g;
    OpId *shown; /* [ops]: the operation whose text stands for it */
    Name *value; /* [values] */
    Results r;
} Evaluation;

static void find_shown(Evaluation *e)
{
    for (OpId o = 0; o < e->g->ops.n; o++)
        e->shown[o] = o;
    for (int c = 0; c < e->p->chunks.n; c++)
        for (int k = 0; k < RUN_KINDS; k++) {
            const Run *run = &e->p->chunks.at[c].run[k];
            for (int s = 0; s < run->steps.n; s++) {
                const Step *step = &run->steps.at[s];
                for (int i = step->first; i < step->first + step->ncalls; i++)
                    for (int t = 0; run->calls.at[i].kind == CALL_OP && t < step->turns; t++)
                        e->shown[run->calls.at[i].ops[t]] = run->calls.at[i].op;
            }
        }
    for (int d = 0; d < e->p->devices.n; d++)
        for (int i = 0; i < e->p->devices.at[d].weights.n; i++) {
            const WeightRun *w = &e->p->devices.at[d].weights.at[i];
            for (int k = 0; k < w->count && w->owner; k++)
                e->r.states[w->weight + k * w->step] = w->ngrads ? w->nstates : 0;
        }
}

static Name name_of(const Evaluation *e, ValueId v)
{
    return v == NONE ? NAME_ABSENT : e->value[v];
}

static void evaluate_op(Evaluation *e, OpId o, int m)
{
    const Op *op = &e->g->ops.at[o];
    if (op->kind == OP_RESHAPE) {
        e->value[op->out[0]] = e->value[op->in[0]];
        return;
    }
    Name x = name_with(NAME_OP, (uint64_t)e->shown[o]);
    for (int i = 0; i < op->nin; i++)
        x = name_with(x, name_of(e, op->in[i]));
    if (op->kind == OP_DROPOUT)
        x = name_text(x, op->path);
    for (int i = 0; i < op->nout; i++) {
        if (op->out[i] == NONE)
            continue;
        bool sums = e->g->values.at[op->out[i]].kind == VALUE_GRAD && m > 0;
        e->value[op->out[i]] = name_result(x, i, sums ? e->value[op->out[i]] : 0);
    }
}

static void evaluate_batch(Evaluation *e, int step, int m)
{
    const Graph *g = e->g;
    for (int i = 0; i < g->inputs.n; i++)
        e->value[g->inputs.at[i].value] = name_input(i, step, m);
    for (OpId o = 0; o < g->ops.n; o++)
        if (step != STEP_EVAL || g->ops.at[o].phase == PHASE_F)
            evaluate_op(e, o, m);
    e->r.report[0] = name_with(name_with(e->r.report[0], (uint64_t)m), e->value[g->loss]);
    for (int i = 0; i < g->metrics.n && step == STEP_EVAL; i++)
        e->r.report[1 + i] =
            name_with(name_with(e->r.report[1 + i], (uint64_t)m), e->value[g->metrics.at[i].value]);
}

/* The sum of the gradients of all uses of a weight, in their order; 0: it has none. */
static Name sum_of(const Evaluation *e, WeightId w)
{
    Name sum = 0;
    for (int use = 0, found = 1; found; use++) {
        found = 0;
        for (ValueId v = 0; v < e->g->values.n && !found; v++) {
            const Value *x = &e->g->values.at[v];
            found = x->kind == VALUE_GRAD && x->index == w && x->use == use;
            if (found)
                sum = sum ? name_with(name_with(NAME_SUM, sum), e->value[v]) : e->value[v];
        }
    }
    return sum;
}

static void update(Evaluation *e, int step, Name *sum)
{
    Name scale = NAME_SCALE;
    for (WeightId w = 0; w < e->g->weights.n; w++) {
        sum[w] = sum_of(e, w);
        scale = name_with(scale, sum[w] ? name_with(NAME_SQUARES, sum[w]) : 0);
    }
    for (WeightId w = 0; w < e->g->weights.n; w++) {
        if (!sum[w])
            continue;
        Name x = name_with(name_with(name_with(NAME_UPDATE, e->r.weight[w]), sum[w]),
                           program_clips(e->p) ? scale : 0);
        for (int k = 0; k < e->r.states[w]; k++)
            x = name_with(x, e->r.state[w][k]);
        x = name_with(x, (uint64_t)step);
        e->r.weight[w] = x;
        for (int k = 0; k < e->r.states[w]; k++)
            e->r.state[w][k] = name_with(x, (uint64_t)k + 1);
    }
}

Results expect_results(Arena *a, const Program *p)
{
    const Graph *g = p->graph;
    int n = g->weights.n + 1;
    Evaluation e = {.p = p,
                    .g = g,
                    .shown = ARENA_ARRAY(a, OpId, g->ops.n + 1),
                    .value = ARENA_ARRAY(a, Name, g->values.n + 1),
                    .r = {.weight = ARENA_ARRAY(a, Name, n),
                          .state = arena_alloc(a, sizeof(Name[2]) * (size_t)n),
                          .states = ARENA_ARRAY(a, int, n),
                          .report = ARENA_ARRAY(a, Name, g->metrics.n + 1)}};
    Name *sum = ARENA_ARRAY(a, Name, n);
    find_shown(&e);
    for (ValueId v = 0; v < g->values.n; v++)
        if (g->values.at[v].kind == VALUE_CONST)
            e.value[v] = name_const(g->values.at[v].number);
    for (WeightId w = 0; w < g->weights.n; w++) {
        e.r.weight[w] = name_text(NAME_WEIGHT, g->weights.at[w].name);
        e.r.state[w][0] = e.r.state[w][1] = NAME_STATE;
    }
    for (int step = 0; step < STEPS; step++) {
        for (WeightId w = 0; w < g->weights.n; w++) {
            e.value[g->weights.at[w].value] = e.r.weight[w];
            if (g->weights.at[w].half != NONE)
                e.value[g->weights.at[w].half] = name_with(NAME_ROUND, e.r.weight[w]);
        }
        for (int m = 0; m < p->microbatches; m++)
            evaluate_batch(&e, step, m);
        if (step != STEP_EVAL)
            update(&e, step, sum);
    }
    return e.r;
}
