/* softmax.c - softmax, cross entropy and accuracy over the last dimension. A tile is some
 * rows; a row's largest element is taken off before exp, so nothing overflows.
 */
#include <math.h>

#include "vec.h"
#include "vmath.h"

enum { GRAIN = 1 << 12 };

typedef struct {
    real *out, *lse_out;
    const real *x, *dy, *lse;
    const int32_t *y;
    int64_t n, inner;
} Softmax;

static void over_rows(Team *team, Softmax *v, int64_t rows, int64_t row, RangeFn *fn)
{
    team_range(team, rows, int_max(1, GRAIN / int_max(1, row)), fn, v);
}

static void softmax_rows(void *ctx, int64_t from, int64_t to)
{
    const Softmax *v = ctx;
    for (int64_t r = from; r < to; r++) {
        const real *x = v->x + r * v->n;
        real *y = v->out + r * v->n;
        const real most = row_max(x, v->n);
        for (int64_t i = 0; i < v->n; i++)
            y[i] = mdl_exp(x[i] - most);
        const real scale = 1 / row_sum(y, v->n);
        for (int64_t i = 0; i < v->n; i++)
            y[i] *= scale;
    }
}

void softmax_forward(Team *team, real *y, const real *x, int64_t rows, int64_t n)
{
    if (n > 0)
        over_rows(team, &(Softmax){.out = y, .x = x, .n = n}, rows, n, softmax_rows);
}

static void softmax_rows_back(void *ctx, int64_t from, int64_t to)
{
    const Softmax *v = ctx;
    for (int64_t r = from; r < to; r++) {
        const real *y = v->x + r * v->n, *dy = v->dy + r * v->n;
        real *dx = v->out + r * v->n;
        const real dot = row_dot(dy, y, v->n);
        for (int64_t i = 0; i < v->n; i++)
            dx[i] = y[i] * (dy[i] - dot);
    }
}

void softmax_backward(Team *team, real *dx, const real *dy, const real *y, int64_t rows, int64_t n)
{
    over_rows(team, &(Softmax){.out = dx, .x = y, .dy = dy, .n = n}, rows, n, softmax_rows_back);
}

/* log of the sum of exp(x - most): the exponentials go through a small buffer. */
static real log_sum_exp(const real *x, real most, int64_t n)
{
    enum { BLOCK = 1024 };
    real buffer[BLOCK];
    double sum = 0;
    for (int64_t i = 0; i < n; i += BLOCK) {
        const int64_t m = int_min(BLOCK, n - i);
        for (int64_t j = 0; j < m; j++)
            buffer[j] = mdl_exp(x[i + j] - most);
        sum += (double)row_sum(buffer, m);
    }
    return mdl_log((real)sum);
}

static void loss_samples(void *ctx, int64_t from, int64_t to)
{
    const Softmax *v = ctx;
    for (int64_t s = from; s < to; s++) {
        double loss = 0;
        for (int64_t r = s * v->inner; r < (s + 1) * v->inner; r++) {
            const real *x = v->x + r * v->n, most = row_max(x, v->n);
            const real over = log_sum_exp(x, most, v->n);
            v->lse_out[r] = most + over;
            /* not lse - x: what all logits have in common would round it */
            loss += (double)(most - x[v->y[r]]) + (double)over;
        }
        v->out[s] = (real)(loss / (double)v->inner);
    }
}

void cross_entropy_forward(Team *team, real *loss, real *lse, const real *logits, const int32_t *y,
                           int64_t samples, int64_t inner, int64_t n)
{
    Softmax v = {.out = loss, .lse_out = lse, .x = logits, .y = y, .n = n, .inner = inner};
    over_rows(team, &v, samples, inner * n, loss_samples);
}

static void loss_rows_back(void *ctx, int64_t from, int64_t to)
{
    const Softmax *v = ctx;
    for (int64_t r = from; r < to; r++) {
        const real *x = v->x + r * v->n;
        real *dx = v->out + r * v->n;
        const real scale = v->dy[r / v->inner] / (real)v->inner, lse = v->lse[r];
        for (int64_t i = 0; i < v->n; i++)
            dx[i] = mdl_exp(x[i] - lse) * scale;
        dx[v->y[r]] -= scale;
    }
}

void cross_entropy_backward(Team *team, real *dlogits, const real *logits, const real *lse,
                            const int32_t *y, const real *dloss, int64_t samples, int64_t inner,
                            int64_t n)
{
    Softmax v = {.out = dlogits, .x = logits, .lse = lse, .y = y, .dy = dloss};
    v.n = n;
    v.inner = inner;
    over_rows(team, &v, samples * inner, n, loss_rows_back);
}

static void accuracy_samples(void *ctx, int64_t from, int64_t to)
{
    const Softmax *v = ctx;
    for (int64_t s = from; s < to; s++) {
        int64_t right = 0;
        for (int64_t r = s * v->inner; r < (s + 1) * v->inner; r++) {
            const real *x = v->x + r * v->n;
            const real most = row_max(x, v->n);
            int64_t first = 0;
            while (first < v->n && x[first] != most)
                first++;
            right += first == v->y[r];
        }
        v->out[s] = (real)right / (real)v->inner;
    }
}

void accuracy_forward(Team *team, real *acc, const real *logits, const int32_t *y, int64_t samples,
                      int64_t inner, int64_t n)
{
    Softmax v = {.out = acc, .x = logits, .y = y, .n = n, .inner = inner};
    over_rows(team, &v, samples, inner * n, accuracy_samples);
}
