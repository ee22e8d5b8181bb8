/* module_build.h - an entry of a module → code that runs (module_build.c, module_cache.c). */
#ifndef MDL_SIM_MODULE_BUILD_H
#define MDL_SIM_MODULE_BUILD_H

#include <stdbool.h>
#include <stddef.h>

#include "translate.h"

/* Headers of the translated code, one after the other, as text (made by embed.cmake). */
extern const char sim_header_text[];

/* Translates, compiles and loads a kernel; one whose table says `unknown` is not compiled. false
 * with a text of what went wrong. Several threads may build at the same time, with no lock held.
 * The code is never unloaded. */
bool module_build(const PtxModule *module, uint32_t entry, TranslatedKernel *kernel, char *problem,
                  size_t size);
/* MDL_SIM_KEEP: the PTX of a module. */
void module_keep_ptx(const char *ptx, size_t size);

/* Where the compiled code of a C text belongs. */
typedef struct ModulePlace ModulePlace;
struct ModulePlace {
    char *object;      /* a path; the folder exists */
    bool own;          /* in a folder of this place alone: the cache cannot be written */
    ModulePlace *next; /* of those that threads are at */
};
/* No two threads are at the same place: waits while another is. false: no memory, no folder. */
bool module_place_enter(ModulePlace *place, const char *code, size_t size);
/* Once it is loaded, or failed: removes what is only of this place. */
void module_place_leave(ModulePlace *place);
/* Writes bytes to a file that appears whole or not at all; false with errno. */
bool module_write_file(const char *path, const char *data, size_t size);
/* The compiler's run: "" or what it printed when it failed. false: it failed. */
bool module_compile(const char *source, const char *object, char *messages, size_t size);

/* "foo" of "_Z3fooIfEvPT_": a function's own name without arguments. Writes into out. */
void module_demangle(const char *mangled, char *out, size_t size);

#endif
