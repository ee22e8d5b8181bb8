/* two_stages_kernels.cu - what two_stages_cuda.c computes besides the kernels of gpu.h. */
#include "two_stages_cuda.h"

__global__ static void scale_kernel(float *y, const float *x, const float *scale, int count, int n)
{
    for (int i = (int)threadIdx.x; i < count; i += (int)blockDim.x)
        y[i] = x[i] * scale[i % n];
}

/* One thread for each column, so the order of additions is that of the rows. */
__global__ static void columns_kernel(float *sum, const float *a, const float *b, int rows, int n)
{
    int j = (int)threadIdx.x;
    if (j >= n)
        return;
    float total = sum[j];
    for (int i = 0; i < rows; i++)
        total += a[i * n + j] * (b ? b[i * n + j] : 1.0f);
    sum[j] = total;
}

__global__ static void loss_kernel(float *loss, float *near, float *dout, const float *out,
                                   const float *y, int n, float batch, bool broken)
{
    for (int i = (int)threadIdx.x; i < n; i += (int)blockDim.x) {
        float wrong = out[i] - y[i];
        loss[i] = broken ? nanf("") : wrong * wrong;
        near[i] = fabsf(wrong) < 0.5f;
        dout[i] = 2.0f * wrong / batch;
    }
}

int two_scale(const Gpu *gpu, float *y, const float *x, const float *scale, int count, int n)
{
    scale_kernel<<<1, 32, 0, gpu->compute>>>(y, x, scale, count, n);
    return (int)cudaGetLastError();
}

int two_columns(const Gpu *gpu, float *sum, const float *a, const float *b, int rows, int n)
{
    columns_kernel<<<1, 32, 0, gpu->compute>>>(sum, a, b, rows, n);
    return (int)cudaGetLastError();
}

int two_loss(const Gpu *gpu, float *loss, float *near, float *dout, const float *out,
             const float *y, int n, float batch, bool broken)
{
    loss_kernel<<<1, 32, 0, gpu->compute>>>(loss, near, dout, out, y, n, batch, broken);
    return (int)cudaGetLastError();
}
