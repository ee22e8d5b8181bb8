/* syntax.c - syntax errors in words.
 *
 * In: the tokens that the grammar would have taken (exact, by look-ahead correction) and the
 * token that came. Out: one message. Long lists are folded into what a reader would
 * call them: all that may start a statement is "a statement". */
#include "model_parser.h"
#include "parse.h"

#include <string.h>

enum { MAX_EXPECTED = 96 };

typedef struct {
    const char *words[MAX_EXPECTED];
    int n;
} Expected;

static bool expects(const Expected *e, const char *word)
{
    for (int i = 0; i < e->n; i++)
        if (!strcmp(e->words[i], word))
            return true;
    return false;
}

static bool is_keyword(const char *word)
{
    return word[0] == '\'' && word[1] >= 'a' && word[1] <= 'z';
}

static void drop(Expected *e, const char *words)
{
    int kept = 0;
    for (int i = 0; i < e->n; i++) {
        if (!strstr(words, e->words[i]))
            e->words[kept++] = e->words[i];
    }
    e->n = kept;
}

static void drop_keywords(Expected *e)
{
    int kept = 0;
    for (int i = 0; i < e->n; i++)
        if (!is_keyword(e->words[i]))
            e->words[kept++] = e->words[i];
    e->n = kept;
}

static void fold(Expected *e)
{
    const char *folded = NULL;
    if (expects(e, "'const'")) {
        drop_keywords(e);
        drop(e, "the end of the file");
        folded = "an item (const, import, block, model, devices, parallel, train or data)";
    } else if (expects(e, "'for'")) {
        drop_keywords(e);
        drop(e, "a name '('");
        folded = "a statement";
    } else if (expects(e, "'!'")) {
        drop_keywords(e);
        drop(e, "a name a word an integer a number a quantity a string '-' '!' '(' '['");
        folded = "an expression";
    } else if (expects(e, "'+'")) {
        drop(e, "'+' '-' '*' '/' '%' '?' '<' '>' '<=' '>=' '==' '!=' '&&' '||' '(' '[' '.' '@' '=' "
                "'as'");
        folded = "an operator";
    } else if (expects(e, "a name")) {
        drop_keywords(e);
    } else if (expects(e, "';'")) {
        drop(e, "'@' '[' '.' 'as'");
    }
    if (folded)
        e->words[e->n++] = folded;
}

static const char *join(Arena *a, const Expected *e)
{
    Text t = {.arena = a};
    text_add(&t, "");
    for (int i = 0; i < e->n; i++) {
        if (i)
            text_add(&t, i + 1 < e->n ? ", " : " or ");
        text_add(&t, e->words[i]);
    }
    return t.at;
}

static const char *show_found(Parser *p)
{
    if (p->current_kind == END)
        return "the end of the file";
    size_t start = p->offset - (size_t)p->current.len;
    if (p->current.len > 40)
        return arena_printf(p->arena, "'%.30s...'", p->text + start);
    return arena_printf(p->arena, "'%.*s'", p->current.len, p->text + start);
}

/* The text of the current token, or of another on the same line. */
static const char *token_text(Parser *p, Place at)
{
    const char *s = p->text + p->offset - (size_t)p->current.len;
    if (at.col != p->current.col)
        s -= p->current.col - at.col;
    return arena_strndup(p->arena, s, (size_t)at.len);
}

/* "inptu x": a name where a statement's keyword was probably meant. */
static const char *nearest_statement(Parser *p, const Expected *e)
{
    static const char *const keywords[] = {"input", "target", "weight",    "for",    "on",
                                           "loss",  "metric", "recompute", "freeze", "return"};
    if (p->previous_kind != NAME || p->current_kind != NAME || p->previous.len > 32 ||
        p->previous.line != p->current.line || e->n != 1 || !expects(e, "'='"))
        return NULL;
    return diag_nearest(token_text(p, p->previous), keywords, 10);
}

/* The keyword that was probably meant, among those that may stand here. */
static const char *nearest_keyword(Parser *p, const Expected *e)
{
    if (p->current_kind != NAME || p->current.len > 32)
        return NULL;
    const char *keywords[MAX_EXPECTED];
    int n = 0;
    for (int i = 0; i < e->n; i++)
        if (is_keyword(e->words[i]))
            keywords[n++] = arena_strndup(p->arena, e->words[i] + 1, strlen(e->words[i]) - 2);
    const char *near = diag_nearest(token_text(p, p->current), keywords, n);
    return near ? near : nearest_statement(p, e);
}

static void say_help(Parser *p, const Expected *all)
{
    const char *near = nearest_keyword(p, all);
    int before = p->previous_kind, now = p->current_kind;
    bool number = before == INT || before == REAL;
    if (near)
        diag_help(p->diag, "did you mean '%s'?", near);
    else if (number && now == NAME && p->previous.line == p->current.line)
        diag_help(p->diag, "units are B, FLOPS, B/s with K M G T P or Ki Mi Gi Ti Pi before them, "
                           "and s, ms, us, ns");
    else if (now == '=' && expects(all, "'=='"))
        diag_help(p->diag, "'==' compares");
    else if (now == WORD && expects(all, "a name"))
        diag_help(p->diag, "a name does not begin with a digit");
}

/* The bracket that waits to be closed, where that is what is missing. */
static void say_open(Parser *p, const Expected *all)
{
    if (!p->nopen)
        return;
    char closer = p->open[p->nopen - 1].closer;
    Place at = p->open[p->nopen - 1].at;
    const char word[] = {'\'', closer, '\'', '\0'};
    bool far = p->current_kind == END || at.line != p->current.line;
    if (far && expects(all, word) && (p->current_kind == END || closer != '}'))
        diag_note(p->diag, at, "this '%c' is not closed", p->text[p->open[p->nopen - 1].offset]);
}

void syntax_skip(Parser *p)
{
    p->skipping = true;
}

void syntax_report(Parser *p, const char *const *words, int n)
{
    bool damaged = p->damaged_line &&
                   (p->damaged_line == p->previous.line || p->damaged_line == p->current.line);
    if (p->stopped || damaged)
        return;
    if (diag_errors(p->diag) >= DIAG_MAX_ERRORS) {
        diag_error(p->diag, p->current, "syntax error"); /* only counted */
        return;
    }
    Expected all = {.n = n < MAX_EXPECTED ? n : MAX_EXPECTED - 1};
    memcpy(all.words, words, sizeof *words * (size_t)all.n);
    if (p->skipping && expects(&all, "'const'") && !nearest_keyword(p, &all))
        return;
    Expected shown = all;
    fold(&shown);
    Place after = p->previous;
    after.col += after.len;
    after.len = 1;
    bool at_end = p->current_kind == END && p->previous.line;
    if (expects(&all, "';'") && p->previous.line && p->current.line != p->previous.line)
        diag_error(p->diag, after, "expected ';'");
    else
        diag_error(p->diag, at_end ? after : p->current, "expected %s, found %s",
                   join(p->arena, &shown), show_found(p));
    say_help(p, &all);
    say_open(p, &all);
}

void syntax_too_deep(Parser *p, Place at)
{
    if (p->stopped)
        return;
    p->stopped = true;
    diag_error(p->diag, at, "nested too deeply");
    diag_help(p->diag, "brackets may nest %d deep, operators %d", AST_MAX_NESTING, AST_MAX_DEPTH);
}
