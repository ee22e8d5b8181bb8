/* vec.h - one register full of `real` as one value, for kernels that reduce.
 *
 * The width is that of the processor the kernels are compiled for, and with it the order
 * of sums: fixed for a build, whatever the team. VL is the number of lanes.
 */
#ifndef MDL_VEC_H
#define MDL_VEC_H

#include "kernels.h"

#ifdef MDL_F64
typedef int64_t LaneInt;
#else
typedef int32_t LaneInt;
#endif

#if defined(__AVX512F__)
#define MDL_VECTOR_BYTES 64
#elif defined(__AVX__)
#define MDL_VECTOR_BYTES 32
#else
#define MDL_VECTOR_BYTES 16
#endif

typedef LaneInt VecInt __attribute__((vector_size(MDL_VECTOR_BYTES), may_alias));
typedef real Vec __attribute__((vector_size(MDL_VECTOR_BYTES), may_alias));
typedef real VecAnywhere
    __attribute__((vector_size(MDL_VECTOR_BYTES), aligned(sizeof(real)), may_alias));

enum { VL = (int)(MDL_VECTOR_BYTES / sizeof(real)) };

#define VEC_INLINE static inline __attribute__((always_inline))

VEC_INLINE Vec vec_load(const real *p)
{
    return *(const VecAnywhere *)p;
}

VEC_INLINE void vec_store(real *p, Vec v)
{
    *(VecAnywhere *)p = v;
}

VEC_INLINE Vec vec_all(real x)
{
    return x - (Vec){0};
}

/* Lane by lane: yes where mask is all ones, no where it is all zeros. */
VEC_INLINE Vec vec_choose(VecInt mask, Vec yes, Vec no)
{
    return (Vec)((mask & (VecInt)yes) | (~mask & (VecInt)no));
}

/* Sum of the lanes as a balanced tree: the upper half onto the lower, again and again. */
VEC_INLINE real vec_sum(Vec v)
{
    VecInt lane;
    for (int i = 0; i < VL; i++)
        lane[i] = i;
    for (int width = VL / 2; width > 0; width /= 2)
        v += __builtin_shuffle(v, (lane + width) & (VL - 1));
    return v[0];
}

static inline int64_t int_min(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static inline int64_t int_max(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static inline int64_t int_ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* Sums over n contiguous elements, in an order fixed by n. */
real row_sum(const real *x, int64_t n);
real row_dot(const real *x, const real *y, int64_t n);
/* sum of (x - mean)^2 */
real row_square_distance(const real *x, real mean, int64_t n);
/* the largest element; NaN where there is one; n >= 1 */
real row_max(const real *x, int64_t n);

#endif
