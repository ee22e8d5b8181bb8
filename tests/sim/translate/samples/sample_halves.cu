/* sample_halves.cu - fp16 and bf16: arithmetic of one and of two, conversions, functions. */
#include "sample.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

/* Name, expression on the GPU of halves a, b, c, expression in double, tolerance. */
#define FUNCTIONS(F)                                                                               \
    F(sum, a + b, x + y, 0)                                                                        \
    F(difference, a - b, x - y, 0)                                                                 \
    F(product, a *b, x *y, 0)                                                                      \
    F(fused, __hfma(a, b, c), x *y + z, 0)                                                         \
    F(quotient, a / b, x / y, 1)                                                                   \
    F(negative, __hneg(a), -x, 0)                                                                  \
    F(absolute, __habs(a), fabs(x), 0)                                                             \
    F(smaller, __hmin(a, b), fmin(x, y), 0)                                                        \
    F(larger, __hmax(a, b), fmax(x, y), 0)                                                         \
    F(chosen, a > b ? a : c, x > y ? x : z, 0)                                                     \
    F(root, hsqrt(__habs(a)), sqrt(fabs(x)), 1)                                                    \
    F(exponential, hexp(a), exp(x), 1)                                                             \
    F(logarithm, hlog(__habs(a)), log(fabs(x)), 1)                                                 \
    F(sine, hsin(a), sin(x), 2)                                                                    \
    F(whole, hrint(a), rint(x), 0)                                                                 \
    F(below, hfloor(a), floor(x), 0)

#define KERNEL(NAME, GPU, HOST, TOLERANCE)                                                         \
    template <typename H> __global__ void half_##NAME(H *out, const H *in, int n)                  \
    {                                                                                              \
        const int i = blockIdx.x * blockDim.x + threadIdx.x;                                       \
        if (i < n) {                                                                               \
            const H a = in[i], b = in[(i + 7) % n], c = in[(i + 31) % n];                          \
            out[i] = GPU;                                                                          \
            (void)b, (void)c;                                                                      \
        }                                                                                          \
    }
FUNCTIONS(KERNEL)

__global__ void half_pairs(__half2 *h, __nv_bfloat162 *b, const float2 *x, int n)
{
    const int i = threadIdx.x;
    if (i < n) {
        const __half2 p = __float22half2_rn(x[i]);
        h[i] = __hfma2(p, p, __hmax2(p, __float2half2_rn(0.5f)));
        const __nv_bfloat162 q = __float22bfloat162_rn(x[i]);
        b[i] = __hmin2(__hmul2(q, q), __hadd2(q, q));
        if (__hbgt2(p, __float2half2_rn(100.0f)))
            h[i] = __half2(__low2half(p), __float2half(0.0f));
    }
}

template <typename H> static double value_of(H h)
{
    return (double)(float)h;
}

template <typename H>
static void check_one(const char *name, double at, H got, double want, double tolerance,
                      double unit)
{
    expect_near(name, at, value_of(got), value_of((H)(float)want), tolerance * unit);
}

enum { N = 256 };

template <typename H> static void run(double unit)
{
    H in[N], out[N];
    for (int i = 0; i < N; i++)
        in[i] = (H)(float)((i - N / 2) * 0.0371 + 0.011);
    H *device = to_device(in, N), *result = to_device(in, N);
#define RUN(NAME, GPU, HOST, TOLERANCE)                                                            \
    half_##NAME<H><<<2, N / 2>>>(result, device, N);                                               \
    to_host(out, result, N);                                                                       \
    for (int i = 0; i < N; i++) {                                                                  \
        const double x = value_of(in[i]), y = value_of(in[(i + 7) % N]),                           \
                     z = value_of(in[(i + 31) % N]);                                               \
        (void)y, (void)z;                                                                          \
        check_one<H>(#NAME, x, out[i], HOST, TOLERANCE, unit);                                     \
    }
    FUNCTIONS(RUN)
    CHECK(cudaFree(device));
    CHECK(cudaFree(result));
}

static void run_pairs(void)
{
    float2 x[64];
    __half2 h[64];
    __nv_bfloat162 b[64];
    for (int i = 0; i < 64; i++)
        x[i] = make_float2(i * 0.37f - 4, i * 4.1f);
    float2 *gx = to_device(x, 64);
    __half2 *gh = to_device(h, 64);
    __nv_bfloat162 *gb = to_device(b, 64);
    half_pairs<<<1, 64>>>(gh, gb, gx, 64);
    to_host(h, gh, 64);
    to_host(b, gb, 64);
    for (int i = 0; i < 64; i++) {
        const double p = value_of((__half)x[i].x), q = value_of((__half)x[i].y);
        const double r = value_of((__nv_bfloat16)x[i].x), s = value_of((__nv_bfloat16)x[i].y);
        check_one<__half>("pair", p, h[i].x, p * p + fmax(p, 0.5), 0, 0);
        check_one<__half>("pair", q, h[i].y, q * q + fmax(q, 0.5), 0, 0);
        const double low = fmin(value_of((__nv_bfloat16)(float)(r * r)), r + r);
        const double high = fmin(value_of((__nv_bfloat16)(float)(s * s)), s + s);
        check_one<__nv_bfloat16>("pair", r, b[i].x, low, 0, 0);
        check_one<__nv_bfloat16>("pair", s, b[i].y, high, 0, 0);
    }
    CHECK(cudaFree(gx));
    CHECK(cudaFree(gh));
    CHECK(cudaFree(gb));
}

int main(void)
{
    run<__half>(0x1p-10);
    run<__nv_bfloat16>(0x1p-7);
    run_pairs();
    return sample_wrong != 0;
}
