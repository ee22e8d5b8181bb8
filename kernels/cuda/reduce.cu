/* reduce.cu - sums and maxima over any set of dimensions.
 *
 * Dimensions of 1 are dropped and neighbours of one kind merged, so that kept and reduced
 * dimensions alternate. What is left is walked in one of two ways, each with a kernel for few
 * and one for many elements to an output:
 *
 *   along    the last dimension is reduced: a group of lanes, or a block, takes an output
 *   across   the last dimension is kept: threads side by side take outputs side by side,
 *            and a block's rows of threads share the reduced elements
 *
 * Where an output has very many elements, they are cut into parts, by their number alone; the
 * parts' results go to scratch and are reduced in a second pass. A thread adds up a few loads
 * as a tree before it adds them to its sum, so errors grow slowly. Elements are float or, of sums,
 * of 16 bits.
 */
#include "common.cuh"
#include "gpu_half.h"
#include "half.cuh"

#include <string.h>

enum { RANK = 9 /* eight and the batch */, HALF = RANK / 2 /* kept and reduced alternate */ };
enum { BLOCK = 256, WARPS = BLOCK / WARP, LOADS = 8 };
enum { SHORT = 2048 /* elements of an output that a warp takes */, CHUNK = 16384 };
enum { FEW = 32 /* rows that one thread adds up */, ROWS = 16 /* rows of a thread of a tile */ };
enum { MOST_CHUNKS = 4096, MOST_TILES = 512 };
enum { ROOM = (int)(GPU_SCRATCH / sizeof(float)) };

/* Loads of a thread at a time: fewer where each is of 8 elements. */
static __host__ __device__ constexpr int loads(int v)
{
    return v == 8 ? LOADS / 2 : LOADS;
}

typedef struct {
    int rank;
    int64_t count;
    int64_t stride[HALF]; /* from the last dimension to the first */
    Divider dim[HALF];
} Walk;

template <class Elements> struct ReduceOf {
    float *y;
    Elements x;
    float scale;
    bool accumulate;
    int64_t run;        /* elements of the last dimension */
    Walk kept, reduced; /* without the last dimension */
    int64_t first;      /* outer output that the launch begins with; y begins there */
    int64_t parts;      /* that an output's elements are cut into */
    int64_t part;       /* along: elements of a part; across: rows of one */
    int width;          /* threads side by side: along on one output, across on neighbours */
    int64_t step_runs, step_rest; /* along: the step of a thread, in whole runs and the rest */
    Divider columns;              /* of V outputs in a run */
};
typedef ReduceOf<const float *> Reduce;

MDL_DEVICE int64_t walk_offset(const Walk &w, int64_t index)
{
    if (w.rank <= 1)
        return w.rank == 0 ? 0 : index * w.stride[0];
    int64_t offset = 0;
    int left = (int)index;
#pragma unroll
    for (int d = 0; d < HALF; d++) {
        if (d >= w.rank)
            break;
        int rest;
        left = divide_rest(left, w.dim[d], &rest);
        offset += rest * w.stride[d];
    }
    return offset;
}

template <class Op, int V> MDL_DEVICE Floats<V> join(const Floats<V> &a, const Floats<V> &b)
{
    Floats<V> c;
#pragma unroll
    for (int e = 0; e < V; e++)
        c.at[e] = Op::join(a.at[e], b.at[e]);
    return c;
}

template <class Op, int V> MDL_DEVICE Floats<V> start(void)
{
    Floats<V> c;
#pragma unroll
    for (int e = 0; e < V; e++)
        c.at[e] = Op::template start<float>();
    return c;
}

/* total joined with v[0] ... v[N - 1] as a tree */
template <class Op, int N, int V> MDL_DEVICE void join_all(Floats<V> &total, Floats<V> (&v)[N])
{
#pragma unroll
    for (int width = N / 2; width > 0; width /= 2)
#pragma unroll
        for (int u = 0; u < width; u++)
            v[u] = join<Op>(v[u], v[u + width]);
    total = join<Op>(total, v[0]);
}

template <class Op, int V> MDL_DEVICE float join_lanes(const Floats<V> &v)
{
    float r = v.at[0];
#pragma unroll
    for (int e = 1; e < V; e++)
        r = Op::join(r, v.at[e]);
    return r;
}

template <class Elements>
MDL_DEVICE void finish(const ReduceOf<Elements> &r, int64_t i, float value)
{
    r.y[i] = r.accumulate ? r.y[i] + value * r.scale : value * r.scale;
}

/* ----------------------------------------------------------------------- along */

/* What thread `first` of `threads` finds in elements [from, to) of one output. */
template <class Op, int V, class Elements>
MDL_DEVICE float scan(const ReduceOf<Elements> &r, Elements x, int64_t from, int64_t to)
{
    enum { N = loads(V) / 2 };
    Floats<V> total = start<Op, V>();
    const bool runs = r.reduced.count > 1;
    int64_t row = runs ? from / r.run : 0, column = from - row * r.run;
    while (from < to) {
        Floats<V> v[N];
#pragma unroll
        for (int u = 0; u < N; u++) {
            v[u] = start<Op, V>();
            if (from < to)
                v[u] = load_floats<V>(x + walk_offset(r.reduced, row) + column);
            from += r.width * V;
            row += r.step_runs;
            column += r.step_rest;
            if (runs && column >= r.run) {
                column -= r.run;
                row++;
            }
        }
        join_all<Op, N>(total, v);
    }
    return join_lanes<Op>(total);
}

/* `width` lanes per output. Loads of 8: ptxas finds too few registers where it is not told how many
 * blocks a multiprocessor should hold. */
template <class Op, int V, class Elements>
static __global__ void __launch_bounds__(BLOCK, V == 8 ? 4 : 0)
    reduce_short(const ReduceOf<Elements> r)
{
    const int64_t thread = (int64_t)blockIdx.x * BLOCK + threadIdx.x;
    const int64_t out = thread / r.width;
    const int64_t all = out < r.kept.count ? r.part : 0;
    const Elements x = r.x + (all > 0 ? walk_offset(r.kept, out) : 0);
    const float value = warp_reduce<Op>(scan<Op, V>(r, x, threadIdx.x % r.width * V, all), r.width);
    if (all > 0 && threadIdx.x % r.width == 0)
        finish(r, out, value);
}

/* A block per part of an output. */
template <class Op, int V, class Elements>
static __global__ void __launch_bounds__(BLOCK) reduce_long(const ReduceOf<Elements> r)
{
    __shared__ float part[WARPS];
    const unsigned parts = (unsigned)r.parts;
    const int64_t out = blockIdx.x / parts, from = blockIdx.x % parts * r.part;
    const int64_t all = r.run * r.reduced.count;
    const int64_t to = from + r.part < all ? from + r.part : all;
    const Elements x = r.x + walk_offset(r.kept, out);
    const float value =
        block_reduce<Op, WARPS>(scan<Op, V>(r, x, from + threadIdx.x * V, to), part);
    if (threadIdx.x == 0)
        finish(r, blockIdx.x, value);
}

/* ---------------------------------------------------------------------- across */

/* A thread takes V neighbouring outputs and all their elements. */
template <class Op, int V, class Elements>
static __global__ void __launch_bounds__(BLOCK) reduce_few(const ReduceOf<Elements> r)
{
    const int64_t i = (int64_t)blockIdx.x * BLOCK + threadIdx.x;
    if (i * V >= r.kept.count * r.run)
        return;
    int64_t above = 0;
    if (r.kept.count > 1)
        above = divide_large(i, r.columns);
    const int64_t column = i * V - above * r.run;
    const Elements x = r.x + walk_offset(r.kept, above) + column;
    Floats<V> total = start<Op, V>();
    for (int k = 0; k < (int)r.reduced.count; k += loads(V)) {
        Floats<V> v[loads(V)];
#pragma unroll
        for (int u = 0; u < loads(V); u++) {
            v[u] = start<Op, V>();
            if (k + u < (int)r.reduced.count)
                v[u] = load_floats<V>(x + walk_offset(r.reduced, k + u));
        }
        join_all<Op, loads(V)>(total, v);
    }
#pragma unroll
    for (int e = 0; e < V; e++)
        finish(r, i * V + e, total.at[e]);
}

/* A block takes width x V neighbouring outputs and `part` rows of their elements. Blocks:
 * outer outputs x tiles x blocks of columns. */
template <class Op, int V, class Elements>
static __global__ void __launch_bounds__(BLOCK)
    reduce_tile(const ReduceOf<Elements> r, Divider cuts)
{
    enum { N = loads(V) / 2 };
    __shared__ float part[WARPS][WARP * V];
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, width = r.width;
    int cut;
    const int above = divide_rest((int)blockIdx.x, cuts, &cut);
    const int64_t out = r.first + above / (int)r.parts, tile = above % (int)r.parts;
    const int64_t column = ((int64_t)cut * width + lane % width) * V;
    const int height = BLOCK / width;
    const int64_t end =
        (tile + 1) * r.part < r.reduced.count ? (tile + 1) * r.part : r.reduced.count;
    const Elements x = r.x + walk_offset(r.kept, out) + column;
    Floats<V> total = start<Op, V>();
    int64_t k = tile * r.part + warp * (WARP / width) + lane / width;
    for (; column < r.run && k < end; k += (int64_t)N * height) {
        Floats<V> v[N];
#pragma unroll
        for (int u = 0; u < N; u++) {
            v[u] = start<Op, V>();
            if (k + u * height < end)
                v[u] = load_floats<V>(x + walk_offset(r.reduced, k + u * height));
        }
        join_all<Op, N>(total, v);
    }
#pragma unroll
    for (int e = 0; e < V; e++) {
        for (int step = WARP / 2; step >= width; step /= 2)
            total.at[e] = Op::join(total.at[e], __shfl_xor_sync(ALL_LANES, total.at[e], step));
        if (lane < width)
            part[warp][lane * V + e] = total.at[e];
    }
    __syncthreads();
    const int64_t mine = (int64_t)cut * width * V + threadIdx.x;
    if ((int)threadIdx.x >= width * V || mine >= r.run)
        return;
    float value = part[0][threadIdx.x];
#pragma unroll
    for (int w = 1; w < WARPS; w++)
        value = Op::join(value, part[w][threadIdx.x]);
    finish(r, above * r.run + mine, value);
}

/* ----------------------------------------------------------------------- plans */

static void walk_add(Walk *w, int64_t dim, int64_t stride)
{
    w->dim[w->rank] = divider_new(int_min(dim, INDEX_MOST));
    w->stride[w->rank++] = stride;
    w->count *= dim;
}

static bool walk_fits(const Walk *w)
{
    return w->rank <= 1 || w->count <= INDEX_MOST;
}

/* Is the last dimension kept? */
template <class Elements>
static bool plan(ReduceOf<Elements> *r, int rank, const int64_t *dim, unsigned mask)
{
    int64_t size[RANK], total;
    bool cut[RANK];
    int n = 0;
    for (int d = 0; d < rank; d++) {
        const bool reduced = mask >> d & 1;
        if (dim[d] == 1)
            continue;
        if (n > 0 && cut[n - 1] == reduced) {
            size[n - 1] *= dim[d];
            continue;
        }
        size[n] = dim[d];
        cut[n++] = reduced;
    }
    if (n == 0) {
        size[0] = 1;
        cut[n++] = false;
    }
    memset(&r->kept, 0, sizeof r->kept);
    memset(&r->reduced, 0, sizeof r->reduced);
    r->kept.count = r->reduced.count = 1;
    r->run = total = size[n - 1];
    for (int d = n - 2; d >= 0; d--) {
        walk_add(cut[d] ? &r->reduced : &r->kept, size[d], total);
        total *= size[d];
    }
    return !cut[n - 1];
}

/* ------------------------------------------------------------------- launches */

static int power_of_two(int64_t least, int most)
{
    int p = 1;
    while (p < least && p < most)
        p *= 2;
    return p;
}

template <class Op, int V, class Elements>
static int launch_along(const Gpu *gpu, ReduceOf<Elements> r)
{
    const int64_t all = r.run * r.reduced.count;
    r.width = all <= SHORT ? power_of_two(ceil_div(all, 4 * V), WARP) : BLOCK;
    r.step_runs = r.reduced.count > 1 ? r.width * V / r.run : 0;
    r.step_rest = r.width * V - r.step_runs * r.run;
    if (all <= SHORT) {
        const int64_t blocks = ceil_div(r.kept.count * r.width, BLOCK);
        r.part = all;
        reduce_short<Op, V><<<(unsigned)blocks, BLOCK, 0, gpu->compute>>>(r);
    } else {
        const int64_t blocks = r.kept.count * r.parts;
        reduce_long<Op, V><<<(unsigned)blocks, BLOCK, 0, gpu->compute>>>(r);
    }
    return launch_status();
}

template <class Op, int V, class Elements>
static int launch_across(const Gpu *gpu, ReduceOf<Elements> r, int64_t outer)
{
    const int64_t columns = r.run / V;
    if (r.reduced.count <= FEW) {
        if (r.kept.count > 1 && columns > INDEX_MOST)
            return (int)cudaErrorInvalidValue;
        r.columns = divider_new(int_min(columns, INDEX_MOST));
        const int64_t blocks = ceil_div(outer * columns, BLOCK);
        reduce_few<Op, V><<<(unsigned)blocks, BLOCK, 0, gpu->compute>>>(r);
        return launch_status();
    }
    const int64_t cuts = ceil_div(columns, r.width), blocks = outer * r.parts * cuts;
    reduce_tile<Op, V><<<(unsigned)blocks, BLOCK, 0, gpu->compute>>>(r, divider_new(cuts));
    return launch_status();
}

template <class Op, class Elements>
static int reduce(const Gpu *gpu, ReduceOf<Elements> r, int rank, const int64_t *dim, unsigned mask,
                  bool cut);

/* r's parts go to scratch, [outer, parts, run], and are reduced to r.y. */
template <class Op, class Elements, class Launch>
static int in_parts(const Gpu *gpu, const ReduceOf<Elements> *r, int64_t outer, int64_t run,
                    Launch launch)
{
    ReduceOf<Elements> first = *r;
    Reduce second = {};
    first.y = reinterpret_cast<float *>(gpu->scratch);
    first.scale = 1;
    first.accumulate = false;
    const int status = launch(first);
    if (status != 0)
        return status;
    const int64_t dim[3] = {outer, r->parts, run};
    second.x = first.y;
    second.y = r->y;
    second.scale = r->scale;
    second.accumulate = r->accumulate;
    return reduce<Op>(gpu, second, 3, dim, 2, false);
}

template <class Op, class Elements>
static int reduce_along(const Gpu *gpu, ReduceOf<Elements> *r, bool vector, bool cut)
{
    enum { V = VECTOR<Elements> };
    const int64_t all = r->run * r->reduced.count;
    const auto launch = [gpu, vector](const ReduceOf<Elements> &one) {
        return vector ? launch_along<Op, V>(gpu, one) : launch_along<Op, 1>(gpu, one);
    };
    r->part = all;
    if (cut && all > SHORT)
        r->part = int_max(CHUNK, ceil_div(ceil_div(all, MOST_CHUNKS), V) * V);
    r->parts = ceil_div(all, r->part);
    if (all > SHORT && r->kept.count * r->parts > (r->parts > 1 ? ROOM : INT32_MAX))
        return (int)cudaErrorInvalidValue; /* more than 2^36 elements */
    return r->parts == 1 ? launch(*r) : in_parts<Op>(gpu, r, r->kept.count, 1, launch);
}

template <class Op, class Elements>
static int reduce_across(const Gpu *gpu, ReduceOf<Elements> *r, bool vector, bool cut)
{
    enum { V = VECTOR<Elements> };
    const int64_t rows = r->reduced.count, run = r->run;
    r->width = power_of_two(vector ? run / V : run, WARP);
    r->parts = 1;
    if (cut && rows > FEW) {
        const int64_t tiles = ceil_div(rows, (int64_t)ROWS * BLOCK / r->width);
        r->parts = int_max(1, int_min(tiles, int_min(MOST_TILES, ROOM / run)));
    }
    r->part = ceil_div(rows, r->parts);
    r->parts = ceil_div(rows, r->part);
    const auto launch = [gpu, vector](const ReduceOf<Elements> &one, int64_t outer) {
        return vector ? launch_across<Op, V>(gpu, one, outer)
                      : launch_across<Op, 1>(gpu, one, outer);
    };
    if (r->parts == 1)
        return launch(*r, r->kept.count);
    const int64_t all = r->kept.count, most = ROOM / (r->parts * run);
    for (r->first = 0; r->first < all; r->first += most) {
        const int64_t outer = int_min(most, all - r->first);
        const auto launch_some = [launch, outer](const ReduceOf<Elements> &one) {
            return launch(one, outer);
        };
        const int status = in_parts<Op>(gpu, r, outer, run, launch_some);
        if (status != 0)
            return status;
        r->y += outer * run;
    }
    return 0;
}

/* cut: elements of an output may be cut into parts. */
template <class Op, class Elements>
static int reduce(const Gpu *gpu, ReduceOf<Elements> r, int rank, const int64_t *dim, unsigned mask,
                  bool cut)
{
    const bool across = plan(&r, rank, dim, mask);
    const bool vector = is_vector<VECTOR<Elements>>(r.run, r.x);
    if (!walk_fits(&r.kept) || !walk_fits(&r.reduced))
        return (int)cudaErrorInvalidValue;
    return across ? reduce_across<Op>(gpu, &r, vector, cut)
                  : reduce_along<Op>(gpu, &r, vector, cut);
}

/* *outs: the number of outputs. Is the set of elements empty? */
static bool is_empty(int rank, const int64_t *dim, unsigned mask, int64_t *outs)
{
    bool empty = false;
    *outs = 1;
    for (int d = 0; d < rank; d++) {
        empty = empty || dim[d] <= 0;
        if ((mask >> d & 1) == 0)
            *outs *= int_max(0, dim[d]);
    }
    return empty;
}

template <class Elements>
static int reduce_sum(const Gpu *gpu, float *y, Elements x, int rank, const int64_t *dim,
                      unsigned mask, double scale, bool accumulate)
{
    int64_t outs;
    ReduceOf<Elements> r = {};
    r.y = y;
    r.x = x;
    r.scale = (float)scale;
    r.accumulate = accumulate;
    if (is_empty(rank, dim, mask, &outs))
        return accumulate ? 0 : gpu_fill(gpu, y, 0, outs);
    return reduce<Sum>(gpu, r, rank, dim, mask, true);
}

extern "C" int gpu_reduce_sum(const Gpu *gpu, float *y, const float *x, int rank,
                              const int64_t *dim, unsigned mask, double scale, bool accumulate)
{
    return reduce_sum(gpu, y, x, rank, dim, mask, scale, accumulate);
}

extern "C" int gpu_reduce_sum_half(const Gpu *gpu, HalfKind kind, float *y, const half16 *x,
                                   int rank, const int64_t *dim, unsigned mask, double scale,
                                   bool accumulate)
{
    return reduce_sum(gpu, y, ConstHalves{x, kind}, rank, dim, mask, scale, accumulate);
}

extern "C" int gpu_reduce_max(const Gpu *gpu, float *y, const float *x, int rank,
                              const int64_t *dim, unsigned mask)
{
    int64_t outs;
    Reduce r = {};
    r.y = y;
    r.x = x;
    r.scale = 1;
    if (is_empty(rank, dim, mask, &outs))
        return gpu_fill(gpu, y, -HUGE_VALF, outs);
    return reduce<Largest>(gpu, r, rank, dim, mask, true);
}

/* ------------------------------------------------------- gradient of a maximum */

typedef struct {
    Reduce shape;
    float *dx;
    const float *dy, *y;
} MaxBack;

MDL_DEVICE bool is_winner(float x, float y)
{
    return x == y || x != x;
}

/* The last dimension is kept: a thread takes an output. */
static __global__ void __launch_bounds__(BLOCK) max_back_across(const MaxBack b)
{
    const Reduce &r = b.shape;
    const int64_t i = (int64_t)blockIdx.x * BLOCK + threadIdx.x;
    if (i >= r.kept.count * r.run)
        return;
    const int64_t above = r.kept.count == 1 ? 0 : i / r.run;
    const int64_t start = walk_offset(r.kept, above) + i - above * r.run;
    const float y = b.y[i], dy = b.dy[i];
    bool found = false;
    for (int64_t k = 0; k < r.reduced.count; k++) {
        const int64_t at = start + walk_offset(r.reduced, k);
        const bool first = !found && is_winner(r.x[at], y);
        b.dx[at] = first ? dy : 0;
        found = found || first;
    }
}

/* A warp takes an output: the first winner among 32 neighbours is the lowest lane that votes. */
static __global__ void __launch_bounds__(BLOCK) max_back_short(const MaxBack b)
{
    const Reduce &r = b.shape;
    const int64_t out = (int64_t)blockIdx.x * WARPS + threadIdx.x / WARP;
    if (out >= r.kept.count)
        return;
    const int lane = threadIdx.x % WARP, all = (int)r.part, run = (int)r.run;
    const int64_t start = walk_offset(r.kept, out);
    const float y = b.y[out], dy = b.dy[out];
    bool found = false;
    for (int from = 0; from < all; from += WARP) {
        const int e = from + lane;
        int64_t at = start;
        bool wins = false;
        if (e < all) {
            at += walk_offset(r.reduced, e / run) + e % run;
            wins = is_winner(r.x[at], y);
        }
        const unsigned votes = __ballot_sync(ALL_LANES, wins);
        const bool first = !found && wins && (votes & ((1u << lane) - 1)) == 0;
        if (e < all)
            b.dx[at] = first ? dy : 0;
        found = found || votes != 0;
    }
}

struct Least {
    static __device__ __forceinline__ int64_t join(int64_t a, int64_t b)
    {
        return a < b ? a : b;
    }
};

/* A block takes an output: finds its first winner, then writes. */
static __global__ void __launch_bounds__(BLOCK) max_back_long(const MaxBack b)
{
    __shared__ int64_t part[WARPS];
    const Reduce &r = b.shape;
    const int64_t start = walk_offset(r.kept, blockIdx.x), all = r.run * r.reduced.count;
    const float y = b.y[blockIdx.x], dy = b.dy[blockIdx.x];
    int64_t first = INT64_MAX;
    for (int64_t e = threadIdx.x; e < all && first == INT64_MAX; e += BLOCK) {
        const int64_t row = r.reduced.count > 1 ? e / r.run : 0;
        if (is_winner(r.x[start + walk_offset(r.reduced, row) + e - row * r.run], y))
            first = e;
    }
    first = block_reduce<Least, WARPS>(first, part);
    for (int64_t e = threadIdx.x; e < all; e += BLOCK) {
        const int64_t row = r.reduced.count > 1 ? e / r.run : 0;
        b.dx[start + walk_offset(r.reduced, row) + e - row * r.run] = e == first ? dy : 0;
    }
}

extern "C" int gpu_reduce_max_backward(const Gpu *gpu, float *dx, const float *dy, const float *x,
                                       const float *y, int rank, const int64_t *dim, unsigned mask)
{
    MaxBack b = {};
    int64_t outs;
    b.shape.x = x;
    b.dx = dx;
    b.dy = dy;
    b.y = y;
    if (is_empty(rank, dim, mask, &outs))
        return 0;
    const bool across = plan(&b.shape, rank, dim, mask);
    const Reduce *r = &b.shape;
    if (!walk_fits(&r->kept) || !walk_fits(&r->reduced))
        return (int)cudaErrorInvalidValue;
    b.shape.part = r->run * r->reduced.count;
    if (across)
        max_back_across<<<(unsigned)ceil_div(outs, BLOCK), BLOCK, 0, gpu->compute>>>(b);
    else if (r->part <= SHORT)
        max_back_short<<<(unsigned)ceil_div(outs, WARPS), BLOCK, 0, gpu->compute>>>(b);
    else
        max_back_long<<<(unsigned)outs, BLOCK, 0, gpu->compute>>>(b);
    return launch_status();
}
