/* settings.h - what devices, parallel, train and data items say, checked and complete. */
#ifndef MDLC_SETTINGS_H
#define MDLC_SETTINGS_H

#include "front.h"
#include "graph.h"

typedef enum {
    SCHEDULE_1F1B,
    SCHEDULE_GPIPE,
    SCHEDULE_INTERLEAVED,
    SCHEDULE_ZERO_BUBBLE, /* ZB-H1 */
    SCHEDULE_ZB_H2,
    SCHEDULE_ZB_V,
    SCHEDULE_SEARCHED,
    SCHEDULE_KINDS
} ScheduleKind;
typedef enum { SPLIT_TIME, SPLIT_MEMORY } SplitGoal;
typedef enum { RECOMPUTE_NONE, RECOMPUTE_FULL, RECOMPUTE_AUTO } RecomputeKind;
typedef enum { OFFLOAD_NONE, OFFLOAD_ACTIVATIONS } OffloadKind;
typedef enum { OPTIMIZER_SGD, OPTIMIZER_ADAM, OPTIMIZER_ADAMW } OptimizerKind;
typedef enum { LR_CONSTANT, LR_COSINE, LR_LINEAR } LrKind;
/* f64 is for checking gradients: the host target in double precision. */
typedef enum { PRECISION_F32, PRECISION_BF16, PRECISION_F16, PRECISION_F64 } Precision;

/* What is done to whole weights, once a step: see ActionKind. */
typedef enum { WORK_ROUND, WORK_REDUCE, WORK_CLIP, WORK_UPDATE, WEIGHT_WORKS } WeightWork;

enum { MOST_DEVICES = 4096 };

typedef struct {
    const char *name;          /* "gpu" */
    int count;                 /* 0: no devices item; as many as the annotations use */
    int64_t memory;            /* bytes, 0: no limit */
    double compute;            /* FLOP/s, in the precision of the products */
    double half;               /* FLOP/s in 16 bits: compute, where the precision is such */
    double bandwidth;          /* bytes/s of its memory */
    double link;               /* bytes/s between two devices */
    double latency;            /* s */
    double call;               /* s, to begin a kernel */
    double host_link;          /* bytes/s to the host's memory, one way; 0: it is that */
    int per_node;              /* 0: all in one */
    double node_link;          /* bytes/s between nodes */
    double work[WEIGHT_WORKS]; /* bytes/s of each as a profile has it; 0: as the memory's */
    /* of the catalogue: whose speeds are assumed where nothing is said */
    const struct DeviceType *standard;
    Place at;
} Devices;

typedef struct {
    ScheduleKind schedule;
    int64_t microbatch; /* 0: the default, batch over 4 times the stages, at least 1 */
    bool searched;      /* the schedule is one that the search has found to be the best */
    int chunks;         /* of each device, where the model places nothing; 0: the schedule's own */
    SplitGoal split;
    bool nccl; /* GPUs: messages go through NCCL instead of copies between peers */
    RecomputeKind recompute;
    OffloadKind offload;
    Place at, schedule_at, microbatch_at, chunks_at, recompute_at, offload_at;
    /* --schedule-file: what the devices run in a training step, whatever `schedule` and `chunks`
     * are; but that the backward pass is in two parts where `schedule` has it so. NULL: none. */
    const struct ScheduleFile *file;
} Parallel;

typedef struct {
    int64_t batch, steps;
    OptimizerKind optimizer;
    double lr, momentum, weight_decay, beta1, beta2, eps;
    bool nesterov;
    LrKind schedule;
    int64_t warmup;
    double min;
    double clip_norm; /* 0: none */
    Precision precision;
    uint64_t seed;
    Place at, batch_at;
} Train;

typedef struct {
    const char *key; /* input's name; NULL: the one positional file */
    const char *path;
} DataFile;

typedef struct {
    const char *which; /* "train", "eval" */
    const char *kind;  /* "npy", "idx", "csv", "text", "tokens", "synthetic" */
    VEC(DataFile) files;
    bool shuffle; /* default: true for train, false for eval */
    int64_t take, skip;
    Place at;
} DataItem;

typedef struct {
    Devices devices;
    Parallel parallel;
    Train train;
    VEC(DataItem) data;
} Settings;

/* What the front end makes of a file. */
typedef struct {
    const char *name;   /* of the model */
    const char *source; /* the file's name as given */
    Graph *graph;
    Settings settings;
    const struct Profile *profile; /* measured times, or NULL: estimates */
} Model;

/* Elaborates; NULL after errors (all of them reported). */
Model *elaborate(Arena *a, Diag *d, struct Ast *ast, const FrontOptions *o);

#endif
