/* ranges.c - what operations other than kernels may access.
 *
 * A range of rows is checked against the allocations, the device and its peers, then noted
 * for race checking.
 */
#include "host.h"

static void range_report(SimFinding kind, const SimOp *op, uint64_t address, SimAccess access,
                         const char *what, const char *why)
{
    char place[512], text[256];
    sim_report(kind, "%s %s %s %s: %s\nin %s", op->name, access == SIM_READ ? "reads" : "writes",
               what, why, sim_memory_describe(address, text, sizeof text),
               sim_op_describe(op, place, sizeof place));
}

/* The first byte of the row that is not the allocation's. */
static uint64_t range_first_bad(int device, uint64_t address, uint64_t bytes)
{
    const SimBlockOfMemory *b = sim_memory_find(address);
    if (!b || b->freed || address < b->address || address >= b->address + b->size)
        return address;
    return sim_memory_inside(device, address, bytes) ? address : b->address + b->size;
}

/* Memory in the order of a stream: there for what comes after its allocation. */
static void range_given(const SimOp *op, uint64_t address, SimAccess access, const char *what)
{
    const SimBlockOfMemory *b = sim_memory_find(address);
    char other[512], place[512], text[256];
    if (!b || sim_memory_given(op, b))
        return;
    sim_report(SIM_RACE,
               "%s %s %s before it is there: %s\nin %s\nother side: %s\nnothing orders the two: an "
               "event wait is missing",
               op->name, access == SIM_READ ? "reads" : "writes", what,
               sim_memory_describe(address, text, sizeof text),
               sim_op_describe(op, place, sizeof place),
               sim_history_describe(b->given_stream, b->given, other, sizeof other));
}

static void *range_host(SimOp *op, uint64_t address, uint64_t width, uint64_t pitch, uint64_t rows,
                        SimAccess access, bool pageable, const char *what)
{
    const SimBlockOfMemory *b = sim_memory_find(address);
    char text[128];
    if (b && b->freed) {
        range_report(SIM_USE_AFTER_FREE, op, address, access, what, "after it was freed");
        return NULL;
    }
    if (b && address < b->address + b->size) {
        uint64_t end = b->address + b->size, last = address + (rows - 1) * pitch + width;
        if (last > end) {
            snprintf(text, sizeof text, "%llu bytes, out of bounds",
                     (unsigned long long)(last - address));
            range_report(SIM_OUT_OF_BOUNDS, op, end, access, what, text);
            return NULL;
        }
        for (uint64_t i = 0; i < rows && sim_config()->race; i++)
            sim_shadow_range(op, -1, address + i * pitch, width, access, what);
    } else if (!pageable) {
        range_report(SIM_HOST_POINTER, op, address, access, what, "through a host pointer");
        return NULL;
    }
    return (void *)(uintptr_t)address;
}

void *range_check(SimOp *op, uint64_t address, uint64_t width, uint64_t pitch, uint64_t rows,
                  SimAccess access, bool pageable, bool any_device, const char *what)
{
    int device = sim_device_of(address);
    char text[128];
    if (rows == 1 || pitch == width) {
        width *= rows;
        rows = 1;
    }
    if (width == 0 || rows == 0)
        return device < 0 ? (void *)(uintptr_t)address : sim_bytes(address);
    if (device < 0)
        return range_host(op, address, width, pitch, rows, access, pageable, what);
    if (device != op->device && !any_device && !sim_peer_enabled(op->device, device)) {
        snprintf(text, sizeof text, "from gpu %d, which has no peer access to gpu %d", op->device,
                 device);
        range_report(SIM_WRONG_DEVICE, op, address, access, what, text);
        return NULL;
    }
    for (uint64_t i = 0; i < rows; i++) {
        uint64_t row = address + i * pitch;
        if (!sim_memory_inside(device, row, width)) {
            uint64_t bad = range_first_bad(device, row, width);
            const SimBlockOfMemory *b = sim_memory_find(bad);
            bool freed = b && b->freed && bad >= b->address && bad < b->address + b->size;
            snprintf(text, sizeof text, "%llu bytes%s, %s", (unsigned long long)width,
                     rows > 1 ? " of a row" : "", freed ? "after it was freed" : "out of bounds");
            range_report(freed ? SIM_USE_AFTER_FREE : SIM_OUT_OF_BOUNDS, op, bad, access, what,
                         text);
            return NULL;
        }
    }
    if (sim_config()->race)
        range_given(op, address, access, what);
    if (sim_config()->race)
        for (uint64_t i = 0; i < rows; i++)
            sim_shadow_range(op, device, address + i * pitch, width, access, what);
    return sim_bytes(address);
}

void *sim_range(SimOp *op, uint64_t address, uint64_t width, uint64_t pitch, uint64_t rows,
                SimAccess access, bool pageable, const char *what)
{
    return range_check(op, address, width, pitch, rows, access, pageable, false, what);
}
