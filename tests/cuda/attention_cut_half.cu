/* attention_cut_half.cu - as attention_cut.cu, of 16-bit numbers. */
#define ATTENTION_ROOM 300
#define gpu_attention_backward_half gpu_attention_backward_half_cut
#define attention_backward_wide attention_backward_wide_cut
#include "attention_backward_half.cu"
