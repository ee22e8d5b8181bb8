/* translate_integer.c - whole numbers and bits: add mul mad div shl shf bfe lop3 prmt ...
 *
 * Sums and products are computed unsigned, and 16 bits in 32, so that nothing overflows in
 * C's sense. `carry` is the condition code's carry flag; after a subtraction, the borrow.
 */
#include <string.h>

#include "translate.h"

#define ALL "u16 s16 u32 s32 u64 s64"
#define BITS "b16 b32 b64 u16 u32 u64 s16 s32 s64"

/* The unsigned type that sums of the type are computed in. */
static PtxType sum_type(PtxType type)
{
    return ptx_type_bytes(type) < 4 ? PTX_U32 : type_unsigned(type);
}

/* An operand as unsigned number wide enough for sums; its sign is extended. */
static const char *summand(Translator *t, uint32_t n, PtxType type)
{
    return text(t, "(%s)%s", c_type(sum_type(type)), source(t, n, type));
}

static void add_or_sub_pair(Translator *t, char sign, PtxType type)
{
    const char *a = source(t, 1, type), *b = source(t, 2, type);
    assign_first(t, type,
                 text(t, "((%s %c %s) & 0xffffu) | ((%s >> 16) %c (%s >> 16)) << 16", a, sign, b, a,
                      sign, b));
}

/* The operator of add, addc and of sub, subc. */
static char sign_of(const Translator *t)
{
    return t->i->opcode[0] == 'a' ? '+' : '-';
}

static void translate_add_sub(Translator *t)
{
    const char sign = sign_of(t);
    const bool saturate = word(t, "sat"), carry = word(t, "cc");
    const PtxType type = type_among(t, ALL " u16x2 s16x2");
    operand_count(t, 3, 3);
    if (type_is_pair(type) && !saturate && !carry) {
        add_or_sub_pair(t, sign, type);
        return;
    }
    if (saturate && type != PTX_S32)
        unknown(t, NULL);
    if (carry && ptx_type_bytes(type) < 4)
        unknown(t, NULL);
    const char *a = summand(t, 1, type), *b = summand(t, 2, type);
    if (saturate) {
        assign_first(t, type,
                     text(t, "ptx_sat_s32((int64_t)%s %c %s)", source(t, 1, type), sign,
                          source(t, 2, type)));
    } else if (carry) {
        emit(t, "    {\n    const %s a = %s, b = %s;\n", c_type(sum_type(type)), a, b);
        emit(t, sign == '+' ? "    carry = (%s)(a + b) < a;\n" : "    carry = a < b;\n",
             c_type(sum_type(type)));
        assign_first(t, type, text(t, "a %c b", sign));
        emit(t, "    }\n");
    } else {
        assign_first(t, type, text(t, "%s %c %s", a, sign, b));
    }
}

/* addc, subc, and the sums of madc: a sign b sign carry. */
static void with_carry(Translator *t, char sign, bool out, PtxType type, const char *a,
                       const char *b)
{
    const bool wide = ptx_type_bytes(type) == 8;
    const char *twice = wide ? "unsigned __int128" : "uint64_t";
    emit(t, "    {\n    const %s sum = (%s)(%s)(%s) %c (%s)(%s) %c carry;\n", twice, twice,
         c_type(type_unsigned(type)), a, sign, c_type(type_unsigned(type)), b, sign);
    if (out)
        emit(t, "    carry = sum >> %u & 1;\n", type_bits(type));
    assign_first(t, type, "sum");
    emit(t, "    }\n");
}

static void translate_addc_subc(Translator *t)
{
    const bool out = word(t, "cc");
    const PtxType type = type_among(t, "u32 s32 u64 s64");
    operand_count(t, 3, 3);
    with_carry(t, sign_of(t), out, type, source(t, 1, type), source(t, 2, type));
}

/* ------------------------------------------------------------------- products */

static PtxType twice_as_wide(PtxType type)
{
    return type == PTX_U16   ? PTX_U32
           : type == PTX_S16 ? PTX_S32
           : type == PTX_U32 ? PTX_U64
                             : PTX_S64;
}

/* a * b of operands 1 and 2; `*result` is the type it has. */
static const char *product(Translator *t, PtxType *result)
{
    const bool wide = word(t, "wide"), hi = word(t, "hi");
    if (!wide && !hi && !word(t, "lo"))
        unknown(t, NULL);
    const PtxType type = type_among(t, wide ? "u16 s16 u32 s32" : ALL);
    *result = wide ? twice_as_wide(type) : type;
    const char *a = source(t, 1, type), *b = source(t, 2, type);
    if (wide) /* signs are extended first, so that the unsigned product is right */
        return text(t, "(%s)(%s)%s * (%s)%s", c_type(type_unsigned(*result)), c_type(*result), a,
                    c_type(type_unsigned(*result)), b);
    if (hi)
        return text(t, "ptx_mul_hi_%s(%s, %s)", c_name(type), a, b);
    return text(t, "(%s)%s * (%s)%s", c_type(sum_type(type)), a, c_type(sum_type(type)), b);
}

static void translate_mul(Translator *t)
{
    PtxType type;
    const char *p = product(t, &type);
    operand_count(t, 3, 3);
    assign_first(t, type, p);
}

static void translate_mad(Translator *t)
{
    const bool saturate = word(t, "sat"), carry = word(t, "cc");
    PtxType type;
    const char *p = product(t, &type);
    operand_count(t, 4, 4);
    if (saturate) {
        if (type != PTX_S32)
            unknown(t, NULL);
        assign_first(t, type, text(t, "ptx_sat_s32((int64_t)%s + %s)", p, source(t, 3, type)));
    } else if (carry) {
        emit(t, "    carry = false;\n");
        with_carry(t, '+', true, type, p, source(t, 3, type));
    } else {
        assign_first(t, type,
                     text(t, "(%s)(%s) + %s", c_type(sum_type(type)), p, summand(t, 3, type)));
    }
}

static void translate_madc(Translator *t)
{
    const bool out = word(t, "cc");
    PtxType type;
    const char *p = product(t, &type);
    operand_count(t, 4, 4);
    if (ptx_type_bytes(type) < 4)
        unknown(t, NULL);
    with_carry(t, '+', out, type, p, source(t, 3, type));
}

static const char *product_24(Translator *t, PtxType *type)
{
    const bool hi = word(t, "hi");
    if (!hi && !word(t, "lo"))
        unknown(t, NULL);
    *type = type_among(t, "u32 s32");
    return text(t, "(uint32_t)ptx_mul24(%d, %d, %s, %s)", *type == PTX_S32, hi,
                source(t, 1, PTX_U32), source(t, 2, PTX_U32));
}

static void translate_mul24(Translator *t)
{
    PtxType type;
    assign_first(t, PTX_U32, product_24(t, &type));
}

static void translate_mad24(Translator *t)
{
    const bool saturate = word(t, "sat");
    PtxType type;
    const char *p = product_24(t, &type);
    operand_count(t, 4, 4);
    if (saturate)
        unknown(t, NULL);
    assign_first(t, PTX_U32, text(t, "%s + %s", p, source(t, 3, PTX_U32)));
}

static void translate_sad(Translator *t)
{
    const PtxType type = type_among(t, ALL);
    operand_count(t, 4, 4);
    const char *a = source(t, 1, type), *b = source(t, 2, type), *c = c_type(sum_type(type));
    assign_first(t, type,
                 text(t, "%s + (%s > %s ? (%s)%s - (%s)%s : (%s)%s - (%s)%s)", summand(t, 3, type),
                      a, b, c, a, c, b, c, b, c, a));
}

static void translate_div_rem(Translator *t)
{
    const PtxType type = type_among(t, ALL);
    operand_count(t, 3, 3);
    assign_first(t, type,
                 text(t, "ptx_%s_%s(%s, %s)", t->i->opcode, c_name(type), source(t, 1, type),
                      source(t, 2, type)));
}

/* ------------------------------------------------------- signs, least, largest */

static void translate_abs(Translator *t)
{
    const PtxType type = type_among(t, "s16 s32 s64");
    operand_count(t, 2, 2);
    assign_first(t, type, text(t, "ptx_abs_%s(%s)", c_name(type), source(t, 1, type)));
}

static void translate_neg(Translator *t)
{
    const PtxType type = type_among(t, "s16 s32 s64");
    operand_count(t, 2, 2);
    assign_first(t, type, text(t, "0 - %s", summand(t, 1, type)));
}

static const char *lane(Translator *t, const char *pair, PtxType type, int shift)
{
    return text(t, "(%s)(%s >> %d)", c_type(type_of_lane(type)), pair, shift);
}

static const char *extreme(Translator *t, char sign, bool relu, PtxType type, const char *a,
                           const char *b)
{
    const char *of_two = text(t, "(%s %c %s ? %s : %s)", a, sign, b, a, b);
    return relu ? text(t, "(%s > 0 ? %s : (%s)0)", of_two, of_two, c_type(type)) : of_two;
}

static void translate_min_max(Translator *t)
{
    const char sign = strcmp(t->i->opcode, "min") == 0 ? '<' : '>';
    const bool relu = word(t, "relu");
    const PtxType type = type_among(t, ALL " u16x2 s16x2");
    operand_count(t, 3, 3);
    const char *a = source(t, 1, type), *b = source(t, 2, type);
    if (relu && type != PTX_S32 && type != PTX_S16X2)
        unknown(t, NULL);
    if (!type_is_pair(type)) {
        assign_first(t, type, extreme(t, sign, relu, type, a, b));
        return;
    }
    const PtxType one = type_of_lane(type);
    const char *low = extreme(t, sign, relu, one, lane(t, a, type, 0), lane(t, b, type, 0));
    const char *high = extreme(t, sign, relu, one, lane(t, a, type, 16), lane(t, b, type, 16));
    assign_first(t, type, text(t, "(uint16_t)%s | (uint32_t)(uint16_t)%s << 16", low, high));
}

/* ----------------------------------------------------------------------- bits */

static void translate_logic(Translator *t)
{
    const char first = t->i->opcode[0], sign = first == 'a' ? '&' : first == 'o' ? '|' : '^';
    const PtxType type = type_among(t, "pred b16 b32 b64");
    operand_count(t, 3, 3);
    assign_first(t, type, text(t, "%s %c %s", source(t, 1, type), sign, source(t, 2, type)));
}

static void translate_not(Translator *t)
{
    const PtxType type = type_among(t, "pred b16 b32 b64");
    operand_count(t, 2, 2);
    assign_first(t, type, text(t, "%c%s", type == PTX_PRED ? '!' : '~', source(t, 1, type)));
}

static void translate_cnot(Translator *t)
{
    const PtxType type = type_among(t, "b16 b32 b64");
    operand_count(t, 2, 2);
    assign_first(t, type, text(t, "%s == 0", source(t, 1, type)));
}

static void translate_shl(Translator *t)
{
    const PtxType type = type_among(t, "b16 b32 b64");
    operand_count(t, 3, 3);
    assign_first(
        t, type,
        text(t, "ptx_shl_%u(%s, %s)", type_bits(type), source(t, 1, type), source(t, 2, PTX_U32)));
}

static void translate_shr(Translator *t)
{
    PtxType type = type_among(t, BITS);
    operand_count(t, 3, 3);
    if (!type_is_signed(type))
        type = type_unsigned(type);
    assign_first(
        t, type,
        text(t, "ptx_shr_%s(%s, %s)", c_name(type), source(t, 1, type), source(t, 2, PTX_U32)));
}

static void translate_shf(Translator *t)
{
    const bool left = word(t, "l");
    if (!left && !word(t, "r"))
        unknown(t, NULL);
    const bool wrap = word(t, "wrap");
    if (!wrap && !word(t, "clamp"))
        unknown(t, NULL);
    type_among(t, "b32");
    operand_count(t, 4, 4);
    const char *n = source(t, 3, PTX_U32);
    n = wrap ? text(t, "%s & 31", n) : text(t, "%s > 32 ? 32 : %s", n, n);
    assign_first(t, PTX_B32,
                 text(t, "ptx_shf_%c(%s, %s, %s)", left ? 'l' : 'r', source(t, 1, PTX_B32),
                      source(t, 2, PTX_B32), n));
}

static void translate_lop3(Translator *t)
{
    type_among(t, "b32");
    operand_count(t, 5, 5);
    assign_first(t, PTX_B32,
                 text(t, "ptx_lop3(%s, %s, %s, %u)", source(t, 1, PTX_B32), source(t, 2, PTX_B32),
                      source(t, 3, PTX_B32), (unsigned)(constant(t, 4) & 0xff)));
}

static void translate_prmt(Translator *t)
{
    static const char *const modes[] = {"f4e", "b4e", "rc8", "ecl", "ecr", "rc16"};
    int mode = 0;
    for (int i = 0; i < 6; i++)
        if (word(t, modes[i]))
            mode = i + 1;
    type_among(t, "b32");
    operand_count(t, 4, 4);
    assign_first(t, PTX_B32,
                 text(t, "ptx_prmt(%s, %s, %s, %d)", source(t, 1, PTX_B32), source(t, 2, PTX_B32),
                      source(t, 3, PTX_B32), mode));
}

static void translate_bfe(Translator *t)
{
    const PtxType type = type_among(t, "u32 s32 u64 s64");
    operand_count(t, 4, 4);
    assign_first(t, type,
                 text(t, "ptx_bfe(%s, %s, %s, %d, %u)", source(t, 1, type_unsigned(type)),
                      source(t, 2, PTX_U32), source(t, 3, PTX_U32), type_is_signed(type),
                      type_bits(type)));
}

static void translate_bfi(Translator *t)
{
    const PtxType type = type_among(t, "b32 b64");
    operand_count(t, 5, 5);
    assign_first(t, type,
                 text(t, "ptx_bfi(%s, %s, %s, %s, %u)", source(t, 1, type), source(t, 2, type),
                      source(t, 3, PTX_U32), source(t, 4, PTX_U32), type_bits(type)));
}

static void translate_bfind(Translator *t)
{
    const bool shift = word(t, "shiftamt");
    const PtxType type = type_among(t, "u32 s32 u64 s64");
    operand_count(t, 2, 2);
    const bool is_signed = type_is_signed(type);
    assign_first(t, PTX_U32,
                 text(t, "ptx_bfind((uint64_t)%s%s, %d, %u, %d)", is_signed ? "(int64_t)" : "",
                      source(t, 1, type), is_signed, type_bits(type), shift));
}

static void translate_brev(Translator *t)
{
    const PtxType type = type_among(t, "b32 b64");
    operand_count(t, 2, 2);
    assign_first(t, type, text(t, "ptx_brev_%u(%s)", type_bits(type), source(t, 1, type)));
}

static void translate_clz(Translator *t)
{
    const PtxType type = type_among(t, "b32 b64");
    operand_count(t, 2, 2);
    assign_first(t, PTX_U32, text(t, "ptx_clz_%u(%s)", type_bits(type), source(t, 1, type)));
}

static void translate_popc(Translator *t)
{
    const PtxType type = type_among(t, "b32 b64");
    operand_count(t, 2, 2);
    assign_first(t, PTX_U32, text(t, "(uint32_t)__builtin_popcountll(%s)", source(t, 1, type)));
}

static void translate_dp4a(Translator *t)
{
    const PtxType a = type_among(t, "u32 s32"), b = type_among(t, "u32 s32");
    operand_count(t, 4, 4);
    assign_first(t, PTX_U32,
                 text(t, "ptx_dp4a(%s, %s, %s, %d, %d)", source(t, 1, PTX_U32),
                      source(t, 2, PTX_U32), source(t, 3, PTX_U32), a == PTX_S32, b == PTX_S32));
}

static void translate_dp2a(Translator *t)
{
    const bool hi = word(t, "hi");
    if (!hi && !word(t, "lo"))
        unknown(t, NULL);
    const PtxType a = type_among(t, "u32 s32"), b = type_among(t, "u32 s32");
    operand_count(t, 4, 4);
    assign_first(t, PTX_U32,
                 text(t, "ptx_dp2a(%s, %s, %s, %d, %d, %d)", source(t, 1, PTX_U32),
                      source(t, 2, PTX_U32), source(t, 3, PTX_U32), a == PTX_S32, b == PTX_S32,
                      hi ? 2 : 0));
}

static void translate_vabsdiff4(Translator *t)
{
    const bool add = word(t, "add");
    const PtxType to = type_among(t, "u32 s32"), a = type_among(t, "u32 s32"),
                  b = type_among(t, "u32 s32");
    operand_count(t, 4, 4);
    if (a != b || (to == PTX_S32 && !add))
        unknown(t, NULL);
    assign_first(t, PTX_U32,
                 text(t, "ptx_vabsdiff4(%s, %s, %s, %d, %d)", source(t, 1, PTX_U32),
                      source(t, 2, PTX_U32), source(t, 3, PTX_U32), a == PTX_S32, add));
}

const TranslateRow translate_integer_rows[] = {
    {"add", translate_add_sub},
    {"sub", translate_add_sub},
    {"addc", translate_addc_subc},
    {"subc", translate_addc_subc},
    {"mul", translate_mul},
    {"mad", translate_mad},
    {"madc", translate_madc},
    {"mul24", translate_mul24},
    {"mad24", translate_mad24},
    {"sad", translate_sad},
    {"div", translate_div_rem},
    {"rem", translate_div_rem},
    {"abs", translate_abs},
    {"neg", translate_neg},
    {"min", translate_min_max},
    {"max", translate_min_max},
    {"and", translate_logic},
    {"or", translate_logic},
    {"xor", translate_logic},
    {"not", translate_not},
    {"cnot", translate_cnot},
    {"shl", translate_shl},
    {"shr", translate_shr},
    {"shf", translate_shf},
    {"lop3", translate_lop3},
    {"prmt", translate_prmt},
    {"bfe", translate_bfe},
    {"bfi", translate_bfi},
    {"bfind", translate_bfind},
    {"brev", translate_brev},
    {"clz", translate_clz},
    {"popc", translate_popc},
    {"dp4a", translate_dp4a},
    {"dp2a", translate_dp2a},
    {"vabsdiff4", translate_vabsdiff4},
    {NULL, NULL},
};
