/* status.c - what a status of the CUDA target means, in words.
 *
 * NCCL's texts are written out here: a program for one GPU does not link NCCL.
 */
#include "gpu.h"

static const char *const NCCL_TEXTS[] = {
    "NCCL: no error",
    "NCCL: a CUDA call failed",
    "NCCL: a call of the operating system failed",
    "NCCL: internal error",
    "NCCL: an argument is invalid",
    "NCCL: calls do not match or are used wrongly",
    "NCCL: another GPU's process failed or the network did",
    "NCCL: an operation is still in progress",
};
enum { NCCL_TEXT_COUNT = sizeof NCCL_TEXTS / sizeof NCCL_TEXTS[0] };

const char *gpu_status_text(int status)
{
    const char *text = NULL;
    if (status >= GPU_NCCL)
        text = status - GPU_NCCL < NCCL_TEXT_COUNT ? NCCL_TEXTS[status - GPU_NCCL] : NULL;
    else if (status >= GPU_BLAS)
        text = cublasGetStatusString((cublasStatus_t)(status - GPU_BLAS));
    else if (status >= 0)
        text = cudaGetErrorString((cudaError_t)status);
    return text ? text : "unknown status";
}
