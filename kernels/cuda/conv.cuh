/* conv.cuh - a convolution, and each phase of the gradient of its input, as the kernels of
 * conv.cu are told of them; and the limits that all kernels of a convolution share.
 */
#ifndef MDL_CONV_CUH
#define MDL_CONV_CUH

#include "common.cuh"

enum { DIRECT_CHANNELS = 7 /* output channels of a group, at most, that need no tiles */ };

static inline bool is_small(int64_t n)
{
    return n >= 0 && n <= INDEX_MOST / 4;
}

/* Whether indices within a sample, and of the weights of a group, fit the kernels' integers. */
static inline bool conv_fits(const Conv2d *c)
{
    const int64_t per = c->K / c->groups, depth = c->C / c->groups;
    return is_small(c->H) && is_small(c->W) && is_small(c->OH) && is_small(c->OW) &&
           is_small(c->C) && is_small(c->K) && is_small(c->pad) && is_small(c->stride) &&
           c->kernel <= 1 << 14 && is_small(c->H * c->W) && is_small(c->OH * c->OW) &&
           is_small(c->H + 2 * c->pad) && is_small(c->W + 2 * c->pad) &&
           is_small(depth * c->H * c->W) && is_small(per * c->OH * c->OW) &&
           is_small(depth * c->kernel * c->kernel) && is_small(per * c->kernel * c->kernel);
}

/* --------------------------------------------------- geometry of one operation */

/* One convolution with everything a kernel needs to know. */
typedef struct {
    int H, W, plane;               /* the image that is read */
    int64_t in_sample, in_group;   /* elements */
    int64_t out_sample, out_group; /* elements */
    int out_plane, out_row;        /* elements */
    int pixels, count;             /* of a sample, of all samples */
    int per;                       /* output channels of a group */
    int first, m;                  /* of them those computed here */
    int channels, depth;           /* that are read; depth = channels x taps */
    int origin_h, origin_w, step;  /* pixel (i, j) reads from origin + step (i, j) */
    int turn, taps_h, taps_w;      /* and for tap (i, j) at turn (i, j) from there */
    int out_h, out_w, out_step;    /* and is written to out + out_step (i, j) */
    int tap_h, tap_w, tap_step;    /* tap (i, j) is the filter's tap + tap_step (i, j) */
    int kernel;
    int64_t w_group;      /* elements of the weights */
    int w_row, w_channel; /* turned: between rows; else of m and of channel */
    int tiles_m, tiles_n, groups;
    int segment;     /* elements of a sum that one block adds up; a multiple of 16 */
    bool wide, relu; /* wide: four pixels are written at a time */
    Divider by_pixels, by_columns, by_channels, by_taps_w;
} Geometry;

/* What follows from the rest, for `samples` samples. */
static inline void finish_geometry(Geometry *s, int64_t samples)
{
    s->depth = s->channels * s->taps_h * s->taps_w;
    s->count = (int)(samples * s->pixels);
    s->segment = s->depth;
    s->by_channels = divider_new(s->channels);
    s->by_taps_w = divider_new(int_max(1, s->taps_w));
}

static inline void forward_geometry(Geometry *s, const Conv2d *c)
{
    const int64_t depth = c->C / c->groups, taps = c->kernel * c->kernel;
    *s = Geometry();
    s->H = (int)c->H;
    s->W = (int)c->W;
    s->plane = s->H * s->W;
    s->out_row = (int)c->OW;
    s->out_plane = s->pixels = (int)(c->OH * c->OW);
    s->in_sample = c->C * s->plane;
    s->in_group = depth * s->plane;
    s->out_sample = c->K * s->out_plane;
    s->out_group = c->K / c->groups * s->out_plane;
    s->m = s->per = (int)(c->K / c->groups);
    s->channels = (int)depth;
    s->kernel = s->taps_h = s->taps_w = (int)c->kernel;
    s->origin_h = s->origin_w = -(int)c->pad;
    s->step = (int)c->stride;
    s->turn = s->out_step = s->tap_step = 1;
    s->w_group = c->K / c->groups * depth * taps;
    s->w_row = (int)(depth * taps);
    s->w_channel = (int)taps;
    s->wide = s->pixels % 4 == 0;
    s->by_pixels = divider_new(s->pixels);
    s->by_columns = divider_new(c->OW);
}

/* The phase of one dimension that begins at input pixel `at`. */
typedef struct {
    int pixels, origin, tap, taps;
} Phase;

static inline Phase phase_at(int64_t at, int64_t size, const Conv2d *c)
{
    Phase p;
    p.pixels = (int)ceil_div(int_max(0, size - at), c->stride);
    p.tap = (int)((at + c->pad) % c->stride);
    p.taps = (int)ceil_div(int_max(0, c->kernel - p.tap), c->stride);
    p.origin = (int)((at + c->pad) / c->stride);
    return p;
}

/* dy is read, dx written: at input pixels (h, w) and every stride from there. */
static inline void phase_geometry(Geometry *s, const Conv2d *c, int64_t h, int64_t w)
{
    const int64_t depth = c->C / c->groups, taps = c->kernel * c->kernel;
    const Phase high = phase_at(h, c->H, c), wide = phase_at(w, c->W, c);
    *s = Geometry();
    s->H = (int)c->OH;
    s->W = (int)c->OW;
    s->plane = s->H * s->W;
    s->out_row = (int)c->W;
    s->out_plane = (int)(c->H * c->W);
    s->pixels = high.pixels * wide.pixels;
    s->in_sample = c->K * s->plane;
    s->in_group = c->K / c->groups * s->plane;
    s->out_sample = c->C * s->out_plane;
    s->out_group = depth * s->out_plane;
    s->m = s->per = (int)depth;
    s->channels = (int)(c->K / c->groups);
    s->taps_h = high.taps;
    s->taps_w = wide.taps;
    s->kernel = (int)c->kernel;
    s->origin_h = high.origin;
    s->origin_w = wide.origin;
    s->step = 1;
    s->turn = -1;
    s->out_h = (int)h;
    s->out_w = (int)w;
    s->out_step = s->tap_step = (int)c->stride;
    s->tap_h = high.tap;
    s->tap_w = wide.tap;
    s->w_group = s->channels * depth * taps;
    s->w_row = (int)taps;
    s->w_channel = (int)(depth * taps);
    s->wide = c->stride == 1 && s->pixels % 4 == 0;
    s->by_pixels = divider_new(int_max(1, s->pixels));
    s->by_columns = divider_new(int_max(1, wide.pixels));
}

#endif
