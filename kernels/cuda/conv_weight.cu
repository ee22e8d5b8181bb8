/* conv_weight.cu - the gradient of a convolution's weight.
 *
 *     dw[k][c][tap] = sum over samples and output pixels of dy[k][pixel] x[c][pixel + tap]
 *
 * A product whose depth is all pixels of all samples: tiles of dw, with patches of x gathered
 * into shared memory. The pixels are cut into slices, as many as keep a GPU busy and as the
 * shape alone decides; each slice has sums of its own in scratch, added in order by a second
 * kernel. Groups of few output channels, depthwise ones above all, are summed directly, some
 * taps of one filter plane a warp.
 */
#include "conv.cuh"
#include "product_tile.cuh"

enum {
    BLOCK = 256,
    DIRECT_TAPS = 4, /* of a warp */
    ADD_LINES = BLOCK / WARP,
    BLOCKS_WANTED = 432,
    WARPS_WANTED = 4096,
    SLICES_MOST = 256,
    SLICE_LEAST = 256,    /* pixels */
    SLICE_MOST = 1 << 14, /* pixels, where there is room: longer sums lose digits */
    ROOM = GPU_SCRATCH / (int)sizeof(float)
};

typedef struct {
    int H, W, OW, plane, pixels; /* plane: of x; pixels: of a plane of dy */
    int64_t x_sample, dy_sample; /* elements */
    int count;                   /* pixels of all samples */
    int per, channels, groups;   /* output and input channels of a group */
    int kernel, taps, stride, pad;
    int slices, slice; /* pixels of a slice */
    int tiles_m, tiles_n;
    int64_t weights;
    Divider by_pixels, by_columns, by_taps, by_kernel;
    bool add; /* to what dw holds */
} WeightShape;

typedef struct {
    int sample, pixel, h, w; /* (h, w): where tap (0, 0) of it is in x */
} Place;

MDL_DEVICE Place place_at(const WeightShape &s, int n)
{
    Place p;
    int j;
    p.sample = divide_rest(n, s.by_pixels, &p.pixel);
    p.h = divide_rest(p.pixel, s.by_columns, &j) * s.stride - s.pad;
    p.w = j * s.stride - s.pad;
    return p;
}

MDL_DEVICE bool is_inside(const WeightShape &s, int h, int w)
{
    return (unsigned)h < (unsigned)s.H && (unsigned)w < (unsigned)s.W;
}

/* ------------------------------------------------------------------- product */

/* What one thread carries from device memory to shared memory: one pixel of STEP-th rows of
 * dy, [BK][BM], and of STEP-th columns (channel and tap) of the patches, [BK][BN]. */
template <class Tile> struct WeightCarrier {
    enum {
        BK = Tile::BK,
        PITCH_A = Tile::BM + 4, /* so that a warp's 8 pixels x 4 rows fall into 32 banks */
        PITCH_B = Tile::BN + 4,
        STEP = Tile::THREADS / BK,
        A_LOADS = Tile::BM / STEP,
        B_LOADS = Tile::BN / STEP
    };
    float a[A_LOADS], b[B_LOADS];
    int m, rows; /* the first row, and how many there are from it */
    int offset[B_LOADS], h[B_LOADS], w[B_LOADS];

    __device__ __forceinline__ void place(const WeightShape &s, int m0, int n0)
    {
        const int line = (int)threadIdx.x / BK;
        m = m0 + line;
        rows = s.per - m;
#pragma unroll
        for (int i = 0; i < B_LOADS; i++) {
            const int n = n0 + line + i * STEP;
            int tap;
            const int channel = divide_rest(n, s.by_taps, &tap);
            h[i] = divide_rest(tap, s.by_kernel, &w[i]);
            offset[i] = channel * s.plane + h[i] * s.W + w[i];
            if (channel >= s.channels)
                h[i] = INT32_MIN / 2; /* never inside */
        }
    }

    /* dy, x: of the group */
    __device__ __forceinline__ void load(const WeightShape &s, const float *dy, const float *x,
                                         int n, int end)
    {
        n += (int)threadIdx.x % BK;
        const bool counts = n < end;
        const Place p = place_at(s, n);
        const float *from = dy + p.sample * s.dy_sample + (int64_t)m * s.pixels + p.pixel;
#pragma unroll
        for (int i = 0; i < A_LOADS; i++)
            a[i] = counts && i * STEP < rows ? from[i * STEP * s.pixels] : 0;
        from = x + p.sample * s.x_sample + p.h * s.W + p.w;
#pragma unroll
        for (int i = 0; i < B_LOADS; i++)
            b[i] = counts && is_inside(s, p.h + h[i], p.w + w[i]) ? from[offset[i]] : 0;
    }

    __device__ __forceinline__ void store(float (*to_a)[PITCH_A], float (*to_b)[PITCH_B]) const
    {
        const int line = (int)threadIdx.x / BK, k = (int)threadIdx.x % BK;
#pragma unroll
        for (int i = 0; i < A_LOADS; i++)
            to_a[k][line + i * STEP] = a[i];
#pragma unroll
        for (int i = 0; i < B_LOADS; i++)
            to_b[k][line + i * STEP] = b[i];
    }
};

/* out: dw, or [slices][weights] */
template <class Tile>
static __global__ void __launch_bounds__(Tile::THREADS, Tile::MINIMUM)
    conv_weight_product(float *__restrict__ out, const float *__restrict__ dy,
                        const float *__restrict__ x, WeightShape s)
{
    typedef WeightCarrier<Tile> Carrier;
    __shared__ __align__(16) float a[2][Tile::BK][Carrier::PITCH_A];
    __shared__ __align__(16) float b[2][Tile::BK][Carrier::PITCH_B];
    int rest = (int)blockIdx.x / s.tiles_m;
    const int m0 = (int)blockIdx.x % s.tiles_m * Tile::BM, n0 = rest % s.tiles_n * Tile::BN;
    rest /= s.tiles_n;
    const int group = rest % s.groups, slice = rest / s.groups;
    const int begin = slice * s.slice, end = min(s.count, begin + s.slice);
    dy += (int64_t)group * s.per * s.pixels;
    x += (int64_t)group * s.channels * s.plane;
    Tile tile;
    Carrier carrier;
    carrier.place(s, m0, n0);
    carrier.load(s, dy, x, begin, end);
    carrier.store(a[0], b[0]);
    __syncthreads();
    int buffer = 0;
    for (int n = begin; n < end; n += Tile::BK) {
        const bool more = n + Tile::BK < end;
        if (more)
            carrier.load(s, dy, x, n + Tile::BK, end);
        tile.multiply(a[buffer], b[buffer]);
        buffer ^= 1;
        if (more) {
            carrier.store(a[buffer], b[buffer]);
            __syncthreads();
        }
    }
    const int columns = s.channels * s.taps, right = columns - n0 - tile.column;
    const int below = s.per - m0 - tile.row;
    const bool add = s.add && s.slices == 1;
    out +=
        slice * s.weights + (int64_t)(group * s.per + m0 + tile.row) * columns + n0 + tile.column;
#pragma unroll
    for (int i = 0; i < Tile::TM; i++) {
        if (tile.below(i) >= below)
            break;
        float *to = out + (int64_t)tile.below(i) * columns;
#pragma unroll
        for (int j = 0; j < Tile::TN; j++)
            if (tile.beside(j) < right)
                to[tile.beside(j)] = tile.c[i][j] + (add ? to[tile.beside(j)] : 0);
    }
}

/* -------------------------------------------------------------------- direct */

/* A warp: DIRECT_TAPS taps of one filter plane over one slice. n: warps at work. */
static __global__ void __launch_bounds__(BLOCK)
    conv_weight_direct(float *__restrict__ out, const float *__restrict__ dy,
                       const float *__restrict__ x, WeightShape s, int n)
{
    const int warp = (int)(blockIdx.x * (BLOCK / WARP) + threadIdx.x / WARP);
    if (warp >= n)
        return;
    int rest = warp / s.tiles_m;
    const int first = warp % s.tiles_m * DIRECT_TAPS, channel = rest % s.channels;
    rest /= s.channels;
    const int k = rest % (s.groups * s.per), slice = rest / (s.groups * s.per);
    const int end = min(s.count, (slice + 1) * s.slice);
    dy += (int64_t)k * s.pixels;
    x += ((int64_t)(k / s.per) * s.channels + channel) * s.plane;
    float sum[DIRECT_TAPS] = {};
    for (int i = slice * s.slice + (int)threadIdx.x % WARP; i < end; i += WARP) {
        const Place p = place_at(s, i);
        const float gradient = dy[p.sample * s.dy_sample + p.pixel];
        const float *from = x + p.sample * s.x_sample;
#pragma unroll
        for (int t = 0; t < DIRECT_TAPS; t++) {
            int w;
            const int h = p.h + divide_rest(first + t, s.by_kernel, &w);
            w += p.w;
            if (is_inside(s, h, w))
                sum[t] = fmaf(gradient, from[h * s.W + w], sum[t]);
        }
    }
    out += slice * s.weights + ((int64_t)k * s.channels + channel) * s.taps + first;
#pragma unroll
    for (int t = 0; t < DIRECT_TAPS; t++) {
        const float all = warp_reduce<Sum>(sum[t]);
        if (threadIdx.x % WARP == 0 && first + t < s.taps)
            out[t] = all + (s.add && s.slices == 1 ? out[t] : 0);
    }
}

/* --------------------------------------------------------------------- slices */

/* dw (+)= the slices' sums, in order: a line of a block adds some of them, and one the lines. */
static __global__ void __launch_bounds__(BLOCK)
    conv_weight_add(float *__restrict__ dw, const float *__restrict__ sums, int64_t weights,
                    int slices, bool add)
{
    __shared__ float part[ADD_LINES][WARP];
    const int lane = (int)threadIdx.x % WARP, line = (int)threadIdx.x / WARP;
    const int64_t i = (int64_t)blockIdx.x * WARP + lane;
    const int each = (slices + ADD_LINES - 1) / ADD_LINES;
    const int end = min(slices, (line + 1) * each);
    float sum = 0;
    if (i < weights) {
#pragma unroll 8
        for (int s = line * each; s < end; s++)
            sum += sums[s * weights + i];
    }
    part[line][lane] = sum;
    __syncthreads();
    if (line != 0 || i >= weights)
        return;
#pragma unroll
    for (int l = 1; l < ADD_LINES; l++)
        sum += part[l][lane];
    dw[i] = sum + (add ? dw[i] : 0);
}

/* ------------------------------------------------------------------- launches */

typedef ProductTile<128, 64, 8, 8, 8, 3> LargeTile;
typedef ProductTile<64, 64, 8, 8, 4, 4> MediumTile;

static void shape_of(WeightShape *s, const Conv2d *c)
{
    *s = WeightShape();
    s->H = (int)c->H;
    s->W = (int)c->W;
    s->OW = (int)c->OW;
    s->plane = (int)(c->H * c->W);
    s->pixels = (int)(c->OH * c->OW);
    s->x_sample = c->C * s->plane;
    s->dy_sample = c->K * s->pixels;
    s->groups = (int)c->groups;
    s->per = (int)(c->K / c->groups);
    s->channels = (int)(c->C / c->groups);
    s->kernel = (int)c->kernel;
    s->taps = s->kernel * s->kernel;
    s->stride = (int)c->stride;
    s->pad = (int)c->pad;
    s->weights = c->K * s->channels * s->taps;
    s->by_pixels = divider_new(s->pixels);
    s->by_columns = divider_new(c->OW);
    s->by_taps = divider_new(s->taps);
    s->by_kernel = divider_new(s->kernel);
}

/* `units` blocks or warps compute one slice; `wanted` keep a GPU busy. */
static void cut_slices(WeightShape *s, int64_t units, int64_t wanted)
{
    int64_t slices = int_min(ceil_div(wanted, units), s->count / SLICE_LEAST);
    slices = int_max(slices, ceil_div(s->count, SLICE_MOST));
    slices = int_max(1, int_min(int_min(slices, SLICES_MOST), ROOM / s->weights));
    s->slice = (int)(ceil_div(ceil_div(s->count, slices), WARP) * WARP);
    s->slices = (int)ceil_div(s->count, s->slice);
}

template <class Tile>
static int launch_product(const Gpu *gpu, float *dw, const float *dy, const float *x,
                          WeightShape *s)
{
    s->tiles_m = (int)ceil_div(s->per, Tile::BM);
    s->tiles_n = (int)ceil_div((int64_t)s->channels * s->taps, Tile::BN);
    const int64_t tiles = (int64_t)s->groups * s->tiles_m * s->tiles_n;
    cut_slices(s, tiles, BLOCKS_WANTED);
    if (tiles * s->slices > INT32_MAX)
        return (int)cudaErrorInvalidValue;
    float *out = s->slices > 1 ? (float *)gpu->scratch : dw;
    conv_weight_product<Tile>
        <<<(unsigned)(tiles * s->slices), Tile::THREADS, 0, gpu->compute>>>(out, dy, x, *s);
    return launch_status();
}

static int launch_direct(const Gpu *gpu, float *dw, const float *dy, const float *x, WeightShape *s)
{
    s->tiles_m = (int)ceil_div(s->taps, DIRECT_TAPS);
    const int64_t units = (int64_t)s->groups * s->per * s->channels * s->tiles_m;
    cut_slices(s, units, WARPS_WANTED);
    if (units * s->slices > INDEX_MOST)
        return (int)cudaErrorInvalidValue;
    float *out = s->slices > 1 ? (float *)gpu->scratch : dw;
    const int n = (int)(units * s->slices);
    conv_weight_direct<<<(unsigned)ceil_div(n, BLOCK / WARP), BLOCK, 0, gpu->compute>>>(out, dy, x,
                                                                                        *s, n);
    return launch_status();
}

static int add_samples(const Gpu *gpu, float *dw, const float *dy, const float *x, WeightShape *s)
{
    int status;
    if (s->per <= DIRECT_CHANNELS)
        status = launch_direct(gpu, dw, dy, x, s);
    else if (s->per > 64)
        status = launch_product<LargeTile>(gpu, dw, dy, x, s);
    else
        status = launch_product<MediumTile>(gpu, dw, dy, x, s);
    if (status || s->slices == 1)
        return status;
    conv_weight_add<<<(unsigned)ceil_div(s->weights, WARP), BLOCK, 0, gpu->compute>>>(
        dw, (const float *)gpu->scratch, s->weights, s->slices, s->add);
    return launch_status();
}

int gpu_conv2d_backward_weight(const Gpu *gpu, float *dw, const float *dy, const float *x,
                               const Conv2d *c, bool accumulate)
{
    WeightShape s;
    if (c->K <= 0 || c->C <= 0)
        return 0;
    if (!conv_fits(c))
        return (int)cudaErrorInvalidValue;
    if (c->B <= 0 || c->OH <= 0 || c->OW <= 0) {
        const size_t bytes =
            (size_t)(c->K * (c->C / c->groups) * c->kernel * c->kernel) * sizeof *dw;
        return accumulate ? 0 : (int)cudaMemsetAsync(dw, 0, bytes, gpu->compute);
    }
    shape_of(&s, c);
    /* the slices, rounded up to whole warps, end below 2^31, too */
    const int64_t most = (INDEX_MOST - SLICES_MOST * WARP) / s.pixels;
    for (int64_t from = 0; from < c->B; from += most) {
        s.count = (int)(int_min(most, c->B - from) * s.pixels);
        s.add = accumulate || from > 0;
        const int status = add_samples(gpu, dw, dy + from * s.dy_sample, x + from * s.x_sample, &s);
        if (status)
            return status;
    }
    return 0;
}
