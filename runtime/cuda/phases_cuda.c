/* phases_cuda.c - which phase a stage is in, and when the GPU was.
 *
 * The host only puts work into streams, so for --trace each phase lies between two events of
 * the stream `compute`. Their times are read when the step has ended. They count from an event
 * at the end of the step before, because the difference of two events is a float.
 */
#include <stdlib.h>

#include "device_cuda.h"

enum { PHASES_EACH = 24, PHASES_BESIDES = 64, PHASES_MOST = 1 << 14 };

int clock_open(Device *d)
{
    Stage *s = &d->stage;
    PhaseClock *c = &d->own->clock;
    int64_t room = PHASES_BESIDES + (int64_t)PHASES_EACH * s->trainer->model->microbatches;
    if (!d->trace.events)
        return MDL_OK;
    c->room = room < PHASES_MOST ? (int)room : PHASES_MOST;
    c->phases = calloc((size_t)c->room, sizeof *c->phases);
    if (!c->phases)
        return stage_fail(s, "stage %d (%s): out of memory", s->index, d->plan->device);
    for (int i = 0; i < c->room; i++) {
        OPEN(cudaEventCreate(&c->phases[i].begin));
        OPEN(cudaEventCreate(&c->phases[i].end));
    }
    OPEN(cudaEventCreate(&c->base[0]));
    OPEN(cudaEventCreate(&c->base[1]));
    OPEN(cudaEventRecord(c->base[0], s->compute));
    OPEN(cudaStreamSynchronize(s->compute));
    c->since = (double)(time_now() - s->trainer->started);
    return MDL_OK;
}

static void event_free(cudaEvent_t event)
{
    if (event)
        gpu_note((int)cudaEventDestroy(event));
}

void clock_close(Device *d)
{
    PhaseClock *c = &d->own->clock;
    for (int i = 0; c->phases && i < c->room; i++) {
        event_free(c->phases[i].begin);
        event_free(c->phases[i].end);
    }
    event_free(c->base[0]);
    event_free(c->base[1]);
    free(c->phases);
}

/* A phase of which an event cannot be recorded is left out; what is wrong shows at the next
 * call that is checked. */
static bool clock_record(Stage *s, cudaEvent_t event)
{
    cudaError_t status = cudaEventRecord(event, s->compute);
    gpu_note((int)status);
    return status == cudaSuccess;
}

void phase_begin(Stage *s, char phase, int chunk, int m)
{
    Device *d = device_of(s);
    PhaseClock *c = &d->own->clock;
    d->phase = phase;
    d->chunk = chunk;
    d->m = m;
    if (c->phases && c->n == c->room)
        d->trace.dropped++;
    c->open = c->n < c->room && clock_record(s, c->phases[c->n].begin);
}

void phase_end(Stage *s)
{
    Device *d = device_of(s);
    PhaseClock *c = &d->own->clock;
    if (c->open && clock_record(s, c->phases[c->n].end)) {
        GpuPhase *p = &c->phases[c->n++];
        p->step = s->step;
        p->phase = d->phase;
        p->chunk = d->chunk;
        p->m = d->m;
    }
    c->open = false;
    d->phase = 0;
    d->m = -1;
}

int clock_mark(Device *d)
{
    Stage *s = &d->stage;
    const PhaseClock *c = &d->own->clock;
    if (c->phases)
        CUDA(cudaEventRecord(c->base[!c->current], s->compute));
    return MDL_OK;
}

/* Nanoseconds of the run. */
static int clock_read(Stage *s, const PhaseClock *c, cudaEvent_t event, double *at)
{
    float milliseconds = 0;
    CUDA(cudaEventElapsedTime(&milliseconds, c->base[c->current], event));
    *at = c->since + (double)milliseconds * 1e6;
    return MDL_OK;
}

int clock_resolve(Device *d)
{
    Stage *s = &d->stage;
    PhaseClock *c = &d->own->clock;
    double from = 0, to = 0;
    if (!c->phases)
        return MDL_OK;
    for (int i = 0; i < c->n; i++) {
        const GpuPhase *p = &c->phases[i];
        TRY(clock_read(s, c, p->begin, &from));
        TRY(clock_read(s, c, p->end, &to));
        trace_add(&d->trace, (TraceEvent){(int64_t)from, (int64_t)to, p->step, p->phase,
                                          (int16_t)p->chunk, p->m, -1});
    }
    c->n = 0;
    TRY(clock_read(s, c, c->base[!c->current], &c->since));
    c->current = !c->current;
    return MDL_OK;
}
