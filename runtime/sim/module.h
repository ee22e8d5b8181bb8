/* module.h - what the engine asks of a translated kernel (module.c). */
#ifndef MDL_SIM_MODULE_H
#define MDL_SIM_MODULE_H

#include "sim.h"
#include "simt.h"

/* What is known of the kernel; `unknown` in it is NULL. */
const SimKernelTable *sim_kernel_table(const SimKernel *kernel);
/* Device address of the kernel's variable number `variable`, which is one of its module's and
 * allocated and initialised on first use: what SimServices.global returns. */
uint64_t sim_kernel_global(const SimKernel *kernel, uint32_t variable, int device);

#endif
