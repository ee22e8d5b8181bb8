/* exec_stall.c - no thread of the block can go on by itself.
 *
 * In: a block whose threads all wait or have ended. Out: lanes that ask which lanes are active
 * get their answer, threads that spin look again; where there are none of these, the threads
 * wait for ever, and it is reported who waits where.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "exec.h"

static double seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Answers the lanes of a warp that ask for the active mask at the same place as `th`. */
static void mask_answer(ExecThread *th)
{
    Exec *e = th->exec;
    uint32_t first = th->simt.warp * 32, mask = 0;
    uint64_t place = th->value;
    for (uint32_t i = first; i < first + 32 && i < e->nthreads; i++) {
        if (e->threads[i].state == EXEC_MASK && e->threads[i].value == place)
            mask |= 1u << i % 32;
    }
    for (uint32_t lane = 32; lane > 0; lane--) {
        if (mask >> (lane - 1) & 1) {
            e->threads[first + lane - 1].result = mask;
            exec_ready(&e->threads[first + lane - 1]);
        }
    }
}

/* False: nobody asks. */
static bool masks_answer(Exec *e)
{
    bool any = false;
    for (uint32_t i = 0; i < e->nthreads; i++) {
        if (e->threads[i].state == EXEC_MASK) {
            mask_answer(&e->threads[i]);
            any = true;
        }
    }
    return any;
}

/* Lets threads that spin look again, unless nothing has been done for too long. */
static bool spinners_wake(Exec *e)
{
    bool any = false;
    for (uint32_t i = 0; i < e->nthreads; i++)
        any = any || e->threads[i].state == EXEC_SPIN;
    if (!any)
        return false;
    if (e->spinning_since == 0 || e->progress != e->spun_at) {
        e->spinning_since = seconds_now();
        e->spun_at = e->progress;
    } else if (seconds_now() - e->spinning_since > e->config->timeout) {
        return false;
    }
    for (uint32_t i = e->nthreads; i > 0; i--) {
        if (e->threads[i - 1].state == EXEC_SPIN)
            exec_ready(&e->threads[i - 1]);
    }
    return true;
}

/* ---------------------------------------------------------------------- reports */

typedef struct {
    uint32_t state, site, mask, n, lanes, warp, first;
} Waiters; /* threads that wait at one place */

enum { WAITERS_MAX = 6 };

static bool waits_with(const Waiters *w, const ExecThread *th)
{
    if (w->state != th->state)
        return false;
    if (th->state == EXEC_EXITED)
        return true;
    return w->site == th->site && (th->state != EXEC_WARP || w->mask == th->mask);
}

/* Groups the threads from ... to - 1; returns how many groups there are. */
static uint32_t waiters_gather(const Exec *e, uint32_t from, uint32_t to, Waiters *of)
{
    uint32_t n = 0;
    for (uint32_t t = from; t < to; t++) {
        const ExecThread *th = &e->threads[t];
        uint32_t i = 0;
        while (i < n && !waits_with(&of[i], th))
            i++;
        if (i == WAITERS_MAX)
            continue;
        if (i == n)
            of[n++] = (Waiters){.state = th->state, .site = th->site, .mask = th->mask, .first = t};
        of[i].n++;
        of[i].lanes |= 1u << t % 32;
    }
    return n;
}

static void waiters_describe(const Exec *e, const Waiters *w, char *out, size_t size)
{
    char where[512], first[64];
    const char *instruction = "";
    if (w->site < e->table->nsites && e->table->sites[w->site].instruction)
        instruction = e->table->sites[w->site].instruction;
    exec_where(e, w->site, where, sizeof where);
    exec_thread_name(e, w->first, first, sizeof first);
    const char *plural = w->n == 1 ? "" : "s";
    switch (w->state) {
    case EXEC_EXITED:
        snprintf(out, size, "\n%u thread%s %s ended, the first is thread %s", w->n, plural,
                 w->n == 1 ? "has" : "have", first);
        return;
    case EXEC_WARP:
        snprintf(out, size, "\nlanes 0x%08x at %s %s with mask 0x%08x, the first is thread %s",
                 w->lanes, where, instruction, w->mask, first);
        return;
    default:
        snprintf(out, size, "\n%u thread%s at %s %s, the first is thread %s", w->n, plural, where,
                 instruction, first);
        return;
    }
}

/* The thread whose waiting makes the headline: one that waits for lanes of its warp, for
 * that is what the other threads wait for in turn; else one at a barrier. */
static const ExecThread *culprit(const Exec *e, SimFinding *finding)
{
    static const struct {
        ExecState state;
        SimFinding finding;
    } order[] = {{EXEC_WARP, SIM_WARP}, {EXEC_BARRIER, SIM_BARRIER}, {EXEC_SPIN, SIM_DEADLOCK}};
    for (size_t k = 0; k < sizeof order / sizeof *order; k++) {
        for (uint32_t i = 0; i < e->nthreads; i++) {
            if (e->threads[i].state == (uint32_t)order[k].state) {
                *finding = order[k].finding;
                return &e->threads[i];
            }
        }
    }
    return NULL;
}

static void stall_report(Exec *e)
{
    SimFinding finding;
    Waiters waiters[WAITERS_MAX];
    char where[512], place[128], stream[128], text[4096] = "";
    const ExecThread *th = culprit(e, &finding);
    if (!th)
        return;
    bool warp = finding == SIM_WARP;
    uint32_t from = warp ? th->simt.warp * 32 : 0;
    uint32_t to = warp && from + 32 < e->nthreads ? from + 32 : e->nthreads;
    uint32_t n = waiters_gather(e, from, to, waiters);
    for (uint32_t i = 0; i < n; i++) {
        size_t used = strlen(text);
        waiters_describe(e, &waiters[i], text + used, sizeof text - used);
    }
    const char *what = "not all threads of the block arrive at the barrier";
    if (warp)
        what = "not all lanes of the mask arrive";
    else if (finding == SIM_DEADLOCK)
        what = "threads spin, and nothing can end it (blocks of a grid run one after another)";
    sim_report(finding, "%s: %s, %s, %s%s", exec_where(e, th->site, where, sizeof where), what,
               exec_place(e, th, place, sizeof place), exec_stream(e, stream, sizeof stream), text);
}

bool exec_stall(Exec *e)
{
    if (masks_answer(e) || spinners_wake(e))
        return true;
    stall_report(e);
    return false;
}
