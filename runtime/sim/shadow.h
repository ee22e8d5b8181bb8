/* shadow.h - who wrote and read every word, and when.
 *
 * Every 4 bytes of memory that operations touch have a cell of four slots. A slot says that
 * some bytes of the word were written or read by a lane of a warp, at a place in the source,
 * in a segment. Slot 0 is the last write and says besides which bytes were ever written; the
 * others are reads since then, or writes of other bytes.
 *
 * A segment is a number that only grows: a copy or a product takes one, a kernel one for
 * every warp and for everything between two synchronisations. So one comparison says that an
 * access happened before all of this operation (it lies below `floor`), or before the last
 * barrier of this block (it lies in [block_first, epoch_first)); everything else is looked
 * up: shadow_order.c for threads of a kernel, shadow_ops.c for operations.
 *
 * Shared memory has cells of the same kind. They belong to one block, so what is older than
 * the block's first segment does not count as written.
 */
#ifndef MDL_SIM_SHADOW_H
#define MDL_SIM_SHADOW_H

#include "sim.h"
#include "simt.h"

/* Bits: 0 init (slot 0: bytes that were ever written), 4 mask (bytes of this access), 8 kind,
 * 10 lane, 16 site, 32 segment. An empty slot is 0. */
typedef uint64_t ShadowSlot;
typedef struct {
    ShadowSlot slot[4];
} ShadowCell;

enum { SLOT_MASK = 4, SLOT_KIND = 8, SLOT_LANE = 10, SLOT_SITE = 16, SLOT_SEGMENT = 32 };
enum { SHADOW_READ, SHADOW_WRITE, SHADOW_ATOMIC, SHADOW_ATOMIC_READ };

#define SLOT_STORE UINT64_C(0x8000) /* of an access: an atomic store, which reads nothing */
#define SLOT_MORE UINT64_C(0x8000)  /* of a cell's slot 0: there is more (shadow_spill.c) */
#define SLOT_THREAD UINT64_C(0xffffffff00007c00) /* segment and lane */

/* How an operation, or a block of it, sees other accesses. Two of them: one for memory of
 * devices, one for a block's shared memory. */
typedef struct ShadowView {
    uint32_t floor;       /* segments below happened before: shared memory: do not exist */
    uint32_t block_first; /* the running block's segments begin here */
    uint32_t epoch_span;  /* of these so many lie before its last barrier */
    uint32_t op_first;    /* the operation's segments begin here */
    uint32_t warps;       /* of the block: their segments follow the barrier's */
    uint32_t known[2][2]; /* first and number of segments of operations found to be before */
    SimOp *op;
    bool kernel, shared;
    bool parts; /* the kernel is known to let parts of blocks or warps meet */
} ShadowView;

/* What a kernel's warps and fences order within the running block (shadow_order.c). */
enum { SHADOW_WARPS = 32, SHADOW_THREADS = 1024 };

static inline uint32_t slot_segment(ShadowSlot s)
{
    return (uint32_t)(s >> SLOT_SEGMENT);
}
static inline uint32_t slot_mask(ShadowSlot s)
{
    return (uint32_t)(s >> SLOT_MASK) & 15;
}
static inline uint32_t slot_kind(ShadowSlot s)
{
    return (uint32_t)(s >> SLOT_KIND) & 3;
}
static inline uint32_t slot_lane(ShadowSlot s)
{
    return (uint32_t)(s >> SLOT_LANE) & 31;
}
static inline uint32_t slot_site(ShadowSlot s)
{
    return (uint32_t)(s >> SLOT_SITE) & 0xffff;
}

/* Whether it certainly happened before; false: it has to be looked up. */
static inline bool shadow_before(const ShadowView *v, ShadowSlot s)
{
    uint32_t segment = slot_segment(s);
    return segment < v->floor || segment - v->block_first < v->epoch_span;
}
static inline bool shadow_before_or_same(const ShadowView *v, ShadowSlot s, ShadowSlot me)
{
    return shadow_before(v, s) || ((s ^ me) & SLOT_THREAD) == 0;
}

/* Whether two reads since the last barrier, of two warps or of the running one, make another
 * one by the running thread, which has met nobody since, nothing new. */
static inline bool shadow_read_known(const ShadowView *v, ShadowSlot a, ShadowSlot b, ShadowSlot me)
{
    const ShadowSlot same = 15 << SLOT_MASK | 3 << SLOT_KIND;
    uint32_t first = v->block_first + v->epoch_span;
    uint32_t warp_a = slot_segment(a) - first, warp_b = slot_segment(b) - first;
    return (((a ^ me) | (b ^ me)) & same) == 0 && warp_a < v->warps && warp_b < v->warps &&
           slot_segment(me) - first < v->warps && !v->parts &&
           (warp_a != warp_b || slot_segment(a) == slot_segment(me));
}

/* The common cases of an access; false: shadow_check() decides. A read of a word that was
 * last written as a whole, before, and read by nobody unordered; */
static inline bool shadow_read_fast(const ShadowView *v, ShadowCell *cell, ShadowSlot me)
{
    const ShadowSlot whole = 15 | 15 << SLOT_MASK | SHADOW_WRITE << SLOT_KIND;
    ShadowSlot last = cell->slot[0], read = cell->slot[1];
    if ((last & (0x3ff | SLOT_MORE)) != whole || !shadow_before_or_same(v, last, me))
        return false;
    if (v->shared && slot_segment(last) < v->floor)
        return false;
    if (((read ^ me) & (SLOT_THREAD | 3 << SLOT_KIND)) == 0 &&
        (slot_mask(me) & ~slot_mask(read)) == 0)
        return true;
    if (slot_kind(read) == SHADOW_READ && shadow_before(v, read) &&
        (slot_mask(read) & ~slot_mask(me)) == 0) {
        cell->slot[1] = me;
        return true;
    }
    return shadow_read_known(v, read, cell->slot[2], me);
}
/* and a write of a whole word after everything that is known of it. */
static inline bool shadow_write_fast(const ShadowView *v, ShadowCell *cell, ShadowSlot me)
{
    for (int i = 0; i < 4; i++) {
        if (!shadow_before_or_same(v, cell->slot[i], me))
            return false;
    }
    if (cell->slot[0] & SLOT_MORE)
        return false;
    cell->slot[0] = me | 15;
    cell->slot[1] = cell->slot[2] = cell->slot[3] = 0;
    return true;
}

typedef enum { SHADOW_FINE, SHADOW_CONFLICT, SHADOW_UNWRITTEN } ShadowVerdict;
/* Judges and notes the access `me` (with mask, kind and site); *other is the other side of a
 * conflict. */
ShadowVerdict shadow_check(ShadowView *v, ShadowCell *cell, ShadowSlot me, ShadowSlot *other);

/* What does not fit into a cell: at most so many slots more. Taking forgets them. */
enum { SHADOW_SPILL = 28 };
int shadow_spill_take(const ShadowCell *cell, ShadowSlot *slots);
bool shadow_spill_put(const ShadowCell *cell, const ShadowSlot *slots, int n);

/* Cells of memory, made when they are first asked for; contiguous within SHADOW_CHUNK bytes
 * of aligned addresses. Device -1: pinned host memory. */
#define SHADOW_CHUNK (UINT64_C(1) << 28)
ShadowCell *shadow_cells(int device, uint64_t address);

/* Cells of the running block's shared memory. */
ShadowCell *shadow_shared_cells(void);

/* The next n segments. */
uint32_t shadow_segments(uint32_t n);
/* Makes room for many more segments, between the blocks of a kernel or operations. True: who
 * accessed what is forgotten for it, and the operation has to begin anew. */
bool shadow_segments_reserve(void);

/* -- operations (shadow_ops.c). Notes that the operation goes on from here and fills the view.
 * The table is the kernel's, or NULL. */
void shadow_op_begin(ShadowView *v, SimOp *op, const SimKernelTable *table,
                     const SimLaunch *launch);
/* Whether the operation that the slot's segment belongs to happened before the view's. */
bool shadow_op_before(ShadowView *v, ShadowSlot s);
/* Whether an access of the operation, or the other one (0: none), was misled (sim_op_cut_short). */
bool shadow_misled(const SimOp *op, ShadowSlot other);
/* What an access of another operation was: "cudaMemcpyAsync, gpu 0, stream 2 wrote it ..." */
char *shadow_other_describe(ShadowSlot other, char *out, size_t size);
uint32_t shadow_op_of(ShadowSlot s);      /* number of the operation */
const SimSite *shadow_site(ShadowSlot s); /* NULL: not a kernel's */
void shadow_ops_forget(void);

/* -- threads of the running block (shadow_order.c) */

/* The view of a new block's threads; warp w begins in the segment that is returned + w. */
uint32_t shadow_block_begin(ShadowView *global, ShadowView *shared, uint32_t block, uint32_t warps);
/* All threads of the block met. Returns the first of the warps' new segments. */
uint32_t shadow_block_barrier(ShadowView *global, ShadowView *shared);
/* The lanes of a warp met. Returns the new segment of these lanes. */
uint32_t shadow_warp_sync(uint32_t warp, uint32_t lanes, bool whole, const uint32_t *segments);
/* Some threads of a block met; their segments are in `segments`, which gets the new ones. */
void shadow_part_barrier(const uint16_t *threads, uint32_t n, uint32_t *segments);
/* A fence of a thread (numbered in its block), for its block only or for all. Returns the new
 * segment of the thread. */
uint32_t shadow_fence(uint32_t thread, uint32_t segment, bool block_only);
/* An atomic access: releases what the thread fenced, acquires what others released here. */
void shadow_atomic(uint32_t thread, uint32_t segment, uint64_t address, uint32_t kind);
/* Whether `s`, of this kernel and not of this thread's segment, happened before `me`. */
bool shadow_thread_before(const ShadowView *v, ShadowSlot s, ShadowSlot me);
/* Thread and block of a segment of any kernel; false: forgotten. */
bool shadow_segment_place(uint32_t segment, uint32_t *block, uint32_t *warp);
void shadow_order_reset(void);  /* a new kernel */
void shadow_order_forget(void); /* segments begin anew */

/* Whether unordered accesses of these kinds are a conflict. */
static inline bool shadow_conflicts(uint32_t a, uint32_t b)
{
    bool writes =
        a == SHADOW_WRITE || a == SHADOW_ATOMIC || b == SHADOW_WRITE || b == SHADOW_ATOMIC;
    return writes && !(a >= SHADOW_ATOMIC && b >= SHADOW_ATOMIC);
}

#endif
