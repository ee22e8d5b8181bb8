/* cost_gpu_image.c - what convolution and pooling launch and move on a GPU: the choices of
 * conv.cu, conv_weight.cu and pool.cu, which depend on shapes alone.
 *
 * A launch that would refuse its shape counts as none. */
#include "cost_gpu_launch.h"

enum {
    DIRECT_CHANNELS = 7, /* conv.cuh */
    SMALL_PLANE = 64,    /* conv.cu */
    MEDIUM_PLANE = 256,
    SEGMENT = 512,
    DIRECT_TAPS = 4, /* conv_weight.cu */
    BLOCKS_WANTED = 432,
    WARPS_WANTED = 4096,
    SLICES_MOST = 256,
    SLICE_LEAST = 256,
    SLICE_MOST = 1 << 14,
    WARP = 32,
    PIXELS_MOST = GPU_INDEX_MOST / 4 /* of what conv.cuh calls small */
};

static bool is_small(int64_t n)
{
    return n <= PIXELS_MOST;
}

static bool conv_fits(const ImageShape *s)
{
    int64_t per = s->K / s->groups, depth = s->C / s->groups;
    return is_small(s->H) && is_small(s->W) && is_small(s->OH) && is_small(s->OW) &&
           is_small(s->C) && is_small(s->K) && is_small(s->pad) && is_small(s->stride) &&
           s->kernel <= 1 << 14 && is_small(s->H * s->W) && is_small(s->OH * s->OW) &&
           is_small(s->H + 2 * s->pad) && is_small(s->W + 2 * s->pad) &&
           is_small(depth * s->H * s->W) && is_small(per * s->OH * s->OW) &&
           is_small(depth * s->kernel * s->kernel) && is_small(per * s->kernel * s->kernel);
}

/* ------------------------------------------------- forward, gradient of the input */

/* A filter over an image: out[per, pixels] from in[channels, plane] of each group and sample. */
typedef struct {
    int64_t samples, groups, per, channels;
    int64_t plane, pixels;
    int64_t taps; /* of the filter, that meet any pixel */
    int64_t all;  /* of the filter */
    bool bias;
} Filter;

/* Some output channels of some groups; turned: their weights are in scratch, `used` floats. */
typedef struct {
    int64_t groups, width, used;
    bool turned;
} Part;

/* Samples of a launch, and the segments that its sums are cut into. */
static int64_t cut_segments(const Filter *f, const Part *part, int64_t *segments)
{
    int64_t all = GPU_INDEX_MOST / f->pixels, depth = f->channels * f->taps;
    int64_t segment = f->pixels <= SMALL_PLANE ? SEGMENT : 2 * SEGMENT;
    *segments = 1;
    if (!part->turned || f->pixels > MEDIUM_PLANE || depth < 2 * segment)
        return all;
    int64_t cut = ceil_div(depth, segment);
    int64_t fit = (GPU_ROOM - part->used) / (cut * part->groups * part->width * f->pixels);
    if (fit == 0)
        return all;
    *segments = cut;
    return fit;
}

static void tally_part(Tally *t, const Filter *f, const Part *part)
{
    if (f->pixels == 0)
        return;
    int64_t segments, depth = f->channels * f->taps;
    Pieces cut[2];
    cut_pieces(f->samples, cut_segments(f, part, &segments), cut);
    for (int i = 0; i < 2; i++) {
        if (cut[i].count == 0)
            continue;
        Tally piece = *t;
        piece.times *= cut[i].count;
        double groups = (double)part->groups, samples = (double)cut[i].size;
        double read = depth > 0 ? samples * groups * (double)(f->channels * f->plane) : 0;
        double weights = groups * (double)(part->width * depth);
        double written = samples * groups * (double)(part->width * f->pixels);
        if (segments > 1)
            written += 2 * written * (double)segments;
        if (f->bias)
            weights += groups * (double)part->width;
        tally_kernels(&piece, segments > 1 ? 2 : 1, GPU_FLOAT * (read + weights + written));
        if (part->turned && depth > 0)
            tally_gemm(&piece, GEMM_KERNEL, part->width, cut[i].size * f->pixels, depth,
                       part->groups);
    }
}

/* Calls run(part) with the weights turned. */
typedef void PartRun(Tally *t, const void *shape, const Part *part);

static void tally_turned(Tally *t, const Filter *f, const void *shape, PartRun *run)
{
    int64_t depth = f->channels * f->all;
    int64_t width = least_of(f->per, GPU_ROOM / depth / 4 * 4), pitch = ceil_div(width, 4) * 4;
    if (width <= 0) {
        run(t, shape, &(Part){f->groups, f->per, 0, false});
        return;
    }
    Pieces groups[2], channels[2];
    cut_pieces(f->groups, most_of(1, GPU_ROOM / (depth * pitch)), groups);
    cut_pieces(f->per, width, channels);
    for (int g = 0; g < 2; g++) {
        for (int m = 0; m < 2; m++) {
            Tally each = *t;
            each.times *= groups[g].count * channels[m].count;
            if (each.times == 0)
                continue;
            Part part = {groups[g].size, channels[m].size, groups[g].size * depth * pitch, true};
            double turned = (double)part.used, given = (double)(part.groups * part.width * depth);
            tally_kernels(&each, 1, GPU_FLOAT * (turned + given));
            run(&each, shape, &part);
        }
    }
}

static void run_forward(Tally *t, const void *shape, const Part *part)
{
    tally_part(t, shape, part);
}

void tally_conv2d(Tally *t, const ImageShape *s, bool bias)
{
    int64_t taps = s->kernel * s->kernel;
    if (!conv_fits(s))
        return;
    Filter f = {.samples = s->B,
                .groups = s->groups,
                .per = s->K / s->groups,
                .channels = s->C / s->groups,
                .plane = s->H * s->W,
                .pixels = s->OH * s->OW,
                .taps = taps,
                .all = taps,
                .bias = bias};
    Part whole = {f.groups, f.per, 0, false};
    if (f.per <= DIRECT_CHANNELS)
        tally_part(t, &f, &whole);
    else
        tally_turned(t, &f, &f, run_forward);
}

/* The phases of one dimension of the input that have equally many pixels and taps. */
typedef struct {
    int64_t pixels, taps, count;
} Phases;

enum { PHASES_MOST = 8 /* two numbers of pixels, two of taps, and room */ };

static int find_phases(const ImageShape *s, int64_t size, Phases found[PHASES_MOST])
{
    int n = 0;
    for (int64_t at = 0; at < least_of(s->stride, size); at++) {
        int64_t pixels = ceil_div(size - at, s->stride);
        int64_t tap = (at + s->pad) % s->stride;
        int64_t taps = ceil_div(most_of(0, s->kernel - tap), s->stride);
        int i = 0;
        while (i < n && (found[i].pixels != pixels || found[i].taps != taps))
            i++;
        if (i == n && n < PHASES_MOST)
            found[n++] = (Phases){pixels, taps, 0};
        found[i].count++;
    }
    return n;
}

static void run_phases(Tally *t, const void *shape, const Part *part)
{
    const ImageShape *s = shape;
    Phases high[PHASES_MOST], wide[PHASES_MOST];
    int nh = find_phases(s, s->H, high), nw = find_phases(s, s->W, wide);
    for (int h = 0; h < nh; h++) {
        for (int w = 0; w < nw; w++) {
            Filter f = {.samples = s->B, /* the channels change places: dy is read */
                        .groups = s->groups,
                        .per = s->C / s->groups,
                        .channels = s->K / s->groups,
                        .plane = s->OH * s->OW,
                        .pixels = high[h].pixels * wide[w].pixels,
                        .taps = high[h].taps * wide[w].taps};
            Tally each = *t;
            each.times *= high[h].count * wide[w].count;
            tally_part(&each, &f, part);
        }
    }
}

void tally_conv2d_dx(Tally *t, const ImageShape *s)
{
    if (!conv_fits(s))
        return;
    Filter f = {.groups = s->groups,
                .per = s->C / s->groups,
                .channels = s->K / s->groups,
                .all = s->kernel * s->kernel};
    bool direct = f.per <= DIRECT_CHANNELS, lies_so = s->kernel == 1 && f.per % 4 == 0;
    Part whole = {f.groups, f.per, 0, !direct};
    if (direct || lies_so)
        run_phases(t, s, &whole);
    else
        tally_turned(t, &f, s, run_phases);
}

/* --------------------------------------------------------- gradient of the weight */

/* `units` blocks or warps compute one slice of the pixels. */
static int64_t count_slices(int64_t pixels, int64_t units, int64_t wanted, int64_t weights)
{
    int64_t slices = least_of(ceil_div(wanted, units), pixels / SLICE_LEAST);
    slices = most_of(slices, ceil_div(pixels, SLICE_MOST));
    slices = most_of(1, least_of(least_of(slices, SLICES_MOST), GPU_ROOM / weights));
    int64_t slice = ceil_div(ceil_div(pixels, slices), WARP) * WARP;
    return ceil_div(pixels, slice);
}

static void tally_samples_dw(Tally *t, const ImageShape *s, int64_t samples, bool add)
{
    int64_t per = s->K / s->groups, channels = s->C / s->groups, taps = s->kernel * s->kernel;
    int64_t pixels = samples * s->OH * s->OW, weights = s->K * channels * taps;
    bool direct = per <= DIRECT_CHANNELS;
    int64_t tile = per > 64 ? 128 : 64;
    int64_t units = direct ? s->K * channels * ceil_div(taps, DIRECT_TAPS)
                           : s->groups * ceil_div(per, tile) * ceil_div(channels * taps, 64);
    int64_t slices = count_slices(pixels, units, direct ? WARPS_WANTED : BLOCKS_WANTED, weights);
    double bytes = (double)samples * (double)(s->C * s->H * s->W + s->K * s->OH * s->OW);
    bytes += (double)weights * (add ? 2 : 1);
    if (slices > 1)
        bytes += 2 * (double)weights * (double)slices;
    tally_kernels(t, slices > 1 ? 2 : 1, GPU_FLOAT * bytes);
    if (!direct)
        tally_gemm(t, GEMM_KERNEL, per, channels * taps, pixels, s->groups);
}

void tally_conv2d_dw(Tally *t, const ImageShape *s, bool accumulate)
{
    if (!conv_fits(s))
        return;
    Pieces cut[2];
    cut_pieces(s->B, (GPU_INDEX_MOST - SLICES_MOST * WARP) / (s->OH * s->OW), cut);
    bool add = accumulate;
    for (int i = 0; i < 2; i++) {
        Tally first = *t, others = *t;
        others.times *= cut[i].count - !add;
        if (cut[i].count > 0 && !add)
            tally_samples_dw(&first, s, cut[i].size, false);
        if (others.times > 0)
            tally_samples_dw(&others, s, cut[i].size, true);
        add = add || cut[i].count > 0;
    }
}

/* ------------------------------------------------------------------------ pooling */

/* Planes of a launch where each counts `elements`; 0: a plane is too large. */
static int64_t planes_most(const ImageShape *s, int64_t elements)
{
    bool fits = s->H * s->W <= GPU_INDEX_MOST / 2 && s->OH * s->OW <= GPU_INDEX_MOST / 2;
    return fits ? GPU_INDEX_MOST / elements : 0;
}

static void tally_planes(Tally *t, const ImageShape *s, int64_t most, int64_t each, double bytes)
{
    if (most > 0)
        tally_kernels(t, each * ceil_div(s->B * s->C, most), bytes);
}

void tally_pool(Tally *t, const ImageShape *s, double once)
{
    tally_planes(t, s, planes_most(s, s->OH * s->OW), 1, once);
}

void tally_avgpool2d_dx(Tally *t, const ImageShape *s, double once)
{
    tally_planes(t, s, planes_most(s, s->H * s->W), 1, once);
}

void tally_maxpool2d_dx(Tally *t, const ImageShape *s, double once)
{
    int64_t most = planes_most(s, s->H * s->W), windows = s->OH * s->OW;
    bool halves = s->kernel == 2 && s->stride == 2 && s->pad == 0 && s->W % 4 == 0 && s->H % 2 == 0;
    if (halves || windows > GPU_ROOM) {
        tally_planes(t, s, most, 1, once);
        return;
    }
    double places = 2 * GPU_FLOAT * (double)(s->B * s->C) * (double)windows;
    tally_planes(t, s, least_of(most, GPU_ROOM / windows), 2, once + places);
}
