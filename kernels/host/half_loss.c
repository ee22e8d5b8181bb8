/* half_loss.c - cross entropy and accuracy of 16-bit logits, as softmax.c does them in float: a row
 * goes through a small buffer of floats, block by block.
 */
#include "half_convert.h"
#include "vmath.h"

enum { GRAIN = 1 << 12, BLOCK = 1024 };

typedef struct {
    HalfKind kind;
    float *out, *lse_out;
    half16 *dx;
    const half16 *x;
    const float *dloss, *lse;
    const int32_t *y;
    int64_t n, inner;
} Loss;

static void over_rows(Team *team, Loss *v, int64_t rows, int64_t row, RangeFn *fn)
{
    team_range(team, rows, int_max(1, GRAIN / int_max(1, row)), fn, v);
}

/* NaN where there is one; n >= 1 */
static float largest(HalfKind kind, const half16 *x, int64_t n)
{
    float block[BLOCK], most = half_widen_one(kind, x[0]);
    for (int64_t i = 0; i < n; i += BLOCK) {
        const int64_t m = int_min(BLOCK, n - i);
        half_widen_row(kind, block, x + i, m);
        const float next = row_max(block, m);
        most = next > most || next != next ? next : most;
    }
    return most;
}

static float log_sum_exp(HalfKind kind, const half16 *x, float most, int64_t n)
{
    float block[BLOCK];
    double sum = 0;
    for (int64_t i = 0; i < n; i += BLOCK) {
        const int64_t m = int_min(BLOCK, n - i);
        half_widen_row(kind, block, x + i, m);
        for (int64_t j = 0; j < m; j++)
            block[j] = mdl_exp(block[j] - most);
        sum += (double)row_sum(block, m);
    }
    return mdl_log((float)sum);
}

static void loss_samples(void *ctx, int64_t from, int64_t to)
{
    const Loss *v = ctx;
    for (int64_t s = from; s < to; s++) {
        double loss = 0;
        for (int64_t r = s * v->inner; r < (s + 1) * v->inner; r++) {
            const half16 *x = v->x + r * v->n;
            const float most = largest(v->kind, x, v->n);
            const float over = log_sum_exp(v->kind, x, most, v->n);
            v->lse_out[r] = most + over;
            /* not lse - x: what all logits have in common would round it */
            loss += (double)(most - half_widen_one(v->kind, x[v->y[r]])) + (double)over;
        }
        v->out[s] = (float)(loss / (double)v->inner);
    }
}

void cross_entropy_forward_half(Team *team, HalfKind kind, float *loss, float *lse,
                                const half16 *logits, const int32_t *y, int64_t samples,
                                int64_t inner, int64_t n)
{
    Loss v = {.kind = kind, .out = loss, .lse_out = lse, .x = logits, .y = y};
    v.n = n;
    v.inner = inner;
    over_rows(team, &v, samples, inner * n, loss_samples);
}

static void loss_rows_back(void *ctx, int64_t from, int64_t to)
{
    const Loss *v = ctx;
    float block[BLOCK];
    for (int64_t r = from; r < to; r++) {
        const float scale = v->dloss[r / v->inner] / (float)v->inner, lse = v->lse[r];
        for (int64_t at = 0; at < v->n; at += BLOCK) {
            const int64_t m = int_min(BLOCK, v->n - at), hit = v->y[r] - at;
            half_widen_row(v->kind, block, v->x + r * v->n + at, m);
            for (int64_t i = 0; i < m; i++)
                block[i] = mdl_exp(block[i] - lse) * scale;
            if (hit >= 0 && hit < m)
                block[hit] -= scale;
            half_round_row(v->kind, v->dx + r * v->n + at, block, m);
        }
    }
}

void cross_entropy_backward_half(Team *team, HalfKind kind, half16 *dlogits, const half16 *logits,
                                 const float *lse, const int32_t *y, const float *dloss,
                                 int64_t samples, int64_t inner, int64_t n)
{
    Loss v = {.kind = kind, .dx = dlogits, .x = logits, .lse = lse, .y = y, .dloss = dloss};
    v.n = n;
    v.inner = inner;
    over_rows(team, &v, samples * inner, n, loss_rows_back);
}

static void accuracy_samples(void *ctx, int64_t from, int64_t to)
{
    const Loss *v = ctx;
    for (int64_t s = from; s < to; s++) {
        int64_t right = 0;
        for (int64_t r = s * v->inner; r < (s + 1) * v->inner; r++) {
            const half16 *x = v->x + r * v->n;
            const float most = largest(v->kind, x, v->n);
            int64_t first = 0;
            while (first < v->n && half_widen_one(v->kind, x[first]) != most)
                first++;
            right += first == v->y[r];
        }
        v->out[s] = (float)right / (float)v->inner;
    }
}

void accuracy_forward_half(Team *team, HalfKind kind, float *acc, const half16 *logits,
                           const int32_t *y, int64_t samples, int64_t inner, int64_t n)
{
    Loss v = {.kind = kind, .out = acc, .x = logits, .y = y, .n = n, .inner = inner};
    over_rows(team, &v, samples, inner * n, accuracy_samples);
}
