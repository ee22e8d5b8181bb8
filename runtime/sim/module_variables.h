/* module_variables.h - global variables of a module on each device (module_variables.c). */
#ifndef MDL_SIM_MODULE_VARIABLES_H
#define MDL_SIM_MODULE_VARIABLES_H

#include "ptx.h"
#include "sim.h"

typedef struct {
    const PtxModule *module;
    uint64_t *addresses[SIM_DEVICES_MAX]; /* by variable; 0: not there yet */
} ModuleVariables;

/* Where a variable of the module is on a device; it is made at first, with its initial value and
 * all that this refers to. 0: out of memory, or not a global variable. */
uint64_t module_variable_address(ModuleVariables *variables, uint32_t variable, int device);
/* The variable of that name. false: there is none. */
bool module_variable_find(const PtxModule *module, const char *name, uint32_t *variable);

#endif
