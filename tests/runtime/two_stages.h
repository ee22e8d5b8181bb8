/* two_stages.h - a model of two stages with a weight that both hold, and its faults. */
#ifndef TWO_STAGES_H
#define TWO_STAGES_H

#include "rt.h"

enum { FEATURES = 3, HIDDEN = 4, MICROBATCH = 2, MICROBATCHES = 4 };
enum { BATCH = MICROBATCH * MICROBATCHES };
enum { LINK_HIDDEN, LINK_DHIDDEN, LINK_DSHARED, LINK_SHARED, LINK_NEVER, NLINKS };
enum { INPUT_X, INPUT_Y };
enum { NWEIGHTS = 5 };

typedef enum {
    FAULT_NONE,
    FAULT_DEADLOCK,  /* stage 1 waits for a message that nobody sends */
    FAULT_NAN,       /* a loss that is not a number */
    FAULT_GRADIENT,  /* a gradient that is wrong */
    FAULT_INFINITE,  /* a gradient of out.weight that is infinite */
    FAULT_INTERRUPT, /* the process gets SIGINT */
} Fault;

/* The fault happens in step `fault_step`. */
extern Fault fault;
extern int64_t fault_step;

static inline bool fault_now(const Stage *s, Fault which)
{
    return fault == which && s->step == fault_step;
}

/* A copy to change; the arrays it points to are shared. */
MdlModel two_stages(void);

#endif
