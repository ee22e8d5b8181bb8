/* ptx_lex.c - PTX text → tokens; the arena; names.
 *
 * The text is `size` bytes that need not end in a zero; nothing behind them is read. Every
 * word becomes one PtxName for the whole module, found by hash, so that scopes are a matter
 * of what a name means now. Failures leave through longjmp: all memory is the arena's.
 */
#include <locale.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ptx.h"

enum { CHUNK = 1 << 18, BUCKETS = 1 << 14 };
static const size_t TOTAL_MAX = (size_t)3 << 30;

struct PtxChunk {
    PtxChunk *next;
    max_align_t data[];
};

void *ptx_alloc(PtxArena *arena, size_t size)
{
    const size_t unit = sizeof(max_align_t);
    if (size > TOTAL_MAX - arena->total)
        longjmp(*arena->failed, 2);
    size = (size + unit - 1) / unit * unit;
    if (!arena->chunks || size > arena->size - arena->used) {
        const size_t room = size > CHUNK ? size : CHUNK;
        PtxChunk *chunk = malloc(sizeof *chunk + room);
        if (!chunk)
            longjmp(*arena->failed, 2);
        chunk->next = arena->chunks;
        arena->chunks = chunk;
        arena->used = 0;
        arena->size = room;
    }
    void *at = (char *)arena->chunks->data + arena->used;
    arena->used += size;
    arena->total += size;
    memset(at, 0, size);
    return at;
}

/* Arrays double at powers of two, so that nothing but n has to be kept. */
void *ptx_grow(PtxArena *arena, void *array, uint32_t n, size_t element)
{
    if (n != 0 && (n < 4 || (n & (n - 1)) != 0))
        return array;
    if (n == 0)
        return ptx_alloc(arena, 4 * element);
    void *larger = ptx_alloc(arena, 2 * (size_t)n * element);
    memcpy(larger, array, n * element);
    return larger;
}

char *ptx_text(PtxArena *arena, const char *format, ...)
{
    va_list list, again;
    va_start(list, format);
    va_copy(again, list);
    char none[1];
    const int n = vsnprintf(none, sizeof none, format, list);
    if (n < 0)
        longjmp(*arena->failed, 2);
    char *text = ptx_alloc(arena, (size_t)n + 1);
    vsnprintf(text, (size_t)n + 1, format, again);
    va_end(again);
    va_end(list);
    return text;
}

void ptx_arena_free(PtxArena *arena)
{
    for (PtxChunk *c = arena->chunks, *next; c; c = next) {
        next = c->next;
        free(c);
    }
    memset(arena, 0, sizeof *arena);
}

void ptx_fail(PtxParser *parser, const char *format, ...)
{
    PtxModule *m = parser->module;
    const int n = snprintf(m->error, sizeof m->error, "line %u: ", parser->token.line);
    va_list list;
    va_start(list, format);
    vsnprintf(m->error + n, sizeof m->error - (size_t)n, format, list);
    va_end(list);
    longjmp(parser->failed, 1);
}

/* ---------------------------------------------------------------------- names */

PtxName *ptx_name(PtxParser *parser, const char *text, size_t length)
{
    PtxModule *m = parser->module;
    if (!m->buckets)
        m->buckets = ptx_alloc(&m->arena, BUCKETS * sizeof *m->buckets);
    uint64_t hash = 1469598103934665603u;
    for (size_t i = 0; i < length; i++)
        hash = (hash ^ (unsigned char)text[i]) * 1099511628211u;
    PtxName **bucket = &m->buckets[(hash ^ hash >> 32) % BUCKETS];
    for (PtxName *n = *bucket; n; n = n->next)
        if (strncmp(n->text, text, length) == 0 && n->text[length] == '\0')
            return n;
    PtxName *name = ptx_alloc(&m->arena, sizeof *name);
    name->text = ptx_copy(parser, text, length);
    name->next = *bucket;
    return *bucket = name;
}

char *ptx_copy(PtxParser *parser, const char *text, size_t length)
{
    char *copy = ptx_alloc(&parser->module->arena, length + 1);
    memcpy(copy, text, length);
    return copy;
}

bool ptx_is_among(const char *word, const char *list)
{
    const size_t n = strlen(word);
    for (const char *at = strstr(list, word); n > 0 && at; at = strstr(at + 1, word))
        if ((at == list || at[-1] == ' ') && (at[n] == ' ' || at[n] == '\0'))
            return true;
    return false;
}

double ptx_double(uint64_t bits)
{
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* --------------------------------------------------------------------- tokens */

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_follow(char c)
{
    return is_letter(c) || is_digit(c) || c == '_' || c == '$';
}

static int digit_value(char c)
{
    if (is_digit(c))
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : 99;
}

static char char_at(const PtxParser *parser, size_t ahead)
{
    return (size_t)(parser->end - parser->p) > ahead ? parser->p[ahead] : '\0';
}

static void skip_blanks(PtxParser *parser)
{
    for (;;) {
        const char c = char_at(parser, 0);
        if (c == '\n')
            parser->line++;
        if (c == ' ' || c == '\t' || c == '\r' || c == '\n') {
            parser->p++;
        } else if (c == '/' && char_at(parser, 1) == '/') {
            while (parser->p < parser->end && *parser->p != '\n')
                parser->p++;
        } else if (c == '/' && char_at(parser, 1) == '*') {
            for (parser->p += 2; parser->p < parser->end; parser->p++) {
                if (*parser->p == '\n')
                    parser->line++;
                if (*parser->p == '*' && char_at(parser, 1) == '/')
                    break;
            }
            parser->p += parser->p < parser->end ? 2 : 0;
        } else {
            return;
        }
    }
}

/* The digits of a base from here on; how many there were. */
static int lex_digits(PtxParser *parser, unsigned base, uint64_t *value)
{
    int n = 0;
    *value = 0;
    for (; digit_value(char_at(parser, 0)) < (int)base; n++)
        *value = *value * base + (uint64_t)digit_value(*parser->p++);
    return n;
}

static void lex_exact_float(PtxParser *parser, PtxTokenKind kind, int digits)
{
    parser->p += 2;
    if (lex_digits(parser, 16, &parser->token.value) != digits)
        ptx_fail(parser, "a hexadecimal float of %d digits is expected", digits);
    parser->token.kind = kind;
}

/* Whatever the program has made of its locale: a point is a point. */
static double read_double(const char *text)
{
    static locale_t plain;
    if (!plain)
        plain = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    return plain ? strtod_l(text, NULL, plain) : strtod(text, NULL);
}

/* "12", "12.5e3": decimal floats are doubles. */
static void lex_decimal(PtxParser *parser)
{
    char text[64];
    size_t n = 0;
    bool real = false;
    for (;; n++) {
        const char c = char_at(parser, n);
        const bool sign =
            (c == '-' || c == '+') && n > 0 && (parser->p[n - 1] == 'e' || parser->p[n - 1] == 'E');
        if (!is_digit(c) && c != '.' && c != 'e' && c != 'E' && !sign)
            break;
        real = real || !is_digit(c);
        if (n + 1 >= sizeof text)
            ptx_fail(parser, "a number is too long");
        text[n] = c;
    }
    text[n] = '\0';
    if (real) {
        const double value = read_double(text);
        memcpy(&parser->token.value, &value, sizeof value);
        parser->token.kind = PTX_TOKEN_F64;
        parser->p += n;
        return;
    }
    lex_digits(parser, 10, &parser->token.value);
}

static void lex_number(PtxParser *parser)
{
    const char c = char_at(parser, 1);
    const bool zero = char_at(parser, 0) == '0';
    parser->token.kind = PTX_TOKEN_INTEGER;
    if (zero && (c == 'f' || c == 'F')) {
        lex_exact_float(parser, PTX_TOKEN_F32, 8);
    } else if (zero && (c == 'd' || c == 'D')) {
        lex_exact_float(parser, PTX_TOKEN_F64, 16);
    } else if (zero && (c == 'x' || c == 'X' || c == 'b' || c == 'B')) {
        parser->p += 2;
        if (lex_digits(parser, c == 'x' || c == 'X' ? 16 : 2, &parser->token.value) == 0)
            ptx_fail(parser, "digits are expected");
    } else if (zero && is_digit(c)) {
        lex_digits(parser, 8, &parser->token.value);
    } else {
        lex_decimal(parser);
    }
    if (char_at(parser, 0) == 'U')
        parser->p++;
}

static void lex_word(PtxParser *parser)
{
    parser->token.kind = PTX_TOKEN_NAME;
    parser->p++;
    while (is_follow(char_at(parser, 0)))
        parser->p++;
}

static void lex_dot(PtxParser *parser)
{
    parser->token.kind = PTX_TOKEN_DOT;
    parser->token.at = ++parser->p;
    while (is_follow(char_at(parser, 0)) ||
           (char_at(parser, 0) == ':' && char_at(parser, 1) == ':'))
        parser->p += char_at(parser, 0) == ':' ? 2 : 1;
}

static void lex_string(PtxParser *parser)
{
    parser->token.kind = PTX_TOKEN_STRING;
    parser->token.at = ++parser->p;
    while (parser->p < parser->end && *parser->p != '"' && *parser->p != '\n')
        parser->p++;
    parser->token.length = (size_t)(parser->p - parser->token.at);
    if (char_at(parser, 0) != '"')
        ptx_fail(parser, "a string does not end");
    parser->p++;
}

void ptx_next(PtxParser *parser)
{
    skip_blanks(parser);
    parser->token = (PtxToken){.kind = PTX_TOKEN_END, .at = parser->p, .line = parser->line};
    if (parser->p >= parser->end)
        return;
    const char c = *parser->p, second = char_at(parser, 1);
    if (c == '"') {
        lex_string(parser);
        return;
    }
    if (is_digit(c)) {
        lex_number(parser);
    } else if (is_letter(c) || ((c == '_' || c == '$' || c == '%') && is_follow(second))) {
        lex_word(parser);
    } else if (c == '.' && is_follow(second)) {
        lex_dot(parser);
    } else {
        parser->token.kind = PTX_TOKEN_MARK;
        parser->token.mark = c;
        parser->p++;
    }
    parser->token.length = (size_t)(parser->p - parser->token.at);
}

bool ptx_is_mark(const PtxParser *parser, char mark)
{
    return parser->token.kind == PTX_TOKEN_MARK && parser->token.mark == mark;
}

bool ptx_is_dot(const PtxParser *parser, const char *word)
{
    const size_t n = strlen(word);
    return parser->token.kind == PTX_TOKEN_DOT && parser->token.length == n &&
           memcmp(parser->token.at, word, n) == 0;
}

bool ptx_take_mark(PtxParser *parser, char mark)
{
    if (!ptx_is_mark(parser, mark))
        return false;
    ptx_next(parser);
    return true;
}

bool ptx_take_dot(PtxParser *parser, const char *word)
{
    if (!ptx_is_dot(parser, word))
        return false;
    ptx_next(parser);
    return true;
}

void ptx_expect(PtxParser *parser, char mark)
{
    if (!ptx_take_mark(parser, mark))
        ptx_fail(parser, "'%c' is expected, not \"%.*s\"", mark,
                 (int)(parser->token.length < 40 ? parser->token.length : 40), parser->token.at);
}

PtxName *ptx_expect_name(PtxParser *parser)
{
    if (parser->token.kind != PTX_TOKEN_NAME)
        ptx_fail(parser, "a name is expected");
    PtxName *name = ptx_name(parser, parser->token.at, parser->token.length);
    ptx_next(parser);
    return name;
}

uint64_t ptx_expect_integer(PtxParser *parser)
{
    if (parser->token.kind != PTX_TOKEN_INTEGER)
        ptx_fail(parser, "a whole number is expected");
    const uint64_t value = parser->token.value;
    ptx_next(parser);
    return value;
}
