/* cudart_function.c - attributes of kernels, and occupancy.
 *
 * Registers are nvcc's affair and not known here: occupancy counts threads, blocks and shared
 * memory alone.
 */
#include <string.h>

#include "device_limits.h"
#include "functions.h"
#include "module.h"

enum { RESERVED = 1024 };

static cudaError_t function_of(const void *host, Function **out)
{
    *out = function_find(host);
    return *out ? function_load(*out) : cudaErrorInvalidDeviceFunction;
}

cudaError_t cudaFuncSetAttribute(const void *host, enum cudaFuncAttribute which, int value)
{
    API(SIM_CALL_WORK, cudaErrorUnknown);
    Function *f;
    cudaError_t error = function_of(host, &f);
    if (error != cudaSuccess)
        API_RETURN(error);
    int most = device_limits()->shared_optin - (int)sim_kernel_static_shared(f->kernel);
    switch ((int)which) {
    case cudaFuncAttributeMaxDynamicSharedMemorySize:
        if (value < 0 || value > most)
            API_RETURN(cudaErrorInvalidValue);
        f->shared_dynamic = value;
        API_RETURN(cudaSuccess);
    case cudaFuncAttributePreferredSharedMemoryCarveout:
        API_RETURN(value >= -1 && value <= 100 ? cudaSuccess : cudaErrorInvalidValue);
    default:
        sim_report(SIM_UNKNOWN, "cudaFuncSetAttribute: attribute %d", (int)which);
        API_RETURN(cudaErrorNotSupported);
    }
}

cudaError_t cudaFuncSetCacheConfig(const void *host, enum cudaFuncCache config)
{
    API(SIM_CALL_WORK, cudaErrorUnknown);
    (void)config;
    API_RETURN(function_find(host) ? cudaSuccess : cudaErrorInvalidDeviceFunction);
}

static int threads_limit(const Function *f)
{
    uint32_t most = sim_kernel_table(f->kernel)->max_threads;
    return most > 0 && most < 1024 ? (int)most : 1024;
}

cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *out, const void *host)
{
    API(SIM_CALL_QUERY, cudaErrorUnknown);
    Function *f;
    cudaError_t error = function_of(host, &f);
    if (error != cudaSuccess || !out)
        API_RETURN(out ? error : cudaErrorInvalidValue);
    memset(out, 0, sizeof *out);
    out->sharedSizeBytes = sim_kernel_static_shared(f->kernel);
    out->localSizeBytes = sim_kernel_table(f->kernel)->local_bytes;
    out->maxThreadsPerBlock = threads_limit(f);
    out->numRegs = 32;
    out->ptxVersion = out->binaryVersion = sim_config()->major * 10 + sim_config()->minor;
    out->maxDynamicSharedSizeBytes = (int)function_shared_limit(f);
    out->preferredShmemCarveout = -1;
    API_RETURN(cudaSuccess);
}

cudaError_t cudaFuncGetName(const char **name, const void *host)
{
    API(SIM_CALL_QUERY, cudaErrorUnknown);
    const Function *f = function_find(host);
    if (!f || !name)
        API_RETURN(name ? cudaErrorInvalidDeviceFunction : cudaErrorInvalidValue);
    *name = f->name;
    API_RETURN(cudaSuccess);
}

/* ------------------------------------------------------------------------ occupancy */

static int least(int a, int b)
{
    return a < b ? a : b;
}

static cudaError_t occupancy(int *blocks, const void *host, int threads, size_t dynamic)
{
    const DeviceLimits *l = device_limits();
    Function *f;
    cudaError_t error = function_of(host, &f);
    if (error != cudaSuccess || !blocks || threads < 1)
        return error != cudaSuccess ? error : cudaErrorInvalidValue;
    size_t shared = sim_kernel_static_shared(f->kernel) + dynamic;
    int warps = (threads + 31) / 32;
    *blocks = least(l->threads / 32 / warps, l->blocks);
    if (threads > threads_limit(f) || shared > (size_t)l->shared_optin)
        *blocks = 0;
    else
        *blocks = least(*blocks, (int)((size_t)l->shared / (shared + RESERVED)));
    return cudaSuccess;
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, const void *host,
                                                          int threads, size_t dynamic)
{
    API(SIM_CALL_QUERY, cudaErrorUnknown);
    API_RETURN(occupancy(blocks, host, threads, dynamic));
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, const void *host,
                                                                   int threads, size_t dynamic,
                                                                   unsigned flags)
{
    API(SIM_CALL_QUERY, cudaErrorUnknown);
    (void)flags;
    API_RETURN(occupancy(blocks, host, threads, dynamic));
}
