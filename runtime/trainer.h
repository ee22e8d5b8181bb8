/* trainer.h - the runtime's own state, and what its files do for each other.
 *
 * Threads: the main thread (trainer_main.c) and one thread per stage (devices.c), which
 * runs that stage's code and nothing else. Stages meet in links (links.c) and in the
 * slots of steps (reports.c); the main thread gives commands and takes reports.
 *
 * What differs between the host and NVIDIA GPUs stands under "what a target provides": the
 * files of host/ or cuda/ provide it, all others are compiled for both and ask for nothing else.
 *
 * One lock, Trainer.lock, guards everything below that says so. `changed` is signalled
 * when a device may go on, `report` when the main thread has something to do.
 */
#ifndef MDL_TRAINER_H
#define MDL_TRAINER_H

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>

#include "data.h"
#include "files.h"
#include "rt.h"
#include "safetensors.h"

/* ------------------------------------------------------------------ options */

typedef struct {
    int64_t steps; /* of the whole run; -1: the model's */
    bool has_seed;
    uint64_t seed;
    double lr;         /* < 0: the model's */
    int threads;       /* per device; 0: share the cores */
    const char **data; /* [ndata], owned; the strings are argv's */
    const char **eval; /* [neval] */
    int ndata, neval;
    int64_t eval_every, save_every; /* 0: at the end only */
    const char *log, *trace, *plot, *save, *resume, *load, *export;
    double time_limit; /* seconds; 0: none */
    double timeout;    /* seconds that a stage waits for another; 0: for ever */
    bool quiet, check_gradients, help;
    bool cuda_graph; /* GPUs */
} Options;

int options_parse(Options *o, int argc, char **argv, Problem *p);
void options_free(Options *o);
void options_help(const MdlModel *model, const char *program);

/* ------------------------------------------------------------------ weights */

/* One weight in one stage. */
typedef struct {
    const char *name;
    int stage;
    const MdlWeight *run;
    int64_t turn, index, count; /* of its run; among the model's; elements */
} Weight;

typedef struct {
    Weight *all; /* [n]: owners and copies */
    int64_t n;
    Weight **owner; /* [nweights], by index */
    char *names;
} Weights;

/* Lists the weights of all stages; a model whose indices or places are wrong is refused. */
int weights_list(Weights *list, const MdlModel *model, Problem *p);
void weights_free(Weights *list);

/* Values of weight `name`, which depend on (seed, name) and the element's number alone. */
void weight_initialise(Team *team, real *w, int64_t count, const char *name, uint64_t seed,
                       MdlInit init, double value);

/* ------------------------------------------------------------- learning rate */

/* The rate of step s, 1 <= s <= steps: up from 0 in `warmup` steps, then down to `min`. */
double learning_rate(MdlLrSchedule schedule, double lr, double min, int64_t warmup, int64_t step,
                     int64_t steps);

/* -------------------------------------------------------------------- links */

enum { CACHE_LINE = 64 };

/* Counters only grow; slot i % slots is message i's. */
typedef struct {
    _Alignas(CACHE_LINE) _Atomic int64_t posted; /* written by the receiver */
    int64_t waited;                              /* the receiver's own */
    _Alignas(CACHE_LINE) _Atomic int64_t sent;   /* written by the sender */
    _Alignas(CACHE_LINE) _Atomic int sleepers;
    struct LinkSlot *slots; /* [slots of the plan], the target's */
    pthread_mutex_t lock;
    pthread_cond_t wake;
} Link;

int links_new(Trainer *t, Problem *p);
void links_free(Trainer *t);
void links_wake(Trainer *t); /* after Trainer.aborted was set */
/* Waits until *counter > n: looks, spins, then sleeps. `what`: "the send" of micro-batch m. */
int link_until(Stage *s, int link, _Atomic int64_t *counter, int64_t n, int m, const char *what);
/* Adds 1 and wakes who waits for it. */
void link_count(Link *l, _Atomic int64_t *counter);
/* Reports that the stages' code does not fit together; returns MDL_FAILED. */
int link_misused(Stage *s, int link, int m, const char *what);
/* What both targets check: that this stage may post (wait for) message m now. */
int link_check_post(Stage *s, int link, int m);

/* -------------------------------------------------------------------- trace */

typedef struct {
    int64_t from, to; /* nanoseconds since the run began */
    int64_t step;
    char phase; /* of phase_begin; 's' send, 'w' wait */
    int16_t chunk;
    int32_t m, link;
} TraceEvent;

/* The first `half` events and, in a ring, the last. */
typedef struct {
    TraceEvent *events;
    int64_t half, n; /* n: all that happened */
    int64_t dropped; /* not even counted in n: the target could not measure them */
} Trace;

bool trace_new(Trace *trace, int64_t events);
void trace_add(Trace *trace, TraceEvent event);
int trace_write(Trainer *t, const char *path, Problem *p);

/* ------------------------------------------------------------------ devices */

typedef enum { MODE_TRAIN, MODE_EVAL, MODE_CHECK } Mode;
typedef enum { COMMAND_NONE, COMMAND_STEPS, COMMAND_EVAL, COMMAND_CHECK, COMMAND_EXIT } Command;

typedef struct {
    Stage stage;
    const MdlStage *plan;
    struct DeviceOwn *own; /* what the target keeps besides */
    Team *team;            /* of the device's thread */
    pthread_t thread;
    Mode mode;
    int64_t base; /* position of the batch's first sample */
    char phase;   /* 0: none */
    int chunk, m;
    int64_t phase_from;
    Trace trace;
} Device;

/* What the stages report of one step. */
typedef struct {
    int64_t step;
    double loss;  /* sum over the batch; one writer */
    int finished; /* stages; under the lock */
    double *norm; /* [nweights], of the gradients as they are: times the loss scale */
    double scale; /* the step's loss scale; 1 without */
    bool skipped; /* nothing was updated, since a gradient was not finite in 16 bits */
} StepSlot;

/* The loss scale of the next step; loss_scale.c. */
typedef struct {
    double factor;
    int64_t good;    /* steps since it changed */
    int64_t updates; /* steps that were not skipped */
} LossScale;

/* Stages may be this many steps ahead of the main thread's reports. */
enum { STEP_SLOTS = 16 };

typedef struct {
    int64_t step;
    double loss;
} LossPoint;
typedef struct {
    int64_t step;
    double loss, metric; /* the first metric; NAN without one */
} EvalPoint;

/* What is written and drawn of a run. */
typedef struct {
    FILE *log;
    bool terminal;
    LossPoint *losses;
    EvalPoint *evals;
    int64_t nlosses, nevals, room_losses, room_evals;
    double first_loss, last_loss;
    int64_t begun, last; /* nanoseconds: training; the last step's end */
    int64_t drawn;       /* nanoseconds, of the progress line */
    int tenth;           /* of the run that has been said */
} Journal;

struct Trainer {
    const MdlModel *model;
    Options options;
    uint64_t seed;
    int64_t steps, first; /* the last step of the run; the first */
    double lr;
    int threads;
    bool spin;
    Weights weights;
    DataSet *train, *eval;
    TensorFile *initial; /* weights come from here; NULL: from the seed */
    bool resumed;        /* `initial` is a checkpoint, with optimizer state */
    Link *links;
    Device *devices;
    int running;     /* threads of devices */
    int64_t started; /* nanoseconds */
    Journal journal;

    pthread_mutex_t lock;
    pthread_cond_t changed, report;
    atomic_bool aborted;
    /* Under the lock: */
    Problem problem;
    Command command;
    int64_t command_number; /* counts commands */
    int idle;               /* devices that wait for the next command */
    int64_t last;           /* no step after this one is begun */
    int64_t begun;          /* the furthest step that a stage has begun */
    int64_t reported;       /* the last step whose slot has been read */
    int met;                /* stages that have come to where all meet */
    int64_t meets;          /* counts meetings */
    double clip_scale;
    bool skip; /* the step under way updates nothing */
    LossScale scale;

    StepSlot slots[STEP_SLOTS];
    double *norms; /* of all slots */

    /* Written by the stages that own the loss and the metrics, read when all are idle. */
    double eval_loss;
    double *eval_metrics;
    int64_t eval_end; /* samples of an evaluation */
};

int64_t time_now(void); /* nanoseconds, monotonic */
struct timespec time_after(double seconds);

/* Reports a failure of a stage, once, and stops all; returns MDL_FAILED. */
int stage_fail(Stage *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Stops all devices because of t->problem, or of `p` where that is the first. */
void trainer_abort(Trainer *t, const Problem *p);
/* "stage 1 (gpu[1]), step 3, in F0 m2"; returns `out`. */
enum { TEXT_PLACE = 160 };
char *stage_place(const Stage *s, char *out);

Device *device_of(const Stage *s);

/* Starts the threads; memory, weights and stage starts are done when it returns. */
int devices_start(Trainer *t, Problem *p);
/* Ends the threads and frees their memory. */
void devices_stop(Trainer *t);
/* Gives a command to all devices; devices_wait returns when all have done it. */
void devices_command(Trainer *t, Command command);
int devices_wait(Trainer *t, Problem *p);

/* --------------------------------------------------- what a target provides */

/* How targets differ in what they say. */
typedef struct {
    bool teams; /* a device is threads of the host: --threads is for it */
    bool late;  /* losses are counted when the step has ended, weights updated before */
} TargetTraits;
extern const TargetTraits target_traits;

/* Whether this machine has the devices that the model needs; nothing is allocated yet. */
int target_check(const Trainer *t, Problem *p);
/* For the table of devices: what the device is, or "". Returns `out`. */
enum { TEXT_DEVICE = 300 };
char *device_describe(const Device *d, char *out);
/* What else there is to say after the table. */
void target_tell(const Trainer *t);

/* A device's life. By the main thread: device_allocate, and device_free when all threads have
 * ended, also after failures. By the device's own: device_open, which ends with memory and
 * team there; device_collect after every start, step and evaluated batch: all work of it is done
 * and its numbers are counted when it returns; device_close. */
int device_allocate(Device *d, Problem *p);
int device_open(Device *d);
int device_collect(Device *d);
void device_close(Device *d);
void device_free(Device *d);

/* Bytes of a stage's memory as the host sees them: the memory itself or, of a GPU, a copy.
 * For the main thread while devices are idle, and for a device's own outside of steps. */
typedef struct {
    Device *device;
    int64_t offset, bytes;
    void *at;
} Span;
typedef enum { SPAN_READ = 1, SPAN_WRITE = 2 } SpanUse;
int span_open(Span *span, Device *d, int64_t offset, int64_t bytes, unsigned use, Problem *p);
/* Ends a span, also one that span_open refused; what was written is then in the memory. */
int span_close(Span *span, unsigned use, Problem *p);

/* Makes the slots of a link; frees them, also where they were not made. */
int link_open(Trainer *t, int link, Problem *p);
void link_close(Trainer *t, int link);

/* ------------------------------------------------------------------ reports */

int reports_new(Trainer *t, Problem *p);
void reports_free(Trainer *t);
StepSlot *slot_of(Trainer *t, int64_t step);
/* Waits until step `step` may begin; false: it is not to begin. */
bool step_begin(Stage *s, int64_t step);
void step_end(Stage *s, int64_t step);
/* Sum in index order, square root. */
double norm_of(const Trainer *t, const double *squares);

void loss_scale_start(Trainer *t);
/* What the gradients of a step mean for the scale; false where there is no way on. Called with the
 * lock. */
bool loss_scale_decide(Trainer *t, bool finite);
/* What a checkpoint notes of it: 0 or LOSS_SCALE_NOTES notes, in the text given. */
enum { LOSS_SCALE_NOTES = 3 };
typedef struct {
    char factor[32], good[32], updates[32];
} LossScaleText;
int loss_scale_notes(const Trainer *t, LossScaleText *text, TensorNote *notes);
int loss_scale_resume(Trainer *t, const TensorFile *file, int64_t done, Problem *p);
/* Waits until every stage has come; the last to come calls `last` for all, with the lock. */
int stages_meet(Stage *s, void (*last)(Stage *s), const char *what);
/* The part of clip_gradients that all targets share: s->norm holds this stage's squares. */
int clip_exchange(Stage *s);
/* Copies input `input` of a micro-batch's samples, the first at position `first` of the data of
 * the device's mode, to the host's memory. */
int samples_read(Device *d, int input, int64_t first, void *out, Problem *p);
/* Likewise of micro-batch m of the step under way; a bad sample is a failure of the stage. */
int samples_load(Stage *s, int input, int m, void *out);
/* Bytes of one sample. */
int64_t sample_bytes(const MdlInput *input);
/* Counts the numbers of a micro-batch: one for each sample. */
int loss_count(Stage *s, int m, const real *loss);
int metric_count(Stage *s, int metric, int m, const real *value);
/* The first weight whose gradient's sum of squares is not finite, for messages. */
const char *norm_culprit(const Trainer *t, const double *squares);

/* -------------------------------------------------------- what comes of a run */

int journal_open(Trainer *t, Problem *p);
void journal_close(Trainer *t);
int journal_step(Trainer *t, int64_t step, double loss, double lr, double norm, double scale,
                 Problem *p);
int journal_eval(Trainer *t, int64_t step, double loss, const double *metrics, Problem *p);
/* `why`: why the run stopped early, or NULL. */
void journal_summary(Trainer *t, int64_t last, const char *why);
int plot_write(const Trainer *t, const char *path, Problem *p);
int checkpoint_write(Trainer *t, const char *folder, int64_t step, Problem *p);
/* Opens the newest checkpoint of a folder: *step is its step, *seed its seed. */
int checkpoint_open(TensorFile **file, const MdlModel *model, const char *folder, int64_t *step,
                    uint64_t *seed, Problem *p);
/* Makes the folder of --save; says so where it holds later steps than `done`. */
int checkpoint_folder(const Trainer *t, int64_t done, Problem *p);
int weights_export(Trainer *t, const char *path, Problem *p);
/* Writes the weights in index order, and the optimizer's state after them. */
int weights_save(const Trainer *t, const char *path, bool state, const TensorNote *notes,
                 int nnotes, Problem *p);
/* Checks that `file` holds every weight (and state, of a checkpoint). */
int weights_check(const Trainer *t, const TensorFile *file, bool state, Problem *p);
/* Fills the weights of one stage: from t->initial (and the state), or from the seed. */
int weights_fill(Device *d, Problem *p);
/* Opens the span of a weight or of what belongs to it (and is there). */
typedef enum { PART_STATE_0, PART_STATE_1, PART_WEIGHT, PART_GRADIENT } WeightPart;
int weight_open(Span *span, const Trainer *t, const Weight *w, WeightPart part, unsigned use,
                Problem *p);

/* Steps first ... last; *done is the last one run, earlier after a stop. */
int run_steps(Trainer *t, int64_t first, int64_t last, int64_t *done, Problem *p);
/* Mean loss of a batch at position 0 in training mode, for checking gradients. */
int run_check(Trainer *t, double *loss, Problem *p);
int check_gradients(Trainer *t, Problem *p);

#endif
