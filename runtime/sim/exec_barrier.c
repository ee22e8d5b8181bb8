/* exec_barrier.c - barriers of a block: bar.sync and bar.red.
 *
 * In: threads that arrive at one of 16 barriers. Out: when as many as are wanted have
 * arrived all go on, each with what the barrier computed. __syncthreads() is the barrier 0 of
 * the whole block and has to be one place in the source for all of its threads; the compiler
 * may have copied that place, so lines are compared, not instructions.
 */
#include <string.h>

#include "exec.h"

static bool same_line(const Exec *e, uint32_t a, uint32_t b)
{
    const SimSite *sites = e->table->sites;
    if (a == b || a >= e->table->nsites || b >= e->table->nsites)
        return true;
    if (sites[a].line != sites[b].line)
        return false;
    return sites[a].file == sites[b].file ||
           (sites[a].file && sites[b].file && strcmp(sites[a].file, sites[b].file) == 0);
}

static void barrier_report(ExecThread *th, uint32_t site, const char *text)
{
    Exec *e = th->exec;
    char where[512], place[128], stream[128];
    if (!exec_seen(e, SIM_BARRIER, site, 0, 0))
        sim_report(SIM_BARRIER, "%s: %s, %s, %s", exec_where(e, site, where, sizeof where), text,
                   exec_place(e, th, place, sizeof place), exec_stream(e, stream, sizeof stream));
}

/* A second or later thread arrives: does it mean the same barrier? */
static void barrier_compare(ExecThread *th, const ExecBarrier *b, SimBar kind, uint32_t id,
                            uint32_t wanted, uint32_t site)
{
    Exec *e = th->exec;
    char first[512], text[768];
    const char *what = NULL;
    if (b->kind != (uint32_t)kind)
        what = "is reached by instructions of different kinds";
    else if (b->wanted != wanted)
        what = "is reached with different numbers of threads";
    else if (id == 0 && wanted == e->nthreads && !same_line(e, b->site, site))
        what = "of the whole block is reached at different places";
    if (!what)
        return;
    snprintf(text, sizeof text, "barrier %u %s, the other one: %s", id, what,
             exec_where(e, b->site, first, sizeof first));
    barrier_report(th, site, text);
}

static uint32_t barrier_result(const ExecBarrier *b)
{
    switch (b->kind) {
    case SIM_BAR_AND:
        return b->value == b->wanted;
    case SIM_BAR_OR:
        return b->value > 0;
    default:
        return b->value;
    }
}

/* What the threads at the barrier did before happened before what they do now. */
static void barrier_order(Exec *e, uint32_t id, bool all)
{
    static uint16_t threads[EXEC_THREADS];
    static uint32_t segments[EXEC_THREADS];
    uint32_t n = 0;
    if (all) {
        uint32_t first = shadow_block_barrier(&e->view, &e->shared_view);
        for (uint32_t i = 0; i < e->nthreads; i++)
            exec_segment(&e->threads[i], first + i / 32);
        return;
    }
    for (uint32_t i = 0; i < e->nthreads; i++) {
        ExecThread *th = &e->threads[i];
        if (th->state == EXEC_BARRIER && th->barrier == id) {
            threads[n] = (uint16_t)i;
            segments[n++] = slot_segment(th->me);
        }
    }
    exec_parts_note(e);
    shadow_part_barrier(threads, n, segments);
    for (uint32_t i = 0; i < n; i++)
        exec_segment(&e->threads[threads[i]], segments[i]);
}

static void barrier_release(ExecThread *last, uint32_t id)
{
    Exec *e = last->exec;
    ExecBarrier *b = &e->barriers[id];
    uint32_t result = barrier_result(b), n = e->nthreads;
    if (e->race)
        barrier_order(e, id, b->wanted == n);
    if (e->config->schedule == SIM_RANDOM)
        e->flips = (uint32_t)exec_random(e) & 31;
    /* The last to be made ready runs first. */
    for (uint32_t i = (n + 31) / 32 * 32; i > 0; i--) {
        uint32_t k = (i - 1) ^ e->flips;
        if (k >= n)
            continue;
        ExecThread *th = e->order[k];
        if (th->state != EXEC_BARRIER || th->barrier != id)
            continue;
        th->result = result;
        if (th != last)
            exec_ready(th);
    }
    last->state = EXEC_RUNS;
    e->progress++;
    *b = (ExecBarrier){0};
}

uint32_t exec_barrier(SimThread *t, SimBar kind, uint32_t id, uint32_t count, uint32_t value,
                      uint32_t site)
{
    ExecThread *th = exec_thread(t);
    Exec *e = th->exec;
    if (id >= EXEC_BARRIERS || count % 32 != 0) {
        barrier_report(th, site,
                       id >= EXEC_BARRIERS ? "there is no such barrier (0 ... 15)"
                                           : "the number of threads is no multiple of 32");
        exec_stop(th);
    }
    ExecBarrier *b = &e->barriers[id];
    uint32_t wanted = count == 0 || count == e->nwarps * 32 ? e->nthreads : count;
    if (b->arrived == 0)
        *b = (ExecBarrier){.wanted = wanted, .kind = (uint32_t)kind, .site = site};
    else if (b->site != site || b->wanted != wanted)
        barrier_compare(th, b, kind, id, wanted, site);
    b->arrived++;
    b->value += value != 0;
    th->state = EXEC_BARRIER;
    th->barrier = id;
    th->site = site;
    if (b->arrived == b->wanted)
        barrier_release(th, id);
    else
        exec_wait(th);
    return th->result;
}
