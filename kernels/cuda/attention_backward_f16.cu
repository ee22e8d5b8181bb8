/* attention_backward_f16.cu - the gradients of attention in f16: attention_backward_half.cuh. */
#include "attention_backward_half.cuh"

int attention_backward_f16(const Gpu *gpu, const BackwardHalf &b, int64_t heads)
{
    return backward_half<HALF_F16>(gpu, b, heads);
}
