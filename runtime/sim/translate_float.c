/* translate_float.c - f32, f64, halves and pairs of halves: add fma min sqrt ex2 ...
 *
 * Every operation is written once, for float or double. Halves are widened, computed and
 * rounded back, which is exact: float has more than twice their bits; fma is computed in double
 * and rounded to odd. Pairs are two halves.
 */
#include <string.h>

#include "translate.h"

#define REAL "f32 f64"
#define HALVES "f16 f16x2 bf16 bf16x2"

/* An expression of a float type from up to three of them. */
typedef const char *FloatFn(Translator *t, PtxType type, const char *const *x);

static void float_words(Translator *t)
{
    t->rounding = rounding_word(t, "rn");
    t->ftz = word(t, "ftz");
    t->sat = word(t, "sat");
    t->relu = word(t, "relu");
    t->nan = word(t, "NaN");
}

static const char *flushed(Translator *t, PtxType type, const char *x)
{
    if (!t->ftz || type == PTX_BF16)
        return x;
    return text(t, "ptx_ftz_%s(%s)", type == PTX_F16 ? "f16" : c_name(type), x);
}

static const char *real_result(Translator *t, PtxType type, FloatFn *fn, const char *const *x)
{
    const char *result = flushed(t, type, fn(t, type, x));
    if (t->sat)
        result = text(t, "ptx_sat_%s(%s)", c_name(type), result);
    if (t->relu)
        result = text(t, "ptx_relu(%s)", result);
    return result;
}

static const char *half_result(Translator *t, PtxType half, bool wide, FloatFn *fn,
                               const char *const *x, uint32_t n)
{
    const char *y[3] = {NULL, NULL, NULL};
    for (uint32_t i = 0; i < n; i++) {
        y[i] = flushed(t, half, half_to_float(t, half, x[i]));
        if (wide)
            y[i] = text(t, "(double)%s", y[i]);
    }
    const char *result = fn(t, wide ? PTX_F64 : PTX_F32, y);
    if (t->sat)
        result = text(t, "ptx_sat_%s(%s)", wide ? "f64" : "f32", result);
    result = float_to_half(t, half, wide, result);
    /* What rounding made subnormal is flushed as well. */
    if (t->ftz && half == PTX_F16)
        result = float_to_half(t, half, false, flushed(t, half, half_to_float(t, half, result)));
    if (t->relu)
        result =
            float_to_half(t, half, false, text(t, "ptx_relu(%s)", half_to_float(t, half, result)));
    return result;
}

/* Operand 0 = fn(operands 1 ... n), for any type. */
static void apply(Translator *t, PtxType type, uint32_t n, bool wide, FloatFn *fn)
{
    const char *x[3] = {NULL, NULL, NULL}, *y[3] = {NULL, NULL, NULL};
    operand_count(t, n + 1, n + 1);
    for (uint32_t i = 0; i < n; i++)
        x[i] = source(t, i + 1, type);
    if (t->relu && type == PTX_F64)
        unknown(t, NULL);
    if (type_is_float(type)) {
        for (uint32_t i = 0; i < n; i++)
            x[i] = flushed(t, type, x[i]);
        assign_first(t, type, real_result(t, type, fn, x));
        return;
    }
    if (strcmp(t->rounding, "rn") != 0)
        unknown(t, NULL);
    const PtxType half = type_of_lane(type);
    if (!type_is_pair(type)) {
        assign_first(t, type, half_result(t, half, wide, fn, x, n));
        return;
    }
    for (uint32_t i = 0; i < n; i++) {
        y[i] = text(t, "(uint16_t)(%s >> 16)", x[i]);
        x[i] = text(t, "(uint16_t)(%s)", x[i]);
    }
    assign_first(t, type,
                 text(t, "%s | (uint32_t)%s << 16", half_result(t, half, wide, fn, x, n),
                      half_result(t, half, wide, fn, y, n)));
}

/* ----------------------------------------------------------------- arithmetic */

static const char *rounded(Translator *t, PtxType type, const char *name, char operator,
                           const char * const * x)
{
    if (strcmp(t->rounding, "rn") == 0)
        return text(t, "(%s %c %s)", x[0], operator, x[1]);
    return text(t, "ptx_%s_%s_%s(%s, %s)", name, t->rounding, c_name(type), x[0], x[1]);
}

static const char *sum(Translator *t, PtxType type, const char *const *x)
{
    return rounded(t, type, "add", '+', x);
}

static const char *difference(Translator *t, PtxType type, const char *const *x)
{
    return rounded(t, type, "sub", '-', x);
}

static const char *product(Translator *t, PtxType type, const char *const *x)
{
    return rounded(t, type, "mul", '*', x);
}

static const char *quotient(Translator *t, PtxType type, const char *const *x)
{
    return rounded(t, type, "div", '/', x);
}

static const char *fused(Translator *t, PtxType type, const char *const *x)
{
    if (strcmp(t->rounding, "rn") == 0)
        return text(t, "__builtin_fma%s(%s, %s, %s)", type == PTX_F32 ? "f" : "", x[0], x[1], x[2]);
    return text(t, "ptx_fma_%s_%s(%s, %s, %s)", t->rounding, c_name(type), x[0], x[1], x[2]);
}

static const char *fused_half(Translator *t, PtxType type, const char *const *x)
{
    (void)type;
    return text(t, "ptx_fma_half(%s, %s, %s)", x[0], x[1], x[2]);
}

static void translate_add(Translator *t)
{
    float_words(t);
    apply(t, type_among(t, REAL " " HALVES), 2, false, sum);
}

static void translate_sub(Translator *t)
{
    float_words(t);
    apply(t, type_among(t, REAL " " HALVES), 2, false, difference);
}

static void translate_mul(Translator *t)
{
    float_words(t);
    apply(t, type_among(t, REAL " " HALVES), 2, false, product);
}

static void translate_fma(Translator *t)
{
    float_words(t);
    const PtxType type = type_among(t, REAL " " HALVES);
    apply(t, type, 3, true, type_is_half(type) ? fused_half : fused);
}

static void translate_div(Translator *t)
{
    word(t, "approx");
    word(t, "full");
    float_words(t);
    apply(t, type_among(t, REAL), 2, false, quotient);
}

/* ------------------------------------------------------------ roots, reciprocals */

static const char *root(Translator *t, PtxType type, const char *const *x)
{
    if (strcmp(t->rounding, "rn") == 0)
        return text(t, "__builtin_sqrt%s(%s)", type == PTX_F32 ? "f" : "", x[0]);
    return text(t, "ptx_sqrt_%s_%s(%s)", t->rounding, c_name(type), x[0]);
}

static const char *reciprocal(Translator *t, PtxType type, const char *const *x)
{
    const char *const y[2] = {type == PTX_F32 ? "1.0f" : "1.0", x[0]};
    return quotient(t, type, y);
}

static const char *reciprocal_root(Translator *t, PtxType type, const char *const *x)
{
    return type == PTX_F32 ? text(t, "ptx_rsqrt_f32(%s)", x[0])
                           : text(t, "(1 / __builtin_sqrt(%s))", x[0]);
}

/* rcp.approx.ftz.f64 and rsqrt.approx.ftz.f64: what the upper halves give. */
static bool upper_only(Translator *t, const char *name)
{
    if (t->i->nwords != 3 || strcmp(t->i->words[0], "approx") != 0 ||
        strcmp(t->i->words[1], "ftz") != 0 || strcmp(t->i->words[2], "f64") != 0)
        return false;
    t->words_used = 7;
    operand_count(t, 2, 2);
    assign_first(t, PTX_F64, text(t, "ptx_%s_upper(%s)", name, source(t, 1, PTX_F64)));
    return true;
}

static void translate_sqrt(Translator *t)
{
    word(t, "approx");
    float_words(t);
    apply(t, type_among(t, REAL), 1, false, root);
}

static void translate_rcp(Translator *t)
{
    if (upper_only(t, "rcp"))
        return;
    word(t, "approx");
    float_words(t);
    apply(t, type_among(t, REAL), 1, false, reciprocal);
}

static void translate_rsqrt(Translator *t)
{
    if (upper_only(t, "rsqrt"))
        return;
    if (!word(t, "approx"))
        unknown(t, NULL);
    float_words(t);
    apply(t, type_among(t, REAL), 1, false, reciprocal_root);
}

/* ------------------------------------------------------------- approximations */

static const char *call_libm(Translator *t, const char *name, const char *x)
{
    return text(t, "%s(%s)", name, x);
}

static const char *power_of_two(Translator *t, PtxType type, const char *const *x)
{
    (void)type;
    return call_libm(t, "exp2f", x[0]);
}

static const char *logarithm(Translator *t, PtxType type, const char *const *x)
{
    (void)type;
    return call_libm(t, "log2f", x[0]);
}

static const char *sine(Translator *t, PtxType type, const char *const *x)
{
    (void)type;
    return call_libm(t, "sinf", x[0]);
}

static const char *cosine(Translator *t, PtxType type, const char *const *x)
{
    (void)type;
    return call_libm(t, "cosf", x[0]);
}

static const char *hyperbolic_tangent(Translator *t, PtxType type, const char *const *x)
{
    (void)type;
    return call_libm(t, "tanhf", x[0]);
}

static void approximate(Translator *t, const char *types, FloatFn *fn)
{
    if (!word(t, "approx"))
        unknown(t, NULL);
    float_words(t);
    apply(t, type_among(t, types), 1, false, fn);
}

static void translate_ex2(Translator *t)
{
    approximate(t, "f32 " HALVES, power_of_two);
}

static void translate_lg2(Translator *t)
{
    approximate(t, "f32", logarithm);
}

static void translate_sin(Translator *t)
{
    approximate(t, "f32", sine);
}

static void translate_cos(Translator *t)
{
    approximate(t, "f32", cosine);
}

static void translate_tanh(Translator *t)
{
    approximate(t, "f32 " HALVES, hyperbolic_tangent);
}

/* ----------------------------------------------------------- signs and extremes */

static const char *absolute(Translator *t, PtxType type, const char *const *x)
{
    return text(t, "__builtin_fabs%s(%s)", type == PTX_F32 ? "f" : "", x[0]);
}

static const char *negative(Translator *t, PtxType type, const char *const *x)
{
    (void)type;
    return text(t, "(-%s)", x[0]);
}

static const char *least(Translator *t, PtxType type, const char *const *x)
{
    return text(t, "ptx_min%s_%s(%s, %s)", t->nan ? "_nan" : "", c_name(type), x[0], x[1]);
}

static const char *largest(Translator *t, PtxType type, const char *const *x)
{
    return text(t, "ptx_max%s_%s(%s, %s)", t->nan ? "_nan" : "", c_name(type), x[0], x[1]);
}

static void translate_abs(Translator *t)
{
    float_words(t);
    apply(t, type_among(t, REAL " " HALVES), 1, false, absolute);
}

static void translate_neg(Translator *t)
{
    float_words(t);
    apply(t, type_among(t, REAL " " HALVES), 1, false, negative);
}

static void translate_min(Translator *t)
{
    float_words(t);
    apply(t, type_among(t, REAL " " HALVES), 2, false, least);
}

static void translate_max(Translator *t)
{
    float_words(t);
    apply(t, type_among(t, REAL " " HALVES), 2, false, largest);
}

/* The sign is the first operand's, the rest the second's. */
static void translate_copysign(Translator *t)
{
    const PtxType type = type_among(t, REAL);
    operand_count(t, 3, 3);
    assign_first(t, type,
                 text(t, "__builtin_copysign%s(%s, %s)", type == PTX_F32 ? "f" : "",
                      source(t, 2, type), source(t, 1, type)));
}

static void translate_testp(Translator *t)
{
    static const struct {
        const char *name, *expression;
    } rows[] = {{"finite", "isfinite(%s)"}, {"infinite", "isinf(%s)"},
                {"number", "!isnan(%s)"},   {"notanumber", "isnan(%s)"},
                {"normal", "isnormal(%s)"}, {"subnormal", "(fpclassify(%s) == FP_SUBNORMAL)"}};
    const char *name = NULL, *expression = NULL;
    for (size_t i = 0; i < sizeof rows / sizeof *rows && !name; i++)
        if (word(t, rows[i].name)) {
            name = rows[i].name;
            expression = rows[i].expression;
        }
    const PtxType type = type_among(t, REAL);
    operand_count(t, 2, 2);
    if (!name)
        unknown(t, NULL);
    const char *x = source(t, 1, type), *at = strstr(expression, "%s");
    assign_first(t, PTX_PRED, text(t, "%.*s%s%s", (int)(at - expression), expression, x, at + 2));
}

const TranslateRow translate_float_rows[] = {
    {"add", translate_add},           {"sub", translate_sub},     {"mul", translate_mul},
    {"fma", translate_fma},           {"mad", translate_fma},     {"div", translate_div},
    {"sqrt", translate_sqrt},         {"rcp", translate_rcp},     {"rsqrt", translate_rsqrt},
    {"ex2", translate_ex2},           {"lg2", translate_lg2},     {"sin", translate_sin},
    {"cos", translate_cos},           {"tanh", translate_tanh},   {"abs", translate_abs},
    {"neg", translate_neg},           {"min", translate_min},     {"max", translate_max},
    {"copysign", translate_copysign}, {"testp", translate_testp}, {NULL, NULL},
};
