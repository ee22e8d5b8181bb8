/* permutation.c - the order of samples in an epoch.
 *
 * A Feistel network over the smallest even number of bits that holds n is a permutation
 * of [0, 2^bits); values outside [0, n) are put through it again until they are inside
 * (cycle walking), which gives a permutation of [0, n). It needs no memory, so every
 * stage computes the order for itself.
 */
#include <xxhash.h>

#include "data.h"

enum { ROUNDS = 6 };

/* The finaliser of MurmurHash3 by Austin Appleby: every bit of x reaches every other. */
static uint64_t bits_mix(uint64_t x)
{
    x ^= x >> 33;
    x *= 0xff51afd7ed558ccdULL;
    x ^= x >> 33;
    x *= 0xc4ceb9fe1a85ec53ULL;
    return x ^ x >> 33;
}

int64_t permutation(int64_t index, int64_t n, uint64_t seed, uint64_t epoch)
{
    if (n < 2)
        return 0;
    int bits = 64 - __builtin_clzll((uint64_t)n - 1);
    int half = (bits + 1) / 2;
    uint64_t mask = (UINT64_C(1) << half) - 1;
    uint64_t key = XXH64(&epoch, sizeof epoch, seed);
    uint64_t x = (uint64_t)index;
    do {
        uint64_t left = x >> half, right = x & mask;
        for (uint64_t round = 0; round < ROUNDS; round++) {
            uint64_t next = left ^ (bits_mix(right + key + (round << 58)) & mask);
            left = right;
            right = next;
        }
        x = left << half | right;
    } while (x >= (uint64_t)n);
    return (int64_t)x;
}
