/* callers.c - where in the program a call was made, for reports.
 *
 * A place is a short chain of return addresses, kept once: the first may lie in a function of
 * a header of CUDA, and then the next one is meant; and a call of a library of kernels is better
 * found by who called the library. addr2line, where it is installed, knows
 * files and lines of programs built with -g; else the dynamic symbol and the offset are told.
 * Only reports ask for text, so it may take its time.
 */
#include <dlfcn.h>
#include <execinfo.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xxhash.h>

#include "host.h"

extern char **environ;

enum { DEPTH = 6, LOOK = 9, BUCKETS = 1024 };

typedef struct Place {
    struct Place *next;
    void *frames[DEPTH];
    char *text; /* NULL: nobody has asked yet */
} Place;
static Place *buckets[BUCKETS];

void *caller_note(void *caller)
{
    void *all[LOOK], *frames[DEPTH] = {caller};
    int n = backtrace(all, LOOK), first = 0;
    while (first < n && all[first] != caller)
        first++;
    for (int i = 1; i < DEPTH && first + i < n; i++)
        frames[i] = all[first + i];
    Place **bucket = &buckets[XXH3_64bits(frames, sizeof frames) % BUCKETS];
    for (Place *p = *bucket; p; p = p->next)
        if (memcmp(p->frames, frames, sizeof frames) == 0)
            return p;
    Place *p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    memcpy(p->frames, frames, sizeof frames);
    p->next = *bucket;
    return *bucket = p;
}

/* One line of output of `addr2line -e file address`. */
static bool run_addr2line(const char *file, const char *address, char *out, size_t size)
{
    int ends[2];
    pid_t pid;
    char program[] = "addr2line", dash_e[] = "-e";
    char *args[] = {program, dash_e, (char *)(uintptr_t)file, (char *)(uintptr_t)address, NULL};
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

/* Fills out with file:line and returns true, or with what is known else. */
static bool address_find(const void *address, char *out, size_t size)
{
    Dl_info info;
    char text[32];
    /* The call is before the place to which it returns. */
    const char *call = (const char *)address - 1;
    out[0] = 0;
    if (!address || !dladdr(call, &info) || !info.dli_fname)
        return false;
    uintptr_t offset = (uintptr_t)call - (uintptr_t)info.dli_fbase;
    /* Programs that are not position independent are linked at their addresses. */
    const unsigned char *elf = info.dli_fbase;
    uintptr_t linked = elf[16] == 2 ? (uintptr_t)call : offset;
    snprintf(text, sizeof text, "0x%lx", (unsigned long)linked);
    const char *file = strrchr(info.dli_fname, '/') ? info.dli_fname : "/proc/self/exe";
    if (run_addr2line(file, text, out, size))
        return true;
    const char *base = strrchr(info.dli_fname, '/');
    base = base ? base + 1 : info.dli_fname;
    if (info.dli_sname)
        snprintf(out, size, "%s+0x%lx in %s", info.dli_sname,
                 (unsigned long)((uintptr_t)call - (uintptr_t)info.dli_saddr), base);
    else
        snprintf(out, size, "%s+%s", base, text);
    return false;
}

/* Headers, and what nvcc generates, are not the program's own. */
static bool is_foreign(const char *file)
{
    return strstr(file, "/include/") || strstr(file, "tmpxft_");
}

/* Of the chain the first line of the program's own, and the first one in another file, from which
 * that was called: "product.cu:134 from stage_1.c:88". */
static void place_find(const Place *p, char *out, size_t size)
{
    char text[400], file[256] = "";
    size_t n = 0;
    address_find(p->frames[0], out, size);
    for (int i = 0; i < DEPTH && address_find(p->frames[i], text, sizeof text); i++) {
        const char *base = strrchr(text, '/');
        base = base ? base + 1 : text;
        size_t name = strcspn(base, ":");
        if (is_foreign(text) || (strlen(file) == name && strncmp(file, base, name) == 0))
            continue;
        if (n > 0) {
            snprintf(out + n, size - n, " from %s", base);
            return;
        }
        n = (size_t)snprintf(out, size, "%s", base);
        snprintf(file, sizeof file, "%.*s", (int)name, base);
        if (n >= size)
            return;
    }
}

char *caller_describe(const void *caller, char *out, size_t size)
{
    Place *p = (Place *)(uintptr_t)caller;
    char text[512] = "";
    if (p && !p->text) {
        place_find(p, text, sizeof text);
        p->text = strdup(text);
    }
    snprintf(out, size, "%s", p && p->text ? p->text : "");
    return out;
}
