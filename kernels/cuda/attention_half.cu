/* attention_half.cu - scaled dot-product attention, forward, of 16-bit numbers.
 *
 * As attention.cu, with products by tensor cores: a warp has 16 queries, in registers with their
 * scores, weights and sums; keys and values take turns in two panels in shared memory. Weights
 * are rounded before they are multiplied with values; their sum is of what they were before.
 *
 * Queries wider than 128 have no room in registers: they come with the keys, 64 columns of both at
 * a time, and o is computed in slices of 128 columns, each of which computes the scores anew.
 */
#include "attention_mma.cuh"

/* Blocks of a multiprocessor that there are registers for. */
static constexpr int blocks_for(int d)
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900 /* where the same takes fewer */
    return d <= 64 ? 4 : 3;
#else
    return d <= 64 ? 4 : 2;
#endif
}

typedef struct {
    AttentionShape a;
    half16 *o;
    float *lse;
    const half16 *q, *k, *v;
} Forward;

/* The largest score, times scale_log2, and a lane's share of the sum of weights, of its rows. */
typedef struct {
    float most[2], sum[2];
} Softmax;

/* Turns the scores of a tile into weights; fading: what earlier sums are to be multiplied with. */
template <int N>
MDL_DEVICE void weigh(const AttentionShape &a, Softmax *x, float (&fading)[2], float (&s)[N / 8][4],
                      int64_t query, int64_t key)
{
    const Seen seen = seen_here(a, query, key);
    const bool edge = !is_whole(seen, N);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float most = -INFINITY, sum = 0;
#pragma unroll
        for (int n = 0; n < N / 8; n++)
#pragma unroll
            for (int e = 0; e < 2; e++) {
                float &score = s[n][2 * half + e];
                if (edge && !is_seen(seen, mma_row(half), mma_column(n) + e))
                    score = -INFINITY;
                most = fmaxf(most, score);
            }
        most = fmaxf(x->most[half], warp_reduce<Largest>(most, 4) * a.scale_log2);
#pragma unroll
        for (int n = 0; n < N / 8; n++)
#pragma unroll
            for (int e = 0; e < 2; e++) {
                float &score = s[n][2 * half + e];
                score = exp2f(fmaf(score, a.scale_log2, -most));
                sum += score;
            }
        fading[half] = exp2f(x->most[half] - most);
        x->sum[half] = x->sum[half] * fading[half] + sum;
        x->most[half] = most;
    }
}

template <int D> MDL_DEVICE void fade(float (&o)[D / 8][4], const float (&fading)[2])
{
#pragma unroll
    for (int n = 0; n < D / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            o[n][e] *= fading[e / 2];
}

template <HalfKind KIND, int D>
MDL_DEVICE void finish(const Forward &v, const Softmax &x, const float (&o)[D / 8][4])
{
    const AttentionShape &a = v.a;
    const AttentionJob job = attention_job(a, a.heads, a.t, a.causal);
    const int rows = tile_rows(a.t, job.position);
    const int64_t at = job.sample * a.t + job.position;
    float scale[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const float sum = warp_reduce<Sum>(x.sum[half], 4);
        if (threadIdx.x % 4 == 0 && mma_row(half) < rows && job.slice == 0)
            v.lse[job.head * a.t + job.position + mma_row(half)] =
                (x.most[half] + log2f(sum)) * LN_2;
        scale[half] = 1 / sum;
    }
    store_halves<KIND, D>(v.o + at * a.ldo + job.of_sample * a.width + job.slice * D, a.ldo, o,
                          scale, rows, a.width - job.slice * D, a.vector);
}

template <HalfKind KIND, int D>
static __global__ void __launch_bounds__(MMA_THREADS, blocks_for(D))
    attention_half_tiles(const Forward v)
{
    __shared__ alignas(16) half16 panels[2][TILE * pitch_of(D)];
    const AttentionShape &a = v.a;
    const AttentionJob job = attention_job(a, a.heads, a.t, a.causal);
    const int64_t kv_head = job.of_sample / a.group, query = job.position;
    const half16 *const q = v.q + (job.sample * a.t + query) * a.ldq + job.of_sample * a.width;
    const half16 *const k = v.k + job.sample * a.s * a.ldk + kv_head * a.width;
    const half16 *const values = v.v + job.sample * a.s * a.ldv + kv_head * a.width;
    const int rows = tile_rows(a.t, query), tiles = tiles_seen(a, query, TILE);

    const auto fetch = [&](int tile, int step, half16 *to) {
        const int64_t key = (int64_t)tile * TILE, ld = step == 0 ? a.ldk : a.ldv;
        copy_halves<TILE, D>(to, (step == 0 ? k : values) + key * ld, ld, tile_rows(a.s, key),
                             a.width, a.vector);
    };
    copy_halves<TILE, D>(panels[1], q, a.ldq, rows, a.width, a.vector);
    Panels<half16, TILE * pitch_of(D), decltype(fetch)> walk(panels, fetch, 2, tiles);
    await_copies();
    __syncthreads();
    uint32_t mine[D / DEPTH][4];
    load_rows<D>(mine, panels[1]);

    float o[D / 8][4] = {}, fading[2];
    Softmax x = {{-INFINITY, -INFINITY}, {0, 0}};
    for (int tile = 0; tile < tiles; tile++) {
        float s[TILE / 8][4] = {};
        dot_rows<KIND, D, TILE>(s, mine, walk.next());
        weigh<TILE>(a, &x, fading, s, query, (int64_t)tile * TILE);
        fade<D>(o, fading);
        add_rows<KIND, D, TILE>(o, s, walk.next());
    }
    finish<KIND, D>(v, x, o);
}

/* Any width; a slice of o is WIDE columns, its chunks of q and k are CHUNK columns. */
template <HalfKind KIND>
static __global__ void __launch_bounds__(MMA_THREADS) attention_half_wide(const Forward v)
{
    __shared__ alignas(16) half16 panels[2][CHUNK_PANEL];
    const AttentionShape &a = v.a;
    const AttentionJob job = attention_job(a, a.heads, a.t, a.causal);
    const int64_t kv_head = job.of_sample / a.group, query = job.position;
    const half16 *const q = v.q + (job.sample * a.t + query) * a.ldq + job.of_sample * a.width;
    const half16 *const k = v.k + job.sample * a.s * a.ldk + kv_head * a.width;
    const half16 *const values =
        v.v + job.sample * a.s * a.ldv + kv_head * a.width + job.slice * WIDE;
    const int rows = tile_rows(a.t, query), chunks = (a.width + CHUNK - 1) / CHUNK;
    const int columns = a.width - job.slice * WIDE;
    const int tiles = tiles_seen(a, query, STEP);

    const auto fetch = [&](int tile, int step, half16 *to) {
        const int64_t key = (int64_t)tile * STEP;
        const int keys = tile_rows(a.s, key), column = step * CHUNK;
        if (step == chunks)
            copy_halves<STEP, WIDE>(to, values + key * a.ldv, a.ldv, keys, columns, a.vector);
        else
            copy_chunks(to, {q + column, a.ldq}, rows, {k + key * a.ldk + column, a.ldk}, keys,
                        a.width - column, a.vector);
    };
    Panels<half16, CHUNK_PANEL, decltype(fetch)> walk(panels, fetch, chunks + 1, tiles);
    float o[WIDE / 8][4] = {}, fading[2];
    Softmax x = {{-INFINITY, -INFINITY}, {0, 0}};
    for (int tile = 0; tile < tiles; tile++) {
        float s[STEP / 8][4] = {};
#pragma unroll 1
        for (int chunk = 0; chunk < chunks; chunk++)
            dot_chunks<KIND>(s, walk.next());
        weigh<STEP>(a, &x, fading, s, query, (int64_t)tile * STEP);
        fade<WIDE>(o, fading);
        add_rows<KIND, WIDE, STEP>(o, s, walk.next());
    }
    finish<KIND, WIDE>(v, x, o);
}

template <HalfKind KIND> static int forward_of(const Gpu *gpu, Forward f, const Attention *a)
{
    const auto kernel = a->width <= 32    ? attention_half_tiles<KIND, 32>
                        : a->width <= 64  ? attention_half_tiles<KIND, 64>
                        : a->width <= 128 ? attention_half_tiles<KIND, 128>
                                          : attention_half_wide<KIND>;
    f.a.slices = (int)ceil_div(a->width, WIDE);
    return over_jobs(f.a, a->B * a->heads, a->t, [&](const AttentionShape &shape, unsigned blocks) {
        f.a = shape;
        kernel<<<blocks, MMA_THREADS, 0, gpu->compute>>>(f);
    });
}

extern "C" int gpu_attention_forward_half(const Gpu *gpu, HalfKind kind, half16 *o, float *lse,
                                          const half16 *q, const half16 *k, const half16 *v,
                                          const Attention *a)
{
    if (attention_is_empty(a))
        return 0;
    if (!attention_fits(a))
        return (int)cudaErrorInvalidValue;
    const Forward f = {attention_shape(a, attention_is_vector(a, 8, o, q, k, v)), o, lse, q, k, v};
    return kind == HALF_BF16 ? forward_of<HALF_BF16>(gpu, f, a) : forward_of<HALF_F16>(gpu, f, a);
}
