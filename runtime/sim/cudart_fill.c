/* cudart_fill.c - fills of memory. Only the call without a stream waits, where the memory is
 * the host's. */
#include <string.h>

#include "host.h"

typedef struct {
    uint64_t to, pitch, width, height;
    int value;
} FillData;

static void fill_run(SimOp *op)
{
    const FillData *f = op->data;
    char *to = range_check(op, f->to, f->width, f->pitch, f->height, SIM_WRITE, false, true,
                           "the destination");
    for (uint64_t i = 0; to && i < f->height; i++)
        memset(to + i * f->pitch, f->value, f->width);
}

static cudaError_t fill(const char *call, FillData data, cudaStream_t stream, bool asynchronous)
{
    bool host = sim_device_of(data.to) < 0;
    if (data.width == 0 || data.height == 0)
        return cudaSuccess;
    if (host && !pinned_find(data.to, 1))
        return cudaErrorInvalidValue;
    if (data.height > 1 && data.width > data.pitch)
        return cudaErrorInvalidPitchValue;
    SimStream *s = stream_of_handle(stream, call);
    if (!s)
        return cudaErrorInvalidResourceHandle;
    SimOp *op = sim_op_new(SIM_OP_RUN, sizeof data, "%s", call);
    memcpy(op->data, &data, sizeof data);
    op->run = fill_run;
    op->host_sees = host;
    sim_enqueue(s, op);
    return host && !asynchronous ? wait_for_stream(s, call) : cudaSuccess;
}

static FillData fill_flat(void *to, int value, size_t bytes)
{
    return (FillData){(uint64_t)(uintptr_t)to, bytes, bytes, 1, value};
}

cudaError_t cudaMemset(void *to, int value, size_t bytes)
{
    API(SIM_CALL_WORK, cudaErrorUnknown);
    API_RETURN(fill(__func__, fill_flat(to, value, bytes), NULL, false));
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream)
{
    API(SIM_CALL_WORK, cudaErrorUnknown);
    API_RETURN(fill(__func__, fill_flat(to, value, bytes), stream, true));
}

cudaError_t cudaMemset2D(void *to, size_t pitch, int value, size_t width, size_t height)
{
    API(SIM_CALL_WORK, cudaErrorUnknown);
    FillData data = {(uint64_t)(uintptr_t)to, pitch, width, height, value};
    API_RETURN(fill(__func__, data, NULL, false));
}

cudaError_t cudaMemset2DAsync(void *to, size_t pitch, int value, size_t width, size_t height,
                              cudaStream_t stream)
{
    API(SIM_CALL_WORK, cudaErrorUnknown);
    FillData data = {(uint64_t)(uintptr_t)to, pitch, width, height, value};
    API_RETURN(fill(__func__, data, stream, true));
}
