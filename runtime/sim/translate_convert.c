/* translate_convert.c - mov and cvt.
 *
 * cvt goes between every two types. Out of range integers are the nearest in range; a NaN is
 * 0, or the sign bit alone where 64 bits take part. A half from anything wider is rounded
 * once.
 */
#include <string.h>

#include "translate.h"

/* ------------------------------------------------------------------------ mov */

static PtxType lane_type(Translator *t, PtxType type, uint32_t lanes)
{
    const uint32_t bytes = ptx_type_bytes(type);
    if (lanes < 2 || lanes > 8 || bytes % lanes != 0)
        unknown(t, NULL);
    switch (bytes / lanes) {
    case 1:
        return PTX_U8;
    case 2:
        return PTX_U16;
    case 4:
        return PTX_U32;
    default:
        unknown(t, NULL);
    }
}

static void unpack(Translator *t, PtxType type, const PtxOperand *to)
{
    const PtxType lane = lane_type(t, type, to->nitems);
    emit(t, "    {\n    const uint64_t whole = %s;\n", source(t, 1, type_unsigned(type)));
    for (uint32_t i = 0; i < to->nitems; i++)
        assign(t, &to->items[i], lane, text(t, "whole >> %u", i * type_bits(lane)));
    emit(t, "    }\n");
}

static void pack(Translator *t, PtxType type, const PtxOperand *from)
{
    const PtxType lane = lane_type(t, type, from->nitems);
    const char *whole = "";
    for (uint32_t i = 0; i < from->nitems; i++)
        whole = text(t, "%s%s(uint64_t)%s << %u", whole, i ? " | " : "",
                     value(t, &from->items[i], lane), i * type_bits(lane));
    assign_first(t, type_unsigned(type), whole);
}

static void translate_mov(Translator *t)
{
    const PtxType type =
        type_among(t, "pred b16 b32 b64 u16 u32 u64 s16 s32 s64 f16 f16x2 bf16 bf16x2 f32 f64");
    operand_count(t, 2, 2);
    const PtxOperand *to = operand(t, 0), *from = operand(t, 1);
    if ((to->kind == PTX_OP_VECTOR || from->kind == PTX_OP_VECTOR) && type == PTX_PRED)
        unknown(t, NULL);
    if (to->kind == PTX_OP_VECTOR)
        unpack(t, type, to);
    else if (from->kind == PTX_OP_VECTOR)
        pack(t, type, from);
    else if (from->kind == PTX_OP_FUNCTION && type_bits(type) == 64)
        assign_first(
            t, PTX_U64,
            text(t, "UINT64_C(0x%llx)", (unsigned long long)function_address(from->index)));
    else
        assign_first(t, type, source(t, 1, type));
}

/* ------------------------------------------------------------------------ cvt */

typedef struct {
    PtxType to, from;
    const char *integral; /* "rint", "trunc", "floor", "ceil" of .rni ... */
    const char *rounding; /* "rn" ... "rna"; NULL */
} Conversion;

static const char *integral_word(Translator *t)
{
    static const char *const rows[][2] = {
        {"rni", "rint"}, {"rzi", "trunc"}, {"rmi", "floor"}, {"rpi", "ceil"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (word(t, rows[i][0]))
            return rows[i][1];
    return NULL;
}

static bool is_real(PtxType type)
{
    return type_is_float(type) || type_is_half(type);
}

static const char *integer_limits(Translator *t, PtxType type)
{
    const uint32_t bits = type_bits(type);
    if (type_is_signed(type))
        return text(t, "-((__int128)1 << %u), ((__int128)1 << %u) - 1", bits - 1, bits - 1);
    return text(t, "0, ((__int128)1 << %u) - 1", bits);
}

static const char *integer_to_integer(Translator *t, const Conversion *c)
{
    const char *a = source(t, 1, c->from);
    return t->sat ? text(t, "ptx_clamp(%s, %s)", a, integer_limits(t, c->to)) : a;
}

/* The source as float or double, flushed where the instruction says so. */
static const char *real_source(Translator *t, const Conversion *c)
{
    const char *a = source(t, 1, c->from);
    if (type_is_half(c->from))
        return half_to_float(t, c->from, a);
    return t->ftz && c->from == PTX_F32 ? text(t, "ptx_ftz_f32(%s)", a) : a;
}

static const char *real_to_integer(Translator *t, const Conversion *c)
{
    if (!c->integral)
        unknown(t, NULL);
    const bool wide = c->from == PTX_F64 || ptx_type_bytes(c->to) == 8;
    const unsigned long long nan = wide ? 1ull << (type_bits(c->to) - 1) : 0;
    return text(t, "ptx_to_%s(__builtin_%s((double)%s), (%s)UINT64_C(%llu))", c_name(c->to),
                c->integral, real_source(t, c), c_type(c->to), nan);
}

/* 'n', 'z', 'm', 'p', 'a' of .rn, .rz, .rm, .rp, .rna. */
static char mode_letter(const Conversion *c)
{
    return c->rounding[c->rounding[2] ? 2 : 1];
}

static const char *to_half(Translator *t, const Conversion *c, PtxType half, const char *x)
{
    const char mode = c->rounding ? mode_letter(c) : 'n';
    if (mode == 'n' && type_is_float(c->from))
        return float_to_half(t, half, c->from == PTX_F64, x);
    return text(t, "ptx_narrow(%s, %s, '%c')", x, half == PTX_F16 ? "10, -14" : "7, -126", mode);
}

static const char *saturated(Translator *t, PtxType type, const char *x)
{
    return t->sat ? text(t, "ptx_sat_%s(%s)", c_name(type), x) : x;
}

static const char *integer_to_real(Translator *t, const Conversion *c)
{
    const char *a = source(t, 1, c->from);
    if (!c->rounding)
        unknown(t, NULL);
    if (type_is_half(c->to)) {
        if (t->sat)
            unknown(t, NULL);
        return to_half(t, c, c->to, text(t, "(long double)%s", a));
    }
    const char *x = strcmp(c->rounding, "rn") == 0
                        ? text(t, "(%s)%s", c_type(c->to), a)
                        : text(t, "ptx_from_%c_%s_%s(%s)", type_is_signed(c->from) ? 's' : 'u',
                               c->rounding, c_name(c->to), a);
    return saturated(t, c->to, x);
}

static const char *real_to_real(Translator *t, const Conversion *c)
{
    const char *x = real_source(t, c);
    const bool wide = c->from == PTX_F64;
    if (c->integral)
        x = text(t, "__builtin_%s%s(%s)", c->integral, wide ? "" : "f", x);
    if (type_is_half(c->to)) {
        const char *half = to_half(t, c, c->to, saturated(t, wide ? PTX_F64 : PTX_F32, x));
        return t->relu ? float_to_half(t, c->to, false,
                                       text(t, "ptx_relu(%s)", half_to_float(t, c->to, half)))
                       : half;
    }
    if (t->relu)
        unknown(t, NULL);
    if (c->to == PTX_F64)
        return saturated(t, PTX_F64, text(t, "(double)%s", x));
    if (wide && c->rounding && strcmp(c->rounding, "rn") != 0)
        x = text(t, "ptx_narrow_%s_f64(%s)", c->rounding, x);
    else if (wide)
        x = text(t, "(float)%s", x);
    if (t->ftz)
        x = text(t, "ptx_ftz_f32(%s)", x);
    return saturated(t, PTX_F32, x);
}

/* cvt.rn.bf16x2.f32 d, a, b: a above b. */
static void convert_pair(Translator *t, Conversion *c)
{
    const PtxType half = type_of_lane(c->to);
    operand_count(t, 3, 3);
    if (c->from != PTX_F32 || !c->rounding || t->sat || t->ftz)
        unknown(t, NULL);
    const char *x[2] = {source(t, 2, PTX_F32), source(t, 1, PTX_F32)};
    for (int i = 0; i < 2; i++) {
        if (t->relu)
            x[i] = text(t, "ptx_relu(%s)", x[i]);
        x[i] = to_half(t, c, half, x[i]);
    }
    assign_first(t, c->to, text(t, "%s | (uint32_t)%s << 16", x[0], x[1]));
}

static void translate_cvt(Translator *t)
{
    Conversion c = {.integral = integral_word(t)};
    c.rounding = word(t, "rna") ? "rna" : rounding_word(t, NULL);
    t->ftz = word(t, "ftz");
    t->sat = word(t, "sat");
    t->relu = word(t, "relu");
    if (word(t, "tf32")) {
        type_among(t, "f32");
        if (!c.rounding || c.rounding[1] == 'm' || c.rounding[1] == 'p' || t->ftz || t->sat)
            unknown(t, NULL);
        operand_count(t, 2, 2);
        const char *x = text(t, "ptx_tf32(%s, '%c')", source(t, 1, PTX_F32), mode_letter(&c));
        assign_first(t, PTX_F32, t->relu ? text(t, "ptx_relu(%s)", x) : x);
        return;
    }
    c.to = type_word(t);
    c.from = type_word(t);
    if (c.to == PTX_PRED || c.from == PTX_PRED || type_is_pair(c.from))
        unknown(t, NULL);
    if (type_is_pair(c.to)) {
        convert_pair(t, &c);
        return;
    }
    operand_count(t, 2, 2);
    assign_first(t, c.to,
                 is_real(c.from) ? (is_real(c.to) ? real_to_real(t, &c) : real_to_integer(t, &c))
                 : is_real(c.to) ? integer_to_real(t, &c)
                                 : integer_to_integer(t, &c));
}

const TranslateRow translate_convert_rows[] = {
    {"mov", translate_mov},
    {"cvt", translate_cvt},
    {NULL, NULL},
};
