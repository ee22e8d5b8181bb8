/* correlate.c - convolution by tiled im2col.
 *
 * A tile is some whole samples, or a run of output pixels of one sample where that is
 * large. Its input rows are copied once with their padding; then, MICRO_N output pixels
 * at a time, the patches are laid out as a panel [kernel^2 C][MICRO_N], which every strip
 * of output channels multiplies and writes to y as it lies:
 *
 *     x[b] -> padded rows -> panel of columns --filter--> y[b][k][pixel .. pixel + 48]
 *
 * The panel is made in the scratch of the thread and stays in its L2 cache. Where a
 * window and its channels do not fit, channels are taken in chunks, added up in order.
 */
#include "correlate.h"

#include <string.h>

enum {
    PANEL_ELEMENTS = (1 << 18) / (int)sizeof(real),
    PADDED_ELEMENTS = (1 << 19) / (int)sizeof(real),
    CHUNK_DEPTH = 640, /* kernel^2 x channels of a chunk: a strip of filter stays in L1 */
    TILES_WANTED = 8
};

typedef struct {
    Team *team;
    real *y;
    const real *x;
    Filter filter;
    const Conv2d *s;
    const Finish *finish;
    int64_t pixels;  /* OH OW */
    int64_t samples; /* of a tile */
    int64_t run;     /* output pixels of a tile that is part of a sample, else pixels */
    int64_t runs;    /* tiles of a sample, at least 1 */
    int64_t chunk;   /* channels at a time */
    int64_t pitch;   /* of the padded rows */
} Correlation;

/* One tile: output pixels [from, to) of samples [sample, sample + samples), counted through. */
typedef struct {
    int64_t group, sample, samples, from, to;
    int64_t top, rows; /* of the padded input */
} Tile;

void pad_image(real *padded, const real *image, int64_t C, int64_t H, int64_t W, int64_t pad,
               int64_t top, int64_t rows, int64_t pitch)
{
    for (int64_t c = 0; c < C; c++) {
        for (int64_t r = 0; r < rows; r++) {
            real *to = padded + (c * rows + r) * pitch;
            const int64_t h = top + r - pad;
            if (h < 0 || h >= H) {
                memset(to, 0, (size_t)pitch * sizeof *to);
                continue;
            }
            for (int64_t i = 0; i < pad; i++)
                to[i] = 0;
            memcpy(to + pad, image + (c * H + h) * W, (size_t)W * sizeof *to);
            for (int64_t i = pad + W; i < pitch; i++)
                to[i] = 0;
        }
    }
}

/* A vector of a panel's row: where it goes, and where it comes from in the padded rows of
 * channel 0 for the first place of the window. The last of an output row overhangs. */
typedef struct {
    int64_t at, source;
    int64_t n; /* columns that count */
} Piece;

static int pieces_of(Piece *piece, const Correlation *c, const Tile *t, int64_t from, int64_t n,
                     int64_t channels)
{
    const Conv2d *s = c->s;
    int count = 0;
    for (int64_t done = 0; done < n; count++) {
        const int64_t q = from + done, b = q / c->pixels, pixel = q % c->pixels;
        const int64_t oh = pixel / s->OW, ow = pixel % s->OW;
        const int64_t length = int_min(int_min(n - done, s->OW - ow), VL);
        const int64_t row = oh * s->stride - t->top;
        const int64_t source = (b * channels * t->rows + row) * c->pitch + ow * s->stride;
        piece[count] = (Piece){done, source, length};
        done += length;
    }
    return count;
}

/* panel[place][channel][MICRO_N]: what every window sees. Where a vector overhangs, the next
 * one, or the next row, is written over it. */
static void fill_by_pieces(real *panel, const real *padded, const Correlation *c, const Tile *t,
                           int64_t channels, const Piece *piece, int pieces)
{
    const Conv2d *s = c->s;
    const int64_t plane = t->rows * c->pitch;
    for (int64_t place = 0; place < s->kernel * s->kernel; place++) {
        const real *from = padded + place / s->kernel * c->pitch + place % s->kernel;
        for (int64_t ch = 0; ch < channels; ch++, panel += MICRO_N, from += plane) {
            if (s->stride == 1) {
                for (int i = 0; i < pieces; i++)
                    vec_store(panel + piece[i].at, vec_load(from + piece[i].source));
                continue;
            }
            for (int i = 0; i < pieces; i++)
                for (int64_t j = 0; j < piece[i].n; j++)
                    panel[piece[i].at + j] = from[piece[i].source + j * s->stride];
        }
    }
}

/* For stride 1, a vector of a panel's row taken from up to SOURCES output rows at once: lane
 * l is at source[i] + l, i being the first whose mask has it, else the last. */
enum { SOURCES = 3, MIXED_LEAST = 64 /* rows of a panel that pay for finding them out */ };
typedef struct {
    int64_t source[SOURCES];
    VecInt mask[SOURCES - 1];
} Mix;

/* The most sources that any vector needs; more than SOURCES: mixing does not do. */
static int mixes_of(Mix *mix, const Piece *piece, int pieces, int64_t n)
{
    int most = 1, p = 0;
    for (int v = 0; v < MICRO_V; v++) {
        int used = 0;
        mix[v] = (Mix){0};
        for (int l = 0; l < VL; l++) {
            const int64_t column = v * VL + l;
            while (p + 1 < pieces && column < n && column >= piece[p].at + piece[p].n)
                p++;
            const int64_t source = piece[p].source - piece[p].at + v * VL;
            if (used == 0 || source != mix[v].source[used - 1]) {
                if (used == SOURCES)
                    return SOURCES + 1;
                for (int i = used++; i < SOURCES; i++)
                    mix[v].source[i] = source;
            }
            if (used < SOURCES)
                mix[v].mask[used - 1][l] = -1;
        }
        most = used > most ? used : most;
    }
    return most;
}

VEC_INLINE void fill_by_mixes(const int sources, real *panel, const real *padded,
                              const Correlation *c, const Tile *t, int64_t channels, const Mix *mix)
{
    const int64_t kernel = c->s->kernel, plane = t->rows * c->pitch;
    for (int64_t place = 0; place < kernel * kernel; place++) {
        const real *from = padded + place / kernel * c->pitch + place % kernel;
        for (int64_t ch = 0; ch < channels; ch++, panel += MICRO_N, from += plane) {
#pragma GCC unroll 3
            for (int v = 0; v < MICRO_V; v++) {
                Vec x = vec_load(from + mix[v].source[sources - 1]);
                if (sources > 2)
                    x = vec_choose(mix[v].mask[1], vec_load(from + mix[v].source[1]), x);
                if (sources > 1)
                    x = vec_choose(mix[v].mask[0], vec_load(from + mix[v].source[0]), x);
                vec_store(panel + v * VL, x);
            }
        }
    }
}

static void fill_panel(real *panel, const real *padded, const Correlation *c, const Tile *t,
                       int64_t channels, int64_t from, int64_t n)
{
    Piece piece[MICRO_N];
    Mix mix[MICRO_V];
    const int pieces = pieces_of(piece, c, t, from, n, channels);
    const bool worth = c->s->stride == 1 && channels * c->s->kernel * c->s->kernel >= MIXED_LEAST;
    const int sources = worth ? mixes_of(mix, piece, pieces, n) : SOURCES + 1;
    if (sources == 1)
        fill_by_mixes(1, panel, padded, c, t, channels, mix);
    else if (sources == 2)
        fill_by_mixes(2, panel, padded, c, t, channels, mix);
    else if (sources == 3)
        fill_by_mixes(3, panel, padded, c, t, channels, mix);
    else
        fill_by_pieces(panel, padded, c, t, channels, piece, pieces);
}

/* Writes a strip of m channels for n pixels that belong to several samples. */
static void scatter(const Correlation *c, const Tile *t, const real *strip, int64_t channel, int m,
                    int64_t from, int64_t n)
{
    for (int64_t done = 0; done < n;) {
        const int64_t b = (from + done) / c->pixels, pixel = (from + done) % c->pixels;
        const int64_t length = int_min(n - done, c->pixels - pixel);
        for (int i = 0; i < m; i++)
            memcpy(c->y + ((t->sample + b) * c->s->K + channel + i) * c->pixels + pixel,
                   strip + i * MICRO_N + done, (size_t)length * sizeof(real));
        done += length;
    }
}

static void gather(const Correlation *c, const Tile *t, real *strip, int64_t channel, int m,
                   int64_t from, int64_t n)
{
    for (int64_t j = 0; j < n; j++) {
        const int64_t b = (from + j) / c->pixels, pixel = (from + j) % c->pixels;
        for (int i = 0; i < m; i++)
            strip[i * MICRO_N + j] =
                c->y[((t->sample + b) * c->s->K + channel + i) * c->pixels + pixel];
    }
}

/* All output channels of the group for one panel. */
static void multiply_panel(const Correlation *c, const Tile *t, const real *panel, int64_t first,
                           int64_t channels, int64_t from, int64_t n)
{
    const Conv2d *s = c->s;
    const int64_t per_group = s->K / s->groups, depth = s->C / s->groups;
    const int64_t places = s->kernel * s->kernel;
    const bool whole = from / c->pixels == (from + n - 1) / c->pixels;
    const real *w = c->filter.w + t->group * per_group * depth * places + c->filter.first +
                    first * c->filter.column;
    Finish finish = first + channels == depth ? *c->finish : (Finish){0};
    finish.accumulate = first > 0;
    for (int64_t k = 0; k < per_group; k += MICRO_M) {
        const int m = (int)int_min(MICRO_M, per_group - k);
        const int64_t channel = t->group * per_group + k;
        const MicroA a = {w + k * c->filter.row, c->filter.row, c->filter.place, c->filter.column};
        Finish here = finish;
        if (here.row_bias)
            here.row_bias += channel;
        if (whole) {
            const int64_t b = t->sample + from / c->pixels;
            real *y = c->y + (b * s->K + channel) * c->pixels + from % c->pixels;
            micro_rows(m, (int)n, places, channels, a, panel, MICRO_N, y, c->pixels, &here);
            continue;
        }
        _Alignas(64) real strip[MICRO_M * MICRO_N];
        if (here.accumulate)
            gather(c, t, strip, channel, m, from, n);
        micro_rows(m, (int)n, places, channels, a, panel, MICRO_N, strip, MICRO_N, &here);
        scatter(c, t, strip, channel, m, from, n);
    }
}

static Tile tile_at(const Correlation *c, int64_t tile)
{
    const Conv2d *s = c->s;
    Tile t = {.group = tile % s->groups};
    tile /= s->groups;
    t.sample = tile / c->runs * c->samples;
    t.samples = int_min(c->samples, s->B - t.sample);
    t.from = tile % c->runs * c->run;
    t.to = c->runs > 1 ? int_min(c->pixels, t.from + c->run) : t.samples * c->pixels;
    const bool part = c->runs > 1;
    const int64_t first = part ? t.from / s->OW : 0, last = part ? (t.to - 1) / s->OW : s->OH - 1;
    t.top = first * s->stride;
    t.rows = (last - first) * s->stride + s->kernel;
    return t;
}

static void correlate_tile(void *ctx, int64_t tile)
{
    const Correlation *c = ctx;
    const Conv2d *s = c->s;
    const Tile t = tile_at(c, tile);
    const int64_t depth = s->C / s->groups, image = s->H * s->W;
    real *panel = team_scratch(c->team), *padded = panel + PANEL_ELEMENTS + VL;
    for (int64_t first = 0; first < depth; first += c->chunk) {
        const int64_t channels = int_min(c->chunk, depth - first);
        for (int64_t b = 0; b < t.samples; b++)
            pad_image(padded + b * channels * t.rows * c->pitch,
                      c->x + ((t.sample + b) * s->C + t.group * depth + first) * image, channels,
                      s->H, s->W, s->pad, t.top, t.rows, c->pitch);
        for (int64_t from = t.from; from < t.to; from += MICRO_N) {
            const int64_t n = int_min(MICRO_N, t.to - from);
            fill_panel(panel, padded, c, &t, channels, from, n);
            multiply_panel(c, &t, panel, first, channels, from, n);
        }
    }
}

/* Shapes whose windows fit no scratch, however they are cut. */
static void correlate_slowly(void *ctx, int64_t plane)
{
    const Correlation *c = ctx;
    const Conv2d *s = c->s;
    const int64_t b = plane / s->K, k = plane % s->K;
    const int64_t per_group = s->K / s->groups, depth = s->C / s->groups;
    const int64_t group = k / per_group;
    const real *w = c->filter.w + group * per_group * depth * s->kernel * s->kernel +
                    c->filter.first + k % per_group * c->filter.row;
    for (int64_t pixel = 0; pixel < c->pixels; pixel++) {
        real sum = 0;
        for (int64_t ch = 0; ch < depth; ch++) {
            const real *x = c->x + (b * s->C + group * depth + ch) * s->H * s->W;
            for (int64_t p = 0; p < s->kernel * s->kernel; p++) {
                const int64_t h = pixel / s->OW * s->stride - s->pad + p / s->kernel;
                const int64_t v = pixel % s->OW * s->stride - s->pad + p % s->kernel;
                if (h >= 0 && h < s->H && v >= 0 && v < s->W)
                    sum += x[h * s->W + v] * w[ch * c->filter.column + p * c->filter.place];
            }
        }
        if (c->finish->row_bias)
            sum += c->finish->row_bias[k];
        c->y[plane * c->pixels + pixel] = c->finish->relu && sum <= 0 ? 0 : sum;
    }
}

/* Elements of one channel of one sample in the scratch of a tile of `run` pixels. */
static int64_t padded_size(const Correlation *c, int64_t run)
{
    const Conv2d *s = c->s;
    const int64_t rows = int_min(s->OH, int_ceil_div(run - 1, s->OW) + 1);
    return ((rows - 1) * s->stride + s->kernel) * c->pitch;
}

/* Chooses samples, run and chunk; false where nothing fits. */
static bool cut_tiles(Correlation *c)
{
    const Conv2d *s = c->s;
    const int64_t depth = s->C / s->groups, places = s->kernel * s->kernel;
    const int64_t room = PADDED_ELEMENTS - 2 * MICRO_N;
    c->run = c->pixels;
    const int64_t most =
        int_min(PANEL_ELEMENTS / MICRO_N / places, int_max(1, CHUNK_DEPTH / places));
    while (c->run > MICRO_N && padded_size(c, c->run) * int_min(most, depth) > room)
        c->run = int_ceil_div(c->run / 2, MICRO_N) * MICRO_N;
    c->chunk = int_min(int_min(most, depth), room / padded_size(c, c->run));
    if (c->chunk < 1)
        return false;
    const int64_t units = s->B * s->groups;
    while (c->run > 4 * MICRO_N && units * int_ceil_div(c->pixels, c->run) < TILES_WANTED)
        c->run = int_ceil_div(c->run / 2, MICRO_N) * MICRO_N;
    c->runs = int_ceil_div(c->pixels, c->run);
    c->samples = 1;
    if (c->runs == 1 && c->pixels < 8 * MICRO_N) {
        const int64_t fit = room / (c->chunk * padded_size(c, c->pixels));
        c->samples = int_max(1, int_min(int_min(fit, 8), units / TILES_WANTED));
    }
    return true;
}

void correlate(Team *team, real *y, const real *x, Filter filter, const Conv2d *s,
               const Finish *finish)
{
    Correlation c = {team, y, x, filter, s, finish, s->OH * s->OW, 1, 0, 1, 1, 0};
    c.pitch = s->W + 2 * s->pad;
    if (s->B <= 0 || s->K <= 0 || c.pixels <= 0)
        return;
    /* cut_tiles multiplies by these, so they are bounded first */
    if (c.pitch > PADDED_ELEMENTS || s->kernel > 256 || !cut_tiles(&c)) {
        team_run(team, s->B * s->K, correlate_slowly, &c);
        return;
    }
    team_run(team, int_ceil_div(s->B, c.samples) * c.runs * s->groups, correlate_tile, &c);
}
