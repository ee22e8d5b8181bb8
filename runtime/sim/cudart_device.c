/* cudart_device.c - devices: their properties, peers, and versions.
 *
 * A simulated device looks like an A100, or like an H100 from compute capability 9.0 on.
 */
#include <stdlib.h>
#include <string.h>

#include "device_limits.h"
#include "event.h"
#include "host.h"

static bool peers[SIM_DEVICES_MAX][SIM_DEVICES_MAX];

const DeviceLimits *device_limits(void)
{
    static const DeviceLimits A100 = {"A100", 108, 167936, 166912, 2048, 32, 41943040, 1410000};
    static const DeviceLimits H100 = {"H100", 132, 233472, 232448, 2048, 32, 52428800, 1980000};
    return sim_config()->major >= 9 ? &H100 : &A100;
}

static bool is_device(int device)
{
    return device >= 0 && device < sim_config()->devices;
}

cudaError_t cudaGetDeviceCount(int *count)
{
    API(SIM_CALL_QUERY, cudaErrorNoDevice);
    if (count)
        *count = sim_config()->devices;
    API_RETURN(count ? cudaSuccess : cudaErrorInvalidValue);
}

cudaError_t cudaSetDevice(int device)
{
    API(SIM_CALL_QUERY, cudaErrorUnknown);
    if (is_device(device))
        host_thread()->device = device;
    API_RETURN(is_device(device) ? cudaSuccess : cudaErrorInvalidDevice);
}

cudaError_t cudaInitDevice(int device, unsigned device_flags, unsigned flags)
{
    API(SIM_CALL_QUERY, cudaErrorUnknown);
    (void)device_flags, (void)flags;
    API_RETURN(is_device(device) ? cudaSuccess : cudaErrorInvalidDevice);
}

cudaError_t cudaGetDevice(int *device)
{
    API(SIM_CALL_QUERY, cudaErrorUnknown);
    if (device)
        *device = sim_current_device();
    API_RETURN(device ? cudaSuccess : cudaErrorInvalidValue);
}

/* Everything of the current device goes. */
cudaError_t cudaDeviceReset(void)
{
    API(SIM_CALL_FREE, cudaErrorUnknown);
    int device = sim_current_device();
    cudaError_t error = wait_for_device(device, __func__);
    if (error == cudaSuccess) {
        streams_of_device_destroy(device);
        events_of_device_destroy(device);
        memory_of_device_release(device);
        for (int i = 0; i < SIM_DEVICES_MAX; i++)
            peers[device][i] = false;
    }
    API_RETURN(error);
}

/* -------------------------------------------------------------------- properties */

static void properties_fill(struct cudaDeviceProp *p, int device)
{
    const DeviceLimits *l = device_limits();
    memset(p, 0, sizeof *p);
    snprintf(p->name, sizeof p->name, "mdl simulated GPU (as %s)", l->name);
    memcpy(p->uuid.bytes, "mdl-simulated-", 14);
    p->uuid.bytes[15] = (char)device;
    p->totalGlobalMem = sim_config()->memory;
    p->sharedMemPerBlock = 49152;
    p->regsPerBlock = 65536;
    p->warpSize = 32;
    p->memPitch = INT32_MAX;
    p->maxThreadsPerBlock = 1024;
    p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024;
    p->maxThreadsDim[2] = 64;
    p->maxGridSize[0] = INT32_MAX;
    p->maxGridSize[1] = p->maxGridSize[2] = 65535;
    p->totalConstMem = 65536;
    p->major = sim_config()->major;
    p->minor = sim_config()->minor;
    p->textureAlignment = 512;
    p->texturePitchAlignment = 32;
    p->multiProcessorCount = l->multiprocessors;
    p->canMapHostMemory = 1;
    p->concurrentKernels = 1;
    p->pciBusID = device + 1;
    p->asyncEngineCount = 3;
    p->unifiedAddressing = 1;
    p->memoryBusWidth = 5120;
    p->l2CacheSize = l->l2_bytes;
    p->maxThreadsPerMultiProcessor = l->threads;
    p->streamPrioritiesSupported = 1;
    p->globalL1CacheSupported = p->localL1CacheSupported = 1;
    p->sharedMemPerMultiprocessor = (size_t)l->shared;
    p->regsPerMultiprocessor = 65536;
    p->sharedMemPerBlockOptin = (size_t)l->shared_optin;
    p->maxBlocksPerMultiProcessor = l->blocks;
    p->reservedSharedMemPerBlock = 1024;
    p->hostRegisterSupported = 1;
    p->canUseHostPointerForRegisteredMem = 1;
    p->memoryPoolsSupported = 1;
    p->deviceNumaId = p->hostNumaId = -1;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *properties, int device)
{
    API(SIM_CALL_QUERY, cudaErrorUnknown);
    if (!properties || !is_device(device))
        API_RETURN(properties ? cudaErrorInvalidDevice : cudaErrorInvalidValue);
    properties_fill(properties, device);
    API_RETURN(cudaSuccess);
}

static bool attribute(const struct cudaDeviceProp *p, enum cudaDeviceAttr which, int *value)
{
    const struct {
        enum cudaDeviceAttr which;
        int value;
    } all[] = {
        {cudaDevAttrMaxThreadsPerBlock, p->maxThreadsPerBlock},
        {cudaDevAttrMaxBlockDimX, p->maxThreadsDim[0]},
        {cudaDevAttrMaxBlockDimY, p->maxThreadsDim[1]},
        {cudaDevAttrMaxBlockDimZ, p->maxThreadsDim[2]},
        {cudaDevAttrMaxGridDimX, p->maxGridSize[0]},
        {cudaDevAttrMaxGridDimY, p->maxGridSize[1]},
        {cudaDevAttrMaxGridDimZ, p->maxGridSize[2]},
        {cudaDevAttrMaxSharedMemoryPerBlock, (int)p->sharedMemPerBlock},
        {cudaDevAttrTotalConstantMemory, (int)p->totalConstMem},
        {cudaDevAttrWarpSize, p->warpSize},
        {cudaDevAttrMaxPitch, (int)p->memPitch},
        {cudaDevAttrMaxRegistersPerBlock, p->regsPerBlock},
        {cudaDevAttrClockRate, device_limits()->clock_khz},
        {cudaDevAttrTextureAlignment, (int)p->textureAlignment},
        {cudaDevAttrGpuOverlap, 1},
        {cudaDevAttrMultiProcessorCount, p->multiProcessorCount},
        {cudaDevAttrKernelExecTimeout, 0},
        {cudaDevAttrIntegrated, 0},
        {cudaDevAttrCanMapHostMemory, 1},
        {cudaDevAttrComputeMode, cudaComputeModeDefault},
        {cudaDevAttrConcurrentKernels, 1},
        {cudaDevAttrEccEnabled, 0},
        {cudaDevAttrPciBusId, p->pciBusID},
        {cudaDevAttrPciDeviceId, 0},
        {cudaDevAttrPciDomainId, 0},
        {cudaDevAttrTccDriver, 0},
        {cudaDevAttrMemoryClockRate, 1215000},
        {cudaDevAttrGlobalMemoryBusWidth, p->memoryBusWidth},
        {cudaDevAttrL2CacheSize, p->l2CacheSize},
        {cudaDevAttrMaxThreadsPerMultiProcessor, p->maxThreadsPerMultiProcessor},
        {cudaDevAttrAsyncEngineCount, p->asyncEngineCount},
        {cudaDevAttrUnifiedAddressing, 1},
        {cudaDevAttrComputeCapabilityMajor, p->major},
        {cudaDevAttrComputeCapabilityMinor, p->minor},
        {cudaDevAttrStreamPrioritiesSupported, 1},
        {cudaDevAttrGlobalL1CacheSupported, 1},
        {cudaDevAttrLocalL1CacheSupported, 1},
        {cudaDevAttrMaxSharedMemoryPerMultiprocessor, (int)p->sharedMemPerMultiprocessor},
        {cudaDevAttrMaxRegistersPerMultiprocessor, p->regsPerMultiprocessor},
        {cudaDevAttrManagedMemory, 0},
        {cudaDevAttrIsMultiGpuBoard, 0},
        {cudaDevAttrHostNativeAtomicSupported, 0},
        {cudaDevAttrSingleToDoublePrecisionPerfRatio, 2},
        {cudaDevAttrPageableMemoryAccess, 0},
        {cudaDevAttrConcurrentManagedAccess, 0},
        {cudaDevAttrComputePreemptionSupported, 0},
        {cudaDevAttrCanUseHostPointerForRegisteredMem, 1},
        {cudaDevAttrCooperativeLaunch, 0},
        {cudaDevAttrMaxSharedMemoryPerBlockOptin, (int)p->sharedMemPerBlockOptin},
        {cudaDevAttrHostRegisterSupported, 1},
        {cudaDevAttrMaxBlocksPerMultiprocessor, p->maxBlocksPerMultiProcessor},
        {cudaDevAttrReservedSharedMemoryPerBlock, (int)p->reservedSharedMemPerBlock},
        {cudaDevAttrMemoryPoolsSupported, 1},
        {cudaDevAttrClusterLaunch, 0},
        {cudaDevAttrIpcEventSupport, 0},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i].which == which) {
            *value = all[i].value;
            return true;
        }
    return false;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr which, int device)
{
    API(SIM_CALL_QUERY, cudaErrorUnknown);
    struct cudaDeviceProp properties;
    if (!is_device(device))
        API_RETURN(cudaErrorInvalidDevice);
    properties_fill(&properties, device);
    if (!value || (int)which < 1 || which >= cudaDevAttrMax)
        API_RETURN(cudaErrorInvalidValue);
    if (!attribute(&properties, which, value)) {
        sim_report(SIM_UNKNOWN, "cudaDeviceGetAttribute: attribute %d", (int)which);
        API_RETURN(cudaErrorNotSupported);
    }
    API_RETURN(cudaSuccess);
}

cudaError_t cudaDeviceGetPCIBusId(char *id, int length, int device)
{
    API(SIM_CALL_QUERY, cudaErrorUnknown);
    if (!id || length < 13 || !is_device(device))
        API_RETURN(cudaErrorInvalidValue);
    snprintf(id, (size_t)length, "0000:%02X:00.0", device + 1);
    API_RETURN(cudaSuccess);
}

/* ------------------------------------------------------------------------- peers */

bool sim_peer_enabled(int from, int to)
{
    return from == to || peers[from][to];
}

cudaError_t cudaDeviceCanAccessPeer(int *can, int device, int peer)
{
    API(SIM_CALL_QUERY, cudaErrorUnknown);
    if (!can || !is_device(device) || !is_device(peer))
        API_RETURN(can ? cudaErrorInvalidDevice : cudaErrorInvalidValue);
    *can = device != peer;
    API_RETURN(cudaSuccess);
}

cudaError_t cudaDeviceEnablePeerAccess(int peer, unsigned flags)
{
    API(SIM_CALL_WORK, cudaErrorPeerAccessUnsupported);
    int device = sim_current_device();
    if (flags != 0 || !is_device(peer) || peer == device)
        API_RETURN(flags != 0 ? cudaErrorInvalidValue : cudaErrorInvalidDevice);
    if (peers[device][peer])
        API_RETURN(cudaErrorPeerAccessAlreadyEnabled);
    peers[device][peer] = true;
    API_RETURN(cudaSuccess);
}

cudaError_t cudaDeviceDisablePeerAccess(int peer)
{
    API(SIM_CALL_FREE, cudaErrorUnknown);
    int device = sim_current_device();
    if (!is_device(peer) || peer == device || !peers[device][peer])
        API_RETURN(is_device(peer) ? cudaErrorPeerAccessNotEnabled : cudaErrorInvalidDevice);
    cudaError_t error = wait_for_device(device, __func__);
    if (error == cudaSuccess)
        peers[device][peer] = false;
    API_RETURN(error);
}

cudaError_t cudaDeviceGetP2PAttribute(int *value, enum cudaDeviceP2PAttr which, int from, int to)
{
    API(SIM_CALL_QUERY, cudaErrorUnknown);
    if (!value || !is_device(from) || !is_device(to) || from == to)
        API_RETURN(value ? cudaErrorInvalidDevice : cudaErrorInvalidValue);
    *value = which == cudaDevP2PAttrAccessSupported;
    API_RETURN(cudaSuccess);
}

/* -------------------------------------------------------- settings without effect */

cudaError_t cudaDeviceSetLimit(enum cudaLimit limit, size_t value)
{
    API(SIM_CALL_QUERY, cudaErrorUnknown);
    (void)value;
    API_RETURN((unsigned)limit <= cudaLimitPersistingL2CacheSize ? cudaSuccess
                                                                 : cudaErrorUnsupportedLimit);
}

cudaError_t cudaSetDeviceFlags(unsigned flags)
{
    API(SIM_CALL_QUERY, cudaErrorUnknown);
    (void)flags;
    API_RETURN(cudaSuccess);
}

cudaError_t cudaDeviceSetCacheConfig(enum cudaFuncCache config)
{
    API(SIM_CALL_QUERY, cudaErrorUnknown);
    (void)config;
    API_RETURN(cudaSuccess);
}

cudaError_t cudaProfilerStart(void);
cudaError_t cudaProfilerStop(void);
cudaError_t cudaProfilerStart(void)
{
    return cudaSuccess;
}

cudaError_t cudaProfilerStop(void)
{
    return cudaSuccess;
}

struct cudaChannelFormatDesc cudaCreateChannelDesc(int x, int y, int z, int w,
                                                   enum cudaChannelFormatKind kind)
{
    return (struct cudaChannelFormatDesc){x, y, z, w, kind};
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    API(SIM_CALL_QUERY, cudaErrorUnknown);
    if (version)
        *version = CUDART_VERSION;
    API_RETURN(version ? cudaSuccess : cudaErrorInvalidValue);
}

cudaError_t cudaDriverGetVersion(int *version)
{
    API(SIM_CALL_QUERY, cudaErrorUnknown);
    if (version)
        *version = CUDART_VERSION;
    API_RETURN(version ? cudaSuccess : cudaErrorInvalidValue);
}
