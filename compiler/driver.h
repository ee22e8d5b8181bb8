/* driver.h - the command line of mdlc, and what its commands do with a compiled model. */
#ifndef MDLC_DRIVER_H
#define MDLC_DRIVER_H

#include "emit.h"
#include "profile.h"
#include "program.h"
#include "search.h"

typedef enum {
    COMMAND_BUILD,
    COMMAND_RUN,
    COMMAND_EMIT,
    COMMAND_PLAN,
    COMMAND_PROFILE,
    COMMAND_CHECK,
    COMMAND_FMT,
    COMMAND_DOCTOR
} Command;

/* The simulated GPU runs what is built for CUDA. */
typedef enum { TARGET_HOST, TARGET_CUDA, TARGET_SIM } Target;

/* Exit codes. */
enum { EXIT_DONE = 0, EXIT_MODEL = 1, EXIT_USE = 2, EXIT_BUG = 3 };

typedef struct {
    Command command;
    const char *input;  /* the model; "-": standard input */
    const char *output; /* -o */
    FrontOptions front;
    Target target;
    bool target_given;
    const char *schedule_file; /* --schedule-file; NULL: as the model says */
    const char *gpu_arch;      /* --gpu-arch: "sm_80,sm_90"; NULL: the machine's, or a list */
    bool lineinfo;             /* kernels know their source lines */
    VEC(const char *) dumps;   /* --dump=PASS */
    bool json_diagnostics, verbose, quiet;
    bool fmt_check;
    bool search;         /* for the best settings */
    const char *compare; /* a trace of a trainer; NULL */
    const char *apply;   /* where to write a copy of the model with them; NULL */
    const char *profile; /* measured times */
    const char *json, *svg, *dot, *csv, *trace; /* files that plan writes; "-": stdout */
    char **run_args;                            /* after "--", NULL-terminated */
} Options;

/* For mdlc profile, what fusing would lose: the operations before it, and which of the Graph's
 * each became. */
typedef struct {
    const char *key; /* profile_graph_key */
    int nops, nrows;
    const int *row;        /* [nops] */
    const double *seconds; /* [nops]: estimates */
    const OpId *fused;     /* [nops] */
    ProfileRow *rows;      /* [nrows]: names, no times */
} ProfileParts;

/* What the passes made of a model, as far as they got. */
typedef struct {
    Arena *arena;
    Diag *diag;
    Model *model;
    Program *program;
    ProfileParts parts;
    SearchResult search;
    const char *applied; /* the model's text with the settings found; NULL */
} Compilation;

/* options.c: false when the program should end with *exit_code (help, wrong use). */
bool options_parse(Arena *a, int argc, char **argv, Options *o, int *exit_code);

/* build.c: each returns an exit code. */
int build_emit(const Options *o, const Compilation *c);    /* mdlc emit */
int build_trainer(const Options *o, const Compilation *c); /* mdlc build */
int build_run(const Options *o, const Compilation *c); /* mdlc run; does not return on success */
/* The name of the model's file without directory and ending. */
const char *build_stem(Arena *a, const char *input);

/* Writes text to path by way of a temporary file beside it; says what went wrong. */
bool build_replace_file(const char *path, const char *text);

/* profile_measure.c: mdlc profile */
int profile_measure(const Options *o, const Compilation *c);

/* doctor.c */
int doctor(const Options *o);

/* report.c: mdlc plan, and the files that it writes */
int report_plan(const Options *o, const Compilation *c);

#endif
