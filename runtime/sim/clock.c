/* clock.c - vector clocks, points in streams, and what operations there were.
 *
 * A clock has an entry for every stream: how many of its operations happened before. A point
 * is the end of an operation; it carries the clock of that moment to whoever waits for it.
 * A stream's id can serve another stream once the host has waited for everything that the
 * first one did: all that is enqueued later comes after that in any case.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <xxhash.h>

#include "host.h"

static void entries_raise(uint32_t *into, int n, const uint32_t *from, int nfrom)
{
    for (int i = 0; i < nfrom; i++)
        if (i >= n || into[i] < from[i])
            into[i] = from[i];
}

void sim_clock_join(SimClock *into, const SimClock *from)
{
    entries_raise(into->at, into->n, from->at, from->n);
    entries_raise(into->sure, into->n, from->sure, from->n);
    if (into->n < from->n)
        into->n = from->n;
}

/* What host threads have waited for: all of them, and this one. Threads tell each other in
 * ways that are not seen here, so work comes after what any thread has waited for; but a
 * receive does not come after a kernel because the kernel's thread happened to be faster than
 * the sender's. A new thread knows what was known at its first call. */
static SimClock host_clock;
static _Thread_local SimClock thread_clock;
static _Thread_local bool thread_known;

void clock_host_begin(void)
{
    if (thread_known)
        return;
    entries_raise(thread_clock.sure, 0, host_clock.at, host_clock.n);
    thread_clock.n = host_clock.n;
    thread_known = true;
}

void clock_host_learn(const SimClock *from)
{
    sim_clock_join(&thread_clock, from);
    sim_clock_join(&host_clock, from);
}

void clock_host_see(const SimClock *from)
{
    sim_clock_join(&host_clock, from);
}

void clock_host_tell(SimClock *into)
{
    entries_raise(into->at, into->n, host_clock.at, host_clock.n);
    entries_raise(into->sure, into->n, thread_clock.sure, host_clock.n);
    if (into->n < host_clock.n)
        into->n = host_clock.n;
}

int64_t time_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

SimPoint *point_new(const SimStream *stream, uint32_t sequence)
{
    SimPoint *point = calloc(1, sizeof *point);
    if (!point)
        abort();
    point->refs = 1;
    point->stream = stream;
    point->sequence = sequence;
    return point;
}

SimPoint *point_keep(SimPoint *point)
{
    point->refs++;
    return point;
}

void point_drop(SimPoint *point)
{
    if (point && --point->refs == 0)
        free(point);
}

bool point_passed(void *point)
{
    return ((SimPoint *)point)->done;
}

/* --------------------------------------------------------------- ids of streams */

static struct {
    int n;
    bool returned[SIM_STREAMS_MAX];
    uint32_t last[SIM_STREAMS_MAX];
} ids;

uint32_t clock_id_take(uint32_t *last)
{
    for (int i = 0; i < ids.n; i++) {
        bool known = i < host_clock.n ? host_clock.at[i] >= ids.last[i] : ids.last[i] == 0;
        if (ids.returned[i] && known) {
            ids.returned[i] = false;
            *last = ids.last[i];
            return (uint32_t)i;
        }
    }
    if (ids.n == SIM_STREAMS_MAX) {
        sim_report(SIM_UNKNOWN, "more than %d streams whose work was never waited for",
                   SIM_STREAMS_MAX);
        *last = ids.last[SIM_STREAMS_MAX - 1];
        return SIM_STREAMS_MAX - 1;
    }
    *last = 0;
    return (uint32_t)ids.n++;
}

void clock_id_return(uint32_t id, uint32_t last)
{
    ids.returned[id] = true;
    ids.last[id] = last;
}

/* ------------------------------------------- operations that were cut short, and after */

typedef struct {
    uint32_t stream_id, sequence;
    uint64_t until; /* operations with this number or a higher one were enqueued knowingly */
} Cut;

static struct {
    Cut *all;
    size_t n, room, unknown; /* unknown: cuts that no host thread has waited for */
} cuts;

void sim_op_cut_short(const SimOp *op)
{
    for (size_t i = 0; i < cuts.n; i++)
        if (cuts.all[i].stream_id == op->stream_id && cuts.all[i].until == UINT64_MAX)
            return; /* comes after an earlier cut */
    if (cuts.n == cuts.room) {
        size_t room = cuts.room ? 2 * cuts.room : 16;
        Cut *grown = realloc(cuts.all, room * sizeof *grown);
        if (!grown)
            return;
        cuts.all = grown;
        cuts.room = room;
    }
    cuts.all[cuts.n++] = (Cut){op->stream_id, op->sequence, UINT64_MAX};
    cuts.unknown++;
}

void clock_cuts_learn(uint64_t number)
{
    for (size_t i = 0; cuts.unknown > 0 && i < cuts.n; i++) {
        Cut *c = &cuts.all[i];
        if (c->until != UINT64_MAX || (int)c->stream_id >= host_clock.n ||
            host_clock.at[c->stream_id] < c->sequence)
            continue;
        c->until = number;
        cuts.unknown--;
    }
}

bool clock_misled(const SimOp *op)
{
    for (size_t i = 0; i < cuts.n; i++) {
        const Cut *c = &cuts.all[i];
        if (op->number < c->until && (int)c->stream_id < op->clock.n &&
            op->clock.at[c->stream_id] >= c->sequence)
            return true;
    }
    return false;
}

/* ---------------------------------------------------------------------- history */

/* Texts are kept once: a program does the same things again and again. */
typedef struct Past {
    struct Past *next;
    uint64_t hash;
    void *caller;
    char text[];
} Past;

enum { BUCKETS = 4096 };
static Past *buckets[BUCKETS];
static struct {
    const Past **past;
    uint32_t room;
} history[SIM_STREAMS_MAX];

static const Past *past_find(const char *text, void *caller)
{
    uint64_t hash = XXH3_64bits_withSeed(text, strlen(text), (uint64_t)(uintptr_t)caller);
    Past **bucket = &buckets[hash % BUCKETS];
    for (Past *p = *bucket; p; p = p->next)
        if (p->hash == hash && p->caller == caller && strcmp(p->text, text) == 0)
            return p;
    Past *p = malloc(sizeof *p + strlen(text) + 1);
    if (!p)
        return NULL;
    p->hash = hash;
    p->caller = caller;
    strcpy(p->text, text);
    p->next = *bucket;
    return *bucket = p;
}

void history_note(const SimOp *op)
{
    uint32_t n = op->sequence;
    if (n >= history[op->stream_id].room) {
        uint32_t room = n * 2 + 64;
        const Past **past = realloc(history[op->stream_id].past, room * sizeof *past);
        if (!past)
            return;
        memset(past + history[op->stream_id].room, 0,
               (room - history[op->stream_id].room) * sizeof *past);
        history[op->stream_id].past = past;
        history[op->stream_id].room = room;
    }
    char text[256], stream[96];
    snprintf(text, sizeof text, "%s\n%s", op->name,
             sim_stream_describe(op->stream, stream, sizeof stream));
    history[op->stream_id].past[n] = past_find(text, op->caller);
}

/* "NAME (caller), stream" */
static char *describe(const char *name, size_t length, const void *caller, const char *stream,
                      char *out, size_t size)
{
    char where[256];
    caller_describe(caller, where, sizeof where);
    snprintf(out, size, "%.*s%s%s%s, %s", (int)length, name, *where ? " (" : "", where,
             *where ? ")" : "", stream);
    return out;
}

char *sim_history_describe(uint32_t stream_id, uint32_t sequence, char *out, size_t size)
{
    const Past *p = stream_id < SIM_STREAMS_MAX && sequence < history[stream_id].room
                        ? history[stream_id].past[sequence]
                        : NULL;
    if (!p) {
        snprintf(out, size, "operation %u of stream %u", sequence, stream_id);
        return out;
    }
    const char *stream = strchr(p->text, '\n');
    return describe(p->text, (size_t)(stream - p->text), p->caller, stream + 1, out, size);
}

char *sim_op_describe(const SimOp *op, char *out, size_t size)
{
    char stream[96];
    sim_stream_describe(op->stream, stream, sizeof stream);
    return describe(op->name, strlen(op->name), op->caller, stream, out, size);
}
