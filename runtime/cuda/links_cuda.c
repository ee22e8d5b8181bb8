/* links_cuda.c - messages between GPUs of one process: who may enqueue a copy, and when.
 *
 * The counters of links.c say that an event has been recorded by the host; the streams then
 * wait for the event itself. A slot's two events are recorded anew only when the other side has
 * enqueued its wait for them, which the counters say, too.
 */
#include <stdlib.h>

#include "device_cuda.h"

static int event_make(const Trainer *t, int stage, cudaEvent_t *event, Problem *p)
{
    const Device d = {.plan = t->model->stages[stage]};
    TRY(gpu_problem(&d, (int)cudaSetDevice(d.plan->gpu), "cudaSetDevice", p));
    return gpu_problem(&d, (int)cudaEventCreateWithFlags(event, cudaEventDisableTiming),
                       "cudaEventCreateWithFlags", p);
}

int link_open(Trainer *t, int link, Problem *p)
{
    const MdlLink *plan = &t->model->links[link];
    Link *l = &t->links[link];
    l->slots = calloc((size_t)plan->slots + 1, sizeof *l->slots);
    if (!l->slots)
        return problem_no_memory(p, "the links");
    for (int i = 0; !t->model->nccl && i < plan->slots; i++) {
        l->slots[i].device = t->model->stages[plan->to]->gpu;
        TRY(event_make(t, plan->to, &l->slots[i].posted, p));
        TRY(event_make(t, plan->from, &l->slots[i].arrived, p));
    }
    return MDL_OK;
}

void link_close(Trainer *t, int link)
{
    Link *l = &t->links[link];
    for (int i = 0; l->slots && i < t->model->links[link].slots; i++) {
        if (l->slots[i].posted)
            gpu_note((int)cudaEventDestroy(l->slots[i].posted));
        if (l->slots[i].arrived)
            gpu_note((int)cudaEventDestroy(l->slots[i].arrived));
    }
    free(l->slots);
}

static LinkSlot *slot_at(const Stage *s, int link, int64_t n)
{
    return &s->trainer->links[link].slots[n % s->trainer->model->links[link].slots];
}

int link_post(Stage *s, int link, int m, void *buffer)
{
    Link *l = &s->trainer->links[link];
    TRY(link_check_post(s, link, m));
    LinkSlot *slot = slot_at(s, link, atomic_load_explicit(&l->posted, memory_order_relaxed));
    slot->buffer = buffer;
    slot->m = m;
    CUDA(cudaEventRecord(slot->posted, s->transfer));
    link_count(l, &l->posted);
    return MDL_OK;
}

int link_ready(Stage *s, int link, int m, LinkSlot **slot)
{
    Link *l = &s->trainer->links[link];
    int64_t n = atomic_load_explicit(&l->sent, memory_order_relaxed);
    if (s->trainer->model->links[link].from != s->index)
        return link_misused(s, link, m, "a message is sent by a stage that does not send");
    TRY(link_until(s, link, &l->posted, n, m, "the send"));
    *slot = slot_at(s, link, n);
    if ((*slot)->m != m)
        return link_misused(s, link, m, "another micro-batch is expected");
    return MDL_OK;
}

int link_sent(Stage *s, int link, int m)
{
    Link *l = &s->trainer->links[link];
    if (s->trainer->model->links[link].from != s->index ||
        atomic_load_explicit(&l->posted, memory_order_relaxed) <=
            atomic_load_explicit(&l->sent, memory_order_relaxed))
        return link_misused(s, link, m, "a message was sent that nobody had posted");
    link_count(l, &l->sent);
    return MDL_OK;
}

int link_arrived(Stage *s, int link, int m, LinkSlot **slot)
{
    Link *l = &s->trainer->links[link];
    if (s->trainer->model->links[link].to != s->index ||
        atomic_load_explicit(&l->posted, memory_order_relaxed) <= l->waited)
        return link_misused(s, link, m, "a message is waited for that was not posted");
    *slot = slot_at(s, link, l->waited);
    if ((*slot)->m != m)
        return link_misused(s, link, m, "another micro-batch was posted first");
    TRY(link_until(s, link, &l->sent, l->waited, m, "the wait"));
    l->waited++;
    return MDL_OK;
}
