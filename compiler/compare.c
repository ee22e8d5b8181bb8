/* compare.c - a step that a trainer measured, as a timeline like the plan's.
 *
 * In:  a trace that a trainer of the same plan wrote with --trace.
 * Out: the spans of one of its steps, the one of median length without the first; and the time from
 *      a step to the next. A trace is of this plan when each of its events is an action of the
 *      plan, and every run of a step is there. */
#include "compare.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MOST_STEPS = 1 << 20 };
#define MOST_BYTES ((int64_t)1 << 29)

typedef struct {
    double from, to; /* s; from < 0: nothing of it is there */
} Length;

typedef struct {
    Arena *arena;
    const Program *p;
    const char *path;
    int **action; /* [devices]: of a run, (chunk * RUN_KINDS + kind) * M + m; behind the runs, of a
                     message, link * M + m; NONE */
    VEC(Length) steps;
    Timeline *t;
} Compare;

typedef struct {
    int device, action;
    int64_t step;
    double from, seconds;
} Event;

static bool __attribute__((format(printf, 2, 3))) refuse(const Compare *c, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "mdlc: %s: ", c->path);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    return false;
}

static int run_slot(const Compare *c, int chunk, int kind, int m)
{
    return (chunk * RUN_KINDS + kind) * c->p->microbatches + m;
}

static int message_slot(const Compare *c, int link, int m)
{
    return (c->p->chunks.n * RUN_KINDS + link) * c->p->microbatches + m;
}

/* For every device where its runs and messages are in its list. */
static void index_actions(Compare *c)
{
    const Program *p = c->p;
    const int n = message_slot(c, p->links.n, 0);
    c->action = ARENA_ARRAY(c->arena, int *, p->devices.n);
    for (int d = 0; d < p->devices.n; d++) {
        const ActionList *list = &p->devices.at[d].train;
        int *of = c->action[d] = ARENA_ARRAY(c->arena, int, n + 1);
        for (int i = 0; i < n; i++)
            of[i] = NONE;
        for (int i = 0; i < list->actions.n; i++) {
            const Action *a = &list->actions.at[i];
            if (a->kind == ACT_RUN)
                of[run_slot(c, a->chunk, (int)a->run, a->m)] = i;
            else if (a->kind == ACT_SEND || a->kind == ACT_RECV)
                of[message_slot(c, a->link, a->m)] = i;
        }
    }
}

static int find_kind(const Compare *c, int device, ActionKind kind)
{
    const ActionList *list = &c->p->devices.at[device].train;
    for (int i = 0; i < list->actions.n; i++)
        if (list->actions.at[i].kind == kind)
            return i;
    return NONE;
}

/* The action that an event is of, or NONE. */
static int find_action(const Compare *c, int device, const char *name, const char *cat,
                       const json_t *args)
{
    static const struct {
        char letter;
        ActionKind kind;
    } whole[] = {{'R', ACT_ROUND}, {'A', ACT_REDUCE}, {'C', ACT_CLIP}, {'U', ACT_UPDATE}};
    const Program *p = c->p;
    const json_int_t chunk = json_integer_value(json_object_get(args, "chunk")),
                     link = json_integer_value(json_object_get(args, "link"));
    json_int_t m = json_integer_value(json_object_get(args, "microbatch"));
    if (strcmp(cat, "link") == 0) {
        m = m < 0 ? 0 : m;
        return link < 0 || link >= p->links.n || m >= p->microbatches
                   ? NONE
                   : c->action[device][message_slot(c, (int)link, (int)m)];
    }
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++)
        if (name[0] == whole[i].letter)
            return find_kind(c, device, whole[i].kind);
    for (int k = 0; k < RUN_KINDS; k++)
        if (name[0] == run_name((RunKind)k)[0] && chunk >= 0 && chunk < p->chunks.n && m >= 0 &&
            m < p->microbatches)
            return c->action[device][run_slot(c, (int)chunk, k, (int)m)];
    return NONE;
}

/* false, with a message, where the event is of no action of the plan. */
static bool read_event(const Compare *c, const json_t *event, Event *out)
{
    const json_t *args = json_object_get(event, "args");
    const char *name = json_string_value(json_object_get(event, "name")),
               *cat = json_string_value(json_object_get(event, "cat"));
    const json_int_t device = json_integer_value(json_object_get(event, "tid"));
    *out = (Event){.step = json_integer_value(json_object_get(args, "step")),
                   .from = json_number_value(json_object_get(event, "ts")) * 1e-6,
                   .seconds = json_number_value(json_object_get(event, "dur")) * 1e-6};
    if (!name || !cat || !isfinite(out->from) || !(out->seconds >= 0) || out->step < 0 ||
        out->step >= MOST_STEPS)
        return refuse(c, "this is no trace of a trainer");
    if (device < 0 || device >= c->p->devices.n)
        return refuse(c, "it is of a trainer with more than %d devices", c->p->devices.n);
    out->device = (int)device;
    out->action = find_action(c, out->device, name, cat, args);
    if (out->action == NONE)
        return refuse(c,
                      "\"%.40s\" of %s is no action of this plan, which has %d chunks and %d "
                      "micro-batches; the trainer has to be built with the same settings",
                      name, c->p->devices.at[device].name, c->p->chunks.n, c->p->microbatches);
    return true;
}

static bool is_span(const json_t *event)
{
    const char *ph = json_string_value(json_object_get(event, "ph"));
    return ph && strcmp(ph, "X") == 0;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *at, int n)
{
    qsort(at, (size_t)n, sizeof *at, by_value);
    return at[(n - 1) / 2];
}

/* The step whose length is the median; the first one only where it is alone. -1: there is none. */
static int64_t choose_step(Compare *c)
{
    double *lengths = ARENA_ARRAY(c->arena, double, c->steps.n + 1), *ends, last = -1;
    int n = 0, between = 0;
    int64_t first = -1, chosen = -1;
    ends = ARENA_ARRAY(c->arena, double, c->steps.n + 1);
    for (int i = 0; i < c->steps.n; i++) {
        if (c->steps.at[i].from < 0)
            continue;
        if (first >= 0) {
            lengths[n++] = c->steps.at[i].to - c->steps.at[i].from;
            ends[between++] = c->steps.at[i].to - last;
        }
        last = c->steps.at[i].to;
        first = first < 0 ? i : first;
    }
    if (n == 0)
        return first;
    const double wanted = median(lengths, n);
    double off = INFINITY;
    for (int64_t i = first + 1; i < c->steps.n; i++) {
        const Length *x = &c->steps.at[i];
        if (x->from >= 0 && fabs(x->to - x->from - wanted) < off) {
            off = fabs(x->to - x->from - wanted);
            chosen = i;
        }
    }
    c->t->period = median(ends, between);
    return chosen;
}

static bool take_steps(Compare *c, const json_t *events)
{
    for (size_t i = 0; i < json_array_size(events); i++) {
        const json_t *event = json_array_get(events, i);
        Event e;
        if (!is_span(event))
            continue;
        if (!read_event(c, event, &e))
            return false;
        while (c->steps.n <= e.step)
            VEC_PUSH(c->arena, &c->steps, (Length){-1, -1});
        Length *x = &c->steps.at[e.step];
        x->from = x->from < 0 || e.from < x->from ? e.from : x->from;
        x->to = e.from + e.seconds > x->to ? e.from + e.seconds : x->to;
    }
    return true;
}

static void take_spans(Compare *c, const json_t *events, int64_t step)
{
    const double begin = c->steps.at[step].from;
    c->t->step = c->steps.at[step].to - begin;
    if (c->t->period <= 0)
        c->t->period = c->t->step;
    for (size_t i = 0; i < json_array_size(events); i++) {
        Event e;
        if (!is_span(json_array_get(events, i)) || !read_event(c, json_array_get(events, i), &e) ||
            e.step != step)
            continue;
        DeviceTime *d = &c->t->devices[e.device];
        d->spans[e.action] = (Span){e.from - begin, e.from - begin + e.seconds};
        if (action_stream(&c->p->devices.at[e.device].train.actions.at[e.action]) == STREAM_COMPUTE)
            d->busy += e.seconds;
    }
}

/* Every run of the step is there; what else is not, takes no time where the one before ends. */
static bool check_spans(Compare *c)
{
    double busy = 0;
    for (int d = 0; d < c->p->devices.n; d++) {
        const ActionList *list = &c->p->devices.at[d].train;
        double last[STREAMS] = {0};
        for (int i = 0; i < list->actions.n; i++) {
            Span *span = &c->t->devices[d].spans[i];
            double *before = &last[action_stream(&list->actions.at[i])];
            if (span->start < 0 && list->actions.at[i].kind == ACT_RUN)
                return refuse(c, "not every run of a step of %s is there: was the trace cut short?",
                              c->p->devices.at[d].name);
            if (span->start < 0)
                *span = (Span){*before, *before};
            *before = span->end;
        }
        busy += c->t->devices[d].busy;
    }
    c->t->complete = true;
    c->t->bubble = c->t->period > 0 ? 1 - busy / (c->t->period * c->p->devices.n) : 0;
    c->t->bubble = c->t->bubble > 0 ? c->t->bubble : 0;
    return true;
}

Timeline *compare_read(Arena *a, const Program *p, const char *path, int64_t *step,
                       bool *unreadable)
{
    Compare c = {.arena = a, .p = p, .path = path, .t = ARENA_NEW(a, Timeline)};
    struct stat st;
    json_error_t error;
    *unreadable = true;
    if (stat(path, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size > MOST_BYTES) {
        refuse(&c, "it is no file of at most 512 MiB");
        return NULL;
    }
    json_t *root = json_load_file(path, 0, &error);
    *unreadable = false;
    const json_t *events = json_object_get(root, "traceEvents");
    bool ok = json_is_array(events) || refuse(&c, "this is no trace of a trainer%s%s",
                                              root ? "" : ": ", root ? "" : error.text);
    c.t->devices = ARENA_ARRAY(a, DeviceTime, p->devices.n);
    for (int d = 0; d < p->devices.n; d++) {
        const int n = p->devices.at[d].train.actions.n;
        c.t->devices[d].spans = ARENA_ARRAY(a, Span, n + 1);
        for (int i = 0; i < n; i++)
            c.t->devices[d].spans[i] = (Span){-1, -1};
    }
    index_actions(&c);
    ok = ok && take_steps(&c, events);
    *step = ok ? choose_step(&c) : -1;
    if (ok && *step < 0)
        ok = refuse(&c, "no step is in it");
    if (ok)
        take_spans(&c, events, *step);
    ok = ok && check_spans(&c);
    json_decref(root);
    return ok ? c.t : NULL;
}

/* ---------------------------------------------------------------------------- text */

static double sum_of(const Program *p, const Timeline *t, int device, RunKind kind)
{
    const ActionList *list = &p->devices.at[device].train;
    double sum = 0;
    for (int i = 0; i < list->actions.n; i++)
        if (list->actions.at[i].kind == ACT_RUN && list->actions.at[i].run == kind)
            sum += t->devices[device].spans[i].end - t->devices[device].spans[i].start;
    return sum;
}

void compare_text(const Plan *plan, const Timeline *measured, int64_t step, Text *out)
{
    static const RunKind kinds[] = {RUN_F, RUN_B, RUN_I, RUN_W};
    const Program *p = plan->p;
    const Timeline *both[2] = {plan->seconds, measured};
    Arena *a = out->arena;
    text_printf(out, "\nplanned and measured (step %lld of the trace):\n", (long long)step);
    for (int d = 0; d < p->devices.n; d++)
        for (int k = 0; k < 2; k++) {
            const Timeline *t = both[k];
            double runs = 0;
            text_printf(out, "  %-8s %-9s", k ? "" : p->devices.at[d].name,
                        k ? "measured" : "planned");
            for (int i = 0; i < 4; i++) {
                const double seconds = sum_of(p, t, d, kinds[i]);
                runs += seconds;
                if (sum_of(p, plan->seconds, d, kinds[i]) > 0)
                    text_printf(out, "  %s %10s", run_name(kinds[i]),
                                plan_show_seconds(a, seconds));
            }
            text_printf(out, "  else %10s  idle %5.1f %%\n",
                        plan_show_seconds(a, t->devices[d].busy - runs),
                        t->period > 0 ? 100 * (1 - t->devices[d].busy / t->period) : 0);
        }
    text_printf(out, "  step     planned %s, measured %s: %.2f of the plan\n",
                plan_show_seconds(a, plan->seconds->period), plan_show_seconds(a, measured->period),
                plan->seconds->period > 0 ? measured->period / plan->seconds->period : 0);
}
