/* cost_gpu.h - what the calls of a plan make a GPU do in one step: how many kernels it is given,
 * which matrix products, how many bytes of its memory pass.
 *
 * The numbers are those of kernels/cuda/ as its launchers choose by shape; the runs that
 * tests/cuda/counts.sh makes under the simulated GPU hold the two together. */
#ifndef MDLC_COST_GPU_H
#define MDLC_COST_GPU_H

#include "program.h"

/* Who computes a product: cuBLAS, cuBLASLt (with the bias), a kernel of ours (convolutions). */
typedef enum { GEMM_CUBLAS, GEMM_CUBLASLT, GEMM_KERNEL } GemmBy;

/* C[m,n] (+)= A[m,k] B[k,n], `batch` of them in a call. */
typedef struct {
    OpKind op;
    GemmBy by;
    int64_t m, n, k, batch;
    int64_t calls; /* of one step */
} GpuGemm;
typedef VEC(GpuGemm) GpuGemms;

/* Of one step. Bytes are those of device memory, and a double holds them exactly up to 8 PiB.
 *
 *   moved  every pass of a kernel over a tensor reads or writes it once: what it takes again
 *          from registers, shared memory and caches is not counted; scratch is
 *   least  every call reads each tensor that it needs once and writes each result once */
typedef struct {
    int64_t kernels;  /* launches of ours */
    int64_t products; /* calls of cuBLAS and cuBLASLt, which launch what they choose */
    int64_t copies;   /* samples to the device, losses and norms from it, tensors within it */
    double moved, least;
    GpuGemms gemms; /* in the order in which they first come */
} GpuWork;

/* All micro-batches of a device and its update. */
GpuWork cost_gpu_device(Arena *a, const Program *p, int device);
/* One call; `first`: of the first micro-batch, which gradients are written by, not added to. */
GpuWork cost_gpu_call(Arena *a, const Program *p, const Device *d, const Call *call, bool first);

/* Whole bytes; the largest number where they are more. */
int64_t cost_gpu_bytes(double bytes);
void cost_gpu_add(Arena *a, GpuWork *to, const GpuWork *from);
/* One multiply-add counts two. */
double cost_gpu_gemm_flops(const GpuGemm *g);
const char *cost_gpu_gemm_by(GemmBy by); /* "cuBLASLt" */

#endif
