/* test_engine_threads.c - grids, barriers, shuffles, votes; and threads that never meet. */
#include "stand.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static SimStream *stream;

static int begin(void **state)
{
    (void)state;
    stand_begin();
    if (!stream)
        stream = stand_stream(0);
    return 0;
}

/* -- ids */

static void ids_kernel(SimThread *t)
{
    uint64_t n = (uint64_t)t->ntid[0] * t->ntid[1] * t->ntid[2];
    STORE(uint32_t, PARAM(0) + (BLOCK * n + THREAD) * 4, BLOCK << 16 | t->warp << 8 | t->lane, 2);
}

static void every_thread_runs_once(void **state)
{
    (void)state;
    uint64_t out = stand_alloc(0, 24 * 60 * 4);
    Shape s = {{2, 3, 4}, {5, 3, 4}, .params = {out}};
    stand_run(stream, "ids", ids_kernel, s);
    const uint32_t *got = sim_bytes(out);
    for (uint32_t b = 0; b < 24; b++) {
        for (uint32_t i = 0; i < 60; i++)
            assert_int_equal(got[b * 60 + i], b << 16 | i / 32 << 8 | i % 32);
    }
    stand_clean();
}

/* -- barriers: the sum of a block by halving, through shared memory */

static void sum_kernel(SimThread *t)
{
    uint32_t i = THREAD, n = t->ntid[0];
    STORE_SHARED(uint32_t, i * 4, LOAD(uint32_t, PARAM(0) + (BLOCK * n + i) * 4, 2), 3);
    for (uint32_t half = n / 2; half > 0; half /= 2) {
        SYNC(4);
        if (i < half) {
            uint32_t other = LOAD_SHARED(uint32_t, (i + half) * 4, 5);
            STORE_SHARED(uint32_t, i * 4, LOAD_SHARED(uint32_t, i * 4, 6) + other, 6);
        }
    }
    if (i == 0)
        STORE(uint32_t, PARAM(1) + BLOCK * 4, LOAD_SHARED(uint32_t, 0, 8), 8);
}

static void barriers_hold(void **state)
{
    (void)state;
    enum { BLOCKS = 9, THREADS = 1024 };
    uint64_t in = stand_alloc(0, BLOCKS * THREADS * 4), out = stand_alloc(0, BLOCKS * 4);
    uint32_t *values = sim_bytes(in);
    for (uint32_t i = 0; i < BLOCKS * THREADS; i++)
        values[i] = i * i;
    stand_range(stream, "fill", in, BLOCKS * THREADS * 4, SIM_WRITE);
    for (int race = 0; race < 2; race++) {
        stand_config.race = race;
        Shape s = {{BLOCKS}, {THREADS}, .shared = THREADS * 4, .params = {in, out}};
        stand_run(stream, "sum", sum_kernel, s);
        const uint32_t *got = sim_bytes(out);
        for (uint32_t b = 0; b < BLOCKS; b++) {
            uint32_t sum = 0;
            for (uint32_t i = 0; i < THREADS; i++)
                sum += values[b * THREADS + i];
            assert_int_equal(got[b], sum);
        }
    }
    stand_clean();
}

static void reductions_kernel(SimThread *t)
{
    uint32_t i = THREAD;
    uint32_t all = t->service->barrier(t, SIM_BAR_AND, 1, 0, i < 95, 2);
    uint32_t all2 = t->service->barrier(t, SIM_BAR_AND, 1, 0, i < 96, 3);
    uint32_t any = t->service->barrier(t, SIM_BAR_OR, 2, 0, i == 64, 4);
    uint32_t any2 = t->service->barrier(t, SIM_BAR_OR, 2, 0, 0, 5);
    uint32_t count = t->service->barrier(t, SIM_BAR_POPC, 3, 0, i % 3 == 0, 6);
    STORE(uint32_t, PARAM(0) + i * 4, all | all2 << 1 | any << 2 | any2 << 3 | count << 4, 7);
}

static void barriers_reduce(void **state)
{
    (void)state;
    uint64_t out = stand_alloc(0, 96 * 4);
    Shape s = {{1}, {96}, .params = {out}};
    stand_run(stream, "reductions", reductions_kernel, s);
    const uint32_t *got = sim_bytes(out);
    for (int i = 0; i < 96; i++)
        assert_int_equal(got[i], 0 | 2 | 4 | 0 | 32 << 4);
    stand_clean();
}

/* Warps 0 and 1 meet at barrier 1, warps 2 and 3 at barrier 2, each pair twice. */
static void parts_kernel(SimThread *t)
{
    uint32_t i = THREAD, pair = i / 64;
    STORE_SHARED(uint32_t, i * 4, i, 2);
    t->service->barrier(t, SIM_BAR_SYNC, 1 + pair, 64, 0, 3);
    uint32_t other = LOAD_SHARED(uint32_t, (i ^ 32) * 4, 4);
    t->service->barrier(t, SIM_BAR_SYNC, 1 + pair, 64, 0, 5);
    STORE_SHARED(uint32_t, i * 4, other, 6);
    SYNC(7);
    STORE(uint32_t, PARAM(0) + i * 4, LOAD_SHARED(uint32_t, (i ^ 64) * 4, 8), 8);
}

static void parts_of_a_block_meet(void **state)
{
    (void)state;
    uint64_t out = stand_alloc(0, 128 * 4);
    Shape s = {{1}, {128}, .shared = 512, .params = {out}};
    for (uint64_t seed = 1; seed < 20; seed++) {
        stand_config.seed = seed;
        stand_run(stream, "parts", parts_kernel, s);
    }
    for (uint32_t i = 0; i < 128; i++)
        assert_int_equal(((uint32_t *)sim_bytes(out))[i], i ^ 96);
    stand_clean();
}

/* -- shuffles, against what CUDA says of them: segments of `width` lanes */

typedef struct {
    SimShuffle kind;
    uint32_t width;
    uint32_t operands[32], values[32], results[32];
    bool valid[32];
} ShuffleCase;

static ShuffleCase shuffles;

static void shuffle_kernel(SimThread *t)
{
    uint32_t i = THREAD;
    uint32_t clamp = (32 - shuffles.width) << 8 | (shuffles.kind == SIM_SHFL_UP ? 0 : 31);
    shuffles.results[i] =
        t->service->shuffle(t, shuffles.kind, shuffles.values[i], shuffles.operands[i], clamp,
                            UINT32_MAX, &shuffles.valid[i], 2);
}

static void shuffle_expect(int lane, int *source, bool *valid)
{
    int width = (int)shuffles.width, first = lane / width * width;
    int b = (int)shuffles.operands[lane];
    switch (shuffles.kind) {
    case SIM_SHFL_IDX:
        *source = first + b % width;
        *valid = true;
        return;
    case SIM_SHFL_UP:
        *valid = lane - b >= first;
        *source = *valid ? lane - b : lane;
        return;
    case SIM_SHFL_DOWN:
        *valid = lane + b < first + width;
        *source = *valid ? lane + b : lane;
        return;
    default: /* a lane of an earlier segment may be read, one of a later may not */
        *valid = (lane ^ b) < first + width;
        *source = *valid ? lane ^ b : lane;
        return;
    }
}

static void shuffles_are_as_specified(void **state)
{
    (void)state;
    Shape s = {{1}, {32}, .shared = 0};
    srand(5);
    for (int round = 0; round < 400; round++) {
        shuffles.kind = (SimShuffle)(round % 4);
        shuffles.width = 1u << rand() % 6;
        for (int i = 0; i < 32; i++) {
            shuffles.operands[i] = (uint32_t)rand() % 32;
            shuffles.values[i] = (uint32_t)rand();
        }
        stand_run(stream, "shuffle", shuffle_kernel, s);
        for (int lane = 0; lane < 32; lane++) {
            int source;
            bool valid;
            shuffle_expect(lane, &source, &valid);
            assert_int_equal(shuffles.valid[lane], valid);
            assert_int_equal(shuffles.results[lane], shuffles.values[source]);
        }
    }
    stand_clean();
}

/* -- votes, matches, reductions; also of parts of a warp that meet at different times */

static uint32_t votes[64][10];

static void votes_kernel(SimThread *t)
{
    uint32_t i = THREAD, mask = t->lane % 2 ? 0xaaaaaaaa : 0x55555555, *v = votes[i];
    const SimServices *s = t->service;
    v[0] = s->vote(t, SIM_VOTE_BALLOT, i % 3 == 0, UINT32_MAX, 2);
    v[1] = s->vote(t, SIM_VOTE_ALL, t->lane % 2, mask, 3);
    v[2] = s->vote(t, SIM_VOTE_ANY, t->lane == 6, mask, 4);
    v[3] = s->vote(t, SIM_VOTE_UNI, t->lane == 6, mask, 5);
    v[4] = s->match_any(t, i / 5, UINT32_MAX, 6);
    v[5] = s->reduce(t, SIM_RED_ADD, false, i, mask, 7);
    v[6] = s->reduce(t, SIM_RED_MIN, true, i - 40, UINT32_MAX, 8);
    v[7] = s->reduce(t, SIM_RED_MAX, false, i - 40, UINT32_MAX, 9);
    v[8] = s->reduce(t, SIM_RED_XOR, false, 1u << t->lane, mask, 10);
    if (t->lane < 7)
        v[9] = s->active_mask(t);
    else
        v[9] = s->active_mask(t) | 1u << t->lane;
}

static void votes_count(void **state)
{
    (void)state;
    Shape s = {{1}, {64}, .shared = 0};
    stand_run(stream, "votes", votes_kernel, s);
    for (uint32_t i = 0; i < 64; i++) {
        uint32_t warp = i / 32 * 32, ballot = 0, match = 0, sum = 0, odd = i % 2;
        for (uint32_t k = warp; k < warp + 32; k++) {
            ballot |= (k % 3 == 0 ? 1u : 0) << k % 32;
            match |= (k / 5 == i / 5 ? 1u : 0) << k % 32;
            sum += k % 2 == odd ? k : 0;
        }
        assert_int_equal(votes[i][0], ballot);
        assert_int_equal(votes[i][1], odd);
        assert_int_equal(votes[i][2], !odd);
        assert_int_equal(votes[i][3], odd);
        assert_int_equal(votes[i][4], match);
        assert_int_equal(votes[i][5], sum);
        assert_int_equal(votes[i][6], warp - 40);
        assert_int_equal(votes[i][7], warp ? UINT32_MAX : (uint32_t)-9);
        assert_int_equal(votes[i][8], odd ? 0xaaaaaaaa : 0x55555555);
        assert_int_equal(votes[i][9], i % 32 < 7 ? 0x7f : 0xffffff80);
    }
    stand_clean();
}

/* -- threads that never meet */

static void exited_kernel(SimThread *t)
{
    if (THREAD < 40)
        SYNC(2);
}
static void lines_kernel(SimThread *t)
{
    if (THREAD < 32)
        SYNC(2);
    else
        SYNC(3);
}
static void kinds_kernel(SimThread *t)
{
    t->service->barrier(t, THREAD < 32 ? SIM_BAR_SYNC : SIM_BAR_OR, 0, 0, 0, 2 + THREAD / 32);
}
static void ids_differ_kernel(SimThread *t)
{
    t->service->barrier(t, SIM_BAR_SYNC, THREAD < 32, 0, 0, THREAD < 32 ? 2 : 3);
}

static void barriers_that_differ_are_reported(void **state)
{
    (void)state;
    Shape s = {{3}, {64}, .shared = 0};
    stand_run(stream, "exited", exited_kernel, s);
    stand_only(SIM_BARRIER, "24 threads have ended, the first is thread (40,0,0)");
    assert_non_null(strstr(stand_text(), "exited (test.cu:2)"));
    assert_non_null(strstr(stand_text(), "gpu 0, stream 0"));
    stand_run(stream, "lines", lines_kernel, s);
    stand_only(SIM_BARRIER, "at different places");
    assert_non_null(strstr(stand_text(), "test.cu:2"));
    assert_non_null(strstr(stand_text(), "test.cu:3"));
    stand_run(stream, "kinds", kinds_kernel, s);
    stand_only(SIM_BARRIER, "different kinds");
    stand_run(stream, "ids", ids_differ_kernel, s);
    stand_only(SIM_BARRIER, "32 threads at ids (test.cu:3)");
}

static void half_kernel(SimThread *t)
{
    bool valid;
    if (t->lane < 16)
        t->service->shuffle(t, SIM_SHFL_BFLY, 1, 1, 31, UINT32_MAX, &valid, 2);
    SYNC(3);
}
/* Lanes that have ended may be named by masks, but there is nothing to read from them. */
static void ended_kernel(SimThread *t)
{
    bool valid;
    if (t->lane >= 20)
        return;
    t->service->warp_sync(t, UINT32_MAX, 2);
    uint32_t all = t->service->vote(t, SIM_VOTE_BALLOT, true, UINT32_MAX, 3);
    STORE(uint32_t, PARAM(0) + THREAD * 4, all, 4);
    if (PARAM(1))
        t->service->shuffle(t, SIM_SHFL_DOWN, 1, 1, 31, UINT32_MAX, &valid, 5);
}
static void elsewhere_kernel(SimThread *t)
{
    if (t->lane < 16)
        t->service->warp_sync(t, UINT32_MAX, 2);
    else
        t->service->vote(t, SIM_VOTE_ALL, 1, UINT32_MAX, 3);
}
static void barrier_or_warp_kernel(SimThread *t)
{
    if (t->lane < 16)
        t->service->warp_sync(t, UINT32_MAX, 2);
    SYNC(3);
}
static void own_lane_kernel(SimThread *t)
{
    t->service->warp_sync(t, 0xffff, 2);
}
static void outside_kernel(SimThread *t)
{
    bool valid;
    if (t->lane < 16)
        t->service->shuffle(t, SIM_SHFL_IDX, 1, 20, 31, 0xffff, &valid, 2);
}
static void beyond_kernel(SimThread *t)
{
    bool valid;
    t->service->shuffle(t, SIM_SHFL_DOWN, 1, 16, 31, UINT32_MAX, &valid, 2);
}

static void lanes_that_do_not_arrive_are_reported(void **state)
{
    (void)state;
    Shape s = {{2}, {64}, .shared = 0};
    stand_run(stream, "half", half_kernel, s);
    stand_only(SIM_WARP, "16 threads at half (test.cu:3)");
    assert_non_null(strstr(stand_text(), "half (test.cu:2)"));
    stand_run(stream, "elsewhere", elsewhere_kernel, s);
    stand_only(SIM_WARP, "lanes 0xffff0000 at elsewhere (test.cu:3)");
    assert_non_null(strstr(stand_text(), "lanes 0x0000ffff at elsewhere (test.cu:2)"));
    stand_run(stream, "barrier_or_warp", barrier_or_warp_kernel, s);
    stand_only(SIM_WARP, "16 threads at barrier_or_warp (test.cu:3)");
    stand_run(stream, "own_lane", own_lane_kernel, s);
    assert_true(stand_found(SIM_WARP) > 0);
    stand_begin();
    stand_run(stream, "outside", outside_kernel, s);
    stand_only(SIM_WARP, "reads from lane 20, which is not in the mask");
    s.block[0] = 48;
    stand_run(stream, "beyond", beyond_kernel, s);
    stand_only(SIM_WARP, "which does not exist");
}

static void lanes_that_ended_need_not_arrive(void **state)
{
    (void)state;
    uint64_t out = stand_alloc(0, 64 * 4);
    Shape s = {{1}, {64}, .params = {out, 0}};
    for (stand_config.seed = 1; stand_config.seed < 10; stand_config.seed++) {
        stand_run(stream, "ended", ended_kernel, s);
        for (int i = 0; i < 64; i++)
            assert_int_equal(((uint32_t *)sim_bytes(out))[i], i % 32 < 20 ? 0xfffff : 0);
        stand_clean();
    }
    s.params[1] = 1;
    stand_run(stream, "ended", ended_kernel, s);
    stand_only(SIM_WARP, "reads from lane 20, which has ended");
}

/* -- waiting for another thread in a loop */

static void wait_kernel(SimThread *t)
{
    if (THREAD == PARAM(1)) {
        while (AT(uint32_t, GLOBAL, PARAM(0), 5, 2) == 0) {
        }
    } else if (THREAD == 40) {
        AT(uint32_t, GLOBAL, PARAM(0), 6, 3) = 1;
    }
}

static void spinning_threads_let_others_run(void **state)
{
    (void)state;
    uint64_t flag = stand_alloc(0, 4);
    stand_range(stream, "fill", flag, 4, SIM_WRITE);
    Shape s = {{1}, {64}, .params = {flag, 3}};
    for (uint64_t seed = 1; seed < 9; seed++) {
        stand_config.seed = seed;
        *(uint32_t *)sim_bytes(flag) = 0;
        stand_run(stream, "wait", wait_kernel, s);
    }
    stand_clean();
    s.params[1] = 40;
    *(uint32_t *)sim_bytes(flag) = 0;
    stand_run(stream, "wait", wait_kernel, s);
    stand_only(SIM_DEADLOCK, "threads spin");
    assert_non_null(strstr(stand_text(), "wait (test.cu:2)"));
}

/* -- launches */

static void limits_are_checked(void **state)
{
    (void)state;
    char why[256];
    SimKernel k = {{.shared_bytes = 1000, .max_threads = 256}, NULL};
    static const struct {
        SimLaunch launch;
        SimLaunchFault fault;
    } cases[] = {
        {{{1, 1, 1}, {256, 1, 1}, 48000, NULL}, SIM_LAUNCH_OK},
        {{{1, 1, 1}, {257, 1, 1}, 0, NULL}, SIM_LAUNCH_RESOURCES},
        {{{1, 1, 1}, {1025, 1, 1}, 0, NULL}, SIM_LAUNCH_CONFIGURATION},
        {{{1, 1, 1}, {32, 32, 2}, 0, NULL}, SIM_LAUNCH_CONFIGURATION},
        {{{1, 1, 1}, {1, 1, 65}, 0, NULL}, SIM_LAUNCH_CONFIGURATION},
        {{{0, 1, 1}, {1, 1, 1}, 0, NULL}, SIM_LAUNCH_CONFIGURATION},
        {{{1, 65536, 1}, {1, 1, 1}, 0, NULL}, SIM_LAUNCH_CONFIGURATION},
        {{{1, 1, 65536}, {1, 1, 1}, 0, NULL}, SIM_LAUNCH_CONFIGURATION},
        {{{0x7fffffff, 1, 1}, {1, 1, 1}, 0, NULL}, SIM_LAUNCH_OK},
        {{{1, 1, 1}, {1, 1, 1}, 48001, NULL}, SIM_LAUNCH_SHARED},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        SimLaunchFault fault = sim_launch_check(&k, &cases[i].launch, 48000, why, sizeof why);
        assert_int_equal(fault, cases[i].fault);
        assert_int_equal(why[0] != '\0', fault != SIM_LAUNCH_OK);
    }
    SimLaunch huge = {{1, 1, 1}, {1, 1, 1}, 227 * 1024, NULL};
    assert_int_equal(sim_launch_check(&k, &huge, 227 * 1024, why, sizeof why), SIM_LAUNCH_SHARED);
}

/* -- local memory, globals, traps, printf */

static void local_kernel(SimThread *t)
{
    uint64_t sum = 0;
    for (uint64_t i = 0; i < 8; i++)
        AT(uint64_t, LOCAL, i * 8, 2, 2) = THREAD * 8 + i;
    SYNC(3);
    for (uint64_t i = 0; i < 8; i++)
        sum += AT(uint64_t, GENERIC, SIM_LOCAL_WINDOW + i * 8, 1, 4);
    STORE(uint64_t, PARAM(0) + THREAD * 8, sum + LOAD(uint32_t, t->service->global(t, 1), 5), 5);
    if (PARAM(1) == THREAD)
        (void)AT(uint32_t, LOCAL, 64, 1, 6);
    if (PARAM(2) == THREAD)
        t->service->trap(t, 7);
}

static void local_memory_and_variables(void **state)
{
    (void)state;
    uint64_t out = stand_alloc(0, 64 * 8);
    Shape s = {{1}, {64}, .local = 64, .params = {out, 99, 99}};
    stand_run(stream, "local", local_kernel, s);
    for (uint64_t i = 0; i < 64; i++)
        assert_int_equal(((uint64_t *)sim_bytes(out))[i], i * 64 + 28 + 0x07070707);
    stand_clean();
    s.params[1] = 5;
    stand_run(stream, "local", local_kernel, s);
    stand_only(SIM_OUT_OF_BOUNDS, "offset 64 in 64 bytes of local memory");
    s.params[1] = 99;
    s.params[2] = 6;
    stand_run(stream, "local", local_kernel, s);
    stand_only(SIM_MISUSE, "local (test.cu:7) traps, block (0,0,0) thread (6,0,0)");
    s.params[2] = 99;
    stand_run(stream, "local", local_kernel, s);
    stand_clean();
}

static void print_kernel(SimThread *t)
{
    static const struct {
        int32_t a;
        uint32_t b;
        int64_t c;
        double d;
        uint64_t s;
        uint32_t e;
    } args = {-3, 0xbeef, -1234567890123, 2.5, 0, 'x'};
    for (uint32_t i = 0; i < sizeof args; i++) {
        uint64_t s = PARAM(1);
        bool string = i >= offsetof(__typeof__(args), s) && i < offsetof(__typeof__(args), e);
        AT(char, LOCAL, i, 2, 2) =
            string ? ((char *)&s)[i - offsetof(__typeof__(args), s)] : ((const char *)&args)[i];
    }
    STORE(int32_t, PARAM(2), t->service->print(t, PARAM(0), SIM_LOCAL_WINDOW, 3), 3);
}

static void kernels_print(void **state)
{
    (void)state;
    const char format[] = "[%d %04X %lld %6.2f %s %c 100%%]\n", text[] = "words";
    uint64_t at = stand_alloc(0, sizeof format), word = stand_alloc(0, sizeof text);
    uint64_t n = stand_alloc(0, 4);
    memcpy(sim_bytes(at), format, sizeof format);
    memcpy(sim_bytes(word), text, sizeof text);
    stand_range(stream, "fill", at, sizeof format, SIM_WRITE);
    stand_range(stream, "fill", word, sizeof text, SIM_WRITE);
    Shape s = {.local = 64, .params = {at, word, n}};
    char got[128] = "";
    FILE *old = stdout, *file = tmpfile();
    assert_non_null(file);
    stdout = file;
    stand_run(stream, "print", print_kernel, s);
    stdout = old;
    rewind(file);
    assert_non_null(fgets(got, sizeof got, file));
    fclose(file);
    assert_string_equal(got, "[-3 BEEF -1234567890123   2.50 words x 100%]\n");
    assert_int_equal(*(int32_t *)sim_bytes(n), 6);
    stand_clean();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(every_thread_runs_once, begin),
        cmocka_unit_test_setup(barriers_hold, begin),
        cmocka_unit_test_setup(barriers_reduce, begin),
        cmocka_unit_test_setup(parts_of_a_block_meet, begin),
        cmocka_unit_test_setup(shuffles_are_as_specified, begin),
        cmocka_unit_test_setup(votes_count, begin),
        cmocka_unit_test_setup(barriers_that_differ_are_reported, begin),
        cmocka_unit_test_setup(lanes_that_do_not_arrive_are_reported, begin),
        cmocka_unit_test_setup(lanes_that_ended_need_not_arrive, begin),
        cmocka_unit_test_setup(spinning_threads_let_others_run, begin),
        cmocka_unit_test_setup(limits_are_checked, begin),
        cmocka_unit_test_setup(local_memory_and_variables, begin),
        cmocka_unit_test_setup(kernels_print, begin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
