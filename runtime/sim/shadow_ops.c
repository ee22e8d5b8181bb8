/* shadow_ops.c - operations in the shadow: which happened before which.
 *
 * In: operations as they begin to access memory. Out: for a segment, its operation; whether
 * that one happened before the running one; what it was, for reports.
 *
 * Operations are numbered as they begin, so their first segments grow, and one of a segment
 * is found by bisection. Those that happened before the running operation are, but for some
 * recent ones, all operations up to a number: nothing of any stream beyond what the clock
 * knows was older. Their segments lie below the view's floor.
 */
#include <stdlib.h>
#include <string.h>

#include "shadow.h"

typedef struct {
    uint32_t segment; /* its first */
    uint32_t sequence, stream_id;
    uint32_t grid[2], block[2]; /* x and y of a kernel's: to name threads */
    bool misled;
    const SimKernelTable *table;
} ShadowOp;

static struct {
    ShadowOp *ops;
    uint32_t n, room;
    struct {
        uint32_t *ops; /* of a stream, in order */
        uint32_t n, room;
    } streams[SIM_STREAMS_MAX];
    uint32_t streams_used;
} all;

static void *grown(void *p, uint32_t *room, size_t size)
{
    uint32_t more = *room ? *room * 2 : 64;
    void *q = realloc(p, more * size);
    if (!q) {
        fprintf(stderr, "mdl-sim: no memory left for race checking\n");
        _Exit(SIM_EXIT);
    }
    *room = more;
    return q;
}

void shadow_ops_forget(void)
{
    all.n = 0;
    for (uint32_t i = 0; i < all.streams_used; i++)
        all.streams[i].n = 0;
}

/* Whether the clock knows operation `sequence` of a stream. */
static bool op_known(const SimOp *op, uint32_t stream, uint32_t sequence)
{
    if (stream == op->stream_id && sequence <= op->sequence)
        return true;
    return (int)stream < op->clock.n && sequence <= op->clock.at[stream];
}

/* The number of the oldest operation that is not known to have happened before `op`. */
static uint32_t op_lowest(const SimOp *op)
{
    uint32_t lowest = all.n;
    for (uint32_t s = 0; s < all.streams_used; s++) {
        const uint32_t *ops = all.streams[s].ops;
        uint32_t low = 0, high = all.streams[s].n;
        if (high == 0 || op_known(op, s, all.ops[ops[high - 1]].sequence))
            continue;
        while (low < high) {
            uint32_t middle = low + (high - low) / 2;
            if (op_known(op, s, all.ops[ops[middle]].sequence))
                low = middle + 1;
            else
                high = middle;
        }
        if (ops[low] < lowest)
            lowest = ops[low];
    }
    return lowest;
}

static void op_add(const SimOp *op, const SimKernelTable *table, const SimLaunch *launch)
{
    uint32_t s = op->stream_id % SIM_STREAMS_MAX;
    if (all.n == all.room)
        all.ops = grown(all.ops, &all.room, sizeof *all.ops);
    if (all.streams[s].n == all.streams[s].room)
        all.streams[s].ops =
            grown(all.streams[s].ops, &all.streams[s].room, sizeof *all.streams[s].ops);
    if (s >= all.streams_used)
        all.streams_used = s + 1;
    all.streams[s].ops[all.streams[s].n++] = all.n;
    ShadowOp *o = &all.ops[all.n++];
    *o = (ShadowOp){.segment = shadow_segments(0),
                    .sequence = op->sequence,
                    .stream_id = s,
                    .misled = op->misled,
                    .table = table};
    for (int i = 0; launch && i < 2; i++) {
        o->grid[i] = launch->grid[i];
        o->block[i] = launch->block[i];
    }
}

void shadow_op_begin(ShadowView *v, SimOp *op, const SimKernelTable *table, const SimLaunch *launch)
{
    shadow_segments_reserve();
    uint32_t lowest = op_lowest(op);
    uint32_t n = all.n;
    op_add(op, table, launch);
    *v = (ShadowView){.op = op, .kernel = table != NULL};
    v->op_first = all.ops[n].segment;
    v->floor = all.ops[lowest].segment;
    v->block_first = v->op_first;
}

uint32_t shadow_op_of(ShadowSlot s)
{
    uint32_t segment = slot_segment(s), low = 0, high = all.n;
    while (low + 1 < high) {
        uint32_t middle = low + (high - low) / 2;
        if (all.ops[middle].segment <= segment)
            low = middle;
        else
            high = middle;
    }
    return low;
}

bool shadow_op_before(ShadowView *v, ShadowSlot s)
{
    uint32_t segment = slot_segment(s);
    for (int i = 0; i < 2; i++) {
        if (segment - v->known[i][0] < v->known[i][1])
            return true;
    }
    uint32_t n = shadow_op_of(s);
    if (!op_known(v->op, all.ops[n].stream_id, all.ops[n].sequence))
        return false;
    v->known[1][0] = v->known[0][0];
    v->known[1][1] = v->known[0][1];
    v->known[0][0] = all.ops[n].segment;
    v->known[0][1] = (n + 1 < all.n ? all.ops[n + 1].segment : segment + 1) - all.ops[n].segment;
    return true;
}

bool shadow_misled(const SimOp *op, ShadowSlot other)
{
    return op->misled || (slot_segment(other) != 0 && all.ops[shadow_op_of(other)].misled);
}

const SimSite *shadow_site(ShadowSlot s)
{
    const SimKernelTable *table = all.n ? all.ops[shadow_op_of(s)].table : NULL;
    return table && slot_site(s) < table->nsites ? &table->sites[slot_site(s)] : NULL;
}

/* " by block (0,0,0) thread (5,0,0)" where that is still known. */
static void place_describe(const ShadowOp *o, ShadowSlot s, char *out, size_t size)
{
    uint32_t block, warp;
    out[0] = '\0';
    if (!o->table || !shadow_segment_place(slot_segment(s), &block, &warp))
        return;
    uint32_t t = warp * 32 + slot_lane(s), x = o->grid[0], y = o->grid[1];
    uint32_t bx = o->block[0], by = o->block[1];
    snprintf(out, size, " in block (%u,%u,%u) thread (%u,%u,%u)", block % x, block / x % y,
             block / x / y, t % bx, t / bx % by, t / bx / by);
}

static const char *slot_verb(ShadowSlot s)
{
    switch (slot_kind(s)) {
    case SHADOW_READ:
        return "read";
    case SHADOW_WRITE:
        return "wrote";
    case SHADOW_ATOMIC:
        return "changed (atomic)";
    default:
        return "read (atomic)";
    }
}

char *shadow_other_describe(ShadowSlot other, char *out, size_t size)
{
    char history[256], place[96], line[256] = "";
    const ShadowOp *o = &all.ops[shadow_op_of(other)];
    const SimSite *site = shadow_site(other);
    sim_history_describe(o->stream_id, o->sequence, history, sizeof history);
    place_describe(o, other, place, sizeof place);
    if (site && site->file)
        snprintf(line, sizeof line, " at %s:%d", site->file, site->line);
    snprintf(out, size, "%s %s it%s%s", history, slot_verb(other), line, place);
    return out;
}
