/* translate.c - an entry of a PtxModule → its C, and what the engine is told of it.
 *
 *     helpers                    simt.h and simt_*.h stand before it (module_build.c)
 *     numbers                    where shared variables lie, where functions' sites begin
 *     fn_1, fn_2, ..., kernel    a C function per function that is reached, and the entry's
 *     sim_code                   where it begins
 *
 * The entry comes first, then what it calls, and so on. Functions are translated into texts,
 * because what stands above them (which registers and variables are declared, where sites begin)
 * is known afterwards. At the first instruction that is not understood the kernel is given up.
 */
#include <stdlib.h>
#include <string.h>

#include "translate.h"

enum { PARAMS_MAX = 32764 }; /* bytes of a kernel's parameters */

/* ---------------------------------------------------------------- instructions */

static const TranslateRow *row_of(const TranslateRow *rows, const char *opcode)
{
    for (; rows->opcode; rows++)
        if (strcmp(rows->opcode, opcode) == 0)
            return rows;
    return NULL;
}

/* The same opcode is another instruction for floats than for whole numbers. */
static bool has_float_type(const PtxInstruction *i)
{
    for (uint32_t w = 0; w < i->nwords; w++) {
        const PtxType type = ptx_type(i->words[w]);
        if (type_is_float(type) || type_is_half(type))
            return true;
    }
    return false;
}

static const TranslateRow *find_row(const PtxInstruction *i)
{
    const TranslateRow *const tables[] = {has_float_type(i) ? translate_float_rows
                                                            : translate_integer_rows,
                                          translate_memory_rows,
                                          translate_compare_rows,
                                          translate_convert_rows,
                                          translate_control_rows,
                                          translate_warp_rows,
                                          translate_matrix_rows};
    const TranslateRow *row = NULL;
    for (size_t n = 0; n < sizeof tables / sizeof *tables && !row; n++)
        row = row_of(tables[n], i->opcode);
    return row;
}

static void translate_instruction(Translator *t, const PtxInstruction *i)
{
    t->i = i;
    t->words_used = 0;
    t->ftz = t->sat = t->relu = t->nan = false;
    t->rounding = "rn";
    const TranslateRow *row = find_row(i);
    if (!row)
        unknown(t, NULL);
    if (i->guarded) {
        const PtxOperand guard = {
            .kind = PTX_OP_REGISTER, .index = i->guard, .negated = i->guard_negated};
        emit(t, "    if (%s) {\n", value(t, &guard, PTX_PRED));
    }
    row->translate(t);
    const uint32_t all = i->nwords >= 32 ? UINT32_MAX : (1u << i->nwords) - 1;
    if ((t->words_used & all) != all)
        unknown(t, NULL);
    if (i->guarded)
        emit(t, "    }\n");
}

/* ------------------------------------------------------------------- functions */

static bool has_cp_async(const PtxFunction *f)
{
    for (uint32_t i = 0; i < f->ncode; i++)
        if (f->code[i].opcode && strcmp(f->code[i].opcode, "cp") == 0)
            return true;
    return false;
}

/* The statements, as a text that the arena does not own; NULL: unknown or no memory. */
static char *translate_code(Translator *t)
{
    char *code = NULL;
    size_t size = 0;
    t->out = open_memstream(&code, &size);
    if (!t->out)
        return NULL;
    const bool failed = setjmp(t->unknown) != 0;
    if (!failed) {
        for (uint32_t n = 0; n < t->f->ncode; n++) {
            const PtxInstruction *i = &t->f->code[n];
            if (i->opcode)
                translate_instruction(t, i);
            else if (!i->targets)
                emit(t, "L%u:;\n", i->label);
        }
    }
    const bool written = !ferror(t->out);
    if (fclose(t->out) != 0 || !written || failed) {
        free(code);
        code = NULL;
    }
    t->out = NULL;
    return code;
}

static void declare_registers(Translator *t, FILE *out)
{
    static const char letters[] = "pchrlfd";
    static const char *const types[] = {"bool",     "uint8_t", "uint16_t", "uint32_t",
                                        "uint64_t", "float",   "double"};
    for (size_t k = 0; k < sizeof types / sizeof *types; k++) {
        uint32_t n = 0;
        for (uint32_t i = 0; i < t->f->nregisters; i++) {
            const PtxType type = t->f->registers[i];
            const char letter = type == PTX_PRED  ? 'p'
                                : type == PTX_F32 ? 'f'
                                : type == PTX_F64 ? 'd'
                                                  : "chrl"[__builtin_ctz(ptx_type_bytes(type))];
            if (t->done->registers[i] && letter == letters[k])
                fprintf(out, n++ == 0 ? "    %s %c%u = 0" : "%.0s, %c%u = 0", types[k], letter, i);
        }
        if (n > 0)
            fprintf(out, ";\n");
    }
}

/* Variables that the statements name: addresses of globals, buffers of calls. */
static void declare_variables(Translator *t, FILE *out)
{
    for (uint32_t i = 0; i < t->module->nvariables; i++) {
        const PtxVariable *v = &t->module->variables[i];
        if (!t->done->variables[i])
            continue;
        const uint32_t n = variable_number(t, i);
        if (v->space == PTX_GLOBAL || v->space == PTX_CONST)
            fprintf(out, "    const uint64_t g%u = t->service->global(t, %u);\n", n, n);
        else if (v->space == PTX_PARAM && !is_formal(t, i))
            fprintf(out, "    char b%u[%llu] __attribute__((aligned(16)));\n", n,
                    (unsigned long long)(v->bytes ? v->bytes : 1));
    }
    for (uint32_t i = 0; i < t->f->nparams; i++) {
        const uint32_t p = t->f->params[i];
        if (t->done->placed[p])
            fprintf(out, "    sim_place(t, frame + %llu, a%u, %llu, %u, 0);\n",
                    (unsigned long long)t->offsets[p], variable_number(t, p),
                    (unsigned long long)t->module->variables[p].bytes,
                    t->module->variables[p].align);
    }
}

static void write_signature(Translator *t, uint32_t index, FILE *out)
{
    const PtxFunction *f = &t->module->functions[index];
    if (f->entry) {
        fprintf(out, "static void kernel(SimThread *t)");
        return;
    }
    fprintf(out, "static bool fn_%u(SimThread *t, uint32_t base, uint64_t frame",
            t->functions[index].number);
    for (uint32_t i = 0; i < f->nresults; i++)
        fprintf(out, ", char *a%u", variable_number(t, f->results[i]));
    for (uint32_t i = 0; i < f->nparams; i++)
        fprintf(out, ", char *a%u", variable_number(t, f->params[i]));
    fprintf(out, ")");
}

static char *assemble_function(Translator *t, const char *code)
{
    char *whole = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&whole, &size);
    if (!out)
        return NULL;
    write_signature(t, t->index, out);
    fprintf(out, "\n{\n    bool carry = false;\n");
    if (t->f->entry)
        fprintf(out, "    const uint64_t frame = 0;\n");
    if (t->done->has_async)
        fprintf(out, "    SimAsync async = {.n = 0};\n");
    declare_registers(t, out);
    declare_variables(t, out);
    fputs(code, out);
    fprintf(out, "%s}\n", t->f->entry ? "" : "    return false;\n");
    const bool written = !ferror(out);
    if (fclose(out) != 0 || !written) {
        free(whole);
        return NULL;
    }
    return whole;
}

static bool translate_function(Translator *t, uint32_t index)
{
    t->index = index;
    t->f = &t->module->functions[index];
    t->done = &t->functions[index];
    t->done->registers = ptx_alloc(&t->arena, t->f->nregisters + 1u);
    t->done->variables = ptx_alloc(&t->arena, t->module->nvariables + 1u);
    t->done->placed = ptx_alloc(&t->arena, t->module->nvariables + 1u);
    t->done->has_async = has_cp_async(t->f);
    char *code = translate_code(t);
    if (t->done->unknown)
        return true;
    t->done->text = code ? assemble_function(t, code) : NULL;
    free(code);
    return t->done->text != NULL;
}

/* False: no memory. What is reached grows meanwhile; an unknown instruction ends it. */
static bool translate_reached(Translator *t)
{
    note_reached(t, t->entry);
    for (uint32_t n = 0; n < t->nreached; n++) {
        if (!translate_function(t, t->reached[n]))
            return false;
        if (t->done->unknown)
            return true;
    }
    return true;
}

/* ---------------------------------------------------------------------- code */

static uint64_t param_bytes(const Translator *t)
{
    const PtxFunction *f = &t->module->functions[t->entry];
    if (f->nparams == 0)
        return 0;
    const uint32_t last = f->params[f->nparams - 1];
    return t->offsets[last] + t->module->variables[last].bytes;
}

/* Numbers that the functions' texts name. */
static void write_numbers(Translator *t, FILE *out)
{
    const PtxModule *m = t->module;
    for (uint32_t i = 0; i < m->nvariables; i++)
        if (m->variables[i].space == PTX_SHARED && t->numbers[i])
            fprintf(out, "#define s%u UINT64_C(%llu)\n", variable_number(t, i),
                    (unsigned long long)t->offsets[i]);
    fprintf(out, "#define kernel_functions %u\n", 1 + t->functions[t->entry].nsites);
    fprintf(out, "#define kernel_params %llu\n", (unsigned long long)param_bytes(t));
    uint32_t sites = 0;
    for (uint32_t n = 0; n < t->nreached; n++) {
        const uint32_t k = t->reached[n];
        fprintf(out, "#define frame_%u UINT64_C(%llu)\n", n, (unsigned long long)frame_bytes(t, k));
        fprintf(out, "#define fn_%u_sites %u\n", n, sites);
        sites += n > 0 ? t->functions[k].nsites : 0;
    }
}

static bool write_code(Translator *t, TranslatedKernel *kernel)
{
    t->out = open_memstream(&kernel->code, &kernel->size);
    if (!t->out)
        return false;
    write_numbers(t, t->out);
    for (uint32_t n = 1; n < t->nreached; n++) {
        write_signature(t, t->reached[n], t->out);
        fputs(";\n", t->out);
    }
    for (uint32_t n = 0; n < t->nreached; n++)
        fputs(t->functions[t->reached[n]].text, t->out);
    fputs("const SimCode sim_code = {SIM_ABI, kernel};\n", t->out);
    const bool written = !ferror(t->out), closed = fclose(t->out) == 0;
    t->out = NULL;
    return written && closed;
}

/* --------------------------------------------------------------------- table */

/* A file's name is the module's, which stays. */
static SimSite make_site(const Translator *t, PtxArena *arena, PtxPlace place,
                         const char *instruction)
{
    const PtxModule *m = t->module;
    const char *file = place.file < m->nfiles ? m->files[place.file].name : NULL;
    return (SimSite){.file = file ? file : "",
                     .line = place.line <= INT32_MAX ? (int)place.line : 0,
                     .instruction = ptx_text(arena, "%s", instruction)};
}

static void make_sites(const Translator *t, TranslatedKernel *kernel)
{
    uint32_t n = 1;
    for (uint32_t i = 0; i < t->nreached; i++)
        n += t->functions[t->reached[i]].nsites;
    SimSite *sites = ptx_alloc(&kernel->arena, n * sizeof *sites), *next = sites;
    *next++ = make_site(t, &kernel->arena, t->module->functions[t->entry].place, "entry");
    for (uint32_t i = 0; i < t->nreached; i++) {
        const Translated *d = &t->functions[t->reached[i]];
        for (uint32_t k = 0; k < d->nsites; k++)
            *next++ = make_site(t, &kernel->arena, d->sites[k].place, d->sites[k].text);
    }
    kernel->table.sites = sites;
    kernel->table.nsites = n;
}

static void make_params(const Translator *t, TranslatedKernel *kernel)
{
    const PtxFunction *f = &t->module->functions[t->entry];
    uint32_t *offsets = ptx_alloc(&kernel->arena, (f->nparams + 1u) * sizeof *offsets);
    uint32_t *sizes = ptx_alloc(&kernel->arena, (f->nparams + 1u) * sizeof *sizes);
    for (uint32_t i = 0; i < f->nparams; i++) {
        offsets[i] = (uint32_t)t->offsets[f->params[i]];
        sizes[i] = (uint32_t)t->module->variables[f->params[i]].bytes;
    }
    kernel->table.nparams = f->nparams;
    kernel->table.param_offset = offsets;
    kernel->table.param_size = sizes;
    kernel->table.param_bytes = (uint32_t)param_bytes(t);
}

/* Why the kernel cannot be run; NULL: it can. */
static const char *why_not(Translator *t)
{
    const char *name = t->module->functions[t->entry].name->text;
    if (t->done->unknown) /* of the function at which it was given up */
        return t->done->unknown;
    if (param_bytes(t) > PARAMS_MAX)
        return text(t, "more than %d bytes of parameters, in %s", PARAMS_MAX, name);
    layout_shared(t);
    if (t->shared_bytes > UINT32_MAX / 2 || local_need(t) > UINT32_MAX / 2)
        return text(t, "more memory than there is, in %s", name);
    return NULL;
}

static void make_table(Translator *t, TranslatedKernel *kernel)
{
    const PtxFunction *f = &t->module->functions[t->entry];
    const char *why = why_not(t);
    uint32_t *variables = ptx_alloc(&kernel->arena, (t->nglobals + 1u) * sizeof *variables);
    for (uint32_t i = 0; i < t->nglobals; i++)
        variables[i] = t->globals[i];
    kernel->variables = variables;
    kernel->nvariables = t->nglobals;
    kernel->table.name = f->name->text;
    kernel->table.max_threads = f->max_threads;
    kernel->table.unknown = why ? ptx_text(&kernel->arena, "%s", why) : NULL;
    if (why)
        return;
    make_sites(t, kernel);
    make_params(t, kernel);
    kernel->table.shared_bytes = (uint32_t)t->shared_bytes;
    kernel->table.shared_align = t->shared_align ? t->shared_align : 1;
    kernel->table.local_bytes = (uint32_t)local_need(t);
}

/* ---------------------------------------------------------------------- kernels */

static bool translate(Translator *t, TranslatedKernel *kernel)
{
    const PtxModule *m = t->module;
    t->functions = ptx_alloc(&t->arena, (m->nfunctions + 1u) * sizeof *t->functions);
    t->numbers = ptx_alloc(&t->arena, (m->nvariables + 1u) * sizeof *t->numbers);
    layout_begin(t);
    if (!translate_reached(t))
        return false;
    make_table(t, kernel);
    return kernel->table.unknown || write_code(t, kernel);
}

bool translate_kernel(const PtxModule *module, uint32_t entry, TranslatedKernel *kernel)
{
    Translator *t = calloc(1, sizeof *t);
    volatile bool done = false; /* also after the jump from where memory ran out */
    memset(kernel, 0, sizeof *kernel);
    if (!t)
        return false;
    t->module = module;
    t->entry = entry;
    t->arena.failed = kernel->arena.failed = &t->no_memory;
    if (setjmp(t->no_memory) == 0)
        done = translate(t, kernel);
    else if (t->out)
        fclose(t->out);
    for (uint32_t k = 0; t->functions && k < module->nfunctions; k++)
        free(t->functions[k].text);
    ptx_arena_free(&t->arena);
    kernel->arena.failed = NULL;
    free(t);
    return done;
}

void translate_free(TranslatedKernel *kernel)
{
    ptx_arena_free(&kernel->arena);
    free(kernel->code);
    memset(kernel, 0, sizeof *kernel);
}
