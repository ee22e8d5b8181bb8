/* schedule.h - what schedule.c, schedule_zero.c and schedule_search.c share. */
#ifndef MDLC_SCHEDULE_H
#define MDLC_SCHEDULE_H

#include "program.h"

/* The first run of the backward pass, or NONE. */
static inline int back_of(const Chunk *c)
{
    return c->has[RUN_B] ? RUN_B : c->has[RUN_I] ? RUN_I : c->has[RUN_W] ? RUN_W : NONE;
}

/* Whether W comes apart, after I. */
static inline bool is_split(const Chunk *c)
{
    return c->has[RUN_I] && c->has[RUN_W];
}

/* Empty lists with room for all runs of their devices. */
SlotList *schedule_new(const Program *p, bool eval);
void schedule_push(const Program *p, SlotList *list, RunKind run, int chunk, int m);
/* `warm` forwards, then each backward with the next forward, each W `late` micro-batches behind
 * its I. Warm-up of all micro-batches is GPipe. */
void schedule_fill(const Program *p, SlotList *list, int chunk, int warm, int late);
/* How far the devices get when they go through their lists, to at[device]; and what is done then:
 * [(2 * chunk + back) * microbatches + m]. */
const bool *schedule_walk(const Program *p, const SlotList *lists, int *at);
/* A chunk whose run of the same direction this one waits for, or itself where it waits for its
 * own F; NONE: it can start. */
int schedule_waits_for(const Program *p, const bool *done, Slot s);
/* Whether the lists can be gone through to their ends: skips may ask for another order. */
bool schedule_ends(const Program *p, const SlotList *lists);

/* Two chunks on each of D devices, chunk c on device c, and on 2 D - 1 - c on the way back. */
bool schedule_is_v(const Program *p);
/* ZB-V; only where schedule_is_v(). */
void schedule_v(const Program *p, SlotList *lists);

/* What is needed to tell when a run may begin. */
typedef struct {
    const Program *p;
    double **delay;     /* [chunks * RUN_KINDS]: of each of its `after`, seconds of the messages */
    VEC(int) * readers; /* [chunks]: devices whose runs read what its runs make */
} SchedulePacer;
/* instant: messages take no time. */
SchedulePacer *schedule_pacer(Arena *a, const Program *p, bool instant);
/* By what the run reads; -1: not known yet. done: [(2 * chunk + back) * M + m], when F, and B or I,
 * have ended, or -1. */
double schedule_may_begin(const SchedulePacer *w, Slot s, const double *done);

/* How an order of runs goes, with the seconds of the chunks and messages that begin when they
 * can. */
typedef struct {
    double *spans; /* [devices]: from the first run to the end of the last */
    int *held;     /* [chunks]: most micro-batches between F and the end of B, or of W */
    int *waiting;  /* [chunks]: most between I and the end of W; 0 where the two are one */
    bool complete; /* the lists end */
} Pace;
Pace schedule_pace(Arena *a, const Program *p, const SlotList *lists);

#endif
