/* half_norm.c - layer and RMS normalisation in mixed precision: float in, 16-bit numbers out;
 * backward, 16-bit gradients in. As norm.c.
 */
#include "half_convert.h"
#include "vmath.h"

enum { GRAIN = 1 << 14, GROUP = 8, COLUMNS = 64, BLOCK = 128 };

typedef struct {
    HalfKind kind;
    half16 *y;
    float *dx, *dw, *db, *mean_out, *rstd_out;
    const half16 *dy;
    const float *x, *w, *b, *mean, *rstd; /* mean is NULL for RMS */
    int64_t rows, n;
    float eps;
    bool centred, accumulate;
    const Tail *tail;
} Norm;

static void over_rows(Team *team, Norm *v, RangeFn *fn)
{
    team_range(team, v->rows, int_max(1, GRAIN / int_max(1, v->n)), fn, v);
}

/* y = (x - mean) rstd w + b */
static void store_row(const Norm *v, int64_t r, float mean, float rstd)
{
    const float *restrict x = v->x + r * v->n, *restrict w = v->w, *restrict b = v->b;
    half16 *restrict y = v->y + r * v->n;
    int64_t i = 0;
#if MDL_HALF_VECTORS
    const Vec middle = vec_all(mean), scale = vec_all(rstd);
    for (; i + VL <= v->n; i += VL) {
        Vec value = (vec_load(x + i) - middle) * scale * vec_load(w + i);
        if (b)
            value += vec_load(b + i);
        half_round_vector(v->kind, y + i, value);
    }
#endif
    for (; i < v->n; i++) {
        const float value = (x[i] - mean) * rstd * w[i];
        y[i] = half_round_one(v->kind, b ? value + b[i] : value);
    }
}

static void row_statistics(const Norm *v, int64_t r)
{
    const float *x = v->x + r * v->n;
    const float mean = v->centred ? row_sum(x, v->n) / (float)v->n : 0;
    const float square = v->centred ? row_square_distance(x, mean, v->n) : row_dot(x, x, v->n);
    v->rstd_out[r] = 1 / mdl_sqrt(square / (float)v->n + v->eps);
    if (v->centred)
        v->mean_out[r] = mean;
}

/* First the statistics of some rows: each is one long chain, but the chains overlap. */
static void normal_rows(void *ctx, int64_t from, int64_t to)
{
    const Norm *v = ctx;
    for (int64_t r = from; r < to; r += GROUP) {
        const int64_t end = int_min(to, r + GROUP);
        for (int64_t i = r; i < end; i++)
            row_statistics(v, i);
        for (int64_t i = r; i < end; i++)
            store_row(v, i, v->centred ? v->mean_out[i] : 0, v->rstd_out[i]);
    }
}

void layernorm_forward_half(Team *team, HalfKind kind, half16 *y, float *mean, float *rstd,
                            const float *x, const float *w, const float *b, int64_t rows, int64_t n,
                            float eps)
{
    Norm v = {.kind = kind, .y = y, .mean_out = mean, .rstd_out = rstd, .x = x, .w = w, .b = b};
    v.rows = rows;
    v.n = n;
    v.eps = eps;
    v.centred = true;
    over_rows(team, &v, normal_rows);
}

void rmsnorm_forward_half(Team *team, HalfKind kind, half16 *y, float *rstd, const float *x,
                          const float *w, int64_t rows, int64_t n, float eps)
{
    Norm v = {.kind = kind, .y = y, .rstd_out = rstd, .x = x, .w = w, .rows = rows, .n = n};
    v.eps = eps;
    over_rows(team, &v, normal_rows);
}

/* dx = rstd (g - mean(g) - xhat mean(g xhat)), g = dy w; RMS has no mean(g). */
static void normal_rows_back(void *ctx, int64_t from, int64_t to)
{
    const Norm *v = ctx;
    const float *restrict w = v->w;
    for (int64_t r = from; r < to; r++) {
        const float *restrict x = v->x + r * v->n;
        float *restrict dx = v->dx + r * v->n;
        const float mean = v->mean ? v->mean[r] : 0, rstd = v->rstd[r];
        half_widen_row(v->kind, dx, v->dy + r * v->n, v->n);
        for (int64_t i = 0; i < v->n; i++)
            dx[i] *= w[i];
        const float sum = v->mean ? row_sum(dx, v->n) : 0;
        const float dot = row_dot(dx, x, v->n) - mean * sum;
        const float a = sum / (float)v->n, c = dot * rstd * rstd / (float)v->n;
        for (int64_t i = 0; i < v->n; i++)
            dx[i] = rstd * (dx[i] - a - (x[i] - mean) * c);
        if (v->tail && v->tail->fn)
            v->tail->fn(v->tail->args, r, 0, v->n);
    }
}

void layernorm_backward_input_half(Team *team, HalfKind kind, float *dx, const half16 *dy,
                                   const float *x, const float *w, const float *mean,
                                   const float *rstd, int64_t rows, int64_t n, const Tail *tail)
{
    Norm v = {.kind = kind, .dx = dx, .dy = dy, .x = x, .w = w, .mean = mean, .rstd = rstd};
    v.rows = rows;
    v.n = n;
    v.tail = tail;
    over_rows(team, &v, normal_rows_back);
}

void rmsnorm_backward_input_half(Team *team, HalfKind kind, float *dx, const half16 *dy,
                                 const float *x, const float *w, const float *rstd, int64_t rows,
                                 int64_t n, const Tail *tail)
{
    layernorm_backward_input_half(team, kind, dx, dy, x, w, NULL, rstd, rows, n, tail);
}

/* Adds to columns `from` ... of dw and db what rows [r, end) give. */
static void add_rows(const Norm *v, double *sum_dw, double *sum_db, int64_t from, int64_t n,
                     int64_t r, int64_t end)
{
    float dw[COLUMNS] = {0}, db[COLUMNS] = {0}, dy[COLUMNS] = {0};
    for (; r < end; r++) {
        const float *restrict x = v->x + r * v->n + from;
        const float mean = v->mean ? v->mean[r] : 0, rstd = v->rstd[r];
        half_widen_row(v->kind, dy, v->dy + r * v->n + from, n);
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

/* Columns [from, to): dw = sum dy xhat, db = sum dy; blocks of rows are added up in double. */
static void weight_columns(void *ctx, int64_t from, int64_t to)
{
    const Norm *v = ctx;
    double dw[COLUMNS] = {0}, db[COLUMNS] = {0};
    for (int64_t r = 0; r < v->rows; r += BLOCK)
        add_rows(v, dw, db, from, to - from, r, int_min(v->rows, r + BLOCK));
    for (int64_t i = 0; i < to - from; i++) {
        v->dw[from + i] = (float)dw[i] + (v->accumulate ? v->dw[from + i] : 0);
        if (v->db)
            v->db[from + i] = (float)db[i] + (v->accumulate ? v->db[from + i] : 0);
    }
}

void layernorm_backward_weight_half(Team *team, HalfKind kind, float *dw, float *db,
                                    const half16 *dy, const float *x, const float *mean,
                                    const float *rstd, int64_t rows, int64_t n, bool accumulate)
{
    Norm v = {.kind = kind, .dw = dw, .db = db, .dy = dy, .x = x, .mean = mean, .rstd = rstd};
    v.rows = rows;
    v.n = n;
    v.accumulate = accumulate;
    team_range(team, n, COLUMNS, weight_columns, &v);
}

void rmsnorm_backward_weight_half(Team *team, HalfKind kind, float *dw, const half16 *dy,
                                  const float *x, const float *rstd, int64_t rows, int64_t n,
                                  bool accumulate)
{
    layernorm_backward_weight_half(team, kind, dw, NULL, dy, x, NULL, rstd, rows, n, accumulate);
}
