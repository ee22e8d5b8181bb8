/* plan_trace.c - the estimated step as trace events, to lay beside a trainer's --trace.
 *
 * In:  the Plan.
 * Out: JSON in the trace-event format, for Perfetto or chrome://tracing. The plan is process 1
 *      (a trainer's trace is process 0). A device has two rows: its runs, named as the trainer
 *      names them ("F0 m3": phase, chunk, micro-batch), and its transfers, which go on at
 *      the same time. Of a long schedule the first events of every device are written. */
#include <jansson.h>
#include <stdlib.h>

#include "plan.h"

enum { MOST_EVENTS = 200000 };

static void add_string(const Plan *plan, Text *out, const char *s)
{
    json_t *string = json_string(svg_escape_plain(plan->arena, s));
    char *quoted = string ? json_dumps(string, JSON_ENCODE_ANY | JSON_ENSURE_ASCII) : NULL;
    text_add(out, quoted ? quoted : "\"?\"");
    free(quoted);
    json_decref(string);
}

static void add_row(const Plan *plan, Text *out, int row, const char *name)
{
    text_printf(
        out,
        ",\n{\"ph\":\"M\",\"pid\":1,\"tid\":%d,\"name\":\"thread_name\",\"args\":{\"name\":", row);
    add_string(plan, out, name);
    int device = row % plan->p->devices.n, second = row / plan->p->devices.n;
    text_printf(out,
                "}},\n{\"ph\":\"M\",\"pid\":1,\"tid\":%d,\"name\":\"thread_sort_index\",\"args\":{"
                "\"sort_index\":%d}}",
                row, STREAMS * device + second);
}

static const char *event_name(const Plan *plan, const Action *a)
{
    Arena *arena = plan->arena;
    switch (a->kind) {
    case ACT_RUN:
        return arena_printf(arena, "%s%d m%d", run_name(a->run), a->chunk, a->m);
    case ACT_SEND:
    case ACT_RECV:
        return arena_printf(arena, "%s %s m%d", a->kind == ACT_SEND ? "send" : "receive",
                            plan_link_name(arena, &plan->p->links.at[a->link]), a->m);
    case ACT_COPY_OUT:
    case ACT_COPY_IN:
        return arena_printf(arena, "copy %s %d m%d", a->kind == ACT_COPY_OUT ? "out" : "in",
                            a->chunk, a->m);
    case ACT_ROUND:
        return "round weights";
    case ACT_REDUCE:
        return "reduce tied";
    case ACT_CLIP:
        return "clip";
    case ACT_UPDATE:
        return "U0";
    default:
        return NULL;
    }
}

static void add_event(const Plan *plan, Text *out, int device, const Action *a, Span span)
{
    const char *name = event_name(plan, a);
    if (!name || span.end < 0)
        return;
    int row = device + (int)action_stream(a) * plan->p->devices.n;
    text_printf(out,
                ",\n{\"ph\":\"X\",\"pid\":1,\"tid\":%d,\"ts\":%.3f,\"dur\":%.3f,\"cat\":\"%s\","
                "\"name\":",
                row, span.start * 1e6, (span.end - span.start) * 1e6,
                action_copies(a)   ? "copy"
                : action_stream(a) ? "link"
                                   : "phase");
    add_string(plan, out, name);
    bool per_microbatch = a->kind == ACT_RUN || action_stream(a);
    text_printf(out, ",\"args\":{\"step\":1,\"chunk\":%d,\"microbatch\":%d}}",
                a->kind == ACT_RUN || action_copies(a) ? a->chunk : 0, per_microbatch ? a->m : -1);
}

void plan_trace(const Plan *plan, Text *out)
{
    const Program *p = plan->p;
    int most = MOST_EVENTS / p->devices.n, left_out = 0;
    text_add(out, "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n"
                  "{\"ph\":\"M\",\"pid\":1,\"name\":\"process_name\",\"args\":{\"name\":");
    add_string(plan, out, arena_printf(plan->arena, "%s, planned", p->model->name));
    text_add(out, "}}");
    for (int d = 0; d < p->devices.n; d++) {
        const Device *dev = &p->devices.at[d];
        add_row(plan, out, d,
                arena_printf(plan->arena, "%s  %s", dev->name, plan->stages[d].layers));
        if (p->links.n)
            add_row(plan, out, d + p->devices.n,
                    arena_printf(plan->arena, "%s  transfers", dev->name));
        for (int s = STREAM_OUT; s < STREAMS && dev->offloads.n; s++)
            add_row(plan, out, d + s * p->devices.n,
                    arena_printf(plan->arena, "%s  copies %s", dev->name,
                                 s == STREAM_OUT ? "out" : "in"));
        int n = dev->train.actions.n < most ? dev->train.actions.n : most;
        left_out += dev->train.actions.n - n;
        for (int i = 0; i < n; i++)
            add_event(plan, out, d, &dev->train.actions.at[i], plan->seconds->devices[d].spans[i]);
    }
    text_printf(out, "],\n\"otherData\":{\"events_left_out\":%d}}\n", left_out);
}
