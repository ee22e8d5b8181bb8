/* module_cache.c - the folder of compiled kernels, and the C compiler.
 *
 * A compiled kernel's name is the hash of everything that it was made from: the C text with
 * the headers in it, the compiler with its flags, the processor (it is compiled for this
 * one). Files appear by rename, so processes may build the same kernel at the same time;
 * threads of one process wait for each other.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
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

/* ------------------------------------------------------------ what names begin with */

/* What all names depend on: the first processor's lines of /proc/cpuinfo that say what code it
 * runs; the compiler and what it is called with. */
static XXH3_state_t common;

static void hash_processor(void)
{
    FILE *file = fopen("/proc/cpuinfo", "r");
    char *line = NULL;
    size_t capacity = 0;
    static const char *const keys[] = {"model name", "flags", "Features", "CPU part"};
    while (file && getline(&line, &capacity, file) > 1)
        for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
            if (strncmp(line, keys[i], strlen(keys[i])) == 0)
                XXH3_128bits_update(&common, line, strlen(line));
    free(line);
    if (file)
        fclose(file);
}

static void hash_common(void)
{
    XXH3_128bits_reset(&common);
    for (size_t i = 0; i < sizeof FLAGS / sizeof *FLAGS; i++)
        XXH3_128bits_update(&common, FLAGS[i], strlen(FLAGS[i]) + 1);
    hash_processor();
}

static XXH128_hash_t hash_of(const char *code, size_t size)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    const char *cc = sim_config()->cc;
    pthread_once(&once, hash_common);
    XXH3_state_t state = common;
    XXH3_128bits_update(&state, cc, strlen(cc) + 1);
    XXH3_128bits_update(&state, code, size);
    return XXH3_128bits_digest(&state);
}

/* ---------------------------------------------------------------------- places */

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

static char *cache_folder(void)
{
    char *path = sim_config()->cache ? strdup(sim_config()->cache) : NULL;
    if (path && *path)
        make_folders(path);
    if (path && access(path, W_OK | X_OK) == 0)
        return path;
    free(path);
    return NULL;
}

/* A new folder, for where no cache can be. */
static char *own_folder(void)
{
    const char *base = getenv("TMPDIR");
    char *path = NULL;
    if (asprintf(&path, "%s/mdl-sim-XXXXXX", base && *base ? base : "/tmp") < 0)
        return NULL;
    if (mkdtemp(path))
        return path;
    free(path);
    return NULL;
}

static pthread_mutex_t places_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t places_left = PTHREAD_COND_INITIALIZER;
static ModulePlace *places;

static bool is_taken(const ModulePlace *place)
{
    for (const ModulePlace *p = places; p; p = p->next)
        if (strcmp(p->object, place->object) == 0)
            return true;
    return false;
}

bool module_place_enter(ModulePlace *place, const char *code, size_t size)
{
    const XXH128_hash_t hash = hash_of(code, size);
    char *cache = cache_folder(), *folder = cache ? cache : own_folder();
    *place = (ModulePlace){.own = !cache};
    if (!folder || asprintf(&place->object, "%s/kernel_%016llx%016llx.so", folder,
                            (unsigned long long)hash.high64, (unsigned long long)hash.low64) < 0)
        place->object = NULL;
    free(folder);
    if (!place->object)
        return false;
    pthread_mutex_lock(&places_mutex);
    while (is_taken(place))
        pthread_cond_wait(&places_left, &places_mutex);
    place->next = places;
    places = place;
    pthread_mutex_unlock(&places_mutex);
    return true;
}

void module_place_leave(ModulePlace *place)
{
    char *slash = strrchr(place->object, '/');
    pthread_mutex_lock(&places_mutex);
    ModulePlace **at = &places;
    while (*at != place)
        at = &(*at)->next;
    *at = place->next;
    pthread_cond_broadcast(&places_left);
    pthread_mutex_unlock(&places_mutex);
    if (place->own && slash) {
        unlink(place->object);
        *slash = '\0';
        rmdir(place->object);
    }
    free(place->object);
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
