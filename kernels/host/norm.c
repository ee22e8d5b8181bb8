/* norm.c - layer and RMS normalisation over the last dimension.
 *
 * Forward and the input's gradient: a tile is some rows, each read while it is in the
 * nearest cache. Gradients of weight and bias: a tile is some columns, summed over all
 * rows in order; blocks of rows are added up in double, so errors do not grow with their number.
 */
#include <math.h>

#include "vec.h"
#include "vmath.h"

enum { GRAIN = 1 << 14, GROUP = 8, COLUMNS = 64, BLOCK = 128 };

typedef struct {
    real *out, *out2, *mean_out, *rstd_out;
    const real *dy, *x, *w, *b, *mean, *rstd;
    int64_t rows, n;
    real eps;
    bool accumulate;
    const Tail *tail;
} Norm;

/* Row r of the result is complete. */
static void row_done(const Norm *v, int64_t r)
{
    if (v->tail && v->tail->fn)
        v->tail->fn(v->tail->args, r, 0, v->n);
}

static void over_rows(Team *team, Norm *v, RangeFn *fn)
{
    team_range(team, v->rows, int_max(1, GRAIN / int_max(1, v->n)), fn, v);
}

static void layer_statistics(const Norm *v, int64_t r)
{
    const real *x = v->x + r * v->n;
    const real mean = row_sum(x, v->n) / (real)v->n;
    const real variance = row_square_distance(x, mean, v->n) / (real)v->n;
    v->mean_out[r] = mean;
    v->rstd_out[r] = 1 / mdl_sqrt(variance + v->eps);
}

static void layer_row(const Norm *v, int64_t r)
{
    const real *restrict w = v->w, *restrict b = v->b, *restrict x = v->x + r * v->n;
    real *restrict y = v->out + r * v->n;
    const real mean = v->mean_out[r], rstd = v->rstd_out[r];
    if (b)
        for (int64_t i = 0; i < v->n; i++)
            y[i] = (x[i] - mean) * rstd * w[i] + b[i];
    else
        for (int64_t i = 0; i < v->n; i++)
            y[i] = (x[i] - mean) * rstd * w[i];
}

/* First the statistics of some rows: each is one long chain, but the chains overlap. */
static void layer_rows(void *ctx, int64_t from, int64_t to)
{
    for (int64_t r = from; r < to; r += GROUP) {
        const int64_t end = int_min(to, r + GROUP);
        for (int64_t i = r; i < end; i++)
            layer_statistics(ctx, i);
        for (int64_t i = r; i < end; i++)
            layer_row(ctx, i);
    }
}

void layernorm_forward(Team *team, real *y, real *mean, real *rstd, const real *x, const real *w,
                       const real *b, int64_t rows, int64_t n, real eps)
{
    Norm v = {.out = y, .mean_out = mean, .rstd_out = rstd, .x = x, .w = w, .b = b};
    v.rows = rows;
    v.n = n;
    v.eps = eps;
    over_rows(team, &v, layer_rows);
}

/* dx = rstd (g - mean(g) - xhat mean(g xhat)), g = dy w */
static void layer_rows_back(void *ctx, int64_t from, int64_t to)
{
    const Norm *v = ctx;
    const real *restrict w = v->w;
    for (int64_t r = from; r < to; r++) {
        const real *restrict dy = v->dy + r * v->n, *restrict x = v->x + r * v->n;
        real *restrict dx = v->out + r * v->n;
        const real mean = v->mean[r], rstd = v->rstd[r];
        for (int64_t i = 0; i < v->n; i++)
            dx[i] = dy[i] * w[i];
        const real sum = row_sum(dx, v->n);
        const real dot = row_dot(dx, x, v->n) - mean * sum;
        const real a = sum / (real)v->n, c = dot * rstd * rstd / (real)v->n;
        for (int64_t i = 0; i < v->n; i++)
            dx[i] = rstd * (dx[i] - a - (x[i] - mean) * c);
        row_done(v, r);
    }
}

void layernorm_backward_input_then(Team *team, real *dx, const real *dy, const real *x,
                                   const real *w, const real *mean, const real *rstd, int64_t rows,
                                   int64_t n, const Tail *tail)
{
    Norm v = {.out = dx, .dy = dy, .x = x, .w = w, .mean = mean, .rstd = rstd};
    v.rows = rows;
    v.n = n;
    v.tail = tail;
    over_rows(team, &v, layer_rows_back);
}

void layernorm_backward_input(Team *team, real *dx, const real *dy, const real *x, const real *w,
                              const real *mean, const real *rstd, int64_t rows, int64_t n)
{
    layernorm_backward_input_then(team, dx, dy, x, w, mean, rstd, rows, n, NULL);
}

/* Adds to columns `from` ... of dw and db what rows [r, end) give. */
static void add_rows(const Norm *v, double *sum_dw, double *sum_db, int64_t from, int64_t n,
                     int64_t r, int64_t end)
{
    real dw[COLUMNS] = {0}, db[COLUMNS] = {0};
    for (; r < end; r++) {
        const real *restrict dy = v->dy + r * v->n + from, *restrict x = v->x + r * v->n + from;
        const real mean = v->mean ? v->mean[r] : 0, rstd = v->rstd[r];
        for (int64_t i = 0; i < n; i++) {
            dw[i] += dy[i] * ((x[i] - mean) * rstd);
            db[i] += dy[i];
        }
    }
    for (int64_t i = 0; i < n; i++) {
        sum_dw[i] += (double)dw[i];
        sum_db[i] += (double)db[i];
    }
}

/* Columns [from, to): dw = sum dy xhat, db = sum dy. mean may be NULL (RMS). */
static void weight_columns(void *ctx, int64_t from, int64_t to)
{
    const Norm *v = ctx;
    double dw[COLUMNS] = {0}, db[COLUMNS] = {0};
    for (int64_t r = 0; r < v->rows; r += BLOCK)
        add_rows(v, dw, db, from, to - from, r, int_min(v->rows, r + BLOCK));
    for (int64_t i = 0; i < to - from; i++) {
        v->out[from + i] = (real)dw[i] + (v->accumulate ? v->out[from + i] : 0);
        if (v->out2)
            v->out2[from + i] = (real)db[i] + (v->accumulate ? v->out2[from + i] : 0);
    }
}

void layernorm_backward_weight(Team *team, real *dw, real *db, const real *dy, const real *x,
                               const real *mean, const real *rstd, int64_t rows, int64_t n,
                               bool accumulate)
{
    Norm v = {.out = dw, .out2 = db, .dy = dy, .x = x, .mean = mean, .rstd = rstd};
    v.rows = rows;
    v.n = n;
    v.accumulate = accumulate;
    team_range(team, n, COLUMNS, weight_columns, &v);
}

static void rms_rows(void *ctx, int64_t from, int64_t to)
{
    const Norm *v = ctx;
    const real *restrict w = v->w;
    for (int64_t r = from; r < to; r++) {
        const real *restrict x = v->x + r * v->n;
        real *restrict y = v->out + r * v->n;
        const real rstd = 1 / mdl_sqrt(row_dot(x, x, v->n) / (real)v->n + v->eps);
        v->rstd_out[r] = rstd;
        for (int64_t i = 0; i < v->n; i++)
            y[i] = x[i] * rstd * w[i];
    }
}

void rmsnorm_forward(Team *team, real *y, real *rstd, const real *x, const real *w, int64_t rows,
                     int64_t n, real eps)
{
    Norm v = {.out = y, .rstd_out = rstd, .x = x, .w = w, .rows = rows, .n = n, .eps = eps};
    over_rows(team, &v, rms_rows);
}

/* dx = rstd (g - xhat mean(g xhat)) */
static void rms_rows_back(void *ctx, int64_t from, int64_t to)
{
    const Norm *v = ctx;
    const real *restrict w = v->w;
    for (int64_t r = from; r < to; r++) {
        const real *restrict dy = v->dy + r * v->n, *restrict x = v->x + r * v->n;
        real *restrict dx = v->out + r * v->n;
        const real rstd = v->rstd[r];
        for (int64_t i = 0; i < v->n; i++)
            dx[i] = dy[i] * w[i];
        const real c = row_dot(dx, x, v->n) * rstd * rstd / (real)v->n;
        for (int64_t i = 0; i < v->n; i++)
            dx[i] = rstd * (dx[i] - x[i] * c);
        row_done(v, r);
    }
}

void rmsnorm_backward_input_then(Team *team, real *dx, const real *dy, const real *x, const real *w,
                                 const real *rstd, int64_t rows, int64_t n, const Tail *tail)
{
    Norm v = {.out = dx, .dy = dy, .x = x, .w = w, .rstd = rstd, .rows = rows, .n = n};
    v.tail = tail;
    over_rows(team, &v, rms_rows_back);
}

void rmsnorm_backward_input(Team *team, real *dx, const real *dy, const real *x, const real *w,
                            const real *rstd, int64_t rows, int64_t n)
{
    rmsnorm_backward_input_then(team, dx, dy, x, w, rstd, rows, n, NULL);
}

void rmsnorm_backward_weight(Team *team, real *dw, const real *dy, const real *x, const real *rstd,
                             int64_t rows, int64_t n, bool accumulate)
{
    layernorm_backward_weight(team, dw, NULL, dy, x, NULL, rstd, rows, n, accumulate);
}
