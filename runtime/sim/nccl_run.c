/* nccl_run.c - launches: beginning, waiting for partners, moving data.
 *
 * When a launch begins, the memory that it sends from is checked and read accesses are noted.
 * Data moves when the first of the two sides ends; by then both have begun. The receiver's
 * clock then learns what had happened before the sender began, and that the data was read. The
 * sender learns nothing: a real send may end before its data is received. Where a communicator is
 * aborted, its launches end without their data, which misleads what comes after them.
 */
#include <stdlib.h>
#include <string.h>

#include "nccl_world.h"

void launch_prepare(SimOp *op)
{
    Launch *launch = op->data;
    launch->turn = launch->comm->turns++;
    for (int i = 0; i < launch->nparts; i++) {
        launch->parts[i].launch = op;
        part_match(&launch->parts[i]);
    }
}

bool launch_can_begin(SimOp *op)
{
    const Launch *launch = op->data;
    return launch->turn == launch->comm->turn;
}

static void source_check(SimOp *op, Part *part)
{
    uint64_t bytes = part_sent(part) * nccl_size_of(part->type);
    if (bytes > 0)
        part->source = sim_range(op, part->send, bytes, 0, 1, SIM_READ, false, "what it sends");
}

void launch_begin(SimOp *op)
{
    Launch *launch = op->data;
    if (launch->comm->aborted)
        return;
    launch->begun = true;
    launch->past = malloc(sizeof *launch->past);
    if (!launch->past)
        abort();
    *launch->past = op->clock;
    memcpy(launch->past->at, op->clock.sure, sizeof launch->past->at);
    /* Whoever has what a lone send sends knows that the send has read it. */
    if (launch->nparts == 1 && launch->parts[0].kind == PART_SEND)
        launch->past->at[op->stream_id] = launch->past->sure[op->stream_id] = op->sequence;
    for (int i = 0; i < launch->nparts; i++) {
        Part *part = &launch->parts[i];
        source_check(op, part);
        if (part->meeting)
            part->meeting->begun++;
    }
}

static bool part_ready(const Part *part)
{
    if (part->done)
        return true;
    if (part->meeting)
        return part->meeting->done || part->meeting->begun == part->comm->clique->nranks;
    return part->partner && launch_of(part->partner)->begun;
}

bool launch_ready(SimOp *op)
{
    const Launch *launch = op->data;
    if (launch->comm->aborted)
        return true;
    for (int i = 0; i < launch->nparts; i++)
        if (!part_ready(&launch->parts[i]))
            return false;
    return launch->begun;
}

/* Memory may have gone since the send began. */
static const void *source_still(Part *send, uint64_t bytes)
{
    int device = sim_device_of(send->send);
    if (send->source && device >= 0 && !sim_memory_inside(device, send->send, bytes))
        return sim_range(send->launch, send->send, bytes, 0, 1, SIM_READ, false, "what it sends");
    return send->source;
}

static void message_move(Part *send, Part *receive)
{
    size_t count = send->count < receive->count ? send->count : receive->count;
    size_t bytes = count * nccl_size_of(receive->type);
    bool agree = send->type == receive->type && send->count == receive->count;
    send->done = receive->done = true;
    send->partner = receive->partner = NULL;
    sim_clock_join(&receive->launch->clock, launch_of(send)->past);
    if (bytes == 0 || !agree)
        return;
    const void *from = source_still(send, bytes);
    void *to = sim_range(receive->launch, receive->receive, bytes, 0, 1, SIM_WRITE, false,
                         "what it receives");
    if (from && to)
        memmove(to, from, bytes);
}

static void part_run(Part *part)
{
    if (part->meeting) {
        if (!part->meeting->done)
            meeting_run(part->meeting, part->comm->clique);
        meeting_leave(part);
    } else if (!part->done && part->kind == PART_SEND) {
        message_move(part, part->partner);
    } else if (!part->done) {
        message_move(part->partner, part);
    }
}

void launch_run(SimOp *op)
{
    Launch *launch = op->data;
    for (int i = 0; i < launch->nparts; i++) {
        Part *part = &launch->parts[i];
        if (!launch->comm->aborted || part->done) {
            part_run(part);
            continue;
        }
        if (part->kind != PART_SEND)
            sim_op_cut_short(op);
        if (part->meeting && launch->begun && !part->meeting->done)
            part->meeting->begun--;
        part_unmatch(part);
    }
    free(launch->past);
    launch->past = NULL;
    launch->comm->turn++;
    sim_progress();
}

static size_t missing_ranks(const Part *part, bool called, char *out, size_t size)
{
    const Clique *clique = part->comm->clique;
    size_t n = 0;
    for (int i = 0; i < clique->nranks && n < size; i++) {
        const Part *other = part->meeting->parts[i];
        bool missing = called ? other && !launch_of(other)->begun : !other;
        if (missing)
            n += (size_t)snprintf(out + n, size - n, "%s%d", n ? ", " : "", i);
    }
    return n;
}

char *launch_waits_for(const SimOp *op, char *out, size_t size)
{
    const Launch *launch = op->data;
    const Part *part = launch->parts;
    char text[400];
    if (!launch->begun) {
        snprintf(out, size, "waits for an earlier operation of its communicator");
        return out;
    }
    while (part < launch->parts + launch->nparts && part_ready(part))
        part++;
    if (part == launch->parts + launch->nparts)
        snprintf(out, size, "can end");
    else if (!part->meeting && part->partner)
        snprintf(out, size, "waits for %s",
                 sim_op_describe(part->partner->launch, text, sizeof text));
    else if (!part->meeting)
        snprintf(out, size, "waits for %s of rank %d, which was never called",
                 part->kind == PART_SEND ? "an ncclRecv" : "an ncclSend", part->peer);
    else if (missing_ranks(part, false, text, sizeof text))
        snprintf(out, size, "waits for the %s of ranks %s, which was never called",
                 part_name(part->kind), text);
    else if (missing_ranks(part, true, text, sizeof text))
        snprintf(out, size, "waits for the %s of ranks %s, which has not begun",
                 part_name(part->kind), text);
    return out;
}
