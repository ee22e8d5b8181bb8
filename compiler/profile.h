/* profile.h - times that were measured on a machine, in place of cost.h's estimates.
 *
 * A profile has a row for each unit: what one execution of a statement of the model made, forward
 * and backward. Units do not depend on devices or schedule, so a profile is good for every split of
 * its model, at the precision and the micro-batch that it was measured with. */
#ifndef MDLC_PROFILE_H
#define MDLC_PROFILE_H

#include "program.h"

/* The backward pass as a whole takes I + W. */
typedef enum { PART_F, PART_I, PART_W, PARTS } Part;

typedef struct {
    const char *layer;     /* for people: "h.3.attn.c_attn", "h.3 line 12: add" */
    double seconds[PARTS]; /* of one micro-batch */
} ProfileRow;

typedef struct Profile {
    const char *path; /* of its file */
    const char *model, *graph, *precision;
    int64_t microbatch;
    const char *processor; /* and how it was measured: */
    int cores, devices, threads;
    const char *schedule;
    int steps;
    double step;               /* s, of one of these */
    double link, latency;      /* bytes/s, s; link 0: no message was measured */
    double work[WEIGHT_WORKS]; /* bytes/s; 0: there is none of it */
    int nrows;
    ProfileRow *rows;
} Profile;

/* The unit of every operation, [ops], in the order in which they come; `n` of them. Before
 * operations are fused. */
int *profile_units(const Graph *g, int *n);
Part profile_part(const Op *op);
/* A hash of what operations there are, with their shapes: changes when times may. */
const char *profile_graph_key(const Graph *g);
const char *profile_precision_name(Precision p); /* "bf16" */
/* Rows with names and no times, for a model after differentiate. */
ProfileRow *profile_rows(const Graph *g, int *n);

/* Is it of this model and precision? false after an error. Sets the measured rates. */
bool profile_take(const Profile *profile, Model *m, Diag *d);
/* Is it of the model's micro-batch, and do devices share the processor as they did then? The first
 * is an error, the second a warning. */
bool profile_fits(const Profile *profile, const Model *m, int devices, Diag *d);
/* Replaces `seconds` [ops], which are estimates, by shares of the measured times: in each unit they
 * add up to its F, I and W, in proportion to what they were. */
void profile_apply(const Profile *profile, const Graph *g, double *seconds);

/* profile_file.c: NULL after an error; at most 64 MiB. */
Profile *profile_read(Arena *a, const char *path, Diag *d);
/* As JSON; false: out of memory. */
bool profile_write(const Profile *profile, Text *out);

#endif
