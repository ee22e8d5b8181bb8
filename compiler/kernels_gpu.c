/* kernels_gpu.c - the library of kernels for the GPUs that a trainer is for.
 *
 * Kernels are installed as source. What nvcc makes of them depends on the GPUs that are asked
 * for, so they are compiled when a trainer first needs them, and kept: the library's name in
 * the cache is a hash of the sources, the compilers and their flags. */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "build.h"
#include "files_out.h"

typedef VEC(const char *) Names;

static int by_name(const void *a, const void *b)
{
    const char *const *x = a, *const *y = b;
    return strcmp(*x, *y);
}

static bool ends_in(const char *name, const char *end)
{
    size_t n = strlen(name), k = strlen(end);
    return n > k && strcmp(name + n - k, end) == 0;
}

static Names list_sources(Arena *a, const char *dir)
{
    Names names = {0};
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));)
        if (ends_in(e->d_name, ".cu") || ends_in(e->d_name, ".cuh") || ends_in(e->d_name, ".c"))
            VEC_PUSH(a, &names, arena_strndup(a, e->d_name, strlen(e->d_name)));
    if (d)
        closedir(d);
    if (names.n)
        qsort(names.at, (size_t)names.n, sizeof *names.at, by_name);
    return names;
}

static void add_text(Arena *a, Text *key, const char *path)
{
    size_t size = 0;
    char *text = file_read(a, path, 4 << 20, &size);
    text_printf(key, "\n%s %zu\n", path, size);
    if (text)
        text_add_n(key, text, size);
}

const char *kernels_key(Arena *a, const Toolchain *t)
{
    Text key = {.arena = a};
    Names names = list_sources(a, t->kernels);
    text_printf(&key, "%s %s\n%s %s %s", words_show(a, &t->nvcc), words_show(a, &t->nvcc_flags),
                words_show(a, &t->cc), words_show(a, &t->flags), words_show(a, &t->extra));
    for (int i = 0; i < names.n; i++)
        add_text(a, &key, arena_printf(a, "%s/%s", t->kernels, names.at[i]));
    static const char *const headers[] = {"gpu.h", "gpu_half.h", "half.h", "kernels.h"};
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++)
        add_text(a, &key, arena_printf(a, "%s/include/mdl/%s", t->home, headers[i]));
    const char *root = toolchain_cuda_root(a, t->nvcc.at[0]);
    struct stat st;
    if (root && stat(arena_printf(a, "%s/bin/nvcc", root), &st) == 0)
        text_printf(&key, "\n%s %lld %lld", root, (long long)st.st_size,
                    (long long)st.st_mtim.tv_sec);
    return arena_printf(a, "kernels-%016" PRIx64 ".a", (uint64_t)XXH64(key.at, key.n, 0));
}

/* Said before the work, not after it. */
static bool archiver_here(const Workshop *w)
{
    Job pack = {.number = ENOENT};
    VEC_PUSH(w->arena, &pack.words, ARCHIVER);
    if (program_find(w->arena, ARCHIVER))
        return true;
    toolchain_say_missing(&w->tools, &pack);
    return false;
}

/* Compiles every source and packs the objects. */
static int compile_kernels(Workshop *w, const char *library)
{
    Arena *a = w->arena;
    const Names names = list_sources(a, w->tools.kernels);
    VEC(Job) jobs = {0};
    Job pack = {.log = arena_printf(a, "%s/ar.log", w->dir)};
    static const char *const ar[] = {ARCHIVER, "rcs", NULL};
    push_all(a, &pack.words, ar);
    VEC_PUSH(a, &pack.words, library);
    for (int i = 0; i < names.n; i++) {
        if (ends_in(names.at[i], ".cuh"))
            continue;
        const char *object = arena_printf(a, "%s/kernel_%s.o", w->dir, names.at[i]);
        VEC_PUSH(a, &pack.words, object);
        const char *source = arena_printf(a, "%s/%s", w->tools.kernels, names.at[i]);
        VEC_PUSH(a, &jobs, toolchain_compile(a, &w->tools, source, object));
    }
    int code = workshop_jobs(w, jobs.at, jobs.n, true);
    return code == EXIT_DONE ? workshop_jobs(w, &pack, 1, false) : code;
}

static void link_kernels(Toolchain *t, const char *library)
{
    for (int i = 0; i < t->libraries.n; i++)
        if (strcmp(t->libraries.at[i], KERNELS_LIBRARY) == 0)
            t->libraries.at[i] = library;
}

int workshop_kernels(Workshop *w)
{
    Arena *a = w->arena;
    const char *cache = cache_directory(a), *made = arena_printf(a, "%s/libmdl_gpu.a", w->dir);
    const char *kept = cache ? arena_printf(a, "%s/%s", cache, kernels_key(a, &w->tools)) : NULL;
    if (cache_has(kept)) {
        link_kernels(&w->tools, kept);
        return EXIT_DONE;
    }
    if (!archiver_here(w))
        return EXIT_USE;
    if (!w->quiet)
        fprintf(stderr, "compiling the kernels for these GPUs; this is done once\n");
    int code = compile_kernels(w, made);
    if (code != EXIT_DONE)
        return code;
    link_kernels(&w->tools, made);
    /* a cache that is full costs time, not the build */
    if (kept)
        cache_keep(a, kept, made, 0600);
    return EXIT_DONE;
}
