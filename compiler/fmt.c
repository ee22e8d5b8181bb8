/* fmt.c - the canonical layout of a file.
 *
 * In: the tokens and comments of a text that parses. Out: the same tokens, so the same meaning, one
 * statement a line, four spaces for each brace, at most one blank line in a row. A comment that
 * followed something on its line still does, any other keeps a line of its own.
 *
 * The tokens of one logical line (up to ; { or }) are printed greedily: before the part behind a
 * comma, and before an operator, the line breaks if that part, up to the next such place that
 * is not deeper in brackets, passes column 100. What decides are tokens and comments
 * alone, never the layout that was, which is why formatting twice changes nothing. */
#include "model_parser.h"
#include "front.h"

#include <string.h>

enum { WIDTH = 100, INDENT = 4, MAX_INDENT = 16 * INDENT, ALIGN_LIMIT = 60 };

typedef struct {
    const char *text;
    int length;
    int kind;
    int depth;    /* of ( and [ around it, within its line */
    int gap;      /* spaces before it */
    bool breaks;  /* the line may break before it */
    bool newline; /* the line must break before it */
} Atom;

typedef struct {
    Arena *arena;
    Text out;
    const char *text;
    const Token *tokens;
    int n;
    int level;       /* of braces */
    VEC(Atom) atoms; /* of the current line */
    int column;
    int bracket[AST_MAX_NESTING]; /* the column of the open ( or [, for each depth */
} Format;

static bool is_soft_keyword(int kind)
{
    return kind == INPUT || kind == TARGET || kind == WEIGHT || kind == ON || kind == RECOMPUTE ||
           kind == FREEZE || kind == LOSS || kind == METRIC || kind == BLOCK || kind == MODEL ||
           kind == DEVICES || kind == PARALLEL || kind == TRAIN || kind == DATA;
}

/* Whether an operand ends with this token: what follows is then a binary operator, a call, an
 * index. A keyword is a name unless it begins the line without being assigned to. */
static bool ends_operand(const Format *f, int i, int first)
{
    int kind = f->tokens[i].kind;
    if (is_soft_keyword(kind))
        return i != first || (i + 1 < f->n && f->tokens[i + 1].kind == '=');
    return kind == NAME || kind == WORD || kind == INT || kind == REAL || kind == QUANTITY ||
           kind == STRING || kind == TRUE || kind == FALSE || kind == ')' || kind == ']';
}

/* The token before i that is not a comment; -1: none on this line. */
static int before(const Format *f, int i, int first)
{
    do
        i--;
    while (i >= first && f->tokens[i].kind == TOKEN_COMMENT);
    return i >= first ? i : -1;
}

static bool is_prefix(const Format *f, int i, int first)
{
    int kind = f->tokens[i].kind, left = before(f, i, first);
    return kind == '!' || (kind == '-' && (left < 0 || !ends_operand(f, left, first)));
}

static bool is_binary(const Format *f, int i, int first)
{
    int kind = f->tokens[i].kind;
    bool known = kind == '+' || kind == '*' || kind == '/' || kind == '%' || kind == '<' ||
                 kind == '>' || kind == LE || kind == GE || kind == EQ || kind == NE ||
                 kind == AND || kind == OR || kind == '?';
    return known || (kind == '-' && !is_prefix(f, i, first));
}

static int gap_before(const Format *f, int i, int first)
{
    int kind = f->tokens[i].kind, left = before(f, i, first);
    if (left < 0)
        return 0;
    int previous = f->tokens[left].kind;
    if (kind == '@')
        return 2;
    if (kind == ';' || kind == ',' || kind == ')' || kind == ']' || kind == '.')
        return 0;
    if (previous == '(' || previous == '[' || previous == '.' || previous == '@')
        return 0;
    if (is_prefix(f, left, first))
        return 0;
    if (kind == '(' || kind == '[')
        return !ends_operand(f, left, first);
    return 1;
}

static void atom_set_text(Format *f, Atom *a, const Token *t)
{
    a->text = f->text + t->offset;
    a->length = t->length;
    if (t->kind != QUANTITY)
        return;
    int number = t->length, unit;
    while (a->text[number - 1] < '0' || a->text[number - 1] > '9')
        number--;
    for (unit = number; a->text[unit] == ' ' || a->text[unit] == '\t';)
        unit++;
    a->text =
        arena_printf(f->arena, "%.*s %.*s", number, a->text, t->length - unit, a->text + unit);
    a->length = (int)strlen(a->text);
}

/* One past the last token of the line that starts at `first`. */
static int line_end(const Format *f, int first)
{
    int i = first;
    if (f->tokens[i].kind == TOKEN_COMMENT)
        return i + 1;
    while (i < f->n) {
        int kind = f->tokens[i].kind;
        bool chained = kind == '}' && i + 1 < f->n && f->tokens[i + 1].kind == ELSE;
        i++;
        if (kind == ';' || kind == '{' || (kind == '}' && !chained))
            break;
    }
    if (i < f->n && f->tokens[i].kind == TOKEN_COMMENT &&
        f->tokens[i].line == f->tokens[i - 1].line)
        i++;
    return i;
}

static void gather(Format *f, int first, int end)
{
    f->atoms.n = 0;
    int depth = 0;
    for (int i = first; i < end; i++) {
        const Token *t = &f->tokens[i];
        bool comment = t->kind == TOKEN_COMMENT;
        int previous = i > first ? f->tokens[i - 1].kind : 0;
        Atom a = {.kind = t->kind};
        atom_set_text(f, &a, t);
        if (t->kind == ')' || t->kind == ']')
            depth--;
        a.depth = depth;
        if (t->kind == '(' || t->kind == '[')
            depth++;
        a.gap = comment ? (i > first ? 2 : 0) : gap_before(f, i, first);
        a.newline = i > first && (previous == TOKEN_COMMENT || (comment && t->line != t[-1].line));
        a.breaks = previous == ',' || (i > first && is_binary(f, i, first));
        VEC_PUSH(f->arena, &f->atoms, a);
    }
}

/* Whether atoms k … up to the next place to break that is not deeper end before WIDTH. */
static bool fits(const Format *f, int k)
{
    int column = f->column;
    for (int i = k; i < f->atoms.n && column <= WIDTH; i++) {
        const Atom *a = &f->atoms.at[i];
        if (i > k && ((a->breaks && a->depth <= f->atoms.at[k].depth) || a->newline))
            return true;
        if (a->kind == TOKEN_COMMENT)
            return true;
        column += a->gap + a->length;
    }
    return column <= WIDTH;
}

/* Below the first thing in the innermost bracket that is open before atom k. */
static int continuation(const Format *f, int k, int indent)
{
    int depth = f->atoms.at[k].depth;
    if (depth > 0 && f->bracket[depth - 1] < ALIGN_LIMIT)
        return f->bracket[depth - 1] + 1;
    return indent + INDENT;
}

static void put(Format *f, const char *s, int n)
{
    text_add_n(&f->out, s, (size_t)n);
    f->column += n;
}

static void put_line_break(Format *f, int spaces)
{
    text_add(&f->out, "\n");
    text_printf(&f->out, "%*s", spaces, "");
    f->column = spaces;
}

static void print_line(Format *f)
{
    int indent = f->level * INDENT < MAX_INDENT ? f->level * INDENT : MAX_INDENT;
    text_printf(&f->out, "%*s", indent, "");
    f->column = indent;
    for (int k = 0; k < f->atoms.n; k++) {
        Atom *a = &f->atoms.at[k];
        bool bracket = k > 0 && (a[-1].kind == '(' || a[-1].kind == '[') && f->column > ALIGN_LIMIT;
        if (a->newline || ((a->breaks || bracket) && !fits(f, k)))
            put_line_break(f, continuation(f, k, indent));
        else
            put(f, "  ", a->gap);
        if (a->kind == '(' || a->kind == '[')
            f->bracket[a->depth] = f->column;
        put(f, a->text, a->length);
    }
    text_add(&f->out, "\n");
}

/* The last brace of the line that is printed, 0: none. */
static int brace_at_end(const Format *f)
{
    for (int k = f->atoms.n - 1; k >= 0; k--)
        if (f->atoms.at[k].kind != TOKEN_COMMENT)
            return f->atoms.at[k].kind == '{' || f->atoms.at[k].kind == '}' ? f->atoms.at[k].kind
                                                                            : 0;
    return 0;
}

static void print_all(Format *f)
{
    bool opened = true; /* no blank line at the top, or behind { */
    for (int i = 0, end; i < f->n; i = end) {
        const Token *t = &f->tokens[i];
        bool closes = t->kind == '}';
        if (!opened && !closes && t->line > t[-1].line + 1)
            text_add(&f->out, "\n");
        if (closes)
            f->level--;
        end = line_end(f, i);
        gather(f, i, end);
        print_line(f);
        opened = brace_at_end(f) == '{';
        if (opened)
            f->level++;
    }
}

char *format_source(Arena *a, Diag *d, const char *name, const char *text, size_t size)
{
    int file = diag_add_source(d, name, text, size);
    TokenList tokens = {0};
    Parser p = {.arena = a, .diag = d, .file = file, .text = text, .size = size, .tokens = &tokens};
    if (!source_check(d, file, text, size) || !parse_text(&p))
        return NULL;
    if (tokens.n && tokens.at[tokens.n - 1].kind == END)
        tokens.n--;
    Format f = {.arena = a, .text = text, .tokens = tokens.at, .n = tokens.n, .out = {.arena = a}};
    text_add(&f.out, "");
    print_all(&f);
    return f.out.at;
}
