/* stream.c - streams: their queues, and the order between them that CUDA implies.
 *
 * A stream is a queue of operations. An operation also comes after the points in its `after`
 * list: waits for events, and the NULL stream's rule: its work comes after all earlier work
 * of its device's blocking streams, and their later work comes after it.
 *
 * Streams stay in memory when they are destroyed, so that a stale handle is recognised.
 */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "host.h"

static SimStream *first, *legacy[SIM_DEVICES_MAX];
static SimStream **numbered; /* by number: what handles stand for */
static unsigned nnumbered;

/* What destroyed streams did, for those who wait for the device later. */
static SimClock retired[SIM_DEVICES_MAX], retired_blocking[SIM_DEVICES_MAX];

void streams_retired_join(int device, SimClock *into)
{
    for (int d = 0; d < SIM_DEVICES_MAX; d++)
        if (device < 0 || d == device)
            sim_clock_join(into, &retired[d]);
}

SimStream *streams_first(void)
{
    return first;
}

SimStream *stream_new(int device, unsigned flags, int priority, bool hidden)
{
    SimStream *s = calloc(1, sizeof *s), **grown;
    grown = realloc(numbered, (nnumbered + 1) * sizeof *grown);
    if (grown)
        numbered = grown;
    if (!s || !grown) {
        free(s);
        return NULL;
    }
    s->device = device;
    s->flags = flags;
    s->priority = priority;
    s->hidden = hidden;
    s->number = nnumbered;
    s->id = clock_id_take(&s->last);
    s->done = s->last;
    s->caller = host_thread()->caller;
    numbered[nnumbered++] = s;
    SimStream **end = &first;
    while (*end)
        end = &(*end)->next;
    *end = s;
    return s;
}

SimStream *stream_legacy(int device)
{
    if (!legacy[device]) {
        legacy[device] = stream_new(device, cudaStreamDefault, 0, true);
        if (!legacy[device])
            abort();
        legacy[device]->legacy = true;
    }
    return legacy[device];
}

int sim_stream_device(const SimStream *stream)
{
    return stream->device;
}

char *sim_stream_describe(const SimStream *s, char *out, size_t size)
{
    if (s->legacy)
        snprintf(out, size, "gpu %d, NULL stream", s->device);
    else if (s->hidden)
        snprintf(out, size, "gpu %d, graph branch %u", s->device, s->number);
    else
        snprintf(out, size, "gpu %d, stream %u", s->device, s->number);
    return out;
}

cudaStream_t stream_handle(const SimStream *s)
{
    return s->legacy ? NULL : handle_make(HANDLE_STREAM, s->number);
}

SimStream *stream_of_handle(cudaStream_t handle, const char *call)
{
    size_t index = handle_index(handle, HANDLE_STREAM);
    if (!handle || handle == cudaStreamLegacy)
        return stream_legacy(sim_current_device());
    if (handle == cudaStreamPerThread) {
        sim_report(SIM_UNKNOWN, "%s: the per-thread default stream is not simulated", call);
        return NULL;
    }
    if (index >= nnumbered || numbered[index]->hidden) {
        sim_report(SIM_MISUSE, "%s: %p is no stream", call, (void *)handle);
        return NULL;
    }
    if (numbered[index]->destroyed) {
        char text[96];
        sim_report(SIM_MISUSE, "%s: a destroyed stream is used (%s)", call,
                   sim_stream_describe(numbered[index], text, sizeof text));
        return NULL;
    }
    return numbered[index];
}

SimStream *sim_stream_of(void *handle, const char *call)
{
    return stream_of_handle(handle, call);
}

static void stream_unlink(SimStream *s)
{
    if (s->unlinked)
        return;
    s->unlinked = true;
    sim_clock_join(&retired[s->device], &s->clock);
    if (!s->hidden && !(s->flags & cudaStreamNonBlocking))
        sim_clock_join(&retired_blocking[s->device], &s->clock);
    SimStream **at = &first;
    while (*at && *at != s)
        at = &(*at)->next;
    if (*at)
        *at = s->next;
    s->next = NULL;
    clock_id_return(s->id, s->last);
}

void stream_retire(SimStream *s)
{
    s->destroyed = true;
    if (!s->head)
        stream_unlink(s);
}

void streams_of_device_destroy(int device)
{
    for (SimStream *s = first, *next; s; s = next) {
        next = s->next;
        if (s->device == device && !s->legacy) {
            capture_abandon(s);
            stream_retire(s);
        }
    }
}

void streams_leaks(void)
{
    char text[96], where[256];
    for (SimStream *s = first; s; s = s->next)
        if (!s->hidden && !s->destroyed) {
            caller_describe(s->caller, where, sizeof where);
            sim_report(SIM_LEAK, "%s is never destroyed%s%s",
                       sim_stream_describe(s, text, sizeof text), *where ? "\ncreated at " : "",
                       where);
        }
}

/* -------------------------------------------------------------------- operations */

SimOp *sim_op_new(SimOpKind kind, size_t size, const char *format, ...)
{
    SimOp *op = calloc(1, sizeof *op);
    void *data = size ? calloc(1, size) : NULL;
    if (!op || (size && !data))
        abort();
    op->kind = kind;
    op->data = data;
    op->size = size;
    va_list args;
    va_start(args, format);
    vsnprintf(op->name, sizeof op->name, format, args);
    va_end(args);
    return op;
}

void op_free(SimOp *op)
{
    if (op->drop)
        op->drop(op);
    for (int i = 0; i < op->nafter; i++)
        point_drop(op->after[i]);
    free(op->after);
    point_drop(op->fills);
    free(op->data);
    free(op);
}

void op_after_point(SimOp *op, SimPoint *point)
{
    if (point->done) {
        sim_clock_join(&op->clock, &point->clock);
        return;
    }
    SimPoint **after = realloc(op->after, ((size_t)op->nafter + 1) * sizeof *after);
    if (!after)
        abort();
    op->after = after;
    after[op->nafter++] = point_keep(point);
}

SimPoint *stream_tail_point(SimStream *s)
{
    if (!s->tail)
        return NULL;
    if (!s->tail->fills)
        s->tail->fills = point_new(s, s->tail->sequence);
    return s->tail->fills;
}

void op_after_stream(SimOp *op, SimStream *s)
{
    SimPoint *point = stream_tail_point(s);
    if (point)
        op_after_point(op, point);
    else
        sim_clock_join(&op->clock, &s->clock);
}

static void op_after_implied(SimOp *op, SimStream *s)
{
    if (s->legacy) {
        for (SimStream *other = first; other; other = other->next)
            if (other->device == s->device && other != s && !other->hidden &&
                !(other->flags & cudaStreamNonBlocking))
                op_after_stream(op, other);
        sim_clock_join(&op->clock, &retired_blocking[s->device]);
    } else if (!s->hidden && !(s->flags & cudaStreamNonBlocking) && legacy[s->device]) {
        op_after_stream(op, legacy[s->device]);
    }
}

void stream_push(SimStream *s, SimOp *op)
{
    static uint64_t number;
    op->stream = s;
    op->device = s->device;
    op->stream_id = s->id;
    op->sequence = ++s->last;
    op->number = number++;
    clock_cuts_learn(op->number);
    clock_host_tell(&op->clock);
    op_after_implied(op, s);
    if (op->prepare)
        op->prepare(op);
    op->next = NULL;
    if (s->tail)
        s->tail->next = op;
    else
        s->head = op;
    s->tail = op;
    s->pending++;
    scheduler_progress_made();
}

void sim_enqueue(SimStream *s, SimOp *op)
{
    op->stream = s;
    op->device = s->device;
    if (!op->caller)
        op->caller = host_thread()->caller;
    if (!capture_take(s, op))
        stream_push(s, op);
}
