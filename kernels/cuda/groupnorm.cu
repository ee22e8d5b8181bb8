/* groupnorm.cu - normalisation over groups of channels of x[B, C, inner].
 *
 * The channels of a group are contiguous, so a group of a sample is one row of C / groups x
 * inner elements: rownorm.cuh, with a weight per channel. Gradients of weight and bias: a warp or
 * a block sums each channel of each sample into scratch; a second kernel adds up the samples in
 * order. Channels are cut into as many launches as scratch asks for.
 */
#include "rownorm.cuh"

enum { WARP_TAKES = 1024 /* elements of a channel */, AT_ONCE = 4 };
enum { FLOATS = (int)(GPU_SCRATCH / sizeof(float)) };

static void set_shape(Norm *v, int64_t B, int64_t C, int64_t inner, int64_t groups)
{
    v->groups = (int)groups;
    v->per = (int)(C / groups);
    v->inner = divider_new(inner);
    v->rows = B * groups;
    v->n = v->per * inner;
    v->centred = true;
}

extern "C" int gpu_groupnorm_forward(const Gpu *gpu, float *y, float *mean, float *rstd,
                                     const float *x, const float *w, const float *b, int64_t B,
                                     int64_t C, int64_t inner, int64_t groups, float eps)
{
    if (B <= 0 || C <= 0 || inner <= 0)
        return 0;
    Norm v = {};
    v.out = y;
    v.mean_out = mean;
    v.rstd_out = rstd;
    v.x = x;
    v.w = w;
    v.b = b;
    v.eps = eps;
    set_shape(&v, B, C, inner, groups);
    if (v.n > INDEX_MOST)
        return (int)cudaErrorInvalidValue;
    return is_vector(inner, y, x) ? norm_forward<true, 4>(gpu, &v) : norm_forward<true, 1>(gpu, &v);
}

extern "C" int gpu_groupnorm_backward_input(const Gpu *gpu, float *dx, const float *dy,
                                            const float *x, const float *w, const float *mean,
                                            const float *rstd, int64_t B, int64_t C, int64_t inner,
                                            int64_t groups)
{
    if (B <= 0 || C <= 0 || inner <= 0)
        return 0;
    Norm v = {};
    v.out = dx;
    v.dy = dy;
    v.x = x;
    v.w = w;
    v.mean = mean;
    v.rstd = rstd;
    set_shape(&v, B, C, inner, groups);
    if (v.n > INDEX_MOST)
        return (int)cudaErrorInvalidValue;
    return is_vector(inner, dx, dy, x) ? norm_backward<true, 4>(gpu, &v)
                                       : norm_backward<true, 1>(gpu, &v);
}

typedef struct {
    float *dw, *db; /* [B, channels] each, in scratch */
    const float *dy, *x, *mean, *rstd;
    int64_t C, inner, first, channels, rows; /* rows: B x channels */
    int groups, per;
} Channels;

/* A row: channel first + row % channels of sample row / channels. */
template <int WARPS, int V>
static __global__ void __launch_bounds__(row_threads(WARPS)) sum_channels(const Channels v)
{
    __shared__ float part[WARPS][2];
    const int64_t row = row_here<WARPS>();
    if (row >= v.rows)
        return;
    const int64_t sample = row / v.channels, channel = v.first + row - sample * v.channels;
    const int64_t group = sample * v.groups + channel / v.per;
    const int64_t at = (sample * v.C + channel) * v.inner;
    const float mean = v.mean[group];
    float dw = 0, db = 0;
    for (int64_t from = 0; from < v.inner; from += AT_ONCE * V * WARP * WARPS) {
        Floats<V> dy[AT_ONCE], x[AT_ONCE];
        load_row<WARPS>(dy, v.dy + at, from, v.inner, 0);
        load_row<WARPS>(x, v.x + at, from, v.inner, 0);
        float sum_dw = 0, sum_db = 0; /* of a few elements first: errors grow slowly */
#pragma unroll
        for (int u = 0; u < AT_ONCE; u++)
#pragma unroll
            for (int e = 0; e < V; e++) {
                sum_dw += dy[u].at[e] * (x[u].at[e] - mean);
                sum_db += dy[u].at[e];
            }
        dw += sum_dw;
        db += sum_db;
    }
    block_sums<WARPS>(&dw, &db, part);
    if (threadIdx.x == 0) {
        v.dw[row] = dw * v.rstd[group];
        v.db[row] = db;
    }
}

template <int V> static int launch_channels(const Gpu *gpu, const Channels *v)
{
    if (v->inner <= WARP_TAKES)
        sum_channels<1, V><<<row_blocks<1>(v->rows), row_block<1>(), 0, gpu->compute>>>(*v);
    else
        sum_channels<8, V><<<row_blocks<8>(v->rows), row_block<8>(), 0, gpu->compute>>>(*v);
    return launch_status();
}

extern "C" int gpu_groupnorm_backward_weight(const Gpu *gpu, float *dw, float *db, const float *dy,
                                             const float *x, const float *mean, const float *rstd,
                                             int64_t B, int64_t C, int64_t inner, int64_t groups,
                                             bool accumulate)
{
    if (C <= 0)
        return 0;
    const int64_t most = FLOATS / 2 / int_max(1, B);
    if (most == 0)
        return (int)cudaErrorInvalidValue; /* more than 2^21 samples */
    Channels v = {};
    v.dw = reinterpret_cast<float *>(gpu->scratch);
    v.dy = dy;
    v.x = x;
    v.mean = mean;
    v.rstd = rstd;
    v.C = C;
    v.inner = inner;
    v.groups = (int)groups;
    v.per = (int)(C / groups);
    for (v.first = 0; v.first < C; v.first += most) {
        v.channels = int_min(most, C - v.first);
        v.rows = B * v.channels;
        v.db = v.dw + v.rows;
        int status = 0;
        if (v.rows > 0)
            status =
                is_vector(inner, dy, x) ? launch_channels<4>(gpu, &v) : launch_channels<1>(gpu, &v);
        const Columns columns = {dw + v.first, db ? db + v.first : NULL, v.dw, B, v.channels,
                                 accumulate};
        if (status == 0)
            status = launch_columns(gpu, &columns);
        if (status != 0)
            return status;
    }
    return 0;
}
