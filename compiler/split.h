/* split.h - parts of split.c that the search uses. */
#ifndef MDLC_SPLIT_H
#define MDLC_SPLIT_H

#include "outline.h"

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
