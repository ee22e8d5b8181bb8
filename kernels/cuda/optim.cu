/* optim.cu - one step of an optimizer over all weights of a stage, in one pass.
 *
 * In: a table of weights, and the numbers of the step as the host's own optimizers compute them.
 * The table is the kernel's parameter, so that nothing is copied before; a longer one takes several
 * launches. A weight is cut into at most PARTS tiles, whose size depends on its length alone; a
 * block looks up its weight, updates the tile, rounds it to 16 bits where a copy is wanted, and
 * adds up the squares of the unscaled gradients in double. A second kernel adds up the tiles of
 * each weight that has several, in order. Rounding alone goes the same way without sums.
 */
#include "common.cuh"
#include "half.cuh"

#include <math.h>

enum { BLOCK = 256, WARPS = BLOCK / WARP, PARTS = 2048, LEAST = 4096 };
/* What fits the 4 KB of a kernel's parameters; sums of tiles in scratch. */
enum { WEIGHTS = 70, SUMS = 336, ROOM = (int)(GPU_SCRATCH / sizeof(double)) };

typedef enum { NOTHING, SGD, ADAM, ROUND } Rule;

typedef struct {
    float scale, lr, decay, momentum, keep2, take1, take2, root, eps, step;
    HalfKind kind;
    bool first, nesterov;
} Numbers;

typedef struct {
    float *w, *m, *v;
    const float *g;
    half16 *half;
    int64_t n;
    int first;            /* tile of the launch */
    unsigned vector : 1;  /* 16 bytes at a time? */
    unsigned square : 31; /* which sum of squares is the weight's */
} Weight;

typedef struct {
    double *squares;
    double *tile_sums; /* [tiles of the launch], of weights with several */
    Numbers numbers;
    int count;
    Weight at[WEIGHTS];
} Table;
static_assert(sizeof(Table) <= 4096, "parameters of a kernel");

typedef struct {
    double *squares;
    const double *tile_sums;
    struct {
        int first, tiles, square;
    } at[SUMS];
} Sums;
static_assert(sizeof(Sums) <= 4096, "parameters of a kernel");

/* Elements of a tile, a multiple of LEAST. */
static __host__ __device__ __forceinline__ int64_t tile_size(int64_t n)
{
    const int64_t size = ((n + PARTS - 1) / PARTS + LEAST - 1) / LEAST * LEAST;
    return size > 0 ? size : (int64_t)LEAST;
}

MDL_DEVICE void sgd_element(const Numbers &u, float &w, float g, float &buffer)
{
    const float d = g * u.scale + u.decay * w;
    buffer = u.momentum * buffer + d;
    w -= u.lr * (u.nesterov ? d + u.momentum * buffer : buffer);
}

MDL_DEVICE void adam_element(const Numbers &u, float &w, float g, float &m, float &v)
{
    const float d = g * u.scale;
    m = mdl_fma(d - m, u.take1, m);
    v = mdl_fma(d, u.take2 * d, v * u.keep2);
    w = w * u.decay - u.step * (m / (mdl_sqrt(v) / u.root + u.eps));
}

/* Elements i ... i + V - 1; returns the sum of their squares. */
template <Rule RULE, int V>
MDL_DEVICE double update_elements(const Numbers &u, const Weight &t, int64_t i)
{
    if (RULE == ROUND) {
        store_floats(Halves{t.half + i, u.kind}, load_floats<V>(t.w + i));
        return 0;
    }
    const Floats<V> g = load_floats<V>(t.g + i);
    double sum = 0;
#pragma unroll
    for (int e = 0; e < V; e++)
        sum += (double)g.at[e] * (double)g.at[e];
    if (RULE == NOTHING)
        return sum;
    Floats<V> w = load_floats<V>(t.w + i), m = {}, v = {};
    if (RULE == ADAM || (t.m && !u.first)) /* nobody has written the buffer of a first step */
        m = load_floats<V>(t.m + i);
    if (RULE == ADAM)
        v = load_floats<V>(t.v + i);
#pragma unroll
    for (int e = 0; e < V; e++) {
        if (RULE == ADAM)
            adam_element(u, w.at[e], g.at[e], m.at[e], v.at[e]);
        else if (t.m)
            sgd_element(u, w.at[e], g.at[e], m.at[e]);
        else
            w.at[e] -= u.lr * (g.at[e] * u.scale + u.decay * w.at[e]);
    }
    store_floats(t.w + i, w);
    if (RULE == ADAM || t.m)
        store_floats(t.m + i, m);
    if (RULE == ADAM)
        store_floats(t.v + i, v);
    if (t.half)
        store_floats(Halves{t.half + i, u.kind}, w);
    return sum;
}

/* The last weight whose tiles begin at `tile` or before. */
MDL_DEVICE int find_weight(const Table &t, int tile)
{
    int low = 0, high = t.count - 1;
    while (low < high) {
        const int middle = (low + high + 1) / 2;
        if (t.at[middle].first <= tile)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

template <Rule RULE>
static __global__ void __launch_bounds__(BLOCK) update_tiles(const __grid_constant__ Table table)
{
    __shared__ double part[WARPS];
    const Weight t = table.at[find_weight(table, (int)blockIdx.x)];
    const int64_t size = tile_size(t.n), from = ((int)blockIdx.x - t.first) * size;
    const int64_t end = from + size < t.n ? from + size : t.n;
    const int64_t even = t.vector ? end - end % 4 : from;
    double sum = 0;
    for (int64_t i = from + threadIdx.x * 4; i < even; i += BLOCK * 4)
        sum += update_elements<RULE, 4>(table.numbers, t, i);
    for (int64_t i = even + threadIdx.x; i < end; i += BLOCK)
        sum += update_elements<RULE, 1>(table.numbers, t, i);
    if (RULE == ROUND)
        return;
    sum = block_sum<WARPS>(sum, part);
    if (threadIdx.x == 0)
        *(t.n <= size ? table.squares + t.square : table.tile_sums + blockIdx.x) = sum;
}

/* A block for each weight with several tiles. */
static __global__ void __launch_bounds__(BLOCK) combine_squares(const __grid_constant__ Sums sums)
{
    __shared__ double part[WARPS];
    const int first = sums.at[blockIdx.x].first, tiles = sums.at[blockIdx.x].tiles;
    double sum = 0;
    for (int i = threadIdx.x; i < tiles; i += BLOCK)
        sum += sums.tile_sums[first + i];
    sum = block_sum<WARPS>(sum, part);
    if (threadIdx.x == 0)
        sums.squares[sums.at[blockIdx.x].square] = sum;
}

/* ------------------------------------------------------------------- launches */

/* What is gathered for the next launches. */
typedef struct {
    const Gpu *gpu;
    Rule rule;
    int tiles;   /* of the table */
    int sums;    /* in scratch, of tables that were launched */
    int several; /* weights with several tiles */
    Table table;
    Sums combined;
} Launches;

static int launch_table(Launches *l)
{
    if (l->table.count == 0)
        return 0;
    const auto kernel = l->rule == ADAM    ? update_tiles<ADAM>
                        : l->rule == SGD   ? update_tiles<SGD>
                        : l->rule == ROUND ? update_tiles<ROUND>
                                           : update_tiles<NOTHING>;
    l->table.tile_sums = reinterpret_cast<double *>(l->gpu->scratch) + l->sums;
    kernel<<<(unsigned)l->tiles, BLOCK, 0, l->gpu->compute>>>(l->table);
    l->sums += l->tiles;
    l->tiles = l->table.count = 0;
    return launch_status();
}

/* Everything that was gathered. */
static int launch_all(Launches *l)
{
    const int status = launch_table(l), several = l->several;
    l->sums = l->several = 0;
    if (status != 0 || several == 0)
        return status;
    combine_squares<<<(unsigned)several, BLOCK, 0, l->gpu->compute>>>(l->combined);
    return launch_status();
}

/* What the rule makes use of. */
static Weight weight_new(const Launches *l, const GpuWeight *w)
{
    Weight t = {};
    t.g = w->g;
    t.n = w->n;
    t.first = l->tiles;
    t.square = (unsigned)w->square;
    if (l->rule != NOTHING) {
        t.w = w->w;
        t.m = l->rule == ADAM || l->table.numbers.momentum != 0 ? w->m : NULL;
        t.v = l->rule == ADAM ? w->v : NULL;
        t.half = w->half;
    }
    t.vector = is_vector(0, t.w, t.m, t.v, t.g, t.half);
    return t;
}

static int add_weight(Launches *l, const GpuWeight *w)
{
    const int tiles = (int)int_max(1, ceil_div(w->n, tile_size(w->n)));
    int status = 0;
    if (l->sums + l->tiles + tiles > ROOM || l->several == SUMS)
        status = launch_all(l);
    else if (l->table.count == WEIGHTS)
        status = launch_table(l);
    if (tiles > 1 && l->rule != ROUND)
        l->combined.at[l->several++] = {l->sums + l->tiles, tiles, w->square};
    l->table.at[l->table.count++] = weight_new(l, w);
    l->tiles += tiles;
    return status;
}

static int update(const Gpu *gpu, Rule rule, double *squares, const GpuWeight *weights, int count,
                  const Numbers &numbers)
{
    Launches l = {};
    l.gpu = gpu;
    l.rule = rule;
    l.table.squares = l.combined.squares = squares;
    l.combined.tile_sums = reinterpret_cast<const double *>(gpu->scratch);
    l.table.numbers = numbers;
    for (int i = 0; i < count; i++) {
        const int status = add_weight(&l, &weights[i]);
        if (status != 0)
            return status;
    }
    return launch_all(&l);
}

extern "C" int gpu_sgd_update_all(const Gpu *gpu, double *squares, const GpuWeight *weights,
                                  int count, HalfKind kind, const Hyper *h)
{
    Numbers u = {};
    u.scale = (float)h->grad_scale;
    u.lr = (float)h->lr;
    u.decay = (float)h->weight_decay;
    u.momentum = (float)h->momentum;
    u.first = h->step <= 1;
    u.nesterov = h->nesterov;
    u.kind = kind;
    return update(gpu, SGD, squares, weights, count, u);
}

static int adam(const Gpu *gpu, double *squares, const GpuWeight *weights, int count, HalfKind kind,
                const Hyper *h, double decay)
{
    const double step = (double)h->step;
    Numbers u = {};
    u.scale = (float)h->grad_scale;
    u.take1 = (float)(1 - h->beta1);
    u.keep2 = (float)h->beta2;
    u.take2 = (float)(1 - h->beta2);
    u.root = (float)sqrt(1 - pow(h->beta2, step));
    u.step = (float)(h->lr / (1 - pow(h->beta1, step)));
    u.eps = (float)h->eps;
    u.decay = (float)decay;
    u.kind = kind;
    return update(gpu, ADAM, squares, weights, count, u);
}

extern "C" int gpu_adam_update_all(const Gpu *gpu, double *squares, const GpuWeight *weights,
                                   int count, HalfKind kind, const Hyper *h)
{
    return adam(gpu, squares, weights, count, kind, h, 1);
}

extern "C" int gpu_adamw_update_all(const Gpu *gpu, double *squares, const GpuWeight *weights,
                                    int count, HalfKind kind, const Hyper *h)
{
    return adam(gpu, squares, weights, count, kind, h, 1 - h->lr * h->weight_decay);
}

extern "C" int gpu_sum_squares_all(const Gpu *gpu, double *squares, const GpuWeight *weights,
                                   int count)
{
    return update(gpu, NOTHING, squares, weights, count, Numbers{});
}

extern "C" int gpu_half_round_all(const Gpu *gpu, const GpuWeight *weights, int count,
                                  HalfKind kind)
{
    Numbers u = {};
    u.kind = kind;
    return update(gpu, ROUND, NULL, weights, count, u);
}

/* --------------------------------------------------------------- of one weight */

extern "C" int gpu_sgd_update(const Gpu *gpu, double *squares, float *w, const float *g,
                              float *velocity, int64_t n, const Hyper *h)
{
    const GpuWeight one = {w, g, velocity, NULL, NULL, n, 0};
    return gpu_sgd_update_all(gpu, squares, &one, 1, HALF_BF16, h);
}

extern "C" int gpu_adam_update(const Gpu *gpu, double *squares, float *w, const float *g, float *m,
                               float *v, int64_t n, const Hyper *h)
{
    const GpuWeight one = {w, g, m, v, NULL, n, 0};
    return gpu_adam_update_all(gpu, squares, &one, 1, HALF_BF16, h);
}

extern "C" int gpu_adamw_update(const Gpu *gpu, double *squares, float *w, const float *g, float *m,
                                float *v, int64_t n, const Hyper *h)
{
    const GpuWeight one = {w, g, m, v, NULL, n, 0};
    return gpu_adamw_update_all(gpu, squares, &one, 1, HALF_BF16, h);
}

extern "C" int gpu_sum_squares(const Gpu *gpu, double *squares, const float *g, int64_t n)
{
    const GpuWeight one = {NULL, g, NULL, NULL, NULL, n, 0};
    return gpu_sum_squares_all(gpu, squares, &one, 1);
}
