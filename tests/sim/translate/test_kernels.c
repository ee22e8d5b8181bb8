/* test_kernels.c - the kernels of kernels.ptx: memory, parameters, calls, control flow, what
 * threads do together, places in the source, and what is not understood.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "translate_stand.h"

static StandModule *module;

/* Memory that kernels get. */
static union {
    uint32_t u32[64];
    uint64_t u64[32];
    float f32[64];
    double f64[32];
    uint8_t u8[256];
    int16_t s16[128];
} memory __attribute__((aligned(16)));

static void run(const char *name)
{
    const SimKernelTable *kernel = stand_kernel(module, name);
    assert_non_null(kernel);
    assert_null(kernel->unknown);
    const void *pointer = &memory;
    stand_run(kernel, &pointer);
}

static void clear(void)
{
    memset(&memory, 0, sizeof memory);
    memset(stand_shared(), 0, 8192);
}

static void test_vectors(void **state)
{
    (void)state;
    clear();
    for (int i = 0; i < 4; i++)
        memory.f32[i] = (float)(i + 1);
    memory.u64[4] = 11;
    memory.u64[5] = 22;
    run("vectors");
    assert_true(memory.f32[4] == 4 && memory.f32[5] == 3);
    assert_true(memory.f32[6] == 3);
    assert_int_equal(memory.u64[6], 22);
    assert_int_equal(memory.u64[7], 11);
    assert_int_equal(memory.u32[16], 1);
    assert_true(memory.f32[17] == 2);
    assert_int_equal(memory.u32[18], (uint32_t)-3);
    assert_true(memory.f32[19] == 3);
}

static void test_narrow(void **state)
{
    (void)state;
    clear();
    memory.u8[0] = 0x80;
    memory.u8[1] = 0xfe;
    memory.s16[1] = -300;
    memory.u8[19] = 0x77;
    run("narrow");
    assert_int_equal(memory.u32[2], 0xffffff80);
    assert_int_equal(memory.u32[3], 0x80);
    assert_int_equal(memory.s16[8], -2);
    assert_int_equal(memory.u8[18], 0x80);
    assert_int_equal(memory.u8[19], 0x77);
    assert_int_equal((int64_t)memory.u64[3], -300);
}

static void test_spaces(void **state)
{
    (void)state;
    clear();
    run("spaces");
    const uint32_t want[] = {11, 22, 23, 33, 44, 1 + 4};
    assert_memory_equal(memory.u32, want, sizeof want);
    const SimKernelTable *kernel = stand_kernel(module, "spaces");
    assert_int_equal(kernel->local_bytes, 32);
    assert_true(kernel->shared_bytes >= 32 && kernel->shared_bytes < 4096);
    assert_int_equal(kernel->shared_align, 16);
    uint32_t found;
    memcpy(&found, stand_shared() + 4096 + 4, sizeof found);
    assert_int_equal(found, 33);
}

static void test_params(void **state)
{
    (void)state;
    clear();
    const SimKernelTable *kernel = stand_kernel(module, "params");
    const uint32_t offsets[] = {0, 24, 32, 40}, sizes[] = {24, 4, 8, 1};
    assert_int_equal(kernel->nparams, 4);
    assert_int_equal(kernel->param_bytes, 41);
    assert_memory_equal(kernel->param_offset, offsets, sizeof offsets);
    assert_memory_equal(kernel->param_size, sizes, sizeof sizes);
    char params[48] __attribute__((aligned(8))) = {0};
    const uint32_t numbers[4] = {100, 101, 102, 103}, index = 2;
    const double real = 2.75;
    const void *pointer = &memory;
    memcpy(params, numbers, sizeof numbers);
    memcpy(params + 16, &real, sizeof real);
    memcpy(params + 24, &index, sizeof index);
    memcpy(params + 32, &pointer, sizeof pointer);
    params[40] = (char)200;
    stand_run(kernel, params);
    const uint32_t want[] = {102, 103, 200, 102, 103};
    assert_memory_equal(memory.u32, want, sizeof want);
    assert_true(memory.f64[3] == 2.75);
}

static void test_globals(void **state)
{
    (void)state;
    clear();
    run("globals");
    assert_int_equal(memory.u32[0], 5);
    assert_int_equal(memory.u32[1], 6);
    assert_int_equal(memory.u32[2], 6);
    assert_int_equal(memory.u32[3], (uint32_t)-3);
    assert_true(memory.f32[4] == -1 && memory.f32[5] == 2.5f);
    assert_int_equal(memory.u32[6], 2);
    const PtxModule *ptx = stand_ptx(module);
    for (uint32_t i = 0; i < ptx->nvariables; i++) {
        const PtxVariable *v = &ptx->variables[i];
        if (is_global(v))
            assert_int_equal(v->space == PTX_CONST, strcmp(v->name->text, "table") == 0);
        if (strcmp(v->name->text, "zeroes") == 0)
            assert_true(!v->initial && v->bytes == 64);
    }
}

static void test_calls(void **state)
{
    (void)state;
    clear();
    run("calls");
    const uint32_t want[] = {720, 77, 720, 3, 13};
    assert_memory_equal(memory.u32, want, sizeof want);
    assert_true(stand_kernel(module, "calls")->local_bytes >= 16 + 6 * 16);
    /* Entries that reach no function's or module's shared memory pay for none of it. */
    assert_int_equal(stand_kernel(module, "copies")->shared_bytes, 64);
}

static void test_branches(void **state)
{
    (void)state;
    clear();
    run("choose");
    assert_int_equal(memory.u32[0], 111);
}

static void test_together(void **state)
{
    (void)state;
    clear();
    memory.u32[16] = 8;
    run("together");
    char want[1024];
    snprintf(want, sizeof want,
             "barrier 0 0 0 0; barrier 0 1 64 0; barrier 3 0 0 1; barrier 1 2 64 0; "
             "warp_sync ffff; shuffle 3 40 16 31 ffffffff; shuffle 1 40 1 0 ff; vote 3 1 f; "
             "vote 0 0 f; vote 2 1 f; match 28 3; match %llx 7; reduce 2 1 40 ffffffff; "
             "reduce 4 0 40 1; active; fence 1; fence 0; fence 2; fence 1; fence 1; fence 2; "
             "fence 0; ",
             (unsigned long long)(uintptr_t)&memory);
    assert_string_equal(stand_log(), want);
    const uint32_t numbers[] = {7, 41, 41, 0x55, 3, 7, 80, 80, 0xff, 8, 9, 8 + 16};
    assert_memory_equal(memory.u32, numbers, sizeof numbers);
    assert_int_equal(memory.u32[16], 5);
}

static void test_print(void **state)
{
    (void)state;
    run("say");
    assert_string_equal(stand_log(), "print \"hello\" 42; ");
}

static void test_async_copies(void **state)
{
    (void)state;
    clear();
    memory.u32[0] = 50;
    memory.u32[1] = 51;
    memory.u32[4] = 54;
    run("copies");
    const uint32_t want[] = {0, 50, 0, 54, 0};
    assert_memory_equal(memory.u32 + 8, want, sizeof want);
    uint32_t last;
    memcpy(&last, stand_shared() + 48, sizeof last);
    assert_int_equal(last, 50);
}

static void test_specials(void **state)
{
    (void)state;
    clear();
    stand_thread.tid[0] = 37;
    stand_thread.ctaid[1] = 4;
    stand_thread.ntid[2] = 3;
    stand_thread.nctaid[0] = 9;
    stand_thread.lane = 5;
    stand_thread.dynamic_shared_bytes = 640;
    run("specials");
    const uint32_t want[] = {37,         4,  3,   9,          5,          0x1f,
                             0xffffffe0, 32, 640, 0x56789abc, 0xffffffc0, 37 * 32 + 1};
    assert_memory_equal(memory.u32, want, sizeof want);
    assert_int_equal(memory.u64[6], 0x123456789abc);
    assert_int_equal(memory.s16[28], 37);
    stand_thread.lane = 0;
}

static void test_trap(void **state)
{
    (void)state;
    clear();
    run("trapped");
    assert_string_equal(stand_log(), "trap at 70; ");
    assert_int_equal(memory.u32[0], 0);
}

static void test_unknown(void **state)
{
    (void)state;
    static const char *const cases[][3] = {
        {"unknown_opcode", "wgmma.fence.sync.aligned", "model.cu:77"},
        {"unknown_modifier", "add.rn.new.f32", "model.cu:78"},
        {"unknown_product", "mma.sync.aligned.m8n8k4", "model.cu:80"},
        {"unknown_fragment", "wmma.load.a.sync.aligned.row.m16n16k8", "model.cu:81"},
        {"unknown_literal", "add.f16", "model.cu:82"},
        {"unknown_parameters", "32764 bytes of parameters", "unknown_parameters"},
        {"unknown_in_call", "tex.1d.v4.f32.s32", "reaches_unknown (/home/someone/model.cu:79)"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const SimKernelTable *kernel = stand_kernel(module, cases[i][0]);
        assert_non_null(kernel);
        assert_null(kernel->run);
        assert_non_null(kernel->unknown);
        assert_non_null(strstr(kernel->unknown, cases[i][1]));
        assert_non_null(strstr(kernel->unknown, cases[i][2]));
    }
}

/* What they compute is the samples' business: here is but one lane. */
static void test_products(void **state)
{
    (void)state;
    const SimKernelTable *kernel = stand_kernel(module, "products");
    assert_non_null(kernel);
    assert_null(kernel->unknown);
    assert_non_null(kernel->run);
    assert_int_equal(kernel->shared_bytes, 2048);
}

/* The user's own innermost line: not a header of the toolkit's, not line 0. */
static void test_places(void **state)
{
    (void)state;
    const SimKernelTable *kernel = stand_kernel(module, "places");
    const struct {
        const char *file, *instruction;
        int line;
    } want[] = {{"/home/someone/model.cu", "entry", 10},
                {"/home/someone/model.cu", "st.global.u32", 11},
                {"/home/someone/tiles.cuh", "st.global.u32", 20},
                {"/home/someone/tiles.cuh", "st.global.f32", 20},
                {"/home/someone/tiles.cuh", "st.global.u64", 20}};
    assert_int_equal(kernel->max_threads, 192);
    assert_true(kernel->nsites >= 5);
    for (int i = 0; i < 5; i++) {
        assert_string_equal(kernel->sites[i].file, want[i].file);
        assert_string_equal(kernel->sites[i].instruction, want[i].instruction);
        assert_int_equal(kernel->sites[i].line, want[i].line);
    }
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    size_t size;
    char *ptx = stand_read(argv[1], &size);
    module = stand_load(ptx);
    free(ptx);
    if (!module)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors),  cmocka_unit_test(test_narrow),
        cmocka_unit_test(test_spaces),   cmocka_unit_test(test_params),
        cmocka_unit_test(test_globals),  cmocka_unit_test(test_calls),
        cmocka_unit_test(test_branches), cmocka_unit_test(test_together),
        cmocka_unit_test(test_print),    cmocka_unit_test(test_async_copies),
        cmocka_unit_test(test_specials), cmocka_unit_test(test_trap),
        cmocka_unit_test(test_unknown),  cmocka_unit_test(test_places),
        cmocka_unit_test(test_products),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
