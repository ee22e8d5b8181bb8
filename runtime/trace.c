/* trace.c - where a run's time went, for Perfetto or chrome://tracing.
 *
 * In: one event per phase and per message, in order, from every device. Out: a JSON file
 * in the trace-event format, one row per device. Memory is bounded: the first events of
 * a run are kept and the last; what lies between is counted.
 */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "trainer.h"

bool trace_new(Trace *trace, int64_t events)
{
    trace->half = events / 2 > 0 ? events / 2 : 1;
    trace->events = calloc((size_t)trace->half * 2, sizeof *trace->events);
    return trace->events != NULL;
}

void trace_add(Trace *trace, TraceEvent event)
{
    int64_t n = trace->n++, half = trace->half;
    trace->events[n < half ? n : half + (n - half) % half] = event;
}

/* Prints text as a JSON string. */
static void string_print(FILE *out, const char *text)
{
    char *quoted = NULL;
    json_t *string = json_string(text);
    if (string)
        quoted = json_dumps(string, JSON_ENCODE_ANY | JSON_ENSURE_ASCII);
    fputs(quoted ? quoted : "\"?\"", out);
    free(quoted);
    json_decref(string);
}

static void event_print(FILE *out, const Trainer *t, int device, const TraceEvent *e)
{
    char name[300];
    bool message = e->phase == 's' || e->phase == 'w';
    if (message)
        snprintf(name, sizeof name, "%s %s m%d", e->phase == 's' ? "send" : "wait",
                 t->model->links[e->link].name, e->m);
    else if (e->m >= 0)
        snprintf(name, sizeof name, "%c%d m%d", e->phase, e->chunk, e->m);
    else
        snprintf(name, sizeof name, "%c%d", e->phase, e->chunk);
    fprintf(out, ",\n{\"ph\":\"X\",\"pid\":0,\"tid\":%d,\"ts\":%.3f,\"dur\":%.3f,\"cat\":\"%s\",",
            device, (double)e->from / 1e3, (double)(e->to - e->from) / 1e3,
            message ? "link" : "phase");
    fputs("\"name\":", out);
    string_print(out, name);
    fprintf(out, ",\"args\":{\"step\":%lld,\"chunk\":%d,\"microbatch\":%d", (long long)e->step,
            e->chunk, e->m);
    if (message)
        fprintf(out, ",\"link\":%d", e->link);
    fputs("}}", out);
}

static int64_t device_print(FILE *out, const Trainer *t, int i)
{
    const Trace *trace = &t->devices[i].trace;
    char name[300];
    snprintf(name, sizeof name, "%s  %s", t->model->stages[i]->device, t->model->stages[i]->layers);
    fprintf(out,
            ",\n{\"ph\":\"M\",\"pid\":0,\"tid\":%d,\"name\":\"thread_name\",\"args\":{"
            "\"name\":",
            i);
    string_print(out, name);
    fputs("}}", out);
    int64_t first = trace->n < trace->half ? trace->n : trace->half;
    int64_t later = trace->n - first, kept = later < trace->half ? later : trace->half;
    for (int64_t k = 0; k < first; k++)
        event_print(out, t, i, &trace->events[k]);
    for (int64_t k = later - kept; k < later; k++)
        event_print(out, t, i, &trace->events[trace->half + k % trace->half]);
    return later - kept + trace->dropped;
}

int trace_write(Trainer *t, const char *path, Problem *p)
{
    FILE *out = fopen(path, "w");
    if (!out)
        return problem_set(p, EXIT_RUN, "--trace %s: %s", path, strerror(errno));
    int64_t dropped = 0;
    fputs("{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n{\"ph\":\"M\",\"pid\":0,\"name\":"
          "\"process_name\",\"args\":{\"name\":",
          out);
    string_print(out, t->model->name);
    fputs("}}", out);
    for (int i = 0; i < t->model->nstages; i++)
        dropped += device_print(out, t, i);
    fprintf(out, "],\n\"otherData\":{\"events_left_out\":%lld,\"threads\":%d}}\n",
            (long long)dropped, t->threads);
    bool failed = ferror(out) != 0;
    if (fclose(out) != 0 || failed)
        return problem_set(p, EXIT_RUN, "--trace %s: %s", path, strerror(errno));
    if (dropped > 0 && !t->options.quiet)
        printf("%s: holds the run's beginning and end; %lld events between are left out\n", path,
               (long long)dropped);
    return MDL_OK;
}
