/* scope.c - names: those of the model, of one block call, and the constants.
 *
 * A name is looked for in the block's call, then in the model, then among the constants.
 * Constants are evaluated when they are first asked for, so items may stand in any
 * order; one that needs itself is found by its state. -D puts another expression in the
 * place of a constant's own. */
#include "elaborate.h"

#include <string.h>

const Bound *scope_find(const Scope *s, const char *name)
{
    for (; s; s = s->parent) {
        int i = table_find(&s->index, name);
        if (i >= 0)
            return &s->bound.at[i];
    }
    return NULL;
}

void scope_bind(Elab *e, Name name, Term t)
{
    Bound b = {name.text, t, name.at};
    int i = table_find(&e->scope->index, name.text);
    if (i >= 0) {
        e->scope->bound.at[i] = b;
        return;
    }
    table_set(e->arena, &e->scope->index, name.text, e->scope->bound.n);
    VEC_PUSH(e->arena, &e->scope->bound, b);
}

static Term const_get(Elab *e, int i, Place at)
{
    Const *c = &e->consts.at[i];
    if (c->state == CONST_UNDER_WAY) {
        elab_error(e, c->name.at, "the constant %s needs its own value", c->name.text);
        elab_note(e, at, "it is used here");
        c->state = CONST_KNOWN;
        c->value = term_error(at);
    }
    if (c->state == CONST_WAITING) {
        Scope *saved = e->scope;
        e->scope = NULL;
        c->state = CONST_UNDER_WAY;
        Term value = eval(e, c->expr);
        if (value.kind == TERM_INIT) {
            elab_error(e, value.at, "a constant is a number, not an initial value");
            value = term_error(value.at);
        }
        e->scope = saved;
        if (c->state == CONST_UNDER_WAY)
            c->value = value;
        c->state = CONST_KNOWN;
    }
    Term t = c->value;
    t.at = at;
    return t;
}

static const struct {
    const char *word;
    Initial init;
} initial_words[] = {{"zeros", {RULE_CONSTANT, 0}},
                     {"ones", {RULE_CONSTANT, 1}},
                     {"kaiming_uniform", {RULE_KAIMING, 1}},
                     {"xavier_uniform", {RULE_XAVIER, 1}}};
enum { NWORDS = sizeof initial_words / sizeof *initial_words };

static Term unknown_name(Elab *e, const Expr *x)
{
    if (e->cut)
        return term_error(x->at);
    VEC(const char *) names = {0};
    for (const Scope *s = e->scope; s; s = s->parent)
        for (int i = 0; i < s->bound.n; i++)
            VEC_PUSH(e->arena, &names, s->bound.at[i].name);
    bool in_model = e->model_scope && table_find(&e->model_scope->index, x->text) >= 0;
    for (int i = 0; i < e->consts.n; i++)
        VEC_PUSH(e->arena, &names, e->consts.at[i].name.text);
    for (int i = 0; i < NWORDS; i++)
        VEC_PUSH(e->arena, &names, initial_words[i].word);
    elab_error(e, x->at, "the name %s is not known%s", x->text, e->scope ? " here" : "");
    if (!e->scope && in_model)
        elab_help(e, "only constants can be used here");
    else if (e->scope && layer_exists(e, x->text))
        elab_help(e, "%s is a layer; bind its result to a name (%s = …), or use %s.weight", x->text,
                  x->text, x->text);
    else
        elab_help_nearest(e, x->text, names.at, names.n);
    return term_error(x->at);
}

static bool initial_word(const char *word, Initial *out)
{
    for (int i = 0; i < NWORDS; i++)
        if (!strcmp(word, initial_words[i].word)) {
            *out = initial_words[i].init;
            return true;
        }
    return false;
}

Term scope_get(Elab *e, const Expr *x)
{
    const Bound *b = scope_find(e->scope, x->text);
    if (b) {
        Term t = b->term;
        t.at = x->at;
        return t;
    }
    int i = table_find(&e->const_index, x->text);
    if (i >= 0)
        return const_get(e, i, x->at);
    Term t = {.kind = TERM_INIT, .at = x->at};
    if (initial_word(x->text, &t.init))
        return t;
    return unknown_name(e, x);
}

/* ---- constants ---- */

static bool is_literal(const Expr *x)
{
    while (x->kind == EXPR_UNARY && x->op == AST_NEG)
        x = x->a;
    return x->kind == EXPR_INT || x->kind == EXPR_REAL || x->kind == EXPR_QUANTITY ||
           x->kind == EXPR_BOOL;
}

static void const_replace(Elab *e, const char *define)
{
    const char *equals = strchr(define, '=');
    size_t length = equals ? (size_t)(equals - define) : strlen(define);
    char *name = arena_strndup(e->arena, define, length);
    if (!length || !equals || !equals[1]) {
        elab_error(e, NO_PLACE, "-D %s: wants name=value", define);
        return;
    }
    int i = table_find(&e->const_index, name);
    if (i < 0) {
        VEC(const char *) names = {0};
        for (int k = 0; k < e->consts.n; k++)
            VEC_PUSH(e->arena, &names, e->consts.at[k].name.text);
        elab_error(e, NO_PLACE, "-D %s: the model has no constant of this name", define);
        elab_help_nearest(e, name, names.at, names.n);
        return;
    }
    const char *text = arena_printf(e->arena, "const %s = %s;", name, equals + 1);
    const Item *item = command_item(e, "-D", text, ITEM_CONST);
    if (!item)
        return;
    const Expr *value = item->consts.at[0].value;
    if (item->consts.n == 1 && is_literal(value))
        e->consts.at[i].expr = value;
    else
        elab_error(e, value->at, "-D wants one number, quantity, true or false");
}

void consts_collect(Elab *e)
{
    for (int i = 0; i < e->ast->items.n; i++) {
        const Item *item = e->ast->items.at[i];
        for (int k = 0; item->kind == ITEM_CONST && k < item->consts.n; k++) {
            Name name = item->consts.at[k].name;
            int old = table_find(&e->const_index, name.text);
            if (old >= 0) {
                elab_error(e, name.at, "the constant %s is given twice", name.text);
                elab_note(e, e->consts.at[old].name.at, "the first is here");
                continue;
            }
            table_set(e->arena, &e->const_index, name.text, e->consts.n);
            VEC_PUSH(e->arena, &e->consts, (Const){.name = name, .expr = item->consts.at[k].value});
        }
    }
    for (int i = 0; i < e->options->ndefines; i++)
        const_replace(e, e->options->defines[i]);
}

void consts_check(Elab *e)
{
    for (int i = 0; i < e->consts.n; i++)
        (void)const_get(e, i, e->consts.at[i].name.at);
}
