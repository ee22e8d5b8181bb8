/* conv.c - a 2-d convolution and the gradient of its input.
 *
 *   forward           correlate() with the filter as it lies; a product where kernel is 1
 *   backward, input   stride 1: correlate() of dy with the filter turned round;
 *                     else column gradients by a product, added back to the image
 */
#include "correlate.h"

#include <string.h>

typedef struct {
    Team *team;
    real *out;
    const real *a, *b;
    const Conv2d *s;
    const Finish *finish;
    int64_t channels; /* of a tile */
    int64_t parts;    /* tiles of the channels of a group */
    int64_t rows;     /* output rows at a time */
} Conv;

static bool pointwise(const Conv2d *s)
{
    return s->kernel == 1 && s->stride == 1 && s->pad == 0;
}

/* One tile: some output channels of one group of one sample. */
static void pointwise_forward_tile(void *ctx, int64_t tile)
{
    const Conv *v = ctx;
    const Conv2d *s = v->s;
    const int64_t n = s->H * s->W, per = s->K / s->groups, depth = s->C / s->groups;
    const int64_t part = tile % v->parts, b = tile / v->parts / s->groups;
    const int64_t group = tile / v->parts % s->groups, k = part * v->channels;
    const int64_t channel = group * per + k;
    Finish finish = *v->finish;
    if (finish.row_bias)
        finish.row_bias += channel;
    block_product(team_scratch(v->team), false, false, int_min(v->channels, per - k), n, depth,
                  v->b + channel * depth, depth, v->a + (b * s->C + group * depth) * n, n,
                  v->out + (b * s->K + channel) * n, n, &finish);
}

void conv2d_forward(Team *team, real *y, const real *x, const real *w, const real *b,
                    const Conv2d *s, bool relu)
{
    const Finish finish = {.row_bias = b, .relu = relu};
    const int64_t per = s->K / s->groups, depth = s->C / s->groups;
    if (pointwise(s)) {
        Conv v = {.team = team, .out = y, .a = x, .b = w, .s = s, .finish = &finish};
        v.channels = s->B * s->groups >= 8 ? per : int_min(per, 32);
        v.parts = int_ceil_div(per, v.channels);
        team_run(team, s->B * s->groups * v.parts, pointwise_forward_tile, &v);
        return;
    }
    const int64_t places = s->kernel * s->kernel;
    correlate(team, y, x, (Filter){w, 0, depth * places, places, 1}, s, &finish);
}

/* ------------------------------------------------------ gradient of the input */

/* Adds column gradients [channels][place][rows][OW] of output rows from `top` to image. */
static void add_columns(real *image, const real *columns, const Conv2d *s, int64_t channels,
                        int64_t top, int64_t rows)
{
    for (int64_t c = 0; c < channels; c++) {
        for (int64_t p = 0; p < s->kernel * s->kernel; p++) {
            const int64_t kh = p / s->kernel, kw = p % s->kernel;
            for (int64_t r = 0; r < rows; r++, columns += s->OW) {
                const int64_t h = (top + r) * s->stride - s->pad + kh;
                if (h < 0 || h >= s->H)
                    continue;
                real *to = image + (c * s->H + h) * s->W;
                const int64_t before = int_max(0, s->pad - kw);
                const int64_t from = int_ceil_div(before, s->stride);
                const int64_t room = s->W - 1 + s->pad - kw;
                const int64_t end = room < 0 ? 0 : int_min(s->OW, room / s->stride + 1);
                for (int64_t ow = from; ow < end; ow++)
                    to[ow * s->stride - s->pad + kw] += columns[ow];
            }
        }
    }
}

/* One tile: some input channels of one group of one sample. */
static void input_tile(void *ctx, int64_t tile)
{
    const Conv *v = ctx;
    const Conv2d *s = v->s;
    const int64_t per = s->K / s->groups, depth = s->C / s->groups, pixels = s->OH * s->OW;
    const int64_t places = s->kernel * s->kernel;
    const int64_t part = tile % v->parts, b = tile / v->parts / s->groups;
    const int64_t group = tile / v->parts % s->groups, first = part * v->channels;
    const int64_t channels = int_min(v->channels, depth - first);
    real *image = v->out + (b * s->C + group * depth + first) * s->H * s->W;
    real *columns = (real *)((char *)team_scratch(v->team) + BLOCK_SCRATCH);
    memset(image, 0, (size_t)(channels * s->H * s->W) * sizeof *image);
    for (int64_t top = 0; top < s->OH; top += v->rows) {
        const int64_t rows = int_min(v->rows, s->OH - top);
        const Finish finish = {0};
        block_product(team_scratch(v->team), true, false, channels * places, rows * s->OW, per,
                      v->b + (group * per * depth + first) * places, depth * places,
                      v->a + (b * s->K + group * per) * pixels + top * s->OW, pixels, columns,
                      rows * s->OW, &finish);
        add_columns(image, columns, s, channels, top, rows);
    }
}

/* Shapes whose columns fit no scratch: one tile is one input plane. */
static void input_slowly(void *ctx, int64_t plane)
{
    const Conv *v = ctx;
    const Conv2d *s = v->s;
    const int64_t per = s->K / s->groups, depth = s->C / s->groups;
    const int64_t b = plane / s->C, c = plane % s->C, group = c / depth;
    real *image = v->out + plane * s->H * s->W;
    memset(image, 0, (size_t)(s->H * s->W) * sizeof *image);
    for (int64_t k = group * per; k < (group + 1) * per; k++) {
        const real *w = v->b + (k * depth + c % depth) * s->kernel * s->kernel;
        for (int64_t o = 0; o < s->OH * s->OW; o++) {
            const real dy = v->a[(b * s->K + k) * s->OH * s->OW + o];
            for (int64_t p = 0; p < s->kernel * s->kernel; p++) {
                const int64_t h = o / s->OW * s->stride - s->pad + p / s->kernel;
                const int64_t i = o % s->OW * s->stride - s->pad + p % s->kernel;
                if (h >= 0 && h < s->H && i >= 0 && i < s->W)
                    image[h * s->W + i] += dy * w[p];
            }
        }
    }
}

void conv2d_backward_input(Team *team, real *dx, const real *dy, const real *w, const Conv2d *s)
{
    const int64_t depth = s->C / s->groups, places = s->kernel * s->kernel;
    if (s->stride == 1 && s->pad < s->kernel) {
        Conv2d back = *s;
        back.C = s->K;
        back.H = s->OH;
        back.W = s->OW;
        back.K = s->C;
        back.OH = s->H;
        back.OW = s->W;
        back.pad = s->kernel - 1 - s->pad;
        const Filter turned = {w, places - 1, places, depth * places, -1};
        correlate(team, dx, dy, turned, &back, &(Finish){0});
        return;
    }
    Conv v = {.team = team, .out = dx, .a = dy, .b = w, .s = s};
    const int64_t room = (TEAM_SCRATCH - BLOCK_SCRATCH) / (int64_t)sizeof(real);
    if (s->OW > room || places > room / s->OW) {
        team_run(team, s->B * s->C, input_slowly, &v);
        return;
    }
    v.rows = int_min(s->OH, room / (places * s->OW));
    v.channels = int_min(depth, int_max(1, room / (places * s->OW * v.rows)));
    v.parts = int_ceil_div(depth, v.channels);
    team_run(team, s->B * s->groups * v.parts, input_tile, &v);
}
