/* Products of 16-bit matrices against three loops in double: every result is within the error of
 * float sums, and rounded once. */
#include "check_half.h"

typedef struct {
    int64_t m, n, k;
} Shape;

static const Shape SHAPES[] = {
    {1, 1, 1},      {3, 5, 7},      {8, 48, 16},    {8, 500, 333},   {9, 49, 17},
    {17, 97, 401},  {64, 100, 70},  {130, 51, 8},   {33, 1, 800},    {1, 77, 500},
    {5, 130, 1},    {140, 250, 13}, {16, 100, 193}, {24, 31, 400},   {7, 3, 0},
    {40, 64, 1030}, {70, 90, 1601}, {300, 50, 64},  {1100, 400, 40}, {270, 20, 1300},
};
enum { SHAPE_COUNT = sizeof SHAPES / sizeof SHAPES[0] };

/* want[m,n] += op(a) op(b) */
static void reference(double *want, bool ta, bool tb, Shape s, const real *a, int64_t lda,
                      const real *b, int64_t ldb)
{
    for (int64_t i = 0; i < s.m; i++)
        for (int64_t j = 0; j < s.n; j++)
            for (int64_t k = 0; k < s.k; k++)
                want[i * s.n + j] += (double)a[ta ? k * lda + i : i * lda + k] *
                                     (double)b[tb ? j * ldb + k : k * ldb + j];
}

static double tolerance_of(int64_t k)
{
    return 10 + 10 * sqrt((double)k);
}

static void check_forward(HalfKind kind, Shape s, bool transposed, bool bias)
{
    const int64_t rows = s.m, n = s.n, k = s.k, size = rows * n;
    half16 *x = new_halves(kind, rows * k, 1), *w = new_halves(kind, n * k, 2);
    real *b = new_numbers(n, 3), *wide_x = widened(kind, x, rows * k);
    real *wide_w = widened(kind, w, n * k);
    half16 *y = new_halves(kind, size, 4);
    SAME_ON_EVERY_TEAM(
        y, size * 2, 0x5a,
        linear_forward_half(team, kind, y, x, w, bias ? b : NULL, rows, k, n, transposed, NULL));
    double *want = new_doubles(size);
    for (int64_t i = 0; i < size && bias; i++)
        want[i] = (double)b[i % n];
    reference(want, false, !transposed, s, wide_x, k, wide_w, transposed ? n : k);
    check_rounded(kind, y, want, size, tolerance_of(k), "linear_forward_half");
    free(x);
    free(w);
    free(b);
    free(y);
    free(wide_x);
    free(wide_w);
    free(want);
}

static void check_backward(HalfKind kind, Shape s, bool transposed, bool accumulate)
{
    const int64_t rows = s.m, n = s.n, k = s.k;
    half16 *x = new_halves(kind, rows * k, 1), *w = new_halves(kind, n * k, 2);
    half16 *dy = new_halves(kind, rows * n, 4), *dx = new_halves(kind, rows * k, 5);
    real *wide_x = widened(kind, x, rows * k), *wide_w = widened(kind, w, n * k);
    real *wide_dy = widened(kind, dy, rows * n), *dw = new_numbers(n * k, 6);
    double *want = new_doubles(rows * k), *want_dw = new_doubles(n * k);
    SAME_ON_EVERY_TEAM(
        dx, rows * k * 2, 0x5a,
        linear_backward_input_half(team, kind, dx, dy, w, rows, k, n, transposed, NULL));
    reference(want, false, transposed, (Shape){rows, k, n}, wide_dy, n, wide_w, transposed ? n : k);
    check_rounded(kind, dx, want, rows * k, tolerance_of(n), "linear_backward_input_half");
    ON_EVERY_TEAM(
        dw, n * k, 9,
        linear_backward_weight_half(team, kind, dw, dy, x, rows, k, n, transposed, accumulate));
    for (int64_t i = 0; i < n * k && accumulate; i++)
        want_dw[i] = (double)(real)number_at(9, i);
    if (transposed)
        reference(want_dw, true, false, (Shape){k, n, rows}, wide_x, k, wide_dy, n);
    else
        reference(want_dw, true, false, (Shape){n, k, rows}, wide_dy, n, wide_x, k);
    check_close(dw, want_dw, n * k, tolerance_of(rows), "linear_backward_weight_half");
    free(x);
    free(w);
    free(dy);
    free(dx);
    free(wide_x);
    free(wide_w);
    free(wide_dy);
    free(dw);
    free(want);
    free(want_dw);
}

static void test_linear(void **state)
{
    (void)state;
    for (int i = 0; i < SHAPE_COUNT; i++)
        for (int v = 0; v < 4 * KIND_COUNT; v++) {
            check_forward(KINDS[v / 4], SHAPES[i], v & 1, v & 2);
            check_backward(KINDS[v / 4], SHAPES[i], v & 1, v & 2);
        }
}

typedef struct {
    half16 *out, *seen;
    int *times;
    int64_t n;
} Watch;

static void watch(void *args, int64_t row, int64_t from, int64_t to)
{
    const Watch *w = args;
    for (int64_t i = row * w->n + from; i < row * w->n + to; i++) {
        w->seen[i] = w->out[i];
        w->times[i]++;
        w->out[i] = 0;
    }
}

/* Every element once, when it is final; what the tail stores stays. */
static void check_tail(HalfKind kind, Shape s, bool input)
{
    const int64_t rows = s.m, n = input ? s.k : s.n, size = rows * n;
    half16 *x = new_halves(kind, rows * (input ? s.n : s.k), 1);
    half16 *w = new_halves(kind, s.n * s.k, 2), *plain = new_halves(kind, size, 3);
    half16 *out = new_halves(kind, size, 4), *seen = new_halves(kind, size, 5);
    for (int t = 0; t < TEAMS; t++) {
        Watch v = {out, seen, calloc((size_t)size + 1, sizeof(int)), n};
        const Tail tail = {watch, &v}, none = {0};
        Team *team = team_new(TEAM_SIZES[t], false);
        assert_true(team && v.times);
        if (input) {
            linear_backward_input_half(team, kind, plain, x, w, rows, s.k, s.n, false, &none);
            linear_backward_input_half(team, kind, out, x, w, rows, s.k, s.n, false, &tail);
        } else {
            linear_forward_half(team, kind, plain, x, w, NULL, rows, s.k, s.n, false, NULL);
            linear_forward_half(team, kind, out, x, w, NULL, rows, s.k, s.n, false, &tail);
        }
        team_free(team);
        assert_memory_equal(seen, plain, (size_t)size * 2);
        for (int64_t i = 0; i < size; i++) {
            assert_int_equal(v.times[i], 1);
            assert_int_equal(out[i], 0);
        }
        free(v.times);
    }
    free(x);
    free(w);
    free(plain);
    free(out);
    free(seen);
}

static void test_tails(void **state)
{
    (void)state;
    for (int i = 0; i < SHAPE_COUNT; i++)
        for (int v = 0; v < 2 * KIND_COUNT; v++)
            check_tail(KINDS[v / 2], SHAPES[i], v & 1);
}

/* a[3,1,m,k] b[1,4,k,n] -> c[3,4,m,n], and summed over the 3 -> c[4,m,n]. */
static void check_matmul(HalfKind kind, Shape s, bool ta, bool tb, bool summed, bool wide)
{
    enum { P = 3, Q = 4 };
    const int64_t mk = s.m * s.k, kn = s.k * s.n, mn = s.m * s.n, outs = summed ? Q : P * Q;
    half16 *a = new_halves(kind, P * mk, 1), *b = new_halves(kind, Q * kn, 2);
    real *wide_a = widened(kind, a, P * mk), *wide_b = widened(kind, b, Q * kn);
    const MatmulBatch batch = {.rank = 2,
                               .dim = {P, Q},
                               .stride_a = {mk, 0},
                               .stride_b = {0, kn},
                               .stride_c = {summed ? 0 : Q * mn, mn}};
    double *want = new_doubles(outs * mn);
    for (int64_t i = 0; i < outs * mn && wide; i++)
        want[i] = (double)(real)number_at(7, i);
    for (int64_t p = 0; p < P; p++)
        for (int64_t q = 0; q < Q; q++)
            reference(want + (summed ? q : p * Q + q) * mn, ta, tb, s, wide_a + p * mk,
                      ta ? s.m : s.k, wide_b + q * kn, tb ? s.k : s.n);
    if (wide) {
        real *c = new_numbers(outs * mn, 0);
        ON_EVERY_TEAM(c, outs * mn, 7,
                      matmul_half(team, kind, c, true, a, b, ta, tb, s.m, s.n, s.k, &batch, true));
        check_close(c, want, outs * mn, tolerance_of(P * s.k), "matmul_half");
        free(c);
    } else {
        half16 *c = new_halves(kind, outs * mn, 0);
        SAME_ON_EVERY_TEAM(
            c, outs * mn * 2, 0x5a,
            matmul_half(team, kind, c, false, a, b, ta, tb, s.m, s.n, s.k, &batch, false));
        check_rounded(kind, c, want, outs * mn, tolerance_of(P * s.k), "matmul_half");
        free(c);
    }
    free(a);
    free(b);
    free(wide_a);
    free(wide_b);
    free(want);
}

static void test_matmul(void **state)
{
    (void)state;
    for (int i = 0; i < SHAPE_COUNT; i++)
        for (int v = 0; v < 16 * KIND_COUNT; v++)
            if (SHAPES[i].m * SHAPES[i].n * SHAPES[i].k <= 1000000)
                check_matmul(KINDS[v / 16], SHAPES[i], v & 1, v & 2, v & 4, v & 8);
}

/* What is not finite stays so, in its own row or column alone. */
static void test_not_finite(void **state)
{
    (void)state;
    enum { ROWS = 19, K = 65, N = 70, NAN_ROW = 3, INFINITE_ROW = 12 };
    for (int v = 0; v < KIND_COUNT; v++) {
        const HalfKind kind = KINDS[v];
        const half16 infinity = kind == HALF_BF16 ? 0x7f80 : 0x7c00;
        half16 *x = new_halves(kind, ROWS * K, 1), *w = new_halves(kind, N * K, 2);
        half16 *y = new_halves(kind, ROWS * N, 3), *plain = new_halves(kind, ROWS * N, 3);
        Team *team = team_new(2, false);
        assert_non_null(team);
        linear_forward_half(team, kind, plain, x, w, NULL, ROWS, K, N, false, NULL);
        x[NAN_ROW * K + K - 1] = infinity | 1;
        x[INFINITE_ROW * K + 4] = infinity;
        linear_forward_half(team, kind, y, x, w, NULL, ROWS, K, N, false, NULL);
        for (int64_t i = 0; i < ROWS * N; i++) {
            const double value = half_value(kind, y[i]), by = half_value(kind, w[i % N * K + 4]);
            if (i / N == NAN_ROW)
                assert_true(isnan(value));
            else if (i / N == INFINITE_ROW)
                assert_true(isinf(value) && (value > 0) == (by > 0));
            else
                assert_int_equal(y[i], plain[i]);
        }
        team_free(team);
        free(x);
        free(w);
        free(y);
        free(plain);
    }
}

/* Products of subnormal numbers: exact in f16; what bf16's instructions make zero is smaller than
 * any normal number. */
static void test_subnormal(void **state)
{
    (void)state;
    enum { ROWS = 9, K = 6, N = 20 };
    for (int v = 0; v < KIND_COUNT; v++) {
        const HalfKind kind = KINDS[v];
        half16 x[ROWS * K], w[N * K], y[ROWS * N];
        for (int i = 0; i < ROWS * K; i++)
            x[i] = (half16)(i % 40 + 1); /* sums below 256 are whole in either kind */
        for (int i = 0; i < N * K; i++)
            w[i] = half_nearest(kind, 1);
        Team *team = team_new(1, false);
        assert_non_null(team);
        linear_forward_half(team, kind, y, x, w, NULL, ROWS, K, N, false, NULL);
        team_free(team);
        for (int i = 0; i < ROWS * N; i++) {
            int want = 0;
            for (int k = 0; k < K; k++)
                want += x[i / N * K + k];
            assert_true(y[i] == want || (kind == HALF_BF16 && y[i] == 0));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_linear),    cmocka_unit_test(test_tails),
        cmocka_unit_test(test_matmul),    cmocka_unit_test(test_not_finite),
        cmocka_unit_test(test_subnormal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
