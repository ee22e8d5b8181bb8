/* translate_matrix.c - ldmatrix, mma.sync and wmma: products of small matrices by a warp.
 *
 * In: the instructions for f16, bf16 and tf32, with sums in f32 (of f16 also in f16). Out: the
 * lane's registers as arrays of words and a call of simt_matrix.h's. Whole numbers, doubles,
 * 8-bit floats and sparse matrices are unknown.
 */
#include <string.h>

#include "translate.h"

enum { FRAGMENT_MAX = 8 };

typedef struct {
    const char *name; /* of the SimElement */
    uint32_t bytes;
} Element;

/* The next modifier that nothing has taken: of these instructions, order tells what each means. */
static const char *next_word(Translator *t)
{
    for (uint32_t i = 0; i < t->i->nwords; i++)
        if (!(t->words_used >> i & 1)) {
            t->words_used |= 1u << i;
            return t->i->words[i];
        }
    unknown(t, NULL);
}

static Element element_word(Translator *t)
{
    static const struct {
        const char *word;
        Element element;
    } rows[] = {
        {"f16", {"SIM_MMA_F16", 2}}, {"bf16", {"SIM_MMA_BF16", 2}}, {"tf32", {"SIM_MMA_TF32", 4}}};
    const char *name = next_word(t);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (strcmp(rows[i].word, name) == 0)
            return rows[i].element;
    unknown(t, NULL);
}

/* The type of C or D. */
static PtxType sum_word(Translator *t)
{
    const PtxType type = ptx_type(next_word(t));
    if (type != PTX_F32 && type != PTX_F16)
        unknown(t, NULL);
    return type;
}

static void need(Translator *t, const char *modifier)
{
    if (!word(t, modifier))
        unknown(t, NULL);
}

static void need_aligned(Translator *t)
{
    need(t, "sync");
    need(t, "aligned");
}

static const PtxOperand *registers(Translator *t, uint32_t n, uint32_t count)
{
    const PtxOperand *o = operand(t, n);
    if (o->kind != PTX_OP_VECTOR || o->nitems != count)
        unknown(t, NULL);
    return o->items;
}

/* const uint32_t NAME[] = {...}; of the first `have` registers of operand n, which has `count`. */
static void emit_words(Translator *t, const char *name, uint32_t n, uint32_t count, uint32_t have)
{
    const PtxOperand *from = registers(t, n, count);
    emit(t, "    const uint32_t %s[] = {", name);
    for (uint32_t i = 0; i < have; i++)
        emit(t, "%s, ", value(t, &from[i], PTX_B32));
    emit(t, "};\n");
}

/* Operand n, `count` elements of C, as floats. */
static void emit_sums(Translator *t, uint32_t n, PtxType type, uint32_t count)
{
    const bool half = type == PTX_F16;
    const PtxOperand *from = registers(t, n, half ? count / 2 : count);
    emit(t, "    const float c[] = {");
    for (uint32_t i = 0; i < count; i++)
        emit(t, "%s, ",
             half ? half_to_float(t, type,
                                  text(t, "(uint16_t)(%s >> %u)", value(t, &from[i / 2], PTX_B32),
                                       16 * (i % 2)))
                  : value(t, &from[i], PTX_F32));
    emit(t, "};\n    float d[%u];\n", count);
}

/* What d holds into operand 0. */
static void take_sums(Translator *t, PtxType type, uint32_t count)
{
    const bool half = type == PTX_F16;
    const PtxOperand *to = registers(t, 0, half ? count / 2 : count);
    for (uint32_t i = 0; i < count && !half; i++)
        assign(t, &to[i], PTX_F32, text(t, "d[%u]", i));
    for (uint32_t i = 0; i < count / 2 && half; i++)
        assign(t, &to[i], PTX_B32,
               text(t, "%s | (uint32_t)%s << 16",
                    float_to_half(t, type, false, text(t, "d[%u]", 2 * i)),
                    float_to_half(t, type, false, text(t, "d[%u]", 2 * i + 1))));
    emit(t, "    }\n");
}

/* ------------------------------------------------------------------- ldmatrix */

static void translate_ldmatrix(Translator *t)
{
    need_aligned(t);
    need(t, "m8n8");
    const uint32_t n = word(t, "x1") ? 1 : word(t, "x2") ? 2 : word(t, "x4") ? 4 : 0;
    const bool transposed = word(t, "trans");
    const char *space = space_word(t);
    need(t, "b16");
    operand_count(t, 2, 2);
    if (n == 0 || !space)
        unknown(t, NULL);
    uint32_t bits;
    const PtxOperand *to = registers(t, 0, n);
    emit(t, "    {\n    uint32_t out[%u];\n    sim_ldmatrix(t, %s, %s, %u, %s, out, %s);\n", n,
         space, address_value(t, operand(t, 1), &bits), n, transposed ? "true" : "false", site(t));
    for (uint32_t i = 0; i < n; i++)
        assign(t, &to[i], PTX_B32, text(t, "out[%u]", i));
    emit(t, "    }\n");
}

/* ------------------------------------------------------------------------ mma */

static void translate_mma(Translator *t)
{
    need_aligned(t);
    need(t, "row");
    need(t, "col");
    const uint32_t depth = word(t, "m16n8k16")  ? 16
                           : word(t, "m16n8k8") ? 8
                           : word(t, "m16n8k4") ? 4
                                                : 0;
    const PtxType to = sum_word(t);
    const Element a = element_word(t), b = element_word(t);
    const PtxType from = sum_word(t);
    const bool in_f16 = to == PTX_F16 || from == PTX_F16;
    operand_count(t, 4, 4);
    if (strcmp(a.name, b.name) != 0 || depth * a.bytes < 16 || depth * a.bytes > 32 ||
        (in_f16 && strcmp(a.name, "SIM_MMA_F16") != 0))
        unknown(t, NULL);
    const uint32_t words = depth * a.bytes / 16; /* of B; A has twice as many */
    emit(t, "    {\n");
    emit_words(t, "a", 1, 2 * words, 2 * words);
    emit_words(t, "b", 2, words, words);
    emit_sums(t, 3, from, 4);
    emit(t, "    sim_mma(t, %s, %u, a, b, c, d, %s);\n", a.name, depth, site(t));
    take_sums(t, to, 4);
}

/* ----------------------------------------------------------------------- wmma */

typedef struct {
    const char *name;
    uint32_t m, n, k;
} Shape;

static const Shape *shape_word(Translator *t)
{
    static const Shape shapes[] = {{"m16n16k16", 16, 16, 16},
                                   {"m8n32k16", 8, 32, 16},
                                   {"m32n8k16", 32, 8, 16},
                                   {"m16n16k8", 16, 16, 8}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        if (word(t, shapes[i].name))
            return &shapes[i];
    unknown(t, NULL);
}

/* tf32 has a shape of its own. */
static void element_fits(Translator *t, const Shape *s, Element element)
{
    if ((element.bytes == 4) != (s->k == 8))
        unknown(t, NULL);
}

/* Words of a fragment that differ, and registers, of which f16 has eight whatever the shape. */
static uint32_t fragment_words(uint32_t elements, uint32_t bytes)
{
    return elements / 32 * bytes / 4;
}

static uint32_t fragment_registers(Element element, uint32_t words)
{
    return strcmp(element.name, "SIM_MMA_F16") == 0 ? FRAGMENT_MAX : words;
}

/* Takes "row" or "col": whether it is the latter. */
static bool column_major(Translator *t)
{
    const bool column = word(t, "col");
    if (!column)
        need(t, "row");
    return column;
}

/* "SimMatrix m" at an address; operand 2, if there is one, says how far its lines are apart. */
static void emit_matrix(Translator *t, const char *space, const PtxOperand *address, uint32_t rows,
                        uint32_t columns, uint32_t bytes, bool column)
{
    uint32_t bits;
    if (!space)
        unknown(t, NULL);
    const char *apart =
        t->i->noperands > 2 ? source(t, 2, PTX_U32) : text(t, "%u", column ? rows : columns);
    emit(t, "    {\n    const SimMatrix m = {%s, %s, %s, %u, %u, %u, %s};\n", space,
         address_value(t, address, &bits), apart, bytes, rows, columns, column ? "true" : "false");
}

static void wmma_load(Translator *t)
{
    const bool a = word(t, "a"), b = !a && word(t, "b");
    if (!a && !b)
        need(t, "c");
    need_aligned(t);
    const bool column = column_major(t);
    const Shape *s = shape_word(t);
    const char *space = space_word(t);
    const uint32_t rows = b ? s->k : s->m, columns = a ? s->k : s->n;
    uint32_t bytes, count, words;
    if (a || b) {
        const Element element = element_word(t);
        element_fits(t, s, element);
        bytes = element.bytes;
        words = fragment_words(rows * columns, bytes);
        count = fragment_registers(element, words);
    } else {
        bytes = ptx_type_bytes(sum_word(t));
        count = words = fragment_words(rows * columns, bytes);
    }
    operand_count(t, 2, 3);
    const PtxOperand *to = registers(t, 0, count);
    emit_matrix(t, space, operand(t, 1), rows, columns, bytes, column);
    emit(t, "    uint32_t out[%u];\n    sim_wmma_load(t, &m, out, %s);\n", words, site(t));
    for (uint32_t i = 0; i < count; i++)
        assign(t, &to[i], PTX_B32, text(t, "out[%u]", i % words));
    emit(t, "    }\n");
}

static void wmma_store(Translator *t)
{
    need(t, "d");
    need_aligned(t);
    const bool column = column_major(t);
    const Shape *s = shape_word(t);
    const char *space = space_word(t);
    const uint32_t bytes = ptx_type_bytes(sum_word(t)), words = fragment_words(256, bytes);
    operand_count(t, 2, 3);
    emit_matrix(t, space, operand(t, 0), s->m, s->n, bytes, column);
    emit_words(t, "fragment", 1, words, words);
    emit(t, "    sim_wmma_store(t, &m, fragment, %s);\n    }\n", site(t));
}

static void wmma_mma(Translator *t)
{
    need_aligned(t);
    /* The layouts of A and B: fragments have none here, but have to be the ones loaded. */
    column_major(t);
    column_major(t);
    const Shape *s = shape_word(t);
    Element element = {"SIM_MMA_F16", 2};
    const PtxType to = sum_word(t);
    const bool named = t->i->nwords == 10; /* else f16: D's type and C's alone */
    if (named) {
        element = element_word(t);
        if (strcmp(element_word(t).name, element.name) != 0 || to != PTX_F32)
            unknown(t, NULL);
    }
    const PtxType from = sum_word(t);
    element_fits(t, s, element);
    operand_count(t, 4, 4);
    if (named && from != PTX_F32)
        unknown(t, NULL);
    const uint32_t a = fragment_words(s->m * s->k, element.bytes);
    const uint32_t b = fragment_words(s->k * s->n, element.bytes);
    emit(t, "    {\n");
    emit_words(t, "a", 1, fragment_registers(element, a), a);
    emit_words(t, "b", 2, fragment_registers(element, b), b);
    emit_sums(t, 3, from, 8);
    emit(t, "    sim_wmma(t, %s, %u, %u, %u, a, b, c, d, %s);\n", element.name, s->m, s->n, s->k,
         site(t));
    take_sums(t, to, 8);
}

static void translate_wmma(Translator *t)
{
    if (word(t, "load"))
        wmma_load(t);
    else if (word(t, "store"))
        wmma_store(t);
    else if (word(t, "mma"))
        wmma_mma(t);
    else
        unknown(t, NULL);
}

const TranslateRow translate_matrix_rows[] = {
    {"ldmatrix", translate_ldmatrix},
    {"mma", translate_mma},
    {"wmma", translate_wmma},
    {NULL, NULL},
};
