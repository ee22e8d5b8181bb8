/* half_elements.c - element by element: rounding to 16-bit numbers, one number everywhere, and
 * dropout. */
#include <math.h>

#include "half_convert.h"
#include "random_block.h"

enum { GRAIN = 1 << 14, BLOCK = RANDOM_BLOCK };

typedef struct {
    HalfKind kind;
    half16 *y;
    const float *x;
} Rounding;

static void round_range(void *ctx, int64_t from, int64_t to)
{
    const Rounding *v = ctx;
    half_round_row(v->kind, v->y + from, v->x + from, to - from);
}

void half_round(Team *team, HalfKind kind, half16 *y, const float *x, int64_t n)
{
    Rounding v = {kind, y, x};
    team_range(team, n, GRAIN, round_range, &v);
}

typedef struct {
    half16 *y;
    half16 value;
} Filling;

static void fill_range(void *ctx, int64_t from, int64_t to)
{
    const Filling *f = ctx;
    for (int64_t i = from; i < to; i++)
        f->y[i] = f->value;
}

void fill_half(Team *team, HalfKind kind, half16 *y, float value, int64_t n)
{
    team_range(team, n, GRAIN, fill_range, &(Filling){y, half_round_one(kind, value)});
}

typedef struct {
    HalfKind kind;
    half16 *y;
    const half16 *x;
    uint64_t key;
    int64_t first, n, blocks; /* of a sample */
    uint32_t least;           /* the smallest number that is kept */
    float scale;
} Dropout;

static void drop_blocks(void *ctx, int64_t from, int64_t to)
{
    const Dropout *d = ctx;
    const uint32_t least = d->least;
    const float scale = d->scale;
    for (int64_t i = from; i < to; i++) {
        const int64_t sample = i / d->blocks, block = i % d->blocks;
        const int64_t at = sample * d->n + block * BLOCK;
        const int64_t n = int_min(BLOCK, d->n - block * BLOCK);
        uint32_t number[BLOCK];
        float x[BLOCK] = {0};
        random_block(number, d->key, (uint64_t)(d->first + sample), block);
        half_widen_row(d->kind, x, d->x + at, n);
        for (int64_t e = 0; e < BLOCK; e++) {
            const float kept = x[e] * scale;
            x[e] = number[e] >= least ? kept : 0;
        }
        half_round_row(d->kind, d->y + at, x, n);
    }
}

void dropout_half(Team *team, HalfKind kind, half16 *y, const half16 *x, double p, uint64_t key,
                  int64_t first, int64_t samples, int64_t n)
{
    const double least = ceil(p * 4294967296.0);
    if (least >= 4294967296.0) {
        fill_half(team, kind, y, 0, samples * n);
        return;
    }
    Dropout d = {
        kind, y, x, key, first, n, int_ceil_div(n, BLOCK), (uint32_t)least, (float)(1 / (1 - p))};
    team_range(team, samples * d.blocks, GRAIN / BLOCK, drop_blocks, &d);
}
