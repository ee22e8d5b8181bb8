/* gpu_half.h - what one NVIDIA GPU computes in mixed precision.
 *
 * The operations of half.h under the same names with gpu_ before them, on device memory, for a
 * Gpu instead of a Team and without tails. Statuses, streams, alignment and determinism are as
 * gpu.h says; what is read and rounded, and how often, is as half.h says. Rounding is that of the
 * host, but that every NaN becomes the same one.
 */
#ifndef MDL_GPU_HALF_H
#define MDL_GPU_HALF_H

#include "gpu.h"
#include "half.h"

#ifdef __cplusplus
extern "C" {
#endif

int gpu_fill_half(const Gpu *gpu, HalfKind kind, half16 *y, float value, int64_t n);
int gpu_half_round(const Gpu *gpu, HalfKind kind, half16 *y, const float *x, int64_t n);

/* ----------------------------------------------------------- matrix products */

/* Where there is a bias, a kernel rounds it before it is added: cuBLASLt adds to 16-bit results
 * a bias of 16 bits and no other. */
int gpu_linear_forward_half(const Gpu *gpu, HalfKind kind, half16 *y, const half16 *x,
                            const half16 *w, const float *b, int64_t rows, int64_t k, int64_t n,
                            bool transposed);
int gpu_linear_backward_input_half(const Gpu *gpu, HalfKind kind, half16 *dx, const half16 *dy,
                                   const half16 *w, int64_t rows, int64_t k, int64_t n,
                                   bool transposed);
int gpu_linear_backward_weight_half(const Gpu *gpu, HalfKind kind, float *dw, const half16 *dy,
                                    const half16 *x, int64_t rows, int64_t k, int64_t n,
                                    bool transposed, bool accumulate);
/* Sums of several products into 16-bit results are added up in scratch. */
int gpu_matmul_half(const Gpu *gpu, HalfKind kind, void *c, bool wide, const half16 *a,
                    const half16 *b, bool ta, bool tb, int64_t m, int64_t n, int64_t k,
                    const MatmulBatch *batch, bool accumulate);

/* ----------------------------------------------------------------- attention */

/* Products by tensor cores, sums and softmax in float; weights and the gradients of scores are
 * rounded on their way into products. */
int gpu_attention_forward_half(const Gpu *gpu, HalfKind kind, half16 *o, float *lse,
                               const half16 *q, const half16 *k, const half16 *v,
                               const Attention *a);
int gpu_attention_backward_half(const Gpu *gpu, HalfKind kind, half16 *dq, half16 *dk, half16 *dv,
                                const half16 *dout, const half16 *q, const half16 *k,
                                const half16 *v, const half16 *o, const float *lse,
                                const Attention *a);
int gpu_rope_half(const Gpu *gpu, HalfKind kind, half16 *y, const half16 *x, int64_t B, int64_t t,
                  int64_t heads, int64_t width, double base, bool inverse);

/* ------------------------------------------------------------- normalisation */

int gpu_layernorm_forward_half(const Gpu *gpu, HalfKind kind, half16 *y, float *mean, float *rstd,
                               const float *x, const float *w, const float *b, int64_t rows,
                               int64_t n, float eps);
int gpu_layernorm_backward_input_half(const Gpu *gpu, HalfKind kind, float *dx, const half16 *dy,
                                      const float *x, const float *w, const float *mean,
                                      const float *rstd, int64_t rows, int64_t n);
int gpu_layernorm_backward_weight_half(const Gpu *gpu, HalfKind kind, float *dw, float *db,
                                       const half16 *dy, const float *x, const float *mean,
                                       const float *rstd, int64_t rows, int64_t n, bool accumulate);
int gpu_rmsnorm_forward_half(const Gpu *gpu, HalfKind kind, half16 *y, float *rstd, const float *x,
                             const float *w, int64_t rows, int64_t n, float eps);
int gpu_rmsnorm_backward_input_half(const Gpu *gpu, HalfKind kind, float *dx, const half16 *dy,
                                    const float *x, const float *w, const float *rstd, int64_t rows,
                                    int64_t n);
int gpu_rmsnorm_backward_weight_half(const Gpu *gpu, HalfKind kind, float *dw, const half16 *dy,
                                     const float *x, const float *rstd, int64_t rows, int64_t n,
                                     bool accumulate);

/* -------------------------------------------------- losses, random, reductions */

int gpu_cross_entropy_forward_half(const Gpu *gpu, HalfKind kind, float *loss, float *lse,
                                   const half16 *logits, const int32_t *y, int64_t samples,
                                   int64_t inner, int64_t n);
int gpu_cross_entropy_backward_half(const Gpu *gpu, HalfKind kind, half16 *dlogits,
                                    const half16 *logits, const float *lse, const int32_t *y,
                                    const float *dloss, int64_t samples, int64_t inner, int64_t n);
int gpu_accuracy_forward_half(const Gpu *gpu, HalfKind kind, float *acc, const half16 *logits,
                              const int32_t *y, int64_t samples, int64_t inner, int64_t n);
int gpu_dropout_half(const Gpu *gpu, HalfKind kind, half16 *y, const half16 *x, double p,
                     uint64_t key, int64_t first, int64_t samples, int64_t n);
int gpu_reduce_sum_half(const Gpu *gpu, HalfKind kind, float *y, const half16 *x, int rank,
                        const int64_t *dim, unsigned mask, double scale, bool accumulate);

#ifdef __cplusplus
}
#endif

#endif
