/* attention_back.cuh - what the gradients of attention share, whatever their numbers: delta, the
 * sum of dout o of every query, in scratch; what of a query the other kernels need; and the pieces
 * that a call is cut into, as many heads at a time as their deltas fit scratch. Where those of one
 * group of heads do not, deltas are computed where they are used.
 */
#ifndef MDL_ATTENTION_BACK_CUH
#define MDL_ATTENTION_BACK_CUH

#include "attention.cuh"
#include "half.cuh"

#ifndef ATTENTION_ROOM
#define ATTENTION_ROOM (GPU_SCRATCH / (int64_t)sizeof(float))
#endif

enum { DELTA_ROWS = 8 /* of a block */ };

/* To and From: pointers to float or to halves. */
template <class To, class From> struct Backward {
    AttentionShape a;
    To dq, dk, dv;
    From dout, q, k, v, o;
    const float *lse;
    float *delta; /* of the heads from delta_head on; NULL: none has been computed */
    int64_t delta_head;
};

/* Where position 0 of a head lies: `head` counts those of all samples, of which each has `heads`.
 */
MDL_DEVICE int64_t head_at(const AttentionShape &a, int64_t head, int64_t heads, int64_t positions,
                           int64_t ld)
{
    const int64_t sample = head / heads;
    return sample * positions * ld + (head - sample * heads) * a.width;
}

template <int V, class From>
static __global__ void __launch_bounds__(WARP *DELTA_ROWS)
    attention_delta(const AttentionShape a, float *delta, From dout, From o, int64_t rows)
{
    const int64_t row = (int64_t)blockIdx.x * DELTA_ROWS + threadIdx.y;
    if (row >= rows)
        return;
    const int64_t head = row / a.t;
    const int64_t at =
        head_at(a, a.first_head + head, a.heads, a.t, a.ldo) + (row - head * a.t) * a.ldo;
    float sum = 0;
    for (int c = threadIdx.x * V; c < a.width; c += WARP * V) {
        const Floats<V> x = load_floats<V>(dout + (at + c)), y = load_floats<V>(o + (at + c));
#pragma unroll
        for (int e = 0; e < V; e++)
            sum = fmaf(x.at[e], y.at[e], sum);
    }
    sum = warp_reduce<Sum>(sum);
    if (threadIdx.x == 0)
        delta[row] = sum;
}

/* Of one query of a head, whose first row of dout and o lies `at` there. */
template <class To, class From>
MDL_DEVICE float delta_here(const Backward<To, From> &v, int64_t head, int64_t query, int64_t at)
{
    if (v.delta)
        return v.delta[(head - v.delta_head) * v.a.t + query];
    const From x = v.dout + (at + query * v.a.ldo), y = v.o + (at + query * v.a.ldo);
    float sum = 0;
#pragma unroll 1
    for (int c = 0; c < v.a.width; c++)
        sum = fmaf(load_floats<1>(x + c).at[0], load_floats<1>(y + c).at[0], sum);
    return sum;
}

/* run(v, first, count) for all key/value heads, `count` at a time; first_head counts query heads.
 */
template <class To, class From, class Run>
static int backward_in_pieces(const Gpu *gpu, Backward<To, From> v, int64_t heads, Run run)
{
    const int64_t each = v.a.group * v.a.t, fit = ATTENTION_ROOM / each, most = fit ? fit : heads;
    for (int64_t first = 0; first < heads; first += most) {
        const int64_t count = int_min(most, heads - first);
        v.a.first_head = v.delta_head = first * v.a.group;
        if (fit > 0) {
            v.delta = reinterpret_cast<float *>(gpu->scratch);
            const auto kernel =
                v.a.vector ? attention_delta<VECTOR<From>, From> : attention_delta<1, From>;
            const unsigned blocks = (unsigned)ceil_div(count * each, DELTA_ROWS);
            kernel<<<blocks, dim3(WARP, DELTA_ROWS), 0, gpu->compute>>>(v.a, v.delta, v.dout, v.o,
                                                                        count * each);
            const int status = launch_status();
            if (status != 0)
                return status;
        }
        const int status = run(v, first, count);
        if (status != 0)
            return status;
    }
    return 0;
}

typedef Backward<Halves, ConstHalves> BackwardHalf;

/* In f16, of so many key/value heads, those of all samples. */
int attention_backward_f16(const Gpu *gpu, const BackwardHalf &b, int64_t heads);

#endif
