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

static uint64_t address_of(SimModule *module, uint32_t variable, int device);

/* Addresses of other variables are written byte by byte, as PTX may have cut them. */
static void relocate(SimModule *module, const SimGlobalTable *global, char *bytes, int device)
{
    for (uint32_t i = 0; i < global->nrelocations; i++) {
        const SimRelocation *r = &global->relocations[i];
        if (r->offset + r->bytes > global->bytes)
            continue;
        const uint64_t base =
            r->variable < module->table->nglobals ? address_of(module, r->variable, device) : 0;
        const uint64_t address = base + r->addend;
        for (uint32_t b = 0; b < r->bytes && r->first + b < 8; b++)
            bytes[r->offset + b] = (char)(address >> 8 * (r->first + b));
    }
}

static uint64_t address_of(SimModule *module, uint32_t variable, int device)
{
    if (!module->globals[device])
        module->globals[device] = calloc(module->table->nglobals + 1u, sizeof(uint64_t));
    uint64_t *addresses = module->globals[device];
    if (!addresses || addresses[variable])
        return addresses ? addresses[variable] : 0;
    const SimGlobalTable *global = &module->table->globals[variable];
    const uint64_t size = global->bytes ? global->bytes : 1;
    const uint64_t address = sim_memory_static(device, size);
    if (address == 0)
        return 0;
    /* Before the initial value: two variables may hold each other's addresses. */
    addresses[variable] = address;
    char *bytes = sim_bytes(address);
    memset(bytes, 0, size);
    if (global->initial && global->initial_bytes <= size)
        memcpy(bytes, global->initial, global->initial_bytes);
    relocate(module, global, bytes, device);
    sim_shadow_known(device, address, size);
    return address;
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
