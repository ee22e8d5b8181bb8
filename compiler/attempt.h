/* attempt.h - what a way of cutting comes to, by making all of the Program. */
#ifndef MDLC_ATTEMPT_H
#define MDLC_ATTEMPT_H

#include "program.h"

typedef struct {
    double seconds; /* of a step, as timeline.h walks it */
    int64_t bytes;  /* of the device that needs most */
    double bubble;
    int chunks;         /* most of any device */
    int64_t *of_device; /* bytes of each device of the pipeline; NULL: not asked for */
} Attempt;

/* Goes from place to allocate with a copy of the graph, in memory that it gives back, and without a
 * word; the devices' memory is no limit. false where no Program comes of it. */
bool attempt(const Model *m, const Split *s, bool gpus, Attempt *out);

/* A graph of its own for passes: what they change is copied, operations with their operands, and
 * values. */
Graph *attempt_copy_graph(Arena *a, const Graph *g);

#endif
