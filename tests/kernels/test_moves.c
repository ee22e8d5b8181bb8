/* Reductions, strided copies, element-wise helpers and optimizers. */
#include "check.h"

typedef struct {
    int rank;
    int64_t dim[8];
} Dims;

static const Dims REDUCED[] = {
    {1, {1}},
    {1, {200003}},
    {2, {7, 501}},
    {2, {300, 70}},
    {3, {5, 33, 9}},
    {4, {3, 1, 40, 65}},
    {8, {2, 3, 1, 2, 5, 2, 3, 2}},
    {3, {2, 70000, 1}},
};

static int64_t count_of(const Dims *d)
{
    int64_t n = 1;
    for (int i = 0; i < d->rank; i++)
        n *= d->dim[i];
    return n;
}

/* The output element that input element i goes to. */
static int64_t target_of(const Dims *d, unsigned mask, int64_t i)
{
    int64_t target = 0, stride = 1;
    for (int k = d->rank - 1; k >= 0; k--) {
        if (!(mask >> k & 1)) {
            target += i % d->dim[k] * stride;
            stride *= d->dim[k];
        }
        i /= d->dim[k];
    }
    return target;
}

static void check_reduce(const Dims *d, unsigned mask)
{
    const int64_t n = count_of(d);
    int64_t outs = 1;
    for (int k = 0; k < d->rank; k++)
        outs *= mask >> k & 1 ? 1 : d->dim[k];
    real *x = new_numbers(n, 1), *y = new_numbers(outs, 0), *dx = new_numbers(n, 0);
    real *dy = new_numbers(outs, 2);
    double *sum = new_doubles(outs), *most = new_doubles(outs), *want = new_doubles(n);
    int64_t *first = malloc((size_t)outs * sizeof *first);
    for (int64_t i = 0; i < outs; i++) {
        first[i] = -1;
        sum[i] = number_at(9, i);
    }
    for (int64_t i = 0; i < n; i++) {
        x[i] = (real)((int)(x[i] * 64)) / 64; /* ties happen */
        const int64_t to = target_of(d, mask, i);
        sum[to] += 0.5 * (double)x[i];
        if (first[to] < 0 || x[i] > x[first[to]])
            first[to] = i;
    }
    for (int64_t i = 0; i < outs; i++) {
        most[i] = (double)x[first[i]];
        want[first[i]] = (double)dy[i];
    }
    ON_EVERY_TEAM(y, outs, 9, reduce_sum(team, y, x, d->rank, d->dim, mask, 0.5, true));
    check_close(y, sum, outs, 8 + 4 * sqrt((double)(n / outs)), "reduce_sum");
    ON_EVERY_TEAM(y, outs, 9, reduce_max(team, y, x, d->rank, d->dim, mask));
    check_close(y, most, outs, 0, "reduce_max");
    ON_EVERY_TEAM(dx, n, 9, reduce_max_backward(team, dx, dy, x, y, d->rank, d->dim, mask));
    check_close(dx, want, n, 0, "reduce_max_backward");
    free(x);
    free(y);
    free(dx);
    free(dy);
    free(sum);
    free(most);
    free(want);
    free(first);
}

static void test_reductions(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof REDUCED / sizeof REDUCED[0]; i++)
        for (unsigned mask = 0; mask < 1u << REDUCED[i].rank; mask++)
            check_reduce(&REDUCED[i], mask);
}

/* Many numbers of one sign: errors must not grow with how many there are. */
static void test_long_sums_stay_exact(void **state)
{
    (void)state;
    enum { ROWS = 1 << 18, N = 4 };
    const double tolerance = sizeof(real) == 4 ? 64 : 4096; /* blocks are summed in double */
    const int64_t dim[] = {ROWS, N};
    static const struct {
        unsigned mask;
        int64_t outs;
    } cases[] = {{1, N}, {3, 1}};
    real *x = new_numbers(ROWS * N, 0), *none = new_numbers(ROWS, 0), *one = new_numbers(ROWS, 0);
    real y[N], dw[N];
    double want[N];
    for (int64_t i = 0; i < ROWS * N; i++)
        x[i] = (real)0.1;
    for (int64_t i = 0; i < ROWS; i++) {
        none[i] = 0;
        one[i] = 1;
    }
    for (int c = 0; c < 2; c++) {
        for (int i = 0; i < N; i++)
            want[i] = (double)x[0] * (double)(ROWS * N / cases[c].outs);
        ON_EVERY_TEAM(y, N, 9, reduce_sum(team, y, x, 2, dim, cases[c].mask, 1, false));
        check_close(y, want, cases[c].outs, tolerance, "long reduce_sum");
    }
    for (int i = 0; i < N; i++)
        want[i] = (double)x[0] * ROWS;
    ON_EVERY_TEAM(y, N, 9, layernorm_backward_weight(team, dw, y, x, x, none, one, ROWS, N, false));
    check_close(y, want, N, tolerance, "long bias gradient");
    free(x);
    free(none);
    free(one);
}

static void test_reductions_show_nan(void **state)
{
    (void)state;
    Team *team = team_new(2, false);
    for (int64_t at = 0; at < 100; at += 7) {
        real x[100], y;
        set_numbers(x, 100, 1);
        x[at] = (real)NAN;
        reduce_max(team, &y, x, 1, (const int64_t[]){100}, 1);
        assert_true(isnan(y));
    }
    team_free(team);
}

/* y has its dimensions in the order given; x is read through `order`. */
static void check_copy(int rank, const int64_t *dim, const int *order, int size, int64_t gap)
{
    int64_t inner[8], ystride[8], xstride[8], nx = 1, ny = 1;
    for (int k = rank - 1; k >= 0; k--) {
        ystride[k] = ny;
        ny *= dim[k] + (k == rank - 1 ? gap : 0);
    }
    for (int k = rank - 1; k >= 0; k--) {
        inner[order[k]] = nx;
        nx *= dim[order[k]] + (k == rank - 1 ? gap : 0);
    }
    for (int k = 0; k < rank; k++)
        xstride[k] = inner[k];
    char *x = malloc((size_t)(nx * size)), *y = malloc((size_t)(ny * size));
    char *want = malloc((size_t)(ny * size));
    for (int64_t i = 0; i < nx * size; i++)
        x[i] = (char)(i * 37 + i / 256);
    memset(want, 0x5a, (size_t)(ny * size));
    int64_t n = 1;
    for (int k = 0; k < rank; k++)
        n *= dim[k];
    for (int64_t i = 0; i < n; i++) {
        int64_t rest = i, to = 0, from = 0;
        for (int k = rank - 1; k >= 0; k--) {
            to += rest % dim[k] * ystride[k];
            from += rest % dim[k] * xstride[k];
            rest /= dim[k];
        }
        memcpy(want + to * size, x + from * size, (size_t)size);
    }
    for (int t = 0; t < TEAMS; t++) {
        Team *team = team_new(TEAM_SIZES[t], false);
        memset(y, 0x5a, (size_t)(ny * size));
        copy_strided(team, y, x, rank, dim, ystride, xstride, size);
        assert_memory_equal(y, want, (size_t)(ny * size));
        team_free(team);
    }
    free(x);
    free(y);
    free(want);
}

static void test_copies(void **state)
{
    (void)state;
    for (int size = 1; size <= 8; size *= 2) {
        for (int64_t gap = 0; gap < 4; gap += 3) {
            check_copy(2, (const int64_t[]){37, 53}, (const int[]){0, 1}, size, gap);
            check_copy(2, (const int64_t[]){237, 253}, (const int[]){1, 0}, size, gap);
            check_copy(3, (const int64_t[]){5, 70, 33}, (const int[]){0, 2, 1}, size, gap);
            check_copy(3, (const int64_t[]){19, 7, 66}, (const int[]){1, 0, 2}, size, gap);
            check_copy(4, (const int64_t[]){3, 9, 1, 41}, (const int[]){3, 0, 2, 1}, size, gap);
            check_copy(8, (const int64_t[]){2, 3, 2, 1, 2, 5, 2, 3},
                       (const int[]){7, 2, 5, 0, 1, 6, 3, 4}, size, gap);
            check_copy(1, (const int64_t[]){40001}, (const int[]){0}, size, gap);
        }
    }
}

static void test_broadcast_copies(void **state)
{
    (void)state;
    enum { A = 30, B = 70 };
    int32_t x[A], y[A * B];
    for (int i = 0; i < A; i++)
        x[i] = i * 3;
    Team *team = team_new(3, false);
    copy_strided(team, y, x, 2, (const int64_t[]){A, B}, (const int64_t[]){B, 1},
                 (const int64_t[]){1, 0}, 4);
    for (int i = 0; i < A * B; i++)
        assert_int_equal(y[i], x[i / B]);
    copy_strided(team, y, x, 2, (const int64_t[]){B, A}, (const int64_t[]){A, 1},
                 (const int64_t[]){0, 1}, 4);
    for (int i = 0; i < A * B; i++)
        assert_int_equal(y[i], x[i % A]);
    copy_strided(team, y, x + 5, 0, NULL, NULL, NULL, 4);
    assert_int_equal(y[0], 15);
    team_free(team);
}

static void test_flat_helpers(void **state)
{
    (void)state;
    enum { N = 40003 };
    real *x = new_numbers(N, 1), *y = new_numbers(N, 0);
    int32_t *ids = malloc(N * sizeof *ids);
    ON_EVERY_TEAM(y, N, 9, accumulate_into(team, y, x, N));
    for (int i = 0; i < N; i++)
        assert_true(y[i] == (real)number_at(9, i) + x[i]);
    ON_EVERY_TEAM(y, N, 9, fill(team, y, (real)1.5, N));
    for (int i = 0; i < N; i++)
        assert_true(y[i] == (real)1.5);
    arange_fill(ids, N);
    for (int i = 0; i < N; i++)
        assert_int_equal(ids[i], i);
    free(x);
    free(y);
    free(ids);
}

enum { SGD, ADAM, ADAMW };

/* One element, as the optimizers' papers and PyTorch define them. */
static void step_reference(int kind, double *w, double *m, double *v, double g, const Hyper *h)
{
    g *= h->grad_scale;
    if (kind == SGD) {
        g += h->weight_decay * *w;
        *m = h->step == 1 ? g : h->momentum * *m + g;
        *w -= h->lr * (h->momentum == 0 ? g : h->nesterov ? g + h->momentum * *m : *m);
        return;
    }
    if (kind == ADAMW)
        *w *= 1 - h->lr * h->weight_decay;
    *m = h->beta1 * *m + (1 - h->beta1) * g;
    *v = h->beta2 * *v + (1 - h->beta2) * g * g;
    const double mean = *m / (1 - pow(h->beta1, (double)h->step));
    const double spread = *v / (1 - pow(h->beta2, (double)h->step));
    *w -= h->lr * mean / (sqrt(spread) + h->eps);
}

static double update(int kind, Team *team, real *state, const real *g, int64_t n, const Hyper *h)
{
    if (kind == SGD)
        return sgd_update(team, state, g, h->momentum != 0 ? state + n : NULL, n, h);
    return (kind == ADAM ? adam_update : adamw_update)(team, state, g, state + n, state + 2 * n, n,
                                                       h);
}

static void check_optimizer(int kind, int64_t n, Hyper h)
{
    real *state = new_numbers(3 * n, 0), *g = new_numbers(n, 0);
    double *want = new_doubles(3 * n), squares = 0, sum[TEAMS];
    for (int64_t i = 0; i < n; i++)
        want[i] = (double)state[i];
    for (h.step = 1; h.step <= 5; h.step++) {
        set_numbers(g, n, (uint64_t)h.step);
        squares = 0;
        for (int64_t i = 0; i < n; i++) {
            step_reference(kind, want + i, want + n + i, want + 2 * n + i, (double)g[i], &h);
            squares += (double)g[i] * (double)g[i];
        }
    }
    int turn = 0;
    ON_EVERY_TEAM(state, 3 * n, 0, {
        for (int64_t i = n; i < 3 * n; i++)
            state[i] = 0;
        if (kind == SGD && h.momentum != 0)
            state[n] = (real)NAN; /* the first step must not read the buffer */
        for (h.step = 1; h.step <= 5; h.step++) {
            set_numbers(g, n, (uint64_t)h.step);
            sum[turn] = update(kind, team, state, g, n, &h);
        }
        assert_memory_equal(&sum[turn], &sum[0], sizeof sum[0]);
        turn++;
        const double again = sum_squares(team, g, n);
        assert_memory_equal(&again, &sum[0], sizeof again);
    });
    check_close(state, want, n, 64, "weights after five steps");
    assert_true(fabs(sum[0] - squares) <= 1e-12 * squares);
    free(state);
    free(g);
    free(want);
}

static void test_optimizers(void **state)
{
    (void)state;
    const Hyper sgd = {.lr = 0.1, .grad_scale = 0.5};
    const Hyper heavy = {.lr = 0.1, .momentum = 0.9, .weight_decay = 0.01, .grad_scale = 1};
    Hyper nesterov = heavy;
    nesterov.nesterov = true;
    const Hyper adam = {.lr = 0.01,
                        .beta1 = 0.9,
                        .beta2 = 0.999,
                        .eps = 1e-8,
                        .grad_scale = 2,
                        .weight_decay = 0.1};
    const int64_t lengths[] = {1, 1003, 30011};
    for (int i = 0; i < 3; i++) {
        check_optimizer(SGD, lengths[i], sgd);
        check_optimizer(SGD, lengths[i], heavy);
        check_optimizer(SGD, lengths[i], nesterov);
        check_optimizer(ADAM, lengths[i], adam);
        check_optimizer(ADAMW, lengths[i], adam);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reductions),           cmocka_unit_test(test_reductions_show_nan),
        cmocka_unit_test(test_long_sums_stay_exact), cmocka_unit_test(test_copies),
        cmocka_unit_test(test_broadcast_copies),     cmocka_unit_test(test_flat_helpers),
        cmocka_unit_test(test_optimizers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
