/* cudart_memory.c - allocating and freeing, and what a pointer is. */
#include <string.h>

#include "host.h"

enum { PITCH = 512 };

static cudaError_t allocate(void **out, size_t size)
{
    uint64_t address = 0;
    cudaError_t error = capture_forbids();
    if (!out)
        return cudaErrorInvalidValue;
    if (error == cudaSuccess && size > 0)
        error = memory_allocate(sim_current_device(), size, host_thread()->caller, &address);
    if (error == cudaSuccess)
        *out = (void *)(uintptr_t)address;
    return error;
}

cudaError_t cudaMalloc(void **out, size_t size)
{
    API(SIM_CALL_WORK, cudaErrorMemoryAllocation);
    API_RETURN(allocate(out, size));
}

cudaError_t cudaMallocPitch(void **out, size_t *pitch, size_t width, size_t height)
{
    API(SIM_CALL_WORK, cudaErrorMemoryAllocation);
    size_t row = (width + PITCH - 1) / PITCH * PITCH;
    if (row < width || (height > 0 && row > SIZE_MAX / height))
        API_RETURN(cudaErrorInvalidValue);
    *pitch = row;
    API_RETURN(allocate(out, row * height));
}

/* Freeing waits for the device, as a GPU's runtime does. */
cudaError_t cudaFree(void *pointer)
{
    API(SIM_CALL_FREE, cudaErrorUnknown);
    uint64_t address = (uint64_t)(uintptr_t)pointer;
    if (!pointer)
        API_RETURN(cudaSuccess);
    cudaError_t error = capture_forbids();
    if (error == cudaSuccess && sim_device_of(address) >= 0)
        error = wait_for_device(sim_device_of(address), __func__);
    API_RETURN(error == cudaSuccess ? memory_release(address, __func__) : error);
}

/* ------------------------------------------------------------- in a stream's order */

cudaError_t cudaMallocAsync(void **out, size_t size, cudaStream_t stream)
{
    API(SIM_CALL_WORK, cudaErrorMemoryAllocation);
    SimStream *s = stream_of_handle(stream, __func__);
    uint64_t address = 0;
    if (!s || !out)
        API_RETURN(cudaErrorInvalidValue);
    if (capture_active(s)) {
        sim_report(SIM_UNKNOWN, "cudaMallocAsync in a captured stream");
        API_RETURN(cudaErrorNotSupported);
    }
    cudaError_t error = cudaSuccess;
    if (size > 0)
        error = memory_allocate(s->device, size, host_thread()->caller, &address);
    if (error == cudaSuccess && size > 0) {
        SimOp *op = sim_op_new(SIM_OP_RUN, 0, "cudaMallocAsync");
        sim_enqueue(s, op);
        memory_given_by(address, op);
        history_note(op); /* uses that come before it name it */
    }
    if (error == cudaSuccess)
        *out = (void *)(uintptr_t)address;
    API_RETURN(error);
}

/* To the shadow, freeing is a write: uses that nothing orders before it are races. */
static void free_run(SimOp *op)
{
    uint64_t address = *(uint64_t *)op->data;
    const SimBlockOfMemory *b = sim_memory_find(address);
    if (b && !b->freed && b->address == address && sim_config()->race)
        sim_shadow_range(op, b->device, address, b->size, SIM_WRITE, "the freed memory");
    memory_release(address, op->name);
}

cudaError_t cudaFreeAsync(void *pointer, cudaStream_t stream)
{
    API(SIM_CALL_FREE, cudaErrorUnknown);
    SimStream *s = stream_of_handle(stream, __func__);
    if (!s)
        API_RETURN(cudaErrorInvalidResourceHandle);
    if (!pointer)
        API_RETURN(cudaSuccess);
    if (capture_active(s)) {
        sim_report(SIM_UNKNOWN, "cudaFreeAsync in a captured stream");
        API_RETURN(cudaErrorNotSupported);
    }
    SimOp *op = sim_op_new(SIM_OP_RUN, sizeof(uint64_t), "cudaFreeAsync");
    *(uint64_t *)op->data = (uint64_t)(uintptr_t)pointer;
    op->run = free_run;
    sim_enqueue(s, op);
    API_RETURN(cudaSuccess);
}

/* ------------------------------------------------------------------ pinned memory */

static cudaError_t pin(void **out, size_t size, unsigned flags)
{
    cudaError_t error = capture_forbids();
    if (!out)
        return cudaErrorInvalidValue;
    if (size == 0)
        *out = NULL;
    if (error == cudaSuccess && size > 0)
        error = pinned_allocate(size, flags, host_thread()->caller, out);
    return error;
}

cudaError_t cudaMallocHost(void **out, size_t size)
{
    API(SIM_CALL_WORK, cudaErrorMemoryAllocation);
    API_RETURN(pin(out, size, cudaHostAllocDefault));
}

cudaError_t cudaHostAlloc(void **out, size_t size, unsigned flags)
{
    API(SIM_CALL_WORK, cudaErrorMemoryAllocation);
    if (flags &
        ~(unsigned)(cudaHostAllocPortable | cudaHostAllocMapped | cudaHostAllocWriteCombined))
        API_RETURN(cudaErrorInvalidValue);
    API_RETURN(pin(out, size, flags));
}

cudaError_t cudaFreeHost(void *pointer)
{
    API(SIM_CALL_FREE, cudaErrorUnknown);
    if (!pointer)
        API_RETURN(cudaSuccess);
    cudaError_t error = capture_forbids();
    if (error == cudaSuccess)
        error = wait_for_device(-1, __func__);
    API_RETURN(error == cudaSuccess ? pinned_release(pointer, false, __func__) : error);
}

cudaError_t cudaHostRegister(void *pointer, size_t size, unsigned flags)
{
    API(SIM_CALL_WORK, cudaErrorMemoryAllocation);
    if (!pointer || size == 0 || sim_device_of((uint64_t)(uintptr_t)pointer) >= 0)
        API_RETURN(cudaErrorInvalidValue);
    API_RETURN(pinned_register(pointer, size, flags, host_thread()->caller));
}

cudaError_t cudaHostUnregister(void *pointer)
{
    API(SIM_CALL_FREE, cudaErrorUnknown);
    cudaError_t error = wait_for_device(-1, __func__);
    API_RETURN(error == cudaSuccess ? pinned_release(pointer, true, __func__) : error);
}

cudaError_t cudaHostGetDevicePointer(void **out, void *host, unsigned flags)
{
    API(SIM_CALL_WORK, cudaErrorUnknown);
    if (flags != 0 || !out || !pinned_find((uint64_t)(uintptr_t)host, 1))
        API_RETURN(cudaErrorInvalidValue);
    *out = host;
    API_RETURN(cudaSuccess);
}

cudaError_t cudaHostGetFlags(unsigned *flags, void *host)
{
    API(SIM_CALL_WORK, cudaErrorUnknown);
    API_RETURN(flags && pinned_flags((uint64_t)(uintptr_t)host, flags) ? cudaSuccess
                                                                       : cudaErrorInvalidValue);
}

/* ----------------------------------------------------------------------- questions */

cudaError_t cudaMemGetInfo(size_t *available, size_t *total)
{
    API(SIM_CALL_QUERY, cudaErrorUnknown);
    if (!available || !total)
        API_RETURN(cudaErrorInvalidValue);
    *total = sim_config()->memory;
    *available = *total - memory_used(sim_current_device());
    API_RETURN(cudaSuccess);
}

cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *out, const void *pointer)
{
    API(SIM_CALL_QUERY, cudaErrorUnknown);
    uint64_t address = (uint64_t)(uintptr_t)pointer;
    int device = sim_device_of(address);
    if (!out)
        API_RETURN(cudaErrorInvalidValue);
    memset(out, 0, sizeof *out);
    out->type = cudaMemoryTypeUnregistered;
    out->device = cudaInvalidDeviceId;
    if (device >= 0 && sim_memory_inside(device, address, 1)) {
        out->type = cudaMemoryTypeDevice;
        out->device = device;
        out->devicePointer = (void *)(uintptr_t)address;
    } else if (device < 0 && pinned_find(address, 1)) {
        out->type = cudaMemoryTypeHost;
        out->device = sim_current_device();
        out->devicePointer = out->hostPointer = (void *)(uintptr_t)address;
    } else if (device < 0) {
        out->hostPointer = (void *)(uintptr_t)address;
    }
    API_RETURN(cudaSuccess);
}
