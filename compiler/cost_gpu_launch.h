/* cost_gpu_launch.h - what each launcher of kernels/cuda/ launches and moves, by the shapes of
 * its arguments. For cost_gpu*.c alone. */
#ifndef MDLC_COST_GPU_LAUNCH_H
#define MDLC_COST_GPU_LAUNCH_H

#include "cost_gpu.h"

enum {
    GPU_FLOAT = 4, /* bytes */
    GPU_HALF = 2,
    GPU_SQUARES = 8,                           /* of a sum of squares */
    GPU_ROOM = GPU_KERNEL_SCRATCH / GPU_FLOAT, /* floats in the scratch of kernels */
    GPU_INDEX_MOST = 0x7ffffc00                /* common.cuh: elements of a launch */
};

/* Where the numbers of a call go, `times` over; bytes of an element of its first operand and of
 * its first result, which are 2 where the kernel is one of gpu_half.h. */
typedef struct {
    Arena *arena;
    GpuWork *work;
    OpKind op;
    int64_t times;
    int in, out;
} Tally;

static inline int64_t ceil_div(int64_t a, int64_t b)
{
    return a / b + (a % b != 0);
}

static inline int64_t least_of(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static inline int64_t most_of(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* What is cut into pieces: `count` of `size` each. */
typedef struct {
    int64_t size, count;
} Pieces;

/* n in pieces of at most `most`, 1 or more: the whole ones, and what is left. */
static inline void cut_pieces(int64_t n, int64_t most, Pieces cut[2])
{
    cut[0] = (Pieces){most, n / most};
    cut[1] = (Pieces){n % most, n % most != 0};
}

/* What one call does, `times` over (cost_gpu.c). */
void tally_call(Arena *a, const Program *p, const Device *d, const Call *call, bool first,
                int64_t times, GpuWork *to);
/* `launches` kernels that read and write `bytes` in all. */
void tally_kernels(Tally *t, int64_t launches, double bytes);
void tally_copies(Tally *t, int64_t copies, double bytes);
void tally_gemm(Tally *t, GemmBy by, int64_t m, int64_t n, int64_t k, int64_t batch);

/* The strides of the batch dimensions of a product, 0 where an operand is broadcast. */
typedef struct {
    int rank;
    int64_t dim[MAX_RANK + 1], a[MAX_RANK + 1], b[MAX_RANK + 1], c[MAX_RANK + 1];
} ProductBatch;

void tally_linear(Tally *t, int64_t rows, int64_t n, int64_t k, bool bias);
void tally_product(Tally *t, int64_t m, int64_t n, int64_t k, bool accumulate);
void tally_matmul(Tally *t, bool ta, bool tb, int64_t m, int64_t n, int64_t k,
                  const ProductBatch *batch, bool accumulate);

/* The functions below take the bytes of one pass over all operands and results, `once`. */

/* again: bytes that are read a second time where rows are long. */
void tally_norm(Tally *t, int64_t rows, int64_t n, bool vector, double again, double once);
void tally_norm_dw(Tally *t, int64_t rows, int64_t n, bool bias, double once);
void tally_groupnorm_dw(Tally *t, int64_t samples, int64_t channels, double once);
void tally_softmax(Tally *t, int64_t n, double again, double once);
void tally_dropout(Tally *t, int64_t samples, int64_t n, double once);
/* Of rows whose values are averaged over `inner` of them. */
void tally_row_means(Tally *t, int64_t samples, int64_t inner, double once);
void tally_reduce(Tally *t, int rank, const int64_t *dim, unsigned mask, double once);
/* x and y begin `from` and `to` elements after a multiple of 64 bytes; strides are elements. */
void tally_copy(Tally *t, int rank, const int64_t *dim, const int64_t *ys, const int64_t *xs,
                int64_t to, int64_t from, int size);
/* rows: of dy; count: of the table. */
void tally_embedding_dw(Tally *t, int64_t rows, int64_t count, int64_t n, bool accumulate);

/* The one pass over all weights of a stage: what waits for the next launch. Begins as zeros. */
typedef struct {
    Tally t;
    bool rounds;         /* without sums of squares */
    int64_t count;       /* weights in the table */
    int64_t several;     /* weights whose sums are to be added up */
    int64_t tiles, sums; /* of the table; of those before it */
} UpdateTally;

/* The next weight, of n elements. */
void tally_update_weight(UpdateTally *u, int64_t n, double once);
void tally_update_end(UpdateTally *u);

/* x[B,C,H,W], w[K,C/groups,kernel,kernel], y[B,K,OH,OW] */
typedef struct {
    int64_t B, C, H, W, K, OH, OW;
    int64_t kernel, stride, pad, groups;
} ImageShape;

void tally_conv2d(Tally *t, const ImageShape *s, bool bias);
void tally_conv2d_dx(Tally *t, const ImageShape *s);
void tally_conv2d_dw(Tally *t, const ImageShape *s, bool accumulate);
void tally_pool(Tally *t, const ImageShape *s, double once);
void tally_maxpool2d_dx(Tally *t, const ImageShape *s, double once);
void tally_avgpool2d_dx(Tally *t, const ImageShape *s, double once);

#endif
