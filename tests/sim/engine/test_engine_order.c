/* test_engine_order.c - races between operations of streams, refused accesses, and speeds. */
#include "stand.h"

#include <stdio.h>
#include <string.h>

static SimStream *one, *two, *far;

static int begin(void **state)
{
    (void)state;
    stand_begin();
    if (!one) {
        one = stand_stream(0);
        two = stand_stream(0);
        far = stand_stream(1);
    }
    return 0;
}

static void add_kernel(SimThread *t)
{
    uint64_t i = BLOCK * t->ntid[0] + THREAD;
    if (i < PARAM(3))
        STORE(float, PARAM(2) + i * 4,
              LOAD(float, PARAM(0) + i * 4, 2) + LOAD(float, PARAM(1) + i * 4, 3), 4);
}

static void add(SimStream *s, const char *name, uint64_t a, uint64_t b, uint64_t c, uint64_t n)
{
    stand_run(s, name, add_kernel,
              (Shape){{(unsigned)(n + 127) / 128}, {128}, .params = {a, b, c, n}});
}

enum { WORDS = 1000 };

/* Memory that was filled before everything else in both streams. */
static uint64_t filled(void)
{
    uint64_t a = stand_alloc(0, WORDS * 4);
    stand_wait(two, one);
    stand_range(two, "fill", a, WORDS * 4, SIM_WRITE);
    stand_wait(one, two);
    return a;
}

static void waits_order_streams(void **state)
{
    (void)state;
    uint64_t a = filled(), b = filled(), c = stand_alloc(0, WORDS * 4);
    add(one, "add", a, b, c, WORDS);
    stand_wait(two, one);
    stand_range(two, "copy", c, WORDS * 4, SIM_READ);
    stand_range(two, "fill", a, WORDS * 4, SIM_WRITE);
    stand_wait(one, two);
    add(one, "add", a, b, c, WORDS);
    stand_clean();
}

static void missing_waits_are_found(void **state)
{
    (void)state;
    uint64_t a = filled(), b = filled(), c = stand_alloc(0, WORDS * 4);
    add(one, "add", a, b, c, WORDS);
    stand_range(two, "copy", c + 400, 4, SIM_READ); /* read after write */
    stand_only(SIM_RACE, "copy, gpu 0, stream 1 reads");
    assert_non_null(strstr(stand_text(), "other side: add, gpu 0, stream 0 wrote it at test.cu:4 "
                                         "in block (0,0,0) thread (100,0,0)"));
    stand_range(two, "fill", b + 3996, 4, SIM_WRITE); /* write after read */
    stand_only(SIM_RACE, "fill, gpu 0, stream 1 writes");
    assert_non_null(strstr(stand_text(), "read it at test.cu:3 in block (7,0,0) thread (103,0,0)"));
    add(two, "other", a, b, c, WORDS); /* write after write; reads are no race */
    assert_int_equal(stand_found(SIM_RACE), stand_found_any());
    assert_non_null(strstr(stand_text(), "other (test.cu:4) writes 4 bytes"));
    stand_begin();
    stand_wait(one, two);
    add(one, "add", a, b, c, WORDS);
    stand_clean();
}

static void many_streams_read_at_once(void **state)
{
    (void)state;
    enum { READERS = 8 };
    SimStream *readers[READERS];
    for (int missing = -1; missing < READERS; missing++) {
        stand_begin();
        uint64_t a = filled();
        for (int i = 0; i < READERS; i++) {
            if (missing < 0)
                readers[i] = stand_stream(0);
            stand_wait(readers[i], one);
            stand_range(readers[i], "reader", a, WORDS * 4, SIM_READ);
        }
        stand_clean();
        for (int i = 0; i < READERS; i++) {
            if (i != missing)
                stand_wait(one, readers[i]);
        }
        stand_range(one, "fill", a, WORDS * 4, SIM_WRITE);
        if (missing < 0)
            stand_clean();
        else
            stand_only(SIM_RACE, "reader");
        for (int i = 0; i < READERS; i++)
            stand_wait(one, readers[i]);
    }
}

static void one_of_many_kernels_wrote(void **state)
{
    (void)state;
    /* What is older than all that is unordered is found by number; the rest one by one. */
    uint64_t a = filled(), b = filled(), c[40];
    for (int i = 0; i < 40; i++) {
        c[i] = stand_alloc(0, WORDS * 4);
        add(i % 2 ? one : two, "add", a, b, c[i], WORDS);
    }
    stand_clean();
    for (int i = 0; i < 40; i++) {
        stand_range(one, "copy", c[i], WORDS * 4, SIM_READ);
        if (i % 2)
            stand_clean();
        else
            stand_only(SIM_RACE, "other side: add, gpu 0, stream 1");
    }
}

static void refused_kernel(SimThread *t)
{
    if (PARAM(1) == 1)
        STORE(float, PARAM(0), 1, 2);
    else
        (void)AT(float, GENERIC, PARAM(0), 1, 3);
}

static void refused(uint64_t address, bool write, SimFinding kind, const char *part)
{
    stand_run(one, "refused", refused_kernel, (Shape){{1}, {40}, .params = {address, write}});
    stand_only(kind, part);
    assert_non_null(strstr(stand_text(), write ? "refused (test.cu:2) writes 4 bytes"
                                               : "refused (test.cu:3) reads 4 bytes"));
}

static void wrong_addresses_are_refused(void **state)
{
    (void)state;
    static float host;
    uint64_t a = stand_alloc(0, 100), b = stand_alloc(1, 100), c = stand_alloc(0, 100);
    for (int race = 0; race < 2; race++) {
        stand_config.race = race;
        refused(a + 100, true, SIM_OUT_OF_BOUNDS, "+100 in 100 bytes of gpu 0");
        refused(a + 98, false, SIM_MISALIGNED, "+98 in 100");
        refused(b, true, SIM_WRONG_DEVICE, "gpu 1");
        refused(0, true, SIM_OUT_OF_BOUNDS, "a null pointer");
        refused((uintptr_t)&host, true, SIM_HOST_POINTER, "host memory that is not pinned");
        refused(UINT64_C(0xdead000000000000), true, SIM_OUT_OF_BOUNDS,
                "no memory of a GPU or of the host");
        refused(SIM_SHARED_WINDOW + 4, false, SIM_OUT_OF_BOUNDS, "offset 4 in 0 bytes of shared");
        refused(SIM_PARAM_WINDOW + 32, false, SIM_OUT_OF_BOUNDS, "offset 32 in 32 bytes of param");
        if (race)
            stand_free(c);
    }
    refused(c, true, SIM_USE_AFTER_FREE, "gpu 0");
    stand_peer(0, 1, true);
    stand_range(far, "fill", b, 100, SIM_WRITE);
    stand_run(one, "peer", refused_kernel, (Shape){{1}, {1}, .params = {b}});
    stand_only(SIM_RACE, "other side: fill, gpu 1, stream 2");
    stand_wait(one, far);
    stand_run(one, "peer", refused_kernel, (Shape){{1}, {1}, .params = {b}});
    stand_clean();
}

/* Everything a kernel is given is what an earlier one left, as long as nothing is told. */
static void fast_mode_notes_nothing(void **state)
{
    (void)state;
    stand_config.race = false;
    uint64_t a = stand_alloc(0, WORDS * 4);
    add(one, "add", a, a, a, WORDS);
    add(two, "add", a, a, a, WORDS);
    stand_clean();
}

/* -- speeds: printed, for comparison by eye */

static void meet_kernel(SimThread *t)
{
    for (uint64_t i = 0; i < PARAM(0); i++)
        SYNC(2);
}
static void shuffle_kernel(SimThread *t)
{
    bool valid;
    for (uint64_t i = 0; i < PARAM(0); i++)
        t->service->shuffle(t, SIM_SHFL_BFLY, 1, 1, 31, UINT32_MAX, &valid, 2);
}
static void tile_kernel(SimThread *t)
{
    uint32_t i = THREAD, n = t->ntid[0];
    for (uint64_t r = 0; r < PARAM(0); r++) {
        STORE_SHARED(float, i * 4, 1.0f, 2);
        SYNC(3);
        for (uint32_t k = 0; k < 16; k++)
            (void)LOAD_SHARED(float, (i + k) % n * 4, 4);
        SYNC(5);
    }
}

static void speeds(void **state)
{
    (void)state;
    enum { MANY = 1 << 20, ROUNDS = 4, MEETS = 2000 };
    uint64_t a = stand_alloc(0, MANY * 4), b = stand_alloc(0, MANY * 4);
    uint64_t c = stand_alloc(0, MANY * 4);
    stand_wait(one, two);
    stand_range(one, "fill", a, MANY * 4, SIM_WRITE);
    stand_range(one, "fill", b, MANY * 4, SIM_WRITE);
    for (int race = 0; race < 2; race++) {
        const char *mode = race ? "race" : "fast";
        stand_config.race = race;
        add(one, "add", a, b, c, MANY);
        double start = stand_seconds();
        for (int i = 0; i < ROUNDS; i++)
            add(one, "add", a, b, c, MANY);
        double took = stand_seconds() - start;
        print_message("%s: %.0f M accesses/s (element-wise, global)\n", mode,
                      3.0 * ROUNDS * MANY / took / 1e6);
        start = stand_seconds();
        stand_run(one, "tile", tile_kernel, (Shape){{100}, {256}, .shared = 1024, .params = {20}});
        took = stand_seconds() - start;
        print_message("%s: %.0f M accesses/s (shared, 2 barriers for 17 accesses)\n", mode,
                      100.0 * 20 * 256 * 17 / took / 1e6);
        for (unsigned n = 64; n <= 1024; n *= 4) {
            start = stand_seconds();
            stand_run(one, "meet", meet_kernel, (Shape){{1}, {n}, .params = {MEETS}});
            took = stand_seconds() - start;
            print_message("%s: %.0f ns per thread and barrier (%u threads)\n", mode,
                          took / MEETS / n * 1e9, n);
        }
        start = stand_seconds();
        stand_run(one, "shuffle", shuffle_kernel, (Shape){{1}, {256}, .params = {MEETS}});
        took = stand_seconds() - start;
        print_message("%s: %.0f ns per thread and shuffle\n", mode, took / MEETS / 256 * 1e9);
    }
    stand_clean();
}

/* Segments begin anew between two blocks of a kernel: what was before it is forgotten, what it
 * does from then on is seen as ever. */
static void segments_begin_anew(void **state)
{
    (void)state;
    stand_config.schedule = SIM_FIFO;
    uint64_t a = filled(), b = filled(), c = stand_alloc(0, WORDS * 4);
    shadow_segments_reserve();
    shadow_segments(UINT32_C(0xc0000000) - 4 - shadow_segments(0));
    add(one, "add", a, b, c, WORDS);
    assert_true(shadow_segments(0) < WORDS);
    stand_clean();
    stand_range(two, "copy", c + (WORDS - 1) * 4, 4, SIM_READ);
    stand_only(SIM_RACE, "other side: add");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(waits_order_streams, begin),
        cmocka_unit_test_setup(missing_waits_are_found, begin),
        cmocka_unit_test_setup(many_streams_read_at_once, begin),
        cmocka_unit_test_setup(one_of_many_kernels_wrote, begin),
        cmocka_unit_test_setup(wrong_addresses_are_refused, begin),
        cmocka_unit_test_setup(fast_mode_notes_nothing, begin),
        cmocka_unit_test_setup(segments_begin_anew, begin),
        cmocka_unit_test_setup(speeds, begin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
