/* cudart_event.c - events.
 *
 * An event stands for its latest record: the point that a record operation fills. A wait
 * takes the point that is the latest when the wait is called.
 */
#include <stdlib.h>
#include <string.h>

#include "event.h"
#include "host.h"

static SimEvent **events;
static size_t nevents;

char *event_describe(const SimEvent *e, char *out, size_t size)
{
    snprintf(out, size, "event %u of gpu %d", e->number, e->device);
    return out;
}

SimEvent *event_of_handle(cudaEvent_t handle, const char *call)
{
    size_t index = handle_index(handle, HANDLE_EVENT);
    char text[64];
    if (index >= nevents) {
        sim_report(SIM_MISUSE, "%s: %p is no event", call, (void *)handle);
        return NULL;
    }
    if (events[index]->destroyed) {
        sim_report(SIM_MISUSE, "%s: a destroyed event is used (%s)", call,
                   event_describe(events[index], text, sizeof text));
        return NULL;
    }
    return events[index];
}

static cudaError_t create(cudaEvent_t *out, unsigned flags)
{
    const unsigned known = cudaEventBlockingSync | cudaEventDisableTiming;
    if (flags & cudaEventInterprocess) {
        sim_report(SIM_UNKNOWN, "events between processes are not simulated");
        return cudaErrorNotSupported;
    }
    if (!out || (flags & ~known))
        return cudaErrorInvalidValue;
    SimEvent *e = calloc(1, sizeof *e), **grown = NULL;
    if (e)
        grown = realloc(events, (nevents + 1) * sizeof *grown);
    if (!grown) {
        free(e);
        return cudaErrorMemoryAllocation;
    }
    events = grown;
    e->device = sim_current_device();
    e->number = (unsigned)nevents;
    e->flags = flags;
    e->caller = host_thread()->caller;
    events[nevents++] = e;
    *out = handle_make(HANDLE_EVENT, e->number);
    return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *out)
{
    API(SIM_CALL_WORK, cudaErrorUnknown);
    API_RETURN(create(out, cudaEventDefault));
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned flags)
{
    API(SIM_CALL_WORK, cudaErrorUnknown);
    API_RETURN(create(out, flags));
}

static void event_retire(SimEvent *e)
{
    e->destroyed = true;
    point_drop(e->record);
    free(e->nodes);
    e->record = NULL;
    e->nodes = NULL;
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    API(SIM_CALL_FREE, cudaErrorUnknown);
    SimEvent *e = event_of_handle(event, __func__);
    if (e)
        event_retire(e);
    API_RETURN(e ? cudaSuccess : cudaErrorInvalidResourceHandle);
}

void events_of_device_destroy(int device)
{
    for (size_t i = 0; i < nevents; i++)
        if (events[i]->device == device && !events[i]->destroyed)
            event_retire(events[i]);
}

void events_leaks(void)
{
    char text[64], where[256];
    for (size_t i = 0; i < nevents; i++)
        if (!events[i]->destroyed) {
            caller_describe(events[i]->caller, where, sizeof where);
            sim_report(SIM_LEAK, "%s is never destroyed%s%s",
                       event_describe(events[i], text, sizeof text), *where ? "\ncreated at " : "",
                       where);
        }
}

/* ------------------------------------------------------------------------- recording */

static cudaError_t record(cudaEvent_t event, cudaStream_t stream, unsigned flags, const char *call)
{
    char text[64], place[96];
    SimEvent *e = event_of_handle(event, call);
    SimStream *s = e ? stream_of_handle(stream, call) : NULL;
    if (!s)
        return cudaErrorInvalidResourceHandle;
    if (flags != cudaEventRecordDefault) {
        sim_report(SIM_UNKNOWN, "%s with flags 0x%x", call, flags);
        return cudaErrorNotSupported;
    }
    if (s->device != e->device) {
        sim_report(SIM_WRONG_DEVICE, "%s: %s is recorded in %s", call,
                   event_describe(e, text, sizeof text),
                   sim_stream_describe(s, place, sizeof place));
        return cudaErrorInvalidResourceHandle;
    }
    if (capture_active(s)) {
        capture_record(s, e);
        return cudaSuccess;
    }
    SimOp *op = sim_op_new(SIM_OP_RECORD, 0, "cudaEventRecord");
    sim_enqueue(s, op);
    point_drop(e->record);
    e->record = point_keep(stream_tail_point(s));
    e->capture_number = 0;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    API(SIM_CALL_WORK, cudaErrorUnknown);
    API_RETURN(record(event, stream, cudaEventRecordDefault, __func__));
}

cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned flags)
{
    API(SIM_CALL_WORK, cudaErrorUnknown);
    API_RETURN(record(event, stream, flags, __func__));
}

static bool never_recorded(const SimEvent *e, const char *call)
{
    char text[64];
    if (!e->record)
        sim_report(SIM_MISUSE, "%s waits for an event that was never recorded (%s)", call,
                   event_describe(e, text, sizeof text));
    return !e->record;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags)
{
    API(SIM_CALL_WORK, cudaErrorUnknown);
    SimEvent *e = event_of_handle(event, __func__);
    SimStream *s = e ? stream_of_handle(stream, __func__) : NULL;
    if (!s)
        API_RETURN(cudaErrorInvalidResourceHandle);
    if (flags != cudaEventWaitDefault) {
        sim_report(SIM_UNKNOWN, "%s with flags 0x%x", __func__, flags);
        API_RETURN(cudaErrorNotSupported);
    }
    if (e->capture_number > 0 || capture_active(s))
        API_RETURN(capture_wait(s, e));
    if (never_recorded(e, __func__))
        API_RETURN(cudaSuccess);
    SimOp *op = sim_op_new(SIM_OP_WAIT, 0, "cudaStreamWaitEvent");
    op_after_point(op, e->record);
    sim_enqueue(s, op);
    API_RETURN(cudaSuccess);
}

/* --------------------------------------------------------------------- for the host */

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    API(SIM_CALL_QUERY, cudaErrorUnknown);
    SimEvent *e = event_of_handle(event, __func__);
    if (!e)
        API_RETURN(cudaErrorInvalidResourceHandle);
    if (e->capture_number > 0)
        API_RETURN(cudaErrorCapturedEvent);
    if (capture_forbids() != cudaSuccess)
        API_RETURN(cudaErrorStreamCaptureUnsupported);
    if (never_recorded(e, __func__))
        API_RETURN(cudaSuccess);
    API_RETURN(wait_for_point(point_keep(e->record), __func__));
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
    API(SIM_CALL_QUERY, cudaErrorUnknown);
    SimEvent *e = event_of_handle(event, __func__);
    if (!e)
        API_RETURN(cudaErrorInvalidResourceHandle);
    if (e->capture_number > 0)
        API_RETURN(cudaErrorCapturedEvent);
    if (capture_forbids() != cudaSuccess)
        API_RETURN(cudaErrorStreamCaptureUnsupported);
    if (!e->record)
        API_RETURN(cudaSuccess);
    if (!scheduler_poll(point_passed, e->record, __func__))
        API_RETURN(cudaErrorNotReady);
    clock_host_learn(&e->record->clock);
    API_RETURN(cudaSuccess);
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t start, cudaEvent_t end)
{
    API(SIM_CALL_QUERY, cudaErrorUnknown);
    const SimEvent *from = event_of_handle(start, __func__);
    const SimEvent *to = from ? event_of_handle(end, __func__) : NULL;
    if (!to || !ms || !from->record || !to->record ||
        ((from->flags | to->flags) & cudaEventDisableTiming))
        API_RETURN(cudaErrorInvalidResourceHandle);
    if (!from->record->done || !to->record->done)
        API_RETURN(cudaErrorNotReady);
    *ms = (float)((double)(to->record->time - from->record->time) * 1e-6);
    API_RETURN(cudaSuccess);
}
