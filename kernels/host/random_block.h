/* random_block.h - Philox4x32-10 for sixteen counters side by side.
 */
#ifndef MDL_RANDOM_BLOCK_H
#define MDL_RANDOM_BLOCK_H

#include <string.h>

#ifdef __AVX512F__
#include <immintrin.h>
#endif

#include "kernels.h"

enum { RANDOM_LANES = 16, RANDOM_BLOCK = 4 * RANDOM_LANES, RANDOM_ROUNDS = 10 };

static const uint32_t RANDOM_MULTIPLIER[2] = {0xD2511F53, 0xCD9E8D57};
static const uint32_t RANDOM_WEYL[2] = {0x9E3779B9, 0xBB67AE85};

/* Sixteen products of 32 x 32 bits: the even and the odd lanes as 64-bit products. */
typedef uint32_t RandomWords __attribute__((vector_size(4 * RANDOM_LANES)));
typedef uint64_t RandomProducts __attribute__((vector_size(4 * RANDOM_LANES)));

static inline __attribute__((always_inline)) void
random_multiply(uint32_t by, RandomWords x, RandomWords *high, RandomWords *low)
{
    const RandomProducts mask = (RandomProducts){0} + UINT32_MAX;
#ifdef __AVX512F__ /* a product of 64 x 64 bits would do, and takes three times as long */
    const __m512i factor = _mm512_set1_epi64(by);
    const RandomProducts even = (RandomProducts)_mm512_mul_epu32((__m512i)x, factor);
    const RandomProducts odd =
        (RandomProducts)_mm512_mul_epu32(_mm512_srli_epi64((__m512i)x, 32), factor);
#else
    const RandomProducts even = ((RandomProducts)x & mask) * (uint64_t)by;
    const RandomProducts odd = ((RandomProducts)x >> 32) * (uint64_t)by;
#endif
    *high = (RandomWords)((even >> 32) | (odd & ~mask));
    *low = (RandomWords)((even & mask) | (odd << 32));
}

/* word[w][lane] in and out. */
static inline void philox_lanes(RandomWords word[4], uint32_t key0, uint32_t key1)
{
    RandomWords w0 = word[0], w1 = word[1], w2 = word[2], w3 = word[3];
    for (int round = 0; round < RANDOM_ROUNDS; round++) {
        RandomWords high0, low0, high2, low2;
        random_multiply(RANDOM_MULTIPLIER[0], w0, &high0, &low0);
        random_multiply(RANDOM_MULTIPLIER[1], w2, &high2, &low2);
        w0 = high2 ^ w1 ^ key0;
        w1 = low2;
        w2 = high0 ^ w3 ^ key1;
        w3 = low0;
        key0 += RANDOM_WEYL[0];
        key1 += RANDOM_WEYL[1];
    }
    word[0] = w0;
    word[1] = w1;
    word[2] = w2;
    word[3] = w3;
}

/* number[e] = that of element block * RANDOM_BLOCK + e of sample `id`. */
static inline void random_block(uint32_t number[RANDOM_BLOCK], uint64_t key, uint64_t id,
                                int64_t block)
{
    static const RandomWords lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const uint64_t counter = (uint64_t)block * RANDOM_LANES;
    RandomWords word[4] = {lane + (uint32_t)counter, (RandomWords){0} + (uint32_t)(counter >> 32),
                           (RandomWords){0} + (uint32_t)id,
                           (RandomWords){0} + (uint32_t)(id >> 32)};
    philox_lanes(word, (uint32_t)key, (uint32_t)(key >> 32));
    memcpy(number, word, sizeof word);
}

#endif
