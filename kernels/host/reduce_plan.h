/* reduce_plan.h - how a reduction over any set of dimensions walks through its tensor.
 *
 * Dimensions of 1 are dropped and neighbours of one kind merged, so that kept and
 * reduced dimensions alternate.
 */
#ifndef MDL_REDUCE_PLAN_H
#define MDL_REDUCE_PLAN_H

#include <string.h>

#include "kernels.h"

enum { REDUCE_RANK = 9 /* eight and the batch */ };

typedef struct {
    int rank;
    int64_t count;
    int64_t dim[REDUCE_RANK], stride[REDUCE_RANK];
} Walk;

typedef struct {
    bool across;        /* the last dimension is kept */
    int64_t run;        /* elements of the last dimension */
    Walk kept, reduced; /* without the last dimension */
} ReducePlan;

static inline int64_t walk_offset(const Walk *w, int64_t index)
{
    int64_t offset = 0;
    for (int d = w->rank - 1; d >= 0; d--) {
        offset += index % w->dim[d] * w->stride[d];
        index /= w->dim[d];
    }
    return offset;
}

static inline void reduce_plan(ReducePlan *r, int rank, const int64_t *dim, unsigned mask)
{
    int64_t size[REDUCE_RANK], total = 0;
    bool cut[REDUCE_RANK];
    int n = 0;
    for (int d = 0; d < rank; d++) {
        const bool reduced = mask >> d & 1;
        if (dim[d] == 1)
            continue;
        if (n > 0 && cut[n - 1] == reduced) {
            size[n - 1] *= dim[d];
            continue;
        }
        size[n] = dim[d];
        cut[n++] = reduced;
    }
    if (n == 0) {
        size[0] = 1;
        cut[n++] = false;
    }
    r->kept = r->reduced = (Walk){.count = 1};
    r->run = size[n - 1];
    r->across = !cut[n - 1];
    total = r->run;
    for (int d = n - 2; d >= 0; d--) {
        Walk *w = cut[d] ? &r->reduced : &r->kept;
        memmove(w->dim + 1, w->dim, (REDUCE_RANK - 1) * sizeof *w->dim);
        memmove(w->stride + 1, w->stride, (REDUCE_RANK - 1) * sizeof *w->stride);
        w->dim[0] = size[d];
        w->stride[0] = total;
        w->rank++;
        w->count *= size[d];
        total *= size[d];
    }
}

static inline bool reduce_is_empty(int rank, const int64_t *dim)
{
    for (int d = 0; d < rank; d++)
        if (dim[d] <= 0)
            return true;
    return false;
}

#endif
