/* memory.c - allocations of device memory.
 *
 * Every device has a range of addresses that is reserved and never readable; the bytes lie
 * SIM_BYTES_DELTA further. Addresses are handed out upwards with red zones between them and
 * are not used again until the range is spent, so an access to freed memory always finds out.
 * A device's allocations are therefore sorted by address, and are found by bisection.
 *
 *     public  |  gpu 0: zone A zone B zone ...          |  gpu 1: ...     PROT_NONE
 *     bytes   |         .... A .... B                   |                 mapped as used
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "host.h"

#define BASE UINT64_C(0x300000000000)
#define ALIGN UINT64_C(256)
#define ZONE UINT64_C(256)
#define MAP_STEP (UINT64_C(64) << 20)
#define FILL_MAX (UINT64_C(1) << 20)

enum { RECENT = 8, EXIT_RESERVE = 2 };

typedef struct {
    SimBlockOfMemory block;
    bool fixed; /* of a module's variable: not freed, not a leak */
    void *caller;
} Allocation;

static struct {
    Allocation **blocks;
    size_t n, room;
    uint64_t cursor; /* the end of the last allocation */
    uint64_t mapped; /* the end of what is mapped */
    uint64_t used;
    const Allocation *recent[RECENT];
} devices[SIM_DEVICES_MAX];
static uint64_t numbers;
static bool reserved;

uint64_t sim_device_base(int device)
{
    return BASE + (uint64_t)device * SIM_DEVICE_SPAN;
}

int sim_device_of(uint64_t address)
{
    uint64_t device = (address - BASE) / SIM_DEVICE_SPAN;
    return address >= BASE && device < (uint64_t)sim_config()->devices ? (int)device : -1;
}

static void reserve(uint64_t address, uint64_t size)
{
    void *at = mmap((void *)(uintptr_t)address, size, PROT_NONE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
    if (at == (void *)(uintptr_t)address)
        return;
    fflush(stdout);
    fprintf(stderr,
            "mdl-sim: the addresses 0x%llx ... 0x%llx of the devices cannot be reserved: %s "
            "(ulimit -v?)\n",
            (unsigned long long)address, (unsigned long long)(address + size),
            at == MAP_FAILED ? strerror(errno) : "they are in use");
    _exit(EXIT_RESERVE);
}

static void memory_reserve(void)
{
    uint64_t span = (uint64_t)sim_config()->devices * SIM_DEVICE_SPAN;
    if (reserved)
        return;
    reserved = true;
    reserve(BASE, span);
    reserve(BASE + SIM_BYTES_DELTA, span);
    for (int d = 0; d < sim_config()->devices; d++)
        devices[d].cursor = devices[d].mapped = sim_device_base(d);
}

/* ------------------------------------------------------------------- finding it */

/* The first allocation that ends above the address: its index, or n. */
static size_t memory_index(int device, uint64_t address)
{
    size_t low = 0, high = devices[device].n;
    while (low < high) {
        size_t middle = (low + high) / 2;
        const SimBlockOfMemory *b = &devices[device].blocks[middle]->block;
        if (b->address + b->size <= address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Between two allocations, the nearer one is meant. */
static const Allocation *memory_nearest(int device, uint64_t address)
{
    size_t i = memory_index(device, address), n = devices[device].n;
    const Allocation *above = i < n ? devices[device].blocks[i] : NULL;
    const Allocation *below = i > 0 ? devices[device].blocks[i - 1] : NULL;
    if (!above || !below)
        return above ? above : below;
    if (above->block.address <= address)
        return above;
    uint64_t after = address - (below->block.address + below->block.size);
    return above->block.address - address <= after ? above : below;
}

const SimBlockOfMemory *sim_memory_find(uint64_t address)
{
    int device = sim_device_of(address);
    if (device < 0)
        return pinned_near(address);
    const Allocation *a = memory_nearest(device, address);
    return a ? &a->block : NULL;
}

static bool block_holds(const SimBlockOfMemory *b, uint64_t address, uint64_t bytes)
{
    return !b->freed && address >= b->address && bytes <= b->size &&
           address - b->address <= b->size - bytes;
}

bool sim_memory_inside(int device, uint64_t address, uint64_t bytes)
{
    size_t slot = (address >> 16) % RECENT;
    const Allocation *recent = devices[device].recent[slot];
    if (recent && block_holds(&recent->block, address, bytes))
        return true;
    size_t i = memory_index(device, address);
    if (i == devices[device].n || !block_holds(&devices[device].blocks[i]->block, address, bytes))
        return false;
    devices[device].recent[slot] = devices[device].blocks[i];
    return true;
}

char *sim_memory_describe(uint64_t address, char *out, size_t size)
{
    const SimBlockOfMemory *b = sim_memory_find(address);
    char where[64];
    if (!b) {
        int device = sim_device_of(address);
        if (device >= 0)
            snprintf(out, size, "0x%llx on gpu %d, where nothing was allocated",
                     (unsigned long long)address, device);
        else
            snprintf(out, size, "0x%llx, which is no device or pinned memory",
                     (unsigned long long)address);
        return out;
    }
    if (b->device < 0)
        snprintf(where, sizeof where, "as pinned host memory");
    else
        snprintf(where, sizeof where, "on gpu %d", b->device);
    uint64_t end = b->address + b->size;
    const char *fate = b->freed ? "freed" : "allocated";
    if (address < b->address)
        snprintf(out, size, "%llu bytes before %llu bytes %s %s (allocation %llu)",
                 (unsigned long long)(b->address - address), (unsigned long long)b->size, fate,
                 where, (unsigned long long)b->number);
    else if (address >= end)
        snprintf(out, size, "%llu bytes past the end of %llu bytes %s %s (allocation %llu)",
                 (unsigned long long)(address - end), (unsigned long long)b->size, fate, where,
                 (unsigned long long)b->number);
    else
        snprintf(out, size, "byte %llu of %llu bytes %s %s (allocation %llu)",
                 (unsigned long long)(address - b->address), (unsigned long long)b->size, fate,
                 where, (unsigned long long)b->number);
    return out;
}

uint64_t memory_used(int device)
{
    return devices[device].used;
}

/* -------------------------------------------------------------------- allocating */

uint64_t memory_number(void)
{
    return ++numbers;
}

/* A freed place that is big enough, once the device's addresses are spent. */
static Allocation *memory_reuse(int device, uint64_t size)
{
    for (size_t i = 0; i < devices[device].n; i++) {
        Allocation *a = devices[device].blocks[i];
        uint64_t end = i + 1 < devices[device].n ? devices[device].blocks[i + 1]->block.address
                                                 : devices[device].cursor + ZONE;
        if (a->block.freed && a->block.address + size + ZONE <= end)
            return a;
    }
    return NULL;
}

static Allocation *memory_extend(int device, uint64_t size)
{
    uint64_t end = sim_device_base(device) + SIM_DEVICE_SPAN;
    uint64_t address = (devices[device].cursor + ZONE + ALIGN - 1) / ALIGN * ALIGN;
    if (address + ZONE > end || size > end - ZONE - address)
        return memory_reuse(device, size);
    if (devices[device].n == devices[device].room) {
        size_t room = devices[device].room * 2 + 64;
        Allocation **blocks = realloc(devices[device].blocks, room * sizeof *blocks);
        if (!blocks)
            return NULL;
        devices[device].blocks = blocks;
        devices[device].room = room;
    }
    uint64_t mapped = devices[device].mapped, wanted = address + size + ZONE;
    if (wanted > mapped) {
        uint64_t upto = (wanted + MAP_STEP - 1) / MAP_STEP * MAP_STEP;
        upto = upto < end ? upto : end;
        if (mprotect(sim_bytes(mapped), upto - mapped, PROT_READ | PROT_WRITE) != 0)
            return NULL;
        devices[device].mapped = upto;
    }
    Allocation *a = calloc(1, sizeof *a);
    if (!a)
        return NULL;
    a->block.address = address;
    devices[device].blocks[devices[device].n++] = a;
    devices[device].cursor = address + size;
    return a;
}

/* Never-written memory is all NaN; of big allocations only the beginning where the shadow
 * knows it anyway. */
static void memory_fill(uint64_t address, uint64_t size)
{
    uint64_t fill = sim_config()->race && size > FILL_MAX ? FILL_MAX : size;
    memset(sim_bytes(address), 0xFF, fill);
}

cudaError_t memory_allocate(int device, uint64_t size, void *caller, uint64_t *address)
{
    memory_reserve();
    uint64_t total = sim_config()->memory;
    if (size > total || devices[device].used > total - size)
        return cudaErrorMemoryAllocation;
    Allocation *a = memory_extend(device, size);
    if (!a)
        return cudaErrorMemoryAllocation;
    a->block.size = size;
    a->block.device = device;
    a->block.freed = false;
    a->block.given = 0;
    a->block.number = memory_number();
    a->caller = caller;
    devices[device].used += size;
    memory_fill(a->block.address, size);
    sim_shadow_fresh(device, a->block.address, size);
    *address = a->block.address;
    return cudaSuccess;
}

void memory_given_by(uint64_t address, const SimOp *op)
{
    int device = sim_device_of(address);
    SimBlockOfMemory *b = &devices[device].blocks[memory_index(device, address)]->block;
    b->given_stream = op->stream_id;
    b->given = op->sequence;
}

uint64_t sim_memory_static(int device, uint64_t size)
{
    uint64_t address = 0;
    if (memory_allocate(device, size ? size : 1, NULL, &address) != cudaSuccess)
        return 0;
    devices[device].blocks[memory_index(device, address)]->fixed = true;
    return address;
}

/* ----------------------------------------------------------------------- freeing */

static void memory_forget(int device, Allocation *a)
{
    a->block.freed = true;
    devices[device].used -= a->block.size;
    for (int i = 0; i < RECENT; i++)
        devices[device].recent[i] = NULL;
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t from = (a->block.address + page - 1) / page * page;
    uint64_t to = (a->block.address + a->block.size) / page * page;
    if (to > from)
        madvise(sim_bytes(from), to - from, MADV_DONTNEED);
    sim_shadow_fresh(device, a->block.address, a->block.size);
}

cudaError_t memory_release(uint64_t address, const char *call)
{
    int device = sim_device_of(address);
    char text[256];
    size_t i = device >= 0 ? memory_index(device, address) : 0;
    Allocation *a = device >= 0 && i < devices[device].n ? devices[device].blocks[i] : NULL;
    if (a && a->block.address == address && !a->block.freed && !a->fixed) {
        memory_forget(device, a);
        return cudaSuccess;
    }
    if (a && a->block.address == address && a->block.freed)
        sim_report(SIM_DOUBLE_FREE, "%s: freed twice: %s", call,
                   sim_memory_describe(address, text, sizeof text));
    else
        sim_report(SIM_DOUBLE_FREE, "%s: not the address of an allocation: %s", call,
                   sim_memory_describe(address, text, sizeof text));
    return cudaErrorInvalidValue;
}

void memory_of_device_release(int device)
{
    for (size_t i = 0; i < devices[device].n; i++) {
        Allocation *a = devices[device].blocks[i];
        if (!a->block.freed && !a->fixed)
            memory_forget(device, a);
    }
}

void memory_leaks(void)
{
    char where[256];
    for (int d = 0; d < sim_config()->devices; d++)
        for (size_t i = 0; i < devices[d].n; i++) {
            const Allocation *a = devices[d].blocks[i];
            if (a->block.freed || a->fixed)
                continue;
            caller_describe(a->caller, where, sizeof where);
            sim_report(SIM_LEAK, "%llu bytes on gpu %d are never freed (allocation %llu)%s%s",
                       (unsigned long long)a->block.size, d, (unsigned long long)a->block.number,
                       *where ? "\nallocated at " : "", where);
        }
}
