/* ptx_parse.c - PTX tokens → PtxModule: directives, variables with initial values, functions.
 *
 * Names are bound in a stack of scopes; closing a scope restores what its names meant before.
 * Labels may be used before they are declared, so their uses are kept until the function's
 * end (ptx_body.c). Files are looked for first, because nvcc writes them at the end and every
 * instruction's place depends on which of its files is the user's.
 */
#include <stdlib.h>
#include <string.h>

#include "ptx.h"

enum {
    ALIGN_MAX = 4096,
    DIMENSIONS_MAX = 8,
    FILES_MAX = 1 << 16,
    INITIAL_MAX = 1 << 26,
    PARAM_MAX = 1 << 16
};
static const uint64_t BYTES_MAX = UINT64_C(1) << 36;

static const struct {
    const char *name;
    uint32_t bytes;
} TYPES[PTX_TYPES] = {
    [PTX_NONE] = {"", 0},         [PTX_PRED] = {"pred", 1},   [PTX_B8] = {"b8", 1},
    [PTX_B16] = {"b16", 2},       [PTX_B32] = {"b32", 4},     [PTX_B64] = {"b64", 8},
    [PTX_B128] = {"b128", 16},    [PTX_U8] = {"u8", 1},       [PTX_U16] = {"u16", 2},
    [PTX_U32] = {"u32", 4},       [PTX_U64] = {"u64", 8},     [PTX_S8] = {"s8", 1},
    [PTX_S16] = {"s16", 2},       [PTX_S32] = {"s32", 4},     [PTX_S64] = {"s64", 8},
    [PTX_F16] = {"f16", 2},       [PTX_F16X2] = {"f16x2", 4}, [PTX_BF16] = {"bf16", 2},
    [PTX_BF16X2] = {"bf16x2", 4}, [PTX_F32] = {"f32", 4},     [PTX_F64] = {"f64", 8},
    [PTX_U16X2] = {"u16x2", 4},   [PTX_S16X2] = {"s16x2", 4},
};

PtxType ptx_type(const char *word)
{
    for (int t = PTX_PRED; t < PTX_TYPES; t++)
        if (strcmp(TYPES[t].name, word) == 0)
            return (PtxType)t;
    return PTX_NONE;
}

uint32_t ptx_type_bytes(PtxType type)
{
    return TYPES[type].bytes;
}

const char *ptx_type_name(PtxType type)
{
    return TYPES[type].name;
}

/* --------------------------------------------------------------------- scopes */

void ptx_bind(PtxParser *parser, PtxName *name, PtxMeaning meaning, uint32_t index, uint32_t count)
{
    if (parser->depth > 0) {
        parser->hidden = ptx_grow(&parser->module->arena, parser->hidden, parser->nhidden,
                                  sizeof *parser->hidden);
        parser->hidden[parser->nhidden++] =
            (PtxHidden){name, name->meaning, name->index, name->count};
    }
    name->meaning = meaning;
    name->index = index;
    name->count = count;
}

void ptx_scope_open(PtxParser *parser)
{
    if (parser->depth == PTX_DEPTH_MAX)
        ptx_fail(parser, "braces are nested too deeply");
    parser->parents =
        ptx_grow(&parser->module->arena, parser->parents, parser->nscopes, sizeof *parser->parents);
    parser->parents[parser->nscopes] =
        parser->depth > 0 ? parser->scopes[parser->depth - 1] : UINT32_MAX;
    parser->scopes[parser->depth] = parser->nscopes++;
    parser->marks[parser->depth++] = parser->nhidden;
}

void ptx_scope_close(PtxParser *parser)
{
    const uint32_t mark = parser->marks[--parser->depth];
    while (parser->nhidden > mark) {
        const PtxHidden *h = &parser->hidden[--parser->nhidden];
        h->name->meaning = h->meaning;
        h->name->index = h->index;
        h->name->count = h->count;
    }
}

/* ------------------------------------------------------------- initial values */

typedef struct {
    PtxVariable *variable;
    uint64_t dimensions[DIMENSIONS_MAX];
    int ndimensions;
    uint32_t capacity;
} Initial;

static void store_bytes(PtxParser *parser, Initial *initial, uint64_t offset, uint64_t value,
                        uint32_t bytes)
{
    PtxVariable *v = initial->variable;
    if (offset + bytes > v->bytes || offset + bytes > INITIAL_MAX)
        ptx_fail(parser, "an initial value does not fit into %s", v->name->text);
    if (offset + bytes > initial->capacity) {
        const uint64_t twice = 2 * (offset + bytes) + 64;
        uint8_t *larger = ptx_alloc(&parser->module->arena, twice);
        if (v->initial)
            memcpy(larger, v->initial, v->initial_bytes);
        v->initial = larger;
        initial->capacity = (uint32_t)twice;
    }
    for (uint32_t i = 0; i < bytes; i++, value >>= 8)
        v->initial[offset + i] = (uint8_t)(value & 0xff);
    if (offset + bytes > v->initial_bytes)
        v->initial_bytes = offset + bytes;
}

/* "x", "generic(x)", "x+8": an address, of which the bytes that `mask` covers are kept. */
static void parse_reference(PtxParser *parser, Initial *initial, uint64_t offset, uint64_t mask)
{
    PtxVariable *v = initial->variable;
    PtxName *name = ptx_expect_name(parser);
    if (strcmp(name->text, "generic") == 0 && ptx_take_mark(parser, '(')) {
        name = ptx_expect_name(parser);
        ptx_expect(parser, ')');
    }
    uint64_t addend = 0;
    if (ptx_take_mark(parser, '+'))
        addend = ptx_expect_integer(parser);
    else if (ptx_take_mark(parser, '-'))
        addend = 0 - ptx_expect_integer(parser);
    uint32_t first = 0, bytes = ptx_type_bytes(v->type);
    while (first < 7 && mask && (mask >> 8 * first & 0xff) == 0)
        first++;
    store_bytes(parser, initial, offset, 0, bytes);
    if (bytes + first > 8)
        ptx_fail(parser, "an address does not fit into %s", v->name->text);
    v->references =
        ptx_grow(&parser->module->arena, v->references, v->nreferences, sizeof *v->references);
    v->references[v->nreferences++] = (PtxReference){name, offset, addend, first, bytes};
}

/* A float's bits as an element of the type wants them: decimal floats are doubles. */
static uint64_t float_bits(PtxTokenKind kind, uint64_t bits, PtxType type)
{
    if (kind == PTX_TOKEN_F64 && type == PTX_F32) {
        const float f = (float)ptx_double(bits);
        uint32_t narrow;
        memcpy(&narrow, &f, sizeof narrow);
        return narrow;
    }
    if (kind == PTX_TOKEN_F32 && type == PTX_F64) {
        const uint32_t narrow = (uint32_t)bits;
        float f;
        memcpy(&f, &narrow, sizeof f);
        const double d = (double)f;
        memcpy(&bits, &d, sizeof bits);
    }
    return bits;
}

static void parse_element(PtxParser *parser, Initial *initial, uint64_t offset)
{
    const PtxVariable *v = initial->variable;
    const uint32_t bytes = ptx_type_bytes(v->type);
    const bool minus = ptx_take_mark(parser, '-');
    const PtxToken token = parser->token;
    if (token.kind == PTX_TOKEN_NAME) {
        parse_reference(parser, initial, offset, 0);
    } else if (token.kind == PTX_TOKEN_F32 || token.kind == PTX_TOKEN_F64) {
        ptx_next(parser);
        uint64_t bits = float_bits(token.kind, token.value, v->type);
        if (minus)
            bits ^= UINT64_C(1) << (8 * (bytes < 8 ? bytes : 8) - 1);
        store_bytes(parser, initial, offset, bits, bytes);
    } else {
        const uint64_t value = ptx_expect_integer(parser);
        if (!minus && ptx_take_mark(parser, '(')) {
            parse_reference(parser, initial, offset, value);
            ptx_expect(parser, ')');
        } else {
            store_bytes(parser, initial, offset, minus ? 0 - value : value, bytes);
        }
    }
}

/* Elements of `bytes` bytes from `offset` on; inner braces begin an element of their level. */
static void parse_initial(PtxParser *parser, Initial *initial, int level, uint64_t offset,
                          uint64_t bytes)
{
    if (!ptx_take_mark(parser, '{')) {
        parse_element(parser, initial, offset);
        return;
    }
    uint64_t step = ptx_type_bytes(initial->variable->type);
    for (int i = level + 1; i < initial->ndimensions; i++)
        step *= initial->dimensions[i];
    const uint64_t end = offset + bytes;
    while (!ptx_is_mark(parser, '}')) {
        const bool inner = ptx_is_mark(parser, '{');
        if (inner && level + 1 >= initial->ndimensions)
            ptx_fail(parser, "braces are nested more deeply than the array");
        const uint64_t taken = inner ? step : ptx_type_bytes(initial->variable->type);
        if (offset + taken > end)
            ptx_fail(parser, "there are more values than elements");
        parse_initial(parser, initial, level + 1, offset, taken);
        offset += taken;
        if (!ptx_take_mark(parser, ','))
            break;
    }
    ptx_expect(parser, '}');
}

/* ------------------------------------------------------------------ variables */

static uint64_t parse_power_of_two(PtxParser *parser)
{
    const uint64_t value = ptx_expect_integer(parser);
    if (value == 0 || value > ALIGN_MAX || (value & (value - 1)) != 0)
        ptx_fail(parser, "an alignment is a power of two of at most %d", ALIGN_MAX);
    return value;
}

static void skip_parentheses(PtxParser *parser)
{
    int open = 0;
    do {
        open += ptx_is_mark(parser, '(') - ptx_is_mark(parser, ')');
        ptx_next(parser);
    } while (open > 0 && parser->token.kind != PTX_TOKEN_END);
}

/* .align, .ptr, .v4, the type and what else stands before the name. The alignment behind .ptr is
 * that of what a parameter points to, not its own. */
static void parse_qualifiers(PtxParser *parser, PtxVariable *v, uint32_t *lanes)
{
    bool pointer = false;
    while (parser->token.kind == PTX_TOKEN_DOT) {
        const PtxName *word = ptx_name(parser, parser->token.at, parser->token.length);
        const PtxType type = ptx_type(word->text);
        ptx_next(parser);
        if (strcmp(word->text, "align") == 0) {
            const uint32_t align = (uint32_t)parse_power_of_two(parser);
            v->align = pointer ? v->align : align;
        } else if (strcmp(word->text, "ptr") == 0) {
            pointer = true;
        } else if (strcmp(word->text, "v2") == 0 || strcmp(word->text, "v4") == 0) {
            *lanes = (uint32_t)(word->text[1] - '0');
        } else if (strcmp(word->text, "attribute") == 0) {
            skip_parentheses(parser);
        } else if (ptx_is_among(word->text, "texref samplerref surfref")) {
            v->type = PTX_B64;
        } else if (type != PTX_NONE) {
            v->type = type;
        } else if (!ptx_is_among(word->text, "global const shared local managed")) {
            ptx_fail(parser, ".%s is not understood here", word->text);
        }
    }
    if (v->type == PTX_PRED || v->type == PTX_NONE)
        ptx_fail(parser, "a type is expected");
}

static void parse_dimensions(PtxParser *parser, PtxVariable *v, Initial *initial)
{
    while (ptx_take_mark(parser, '[')) {
        uint64_t n = 0;
        if (!ptx_is_mark(parser, ']')) {
            n = ptx_expect_integer(parser);
            if (__builtin_mul_overflow(v->bytes, n, &v->bytes) || v->bytes > BYTES_MAX)
                ptx_fail(parser, "%s is too large", v->name->text);
        } else if (initial->ndimensions == 0) {
            v->bytes = 0;
        }
        if (initial->ndimensions == DIMENSIONS_MAX)
            ptx_fail(parser, "%s has too many dimensions", v->name->text);
        initial->dimensions[initial->ndimensions++] = n;
        ptx_expect(parser, ']');
    }
}

static uint32_t add_variable(PtxParser *parser, const PtxVariable *v)
{
    PtxModule *m = parser->module;
    m->variables = ptx_grow(&m->arena, m->variables, m->nvariables, sizeof *m->variables);
    m->variables[m->nvariables] = *v;
    ptx_bind(parser, v->name, PTX_VARIABLE, m->nvariables, 0);
    return m->nvariables++;
}

uint32_t ptx_parse_variable(PtxParser *parser, PtxSpace space, bool external)
{
    PtxVariable kind = {.space = space, .external = external, .function = parser->function};
    uint32_t lanes = 1, index;
    parse_qualifiers(parser, &kind, &lanes);
    do {
        PtxVariable v = kind;
        Initial initial = {.variable = &v};
        v.name = ptx_expect_name(parser);
        v.bytes = (uint64_t)ptx_type_bytes(v.type) * lanes;
        if (v.align == 0)
            v.align = (uint32_t)v.bytes;
        parse_dimensions(parser, &v, &initial);
        if (v.bytes > PARAM_MAX && space == PTX_PARAM)
            ptx_fail(parser, "parameter %s is too large", v.name->text);
        if (ptx_take_mark(parser, '='))
            parse_initial(parser, &initial, 0, 0, v.bytes);
        index = add_variable(parser, &v);
    } while (space != PTX_PARAM && ptx_take_mark(parser, ','));
    return index;
}

/* ------------------------------------------------------------------ functions */

static uint32_t *parse_params(PtxParser *parser, uint32_t *n)
{
    uint32_t *params = NULL;
    *n = 0;
    ptx_expect(parser, '(');
    while (!ptx_is_mark(parser, ')')) {
        if (!ptx_take_dot(parser, "param"))
            ptx_fail(parser, ".param is expected");
        params = ptx_grow(&parser->module->arena, params, *n, sizeof *params);
        params[(*n)++] = ptx_parse_variable(parser, PTX_PARAM, false);
        if (!ptx_take_mark(parser, ','))
            break;
    }
    ptx_expect(parser, ')');
    return params;
}

/* The product of the numbers that follow a directive like .maxntid. */
static uint64_t parse_numbers(PtxParser *parser)
{
    uint64_t product = 1;
    while (parser->token.kind == PTX_TOKEN_INTEGER) {
        const uint64_t n = ptx_expect_integer(parser);
        if (__builtin_mul_overflow(product, n, &product))
            ptx_fail(parser, "a number is too large");
        if (!ptx_take_mark(parser, ','))
            break;
    }
    return product;
}

static void parse_attributes(PtxParser *parser, PtxFunction *f)
{
    while (parser->token.kind == PTX_TOKEN_DOT) {
        const PtxName *word = ptx_name(parser, parser->token.at, parser->token.length);
        ptx_next(parser);
        if (parser->token.kind == PTX_TOKEN_STRING) {
            ptx_next(parser);
            ptx_expect(parser, ';');
            continue;
        }
        if (ptx_is_mark(parser, '('))
            skip_parentheses(parser);
        const uint64_t n = parse_numbers(parser);
        if ((strcmp(word->text, "maxntid") == 0 || strcmp(word->text, "reqntid") == 0) &&
            n <= UINT32_MAX)
            f->max_threads = (uint32_t)n;
    }
}

static uint32_t function_of(PtxParser *parser, PtxName *name)
{
    PtxModule *m = parser->module;
    if (name->meaning == PTX_FUNCTION)
        return name->index;
    m->functions = ptx_grow(&m->arena, m->functions, m->nfunctions, sizeof *m->functions);
    m->functions[m->nfunctions] = (PtxFunction){.name = name};
    return m->nfunctions++;
}

/* The scope of the parameters is opened before the function's name is known, so the name is
 * bound after it was closed. */
static void parse_function(PtxParser *parser, bool entry)
{
    PtxModule *m = parser->module;
    PtxFunction parsed = {.entry = entry};
    parser->function = (int32_t)m->nfunctions;
    ptx_scope_open(parser);
    if (ptx_is_mark(parser, '('))
        parsed.results = parse_params(parser, &parsed.nresults);
    PtxName *name = ptx_expect_name(parser);
    const uint32_t index = function_of(parser, name);
    parser->function = (int32_t)index;
    if (ptx_is_mark(parser, '('))
        parsed.params = parse_params(parser, &parsed.nparams);
    parse_attributes(parser, &parsed);
    for (uint32_t i = 0; i < parsed.nparams + parsed.nresults; i++)
        m->variables[i < parsed.nparams ? parsed.params[i] : parsed.results[i - parsed.nparams]]
            .function = (int32_t)index;
    parsed.name = name;
    if (ptx_is_mark(parser, '{')) {
        if (m->functions[index].defined)
            ptx_fail(parser, "%s is defined twice", name->text);
        parsed.defined = true;
        m->functions[index] = parsed;
        /* The body may call the function itself. */
        const PtxHidden before = {name, name->meaning, name->index, name->count};
        name->meaning = PTX_FUNCTION;
        name->index = index;
        ptx_parse_body(parser);
        name->meaning = before.meaning;
    } else {
        ptx_take_mark(parser, ';');
        if (!m->functions[index].defined)
            m->functions[index] = parsed;
    }
    ptx_scope_close(parser);
    parser->function = -1;
    ptx_bind(parser, name, PTX_FUNCTION, index, 0);
}

/* ------------------------------------------------------------------ the module */

void ptx_parse_file(PtxParser *parser)
{
    PtxModule *m = parser->module;
    const uint64_t index = ptx_expect_integer(parser);
    if (parser->token.kind != PTX_TOKEN_STRING)
        ptx_fail(parser, "a file's name is expected");
    if (index >= FILES_MAX)
        ptx_fail(parser, "the number of a file is too large");
    if (!m->files)
        m->files = ptx_alloc(&m->arena, FILES_MAX * sizeof *m->files);
    m->files[index].name = ptx_copy(parser, parser->token.at, parser->token.length);
    if (index >= m->nfiles)
        m->nfiles = (uint32_t)index + 1;
    ptx_next(parser);
    parse_numbers(parser); /* time and size */
    if (ptx_take_mark(parser, ','))
        parse_numbers(parser);
}

/* Looks for lines that begin with .file. */
static void find_files(PtxParser *parser)
{
    const char *p = parser->p, *end = parser->end;
    while (p < end) {
        while (p < end && (*p == ' ' || *p == '\t'))
            p++;
        if (end - p > 6 && memcmp(p, ".file", 5) == 0 && (p[5] == ' ' || p[5] == '\t')) {
            PtxParser there = {.module = parser->module, .p = p + 5, .end = end};
            memcpy(&there.failed, &parser->failed, sizeof there.failed);
            ptx_next(&there);
            ptx_parse_file(&there);
        }
        const char *line = memchr(p, '\n', (size_t)(end - p));
        p = line ? line + 1 : end;
    }
}

static void skip_braces(PtxParser *parser)
{
    int open = 0;
    do {
        open += ptx_is_mark(parser, '{') - ptx_is_mark(parser, '}');
        ptx_next(parser);
    } while (open > 0 && parser->token.kind != PTX_TOKEN_END);
}

static void skip_statement(PtxParser *parser)
{
    while (!ptx_is_mark(parser, ';') && parser->token.kind != PTX_TOKEN_END)
        ptx_next(parser);
    ptx_take_mark(parser, ';');
}

static void copy_token(PtxParser *parser, char *out, size_t size)
{
    const size_t n = parser->token.length < size - 1 ? parser->token.length : size - 1;
    memcpy(out, parser->token.at, n);
    out[n] = '\0';
    ptx_next(parser);
}

static void parse_directive(PtxParser *parser)
{
    PtxModule *m = parser->module;
    bool external = false;
    while (ptx_is_dot(parser, "visible") || ptx_is_dot(parser, "weak") ||
           ptx_is_dot(parser, "extern") || ptx_is_dot(parser, "common")) {
        external = external || ptx_is_dot(parser, "extern");
        ptx_next(parser);
    }
    static const struct {
        const char *word;
        PtxSpace space;
    } spaces[] = {
        {"global", PTX_GLOBAL}, {"const", PTX_CONST}, {"shared", PTX_SHARED}, {"local", PTX_LOCAL}};
    for (size_t i = 0; i < sizeof spaces / sizeof *spaces; i++)
        if (ptx_take_dot(parser, spaces[i].word)) {
            ptx_parse_variable(parser, spaces[i].space, external);
            ptx_expect(parser, ';');
            return;
        }
    if (ptx_take_dot(parser, "entry")) {
        parse_function(parser, true);
    } else if (ptx_take_dot(parser, "func")) {
        parse_function(parser, false);
    } else if (ptx_take_dot(parser, "version")) {
        copy_token(parser, m->version, sizeof m->version);
    } else if (ptx_take_dot(parser, "target")) {
        copy_token(parser, m->target, sizeof m->target);
        while (ptx_take_mark(parser, ','))
            ptx_next(parser);
    } else if (ptx_take_dot(parser, "address_size")) {
        if (ptx_expect_integer(parser) != 64)
            ptx_fail(parser, "only 64-bit addresses are simulated");
    } else if (ptx_take_dot(parser, "file")) {
        ptx_parse_file(parser);
    } else if (ptx_is_dot(parser, "section")) {
        while (!ptx_is_mark(parser, '{') && parser->token.kind != PTX_TOKEN_END)
            ptx_next(parser);
        skip_braces(parser);
    } else if (ptx_is_dot(parser, "pragma") || ptx_is_dot(parser, "alias")) {
        skip_statement(parser);
    } else {
        ptx_fail(parser, "\"%.*s\" is not understood",
                 (int)(parser->token.length < 40 ? parser->token.length : 40), parser->token.at);
    }
}

bool ptx_parse(PtxModule *module, const char *text, size_t size)
{
    PtxParser *parser = calloc(1, sizeof *parser);
    memset(module, 0, sizeof *module);
    if (!parser) {
        memcpy(module->error, "out of memory", sizeof "out of memory");
        return false;
    }
    module->arena.failed = &parser->failed;
    *parser = (PtxParser){.module = module, .p = text, .end = text + size, .line = 1};
    parser->function = -1;
    const int failed = setjmp(parser->failed);
    if (failed == 2)
        memcpy(module->error, "out of memory", sizeof "out of memory");
    if (failed == 0) {
        find_files(parser);
        ptx_next(parser);
        while (parser->token.kind != PTX_TOKEN_END)
            parse_directive(parser);
    }
    free(parser);
    module->arena.failed = NULL;
    return failed == 0;
}

void ptx_free(PtxModule *module)
{
    ptx_arena_free(&module->arena);
    memset(module, 0, sizeof *module);
}
