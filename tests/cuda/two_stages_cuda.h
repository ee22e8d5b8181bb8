/* two_stages_cuda.h - kernels of the model of two stages on GPUs. */
#ifndef TWO_STAGES_CUDA_H
#define TWO_STAGES_CUDA_H

#include "gpu.h"

#ifdef __cplusplus
extern "C" {
#endif

/* y[i] = x[i] * scale[i % n] */
int two_scale(const Gpu *gpu, float *y, const float *x, const float *scale, int count, int n);
/* sum[j] += the sum over rows of a[.][j] * b[.][j]; b NULL: of a alone */
int two_columns(const Gpu *gpu, float *sum, const float *a, const float *b, int rows, int n);
/* The loss (NaN where it is broken), the metric and the loss's derivative. */
int two_loss(const Gpu *gpu, float *loss, float *near, float *dout, const float *out,
             const float *y, int n, float batch, bool broken);

#ifdef __cplusplus
}
#endif

#endif
