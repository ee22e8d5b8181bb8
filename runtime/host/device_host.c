/* device_host.c - a device of the host target: one allocation and a team of threads.
 *
 * The device's own thread makes the team and touches the memory first, so that it lies near
 * the thread. Spans are the memory itself.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "trainer.h"

enum { HUGE_FROM = 8 << 20 };

const TargetTraits target_traits = {.teams = true};

int target_check(const Trainer *t, Problem *p)
{
    (void)t, (void)p;
    return MDL_OK;
}

char *device_describe(const Device *d, char *out)
{
    (void)d;
    out[0] = '\0';
    return out;
}

void target_tell(const Trainer *t)
{
    char number[32];
    printf("and the kernels' scratch: %s bytes for each of %d x %d threads\n",
           text_number(number, TEAM_SCRATCH), t->model->nstages, t->threads);
}

/* The memory's size in whole pages. */
static size_t bytes_mapped(const Device *d)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t mapped = ((size_t)d->plan->bytes + page - 1) / page * page;
    return mapped > 0 ? mapped : page;
}

int device_allocate(Device *d, Problem *p)
{
    size_t mapped = bytes_mapped(d);
    void *memory = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return problem_set(p, EXIT_RUN, "%s: %lld bytes cannot be had: %s", d->plan->device,
                           (long long)d->plan->bytes, strerror(errno));
    d->stage.memory = memory;
    if (mapped >= HUGE_FROM)
        madvise(memory, mapped, MADV_HUGEPAGE); /* advice: its failure changes nothing */
    const size_t host = (size_t)d->plan->host_bytes;
    d->stage.host = host ? aligned_alloc(64, (host + 63) / 64 * 64) : NULL;
    if (host && !d->stage.host)
        return problem_no_memory(p, "what is offloaded");
    return MDL_OK;
}

static void memory_touch(Device *d)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), mapped = bytes_mapped(d);
    volatile char *memory = d->stage.memory;
    for (size_t at = 0; at < mapped; at += page)
        memory[at] = 0;
}

/* On the device's own thread: a team belongs to the thread that runs it. */
int device_open(Device *d)
{
    Stage *s = &d->stage;
    s->team = d->team = team_new(s->trainer->threads, s->trainer->spin);
    if (!s->team)
        return stage_fail(s, "stage %d (%s): cannot start %d threads", s->index, d->plan->device,
                          s->trainer->threads);
    memory_touch(d);
    return MDL_OK;
}

int device_collect(Device *d)
{
    (void)d;
    return MDL_OK;
}

void device_close(Device *d)
{
    team_free(d->team);
}

void device_free(Device *d)
{
    if (d->stage.memory)
        munmap(d->stage.memory, bytes_mapped(d));
    free(d->stage.host);
}

int span_open(Span *span, Device *d, int64_t offset, int64_t bytes, unsigned use, Problem *p)
{
    (void)use, (void)p;
    *span = (Span){d, offset, bytes, d->stage.memory + offset};
    return MDL_OK;
}

int span_close(Span *span, unsigned use, Problem *p)
{
    (void)span, (void)use, (void)p;
    return MDL_OK;
}
