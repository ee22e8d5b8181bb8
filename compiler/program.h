/* program.h - what every device does, as plain data.
 *
 * The Program is the heart of the compiler: emitters print it, `mdlc plan` reports it, the
 * verifier proves it, the simulator of time walks it. Nothing in it depends on a target.
 *
 *   Program ── Device ─┬─ buffers   every tensor at a fixed offset of one allocation
 *                      ├─ phases    F, E, B (or I and W) of each chunk: straight-line calls
 *                      │            and loops of calls
 *                      ├─ train     the ordered actions of one optimizer step
 *                      └─ eval      the same for evaluation
 *           └─ links    which tensor goes from which device to which
 *
 * A chunk is a contiguous run of layers; a device has one or more.
 */
#ifndef MDLC_PROGRAM_H
#define MDLC_PROGRAM_H

#include "graph.h"
#include "settings.h"

/* ---------------------------------------------------------------------- memory */

typedef enum {
    BUFFER_WEIGHT,
    BUFFER_GRAD,    /* sum over micro-batches of one use of a weight */
    BUFFER_STATE,   /* of the optimizer */
    BUFFER_KEPT,    /* lives from one action to another: one slot per micro-batch in flight */
    BUFFER_SCRATCH, /* lives inside one phase */
    BUFFER_KERNELS, /* no buffers: what the target's kernels and libraries need */
    BUFFER_HOST,    /* in the host's memory, an allocation of its own: slots as those of KEPT */
    BUFFER_CLASSES
} BufferClass;

/* A tensor, or the `count` tensors that the turns of a loop make of it. Tensor i for
 * micro-batch m starts at  offset + ((m % slots) * ring + i % ring) * stride. */
typedef struct {
    BufferClass class;
    ValueId value;  /* of the first member; shape and type are the same for all */
    int count;      /* turns; 1 for a tensor outside of loops */
    int ring;       /* how many of them have a place at the same time: count, 2 or 1 */
    int slots;      /* micro-batches that have a place at the same time */
    int64_t size;   /* bytes of one tensor */
    int64_t stride; /* size rounded up to the alignment */
    int64_t offset;
    const char *name; /* unique on the device, a part of a C identifier: "h_fc" */
    bool gradient;    /* of an activation */
    int state;        /* BUFFER_STATE: which, 0 or 1 */
    int link;         /* the link that fills it, or NONE */
} Buffer;

enum { BUFFER_ALIGN = 64 };

/* On a GPU, in bytes: alignment of what lies behind the buffers, the scratch of kernels and the
 * workspace of cuBLAS. As kernels/cuda/gpu.h has them; the runtime compares. */
enum { GPU_ALIGN = 256, GPU_KERNEL_SCRATCH = 16 << 20, GPU_LIBRARY_WORKSPACE = 32 << 20 };

/* Which tensor a call reads or writes: member `at`, or i + at inside a loop with turn i.
 * Where i + at leaves [0, count), it is member `entry_at` of buffer `entry`. */
typedef struct {
    int buffer; /* NONE: absent; constants have buffer NONE and value set */
    bool by_turn;
    int at;
    int entry, entry_at; /* NONE */
    ValueId value;       /* in the first turn executed */
} Ref;

/* ----------------------------------------------------------------------- phases */

typedef enum { CALL_OP, CALL_LOAD, CALL_LOSS, CALL_METRIC } CallKind;

typedef struct {
    CallKind kind;
    OpId op;         /* CALL_OP: of the first turn executed */
    const OpId *ops; /* CALL_OP: of every turn, in the order of execution */
    int input;       /* CALL_LOAD: of inputs; CALL_METRIC: of metrics */
    int nin, nout;
    Ref *in, *out;
    /* dropout: the layer's path is prefix (first + i * number_step) suffix; first < 0: prefix */
    const char *prefix, *suffix;
    int64_t first, number_step;
} Call;

/* `ncalls` calls, executed `turns` times; turn i runs 0 … turns-1, or down when `down`. */
typedef struct {
    int first, ncalls;
    int turns; /* 1 and not a loop, or at least 2 */
    bool down;
    FrameId frame;    /* of a loop: the frame of its first turn executed */
    const char *name; /* of the function that is called in a loop; NULL for straight lines */
} Step;

/* E: metrics. B: the backward pass as a whole, or in two: I, what the gradient of any operation's
 * result needs, and W, the rest, which makes gradients of weights. */
typedef enum { RUN_F, RUN_E, RUN_B, RUN_I, RUN_W, RUN_KINDS } RunKind;

static inline bool run_goes_back(RunKind k)
{
    return k == RUN_B || k == RUN_I || k == RUN_W;
}

typedef struct {
    VEC(Call) calls;
    VEC(Step) steps;
} Run;

typedef struct {
    int device, number; /* number among all chunks, in the order of the data */
    Run run[RUN_KINDS];
    bool has[RUN_KINDS];
    VEC(int)
    after[RUN_KINDS];          /* chunks whose F (for F and E), B (for B) or I (for I and W)
                                  comes before */
    double flops[RUN_KINDS];   /* of one micro-batch */
    double seconds[RUN_KINDS]; /* as cost.h estimates them, or a profile has them */
} Chunk;

/* ---------------------------------------------------------------------- actions */

typedef enum {
    ACT_RUN,        /* a phase of a chunk for a micro-batch */
    ACT_ROUND,      /* the rounded copies of the weights are made, at the start of a list */
    ACT_SEND,       /* link, micro-batch */
    ACT_RECV,       /* posts the buffer: the sender may fill it from here on */
    ACT_REDUCE,     /* sums the gradients of tied weights */
    ACT_CLIP,       /* all devices exchange their gradient norms */
    ACT_UPDATE,     /* the optimizer */
    ACT_JOIN,       /* end of the list: every transfer of this device is complete */
    ACT_ALL_REDUCE, /* the collectives of data parallelism and sharding */
    ACT_REDUCE_SCATTER,
    ACT_ALL_GATHER,
    ACT_COPY_OUT, /* what a chunk keeps of a micro-batch to the host, … */
    ACT_COPY_IN   /* … and back, ahead of the backward pass */
} ActionKind;

/* The streams of a device: transfers (SEND, RECV) run in their order on one, copies to the host and
 * from it each on one, all else in its order on the first. What orders them are the waits:
 * `nwaits` numbers of earlier actions of the same device's list, on other streams. */
typedef enum { STREAM_COMPUTE, STREAM_TRANSFER, STREAM_OUT, STREAM_IN, STREAMS } StreamKind;

typedef struct {
    ActionKind kind : 8; /* there are millions in a plan for thousands of devices */
    RunKind run : 8;     /* ACT_RUN */
    bool after_post : 1; /* ACT_SEND between peers: waits until its buffer is posted */
    int chunk;           /* ACT_RUN, ACT_COPY_OUT, ACT_COPY_IN */
    int m;               /* micro-batch; 0 for links that carry one message per step */
    int link;            /* ACT_SEND, ACT_RECV */
    int first_wait, nwaits;
    /* Between peers: the receives whose messages the action is the first to need, whether or not
     * a wait for them is left: `ntakes` of the list's `takes`. */
    int first_take, ntakes;
} Action;

typedef struct {
    VEC(Action) actions;
    VEC(int) waits, takes;
} ActionList;

typedef enum { LINK_ACTIVATION, LINK_GRADIENT, LINK_WEIGHT_GRADIENT, LINK_WEIGHT } LinkKind;

typedef struct {
    LinkKind kind;
    int from, to;             /* devices */
    int from_chunk, to_chunk; /* producer, first consumer */
    ValueId value;
    Ref source, target; /* on the two devices */
    int64_t bytes;
    const char *name;
    /* Between peers: from which micro-batch on a send waits for the post, and the receiver's
     * runs for the arrival; the number of micro-batches: never. */
    int post_from, take_from;
} Link;

/* How one run of weights is updated. */
typedef struct {
    WeightId weight, step; /* of the first turn; from turn to turn */
    int count;
    int buffer;        /* BUFFER_WEIGHT */
    int half;          /* BUFFER_WEIGHT, of the copies rounded to 16 bits; NONE */
    int ngrads, *grad; /* buffers of every use, in the order in which they are summed into
                          the first; 0: frozen, or a copy */
    int nstates, state[2];
    bool owner;
    const char *prefix, *suffix; /* name of turn i: prefix (first + i * number_step) suffix */
    int64_t first, number_step;  /* first < 0: prefix is the name */
} WeightRun;

/* A kept tensor of a chunk that is in the host's memory between its forward and backward pass: the
 * forward pass writes `buffer`, the backward pass reads `back`, which are alike. */
typedef struct {
    int chunk;
    int buffer, host, back; /* KEPT, HOST, KEPT */
} Offload;

typedef struct {
    int number;       /* of the pipeline: gpu[number] */
    const char *name; /* "gpu[1]" */
    VEC(int) chunks;
    VEC(Buffer) buffers;
    VEC(WeightRun) weights;
    VEC(Offload) offloads; /* chunk by chunk */
    ActionList train, eval;
    int64_t bytes; /* the one allocation; without class_bytes[BUFFER_HOST] */
    /* On GPUs: sums of squares of the gradients; scratch of the kernels; of cuBLAS. */
    int64_t squares, kernel_scratch, workspace;
    int64_t class_bytes[BUFFER_CLASSES];
    int in_flight; /* most micro-batches between their F and their B */
} Device;

/* How messages go: through links between threads (host); by copies between GPUs of one
 * process, ordered by events; through NCCL, one communicator and one stream per rank. */
typedef enum { TRANSFER_LINKS, TRANSFER_PEER, TRANSFER_NCCL } TransferKind;

typedef struct {
    Model *model;
    Graph *graph;
    TransferKind transfer;
    bool by_call; /* the trainer's trace has every call, by its number, in place of the runs */
    int64_t microbatch;
    int microbatches;
    int real_size;         /* 4, or 8 for precision f64 */
    const char *real_name; /* "float" */
    VEC(Chunk) chunks;
    VEC(Device) devices;
    VEC(Link) links;
} Program;

/* Where a model is cut: which piece every forward operation is in. */
typedef struct {
    int nforward, ndevices, npieces;
    int *piece;              /* [forward ops] */
    const int *device_of;    /* [pieces] */
    const bool *metric_only; /* [ops] */
    const double *seconds;   /* [ops]: as cost_table() has them, or a profile */
    /* As outline.h looks at it: seconds of a step, bytes of the largest device; steps of lowering.
     */
    double look_seconds, look_bytes, effort;
} Split;

/* A pass's side tables about the Graph. */
typedef struct {
    int nchunks, ndevices;
    int *chunk_of;      /* [ops] */
    int *device_of;     /* [chunks] → index into used devices */
    int *device_number; /* [devices] → k of gpu[k] */
    int *weight_owner;  /* [weights] → device */
    ValueId *root;      /* [values]: the value whose storage it shares (reshape) */
    bool *metric_only;  /* [ops] */
    double *seconds;    /* [ops]: of a micro-batch; those of a fused one are its parts' */
    OpId *fused;        /* [ops before fuse]: which operation does it after */
} Placement;

/* The compute order of one step: for every device its runs. */
typedef struct {
    RunKind run;
    int chunk, m;
} Slot;
typedef VEC(Slot) SlotList;

const char *run_name(RunKind kind); /* "F" */
const char *buffer_class_name(BufferClass c);
const char *schedule_kind_name(ScheduleKind k);   /* "1f1b" */
const char *recompute_kind_name(RecomputeKind k); /* "full" */
/* "1f1b", "1f1b, searched" where the search ended there, or "from FILE" as that was given; in the
 * arena. */
const char *program_schedule_name(Arena *a, const Program *p);
bool schedule_splits(ScheduleKind k); /* the backward pass is in two, I and W */

int dtype_size(const Program *p, Dtype t); /* bytes of an element in this program */
/* Bytes of one tensor of a value in this program. */
int64_t value_bytes(const Program *p, ValueId v);
int64_t value_rows(const Program *p, ValueId v); /* micro-batch, or 1 when not batched */
int64_t buffer_address(const Buffer *b, int m, int i);
int64_t buffer_bytes(const Buffer *b); /* of all its members and slots */
/* The buffer and member that a reference means in turn i (0 outside of loops). */
void ref_resolve(const Device *d, const Ref *r, int i, int *buffer, int *member);
bool program_clips(const Program *p); /* all stages meet before the update: clip_norm, f16 */
bool device_rounds(const Device *d);  /* has rounded copies of weights to make */
static inline bool action_copies(const Action *a)
{
    return a->kind == ACT_COPY_OUT || a->kind == ACT_COPY_IN;
}
static inline StreamKind action_stream(const Action *a)
{
    return a->kind == ACT_SEND || a->kind == ACT_RECV ? STREAM_TRANSFER
           : a->kind == ACT_COPY_OUT                  ? STREAM_OUT
           : a->kind == ACT_COPY_IN                   ? STREAM_IN
                                                      : STREAM_COMPUTE;
}
/* What a device does in a step, or in an evaluation. */
static inline ActionList *program_list(const Program *p, int device, bool eval)
{
    return eval ? &p->devices.at[device].eval : &p->devices.at[device].train;
}
int program_streams(const Program *p); /* how many of them have actions on some device */
/* The least of what a chunk's offloaded tensors have as slots: of the buffers that the forward pass
 * writes, on the host, and that the backward pass reads; 0: nothing of the chunk is offloaded. */
typedef struct {
    int out, host, back;
} OffloadSlots;
OffloadSlots offload_slots(const Device *d, int chunk);
/* To the host, or back, of one micro-batch: calls that copy, and bytes. The tensors of a loop are
 * copied in one call unless something lies between them. */
typedef struct {
    int64_t copies, bytes;
} OffloadMoves;
OffloadMoves offload_moves(const Device *d, int chunk);
/* The number of the first call of a chunk's run among the calls of such runs on its device. */
int program_first_call(const Program *p, int chunk, RunKind kind);

void program_dump(const Program *p, FILE *to);

/* ------------------------------------------------------------------- the passes */

/* The same model in fewer operations: before anything else. */
void simplify(Graph *g);
/* Gives tensors 16 bits where the precision says so: before the backward pass is added. */
void mix_precision(Graph *g, Precision precision);
/* Adds the backward pass to the graph, of the loss averaged over the batch. false after errors. */
bool differentiate(Graph *g, const Settings *s, Diag *d);
/* Where to cut, for the goal that the settings name; for GPUs or for the host. Gives the model a
 * micro-batch where it has none: the batch over 4 times the stages, at least 1, rounded down to
 * a divisor of the batch. */
Split *split(Model *m, bool gpus);
/* Which chunk and device every operation is on. NULL after errors. */
Placement *place(Model *m, const Split *s, Diag *d);
/* Fuses element-wise chains inside chunks. */
void fuse(Graph *g, Placement *pl);
/* Phases of each chunk with repeated layers as loops; buffers of each device. */
Program *lower(Model *m, Placement *pl, Diag *d);
/* offload = activations: gives what chunks keep for long a place in the host's memory, where that
 * saves memory of the device; see offload.c. After lower. */
void offload(Program *p, Diag *d);
/* Whether a chunk offloads that holds so many micro-batches, of so many of which W waits. */
enum { OFFLOAD_SLOTS = 4 };
bool offload_pays(int held, int waiting);
/* For GPUs: how messages go, as the settings say. Before communicate. false after errors. */
bool program_for_gpus(Program *p, Diag *d);
/* Orders the runs of one step on every device. */
SlotList *schedule(const Program *p, ScheduleKind kind, bool eval);
/* The order of training as the settings or their file say. A searched one is tried in whole plans,
 * so what comes behind this pass is to be made again, if it was made. */
SlotList *schedule_train(Program *p, const SlotList *eval);
/* Adds transfers and waits around the runs; finds how many micro-batches each buffer holds. */
void communicate(Program *p, const SlotList *train, const SlotList *eval);
/* Offsets. */
bool allocate(Program *p, Diag *d);
/* Proofs; each says what is wrong in `to` and returns false. */
bool verify_coverage(const Program *p, FILE *to);
bool verify_deadlock(const Program *p, FILE *to);
bool verify_races(const Program *p, FILE *to);
bool verify_memory(const Program *p, FILE *to);

#endif
