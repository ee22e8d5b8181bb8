/* translate_stand.h - translated modules without the engine: what the tests call.
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
#include "simt.h"

/* Translates and loads, or ends the test with what was reported. */
const SimModuleTable *stand_load(const char *ptx);
/* What went wrong last; empty: nothing. */
const char *stand_report(void);
const SimKernelTable *stand_kernel(const SimModuleTable *table, const char *name);
/* Runs one thread. Parameters are `params`. */
void stand_run(const SimKernelTable *kernel, const void *params);
/* Calls of the engine's services since the last run began: "barrier SYNC 0 0; ..." */
const char *stand_log(void);
/* Bytes of the thread's shared memory. */
unsigned char *stand_shared(void);
/* The thread that stand_run() runs: tests set its fields. */
extern SimThread stand_thread;
/* Addresses of module variables that kernels get; bytes are set up from the table. */
void *stand_global(uint32_t variable);

/* A whole file; ends the test when it cannot be read. To be freed. */
char *stand_read(const char *path, size_t *size);

#endif
