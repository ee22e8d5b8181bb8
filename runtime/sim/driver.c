/* driver.c - GPUs go on while the program waits for a host function without asking CUDA.
 *
 * A program may wait for what a host function of a stream does: for a semaphore, or a flag. No
 * thread of it then runs operations, so a thread of the simulator does: when all others sleep,
 * or have not called for a while. It is there once a host function was put into a stream.
 */
#include <pthread.h>
#include <signal.h>
#include <time.h>

#include "host.h"

static void *driver_run(void *unused)
{
    const struct timespec pause = {.tv_nsec = 20000000};
    (void)unused;
    for (;;) {
        nanosleep(&pause, NULL);
        if (!lock_try(0))
            continue;
        scheduler_drive();
        sim_unlock();
    }
    return NULL;
}

/* The program's signals are for its own threads. */
bool driver_start(void)
{
    static bool started;
    pthread_t thread;
    sigset_t all, before;
    if (started)
        return true;
    sigfillset(&all);
    if (pthread_sigmask(SIG_SETMASK, &all, &before) != 0)
        return false;
    started = pthread_create(&thread, NULL, driver_run, NULL) == 0;
    return pthread_sigmask(SIG_SETMASK, &before, NULL) == 0 && started &&
           pthread_detach(thread) == 0;
}
