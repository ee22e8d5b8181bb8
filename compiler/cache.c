/* cache.c - mdlc run: builds a trainer unless the cache has it, and becomes it.
 *
 * A trainer's name in the cache is a hash of all that it is made of: the C text, the
 * commands, the runtime's files, the kernels' sources for GPUs, the processor (one home may
 * serve several machines).
 * Entries appear by rename, so runs at the same time do not disturb each other; those not
 * used for a month go when a new one comes. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#include "build.h"
#include "files_out.h"

enum { UNUSED_SECONDS = 30 * 24 * 3600 };

/* ------------------------------------------------------------------------- the key */

static void add_processor(Arena *a, Text *key)
{
    char *info = file_read(a, "/proc/cpuinfo", 64 << 10, NULL);
    static const char *const lines[] = {"\nmodel name", "\nflags", "\nFeatures", "\nCPU part"};
    for (size_t i = 0; info && i < sizeof lines / sizeof *lines; i++) {
        const char *at = strstr(info, lines[i]);
        if (at)
            text_add_n(key, at, strcspn(at + 1, "\n") + 1);
    }
}

/* Size and time of change; nothing for a file that is not there. */
static void add_file(Text *key, const char *path)
{
    struct stat st;
    if (stat(path, &st) == 0)
        text_printf(key, "\n%s %lld %lld.%09ld", path, (long long)st.st_size,
                    (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
}

static void add_program(Arena *a, Text *key, const char *name)
{
    const char *file = program_find(a, name);
    if (file)
        add_file(key, file);
}

static const char *key_of(Arena *a, const Toolchain *t, const EmittedFiles *files)
{
    Text key = {.arena = a};
    text_printf(&key, "mdlc %s", MDLC_VERSION);
    for (int i = 0; i < files->n; i++) {
        size_t n = strlen(files->at[i].text);
        text_printf(&key, "\n%s %zu\n", files->at[i].name, n);
        text_add_n(&key, files->at[i].text, n);
    }
    if (t->nvcc.n)
        text_printf(&key, "\n%s", kernels_key(a, t));
    Job link = toolchain_link(a, t, NULL, 0, "trainer");
    text_printf(&key, "\n%s %s\n%s", words_show(a, &t->flags), words_show(a, &t->extra),
                words_show(a, &link.words));
    for (int i = 0; i < t->cc.n; i++)
        add_program(a, &key, t->cc.at[i]);
    for (int i = 0; i < t->archives.n; i++)
        add_file(&key, t->archives.at[i]);
    static const char *const headers[] = {"rt.h",      "kernels.h", "half.h",    "vmath.h",
                                          "rt_cuda.h", "gpu.h",     "gpu_half.h"};
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++)
        add_file(&key, arena_printf(a, "%s/include/mdl/%s", t->home, headers[i]));
    add_processor(a, &key);
    return arena_printf(a, "%016" PRIx64, (uint64_t)XXH64(key.at, key.n, 0));
}

/* ----------------------------------------------------------------------- the cache */

static bool is_ours(const char *path, mode_t type)
{
    struct stat st;
    return lstat(path, &st) == 0 && (st.st_mode & S_IFMT) == type && st.st_uid == geteuid() &&
           (st.st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

const char *cache_directory(Arena *a)
{
    const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME"), *dir = NULL;
    if (xdg && xdg[0] == '/')
        dir = arena_printf(a, "%s/mdlc", xdg);
    else if (home && home[0] == '/')
        dir = arena_printf(a, "%s/.cache/mdlc", home);
    if (!dir)
        return NULL;
    for (char *p = strchr(dir + 1, '/'); p; p = strchr(p + 1, '/'))
        mkdir(arena_strndup(a, dir, (size_t)(p - dir)), 0700);
    mkdir(dir, 0700);
    return is_ours(dir, S_IFDIR) && access(dir, W_OK | X_OK) == 0 ? dir : NULL;
}

bool cache_has(const char *path)
{
    bool there = path && is_ours(path, S_IFREG);
    if (there)
        utimensat(AT_FDCWD, path, NULL, 0);
    return there;
}

static void remove_unused(Arena *a, const char *dir)
{
    DIR *d = opendir(dir);
    time_t now = time(NULL);
    for (struct dirent *e; d && (e = readdir(d));) {
        const char *path = arena_printf(a, "%s/%s", dir, e->d_name);
        if (is_ours(path, S_IFREG)) {
            struct stat st;
            if (stat(path, &st) == 0 && now - st.st_mtime > UNUSED_SECONDS)
                unlink(path);
        }
    }
    if (d)
        closedir(d);
}

bool cache_keep(Arena *a, const char *path, const char *from, unsigned mode)
{
    remove_unused(a, arena_strndup(a, path, (size_t)(strrchr(path, '/') - path)));
    return file_replace_by_copy(a, path, from, mode);
}

/* ----------------------------------------------------------------------------- run */

/* Becomes the program open as fd. Returns only when that fails. */
static int become(const Options *o, const Compilation *c, int fd, const char *path)
{
    VEC(char *) argv = {0};
    VEC_PUSH(c->arena, &argv, arena_printf(c->arena, "%s", c->model->name));
    for (char **arg = o->run_args; *arg; arg++)
        VEC_PUSH(c->arena, &argv, *arg);
    VEC_PUSH(c->arena, &argv, NULL);
    extern char **environ;
    fflush(NULL);
    fexecve(fd, argv.at, environ);
    fprintf(stderr, "mdlc: cannot run the trainer, %s: %s%s\n", path, strerror(errno),
            errno == EACCES ? "; programs may be forbidden there: set XDG_CACHE_HOME or TMPDIR"
                            : "");
    return EXIT_USE;
}

static int open_program(const char *path)
{
    return open(path, O_RDONLY | O_CLOEXEC);
}

/* Builds, keeps what comes of it under `cached` (if any); an open file or -1. */
static int build_and_open(Workshop *w, const Options *o, const Compilation *c,
                          const EmittedFiles *files, const char *cached, int *code)
{
    const char *program;
    *code = workshop_build(w, files, &program);
    if (*code != EXIT_DONE)
        return -1;
    if (!o->quiet)
        workshop_report(w, c, program, stderr);
    /* a cache that is full costs time, not the run */
    if (cached && cache_keep(w->arena, cached, program, 0700))
        program = cached;
    int fd = open_program(program);
    if (fd < 0) {
        fprintf(stderr, "mdlc: cannot open %s: %s\n", program, strerror(errno));
        *code = EXIT_USE;
    }
    return fd;
}

int build_run(const Options *o, const Compilation *c)
{
    Arena *a = c->arena;
    Workshop w;
    if (o->target == TARGET_CUDA && !driver_here()) { /* said before minutes of compiling */
        fprintf(stderr,
                "mdlc: no NVIDIA GPU here, or no driver for it: run with --target host, or with "
                "--target sim on a simulated GPU; mdlc build --target cuda needs none\n");
        return EXIT_USE;
    }
    int last = c->program->devices.at[c->program->devices.n - 1].number;
    if (o->target == TARGET_SIM) /* as many GPUs as the model wants, unless the user says */
        setenv("MDL_SIM_DEVICES", arena_printf(a, "%d", last + 1), 0);
    if (!workshop_open(&w, o, c))
        return EXIT_USE;
    EmittedFiles files = emit_files(c->program, c->diag);
    const char *dir = cache_directory(a);
    const char *cached = dir ? arena_printf(a, "%s/%s", dir, key_of(a, &w.tools, &files)) : NULL;
    int code = EXIT_DONE, fd = cache_has(cached) ? open_program(cached) : -1;
    if (fd < 0) {
        fd = build_and_open(&w, o, c, &files, cached, &code);
    } else if (o->verbose) {
        fprintf(stderr, "%s\n", cached);
    }
    workshop_close(&w); /* the open file outlives its name */
    return fd < 0 ? code : become(o, c, fd, cached ? cached : "in a temporary directory");
}
