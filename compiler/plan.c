/* plan.c - gathers what `mdlc plan` shows.
 *
 * In:  the Program.
 * Out: per stage its layers, parameters, FLOPs and traffic, and what a GPU launches and moves; two
 *      timelines, one from the estimated times and one from unit times; the rates that the
 *      estimates count with. */
#include <math.h>

#include "catalogue.h"
#include "cost.h"
#include "plan.h"

const char *plan_link_kind(LinkKind k)
{
    static const char *const names[] = {"activation", "gradient", "weight_gradient", "weight"};
    return names[k];
}

const char *plan_link_name(Arena *a, const Link *l)
{
    bool gradient = l->kind == LINK_GRADIENT || l->kind == LINK_WEIGHT_GRADIENT;
    return gradient ? arena_printf(a, "gradient of %s", l->name) : l->name;
}

const char *plan_shape(Arena *a, const Program *p, ValueId v)
{
    const Value *x = &p->graph->values.at[v];
    Text t = {.arena = a};
    const char *type = x->type == DT_F32 && p->real_size == 8 ? "f64" : dtype_name(x->type);
    text_printf(&t, "%s[", type);
    if (x->batched)
        text_printf(&t, "%lld", (long long)p->microbatch);
    for (int i = 0; i < x->shape.rank; i++)
        text_printf(&t, "%s%lld", i || x->batched ? ", " : "", (long long)x->shape.dim[i]);
    text_add(&t, "]");
    return t.at;
}

const char *plan_show_seconds(Arena *a, double s)
{
    static const char *const units[] = {"s", "ms", "us", "ns"};
    int u = 0;
    while (u < 3 && s > 0 && s < 0.9995) {
        s *= 1000;
        u++;
    }
    if (s <= 0)
        return "0 s";
    return arena_printf(a, "%.*f %s", s >= 99.95 ? 0 : s >= 9.995 ? 1 : 2, s, units[u]);
}

static Rate rate(double value, double standard)
{
    return (Rate){value, fabs(value - standard) <= 1e-9 * standard};
}

/* Read back from the cost model, so that the numbers named are those counted with. */
static Rates find_rates(const Devices *d, bool half)
{
    double none = cost_transfer_seconds(d, 0, 0, 0), much = cost_transfer_seconds(d, 0, 0, 1e12);
    const DeviceType *s = d->standard;
    return (Rates){.device = s->name,
                   .compute = rate(1 / cost_seconds(d, (Cost){1, 0}), half ? s->half : s->compute),
                   .bandwidth = rate(1 / cost_seconds(d, (Cost){0, 1}), s->bandwidth),
                   .link = rate(1e12 / (much - none), s->link),
                   .latency = rate(none, s->latency)};
}

static void count_weights(const Program *p, const Device *d, StageFacts *s)
{
    for (int i = 0; i < d->weights.n; i++) {
        const WeightRun *w = &d->weights.at[i];
        int64_t n = shape_count(&p->graph->weights.at[w->weight].shape) * w->count;
        *(w->owner ? &s->parameters : &s->copies) += n;
    }
}

static void count_stage(Plan *plan, int device)
{
    const Program *p = plan->p;
    const Device *d = &p->devices.at[device];
    StageFacts *s = &plan->stages[device];
    s->layers = plan_layers_text(plan->arena, p, &plan->layers, device);
    count_weights(p, d, s);
    for (int i = 0; i < d->train.actions.n; i++) {
        const Action *a = &d->train.actions.at[i];
        if (a->kind == ACT_RUN) {
            double flops = p->chunks.at[a->chunk].flops[a->run];
            *(a->run == RUN_F ? &s->forward : &s->backward) += flops;
        } else if (a->kind == ACT_SEND) {
            s->sent += p->links.at[a->link].bytes;
            plan->messages[a->link]++;
        } else if (a->kind == ACT_RECV) {
            s->received += p->links.at[a->link].bytes;
        }
    }
}

Traffic plan_traffic(const Plan *plan, int from, int to)
{
    Traffic sum = {0};
    for (int i = 0; i < plan->p->links.n; i++) {
        const Link *l = &plan->p->links.at[i];
        if (l->from != from || l->to != to)
            continue;
        sum.messages += plan->messages[i];
        sum.bytes += plan->messages[i] * l->bytes;
    }
    return sum;
}

/* The bubble's formula in the papers, where the unit times have it. p stages, m micro-batches, v
 * chunks on each. */
static const char *find_formula(const Plan *plan, int each)
{
    const Program *p = plan->p;
    const double idle = p->devices.n - 1, m = p->microbatches;
    const struct {
        ScheduleKind kind;
        double busy; /* 0: no bubble */
        const char *formula;
    } known[] = {
        {SCHEDULE_1F1B, m, each == 1 ? "(p-1)/(m+p-1)" : NULL},
        {SCHEDULE_GPIPE, m, each == 1 ? "(p-1)/(m+p-1)" : NULL},
        {SCHEDULE_INTERLEAVED, each * m, each == 1 ? "(p-1)/(m+p-1)" : "(p-1)/(vm+p-1)"},
        {SCHEDULE_ZERO_BUBBLE, 3 * m, each == 1 ? "(p-1)/(3m+p-1)" : NULL},
        {SCHEDULE_ZB_H2, 0, each == 1 ? "0" : NULL},
        {SCHEDULE_ZB_V, 0, each == 2 ? "0" : NULL},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        const double bubble = known[i].busy > 0 ? idle / (known[i].busy + idle) : 0;
        if (known[i].kind == p->model->settings.parallel.schedule &&
            fabs(plan->units->bubble - bubble) < 1e-9)
            return known[i].formula;
    }
    return NULL;
}

Plan *plan_make(Arena *a, const Program *p)
{
    const Precision precision = p->model->settings.train.precision;
    const bool halves = precision == PRECISION_BF16 || precision == PRECISION_F16;
    Plan *plan = ARENA_NEW(a, Plan);
    *plan = (Plan){.p = p,
                   .arena = a,
                   .layers = plan_layers(a, p),
                   .stages = ARENA_ARRAY(a, StageFacts, p->devices.n),
                   .messages = ARENA_ARRAY(a, int, p->links.n),
                   .rates = find_rates(&p->model->settings.devices, halves),
                   .seconds = timeline_make(a, p, TIMELINE_SECONDS),
                   .units = timeline_shape(a, p, false)};
    if (p->transfer != TRANSFER_LINKS)
        plan->gpu = ARENA_ARRAY(a, GpuWork, p->devices.n);
    const int each = p->chunks.n / p->devices.n; /* chunks */
    bool even = true;
    for (int d = 0; d < p->devices.n; d++) {
        count_stage(plan, d);
        if (plan->gpu)
            plan->gpu[d] = cost_gpu_device(a, p, d);
        even = even && p->devices.at[d].chunks.n == each;
    }
    plan->lengths =
        schedule_splits(p->model->settings.parallel.schedule) ? "F = I = W = 1" : "F = 1 and B = 2";
    plan->formula = even && !p->model->settings.parallel.file ? find_formula(plan, each) : NULL;
    return plan;
}
