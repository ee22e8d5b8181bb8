/* module_variables.c - global variables of a module on each device.
 *
 * They are the module's, whichever of its kernels names them first: the parsed PTX says how large
 * they are and what they begin with, so nothing is compiled for them.
 */
#include <stdlib.h>
#include <string.h>

#include "module_variables.h"
#include "translate.h"

/* Variables of a device that were allocated and whose addresses are still to be filled in. */
typedef struct {
    ModuleVariables *variables;
    int device;
    uint32_t *list, n;
} Fresh;

/* Where a variable is; it is allocated, and with it what its initial value is, when it is first
 * asked for. 0: out of memory. */
static uint64_t place(Fresh *fresh, uint32_t variable)
{
    uint64_t *address = &fresh->variables->addresses[fresh->device][variable];
    if (*address)
        return *address;
    const PtxVariable *v = &fresh->variables->module->variables[variable];
    const uint64_t size = v->bytes ? v->bytes : 1;
    *address = sim_memory_static(fresh->device, size);
    if (*address == 0)
        return 0;
    char *bytes = sim_bytes(*address);
    memset(bytes, 0, size);
    if (v->initial && v->initial_bytes <= size)
        memcpy(bytes, v->initial, v->initial_bytes);
    sim_shadow_known(fresh->device, *address, size);
    fresh->list[fresh->n++] = variable;
    return *address;
}

/* What a name in an initial value stands for; 0 where it is nothing that has an address. */
static uint64_t meaning(Fresh *fresh, const PtxName *name)
{
    if (name->meaning == PTX_FUNCTION)
        return function_address(name->index);
    if (name->meaning == PTX_VARIABLE &&
        is_global(&fresh->variables->module->variables[name->index]))
        return place(fresh, name->index);
    return 0;
}

/* Addresses are written byte by byte, as PTX may have cut them. */
static void relocate(Fresh *fresh, const PtxVariable *v, char *bytes)
{
    for (uint32_t i = 0; i < v->nreferences; i++) {
        const PtxReference *r = &v->references[i];
        if (r->offset + r->bytes > v->bytes)
            continue;
        const uint64_t address = meaning(fresh, r->name) + r->addend;
        for (uint32_t b = 0; b < r->bytes && r->first + b < 8; b++)
            bytes[r->offset + b] = (char)(address >> 8 * (r->first + b));
    }
}

uint64_t module_variable_address(ModuleVariables *variables, uint32_t variable, int device)
{
    const PtxModule *m = variables->module;
    if (variable >= m->nvariables || !is_global(&m->variables[variable]))
        return 0;
    if (!variables->addresses[device])
        variables->addresses[device] = calloc(m->nvariables, sizeof(uint64_t));
    const uint64_t *addresses = variables->addresses[device];
    if (!addresses || addresses[variable])
        return addresses ? addresses[variable] : 0;
    /* Those that its value refers to come after it, and so on: chains may be long, or rings. */
    Fresh fresh = {variables, device, malloc(m->nvariables * sizeof *fresh.list), 0};
    if (!fresh.list)
        return 0;
    place(&fresh, variable);
    while (fresh.n > 0) {
        const uint32_t at = fresh.list[--fresh.n];
        relocate(&fresh, &m->variables[at], sim_bytes(addresses[at]));
    }
    free(fresh.list);
    return addresses[variable];
}

bool module_variable_find(const PtxModule *module, const char *name, uint32_t *variable)
{
    for (uint32_t i = 0; i < module->nvariables; i++)
        if (is_global(&module->variables[i]) &&
            strcmp(module->variables[i].name->text, name) == 0) {
            *variable = i;
            return true;
        }
    return false;
}
