/* rownorm.cuh - normalisation of the rows of a tensor, for norm.cu and groupnorm.cu.
 *
 * A row is n contiguous elements that share a mean and a deviation: the last dimension, or a
 * group of channels of a sample. It is kept in registers by a warp, a block of 8 or one of 32
 * warps, as its length asks for, so that memory is read once and written once. A longer row is
 * cut into pieces, a block each: the pieces' sums go to scratch, and the blocks of a second kernel
 * each combine those of their row, in order, before they write their piece.
 *
 * Means and squares of pieces are combined as Chan, Golub and LeVeque (1979) do, which loses
 * nothing where the mean is large and the deviation small.
 */
#ifndef MDL_ROWNORM_CUH
#define MDL_ROWNORM_CUH

#include "rows.cuh"

/* Elements that each thread of a row keeps: a thread of 32 warps has 64 registers. */
static __host__ __device__ constexpr int kept_by(int warps, int v)
{
    return warps == 32 ? kept(v) / 2 : kept(v);
}

/* The longest rows that are kept: where loads are scalar they stay with 8 warps. */
static constexpr int longest(int v)
{
    return v == 1 ? 8 * WARP * kept_by(8, v) : 32 * WARP * kept_by(32, v);
}

enum { PIECE_WARPS = 8 };

/* Elements of a piece. */
static __host__ __device__ constexpr int piece_size(int v)
{
    return PIECE_WARPS * WARP * kept(v);
}

enum { ROOM = (int)(GPU_SCRATCH / sizeof(float2)) /* pieces in scratch */ };

/* What is written and the gradient that is read point to floats or to 16-bit numbers. */
template <class Out, class Gradient> struct NormOf {
    Out out;
    float *mean_out, *rstd_out;
    const float *x;
    Gradient dy;
    const float *w, *b, *mean, *rstd;
    int64_t rows, n;
    float eps;
    bool centred; /* not: the mean is taken as 0 */
    /* groups of channels: element i of row r has weight r % groups * per + i / inner */
    Divider inner;
    int groups, per;
    int64_t first; /* row that a launch over pieces begins with */
    int pieces;    /* of a row */
    float2 *parts; /* [rows of the launch, pieces] */
};
typedef NormOf<float *, const float *> Norm;

/* The weights of V elements from element i of the row on. No kernel writes them: __ldg tells
 * the compiler that they can be loaded before earlier elements are stored. */
template <bool GROUPS, int V, class N>
MDL_DEVICE Floats<V> load_weights(const N &v, const float *w, int64_t row, int64_t i)
{
    Floats<V> same;
    if constexpr (!GROUPS && V == 4) {
        const float4 four = __ldg(reinterpret_cast<const float4 *>(w + i));
        return {four.x, four.y, four.z, four.w};
    }
    const float one =
        __ldg(GROUPS ? w + (int)(row % v.groups) * v.per + divide((uint32_t)i, v.inner) : w + i);
#pragma unroll
    for (int e = 0; e < V; e++)
        same.at[e] = one;
    return same;
}

template <int WARPS, int V, int N> MDL_DEVICE float sum_row(const Floats<V> (&x)[N])
{
    float sum = 0;
#pragma unroll
    for (int u = 0; u < N; u++)
#pragma unroll
        for (int e = 0; e < V; e++)
            sum += x[u].at[e];
    return sum;
}

/* The sum of the squares of x - mean over a row's n elements. */
template <int WARPS, int V, int N>
MDL_DEVICE float sum_distances(const Floats<V> (&x)[N], float mean, int n)
{
    float sum = 0;
#pragma unroll
    for (int u = 0; u < N; u++) {
        if ((u * WARP * WARPS + (int)threadIdx.x) * V >= n)
            continue;
#pragma unroll
        for (int e = 0; e < V; e++)
            sum += (x[u].at[e] - mean) * (x[u].at[e] - mean);
    }
    return sum;
}

/* y = (x - mean) rstd w + b for elements from ... of a row, of which `n` are x's. */
template <bool GROUPS, int WARPS, int V, int COUNT, class N>
MDL_DEVICE void store_normal(const N &v, int64_t row, int64_t from, int n, Floats<V> (&x)[COUNT],
                             float mean, float rstd)
{
#pragma unroll
    for (int u = 0; u < COUNT; u++) {
        const int i = (u * WARP * WARPS + (int)threadIdx.x) * V;
        if (i >= n)
            continue;
        const Floats<V> w = load_weights<GROUPS, V>(v, v.w, row, from + i);
        Floats<V> b = {};
        if (v.b)
            b = load_weights<GROUPS, V>(v, v.b, row, from + i);
#pragma unroll
        for (int e = 0; e < V; e++)
            x[u].at[e] = (x[u].at[e] - mean) * rstd * w.at[e] + b.at[e];
        store_floats(v.out + row * v.n + from + i, x[u]);
    }
}

template <bool GROUPS, int WARPS, int V, class N>
static __global__ void __launch_bounds__(row_threads(WARPS), WARPS == 8 ? 3 : 1)
    norm_kept(const N v)
{
    __shared__ float part_sum[WARPS], part_square[WARPS];
    const int64_t row = row_here<WARPS>();
    if (row >= v.rows)
        return;
    Floats<V> x[kept_by(WARPS, V) / V];
    load_row<WARPS>(x, v.x + row * v.n, 0, v.n, 0);
    float mean = 0;
    if (v.centred)
        mean = block_sum<WARPS>(sum_row<WARPS>(x), part_sum) / (float)v.n;
    const float square = block_sum<WARPS>(sum_distances<WARPS>(x, mean, (int)v.n), part_square);
    const float rstd = 1 / mdl_sqrt(square / (float)v.n + v.eps);
    if (threadIdx.x == 0) {
        v.rstd_out[row] = rstd;
        if (v.centred)
            v.mean_out[row] = mean;
    }
    store_normal<GROUPS, WARPS>(v, row, 0, (int)v.n, x, mean, rstd);
}

/* ---------------------------------------------------------------------- pieces */

/* What a block over pieces takes. */
typedef struct {
    int64_t row, from;
    int n;               /* elements from ... from + n of the row */
    const float2 *parts; /* of the row */
} Piece;

template <int V, class N> MDL_DEVICE Piece piece_here(const N &v)
{
    const int most = piece_size(V);
    const int row = (int)blockIdx.x / v.pieces, piece = (int)blockIdx.x % v.pieces;
    const int64_t from = (int64_t)piece * most;
    return {v.first + row, from, v.n - from < most ? (int)(v.n - from) : most,
            v.parts + (int64_t)row * v.pieces};
}

template <int V, class N> MDL_DEVICE float piece_length(const N &v, int piece)
{
    const int64_t left = v.n - (int64_t)piece * piece_size(V);
    return (float)(left < piece_size(V) ? left : piece_size(V));
}

/* Each piece's mean and its squared distances from that. */
template <int V, class N>
static __global__ void __launch_bounds__(row_threads(PIECE_WARPS)) norm_pieces(const N v)
{
    __shared__ float part_sum[PIECE_WARPS], part_square[PIECE_WARPS];
    const Piece p = piece_here<V>(v);
    Floats<V> x[kept(V) / V];
    load_row<PIECE_WARPS>(x, v.x + p.row * v.n + p.from, 0, p.n, 0);
    float mean = 0;
    if (v.centred)
        mean = block_sum<PIECE_WARPS>(sum_row<PIECE_WARPS>(x), part_sum) / (float)p.n;
    const float square =
        block_sum<PIECE_WARPS>(sum_distances<PIECE_WARPS>(x, mean, p.n), part_square);
    if (threadIdx.x == 0)
        v.parts[blockIdx.x] = make_float2(mean, square);
}

template <bool GROUPS, int V, class N>
static __global__ void __launch_bounds__(row_threads(PIECE_WARPS)) norm_finish(const N v)
{
    __shared__ float part_sum[PIECE_WARPS], part_square[PIECE_WARPS];
    const Piece p = piece_here<V>(v);
    const int threads = PIECE_WARPS * WARP;
    float mean = 0, square = 0;
    for (int i = threadIdx.x; i < v.pieces; i += threads)
        mean += p.parts[i].x * (piece_length<V>(v, i) / (float)v.n);
    mean = block_sum<PIECE_WARPS>(mean, part_sum);
    for (int i = threadIdx.x; i < v.pieces; i += threads) {
        const float off = p.parts[i].x - mean;
        square += p.parts[i].y + off * off * piece_length<V>(v, i);
    }
    square = block_sum<PIECE_WARPS>(square, part_square);
    const float rstd = 1 / mdl_sqrt(square / (float)v.n + v.eps);
    if (threadIdx.x == 0 && p.from == 0) {
        v.rstd_out[p.row] = rstd;
        if (v.centred)
            v.mean_out[p.row] = mean;
    }
    Floats<V> x[kept(V) / V];
    load_row<PIECE_WARPS>(x, v.x + p.row * v.n + p.from, 0, p.n, 0);
    store_normal<GROUPS, PIECE_WARPS>(v, p.row, p.from, p.n, x, mean, rstd);
}

/* -------------------------------------------------------------------- gradient */

/* Loads g = dy w and xhat of elements from ... from + n; the sums of g and g xhat. */
template <bool GROUPS, int WARPS, int V, int COUNT, class N>
MDL_DEVICE void load_back(const N &v, int64_t row, int64_t from, int n, Floats<V> (&g)[COUNT],
                          Floats<V> (&x)[COUNT], float *sum, float *dot)
{
    const float mean = v.centred ? v.mean[row] : 0, rstd = v.rstd[row];
    load_row<WARPS>(g, v.dy + row * v.n + from, 0, n, 0);
    load_row<WARPS>(x, v.x + row * v.n + from, 0, n, 0);
    *sum = *dot = 0;
#pragma unroll
    for (int u = 0; u < COUNT; u++) {
        const int i = (u * WARP * WARPS + (int)threadIdx.x) * V;
        if (i >= n)
            continue;
        const Floats<V> w = load_weights<GROUPS, V>(v, v.w, row, from + i);
#pragma unroll
        for (int e = 0; e < V; e++) {
            g[u].at[e] *= w.at[e];
            x[u].at[e] = (x[u].at[e] - mean) * rstd;
            *sum += g[u].at[e];
            *dot += g[u].at[e] * x[u].at[e];
        }
    }
}

/* dx = rstd (g - mean(g) - xhat mean(g xhat)), g = dy w; without mean(g) where not centred */
template <int WARPS, int V, int COUNT, class N>
MDL_DEVICE void store_back(const N &v, int64_t row, int64_t from, int n, Floats<V> (&g)[COUNT],
                           const Floats<V> (&x)[COUNT], float sum, float dot)
{
    const float rstd = v.rstd[row], b = dot / (float)v.n;
    const float a = v.centred ? sum / (float)v.n : 0;
#pragma unroll
    for (int u = 0; u < COUNT; u++)
#pragma unroll
        for (int e = 0; e < V; e++)
            g[u].at[e] = rstd * (g[u].at[e] - a - x[u].at[e] * b);
    store_row<WARPS>(v.out + row * v.n + from, g, 0, n);
}

template <bool GROUPS, int WARPS, int V, class N>
static __global__ void __launch_bounds__(row_threads(WARPS)) norm_back_kept(const N v)
{
    enum { COUNT = kept_by(WARPS, V) / V };
    __shared__ float part[WARPS][2];
    const int64_t row = row_here<WARPS>();
    if (row >= v.rows)
        return;
    Floats<V> g[COUNT], x[COUNT];
    float sum, dot;
    load_back<GROUPS, WARPS>(v, row, 0, (int)v.n, g, x, &sum, &dot);
    block_sums<WARPS>(&sum, &dot, part);
    store_back<WARPS>(v, row, 0, (int)v.n, g, x, sum, dot);
}

template <bool GROUPS, int V, class N>
static __global__ void __launch_bounds__(row_threads(PIECE_WARPS)) norm_back_pieces(const N v)
{
    __shared__ float part[PIECE_WARPS][2];
    const Piece p = piece_here<V>(v);
    Floats<V> g[kept(V) / V], x[kept(V) / V];
    float sum, dot;
    load_back<GROUPS, PIECE_WARPS>(v, p.row, p.from, p.n, g, x, &sum, &dot);
    block_sums<PIECE_WARPS>(&sum, &dot, part);
    if (threadIdx.x == 0)
        v.parts[blockIdx.x] = make_float2(sum, dot);
}

template <bool GROUPS, int V, class N>
static __global__ void __launch_bounds__(row_threads(PIECE_WARPS)) norm_back_finish(const N v)
{
    __shared__ float part[PIECE_WARPS][2];
    const Piece p = piece_here<V>(v);
    float sum = 0, dot = 0, mine_sum, mine_dot;
    for (int i = threadIdx.x; i < v.pieces; i += PIECE_WARPS * WARP) {
        sum += p.parts[i].x;
        dot += p.parts[i].y;
    }
    block_sums<PIECE_WARPS>(&sum, &dot, part);
    Floats<V> g[kept(V) / V], x[kept(V) / V];
    load_back<GROUPS, PIECE_WARPS>(v, p.row, p.from, p.n, g, x, &mine_sum, &mine_dot);
    store_back<PIECE_WARPS>(v, p.row, p.from, p.n, g, x, sum, dot);
}

/* -------------------------------------------------------------------- launches */

/* Rows in pieces: `begin`, then `finish`, over as many rows as scratch has room for. */
template <int V, class N>
static int norm_in_pieces(const Gpu *gpu, N *v, void (*begin)(const N), void (*finish)(const N))
{
    const int64_t pieces = ceil_div(v->n, piece_size(V)), most = ROOM / pieces;
    v->pieces = (int)pieces;
    v->parts = reinterpret_cast<float2 *>(gpu->scratch);
    if (most == 0)
        return (int)cudaErrorInvalidValue; /* a row of more than 2^32 elements */
    for (v->first = 0; v->first < v->rows; v->first += most) {
        const unsigned blocks = (unsigned)(int_min(most, v->rows - v->first) * pieces);
        begin<<<blocks, row_block<PIECE_WARPS>(), 0, gpu->compute>>>(*v);
        const int status = launch_status();
        if (status != 0)
            return status;
        finish<<<blocks, row_block<PIECE_WARPS>(), 0, gpu->compute>>>(*v);
        const int last = launch_status();
        if (last != 0)
            return last;
    }
    return 0;
}

template <bool GROUPS, int V, class N> static int norm_forward(const Gpu *gpu, N *v)
{
    const int64_t rows = v->rows;
    if (v->n > longest(V))
        return norm_in_pieces<V>(gpu, v, norm_pieces<V, N>, norm_finish<GROUPS, V, N>);
    if (v->n <= WARP * kept(V))
        norm_kept<GROUPS, 1, V><<<row_blocks<1>(rows), row_block<1>(), 0, gpu->compute>>>(*v);
    else if (v->n <= 8 * WARP * kept(V))
        norm_kept<GROUPS, 8, V><<<row_blocks<8>(rows), row_block<8>(), 0, gpu->compute>>>(*v);
    else if constexpr (V > 1)
        norm_kept<GROUPS, 32, V><<<row_blocks<32>(rows), row_block<32>(), 0, gpu->compute>>>(*v);
    return launch_status();
}

template <bool GROUPS, int V, class N> static int norm_backward(const Gpu *gpu, N *v)
{
    const int64_t rows = v->rows;
    if (v->n > longest(V))
        return norm_in_pieces<V>(gpu, v, norm_back_pieces<GROUPS, V, N>,
                                 norm_back_finish<GROUPS, V, N>);
    if (v->n <= WARP * kept(V))
        norm_back_kept<GROUPS, 1, V><<<row_blocks<1>(rows), row_block<1>(), 0, gpu->compute>>>(*v);
    else if (v->n <= 8 * WARP * kept(V))
        norm_back_kept<GROUPS, 8, V><<<row_blocks<8>(rows), row_block<8>(), 0, gpu->compute>>>(*v);
    else if constexpr (V > 1)
        norm_back_kept<GROUPS, 32, V>
            <<<row_blocks<32>(rows), row_block<32>(), 0, gpu->compute>>>(*v);
    return launch_status();
}

/* ---------------------------------------------------------- gradients of weights */

/* out[c] (+)= the sum over p of part[p, c]: 32 columns of one of two planes by a block, whose
 * warps share the rows. */
typedef struct {
    float *out, *out2;  /* out2 may be NULL */
    const float *parts; /* [2, count, n] */
    int64_t count, n;
    bool accumulate;
} Columns;

enum { COLUMN_WARPS = 8 };

static __global__ void __launch_bounds__(COLUMN_WARPS *WARP) combine_columns(const Columns v)
{
    __shared__ float part[COLUMN_WARPS][WARP];
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int64_t column = (int64_t)blockIdx.x * WARP + lane;
    const float *x = v.parts + blockIdx.y * v.count * v.n + column;
    float sum = 0;
    if (column < v.n)
        for (int64_t i = warp; i < v.count; i += COLUMN_WARPS)
            sum += x[i * v.n];
    part[warp][lane] = sum;
    __syncthreads();
    if (warp > 0 || column >= v.n)
        return;
#pragma unroll
    for (int w = 1; w < COLUMN_WARPS; w++)
        sum += part[w][lane];
    float *out = (blockIdx.y == 0 ? v.out : v.out2) + column;
    *out = v.accumulate ? *out + sum : sum;
}

static int launch_columns(const Gpu *gpu, const Columns *v)
{
    const dim3 blocks((unsigned)ceil_div(v->n, WARP), v->out2 ? 2 : 1);
    combine_columns<<<blocks, COLUMN_WARPS * WARP, 0, gpu->compute>>>(*v);
    return launch_status();
}

#endif
