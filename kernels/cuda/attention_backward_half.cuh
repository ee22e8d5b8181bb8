/* attention_backward_half.cuh - gradients of scaled dot-product attention, of 16-bit numbers.
 *
 * As attention_backward.cu, with products by tensor cores (attention_mma.cuh): a warp has 16 keys
 * with their values, or 16 queries with their rows of dout, in registers; of the other sequence 32
 * positions at a time lie in shared memory, both tensors of it, and each is used twice. Weights and
 * ds are rounded before they are multiplied; sums are float. Heads wider than 64 have dk and dv
 * computed one after the other, for want of registers.
 *
 * Of heads wider than 128 both operands come 64 columns at a time, and results are computed in
 * slices of 128 columns, each of which computes weights and ds anew.
 */
#ifndef MDL_ATTENTION_BACKWARD_HALF_CUH
#define MDL_ATTENTION_BACKWARD_HALF_CUH

#include "attention_back.cuh"
#include "attention_mma.cuh"

/* What is computed of a tile: of keys, dk (from ds), dv (from the weights), or both; of queries,
 * dq. */
enum { OF_DS = 1, OF_WEIGHTS = 2, BOTH = 3 };

/* Blocks of a multiprocessor that there are registers for. */
static constexpr int blocks_for(int d, int what)
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000 /* where the same takes some more */
    const bool two = d == 64 && what == BOTH;
#else
    const bool two = false;
    (void)what;
#endif
    return d <= 64 && !two ? 3 : 2;
}

/* What is known of a query: what makes powers of 2 of its scores its weights, and its delta. */
typedef struct {
    float shift, delta;
} Query;

/* Two panels of STEP rows, and, where they are queries, what is known of each. */
template <int D> struct Panel {
    enum { ROWS = STEP * pitch_of(D), QUERIES = 2 * ROWS };
    enum { SIZE = QUERIES + STEP * (int)(sizeof(Query) / sizeof(half16)) };
};

/* ------------------------------------------------------------------ what is walked */

/* A block's tile, of keys or of queries, and the other sequence, STEP positions at a time: the
 * queries of each head of the group, the first of which may see none of the keys; or the keys that
 * the queries see. */
template <bool KEYS> struct Sides {
    AttentionJob job;
    Rows own[2], other[2]; /* position 0: k, v and q, dout, or the other way round */
    int64_t head, at;      /* the queries' head, the first one; where its dout and o are */
    int rows, skipped, each, steps;

    __device__ __forceinline__ Sides(const BackwardHalf &v)
    {
        const AttentionShape &a = v.a;
        job = KEYS ? attention_job(a, a.kv_heads, a.s, false)
                   : attention_job(a, a.heads, a.t, a.causal);
        head = KEYS ? job.head * a.group : job.head;
        const int64_t kv_head = KEYS ? job.head : job.head / a.group;
        at = head_at(a, head, a.heads, a.t, a.ldo);
        const Rows q = {v.q.at + head_at(a, head, a.heads, a.t, a.ldq), a.ldq};
        const Rows k = {v.k.at + head_at(a, kv_head, a.kv_heads, a.s, a.ldk), a.ldk};
        const Rows values = {v.v.at + head_at(a, kv_head, a.kv_heads, a.s, a.ldv), a.ldv};
        const Rows dout = {v.dout.at + at, a.ldo};
        own[0] = KEYS ? k : q;
        own[1] = KEYS ? values : dout;
        other[0] = KEYS ? q : k;
        other[1] = KEYS ? dout : values;
        rows = tile_rows(KEYS ? a.s : a.t, job.position);
        const int all = KEYS ? (int)((a.t + STEP - 1) / STEP) : tiles_seen(a, job.position, STEP);
        skipped = KEYS && a.causal ? min((int)(job.position / STEP), all) : 0;
        each = all - skipped;
        steps = KEYS ? each * (int)a.group : each;
    }

    /* The head of the group that a step is of, and its first position. */
    __device__ __forceinline__ int head_of(int step) const
    {
        return KEYS ? step / each : 0;
    }
    __device__ __forceinline__ int64_t first_of(int step) const
    {
        return (int64_t)(skipped + (KEYS ? step % each : step)) * STEP;
    }
    __device__ __forceinline__ Rows own_rows(bool second) const
    {
        const Rows from = second ? own[1] : own[0]; /* no index: it would take memory */
        return {from.at + job.position * from.ld, from.ld};
    }
    __device__ __forceinline__ Rows other_rows(bool second, int step, int width) const
    {
        const Rows from = second ? other[1] : other[0];
        const int64_t at_head = (int64_t)head_of(step) * width;
        return {from.at + first_of(step) * from.ld + at_head, from.ld};
    }
    __device__ __forceinline__ int other_count(const AttentionShape &a, int step) const
    {
        return tile_rows(KEYS ? a.t : a.s, first_of(step));
    }
    /* What of a step's scores counts. */
    __device__ __forceinline__ Seen seen(const AttentionShape &a, int step) const
    {
        const int64_t first = first_of(step);
        return seen_here(a, KEYS ? first : job.position, KEYS ? job.position : first);
    }
};

/* What is known of a query, `of` heads after the block's first one. */
template <bool KEYS>
MDL_DEVICE Query query_here(const BackwardHalf &v, const Sides<KEYS> &sides, int of, int64_t query)
{
    if (query >= v.a.t)
        return {0, 0};
    return {v.lse[(sides.head + of) * v.a.t + query] * LOG2_E,
            delta_here(v, sides.head + of, query, sides.at + (int64_t)of * v.a.width)};
}

/* Of a lane's two rows, where they are queries. */
template <bool KEYS>
MDL_DEVICE void queries_here(Query (&of_row)[2], const BackwardHalf &v, const Sides<KEYS> &sides)
{
#pragma unroll
    for (int half = 0; half < 2; half++)
        of_row[half] =
            KEYS ? Query{0, 0} : query_here(v, sides, 0, sides.job.position + mma_row(half));
}

/* Scores into weights; shift(row, column) is that of the query. */
template <bool KEYS, class Shift>
MDL_DEVICE void weigh(const AttentionShape &a, float (&w)[STEP / 8][4], const Seen &seen,
                      const Shift &shift)
{
    const bool edge = !is_whole(seen, KEYS ? TILE : STEP);
#pragma unroll
    for (int n = 0; n < STEP / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const int row = mma_row(e / 2), column = mma_column(n) + e % 2;
            w[n][e] = exp2f(fmaf(w[n][e], a.scale_log2, -shift(e / 2, column)));
            if (edge && !is_seen(seen, KEYS ? column : row, KEYS ? row : column))
                w[n][e] = 0;
        }
}

/* dout.v of a step into ds. */
template <class Delta>
MDL_DEVICE void weigh_gradients(float (&ds)[STEP / 8][4], const float (&w)[STEP / 8][4],
                                const Delta &delta)
{
#pragma unroll
    for (int n = 0; n < STEP / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            ds[n][e] = w[n][e] * (ds[n][e] - delta(e / 2, mma_column(n) + e % 2));
}

/* Columns from ... on of dk and dv, or of dq. */
template <HalfKind KIND, int D, bool KEYS, int WHAT>
MDL_DEVICE void store_gradients(const BackwardHalf &v, int from, const float (&of_ds)[D / 8][4],
                                const float (&of_weights)[D / 8][4])
{
    const AttentionShape &a = v.a;
    const Sides<KEYS> sides(v);
    const float one[2] = {1, 1}, scale[2] = {a.scale, a.scale};
    const Rows first = sides.own_rows(false), second = sides.own_rows(true);
    half16 *const of_first = KEYS ? v.dk.at + (first.at - v.k.at) : v.dq.at + (first.at - v.q.at);
    if (WHAT & OF_DS)
        store_halves<KIND, D>(of_first + from, first.ld, of_ds, scale, sides.rows, a.width - from,
                              a.vector);
    if (WHAT & OF_WEIGHTS)
        store_halves<KIND, D>(v.dv.at + (second.at - v.v.at) + from, second.ld, of_weights, one,
                              sides.rows, a.width - from, a.vector);
}

/* --------------------------------------------------------------- heads up to D wide */

template <HalfKind KIND, int D, bool KEYS, int WHAT>
static __global__ void __launch_bounds__(MMA_THREADS, blocks_for(D, WHAT))
    attention_half_back(const BackwardHalf v)
{
    enum { SIZE = Panel<D>::SIZE };
    __shared__ alignas(16) half16 panels[2][SIZE];
    const AttentionShape &a = v.a;
    const Sides<KEYS> sides(v);
    const auto fetch = [&](int step, int, half16 *to) {
        const int count = sides.other_count(a, step);
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const Rows from = sides.other_rows(i, step, a.width);
            copy_halves<STEP, D>(to + i * Panel<D>::ROWS, from.at, from.ld, count, a.width,
                                 a.vector);
        }
        if (!KEYS || threadIdx.x >= STEP)
            return;
        Query *const known = reinterpret_cast<Query *>(to + Panel<D>::QUERIES);
        known[threadIdx.x] =
            query_here(v, sides, sides.head_of(step), sides.first_of(step) + threadIdx.x);
    };

    uint32_t mine[D / DEPTH][4], mine_too[D / DEPTH][4];
#pragma unroll
    for (int i = 0; i < (WHAT & OF_DS ? 2 : 1); i++) {
        const Rows from = sides.own_rows(i);
        copy_halves<TILE, D>(panels[i], from.at, from.ld, sides.rows, a.width, a.vector);
    }
    await_copies();
    __syncthreads();
    load_rows<D>(mine, panels[0]);
    if (WHAT & OF_DS)
        load_rows<D>(mine_too, panels[1]);
    __syncthreads();

    float of_ds[D / 8][4] = {}, of_weights[D / 8][4] = {};
    Query of_row[2];
    queries_here(of_row, v, sides);
    Panels<half16, SIZE, decltype(fetch)> walk(panels, fetch, 1, sides.steps);
    for (int step = 0; step < sides.steps; step++) {
        const half16 *const first = walk.next(), *const second = first + Panel<D>::ROWS;
        const Query *const known = reinterpret_cast<const Query *>(first + Panel<D>::QUERIES);
        float w[STEP / 8][4] = {};
        dot_rows<KIND, D, STEP>(w, mine, first);
        weigh<KEYS>(a, w, sides.seen(a, step), [&](int half, int column) {
            return KEYS ? known[column].shift : of_row[half].shift;
        });
        if (WHAT & OF_WEIGHTS)
            add_rows<KIND, D, STEP>(of_weights, w, second);
        if constexpr ((WHAT & OF_DS) != 0) {
            float ds[STEP / 8][4] = {};
            dot_rows<KIND, D, STEP>(ds, mine_too, second);
            weigh_gradients(ds, w, [&](int half, int column) {
                return KEYS ? known[column].delta : of_row[half].delta;
            });
            add_rows<KIND, D, STEP>(of_ds, ds, first);
        }
    }
    store_gradients<KIND, D, KEYS, WHAT>(v, 0, of_ds, of_weights);
}

/* ------------------------------------------------------------------------ any width */

template <HalfKind KIND, bool KEYS>
static __global__ void __launch_bounds__(MMA_THREADS, 2)
    attention_half_back_wide(const BackwardHalf v)
{
    enum { WHAT = KEYS ? BOTH : OF_DS };
    __shared__ alignas(16) half16 panels[2][CHUNK_PANEL];
    const AttentionShape &a = v.a;
    const Sides<KEYS> sides(v);
    const int slice = sides.job.slice * WIDE, chunks = (a.width + CHUNK - 1) / CHUNK;
    /* chunks of q k, chunks of dout v, rows of dout (for dv), rows of q or k */
    const auto fetch = [&](int step, int part, half16 *to) {
        const int count = sides.other_count(a, step);
        if (part < 2 * chunks) {
            const bool second = part >= chunks;
            const int column = (second ? part - chunks : part) * CHUNK;
            const Rows own = sides.own_rows(second);
            const Rows other = sides.other_rows(second, step, a.width);
            copy_chunks(to, {own.at + column, own.ld}, sides.rows, {other.at + column, other.ld},
                        count, a.width - column, a.vector);
            return;
        }
        const Rows from = sides.other_rows(KEYS && part == 2 * chunks, step, a.width);
        copy_halves<STEP, WIDE>(to, from.at + slice, from.ld, count, a.width - slice, a.vector);
    };
    float of_ds[WIDE / 8][4] = {}, of_weights[WIDE / 8][4] = {};
    Query of_row[2];
    queries_here(of_row, v, sides);
    Panels<half16, CHUNK_PANEL, decltype(fetch)> walk(panels, fetch, 2 * chunks + (KEYS ? 2 : 1),
                                                      sides.steps);
    for (int step = 0; step < sides.steps; step++) {
        const auto known = [&](int half, int column) {
            return KEYS ? query_here(v, sides, sides.head_of(step), sides.first_of(step) + column)
                        : of_row[half];
        };
        float w[STEP / 8][4] = {}, ds[STEP / 8][4] = {};
#pragma unroll 1
        for (int chunk = 0; chunk < chunks; chunk++)
            dot_chunks<KIND>(w, walk.next());
        weigh<KEYS>(a, w, sides.seen(a, step),
                    [&](int half, int column) { return known(half, column).shift; });
#pragma unroll 1
        for (int chunk = 0; chunk < chunks; chunk++)
            dot_chunks<KIND>(ds, walk.next());
        weigh_gradients(ds, w, [&](int half, int column) { return known(half, column).delta; });
        if (KEYS)
            add_rows<KIND, WIDE, STEP>(of_weights, w, walk.next());
        add_rows<KIND, WIDE, STEP>(of_ds, ds, walk.next());
    }
    store_gradients<KIND, WIDE, KEYS, WHAT>(v, slice, of_ds, of_weights);
}

/* ----------------------------------------------------------------------- launches */

template <bool KEYS, class Kernel>
static int launch(const Gpu *gpu, BackwardHalf v, int64_t heads, Kernel kernel)
{
    return over_jobs(v.a, heads, KEYS ? v.a.s : v.a.t,
                     [&](const AttentionShape &shape, unsigned blocks) {
                         v.a = shape;
                         kernel<<<blocks, MMA_THREADS, 0, gpu->compute>>>(v);
                     });
}

template <HalfKind KIND>
static int backward_half(const Gpu *gpu, const BackwardHalf &all, int64_t heads)
{
    return backward_in_pieces(gpu, all, heads, [&](BackwardHalf v, int64_t first, int64_t count) {
        const int64_t query_heads = count * v.a.group, width = v.a.width;
        const auto queries = width <= 32    ? attention_half_back<KIND, 32, false, OF_DS>
                             : width <= 64  ? attention_half_back<KIND, 64, false, OF_DS>
                             : width <= 128 ? attention_half_back<KIND, 128, false, OF_DS>
                                            : attention_half_back_wide<KIND, false>;
        const auto keys = width <= 32    ? attention_half_back<KIND, 32, true, BOTH>
                          : width <= 64  ? attention_half_back<KIND, 64, true, BOTH>
                          : width <= 128 ? attention_half_back<KIND, 128, true, OF_DS>
                                         : attention_half_back_wide<KIND, true>;
        int status = launch<false>(gpu, v, query_heads, queries);
        v.a.first_head = first;
        if (status == 0)
            status = launch<true>(gpu, v, count, keys);
        if (status == 0 && width > 64 && width <= 128)
            status = launch<true>(gpu, v, count, attention_half_back<KIND, 128, true, OF_WEIGHTS>);
        return status;
    });
}

#endif
