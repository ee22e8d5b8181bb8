/* sample_integers.cu - whole numbers: quotients, wide products, bits, what vectors of bytes do. */
#include "sample.h"

#define FUNCTIONS(F)                                                                               \
    F(quotient, b ? a / b : 0, b ? a / b : 0)                                                      \
    F(remainder, b ? a % b : 0, b ? a % b : 0)                                                     \
    F(by_seven, a / 7 + a % 13, a / 7 + a % 13)                                                    \
    F(unsigned_quotient, (long long)((unsigned long long)a / (b | 1)),                             \
      (long long)((unsigned long long)a / (unsigned long long)(b | 1)))                            \
    F(high, __mul64hi(a, b), (long long)((__int128)a * b >> 64))                                   \
    F(unsigned_high, (long long)__umul64hi(a, b),                                                  \
      (long long)((unsigned __int128)(unsigned long long)a * (unsigned long long)b >> 64))         \
    F(high_32, __mulhi((int)a, (int)b), (int)((long long)(int)a * (int)b >> 32))                   \
    F(quotient_32, (int)b ? (int)((long long)(int)a / (int)b) : 0,                                 \
      (int)b ? (int)((long long)(int)a / (int)b) : 0)                                              \
    F(short_product, (short)a *(signed char)b, (short)a *(signed char)b)                           \
    F(zeroes, __clzll(a) + __clz((int)b),                                                          \
      (a ? __builtin_clzll(a) : 64) + ((int)b ? __builtin_clz((int)b) : 32))                       \
    F(first_set, __ffsll(a) + __ffs((int)b), __builtin_ffsll(a) + __builtin_ffs((int)b))           \
    F(ones, __popcll(a) - __popc((int)b), __builtin_popcountll(a) - __builtin_popcount((int)b))    \
    F(swapped, __byte_perm((int)a, 0, 0x0123), (long long)__builtin_bswap32((unsigned)a))          \
    F(reversed, (long long)__brevll(__brevll(a)), a)                                               \
    F(funnel, __funnelshift_l((int)a, (int)b, 5),                                                  \
      (long long)(unsigned)((unsigned)b << 5 | (unsigned)a >> 27))                                 \
    F(smaller, min(a, b) + max((int)a, (int)b),                                                    \
      (a < b ? a : b) + ((int)a > (int)b ? (int)a : (int)b))                                       \
    F(absolute, abs((int)a % 1000) + llabs(b % 1000), abs((int)a % 1000) + llabs(b % 1000))        \
    F(shifts, (a >> 3) ^ (long long)((unsigned long long)a << 5) ^ (a >> (b & 63)),                \
      (a >> 3) ^ (long long)((unsigned long long)a << 5) ^ (a >> (b & 63)))                        \
    F(field, ((unsigned)a >> 7 & 31) | (a & 0xff00), ((unsigned)a >> 7 & 31) | (a & 0xff00))       \
    F(apart, __sad((int)a, (int)b, 3) - 3u,                                                        \
      (long long)(unsigned)((int)a > (int)b ? (unsigned)a - (unsigned)b                            \
                                            : (unsigned)b - (unsigned)a))                          \
    F(added, __hadd((int)a, (int)b), ((long long)(int)a + (int)b) >> 1)                            \
    F(bytes_greater, __vcmpgtu4((int)a, (int)b), bytes_greater_of((unsigned)a, (unsigned)b))

static long long bytes_greater_of(unsigned a, unsigned b)
{
    unsigned all = 0;
    for (int i = 0; i < 32; i += 8)
        all |= (a >> i & 255) > (b >> i & 255) ? 255u << i : 0;
    return all;
}

#define KERNEL(NAME, GPU, HOST)                                                                    \
    __global__ void integer_##NAME(long long *y, const long long *x, int n)                        \
    {                                                                                              \
        const int i = blockIdx.x * blockDim.x + threadIdx.x;                                       \
        if (i < n) {                                                                               \
            const long long a = x[2 * i], b = x[2 * i + 1];                                        \
            y[i] = GPU;                                                                            \
        }                                                                                          \
    }
FUNCTIONS(KERNEL)

/* Sums in every way that atomics have, by many threads. */
__global__ void atomics(int *i, unsigned *u, unsigned long long *l, float *f, double *d)
{
    const int n = blockIdx.x * blockDim.x + threadIdx.x;
    atomicAdd(i, n);
    atomicSub(i + 1, n);
    atomicMin(i + 2, -n);
    atomicMax(i + 3, n);
    atomicOr(i + 4, 1 << (n % 31));
    atomicAnd(i + 5, ~(1 << (n % 31)));
    atomicXor(i + 6, n);
    atomicInc(u, 9);
    atomicDec(u + 1, 9);
    atomicAdd(l, 1ull << 33);
    atomicMax(l + 1, (unsigned long long)n << 40);
    atomicAdd(f, 0.5f);
    atomicAdd(d, 0.25);
    int seen = atomicAdd(i + 7, 0), expected;
    do {
        expected = seen;
        seen = atomicCAS(i + 7, expected, expected + 3);
    } while (seen != expected);
    if (n == 5)
        atomicExch(u + 2, 77u);
}

static void run_atomics(void)
{
    int i[8] = {0};
    unsigned u[3] = {0};
    unsigned long long l[2] = {0};
    float f = 0;
    double d = 0;
    const int n = 200;
    i[5] = -1;
    int *gi = to_device(i, 8);
    unsigned *gu = to_device(u, 3);
    unsigned long long *gl = to_device(l, 2);
    float *gf = to_device(&f, 1);
    double *gd = to_device(&d, 1);
    atomics<<<2, n / 2>>>(gi, gu, gl, gf, gd);
    to_host(i, gi, 8);
    to_host(u, gu, 3);
    to_host(l, gl, 2);
    to_host(&f, gf, 1);
    to_host(&d, gd, 1);
    int combined = 0;
    for (int k = 0; k < n; k++)
        combined ^= k;
    const int want[8] = {n * (n - 1) / 2, -n * (n - 1) / 2, 1 - n,    n - 1,
                         0x7fffffff,      (int)0x80000000,  combined, 3 * n};
    for (int k = 0; k < 8; k++)
        expect_equal("atomics", k, i[k], want[k]);
    expect_equal("atomicInc", 0, u[0], n % 10);
    expect_equal("atomicDec", 0, u[1], (10 - n % 10) % 10);
    expect_equal("atomicExch", 0, u[2], 77);
    expect_equal("atomicAdd", 64, (long long)l[0], (long long)n << 33);
    expect_equal("atomicMax", 64, (long long)l[1], (long long)(n - 1) << 40);
    expect_near("atomicAdd", 32, f, n * 0.5, 0);
    expect_near("atomicAdd", 64, d, n * 0.25, 0);
    CHECK(cudaFree(gi));
    CHECK(cudaFree(gu));
    CHECK(cudaFree(gl));
    CHECK(cudaFree(gf));
    CHECK(cudaFree(gd));
}

enum { N = 400 };

int main(void)
{
    static long long x[2 * N], y[N];
    unsigned long long state = 88172645463325252ull;
    for (int i = 0; i < 2 * N; i++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        x[i] = (long long)state >> (i * 7 % 60);
    }
    x[0] = 0;
    x[3] = 1;
    long long *in = to_device(x, 2 * N), *out = to_device(y, N);
#define RUN(NAME, GPU, HOST)                                                                       \
    integer_##NAME<<<(N + 63) / 64, 64>>>(out, in, N);                                             \
    to_host(y, out, N);                                                                            \
    for (int i = 0; i < N; i++) {                                                                  \
        const long long a = x[2 * i], b = x[2 * i + 1];                                            \
        expect_equal(#NAME, i, y[i], (long long)(HOST));                                           \
        (void)a, (void)b;                                                                          \
    }
    FUNCTIONS(RUN)
    run_atomics();
    CHECK(cudaFree(in));
    CHECK(cudaFree(out));
    return sample_wrong != 0;
}
