/* arith.c - operators on constants, computed at once, and on tensors, as operations.
 *
 * Integers are 64 bits and checked; an integer meets a real as a real. Of two operands one
 * of which is a tensor, the other may be a number: it stays a constant of the graph. */
#include "elaborate.h"

#include <math.h>
#include <string.h>

static Term wrong_operands(Elab *e, const Expr *x, Term a, Term b)
{
    elab_error(e, x->at, "%s does not go with %s and %s", ast_op_text(x->op), term_describe(e, a),
               term_describe(e, b));
    return term_error(x->at);
}

static Term int_result(Place at, int64_t n)
{
    return (Term){.kind = TERM_INT, .at = at, .integer = n};
}

static Term bool_result(Place at, bool b)
{
    return (Term){.kind = TERM_BOOL, .at = at, .truth = b};
}

static Term real_result(Elab *e, const Expr *x, double r)
{
    if (!isfinite(r)) {
        elab_error(e, x->at, "the result of %s is too large for a number", ast_op_text(x->op));
        return term_error(x->at);
    }
    return (Term){.kind = TERM_REAL, .at = x->at, .real = r};
}

static Term compare(const Expr *x, int order)
{
    switch (x->op) {
    case AST_LT:
        return bool_result(x->at, order < 0);
    case AST_LE:
        return bool_result(x->at, order <= 0);
    case AST_GT:
        return bool_result(x->at, order > 0);
    case AST_GE:
        return bool_result(x->at, order >= 0);
    case AST_EQ:
        return bool_result(x->at, order == 0);
    default:
        return bool_result(x->at, order != 0);
    }
}

static bool is_comparison(AstOp op)
{
    return op == AST_LT || op == AST_LE || op == AST_GT || op == AST_GE || op == AST_EQ ||
           op == AST_NE;
}

static Term divide_by_zero(Elab *e, const Expr *x)
{
    if (x->b->kind == EXPR_INT || x->b->kind == EXPR_REAL)
        elab_error(e, x->at, "division by zero");
    else
        elab_error(e, x->at, "division by zero: %s is 0", ast_show_expr(e->arena, x->b));
    return term_error(x->at);
}

static Term int_binary(Elab *e, const Expr *x, int64_t a, int64_t b)
{
    int64_t r = 0;
    bool over = false;
    switch (x->op) {
    case AST_ADD:
        over = __builtin_add_overflow(a, b, &r);
        break;
    case AST_SUB:
        over = __builtin_sub_overflow(a, b, &r);
        break;
    case AST_MUL:
        over = __builtin_mul_overflow(a, b, &r);
        break;
    case AST_DIV:
    case AST_MOD:
        if (b == 0)
            return divide_by_zero(e, x);
        over = a == INT64_MIN && b == -1;
        if (!over)
            r = x->op == AST_DIV ? a / b : a % b;
        break;
    default:
        return compare(x, a < b ? -1 : a > b);
    }
    if (over) {
        elab_error(e, x->at, "%lld %s %lld does not fit in 64 bits", (long long)a,
                   ast_op_text(x->op), (long long)b);
        return term_error(x->at);
    }
    return int_result(x->at, r);
}

static Term real_binary(Elab *e, const Expr *x, Term ta, Term tb)
{
    double a = term_number(ta), b = term_number(tb);
    switch (x->op) {
    case AST_ADD:
        return real_result(e, x, a + b);
    case AST_SUB:
        return real_result(e, x, a - b);
    case AST_MUL:
        return real_result(e, x, a * b);
    case AST_DIV:
        return b == 0 ? divide_by_zero(e, x) : real_result(e, x, a / b);
    case AST_MOD:
        elab_error(e, x->at, "%% is for integers, not %s and %s", term_describe(e, ta),
                   term_describe(e, tb));
        return term_error(x->at);
    default:
        return compare(x, a < b ? -1 : a > b);
    }
}

static Term quantity_result(Elab *e, const Expr *x, double value, Unit unit)
{
    Term t = real_result(e, x, value);
    if (t.kind == TERM_ERROR)
        return t;
    t.kind = TERM_QUANTITY;
    t.quantity.value = value;
    t.quantity.unit = unit;
    return t;
}

static Term quantity_binary(Elab *e, const Expr *x, Term a, Term b)
{
    if (a.kind == TERM_QUANTITY && b.kind == TERM_QUANTITY) {
        double p = a.quantity.value, q = b.quantity.value;
        if (a.quantity.unit != b.quantity.unit)
            return wrong_operands(e, x, a, b);
        if (x->op == AST_ADD || x->op == AST_SUB)
            return quantity_result(e, x, x->op == AST_ADD ? p + q : p - q, a.quantity.unit);
        if (x->op == AST_DIV)
            return q == 0 ? divide_by_zero(e, x) : real_result(e, x, p / q);
        if (is_comparison(x->op))
            return compare(x, p < q ? -1 : p > q);
        return wrong_operands(e, x, a, b);
    }
    if (x->op == AST_MUL && term_is_number(b))
        return quantity_result(e, x, a.quantity.value * term_number(b), a.quantity.unit);
    if (x->op == AST_MUL && term_is_number(a))
        return quantity_result(e, x, term_number(a) * b.quantity.value, b.quantity.unit);
    if (x->op == AST_DIV && a.kind == TERM_QUANTITY && term_is_number(b)) {
        if (term_number(b) == 0)
            return divide_by_zero(e, x);
        return quantity_result(e, x, a.quantity.value / term_number(b), a.quantity.unit);
    }
    return wrong_operands(e, x, a, b);
}

/* ---- tensors ---- */

static ValueId operand(Elab *e, Term t)
{
    if (t.kind == TERM_TENSOR)
        return elab_float(e, t.tensor, t.at);
    return graph_add_const(e->graph, term_number(t), t.at);
}

static Term tensor_binary(Elab *e, const Expr *x, Term a, Term b)
{
    OpKind kind = x->op == AST_ADD   ? OP_ADD
                  : x->op == AST_SUB ? OP_SUB
                  : x->op == AST_MUL ? OP_MUL
                  : x->op == AST_DIV ? OP_DIV
                                     : OP_NONE;
    if (kind == OP_NONE) {
        elab_error(e, x->at, "%s is for constants; %s is %s", ast_op_text(x->op),
                   a.kind == TERM_TENSOR ? "the left side" : "the right side",
                   term_describe(e, a.kind == TERM_TENSOR ? a : b));
        return term_error(x->at);
    }
    if ((a.kind != TERM_TENSOR && !term_is_number(a)) ||
        (b.kind != TERM_TENSOR && !term_is_number(b)))
        return wrong_operands(e, x, a, b);
    ValueId in[2] = {operand(e, a), operand(e, b)};
    if (in[0] == NONE || in[1] == NONE)
        return term_error(x->at);
    Shape shape;
    if (!shape_broadcast(&e->graph->values.at[in[0]].shape, &e->graph->values.at[in[1]].shape,
                         &shape)) {
        elab_error(e, x->at, "the shapes do not fit for %s: %s and %s", ast_op_text(x->op),
                   show_shape(e, a.tensor), show_shape(e, b.tensor));
        note_value(e, a.tensor);
        note_value(e, b.tensor);
        elab_help(e, "dimensions are matched from the last; each pair is equal, or one is 1");
        return term_error(x->at);
    }
    return term_tensor(elab_add1(e, elab_op(e, kind, x->at, NULL), in, 2, DT_F32, shape), x->at);
}

Term arith_binary(Elab *e, const Expr *x, Term a, Term b)
{
    if (a.kind == TERM_ERROR || b.kind == TERM_ERROR)
        return term_error(x->at);
    if (a.kind == TERM_TENSOR || b.kind == TERM_TENSOR)
        return tensor_binary(e, x, a, b);
    if (a.kind == TERM_INT && b.kind == TERM_INT)
        return int_binary(e, x, a.integer, b.integer);
    if (term_is_number(a) && term_is_number(b))
        return real_binary(e, x, a, b);
    if (a.kind == TERM_QUANTITY || b.kind == TERM_QUANTITY)
        return quantity_binary(e, x, a, b);
    if (x->op == AST_EQ || x->op == AST_NE) {
        if (a.kind == TERM_BOOL && b.kind == TERM_BOOL)
            return compare(x, a.truth != b.truth);
        if (a.kind == TERM_STRING && b.kind == TERM_STRING)
            return compare(x, strcmp(a.text, b.text));
    }
    return wrong_operands(e, x, a, b);
}

Term arith_unary(Elab *e, const Expr *x, Term a)
{
    Term r = a;
    r.at = x->at;
    if (a.kind == TERM_ERROR)
        return r;
    if (x->op == AST_NOT) {
        if (a.kind == TERM_BOOL)
            return bool_result(x->at, !a.truth);
    } else if (a.kind == TERM_INT) {
        if (a.integer != INT64_MIN)
            return int_result(x->at, -a.integer);
        elab_error(e, x->at, "-(%lld) does not fit in 64 bits", (long long)a.integer);
        return term_error(x->at);
    } else if (a.kind == TERM_REAL) {
        r.real = -a.real;
        return r;
    } else if (a.kind == TERM_QUANTITY) {
        r.quantity.value = -a.quantity.value;
        return r;
    } else if (a.kind == TERM_TENSOR) {
        ValueId in = elab_float(e, a.tensor, a.at);
        if (in == NONE)
            return term_error(x->at);
        Shape shape = e->graph->values.at[in].shape;
        return term_tensor(elab_add1(e, elab_op(e, OP_NEG, x->at, NULL), &in, 1, DT_F32, shape),
                           x->at);
    }
    elab_error(e, x->at, "%s does not go with %s", ast_op_text(x->op), term_describe(e, a));
    return term_error(x->at);
}
