/* simt_math.h - what PTX's instructions compute, in C.
 *
 * Only translated kernels include this, behind half_numbers.h. Every function is an instruction (or the
 * part of one that C's operators do not say): defined for all operands, as PTX defines it,
 * where C would leave something undefined. What PTX leaves open is answered as GPUs do: an
 * unsigned quotient by zero is all ones. Approximations (ex2, sin, tanh, ...) are computed more
 * exactly than PTX demands; directed rounding sets the processor's rounding mode for the one
 * operation, between volatile reads and writes that keep it there.
 */
#ifndef MDL_SIMT_MATH_H
#define MDL_SIMT_MATH_H

#include <fenv.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* ----------------------------------------------------------------- bits, memory */

#define PTX_BITS(NAME, FROM, TO)                                                                   \
    static inline TO NAME(FROM x)                                                                  \
    {                                                                                              \
        TO y;                                                                                      \
        memcpy(&y, &x, sizeof y);                                                                  \
        return y;                                                                                  \
    }
PTX_BITS(ptx_f32_bits, float, uint32_t)
PTX_BITS(ptx_f32_from, uint32_t, float)
PTX_BITS(ptx_f64_bits, double, uint64_t)
PTX_BITS(ptx_f64_from, uint64_t, double)

#define PTX_MEMORY(NAME, TYPE)                                                                     \
    static inline TYPE ptx_load_##NAME(const void *at)                                             \
    {                                                                                              \
        TYPE x;                                                                                    \
        memcpy(&x, at, sizeof x);                                                                  \
        return x;                                                                                  \
    }                                                                                              \
    static inline void ptx_store_##NAME(void *at, TYPE x)                                          \
    {                                                                                              \
        memcpy(at, &x, sizeof x);                                                                  \
    }
PTX_MEMORY(u8, uint8_t)
PTX_MEMORY(u16, uint16_t)
PTX_MEMORY(u32, uint32_t)
PTX_MEMORY(u64, uint64_t)
PTX_MEMORY(s8, int8_t)
PTX_MEMORY(s16, int16_t)
PTX_MEMORY(s32, int32_t)
PTX_MEMORY(s64, int64_t)
PTX_MEMORY(f32, float)
PTX_MEMORY(f64, double)

/* ------------------------------------------------------------------- integers */

#define PTX_INTEGERS(W, BITS, U, S, WIDE_U, WIDE_S)                                                \
    static inline U ptx_div_u##W(U a, U b)                                                         \
    {                                                                                              \
        return b == 0 ? (U) ~(U)0 : (U)(a / b);                                                    \
    }                                                                                              \
    static inline U ptx_rem_u##W(U a, U b)                                                         \
    {                                                                                              \
        return b == 0 ? a : (U)(a % b);                                                            \
    }                                                                                              \
    static inline S ptx_div_s##W(S a, S b)                                                         \
    {                                                                                              \
        return b == 0 ? (S)-1 : b == -1 ? (S)((U)0 - (U)a) : (S)(a / b);                           \
    }                                                                                              \
    static inline S ptx_rem_s##W(S a, S b)                                                         \
    {                                                                                              \
        return b == 0 ? a : b == -1 ? (S)0 : (S)(a % b);                                           \
    }                                                                                              \
    static inline U ptx_mul_hi_u##W(U a, U b)                                                      \
    {                                                                                              \
        return (U)((WIDE_U)((WIDE_U)a * b) >> BITS);                                               \
    }                                                                                              \
    static inline S ptx_mul_hi_s##W(S a, S b)                                                      \
    {                                                                                              \
        return (S)((WIDE_S)((WIDE_S)a * b) >> BITS);                                               \
    }                                                                                              \
    static inline U ptx_shl_##W(U a, uint32_t n)                                                   \
    {                                                                                              \
        return n >= BITS ? (U)0 : (U)((WIDE_U)a << n);                                             \
    }                                                                                              \
    static inline U ptx_shr_u##W(U a, uint32_t n)                                                  \
    {                                                                                              \
        return n >= BITS ? (U)0 : (U)(a >> n);                                                     \
    }                                                                                              \
    static inline S ptx_shr_s##W(S a, uint32_t n)                                                  \
    {                                                                                              \
        return (S)(a >> (n >= BITS ? BITS - 1 : n));                                               \
    }                                                                                              \
    static inline S ptx_abs_s##W(S a)                                                              \
    {                                                                                              \
        return a < 0 ? (S)((U)0 - (U)a) : a;                                                       \
    }
PTX_INTEGERS(16, 16, uint16_t, int16_t, uint32_t, int32_t)
PTX_INTEGERS(32, 32, uint32_t, int32_t, uint64_t, int64_t)
PTX_INTEGERS(64, 64, uint64_t, int64_t, unsigned __int128, __int128)

static inline int32_t ptx_sat_s32(int64_t x)
{
    return x > INT32_MAX ? INT32_MAX : x < INT32_MIN ? INT32_MIN : (int32_t)x;
}

static inline __int128 ptx_clamp(__int128 x, __int128 low, __int128 high)
{
    return x < low ? low : x > high ? high : x;
}

static inline int32_t ptx_mul24(bool is_signed, bool hi, uint32_t a, uint32_t b)
{
    uint64_t product;
    if (is_signed)
        product = (uint64_t)((int64_t)((int32_t)(a << 8) >> 8) * ((int32_t)(b << 8) >> 8));
    else
        product = (uint64_t)(a & 0xffffff) * (b & 0xffffff);
    return (int32_t)(uint32_t)(hi ? product >> 16 : product);
}

static inline uint32_t ptx_brev_32(uint32_t x)
{
    x = (x >> 1 & 0x55555555u) | (x & 0x55555555u) << 1;
    x = (x >> 2 & 0x33333333u) | (x & 0x33333333u) << 2;
    x = (x >> 4 & 0x0f0f0f0fu) | (x & 0x0f0f0f0fu) << 4;
    return __builtin_bswap32(x);
}

static inline uint64_t ptx_brev_64(uint64_t x)
{
    return (uint64_t)ptx_brev_32((uint32_t)x) << 32 | ptx_brev_32((uint32_t)(x >> 32));
}

static inline uint32_t ptx_clz_32(uint32_t x)
{
    return x ? (uint32_t)__builtin_clz(x) : 32;
}

static inline uint32_t ptx_clz_64(uint64_t x)
{
    return x ? (uint32_t)__builtin_clzll(x) : 64;
}

/* The highest bit that is not the sign; as a shift: how far it is from the top. */
static inline uint32_t ptx_bfind(uint64_t x, bool is_signed, int bits, bool shift)
{
    if (is_signed && (int64_t)x < 0)
        x = ~x;
    if (bits == 32)
        x &= 0xffffffffu;
    if (x == 0)
        return UINT32_MAX;
    const uint32_t highest = 63 - (uint32_t)__builtin_clzll(x);
    return shift ? (uint32_t)bits - 1 - highest : highest;
}

/* `x` is the value, its sign extended where it is signed. */
static inline uint64_t ptx_bfe(uint64_t x, uint32_t from, uint32_t length, bool is_signed, int bits)
{
    from &= 0xff;
    length &= 0xff;
    if (length == 0)
        return 0;
    const uint64_t value = bits == 32 ? x & 0xffffffffu : x;
    uint32_t top = from + length - 1;
    if (top > (uint32_t)bits - 1)
        top = (uint32_t)bits - 1;
    const bool minus = is_signed && (value >> top & 1);
    uint64_t field = from >= (uint32_t)bits ? 0 : value >> from;
    const uint32_t have = from >= (uint32_t)bits ? 0 : top - from + 1;
    if (have < 64) {
        field &= (UINT64_C(1) << have) - 1;
        if (minus)
            field |= ~((UINT64_C(1) << have) - 1);
    }
    return field;
}

static inline uint64_t ptx_bfi(uint64_t a, uint64_t b, uint32_t at, uint32_t length, int bits)
{
    at &= 0xff;
    length &= 0xff;
    if (at >= (uint32_t)bits || length == 0)
        return b;
    if (length > (uint32_t)bits - at)
        length = (uint32_t)bits - at;
    const uint64_t mask = (length >= 64 ? ~UINT64_C(0) : (UINT64_C(1) << length) - 1) << at;
    return (b & ~mask) | (a << at & mask);
}

static inline uint32_t ptx_shf_l(uint32_t a, uint32_t b, uint32_t n)
{
    return (uint32_t)(((uint64_t)b << 32 | a) << n >> 32);
}

static inline uint32_t ptx_shf_r(uint32_t a, uint32_t b, uint32_t n)
{
    return (uint32_t)(((uint64_t)b << 32 | a) >> n);
}

static inline uint32_t ptx_lop3(uint32_t a, uint32_t b, uint32_t c, uint32_t table)
{
    uint32_t r = 0;
    for (unsigned i = 0; i < 8; i++)
        if (table >> i & 1)
            r |= (i & 4 ? a : ~a) & (i & 2 ? b : ~b) & (i & 1 ? c : ~c);
    return r;
}

static inline uint32_t ptx_prmt_byte(uint64_t bytes, uint32_t selector)
{
    const uint32_t byte = (uint32_t)(bytes >> (selector & 7) * 8) & 0xff;
    return selector & 8 ? (byte & 0x80 ? 0xff : 0) : byte;
}

/* Mode: ' ' by the selector; f4e, b4e, rc8, ecl, ecr, rc16 by their lowest bits. */
static inline uint32_t ptx_prmt(uint32_t a, uint32_t b, uint32_t c, int mode)
{
    static const uint16_t tables[6][4] = {
        {0x3210, 0x4321, 0x5432, 0x6543}, {0x5670, 0x6701, 0x7012, 0x0123},
        {0x0000, 0x1111, 0x2222, 0x3333}, {0x3210, 0x3211, 0x3222, 0x3333},
        {0x0000, 0x1110, 0x2210, 0x3210}, {0x1010, 0x3232, 0x1010, 0x3232}};
    const uint64_t bytes = (uint64_t)b << 32 | a;
    const uint32_t s = mode > 0 ? tables[mode - 1][c & 3] : c;
    return ptx_prmt_byte(bytes, s) | ptx_prmt_byte(bytes, s >> 4) << 8 |
           ptx_prmt_byte(bytes, s >> 8) << 16 | ptx_prmt_byte(bytes, s >> 12) << 24;
}

static inline uint32_t ptx_dp4a(uint32_t a, uint32_t b, uint32_t c, bool sa, bool sb)
{
    for (int i = 0; i < 4; i++) {
        const int32_t x = sa ? (int8_t)(a >> 8 * i) : (uint8_t)(a >> 8 * i);
        const int32_t y = sb ? (int8_t)(b >> 8 * i) : (uint8_t)(b >> 8 * i);
        c += (uint32_t)(x * y);
    }
    return c;
}

static inline uint32_t ptx_dp2a(uint32_t a, uint32_t b, uint32_t c, bool sa, bool sb, int first)
{
    for (int i = 0; i < 2; i++) {
        const int32_t x = sa ? (int16_t)(a >> 16 * i) : (uint16_t)(a >> 16 * i);
        const int32_t y = sb ? (int8_t)(b >> 8 * (first + i)) : (uint8_t)(b >> 8 * (first + i));
        c += (uint32_t)(x * y);
    }
    return c;
}

static inline uint32_t ptx_vabsdiff4(uint32_t a, uint32_t b, uint32_t c, bool is_signed, bool add)
{
    uint32_t lanes = 0, sum = c;
    for (int i = 0; i < 4; i++) {
        const int32_t x = is_signed ? (int8_t)(a >> 8 * i) : (uint8_t)(a >> 8 * i);
        const int32_t y = is_signed ? (int8_t)(b >> 8 * i) : (uint8_t)(b >> 8 * i);
        const uint32_t d = (uint32_t)(x > y ? x - y : y - x);
        lanes |= (d & 0xff) << 8 * i;
        sum += d;
    }
    return add ? sum : lanes;
}

/* --------------------------------------------------------------------- floats */

static inline float ptx_ftz_f32(float x)
{
    const uint32_t u = ptx_f32_bits(x);
    return u & 0x7f800000u ? x : ptx_f32_from(u & 0x80000000u);
}

static inline float ptx_ftz_f16(float x)
{
    return __builtin_fabsf(x) < 0x1p-14f ? __builtin_copysignf(0, x) : x;
}

/* The NaN that computing in f32 gives, whatever NaN went in: all bits but the sign. */
static inline float ptx_nan_f32(float x)
{
    return x != x ? ptx_f32_from(0x7fffffffu) : x;
}

static inline float ptx_sat_f32(float x)
{
    return x > 0 ? (x < 1 ? x : 1.0f) : 0.0f;
}

static inline double ptx_sat_f64(double x)
{
    return x > 0 ? (x < 1 ? x : 1.0) : 0.0;
}

/* A NaN gives way to a number, or wins; -0 is less than +0. */
#define PTX_MIN_MAX(NAME, T, CANONICAL)                                                            \
    static inline T ptx_min_##NAME(T a, T b)                                                       \
    {                                                                                              \
        if (a != a || b != b)                                                                      \
            return a == a ? a : b == b ? b : CANONICAL;                                            \
        return a < b || (a == b && __builtin_signbit(a)) ? a : b;                                  \
    }                                                                                              \
    static inline T ptx_max_##NAME(T a, T b)                                                       \
    {                                                                                              \
        if (a != a || b != b)                                                                      \
            return a == a ? a : b == b ? b : CANONICAL;                                            \
        return a > b || (a == b && !__builtin_signbit(a)) ? a : b;                                 \
    }                                                                                              \
    static inline T ptx_min_nan_##NAME(T a, T b)                                                   \
    {                                                                                              \
        return a != a || b != b ? CANONICAL : ptx_min_##NAME(a, b);                                \
    }                                                                                              \
    static inline T ptx_max_nan_##NAME(T a, T b)                                                   \
    {                                                                                              \
        return a != a || b != b ? CANONICAL : ptx_max_##NAME(a, b);                                \
    }
PTX_MIN_MAX(f32, float, ptx_f32_from(0x7fffffffu))
PTX_MIN_MAX(f64, double, ptx_f64_from(UINT64_C(0x7fffffffffffffff)))

static inline float ptx_relu(float x)
{
    return x > 0 ? x : x != x ? ptx_nan_f32(x) : 0.0f;
}

#define PTX_ROUNDED(MODE, DIRECTION)                                                               \
    PTX_ROUNDED_2(add, MODE, DIRECTION, f32, float, x + y)                                         \
    PTX_ROUNDED_2(sub, MODE, DIRECTION, f32, float, x - y)                                         \
    PTX_ROUNDED_2(mul, MODE, DIRECTION, f32, float, x *y)                                          \
    PTX_ROUNDED_2(div, MODE, DIRECTION, f32, float, x / y)                                         \
    PTX_ROUNDED_2(add, MODE, DIRECTION, f64, double, x + y)                                        \
    PTX_ROUNDED_2(sub, MODE, DIRECTION, f64, double, x - y)                                        \
    PTX_ROUNDED_2(mul, MODE, DIRECTION, f64, double, x *y)                                         \
    PTX_ROUNDED_2(div, MODE, DIRECTION, f64, double, x / y)                                        \
    PTX_ROUNDED_1(sqrt, MODE, DIRECTION, f32, float, float, __builtin_sqrtf(x))                    \
    PTX_ROUNDED_1(sqrt, MODE, DIRECTION, f64, double, double, __builtin_sqrt(x))                   \
    PTX_ROUNDED_1(rcp, MODE, DIRECTION, f32, float, float, 1 / x)                                  \
    PTX_ROUNDED_1(rcp, MODE, DIRECTION, f64, double, double, 1 / x)                                \
    PTX_ROUNDED_1(narrow, MODE, DIRECTION, f64, float, double, (float)x)                           \
    PTX_ROUNDED_1(from_s, MODE, DIRECTION, f32, float, int64_t, (float)x)                          \
    PTX_ROUNDED_1(from_u, MODE, DIRECTION, f32, float, uint64_t, (float)x)                         \
    PTX_ROUNDED_1(from_s, MODE, DIRECTION, f64, double, int64_t, (double)x)                        \
    PTX_ROUNDED_1(from_u, MODE, DIRECTION, f64, double, uint64_t, (double)x)                       \
    PTX_ROUNDED_3(fma, MODE, DIRECTION, f32, float, __builtin_fmaf(x, y, z))                       \
    PTX_ROUNDED_3(fma, MODE, DIRECTION, f64, double, __builtin_fma(x, y, z))                       \
    PTX_ROUNDED_3(mad, MODE, DIRECTION, f32, float, __builtin_fmaf(x, y, z))                       \
    PTX_ROUNDED_3(mad, MODE, DIRECTION, f64, double, __builtin_fma(x, y, z))
#define PTX_ROUNDED_BODY(DIRECTION, T, EXPRESSION)                                                 \
    fesetround(DIRECTION);                                                                         \
    volatile T r = EXPRESSION;                                                                     \
    fesetround(FE_TONEAREST);                                                                      \
    return r;
#define PTX_ROUNDED_1(NAME, MODE, DIRECTION, SUFFIX, T, FROM, EXPRESSION)                          \
    static __attribute__((noinline, unused)) T ptx_##NAME##_##MODE##_##SUFFIX(FROM a)              \
    {                                                                                              \
        volatile FROM x = a;                                                                       \
        PTX_ROUNDED_BODY(DIRECTION, T, EXPRESSION)                                                 \
    }
#define PTX_ROUNDED_2(NAME, MODE, DIRECTION, SUFFIX, T, EXPRESSION)                                \
    static __attribute__((noinline, unused)) T ptx_##NAME##_##MODE##_##SUFFIX(T a, T b)            \
    {                                                                                              \
        volatile T x = a, y = b;                                                                   \
        PTX_ROUNDED_BODY(DIRECTION, T, EXPRESSION)                                                 \
    }
#define PTX_ROUNDED_3(NAME, MODE, DIRECTION, SUFFIX, T, EXPRESSION)                                \
    static __attribute__((noinline, unused)) T ptx_##NAME##_##MODE##_##SUFFIX(T a, T b, T c)       \
    {                                                                                              \
        volatile T x = a, y = b, z = c;                                                            \
        PTX_ROUNDED_BODY(DIRECTION, T, EXPRESSION)                                                 \
    }
PTX_ROUNDED(rz, FE_TOWARDZERO)
PTX_ROUNDED(rm, FE_DOWNWARD)
PTX_ROUNDED(rp, FE_UPWARD)

/* The upper 32 bits of a double alone count, in and out. */
static inline double ptx_upper(double x)
{
    return ptx_f64_from(ptx_f64_bits(x) & UINT64_C(0xffffffff00000000));
}

static inline double ptx_ftz_f64(double x)
{
    const uint64_t u = ptx_f64_bits(x);
    return u & UINT64_C(0x7ff0000000000000) ? x : ptx_f64_from(u & UINT64_C(0x8000000000000000));
}

static inline double ptx_rcp_upper(double x)
{
    return ptx_ftz_f64(ptx_upper(1 / ptx_ftz_f64(ptx_upper(x))));
}

static inline double ptx_rsqrt_upper(double x)
{
    return ptx_ftz_f64(ptx_upper(1 / __builtin_sqrt(ptx_ftz_f64(ptx_upper(x)))));
}

static inline float ptx_rsqrt_f32(float x)
{
    return (float)(1 / __builtin_sqrt((double)x));
}

static inline double ptx_rsqrt_f64(double x)
{
    return 1 / __builtin_sqrt(x);
}

/* A product with the reciprocal, which is 0 of divisors beyond 2^126. */
static inline float ptx_div_approx_f32(float a, float b)
{
    return ptx_nan_f32(__builtin_fabsf(b) > 0x1p126f ? a * __builtin_copysignf(0, b) : a / b);
}

/* --------------------------------------------------------------------- halves */

/* Any number to a half of `bits` mantissa bits, exponents from `least` on. Mode: 'n'earest,
 * 'z'ero, 'm'inus, 'p'lus infinity, 'a'way from zero on ties. */
static __attribute__((noinline, unused)) uint16_t ptx_narrow(long double x, int bits, int least,
                                                             char mode)
{
    const uint32_t infinity = 0x7fffu & ~((1u << bits) - 1), sign = __builtin_signbit(x) ? 1 : 0;
    const long double a = sign ? -x : x;
    int e = 0;
    if (x != x)
        return 0x7fff;
    if (a == 0 || a > 0x1p200L)
        return (uint16_t)(sign << 15 | (a == 0 ? 0
                                        : a > 0x1p16000L || mode == 'n' || mode == 'a' ||
                                                mode == (sign ? 'm' : 'p')
                                            ? infinity
                                            : infinity - 1));
    frexpl(a, &e);
    e = e - 1 < least ? least : e - 1;
    const long double q = ldexpl(a, bits - e);
    const bool up = mode == (sign ? 'm' : 'p');
    const long double r = mode == 'n'   ? rintl(q)
                          : mode == 'a' ? floorl(q + 0.5L)
                          : up          ? ceill(q)
                                        : floorl(q);
    uint64_t h = ((uint64_t)(e - least) << bits) + (uint64_t)r;
    if (h >= infinity)
        h = mode == 'n' || mode == 'a' || up ? infinity : infinity - 1;
    return (uint16_t)(sign << 15 | h);
}

/* From double without a second rounding, which float in between would be. */
static inline uint16_t half_of_double(double x)
{
    return (double)(float)x == x ? half_of_float((float)x) : ptx_narrow(x, 10, -14, 'n');
}

static inline uint16_t bfloat_of_double(double x)
{
    return (double)(float)x == x ? bfloat_of_float((float)x) : ptx_narrow(x, 7, -126, 'n');
}

/* a * b + c of halves, to be rounded to a half: the product is exact; where the sum is not,
 * its last bit is set, so that rounding it again does not mistake it for a tie. */
static inline double ptx_fma_half(double a, double b, double c)
{
    const double product = a * b, sum = product + c;
    const double part = sum - product, error = (product - (sum - part)) + (c - part);
    if (error == 0 || error != error)
        return sum;
    const uint64_t bits = ptx_f64_bits(sum);
    return bits & 1 ? sum : ptx_f64_from((error > 0) == (sum > 0) ? bits + 1 : bits - 1);
}

/* To 10 bits of mantissa. Mode: 'z'ero; to the nearest, ties to eve'n' or 'a'way from zero. */
static inline float ptx_tf32(float x, char mode)
{
    const uint32_t u = ptx_f32_bits(x);
    if ((u & 0x7f800000u) == 0x7f800000u)
        return ptx_nan_f32(x);
    const uint32_t half = mode == 'a' ? 0x1000u : mode == 'n' ? 0xfffu + (u >> 13 & 1) : 0;
    return ptx_f32_from((u + half) & 0xffffe000u);
}

/* ------------------------------------------------------ floats to integers */

#define PTX_TO_INTEGER(NAME, T, LOW, HIGH, LEAST, MOST)                                            \
    static inline T ptx_to_##NAME(double x, T nan)                                                 \
    {                                                                                              \
        return x != x ? nan : x <= (LOW) ? LEAST : x >= (HIGH) ? MOST : (T)x;                      \
    }
PTX_TO_INTEGER(s8, int8_t, -128.0, 127.0, INT8_MIN, INT8_MAX)
PTX_TO_INTEGER(u8, uint8_t, 0.0, 255.0, 0, UINT8_MAX)
PTX_TO_INTEGER(s16, int16_t, -32768.0, 32767.0, INT16_MIN, INT16_MAX)
PTX_TO_INTEGER(u16, uint16_t, 0.0, 65535.0, 0, UINT16_MAX)
PTX_TO_INTEGER(s32, int32_t, -2147483648.0, 2147483647.0, INT32_MIN, INT32_MAX)
PTX_TO_INTEGER(u32, uint32_t, 0.0, 4294967295.0, 0, UINT32_MAX)
PTX_TO_INTEGER(s64, int64_t, -0x1p63, 0x1p63, INT64_MIN, INT64_MAX)
PTX_TO_INTEGER(u64, uint64_t, 0.0, 0x1p64, 0, UINT64_MAX)

#endif
