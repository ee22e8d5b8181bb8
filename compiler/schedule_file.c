/* schedule_file.c - reads a compute schedule.
 *
 * In:  the text of a file; the elaborated model.
 * Out: its actions, checked: nothing in the text is believed.
 *
 * First the cells of all lines, then which device each chunk is on, then every line from left to
 * right. Gradients are summed in the order in which backward passes run, and weights are the same
 * to the bit under every schedule; so the passes of one kind of a chunk must come in the order of
 * the micro-batches. One count per chunk and kind is then all that needs to be known: what comes
 * next is the micro-batch of that number, or an error.
 *
 *     counts   F    forwards
 *              B    B and I: gradients that go on to the chunk before
 *              W    B and W: gradients of weights
 */
#include "schedule_file.h"

#include <string.h>

/* Bounds on numbers: of chunks, of micro-batches. */
enum { MOST_CHUNKS = 1 << 16, MOST_MICROBATCHES = 1 << 24 };

typedef struct {
    Arena *arena;
    const Model *model;
    Diag *diag;
    ScheduleFile *file;
    VEC(FileActions) lines; /* up to the last that has an action */
    int nlines;             /* in the file */
    int *device_of;         /* [chunks]: NONE */
    int *count[RUN_KINDS];  /* [chunks]: of F, B and W */
    int microbatches;       /* 0: the file says how many */
} Reader;

static const char *device_name(const Reader *r, int k)
{
    return arena_printf(r->arena, "%s[%d]", r->model->settings.devices.name, k);
}

static const char *run_text(const Reader *r, RunKind run, int chunk, int m)
{
    return arena_printf(r->arena, "%d%s%d", chunk, run_name(run), m);
}

Place schedule_file_place(const ScheduleFile *f, int line, const FileAction *a)
{
    return (Place){.file = f->source, .line = line + 1, .col = a->col, .len = a->len};
}

const char *schedule_file_show(const Model *m, int line, const FileAction *a)
{
    return arena_printf(m->graph->arena, "%d%s%d at step %d of %s[%d]", a->chunk, run_name(a->run),
                        a->m, a->step, m->settings.devices.name, line);
}

const FileAction *schedule_file_first(const ScheduleFile *f, int chunk)
{
    const FileActions *line = &f->lines[f->device_of[chunk]];
    for (int i = 0; i < line->n; i++)
        if (line->at[i].chunk == chunk)
            return &line->at[i];
    return NULL;
}

static Place place_of(const Reader *r, int line, const FileAction *a)
{
    return schedule_file_place(r->file, line, a);
}

static const char *show(const Reader *r, int line, const FileAction *a)
{
    return schedule_file_show(r->model, line, a);
}

/* ------------------------------------------------------------------------- cells */

typedef struct {
    const char *start, *at, *end; /* of the line */
    int line, step;
} Cursor;

static bool is_space(char c)
{
    return c == ' ' || c == '\t';
}

/* A number below `limit`; -1: there is none, -2: it is larger. */
static int read_number(const char **s, const char *end, int limit)
{
    int n = 0;
    bool large = false;
    if (*s == end || **s < '0' || **s > '9')
        return -1;
    for (; *s < end && **s >= '0' && **s <= '9'; ++*s) {
        n = large ? n : 10 * n + (**s - '0');
        large = large || n >= limit;
    }
    return large ? -2 : n;
}

static bool wrong_cell(const Reader *r, const Cursor *c, const char *from, const char *to)
{
    enum { SHOWN = 40 };
    const int n = (int)(to - from);
    const Place at = {
        .file = r->file->source, .line = c->line + 1, .col = (int)(from - c->start) + 1, .len = n};
    diag_error(r->diag, at, "\"%.*s%s\" at step %d of %s is no action", n < SHOWN ? n : SHOWN, from,
               n < SHOWN ? "" : "...", c->step, device_name(r, c->line));
    static const char *const others[] = {"SEND", "RECV", "SHARD", "REDUCE_GRAD"};
    const char *text = arena_strndup(r->arena, from, (size_t)n);
    for (int i = 0; i < 4; i++)
        if (strstr(text, others[i])) {
            diag_help(r->diag, "the file is to hold the runs alone: in PyTorch, "
                               "_dump_csv(file, format=\"compute_only\")");
            return false;
        }
    diag_help(r->diag, "an action is a chunk, F, B, I or W, and a micro-batch: 2B1");
    return false;
}

/* One action, without spaces around it. */
static bool read_action(Reader *r, const Cursor *c, const char *from, const char *to)
{
    const char *s = from;
    FileAction a = {.step = c->step, .col = (int)(from - c->start) + 1, .len = (int)(to - from)};
    a.chunk = read_number(&s, to, MOST_CHUNKS);
    const char *const letters = "FBIW", *letter = s < to && *s ? strchr(letters, *s) : NULL;
    static const RunKind kinds[] = {RUN_F, RUN_B, RUN_I, RUN_W};
    if (a.chunk == -1 || !letter)
        return wrong_cell(r, c, from, to);
    s++;
    a.run = kinds[letter - letters];
    a.m = read_number(&s, to, MOST_MICROBATCHES);
    if (a.m == -1 || s != to)
        return wrong_cell(r, c, from, to);
    if (a.chunk == -2 || a.m == -2) {
        diag_error(r->diag, place_of(r, c->line, &a),
                   "the action at step %d of %s: a schedule has fewer than %d %s", c->step,
                   device_name(r, c->line), a.chunk == -2 ? MOST_CHUNKS : MOST_MICROBATCHES,
                   a.chunk == -2 ? "chunks" : "micro-batches");
        return false;
    }
    if (c->line >= MOST_DEVICES) {
        diag_error(r->diag, place_of(r, c->line, &a), "there are at most %d devices", MOST_DEVICES);
        return false;
    }
    while (r->lines.n <= c->line)
        VEC_PUSH(r->arena, &r->lines, (FileActions){0});
    VEC_PUSH(r->arena, &r->lines.at[c->line], a);
    if (a.chunk >= r->file->nchunks)
        r->file->nchunks = a.chunk + 1;
    return true;
}

static void trim(const char **from, const char **to)
{
    while (*from < *to && is_space(**from))
        ++*from;
    while (*from < *to && is_space((*to)[-1]))
        --*to;
}

/* Actions that PyTorch overlaps, "(0F4;3B1)OVERLAP_F_B", run one after the other. */
static bool read_overlap(Reader *r, const Cursor *c, const char *from, const char *to)
{
    static const char ending[] = ")OVERLAP_F_B";
    const size_t n = sizeof ending - 1;
    if ((size_t)(to - from) <= n || memcmp(to - n, ending, n) != 0)
        return wrong_cell(r, c, from, to);
    for (const char *s = from + 1, *last = to - n; s <= last;) {
        const char *stop = memchr(s, ';', (size_t)(last - s));
        const char *a = s, *b = stop ? stop : last;
        s = b + 1;
        trim(&a, &b);
        if (a == b)
            return wrong_cell(r, c, from, to);
        if (!read_action(r, c, a, b))
            return false;
    }
    return true;
}

/* false after an error, which is one for each line at most. */
static bool read_line(Reader *r, Cursor *c)
{
    for (;;) {
        const char *stop = memchr(c->at, ',', (size_t)(c->end - c->at));
        const char *from = c->at, *to = stop ? stop : c->end;
        c->step++;
        trim(&from, &to);
        if (from < to && !(*from == '(' ? read_overlap : read_action)(r, c, from, to))
            return false;
        if (!stop)
            return true;
        c->at = stop + 1;
    }
}

static bool read_lines(Reader *r, const char *text, size_t size)
{
    const char *end = text + size;
    bool ok = true;
    for (const char *s = text; s < end;) {
        const char *stop = memchr(s, '\n', (size_t)(end - s));
        const char *to = stop ? stop : end;
        Cursor c = {.start = s, .at = s, .line = r->nlines++};
        c.end = to > s && to[-1] == '\r' ? to - 1 : to;
        ok = read_line(r, &c) && ok;
        s = stop ? stop + 1 : end;
    }
    if (ok && r->lines.n == 0) {
        diag_error(r->diag, (Place){.file = r->file->source, .line = 1, .col = 1, .len = 1},
                   "the schedule is empty");
        diag_help(r->diag, "mdlc plan --csv FILE writes one to start from");
        ok = false;
    }
    return ok;
}

/* ----------------------------------------------------------------------- devices */

/* How many devices the pipeline has; 0: as many as the file. */
static int count_devices(const Model *m)
{
    if (m->settings.devices.count || !schedule_model_places(m))
        return m->settings.devices.count;
    int n = 0;
    for (OpId o = 0; o < m->graph->ops.n; o++)
        n = m->graph->ops.at[o].device >= n ? m->graph->ops.at[o].device + 1 : n;
    return n;
}

/* A line for every device, be it empty; blank ones at the end are no devices. */
static bool lines_fit(Reader *r)
{
    const int want = count_devices(r->model);
    r->file->ndevices = want ? want : r->lines.n;
    if (want && r->lines.n > want) {
        int line = want;
        while (r->lines.at[line].n == 0)
            line++;
        const FileAction *a = &r->lines.at[line].at[0];
        diag_error(r->diag, place_of(r, line, a), "%s: the model has %d device%s", show(r, line, a),
                   want, want == 1 ? "" : "s");
        return false;
    }
    if (want > r->nlines) {
        diag_error(r->diag, (Place){.file = r->file->source, .line = r->nlines, .col = 1, .len = 1},
                   "the file ends without a line for %s", device_name(r, r->nlines));
        diag_help(r->diag,
                  "each of the %d devices has a line; it is empty where there is nothing "
                  "to do",
                  want);
        return false;
    }
    while (r->lines.n < r->file->ndevices)
        VEC_PUSH(r->arena, &r->lines, (FileActions){0});
    return true;
}

static bool find_devices(Reader *r)
{
    ScheduleFile *f = r->file;
    bool ok = true;
    r->device_of = ARENA_ARRAY(r->arena, int, f->nchunks);
    f->device_of = r->device_of;
    f->lines = r->lines.at;
    for (int c = 0; c < f->nchunks; c++)
        r->device_of[c] = NONE;
    for (int line = 0; line < r->lines.n; line++)
        for (int i = 0; i < r->lines.at[line].n; i++) {
            const FileAction *a = &r->lines.at[line].at[i];
            int *device = &r->device_of[a->chunk];
            if (*device == NONE)
                *device = line;
            if (*device == line)
                continue;
            diag_error(r->diag, place_of(r, line, a), "%s: chunk %d is on %s", show(r, line, a),
                       a->chunk, device_name(r, *device));
            const FileAction *first = schedule_file_first(f, a->chunk);
            diag_note(r->diag, place_of(r, *device, first), "it is here first: %s",
                      show(r, *device, first));
            ok = false;
            break; /* one for each line */
        }
    for (int c = 0; c < f->nchunks && ok; c++)
        if (r->device_of[c] == NONE) {
            diag_error(r->diag, (Place){.file = f->source, .line = 1, .col = 1, .len = 1},
                       "no line has chunk %d: there is no %s", c, run_text(r, RUN_F, c, 0));
            diag_help(r->diag, "the highest number is that of chunk %d, and none is left out",
                      f->nchunks - 1);
            ok = false;
        }
    return ok;
}

/* ------------------------------------------------------------------------- order */

/* An action does what another would: B is I and W. */
static bool does(const FileAction *a, RunKind run, int chunk, int m)
{
    return a->chunk == chunk && a->m == m &&
           (a->run == run || (a->run == RUN_B && run != RUN_F) ||
            (run == RUN_B && a->run != RUN_F));
}

static const FileAction *find_action(const FileActions *line, int from, RunKind run, int chunk,
                                     int m)
{
    for (int i = from; i < line->n; i++)
        if (does(&line->at[i], run, chunk, m))
            return &line->at[i];
    return NULL;
}

static const char why_order[] =
    "gradients are summed in the order of the micro-batches, so that weights are the same to the "
    "bit under every schedule";

/* What must come before action i and does not. */
static bool comes_early(const Reader *r, int line, int i, RunKind run, int m)
{
    const FileActions *all = &r->lines.at[line];
    const FileAction *a = &all->at[i], *later = find_action(all, i + 1, run, a->chunk, m);
    diag_error(r->diag, place_of(r, line, a), "%s: %s must come before", show(r, line, a),
               run_text(r, run, a->chunk, m));
    if (later)
        diag_note(r->diag, place_of(r, line, later), "it comes later: %s", show(r, line, later));
    else
        diag_help(r->diag, "%s has no %s", device_name(r, line), run_text(r, run, a->chunk, m));
    if (later && m != a->m)
        diag_help(r->diag, "%s", why_order);
    return false;
}

/* Whether it is the turn of action i among those that count as `kind`. */
static bool in_turn(const Reader *r, int line, int i, RunKind kind)
{
    const FileActions *all = &r->lines.at[line];
    const FileAction *a = &all->at[i];
    const int next = r->count[kind][a->chunk];
    if (a->m == next)
        return true;
    if (a->m > next) {
        const RunKind as = kind == RUN_W && a->run == RUN_B ? RUN_W : a->run;
        return comes_early(r, line, i, as, next);
    }
    const FileAction *first = find_action(all, 0, kind == RUN_B ? RUN_I : kind, a->chunk, a->m);
    diag_error(r->diag, place_of(r, line, a), "%s: that has been done", show(r, line, a));
    if (first && first != a)
        diag_note(r->diag, place_of(r, line, first), "here: %s", show(r, line, first));
    return false;
}

static bool check_action(const Reader *r, int line, int i)
{
    const FileAction *a = &r->lines.at[line].at[i];
    int *const *count = r->count;
    if (r->microbatches && a->m >= r->microbatches) {
        diag_error(r->diag, place_of(r, line, a),
                   "%s: a step has %d micro-batch%s, numbered from 0", show(r, line, a),
                   r->microbatches, r->microbatches == 1 ? "" : "es");
        diag_help(r->diag, "batches of %lld, micro-batches of %lld",
                  (long long)r->model->settings.train.batch,
                  (long long)r->model->settings.parallel.microbatch);
        return false;
    }
    if (a->run == RUN_F) {
        if (!in_turn(r, line, i, RUN_F))
            return false;
        count[RUN_F][a->chunk]++;
        return true;
    }
    if (count[RUN_F][a->chunk] <= a->m)
        return comes_early(r, line, i, RUN_F, a->m);
    if (a->run == RUN_W && count[RUN_B][a->chunk] <= a->m)
        return comes_early(r, line, i, RUN_I, a->m);
    if (a->run != RUN_W && !in_turn(r, line, i, RUN_B))
        return false;
    if (a->run != RUN_I && !in_turn(r, line, i, RUN_W))
        return false;
    count[RUN_B][a->chunk] += a->run != RUN_W;
    count[RUN_W][a->chunk] += a->run != RUN_I;
    return true;
}

/* Nothing is left to do when the line ends. */
static bool check_end(const Reader *r, int line, int microbatches)
{
    const FileActions *all = &r->lines.at[line];
    for (int i = 0; i < all->n; i++) {
        const int chunk = all->at[i].chunk;
        const FileAction *last = &all->at[all->n - 1];
        static const RunKind kinds[] = {RUN_F, RUN_B, RUN_W};
        for (int k = 0; k < 3; k++) {
            const int n = r->count[kinds[k]][chunk];
            if (n >= microbatches)
                continue;
            diag_error(r->diag, place_of(r, line, last),
                       "the line of %s ends with %s, at step %d, without %s", device_name(r, line),
                       run_text(r, last->run, last->chunk, last->m), last->step,
                       run_text(r, kinds[k], chunk, n));
            diag_help(r->diag, "every chunk has F, and B or I and W, for each of %d micro-batch%s",
                      microbatches, microbatches == 1 ? "" : "es");
            return false;
        }
    }
    return true;
}

static bool check_order(Reader *r)
{
    ScheduleFile *f = r->file;
    bool ok = true;
    for (int k = 0; k < RUN_KINDS; k++)
        r->count[k] = ARENA_ARRAY(r->arena, int, f->nchunks);
    for (int line = 0; line < r->lines.n; line++)
        for (int i = 0; i < r->lines.at[line].n; i++)
            if (!check_action(r, line, i)) {
                ok = false;
                break; /* one for each line */
            }
    f->microbatches = r->microbatches;
    for (int c = 0; c < f->nchunks && !r->microbatches; c++)
        if (r->count[RUN_F][c] > f->microbatches)
            f->microbatches = r->count[RUN_F][c];
    for (int line = 0; line < r->lines.n && ok; line++)
        ok = check_end(r, line, f->microbatches);
    return ok;
}

/* -------------------------------------------------------------------------- pass */

bool schedule_model_places(const Model *m)
{
    for (OpId o = 0; o < m->graph->ops.n; o++)
        if (m->graph->ops.at[o].device != NONE)
            return true;
    return false;
}

/* The file's number of micro-batches is the model's. */
static bool take_microbatch(Model *m, const ScheduleFile *f, Diag *d)
{
    const int64_t batch = m->settings.train.batch;
    if (m->settings.parallel.microbatch)
        return true;
    if (batch % f->microbatches != 0) {
        diag_error(d, (Place){.file = f->source, .line = 1, .col = 1, .len = 1},
                   "the schedule has %d micro-batches, and a batch of %lld is no whole number of "
                   "them",
                   f->microbatches, (long long)batch);
        diag_help(d, "train.batch says how many samples a batch has");
        return false;
    }
    m->settings.parallel.microbatch = batch / f->microbatches;
    return true;
}

bool schedule_file_read(Model *m, const char *name, const char *text, size_t size, Diag *d)
{
    Arena *a = m->graph->arena;
    Reader r = {.arena = a, .model = m, .diag = d, .file = ARENA_NEW(a, ScheduleFile)};
    Parallel *parallel = &m->settings.parallel;
    r.file->name = name;
    r.file->source = diag_add_source(d, name, text, size);
    if (parallel->microbatch && m->settings.train.batch / parallel->microbatch <= INT32_MAX)
        r.microbatches = (int)(m->settings.train.batch / parallel->microbatch);
    if (!read_lines(&r, text, size) || !lines_fit(&r) || !find_devices(&r) || !check_order(&r) ||
        !take_microbatch(m, r.file, d))
        return false;
    bool in_two = false;
    for (int line = 0; line < r.lines.n; line++)
        for (int i = 0; i < r.lines.at[line].n; i++)
            if (r.lines.at[line].at[i].run == RUN_I || r.lines.at[line].at[i].run == RUN_W)
                in_two = true;
    if (in_two != schedule_splits(parallel->schedule))
        parallel->schedule = in_two ? SCHEDULE_ZERO_BUBBLE : SCHEDULE_1F1B;
    parallel->file = r.file;
    return true;
}
