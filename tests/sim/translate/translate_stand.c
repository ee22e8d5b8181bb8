/* translate_stand.c - see translate_stand.h. */
#include "translate_stand.h"

#include <dirent.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sim.h"

enum { SHARED = 1 << 16, LOCAL = 1 << 17 };

static char report[4096], log_text[8192];
static _Alignas(16) unsigned char shared[SHARED], local[LOCAL];

typedef struct StandKernel StandKernel;
struct StandKernel {
    StandKernel *next;
    StandModule *module;
    TranslatedKernel translated;
};
struct StandModule {
    StandModule *next;
    PtxModule ptx;
    char **variables; /* bytes of those that are global, by variable */
};
static StandModule *modules;
static StandKernel *kernels;
static const StandKernel *running_kernel;
static const SimKernelTable *running;

/* ----------------------------------------------------- what the module asks for */

static char folder[] = "/tmp/mdl-translate-XXXXXX";

static void remove_folder(void)
{
    DIR *files = opendir(folder);
    for (struct dirent *e = files ? readdir(files) : NULL; e; e = readdir(files)) {
        char path[1024];
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        if (e->d_name[0] != '.')
            unlink(path);
    }
    if (files)
        closedir(files);
    rmdir(folder);
}

const SimConfig *sim_config(void)
{
    static SimConfig config = {.cc = "cc", .devices = 1};
    if (!config.cache) {
        config.cache = mkdtemp(folder);
        if (!config.cache || atexit(remove_folder) != 0)
            abort();
        const char *cc = getenv("MDL_SIM_CC"), *keep = getenv("MDL_SIM_KEEP");
        config.cc = cc && *cc ? cc : "cc";
        config.keep = keep;
    }
    return &config;
}

void sim_report(SimFinding kind, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    (void)kind;
    vsnprintf(report, sizeof report, format, list);
    va_end(list);
}

const char *stand_report(void)
{
    return report;
}

/* ------------------------------------------------------------------ services */

__attribute__((format(printf, 1, 2))) static void note(const char *format, ...)
{
    const size_t used = strlen(log_text);
    va_list list;
    va_start(list, format);
    vsnprintf(log_text + used, sizeof log_text - used, format, list);
    va_end(list);
}

const char *stand_log(void)
{
    return log_text;
}

static void stop(const char *why, uint64_t address)
{
    fprintf(stderr, "kernel %s: %s (address 0x%llx)\n", running->name, why,
            (unsigned long long)address);
    abort();
}

static void *inside(unsigned char *memory, uint64_t limit, uint64_t offset, uint32_t bytes)
{
    if (offset > limit || limit - offset < bytes)
        stop("out of bounds", offset);
    return memory + offset;
}

static void *access_memory(SimThread *t, SimSpace space, uint64_t address, uint32_t bytes,
                           int access, uint32_t site)
{
    (void)access;
    if (site >= running->nsites)
        stop("a site that is not in the table", site);
    if (address % bytes != 0)
        stop("misaligned", address);
    if (space == SIM_SPACE_GENERIC && address - SIM_SHARED_WINDOW < SIM_WINDOW_SPAN)
        return inside(shared, SHARED, address - SIM_SHARED_WINDOW, bytes);
    if (space == SIM_SPACE_GENERIC && address - SIM_LOCAL_WINDOW < SIM_WINDOW_SPAN)
        return inside(local, running->local_bytes, address - SIM_LOCAL_WINDOW, bytes);
    if (space == SIM_SPACE_GENERIC && address - SIM_PARAM_WINDOW < SIM_WINDOW_SPAN)
        return inside((unsigned char *)(uintptr_t)t->params, running->param_bytes,
                      address - SIM_PARAM_WINDOW, bytes);
    if (space == SIM_SPACE_SHARED)
        return inside(shared, SHARED, address, bytes);
    if (space == SIM_SPACE_LOCAL)
        return inside(local, running->local_bytes, address, bytes);
    return (void *)(uintptr_t)address;
}

static uint32_t barrier(SimThread *t, SimBar kind, uint32_t id, uint32_t count, uint32_t value,
                        uint32_t site)
{
    (void)t;
    (void)site;
    note("barrier %d %u %u %u; ", kind, id, count, value);
    return kind == SIM_BAR_POPC ? 7 : value;
}

static void warp_sync(SimThread *t, uint32_t mask, uint32_t site)
{
    (void)t;
    (void)site;
    note("warp_sync %x; ", mask);
}

static uint32_t shuffle(SimThread *t, SimShuffle kind, uint32_t value, uint32_t lane,
                        uint32_t clamp, uint32_t mask, bool *valid, uint32_t site)
{
    (void)t;
    (void)site;
    note("shuffle %d %u %u %u %x; ", kind, value, lane, clamp, mask);
    *valid = false;
    return value + 1;
}

static uint32_t vote(SimThread *t, SimVote kind, bool predicate, uint32_t mask, uint32_t site)
{
    (void)t;
    (void)site;
    note("vote %d %d %x; ", kind, predicate, mask);
    return kind == SIM_VOTE_BALLOT ? 0x55 : predicate;
}

static uint32_t match_any(SimThread *t, uint64_t value, uint32_t mask, uint32_t site)
{
    (void)t;
    (void)site;
    note("match %llx %x; ", (unsigned long long)value, mask);
    return mask;
}

static uint32_t reduce(SimThread *t, SimRed kind, bool is_signed, uint32_t value, uint32_t mask,
                       uint32_t site)
{
    (void)t;
    (void)site;
    note("reduce %d %d %u %x; ", kind, is_signed, value, mask);
    return value * 2;
}

static uint32_t active_mask(SimThread *t)
{
    (void)t;
    note("active; ");
    return 0xff;
}

static void fence(SimThread *t, int scope)
{
    (void)t;
    note("fence %d; ", scope);
}

static void trap(SimThread *t, uint32_t site)
{
    (void)t;
    note("trap at %d; ", running->sites[site].line);
}

static uint64_t global_address(SimThread *t, uint32_t variable)
{
    (void)t;
    const TranslatedKernel *k = &running_kernel->translated;
    if (variable >= k->nvariables)
        stop("a variable that is not in the list", variable);
    return (uint64_t)(uintptr_t)running_kernel->module->variables[k->variables[variable]];
}

static int print(SimThread *t, uint64_t format, uint64_t arguments, uint32_t site)
{
    (void)t;
    (void)site;
    int value = 0;
    memcpy(&value, inside(local, LOCAL, arguments - SIM_LOCAL_WINDOW, 4), 4);
    note("print \"%s\" %d; ", (const char *)(uintptr_t)format, value);
    return 1;
}

static uint64_t read_clock(SimThread *t)
{
    (void)t;
    return 0x123456789abc;
}

static const SimServices services = {
    .access = access_memory,
    .barrier = barrier,
    .warp_sync = warp_sync,
    .shuffle = shuffle,
    .vote = vote,
    .match_any = match_any,
    .reduce = reduce,
    .active_mask = active_mask,
    .fence = fence,
    .trap = trap,
    .global = global_address,
    .print = print,
    .clock = read_clock,
};

SimThread stand_thread = {
    .service = &services, .ntid = {32, 1, 1}, .nctaid = {1, 1, 1}, .dynamic_shared_offset = 4096};

/* --------------------------------------------------------------------- modules */

/* Variables as the module's own code does it, but at pointers. */
static void make_variables(StandModule *module)
{
    const PtxModule *m = &module->ptx;
    module->variables = calloc(m->nvariables + 1u, sizeof *module->variables);
    for (uint32_t i = 0; i < m->nvariables; i++) {
        const PtxVariable *v = &m->variables[i];
        if (!is_global(v))
            continue;
        module->variables[i] = calloc(1, v->bytes + 16);
        if (!module->variables[i])
            abort();
        if (v->initial)
            memcpy(module->variables[i], v->initial, v->initial_bytes);
    }
    for (uint32_t i = 0; i < m->nvariables; i++)
        for (uint32_t r = 0; module->variables[i] && r < m->variables[i].nreferences; r++) {
            const PtxReference *at = &m->variables[i].references[r];
            const bool of_function = at->name->meaning == PTX_FUNCTION;
            const uint64_t base = of_function
                                      ? function_address(at->name->index)
                                      : (uint64_t)(uintptr_t)module->variables[at->name->index];
            const uint64_t address = base + at->addend;
            memcpy(module->variables[i] + at->offset, (const char *)&address + at->first,
                   at->bytes);
        }
}

StandModule *stand_load(const char *ptx)
{
    StandModule *module = calloc(1, sizeof *module);
    if (!module)
        abort();
    report[0] = '\0';
    if (!ptx_parse(&module->ptx, ptx, strlen(ptx))) {
        snprintf(report, sizeof report, "%s", module->ptx.error);
        ptx_free(&module->ptx);
        free(module);
        return NULL;
    }
    make_variables(module);
    module->next = modules;
    modules = module;
    return module;
}

const PtxModule *stand_ptx(const StandModule *module)
{
    return &module->ptx;
}

bool stand_build(const PtxModule *module, uint32_t entry, TranslatedKernel *kernel)
{
    report[0] = '\0';
    return module_build(module, entry, kernel, report, sizeof report);
}

static StandKernel *kernel_make(StandModule *module, uint32_t entry)
{
    StandKernel *kernel = calloc(1, sizeof *kernel);
    if (!kernel)
        abort();
    kernel->module = module;
    if (!stand_build(&module->ptx, entry, &kernel->translated)) {
        translate_free(&kernel->translated);
        free(kernel);
        return NULL;
    }
    kernel->next = kernels;
    kernels = kernel;
    return kernel;
}

const SimKernelTable *stand_kernel(StandModule *module, const char *name)
{
    for (StandKernel *k = kernels; k; k = k->next)
        if (k->module == module && strcmp(k->translated.table.name, name) == 0)
            return &k->translated.table;
    for (uint32_t i = 0; module && i < module->ptx.nfunctions; i++) {
        const PtxFunction *f = &module->ptx.functions[i];
        if (!f->entry || !f->defined || strcmp(f->name->text, name) != 0)
            continue;
        const StandKernel *k = kernel_make(module, i);
        return k ? &k->translated.table : NULL;
    }
    return NULL;
}

void stand_run(const SimKernelTable *kernel, const void *params)
{
    log_text[0] = '\0';
    for (running_kernel = kernels; &running_kernel->translated.table != kernel;)
        running_kernel = running_kernel->next;
    running = kernel;
    stand_thread.params = params;
    kernel->run(&stand_thread);
}

unsigned char *stand_shared(void)
{
    return shared;
}

char *stand_read(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    char *data = NULL;
    *size = 0;
    if (file && fseek(file, 0, SEEK_END) == 0) {
        const long n = ftell(file);
        rewind(file);
        data = n >= 0 ? calloc(1, (size_t)n + 1) : NULL;
        if (data)
            *size = fread(data, 1, (size_t)n, file);
    }
    if (file)
        fclose(file);
    if (!data) {
        perror(path);
        exit(1);
    }
    return data;
}
