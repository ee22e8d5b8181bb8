/* outline.h - a model as a row of units that may be on different devices, and what a way of cutting
 * the row would cost: without lowering anything, so that thousands of ways can be tried.
 *
 * A unit is what one execution of one statement made. Between two units the row may be cut. */
#ifndef MDLC_OUTLINE_H
#define MDLC_OUTLINE_H

#include "program.h"

typedef struct {
    OpId first, end; /* forward operations [first, end) */
    int device;      /* annotated, or NONE */
    int depth;       /* of the innermost turn or block around this unit and the one before */
    /* Seconds of one micro-batch: forward, gradients of results, gradients of weights. */
    double forward, inward, weights;
    double update;   /* seconds of the optimizer for the weights first used here */
    double crossing; /* bytes of a micro-batch that are alive before this unit */
    int64_t fixed;   /* bytes of those weights, with gradients, state and rounded copies */
    int64_t kept;    /* bytes of a micro-batch that the backward pass reads again */
    int64_t late;    /* bytes of a micro-batch that the backward pass makes for the weights alone */
    bool has_inward, has_weights;
} Unit;
/* Seconds of all passes of one micro-batch. */
static inline double unit_work(const Unit *u)
{
    return u->forward + u->inward + u->weights;
}

/* A tensor that other units read. */
typedef struct {
    int maker;
    int64_t bytes;          /* of a micro-batch */
    bool gradient;          /* its gradient comes back, from reader to reader */
    int nreaders, *readers; /* units, rising */
} Flow;

typedef struct {
    Arena *arena;
    Model *model;
    const double *seconds; /* [ops], as cost_table() has them, or a profile */
    const bool *metric_only;
    int nforward; /* operations */
    int ndevices; /* of the pipeline, used or not */
    int npieces;  /* places for units: devices, times the turns that data takes round them */
    const int *device_of; /* [pieces] */
    int microbatches;
    int64_t microbatch;
    VEC(Unit) units;
    VEC(Flow) flows;
} Outline;

/* Of a model with its backward pass. Gives the model a micro-batch where it has none: the batch
 * over 4 times the stages, at least 1, rounded down to a divisor of the batch. In the arena. */
Outline *outline_make(Arena *a, Model *m);

/* Takes devices, schedule and chunks from the settings of its model once more. */
void outline_shape(Outline *o);

/* Slots that a cut takes for what crosses it, on either side: two for messages one way, two back.
 */
enum { CROSSING_SLOTS = 4 };

/* A reshaped tensor is the tensor that it is made of. */
ValueId outline_root(const Graph *g, ValueId v);
/* Of a micro-batch. */
int64_t outline_bytes(const Outline *o, ValueId v);

/* What a way of cutting would come to. Seconds are never more than those of the plan: messages
 * begin when they can, and wait for nobody. Bytes are an estimate. */
typedef struct {
    double seconds; /* of a step */
    double bytes;   /* of the device that needs most; fixed alone is exact to the alignment */
} Outlook;

/* piece: of each unit. */
Outlook outline_look(const Outline *o, const int *piece);

/* Of every unit: how many micro-batches of what it keeps, and of what its backward pass makes for
 * the weights alone, its device holds at once. */
typedef struct {
    int *kept, *late;
} OutlineHeld;

/* In arena a. */
OutlineHeld outline_held(const Outline *o, const int *piece, Arena *a);

#endif
