/* cudart_pool.c - memory pools: every device has its default one, and no others.
 *
 * A pool's settings say when memory goes back to the system, which is nothing here.
 */
#include <string.h>

#include "host.h"

static uint64_t thresholds[SIM_DEVICES_MAX];

static cudaMemPool_t pool_handle(int device)
{
    return handle_make(HANDLE_POOL, (size_t)device);
}

static int pool_device(cudaMemPool_t pool)
{
    size_t device = handle_index(pool, HANDLE_POOL);
    return device < (size_t)sim_config()->devices ? (int)device : -1;
}

static cudaError_t pool_of(cudaMemPool_t *pool, int device)
{
    if (!pool || device < 0 || device >= sim_config()->devices)
        return pool ? cudaErrorInvalidDevice : cudaErrorInvalidValue;
    *pool = pool_handle(device);
    return cudaSuccess;
}

cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t *pool, int device)
{
    API(SIM_CALL_QUERY, cudaErrorUnknown);
    API_RETURN(pool_of(pool, device));
}

cudaError_t cudaDeviceGetMemPool(cudaMemPool_t *pool, int device)
{
    API(SIM_CALL_QUERY, cudaErrorUnknown);
    API_RETURN(pool_of(pool, device));
}

cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t pool, enum cudaMemPoolAttr which, void *value)
{
    API(SIM_CALL_WORK, cudaErrorUnknown);
    int device = pool_device(pool);
    if (device < 0 || !value)
        API_RETURN(cudaErrorInvalidValue);
    if (which == cudaMemPoolAttrReleaseThreshold)
        memcpy(&thresholds[device], value, sizeof thresholds[device]);
    API_RETURN(cudaSuccess);
}

cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t pool, enum cudaMemPoolAttr which, void *value)
{
    API(SIM_CALL_QUERY, cudaErrorUnknown);
    int device = pool_device(pool);
    if (device < 0 || !value)
        API_RETURN(cudaErrorInvalidValue);
    uint64_t used = memory_used(device);
    int yes = 1;
    switch (which) {
    case cudaMemPoolReuseFollowEventDependencies:
    case cudaMemPoolReuseAllowOpportunistic:
    case cudaMemPoolReuseAllowInternalDependencies:
        memcpy(value, &yes, sizeof yes);
        break;
    case cudaMemPoolAttrReleaseThreshold:
        memcpy(value, &thresholds[device], sizeof thresholds[device]);
        break;
    case cudaMemPoolAttrReservedMemCurrent:
    case cudaMemPoolAttrUsedMemCurrent:
        memcpy(value, &used, sizeof used);
        break;
    default:
        sim_report(SIM_UNKNOWN, "%s: attribute %d", __func__, (int)which);
        API_RETURN(cudaErrorNotSupported);
    }
    API_RETURN(cudaSuccess);
}

cudaError_t cudaMemPoolTrimTo(cudaMemPool_t pool, size_t bytes)
{
    API(SIM_CALL_WORK, cudaErrorUnknown);
    (void)bytes;
    API_RETURN(pool_device(pool) < 0 ? cudaErrorInvalidValue : cudaSuccess);
}
