/* scheduler.c - which operation runs next, waiting, and deadlock.
 *
 * Whoever waits runs operations, one at a time, until what it waits for is done: of the
 * streams whose first operation can run, the schedule picks one. A thread that finds none
 * sleeps until another enqueues something. When all threads of the process sleep, here or until
 * one that does wakes them, or when nothing has happened for the configured time, the deadlock
 * is reported with the first operation of every stream.
 */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "host.h"

enum { PENDING_MAX = 4096, QUERY_STEPS = 4, WAITERS_MAX = 1024, THREADS_MAX = 256 };
#define ACTIVE_NS 50000000 /* a thread that has not called for so long is busy elsewhere */
#define LINGER_NS 20000000 /* the longest that a wait waits for other threads' calls */
#define LINGER_SECONDS 0.0002
#define ASLEEP_NS 50000000 /* all sleep for so long: for what a stream does */
#define BUSY_NS 250000000  /* nobody has called for so long, though some have not slept */

static struct {
    uint64_t random;
    bool seeded;
    int64_t progress;          /* when something last happened */
    long waiters[WAITERS_MAX]; /* threads that sleep here */
    struct {
        int64_t called; /* when it last called */
        long id;
        bool waiting;
    } threads[THREADS_MAX]; /* of the host; by HostThread.slot - 1 */
    int nthreads;
    long driver;    /* the thread of driver.c */
    long callbacks; /* that have run */
    int within;     /* threads in sim_wait */
    int waiting, busy, communicating[SIM_DEVICES_MAX];
} state;

static uint64_t scheduler_random(void)
{
    if (!state.seeded) {
        state.random = sim_config()->seed * UINT64_C(0x9E3779B97F4A7C15) + 1;
        state.seeded = true;
    }
    /* splitmix64 */
    uint64_t z = state.random += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

void scheduler_progress_made(void)
{
    state.progress = time_now_ns();
    lock_wake();
}

void sim_progress(void)
{
    scheduler_progress_made();
}

/* ------------------------------------------------------------------- running one */

static bool op_can_go(const SimStream *s)
{
    SimOp *op = s->head;
    if (!op || s->busy)
        return false;
    for (int i = 0; i < op->nafter; i++)
        if (!op->after[i]->done)
            return false;
    if (op->kind == SIM_OP_MESSAGE && !op->begun)
        return (!sim_config()->pessimistic || state.communicating[s->device] == 0) &&
               (!op->can_begin || op->can_begin(op));
    return !op->ready || op->ready(op);
}

/* The best of a schedule comes first or last; of `random`, each is as likely. */
static SimStream *scheduler_pick(bool unseen)
{
    SimSchedule schedule = sim_config()->schedule;
    SimStream *best = NULL;
    uint64_t n = 0;
    for (SimStream *s = streams_first(); s; s = s->next) {
        if (!op_can_go(s) || (unseen && s->head->host_sees))
            continue;
        n++;
        bool better = !best;
        if (best && schedule == SIM_RANDOM)
            better = scheduler_random() % n == 0;
        else if (best && schedule == SIM_LIFO)
            better = s->head->number > best->head->number;
        else if (best)
            better = s->head->number < best->head->number;
        if (better)
            best = s;
    }
    return best;
}

static void op_trace(const SimOp *op, const char *what)
{
    char text[512];
    if (sim_config()->trace)
        fprintf(stderr, "mdl-sim: %s %s\n", what, sim_op_describe(op, text, sizeof text));
}

static void op_clock_complete(SimStream *s, SimOp *op)
{
    sim_clock_join(&op->clock, &s->clock);
    for (int i = 0; i < op->nafter; i++)
        sim_clock_join(&op->clock, &op->after[i]->clock);
    op->clock.at[op->stream_id] = op->clock.sure[op->stream_id] = op->sequence - 1;
    if (op->clock.n <= (int)op->stream_id)
        op->clock.n = (int)op->stream_id + 1;
    op->misled = clock_misled(op);
}

static void op_done(SimStream *s, SimOp *op)
{
    op->clock.at[op->stream_id] = op->clock.sure[op->stream_id] = op->sequence;
    s->clock = op->clock;
    s->done = op->sequence;
    s->head = op->next;
    if (!s->head)
        s->tail = NULL;
    s->pending--;
    if (op->fills) {
        op->fills->clock = op->clock;
        op->fills->time = time_now_ns();
        op->fills->done = true;
    }
    if (op->kind == SIM_OP_MESSAGE)
        state.communicating[s->device]--;
    op_free(op);
    if (!s->head && s->destroyed)
        stream_retire(s);
}

/* The function may tell the program, which goes on as if it had waited for the stream. */
static void op_call_host(SimStream *s, SimOp *op)
{
    HostThread *thread = host_thread();
    clock_host_see(&op->clock);
    state.callbacks++;
    s->busy = true;
    state.busy++;
    thread->in_callback = true;
    int depth = lock_leave();
    op->run(op);
    lock_return(depth);
    thread->in_callback = false;
    state.busy--;
    s->busy = false;
}

static bool step(bool unseen)
{
    SimStream *s = scheduler_pick(unseen);
    if (!s)
        return false;
    SimOp *op = s->head;
    if (!op->begun) {
        op_clock_complete(s, op);
        if (op->kind != SIM_OP_RECORD && op->kind != SIM_OP_WAIT)
            history_note(op);
        op_trace(op, op->kind == SIM_OP_MESSAGE ? "begins" : "runs");
        op->begun = true;
        if (op->kind == SIM_OP_MESSAGE) {
            state.communicating[s->device]++;
            if (op->begin)
                op->begin(op);
            scheduler_progress_made();
            return true;
        }
    } else {
        op_trace(op, "ends");
    }
    if (op->kind == SIM_OP_CALLBACK)
        op_call_host(s, op);
    else if (op->run)
        op->run(op);
    op_done(s, op);
    scheduler_progress_made();
    return true;
}

bool scheduler_step(void)
{
    return step(false);
}

/* After a wait, a GPU goes on with what nobody waited for. So does this, or a program that
 * ends on a wrong result would end before the race that made it was seen. What the host can
 * see stays undone, so that it does not look finished to a host that has not waited. */
static void scheduler_settle(void)
{
    while (step(true))
        lock_yield();
}

void scheduler_drain(void)
{
    while (scheduler_step())
        lock_yield();
}

/* ------------------------------------------------------------- threads of the host */

static void thread_note(bool waiting)
{
    HostThread *t = host_thread();
    if (t->slot == 0 && state.nthreads < THREADS_MAX) {
        t->slot = ++state.nthreads;
        state.threads[t->slot - 1].id = syscall(SYS_gettid);
    }
    if (t->slot == 0)
        return;
    state.threads[t->slot - 1].called = time_now_ns();
    state.threads[t->slot - 1].waiting = waiting;
}

/* Whether a thread has the processor, or wants it. */
static bool thread_runs(long id)
{
    char path[64], text[256];
    snprintf(path, sizeof path, "/proc/self/task/%ld/stat", id);
    FILE *f = fopen(path, "r");
    size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
    if (f)
        fclose(f);
    text[n] = 0;
    const char *name_end = strrchr(text, ')');
    return name_end && strncmp(name_end, ") R", 3) == 0;
}

/* Whether another thread is on its way to its next call. */
static bool others_active(void)
{
    int64_t now = time_now_ns();
    for (int i = 0; i < state.nthreads; i++)
        if (i + 1 != host_thread()->slot && !state.threads[i].waiting &&
            now - state.threads[i].called < ACTIVE_NS && thread_runs(state.threads[i].id))
            return true;
    return lock_wanted();
}

/* Threads are ahead of their GPUs: before anything runs, the others get a moment to enqueue
 * what they have. Else one thread's wait would be over before another's call, and order
 * operations that nothing orders on a GPU. */
static void linger(void)
{
    int64_t until = time_now_ns() + LINGER_NS;
    if (sim_config()->schedule == SIM_EAGER || !sim_config()->race || state.nthreads < 2)
        return;
    while (time_now_ns() < until && others_active())
        lock_sleep(LINGER_SECONDS);
}

/* After a call: all of it under `eager`; else long queues are kept short. */
void scheduler_after_call(void)
{
    if (host_thread()->in_callback)
        return;
    thread_note(false);
    if (sim_config()->schedule == SIM_EAGER) {
        scheduler_drain();
        return;
    }
    for (SimStream *s = streams_first(); s; s = s->next)
        while (s->pending > PENDING_MAX)
            if (!scheduler_step())
                return;
}

/* --------------------------------------------------------------------- deadlock */

/* Whether a thread sleeps until another one wakes it. The kernel tells in which call it is. */
static bool thread_sleeps(const char *id)
{
    char path[64];
    long number = -1;
    unsigned long word, operation, value, timeout = 1;
    snprintf(path, sizeof path, "/proc/self/task/%.20s/syscall", id);
    FILE *f = fopen(path, "r");
    if (!f)
        return false;
    int n = fscanf(f, "%ld %lx %lx %lx %lx", &number, &word, &operation, &value, &timeout);
    fclose(f);
    return n == 5 && number == SYS_futex && timeout == 0;
}

static bool thread_waits(long id)
{
    for (int i = 0; i < state.waiting && i < WAITERS_MAX; i++)
        if (state.waiters[i] == id)
            return true;
    return id == state.driver;
}

/* Every thread of the process waits here or for another thread. */
static bool everyone_waits(void)
{
    DIR *tasks = opendir("/proc/self/task");
    bool all = tasks != NULL && !lock_wanted();
    for (struct dirent *entry; all && (entry = readdir(tasks));)
        all = entry->d_name[0] == '.' || thread_waits(strtol(entry->d_name, NULL, 10)) ||
              thread_sleeps(entry->d_name);
    if (tasks)
        closedir(tasks);
    return all;
}

/* What the first operation of a stream waits for. */
static void describe_head(const SimStream *s, char *out, size_t size)
{
    const SimOp *op = s->head;
    char text[512], stream[96];
    size_t n = (size_t)snprintf(out, size, "\n%s", sim_op_describe(op, text, sizeof text)), all = n;
    for (int i = 0; i < op->nafter && n < size; i++)
        if (!op->after[i]->done)
            n += (size_t)snprintf(out + n, size - n, ": waits for operation %u of %s",
                                  op->after[i]->sequence,
                                  sim_stream_describe(op->after[i]->stream, stream, sizeof stream));
    if (n > all || n >= size || op->kind != SIM_OP_MESSAGE)
        return;
    text[0] = 0;
    if (!op->begun && sim_config()->pessimistic && state.communicating[s->device] > 0)
        snprintf(out + n, size - n, ": waits until the other message of its device is done");
    else if (op->waits_for)
        snprintf(out + n, size - n, ": %s", op->waits_for(op, text, sizeof text));
    else if (op->begun)
        snprintf(out + n, size - n, ": has begun; its partners have not");
}

static void report_deadlock(const char *what)
{
    char text[8192], head[1024];
    size_t n = 0;
    text[0] = 0;
    for (const SimStream *s = streams_first(); s && n + 1024 < sizeof text; s = s->next)
        if (s->head) {
            describe_head(s, head, sizeof head);
            n += (size_t)snprintf(text + n, sizeof text - n, "%s (operation %u, %zu queued)", head,
                                  s->head->sequence, s->pending);
        }
    sim_report(SIM_DEADLOCK, "%s waits for ever; nothing that is queued can run%s", what,
               n > 0 ? text : "\nall streams are empty");
}

static bool nothing_will_happen(void)
{
    double idle = (double)(time_now_ns() - state.progress) * 1e-9;
    if (state.busy > 0)
        return false;
    return idle > sim_config()->timeout || (idle > 0.05 && everyone_waits());
}

static void waiter_add(void)
{
    if (state.waiting < WAITERS_MAX)
        state.waiters[state.waiting] = syscall(SYS_gettid);
    state.waiting++;
}

static void waiter_remove(void)
{
    long self = syscall(SYS_gettid);
    state.waiting--;
    for (int i = 0; i < state.waiting && i < WAITERS_MAX; i++)
        if (state.waiters[i] == self)
            state.waiters[i] = state.waiters[state.waiting];
}

static bool wait_until(bool (*done)(void *data), void *data, const char *what)
{
    linger();
    while (!done(data)) {
        if (scheduler_step()) {
            lock_yield();
            continue;
        }
        waiter_add();
        bool dead = nothing_will_happen();
        if (!dead)
            lock_sleep(0.06);
        waiter_remove();
        if (dead) {
            report_deadlock(what);
            return false;
        }
    }
    scheduler_settle();
    return true;
}

bool sim_wait(bool (*done)(void *data), void *data, const char *what)
{
    if (host_thread()->in_callback) {
        sim_report(SIM_MISUSE, "%s: a host function in a stream must not call CUDA", what);
        return false;
    }
    thread_note(true);
    scheduler_progress_made();
    state.within++;
    bool fine = wait_until(done, data, what);
    state.within--;
    thread_note(false);
    return fine;
}

/* --------------------------------------------------- host functions nobody waits for */

static bool callback_pending(void)
{
    for (const SimStream *s = streams_first(); s; s = s->next)
        for (const SimOp *op = s->head; op; op = op->next)
            if (op->kind == SIM_OP_CALLBACK)
                return true;
    return false;
}

static int64_t called_last(void)
{
    int64_t last = state.progress;
    for (int i = 0; i < state.nthreads; i++)
        last = state.threads[i].called > last ? state.threads[i].called : last;
    return last;
}

void scheduler_drive(void)
{
    state.driver = syscall(SYS_gettid);
    if (state.within > 0 || state.busy > 0 || !callback_pending())
        return;
    int64_t idle = time_now_ns() - called_last();
    bool asleep = idle > ASLEEP_NS && everyone_waits();
    if (!asleep && idle < BUSY_NS)
        return;
    long before = state.callbacks;
    bool any = false;
    while (state.callbacks == before && scheduler_step()) {
        any = true;
        lock_yield();
    }
    if (!any && (asleep || (double)idle * 1e-9 > sim_config()->timeout))
        report_deadlock("the program, where it has put a host function into a stream,");
}

/* ---------------------------------------------------------------------- waiting */

static cudaError_t wait_point(SimPoint *point, const char *call, bool learn)
{
    bool fine = sim_wait(point_passed, point, call);
    if (fine && learn)
        clock_host_learn(&point->clock);
    point_drop(point);
    return fine ? cudaSuccess : cudaErrorLaunchTimeout;
}

cudaError_t wait_for_point(SimPoint *point, const char *call)
{
    return wait_point(point, call, true);
}

cudaError_t wait_unknowing(SimStream *s, const char *call)
{
    SimPoint *point = stream_tail_point(s);
    return point ? wait_point(point_keep(point), call, false) : cudaSuccess;
}

cudaError_t wait_for_stream(SimStream *s, const char *call)
{
    SimPoint *point = stream_tail_point(s);
    if (point)
        return wait_for_point(point_keep(point), call);
    scheduler_settle();
    clock_host_learn(&s->clock);
    return cudaSuccess;
}

/* Points first: streams may come and go while this thread sleeps. */
cudaError_t wait_for_device(int device, const char *call)
{
    SimPoint *points[SIM_STREAMS_MAX];
    int n = 0;
    cudaError_t error = cudaSuccess;
    for (SimStream *s = streams_first(); s; s = s->next) {
        if (device >= 0 && s->device != device)
            continue;
        SimPoint *point = stream_tail_point(s);
        if (point && n < SIM_STREAMS_MAX)
            points[n++] = point_keep(point);
        else
            clock_host_learn(&s->clock);
    }
    SimClock retired = {0};
    streams_retired_join(device, &retired);
    clock_host_learn(&retired);
    for (int i = 0; i < n; i++) {
        if (error == cudaSuccess)
            error = wait_for_point(points[i], call);
        else
            point_drop(points[i]);
    }
    return error;
}

/* A program that asks again and again gets on, and one that asks for ever is told. */
bool scheduler_poll(bool (*done)(void *data), void *data, const char *what)
{
    for (int i = 0; i < QUERY_STEPS && !done(data); i++)
        if (!scheduler_step()) {
            double idle = (double)(time_now_ns() - state.progress) * 1e-9;
            if (state.busy == 0 && idle > sim_config()->timeout)
                report_deadlock(what);
            break;
        }
    return done(data);
}
