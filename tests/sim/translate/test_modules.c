/* test_modules.c - fat binaries, names of kernels, the cache of compiled kernels. */
#include <dirent.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "fatbin.h"
#include "sim.h"
#include "translate_stand.h"

/* ------------------------------------------------------------------- fat binaries */

enum { HEADER = 16, ENTRY = 64 };

static size_t put_entry(char *at, uint16_t kind, uint32_t arch, uint32_t compressed,
                        const char *data, uint64_t size)
{
    const uint32_t header = ENTRY;
    memset(at, 0, ENTRY);
    memcpy(at, &kind, 2);
    memcpy(at + 4, &header, 4);
    memcpy(at + 8, &size, 8);
    memcpy(at + 16, &compressed, 4);
    memcpy(at + 28, &arch, 4);
    memcpy(at + ENTRY, data, size);
    return ENTRY + size;
}

static size_t put_fatbin(char *at)
{
    const uint32_t magic = 0xBA55ED50;
    const uint16_t version = 1, header = HEADER;
    uint64_t size = 0;
    size += put_entry(at + HEADER + size, FATBIN_SASS, 80, 0, "\177ELFxxxx", 8);
    size += put_entry(at + HEADER + size, FATBIN_PTX, 90, 0, "ninety..", 8);
    size += put_entry(at + HEADER + size, FATBIN_PTX, 75, 9, "squeezed", 8);
    size += put_entry(at + HEADER + size, FATBIN_PTX, 80, 0, "eighty..", 8);
    memcpy(at, &magic, 4);
    memcpy(at + 4, &version, 2);
    memcpy(at + 6, &header, 2);
    memcpy(at + 8, &size, 8);
    return HEADER + (size_t)size;
}

static void test_fatbin(void **state)
{
    (void)state;
    char data[1024];
    const size_t size = put_fatbin(data);
    Fatbin fatbin;
    FatbinImage image;
    assert_true(fatbin_open(&fatbin, data, size));
    static const uint32_t devices[][2] = {{70, 80}, {80, 80}, {89, 80}, {90, 90}, {120, 90}};
    for (size_t i = 0; i < sizeof devices / sizeof *devices; i++) {
        assert_true(fatbin_find_ptx(&fatbin, devices[i][0], &image));
        assert_int_equal(image.architecture, devices[i][1]);
    }
    assert_memory_equal(image.data, "ninety..", 8);
    int n = 0;
    while (fatbin_next(&fatbin, &image) == 1)
        n++;
    assert_int_equal(n, 4);
    assert_int_equal(image.kind, FATBIN_PTX);
    assert_false(fatbin_open(&fatbin, data, size - 1));
    assert_false(fatbin_open(&fatbin, data, 8));
    assert_false(fatbin_open(&fatbin, "no fat binary at all", 20));
}

/* Every length, and every byte changed: nothing is read outside, nothing loops. The copy is
 * as long as it says, so that a sanitizer sees a step too far. */
static void test_fatbin_broken(void **state)
{
    (void)state;
    char data[1024];
    const size_t size = put_fatbin(data);
    for (size_t i = 0; i < 2 * size; i++) {
        const size_t length = i < size ? i : size;
        char *copy = malloc(length + 1);
        assert_non_null(copy);
        memcpy(copy, data, length);
        if (i >= size)
            copy[i - size] = (char)(copy[i - size] ^ 0xff);
        Fatbin fatbin;
        FatbinImage image;
        int n = 0;
        if (fatbin_open(&fatbin, copy, length)) {
            fatbin_find_ptx(&fatbin, 80, &image);
            while (fatbin_next(&fatbin, &image) == 1) {
                assert_true(image.data >= copy && image.data + image.size <= copy + length);
                n++;
            }
        }
        assert_true(n <= 16);
        free(copy);
    }
}

/* ------------------------------------------------------------------------- names */

static void test_names(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"fused_relu", "fused_relu"},
        {"_Z4warpPf", "warp"},
        {"_Z4tmplILi3EfEvPT0_", "tmpl"},
        {"_ZN3foo2k2ENS_34_GLOBAL__N__dad5bc2c_5_s1_cu_table1QEPi", "foo::k2"},
        {"_ZN34_GLOBAL__N__dad5bc2c_5_s1_cu_table6hiddenEPi", "hidden"},
        {"_ZL6staticPf", "static"},
        {"_ZN2at6native3addILi4EN3std4pairIifEELb1EEEvT0_", "at::native::add"},
        {"_ZN1AIfE3runIdEEvv", "A::run"},
        {"_Z", "_Z"},
        {"_Z99short", "_Z99short"},
        {"_ZN", "_ZN"},
        {"", ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char name[64];
        module_demangle(cases[i][0], name, sizeof name);
        assert_string_equal(name, cases[i][1]);
    }
}

/* ------------------------------------------------------------------------- cache */

static const char PTX[] = ".version 9.0\n.target sm_80\n.address_size 64\n"
                          ".visible .entry store(.param .u64 p)\n{\n.reg .b64 %rd<2>;\n"
                          "ld.param.u64 %rd1, [p];\nst.global.u32 [%rd1], 7;\nret;\n}\n";

static int files_in_cache(void)
{
    DIR *folder = opendir(sim_config()->cache);
    int n = 0;
    assert_non_null(folder);
    for (struct dirent *e = readdir(folder); e; e = readdir(folder))
        n += e->d_name[0] != '.';
    closedir(folder);
    return n;
}

static int store_works(void)
{
    const SimKernelTable *kernel = stand_kernel(stand_load(PTX), "store");
    uint32_t word = 0;
    const void *at = &word;
    if (!kernel)
        return 0;
    stand_run(kernel, &at);
    return word == 7;
}

/* Where no folder can be made, a kernel is built all the same and nothing is left behind. */
static void test_cache_nowhere(void **state)
{
    (void)state;
    SimConfig *config = (SimConfig *)(uintptr_t)sim_config();
    const char *folder = config->cache;
    assert_int_equal(setenv("TMPDIR", folder, 1), 0);
    const pid_t child = fork();
    if (child == 0) {
        config->cache = "/dev/null/nowhere";
        _exit(store_works() ? 0 : 1);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_int_equal(files_in_cache(), 0);
    assert_int_equal(unsetenv("TMPDIR"), 0);
}

/* Processes that build the same kernel at the same time all get it, and leave one file. */
static void test_cache_shared(void **state)
{
    (void)state;
    assert_int_equal(files_in_cache(), 0);
    pid_t children[4];
    for (int i = 0; i < 4; i++) {
        children[i] = fork();
        if (children[i] == 0)
            _exit(store_works() ? 0 : 1);
    }
    for (int i = 0; i < 4; i++) {
        int status = 0;
        assert_int_equal(waitpid(children[i], &status, 0), children[i]);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    assert_int_equal(files_in_cache(), 1);
}

/* What is in the cache is used; what is broken there is replaced. */
static void test_cache_broken(void **state)
{
    (void)state;
    DIR *folder = opendir(sim_config()->cache);
    assert_non_null(folder);
    for (struct dirent *e = readdir(folder); e; e = readdir(folder)) {
        char path[1024];
        if (e->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/%s", sim_config()->cache, e->d_name);
        assert_int_equal(truncate(path, 100), 0);
    }
    closedir(folder);
    assert_true(store_works());
    assert_int_equal(files_in_cache(), 1);
}

static void test_compiler_fails(void **state)
{
    (void)state;
    SimConfig *config = (SimConfig *)(uintptr_t)sim_config();
    const char *cc = config->cc;
    config->cc = "no-such-compiler";
    assert_null(stand_kernel(stand_load(PTX), "store"));
    assert_non_null(strstr(stand_report(), "no-such-compiler"));
    config->cc = "sh -c exit";
    assert_null(stand_kernel(stand_load(PTX), "store"));
    config->cc = cc;
    assert_int_equal(files_in_cache(), 1);
}

/* ------------------------------------------------------------------- one by one */

static const char VERSION[] = ".version 9.0\n.target sm_80\n.address_size 64\n";
static const char BOTH[] =
    ".global .align 4 .u32 first = 5;\n.global .align 4 .u32 second = 6;\n"
    ".func (.param .b32 r) twice(.param .b32 x)\n{\n.reg .b32 %r<3>;\n"
    "ld.param.u32 %r1, [x];\nmul.lo.s32 %r2, %r1, FACTOR;\nst.param.b32 [r], %r2;\nret;\n}\n"
    ".visible .entry add(.param .u64 p)\n{\n.reg .b64 %rd<2>; .reg .b32 %r<4>;\n"
    "ld.param.u64 %rd1, [p];\nld.global.u32 %r1, [second];\nld.global.u32 %r2, [first];\n"
    "add.s32 %r3, %r1, %r2;\nst.global.u32 [first], %r3;\nst.global.u32 [%rd1], %r3;\nret;\n}\n"
    ".visible .entry scale(.param .u64 p)\n{\n.reg .b64 %rd<2>; .reg .b32 %r<3>;\n"
    ".param .b32 in; .param .b32 out;\n"
    "ld.param.u64 %rd1, [p];\nld.global.u32 %r1, [first];\nst.param.b32 [in], %r1;\n"
    "call (out), twice, (in);\nld.param.b32 %r2, [out];\nst.global.u32 [first], %r2;\n"
    "st.global.u32 [%rd1], %r2;\nret;\n}\n";

/* BOTH with another factor, and something before it. */
static StandModule *load_both(const char *before, const char *factor)
{
    char text[4096];
    const char *at = strstr(BOTH, "FACTOR");
    snprintf(text, sizeof text, "%s%s%.*s%s%s", VERSION, before, (int)(at - BOTH), BOTH, factor,
             at + strlen("FACTOR"));
    StandModule *module = stand_load(text);
    assert_non_null(module);
    return module;
}

static uint32_t result_of(StandModule *module, const char *name)
{
    uint32_t word = 0;
    const void *at = &word;
    const SimKernelTable *kernel = stand_kernel(module, name);
    assert_non_null(kernel);
    stand_run(kernel, &at);
    return word;
}

/* A kernel is compiled when it is asked for; variables are the module's, in whatever order the
 * kernels that name them are compiled. */
static void test_kernels_alone(void **state)
{
    (void)state;
    const int before = files_in_cache();
    StandModule *module = load_both("", "2");
    assert_int_equal(files_in_cache(), before);
    assert_int_equal(result_of(module, "scale"), 10);
    assert_int_equal(files_in_cache(), before + 1);
    assert_int_equal(result_of(module, "add"), 16);
    assert_int_equal(files_in_cache(), before + 2);
    assert_int_equal(result_of(module, "scale"), 32);
    module = load_both("", "2");
    assert_int_equal(result_of(module, "add"), 11);
    assert_int_equal(result_of(module, "scale"), 22);
    assert_int_equal(result_of(module, "add"), 28);
    assert_int_equal(files_in_cache(), before + 2);
}

/* What is kept depends on what the kernel reaches, and on nothing else of the module. */
static void test_kernels_kept(void **state)
{
    (void)state;
    const int before = files_in_cache();
    StandModule *module = load_both(".shared .align 4 .b8 bytes[64];\n.global .u32 third = 9;\n"
                                    ".visible .entry other(.param .u64 p)\n{\nwarp.drive;\n}\n",
                                    "2");
    assert_int_equal(result_of(module, "add"), 11);
    assert_int_equal(result_of(module, "scale"), 22);
    assert_int_equal(files_in_cache(), before);
    const SimKernelTable *other = stand_kernel(module, "other");
    assert_true(other && !other->run && strstr(other->unknown, "warp.drive"));
    module = load_both("", "3");
    assert_int_equal(result_of(module, "add"), 11);
    assert_int_equal(files_in_cache(), before);
    assert_int_equal(result_of(module, "scale"), 33);
    assert_int_equal(files_in_cache(), before + 1);
}

typedef struct {
    const PtxModule *ptx;
    bool done;
} Builder;

static void *build_all(void *data)
{
    Builder *b = data;
    b->done = true;
    for (uint32_t i = 0; i < b->ptx->nfunctions; i++) {
        TranslatedKernel kernel;
        char problem[512];
        if (!b->ptx->functions[i].entry)
            continue;
        b->done = module_build(b->ptx, i, &kernel, problem, sizeof problem) && b->done;
        b->done = b->done && kernel.table.run;
        translate_free(&kernel);
    }
    return NULL;
}

/* The compiler notes its runs in a file of the cache's folder. */
static void test_threads(void **state)
{
    (void)state;
    enum { THREADS = 8 };
    SimConfig *config = (SimConfig *)(uintptr_t)sim_config();
    const char *cc = config->cc;
    char counting[512], log_path[512];
    snprintf(log_path, sizeof log_path, "%s/.runs", config->cache);
    snprintf(counting, sizeof counting, "%s/.counting", config->cache);
    char script[1200];
    snprintf(script, sizeof script, "#!/bin/sh\necho run >>%s\nsleep 0.2\nexec %s \"$@\"\n",
             log_path, cc);
    assert_true(module_write_file(counting, script, strlen(script)));
    assert_int_equal(chmod(counting, 0700), 0);
    config->cc = counting;
    StandModule *module = load_both("", "4");
    Builder builders[THREADS];
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        builders[i] = (Builder){stand_ptx(module), false};
        assert_int_equal(pthread_create(&threads[i], NULL, build_all, &builders[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_true(builders[i].done);
    }
    config->cc = cc;
    size_t size;
    char *runs = stand_read(log_path, &size);
    assert_string_equal(runs, "run\nrun\n");
    free(runs);
    unlink(log_path);
    unlink(counting);
}

static void test_not_ptx(void **state)
{
    (void)state;
    assert_null(stand_load(".version 9.0\n.target sm_80\nnonsense\n"));
    assert_non_null(strstr(stand_report(), "line 3"));
    assert_null(stand_load(".version 9.0\n.visible .entry k()\n{\nbra NOWHERE;\n}\n"));
    assert_non_null(strstr(stand_report(), "NOWHERE is not declared"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fatbin),         cmocka_unit_test(test_fatbin_broken),
        cmocka_unit_test(test_names),          cmocka_unit_test(test_cache_nowhere),
        cmocka_unit_test(test_cache_shared),   cmocka_unit_test(test_cache_broken),
        cmocka_unit_test(test_compiler_fails), cmocka_unit_test(test_kernels_alone),
        cmocka_unit_test(test_kernels_kept),   cmocka_unit_test(test_threads),
        cmocka_unit_test(test_not_ptx),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
