/* half_numbers.h - the 16-bit floats: bits in, float out, and back, rounded to the nearest even. */
#ifndef MDL_SIM_HALF_NUMBERS_H
#define MDL_SIM_HALF_NUMBERS_H

#include <stdint.h>
#include <string.h>

static inline float float_of_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t bits_of_float(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float float_of_bfloat(uint16_t b)
{
    return float_of_bits((uint32_t)b << 16);
}

static inline uint16_t bfloat_of_float(float value)
{
    uint32_t bits = bits_of_float(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return 0x7fff; /* what the GPU makes of every NaN */
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16);
}

static inline float float_of_half(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, magnitude = h & 0x7fffu;
    if (magnitude >= 0x7c00u) /* infinite, NaN */
        return float_of_bits(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
    if (magnitude >= 0x400u)
        return float_of_bits(sign | ((magnitude << 13) + 0x38000000u));
    float small = (float)magnitude * 0x1p-24f; /* subnormal */
    return sign ? -small : small;
}

static inline uint16_t half_of_float(float value)
{
    uint32_t bits = bits_of_float(value), sign = (bits >> 16) & 0x8000u;
    bits &= 0x7fffffffu;
    if (bits > 0x7f800000u)
        return 0x7fff;
    if (bits >= 0x477ff000u) /* 65520 and more round to infinity */
        return (uint16_t)(sign | 0x7c00u);
    if (bits < 0x38800000u) { /* subnormal: adding 1/2 leaves the rounded bits at the end */
        float shifted = float_of_bits(bits) + 0.5f;
        return (uint16_t)(sign | (bits_of_float(shifted) - 0x3f000000u));
    }
    uint32_t odd = (bits >> 13) & 1;
    return (uint16_t)(sign | ((bits - 0x38000000u + 0xfffu + odd) >> 13));
}

#endif
