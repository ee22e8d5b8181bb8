/* ptx_body.c - what lies between a function's braces → PtxInstructions.
 *
 * Statements are declarations, labels, .loc and instructions; inner braces are scopes of
 * names and nothing else, so that the code of a function is one flat list. Uses of labels are
 * kept with the scope they stand in and resolved at the end, innermost scope first.
 */
#include <string.h>

#include "ptx.h"

enum { REGISTERS_MAX = 1 << 20, NESTING_MAX = 8, CHAIN_MAX = 32 };

static PtxFunction *function_at_hand(PtxParser *parser)
{
    return &parser->module->functions[parser->function];
}

/* ------------------------------------------------------------------ registers */

static uint32_t add_registers(PtxParser *parser, PtxType type, uint64_t n)
{
    PtxFunction *f = function_at_hand(parser);
    if (n > REGISTERS_MAX - f->nregisters)
        ptx_fail(parser, "there are too many registers");
    for (uint64_t i = 0; i < n; i++) {
        f->registers =
            ptx_grow(&parser->module->arena, f->registers, f->nregisters, sizeof *f->registers);
        f->registers[f->nregisters++] = type;
    }
    return f->nregisters - (uint32_t)n;
}

/* ".reg .b32 %r<12>, %x;" from after .reg on. */
static void parse_registers(PtxParser *parser)
{
    if (parser->token.kind != PTX_TOKEN_DOT)
        ptx_fail(parser, "a type is expected");
    const PtxName *word = ptx_name(parser, parser->token.at, parser->token.length);
    const PtxType type = ptx_type(word->text);
    if (type == PTX_NONE)
        ptx_fail(parser, "registers of type .%s are not simulated", word->text);
    ptx_next(parser);
    do {
        PtxName *name = ptx_expect_name(parser);
        if (ptx_take_mark(parser, '<')) {
            const uint64_t n = ptx_expect_integer(parser);
            ptx_expect(parser, '>');
            if (n > REGISTERS_MAX)
                ptx_fail(parser, "there are too many registers");
            ptx_bind(parser, name, PTX_REGISTERS, add_registers(parser, type, n), (uint32_t)n);
        } else {
            ptx_bind(parser, name, PTX_REGISTER, add_registers(parser, type, 1), 0);
        }
    } while (ptx_take_mark(parser, ','));
    ptx_expect(parser, ';');
}

/* Which register "%r12" is, where %r<count> was declared. */
static bool find_in_range(PtxParser *parser, const PtxName *name, uint32_t *index)
{
    size_t n = strlen(name->text), digits = n;
    while (digits > 0 && name->text[digits - 1] >= '0' && name->text[digits - 1] <= '9')
        digits--;
    if (digits == n || digits == 0 || n - digits > 7)
        return false;
    if (n - digits > 1 && name->text[digits] == '0')
        return false;
    uint32_t number = 0;
    for (size_t i = digits; i < n; i++)
        number = number * 10 + (uint32_t)(name->text[i] - '0');
    const PtxName *range = ptx_name(parser, name->text, digits);
    *index = range->index + number;
    return range->meaning == PTX_REGISTERS && number < range->count;
}

/* --------------------------------------------------------------------- labels */

static void declare_label(PtxParser *parser, PtxName *name, uint32_t index)
{
    PtxArena *arena = &parser->module->arena;
    const uint32_t scope = parser->scopes[parser->depth - 1];
    for (const PtxLabel *l = name->labels; l; l = l->next)
        if (l->scope == scope)
            ptx_fail(parser, "label %s is declared twice", name->text);
    if (!name->labels) {
        parser->labelled = ptx_grow(arena, parser->labelled, parser->nlabelled, sizeof(PtxName *));
        parser->labelled[parser->nlabelled++] = name;
    }
    PtxLabel *label = ptx_alloc(arena, sizeof *label);
    *label = (PtxLabel){name->labels, scope, index};
    name->labels = label;
}

static void resolve_labels(PtxParser *parser)
{
    for (uint32_t i = 0; i < parser->npending; i++) {
        const PtxPending *use = &parser->pending[i];
        const PtxLabel *found = NULL;
        for (uint32_t s = use->scope; s != UINT32_MAX && !found; s = parser->parents[s])
            for (const PtxLabel *l = use->name->labels; l && !found; l = l->next)
                found = l->scope == s ? l : NULL;
        if (!found) {
            parser->token.line = use->line;
            ptx_fail(parser, "%s is not declared", use->name->text);
        }
        *use->into = found->index;
    }
    for (uint32_t i = 0; i < parser->nlabelled; i++)
        parser->labelled[i]->labels = NULL;
    parser->npending = parser->nlabelled = 0;
    parser->pending = NULL;
    parser->labelled = NULL;
}

/* ------------------------------------------------------------------- operands */

static void parse_operand(PtxParser *parser, PtxOperand *operand, int nesting);

static void parse_items(PtxParser *parser, PtxOperand *operand, char end, int nesting)
{
    while (!ptx_is_mark(parser, end)) {
        operand->items = ptx_grow(&parser->module->arena, operand->items, operand->nitems,
                                  sizeof *operand->items);
        parse_operand(parser, &operand->items[operand->nitems++], nesting + 1);
        if (!ptx_take_mark(parser, ','))
            break;
    }
    ptx_expect(parser, end);
}

/* "%tid.x": the words behind a name belong to it. */
static const char *parse_components(PtxParser *parser, const char *text)
{
    while (parser->token.kind == PTX_TOKEN_DOT) {
        text = ptx_text(&parser->module->arena, "%s.%.*s", text,
                        (int)(parser->token.length < 32 ? parser->token.length : 32),
                        parser->token.at);
        ptx_next(parser);
    }
    return text;
}

static void parse_named(PtxParser *parser, PtxOperand *operand)
{
    PtxName *name = ptx_expect_name(parser);
    operand->text = name->text;
    operand->index = name->index;
    if (name->meaning == PTX_REGISTER) {
        operand->kind = PTX_OP_REGISTER;
    } else if (name->meaning == PTX_VARIABLE) {
        operand->kind = PTX_OP_VARIABLE;
    } else if (name->meaning == PTX_FUNCTION) {
        operand->kind = PTX_OP_FUNCTION;
    } else if (find_in_range(parser, name, &operand->index)) {
        operand->kind = PTX_OP_REGISTER;
    } else if (strcmp(name->text, "WARP_SZ") == 0) {
        operand->kind = PTX_OP_INTEGER;
        operand->value = 32;
    } else if (name->text[0] == '%') {
        operand->kind = PTX_OP_SPECIAL;
    } else {
        operand->kind = PTX_OP_LABEL;
        parser->pending = ptx_grow(&parser->module->arena, parser->pending, parser->npending,
                                   sizeof *parser->pending);
        uint32_t *target = ptx_alloc(&parser->module->arena, sizeof *target);
        operand->target = target;
        parser->pending[parser->npending++] =
            (PtxPending){name, target, parser->scopes[parser->depth - 1], parser->token.line};
    }
    /* A part of a register is no register: whoever wants the value does not know it. */
    if (parser->token.kind == PTX_TOKEN_DOT)
        operand->kind = PTX_OP_SPECIAL;
    operand->text = parse_components(parser, operand->text);
}

static void parse_literal(PtxParser *parser, PtxOperand *operand)
{
    const bool minus = ptx_take_mark(parser, '-');
    const PtxToken token = parser->token;
    operand->value = token.value;
    if (token.kind == PTX_TOKEN_INTEGER) {
        operand->kind = PTX_OP_INTEGER;
        operand->value = minus ? 0 - token.value : token.value;
    } else if (token.kind == PTX_TOKEN_F32) {
        operand->kind = PTX_OP_F32;
        operand->value ^= minus ? UINT64_C(1) << 31 : 0;
    } else if (token.kind == PTX_TOKEN_F64) {
        operand->kind = PTX_OP_F64;
        operand->value ^= minus ? UINT64_C(1) << 63 : 0;
    } else {
        ptx_fail(parser, "an operand is expected");
    }
    operand->text = ptx_text(&parser->module->arena, "%s%.*s", minus ? "-" : "",
                             (int)(token.length < 40 ? token.length : 40), token.at);
    ptx_next(parser);
}

/* "+ 8" and "- 8" behind a variable or in an address. */
static void parse_offset(PtxParser *parser, PtxOperand *operand)
{
    for (;;) {
        if (ptx_take_mark(parser, '+')) {
            const bool minus = ptx_take_mark(parser, '-');
            const uint64_t n = ptx_expect_integer(parser);
            operand->value += minus ? 0 - n : n;
        } else if (ptx_take_mark(parser, '-')) {
            operand->value -= ptx_expect_integer(parser);
        } else {
            return;
        }
    }
}

static void parse_address(PtxParser *parser, PtxOperand *operand, int nesting)
{
    operand->kind = PTX_OP_ADDRESS;
    operand->text = "an address";
    parse_items(parser, operand, ']', nesting);
    if (operand->nitems == 1 && operand->items[0].kind == PTX_OP_INTEGER) {
        operand->value = operand->items[0].value;
        operand->nitems = 0;
    }
}

static void parse_operand(PtxParser *parser, PtxOperand *operand, int nesting)
{
    if (nesting > NESTING_MAX)
        ptx_fail(parser, "operands are nested too deeply");
    memset(operand, 0, sizeof *operand);
    operand->negated = ptx_take_mark(parser, '!');
    if (ptx_take_mark(parser, '[')) {
        parse_address(parser, operand, nesting);
    } else if (ptx_take_mark(parser, '{')) {
        operand->kind = PTX_OP_VECTOR;
        operand->text = "a vector";
        parse_items(parser, operand, '}', nesting);
    } else if (ptx_take_mark(parser, '(')) {
        operand->kind = PTX_OP_LIST;
        operand->text = "a list";
        parse_items(parser, operand, ')', nesting);
    } else if (ptx_take_mark(parser, '_')) {
        operand->kind = PTX_OP_SINK;
        operand->text = "_";
    } else if (parser->token.kind == PTX_TOKEN_NAME) {
        parse_named(parser, operand);
    } else {
        parse_literal(parser, operand);
    }
    /* The offset of a register belongs to the address around it: [%rd1+8]. */
    parse_offset(parser, operand);
    if (ptx_take_mark(parser, '|')) {
        PtxOperand *items = ptx_alloc(&parser->module->arena, 2 * sizeof *items);
        items[0] = *operand;
        parse_operand(parser, &items[1], nesting + 1);
        *operand = (PtxOperand){.kind = PTX_OP_PAIR, .text = "a pair", .items = items, .nitems = 2};
    }
}

/* --------------------------------------------------------------- instructions */

enum { OPERANDS_MAX = 16, WORDS_MAX = 24 };

static PtxInstruction *add_instruction(PtxParser *parser)
{
    PtxFunction *f = function_at_hand(parser);
    f->code = ptx_grow(&parser->module->arena, f->code, f->ncode, sizeof *f->code);
    PtxInstruction *i = &f->code[f->ncode++];
    *i = (PtxInstruction){.text_line = parser->token.line, .place = parser->place};
    return i;
}

static void parse_guard(PtxParser *parser, PtxInstruction *instruction)
{
    if (!ptx_take_mark(parser, '@'))
        return;
    instruction->guarded = true;
    instruction->guard_negated = ptx_take_mark(parser, '!');
    PtxOperand guard = {.kind = PTX_OP_SINK};
    if (parser->token.kind == PTX_TOKEN_NAME)
        parse_named(parser, &guard);
    if (guard.kind != PTX_OP_REGISTER ||
        function_at_hand(parser)->registers[guard.index] != PTX_PRED)
        ptx_fail(parser, "a predicate is expected");
    instruction->guard = guard.index;
}

static void *arena_copy(PtxArena *arena, const void *from, size_t size)
{
    void *copy = ptx_alloc(arena, size);
    if (size > 0)
        memcpy(copy, from, size);
    return copy;
}

static void parse_instruction(PtxParser *parser)
{
    PtxInstruction *i = add_instruction(parser);
    PtxArena *arena = &parser->module->arena;
    const char *words[WORDS_MAX];
    PtxOperand operands[OPERANDS_MAX];
    parse_guard(parser, i);
    i->opcode = ptx_expect_name(parser)->text;
    while (parser->token.kind == PTX_TOKEN_DOT) {
        if (i->nwords == WORDS_MAX)
            ptx_fail(parser, "an instruction has too many modifiers");
        words[i->nwords++] = ptx_name(parser, parser->token.at, parser->token.length)->text;
        ptx_next(parser);
    }
    while (!ptx_is_mark(parser, ';')) {
        if (i->noperands == OPERANDS_MAX)
            ptx_fail(parser, "an instruction has too many operands");
        parse_operand(parser, &operands[i->noperands++], 0);
        if (!ptx_take_mark(parser, ','))
            break;
    }
    ptx_expect(parser, ';');
    i->words = arena_copy(arena, words, i->nwords * sizeof *words);
    i->operands = arena_copy(arena, operands, i->noperands * sizeof *operands);
}

/* ----------------------------------------------------------------- statements */

/* Whether a file is the user's: reports name a line of theirs, not of a toolkit's header. */
static bool is_users_file(const PtxModule *m, uint32_t file)
{
    const char *name = file < m->nfiles ? m->files[file].name : NULL;
    if (!name || strstr(name, "/usr/include/") || strstr(name, "/targets/"))
        return false;
    const size_t n = strlen(name);
    return !(n > 2 && strcmp(name + n - 2, ".h") == 0) &&
           !(n > 4 && strcmp(name + n - 4, ".hpp") == 0);
}

static PtxLoc *loc_slot(PtxParser *parser, uint32_t file, uint32_t line, uint32_t column)
{
    const uint32_t hash = (file * 31 + line) * 31 + column;
    return &parser->locs[hash % PTX_LOCS];
}

/* The innermost place in a file of the user's, else the outermost. */
static void settle_place(PtxParser *parser, const PtxLoc *loc)
{
    uint32_t file = loc->file, line = loc->line;
    PtxLoc at = *loc;
    for (int i = 0; i < CHAIN_MAX && at.inlined && !is_users_file(parser->module, file); i++) {
        const PtxLoc *outer = loc_slot(parser, at.at_file, at.at_line, at.at_column);
        file = at.at_file;
        line = at.at_line;
        if (outer->file != at.at_file || outer->line != at.at_line || outer->column != at.at_column)
            break;
        at = *outer;
    }
    /* Line 0 is code of no line: the one before is nearer than none. */
    if (line != 0)
        parser->place = (PtxPlace){file, line};
}

static uint32_t parse_small(PtxParser *parser)
{
    return (uint32_t)ptx_expect_integer(parser);
}

static void parse_loc(PtxParser *parser)
{
    PtxLoc loc = {.file = parse_small(parser)};
    loc.line = parse_small(parser);
    loc.column = parse_small(parser);
    while (ptx_take_mark(parser, ',')) {
        const PtxName *word = ptx_expect_name(parser);
        if (strcmp(word->text, "inlined_at") == 0) {
            loc.inlined = true;
            loc.at_file = parse_small(parser);
            loc.at_line = parse_small(parser);
            loc.at_column = parse_small(parser);
        } else {
            ptx_expect_name(parser);
            if (ptx_take_mark(parser, '+'))
                ptx_expect_integer(parser);
        }
    }
    *loc_slot(parser, loc.file, loc.line, loc.column) = loc;
    settle_place(parser, &loc);
}

static void skip_to_semicolon(PtxParser *parser)
{
    while (!ptx_is_mark(parser, ';') && parser->token.kind != PTX_TOKEN_END)
        ptx_next(parser);
    ptx_expect(parser, ';');
}

static void parse_body_directive(PtxParser *parser)
{
    if (ptx_take_dot(parser, "reg")) {
        parse_registers(parser);
    } else if (ptx_take_dot(parser, "loc")) {
        parse_loc(parser);
    } else if (ptx_take_dot(parser, "file")) {
        ptx_parse_file(parser);
    } else if (ptx_is_dot(parser, "pragma") || ptx_is_dot(parser, "callprototype")) {
        skip_to_semicolon(parser);
    } else {
        const PtxSpace space = ptx_is_dot(parser, "local")    ? PTX_LOCAL
                               : ptx_is_dot(parser, "shared") ? PTX_SHARED
                               : ptx_is_dot(parser, "param")  ? PTX_PARAM
                               : ptx_is_dot(parser, "global") ? PTX_GLOBAL
                               : ptx_is_dot(parser, "const")  ? PTX_CONST
                                                              : PTX_SPACE_NONE;
        if (space == PTX_SPACE_NONE)
            ptx_fail(parser, ".%.*s is not understood here",
                     (int)(parser->token.length < 40 ? parser->token.length : 40),
                     parser->token.at);
        ptx_next(parser);
        ptx_parse_variable(parser, space, false);
        ptx_expect(parser, ';');
    }
}

/* "NAME:" and, when a list of targets or a prototype follows, that. */
static bool parse_label(PtxParser *parser)
{
    const char *p = parser->p;
    const uint32_t line = parser->line;
    const PtxToken token = parser->token;
    ptx_next(parser);
    if (!ptx_take_mark(parser, ':')) {
        parser->p = p;
        parser->line = line;
        parser->token = token;
        return false;
    }
    PtxName *name = ptx_name(parser, token.at, token.length);
    const uint32_t index = function_at_hand(parser)->nlabels++;
    declare_label(parser, name, index);
    PtxInstruction *i = add_instruction(parser);
    i->label = index;
    if (ptx_take_dot(parser, "branchtargets")) {
        i->targets = true;
        i->operands = ptx_alloc(&parser->module->arena, sizeof *i->operands);
        i->noperands = 1;
        i->operands->kind = PTX_OP_LIST;
        parse_items(parser, i->operands, ';', 0);
    } else if (ptx_is_dot(parser, "callprototype") || ptx_is_dot(parser, "calltargets")) {
        i->targets = true;
        skip_to_semicolon(parser);
    }
    return true;
}

void ptx_parse_body(PtxParser *parser)
{
    const uint32_t outside = parser->depth;
    parser->place = (PtxPlace){0, 0};
    memset(parser->locs, 0, sizeof parser->locs);
    do {
        if (parser->token.kind == PTX_TOKEN_END)
            ptx_fail(parser, "a function does not end");
        if (ptx_take_mark(parser, '{')) {
            ptx_scope_open(parser);
        } else if (ptx_take_mark(parser, '}')) {
            ptx_scope_close(parser);
        } else if (parser->token.kind == PTX_TOKEN_DOT) {
            parse_body_directive(parser);
        } else if (parser->token.kind == PTX_TOKEN_NAME && parse_label(parser)) {
            continue;
        } else if (!ptx_take_mark(parser, ';')) {
            parse_instruction(parser);
        }
    } while (parser->depth > outside);
    resolve_labels(parser);
    PtxFunction *f = function_at_hand(parser);
    for (uint32_t i = 0; i < f->ncode && f->place.line == 0; i++)
        f->place = f->code[i].place;
}
