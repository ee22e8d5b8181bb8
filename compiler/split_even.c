/* split_even.c - the cut whose largest piece is smallest.
 *
 * In:  an outline, with what is annotated.
 * Out: the gaps between units that are annotated; for every unit its piece.
 *
 * A search over the greedy fill, exact for contiguous parts; among cuts that are as good the one at
 * the neatest places is taken. Gaps are filled one after the other; loads of earlier ones count for
 * later ones. */
#include <string.h>

#include "split.h"

static double weigh(const SplitGaps *s, int unit)
{
    const Unit *u = &s->o->units.at[unit];
    return s->goal == SPLIT_TIME ? unit_work(u) : (double)u->fixed;
}

static void find_gaps(SplitGaps *s)
{
    const Outline *o = s->o;
    const int n = o->units.n;
    bool *held = ARENA_ARRAY(s->o->arena, bool, o->npieces);
    int before = NONE;
    s->gap_of = ARENA_ARRAY(s->o->arena, int, n + 1);
    for (int u = 0; u < n; u++) {
        s->gap_of[u] = NONE;
        if (o->units.at[u].device != NONE)
            held[o->units.at[u].device] = true;
    }
    for (int u = 0; u < n;) {
        if (o->units.at[u].device != NONE) {
            before = o->units.at[u++].device;
            continue;
        }
        SplitGap g = {.from = u, .lo = before == NONE ? 0 : before};
        for (; u < n && o->units.at[u].device == NONE; u++)
            s->gap_of[u] = s->gaps.n;
        g.to = u;
        g.hi = u < n ? o->units.at[u].device : o->npieces - 1;
        g.hi = g.hi < g.lo ? g.lo : g.hi;
        VEC_PUSH(s->o->arena, &s->gaps, g);
    }
    s->wanted = ARENA_ARRAY(s->o->arena, bool, (s->gaps.n + 1) * o->npieces);
    for (int i = 0; i < s->gaps.n; i++) {
        const SplitGap *g = &s->gaps.at[i];
        bool *wanted = &s->wanted[i * o->npieces];
        int count = 0;
        for (int k = g->lo; k <= g->hi; k++) {
            wanted[k] = !held[k];
            held[k] = true;
            count += wanted[k];
        }
        if (count > g->to - g->from)
            memset(wanted, 0, sizeof *wanted * (size_t)o->npieces);
    }
}

SplitGaps split_gaps(const Outline *o, SplitGoal goal)
{
    SplitGaps s = {.o = o, .goal = goal, .load = ARENA_ARRAY(o->arena, double, o->npieces)};
    find_gaps(&s);
    return s;
}

/* Fills pieces lo to hi from the front with units [from, to); false when they do not fit
 * under `limit`, which only the last may pass. */
static bool gap_fits(const SplitGaps *s, const SplitGap *g, double limit)
{
    int k = g->lo;
    double load = s->load[k];
    for (int u = g->from; u < g->to; u++) {
        while (load + weigh(s, u) > limit && k < g->hi)
            load = s->load[++k];
        load += weigh(s, u);
        if (load > limit)
            return false;
    }
    return true;
}

/* How neat a cut before a unit is: 0 is neatest. */
static int depth_at(const SplitGaps *s, int unit)
{
    return unit < s->o->units.n ? s->o->units.at[unit].depth : 0;
}

/* The neatest place for a cut near `to`, where piece k, which begins at `from`, stays under the
 * limit, and the rest of the gap fits as well. `load` is the piece's up to `to`; `wants` units are
 * left. */
static int find_neat(const SplitGaps *s, const SplitGap *g, int k, int from, int to, double load,
                     int wants, double limit)
{
    enum { NEAR = 32 };
    int best = to;
    double before = load, after = load;
    for (int off = 1; off <= NEAR; off++) {
        if (to - off >= from)
            before -= weigh(s, to - off);
        if (to + off <= g->to)
            after += weigh(s, to + off - 1);
        const int places[2] = {to - off, to + off};
        for (int side = 0; side < 2; side++) {
            const int at = places[side];
            if (at <= from || at > g->to - wants || (side && after > limit) ||
                depth_at(s, at) >= depth_at(s, best) ||
                !gap_fits(s, &(SplitGap){at, g->to, k + 1, g->hi}, limit))
                continue;
            best = at;
        }
    }
    return best;
}

/* Cuts one gap under `limit` (which it fits). */
static void gap_cut(SplitGaps *s, int gap, int *piece, double limit)
{
    const Outline *o = s->o;
    const SplitGap *g = &s->gaps.at[gap];
    const bool *wanted = &s->wanted[gap * o->npieces];
    double left = 0, others = 0;
    int from = g->from, wants = 0;
    for (int u = g->from; u < g->to; u++)
        left += weigh(s, u);
    for (int k = g->lo; k <= g->hi; k++)
        others += s->load[k], wants += wanted[k];
    for (int k = g->lo; k <= g->hi; k++) {
        const double even = (left + others) / (g->hi - k + 1);
        double load = s->load[k];
        int to = from;
        others -= load;
        wants -= wanted[k];
        /* as near to an even share as possible, with enough left for the rest to want, and no
         * more than the rest can take */
        while (to < g->to - wants && load + weigh(s, to) <= limit &&
               (k == g->hi || load + weigh(s, to) / 2 <= even || (to == from && wanted[k]) ||
                !gap_fits(s, &(SplitGap){to, g->to, k + 1, g->hi}, limit)))
            load += weigh(s, to++);
        if (to == from && wanted[k] && to < g->to)
            load += weigh(s, to++);
        if (k < g->hi && to > from)
            to = find_neat(s, g, k, from, to, load, wants, limit);
        for (; from < to; from++) {
            piece[from] = k;
            s->load[k] += weigh(s, from);
            left -= weigh(s, from);
        }
    }
    for (; from < g->to; from++) {
        piece[from] = g->hi;
        s->load[g->hi] += weigh(s, from);
    }
}

void split_gaps_evenly(SplitGaps *s, int *piece)
{
    const Outline *o = s->o;
    memset(s->load, 0, sizeof *s->load * (size_t)o->npieces);
    for (int u = 0; u < o->units.n; u++)
        if (o->units.at[u].device != NONE) {
            piece[u] = o->units.at[u].device;
            s->load[piece[u]] += weigh(s, u);
        }
    for (int i = 0; i < s->gaps.n; i++) {
        const SplitGap *g = &s->gaps.at[i];
        double low = 0, high = 0;
        for (int k = 0; k < o->npieces; k++)
            high = s->load[k] > high ? s->load[k] : high;
        for (int u = g->from; u < g->to; u++)
            high += weigh(s, u);
        for (int turn = 0; turn < 60; turn++) {
            const double mid = (low + high) / 2;
            if (gap_fits(s, g, mid))
                high = mid;
            else
                low = mid;
        }
        gap_cut(s, i, piece, high * SPLIT_EQUAL);
    }
}

void split_evenly(const Outline *o, int *piece)
{
    SplitGaps s = split_gaps(o, SPLIT_TIME);
    split_gaps_evenly(&s, piece);
}
