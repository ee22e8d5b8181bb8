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
 * Where devices hold several chunks the order comes from a greedy simulation with F = 1 and
 * B = 2: each device takes what can start first, a backward before a forward. Backward
 * passes of a chunk run in the order of the micro-batches under every schedule: that is the
 * order in which gradients are summed.
 */
#include <string.h>

#include "program.h"

static bool one_chunk_each(const Program *p)
{
    for (int d = 0; d < p->devices.n; d++)
        if (p->devices.at[d].chunks.n != 1)
            return false;
    return true;
}

static void push(const Program *p, SlotList *list, RunKind run, int chunk, int m)
{
    VEC_PUSH(p->graph->arena, list, (Slot){run, chunk, m});
}

/* Warm-up, steady, drain of one chunk; warm-up of all micro-batches is GPipe. */
static void fill_device(const Program *p, SlotList *list, int chunk, int warm)
{
    int M = p->microbatches;
    bool backward = p->chunks.at[chunk].has[RUN_B];
    if (warm > M || !backward)
        warm = M;
    for (int m = 0; m < warm; m++)
        push(p, list, RUN_F, chunk, m);
    for (int m = warm; m < M; m++) {
        push(p, list, RUN_F, chunk, m);
        push(p, list, RUN_B, chunk, m - warm);
    }
    for (int m = M - warm; m < M && backward; m++)
        push(p, list, RUN_B, chunk, m);
}

typedef struct {
    const Program *p;
    ScheduleKind kind;
    bool eval;
    int M;
    double *finish[2];    /* F, B: [chunk * M + m] */
    int *next_f, *next_b; /* [chunks] */
    double *free_at;      /* [devices] */
} Greedy;

static double duration(RunKind k)
{
    return k == RUN_B ? 2 : k == RUN_F ? 1 : 0;
}

/* When the run could start for its operands' sake; -1: not known yet. */
static double ready_at(const Greedy *s, RunKind run, int chunk, int m)
{
    const Chunk *c = &s->p->chunks.at[chunk];
    double at = 0;
    const double *finish = s->finish[run == RUN_B];
    int nmetrics = s->eval ? c->after[RUN_E].n : 0; /* E follows F at once */
    for (int i = 0; i < c->after[run].n + nmetrics; i++) {
        int k = i - c->after[run].n;
        int other = k < 0 ? c->after[run].at[i] : c->after[RUN_E].at[k];
        bool done = run == RUN_B ? s->next_b[other] > m : s->next_f[other] > m;
        if (!done)
            return -1;
        double t = finish[other * s->M + m];
        at = t > at ? t : at;
    }
    if (run == RUN_B) {
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

/* The run that the device would start next; false when nothing can be said yet. */
static bool candidate(const Greedy *s, int device, Slot *best, double *start)
{
    const Device *d = &s->p->devices.at[device];
    bool found = false, drain = forwards_done(s, d);
    for (int i = d->chunks.n - 1; i >= 0; i--) { /* deeper chunks first */
        int c = d->chunks.at[i];
        bool backward = s->p->chunks.at[c].has[RUN_B] && !s->eval;
        for (int k = 0; k < 2; k++) {
            RunKind run = k == 0 ? RUN_B : RUN_F;
            int m = run == RUN_B ? s->next_b[c] : s->next_f[c];
            if (m >= s->M || (run == RUN_B && !backward))
                continue;
            if (run == RUN_B && s->kind == SCHEDULE_GPIPE && !drain)
                continue;
            if (run == RUN_F && backward && s->kind != SCHEDULE_GPIPE &&
                s->next_f[c] - s->next_b[c] >= s->p->chunks.n - c)
                continue;
            double at = ready_at(s, run, c, m);
            if (at < 0)
                continue;
            at = at < s->free_at[device] ? s->free_at[device] : at;
            if (!found || at < *start || (at <= *start && run == RUN_B && best->run == RUN_F)) {
                found = true;
                *start = at;
                *best = (Slot){run, c, m};
            }
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
                .free_at = ARENA_ARRAY(a, double, p->devices.n)};
    Next *next = ARENA_ARRAY(a, Next, p->devices.n);
    const IntList *waiting = find_waiting(p);
    for (int c = 0; c < C; c++)
        left += M * (p->chunks.at[c].has[RUN_B] && !eval ? 2 : 1);
    for (; left > 0; left--) {
        int device = first_device(&s, next);
        if (device == NONE)
            return; /* cannot be: the graph has no cycles */
        Slot best = next[device].slot;
        double end = next[device].start + duration(best.run);
        s.finish[best.run == RUN_B][best.chunk * M + best.m] = end;
        s.free_at[device] = end;
        *(best.run == RUN_B ? &s.next_b[best.chunk] : &s.next_f[best.chunk]) += 1;
        for (int i = 0; i < waiting[best.chunk].n; i++)
            next[waiting[best.chunk].at[i]].known = false;
        push(p, &lists[device], best.run, best.chunk, best.m);
        if (eval && p->chunks.at[best.chunk].has[RUN_E])
            push(p, &lists[device], RUN_E, best.chunk, best.m);
    }
}

SlotList *schedule(const Program *p, ScheduleKind kind, bool eval)
{
    SlotList *lists = ARENA_ARRAY(p->graph->arena, SlotList, p->devices.n);
    if (!one_chunk_each(p)) {
        greedy(p, kind, eval, lists);
        return lists;
    }
    for (int c = 0; c < p->chunks.n; c++) {
        SlotList *list = &lists[p->chunks.at[c].device];
        if (!eval) {
            int warm = kind == SCHEDULE_GPIPE ? p->microbatches : p->chunks.n - 1 - c;
            fill_device(p, list, c, warm);
            continue;
        }
        for (int m = 0; m < p->microbatches; m++) {
            push(p, list, RUN_F, c, m);
            if (p->chunks.at[c].has[RUN_E])
                push(p, list, RUN_E, c, m);
        }
    }
    return lists;
}
