/* half.cuh - 16-bit numbers as kernels see them: a pointer that reads and writes floats.
 *
 * Halves carries the kind of its numbers, so kernels that are templates over a pointer serve
 * float, bf16 and f16 alike, and one kernel serves both kinds: every thread has the same kind in
 * a constant, which is a predicate and no branch, so that loads stay in flight together. Reading is
 * exact; writing rounds to nearest even and makes of every NaN the same.
 */
#ifndef MDL_HALF_CUH
#define MDL_HALF_CUH

#include "half.h"
#include "map.cuh"

template <class T> struct HalfPointer {
    T *at;
    HalfKind kind;

    __host__ __device__ __forceinline__ HalfPointer operator+(int64_t n) const
    {
        return {at + n, kind};
    }
};
typedef HalfPointer<half16> Halves;
typedef HalfPointer<const half16> ConstHalves;

template <int V, class T> static inline bool is_aligned(const HalfPointer<T> &p)
{
    return is_aligned<V>(p.at);
}

/* Elements of 16 bytes of what a pointer points to. */
template <class Pointer> constexpr int VECTOR = 4;
template <class T> constexpr int VECTOR<HalfPointer<T>> = 8;

static_assert(HALF_BF16 == 0, "what is not 0 is f16");

/* Both numbers of a word, the first in its lower half. */
MDL_DEVICE void widen_pair(HalfKind kind, uint32_t word, float &first, float &second)
{
    asm("{ .reg .pred f16;\n"
        "  .reg .b16 low, high;\n"
        "  setp.ne.u32 f16, %3, 0;\n"
        "  mov.b32 {low, high}, %2;\n"
        "  shl.b32 %0, %2, 16;\n"
        "  and.b32 %1, %2, 0xffff0000;\n"
        "  @f16 cvt.f32.f16 %0, low;\n"
        "  @f16 cvt.f32.f16 %1, high; }"
        : "=&f"(first), "=&f"(second)
        : "r"(word), "r"((uint32_t)kind));
}

MDL_DEVICE uint32_t round_pair(HalfKind kind, float first, float second)
{
    uint32_t word;
    asm("{ .reg .pred f16;\n"
        "  setp.ne.u32 f16, %3, 0;\n"
        "  cvt.rn.bf16x2.f32 %0, %2, %1;\n"
        "  @f16 cvt.rn.f16x2.f32 %0, %2, %1; }"
        : "=&r"(word)
        : "f"(first), "f"(second), "r"((uint32_t)kind));
    return word;
}

/* V numbers in words, V even. */
template <int V> struct alignas(2 * V) HalfWords {
    uint32_t at[V / 2];
};

template <int V, class T> MDL_DEVICE Floats<V> load_floats(const HalfPointer<T> &p)
{
    Floats<V> v;
    if constexpr (V == 1) {
        float none;
        widen_pair(p.kind, *p.at, v.at[0], none);
    } else {
        const HalfWords<V> words = *reinterpret_cast<const HalfWords<V> *>(p.at);
#pragma unroll
        for (int i = 0; i < V / 2; i++)
            widen_pair(p.kind, words.at[i], v.at[2 * i], v.at[2 * i + 1]);
    }
    return v;
}

template <int V> MDL_DEVICE void store_floats(const Halves &p, const Floats<V> &v)
{
    if constexpr (V == 1) {
        *p.at = (half16)round_pair(p.kind, v.at[0], 0);
    } else {
        HalfWords<V> words;
#pragma unroll
        for (int i = 0; i < V / 2; i++)
            words.at[i] = round_pair(p.kind, v.at[2 * i], v.at[2 * i + 1]);
        *reinterpret_cast<HalfWords<V> *>(p.at) = words;
    }
}

#endif
