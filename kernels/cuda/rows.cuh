/* rows.cuh - kernels over the rows of a tensor: which threads take a row, how they load and
 * store it, and the scan that finds a row's largest element and its sum of exp at once. Rows are
 * pointers to floats or, as in half.cuh, to 16-bit numbers.
 */
#ifndef MDL_ROWS_CUH
#define MDL_ROWS_CUH

#include "common.cuh"
#include "half.cuh"

/* A row of a tensor is taken by WARPS warps: by one, with SIDE_BY_SIDE rows to a block, or by a
 * block of its own. */
enum { SIDE_BY_SIDE = 4 };

static constexpr int row_threads(int warps)
{
    return WARP * (warps == 1 ? SIDE_BY_SIDE : warps);
}

template <int WARPS> static inline dim3 row_block(void)
{
    return dim3(WARP * WARPS, WARPS == 1 ? SIDE_BY_SIDE : 1);
}

template <int WARPS> static inline unsigned row_blocks(int64_t rows)
{
    return (unsigned)(WARPS == 1 ? ceil_div(rows, SIDE_BY_SIDE) : rows);
}

/* The row of the calling thread, which is number threadIdx.x of the row's WARP x WARPS. */
template <int WARPS> MDL_DEVICE int64_t row_here(void)
{
    return WARPS == 1 ? (int64_t)blockIdx.x * SIDE_BY_SIDE + threadIdx.y : blockIdx.x;
}

/* Elements of a row that a thread keeps in registers: fewer where every element needs an address
 * of its own. */
static __host__ __device__ constexpr int kept(int v)
{
    return v >= 4 ? 32 : 8;
}

/* N x V elements of thread threadIdx.x, each load of WARPS warps contiguous; `rest` where the
 * row has ended. */
template <int WARPS, int V, int N, class Row>
MDL_DEVICE void load_row(Floats<V> (&v)[N], Row row, int64_t from, int64_t n, float rest)
{
#pragma unroll
    for (int u = 0; u < N; u++) {
        const int64_t i = from + (u * WARP * WARPS + (int)threadIdx.x) * V;
#pragma unroll
        for (int e = 0; e < V; e++)
            v[u].at[e] = rest;
        if (i < n)
            v[u] = load_floats<V>(row + i);
    }
}

template <int WARPS, int V, int N, class Row>
MDL_DEVICE void store_row(Row row, const Floats<V> (&v)[N], int64_t from, int64_t n)
{
#pragma unroll
    for (int u = 0; u < N; u++) {
        const int64_t i = from + (u * WARP * WARPS + (int)threadIdx.x) * V;
        if (i < n)
            store_floats(row + i, v[u]);
    }
}

/* ------------------------------------------------- largest element and sum of exp */

enum { LOADS = 4 /* of a thread at a time */ };

/* The same where a load may be of 8 elements, which take twice the registers. */
static __host__ __device__ constexpr int loads(int v)
{
    return v == 8 ? LOADS / 2 : LOADS;
}

/* The largest of some elements, and the sum of exp(x - largest). */
typedef struct {
    float most, sum;
} Online;

/* What is taken off: of nothing but -infinity the difference would be NaN. */
MDL_DEVICE float online_base(float most)
{
    return most == -INFINITY ? 0 : most;
}

template <int V, int N> MDL_DEVICE void online_add(Online *o, const Floats<V> (&v)[N])
{
    float most = o->most, sum = 0;
#pragma unroll
    for (int u = 0; u < N; u++)
#pragma unroll
        for (int e = 0; e < V; e++)
            most = larger(most, v[u].at[e]);
    const float base = online_base(most);
#pragma unroll
    for (int u = 0; u < N; u++)
#pragma unroll
        for (int e = 0; e < V; e++)
            sum += mdl_exp(v[u].at[e] - base);
    o->sum = o->sum * mdl_exp(o->most - base) + sum;
    o->most = most;
}

/* Of a whole row; every thread of its warps gets it. A row of nothing but -infinity has no
 * softmax: its sum is NaN, as on the host. */
template <int WARPS, int V, class Row>
MDL_DEVICE Online online_row(Row row, int64_t n, float *part_most, float *part_sum)
{
    Online o = {-INFINITY, 0};
    for (int64_t from = 0; from < n; from += loads(V) * V * WARP * WARPS) {
        Floats<V> v[loads(V)];
        load_row<WARPS>(v, row, from, n, -INFINITY);
        online_add(&o, v);
    }
    const float most = block_max<WARPS>(o.most, part_most);
    const float sum = o.sum * mdl_exp(o.most - online_base(most));
    const Online all = {most, block_sum<WARPS>(sum, part_sum)};
    return most == -INFINITY ? Online{most, NAN} : all;
}

#endif
