/* Normalisation, softmax, losses, embedding, dropout and Philox. */
#include "check.h"

static const int64_t ROWS[] = {1, 3, 37}, COLUMNS[] = {1, 7, 64, 333, 1100};

static double dot3(const double *a, const double *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += a[i] * (b ? b[i] : 1);
    return sum;
}

/* The gradient of y = (x - mean) rstd, given g = dL/dy, into dx; `centred`: with mean. */
static void normal_back(double *dx, const double *g, const double *xhat, double rstd, int64_t n,
                        bool centred)
{
    const double a = centred ? dot3(g, NULL, n) / (double)n : 0;
    const double b = dot3(g, xhat, n) / (double)n;
    for (int64_t i = 0; i < n; i++)
        dx[i] = rstd * (g[i] - a - xhat[i] * b);
}

/* Rows of n elements are normalised as one; element i uses weight column(row, i). */
typedef struct {
    int64_t rows, n, weights, groups, inner;
    bool centred, bias;
} NormCase;

static int64_t weight_of(const NormCase *c, int64_t row, int64_t i)
{
    return c->inner == 0 ? i : row % c->groups * (c->n / c->inner) + i / c->inner;
}

typedef struct {
    double *y, *mean, *rstd, *dx, *dw, *db;
} NormWant;

static void norm_reference(NormWant *want, const NormCase *c, const real *x, const real *w,
                           const real *b, const real *dy, double eps)
{
    double *xhat = new_doubles(c->n), *g = new_doubles(c->n);
    for (int64_t r = 0; r < c->rows; r++) {
        const int64_t at = r * c->n;
        double mean = 0, variance = 0;
        for (int64_t i = 0; i < c->n; i++)
            mean += c->centred ? (double)x[at + i] / (double)c->n : 0;
        for (int64_t i = 0; i < c->n; i++)
            variance += ((double)x[at + i] - mean) * ((double)x[at + i] - mean) / (double)c->n;
        const double rstd = 1 / sqrt(variance + eps);
        want->mean[r] = mean;
        want->rstd[r] = rstd;
        for (int64_t i = 0; i < c->n; i++) {
            const int64_t k = weight_of(c, r, i);
            xhat[i] = ((double)x[at + i] - mean) * rstd;
            g[i] = (double)dy[at + i] * (double)w[k];
            want->y[at + i] = xhat[i] * (double)w[k] + (c->bias && c->centred ? (double)b[k] : 0);
            want->dw[k] += (double)dy[at + i] * xhat[i];
            want->db[k] += (double)dy[at + i];
        }
        normal_back(want->dx + at, g, xhat, rstd, c->n, c->centred);
    }
    free(xhat);
    free(g);
}

static void check_norm(const NormCase *c)
{
    const int64_t size = c->rows * c->n, B = c->inner ? c->rows / c->groups : 0;
    const real eps = (real)1e-3;
    real *x = new_numbers(size, 1), *w = new_numbers(c->weights, 2),
         *b = new_numbers(c->weights, 3);
    real *dy = new_numbers(size, 4), *y = new_numbers(size, 0), *mean = new_numbers(c->rows, 0);
    real *rstd = new_numbers(c->rows, 0), *dw = new_numbers(c->weights, 0);
    real *db = new_numbers(c->weights, 0), *bias = c->bias ? b : NULL;
    double *room = new_doubles(2 * size + 2 * c->rows + 2 * c->weights);
    NormWant want = {room,
                     room + 2 * size,
                     room + 2 * size + c->rows,
                     room + size,
                     room + 2 * size + 2 * c->rows,
                     room + 2 * size + 2 * c->rows + c->weights};
    for (int64_t i = 0; i < c->weights; i++) {
        want.dw[i] = c->bias ? number_at(9, i) : 0;
        want.db[i] = number_at(9, i);
    }
    norm_reference(&want, c, x, w, b, dy, (double)eps);
    const double tolerance = 40 + 8 * sqrt((double)size);
    if (c->inner)
        ON_EVERY_TEAM(y, size, 9,
                      groupnorm_forward(team, y, mean, rstd, x, w, bias, B, c->weights, c->inner,
                                        c->groups, eps));
    else if (c->centred)
        ON_EVERY_TEAM(y, size, 9,
                      layernorm_forward(team, y, mean, rstd, x, w, bias, c->rows, c->n, eps));
    else
        ON_EVERY_TEAM(y, size, 9, rmsnorm_forward(team, y, rstd, x, w, c->rows, c->n, eps));
    check_close(y, want.y, size, tolerance, "norm forward");
    check_close(rstd, want.rstd, c->rows, tolerance, "norm rstd");
    if (c->centred)
        check_close(mean, want.mean, c->rows, tolerance, "norm mean");
    if (c->inner)
        ON_EVERY_TEAM(y, size, 9,
                      groupnorm_backward_input(team, y, dy, x, w, mean, rstd, B, c->weights,
                                               c->inner, c->groups));
    else if (c->centred)
        ON_EVERY_TEAM(y, size, 9,
                      layernorm_backward_input(team, y, dy, x, w, mean, rstd, c->rows, c->n));
    else
        ON_EVERY_TEAM(y, size, 9, rmsnorm_backward_input(team, y, dy, x, w, rstd, c->rows, c->n));
    for (int64_t r = 0; r < c->rows; r++) /* the gradient is as large as 1 / deviation */
        for (int64_t i = r * c->n; i < (r + 1) * c->n; i++) {
            y[i] = (real)((double)y[i] / want.rstd[r]);
            want.dx[i] /= want.rstd[r];
        }
    check_close(y, want.dx, size, tolerance, "norm backward input");
    for (int t = 0; t < TEAMS; t++) {
        Team *team = team_new(TEAM_SIZES[t], false);
        set_numbers(dw, c->weights, 9);
        set_numbers(db, c->weights, 9);
        real *to_db = c->bias ? db : NULL;
        if (c->inner)
            groupnorm_backward_weight(team, dw, to_db, dy, x, mean, rstd, B, c->weights, c->inner,
                                      c->groups, c->bias);
        else if (c->centred)
            layernorm_backward_weight(team, dw, to_db, dy, x, mean, rstd, c->rows, c->n, c->bias);
        else
            rmsnorm_backward_weight(team, dw, dy, x, rstd, c->rows, c->n, c->bias);
        team_free(team);
        check_close(dw, want.dw, c->weights, tolerance, "norm backward weight");
        if (c->bias && c->centred)
            check_close(db, want.db, c->weights, tolerance, "norm backward bias");
    }
    ON_EVERY_TEAM(
        dw, c->weights, 9,
        if (c->inner) groupnorm_backward_weight(team, dw, db, dy, x, mean, rstd, B, c->weights,
                                                c->inner, c->groups, true);
        else layernorm_backward_weight(team, dw, db, dy, x, mean, rstd, c->rows, c->n, true));
    free(x);
    free(w);
    free(b);
    free(dy);
    free(y);
    free(mean);
    free(rstd);
    free(dw);
    free(db);
    free(room);
}

static void test_norms(void **state)
{
    (void)state;
    for (int r = 0; r < 3; r++)
        for (int n = 0; n < 5; n++)
            for (int kind = 0; kind < 4; kind++)
                check_norm(&(NormCase){.rows = ROWS[r],
                                       .n = COLUMNS[n],
                                       .weights = COLUMNS[n],
                                       .centred = kind & 1,
                                       .bias = kind & 2});
    for (int kind = 0; kind < 2; kind++) {
        check_norm(&(NormCase){15, 2 * 49, 6, 3, 49, true, kind});
        check_norm(&(NormCase){7, 5 * 333, 5, 1, 333, true, kind});
        check_norm(&(NormCase){24, 1 * 17, 8, 8, 17, true, kind});
    }
}

static void test_softmax(void **state)
{
    (void)state;
    for (int r = 0; r < 3; r++) {
        for (int c = 0; c < 5; c++) {
            const int64_t rows = ROWS[r], n = COLUMNS[c], size = rows * n;
            real *x = new_numbers(size, 1), *dy = new_numbers(size, 2), *y = new_numbers(size, 0);
            real *dx = new_numbers(size, 0);
            double *want = new_doubles(2 * size);
            for (int64_t i = 0; i < size; i++)
                x[i] = x[i] * 50 + 90;
            for (int64_t row = 0; row < rows; row++) {
                double sum = 0, dot = 0;
                for (int64_t i = row * n; i < (row + 1) * n; i++)
                    sum += exp((double)x[i] - 90);
                for (int64_t i = row * n; i < (row + 1) * n; i++) {
                    want[i] = exp((double)x[i] - 90) / sum;
                    dot += want[i] * (double)dy[i];
                }
                for (int64_t i = row * n; i < (row + 1) * n; i++)
                    want[size + i] = want[i] * ((double)dy[i] - dot);
            }
            ON_EVERY_TEAM(y, size, 9, softmax_forward(team, y, x, rows, n));
            check_close(y, want, size, 16, "softmax_forward");
            ON_EVERY_TEAM(dx, size, 9, softmax_backward(team, dx, dy, y, rows, n));
            check_close(dx, want + size, size, 16, "softmax_backward");
            free(x);
            free(dy);
            free(y);
            free(dx);
            free(want);
        }
    }
}

static void check_loss(int64_t samples, int64_t inner, int64_t n)
{
    const int64_t rows = samples * inner, size = rows * n;
    real *x = new_numbers(size, 1), *loss = new_numbers(samples, 0), *lse = new_numbers(rows, 0);
    real *dx = new_numbers(size, 0), *dloss = new_numbers(samples, 2);
    int32_t *y = malloc((size_t)rows * sizeof *y);
    double *want = new_doubles(2 * samples + size), *share = want + samples;
    double *want_dx = share + samples;
    for (int64_t i = 0; i < size; i++) /* ties happen */
        x[i] = (real)(int)(x[i] * 40);
    for (int64_t r = 0; r < rows; r++) {
        double sum = 0;
        int64_t first = 0;
        for (int64_t i = 0; i < n; i++) {
            sum += exp((double)x[r * n + i]);
            first = x[r * n + i] > x[r * n + first] ? i : first;
        }
        y[r] = (int32_t)(r % 3 == 0 ? first : r * 7 % n);
        want[r / inner] += (log(sum) - (double)x[r * n + y[r]]) / (double)inner;
        share[r / inner] += first == y[r] ? 1 / (double)inner : 0;
        for (int64_t i = 0; i < n; i++)
            want_dx[r * n + i] = (exp((double)x[r * n + i]) / sum - (i == y[r] ? 1 : 0)) *
                                 (double)dloss[r / inner] / (double)inner;
    }
    ON_EVERY_TEAM(loss, samples, 9,
                  cross_entropy_forward(team, loss, lse, x, y, samples, inner, n));
    /* the loss is the difference of numbers up to 40, and no finer than they are */
    check_close(loss, want, samples, 40, "cross_entropy_forward");
    ON_EVERY_TEAM(dx, size, 9,
                  cross_entropy_backward(team, dx, x, lse, y, dloss, samples, inner, n));
    check_close(dx, want_dx, size, 64, "cross_entropy_backward");
    ON_EVERY_TEAM(loss, samples, 9, accuracy_forward(team, loss, x, y, samples, inner, n));
    check_close(loss, share, samples, 4, "accuracy_forward");
    Team *team = team_new(2, false);
    cross_entropy_backward(team, x, x, lse, y, dloss, samples, inner, n);
    assert_memory_equal(x, dx, (size_t)size * sizeof *x);
    team_free(team);
    free(x);
    free(loss);
    free(lse);
    free(dx);
    free(dloss);
    free(y);
    free(want);
}

static void test_losses(void **state)
{
    (void)state;
    check_loss(1, 1, 2);
    check_loss(64, 1, 10);
    check_loss(5, 3, 1500);
    check_loss(200, 7, 33);
}

/* What all logits have in common changes no loss. */
static void test_loss_of_large_logits(void **state)
{
    (void)state;
    enum { N = 10 };
    const int32_t y = 3;
    real x[N], loss, lse;
    double sum = 0, want;
    for (int i = 0; i < N; i++) {
        x[i] = (real)(10000 + 0.25 * i);
        sum += exp(0.25 * i);
    }
    want = log(sum) - 0.25 * y;
    ON_EVERY_TEAM(&loss, 1, 9, cross_entropy_forward(team, &loss, &lse, x, &y, 1, 1, N));
    check_close(&loss, &want, 1, 8, "loss of large logits");
}

static void test_embedding(void **state)
{
    (void)state;
    enum { ROWS_ = 95, COUNT = 23, N = 301 };
    real *w = new_numbers(COUNT * N, 1), *dy = new_numbers(ROWS_ * N, 2);
    real *y = new_numbers(ROWS_ * N, 0), *dw = new_numbers(COUNT * N, 0);
    int32_t ids[ROWS_];
    double *want = new_doubles(ROWS_ * N), *want_dw = new_doubles(COUNT * N);
    for (int r = 0; r < ROWS_; r++) {
        ids[r] = r * r % COUNT;
        for (int i = 0; i < N; i++) {
            want[r * N + i] = (double)w[ids[r] * N + i];
            want_dw[ids[r] * N + i] += (double)dy[r * N + i];
        }
    }
    ON_EVERY_TEAM(y, ROWS_ * N, 9, embedding_forward(team, y, ids, w, ROWS_, N));
    check_close(y, want, ROWS_ * N, 0, "embedding_forward");
    ON_EVERY_TEAM(dw, COUNT * N, 9,
                  embedding_backward_weight(team, dw, dy, ids, ROWS_, COUNT, N, false));
    check_close(dw, want_dw, COUNT * N, 32, "embedding_backward_weight");
    ON_EVERY_TEAM(dw, COUNT * N, 9,
                  embedding_backward_weight(team, dw, dy, ids, ROWS_, COUNT, N, true));
    for (int i = 0; i < COUNT * N; i++)
        want_dw[i] += number_at(9, i);
    check_close(dw, want_dw, COUNT * N, 32, "embedding_backward_weight");
    free(w);
    free(dy);
    free(y);
    free(dw);
    free(want);
    free(want_dw);
}

/* The known answers that the authors of Random123 publish. */
static void test_philox(void **state)
{
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], out[4];
    } known[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (int i = 0; i < 3; i++) {
        uint32_t out[4];
        philox(out, known[i].counter, known[i].key);
        assert_memory_equal(out, known[i].out, sizeof out);
    }
}

static void test_dropout(void **state)
{
    (void)state;
    enum { SAMPLES = 13, N = 1003 };
    const uint64_t key = 0x123456789abcdef0;
    real *x = new_numbers(SAMPLES * N, 1), *y = new_numbers(SAMPLES * N, 0);
    for (int i = 0; i < SAMPLES * N; i++)
        x[i] += 2;
    ON_EVERY_TEAM(y, SAMPLES * N, 9, dropout(team, y, x, 0.25, key, 40, SAMPLES, N));
    int64_t kept = 0;
    for (int i = 0; i < SAMPLES * N; i++) {
        const uint32_t e = (uint32_t)(i % N);
        const uint32_t counter[4] = {e / 64 * 16 + e % 16, 0, 40 + (uint32_t)(i / N), 0};
        uint32_t out[4];
        philox(out, counter, (const uint32_t[]){(uint32_t)key, (uint32_t)(key >> 32)});
        const bool keep = out[e / 16 % 4] >= 1u << 30;
        assert_true(keep ? y[i] == x[i] * (real)(1 / 0.75) : y[i] == 0);
        kept += keep;
    }
    assert_true(llabs(kept - SAMPLES * N * 3 / 4) < 200);
    Team *team = team_new(2, false);
    /* the last samples alone get what they got in the batch; in place */
    dropout(team, x + 9 * N, x + 9 * N, 0.25, key, 49, SAMPLES - 9, N);
    assert_memory_equal(x + 9 * N, y + 9 * N, (SAMPLES - 9) * N * sizeof *x);
    dropout(team, y, x, 1, key, 0, SAMPLES, N);
    for (int i = 0; i < SAMPLES * N; i++)
        assert_true(y[i] == 0);
    dropout(team, y, x, 0, key, 0, SAMPLES, N);
    assert_memory_equal(x, y, SAMPLES * N * sizeof *x);
    team_free(team);
    free(x);
    free(y);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_norms),
        cmocka_unit_test(test_softmax),
        cmocka_unit_test(test_losses),
        cmocka_unit_test(test_embedding),
        cmocka_unit_test(test_loss_of_large_logits),
        cmocka_unit_test(test_philox),
        cmocka_unit_test(test_dropout),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
