/* schedule_file.h - a compute schedule from a file, in the CSV form of
 * torch.distributed.pipelining: one line for each device, in the order of gpu[0], gpu[1], …, with
 * its runs in their order, and empty cells where it idles.
 *
 *     0F0,0F1,,0I0,0W0,0B1             chunk, what is run, micro-batch
 *     ,1F0,1B0,1F1,1I1,1W1             B is I and W, one after the other
 */
#ifndef MDLC_SCHEDULE_FILE_H
#define MDLC_SCHEDULE_FILE_H

#include "program.h"

typedef struct {
    RunKind run; /* F, B, I or W */
    int chunk, m;
    int step;     /* the cell of the line that it is in, from 1 */
    int col, len; /* in the line, in bytes, from 1 */
} FileAction;
typedef VEC(FileAction) FileActions;

typedef struct ScheduleFile {
    const char *name; /* as given */
    int source;       /* number in Sources */
    int ndevices, nchunks, microbatches;
    const int *device_of;     /* [chunks]: k of gpu[k] */
    const FileActions *lines; /* [devices] */
} ScheduleFile;

/* In messages: where an action stands, and "2B1 at step 7 of gpu[1]", in the model's arena. */
Place schedule_file_place(const ScheduleFile *f, int line, const FileAction *a);
const char *schedule_file_show(const Model *m, int line, const FileAction *a);
/* The first action of a chunk. */
const FileAction *schedule_file_first(const ScheduleFile *f, int chunk);

/* Reads the text of a file for a model that is elaborated: the model's schedule is then the file,
 * and its micro-batch, where it names none, as large as the file's number of them asks for.
 * What the file says is in itself right afterwards: every chunk on one device and every run there
 * once, in the order of the micro-batches, F before B, I before W. false after errors. */
bool schedule_file_read(Model *m, const char *name, const char *text, size_t size, Diag *d);

/* Whether the model says where its operations are, be it some of them. */
bool schedule_model_places(const Model *m);

/* Whether the chunks of the model are those of the file, and on the same devices. */
bool schedule_file_fits(const ScheduleFile *f, const Model *m, const Placement *pl, Diag *d);

/* The file's runs, of those that the chunks have: for every device of the program. In its arena. */
SlotList *schedule_file_runs(const ScheduleFile *f, const Program *p);

/* Whether the devices come to the ends of their lines, and do not wait for each other for ever. */
bool schedule_file_ends(const ScheduleFile *f, const Program *p, Diag *d);

#endif
