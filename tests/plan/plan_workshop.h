/* plan_workshop.h - compiles models for the tests of plans. */
#ifndef PLAN_WORKSHOP_H
#define PLAN_WORKSHOP_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "plan.h"
#include "recompute.h"

typedef struct {
    Arena *arena;
    Program *program;
} Work;

/* A model's text, through all passes; fails the test where a pass does. */
Work work_compile(const char *text, ScheduleKind kind, int64_t microbatches);
/* Likewise, by 1f1b for GPUs. */
Work work_compile_gpus(const char *text, int64_t microbatches);
/* `stages` equal stages of `each` layers; two samples in a micro-batch. */
Work work_chain(int stages, int each, int microbatches, ScheduleKind kind);
/* gpu[0] has the layers 0, 1 and 4, 5, gpu[1] the others: four chunks; the first layer's
 * weight is tied to the last's. */
Work work_interleaved(int microbatches);
/* Equal chunks, `turns` on each device in turn, under schedule = interleaved. */
Work work_looped(int stages, int turns, int microbatches);
/* Equal chunks: one on each device, or under zb_v two in the form of a V; devices do not meet at
 * the end of a step. */
Work work_apart(int stages, int microbatches, ScheduleKind kind);
void work_free(Work *w);

#endif
