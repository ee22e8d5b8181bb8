/* cudart_unknown.c - functions of the runtime that are not simulated: each says so.
 *
 * They exist so that a program that links to them starts, and the one that is called is
 * named. Their parameters do not matter.
 */
#include "sim.h"

enum { NOT_SUPPORTED = 801 };

static int call_unknown(const char *name, void *caller)
{
    sim_enter(name, SIM_CALL_QUERY, caller);
    sim_report(SIM_UNKNOWN, "%s is not simulated", name);
    sim_leave(name, "cudaErrorNotSupported");
    return NOT_SUPPORTED;
}

#define X(name)                                                                                    \
    int name(void);                                                                                \
    int name(void)                                                                                 \
    {                                                                                              \
        return call_unknown(#name, __builtin_return_address(0));                                   \
    }
#include "cudart_unknown.def"
