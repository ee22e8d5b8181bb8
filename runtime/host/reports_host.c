/* reports_host.c - samples, numbers and phases of the host target: all at once.
 */
#include "trainer.h"

int data_load(Stage *s, int input, int m, void *buffer)
{
    return samples_load(s, input, m, buffer);
}

int report_loss(Stage *s, int m, const real *loss)
{
    return loss_count(s, m, loss);
}

int report_metric(Stage *s, int metric, int m, const real *value)
{
    return device_of(s)->mode == MODE_EVAL ? metric_count(s, metric, m, value) : MDL_OK;
}

int clip_gradients(Stage *s)
{
    return clip_exchange(s);
}

void phase_begin(Stage *s, char phase, int chunk, int m)
{
    Device *d = device_of(s);
    d->phase = phase;
    d->chunk = chunk;
    d->m = m;
    if (d->trace.events)
        d->phase_from = time_now() - s->trainer->started;
}

void phase_end(Stage *s)
{
    Device *d = device_of(s);
    if (d->trace.events)
        trace_add(&d->trace, (TraceEvent){d->phase_from, time_now() - s->trainer->started, s->step,
                                          d->phase, (int16_t)d->chunk, d->m, -1});
    d->phase = 0;
    d->m = -1;
}
