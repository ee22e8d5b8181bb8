/* rope.cu - rotary position embedding (Su et al. 2021), in one pass.
 *
 * Elements c and c + width / 2 of every head at position i turn by the angle i base^(-2 c / width).
 * A block has one position and some of its rows (a row is a head of a sample), and computes the
 * sines and cosines that these share once, into shared memory, as many as have room at a time.
 * Angles are reduced in double: they grow with the position, and only what they exceed whole turns
 * by counts.
 */
#include "common.cuh"
#include "gpu_half.h"
#include "half.cuh"

enum { BLOCK = 256, PAIRS = 1024 /* whose turns have room */, EACH = 8 /* vectors of a thread */ };

template <class To, class From> struct Rope {
    To y;
    From x;
    int64_t t, heads, rows; /* rows: of one position */
    int64_t part;           /* rows of a block */
    int64_t cuts;           /* blocks of a position */
    int64_t first;          /* block of this launch */
    int half, across;       /* pairs of a row; vectors of as many as have room */
    Divider by_across, by_heads;
    double step; /* log2 of the ratio of one pair's angle to the next one's */
    float sign;
};

/* Turns of `count` pairs from `from` on. */
MDL_DEVICE void find_turns(float *cosine, float *sine, int from, int count, double position,
                           double step, float sign)
{
    for (int i = threadIdx.x; i < count; i += BLOCK) {
        /* in half turns, of which an even number changes nothing */
        const double angle = position * exp2((from + i) * step) * 0.31830988618379067;
        const float rest = (float)(angle - 2 * rint(angle / 2));
        float s;
        sincospif(rest, &s, &cosine[i]);
        sine[i] = sign * s;
    }
}

template <int V, class To, class From>
static __global__ void __launch_bounds__(BLOCK) rope_rows(const Rope<To, From> v)
{
    __shared__ Floats<V> cosine[PAIRS / V], sine[PAIRS / V];
    const int64_t number = v.first + blockIdx.x, position = number / v.cuts;
    const int64_t begin = (number - position * v.cuts) * v.part;
    const int rows = (int)(v.rows - begin < v.part ? v.rows - begin : v.part);
    for (int from = 0; from < v.half; from += PAIRS) {
        const int count = min(PAIRS, v.half - from);
        if (from > 0)
            __syncthreads();
        find_turns(cosine[0].at, sine[0].at, from, count, (double)position, v.step, v.sign);
        __syncthreads();
        for (int i = threadIdx.x; i < rows * v.across; i += BLOCK) {
            int c;
            const int64_t row = begin + divide_rest(i, v.by_across, &c);
            if (c * V >= count)
                continue;
            const int64_t sample = divide_large(row, v.by_heads), head = row - sample * v.heads;
            const int64_t at =
                ((sample * v.t + position) * v.heads + head) * 2 * v.half + from + c * V;
            const Floats<V> a = load_floats<V>(v.x + at), b = load_floats<V>(v.x + (at + v.half));
            const Floats<V> k = cosine[c], s = sine[c];
            Floats<V> first, second;
#pragma unroll
            for (int e = 0; e < V; e++) {
                first.at[e] = a.at[e] * k.at[e] - b.at[e] * s.at[e];
                second.at[e] = b.at[e] * k.at[e] + a.at[e] * s.at[e];
            }
            store_floats(v.y + at, first);
            store_floats(v.y + (at + v.half), second);
        }
    }
}

template <class To, class From>
static int rope(const Gpu *gpu, To y, From x, int64_t B, int64_t t, int64_t heads, int64_t width,
                double base, bool inverse)
{
    if (B <= 0 || t <= 0 || heads <= 0 || width <= 1)
        return 0;
    if (width > INDEX_MOST || heads > INDEX_MOST)
        return (int)cudaErrorInvalidValue;
    constexpr int V = VECTOR<To>;
    const int64_t half = width / 2, rows = B * heads;
    const bool vector = half % V == 0 && is_vector(half, y, x);
    Rope<To, From> r = {};
    r.y = y;
    r.x = x;
    r.t = t;
    r.heads = heads;
    r.rows = rows;
    r.across = (int)int_min(half, PAIRS) / (vector ? V : 1);
    r.by_across = divider_new(r.across);
    r.by_heads = divider_new(heads);
    r.part = int_max(1, EACH * BLOCK / r.across);
    r.cuts = ceil_div(rows, r.part);
    r.half = (int)half;
    r.step = -log2(base) / (double)half;
    r.sign = inverse ? -1 : 1;
    for (r.first = 0; r.first < r.cuts * t; r.first += INT32_MAX) {
        const unsigned blocks = (unsigned)int_min(INT32_MAX, r.cuts * t - r.first);
        const auto kernel = vector ? rope_rows<V, To, From> : rope_rows<1, To, From>;
        kernel<<<blocks, BLOCK, 0, gpu->compute>>>(r);
        const int status = launch_status();
        if (status != 0)
            return status;
    }
    return 0;
}

extern "C" int gpu_rope(const Gpu *gpu, float *y, const float *x, int64_t B, int64_t t,
                        int64_t heads, int64_t width, double base, bool inverse)
{
    return rope(gpu, y, x, B, t, heads, width, base, inverse);
}

extern "C" int gpu_rope_half(const Gpu *gpu, HalfKind kind, half16 *y, const half16 *x, int64_t B,
                             int64_t t, int64_t heads, int64_t width, double base, bool inverse)
{
    return rope(gpu, Halves{y, kind}, ConstHalves{x, kind}, B, t, heads, width, base, inverse);
}
