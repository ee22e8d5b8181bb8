/* nccl_group.c - groups: what is called between ncclGroupStart and ncclGroupEnd.
 *
 * A call outside of a group is a group of its own. At the end, the calls of each communicator
 * become one launch in the stream of the first; where they name other streams, too, the launch
 * comes after these and these go on after it.
 */
#include <stdlib.h>
#include <string.h>

#include "nccl_world.h"

enum { OVERLAPS_MAX = 256 }; /* parts of a launch that are compared with each other */

/* What a thread has called since ncclGroupStart. */
static _Thread_local struct {
    int depth;
    ncclResult_t error;
    Part *parts;
    size_t nparts, room;
    ncclComm_t **joining;
    size_t njoining;
} group;

bool group_open(void)
{
    return group.depth > 0;
}

void group_start(void)
{
    group.depth++;
}

ncclResult_t group_refuse(ncclResult_t error)
{
    if (group.depth > 0 && error != ncclSuccess)
        group.error = error;
    return error;
}

ncclResult_t group_add_comm(ncclComm_t *comm)
{
    ncclComm_t **grown = realloc(group.joining, (group.njoining + 1) * sizeof *grown);
    if (!grown)
        return ncclSystemError;
    group.joining = grown;
    group.joining[group.njoining++] = comm;
    return ncclSuccess;
}

ncclResult_t group_add(const Part *part)
{
    if (group.nparts == group.room) {
        size_t room = group.room ? 2 * group.room : 16;
        Part *grown = realloc(group.parts, room * sizeof *grown);
        if (!grown)
            return ncclSystemError;
        group.parts = grown;
        group.room = room;
    }
    group.parts[group.nparts++] = *part;
    return ncclSuccess;
}

/* ------------------------------------------------------------------------ launches */

static bool touch(uint64_t a, uint64_t a_bytes, uint64_t b, uint64_t b_bytes)
{
    return a_bytes > 0 && b_bytes > 0 && a < b + b_bytes && b < a + a_bytes;
}

/* All parts of a launch run at once: none may write what another reads or writes. */
static void overlaps_check(const Part *parts, int n)
{
    char one[160], two[160];
    for (int i = 0; i < n && n <= OVERLAPS_MAX; i++) {
        const Part *p = &parts[i];
        size_t bytes = part_received(p) * nccl_size_of(p->type);
        for (int j = 0; j < n && bytes > 0; j++) {
            const Part *q = &parts[j];
            size_t wide = nccl_size_of(q->type);
            bool read = touch(p->receive, bytes, q->send, part_sent(q) * wide);
            bool written = touch(p->receive, bytes, q->receive, part_received(q) * wide);
            if (i == j || (!read && !(written && i < j)))
                continue;
            sim_report(SIM_RACE, "in one group, which runs at once,\n%s\nwrites what\n%s\n%s",
                       part_describe(p, one, sizeof one), part_describe(q, two, sizeof two),
                       read ? "reads" : "writes");
        }
    }
}

static void launch_name(char *name, size_t size, const Part *parts, int n)
{
    char text[160];
    if (n == 1)
        snprintf(name, size, "%s", part_describe(parts, text, sizeof text));
    else
        snprintf(name, size, "ncclGroup of %d: %s, ...", n,
                 part_describe(parts, text, sizeof text));
}

/* `after` goes on when `before` has done what it was given so far. */
static bool streams_order(void *before, void *after)
{
    cudaEvent_t event;
    if (cudaEventCreateWithFlags(&event, cudaEventDisableTiming) != cudaSuccess)
        return false;
    bool fine = cudaEventRecord(event, before) == cudaSuccess &&
                cudaStreamWaitEvent(after, event, 0) == cudaSuccess;
    return cudaEventDestroy(event) == cudaSuccess && fine;
}

static bool stream_is_first(const Part *parts, int i)
{
    for (int j = 0; j < i; j++)
        if (parts[j].stream == parts[i].stream)
            return false;
    return true;
}

static ncclResult_t launch(const Part *parts, int n)
{
    char name[96];
    size_t size = sizeof(Launch) + (size_t)n * sizeof(Part);
    SimStream *stream = sim_stream_of(parts[0].stream, part_name(parts[0].kind));
    if (!stream)
        return ncclUnhandledCudaError;
    overlaps_check(parts, n);
    for (int i = 1; i < n; i++)
        if (stream_is_first(parts, i) && !streams_order(parts[i].stream, parts[0].stream))
            return ncclUnhandledCudaError;
    launch_name(name, sizeof name, parts, n);
    SimOp *op = sim_op_new(SIM_OP_MESSAGE, size, "%s", name);
    Launch *l = op->data;
    l->comm = parts[0].comm;
    l->nparts = n;
    memcpy(l->parts, parts, (size_t)n * sizeof *parts);
    op->prepare = launch_prepare;
    op->can_begin = launch_can_begin;
    op->begin = launch_begin;
    op->ready = launch_ready;
    op->run = launch_run;
    op->waits_for = launch_waits_for;
    op->caller = parts[0].caller;
    sim_enqueue(stream, op);
    for (int i = 1; i < n; i++)
        if (stream_is_first(parts, i) && !streams_order(parts[0].stream, parts[i].stream))
            return ncclUnhandledCudaError;
    return ncclSuccess;
}

/* One launch for each communicator, in the order of their first calls. */
static ncclResult_t launch_all(Part *parts, size_t n)
{
    Part *mine = malloc(n * sizeof *mine);
    ncclResult_t result = mine ? ncclSuccess : ncclSystemError;
    for (size_t i = 0; i < n && result == ncclSuccess; i++) {
        if (!parts[i].comm)
            continue;
        ncclComm_t comm = parts[i].comm;
        int count = 0;
        for (size_t j = i; j < n; j++)
            if (parts[j].comm == comm) {
                mine[count++] = parts[j];
                parts[j].comm = NULL;
            }
        result = launch(mine, count);
    }
    free(mine);
    return result;
}

ncclResult_t group_end(const char *call)
{
    if (group.depth == 0)
        return nccl_fail(ncclInvalidUsage, "%s: no group was started", call);
    if (--group.depth > 0)
        return ncclSuccess;
    ncclResult_t result = group.error;
    size_t njoining = group.njoining, nparts = group.nparts;
    group.error = ncclSuccess;
    group.njoining = group.nparts = 0;
    for (size_t i = 0; i < njoining && result == ncclSuccess; i++)
        result = comm_meet(group.joining[i], call);
    if (njoining > 0) {
        free(group.joining);
        group.joining = NULL;
    }
    if (result == ncclSuccess && nparts > 0)
        result = launch_all(group.parts, nparts);
    free(group.parts);
    group.parts = NULL;
    group.room = 0;
    return result;
}
