/* attention_cut_half.cu - as attention_cut.cu, in bf16. */
#define ATTENTION_ROOM 200
#define gpu_attention_backward_half gpu_attention_backward_half_cut
#include "attention_backward_bf16.cu"
