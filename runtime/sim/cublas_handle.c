/* cublas_handle.c - cuBLAS: handles, streams, modes, workspaces, versions. */
#include <stdlib.h>

#include "cublaslt_product.h"

#include <cublas_v2.h>

cublasStatus_t cublasCreate_v2(cublasHandle_t *handle)
{
    BLAS_CALL(SIM_CALL_WORK, sim_blas_create((void **)handle, false, __func__));
}

cublasStatus_t cublasDestroy_v2(cublasHandle_t handle)
{
    BLAS_CALL(SIM_CALL_FREE, sim_blas_destroy(handle, __func__));
}

const char *cublasGetStatusName(cublasStatus_t status)
{
    sim_noticed();
    return sim_blas_status_name(status);
}

/* Short sentences, as people print them. */
const char *cublasGetStatusString(cublasStatus_t status)
{
    sim_noticed();
    switch (status) {
    case CUBLAS_STATUS_SUCCESS:
        return "success";
    case CUBLAS_STATUS_NOT_INITIALIZED:
        return "the library was not initialized";
    case CUBLAS_STATUS_ALLOC_FAILED:
        return "the resource allocation failed";
    case CUBLAS_STATUS_INVALID_VALUE:
        return "an unsupported value or parameter was passed to the function";
    case CUBLAS_STATUS_EXECUTION_FAILED:
        return "the function failed to launch on the GPU";
    case CUBLAS_STATUS_NOT_SUPPORTED:
        return "the functionality requested is not supported";
    default:
        return sim_blas_status_name(status);
    }
}

cublasStatus_t cublasGetVersion_v2(cublasHandle_t handle, int *version)
{
    (void)handle;
    if (!version)
        return CUBLAS_STATUS_INVALID_VALUE;
    *version = CUBLAS_VERSION;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasGetProperty(libraryPropertyType type, int *value)
{
    return cublasLtGetProperty(type, value);
}

size_t cublasGetCudartVersion(void)
{
    return cublasLtGetCudartVersion();
}

/* --------------------------------------------------------------------- settings */

static cublasStatus_t set_stream(cublasHandle_t handle, void *stream, const char *call)
{
    cublasStatus_t why;
    BlasHandle *h = sim_blas_handle_anywhere(handle, call, &why);
    if (!h)
        return why;
    if (stream && !sim_blas_stream(h, stream, call))
        return CUBLAS_STATUS_INVALID_VALUE;
    h->stream = stream;
    h->workspace = h->workspace_bytes = 0; /* a change of stream takes the user's away */
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetStream_v2(cublasHandle_t handle, cudaStream_t stream)
{
    BLAS_CALL(SIM_CALL_WORK, set_stream(handle, stream, __func__));
}

static cublasStatus_t get_stream(cublasHandle_t handle, cudaStream_t *stream, const char *call)
{
    cublasStatus_t why;
    const BlasHandle *h = sim_blas_handle_anywhere(handle, call, &why);
    if (!h)
        return why;
    if (!stream)
        return CUBLAS_STATUS_INVALID_VALUE;
    *stream = h->stream;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasGetStream_v2(cublasHandle_t handle, cudaStream_t *stream)
{
    BLAS_CALL(SIM_CALL_QUERY, get_stream(handle, stream, __func__));
}

static cublasStatus_t set_workspace(cublasHandle_t handle, void *workspace, size_t bytes,
                                    const char *call)
{
    cublasStatus_t why;
    uint64_t address = (uint64_t)(uintptr_t)workspace;
    char text[256];
    BlasHandle *h = sim_blas_handle_anywhere(handle, call, &why);
    if (!h)
        return why;
    if (address % BLAS_ALIGNMENT != 0)
        return CUBLAS_STATUS_INVALID_VALUE;
    int device = sim_device_of(address);
    if (workspace && device != h->device) {
        if (device < 0)
            sim_report(SIM_HOST_POINTER, "%s: the workspace is no device memory", call);
        else
            sim_report(SIM_WRONG_DEVICE, "%s: the handle is of gpu %d, the workspace of gpu %d",
                       call, h->device, device);
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    if (workspace && !sim_memory_inside(device, address, bytes)) {
        sim_report(SIM_OUT_OF_BOUNDS, "%s: a workspace of %zu bytes ends %s", call, bytes,
                   sim_memory_describe(address + bytes - 1, text, sizeof text));
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    h->workspace = address;
    h->workspace_bytes = workspace ? bytes : 0;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t handle, void *workspace, size_t bytes)
{
    BLAS_CALL(SIM_CALL_WORK, set_workspace(handle, workspace, bytes, __func__));
}

/* A setting that is a number of the handle: its getter and setter. */
#define SETTING(Name, suffix, type, field, valid)                                                  \
    static cublasStatus_t set_##field(cublasHandle_t handle, type value, const char *call)         \
    {                                                                                              \
        cublasStatus_t why;                                                                        \
        BlasHandle *h = sim_blas_handle_anywhere(handle, call, &why);                              \
        if (!h)                                                                                    \
            return why;                                                                            \
        if (!(valid))                                                                              \
            return CUBLAS_STATUS_INVALID_VALUE;                                                    \
        h->field = (int)value;                                                                     \
        return CUBLAS_STATUS_SUCCESS;                                                              \
    }                                                                                              \
    cublasStatus_t cublasSet##Name##suffix(cublasHandle_t handle, type value)                      \
    {                                                                                              \
        BLAS_CALL(SIM_CALL_WORK, set_##field(handle, value, __func__));                            \
    }                                                                                              \
    static cublasStatus_t get_##field(cublasHandle_t handle, type *value, const char *call)        \
    {                                                                                              \
        cublasStatus_t why;                                                                        \
        const BlasHandle *h = sim_blas_handle_anywhere(handle, call, &why);                        \
        if (!h)                                                                                    \
            return why;                                                                            \
        if (!value)                                                                                \
            return CUBLAS_STATUS_INVALID_VALUE;                                                    \
        *value = (type)h->field;                                                                   \
        return CUBLAS_STATUS_SUCCESS;                                                              \
    }                                                                                              \
    cublasStatus_t cublasGet##Name##suffix(cublasHandle_t handle, type *value)                     \
    {                                                                                              \
        BLAS_CALL(SIM_CALL_QUERY, get_##field(handle, value, __func__));                           \
    }

SETTING(PointerMode, _v2, cublasPointerMode_t, pointer_mode, (unsigned)value <= 1)
SETTING(AtomicsMode, , cublasAtomicsMode_t, atomics_mode, (unsigned)value <= 1)
SETTING(MathMode, , cublasMath_t, math_mode,
        ((unsigned)value & ~16u) <= 4 || ((unsigned)value & ~16u) == 8)
SETTING(SmCountTarget, , int, sm_count, value >= 0)
