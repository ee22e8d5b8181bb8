/* split.c - where a model is cut into pieces for its devices.
 *
 * In:  a Graph with its backward pass; annotations; how many devices there are.
 * Out: for every forward operation the piece it is in. Only a pipeline that the model does not
 *      place may have several pieces for each device.
 *
 * Units (outline.h) with annotation stay where they were put. A gap between two of them, or an
 * end, is cut into contiguous parts for the pieces from the one before to the one after.
 * No piece stays empty that could have something.
 *
 *     units      a a . . . . . . b b        a, b annotated with devices 0 and 2
 *     piece      0 0 0 0 1 1 1 2 2 2
 *
 * The ways to cut are tried in order, depth first, as branch and bound: a way is left as soon as
 * what it has so far takes longer than the best plan (the work of a device for all micro-batches,
 * and what comes before and after it in a pipeline), or needs more memory. A look (outline.h) tells
 * the time of a way, but for what only lowering shows; so the most promising ones are made
 * into Programs, until the next one's look is no better than the best Program. Where that
 * ends before the bounds on the search do, no way of cutting is better.
 *
 * The first plan, which is the one that is improved where there are too many ways to try all, has
 * the smallest bottleneck (split_even.c).
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "attempt.h"
#include "cost.h"
#include "split.h"

/* Bounds on the search, in steps that do not depend on the machine. */
enum {
    MOST_CHOICES = 20000,    /* units times pieces; above, only one cut at a time is moved */
    MOST_PLACES = 1000000,   /* units placed in the search */
    MOST_LOOKED = 3000000,   /* runs walked in looks */
    MOST_ATTEMPTED = 400000, /* operations lowered and actions ordered in attempts */
    MOST_UNFIT = 24, /* plans that do not fit, one after the other, where each is much work */
    MOST_WAYS = 300  /* remembered */
};

typedef struct {
    int *piece; /* [units] */
    Outlook look;
    double depth, crossing; /* sums over the cuts: small is neat */
} Way;

typedef struct {
    const Outline *o;
    Arena *arena;
    SplitGoal goal;
    bool gpus, chain;  /* chain: one run of units on each device, in the order of the data */
    int first_trained; /* unit with a backward pass */
    SplitGaps cut;
    int *piece;    /* [units]: of the way under way */
    double *load;  /* [devices]: seconds of a micro-batch */
    double *space; /* [devices]: fixed bytes */
    double limit;  /* a way that needs more is no better than one that is known */
    double slack;  /* bytes that plans were seen to need besides what their looks said */
    Way ways[MOST_WAYS];
    int nways;
    double places, looked, most_looked;
    const int *known; /* [units]: the best of those to begin with, and what it is; NULL */
    Attempt known_is;
    VEC(Way) front; /* no other way is both faster and leaner, by their looks; the fastest first */
    bool stopped;   /* some way was not looked at */
} Search;

/* --------------------------------------------------------------------------- ways */

static int compare(double a, double b)
{
    return a > b * SPLIT_EQUAL ? 1 : b > a * SPLIT_EQUAL ? -1 : 0;
}

static double first_key(const Search *s, const Way *w)
{
    return s->goal == SPLIT_TIME ? w->look.seconds : w->look.bytes;
}

/* Bytes as looks tell them. */
static bool fits(const Search *s, double bytes)
{
    const int64_t memory = s->o->model->settings.devices.memory;
    return memory == 0 || bytes + s->slack <= (double)memory;
}

/* What is not kept for micro-batches, which is known without a plan. */
static bool has_room(const Search *s, int device)
{
    const int64_t memory = s->o->model->settings.devices.memory;
    return memory == 0 || s->space[device] <= (double)memory;
}

static bool plan_fits(const Search *s, const Attempt *a)
{
    const int64_t memory = s->o->model->settings.devices.memory;
    return memory == 0 || a->bytes <= memory;
}

/* The better way first: that fits, by the goal, then by the other one, then the neater one. */
static int compare_ways(const Search *s, const Way *a, const Way *b)
{
    int c = fits(s, b->look.bytes) - fits(s, a->look.bytes);
    if (!c && !fits(s, a->look.bytes))
        c = compare(a->look.bytes, b->look.bytes);
    if (!c)
        c = compare(first_key(s, a), first_key(s, b));
    if (!c && s->goal == SPLIT_MEMORY)
        c = compare(a->look.seconds, b->look.seconds);
    if (!c)
        c = compare(a->depth, b->depth);
    if (!c)
        c = compare(a->crossing, b->crossing);
    return c;
}

static void measure_cuts(const Search *s, Way *w, const int *piece)
{
    for (int u = 1; u < s->o->units.n; u++)
        if (piece[u] != piece[u - 1]) {
            w->depth += s->o->units.at[u].depth;
            w->crossing += s->o->units.at[u].crossing;
        }
}

/* Keeps the ways that no other one beats in both time and memory. */
static void note_front(Search *s, const Way *w, const int *piece)
{
    int at = 0, n = 0;
    while (at < s->front.n && s->front.at[at].look.seconds <= w->look.seconds)
        at++;
    if (at > 0 && s->front.at[at - 1].look.bytes <= w->look.bytes)
        return;
    while (at + n < s->front.n && s->front.at[at + n].look.bytes >= w->look.bytes)
        n++;
    Way copy = *w;
    if (n > 0) {
        copy.piece = s->front.at[at].piece; /* of one that goes */
        memmove(&s->front.at[at + 1], &s->front.at[at + n],
                sizeof copy * (size_t)(s->front.n - at - n));
        s->front.n -= n - 1;
    } else {
        copy.piece = ARENA_ARRAY(s->arena, int, s->o->units.n + 1);
        VEC_PUSH(s->arena, &s->front, copy);
        memmove(&s->front.at[at + 1], &s->front.at[at],
                sizeof copy * (size_t)(s->front.n - 1 - at));
    }
    memcpy(copy.piece, piece, sizeof *piece * (size_t)s->o->units.n);
    s->front.at[at] = copy;
}

/* Remembers a way among the best; false when it is known, or worse than all of a full list. */
static bool consider(Search *s, const int *piece)
{
    const size_t bytes = sizeof *piece * (size_t)s->o->units.n;
    Way w = {.look = outline_look(s->o, piece)};
    s->looked += 3.0 * s->o->microbatches * s->o->npieces + s->o->units.n;
    for (int i = 0; i < s->nways; i++)
        if (compare(s->ways[i].look.seconds, w.look.seconds) == 0 &&
            memcmp(s->ways[i].piece, piece, bytes) == 0)
            return false;
    measure_cuts(s, &w, piece);
    if (s->o->model->settings.devices.memory > 0)
        note_front(s, &w, piece);
    int at = s->nways;
    while (at > 0 && compare_ways(s, &w, &s->ways[at - 1]) < 0)
        at--;
    if (at == MOST_WAYS)
        return false;
    if (s->nways < MOST_WAYS)
        w.piece = ARENA_ARRAY(s->arena, int, s->o->units.n + 1), s->nways++;
    else
        w.piece = s->ways[MOST_WAYS - 1].piece;
    memcpy(w.piece, piece, bytes);
    memmove(&s->ways[at + 1], &s->ways[at], sizeof w * (size_t)(s->nways - 1 - at));
    s->ways[at] = w;
    return true;
}

/* ------------------------------------------------------------------------- search */

/* Seconds or bytes that any way has which begins like this one, up to `unit`. In a chain whose
 * first device has a backward pass, that device begins before all others and ends after them. */
static double bound(const Search *s, int unit, double before_f, double before_b)
{
    const Outline *o = s->o;
    const int d = o->device_of[s->piece[unit]];
    if (s->goal == SPLIT_MEMORY)
        return s->space[d];
    const bool around = s->chain && s->first_trained <= unit && s->piece[s->first_trained] == 0 &&
                        !schedule_splits(o->model->settings.parallel.schedule);
    return o->microbatches * s->load[d] + (around ? before_f + before_b : 0);
}

/* Places units from `unit` on. before_*: seconds of the units before the piece under way. */
static void search(Search *s, int unit, double before_f, double before_b)
{
    const Outline *o = s->o;
    if (s->places > MOST_PLACES || s->looked > s->most_looked) {
        s->stopped = true;
        return;
    }
    if (unit == o->units.n) {
        consider(s, s->piece);
        return;
    }
    const int gap = s->cut.gap_of[unit];
    const SplitGap *g = gap == NONE ? NULL : &s->cut.gaps.at[gap];
    const bool *wanted = g ? &s->cut.wanted[gap * o->npieces] : NULL;
    const bool begins = g && unit == g->from;
    const int lo = !g ? o->units.at[unit].device : begins ? g->lo : s->piece[unit - 1];
    const int hi = g ? g->hi : lo;
    for (int k = lo; k <= hi; k++) {
        int missing = 0;
        for (int j = k + 1; j <= hi && g; j++)
            missing += wanted[j];
        if (k > lo && (begins || k > lo + 1) && wanted && wanted[k - 1])
            break; /* one before stays empty */
        if (g && missing > g->to - unit - 1)
            continue;
        const int d = o->device_of[k];
        const Unit *u = &o->units.at[unit];
        double f = before_f, b = before_b;
        if (unit > 0 && s->piece[unit - 1] != k)
            for (int v = unit - 1; v >= 0 && s->piece[v] == s->piece[unit - 1]; v--) {
                f += o->units.at[v].forward;
                b += o->units.at[v].inward + o->units.at[v].weights;
            }
        s->piece[unit] = k;
        s->places++;
        s->load[d] += unit_work(u);
        s->space[d] += (double)u->fixed;
        if (bound(s, unit, f, b) <= s->limit * SPLIT_EQUAL && has_room(s, d))
            search(s, unit + 1, f, b);
        s->load[d] -= unit_work(u);
        s->space[d] -= (double)u->fixed;
    }
    s->piece[unit] = NONE;
}

/* Moves one cut at a time, as long as that makes the plan better. */
static void improve(Search *s)
{
    const int n = s->o->units.n;
    int *piece = ARENA_ARRAY(s->arena, int, n + 1);
    for (bool better = true; better && s->looked < 2 * s->most_looked;) {
        better = false;
        const int *best = s->ways[0].piece;
        for (int u = 1; u < n && s->looked < 2 * s->most_looked; u++) {
            if (best[u] == best[u - 1])
                continue;
            for (int side = 0; side < 2; side++) {
                const int moved = side ? u : u - 1;
                if (s->cut.gap_of[moved] == NONE)
                    continue;
                memcpy(piece, best, sizeof *piece * (size_t)n);
                piece[moved] = best[side ? u - 1 : u];
                const SplitGap *g = &s->cut.gaps.at[s->cut.gap_of[moved]];
                const int other = side ? u + 1 : u - 2; /* the piece keeps something */
                if (piece[moved] < g->lo || piece[moved] > g->hi || other < 0 || other >= n ||
                    best[other] != best[moved])
                    continue;
                consider(s, piece);
            }
        }
        better = s->ways[0].piece != best;
    }
}

/* --------------------------------------------------------------------------- pass */

/* What lowering a way takes, in steps. */
static double effort(const Search *s)
{
    const Outline *o = s->o;
    return 20.0 * o->model->graph->ops.n +
           6.0 * o->microbatches * (o->npieces + 2.0 * (o->npieces - 1));
}

static Split *split_of(const Search *s, Arena *a, const int *piece)
{
    const Outline *o = s->o;
    Split *out = ARENA_NEW(a, Split);
    *out = (Split){.nforward = o->nforward,
                   .ndevices = o->ndevices,
                   .npieces = o->npieces,
                   .piece = ARENA_ARRAY(a, int, o->nforward + 1),
                   .device_of = o->device_of,
                   .metric_only = o->metric_only,
                   .seconds = o->seconds,
                   .effort = effort(s)};
    for (int u = 0; u < o->units.n; u++)
        for (OpId i = o->units.at[u].first; i < o->units.at[u].end; i++)
            out->piece[i] = piece[u];
    return out;
}

static Split *with_look(const Search *s, Split *out)
{
    int *piece = ARENA_ARRAY(s->arena, int, s->o->units.n + 1);
    for (int u = 0; u < s->o->units.n; u++)
        piece[u] = out->piece[s->o->units.at[u].first];
    const Outlook look = outline_look(s->o, piece);
    out->look_seconds = look.seconds;
    out->look_bytes = look.bytes;
    return out;
}

/* The better one is less: that fits, then by the goal, then by the other one. */
static int compare_attempts(const Model *m, const Attempt *a, const Attempt *b)
{
    const int64_t memory = m->settings.devices.memory;
    const bool x = memory == 0 || a->bytes <= memory, y = memory == 0 || b->bytes <= memory;
    const int bytes = a->bytes < b->bytes ? -1 : a->bytes > b->bytes;
    const int seconds = compare(a->seconds, b->seconds);
    if (x != y)
        return x ? -1 : 1;
    if (!x || m->settings.parallel.split == SPLIT_MEMORY)
        return bytes ? bytes : seconds;
    return seconds ? seconds : bytes;
}

/* Plans one of the ways; true where it is the best so far. */
static bool try_way(Search *s, Arena *a, const Way *w, Attempt *best, bool any)
{
    Attempt now = {0};
    if (!attempt(s->o->model, split_of(s, a, w->piece), s->gpus, &now))
        return false;
    const double more = (double)now.bytes - w->look.bytes;
    if (!plan_fits(s, &now) && more > s->slack)
        s->slack = more;
    if (any && compare_attempts(s->o->model, &now, best) >= 0)
        return false;
    *best = now;
    return true;
}

/* Where no plan fits: of the front the fastest whose plan does, as far as looks, and what plans
 * were seen to need besides, tell. */
static const int *choose_lean(Search *s, Arena *a, const int *chosen, Attempt *best)
{
    const double each = effort(s);
    double spent = 0;
    for (int i = 0, tried = 0; i < s->front.n; i++) {
        const Way *w = &s->front.at[i];
        if (!fits(s, w->look.bytes) && i + 1 < s->front.n)
            continue;
        if ((spent += each) > MOST_ATTEMPTED ||
            (tried++ >= MOST_UNFIT && spent > MOST_ATTEMPTED / 4))
            break;
        if (try_way(s, a, w, best, chosen))
            chosen = w->piece;
        if (plan_fits(s, best))
            break;
    }
    return chosen;
}

/* The best of the ways that are remembered, by what they come to. */
static const int *choose(Search *s, Arena *a)
{
    const double each = effort(s);
    /* where the backward pass is in two, fusing may move work from one part to the other */
    const double slack = schedule_splits(s->o->model->settings.parallel.schedule) ? 1.1 : 1;
    const double memory = (double)s->o->model->settings.devices.memory;
    double spent = 0;
    Attempt best = s->known_is;
    const int *chosen = s->known;
    for (int i = 0; i < s->nways; i++) {
        const Way *w = &s->ways[i];
        const bool found = chosen && plan_fits(s, &best);
        if (found && s->goal == SPLIT_TIME && compare(w->look.seconds, best.seconds * slack) >= 0) {
            if (fits(s, s->ways[s->nways - 1].look.bytes))
                break;
            continue; /* of those behind, looks may take too much memory for needed */
        }
        if (found && !fits(s, w->look.bytes) && w->look.bytes > 1.25 * memory)
            continue;
        if ((spent += each) > MOST_ATTEMPTED ||
            (i >= MOST_UNFIT && spent > MOST_ATTEMPTED / 4 && !plan_fits(s, &best)))
            break;
        if (try_way(s, a, w, &best, chosen))
            chosen = w->piece;
    }
    if (chosen && !plan_fits(s, &best))
        chosen = choose_lean(s, a, chosen, &best);
    return chosen ? chosen : s->ways[0].piece;
}

/* A way to begin with, that others have to beat; true where its plan fits. */
static bool try_first(Search *s, const int *piece, int64_t *of_device)
{
    Attempt now = {.of_device = of_device};
    consider(s, piece);
    if (effort(s) >= MOST_ATTEMPTED ||
        !attempt(s->o->model, split_of(s, s->arena, piece), s->gpus, &now))
        return false;
    if (!s->known || compare_attempts(s->o->model, &now, &s->known_is) < 0) {
        s->known = arena_copy(s->arena, piece, sizeof *piece * (size_t)s->o->units.n);
        s->known_is = now;
    }
    if (plan_fits(s, &now))
        s->limit = s->goal == SPLIT_TIME ? now.seconds : (double)now.bytes;
    return plan_fits(s, &now);
}

/* Where the way with the smallest bottleneck has no room: with the smallest for which there is, as
 * looks tell it and plans show what they leave out. */
static void try_room(Search *s, const int *first, const int64_t *of_first)
{
    enum { ROUNDS = 24 };
    const Outline *o = s->o;
    const int p = o->ndevices, n = o->units.n;
    int64_t *of_device = ARENA_ARRAY(s->arena, int64_t, p);
    SplitRoom r = {.memory = (double)o->model->settings.devices.memory,
                   .held = ARENA_ARRAY(s->arena, double, p),
                   .late = ARENA_ARRAY(s->arena, double, p),
                   .slack = ARENA_ARRAY(s->arena, double, p)};
    int *piece = arena_copy(s->arena, first, sizeof *first * (size_t)n);
    const OutlineHeld held = outline_held(o, first, s->arena);
    for (int u = 0; u < n; u++) {
        r.held[first[u]] = held.kept[u];
        r.late[first[u]] = held.late[u];
    }
    memcpy(of_device, of_first, sizeof *of_device * (size_t)p);
    for (int i = 0; i < ROUNDS; i++) {
        double *shown = ARENA_ARRAY(s->arena, double, p);
        for (int u = 0; u < n; u++)
            shown[piece[u]] += split_bytes(o, &r, u, piece[u]);
        for (int u = 1; u < n; u++)
            if (piece[u] != piece[u - 1]) {
                shown[piece[u - 1]] += split_edge(o, u);
                shown[piece[u]] += split_edge(o, u);
            }
        /* at first what this plan shows, which others may not need; in the end the most of all */
        for (int d = 0; d < p; d++) {
            const double now = (double)of_device[d] - shown[d];
            r.slack[d] = i < ROUNDS / 2 || now > r.slack[d] ? now : r.slack[d];
        }
        for (int k = 0; k < ROUNDS && !split_within(o, &r, piece); k++)
            r.memory *= 1.05; /* none has: what comes near */
        if (try_first(s, piece, of_device))
            return;
    }
}

static Split *split_for(Model *m, bool gpus)
{
    Arena *a = m->graph->arena;
    Outline *o = outline_make(a, m);
    Search *s = ARENA_NEW(a, Search);
    *s = (Search){.o = o,
                  .arena = a,
                  .goal = m->settings.parallel.split,
                  .gpus = gpus,
                  .chain = o->npieces == o->ndevices,
                  .piece = ARENA_ARRAY(a, int, o->units.n + 1),
                  .cut = split_gaps(o, m->settings.parallel.split),
                  .load = ARENA_ARRAY(a, double, o->ndevices),
                  .space = ARENA_ARRAY(a, double, o->ndevices),
                  .limit = INFINITY,
                  .most_looked = MOST_LOOKED,
                  .slack = gpus ? GPU_KERNEL_SCRATCH + GPU_LIBRARY_WORKSPACE : 0};
    if (s->cut.gaps.n == 0 ||
        (s->cut.gaps.n == 1 && s->cut.gaps.at[0].lo == s->cut.gaps.at[0].hi)) {
        split_gaps_evenly(&s->cut, s->piece);
        return with_look(s, split_of(s, a, s->piece)); /* nothing to choose */
    }
    for (int u = 0; u < o->units.n; u++)
        s->chain = s->chain && o->units.at[u].device == NONE;
    while (s->first_trained < o->units.n && !o->units.at[s->first_trained].has_inward &&
           !o->units.at[s->first_trained].has_weights)
        s->first_trained++;
    split_gaps_evenly(&s->cut, s->piece);
    int *first = arena_copy(a, s->piece, sizeof *first * (size_t)o->units.n);
    int64_t *of_device = ARENA_ARRAY(a, int64_t, o->ndevices);
    if (!try_first(s, first, of_device) && m->settings.devices.memory > 0) {
        if (s->chain && effort(s) < MOST_ATTEMPTED)
            try_room(s, first, of_device);
        /* little of the search is cut off, so it must be shorter */
        s->most_looked = isfinite(s->limit) ? MOST_LOOKED : MOST_LOOKED / 100;
    }
    if ((double)o->units.n * o->npieces < MOST_CHOICES)
        search(s, 0, 0, 0);
    else
        s->stopped = true;
    if (s->stopped)
        improve(s);
    return with_look(s, split_of(s, a, choose(s, a)));
}

/* The plan of a split under one schedule; false where there is none, or making it is too much. */
static bool attempt_as(Model *m, const Split *s, ScheduleKind kind, bool gpus, Attempt *out)
{
    const ScheduleKind own = m->settings.parallel.schedule;
    m->settings.parallel.schedule = kind;
    const bool made = s->effort < MOST_ATTEMPTED && attempt(m, s, gpus, out);
    m->settings.parallel.schedule = own;
    return made;
}

/* For an order that is searched: of the splits for the named ones, among which it is. An order of
 * whole backward passes may need less memory, as nothing waits for W; where the best one is
 * such, the model has that schedule from here on. */
static Split *split_for_any(Model *m, bool gpus)
{
    Parallel *p = &m->settings.parallel;
    ScheduleKind found = SCHEDULE_SEARCHED;
    Split *best = NULL;
    Attempt least = {0};
    for (int k = 0; k < SCHEDULE_SEARCHED; k++) {
        if (k == SCHEDULE_ZB_V && p->chunks && p->chunks != 2)
            continue;
        p->schedule = (ScheduleKind)k;
        Split *s = split_for(m, gpus);
        p->schedule = SCHEDULE_SEARCHED;
        Attempt now = {.seconds = s->look_seconds, .bytes = (int64_t)s->look_bytes};
        if ((s->effort >= MOST_ATTEMPTED || attempt_as(m, s, SCHEDULE_SEARCHED, gpus, &now)) &&
            (!best || compare_attempts(m, &now, &least) < 0)) {
            best = s;
            least = now;
            found = SCHEDULE_SEARCHED;
        }
        if (!schedule_splits((ScheduleKind)k) && attempt_as(m, s, (ScheduleKind)k, gpus, &now) &&
            (!best || compare_attempts(m, &now, &least) < 0)) {
            best = s;
            least = now;
            found = (ScheduleKind)k;
        }
    }
    p->schedule = found;
    p->searched = true;
    return best;
}

Split *split(Model *m, bool gpus)
{
    const Parallel *p = &m->settings.parallel;
    return p->schedule == SCHEDULE_SEARCHED && !p->file ? split_for_any(m, gpus)
                                                        : split_for(m, gpus);
}
