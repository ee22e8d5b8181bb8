/* split.h - what the files that cut a model share, and the search uses. */
#ifndef MDLC_SPLIT_H
#define MDLC_SPLIT_H

#include "outline.h"

/* Times and bytes as near as this are equal. */
#define SPLIT_EQUAL (1 + 1e-9)

/* Units [from, to) without annotation, for pieces lo to hi. */
typedef struct {
    int from, to, lo, hi;
} SplitGap;

typedef struct {
    const Outline *o;
    SplitGoal goal;
    VEC(SplitGap) gaps;
    int *gap_of;  /* [units]: its gap, or NONE */
    bool *wanted; /* [gaps * pieces]: must not stay empty */
    double *load; /* [pieces]: seconds of a micro-batch, or fixed bytes */
} SplitGaps;

/* In the outline's arena. */
SplitGaps split_gaps(const Outline *o, SplitGoal goal);
/* The cut whose largest piece has least of what the goal names. piece: of each unit. */
void split_gaps_evenly(SplitGaps *s, int *piece);
/* The cut whose largest piece takes least time; piece: of each unit. */
void split_evenly(const Outline *o, int *piece);

/* What the devices of a pipeline, one run of units each, hold at once and may hold. */
typedef struct {
    double memory; /* bytes of each */
    double *held;  /* [devices]: micro-batches of what is kept */
    double *late;  /* [devices]: of what waits for W */
    double *slack; /* [devices]: bytes besides */
} SplitRoom;

/* What a unit needs of a device, by its look. */
double split_bytes(const Outline *o, const SplitRoom *r, int unit, int device);
/* What a cut before a unit needs on either side. */
double split_edge(const Outline *o, int unit);
/* The contiguous cut with the smallest bottleneck of which every device has room, and something;
 * false where there is none, or it would take too long. */
bool split_within(const Outline *o, const SplitRoom *r, int *piece);

#endif
