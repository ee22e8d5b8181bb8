/* half_convert.h - 16-bit numbers to float and back: one, a vector, a row.
 *
 * bf16 is the upper half of a float; f16 has 5 bits of exponent and 10 of fraction. To float
 * is exact; from float rounds to nearest even, keeps NaN a NaN and infinities infinite. Every
 * variant gives the same bits.
 */
#ifndef MDL_HALF_CONVERT_H
#define MDL_HALF_CONVERT_H

#include <string.h>

#include "half.h"
#include "vec.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#define MDL_HALF_VECTORS 1
#include <immintrin.h>
#else
#define MDL_HALF_VECTORS 0
#endif

static inline float half_float_of(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline uint32_t half_bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float half_widen_bf16(half16 h)
{
    return half_float_of((uint32_t)h << 16);
}

static inline half16 half_round_bf16(float x)
{
    const uint32_t bits = half_bits_of(x);
    const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    const uint32_t quiet = bits >> 16 | 0x40;
    return (half16)((bits & 0x7fffffff) > 0x7f800000 ? quiet : rounded);
}

/* The fraction and exponent moved up are the number times 2^-112; the product puts that right,
 * for subnormal numbers, too. */
static inline float half_widen_f16(half16 h)
{
    const uint32_t size = (uint32_t)(h & 0x7fff) << 13, sign = (uint32_t)(h & 0x8000) << 16;
    const uint32_t finite = half_bits_of(half_float_of(size) * 0x1p112f);
    const uint32_t quiet = size > 0x0f800000 ? 0x400000 : 0;
    return half_float_of(sign | (size >= 0x0f800000 ? size | 0x70000000 | quiet : finite));
}

static inline half16 half_round_f16(float x)
{
    const uint32_t bits = half_bits_of(x), size = bits & 0x7fffffff;
    /* adding 0.5 leaves the multiple of 2^-24 in the lowest bits: what a subnormal number is */
    const uint32_t small = half_bits_of(half_float_of(size) + 0.5f) - 0x3f000000;
    const uint32_t normal = (size - 0x38000000 + 0xfff + (size >> 13 & 1)) >> 13;
    const uint32_t quiet = (size >> 13 & 0x3ff) | 0x7e00;
    uint32_t half = size < 0x38800000 ? small : normal;
    half = size >= 0x477ff000 ? 0x7c00 : half; /* 65520 and more */
    half = size > 0x7f800000 ? quiet : half;
    return (half16)(half | bits >> 31 << 15);
}

static inline float half_widen_one(HalfKind kind, half16 h)
{
    return kind == HALF_BF16 ? half_widen_bf16(h) : half_widen_f16(h);
}

static inline half16 half_round_one(HalfKind kind, float x)
{
    return kind == HALF_BF16 ? half_round_bf16(x) : half_round_f16(x);
}

#if MDL_HALF_VECTORS
/* VL numbers at once. */
VEC_INLINE Vec half_widen_vector(HalfKind kind, const half16 *x)
{
    const __m256i bits = _mm256_loadu_si256((const void *)x);
    if (kind == HALF_BF16)
        return (Vec)_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16);
    return (Vec)_mm512_cvtph_ps(bits);
}

VEC_INLINE void half_round_vector(HalfKind kind, half16 *y, Vec x)
{
    __m256i halves;
    if (kind == HALF_BF16) {
        /* not vcvtneps2bf16, which takes subnormal numbers for zero */
        const __m512i bits = (__m512i)x, upper = _mm512_srli_epi32(bits, 16);
        const __m512i odd = _mm512_and_si512(upper, _mm512_set1_epi32(1));
        __m512i sum = _mm512_add_epi32(_mm512_add_epi32(bits, odd), _mm512_set1_epi32(0x7fff));
        sum = _mm512_srli_epi32(sum, 16);
        const __mmask16 nan = _mm512_cmp_ps_mask((__m512)x, (__m512)x, _CMP_UNORD_Q);
        sum = _mm512_mask_or_epi32(sum, nan, upper, _mm512_set1_epi32(0x40));
        halves = _mm512_cvtepi32_epi16(sum);
    } else {
        halves = _mm512_cvtps_ph((__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    }
    _mm256_storeu_si256((void *)y, halves);
}
#endif

static inline void half_widen_row(HalfKind kind, float *restrict y, const half16 *restrict x,
                                  int64_t n)
{
    int64_t i = 0;
#if MDL_HALF_VECTORS
    for (; i + VL <= n; i += VL)
        vec_store(y + i, half_widen_vector(kind, x + i));
#endif
    for (; i < n; i++)
        y[i] = half_widen_one(kind, x[i]);
}

static inline void half_round_row(HalfKind kind, half16 *restrict y, const float *restrict x,
                                  int64_t n)
{
    int64_t i = 0;
#if MDL_HALF_VECTORS
    for (; i + VL <= n; i += VL)
        half_round_vector(kind, y + i, vec_load(x + i));
#endif
    for (; i < n; i++)
        y[i] = half_round_one(kind, x[i]);
}

#endif
