/* module.c - executables' modules: kernels and global variables by name.
 *
 * A module is found when the program registers it and built when something of it is first
 * asked for. Modules stay until the process ends: reports name kernels that ran long ago, and
 * programs free theirs at exit.
 */
#include <stdlib.h>
#include <string.h>

#include "fatbin.h"
#include "module.h"
#include "module_build.h"

struct SimKernel {
    SimModule *module;
    const SimKernelTable *table;
    char name[256];
};

struct SimModule {
    SimModule *next;
    char *ptx;
    size_t size;
    const SimModuleTable *table;
    bool runs_here; /* the devices are of an architecture that the PTX is for */
    bool failed;    /* once reported, not tried again */
    SimKernel *kernels;
    uint64_t *globals[SIM_DEVICES_MAX]; /* addresses by variable; 0: not there yet */
};

static SimModule *modules;

SimModule *sim_module_new(const void *image)
{
    Fatbin fatbin;
    FatbinImage ptx;
    const SimConfig *config = sim_config();
    const uint32_t device = (uint32_t)(config->major * 10 + config->minor);
    if (!image || !fatbin_open(&fatbin, image, UINT64_MAX) ||
        !fatbin_find_ptx(&fatbin, device, &ptx)) {
        sim_report(SIM_UNKNOWN,
                   "an executable's module holds no PTX that can be read; build it with "
                   "\"-gencode arch=compute_80,code=compute_80 -no-compress\"");
        return NULL;
    }
    SimModule *module = calloc(1, sizeof *module);
    char *copy = malloc(ptx.size + 1);
    if (!module || !copy) {
        free(module);
        free(copy);
        sim_report(SIM_UNKNOWN, "a module cannot be read: out of memory");
        return NULL;
    }
    memcpy(copy, ptx.data, ptx.size);
    copy[ptx.size] = '\0';
    module->ptx = copy;
    module->runs_here = ptx.architecture <= device;
    module->size = strlen(copy); /* the image is padded with zeroes */
    module->next = modules;
    modules = module;
    return module;
}

void sim_module_free(SimModule *module)
{
    if (!module)
        return;
    free(module->ptx);
    module->ptx = NULL;
}

bool sim_module_runs_here(const SimModule *module)
{
    return module->runs_here;
}

static bool make_kernels(SimModule *module)
{
    const SimModuleTable *table = module->table;
    module->kernels = calloc(table->nkernels + 1u, sizeof *module->kernels);
    if (!module->kernels)
        return false;
    for (uint32_t i = 0; i < table->nkernels; i++) {
        SimKernel *k = &module->kernels[i];
        k->module = module;
        k->table = &table->kernels[i];
        module_demangle(k->table->name, k->name, sizeof k->name);
    }
    return true;
}

/* Translates, compiles, loads: once. */
static bool build(SimModule *module)
{
    if (module->table)
        return true;
    if (module->failed || !module->ptx)
        return false;
    module->table = module_build(module->ptx, module->size);
    if (module->table && !make_kernels(module))
        module->table = NULL;
    module->failed = !module->table;
    return module->table != NULL;
}

SimKernel *sim_module_kernel(SimModule *module, const char *name)
{
    if (!build(module))
        return NULL;
    for (uint32_t i = 0; i < module->table->nkernels; i++) {
        SimKernel *k = &module->kernels[i];
        if (strcmp(k->table->name, name) != 0)
            continue;
        if (k->table->unknown) {
            sim_report(SIM_UNKNOWN, "kernel %s: %s is not simulated", k->name, k->table->unknown);
            return NULL;
        }
        return k;
    }
    sim_report(SIM_UNKNOWN, "kernel %s is not in the PTX of its module", name);
    return NULL;
}

const char *sim_kernel_name(const SimKernel *kernel)
{
    return kernel->name;
}

int sim_kernel_params(const SimKernel *kernel, const uint32_t **offsets, const uint32_t **sizes,
                      uint32_t *total)
{
    *offsets = kernel->table->param_offset;
    *sizes = kernel->table->param_size;
    *total = kernel->table->param_bytes;
    return (int)kernel->table->nparams;
}

uint32_t sim_kernel_static_shared(const SimKernel *kernel)
{
    return kernel->table->shared_bytes;
}

const SimKernelTable *sim_kernel_table(const SimKernel *kernel)
{
    return kernel->table;
}

/* ------------------------------------------------------------------- variables */

/* Variables of a device that were allocated and whose addresses are still to be filled in. */
typedef struct {
    SimModule *module;
    int device;
    uint32_t *variables, n;
} Fresh;

/* Where a variable is; it is allocated, and with it what its initial value is, when it is first
 * asked for. 0: out of memory. */
static uint64_t place(Fresh *fresh, uint32_t variable)
{
    uint64_t *address = &fresh->module->globals[fresh->device][variable];
    if (*address)
        return *address;
    const SimGlobalTable *global = &fresh->module->table->globals[variable];
    const uint64_t size = global->bytes ? global->bytes : 1;
    *address = sim_memory_static(fresh->device, size);
    if (*address == 0)
        return 0;
    char *bytes = sim_bytes(*address);
    memset(bytes, 0, size);
    if (global->initial && global->initial_bytes <= size)
        memcpy(bytes, global->initial, global->initial_bytes);
    sim_shadow_known(fresh->device, *address, size);
    fresh->variables[fresh->n++] = variable;
    return *address;
}

/* Addresses of other variables are written byte by byte, as PTX may have cut them. */
static void relocate(Fresh *fresh, const SimGlobalTable *global, char *bytes)
{
    for (uint32_t i = 0; i < global->nrelocations; i++) {
        const SimRelocation *r = &global->relocations[i];
        if (r->offset + r->bytes > global->bytes)
            continue;
        const bool known = r->variable < fresh->module->table->nglobals;
        const uint64_t address = (known ? place(fresh, r->variable) : 0) + r->addend;
        for (uint32_t b = 0; b < r->bytes && r->first + b < 8; b++)
            bytes[r->offset + b] = (char)(address >> 8 * (r->first + b));
    }
}

static uint64_t address_of(SimModule *module, uint32_t variable, int device)
{
    const uint32_t n = module->table->nglobals;
    if (!module->globals[device])
        module->globals[device] = calloc(n + 1u, sizeof(uint64_t));
    const uint64_t *addresses = module->globals[device];
    if (!addresses || addresses[variable])
        return addresses ? addresses[variable] : 0;
    /* Those that its value refers to come after it, and so on: chains may be long, or rings. */
    Fresh fresh = {module, device, malloc(n * sizeof *fresh.variables), 0};
    if (!fresh.variables)
        return 0;
    place(&fresh, variable);
    while (fresh.n > 0) {
        const uint32_t at = fresh.variables[--fresh.n];
        relocate(&fresh, &module->table->globals[at], sim_bytes(addresses[at]));
    }
    free(fresh.variables);
    return addresses[variable];
}

uint64_t sim_kernel_global(const SimKernel *kernel, uint32_t variable, int device)
{
    SimModule *module = kernel->module;
    if (device < 0 || device >= SIM_DEVICES_MAX || variable >= module->table->nglobals)
        return 0;
    return address_of(module, variable, device);
}

uint64_t sim_module_global(SimModule *module, const char *name, int device, size_t *size)
{
    if (device < 0 || device >= SIM_DEVICES_MAX || !build(module))
        return 0;
    for (uint32_t i = 0; i < module->table->nglobals; i++)
        if (strcmp(module->table->globals[i].name, name) == 0) {
            if (size)
                *size = module->table->globals[i].bytes;
            return address_of(module, i, device);
        }
    return 0;
}
