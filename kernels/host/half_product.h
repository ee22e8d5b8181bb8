/* half_product.h - products of matrices of 16-bit numbers: one tile of C, on one thread. */
#ifndef MDL_HALF_PRODUCT_H
#define MDL_HALF_PRODUCT_H

#include "half.h"
#include "micro.h"

/* op(A)[m,k] op(B)[k,n], as in gemm(). */
typedef struct {
    HalfKind kind;
    bool ta, tb;
    const half16 *A;
    int64_t lda;
    const half16 *B;
    int64_t ldb;
} HalfFactors;

/* A tile of C: floats, or 16-bit numbers whose sums wait in the scratch until they are complete. */
typedef struct {
    float *wide;
    half16 *half;
    int64_t ld;
    const float *col_bias; /* may be NULL; only with half */
} HalfTile;

/* C[M,N], N <= TILE_N and M <= TILE_M, or what half_tiles gives where one call does it all.
 * Products may be added up over several calls with one
 * tile: `first` begins the sums, `last` completes them. Where C is wide and !first, they are
 * added to C. `scratch` is a thread's whole scratch, aligned to 64. */
void half_tile_product(void *scratch, const HalfFactors *f, int64_t M, int64_t N, int64_t K,
                       const HalfTile *c, bool first, bool last);

/* How a product of M x N x K is cut into tiles. */
Tiles half_tiles(const HalfFactors *f, int64_t M, int64_t N, int64_t K);

#endif
