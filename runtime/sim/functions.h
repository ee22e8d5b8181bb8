/* functions.h - kernels and variables that an executable has registered. */
#ifndef MDL_SIM_FUNCTIONS_H
#define MDL_SIM_FUNCTIONS_H

#include "host.h"

typedef struct Function {
    struct Function *next;
    const void *host; /* the host's function: what the program launches by */
    const char *name; /* mangled */
    SimModule *module;
    SimKernel *kernel;  /* NULL until it is first needed */
    int shared_dynamic; /* cudaFuncAttributeMaxDynamicSharedMemorySize; -1: not set */
} Function;
Function *function_find(const void *host);
cudaError_t function_load(Function *function);
uint32_t function_shared_limit(const Function *function); /* of dynamic shared memory */

typedef struct Variable {
    struct Variable *next;
    const void *host;
    const char *name;
    size_t size;
    SimModule *module;
} Variable;
Variable *variable_find(const void *host);

#endif
