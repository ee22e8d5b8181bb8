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
    bool keep, verbose;
    Interrupts interrupts;
    struct timespec begun;
} Workshop;

/* false after a message. Holds interrupts until workshop_close. */
bool workshop_open(Workshop *w, const Options *o, const Compilation *c);
void workshop_close(Workshop *w);

/* Compiles and links; *program is in w->dir. Returns an exit code, messages said. */
int workshop_build(Workshop *w, const EmittedFiles *files, const char **program);

/* "two_gpu: 2 stages, 1.2 MiB, built in 0.8 s" */
void workshop_report(const Workshop *w, const Compilation *c, const char *program, FILE *to);

#endif
