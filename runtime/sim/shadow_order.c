/* shadow_order.c - what happened before what among the threads of a kernel.
 *
 * In: blocks as they begin, barriers, warp synchronisations, fences and atomic accesses.
 * Out: whether an access of another thread happened before one of the running thread.
 *
 * A barrier of the whole block orders everything before it; the view knows (epoch_span). A
 * synchronisation of a whole warp orders the warp's segments before it (`whole`). For parts
 * of a warp or of a block each thread keeps, for every other thread, the last segment of it
 * that it knows to be over (`known`, a vector clock), joined where threads meet.
 *
 * Threads of different blocks are ordered by fences and atomic accesses alone: an atomic
 * write after a fence releases, at its address, what the thread knew at the fence; an atomic
 * read at the address acquires all that was released there so far, if the thread fences too,
 * before or after. What was acquired at another address and is released again is not followed.
 * Shared memory is another one in every block, and so are the addresses in it.
 */
#include <stdlib.h>
#include <string.h>

#include "shadow.h"

enum { PLACES = 1 << 18, CHANNELS = 1024, ACQUIRED_MAX = 1 << 20 };

/* What is before it: of its block what lies before epoch_first, of its warp what lies before
 * `whole`, and of n threads from `first` on what is known (kept beside). All below `end`. */
typedef struct {
    uint32_t segment, epoch_first, whole, end;
    uint16_t first, n;
} Fence;

typedef struct {
    uint32_t block_first;
    uint16_t thread;
    bool block_only;
    Fence fence;
    uint32_t *known; /* of the fence's threads, as it was at the fence */
} Release;

typedef struct Channel { /* an address at which something was released */
    struct Channel *next;
    uint64_t address;
    uint32_t block_first; /* of the block that a shared address belongs to */
    Release *releases;
    uint32_t n, room;
    uint32_t acquired; /* of the releases so many were acquired */
    uint32_t end;      /* all that was released lies below */
} Channel;

typedef struct {
    uint32_t thread, segment, n, end; /* the first n releases, which lie below `end` */
    const Channel *channel;
    bool fenced;
} Acquire;

static struct {
    uint32_t segment, block, warp;
} places[PLACES];

static struct {
    uint32_t block, warps, block_first, epoch_first;
    uint32_t whole[SHADOW_WARPS];
    bool partial, crossing; /* `known` is used: within warps, between warps */
    uint32_t (*known)[SHADOW_THREADS];
    Fence fences[2][SHADOW_THREADS]; /* of a block's scope, of a device's */
    uint32_t (*fence_known[2])[SHADOW_THREADS];
    Channel *channels[CHANNELS];
    bool released;
    Acquire *acquired;
    uint32_t nacquired, acquired_room, acquired_end;
    uint32_t last_acquired[SHADOW_THREADS]; /* by each thread: where it is */
} now;

static _Noreturn void memory_failed(void)
{
    fprintf(stderr, "mdl-sim: no memory left for race checking\n");
    _Exit(SIM_EXIT);
}

static uint32_t segments_at(uint32_t first_warp, uint32_t n)
{
    uint32_t first = shadow_segments(n);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t at = (first + i) % PLACES;
        places[at].segment = first + i;
        places[at].block = now.block;
        places[at].warp = first_warp + i;
    }
    return first;
}

bool shadow_segment_place(uint32_t segment, uint32_t *block, uint32_t *warp)
{
    uint32_t at = segment % PLACES;
    if (places[at].segment != segment)
        return false;
    *block = places[at].block;
    *warp = places[at].warp;
    return true;
}

static void channel_clear(Channel *c)
{
    for (uint32_t i = 0; i < c->n; i++)
        free(c->releases[i].known);
    c->n = c->acquired = c->end = 0;
}

void shadow_order_reset(void)
{
    for (int i = 0; now.released && i < CHANNELS; i++) {
        while (now.channels[i]) {
            Channel *c = now.channels[i];
            now.channels[i] = c->next;
            channel_clear(c);
            free(c->releases);
            free(c);
        }
    }
    now.released = false;
    now.nacquired = now.acquired_end = 0;
}

void shadow_order_forget(void)
{
    shadow_order_reset();
    if (now.known)
        memset(now.known, 0, SHADOW_THREADS * sizeof *now.known);
    memset(now.fences, 0, sizeof now.fences);
    memset(places, 0, sizeof places);
}

uint32_t shadow_block_begin(ShadowView *global, ShadowView *shared, uint32_t block, uint32_t warps)
{
    now.block = block;
    now.warps = warps;
    now.block_first = now.epoch_first = segments_at(0, warps);
    memset(now.whole, 0, sizeof now.whole);
    now.partial = now.crossing = false;
    now.nacquired = now.acquired_end = 0;
    global->block_first = shared->block_first = now.block_first;
    global->epoch_span = shared->epoch_span = 0;
    global->warps = shared->warps = warps;
    shared->floor = shared->op_first = now.block_first;
    return now.block_first;
}

uint32_t shadow_block_barrier(ShadowView *global, ShadowView *shared)
{
    now.epoch_first = segments_at(0, now.warps);
    now.partial = now.crossing = false;
    global->epoch_span = shared->epoch_span = now.epoch_first - now.block_first;
    return now.epoch_first;
}

/* ------------------------------------------------------ parts of warps and blocks */

static void known_make(uint32_t (**known)[SHADOW_THREADS])
{
    if (!*known)
        *known = calloc(SHADOW_THREADS, sizeof **known);
    if (!*known)
        memory_failed();
}

/* The threads meet: all of them know what one of them knew, and each other's segments; of
 * other threads numbered from ... to - 1. */
static void known_join(const uint16_t *threads, uint32_t n, const uint32_t *segments, uint32_t from,
                       uint32_t to)
{
    uint32_t join[SHADOW_THREADS];
    known_make(&now.known);
    memset(join, 0, sizeof join);
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t *row = now.known[threads[i]];
        for (uint32_t k = from; k < to; k++)
            join[k] = row[k] > join[k] ? row[k] : join[k];
    }
    for (uint32_t i = 0; i < n; i++) {
        uint32_t warp = threads[i] / 32, t = threads[i];
        join[t] = segments[i] > join[t] ? segments[i] : join[t];
        for (uint32_t k = warp * 32; k < warp * 32 + 32 && now.whole[warp]; k++)
            join[k] = now.whole[warp] - 1 > join[k] ? now.whole[warp] - 1 : join[k];
    }
    for (uint32_t i = 0; i < n; i++)
        memcpy(now.known[threads[i]] + from, join + from, (to - from) * sizeof *join);
}

uint32_t shadow_warp_sync(uint32_t warp, uint32_t lanes, bool whole, const uint32_t *segments)
{
    uint16_t threads[32];
    uint32_t of[32], n = 0;
    for (uint32_t lane = 0; lane < 32; lane++) {
        if (lanes >> lane & 1) {
            threads[n] = (uint16_t)(warp * 32 + lane);
            of[n++] = segments[lane];
        }
    }
    if (now.crossing)
        known_join(threads, n, of, 0, now.warps * 32);
    else if (!whole)
        known_join(threads, n, of, warp * 32, warp * 32 + 32);
    now.partial = now.partial || !whole;
    uint32_t segment = segments_at(warp, 1);
    if (whole)
        now.whole[warp] = segment;
    return segment;
}

void shadow_part_barrier(const uint16_t *threads, uint32_t n, uint32_t *segments)
{
    uint32_t warps[SHADOW_WARPS] = {0};
    known_join(threads, n, segments, 0, now.warps * 32);
    now.partial = now.crossing = true;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t warp = threads[i] / 32;
        if (!warps[warp])
            warps[warp] = segments_at(warp, 1);
        segments[i] = warps[warp];
    }
}

/* Whether segment `segment` of a thread of the running block was over for thread `me`. */
static bool block_before(uint32_t segment, uint32_t thread, uint32_t me)
{
    uint32_t warp = thread / 32;
    if (thread == me || segment < now.epoch_first)
        return true;
    if (warp == me / 32 && segment < now.whole[warp])
        return true;
    return (now.partial || now.crossing) && now.known && now.known[me][thread] >= segment;
}

/* -------------------------------------------------------- fences and atomic accesses */

static Channel *channel_of(uint64_t address, bool make)
{
    Channel **place = &now.channels[address / 4 % CHANNELS];
    bool shared = address - SIM_SHARED_WINDOW < SIM_WINDOW_SPAN;
    for (Channel *c = *place; c; c = c->next) {
        if (c->address != address)
            continue;
        if (shared && c->block_first != now.block_first)
            channel_clear(c);
        c->block_first = now.block_first;
        return c;
    }
    Channel *c = make ? calloc(1, sizeof *c) : NULL;
    if (!c)
        return NULL;
    c->address = address;
    c->block_first = now.block_first;
    c->next = *place;
    *place = c;
    now.released = true;
    return c;
}

static bool fence_same(const Fence *a, const Fence *b)
{
    return a->segment == b->segment && a->epoch_first == b->epoch_first && a->whole == b->whole;
}

/* A release takes the place of its thread's last one if nobody has acquired that since. */
static void channel_release(Channel *c, uint32_t thread, bool block_only)
{
    const Fence *f = &now.fences[!block_only][thread];
    Release *last = c->n ? &c->releases[c->n - 1] : NULL;
    if (last && (last->block_first != now.block_first || last->thread != thread ||
                 last->block_only != block_only))
        last = NULL;
    if (last && fence_same(&last->fence, f))
        return;
    if (last && c->acquired < c->n)
        free(c->releases[--c->n].known);
    if (c->n == c->room) {
        uint32_t room = c->room ? c->room * 2 : 16;
        Release *more = realloc(c->releases, room * sizeof *more);
        if (!more)
            memory_failed();
        c->releases = more;
        c->room = room;
    }
    Release r = {now.block_first, (uint16_t)thread, block_only, *f, NULL};
    if (f->n) {
        r.known = malloc(f->n * sizeof *r.known);
        if (!r.known)
            memory_failed();
        memcpy(r.known, &now.fence_known[!block_only][thread][f->first], f->n * sizeof *r.known);
    }
    c->releases[c->n++] = r;
    c->end = f->end > c->end ? f->end : c->end;
}

uint32_t shadow_fence(uint32_t thread, uint32_t segment, bool block_only)
{
    Fence *f = &now.fences[!block_only][thread];
    *f = (Fence){segment, now.epoch_first, now.whole[thread / 32], shadow_segments(0), 0, 0};
    if (now.partial || now.crossing) {
        known_make(&now.known);
        known_make(&now.fence_known[!block_only]);
        f->first = (uint16_t)(now.crossing ? 0 : thread / 32 * 32);
        f->n = (uint16_t)(now.crossing ? now.warps * 32 : 32);
        memcpy(&now.fence_known[!block_only][thread][f->first], &now.known[thread][f->first],
               f->n * sizeof **now.known);
    }
    uint32_t next = segments_at(thread / 32, 1);
    for (uint32_t i = 0; i < now.nacquired; i++) {
        Acquire *a = &now.acquired[i];
        if (a->thread == thread && !a->fenced) {
            a->fenced = true;
            a->segment = next;
        }
    }
    return next;
}

/* A thread that looks at an address again and again acquires what is new there. */
static void channel_acquire(Channel *c, uint32_t thread, uint32_t segment, bool fenced)
{
    uint32_t last = now.last_acquired[thread];
    Acquire *a = last < now.nacquired ? &now.acquired[last] : NULL;
    c->acquired = c->n;
    now.acquired_end = c->end > now.acquired_end ? c->end : now.acquired_end;
    if (a && a->thread == thread && a->channel == c && (a->n == c->n || !a->fenced)) {
        a->n = c->n;
        a->end = c->end;
        return;
    }
    if (now.nacquired == now.acquired_room) {
        uint32_t room = now.acquired_room ? now.acquired_room * 2 : 1024;
        Acquire *more = room <= ACQUIRED_MAX ? realloc(now.acquired, room * sizeof *more) : NULL;
        if (!more)
            return;
        now.acquired = more;
        now.acquired_room = room;
    }
    now.last_acquired[thread] = now.nacquired;
    now.acquired[now.nacquired++] = (Acquire){thread, segment, c->n, c->end, c, fenced};
}

void shadow_atomic(uint32_t thread, uint32_t segment, uint64_t address, uint32_t kind)
{
    const Fence *wide = &now.fences[1][thread], *narrow = &now.fences[0][thread];
    bool has_wide = wide->segment >= now.block_first;
    bool has_narrow = narrow->segment >= now.block_first;
    bool writes = kind == SHADOW_ATOMIC;
    if (!now.released && !has_wide && !has_narrow)
        return;
    Channel *c = channel_of(address, writes && (has_wide || has_narrow));
    if (!c)
        return;
    if (c->n)
        channel_acquire(c, thread, segment, has_wide || has_narrow);
    if (writes && has_wide)
        channel_release(c, thread, false);
    if (writes && has_narrow && (!has_wide || narrow->segment > wide->segment))
        channel_release(c, thread, true);
}

/* Whether the release covers an access. Its warp may be forgotten, then it is believed. */
static bool release_covers(const Release *r, uint32_t segment, uint32_t lane)
{
    uint32_t block, warp;
    const Fence *f = &r->fence;
    if (r->block_only && r->block_first != now.block_first)
        return false;
    if (segment < f->epoch_first)
        return true;
    if (!shadow_segment_place(segment, &block, &warp))
        return true;
    uint32_t thread = warp * 32 + lane;
    if (thread - f->first < f->n && segment <= r->known[thread - f->first])
        return true;
    if (warp != r->thread / 32u)
        return false;
    return segment < f->whole || (thread == r->thread && segment <= f->segment);
}

/* Whether one of the first n releases covers the access; they are in the blocks' order. */
static bool channel_covers(const Channel *c, uint32_t n, ShadowSlot s)
{
    uint32_t segment = slot_segment(s), low = 0, high = n;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (c->releases[middle].block_first <= segment)
            low = middle + 1;
        else
            high = middle;
    }
    for (uint32_t i = low; i > 0; i--) {
        const Release *r = &c->releases[i - 1];
        if (r->block_first != c->releases[low - 1].block_first)
            break;
        if (release_covers(r, segment, slot_lane(s)))
            return true;
    }
    return false;
}

bool shadow_thread_before(const ShadowView *v, ShadowSlot s, ShadowSlot me)
{
    uint32_t segment = slot_segment(s), block, warp, thread;
    if (!shadow_segment_place(slot_segment(me), &block, &warp))
        return true;
    thread = warp * 32 + slot_lane(me);
    if (segment >= v->block_first) {
        if (!shadow_segment_place(segment, &block, &warp) ||
            block_before(segment, warp * 32 + slot_lane(s), thread))
            return true;
    }
    for (uint32_t i = segment < now.acquired_end ? now.nacquired : 0; i > 0; i--) {
        const Acquire *a = &now.acquired[i - 1];
        if (a->fenced && segment < a->end && block_before(a->segment, a->thread, thread) &&
            channel_covers(a->channel, a->n, s))
            return true;
    }
    return false;
}
