/* nccl_comm.c - communicators: joining, finishing, ending.
 *
 * The ranks of one unique id make a clique. A rank joins and then waits until all are there:
 * each in a thread of its own, or several in a group of one thread. Communicators are kept for
 * good, so that one that is used after its end is known as such.
 */
#include <stdlib.h>
#include <string.h>

#include "nccl_world.h"

static ncclComm_t comms;
static Clique *cliques;
static unsigned nids;

static void report_leaks(void)
{
    for (const struct ncclComm *c = comms; c; c = c->next)
        if (c->alive)
            sim_report(SIM_LEAK,
                       "rank %d of communicator %u (gpu %d) was never destroyed or aborted",
                       c->rank, c->clique->number, c->device);
}

ncclResult_t comm_unique_id(ncclUniqueId *id)
{
    memset(id, 0, sizeof *id);
    snprintf(id->internal, sizeof id->internal, "mdl-sim communicator %u", ++nids);
    return ncclSuccess;
}

/* ----------------------------------------------------------------------- joining */

static Clique *clique_new(int nranks, const ncclUniqueId *id)
{
    size_t n = (size_t)nranks;
    Clique *c = calloc(1, sizeof *c);
    if (!c || !(c->comms = calloc(n, sizeof *c->comms)) ||
        !(c->pairs = calloc(n * n, sizeof *c->pairs)) || !(c->calls = calloc(n, sizeof *c->calls)))
        abort();
    c->number = cliques ? cliques->number + 1 : 1;
    c->nranks = nranks;
    if (id)
        c->id = *id;
    c->next = cliques;
    return cliques = c;
}

static ncclComm_t comm_new(Clique *clique, int rank, int device, void *caller)
{
    ncclComm_t c = calloc(1, sizeof *c);
    if (!c)
        abort();
    if (!comms)
        sim_at_exit(report_leaks);
    *c = (struct ncclComm){.clique = clique,
                           .rank = rank,
                           .device = device,
                           .alive = true,
                           .caller = caller,
                           .next = comms};
    clique->comms[rank] = c;
    clique->joined++;
    return comms = c;
}

static Clique *clique_find(const ncclUniqueId *id)
{
    for (Clique *c = cliques; c; c = c->next)
        if (memcmp(&c->id, id, sizeof *id) == 0)
            return c;
    return NULL;
}

ncclResult_t comm_join(ncclComm_t *comm, int nranks, const ncclUniqueId *id, int rank, void *caller,
                       const char *call)
{
    static const ncclUniqueId none;
    if (!comm)
        return nccl_fail(ncclInvalidArgument, "%s: comm is NULL", call);
    *comm = NULL;
    if (nranks < 1 || rank < 0 || rank >= nranks)
        return nccl_fail(ncclInvalidArgument, "%s: rank %d of %d", call, rank, nranks);
    if (memcmp(id, &none, sizeof none) == 0)
        return nccl_fail(ncclInvalidArgument, "%s: the unique id is empty", call);
    Clique *clique = clique_find(id);
    if (!clique)
        clique = clique_new(nranks, id);
    if (clique->nranks != nranks) {
        sim_report(SIM_NCCL_MISMATCH,
                   "%s: rank %d joins communicator %u of %d ranks, others say that it has %d", call,
                   rank, clique->number, nranks, clique->nranks);
        return nccl_fail(ncclInvalidArgument, "%s: %d ranks and %d", call, nranks, clique->nranks);
    }
    if (clique->comms[rank]) {
        sim_report(SIM_MISUSE, "%s: rank %d joins communicator %u a second time", call, rank,
                   clique->number);
        return nccl_fail(ncclInvalidUsage, "%s: rank %d joins twice", call, rank);
    }
    int device = sim_current_device();
    for (int i = 0; i < nranks; i++)
        if (clique->comms[i] && clique->comms[i]->device == device)
            clique->refused = true;
    *comm = comm_new(clique, rank, device, caller);
    sim_progress();
    return ncclSuccess;
}

static bool clique_complete(void *data)
{
    const Clique *c = data;
    return c->joined == c->nranks;
}

ncclResult_t comm_meet(ncclComm_t *comm, const char *call)
{
    Clique *clique = (*comm)->clique;
    char what[96];
    snprintf(what, sizeof what, "%s of rank %d of %d (gpu %d), where %d have joined,", call,
             (*comm)->rank, clique->nranks, (*comm)->device, clique->joined);
    bool met = sim_wait(clique_complete, clique, what);
    if (met && !clique->refused)
        return ncclSuccess;
    (*comm)->alive = false;
    *comm = NULL;
    return met ? nccl_fail(ncclInvalidUsage, "%s: two ranks are on one gpu", call)
               : nccl_fail(ncclInternalError, "%s: not all ranks came", call);
}

ncclResult_t comm_join_all(ncclComm_t *to, int n, const int *devices, void *caller,
                           const char *call)
{
    if (!to || n < 1 || n > sim_config()->devices)
        return nccl_fail(ncclInvalidArgument, "%s: %d devices of %d", call, n,
                         sim_config()->devices);
    for (int i = 0; i < n; i++) {
        int device = devices ? devices[i] : i;
        if (device < 0 || device >= sim_config()->devices)
            return nccl_fail(ncclUnhandledCudaError, "%s: there is no gpu %d", call, device);
        for (int j = 0; devices && j < i; j++)
            if (devices[j] == device)
                return nccl_fail(ncclInvalidUsage, "%s: gpu %d is there twice", call, device);
    }
    ncclUniqueId id;
    comm_unique_id(&id);
    Clique *clique = clique_new(n, &id);
    for (int i = 0; i < n; i++)
        to[i] = comm_new(clique, i, devices ? devices[i] : i, caller);
    return ncclSuccess;
}

/* ------------------------------------------------------------------------- ending */

ncclComm_t comm_of(ncclComm_t comm, const char *call, ncclResult_t *why)
{
    ncclComm_t c = comms;
    *why = ncclInvalidArgument;
    if (!comm) {
        nccl_fail(*why, "%s: comm is NULL", call);
        return NULL;
    }
    while (c && c != comm)
        c = c->next;
    if (c && c->alive && c->clique->joined == c->clique->nranks)
        return c;
    if (c && c->alive) {
        *why = nccl_fail(ncclInvalidUsage, "%s: the communicator is not complete yet", call);
        return NULL;
    }
    if (c)
        sim_report(SIM_MISUSE, "%s: rank %d of communicator %u (gpu %d) was %s", call, c->rank,
                   c->clique->number, c->device, c->aborted ? "aborted" : "destroyed");
    else
        sim_report(SIM_MISUSE, "%s: %p is no communicator", call, (void *)comm);
    nccl_fail(*why, "%s: no communicator", call);
    return NULL;
}

static bool comm_idle(void *data)
{
    const struct ncclComm *c = data;
    return c->turn == c->turns;
}

ncclResult_t comm_finish(ncclComm_t c, const char *call)
{
    char what[96];
    snprintf(what, sizeof what, "%s of rank %d (gpu %d)", call, c->rank, c->device);
    c->finalized = true;
    return sim_wait(comm_idle, c, what) ? ncclSuccess
                                        : nccl_fail(ncclInternalError, "%s: deadlock", call);
}

ncclResult_t comm_end(ncclComm_t comm, bool abort, const char *call)
{
    ncclResult_t why;
    if (!comm)
        return ncclSuccess; /* as the real one says */
    ncclComm_t c = comm_of(comm, call, &why);
    if (!c)
        return why;
    why = abort ? ncclSuccess : comm_finish(c, call);
    c->alive = false;
    c->aborted = abort;
    if (abort)
        sim_progress();
    return why;
}
