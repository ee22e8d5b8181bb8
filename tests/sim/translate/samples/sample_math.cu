/* sample_math.cu - the mathematical functions of CUDA's library, in float and double. */
#include "sample.h"

/* Name, expression on the GPU, expression in double on the host, tolerance. */
#define FLOAT_FUNCTIONS(F)                                                                         \
    F(expf, expf(x), exp(d), 4e-7)                                                                 \
    F(exp2f, exp2f(x), exp2(d), 4e-7)                                                              \
    F(expm1f, expm1f(x), expm1(d), 4e-7)                                                           \
    F(logf, logf(fabsf(x)), log(fabs(d)), 4e-7)                                                    \
    F(log2f, log2f(fabsf(x)), log2(fabs(d)), 4e-7)                                                 \
    F(log1pf, log1pf(fabsf(x)), log1p(fabs(d)), 4e-7)                                              \
    F(powf, powf(fabsf(x), 1.3f), pow(fabs(d), (double)1.3f), 1e-6)                                \
    F(sqrtf, sqrtf(fabsf(x)), sqrt(fabs(d)), 1e-7)                                                 \
    F(rsqrtf, rsqrtf(fabsf(x)), 1 / sqrt(fabs(d)), 4e-7)                                           \
    F(cbrtf, cbrtf(x), cbrt(d), 4e-7)                                                              \
    F(sinf, sinf(x), sin(d), 4e-7)                                                                 \
    F(cosf, cosf(x), cos(d), 4e-7)                                                                 \
    F(tanf, tanf(x), tan(d), 1e-6)                                                                 \
    F(asinf, asinf(x / 200), asin((double)(x / 200)), 1e-6)                                        \
    F(atanf, atanf(x), atan(d), 4e-7)                                                              \
    F(atan2f, atan2f(x, 2), atan2(d, 2), 6e-7)                                                     \
    F(sinhf, sinhf(x / 4), sinh((double)(x / 4)), 6e-7)                                            \
    F(tanhf, tanhf(x), tanh(d), 4e-7)                                                              \
    F(erff, erff(x), erf(d), 4e-7)                                                                 \
    F(erfcf, erfcf(x / 16), erfc((double)(x / 16)), 1e-6)                                          \
    F(tgammaf, tgammaf(fabsf(x) / 8 + 1), tgamma((double)(fabsf(x) / 8 + 1)), 4e-6)                \
    F(lgammaf, lgammaf(fabsf(x) + 3), lgamma((double)(fabsf(x) + 3)), 4e-6)                        \
    F(fmodf, fmodf(x, 1.7f), fmod(d, (double)1.7f), 0)                                             \
    F(remainderf, remainderf(x, 1.7f), remainder(d, (double)1.7f), 0)                              \
    F(floorf, floorf(x), floor(d), 0)                                                              \
    F(ceilf, ceilf(x), ceil(d), 0)                                                                 \
    F(rintf, rintf(x), rint(d), 0)                                                                 \
    F(roundf, roundf(x), round(d), 0)                                                              \
    F(truncf, truncf(x), trunc(d), 0)                                                              \
    F(reciprocal, 1 / x, 1 / d, 1e-7)                                                              \
    F(quotient, 3.7f / x, (double)3.7f / d, 1e-7)                                                  \
    F(hypotf, hypotf(x, 2), hypot(d, 2), 4e-7)                                                     \
    F(fdividef, __fdividef(x, 3), d / 3, 4e-7)                                                     \
    F(fast_exp, __expf(x), exp(d), 2e-5)                                                           \
    F(fast_log, __logf(fabsf(x) + 2), log(fabs(d) + 2), 1e-6)                                      \
    F(ldexpf, ldexpf(x, 5), ldexp(d, 5), 0)                                                        \
    F(copysignf, copysignf(3, x), copysign(3, d), 0)                                               \
    F(fminf, fminf(x, 1), fmin(d, 1), 0)                                                           \
    F(isfinite, isfinite(x) ? 1.0f : 0.0f, isfinite(d) ? 1.0 : 0.0, 0)                             \
    F(gelu, 0.5f * fabsf(x) * (1 + erff(fabsf(x) * 0.70710678f)),                                  \
      0.5 * fabs(d) * (1 + erf(fabs(d) * 0.70710678118654752)), 6e-7)
#define DOUBLE_FUNCTIONS(F)                                                                        \
    F(exp, exp(x), exp(d), 1e-15)                                                                  \
    F(log, log(fabs(x)), log(fabs(d)), 1e-15)                                                      \
    F(pow, pow(fabs(x), 1.3), pow(fabs(d), 1.3), 2e-15)                                            \
    F(sqrt, sqrt(fabs(x)), sqrt(fabs(d)), 0)                                                       \
    F(rsqrt, rsqrt(fabs(x)), 1 / sqrt(fabs(d)), 1e-15)                                             \
    F(sin, sin(x), sin(d), 1e-15)                                                                  \
    F(sin_far, sin(x * 1e9), sin(d * 1e9), 1e-14)                                                  \
    F(cos, cos(x), cos(d), 1e-15)                                                                  \
    F(tanh, tanh(x), tanh(d), 1e-15)                                                               \
    F(erf, erf(x), erf(d), 1e-15)                                                                  \
    F(cbrt, cbrt(x), cbrt(d), 1e-15)                                                               \
    F(atan2, atan2(x, 2.0), atan2(d, 2.0), 1e-15)                                                  \
    F(lgamma, lgamma(fabs(x) + 3), lgamma(fabs(d) + 3), 1e-14)                                     \
    F(fmod, fmod(x, 1.7), fmod(d, 1.7), 0)                                                         \
    F(floor, floor(x), floor(d), 0)                                                                \
    F(round, round(x), round(d), 0)                                                                \
    F(third, x / 3, d / 3, 0)                                                                      \
    F(quotient, 3.7 / x, 3.7 / d, 0)                                                               \
    F(fma, fma(x, x, -1.0), fma(d, d, -1.0), 0)                                                    \
    F(truncated, (double)(long long)x, (double)(long long)d, 0)

#define FLOAT_KERNEL(NAME, GPU, HOST, TOLERANCE)                                                   \
    __global__ void float_##NAME(float *y, const float *in, int n)                                 \
    {                                                                                              \
        const int i = blockIdx.x * blockDim.x + threadIdx.x;                                       \
        if (i < n) {                                                                               \
            const float x = in[i];                                                                 \
            y[i] = GPU;                                                                            \
        }                                                                                          \
    }
#define DOUBLE_KERNEL(NAME, GPU, HOST, TOLERANCE)                                                  \
    __global__ void double_##NAME(double *y, const double *in, int n)                              \
    {                                                                                              \
        const int i = blockIdx.x * blockDim.x + threadIdx.x;                                       \
        if (i < n) {                                                                               \
            const double x = in[i];                                                                \
            y[i] = GPU;                                                                            \
        }                                                                                          \
    }
FLOAT_FUNCTIONS(FLOAT_KERNEL)
DOUBLE_FUNCTIONS(DOUBLE_KERNEL)

enum { N = 300 };

int main(void)
{
    float x[N], y[N];
    double dx[N], dy[N];
    for (int i = 0; i < N; i++) {
        x[i] = (float)((i - N / 2) * 0.1337 + 1e-3);
        dx[i] = (i - N / 2) * 0.1337 + 1e-3;
    }
    float *in = to_device(x, N), *out = to_device(x, N);
    double *din = to_device(dx, N), *dout = to_device(dx, N);
#define RUN_FLOAT(NAME, GPU, HOST, TOLERANCE)                                                      \
    float_##NAME<<<(N + 127) / 128, 128>>>(out, in, N);                                            \
    to_host(y, out, N);                                                                            \
    for (int i = 0; i < N; i++) {                                                                  \
        const float x_of = x[i], x = x_of;                                                         \
        const double d = (double)x;                                                                \
        (void)x, (void)d;                                                                          \
        expect_near(#NAME, d, (double)y[i], (double)(float)(HOST), TOLERANCE);                     \
    }
#define RUN_DOUBLE(NAME, GPU, HOST, TOLERANCE)                                                     \
    double_##NAME<<<(N + 127) / 128, 128>>>(dout, din, N);                                         \
    to_host(dy, dout, N);                                                                          \
    for (int i = 0; i < N; i++) {                                                                  \
        const double d = dx[i];                                                                    \
        expect_near(#NAME, d, dy[i], HOST, TOLERANCE);                                             \
    }
    FLOAT_FUNCTIONS(RUN_FLOAT)
    DOUBLE_FUNCTIONS(RUN_DOUBLE)
    CHECK(cudaFree(in));
    CHECK(cudaFree(out));
    CHECK(cudaFree(din));
    CHECK(cudaFree(dout));
    return sample_wrong != 0;
}
