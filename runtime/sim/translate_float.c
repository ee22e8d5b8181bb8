/* translate_float.c - f32, f64, halves and pairs of halves: add fma min sqrt ex2 ...
 *
 * A table says of every operation what it is in C, written once for float and double. Halves
 * are widened, computed and rounded back, which is exact: float has more than twice their bits;
 * fma is computed in double and rounded to odd. Pairs are two halves.
 */
#include <string.h>

#include "translate.h"

#define REAL "f32 f64"
#define HALVES "f16 f16x2 bf16 bf16x2"

/* In expressions: $a $b $c operands, $t the type's name, $f "f" of float's functions, $r the
 * rounding, $n "_nan" where a NaN wins. Rounded otherwise than to the nearest, an operation is
 * ptx_OPCODE_$r_$t of its operands. What is rounded or approximate makes but one NaN in f32. */
typedef struct {
    const char *opcode;
    uint32_t operands;
    const char *types;
    /* Modifiers that there are: r rounding, f ftz, s sat, u relu, n NaN, l full, a approx (A:
     * without it the instruction is unknown). */
    const char *modifiers;
    const char *expression;
} Operation;

static const Operation OPERATIONS[] = {
    {"add", 2, REAL " " HALVES, "rfs", "($a + $b)"},
    {"sub", 2, REAL " " HALVES, "rfs", "($a - $b)"},
    {"mul", 2, REAL " " HALVES, "rfs", "($a * $b)"},
    {"fma", 3, REAL " " HALVES, "rfsu", "__builtin_fma$f($a, $b, $c)"},
    {"mad", 3, REAL, "rfs", "__builtin_fma$f($a, $b, $c)"},
    {"div", 2, REAL, "rfl", "($a / $b)"},
    {"sqrt", 1, REAL, "rfa", "__builtin_sqrt$f($a)"},
    {"rcp", 1, REAL, "rfa", "(1 / $a)"},
    {"rsqrt", 1, REAL, "fA", "ptx_rsqrt_$t($a)"},
    {"ex2", 1, "f32 " HALVES, "fA", "exp2f($a)"},
    {"lg2", 1, "f32", "fA", "log2f($a)"},
    {"sin", 1, "f32", "fA", "sinf($a)"},
    {"cos", 1, "f32", "fA", "cosf($a)"},
    {"tanh", 1, "f32 " HALVES, "A", "tanhf($a)"},
    {"abs", 1, REAL " " HALVES, "f", "__builtin_fabs$f($a)"},
    {"neg", 1, REAL " " HALVES, "f", "(-$a)"},
    {"min", 2, REAL " " HALVES, "fn", "ptx_min$n_$t($a, $b)"},
    {"max", 2, REAL " " HALVES, "fn", "ptx_max$n_$t($a, $b)"},
};

static const Operation *operation_of(const char *opcode)
{
    const Operation *o = OPERATIONS;
    while (strcmp(o->opcode, opcode) != 0)
        o++;
    return o;
}

/* The template with its operands in it. */
static const char *filled(Translator *t, const char *from, PtxType type, const char *const *x)
{
    const char *out = "";
    for (const char *at = strchr(from, '$'); at; from = at + 2, at = strchr(from, '$')) {
        const char *part = at[1] == 't'   ? c_name(type)
                           : at[1] == 'f' ? (type == PTX_F32 ? "f" : "")
                           : at[1] == 'r' ? t->rounding
                           : at[1] == 'n' ? (t->nan ? "_nan" : "")
                                          : x[at[1] - 'a'];
        out = text(t, "%s%.*s%s", out, (int)(at - from), from, part);
    }
    return text(t, "%s%s", out, from);
}

static void take_modifiers(Translator *t, const char *modifiers)
{
    for (const char *m = modifiers; *m; m++)
        switch (*m) {
        case 'r':
            t->rounding = rounding_word(t, "rn");
            break;
        case 'f':
            t->ftz = word(t, "ftz");
            break;
        case 's':
            t->sat = word(t, "sat");
            break;
        case 'u':
            t->relu = word(t, "relu");
            break;
        case 'n':
            t->nan = word(t, "NaN");
            break;
        case 'l':
            word(t, "full");
            break;
        default:
            if (!word(t, "approx") && *m == 'A')
                unknown(t, NULL);
        }
}

static const char *flushed(Translator *t, PtxType type, const char *x)
{
    if (!t->ftz || type == PTX_BF16)
        return x;
    return text(t, "ptx_ftz_%s(%s)", type == PTX_F16 ? "f16" : c_name(type), x);
}

static const char *real_result(Translator *t, const Operation *o, PtxType type,
                               const char *const *x)
{
    const char *y[3] = {NULL, NULL, NULL};
    static const char *const lists[] = {"$a", "$a, $b", "$a, $b, $c"};
    for (uint32_t i = 0; i < o->operands; i++)
        y[i] = flushed(t, type, x[i]);
    const char *expression = o->expression;
    if (strcmp(t->rounding, "rn") != 0)
        expression = text(t, "ptx_%s_$r_$t(%s)", o->opcode, lists[o->operands - 1]);
    const char *result = flushed(t, type, filled(t, expression, type, y));
    if (type == PTX_F32 && strpbrk(o->modifiers, "rA"))
        result = text(t, "ptx_nan_f32(%s)", result);
    return t->sat ? text(t, "ptx_sat_%s(%s)", c_name(type), result) : result;
}

static const char *half_result(Translator *t, const Operation *o, PtxType half,
                               const char *const *x)
{
    const char *y[3] = {NULL, NULL, NULL};
    const bool wide = strcmp(o->opcode, "fma") == 0;
    for (uint32_t i = 0; i < o->operands; i++) {
        y[i] = flushed(t, half, half_to_float(t, half, x[i]));
        if (wide)
            y[i] = text(t, "(double)%s", y[i]);
    }
    const char *result =
        filled(t, wide ? "ptx_fma_half($a, $b, $c)" : o->expression, wide ? PTX_F64 : PTX_F32, y);
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

/* Operand 0 = the operation of operands 1 ... n, for any type. Only for what is in the table. */
static void translate_operation(Translator *t)
{
    const Operation *o = operation_of(t->i->opcode);
    const char *x[3] = {NULL, NULL, NULL}, *upper[3] = {NULL, NULL, NULL};
    take_modifiers(t, o->modifiers);
    const PtxType type = type_among(t, o->types);
    operand_count(t, o->operands + 1, o->operands + 1);
    for (uint32_t i = 0; i < o->operands; i++)
        x[i] = source(t, i + 1, type);
    if (type_is_float(type)) {
        if (t->relu)
            unknown(t, NULL);
        assign_first(t, type, real_result(t, o, type, x));
        return;
    }
    if (strcmp(t->rounding, "rn") != 0)
        unknown(t, NULL);
    const PtxType half = type_of_lane(type);
    if (!type_is_pair(type)) {
        assign_first(t, type, half_result(t, o, half, x));
        return;
    }
    for (uint32_t i = 0; i < o->operands; i++) {
        upper[i] = text(t, "(uint16_t)(%s >> 16)", x[i]);
        x[i] = text(t, "(uint16_t)(%s)", x[i]);
    }
    assign_first(t, type,
                 text(t, "%s | (uint32_t)%s << 16", half_result(t, o, half, x),
                      half_result(t, o, half, upper)));
}

/* ------------------------------------------------------ instructions of their own */

/* rcp.approx.ftz.f64 and rsqrt.approx.ftz.f64: what the upper halves give. */
static bool upper_only(Translator *t)
{
    if (t->i->nwords != 3 || strcmp(t->i->words[0], "approx") != 0 ||
        strcmp(t->i->words[1], "ftz") != 0 || strcmp(t->i->words[2], "f64") != 0)
        return false;
    t->words_used = 7;
    operand_count(t, 2, 2);
    assign_first(t, PTX_F64, text(t, "ptx_%s_upper(%s)", t->i->opcode, source(t, 1, PTX_F64)));
    return true;
}

static void translate_reciprocal(Translator *t)
{
    if (!upper_only(t))
        translate_operation(t);
}

/* div.approx.f32 gives up on the largest divisors; the others are operations. */
static void translate_div(Translator *t)
{
    if (!word(t, "approx")) {
        translate_operation(t);
        return;
    }
    t->ftz = word(t, "ftz");
    const PtxType type = type_among(t, "f32");
    operand_count(t, 3, 3);
    assign_first(t, type,
                 flushed(t, type,
                         text(t, "ptx_div_approx_f32(%s, %s)", flushed(t, type, source(t, 1, type)),
                              flushed(t, type, source(t, 2, type)))));
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
    {"add", translate_operation},
    {"sub", translate_operation},
    {"mul", translate_operation},
    {"fma", translate_operation},
    {"mad", translate_operation},
    {"div", translate_div},
    {"sqrt", translate_operation},
    {"rcp", translate_reciprocal},
    {"rsqrt", translate_reciprocal},
    {"ex2", translate_operation},
    {"lg2", translate_operation},
    {"sin", translate_operation},
    {"cos", translate_operation},
    {"tanh", translate_operation},
    {"abs", translate_operation},
    {"neg", translate_operation},
    {"min", translate_operation},
    {"max", translate_operation},
    {"copysign", translate_copysign},
    {"testp", translate_testp},
    {NULL, NULL},
};
