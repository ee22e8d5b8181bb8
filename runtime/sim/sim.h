/* sim.h - the simulated GPU: what its files do for each other.
 *
 * A program that nvcc built against the CUDA runtime, cuBLAS and NCCL runs unmodified on
 * the libraries made here. Its kernels are taken from the executable as PTX, translated to
 * C, compiled, and run thread by thread; every stream, event, copy, product and message is
 * carried out under rules that are strict where a GPU is merely unpredictable.
 *
 *     fatbin.c ── ptx_*.c ── translate_*.c ── module.c     executable → PTX → C → code
 *     exec_*.c                                             a grid: blocks, threads, barriers
 *     shadow.c                                             who wrote and read every word, and when
 *     memory.c                                             allocations of devices and of the host
 *     stream.c scheduler.c clock.c driver.c                queues, events, order, deadlock
 *     capture.c                                            graphs
 *     cudart_*.c cublas*.c nccl*.c                         the libraries' own functions
 *     findings.c config.c                                  what is found; the environment
 *
 * Addresses. A device pointer is a number in a range of its own (sim_device_base) that is
 * never mapped readable, so a dereference on the host faults and is reported. The bytes lie
 * elsewhere in the process; sim_bytes() finds them. Nothing but this library knows where.
 *
 * Order. Work is put into streams and does not run before a host thread waits for something
 * (or the scheduler "eager" runs it at once). Whoever waits runs operations of all streams,
 * one at a time, in an order that the scheduler picks; two operations that no stream order,
 * event or message orders may run in either order, and their accesses are a race in every
 * order, found by vector clocks.
 *
 * Threads. One lock guards everything; it is held while an operation runs. Every function
 * declared here is called with the lock held unless it says otherwise; the libraries' own
 * entry points take it.
 *
 * Failures. sim_report() prints a finding; the first one ends the process with
 * SIM_EXIT unless MDL_SIM_CONTINUE=1, in which case the process ends so at its exit.
 */
#ifndef MDL_SIM_H
#define MDL_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum {
    SIM_EXIT = 86,          /* exit code of a process in which something was found */
    SIM_DEVICES_MAX = 64,   /* simulated GPUs */
    SIM_STREAMS_MAX = 1024, /* entries of a clock: streams whose work was not waited for */
};

/* ------------------------------------------------------------------ settings */

typedef enum { SIM_RANDOM, SIM_EAGER, SIM_FIFO, SIM_LIFO } SimSchedule;

/* From the environment, read once:
 *   MDL_SIM_DEVICES     simulated GPUs, 1 ... 64 (4)
 *   MDL_SIM_MEMORY      of each: "80GiB", "512MiB", bytes (16GiB)
 *   MDL_SIM_SCHEDULE    random, eager, fifo, lifo (random)
 *   MDL_SIM_SEED        of random (1)
 *   MDL_SIM_CHECK       race: everything (default); fast: no races and no uninitialised reads
 *   MDL_SIM_NCCL        "" or "pessimistic": one communication operation resident per device
 *   MDL_SIM_CONTINUE    1: go on after a finding
 *   MDL_SIM_TIMEOUT     seconds without progress before a wait counts as a deadlock (20)
 *   MDL_SIM_CACHE       folder of translated modules ($XDG_CACHE_HOME/mdl-sim)
 *   MDL_SIM_CC          C compiler for translated kernels (cc)
 *   MDL_SIM_TRACE       1: prints every operation as it runs
 *   MDL_SIM_KEEP        folder to which the PTX and the C of every module are written
 *   MDL_SIM_ARCH        compute capability of the devices: 8.0 (default), 9.0, ...
 *   MDL_SIM_FAIL        CALL:N: the N-th call of that function fails
 * A value that is not understood ends the process with a clear line. */
typedef struct {
    int devices;
    uint64_t memory;
    SimSchedule schedule;
    uint64_t seed;
    bool race, pessimistic, keep_going, trace;
    double timeout;
    const char *cache, *cc, *keep;
    int major, minor;      /* MDL_SIM_ARCH */
    const char *fail_call; /* NULL: none */
    long fail_number;
} SimConfig;
const SimConfig *sim_config(void);
void sim_lock(void);
void sim_unlock(void);

/* ------------------------------------------------------------------- reports */

/* What kind of finding; sim_finding_name() is its name in reports, tests and docs. */
typedef enum {
    SIM_RACE,           /* "race": two accesses that nothing orders (between operations) */
    SIM_RACE_BLOCK,     /* "race-in-kernel": within a kernel: a missing barrier */
    SIM_OUT_OF_BOUNDS,  /* "out-of-bounds" */
    SIM_USE_AFTER_FREE, /* "use-after-free" */
    SIM_WRONG_DEVICE,   /* "wrong-device": memory or stream of another device */
    SIM_HOST_ACCESS,    /* "host-access": the host dereferences device memory */
    SIM_HOST_POINTER,   /* "host-pointer": a kernel or a call is given pageable host memory */
    SIM_MISALIGNED,     /* "misaligned" */
    SIM_UNINITIALISED,  /* "uninitialised" */
    SIM_BARRIER,        /* "barrier": threads of a block at different barriers, or exited */
    SIM_WARP,           /* "warp": lanes of a mask that do not arrive */
    SIM_LEAK,           /* "leak": memory, streams, events, handles alive at the end */
    SIM_DOUBLE_FREE,    /* "double-free": or a pointer that was never allocated */
    SIM_NCCL_MISMATCH,  /* "nccl-mismatch": counts or types of the two sides differ */
    SIM_DEADLOCK,       /* "deadlock" */
    SIM_AFTER_FAILURE,  /* "after-failure": a call after one that failed unnoticed */
    SIM_HOST_RACE,      /* "host-race": host memory changed while a copy was pending */
    SIM_UNKNOWN,        /* "unknown": a call or an instruction that is not simulated */
    SIM_MISUSE,         /* "misuse": a destroyed handle, an event never recorded, ... */
    SIM_FINDINGS
} SimFinding;
const char *sim_finding_name(SimFinding kind);

/* Prints "mdl-sim: KIND: text" and the lines added by newlines in the text, to stderr; ends
 * the process unless MDL_SIM_CONTINUE. The same text is printed once. Texts name the kernel
 * or call, file:line, device, stream, and for races the same of the other side. */
void sim_report(SimFinding kind, const char *format, ...) __attribute__((format(printf, 2, 3)));
int sim_findings(void); /* so far */

/* -------------------------------------------------------------------- memory */

/* Device pointers of device d are in [sim_device_base(d), + SIM_DEVICE_SPAN). */
#define SIM_DEVICE_SPAN (UINT64_C(1) << 38)
uint64_t sim_device_base(int device);
int sim_device_of(uint64_t address); /* -1: no device's */
/* Where the bytes of a device address lie. No check: after sim_range() or sim_access(). */
static inline void *sim_bytes(uint64_t address);

typedef struct {
    uint64_t address, size; /* as asked for */
    int device;             /* -1: pinned host memory */
    bool freed;
    uint64_t number;              /* counts allocations */
    uint32_t given_stream, given; /* the operation that gives it out; 0: it is there at once */
} SimBlockOfMemory;
/* The allocation that an address lies in (or lay in, or next to, for messages), else NULL. */
const SimBlockOfMemory *sim_memory_find(uint64_t address);
/* "12 bytes past the end of 4096 bytes allocated on gpu 1 (allocation 3)"; returns out. */
char *sim_memory_describe(uint64_t address, char *out, size_t size);
/* Whether all of [address, + bytes) lies in live memory of the device. Fast. */
bool sim_memory_inside(int device, uint64_t address, uint64_t bytes);
bool sim_peer_enabled(int from, int to);

/* ------------------------------------------------------- streams and operations */

typedef struct SimStream SimStream;
typedef struct SimOp SimOp;

/* A vector clock: entry i is the last operation of stream i that happened before. `at` counts
 * what any host thread has waited for; `sure` only what the thread of each call had, so that
 * it does not depend on which thread was faster. Messages between ranks carry `sure`. */
typedef struct {
    uint32_t at[SIM_STREAMS_MAX], sure[SIM_STREAMS_MAX];
    int n; /* entries from n on are 0 */
} SimClock;
void sim_clock_join(SimClock *into, const SimClock *from);

typedef enum {
    SIM_OP_RUN,     /* kernel, copy, fill, product: runs when it is at its stream's head */
    SIM_OP_RECORD,  /* of an event */
    SIM_OP_WAIT,    /* for an event */
    SIM_OP_MESSAGE, /* NCCL: finishes when its partners have begun */
    SIM_OP_CALLBACK /* a host function */
} SimOpKind;

/* A part of a stream's queue. Made by sim_op_new, given away by sim_enqueue. */
struct SimOp {
    SimOpKind kind;
    char name[96]; /* "kernel fused_relu", "cublasSgemm_v2", "ncclSend" */
    SimStream *stream;
    int device;
    uint32_t sequence; /* its number in its stream, from 1: filled by sim_enqueue */
    uint32_t stream_id;
    SimClock clock; /* what happened before it: complete when it runs */
    /* Called when the operation is at its stream's head and everything that it waits for is
     * done. MESSAGE: `begin` is called once at the head; the op stays until `ready`. */
    void (*begin)(SimOp *op);
    bool (*ready)(SimOp *op); /* NULL: at once */
    void (*run)(SimOp *op);
    void (*drop)(SimOp *op); /* frees data; may be NULL */
    bool begun;
    void *data; /* the operation's own; copied for graphs by `size` */
    size_t size;
    SimOp *next;
    /* Called when the operation is put into its queue, before it can run: for a graph at
     * every launch, for other work by sim_enqueue. May be NULL. In a graph, `drop` is called
     * for the captured operation alone, not for the copies that are launched. */
    void (*prepare)(SimOp *op);
    /* MESSAGE, may be NULL: whether it may begin when it is at the head; and what it waits for
     * once it has begun, for deadlocks: "ncclRecv of rank 1, which was never called". */
    bool (*can_begin)(SimOp *op);
    char *(*waits_for)(const SimOp *op, char *out, size_t size);
    void *caller;            /* where the program called, for reports */
    uint64_t number;         /* in the order of all enqueued */
    bool host_sees;          /* the host can tell when it runs: not before somebody waits for it */
    bool misled;             /* comes after one that was cut short: from when it runs */
    struct SimPoint *fills;  /* what is told when it is done */
    struct SimPoint **after; /* what it waits for, besides its stream's order */
    int nafter;
};

/* An operation with zeroed `data` of `size` bytes. The name is a format. */
SimOp *sim_op_new(SimOpKind kind, size_t size, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Puts it at the end of the stream (or records it, when the stream is captured). What the
 * host has waited for, and the stream's earlier work, happen before it. */
void sim_enqueue(SimStream *stream, SimOp *op);
/* "gpu 1, stream 3 \"compute\""; where an op is for reports: "kernel k (k.cu:12), gpu 1, ..." */
char *sim_stream_describe(const SimStream *stream, char *out, size_t size);
char *sim_op_describe(const SimOp *op, char *out, size_t size);
/* The operation ends without what others expect of it: data that never came, an order that is not
 * there. What was put into streams to come after it cannot help that: it is misled, and its
 * accesses are not reported, until the host has waited for the operation and so could know. */
void sim_op_cut_short(const SimOp *op);
/* The stream behind a cudaStream_t handle given to cuBLAS or NCCL; NULL after a report
 * (destroyed, NULL stream of a device, unknown). `call` names the caller. */
SimStream *sim_stream_of(void *handle, const char *call);
int sim_stream_device(const SimStream *stream);
int sim_current_device(void); /* of the calling thread */
void *sim_caller(void);       /* where the program made the current call: for SimOp.caller */
/* What operation `sequence` of clock entry `stream_id` was, also long after it has run. */
char *sim_history_describe(uint32_t stream_id, uint32_t sequence, char *out, size_t size);
/* Whether the operation comes after the one that gave the memory out. */
static inline bool sim_memory_given(const SimOp *op, const SimBlockOfMemory *m)
{
    return m->given == 0 ||
           ((int)m->given_stream < op->clock.n && op->clock.at[m->given_stream] >= m->given);
}
/* The host thread waits until done(data): operations run meanwhile, and when nothing can be
 * done any more it is a deadlock: then it is reported and false returned. `what` is what the
 * thread waits in: "ncclCommInitRank of rank 1". The lock is given up while it sleeps. */
bool sim_wait(bool (*done)(void *data), void *data, const char *what);
/* Some operation that another stream's progress depends on may go on now. */
void sim_progress(void);

/* Checks that the device of `op` may access [address, + width) in each of `rows` rows that lie
 * `pitch` bytes apart (rows 1: contiguous), reports what is wrong, and notes the access for
 * race checking. Pinned and, where `pageable`, any host memory is allowed. Returns where the
 * first byte lies; NULL after a report. `what` says which argument: "A", "source". */
typedef enum { SIM_READ = 1, SIM_WRITE = 2, SIM_ATOMIC = 4 } SimAccess;
void *sim_range(SimOp *op, uint64_t address, uint64_t width, uint64_t pitch, uint64_t rows,
                SimAccess access, bool pageable, const char *what);

/* --------------------------------------------------------------- calls of a program */

/* Every function that a library exports begins with SIM_ENTER and ends with sim_leave: they
 * take and release the lock, note where the program called, and report work that goes on
 * after a call that failed unnoticed in the same thread. */
typedef enum {
    SIM_CALL_WORK,  /* enqueues, allocates, creates: wants what came before to have worked */
    SIM_CALL_QUERY, /* asks or waits: neither notices nor minds a failure */
    SIM_CALL_FREE   /* frees, destroys, aborts: always fine */
} SimCallKind;
#define SIM_ENTER(call, kind) sim_enter(call, kind, __builtin_return_address(0))
void sim_enter(const char *call, SimCallKind kind, void *caller);
/* `error` is the name of the code that the call returns ("ncclInternalError"), NULL: success. */
void sim_leave(const char *call, const char *error);
/* The program looked at an error (cudaGetErrorString, ncclGetLastError, ...). No lock. */
void sim_noticed(void);
/* Whether the environment asks that this call of the function fails: MDL_SIM_FAIL=CALL:N. */
bool sim_fail_now(const char *call);
/* At the end of the process, when leaks are looked for, `check` reports its own (SIM_LEAK). */
void sim_at_exit(void (*check)(void));

/* ------------------------------------------------------------------- kernels */

typedef struct SimKernel SimKernel; /* a translated kernel: module.c */

/* Parameters of one launch. */
typedef struct {
    unsigned grid[3], block[3];
    unsigned dynamic_shared; /* bytes */
    void *params;            /* the packed parameter buffer, as PTX lays it out */
} SimLaunch;

/* Executables' images. `image` is what follows the wrapper's data pointer. Returns a module
 * whose PTX has been found but not yet translated, or NULL after a report. */
typedef struct SimModule SimModule;
SimModule *sim_module_new(const void *image);
void sim_module_free(SimModule *module);
/* Whether the devices' compute capability is one that its PTX can be made into code for. */
bool sim_module_runs_here(const SimModule *module);
/* Translates and compiles at the first call; NULL after a report. `name` is mangled. */
SimKernel *sim_module_kernel(SimModule *module, const char *name);
const char *sim_kernel_name(const SimKernel *kernel); /* demangled: "fused_relu" */
/* Sizes of the parameters: n of them, at offsets, for packing void *args[]. */
int sim_kernel_params(const SimKernel *kernel, const uint32_t **offsets, const uint32_t **sizes,
                      uint32_t *total);
uint32_t sim_kernel_static_shared(const SimKernel *kernel);
/* The address of a module's global variable on a device; 0 where there is none. Allocates and
 * initialises it on first use. */
uint64_t sim_module_global(SimModule *module, const char *name, int device, size_t *size);
/* Allocates memory for a module variable on a device; no red flags at exit. */
uint64_t sim_memory_static(int device, uint64_t size);

/* Whether a launch respects the limits of a GPU (and of the kernel); `why` gets a line.
 * dynamic_limit: the most dynamic shared memory that the function's attributes allow. */
typedef enum {
    SIM_LAUNCH_OK,
    SIM_LAUNCH_CONFIGURATION, /* grid or block too large, or empty */
    SIM_LAUNCH_SHARED,        /* too much shared memory */
    SIM_LAUNCH_RESOURCES      /* more threads than the kernel was compiled for */
} SimLaunchFault;
SimLaunchFault sim_launch_check(const SimKernel *kernel, const SimLaunch *launch,
                                uint32_t dynamic_limit, char *why, size_t size);
/* Runs a grid: all checks, all reports. exec_grid.c */
void sim_kernel_run(SimOp *op, SimKernel *kernel, const SimLaunch *launch);

/* -------------------------------------------------------------------- shadow */

/* Notes an access of [address, + bytes) of a device (-1: pinned host memory) by an operation that
 * is no kernel, and reports races and reads of what was never written. */
void sim_shadow_range(SimOp *op, int device, uint64_t address, uint64_t bytes, SimAccess access,
                      const char *what);
/* Fresh memory: never written. Freed memory: forgotten. */
void sim_shadow_fresh(int device, uint64_t address, uint64_t bytes);
/* Memory that holds values since before every operation: initialised module variables. */
void sim_shadow_known(int device, uint64_t address, uint64_t bytes);

#define SIM_BYTES_DELTA UINT64_C(0x100000000000) /* from a device address to its bytes */
static inline void *sim_bytes(uint64_t address)
{
    return (void *)(uintptr_t)(address + SIM_BYTES_DELTA);
}

#endif
