/* host.h - what the host side's own files share: points in time, streams, handles, calls.
 *
 * A point is a moment in a stream: the end of an operation. Events, waits of the host and the
 * order around the NULL stream are all points: whoever must wait for an operation holds the
 * point that the operation fills, and reads its clock once it is done.
 */
#ifndef MDL_SIM_HOST_H
#define MDL_SIM_HOST_H

#include <cuda_runtime_api.h>

#include "sim.h"

/* ------------------------------------------------------------------------ lock.c */

bool lock_try(double seconds);   /* whether it could be taken in time */
void lock_sleep(double seconds); /* until lock_wake or so long; the lock is given up */
void lock_wake(void);
bool lock_wanted(void); /* whether a thread waits for it that has not slept */
int lock_leave(void);   /* gives the lock up however often it was taken; for lock_return */
void lock_return(int depth);
void lock_yield(void); /* lets others have it, who wait for it */

/* ----------------------------------------------------------------------- clock.c */

typedef struct SimPoint {
    int refs;
    bool done;
    int64_t time; /* when it was passed: nanoseconds */
    const SimStream *stream;
    uint32_t sequence;
    SimClock clock;
} SimPoint;
SimPoint *point_new(const SimStream *stream, uint32_t sequence);
SimPoint *point_keep(SimPoint *point);
void point_drop(SimPoint *point);            /* NULL is fine */
bool point_passed(void *point);              /* for sim_wait */
void clock_host_begin(void);                 /* of a thread, at its first call */
void clock_host_learn(const SimClock *from); /* the calling thread has waited for it */
void clock_host_see(const SimClock *from);   /* some thread knows of it, this one may not */
void clock_host_tell(SimClock *into);        /* what is enqueued comes after that */
int64_t time_now_ns(void);
/* Entries of the clocks: a stream's id, free again when nothing can be unordered to it. */
uint32_t clock_id_take(uint32_t *last);
void clock_id_return(uint32_t id, uint32_t last);
void history_note(const SimOp *op);
bool clock_misled(const SimOp *op);     /* whose clock is complete */
void clock_cuts_learn(uint64_t number); /* before the operation of that number is enqueued */

/* ---------------------------------------------------------------------- stream.c */

typedef struct SimCapture SimCapture;

struct SimStream {
    int device, priority;
    unsigned number, flags;
    bool legacy, hidden, destroyed, unlinked;
    bool busy; /* its head runs without the lock: a host function */
    uint32_t id, last, done;
    size_t pending;
    SimOp *head, *tail;
    SimClock clock;
    SimCapture *capture;
    int *capture_tail; /* nodes that the next captured operation comes after */
    int ncapture_tail, capture_lane;
    void *caller;
    SimStream *next; /* of all that have work or can get any */
};
SimStream *streams_first(void);
SimStream *stream_new(int device, unsigned flags, int priority, bool hidden);
SimStream *stream_legacy(int device);
/* The stream of a handle in a call of the runtime; NULL after a report. */
SimStream *stream_of_handle(cudaStream_t handle, const char *call);
cudaStream_t stream_handle(const SimStream *stream);
void stream_retire(SimStream *stream); /* destroyed: goes when its work is done */
void streams_of_device_destroy(int device);
void streams_retired_join(int device, SimClock *into); /* -1: of all */
/* The point at the end of what the stream has been given so far; NULL: all of it is done. */
SimPoint *stream_tail_point(SimStream *stream);
/* `op` comes after all that the stream has been given so far. */
void op_after_stream(SimOp *op, SimStream *stream);
void op_after_point(SimOp *op, SimPoint *point);
void op_free(SimOp *op);
void stream_push(SimStream *stream, SimOp *op); /* without capture */
void streams_leaks(void);

/* ------------------------------------------------------------------- scheduler.c */

bool scheduler_step(void); /* runs one operation; false: none can run */
bool scheduler_poll(bool (*done)(void *data), void *data, const char *what); /* a few steps */
void scheduler_after_call(void);
void scheduler_progress_made(void);
cudaError_t wait_for_point(SimPoint *point, const char *call); /* takes the reference */
cudaError_t wait_for_stream(SimStream *stream, const char *call);
cudaError_t wait_for_device(int device, const char *call); /* -1: all */
/* Runs what the stream has been given; later work does not come after it for that. */
cudaError_t wait_unknowing(SimStream *stream, const char *call);
void scheduler_drain(void); /* whatever can run */
void scheduler_drive(void); /* for driver.c */
/* driver.c: before a host function is put into a stream; false: the system refuses. */
bool driver_start(void);

/* ------------------------------------------------------------------------ events */

void events_of_device_destroy(int device);
void events_leaks(void);

/* ---------------------------------------------------------------------- memory.c */

cudaError_t memory_allocate(int device, uint64_t size, void *caller, uint64_t *address);
/* The allocation is there from this operation on, which is in its stream. */
void memory_given_by(uint64_t address, const SimOp *op);
cudaError_t memory_release(uint64_t address, const char *call);
void memory_of_device_release(int device);
uint64_t memory_used(int device);
uint64_t memory_number(void); /* of the next allocation, wherever */
void memory_leaks(void);

/* memory_host.c */
cudaError_t pinned_allocate(size_t size, unsigned flags, void *caller, void **address);
cudaError_t pinned_register(void *address, size_t size, unsigned flags, void *caller);
cudaError_t pinned_release(void *address, bool registered, const char *call);
/* The pinned memory that holds all of [address, + bytes); NULL: none. */
const SimBlockOfMemory *pinned_find(uint64_t address, uint64_t bytes);
const SimBlockOfMemory *pinned_near(uint64_t address); /* also freed */
bool pinned_flags(uint64_t address, unsigned *flags);
void pinned_leaks(void);

/* ranges.c: like sim_range; `any_device`: a copy needs no peer access. */
void *range_check(SimOp *op, uint64_t address, uint64_t width, uint64_t pitch, uint64_t rows,
                  SimAccess access, bool pageable, bool any_device, const char *what);

/* ------------------------------------------------------------------------ graphs */

bool capture_take(SimStream *stream, SimOp *op); /* whether the operation was captured */
bool capture_active(const SimStream *stream);
/* A call that a capture does not allow: invalidates captures of this thread (or any, in the
 * global mode) and returns the error; cudaSuccess when nothing is captured. */
cudaError_t capture_forbids(void);
cudaError_t capture_forbids_stream(SimStream *stream);
void capture_abandon(SimStream *stream); /* that goes: what it captures is worth nothing */
void graphs_leaks(void);

/* ------------------------------------------------------------------- cudart_*.c */

typedef struct {
    int device;
    cudaError_t last;
    char failed[600]; /* the call that failed and was not looked at, and where */
    bool unnoticed, in_callback;
    const char *call;
    void *caller;     /* of the current call */
    void *launch;     /* where <<<>>> stands */
    int depth;        /* of the lock */
    int slot;         /* of the scheduler's list of threads; 0: not yet */
    char detail[300]; /* of the call, for when it fails: "launch of k" */
} HostThread;
HostThread *host_thread(void);
void call_launch_failed(void); /* the last failure of this thread was one of <<<>>> */
void calls_end(void);          /* whether it was looked at before the program ended */
bool host_failed(void);        /* whether any call has failed */

/* Begins a function of the runtime: the lock, and the failure that the environment asks for. */
#define API(kind, failure)                                                                         \
    do {                                                                                           \
        sim_enter(__func__, kind, __builtin_return_address(0));                                    \
        if (sim_fail_now(__func__))                                                                \
            return api_end(__func__, failure);                                                     \
    } while (0)
/* Ends it: keeps the error for cudaGetLastError, gives up the lock. */
cudaError_t api_end(const char *call, cudaError_t error);
#define API_RETURN(error) return api_end(__func__, error)

const char *error_name(cudaError_t error);
/* Keeps the place of a call: the return address and those above it. */
void *caller_note(void *caller);
/* Where it is: "train.c:12" or "main+0x20"; empty where nothing is known. */
char *caller_describe(const void *caller, char *out, size_t size);

/* Opaque handles: numbers, so that a stale or foreign one is recognised. */
typedef enum {
    HANDLE_STREAM = 1,
    HANDLE_EVENT,
    HANDLE_GRAPH,
    HANDLE_EXEC,
    HANDLE_NODE,
    HANDLE_POOL
} HandleKind;
void *handle_make(HandleKind kind, size_t index);
/* The index; SIZE_MAX: not of this kind. */
size_t handle_index(const void *handle, HandleKind kind);

#endif
