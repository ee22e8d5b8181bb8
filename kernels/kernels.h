/* kernels.h - what one device computes: the numerical kernels of mdlc.
 *
 * Generated stage code calls these functions and nothing else to compute. Every
 * tensor is row-major and contiguous; `rows`, `B`, `C`, `H`, `W` count elements,
 * never bytes. Kernels do not fail: every shape they are called with was checked
 * when the model was compiled, and every integer that indexes a table was
 * checked when the sample was loaded.
 *
 * Determinism. A kernel's result depends on its arguments alone: work is cut into
 * tiles by the shapes, every tile is computed by one thread in a fixed order, and
 * partial results are combined in tile order. The number of threads in the team
 * decides who computes a tile, never what is computed. A sample's result does not
 * depend on which stage or how many threads computed it.
 *
 * The library is built twice: with `real` as float (libmdl_kernels.a) and, with
 * -DMDL_F64, as double (libmdl_kernels_f64.a), which is for checking gradients.
 */
#ifndef MDL_KERNELS_H
#define MDL_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef MDL_F64
typedef double real;
#else
typedef float real;
#endif

/* ------------------------------------------------------------------ the team */

/* The threads of one device: the caller and `threads - 1` helpers. */
typedef struct Team Team;

/* Scratch that every thread of a team owns, in bytes; kernels that need more cut
 * their work so that a tile's scratch fits. Counted by the plan, per thread. */
enum { TEAM_SCRATCH = 1 << 20 };

/* `threads` >= 1. Helpers spin for a short while before they sleep when `spin` is
 * true (right when there are at least as many cores as threads of all devices).
 * NULL when memory or threads run out. */
Team *team_new(int threads, bool spin);
void team_free(Team *team);
int team_threads(const Team *team);

/* Runs fn(ctx, tile) for every tile in [0, tiles), each once, on some thread of the
 * team; returns when all are done. Not reentrant. With one tile or one thread the
 * caller runs everything itself. */
typedef void TeamFn(void *ctx, int64_t tile);
void team_run(Team *team, int64_t tiles, TeamFn *fn, void *ctx);

/* Inside a tile: the calling thread's scratch, TEAM_SCRATCH bytes, 64-byte aligned. */
void *team_scratch(Team *team);

/* Runs fn(ctx, from, to) over [0, n) in blocks of `grain` (the last is shorter):
 * what generated element-wise loops use. */
typedef void RangeFn(void *ctx, int64_t from, int64_t to);
void team_range(Team *team, int64_t n, int64_t grain, RangeFn *fn, void *ctx);

/* ----------------------------------------------------------- matrix products */

/* C[M,N] = op(A) op(B) + (accumulate ? C : 0), with op(A)[M,K], op(B)[K,N];
 * ta: A is stored [K,M]; tb: B is stored [N,K]. lda, ldb, ldc are row strides in
 * elements. Cut into tiles of C by (M, N, K) alone; a tile is computed by one thread,
 * which adds up K in blocks of fixed size. C overlaps neither A nor B. */
void gemm(Team *team, bool ta, bool tb, int64_t M, int64_t N, int64_t K, const real *A, int64_t lda,
          const real *B, int64_t ldb, bool accumulate, real *C, int64_t ldc);

/* y[rows,n] = x[rows,k] w[n,k]^T + b[n]; b may be NULL.
 * transposed: w is stored [k,n]. */
void linear_forward(Team *team, real *y, const real *x, const real *w, const real *b, int64_t rows,
                    int64_t k, int64_t n, bool transposed);
/* dx[rows,k] = dy[rows,n] w */
void linear_backward_input(Team *team, real *dx, const real *dy, const real *w, int64_t rows,
                           int64_t k, int64_t n, bool transposed);
/* dw = dy^T x (+ dw), in w's own layout */
void linear_backward_weight(Team *team, real *dw, const real *dy, const real *x, int64_t rows,
                            int64_t k, int64_t n, bool transposed, bool accumulate);

/* Batched products with broadcasting. For every index of the `rank` (<= 8) leading
 * dimensions dim[], c = op(a) op(b) where a, b, c start at the sum of index x stride
 * (elements; 0 where an operand is broadcast). op(a)[m,k], op(b)[k,n]; contiguous
 * matrices. Where stride_c is 0 the products of that dimension are summed, in index
 * order. accumulate adds to what c held before the call. */
typedef struct {
    int rank;
    int64_t dim[8], stride_a[8], stride_b[8], stride_c[8];
} MatmulBatch;
void matmul(Team *team, real *c, const real *a, const real *b, bool ta, bool tb, int64_t m,
            int64_t n, int64_t k, const MatmulBatch *batch, bool accumulate);

/* What happens to a result while it is in the cache: when all of the elements [from, to) of
 * row `row` are computed and stored, the thread that computed them calls fn(args, row, from, to).
 * A Tail with fn == NULL, and NULL itself, mean nothing. */
typedef void TailFn(void *args, int64_t row, int64_t from, int64_t to);
typedef struct {
    TailFn *fn;
    void *args;
} Tail;

/* linear_forward and linear_backward_input with a tail: its rows are those of y (n elements)
 * and of dx (k elements). */
void linear_forward_then(Team *team, real *y, const real *x, const real *w, const real *b,
                         int64_t rows, int64_t k, int64_t n, bool transposed, const Tail *tail);
void linear_backward_input_then(Team *team, real *dx, const real *dy, const real *w, int64_t rows,
                                int64_t k, int64_t n, bool transposed, const Tail *tail);

/* ----------------------------------------------------------------- attention */

/* Shapes of scaled dot-product attention. For every sample b < B, head h < heads and
 * query i < t, with group g = h / (heads / kv_heads):
 *
 *     o[b, i, h] = sum over j of p[j] v[b, j, g],  p = softmax over j of q[b, i, h] . k[b, j, g] /
 * sqrt(width)
 *
 * over the keys j < s, or j <= i where causal. q, o [B, t, heads, width]; k, v [B, s, kv_heads,
 * width]; from one position to the next it is ldq, ldk, ldv elements (and from one sample to
 * the next t or s times as many), so that the three may lie side by side in one tensor;
 * o is contiguous. width is even where it is rotated. */
typedef struct {
    int64_t B, t, s, heads, kv_heads, width;
    int64_t ldq, ldk, ldv;
    bool causal;
} Attention;

/* lse[B, heads, t] = the logarithm of the sum of exponentials of a query's scores, kept for the
 * backward pass. In tiles of queries and keys as FlashAttention-2 (Dao 2023): no matrix of
 * scores is held beyond a tile. */
void attention_forward(Team *team, real *o, real *lse, const real *q, const real *k, const real *v,
                       const Attention *a);
/* dq, dk, dv lie as q, k, v do (the strides are the same). Scores are computed again from lse. */
void attention_backward(Team *team, real *dq, real *dk, real *dv, const real *dout, const real *q,
                        const real *k, const real *v, const real *o, const real *lse,
                        const Attention *a);

/* Rotary position embedding (Su et al. 2021), halves rotated as in Llama: of x[B, t, heads, width]
 * elements c and c + width / 2 of a head at position i turn by the angle i * base^(-2 c / width);
 * inverse turns back, which is also the gradient. y == x is allowed. */
void rope(Team *team, real *y, const real *x, int64_t B, int64_t t, int64_t heads, int64_t width,
          double base, bool inverse);

/* --------------------------------------------------------------- convolution */

/* Shapes of a 2-d convolution or pooling: x[B,C,H,W] -> y[B,K,OH,OW] with
 * OH = (H + 2 pad - kernel) / stride + 1 and likewise OW. Pooling has K == C,
 * groups == C and pads with nothing (maximum) or does not count the padding. */
typedef struct {
    int64_t B, C, H, W, K, OH, OW;
    int64_t kernel, stride, pad, groups;
} Conv2d;

/* w[K, C/groups, kernel, kernel]; b[K] may be NULL. relu: y = max(0, y), fused. */
void conv2d_forward(Team *team, real *y, const real *x, const real *w, const real *b,
                    const Conv2d *s, bool relu);
void conv2d_backward_input(Team *team, real *dx, const real *dy, const real *w, const Conv2d *s);
void conv2d_backward_weight(Team *team, real *dw, const real *dy, const real *x, const Conv2d *s,
                            bool accumulate);

/* Ties go to the first element of a window in row-major order. */
void maxpool2d_forward(Team *team, real *y, const real *x, const Conv2d *s);
void maxpool2d_backward(Team *team, real *dx, const real *dy, const real *x, const Conv2d *s);
void avgpool2d_forward(Team *team, real *y, const real *x, const Conv2d *s);
void avgpool2d_backward(Team *team, real *dx, const real *dy, const Conv2d *s);

/* ------------------------------------------------------------- normalisation */

/* Over the last dimension n of x[rows,n]; mean[rows] and rstd[rows] are kept for the
 * backward pass. b and db may be NULL. */
void layernorm_forward(Team *team, real *y, real *mean, real *rstd, const real *x, const real *w,
                       const real *b, int64_t rows, int64_t n, real eps);
void layernorm_backward_input(Team *team, real *dx, const real *dy, const real *x, const real *w,
                              const real *mean, const real *rstd, int64_t rows, int64_t n);
void layernorm_backward_weight(Team *team, real *dw, real *db, const real *dy, const real *x,
                               const real *mean, const real *rstd, int64_t rows, int64_t n,
                               bool accumulate);

/* layernorm_backward_input with a tail over the rows of dx. */
void layernorm_backward_input_then(Team *team, real *dx, const real *dy, const real *x,
                                   const real *w, const real *mean, const real *rstd, int64_t rows,
                                   int64_t n, const Tail *tail);

/* y = x / sqrt(mean(x^2) + eps) * w */
void rmsnorm_forward(Team *team, real *y, real *rstd, const real *x, const real *w, int64_t rows,
                     int64_t n, real eps);
void rmsnorm_backward_input(Team *team, real *dx, const real *dy, const real *x, const real *w,
                            const real *rstd, int64_t rows, int64_t n);
void rmsnorm_backward_weight(Team *team, real *dw, const real *dy, const real *x, const real *rstd,
                             int64_t rows, int64_t n, bool accumulate);

void rmsnorm_backward_input_then(Team *team, real *dx, const real *dy, const real *x, const real *w,
                                 const real *rstd, int64_t rows, int64_t n, const Tail *tail);

/* x[B,C,inner] in `groups` groups of channels; mean and rstd are [B,groups]. */
void groupnorm_forward(Team *team, real *y, real *mean, real *rstd, const real *x, const real *w,
                       const real *b, int64_t B, int64_t C, int64_t inner, int64_t groups,
                       real eps);
void groupnorm_backward_input(Team *team, real *dx, const real *dy, const real *x, const real *w,
                              const real *mean, const real *rstd, int64_t B, int64_t C,
                              int64_t inner, int64_t groups);
void groupnorm_backward_weight(Team *team, real *dw, real *db, const real *dy, const real *x,
                               const real *mean, const real *rstd, int64_t B, int64_t C,
                               int64_t inner, int64_t groups, bool accumulate);

/* ----------------------------------------------- tables, softmax, random, loss */

/* y[rows,n] = w[ids[row], :]; 0 <= id < count was checked when the ids were loaded. */
void embedding_forward(Team *team, real *y, const int32_t *ids, const real *w, int64_t rows,
                       int64_t n);
/* dw[count,n] (+)= the rows of dy summed by id, in row order. */
void embedding_backward_weight(Team *team, real *dw, const real *dy, const int32_t *ids,
                               int64_t rows, int64_t count, int64_t n, bool accumulate);

void softmax_forward(Team *team, real *y, const real *x, int64_t rows, int64_t n);
void softmax_backward(Team *team, real *dx, const real *dy, const real *y, int64_t rows, int64_t n);

/* The stream of random numbers of one layer in one step (Philox4x32-10, Salmon et
 * al. 2011): element e of sample i is kept when its 32-bit number, counted by
 * (i, e), is at least p * 2^32; kept values are scaled by 1 / (1 - p). p = 1 gives
 * zeros. The number is word e / 16 % 4 of philox(counter (e / 64 * 16 + e % 16, i), key),
 * both halves of the counter in 64 bits, low word first. x[samples, n]; `first` is the number
 * of x's first sample in the batch. The backward pass is the same call on the gradient.
 * y == x is allowed. */
void dropout(Team *team, real *y, const real *x, double p, uint64_t key, int64_t first,
             int64_t samples, int64_t n);

/* Cross entropy of logits[samples*inner, n] against y[samples*inner]: loss[samples],
 * the mean over a sample's `inner` rows; lse[samples*inner] = log sum exp, kept. */
void cross_entropy_forward(Team *team, real *loss, real *lse, const real *logits, const int32_t *y,
                           int64_t samples, int64_t inner, int64_t n);
/* dlogits = (softmax(logits) - onehot(y)) * dloss[sample] / inner. dlogits == logits is
 * allowed. */
void cross_entropy_backward(Team *team, real *dlogits, const real *logits, const real *lse,
                            const int32_t *y, const real *dloss, int64_t samples, int64_t inner,
                            int64_t n);
/* acc[samples]: the share of a sample's rows whose largest logit is at y (first of ties). */
void accuracy_forward(Team *team, real *acc, const real *logits, const int32_t *y, int64_t samples,
                      int64_t inner, int64_t n);

/* --------------------------------------------------- reductions and movement */

/* Reduces x of `rank` dims (at most 9: eight and the batch) to the dims whose bit is clear in
 * `mask` (bit d: dimension d is reduced), times scale, in row-major order within an output
 * element up to fixed tiles. y is contiguous over the dims kept. accumulate adds to y. */
void reduce_sum(Team *team, real *y, const real *x, int rank, const int64_t *dim, unsigned mask,
                double scale, bool accumulate);
void reduce_max(Team *team, real *y, const real *x, int rank, const int64_t *dim, unsigned mask);
/* dx = dy at the first maximal element of each reduced set, 0 elsewhere. */
void reduce_max_backward(Team *team, real *dx, const real *dy, const real *x, const real *y,
                         int rank, const int64_t *dim, unsigned mask);

/* y[index . ystride] = x[index . xstride] over all indices of dim[rank], elements of
 * `size` bytes (1, 2, 4 or 8); strides in elements, 0 repeats (in x). Transposes, slices,
 * concatenations and broadcasts. */
void copy_strided(Team *team, void *y, const void *x, int rank, const int64_t *dim,
                  const int64_t *ystride, const int64_t *xstride, int size);

void fill(Team *team, real *y, real value, int64_t n);
void arange_fill(int32_t *y, int64_t n);
/* y += x */
void accumulate_into(Team *team, real *y, const real *x, int64_t n);

/* ------------------------------------------------------------------ optimizers */

/* The numbers of this step, the same on every stage. grad_scale multiplies every
 * gradient before use (clipping). */
typedef struct {
    double lr, momentum, weight_decay, beta1, beta2, eps;
    double grad_scale;
    int64_t step; /* from 1 */
    bool nesterov;
} Hyper;

/* Each updates w[n] in one pass and returns the sum of squares of the unscaled
 * gradient, in double, by fixed tiles. As PyTorch's SGD (dampening 0; the first step
 * sets the buffer to the gradient), Adam (no decay) and AdamW (decoupled decay).
 * velocity may be NULL when momentum is 0. */
double sgd_update(Team *team, real *w, const real *g, real *velocity, int64_t n, const Hyper *h);
double adam_update(Team *team, real *w, const real *g, real *m, real *v, int64_t n, const Hyper *h);
double adamw_update(Team *team, real *w, const real *g, real *m, real *v, int64_t n,
                    const Hyper *h);
double sum_squares(Team *team, const real *g, int64_t n);

/* --------------------------------------------------------------- random numbers */

/* Philox4x32-10: out = philox(counter, key). */
void philox(uint32_t out[4], const uint32_t counter[4], const uint32_t key[2]);

#endif
