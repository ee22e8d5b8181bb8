/* test_halves.c - inputs of bf16 and f16: every number rounded once, to the nearest, and what has
 * no place among 16-bit numbers refused. */
#include "workshop.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "data.h"

static const MdlInput reals = {.name = "x", .type = MDL_REAL, .rank = 1, .dim = {3}};
static const MdlInput labels = {.name = "y", .type = MDL_I32, .target = true, .limit = 10};
static const MdlInput bfloats = {.name = "x", .type = MDL_BF16, .rank = 1, .dim = {1}};
static const MdlInput floats16 = {.name = "x", .type = MDL_F16, .rank = 1, .dim = {1}};

/* The nearest of all finite numbers of the type, of two the one whose last bit is 0; beyond the
 * middle of the largest and what would follow it: none. */
static bool nearest_half(MdlType type, double x, uint16_t *half)
{
    const int infinite = type == MDL_BF16 ? 0x7f80 : 0x7c00, fraction = type == MDL_BF16 ? 7 : 10;
    const int bias = type == MDL_BF16 ? 127 : 15;
    double best = INFINITY;
    int found = 0;
    for (int bits = 0; bits <= infinite; bits++) {
        const int exponent = bits >> fraction, low = bits & ((1 << fraction) - 1);
        const double value = exponent ? ldexp(low + (1 << fraction), exponent - bias - fraction)
                                      : ldexp(low, 1 - bias - fraction);
        const double off = fabs(value - fabs(x));
        if (off < best || (!(off > best) && bits % 2 == 0)) {
            best = off;
            found = bits;
        }
    }
    *half = (uint16_t)(found | (signbit(x) ? 0x8000 : 0));
    return found < infinite;
}

static void nearest_is_read(const MdlInput *input, double exact)
{
    const float single = (float)exact;
    uint16_t want, got;
    bool finite = nearest_half(input->type, exact, &want);
    assert_int_equal(half_round_real(input->type, exact, &got), finite);
    assert_int_equal(got, want);
    if (!isfinite(single))
        return;
    Array a;
    Problem p = {0};
    npy_put("t.npy", "<f4", "(1, 1)", &single, sizeof single);
    assert_int_equal(npy_read(&a, "t.npy", &p), MDL_OK);
    finite = nearest_half(input->type, (double)single, &want);
    assert_int_equal(array_sample(&a, 0, input, 1, &got, &p), finite ? MDL_OK : MDL_FAILED);
    assert_int_equal(got, want);
    array_release(&a);
}

/* Near powers of two, near the middle between two neighbours, and at the ends of the range. */
static void halves_are_the_nearest(void **state)
{
    (void)state;
    static const double parts[] = {1,
                                   1 + 0x1p-8,
                                   1 + 0x1p-8 + 0x1p-40,
                                   1 + 0x1p-8 - 0x1p-40,
                                   1 + 0x3p-8,
                                   1 + 0x1p-11,
                                   1 + 0x1p-11 + 0x1p-52,
                                   1 + 0x3p-11 - 0x1p-51,
                                   1.7320508075688772,
                                   2 - 0x1p-9,
                                   2 - 0x1p-12,
                                   2 - 0x1p-30};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        for (int power = -28; power <= 17; power++)
            nearest_is_read(&floats16, ldexp(i % 2 ? -parts[i] : parts[i], power));
        for (int power = -140; power <= 128; power += power < -120 || power > 120 ? 1 : 8)
            nearest_is_read(&bfloats, ldexp(i % 2 ? -parts[i] : parts[i], power));
    }
}

/* Into an input of their own type the bits are those of the file. */
static void halves_are_read(void **state)
{
    (void)state;
    static const uint16_t bits[] = {0x0001, 0x83ff, 0x3c00, 0x7bff, 0x8000};
    static const MdlInput *const inputs[] = {&floats16, &bfloats};
    for (int k = 0; k < 2; k++) {
        uint16_t got[5];
        Array a;
        Problem p = {0};
        npy_put("t.npy", k ? "<V2" : "<f2", "(1, 5)", bits, sizeof bits);
        assert_int_equal(npy_read(&a, "t.npy", &p), MDL_OK);
        assert_int_equal(array_sample(&a, 0, inputs[k], 5, got, &p), MDL_OK);
        assert_memory_equal(got, bits, sizeof bits);
        /* an f16 is no bf16, and the other way round */
        assert_int_equal(array_sample(&a, 0, inputs[!k], 3, got, &p), MDL_OK);
        assert_int_equal(got[2], k ? 0x2000 : 0x3f80);
        array_release(&a);
    }
    const uint16_t swapped[] = {0x003c, 0xff7b};
    uint16_t got[2];
    Array a;
    Problem p = {0};
    npy_put("t.npy", ">f2", "(1, 2)", swapped, sizeof swapped);
    assert_int_equal(npy_read(&a, "t.npy", &p), MDL_OK);
    assert_int_equal(array_sample(&a, 0, &floats16, 2, got, &p), MDL_OK);
    assert_true(got[0] == 0x3c00 && got[1] == 0x7bff);
    array_release(&a);
}

static void halves_are_checked(void **state)
{
    (void)state;
    static const struct {
        const char *descr;
        uint64_t bits;
        const MdlInput *input;
        const char *wrong;
    } numbers[] = {
        {"<f2", 0x7c00, &floats16, "inf is not a finite number"},
        {"<f2", 0xfe00, &floats16, "nan is not a finite number"},
        {"<f2", 0x7c00, &bfloats, "inf is not a finite number"},
        {"<V2", 0xff80, &bfloats, "inf is not a finite number"},
        {"<V2", 0x4780, &floats16, "65536 is out of the range of f16"},
        {"<i4", 65519, &floats16, NULL},
        {"<i4", 65520, &floats16, "65520 is out of the range of f16"},
        {"<i4", 65520, &bfloats, NULL},
        {"<f4", 0x7f7f0000, &bfloats, NULL},
        {"<f4", 0x7f7f8000, &bfloats, "3.39618e+38 is out of the range of bf16"},
        {"<f8", 0x7fefffffffffffff, &bfloats, "1.79769e+308 is out of the range of bf16"},
        {"<f8", 0x7ff8000000000000, &floats16, "nan is not a finite number"},
        {"<f2", 0x7c00, &reals, "inf is not a finite number"},
        {"<f2", 0x3e00, &labels, "1.5; "},
        {"<f2", 0x7c00, &labels, "inf; "},
        {"<f2", 0x4200, &labels, NULL},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        Array a;
        Problem p = {0};
        char out[8];
        npy_put("t.npy", numbers[i].descr, "(1, 1)", &numbers[i].bits,
                (size_t)(numbers[i].descr[2] - '0'));
        assert_int_equal(npy_read(&a, "t.npy", &p), MDL_OK);
        const int status = array_sample(&a, 0, numbers[i].input, 1, out, &p);
        assert_int_equal(status, numbers[i].wrong ? MDL_FAILED : MDL_OK);
        if (numbers[i].wrong && !strstr(p.text, numbers[i].wrong))
            print_message("%s\n", p.text);
        assert_true(!numbers[i].wrong || strstr(p.text, numbers[i].wrong));
        array_release(&a);
    }
}

static void csv_of_halves_is_read(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const MdlInput *input;
        uint16_t bits;
        const char *wrong;
    } lines[] = {
        {"1.00390625000000001", &bfloats, 0x3f80, NULL}, /* the f64 is the middle */
        {"1.0039062500000005", &bfloats, 0x3f81, NULL},
        {"-0.1", &floats16, 0xae66, NULL},
        {"6e-8", &floats16, 0x0001, NULL},
        {"65519", &floats16, 0x7bff, NULL},
        {"65520", &floats16, 0, "column 1: '65520' is out of the range of f16"},
        {"1e39", &bfloats, 0, "column 1: '1e39' is out of the range of bf16"},
        {"nan", &floats16, 0, "column 1: 'nan' is not a finite number"},
    };
    static const int order[] = {0};
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        Array a = {0};
        Problem p = {0};
        char text[60];
        uint16_t got = 0;
        snprintf(text, sizeof text, "0\n%s\n", lines[i].text);
        file_put("t.csv", text, strlen(text));
        const int status = csv_read(&a, lines[i].input, order, 1, "t.csv", &p);
        assert_int_equal(status, lines[i].wrong ? MDL_FAILED : MDL_OK);
        if (lines[i].wrong) {
            assert_non_null(strstr(p.text, lines[i].wrong));
            continue;
        }
        assert_int_equal(array_sample(&a, 1, lines[i].input, 1, &got, &p), MDL_OK);
        assert_int_equal(got, lines[i].bits);
        array_release(&a);
    }
}

/* What an f32 input is given, rounded. */
static void synthetic_halves_are_rounded(void **state)
{
    (void)state;
    enum { N = 1000 };
    for (int k = 0; k < 2; k++) {
        const MdlInput *input = k ? &floats16 : &bfloats;
        real x[N];
        uint16_t h[N], want;
        synthetic_sample(&reals, 7, 3, N, x);
        synthetic_sample(input, 7, 3, N, h);
        for (int i = 0; i < N; i++) {
            assert_true(half_round_real(input->type, (double)x[i], &want));
            assert_int_equal(h[i], want);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(halves_are_the_nearest),       cmocka_unit_test(halves_are_read),
        cmocka_unit_test(halves_are_checked),           cmocka_unit_test(csv_of_halves_is_read),
        cmocka_unit_test(synthetic_halves_are_rounded),
    };
    return cmocka_run_group_tests(tests, workshop_open, workshop_close);
}
