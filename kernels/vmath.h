/* vmath.h - the functions of element-wise loops.
 *
 * For float they are branch-free, so that the compiler can compute a whole vector at a
 * time, and built of operations that round the same way in a vector and alone, so that
 * a loop's remainder gets the same bits: compile with -ffp-contract=off; where a fused
 * multiply-add is meant it is written. For double they are the C library's.
 *
 * Errors, in units in the last place, over all floats: exp 2, log 2, tanh 3, sigmoid 4.
 * Infinities and NaN give what the C library gives. gelu, silu and bce are compositions.
 *
 * 16-bit numbers are converted from and to float, whichever `real` is.
 */
#ifndef MDL_VMATH_H
#define MDL_VMATH_H

#include <math.h>
#include <string.h>

#include "kernels.h"

#define VMATH static inline __attribute__((always_inline))

VMATH float mdl_from_bits(int32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

VMATH int32_t mdl_to_bits(float x)
{
    int32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* 16-bit numbers: exact to float; from float to nearest even, NaN stays NaN. */
VMATH float mdl_from_bf16(uint16_t h)
{
    return mdl_from_bits((int32_t)((uint32_t)h << 16));
}

VMATH uint16_t mdl_to_bf16(float x)
{
    const uint32_t bits = (uint32_t)mdl_to_bits(x);
    const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    return (uint16_t)(x != x ? bits >> 16 | 0x40 : rounded);
}

VMATH float mdl_round_bf16(float x)
{
    return mdl_from_bf16(mdl_to_bf16(x));
}

/* The exponent moved up is the number times 2^-112, subnormal numbers included. */
VMATH float mdl_from_f16(uint16_t h)
{
    const uint32_t size = (uint32_t)(h & 0x7fff) << 13, sign = (uint32_t)(h & 0x8000) << 16;
    const uint32_t finite = (uint32_t)mdl_to_bits(mdl_from_bits((int32_t)size) * 0x1p112f);
    const uint32_t quiet = size > 0x0f800000 ? 0x400000 : 0;
    const uint32_t bits = size >= 0x0f800000 ? size | 0x70000000 | quiet : finite;
    return mdl_from_bits((int32_t)(sign | bits));
}

VMATH uint16_t mdl_to_f16(float x)
{
    const uint32_t bits = (uint32_t)mdl_to_bits(x), size = bits & 0x7fffffff;
    /* adding 0.5 leaves multiples of 2^-24 in the lowest bits: what a subnormal number is */
    const uint32_t small = (uint32_t)mdl_to_bits(mdl_from_bits((int32_t)size) + 0.5f) - 0x3f000000;
    const uint32_t normal = (size - 0x38000000 + 0xfff + (size >> 13 & 1)) >> 13;
    uint32_t half = size < 0x38800000 ? small : normal;
    half = size >= 0x477ff000 ? 0x7c00 : half; /* 65520 and more */
    half = size > 0x7f800000 ? (size >> 13 & 0x3ff) | 0x7e00 : half;
    return (uint16_t)(half | bits >> 31 << 15);
}

VMATH float mdl_round_f16(float x)
{
    return mdl_from_f16(mdl_to_f16(x));
}

#ifdef MDL_F64

VMATH real mdl_fma(real a, real b, real c)
{
    return fma(a, b, c);
}

VMATH real mdl_exp(real x)
{
    return exp(x);
}

VMATH real mdl_log(real x)
{
    return log(x);
}

VMATH real mdl_log1p_unit(real x)
{
    return log1p(x);
}

VMATH real mdl_tanh(real x)
{
    return tanh(x);
}

VMATH real mdl_sqrt(real x)
{
    return sqrt(x);
}

VMATH real mdl_sigmoid(real x)
{
    return 1 / (1 + exp(-x));
}

#else

VMATH float mdl_fma(float a, float b, float c)
{
    return __builtin_fmaf(a, b, c);
}

/* x = n ln 2 + r, |r| <= ln 2 / 2. Gives exp(r), by a polynomial, and n in the lowest bits of
 * 1.5 * 2^23 + n. */
VMATH float mdl_exp_rest(float x, int32_t *shifted_bits)
{
    const float shift = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
    const float shifted = mdl_fma(x, 1.44269504f, shift);
    const float n = shifted - shift;
    float r = mdl_fma(n, -0x1.62e4p-1f, x);
    r = mdl_fma(n, -0x1.7f7d1cp-20f, r);
    float p = 0x1.6d993ep-10f;
    p = mdl_fma(p, r, 0x1.123db4p-7f);
    p = mdl_fma(p, r, 0x1.55547cp-5f);
    p = mdl_fma(p, r, 0x1.55548ap-3f);
    p = mdl_fma(p, r, 0.5f);
    *shifted_bits = mdl_to_bits(shifted);
    return mdl_fma(p * r, r, r) + 1.0f;
}

/* 2^n in two factors, so that results near either end of the range are rounded once. */
VMATH float mdl_exp(float x)
{
    x = x > 89.0f ? 89.0f : x;
    x = x < -105.0f ? -105.0f : x;
    int32_t bits;
    const float p = mdl_exp_rest(x, &bits);
    const int32_t whole = bits - 0x4b400000;
    const int32_t half = whole >> 1;
    const float first = mdl_from_bits((int32_t)((uint32_t)(half + 127) << 23));
    const float second = mdl_from_bits((int32_t)((uint32_t)(whole - half + 127) << 23));
    return p * first * second;
}

/* x = 2^n m, m in [sqrt(1/2), sqrt(2)); log(m) = 2 atanh((m - 1) / (m + 1)). */
VMATH float mdl_log(float x)
{
    const float small = x < 0x1p-126f ? 0x1p23f : 1.0f;
    const int32_t offset = x < 0x1p-126f ? 23 : 0;
    const float scaled = x * small;
    const int32_t bits = mdl_to_bits(scaled);
    const int32_t n = (int32_t)((uint32_t)bits - 0x3f3504f3u) >> 23;
    const float m = mdl_from_bits((int32_t)((uint32_t)bits - ((uint32_t)n << 23)));
    const float f = m - 1.0f;
    const float s = f / (2.0f + f);
    const float z = s * s;
    float q = 0x1.e39d36p-3f;
    q = mdl_fma(q, z, 0x1.243490p-2f);
    q = mdl_fma(q, z, 0x1.999a8cp-2f);
    q = mdl_fma(q, z, 0x1.555554p-1f);
    const float e = (float)(n - offset);
    const float half = 0.5f * f * f;
    /* log(1 + f) = f - half + s (half + z q) */
    const float tail = mdl_fma(s, mdl_fma(z, q, half), e * 0x1.7f7d1cp-20f);
    float y = mdl_fma(e, 0x1.62e4p-1f, f - (half - tail));
    y = x == 0 ? -HUGE_VALF : y;
    y = x < 0 ? NAN : y;
    y = x >= HUGE_VALF ? x : y;
    return x != x ? x : y;
}

/* log(1 + x) for x in [0, 1]: the rounding of 1 + x is put back. */
VMATH float mdl_log1p_unit(float x)
{
    const float w = 1.0f + x;
    return mdl_log(w) + (x - (w - 1.0f)) / w;
}

VMATH float mdl_tanh(float x)
{
    const float z = x * x;
    float p = -0x1.6e5cdap-8f;
    p = mdl_fma(p, z, 0x1.507d62p-6f);
    p = mdl_fma(p, z, -0x1.b7fc24p-5f);
    p = mdl_fma(p, z, 0x1.110542p-3f);
    p = mdl_fma(p, z, -0x1.55552ap-2f);
    const float size = __builtin_fabsf(x);
    const float near = mdl_fma(p * z, size, size);
    const float far = 1.0f - 2.0f / (mdl_exp(2.0f * size) + 1.0f);
    return __builtin_copysignf(size < 0.625f ? near : far, x);
}

VMATH float mdl_sqrt(float x)
{
    return __builtin_sqrtf(x);
}

/* Of exp(-x) only what is not lost beside 1 matters, and infinity above 2^127.5: 2^n is one
 * factor. */
VMATH float mdl_sigmoid(float x)
{
    float y = -x;
    y = y > 89.0f ? 89.0f : y;
    y = y < -87.0f ? -87.0f : y;
    int32_t bits;
    const float p = mdl_exp_rest(y, &bits);
    return 1 / (1 + p * mdl_from_bits((int32_t)(((uint32_t)bits << 23) + 0x3f800000u)));
}

#endif

VMATH real mdl_abs(real x)
{
    return x < 0 ? -x : x + 0; /* + 0: of -0 makes 0 */
}

VMATH real mdl_relu(real x)
{
    return x <= 0 ? 0 : x;
}

VMATH real mdl_silu(real x)
{
    return x * mdl_sigmoid(x);
}

VMATH real mdl_silu_grad(real x)
{
    const real s = mdl_sigmoid(x);
    return s + x * s * (1 - s);
}

/* x/2 (1 + tanh(u)) = x sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3) */
VMATH real mdl_gelu(real x)
{
    const real twice = (real)1.5957691216057308 * (x + (real)0.044715 * x * x * x);
    return x * mdl_sigmoid(twice);
}

VMATH real mdl_gelu_grad(real x)
{
    /* beyond 20 the sigmoid is 0 or 1 and its slope vanishes */
    real c = x > 20 ? 20 : x;
    c = c < -20 ? -20 : c;
    const real s = mdl_sigmoid((real)1.5957691216057308 * (c + (real)0.044715 * c * c * c));
    const real slope = (real)1.5957691216057308 * (1 + (real)0.134145 * c * c);
    return s + c * s * (1 - s) * slope;
}

/* Binary cross entropy of a logit: -y log(sigmoid(z)) - (1 - y) log(1 - sigmoid(z)). */
VMATH real mdl_bce(real z, real y)
{
    return mdl_relu(z) - z * y + mdl_log1p_unit(mdl_exp(-mdl_abs(z)));
}

VMATH real mdl_bce_grad(real z, real y)
{
    return mdl_sigmoid(z) - y;
}

/* The gradient dy of relu's result y, handed through where y is positive. */
VMATH real mdl_relu_grad(real dy, real y)
{
    return y > 0 ? dy : 0;
}

/* dy with the sign of x; 0 where x is 0. */
VMATH real mdl_sign_of(real dy, real x)
{
    return x > 0 ? dy : x < 0 ? -dy : 0;
}

#endif
