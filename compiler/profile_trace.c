/* profile_trace.c - a trainer's trace as samples of what calls, messages and steps take.
 *
 * In:  the JSON that --trace wrote, of a trainer emitted with Program.by_call: an event "F12 m3" is
 *      call 12 of the forward passes of its device.
 * Out: samples by device, kind of run and number of the call.
 *
 * A message is two events, its send and its wait. They are put together by link, step and
 * micro-batch; where the wait began before the send ended, the time from that end to the wait's end
 * is what waking up costs. */
#include "profile_trace.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    int64_t step, m;
    int link;
    bool wait;
    double from, to;
} Message;

typedef struct {
    Arena *arena;
    const Program *p;
    ProfileSamples *s;
    int64_t first; /* step */
    VEC(double) ends;
    VEC(Message) messages;
} TraceReader;

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

double samples_mean(Samples *s, double from, double to)
{
    if (s->n == 0)
        return 0;
    qsort(s->at, (size_t)s->n, sizeof *s->at, by_value);
    const int first = (int)(from * (s->n - 1)), last = (int)(to * (s->n - 1));
    double sum = 0;
    for (int i = first; i <= last; i++)
        sum += s->at[i];
    return sum / (last - first + 1);
}

double samples_typical(Samples *s)
{
    return samples_mean(s, 0.1, 0.9);
}

static int run_of(char letter)
{
    for (int k = 0; k < RUN_KINDS; k++)
        if (run_name((RunKind)k)[0] == letter)
            return k;
    return NONE;
}

static int work_of(char letter)
{
    static const char letters[] = "RACU"; /* as emit_update.c has them */
    const char *at = letter ? strchr(letters, letter) : NULL;
    return at ? (int)(at - letters) : NONE;
}

/* How many calls a device's runs of a kind have. */
static int count_calls(const Program *p, int device, RunKind kind)
{
    const Device *d = &p->devices.at[device];
    int n = 0;
    for (int i = 0; i < d->chunks.n; i++)
        n += p->chunks.at[d->chunks.at[i]].run[kind].calls.n;
    return n;
}

static ProfileSamples *samples_new(Arena *a, const Program *p)
{
    ProfileSamples *s = ARENA_NEW(a, ProfileSamples);
    s->devices = ARENA_ARRAY(a, DeviceSamples, p->devices.n);
    s->copies = ARENA_ARRAY(a, Samples, p->links.n + 1);
    for (int d = 0; d < p->devices.n; d++)
        for (int k = 0; k < RUN_KINDS; k++)
            s->devices[d].calls[k] = ARENA_ARRAY(a, Samples, count_calls(p, d, (RunKind)k) + 1);
    return s;
}

/* The end of a step is that of its last event, on any device. */
static void note_end(TraceReader *r, int64_t step, double to)
{
    while (r->ends.n <= step)
        VEC_PUSH(r->arena, &r->ends, 0);
    if (to > r->ends.at[step])
        r->ends.at[step] = to;
}

/* false: not as our trainers write it. */
static bool take_event(TraceReader *r, const json_t *event)
{
    const json_t *args = json_object_get(event, "args");
    const char *name = json_string_value(json_object_get(event, "name")),
               *cat = json_string_value(json_object_get(event, "cat"));
    const json_int_t device = json_integer_value(json_object_get(event, "tid")),
                     step = json_integer_value(json_object_get(args, "step")),
                     m = json_integer_value(json_object_get(args, "microbatch")),
                     number = json_integer_value(json_object_get(args, "chunk"));
    const double from = json_number_value(json_object_get(event, "ts")) * 1e-6,
                 seconds = json_number_value(json_object_get(event, "dur")) * 1e-6;
    if (!name || !cat || device < 0 || device >= r->p->devices.n || step < 0 || step > 1 << 24 ||
        !isfinite(from) || !(seconds >= 0))
        return false;
    if (r->first < 0)
        r->first = step;
    r->s->events++;
    note_end(r, step, from + seconds);
    if (step == r->first)
        return true;
    DeviceSamples *to = &r->s->devices[device];
    if (strcmp(cat, "link") == 0) {
        const json_t *link = json_object_get(args, "link");
        if (!json_is_integer(link) || json_integer_value(link) < 0 ||
            json_integer_value(link) >= r->p->links.n)
            return false;
        VEC_PUSH(r->arena, &r->messages,
                 (Message){step, m, (int)json_integer_value(link), name[0] == 'w', from,
                           from + seconds});
        return true;
    }
    const int kind = run_of(name[0]), work = work_of(name[0]);
    if (work != NONE)
        VEC_PUSH(r->arena, &to->work[work], seconds);
    else if (kind != NONE && number >= 0 && number < count_calls(r->p, (int)device, (RunKind)kind))
        VEC_PUSH(r->arena, &to->calls[kind][number], seconds);
    else
        return false;
    return true;
}

static int by_message(const void *a, const void *b)
{
    const Message *x = a, *y = b;
    const int64_t left[] = {x->link, x->step, x->m, x->wait},
                  right[] = {y->link, y->step, y->m, y->wait};
    for (int i = 0; i < 4; i++)
        if (left[i] != right[i])
            return left[i] < right[i] ? -1 : 1;
    return 0;
}

static void pair_messages(TraceReader *r)
{
    const int n = r->messages.n;
    if (n)
        qsort(r->messages.at, (size_t)n, sizeof *r->messages.at, by_message);
    for (int i = 0; i < n; i++) {
        const Message *send = &r->messages.at[i], *wait = send + 1;
        if (send->wait)
            continue;
        VEC_PUSH(r->arena, &r->s->copies[send->link], send->to - send->from);
        if (i + 1 < n && wait->wait && wait->link == send->link && wait->step == send->step &&
            wait->m == send->m && wait->from < send->to && wait->to > send->to)
            VEC_PUSH(r->arena, &r->s->wakes, wait->to - send->to);
    }
}

ProfileSamples *profile_trace_read(Arena *a, const Program *p, const char *path)
{
    TraceReader r = {.arena = a, .p = p, .s = samples_new(a, p), .first = -1};
    json_error_t error;
    json_t *root = json_load_file(path, 0, &error);
    const json_t *events = json_object_get(root, "traceEvents");
    bool ok = json_is_array(events);
    for (size_t i = 0; ok && i < json_array_size(events); i++) {
        const json_t *event = json_array_get(events, i);
        const char *form = json_string_value(json_object_get(event, "ph"));
        if (form && strcmp(form, "X") == 0)
            ok = take_event(&r, event);
    }
    const json_int_t threads =
        json_integer_value(json_object_get(json_object_get(root, "otherData"), "threads"));
    ok = ok && threads >= 1 && threads <= 1024;
    r.s->threads = (int)threads;
    json_decref(root);
    if (!ok) {
        fprintf(stderr, "mdlc: the trace of the trainer cannot be read: %s\n",
                root ? "it is not what this mdlc's trainers write" : error.text);
        return NULL;
    }
    for (int64_t k = r.first + 1; r.first >= 0 && k < r.ends.n; k++)
        if (r.ends.at[k] > 0 && r.ends.at[k - 1] > 0)
            VEC_PUSH(a, &r.s->steps, r.ends.at[k] - r.ends.at[k - 1]);
    r.s->nsteps = r.s->steps.n + (r.first >= 0);
    pair_messages(&r);
    return r.s;
}
