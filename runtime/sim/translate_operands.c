/* translate_operands.c - operands as C expressions, modifiers, statements.
 *
 * A PTX register has a size and little more of a type: the same 32 bits may be added as
 * float and shifted as integer. A register is a local variable of one C type (float only
 * where PTX says so), and every use casts, or copies the bits, to the type that the
 * instruction says.
 */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "translate.h"

void unknown(Translator *t, const char *why)
{
    const PtxInstruction *i = t->i;
    const PtxFile *file =
        i && i->place.file < t->module->nfiles ? &t->module->files[i->place.file] : NULL;
    const char *what = why ? why : i ? instruction_text(t, i) : "";
    if (!t->f->entry)
        what = text(t, "%s, in %s", what, t->f->name->text);
    if (file && file->name && i->place.line)
        t->done->unknown = text(t, "%s (%s:%u)", what, file->name, i->place.line);
    else
        t->done->unknown = text(t, "%s (line %u of the PTX)", what, i ? i->text_line : 0);
    longjmp(t->unknown, 1);
}

void emit(Translator *t, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    vfprintf(t->out, format, list);
    va_end(list);
}

const char *text(Translator *t, const char *format, ...)
{
    va_list list, again;
    va_start(list, format);
    va_copy(again, list);
    char none[1];
    const int n = vsnprintf(none, sizeof none, format, list);
    char *s = ptx_alloc(&t->arena, (size_t)(n > 0 ? n : 0) + 1);
    vsnprintf(s, (size_t)(n > 0 ? n : 0) + 1, format, again);
    va_end(again);
    va_end(list);
    return s;
}

/* ------------------------------------------------------------------ modifiers */

bool word(Translator *t, const char *modifier)
{
    for (uint32_t i = 0; i < t->i->nwords; i++)
        if (!(t->words_used >> i & 1) && strcmp(t->i->words[i], modifier) == 0) {
            t->words_used |= 1u << i;
            return true;
        }
    return false;
}

PtxType type_word(Translator *t)
{
    for (uint32_t i = 0; i < t->i->nwords; i++) {
        const PtxType type = ptx_type(t->i->words[i]);
        if (!(t->words_used >> i & 1) && type != PTX_NONE) {
            t->words_used |= 1u << i;
            return type;
        }
    }
    unknown(t, NULL);
}

PtxType type_among(Translator *t, const char *types)
{
    const PtxType type = type_word(t);
    if (ptx_is_among(ptx_type_name(type), types))
        return type;
    unknown(t, NULL);
}

const char *rounding_word(Translator *t, const char *otherwise)
{
    static const char *const modes[] = {"rn", "rz", "rm", "rp"};
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
        if (word(t, modes[i]))
            return modes[i];
    return otherwise;
}

/* ---------------------------------------------------------------------- types */

static const struct {
    const char *type, *name;
} C_TYPES[PTX_TYPES] = {
    [PTX_NONE] = {"void", ""},          [PTX_PRED] = {"bool", "u8"},
    [PTX_B8] = {"uint8_t", "u8"},       [PTX_B16] = {"uint16_t", "u16"},
    [PTX_B32] = {"uint32_t", "u32"},    [PTX_B64] = {"uint64_t", "u64"},
    [PTX_B128] = {"void", ""},          [PTX_U8] = {"uint8_t", "u8"},
    [PTX_U16] = {"uint16_t", "u16"},    [PTX_U32] = {"uint32_t", "u32"},
    [PTX_U64] = {"uint64_t", "u64"},    [PTX_S8] = {"int8_t", "s8"},
    [PTX_S16] = {"int16_t", "s16"},     [PTX_S32] = {"int32_t", "s32"},
    [PTX_S64] = {"int64_t", "s64"},     [PTX_F16] = {"uint16_t", "u16"},
    [PTX_F16X2] = {"uint32_t", "u32"},  [PTX_BF16] = {"uint16_t", "u16"},
    [PTX_BF16X2] = {"uint32_t", "u32"}, [PTX_F32] = {"float", "f32"},
    [PTX_F64] = {"double", "f64"},      [PTX_U16X2] = {"uint32_t", "u32"},
    [PTX_S16X2] = {"uint32_t", "u32"},
};

const char *c_type(PtxType type)
{
    return C_TYPES[type].type;
}

const char *c_name(PtxType type)
{
    return C_TYPES[type].name;
}

uint32_t type_bits(PtxType type)
{
    return ptx_type_bytes(type) * 8;
}

bool type_is_float(PtxType type)
{
    return type == PTX_F32 || type == PTX_F64;
}

bool type_is_half(PtxType type)
{
    return type == PTX_F16 || type == PTX_BF16 || type == PTX_F16X2 || type == PTX_BF16X2;
}

bool type_is_pair(PtxType type)
{
    return type == PTX_F16X2 || type == PTX_BF16X2 || type == PTX_U16X2 || type == PTX_S16X2;
}

bool type_is_signed(PtxType type)
{
    return type >= PTX_S8 && type <= PTX_S64;
}

bool type_is_integer(PtxType type)
{
    return type >= PTX_B8 && type <= PTX_S64 && type != PTX_B128;
}

PtxType type_of_lane(PtxType pair)
{
    return pair == PTX_F16X2    ? PTX_F16
           : pair == PTX_BF16X2 ? PTX_BF16
           : pair == PTX_U16X2  ? PTX_U16
           : pair == PTX_S16X2  ? PTX_S16
                                : pair;
}

static PtxType type_of_bytes(uint32_t bytes, PtxType of_one)
{
    return (PtxType)((int)of_one + (bytes == 1 ? 0 : bytes == 2 ? 1 : bytes == 4 ? 2 : 3));
}

PtxType type_unsigned(PtxType type)
{
    return type_of_bytes(ptx_type_bytes(type), PTX_U8);
}

PtxType type_signed(PtxType type)
{
    return type_of_bytes(ptx_type_bytes(type), PTX_S8);
}

/* ------------------------------------------------------------------- operands */

const PtxOperand *operand(Translator *t, uint32_t n)
{
    if (n >= t->i->noperands)
        unknown(t, NULL);
    return &t->i->operands[n];
}

void operand_count(Translator *t, uint32_t least, uint32_t most)
{
    if (t->i->noperands < least || t->i->noperands > most)
        unknown(t, NULL);
}

/* "f12": the local variable. */
static const char *register_name(Translator *t, uint32_t index)
{
    static const char letters[PTX_TYPES] = {
        [PTX_PRED] = 'p', [PTX_B8] = 'c',  [PTX_U8] = 'c',  [PTX_S8] = 'c',   [PTX_B16] = 'h',
        [PTX_U16] = 'h',  [PTX_S16] = 'h', [PTX_F16] = 'h', [PTX_BF16] = 'h', [PTX_F32] = 'f',
        [PTX_F64] = 'd',  [PTX_B64] = 'l', [PTX_U64] = 'l', [PTX_S64] = 'l'};
    const PtxType type = t->f->registers[index];
    t->done->registers[index] = 1;
    if (type == PTX_B128)
        unknown(t, "registers of 128 bits");
    return text(t, "%c%u", letters[type] ? letters[type] : 'r', index);
}

static const char *register_value(Translator *t, const PtxOperand *o, PtxType type)
{
    const PtxType has = t->f->registers[o->index];
    const char *name = register_name(t, o->index);
    if ((has == PTX_PRED) != (type == PTX_PRED) || ptx_type_bytes(type) > ptx_type_bytes(has))
        unknown(t, NULL);
    if (type == PTX_PRED)
        return o->negated ? text(t, "!%s", name) : name;
    if (type == has)
        return type_is_float(type) ? name : text(t, "(%s)%s", c_type(type), name);
    if (type_is_float(type)) {
        if (ptx_type_bytes(type) != ptx_type_bytes(has))
            unknown(t, NULL);
        return text(t, "ptx_%s_from(%s)", c_name(type), name);
    }
    if (type_is_float(has))
        return text(t, "(%s)ptx_%s_bits(%s)", c_type(type), c_name(has), name);
    return text(t, "(%s)%s", c_type(type), name);
}

static const char *literal_value(Translator *t, const PtxOperand *o, PtxType type)
{
    uint64_t bits = o->value;
    if (type == PTX_F32 && o->kind == PTX_OP_F64) {
        const float f = (float)ptx_double(bits);
        uint32_t u;
        memcpy(&u, &f, sizeof u);
        bits = u;
    }
    /* Whole numbers are no floats, nor is a float of one size one of another. */
    const bool fits =
        o->kind == PTX_OP_INTEGER
            ? bits == 0 || type_is_pair(type) || !(type_is_float(type) || type_is_half(type))
            : type == PTX_F32 || type_bits(type) == (o->kind == PTX_OP_F32 ? 32 : 64);
    if (!fits)
        unknown(t, NULL);
    if (type == PTX_PRED)
        return (bits != 0) != o->negated ? "true" : "false";
    if (type == PTX_F32)
        return text(t, "ptx_f32_from(0x%08xu)", (unsigned)bits);
    if (type == PTX_F64)
        return text(t, "ptx_f64_from(UINT64_C(0x%016llx))", (unsigned long long)bits);
    const uint32_t bytes = ptx_type_bytes(type);
    if (bytes < 8)
        bits &= (UINT64_C(1) << 8 * bytes) - 1;
    return text(t, bytes == 8 ? "(%s)UINT64_C(0x%llx)" : "(%s)0x%llxu", c_type(type),
                (unsigned long long)bits);
}

static const char *special_value(Translator *t, const PtxOperand *o, PtxType type)
{
    static const struct {
        const char *name, *expression;
    } specials[] = {
        {"%tid.x", "t->tid[0]"},
        {"%tid.y", "t->tid[1]"},
        {"%tid.z", "t->tid[2]"},
        {"%ntid.x", "t->ntid[0]"},
        {"%ntid.y", "t->ntid[1]"},
        {"%ntid.z", "t->ntid[2]"},
        {"%ctaid.x", "t->ctaid[0]"},
        {"%ctaid.y", "t->ctaid[1]"},
        {"%ctaid.z", "t->ctaid[2]"},
        {"%nctaid.x", "t->nctaid[0]"},
        {"%nctaid.y", "t->nctaid[1]"},
        {"%nctaid.z", "t->nctaid[2]"},
        {"%laneid", "t->lane"},
        {"%warpid", "t->warp"},
        {"%nwarpid", "((t->ntid[0] * t->ntid[1] * t->ntid[2] + 31) / 32)"},
        {"%smid", "0u"},
        {"%nsmid", "1u"},
        {"%gridid", "0u"},
        {"%clock", "t->service->clock(t)"},
        {"%clock_hi", "(t->service->clock(t) >> 32)"},
        {"%clock64", "t->service->clock(t)"},
        {"%globaltimer", "t->service->clock(t)"},
        {"%globaltimer_lo", "t->service->clock(t)"},
        {"%globaltimer_hi", "(t->service->clock(t) >> 32)"},
        {"%lanemask_eq", "(1u << t->lane)"},
        {"%lanemask_lt", "((1u << t->lane) - 1)"},
        {"%lanemask_le", "((2u << t->lane) - 1)"},
        {"%lanemask_gt", "~((2u << t->lane) - 1)"},
        {"%lanemask_ge", "~((1u << t->lane) - 1)"},
        {"%dynamic_smem_size", "t->dynamic_shared_bytes"},
        /* Memory that the system keeps for itself: whoever uses it is told. */
        {"%reserved_smem_offset_begin", "(SIM_WINDOW_SPAN - 1024)"},
        {"%reserved_smem_offset_0", "(SIM_WINDOW_SPAN - 1024)"},
        {"%reserved_smem_offset_1", "(SIM_WINDOW_SPAN - 512)"},
        {"%reserved_smem_offset_end", "SIM_WINDOW_SPAN"},
        {"%total_smem_size", "(t->dynamic_shared_offset + t->dynamic_shared_bytes)"},
    };
    const char *name = o->text;
    for (size_t i = 0; i < sizeof specials / sizeof *specials; i++)
        if (strcmp(specials[i].name, name) == 0)
            return text(t, "(%s)%s", c_type(type), specials[i].expression);
    /* Before: names that were neither declared nor are PTX's own. */
    unknown(t, text(t, "%s", name));
}

/* A variable's address in its own space. */
static const char *variable_address(Translator *t, const PtxOperand *o)
{
    const PtxVariable *v = &t->module->variables[o->index];
    const unsigned long long add = o->value;
    if (v->external && v->space != PTX_SHARED)
        unknown(t, text(t, "%s, which another file defines,", v->name->text));
    t->done->variables[o->index] = 1;
    if (v->space == PTX_GLOBAL || v->space == PTX_CONST)
        return text(t, "(g%u + UINT64_C(%llu))", variable_number(t, o->index), add);
    if (v->space == PTX_SHARED && (v->external || v->bytes == 0))
        return text(t, "(t->dynamic_shared_offset + UINT64_C(%llu))", add);
    if (v->space == PTX_SHARED)
        return text(t, "(s%u + UINT64_C(%llu))", variable_number(t, o->index), add);
    if (v->space == PTX_LOCAL && v->function == (int32_t)t->index)
        return text(t, "(frame + UINT64_C(%llu))", (unsigned long long)t->offsets[o->index] + add);
    if (v->space == PTX_PARAM && t->f->entry)
        for (uint32_t i = 0; i < t->f->nparams; i++)
            if (t->f->params[i] == o->index)
                return text(t, "UINT64_C(%llu)", (unsigned long long)t->offsets[o->index] + add);
    if (v->space == PTX_PARAM && !t->f->entry && is_formal(t, o->index)) {
        if (!t->done->placed[o->index])
            t->offsets[o->index] = frame_add(t, t->index, v->bytes, v->align);
        t->done->placed[o->index] = 1;
        return text(t, "(frame + UINT64_C(%llu))", (unsigned long long)t->offsets[o->index] + add);
    }
    unknown(t, text(t, "the address of %s", v->name->text));
}

const char *value(Translator *t, const PtxOperand *o, PtxType type)
{
    if (o->negated && type != PTX_PRED)
        unknown(t, NULL);
    switch (o->kind) {
    case PTX_OP_REGISTER:
        if (o->value != 0)
            unknown(t, NULL);
        return register_value(t, o, type);
    case PTX_OP_INTEGER:
    case PTX_OP_F32:
    case PTX_OP_F64:
        return literal_value(t, o, type);
    case PTX_OP_SPECIAL:
        if (type_is_float(type) || type == PTX_PRED)
            unknown(t, NULL);
        return special_value(t, o, type);
    case PTX_OP_VARIABLE:
        if (type_is_float(type) || type == PTX_PRED)
            unknown(t, NULL);
        return text(t, "(%s)%s", c_type(type), variable_address(t, o));
    default:
        unknown(t, NULL);
    }
}

const char *source(Translator *t, uint32_t n, PtxType type)
{
    return value(t, operand(t, n), type);
}

/* The address between brackets; `bits` says how wide its register is. */
const char *address_value(Translator *t, const PtxOperand *o, uint32_t *bits)
{
    *bits = 64;
    if (o->kind != PTX_OP_ADDRESS || o->nitems > 1)
        unknown(t, NULL);
    if (o->nitems == 0)
        return text(t, "UINT64_C(%llu)", (unsigned long long)o->value);
    const PtxOperand *base = &o->items[0];
    if (base->kind == PTX_OP_VARIABLE)
        return variable_address(t, base);
    if (base->kind != PTX_OP_REGISTER || type_is_float(t->f->registers[base->index]))
        unknown(t, NULL);
    const char *name = register_name(t, base->index);
    if (t->f->registers[base->index] == PTX_PRED)
        unknown(t, NULL);
    *bits = type_bits(t->f->registers[base->index]);
    if (base->value == 0)
        return name;
    if (*bits == 64)
        return text(t, "%s + UINT64_C(%lld)", name, (long long)base->value);
    return text(t, "(uint32_t)(%s + UINT32_C(%u))", name, (unsigned)base->value);
}

void assign(Translator *t, const PtxOperand *o, PtxType type, const char *expression)
{
    if (o->kind == PTX_OP_SINK)
        return;
    if (o->kind != PTX_OP_REGISTER || o->negated || o->value != 0)
        unknown(t, NULL);
    const PtxType has = t->f->registers[o->index];
    const char *name = register_name(t, o->index);
    if ((has == PTX_PRED) != (type == PTX_PRED) || ptx_type_bytes(has) < ptx_type_bytes(type))
        unknown(t, NULL);
    if (has == type && (type_is_float(type) || type == PTX_PRED))
        emit(t, "    %s = %s;\n", name, expression);
    else if (type_is_float(type) && type_is_integer(has))
        emit(t, "    %s = ptx_%s_bits(%s);\n", name, c_name(type), expression);
    else if (type_is_float(has) && ptx_type_bytes(has) == ptx_type_bytes(type))
        emit(t, "    %s = ptx_%s_from((%s)(%s));\n", name, c_name(has), c_type(type_unsigned(has)),
             expression);
    else if (type_is_float(has) || type_is_float(type))
        unknown(t, NULL);
    else
        emit(t, "    %s = (%s)(%s)(%s);\n", name, c_type(type_unsigned(has)), c_type(type),
             expression);
}

void assign_first(Translator *t, PtxType type, const char *expression)
{
    assign(t, operand(t, 0), type, expression);
}

uint64_t constant(Translator *t, uint32_t n)
{
    const PtxOperand *o = operand(t, n);
    if (o->kind != PTX_OP_INTEGER)
        unknown(t, NULL);
    return o->value;
}

/* --------------------------------------------------------------------- halves */

const char *half_to_float(Translator *t, PtxType half, const char *expression)
{
    return text(t, "float_of_%s(%s)", half == PTX_F16 ? "half" : "bfloat", expression);
}

const char *float_to_half(Translator *t, PtxType half, bool from_double, const char *expression)
{
    return text(t, "%s_of_%s(%s)", half == PTX_F16 ? "half" : "bfloat",
                from_double ? "double" : "float", expression);
}

/* Comparisons of floats are false with a NaN, those that end in u true: the opposite's not. */
const char *compare(Translator *t, const char *comparison, PtxType type, const char *a,
                    const char *b)
{
    static const struct {
        const char *name, *operator;
        char kinds; /* 'a'll, 'u'nsigned or bits, 'f'loats, negated */
    } rows[] = {
        {"eq", "==", 'a'}, {"lt", "<", 'a'},   {"le", "<=", 'a'}, {"gt", ">", 'a'},
        {"ge", ">=", 'a'}, {"lo", "<", 'u'},   {"ls", "<=", 'u'}, {"hi", ">", 'u'},
        {"hs", ">=", 'u'}, {"ltu", ">=", 'f'}, {"leu", ">", 'f'}, {"gtu", "<=", 'f'},
        {"geu", "<", 'f'}, {"neu", "==", 'f'},
    };
    const bool real = type_is_float(type);
    if (strcmp(comparison, "ne") == 0)
        return real ? text(t, "(%s < %s || %s > %s)", a, b, a, b) : text(t, "(%s != %s)", a, b);
    if (strcmp(comparison, "equ") == 0 && real)
        return text(t, "!(%s < %s || %s > %s)", a, b, a, b);
    if (strcmp(comparison, "num") == 0 && real)
        return text(t, "(%s == %s && %s == %s)", a, a, b, b);
    if (strcmp(comparison, "nan") == 0 && real)
        return text(t, "(%s != %s || %s != %s)", a, a, b, b);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char kinds = rows[i].kinds;
        const bool fits = kinds == 'a' || (kinds == 'f' && real) ||
                          (kinds == 'u' && !real && !type_is_signed(type));
        if (strcmp(rows[i].name, comparison) == 0 && fits)
            return text(t, "%s(%s %s %s)", kinds == 'f' ? "!" : "", a, rows[i].operator, b);
    }
    unknown(t, NULL);
}
