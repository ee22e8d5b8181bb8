/* compare.h - a measured step beside the planned one. */
#ifndef MDLC_COMPARE_H
#define MDLC_COMPARE_H

#include "plan.h"

/* The median step of a trainer's trace, in the arena; NULL after a message. *unreadable: the file
 * could not be read. */
Timeline *compare_read(Arena *a, const Program *p, const char *path, int64_t *step,
                       bool *unreadable);
/* Planned and measured times of every device, and of the step. */
void compare_text(const Plan *plan, const Timeline *measured, int64_t step, Text *out);

#endif
