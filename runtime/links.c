/* links.c - what messages between stages wait for.
 *
 * A link is a ring of buffers with one sender and one receiver. The receiver posts
 * message i's buffer in slot i % slots and counts `posted`; the sender waits for that,
 * fills the buffer and counts `sent`; the receiver waits for that. Nothing else
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

int link_until(Stage *s, int link, _Atomic int64_t *counter, int64_t n, int m, const char *what)
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
void link_count(Link *l, _Atomic int64_t *counter)
{
    atomic_fetch_add(counter, 1);
    if (atomic_load(&l->sleepers) == 0)
        return;
    pthread_mutex_lock(&l->lock);
    pthread_cond_broadcast(&l->wake);
    pthread_mutex_unlock(&l->lock);
}

int link_misused(Stage *s, int link, int m, const char *what)
{
    char place[TEXT_PLACE];
    return stage_fail(s, "%s: %s (link %s, micro-batch %d); the stages' code does not fit together",
                      stage_place(s, place), what, s->trainer->model->links[link].name, m);
}

int link_check_post(Stage *s, int link, int m)
{
    const MdlLink *plan = &s->trainer->model->links[link];
    const Link *l = &s->trainer->links[link];
    int64_t n = atomic_load_explicit(&l->posted, memory_order_relaxed);
    if (plan->to != s->index)
        return link_misused(s, link, m, "a buffer is posted by a stage that does not receive");
    if (n - l->waited >= plan->slots)
        return link_misused(s, link, m, "more buffers are posted than the link has slots");
    return MDL_OK;
}

int links_new(Trainer *t, Problem *p)
{
    const MdlModel *model = t->model;
    size_t n = (size_t)model->nlinks + 1;
    t->links = aligned_alloc(CACHE_LINE, n * sizeof *t->links);
    if (!t->links)
        return problem_no_memory(p, "the links");
    memset(t->links, 0, n * sizeof *t->links);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    for (int i = 0; i < model->nlinks; i++) {
        pthread_mutex_init(&t->links[i].lock, NULL);
        pthread_cond_init(&t->links[i].wake, &monotonic);
    }
    pthread_condattr_destroy(&monotonic);
    for (int i = 0; i < model->nlinks; i++)
        TRY(link_open(t, i, p));
    return MDL_OK;
}

void links_free(Trainer *t)
{
    for (int i = 0; t->links && i < t->model->nlinks; i++) {
        Link *l = &t->links[i];
        link_close(t, i);
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
