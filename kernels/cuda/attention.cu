/* attention.cu - scaled dot-product attention, forward, in float.
 *
 * In: q, k, v. Out: o, and lse, the logarithm of the sum of exponentials of a query's scores.
 * FlashAttention-2 (Dao 2023): a block has a tile of queries and walks over the tiles of keys that
 * they see; of a query it keeps the largest score so far, the sum of the weights relative to that,
 * and the weighted sum of values. A larger score scales both sums down. Scores, weights and sums
 * are in registers, a tile's weights also in shared memory, to meet the values there. Heads wider
 * than 256 have their scores computed once for each slice of 256 columns of o.
 */
#include "attention_tile.cuh"

/* A thread's rows of a tile. */
static __host__ __device__ constexpr int rows_for(int d)
{
    return d == 256 ? 4 : 8;
}

static __host__ __device__ constexpr int blocks_for(int d)
{
    return d <= 64 ? 3 : d == 128 ? 2 : 1;
}

typedef struct {
    AttentionShape a;
    float *o, *lse;
    const float *q, *k, *v;
} Forward;

/* The largest score, and the sum of weights, of a thread's rows so far. The sum is the thread's
 * own share, `most` is multiplied with scale_log2. */
template <int ROWS> struct Softmax {
    float most[ROWS], sum[ROWS];
};

/* Turns the scores of a tile into weights; fading: what earlier sums are to be multiplied with. */
template <int ROWS>
MDL_DEVICE void weigh(const AttentionShape &a, Softmax<ROWS> *x, float (&fading)[ROWS],
                      float (&s)[ROWS][COLUMNS], int64_t query, int64_t key)
{
    const Seen seen = seen_here(a, query, key);
    const bool edge = !is_whole(seen, TILE);
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        float most = -INFINITY, sum = 0;
#pragma unroll
        for (int j = 0; j < COLUMNS; j++) {
            if (edge && !is_seen(seen, row_of<ROWS>(i), column_of(j)))
                s[i][j] = -INFINITY;
            most = fmaxf(most, s[i][j]);
        }
        most = fmaxf(x->most[i], warp_reduce<Largest>(most, ROW_THREADS) * a.scale_log2);
#pragma unroll
        for (int j = 0; j < COLUMNS; j++) {
            s[i][j] = exp2f(fmaf(s[i][j], a.scale_log2, -most));
            sum += s[i][j];
        }
        fading[i] = exp2f(x->most[i] - most);
        x->sum[i] = x->sum[i] * fading[i] + sum;
        x->most[i] = most;
    }
}

template <int D>
static __global__ void __launch_bounds__(tile_threads(rows_for(D)), blocks_for(D))
    attention_tiles(const Forward v)
{
    enum { ROWS = rows_for(D), THREADS = tile_threads(ROWS) };
    __shared__ float panels[2][2 * PANEL], weights[TILE][WEIGHT_PITCH];
    const AttentionShape &a = v.a;
    const AttentionJob job = attention_job(a, a.heads, a.t, a.causal);
    const int64_t kv_head = job.of_sample / a.group, query = job.position;
    const float *const q = v.q + ((job.sample * a.t + query) * a.ldq + job.of_sample * a.width);
    const float *const k = v.k + (job.sample * a.s * a.ldk + kv_head * a.width);
    const float *const values =
        v.v + (job.sample * a.s * a.ldv + kv_head * a.width + job.slice * D);
    const int rows = tile_rows(a.t, query), columns = a.width - job.slice * D;
    const int depth = (a.width + PANEL_COLUMNS - 1) / PANEL_COLUMNS;

    const auto fetch = [&](int tile, int step, float *to) {
        const int64_t key = (int64_t)tile * TILE;
        const int keys = tile_rows(a.s, key), from = (step - depth) * panel_rows(D);
        const int column = step * PANEL_COLUMNS;
        if (from >= 0) {
            copy_rows<THREADS, panel_rows(D), D>(to, D, values + (key + from) * a.ldv, a.ldv,
                                                 keys - from, columns, a.vector);
            return;
        }
        copy_rows<THREADS, TILE, PANEL_COLUMNS>(to, PITCH, q + column, a.ldq, rows,
                                                a.width - column, a.vector);
        copy_rows<THREADS, TILE, PANEL_COLUMNS>(to + PANEL, PITCH, k + (key * a.ldk + column),
                                                a.ldk, keys, a.width - column, a.vector);
    };
    const int tiles = tiles_seen(a, query, TILE);
    Panels<float, 2 * PANEL, decltype(fetch)> walk(panels, fetch, depth + TILE / panel_rows(D),
                                                   tiles);
    float o[ROWS][D / ROW_THREADS] = {}, fading[ROWS];
    Softmax<ROWS> x;
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        x.most[i] = -INFINITY;
        x.sum[i] = 0;
    }
    for (int tile = 0; tile < tiles; tile++) {
        float s[ROWS][COLUMNS] = {};
#pragma unroll 1
        for (int step = 0; step < depth; step++)
            dot_panel(s, walk.next());
        weigh(a, &x, fading, s, query, (int64_t)tile * TILE);
#pragma unroll
        for (int i = 0; i < ROWS; i++) {
#pragma unroll
            for (int j = 0; j < COLUMNS; j++)
                weights[row_of<ROWS>(i)][column_of(j)] = s[i][j];
#pragma unroll
            for (int j = 0; j < D / ROW_THREADS; j++)
                o[i][j] *= fading[i];
        }
#pragma unroll 1
        for (int from = 0; from < TILE;
             from += panel_rows(D)) /* its barrier is the weights', too */
            add_weighted<D>(o, &weights[0][from], walk.next());
    }
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        const float sum = warp_reduce<Sum>(x.sum[i], ROW_THREADS);
        if (threadIdx.x % ROW_THREADS == 0 && row_of<ROWS>(i) < rows && job.slice == 0)
            v.lse[job.head * a.t + query + row_of<ROWS>(i)] = (x.most[i] + log2f(sum)) * LN_2;
        fading[i] = 1 / sum;
    }
    store_rows<D>(
        v.o + ((job.sample * a.t + query) * a.ldo + job.of_sample * a.width + job.slice * D), a.ldo,
        o, fading, rows, columns, a.vector);
}

template <int D> static int forward(const Gpu *gpu, Forward f, const Attention *a)
{
    return over_jobs(f.a, a->B * a->heads, a->t, [&](const AttentionShape &shape, unsigned blocks) {
        f.a = shape;
        attention_tiles<D><<<blocks, tile_threads(rows_for(D)), 0, gpu->compute>>>(f);
    });
}

extern "C" int gpu_attention_forward(const Gpu *gpu, float *o, float *lse, const float *q,
                                     const float *k, const float *v, const Attention *a)
{
    if (attention_is_empty(a))
        return 0;
    if (!attention_fits(a))
        return (int)cudaErrorInvalidValue;
    const Forward f = {attention_shape(a, attention_is_vector(a, 4, o, q, k, v)), o, lse, q, k, v};
    return a->width <= 32    ? forward<32>(gpu, f, a)
           : a->width <= 64  ? forward<64>(gpu, f, a)
           : a->width <= 128 ? forward<128>(gpu, f, a)
                             : forward<256>(gpu, f, a);
}
