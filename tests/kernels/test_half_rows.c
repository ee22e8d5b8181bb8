/* Norms, losses, dropout, sums and rounding in mixed precision against the float kernels on
 * widened numbers: the same results, rounded once. */
#include "check_half.h"

static const int64_t ROWS[] = {1, 3, 37}, COLUMNS[] = {1, 7, 64, 333, 1100};
enum { ROW_KINDS = 3, COLUMN_KINDS = 5, SLACK = 16 };

static double *doubles_of(const real *x, int64_t n)
{
    double *y = new_doubles(n);
    for (int64_t i = 0; i < n; i++)
        y[i] = (double)x[i];
    return y;
}

static void check_floats(const real *got, const real *want, int64_t n, double tolerance,
                         const char *what)
{
    double *wide = doubles_of(want, n);
    check_close(got, wide, n, tolerance, what);
    free(wide);
}

static void check_halves(HalfKind kind, const half16 *got, const real *want, int64_t n,
                         double tolerance, const char *what)
{
    double *wide = doubles_of(want, n);
    check_rounded(kind, got, wide, n, tolerance, what);
    free(wide);
}

typedef struct {
    real *out;
    int64_t n;
    int *times; /* of a row */
} Watch;

static void negate(void *args, int64_t row, int64_t from, int64_t to)
{
    const Watch *w = args;
    for (int64_t i = row * w->n + from; i < row * w->n + to; i++)
        w->out[i] = -w->out[i];
    w->times[row] += from == 0 && to == w->n ? 1 : 2;
}

typedef struct {
    HalfKind kind;
    bool centred, bias;
    int64_t rows, n;
    real *x, *w, *b, *mean, *rstd;
    half16 *dy;
    real *wide_dy;
} NormCase;

static void check_norm_forward(const NormCase *c)
{
    const int64_t size = c->rows * c->n;
    const real eps = (real)1e-3, *b = c->bias ? c->b : NULL;
    half16 *y = new_halves(c->kind, size, 5);
    real *want = new_numbers(size, 6), *mean = new_numbers(c->rows, 7);
    real *rstd = new_numbers(c->rows, 8);
    Team *two = team_new(2, false);
    assert_non_null(two);
    if (c->centred)
        layernorm_forward(two, want, c->mean, c->rstd, c->x, c->w, b, c->rows, c->n, eps);
    else
        rmsnorm_forward(two, want, c->rstd, c->x, c->w, c->rows, c->n, eps);
    team_free(two);
    if (c->centred)
        SAME_ON_EVERY_TEAM(y, size * 2, 0x5a,
                           layernorm_forward_half(team, c->kind, y, mean, rstd, c->x, c->w, b,
                                                  c->rows, c->n, eps));
    else
        SAME_ON_EVERY_TEAM(
            y, size * 2, 0x5a,
            rmsnorm_forward_half(team, c->kind, y, rstd, c->x, c->w, c->rows, c->n, eps));
    check_halves(c->kind, y, want, size, SLACK, "norm forward");
    check_floats(rstd, c->rstd, c->rows, SLACK, "norm rstd");
    if (c->centred)
        check_floats(mean, c->mean, c->rows, SLACK, "norm mean");
    free(y);
    free(want);
    free(mean);
    free(rstd);
}

static void check_norm_input(const NormCase *c)
{
    const int64_t size = c->rows * c->n;
    real *dx = new_numbers(size, 5), *want = new_numbers(size, 6);
    for (int t = 0; t < TEAMS; t++) {
        Watch watch = {dx, c->n, calloc((size_t)c->rows, sizeof(int))};
        const Tail tail = {negate, &watch};
        Team *team = team_new(TEAM_SIZES[t], false);
        assert_true(team && watch.times);
        if (c->centred) {
            layernorm_backward_input(team, want, c->wide_dy, c->x, c->w, c->mean, c->rstd, c->rows,
                                     c->n);
            layernorm_backward_input_half(team, c->kind, dx, c->dy, c->x, c->w, c->mean, c->rstd,
                                          c->rows, c->n, &tail);
        } else {
            rmsnorm_backward_input(team, want, c->wide_dy, c->x, c->w, c->rstd, c->rows, c->n);
            rmsnorm_backward_input_half(team, c->kind, dx, c->dy, c->x, c->w, c->rstd, c->rows,
                                        c->n, &tail);
        }
        team_free(team);
        for (int64_t r = 0; r < c->rows; r++)
            assert_int_equal(watch.times[r], 1);
        for (int64_t i = 0; i < size; i++) { /* as large as 1 / deviation */
            want[i] = -want[i] / c->rstd[i / c->n];
            dx[i] /= c->rstd[i / c->n];
        }
        check_floats(dx, want, size, 40, "norm backward input");
        free(watch.times);
    }
    free(dx);
    free(want);
}

static void check_norm_weight(const NormCase *c)
{
    real *dw = new_numbers(2 * c->n, 5), *want = new_numbers(2 * c->n, 9), *db = dw + c->n;
    real *want_db = want + c->n;
    Team *one = team_new(1, false);
    assert_non_null(one);
    if (c->centred) {
        layernorm_backward_weight(one, want, c->bias ? want_db : NULL, c->wide_dy, c->x, c->mean,
                                  c->rstd, c->rows, c->n, c->bias);
        ON_EVERY_TEAM(dw, 2 * c->n, 9,
                      layernorm_backward_weight_half(team, c->kind, dw, c->bias ? db : NULL, c->dy,
                                                     c->x, c->mean, c->rstd, c->rows, c->n,
                                                     c->bias));
    } else {
        rmsnorm_backward_weight(one, want, c->wide_dy, c->x, c->rstd, c->rows, c->n, c->bias);
        ON_EVERY_TEAM(dw, 2 * c->n, 9,
                      rmsnorm_backward_weight_half(team, c->kind, dw, c->dy, c->x, c->rstd, c->rows,
                                                   c->n, c->bias));
    }
    team_free(one);
    check_floats(dw, want, 2 * c->n, 64, "norm backward weight");
    free(dw);
    free(want);
}

static void check_norm(HalfKind kind, int64_t rows, int64_t n, bool centred, bool bias)
{
    NormCase c = {.kind = kind, .centred = centred, .bias = bias, .rows = rows, .n = n};
    c.x = new_numbers(rows * n, 1);
    c.w = new_numbers(n, 2);
    c.b = new_numbers(n, 3);
    c.mean = new_numbers(rows, 0);
    c.rstd = new_numbers(rows, 0);
    c.dy = new_halves(kind, rows * n, 4);
    c.wide_dy = widened(kind, c.dy, rows * n);
    check_norm_forward(&c);
    check_norm_input(&c);
    check_norm_weight(&c);
    free(c.x);
    free(c.w);
    free(c.b);
    free(c.mean);
    free(c.rstd);
    free(c.dy);
    free(c.wide_dy);
}

static void test_norms(void **state)
{
    (void)state;
    for (int r = 0; r < ROW_KINDS; r++)
        for (int n = 0; n < COLUMN_KINDS; n++)
            for (int v = 0; v < 4 * KIND_COUNT; v++)
                check_norm(KINDS[v / 4], ROWS[r], COLUMNS[n], v & 1, v & 2);
}

static void check_loss(HalfKind kind, int64_t samples, int64_t inner, int64_t n)
{
    const int64_t rows = samples * inner, size = rows * n;
    half16 *x = new_halves(kind, size, 1), *dx = new_halves(kind, size, 2);
    real *loss = new_numbers(samples, 0), *lse = new_numbers(rows, 0);
    real *want = new_numbers(samples, 0), *want_lse = new_numbers(rows, 0);
    real *want_dx = new_numbers(size, 0), *dloss = new_numbers(samples, 3);
    int32_t *y = malloc((size_t)rows * sizeof *y);
    assert_non_null(y);
    for (int64_t i = 0; i < size; i++) /* ties happen */
        x[i] = half_nearest(kind, (int)(number_at(1, i) * 20));
    real *wide = widened(kind, x, size);
    for (int64_t r = 0; r < rows; r++) {
        y[r] = (int32_t)(r * 7 % n);
        for (int64_t i = 0; i < n && r % 3 == 0; i++)
            y[r] = (int32_t)(wide[r * n + i] > wide[r * n + y[r]] ? i : y[r]);
    }
    Team *two = team_new(2, false);
    assert_non_null(two);
    cross_entropy_forward(two, want, want_lse, wide, y, samples, inner, n);
    cross_entropy_backward(two, want_dx, wide, want_lse, y, dloss, samples, inner, n);
    ON_EVERY_TEAM(loss, samples, 9,
                  cross_entropy_forward_half(team, kind, loss, lse, x, y, samples, inner, n));
    check_floats(loss, want, samples, SLACK, "cross_entropy_forward_half");
    check_floats(lse, want_lse, rows, SLACK, "cross entropy's lse");
    SAME_ON_EVERY_TEAM(
        dx, size * 2, 0x5a,
        cross_entropy_backward_half(team, kind, dx, x, lse, y, dloss, samples, inner, n));
    check_halves(kind, dx, want_dx, size, 64, "cross_entropy_backward_half");
    accuracy_forward(two, want, wide, y, samples, inner, n);
    ON_EVERY_TEAM(loss, samples, 9,
                  accuracy_forward_half(team, kind, loss, x, y, samples, inner, n));
    assert_memory_equal(loss, want, (size_t)samples * sizeof *loss);
    cross_entropy_backward_half(two, kind, x, x, lse, y, dloss, samples, inner, n);
    assert_memory_equal(x, dx, (size_t)size * sizeof *x);
    team_free(two);
    free(x);
    free(dx);
    free(loss);
    free(lse);
    free(want);
    free(want_lse);
    free(want_dx);
    free(dloss);
    free(y);
    free(wide);
}

static void test_losses(void **state)
{
    (void)state;
    for (int v = 0; v < KIND_COUNT; v++) {
        check_loss(KINDS[v], 1, 1, 2);
        check_loss(KINDS[v], 64, 1, 10);
        check_loss(KINDS[v], 5, 3, 1500);
        check_loss(KINDS[v], 200, 7, 33);
        check_loss(KINDS[v], 2, 2, 50257);
    }
}

/* A logit that is not a number makes its row's loss none, and no other's. */
static void test_loss_not_finite(void **state)
{
    (void)state;
    enum { N = 1100 };
    for (int v = 0; v < KIND_COUNT; v++) {
        half16 *x = new_halves(KINDS[v], 2 * N, 1);
        real loss[2], lse[2];
        const int32_t y[2] = {3, 1060};
        x[N + 1050] = KINDS[v] == HALF_BF16 ? 0x7fc0 : 0x7e00;
        ON_EVERY_TEAM(lse, 2, 9,
                      cross_entropy_forward_half(team, KINDS[v], loss, lse, x, y, 2, 1, N));
        assert_true(isfinite(loss[0]) && isnan(loss[1]) && isnan(lse[1]));
        free(x);
    }
}

static void test_dropout(void **state)
{
    (void)state;
    enum { SAMPLES = 13, N = 1003 };
    const uint64_t key = 0x123456789abcdef0;
    for (int v = 0; v < KIND_COUNT; v++) {
        const HalfKind kind = KINDS[v];
        half16 *x = new_halves(kind, SAMPLES * N, 1), *y = new_halves(kind, SAMPLES * N, 2);
        real *wide = widened(kind, x, SAMPLES * N), *want = new_numbers(SAMPLES * N, 0);
        Team *two = team_new(2, false);
        assert_non_null(two);
        dropout(two, want, wide, 0.3, key, 40, SAMPLES, N);
        SAME_ON_EVERY_TEAM(y, SAMPLES * N * 2, 0x5a,
                           dropout_half(team, kind, y, x, 0.3, key, 40, SAMPLES, N));
        for (int i = 0; i < SAMPLES * N; i++)
            assert_int_equal(y[i], want[i] == 0 ? 0 : half_nearest(kind, (double)want[i]));
        dropout_half(two, kind, x, x, 0.3, key, 40, SAMPLES, N);
        assert_memory_equal(x, y, SAMPLES * N * sizeof *x);
        dropout_half(two, kind, y, x, 1, key, 40, SAMPLES, N);
        for (int i = 0; i < SAMPLES * N; i++)
            assert_int_equal(y[i], 0);
        dropout_half(two, kind, y, x, 0, key, 40, SAMPLES, N);
        assert_memory_equal(x, y, SAMPLES * N * sizeof *x);
        team_free(two);
        free(x);
        free(y);
        free(wide);
        free(want);
    }
}

static void test_reduce_sum(void **state)
{
    (void)state;
    static const int64_t dims[][4] = {
        {3, 5, 1, 7}, {2, 1100, 3, 1}, {70, 2, 3, 40}, {1, 300, 1, 600}, {4, 1, 1, 5000}};
    for (size_t d = 0; d < sizeof dims / sizeof dims[0]; d++) {
        const int64_t *dim = dims[d], size = dim[0] * dim[1] * dim[2] * dim[3];
        for (unsigned v = 0; v < 32; v++) {
            const HalfKind kind = KINDS[v / 16];
            const unsigned mask = v % 16;
            const bool accumulate = v & 1;
            int64_t outs = 1;
            for (int i = 0; i < 4; i++)
                outs *= mask >> i & 1 ? 1 : dim[i];
            half16 *x = new_halves(kind, size, 1);
            real *wide = widened(kind, x, size), *y = new_numbers(outs, 0);
            real *want = new_numbers(outs, 9);
            Team *two = team_new(2, false);
            assert_non_null(two);
            reduce_sum(two, want, wide, 4, dim, mask, 0.5, accumulate);
            team_free(two);
            ON_EVERY_TEAM(y, outs, 9,
                          reduce_sum_half(team, kind, y, x, 4, dim, mask, 0.5, accumulate));
            check_floats(y, want, outs, 10 + 4 * sqrt((double)(size / outs)), "reduce_sum_half");
            free(x);
            free(wide);
            free(y);
            free(want);
        }
    }
}

/* Every 16-bit number comes back; between two neighbours the nearer one, or the even. */
static void test_round(void **state)
{
    (void)state;
    enum { ALL = 0x7f80 };
    for (int v = 0; v < KIND_COUNT; v++) {
        const HalfKind kind = KINDS[v];
        const int finite = kind == HALF_BF16 ? 0x7f7f : 0x7bff;
        real *x = new_numbers(8 * ALL, 0);
        half16 *y = new_halves(kind, 8 * ALL, 0), *want = new_halves(kind, 8 * ALL, 0);
        int64_t n = 0;
        for (int h = 0; h < finite; h++) {
            const double low = half_value(kind, (half16)h),
                         high = half_value(kind, (half16)(h + 1));
            const real middle = (real)((low + high) / 2);
            const real cases[] = {(real)low, middle, nextafterf((float)middle, 0),
                                  nextafterf((float)middle, INFINITY)};
            const int nearest[] = {h, h + (h & 1), h, h + 1};
            for (int i = 0; i < 4; i++) {
                const bool negative = h % 2;
                x[n] = negative ? -cases[i] : cases[i];
                want[n++] = (half16)(nearest[i] | (negative ? 0x8000 : 0));
            }
        }
        SAME_ON_EVERY_TEAM(y, n * 2, 0x5a, half_round(team, kind, y, x, n));
        assert_memory_equal(y, want, (size_t)n * sizeof *y);
        const real odd[] = {INFINITY, -INFINITY, NAN, 0, -0.0f, 3e38f, 1e-45f, -1e-45f};
        Team *one = team_new(1, false);
        assert_non_null(one);
        half_round(one, kind, y, odd, 8);
        team_free(one);
        assert_true(y[0] == (kind == HALF_BF16 ? 0x7f80 : 0x7c00) && y[1] == (y[0] | 0x8000));
        assert_true(isnan(half_value(kind, y[2])) && y[3] == 0 && y[4] == 0x8000);
        assert_int_equal(y[5], kind == HALF_BF16 ? 0x7f62 : 0x7c00);
        assert_true(y[6] == 0 && y[7] == 0x8000);
        free(x);
        free(y);
        free(want);
    }
}

static void test_fill(void **state)
{
    (void)state;
    enum { N = 40001 };
    static const float values[] = {0, 1.00390625f, -65519};
    static const half16 bits[][2] = {{0, 0}, {0x3f80, 0x3c04}, {0xc780, 0xfbff}};
    for (int k = 0; k < 2; k++) {
        half16 *y = new_halves(k ? HALF_F16 : HALF_BF16, N, 0);
        for (int i = 0; i < 3; i++) {
            SAME_ON_EVERY_TEAM(y, N * 2, 0x5a,
                               fill_half(team, k ? HALF_F16 : HALF_BF16, y, values[i], N));
            for (int64_t n = 0; n < N; n++)
                assert_int_equal(y[n], bits[i][k]);
        }
        free(y);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_norms),
        cmocka_unit_test(test_losses),
        cmocka_unit_test(test_loss_not_finite),
        cmocka_unit_test(test_dropout),
        cmocka_unit_test(test_reduce_sum),
        cmocka_unit_test(test_round),
        cmocka_unit_test(test_fill),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
