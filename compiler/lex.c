/* lex.c - what the words of a file mean: places, brackets, numbers with units, strings.
 *
 * In: the pieces of text that grammar/model.l cuts out. Out: values for the grammar, the
 * place of every token, and for the formatter the list of tokens and comments. A word that
 * is wrong is reported and stands for something harmless, so that the grammar goes on. */
#include "model_parser.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_NAME = 255 };

Place scan_place(const Parser *p, size_t length)
{
    return (Place){
        .file = p->file, .line = p->line, .col = p->col, .len = length ? (int)length : 1};
}

void scan_advance(Parser *p, size_t length)
{
    p->offset += length;
    p->col += (int)length;
}

void scan_newline(Parser *p)
{
    p->offset = (size_t)(strchr(p->text + p->offset, '\n') - p->text) + 1;
    p->line++;
    p->col = 1;
}

static void record(Parser *p, int kind, size_t length)
{
    if (p->tokens)
        VEC_PUSH(
            p->arena, p->tokens,
            (Token){.kind = kind, .line = p->line, .offset = p->offset, .length = (int)length});
}

int scan_token(Parser *p, int kind, size_t length, Place *at)
{
    *at = scan_place(p, length);
    p->previous = p->current;
    p->previous_kind = p->current_kind;
    p->current = *at;
    p->current_kind = kind;
    if (p->stopped)
        return END;
    record(p, kind, length);
    scan_advance(p, length);
    return kind;
}

void scan_comment(Parser *p, size_t length)
{
    size_t shown = length;
    while (shown && strchr(" \t\r", p->text[p->offset + shown - 1]))
        shown--;
    record(p, TOKEN_COMMENT, shown);
    scan_advance(p, length);
}

int scan_open(Parser *p, int kind, Place *at)
{
    if (p->nopen == AST_MAX_NESTING) {
        syntax_too_deep(p, scan_place(p, 1));
    } else {
        p->open[p->nopen].closer = (char)(kind == '(' ? ')' : kind == '[' ? ']' : '}');
        p->open[p->nopen].offset = p->offset;
        p->open[p->nopen].at = scan_place(p, 1);
        p->nopen++;
    }
    return scan_token(p, kind, 1, at);
}

int scan_close(Parser *p, int kind, Place *at)
{
    /* A } closes whatever was left open inside it; a stray ) closes nothing. */
    int i = p->nopen;
    while (i > 0 && p->open[i - 1].closer != kind && (kind == '}' || p->open[i - 1].closer != '}'))
        i--;
    if (i > 0 && p->open[i - 1].closer == kind)
        p->nopen = i - 1;
    return scan_token(p, kind, 1, at);
}

void scan_stray(Parser *p, const char *s, size_t n)
{
    Place at = scan_place(p, n);
    bool said = p->damaged_line == p->line;
    p->damaged_line = p->line;
    scan_advance(p, n);
    if (said)
        return;
    if (*s == '&' || *s == '|') {
        diag_error(p->diag, at, "a single '%c' means nothing here", *s);
        diag_help(p->diag, "write '%c%c'", *s, *s);
    } else {
        bool text = (unsigned char)*s >= 0x80 || *s == '\'';
        diag_error(p->diag, at, "'%.*s' is not part of the language", n > 40 ? 1 : (int)n, s);
        if (text)
            diag_help(p->diag, *s == '\'' ? "strings stand in double quotes"
                                          : "names are made of A-Z, a-z, 0-9 and _; other letters "
                                            "may stand in strings and comments");
    }
}

Name scan_name(Parser *p, const char *s, size_t n)
{
    Place at = scan_place(p, n);
    if (n > MAX_NAME) {
        diag_error(p->diag, at, "a name of %zu characters; %d is the most", n, MAX_NAME);
        n = MAX_NAME;
    }
    return (Name){.text = arena_strndup(p->arena, s, n), .at = at};
}

/* Numbers */

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_letter(char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_';
}

static size_t digits_length(const char *s)
{
    size_t n = 0;
    while (is_digit(s[n]))
        n++;
    return n;
}

static size_t word_length(const char *s)
{
    size_t n = 0;
    while (is_digit(s[n]) || is_letter(s[n]))
        n++;
    return n;
}

/* 12, 1.5, 3e-4; the two dots of 0..4 do not belong to the number. */
static size_t number_length(const char *s, bool *real)
{
    size_t n = digits_length(s);
    *real = false;
    if (s[n] == '.' && is_digit(s[n + 1])) {
        n += 1 + digits_length(s + n + 1);
        *real = true;
    }
    if (s[n] == 'e' || s[n] == 'E') {
        size_t sign = s[n + 1] == '+' || s[n + 1] == '-';
        if (is_digit(s[n + 1 + sign])) {
            n += 1 + sign + digits_length(s + n + 1 + sign);
            *real = true;
        }
    }
    return n;
}

static int64_t read_int(Parser *p, const char *s, size_t n)
{
    int64_t value = 0;
    for (size_t i = 0; i < n; i++) {
        if (mul_i64(value, 10, &value) && add_i64(value, s[i] - '0', &value))
            continue;
        diag_error(p->diag, scan_place(p, n), "this integer is too large; %" PRId64 " is the most",
                   INT64_MAX);
        return 0;
    }
    return value;
}

static double read_real(Parser *p, const char *s, size_t n, double scale, double divisor)
{
    const char *digits = arena_strndup(p->arena, s, n);
    double value = strtod(digits, NULL) * scale / divisor;
    if (isfinite(value))
        return value;
    diag_error(p->diag, scan_place(p, n), "this number is too large; 1.79e308 is about the most");
    return 0;
}

static const struct {
    const char *text;
    Unit unit;
    double divisor; /* not a factor: 5 / 1e6 is the double nearest to 5e-6 */
} units[] = {
    {"B", UNIT_BYTES, 1},      {"FLOPS", UNIT_FLOPS, 1},     {"FLOP/s", UNIT_FLOPS, 1},
    {"s", UNIT_SECONDS, 1},    {"B/s", UNIT_BYTES_PER_S, 1}, {"ms", UNIT_SECONDS, 1e3},
    {"us", UNIT_SECONDS, 1e6}, {"ns", UNIT_SECONDS, 1e9},
};

/* 1 without a prefix; 0 where the text is not one. */
static double prefix_scale(const char *s, size_t n)
{
    static const char letters[] = "KMGTP";
    if (!n)
        return 1;
    const char *at = strchr(letters, *s == 'k' ? 'K' : *s);
    if (!at || n > 2 || (n == 2 && (s[1] != 'i' || *s == 'k')))
        return 0;
    return pow(n == 2 ? 1024 : 1000, (double)(at - letters + 1));
}

/* The longest unit at s: its length, 0 where there is none. */
static size_t find_unit(const char *s, Unit *unit, double *scale, double *divisor)
{
    size_t word = word_length(s), rate = 0;
    if (s[word] == '/' && s[word + 1] == 's' && !word_length(s + word + 2))
        rate = word + 2;
    for (int pass = rate ? 0 : 1; pass < 2; pass++) {
        size_t n = pass ? word : rate;
        for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
            size_t tail = strlen(units[i].text);
            if (n < tail || memcmp(s + n - tail, units[i].text, tail) != 0)
                continue;
            double prefix = prefix_scale(s, n - tail);
            if (prefix == 0 || (n > tail && units[i].unit == UNIT_SECONDS))
                continue;
            *unit = units[i].unit;
            *scale = prefix;
            *divisor = units[i].divisor;
            return n;
        }
    }
    return 0;
}

int scan_number(Parser *p, MDL_STYPE *value, size_t *length)
{
    const char *s = p->text + p->offset;
    bool real;
    size_t number = number_length(s, &real);
    size_t space = strspn(s + number, " \t");
    Unit unit;
    double scale, divisor;
    size_t name = 0;
    if (is_letter(s[number + space]))
        name = find_unit(s + number + space, &unit, &scale, &divisor);
    if (name) {
        *length = number + space + name;
        Expr *e = ARENA_NEW(p->arena, Expr);
        *e = (Expr){.kind = EXPR_QUANTITY, .at = scan_place(p, *length), .depth = 1};
        e->quantity.unit = unit;
        e->quantity.value = read_real(p, s, number, scale, divisor);
        e->quantity.text =
            arena_printf(p->arena, "%.*s %.*s", (int)number, s, (int)name, s + number + space);
        value->expr = e;
        return QUANTITY;
    }
    size_t word = word_length(s);
    if (word > number) {
        *length = word;
        value->name = scan_name(p, s, word);
        return WORD;
    }
    *length = number;
    if (real)
        value->real = read_real(p, s, number, 1, 1);
    else
        value->integer = read_int(p, s, number);
    return real ? REAL : INT;
}

/* Strings */

static int hex_digit(char c)
{
    if (is_digit(c))
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static size_t utf8_encode(char out[4], unsigned c)
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    out[0] = (char)(0xe0 | c >> 12);
    out[1] = (char)(0x80 | (c >> 6 & 0x3f));
    out[2] = (char)(0x80 | (c & 0x3f));
    return 3;
}

/* \ooo, \xhh, \uhhhh: the character in *c, -1 where it is none; the length after the \. */
static size_t read_code(const char *s, size_t left, int *c)
{
    size_t n = 0;
    int value = 0;
    if (*s == 'x' || *s == 'u') {
        size_t want = *s == 'x' ? 2 : 4;
        while (n < want && n + 1 < left && hex_digit(s[n + 1]) >= 0)
            value = value * 16 + hex_digit(s[++n]);
        *c = n == want ? value : -1;
        return n + 1;
    }
    while (n < 3 && n < left && s[n] >= '0' && s[n] <= '7')
        value = value * 8 + s[n++] - '0';
    *c = n ? value : -1;
    return n ? n : 1;
}

/* Appends what the escape at s (after its \) stands for; gives its length. */
static size_t add_escape(Parser *p, Text *t, const char *s, size_t left, Place at)
{
    static const char letters[] = "abfnrtv\\\"'?", meaning[] = "\a\b\f\n\r\t\v\\\"'?";
    const char *letter = left && *s ? strchr(letters, *s) : NULL;
    if (letter) {
        text_add_n(t, &meaning[letter - letters], 1);
        return 1;
    }
    if (!left)
        return 0; /* the string has no end, which is said elsewhere */
    int c = -1;
    size_t n = read_code(s, left, &c);
    while (n < left && ((unsigned char)s[n] & 0xc0) == 0x80)
        n++;
    at.len = (int)n + 1;
    if (c < 0) {
        diag_error(p->diag, at, "'\\%.*s' is not an escape", (int)n, s);
        diag_help(p->diag,
                  "escapes are \\n \\t \\r \\a \\b \\f \\v \\\\ \\\" \\' \\? \\ooo \\xhh \\uhhhh; "
                  "a backslash itself is \\\\");
    } else if (c == 0) {
        diag_error(p->diag, at, "a string cannot hold the character 0");
    } else if ((c >= 0x80 && *s != 'u') || (c >= 0xd800 && c <= 0xdfff)) {
        diag_error(p->diag, at, "'\\%.*s' is not a character", (int)n, s);
        diag_help(p->diag, "write the character itself, or \\uhhhh");
    } else {
        char bytes[4];
        text_add_n(t, bytes, utf8_encode(bytes, (unsigned)c));
    }
    return n;
}

const char *scan_string(Parser *p, const char *s, size_t n)
{
    Text t = {.arena = p->arena};
    text_add(&t, "");
    size_t i = 1;
    while (i < n && s[i] != '"') {
        size_t plain = 0;
        while (i + plain < n && s[i + plain] != '"' && s[i + plain] != '\\')
            plain++;
        text_add_n(&t, s + i, plain);
        i += plain;
        if (i >= n || s[i] != '\\')
            continue;
        Place at = scan_place(p, 1);
        at.col += (int)i;
        i++;
        i += add_escape(p, &t, s + i, n - i, at);
    }
    if (i >= n) {
        p->damaged_line = p->line;
        diag_error(p->diag, scan_place(p, 1), "this string has no end");
        diag_help(p->diag,
                  "a string ends in \" on the line it begins on; a line break in it is \\n");
    }
    return t.at;
}
