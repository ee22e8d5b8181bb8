/* recompute.h - what runs again in the backward pass instead of being kept. */
#ifndef MDLC_RECOMPUTE_H
#define MDLC_RECOMPUTE_H

#include "program.h"

/* Before the backward pass is added: sets Op.remat, and Graph.remade for reports, as
 * parallel.recompute says.
 *
 *   none  nothing.
 *   full  every layer runs again; warns where there are no layers.
 *   auto  as little as fits: nothing where the devices have no limit, or everything fits and takes
 *         no longer; else of each layer nothing, its operations that are no products (attention
 *         is one, for this), or all. In each stage the choice is the one of least time whose
 *         bytes fit, an exact multiple-choice knapsack; it depends on the split, and the split on
 *         it, so both are found in turn, as in Sun et al., "AdaPipe: Optimizing Pipeline
 *         Parallelism with Adaptive Recomputation and Partitioning" (ASPLOS 2024). Every choice
 *         that counts is made into a whole plan. Where nothing fits, every layer runs again.
 *
 * Times are the cost model's, also where there is a profile: a profile is of a model whose choice
 * has been made. Gives the model a micro-batch where it has none and auto has to choose. */
void recompute(Model *m, bool gpus, Diag *d);

/* How much of a layer runs again. */
enum { RECOMPUTE_KEEP, RECOMPUTE_CHEAP, RECOMPUTE_ALL, RECOMPUTE_LEVELS };

/* Sets the level of every layer by hand, in the order in which they first appear; levels has as
 * many as there are layers. Gives the model a micro-batch where it has none. */
void recompute_levels(Model *m, const unsigned char *levels);

#endif
