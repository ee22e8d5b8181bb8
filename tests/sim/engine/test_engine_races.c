/* test_engine_races.c - what races within a kernel, what does not, and what nobody wrote.
 *
 * Every case runs under several seeds and schedulers: findings must not depend on luck.
 */
#include "stand.h"

#include <stdio.h>
#include <string.h>

static SimStream *stream;
static uint64_t out, in;
enum { WORDS = 4096 };

static int begin(void **state)
{
    (void)state;
    stand_begin();
    if (!stream) {
        stream = stand_stream(0);
        in = stand_alloc(0, WORDS * 4);
        out = stand_alloc(0, WORDS * 4);
    }
    stand_range(stream, "fill", in, WORDS * 4, SIM_WRITE);
    stand_range(stream, "fill", out, WORDS * 4, SIM_WRITE);
    return 0;
}

/* Runs the kernel under many orders; each time nothing is found (part NULL), or what holds
 * this and the other part: of two sides of a race either may come second. */
static void always(const char *name, Kernel *kernel, Shape shape, SimFinding kind, const char *part,
                   const char *other)
{
    static const SimSchedule schedules[] = {SIM_FIFO, SIM_RANDOM};
    shape.params[0] = in;
    shape.params[1] = out;
    for (uint64_t i = 0; i < 12; i++) {
        stand_config.schedule = schedules[i > 0];
        stand_config.seed = i;
        stand_run(stream, name, kernel, shape);
        if (!part)
            stand_clean();
        else if (stand_found(kind) < 1 || !strstr(stand_text(), part))
            stand_only(kind, part);
        else if (!strstr(stand_text(), other))
            stand_only(kind, other);
        memset(sim_bytes(out), 0, WORDS * 4);
        stand_begin();
    }
}

/* -- shared memory. Params 2 says which barriers are there. */

static void shared_kernel(SimThread *t)
{
    uint32_t i = THREAD, n = t->ntid[0];
    for (uint32_t round = 0; round < 3; round++) {
        STORE_SHARED(float, i * 4, (float)i, 2);
        if (PARAM(2) & 1)
            SYNC(3);
        (void)LOAD_SHARED(float, (i + 1) % n * 4, 4);
        if (PARAM(2) & 2)
            SYNC(5);
    }
}

static void missing_barriers_are_found(void **state)
{
    (void)state;
    Shape s = {{2}, {64}, .shared = 256, .params = {0, 0, 3}};
    always("shared", shared_kernel, s, SIM_RACE_BLOCK, NULL, NULL);
    s.params[2] = 1; /* the write of the next round comes while others still read */
    always("shared", shared_kernel, s, SIM_RACE_BLOCK, "test.cu:2", "test.cu:4");
    s.params[2] = 2; /* reads what others may not have written yet */
    s.grid[0] = 1;
    always("shared", shared_kernel, s, SIM_RACE_BLOCK, "__syncthreads()", "test.cu");
}

static void both_write_kernel(SimThread *t)
{
    if (THREAD % 32 == 0)
        STORE_SHARED(uint32_t, 8, 5, 2);
}
static void once_writes_kernel(SimThread *t)
{
    if (THREAD == 33)
        STORE_SHARED(uint32_t, 8, 5, 2);
    SYNC(3);
    if (LOAD_SHARED(uint32_t, 8, 4) == 5)
        STORE(uint32_t, PARAM(1) + THREAD * 4, 1, 5);
}

static void the_same_value_twice_is_a_race(void **state)
{
    (void)state;
    Shape s = {{1}, {64}, .shared = 256};
    always("both", both_write_kernel, s, SIM_RACE_BLOCK, "wrote it at test.cu:2", "test.cu");
    always("once", once_writes_kernel, s, SIM_RACE_BLOCK, NULL, NULL);
}

/* -- warps. PARAM(2): what stands between; PARAM(3): how far the other lane is. */

static void warp_kernel(SimThread *t)
{
    uint32_t i = THREAD, n = t->ntid[0];
    bool valid;
    STORE_SHARED(uint32_t, i * 4, i, 2);
    if (PARAM(2) == 1)
        t->service->warp_sync(t, UINT32_MAX, 3);
    else if (PARAM(2) == 2)
        t->service->shuffle(t, SIM_SHFL_BFLY, i, 1, 31, UINT32_MAX, &valid, 3);
    else if (PARAM(2) == 3)
        t->service->warp_sync(t, i % 32 < 16 ? 0xffff : 0xffff0000, 3);
    (void)LOAD_SHARED(uint32_t, (i ^ PARAM(3)) % n * 4, 4);
}

static void warps_are_ordered_by_warp_barriers_alone(void **state)
{
    (void)state;
    Shape s = {{2}, {64}, .shared = 256, .params = {0, 0, 1, 16}};
    always("warp", warp_kernel, s, SIM_RACE_BLOCK, NULL, NULL);
    s.params[2] = 0;
    always("warp", warp_kernel, s, SIM_RACE_BLOCK, "__syncwarp()", "test.cu");
    s.params[2] = 2;
    always("warp", warp_kernel, s, SIM_RACE_BLOCK, "__syncwarp()", "test.cu");
    s.params[2] = 1;
    s.params[3] = 32; /* of another warp */
    always("warp", warp_kernel, s, SIM_RACE_BLOCK, "__syncthreads()", "test.cu");
    s.params[2] = 3;
    s.params[3] = 8; /* of the same half */
    always("warp", warp_kernel, s, SIM_RACE_BLOCK, NULL, NULL);
    s.params[3] = 16; /* of the other half */
    always("warp", warp_kernel, s, SIM_RACE_BLOCK, "__syncwarp()", "test.cu");
}

/* All read a word, then one writes it: __syncwarp() is not enough for the other warps, and
 * nothing that the cell forgot may hide that. */
static void many_readers_kernel(SimThread *t)
{
    if (THREAD == 7)
        STORE_SHARED(uint32_t, 0, 1, 2);
    SYNC(3);
    (void)LOAD_SHARED(uint32_t, 0, 4);
    if (PARAM(2))
        SYNC(5);
    else
        t->service->warp_sync(t, UINT32_MAX, 5);
    if (THREAD == PARAM(3))
        STORE_SHARED(uint32_t, 0, 2, 6);
}

static void one_of_many_readers_is_found(void **state)
{
    (void)state;
    Shape s = {{1}, {256}, .shared = 64, .params = {0, 0, 0, 0}};
    for (uint64_t writer = 0; writer < 256; writer += 51) {
        s.params[3] = writer;
        s.params[2] = 0;
        always("readers", many_readers_kernel, s, SIM_RACE_BLOCK, "test.cu:4", "test.cu:6");
        s.params[2] = 1;
        always("readers", many_readers_kernel, s, SIM_RACE_BLOCK, NULL, NULL);
    }
}

/* A part of a block meets (64 threads); the others read what was theirs, or not. */
static void part_kernel(SimThread *t)
{
    uint32_t i = THREAD;
    STORE_SHARED(uint32_t, i * 4, i, 2);
    t->service->barrier(t, SIM_BAR_SYNC, 1 + i / 64, 64, 0, 3);
    if (i % 64 == 0)
        STORE_SHARED(uint32_t, 512 + i, LOAD_SHARED(uint32_t, (i ^ PARAM(2)) * 4, 4), 5);
    t->service->warp_sync(t, UINT32_MAX, 6);
    (void)LOAD_SHARED(uint32_t, 512 + i / 64 * 64, 7);
}

static void a_barrier_of_a_part_orders_the_part(void **state)
{
    (void)state;
    Shape s = {{1}, {32}, .shared = 1024, .params = {0, 0, 40}};
    s.block[0] = 128;
    /* Lane 0 of warps 0 and 2 writes for its own warp only: warps 1 and 3 race. */
    always("part", part_kernel, s, SIM_RACE_BLOCK, "part (test.cu:", "test.cu");
    assert_null(strstr(stand_text(), "test.cu:4"));
    s.params[2] = 64;
    always("part", part_kernel, s, SIM_RACE_BLOCK, "part (test.cu:", "test.cu");
}

static void part_right_kernel(SimThread *t)
{
    uint32_t i = THREAD;
    STORE_SHARED(uint32_t, i * 4, i, 2);
    t->service->barrier(t, SIM_BAR_SYNC, 1 + i / 64, 64, 0, 3);
    if (i % 64 == 0)
        STORE_SHARED(uint32_t, 512 + i, LOAD_SHARED(uint32_t, (i ^ PARAM(2)) * 4, 4), 5);
    t->service->warp_sync(t, UINT32_MAX, 6);
    if (i % 64 < 32)
        (void)LOAD_SHARED(uint32_t, 512 + i / 64 * 64, 7);
}

static void a_barrier_of_a_part_orders_no_more(void **state)
{
    (void)state;
    Shape s = {{1}, {128}, .shared = 1024, .params = {0, 0, 40}};
    always("part", part_right_kernel, s, SIM_RACE_BLOCK, NULL, NULL);
    s.params[2] = 64;
    always("part", part_right_kernel, s, SIM_RACE_BLOCK, "part (test.cu:", "test.cu");
}

/* -- global memory: blocks, atomic accesses, the last block */

static void blocks_kernel(SimThread *t)
{
    if (THREAD == 0)
        STORE(uint32_t, PARAM(1) + BLOCK * PARAM(2), 1, 2);
    if (PARAM(3))
        (void)LOAD(uint32_t, PARAM(1) + (BLOCK ^ 1) * PARAM(2), 3);
}

static void blocks_are_not_ordered(void **state)
{
    (void)state;
    Shape s = {{6}, {32}, .params = {0, 0, 4, 0}};
    always("blocks", blocks_kernel, s, SIM_RACE_BLOCK, NULL, NULL);
    s.params[2] = 0;
    always("blocks", blocks_kernel, s, SIM_RACE_BLOCK, "nothing orders the blocks", "test.cu");
    s.params[2] = 4;
    s.params[3] = 1;
    always("blocks", blocks_kernel, s, SIM_RACE_BLOCK, "nothing orders the blocks", "test.cu");
}

static void atomics_kernel(SimThread *t)
{
    AT(uint32_t, GLOBAL, PARAM(1), 4, 2) += 1;
    if (PARAM(2) & 1)
        SYNC(3);
    if (THREAD == PARAM(3))
        (void)LOAD(uint32_t, PARAM(1), 4);
    if (PARAM(2) & 2)
        (void)AT(uint32_t, GLOBAL, PARAM(1), 5, 5);
}

static void atomic_accesses_do_not_race_with_each_other(void **state)
{
    (void)state;
    Shape s = {{1}, {64}, .params = {0, 0, 1, 5}};
    always("atomics", atomics_kernel, s, SIM_RACE_BLOCK, NULL, NULL);
    s.params[2] = 0; /* a plain read of a thread that has just changed the word */
    always("atomics", atomics_kernel, s, SIM_RACE_BLOCK, "test.cu:2", "test.cu:4");
    s.grid[0] = 2;
    s.params[2] = 1;
    always("atomics", atomics_kernel, s, SIM_RACE_BLOCK, "(test.cu:", "test.cu");
    s.params[2] = 2;
    s.params[3] = 99;
    always("atomics", atomics_kernel, s, SIM_RACE_BLOCK, NULL, NULL);
}

/* A handshake of two warps with volatile accesses, in global or in shared memory. */
static void volatile_kernel(SimThread *t)
{
    uint32_t i = THREAD;
    bool shared = PARAM(2) == 1;
    SimSpace space = shared ? SIM_SPACE_SHARED : SIM_SPACE_GLOBAL;
    uint64_t flag = shared ? 0 : PARAM(1);
    if (i == 0 && shared)
        STORE_SHARED(uint32_t, 0, 0, 2);
    SYNC(3);
    if (i == 0) {
        STORE(uint32_t, PARAM(1) + 64, 7, 4);
        if (PARAM(3))
            t->service->fence(t, 1);
        *(uint32_t *)t->service->access(t, space, flag, 4, 2 | 8, 5) = 1;
    } else if (i == 40) {
        while (*(uint32_t *)t->service->access(t, space, flag, 4, 1 | 8, 6) == 0) {
        }
        if (PARAM(3))
            t->service->fence(t, 1);
        (void)LOAD(uint32_t, PARAM(1) + 64, 7);
    }
}

static void volatile_accesses_after_a_fence_are_atomic(void **state)
{
    (void)state;
    Shape s = {{1}, {64}, .shared = 16, .params = {0, 0, 0, 1}};
    always("volatile", volatile_kernel, s, SIM_RACE_BLOCK, NULL, NULL);
    s.params[3] = 0;
    always("volatile", volatile_kernel, s, SIM_RACE_BLOCK, "test.cu:4", "test.cu:7");
    always("volatile", volatile_kernel, s, SIM_RACE_BLOCK, "test.cu:5", "test.cu:6");
    s.params[2] = 1;
    always("volatile", volatile_kernel, s, SIM_RACE_BLOCK, "test.cu:5", "test.cu:6");
    s.params[3] = 1;
    always("volatile", volatile_kernel, s, SIM_RACE_BLOCK, NULL, NULL);
}

/* The last block to finish adds up what all blocks left. PARAM(2): with fences. */
static void last_kernel(SimThread *t)
{
    uint32_t blocks = t->nctaid[0], sum = 0;
    uint64_t counter = PARAM(1), parts = PARAM(1) + 64;
    STORE(uint32_t, parts + (BLOCK * 64 + THREAD) * 4, BLOCK, 2);
    if (PARAM(2) & 1)
        t->service->fence(t, 1);
    SYNC(4);
    if (THREAD == 0) {
        if (PARAM(2) & 2)
            t->service->fence(t, 1);
        STORE_SHARED(uint32_t, 0, AT(uint32_t, GLOBAL, counter, 4, 5)++, 5);
    }
    SYNC(6);
    if (LOAD_SHARED(uint32_t, 0, 7) != blocks - 1)
        return;
    for (uint32_t b = 0; b < blocks; b++)
        sum += LOAD(uint32_t, parts + (b * 64 + THREAD) * 4, 8);
    STORE(uint32_t, PARAM(1) + 8192 + THREAD * 4, sum, 9);
}

static void fences_order_blocks(void **state)
{
    (void)state;
    Shape s = {{7}, {64}, .shared = 16, .params = {0, 0, 2}};
    always("last", last_kernel, s, SIM_RACE_BLOCK, NULL, NULL);
    s.params[2] = 3;
    always("last", last_kernel, s, SIM_RACE_BLOCK, NULL, NULL);
    s.params[2] = 0;
    always("last", last_kernel, s, SIM_RACE_BLOCK, "last (test.cu:8) reads", "test.cu");
    s.params[2] = 1; /* others fence, the one that counts does not */
    always("last", last_kernel, s, SIM_RACE_BLOCK, "last (test.cu:8) reads", "test.cu");
}

/* A lock of which every thread is the holder once. */
static void lock_kernel(SimThread *t)
{
    while (AT(uint32_t, GLOBAL, PARAM(1), 4, 2) != 0) {
    }
    AT(uint32_t, GLOBAL, PARAM(1), 4, 3) = 1;
    if (PARAM(2))
        t->service->fence(t, 1);
    uint32_t n = LOAD(uint32_t, PARAM(1) + 64, 4);
    STORE(uint32_t, PARAM(1) + 64, n + 1, 5);
    if (PARAM(2))
        t->service->fence(t, 1);
    AT(uint32_t, GLOBAL, PARAM(1), 4, 6) = 0;
}

static void locks_order_holders(void **state)
{
    (void)state;
    Shape s = {{3}, {40}, .params = {0, 0, 1}};
    always("lock", lock_kernel, s, SIM_RACE_BLOCK, NULL, NULL);
    s.params[2] = 0;
    always("lock", lock_kernel, s, SIM_RACE_BLOCK, "(test.cu:", "test.cu");
}

/* Where the read comes first there is nothing to read yet: that is the race, too. */
static void early_kernel(SimThread *t)
{
    if (PARAM(2) == 2 || THREAD != 0)
        (void)LOAD_SHARED(uint32_t, THREAD * 4, 2);
    if (PARAM(2) == 1)
        STORE_SHARED(uint32_t, (t->ntid[0] - THREAD) % t->ntid[0] * 4, 1, 3);
}

static void a_read_before_any_write_is_a_race(void **state)
{
    (void)state;
    Shape s = {{1}, {33}, .shared = 33 * 4, .params = {0, 0, 1}};
    always("early", early_kernel, s, SIM_RACE_BLOCK, "test.cu:2", "test.cu:3");
    s.params[2] = 2;
    always("early", early_kernel, s, SIM_UNINITIALISED, "test.cu:2", "nothing has written");
}

/* -- memory that nobody wrote */

static void unwritten_kernel(SimThread *t)
{
    if (PARAM(2) == 0)
        (void)LOAD_SHARED(uint16_t, 2, 2);
    else
        (void)LOAD(uint32_t, PARAM(3), 3);
}

/* Every block has shared memory of its own. */
static void first_block_kernel(SimThread *t)
{
    if (t->tid[0] == 0 && AT(uint32_t, GLOBAL, PARAM(1), 4, 2)++ == 0)
        STORE_SHARED(uint32_t, 4, 1, 3);
    SYNC(4);
    (void)LOAD_SHARED(uint32_t, 4, 5);
}

static void reads_of_what_nobody_wrote_are_found(void **state)
{
    (void)state;
    Shape s = {{1}, {1}, .shared = 16, .params = {0, 0, 0, stand_alloc(0, 4)}};
    always("unwritten", unwritten_kernel, s, SIM_UNINITIALISED,
           "unwritten (test.cu:2) reads 2 bytes", "test.cu");
    s.params[2] = 1;
    stand_run(stream, "unwritten", unwritten_kernel, s);
    stand_only(SIM_UNINITIALISED, "unwritten (test.cu:3) reads 4 bytes");
    s.grid[0] = 2;
    always("first", first_block_kernel, s, SIM_UNINITIALISED, "first (test.cu:5)", "test.cu");
    uint64_t half = stand_alloc(0, 8);
    stand_range(stream, "fill", half + 1, 3, SIM_WRITE);
    stand_range(stream, "copy", half + 1, 3, SIM_READ);
    stand_clean();
    stand_range(stream, "copy", half, 4, SIM_READ);
    stand_only(SIM_UNINITIALISED, "copy");
}

/* -- parts of words: each thread has its own bytes of a word */

static void bytes_kernel(SimThread *t)
{
    uint32_t i = THREAD, n = t->ntid[0] * t->nctaid[0];
    uint32_t k = BLOCK * t->ntid[0] + i;
    STORE(uint8_t, PARAM(1) + k, (uint8_t)k, 2);
    STORE(uint16_t, PARAM(1) + 4096 + k * 2, (uint16_t)k, 3);
    (void)LOAD(uint8_t, PARAM(1) + k, 4);
    (void)LOAD(uint16_t, PARAM(1) + 4096 + k * 2, 5);
    STORE_SHARED(uint8_t, i, (uint8_t)i, 6);
    SYNC(7);
    (void)LOAD_SHARED(uint8_t, (i + 1) % t->ntid[0], 8);
    if (PARAM(2) == 1)
        STORE_SHARED(uint8_t, i, (uint8_t)i, 9);
    if (PARAM(2) == 2 && k + 1 < n)
        (void)LOAD(uint16_t, PARAM(1) + 4096 + (k + 1) * 2, 10);
}

static void bytes_of_a_word_are_apart(void **state)
{
    (void)state;
    Shape s = {{5}, {50}, .shared = 64, .params = {0, 0, 0}};
    always("bytes", bytes_kernel, s, SIM_RACE_BLOCK, NULL, NULL);
    s.params[2] = 1;
    always("bytes", bytes_kernel, s, SIM_RACE_BLOCK, "test.cu:8", "test.cu:9");
    s.params[2] = 2;
    always("bytes", bytes_kernel, s, SIM_RACE_BLOCK, "(test.cu:", "test.cu");
}

/* -- wide accesses */

static void wide_kernel(SimThread *t)
{
    *(uint64_t *)t->service->access(t, SIM_SPACE_GLOBAL, PARAM(1) + THREAD * PARAM(2), 16, 2, 2) =
        1;
}

static void vectors_are_checked_as_a_whole(void **state)
{
    (void)state;
    Shape s = {{1}, {40}, .params = {0, 0, 16}};
    always("wide", wide_kernel, s, SIM_RACE_BLOCK, NULL, NULL);
    s.params[2] = 8;
    always("wide", wide_kernel, s, SIM_MISALIGNED, "wide (test.cu:2) writes 16 bytes", "test.cu");
    s.block[0] = 2;
    s.params[2] = 0;
    always("wide", wide_kernel, s, SIM_RACE_BLOCK, "wrote it at test.cu:2", "test.cu");
}

/* -- after many segments the shadow forgets who, but not what was written */

static void segments_begin_anew(void **state)
{
    (void)state;
    uint64_t never = stand_alloc(0, 4);
    Shape s = {{2}, {64}, .shared = 256, .params = {0, 0, 3}};
    for (int i = 0; i < 2; i++) {
        shadow_segments(UINT32_C(0xc0000000));
        always("shared", shared_kernel, s, SIM_RACE_BLOCK, NULL, NULL);
        stand_range(stream, "copy", out, WORDS * 4, SIM_READ);
        stand_clean();
    }
    s.params[2] = 1;
    s.params[3] = never;
    stand_run(stream, "unwritten", unwritten_kernel, s);
    assert_true(stand_found(SIM_UNINITIALISED));
    s.params[2] = 0;
    always("shared", shared_kernel, s, SIM_RACE_BLOCK, "(test.cu:", "test.cu");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(missing_barriers_are_found, begin),
        cmocka_unit_test_setup(the_same_value_twice_is_a_race, begin),
        cmocka_unit_test_setup(warps_are_ordered_by_warp_barriers_alone, begin),
        cmocka_unit_test_setup(one_of_many_readers_is_found, begin),
        cmocka_unit_test_setup(a_barrier_of_a_part_orders_the_part, begin),
        cmocka_unit_test_setup(a_barrier_of_a_part_orders_no_more, begin),
        cmocka_unit_test_setup(blocks_are_not_ordered, begin),
        cmocka_unit_test_setup(atomic_accesses_do_not_race_with_each_other, begin),
        cmocka_unit_test_setup(volatile_accesses_after_a_fence_are_atomic, begin),
        cmocka_unit_test_setup(fences_order_blocks, begin),
        cmocka_unit_test_setup(locks_order_holders, begin),
        cmocka_unit_test_setup(a_read_before_any_write_is_a_race, begin),
        cmocka_unit_test_setup(reads_of_what_nobody_wrote_are_found, begin),
        cmocka_unit_test_setup(bytes_of_a_word_are_apart, begin),
        cmocka_unit_test_setup(vectors_are_checked_as_a_whole, begin),
        cmocka_unit_test_setup(segments_begin_anew, begin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
