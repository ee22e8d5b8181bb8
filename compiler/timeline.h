/* timeline.h - when every action of one training step begins and ends. */
#ifndef MDLC_TIMELINE_H
#define MDLC_TIMELINE_H

#include "program.h"

/* TIMELINE_SECONDS: as cost.h estimates runs, transfers and the update, or a profile has them.
 * TIMELINE_UNITS: F = 1, B = 2, I = W = 1, all else takes no time, but transfers wait for each
 * other. */
typedef enum { TIMELINE_SECONDS, TIMELINE_UNITS } TimelineKind;

typedef struct {
    double start, end; /* from the beginning of the step; -1: never, the lists deadlock */
} Span;

typedef struct {
    Span *spans;     /* [actions of the device's train list] */
    double whole;    /* from the first action to the end of the last; weights that are rounded at the
                        beginning could as well be rounded at the end of the step before */
    double busy;     /* what the stream of runs spends computing, waits left out */
    double clipping; /* of the clip's span, what is work and not waiting for the others */
} DeviceTime;

typedef struct {
    DeviceTime *devices;
    double step;   /* end of the last action */
    double period; /* from a step to the next, which a device begins when it has ended its own: the
                      longest time from the first action of a device to the end of its last */
    double bubble; /* idle time of the devices over devices × period; 0 for an empty step */
    bool complete; /* every action ends */
} Timeline;

/* In the arena. Time and memory grow with the number of actions and waits alone. */
Timeline *timeline_make(Arena *a, const Program *p, TimelineKind kind);
/* The runs alone, in units: the schedule's own shape. Messages are there at once, whatever their
 * order, and all else takes no time. Spans, of runs, only where they are asked for; else NULL. */
Timeline *timeline_shape(Arena *a, const Program *p, bool spans);

/* Bytes of kept tensors that hold a value, from `at` on until the next step's `at`. */
typedef struct {
    double at;
    int64_t bytes;
} KeptStep;
typedef VEC(KeptStep) KeptSteps;

/* How the kept bytes of a device rise and fall during the step. */
KeptSteps timeline_kept(Arena *a, const Program *p, const Timeline *t, int device);

/* Traffic of what a device does to its weights (ACT_ROUND, ACT_REDUCE, ACT_CLIP, ACT_UPDATE): each
 * tensor is read, and written where it changes; the optimizer also clears the gradients. */
double timeline_weight_bytes(const Device *d, ActionKind kind);
/* Of a run, a copy, or of what is done to weights; 0 for others. */
double timeline_action_seconds(const Program *p, int device, const Action *a);
/* timeline_links.c: of seconds, as the host's trainers send and wait; period and bubble are not
 * set. */
Timeline *timeline_links(Arena *a, const Program *p);
/* Seconds of one message of the link. */
double timeline_transfer_seconds(const Program *p, const Link *link);

#endif
