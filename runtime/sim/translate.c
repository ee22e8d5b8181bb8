/* translate.c - a PtxModule → the C file of a module.
 *
 *     helpers                    simt.h and simt_*.h stand before it (module_build.c)
 *     numbers                    where shared variables lie, where functions' sites begin
 *     fn_3, k_4, ...             a C function per function and entry
 *     sim_module_table           entries, their sites and parameters, global variables
 *
 * Functions are translated into texts first, because what stands above them (which registers
 * and variables are declared, where sites begin) is known afterwards. An instruction that is
 * not understood ends its function; the entries that reach it carry its text instead of code.
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
        if (v->space == PTX_GLOBAL || v->space == PTX_CONST)
            fprintf(out, "    const uint64_t g%u = t->service->global(t, global_%u);\n", i, i);
        else if (v->space == PTX_PARAM && !is_formal(t, i))
            fprintf(out, "    char b%u[%llu] __attribute__((aligned(16)));\n", i,
                    (unsigned long long)(v->bytes ? v->bytes : 1));
    }
    for (uint32_t i = 0; i < t->f->nparams; i++) {
        const uint32_t p = t->f->params[i];
        if (t->done->placed[p])
            fprintf(out, "    sim_place(t, frame + %llu, a%u, %llu, %u, 0);\n",
                    (unsigned long long)t->offsets[p], p,
                    (unsigned long long)t->module->variables[p].bytes,
                    t->module->variables[p].align);
    }
}

static void write_signature(const Translator *t, uint32_t index, FILE *out)
{
    const PtxFunction *f = &t->module->functions[index];
    if (f->entry) {
        fprintf(out, "static void k_%u(SimThread *t)", index);
        return;
    }
    fprintf(out, "static bool fn_%u(SimThread *t, uint32_t base, uint64_t frame", index);
    for (uint32_t i = 0; i < f->nresults; i++)
        fprintf(out, ", char *a%u", f->results[i]);
    for (uint32_t i = 0; i < f->nparams; i++)
        fprintf(out, ", char *a%u", f->params[i]);
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

/* ---------------------------------------------------------------------- tables */

/* As a C string, whatever it holds. */
static void write_string(FILE *out, const char *s)
{
    fputc('"', out);
    for (; *s; s++) {
        const unsigned char c = (unsigned char)*s;
        if (c < 32 || c > 126 || c == '"' || c == '\\' || c == '?')
            fprintf(out, "\\%03o", c);
        else
            fputc(c, out);
    }
    fputc('"', out);
}

static void write_site(const Translator *t, FILE *out, PtxPlace place, const char *instruction)
{
    const PtxModule *m = t->module;
    const char *file = place.file < m->nfiles ? m->files[place.file].name : NULL;
    fprintf(out, "    {");
    write_string(out, file ? file : "");
    fprintf(out, ", %u, ", place.line <= INT32_MAX ? place.line : 0);
    write_string(out, instruction);
    fprintf(out, "},\n");
}

static void write_sites(const Translator *t, FILE *out, const Translated *d)
{
    for (uint32_t i = 0; i < d->nsites; i++)
        write_site(t, out, d->sites[i].place, d->sites[i].text);
}

static uint32_t function_sites(const Translator *t)
{
    return site_base(t, t->module->nfunctions);
}

static void write_entry_tables(Translator *t, uint32_t k, FILE *out)
{
    const PtxModule *m = t->module;
    const PtxFunction *f = &m->functions[k];
    fprintf(out, "static const SimSite k%u_sites[] = {\n", k);
    write_site(t, out, f->place, "entry");
    write_sites(t, out, &t->functions[k]);
    for (uint32_t i = 0; i < m->nfunctions; i++)
        if (!m->functions[i].entry)
            write_sites(t, out, &t->functions[i]);
    fprintf(out, "};\nstatic const uint32_t k%u_offsets[] = {", k);
    for (uint32_t i = 0; i < f->nparams; i++)
        fprintf(out, "%llu, ", (unsigned long long)t->offsets[f->params[i]]);
    fprintf(out, "0}, k%u_sizes[] = {", k);
    for (uint32_t i = 0; i < f->nparams; i++)
        fprintf(out, "%llu, ", (unsigned long long)m->variables[f->params[i]].bytes);
    fprintf(out, "0};\n");
}

static uint64_t param_bytes(const Translator *t, const PtxFunction *f)
{
    if (f->nparams == 0)
        return 0;
    const uint32_t last = f->params[f->nparams - 1];
    return t->offsets[last] + t->module->variables[last].bytes;
}

static uint64_t shared_before(Translator *t, uint32_t k)
{
    return reaches_module_shared(t, k) ? t->shared_module : 0;
}

static void write_kernel_row(Translator *t, uint32_t k, FILE *out)
{
    const PtxFunction *f = &t->module->functions[k];
    const Translated *d = &t->functions[k];
    uint64_t shared = shared_before(t, k) + d->shared_bytes, local = local_need(t, k);
    const char *why = reachable_unknown(t, k);
    if (!why && param_bytes(t, f) > PARAMS_MAX)
        why = text(t, "more than %d bytes of parameters, in %s", PARAMS_MAX, f->name->text);
    if (!why && (shared > UINT32_MAX / 2 || local > UINT32_MAX / 2)) {
        why = text(t, "more memory than there is, in %s", f->name->text);
        shared = local = 0;
    }
    const uint32_t align = d->shared_align > t->shared_align ? d->shared_align : t->shared_align;
    fprintf(out, "    {.name = ");
    write_string(out, f->name->text);
    fprintf(out, ", .sites = k%u_sites, .nsites = %u,\n     ", k,
            1 + d->nsites + function_sites(t));
    if (why) {
        fprintf(out, ".unknown = ");
        write_string(out, why);
    } else {
        fprintf(out, ".run = k_%u", k);
    }
    fprintf(out, ", .nparams = %u, .param_offset = k%u_offsets, .param_size = k%u_sizes,\n",
            f->nparams, k, k);
    fprintf(out, "     .param_bytes = %llu, .shared_bytes = %llu, .shared_align = %u,\n",
            (unsigned long long)param_bytes(t, f), (unsigned long long)shared, align ? align : 1);
    fprintf(out, "     .local_bytes = %llu, .max_threads = %u},\n", (unsigned long long)local,
            f->max_threads);
}

static bool is_global(const PtxVariable *v)
{
    return (v->space == PTX_GLOBAL || v->space == PTX_CONST) && !v->external;
}

/* The number of a variable among the globals: its place in the table. */
static uint32_t global_number(const PtxModule *m, uint32_t index)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < index; i++)
        n += is_global(&m->variables[i]);
    return n;
}

static void write_initial(const PtxModule *m, uint32_t index, FILE *out)
{
    const PtxVariable *v = &m->variables[index];
    if (v->initial) {
        fprintf(out, "static const unsigned char v%u[] = {", index);
        for (uint64_t i = 0; i < v->initial_bytes; i++)
            fprintf(out, i % 24 == 23 ? "%u,\n" : "%u,", v->initial[i]);
        fprintf(out, "};\n");
    }
    if (v->nreferences == 0)
        return;
    fprintf(out, "static const SimRelocation v%u_relocations[] = {\n", index);
    for (uint32_t i = 0; i < v->nreferences; i++) {
        const PtxReference *r = &v->references[i];
        const bool known =
            r->name->meaning == PTX_VARIABLE && is_global(&m->variables[r->name->index]);
        const uint64_t of_function =
            r->name->meaning == PTX_FUNCTION ? function_address(r->name->index) : 0;
        fprintf(out, "    {%llu, UINT64_C(%llu), %u, %u, %u},\n", (unsigned long long)r->offset,
                (unsigned long long)(r->addend + of_function),
                known ? global_number(m, r->name->index) : UINT32_MAX, r->first, r->bytes);
    }
    fprintf(out, "};\n");
}

static void write_globals(const PtxModule *m, FILE *out)
{
    for (uint32_t i = 0; i < m->nvariables; i++)
        if (is_global(&m->variables[i]))
            write_initial(m, i, out);
    fprintf(out, "static const SimGlobalTable globals[] = {\n");
    for (uint32_t i = 0; i < m->nvariables; i++) {
        const PtxVariable *v = &m->variables[i];
        if (!is_global(v))
            continue;
        fprintf(out, "    {.name = ");
        write_string(out, v->name->text);
        fprintf(out, ", .bytes = %llu, .align = %u, .constant = %d", (unsigned long long)v->bytes,
                v->align, v->space == PTX_CONST);
        if (v->initial)
            fprintf(out, ", .initial = v%u, .initial_bytes = %llu", i,
                    (unsigned long long)v->initial_bytes);
        if (v->nreferences > 0)
            fprintf(out, ", .relocations = v%u_relocations, .nrelocations = %u", i, v->nreferences);
        fprintf(out, "},\n");
    }
    fprintf(out, "    {.name = 0}};\n");
}

/* Numbers that the functions' texts name. */
static void write_numbers(Translator *t, FILE *out)
{
    const PtxModule *m = t->module;
    uint32_t globals = 0;
    for (uint32_t i = 0; i < m->nvariables; i++) {
        const PtxVariable *v = &m->variables[i];
        if (is_global(v))
            fprintf(out, "#define global_%u %u\n", i, globals++);
        if (v->space != PTX_SHARED || v->external || v->bytes == 0)
            continue;
        const bool own = v->function >= 0 && m->functions[v->function].entry;
        fprintf(out, "#define s%u UINT64_C(%llu)\n", i,
                (unsigned long long)(t->offsets[i] +
                                     (own ? shared_before(t, (uint32_t)v->function) : 0)));
    }
    uint32_t sites = 0;
    for (uint32_t k = 0; k < m->nfunctions; k++) {
        const PtxFunction *f = &m->functions[k];
        fprintf(out, "#define frame_%u UINT64_C(%llu)\n", k, (unsigned long long)frame_bytes(t, k));
        if (f->entry) {
            fprintf(out, "#define k%u_functions %u\n", k, 1 + t->functions[k].nsites);
            fprintf(out, "#define k%u_params %llu\n", k, (unsigned long long)param_bytes(t, f));
        } else {
            fprintf(out, "#define fn_%u_sites %u\n", k, sites);
            sites += t->functions[k].nsites;
        }
    }
}

static void write_module(Translator *t, FILE *out)
{
    const PtxModule *m = t->module;
    uint32_t entries = 0;
    write_numbers(t, out);
    for (uint32_t k = 0; k < m->nfunctions; k++)
        if (t->functions[k].text && !m->functions[k].entry) {
            write_signature(t, k, out);
            fputs(";\n", out);
        }
    for (uint32_t k = 0; k < m->nfunctions; k++)
        if (t->functions[k].text && !reachable_unknown(t, k))
            fputs(t->functions[k].text, out);
    for (uint32_t k = 0; k < m->nfunctions; k++)
        if (m->functions[k].entry && m->functions[k].defined)
            write_entry_tables(t, k, out);
    write_globals(m, out);
    fprintf(out, "static const SimKernelTable kernels[] = {\n");
    for (uint32_t k = 0; k < m->nfunctions; k++)
        if (m->functions[k].entry && m->functions[k].defined) {
            write_kernel_row(t, k, out);
            entries++;
        }
    fprintf(out,
            "    {.name = 0}};\nconst SimModuleTable sim_module_table = {SIM_ABI, kernels, "
            "%u, globals, %u};\n",
            entries, global_number(m, m->nvariables));
}

bool translate_module(const PtxModule *module, FILE *out, char *problem, size_t size)
{
    Translator *t = calloc(1, sizeof *t);
    volatile bool done = false; /* also after the jump from where memory ran out */
    snprintf(problem, size, "out of memory");
    if (!t)
        return false;
    t->module = module;
    t->arena.failed = &t->no_memory;
    if (setjmp(t->no_memory) == 0) {
        t->functions = ptx_alloc(&t->arena, (module->nfunctions + 1u) * sizeof *t->functions);
        layout_module(t);
        done = true;
        for (uint32_t k = 0; k < module->nfunctions && done; k++)
            if (module->functions[k].defined)
                done = translate_function(t, k);
        if (done)
            write_module(t, out);
        done = done && !ferror(out);
    } else if (t->out) {
        fclose(t->out);
        done = false;
    }
    for (uint32_t k = 0; t->functions && k < module->nfunctions; k++)
        free(t->functions[k].text);
    ptx_arena_free(&t->arena);
    free(t);
    return done;
}
