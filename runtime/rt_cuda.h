/* rt_cuda.h - what generated code for NVIDIA GPUs sees: rt.h with streams.
 *
 * Every call of CUDA, cuBLAS, NCCL and the kernels stands in one of the macros below: what
 * fails is reported with the device, the stage, the step and the place of the call, and the
 * function returns. They need the stage as `s` in scope.
 */
#ifndef MDL_RT_CUDA_H
#define MDL_RT_CUDA_H

#ifndef MDL_CUDA
#define MDL_CUDA 1
#endif
#include "rt.h"

/* Reports; `call` is the text of the call, status as gpu.h numbers it. Returns MDL_FAILED. */
int gpu_failed(Stage *s, int status, const char *call, const char *file, int line);

#define GPU_TRY_(status, call)                                                                     \
    do {                                                                                           \
        int gpu_status_ = (int)(status);                                                           \
        if (gpu_status_ != 0)                                                                      \
            return gpu_failed(s, gpu_status_, call, __FILE__, __LINE__);                           \
    } while (0)

#define CUDA(call) GPU_TRY_(call, #call)
#define KERNEL(call) GPU_TRY_(call, #call)
#define NCCL(call)                                                                                 \
    do {                                                                                           \
        int nccl_status_ = (int)(call);                                                            \
        if (nccl_status_ != 0)                                                                     \
            return gpu_failed(s, GPU_NCCL + nccl_status_, #call, __FILE__, __LINE__);              \
    } while (0)

/* The communicator of all stages. Functions return a status of gpu.h. */
typedef struct MdlNccl {
    int (*identify)(void *id); /* makes the identity of a communicator, MDL_NCCL_ID bytes */
    /* Makes this rank's end on the current device; returns when all ranks have called. */
    int (*connect)(struct ncclComm **comm, int ranks, int rank, const void *id);
    /* Sends a number along each link of this rank; `place` is device memory, MDL_NCCL_GREETING
     * bytes for each link, with zeros. *call: which of NCCL's calls failed. */
    int (*greet)(struct ncclComm *comm, const MdlLink *links, int nlinks, int rank, char *place,
                 cudaStream_t stream, const char **call);
    int (*failed)(struct ncclComm *comm); /* what has gone wrong meanwhile; 0: nothing */
    /* Ends it. abort: also what is under way, which no other rank may ever answer. */
    int (*close)(struct ncclComm *comm, bool abort);
} MdlNccl;
enum { MDL_NCCL_ID = 128, MDL_NCCL_GREETING = 64 };

/* For MdlModel.nccl. Links NCCL, so only trainers that name it do. */
extern const MdlNccl mdl_nccl;

#endif
