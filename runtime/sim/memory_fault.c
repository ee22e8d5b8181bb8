/* memory_fault.c - the host touches what only a device may.
 *
 * Device addresses are never readable, nor is pinned memory once it is freed: the processor's
 * fault is turned into a report. Other faults go to whoever handled them before.
 */
#include <execinfo.h>
#include <signal.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

#include "findings.h"
#include "host.h"

enum { FRAMES = 24, SHOWN = 6 };
static struct sigaction before[2];

static const int SIGNALS[2] = {SIGSEGV, SIGBUS};

static void fault_pass(int signal, siginfo_t *info, void *context)
{
    const struct sigaction *old = &before[signal == SIGBUS];
    if (old->sa_flags & SA_SIGINFO) {
        old->sa_sigaction(signal, info, context);
    } else if (old->sa_handler == SIG_DFL || old->sa_handler == SIG_IGN) {
        sigaction(signal, old, NULL); /* the instruction faults again */
    } else {
        old->sa_handler(signal);
    }
}

/* The instruction, and who called; the frames before it are the handler's own. */
static void fault_where(const ucontext_t *context, char *out, size_t size)
{
    void *frames[FRAMES], *at = (void *)(uintptr_t)context->uc_mcontext.gregs[REG_RIP];
    int n = backtrace(frames, FRAMES), first = 0;
    size_t used = 0;
    while (first < n && frames[first] != at)
        first++;
    for (int i = first; i <= first + SHOWN && used < size; i++) {
        char where[256];
        if (i > first && i >= n)
            break;
        /* A place is what comes before a return address. */
        caller_describe(caller_note(i == first ? (char *)at + 1 : frames[i]), where, sizeof where);
        if (strstr(where, "libc-start") || strstr(where, "libc.so"))
            break;
        if (*where)
            used += (size_t)snprintf(out + used, size - used, "\nat %s", where);
    }
}

static void fault_handle(int signal, siginfo_t *info, void *context)
{
    uint64_t address = (uint64_t)(uintptr_t)info->si_addr;
    const SimBlockOfMemory *pinned = sim_device_of(address) < 0 ? pinned_near(address) : NULL;
    char text[256], where[2048] = "";
    if (sim_device_of(address) < 0 && !pinned) {
        fault_pass(signal, info, context);
        return;
    }
    fault_where(context, where, sizeof where);
    sim_memory_describe(address, text, sizeof text);
    if (pinned)
        sim_report(pinned->freed ? SIM_USE_AFTER_FREE : SIM_OUT_OF_BOUNDS, "the host accesses %s%s",
                   text, where);
    else
        sim_report(SIM_HOST_ACCESS, "the host accesses device memory: %s%s", text, where);
    findings_exit();
}

__attribute__((constructor)) static void fault_install(void)
{
    struct sigaction action = {.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
    void *frame;
    backtrace(&frame, 1); /* loads what it needs now, not in a handler */
    action.sa_sigaction = fault_handle;
    sigemptyset(&action.sa_mask);
    for (int i = 0; i < 2; i++)
        sigaction(SIGNALS[i], &action, &before[i]);
}

__attribute__((destructor)) static void process_end(void)
{
    findings_end();
}
