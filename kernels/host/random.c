/* random.c - Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
 * 2011) and dropout.
 *
 * A counter gives four numbers. Sixteen counters are computed side by side, and their
 * numbers are used in the order all first words, all second words, ...: element e of
 * sample i takes word e / 16 % 4 of counter (e / 64 * 16 + e % 16, i).
 */
#include <math.h>

#include "random_block.h"
#include "vec.h"

enum { BLOCK = RANDOM_BLOCK, GRAIN = 1 << 13 };

void philox(uint32_t out[4], const uint32_t counter[4], const uint32_t key[2])
{
    RandomWords word[4] = {{0}};
    for (int w = 0; w < 4; w++)
        word[w][0] = counter[w];
    philox_lanes(word, key[0], key[1]);
    for (int w = 0; w < 4; w++)
        out[w] = word[w][0];
}

typedef struct {
    real *y;
    const real *x;
    uint64_t key;
    int64_t first, n, blocks; /* of a sample */
    uint32_t least;           /* the smallest number that is kept */
    real scale;
} Dropout;

static void dropout_blocks(void *ctx, int64_t from, int64_t to)
{
    const Dropout *d = ctx;
    const uint32_t least = d->least;
    const real scale = d->scale;
    real y[BLOCK], rest[BLOCK] = {0};
    for (int64_t i = from; i < to; i++) {
        const int64_t sample = i / d->blocks, block = i % d->blocks;
        const int64_t at = sample * d->n + block * BLOCK;
        const int64_t n = int_min(BLOCK, d->n - block * BLOCK);
        uint32_t number[BLOCK];
        random_block(number, d->key, (uint64_t)(d->first + sample), block);
        const real *x = d->x + at;
        if (n < BLOCK)
            x = memcpy(rest, x, (size_t)n * sizeof *x);
        for (int64_t e = 0; e < BLOCK; e++) {
            const real kept = x[e] * scale;
            y[e] = number[e] >= least ? kept : 0;
        }
        memcpy(d->y + at, y, (size_t)n * sizeof *y);
    }
}

void dropout(Team *team, real *y, const real *x, double p, uint64_t key, int64_t first,
             int64_t samples, int64_t n)
{
    const double least = ceil(p * 4294967296.0);
    if (least >= 4294967296.0) {
        fill(team, y, 0, samples * n);
        return;
    }
    Dropout d = {y, x, key, first, n, int_ceil_div(n, BLOCK), (uint32_t)least, (real)(1 / (1 - p))};
    team_range(team, samples * d.blocks, GRAIN / BLOCK, dropout_blocks, &d);
}
