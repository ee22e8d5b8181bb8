/* test_tokens.c - windows of tokens: from texts and shards, one file or several; hostile ones. */
#include "workshop.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data.h"

enum { WINDOW = 4, GPT2 = 20240520, LLAMA3 = 20240801, HEADER = 1024 };

static const MdlInput byte_inputs[] = {
    {.name = "ids", .type = MDL_I32, .rank = 1, .dim = {WINDOW}, .limit = 128},
    {.name = "next", .type = MDL_I32, .target = true, .rank = 1, .dim = {WINDOW}, .limit = 128}};
static const MdlInput wide_inputs[] = {
    {.name = "ids", .type = MDL_I32, .rank = 1, .dim = {WINDOW}},
    {.name = "next", .type = MDL_I32, .target = true, .rank = 1, .dim = {WINDOW}}};

static Problem problem;

static void error_is(const char *text)
{
    if (!strstr(problem.text, text))
        print_message("found '%s', not '%s'\n", problem.text, text);
    assert_non_null(strstr(problem.text, text));
}

/* A model of these inputs whose data is `kind`("path"); NULL after an error. */
static DataSet *opened(const MdlInput *inputs, int ninputs, const char *kind, const char *path,
                       const char *arg)
{
    const MdlFile file = {NULL, path};
    const MdlData data = {.which = "train", .kind = kind, .files = &file, .nfiles = 1};
    const MdlModel m = {.inputs = inputs,
                        .ninputs = ninputs,
                        .name = "m",
                        .data = &data,
                        .ndata = kind ? 1 : 0,
                        .batch = 2};
    static MdlModel kept; /* a data set looks at its model */
    kept = m;
    DataRequest r;
    bool found;
    DataSet *set = NULL;
    problem = (Problem){0};
    if (request_data(&r, &found, &kept, "train", &arg, arg ? 1 : 0, &problem) == MDL_OK && found)
        dataset_open(&set, &r, &kept, 1, &problem);
    free(r.files);
    return set;
}

static DataSet *texts_opened(const char *path)
{
    return opened(byte_inputs, 2, "text", path, NULL);
}

static DataSet *shards_opened(const char *path)
{
    return opened(wide_inputs, 2, "tokens", path, NULL);
}

/* Writes a shard of tokens first, first + 1, ... and makes it `bytes` long (0: as it is). */
static void shard_put(const char *path, uint32_t magic, uint32_t version, uint32_t count,
                      uint32_t first, off_t bytes)
{
    static unsigned char file[HEADER + 4000];
    uint32_t head[] = {magic, version, count};
    unsigned size = magic == LLAMA3 ? 4 : 2, n = 0;
    memset(file, 0, sizeof file);
    for (unsigned i = 0; i < 12; i++)
        file[i] = (unsigned char)(head[i / 4] >> 8 * (i % 4));
    for (n = 0; n < count && n < 900; n++)
        for (unsigned k = 0; k < size; k++)
            file[HEADER + n * size + k] = (unsigned char)((first + n) >> 8 * k);
    file_put(path, file, HEADER + (size_t)n * size);
    if (bytes)
        assert_int_equal(truncate(path, bytes), 0);
}

/* Sample `sample` starts with the token `first`, which its successors follow. */
static void window_is(const DataSet *set, int64_t sample, int32_t first)
{
    int32_t x[WINDOW], y[WINDOW];
    problem = (Problem){0};
    assert_int_equal(dataset_load(set, 0, sample, x, &problem), MDL_OK);
    assert_int_equal(dataset_load(set, 1, sample, y, &problem), MDL_OK);
    for (int i = 0; i < WINDOW; i++) {
        assert_int_equal(x[i], first + i);
        assert_int_equal(y[i], first + i + 1);
    }
}

static void text_is_windows(void **state)
{
    (void)state;
    file_put("t.txt", "abcdefghijkl\xff", 13);
    DataSet *set = texts_opened("t.txt");
    assert_non_null(set);
    assert_int_equal(dataset_samples(set), 3);
    window_is(set, 0, 'a');
    window_is(set, 1, 'e');
    window_is(set, 4, 'e'); /* of the second epoch */
    int32_t x[WINDOW];
    assert_int_equal(dataset_load(set, 0, 2, x, &problem), MDL_OK);
    assert_int_equal(dataset_load(set, 1, 2, x, &problem), MDL_FAILED);
    error_is("t.txt: byte 12 (from 0) is 255; target 'next' takes 0 to 127");
    dataset_close(set);
}

static void windows_need_one_more(void **state)
{
    (void)state;
    static const struct {
        size_t bytes;
        int64_t windows;
    } sizes[] = {{0, 0}, {1, 0}, {4, 0}, {5, 1}, {8, 1}, {9, 2}, {4096, 1023}, {4097, 1024}};
    static char text[4097];
    memset(text, 'x', sizeof text);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        file_put("t.txt", text, sizes[i].bytes);
        DataSet *set = texts_opened("t.txt");
        assert_int_equal(set ? dataset_samples(set) : 0, sizes[i].windows);
        assert_true(set || problem.exit_code == EXIT_RUN);
        dataset_close(set);
    }
}

static void shards_are_windows(void **state)
{
    (void)state;
    shard_put("s.bin", GPT2, 1, 14, 65520, 0);
    DataSet *set = shards_opened("s.bin");
    assert_non_null(set);
    assert_int_equal(dataset_samples(set), 3);
    window_is(set, 2, 65528);
    dataset_close(set);
    shard_put("s.bin", LLAMA3, 7, 13, 128000, 0);
    set = shards_opened("s.bin");
    assert_int_equal(dataset_samples(set), 3);
    window_is(set, 0, 128000);
    window_is(set, 2, 128008);
    dataset_close(set);
}

/* A target alone, inputs of bytes, and a window of several chunks. */
static void other_inputs_are_filled(void **state)
{
    (void)state;
    enum { LONG = 700 };
    const MdlInput one = {.name = "x", .type = MDL_I32, .rank = 1, .dim = {LONG}};
    const MdlInput byte = {.name = "x", .type = MDL_U8, .rank = 1, .dim = {WINDOW}, .limit = 1000};
    shard_put("s.bin", GPT2, 1, LONG + 1, 250, 0);
    DataSet *set = opened(&one, 1, "tokens", "s.bin", NULL);
    int32_t x[LONG];
    assert_int_equal(dataset_load(set, 0, 0, x, &problem), MDL_OK);
    for (int i = 0; i < LONG; i++)
        assert_int_equal(x[i], 250 + i);
    dataset_close(set);
    set = opened(&byte, 1, "tokens", "s.bin", NULL);
    uint8_t b[WINDOW];
    assert_int_equal(dataset_load(set, 0, 0, b, &problem), MDL_OK);
    assert_true(b[0] == 250 && b[3] == 253);
    assert_int_equal(dataset_load(set, 0, 1, b, &problem), MDL_FAILED);
    error_is("s.bin: token 6 (from 0) is 256; input 'x' takes 0 to 255");
    dataset_close(set);
}

static void several_shards_follow_their_names(void **state)
{
    (void)state;
    assert_int_equal(mkdir("many", 0777), 0);
    shard_put("many/s_10.bin", GPT2, 1, 9, 300, 0);
    shard_put("many/s_02.bin", GPT2, 1, 4, 200, 0); /* no window */
    shard_put("many/s_01.bin", GPT2, 1, 15, 100, 0);
    shard_put("many/s_11.bin", GPT2, 1, 0, 0, 0);
    file_put("many/other", "x", 1);
    DataSet *set = shards_opened("many/s_*.bin");
    assert_non_null(set);
    assert_int_equal(dataset_samples(set), 5);
    static const int32_t first[] = {100, 104, 108, 300, 304};
    for (int i = 0; i < 5; i++)
        window_is(set, i, first[i]);
    dataset_close(set);

    set = shards_opened("many/s_?[02].bin");
    assert_int_equal(dataset_samples(set), 2);
    dataset_close(set);
    /* a file of just that name */
    shard_put("many/s_[02].bin", GPT2, 1, 5, 700, 0);
    set = shards_opened("many/s_[02].bin");
    assert_int_equal(dataset_samples(set), 1);
    window_is(set, 0, 700);
    dataset_close(set);

    assert_null(shards_opened("many/none*"));
    error_is("many/none*: no file matches");
    assert_int_equal(problem.exit_code, EXIT_USE);
    assert_null(shards_opened("many/*"));
    error_is("many/other: 1 bytes are not a shard");
    assert_null(shards_opened("many/t_[01].bin"));
    error_is("many/t_[01].bin: no file matches");
    assert_null(shards_opened("man*"));
    error_is("many: not a regular file");
    shard_put("many/s_03.bin", LLAMA3, 7, 9, 0, 0);
    assert_null(shards_opened("many/s_*.bin"));
    error_is("many/s_03.bin: tokens of 4 bytes; those of many/s_01.bin have 2");
}

static void shards_hostile_are_refused(void **state)
{
    (void)state;
    static const struct {
        uint32_t magic, version, count;
        off_t bytes;
        const char *error;
    } files[] = {
        {GPT2, 1, 9, 1023, "h.bin: 1023 bytes are not a shard"},
        {GPT2, 1, 9, 2, "h.bin: 2 bytes are not a shard"},
        {20240522, 1, 9, 0,
         "h.bin: not a shard of tokens as llm.c writes them: it starts with 20240522"},
        {0, 1, 9, 0, "it starts with 0"},
        {GPT2, 7, 9, 0, "h.bin: tokens of version 7 are not known; 1 is"},
        {LLAMA3, 1, 9, 0, "h.bin: tokens of version 1 are not known; 7 is"},
        {GPT2, 0x80000001, 9, 0, "tokens of version 2147483649"},
        {GPT2, 1, 9, 1024, "h.bin: its head says 9 tokens of 2 bytes, which are 18; 0 follow it"},
        {GPT2, 1, 9, 1024 + 17, "17 follow it: the file is cut off"},
        {GPT2, 1, 9, 1024 + 19, "19 follow it"},
        {LLAMA3, 7, 9, 1024 + 35, "which are 36; 35 follow it: the file is cut off"},
        {GPT2, 1, INT32_MAX, 0, "which are 4294967294; 1800 follow it: the file is cut off"},
        {GPT2, 1, 0xffffffff, 0, "h.bin: its head says -1 tokens"},
        {GPT2, 1, 0x80000000, 0, "its head says -2147483648 tokens"},
        {GPT2, 1, 0, 0, "h.bin: holds no window of 4 tokens and one more"},
        {GPT2, 1, 4, 0, "h.bin: holds no window of 4 tokens and one more"},
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        shard_put("h.bin", files[i].magic, files[i].version, files[i].count, 1, files[i].bytes);
        assert_null(shards_opened("h.bin"));
        assert_int_equal(problem.exit_code, EXIT_RUN);
        error_is(files[i].error);
    }
    file_put("h.bin", "", 0);
    assert_null(shards_opened("h.bin"));
    error_is("h.bin: 0 bytes are not a shard");
    assert_null(shards_opened("."));
    error_is(".: not a regular file");
    assert_null(shards_opened("missing.bin"));
    error_is("missing.bin: No such file");
    assert_int_equal(problem.exit_code, EXIT_USE);
}

static void tokens_beyond_the_limit_are_named(void **state)
{
    (void)state;
    shard_put("s.bin", GPT2, 1, 13, 120, 0);
    DataSet *set = opened(byte_inputs, 2, "tokens", "s.bin", NULL);
    int32_t x[WINDOW];
    assert_int_equal(dataset_load(set, 0, 1, x, &problem), MDL_OK);
    assert_int_equal(dataset_load(set, 1, 1, x, &problem), MDL_FAILED);
    error_is("s.bin: token 8 (from 0) is 128; target 'next' takes 0 to 127");
    dataset_close(set);
    shard_put("s.bin", LLAMA3, 7, 5, INT32_MAX - 1u, 0);
    set = shards_opened("s.bin");
    problem = (Problem){0};
    assert_int_equal(dataset_load(set, 0, 0, x, &problem), MDL_FAILED);
    error_is("s.bin: token 2 (from 0) is 2147483648; input 'ids' takes 0 to 2147483647");
    dataset_close(set);
}

/* Sparse files: nothing of them is loaded but what is asked for. */
static void more_tokens_than_31_bits(void **state)
{
    (void)state;
    const int64_t size = 5000000001;
    file_put("large.txt", "", 0);
    FILE *f = fopen("large.txt", "r+b");
    assert_true(f && fseeko(f, size - 5, SEEK_SET) == 0 && fwrite("abcde", 1, 5, f) == 5);
    assert_int_equal(fclose(f), 0);
    DataSet *set = texts_opened("large.txt");
    assert_non_null(set);
    assert_int_equal(dataset_samples(set), (size - 1) / WINDOW);
    window_is(set, (size - 1) / WINDOW - 1, 'a');
    dataset_close(set);
    unlink("large.txt");

    shard_put("large_0.bin", GPT2, 1, INT32_MAX, 7, HEADER + 2ll * INT32_MAX);
    shard_put("large_1.bin", GPT2, 1, INT32_MAX, 900, HEADER + 2ll * INT32_MAX);
    set = shards_opened("large_*.bin");
    assert_non_null(set);
    assert_int_equal(dataset_samples(set), 2 * ((INT32_MAX - 1ll) / WINDOW));
    window_is(set, (INT32_MAX - 1ll) / WINDOW, 900);
    window_is(set, 1, 11);
    dataset_close(set);
    unlink("large_0.bin");
    unlink("large_1.bin");
}

/* Within the last page there is no SIGBUS: what is cut reads as zeros, which are tokens. */
static void file_that_shrinks_is_an_error(void **state)
{
    (void)state;
    file_put("cut.txt", "abcdefghijklm", 13);
    DataSet *set = texts_opened("cut.txt");
    window_is(set, 1, 'e');
    assert_int_equal(truncate("cut.txt", 6), 0);
    int32_t x[WINDOW];
    assert_int_equal(dataset_load(set, 0, 1, x, &problem), MDL_FAILED);
    error_is("cut.txt: became shorter while it was read, 13 bytes to 6");
    dataset_close(set);
    /* Another file in its place, or none, is no matter. */
    file_put("kept.txt", "abcdefghijklm", 13);
    set = texts_opened("kept.txt");
    file_put("short.txt", "a", 1);
    assert_int_equal(rename("short.txt", "kept.txt"), 0);
    window_is(set, 1, 'e');
    assert_int_equal(unlink("kept.txt"), 0);
    window_is(set, 2, 'i');
    dataset_close(set);
    /* One that grows keeps its windows. */
    file_put("grown.txt", "abcdefghijklm", 13);
    set = texts_opened("grown.txt");
    assert_int_equal(truncate("grown.txt", 100), 0);
    window_is(set, 2, 'i');
    assert_int_equal(dataset_samples(set), 3);
    dataset_close(set);
}

static void other_models_are_refused(void **state)
{
    (void)state;
    const MdlInput bad[][2] = {
        {{.name = "x", .type = MDL_REAL, .rank = 1, .dim = {4}}, wide_inputs[1]},
        {{.name = "x", .type = MDL_BF16, .rank = 1, .dim = {4}}, wide_inputs[1]},
        {{.name = "x", .type = MDL_I32}, wide_inputs[1]},
        {{.name = "x", .type = MDL_I32, .rank = 2, .dim = {2, 2}}, wide_inputs[1]},
        {{.name = "x", .type = MDL_I32, .rank = 1, .dim = {5}}, wide_inputs[1]},
        {wide_inputs[0], wide_inputs[0]},
        {wide_inputs[1], wide_inputs[1]},
        {wide_inputs[0], {.name = "y", .type = MDL_I32, .target = true}},
    };
    shard_put("s.bin", GPT2, 1, 50, 1, 0);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_null(opened(bad[i], 2, "tokens", "s.bin", NULL));
        assert_int_equal(problem.exit_code, EXIT_USE);
        error_is("s.bin: tokens data fits a model with one input i32[n]");
        assert_null(opened(bad[i], 2, "text", "s.bin", NULL));
        error_is("s.bin: text data fits a model");
    }
    assert_null(opened(&wide_inputs[1], 1, "tokens", "s.bin", NULL));
    assert_null(opened(wide_inputs, 0, "tokens", "s.bin", NULL));
    const MdlInput three[] = {wide_inputs[0], wide_inputs[1], wide_inputs[1]};
    assert_null(opened(three, 3, "tokens", "s.bin", NULL));
}

static void arguments_replace_the_path(void **state)
{
    (void)state;
    shard_put("a_1.bin", GPT2, 1, 9, 10, 0);
    shard_put("a_2.bin", GPT2, 1, 9, 50, 0);
    file_put("plain", "abcdefghi", 9);
    static const struct {
        const char *kind, *arg;
        int32_t first; /* of sample 1 */
        const char *error;
    } cases[] = {
        {"tokens", "a_*.bin", 14, NULL},
        {"tokens", "a_2.bin", 54, NULL},
        {"text", "plain", 'e', NULL},
        {"tokens", "plain", 0, "plain: 9 bytes are not a shard"},
        {NULL, "a_2.bin", 54, NULL},
        {NULL, "plain", 0, "--data plain: cannot tell the kind"},
        {"tokens", "ids=a_1.bin", 0, "tokens data is for all inputs; give it as --data a_1.bin"},
        {"text", "next=plain", 0, "text data is for all inputs; give it as --data plain"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        DataSet *set = opened(wide_inputs, 2, cases[i].kind, "missing", cases[i].arg);
        assert_true((set == NULL) == (cases[i].error != NULL));
        if (set)
            window_is(set, 1, cases[i].first);
        else
            error_is(cases[i].error);
        dataset_close(set);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_is_windows),
        cmocka_unit_test(windows_need_one_more),
        cmocka_unit_test(shards_are_windows),
        cmocka_unit_test(other_inputs_are_filled),
        cmocka_unit_test(several_shards_follow_their_names),
        cmocka_unit_test(shards_hostile_are_refused),
        cmocka_unit_test(tokens_beyond_the_limit_are_named),
        cmocka_unit_test(more_tokens_than_31_bits),
        cmocka_unit_test(file_that_shrinks_is_an_error),
        cmocka_unit_test(other_models_are_refused),
        cmocka_unit_test(arguments_replace_the_path),
    };
    return cmocka_run_group_tests(tests, workshop_open, workshop_close);
}
