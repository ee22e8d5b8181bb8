/* training.h - the main thread's part of a run. */
#ifndef MDL_TRAINING_H
#define MDL_TRAINING_H

#include "trainer.h"

/* Between the two, the first SIGINT or SIGTERM asks for an early stop, and a mapped file that
 * is cut off while it is read ends the process with a message; `old` keeps what the signals
 * did before. */
enum { SIGNALS = 3 };
void interrupt_watch(struct sigaction old[SIGNALS]);
void interrupt_unwatch(const struct sigaction old[SIGNALS]);

/* Why the run should stop now, for people; NULL: it should not. */
const char *stop_reason(const Trainer *t);

/* The run from after step `done`: steps, evaluations, checkpoints, export. */
int run_train(Trainer *t, int64_t done, Problem *p);

#endif
