/* groupnorm.c - normalisation over groups of channels of x[B, C, inner].
 *
 * The channels of a group are contiguous, so a group of a sample is one row of
 * C / groups x inner elements; weight and bias change from channel to channel.
 */
#include "vec.h"
#include "vmath.h"

enum { GRAIN = 1 << 14 };

typedef struct {
    real *out, *out2, *mean_out, *rstd_out;
    const real *dy, *x, *w, *b, *mean, *rstd;
    int64_t B, C, inner, groups;
    real eps;
    bool accumulate;
} GroupNorm;

static void over_groups(Team *team, GroupNorm *v, RangeFn *fn)
{
    const int64_t row = v->C / v->groups * v->inner;
    team_range(team, v->B * v->groups, int_max(1, GRAIN / int_max(1, row)), fn, v);
}

static void group_rows(void *ctx, int64_t from, int64_t to)
{
    const GroupNorm *v = ctx;
    const int64_t per = v->C / v->groups, n = per * v->inner;
    for (int64_t r = from; r < to; r++) {
        const real *x = v->x + r * n;
        real *y = v->out + r * n;
        const real mean = row_sum(x, n) / (real)n;
        const real rstd = 1 / mdl_sqrt(row_square_distance(x, mean, n) / (real)n + v->eps);
        v->mean_out[r] = mean;
        v->rstd_out[r] = rstd;
        for (int64_t c = 0; c < per; c++, x += v->inner, y += v->inner) {
            const int64_t channel = r % v->groups * per + c;
            const real w = v->w[channel], b = v->b ? v->b[channel] : 0;
            for (int64_t i = 0; i < v->inner; i++)
                y[i] = (x[i] - mean) * rstd * w + b;
        }
    }
}

void groupnorm_forward(Team *team, real *y, real *mean, real *rstd, const real *x, const real *w,
                       const real *b, int64_t B, int64_t C, int64_t inner, int64_t groups, real eps)
{
    GroupNorm v = {.out = y, .mean_out = mean, .rstd_out = rstd, .x = x, .w = w, .b = b};
    v.B = B;
    v.C = C;
    v.inner = inner;
    v.groups = groups;
    v.eps = eps;
    over_groups(team, &v, group_rows);
}

static void group_rows_back(void *ctx, int64_t from, int64_t to)
{
    const GroupNorm *v = ctx;
    const int64_t per = v->C / v->groups, n = per * v->inner;
    for (int64_t r = from; r < to; r++) {
        const real *x = v->x + r * n, *dy = v->dy + r * n;
        const real mean = v->mean[r], rstd = v->rstd[r];
        const real *w = v->w + r % v->groups * per;
        real sum = 0, dot = 0;
        for (int64_t c = 0; c < per; c++) {
            const real s = row_sum(dy + c * v->inner, v->inner);
            sum += w[c] * s;
            dot += w[c] * (row_dot(dy + c * v->inner, x + c * v->inner, v->inner) - mean * s);
        }
        const real a = sum / (real)n, b = dot * rstd * rstd / (real)n;
        real *dx = v->out + r * n;
        for (int64_t c = 0; c < per; c++)
            for (int64_t i = c * v->inner; i < (c + 1) * v->inner; i++)
                dx[i] = rstd * (dy[i] * w[c] - a - (x[i] - mean) * b);
    }
}

void groupnorm_backward_input(Team *team, real *dx, const real *dy, const real *x, const real *w,
                              const real *mean, const real *rstd, int64_t B, int64_t C,
                              int64_t inner, int64_t groups)
{
    GroupNorm v = {.out = dx, .dy = dy, .x = x, .w = w, .mean = mean, .rstd = rstd};
    v.B = B;
    v.C = C;
    v.inner = inner;
    v.groups = groups;
    over_groups(team, &v, group_rows_back);
}

static void weight_channels(void *ctx, int64_t from, int64_t to)
{
    const GroupNorm *v = ctx;
    for (int64_t c = from; c < to; c++) {
        real dw = 0, db = 0;
        for (int64_t b = 0; b < v->B; b++) {
            const int64_t row = b * v->groups + c / (v->C / v->groups);
            const real *dy = v->dy + (b * v->C + c) * v->inner,
                       *x = v->x + (b * v->C + c) * v->inner;
            const real sum = row_sum(dy, v->inner);
            dw += (row_dot(dy, x, v->inner) - v->mean[row] * sum) * v->rstd[row];
            db += sum;
        }
        v->out[c] = dw + (v->accumulate ? v->out[c] : 0);
        if (v->out2)
            v->out2[c] = db + (v->accumulate ? v->out2[c] : 0);
    }
}

void groupnorm_backward_weight(Team *team, real *dw, real *db, const real *dy, const real *x,
                               const real *mean, const real *rstd, int64_t B, int64_t C,
                               int64_t inner, int64_t groups, bool accumulate)
{
    GroupNorm v = {.out = dw, .out2 = db, .dy = dy, .x = x, .mean = mean, .rstd = rstd};
    v.B = B;
    v.C = C;
    v.inner = inner;
    v.groups = groups;
    v.accumulate = accumulate;
    team_range(team, C, int_max(1, GRAIN / int_max(1, B * inner)), weight_channels, &v);
}
