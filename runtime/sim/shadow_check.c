/* shadow_check.c - one access against one cell.
 *
 * In: the view of the running operation, a cell, the access as a slot. Out: whether it
 * conflicts with another access or reads what nobody wrote; the cell then knows of it.
 *
 * An access is kept as long as one that is still to come could be unordered with it and
 * with nothing kept in its place: a read gives way to a later read that it happened before,
 * a write to a later write of its bytes. Of unordered reads (or atomic accesses) of one
 * kernel two of different warps or blocks are kept: whoever conflicts with a third conflicts
 * with one of these, unless parts of a warp or of a block meet: then all are kept. Where a cell is
 * full, accesses of one operation that is over are one; what then does not fit lies in a table
 * beside (shadow_spill.c).
 */
#include "shadow.h"

enum { SLOTS = 4 + SHADOW_SPILL };

/* A cell's slots and what was spilled of it. */
typedef struct {
    ShadowSlot slot[SLOTS];
    int n;
} Slots;

static bool slot_empty(ShadowSlot s)
{
    return slot_segment(s) == 0;
}

static bool same_thread(ShadowSlot a, ShadowSlot b)
{
    return ((a ^ b) & SLOT_THREAD) == 0;
}

static ShadowSlot with_mask(ShadowSlot s, uint32_t mask)
{
    return (s & ~(ShadowSlot)(15 | 15 << SLOT_MASK)) | (ShadowSlot)mask << SLOT_MASK;
}

static bool is_write(ShadowSlot s)
{
    return slot_kind(s) == SHADOW_WRITE || slot_kind(s) == SHADOW_ATOMIC;
}

/* Whether the access in the slot happened before `me`, looked up. */
static bool before(ShadowView *v, ShadowSlot s, ShadowSlot me)
{
    if (shadow_before_or_same(v, s, me))
        return true;
    if (slot_segment(s) < v->op_first)
        return shadow_op_before(v, s);
    return !v->kernel || shadow_thread_before(v, s, me);
}

/* How useful it is to keep `s` where `with` is kept or runs: another block, another warp,
 * another lane, the same thread. */
static int distance(const ShadowView *v, ShadowSlot s, ShadowSlot with)
{
    uint32_t a, b, warp_a, warp_b;
    if (same_thread(s, with))
        return 0;
    if (!v->kernel || !shadow_segment_place(slot_segment(s), &a, &warp_a) ||
        !shadow_segment_place(slot_segment(with), &b, &warp_b))
        return 1;
    return a != b ? 3 : warp_a != warp_b ? 2 : slot_lane(s) != slot_lane(with);
}

/* ------------------------------------------------------------ what a cell keeps */

/* Whether two accesses look the same to all that is to come: of one operation that is over,
 * or both before this block's last barrier. */
static bool slots_alike(const ShadowView *v, ShadowSlot a, ShadowSlot b)
{
    if (slot_empty(a) || slot_empty(b) || slot_kind(a) != slot_kind(b))
        return false;
    if (slot_segment(a) < v->op_first && slot_segment(b) < v->op_first)
        return shadow_op_of(a) == shadow_op_of(b);
    return slot_segment(a) - v->block_first < v->epoch_span &&
           slot_segment(b) - v->block_first < v->epoch_span;
}

/* Makes one of two accesses, if two are alike. */
static bool slots_merge(const ShadowView *v, Slots *c)
{
    for (int i = 1; i < c->n; i++) {
        for (int k = i + 1; k < c->n; k++) {
            if (slots_alike(v, c->slot[i], c->slot[k])) {
                c->slot[i] |= (ShadowSlot)slot_mask(c->slot[k]) << SLOT_MASK;
                c->slot[k] = 0;
                return true;
            }
        }
    }
    return false;
}

static void slots_add(const ShadowView *v, Slots *c, ShadowSlot s)
{
    do {
        for (int i = 1; i < c->n; i++) {
            if (slot_empty(c->slot[i])) {
                c->slot[i] = s;
                return;
            }
        }
    } while (slots_merge(v, c));
    if (c->n < SLOTS)
        c->slot[c->n++] = s;
}

static void note_read(ShadowView *v, Slots *c, ShadowSlot me)
{
    uint32_t mask = slot_mask(me);
    int others[SLOTS], n = 0;
    for (int i = 1; i < c->n; i++) {
        ShadowSlot s = c->slot[i];
        if (slot_empty(s) || slot_kind(s) != slot_kind(me))
            continue;
        if (same_thread(s, me)) {
            c->slot[i] |= (ShadowSlot)mask << SLOT_MASK;
            return;
        }
        if ((slot_mask(s) & ~mask) == 0 && before(v, s, me)) {
            c->slot[i] = me;
            return;
        }
        if (slot_segment(s) >= v->op_first && (mask & ~slot_mask(s)) == 0 && !before(v, s, me))
            others[n++] = i;
    }
    if (n == 0 || v->parts || (n == 1 && distance(v, c->slot[others[0]], me) < 3)) {
        slots_add(v, c, me);
        return;
    }
    if (n < 2)
        return;
    ShadowSlot first = c->slot[others[0]], second = c->slot[others[1]];
    if (distance(v, first, me) > distance(v, first, second) && (slot_mask(second) & ~mask) == 0)
        c->slot[others[1]] = me;
}

/* A plain write covers what was known of its bytes; what other bytes knew stays. */
static void note_plain_write(const ShadowView *v, Slots *c, const Slots *old, uint32_t mask)
{
    for (int i = 0; i < old->n; i++) {
        uint32_t rest = slot_mask(old->slot[i]) & ~mask;
        if (!slot_empty(old->slot[i]) && rest)
            slots_add(v, c, with_mask(old->slot[i], rest));
    }
}

/* An atomic write covers no plain access, for another atomic one may still conflict with
 * that. Atomic accesses that are unordered with it stay, of one kernel one of them: a plain
 * access may be ordered after some of them only. */
static void note_atomic_write(ShadowView *v, Slots *c, const Slots *old, ShadowSlot me)
{
    ShadowSlot farthest = 0;
    int best = 0;
    for (int i = 0; i < old->n; i++) {
        ShadowSlot s = with_mask(old->slot[i], slot_mask(old->slot[i]));
        if (slot_empty(s))
            continue;
        bool covered = slot_kind(s) == SHADOW_ATOMIC && (slot_mask(s) & ~slot_mask(me)) == 0;
        if (covered && before(v, s, me))
            continue;
        if (!covered || v->parts || slot_segment(s) < v->op_first) {
            slots_add(v, c, s);
        } else if (distance(v, s, me) > best) {
            best = distance(v, s, me);
            farthest = s;
        }
    }
    if (farthest)
        slots_add(v, c, farthest);
}

static void note_write(ShadowView *v, Slots *c, ShadowSlot me, uint32_t init)
{
    Slots old = *c;
    *c = (Slots){{me | init | slot_mask(me)}, 4};
    if (slot_kind(me) == SHADOW_ATOMIC)
        note_atomic_write(v, c, &old, me);
    else
        note_plain_write(v, c, &old, slot_mask(me));
}

/* ----------------------------------------------------------------- the cell itself */

static void slots_load(const ShadowView *v, const ShadowCell *cell, Slots *c)
{
    c->n = 4;
    for (int i = 0; i < 4; i++) {
        bool stale = v->shared && slot_segment(cell->slot[i]) < v->floor;
        c->slot[i] = stale ? 0 : cell->slot[i];
    }
    if (c->slot[0] & SLOT_MORE)
        c->n += shadow_spill_take(cell, c->slot + 4);
    c->slot[0] &= ~SLOT_MORE;
}

static void slots_store(ShadowCell *cell, Slots *c)
{
    int n = 1;
    for (int i = 1; i < c->n; i++) {
        if (!slot_empty(c->slot[i]))
            c->slot[n++] = c->slot[i];
    }
    while (n < 4)
        c->slot[n++] = 0;
    if (n > 4 && shadow_spill_put(cell, c->slot + 4, n - 4))
        c->slot[0] |= SLOT_MORE;
    for (int i = 0; i < 4; i++)
        cell->slot[i] = c->slot[i];
}

ShadowVerdict shadow_check(ShadowView *v, ShadowCell *cell, ShadowSlot me, ShadowSlot *other)
{
    Slots c;
    slots_load(v, cell, &c);
    ShadowVerdict verdict = SHADOW_FINE;
    uint32_t kind = slot_kind(me), mask = slot_mask(me), init = (uint32_t)c.slot[0] & 15;
    if (kind != SHADOW_WRITE && !(me & SLOT_STORE) && (mask & ~init) != 0) {
        verdict = SHADOW_UNWRITTEN;
        if (!v->op || !v->op->misled) { /* who is misled is not told of, others are: once */
            init |= mask;
            c.slot[0] |= init;
        }
    }
    me &= ~SLOT_STORE;
    for (int i = 0; i < c.n; i++) {
        ShadowSlot s = c.slot[i];
        if (!slot_empty(s) && (slot_mask(s) & mask) && shadow_conflicts(slot_kind(s), kind) &&
            !before(v, s, me)) {
            verdict = SHADOW_CONFLICT;
            *other = s;
            break;
        }
    }
    if (is_write(me))
        note_write(v, &c, me, init);
    else
        note_read(v, &c, me);
    slots_store(cell, &c);
    return verdict;
}
