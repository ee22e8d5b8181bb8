/* exec.h - the engine that runs kernels: what its files share.
 *
 *     exec_grid.c     launches: limits, blocks one after another
 *     exec_block.c    a block's threads: what runs next, what to do when nothing can
 *     exec_fiber.c    stacks and the switch between them
 *     exec_barrier.c  barriers of a block          exec_warp.c   shuffles, votes, warp barriers
 *     exec_access.c   loads and stores             exec_print.c  printf of kernels
 *     exec_report.c   the text of findings         exec_stall.c  threads that wait for ever
 *
 * A thread runs on a stack until it ends or has to wait. A thread that ends leaves its stack
 * to the next one; a thread that waits keeps it. The lock guards the engine: one kernel
 * runs at a time, so there is one Exec.
 */
#ifndef MDL_SIM_EXEC_H
#define MDL_SIM_EXEC_H

#include "module.h"
#include "shadow.h"

enum {
    EXEC_THREADS = 1024, /* of a block */
    EXEC_WARPS = 32,
    EXEC_BARRIERS = 16,
    EXEC_SHARED_MAX = 227 * 1024, /* bytes of a block */
    EXEC_LOOKUPS = 64,
    EXEC_WAYS = 4
};

/* A stack with its processor state while nothing runs on it; exec_fiber.c. */
typedef struct ExecStack ExecStack;

typedef enum {
    EXEC_NEW,
    EXEC_RUNS,
    EXEC_READY,
    EXEC_BARRIER,
    EXEC_WARP,
    EXEC_MASK,
    EXEC_SPIN,
    EXEC_EXITED
} ExecState;

/* What a lane of a warp does together with others: which instruction with which qualifiers. */
typedef enum { WARP_SYNC, WARP_SHUFFLE, WARP_VOTE, WARP_MATCH, WARP_REDUCE } ExecWarpKind;

typedef struct Exec Exec;

typedef struct {
    SimThread simt; /* first: what translated code sees */
    Exec *exec;
    ShadowSlot me;  /* segment and lane, for the shadow */
    uint32_t index; /* in the block: warp * 32 + lane */
    uint32_t state, spins;
    ExecStack *stack;    /* while it waits */
    uint32_t site;       /* where it waits */
    uint32_t barrier;    /* at which */
    uint32_t mask, code; /* in a warp: with which lanes, at what */
    uint64_t value;      /* its part of a shuffle, vote, ... */
    uint32_t operand, clamp, result;
    bool valid;
    bool fenced; /* since its last plain write */
} ExecThread;

typedef struct {
    uint32_t mask, code, arrived;
} ExecGroup; /* lanes that wait for each other */

typedef struct {
    uint32_t lanes; /* that exist */
    uint32_t exited, ngroups;
    ExecGroup groups[32];
} ExecWarp;

typedef struct {
    uint32_t arrived, wanted, kind, site, value;
} ExecBarrier;

/* An allocation that a line of the kernel accessed before. */
typedef struct {
    uint64_t address, size;
    uint64_t delta; /* from its addresses to the bytes */
    int device;
    ShadowCell *cells; /* of its first word; NULL: not contiguous */
} ExecLookup;

enum { EXEC_SEEN = 64, EXEC_UNWRITTEN = 16 };

/* A read of what nobody has written. It is told when the block (shared memory) or the kernel
 * ends: until then the write may come, and it is a race. */
typedef struct {
    uint32_t site;
    bool shared;
    char text[1024];
} ExecUnwritten;

struct Exec {
    SimOp *op;
    SimKernel *kernel;
    const SimKernelTable *table;
    const SimLaunch *launch;
    const SimConfig *config;
    bool race, stopped; /* stopped: the kernel is given up */
    uint32_t nthreads, nwarps, block[3];
    uint64_t block_number;
    ShadowView view, shared_view;
    ShadowCell *shared_cells;
    char *shared, *locals;
    uint32_t shared_bytes, local_bytes;
    uint64_t random, clock;
    uint32_t flips; /* lanes start in the order of i ^ flips */
    ExecThread *order[EXEC_THREADS];
    uint32_t started, exited, nready, ready_first;
    ExecThread *ready[EXEC_THREADS];
    uint64_t progress, spun_at; /* counts what gets done; at the last look */
    double spinning_since;
    ExecBarrier barriers[EXEC_BARRIERS];
    ExecWarp warps[EXEC_WARPS];
    ExecLookup lookups[EXEC_LOOKUPS][EXEC_WAYS];
    uint32_t lookup_next;
    uint64_t scratch[2]; /* what a refused access gets */
    struct {
        uint32_t finding, site, other_op, other_site;
    } seen[EXEC_SEEN]; /* findings of this launch, told once */
    uint32_t nseen;
    ExecUnwritten unwritten[EXEC_UNWRITTEN]; /* reads of what nobody wrote so far */
    uint32_t nunwritten;
    uint64_t globals[256];
    ExecThread threads[EXEC_THREADS];
};

static inline ExecThread *exec_thread(SimThread *t)
{
    return (ExecThread *)t;
}
/* Two 32-bit numbers' worth of chance, the same for the same seed and operation. */
uint64_t exec_random(Exec *e);

/* -- exec_fiber.c */
ExecStack *exec_stack_take(void); /* that begins in exec_fiber_main */
void exec_stack_give(ExecStack *stack);
void exec_stacks_reset(void);     /* all are free */
ExecStack *exec_stack_host(void); /* of whoever runs the kernel */
void exec_stack_switch(ExecStack *from, ExecStack *to);

/* -- exec_block.c. Runs the threads of a block; false: the kernel is given up. */
bool exec_block_run(Exec *e);
void exec_fiber_main(void);
/* The running thread waits (its state says for what) until it is made ready. */
void exec_wait(ExecThread *th);
void exec_ready(ExecThread *th);
/* Gives up the kernel; does not return. */
_Noreturn void exec_stop(ExecThread *th);
/* Gives a new segment to a thread. */
static inline void exec_segment(ExecThread *th, uint32_t segment)
{
    th->me = (ShadowSlot)segment << SLOT_SEGMENT | (ShadowSlot)th->simt.lane << SLOT_LANE;
}

/* Parts of a warp or block of this kernel meet: from now on its accesses are noted with more
 * care (ShadowView.parts), and so they are whenever it runs again. */
void exec_parts_note(Exec *e);

/* -- services */
void *exec_access(SimThread *t, SimSpace space, uint64_t address, uint32_t bytes, int access,
                  uint32_t site);
uint32_t exec_barrier(SimThread *t, SimBar kind, uint32_t id, uint32_t count, uint32_t value,
                      uint32_t site);
void exec_warp_sync(SimThread *t, uint32_t mask, uint32_t site);
uint32_t exec_shuffle(SimThread *t, SimShuffle kind, uint32_t value, uint32_t lane_operand,
                      uint32_t clamp, uint32_t mask, bool *valid, uint32_t site);
uint32_t exec_vote(SimThread *t, SimVote kind, bool predicate, uint32_t mask, uint32_t site);
uint32_t exec_match_any(SimThread *t, uint64_t value, uint32_t mask, uint32_t site);
uint32_t exec_reduce(SimThread *t, SimRed kind, bool is_signed, uint32_t value, uint32_t mask,
                     uint32_t site);
uint32_t exec_active_mask(SimThread *t);
void exec_warp_leave(ExecThread *th); /* a thread has ended */
int exec_print(SimThread *t, uint64_t format, uint64_t args, uint32_t site);

/* -- exec_stall.c: no thread can run. True: some can again. */
bool exec_stall(Exec *e);

/* -- exec_report.c. "kernel k (k.cu:12)" of a site; block and thread; gpu and stream. */
char *exec_where(const Exec *e, uint32_t site, char *out, size_t size);
char *exec_place(const Exec *e, const ExecThread *th, char *out, size_t size);
char *exec_thread_name(const Exec *e, uint32_t index, char *out, size_t size);
char *exec_stream(const Exec *e, char *out, size_t size);
/* Whether a finding was told before: of this launch, at this site (and that other one). */
bool exec_seen(Exec *e, SimFinding finding, uint32_t site, uint32_t other_op, uint32_t other_site);
/* A finding about an access of a thread: "... reads 4 bytes at ADDRESS (detail) ...". */
void exec_report_access(ExecThread *th, SimFinding finding, uint32_t site, uint64_t address,
                        uint32_t bytes, int access, const char *detail);
/* An access to memory that its operation does not come after the allocation of. */
void exec_report_early(ExecThread *th, const SimBlockOfMemory *m, uint32_t site, uint64_t address,
                       uint32_t bytes, int access);
void exec_report_shadow(ExecThread *th, ShadowVerdict verdict, ShadowSlot other, uint32_t site,
                        uint64_t address, uint32_t bytes, int access, bool shared);
void exec_report_unwritten(Exec *e, bool all); /* of the block, or of the kernel */

#endif
