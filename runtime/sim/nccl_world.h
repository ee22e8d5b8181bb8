/* nccl_world.h - the simulated NCCL: communicators, and what their ranks say to each other.
 *
 *     nccl_calls.c       the library's functions that communicate, their arguments
 *     nccl_setup.c       its other functions
 *     nccl_comm.c        communicators: joining, ending
 *     nccl_group.c       groups: calls become operations of streams
 *     nccl_match.c       which call of one rank belongs to which of another
 *     nccl_run.c         the operations: beginning, waiting for partners, moving data
 *     nccl_collective.c  collective calls, once all ranks have begun
 *     nccl_reduce.c      sums, products, maxima
 *
 * All calls of a group on one communicator are one Launch, an operation of one stream, as NCCL
 * makes one kernel of them. A launch begins when it is at its stream's head and all earlier
 * launches of its communicator are done; it ends when the launches of all its partners have
 * begun. The k-th send from rank a to rank b belongs to the k-th receive by b from a; the k-th
 * collective call of one rank to the k-th of every other.
 */
#ifndef MDL_SIM_NCCL_H
#define MDL_SIM_NCCL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <nccl.h>

#include "sim.h"

typedef enum {
    PART_SEND,
    PART_RECEIVE,
    PART_ALL_REDUCE,
    PART_REDUCE,
    PART_BROADCAST,
    PART_ALL_GATHER,
    PART_REDUCE_SCATTER,
    PART_ALL_TO_ALL,
    PART_GATHER,
    PART_SCATTER,
} PartKind;

typedef struct Clique Clique;
typedef struct Meeting Meeting;
typedef struct Part Part;

/* One call of one rank. */
struct Part {
    PartKind kind;
    ncclComm_t comm;
    uint64_t send, receive; /* addresses; 0: none */
    size_t count;
    ncclDataType_t type;
    ncclRedOp_t op;
    int peer;     /* or the root */
    void *stream; /* a cudaStream_t */
    void *caller;
    /* From here on only while it is queued. */
    SimOp *launch;
    Part *partner;    /* of a send or a receive; NULL: not yet called, or done */
    Part *next;       /* in its pair's queue */
    Meeting *meeting; /* of a collective call */
    const void *source;
    bool done;
};

/* The data of an operation. Graphs copy it before it is queued. */
typedef struct {
    ncclComm_t comm;
    uint64_t turn; /* its number among the communicator's launches */
    bool begun;
    SimClock *past; /* what had surely happened before it began */
    int nparts;
    Part parts[];
} Launch;

/* A collective call of all ranks. */
struct Meeting {
    uint64_t number;
    int called, begun, left;
    bool done, broken; /* broken: the ranks' calls differ */
    Meeting *next;
    Part *parts[]; /* by rank */
};

typedef struct {
    Part *first, *last; /* sends without receives, or receives without sends */
} Pair;

/* What the ranks of a communicator share. */
struct Clique {
    ncclUniqueId id;
    unsigned number; /* for reports */
    int nranks, joined;
    bool refused; /* two ranks on one device */
    ncclComm_t *comms;
    Pair *pairs;     /* [from * nranks + to] */
    uint64_t *calls; /* collective calls of every rank */
    Meeting *meetings;
    Clique *next;
};

struct ncclComm {
    Clique *clique;
    int rank, device;
    bool alive, finalized, aborted;
    uint64_t turns, turn; /* launches that were queued; that are done */
    void *caller;
    struct ncclComm *next;
};

/* nccl_comm.c */
ncclResult_t comm_unique_id(ncclUniqueId *id);
ncclResult_t comm_join(ncclComm_t *comm, int nranks, const ncclUniqueId *id, int rank, void *caller,
                       const char *call);
/* Waits until all ranks are there. */
ncclResult_t comm_meet(ncclComm_t *comm, const char *call);
ncclResult_t comm_join_all(ncclComm_t *comms, int n, const int *devices, void *caller,
                           const char *call);
/* The communicator, where it lives; else NULL and why. */
ncclComm_t comm_of(ncclComm_t comm, const char *call, ncclResult_t *why);
ncclResult_t comm_finish(ncclComm_t comm, const char *call); /* waits for what is queued */
ncclResult_t comm_end(ncclComm_t comm, bool abort, const char *call);

/* nccl_group.c */
void group_start(void);
ncclResult_t group_end(const char *call);
bool group_open(void);
ncclResult_t group_refuse(ncclResult_t error); /* the group fails, too; returns the error */
ncclResult_t group_add(const Part *part);
ncclResult_t group_add_comm(ncclComm_t *comm);

/* nccl_calls.c */
ncclResult_t nccl_fail(ncclResult_t error, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
const char *nccl_last_error(void);
const char *nccl_result_name(ncclResult_t result);
/* Ends a call that SIM_ENTER began; returns the result. */
ncclResult_t nccl_leave(const char *call, ncclResult_t result);

/* pncclX is ncclX, for profilers that replace the latter. */
#define ALSO_P(name) extern __typeof__(name) p##name __attribute__((alias(#name)))

/* The body of an exported function. */
#define NCCL_CALL(kind, ...)                                                                       \
    SIM_ENTER(__func__, kind);                                                                     \
    return nccl_leave(                                                                             \
        __func__, sim_fail_now(__func__)                                                           \
                      ? group_refuse(nccl_fail(ncclInternalError, "%s: as asked for", __func__))   \
                      : (__VA_ARGS__))
size_t nccl_size_of(ncclDataType_t type); /* 0: no type */
const char *nccl_type_name(ncclDataType_t type);
const char *part_name(PartKind kind);
bool part_has_root(PartKind kind);
bool part_reduces(PartKind kind);
bool part_is_message(const Part *part); /* a send or a receive */
/* Elements that this rank gives and gets. */
size_t part_sent(const Part *part);
size_t part_received(const Part *part);
/* "ncclSend of 4 float32, rank 0 to 1 (communicator 1)" */
char *part_describe(const Part *part, char *out, size_t size);

/* nccl_match.c */
void part_match(Part *part);
void part_unmatch(Part *part); /* it will never be done */
void meeting_leave(Part *part);

/* nccl_run.c */
void launch_prepare(SimOp *op);
bool launch_can_begin(SimOp *op);
void launch_begin(SimOp *op);
bool launch_ready(SimOp *op);
void launch_run(SimOp *op);
char *launch_waits_for(const SimOp *op, char *out, size_t size);
static inline Launch *launch_of(const Part *part)
{
    return part->launch->data;
}

/* nccl_collective.c */
void meeting_run(Meeting *meeting, const Clique *clique);

/* nccl_reduce.c: element by element over n arrays, in their order, into `to`. */
void nccl_reduce(ncclDataType_t type, ncclRedOp_t op, int n, const void *const *from, size_t count,
                 void *to);

#endif
