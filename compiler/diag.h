/* diag.h - places in source files, and what the compiler says about them.
 *
 *   two_gpu.mdl:9:14: error: linear needs f32, but layer1 is i32[500]
 *       9 |     layer2 = linear(layer1, 100)  @gpu[1];
 *         |                     ^~~~~~
 *   two_gpu.mdl:8:5: note: layer1 comes from here
 *       …
 *   help: …
 */
#ifndef MDLC_DIAG_H
#define MDLC_DIAG_H

#include "base.h"

/* A stretch of one line. file: number in Sources, -1 for "no place" (command line). */
typedef struct {
    int file;
    int line, col; /* from 1; col counts bytes */
    int len;       /* bytes; at least 1 */
} Place;

#define NO_PLACE ((Place){.file = -1})

typedef struct {
    const char *name; /* as shown in messages */
    const char *text; /* terminated */
    size_t size;
} Source;

typedef struct Diag Diag;

enum { DIAG_MAX_ERRORS = 20 };

Diag *diag_new(Arena *a);
int diag_add_source(Diag *d, const char *name, const char *text, size_t size);
const Source *diag_source(const Diag *d, int file);

/* An error, then any number of notes and helps that belong to it. Messages after the
 * twentieth error are counted, not kept. */
void diag_error(Diag *d, Place at, const char *format, ...) __attribute__((format(printf, 3, 4)));
void diag_warning(Diag *d, Place at, const char *format, ...) __attribute__((format(printf, 3, 4)));
void diag_note(Diag *d, Place at, const char *format, ...) __attribute__((format(printf, 3, 4)));
void diag_help(Diag *d, const char *format, ...) __attribute__((format(printf, 2, 3)));
int diag_errors(const Diag *d);

/* Writes what has been said since the last flush. json: an array of objects
 * {"severity","message","file","line","column","length","notes":[…],"help":[…]}. */
void diag_flush(Diag *d, FILE *to, bool json);

/* The candidate nearest to `word` by edit distance, near enough to be a slip; else NULL. */
const char *diag_nearest(const char *word, const char *const *candidates, int n);

#endif
