/* toolchain.h - the compilers, their flags and the libraries that make a trainer. */
#ifndef MDLC_TOOLCHAIN_H
#define MDLC_TOOLCHAIN_H

#include "driver.h"
#include "jobs.h"

/* Packs objects. */
#define ARCHIVER "ar"
/* Stands for the library of kernels until kernels_gpu.c has found or made it. */
#define KERNELS_LIBRARY "-lmdl_gpu"

typedef struct {
    Words cc;                   /* $CC split at spaces, or cc */
    const char *home;           /* holds include/mdl and lib/mdl */
    Words flags;                /* of compiling */
    Words libraries;            /* of linking, in order */
    Words extra;                /* $MDL_CFLAGS */
    VEC(const char *) archives; /* the runtime's files */
    /* for GPUs */
    Words nvcc;          /* $NVCC split at spaces, or nvcc; empty for the host */
    Words nvcc_flags;    /* of compiling kernels */
    const char *kernels; /* folder of the kernels' sources */
    bool nccl;           /* its header and library are needed */
} Toolchain;

/* f64: the double-precision runtime. NULL, or what is wrong with mdlc's own files; cc, flags
 * (less the place of the headers) and extra are filled even then. */
const char *toolchain_find(Arena *a, Toolchain *t, bool f64);
/* The same for trainers on GPUs, real or simulated, and for nccl those that use it. `dir` is for
 * scratch. In toolchain_gpu.c. */
const char *toolchain_find_gpu(Arena *a, Interrupts *held, Toolchain *t, const Options *o,
                               bool nccl, const char *dir);
/* The folder of CUDA that `nvcc` is in; NULL: there is no nvcc. */
const char *toolchain_cuda_root(Arena *a, const char *nvcc);
/* Is there a GPU with its driver, and nvcc? Nothing is run to find out. */
bool gpu_here(void);
/* Is there a driver for NVIDIA GPUs? */
bool driver_here(void);

/* cc (nvcc for .cu) … -c source -o object; cc … objects -o program libraries. The log is beside
 * the result. */
Job toolchain_compile(Arena *a, const Toolchain *t, const char *source, const char *object);
Job toolchain_link(Arena *a, const Toolchain *t, const char *const *objects, int n,
                   const char *program);

/* Whether the C compiler, or nvcc, works at all with these flags; dir: a scratch directory. */
bool toolchain_works(Arena *a, Interrupts *held, const Toolchain *t, bool nvcc, const char *dir);
/* Whether the job's program is nvcc. */
bool toolchain_is_nvcc(const Toolchain *t, const Job *j);
/* The job's program for messages: "nvcc", "the C compiler", or its name. */
const char *toolchain_program(const Toolchain *t, const Job *j);

/* What to install, when the program of a job is not there: a compiler, or ar. */
void toolchain_say_missing(const Toolchain *t, const Job *j);

#endif
