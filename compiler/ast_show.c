/* ast_show.c - expressions in the language's own spelling, on one line.
 *
 * Parentheses stand where the reading would change without them, and around every
 * operation that is an operand where `all` is asked for: that shows how the text was read. */
#include "ast_show.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *text;
    int level; /* binds tighter when higher; the ternary is 0 */
} ops[] = {
    [AST_NEG] = {"-", 7}, [AST_NOT] = {"!", 7},  [AST_MUL] = {"*", 6}, [AST_DIV] = {"/", 6},
    [AST_MOD] = {"%", 6}, [AST_ADD] = {"+", 5},  [AST_SUB] = {"-", 5}, [AST_LT] = {"<", 4},
    [AST_LE] = {"<=", 4}, [AST_GT] = {">", 4},   [AST_GE] = {">=", 4}, [AST_EQ] = {"==", 3},
    [AST_NE] = {"!=", 3}, [AST_AND] = {"&&", 2}, [AST_OR] = {"||", 1},
};

const char *ast_op_text(AstOp op)
{
    return ops[op].text;
}

static void show(Text *t, const Expr *e, bool all);

static int level_of(const Expr *e)
{
    if (e->kind == EXPR_TERNARY)
        return 0;
    return e->kind == EXPR_UNARY || e->kind == EXPR_BINARY ? ops[e->op].level : 9;
}

static void show_operand(Text *t, const Expr *e, int least, bool all)
{
    bool parentheses = level_of(e) < (all ? 9 : least);
    text_add(t, parentheses ? "(" : "");
    show(t, e, all);
    text_add(t, parentheses ? ")" : "");
}

/* The shortest digits that read back as the same number, with a point or an exponent. */
static void show_real(Text *t, double value)
{
    char digits[40];
    for (int precision = 1; precision <= 17; precision++) {
        snprintf(digits, sizeof digits, "%.*g", precision, value);
        if (strtod(digits, NULL) == value)
            break;
    }
    text_add(t, digits);
    if (!strpbrk(digits, ".e"))
        text_add(t, ".0");
}

void text_add_quoted(Text *t, const char *s)
{
    static const char letters[] = "abtnvfr"; /* 7 … 13 */
    text_add(t, "\"");
    for (; *s; s++) {
        if (*s == '"' || *s == '\\')
            text_printf(t, "\\%c", *s);
        else if (*s >= 7 && *s <= 13)
            text_printf(t, "\\%c", letters[*s - 7]);
        else if ((*s > 0 && *s < 32) || *s == 127)
            text_printf(t, "\\x%02x", (unsigned)*s);
        else
            text_add_n(t, s, 1);
    }
    text_add(t, "\"");
}

void text_add_exprs(Text *t, const ExprList *list, bool all)
{
    for (int i = 0; i < list->n; i++) {
        text_add(t, i ? ", " : "");
        show(t, list->at[i], all);
    }
}

static void show_call(Text *t, const Expr *e, bool all)
{
    text_printf(t, "%s(", e->call.callee.text);
    for (int i = 0; i < e->call.args.n; i++) {
        const Arg *arg = &e->call.args.at[i];
        text_add(t, i ? ", " : "");
        if (arg->name)
            text_printf(t, "%s = ", arg->name);
        show(t, arg->value, all);
    }
    text_add(t, ")");
    if (e->call.as) {
        text_add(t, " as ");
        show(t, e->call.as, all);
    }
}

static void show_operation(Text *t, const Expr *e, bool all)
{
    int level = level_of(e);
    if (e->kind == EXPR_UNARY) {
        text_add(t, ops[e->op].text);
        show_operand(t, e->a, level, all);
    } else if (e->kind == EXPR_BINARY) {
        show_operand(t, e->a, level, all);
        text_printf(t, " %s ", ops[e->op].text);
        show_operand(t, e->b, level + 1, all);
    } else {
        show_operand(t, e->a, 1, all);
        text_add(t, " ? ");
        show_operand(t, e->b, 0, all);
        text_add(t, " : ");
        show_operand(t, e->c, 0, all);
    }
}

static void show(Text *t, const Expr *e, bool all)
{
    switch (e->kind) {
    case EXPR_INT:
        text_printf(t, "%" PRId64, e->integer);
        break;
    case EXPR_REAL:
        show_real(t, e->real);
        break;
    case EXPR_QUANTITY:
        text_add(t, e->quantity.text);
        break;
    case EXPR_STRING:
        text_add_quoted(t, e->text);
        break;
    case EXPR_BOOL:
        text_add(t, e->truth ? "true" : "false");
        break;
    case EXPR_NAME:
        text_add(t, e->text);
        break;
    case EXPR_LIST:
        text_add(t, e->list.round ? "(" : "[");
        text_add_exprs(t, &e->list.of, all);
        text_add(t, e->list.round ? ")" : "]");
        break;
    case EXPR_UNARY:
    case EXPR_BINARY:
    case EXPR_TERNARY:
        show_operation(t, e, all);
        break;
    case EXPR_CALL:
        show_call(t, e, all);
        break;
    case EXPR_MEMBER:
        show(t, e->member.base, all);
        text_printf(t, ".%s", e->member.name.text);
        break;
    case EXPR_INDEX:
        show(t, e->index.base, all);
        text_add(t, "[");
        show(t, e->index.index, all);
        text_add(t, "]");
        break;
    }
}

void text_add_expr(Text *t, const Expr *e, bool all)
{
    show(t, e, all);
}

const char *ast_show_expr(Arena *a, const Expr *e)
{
    Text t = {.arena = a};
    show(&t, e, false);
    return t.at;
}
