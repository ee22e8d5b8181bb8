/* schedule.c - in which order every device runs the phases of its chunks.
 *
 * In:  chunks and what they need from each other; how many micro-batches there are.
 * Out: for every device its runs, in order. Transfers come later (communicate.c).
 *
 * GPipe (Huang et al. 2019): all forward, then all backward.
 *
 *     gpu[0]  F0 F1 F2 F3 ·  ·  ·  ·  ·  B0 B1 B2 B3
 *     gpu[1]  ·  F0 F1 F2 F3 B0 B1 B2 B3
 *
 * 1F1B (PipeDream-Flush, Narayanan et al. 2021): stage s of p warms up with p - 1 - s
 * forwards, then takes turns, so that at most p - s micro-batches are in flight.
 *
 *     gpu[0]  F0 F1 ·  B0 F2 B1 F3 B2 ·  B3
 *     gpu[1]  ·  F0 B0 F1 B1 F2 B2 F3 B3
 *
 * Zero bubble (ZB-H1 of Qi et al. 2024): the backward pass in two parts, of which only I, the
 * gradients of activations, is waited for by other stages. Stage s does W, the gradients of
 * weights, s micro-batches later, so that every stage holds as many as the first one does
 * under 1F1B, and the first ones fill with W what were bubbles at the end.
 *
 *     gpu[0]  F0 F1 ·  I0 W0 F2 I1 W1 F3 I2 W2 I3 W3
 *     gpu[1]  ·  F0 I0 F1 I1 W0 F2 I2 W1 F3 I3 W2 W3
 *
 * Interleaved (Narayanan et al. 2021): v chunks on each device, chunk c on device c mod p.
 * Micro-batches go through in groups of p, each group through all chunks of a device before the
 * next; warm-up takes 2 (p - 1 - s) + (v - 1) p forwards. A bubble is a chunk long, not a stage.
 *
 *     gpu[0]  0F0 0F1 2F0 2F1 ·   0F2 2B0 ...                p = v = 2
 *     gpu[1]  ·   1F0 1F1 3F0 3B0 3F1 3B1 ...
 *
 * Where devices hold several chunks otherwise the order comes from a greedy simulation with F = I =
 * W = 1 and B = 2: each device takes what can start first, a backward before a forward, and W when
 * nothing else can. The passes of one kind of a chunk run in the order of the micro-batches
 * under every schedule: that is the order in which gradients are summed.
 */
#include <string.h>

#include "schedule.h"

static bool one_chunk_each(const Program *p)
{
    for (int d = 0; d < p->devices.n; d++)
        if (p->devices.at[d].chunks.n != 1)
            return false;
    return true;
}

void schedule_push(const Program *p, SlotList *list, RunKind run, int chunk, int m)
{
    VEC_PUSH(p->graph->arena, list, (Slot){run, chunk, m});
}

void schedule_fill(const Program *p, SlotList *list, int chunk, int warm, int late)
{
    const int M = p->microbatches, back = back_of(&p->chunks.at[chunk]);
    const bool split = is_split(&p->chunks.at[chunk]);
    if (warm > M || back == NONE)
        warm = M;
    for (int m = 0; m < warm; m++)
        schedule_push(p, list, RUN_F, chunk, m);
    for (int m = 0; m < M && back != NONE; m++) {
        schedule_push(p, list, (RunKind)back, chunk, m);
        if (split && m >= late)
            schedule_push(p, list, RUN_W, chunk, m - late);
        if (warm + m < M)
            schedule_push(p, list, RUN_F, chunk, warm + m);
    }
    for (int m = M - late > 0 ? M - late : 0; m < M && split; m++)
        schedule_push(p, list, RUN_W, chunk, m);
}

typedef struct {
    const Program *p;
    ScheduleKind kind;
    bool eval;
    int M;
    double *finish[2];             /* F, backward: [chunk * M + m] */
    int *next_f, *next_b, *next_w; /* [chunks] */
    double *free_at;               /* [devices] */
} Greedy;

static double duration(RunKind k)
{
    return k == RUN_B ? 2 : k == RUN_E ? 0 : 1;
}

/* When the run could start for its operands' sake; -1: not known yet. */
static double ready_at(const Greedy *s, RunKind run, int chunk, int m)
{
    const Chunk *c = &s->p->chunks.at[chunk];
    double at = 0;
    const bool back = run_goes_back(run);
    const double *finish = s->finish[back];
    int nmetrics = s->eval ? c->after[RUN_E].n : 0; /* E follows F at once */
    for (int i = 0; i < c->after[run].n + nmetrics; i++) {
        int k = i - c->after[run].n;
        int other = k < 0 ? c->after[run].at[i] : c->after[RUN_E].at[k];
        bool done = (back ? s->next_b[other] : s->next_f[other]) > m;
        if (!done)
            return -1;
        double t = finish[other * s->M + m];
        at = t > at ? t : at;
    }
    if (back) {
        if (s->next_f[chunk] <= m)
            return -1;
        double t = s->finish[0][chunk * s->M + m];
        at = t > at ? t : at;
    }
    return at;
}

/* The device's forwards are all done. */
static bool forwards_done(const Greedy *s, const Device *d)
{
    for (int i = 0; i < d->chunks.n; i++)
        if (s->next_f[d->chunks.at[i]] < s->M)
            return false;
    return true;
}

/* May the chunk start its next forward, or are enough under way? */
static bool forward_allowed(const Greedy *s, int chunk, bool trains)
{
    const int room = s->p->chunks.n - chunk;
    if (!trains || s->kind == SCHEDULE_GPIPE)
        return true;
    return s->next_f[chunk] - s->next_b[chunk] < room &&
           (!is_split(&s->p->chunks.at[chunk]) ||
            s->next_f[chunk] - s->next_w[chunk] < s->p->chunks.n);
}

/* The run that the device would start next; false when nothing can be said yet. */
static bool candidate(const Greedy *s, int device, Slot *best, double *start)
{
    const Device *d = &s->p->devices.at[device];
    bool found = false, drain = forwards_done(s, d);
    for (int i = d->chunks.n - 1; i >= 0; i--) { /* deeper chunks first */
        const int c = d->chunks.at[i], back = back_of(&s->p->chunks.at[c]);
        const bool trains = back != NONE && !s->eval;
        for (int k = 0; k < 2; k++) {
            const RunKind run = k == 0 && trains ? (RunKind)back : RUN_F;
            const int m = run == RUN_F ? s->next_f[c] : s->next_b[c];
            if (m >= s->M || (k == 0 && !trains))
                continue;
            if (run == RUN_F ? !forward_allowed(s, c, trains) : s->kind == SCHEDULE_GPIPE && !drain)
                continue;
            double at = ready_at(s, run, c, m);
            if (at < 0)
                continue;
            at = at < s->free_at[device] ? s->free_at[device] : at;
            if (!found || at < *start || (at <= *start && run != RUN_F && best->run == RUN_F)) {
                found = true;
                *start = at;
                *best = (Slot){run, c, m};
            }
        }
    }
    for (int i = 0; i < d->chunks.n && !s->eval; i++) { /* W, where all else would wait */
        const int c = d->chunks.at[i];
        if (!is_split(&s->p->chunks.at[c]) || s->next_w[c] >= s->next_b[c])
            continue;
        double at = ready_at(s, RUN_W, c, s->next_w[c]);
        at = at >= 0 && at < s->free_at[device] ? s->free_at[device] : at;
        if (at >= 0 && (!found || at < *start)) {
            found = true;
            *start = at;
            *best = (Slot){RUN_W, c, s->next_w[c]};
        }
    }
    return found;
}

/* What a device would do next; known until a run that it may wait for is placed. */
typedef struct {
    Slot slot;
    double start;
    bool known, found;
} Next;

typedef VEC(int) IntList;

/* For each chunk the devices that wait for its runs. */
static IntList *find_waiting(const Program *p)
{
    IntList *waiting = ARENA_ARRAY(p->graph->arena, IntList, p->chunks.n);
    for (int c = 0; c < p->chunks.n; c++) {
        const Chunk *chunk = &p->chunks.at[c];
        VEC_PUSH(p->graph->arena, &waiting[c], chunk->device);
        for (int k = 0; k < RUN_KINDS; k++)
            for (int i = 0; i < chunk->after[k].n; i++)
                VEC_PUSH(p->graph->arena, &waiting[chunk->after[k].at[i]], chunk->device);
    }
    return waiting;
}

/* The device that can start first. */
static int first_device(const Greedy *s, Next *next)
{
    int device = NONE;
    for (int d = 0; d < s->p->devices.n; d++) {
        Next *x = &next[d];
        if (!x->known)
            x->found = candidate(s, d, &x->slot, &x->start);
        x->known = true;
        if (x->found && (device == NONE || x->start < next[device].start))
            device = d;
    }
    return device;
}

static void greedy(const Program *p, ScheduleKind kind, bool eval, SlotList *lists)
{
    Arena *a = p->graph->arena;
    int C = p->chunks.n, M = p->microbatches, left = 0;
    Greedy s = {.p = p,
                .kind = kind,
                .eval = eval,
                .M = M,
                .finish = {ARENA_ARRAY(a, double, (C * M)), ARENA_ARRAY(a, double, (C * M))},
                .next_f = ARENA_ARRAY(a, int, C),
                .next_b = ARENA_ARRAY(a, int, C),
                .next_w = ARENA_ARRAY(a, int, C),
                .free_at = ARENA_ARRAY(a, double, p->devices.n)};
    Next *next = ARENA_ARRAY(a, Next, p->devices.n);
    const IntList *waiting = find_waiting(p);
    for (int c = 0; c < C; c++) {
        const Chunk *k = &p->chunks.at[c];
        left += M * (back_of(k) == NONE || eval ? 1 : is_split(k) ? 3 : 2);
    }
    for (; left > 0; left--) {
        int device = first_device(&s, next);
        if (device == NONE)
            return; /* cannot be: the graph has no cycles */
        Slot best = next[device].slot;
        double end = next[device].start + duration(best.run);
        s.free_at[device] = end;
        if (best.run == RUN_W && is_split(&p->chunks.at[best.chunk])) {
            s.next_w[best.chunk]++;
        } else {
            const bool back = run_goes_back(best.run);
            s.finish[back][best.chunk * M + best.m] = end;
            *(back ? &s.next_b[best.chunk] : &s.next_f[best.chunk]) += 1;
        }
        for (int i = 0; i < waiting[best.chunk].n; i++)
            next[waiting[best.chunk].at[i]].known = false;
        schedule_push(p, &lists[device], best.run, best.chunk, best.m);
        if (eval && p->chunks.at[best.chunk].has[RUN_E])
            schedule_push(p, &lists[device], RUN_E, best.chunk, best.m);
    }
}

/* Chunk c is on device c modulo their number, several times over, and micro-batches come in whole
 * groups of as many as there are devices. */
static bool is_looped(const Program *p)
{
    const int D = p->devices.n, C = p->chunks.n;
    if (C == D || C % D != 0 || p->microbatches % D != 0)
        return false;
    for (int c = 0; c < C; c++)
        if (p->chunks.at[c].device != c % D || back_of(&p->chunks.at[c]) == NONE)
            return false;
    return true;
}

/* Micro-batches go through a device's chunks in groups of D; n counts a device's runs of a kind. */
static Slot looped_run(const Program *p, int device, int n, bool back)
{
    const int D = p->devices.n, turns = p->chunks.n / D;
    const int within = n % (D * turns), turn = within / D;
    const int chunk = (back ? turns - 1 - turn : turn) * D + device;
    return (Slot){back ? RUN_B : RUN_F, chunk, n / (D * turns) * D + within % D};
}

/* The backward pass as a whole, whether or not it is in two. */
static void back_push(const Program *p, SlotList *list, Slot s)
{
    const Chunk *c = &p->chunks.at[s.chunk];
    schedule_push(p, list, (RunKind)back_of(c), s.chunk, s.m);
    if (is_split(c))
        schedule_push(p, list, RUN_W, s.chunk, s.m);
}

static void interleave(const Program *p, SlotList *lists)
{
    const int D = p->devices.n, turns = p->chunks.n / D, all = p->microbatches * turns;
    for (int d = 0; d < D; d++) {
        const int ahead = (D - 1 - d) * 2 + (turns - 1) * D, warm = ahead < all ? ahead : all;
        for (int n = 0; n < warm; n++)
            VEC_PUSH(p->graph->arena, &lists[d], looped_run(p, d, n, false));
        for (int n = 0; n < all; n++) {
            if (warm + n < all)
                VEC_PUSH(p->graph->arena, &lists[d], looped_run(p, d, warm + n, false));
            back_push(p, &lists[d], looped_run(p, d, n, true));
        }
    }
}

int schedule_waits_for(const Program *p, const bool *done, Slot s)
{
    const Chunk *c = &p->chunks.at[s.chunk];
    const int back = run_goes_back(s.run), M = p->microbatches;
    for (int i = 0; i < c->after[s.run].n; i++)
        if (!done[(2 * c->after[s.run].at[i] + back) * M + s.m])
            return c->after[s.run].at[i];
    return back && !done[2 * s.chunk * M + s.m] ? s.chunk : NONE;
}

const bool *schedule_walk(const Program *p, const SlotList *lists, int *at)
{
    Arena *a = p->graph->arena;
    const int D = p->devices.n, M = p->microbatches;
    bool *done = ARENA_ARRAY(a, bool, 2 * p->chunks.n * M), *queued = ARENA_ARRAY(a, bool, D);
    int *queue = ARENA_ARRAY(a, int, D), first = 0, waiting = D; /* a ring of devices to look at */
    const IntList *wake = find_waiting(p);
    for (int d = 0; d < D; d++)
        queue[d] = d, queued[d] = true, at[d] = 0;
    for (; waiting > 0; waiting--) {
        const int d = queue[first];
        first = (first + 1) % D;
        queued[d] = false;
        for (; at[d] < lists[d].n; at[d]++) {
            const Slot s = lists[d].at[at[d]];
            if (schedule_waits_for(p, done, s) != NONE)
                break;
            done[(2 * s.chunk + run_goes_back(s.run)) * M + s.m] = true;
            for (int i = 0; i < wake[s.chunk].n; i++) {
                const int other = wake[s.chunk].at[i];
                if (other == d || queued[other])
                    continue;
                queued[other] = true;
                queue[(first + waiting++ - 1) % D] = other;
            }
        }
    }
    return done;
}

bool schedule_ends(const Program *p, const SlotList *lists)
{
    int *at = ARENA_ARRAY(p->graph->arena, int, p->devices.n);
    bool all = true;
    schedule_walk(p, lists, at);
    for (int d = 0; d < p->devices.n; d++)
        all = all && at[d] == lists[d].n;
    return all;
}

SlotList *schedule_new(const Program *p, bool eval)
{
    Arena *a = p->graph->arena;
    SlotList *lists = ARENA_ARRAY(a, SlotList, p->devices.n);
    for (int d = 0; d < p->devices.n; d++) {
        int kinds = 0;
        for (int i = 0; i < p->devices.at[d].chunks.n; i++) {
            const Chunk *c = &p->chunks.at[p->devices.at[d].chunks.at[i]];
            kinds += eval ? 1 + c->has[RUN_E] : back_of(c) == NONE ? 1 : 2 + is_split(c);
        }
        VEC_RESERVE(a, &lists[d], kinds * p->microbatches);
    }
    return lists;
}

/* In training: warm-up, and how late W is, of a device that has one chunk. */
static void fill_one(const Program *p, ScheduleKind kind, int chunk, SlotList *list)
{
    const int after = p->chunks.n - chunk; /* itself included */
    if (kind == SCHEDULE_GPIPE)
        schedule_fill(p, list, chunk, p->microbatches, 0);
    else if (kind == SCHEDULE_ZB_H2)
        schedule_fill(p, list, chunk, 2 * after - 1, 2 * chunk);
    else
        schedule_fill(p, list, chunk, after, chunk);
}

SlotList *schedule(const Program *p, ScheduleKind kind, bool eval)
{
    SlotList *lists = schedule_new(p, eval);
    const bool looped = !eval && kind == SCHEDULE_INTERLEAVED && is_looped(p);
    const bool v = !eval && kind == SCHEDULE_ZB_V && schedule_is_v(p);
    if (looped)
        interleave(p, lists);
    if (v)
        schedule_v(p, lists);
    if (looped || v) {
        if (schedule_ends(p, lists))
            return lists;
        lists = schedule_new(p, eval);
    }
    if (!one_chunk_each(p)) {
        greedy(p, kind, eval, lists);
        return lists;
    }
    for (int c = 0; c < p->chunks.n; c++) {
        SlotList *list = &lists[p->chunks.at[c].device];
        if (!eval) {
            fill_one(p, kind, c, list);
            continue;
        }
        for (int m = 0; m < p->microbatches; m++) {
            schedule_push(p, list, RUN_F, c, m);
            if (p->chunks.at[c].has[RUN_E])
                schedule_push(p, list, RUN_E, c, m);
        }
    }
    return lists;
}
