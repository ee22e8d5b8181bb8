/* emit_fused.c - fused element-wise loops as CUDA kernels of the model.
 *
 * In:  the fused operations of all stages. Kernels that compute the same on the same shapes are
 *      printed once.
 * Out: fused.cu, a kernel and its launcher for each, and fused.h, the launchers' prototypes:
 *
 *     static __device__ void fused_add_one(float &y0, float a0, float a1)    one element
 *     static __global__ void fused_add_kernel(float *y0, …)                  a loop over the grid
 *     extern "C" int fused_add(const Gpu *gpu, int64_t n, float *y0, …)      what stages call
 *
 * Four elements are loaded and stored at once wherever rows allow. */
#include <string.h>

#include "emit_map.h"

enum { THREADS = 256 };

typedef struct {
    Emit *e;
    const Call *c;
    const MapProgram *map;
    Space space;
    const char *name;
    int64_t inner;     /* elements of a row; 1 row where flat */
    bool vector;       /* four at once */
    const char *index; /* type of element numbers */
} Kernel;

static Dtype operand_type(const Kernel *k, int operand)
{
    return k->e->p->graph->values.at[k->c->in[operand].value].type;
}

static const char *type_of(const Kernel *k, int operand)
{
    return emit_ctype(k->e, operand_type(k, operand));
}

static Dtype result_type(const Kernel *k, int result)
{
    return k->map->instr[k->map->out[result]].type;
}

static bool present(const Kernel *k, int operand)
{
    return k->c->in[operand].buffer != NONE;
}

static bool steps(const Kernel *k, int operand)
{
    return k->space.stride[operand][k->space.rank - 1] != 0;
}

static Kernel kernel_of(Emit *e, const Call *c, const char *name)
{
    Kernel k = {.e = e,
                .c = c,
                .map = e->p->graph->ops.at[c->op].map,
                .space = map_space(e, c),
                .name = name};
    const Space *s = &k.space;
    k.inner = s->dim[s->rank - 1];
    k.vector = s->flat || k.inner % 4 == 0;
    for (int i = 0; i < c->nin && !s->flat; i++)
        for (int d = 0; d < s->rank - 1 && present(&k, i) && steps(&k, i); d++)
            k.vector = k.vector && s->stride[i][d] % 4 == 0;
    k.index = map_is_short(s) ? "uint32_t" : "int64_t";
    return k;
}

/* One element: operands in, results out; 16 bits are widened and rounded here. */
static void print_one(const Kernel *k)
{
    Emit *e = k->e;
    emit_call(e, arena_printf(e->arena, "%s_one", k->name));
    for (int i = 0; i < k->map->nout; i++)
        emit_arg(e, "%s &y%d", emit_ctype(e, result_type(k, i)), i);
    for (int i = 0; i < k->c->nin; i++)
        if (present(k, i))
            emit_arg(e, "%s %c%d", type_of(k, i), dtype_is_half(operand_type(k, i)) ? 'h' : 'a', i);
    emit_end(e, "static __device__ __forceinline__ void ", "");
    emit_line(e, "{");
    e->indent++;
    for (int i = 0; i < k->c->nin; i++)
        if (present(k, i) && dtype_is_half(operand_type(k, i)))
            emit_line(e, "const float a%d = mdl_from_%s(h%d);", i, dtype_name(operand_type(k, i)),
                      i);
    map_values(e, k->map, k->c);
    for (int i = 0; i < k->map->nout; i++)
        emit_line(e, "y%d = %s;", i, map_result(e, k->map, i));
    emit_close(e);
    emit_blank(e);
}

static void parameters(const Kernel *k)
{
    Emit *e = k->e;
    for (int i = 0; i < k->map->nout; i++)
        emit_arg(e, "%s *y%d", emit_ctype(e, result_type(k, i)), i);
    for (int i = 0; i < k->c->nin; i++)
        if (present(k, i))
            emit_arg(e, "const %s *x%d", type_of(k, i), i);
}

static void call_one(const Kernel *k, const char *result, const char *lane)
{
    Emit *e = k->e;
    emit_call(e, arena_printf(e->arena, "%s_one", k->name));
    for (int i = 0; i < k->map->nout; i++)
        emit_arg(e, result, i);
    for (int i = 0; i < k->c->nin; i++)
        if (present(k, i))
            emit_arg(e, "a%d%s", i, steps(k, i) ? lane : "");
    emit_end(e, "", ";");
}

/* Where operand i of the element at `at` (flat) or in row r, column c is. */
static const char *place_of(const Kernel *k, int operand)
{
    Emit *e = k->e;
    if (k->space.flat)
        return steps(k, operand) ? "at" : "0";
    const char *row = map_row_offset(e, &k->space, k->space.stride[operand]);
    bool whole = strcmp(row, arena_printf(e->arena, "r * %lld", (long long)k->inner)) == 0;
    if (whole && steps(k, operand))
        return "at";
    if (!steps(k, operand))
        return row;
    return strcmp(row, "0") == 0 ? "c" : arena_printf(e->arena, "%s + c", row);
}

static void load_operands(const Kernel *k, bool four)
{
    Emit *e = k->e;
    for (int i = 0; i < k->c->nin; i++) {
        if (!present(k, i))
            continue;
        if (!steps(k, i) || !four)
            emit_line(e, "const %s a%d = x%d[%s];", type_of(k, i), i, i, place_of(k, i));
        else
            emit_line(e, "const Four<%s> a%d = load_four(x%d + %s);", type_of(k, i), i, i,
                      strchr(place_of(k, i), ' ') ? arena_printf(e->arena, "(%s)", place_of(k, i))
                                                  : place_of(k, i));
    }
}

static void print_loop(const Kernel *k, bool four)
{
    Emit *e = k->e;
    bool row = false, column = false;
    for (int i = 0; i < k->c->nin && !k->space.flat; i++) {
        const char *p = present(k, i) ? place_of(k, i) : "";
        row = row || strchr(p, 'r');
        column = column || strchr(p, 'c');
    }
    if (row)
        emit_line(e, "const %s r = at / %lld;", k->index, (long long)k->inner);
    if (column)
        emit_line(e, "const %s c = at %% %lld;", k->index, (long long)k->inner);
    load_operands(k, four);
    if (four) {
        for (int i = 0; i < k->map->nout; i++)
            emit_line(e, "Four<%s> b%d;", emit_ctype(e, result_type(k, i)), i);
        text_add(e->out, "#pragma unroll\n");
        emit_line(e, "for (int k = 0; k < 4; k++)");
        e->indent++;
        call_one(k, "b%d.at[k]", ".at[k]");
        e->indent--;
        for (int i = 0; i < k->map->nout; i++)
            emit_line(e, "store_four(y%d + at, b%d);", i, i);
    } else {
        call_one(k, "y%d[at]", "");
    }
}

static void print_kernel(const Kernel *k)
{
    Emit *e = k->e;
    emit_call(e, arena_printf(e->arena, "%s_kernel", k->name));
    emit_arg(e, "%s n", k->index);
    parameters(k);
    emit_line(e, "static __global__ void __launch_bounds__(%d)", THREADS);
    emit_end(e, "", "");
    emit_line(e, "{");
    e->indent++;
    const char *t = k->index;
    emit_line(e, "const %s thread = (%s)blockIdx.x * %d + threadIdx.x;", t, t, THREADS);
    emit_line(e, "const %s step = (%s)gridDim.x * %d;", t, t, THREADS);
    if (k->vector) {
        emit_line(e, "for (%s at = 4 * thread; at + 3 < n; at += 4 * step) {", t);
        e->indent++;
        print_loop(k, true);
        emit_close(e);
        if (k->space.flat) { /* others, of any length, share the kernel */
            emit_line(e, "const %s at = n / 4 * 4 + thread; /* the last one to three */", t);
            emit_line(e, "if (at < n) {");
            e->indent++;
            print_loop(k, false);
            emit_close(e);
        }
    } else {
        emit_line(e, "for (%s at = thread; at < n; at += step) {", t);
        e->indent++;
        print_loop(k, false);
        emit_close(e);
    }
    emit_close(e);
    emit_blank(e);
}

static void prototype(const Kernel *k, const char *before, const char *after)
{
    emit_call(k->e, k->name);
    emit_arg(k->e, "const Gpu *gpu");
    emit_arg(k->e, "int64_t n");
    parameters(k);
    emit_end(k->e, before, after);
}

static void print_launcher(const Kernel *k)
{
    Emit *e = k->e;
    prototype(k, "extern \"C\" int ", "");
    emit_line(e, "{");
    e->indent++;
    const char *count =
        k->space.flat ? "n" : arena_printf(e->arena, "n * %lld", (long long)k->inner);
    emit_line(e, "const unsigned blocks = gpu_blocks(%s, %d);", count,
              k->vector ? 4 * THREADS : THREADS);
    emit_call(
        e, arena_printf(e->arena, "%s_kernel<<<blocks, %d, 0, gpu->compute>>>", k->name, THREADS));
    emit_arg(e, strpbrk(count, " *") ? "(%s)(%s)" : "(%s)%s", k->index, count);
    for (int i = 0; i < k->map->nout; i++)
        emit_arg(e, "y%d", i);
    for (int i = 0; i < k->c->nin; i++)
        if (present(k, i))
            emit_arg(e, "x%d", i);
    emit_end(e, "", ";");
    emit_line(e, "return (int)cudaGetLastError();");
    emit_close(e);
    emit_blank(e);
}

static void print_fused(Emit *e, const Call *c, const char *name)
{
    Kernel k = kernel_of(e, c, name);
    emit_source_comment(e, e->p->graph->ops.at[c->op].at);
    print_one(&k);
    print_kernel(&k);
    print_launcher(&k);
}

static void print_prototype(Emit *e, const MapEntry *entry)
{
    Kernel k = kernel_of(e, entry->call, entry->name);
    emit_source_comment(e, e->p->graph->ops.at[entry->call->op].at);
    prototype(&k, "int ", ";");
}

void emit_fused_files(const Program *p, const Diag *d, MapList *maps, EmittedFiles *files)
{
    Arena *a = p->graph->arena;
    Text cu = {.arena = a}, h = {.arena = a};
    Emit e = {.p = p,
              .diag = d,
              .arena = a,
              .out = &cu,
              .real = p->real_name,
              .gpu = true,
              .maps = maps,
              .last_file = NONE};
    emit_line(&e,
              "/* fused.cu: the element-wise kernels of the model %s, of one operation or several.",
              p->model->name);
    emit_line(&e, " * n counts elements, or rows where operands are broadcast. */");
    emit_line(&e, "#include <map.cuh>");
    emit_blank(&e);
    emit_line(&e, "#include \"fused.h\"");
    emit_blank(&e);
    for (int i = 0; i < p->devices.n; i++) {
        e.stage = i;
        e.d = &p->devices.at[i];
        map_collect(&e, print_fused);
    }
    if (maps->n == 0)
        return;
    e.out = &h;
    e.last_line = 0;
    emit_line(&e,
              "/* fused.h: the fused kernels of the model %s; each returns a status of gpu.h. */",
              p->model->name);
    emit_line(&e, "#ifndef FUSED_H");
    emit_line(&e, "#define FUSED_H");
    emit_blank(&e);
    emit_line(&e, "#include <gpu.h>");
    emit_blank(&e);
    emit_line(&e, "#ifdef __cplusplus");
    emit_line(&e, "extern \"C\" {");
    emit_line(&e, "#endif");
    emit_blank(&e);
    for (int i = 0; i < maps->n; i++) {
        e.d = &p->devices.at[maps->at[i].device];
        print_prototype(&e, &maps->at[i]);
    }
    emit_blank(&e);
    emit_line(&e, "#ifdef __cplusplus");
    emit_line(&e, "}");
    emit_line(&e, "#endif");
    emit_blank(&e);
    emit_line(&e, "#endif");
    VEC_PUSH(a, files, (EmittedFile){"fused.cu", cu.at});
    VEC_PUSH(a, files, (EmittedFile){"fused.h", h.at});
}
