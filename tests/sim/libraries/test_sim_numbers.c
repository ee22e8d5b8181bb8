/* test_sim_numbers.c - conversions of 16-bit floats, all of them, and reductions of every type
 * of element against their definitions. */
#include "library_test.h"

#include "half_numbers.h"
#include "nccl_world.h"

/* Which of the type's values is nearest to `value`; of two, the one with an even mantissa. */
static uint16_t nearest(float value, int exponent_bits, int mantissa_bits)
{
    uint16_t infinite = (uint16_t)(((1 << exponent_bits) - 1) << mantissa_bits), best = 0;
    double size = fabs((double)value);
    int low = 0, high = infinite;
    while (high - low > 1) { /* values grow with their bits */
        int middle = (low + high) / 2;
        if (narrow_value((uint16_t)middle, exponent_bits, mantissa_bits) <= size)
            low = middle;
        else
            high = middle;
    }
    double below = narrow_value((uint16_t)low, exponent_bits, mantissa_bits);
    /* beyond the largest number, the next one would be a power of two */
    double above = high == infinite ? ldexp(1, 1 << (exponent_bits - 1))
                                    : narrow_value((uint16_t)high, exponent_bits, mantissa_bits);
    double down = size - below, up = above - size;
    best = (uint16_t)(isinf(size)      ? infinite
                      : down < up      ? low
                      : up < down      ? high
                      : (low & 1) == 0 ? low
                                       : high);
    return (uint16_t)(best | (signbit(value) ? 0x8000 : 0));
}

static void test_conversions(void **state)
{
    (void)state;
    for (uint32_t bits = 0; bits < 65536; bits++) {
        float half = float_of_half((uint16_t)bits), bfloat = float_of_bfloat((uint16_t)bits);
        double want_half = narrow_value((uint16_t)bits, 5, 10);
        double want_bfloat = narrow_value((uint16_t)bits, 8, 7);
        if (isnan(want_half))
            assert_true(isnan(half) && isnan(float_of_half(half_of_float(half))));
        else
            assert_true((double)half == want_half && half_of_float(half) == bits);
        if (isnan(want_bfloat))
            assert_true(isnan(bfloat) && isnan(float_of_bfloat(bfloat_of_float(bfloat))));
        else
            assert_true((double)bfloat == want_bfloat && bfloat_of_float(bfloat) == bits);
    }
}

static void test_rounding(void **state)
{
    uint32_t bits = 12345;
    (void)state;
    for (int i = 0; i < 2000000; i++) {
        bits = bits * 1664525u + 1013904223u;
        /* now and then exactly between two of either type */
        uint32_t tried = i % 3 == 0   ? bits
                         : i % 3 == 1 ? (bits & ~0x1fffu) | 0x1000
                                      : (bits & ~0xffffu) | 0x8000;
        float value = float_of_bits(tried);
        if (isnan(value))
            continue;
        assert_int_equal(half_of_float(value), nearest(value, 5, 10));
        assert_int_equal(bfloat_of_float(value), nearest(value, 8, 7));
    }
}

enum { COUNT = 2500, RANKS = 3 };

static double combined(ncclRedOp_t op, double a, double b)
{
    return op == ncclProd ? a * b : op == ncclMax ? fmax(a, b) : op == ncclMin ? fmin(a, b) : a + b;
}

/* Small whole numbers, exact in every type and reduction. */
#define CHECK_TYPE(type, nccl_type, LOAD, STORE, is_signed)                                        \
    do {                                                                                           \
        static type data[RANKS][COUNT], out[COUNT];                                                \
        const void *from[RANKS];                                                                   \
        for (int r = 0; r < RANKS; r++) {                                                          \
            from[r] = data[r];                                                                     \
            for (int i = 0; i < COUNT; i++)                                                        \
                data[r][i] = STORE((float)((i * 7 + r * 5) % 9 - ((is_signed) ? 4 : 0)));          \
        }                                                                                          \
        for (int op = 0; op < 5; op++) {                                                           \
            nccl_reduce(nccl_type, (ncclRedOp_t)op, RANKS, from, COUNT, out);                      \
            for (int i = 0; i < COUNT; i++) {                                                      \
                double want = (double)LOAD(data[0][i]);                                            \
                for (int r = 1; r < RANKS; r++)                                                    \
                    want = combined((ncclRedOp_t)op, want, (double)LOAD(data[r][i]));              \
                bool whole = nccl_type <= ncclUint64;                                              \
                want = op != ncclAvg ? want : whole ? trunc(want / RANKS) : want / RANKS;          \
                double slack = nccl_type == ncclBfloat16  ? 0.01                                   \
                               : nccl_type == ncclFloat16 ? 0.002                                  \
                                                          : 1e-6;                                  \
                if (!(fabs((double)LOAD(out[i]) - want) <= slack * fabs(want)))                    \
                    fail_msg("type %d, reduction %d: %g, not %g", (int)nccl_type, op,              \
                             (double)LOAD(out[i]), want);                                          \
            }                                                                                      \
        }                                                                                          \
    } while (0)

static void test_reductions(void **state)
{
    (void)state;
    CHECK_TYPE(int8_t, ncclInt8, , (int8_t), true);
    CHECK_TYPE(uint8_t, ncclUint8, , (uint8_t), false);
    CHECK_TYPE(int32_t, ncclInt32, , (int32_t), true);
    CHECK_TYPE(uint32_t, ncclUint32, , (uint32_t), false);
    CHECK_TYPE(int64_t, ncclInt64, , (int64_t), true);
    CHECK_TYPE(uint64_t, ncclUint64, , (uint64_t), false);
    CHECK_TYPE(float, ncclFloat32, , (float), true);
    CHECK_TYPE(double, ncclFloat64, , (double), true);
    CHECK_TYPE(uint16_t, ncclFloat16, float_of_half, half_of_float, true);
    CHECK_TYPE(uint16_t, ncclBfloat16, float_of_bfloat, bfloat_of_float, true);
}

/* Sums of integers wrap around; those of halves are rounded once, at the end. */
static void test_sums(void **state)
{
    const int8_t ints[2] = {100, 100};
    const uint16_t halves[3] = {half_of_float(2048), half_of_float(1), half_of_float(1)};
    const void *from[3] = {&ints[0], &ints[1], NULL};
    int8_t sum = 0;
    uint16_t half = 0;
    (void)state;
    nccl_reduce(ncclInt8, ncclSum, 2, from, 1, &sum);
    assert_int_equal(sum, -56);
    for (int i = 0; i < 3; i++)
        from[i] = &halves[i];
    nccl_reduce(ncclFloat16, ncclSum, 3, from, 1, &half);
    assert_true(float_of_half(half) == 2050);
}

/* The larger and the smaller of a number and a NaN is the number. */
static void test_not_a_number(void **state)
{
    const float numbers[3] = {NAN, 2, NAN};
    const void *from[3] = {&numbers[0], &numbers[1], &numbers[2]};
    const void *none[2] = {&numbers[0], &numbers[2]};
    float out = 0;
    (void)state;
    for (int op = 0; op < 5; op++) {
        bool gives_way = op == ncclMax || op == ncclMin;
        for (int n = 2; n <= 3; n++) {
            nccl_reduce(ncclFloat32, (ncclRedOp_t)op, n, from, 1, &out);
            assert_true(gives_way ? out == 2 : isnan(out));
        }
        nccl_reduce(ncclFloat32, (ncclRedOp_t)op, 2, none, 1, &out);
        assert_true(isnan(out));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conversions), cmocka_unit_test(test_rounding),
        cmocka_unit_test(test_reductions), cmocka_unit_test(test_sums),
        cmocka_unit_test(test_not_a_number)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
