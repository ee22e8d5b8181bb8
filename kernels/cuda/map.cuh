/* map.cuh - the functions of element-wise kernels.
 *
 * The functions of vmath.h under the same names, in float, for device code: generated kernels
 * are made of them. exp, log and tanh are CUDA's; everything else is the same expression as on
 * the host, so NaN and infinity come out alike. Compile with -fmad=false for the host's
 * roundings: where a fused multiply-add is meant it is written.
 */
#ifndef MDL_MAP_CUH
#define MDL_MAP_CUH

#include <cuda_runtime_api.h>
#include <math.h>
#include <stdint.h>

typedef float real;

#define MDL_DEVICE static __device__ __forceinline__

/* Blocks for `threads` threads in loops over the grid: capped, more only wait. */
static inline unsigned gpu_blocks(int64_t threads, unsigned per_block)
{
    const int64_t most = 65535 * 8, blocks = (threads + per_block - 1) / per_block;
    return (unsigned)(blocks < 1 ? 1 : blocks < most ? blocks : most);
}

/* V floats that are loaded and stored in one instruction: V is 1, 2 or 4. */
template <int V> struct alignas(4 * V) Floats {
    float at[V];
};

template <int V> MDL_DEVICE Floats<V> load_floats(const float *p)
{
    return *reinterpret_cast<const Floats<V> *>(p);
}

template <int V> MDL_DEVICE void store_floats(float *p, const Floats<V> &v)
{
    *reinterpret_cast<Floats<V> *>(p) = v;
}

/* Four neighbours of any type, loaded and stored in one instruction. */
template <class T> struct alignas(4 * sizeof(T)) Four {
    T at[4];
};

template <class T> MDL_DEVICE Four<T> load_four(const T *p)
{
    return *reinterpret_cast<const Four<T> *>(p);
}

template <class T> MDL_DEVICE void store_four(T *p, const Four<T> &v)
{
    *reinterpret_cast<Four<T> *>(p) = v;
}

template <int V, class T> static inline bool is_aligned(const T *p)
{
    return uintptr_t(p) % (V * sizeof(T)) == 0;
}

/* May V elements at a time be used for runs of n that begin at these pointers? */
template <int V = 4, class... Pointers> static inline bool is_vector(int64_t n, Pointers... p)
{
    return (is_aligned<V>(p) && ...) && n % V == 0;
}

/* 16-bit numbers: reading is exact, writing rounds to nearest even. */

MDL_DEVICE float mdl_from_bf16(uint16_t h)
{
    return __uint_as_float((uint32_t)h << 16);
}

MDL_DEVICE uint16_t mdl_to_bf16(float x)
{
    uint32_t pair;
    asm("cvt.rn.bf16x2.f32 %0, 0f00000000, %1;" : "=r"(pair) : "f"(x));
    return (uint16_t)pair;
}

MDL_DEVICE float mdl_round_bf16(float x)
{
    return mdl_from_bf16(mdl_to_bf16(x));
}

MDL_DEVICE float mdl_from_f16(uint16_t h)
{
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(h));
    return x;
}

MDL_DEVICE uint16_t mdl_to_f16(float x)
{
    uint16_t h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(x));
    return h;
}

MDL_DEVICE float mdl_round_f16(float x)
{
    return mdl_from_f16(mdl_to_f16(x));
}

MDL_DEVICE float mdl_fma(float a, float b, float c)
{
    return fmaf(a, b, c);
}

MDL_DEVICE float mdl_exp(float x)
{
    return expf(x);
}

MDL_DEVICE float mdl_log(float x)
{
    return logf(x);
}

/* log(1 + x) for x in [0, 1] */
MDL_DEVICE float mdl_log1p_unit(float x)
{
    return log1pf(x);
}

MDL_DEVICE float mdl_tanh(float x)
{
    return tanhf(x);
}

MDL_DEVICE float mdl_sqrt(float x)
{
    return sqrtf(x);
}

MDL_DEVICE float mdl_abs(float x)
{
    return fabsf(x);
}

MDL_DEVICE float mdl_sigmoid(float x)
{
    return 1 / (1 + mdl_exp(-x));
}

MDL_DEVICE float mdl_relu(float x)
{
    return x <= 0 ? 0 : x;
}

MDL_DEVICE float mdl_silu(float x)
{
    return x * mdl_sigmoid(x);
}

MDL_DEVICE float mdl_silu_grad(float x)
{
    const float s = mdl_sigmoid(x);
    return s + x * s * (1 - s);
}

/* x/2 (1 + tanh(u)) = x sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3) */
MDL_DEVICE float mdl_gelu(float x)
{
    const float twice = 1.5957691216057308f * (x + 0.044715f * x * x * x);
    return x * mdl_sigmoid(twice);
}

MDL_DEVICE float mdl_gelu_grad(float x)
{
    /* beyond 20 the sigmoid is 0 or 1 and its slope vanishes */
    float c = x > 20 ? 20 : x;
    c = c < -20 ? -20 : c;
    const float s = mdl_sigmoid(1.5957691216057308f * (c + 0.044715f * c * c * c));
    const float slope = 1.5957691216057308f * (1 + 0.134145f * c * c);
    return s + c * s * (1 - s) * slope;
}

/* Binary cross entropy of a logit: -y log(sigmoid(z)) - (1 - y) log(1 - sigmoid(z)). */
MDL_DEVICE float mdl_bce(float z, float y)
{
    return mdl_relu(z) - z * y + mdl_log1p_unit(mdl_exp(-mdl_abs(z)));
}

MDL_DEVICE float mdl_bce_grad(float z, float y)
{
    return mdl_sigmoid(z) - y;
}

/* The gradient dy of relu's result y, handed through where y is positive. */
MDL_DEVICE float mdl_relu_grad(float dy, float y)
{
    return y > 0 ? dy : 0;
}

/* dy with the sign of x; 0 where x is 0. */
MDL_DEVICE float mdl_sign_of(float dy, float x)
{
    return x > 0 ? dy : x < 0 ? -dy : 0;
}

#endif
