/* emit_map.c - fused element-wise loops as C functions of the stage.
 *
 * Loops that compute the same on the same shapes are printed once:
 *
 *     typedef struct { float *y0; const float *x0, *x1; } fused_add_gelu_args;
 *     static void fused_add_gelu_range(void *args, int64_t from, int64_t to) …
 *     static void fused_add_gelu(Stage *s, int64_t n, float *y0, const float *x0, …)
 *
 * Where no operand is broadcast it is one flat loop. Else the dimensions are collapsed to
 * [rows, inner], rows being walked one by one and each operand stepping through inner or
 * standing still. */
#include <ctype.h>
#include <string.h>

#include "emit_map.h"

static int dims_of(const Emit *e, ValueId v, int64_t *dim)
{
    const Value *x = &e->p->graph->values.at[v];
    dim[0] = x->batched ? e->p->microbatch : 1;
    for (int i = 0; i < x->shape.rank; i++)
        dim[i + 1] = x->shape.dim[i];
    return x->shape.rank + 1;
}

static void operand_strides(const Emit *e, ValueId v, int rank, const int64_t *dim, int64_t *stride)
{
    int64_t own[MAX_RANK + 1], step = 1;
    int n = dims_of(e, v, own);
    for (int i = 0; i < rank; i++)
        stride[i] = 0;
    for (int i = n - 1, k = rank - 1; i >= 1; i--, k--) {
        stride[k] = own[i] == dim[k] && own[i] != 1 ? step : 0;
        step *= own[i];
    }
    stride[0] = own[0] == dim[0] && own[0] != 1 ? step : 0;
}

/* Neighbouring dimensions become one where every operand walks them as one. */
Space map_space(const Emit *e, const Call *c)
{
    int64_t dim[MAX_RANK + 1], stride[2 * MAP_MAX_INSTRS][MAX_RANK + 1];
    int rank = dims_of(e, c->out[0].value, dim);
    Space s = {.flat = true};
    for (int k = 0; k < c->nin; k++)
        if (c->in[k].buffer != NONE)
            operand_strides(e, c->in[k].value, rank, dim, stride[k]);
    for (int i = 0; i < rank; i++) {
        if (dim[i] == 1)
            continue;
        bool join = s.rank > 0;
        for (int k = 0; k < c->nin && join; k++)
            if (c->in[k].buffer != NONE)
                join = s.stride[k][s.rank - 1] == stride[k][i] * dim[i];
        int at = join ? s.rank - 1 : s.rank++;
        s.dim[at] = join ? s.dim[at] * dim[i] : dim[i];
        for (int k = 0; k < c->nin; k++)
            if (c->in[k].buffer != NONE)
                s.stride[k][at] = stride[k][i];
    }
    if (s.rank == 0) {
        s.rank = 1;
        s.dim[0] = 1;
    }
    s.flat = s.rank == 1;
    return s;
}

bool map_is_short(const Space *s)
{
    int64_t total = 1;
    for (int i = 0; i < s->rank; i++)
        total *= s->dim[i];
    return total < INT32_MAX / 2;
}

static bool same_call(const Emit *e, const Call *a, const Call *b)
{
    const Graph *g = e->p->graph;
    const Op *x = &g->ops.at[a->op], *y = &g->ops.at[b->op];
    if (a->nin != b->nin || !map_equal(x->map, y->map))
        return false;
    Space s = map_space(e, a), t = map_space(e, b);
    if (s.rank != t.rank || (!s.flat && memcmp(s.dim, t.dim, sizeof s.dim) != 0))
        return false;
    if (e->gpu && map_is_short(&s) != map_is_short(&t))
        return false;
    for (int k = 0; k < a->nin; k++) {
        const Value *u = &g->values.at[a->in[k].value], *v = &g->values.at[b->in[k].value];
        if ((u->kind == VALUE_CONST) != (v->kind == VALUE_CONST) || u->type != v->type)
            return false;
        if (u->kind == VALUE_CONST && memcmp(&u->number, &v->number, sizeof u->number) != 0)
            return false;
        if (u->kind != VALUE_CONST &&
            memcmp(s.stride[k], t.stride[k], sizeof(int64_t) * (size_t)s.rank) != 0)
            return false;
    }
    return true;
}

/* "fused_add_gelu", with a number where another loop has the name already. */
static const char *loop_name(Emit *e, const Call *c)
{
    const MapProgram *map = e->p->graph->ops.at[c->op].map;
    Text t = {.arena = e->arena};
    text_add(&t, "fused");
    for (int i = 0; i < map->n && i < 3; i++)
        text_printf(&t, "_%s", op_name(map->instr[i].kind));
    int same = 0;
    size_t n = t.n;
    for (int i = 0; i < e->maps->n; i++) {
        const char *name = e->maps->at[i].name;
        same +=
            strncmp(name, t.at, n) == 0 && (name[n] == 0 || isdigit((unsigned char)name[n + 1]));
    }
    if (same)
        text_printf(&t, "_%d", same + 1);
    return t.at;
}

static int map_number(Emit *e, const Call *c)
{
    for (int i = 0; i < e->maps->n; i++)
        if (same_call(e, e->maps->at[i].call, c))
            return i;
    MapEntry entry = {c, loop_name(e, c), e->stage};
    VEC_PUSH(e->arena, e->maps, entry);
    return e->maps->n - 1;
}

/* The row's expression with a, b, c replaced by the operands. */
const char *map_expression(Emit *e, const MapInstr *x, const Call *c)
{
    const char *s = op_map_expression(x->kind);
    Text t = {.arena = e->arena};
    text_add(&t, "");
    for (size_t i = 0; s[i]; i++) {
        bool word = isalnum((unsigned char)s[i]) || s[i] == '_';
        bool alone = word && !(i > 0 && (isalnum((unsigned char)s[i - 1]) || s[i - 1] == '_')) &&
                     !(isalnum((unsigned char)s[i + 1]) || s[i + 1] == '_');
        if (!alone || s[i] < 'a' || s[i] > 'c' || s[i] - 'a' >= x->noperands) {
            text_add_n(&t, s + i, 1);
            continue;
        }
        int operand = x->operand[s[i] - 'a'];
        if (operand >= 0)
            text_printf(&t, "t%d", operand);
        else if (c->in[~operand].buffer == NONE)
            text_add(&t, emit_number(e, e->p->graph->values.at[c->in[~operand].value].number));
        else
            text_printf(&t, "a%d", ~operand);
    }
    return t.at;
}

/* Loads, arithmetic, stores of one element. */
static void print_element(Emit *e, const Call *c, const MapProgram *map, const Space *s,
                          const char *index)
{
    for (int k = 0; k < c->nin; k++)
        if (c->in[k].buffer != NONE && s->stride[k][s->rank - 1] != 0)
            emit_line(e, "const %s a%d = x%d[%s];",
                      emit_ctype(e, e->p->graph->values.at[c->in[k].value].type), k, k, index);
    for (int i = 0; i < map->n; i++)
        emit_line(e, "const %s t%d = %s;", e->real, i, map_expression(e, &map->instr[i], c));
    for (int i = 0; i < map->nout; i++)
        emit_line(e, "y%d[%s] = t%d;", i, index, map->out[i]);
}

/* Offset of row r for strides over the outer dimensions. */
const char *map_row_offset(Emit *e, const Space *s, const int64_t *stride)
{
    Text t = {.arena = e->arena};
    text_add(&t, "");
    int64_t below = 1;
    for (int i = s->rank - 2; i >= 0; i--) {
        if (stride[i] != 0) {
            if (t.n)
                text_add(&t, " + ");
            if (below > 1)
                text_printf(&t, "r / %lld", (long long)below);
            else
                text_add(&t, "r");
            if (i > 0)
                text_printf(&t, " %% %lld", (long long)s->dim[i]);
            if (stride[i] != 1)
                text_printf(&t, " * %lld", (long long)stride[i]);
        }
        below *= s->dim[i];
    }
    return t.n ? t.at : "0";
}

static void declare_operands(Emit *e, const Call *c, const MapProgram *map)
{
    emit_line(e, "typedef struct {");
    e->indent++;
    for (int i = 0; i < map->nout; i++)
        emit_line(e, "%s *y%d;", e->real, i);
    for (int k = 0; k < c->nin; k++)
        if (c->in[k].buffer != NONE)
            emit_line(e, "const %s *x%d;",
                      emit_ctype(e, e->p->graph->values.at[c->in[k].value].type), k);
    e->indent--;
}

static void print_flat(Emit *e, const Call *c, const MapProgram *map, const Space *s)
{
    for (int i = 0; i < map->nout; i++)
        emit_line(e, "%s *y%d = t->y%d;", e->real, i, i);
    for (int k = 0; k < c->nin; k++) {
        if (c->in[k].buffer == NONE)
            continue;
        const char *type = emit_ctype(e, e->p->graph->values.at[c->in[k].value].type);
        if (s->stride[k][0] != 0)
            emit_line(e, "const %s *x%d = t->x%d;", type, k, k);
        else
            emit_line(e, "const %s a%d = *t->x%d;", type, k, k);
    }
    text_add(e->out, "#pragma GCC ivdep\n");
    emit_line(e, "for (int64_t n = from; n < to; n++) {");
    e->indent++;
    print_element(e, c, map, s, "n");
    emit_close(e);
}

static void print_rows(Emit *e, const Call *c, const MapProgram *map, const Space *s)
{
    int64_t inner = s->dim[s->rank - 1];
    emit_line(e, "for (int64_t r = from; r < to; r++) {");
    e->indent++;
    for (int i = 0; i < map->nout; i++)
        emit_line(e, "%s *y%d = t->y%d + r * %lld;", e->real, i, i, (long long)inner);
    for (int k = 0; k < c->nin; k++) {
        if (c->in[k].buffer == NONE)
            continue;
        const char *type = emit_ctype(e, e->p->graph->values.at[c->in[k].value].type);
        const char *offset = map_row_offset(e, s, s->stride[k]);
        if (s->stride[k][s->rank - 1] == 0)
            emit_line(e, "const %s a%d = t->x%d[%s];", type, k, k, offset);
        else
            emit_line(e, "const %s *x%d = t->x%d + %s;", type, k, k,
                      strchr(offset, '/') || strchr(offset, '%')
                          ? arena_printf(e->arena, "(%s)", offset)
                          : offset);
    }
    text_add(e->out, "#pragma GCC ivdep\n");
    emit_line(e, "for (int64_t n = 0; n < %lld; n++) {", (long long)inner);
    e->indent++;
    print_element(e, c, map, s, "n");
    emit_close(e);
    emit_close(e);
}

/* What the phases call: the loop over the team's threads. */
static void print_entry(Emit *e, const Call *c, const MapProgram *map, const Space *s,
                        const char *name)
{
    int64_t inner = s->flat ? 1 : s->dim[s->rank - 1], grain = 16384 / inner;
    emit_call(e, name);
    emit_arg(e, "Stage *s");
    emit_arg(e, "int64_t n");
    Text values = {.arena = e->arena};
    for (int i = 0; i < map->nout; i++) {
        emit_arg(e, "%s *y%d", e->real, i);
        text_printf(&values, "%sy%d", i ? ", " : "", i);
    }
    for (int k = 0; k < c->nin; k++) {
        if (c->in[k].buffer == NONE)
            continue;
        emit_arg(e, "const %s *x%d", emit_ctype(e, e->p->graph->values.at[c->in[k].value].type), k);
        text_printf(&values, ", x%d", k);
    }
    emit_end(e, "static void ", "");
    emit_line(e, "{");
    e->indent++;
    emit_call(e, "team_range");
    emit_arg(e, "s->team");
    emit_arg(e, "n");
    emit_arg(e, "%lld", (long long)(grain > 0 ? grain : 1));
    emit_arg(e, "%s_range", name);
    emit_arg(e, "&(%s_args){%s}", name, values.at);
    emit_end(e, "", ";");
    emit_close(e);
}

static void print_map(Emit *e, const Call *c, const char *name)
{
    const Op *op = &e->p->graph->ops.at[c->op];
    const MapProgram *map = op->map;
    Space s = map_space(e, c);
    emit_source_comment(e, op->at);
    declare_operands(e, c, map);
    emit_line(e, "} %s_args;", name);
    emit_open(e, "static void %s_range(void *args, int64_t from, int64_t to)", name);
    emit_line(e, "const %s_args *t = args;", name);
    if (s.flat)
        print_flat(e, c, map, &s);
    else
        print_rows(e, c, map, &s);
    emit_close(e);
    print_entry(e, c, map, &s, name);
    emit_blank(e);
}

void map_collect(Emit *e, void (*print)(Emit *e, const Call *c, const char *name))
{
    for (int i = 0; i < e->d->chunks.n; i++)
        for (int k = 0; k < RUN_KINDS; k++) {
            const Run *run = &e->p->chunks.at[e->d->chunks.at[i]].run[k];
            for (int n = 0; n < run->calls.n; n++) {
                const Call *c = &run->calls.at[n];
                if (c->kind != CALL_OP || e->p->graph->ops.at[c->op].kind != OP_FUSED)
                    continue;
                int before = e->maps->n;
                if (map_number(e, c) == before)
                    print(e, c, e->maps->at[before].name);
            }
        }
}

void emit_maps(Emit *e)
{
    map_collect(e, print_map);
}

void emit_fused_call(Emit *e, const Call *c)
{
    Space s = map_space(e, c);
    int64_t inner = s.flat ? 1 : s.dim[s.rank - 1];
    const Value *y = &e->p->graph->values.at[c->out[0].value];
    int64_t each = shape_count(&y->shape);
    emit_call(e, e->maps->at[map_number(e, c)].name);
    emit_arg(e, e->gpu ? "s->gpu" : "s");
    if (each % inner == 0)
        emit_arg_count(e, y->batched, each / inner);
    else /* the batch is part of the inner dimension */
        emit_arg(e, "B * %lld / %lld", (long long)each, (long long)inner);
    for (int i = 0; i < c->nout; i++)
        emit_arg_ref(e, &c->out[i]);
    for (int k = 0; k < c->nin; k++)
        if (c->in[k].buffer != NONE)
            emit_arg_ref(e, &c->in[k]);
    emit_kernel_end(e);
}
