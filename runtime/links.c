/* links.c - messages between stages.
 *
 * A link is a ring of buffers with one sender and one receiver. The receiver posts
 * message i's buffer in slot i % slots and counts `posted`; the sender waits for that,
 * copies into the buffer and counts `sent`; the receiver waits for that. Nothing else
 * is shared, and a slot is posted anew only after its message was waited for.
 *
 *     receiver  post 0, post 1, wait 0, post 2, wait 1, ...
 *     sender        send 0,          send 1,     ...
 *
 * Whoever waits spins for a moment where every thread has a core of its own, and then
 * sleeps; who counts looks for sleepers after counting. Both sides do that in one order
 * that all threads agree on, so no wake-up is lost.
 */
#include <stdlib.h>
#include <string.h>

#include "trainer.h"

enum { SPINS = 4000 };

static void cpu_relax(void)
{
#if defined __x86_64__
    __builtin_ia32_pause();
#endif
}

static int link_late(Stage *s, int link, int m, const char *what)
{
    const Trainer *t = s->trainer;
    char place[TEXT_PLACE];
    return stage_fail(s,
                      "%s: %s of micro-batch %d on link %s has waited for %g s; the other side "
                      "does not answer (--timeout)",
                      stage_place(s, place), what, m, t->model->links[link].name,
                      t->options.timeout);
}

/* Sleeps until *counter > n. */
static int link_sleep(Stage *s, int link, _Atomic int64_t *counter, int64_t n, int m,
                      const char *what)
{
    Trainer *t = s->trainer;
    Link *l = &t->links[link];
    bool limited = t->options.timeout > 0, late = false;
    struct timespec until = time_after(t->options.timeout);
    pthread_mutex_lock(&l->lock);
    atomic_fetch_add(&l->sleepers, 1);
    while (atomic_load(counter) <= n && !atomic_load(&t->aborted) && !late) {
        if (limited)
            late = pthread_cond_timedwait(&l->wake, &l->lock, &until) != 0;
        else
            pthread_cond_wait(&l->wake, &l->lock);
    }
    atomic_fetch_sub(&l->sleepers, 1);
    pthread_mutex_unlock(&l->lock);
    if (atomic_load(counter) > n)
        return MDL_OK;
    return atomic_load(&t->aborted) ? MDL_STOPPED : link_late(s, link, m, what);
}

/* Waits until *counter > n: looks, spins, then sleeps. */
static int link_until(Stage *s, int link, _Atomic int64_t *counter, int64_t n, int m,
                      const char *what)
{
    Trainer *t = s->trainer;
    if (atomic_load_explicit(counter, memory_order_acquire) > n)
        return MDL_OK;
    for (int i = 0; t->spin && i < SPINS; i++) {
        if (atomic_load_explicit(counter, memory_order_acquire) > n)
            return MDL_OK;
        cpu_relax();
    }
    return link_sleep(s, link, counter, n, m, what);
}

/* Counts, then wakes: the other order could miss a sleeper. */
static void link_count(Link *l, _Atomic int64_t *counter)
{
    atomic_fetch_add(counter, 1);
    if (atomic_load(&l->sleepers) == 0)
        return;
    pthread_mutex_lock(&l->lock);
    pthread_cond_broadcast(&l->wake);
    pthread_mutex_unlock(&l->lock);
}

static int link_misused(Stage *s, int link, int m, const char *what)
{
    char place[TEXT_PLACE];
    return stage_fail(s, "%s: %s (link %s, micro-batch %d); the stages' code does not fit together",
                      stage_place(s, place), what, s->trainer->model->links[link].name, m);
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
    const MdlLink *plan = &s->trainer->model->links[link];
    Link *l = &s->trainer->links[link];
    int64_t n = atomic_load_explicit(&l->posted, memory_order_relaxed);
    if (plan->to != s->index)
        return link_misused(s, link, m, "a buffer is posted by a stage that does not receive");
    if (n - l->waited >= plan->slots)
        return link_misused(s, link, m, "more buffers are posted than the link has slots");
    l->slots[n % plan->slots] = (struct LinkSlot){buffer, m};
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

int links_new(Trainer *t)
{
    const MdlModel *model = t->model;
    size_t n = (size_t)model->nlinks + 1;
    t->links = aligned_alloc(CACHE_LINE, n * sizeof *t->links);
    if (!t->links)
        return problem_no_memory(&t->problem, "the links");
    memset(t->links, 0, n * sizeof *t->links);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    int status = MDL_OK;
    for (int i = 0; i < model->nlinks; i++) {
        Link *l = &t->links[i];
        pthread_mutex_init(&l->lock, NULL);
        pthread_cond_init(&l->wake, &monotonic);
        l->slots = calloc((size_t)model->links[i].slots + 1, sizeof *l->slots);
        if (!l->slots)
            status = problem_no_memory(&t->problem, "the links");
    }
    pthread_condattr_destroy(&monotonic);
    return status;
}

void links_free(Trainer *t)
{
    for (int i = 0; t->links && i < t->model->nlinks; i++) {
        Link *l = &t->links[i];
        free(l->slots);
        pthread_mutex_destroy(&l->lock);
        pthread_cond_destroy(&l->wake);
    }
    free(t->links);
    t->links = NULL;
}

void links_wake(Trainer *t)
{
    for (int i = 0; t->links && i < t->model->nlinks; i++) {
        pthread_mutex_lock(&t->links[i].lock);
        pthread_cond_broadcast(&t->links[i].wake);
        pthread_mutex_unlock(&t->links[i].lock);
    }
}
