/* data.c - from a file's elements to an input's: conversion and checks.
 *
 * In: an Array and the number of a sample. Out: the sample in the input's own type;
 * every real finite, every integer within the input's limit, 16-bit reals rounded to nearest even.
 * Errors name the file, the sample (from 0, before skipping and shuffling), the value and what was
 * wanted.
 */
#include "data.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <vmath.h>
#include <xxhash.h>

int64_t element_size(ElementType type)
{
    static const int8_t size[] = {
        [ELEMENT_BOOL] = 1, [ELEMENT_U8] = 1,  [ELEMENT_I8] = 1,  [ELEMENT_U16] = 2,
        [ELEMENT_I16] = 2,  [ELEMENT_U32] = 4, [ELEMENT_I32] = 4, [ELEMENT_U64] = 8,
        [ELEMENT_I64] = 8,  [ELEMENT_F32] = 4, [ELEMENT_F64] = 8, [ELEMENT_BF16] = 2,
        [ELEMENT_F16] = 2};
    return size[type];
}

void array_release(Array *a)
{
    file_release(&a->file);
    free(a->memory);
    a->memory = NULL;
    a->elements = NULL;
}

/* The bits of element i, in the low bytes. */
static uint64_t element_bits(const Array *a, int64_t i)
{
    int64_t size = element_size(a->type);
    const unsigned char *at = a->elements + i * size;
    uint64_t bits = 0;
    for (int64_t k = 0; k < size; k++)
        bits = bits << 8 | at[a->big_endian ? k : size - 1 - k];
    return bits;
}

static double element_real(const Array *a, int64_t i)
{
    uint64_t bits = element_bits(a, i);
    uint32_t low = (uint32_t)bits;
    float f;
    double d;
    switch (a->type) {
    case ELEMENT_BOOL:
        return bits != 0;
    case ELEMENT_I8:
        return (int8_t)bits;
    case ELEMENT_I16:
        return (int16_t)bits;
    case ELEMENT_I32:
        return (int32_t)low;
    case ELEMENT_I64:
        return (double)(int64_t)bits;
    case ELEMENT_F32:
        memcpy(&f, &low, sizeof f);
        return f;
    case ELEMENT_F64:
        memcpy(&d, &bits, sizeof d);
        return d;
    case ELEMENT_BF16:
        return mdl_from_bf16((uint16_t)bits);
    case ELEMENT_F16:
        return mdl_from_f16((uint16_t)bits);
    default:
        return (double)bits;
    }
}

/* What is not whole or beyond 64 bits becomes INT64_MIN, which no input takes. */
static int64_t element_integer(const Array *a, int64_t i)
{
    if (a->type == ELEMENT_I64)
        return (int64_t)element_bits(a, i);
    if (a->type == ELEMENT_U64) {
        uint64_t bits = element_bits(a, i);
        return bits > INT64_MAX ? INT64_MIN : (int64_t)bits;
    }
    double x = element_real(a, i);
    return x > -0x1p62 && x < 0x1p62 && x == floor(x) ? (int64_t)x : INT64_MIN;
}

static int sample_reals(const Array *a, int64_t sample, int64_t start, int64_t count, real *out,
                        Problem *p)
{
    if (a->type == ELEMENT_U8) {
        for (int64_t i = 0; i < count; i++)
            out[i] = a->elements[start + i];
        return MDL_OK;
    }
    bool same = !a->big_endian && a->type == (sizeof(real) == 8 ? ELEMENT_F64 : ELEMENT_F32);
    if (same)
        memcpy(out, a->elements + start * (int64_t)sizeof(real), (size_t)count * sizeof(real));
    else
        for (int64_t i = 0; i < count; i++)
            out[i] = (real)element_real(a, start + i);
    for (int64_t i = 0; i < count; i++)
        if (!isfinite(out[i]))
            return problem_set(p, EXIT_RUN,
                               "%s: sample %lld, element %lld: %g is not a finite number", a->path,
                               (long long)sample, (long long)i, element_real(a, start + i));
    return MDL_OK;
}

/* To float, to the neighbour whose last bit is odd where x is between two: rounding that to fewer
 * bits gives what rounding x gives. */
static float round_to_odd(double x)
{
    const float f = (float)x;
    const double y = f;
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    if (isfinite(x) && (y < x || y > x) && bits % 2 == 0)
        bits += fabs(y) > fabs(x) ? UINT32_MAX : 1;
    return mdl_from_bits((int32_t)bits);
}

const char *half_name(MdlType type)
{
    return type == MDL_BF16 ? "bf16" : "f16";
}

static uint16_t half_of_float(MdlType type, float x)
{
    return type == MDL_BF16 ? mdl_to_bf16(x) : mdl_to_f16(x);
}

static bool half_finite(MdlType type, uint16_t half)
{
    const uint16_t exponent = type == MDL_BF16 ? 0x7f80 : 0x7c00;
    return (half & exponent) != exponent;
}

bool half_round_real(MdlType type, double x, uint16_t *half)
{
    *half = half_of_float(type, round_to_odd(x));
    return half_finite(type, *half);
}

static int sample_halves(const Array *a, int64_t sample, int64_t start, const MdlInput *input,
                         int64_t count, uint16_t *out, Problem *p)
{
    const MdlType type = input->type;
    const bool as_here = !a->big_endian;
    if (as_here && a->type == (type == MDL_BF16 ? ELEMENT_BF16 : ELEMENT_F16))
        memcpy(out, a->elements + start * 2, (size_t)count * 2);
    else if (as_here && a->type == ELEMENT_F32)
        for (int64_t i = 0; i < count; i++) {
            float x;
            memcpy(&x, a->elements + (start + i) * 4, sizeof x);
            out[i] = half_of_float(type, x);
        }
    else
        for (int64_t i = 0; i < count; i++)
            half_round_real(type, element_real(a, start + i), &out[i]);
    for (int64_t i = 0; i < count; i++) {
        if (half_finite(type, out[i]))
            continue;
        const double x = element_real(a, start + i);
        return problem_set(p, EXIT_RUN, "%s: sample %lld, element %lld: %g is %s%s", a->path,
                           (long long)sample, (long long)i, x,
                           isfinite(x) ? "out of the range of " : "not a finite number",
                           isfinite(x) ? half_name(type) : "");
    }
    return MDL_OK;
}

static int sample_integers(const Array *a, int64_t sample, int64_t start, const MdlInput *input,
                           int64_t count, void *out, Problem *p)
{
    int64_t low = input->limit > 0 || input->type == MDL_U8 ? 0 : INT32_MIN;
    int64_t high = input->type == MDL_U8 ? UINT8_MAX : INT32_MAX;
    if (input->limit > 0 && input->limit - 1 < high)
        high = input->limit - 1;
    for (int64_t i = 0; i < count; i++) {
        int64_t value = element_integer(a, start + i);
        if (value < low || value > high)
            return problem_set(p, EXIT_RUN,
                               "%s: sample %lld (from 0), element %lld: %.15g; %s '%s' takes whole "
                               "numbers from %lld to %lld",
                               a->path, (long long)sample, (long long)i, element_real(a, start + i),
                               input->target ? "target" : "input", input->name, (long long)low,
                               (long long)high);
        if (input->type == MDL_U8)
            ((uint8_t *)out)[i] = (uint8_t)value;
        else
            ((int32_t *)out)[i] = (int32_t)value;
    }
    return MDL_OK;
}

int array_sample(const Array *a, int64_t sample, const MdlInput *input, int64_t count, void *out,
                 Problem *p)
{
    int64_t start = a->first + sample * a->stride;
    if (input->type == MDL_REAL)
        return sample_reals(a, sample, start, count, out, p);
    if (type_is_half(input->type))
        return sample_halves(a, sample, start, input, count, out, p);
    return sample_integers(a, sample, start, input, count, out, p);
}

void synthetic_sample(const MdlInput *input, uint64_t seed, int64_t sample, int64_t count,
                      void *out)
{
    uint64_t key64 = XXH64(input->name, strlen(input->name), seed);
    uint32_t key[2] = {(uint32_t)key64, (uint32_t)(key64 >> 32)};
    uint64_t limit = input->limit > 0 ? (uint64_t)input->limit : 2;
    if (input->type == MDL_U8 && limit > UINT8_MAX + 1)
        limit = UINT8_MAX + 1;
    uint32_t four[4];
    for (int64_t e = 0; e < count; e++) {
        if (e % 4 == 0) {
            uint64_t block = (uint64_t)e / 4, i = (uint64_t)sample;
            uint32_t counter[4] = {(uint32_t)block, (uint32_t)(block >> 32), (uint32_t)i,
                                   (uint32_t)(i >> 32)};
            philox(four, counter, key);
        }
        uint64_t bits = four[e % 4];
        const double x = (double)(bits >> 8) * 0x1p-23 - 1.0;
        if (input->type == MDL_REAL)
            ((real *)out)[e] = (real)x;
        else if (type_is_half(input->type))
            half_round_real(input->type, x, &((uint16_t *)out)[e]);
        else if (input->type == MDL_U8)
            ((uint8_t *)out)[e] = (uint8_t)(bits * limit >> 32);
        else
            ((int32_t *)out)[e] = (int32_t)(bits * limit >> 32);
    }
}
