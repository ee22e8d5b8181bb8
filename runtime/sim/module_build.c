/* module_build.c - an entry of a PtxModule → C → a shared object → code that runs.
 *
 * The C text is the headers, then the translation. It names nothing outside itself, so its
 * hash is the cache's key: a changed translator makes other text. An object that does not
 * load (a full disk left half of it) is built once more.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "module_build.h"
#include "sim.h"

/* The headers and the translation, instead of the translation alone. */
static bool add_headers(TranslatedKernel *kernel)
{
    const size_t headers = strlen(sim_header_text);
    char *code = malloc(headers + kernel->size + 1);
    if (!code)
        return false;
    memcpy(code, sim_header_text, headers);
    memcpy(code + headers, kernel->code, kernel->size + 1);
    free(kernel->code);
    kernel->code = code;
    kernel->size += headers;
    return true;
}

/* ---------------------------------------------------------------------- keeping */

static void keep_text(const char *name, const char *text, size_t size)
{
    char *path = NULL;
    if (asprintf(&path, "%s/%s", sim_config()->keep, name) < 0)
        path = NULL;
    if (!path || !module_write_file(path, text, size))
        fprintf(stderr, "mdl-sim: %s cannot be written (MDL_SIM_KEEP): %s\n",
                path ? path : sim_config()->keep, strerror(errno));
    free(path);
}

static bool keeps(void)
{
    return sim_config()->keep && *sim_config()->keep;
}

void module_keep_ptx(const char *ptx, size_t size)
{
    char name[64];
    const XXH128_hash_t hash = XXH3_128bits(ptx, size);
    snprintf(name, sizeof name, "module_%016llx%016llx.ptx", (unsigned long long)hash.high64,
             (unsigned long long)hash.low64);
    if (keeps())
        keep_text(name, ptx, size);
}

/* Under the name that its object has, and with the kernel's. */
static void keep_code(const char *object, const TranslatedKernel *kernel)
{
    const char *slash = strrchr(object, '/'), *name = slash ? slash + 1 : object;
    char *file = NULL, *text = NULL;
    if (!keeps())
        return;
    const int n = asprintf(&text, "/* %s */\n%s", kernel->table.name, kernel->code);
    if (n >= 0 && asprintf(&file, "%.*s.c", (int)(strlen(name) - strlen(".so")), name) >= 0) {
        keep_text(file, text, (size_t)n);
        free(file);
    }
    if (n >= 0)
        free(text);
}

/* --------------------------------------------------------------------- building */

static bool load(const char *object, TranslatedKernel *kernel)
{
    void *handle = dlopen(object, RTLD_NOW | RTLD_LOCAL);
    const SimCode *code = handle ? dlsym(handle, "sim_code") : NULL;
    if (code && code->abi == SIM_ABI) {
        kernel->table.run = code->run;
        return true;
    }
    if (handle)
        dlclose(handle);
    return false;
}

static bool compile(const char *object, const TranslatedKernel *kernel, char *problem, size_t size)
{
    char messages[2048] = "", *source = NULL;
    if (asprintf(&source, "%s.%ld.c", object, (long)getpid()) < 0)
        return false;
    bool done = module_write_file(source, kernel->code, kernel->size);
    if (!done)
        snprintf(messages, sizeof messages, "%s cannot be written: %s", source, strerror(errno));
    done = done && module_compile(source, object, messages, sizeof messages);
    unlink(source);
    if (!done)
        snprintf(problem, size, "its translation cannot be compiled (MDL_SIM_CC: %s)\n%s",
                 sim_config()->cc, messages);
    free(source);
    return done;
}

bool module_build(const PtxModule *module, uint32_t entry, TranslatedKernel *kernel, char *problem,
                  size_t size)
{
    ModulePlace place;
    snprintf(problem, size, "out of memory");
    if (!translate_kernel(module, entry, kernel))
        return false;
    if (kernel->table.unknown)
        return true;
    if (!add_headers(kernel))
        return false;
    snprintf(problem, size, "there is no folder for its code (MDL_SIM_CACHE, TMPDIR)");
    if (!module_place_enter(&place, kernel->code, kernel->size))
        return false;
    keep_code(place.object, kernel);
    bool done = access(place.object, R_OK) == 0 && load(place.object, kernel);
    if (!done && compile(place.object, kernel, problem, size)) {
        done = load(place.object, kernel);
        const char *why = done ? NULL : dlerror();
        if (!done)
            snprintf(problem, size, "its compiled code cannot be loaded: %s",
                     why ? why : place.object);
    }
    module_place_leave(&place);
    free(kernel->code);
    kernel->code = NULL;
    return done;
}
