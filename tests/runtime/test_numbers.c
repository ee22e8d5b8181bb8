/* test_numbers.c - orders, rates and initial values: functions of their arguments. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "trainer.h"

static void permutation_is_bijection(void **state)
{
    (void)state;
    static const int64_t sizes[] = {1, 2, 3, 4, 5, 7, 16, 17, 100, 1000, 4097, 60000};
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        int64_t n = sizes[k];
        char *seen = calloc((size_t)n, 1);
        for (int64_t i = 0; i < n; i++) {
            int64_t to = permutation(i, n, 42, 3);
            assert_true(to >= 0 && to < n);
            assert_int_equal(seen[to]++, 0);
        }
        free(seen);
    }
}

static void permutation_is_keyed(void **state)
{
    (void)state;
    int64_t n = 1000, same_seed = 0, same_epoch = 0, fixed = 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t at = permutation(i, n, 1, 0);
        same_seed += at == permutation(i, n, 1, 1);
        same_epoch += at == permutation(i, n, 2, 0);
        fixed += at == i;
        assert_int_equal(at, permutation(i, n, 1, 0));
    }
    assert_true(same_seed < 15 && same_epoch < 15 && fixed < 15);
}

/* In a shuffled order the distance of neighbours has the mean n/3 of random pairs. */
static void permutation_mixes(void **state)
{
    (void)state;
    int64_t n = 50000;
    double sum = 0;
    for (int64_t i = 1; i < n; i++)
        sum += fabs((double)(permutation(i, n, 5, 0) - permutation(i - 1, n, 5, 0)));
    assert_true(fabs(sum / (double)(n - 1) / ((double)n / 3) - 1) < 0.02);
}

static void rates_follow_the_schedule(void **state)
{
    (void)state;
    assert_true(learning_rate(MDL_LR_CONSTANT, 0.1, 0, 0, 1, 10) == 0.1);
    assert_true(learning_rate(MDL_LR_CONSTANT, 0.1, 0, 4, 1, 10) == 0.1 / 4);
    assert_true(learning_rate(MDL_LR_CONSTANT, 0.1, 0, 4, 4, 10) == 0.1);
    assert_true(learning_rate(MDL_LR_CONSTANT, 0.1, 0, 4, 10, 10) == 0.1);
    assert_true(learning_rate(MDL_LR_COSINE, 0.1, 0, 0, 1, 10) == 0.1);
    assert_true(learning_rate(MDL_LR_LINEAR, 0.1, 0, 3, 4, 10) == 0.1);
    assert_true(fabs(learning_rate(MDL_LR_LINEAR, 1, 0.2, 10, 61, 110) - 0.6) < 1e-12);
    assert_true(fabs(learning_rate(MDL_LR_LINEAR, 1, 0.2, 10, 111, 110) - 0.2) < 1e-12);
    assert_true(fabs(learning_rate(MDL_LR_COSINE, 1, 0.2, 10, 61, 110) - 0.6) < 1e-12);
    assert_true(fabs(learning_rate(MDL_LR_COSINE, 1, 0.2, 10, 111, 110) - 0.2) < 1e-12);
    double quarter = 0.2 + 0.4 * (1 + sqrt(0.5));
    assert_true(fabs(learning_rate(MDL_LR_COSINE, 1, 0.2, 10, 36, 110) - quarter) < 1e-12);
    assert_true(learning_rate(MDL_LR_COSINE, 1, 0, 10, 5, 5) == 0.5);
}

static void moments(const real *w, int64_t n, double *mean, double *deviation)
{
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < n; i++) {
        sum += (double)w[i];
        squares += (double)w[i] * (double)w[i];
    }
    *mean = sum / (double)n;
    *deviation = sqrt(squares / (double)n - *mean * *mean);
}

static void initial_values_are_distributed(void **state)
{
    (void)state;
    enum { N = 200000 };
    real *w = malloc(N * sizeof *w);
    Team *team = team_new(1, false);
    double mean, deviation;
    weight_initialise(team, w, N, "a", 1, MDL_NORMAL, 0.02);
    moments(w, N, &mean, &deviation);
    assert_true(fabs(mean) < 2e-4 && fabs(deviation / 0.02 - 1) < 0.01);
    weight_initialise(team, w, N, "a", 1, MDL_UNIFORM, 0.3);
    moments(w, N, &mean, &deviation);
    assert_true(fabs(mean) < 2e-3 && fabs(deviation / (0.3 / sqrt(3)) - 1) < 0.01);
    for (int i = 0; i < N; i++)
        assert_true((double)w[i] >= -0.3 - 1e-7 && (double)w[i] < 0.3 + 1e-7);
    weight_initialise(team, w, N, "a", 1, MDL_CONSTANT, 0.5);
    assert_true(w[0] == (real)0.5 && w[N - 1] == (real)0.5);
    team_free(team);
    free(w);
}

static void initial_values_are_keyed(void **state)
{
    (void)state;
    enum { N = 100000 };
    real *a = malloc(N * sizeof *a), *b = malloc(N * sizeof *b);
    Team *one = team_new(1, false), *three = team_new(3, false);
    weight_initialise(one, a, N, "h.0.weight", 1, MDL_NORMAL, 1);
    weight_initialise(three, b, N, "h.0.weight", 1, MDL_NORMAL, 1);
    assert_memory_equal(a, b, N * sizeof *a);
    /* An element does not depend on how many there are. */
    weight_initialise(three, b, 10, "h.0.weight", 1, MDL_NORMAL, 1);
    assert_memory_equal(a, b, 10 * sizeof *a);
    weight_initialise(one, b, N, "h.1.weight", 1, MDL_NORMAL, 1);
    assert_memory_not_equal(a, b, 16 * sizeof *a);
    weight_initialise(one, b, N, "h.0.weight", 2, MDL_NORMAL, 1);
    assert_memory_not_equal(a, b, 16 * sizeof *a);
    team_free(one);
    team_free(three);
    free(a);
    free(b);
}

static void numbers_are_printed(void **state)
{
    (void)state;
    char text[32];
    assert_string_equal(text_number(text, 0), "0");
    assert_string_equal(text_number(text, 999), "999");
    assert_string_equal(text_number(text, 1234567), "1,234,567");
    assert_string_equal(text_number(text, -123456), "-123,456");
    int64_t n, dims[] = {INT64_C(1) << 40, INT64_C(1) << 40}, none[] = {0, INT64_MAX, INT64_MAX};
    assert_false(size_product(&n, dims, 2));
    assert_true(size_product(&n, none, 1) && n == 0);
}

static Trainer *scaled_trainer(bool scaled)
{
    static const MdlModel models[2] = {{.loss_scaled = false}, {.loss_scaled = true}};
    Trainer *t = calloc(1, sizeof *t);
    assert_non_null(t);
    t->model = &models[scaled];
    loss_scale_start(t);
    return t;
}

static void without_a_loss_scale_it_is_one(void **state)
{
    (void)state;
    Trainer *t = scaled_trainer(false);
    for (int i = 0; i < 5000; i++) {
        assert_true(loss_scale_decide(t, true));
        assert_true(t->scale.factor == 1);
    }
    assert_false(loss_scale_decide(t, false));
    assert_true(t->scale.factor == 1);
    free(t);
}

static void the_loss_scale_halves_and_doubles(void **state)
{
    (void)state;
    Trainer *t = scaled_trainer(true);
    assert_true(t->scale.factor == 65536);
    for (int i = 0; i < 1999; i++)
        assert_true(loss_scale_decide(t, true));
    assert_true(t->scale.factor == 65536 && t->scale.updates == 1999);
    assert_true(loss_scale_decide(t, true));
    assert_true(t->scale.factor == 131072 && t->scale.updates == 2000);
    for (int i = 0; i < 1999; i++)
        assert_true(loss_scale_decide(t, true));
    assert_true(loss_scale_decide(t, false)); /* which breaks the row, and is no update */
    assert_true(t->scale.factor == 65536 && t->scale.updates == 3999);
    assert_true(loss_scale_decide(t, true));
    assert_true(t->scale.factor == 65536);
    int halved = 0;
    while (loss_scale_decide(t, false))
        halved++;
    assert_int_equal(halved, 26); /* to 2^-10, where there is no way on */
    t->scale.factor = 0x1p40;
    t->scale.good = 1999;
    assert_true(loss_scale_decide(t, true));
    assert_true(t->scale.factor == 0x1p40);
    free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(permutation_is_bijection),
        cmocka_unit_test(permutation_is_keyed),
        cmocka_unit_test(permutation_mixes),
        cmocka_unit_test(rates_follow_the_schedule),
        cmocka_unit_test(initial_values_are_distributed),
        cmocka_unit_test(initial_values_are_keyed),
        cmocka_unit_test(numbers_are_printed),
        cmocka_unit_test(without_a_loss_scale_it_is_one),
        cmocka_unit_test(the_loss_scale_halves_and_doubles),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
