/* common.cuh - what the kernels of the CUDA target share: sums and maxima over warps and
 * blocks, division by a number known to the host, and the status of a launch.
 *
 * Sums over a warp are butterflies: every lane ends with the same bits. Sums over a block pass
 * through one shared array, given by the caller, with one barrier: a kernel that needs several
 * sums gives each an array of its own, so that none needs a second barrier.
 */
#ifndef MDL_COMMON_CUH
#define MDL_COMMON_CUH

#include "gpu.h"
#include "map.cuh"

enum { WARP = 32 };

static constexpr unsigned ALL_LANES = 0xffffffffu;

static inline int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

static inline int64_t int_min(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static inline int64_t int_max(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* What every launcher returns right after <<<>>>. */
static inline int launch_status(void)
{
    return (int)cudaGetLastError();
}

/* ------------------------------------------------------- division by a constant */

/* Quotients of numbers below 2^31 (Granlund and Montgomery, 1994). */
typedef struct {
    uint32_t by, factor, shift;
} Divider;

enum { INDEX_MOST = 0x7ffffc00 }; /* leaves a block of threads room to reach past the end */

/* 1 <= by < 2^31 */
static inline Divider divider_new(int64_t by)
{
    Divider d = {(uint32_t)by, 0, 0};
    while (((int64_t)1 << d.shift) < by)
        d.shift++;
    d.factor = (uint32_t)((((uint64_t)1 << 32) * (((uint64_t)1 << d.shift) - d.by)) / d.by + 1);
    return d;
}

MDL_DEVICE uint32_t divide(uint32_t n, const Divider &d)
{
    return (__umulhi(n, d.factor) + n) >> d.shift;
}

/* *rest = n mod by; returns n / by */
MDL_DEVICE int divide_rest(int n, const Divider &d, int *rest)
{
    const int quotient = (int)divide((uint32_t)n, d);
    *rest = n - quotient * (int)d.by;
    return quotient;
}

/* n of any size */
MDL_DEVICE int64_t divide_large(int64_t n, const Divider &d)
{
    return n <= INDEX_MOST ? divide((uint32_t)n, d) : n / d.by;
}

/* ------------------------------------------------------------------- reductions */

/* NaN wins, as on the host. */
MDL_DEVICE float larger(float best, float x)
{
    return x > best || x != x ? x : best;
}

struct Sum {
    template <class T> static __device__ __forceinline__ T start(void)
    {
        return T(0);
    }
    template <class T> static __device__ __forceinline__ T join(T a, T b)
    {
        return a + b;
    }
};

struct Largest {
    template <class T> static __device__ __forceinline__ T start(void)
    {
        return -HUGE_VALF;
    }
    template <class T> static __device__ __forceinline__ T join(T a, T b)
    {
        return larger(a, b);
    }
};

/* Over groups of `width` neighbouring lanes (a power of two); all lanes of the warp take part. */
template <class Op, class T> MDL_DEVICE T warp_reduce(T v, int width = WARP)
{
    for (int step = width / 2; step > 0; step /= 2)
        v = Op::join(v, __shfl_xor_sync(ALL_LANES, v, step));
    return v;
}

/* Over a block of WARPS warps along x; every thread gets the result. part[WARPS] is shared,
 * and no thread may use it for anything else before the next barrier. One warp needs none. */
template <class Op, int WARPS, class T> MDL_DEVICE T block_reduce(T v, T *part)
{
    v = warp_reduce<Op>(v);
    if (WARPS == 1)
        return v;
    if (threadIdx.x % WARP == 0)
        part[threadIdx.x / WARP] = v;
    __syncthreads();
    if (WARPS > 8) /* a power of two */
        return warp_reduce<Op>(part[threadIdx.x % WARPS], WARPS);
    v = part[0];
#pragma unroll
    for (int w = 1; w < WARPS; w++)
        v = Op::join(v, part[w]);
    return v;
}

template <int WARPS, class T> MDL_DEVICE T block_sum(T v, T *part)
{
    return block_reduce<Sum, WARPS>(v, part);
}

/* Two sums with one barrier. */
template <int WARPS> MDL_DEVICE void block_sums(float *a, float *b, float (*part)[2])
{
    *a = warp_reduce<Sum>(*a);
    *b = warp_reduce<Sum>(*b);
    if (WARPS == 1)
        return;
    if (threadIdx.x % WARP == 0) {
        part[threadIdx.x / WARP][0] = *a;
        part[threadIdx.x / WARP][1] = *b;
    }
    __syncthreads();
    *a = warp_reduce<Sum>(part[threadIdx.x % WARPS][0], WARPS);
    *b = warp_reduce<Sum>(part[threadIdx.x % WARPS][1], WARPS);
}

template <int WARPS> MDL_DEVICE float block_max(float v, float *part)
{
    return block_reduce<Largest, WARPS>(v, part);
}

#endif
