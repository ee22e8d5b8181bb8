/* plain_values.h - what instructions compute, by other means than simt_math.h uses: wide
 * integers, loops over bits, tables of all halves, exact errors of float operations.
 */
#ifndef PLAIN_VALUES_H
#define PLAIN_VALUES_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------------------- whole numbers */

__extension__ typedef __int128 Wide;
__extension__ typedef unsigned __int128 WideUnsigned;

static inline int32_t clamp_s32(Wide x)
{
    return x > INT32_MAX ? INT32_MAX : x < INT32_MIN ? INT32_MIN : (int32_t)x;
}

static inline uint64_t high_u64(uint64_t a, uint64_t b)
{
    return (uint64_t)((WideUnsigned)a * b >> 64);
}

static inline int64_t high_s64(int64_t a, int64_t b)
{
    return (int64_t)((Wide)a * b >> 64);
}

static inline int32_t low24_s(int32_t x)
{
    const int32_t low = (int32_t)((uint32_t)x & 0xffffff);
    return low >= 1 << 23 ? low - (1 << 24) : low;
}

static inline uint32_t pair_min_s16(uint32_t a, uint32_t b)
{
    const int16_t al = (int16_t)a, bl = (int16_t)b;
    const int16_t ah = (int16_t)(a >> 16), bh = (int16_t)(b >> 16);
    return (uint32_t)(uint16_t)(ah < bh ? ah : bh) << 16 | (uint16_t)(al < bl ? al : bl);
}

static inline uint32_t pair_max_u16(uint32_t a, uint32_t b)
{
    const uint32_t al = a & 0xffff, bl = b & 0xffff, ah = a >> 16, bh = b >> 16;
    return (ah > bh ? ah : bh) << 16 | (al > bl ? al : bl);
}

static inline int64_t part_of(uint32_t x, int bits, int i, int is_signed)
{
    const int64_t part = (x >> bits * i) & ((1u << bits) - 1);
    return is_signed && part >> (bits - 1) ? part - (INT64_C(1) << bits) : part;
}

static inline uint32_t bytes_dot(uint32_t a, uint32_t b, uint32_t c, int sa, int sb)
{
    int64_t sum = c;
    for (int i = 0; i < 4; i++)
        sum += part_of(a, 8, i, sa) * part_of(b, 8, i, sb);
    return (uint32_t)sum;
}

static inline uint32_t halves_dot(uint32_t a, uint32_t b, uint32_t c, int sa, int sb, int high)
{
    int64_t sum = c;
    for (int i = 0; i < 2; i++)
        sum += part_of(a, 16, i, sa) * part_of(b, 8, i + 2 * high, sb);
    return (uint32_t)sum;
}

static inline uint32_t bytes_apart(uint32_t a, uint32_t b)
{
    uint32_t all = 0;
    for (int i = 0; i < 4; i++)
        all |= (uint32_t)llabs(part_of(a, 8, i, 0) - part_of(b, 8, i, 0)) << 8 * i;
    return all;
}

static inline uint32_t permuted(uint32_t a, uint32_t b, uint32_t selectors)
{
    uint32_t all = 0;
    for (int i = 0; i < 4; i++) {
        const uint32_t s = selectors >> 4 * i & 15, n = s & 7;
        uint32_t byte = (n < 4 ? a >> 8 * n : b >> 8 * (n - 4)) & 0xff;
        if (s & 8)
            byte = byte >> 7 ? 0xff : 0;
        all |= byte << 8 * i;
    }
    return all;
}

static inline int bit_of(uint64_t x, uint64_t i)
{
    return i < 64 && (x >> i & 1);
}

/* As the manual of PTX has it: bit by bit. */
static inline uint64_t field(uint64_t a, uint32_t from, uint32_t length, int is_signed,
                             uint32_t bits)
{
    from &= 255;
    length &= 255;
    const uint32_t top = from + length - 1 < bits - 1 ? from + length - 1 : bits - 1;
    const int sign = is_signed && length != 0 && bit_of(a, top);
    uint64_t d = 0;
    for (uint32_t i = 0; i < bits; i++)
        if (i < length && from + i < bits ? bit_of(a, from + i) : sign)
            d |= UINT64_C(1) << i;
    return d;
}

static inline uint64_t inserted(uint64_t a, uint64_t b, uint32_t at, uint32_t length, uint32_t bits)
{
    at &= 255;
    length &= 255;
    for (uint32_t i = 0; i < length && at + i < bits; i++) {
        b &= ~(UINT64_C(1) << (at + i));
        b |= (uint64_t)bit_of(a, i) << (at + i);
    }
    return b;
}

static inline uint32_t highest(uint64_t a, int bits)
{
    for (int i = bits - 1; i >= 0; i--)
        if (bit_of(a, (uint64_t)i))
            return (uint32_t)i;
    return UINT32_MAX;
}

static inline uint64_t reversed(uint64_t a, int bits)
{
    uint64_t d = 0;
    for (int i = 0; i < bits; i++)
        d |= (uint64_t)bit_of(a, (uint64_t)i) << (bits - 1 - i);
    return d;
}

static inline uint32_t ones(uint64_t a)
{
    uint32_t n = 0;
    for (uint64_t i = 0; i < 64; i++)
        n += (uint32_t)bit_of(a, i);
    return n;
}

/* --------------------------------------------------------------------- floats */

static inline uint32_t float_bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static inline uint64_t double_bits(double x)
{
    uint64_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static inline float flushed(float x)
{
    return fpclassify(x) == FP_SUBNORMAL ? copysignf(0, x) : x;
}

static inline float unit(float x)
{
    return isnan(x) ? 0 : fminf(fmaxf(x, 0), 1) + 0.0f;
}

static inline double upper(double x)
{
    const uint64_t bits = double_bits(x) >> 32 << 32;
    memcpy(&x, &bits, sizeof x);
    return fpclassify(x) == FP_SUBNORMAL ? copysign(0, x) : x;
}

static inline double least(double a, double b)
{
    if (isnan(a) || isnan(b))
        return isnan(a) ? b : a;
    return a < b ? a : b < a ? b : signbit(a) ? a : b;
}

/* To the nearest whole number, ties to even. */
static inline double even(double x)
{
    double whole = floor(x);
    if (x - whole > 0.5 || (x - whole == 0.5 && fmod(whole, 2) != 0))
        whole++;
    return whole == 0 ? copysign(0, x) : whole;
}

static inline Wide to_integer(double whole, int bits, int is_signed, int nan_is_sign)
{
    const Wide one = 1;
    const Wide most = is_signed ? (one << (bits - 1)) - 1 : (one << bits) - 1;
    const Wide least_of = is_signed ? -(one << (bits - 1)) : 0;
    if (isnan(whole))
        return nan_is_sign ? one << (bits - 1) : 0;
    if (whole >= 0x1p70 || whole <= -0x1p70)
        return whole > 0 ? most : least_of;
    const Wide exact = (Wide)whole;
    return exact > most ? most : exact < least_of ? least_of : exact;
}

/* s + e, of which e is too small to be seen in s, as float in a direction. */
static inline float directed(char direction, double s, double e)
{
    const float nearest = (float)s;
    const double above = s - (double)nearest != 0 ? s - (double)nearest : e;
    if (direction == 'm' && above < 0)
        return nextafterf(nearest, -INFINITY);
    if (direction == 'p' && above > 0)
        return nextafterf(nearest, INFINITY);
    if (direction == 'z' && ((nearest > 0 && above < 0) || (nearest < 0 && above > 0)))
        return nextafterf(nearest, 0);
    return nearest;
}

static inline float directed_sum(char direction, double a, double b)
{
    const double s = a + b, part = s - a, e = (a - (s - part)) + (b - part);
    if (s == 0 && e == 0 && signbit(a) != signbit(b))
        return direction == 'm' ? -0.0f : 0.0f;
    return directed(direction, s, e);
}

static inline float toward(char direction, float a, float b, char operation)
{
    const double x = (double)a, y = (double)b;
    if (operation == '+')
        return directed_sum(direction, x, y);
    if (operation == '*')
        return directed(direction, x * y, 0);
    const double q = x / y, rest = fma(-q, y, x);
    return directed(direction, q, y > 0 ? rest : -rest);
}

static inline float toward_fma(char direction, float a, float b, float c)
{
    return directed_sum(direction, (double)a * (double)b, (double)c);
}

static inline float narrowed(char direction, double a)
{
    return directed(direction, a, 0);
}

/* To 10 bits of mantissa: toward 'z'ero, or the nearest, ties to eve'n' or 'a'way from zero. */
static inline float tf32(float x, char direction)
{
    if (!isfinite(x))
        return x;
    int e;
    frexpf(x, &e);
    e = e < -125 ? -125 : e;
    const double unit_of = ldexp(1, e - 11), units = fabs((double)x) / unit_of;
    const double whole = direction == 'z'   ? floor(units)
                         : direction == 'n' ? even(units)
                                            : floor(units + 0.5);
    return (float)(copysign(whole, (double)x) * unit_of);
}

/* --------------------------------------------------------------------- halves */

/* The values of all halves of a kind that are not negative, rising; infinity as if it
 * were the next number. */
static double f16_values[0x7c01], bf16_values[0x7f81];

static inline void make_halves(void)
{
    for (int h = 0; h <= 0x7c00; h++)
        f16_values[h] = h < 1024 ? ldexp(h, -24) : ldexp(1024 + h % 1024, h / 1024 - 25);
    for (int h = 0; h <= 0x7f80; h++)
        bf16_values[h] = h < 128 ? ldexp(h, -133) : ldexp(128 + h % 128, h / 128 - 134);
}

static inline float half_value(const double *values, int infinity, uint16_t h)
{
    const int magnitude = h & 0x7fff;
    const double value = magnitude > infinity    ? NAN
                         : magnitude == infinity ? INFINITY
                                                 : values[magnitude];
    return (float)(h & 0x8000 ? -value : value);
}

/* The half of x + e in a direction; 'n' is the nearest, ties to even. */
static inline uint16_t half_of(const double *values, int infinity, char direction, double x,
                               double e)
{
    if (isnan(x))
        return 0x7fff;
    const bool minus = signbit(x) != 0;
    const double a = fabs(x), rest = minus ? -e : e;
    int low = 0, high = infinity;
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        *(values[middle] <= a ? &low : &high) = middle;
    }
    const bool exact = a == values[low] && rest == 0;
    if (isinf(x) || (a >= values[infinity] && direction == 'n'))
        low = infinity;
    else if (direction == 'n') {
        const double tie = (values[low] + values[low + 1]) / 2;
        low += a > tie || (a == tie && (rest > 0 || (rest == 0 && low % 2 == 1)));
    } else if (!exact) {
        low += direction == (minus ? 'm' : 'p');
    }
    return (uint16_t)(minus ? low | 0x8000 : low);
}

static inline float f16(uint16_t h)
{
    return half_value(f16_values, 0x7c00, h);
}

static inline uint16_t f16_toward(char direction, double x)
{
    return half_of(f16_values, 0x7c00, direction, x, 0);
}

static inline uint16_t f16_of(double x)
{
    return f16_toward('n', x);
}

static inline uint16_t f16_flushed(uint16_t h)
{
    return (h & 0x7c00) == 0 ? h & 0x8000 : h;
}

static inline uint16_t f16_relu(uint16_t h)
{
    return (h & 0x7fff) > 0x7c00 ? 0x7fff : h & 0x8000 ? 0 : h;
}

static inline uint16_t f16_sum(uint16_t a, uint16_t b)
{
    return f16_of((double)f16(a) + (double)f16(b));
}

static inline uint16_t f16_product(uint16_t a, uint16_t b)
{
    return f16_of((double)f16(a) * (double)f16(b));
}

static inline uint16_t f16_at_most(uint16_t a, uint16_t b)
{
    return islessequal(f16(a), f16(b)) ? 0x3c00 : 0;
}

static inline uint32_t pairwise(uint16_t (*of_one)(uint16_t, uint16_t), uint32_t a, uint32_t b)
{
    return (uint32_t)of_one((uint16_t)(a >> 16), (uint16_t)(b >> 16)) << 16 |
           of_one((uint16_t)a, (uint16_t)b);
}

static inline float bf16(uint16_t h)
{
    return half_value(bf16_values, 0x7f80, h);
}

static inline uint16_t bf16_toward(char direction, double x)
{
    return half_of(bf16_values, 0x7f80, direction, x, 0);
}

static inline uint16_t bf16_of(double x)
{
    return bf16_toward('n', x);
}

static inline uint16_t bf16_product(uint16_t a, uint16_t b)
{
    return bf16_of((double)bf16(a) * (double)bf16(b));
}

static inline uint16_t bf16_fma(uint16_t a, uint16_t b, uint16_t c)
{
    const double p = (double)bf16(a) * (double)bf16(b), q = (double)bf16(c);
    const double s = p + q, part = s - p, e = (p - (s - part)) + (q - part);
    return half_of(bf16_values, 0x7f80, 'n', s, isnan(e) ? 0 : e);
}

static inline uint32_t bf16_pair_fma(uint32_t a, uint32_t b, uint32_t c)
{
    return (uint32_t)bf16_fma((uint16_t)(a >> 16), (uint16_t)(b >> 16), (uint16_t)(c >> 16)) << 16 |
           bf16_fma((uint16_t)a, (uint16_t)b, (uint16_t)c);
}

#endif
