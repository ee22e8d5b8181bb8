/* simt_memory.h - how translated code reaches memory.
 *
 * Only translated kernels include this. Every access is checked and noted by the engine, which
 * says where the bytes are. Copies of cp.async wait in a ring until the thread waits for their
 * group, so that what is read without the wait is what a GPU may read, too; where more are in
 * flight than the ring holds, the oldest are made early, as a GPU may as well.
 */
#ifndef MDL_SIMT_MEMORY_H
#define MDL_SIMT_MEMORY_H

#include <stdint.h>
#include <string.h>

static inline char *sim_at(SimThread *t, SimSpace space, uint64_t address, uint32_t bytes,
                           int access, uint32_t site)
{
    return (char *)t->service->access(t, space, address, bytes, access, site);
}

/* A parameter of the kernel by a register's offset; beyond the last one it is a report. */
static inline const char *sim_param(SimThread *t, uint64_t offset, uint32_t bytes, uint32_t total,
                                    uint32_t site)
{
    if (bytes <= total && offset <= total - bytes)
        return t->params + offset;
    return sim_at(t, SIM_SPACE_GENERIC, SIM_PARAM_WINDOW + offset, bytes, 1, site);
}

/* A function's parameter whose address is taken: a copy in local memory. */
static __attribute__((unused)) void sim_place(SimThread *t, uint64_t to, const char *from,
                                              uint32_t bytes, uint32_t align, uint32_t site)
{
    const uint32_t most = align > 8 ? 8 : align, step = bytes % most == 0 ? most : 1;
    for (uint32_t i = 0; i < bytes; i += step)
        memcpy(sim_at(t, SIM_SPACE_LOCAL, to + i, step, 2, site), from + i, step);
}

/* ------------------------------------------------------------------- cp.async */

enum { SIM_ASYNC_MAX = 64 };

typedef struct {
    struct {
        uint64_t to, from;
        uint32_t bytes, have, group, site;
    } copies[SIM_ASYNC_MAX];
    uint32_t first, n, group;
} SimAsync;

/* Makes the oldest copy: `have` bytes from memory, the rest zero. */
static __attribute__((noinline, unused)) void sim_async_copy(SimThread *t, SimAsync *a)
{
    const uint32_t i = a->first++ % SIM_ASYNC_MAX, bytes = a->copies[i].bytes;
    const uint32_t site = a->copies[i].site;
    const uint32_t have = a->copies[i].have < bytes ? a->copies[i].have : bytes;
    char data[16] = {0};
    a->n--;
    if (have == bytes)
        memcpy(data, sim_at(t, SIM_SPACE_GLOBAL, a->copies[i].from, bytes, 1, site), bytes);
    else
        for (uint32_t j = 0; j < have; j++)
            data[j] = *sim_at(t, SIM_SPACE_GLOBAL, a->copies[i].from + j, 1, 1, site);
    memcpy(sim_at(t, SIM_SPACE_SHARED, a->copies[i].to, bytes, 2, site), data, bytes);
}

static __attribute__((unused)) void sim_async_add(SimThread *t, SimAsync *a, uint64_t to,
                                                  uint64_t from, uint32_t bytes, uint32_t have,
                                                  uint32_t site)
{
    if (a->n == SIM_ASYNC_MAX)
        sim_async_copy(t, a);
    const uint32_t i = (a->first + a->n++) % SIM_ASYNC_MAX;
    a->copies[i].to = to;
    a->copies[i].from = from;
    a->copies[i].bytes = bytes;
    a->copies[i].have = have;
    a->copies[i].group = a->group;
    a->copies[i].site = site;
}

/* Waits until at most the newest `left` groups are on their way. */
static __attribute__((unused)) void sim_async_wait(SimThread *t, SimAsync *a, uint32_t left)
{
    while (a->n > 0 && a->copies[a->first % SIM_ASYNC_MAX].group + (uint64_t)left < a->group)
        sim_async_copy(t, a);
}

#endif
