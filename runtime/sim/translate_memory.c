/* translate_memory.c - ld st atom red cvta cp.async isspacep prefetch.
 *
 * Every access of global, shared and local memory is one call of sim_at (simt_memory.h), which
 * checks it and says where the bytes are. Parameters are no memory: those of the kernel lie in
 * the launch's buffer, those of calls in arrays of the C function. cp.async is put off until a
 * wait for its group, the function's return or the thread's end.
 */
#include <string.h>

#include "translate.h"

typedef struct {
    const char *space; /* "SIM_SPACE_GLOBAL"; NULL: parameters */
    int strength;      /* added to read or write: 4 strong, 8 volatile */
    bool acquire, release;
    int scope; /* of fences */
} Access;

const char *space_word(Translator *t)
{
    if (word(t, "global") || word(t, "const"))
        return "SIM_SPACE_GLOBAL";
    if (word(t, "shared") || word(t, "shared::cta"))
        return "SIM_SPACE_SHARED";
    if (word(t, "local"))
        return "SIM_SPACE_LOCAL";
    if (word(t, "param") || word(t, "param::entry") || word(t, "param::func"))
        return NULL;
    return "SIM_SPACE_GENERIC";
}

/* Spaces, order, caches. Hints about caches mean nothing here; so does .nc. */
static Access access_words(Translator *t)
{
    Access a = {.space = space_word(t), .scope = 1};
    a.acquire = word(t, "acquire");
    a.release = word(t, "release");
    if (word(t, "acq_rel"))
        a.acquire = a.release = true;
    if (word(t, "relaxed") || a.acquire || a.release)
        a.strength = 4;
    else if (word(t, "volatile"))
        a.strength = 8;
    else
        word(t, "weak");
    if (word(t, "cta"))
        a.scope = 0;
    else if (word(t, "sys"))
        a.scope = 2;
    else if (!word(t, "gpu"))
        word(t, "cluster");
    static const char *const hints[] = {"nc", "ca", "cg", "cs", "cv", "lu", "wb", "wt"};
    for (size_t i = 0; i < sizeof hints / sizeof *hints; i++)
        word(t, hints[i]);
    for (uint32_t i = 0; i < t->i->nwords; i++)
        if (strncmp(t->i->words[i], "L1::", 4) == 0 || strncmp(t->i->words[i], "L2::", 4) == 0)
            t->words_used |= 1u << i;
    return a;
}

static void fence(Translator *t, bool wanted, const Access *a)
{
    if (wanted)
        emit(t, "    t->service->fence(t, %d);\n", a->scope);
}

/* sim_at(...): all accesses go through here. */
static const char *place(Translator *t, const Access *a, const PtxOperand *address, uint32_t bytes,
                         int kind)
{
    uint32_t bits;
    const char *where = address_value(t, address, &bits);
    return text(t, "sim_at(t, %s, %s, %u, %d, %s)", a->space, where, bytes, kind, site(t));
}

/* ----------------------------------------------------------------- parameters */

bool is_formal(const Translator *t, uint32_t variable)
{
    for (uint32_t i = 0; i < t->f->nparams; i++)
        if (t->f->params[i] == variable)
            return true;
    for (uint32_t i = 0; i < t->f->nresults; i++)
        if (t->f->results[i] == variable)
            return true;
    return false;
}

/* Where bytes of a parameter lie. */
static const char *param_place(Translator *t, const PtxOperand *address, uint32_t bytes)
{
    if (address->kind != PTX_OP_ADDRESS || address->nitems != 1)
        unknown(t, NULL);
    const PtxOperand *base = &address->items[0];
    if (base->kind == PTX_OP_REGISTER && t->f->entry) {
        uint32_t bits;
        const char *offset = address_value(t, address, &bits);
        return text(t, "sim_param(t, %s, %u, kernel_params, %s)", offset, bytes, site(t));
    }
    if (base->kind != PTX_OP_VARIABLE)
        unknown(t, NULL);
    const PtxVariable *v = &t->module->variables[base->index];
    const unsigned long long offset = base->value;
    if (v->space != PTX_PARAM || v->function != (int32_t)t->index || offset > v->bytes ||
        v->bytes - offset < bytes)
        unknown(t, text(t, "a parameter beyond %s", v->name->text));
    if (!is_formal(t, base->index)) {
        t->done->variables[base->index] = 1;
        return text(t, "(b%u + %llu)", variable_number(t, base->index), offset);
    }
    if (t->f->entry)
        return text(t, "(t->params + %llu)", (unsigned long long)t->offsets[base->index] + offset);
    return text(t, "(a%u + %llu)", variable_number(t, base->index), offset);
}

/* ---------------------------------------------------------------- loads, stores */

static uint32_t lanes_word(Translator *t)
{
    return word(t, "v2") ? 2 : word(t, "v4") ? 4 : 1;
}

/* The operands of a vector, or the one operand itself. */
static const PtxOperand *lanes_of(Translator *t, const PtxOperand *o, uint32_t lanes)
{
    if (o->kind != PTX_OP_VECTOR) {
        if (lanes != 1)
            unknown(t, NULL);
        return o;
    }
    if (o->nitems != lanes)
        unknown(t, NULL);
    return o->items;
}

static PtxType memory_type(Translator *t)
{
    const PtxType type = type_word(t);
    if (type == PTX_PRED || type == PTX_B128)
        unknown(t, NULL);
    return type;
}

static void translate_ld(Translator *t)
{
    const Access a = access_words(t);
    const uint32_t lanes = lanes_word(t);
    const PtxType type = memory_type(t);
    const uint32_t bytes = ptx_type_bytes(type);
    operand_count(t, 2, 3);
    const PtxOperand *to = lanes_of(t, operand(t, 0), lanes);
    if (bytes * lanes > 16)
        unknown(t, NULL);
    emit(t, "    {\n    const char *at = %s;\n",
         a.space ? place(t, &a, operand(t, 1), bytes * lanes, 1 + a.strength)
                 : param_place(t, operand(t, 1), bytes * lanes));
    for (uint32_t i = 0; i < lanes; i++)
        assign(t, &to[i], type, text(t, "ptx_load_%s(at + %u)", c_name(type), i * bytes));
    emit(t, "    }\n");
    fence(t, a.acquire, &a);
}

static void translate_st(Translator *t)
{
    const Access a = access_words(t);
    const uint32_t lanes = lanes_word(t);
    const PtxType type = memory_type(t);
    const uint32_t bytes = ptx_type_bytes(type);
    operand_count(t, 2, 3);
    const PtxOperand *from = lanes_of(t, operand(t, 1), lanes);
    if (bytes * lanes > 16 || (!a.space && t->f->entry && operand(t, 0)->nitems == 1 &&
                               operand(t, 0)->items[0].kind == PTX_OP_VARIABLE &&
                               is_formal(t, operand(t, 0)->items[0].index)))
        unknown(t, NULL);
    fence(t, a.release, &a);
    emit(t, "    {\n    char *at = %s;\n",
         a.space ? place(t, &a, operand(t, 0), bytes * lanes, 2 + a.strength)
                 : param_place(t, operand(t, 0), bytes * lanes));
    for (uint32_t i = 0; i < lanes; i++)
        emit(t, "    ptx_store_%s(at + %u, %s);\n", c_name(type), i * bytes,
             value(t, &from[i], type));
    emit(t, "    }\n");
}

/* -------------------------------------------------------------------- atomics */

static const char *half_pair_add(Translator *t, PtxType type, const char *a, const char *b)
{
    const PtxType lane = type_of_lane(type);
    const char *low = text(t, "%s + %s", half_to_float(t, lane, text(t, "(uint16_t)(%s)", a)),
                           half_to_float(t, lane, text(t, "(uint16_t)(%s)", b)));
    const char *high =
        text(t, "%s + %s", half_to_float(t, lane, text(t, "(uint16_t)((%s) >> 16)", a)),
             half_to_float(t, lane, text(t, "(uint16_t)((%s) >> 16)", b)));
    return text(t, "%s | (uint32_t)%s << 16", float_to_half(t, lane, false, low),
                float_to_half(t, lane, false, high));
}

/* What an atomic operation leaves in memory, from `old` and its operand. */
static const char *atomic_result(Translator *t, const char *op, PtxType type, uint32_t first)
{
    const char *b = source(t, first, type);
    if (strcmp(op, "cas") == 0)
        return text(t, "old == %s ? %s : old", b, source(t, first + 1, type));
    if (strcmp(op, "exch") == 0)
        return b;
    if (strcmp(op, "add") == 0) {
        if (type_is_pair(type))
            return half_pair_add(t, type, "old", b);
        if (type_is_half(type))
            return float_to_half(
                t, type, false,
                text(t, "%s + %s", half_to_float(t, type, "old"), half_to_float(t, type, b)));
        if (type_is_float(type))
            return text(t, "old + %s", b);
        return text(t, "(%s)old + %s", c_type(type_unsigned(type)), b);
    }
    if (!type_is_integer(type))
        unknown(t, NULL);
    if (strcmp(op, "min") == 0)
        return text(t, "old < %s ? old : %s", b, b);
    if (strcmp(op, "max") == 0)
        return text(t, "old > %s ? old : %s", b, b);
    if (strcmp(op, "and") == 0)
        return text(t, "old & %s", b);
    if (strcmp(op, "or") == 0)
        return text(t, "old | %s", b);
    if (strcmp(op, "xor") == 0)
        return text(t, "old ^ %s", b);
    if (strcmp(op, "inc") == 0)
        return text(t, "old >= %s ? 0 : old + 1", b);
    return text(t, "old == 0 || old > %s ? %s : old - 1", b, b);
}

static void atomic(Translator *t, bool returns)
{
    static const struct {
        const char *op, *types;
    } rows[] = {{"add", "u32 s32 u64 s64 f32 f64 f16 bf16 f16x2 bf16x2"},
                {"min", "u32 s32 u64 s64"},
                {"max", "u32 s32 u64 s64"},
                {"exch", "b32 b64 u32 s32 u64 s64 f32 f64"},
                {"cas", "b16 b32 b64 u32 s32 u64 s64"},
                {"and", "b32 b64 u32 s32 u64 s64"},
                {"or", "b32 b64 u32 s32 u64 s64"},
                {"xor", "b32 b64 u32 s32 u64 s64"},
                {"inc", "u32"},
                {"dec", "u32"}};
    const Access a = access_words(t);
    const char *op = NULL;
    PtxType type = PTX_NONE;
    for (size_t i = 0; i < sizeof rows / sizeof *rows && !op; i++)
        if (word(t, rows[i].op)) {
            op = rows[i].op;
            type = type_among(t, rows[i].types);
        }
    if (!op || !a.space)
        unknown(t, NULL);
    word(t, "noftz");
    const uint32_t first = returns ? 1 : 0;
    operand_count(t, first + (strcmp(op, "cas") == 0 ? 3 : 2),
                  first + (strcmp(op, "cas") == 0 ? 4 : 3));
    fence(t, a.release, &a);
    emit(t, "    {\n    char *at = %s;\n",
         place(t, &a, operand(t, first), ptx_type_bytes(type), 4));
    emit(t, "    const %s old = ptx_load_%s(at);\n", c_type(type), c_name(type));
    emit(t, "    ptx_store_%s(at, %s);\n", c_name(type), atomic_result(t, op, type, first + 1));
    if (returns)
        assign_first(t, type, "old");
    emit(t, "    }\n");
    fence(t, a.acquire, &a);
}

static void translate_atom(Translator *t)
{
    atomic(t, true);
}

static void translate_red(Translator *t)
{
    atomic(t, false);
}

/* ------------------------------------------------------------------ addresses */

static const char *window_word(Translator *t)
{
    if (word(t, "shared") || word(t, "shared::cta"))
        return "SIM_SHARED_WINDOW";
    if (word(t, "local"))
        return "SIM_LOCAL_WINDOW";
    if (word(t, "param") || word(t, "param::entry"))
        return "SIM_PARAM_WINDOW";
    if (word(t, "global") || word(t, "const"))
        return NULL;
    unknown(t, NULL);
}

static void translate_cvta(Translator *t)
{
    const bool to = word(t, "to");
    const char *window = window_word(t);
    type_among(t, "u64");
    operand_count(t, 2, 2);
    const char *a = source(t, 1, PTX_U64);
    assign_first(t, PTX_U64, window ? text(t, "%s %c %s", a, to ? '-' : '+', window) : a);
}

static void translate_isspacep(Translator *t)
{
    const bool global = word(t, "global");
    operand_count(t, 2, 2);
    const char *a = source(t, 1, PTX_U64);
    if (global) {
        assign_first(
            t, PTX_PRED,
            text(t, "!(%s >= SIM_SHARED_WINDOW && %s < SIM_PARAM_WINDOW + SIM_WINDOW_SPAN)", a, a));
        return;
    }
    const char *window = window_word(t);
    if (!window)
        unknown(t, NULL);
    assign_first(t, PTX_PRED, text(t, "%s - %s < SIM_WINDOW_SPAN", a, window));
}

static void translate_nothing(Translator *t)
{
    t->words_used = UINT32_MAX;
}

static void translate_createpolicy(Translator *t)
{
    t->words_used = UINT32_MAX;
    assign_first(t, PTX_B64, "0");
}

/* ------------------------------------------------------------------- cp.async */

static void copy_async(Translator *t)
{
    if (!word(t, "ca") && !word(t, "cg"))
        unknown(t, NULL);
    if (!(word(t, "shared") || word(t, "shared::cta")) || !word(t, "global"))
        unknown(t, NULL);
    const bool policy = word(t, "L2::cache_hint"); /* then it is the last operand */
    access_words(t);
    operand_count(t, policy ? 4 : 3, policy ? 5 : 4);
    const uint64_t bytes = constant(t, 2);
    if (bytes != 4 && bytes != 8 && bytes != 16)
        unknown(t, NULL);
    uint32_t bits;
    const char *to = address_value(t, operand(t, 0), &bits);
    const char *from = address_value(t, operand(t, 1), &bits);
    const char *have = text(t, "%u", (unsigned)bytes);
    if (t->i->noperands > (policy ? 4 : 3)) {
        const PtxOperand *o = operand(t, 3);
        const bool predicate = o->kind == PTX_OP_REGISTER && t->f->registers[o->index] == PTX_PRED;
        have = predicate ? text(t, "(%s ? 0 : %u)", value(t, o, PTX_PRED), (unsigned)bytes)
                         : value(t, o, PTX_U32);
    }
    emit(t, "    sim_async_add(t, &async, %s, %s, %u, %s, %s);\n", to, from, (unsigned)bytes, have,
         site(t));
}

static void translate_cp(Translator *t)
{
    if (!word(t, "async"))
        unknown(t, NULL);
    t->done->has_async = true;
    if (word(t, "commit_group"))
        emit(t, "    async.group++;\n");
    else if (word(t, "wait_group"))
        emit(t, "    sim_async_wait(t, &async, %s);\n", source(t, 0, PTX_U32));
    else if (word(t, "wait_all"))
        emit(t, "    async.group++;\n    sim_async_wait(t, &async, 0);\n");
    else
        copy_async(t);
}

/* Before a thread ends, and before a function returns. */
void emit_async_finish(Translator *t)
{
    if (t->done->has_async)
        emit(t, "    async.group++;\n    sim_async_wait(t, &async, 0);\n");
}

const TranslateRow translate_memory_rows[] = {
    {"ld", translate_ld},
    {"ldu", translate_ld},
    {"st", translate_st},
    {"atom", translate_atom},
    {"red", translate_red},
    {"cvta", translate_cvta},
    {"isspacep", translate_isspacep},
    {"prefetch", translate_nothing},
    {"prefetchu", translate_nothing},
    {"createpolicy", translate_createpolicy},
    {"cp", translate_cp},
    {NULL, NULL},
};
