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
 * standing still.
 *
 * A loop that is the tail of a kernel is a function of a part of one row, which the kernel calls:
 *
 *     static void fused_gelu_tile(void *args, int64_t r, int64_t from, int64_t to) … */
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

static const Op *op_of(const Emit *e, const Call *c)
{
    return &e->p->graph->ops.at[c->op];
}

static const char *type_of(const Emit *e, const Ref *r)
{
    return emit_ctype(e, e->p->graph->values.at[r->value].type);
}

/* Runs inside of a kernel, row by row; on GPUs tails are kernels of their own. */
static bool is_tile(const Emit *e, const Call *c)
{
    return has_tail(op_of(e, c)) && !e->gpu;
}

Call map_call(const Emit *e, const Call *c)
{
    const Op *op = op_of(e, c);
    if (!has_tail(op))
        return *c;
    const int first = tail_operands(op->kind);
    Call map = *c;
    map.nin = c->nin - first + 1;
    map.nout = ((const MapProgram *)op->map)->nout;
    map.in = ARENA_ARRAY(e->arena, Ref, map.nin);
    map.in[0] = c->out[tail_result(op)];
    memcpy(map.in + 1, c->in + first, sizeof *map.in * (size_t)(map.nin - 1));
    return map;
}

/* Neighbouring dimensions become one where every operand walks them as one; a tile's rows are
 * those of the last dimension. */
Space map_space(const Emit *e, const Call *c)
{
    int64_t dim[MAX_RANK + 1], stride[2 * MAP_MAX_INSTRS][MAX_RANK + 1];
    int rank = dims_of(e, c->out[0].value, dim);
    Space s = {.flat = true};
    for (int k = 0; k < c->nin; k++)
        if (c->in[k].buffer != NONE)
            operand_strides(e, c->in[k].value, rank, dim, stride[k]);
    for (int i = 0; i < rank; i++) {
        const bool row = i == rank - 1 && is_tile(e, c);
        if (dim[i] == 1 && !row)
            continue;
        bool join = s.rank > 0 && !row;
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
    s.flat = s.rank == 1 && !is_tile(e, c);
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
    if (a->nin != b->nin || a->nout != b->nout || !map_equal(x->map, y->map) ||
        is_tile(e, a) != is_tile(e, b))
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
    const MapProgram *map = op_of(e, c)->map;
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
    MapEntry entry = {arena_copy(e->arena, c, sizeof *c), loop_name(e, c), e->stage};
    VEC_PUSH(e->arena, e->maps, entry);
    return e->maps->n - 1;
}

/* The row's expression with a, b, c replaced by the operands. */
static const char *map_expression(Emit *e, const MapInstr *x, const Call *c)
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

static bool is_result(const MapProgram *map, int value)
{
    for (int i = 0; i < map->nout; i++)
        if (map->out[i] == value)
            return true;
    return false;
}

static bool is_operand(const MapProgram *map, int value)
{
    for (int i = value + 1; i < map->n; i++)
        for (int k = 0; k < map->instr[i].noperands; k++)
            if (map->instr[i].operand[k] == value)
                return true;
    return false;
}

/* Results of 16 bits are rounded once, and widened again where they are operands, too. */
void map_values(Emit *e, const MapProgram *map, const Call *c)
{
    for (int i = 0; i < map->n; i++) {
        const char *value = map_expression(e, &map->instr[i], c);
        const char *type = dtype_name(map->instr[i].type);
        if (!dtype_is_half(map->instr[i].type)) {
            emit_line(e, "const %s t%d = %s;", e->real, i, value);
        } else if (is_result(map, i)) {
            emit_line(e, "const half16 r%d = mdl_to_%s(%s);", i, type, value);
            if (is_operand(map, i))
                emit_line(e, "const %s t%d = mdl_from_%s(r%d);", e->real, i, type, i);
        } else {
            emit_line(e, "const %s t%d = mdl_round_%s(%s);", e->real, i, type, value);
        }
    }
}

const char *map_result(const Emit *e, const MapProgram *map, int result)
{
    const int value = map->out[result];
    return arena_printf(e->arena, dtype_is_half(map->instr[value].type) ? "r%d" : "t%d", value);
}

/* What an operand is read as: 16 bits are widened. */
static void print_load(Emit *e, const Call *c, int k, const char *from)
{
    const Dtype t = e->p->graph->values.at[c->in[k].value].type;
    if (dtype_is_half(t))
        emit_line(e, "const float a%d = mdl_from_%s(%s);", k, dtype_name(t), from);
    else
        emit_line(e, "const %s a%d = %s;", emit_ctype(e, t), k, from);
}

/* Loads, arithmetic, stores of one element. */
static void print_element(Emit *e, const Call *c, const MapProgram *map, const Space *s,
                          const char *index)
{
    for (int k = 0; k < c->nin; k++)
        if (c->in[k].buffer != NONE && s->stride[k][s->rank - 1] != 0)
            print_load(e, c, k, arena_printf(e->arena, "x%d[%s]", k, index));
    map_values(e, map, c);
    for (int i = 0; i < map->nout; i++)
        emit_line(e, "y%d[%s] = %s;", i, index, map_result(e, map, i));
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
        emit_line(e, "%s *y%d;", type_of(e, &c->out[i]), i);
    for (int k = 0; k < c->nin; k++)
        if (c->in[k].buffer != NONE)
            emit_line(e, "const %s *x%d;", type_of(e, &c->in[k]), k);
    e->indent--;
}

static void print_flat(Emit *e, const Call *c, const MapProgram *map, const Space *s)
{
    for (int i = 0; i < map->nout; i++)
        emit_line(e, "%s *y%d = t->y%d;", type_of(e, &c->out[i]), i, i);
    for (int k = 0; k < c->nin; k++) {
        if (c->in[k].buffer == NONE)
            continue;
        const char *type = type_of(e, &c->in[k]);
        if (s->stride[k][0] != 0)
            emit_line(e, "const %s *x%d = t->x%d;", type, k, k);
        else
            print_load(e, c, k, arena_printf(e->arena, "*t->x%d", k));
    }
    text_add(e->out, "#pragma GCC ivdep\n");
    emit_line(e, "for (int64_t n = from; n < to; n++) {");
    e->indent++;
    print_element(e, c, map, s, "n");
    emit_close(e);
}

/* A line, or two where it is long: the second begins with a "+". */
static void emit_sum(Emit *e, char *line)
{
    char *cut = NULL;
    for (char *at = strstr(line, " + "); at && at - line + 4 * e->indent < 96;
         at = strstr(at + 1, " + "))
        cut = at;
    if (cut && strlen(line) + (size_t)(4 * e->indent) > 100) {
        *cut = 0;
        emit_line(e, "%s", line);
        emit_line(e, "    %s", cut + 1);
    } else {
        emit_line(e, "%s", line);
    }
}

/* Row r of the results and operands, its elements `from` to `to`. */
static void print_row(Emit *e, const Call *c, const MapProgram *map, const Space *s,
                      const char *from, const char *to)
{
    int64_t inner = s->dim[s->rank - 1];
    for (int i = 0; i < map->nout; i++)
        emit_line(e, "%s *y%d = t->y%d + r * %lld;", type_of(e, &c->out[i]), i, i,
                  (long long)inner);
    for (int k = 0; k < c->nin; k++) {
        if (c->in[k].buffer == NONE)
            continue;
        const char *type = type_of(e, &c->in[k]);
        const char *offset = map_row_offset(e, s, s->stride[k]);
        bool sum = strchr(offset, '/') || strchr(offset, '%') || strchr(offset, '+');
        if (s->stride[k][s->rank - 1] == 0)
            print_load(e, c, k, arena_printf(e->arena, "t->x%d[%s]", k, offset));
        else if (strcmp(offset, "0") == 0)
            emit_line(e, "const %s *x%d = t->x%d;", type, k, k);
        else
            emit_sum(e, arena_printf(e->arena,
                                     sum ? "const %s *x%d = t->x%d + (%s);"
                                         : "const %s *x%d = t->x%d + %s;",
                                     type, k, k, offset));
    }
    text_add(e->out, "#pragma GCC ivdep\n");
    emit_line(e, "for (int64_t n = %s; n < %s; n++) {", from, to);
    e->indent++;
    print_element(e, c, map, s, "n");
    emit_close(e);
}

static void print_rows(Emit *e, const Call *c, const MapProgram *map, const Space *s)
{
    emit_line(e, "for (int64_t r = from; r < to; r++) {");
    e->indent++;
    print_row(e, c, map, s, "0", arena_printf(e->arena, "%lld", (long long)s->dim[s->rank - 1]));
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
    int last = NONE; /* operand in memory */
    for (int i = 0; i < map->nout; i++)
        emit_arg(e, "%s *y%d", type_of(e, &c->out[i]), i);
    for (int k = 0; k < c->nin; k++) {
        if (c->in[k].buffer == NONE)
            continue;
        emit_arg(e, "const %s *x%d", type_of(e, &c->in[k]), k);
        last = k;
    }
    emit_end(e, "static void ", "");
    emit_line(e, "{");
    e->indent++;
    emit_call(e, "team_range");
    emit_arg(e, "s->team");
    emit_arg(e, "n");
    emit_arg(e, "%lld", (long long)(grain > 0 ? grain : 1));
    emit_arg(e, "%s_range", name);
    for (int i = 0; i < map->nout; i++) {
        const char *open = i ? "" : arena_printf(e->arena, "&(%s_args){", name);
        emit_arg(e, "%sy%d%s", open, i, last == NONE && i == map->nout - 1 ? "}" : "");
    }
    for (int k = 0; k <= last; k++)
        if (c->in[k].buffer != NONE)
            emit_arg(e, "x%d%s", k, k == last ? "}" : "");
    emit_end(e, "", ";");
    emit_close(e);
}

static void print_map(Emit *e, const Call *c, const char *name)
{
    const MapProgram *map = op_of(e, c)->map;
    Space s = map_space(e, c);
    emit_source_comment(e, map->at);
    declare_operands(e, c, map);
    emit_line(e, "} %s_args;", name);
    if (is_tile(e, c)) {
        emit_open(e, "static void %s_tile(void *args, int64_t r, int64_t from, int64_t to)", name);
        emit_line(e, "const %s_args *t = args;", name);
        print_row(e, c, map, &s, "from", "to");
        emit_close(e);
        emit_blank(e);
        return;
    }
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
                if (run->calls.at[n].kind != CALL_OP || !op_of(e, &run->calls.at[n])->map)
                    continue;
                Call c = map_call(e, &run->calls.at[n]);
                int before = e->maps->n;
                if (map_number(e, &c) == before)
                    print(e, e->maps->at[before].call, e->maps->at[before].name);
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

/* A list in braces, an argument at a time, so that it may go on in the next line. */
void emit_tail(Emit *e, const Call *c)
{
    Call map = map_call(e, c);
    const char *name = e->maps->at[map_number(e, &map)].name;
    emit_arg(e, "&(Tail){%s_tile", name);
    for (int i = 0; i < map.nout; i++)
        emit_arg(e, i ? "%s%s" : "&(%s_args){%s", i ? "" : name, emit_ref(e, &map.out[i]));
    int last = map.nin - 1;
    while (last >= 0 && map.in[last].buffer == NONE)
        last--;
    for (int k = 0; k <= last; k++)
        if (map.in[k].buffer != NONE)
            emit_arg(e, k == last ? "%s}}" : "%s", emit_ref(e, &map.in[k]));
}
