/* eval.c - expressions become Terms: constants are computed, tensors leave operations. */
#include "elaborate.h"

Term term_error(Place at)
{
    return (Term){.kind = TERM_ERROR, .at = at};
}

Term term_tensor(ValueId v, Place at)
{
    if (v == NONE)
        return term_error(at);
    return (Term){.kind = TERM_TENSOR, .at = at, .tensor = v};
}

bool term_is_number(Term t)
{
    return t.kind == TERM_INT || t.kind == TERM_REAL;
}

double term_number(Term t)
{
    return t.kind == TERM_INT ? (double)t.integer : t.real;
}

const char *term_describe(Elab *e, Term t)
{
    switch (t.kind) {
    case TERM_INT:
        return arena_printf(e->arena, "the number %lld", (long long)t.integer);
    case TERM_REAL:
        return arena_printf(e->arena, "the real number %g", t.real);
    case TERM_BOOL:
        return t.truth ? "true" : "false";
    case TERM_QUANTITY: {
        static const char *const kinds[] = {"a size in bytes", "a speed in FLOPS",
                                            "a rate in bytes per second", "a time"};
        return kinds[t.quantity.unit];
    }
    case TERM_STRING:
        return "a string";
    case TERM_LIST:
        return arena_printf(e->arena, "a list of %d", t.list.n);
    case TERM_TENSOR:
        return arena_printf(e->arena, "the tensor %s", show_shape(e, t.tensor));
    case TERM_INIT:
        return "an initial value";
    case TERM_ERROR:
    case TERM_ABSENT:
        break;
    }
    return "nothing";
}

static Term eval_list(Elab *e, const Expr *x)
{
    Term t = {.kind = TERM_LIST, .at = x->at};
    t.list.n = x->list.of.n;
    t.list.of = ARENA_ARRAY(e->arena, Term, t.list.n);
    bool broken = false;
    for (int i = 0; i < t.list.n; i++) {
        t.list.of[i] = eval(e, x->list.of.at[i]);
        broken |= t.list.of[i].kind == TERM_ERROR;
    }
    return broken ? term_error(x->at) : t;
}

static bool truth_of(Elab *e, Term t, const char *of, bool *out)
{
    if (t.kind == TERM_ERROR)
        return false;
    if (t.kind != TERM_BOOL) {
        elab_error(e, t.at, "%s wants true or false, not %s", of, term_describe(e, t));
        return false;
    }
    *out = t.truth;
    return true;
}

static Term eval_logic(Elab *e, const Expr *x)
{
    bool a = false, b = false;
    if (!truth_of(e, eval(e, x->a), ast_op_text(x->op), &a))
        return term_error(x->at);
    if (a == (x->op == AST_OR))
        return (Term){.kind = TERM_BOOL, .at = x->at, .truth = a};
    if (!truth_of(e, eval(e, x->b), ast_op_text(x->op), &b))
        return term_error(x->at);
    return (Term){.kind = TERM_BOOL, .at = x->at, .truth = b};
}

/* a[i]: an element of a list that a name is bound to; else part of a layer's path. */
static Term eval_index(Elab *e, const Expr *x)
{
    const Expr *base = x->index.base;
    while (base->kind == EXPR_INDEX)
        base = base->index.base;
    if (base->kind != EXPR_NAME ||
        (!scope_find(e->scope, base->text) && table_find(&e->const_index, base->text) < 0))
        return layer_resolve(e, x);
    Term list = eval(e, x->index.base);
    if (list.kind == TERM_ERROR)
        return list;
    if (list.kind != TERM_LIST) {
        if (e->scope && base == x->index.base && layer_exists(e, base->text))
            return layer_resolve(e, x);
        elab_error(e, x->at, "%s cannot be indexed", term_describe(e, list));
        if (list.kind == TERM_TENSOR)
            elab_help(e, "slice(x, dim, from, to) takes a part of a tensor");
        return term_error(x->at);
    }
    int64_t i;
    if (!eval_int(e, x->index.index, "an index", 0, list.list.n - 1, &i))
        return term_error(x->at);
    Term t = list.list.of[i];
    t.at = x->at;
    return t;
}

bool elab_enter(Elab *e, Place at)
{
    const char *what = NULL;
    if (++e->work > ELAB_MAX_WORK)
        what = "the model takes too many steps at compile time";
    else if (e->nesting >= ELAB_MAX_NESTING)
        what = "expressions, blocks and constants are nested too deep here";
    if (what) {
        elab_error(e, at, "%s", what);
        e->stop = true;
    }
    if (e->stop)
        return false;
    e->nesting++;
    return true;
}

static Term eval_kind(Elab *e, const Expr *x, const Name *hint)
{
    Term t = {.at = x->at};
    switch (x->kind) {
    case EXPR_INT:
        t.kind = TERM_INT;
        t.integer = x->integer;
        return t;
    case EXPR_REAL:
        t.kind = TERM_REAL;
        t.real = x->real;
        return t;
    case EXPR_QUANTITY:
        t.kind = TERM_QUANTITY;
        t.quantity.value = x->quantity.value;
        t.quantity.unit = x->quantity.unit;
        return t;
    case EXPR_STRING:
        t.kind = TERM_STRING;
        t.text = x->text;
        return t;
    case EXPR_BOOL:
        t.kind = TERM_BOOL;
        t.truth = x->truth;
        return t;
    case EXPR_NAME:
        return scope_get(e, x);
    case EXPR_LIST:
        return eval_list(e, x);
    case EXPR_UNARY:
        return arith_unary(e, x, eval(e, x->a));
    case EXPR_BINARY:
        if (x->op == AST_AND || x->op == AST_OR)
            return eval_logic(e, x);
        Term a = eval(e, x->a);
        return arith_binary(e, x, a, eval(e, x->b));
    case EXPR_TERNARY:
        if (!truth_of(e, eval(e, x->a), "the condition before ?", &t.truth))
            return term_error(x->at);
        return eval(e, t.truth ? x->b : x->c);
    case EXPR_CALL:
        return eval_call(e, x, hint);
    case EXPR_MEMBER:
        return layer_resolve(e, x);
    case EXPR_INDEX:
        return eval_index(e, x);
    }
    return term_error(x->at);
}

Term eval_hinted(Elab *e, const Expr *x, const Name *hint)
{
    if (!elab_enter(e, x->at))
        return term_error(x->at);
    Term t = eval_kind(e, x, hint);
    e->nesting--;
    return t;
}

Term eval(Elab *e, const Expr *x)
{
    return eval_hinted(e, x, NULL);
}

bool eval_int(Elab *e, const Expr *x, const char *what, int64_t min, int64_t max, int64_t *out)
{
    Term t = eval(e, x);
    if (t.kind == TERM_ERROR)
        return false;
    if (t.kind != TERM_INT) {
        elab_error(e, x->at, "%s is an integer known at compile time, not %s", what,
                   term_describe(e, t));
        return false;
    }
    if (t.integer < min || t.integer > max) {
        if (max < min)
            elab_error(e, x->at, "%s has nothing to choose from: the list is empty", what);
        else if (max == MAX_DIM && t.integer > max)
            elab_error(e, x->at, "%s is at most 2^40, not %lld", what, (long long)t.integer);
        else if (max == INT64_MAX || max == MAX_DIM)
            elab_error(e, x->at, "%s is at least %lld, not %lld", what, (long long)min,
                       (long long)t.integer);
        else
            elab_error(e, x->at, "%s is from %lld to %lld, not %lld", what, (long long)min,
                       (long long)max, (long long)t.integer);
        return false;
    }
    *out = t.integer;
    return true;
}
