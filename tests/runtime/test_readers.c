/* test_readers.c - files of samples: the good are read, the hostile are refused. */
#include "workshop.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "data.h"

static const MdlInput reals = {.name = "x", .type = MDL_REAL, .rank = 1, .dim = {3}};
static const MdlInput labels = {.name = "y", .type = MDL_I32, .target = true, .limit = 10};

static int npy_opened(Problem *p)
{
    Array a;
    *p = (Problem){0};
    int status = npy_read(&a, "t.npy", p);
    assert_true((status == MDL_OK) == (p->exit_code == 0));
    if (status == MDL_OK)
        array_release(&a);
    else
        assert_non_null(strstr(p->text, "t.npy: "));
    return status;
}

static void npy_types_are_read(void **state)
{
    (void)state;
    static const struct {
        const char *descr;
        unsigned char bytes[8];
        size_t size;
        int value;
    } types[] = {{"|b1", {1}, 1, 1},
                 {"|u1", {200}, 1, 200},
                 {"|i1", {0xfe}, 1, -2},
                 {"<u2", {1, 1}, 2, 257},
                 {">i2", {0xff, 0xfd}, 2, -3},
                 {"<i4", {5}, 4, 5},
                 {">u4", {0, 0, 1, 0}, 4, 256},
                 {"<i8", {0xfc, 255, 255, 255, 255, 255, 255, 255}, 8, -4},
                 {"<f4", {0, 0, 0x80, 0x3f}, 4, 1},
                 {">f8", {0xc0}, 8, -2},
                 {"<u8", {7}, 8, 7},
                 {"<f2", {0, 0x51}, 2, 40},
                 {">f2", {0xc2, 0x00}, 2, -3},
                 {"<V2", {0x80, 0xbf}, 2, -1},
                 {"|V2", {0x7f, 0x43}, 2, 255}};
    const MdlInput one = {.name = "x", .type = MDL_REAL}, whole = {.name = "n", .type = MDL_I32};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        Array a;
        Problem p = {0};
        real x;
        int32_t n;
        npy_put("t.npy", types[i].descr, "(1,)", types[i].bytes, types[i].size);
        assert_int_equal(npy_read(&a, "t.npy", &p), MDL_OK);
        assert_int_equal(array_sample(&a, 0, &one, 1, &x, &p), MDL_OK);
        assert_true(x == (real)types[i].value);
        assert_int_equal(array_sample(&a, 0, &whole, 1, &n, &p), MDL_OK);
        assert_int_equal(n, types[i].value);
        array_release(&a);
    }
}

static void npy_hostile_is_refused(void **state)
{
    (void)state;
    static const char *const shapes[] = {"(3,",
                                         "3",
                                         "(-1,)",
                                         "(a,)",
                                         "(9223372036854775808,)",
                                         "(4294967296, 4294967296, 4)",
                                         "(1,1,1,1,1,1,1,1,1,1)",
                                         "(4,)",
                                         "(2,)",
                                         "()",
                                         "(1 2)"};
    float x[3] = {1, 2, 3};
    Problem p;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        npy_put("t.npy", "<f4", shapes[i], x, sizeof x);
        assert_int_equal(npy_opened(&p), MDL_FAILED);
        npy_put("t.npy", "<f2", shapes[i], x, sizeof x / 2);
        assert_int_equal(npy_opened(&p), MDL_FAILED);
    }
    static const char *const types[] = {"<f1", "<f16", "<V1", "<V3", "<V",      "<c8",
                                        "<U3", "O",    "",    "\\'", "<f4\xff", "%n%n"};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        npy_put("t.npy", types[i], "(3,)", x, sizeof x);
        assert_int_equal(npy_opened(&p), MDL_FAILED);
    }
    npy_put("t.npy", "<f4', 'descr': '<f4", "(3,)", x, sizeof x);
    assert_int_equal(npy_opened(&p), MDL_FAILED);
    static const char fortran[] =
        "\x93NUMPY\1\0\x3e\0{'descr': '<f4', 'fortran_order': True, 'shape': (1,), }     \n\0\0\0";
    file_put("t.npy", fortran, sizeof fortran);
    assert_int_equal(npy_opened(&p), MDL_FAILED);
    assert_non_null(strstr(p.text, "ascontiguousarray"));
    assert_int_equal(unlink("t.npy"), 0);
    assert_int_equal(mkfifo("t.npy", 0600), 0);
    assert_int_equal(npy_opened(&p), MDL_FAILED);
    assert_non_null(strstr(p.text, "not a regular file"));
    assert_int_equal(unlink("t.npy"), 0);
}

/* Every cut and every changed bit of the header: refused or read, never a crash. */
static void npy_damage(const char *descr, const void *x, size_t length)
{
    Problem p;
    npy_put("t.npy", descr, "(2, 3)", x, length);
    assert_int_equal(npy_opened(&p), MDL_OK);
    size_t size;
    char *bytes = file_get("t.npy", &size);
    for (size_t n = 0; n < size; n++) {
        file_put("t.npy", bytes, n);
        assert_int_equal(npy_opened(&p), MDL_FAILED);
    }
    for (size_t at = 0; at < size - length; at++)
        for (int bit = 0; bit < 8; bit++) {
            bytes[at] = (char)(bytes[at] ^ 1 << bit);
            file_put("t.npy", bytes, size);
            npy_opened(&p);
            bytes[at] = (char)(bytes[at] ^ 1 << bit);
        }
    free(bytes);
}

static void npy_damage_is_survived(void **state)
{
    (void)state;
    const float x[6] = {1, 2, 3, 4, 5, 6};
    npy_damage("<f4", x, sizeof x);
    npy_damage("<f2", x, sizeof x / 2);
}

static void gz_put(const char *path, const void *bytes, unsigned size)
{
    gzFile gz = gzopen(path, "wb");
    assert_non_null(gz);
    assert_int_equal(gzwrite(gz, bytes, size), size);
    assert_int_equal(gzclose(gz), Z_OK);
}

static int idx_opened(const char *path, Problem *p)
{
    Array a;
    *p = (Problem){0};
    int status = idx_read(&a, path, p);
    assert_true((status == MDL_OK) == (p->exit_code == 0));
    if (status == MDL_OK)
        array_release(&a);
    return status;
}

static void idx_is_read(void **state)
{
    (void)state;
    static const unsigned char file[] = {0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 255};
    file_put("t-ubyte", file, sizeof file);
    gz_put("t-ubyte.gz", file, sizeof file);
    static const char *const paths[] = {"t-ubyte", "t-ubyte.gz"};
    for (int i = 0; i < 2; i++) {
        Array a;
        Problem p = {0};
        real x[3];
        assert_int_equal(idx_read(&a, paths[i], &p), MDL_OK);
        assert_true(a.rank == 2 && a.dim[0] == 2 && a.dim[1] == 3);
        a.stride = 3;
        assert_int_equal(array_sample(&a, 1, &reals, 3, x, &p), MDL_OK);
        assert_true(x[0] == 4 && x[1] == 5 && x[2] == 255);
        array_release(&a);
    }
    static const unsigned char shorts[] = {0, 0, 0x0b, 1, 0, 0, 0, 1, 0xff, 0xfe};
    file_put("t.idx", shorts, sizeof shorts);
    Array a;
    Problem p = {0};
    int32_t n;
    const MdlInput any = {.name = "n", .type = MDL_I32};
    assert_int_equal(idx_read(&a, "t.idx", &p), MDL_OK);
    assert_int_equal(array_sample(&a, 0, &any, 1, &n, &p), MDL_OK);
    assert_int_equal(n, -2);
    array_release(&a);
}

static void idx_hostile_is_refused(void **state)
{
    (void)state;
    static const unsigned char good[] = {0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 6};
    static const unsigned char bad[][20] = {{1, 0, 8, 1, 0, 0, 0, 1, 9},
                                            {0, 0, 7, 1, 0, 0, 0, 1, 9},
                                            {0, 0, 8, 255, 0, 0, 0, 1, 9},
                                            {0, 0, 8, 1, 255, 255, 255, 255, 9},
                                            {0,   0,   14,  4,   255, 255, 255, 255, 255, 255,
                                             255, 255, 255, 255, 255, 255, 255, 255, 255, 255}};
    Problem p;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        file_put("t.idx", bad[i], sizeof bad[i]);
        assert_int_equal(idx_opened("t.idx", &p), MDL_FAILED);
        gz_put("t.gz", bad[i], sizeof bad[i]);
        assert_int_equal(idx_opened("t.gz", &p), MDL_FAILED);
    }
    for (size_t n = 0; n < sizeof good; n++) {
        file_put("t.idx", good, n);
        assert_int_equal(idx_opened("t.idx", &p), MDL_FAILED);
    }
    gz_put("t.gz", good, sizeof good);
    assert_int_equal(idx_opened("t.gz", &p), MDL_OK);
    size_t size;
    char *bytes = file_get("t.gz", &size);
    for (size_t n = 0; n < size; n++) {
        file_put("t.gz", bytes, n);
        assert_int_equal(idx_opened("t.gz", &p), MDL_FAILED);
    }
    bytes[size - 6] ^= 1; /* in the checksum */
    file_put("t.gz", bytes, size);
    assert_int_equal(idx_opened("t.gz", &p), MDL_FAILED);
    free(bytes);
}

static int csv_opened(const char *text, Array *arrays, Problem *p)
{
    const MdlInput inputs[] = {reals, labels};
    static const int order[] = {0, 1};
    *p = (Problem){0};
    memset(arrays, 0, 2 * sizeof *arrays);
    file_put("t.csv", text, strlen(text));
    return csv_read(arrays, inputs, order, 2, "t.csv", p);
}

static void csv_is_read(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "1,2,3,4\n5,6.5,-7e-1,8\n",
        "a,b,c,label\r\n1,2,3,4\r\n5,6.5,-0.7,8",
        "\xEF\xBB\xBF 1 ,\"2\",3,4\n\n5,6.5,-.7,8\n\n",
        "\"a\",\"b,c\",d\n",
    };
    for (int i = 0; i < 3; i++) {
        Array a[2];
        Problem p;
        real x[3];
        int32_t y;
        assert_int_equal(csv_opened(texts[i], a, &p), MDL_OK);
        assert_true(a[0].dim[0] == 2 && a[1].dim[0] == 2);
        assert_int_equal(array_sample(&a[0], 1, &reals, 3, x, &p), MDL_OK);
        assert_true(x[0] == 5 && x[1] == (real)6.5 && fabs((double)x[2] + 0.7) < 1e-6);
        assert_int_equal(array_sample(&a[1], 0, &labels, 1, &y, &p), MDL_OK);
        assert_int_equal(y, 4);
        array_release(&a[0]);
        array_release(&a[1]);
    }
}

static void csv_hostile_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *error;
    } files[] = {
        {"", "no samples"},
        {"a,b,c,d\n", "no samples"},
        {"1,2,3\n", "3 columns"},
        {"1,2,3,4,5\n", "5 columns"},
        {"1,2,3,4\n1,2,3\n", "t.csv:2: ends after column 3"},
        {"1,2,3,4\n1,2,3,4,5\n", "t.csv:2: has more than 4"},
        {"1,2,3,4\n1,,3,4\n", "t.csv:2: column 2: '' is not a number"},
        {"1,2,3,4\n\n1,x,3,4\n", "t.csv:3: column 2: 'x'"},
        {"1,2,3,4\nnan,2,3,4\n", "t.csv:2: column 1: 'nan' is not a finite"},
        {"1,2,3,4\n1,1e999,3,4\n", "column 2: '1e999'"},
        {"1,2,3,4\n1,2,3,4.5\n", "t.csv:2: column 4: '4.5' is no whole"},
        {"1,2,3,4\n1,2,3,1e10\n", "is no whole number of 32 bits"},
        {"1,2,3,4\n1,2,\"3,4\n", "t.csv:2: column 3"},
        {"1,2,3,4\n1,2,3,\v\n5\n", "t.csv:2: column 4"},
        {"1,2,3,4\n1,2,3,\" \n5\"\n", "t.csv:2: column 4"},
        {"1,2,3,4\n1,2,3,4\r5,6,7,8\r", "t.csv:2: lines end in a carriage return alone"},
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        Array a[2];
        Problem p;
        assert_int_equal(csv_opened(files[i].text, a, &p), MDL_FAILED);
        if (!strstr(p.text, files[i].error))
            print_message("%s\n", p.text);
        assert_non_null(strstr(p.text, files[i].error));
    }
    Problem p = {0};
    Array a[2] = {0};
    static const int order[] = {0, 1};
    const MdlInput inputs[] = {reals, labels};
    file_put("t.csv", "1,2\0,3", 6);
    assert_int_equal(csv_read(a, inputs, order, 2, "t.csv", &p), MDL_FAILED);
}

static void integers_are_checked(void **state)
{
    (void)state;
    static const float values[] = {3, 10, -1, 2.5f, NAN, 1e10f};
    static const char *const wrong[] = {NULL, "10", "-1", "2.5", "nan", "10000000000"};
    npy_put("t.npy", "<f4", "(6,)", values, sizeof values);
    Array a;
    Problem p = {0};
    assert_int_equal(npy_read(&a, "t.npy", &p), MDL_OK);
    a.stride = 1;
    for (int i = 0; i < 6; i++) {
        int32_t n = 0;
        p = (Problem){0};
        assert_int_equal(array_sample(&a, i, &labels, 1, &n, &p), wrong[i] ? MDL_FAILED : MDL_OK);
        char text[100];
        snprintf(text, sizeof text, "t.npy: sample %d (from 0), element 0: %s; ", i,
                 wrong[i] ? wrong[i] : "");
        assert_true(!wrong[i] || strstr(p.text, text));
    }
    array_release(&a);
}

/* ----------------------------------------------------------------- data sets */

static DataSet *set_open(const MdlModel *m, const char *which, const char *const *args, int n)
{
    DataRequest r;
    Problem p = {0};
    bool found;
    DataSet *set = NULL;
    if (request_data(&r, &found, m, which, args, n, &p) == MDL_OK && found)
        dataset_open(&set, &r, m, 1, &p);
    free(r.files);
    return set;
}

static void sets_skip_take_and_shuffle(void **state)
{
    (void)state;
    enum { N = 20 };
    const MdlInput input = {.name = "y", .type = MDL_I32};
    const MdlFile file = {"y", "n.npy"};
    MdlData data = {
        .which = "train", .kind = "npy", .files = &file, .nfiles = 1, .skip = 5, .take = 10};
    const MdlModel m = {.inputs = &input, .ninputs = 1, .data = &data, .ndata = 1, .batch = 2};
    int32_t numbers[N], n;
    for (int i = 0; i < N; i++)
        numbers[i] = i;
    npy_put("n.npy", "<i4", "(20,)", numbers, sizeof numbers);
    Problem p = {0};
    DataSet *set = set_open(&m, "train", NULL, 0);
    assert_int_equal(dataset_samples(set), 10);
    for (int i = 0; i < 25; i++) {
        assert_int_equal(dataset_load(set, 0, i, &n, &p), MDL_OK);
        assert_int_equal(n, 5 + i % 10);
    }
    dataset_close(set);
    data.shuffle = true;
    set = set_open(&m, "train", NULL, 0);
    int seen[N] = {0}, same = 0;
    for (int i = 0; i < 20; i++) {
        int32_t again;
        assert_int_equal(dataset_load(set, 0, i, &n, &p), MDL_OK);
        assert_int_equal(dataset_load(set, 0, (i + 10) % 20, &again, &p), MDL_OK);
        assert_true(n >= 5 && n < 15);
        seen[n]++;
        same += n == again;
    }
    for (int i = 5; i < 15; i++)
        assert_int_equal(seen[i], 2);
    assert_true(same < 20);
    dataset_close(set);
    data.skip = 20;
    assert_null(set_open(&m, "train", NULL, 0));
}

static void synthetic_is_a_function(void **state)
{
    (void)state;
    real a[3], b[3];
    int32_t n;
    synthetic_sample(&reals, 1, 77, 3, a);
    synthetic_sample(&reals, 1, 77, 3, b);
    assert_memory_equal(a, b, sizeof a);
    synthetic_sample(&reals, 1, 78, 3, b);
    assert_memory_not_equal(a, b, sizeof a);
    int seen[10] = {0};
    for (int i = 0; i < 1000; i++) {
        synthetic_sample(&labels, 1, i, 1, &n);
        assert_true(n >= 0 && n < 10);
        seen[n]++;
        synthetic_sample(&reals, 1, i, 3, a);
        assert_true(a[0] >= -1 && a[0] < 1);
    }
    for (int i = 0; i < 10; i++)
        assert_true(seen[i] > 60 && seen[i] < 140);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(npy_types_are_read),         cmocka_unit_test(npy_hostile_is_refused),
        cmocka_unit_test(npy_damage_is_survived),     cmocka_unit_test(idx_is_read),
        cmocka_unit_test(idx_hostile_is_refused),     cmocka_unit_test(csv_is_read),
        cmocka_unit_test(csv_hostile_is_refused),     cmocka_unit_test(integers_are_checked),
        cmocka_unit_test(sets_skip_take_and_shuffle), cmocka_unit_test(synthetic_is_a_function),
    };
    return cmocka_run_group_tests(tests, workshop_open, workshop_close);
}
