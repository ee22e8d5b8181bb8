/* softmax.cu - softmax over the last dimension, and its gradient.
 *
 * A row's largest element is taken off before exp, so nothing overflows. Rows are kept
 * in the registers of one warp or of 8, so that memory is read once and written once; longer ones
 * are scanned first (rows.cuh) and read again. How many warps take a row depends on its length
 * alone.
 */
#include "rows.cuh"

template <int WARPS, int V>
static __global__ void __launch_bounds__(row_threads(WARPS))
    softmax_kept(float *out, const float *in, int64_t rows, int64_t n)
{
    __shared__ float part_most[WARPS], part_sum[WARPS];
    enum { N = kept(V) / V };
    const int64_t row = row_here<WARPS>();
    if (row >= rows)
        return;
    Floats<V> v[N];
    load_row<WARPS>(v, in + row * n, 0, n, -INFINITY);
    float most = -INFINITY, sum = 0;
#pragma unroll
    for (int u = 0; u < N; u++)
#pragma unroll
        for (int e = 0; e < V; e++)
            most = larger(most, v[u].at[e]);
    most = block_max<WARPS>(most, part_most);
#pragma unroll
    for (int u = 0; u < N; u++) {
        if ((u * WARP * WARPS + (int)threadIdx.x) * V >= n)
            break;
#pragma unroll
        for (int e = 0; e < V; e++) {
            v[u].at[e] = mdl_exp(v[u].at[e] - most);
            sum += v[u].at[e];
        }
    }
    const float scale = 1 / block_sum<WARPS>(sum, part_sum);
#pragma unroll
    for (int u = 0; u < N; u++)
#pragma unroll
        for (int e = 0; e < V; e++)
            v[u].at[e] *= scale;
    store_row<WARPS>(out + row * n, v, 0, n);
}

template <int WARPS, int V>
static __global__ void __launch_bounds__(row_threads(WARPS))
    softmax_scanned(float *out, const float *in, int64_t n)
{
    __shared__ float part_most[WARPS], part_sum[WARPS];
    const float *x = in + blockIdx.x * n;
    const Online o = online_row<WARPS, V>(x, n, part_most, part_sum);
    const float scale = 1 / o.sum;
    for (int64_t from = 0; from < n; from += LOADS * V * WARP * WARPS) {
        Floats<V> v[LOADS];
        load_row<WARPS>(v, x, from, n, 0);
#pragma unroll
        for (int u = 0; u < LOADS; u++)
#pragma unroll
            for (int e = 0; e < V; e++)
                v[u].at[e] = mdl_exp(v[u].at[e] - o.most) * scale;
        store_row<WARPS>(out + blockIdx.x * n, v, from, n);
    }
}

/* dx = y (dy - sum(dy y)) */
template <int WARPS, int V>
static __global__ void __launch_bounds__(row_threads(WARPS))
    softmax_back_kept(float *dx, const float *dy, const float *y, int64_t rows, int64_t n)
{
    __shared__ float part[WARPS];
    enum { N = kept(V) / V };
    const int64_t row = row_here<WARPS>();
    if (row >= rows)
        return;
    Floats<V> p[N], d[N];
    load_row<WARPS>(p, y + row * n, 0, n, 0);
    load_row<WARPS>(d, dy + row * n, 0, n, 0);
    float dot = 0;
#pragma unroll
    for (int u = 0; u < N; u++)
#pragma unroll
        for (int e = 0; e < V; e++)
            dot += d[u].at[e] * p[u].at[e];
    dot = block_sum<WARPS>(dot, part);
#pragma unroll
    for (int u = 0; u < N; u++)
#pragma unroll
        for (int e = 0; e < V; e++)
            d[u].at[e] = p[u].at[e] * (d[u].at[e] - dot);
    store_row<WARPS>(dx + row * n, d, 0, n);
}

template <int WARPS, int V>
static __global__ void __launch_bounds__(row_threads(WARPS))
    softmax_back_scanned(float *dx, const float *dy, const float *y, int64_t n)
{
    __shared__ float part[WARPS];
    const int64_t at = blockIdx.x * n, step = LOADS * V * WARP * WARPS;
    float dot = 0;
    for (int64_t from = 0; from < n; from += step) {
        Floats<V> p[LOADS], d[LOADS];
        load_row<WARPS>(p, y + at, from, n, 0);
        load_row<WARPS>(d, dy + at, from, n, 0);
        float sum = 0;
#pragma unroll
        for (int u = 0; u < LOADS; u++)
#pragma unroll
            for (int e = 0; e < V; e++)
                sum += d[u].at[e] * p[u].at[e];
        dot += sum;
    }
    dot = block_sum<WARPS>(dot, part);
    for (int64_t from = 0; from < n; from += step) {
        Floats<V> p[LOADS], d[LOADS];
        load_row<WARPS>(p, y + at, from, n, 0);
        load_row<WARPS>(d, dy + at, from, n, 0);
#pragma unroll
        for (int u = 0; u < LOADS; u++)
#pragma unroll
            for (int e = 0; e < V; e++)
                d[u].at[e] = p[u].at[e] * (d[u].at[e] - dot);
        store_row<WARPS>(dx + at, d, from, n);
    }
}

template <int V>
static int softmax(const Gpu *gpu, float *y, const float *x, int64_t rows, int64_t n)
{
    if (n <= WARP * kept(V))
        softmax_kept<1, V><<<row_blocks<1>(rows), row_block<1>(), 0, gpu->compute>>>(y, x, rows, n);
    else if (n <= 8 * WARP * kept(V))
        softmax_kept<8, V><<<row_blocks<8>(rows), row_block<8>(), 0, gpu->compute>>>(y, x, rows, n);
    else
        softmax_scanned<32, V><<<row_blocks<32>(rows), row_block<32>(), 0, gpu->compute>>>(y, x, n);
    return launch_status();
}

extern "C" int gpu_softmax_forward(const Gpu *gpu, float *y, const float *x, int64_t rows,
                                   int64_t n)
{
    if (rows <= 0 || n <= 0)
        return 0;
    return is_vector(n, y, x) ? softmax<4>(gpu, y, x, rows, n) : softmax<1>(gpu, y, x, rows, n);
}

template <int V>
static int softmax_back(const Gpu *gpu, float *dx, const float *dy, const float *y, int64_t rows,
                        int64_t n)
{
    if (n <= WARP * kept(V))
        softmax_back_kept<1, V>
            <<<row_blocks<1>(rows), row_block<1>(), 0, gpu->compute>>>(dx, dy, y, rows, n);
    else if (n <= 8 * WARP * kept(V))
        softmax_back_kept<8, V>
            <<<row_blocks<8>(rows), row_block<8>(), 0, gpu->compute>>>(dx, dy, y, rows, n);
    else
        softmax_back_scanned<32, V>
            <<<row_blocks<32>(rows), row_block<32>(), 0, gpu->compute>>>(dx, dy, y, n);
    return launch_status();
}

extern "C" int gpu_softmax_backward(const Gpu *gpu, float *dx, const float *dy, const float *y,
                                    int64_t rows, int64_t n)
{
    if (rows <= 0 || n <= 0)
        return 0;
    return is_vector(n, dx, dy, y) ? softmax_back<4>(gpu, dx, dy, y, rows, n)
                                   : softmax_back<1>(gpu, dx, dy, y, rows, n);
}
