/* sample.h - what the sample programs share: a kernel's results compared with the host's.
 *
 * Every sample is compiled twice: to PTX, all of which must be understood, and to a program
 * that runs on the simulated GPU and returns 0 when every number is right.
 */
#ifndef SAMPLE_H
#define SAMPLE_H

#include <cuda_runtime.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int sample_wrong;

static void sample_check(cudaError_t error, const char *what)
{
    if (error != cudaSuccess) {
        printf("%s: %s\n", what, cudaGetErrorString(error));
        exit(1);
    }
}
#define CHECK(CALL) sample_check((CALL), #CALL)

/* Device memory that holds n elements of the host's. */
template <typename T> static T *to_device(const T *host, size_t n)
{
    T *device;
    CHECK(cudaMalloc((void **)&device, n * sizeof(T)));
    CHECK(cudaMemcpy(device, host, n * sizeof(T), cudaMemcpyHostToDevice));
    return device;
}

template <typename T> static void to_host(T *host, const T *device, size_t n)
{
    CHECK(cudaDeviceSynchronize());
    CHECK(cudaMemcpy(host, device, n * sizeof(T), cudaMemcpyDeviceToHost));
}

static void expect_near(const char *what, double x, double got, double want, double tolerance)
{
    const bool same = (isnan(got) && isnan(want)) || got == want ||
                      fabs(got - want) <= tolerance * fmax(fabs(want), 1e-30);
    if (!same) {
        printf("%s(%.9g): %.17g, should be %.17g\n", what, x, got, want);
        sample_wrong++;
    }
}

static void expect_equal(const char *what, long long i, long long got, long long want)
{
    if (got != want) {
        printf("%s[%lld]: %lld, should be %lld\n", what, i, got, want);
        sample_wrong++;
    }
}

#endif
