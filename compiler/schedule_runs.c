/* schedule_runs.c - the runs of a step as a file says, for the chunks that a model has.
 *
 * In:  a schedule file that is right in itself; where the model's operations are, then its Program.
 * Out: for every device its runs; or what the file and the model, or its devices, do not agree on.
 *
 * A chunk has not every run that the file may name. One without weights has no W, one that hands
 * no gradient on no I, a frozen one in front neither: what is not there takes no time. Where the
 * Program has the backward pass in two parts, B is both, one after the other.
 */
#include "schedule.h"
#include "schedule_file.h"

static const char *device_name(const Model *m, int k)
{
    return arena_printf(m->graph->arena, "%s[%d]", m->settings.devices.name, k);
}

/* ------------------------------------------------------------------------- chunks */

static void note_chunk(const Graph *g, const Placement *pl, int chunk, Diag *d)
{
    for (OpId o = 0; o < g->ops.n; o++)
        if (pl->chunk_of[o] == chunk) {
            diag_note(d, g->ops.at[o].at, "chunk %d begins here", chunk);
            return;
        }
}

bool schedule_file_fits(const ScheduleFile *f, const Model *m, const Placement *pl, Diag *d)
{
    for (int c = 0; c < pl->nchunks && c < f->nchunks; c++) {
        const int line = f->device_of[c], device = pl->device_number[pl->device_of[c]];
        if (line == device)
            continue;
        const FileAction *a = schedule_file_first(f, c);
        diag_error(d, schedule_file_place(f, line, a), "%s: the model has chunk %d on %s",
                   schedule_file_show(m, line, a), c, device_name(m, device));
        note_chunk(m->graph, pl, c, d);
        return false;
    }
    if (f->nchunks > pl->nchunks) {
        const int line = f->device_of[pl->nchunks];
        const FileAction *a = schedule_file_first(f, pl->nchunks);
        const char *what = schedule_file_show(m, line, a);
        const Place at = schedule_file_place(f, line, a);
        if (schedule_model_places(m)) {
            diag_error(d, at, "%s: the model has %d chunk%s, numbered from 0", what, pl->nchunks,
                       pl->nchunks == 1 ? "" : "s");
        } else {
            diag_error(d, at, "%s: the model cannot be cut into %d chunks", what, f->nchunks);
            diag_help(d, "cuts are between statements, and every turn of a loop has its own");
        }
    } else if (f->nchunks < pl->nchunks) {
        const char *device = device_name(m, pl->device_number[pl->device_of[f->nchunks]]);
        diag_error(d, (Place){.file = f->source, .line = 1, .col = 1, .len = 1},
                   "the schedule has %d chunk%s: there is no %dF0, which %s would run", f->nchunks,
                   f->nchunks == 1 ? "" : "s", f->nchunks, device);
        note_chunk(m->graph, pl, f->nchunks, d);
    }
    return f->nchunks == pl->nchunks;
}

/* --------------------------------------------------------------------------- runs */

/* The runs of a chunk that are what an action asks for; how many. */
static int runs_of(const Chunk *c, const FileAction *a, RunKind *runs)
{
    static const RunKind parts[] = {RUN_I, RUN_W};
    int n = 0;
    if (a->run == RUN_F || c->has[RUN_B]) {
        runs[n++] = a->run;
        return n;
    }
    for (int k = 0; k < 2; k++)
        if (c->has[parts[k]] && (a->run == RUN_B || a->run == parts[k]))
            runs[n++] = parts[k];
    return n;
}

SlotList *schedule_file_runs(const ScheduleFile *f, const Program *p)
{
    Arena *arena = p->graph->arena;
    SlotList *lists = schedule_new(p, false);
    for (int d = 0; d < p->devices.n; d++) {
        const FileActions *line = &f->lines[p->devices.at[d].number];
        for (int i = 0; i < line->n; i++) {
            const FileAction *a = &line->at[i];
            RunKind runs[2];
            const int n = runs_of(&p->chunks.at[a->chunk], a, runs);
            for (int k = 0; k < n; k++)
                VEC_PUSH(arena, &lists[d], (Slot){runs[k], a->chunk, a->m});
        }
    }
    return lists;
}

/* ----------------------------------------------------------------------- deadlock */

/* The action of the file that the run at some place of a device's list comes from. */
static const FileAction *action_at(const ScheduleFile *f, const Program *p, int device, int at)
{
    const FileActions *line = &f->lines[p->devices.at[device].number];
    for (int i = 0; i < line->n; i++) {
        RunKind runs[2];
        at -= runs_of(&p->chunks.at[line->at[i].chunk], &line->at[i], runs);
        if (at < 0)
            return &line->at[i];
    }
    return NULL; /* cannot be: the list was made from the line */
}

/* A device that stands at a run, and the run that it waits for. */
typedef struct {
    const FileAction *stands, *waits;
    int line, on, device; /* lines of the two; the device of the second */
} Stand;

static Stand stand_of(const ScheduleFile *f, const Program *p, const SlotList *lists, const int *at,
                      const bool *done, int device)
{
    const Slot s = lists[device].at[at[device]];
    const int chunk = schedule_waits_for(p, done, s);
    const bool back = run_goes_back(s.run) && chunk != s.chunk;
    Stand x = {.stands = action_at(f, p, device, at[device]),
               .line = p->devices.at[device].number,
               .device = p->chunks.at[chunk].device,
               .on = f->device_of[chunk]};
    const FileActions *line = &f->lines[x.on];
    for (int i = 0; i < line->n && !x.waits; i++) {
        const FileAction *a = &line->at[i];
        if (a->chunk == chunk && a->m == s.m && back == run_goes_back(a->run))
            x.waits = a;
    }
    return x;
}

/* Devices that wait for each other in a ring, from any that stands still. */
static void report_ring(const ScheduleFile *f, const Program *p, const SlotList *lists,
                        const int *at, const bool *done, int device, Diag *d)
{
    enum { MOST_NOTES = 16 };
    for (int i = 0; i < p->devices.n; i++) /* into the ring */
        device = stand_of(f, p, lists, at, done, device).device;
    const int first = device;
    int n = 0;
    do {
        const Stand x = stand_of(f, p, lists, at, done, device);
        const char *waits = schedule_file_show(p->model, x.on, x.waits);
        if (n == 0)
            diag_error(d, schedule_file_place(f, x.line, x.stands),
                       "the schedule comes to no end: %s waits for %s",
                       schedule_file_show(p->model, x.line, x.stands), waits);
        else if (n < MOST_NOTES)
            diag_note(d, schedule_file_place(f, x.line, x.stands), "%s waits for %s",
                      schedule_file_show(p->model, x.line, x.stands), waits);
        device = x.device;
        n++;
    } while (device != first);
    if (n > MOST_NOTES)
        diag_help(d, "%d devices wait for each other", n);
}

bool schedule_file_ends(const ScheduleFile *f, const Program *p, Diag *d)
{
    const SlotList *lists = schedule_file_runs(f, p);
    int *at = ARENA_ARRAY(p->graph->arena, int, p->devices.n);
    const bool *done = schedule_walk(p, lists, at);
    for (int k = 0; k < p->devices.n; k++)
        if (at[k] < lists[k].n) {
            report_ring(f, p, lists, at, done, k, d);
            return false;
        }
    return true;
}
