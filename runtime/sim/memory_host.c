/* memory_host.c - pinned host memory.
 *
 * Allocated pages are followed by one that cannot be touched, and become untouchable when
 * they are freed, so that the host's own use after free is found too. To the shadow it is the
 * memory of device -1.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "host.h"

typedef struct {
    SimBlockOfMemory block;
    unsigned flags;
    bool registered;
    uint64_t mapped; /* bytes of pages, without the guard */
    void *caller;
} Pinned;

static Pinned **all; /* sorted by address */
static size_t count, room;

static size_t pinned_index(uint64_t address)
{
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (all[middle]->block.address + all[middle]->block.size <= address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static Pinned *pinned_holding(uint64_t address, uint64_t bytes)
{
    size_t i = pinned_index(address);
    if (i == count)
        return NULL;
    const SimBlockOfMemory *b = &all[i]->block;
    bool inside = !b->freed && address >= b->address && bytes <= b->size &&
                  address - b->address <= b->size - bytes;
    return inside ? all[i] : NULL;
}

const SimBlockOfMemory *pinned_find(uint64_t address, uint64_t bytes)
{
    const Pinned *p = pinned_holding(address, bytes);
    return p ? &p->block : NULL;
}

/* Also where it only begins in pinned memory, or in its guard. */
const SimBlockOfMemory *pinned_near(uint64_t address)
{
    size_t i = pinned_index(address);
    if (i < count && all[i]->block.address <= address)
        return &all[i]->block;
    if (i > 0 && !all[i - 1]->registered &&
        address < all[i - 1]->block.address + all[i - 1]->mapped + 4096)
        return &all[i - 1]->block;
    return NULL;
}

bool pinned_flags(uint64_t address, unsigned *flags)
{
    const Pinned *p = pinned_holding(address, 1);
    if (p)
        *flags = p->flags;
    return p != NULL;
}

static cudaError_t pinned_insert(Pinned pinned)
{
    if (count == room) {
        Pinned **grown = realloc(all, (room * 2 + 64) * sizeof *grown);
        if (!grown)
            return cudaErrorMemoryAllocation;
        all = grown;
        room = room * 2 + 64;
    }
    Pinned *p = malloc(sizeof *p);
    if (!p)
        return cudaErrorMemoryAllocation;
    *p = pinned;
    p->block.device = -1;
    p->block.number = memory_number();
    size_t i = pinned_index(p->block.address);
    memmove(all + i + 1, all + i, (count - i) * sizeof *all);
    all[i] = p;
    count++;
    sim_shadow_fresh(-1, p->block.address, p->block.size);
    return cudaSuccess;
}

static void pinned_remove(size_t i)
{
    free(all[i]);
    memmove(all + i, all + i + 1, (--count - i) * sizeof *all);
}

cudaError_t pinned_allocate(size_t size, unsigned flags, void *caller, void **address)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), mapped = (size + page - 1) / page * page;
    if (mapped < size || mapped + page < mapped)
        return cudaErrorMemoryAllocation;
    void *at =
        mmap(NULL, mapped + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED)
        return cudaErrorMemoryAllocation;
    cudaError_t error = cudaErrorMemoryAllocation;
    if (mprotect((char *)at + mapped, page, PROT_NONE) == 0)
        error = pinned_insert((Pinned){.block = {.address = (uint64_t)(uintptr_t)at, .size = size},
                                       .flags = flags,
                                       .mapped = mapped,
                                       .caller = caller});
    if (error != cudaSuccess) {
        munmap(at, mapped + page);
        return error;
    }
    memset(at, 0xFF, size);
    *address = at;
    return cudaSuccess;
}

cudaError_t pinned_register(void *address, size_t size, unsigned flags, void *caller)
{
    uint64_t from = (uint64_t)(uintptr_t)address;
    size_t i = pinned_index(from);
    if (size > UINT64_MAX - from)
        return cudaErrorInvalidValue;
    if (i < count && all[i]->block.address < from + size)
        return cudaErrorHostMemoryAlreadyRegistered;
    return pinned_insert((Pinned){.block = {.address = from, .size = size},
                                  .flags = flags,
                                  .registered = true,
                                  .mapped = size,
                                  .caller = caller});
}

cudaError_t pinned_release(void *address, bool registered, const char *call)
{
    uint64_t at = (uint64_t)(uintptr_t)address;
    size_t i = pinned_index(at);
    char text[256];
    Pinned *p = i < count && all[i]->block.address == at ? all[i] : NULL;
    if (!p || p->block.freed || p->registered != registered) {
        sim_report(SIM_DOUBLE_FREE, "%s: %s%s", call,
                   p && p->block.freed ? "freed twice: " : "not the address of such memory: ",
                   sim_memory_describe(at, text, sizeof text));
        return registered ? cudaErrorHostMemoryNotRegistered : cudaErrorInvalidValue;
    }
    sim_shadow_fresh(-1, p->block.address, p->block.size);
    if (registered) {
        pinned_remove(i);
        return cudaSuccess;
    }
    p->block.freed = true;
    madvise(address, p->mapped, MADV_DONTNEED);
    if (mprotect(address, p->mapped, PROT_NONE) != 0) {
        fprintf(stderr, "mdl-sim: %s: freed memory cannot be guarded: %s\n", call, strerror(errno));
        _Exit(SIM_EXIT);
    }
    return cudaSuccess;
}

void pinned_leaks(void)
{
    char where[256];
    for (size_t i = 0; i < count; i++) {
        const Pinned *p = all[i];
        if (p->block.freed)
            continue;
        caller_describe(p->caller, where, sizeof where);
        sim_report(SIM_LEAK, "%llu bytes of %s host memory are never %s (allocation %llu)%s%s",
                   (unsigned long long)p->block.size, p->registered ? "registered" : "pinned",
                   p->registered ? "unregistered" : "freed", (unsigned long long)p->block.number,
                   *where ? "\nallocated at " : "", where);
    }
}
