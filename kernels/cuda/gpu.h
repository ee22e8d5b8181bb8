/* gpu.h - what one NVIDIA GPU computes: the kernels of the CUDA target.
 *
 * The same operations as kernels.h, under the same names with gpu_ before them and the same
 * arguments after the first, on device memory. Every function enqueues work on gpu->compute
 * and returns at once; it never synchronises, allocates, or touches another stream. Tensors
 * are float, row-major and contiguous, and begin at multiples of 64 bytes (so vector loads
 * and cuBLAS's choice of algorithm do not depend on where a tensor lies); scalars, shapes and
 * int64_t arrays are host values, read during the call.
 *
 * Status. 0, or what went wrong: a cudaError_t, GPU_BLAS + a cublasStatus_t, or GPU_NCCL + a
 * ncclResult_t. gpu_status_text() says it in words.
 *
 * Determinism. A result depends on the arguments alone: no atomics in sums, tiles by shape
 * alone, partial results combined in tile order. Kernels that need more than registers and
 * shared memory use gpu->scratch and cut their work so that it fits.
 */
#ifndef MDL_GPU_H
#define MDL_GPU_H

#include <cublasLt.h>
#include <cublas_v2.h>
#include <cuda_runtime_api.h>

#include "half.h"
#include "kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { GPU_BLAS = 10000, GPU_NCCL = 20000 };

/* Device memory that the plan counts on every GPU besides the model's own, in bytes: for
 * kernels, and for cuBLAS and cuBLASLt (their workspace; 32 MiB is what NVIDIA advises from
 * Hopper on). */
enum { GPU_SCRATCH = 16 << 20, GPU_BLAS_WORKSPACE = 32 << 20 };

/* A GPU at work. Made by the runtime before training; none of it changes afterwards. */
typedef struct Gpu {
    int device;
    cudaStream_t compute;
    cublasHandle_t blas; /* on `compute`, with `workspace`, host pointer mode */
    cublasLtHandle_t lt;
    char *scratch;   /* [GPU_SCRATCH] */
    char *workspace; /* [GPU_BLAS_WORKSPACE] */
} Gpu;

/* Never NULL. */
const char *gpu_status_text(int status);
/* Whether the program holds code for the current device: a status. */
int gpu_probe(void);

/* ----------------------------------------------------------- matrix products */

/* relu-less; the bias is added by cuBLASLt's epilogue or, where cuBLASLt cannot, is there first */
int gpu_linear_forward(const Gpu *gpu, float *y, const float *x, const float *w, const float *b,
                       int64_t rows, int64_t k, int64_t n, bool transposed);
int gpu_linear_backward_input(const Gpu *gpu, float *dx, const float *dy, const float *w,
                              int64_t rows, int64_t k, int64_t n, bool transposed);
int gpu_linear_backward_weight(const Gpu *gpu, float *dw, const float *dy, const float *x,
                               int64_t rows, int64_t k, int64_t n, bool transposed,
                               bool accumulate);
int gpu_matmul(const Gpu *gpu, float *c, const float *a, const float *b, bool ta, bool tb,
               int64_t m, int64_t n, int64_t k, const MatmulBatch *batch, bool accumulate);

/* ----------------------------------------------------------------- attention */

int gpu_attention_forward(const Gpu *gpu, float *o, float *lse, const float *q, const float *k,
                          const float *v, const Attention *a);
int gpu_attention_backward(const Gpu *gpu, float *dq, float *dk, float *dv, const float *dout,
                           const float *q, const float *k, const float *v, const float *o,
                           const float *lse, const Attention *a);
int gpu_rope(const Gpu *gpu, float *y, const float *x, int64_t B, int64_t t, int64_t heads,
             int64_t width, double base, bool inverse);

/* --------------------------------------------------- convolution and pooling */

int gpu_conv2d_forward(const Gpu *gpu, float *y, const float *x, const float *w, const float *b,
                       const Conv2d *s, bool relu);
int gpu_conv2d_backward_input(const Gpu *gpu, float *dx, const float *dy, const float *w,
                              const Conv2d *s);
int gpu_conv2d_backward_weight(const Gpu *gpu, float *dw, const float *dy, const float *x,
                               const Conv2d *s, bool accumulate);
int gpu_maxpool2d_forward(const Gpu *gpu, float *y, const float *x, const Conv2d *s);
int gpu_maxpool2d_backward(const Gpu *gpu, float *dx, const float *dy, const float *x,
                           const Conv2d *s);
int gpu_avgpool2d_forward(const Gpu *gpu, float *y, const float *x, const Conv2d *s);
int gpu_avgpool2d_backward(const Gpu *gpu, float *dx, const float *dy, const Conv2d *s);

/* ------------------------------------------------------------- normalisation */

int gpu_layernorm_forward(const Gpu *gpu, float *y, float *mean, float *rstd, const float *x,
                          const float *w, const float *b, int64_t rows, int64_t n, float eps);
int gpu_layernorm_backward_input(const Gpu *gpu, float *dx, const float *dy, const float *x,
                                 const float *w, const float *mean, const float *rstd, int64_t rows,
                                 int64_t n);
int gpu_layernorm_backward_weight(const Gpu *gpu, float *dw, float *db, const float *dy,
                                  const float *x, const float *mean, const float *rstd,
                                  int64_t rows, int64_t n, bool accumulate);
int gpu_rmsnorm_forward(const Gpu *gpu, float *y, float *rstd, const float *x, const float *w,
                        int64_t rows, int64_t n, float eps);
int gpu_rmsnorm_backward_input(const Gpu *gpu, float *dx, const float *dy, const float *x,
                               const float *w, const float *rstd, int64_t rows, int64_t n);
int gpu_rmsnorm_backward_weight(const Gpu *gpu, float *dw, const float *dy, const float *x,
                                const float *rstd, int64_t rows, int64_t n, bool accumulate);
int gpu_groupnorm_forward(const Gpu *gpu, float *y, float *mean, float *rstd, const float *x,
                          const float *w, const float *b, int64_t B, int64_t C, int64_t inner,
                          int64_t groups, float eps);
int gpu_groupnorm_backward_input(const Gpu *gpu, float *dx, const float *dy, const float *x,
                                 const float *w, const float *mean, const float *rstd, int64_t B,
                                 int64_t C, int64_t inner, int64_t groups);
int gpu_groupnorm_backward_weight(const Gpu *gpu, float *dw, float *db, const float *dy,
                                  const float *x, const float *mean, const float *rstd, int64_t B,
                                  int64_t C, int64_t inner, int64_t groups, bool accumulate);

/* ----------------------------------------------- tables, softmax, random, loss */

int gpu_embedding_forward(const Gpu *gpu, float *y, const int32_t *ids, const float *w,
                          int64_t rows, int64_t n);
/* The rows are sorted by id on the GPU, in scratch, and each id's rows are summed by one group of
 * threads in row order. */
int gpu_embedding_backward_weight(const Gpu *gpu, float *dw, const float *dy, const int32_t *ids,
                                  int64_t rows, int64_t count, int64_t n, bool accumulate);
int gpu_softmax_forward(const Gpu *gpu, float *y, const float *x, int64_t rows, int64_t n);
int gpu_softmax_backward(const Gpu *gpu, float *dx, const float *dy, const float *y, int64_t rows,
                         int64_t n);
/* Keeps exactly the elements that dropout() of kernels.h keeps. */
int gpu_dropout(const Gpu *gpu, float *y, const float *x, double p, uint64_t key, int64_t first,
                int64_t samples, int64_t n);
int gpu_cross_entropy_forward(const Gpu *gpu, float *loss, float *lse, const float *logits,
                              const int32_t *y, int64_t samples, int64_t inner, int64_t n);
int gpu_cross_entropy_backward(const Gpu *gpu, float *dlogits, const float *logits,
                               const float *lse, const int32_t *y, const float *dloss,
                               int64_t samples, int64_t inner, int64_t n);
int gpu_accuracy_forward(const Gpu *gpu, float *acc, const float *logits, const int32_t *y,
                         int64_t samples, int64_t inner, int64_t n);

/* --------------------------------------------------- reductions and movement */

/* `rank` is at most 9, as in kernels.h */
int gpu_reduce_sum(const Gpu *gpu, float *y, const float *x, int rank, const int64_t *dim,
                   unsigned mask, double scale, bool accumulate);
int gpu_reduce_max(const Gpu *gpu, float *y, const float *x, int rank, const int64_t *dim,
                   unsigned mask);
int gpu_reduce_max_backward(const Gpu *gpu, float *dx, const float *dy, const float *x,
                            const float *y, int rank, const int64_t *dim, unsigned mask);
int gpu_copy_strided(const Gpu *gpu, void *y, const void *x, int rank, const int64_t *dim,
                     const int64_t *ystride, const int64_t *xstride, int size);
int gpu_fill(const Gpu *gpu, float *y, float value, int64_t n);
int gpu_arange_fill(const Gpu *gpu, int32_t *y, int64_t n);
int gpu_accumulate_into(const Gpu *gpu, float *y, const float *x, int64_t n);

/* ------------------------------------------------------------------ optimizers */

/* As kernels.h; the sum of squares of the unscaled gradient, in double and by fixed tiles, goes
 * to *squares (device memory) instead of being returned. */
int gpu_sgd_update(const Gpu *gpu, double *squares, float *w, const float *g, float *velocity,
                   int64_t n, const Hyper *h);
int gpu_adam_update(const Gpu *gpu, double *squares, float *w, const float *g, float *m, float *v,
                    int64_t n, const Hyper *h);
int gpu_adamw_update(const Gpu *gpu, double *squares, float *w, const float *g, float *m, float *v,
                     int64_t n, const Hyper *h);
int gpu_sum_squares(const Gpu *gpu, double *squares, const float *g, int64_t n);

/* A weight of a stage, what its optimizer keeps, and its gradient. m is the velocity of SGD, which
 * may be NULL where momentum is 0; v is Adam's. half, or NULL, gets the updated weight rounded to
 * 16 bits. Its sum of squares goes to squares[square]. */
typedef struct {
    float *w;
    const float *g;
    float *m, *v;
    half16 *half;
    int64_t n;
    int square;
} GpuWeight;

static inline GpuWeight gpu_weight(float *w, const float *g, float *m, float *v, int64_t n,
                                   int square)
{
    const GpuWeight weight = {w, g, m, v, NULL, n, square};
    return weight;
}

/* Of which only a copy is to be made. */
static inline GpuWeight gpu_rounded(float *w, half16 *half, int64_t n)
{
    const GpuWeight weight = {w, NULL, NULL, NULL, half, n, 0};
    return weight;
}

/* The same results for `count` weights, to the bit, in one launch for each 70 of them and one for
 * each 336 that have more than 4096 elements. `weights` is read during the call; of sum_squares
 * only g, n and square. kind: of the 16-bit copies. */
int gpu_sgd_update_all(const Gpu *gpu, double *squares, const GpuWeight *weights, int count,
                       HalfKind kind, const Hyper *h);
int gpu_adam_update_all(const Gpu *gpu, double *squares, const GpuWeight *weights, int count,
                        HalfKind kind, const Hyper *h);
int gpu_adamw_update_all(const Gpu *gpu, double *squares, const GpuWeight *weights, int count,
                         HalfKind kind, const Hyper *h);
int gpu_sum_squares_all(const Gpu *gpu, double *squares, const GpuWeight *weights, int count);
/* half = w rounded, of which only w, half and n are read; a launch for each 70 weights. */
int gpu_half_round_all(const Gpu *gpu, const GpuWeight *weights, int count, HalfKind kind);

#ifdef __cplusplus
}
#endif

#endif
