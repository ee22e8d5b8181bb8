/* translate_control.c - bra brx call ret exit trap nanosleep.
 *
 * A branch is a goto. A function of PTX is a C function that returns whether the thread has
 * ended in it; its parameters and results are arrays of bytes of the caller's.
 */
#include <string.h>

#include "translate.h"

static void translate_bra(Translator *t)
{
    word(t, "uni");
    operand_count(t, 1, 1);
    const PtxOperand *to = operand(t, 0);
    if (to->kind != PTX_OP_LABEL)
        unknown(t, NULL);
    emit(t, "    goto L%u;\n", *to->target);
}

static const PtxOperand *targets_of(Translator *t, const PtxOperand *label)
{
    if (label->kind != PTX_OP_LABEL)
        unknown(t, NULL);
    for (uint32_t i = 0; i < t->f->ncode; i++) {
        const PtxInstruction *at = &t->f->code[i];
        if (!at->opcode && at->targets && at->label == *label->target && at->noperands == 1)
            return &at->operands[0];
    }
    unknown(t, NULL);
}

static void translate_brx(Translator *t)
{
    if (!word(t, "idx"))
        unknown(t, NULL);
    word(t, "uni");
    operand_count(t, 2, 2);
    const PtxOperand *targets = targets_of(t, operand(t, 1));
    emit(t, "    switch (%s) {\n", source(t, 0, PTX_U32));
    for (uint32_t i = 0; i < targets->nitems; i++) {
        if (targets->items[i].kind != PTX_OP_LABEL)
            unknown(t, NULL);
        emit(t, "    case %u: goto L%u;\n", i, *targets->items[i].target);
    }
    emit(t, "    default: t->service->trap(t, %s);\n    }\n", site(t));
}

/* The end of the thread, or of the function at hand alone. */
static void end(Translator *t, bool thread)
{
    emit_async_finish(t);
    emit(t, t->f->entry ? "    return;\n" : "    return %s;\n", thread ? "true" : "false");
}

/* --------------------------------------------------------------------- calls */

/* Bytes of a parameter of a call. */
static const char *argument(Translator *t, const PtxOperand *o, uint64_t bytes)
{
    if (o->kind != PTX_OP_VARIABLE || o->value != 0)
        unknown(t, NULL);
    const PtxVariable *v = &t->module->variables[o->index];
    if (v->space != PTX_PARAM || v->function != (int32_t)t->index || v->bytes < bytes)
        unknown(t, NULL);
    for (uint32_t i = 0; i < t->f->nparams; i++)
        if (t->f->params[i] == o->index)
            unknown(t, NULL);
    t->done->variables[o->index] = 1;
    return text(t, "b%u", variable_number(t, o->index));
}

static const PtxOperand *list_item(Translator *t, const PtxOperand *list, uint32_t n)
{
    if (!list || list->kind != PTX_OP_LIST || n >= list->nitems)
        unknown(t, NULL);
    return &list->items[n];
}

static bool call_of_system(Translator *t, const char *name, const PtxOperand *results,
                           const PtxOperand *arguments)
{
    if (strcmp(name, "vprintf") == 0) {
        const char *format = argument(t, list_item(t, arguments, 0), 8);
        const char *values = argument(t, list_item(t, arguments, 1), 8);
        const char *result = argument(t, list_item(t, results, 0), 4);
        emit(t, "    ptx_store_s32(%s, t->service->print(t, ptx_load_u64(%s), ", result, format);
        emit(t, "ptx_load_u64(%s), %s));\n", values, site(t));
        return true;
    }
    if (strcmp(name, "__assertfail") == 0) {
        emit(t, "    t->service->trap(t, %s);\n", site(t));
        return true;
    }
    return false;
}

static uint32_t items_of(const PtxOperand *list)
{
    return list ? list->nitems : 0;
}

static void call_function(Translator *t, uint32_t index, const PtxOperand *results,
                          const PtxOperand *arguments)
{
    const PtxFunction *f = &t->module->functions[index];
    const uint32_t nresults = items_of(results), narguments = items_of(arguments);
    if (!f->defined || f->entry)
        unknown(t, text(t, "a call of %s, whose code is not in the PTX", f->name->text));
    if (nresults != f->nresults || narguments != f->nparams)
        unknown(t, NULL);
    note_callee(t, index);
    const char *list = "";
    for (uint32_t i = 0; i < nresults; i++)
        list = text(t, "%s, %s", list,
                    argument(t, &results->items[i], t->module->variables[f->results[i]].bytes));
    for (uint32_t i = 0; i < narguments; i++)
        list = text(t, "%s, %s", list,
                    argument(t, &arguments->items[i], t->module->variables[f->params[i]].bytes));
    emit(t, "    if (fn_%u(t, %s, frame + frame_%u%s)) {\n", t->functions[index].number,
         t->f->entry ? "kernel_functions" : "base", t->done->number, list);
    end(t, true);
    emit(t, "    }\n");
}

static bool same_bytes(const Translator *t, const PtxOperand *list, const uint32_t *params,
                       uint32_t n)
{
    if (items_of(list) != n)
        return false;
    for (uint32_t i = 0; i < n; i++)
        if (list->items[i].kind != PTX_OP_VARIABLE ||
            t->module->variables[list->items[i].index].bytes !=
                t->module->variables[params[i]].bytes)
            return false;
    return true;
}

/* Any function that fits and whose address is taken may be meant. */
static void call_pointer(Translator *t, const PtxOperand *pointer, const PtxOperand *results,
                         const PtxOperand *arguments)
{
    const PtxModule *m = t->module;
    emit(t, "    switch (%s) {\n", value(t, pointer, PTX_U64));
    for (uint32_t k = 0; k < m->nfunctions; k++) {
        const PtxFunction *f = &m->functions[k];
        if (!f->defined || f->entry || !t->functions[k].pointed_to ||
            !same_bytes(t, results, f->results, f->nresults) ||
            !same_bytes(t, arguments, f->params, f->nparams))
            continue;
        emit(t, "    case UINT64_C(0x%llx):\n", (unsigned long long)function_address(k));
        call_function(t, k, results, arguments);
        emit(t, "    break;\n");
    }
    emit(t, "    default: t->service->trap(t, %s);\n    }\n", site(t));
}

static void translate_call(Translator *t)
{
    word(t, "uni");
    uint32_t n = 0;
    const PtxOperand *results = NULL, *arguments = NULL;
    if (operand(t, 0)->kind == PTX_OP_LIST)
        results = operand(t, n++);
    const PtxOperand *callee = operand(t, n++);
    if (n < t->i->noperands && operand(t, n)->kind == PTX_OP_LIST)
        arguments = operand(t, n++);
    if (callee->kind == PTX_OP_REGISTER) { /* what follows names its prototype */
        call_pointer(t, callee, results, arguments);
        return;
    }
    if (n != t->i->noperands || callee->kind != PTX_OP_FUNCTION)
        unknown(t, NULL);
    const PtxFunction *f = &t->module->functions[callee->index];
    if (!f->defined && call_of_system(t, f->name->text, results, arguments))
        return;
    call_function(t, callee->index, results, arguments);
}

/* ----------------------------------------------------------------------- ends */

static void translate_ret(Translator *t)
{
    word(t, "uni");
    operand_count(t, 0, 0);
    end(t, false);
}

static void translate_exit(Translator *t)
{
    operand_count(t, 0, 0);
    end(t, true);
}

static void translate_trap(Translator *t)
{
    operand_count(t, 0, 0);
    emit(t, "    t->service->trap(t, %s);\n", site(t));
    end(t, true);
}

/* Sleeping lasts no time here. */
static void translate_nanosleep(Translator *t)
{
    type_among(t, "u32");
}

const TranslateRow translate_control_rows[] = {
    {"bra", translate_bra},
    {"brx", translate_brx},
    {"call", translate_call},
    {"ret", translate_ret},
    {"exit", translate_exit},
    {"trap", translate_trap},
    {"brkpt", translate_trap},
    {"nanosleep", translate_nanosleep},
    {NULL, NULL},
};
