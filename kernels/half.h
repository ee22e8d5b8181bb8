/* half.h - the kernels of mixed precision: tensors of 16-bit numbers, arithmetic in float.
 *
 * In mixed precision what flows between layers as operands and results of matrix products is
 * bf16 or f16; weights have a float master and a rounded copy; sums, norms, softmax and losses
 * are float. Every kernel here reads 16-bit numbers exactly, computes in float in an order that
 * depends on the shapes alone, and rounds each result once, to nearest even. Shapes, layouts
 * and meaning are those of the functions of the same name in kernels.h; `n` and the rest count
 * elements. Tensors that are not said to be half16 are float.
 *
 * bf16 products run on the processor's own bf16 instructions where it has them, which multiply
 * exactly and add in float; elsewhere, and for f16, operands are widened while they are packed.
 *
 * Part of the float library only.
 */
#ifndef MDL_HALF_H
#define MDL_HALF_H

#include "kernels.h"

typedef uint16_t half16;
typedef enum { HALF_BF16, HALF_F16 } HalfKind;

void fill_half(Team *team, HalfKind kind, half16 *y, float value, int64_t n);
/* y = x rounded: what makes the copy of a weight. */
void half_round(Team *team, HalfKind kind, half16 *y, const float *x, int64_t n);

void linear_forward_half(Team *team, HalfKind kind, half16 *y, const half16 *x, const half16 *w,
                         const float *b, int64_t rows, int64_t k, int64_t n, bool transposed,
                         const Tail *tail);
void linear_backward_input_half(Team *team, HalfKind kind, half16 *dx, const half16 *dy,
                                const half16 *w, int64_t rows, int64_t k, int64_t n,
                                bool transposed, const Tail *tail);
void linear_backward_weight_half(Team *team, HalfKind kind, float *dw, const half16 *dy,
                                 const half16 *x, int64_t rows, int64_t k, int64_t n,
                                 bool transposed, bool accumulate);
/* c is half16 unless wide, then float; accumulate only where wide. */
void matmul_half(Team *team, HalfKind kind, void *c, bool wide, const half16 *a, const half16 *b,
                 bool ta, bool tb, int64_t m, int64_t n, int64_t k, const MatmulBatch *batch,
                 bool accumulate);

void attention_forward_half(Team *team, HalfKind kind, half16 *o, float *lse, const half16 *q,
                            const half16 *k, const half16 *v, const Attention *a);
void attention_backward_half(Team *team, HalfKind kind, half16 *dq, half16 *dk, half16 *dv,
                             const half16 *dout, const half16 *q, const half16 *k, const half16 *v,
                             const half16 *o, const float *lse, const Attention *a);
void rope_half(Team *team, HalfKind kind, half16 *y, const half16 *x, int64_t B, int64_t t,
               int64_t heads, int64_t width, double base, bool inverse);

/* The norms read float and give half16; backward, the gradient of the result is half16. */
void layernorm_forward_half(Team *team, HalfKind kind, half16 *y, float *mean, float *rstd,
                            const float *x, const float *w, const float *b, int64_t rows, int64_t n,
                            float eps);
void layernorm_backward_input_half(Team *team, HalfKind kind, float *dx, const half16 *dy,
                                   const float *x, const float *w, const float *mean,
                                   const float *rstd, int64_t rows, int64_t n, const Tail *tail);
void layernorm_backward_weight_half(Team *team, HalfKind kind, float *dw, float *db,
                                    const half16 *dy, const float *x, const float *mean,
                                    const float *rstd, int64_t rows, int64_t n, bool accumulate);
void rmsnorm_forward_half(Team *team, HalfKind kind, half16 *y, float *rstd, const float *x,
                          const float *w, int64_t rows, int64_t n, float eps);
void rmsnorm_backward_input_half(Team *team, HalfKind kind, float *dx, const half16 *dy,
                                 const float *x, const float *w, const float *rstd, int64_t rows,
                                 int64_t n, const Tail *tail);
void rmsnorm_backward_weight_half(Team *team, HalfKind kind, float *dw, const half16 *dy,
                                  const float *x, const float *rstd, int64_t rows, int64_t n,
                                  bool accumulate);

void cross_entropy_forward_half(Team *team, HalfKind kind, float *loss, float *lse,
                                const half16 *logits, const int32_t *y, int64_t samples,
                                int64_t inner, int64_t n);
/* dlogits == logits is allowed. */
void cross_entropy_backward_half(Team *team, HalfKind kind, half16 *dlogits, const half16 *logits,
                                 const float *lse, const int32_t *y, const float *dloss,
                                 int64_t samples, int64_t inner, int64_t n);
void accuracy_forward_half(Team *team, HalfKind kind, float *acc, const half16 *logits,
                           const int32_t *y, int64_t samples, int64_t inner, int64_t n);

void dropout_half(Team *team, HalfKind kind, half16 *y, const half16 *x, double p, uint64_t key,
                  int64_t first, int64_t samples, int64_t n);
/* Sums of half16 into float. */
void reduce_sum_half(Team *team, HalfKind kind, float *y, const half16 *x, int rank,
                     const int64_t *dim, unsigned mask, double scale, bool accumulate);

#endif
