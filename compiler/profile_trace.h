/* profile_trace.h - what the trace of a trainer that mdlc profile built says. */
#ifndef MDLC_PROFILE_TRACE_H
#define MDLC_PROFILE_TRACE_H

#include "program.h"

/* Seconds, of the first step none: that one warms up. */
typedef VEC(double) Samples;

typedef struct {
    Samples *calls[RUN_KINDS]; /* [calls]: of all turns of a loop */
    Samples work[WEIGHT_WORKS];
} DeviceSamples;

typedef struct {
    DeviceSamples *devices;
    Samples steps;   /* from the end of one step to the end of the next */
    Samples *copies; /* [links]: of a message, at the sender */
    Samples wakes;   /* from the end of a copy until who waits for it goes on */
    int events;      /* of all steps */
    int64_t nsteps;
    int threads; /* of a device */
} ProfileSamples;

/* NULL, with a message, where the file is not such a trace. */
ProfileSamples *profile_trace_read(Arena *a, const Program *p, const char *path);
/* The mean of those from a fraction of the sorted samples to another, 0 … 1; 0 where there are
 * none. Sorts them. */
double samples_mean(Samples *s, double from, double to);
/* Without the fastest and the slowest tenth: what is slow in most steps counts, what is slow in a
 * few does not. */
double samples_typical(Samples *s);

#endif
