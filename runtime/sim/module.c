/* module.c - executables' modules: kernels and global variables by name.
 *
 * A module is found when the program registers it and parsed when something of it is first asked
 * for. A kernel of it is built when it is first launched, or asked about: with the functions that
 * it reaches, and no other kernel. Modules stay until the process ends: reports name kernels that
 * ran long ago, and programs free theirs at exit.
 */
#include <stdlib.h>
#include <string.h>

#include "fatbin.h"
#include "module.h"
#include "module_build.h"
#include "module_variables.h"

typedef enum { KERNEL_NEW, KERNEL_BUILT, KERNEL_FAILED } KernelState;

struct SimKernel {
    SimModule *module;
    TranslatedKernel translated;
    uint32_t function; /* of the PTX */
    KernelState state;
    char name[256];
};

struct SimModule {
    SimModule *next;
    char *text;
    size_t size;
    bool runs_here; /* the devices are of an architecture that the PTX is for */
    bool parsed, failed;
    PtxModule ptx;
    SimKernel *kernels;
    uint32_t nkernels;
    ModuleVariables variables;
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
    module->text = copy;
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
    free(module->text);
    module->text = NULL;
}

bool sim_module_runs_here(const SimModule *module)
{
    return module->runs_here;
}

/* ---------------------------------------------------------------------- parsing */

static bool make_kernels(SimModule *module)
{
    const PtxModule *ptx = &module->ptx;
    module->kernels = calloc(ptx->nfunctions + 1u, sizeof *module->kernels);
    if (!module->kernels)
        return false;
    for (uint32_t i = 0; i < ptx->nfunctions; i++) {
        if (!ptx->functions[i].entry || !ptx->functions[i].defined)
            continue;
        SimKernel *k = &module->kernels[module->nkernels++];
        k->module = module;
        k->function = i;
        module_demangle(ptx->functions[i].name->text, k->name, sizeof k->name);
    }
    return true;
}

/* Once; a failure is told once. */
static bool parse(SimModule *module)
{
    if (module->parsed || module->failed || !module->text)
        return module->parsed;
    module->parsed = ptx_parse(&module->ptx, module->text, module->size);
    if (!module->parsed) {
        sim_report(SIM_UNKNOWN, "the PTX of a module cannot be read: %s", module->ptx.error);
    } else if (!make_kernels(module)) {
        sim_report(SIM_UNKNOWN, "a module cannot be read: out of memory");
        module->parsed = false;
    }
    module->failed = !module->parsed;
    if (module->failed)
        ptx_free(&module->ptx);
    else
        module_keep_ptx(module->text, module->size);
    module->variables.module = &module->ptx;
    free(module->text);
    module->text = NULL;
    return module->parsed;
}

/* --------------------------------------------------------------------- building */

/* A failure is told once. */
static void build(SimKernel *k)
{
    char problem[3072];
    const bool done =
        module_build(&k->module->ptx, k->function, &k->translated, problem, sizeof problem);
    k->state = done ? KERNEL_BUILT : KERNEL_FAILED;
    if (!done)
        sim_report(SIM_UNKNOWN, "kernel %s: %s", k->name, problem);
}

static bool is_ready(SimKernel *k)
{
    if (k->state == KERNEL_NEW)
        build(k);
    if (k->state == KERNEL_BUILT && k->translated.table.unknown)
        sim_report(SIM_UNKNOWN, "kernel %s: %s is not simulated", k->name,
                   k->translated.table.unknown);
    return k->state == KERNEL_BUILT && !k->translated.table.unknown;
}

SimKernel *sim_module_kernel(SimModule *module, const char *name)
{
    if (!parse(module))
        return NULL;
    for (uint32_t i = 0; i < module->nkernels; i++) {
        SimKernel *k = &module->kernels[i];
        if (strcmp(module->ptx.functions[k->function].name->text, name) == 0)
            return is_ready(k) ? k : NULL;
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
    const SimKernelTable *table = sim_kernel_table(kernel);
    *offsets = table->param_offset;
    *sizes = table->param_size;
    *total = table->param_bytes;
    return (int)table->nparams;
}

uint32_t sim_kernel_static_shared(const SimKernel *kernel)
{
    return sim_kernel_table(kernel)->shared_bytes;
}

const SimKernelTable *sim_kernel_table(const SimKernel *kernel)
{
    return &kernel->translated.table;
}

/* ------------------------------------------------------------------- variables */

uint64_t sim_kernel_global(const SimKernel *kernel, uint32_t variable, int device)
{
    if (device < 0 || device >= SIM_DEVICES_MAX || variable >= kernel->translated.nvariables)
        return 0;
    return module_variable_address(&kernel->module->variables,
                                   kernel->translated.variables[variable], device);
}

uint64_t sim_module_global(SimModule *module, const char *name, int device, size_t *size)
{
    uint32_t variable;
    if (device < 0 || device >= SIM_DEVICES_MAX || !parse(module) ||
        !module_variable_find(&module->ptx, name, &variable))
        return 0;
    if (size)
        *size = module->ptx.variables[variable].bytes;
    return module_variable_address(&module->variables, variable, device);
}
