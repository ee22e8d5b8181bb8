/* attention_backward.cu - gradients of scaled dot-product attention, in float.
 *
 * In: dout, q, k, v, and o and lse of the forward pass. Out: dq, dk, dv. Weights are computed again
 * from lse, tile by tile (FlashAttention-2, Dao 2023):
 *
 *     delta = sum of dout o                       of every query, into scratch
 *     w = exp(scale q.k - lse),  ds = w (dout.v - delta)
 *     dv = sum of w dout,  dk = scale sum of ds q over all queries of all heads of a group
 *     dq = scale sum of ds k                      over all keys
 *
 * in three kernels. A block has a tile of keys for dk and dv, or of queries for dq, and walks over
 * the other sequence in order; nothing is added up by two blocks.
 */
#include "attention_back.cuh"
#include "attention_tile.cuh"

enum { ROWS = 4, THREADS = tile_threads(ROWS) };

typedef Backward<float *, const float *> BackwardFloat;

static constexpr int blocks_for(int d)
{
    return d <= 64 ? 2 : 1;
}

/* A query of a head as the kernels below want it: what makes powers of 2 of its scores its weights,
 * and its delta. Beyond the last query weights are 0. */
typedef struct {
    float shift, delta;
} Query;

MDL_DEVICE Query query_here(const BackwardFloat &v, int64_t head, int64_t query, int64_t at)
{
    if (query >= v.a.t)
        return {INFINITY, 0};
    return {v.lse[head * v.a.t + query] * LOG2_E, delta_here(v, head, query, at)};
}

/* ------------------------------------------------------------------- keys, values */

/* Where a block's keys lie, or its values. */
MDL_DEVICE int64_t keys_at(const AttentionShape &a, const AttentionJob &job, int64_t ld)
{
    return head_at(a, job.head, a.kv_heads, a.s, ld) + job.position * ld;
}

template <int D>
static __global__ void __launch_bounds__(THREADS, blocks_for(D))
    attention_back_keys(const BackwardFloat v)
{
    __shared__ float panels[2][2 * PANEL], weights[TILE][WEIGHT_PITCH];
    const AttentionShape &a = v.a;
    const AttentionJob job = attention_job(a, a.kv_heads, a.s, false);
    const int64_t first = job.head * a.group; /* of the group's heads */
    const float *const q = v.q + head_at(a, first, a.heads, a.t, a.ldq);
    const float *const k = v.k + keys_at(a, job, a.ldk), *const values =
                                                             v.v + keys_at(a, job, a.ldv);
    const int64_t at = head_at(a, first, a.heads, a.t, a.ldo);
    const int keys = tile_rows(a.s, job.position), columns = a.width - job.slice * D;
    const int depth = (a.width + PANEL_COLUMNS - 1) / PANEL_COLUMNS, count = TILE / panel_rows(D);
    /* the tiles of a head's queries, of which the first ones may see none of the keys */
    const int all = (int)((a.t + TILE - 1) / TILE), skipped = a.causal ? min(job.tile, all) : 0;
    const int each = all - skipped, tiles = each * (int)a.group;

    /* what a block walks over: tile i of the queries of the heads of a group */
    const auto query_of = [&](int i) { return (int64_t)(skipped + i % each) * TILE; };
    const auto fetch = [&](int tile, int step, float *to) {
        const int64_t head = tile / each, query = query_of(tile);
        const int rows = tile_rows(a.t, query);
        const float *const x = q + (query * a.ldq + head * a.width);
        const float *const y = v.dout + (at + query * a.ldo + head * a.width);
        if (step >= 2 * depth) {
            const bool second = step >= 2 * depth + count;
            const int from = (step - 2 * depth - (second ? count : 0)) * panel_rows(D);
            const int64_t ld = second ? a.ldq : a.ldo;
            copy_rows<THREADS, panel_rows(D), D>(to, D,
                                                 (second ? x : y) + (from * ld + job.slice * D), ld,
                                                 rows - from, columns, a.vector);
            return;
        }
        const bool second = step >= depth;
        const int column = (second ? step - depth : step) * PANEL_COLUMNS;
        copy_rows<THREADS, TILE, PANEL_COLUMNS>(to, PITCH, (second ? values : k) + column,
                                                second ? a.ldv : a.ldk, keys, a.width - column,
                                                a.vector);
        copy_rows<THREADS, TILE, PANEL_COLUMNS>(to + PANEL, PITCH, (second ? y : x) + column,
                                                second ? a.ldo : a.ldq, rows, a.width - column,
                                                a.vector);
    };
    Panels<float, 2 * PANEL, decltype(fetch)> walk(panels, fetch, 2 * depth + 2 * count, tiles);
    float dk[ROWS][D / ROW_THREADS] = {}, dv[ROWS][D / ROW_THREADS] = {};
    for (int tile = 0; tile < tiles; tile++) {
        const int64_t head = tile / each, query = query_of(tile);
        float s[ROWS][COLUMNS] = {}, ds[ROWS][COLUMNS];
#pragma unroll 1
        for (int step = 0; step < depth; step++)
            dot_panel(s, walk.next());
        const Seen seen = seen_here(a, query, job.position);
#pragma unroll
        for (int j = 0; j < COLUMNS; j++) {
            const Query here =
                query_here(v, first + head, query + column_of(j), at + head * a.width);
#pragma unroll
            for (int i = 0; i < ROWS; i++) {
                const float w = exp2f(fmaf(s[i][j], a.scale_log2, -here.shift));
                const bool counts = is_seen(seen, column_of(j), row_of<ROWS>(i));
                weights[row_of<ROWS>(i)][column_of(j)] = counts ? w : 0;
                ds[i][j] = -here.delta; /* what dout.v is added to */
            }
        }
#pragma unroll 1
        for (int step = 0; step < depth; step++)
            dot_panel(ds, walk.next());
#pragma unroll 1
        for (int from = 0; from < TILE; from += panel_rows(D))
            add_weighted<D>(dv, &weights[0][from], walk.next());
        __syncthreads();
#pragma unroll
        for (int i = 0; i < ROWS; i++)
#pragma unroll
            for (int j = 0; j < COLUMNS; j++)
                weights[row_of<ROWS>(i)][column_of(j)] *= ds[i][j];
#pragma unroll 1
        for (int from = 0; from < TILE; from += panel_rows(D))
            add_weighted<D>(dk, &weights[0][from], walk.next());
    }
    float one[ROWS], scale[ROWS];
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        one[i] = 1;
        scale[i] = a.scale;
    }
    const AttentionJob again = attention_job(a, a.kv_heads, a.s, false);
    const int64_t slice = again.slice * D;
    store_rows<D>(v.dk + keys_at(a, again, a.ldk) + slice, a.ldk, dk, scale,
                  tile_rows(a.s, again.position), a.width - again.slice * D, a.vector);
    store_rows<D>(v.dv + keys_at(a, again, a.ldv) + slice, a.ldv, dv, one,
                  tile_rows(a.s, again.position), a.width - again.slice * D, a.vector);
}

/* ------------------------------------------------------------------------ queries */

template <int D>
static __global__ void __launch_bounds__(THREADS, blocks_for(D))
    attention_back_queries(const BackwardFloat v)
{
    __shared__ float panels[2][2 * PANEL], weights[TILE][WEIGHT_PITCH];
    const AttentionShape &a = v.a;
    const AttentionJob job = attention_job(a, a.heads, a.t, a.causal);
    const int64_t query = job.position, kv_head = job.head / a.group;
    const int64_t at = head_at(a, job.head, a.heads, a.t, a.ldo);
    const int64_t at_q = head_at(a, job.head, a.heads, a.t, a.ldq) + query * a.ldq;
    const float *const q = v.q + at_q, *const dout = v.dout + (at + query * a.ldo);
    const float *const k = v.k + head_at(a, kv_head, a.kv_heads, a.s, a.ldk);
    const float *const values = v.v + head_at(a, kv_head, a.kv_heads, a.s, a.ldv);
    const int rows = tile_rows(a.t, query), columns = a.width - job.slice * D;
    const int depth = (a.width + PANEL_COLUMNS - 1) / PANEL_COLUMNS;

    const auto fetch = [&](int tile, int step, float *to) {
        const int64_t key = (int64_t)tile * TILE;
        const int keys = tile_rows(a.s, key), from = (step - 2 * depth) * panel_rows(D);
        if (from >= 0) {
            copy_rows<THREADS, panel_rows(D), D>(to, D, k + ((key + from) * a.ldk + job.slice * D),
                                                 a.ldk, keys - from, columns, a.vector);
            return;
        }
        const bool second = step >= depth;
        const int column = (second ? step - depth : step) * PANEL_COLUMNS;
        const int64_t ld = second ? a.ldv : a.ldk;
        copy_rows<THREADS, TILE, PANEL_COLUMNS>(to, PITCH, (second ? dout : q) + column,
                                                second ? a.ldo : a.ldq, rows, a.width - column,
                                                a.vector);
        copy_rows<THREADS, TILE, PANEL_COLUMNS>(to + PANEL, PITCH,
                                                (second ? values : k) + (key * ld + column), ld,
                                                keys, a.width - column, a.vector);
    };
    const int tiles = tiles_seen(a, query, TILE);
    Panels<float, 2 * PANEL, decltype(fetch)> walk(panels, fetch, 2 * depth + TILE / panel_rows(D),
                                                   tiles);
    float dq[ROWS][D / ROW_THREADS] = {}, shift[ROWS], delta[ROWS], scale[ROWS];
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        const Query here = query_here(v, job.head, query + row_of<ROWS>(i), at);
        shift[i] = here.shift;
        delta[i] = here.delta;
        scale[i] = a.scale;
    }
    for (int tile = 0; tile < tiles; tile++) {
        float s[ROWS][COLUMNS] = {}, ds[ROWS][COLUMNS];
#pragma unroll
        for (int i = 0; i < ROWS; i++)
#pragma unroll
            for (int j = 0; j < COLUMNS; j++)
                ds[i][j] = -delta[i]; /* what dout.v is added to */
#pragma unroll 1
        for (int step = 0; step < depth; step++)
            dot_panel(s, walk.next());
#pragma unroll 1
        for (int step = 0; step < depth; step++)
            dot_panel(ds, walk.next());
        const Seen seen = seen_here(a, query, (int64_t)tile * TILE);
#pragma unroll
        for (int i = 0; i < ROWS; i++)
#pragma unroll
            for (int j = 0; j < COLUMNS; j++) {
                const float w = exp2f(fmaf(s[i][j], a.scale_log2, -shift[i]));
                const bool counts = is_seen(seen, row_of<ROWS>(i), column_of(j));
                weights[row_of<ROWS>(i)][column_of(j)] = counts ? w * ds[i][j] : 0;
            }
#pragma unroll 1
        for (int from = 0; from < TILE; from += panel_rows(D))
            add_weighted<D>(dq, &weights[0][from], walk.next());
    }
    store_rows<D>(v.dq + (at_q + job.slice * D), a.ldq, dq, scale, rows, columns, a.vector);
}

/* ----------------------------------------------------------------------- launches */

template <int D> static int backward(const Gpu *gpu, const BackwardFloat &all, int64_t heads)
{
    return backward_in_pieces(gpu, all, heads, [&](BackwardFloat v, int64_t first, int64_t count) {
        int status = over_jobs(
            v.a, count * v.a.group, v.a.t, [&](const AttentionShape &shape, unsigned blocks) {
                v.a = shape;
                attention_back_queries<D><<<blocks, THREADS, 0, gpu->compute>>>(v);
            });
        v.a.first_head = first;
        if (status == 0)
            status =
                over_jobs(v.a, count, v.a.s, [&](const AttentionShape &shape, unsigned blocks) {
                    v.a = shape;
                    attention_back_keys<D><<<blocks, THREADS, 0, gpu->compute>>>(v);
                });
        return status;
    });
}

extern "C" int gpu_attention_backward(const Gpu *gpu, float *dq, float *dk, float *dv,
                                      const float *dout, const float *q, const float *k,
                                      const float *v, const float *o, const float *lse,
                                      const Attention *a)
{
    if (attention_is_empty(a))
        return 0;
    if (!attention_fits(a))
        return (int)cudaErrorInvalidValue;
    const bool vector = attention_is_vector(a, 4, dq, dk, dv, dout, q, k, v, o);
    const BackwardFloat b = {
        attention_shape(a, vector), dq, dk, dv, dout, q, k, v, o, lse, NULL, 0};
    const int64_t heads = a->B * a->kv_heads;
    return a->width <= 32    ? backward<32>(gpu, b, heads)
           : a->width <= 64  ? backward<64>(gpu, b, heads)
           : a->width <= 128 ? backward<128>(gpu, b, heads)
                             : backward<256>(gpu, b, heads);
}
