/* exec_warp.c - what the lanes of a warp do together: shuffles, votes, warp barriers.
 *
 * In: lanes that arrive at an instruction with a mask. Out: when all lanes of the mask that
 * have not ended arrived at one with the same qualifiers and mask, each has its result and
 * goes on. A shuffle that reads from a lane that did not come is reported.
 *
 * Only bar.warp.sync orders memory; CUDA says of shuffles, votes and the like that they do not.
 */
#include <string.h>

#include "exec.h"

static uint32_t code_of(ExecWarpKind kind, uint32_t qualifiers)
{
    return (uint32_t)kind << 8 | qualifiers;
}

static void warp_report(ExecThread *th, uint32_t site, const char *text)
{
    Exec *e = th->exec;
    char where[512], place[128], stream[128];
    if (!exec_seen(e, SIM_WARP, site, 0, 0))
        sim_report(SIM_WARP, "%s: %s, lane %u of the warp, %s, %s",
                   exec_where(e, site, where, sizeof where), text, th->simt.lane,
                   exec_place(e, th, place, sizeof place), exec_stream(e, stream, sizeof stream));
}

static ExecThread *lane_of(const ExecThread *th, uint32_t lane)
{
    return &th->exec->threads[th->simt.warp * 32 + lane];
}

/* --------------------------------------------------------------------- results */

/* PTX's shfl.sync: the lane that `th` reads from, and whether it lies in its segment. */
static uint32_t shuffle_source(const ExecThread *th, SimShuffle kind, bool *valid)
{
    int lane = (int)th->simt.lane, b = (int)(th->operand & 31);
    int clamp = (int)(th->clamp & 31), segments = (int)(th->clamp >> 8 & 31);
    int low = lane & segments, high = low | (clamp & ~segments), source;
    switch (kind) {
    case SIM_SHFL_UP:
        source = lane - b;
        *valid = source >= high;
        break;
    case SIM_SHFL_DOWN:
        source = lane + b;
        *valid = source <= high;
        break;
    case SIM_SHFL_BFLY:
        source = lane ^ b;
        *valid = source <= high;
        break;
    default:
        source = low | (b & ~segments);
        *valid = source <= high;
        break;
    }
    return (uint32_t)(*valid ? source : lane);
}

static void shuffle_finish(const ExecGroup *g, ExecThread *th)
{
    uint32_t source = shuffle_source(th, (SimShuffle)(g->code & 0xff), &th->valid);
    if (!(g->arrived >> source & 1)) {
        const ExecWarp *w = &th->exec->warps[th->simt.warp];
        const char *absence = !(w->lanes >> source & 1)  ? "does not exist"
                              : !(g->mask >> source & 1) ? "is not in the mask"
                                                         : "has ended";
        char text[160];
        snprintf(text, sizeof text, "reads from lane %u, which %s; the mask is 0x%08x", source,
                 absence, g->mask);
        warp_report(th, th->site, text);
        th->result = 0;
        return;
    }
    th->result = (uint32_t)lane_of(th, source)->value;
}

static uint32_t vote_result(SimVote kind, uint32_t ballot, uint32_t lanes)
{
    switch (kind) {
    case SIM_VOTE_ALL:
        return ballot == lanes;
    case SIM_VOTE_ANY:
        return ballot != 0;
    case SIM_VOTE_UNI:
        return ballot == 0 || ballot == lanes;
    default:
        return ballot;
    }
}

static uint32_t combine(SimRed kind, bool is_signed, uint32_t a, uint32_t b)
{
    bool less = is_signed ? (int32_t)a < (int32_t)b : a < b;
    switch (kind) {
    case SIM_RED_ADD:
        return a + b;
    case SIM_RED_MIN:
        return less ? a : b;
    case SIM_RED_MAX:
        return less ? b : a;
    case SIM_RED_AND:
        return a & b;
    case SIM_RED_OR:
        return a | b;
    default:
        return a ^ b;
    }
}

/* Results that are the same for all lanes: from the values of those that arrived. */
static uint32_t group_result(const ExecGroup *g, const ExecThread *th)
{
    uint32_t ballot = 0, sum = 0;
    bool first = true;
    for (uint32_t lane = 0; lane < 32; lane++) {
        if (!(g->arrived >> lane & 1))
            continue;
        uint32_t value = (uint32_t)lane_of(th, lane)->value;
        ballot |= (value != 0 ? 1u : 0) << lane;
        sum = first ? value : combine((SimRed)(g->code & 0x7f), g->code & 0x80, sum, value);
        first = false;
    }
    return g->code >> 8 == WARP_VOTE ? vote_result((SimVote)(g->code & 0xff), ballot, g->arrived)
                                     : sum;
}

static uint32_t match_result(const ExecGroup *g, const ExecThread *th)
{
    uint32_t equal = 0;
    for (uint32_t lane = 0; lane < 32; lane++) {
        if ((g->arrived >> lane & 1) && lane_of(th, lane)->value == th->value)
            equal |= 1u << lane;
    }
    return equal;
}

/* ------------------------------------------------------------------- arriving */

static void group_order(const ExecGroup *g, const ExecThread *th)
{
    uint32_t segments[32] = {0}, warp = th->simt.warp;
    for (uint32_t lane = 0; lane < 32; lane++) {
        if (g->arrived >> lane & 1)
            segments[lane] = slot_segment(lane_of(th, lane)->me);
    }
    bool whole = g->arrived == th->exec->warps[warp].lanes;
    if (!whole)
        exec_parts_note(th->exec);
    uint32_t segment = shadow_warp_sync(warp, g->arrived, whole, segments);
    for (uint32_t lane = 0; lane < 32; lane++) {
        if (g->arrived >> lane & 1)
            exec_segment(lane_of(th, lane), segment);
    }
}

/* All lanes have arrived: results for all, and all but the one that runs are made ready;
 * `of` is a thread of the warp. */
static void group_finish(const ExecGroup *g, const ExecThread *of, const ExecThread *running)
{
    Exec *e = of->exec;
    ExecWarpKind kind = (ExecWarpKind)(g->code >> 8);
    uint32_t same = kind == WARP_VOTE || kind == WARP_REDUCE ? group_result(g, of) : 0;
    if (kind == WARP_SYNC && e->race)
        group_order(g, of);
    for (uint32_t i = 0; i < 32; i++) {
        uint32_t lane = (31 - i) ^ e->flips;
        if (!(g->arrived >> lane & 1))
            continue;
        ExecThread *th = lane_of(of, lane);
        if (kind == WARP_SHUFFLE)
            shuffle_finish(g, th);
        else
            th->result = kind == WARP_MATCH ? match_result(g, th) : same;
        if (th != running)
            exec_ready(th);
    }
    e->progress++;
}

/* Lanes that have ended need not arrive. Takes the i-th group away if it is complete. */
static bool group_complete(ExecWarp *w, uint32_t i, ExecGroup *g)
{
    if (w->groups[i].arrived != (w->groups[i].mask & w->lanes & ~w->exited))
        return false;
    *g = w->groups[i];
    w->groups[i] = w->groups[--w->ngroups];
    return true;
}

void exec_warp_leave(ExecThread *th)
{
    ExecWarp *w = &th->exec->warps[th->simt.warp];
    ExecGroup g;
    for (uint32_t i = w->ngroups; i > 0; i--) {
        if (group_complete(w, i - 1, &g))
            group_finish(&g, th, NULL);
    }
}

static void warp_arrive(ExecThread *th, uint32_t code, uint32_t mask, uint32_t site)
{
    ExecWarp *w = &th->exec->warps[th->simt.warp];
    uint32_t bit = 1u << th->simt.lane, i = 0;
    if (!(mask & bit)) {
        char text[96];
        snprintf(text, sizeof text, "the calling lane is not in its own mask 0x%08x", mask);
        warp_report(th, site, text);
        mask |= bit;
    }
    while (i < w->ngroups && (w->groups[i].code != code || w->groups[i].mask != mask))
        i++;
    if (i == w->ngroups)
        w->groups[w->ngroups++] = (ExecGroup){mask, code, 0};
    w->groups[i].arrived |= bit;
    th->state = EXEC_WARP;
    th->mask = mask;
    th->code = code;
    th->site = site;
    ExecGroup g;
    if (group_complete(w, i, &g)) {
        group_finish(&g, th, th);
        th->state = EXEC_RUNS;
    } else {
        exec_wait(th);
    }
}

void exec_warp_sync(SimThread *t, uint32_t mask, uint32_t site)
{
    warp_arrive(exec_thread(t), code_of(WARP_SYNC, 0), mask, site);
}

uint32_t exec_shuffle(SimThread *t, SimShuffle kind, uint32_t value, uint32_t lane_operand,
                      uint32_t clamp, uint32_t mask, bool *valid, uint32_t site)
{
    ExecThread *th = exec_thread(t);
    th->value = value;
    th->operand = lane_operand;
    th->clamp = clamp;
    warp_arrive(th, code_of(WARP_SHUFFLE, (uint32_t)kind), mask, site);
    if (valid)
        *valid = th->valid;
    return th->result;
}

uint32_t exec_vote(SimThread *t, SimVote kind, bool predicate, uint32_t mask, uint32_t site)
{
    ExecThread *th = exec_thread(t);
    th->value = predicate;
    warp_arrive(th, code_of(WARP_VOTE, (uint32_t)kind), mask, site);
    return th->result;
}

uint32_t exec_match_any(SimThread *t, uint64_t value, uint32_t mask, uint32_t site)
{
    ExecThread *th = exec_thread(t);
    th->value = value;
    warp_arrive(th, code_of(WARP_MATCH, 0), mask, site);
    return th->result;
}

uint32_t exec_reduce(SimThread *t, SimRed kind, bool is_signed, uint32_t value, uint32_t mask,
                     uint32_t site)
{
    ExecThread *th = exec_thread(t);
    th->value = value;
    warp_arrive(th, code_of(WARP_REDUCE, (uint32_t)kind | (is_signed ? 0x80 : 0)), mask, site);
    return th->result;
}

/* The lanes that can be together at this place are: the lane waits until nothing else of the
 * block can run, because all others have ended or wait as well (exec_stall.c). */
uint32_t exec_active_mask(SimThread *t)
{
    ExecThread *th = exec_thread(t);
    th->value = (uintptr_t)__builtin_return_address(0);
    th->state = EXEC_MASK;
    exec_wait(th);
    return th->result;
}
