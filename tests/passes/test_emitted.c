/* test_emitted.c - the generated source as text: the same bytes each time, narrow enough,
 * hardly longer for many layers, and nothing of the model's text where it could do harm. */
#include "passes.h"

#include <string.h>

static EmittedFiles emit_all(const Compiled *c)
{
    assert_non_null(c->program);
    return emit_files(c->program, c->diag);
}

static int count_lines(const EmittedFiles *files)
{
    int n = 0;
    for (int i = 0; i < files->n; i++)
        for (const char *s = files->at[i].text; *s; s++)
            n += *s == '\n';
    return n;
}

static void test_same_bytes_each_time(void **state)
{
    (void)state;
    static const char *const models[] = {MODELS "/two_gpu.mdl", MODELS "/deep_mlp.mdl",
                                         MODELS "/skip_cnn.mdl", MODELS "/autoencoder.mdl",
                                         MODELS "/fashion.mdl"};
    for (int m = 0; m < 5; m++) {
        Compiled a = compile_file(models[m], NULL, NULL), b = compile_file(models[m], NULL, NULL);
        EmittedFiles x = emit_all(&a), y = emit_all(&b);
        assert_int_equal(x.n, y.n);
        for (int i = 0; i < x.n; i++) {
            assert_string_equal(x.at[i].name, y.at[i].name);
            assert_string_equal(x.at[i].text, y.at[i].text);
        }
        compiled_free(&a);
        compiled_free(&b);
    }
}

static void test_lines_are_narrow(void **state)
{
    (void)state;
    static const char *const models[] = {MODELS "/two_gpu.mdl",  MODELS "/deep_mlp.mdl",
                                         MODELS "/skip_cnn.mdl", MODELS "/autoencoder.mdl",
                                         MODELS "/fashion.mdl",  RUN_MODELS "/mlp.mdl",
                                         RUN_MODELS "/unet.mdl", RUN_MODELS "/tied.mdl"};
    for (int m = 0; m < 8; m++) {
        Compiled c = compile_file(models[m], NULL, NULL);
        EmittedFiles f = emit_all(&c);
        for (int i = 0; i < f.n; i++)
            for (const char *s = f.at[i].text; *s;) {
                size_t n = strcspn(s, "\n");
                if (n > 100)
                    print_error("%s %s: %.*s\n", models[m], f.at[i].name, (int)n, s);
                assert_true(n <= 100);
                s += n + (s[n] == '\n');
            }
        compiled_free(&c);
    }
}

/* 96 layers are at most 1.2 times as long as 12, of a GPT a fiftieth longer. */
static void test_length_hardly_grows(void **state)
{
    (void)state;
    static const char *const few[] = {"layers=12", NULL}, *const many[] = {"layers=96", NULL};
    Compiled a = compile_file(MODELS "/deep_mlp.mdl", few, NULL);
    Compiled b = compile_file(MODELS "/deep_mlp.mdl", many, NULL);
    EmittedFiles x = emit_all(&a), y = emit_all(&b);
    assert_true(10 * count_lines(&y) <= 12 * count_lines(&x));
    compiled_free(&a);
    compiled_free(&b);
    static const char *const gpt[][3] = {{"layers=12", "gpus=4", NULL},
                                         {"layers=96", "gpus=4", NULL}};
    static const char *const sets[][2] = {{"train.precision=f32", NULL},
                                          {"train.precision=bf16", NULL}};
    for (int k = 0; k < 2; k++) {
        a = compile_file(MODELS "/gpt2.mdl", gpt[0], sets[k]);
        b = compile_file(MODELS "/gpt2.mdl", gpt[1], sets[k]);
        x = emit_all(&a);
        y = emit_all(&b);
        assert_true(50 * count_lines(&y) <= 51 * count_lines(&x));
        compiled_free(&a);
        compiled_free(&b);
    }
}

/* Names that are words of C, and comments that want to end ours. */
static void test_hostile_text(void **state)
{
    (void)state;
    const char *text =
        "model main { input B : f32[4]; target memory : i32; # */ int evil; /* \?\?/\n"
        "s = linear(B, 4) as register; # \\\n"
        "m = relu(s); AT = linear(m, 4) as TRY; i = tanh(AT) + B; # %n %s\n"
        "NULL = linear(i, 4); loss cross_entropy(NULL, memory); }\n"
        "train { batch = 4; }\n"
        "data train = npy(B = \"a\\\"b\\\\c\\n*/%n.npy\", memory = \"\?\?/y.npy\");\n";
    Compiled c = compile_text(text, NULL);
    if (!c.program)
        diag_flush(c.diag, stderr, false);
    EmittedFiles f = emit_all(&c);
    for (int i = 0; i < f.n; i++) {
        assert_null(strstr(f.at[i].text, "*/ int evil"));
        assert_null(strstr(f.at[i].text, "\?\?/"));
        assert_null(strstr(f.at[i].text, "\\\n"));
    }
    compiled_free(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bytes_each_time),
        cmocka_unit_test(test_lines_are_narrow),
        cmocka_unit_test(test_length_hardly_grows),
        cmocka_unit_test(test_hostile_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
