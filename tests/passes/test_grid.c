/* test_grid.c - every schedule, for 2 to 16 devices, 1 to 64 micro-batches and 1 to 4 chunks on a
 * device, comes to a Program that is proved; what a device holds is what the papers say.
 *
 * Links between threads, copies between peers and NCCL in turn. Of micro-batches six numbers for
 * each number of devices; with the argument `full` all from 1 to 64. */
#include "passes.h"

#include <stdio.h>
#include <string.h>

/* 4 * 16 layers that are alike, and the loss: v chunks on each of p devices, in turn. They are
 * placed, so that nothing is spent on where to cut; but for ZB-V, whose chunks meet at its turn. */
static const char *make_model(Arena *a, ScheduleKind kind, int p, int m, int v, const char *more)
{
    enum { LAYERS = 64 };
    Text t = {.arena = a};
    text_add(&t, "model m { input x : f32[4]; target y : i32;\n");
    for (int i = 0; i < LAYERS; i++) {
        text_printf(&t, "x = relu(linear(x, 4) as fc_%d)", i);
        if (kind != SCHEDULE_ZB_V)
            text_printf(&t, " @gpu[%d]", i * p * v / LAYERS % p);
        text_add(&t, ";\n");
    }
    text_printf(&t,
                "loss cross_entropy(x, y)%s; }\n"
                "train { batch = %d; clip_norm = 1; }\n"
                "parallel { microbatch = 1; schedule = %s; %s }\n"
                "devices gpu[%d] { memory = 1 GiB; }\n",
                kind == SCHEDULE_ZB_V ? "" : arena_printf(a, " @gpu[%d]", p - 1), m,
                schedule_kind_name(kind), more, p);
    return t.at;
}

/* Most runs of any chunk between their F and the end of their backward pass, on a device. */
static int most_held(const Program *p, int device)
{
    const ActionList *list = &p->devices.at[device].train;
    int held = 0, most = 0;
    for (int i = 0; i < list->actions.n; i++) {
        const Action *a = &list->actions.at[i];
        if (a->kind != ACT_RUN)
            continue;
        const Chunk *c = &p->chunks.at[a->chunk];
        const RunKind last = c->has[RUN_W] ? RUN_W : c->has[RUN_I] ? RUN_I : RUN_B;
        held += a->run == RUN_F ? 1 : a->run == last ? -1 : 0;
        most = held > most ? held : most;
    }
    return most;
}

static int least(int a, int b)
{
    return a < b ? a : b;
}

/* In chunks times micro-batches; INT32_MAX: nothing is said. exact: it is so many, not only at
 * most. Huang et al. 2019 (GPipe), Narayanan et al. 2019 and 2021 (1F1B, interleaved), Qi et al.
 * 2024 (zero bubble, ZB-V). */
static int promised(ScheduleKind kind, int d, int p, int m, int v, bool *exact)
{
    *exact = false;
    switch (kind) {
    case SCHEDULE_GPIPE:
        *exact = true;
        return m;
    case SCHEDULE_1F1B:
        *exact = true;
        return least(m, p - d);
    case SCHEDULE_INTERLEAVED:
        if (v == 1)
            return least(m, p - d);
        *exact = m % p == 0;
        return *exact ? least(m * v, 2 * (p - d - 1) + (v - 1) * p + 1) : INT32_MAX;
    case SCHEDULE_ZERO_BUBBLE:
        return least(m, p);
    case SCHEDULE_ZB_H2:
        return least(m, 2 * p - 1);
    case SCHEDULE_ZB_V:
        return 2 * least(m, p);
    default:
        return INT32_MAX;
    }
}

static void check(ScheduleKind kind, int p, int m, int v, int number)
{
    static const char *const transfers[3] = {"", "transfer = peer;", "transfer = nccl;"};
    Arena *a = arena_new();
    const char *model = make_model(a, kind, p, m, v, transfers[number % 3]);
    Compiled c = compile_text_for(number % 3 > 0, model, NULL);
    if (!c.program || !proved(&c))
        print_error("%s, %d devices, %d micro-batches, %d chunks: not proved\n",
                    schedule_kind_name(kind), p, m, v);
    assert_true(c.program && proved(&c));
    assert_int_equal(c.program->devices.n, p);
    assert_int_equal(c.program->chunks.n, p * (kind == SCHEDULE_ZB_V ? 2 : v));
    assert_int_equal(c.program->microbatches, m);
    for (int d = 0; d < p; d++) {
        bool exact;
        const int held = most_held(c.program, d), most = promised(kind, d, p, m, v, &exact);
        if (held > most || (exact && held < most))
            print_error("%s, %d devices, %d micro-batches, %d chunks: device %d holds %d, not %d\n",
                        schedule_kind_name(kind), p, m, v, d, held, most);
        assert_true(held <= most && (!exact || held == most));
    }
    compiled_free(&c);
    arena_free(a);
}

static int check_sizes(ScheduleKind kind, int p, int m, int number)
{
    const int most = kind == SCHEDULE_INTERLEAVED ? 4 : 1;
    for (int v = 1; v <= most; v++)
        check(kind, p, m, v, number + v);
    return most;
}

/* *state: NULL, or every number of micro-batches is tried. */
static void test_grid(void **state)
{
    int n = 0;
    for (int p = 2; p <= 16; p++) {
        const int sizes[] = {1, p - 1, p, 2 * p + 1, 3 * p, 64};
        for (int k = 0; k < SCHEDULE_KINDS; k++)
            for (int i = 0; i < (*state ? 64 : 6); i++) {
                /* the search tries dozens of plans */
                if (k == SCHEDULE_SEARCHED && (i % 3 || p % 4))
                    continue;
                n += check_sizes((ScheduleKind)k, p, *state ? i + 1 : sizes[i], n + p + i);
            }
    }
    print_message("%d programs\n", n);
    assert_true(n > 800);
}

/* So many that the proofs' clocks (order.h) do not tell of all. */
static void test_more_devices(void **state)
{
    static const ScheduleKind kinds[] = {SCHEDULE_1F1B, SCHEDULE_GPIPE, SCHEDULE_INTERLEAVED,
                                         SCHEDULE_ZERO_BUBBLE, SCHEDULE_ZB_V};
    (void)state;
    for (int k = 0; k < 5; k++)
        for (int transfer = 0; transfer < 3; transfer++)
            check(kinds[k], 24 + k, transfer == 2 ? 24 + k : 31,
                  kinds[k] == SCHEDULE_INTERLEAVED ? 2 : 1, transfer);
}

int main(int argc, char **argv)
{
    bool full = argc > 1 && strcmp(argv[1], "full") == 0;
    const struct CMUnitTest tests[] = {cmocka_unit_test_prestate(test_grid, full ? &full : NULL),
                                       cmocka_unit_test(test_more_devices)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
