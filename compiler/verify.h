/* verify.h - what the verifier's parts share. */
#ifndef MDLC_VERIFY_H
#define MDLC_VERIFY_H

#include "program.h"

/* "gpu[1], action 12 (RECV h.2 of micro-batch 3)" */
const char *verify_where(const Program *p, int device, const ActionList *list, int action);

/* All that is referred to is there; see verify_shape.c. `proof` is who asks, for messages. */
bool verify_shape(const Program *p, const char *proof, FILE *to);

/* The right tensors everywhere; see verify_values.c. A part of the proof of coverage. */
bool verify_values(const Program *p, FILE *to);

/* Memory and races inside the phases of a device, call by call; see verify_memory.c. */
bool verify_phases(const Program *p, int device, FILE *to);

#endif
