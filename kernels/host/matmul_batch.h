/* matmul_batch.h - the leading dimensions of a batched product: those that C has, and those over
 * which products are summed.
 */
#ifndef MDL_MATMUL_BATCH_H
#define MDL_MATMUL_BATCH_H

#include "kernels.h"

typedef struct {
    int rank;
    int64_t count;
    int64_t dim[8], a[8], b[8], c[8];
} BatchDims;

static inline void batch_add(BatchDims *d, int64_t dim, int64_t a, int64_t b, int64_t c)
{
    const int i = d->rank++;
    d->dim[i] = dim;
    d->a[i] = a;
    d->b[i] = b;
    d->c[i] = c;
    d->count *= dim;
}

/* Where the matrices of the index-th combination start. */
static inline void batch_offsets(const BatchDims *d, int64_t index, int64_t *a, int64_t *b,
                                 int64_t *c)
{
    for (int i = d->rank - 1; i >= 0; i--) {
        const int64_t at = index % d->dim[i];
        index /= d->dim[i];
        *a += at * d->a[i];
        *b += at * d->b[i];
        *c += at * d->c[i];
    }
}

/* Sorts the dimensions; false where there is nothing to compute. */
static inline bool batch_split(const MatmulBatch *batch, BatchDims *kept, BatchDims *summed)
{
    *kept = *summed = (BatchDims){.count = 1};
    for (int d = 0; d < batch->rank; d++)
        batch_add(batch->stride_c[d] != 0 || batch->dim[d] == 1 ? kept : summed, batch->dim[d],
                  batch->stride_a[d], batch->stride_b[d], batch->stride_c[d]);
    return kept->count > 0 && summed->count > 0;
}

#endif
