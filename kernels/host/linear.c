/* linear.c - the three products of a linear layer. */
#include "micro.h"

void linear_forward(Team *team, real *y, const real *x, const real *w, const real *b, int64_t rows,
                    int64_t k, int64_t n, bool transposed)
{
    const Finish finish = {.col_bias = b};
    tiled_product(team, false, !transposed, rows, n, k, x, k, w, transposed ? n : k, y, n, &finish);
}

void linear_backward_input(Team *team, real *dx, const real *dy, const real *w, int64_t rows,
                           int64_t k, int64_t n, bool transposed)
{
    gemm(team, false, transposed, rows, k, n, dy, n, w, transposed ? n : k, false, dx, k);
}

void linear_backward_weight(Team *team, real *dw, const real *dy, const real *x, int64_t rows,
                            int64_t k, int64_t n, bool transposed, bool accumulate)
{
    if (transposed)
        gemm(team, true, false, k, n, rows, x, k, dy, n, accumulate, dw, n);
    else
        gemm(team, true, false, n, k, rows, dy, n, x, k, accumulate, dw, k);
}
