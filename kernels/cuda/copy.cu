/* copy.cu - moving elements: strided copies, fills, sums in place, rounding to 16 bits.
 *
 * copy_strided drops dimensions of 1 and merges neighbours that lie one after the other in both
 * tensors. One run is a memcpy. Where the last dimension is contiguous on both sides, elements
 * are widened to as many of the 16 bytes as lengths, strides and addresses allow. Then
 *
 *   turned     x is contiguous along another dimension: squares of SIDE x SIDE pass through
 *              shared memory, so that both sides are read and written along memory
 *   gathered   anything else: a thread per element of y, in y's order
 *
 * Copies of more than 2^31 elements are cut along their longest dimension.
 */
#include "common.cuh"
#include "gpu_half.h"
#include "half.cuh"

enum { RANK = 8, BLOCK = 256, SIDE = 32, STRIPES = 8, GATHERS = 4 };

typedef struct {
    char *y;
    const char *x;
    int rank, size;
    int64_t dim[RANK], ys[RANK], xs[RANK]; /* from the last dimension to the first */
} Copy;

/* What a kernel needs of a Copy; turned: dimension 0 is y's contiguous one, 1 is x's. */
typedef struct {
    int rank, count;
    Divider dim[RANK];
    int64_t ys[RANK], xs[RANK];
} Walk;

/* Offsets of index number i of the dimensions from `d` on. */
MDL_DEVICE void walk_to(const Walk &w, int d, int i, int64_t *y, int64_t *x)
{
#pragma unroll
    for (int k = 0; k < RANK; k++) {
        if (k < d)
            continue;
        if (k >= w.rank)
            break;
        int rest;
        i = divide_rest(i, w.dim[k], &rest);
        *y += rest * w.ys[k];
        *x += rest * w.xs[k];
    }
}

template <class T>
static __global__ void __launch_bounds__(BLOCK)
    copy_gathered(T *__restrict__ y, const T *__restrict__ x, const Walk w)
{
    const int first = (int)(blockIdx.x * (BLOCK * GATHERS) + threadIdx.x);
    T value[GATHERS];
    int64_t to[GATHERS];
#pragma unroll
    for (int k = 0; k < GATHERS; k++) {
        int64_t from = 0;
        to[k] = 0;
        if (first + k * BLOCK < w.count) {
            walk_to(w, 0, first + k * BLOCK, &to[k], &from);
            value[k] = x[from];
        }
    }
#pragma unroll
    for (int k = 0; k < GATHERS; k++)
        if (first + k * BLOCK < w.count)
            y[to[k]] = value[k];
}

/* A block of SIDE x STRIPES threads turns one square; blocks of a row of squares are
 * neighbours in y. */
template <class T>
static __global__ void __launch_bounds__(SIDE *STRIPES)
    copy_turned(T *__restrict__ y, const T *__restrict__ x, const Walk w, const Divider squares_n,
                const Divider squares_m)
{
    __shared__ T square[SIDE][SIDE + 1];
    int column, row;
    const int above = divide_rest((int)blockIdx.x, squares_n, &column);
    const int outer = divide_rest(above, squares_m, &row);
    int64_t y0 = 0, x0 = 0;
    walk_to(w, 2, outer, &y0, &x0);
    const int i = threadIdx.x, n = (int)w.dim[0].by, m = (int)w.dim[1].by;
    const int n0 = column * SIDE, m0 = row * SIDE;
#pragma unroll
    for (int j = threadIdx.y; j < SIDE; j += STRIPES)
        if (m0 + i < m && n0 + j < n)
            square[j][i] = x[x0 + (n0 + j) * w.xs[0] + m0 + i];
    __syncthreads();
#pragma unroll
    for (int j = threadIdx.y; j < SIDE; j += STRIPES)
        if (n0 + i < n && m0 + j < m)
            y[y0 + (m0 + j) * w.ys[1] + n0 + i] = square[i][j];
}

/* Drops dimensions of 1 and merges neighbours. False when there is nothing to copy. */
static bool plan(Copy *c, int rank, const int64_t *dim, const int64_t *ystride,
                 const int64_t *xstride)
{
    c->rank = 0;
    for (int d = rank - 1; d >= 0; d--) {
        if (dim[d] <= 0)
            return false;
        if (dim[d] == 1)
            continue;
        const int inner = c->rank - 1;
        if (inner >= 0 && ystride[d] == c->ys[inner] * c->dim[inner] &&
            xstride[d] == c->xs[inner] * c->dim[inner]) {
            c->dim[inner] *= dim[d];
            continue;
        }
        c->dim[c->rank] = dim[d];
        c->ys[c->rank] = ystride[d];
        c->xs[c->rank++] = xstride[d];
    }
    if (c->rank == 0) {
        c->dim[0] = c->ys[0] = c->xs[0] = 1;
        c->rank = 1;
    }
    return true;
}

/* Joins elements of a contiguous last dimension, two by two, up to 16 bytes. */
static void widen(Copy *c)
{
    if (c->ys[0] != 1 || c->xs[0] != 1)
        return;
    while (c->size < 16) {
        const uintptr_t wide = 2 * (uintptr_t)c->size;
        bool even = c->dim[0] % 2 == 0 && ((uintptr_t)c->y | (uintptr_t)c->x) % wide == 0;
        for (int d = 1; d < c->rank; d++)
            even = even && c->ys[d] % 2 == 0 && c->xs[d] % 2 == 0;
        if (!even)
            return;
        c->size *= 2;
        c->dim[0] /= 2;
        for (int d = 1; d < c->rank; d++) {
            c->ys[d] /= 2;
            c->xs[d] /= 2;
        }
    }
}

static void swap_dimensions(Copy *c, int a, int b)
{
    const int64_t dim = c->dim[a], ys = c->ys[a], xs = c->xs[a];
    c->dim[a] = c->dim[b];
    c->ys[a] = c->ys[b];
    c->xs[a] = c->xs[b];
    c->dim[b] = dim;
    c->ys[b] = ys;
    c->xs[b] = xs;
}

/* Brings the dimension along which x is contiguous next to the last. */
static bool find_turn(Copy *c)
{
    if (c->ys[0] != 1 || c->xs[0] <= 1 || c->dim[0] < 4)
        return false;
    for (int d = 1; d < c->rank; d++) {
        if (c->xs[d] == 1 && c->dim[d] >= 4) {
            swap_dimensions(c, 1, d);
            return true;
        }
    }
    return false;
}

template <class T> static int launch(const Gpu *gpu, const Copy *c, const Walk *w, bool turned)
{
    T *y = (T *)(void *)c->y;
    const T *x = (const T *)(const void *)c->x;
    if constexpr (sizeof(T) <= 8) { /* wider elements are contiguous on both sides */
        if (turned) {
            const int64_t n = ceil_div(c->dim[0], SIDE), m = ceil_div(c->dim[1], SIDE);
            const int64_t outer = w->count / c->dim[0] / c->dim[1];
            copy_turned<<<(unsigned)(n * m * outer), dim3(SIDE, STRIPES), 0, gpu->compute>>>(
                y, x, *w, divider_new(n), divider_new(m));
            return launch_status();
        }
    }
    const unsigned blocks = (unsigned)ceil_div(w->count, BLOCK * GATHERS);
    copy_gathered<<<blocks, BLOCK, 0, gpu->compute>>>(y, x, *w);
    return launch_status();
}

static int copy(const Gpu *gpu, const Copy *c, bool turned)
{
    int64_t count = 1;
    int longest = 0;
    Walk w = {};
    w.rank = c->rank;
    for (int d = 0; d < c->rank; d++) {
        count *= c->dim[d];
        longest = c->dim[d] > c->dim[longest] ? d : longest;
    }
    if (count > INDEX_MOST - BLOCK * GATHERS) {
        Copy low = *c, high = *c;
        low.dim[longest] = c->dim[longest] / 2;
        high.dim[longest] -= low.dim[longest];
        high.y += low.dim[longest] * c->ys[longest] * c->size;
        high.x += low.dim[longest] * c->xs[longest] * c->size;
        const int status = copy(gpu, &low, turned);
        return status != 0 ? status : copy(gpu, &high, turned);
    }
    for (int d = 0; d < c->rank; d++) {
        w.dim[d] = divider_new(c->dim[d]);
        w.ys[d] = c->ys[d];
        w.xs[d] = c->xs[d];
    }
    w.count = (int)count;
    switch (c->size) {
    case 1:
        return launch<uint8_t>(gpu, c, &w, turned);
    case 2:
        return launch<uint16_t>(gpu, c, &w, turned);
    case 4:
        return launch<uint32_t>(gpu, c, &w, turned);
    case 8:
        return launch<uint2>(gpu, c, &w, turned);
    default:
        return launch<uint4>(gpu, c, &w, turned);
    }
}

extern "C" int gpu_copy_strided(const Gpu *gpu, void *y, const void *x, int rank,
                                const int64_t *dim, const int64_t *ystride, const int64_t *xstride,
                                int size)
{
    Copy c = {};
    c.y = (char *)y;
    c.x = (const char *)x;
    c.size = size;
    if (!plan(&c, rank, dim, ystride, xstride))
        return 0;
    if (c.rank == 1 && c.ys[0] == 1 && c.xs[0] == 1)
        return (int)cudaMemcpyAsync(y, x, (size_t)(c.dim[0] * size), cudaMemcpyDeviceToDevice,
                                    gpu->compute);
    widen(&c);
    return copy(gpu, &c, find_turn(&c));
}

/* ------------------------------------------------------------- whole tensors */

/* y[i] = value, or y[i] += x[i] where there is an x; V at a time, then what is left. */
template <bool ADD, int V, class To>
static __global__ void __launch_bounds__(BLOCK)
    write_all(To y, const float *__restrict__ x, float value, int64_t n)
{
    const int64_t at = (int64_t)blockIdx.x * BLOCK + threadIdx.x;
    const int64_t threads = (int64_t)gridDim.x * BLOCK;
    for (int64_t i = at * V; i + V <= n; i += threads * V) {
        Floats<V> v = ADD ? load_floats<V>(y + i) : Floats<V>();
        const Floats<V> add = ADD ? load_floats<V>(x + i) : Floats<V>();
#pragma unroll
        for (int e = 0; e < V; e++)
            v.at[e] = ADD ? v.at[e] + add.at[e] : value;
        store_floats(y + i, v);
    }
    const int64_t last = n / V * V + at;
    if (last < n) {
        const float was = ADD ? load_floats<1>(y + last).at[0] : 0;
        store_floats(y + last, Floats<1>{ADD ? was + x[last] : value});
    }
}

template <bool ADD, class To>
static int write(const Gpu *gpu, To y, const float *x, float value, int64_t n)
{
    enum { V = VECTOR<To> };
    if (n <= 0)
        return 0;
    const unsigned blocks = gpu_blocks(ceil_div(n, V), BLOCK);
    if (is_vector<V>(0, x, y))
        write_all<ADD, V, To><<<blocks, BLOCK, 0, gpu->compute>>>(y, x, value, n);
    else
        write_all<ADD, 1, To><<<blocks, BLOCK, 0, gpu->compute>>>(y, x, value, n);
    return launch_status();
}

/* Floats that nothing else reads while they are written. */
typedef float *__restrict__ Floats32;

extern "C" int gpu_fill(const Gpu *gpu, float *y, float value, int64_t n)
{
    return write<false, Floats32>(gpu, y, NULL, value, n);
}

extern "C" int gpu_accumulate_into(const Gpu *gpu, float *y, const float *x, int64_t n)
{
    return write<true, Floats32>(gpu, y, x, 0, n);
}

extern "C" int gpu_fill_half(const Gpu *gpu, HalfKind kind, half16 *y, float value, int64_t n)
{
    return write<false>(gpu, Halves{y, kind}, NULL, value, n);
}

/* V at a time, 16 bytes of y, then what is left. */
template <int V>
static __global__ void __launch_bounds__(BLOCK)
    round_all(Halves y, const float *__restrict__ x, int64_t n)
{
    enum { N = V > 4 ? V / 4 : 1, PART = V / N };
    const int64_t at = (int64_t)blockIdx.x * BLOCK + threadIdx.x;
    const int64_t threads = (int64_t)gridDim.x * BLOCK;
    for (int64_t i = at * V; i + V <= n; i += threads * V) {
        Floats<V> v;
#pragma unroll
        for (int u = 0; u < N; u++) {
            const Floats<PART> part = load_floats<PART>(x + i + u * PART);
#pragma unroll
            for (int e = 0; e < PART; e++)
                v.at[u * PART + e] = part.at[e];
        }
        store_floats(y + i, v);
    }
    const int64_t last = n / V * V + at;
    if (last < n)
        store_floats(y + last, load_floats<1>(x + last));
}

extern "C" int gpu_half_round(const Gpu *gpu, HalfKind kind, half16 *y, const float *x, int64_t n)
{
    const Halves to = {y, kind};
    if (n <= 0)
        return 0;
    const unsigned blocks = gpu_blocks(ceil_div(n, VECTOR<Halves>), BLOCK);
    if (is_aligned<4>(x) && is_aligned<VECTOR<Halves>>(y))
        round_all<VECTOR<Halves>><<<blocks, BLOCK, 0, gpu->compute>>>(to, x, n);
    else
        round_all<1><<<blocks, BLOCK, 0, gpu->compute>>>(to, x, n);
    return launch_status();
}

static __global__ void __launch_bounds__(BLOCK) count_up(int32_t *y, int64_t n)
{
    for (int64_t i = (int64_t)blockIdx.x * BLOCK + threadIdx.x; i < n;
         i += (int64_t)gridDim.x * BLOCK)
        y[i] = (int32_t)i;
}

extern "C" int gpu_arange_fill(const Gpu *gpu, int32_t *y, int64_t n)
{
    if (n <= 0)
        return 0;
    count_up<<<gpu_blocks(n, BLOCK), BLOCK, 0, gpu->compute>>>(y, n);
    return launch_status();
}
