/* communicate.h - what communicate.c, slots.c and waits.c share. */
#ifndef MDLC_COMMUNICATE_H
#define MDLC_COMMUNICATE_H

#include "program.h"

/* Links that a run reads from or writes to. */
typedef struct {
    VEC(int) reads, writes;
} RunLinks;

/* Finds how many micro-batches each kept buffer of a device holds at a time under either list. */
void count_slots(Program *p, int device, const ActionList *train, const ActionList *eval);
/* Adds the waits to the list of one device, whose slots are known; run_links is
 * [chunks * RUN_KINDS]. */
void add_waits(Program *p, const RunLinks *run_links, ActionList *list, int device);

#endif
