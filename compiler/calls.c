/* calls.c - a call in an expression: finds the block or the row of ops.def it names, fits
 * the arguments, and lets the rule of the row make its operations. */
#include "calls.h"

#include <math.h>
#include <string.h>

typedef struct {
    const char *name, *signature;
    OpKind kind;
    bool (*rule)(Call *c);
} CallRow;

/* Rows without a signature cannot be called. */
static const CallRow rows[] = {
#define OP(ID, name, sig) {#name, sig, OP_##ID, call_##name},
#define MAP(ID, name, sig, expr) {#name, sig, OP_##ID, call_map},
#define SUGAR(name, sig) {#name, sig, OP_NONE, call_##name},
#include "ops.def"
};

enum { NROWS = sizeof rows / sizeof *rows };

static int row_find(const char *name)
{
    for (int i = 0; i < NROWS; i++)
        if (rows[i].signature && !strcmp(rows[i].name, name))
            return i;
    return -1;
}

/* Signatures are parsed when first used, and kept for the compilation. */
static const Signature *row_signature(Elab *e, int row)
{
    if (!e->signatures)
        e->signatures = ARENA_ARRAY(e->arena, struct Signature *, NROWS);
    if (!e->signatures[row]) {
        e->signatures[row] = ARENA_NEW(e->arena, struct Signature);
        signature_parse(e->arena, e->signatures[row], rows[row].name, rows[row].signature);
        e->signatures[row]->numbers = op_is_map(rows[row].kind);
    }
    return e->signatures[row];
}

static Term unknown_call(Elab *e, const Expr *x)
{
    VEC(const char *) names = {0};
    for (int i = 0; i < NROWS; i++)
        if (rows[i].signature)
            VEC_PUSH(e->arena, &names, rows[i].name);
    for (int i = 0; i < e->blocks.n; i++)
        VEC_PUSH(e->arena, &names, e->blocks.at[i]->block.name.text);
    elab_error(e, x->at, "there is no call and no block %s", x->call.callee.text);
    elab_help_nearest(e, x->call.callee.text, names.at, names.n);
    return term_error(x->at);
}

static Term call_row(Elab *e, const Expr *x, const Name *hint, int row)
{
    Call c = {.e = e,
              .kind = rows[row].kind,
              .name = rows[row].name,
              .expr = x,
              .hint = hint,
              .at = x->at,
              .sig = row_signature(e, row),
              .result = {.kind = TERM_ERROR, .at = x->at}};
    if (c.sig->variadic)
        c.more = ARENA_ARRAY(e->arena, Term, x->call.args.n);
    if (match_args(e, c.sig, x, c.arg, c.more, &c.nmore) && rows[row].rule(&c))
        return c.result;
    layer_break(e, x, hint);
    return term_error(x->at);
}

Term eval_call(Elab *e, const Expr *x, const Name *hint)
{
    const char *name = x->call.callee.text;
    int block = table_find(&e->block_index, name), row = row_find(name);
    if (block < 0 && initial_is_call(name))
        return initial_call(e, x);
    if (block < 0 && row < 0)
        return unknown_call(e, x);
    if (!e->scope && !(block < 0 && op_is_map(rows[row].kind))) {
        elab_error(e, x->at, "only constants can be used here, and %s makes a tensor", name);
        return term_error(x->at);
    }
    return block >= 0 ? run_block(e, e->blocks.at[block], x, hint) : call_row(e, x, hint, row);
}

/* ---- arguments ---- */

Term call_arg(const Call *c, const char *name)
{
    for (int i = 0; i < c->sig->n; i++)
        if (!strcmp(c->sig->param[i].name, name))
            return c->arg[i];
    return (Term){.kind = TERM_ABSENT, .at = c->at};
}

bool call_has(const Call *c, const char *name)
{
    return call_arg(c, name).kind != TERM_ABSENT;
}

ValueId call_tensor(const Call *c, const char *name)
{
    return call_arg(c, name).tensor;
}

ValueId call_float(Call *c, const char *name)
{
    Term t = call_arg(c, name);
    return elab_float(c->e, t.tensor, t.at);
}

bool call_bool(const Call *c, const char *name)
{
    return call_arg(c, name).truth;
}

double call_real(const Call *c, const char *name)
{
    return call_arg(c, name).real;
}

/* A default has no place of its own. */
static Place arg_place(const Call *c, Term t)
{
    return t.at.line ? t.at : c->at;
}

bool call_int(Call *c, const char *name, int64_t min, int64_t max, int64_t *out)
{
    Term t = call_arg(c, name);
    *out = t.integer;
    if (t.integer >= min && t.integer <= max)
        return true;
    if (max < min)
        elab_error(c->e, arg_place(c, t), "%s cannot have %s", c->name, name);
    else if (t.integer > MAX_DIM)
        elab_error(c->e, arg_place(c, t), "%s of %s is at most 2^40, not %lld", name, c->name,
                   (long long)t.integer);
    else if (max >= MAX_DIM)
        elab_error(c->e, arg_place(c, t), "%s of %s is at least %lld, not %lld", name, c->name,
                   (long long)min, (long long)t.integer);
    else
        elab_error(c->e, arg_place(c, t), "%s of %s is from %lld to %lld, not %lld", name, c->name,
                   (long long)min, (long long)max, (long long)t.integer);
    return false;
}

bool call_dim(Call *c, const char *name, ValueId of, int otherwise, int *out)
{
    int rank = value_shape(c, of).rank;
    Term t = call_arg(c, name);
    int64_t dim = t.kind == TERM_ABSENT ? otherwise : t.integer;
    if (dim < 0 || dim >= rank) {
        elab_error(c->e, arg_place(c, t), "%s has no dimension %lld: %s", c->name, (long long)dim,
                   show_is(c->e, of));
        elab_help(c->e, "dimensions count from 0, per sample: the batch has no number");
        return false;
    }
    *out = (int)dim;
    return true;
}

bool call_rank(Call *c, ValueId v, int rank, bool exact, const char *like)
{
    int have = value_shape(c, v).rank;
    if (exact ? have == rank : have >= rank)
        return true;
    elab_error(c->e, call_arg(c, c->sig->param[0].name).at, "%s needs %s, but %s", c->name, like,
               show_is(c->e, v));
    note_value(c->e, v);
    return false;
}

Shape value_shape(const Call *c, ValueId v)
{
    return c->e->graph->values.at[v].shape;
}

bool call_finish(Call *c, ValueId v)
{
    c->result = term_tensor(v, c->at);
    return v != NONE;
}

bool call_emit(Call *c, Op op, const ValueId *in, int nin, Dtype type, Shape shape)
{
    return call_finish(c, elab_add1(c->e, op, in, nin, type, shape));
}

/* The function of a number; NAN where it has no value. */
static double map_number(OpKind kind, double x)
{
    switch (kind) {
    case OP_NEG:
        return -x;
    case OP_RELU:
        return x > 0 ? x : 0;
    case OP_GELU:
        return 0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
    case OP_SILU:
        return x / (1 + exp(-x));
    case OP_SIGMOID:
        return 1 / (1 + exp(-x));
    case OP_TANH:
        return tanh(x);
    case OP_EXP:
        return exp(x);
    case OP_LOG:
        return log(x);
    case OP_SQRT:
        return sqrt(x);
    case OP_ABS:
        return fabs(x);
    default:
        return NAN;
    }
}

/* relu(x) and all the others that are element by element; of a number, a number. */
bool call_map(Call *c)
{
    Term arg = call_arg(c, "x");
    if (term_is_number(arg)) {
        double y = map_number(c->kind, term_number(arg));
        if (!isfinite(y)) {
            elab_error(c->e, c->at, "%s of %g is no number", c->name, term_number(arg));
            return false;
        }
        c->result = (Term){.kind = TERM_REAL, .at = c->at, .real = y};
        return true;
    }
    ValueId x = call_float(c, "x");
    if (x == NONE || !call_name_layer(c, NAME_PLAIN))
        return false;
    return call_emit(c, elab_op(c->e, c->kind, c->at, c->layer), &x, 1, DT_F32, value_shape(c, x));
}
