/* two_stages_failures.h - tests that all targets share, and what they need. */
#ifndef TWO_STAGES_FAILURES_H
#define TWO_STAGES_FAILURES_H

#include "workshop.h"

/* The last run has said one line on stderr, an error that holds `part`. */
void error_is(const char *part);

/* cmocka's teardown of the tests with a fault. */
int fault_clear(void **state);
void deadlock_times_out(void **state);
void loss_that_is_no_number_stops(void **state);
void gradient_that_is_no_number_stops(void **state);

void bad_sample_is_named(void **state);
void unplanned_memory_is_an_error(void **state);

#endif
