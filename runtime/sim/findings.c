/* findings.c - what was found: reports, and the end of the process.
 *
 * A report is "mdl-sim: KIND: text"; further lines are indented. The first one ends the
 * process, unless it is to go on or is already at its end: then the exit code tells.
 */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "findings.h"
#include "host.h"

enum { CHECKS_MAX = 16, REPORTS_MAX = 4096, TEXT_MAX = 16384 };

static const char *const NAMES[SIM_FINDINGS] = {
    [SIM_RACE] = "race",
    [SIM_RACE_BLOCK] = "race-in-kernel",
    [SIM_OUT_OF_BOUNDS] = "out-of-bounds",
    [SIM_USE_AFTER_FREE] = "use-after-free",
    [SIM_WRONG_DEVICE] = "wrong-device",
    [SIM_HOST_ACCESS] = "host-access",
    [SIM_HOST_POINTER] = "host-pointer",
    [SIM_MISALIGNED] = "misaligned",
    [SIM_UNINITIALISED] = "uninitialised",
    [SIM_BARRIER] = "barrier",
    [SIM_WARP] = "warp",
    [SIM_LEAK] = "leak",
    [SIM_DOUBLE_FREE] = "double-free",
    [SIM_NCCL_MISMATCH] = "nccl-mismatch",
    [SIM_DEADLOCK] = "deadlock",
    [SIM_AFTER_FAILURE] = "after-failure",
    [SIM_HOST_RACE] = "host-race",
    [SIM_UNKNOWN] = "unknown",
    [SIM_MISUSE] = "misuse",
};

static struct {
    int findings, nchecks;
    bool ending;
    uint64_t seen[REPORTS_MAX];
    void (*checks[CHECKS_MAX])(void);
} state;

const char *sim_finding_name(SimFinding kind)
{
    return (unsigned)kind < SIM_FINDINGS ? NAMES[kind] : "finding";
}

int sim_findings(void)
{
    return state.findings;
}

static bool report_is_new(const char *text)
{
    uint64_t hash = XXH3_64bits(text, strlen(text));
    for (int i = 0; i < state.findings && i < REPORTS_MAX; i++)
        if (state.seen[i] == hash)
            return false;
    if (state.findings < REPORTS_MAX)
        state.seen[state.findings] = hash;
    state.findings++;
    return true;
}

static void report_print(const char *text)
{
    char line[2 * TEXT_MAX];
    size_t n = 0;
    for (; *text && n + 4 < sizeof line; text++) {
        line[n++] = *text;
        if (*text != '\n' || !text[1])
            continue;
        line[n++] = ' ';
        line[n++] = ' ';
        while (text[1] == ' ')
            text++;
    }
    while (n > 0 && line[n - 1] == '\n')
        n--;
    line[n++] = '\n';
    fwrite(line, 1, n, stderr);
}

/* What the host was doing: the call that is at fault, or that waited. */
static void report_place(char *text, size_t size)
{
    const HostThread *t = host_thread();
    char where[256];
    size_t n = strlen(text);
    if (state.ending || t->depth == 0 || !t->call)
        return;
    caller_describe(t->caller, where, sizeof where);
    snprintf(text + n, size - n, "\nfound in %s%s%s", t->call, *where ? " at " : "", where);
}

void sim_report(SimFinding kind, const char *format, ...)
{
    static _Thread_local char text[TEXT_MAX];
    int n = snprintf(text, sizeof text, "mdl-sim: %s: ", sim_finding_name(kind));
    va_list args;
    va_start(args, format);
    vsnprintf(text + n, sizeof text - (size_t)n, format, args);
    va_end(args);
    if (!report_is_new(text))
        return;
    fflush(NULL);
    report_place(text, sizeof text);
    report_print(text);
    if (!sim_config()->keep_going && !state.ending)
        findings_exit();
}

void findings_exit(void)
{
    fflush(NULL);
    _exit(SIM_EXIT);
}

void sim_at_exit(void (*check)(void))
{
    if (state.nchecks < CHECKS_MAX)
        state.checks[state.nchecks++] = check;
}

/* Leaks are told where the program came to its end without a failure of its own. */
void findings_end(void)
{
    /* A thread that still runs operations would be disturbed. */
    bool alone = lock_try(1.0);
    state.ending = true;
    if (alone && !host_failed() && state.findings == 0) {
        scheduler_drain();
        memory_leaks();
        pinned_leaks();
        streams_leaks();
        events_leaks();
        graphs_leaks();
        for (int i = 0; i < state.nchecks; i++)
            state.checks[i]();
    }
    if (alone && state.findings == 0)
        calls_end();
    if (state.findings > 0)
        findings_exit();
}
