/* links_host.c - messages between stages of the host target: a copy by the sender.
 */
#include <stdlib.h>
#include <string.h>

#include "trainer.h"

struct LinkSlot {
    void *buffer;
    int m;
};

int link_open(Trainer *t, int link, Problem *p)
{
    Link *l = &t->links[link];
    l->slots = calloc((size_t)t->model->links[link].slots + 1, sizeof *l->slots);
    return l->slots ? MDL_OK : problem_no_memory(p, "the links");
}

void link_close(Trainer *t, int link)
{
    free(t->links[link].slots);
}

static void link_trace(Stage *s, char phase, int link, int m, int64_t from)
{
    Device *d = device_of(s);
    if (d->trace.events)
        trace_add(&d->trace, (TraceEvent){from, time_now() - s->trainer->started, s->step, phase,
                                          (int16_t)d->chunk, m, link});
}

static int64_t trace_time(const Stage *s)
{
    return device_of(s)->trace.events ? time_now() - s->trainer->started : 0;
}

int link_post(Stage *s, int link, int m, void *buffer)
{
    Link *l = &s->trainer->links[link];
    int64_t n = atomic_load_explicit(&l->posted, memory_order_relaxed);
    TRY(link_check_post(s, link, m));
    l->slots[n % s->trainer->model->links[link].slots] = (struct LinkSlot){buffer, m};
    link_count(l, &l->posted);
    return MDL_OK;
}

int link_send(Stage *s, int link, int m, const void *buffer)
{
    const MdlLink *plan = &s->trainer->model->links[link];
    Link *l = &s->trainer->links[link];
    int64_t n = atomic_load_explicit(&l->sent, memory_order_relaxed), from = trace_time(s);
    if (plan->from != s->index)
        return link_misused(s, link, m, "a message is sent by a stage that does not send");
    TRY(link_until(s, link, &l->posted, n, m, "the send"));
    const struct LinkSlot *slot = &l->slots[n % plan->slots];
    if (slot->m != m)
        return link_misused(s, link, m, "another micro-batch is expected");
    memcpy(slot->buffer, buffer, (size_t)plan->bytes);
    link_count(l, &l->sent);
    link_trace(s, 's', link, m, from);
    return MDL_OK;
}

int link_wait(Stage *s, int link, int m)
{
    const MdlLink *plan = &s->trainer->model->links[link];
    Link *l = &s->trainer->links[link];
    int64_t from = trace_time(s);
    if (plan->to != s->index || atomic_load_explicit(&l->posted, memory_order_relaxed) <= l->waited)
        return link_misused(s, link, m, "a message is waited for that was not posted");
    if (l->slots[l->waited % plan->slots].m != m)
        return link_misused(s, link, m, "another micro-batch was posted first");
    TRY(link_until(s, link, &l->sent, l->waited, m, "the wait"));
    l->waited++;
    link_trace(s, 'w', link, m, from);
    return MDL_OK;
}
