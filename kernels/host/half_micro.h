/* half_micro.h - the innermost loops of products of bf16 numbers, on the processor's own
 * instructions for them. One thread, no allocation.
 *
 * The instruction multiplies pairs: an operand is read as 32-bit words that hold elements 2p
 * and 2p + 1 along K; where K is odd the last word's upper half is zero. It takes subnormal
 * numbers for zero.
 */
#ifndef MDL_HALF_MICRO_H
#define MDL_HALF_MICRO_H

#include "half.h"
#include "micro.h"

#if defined(__AVX512BF16__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#define MDL_HALF_DOT 1
#else
#define MDL_HALF_DOT 0
#endif

/* Word (i, p) of A is at a + i * row + p * inner, in bytes. */
typedef struct {
    const char *a;
    int64_t row, inner;
} HalfA;

/* What an element is besides its sum of products, and where it goes: to `wide`, or rounded to
 * `half`. add and col_bias may be NULL; wide may be add. */
typedef struct {
    const float *add;
    int64_t ldadd;
    const float *col_bias;
    float *wide;
    half16 *half;
    int64_t ldo;
} HalfEnd;

/* The end of a part of C that begins at row i and column j. */
static inline HalfEnd half_end_from(HalfEnd e, int64_t i, int64_t j)
{
    if (e.add)
        e.add += i * e.ldadd + j;
    if (e.col_bias)
        e.col_bias += j;
    if (e.wide)
        e.wide += i * e.ldo + j;
    if (e.half)
        e.half += i * e.ldo + j;
    return e;
}

/* m <= MICRO_M rows and n <= MICRO_N columns of C from K of A and panel[ceil(K / 2)][MICRO_N].
 * The order of the sum is that of k, whatever m and n are. */
void half_rows(int m, int n, int64_t K, HalfA A, const uint32_t *panel, const HalfEnd *end,
               Ahead *ahead);

/* panel[ceil(K / 2)][MICRO_N] = columns [0, n) of op(B), zeros after them. */
void half_pack_panel(uint32_t *panel, bool tb, int64_t K, int64_t n, const half16 *b, int64_t ldb);

/* Words from one strip to the next: a line more than they hold, so that strips of any depth lie in
 * different sets of the cache. */
#define HALF_STRIP(pairs) (MICRO_M * (pairs) + 16)

/* Columns [0, M) of A[K, ...] as strips [ceil(K / 2)][MICRO_M] of words. */
void half_pack_strips(uint32_t *strips, int64_t M, int64_t K, const half16 *A, int64_t lda);

#endif
