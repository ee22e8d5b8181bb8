/* attention_cut.cu - the gradients of attention where scratch has room for 200 numbers, under
 * names of their own: shapes that do not fit real scratch are too large for a test.
 */
#define ATTENTION_ROOM 200
#define gpu_attention_backward gpu_attention_backward_cut
#define attention_backward_wide attention_backward_wide_cut
#include "attention_backward.cu"
