/* embedding.cu - rows of a table by number, and their sums.
 *
 * The gradient takes the rows in segments, one after the other. A segment's keys, id * 2^32 +
 * row, are sorted by a bitonic network in shared memory, TILE at a time; no two are equal, so a
 * key's place among all tiles is the number of smaller keys in each, found by bisection. Equal
 * ids are then neighbours, in row order: the warps that find themselves at the first of a run add
 * up its rows, each some columns. A run is added up in row order and so like nothing else: the
 * result does not depend on how the sort went.
 */
#include "rows.cuh"

enum { TILE = 4096, SEGMENT = 1 << 16, SORT_BLOCK = 1024, BLOCK = 256 };
enum { AT_ONCE = 4 /* rows of a run that are loaded together */ };
enum { MOST_CUTS = 65535 /* of the columns: blocks along y */ };
static_assert(2 * SEGMENT * sizeof(uint64_t) <= GPU_SCRATCH, "a segment's keys fit twice");

typedef unsigned long long Key;

/* --------------------------------------------------------------------- forward */

/* A warp takes AT_ONCE x V x WARP elements of a row. */
template <int V>
static __global__ void __launch_bounds__(row_threads(1))
    gather_rows(float *__restrict__ y, const int32_t *__restrict__ ids, const float *__restrict__ w,
                int64_t pieces, int64_t n, Divider cuts)
{
    const int64_t piece = row_here<1>();
    if (piece >= pieces)
        return;
    const int64_t row = divide_large(piece, cuts);
    const int64_t from = (piece - row * cuts.by) * AT_ONCE * V * WARP;
    Floats<V> v[AT_ONCE];
    load_row<1>(v, w + ids[row] * n, from, n, 0);
    store_row<1>(y + row * n, v, from, n);
}

extern "C" int gpu_embedding_forward(const Gpu *gpu, float *y, const int32_t *ids, const float *w,
                                     int64_t rows, int64_t n)
{
    if (rows <= 0 || n <= 0)
        return 0;
    const bool vector = is_vector(n, y, w);
    const int64_t cuts = ceil_div(n, AT_ONCE * WARP * (vector ? 4 : 1)), pieces = rows * cuts;
    const auto kernel = vector ? gather_rows<4> : gather_rows<1>;
    kernel<<<row_blocks<1>(pieces), row_block<1>(), 0, gpu->compute>>>(y, ids, w, pieces, n,
                                                                       divider_new(cuts));
    return launch_status();
}

/* ------------------------------------------------------------------------ sort */

MDL_DEVICE void order(Key *a, Key *b, bool up)
{
    const Key low = *a < *b ? *a : *b, high = *a < *b ? *b : *a;
    *a = up ? low : high;
    *b = up ? high : low;
}

/* Sorts tile blockIdx.x of a segment of `rows` ids, 4 x blockDim.x keys; places past
 * the end hold the largest key. */
static __global__ void __launch_bounds__(SORT_BLOCK)
    sort_tiles(Key *__restrict__ keys, const int32_t *__restrict__ ids, int rows)
{
    __shared__ Key key[TILE];
    const int size = 4 * blockDim.x, tile = blockIdx.x * size;
    for (int i = threadIdx.x; i < size; i += blockDim.x)
        key[i] =
            tile + i < rows ? (Key)(uint32_t)ids[tile + i] << 32 | (uint32_t)(tile + i) : ~0ull;
    for (int run = 2; run <= size; run *= 2) {
        for (int apart = run / 2; apart > 0; apart /= 2) {
            __syncthreads();
            for (int pair = threadIdx.x; pair < size / 2; pair += blockDim.x) {
                const int i = 2 * pair - (pair & (apart - 1));
                order(&key[i], &key[i + apart], (i & run) == 0);
            }
        }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < size; i += blockDim.x)
        if (tile + i < rows)
            keys[tile + i] = key[i];
}

/* The number of keys below `key` among the n of a sorted tile. */
MDL_DEVICE int count_below(const Key *tile, int n, Key key)
{
    int low = 0;
    while (n > 0) {
        const int half = n / 2;
        const bool below = tile[low + half] < key;
        low += below ? half + 1 : 0;
        n = below ? n - half - 1 : half;
    }
    return low;
}

static __global__ void __launch_bounds__(BLOCK)
    merge_tiles(Key *__restrict__ sorted, const Key *__restrict__ keys, int rows)
{
    const int i = blockIdx.x * BLOCK + threadIdx.x;
    if (i >= rows)
        return;
    const Key key = keys[i];
    int place = i % TILE;
    for (int tile = 0; tile < rows; tile += TILE)
        if (tile != i / TILE * TILE)
            place += count_below(keys + tile, min(TILE, rows - tile), key);
    sorted[place] = key;
}

/* ------------------------------------------------------------------------ sums */

/* Adds to V columns of a weight's row those of the run of `id` that begins at `place`. */
template <int V>
MDL_DEVICE void add_run(float *to, const float *__restrict__ dy, const Key *__restrict__ sorted,
                        int place, int rows, int64_t n, uint32_t id)
{
    Floats<V> sum = load_floats<V>(to);
    for (int i = place; i < rows; i += AT_ONCE) {
        Floats<V> v[AT_ONCE];
        int count = 0;
#pragma unroll
        for (int u = 0; u < AT_ONCE; u++) {
            const Key key = sorted[min(i + u, rows - 1)];
            if (i + u < rows && (uint32_t)(key >> 32) == id) {
                v[u] = load_floats<V>(dy + (int64_t)(uint32_t)key * n);
                count = u + 1;
            }
        }
#pragma unroll
        for (int u = 0; u < AT_ONCE; u++)
#pragma unroll
            for (int e = 0; e < V; e++)
                sum.at[e] += u < count ? v[u].at[e] : 0;
        if (count < AT_ONCE)
            break;
    }
    store_floats(to, sum);
}

/* A warp takes V x WARP columns at a time of the run that begins at its place among the sorted
 * keys, and nothing where none begins. */
template <int V>
static __global__ void __launch_bounds__(row_threads(1))
    add_runs(float *__restrict__ dw, const float *__restrict__ dy, const Key *__restrict__ sorted,
             int rows, int64_t n)
{
    const int place = (int)row_here<1>();
    if (place >= rows)
        return;
    const uint32_t id = (uint32_t)(sorted[place] >> 32);
    if (place > 0 && (uint32_t)(sorted[place - 1] >> 32) == id)
        return;
    for (int64_t column = ((int64_t)blockIdx.y * WARP + threadIdx.x) * V; column < n;
         column += (int64_t)gridDim.y * WARP * V)
        add_run<V>(dw + id * n + column, dy + column, sorted, place, rows, n, id);
}

/* sorted: where the keys of the segment's rows are, in order. */
static int sort_segment(const Gpu *gpu, Key **sorted, const int32_t *ids, int rows)
{
    Key *const keys = reinterpret_cast<Key *>(gpu->scratch);
    int threads = WARP;
    while (threads < SORT_BLOCK && 4 * threads < rows)
        threads *= 2;
    sort_tiles<<<(unsigned)ceil_div(rows, TILE), threads, 0, gpu->compute>>>(keys, ids, rows);
    const int status = launch_status();
    *sorted = keys;
    if (status != 0 || rows <= TILE)
        return status;
    *sorted = keys + SEGMENT;
    merge_tiles<<<(unsigned)ceil_div(rows, BLOCK), BLOCK, 0, gpu->compute>>>(*sorted, keys, rows);
    return launch_status();
}

extern "C" int gpu_embedding_backward_weight(const Gpu *gpu, float *dw, const float *dy,
                                             const int32_t *ids, int64_t rows, int64_t count,
                                             int64_t n, bool accumulate)
{
    int status = accumulate ? 0 : gpu_fill(gpu, dw, 0, count * n);
    const bool vector = is_vector(n, dw, dy);
    const unsigned cuts = (unsigned)int_min(ceil_div(n, WARP * (vector ? 4 : 1)), MOST_CUTS);
    for (int64_t first = 0; status == 0 && n > 0 && first < rows; first += SEGMENT) {
        const int now = (int)int_min(SEGMENT, rows - first);
        Key *sorted;
        status = sort_segment(gpu, &sorted, ids + first, now);
        if (status != 0)
            break;
        const auto kernel = vector ? add_runs<4> : add_runs<1>;
        kernel<<<dim3(row_blocks<1>(now), cuts), row_block<1>(), 0, gpu->compute>>>(
            dw, dy + first * n, sorted, now, n);
        status = launch_status();
    }
    return status;
}
