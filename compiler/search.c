/* search.c - the settings of a pipeline whose plan is best.
 *
 * In:  a Graph without its backward pass; settings.
 * Out: the settings, and the best few with what they come to.
 *
 * Three rounds, each with fewer settings and a closer look:
 *   1. all of them, by a formula for the time of the largest device, what comes before and after
 *      it, and what the schedule keeps in flight;
 *   2. the best of these with the schedule made and walked (outline.h), for an even cut;
 *   3. the best of these with their best cut and their whole plan; where all layers run again in
 *      them, also with the layers chosen.
 * How many go into the next round depends on how much work a plan is, not on the machine.
 */
#include "search.h"

#include <math.h>
#include <stdlib.h>

#include "attempt.h"
#include "recompute.h"
#include "split.h"

enum {
    MOST_MICROBATCHES = 8,
    MOST_RUNS_LOOKED = 2000000,  /* runs walked in the second round */
    MOST_RUNS_PLANNED = 900000,  /* runs planned in the third */
    MOST_RUNS_SEARCHED = 100000, /* of one step, for an order to be searched */
    MOST_LOOKED = 60,
    MOST_PLANNED = 12,
    PLANS_TO_CHOOSE = 8, /* that choosing layers takes, about */
    MOST_CHOSEN = 4      /* of them, again with the layers chosen that run again */
};

typedef struct {
    SearchRow row;
    Outline *outline;
    int number;
} Candidate;

typedef struct {
    Arena *arena;
    const Model *model;
    const Profile *profile; /* NULL */
    bool gpus;
    Model *variant[2]; /* without and with recomputation; NULL: cannot be */
    VEC(Candidate) all;
} Finder;

/* ----------------------------------------------------------------------- variants */

static Model *copy_model(Arena *a, const Model *m)
{
    Model *c = arena_copy(a, m, sizeof *m);
    c->graph = attempt_copy_graph(a, m->graph);
    return c;
}

static void make_variants(Finder *f)
{
    for (int k = 0; k < 2; k++) {
        Model *m = copy_model(f->arena, f->model);
        m->settings.parallel.recompute = k ? RECOMPUTE_FULL : RECOMPUTE_NONE;
        Diag *quiet = diag_new(f->arena);
        m->profile = f->profile;
        recompute(m, f->gpus, quiet);
        if (differentiate(m->graph, &m->settings, quiet) &&
            (!f->profile || profile_take(f->profile, m, quiet)))
            f->variant[k] = m;
    }
}

/* Micro-batches that divide the batch, from that of 2 for each device down to 64, and that asked
 * for. */
static int find_microbatches(const Model *m, int devices, int64_t out[MOST_MICROBATCHES])
{
    const int64_t batch = m->settings.train.batch;
    int n = 0;
    for (int64_t each = 2; each <= 64 && n < MOST_MICROBATCHES; each *= 2) {
        int64_t size = batch / (each * devices);
        size = size < 1 ? 1 : size;
        while (batch % size != 0)
            size--;
        bool known = false;
        for (int i = 0; i < n; i++)
            known = known || out[i] == size;
        if (!known)
            out[n++] = size;
    }
    const int64_t own = m->settings.parallel.microbatch;
    bool known = own == 0 || n == MOST_MICROBATCHES;
    for (int i = 0; i < n; i++)
        known = known || out[i] == own;
    if (!known)
        out[n++] = own;
    return n;
}

/* --------------------------------------------------------------------- first round */

/* Sums over the units of each device. */
typedef struct {
    double forward, inward, weights, fixed, kept, late;
} Load;

static bool fits(const Model *m, double bytes)
{
    return m->settings.devices.memory == 0 || bytes <= (double)m->settings.devices.memory;
}

/* Micro-batches, in chunks of its own, that device d of p holds. */
static double holds(ScheduleKind kind, int d, int p, int m, int v)
{
    const double most[SCHEDULE_KINDS] = {[SCHEDULE_1F1B] = p - d,
                                         [SCHEDULE_GPIPE] = m,
                                         [SCHEDULE_INTERLEAVED] = p + (2.0 * (p - d) - 1) / v,
                                         [SCHEDULE_ZERO_BUBBLE] = p,
                                         [SCHEDULE_ZB_H2] = 2 * p - 1,
                                         [SCHEDULE_ZB_V] = p,
                                         [SCHEDULE_SEARCHED] = p - d};
    return most[kind] < m ? most[kind] : m;
}

static void guess(const Finder *f, const Outline *o, const int *piece, SearchRow *row)
{
    const int p = o->ndevices, v = o->npieces / p, m = o->microbatches;
    Load *load = ARENA_ARRAY(f->arena, Load, p);
    Load all = {0};
    double most = 0;
    for (int u = 0; u < o->units.n; u++) {
        const Unit *x = &o->units.at[u];
        Load *l = &load[o->device_of[piece[u]]];
        l->forward += x->forward, l->inward += x->inward, l->weights += x->weights;
        l->fixed += (double)x->fixed, l->kept += (double)x->kept, l->late += (double)x->late;
        all.forward += x->forward, all.inward += x->inward, all.weights += x->weights;
    }
    row->bytes = 0;
    const bool split = schedule_splits(row->schedule);
    for (int d = 0; d < p; d++) {
        const Load *l = &load[d];
        const double work = l->forward + l->inward + l->weights;
        const double held = holds(row->schedule, d, p, m, v);
        const double bytes = l->fixed + l->kept * held +
                             (split && row->schedule != SCHEDULE_SEARCHED ? l->late * held : 0);
        most = work > most ? work : most;
        row->bytes = bytes > row->bytes ? bytes : row->bytes;
    }
    const double work = all.forward + all.inward + all.weights, others = work - most;
    const double ends[SCHEDULE_KINDS] = {[SCHEDULE_1F1B] = others,
                                         [SCHEDULE_GPIPE] = others,
                                         [SCHEDULE_INTERLEAVED] = others / v,
                                         [SCHEDULE_ZERO_BUBBLE] =
                                             others * (1 - 2 * all.weights / (work > 0 ? work : 1)),
                                         [SCHEDULE_ZB_H2] = 0,
                                         [SCHEDULE_ZB_V] = 0,
                                         [SCHEDULE_SEARCHED] = 0};
    row->seconds = m * most + (ends[row->schedule] > 0 ? ends[row->schedule] : 0);
}

static double runs_of(const Finder *f, const SearchRow *r)
{
    const double chunks = (double)r->devices * (r->chunks ? r->chunks : 1);
    return 3 * chunks * (double)(f->model->settings.train.batch / r->microbatch);
}

static void add(Finder *f, Outline *o, const int *piece, SearchRow row)
{
    row.devices = o->ndevices;
    row.microbatch = o->microbatch;
    if (row.schedule == SCHEDULE_SEARCHED && runs_of(f, &row) > MOST_RUNS_SEARCHED)
        return;
    guess(f, o, piece, &row);
    VEC_PUSH(f->arena, &f->all, (Candidate){row, o, f->all.n});
}

/* One outline serves all schedules of its micro-batch: only its shape changes. */
static void add_shapes(Finder *f, Outline *o, RecomputeKind recompute, bool placed)
{
    static const ScheduleKind plain[] = {SCHEDULE_1F1B, SCHEDULE_GPIPE, SCHEDULE_ZERO_BUBBLE,
                                         SCHEDULE_ZB_H2, SCHEDULE_SEARCHED};
    Parallel *p = &o->model->settings.parallel;
    int *piece = ARENA_ARRAY(f->arena, int, o->units.n + 1);
    p->schedule = SCHEDULE_1F1B;
    p->chunks = 0;
    outline_shape(o);
    split_evenly(o, piece);
    for (int k = 0; k < (o->ndevices > 1 ? 5 : 1); k++)
        add(f, o, piece, (SearchRow){.schedule = plain[k], .recompute = recompute});
    for (int v = 2; v <= 4 && !placed && o->ndevices > 1; v += 2) {
        if (o->units.n < v * o->ndevices)
            break;
        for (int k = 0; k < (v == 2 ? 2 : 1); k++) {
            p->schedule = k ? SCHEDULE_ZB_V : SCHEDULE_INTERLEAVED;
            p->chunks = v;
            outline_shape(o);
            split_evenly(o, piece);
            add(f, o, piece,
                (SearchRow){.schedule = p->schedule, .recompute = recompute, .chunks = v});
        }
    }
}

static bool is_placed(const Graph *g)
{
    for (OpId o = 0; o < g->ops.n; o++)
        if (g->ops.at[o].device != NONE)
            return true;
    return false;
}

static void find_all(Finder *f)
{
    const bool placed = is_placed(f->model->graph);
    const int count = f->model->settings.devices.count;
    for (int k = 0; k < 2; k++)
        for (int p = count > 0 ? count : 1; p > 0 && f->variant[k]; p = placed ? 0 : p / 2) {
            int64_t sizes[MOST_MICROBATCHES];
            int n = find_microbatches(f->model, placed && !count ? 4 : p, sizes);
            if (f->profile)
                sizes[0] = f->profile->microbatch, n = 1;
            for (int i = 0; i < n; i++) {
                Model *m = arena_copy(f->arena, f->variant[k], sizeof *m);
                m->settings.parallel.microbatch = sizes[i];
                m->settings.devices.count = placed ? count : p;
                add_shapes(f, outline_make(f->arena, m), k ? RECOMPUTE_FULL : RECOMPUTE_NONE,
                           placed);
            }
        }
}

/* -------------------------------------------------------------------- other rounds */

static const Model *model_of(const void *finder)
{
    return ((const Finder *)finder)->model;
}

static int by_worth(const void *a, const void *b, void *finder)
{
    const Candidate *x = a, *y = b;
    const Model *m = model_of(finder);
    const bool p = fits(m, x->row.bytes), q = fits(m, y->row.bytes);
    if (p != q)
        return p ? -1 : 1;
    const double i = p ? x->row.seconds : x->row.bytes, j = p ? y->row.seconds : y->row.bytes;
    if (i < j * (1 - 1e-9) || j < i * (1 - 1e-9))
        return i < j ? -1 : 1;
    if (x->row.bytes < y->row.bytes || x->row.bytes > y->row.bytes)
        return x->row.bytes < y->row.bytes ? -1 : 1;
    return x->number - y->number;
}

static void sort(Finder *f, int n)
{
    if (n > 1)
        qsort_r(f->all.at, (size_t)n, sizeof *f->all.at, by_worth, f);
}

void search_take(Model *m, const SearchRow *row)
{
    m->settings.parallel.schedule = row->schedule;
    m->settings.parallel.recompute = row->recompute;
    m->settings.parallel.chunks = row->chunks;
    m->settings.parallel.microbatch = row->microbatch;
    if (m->settings.devices.count)
        m->settings.devices.count = row->devices;
}

static void look(Finder *f, Candidate *c)
{
    Outline *o = c->outline;
    search_take(o->model, &c->row);
    if (c->row.schedule == SCHEDULE_SEARCHED)
        o->model->settings.parallel.schedule = SCHEDULE_ZB_H2; /* what it comes near to */
    outline_shape(o);
    int *piece = ARENA_ARRAY(f->arena, int, o->units.n + 1);
    split_evenly(o, piece);
    const Outlook seen = outline_look(o, piece);
    const double bytes = c->row.bytes;
    c->row.seconds = seen.seconds;
    c->row.bytes = c->row.schedule == SCHEDULE_SEARCHED ? bytes : seen.bytes;
}

static bool plan(Finder *f, Candidate *c)
{
    const bool choose = c->row.recompute == RECOMPUTE_AUTO;
    Model *m =
        copy_model(f->arena, choose ? f->model : f->variant[c->row.recompute == RECOMPUTE_FULL]);
    search_take(m, &c->row);
    if (choose)
        recompute(m, f->gpus, diag_new(f->arena));
    if (choose && m->graph->remade.all + m->graph->remade.cheap == 0)
        return false; /* another row is the same */
    Attempt made = {0};
    if ((choose && !differentiate(m->graph, &m->settings, diag_new(f->arena))) ||
        !attempt(m, split(m, f->gpus), f->gpus, &made))
        return false;
    c->row.seconds = made.seconds;
    c->row.bytes = (double)made.bytes;
    c->row.bubble = made.bubble;
    c->row.most_chunks = made.chunks;
    c->row.planned = true;
    return true;
}

/* Of plans that are as fast, but for one part in two hundred, the one that needs least memory. */
static void put_leanest_first(Finder *f, int n)
{
    int best = 0;
    for (int i = 1; i < n; i++) {
        const SearchRow *x = &f->all.at[i].row, *y = &f->all.at[best].row;
        if (x->seconds <= f->all.at[0].row.seconds * 1.005 && x->bytes < y->bytes)
            best = i;
    }
    const Candidate c = n ? f->all.at[best] : (Candidate){0};
    for (int i = best; i > 0; i--)
        f->all.at[i] = f->all.at[i - 1];
    if (n)
        f->all.at[0] = c;
}

/* Where all layers run again so that the plan fits, some may do. */
static int choose_layers(Finder *f, int planned)
{
    const int n = planned;
    for (int i = 0, tried = 0; i < n && tried < MOST_CHOSEN && !f->profile; i++) {
        Candidate c = f->all.at[i];
        if (c.row.recompute != RECOMPUTE_FULL ||
            PLANS_TO_CHOOSE * runs_of(f, &c.row) > MOST_RUNS_PLANNED)
            continue;
        tried++;
        c.row.recompute = RECOMPUTE_AUTO;
        if (!plan(f, &c) || !fits(f->model, c.row.bytes))
            continue;
        c.number = f->all.n;
        VEC_PUSH(f->arena, &f->all, f->all.at[planned]);
        f->all.at[planned++] = c;
    }
    return planned;
}

/* Rounds two and three; how many whole plans stand in front. */
static int look_closer(Finder *f)
{
    double spent = 0;
    int n = 0, planned = 0;
    sort(f, f->all.n);
    for (; n < f->all.n && n < MOST_LOOKED; n++) {
        spent += runs_of(f, &f->all.at[n].row);
        if (n > 3 && spent > MOST_RUNS_LOOKED)
            break;
        look(f, &f->all.at[n]);
    }
    sort(f, n);
    spent = 0;
    for (int i = 0; i < n && planned < MOST_PLANNED; i++) {
        const double orders = f->all.at[i].row.schedule == SCHEDULE_SEARCHED ? 4 : 1;
        spent += orders * runs_of(f, &f->all.at[i].row);
        if (planned > 0 && spent > MOST_RUNS_PLANNED)
            break;
        Candidate c = f->all.at[i];
        if (!plan(f, &c) || !fits(f->model, c.row.bytes))
            continue;
        f->all.at[i] = f->all.at[planned];
        f->all.at[planned++] = c;
    }
    planned = choose_layers(f, planned);
    sort(f, planned);
    put_leanest_first(f, planned);
    return planned;
}

bool search_settings(Model *m, const Profile *profile, bool gpus, SearchResult *out)
{
    Finder f = {.arena = arena_new(), .model = m, .profile = profile, .gpus = gpus};
    make_variants(&f);
    find_all(&f);
    out->tried = f.all.n;
    out->planned = look_closer(&f);
    for (int i = 0; i < out->planned; i++)
        VEC_PUSH(m->graph->arena, &out->rows, f.all.at[i].row);
    arena_free(f.arena);
    if (out->rows.n)
        search_take(m, &out->rows.at[0]);
    return out->rows.n > 0;
}

/* ------------------------------------------------------------------ what would fit */

/* One change of the settings; false where it is none. */
static bool change(Model *m, int which, const char **name, Arena *a)
{
    Parallel *p = &m->settings.parallel;
    const int count = m->settings.devices.count;
    const ScheduleKind kinds[] = {SCHEDULE_1F1B, SCHEDULE_ZERO_BUBBLE, SCHEDULE_ZB_V};
    if (which == 0) {
        *name = "recompute = auto";
        const bool fresh = p->recompute == RECOMPUTE_NONE;
        p->recompute = RECOMPUTE_AUTO;
        return fresh;
    }
    if (which == 1) {
        const int64_t now = p->microbatch;
        int64_t size = now / 2;
        while (size > 1 && m->settings.train.batch % size != 0)
            size--;
        p->microbatch = size;
        *name = arena_printf(a, "microbatch = %lld", (long long)size);
        return size >= 1;
    }
    if (which < 5) {
        const bool fresh = p->schedule != kinds[which - 2] && !p->file;
        p->schedule = kinds[which - 2];
        p->chunks = 0;
        *name = arena_printf(a, "schedule = %s", schedule_kind_name(p->schedule));
        return fresh && (p->schedule != SCHEDULE_ZB_V || !is_placed(m->graph));
    }
    if (which == 5) {
        *name = "offload = activations";
        const bool fresh = p->offload == OFFLOAD_NONE && m->settings.devices.host_link > 0;
        p->offload = OFFLOAD_ACTIVATIONS;
        return fresh;
    }
    m->settings.devices.count = 2 * count;
    *name = arena_printf(a, "%d devices", 2 * count);
    return count > 0 && 2 * count <= MOST_DEVICES && !is_placed(m->graph) && !p->file;
}

const char *search_fits(Arena *a, const Model *m, bool gpus)
{
    Text out = {.arena = a};
    for (int which = 0; which < 7; which++) {
        Arena *scratch = arena_new();
        Model *c = copy_model(scratch, m);
        Attempt made = {0};
        const char *name = NULL;
        if (!change(c, which, &name, a))
            name = NULL;
        else
            recompute(c, gpus, diag_new(scratch));
        if (name && differentiate(c->graph, &c->settings, diag_new(scratch)) &&
            attempt(c, split(c, gpus), gpus, &made) && fits(m, (double)made.bytes))
            text_printf(&out, "%s%s (%s)", out.n ? ", " : "", name, show_bytes(a, made.bytes));
        arena_free(scratch);
    }
    return out.n ? out.at : NULL;
}

Model *search_before(const Model *m)
{
    return copy_model(m->graph->arena, m);
}
