/* conv.cu - a 2-d convolution and the gradient of its input.
 *
 * Both are one operation: a filter is moved over an image, and for every pixel computed
 *
 *     out[m][pixel] = sum over (tap, channel) of weight[tap, channel][m] in[channel][place]
 *
 * which is a product of the weights with columns of patches that are never written: tiles of
 * them are gathered into shared memory (an implicit product). The gradient of a convolution
 * with a stride falls into stride x stride phases, in each of which the input pixels of equal
 * remainders meet the same taps; a phase is a convolution of dy with a stride of 1.
 *
 * The weights are first turned to [tap, channel][m] in scratch, unless they lie so: then a
 * thread reads one tap of many channels at a constant stride, and weights in vectors. Groups
 * of few output channels, depthwise ones above all, and sums too long for scratch are computed
 * directly, a pixel a thread.
 *
 * A sum is one chain in a fixed order; where planes are small and sums are long, as in the last
 * layers of a network, chains of a fixed length, each with blocks of its own, and joined in
 * order. No result depends on tiles, or on how many samples a call has.
 */
#include "conv.cuh"
#include "product_tile.cuh"

enum { DIRECT_BLOCK = 256 };

typedef struct {
    int sample, i, j;
} Pixel;

MDL_DEVICE Pixel pixel_at(const Geometry &s, int n)
{
    Pixel p;
    int rest;
    p.sample = divide_rest(n, s.by_pixels, &rest);
    p.i = divide_rest(rest, s.by_columns, &p.j);
    return p;
}

MDL_DEVICE int64_t output_at(const Geometry &s, const Pixel &p)
{
    return p.sample * s.out_sample + (s.out_h + s.out_step * p.i) * s.out_row + s.out_w +
           s.out_step * p.j;
}

/* ---------------------------------------------------------- implicit product */

/* The pixel whose column of the patches a thread gathers. */
typedef struct {
    const float *from; /* where tap (0, 0) of the first channel would be */
    int h, w;
    bool inside;
} Patch;

MDL_DEVICE Patch patch_at(const Geometry &s, const float *x, int group, int n)
{
    Patch patch;
    const Pixel p = pixel_at(s, n);
    patch.inside = n < s.count;
    patch.h = s.origin_h + s.step * p.i;
    patch.w = s.origin_w + s.step * p.j;
    patch.from = x + p.sample * s.in_sample + group * s.in_group + patch.h * s.W + patch.w;
    return patch;
}

/* Element k = (tap, channel) of the sums: where the filter's tap is, and its row of the
 * turned weights. */
typedef struct {
    int channel, h, w, row;
} Element;

MDL_DEVICE Element element_at(const Geometry &s, int k)
{
    Element e;
    const int tap = divide_rest(k, s.by_channels, &e.channel);
    int j;
    const int i = divide_rest(tap, s.by_taps_w, &j);
    e.h = s.turn * i;
    e.w = s.turn * j;
    e.row =
        ((s.tap_h + s.tap_step * i) * s.kernel + s.tap_w + s.tap_step * j) * s.channels + e.channel;
    return e;
}

MDL_DEVICE bool patch_reaches(const Geometry &s, const Patch &patch, const Element &e)
{
    return patch.inside && (unsigned)(patch.h + e.h) < (unsigned)s.H &&
           (unsigned)(patch.w + e.w) < (unsigned)s.W;
}

/* What one thread carries from device memory to shared memory for BK elements of the sums:
 * of the weights, [BK][BM], four neighbours at a time; of the patches, [BK][BN], one column. */
template <class Tile> struct Carrier {
    enum {
        BM = Tile::BM,
        BN = Tile::BN,
        BK = Tile::BK,
        ACROSS = BM / 4,
        W_STEP = Tile::THREADS / ACROSS,
        W_LOADS = BK / W_STEP,
        P_STEP = Tile::THREADS / BN,
        P_LOADS = BK / P_STEP
    };
    Floats<4> weights[W_LOADS];
    float patches[P_LOADS];

    /* rows of the turned weights are of a multiple of four, zeros at the end */
    __device__ __forceinline__ void load_weights(const Geometry &s, const float *a, int m, int i,
                                                 int row, bool inside)
    {
        weights[i] = Floats<4>{};
        if (inside && m < s.w_row)
            weights[i] = load_floats<4>(a + (int64_t)row * s.w_row + m);
    }

    /* a: the group's weights */
    __device__ __forceinline__ void load(const Geometry &s, const float *a, const Patch &patch,
                                         int m0, int k0)
    {
        const int m = m0 + (int)threadIdx.x % ACROSS * 4;
        const int w_line = (int)threadIdx.x / ACROSS, p_line = (int)threadIdx.x / BN;
        if (s.channels % BK == 0) { /* all elements are of one tap */
            const Element e = element_at(s, k0);
#pragma unroll
            for (int i = 0; i < W_LOADS; i++)
                load_weights(s, a, m, i, e.row + w_line + i * W_STEP, true);
            const bool inside = patch_reaches(s, patch, e);
            const float *from = patch.from + (e.channel + p_line) * s.plane + e.h * s.W + e.w;
#pragma unroll
            for (int i = 0; i < P_LOADS; i++)
                patches[i] = inside ? from[i * P_STEP * s.plane] : 0;
            return;
        }
#pragma unroll
        for (int i = 0; i < W_LOADS; i++) {
            const int k = k0 + w_line + i * W_STEP;
            load_weights(s, a, m, i, element_at(s, k).row, k < s.depth);
        }
#pragma unroll
        for (int i = 0; i < P_LOADS; i++) {
            const int k = k0 + p_line + i * P_STEP;
            const Element e = element_at(s, k);
            const bool inside = k < s.depth && patch_reaches(s, patch, e);
            patches[i] = inside ? patch.from[e.channel * s.plane + e.h * s.W + e.w] : 0;
        }
    }

    __device__ __forceinline__ void store(float (*w)[BM], float (*p)[BN]) const
    {
        const int m = (int)threadIdx.x % ACROSS * 4;
        const int w_line = (int)threadIdx.x / ACROSS, p_line = (int)threadIdx.x / BN;
#pragma unroll
        for (int i = 0; i < W_LOADS; i++)
            store_floats<4>(&w[w_line + i * W_STEP][m], weights[i]);
#pragma unroll
        for (int i = 0; i < P_LOADS; i++)
            p[p_line + i * P_STEP][(int)threadIdx.x % BN] = patches[i];
    }
};

MDL_DEVICE float finish(const Geometry &s, float sum, float bias)
{
    sum += bias;
    return s.relu && sum <= 0 ? 0 : sum;
}

template <class Tile>
MDL_DEVICE void write_tile(const Geometry &s, const Tile &tile, float *y, const float *bias,
                           int group, int m0, int n0)
{
    enum { TM = Tile::TM, TN = Tile::TN };
    float b[TM];
    const int rows = s.m - m0 - tile.row; /* from c[0] on */
    const int channel = group * s.per + s.first + m0 + tile.row;
    y += group * s.out_group + (int64_t)(s.first + m0 + tile.row) * s.out_plane;
#pragma unroll
    for (int i = 0; i < TM; i++)
        b[i] = bias && tile.below(i) < rows ? bias[channel + tile.below(i)] : 0;
#pragma unroll
    for (int j = 0; j < TN; j++) {
        const int n = n0 + tile.column + tile.beside(j);
        if (n >= s.count || (s.wide && j % 4 != 0))
            continue;
        float *to = y + output_at(s, pixel_at(s, n));
#pragma unroll
        for (int i = 0; i < TM; i++) {
            if (tile.below(i) >= rows)
                break;
            float *at = to + tile.below(i) * s.out_plane;
            if (s.wide && j % 4 == 0) {
                Floats<4> v;
#pragma unroll
                for (int e = 0; e < 4; e++)
                    v.at[e] = finish(s, tile.c[i][j / 4 * 4 + e], b[i]);
                store_floats<4>(at, v);
            } else {
                *at = finish(s, tile.c[i][j], b[i]);
            }
        }
    }
}

/* y: [segments] of what is computed, where there are several. */
template <class Tile>
static __global__ void __launch_bounds__(Tile::THREADS, Tile::MINIMUM)
    conv_product(float *__restrict__ y, const float *__restrict__ x, const float *__restrict__ a,
                 const float *__restrict__ bias, Geometry s)
{
    __shared__ __align__(16) float weights[2][Tile::BK][Tile::BM];
    __shared__ __align__(16) float patches[2][Tile::BK][Tile::BN];
    const int tile_m = (int)blockIdx.x % s.tiles_m, rest = (int)blockIdx.x / s.tiles_m;
    const int m0 = tile_m * Tile::BM, n0 = rest % s.tiles_n * Tile::BN;
    const int group = rest / s.tiles_n % s.groups, segment = rest / s.tiles_n / s.groups;
    const Patch patch = patch_at(s, x, group, n0 + (int)threadIdx.x % Tile::BN);
    const int begin = segment * s.segment, end = min(s.depth, begin + s.segment);
    a += group * s.w_group;
    y += segment * (s.count / s.pixels) * s.out_sample;
    Tile tile;
    Carrier<Tile> carrier;
    if (begin < end) {
        carrier.load(s, a, patch, m0, begin);
        carrier.store(weights[0], patches[0]);
        __syncthreads();
    }
    int buffer = 0;
    for (int k = begin; k < end; k += Tile::BK) {
        const bool more = k + Tile::BK < end;
        if (more)
            carrier.load(s, a, patch, m0, k + Tile::BK);
        tile.multiply(weights[buffer], patches[buffer]);
        buffer ^= 1;
        if (more) {
            carrier.store(weights[buffer], patches[buffer]);
            __syncthreads();
        }
    }
    write_tile(s, tile, y, bias, group, m0, n0);
}

/* -------------------------------------------------------------------- direct */

/* OUT output channels of one pixel. */
template <int OUT>
static __global__ void __launch_bounds__(DIRECT_BLOCK)
    conv_direct(float *__restrict__ y, const float *__restrict__ x, const float *__restrict__ w,
                const float *__restrict__ bias, Geometry s)
{
    const int part = (int)blockIdx.x % s.tiles_m, rest = (int)blockIdx.x / s.tiles_m;
    const int group = rest / s.tiles_n, m0 = part * OUT;
    const int n = rest % s.tiles_n * DIRECT_BLOCK + (int)threadIdx.x;
    if (n >= s.count)
        return;
    const Patch patch = patch_at(s, x, group, n);
    int row[OUT]; /* beyond the last channel: the last once more */
#pragma unroll
    for (int o = 0; o < OUT; o++)
        row[o] = min(o, s.m - 1 - m0) * s.w_row;
    w += group * s.w_group + (int64_t)m0 * s.w_row + s.tap_h * s.kernel + s.tap_w;
    float sum[OUT] = {};
    for (int channel = 0; channel < s.channels; channel++) {
        for (int i = 0; i < s.taps_h; i++) {
            const int h = s.turn * i;
            if ((unsigned)(patch.h + h) >= (unsigned)s.H)
                continue;
            const float *tap = w + (int64_t)channel * s.w_channel + s.tap_step * i * s.kernel;
            const float *from = patch.from + channel * s.plane + h * s.W;
            for (int j = 0; j < s.taps_w; j++) {
                if ((unsigned)(patch.w + s.turn * j) >= (unsigned)s.W)
                    continue;
                const float v = from[s.turn * j];
#pragma unroll
                for (int o = 0; o < OUT; o++)
                    sum[o] = fmaf(tap[s.tap_step * j + row[o]], v, sum[o]);
            }
        }
    }
    y += group * s.out_group + output_at(s, pixel_at(s, n));
#pragma unroll
    for (int o = 0; o < OUT; o++) {
        if (m0 + o >= s.m)
            break;
        const float value = sum[o] + (bias ? bias[group * s.per + m0 + o] : 0);
        y[(int64_t)(m0 + o) * s.out_plane] = s.relu && value <= 0 ? 0 : value;
    }
}

/* ----------------------------------------------------------------- launches */

typedef ProductTile<128, 64, 8, 8, 8, 3> LargeTile;
typedef ProductTile<64, 64, 16, 8, 4, 4> MediumTile;
typedef ProductTile<32, 128, 16, 4, 8, 3> LowTile;

enum {
    BLOCKS_WANTED = 160, /* below, tiles are made smaller */
    SMALL_PLANE = 64,    /* pixels of planes whose sums are cut into short segments */
    MEDIUM_PLANE = 256,  /* and into longer ones */
    SEGMENT = 512
};

static int64_t segments_of(const Geometry &s)
{
    return s.depth > s.segment ? ceil_div(s.depth, s.segment) : 1;
}

template <class Tile>
static int launch_tiles(const Gpu *gpu, float *y, const float *x, const float *a, const float *b,
                        Geometry s)
{
    s.tiles_m = (int)ceil_div(s.m, Tile::BM);
    s.tiles_n = (int)ceil_div(s.count, Tile::BN);
    const int64_t blocks = (int64_t)s.groups * s.tiles_m * s.tiles_n * segments_of(s);
    if (blocks > INT32_MAX)
        return (int)cudaErrorInvalidValue;
    conv_product<Tile><<<(unsigned)blocks, Tile::THREADS, 0, gpu->compute>>>(y, x, a, b, s);
    return launch_status();
}

/* As tiles; a: the weights turned. */
static int launch_product(const Gpu *gpu, float *y, const float *x, const float *a, const float *b,
                          const Geometry &s)
{
    const int64_t large = s.groups * segments_of(s) * ceil_div(s.m, 128) * ceil_div(s.count, 64);
    if (s.m > 64 && large >= BLOCKS_WANTED)
        return launch_tiles<LargeTile>(gpu, y, x, a, b, s);
    if (s.m > 32)
        return launch_tiles<MediumTile>(gpu, y, x, a, b, s);
    return launch_tiles<LowTile>(gpu, y, x, a, b, s);
}

/* The sums of segments, [segment][sample][group][m][pixel], joined in order. n: sums wanted. */
static __global__ void __launch_bounds__(DIRECT_BLOCK)
    join_segments(float *__restrict__ y, const float *__restrict__ sums,
                  const float *__restrict__ bias, Geometry s, int segments, Divider by_m,
                  Divider by_groups, int n)
{
    const int i = (int)(blockIdx.x * DIRECT_BLOCK + threadIdx.x);
    if (i >= n)
        return;
    float sum = 0;
#pragma unroll 4
    for (int j = 0; j < segments; j++)
        sum += sums[(int64_t)j * n + i];
    Pixel p;
    int pixel, m, group;
    const int planes = divide_rest(i, s.by_pixels, &pixel);
    const int groups = divide_rest(planes, by_m, &m);
    p.sample = divide_rest(groups, by_groups, &group);
    p.i = divide_rest(pixel, s.by_columns, &p.j);
    y += group * s.out_group + (int64_t)(s.first + m) * s.out_plane;
    y[output_at(s, p)] = finish(s, sum, bias ? bias[group * s.per + s.first + m] : 0);
}

/* As launch_product, by segments of s.segment elements whose sums go to scratch. */
static int launch_segments(const Gpu *gpu, float *y, const float *x, const float *a, const float *b,
                           const Geometry &s, float *sums)
{
    const int n = s.count * s.groups * s.m;
    Geometry part = s;
    part.first = part.out_h = part.out_w = 0;
    part.out_step = 1;
    part.out_plane = s.pixels;
    part.out_row = (int)s.by_columns.by;
    part.out_group = (int64_t)s.m * s.pixels;
    part.out_sample = s.groups * part.out_group;
    part.wide = s.pixels % 4 == 0;
    part.relu = false;
    const int status = launch_product(gpu, sums, x, a, NULL, part);
    if (status)
        return status;
    join_segments<<<(unsigned)ceil_div(n, DIRECT_BLOCK), DIRECT_BLOCK, 0, gpu->compute>>>(
        y, sums, b, s, (int)segments_of(s), divider_new(s.m), divider_new(s.groups), n);
    return launch_status();
}

static int launch_direct(const Gpu *gpu, float *y, const float *x, const float *w, const float *b,
                         Geometry s)
{
    const int out = s.m == 1 ? 1 : 4;
    s.tiles_m = (int)ceil_div(s.m, out);
    s.tiles_n = (int)ceil_div(s.count, DIRECT_BLOCK);
    const int64_t blocks = (int64_t)s.groups * s.tiles_m * s.tiles_n;
    if (blocks > INT32_MAX)
        return (int)cudaErrorInvalidValue;
    if (out == 1)
        conv_direct<1><<<(unsigned)blocks, DIRECT_BLOCK, 0, gpu->compute>>>(y, x, w, b, s);
    else
        conv_direct<4><<<(unsigned)blocks, DIRECT_BLOCK, 0, gpu->compute>>>(y, x, w, b, s);
    return launch_status();
}

/* ------------------------------------------------- samples, groups, channels */

/* Some output channels of some groups, and where their weights are. */
typedef struct {
    int64_t group, groups, first, width;
    const float *weights;
    bool turned;
    int64_t w_row, w_group; /* where turned */
    int64_t used;           /* elements of the scratch */
} Part;

/* How many samples have room for the sums of their segments behind the weights; the segment
 * is set. Where not even one has, or planes are large, there is one segment. None of this
 * depends on the number of samples. */
static int64_t cut_segments(Geometry *s, const Part *part)
{
    const int64_t all = INDEX_MOST / s->pixels;
    const int64_t room = GPU_SCRATCH / (int64_t)sizeof(float) - part->used;
    s->segment = s->pixels <= SMALL_PLANE ? SEGMENT : 2 * SEGMENT;
    if (!part->turned || s->pixels > MEDIUM_PLANE || s->depth < 2 * s->segment) {
        s->segment = s->depth;
        return all;
    }
    const int64_t fit = room / (segments_of(*s) * s->groups * s->m * s->pixels);
    if (fit == 0)
        s->segment = s->depth;
    return fit == 0 ? all : fit;
}

/* s: of the whole convolution, but for the weights of a part that is turned. */
static int run_part(const Gpu *gpu, float *y, const float *x, const float *b, Geometry s,
                    int64_t samples, const Part *part)
{
    if (s.pixels == 0)
        return 0;
    s.first = (int)part->first;
    s.m = (int)part->width;
    s.groups = (int)part->groups;
    if (part->turned) {
        s.w_row = (int)part->w_row;
        s.w_group = part->w_group;
    }
    y += part->group * s.out_group;
    x += part->group * s.in_group;
    b = b ? b + part->group * s.per : NULL;
    finish_geometry(&s, 1);
    const int64_t most = cut_segments(&s, part);
    for (int64_t from = 0; from < samples; from += most) {
        s.count = (int)(int_min(most, samples - from) * s.pixels);
        float *to = y + from * s.out_sample;
        const float *image = x + from * s.in_sample;
        int status;
        if (!part->turned)
            status = launch_direct(gpu, to, image, part->weights, b, s);
        else if (segments_of(s) > 1)
            status = launch_segments(gpu, to, image, part->weights, b, s,
                                     (float *)gpu->scratch + part->used);
        else
            status = launch_product(gpu, to, image, part->weights, b, s);
        if (status)
            return status;
    }
    return 0;
}

/* to[group][tap][channel][m] = w[group] at m row + channel step + tap for m < width, in rows of
 * `pitch`. A block turns 32 channels or taps of 32 m's round in shared memory. */
typedef struct {
    int width, pitch, row, step;
    int taps, channels, depth;
    int tiles_m, tiles_k;
    int64_t group;
    Divider by_taps;
} Turn;

enum { TURN = 32, TURN_LINES = DIRECT_BLOCK / TURN };

static __global__ void __launch_bounds__(DIRECT_BLOCK)
    turn_weights(float *__restrict__ to, const float *__restrict__ w, Turn s)
{
    __shared__ float tile[TURN][TURN + 1];
    const int tile_k = (int)blockIdx.x % s.tiles_k, rest = (int)blockIdx.x / s.tiles_k;
    const int group = rest / s.tiles_m, m0 = rest % s.tiles_m * TURN, k0 = tile_k * TURN;
    const int lane = (int)threadIdx.x % TURN, line = (int)threadIdx.x / TURN;
    int tap;
    const int channel = divide_rest(k0 + lane, s.by_taps, &tap);
    w += group * s.group + (int64_t)channel * s.step + tap;
#pragma unroll
    for (int i = line; i < TURN; i += TURN_LINES)
        tile[i][lane] = m0 + i < s.width && channel < s.channels ? w[(int64_t)(m0 + i) * s.row] : 0;
    __syncthreads();
    to += (int64_t)group * s.depth * s.pitch + m0 + lane;
#pragma unroll
    for (int i = line; i < TURN; i += TURN_LINES) {
        const int from = divide_rest(k0 + i, s.by_taps, &tap);
        if (from < s.channels && m0 + lane < s.pitch)
            to[(int64_t)(tap * s.channels + from) * s.pitch] = tile[lane][i];
    }
}

/* Calls run(part) with the weights turned in scratch: as many groups at a time as it holds,
 * or as many channels of one. s: of the whole convolution. */
template <class Run>
static int run_turned(const Gpu *gpu, const float *w, const Geometry &s, int64_t all, Run run)
{
    const int64_t taps = (int64_t)s.kernel * s.kernel, depth = s.channels * taps;
    const int64_t room = GPU_SCRATCH / (int64_t)sizeof(float);
    const int64_t width = int_min(s.per, room / depth / 4 * 4), pitch = ceil_div(width, 4) * 4;
    if (width <= 0) /* not even four channels have room */
        return run(Part{0, all, 0, s.per, w, false, 0, 0, 0});
    const int64_t groups = int_max(1, room / (depth * pitch));
    float *to = (float *)gpu->scratch;
    for (int64_t g = 0; g < all; g += groups) {
        for (int64_t m = 0; m < s.per; m += width) {
            Part part = {g,     int_min(groups, all - g),
                         m,     int_min(width, s.per - m),
                         to,    true,
                         pitch, depth * pitch,
                         0};
            part.used = part.groups * part.w_group;
            Turn turn = {};
            turn.width = (int)part.width;
            turn.pitch = (int)pitch;
            turn.row = s.w_row;
            turn.step = s.w_channel;
            turn.taps = (int)taps;
            turn.channels = s.channels;
            turn.depth = (int)depth;
            turn.tiles_m = (int)ceil_div(pitch, TURN);
            turn.tiles_k = (int)ceil_div(depth, TURN);
            turn.group = s.w_group;
            turn.by_taps = divider_new(taps);
            const int64_t blocks = part.groups * turn.tiles_m * turn.tiles_k;
            turn_weights<<<(unsigned)blocks, DIRECT_BLOCK, 0, gpu->compute>>>(
                to, w + g * s.w_group + m * s.w_row, turn);
            int status = launch_status();
            if (!status)
                status = run(part);
            if (status)
                return status;
        }
    }
    return 0;
}

int gpu_conv2d_forward(const Gpu *gpu, float *y, const float *x, const float *w, const float *b,
                       const Conv2d *c, bool relu)
{
    Geometry s;
    if (c->B <= 0 || c->K <= 0 || c->OH <= 0 || c->OW <= 0)
        return 0;
    if (!conv_fits(c))
        return (int)cudaErrorInvalidValue;
    forward_geometry(&s, c);
    s.relu = relu;
    const auto run = [&](const Part &part) { return run_part(gpu, y, x, b, s, c->B, &part); };
    if (s.per <= DIRECT_CHANNELS)
        return run(Part{0, c->groups, 0, s.per, w, false, 0, 0, 0});
    return run_turned(gpu, w, s, c->groups, run);
}

int gpu_conv2d_backward_input(const Gpu *gpu, float *dx, const float *dy, const float *w,
                              const Conv2d *c)
{
    Geometry s;
    if (c->B <= 0 || c->C <= 0 || c->H <= 0 || c->W <= 0)
        return 0;
    if (!conv_fits(c))
        return (int)cudaErrorInvalidValue;
    const auto run = [&](const Part &part) {
        for (int64_t h = 0; h < int_min(c->stride, c->H); h++) {
            for (int64_t v = 0; v < int_min(c->stride, c->W); v++) {
                phase_geometry(&s, c, h, v);
                const int status = run_part(gpu, dx, dy, NULL, s, c->B, &part);
                if (status)
                    return status;
            }
        }
        return 0;
    };
    phase_geometry(&s, c, 0, 0);
    if (s.per <= DIRECT_CHANNELS)
        return run(Part{0, c->groups, 0, s.per, w, false, 0, 0, 0});
    if (c->kernel > 1 || s.per % 4 != 0)
        return run_turned(gpu, w, s, c->groups, run);
    return run(Part{0, c->groups, 0, s.per, w, true, s.per, s.w_group, 0}); /* they lie so */
}
