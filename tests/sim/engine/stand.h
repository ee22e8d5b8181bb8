/* stand.h - a stand for the engine alone: devices, streams and kernels without a program.
 *
 * Kernels are written by hand as the translator would write them; what the host side of the
 * simulator does (memory, streams, reports) is done here in the simplest way. Findings are
 * kept, not printed.
 */
#ifndef STAND_H
#define STAND_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdbool.h>
#include <cmocka.h>

#include "exec.h"

struct SimKernel {
    SimKernelTable table;
    SimKernel *next;
};
struct SimStream {
    int device;
    uint32_t id, sequence;
    SimClock clock; /* what the next operation knows */
};

typedef void Kernel(SimThread *t);

extern SimConfig stand_config;

/* Everything anew: no findings, no streams, race checking, scheduler random with seed 1. */
void stand_begin(void);
uint64_t stand_alloc(int device, uint64_t size);
void stand_free(uint64_t address);
void stand_peer(int from, int to, bool enabled);
SimStream *stand_stream(int device);
/* What comes into `stream` from now on waits for what is in `other`. */
void stand_wait(SimStream *stream, const SimStream *other);

typedef struct {
    unsigned grid[3], block[3]; /* 0: 1 */
    uint32_t shared, dynamic, local;
    uint64_t params[4];
} Shape;
/* Runs a kernel of a stream. Site n of the kernel is line n of "test.cu". */
void stand_run(SimStream *stream, const char *name, Kernel *kernel, Shape shape);
/* A copy's side: reads or writes a range. */
void stand_range(SimStream *stream, const char *name, uint64_t address, uint64_t bytes,
                 SimAccess access);

/* How many findings of the kind there are; the texts of all, of any kind. */
int stand_found(SimFinding kind);
int stand_found_any(void);
const char *stand_text(void);
/* Nothing was found, or exactly one finding, of this kind, whose text holds `part`. */
void stand_clean(void);
void stand_only(SimFinding kind, const char *part);
double stand_seconds(void); /* of the processor's time */

/* In kernels: */
#define PARAM(n) (((const uint64_t *)(const void *)t->params)[n])
#define AT(type, space, address, how, site)                                                        \
    (*(type *)t->service->access(t, SIM_SPACE_##space, address, sizeof(type), how, site))
#define LOAD(type, address, site) AT(type, GLOBAL, address, 1, site)
#define STORE(type, address, value, site) (AT(type, GLOBAL, address, 2, site) = (value))
#define LOAD_SHARED(type, offset, site) AT(type, SHARED, offset, 1, site)
#define STORE_SHARED(type, offset, value, site) (AT(type, SHARED, offset, 2, site) = (value))
#define SYNC(site) ((void)t->service->barrier(t, SIM_BAR_SYNC, 0, 0, 0, site))
#define THREAD (t->tid[0] + t->ntid[0] * (t->tid[1] + t->ntid[1] * t->tid[2]))
#define BLOCK (t->ctaid[0] + t->nctaid[0] * (t->ctaid[1] + t->nctaid[1] * t->ctaid[2]))

#endif
