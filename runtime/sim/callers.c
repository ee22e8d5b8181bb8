/* callers.c - where a return address is in the program, for reports.
 *
 * addr2line, where it is installed, knows files and lines of programs built with -g; else the
 * dynamic symbol and the offset are told. Only reports ask, so it may take its time.
 */
#include <dlfcn.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "host.h"

extern char **environ;

enum { KNOWN = 256 };
static struct {
    const void *caller;
    char text[200];
} known[KNOWN];

/* One line of output of `addr2line -e file address`. */
static bool run_addr2line(const char *file, const char *address, char *out, size_t size)
{
    int ends[2];
    pid_t pid;
    char program[] = "addr2line", dash_e[] = "-e", dash_s[] = "-s";
    char *args[] = {program, dash_s, dash_e, (char *)(uintptr_t)file, (char *)(uintptr_t)address,
                    NULL};
    posix_spawn_file_actions_t actions;
    if (pipe(ends) != 0)
        return false;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    posix_spawn_file_actions_addclose(&actions, ends[0]);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", 1, 0);
    bool started = posix_spawnp(&pid, program, &actions, NULL, args, environ) == 0;
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    size_t n = 0;
    for (ssize_t got; started && n + 1 < size && (got = read(ends[0], out + n, size - 1 - n)) > 0;)
        n += (size_t)got;
    close(ends[0]);
    out[n] = 0;
    if (started)
        waitpid(pid, NULL, 0);
    out[strcspn(out, " \n")] = 0;
    return started && n > 0 && !strchr(out, '?') && strchr(out, ':') && !strstr(out, ":0");
}

static void caller_find(const void *caller, char *out, size_t size)
{
    Dl_info info;
    char address[32];
    /* The call is before the place to which it returns. */
    const char *call = (const char *)caller - 1;
    out[0] = 0;
    if (!caller || !dladdr(call, &info) || !info.dli_fname)
        return;
    uintptr_t offset = (uintptr_t)call - (uintptr_t)info.dli_fbase;
    /* Programs that are not position independent are linked at their addresses. */
    const unsigned char *elf = info.dli_fbase;
    uintptr_t linked = elf[16] == 2 ? (uintptr_t)call : offset;
    snprintf(address, sizeof address, "0x%lx", (unsigned long)linked);
    const char *file = strrchr(info.dli_fname, '/') ? info.dli_fname : "/proc/self/exe";
    if (run_addr2line(file, address, out, size))
        return;
    const char *base = strrchr(info.dli_fname, '/');
    base = base ? base + 1 : info.dli_fname;
    if (info.dli_sname)
        snprintf(out, size, "%s+0x%lx in %s", info.dli_sname,
                 (unsigned long)((uintptr_t)call - (uintptr_t)info.dli_saddr), base);
    else
        snprintf(out, size, "%s+%s", base, address);
}

char *caller_describe(const void *caller, char *out, size_t size)
{
    size_t slot = ((uintptr_t)caller >> 2) % KNOWN;
    if (known[slot].caller != caller) {
        known[slot].caller = caller;
        caller_find(caller, known[slot].text, sizeof known[slot].text);
    }
    snprintf(out, size, "%s", known[slot].text);
    return out;
}
