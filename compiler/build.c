/* build.c - from a Program to files: mdlc emit, mdlc build, mdlc run.
 *
 * A build happens in a scratch directory, where each stage is compiled on its own, several
 * at once; what comes of it gets its name last, by a rename. */
#include "build.h"

#include <errno.h>
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "files_out.h"

/* ------------------------------------------------------------------------- names */

const char *build_stem(Arena *a, const char *input)
{
    const char *slash = strrchr(input, '/');
    const char *name = slash ? slash + 1 : input;
    const char *dot = strrchr(name, '.');
    size_t n = dot && dot != name ? (size_t)(dot - name) : strlen(name);
    bool file = strcmp(input, "-") != 0 && n > 0 && strcmp(name, ".mdl") != 0;
    return file ? arena_strndup(a, name, n) : "trainer";
}

static bool same_file(const char *a, const char *b)
{
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

/* NULL, with a message, when the name that would be taken is in use or nothing can be
 * written there: said before the work, not after it. */
static const char *trainer_name(Arena *a, const Options *o)
{
    const char *path = o->output ? o->output : build_stem(a, o->input), *slash = strrchr(path, '/');
    const char *dir = slash ? arena_strndup(a, path, (size_t)(slash - path) + 1) : ".";
    struct stat st;
    if (access(dir, W_OK | X_OK) != 0) {
        fprintf(stderr, "mdlc: cannot write into %s: %s\n", dir, strerror(errno));
        return NULL;
    }
    if (strcmp(o->input, "-") != 0 && same_file(path, o->input))
        fprintf(stderr, "mdlc: the trainer would replace %s; name it with -o\n", o->input);
    else if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
        fprintf(stderr, "mdlc: %s is a directory; name the trainer with -o\n", path);
    else
        return path;
    return NULL;
}

/* -------------------------------------------------------------------------- emit */

/* Enough of the first line to tell a generated file from one that a person wrote. */
static const char *mark_of(const char *name)
{
    return strncmp(name, "stage_", 6) == 0   ? "/* stage_"
           : strncmp(name, "fused.", 6) == 0 ? "/* fused."
           : strcmp(name, "trainer.c") == 0  ? "/* trainer.c: the model "
                                             : "# Builds the trainer of the model ";
}

static bool is_generated(Arena *a, const char *path, const char *name)
{
    const char *mark = mark_of(name), *head = file_read(a, path, strlen(mark), NULL);
    return head && strcmp(head, mark) == 0;
}

/* The number of a file named stage_N.c; -1 for other names. */
static long stage_number(const char *name)
{
    if (strncmp(name, "stage_", 6) != 0 || name[6] < '0' || name[6] > '9')
        return -1;
    char *end;
    errno = 0;
    long n = strtol(name + 6, &end, 10);
    return errno == 0 && strcmp(end, ".c") == 0 ? n : -1;
}

static bool is_among(const EmittedFiles *files, const char *name)
{
    for (int i = 0; i < files->n; i++)
        if (strcmp(files->at[i].name, name) == 0)
            return true;
    return false;
}

/* Removes what an earlier emit left: stages of a model that had more, fused kernels. */
static bool remove_stale(Arena *a, const char *dir, const EmittedFiles *files)
{
    DIR *d = opendir(dir);
    if (!d) {
        fprintf(stderr, "mdlc: cannot list %s: %s\n", dir, strerror(errno));
        return false;
    }
    VEC(const char *) stale = {0};
    for (struct dirent *e; (e = readdir(d));) {
        const char *path = arena_printf(a, "%s/%s", dir, e->d_name);
        bool ours = stage_number(e->d_name) >= 0 || strcmp(e->d_name, "fused.cu") == 0 ||
                    strcmp(e->d_name, "fused.h") == 0;
        if (ours && !is_among(files, e->d_name) && is_generated(a, path, e->d_name))
            VEC_PUSH(a, &stale, path);
    }
    closedir(d);
    for (int i = 0; i < stale.n; i++) {
        if (unlink(stale.at[i]) == 0)
            continue;
        fprintf(stderr, "mdlc: cannot remove %s: %s\n", stale.at[i], strerror(errno));
        return false;
    }
    return true;
}

/* No file that mdlc has not written is in the way. */
static bool may_replace(Arena *a, const char *dir, const EmittedFiles *files)
{
    for (int i = 0; i < files->n; i++) {
        const char *name = files->at[i].name, *path = arena_printf(a, "%s/%s", dir, name);
        struct stat st;
        if (stat(path, &st) != 0 || (S_ISREG(st.st_mode) && is_generated(a, path, name)))
            continue;
        fprintf(stderr,
                "mdlc: %s is there and was not written by mdlc; it is left alone: name another "
                "directory with -o\n",
                path);
        return false;
    }
    return true;
}

static bool write_files(Arena *a, const char *dir, const EmittedFiles *files)
{
    for (int i = 0; i < files->n; i++)
        if (!build_replace_file(arena_printf(a, "%s/%s", dir, files->at[i].name),
                                files->at[i].text))
            return false;
    return true;
}

int build_emit(const Options *o, const Compilation *c)
{
    Arena *a = c->arena;
    const char *dir = o->output ? o->output : arena_printf(a, "%s_src", build_stem(a, o->input));
    EmittedFiles files = emit_files(c->program, c->diag);
    if (!directory_make(a, dir, 0777) || !may_replace(a, dir, &files) ||
        !write_files(a, dir, &files) || !remove_stale(a, dir, &files))
        return EXIT_USE;
    if (o->quiet)
        return EXIT_DONE;
    int stages = c->program->devices.n;
    printf("%s: stage_0.c", dir);
    if (stages > 1)
        printf("%s stage_%d.c", stages > 2 ? " ..." : "", stages - 1);
    for (int i = stages; i < files.n; i++)
        printf(" %s", files.at[i].name);
    printf("\n");
    return EXIT_DONE;
}

/* ------------------------------------------------------------------------- build */

static void show_log(const char *path)
{
    FILE *f = fopen(path, "r");
    if (!f)
        return;
    char block[4096];
    for (size_t n; (n = fread(block, 1, sizeof block, f)) > 0;)
        fwrite(block, 1, n, stderr);
    fclose(f);
}

static const Job *first_failed(const Job *jobs, int n)
{
    for (int i = 0; i < n; i++)
        if (jobs[i].end != JOB_DONE && jobs[i].end != JOB_STOPPED)
            return &jobs[i];
    return NULL;
}

/* What a job of toolchain_compile compiles; "": it is none. */
static const char *job_source(const Job *j)
{
    for (int i = 0; i + 1 < j->words.n; i++)
        if (strcmp(j->words.at[i], "-c") == 0)
            return j->words.at[i + 1];
    return "";
}

static bool job_compiles_below(const Job *j, const char *dir)
{
    size_t n = strlen(dir);
    const char *source = job_source(j);
    return strncmp(source, dir, n) == 0 && source[n] == '/';
}

/* Says why a job did not end well. compiling: a fault may be in what mdlc has written. */
static int explain(Workshop *w, const Job *j, bool compiling)
{
    if (j->end == JOB_NOT_BEGUN) {
        toolchain_say_missing(&w->tools, j);
        return EXIT_USE;
    }
    bool nvcc = toolchain_is_nvcc(&w->tools, j);
    show_log(j->log);
    if (j->end == JOB_KILLED) {
        fprintf(stderr, "mdlc: %s was ended by signal %d (%s)%s\n", toolchain_program(&w->tools, j),
                j->number, strsignal(j->number),
                j->number == 9 ? "; there may be too little memory" : "");
        return EXIT_USE;
    }
    if (!compiling) {
        bool packing = strcmp(j->words.at[0], ARCHIVER) == 0;
        fprintf(stderr, "mdlc: %s\n",
                packing ? "the library of kernels could not be packed"
                        : "the trainer could not be linked; mdlc doctor says what is missing");
        return EXIT_USE;
    }
    if (!toolchain_works(w->arena, &w->interrupts, &w->tools, nvcc, w->dir)) {
        fprintf(stderr, "mdlc: %s with these flags compiles no %s; mdlc doctor says more\n",
                words_show(w->arena, nvcc ? &w->tools.nvcc : &w->tools.cc),
                nvcc            ? "kernel at all: nvcc --list-gpu-arch names the\n"
                                  "  GPUs that it knows, for --gpu-arch"
                : w->tools.nccl ? "program that includes nccl.h: install NCCL for\n"
                                  "  developers (libnccl-dev), or leave parallel.transfer at peer"
                                : "program at all");
        return EXIT_USE;
    }
    if (w->tools.kernels && job_compiles_below(j, w->tools.kernels)) {
        fprintf(stderr,
                "mdlc: %s, a file of mdlc's own library of kernels, does not compile: %s is not "
                "whole,\n  or this %s is none that it is for: docs/cuda.md names the versions\n",
                job_source(j), w->tools.kernels, nvcc ? "nvcc" : "C compiler");
        return EXIT_USE;
    }
    fprintf(stderr, "mdlc: the %s that was written does not compile; it is kept in %s\n",
            nvcc ? "CUDA" : "C", w->dir);
    w->keep = true;
    return EXIT_BUG;
}

int workshop_jobs(Workshop *w, Job *jobs, int n, bool compiling)
{
    jobs_run(w->arena, &w->interrupts, jobs, n, cores_online(), w->verbose);
    if (interrupts_came(&w->interrupts))
        return EXIT_USE;
    const Job *failed = first_failed(jobs, n);
    if (failed)
        return explain(w, failed, compiling);
    if (w->verbose)
        for (int i = 0; i < n; i++)
            show_log(jobs[i].log);
    return EXIT_DONE;
}

static bool is_source(const char *name)
{
    size_t n = strlen(name);
    return n > 3 && (strcmp(name + n - 2, ".c") == 0 || strcmp(name + n - 3, ".cu") == 0);
}

int workshop_build(Workshop *w, const EmittedFiles *files, const char **program)
{
    Arena *a = w->arena;
    VEC(Job) jobs = {0};
    VEC(const char *) objects = {0};
    if (!write_files(a, w->dir, files))
        return EXIT_USE;
    for (int i = 0; i < files->n; i++) {
        const char *name = files->at[i].name;
        if (!is_source(name))
            continue;
        const char *object = arena_printf(a, "%s/%s.o", w->dir, name);
        VEC_PUSH(a, &objects, object);
        VEC_PUSH(a, &jobs,
                 toolchain_compile(a, &w->tools, arena_printf(a, "%s/%s", w->dir, name), object));
    }
    int code = w->tools.nvcc.n ? workshop_kernels(w) : EXIT_DONE;
    if (code == EXIT_DONE)
        code = workshop_jobs(w, jobs.at, jobs.n, true);
    if (code != EXIT_DONE)
        return code;
    *program = arena_printf(a, "%s/trainer", w->dir);
    Job link = toolchain_link(a, &w->tools, objects.at, objects.n, *program);
    return workshop_jobs(w, &link, 1, false);
}

bool workshop_open(Workshop *w, const Options *o, const Compilation *c)
{
    const Program *p = c->program;
    *w = (Workshop){.arena = c->arena, .verbose = o->verbose, .quiet = o->quiet};
    clock_gettime(CLOCK_MONOTONIC, &w->begun);
    interrupts_hold(&w->interrupts);
    w->dir = scratch_make(c->arena);
    if (!w->dir) {
        interrupts_release(&w->interrupts);
        return false;
    }
    const char *problem =
        o->target == TARGET_HOST
            ? toolchain_find(c->arena, &w->tools, p->real_size == 8)
            : toolchain_find_gpu(c->arena, &w->interrupts, &w->tools, o,
                                 p->transfer == TRANSFER_NCCL && p->links.n > 0, w->dir);
    if (problem) {
        fprintf(stderr, "mdlc: %s\n", problem);
        workshop_close(w);
        return false;
    }
    return true;
}

void workshop_close(Workshop *w)
{
    if (!w->keep)
        scratch_remove(w->arena, w->dir);
    interrupts_release(&w->interrupts);
}

void workshop_report(const Workshop *w, const Compilation *c, const char *program, FILE *to)
{
    struct timespec now;
    struct stat st;
    clock_gettime(CLOCK_MONOTONIC, &now);
    double seconds =
        (double)(now.tv_sec - w->begun.tv_sec) + 1e-9 * (double)(now.tv_nsec - w->begun.tv_nsec);
    int stages = c->program->devices.n;
    fprintf(to, "%s: %d stage%s, %s, built in %.1f s\n", c->model->name, stages,
            stages == 1 ? "" : "s",
            show_bytes(w->arena, stat(program, &st) == 0 ? (int64_t)st.st_size : 0), seconds);
}

int build_trainer(const Options *o, const Compilation *c)
{
    const char *output = trainer_name(c->arena, o), *program;
    Workshop w;
    if (!output || !workshop_open(&w, o, c))
        return EXIT_USE;
    EmittedFiles files = emit_files(c->program, c->diag);
    int code = workshop_build(&w, &files, &program);
    if (code == EXIT_DONE && !file_replace_by_copy(c->arena, output, program, 0777))
        code = EXIT_USE;
    if (code == EXIT_DONE && !o->quiet)
        workshop_report(&w, c, program, stdout);
    workshop_close(&w);
    return code;
}
