/* conv_weight.c - the gradient of a convolution's weight.
 *
 *     dw[k][c][place] = sum over samples and output pixels of dy[k][pixel] x[c][pixel + place]
 *
 * A tile is some input channels and at most MICRO_N output channels of a group, over all
 * samples. dy is turned round to [pixel][k], a panel of B; x is padded, and a row of A is
 * a channel, or a place of the window, moved by an offset: so patches are never copied.
 * The sums are kept in the scratch as [place and channel][k] until the last sample.
 *
 * Where that makes too few tiles, as in a first layer, samples are cut into fixed blocks
 * with sums of their own, added in order at the end.
 */
#include "correlate.h"

#include <string.h>

enum {
    ROOM = TEAM_SCRATCH / (int)sizeof(real) - 2 * MICRO_N,
    SUMS_MOST = ROOM / 4,
    TILES_WANTED = 8,
    PARTIAL = 1 << 14 /* sums of all blocks */
};

typedef struct {
    Team *team;
    real *dw;
    const real *dy, *x;
    const Conv2d *s;
    int64_t depth, per;     /* input and output channels of a group */
    int64_t channels, outs; /* of a tile */
    int64_t wide, high;     /* tiles of a group along either */
    int64_t rows;           /* output rows at a time */
    int64_t blocks;         /* of samples */
    int64_t pitch;          /* of padded rows of x */
    bool by_channel;        /* rows of A are channels, else places of a row of the window */
    bool accumulate;
    real *partial; /* [blocks][weights], where blocks > 1 */
} WeightGrad;

typedef struct {
    int64_t block, group, c, channels, k, outs;
} WeightTile;

static WeightTile tile_at(const WeightGrad *v, int64_t tile)
{
    WeightTile t;
    t.c = tile % v->wide * v->channels;
    tile /= v->wide;
    t.k = tile % v->high * v->outs;
    tile /= v->high;
    t.group = tile % v->s->groups;
    t.block = tile / v->s->groups;
    t.channels = int_min(v->channels, v->depth - t.c);
    t.outs = int_min(v->outs, v->per - t.k);
    return t;
}

static int64_t input_rows(const Conv2d *s, int64_t rows)
{
    return (rows - 1) * s->stride + s->kernel;
}

/* Adds what `rows` output rows of one sample give to the sums. */
static void multiply(const WeightGrad *v, const WeightTile *t, real *sums, const real *panel,
                     const real *padded, int64_t rows, bool add)
{
    const Conv2d *s = v->s;
    const int64_t plane = input_rows(s, rows) * v->pitch;
    const int width = (int)(int_ceil_div(t->outs, VL) * VL);
    const Finish finish = {.accumulate = add};
    MicroA a = {padded, plane, v->pitch * s->stride, s->stride};
    if (v->by_channel) {
        for (int64_t p = 0; p < s->kernel * s->kernel; p++, sums += t->channels * MICRO_N) {
            a.a = padded + p / s->kernel * v->pitch + p % s->kernel;
            micro_rows((int)t->channels, width, rows, s->OW, a, panel, MICRO_N, sums, MICRO_N,
                       &finish);
        }
        return;
    }
    a.row = 1;
    for (int64_t i = 0; i < t->channels * s->kernel; i++) {
        for (int64_t kw = 0; kw < s->kernel; kw += MICRO_M) {
            const int m = (int)int_min(MICRO_M, s->kernel - kw);
            a.a = padded + i / s->kernel * plane + i % s->kernel * v->pitch + kw;
            micro_rows(m, width, rows, s->OW, a, panel, MICRO_N,
                       sums + (i * s->kernel + kw) * MICRO_N, MICRO_N, &finish);
        }
    }
}

static void write_sums(const WeightGrad *v, const WeightTile *t, const real *sums)
{
    const Conv2d *s = v->s;
    const int64_t places = s->kernel * s->kernel, out = t->group * v->per + t->k;
    const bool add = v->accumulate && v->blocks == 1;
    real *dw = v->blocks > 1 ? v->partial + t->block * s->K * v->depth * places : v->dw;
    for (int64_t k = 0; k < t->outs; k++) {
        for (int64_t c = 0; c < t->channels; c++) {
            real *to = dw + ((out + k) * v->depth + t->c + c) * places;
            for (int64_t p = 0; p < places; p++) {
                const int64_t row = v->by_channel ? p * t->channels + c : c * places + p;
                to[p] = sums[row * MICRO_N + k] + (add ? to[p] : 0);
            }
        }
    }
}

static void weight_tile(void *ctx, int64_t tile)
{
    const WeightGrad *v = ctx;
    const Conv2d *s = v->s;
    const WeightTile t = tile_at(v, tile);
    const int64_t pixels = s->OH * s->OW, image = s->H * s->W;
    real *sums = team_scratch(v->team);
    real *panel = sums + s->kernel * s->kernel * v->channels * MICRO_N;
    real *padded = panel + v->rows * s->OW * MICRO_N;
    const int64_t from = s->B * t.block / v->blocks, to = s->B * (t.block + 1) / v->blocks;
    for (int64_t b = from; b < to; b++) {
        const real *dy = v->dy + (b * s->K + t.group * v->per + t.k) * pixels;
        const real *x = v->x + (b * s->C + t.group * v->depth + t.c) * image;
        for (int64_t top = 0; top < s->OH; top += v->rows) {
            const int64_t rows = int_min(v->rows, s->OH - top);
            micro_pack(panel, true, rows * s->OW, t.outs, dy + top * s->OW, pixels);
            pad_image(padded, x, t.channels, s->H, s->W, s->pad, top * s->stride,
                      input_rows(s, rows), v->pitch);
            multiply(v, &t, sums, panel, padded, rows, b > from || top > 0);
        }
    }
    write_sums(v, &t, sums);
}

/* Shapes of which not even one row fits: one tile is one filter plane. */
static void weight_slowly(void *ctx, int64_t plane)
{
    const WeightGrad *v = ctx;
    const Conv2d *s = v->s;
    const int64_t k = plane / v->depth, c = k / v->per * v->depth + plane % v->depth;
    for (int64_t p = 0; p < s->kernel * s->kernel; p++) {
        double sum = 0;
        for (int64_t b = 0; b < s->B; b++) {
            const real *x = v->x + (b * s->C + c) * s->H * s->W;
            const real *dy = v->dy + (b * s->K + k) * s->OH * s->OW;
            for (int64_t o = 0; o < s->OH * s->OW; o++) {
                const int64_t h = o / s->OW * s->stride - s->pad + p / s->kernel;
                const int64_t i = o % s->OW * s->stride - s->pad + p % s->kernel;
                if (h >= 0 && h < s->H && i >= 0 && i < s->W)
                    sum += (double)dy[o] * (double)x[h * s->W + i];
            }
        }
        real *dw = v->dw + plane * s->kernel * s->kernel + p;
        *dw = (real)sum + (v->accumulate ? *dw : 0);
    }
}

static void add_partials(const WeightGrad *v)
{
    const int64_t n = v->s->K * v->depth * v->s->kernel * v->s->kernel;
    for (int64_t i = 0; i < n; i++) {
        real sum = v->accumulate ? v->dw[i] : 0;
        for (int64_t b = 0; b < v->blocks; b++)
            sum += v->partial[b * n + i];
        v->dw[i] = sum;
    }
}

/* Chooses how many channels and rows a tile takes; false where nothing fits. */
static bool cut_tiles(WeightGrad *v)
{
    const Conv2d *s = v->s;
    const int64_t places = s->kernel * s->kernel;
    v->pitch = s->W + 2 * s->pad;
    if (v->pitch > ROOM || s->OW > ROOM || s->kernel > 64 || places * MICRO_N > SUMS_MOST)
        return false;
    const int64_t most = int_min(MICRO_M, SUMS_MOST / (places * MICRO_N));
    v->channels = int_ceil_div(v->depth, int_ceil_div(v->depth, most));
    const int64_t panels = int_ceil_div(v->per, MICRO_N);
    v->outs = int_min(v->per, int_ceil_div(int_ceil_div(v->per, panels), VL) * VL);
    const int64_t left = ROOM - SUMS_MOST;
    while (v->channels > 1 && s->OW * MICRO_N + v->channels * s->kernel * v->pitch > left)
        v->channels--;
    v->by_channel = v->channels >= s->kernel || v->channels >= MICRO_M / 2;
    v->rows = s->OH;
    while (v->rows > 1 &&
           v->rows * s->OW * MICRO_N + v->channels * input_rows(s, v->rows) * v->pitch > left)
        v->rows = (v->rows + 1) / 2;
    v->wide = int_ceil_div(v->depth, v->channels);
    v->high = int_ceil_div(v->per, v->outs);
    return v->rows * s->OW * MICRO_N + v->channels * input_rows(s, v->rows) * v->pitch <= left;
}

void conv2d_backward_weight(Team *team, real *dw, const real *dy, const real *x, const Conv2d *s,
                            bool accumulate)
{
    WeightGrad v = {.team = team, .dw = dw, .dy = dy, .x = x, .s = s, .accumulate = accumulate};
    v.depth = s->C / s->groups;
    v.per = s->K / s->groups;
    v.blocks = 1;
    if (s->K <= 0 || v.depth <= 0)
        return;
    if (!cut_tiles(&v)) {
        team_run(team, s->K * v.depth, weight_slowly, &v);
        return;
    }
    real partial[PARTIAL];
    v.partial = partial;
    const int64_t tiles = v.wide * v.high * s->groups;
    const int64_t weights = s->K * v.depth * s->kernel * s->kernel;
    const int64_t wanted = int_min(s->B, TILES_WANTED / tiles);
    v.blocks = int_max(1, int_min(wanted, PARTIAL / weights));
    team_run(team, tiles * v.blocks, weight_tile, &v);
    if (v.blocks > 1)
        add_partials(&v);
}
