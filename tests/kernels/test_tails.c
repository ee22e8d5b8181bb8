/* Tails: every element of a result is handed on exactly once, when its value is final, and what
 * the tail does to it stays. */
#include "check.h"

typedef struct {
    real *out;  /* what the kernel writes */
    real *seen; /* what was there when the tail came */
    int *times;
    int64_t n;
} Watch;

static void watch(void *args, int64_t row, int64_t from, int64_t to)
{
    const Watch *w = args;
    for (int64_t i = row * w->n + from; i < row * w->n + to; i++) {
        w->seen[i] = w->out[i];
        w->times[i]++; /* no other thread has this element */
        w->out[i] = -w->out[i];
    }
}

/* Runs `call`, which uses `team`, `out` and `tail`, and compares with `plain`. */
#define CHECK_TAIL(plain, rows, width, call)                                                       \
    do {                                                                                           \
        const int64_t size_ = (rows) * (width);                                                    \
        for (int t_ = 0; t_ < TEAMS; t_++) {                                                       \
            Team *team = team_new(TEAM_SIZES[t_], false);                                          \
            assert_non_null(team);                                                                 \
            real *out = new_numbers(size_, 21), *seen = new_numbers(size_, 22);                    \
            Watch w_ = {out, seen, calloc((size_t)size_ + 1, sizeof(int)), width};                 \
            assert_non_null(w_.times);                                                             \
            const Tail tail = {watch, &w_};                                                        \
            call;                                                                                  \
            team_free(team);                                                                       \
            for (int64_t i_ = 0; i_ < size_; i_++) {                                               \
                assert_int_equal(w_.times[i_], 1);                                                 \
                assert_true(out[i_] == -(plain)[i_]);                                              \
            }                                                                                      \
            assert_memory_equal(seen, plain, (size_t)size_ * sizeof *seen);                        \
            free(out);                                                                             \
            free(seen);                                                                            \
            free(w_.times);                                                                        \
        }                                                                                          \
    } while (0)

/* rows, k, n */
static const int64_t SHAPES[][3] = {{1, 1, 1},     {3, 7, 5},      {8, 16, 48},   {17, 401, 97},
                                    {5, 300, 200}, {130, 8, 51},   {33, 800, 1},  {140, 13, 250},
                                    {70, 0, 9},    {300, 900, 70}, {64, 400, 777}};
enum { SHAPE_COUNT = sizeof SHAPES / sizeof SHAPES[0] };

static void check_linear(int64_t rows, int64_t k, int64_t n, bool transposed)
{
    real *x = new_numbers(rows * k, 1), *w = new_numbers(k * n, 2), *b = new_numbers(n, 3);
    real *dy = new_numbers(rows * n, 4), *y = new_numbers(rows * n, 5);
    real *dx = new_numbers(rows * k, 6);
    Team *one = team_new(1, false);
    assert_non_null(one);
    linear_forward(one, y, x, w, b, rows, k, n, transposed);
    linear_backward_input(one, dx, dy, w, rows, k, n, transposed);
    team_free(one);
    CHECK_TAIL(y, rows, n, linear_forward_then(team, out, x, w, b, rows, k, n, transposed, &tail));
    CHECK_TAIL(dx, rows, k,
               linear_backward_input_then(team, out, dy, w, rows, k, n, transposed, &tail));
    free(x);
    free(w);
    free(b);
    free(dy);
    free(y);
    free(dx);
}

static void test_linear_tails(void **state)
{
    (void)state;
    for (int i = 0; i < SHAPE_COUNT; i++)
        for (int transposed = 0; transposed < 2; transposed++)
            check_linear(SHAPES[i][0], SHAPES[i][1], SHAPES[i][2], transposed);
}

static void check_norm(int64_t rows, int64_t n)
{
    real *x = new_numbers(rows * n, 1), *w = new_numbers(n, 2), *dy = new_numbers(rows * n, 3);
    real *mean = new_numbers(rows, 4), *rstd = new_numbers(rows, 5), *dx = new_numbers(rows * n, 6);
    Team *one = team_new(1, false);
    assert_non_null(one);
    layernorm_backward_input(one, dx, dy, x, w, mean, rstd, rows, n);
    CHECK_TAIL(dx, rows, n,
               layernorm_backward_input_then(team, out, dy, x, w, mean, rstd, rows, n, &tail));
    rmsnorm_backward_input(one, dx, dy, x, w, rstd, rows, n);
    CHECK_TAIL(dx, rows, n, rmsnorm_backward_input_then(team, out, dy, x, w, rstd, rows, n, &tail));
    team_free(one);
    free(x);
    free(w);
    free(dy);
    free(mean);
    free(rstd);
    free(dx);
}

static void test_norm_tails(void **state)
{
    (void)state;
    static const int64_t rows[] = {1, 3, 70}, columns[] = {1, 7, 64, 333, 1100};
    for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++)
        for (size_t c = 0; c < sizeof columns / sizeof columns[0]; c++)
            check_norm(rows[r], columns[c]);
}

/* NULL and a Tail without a function mean nothing. */
static void test_no_tail(void **state)
{
    (void)state;
    enum { ROWS = 9, K = 20, N = 50 };
    const Tail none = {0};
    real *x = new_numbers(ROWS * K, 1), *w = new_numbers(K * N, 2), *y = new_numbers(ROWS * N, 3);
    real *want = new_numbers(ROWS * N, 4);
    Team *team = team_new(2, false);
    assert_non_null(team);
    linear_forward(team, want, x, w, NULL, ROWS, K, N, false);
    linear_forward_then(team, y, x, w, NULL, ROWS, K, N, false, &none);
    assert_memory_equal(y, want, ROWS * N * sizeof *y);
    layernorm_backward_input(team, want, x, y, w, w, w, ROWS, K);
    layernorm_backward_input_then(team, y, x, want + ROWS * K, w, w, w, 1, K, &none);
    rmsnorm_backward_input_then(team, y, x, want + ROWS * K, w, w, 1, K, NULL);
    team_free(team);
    free(x);
    free(w);
    free(y);
    free(want);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_linear_tails),
        cmocka_unit_test(test_norm_tails),
        cmocka_unit_test(test_no_tail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
