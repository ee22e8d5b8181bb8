/* cublaslt_handle.c - handles of cuBLAS and cuBLASLt, and how their calls end.
 *
 * Handles are kept in a list for good, so that one that is used after its end is known as
 * such, and one that never ends is reported at the end of the process.
 */
#include <stdlib.h>
#include <string.h>

#include "cublaslt_product.h"

static BlasHandle *handles;

static void report_leaks(void)
{
    for (const BlasHandle *h = handles; h; h = h->next)
        if (h->alive)
            sim_report(SIM_LEAK, "a %s handle of gpu %d was never destroyed",
                       h->light ? "cuBLASLt" : "cuBLAS", h->device);
}

cublasStatus_t sim_blas_create(void **handle, bool light, const char *call)
{
    (void)call;
    if (!handle)
        return CUBLAS_STATUS_INVALID_VALUE;
    BlasHandle *h = calloc(1, sizeof *h);
    if (!h)
        return CUBLAS_STATUS_ALLOC_FAILED;
    if (!handles)
        sim_at_exit(report_leaks);
    *h = (BlasHandle){
        .alive = true, .light = light, .device = sim_current_device(), .next = handles};
    handles = h;
    *handle = h;
    return CUBLAS_STATUS_SUCCESS;
}

BlasHandle *sim_blas_handle_anywhere(void *handle, const char *call, cublasStatus_t *why)
{
    *why = CUBLAS_STATUS_NOT_INITIALIZED;
    if (!handle)
        return NULL;
    for (BlasHandle *h = handles; h; h = h->next) {
        if (h != handle)
            continue;
        if (h->alive)
            return h;
        sim_report(SIM_MISUSE, "%s: the handle was destroyed", call);
        return NULL;
    }
    sim_report(SIM_MISUSE, "%s: 0x%llx is not a handle", call,
               (unsigned long long)(uintptr_t)handle);
    return NULL;
}

BlasHandle *sim_blas_handle(void *handle, const char *call, cublasStatus_t *why)
{
    BlasHandle *h = sim_blas_handle_anywhere(handle, call, why);
    if (!h || h->device == sim_current_device())
        return h;
    sim_report(SIM_WRONG_DEVICE,
               "%s: the handle was made on gpu %d, the calling thread is on gpu %d", call,
               h->device, sim_current_device());
    *why = CUBLAS_STATUS_EXECUTION_FAILED;
    return NULL;
}

cublasStatus_t sim_blas_destroy(void *handle, const char *call)
{
    cublasStatus_t why;
    BlasHandle *h = sim_blas_handle_anywhere(handle, call, &why);
    if (!h)
        return why;
    h->alive = false;
    return CUBLAS_STATUS_SUCCESS;
}

const char *sim_blas_status_name(cublasStatus_t status)
{
    switch (status) {
    case CUBLAS_STATUS_SUCCESS:
        return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_NOT_INITIALIZED:
        return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_STATUS_ALLOC_FAILED:
        return "CUBLAS_STATUS_ALLOC_FAILED";
    case CUBLAS_STATUS_INVALID_VALUE:
        return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_ARCH_MISMATCH:
        return "CUBLAS_STATUS_ARCH_MISMATCH";
    case CUBLAS_STATUS_MAPPING_ERROR:
        return "CUBLAS_STATUS_MAPPING_ERROR";
    case CUBLAS_STATUS_EXECUTION_FAILED:
        return "CUBLAS_STATUS_EXECUTION_FAILED";
    case CUBLAS_STATUS_INTERNAL_ERROR:
        return "CUBLAS_STATUS_INTERNAL_ERROR";
    case CUBLAS_STATUS_NOT_SUPPORTED:
        return "CUBLAS_STATUS_NOT_SUPPORTED";
    case CUBLAS_STATUS_LICENSE_ERROR:
        return "CUBLAS_STATUS_LICENSE_ERROR";
    default:
        return "CUBLAS_STATUS_UNKNOWN";
    }
}

cublasStatus_t sim_blas_leave(const char *call, cublasStatus_t status)
{
    sim_leave(call, status == CUBLAS_STATUS_SUCCESS ? NULL : sim_blas_status_name(status));
    return status;
}

bool sim_blas_fail_now(const char *call)
{
    char plain[64];
    size_t length = strlen(call);
    if (length <= 3 || length >= sizeof plain || strcmp(call + length - 3, "_v2") != 0)
        return sim_fail_now(call);
    memcpy(plain, call, length - 3);
    plain[length - 3] = 0;
    return sim_fail_now(call) || sim_fail_now(plain);
}

int sim_blas_unknown(const char *call, void *caller)
{
    sim_enter(call, SIM_CALL_WORK, caller);
    sim_report(SIM_UNKNOWN, "%s is not simulated", call);
    return (int)sim_blas_leave(call, CUBLAS_STATUS_NOT_SUPPORTED);
}

/* ------------------------------------------------------------- exported by cuBLASLt */

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle)
{
    BLAS_CALL(SIM_CALL_WORK, sim_blas_create((void **)handle, true, __func__));
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle)
{
    BLAS_CALL(SIM_CALL_FREE, sim_blas_destroy(handle, __func__));
}

const char *cublasLtGetStatusName(cublasStatus_t status)
{
    sim_noticed();
    return sim_blas_status_name(status);
}

const char *cublasLtGetStatusString(cublasStatus_t status)
{
    sim_noticed();
    return sim_blas_status_name(status);
}

size_t cublasLtGetVersion(void)
{
    return CUBLAS_VERSION;
}

size_t cublasLtGetCudartVersion(void)
{
    return 13000;
}

cublasStatus_t cublasLtGetProperty(libraryPropertyType type, int *value)
{
    static const int parts[] = {CUBLAS_VER_MAJOR, CUBLAS_VER_MINOR, CUBLAS_VER_PATCH};
    if (!value || (int)type < 0 || (int)type > PATCH_LEVEL)
        return CUBLAS_STATUS_INVALID_VALUE;
    *value = parts[type];
    return CUBLAS_STATUS_SUCCESS;
}
