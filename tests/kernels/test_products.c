/* Matrix products, linear layers and batched products against three loops in double. */
#include "check.h"

typedef struct {
    int64_t m, n, k;
} Shape;

/* 1024: rows that lie a multiple of a page apart */
static const Shape SHAPES[] = {
    {1, 1, 1},      {3, 5, 7},     {8, 48, 16},    {8, 500, 333},  {9, 49, 17},     {17, 97, 401},
    {64, 100, 70},  {130, 51, 8},  {33, 1, 800},   {1, 77, 500},   {5, 130, 1},     {140, 250, 13},
    {16, 100, 193}, {24, 31, 400}, {7, 3, 0},      {600, 400, 40}, {300, 33, 1024}, {130, 9, 40},
    {1024, 24, 30}, {11, 17, 23},  {40, 1024, 60},
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

static void check_gemm(Shape s, bool ta, bool tb, bool accumulate, int64_t pad)
{
    const int64_t lda = (ta ? s.m : s.k) + pad, ldb = (tb ? s.k : s.n) + pad, ldc = s.n + pad;
    real *a = new_numbers(lda * (ta ? s.k : s.m), 1), *b = new_numbers(ldb * (tb ? s.n : s.k), 2);
    real *c = new_numbers(s.m * ldc, 3), *before = new_numbers(s.m * ldc, 3);
    ON_EVERY_TEAM(c, s.m * ldc, 3,
                  gemm(team, ta, tb, s.m, s.n, s.k, a, lda, b, ldb, accumulate, c, ldc));
    double *want = new_doubles(s.m * s.n);
    for (int64_t i = 0; i < s.m * s.n && accumulate; i++)
        want[i] = (double)before[i / s.n * ldc + i % s.n];
    reference(want, ta, tb, s, a, lda, b, ldb);
    for (int64_t i = 0; i < s.m; i++) {
        check_close(c + i * ldc, want + i * s.n, s.n, tolerance_of(s.k), "gemm");
        assert_memory_equal(c + i * ldc + s.n, before + i * ldc + s.n, (size_t)pad * sizeof *c);
    }
    free(a);
    free(b);
    free(c);
    free(before);
    free(want);
}

static void test_gemm(void **state)
{
    (void)state;
    for (int i = 0; i < SHAPE_COUNT; i++)
        for (int kind = 0; kind < 8; kind++)
            check_gemm(SHAPES[i], kind & 1, kind & 2, kind & 4, i % 2 * 3);
}

static void check_linear(Shape s, bool transposed, bool bias)
{
    const int64_t rows = s.m, n = s.n, k = s.k;
    real *x = new_numbers(rows * k, 1), *w = new_numbers(n * k, 2), *b = new_numbers(n, 3);
    real *y = new_numbers(rows * n, 0), *dx = new_numbers(rows * k, 0), *dw = new_numbers(n * k, 0);
    real *dy = new_numbers(rows * n, 4);
    double *want = new_doubles(rows * n + rows * k + n * k);
    ON_EVERY_TEAM(y, rows * n, 9,
                  linear_forward(team, y, x, w, bias ? b : NULL, rows, k, n, transposed));
    for (int64_t i = 0; i < rows * n && bias; i++)
        want[i] = (double)b[i % n];
    reference(want, false, !transposed, s, x, k, w, transposed ? n : k);
    check_close(y, want, rows * n, tolerance_of(k), "linear_forward");

    ON_EVERY_TEAM(dx, rows * k, 9, linear_backward_input(team, dx, dy, w, rows, k, n, transposed));
    double *want_dx = want + rows * n;
    reference(want_dx, false, transposed, (Shape){rows, k, n}, dy, n, w, transposed ? n : k);
    check_close(dx, want_dx, rows * k, tolerance_of(n), "linear_backward_input");

    ON_EVERY_TEAM(dw, n * k, 9,
                  linear_backward_weight(team, dw, dy, x, rows, k, n, transposed, bias));
    double *want_dw = want_dx + rows * k;
    for (int64_t i = 0; i < n * k && bias; i++)
        want_dw[i] = number_at(9, i);
    if (transposed)
        reference(want_dw, true, false, (Shape){k, n, rows}, x, k, dy, n);
    else
        reference(want_dw, true, false, (Shape){n, k, rows}, dy, n, x, k);
    check_close(dw, want_dw, n * k, tolerance_of(rows), "linear_backward_weight");
    free(x);
    free(w);
    free(b);
    free(y);
    free(dx);
    free(dw);
    free(dy);
    free(want);
}

static void test_linear(void **state)
{
    (void)state;
    for (int i = 0; i < SHAPE_COUNT; i++)
        for (int kind = 0; kind < 4; kind++)
            check_linear(SHAPES[i], kind & 1, kind & 2);
}

/* A row's result must not change with what the other rows hold. */
static void test_rows_are_independent(void **state)
{
    (void)state;
    enum { ROWS = 19, K = 300, N = 70 };
    real *x = new_numbers(ROWS * K, 1), *w = new_numbers(N * K, 2),
         *other = new_numbers(ROWS * K, 5);
    real *y = new_numbers(ROWS * N, 0), *z = new_numbers(ROWS * N, 0);
    memcpy(other + 11 * K, x + 11 * K, K * sizeof *x);
    Team *team = team_new(2, false);
    linear_forward(team, y, x, w, NULL, ROWS, K, N, false);
    linear_forward(team, z, other, w, NULL, ROWS, K, N, false);
    assert_memory_equal(y + 11 * N, z + 11 * N, N * sizeof *y);
    assert_memory_not_equal(y, z, N * sizeof *y);
    team_free(team);
    free(x);
    free(w);
    free(other);
    free(y);
    free(z);
}

/* a[3,1,m,k] b[1,4,k,n] -> c[3,4,m,n], and summed over the 3 -> c[4,m,n]. */
static void check_matmul(Shape s, bool ta, bool tb, bool summed, bool accumulate)
{
    enum { P = 3, Q = 4 };
    const int64_t mk = s.m * s.k, kn = s.k * s.n, mn = s.m * s.n, outs = summed ? Q : P * Q;
    real *a = new_numbers(P * mk, 1), *b = new_numbers(Q * kn, 2), *c = new_numbers(outs * mn, 0);
    const MatmulBatch batch = {.rank = 2,
                               .dim = {P, Q},
                               .stride_a = {mk, 0},
                               .stride_b = {0, kn},
                               .stride_c = {summed ? 0 : Q * mn, mn}};
    ON_EVERY_TEAM(c, outs * mn, 7,
                  matmul(team, c, a, b, ta, tb, s.m, s.n, s.k, &batch, accumulate));
    double *want = new_doubles(outs * mn);
    for (int64_t i = 0; i < outs * mn && accumulate; i++)
        want[i] = number_at(7, i);
    for (int64_t p = 0; p < P; p++)
        for (int64_t q = 0; q < Q; q++)
            reference(want + (summed ? q : p * Q + q) * mn, ta, tb, s, a + p * mk, ta ? s.m : s.k,
                      b + q * kn, tb ? s.k : s.n);
    check_close(c, want, outs * mn, tolerance_of(P * s.k), "matmul");
    free(a);
    free(b);
    free(c);
    free(want);
}

static void test_matmul(void **state)
{
    (void)state;
    for (int i = 0; i < SHAPE_COUNT; i++)
        for (int kind = 0; kind < 16; kind++)
            if (SHAPES[i].m * SHAPES[i].n * SHAPES[i].k < 1000000)
                check_matmul(SHAPES[i], kind & 1, kind & 2, kind & 4, kind & 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gemm),
        cmocka_unit_test(test_linear),
        cmocka_unit_test(test_rows_are_independent),
        cmocka_unit_test(test_matmul),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
