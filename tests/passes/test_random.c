/* test_random.c - random models that are valid: each compiles, and everything is proved.
 *
 * Loops in loops, branches on the turn, tied and frozen weights, tensors used far away,
 * recomputed regions, metrics, inputs of 16 bits; in f32, bf16 and f16, on one to four devices, cut
 * by hand and automatically, under all schedules, with one to eight micro-batches. The sequence is
 * fixed. */
#include "passes.h"

#include <stdlib.h>
#include <string.h>

enum { MODELS_TRIED = 1500 };

/* For GPUs: the same proofs over all streams, by copies or by NCCL. */
static void try_gpus(const char *text, uint64_t seed)
{
    const char *const sets[] = {seed % 2 ? "parallel.transfer=nccl" : "parallel.transfer=peer",
                                NULL};
    Compiled c = compile_text_for(true, text, sets);
    assert_non_null(c.program);
    if (!proved(&c))
        print_error("model %llu is not proved for GPUs (%s):\n%s\n", (unsigned long long)seed,
                    sets[0], text);
    assert_true(proved(&c));
    assert_true(emit_files(c.program, c.diag).n > 2);
    compiled_free(&c);
}

/* In its backward pass. */
static bool has_loops(const Chunk *c)
{
    for (int k = 0; k < RUN_KINDS; k++)
        for (int s = 0; run_goes_back((RunKind)k) && s < c->run[k].steps.n; s++)
            if (c->run[k].steps.at[s].turns > 1)
                return true;
    return false;
}

static void test_random_models(void **state)
{
    (void)state;
    int loops = 0, devices = 0;
    for (uint64_t seed = 0; seed < MODELS_TRIED; seed++) {
        Arena *a = arena_new();
        char *text = random_model(a, seed);
        Compiled c = compile_text(text, NULL);
        if (!c.program) {
            diag_flush(c.diag, stderr, false);
            print_error("model %llu does not compile:\n%s\n", (unsigned long long)seed, text);
        }
        assert_non_null(c.program);
        if (!proved(&c))
            print_error("model %llu is not proved:\n%s\n", (unsigned long long)seed, text);
        assert_true(proved(&c));
        assert_true(emit_files(c.program, c.diag).n > 2);
        for (int k = 0; k < c.program->chunks.n; k++)
            loops += has_loops(&c.program->chunks.at[k]);
        devices += c.program->devices.n;
        compiled_free(&c);
        try_gpus(text, seed);
        arena_free(a);
    }
    print_message("%d loops in backward passes, %d devices\n", loops, devices);
    assert_true(loops > MODELS_TRIED / 5); /* they are no trivial models */
    assert_true(devices > 2 * MODELS_TRIED);
}

/* Writes random_0.mdl … into a folder, for tests that train them. */
static int write_models(const char *folder, uint64_t n)
{
    for (uint64_t seed = 0; seed < n; seed++) {
        Arena *a = arena_new();
        const char *path = arena_printf(a, "%s/random_%llu.mdl", folder, (unsigned long long)seed);
        FILE *to = fopen(path, "w");
        if (!to || fprintf(to, "%sdata train = synthetic();\n", random_model(a, seed)) < 0 ||
            fclose(to) != 0) {
            perror(path);
            return 1;
        }
        arena_free(a);
    }
    return 0;
}

/* No argument: the tests. Else: FOLDER N. */
int main(int argc, char **argv)
{
    if (argc == 3)
        return write_models(argv[1], strtoull(argv[2], NULL, 10));
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_models),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
