/* norm.cu - layer and RMS normalisation over the last dimension.
 *
 * Forward pass and the input's gradient: rownorm.cuh. Gradients of weight and bias: a block takes
 * some columns and `part` rows, which its rows of threads share; where rows are cut into several
 * parts, the parts' sums go to scratch and are added up in order by a second kernel. How rows are
 * cut depends on the shape alone. In mixed precision the result and its gradient have 16 bits, and
 * 4 of them are loaded or stored with 16 bytes of x.
 */
#include "gpu_half.h"
#include "rownorm.cuh"

enum { BLOCK = 256, WARPS = BLOCK / WARP, ROWS = 16 /* of a thread */, AT_ONCE = 4 };
enum { MOST_PARTS = 512 };

template <class N> static int forward(const Gpu *gpu, N *v)
{
    if (v->rows <= 0 || v->n <= 0)
        return 0;
    return is_vector(v->n, v->out, v->x, v->w, v->b) ? norm_forward<false, 4>(gpu, v)
                                                     : norm_forward<false, 1>(gpu, v);
}

template <class N> static int backward(const Gpu *gpu, N *v)
{
    if (v->rows <= 0 || v->n <= 0)
        return 0;
    return is_vector(v->n, v->out, v->dy, v->x, v->w) ? norm_backward<false, 4>(gpu, v)
                                                      : norm_backward<false, 1>(gpu, v);
}

/* Without a mean: RMS normalisation. */
template <class Out>
static int norm_rows(const Gpu *gpu, Out y, float *mean, float *rstd, const float *x,
                     const float *w, const float *b, int64_t rows, int64_t n, float eps)
{
    NormOf<Out, const float *> v = {};
    v.out = y;
    v.mean_out = mean;
    v.rstd_out = rstd;
    v.x = x;
    v.w = w;
    v.b = b;
    v.rows = rows;
    v.n = n;
    v.eps = eps;
    v.centred = mean != NULL;
    return forward(gpu, &v);
}

extern "C" int gpu_layernorm_forward(const Gpu *gpu, float *y, float *mean, float *rstd,
                                     const float *x, const float *w, const float *b, int64_t rows,
                                     int64_t n, float eps)
{
    return norm_rows(gpu, y, mean, rstd, x, w, b, rows, n, eps);
}

extern "C" int gpu_layernorm_forward_half(const Gpu *gpu, HalfKind kind, half16 *y, float *mean,
                                          float *rstd, const float *x, const float *w,
                                          const float *b, int64_t rows, int64_t n, float eps)
{
    return norm_rows(gpu, Halves{y, kind}, mean, rstd, x, w, b, rows, n, eps);
}

extern "C" int gpu_rmsnorm_forward(const Gpu *gpu, float *y, float *rstd, const float *x,
                                   const float *w, int64_t rows, int64_t n, float eps)
{
    return norm_rows(gpu, y, NULL, rstd, x, w, NULL, rows, n, eps);
}

extern "C" int gpu_rmsnorm_forward_half(const Gpu *gpu, HalfKind kind, half16 *y, float *rstd,
                                        const float *x, const float *w, int64_t rows, int64_t n,
                                        float eps)
{
    return norm_rows(gpu, Halves{y, kind}, NULL, rstd, x, w, NULL, rows, n, eps);
}

template <class Gradient>
static int norm_rows_back(const Gpu *gpu, float *dx, Gradient dy, const float *x, const float *w,
                          const float *mean, const float *rstd, int64_t rows, int64_t n)
{
    NormOf<float *, Gradient> v = {};
    v.out = dx;
    v.dy = dy;
    v.x = x;
    v.w = w;
    v.mean = mean;
    v.rstd = rstd;
    v.rows = rows;
    v.n = n;
    v.centred = mean != NULL;
    return backward(gpu, &v);
}

extern "C" int gpu_layernorm_backward_input(const Gpu *gpu, float *dx, const float *dy,
                                            const float *x, const float *w, const float *mean,
                                            const float *rstd, int64_t rows, int64_t n)
{
    return norm_rows_back(gpu, dx, dy, x, w, mean, rstd, rows, n);
}

extern "C" int gpu_layernorm_backward_input_half(const Gpu *gpu, HalfKind kind, float *dx,
                                                 const half16 *dy, const float *x, const float *w,
                                                 const float *mean, const float *rstd, int64_t rows,
                                                 int64_t n)
{
    return norm_rows_back(gpu, dx, ConstHalves{dy, kind}, x, w, mean, rstd, rows, n);
}

extern "C" int gpu_rmsnorm_backward_input(const Gpu *gpu, float *dx, const float *dy,
                                          const float *x, const float *w, const float *rstd,
                                          int64_t rows, int64_t n)
{
    return norm_rows_back(gpu, dx, dy, x, w, NULL, rstd, rows, n);
}

extern "C" int gpu_rmsnorm_backward_input_half(const Gpu *gpu, HalfKind kind, float *dx,
                                               const half16 *dy, const float *x, const float *w,
                                               const float *rstd, int64_t rows, int64_t n)
{
    return norm_rows_back(gpu, dx, ConstHalves{dy, kind}, x, w, NULL, rstd, rows, n);
}

/* -------------------------------------------------------- gradients of the weights */

template <class Gradient> struct Weights {
    float *dw, *db; /* or, with parts, [parts, n] each in scratch */
    Gradient dy;
    const float *x, *mean, *rstd;
    int64_t rows, n, part; /* rows of a part */
    int width;             /* threads side by side */
    bool accumulate;
};

/* Adds to dw and db what rows first, first + height, ... below `end` give. */
template <int V, class Gradient>
MDL_DEVICE void add_rows(const Weights<Gradient> &v, int64_t column, int64_t first, int64_t end,
                         int height, Floats<V> &dw, Floats<V> &db)
{
    for (int64_t r = first; r < end; r += AT_ONCE * height) {
        Floats<V> dy[AT_ONCE], x[AT_ONCE];
        float mean[AT_ONCE], rstd[AT_ONCE];
#pragma unroll
        for (int u = 0; u < AT_ONCE; u++) {
            const int64_t row = r + u * height;
            dy[u] = x[u] = {};
            mean[u] = rstd[u] = 0;
            if (row < end) {
                dy[u] = load_floats<V>(v.dy + row * v.n + column);
                x[u] = load_floats<V>(v.x + row * v.n + column);
                mean[u] = v.mean ? v.mean[row] : 0;
                rstd[u] = v.rstd[row];
            }
        }
#pragma unroll
        for (int e = 0; e < V; e++) {
            float sum_dw = 0, sum_db = 0; /* of a few rows first: errors grow slowly */
#pragma unroll
            for (int u = 0; u < AT_ONCE; u++) {
                sum_dw += dy[u].at[e] * ((x[u].at[e] - mean[u]) * rstd[u]);
                sum_db += dy[u].at[e];
            }
            dw.at[e] += sum_dw;
            db.at[e] += sum_db;
        }
    }
}

template <int V, class Gradient>
static __global__ void __launch_bounds__(BLOCK) weight_tile(const Weights<Gradient> v)
{
    __shared__ float part_dw[WARPS][WARP * V], part_db[WARPS][WARP * V];
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, width = v.width;
    const int64_t first = blockIdx.y * v.part;
    const int64_t end = first + v.part < v.rows ? first + v.part : v.rows;
    const int64_t column = ((int64_t)blockIdx.x * width + lane % width) * V;
    Floats<V> dw = {}, db = {};
    if (column < v.n)
        add_rows<V>(v, column, first + warp * (WARP / width) + lane / width, end, BLOCK / width, dw,
                    db);
#pragma unroll
    for (int e = 0; e < V; e++) {
        for (int step = WARP / 2; step >= width; step /= 2) {
            dw.at[e] += __shfl_xor_sync(ALL_LANES, dw.at[e], step);
            db.at[e] += __shfl_xor_sync(ALL_LANES, db.at[e], step);
        }
        if (lane < width) {
            part_dw[warp][lane * V + e] = dw.at[e];
            part_db[warp][lane * V + e] = db.at[e];
        }
    }
    __syncthreads();
    const int64_t mine = (int64_t)blockIdx.x * width * V + threadIdx.x;
    if ((int)threadIdx.x >= width * V || mine >= v.n)
        return;
    float sum_dw = 0, sum_db = 0;
#pragma unroll
    for (int w = 0; w < WARPS; w++) {
        sum_dw += part_dw[w][threadIdx.x];
        sum_db += part_db[w][threadIdx.x];
    }
    const int64_t at = blockIdx.y * v.n + mine;
    v.dw[at] = v.accumulate ? v.dw[at] + sum_dw : sum_dw;
    if (v.db)
        v.db[at] = v.accumulate ? v.db[at] + sum_db : sum_db;
}

template <class Gradient>
static int launch_weights(const Gpu *gpu, const Weights<Gradient> *v, bool vector, int64_t parts)
{
    const int64_t cuts = ceil_div(v->n, v->width * (vector ? 4 : 1));
    const auto kernel = vector ? weight_tile<4, Gradient> : weight_tile<1, Gradient>;
    kernel<<<dim3((unsigned)cuts, (unsigned)parts), BLOCK, 0, gpu->compute>>>(*v);
    return launch_status();
}

template <class Gradient>
static int norm_weights(const Gpu *gpu, float *dw, float *db, Gradient dy, const float *x,
                        const float *mean, const float *rstd, int64_t rows, int64_t n,
                        bool accumulate)
{
    if (n <= 0)
        return 0;
    Weights<Gradient> v = {dw, db, dy, x, mean, rstd, rows, n, rows, 1, accumulate};
    const bool vector = is_vector(n, dy, x);
    while (v.width < WARP && v.width * (vector ? 4 : 1) < n)
        v.width *= 2;
    const int64_t least = (int64_t)ROWS * BLOCK / v.width;
    const int64_t fit = int_min(MOST_PARTS, GPU_SCRATCH / (int64_t)sizeof(float) / 2 / n);
    v.part = int_max(1, ceil_div(rows, int_max(1, int_min(fit, ceil_div(rows, least)))));
    const int64_t parts = int_max(1, ceil_div(rows, v.part));
    if (parts == 1)
        return launch_weights(gpu, &v, vector, 1);
    v.dw = reinterpret_cast<float *>(gpu->scratch);
    v.db = db ? v.dw + parts * n : NULL;
    v.accumulate = false;
    const int status = launch_weights(gpu, &v, vector, parts);
    const Columns columns = {dw, db, v.dw, parts, n, accumulate};
    return status != 0 ? status : launch_columns(gpu, &columns);
}

extern "C" int gpu_layernorm_backward_weight(const Gpu *gpu, float *dw, float *db, const float *dy,
                                             const float *x, const float *mean, const float *rstd,
                                             int64_t rows, int64_t n, bool accumulate)
{
    return norm_weights(gpu, dw, db, dy, x, mean, rstd, rows, n, accumulate);
}

extern "C" int gpu_layernorm_backward_weight_half(const Gpu *gpu, HalfKind kind, float *dw,
                                                  float *db, const half16 *dy, const float *x,
                                                  const float *mean, const float *rstd,
                                                  int64_t rows, int64_t n, bool accumulate)
{
    return norm_weights(gpu, dw, db, ConstHalves{dy, kind}, x, mean, rstd, rows, n, accumulate);
}

extern "C" int gpu_rmsnorm_backward_weight(const Gpu *gpu, float *dw, const float *dy,
                                           const float *x, const float *rstd, int64_t rows,
                                           int64_t n, bool accumulate)
{
    return norm_weights(gpu, dw, NULL, dy, x, NULL, rstd, rows, n, accumulate);
}

extern "C" int gpu_rmsnorm_backward_weight_half(const Gpu *gpu, HalfKind kind, float *dw,
                                                const half16 *dy, const float *x, const float *rstd,
                                                int64_t rows, int64_t n, bool accumulate)
{
    return norm_weights(gpu, dw, NULL, ConstHalves{dy, kind}, x, NULL, rstd, rows, n, accumulate);
}
