/* lock.c - the one lock of the simulator.
 *
 * The thread that has it may take it again. Who runs operations gives it up between two of
 * them when others wait for it, so that threads that enqueue are not kept out.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <time.h>

#include "host.h"

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static atomic_int wanting;

static void lock_take(void)
{
    if (pthread_mutex_trylock(&mutex) == 0)
        return;
    atomic_fetch_add(&wanting, 1);
    pthread_mutex_lock(&mutex);
    atomic_fetch_sub(&wanting, 1);
}

void sim_lock(void)
{
    if (host_thread()->depth++ == 0)
        lock_take();
}

void sim_unlock(void)
{
    if (--host_thread()->depth == 0)
        pthread_mutex_unlock(&mutex);
}

static struct timespec time_after(double seconds)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    long ns = until.tv_nsec + (long)(seconds * 1e9);
    until.tv_sec += ns / 1000000000;
    until.tv_nsec = ns % 1000000000;
    return until;
}

bool lock_try(double seconds)
{
    struct timespec until = time_after(seconds);
    if (host_thread()->depth == 0 && pthread_mutex_timedlock(&mutex, &until) != 0)
        return false;
    host_thread()->depth++;
    return true;
}

void lock_sleep(double seconds)
{
    struct timespec until = time_after(seconds);
    pthread_cond_timedwait(&changed, &mutex, &until);
}

bool lock_wanted(void)
{
    return atomic_load(&wanting) > 0;
}

void lock_wake(void)
{
    pthread_cond_broadcast(&changed);
}

int lock_leave(void)
{
    HostThread *t = host_thread();
    int depth = t->depth;
    t->depth = 0;
    pthread_mutex_unlock(&mutex);
    return depth;
}

void lock_return(int depth)
{
    lock_take();
    host_thread()->depth = depth;
}

/* A mutex goes back to who released it, unless the others get the processor. */
void lock_yield(void)
{
    if (atomic_load(&wanting) == 0)
        return;
    int depth = lock_leave();
    for (int i = 0; i < 3 && atomic_load(&wanting) > 0; i++)
        sched_yield();
    lock_return(depth);
}
