/* exec_access.c - loads and stores of translated kernels.
 *
 * In: a space, an address, a size, from which place in the source. Out: where the bytes are,
 * after all checks: alignment, bounds, device, use after free, and in the shadow races and
 * reads of what was never written. An access that is refused gets bytes of its own, so that
 * the kernel can go on where the process does.
 *
 * A line of the source tends to access few allocations: each keeps the last ones it found.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>

#include "exec.h"

enum { ACCESS_READ = 1, ACCESS_WRITE = 2, ACCESS_ATOMIC = 4, ACCESS_VOLATILE = 8 };
enum { SPINS = 4096 }; /* atomic and volatile accesses between two looks at other threads */

static void *refused(Exec *e)
{
    e->scratch[0] = e->scratch[1] = 0;
    return e->scratch;
}

/* The shadow's kind of an access that is no plain read or write and, in *store, whether it is
 * an atomic one that reads nothing. PTX has volatile accesses be relaxed atomic ones. A volatile
 * write without a fence before it counts as plain all the same: it publishes nothing, and tends
 * to stand where a fence or a barrier is missing. */
static uint32_t shadow_kind(const ExecThread *th, int access, ShadowSlot *store)
{
    *store = 0;
    if (access & ACCESS_READ)
        return SHADOW_ATOMIC_READ;
    if ((access & ACCESS_VOLATILE) && (access & ACCESS_WRITE) && !th->fenced)
        return SHADOW_WRITE;
    if (access & ACCESS_WRITE)
        *store = SLOT_STORE;
    return SHADOW_ATOMIC;
}

/* Judges and notes an access of n words from the i-th on; the first finding is told. */
static __attribute__((noinline)) void words_look(ExecThread *th, ShadowView *v, ShadowCell *cell,
                                                 ShadowSlot me, uint32_t i, uint32_t n,
                                                 uint64_t address, uint32_t bytes, int access,
                                                 bool known)
{
    bool told = false;
    for (; i < n; i++) {
        ShadowSlot other = 0;
        ShadowVerdict verdict = shadow_check(v, cell + i, me, &other);
        if (verdict == SHADOW_FINE || told || (verdict == SHADOW_UNWRITTEN && known))
            continue;
        told = true;
        exec_report_shadow(th, verdict, other, slot_site(me), address + i * 4, bytes, access,
                           v->shared);
    }
}

/* Notes an access of words, or of bytes in one. */
static inline void words_check(ExecThread *th, ShadowView *v, ShadowCell *cell, uint64_t address,
                               uint32_t bytes, int access, uint32_t site, bool known)
{
    uint32_t mask = bytes >= 4 ? 15 : ((1u << bytes) - 1) << (address & 3);
    uint32_t n = bytes >= 4 ? bytes / 4 : 1, i = 0;
    ShadowSlot me = th->me | (ShadowSlot)mask << SLOT_MASK |
                    (ShadowSlot)(site > 0xffff ? 0 : site) << SLOT_SITE;
    switch (access) {
    case ACCESS_READ:
        me |= SHADOW_READ << SLOT_KIND;
        while (i < n && shadow_read_fast(v, cell + i, me))
            i++;
        break;
    case ACCESS_WRITE:
        me |= SHADOW_WRITE << SLOT_KIND;
        th->fenced = false;
        while (i < n && mask == 15 && shadow_write_fast(v, cell + i, me))
            i++;
        break;
    default: {
        ShadowSlot store;
        uint32_t kind = shadow_kind(th, access, &store);
        shadow_atomic(th->index, slot_segment(me),
                      v->shared ? SIM_SHARED_WINDOW + address : address, kind);
        me |= (ShadowSlot)kind << SLOT_KIND | store;
        break;
    }
    }
    if (i < n)
        words_look(th, v, cell, me, i, n, address, bytes, access, known);
}

/* Atomic and volatile accesses in a loop may wait for another thread, which has to run. */
static void spin(ExecThread *th, uint32_t site)
{
    if (++th->spins < SPINS)
        return;
    th->spins = 0;
    th->site = site;
    th->state = EXEC_SPIN;
    exec_wait(th);
}

static void *refuse(ExecThread *th, SimFinding finding, uint32_t site, uint64_t address,
                    uint32_t bytes, int access, const char *detail)
{
    exec_report_access(th, finding, site, address, bytes, access, detail);
    return refused(th->exec);
}

/* Whether the process itself has memory there. */
static bool host_has(uint64_t address)
{
    enum { PAGE = 4096 };
    unsigned char resident;
    void *page = (void *)(uintptr_t)(address / PAGE * PAGE);
    return mincore(page, 1, &resident) == 0 || errno != ENOMEM;
}

/* What is wrong with an address outside of live memory that the device may access. */
static void *global_refuse(ExecThread *th, const SimBlockOfMemory *m, uint64_t address,
                           uint32_t bytes, int access, uint32_t site)
{
    char detail[256];
    SimFinding finding = m && m->freed ? SIM_USE_AFTER_FREE : SIM_OUT_OF_BOUNDS;
    if (m || sim_device_of(address) >= 0) {
        sim_memory_describe(address, detail, sizeof detail);
    } else if (address < 4096) {
        snprintf(detail, sizeof detail, "a null pointer");
    } else if (host_has(address)) {
        finding = SIM_HOST_POINTER;
        snprintf(detail, sizeof detail, "host memory that is not pinned");
    } else {
        snprintf(detail, sizeof detail, "no memory of a GPU or of the host");
    }
    return refuse(th, finding, site, address, bytes, access, detail);
}

/* Finds the allocation of an address for the lookup of its site; NULL, or where the bytes of
 * a refused access are. */
static __attribute__((noinline)) void *lookup_fill(ExecThread *th, uint64_t address, uint32_t bytes,
                                                   int access, uint32_t site)
{
    Exec *e = th->exec;
    ExecLookup *k = &e->lookups[site % EXEC_LOOKUPS][e->lookup_next++ % EXEC_WAYS];
    const SimBlockOfMemory *m = sim_memory_find(address);
    if (!m || m->freed || address < m->address || address - m->address > m->size ||
        bytes > m->size - (address - m->address))
        return global_refuse(th, m, address, bytes, access, site);
    if (m->device >= 0 && m->device != e->op->device &&
        !sim_peer_enabled(e->op->device, m->device)) {
        char detail[256];
        sim_memory_describe(address, detail, sizeof detail);
        return refuse(th, SIM_WRONG_DEVICE, site, address, bytes, access, detail);
    }
    if (e->race && !sim_memory_given(e->op, m))
        exec_report_early(th, m, site, address, bytes, access);
    uint64_t end = m->address + (m->size ? m->size - 1 : 0);
    bool whole = m->address / SHADOW_CHUNK == end / SHADOW_CHUNK;
    *k = (ExecLookup){.address = m->address,
                      .size = m->size,
                      .device = m->device,
                      .delta = m->device < 0 ? 0 : SIM_BYTES_DELTA};
    if (e->race && whole)
        k->cells = shadow_cells(m->device, m->address);
    return NULL;
}

/* The allocation of all bytes, if it is one that the site accessed before. */
static inline ExecLookup *lookup(Exec *e, uint64_t address, uint32_t bytes, uint32_t site)
{
    ExecLookup *k = e->lookups[site % EXEC_LOOKUPS];
    for (int i = 0; i < EXEC_WAYS; i++, k++) {
        uint64_t offset = address - k->address;
        if (offset < k->size && bytes <= k->size - offset)
            return k;
    }
    return NULL;
}

static __attribute__((noinline)) void *misaligned(ExecThread *th, uint64_t address, uint32_t bytes,
                                                  int access, uint32_t site)
{
    char detail[256];
    sim_memory_describe(address, detail, sizeof detail);
    return refuse(th, SIM_MISALIGNED, site, address, bytes, access, detail);
}

static void *global_access(ExecThread *th, uint64_t address, uint32_t bytes, int access,
                           uint32_t site)
{
    Exec *e = th->exec;
    ExecLookup *k = lookup(e, address, bytes, site);
    if (__builtin_expect((address & (bytes - 1)) != 0, 0))
        return misaligned(th, address, bytes, access, site);
    if (__builtin_expect(!k, 0)) {
        void *other = lookup_fill(th, address, bytes, access, site);
        if (other)
            return other;
        k = lookup(e, address, bytes, site);
    }
    if (e->race) {
        uint64_t word = (address & ~UINT64_C(3)) - (k->address & ~UINT64_C(3));
        ShadowCell *cell = k->cells ? k->cells + word / 4 : shadow_cells(k->device, address);
        words_check(th, &e->view, cell, address, bytes, access, site, k->device < 0);
    }
    return (void *)(uintptr_t)(address + k->delta);
}

static void *shared_access(ExecThread *th, uint64_t offset, uint32_t bytes, int access,
                           uint32_t site)
{
    Exec *e = th->exec;
    char detail[128];
    if (__builtin_expect(offset >= e->shared_bytes || bytes > e->shared_bytes - offset, 0)) {
        snprintf(detail, sizeof detail, "offset %" PRId64 " in %u bytes of shared memory",
                 (int64_t)offset, e->shared_bytes);
        return refuse(th, SIM_OUT_OF_BOUNDS, site, SIM_SHARED_WINDOW + offset, bytes, access,
                      detail);
    }
    if (__builtin_expect((offset & (bytes - 1)) != 0, 0)) {
        snprintf(detail, sizeof detail, "offset %" PRId64 " of shared memory", (int64_t)offset);
        return refuse(th, SIM_MISALIGNED, site, SIM_SHARED_WINDOW + offset, bytes, access, detail);
    }
    if (e->race)
        words_check(th, &e->shared_view, e->shared_cells + offset / 4, offset, bytes, access, site,
                    false);
    return e->shared + offset;
}

/* Local memory, and the parameters, which are only read. */
static void *private_access(ExecThread *th, char *at, uint64_t size, const char *name,
                            uint64_t window, uint64_t offset, uint32_t bytes, int access,
                            uint32_t site)
{
    char detail[128];
    bool bounds = offset >= size || bytes > size - offset;
    if (!bounds && !(offset & (bytes - 1)))
        return at + offset;
    snprintf(detail, sizeof detail, "offset %" PRId64 " in %" PRIu64 " bytes of %s",
             (int64_t)offset, size, name);
    return refuse(th, bounds ? SIM_OUT_OF_BOUNDS : SIM_MISALIGNED, site, window + offset, bytes,
                  access, detail);
}

static void *local_access(ExecThread *th, uint64_t offset, uint32_t bytes, int access,
                          uint32_t site)
{
    Exec *e = th->exec;
    return private_access(th, e->locals + (size_t)th->index * e->local_bytes, e->table->local_bytes,
                          "local memory", SIM_LOCAL_WINDOW, offset, bytes, access, site);
}

static void *param_access(ExecThread *th, uint64_t offset, uint32_t bytes, int access,
                          uint32_t site)
{
    Exec *e = th->exec;
    if (access & (ACCESS_WRITE | ACCESS_ATOMIC))
        return refuse(th, SIM_OUT_OF_BOUNDS, site, SIM_PARAM_WINDOW + offset, bytes, access,
                      "parameters are read only");
    return private_access(th, e->launch->params, e->table->param_bytes, "parameters",
                          SIM_PARAM_WINDOW, offset, bytes, access, site);
}

void *exec_access(SimThread *t, SimSpace space, uint64_t address, uint32_t bytes, int access,
                  uint32_t site)
{
    ExecThread *th = exec_thread(t);
    if (access & (ACCESS_ATOMIC | ACCESS_VOLATILE))
        spin(th, site);
    switch (space) {
    case SIM_SPACE_GLOBAL:
        return global_access(th, address, bytes, access, site);
    case SIM_SPACE_SHARED:
        return shared_access(th, address, bytes, access, site);
    case SIM_SPACE_LOCAL:
        return local_access(th, address, bytes, access, site);
    default:
        break;
    }
    if (address - SIM_SHARED_WINDOW < SIM_WINDOW_SPAN)
        return shared_access(th, address - SIM_SHARED_WINDOW, bytes, access, site);
    if (address - SIM_LOCAL_WINDOW < SIM_WINDOW_SPAN)
        return local_access(th, address - SIM_LOCAL_WINDOW, bytes, access, site);
    if (address - SIM_PARAM_WINDOW < SIM_WINDOW_SPAN)
        return param_access(th, address - SIM_PARAM_WINDOW, bytes, access, site);
    return global_access(th, address, bytes, access, site);
}
