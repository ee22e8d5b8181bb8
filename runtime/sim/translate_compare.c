/* translate_compare.c - setp set selp slct. */
#include <string.h>

#include "translate.h"

#define TYPES "b16 b32 b64 u16 u32 u64 s16 s32 s64 f32 f64 f16 bf16 f16x2 bf16x2"

/* The comparison is the first modifier; whatever it is, compare() knows it or not. */
static const char *comparison_word(Translator *t)
{
    if (t->i->nwords == 0)
        unknown(t, NULL);
    t->words_used |= 1;
    return t->i->words[0];
}

/* "&", "|", "^" of .and, .or, .xor; NULL. */
static const char *boolean_word(Translator *t)
{
    return word(t, "and") ? "&" : word(t, "or") ? "|" : word(t, "xor") ? "^" : NULL;
}

static const char *operand_for(Translator *t, uint32_t n, PtxType type, bool ftz, int shift)
{
    const char *x = source(t, n, type);
    if (type_is_half(type))
        x = half_to_float(t, type_of_lane(type),
                          type_is_pair(type) ? text(t, "(uint16_t)(%s >> %d)", x, shift) : x);
    const PtxType lane = type_of_lane(type);
    if (ftz && lane != PTX_BF16)
        x = text(t, "ptx_ftz_%s(%s)", lane == PTX_F16 ? "f16" : c_name(type), x);
    return x;
}

/* Operand 1 compared with operand 2; of pairs, the half at `shift`. */
static const char *compared(Translator *t, const char *comparison, PtxType type, bool ftz,
                            int shift)
{
    if (ftz && !type_is_half(type) && type != PTX_F32)
        unknown(t, NULL);
    return compare(t, comparison, type_is_half(type) ? PTX_F32 : type,
                   operand_for(t, 1, type, ftz, shift), operand_for(t, 2, type, ftz, shift));
}

static void translate_setp(Translator *t)
{
    const char *comparison = comparison_word(t), *boolean = boolean_word(t);
    const bool ftz = word(t, "ftz");
    const PtxType type = type_among(t, TYPES);
    operand_count(t, boolean ? 4 : 3, boolean ? 4 : 3);
    const PtxOperand *to = operand(t, 0);
    const bool two = to->kind == PTX_OP_PAIR, pair = type_is_pair(type);
    emit(t, "    {\n    const bool yes = %s;\n", compared(t, comparison, type, ftz, 0));
    if (two)
        emit(t, "    const bool no = %s;\n",
             pair ? compared(t, comparison, type, ftz, 16) : "!yes");
    emit(t, "    const bool with = %s;\n", boolean ? source(t, 3, PTX_PRED) : "false");
    if (!boolean)
        boolean = "|";
    assign(t, two ? &to->items[0] : to, PTX_PRED, text(t, "yes %s with", boolean));
    if (two)
        assign(t, &to->items[1], PTX_PRED, text(t, "no %s with", boolean));
    emit(t, "    }\n");
}

/* What set writes where the comparison holds. */
static const char *truth(Translator *t, PtxType type, const char *condition)
{
    switch (type_of_lane(type)) {
    case PTX_F32:
        return text(t, "(%s ? 1.0f : 0.0f)", condition);
    case PTX_F16:
        return text(t, "(%s ? 0x3c00u : 0u)", condition);
    case PTX_BF16:
        return text(t, "(%s ? 0x3f80u : 0u)", condition);
    default: /* of pairs, a mask of 16 bits for each */
        return text(t, "(%s)(%s ? -1 : 0)", c_type(type), condition);
    }
}

static void translate_set(Translator *t)
{
    const char *comparison = comparison_word(t), *boolean = boolean_word(t);
    const bool ftz = word(t, "ftz");
    const PtxType to = type_among(t, "u16 s16 u32 s32 f32 f16 bf16 f16x2 bf16x2");
    const PtxType type = type_among(t, TYPES);
    operand_count(t, boolean ? 4 : 3, boolean ? 4 : 3);
    const bool masks = type_is_pair(type) && (to == PTX_U32 || to == PTX_S32);
    if (type_is_pair(to) != type_is_pair(type) && !masks)
        unknown(t, NULL);
    const PtxType lane = masks ? PTX_U16 : to;
    const char *with = boolean ? text(t, " %s %s", boolean, source(t, 3, PTX_PRED)) : "";
    const char *low =
        truth(t, lane, text(t, "(%s%s)", compared(t, comparison, type, ftz, 0), with));
    if (type_is_pair(type))
        low = text(t, "%s | (uint32_t)%s << 16", low,
                   truth(t, lane, text(t, "(%s%s)", compared(t, comparison, type, ftz, 16), with)));
    assign_first(t, to, low);
}

static void translate_selp(Translator *t)
{
    const PtxType type = type_among(t, "b16 b32 b64 u16 u32 u64 s16 s32 s64 f32 f64");
    operand_count(t, 4, 4);
    assign_first(
        t, type,
        text(t, "%s ? %s : %s", source(t, 3, PTX_PRED), source(t, 1, type), source(t, 2, type)));
}

static void translate_slct(Translator *t)
{
    const bool ftz = word(t, "ftz");
    const PtxType type = type_among(t, "b16 b32 b64 u16 u32 u64 s16 s32 s64 f32 f64");
    const PtxType by = type_among(t, "s32 f32");
    operand_count(t, 4, 4);
    const char *c = source(t, 3, by);
    if (ftz && by == PTX_F32)
        c = text(t, "ptx_ftz_f32(%s)", c);
    assign_first(t, type, text(t, "%s >= 0 ? %s : %s", c, source(t, 1, type), source(t, 2, type)));
}

const TranslateRow translate_compare_rows[] = {
    {"setp", translate_setp}, {"set", translate_set}, {"selp", translate_selp},
    {"slct", translate_slct}, {NULL, NULL},
};
