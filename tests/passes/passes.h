/* passes.h - compiling models inside a test. */
#ifndef TEST_PASSES_H
#define TEST_PASSES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "emit.h"
#include "order.h"
#include "program.h"
#include "recompute.h"

typedef struct {
    Arena *arena;
    Diag *diag;
    Model *model;
    Program *program; /* NULL when the model is wrong */
    FILE *sink;       /* where verifiers may complain */
} Compiled;

/* The passes of main.c up to allocate, without the proofs. defines and sets end with NULL. */
Compiled compile_file(const char *path, const char *const *defines, const char *const *sets);
Compiled compile_text(const char *text, const char *const *sets);
/* The same for GPUs where gpu is true. */
Compiled compile_for(bool gpu, const char *path, const char *const *defines,
                     const char *const *sets);
Compiled compile_text_for(bool gpu, const char *text, const char *const *sets);
/* With these levels for its layers (recompute.h). */
Compiled compile_levels(const char *text, const unsigned char *levels);
void compiled_free(Compiled *c);

bool proved(const Compiled *c); /* all four proofs */

/* The text of a model that is valid: loops in loops, branches on the turn, tied and frozen weights,
 * tensors used far away, recomputed regions, metrics; on one to four devices, under any schedule,
 * with one to eight micro-batches. */
char *random_model(Arena *a, uint64_t seed);

#endif
