/* translate_layout.c - where things lie, and who reaches whom.
 *
 * Shared memory: the kernel's own variables, and those of the module and of functions that it or
 * a function that it reaches names. Local memory: a function's variables lie in its frame, which
 * begins where the caller's ends. Sites: the kernel's own, then those of the functions that it
 * reaches, so that a function's site is a number that its callers' base is added to.
 */
#include <stdlib.h>
#include <string.h>

#include "translate.h"

enum { RECURSION_BYTES = 1 << 16 };

static uint64_t align_up(uint64_t offset, uint64_t align)
{
    return (offset + align - 1) / align * align;
}

uint64_t frame_add(Translator *t, uint32_t function, uint64_t bytes, uint32_t align)
{
    Translated *d = &t->functions[function];
    const uint64_t offset = align_up(d->local_bytes, align);
    d->local_bytes = offset + bytes;
    return offset;
}

uint64_t function_address(uint32_t function)
{
    return UINT64_C(0x230000000000) + 16 * (function + UINT64_C(1));
}

/* Functions whose address is taken, by code or by an initial value. */
static void find_pointed_to(Translator *t)
{
    const PtxModule *m = t->module;
    for (uint32_t k = 0; k < m->nfunctions; k++)
        for (uint32_t i = 0; i < m->functions[k].ncode; i++) {
            const PtxInstruction *at = &m->functions[k].code[i];
            for (uint32_t n = 0; at->opcode && n < at->noperands; n++)
                if (at->operands[n].kind == PTX_OP_FUNCTION && strcmp(at->opcode, "call") != 0)
                    t->functions[at->operands[n].index].pointed_to = true;
        }
    for (uint32_t i = 0; i < m->nvariables; i++)
        for (uint32_t n = 0; n < m->variables[i].nreferences; n++) {
            const PtxName *name = m->variables[i].references[n].name;
            if (name->meaning == PTX_FUNCTION)
                t->functions[name->index].pointed_to = true;
        }
}

void layout_begin(Translator *t)
{
    const PtxModule *m = t->module;
    const PtxFunction *f = &m->functions[t->entry];
    t->offsets = ptx_alloc(&t->arena, (m->nvariables + 1u) * sizeof *t->offsets);
    for (uint32_t i = 0; i < m->nvariables; i++) {
        const PtxVariable *v = &m->variables[i];
        if (v->space == PTX_LOCAL && v->function >= 0)
            t->offsets[i] = frame_add(t, (uint32_t)v->function, v->bytes, v->align);
    }
    uint64_t offset = 0;
    for (uint32_t i = 0; i < f->nparams; i++) {
        const PtxVariable *v = &m->variables[f->params[i]];
        offset = align_up(offset, v->align);
        t->offsets[f->params[i]] = offset;
        offset += v->bytes;
    }
    find_pointed_to(t);
}

static bool is_named(const Translator *t, uint32_t variable)
{
    for (uint32_t i = 0; i < t->nreached; i++)
        if (t->functions[t->reached[i]].variables[variable])
            return true;
    return false;
}

void layout_shared(Translator *t)
{
    const PtxModule *m = t->module;
    for (uint32_t i = 0; i < m->nvariables; i++) {
        const PtxVariable *v = &m->variables[i];
        if (v->space != PTX_SHARED || (v->function != (int32_t)t->entry && !is_named(t, i)))
            continue;
        t->shared_align = v->align > t->shared_align ? v->align : t->shared_align;
        if (v->bytes == 0 || v->external)
            continue;
        t->offsets[i] = align_up(t->shared_bytes, v->align);
        t->shared_bytes = t->offsets[i] + v->bytes;
    }
}

uint64_t frame_bytes(const Translator *t, uint32_t function)
{
    return align_up(t->functions[function].local_bytes, 16);
}

/* ---------------------------------------------------------------------- sites */

const char *instruction_text(Translator *t, const PtxInstruction *i)
{
    const char *s = i->opcode ? i->opcode : "";
    for (uint32_t w = 0; w < i->nwords; w++)
        s = text(t, "%s.%s", s, i->words[w]);
    return s;
}

static bool same_site(const Site *a, const Site *b)
{
    return a->place.file == b->place.file && a->place.line == b->place.line &&
           strcmp(a->text, b->text) == 0;
}

const char *site(Translator *t)
{
    Translated *d = t->done;
    const Site s = {t->i->place, instruction_text(t, t->i)};
    uint32_t n = d->nsites;
    for (uint32_t back = 1; back <= 8 && back <= d->nsites; back++)
        if (same_site(&d->sites[d->nsites - back], &s))
            n = d->nsites - back;
    if (n == d->nsites) {
        d->sites = ptx_grow(&t->arena, d->sites, d->nsites, sizeof *d->sites);
        d->sites[d->nsites++] = s;
    }
    return t->f->entry ? text(t, "%u", n + 1) : text(t, "base + fn_%u_sites + %u", d->number, n);
}

/* -------------------------------------------------------------------- reaching */

void note_reached(Translator *t, uint32_t function)
{
    Translated *d = &t->functions[function];
    if (d->reached)
        return;
    d->reached = true;
    d->number = t->nreached;
    t->reached = ptx_grow(&t->arena, t->reached, t->nreached, sizeof *t->reached);
    t->reached[t->nreached++] = function;
}

void note_callee(Translator *t, uint32_t function)
{
    Translated *d = t->done;
    note_reached(t, function);
    for (uint32_t i = 0; i < d->ncallees; i++)
        if (d->callees[i] == function)
            return;
    d->callees = ptx_grow(&t->arena, d->callees, d->ncallees, sizeof *d->callees);
    d->callees[d->ncallees++] = function;
}

bool is_global(const PtxVariable *v)
{
    return (v->space == PTX_GLOBAL || v->space == PTX_CONST) && !v->external;
}

/* Global variables are counted by themselves: the engine is asked for them by number. */
uint32_t variable_number(Translator *t, uint32_t variable)
{
    const bool global = is_global(&t->module->variables[variable]);
    if (t->numbers[variable] == 0 && global) {
        t->globals = ptx_grow(&t->arena, t->globals, t->nglobals, sizeof *t->globals);
        t->globals[t->nglobals++] = variable;
        t->numbers[variable] = t->nglobals;
    } else if (t->numbers[variable] == 0) {
        t->numbers[variable] = ++t->nnumbers;
    }
    return t->numbers[variable] - 1;
}

/* The deepest chain of frames. A function's depth is known when those of all that it calls
 * are; `path` holds the functions that are being looked at, `next` how far each has come. */
uint64_t local_need(Translator *t)
{
    enum { NOT_SEEN, BEING_SEEN, KNOWN };
    const uint32_t n = t->module->nfunctions;
    uint8_t *state = ptx_alloc(&t->arena, n);
    uint32_t *path = ptx_alloc(&t->arena, n * sizeof *path), depth = 0;
    uint32_t *next = ptx_alloc(&t->arena, n * sizeof *next);
    uint64_t *need = ptx_alloc(&t->arena, n * sizeof *need);
    bool recursive = false;
    path[depth++] = t->entry;
    while (depth > 0) {
        const uint32_t at = path[depth - 1];
        const Translated *d = &t->functions[at];
        state[at] = BEING_SEEN;
        if (next[at] < d->ncallees) {
            const uint32_t callee = d->callees[next[at]++];
            recursive = recursive || state[callee] == BEING_SEEN;
            if (state[callee] == NOT_SEEN)
                path[depth++] = callee;
            continue;
        }
        for (uint32_t i = 0; i < d->ncallees; i++)
            if (need[d->callees[i]] > need[at])
                need[at] = need[d->callees[i]];
        need[at] += frame_bytes(t, at);
        state[at] = KNOWN;
        depth--;
    }
    return need[t->entry] + (recursive ? RECURSION_BYTES : 0);
}
