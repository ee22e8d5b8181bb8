/* module_build.c - PTX text → C → a shared object → its table.
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

#include "module_build.h"
#include "ptx.h"
#include "sim.h"
#include "translate.h"

/* The headers and the translation; NULL after a report. */
static char *write_code(const char *ptx, size_t size, size_t *code_size)
{
    PtxModule module;
    char *code = NULL, problem[128] = "out of memory";
    bool done = false;
    if (!ptx_parse(&module, ptx, size)) {
        sim_report(SIM_UNKNOWN, "the PTX of a module cannot be read: %s", module.error);
        ptx_free(&module);
        return NULL;
    }
    FILE *out = open_memstream(&code, code_size);
    if (out) {
        fputs(sim_header_text, out);
        done = translate_module(&module, out, problem, sizeof problem);
        done = fclose(out) == 0 && done;
    }
    ptx_free(&module);
    if (done)
        return code;
    sim_report(SIM_UNKNOWN, "a module cannot be translated: %s", problem);
    free(code);
    return NULL;
}

/* MDL_SIM_KEEP: the module's texts, under the name that its object has. */
static void keep_texts(const char *object, const char *ptx, size_t size, const char *code,
                       size_t code_size)
{
    const char *keep = sim_config()->keep, *name = strrchr(object, '/');
    if (!keep || !*keep)
        return;
    name = name ? name + 1 : object;
    const int stem = (int)(strlen(name) - strlen(".so"));
    for (int i = 0; i < 2; i++) {
        char *path = NULL;
        if (asprintf(&path, "%s/%.*s%s", keep, stem, name, i == 0 ? ".ptx" : ".c") < 0 ||
            !module_write_file(path, i == 0 ? ptx : code, i == 0 ? size : code_size))
            fprintf(stderr, "mdl-sim: %s cannot be written (MDL_SIM_KEEP): %s\n",
                    path ? path : keep, strerror(errno));
        free(path);
    }
}

static const SimModuleTable *load(const char *object)
{
    void *handle = dlopen(object, RTLD_NOW | RTLD_LOCAL);
    const SimModuleTable *table = handle ? dlsym(handle, "sim_module_table") : NULL;
    if (table && table->abi == SIM_ABI)
        return table;
    if (handle)
        dlclose(handle);
    return NULL;
}

static bool compile(const char *object, const char *code, size_t size)
{
    char messages[2048] = "", *source = NULL;
    if (asprintf(&source, "%s.%ld.c", object, (long)getpid()) < 0)
        return false;
    bool done = module_write_file(source, code, size);
    if (!done)
        snprintf(messages, sizeof messages, "%s cannot be written: %s", source, strerror(errno));
    done = done && module_compile(source, object, messages, sizeof messages);
    unlink(source);
    if (!done)
        sim_report(SIM_UNKNOWN, "a translated module cannot be compiled (MDL_SIM_CC: %s)\n%s",
                   sim_config()->cc, messages);
    free(source);
    return done;
}

const SimModuleTable *module_build(const char *ptx, size_t size)
{
    size_t code_size = 0;
    char *code = write_code(ptx, size, &code_size);
    if (!code)
        return NULL;
    char *object = module_cache_path(code, code_size, module_compiler_flags());
    const SimModuleTable *table = NULL;
    if (object) {
        keep_texts(object, ptx, size, code, code_size);
        table = access(object, R_OK) == 0 ? load(object) : NULL;
        if (!table && compile(object, code, code_size)) {
            table = load(object);
            if (!table) {
                const char *why = dlerror();
                sim_report(SIM_UNKNOWN, "a compiled module cannot be loaded: %s",
                           why ? why : object);
            }
        }
    } else {
        sim_report(SIM_UNKNOWN, "a module cannot be compiled: out of memory");
    }
    if (table)
        module_cache_forget(object);
    free(object);
    free(code);
    return table;
}
