/* translate_stand.h - translated kernels without the engine: what the tests call.
 *
 * PTX is parsed, translated, compiled and loaded by the code under test; the services behind
 * a thread are stand-ins: global addresses are pointers of the process, shared and local
 * memory are arrays, and calls of the engine are noted in a text.
 */
#ifndef TRANSLATE_STAND_H
#define TRANSLATE_STAND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "module_build.h"

typedef struct StandModule StandModule;
/* Parses, and makes the module's variables; NULL after a report. Modules stay. */
StandModule *stand_load(const char *ptx);
const PtxModule *stand_ptx(const StandModule *module);
/* What went wrong last; empty: nothing. */
const char *stand_report(void);
/* Translates, compiles and loads at the first call; NULL: no such kernel, or after a report. */
const SimKernelTable *stand_kernel(StandModule *module, const char *name);
/* Like that, of an entry by its number, and never kept. */
bool stand_build(const PtxModule *module, uint32_t entry, TranslatedKernel *kernel);
/* Runs one thread. Parameters are `params`. */
void stand_run(const SimKernelTable *kernel, const void *params);
/* Calls of the engine's services since the last run began: "barrier SYNC 0 0; ..." */
const char *stand_log(void);
/* Bytes of the thread's shared memory. */
unsigned char *stand_shared(void);
/* The thread that stand_run() runs: tests set its fields. */
extern SimThread stand_thread;
/* A whole file; ends the test when it cannot be read. To be freed. */
char *stand_read(const char *path, size_t *size);

#endif
