/* test_instructions.c - every instruction of instructions.def on many values against plain C.
 *
 * One kernel is made of a function for each instruction: it loads a, b and c, computes d, stores
 * it. The values are the edges of each type and numbers without pattern; all
 * combinations of them are tried. What is expected is computed here by other means than
 * simt_math.h uses: wide integers, loops over bits, tables of all halves, exact errors.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "plain_values.h"
#include "translate_stand.h"

/* ------------------------------------------------------------- types and values */

typedef uint16_t T_U16, T_F16, T_BF16;
typedef int16_t T_S16;
typedef uint32_t T_U32, T_SHIFT, T_PAIRS;
typedef int32_t T_S32;
typedef uint64_t T_U64, T_NONE;
typedef int64_t T_S64;
typedef float T_F32;
typedef double T_F64;
typedef bool T_PRED;

typedef enum { U16, S16, F16, BF16, U32, S32, SHIFT, PAIRS, U64, S64, F32, F64, PRED, NONE } Type;
static const struct {
    const char *reg, *memory;
} TYPES[] = {
    [U16] = {"b16", "u16"},   [S16] = {"b16", "u16"},   [F16] = {"b16", "u16"},
    [BF16] = {"b16", "u16"},  [U32] = {"b32", "u32"},   [S32] = {"b32", "u32"},
    [SHIFT] = {"b32", "u32"}, [PAIRS] = {"b32", "u32"}, [U64] = {"b64", "u64"},
    [S64] = {"b64", "u64"},   [F32] = {"f32", "f32"},   [F64] = {"f64", "f64"},
};

static const uint64_t INTEGERS[] = {0,
                                    1,
                                    2,
                                    3,
                                    7,
                                    0x7f,
                                    0x80,
                                    0xff,
                                    0x7fff,
                                    0x8000,
                                    0xffff,
                                    0x10000,
                                    0x7fffffff,
                                    0x80000000,
                                    0xffffffff,
                                    0x100000000,
                                    0x7fffffffffffffff,
                                    0x8000000000000000,
                                    0xffffffffffffffff,
                                    0xfffffffffffffffd,
                                    0x123456789abcdef0,
                                    0xdeadbeefcafebabe,
                                    0x3c003e00bc00c123,
                                    0x3f80404041c8c0a1};
static const uint64_t SHIFTS[] = {0,  1,  5,  8,  15, 16,  17,  24,  31,        32,
                                  33, 40, 63, 64, 65, 255, 256, 300, 0xffffffff};
static const uint64_t HALVES[] = {0,      0x8000, 1,      0x8001, 0x03ff, 0x0400, 0x3c00, 0xbc00,
                                  0x3c01, 0x3bff, 0x7bff, 0xfbff, 0x7c00, 0xfc00, 0x7e00, 0x3555,
                                  0x4248, 0x0080, 0x007f, 0x3f80, 0x3f81, 0xbf80, 0x7f7f, 0x7f80,
                                  0xff80, 0x4049, 0x2e66, 0x1234, 0x3b80, 0x0d80};
static const uint64_t HALF_PAIRS[] = {0,          0x80000000, 0x3c00bc00, 0x7bff0001,
                                      0x7c00fc00, 0x35554248, 0x007f0080};
static const double FLOATS[] = {
    0,        -0.0,      1,          -1,          0.5,         -0.5,        1.5,      2.5,
    -2.5,     3.25,      -7.75,      0.1,         1e-3,        100.7,       65504,    65519.99,
    65520,    65536,     -70000,     0x1p-14,     0x1p-24,     0x1.8p-25,   0x1p-25,  255.5,
    256,      -128.5,    2147483520, 2147483648., 4294967040., 4294967296., 9e18,     -9.3e18,
    1.9e19,   3.4e38,    -3.4e38,    1.5e-38,     1e-39,       -1e-42,      0x1p-149, 3.14159265,
    INFINITY, -INFINITY, NAN,        1 + 0x1p-23, 1 - 0x1p-24, 1.00390625,  0x1p-100, 33.333};
static const double DOUBLES[] = {1e300,
                                 -1e-300,
                                 0x1p-1074,
                                 1 + 0x1p-52,
                                 4e38,
                                 1e-50,
                                 2147483647.5,
                                 -2147483648.5,
                                 9223372036854774784.,
                                 65519.999999999,
                                 1 + 0x1p-11 + 0x1p-40,
                                 1 + 0x1p-8 + 0x1p-45};

static uint64_t random_state = 88172645463325252u;
static uint64_t random_bits(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    return random_state ^= random_state << 17;
}

#define COUNT(ARRAY) (sizeof(ARRAY) / sizeof *(ARRAY))
enum { VALUES_MAX = 96 };

static size_t values_of(Type type, uint64_t *into)
{
    size_t n = 0;
    if (type == F32 || type == F64) {
        for (size_t i = 0; i < COUNT(FLOATS); i++)
            into[n++] = type == F32 ? float_bits((float)FLOATS[i]) : double_bits(FLOATS[i]);
        for (size_t i = 0; type == F64 && i < COUNT(DOUBLES); i++)
            into[n++] = double_bits(DOUBLES[i]);
        for (int i = 0; i < 10; i++)
            into[n++] = type == F32 ? (uint32_t)random_bits() : random_bits();
        return n;
    }
    const uint64_t *list = INTEGERS;
    size_t count = COUNT(INTEGERS);
    if (type == SHIFT) {
        list = SHIFTS;
        count = COUNT(SHIFTS);
    } else if (type == F16 || type == BF16) {
        list = HALVES;
        count = COUNT(HALVES);
    } else if (type == PAIRS) {
        list = HALF_PAIRS;
        count = COUNT(HALF_PAIRS);
    } else if (type == PRED) {
        into[0] = 0;
        into[1] = 1;
        return 2;
    } else if (type == NONE) {
        into[0] = 0;
        return 1;
    }
    for (size_t i = 0; i < count; i++)
        into[n++] = list[i];
    for (int i = 0; type != PAIRS && type != SHIFT && i < 6; i++)
        into[n++] = random_bits();
    return n;
}

/* ------------------------------------------------------------------ the cases */

#define OPERANDS(A, B, C)                                                                          \
    T_##A a;                                                                                       \
    T_##B b;                                                                                       \
    T_##C c;                                                                                       \
    memcpy(&a, x, sizeof a);                                                                       \
    memcpy(&b, x + 1, sizeof b);                                                                   \
    memcpy(&c, x + 2, sizeof c);                                                                   \
    (void)a, (void)b, (void)c;
#define JOINED(X, Y) X##Y
#define NAMED(LINE) JOINED(reference_, LINE)
#define NEAR(PTX, D, A, B, C, ULPS, EXPRESSION) CASE(PTX, D, A, B, C, EXPRESSION)
#define CASE(PTX, D, A, B, C, ...)                                                                 \
    static uint64_t NAMED(__LINE__)(const uint64_t *x)                                             \
    {                                                                                              \
        OPERANDS(A, B, C)                                                                          \
        const T_##D d = (T_##D)(__VA_ARGS__);                                                      \
        uint64_t bits = 0;                                                                         \
        memcpy(&bits, &d, sizeof d);                                                               \
        return bits;                                                                               \
    }
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#pragma GCC diagnostic ignored "-Wsign-compare"
#pragma GCC diagnostic ignored "-Wdouble-promotion"
#include "instructions.def"
#pragma GCC diagnostic pop
#undef CASE
#undef NEAR

typedef struct {
    const char *ptx;
    Type d, a, b, c;
    uint64_t ulps;
    uint64_t (*reference)(const uint64_t *x);
} Case;
#define CASE(PTX, D, A, B, C, ...) {PTX, D, A, B, C, 0, NAMED(__LINE__)},
#define NEAR(PTX, D, A, B, C, ULPS, ...) {PTX, D, A, B, C, ULPS, NAMED(__LINE__)},
static const Case CASES[] = {
#include "instructions.def"
};

static void write_operand(FILE *out, char name, Type type, int offset)
{
    if (type == PRED)
        fprintf(out,
                "  .reg .pred %%%c; ld.global.u32 %%r0, [%%p+%d];\n  setp.ne.u32 %%%c, %%r0, 0;\n",
                name, offset, name);
    else if (type != NONE)
        fprintf(out, "  .reg .%s %%%c; ld.global.%s %%%c, [%%p+%d];\n", TYPES[type].reg, name,
                TYPES[type].memory, name, offset);
}

static void write_case(FILE *out, size_t i)
{
    const Case *c = &CASES[i];
    fprintf(out, ".func f%zu(.param .b64 at)\n{\n", i);
    fprintf(out, "  .reg .b64 %%p; .reg .b32 %%r0;\n  ld.param.u64 %%p, [at];\n");
    write_operand(out, 'a', c->a, 0);
    write_operand(out, 'b', c->b, 8);
    write_operand(out, 'c', c->c, 16);
    fprintf(out, "  .reg .%s %%d;\n  %s\n", c->d == PRED ? "pred" : TYPES[c->d].reg, c->ptx);
    if (c->d == PRED)
        fprintf(out, "  selp.u32 %%r0, 1, 0, %%d; st.global.u32 [%%p+24], %%r0;\n");
    else
        fprintf(out, "  st.global.%s [%%p+24], %%d;\n", TYPES[c->d].memory);
    fprintf(out, "  ret;\n}\n");
}

/* Its parameters are a case's values and its number. */
static void write_entry(FILE *out)
{
    fprintf(out, ".visible .entry all(.param .u64 all_p, .param .u32 all_n)\n{\n"
                 "  .reg .b64 %%p; .reg .b32 %%n;\n  ld.param.u64 %%p, [all_p];\n"
                 "  ld.param.u32 %%n, [all_n];\n  CASES: .branchtargets C0");
    for (size_t i = 1; i < COUNT(CASES); i++)
        fprintf(out, ", C%zu", i);
    fprintf(out, ";\n  brx.idx %%n, CASES;\n");
    for (size_t i = 0; i < COUNT(CASES); i++)
        fprintf(out, "C%zu: { .param .b64 at; st.param.b64 [at], %%p; call f%zu, (at); }\n  ret;\n",
                i, i);
    fprintf(out, "}\n");
}

static char *write_cases(void)
{
    char *ptx = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&ptx, &size);
    assert_non_null(out);
    fprintf(out, ".version 9.0\n.target sm_90\n.address_size 64\n");
    for (size_t i = 0; i < COUNT(CASES); i++)
        write_case(out, i);
    write_entry(out);
    assert_int_equal(fclose(out), 0);
    return ptx;
}

static bool is_nan(Type type, uint64_t bits)
{
    switch (type) {
    case F32:
        return (bits & 0x7fffffff) > 0x7f800000;
    case F64:
        return (bits & INT64_MAX) > UINT64_C(0x7ff0000000000000);
    case F16:
        return (bits & 0x7fff) > 0x7c00;
    case BF16:
        return (bits & 0x7fff) > 0x7f80;
    default:
        return false;
    }
}

static bool same(const Case *c, uint64_t got, uint64_t want)
{
    if (got == want || (is_nan(c->d, got) && is_nan(c->d, want)))
        return true;
    if (c->ulps == 0 || is_nan(c->d, got) || is_nan(c->d, want))
        return false;
    const uint64_t sign = c->d == F64 ? UINT64_C(1) << 63 : c->d == F32 ? 1u << 31 : 1u << 15;
    const uint64_t x = got & (sign - 1), y = want & (sign - 1);
    return (got & sign) == (want & sign) && (x > y ? x - y : y - x) <= c->ulps;
}

static const SimKernelTable *kernel;

static int check_case(size_t i)
{
    const Case *c = &CASES[i];
    uint64_t a[VALUES_MAX], b[VALUES_MAX], d[VALUES_MAX], x[4];
    const size_t na = values_of(c->a, a), nb = values_of(c->b, b), nc = values_of(c->c, d);
    const struct {
        const void *at;
        uint32_t number;
    } params = {x, (uint32_t)i};
    for (size_t n = 0; n < na * nb * nc; n++) {
        const uint64_t in[3] = {a[n % na], b[n / na % nb], d[n / na / nb]};
        memcpy(x, in, sizeof in);
        x[3] = 0;
        stand_run(kernel, &params);
        const uint64_t want = c->reference(in);
        if (!same(c, x[3], want)) {
            print_error("%s\n    a %llx, b %llx, c %llx: %llx, should be %llx\n", c->ptx,
                        (unsigned long long)in[0], (unsigned long long)in[1],
                        (unsigned long long)in[2], (unsigned long long)x[3],
                        (unsigned long long)want);
            return 1;
        }
    }
    return 0;
}

static void test_every_instruction(void **state)
{
    (void)state;
    int wrong = 0;
    for (size_t i = 0; i < COUNT(CASES); i++)
        wrong += check_case(i);
    assert_int_equal(wrong, 0);
}

int main(void)
{
    make_halves();
    char *ptx = write_cases();
    kernel = stand_kernel(stand_load(ptx), "all");
    free(ptx);
    if (!kernel || kernel->unknown) {
        fprintf(stderr, "unknown: %s\n", kernel ? kernel->unknown : stand_report());
        return 1;
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_instruction)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
