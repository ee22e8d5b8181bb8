/* library_test.h - what the tests of the simulated libraries share: device memory, numbers. */
#ifndef LIBRARY_TEST_H
#define LIBRARY_TEST_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <cuda_runtime_api.h>
#include <library_types.h>

#define FINE(call) assert_int_equal((int)(call), 0)

static inline void *device_copy(const void *data, size_t bytes)
{
    void *to = NULL;
    FINE(cudaMalloc(&to, bytes ? bytes : 1));
    FINE(cudaMemcpy(to, data, bytes, cudaMemcpyHostToDevice));
    FINE(cudaDeviceSynchronize());
    return to;
}

static inline void host_copy(void *to, const void *from, size_t bytes)
{
    FINE(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost));
}

static inline cudaStream_t new_stream(void)
{
    cudaStream_t stream;
    FINE(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    return stream;
}

/* Numbers in [-1, 1) with few bits, so that every type of element holds them exactly. */
static inline double number(void)
{
    static uint64_t state = 1;
    state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (double)(int)(state >> 57) / 64 - 1;
}

static inline size_t bytes_of(cudaDataType type)
{
    return type == CUDA_R_64F ? 8 : type == CUDA_R_32F ? 4 : 2;
}

/* The 16-bit types by their definition: sign, exponent, mantissa. */
static inline double narrow_value(uint16_t bits, int exponent_bits, int mantissa_bits)
{
    int bias = (1 << (exponent_bits - 1)) - 1, mantissa = bits & ((1 << mantissa_bits) - 1);
    int exponent = bits >> mantissa_bits & ((1 << exponent_bits) - 1);
    double sign = bits >> 15 ? -1 : 1;
    if (exponent == (1 << exponent_bits) - 1)
        return mantissa ? (double)NAN : sign * (double)INFINITY;
    if (exponent == 0)
        return sign * ldexp(mantissa, 1 - bias - mantissa_bits);
    return sign * ldexp(mantissa + (1 << mantissa_bits), exponent - bias - mantissa_bits);
}

static inline double element(const void *data, cudaDataType type, size_t i)
{
    switch ((int)type) {
    case CUDA_R_64F:
        return ((const double *)data)[i];
    case CUDA_R_32F:
        return (double)((const float *)data)[i];
    case CUDA_R_16F:
        return narrow_value(((const uint16_t *)data)[i], 5, 10);
    default:
        return narrow_value(((const uint16_t *)data)[i], 8, 7);
    }
}

/* Only for numbers that the type holds exactly. */
static inline void set_element(void *data, cudaDataType type, size_t i, double value)
{
    float narrow = (float)value;
    uint32_t bits;
    memcpy(&bits, &narrow, sizeof bits);
    if (type == CUDA_R_64F)
        ((double *)data)[i] = value;
    else if (type == CUDA_R_32F)
        ((float *)data)[i] = narrow;
    else if (type == CUDA_R_16BF)
        ((uint16_t *)data)[i] = (uint16_t)(bits >> 16);
    else if (narrow == 0)
        ((uint16_t *)data)[i] = 0;
    else
        ((uint16_t *)data)[i] =
            (uint16_t)((bits >> 16 & 0x8000) | (((bits >> 23 & 255) - 112) << 10) |
                       (bits >> 13 & 1023));
}

static inline void *numbers(cudaDataType type, size_t n)
{
    void *data = calloc(n ? n : 1, bytes_of(type));
    assert_non_null(data);
    for (size_t i = 0; i < n; i++)
        set_element(data, type, i, number());
    return data;
}

/* Relative to the sum of absolute values: what a sum of k products in `type` may be off. */
static inline double tolerance(cudaDataType type, double k)
{
    double unit = type == CUDA_R_64F   ? 0x1p-52
                  : type == CUDA_R_32F ? 0x1p-23
                  : type == CUDA_R_16F ? 0x1p-11
                                       : 0x1p-8;
    double sums = (type == CUDA_R_64F ? 0x1p-52 : 0x1p-23) * k;
    return unit + sums;
}

#endif
