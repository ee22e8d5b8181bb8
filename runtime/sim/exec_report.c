/* exec_report.c - the text of findings in kernels.
 *
 * In: a thread, a place in the kernel, what is wrong. Out: a report that names kernel, source
 * line, block, thread, address, device and stream, and in races the same of the other side.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#include "exec.h"

char *exec_where(const Exec *e, uint32_t site, char *out, size_t size)
{
    const SimKernelTable *t = e->table;
    const SimSite *s = t->sites && site < t->nsites ? &t->sites[site] : NULL;
    if (s && !(s->file && s->line) && t->nsites)
        s = &t->sites[0];
    if (s && s->file && s->line)
        snprintf(out, size, "%s (%s:%d)", e->op->name, s->file, s->line);
    else
        snprintf(out, size, "%s", e->op->name);
    return out;
}

char *exec_thread_name(const Exec *e, uint32_t index, char *out, size_t size)
{
    const uint32_t *t = e->threads[index].simt.tid;
    snprintf(out, size, "(%u,%u,%u)", t[0], t[1], t[2]);
    return out;
}

char *exec_place(const Exec *e, const ExecThread *th, char *out, size_t size)
{
    const uint32_t *t = th->simt.tid;
    snprintf(out, size, "block (%u,%u,%u) thread (%u,%u,%u)", e->block[0], e->block[1], e->block[2],
             t[0], t[1], t[2]);
    return out;
}

char *exec_stream(const Exec *e, char *out, size_t size)
{
    return sim_stream_describe(e->op->stream, out, size);
}

static bool seen_before(const Exec *e, SimFinding finding, uint32_t site, uint32_t other_op,
                        uint32_t other_site)
{
    for (uint32_t i = 0; i < e->nseen; i++) {
        if (e->seen[i].finding == (uint32_t)finding && e->seen[i].site == site &&
            e->seen[i].other_op == other_op && e->seen[i].other_site == other_site)
            return true;
    }
    return e->nseen == EXEC_SEEN;
}

bool exec_seen(Exec *e, SimFinding finding, uint32_t site, uint32_t other_op, uint32_t other_site)
{
    if (seen_before(e, finding, site, other_op, other_site))
        return true;
    e->seen[e->nseen].finding = (uint32_t)finding;
    e->seen[e->nseen].site = site;
    e->seen[e->nseen].other_op = other_op;
    e->seen[e->nseen++].other_site = other_site;
    return false;
}

static const char *verb_of(int access)
{
    switch (access & 7) {
    case 1:
        return "reads";
    case 2:
        return "writes";
    case 5:
        return "reads (atomic)";
    case 6:
        return "writes (atomic)";
    default:
        return "changes (atomic)";
    }
}

/* "kernel k (k.cu:12) reads 4 bytes at 0x... (detail), block ... thread ..., gpu ..." */
static char *access_describe(const ExecThread *th, uint32_t site, uint64_t address, uint32_t bytes,
                             int access, const char *detail, char *out, size_t size)
{
    const Exec *e = th->exec;
    char where[512], place[128], stream[128];
    snprintf(out, size, "%s %s %u byte%s at 0x%" PRIx64 " (%s), %s, %s",
             exec_where(e, site, where, sizeof where), verb_of(access), bytes,
             bytes == 1 ? "" : "s", address, detail, exec_place(e, th, place, sizeof place),
             exec_stream(e, stream, sizeof stream));
    return out;
}

void exec_report_access(ExecThread *th, SimFinding finding, uint32_t site, uint64_t address,
                        uint32_t bytes, int access, const char *detail)
{
    char text[1024];
    if (th->exec->op->misled || exec_seen(th->exec, finding, site, 0, 0))
        return;
    sim_report(finding, "%s",
               access_describe(th, site, address, bytes, access, detail, text, sizeof text));
}

void exec_report_early(ExecThread *th, const SimBlockOfMemory *m, uint32_t site, uint64_t address,
                       uint32_t bytes, int access)
{
    char memory[256], text[1024], other[512];
    if (th->exec->op->misled || exec_seen(th->exec, SIM_RACE, site, UINT32_MAX, 0))
        return;
    sim_memory_describe(address, memory, sizeof memory);
    sim_history_describe(m->given_stream, m->given, other, sizeof other);
    sim_report(SIM_RACE,
               "%s\nother side: %s\nnothing orders the two: an event wait is missing before memory "
               "is used that another stream allocates",
               access_describe(th, site, address, bytes, access, memory, text, sizeof text), other);
}

/* What would order a conflict within a kernel. */
static const char *remedy(const ExecThread *th, ShadowSlot other)
{
    uint32_t block, warp;
    if (!shadow_segment_place(slot_segment(other), &block, &warp) ||
        block != (uint32_t)th->exec->block_number)
        return "nothing orders the blocks of a grid";
    if (warp == th->simt.warp)
        return "no barrier lies between the two: __syncthreads() or __syncwarp() is missing";
    return "no barrier lies between the two: __syncthreads() is missing";
}

/* Where the text of a first read at the site belongs; NULL: there was one. */
static ExecUnwritten *unwritten_new(Exec *e, uint32_t site, bool shared)
{
    for (uint32_t i = 0; i < e->nunwritten; i++) {
        if (e->unwritten[i].site == site && e->unwritten[i].shared == shared)
            return NULL;
    }
    if (e->nunwritten == EXEC_UNWRITTEN || seen_before(e, SIM_UNINITIALISED, site, 0, 0))
        return NULL;
    ExecUnwritten *u = &e->unwritten[e->nunwritten++];
    u->site = site;
    u->shared = shared;
    return u;
}

/* Reads at the site turn out to race: so they are told of, and no more. */
static void unwritten_drop(Exec *e, uint32_t site)
{
    uint32_t n = 0;
    exec_seen(e, SIM_UNINITIALISED, site, 0, 0);
    for (uint32_t i = 0; i < e->nunwritten; i++) {
        if (e->unwritten[i].site != site)
            e->unwritten[n++] = e->unwritten[i];
    }
    e->nunwritten = n;
}

void exec_report_unwritten(Exec *e, bool all)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < e->nunwritten; i++) {
        const ExecUnwritten *u = &e->unwritten[i];
        if (!all && !u->shared)
            e->unwritten[n++] = *u;
        else if (!exec_seen(e, SIM_UNINITIALISED, u->site, 0, 0))
            sim_report(SIM_UNINITIALISED, "%s\nnothing has written there before", u->text);
    }
    e->nunwritten = n;
}

void exec_report_shadow(ExecThread *th, ShadowVerdict verdict, ShadowSlot other, uint32_t site,
                        uint64_t address, uint32_t bytes, int access, bool shared)
{
    Exec *e = th->exec;
    char memory[256], text[1024], side[768];
    bool within = slot_segment(other) >= e->view.op_first;
    SimFinding finding = within ? SIM_RACE_BLOCK : SIM_RACE;
    ExecUnwritten *kept = NULL;
    if (!shared && shadow_misled(e->op, other))
        return;
    if (verdict == SHADOW_UNWRITTEN) {
        kept = unwritten_new(e, site, shared);
        if (!kept)
            return;
    } else {
        unwritten_drop(e, site);
        unwritten_drop(e, within ? slot_site(other) : site);
        if (exec_seen(e, finding, site, shadow_op_of(other), slot_site(other)))
            return;
    }
    if (shared)
        snprintf(memory, sizeof memory, "offset %" PRIu64 " of shared memory", address);
    else
        sim_memory_describe(address, memory, sizeof memory);
    access_describe(th, site, shared ? SIM_SHARED_WINDOW + address : address, bytes, access, memory,
                    text, sizeof text);
    if (kept)
        snprintf(kept->text, sizeof kept->text, "%s", text);
    else
        sim_report(finding, "%s\nother side: %s\n%s", text,
                   shadow_other_describe(other, side, sizeof side),
                   within ? remedy(th, other) : "nothing orders the two: an event wait is missing");
}
