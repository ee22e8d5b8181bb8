/* team.c - the threads of one device.
 *
 * In: a number of tiles and a function. Out: every tile done once.
 *
 * A job is published in one 64-bit word, `claim`: its number in the upper half, the
 * next free tile in the lower. A thread takes a tile by raising the word with a
 * compare-and-swap, which fails once the job has changed: so a helper that slept
 * through a job never touches the next one's tiles with the old function, and the
 * caller waits for tiles only, never for helpers that have nothing to do.
 */
#define _GNU_SOURCE
#include "kernels.h"

#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vec.h"

enum {
    SPIN_LONG = 4000, /* pauses before a helper sleeps: some tens of microseconds */
    SPIN_SHORT = 50,
    SPIN_CALLER = 20000 /* pauses before the caller offers its core to a waiting helper */
};

static const uint64_t CLOSED = UINT32_MAX; /* a claim of no tile: every job has fewer */

typedef struct {
    Team *team;
    int member; /* from 1; the caller is member 0 */
    pthread_t thread;
} Helper;

struct Team {
    int threads, started;
    int spin;
    char *scratch; /* threads x TEAM_SCRATCH */
    Helper *helpers;
    _Alignas(64) _Atomic uint64_t claim;
    _Alignas(64) _Atomic uint32_t job; /* what sleeping helpers watch: upper half of claim */
    _Atomic int sleepers;
    _Atomic bool stop;
    _Atomic(TeamFn *) fn;
    _Atomic(void *) ctx;
    _Atomic uint32_t tiles;
    _Alignas(64) _Atomic uint32_t done;
};

static _Thread_local int member_of_thread;

static void pause_briefly(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#else
    atomic_signal_fence(memory_order_seq_cst);
#endif
}

/* Takes tiles of the current job until there are none. */
static void work(Team *team)
{
    uint32_t finished = 0;
    uint64_t claim = atomic_load_explicit(&team->claim, memory_order_acquire);
    for (;;) {
        TeamFn *fn = atomic_load_explicit(&team->fn, memory_order_acquire);
        void *ctx = atomic_load_explicit(&team->ctx, memory_order_acquire);
        uint32_t tiles = atomic_load_explicit(&team->tiles, memory_order_acquire);
        uint32_t tile = (uint32_t)claim;
        if (tile >= tiles)
            break;
        /* success proves that fn, ctx and tiles belong to this job: the caller closes the
         * word before it writes those of the next */
        if (!atomic_compare_exchange_weak_explicit(&team->claim, &claim, claim + 1,
                                                   memory_order_acq_rel, memory_order_acquire)) {
            if (finished > 0) {
                atomic_fetch_add_explicit(&team->done, finished, memory_order_release);
                finished = 0;
            }
            continue;
        }
        fn(ctx, tile);
        finished++;
        claim = atomic_load_explicit(&team->claim, memory_order_acquire);
    }
    if (finished > 0)
        atomic_fetch_add_explicit(&team->done, finished, memory_order_release);
}

static void sleep_until_changed(Team *team, uint32_t seen)
{
    atomic_fetch_add(&team->sleepers, 1);
    while (atomic_load(&team->job) == seen)
        syscall(SYS_futex, &team->job, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
    atomic_fetch_sub(&team->sleepers, 1);
}

static void *helper_main(void *arg)
{
    Helper *helper = arg;
    Team *team = helper->team;
    member_of_thread = helper->member;
    uint32_t seen = 0;
    for (;;) {
        for (int i = 0; i < team->spin; i++) {
            if (atomic_load_explicit(&team->job, memory_order_relaxed) != seen)
                break;
            pause_briefly();
        }
        if (atomic_load(&team->job) == seen)
            sleep_until_changed(team, seen);
        seen = atomic_load(&team->job);
        if (atomic_load(&team->stop))
            return NULL;
        work(team);
    }
}

static void publish(Team *team)
{
    uint32_t job = atomic_load_explicit(&team->job, memory_order_relaxed) + 1;
    atomic_store_explicit(&team->claim, (uint64_t)job << 32, memory_order_release);
    atomic_store(&team->job, job);
    if (atomic_load(&team->sleepers) > 0)
        syscall(SYS_futex, &team->job, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

Team *team_new(int threads, bool spin)
{
    if (threads < 1)
        return NULL;
    Team *team = aligned_alloc(64, (sizeof(Team) + 63) / 64 * 64);
    if (!team)
        return NULL;
    *team = (Team){.threads = threads, .spin = spin ? SPIN_LONG : SPIN_SHORT};
    team->scratch = aligned_alloc(64, (size_t)threads * TEAM_SCRATCH);
    team->helpers = calloc((size_t)threads, sizeof *team->helpers);
    if (!team->scratch || !team->helpers) {
        team_free(team);
        return NULL;
    }
    for (int i = 1; i < threads; i++) {
        Helper *helper = &team->helpers[i];
        *helper = (Helper){.team = team, .member = i};
        if (pthread_create(&helper->thread, NULL, helper_main, helper) != 0) {
            team_free(team);
            return NULL;
        }
        team->started++;
    }
    return team;
}

void team_free(Team *team)
{
    if (!team)
        return;
    atomic_store(&team->stop, true);
    atomic_store(&team->tiles, 0);
    if (team->started > 0)
        publish(team);
    for (int i = 1; i <= team->started; i++)
        pthread_join(team->helpers[i].thread, NULL);
    free(team->helpers);
    free(team->scratch);
    free(team);
}

int team_threads(const Team *team)
{
    return team->threads;
}

void *team_scratch(Team *team)
{
    return team->scratch + (size_t)member_of_thread * TEAM_SCRATCH;
}

typedef struct {
    TeamFn *fn;
    void *ctx;
    int64_t first;
} Shifted;

static void run_shifted(void *ctx, int64_t tile)
{
    const Shifted *s = ctx;
    s->fn(s->ctx, s->first + tile);
}

static void run_job(Team *team, uint32_t tiles, TeamFn *fn, void *ctx)
{
    atomic_store_explicit(&team->claim, CLOSED, memory_order_release);
    atomic_store_explicit(&team->fn, fn, memory_order_release);
    atomic_store_explicit(&team->ctx, ctx, memory_order_release);
    atomic_store_explicit(&team->tiles, tiles, memory_order_release);
    atomic_store_explicit(&team->done, 0, memory_order_relaxed);
    publish(team);
    work(team);
    for (int i = 0; atomic_load_explicit(&team->done, memory_order_acquire) != tiles; i++) {
        if (i < SPIN_CALLER)
            pause_briefly();
        else
            sched_yield();
    }
}

void team_run(Team *team, int64_t tiles, TeamFn *fn, void *ctx)
{
    if (team->threads == 1 || tiles <= 1) {
        for (int64_t tile = 0; tile < tiles; tile++)
            fn(ctx, tile);
        return;
    }
    const int64_t most = INT32_MAX; /* a job counts its tiles in 32 bits */
    for (int64_t first = 0; first < tiles; first += most) {
        Shifted shifted = {fn, ctx, first};
        uint32_t count = (uint32_t)int_min(most, tiles - first);
        if (first == 0)
            run_job(team, count, fn, ctx);
        else
            run_job(team, count, run_shifted, &shifted);
    }
}

typedef struct {
    RangeFn *fn;
    void *ctx;
    int64_t n, grain;
} Range;

static void run_range(void *ctx, int64_t tile)
{
    const Range *r = ctx;
    int64_t from = tile * r->grain;
    r->fn(r->ctx, from, int_min(r->n, from + r->grain));
}

void team_range(Team *team, int64_t n, int64_t grain, RangeFn *fn, void *ctx)
{
    if (n <= grain) {
        if (n > 0)
            fn(ctx, 0, n);
        return;
    }
    Range range = {fn, ctx, n, grain};
    team_run(team, int_ceil_div(n, grain), run_range, &range);
}
