/* nccl_collective.c - a collective call, once all its ranks have begun.
 *
 * In: the parts of all ranks, whose sources were checked when they began. Out: every rank's
 * result in its memory, and its clock after those it has data of.
 */
#include <stdlib.h>
#include <string.h>

#include "nccl_world.h"

static void *room(size_t bytes)
{
    void *p = malloc(bytes ? bytes : 1);
    if (!p) {
        fputs("mdl-sim: out of memory\n", stderr);
        exit(EXIT_FAILURE);
    }
    return p;
}

/* Whether what rank `to` gets depends on rank `from`. */
static bool depends(const Part *part, int to, int from)
{
    switch (part->kind) {
    case PART_BROADCAST:
    case PART_SCATTER:
        return from == part->peer;
    case PART_REDUCE:
    case PART_GATHER:
        return to == part->peer;
    default:
        return true;
    }
}

static void clocks_join(const Meeting *m, int nranks)
{
    for (int to = 0; to < nranks; to++)
        for (int from = 0; from < nranks; from++)
            if (from != to && depends(m->parts[to], to, from))
                sim_clock_join(&m->parts[to]->launch->clock, launch_of(m->parts[from])->past);
}

static void deliver(Part *part, const void *data)
{
    size_t bytes = part_received(part) * nccl_size_of(part->type);
    if (bytes == 0)
        return;
    void *to =
        sim_range(part->launch, part->receive, bytes, 0, 1, SIM_WRITE, false, "what it receives");
    if (to && to != data)
        memmove(to, data, bytes);
}

static bool sources_known(const Meeting *m, int nranks)
{
    for (int i = 0; i < nranks; i++)
        if (part_sent(m->parts[i]) > 0 && !m->parts[i]->source)
            return false;
    return true;
}

/* Every rank's result from all sources: what `data` is of rank i begins at i * step. */
static void deliver_all(const Meeting *m, int nranks, const char *data, size_t step)
{
    for (int i = 0; i < nranks; i++)
        deliver(m->parts[i], data + (size_t)i * step);
}

static void reduce_and_deliver(const Meeting *m, int nranks)
{
    const Part *first = m->parts[0];
    size_t wide = nccl_size_of(first->type), n = part_sent(first);
    const void **from = room((size_t)nranks * sizeof *from);
    char *sum = room(n * wide);
    for (int i = 0; i < nranks; i++)
        from[i] = m->parts[i]->source;
    nccl_reduce(first->type, first->op, nranks, from, n, sum);
    deliver_all(m, nranks, sum, first->kind == PART_REDUCE_SCATTER ? first->count * wide : 0);
    free(from);
    free(sum);
}

/* Blocks of all ranks side by side; of ALL_TO_ALL, those that are for rank `to`. */
static void gather_and_deliver(const Meeting *m, int nranks)
{
    const Part *first = m->parts[0];
    size_t bytes = first->count * nccl_size_of(first->type);
    bool exchange = first->kind == PART_ALL_TO_ALL;
    char *data = room(bytes * (size_t)nranks);
    for (int to = 0; to < nranks; to++) {
        for (int from = 0; from < nranks && bytes > 0 && (exchange || to == 0); from++)
            memcpy(data + (size_t)from * bytes,
                   (const char *)m->parts[from]->source + (exchange ? (size_t)to * bytes : 0),
                   bytes);
        deliver(m->parts[to], data);
    }
    free(data);
}

void meeting_run(Meeting *m, const Clique *clique)
{
    int n = clique->nranks;
    const Part *first = m->parts[0];
    size_t bytes = first->count * nccl_size_of(first->type);
    m->done = true;
    if (m->broken)
        return;
    if (bytes > 0)
        clocks_join(m, n);
    if (bytes == 0 || !sources_known(m, n))
        return;
    if (part_reduces(first->kind)) {
        reduce_and_deliver(m, n);
    } else if (part_has_root(first->kind) && first->kind != PART_GATHER) {
        const Part *root = m->parts[first->peer];
        deliver_all(m, n, root->source, first->kind == PART_SCATTER ? bytes : 0);
    } else {
        gather_and_deliver(m, n);
    }
}
