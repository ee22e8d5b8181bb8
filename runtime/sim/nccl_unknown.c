/* nccl_unknown.c - the functions of the real library that are not simulated: each reports its
 * own name. The list is that of all functions; those that exist replace these, which are weak.
 */
#include "nccl_world.h"

static int unknown(const char *call, void *caller)
{
    sim_enter(call, SIM_CALL_WORK, caller);
    sim_report(SIM_UNKNOWN, "%s is not simulated", call);
    sim_leave(call, "ncclInvalidUsage");
    return (int)ncclInvalidUsage;
}

#define UNKNOWN(name) UNKNOWN_AS(name, unknown_##name)
#define UNKNOWN_AS(name, own)                                                                      \
    __attribute__((weak)) int own(void) __asm__(#name);                                            \
    __attribute__((weak)) int own(void)                                                            \
    {                                                                                              \
        return unknown(#name, __builtin_return_address(0));                                        \
    }
#include "nccl_exports.def"
