/* test_safetensors.c - what is written is read; what is damaged is refused. */
#include "workshop.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "safetensors.h"

/* A file with this header and `bytes` of zeros after it. */
static void made(const char *header, size_t bytes)
{
    size_t n = strlen(header);
    char *file = calloc(1, 8 + n + bytes);
    for (int i = 0; i < 8; i++)
        file[i] = (char)(n >> 8 * i & 255);
    memcpy(file + 8, header, n);
    file_put("made.st", file, 8 + n + bytes);
    free(file);
}

static int opened(const char *path, bool checked, Problem *p)
{
    TensorFile *f;
    *p = (Problem){0};
    int status = tensors_open(&f, path, checked, p);
    assert_true((status == MDL_OK) == (f != NULL));
    assert_true((status == MDL_OK) == (p->exit_code == 0));
    tensors_close(f);
    return status;
}

static void round_trip(void **state)
{
    (void)state;
    real a[6] = {1, -2, (real)0.1, (real)1e-30, (real)-1e30, 0}, b[1] = {(real)3.5}, read[6];
    const int64_t dims[] = {2, 3};
    const TensorItem items[] = {{"z \"quoted\"", 2, dims, a}, {"a", 0, NULL, b}};
    const TensorNote notes[] = {{"format", "pt"}, {"step", "7"}};
    Problem p = {0};
    TensorFile *f;
    assert_int_equal(tensors_write("a.st", items, 2, NULL, notes, 2, false, true, &p), MDL_OK);
    assert_int_not_equal(access("a.st.tmp", F_OK), 0);
    assert_int_equal(tensors_open(&f, "a.st", true, &p), MDL_OK);
    assert_int_equal(tensors_count(f), 2);
    assert_string_equal(tensors_metadata(f, "step"), "7");
    assert_null(tensors_metadata(f, "nothing"));
    const Tensor *t = tensors_find(f, "z \"quoted\"");
    assert_non_null(t);
    assert_true(t->rank == 2 && t->dim[0] == 2 && t->dim[1] == 3 && t->count == 6);
    assert_int_equal(tensors_read(f, t, read, &p), MDL_OK);
    assert_memory_equal(read, a, sizeof a);
    t = tensors_find(f, "a");
    assert_true(t && t->rank == 0 && t->count == 1);
    assert_null(tensors_find(f, "b"));
    tensors_close(f);
}

static void halves_are_read(void **state)
{
    (void)state;
    static const char header[] = "{\"h\":{\"dtype\":\"F16\",\"shape\":[6],\"data_offsets\":[0,12]"
                                 "},\"b\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[12,"
                                 "16]},\"d\":{\"dtype\":\"F64\",\"shape\":[1],\"data_offsets\":"
                                 "[16,24]}}";
    made(header, 24);
    size_t size;
    char *file = file_get("made.st", &size);
    const uint16_t half[] = {0x3c00, 0xc000, 0x0001, 0x7bff, 0x7c00, 0x8000, 0x3f80, 0xc049};
    double d = 0.1;
    memcpy(file + size - 24, half, sizeof half);
    memcpy(file + size - 8, &d, sizeof d);
    file_put("half.st", file, size);
    free(file);
    Problem p = {0};
    TensorFile *f;
    real out[6];
    assert_int_equal(tensors_open(&f, "half.st", false, &p), MDL_OK);
    assert_int_equal(tensors_read(f, tensors_find(f, "h"), out, &p), MDL_OK);
    assert_true(out[0] == 1 && out[1] == -2 && out[2] == (real)0x1p-24 && out[3] == 65504);
    assert_true(isinf(out[4]) && out[5] == 0 && signbit(out[5]));
    assert_int_equal(tensors_read(f, tensors_find(f, "b"), out, &p), MDL_OK);
    assert_true(out[0] == 1 && out[1] == (real)-3.140625);
    assert_int_equal(tensors_read(f, tensors_find(f, "d"), out, &p), MDL_OK);
    assert_true(out[0] == (real)0.1);
    tensors_close(f);
}

static void hostile_headers_are_refused(void **state)
{
    (void)state;
#define T(rest) "{\"a\":{\"dtype\":\"F32\"," rest "}}"
    static const char *const headers[] = {
        "",
        "{",
        "[]",
        "{}",
        "{\"a\":3}",
        "{\"a\xff\":{}}",
        "{\"a\\u0000\":{}}",
        T("\"shape\":[4]"),
        T("\"data_offsets\":[0,16]"),
        T("\"shape\":[4],\"data_offsets\":[0,12]"),
        T("\"shape\":[3],\"data_offsets\":[0,16]"),
        T("\"shape\":[5],\"data_offsets\":[0,20]"),
        T("\"shape\":[4],\"data_offsets\":[4,20]"),
        T("\"shape\":[4],\"data_offsets\":[16,0]"),
        T("\"shape\":[4],\"data_offsets\":[-16,0]"),
        T("\"shape\":[-4],\"data_offsets\":[0,16]"),
        T("\"shape\":[4.0],\"data_offsets\":[0,16]"),
        T("\"shape\":[4294967296,4294967296,4],\"data_offsets\":[0,16]"),
        T("\"shape\":[4],\"data_offsets\":[0,16,32]"),
        T("\"shape\":[4],\"data_offsets\":[0,9223372036854775807]"),
        T("\"shape\":[4],\"data_offsets\":[0,99999999999999999999]"),
        T("\"shape\":[2],\"data_offsets\":[0,8]"),
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]},"
        "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,16]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
        "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[12,16]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]},"
        "\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}",
    };
#undef T
    Problem p;
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) {
        made(headers[i], 16);
        assert_int_equal(opened("made.st", false, &p), MDL_FAILED);
        assert_non_null(strstr(p.text, "made.st: "));
    }
    made("{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}", 16);
    assert_int_equal(opened("made.st", false, &p), MDL_OK);
    assert_int_equal(opened("made.st", true, &p), MDL_FAILED);
    /* Digits that are not where the first "xxh64" is: nothing is written past the header. */
    made("{\"__metadata__\":{\"xxh64\": \"0123456789abcdef\"},\"a\":{\"dtype\":\"F32\","
         "\"shape\":[4],\"data_offsets\":[0,16],\"xxh64\":\"\"}}",
         16);
    assert_int_equal(opened("made.st", true, &p), MDL_FAILED);
    assert_non_null(strstr(p.text, "carries no checksum"));
    assert_int_equal(mkfifo("pipe.st", 0600), 0);
    assert_int_equal(opened("pipe.st", false, &p), MDL_FAILED);
    assert_non_null(strstr(p.text, "not a regular file"));
    file_put("made.st", "\xff\xff\xff\xff\xff\xff\xff\x7f{}", 10);
    assert_int_equal(opened("made.st", false, &p), MDL_FAILED);
    file_put("made.st", "", 0);
    assert_int_equal(opened("made.st", false, &p), MDL_FAILED);
    assert_int_equal(opened(".", false, &p), MDL_FAILED);
    assert_int_equal(opened("nowhere.st", false, &p), MDL_FAILED);
    assert_int_equal(p.exit_code, EXIT_USE);
}

static void every_damage_is_found(void **state)
{
    (void)state;
    real a[4] = {1, 2, 3, 4};
    const int64_t dims[] = {4};
    const TensorItem item = {"a", 1, dims, a};
    const TensorNote note = {"step", "7"};
    Problem p = {0};
    assert_int_equal(tensors_write("c.st", &item, 1, NULL, &note, 1, true, true, &p), MDL_OK);
    assert_int_equal(opened("c.st", true, &p), MDL_OK);
    size_t size;
    char *bytes = file_get("c.st", &size);
    for (size_t at = 0; at < size; at++)
        for (int bit = 0; bit < 8; bit++) {
            bytes[at] = (char)(bytes[at] ^ 1 << bit);
            file_put("d.st", bytes, size);
            assert_int_equal(opened("d.st", true, &p), MDL_FAILED);
            bytes[at] = (char)(bytes[at] ^ 1 << bit);
        }
    for (size_t n = 0; n < size; n++) {
        file_put("d.st", bytes, n);
        assert_int_equal(opened("d.st", true, &p), MDL_FAILED);
    }
    free(bytes);
}

static void failed_write_leaves_the_old(void **state)
{
    (void)state;
    real a[1] = {1};
    const int64_t dims[] = {1};
    const TensorItem item = {"a", 1, dims, a};
    Problem p = {0};
    assert_int_equal(tensors_write("no/such/file.st", &item, 1, NULL, NULL, 0, false, false, &p),
                     MDL_FAILED);
    assert_non_null(strstr(p.text, "no/such/file.st"));
    p = (Problem){0};
    file_put("old.st", "old", 3);
    assert_int_equal(symlink("/dev/full", "old.st.tmp"), 0);
    assert_int_equal(tensors_write("old.st", &item, 1, NULL, NULL, 0, false, false, &p), MDL_FAILED);
    assert_non_null(strstr(p.text, "No space left"));
    size_t size;
    char *old = file_get("old.st", &size);
    assert_string_equal(old, "old");
    free(old);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),
        cmocka_unit_test(halves_are_read),
        cmocka_unit_test(hostile_headers_are_refused),
        cmocka_unit_test(every_damage_is_found),
        cmocka_unit_test(failed_write_leaves_the_old),
    };
    return cmocka_run_group_tests(tests, workshop_open, workshop_close);
}
