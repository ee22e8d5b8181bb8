/* random.cu - dropout: the same elements as the host's (random.c), to the bit.
 *
 * Element e of sample i takes word e / 16 % 4 of Philox counter (e / 64 * 16 + e % 16, i): of a
 * block of 64 elements, counter c serves elements c, c + 16, c + 32 and c + 48. A thread computes
 * V neighbouring counters and handles their V elements of each quarter in one load and store;
 * so each number is computed once. Elements are float or of 16 bits.
 */
#include "common.cuh"
#include "gpu_half.h"
#include "half.cuh"

#include <math.h>

enum { BLOCK = 256, LANES = 16, QUARTERS = 4, ELEMENTS = LANES * QUARTERS, ROUNDS = 10 };

template <class To, class From> struct Dropout {
    To y;
    From x;
    uint32_t key0, key1;
    int64_t first, n; /* the first sample's number; elements of a sample */
    int count;        /* threads with work */
    Divider threads;  /* of a sample */
    uint32_t least;   /* the smallest number that is kept */
    float scale;
};

/* Philox4x32-10 (Salmon et al., 2011). */
MDL_DEVICE void philox_rounds(uint32_t word[4], uint32_t key0, uint32_t key1)
{
#pragma unroll
    for (int round = 0; round < ROUNDS; round++) {
        const uint32_t high0 = __umulhi(0xD2511F53u, word[0]), low0 = 0xD2511F53u * word[0];
        const uint32_t high2 = __umulhi(0xCD9E8D57u, word[2]), low2 = 0xCD9E8D57u * word[2];
        word[0] = high2 ^ word[1] ^ key0;
        word[1] = low2;
        word[2] = high0 ^ word[3] ^ key1;
        word[3] = low0;
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
}

template <int V, class To, class From>
static __global__ void __launch_bounds__(BLOCK) drop(const Dropout<To, From> d)
{
    const int thread = (int)(blockIdx.x * BLOCK + threadIdx.x);
    if (thread >= d.count)
        return;
    int place;
    const int sample = divide_rest(thread, d.threads, &place);
    const int block = place / (LANES / V), lane = place % (LANES / V) * V;
    const uint64_t counter = (uint64_t)block * LANES + lane, id = (uint64_t)(d.first + sample);
    uint32_t word[V][4];
#pragma unroll
    for (int e = 0; e < V; e++) { /* lane + e < 16: no carry */
        word[e][0] = (uint32_t)counter + e;
        word[e][1] = (uint32_t)(counter >> 32);
        word[e][2] = (uint32_t)id;
        word[e][3] = (uint32_t)(id >> 32);
        philox_rounds(word[e], d.key0, d.key1);
    }
    const int64_t at = sample * d.n, from = (int64_t)block * ELEMENTS + lane;
    Floats<V> v[QUARTERS];
#pragma unroll
    for (int q = 0; q < QUARTERS; q++)
        if (from + q * LANES < d.n)
            v[q] = load_floats<V>(d.x + at + from + q * LANES);
#pragma unroll
    for (int q = 0; q < QUARTERS; q++) {
        if (from + q * LANES >= d.n)
            break;
#pragma unroll
        for (int e = 0; e < V; e++)
            v[q].at[e] = word[e][q] >= d.least ? v[q].at[e] * d.scale : 0;
        store_floats(d.y + at + from + q * LANES, v[q]);
    }
}

/* Can a number reach *least? Where p is 1 none can, and y is zeros. */
static bool drop_least(double p, double *least)
{
    *least = ceil(p * 4294967296.0);
    return *least < 4294967296.0;
}

template <class To, class From>
static int dropout(const Gpu *gpu, To y, From x, double p, double least, uint64_t key,
                   int64_t first, int64_t samples, int64_t n)
{
    enum { V = VECTOR<To> };
    const bool vector = is_vector<V>(n, y, x);
    const int64_t threads = ceil_div(n, ELEMENTS) * LANES / (vector ? V : 1);
    const int64_t most = INDEX_MOST / threads; /* samples of a launch */
    if (most == 0)
        return (int)cudaErrorInvalidValue; /* a sample of more than 2^33 elements */
    Dropout<To, From> d = {y, x, (uint32_t)key,        (uint32_t)(key >> 32), first,
                           n, 0, divider_new(threads), (uint32_t)least,       (float)(1 / (1 - p))};
    for (int64_t s = 0; s < samples; s += most) {
        const int64_t now = int_min(most, samples - s);
        d.y = y + s * n;
        d.x = x + s * n;
        d.first = first + s;
        d.count = (int)(now * threads);
        const unsigned blocks = (unsigned)ceil_div(d.count, BLOCK);
        if (vector)
            drop<V><<<blocks, BLOCK, 0, gpu->compute>>>(d);
        else
            drop<1><<<blocks, BLOCK, 0, gpu->compute>>>(d);
        const int status = launch_status();
        if (status != 0)
            return status;
    }
    return 0;
}

extern "C" int gpu_dropout(const Gpu *gpu, float *y, const float *x, double p, uint64_t key,
                           int64_t first, int64_t samples, int64_t n)
{
    double least;
    if (samples <= 0 || n <= 0)
        return 0;
    if (!drop_least(p, &least))
        return gpu_fill(gpu, y, 0, samples * n);
    return dropout(gpu, y, x, p, least, key, first, samples, n);
}

extern "C" int gpu_dropout_half(const Gpu *gpu, HalfKind kind, half16 *y, const half16 *x, double p,
                                uint64_t key, int64_t first, int64_t samples, int64_t n)
{
    double least;
    if (samples <= 0 || n <= 0)
        return 0;
    if (!drop_least(p, &least))
        return gpu_fill_half(gpu, kind, y, 0, samples * n);
    return dropout(gpu, Halves{y, kind}, ConstHalves{x, kind}, p, least, key, first, samples, n);
}
