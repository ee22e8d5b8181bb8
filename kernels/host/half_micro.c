/* half_micro.c - an m x n block of C in registers: every word of a row of the panel times one
 * word of each row of A. The compiler makes one variant for every m and number of vectors.
 */
#include "half_micro.h"

#if MDL_HALF_DOT
#include <immintrin.h>
#include <string.h>

_Static_assert(MICRO_M == 8 && MICRO_V == 3 && VL == 16, "the accumulators fill the registers");

/* The accumulators have names of their own, not indices: so they stay in registers. */
#define EACH_ROW(one) one(0) one(1) one(2) one(3) one(4) one(5) one(6) one(7)
#define ZERO(i)                                                                                    \
    __m512 sum##i##0 = _mm512_setzero_ps(), sum##i##1 = sum##i##0, sum##i##2 = sum##i##0;
#define STEP(i)                                                                                    \
    if (m > i) {                                                                                   \
        const __m512bh y = (__m512bh)_mm512_set1_epi32(word_at(a + (i)*A.row));                    \
        sum##i##0 = _mm512_dpbf16_ps(sum##i##0, y, x0);                                            \
        if (vectors > 1)                                                                           \
            sum##i##1 = _mm512_dpbf16_ps(sum##i##1, y, x1);                                        \
        if (vectors > 2)                                                                           \
            sum##i##2 = _mm512_dpbf16_ps(sum##i##2, y, x2);                                        \
    }
#define LAST_STEP(i)                                                                               \
    if (m > i) {                                                                                   \
        const __m512bh y = (__m512bh)_mm512_set1_epi32(element_at(a + (i)*A.row));                 \
        sum##i##0 = _mm512_dpbf16_ps(sum##i##0, y, x0);                                            \
        if (vectors > 1)                                                                           \
            sum##i##1 = _mm512_dpbf16_ps(sum##i##1, y, x1);                                        \
        if (vectors > 2)                                                                           \
            sum##i##2 = _mm512_dpbf16_ps(sum##i##2, y, x2);                                        \
    }
#define LEAVE(i)                                                                                   \
    if (m > i) {                                                                                   \
        leave(e, i, 0, vectors > 1 ? every : mask, sum##i##0);                                     \
        if (vectors > 1)                                                                           \
            leave(e, i, 1, vectors > 2 ? every : mask, sum##i##1);                                 \
        if (vectors > 2)                                                                           \
            leave(e, i, 2, mask, sum##i##2);                                                       \
    }

VEC_INLINE int word_at(const char *at)
{
    int word;
    memcpy(&word, at, sizeof word);
    return word;
}

VEC_INLINE int element_at(const char *at)
{
    half16 element;
    memcpy(&element, at, sizeof element);
    return element;
}

VEC_INLINE void leave(const HalfEnd *e, int64_t i, int v, __mmask16 mask, __m512 sum)
{
    if (e->add)
        sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, e->add + i * e->ldadd + v * VL));
    if (e->col_bias)
        sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, e->col_bias + v * VL));
    if (e->half)
        _mm256_mask_storeu_epi16(e->half + i * e->ldo + v * VL, mask,
                                 (__m256i)_mm512_cvtneps_pbh(sum));
    else
        _mm512_mask_storeu_ps(e->wide + i * e->ldo + v * VL, mask, sum);
}

VEC_INLINE void rows(const int m, const int vectors, int64_t K, HalfA A, const uint32_t *b,
                     __mmask16 mask, const HalfEnd *e, Ahead *ahead)
{
    const __mmask16 every = 0xffff;
    const int64_t pairs = K / 2;
    const char *a = A.a;
    for (int i = 0; i < m; i++) { /* by when the sums are complete, their places are near */
        const char *to =
            e->half ? (const char *)(e->half + i * e->ldo) : (const char *)(e->wide + i * e->ldo);
        for (int v = 0; v < vectors; v++)
            __builtin_prefetch(to + v * (e->half ? 32 : 64), 1);
    }
    EACH_ROW(ZERO)
    for (int64_t p = 0; p < pairs;) {
        for (const int64_t end = int_min(p + MICRO_CHUNK, pairs); p < end; p++) {
            const __m512bh x0 = (__m512bh)_mm512_loadu_si512(b),
                           x1 = vectors > 1 ? (__m512bh)_mm512_loadu_si512(b + VL) : x0,
                           x2 = vectors > 2 ? (__m512bh)_mm512_loadu_si512(b + 2 * VL) : x0;
            EACH_ROW(STEP)
            a += A.inner;
            b += MICRO_N;
        }
        fetch_ahead(ahead);
    }
    if (K % 2 != 0) {
        const __m512bh x0 = (__m512bh)_mm512_loadu_si512(b),
                       x1 = (__m512bh)_mm512_loadu_si512(b + VL),
                       x2 = (__m512bh)_mm512_loadu_si512(b + 2 * VL);
        EACH_ROW(LAST_STEP)
    }
    EACH_ROW(LEAVE)
}

/* One case for every number of rows and vectors. */
#define CASES_OF(m, one)                                                                           \
    case m * 4 + 1:                                                                                \
        one(m, 1);                                                                                 \
        break;                                                                                     \
    case m * 4 + 2:                                                                                \
        one(m, 2);                                                                                 \
        break;                                                                                     \
    case m * 4 + 3:                                                                                \
        one(m, 3);                                                                                 \
        break;

void half_rows(int m, int n, int64_t K, HalfA A, const uint32_t *panel, const HalfEnd *end,
               Ahead *ahead)
{
    const __mmask16 mask = (__mmask16)(n % VL == 0 ? 0xffff : (1 << n % VL) - 1);
#define ROWS(m, v) rows(m, v, K, A, panel, mask, end, ahead)
    switch (m * 4 + (n + VL - 1) / VL) {
        CASES_OF(1, ROWS)
        CASES_OF(2, ROWS)
        CASES_OF(3, ROWS)
        CASES_OF(4, ROWS)
        CASES_OF(5, ROWS)
        CASES_OF(6, ROWS)
        CASES_OF(7, ROWS)
        CASES_OF(8, ROWS)
    default:
        break;
    }
}

/* Words of up to 16 columns of two rows; `second` may be NULL for zeros. */
VEC_INLINE __m512i pair_up(const half16 *first, const half16 *second, __mmask16 mask)
{
    const __m512i low = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, first));
    if (!second)
        return low;
    const __m512i high = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, second));
    return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
}

static __mmask16 mask_of(int64_t n)
{
    return (__mmask16)(n >= VL ? 0xffff : n <= 0 ? 0 : (1 << n) - 1);
}

/* B is stored [N,K]: its rows hold the words, which are turned round. */
static void pack_turned(uint32_t *panel, int64_t K, int64_t n, const half16 *b, int64_t ldb)
{
    const int64_t pairs = K / 2, whole_p = pairs / VL * VL, whole_n = n / VL * VL;
    const int64_t step = ldb * (int64_t)sizeof *b;
    for (int64_t j = 0; j < whole_n; j += VL)
        for (int64_t p = 0; p < whole_p; p += VL)
            micro_turn((float *)(void *)(panel + p * MICRO_N + j), MICRO_N,
                       (const char *)(b + j * ldb + 2 * p), step);
    for (int64_t p = 0; p < (K + 1) / 2; p++) {
        for (int64_t j = p < whole_p ? whole_n : 0; j < n; j++) {
            const char *at = (const char *)(b + j * ldb + 2 * p);
            panel[p * MICRO_N + j] = (uint32_t)(2 * p + 1 < K ? word_at(at) : element_at(at));
        }
        for (int64_t j = n; j < MICRO_N; j++)
            panel[p * MICRO_N + j] = 0;
    }
}

void half_pack_panel(uint32_t *panel, bool tb, int64_t K, int64_t n, const half16 *b, int64_t ldb)
{
    if (tb) {
        pack_turned(panel, K, n, b, ldb);
        return;
    }
    const __mmask16 mask[MICRO_V] = {mask_of(n), mask_of(n - VL), mask_of(n - 2 * VL)};
    for (int64_t k = 0; k < K; k += 2, panel += MICRO_N) {
        const half16 *first = b + k * ldb, *second = k + 1 < K ? first + ldb : NULL;
        for (int v = 0; v < MICRO_V; v++)
            _mm512_storeu_si512(panel + v * VL,
                                pair_up(first + v * VL, second ? second + v * VL : NULL, mask[v]));
    }
}

void half_pack_strips(uint32_t *strips, int64_t M, int64_t K, const half16 *A, int64_t lda)
{
    const int64_t pairs = (K + 1) / 2;
    for (int64_t p = 0; p < pairs; p++) {
        const half16 *first = A + 2 * p * lda, *second = 2 * p + 1 < K ? first + lda : NULL;
        uint32_t *to = strips + p * MICRO_M;
        for (int64_t i = 0; i < M; i += 2 * MICRO_M, to += 2 * HALF_STRIP(pairs)) {
            const __m512i words = pair_up(first + i, second ? second + i : NULL, mask_of(M - i));
            _mm256_storeu_si256((void *)to, _mm512_castsi512_si256(words));
            if (i + MICRO_M < M)
                _mm256_storeu_si256((void *)(to + HALF_STRIP(pairs)),
                                    _mm512_extracti64x4_epi64(words, 1));
        }
    }
}
#endif
