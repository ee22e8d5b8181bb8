/* build.h - a build under way: shared by `mdlc build` (build.c) and `mdlc run` (cache.c). */
#ifndef MDLC_BUILD_H
#define MDLC_BUILD_H

#include <time.h>

#include "driver.h"
#include "toolchain.h"

typedef struct {
    Arena *arena;
    Toolchain tools;
    const char *dir; /* scratch, removed by workshop_close unless keep */
    bool keep, verbose, quiet;
    Interrupts interrupts;
    struct timespec begun;
} Workshop;

/* false after a message. Holds interrupts until workshop_close. */
bool workshop_open(Workshop *w, const Options *o, const Compilation *c);
void workshop_close(Workshop *w);

/* Compiles and links; *program is in w->dir. Returns an exit code, messages said. */
int workshop_build(Workshop *w, const EmittedFiles *files, const char **program);

/* Runs jobs and says what went wrong; compiling: a fault may be in what mdlc has written. */
int workshop_jobs(Workshop *w, Job *jobs, int n, bool compiling);
/* The library of kernels for GPUs, from the cache or compiled now. kernels_gpu.c */
int workshop_kernels(Workshop *w);

/* Changes with all that the library is made of. */
const char *kernels_key(Arena *a, const Toolchain *t);

/* cache.c: NULL where there is no place that is this user's alone; then nothing is kept. */
const char *cache_directory(Arena *a);
/* Is that file (NULL: none) in the cache? Marks it as used. */
bool cache_has(const char *path);
/* Puts a copy of `from` there. What was not used for a month goes. */
bool cache_keep(Arena *a, const char *path, const char *from, unsigned mode);

/* "two_gpu: 2 stages, 1.2 MiB, built in 0.8 s" */
void workshop_report(const Workshop *w, const Compilation *c, const char *program, FILE *to);

#endif
