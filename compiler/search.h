/* search.h - which settings of `parallel` are best for a model and its devices. */
#ifndef MDLC_SEARCH_H
#define MDLC_SEARCH_H

#include "profile.h"
#include "program.h"

/* One setting, and what it comes to. */
typedef struct {
    ScheduleKind schedule;
    RecomputeKind recompute;
    int devices, chunks; /* chunks: 0: the schedule's own */
    int most_chunks;     /* of a device, as planned */
    int64_t microbatch;
    double seconds; /* of a step */
    double bytes;   /* of the device that needs most */
    double bubble;  /* idle share of the devices */
    bool planned;   /* by a whole plan; else by a look (outline.h) */
} SearchRow;

typedef struct SearchResult {
    VEC(SearchRow) rows; /* the best first; those that do not fit are left out */
    int tried;           /* settings */
    int planned;
} SearchResult;

/* Tries depths of the pipeline, chunks, micro-batches, schedules and recomputation for a model
 * before its backward pass is added; what the model places itself stays, with its number of
 * devices. Puts the best into the settings of the model. false where nothing fits or can be: then
 * they are as they were. profile: of one micro-batch, which then is the only one; NULL. */
bool search_settings(Model *m, const Profile *profile, bool gpus, SearchResult *out);
/* A copy of a model before its backward pass is added, to ask the next one about. */
Model *search_before(const Model *m);
/* Which single changes of the settings would fit into memory, with what they need: "recompute =
 * full (1.2 GiB), …"; NULL where none would. In the arena. */
const char *search_fits(Arena *a, const Model *before, bool gpus);
/* Puts a row into the settings. */
void search_take(Model *m, const SearchRow *row);

#endif
