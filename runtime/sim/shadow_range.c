/* shadow_range.c - accesses of operations that are no kernels.
 *
 * In: a range of memory that a copy, product or message reads or writes. Out: reports of
 * races with other operations and of reads of what was never written; the first of each
 * call, since the rest of the range tends to say the same.
 */
#include <inttypes.h>

#include "shadow.h"

/* The view of the operation. Rows of one copy share it; a message's clock may have grown. */
static ShadowView *view_of(SimOp *op, uint32_t *segment)
{
    static ShadowView view;
    static uint32_t sequence, stream, own;
    bool last = view.op == op && sequence == op->sequence && stream == op->stream_id &&
                own + 1 == shadow_segments(0) && op->kind != SIM_OP_MESSAGE;
    if (!last) {
        shadow_op_begin(&view, op, NULL, NULL);
        sequence = op->sequence;
        stream = op->stream_id;
        own = shadow_segments(1);
    }
    *segment = own;
    return &view;
}

static void range_report(SimOp *op, ShadowVerdict verdict, ShadowSlot other, uint64_t at,
                         uint64_t address, uint64_t bytes, SimAccess access, const char *what)
{
    char self[256], memory[256], side[512];
    sim_op_describe(op, self, sizeof self);
    sim_memory_describe(at, memory, sizeof memory);
    const char *verb = access == SIM_READ ? "reads" : access == SIM_WRITE ? "writes" : "changes";
    if (verdict == SHADOW_UNWRITTEN)
        sim_report(SIM_UNINITIALISED,
                   "%s reads memory that nothing has written: %s, %" PRIu64 " bytes from 0x%" PRIx64
                   ", first at 0x%" PRIx64 " (%s)",
                   self, what, bytes, address, at, memory);
    else
        sim_report(SIM_RACE,
                   "%s %s %s, %" PRIu64 " bytes from 0x%" PRIx64 ", at 0x%" PRIx64
                   " (%s)\nother side: %s\nnothing orders the two: an event wait is missing",
                   self, verb, what, bytes, address, at, memory,
                   shadow_other_describe(other, side, sizeof side));
}

/* The bytes of the word at `at` that lie in [address, end). */
static uint32_t mask_of(uint64_t at, uint64_t address, uint64_t end)
{
    uint32_t mask = 15;
    if (at < address)
        mask = mask << (address - at) & 15;
    if (end - at < 4)
        mask &= (1u << (end - at)) - 1;
    return mask;
}

void sim_shadow_range(SimOp *op, int device, uint64_t address, uint64_t bytes, SimAccess access,
                      const char *what)
{
    if (!sim_config()->race || bytes == 0)
        return;
    uint32_t segment;
    ShadowView *v = view_of(op, &segment);
    uint32_t kind = access == SIM_READ    ? SHADOW_READ
                    : access == SIM_WRITE ? SHADOW_WRITE
                                          : SHADOW_ATOMIC;
    ShadowSlot me = (ShadowSlot)segment << SLOT_SEGMENT | (ShadowSlot)kind << SLOT_KIND;
    bool conflict = false, unwritten = device < 0; /* told already */
    ShadowCell *cell = NULL;
    uint64_t end = address + bytes;
    for (uint64_t at = address & ~UINT64_C(3); at < end; at += 4, cell++) {
        if (!cell || at % SHADOW_CHUNK == 0)
            cell = shadow_cells(device, at);
        uint32_t mask = mask_of(at, address, end);
        ShadowSlot m = me | (ShadowSlot)mask << SLOT_MASK, other = 0;
        if (kind == SHADOW_READ && shadow_read_fast(v, cell, m))
            continue;
        if (kind == SHADOW_WRITE && mask == 15 && shadow_write_fast(v, cell, m))
            continue;
        ShadowVerdict verdict = shadow_check(v, cell, m, &other);
        bool told = verdict == SHADOW_CONFLICT ? conflict : unwritten;
        if (verdict == SHADOW_FINE || told || shadow_misled(op, other))
            continue;
        conflict = conflict || verdict == SHADOW_CONFLICT;
        unwritten = unwritten || verdict == SHADOW_UNWRITTEN;
        range_report(op, verdict, other, at < address ? address : at, address, bytes, access, what);
    }
}
