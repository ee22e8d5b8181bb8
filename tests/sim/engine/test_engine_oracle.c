/* test_engine_oracle.c - random kernels against a definition of a race.
 *
 * A random kernel is a list of steps that all threads of a block go through: in some, a few
 * threads access a few words; in others all threads meet at a barrier of the block, of their
 * pair of warps, of their warp, or of a part of their warp. Vector clocks of all threads say
 * for each two accesses whether anything orders them. The engine must find something if and
 * only if there are two that conflict and are not ordered, whatever order it runs them in.
 * Likewise for random operations of streams that wait for each other at random.
 */
#include "stand.h"

#include <stdlib.h>
#include <string.h>

enum { THREADS = 128, STEPS = 10, WORDS = 2, ACCESSES = 4, KERNELS = 2000 };

typedef enum {
    ACCESS,
    MEET_BLOCK,
    MEET_PAIR,
    MEET_WARP,
    MEET_HALF,
    MEET_QUARTER,
    MEETINGS
} StepKind;

typedef struct {
    uint32_t thread, offset, bytes;
    int how; /* 1 read, 2 write, 4 atomic */
} Access;

typedef struct {
    StepKind kind;
    uint32_t pick; /* MEET_PAIR: how warps are paired */
    Access accesses[ACCESSES];
    int n;
} Step;

static Step steps[STEPS];
static SimSpace space;
static uint64_t base;

static uint32_t below(uint32_t n)
{
    return (uint32_t)rand() % n;
}

static void kernel_make(void)
{
    for (int s = 0; s < STEPS; s++) {
        Step *step = &steps[s];
        *step = (Step){.kind = s % 2 ? 1 + below(MEETINGS - 1) : ACCESS, .pick = 1 + below(3)};
        step->n = step->kind == ACCESS ? (int)below(ACCESSES) : 0;
        /* Threads near each other, so that meetings of parts matter. */
        uint32_t near = below(THREADS), spread = 1u << (1 + below(7));
        for (int i = 0; i < step->n; i++) {
            Access *a = &step->accesses[i];
            static const int hows[] = {1, 1, 1, 1, 1, 1, 1, 2, 4, 1};
            a->thread = (near + below(spread)) % THREADS;
            a->how = hows[below(10)];
            a->bytes = a->how == 4 ? 4 : 1u << below(3);
            a->offset = below(WORDS * 4 / a->bytes) * a->bytes;
        }
    }
}

/* Which threads meet thread t in the step. */
static bool meets(const Step *step, uint32_t t, uint32_t u)
{
    switch (step->kind) {
    case MEET_BLOCK:
        return true;
    case MEET_PAIR:
        return t / 32 == u / 32 || (t / 32 ^ step->pick) == u / 32;
    case MEET_WARP:
        return t / 32 == u / 32;
    case MEET_HALF:
        return t / 16 == u / 16;
    default:
        return t / 32 == u / 32 && t % 4 == u % 4;
    }
}

static void kernel(SimThread *t)
{
    uint32_t i = THREAD;
    if (i == 0) {
        for (uint32_t w = 0; w < WORDS; w++)
            *(uint32_t *)t->service->access(t, space, base + w * 4, 4, 2, 1) = 0;
    }
    SYNC(2);
    for (uint32_t s = 0; s < STEPS; s++) {
        const Step *step = &steps[s];
        for (int k = 0; k < step->n; k++) {
            const Access *a = &step->accesses[k];
            if (a->thread == i)
                t->service->access(t, space, base + a->offset, a->bytes, a->how, 3 + s);
        }
        uint32_t warp = i / 32, pair = warp ^ step->pick;
        uint32_t half = i % 32 < 16 ? 0xffff : 0xffff0000, quarter = 0x11111111u << i % 4;
        if (step->kind == MEET_BLOCK)
            SYNC(3 + s);
        else if (step->kind == MEET_PAIR)
            t->service->barrier(t, SIM_BAR_SYNC, 1 + s / 2 * 2 + (warp && pair), 64, 0, 3 + s);
        else if (step->kind != ACCESS)
            t->service->warp_sync(t,
                                  step->kind == MEET_WARP   ? UINT32_MAX
                                  : step->kind == MEET_HALF ? half
                                                            : quarter,
                                  3 + s);
    }
}

/* known[t][u]: the last step of u that happened before t's present. */
static bool races(void)
{
    static int known[THREADS][THREADS], next[THREADS][THREADS];
    memset(known, -1, sizeof known);
    for (int s = 0; s < STEPS; s++) {
        const Step *step = &steps[s];
        for (int k = 0; k < step->n; k++) {
            const Access *b = &step->accesses[k];
            for (int r = 0; r <= s; r++) {
                for (int j = 0; j < (r == s ? k : steps[r].n); j++) {
                    const Access *a = &steps[r].accesses[j];
                    bool overlap =
                        a->offset < b->offset + b->bytes && b->offset < a->offset + a->bytes;
                    bool writes = (a->how | b->how) != 1 && !(a->how == 4 && b->how == 4);
                    if (overlap && writes && a->thread != b->thread &&
                        known[b->thread][a->thread] < r)
                        return true;
                }
            }
        }
        if (step->kind == ACCESS)
            continue;
        memcpy(next, known, sizeof next);
        for (uint32_t t = 0; t < THREADS; t++) {
            for (uint32_t u = 0; u < THREADS; u++) {
                if (!meets(step, t, u))
                    continue;
                next[t][u] = s;
                for (uint32_t v = 0; v < THREADS; v++)
                    next[t][v] = known[u][v] > next[t][v] ? known[u][v] : next[t][v];
            }
        }
        memcpy(known, next, sizeof known);
    }
    return false;
}

static void findings_are_the_races(void **state)
{
    (void)state;
    SimStream *stream = stand_stream(0);
    uint64_t memory = stand_alloc(0, WORDS * 4);
    int racy = 0, missed = 0, invented = 0;
    srand(11);
    for (int i = 0; i < KERNELS; i++) {
        stand_begin();
        stand_config.seed = (uint64_t)i;
        stand_config.schedule = i % 8 ? SIM_RANDOM : SIM_FIFO;
        kernel_make();
        space = i % 2 ? SIM_SPACE_SHARED : SIM_SPACE_GLOBAL;
        base = i % 2 ? 0 : memory;
        stand_run(stream, "random", kernel, (Shape){{1}, {THREADS}, .shared = WORDS * 4});
        bool expected = races(), found = stand_found(SIM_RACE_BLOCK) > 0;
        racy += expected;
        missed += expected && !found;
        invented += found && !expected;
        if (found && !expected)
            print_message("invented: %s\n", stand_text());
        assert_int_equal(stand_found_any(), stand_found(SIM_RACE_BLOCK));
    }
    print_message("%d kernels, %d with races: %d missed, %d invented\n", KERNELS, racy, missed,
                  invented);
    assert_true(racy > KERNELS / 10 && racy < KERNELS * 9 / 10);
    assert_int_equal(invented, 0);
    assert_int_equal(missed, 0);
}

/* -- operations of streams */

enum { STREAMS = 5, OPS = 14, BYTES = 24, PROGRAMS = 5000 };

typedef struct {
    uint32_t stream, offset, bytes;
    int how;
    int known[STREAMS]; /* the last operation of each stream that happened before */
} RandomOp;

static void one_access_kernel(SimThread *t)
{
    t->service->access(t, SIM_SPACE_GLOBAL, PARAM(0), (uint32_t)PARAM(1), (int)PARAM(2), 2);
}

static bool ops_conflict(const RandomOp *a, const RandomOp *b)
{
    bool overlap = a->offset < b->offset + b->bytes && b->offset < a->offset + a->bytes;
    return overlap && (a->how | b->how) != 1 && !(a->how == 4 && b->how == 4);
}

/* Runs a random program; *expected says whether it has a race. */
static bool program_run(SimStream *const *streams, uint64_t memory, bool *expected)
{
    static RandomOp ops[OPS];
    int known[STREAMS][STREAMS], waits = (int)below(12);
    memset(known, -1, sizeof known);
    *expected = false;
    for (int i = 0; i < OPS; i++) {
        for (int w = 0; w < waits; w++) {
            uint32_t from = below(STREAMS), to = below(STREAMS);
            if (from == to)
                continue;
            stand_wait(streams[to], streams[from]);
            for (int k = 0; k < STREAMS; k++)
                known[to][k] = known[from][k] > known[to][k] ? known[from][k] : known[to][k];
        }
        RandomOp *op = &ops[i];
        static const int hows[] = {1, 1, 1, 1, 1, 2, 4, 1};
        *op = (RandomOp){.stream = below(STREAMS), .how = hows[below(8)], .bytes = 1u << below(4)};
        op->bytes = op->how == 4 ? 4 : op->bytes;
        op->offset = below(BYTES / op->bytes) * op->bytes;
        for (int k = 0; k < i; k++)
            *expected =
                *expected || (ops_conflict(&ops[k], op) && known[op->stream][ops[k].stream] < k);
        known[op->stream][op->stream] = i;
        uint64_t address = memory + op->offset;
        if (op->how == 4 || below(2))
            stand_run(streams[op->stream], "kernel", one_access_kernel,
                      (Shape){.params = {address, op->bytes, (uint64_t)op->how}});
        else
            stand_range(streams[op->stream], "copy", address, op->bytes, (SimAccess)op->how);
    }
    return stand_found(SIM_RACE) > 0;
}

static void findings_are_the_missing_waits(void **state)
{
    (void)state;
    SimStream *streams[STREAMS];
    for (int i = 0; i < STREAMS; i++)
        streams[i] = stand_stream(0);
    uint64_t memory = stand_alloc(0, BYTES);
    int racy = 0, missed = 0, invented = 0;
    srand(12);
    for (int i = 0; i < PROGRAMS; i++) {
        bool expected;
        stand_begin();
        stand_range(streams[0], "fill", memory, BYTES, SIM_WRITE);
        for (int k = 0; k < 2 * STREAMS; k++) /* all know of all */
            if (k % STREAMS)
                stand_wait(streams[k < STREAMS ? 0 : k % STREAMS],
                           streams[k < STREAMS ? k % STREAMS : 0]);
        stand_begin();
        bool found = program_run(streams, memory, &expected);
        racy += expected;
        missed += expected && !found;
        invented += found && !expected;
        assert_int_equal(stand_found_any(), stand_found(SIM_RACE));
    }
    print_message("%d programs, %d with races: %d missed, %d invented\n", PROGRAMS, racy, missed,
                  invented);
    assert_true(racy > PROGRAMS / 10 && racy < PROGRAMS * 9 / 10);
    assert_int_equal(invented, 0);
    assert_int_equal(missed, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(findings_are_the_races),
                                       cmocka_unit_test(findings_are_the_missing_waits)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
