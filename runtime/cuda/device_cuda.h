/* device_cuda.h - what the runtime keeps of a device that is an NVIDIA GPU.
 *
 * One thread of the host drives one GPU: it puts a step's work into two streams and waits for
 * them when the step has ended (device_collect). What goes between host and GPU meanwhile lies
 * in pinned memory, which is allocated once, as all else is.
 */
#ifndef MDL_DEVICE_CUDA_H
#define MDL_DEVICE_CUDA_H

#include "rt_cuda.h"
#include "trainer.h"

/* Losses or a metric of one micro-batch on their way to the host. */
typedef struct {
    int metric; /* -1: the loss */
    int m, chunk;
    char phase;
    const float *value; /* pinned, one for each sample */
} Numbers;

/* Samples of one batch on their way to the GPU. */
typedef struct {
    Mode mode;
    int64_t base;   /* position of the batch's first sample; -1: nothing is here */
    char **samples; /* [ninputs], pinned: [micro-batch]; NULL: not loaded by this stage */
    bool *there;    /* [ninputs][micro-batch] */
} Staging;

/* A phase between two events with timing, of the stream `compute`. */
typedef struct {
    cudaEvent_t begin, end;
    int64_t step;
    char phase;
    int chunk, m;
} GpuPhase;

/* For --trace: phases that are not resolved yet, and the event that times count from. */
typedef struct {
    GpuPhase *phases; /* [room]; NULL: there is no trace */
    int room, n;
    bool open; /* phase n has begun */
    cudaEvent_t base[2];
    int current;  /* of base */
    double since; /* when base[current] was, in nanoseconds of the run */
} PhaseClock;

/* For --cuda-graph: the passes of a step, captured once for each set of places of samples. */
typedef struct {
    cudaGraphExec_t exec[2]; /* by Staging; NULL: not captured */
    cudaEvent_t fork, join;  /* without timing: between the two streams */
    bool capturing;          /* nothing that is put into streams now is done */
    bool *loads;             /* [ninputs][micro-batch]: what the passes load */
    Numbers *numbers;        /* [room]: what they send */
    int nnumbers;
} StepGraphs;

struct DeviceOwn {
    Gpu gpu;
    char nccl_id[MDL_NCCL_ID]; /* of stage 0: the communicator's */
    int events;                /* how many of Stage.event are made */
    char *pinned;
    double *squares; /* pinned, [nweights] */
    float *values;   /* pinned, [room][microbatch] */
    Numbers *numbers;
    int room, nnumbers;
    Staging staging[2];
    int current; /* of staging: the batch under way; the other is filled for the next */
    PhaseClock clock;
    StepGraphs graphs;
};

/* Ends a failure's being remembered by CUDA; for calls whose failure changes nothing. */
void gpu_note(int status);
/* "gpu[0]: cudaMalloc: out of memory", for what is no part of a step. */
int gpu_problem(const Device *d, int status, const char *call, Problem *p);
/* Reports it as a failure of the stage's step, if it is one; returns a status of rt.h. */
int gpu_check(Stage *s, int status, const char *call);
/* Likewise before the first step. */
int gpu_open_check(Device *d, int status, const char *call);
#define OPEN(call) TRY(gpu_open_check(d, (int)(call), #call))

/* Waits until every stage has come; `what` they do then, for messages. */
int stages_gather(Stage *s, const char *what);
/* Waits until a stream of this stage has done all its work, or another stage has failed. */
int gpu_wait(Stage *s, cudaStream_t stream);

/* Makes the part of pinned memory; frees it, also where it was not made. */
int reports_open(Device *d);
void reports_close(Device *d);
/* Reads the squares, which the streams have put into pinned memory, and counts numbers. */
int squares_fetch(Device *d);
/* While the GPU works: converts the samples of the next batch. */
void samples_prepare(Device *d);
/* Converts the samples that the batch under way lacks, of those of `loads`. */
int samples_complete(Device *d, const bool *loads);
int reports_collect(Device *d);

int graphs_open(Device *d);
void graphs_close(Device *d);

int clock_open(Device *d);
void clock_close(Device *d);
/* Before and after the wait for the stream at the end of a step. */
int clock_mark(Device *d);
int clock_resolve(Device *d);

#endif
