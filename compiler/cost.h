/* cost.h - what an operation costs: arithmetic, memory traffic, and time on a device. */
#ifndef MDLC_COST_H
#define MDLC_COST_H

#include "graph.h"
#include "settings.h"

typedef struct {
    double flops; /* one multiply-add counts two */
    double bytes; /* every operand read once, every result written once */
} Cost;

/* Of one operation for `samples` samples; elements are 4 bytes. */
Cost cost_of(const Graph *g, const Op *op, int64_t samples);

/* Seconds on the device that the settings describe (or a plain processor core): the
 * slower of arithmetic and traffic. Used to balance and to draw, not to promise. */
double cost_seconds(const Devices *d, Cost c);
/* Seconds of every operation [ops] for a micro-batch of `samples`, in the arena. They add up: those
 * of a chunk are the sum over its operations, wherever it begins and ends. What element-wise
 * operations hand on to each other in one loop counts no traffic. Before operations are fused. */
double *cost_table(Arena *a, const Graph *g, const Devices *d, int64_t samples);
double cost_transfer_seconds(const Devices *d, int from, int to, double bytes);

#endif
