/* rt.h - everything that generated code sees of the runtime.
 *
 * A trainer is: one generated file per stage (what one device does in a step), a
 * generated trainer.c (one MdlModel that describes the whole), this runtime and the
 * kernels. Each stage runs on a thread of its own, with memory of its own; stages
 * meet only in links.
 *
 * Calls that can fail return a status: MDL_OK, or anything else, which the caller
 * returns at once (TRY). What went wrong has then been reported already, with stage,
 * step and place; only mdl_main exits.
 *
 * Code for GPUs includes rt_cuda.h instead, which is this file with MDL_CUDA defined: a stage
 * then has streams and a Gpu where the host's has a team, its memory is device memory, and
 * its functions put work into streams instead of doing it. The two are separate libraries.
 */
#ifndef MDL_RT_H
#define MDL_RT_H

#include <stdbool.h>
#include <stdint.h>

#ifdef MDL_CUDA
#include "gpu.h"
#else
#include "kernels.h"
#endif

enum { MDL_OK = 0, MDL_FAILED = 1, MDL_STOPPED = 2 /* another stage failed; unwind quietly */ };

#define TRY(call)                                                                                  \
    do {                                                                                           \
        int try_status_ = (call);                                                                  \
        if (try_status_ != MDL_OK)                                                                 \
            return try_status_;                                                                    \
    } while (0)

typedef struct Trainer Trainer; /* the runtime's own state */
#ifdef MDL_CUDA
struct ncclComm;
#endif

/* One device at work: what a stage's functions are given. Filled by the runtime. */
typedef struct Stage {
    int index;    /* number of the stage, from 0 */
    char *memory; /* the device's one allocation; every buffer is an offset into it */
    char *host;   /* MdlStage.host_bytes of the host's memory, on GPUs pinned; NULL: none */
#ifdef MDL_CUDA
    const Gpu *gpu;        /* what kernels are given: device, compute stream, handles, scratch */
    cudaStream_t compute;  /* gpu->compute: everything but transfers, in order */
    cudaStream_t transfer; /* sends and receives, in order */
    cudaStream_t copy_out; /* to `host`, in order; like copy_in NULL where there is none */
    cudaStream_t copy_in;  /* and back */
    cudaEvent_t *event;    /* [MdlStage.events], without timing: what orders the streams */
    struct ncclComm *nccl; /* the one communicator, rank = index; NULL without NCCL */
    double *squares;       /* device memory, [nweights]: squares of gradients by weight */
#else
    Team *team; /* the device's threads */
#endif
    int64_t step;    /* optimizer step under way, from 1 */
    bool training;   /* dropout is on; false in evaluation */
    Hyper hyper;     /* the optimizer's numbers for this step */
    real loss_scale; /* f16: what the gradient of the loss is multiplied by; else 1 */
    bool skip;       /* f16: a gradient was not finite; set by clip_gradients: do not update */
    double *norm;    /* sum of squares of the gradient of weight i; shared, one writer each */
    Trainer *trainer;
} Stage;

/* ----------------------------------------------------------------------- links
 *
 * A link carries one tensor per micro-batch from one stage to another, in order.
 * The receiver posts a buffer, the sender fills it, the receiver waits for it: as
 * MPI_Irecv, MPI_Send and MPI_Wait. A send waits until its buffer has been posted,
 * so a link never holds more than the receiver has given it. */
#ifndef MDL_CUDA
int link_post(Stage *s, int link, int m, void *buffer);
int link_send(Stage *s, int link, int m, const void *buffer);
int link_wait(Stage *s, int link, int m);
#else
/* Between GPUs of one process the stages' code does the same with events and a copy; what
 * is left for the runtime is that no host thread waits for an event before the other has
 * recorded it. None of these waits for a GPU.
 *
 *     receiver   link_post: buffer known, `posted` recorded on its transfer stream
 *     sender     link_ready: blocks until message m's buffer is posted; gives the slot. Then the
 *                sender's transfer stream waits for `posted`, copies and records `arrived`;
 *                link_sent tells the receiver
 *     receiver   link_arrived: blocks until link_sent; gives the slot, whose `arrived` the
 *                receiver's compute stream waits for; the slot may then be posted anew
 */
typedef struct LinkSlot {
    void *buffer; /* device memory of the receiver */
    int device;   /* the receiver's, as CUDA numbers it */
    int m;
    cudaEvent_t posted;  /* of the receiver's device */
    cudaEvent_t arrived; /* of the sender's device */
} LinkSlot;

int link_post(Stage *s, int link, int m, void *buffer);
int link_ready(Stage *s, int link, int m, LinkSlot **slot);
int link_sent(Stage *s, int link, int m);
int link_arrived(Stage *s, int link, int m, LinkSlot **slot);
#endif

/* ------------------------------------------------------------- data and reports */

/* Copies input `input` of the samples of micro-batch m into buffer, converted to the
 * input's type, 16-bit numbers by rounding once to nearest even, and checked (finite; within the
 * input's limit). On a GPU the samples go to
 * pinned memory at once and from there on the compute stream. */
int data_load(Stage *s, int input, int m, void *buffer);

/* The stage that owns the loss calls this once per micro-batch, in order, with one
 * number per sample; likewise for a metric. From a GPU they are copied on the compute
 * stream and counted when the step has ended. */
int report_loss(Stage *s, int m, const real *loss);
int report_metric(Stage *s, int metric, int m, const real *value);

/* Exchanges s->norm between all stages and sets s->hyper.grad_scale for clip_norm and the loss
 * scale, and s->skip:
 * every stage calls it once a step, after all its gradients are complete. With GPUs the
 * squares are read from s->squares, when the compute stream has got there. */
int clip_gradients(Stage *s);

#ifdef MDL_CUDA
/* The passes of a step, with all that they send and receive: called or, with --cuda-graph, launched
 * as the graph that they were captured into. They are the same in every step. */
int step_passes(Stage *s, int (*passes)(Stage *s));
#endif

/* Brackets one phase for the trace: 'F', 'B', 'I', 'W', 'U' (update). m < 0: none. */
void phase_begin(Stage *s, char phase, int chunk, int m);
void phase_end(Stage *s);

/* The key of the random numbers of the layer `prefix``number``suffix` in this step;
 * number < 0: the name is prefix alone. */
uint64_t dropout_key(const Stage *s, const char *prefix, int64_t number, const char *suffix);

/* ------------------------------------------------------- the model's description */

enum { MDL_RANK = 8 };
typedef enum { MDL_REAL, MDL_I32, MDL_U8, MDL_BF16, MDL_F16 } MdlType;
typedef enum { MDL_CONSTANT, MDL_UNIFORM /* in [-value, value) */, MDL_NORMAL /* std */ } MdlInit;

/* A run of `count` weights of one shape, made by the turns of a loop; a single weight
 * has count 1. Weight i is named prefix (first + i * step) suffix, or prefix alone where
 * first < 0. Offsets are bytes in the stage's memory; -1: there is none. Turn i is
 * i * stride bytes further on. */
typedef struct {
    const char *prefix, *suffix;
    int64_t first, step;
    int64_t count;
    int64_t index, index_step; /* its number among all weights of the model */
    int rank;
    int64_t dim[MDL_RANK];
    MdlInit init;
    double value; /* of init */
    bool frozen;  /* not trained: no gradient, no state */
    bool owner;   /* false: a copy of a tied weight that another stage owns and updates */
    int64_t weight, weight_stride;
    int64_t grad, grad_stride;
    int64_t state[2], state_stride; /* optimizer state: momentum; or Adam's m and v */
} MdlWeight;

typedef struct {
    const char *device; /* "gpu[0]" */
    const char *layers; /* for people: "conv1 ... h.3" */
    int64_t bytes;      /* of the one allocation, as the stage's own file lays it out */
    int64_t host_bytes; /* of Stage.host */
#ifdef MDL_CUDA
    int gpu;                             /* CUDA's number of the device */
    int events;                          /* how many the stage needs */
    int64_t squares, scratch, workspace; /* places of Stage.squares, Gpu.scratch, .workspace */
    const bool *loads; /* [ninputs]: which inputs its code loads; NULL: perhaps all */
#endif
    const MdlWeight *weights;
    int nweights;
    int (*start)(Stage *s); /* once, after the weights are there; may be NULL */
    int (*step)(Stage *s);  /* one optimizer step: all micro-batches and the update */
    int (*eval)(Stage *s);  /* forward only, as many micro-batches */
} MdlStage;

typedef struct {
    int from, to;  /* stages */
    int64_t bytes; /* of one message */
    int slots;     /* the most that are posted at one time */
    const char *name;
} MdlLink;

typedef struct {
    const char *name;
    MdlType type;
    bool target;
    int rank;
    int64_t dim[MDL_RANK]; /* per sample */
    int64_t limit;         /* integers must be in [0, limit); 0: no limit */
} MdlInput;

typedef struct {
    const char *name, *path; /* name NULL: the one positional file */
} MdlFile;

typedef struct {
    const char *which; /* "train", "eval" */
    const char *kind;  /* "npy", "idx", "csv", "text", "tokens", "synthetic" */
    const MdlFile *files;
    int nfiles;
    bool shuffle;
    int64_t take, skip; /* take 0: all */
} MdlData;

typedef enum { MDL_SGD, MDL_ADAM, MDL_ADAMW } MdlOptimizer;
typedef enum { MDL_LR_CONSTANT, MDL_LR_COSINE, MDL_LR_LINEAR } MdlLrSchedule;

typedef struct {
    const char *name;        /* of the model */
    const char *fingerprint; /* changes when weights or settings that shape a run do */
    const MdlStage *const *stages;
    const int64_t *planned; /* bytes of each stage, as mdlc plan prints them */
    int nstages;
    const MdlLink *links;
    int nlinks;
    const MdlInput *inputs;
    int ninputs;
    const MdlData *data;
    int ndata;
    const char *const *metrics;
    int nmetrics;
    int64_t nweights; /* of the whole model, tied ones once */
    int64_t batch, microbatch;
    int microbatches; /* per step */
    int64_t steps;
    uint64_t seed;
    MdlOptimizer optimizer;
    Hyper hyper;
    MdlLrSchedule lr_schedule;
    int64_t warmup;   /* steps */
    double min;       /* the lowest learning rate, absolute */
    double clip_norm; /* 0: none */
    bool loss_scaled; /* precision f16 */
#ifdef MDL_CUDA
    const struct MdlNccl
        *nccl;            /* &mdl_nccl of rt_cuda.h where stages meet in NCCL; NULL: in links */
    const char *no_graph; /* why steps do not call step_passes; NULL: they do */
#endif
} MdlModel;

/* The trainer's main: options, threads, steps, files. Returns the exit code. */
int mdl_main(const MdlModel *model, int argc, char **argv);

#endif
