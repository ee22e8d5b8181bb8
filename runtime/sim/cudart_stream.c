/* cudart_stream.c - the runtime's functions of streams. */
#include <string.h>

#include "host.h"

enum { PRIORITY_HIGHEST = -5, PRIORITY_LOWEST = 0 };

static cudaError_t create(cudaStream_t *out, unsigned flags, int priority)
{
    if (!out || (flags & ~(unsigned)cudaStreamNonBlocking))
        return cudaErrorInvalidValue;
    priority = priority < PRIORITY_HIGHEST ? PRIORITY_HIGHEST : priority;
    priority = priority > PRIORITY_LOWEST ? PRIORITY_LOWEST : priority;
    SimStream *s = stream_new(sim_current_device(), flags, priority, false);
    if (!s)
        return cudaErrorMemoryAllocation;
    *out = stream_handle(s);
    return cudaSuccess;
}

cudaError_t cudaStreamCreate(cudaStream_t *out)
{
    API(SIM_CALL_WORK, cudaErrorUnknown);
    API_RETURN(create(out, cudaStreamDefault, 0));
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned flags)
{
    API(SIM_CALL_WORK, cudaErrorUnknown);
    API_RETURN(create(out, flags, 0));
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *out, unsigned flags, int priority)
{
    API(SIM_CALL_WORK, cudaErrorUnknown);
    API_RETURN(create(out, flags, priority));
}

/* Work that is pending is finished by and by. */
cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    API(SIM_CALL_FREE, cudaErrorUnknown);
    if (!stream || stream == cudaStreamLegacy || stream == cudaStreamPerThread)
        API_RETURN(cudaErrorInvalidResourceHandle);
    SimStream *s = stream_of_handle(stream, __func__);
    if (!s)
        API_RETURN(cudaErrorInvalidResourceHandle);
    capture_abandon(s);
    stream_retire(s);
    API_RETURN(cudaSuccess);
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    API(SIM_CALL_QUERY, cudaErrorUnknown);
    SimStream *s = stream_of_handle(stream, __func__);
    cudaError_t error = s ? capture_forbids_stream(s) : cudaErrorInvalidResourceHandle;
    API_RETURN(error == cudaSuccess ? wait_for_stream(s, __func__) : error);
}

static bool stream_empty(void *stream)
{
    return !((SimStream *)stream)->head;
}

cudaError_t cudaStreamQuery(cudaStream_t stream)
{
    API(SIM_CALL_QUERY, cudaErrorUnknown);
    SimStream *s = stream_of_handle(stream, __func__);
    cudaError_t error = s ? capture_forbids_stream(s) : cudaErrorInvalidResourceHandle;
    if (error != cudaSuccess)
        API_RETURN(error);
    if (!scheduler_poll(stream_empty, s, __func__))
        API_RETURN(cudaErrorNotReady);
    clock_host_learn(&s->clock);
    API_RETURN(cudaSuccess);
}

cudaError_t cudaDeviceSynchronize(void)
{
    API(SIM_CALL_QUERY, cudaErrorUnknown);
    cudaError_t error = capture_forbids();
    API_RETURN(error == cudaSuccess ? wait_for_device(sim_current_device(), __func__) : error);
}

/* ------------------------------------------------------------------ host functions */

typedef struct {
    cudaHostFn_t function;
    cudaStreamCallback_t callback;
    cudaStream_t stream;
    void *argument;
} HostData;

static void host_run(SimOp *op)
{
    const HostData *h = op->data;
    if (h->function)
        h->function(h->argument);
    else
        h->callback(h->stream, cudaSuccess, h->argument);
}

static cudaError_t host_enqueue(const char *call, cudaStream_t stream, HostData data)
{
    SimStream *s = stream_of_handle(stream, call);
    if (!s)
        return cudaErrorInvalidResourceHandle;
    if (!driver_start())
        return cudaErrorOperatingSystem;
    SimOp *op = sim_op_new(SIM_OP_CALLBACK, sizeof data, "%s", call);
    memcpy(op->data, &data, sizeof data);
    op->run = host_run;
    op->host_sees = true;
    sim_enqueue(s, op);
    return cudaSuccess;
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void *argument)
{
    API(SIM_CALL_WORK, cudaErrorUnknown);
    if (!function)
        API_RETURN(cudaErrorInvalidValue);
    API_RETURN(
        host_enqueue(__func__, stream, (HostData){.function = function, .argument = argument}));
}

cudaError_t cudaStreamAddCallback(cudaStream_t stream, cudaStreamCallback_t callback,
                                  void *argument, unsigned flags)
{
    API(SIM_CALL_WORK, cudaErrorUnknown);
    if (!callback || flags != 0)
        API_RETURN(cudaErrorInvalidValue);
    API_RETURN(host_enqueue(__func__, stream, (HostData){NULL, callback, stream, argument}));
}

/* ----------------------------------------------------------------------- questions */

cudaError_t cudaStreamGetFlags(cudaStream_t stream, unsigned *flags)
{
    API(SIM_CALL_QUERY, cudaErrorUnknown);
    SimStream *s = stream_of_handle(stream, __func__);
    if (!s || !flags)
        API_RETURN(cudaErrorInvalidValue);
    *flags = s->flags;
    API_RETURN(cudaSuccess);
}

cudaError_t cudaStreamGetPriority(cudaStream_t stream, int *priority)
{
    API(SIM_CALL_QUERY, cudaErrorUnknown);
    SimStream *s = stream_of_handle(stream, __func__);
    if (!s || !priority)
        API_RETURN(cudaErrorInvalidValue);
    *priority = s->priority;
    API_RETURN(cudaSuccess);
}

cudaError_t cudaStreamGetId(cudaStream_t stream, unsigned long long *id)
{
    API(SIM_CALL_QUERY, cudaErrorUnknown);
    SimStream *s = stream_of_handle(stream, __func__);
    if (!s || !id)
        API_RETURN(cudaErrorInvalidValue);
    *id = s->number;
    API_RETURN(cudaSuccess);
}

cudaError_t cudaStreamGetDevice(cudaStream_t stream, int *device)
{
    API(SIM_CALL_QUERY, cudaErrorUnknown);
    SimStream *s = stream_of_handle(stream, __func__);
    if (!s || !device)
        API_RETURN(cudaErrorInvalidValue);
    *device = s->device;
    API_RETURN(cudaSuccess);
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest)
{
    API(SIM_CALL_QUERY, cudaErrorUnknown);
    if (least)
        *least = PRIORITY_LOWEST;
    if (greatest)
        *greatest = PRIORITY_HIGHEST;
    API_RETURN(cudaSuccess);
}
