/* linear.c - the three products of a linear layer. */
#include "micro.h"

void linear_forward_then(Team *team, real *y, const real *x, const real *w, const real *b,
                         int64_t rows, int64_t k, int64_t n, bool transposed, const Tail *tail)
{
    const Finish finish = {.col_bias = b};
    tiled_product(team, false, !transposed, rows, n, k, x, k, w, transposed ? n : k, y, n, &finish,
                  tail);
}

void linear_forward(Team *team, real *y, const real *x, const real *w, const real *b, int64_t rows,
                    int64_t k, int64_t n, bool transposed)
{
    linear_forward_then(team, y, x, w, b, rows, k, n, transposed, NULL);
}

void linear_backward_input_then(Team *team, real *dx, const real *dy, const real *w, int64_t rows,
                                int64_t k, int64_t n, bool transposed, const Tail *tail)
{
    const Finish finish = {0};
    tiled_product(team, false, transposed, rows, k, n, dy, n, w, transposed ? n : k, dx, k, &finish,
                  tail);
}

void linear_backward_input(Team *team, real *dx, const real *dy, const real *w, int64_t rows,
                           int64_t k, int64_t n, bool transposed)
{
    linear_backward_input_then(team, dx, dy, w, rows, k, n, transposed, NULL);
}

void linear_backward_weight(Team *team, real *dw, const real *dy, const real *x, int64_t rows,
                            int64_t k, int64_t n, bool transposed, bool accumulate)
{
    if (transposed)
        gemm(team, true, false, k, n, rows, x, k, dy, n, accumulate, dw, n);
    else
        gemm(team, true, false, n, k, rows, dy, n, x, k, accumulate, dw, k);
}
