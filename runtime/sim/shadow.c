/* shadow.c - the cells of memory.
 *
 * In: addresses of devices and of pinned host memory. Out: their cells, which are mapped
 * SHADOW_CHUNK bytes of memory at a time when one of them is first asked for; pages that are
 * never touched take no memory. Zero is a word that was never written.
 *
 * Segments are 32 bits. When most are used, all cells forget who accessed them and keep only
 * what was written; races with what is forgotten are not found.
 */
#define _GNU_SOURCE
#include <string.h>
#include <sys/mman.h>

#include "shadow.h"

enum { HOST_CHUNKS = 1024, SEGMENT_KNOWN = 1, SHARED_CELLS = 1 << 16 };
#define DEVICE_CHUNKS (SIM_DEVICE_SPAN / SHADOW_CHUNK)
#define CHUNK_CELLS (SHADOW_CHUNK / 4)
#define SEGMENTS_MANY UINT32_C(0xc0000000)

static ShadowCell *device_chunks[SIM_DEVICES_MAX][DEVICE_CHUNKS];
static struct {
    uint64_t number; /* address / SHADOW_CHUNK */
    ShadowCell *cells;
} host_chunks[HOST_CHUNKS]; /* hashed by number */
static ShadowCell *shared_cells;
static uint32_t segments_used = SEGMENT_KNOWN + 1;

static ShadowCell *chunk_new(void)
{
    void *p = mmap(NULL, CHUNK_CELLS * sizeof(ShadowCell), PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
        fprintf(stderr, "mdl-sim: no address space left for race checking (MDL_SIM_CHECK=fast "
                        "works without)\n");
        _Exit(SIM_EXIT);
    }
    /* Blocks come in any order, so small pages would miss the processor's table of pages. */
    madvise(p, CHUNK_CELLS * sizeof(ShadowCell), MADV_HUGEPAGE);
    return p;
}

/* Where the chunk of an address is kept; NULL: the table of host memory is full. */
static ShadowCell **chunk_place(int device, uint64_t address)
{
    uint64_t number = address / SHADOW_CHUNK;
    if (device >= 0)
        return &device_chunks[device][number % DEVICE_CHUNKS];
    for (uint64_t i = 0; i < HOST_CHUNKS; i++) {
        uint64_t k = (number + i) % HOST_CHUNKS;
        if (!host_chunks[k].cells)
            host_chunks[k].number = number;
        if (host_chunks[k].number == number)
            return &host_chunks[k].cells;
    }
    return NULL;
}

ShadowCell *shadow_cells(int device, uint64_t address)
{
    static ShadowCell *unknown; /* host memory beyond what the table holds */
    ShadowCell **place = chunk_place(device, address);
    if (!place)
        place = &unknown;
    if (!*place)
        *place = chunk_new();
    return *place + address % SHADOW_CHUNK / 4;
}

ShadowCell *shadow_shared_cells(void)
{
    if (!shared_cells)
        shared_cells = chunk_new();
    return shared_cells;
}

/* Zeroes cells; whole pages of many are given back. */
static void cells_clear(ShadowCell *cells, uint64_t n)
{
    enum { PAGE = 4096, MANY = 1 << 16 };
    char *from = (char *)cells, *to = (char *)(cells + n);
    if (n >= MANY) {
        char *page = from + (PAGE - (uintptr_t)from % PAGE) % PAGE;
        char *last = to - (uintptr_t)to % PAGE;
        if (madvise(page, (size_t)(last - page), MADV_DONTNEED) == 0) {
            memset(from, 0, (size_t)(page - from));
            from = last;
        }
    }
    memset(from, 0, (size_t)(to - from));
}

void sim_shadow_fresh(int device, uint64_t address, uint64_t bytes)
{
    if (!sim_config()->race || bytes == 0)
        return;
    uint64_t end = address + bytes;
    while (address < end) {
        uint64_t next = (address / SHADOW_CHUNK + 1) * SHADOW_CHUNK;
        uint64_t to = next < end ? next : end;
        ShadowCell **place = chunk_place(device, address);
        if (place && *place)
            cells_clear(*place + address % SHADOW_CHUNK / 4, (to + 3) / 4 - address / 4);
        address = to;
    }
}

void sim_shadow_known(int device, uint64_t address, uint64_t bytes)
{
    if (!sim_config()->race)
        return;
    for (uint64_t at = address & ~UINT64_C(3); at < address + bytes; at += 4) {
        ShadowSlot s = (ShadowSlot)SEGMENT_KNOWN << SLOT_SEGMENT | 15 << SLOT_MASK | 15 |
                       SHADOW_WRITE << SLOT_KIND;
        *shadow_cells(device, at) = (ShadowCell){{s, 0, 0, 0}};
    }
}

uint32_t shadow_segments(uint32_t n)
{
    uint32_t first = segments_used;
    segments_used += n;
    return first;
}

/* Keeps which bytes were written. Untouched pages read as zero and are not written to. */
static void chunk_forget(ShadowCell *cells)
{
    for (uint64_t i = 0; cells && i < CHUNK_CELLS; i++) {
        ShadowCell *c = &cells[i];
        ShadowSlot init = c->slot[0] & 15;
        if (c->slot[0] | c->slot[1] | c->slot[2] | c->slot[3])
            *c = (ShadowCell){{init, 0, 0, 0}};
    }
}

bool shadow_segments_reserve(void)
{
    if (segments_used < SEGMENTS_MANY)
        return false;
    for (int d = 0; d < SIM_DEVICES_MAX; d++) {
        for (uint64_t i = 0; i < DEVICE_CHUNKS; i++)
            chunk_forget(device_chunks[d][i]);
    }
    for (int i = 0; i < HOST_CHUNKS; i++)
        chunk_forget(host_chunks[i].cells);
    if (shared_cells)
        cells_clear(shared_cells, SHARED_CELLS);
    shadow_ops_forget();
    shadow_order_forget();
    segments_used = SEGMENT_KNOWN + 1;
    return true;
}
