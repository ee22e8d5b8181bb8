/* calls_tensor.c - matmul, softmax, and what only moves elements about. */
#include "calls.h"

/* The type stays: integers may be moved too. */
static Dtype type_of(const Call *c, ValueId v)
{
    return c->e->graph->values.at[v].type;
}

static Shape leading(Shape s)
{
    s.rank -= 2;
    return s;
}

/* [..., m, k] × [..., k, n]; the leading dimensions broadcast. */
bool call_matmul(Call *c)
{
    ValueId in[2] = {call_float(c, "a"), call_float(c, "b")};
    if (in[0] == NONE || in[1] == NONE)
        return false;
    bool ta = call_bool(c, "transpose_a"), tb = call_bool(c, "transpose_b");
    for (int i = 0; i < 2; i++)
        if (value_shape(c, in[i]).rank < 2) {
            elab_error(c->e, c->arg[i].at, "matmul needs matrices, but %s", show_is(c->e, in[i]));
            note_value(c->e, in[i]);
            elab_help(c->e, "reshape(x, [1, n]) makes a vector a row of a matrix");
            return false;
        }
    Shape a = value_shape(c, in[0]), b = value_shape(c, in[1]), y;
    int64_t m = a.dim[a.rank - (ta ? 1 : 2)], k = a.dim[a.rank - (ta ? 2 : 1)];
    int64_t k2 = b.dim[b.rank - (tb ? 1 : 2)], n = b.dim[b.rank - (tb ? 2 : 1)];
    Shape la = leading(a), lb = leading(b);
    bool inner = k == k2;
    if (!inner || !shape_broadcast(&la, &lb, &y)) {
        if (!inner)
            elab_error(c->e, c->at, "the inner dimensions differ, %lld and %lld: %s%s and %s%s",
                       (long long)k, (long long)k2, show_shape(c->e, in[0]),
                       ta ? " transposed" : "", show_shape(c->e, in[1]), tb ? " transposed" : "");
        else
            elab_error(c->e, c->at, "the leading dimensions do not fit: %s and %s",
                       show_shape(c->e, in[0]), show_shape(c->e, in[1]));
        note_value(c->e, in[0]);
        note_value(c->e, in[1]);
        if (!inner && !tb && b.dim[b.rank - 1] == k)
            elab_help(c->e, "transpose_b = true takes the second the other way round");
        return false;
    }
    y.dim[y.rank] = m;
    y.dim[y.rank + 1] = n;
    y.rank += 2;
    if (!call_name_layer(c, NAME_PLAIN))
        return false;
    Op op = elab_op(c->e, OP_MATMUL, c->at, c->layer);
    op.attr.ta = ta;
    op.attr.tb = tb;
    return call_emit(c, op, in, 2, DT_F32, y);
}

bool call_softmax(Call *c)
{
    ValueId x = call_float(c, "x");
    if (x == NONE || !call_rank(c, x, 1, false, "at least one dimension") ||
        !call_name_layer(c, NAME_PLAIN))
        return false;
    return call_emit(c, elab_op(c->e, OP_SOFTMAX, c->at, c->layer), &x, 1, DT_F32,
                     value_shape(c, x));
}

enum { MAX_PARTS = 4096 };

bool call_split(Call *c)
{
    ValueId x = call_tensor(c, "x");
    int64_t n;
    Op op = {0};
    int dim;
    if (!call_int(c, "n", 1, MAX_PARTS, &n) ||
        !call_dim(c, "dim", x, value_shape(c, x).rank - 1, &dim))
        return false;
    Shape part = value_shape(c, x);
    if (part.dim[dim] % n) {
        elab_error(c->e, call_arg(c, "n").at,
                   "dimension %d, of size %lld, does not split into %lld equal parts: %s", dim,
                   (long long)part.dim[dim], (long long)n, show_is(c->e, x));
        note_value(c->e, x);
        return false;
    }
    part.dim[dim] /= n;
    if (!call_name_layer(c, NAME_PLAIN))
        return false;
    op = elab_op(c->e, OP_SPLIT, c->at, c->layer);
    op.attr.a = dim;
    OpId id = elab_add(c->e, op, &x, 1, (int)n, type_of(c, x), part);
    if (id == NONE)
        return false;
    c->result = (Term){.kind = TERM_LIST, .at = c->at};
    c->result.list.n = (int)n;
    c->result.list.of = ARENA_ARRAY(c->e->arena, Term, n);
    for (int i = 0; i < n; i++)
        c->result.list.of[i] = term_tensor(c->e->graph->ops.at[id].out[i], c->at);
    return true;
}

/* Equal but for the dimension along which they are put together. */
static bool concat_fits(Shape a, Shape b, int dim)
{
    if (dim < b.rank)
        b.dim[dim] = a.dim[dim];
    return shape_equal(&a, &b);
}

bool call_concat(Call *c)
{
    int n = c->nmore + 1, dim;
    ValueId *in = ARENA_ARRAY(c->e->arena, ValueId, n);
    bool same = true;
    for (int i = 0; i < n; i++) {
        in[i] = i ? c->more[i - 1].tensor : call_tensor(c, "a");
        same &= type_of(c, in[i]) == type_of(c, in[0]);
    }
    for (int i = 0; i < n && !same; i++)
        if ((in[i] = elab_float(c->e, in[i], i ? c->more[i - 1].at : c->arg[0].at)) == NONE)
            return false;
    if (!call_rank(c, in[0], 1, false, "at least one dimension") ||
        !call_dim(c, "dim", in[0], value_shape(c, in[0]).rank - 1, &dim))
        return false;
    Shape y = value_shape(c, in[0]);
    for (int i = 1; i < n; i++) {
        Shape s = value_shape(c, in[i]);
        if (!concat_fits(y, s, dim)) {
            elab_error(c->e, c->more[i - 1].at,
                       "concat along dimension %d needs the others equal: %s and %s", dim,
                       show_shape(c->e, in[0]), show_shape(c->e, in[i]));
            note_value(c->e, in[0]);
            note_value(c->e, in[i]);
            return false;
        }
        if (!add_i64(y.dim[dim], s.dim[dim], &y.dim[dim]))
            return false;
    }
    if (!call_name_layer(c, NAME_PLAIN))
        return false;
    Op op = elab_op(c->e, OP_CONCAT, c->at, c->layer);
    op.attr.a = dim;
    return call_emit(c, op, in, n, type_of(c, in[0]), y);
}

static bool emit_reshape(Call *c, ValueId x, Shape y)
{
    if (!call_name_layer(c, NAME_PLAIN))
        return false;
    return call_emit(c, elab_op(c->e, OP_RESHAPE, c->at, c->layer), &x, 1, type_of(c, x), y);
}

bool call_reshape(Call *c)
{
    ValueId x = call_tensor(c, "x");
    Shape from = value_shape(c, x), y = {0};
    Term list = call_arg(c, "shape");
    int64_t total = shape_count(&from), known = 1;
    int open = -1;
    bool fits = list.list.n <= MAX_RANK;
    for (int i = 0; i < list.list.n && fits; i++) {
        int64_t d = list.list.of[i].integer;
        if (d == -1 && open < 0)
            open = i;
        else if (d < 1) {
            elab_error(c->e, list.list.of[i].at,
                       "a dimension is at least 1, not %lld; one may be "
                       "-1, which is what remains",
                       (long long)d);
            return false;
        } else
            fits = mul_i64(known, d, &known);
        y.dim[y.rank++] = d;
    }
    if (fits && open >= 0) {
        y.dim[open] = total / known;
        fits = total % known == 0;
    } else
        fits = fits && known == total;
    if (fits)
        return emit_reshape(c, x, y);
    elab_error(c->e, list.at, "%s has %s elements, which do not make this shape",
               show_shape(c->e, x), show_count(c->e->arena, total));
    note_value(c->e, x);
    if (list.list.n > MAX_RANK)
        elab_help(c->e, "a tensor has at most %d dimensions", MAX_RANK);
    else if (open < 0)
        elab_help(c->e, "this shape has %s elements", show_count(c->e->arena, known));
    return false;
}

bool call_flatten(Call *c)
{
    ValueId x = call_tensor(c, "x");
    Shape s = value_shape(c, x);
    return emit_reshape(c, x, shape_of(1, shape_count(&s), 0, 0, 0));
}

bool call_transpose(Call *c)
{
    ValueId x = call_tensor(c, "x");
    Attr at = {0};
    if (!call_dim(c, "a", x, 0, &at.a) || !call_dim(c, "b", x, 0, &at.b) ||
        !call_name_layer(c, NAME_PLAIN))
        return false;
    if (at.a == at.b)
        return call_finish(c, x);
    Shape y = value_shape(c, x);
    int64_t d = y.dim[at.a];
    y.dim[at.a] = y.dim[at.b];
    y.dim[at.b] = d;
    Op op = elab_op(c->e, OP_TRANSPOSE, c->at, c->layer);
    op.attr = at;
    return call_emit(c, op, &x, 1, type_of(c, x), y);
}

bool call_slice(Call *c)
{
    ValueId x = call_tensor(c, "x");
    Attr at = {0};
    if (!call_dim(c, "dim", x, 0, &at.a))
        return false;
    Shape y = value_shape(c, x);
    at.from = call_arg(c, "from").integer;
    at.to = call_arg(c, "to").integer;
    if (at.from < 0 || at.from >= at.to || at.to > y.dim[at.a]) {
        elab_error(c->e, call_arg(c, at.from < 0 || at.from >= y.dim[at.a] ? "from" : "to").at,
                   "%lld to %lld is not a part of dimension %d, 0 to %lld: %s", (long long)at.from,
                   (long long)at.to, at.a, (long long)y.dim[at.a], show_is(c->e, x));
        note_value(c->e, x);
        return false;
    }
    y.dim[at.a] = at.to - at.from;
    if (!call_name_layer(c, NAME_PLAIN))
        return false;
    Op op = elab_op(c->e, OP_SLICE, c->at, c->layer);
    op.attr = at;
    return call_emit(c, op, &x, 1, type_of(c, x), y);
}

bool call_arange(Call *c)
{
    int64_t n;
    if (!call_int(c, "n", 1, INT32_MAX, &n) || !call_name_layer(c, NAME_PLAIN))
        return false;
    return call_emit(c, elab_op(c->e, OP_ARANGE, c->at, c->layer), NULL, 0, DT_I32,
                     shape_of(1, n, 0, 0, 0));
}
