/* schedule_search.c - an order of the runs for the times at hand.
 *
 * In:  chunks with the seconds of their F, I and W, links, the memory of the devices.
 * Out: of many orders the one whose step is shortest and that fits.
 *
 * After Qi et al. 2024 ("Zero Bubble Pipeline Parallelism", section 4), whose heuristic goes
 * through the timeline and decides between F, I and W by what would idle and what memory allows.
 * Here that is a simulation with real times: a device takes the backward run or the forward run
 * that can begin first, and W where it would wait, or where it may not hold more. What varies is
 * how many micro-batches a device may hold, how long a wait must be to be filled with a W, and
 * whether a forward may make a backward run wait. The named schedules are among the orders, so none
 * of those that fit is better.
 */
#include <math.h>
#include <stdlib.h>

#include "order.h"
#include "schedule.h"
#include "schedule_file.h"
#include "timeline.h"

enum {
    MOST_RUNS = 1500000, /* in all simulations */
    MOST_TRIED = 600000  /* runs in all plans that are made */
};

/* ----------------------------------------------------------------------- one order */

typedef struct {
    int held;     /* micro-batches, over all chunks, that a device may hold */
    bool staged;  /* … less one for each stage before it, as 1F1B */
    double wait;  /* fills a wait that is at least so many W long */
    bool patient; /* no forward that would make a backward run wait */
} Rule;

typedef struct {
    const Program *p;
    Rule rule;
    const SchedulePacer *pacer;
    double *done;                  /* [(2 * chunk + back) * M + m]; -1: not yet */
    int *next_f, *next_b, *next_w; /* [chunks] */
    int *holds;                    /* [devices] */
    double *free_at;               /* [devices] */
} Sim;

typedef struct {
    Slot slot;
    double start; /* INFINITY: nothing */
} Choice;

static int most_held(const Sim *s, int device)
{
    const int n = s->rule.held - (s->rule.staged ? device : 0);
    return n < 1 ? 1 : n;
}

static double later(double a, double b)
{
    return a > b ? a : b;
}

/* The backward run that can begin first, of deeper chunks before others. */
static Choice find_back(const Sim *s, const Device *d, double now)
{
    Choice best = {.start = INFINITY};
    for (int i = d->chunks.n - 1; i >= 0; i--) {
        const int c = d->chunks.at[i], back = back_of(&s->p->chunks.at[c]);
        if (back == NONE || s->next_b[c] >= s->p->microbatches)
            continue;
        const Slot slot = {(RunKind)back, c, s->next_b[c]};
        const double at = schedule_may_begin(s->pacer, slot, s->done);
        if (at >= 0 && later(at, now) < best.start)
            best = (Choice){slot, later(at, now)};
    }
    return best;
}

static Choice find_forward(const Sim *s, const Device *d, int device, double now)
{
    Choice best = {.start = INFINITY};
    for (int i = d->chunks.n - 1; i >= 0; i--) {
        const int c = d->chunks.at[i];
        const bool trains = back_of(&s->p->chunks.at[c]) != NONE;
        /* the last chunk's forward frees what its device holds, so it may always begin */
        const bool turns = c == s->p->chunks.n - 1;
        if (s->next_f[c] >= s->p->microbatches ||
            (trains && !turns && s->holds[device] >= most_held(s, device)))
            continue;
        const Slot slot = {RUN_F, c, s->next_f[c]};
        const double at = schedule_may_begin(s->pacer, slot, s->done);
        if (at >= 0 && later(at, now) < best.start)
            best = (Choice){slot, later(at, now)};
    }
    return best;
}

/* The oldest W that is left, of deeper chunks first. */
static Choice find_weights(const Sim *s, const Device *d, double now)
{
    for (int i = d->chunks.n - 1; i >= 0; i--) {
        const int c = d->chunks.at[i];
        if (is_split(&s->p->chunks.at[c]) && s->next_w[c] < s->next_b[c])
            return (Choice){{RUN_W, c, s->next_w[c]}, now};
    }
    return (Choice){.start = INFINITY};
}

static Choice choose(const Sim *s, int device)
{
    const Device *d = &s->p->devices.at[device];
    const double now = s->free_at[device];
    const Choice back = find_back(s, d, now), forward = find_forward(s, d, device, now);
    const Choice weights = find_weights(s, d, now);
    Choice best = forward;
    if (back.start <= forward.start)
        best = back;
    else if (s->rule.patient && isfinite(back.start) &&
             forward.start + s->p->chunks.at[forward.slot.chunk].seconds[RUN_F] > back.start)
        best = back;
    if (isfinite(weights.start)) {
        const double wait = s->rule.wait * s->p->chunks.at[weights.slot.chunk].seconds[RUN_W];
        if (best.start - now > wait * (1 - 1e-9) && best.start > now)
            best = weights;
    }
    return best;
}

static void take(Sim *s, int device, Choice x, SlotList *lists)
{
    const Chunk *c = &s->p->chunks.at[x.slot.chunk];
    const int M = s->p->microbatches;
    const double end = x.start + c->seconds[x.slot.run];
    const bool late = x.slot.run == RUN_W && is_split(c);
    s->free_at[device] = end;
    if (x.slot.run == RUN_F)
        s->next_f[x.slot.chunk]++;
    else if (late)
        s->next_w[x.slot.chunk]++;
    else
        s->next_b[x.slot.chunk]++;
    if (!late)
        s->done[(2 * x.slot.chunk + run_goes_back(x.slot.run)) * M + x.slot.m] = end;
    if (back_of(c) != NONE)
        s->holds[device] += x.slot.run == RUN_F ? 1 : late || !is_split(c) ? -1 : 0;
    schedule_push(s->p, &lists[device], x.slot.run, x.slot.chunk, x.slot.m);
}

static int count_runs(const Program *p)
{
    int n = 0;
    for (int c = 0; c < p->chunks.n; c++)
        n += back_of(&p->chunks.at[c]) == NONE ? 1 : 2 + is_split(&p->chunks.at[c]);
    return n * p->microbatches;
}

static int sooner(const Choice *next, int a, int b)
{
    return next[b].start < next[a].start || (next[b].start <= next[a].start && b < a) ? b : a;
}

/* NULL: comes to no end, as too little may be held. */
static SlotList *simulate(Arena *a, const Program *p, const SchedulePacer *pacer, Rule rule)
{
    const int C = p->chunks.n, D = p->devices.n, n = 2 * C * p->microbatches;
    Sim s = {.p = p,
             .rule = rule,
             .pacer = pacer,
             .done = ARENA_ARRAY(a, double, n),
             .next_f = ARENA_ARRAY(a, int, C),
             .next_b = ARENA_ARRAY(a, int, C),
             .next_w = ARENA_ARRAY(a, int, C),
             .holds = ARENA_ARRAY(a, int, D),
             .free_at = ARENA_ARRAY(a, double, D)};
    Choice *next = ARENA_ARRAY(a, Choice, D);
    SlotList *lists = schedule_new(p, false);
    int leaves = 1, *first; /* [1 … 2 * leaves): a tree of the devices that can begin first */
    while (leaves < D)
        leaves *= 2;
    first = ARENA_ARRAY(a, int, 2 * leaves);
    for (int i = 0; i < n; i++)
        s.done[i] = -1;
    for (int d = leaves - 1; d >= 0; d--) {
        if (d < D)
            next[d] = choose(&s, d);
        first[leaves + d] = d < D ? d : 0;
    }
    for (int k = leaves - 1; k > 0; k--)
        first[k] = sooner(next, first[2 * k], first[2 * k + 1]);
    for (int left = count_runs(p); left > 0; left--) {
        const int device = first[1], chunk = next[device].slot.chunk;
        if (!isfinite(next[device].start))
            return NULL;
        take(&s, device, next[device], lists);
        for (int i = -1; i < pacer->readers[chunk].n; i++) {
            const int d = i < 0 ? device : pacer->readers[chunk].at[i];
            next[d] = choose(&s, d);
            for (int k = (leaves + d) / 2; k > 0; k /= 2)
                first[k] = sooner(next, first[2 * k], first[2 * k + 1]);
        }
    }
    return lists;
}

/* --------------------------------------------------------------------- the orders */

typedef struct {
    VEC(SlotList *) lists;
    int named; /* the first of them are those of the named schedules */
} Orders;

/* Each backward run as a whole: W directly behind its I. */
static SlotList *joined(const Program *p, int warm)
{
    SlotList *lists = schedule_new(p, false);
    for (int c = 0; c < p->chunks.n; c++)
        schedule_fill(p, &lists[p->chunks.at[c].device], c, warm ? warm : p->chunks.n - c, 0);
    return lists;
}

static Orders find_orders(const Program *p)
{
    Arena *a = p->graph->arena;
    const int D = p->devices.n, turns = (p->chunks.n + D - 1) / D, M = p->microbatches;
    Orders out = {0};
    static const ScheduleKind named[] = {SCHEDULE_ZERO_BUBBLE, SCHEDULE_ZB_H2, SCHEDULE_ZB_V,
                                         SCHEDULE_INTERLEAVED};
    for (size_t k = 0; k < sizeof named / sizeof *named; k++) {
        SlotList *lists = schedule(p, named[k], false);
        if (schedule_ends(p, lists))
            VEC_PUSH(a, &out.lists, lists);
    }
    if (p->chunks.n == D) {
        VEC_PUSH(a, &out.lists, joined(p, 0));
        VEC_PUSH(a, &out.lists, joined(p, M));
    }
    out.named = out.lists.n;
    const SchedulePacer *pacer = schedule_pacer(a, p, false);
    const int held[] = {D, D, D + (D - 1) / 2, 2 * D - 1, M};
    double runs = 0;
    for (int k = 0; k < 5; k++)
        for (int v = 0; v < 4; v++) {
            const Rule rule = {.held = held[k] * turns,
                               .staged = k == 0,
                               .wait = v % 2 ? 1 : 0,
                               .patient = v / 2 == 1};
            if ((runs += count_runs(p)) > MOST_RUNS)
                return out;
            Arena *scratch = arena_new();
            SlotList *lists = simulate(scratch, p, pacer, rule);
            arena_free(scratch);
            if (lists)
                VEC_PUSH(a, &out.lists, lists);
        }
    return out;
}

/* ------------------------------------------------------------------------- choice */

typedef struct {
    SlotList *lists;
    double period;
    int number;
    bool fits; /* as far as can be said before the plan is made */
} Ranked;

static int by_period(const void *a, const void *b)
{
    const Ranked *x = a, *y = b;
    if (x->fits != y->fits)
        return x->fits ? -1 : 1;
    if (x->period < y->period || x->period > y->period)
        return x->period < y->period ? -1 : 1;
    return x->number - y->number;
}

static double longest(const Program *p, const Pace *pace)
{
    double most = 0;
    for (int d = 0; d < p->devices.n; d++)
        most = pace->spans[d] > most ? pace->spans[d] : most;
    return most;
}

/* [buffers]: 1 where a forward run touches it, 2 where a backward run does. */
static const int *find_touching(const Program *p, const Device *d)
{
    int *by = ARENA_ARRAY(p->graph->arena, int, d->buffers.n + 1);
    for (int i = 0; i < d->chunks.n * RUN_KINDS; i++) {
        const RunKind kind = (RunKind)(i % RUN_KINDS);
        const Run *run = &p->chunks.at[d->chunks.at[i / RUN_KINDS]].run[kind];
        for (int n = 0; n < run->calls.n && kind != RUN_E; n++) {
            const Call *c = &run->calls.at[n];
            for (int r = 0; r < c->nin + c->nout; r++) {
                const Ref *ref = r < c->nin ? &c->in[r] : &c->out[r - c->nin];
                if (ref->buffer != NONE)
                    by[ref->buffer] |= kind == RUN_F ? 1 : 2;
                if (ref->entry != NONE)
                    by[ref->entry] |= kind == RUN_F ? 1 : 2;
            }
        }
    }
    return by;
}

/* What each device needs for one micro-batch, and for all. */
static bool may_fit(const Program *p, const Pace *pace)
{
    const int64_t memory = p->model->settings.devices.memory;
    for (int k = 0; k < p->devices.n && memory > 0; k++) {
        const Device *d = &p->devices.at[k];
        double fixed = 0, kept = 0, late = 0;
        int held = 1, waiting = 1;
        const int *by = find_touching(p, d);
        for (int b = 0; b < d->buffers.n; b++) {
            const Buffer *x = &d->buffers.at[b];
            if (x->class == BUFFER_KEPT)
                *(by[b] == 3   ? &kept
                  : by[b] == 2 ? &late
                               : &fixed) += (double)(x->stride * x->ring);
            else if (x->class != BUFFER_SCRATCH && x->class != BUFFER_HOST)
                fixed += (double)(x->stride * x->ring);
        }
        for (int i = 0; i < d->chunks.n; i++) {
            const int c = d->chunks.at[i];
            held = pace->held[c] > held ? pace->held[c] : held;
            waiting = pace->waiting[c] > waiting ? pace->waiting[c] : waiting;
        }
        if (fixed + kept * held + late * waiting > (double)memory)
            return false;
    }
    return true;
}

/* The plan that an order comes to, in an arena of its own but for the lists. */
static bool try_order(Program *p, const SlotList *train, const SlotList *eval, double *period,
                      int64_t *bytes)
{
    const int64_t memory = p->model->settings.devices.memory;
    Arena *a = arena_new();
    communicate(p, train, eval);
    if (p->transfer != TRANSFER_LINKS)
        order_waits(p);
    p->model->settings.devices.memory = 0; /* the limit is judged here */
    const bool placed = allocate(p, diag_new(a));
    p->model->settings.devices.memory = memory;
    const Timeline *t = timeline_make(a, p, TIMELINE_SECONDS);
    *period = t->complete ? t->period : INFINITY;
    *bytes = 0;
    for (int d = 0; d < p->devices.n; d++)
        *bytes = p->devices.at[d].bytes > *bytes ? p->devices.at[d].bytes : *bytes;
    arena_free(a);
    return placed;
}

static SlotList *search(Program *p, const SlotList *eval)
{
    const Orders orders = find_orders(p);
    const int64_t memory = p->model->settings.devices.memory;
    Ranked *sorted = ARENA_ARRAY(p->graph->arena, Ranked, orders.lists.n);
    for (int i = 0; i < orders.lists.n; i++) {
        Arena *scratch = arena_new();
        const Pace pace = schedule_pace(scratch, p, orders.lists.at[i]);
        sorted[i] = (Ranked){orders.lists.at[i], pace.complete ? longest(p, &pace) : INFINITY, i,
                             may_fit(p, &pace)};
        arena_free(scratch);
    }
    qsort(sorted, (size_t)orders.lists.n, sizeof *sorted, by_period);
    SlotList *best = sorted[0].lists;
    double shortest = INFINITY, runs = 0;
    int64_t least = INT64_MAX;
    for (int i = 0; i < orders.lists.n; i++) {
        double period;
        int64_t bytes;
        const bool found = isfinite(shortest) && (memory == 0 || least <= memory);
        if (found && sorted[i].fits && sorted[i].period >= shortest)
            continue;
        if ((runs += count_runs(p)) > MOST_TRIED && i > 0) {
            if (memory == 0 || found)
                break;
            if (!sorted[i].fits && sorted[i].number >= orders.named)
                continue;
        }
        if (!try_order(p, sorted[i].lists, eval, &period, &bytes))
            continue;
        const bool fits = memory == 0 || bytes <= memory;
        if (fits ? !found || period < shortest : !found && bytes < least) {
            best = sorted[i].lists;
            shortest = period;
            least = bytes;
        }
    }
    return best;
}

SlotList *schedule_train(Program *p, const SlotList *eval)
{
    const ScheduleKind kind = p->model->settings.parallel.schedule;
    if (p->model->settings.parallel.file)
        return schedule_file_runs(p->model->settings.parallel.file, p);
    return kind == SCHEDULE_SEARCHED ? search(p, eval) : schedule(p, kind, false);
}
