/* module_build.h - PTX text → a loaded table (module_build.c, module_cache.c). */
#ifndef MDL_SIM_MODULE_BUILD_H
#define MDL_SIM_MODULE_BUILD_H

#include <stddef.h>

#include "simt.h"

/* Headers of the translated code, one after the other, as text (made by embed.cmake). */
extern const char sim_header_text[];

/* Translates, compiles and loads; NULL after a report. The module is never unloaded. */
const SimModuleTable *module_build(const char *ptx, size_t size);

/* Where the compiled code of a C text belongs: a path in the cache's folder, which exists,
 * or in a folder of this process where the cache cannot be written. To be freed. */
char *module_cache_path(const char *code, size_t size, const char *flags);
/* Once it is loaded: removes it again where the folder is of this process alone. */
void module_cache_forget(const char *object);
/* Writes bytes to a file that appears whole or not at all; false with errno. */
bool module_write_file(const char *path, const char *data, size_t size);
/* The compiler's run: "" or what it printed when it failed. false: it failed. */
bool module_compile(const char *source, const char *object, char *messages, size_t size);
/* What the compiler is called with, in one text. */
const char *module_compiler_flags(void);

/* "foo" of "_Z3fooIfEvPT_": a function's own name without arguments. Writes into out. */
void module_demangle(const char *mangled, char *out, size_t size);

#endif
