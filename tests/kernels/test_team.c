/* The threads of a team: every tile once, scratch apart, ranges complete. */
#include "check.h"

#include <stdatomic.h>

enum { TILES = 1000 };

typedef struct {
    Team *team;
    atomic_int count[TILES];
    atomic_int shared; /* set when two threads wrote the same scratch at once */
} Job;

static void count_tile(void *ctx, int64_t tile)
{
    Job *job = ctx;
    volatile int64_t *scratch = team_scratch(job->team);
    if ((uintptr_t)scratch % 64 != 0)
        atomic_store(&job->shared, 1);
    scratch[0] = scratch[TEAM_SCRATCH / 8 - 1] = tile;
    for (int i = 0; i < 20; i++)
        if (scratch[0] != tile || scratch[TEAM_SCRATCH / 8 - 1] != tile)
            atomic_store(&job->shared, 1);
    atomic_fetch_add(&job->count[tile], 1);
}

static void test_every_tile_once(void **state)
{
    (void)state;
    static Job job;
    for (int t = 0; t < TEAMS; t++) {
        for (int spin = 0; spin < 2; spin++) {
            job.team = team_new(TEAM_SIZES[t], spin);
            assert_non_null(job.team);
            assert_int_equal(team_threads(job.team), TEAM_SIZES[t]);
            for (int round = 0; round < 200; round++) {
                const int tiles = round * 7 % TILES;
                memset(job.count, 0, sizeof job.count);
                team_run(job.team, tiles, count_tile, &job);
                for (int i = 0; i < TILES; i++)
                    assert_int_equal(job.count[i], i < tiles);
            }
            assert_int_equal(job.shared, 0);
            team_free(job.team);
        }
    }
}

static void count_range(void *ctx, int64_t from, int64_t to)
{
    Job *job = ctx;
    for (int64_t i = from; i < to; i++)
        atomic_fetch_add(&job->count[i], 1);
}

static void test_ranges(void **state)
{
    (void)state;
    static Job job;
    job.team = team_new(3, true);
    const int lengths[] = {0, 1, 63, 64, 65, 999, 1000};
    for (int n = 0; n < 7; n++) {
        memset(job.count, 0, sizeof job.count);
        team_range(job.team, lengths[n], 64, count_range, &job);
        for (int i = 0; i < TILES; i++)
            assert_int_equal(job.count[i], i < lengths[n]);
    }
    team_free(job.team);
}

static void test_no_team_of_nobody(void **state)
{
    (void)state;
    assert_null(team_new(0, false));
    team_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_tile_once),
        cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_no_team_of_nobody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
