/* schedule_pace.c - how long an order of runs takes at best.
 *
 * In:  chunks with the seconds of their runs, links with their bytes, lists of runs.
 * Out: when it ends. A device takes its runs in order; a run begins when its device is free and
 *      what it reads has come; a message begins when its run has ended, and messages from one chunk
 *      to another follow each other. */
#include "cost.h"
#include "schedule.h"

/* Seconds between the end of a run of one chunk and what reads its results in another. */
static void find_delays(Arena *a, SchedulePacer *w, bool instant)
{
    const Program *p = w->p;
    w->delay = ARENA_ARRAY(a, double *, (p->chunks.n * RUN_KINDS));
    for (int c = 0; c < p->chunks.n; c++)
        for (int k = 0; k < RUN_KINDS; k++)
            w->delay[c * RUN_KINDS + k] = ARENA_ARRAY(a, double, p->chunks.at[c].after[k].n);
    for (int l = 0; l < p->links.n && !instant; l++) {
        const Link *link = &p->links.at[l];
        if (link->kind != LINK_ACTIVATION && link->kind != LINK_GRADIENT)
            continue;
        const bool back = link->kind == LINK_GRADIENT;
        const double seconds =
            cost_transfer_seconds(&p->model->settings.devices, p->devices.at[link->from].number,
                                  p->devices.at[link->to].number, (double)link->bytes);
        const Chunk *to = &p->chunks.at[link->to_chunk];
        for (int k = 0; k < RUN_KINDS; k++)
            for (int i = 0; run_goes_back((RunKind)k) == back && i < to->after[k].n; i++)
                if (to->after[k].at[i] == link->from_chunk)
                    w->delay[link->to_chunk * RUN_KINDS + k][i] += seconds;
    }
}

SchedulePacer *schedule_pacer(Arena *a, const Program *p, bool instant)
{
    SchedulePacer *w = ARENA_NEW(a, SchedulePacer);
    w->p = p;
    w->readers = arena_alloc(a, sizeof *w->readers * (size_t)(p->chunks.n + 1));
    find_delays(a, w, instant);
    for (int c = 0; c < p->chunks.n; c++)
        for (int k = 0; k < RUN_KINDS; k++)
            for (int i = 0; i < p->chunks.at[c].after[k].n; i++)
                VEC_PUSH(a, &w->readers[p->chunks.at[c].after[k].at[i]], p->chunks.at[c].device);
    return w;
}

double schedule_may_begin(const SchedulePacer *w, Slot s, const double *done)
{
    const int back = run_goes_back(s.run), M = w->p->microbatches;
    const Chunk *c = &w->p->chunks.at[s.chunk];
    double at = back ? done[2 * s.chunk * M + s.m] : 0;
    if (s.run == RUN_W && c->has[RUN_I] && at >= 0)
        at = done[(2 * s.chunk + 1) * M + s.m];
    for (int i = 0; i < c->after[s.run].n && at >= 0; i++) {
        const double x = done[(2 * c->after[s.run].at[i] + back) * M + s.m];
        const double y = x < 0 ? -1 : x + w->delay[s.chunk * RUN_KINDS + (int)s.run][i];
        at = y < 0 ? -1 : y > at ? y : at;
    }
    return at;
}

Pace schedule_pace(Arena *a, const Program *p, const SlotList *lists)
{
    const int M = p->microbatches, D = p->devices.n, n = 2 * p->chunks.n * M;
    const SchedulePacer *w = schedule_pacer(a, p, false);
    double *done = ARENA_ARRAY(a, double, n);
    Pace out = {.spans = ARENA_ARRAY(a, double, D),
                .held = ARENA_ARRAY(a, int, p->chunks.n),
                .waiting = ARENA_ARRAY(a, int, p->chunks.n)};
    int *late = ARENA_ARRAY(a, int, p->chunks.n);
    double *first = ARENA_ARRAY(a, double, D), *ends = ARENA_ARRAY(a, double, D);
    int *next = ARENA_ARRAY(a, int, D), *now = ARENA_ARRAY(a, int, p->chunks.n);
    for (int i = 0; i < n; i++)
        done[i] = -1;
    for (bool moved = true; moved;) {
        moved = false;
        for (int d = 0; d < D; d++)
            for (; next[d] < lists[d].n; next[d]++, moved = true) {
                const Slot s = lists[d].at[next[d]];
                const Chunk *c = &p->chunks.at[s.chunk];
                const double at = schedule_may_begin(w, s, done);
                if (at < 0)
                    break;
                if (next[d] == 0)
                    first[d] = at;
                ends[d] = (at > ends[d] ? at : ends[d]) + c->seconds[s.run];
                if (s.run != RUN_W || !c->has[RUN_I])
                    done[(2 * s.chunk + run_goes_back(s.run)) * M + s.m] = ends[d];
                now[s.chunk] += s.run == RUN_F;
                if (is_split(c))
                    late[s.chunk] += s.run == RUN_I ? 1 : s.run == RUN_W ? -1 : 0;
                if (late[s.chunk] > out.waiting[s.chunk])
                    out.waiting[s.chunk] = late[s.chunk];
                if (now[s.chunk] > out.held[s.chunk])
                    out.held[s.chunk] = now[s.chunk];
                now[s.chunk] -= run_goes_back(s.run) && (s.run != RUN_I || !c->has[RUN_W]);
            }
    }
    out.complete = true;
    for (int d = 0; d < D; d++) {
        out.complete = out.complete && next[d] == lists[d].n;
        out.spans[d] = ends[d] - first[d];
    }
    return out;
}
