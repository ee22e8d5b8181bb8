/* half_reduce.c - sums of 16-bit numbers over any set of dimensions, as reduce.c sums floats.
 *
 *   last dimension reduced: an output element is the sum of contiguous runs, in blocks
 *   last dimension kept:    a run of output elements is the sum of such runs
 *
 * A tile is some output elements. Blocks are added up in double.
 */
#include "half_convert.h"
#include "reduce_plan.h"

enum { GRAIN = 1 << 14, COLUMNS = 512, LEAST_COLUMNS = 64, BLOCK = 128, STRETCH = 1024 };

typedef struct {
    HalfKind kind;
    float *y;
    const half16 *x;
    double scale;
    bool accumulate;
    int64_t columns;
    ReducePlan plan;
} Sum;

static void finish(const Sum *s, int64_t i, double sum)
{
    const float value = (float)(sum * s->scale);
    s->y[i] = s->accumulate ? s->y[i] + value : value;
}

static double run_sum(HalfKind kind, const half16 *x, int64_t n)
{
    float block[STRETCH];
    double sum = 0;
    for (int64_t i = 0; i < n; i += STRETCH) {
        const int64_t m = int_min(STRETCH, n - i);
        half_widen_row(kind, block, x + i, m);
        sum += (double)row_sum(block, m);
    }
    return sum;
}

/* Output elements [from, to), each from contiguous runs. */
static void sum_along(void *ctx, int64_t from, int64_t to)
{
    const Sum *s = ctx;
    for (int64_t i = from; i < to; i++) {
        const half16 *x = s->x + walk_offset(&s->plan.kept, i);
        double sum = 0;
        for (int64_t k = 0; k < s->plan.reduced.count; k++)
            sum += run_sum(s->kind, x + walk_offset(&s->plan.reduced, k), s->plan.run);
        finish(s, i, sum);
    }
}

/* value[n] += the sum of `count` <= 4 rows: each value is loaded and stored once. */
static inline void add_rows(HalfKind kind, float *restrict value, const half16 *const *x, int count,
                            int64_t n)
{
    int64_t i = 0;
#if MDL_HALF_VECTORS
    for (; i + VL <= n; i += VL) {
        Vec sum = half_widen_vector(kind, x[0] + i);
        for (int r = 1; r < count; r++)
            sum += half_widen_vector(kind, x[r] + i);
        vec_store(value + i, vec_load(value + i) + sum);
    }
#endif
    for (; i < n; i++) {
        float sum = half_widen_one(kind, x[0][i]);
        for (int r = 1; r < count; r++)
            sum += half_widen_one(kind, x[r][i]);
        value[i] += sum;
    }
}

/* A tile: `columns` neighbouring output elements of one run. */
static void sum_across(void *ctx, int64_t tile)
{
    const Sum *s = ctx;
    const int64_t cuts = int_ceil_div(s->plan.run, s->columns);
    const int64_t from = tile % cuts * s->columns, n = int_min(s->columns, s->plan.run - from);
    const half16 *x = s->x + walk_offset(&s->plan.kept, tile / cuts) + from;
    double sum[COLUMNS] = {0};
    for (int64_t k = 0; k < s->plan.reduced.count; k += BLOCK) {
        float value[COLUMNS] = {0};
        const int64_t end = int_min(s->plan.reduced.count, k + BLOCK);
        for (int64_t r = k; r < end; r += 4) {
            const half16 *row[4] = {0};
            const int count = (int)int_min(4, end - r);
            for (int i = 0; i < count; i++)
                row[i] = x + walk_offset(&s->plan.reduced, r + i);
            if (count == 4)
                add_rows(s->kind, value, row, 4, n);
            else
                add_rows(s->kind, value, row, count, n);
        }
        for (int64_t i = 0; i < n; i++)
            sum[i] += (double)value[i];
    }
    for (int64_t i = 0; i < n; i++)
        finish(s, tile / cuts * s->plan.run + from + i, sum[i]);
}

void reduce_sum_half(Team *team, HalfKind kind, float *y, const half16 *x, int rank,
                     const int64_t *dim, unsigned mask, double scale, bool accumulate)
{
    Sum s = {.kind = kind, .y = y, .x = x, .scale = scale, .accumulate = accumulate};
    if (reduce_is_empty(rank, dim))
        return;
    reduce_plan(&s.plan, rank, dim, mask);
    const int64_t outs = s.plan.kept.count, run = s.plan.run, runs = s.plan.reduced.count;
    if (!s.plan.across) {
        team_range(team, outs, int_max(1, GRAIN / int_max(1, run * runs)), sum_along, &s);
        return;
    }
    s.columns = int_min(COLUMNS, run);
    while (s.columns > LEAST_COLUMNS && outs * int_ceil_div(run, s.columns) < 8 &&
           runs * run > GRAIN)
        s.columns /= 2;
    team_run(team, outs * int_ceil_div(run, s.columns), sum_across, &s);
}
