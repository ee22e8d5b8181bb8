/* random.c - Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
 * 2011) and dropout.
 *
 * A counter gives four numbers. Sixteen counters are computed side by side, and their
 * numbers are used in the order all first words, all second words, ...: element e of
 * sample i takes word e / 16 % 4 of counter (e / 64 * 16 + e % 16, i).
 */
#include <math.h>
#include <string.h>

#include "vec.h"

enum { LANES = 16, BLOCK = 4 * LANES, ROUNDS = 10, GRAIN = 1 << 13 };

static const uint32_t MULTIPLIER[2] = {0xD2511F53, 0xCD9E8D57};
static const uint32_t WEYL[2] = {0x9E3779B9, 0xBB67AE85};

/* Sixteen products of 32 x 32 bits: the even and the odd lanes as 64-bit products. */
typedef uint32_t Words __attribute__((vector_size(4 * LANES)));
typedef uint64_t Products __attribute__((vector_size(4 * LANES)));

static inline __attribute__((always_inline)) void multiply(uint32_t by, Words x, Words *high,
                                                           Words *low)
{
    const Products mask = (Products){0} + UINT32_MAX;
    const Products even = ((Products)x & mask) * (uint64_t)by;
    const Products odd = ((Products)x >> 32) * (uint64_t)by;
    *high = (Words)((even >> 32) | (odd & ~mask));
    *low = x * by;
}

/* word[w][lane] in and out. */
static inline void philox_lanes(Words word[4], uint32_t key0, uint32_t key1)
{
    Words w0 = word[0], w1 = word[1], w2 = word[2], w3 = word[3];
    for (int round = 0; round < ROUNDS; round++) {
        Words high0, low0, high2, low2;
        multiply(MULTIPLIER[0], w0, &high0, &low0);
        multiply(MULTIPLIER[1], w2, &high2, &low2);
        w0 = high2 ^ w1 ^ key0;
        w1 = low2;
        w2 = high0 ^ w3 ^ key1;
        w3 = low0;
        key0 += WEYL[0];
        key1 += WEYL[1];
    }
    word[0] = w0;
    word[1] = w1;
    word[2] = w2;
    word[3] = w3;
}

void philox(uint32_t out[4], const uint32_t counter[4], const uint32_t key[2])
{
    Words word[4] = {{0}};
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

static void random_block(Words word[4], const Dropout *d, int64_t sample, int64_t block)
{
    static const Words lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const uint64_t counter = (uint64_t)block * LANES, id = (uint64_t)(d->first + sample);
    word[0] = lane + (uint32_t)counter;
    word[1] = (Words){0} + (uint32_t)(counter >> 32);
    word[2] = (Words){0} + (uint32_t)id;
    word[3] = (Words){0} + (uint32_t)(id >> 32);
    philox_lanes(word, (uint32_t)d->key, (uint32_t)(d->key >> 32));
}

static void dropout_blocks(void *ctx, int64_t from, int64_t to)
{
    const Dropout *d = ctx;
    for (int64_t i = from; i < to; i++) {
        const int64_t sample = i / d->blocks, block = i % d->blocks;
        const int64_t at = sample * d->n + block * BLOCK;
        const int64_t n = int_min(BLOCK, d->n - block * BLOCK);
        Words word[4];
        uint32_t number[BLOCK];
        random_block(word, d, sample, block);
        memcpy(number, word, sizeof number);
        if (n == BLOCK)
            for (int64_t e = 0; e < BLOCK; e++)
                d->y[at + e] = number[e] >= d->least ? d->x[at + e] * d->scale : 0;
        else
            for (int64_t e = 0; e < n; e++)
                d->y[at + e] = number[e] >= d->least ? d->x[at + e] * d->scale : 0;
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
