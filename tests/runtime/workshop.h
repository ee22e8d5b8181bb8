/* workshop.h - what the tests work with: a folder of their own, files, a captured run. */
#ifndef WORKSHOP_H
#define WORKSHOP_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "rt.h"

/* cmocka's group setup and teardown: makes a new folder, goes there; removes it. */
int workshop_open(void **state);
int workshop_close(void **state);

void file_put(const char *path, const void *bytes, size_t size);
/* The whole file with a zero after it, to be freed. */
char *file_get(const char *path, size_t *size);
void files_assert_equal(const char *a, const char *b);

/* Writes an .npy file: `descr` such as "<f4", `shape` such as "(10, 3)". */
void npy_put(const char *path, const char *descr, const char *shape, const void *data,
             size_t bytes);

/* Runs mdl_main with "trainer" and the words of `line` (divided by spaces); what it
 * printed is in run_out and run_err until the next run. Returns the exit code. */
extern char *run_out, *run_err;
int run(const MdlModel *model, const char *line);

#endif
