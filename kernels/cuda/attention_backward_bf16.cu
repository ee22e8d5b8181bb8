/* attention_backward_bf16.cu - the gradients of attention of 16-bit numbers: the call, and what it
 * does in bf16. In f16 that is a file of its own, since a compiler takes long for either.
 */
#include "attention_backward_half.cuh"

extern "C" int gpu_attention_backward_half(const Gpu *gpu, HalfKind kind, half16 *dq, half16 *dk,
                                           half16 *dv, const half16 *dout, const half16 *q,
                                           const half16 *k, const half16 *v, const half16 *o,
                                           const float *lse, const Attention *a)
{
    if (attention_is_empty(a))
        return 0;
    if (!attention_fits(a))
        return (int)cudaErrorInvalidValue;
    const bool vector = attention_is_vector(a, 8, dq, dk, dv, dout, q, k, v, o);
    BackwardHalf b = {attention_shape(a, vector),
                      {dq, kind},
                      {dk, kind},
                      {dv, kind},
                      {dout, kind},
                      {q, kind},
                      {k, kind},
                      {v, kind},
                      {o, kind},
                      lse,
                      NULL,
                      0};
    b.a.slices = (int)ceil_div(a->width, WIDE);
    const int64_t heads = a->B * a->kv_heads;
    return kind == HALF_BF16 ? backward_half<HALF_BF16>(gpu, b, heads)
                             : attention_backward_f16(gpu, b, heads);
}
