/* module_cache.c - the folder of compiled modules, and the C compiler.
 *
 * A compiled module's name is the hash of everything that it was made from: the C text with
 * the headers in it, the compiler with its flags, the processor (it is compiled for this
 * one). Files appear by rename, so processes may build the same module at the same time.
 */
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "module_build.h"
#include "sim.h"

extern char **environ;

enum { ARGUMENTS_MAX = 64, WORDS_MAX = 16 };

static const char *const FLAGS[] = {
    "-x",
    "c",
    "-std=gnu17",
    "-O2",
    "-fPIC",
    "-shared",
    "-march=native",
    "-ffp-contract=off",
    "-fwrapv",
    "-fno-math-errno",
    "-fno-strict-aliasing",
    "-fno-trapping-math",
    "-w",
};

const char *module_compiler_flags(void)
{
    static char text[1024];
    size_t used = (size_t)snprintf(text, sizeof text, "%s", sim_config()->cc);
    for (size_t i = 0; i < sizeof FLAGS / sizeof *FLAGS && used < sizeof text; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, " %s", FLAGS[i]);
    return text;
}

/* Lines of /proc/cpuinfo that say what code the processor runs. */
static void hash_processor(XXH3_state_t *state)
{
    FILE *file = fopen("/proc/cpuinfo", "r");
    char *line = NULL;
    size_t capacity = 0;
    static const char *const keys[] = {"model name", "flags", "Features", "CPU part"};
    bool seen[sizeof keys / sizeof *keys] = {false};
    while (file && getline(&line, &capacity, file) > 0)
        for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
            if (!seen[i] && strncmp(line, keys[i], strlen(keys[i])) == 0) {
                XXH3_128bits_update(state, line, strlen(line));
                seen[i] = true;
            }
    free(line);
    if (file)
        fclose(file);
}

/* The folder with those above it; what exists already is no failure here. */
static void make_folders(char *path)
{
    for (char *p = path + 1; *p; p++)
        if (*p == '/') {
            *p = '\0';
            mkdir(path, 0700);
            *p = '/';
        }
    mkdir(path, 0700);
}

/* A folder of this process alone, for where no cache can be. */
static char private_path[4096];

static const char *private_folder(void)
{
    if (private_path[0])
        return private_path;
    const char *base = getenv("TMPDIR");
    snprintf(private_path, sizeof private_path, "%s/mdl-sim-XXXXXX", base && *base ? base : "/tmp");
    if (!mkdtemp(private_path))
        private_path[0] = '\0';
    return private_path;
}

static const char *cache_folder(void)
{
    static char path[4096];
    if (!path[0] && sim_config()->cache &&
        snprintf(path, sizeof path, "%s", sim_config()->cache) < (int)sizeof path)
        make_folders(path);
    return path[0] && access(path, W_OK | X_OK) == 0 ? path : private_folder();
}

void module_cache_forget(const char *object)
{
    const char *folder = cache_folder();
    if (folder == private_path && unlink(object) == 0 && rmdir(folder) == 0)
        private_path[0] = '\0';
}

char *module_cache_path(const char *code, size_t size, const char *flags)
{
    XXH3_state_t *state = XXH3_createState();
    if (!state)
        return NULL;
    XXH3_128bits_reset(state);
    XXH3_128bits_update(state, code, size);
    XXH3_128bits_update(state, flags, strlen(flags));
    hash_processor(state);
    const XXH128_hash_t hash = XXH3_128bits_digest(state);
    XXH3_freeState(state);
    char *path = NULL;
    if (asprintf(&path, "%s/module_%016llx%016llx.so", cache_folder(),
                 (unsigned long long)hash.high64, (unsigned long long)hash.low64) < 0)
        return NULL;
    return path;
}

bool module_write_file(const char *path, const char *data, size_t size)
{
    char *temporary = NULL;
    if (asprintf(&temporary, "%s.XXXXXX", path) < 0)
        return false;
    const int fd = mkstemp(temporary);
    bool done = fd >= 0;
    while (done && size > 0) {
        const ssize_t n = write(fd, data, size);
        if (n < 0 && errno == EINTR)
            continue;
        done = n > 0;
        data += done ? n : 0;
        size -= done ? (size_t)n : 0;
    }
    if (fd >= 0)
        done = close(fd) == 0 && done;
    done = done && rename(temporary, path) == 0;
    if (!done && fd >= 0)
        unlink(temporary);
    free(temporary);
    return done;
}

/* ---------------------------------------------------------------- the compiler */

static void read_start(int fd, char *out, size_t size)
{
    const ssize_t n = pread(fd, out, size - 1, 0);
    out[n > 0 ? n : 0] = '\0';
}

/* MDL_SIM_CC may hold words: "ccache gcc". Splits in place. */
static size_t split_words(char *words, const char **into, size_t most)
{
    size_t n = 0;
    char *rest = NULL;
    for (char *w = strtok_r(words, " \t", &rest); w && n < most; w = strtok_r(NULL, " \t", &rest))
        into[n++] = w;
    return n;
}

static bool run_compiler(const char *const *arguments, int log)
{
    posix_spawn_file_actions_t actions;
    pid_t child;
    int status = 0;
    if (posix_spawn_file_actions_init(&actions) != 0)
        return false;
    int failed = posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    if (failed == 0)
        failed = posix_spawn_file_actions_adddup2(&actions, log, 1);
    if (failed == 0)
        failed = posix_spawn_file_actions_adddup2(&actions, log, 2);
    if (failed == 0)
        failed =
            posix_spawnp(&child, arguments[0], &actions, NULL, (char *const *)arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (failed != 0) {
        dprintf(log, "%s: %s\n", arguments[0], strerror(failed));
        return false;
    }
    pid_t got;
    do
        got = waitpid(child, &status, 0);
    while (got < 0 && errno == EINTR);
    /* A program that ignores SIGCHLD has no status to wait for: loading will tell. */
    return got < 0 ? errno == ECHILD : WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

bool module_compile(const char *source, const char *object, char *messages, size_t size)
{
    const char *arguments[ARGUMENTS_MAX];
    char *cc = strdup(sim_config()->cc), *temporary = NULL;
    FILE *log_file = tmpfile();
    const int log = log_file ? fileno(log_file) : -1;
    bool done = false;
    snprintf(messages, size, "the compiler cannot be started");
    if (cc && log >= 0 && asprintf(&temporary, "%s.%ld", object, (long)getpid()) >= 0) {
        size_t n = split_words(cc, arguments, WORDS_MAX);
        if (n == 0)
            arguments[n++] = "cc";
        for (size_t i = 0; i < sizeof FLAGS / sizeof *FLAGS; i++)
            arguments[n++] = FLAGS[i];
        const char *const rest[] = {source, "-o", temporary, "-lm", NULL};
        memcpy(arguments + n, rest, sizeof rest);
        done = run_compiler(arguments, log);
        read_start(log, messages, size);
        done = done && rename(temporary, object) == 0;
        if (!done)
            unlink(temporary);
    }
    if (log_file)
        fclose(log_file);
    free(temporary);
    free(cc);
    return done;
}
