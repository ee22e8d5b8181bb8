/* reduce.c - sums and maxima over any set of dimensions.
 *
 * What reduce_plan.h leaves of the dimensions is walked in one of two ways:
 *
 *   last dimension reduced: an output element is the combination of contiguous runs
 *   last dimension kept:    a run of output elements is the combination of such runs
 *
 * A tile is some output elements. Where one long run makes few elements, it is cut into
 * PARTS fixed parts first, and their results are combined in order.
 */
#include "reduce_plan.h"
#include "vec.h"

enum { GRAIN = 1 << 14, COLUMNS = 512 };
enum { PARTS = 64, LONG = 1 << 16, FEW = 8 };
enum { BLOCK = 128 /* runs added up in real; blocks are added up in double */ };

typedef struct {
    real *y;
    const real *x;
    double scale;
    bool accumulate, max;
    ReducePlan plan;
    int64_t columns;
    real partial[FEW * PARTS];
} Reduce;

static inline real larger(real best, real x)
{
    return x > best || x != x ? x : best;
}

static void finish(const Reduce *r, int64_t i, double sum)
{
    const real value = (real)(r->max ? sum : sum * r->scale);
    r->y[i] = r->accumulate ? r->y[i] + value : value;
}

/* Output elements [from, to), each from contiguous runs. */
static void reduce_along(void *ctx, int64_t from, int64_t to)
{
    const Reduce *r = ctx;
    for (int64_t i = from; i < to; i++) {
        const real *x = r->x + walk_offset(&r->plan.kept, i);
        real most = r->max ? row_max(x, r->plan.run) : 0;
        double sum = r->max ? 0 : (double)row_sum(x, r->plan.run);
        for (int64_t k = 1; k < r->plan.reduced.count; k++) {
            const real *next = x + walk_offset(&r->plan.reduced, k);
            if (r->max)
                most = larger(most, row_max(next, r->plan.run));
            else
                sum += (double)row_sum(next, r->plan.run);
        }
        finish(r, i, r->max ? (double)most : sum);
    }
}

static int64_t part_start(const Reduce *r, int64_t part)
{
    return r->plan.run / PARTS * part + int_min(part, r->plan.run % PARTS);
}

static void reduce_part(void *ctx, int64_t tile)
{
    Reduce *r = ctx;
    const int64_t from = part_start(r, tile % PARTS), n = part_start(r, tile % PARTS + 1) - from;
    const real *x = r->x + walk_offset(&r->plan.kept, tile / PARTS) + from;
    r->partial[tile] = r->max ? row_max(x, n) : row_sum(x, n);
}

/* The elements of runs [from, to) of the reduced dimensions, combined. */
static void combine_runs(const Reduce *r, real *restrict value, const real *x, int64_t n,
                         int64_t from, int64_t to)
{
    memcpy(value, x + walk_offset(&r->plan.reduced, from), (size_t)n * sizeof *value);
    for (int64_t k = from + 1; k < to; k++) {
        const real *next = x + walk_offset(&r->plan.reduced, k);
        if (r->max) {
            for (int64_t i = 0; i < n; i++)
                value[i] = larger(value[i], next[i]);
        } else if (k + 3 < to) { /* four at a time: each value is loaded and stored once */
            const real *b = x + walk_offset(&r->plan.reduced, k + 1);
            const real *c = x + walk_offset(&r->plan.reduced, k + 2);
            const real *d = x + walk_offset(&r->plan.reduced, k + 3);
            for (int64_t i = 0; i < n; i++)
                value[i] += (next[i] + b[i]) + (c[i] + d[i]);
            k += 3;
        } else {
            for (int64_t i = 0; i < n; i++)
                value[i] += next[i];
        }
    }
}

/* A tile: `columns` neighbouring output elements of one run. */
static void reduce_across(void *ctx, int64_t tile)
{
    const Reduce *r = ctx;
    const int64_t cuts = int_ceil_div(r->plan.run, r->columns);
    const int64_t from = tile % cuts * r->columns, n = int_min(r->columns, r->plan.run - from);
    const real *x = r->x + walk_offset(&r->plan.kept, tile / cuts) + from;
    const int64_t block = r->max ? r->plan.reduced.count : BLOCK;
    real value[COLUMNS];
    double sum[COLUMNS] = {0};
    for (int64_t k = 0; k < r->plan.reduced.count; k += block) {
        combine_runs(r, value, x, n, k, int_min(r->plan.reduced.count, k + block));
        for (int64_t i = 0; i < n; i++)
            sum[i] += (double)value[i];
    }
    for (int64_t i = 0; i < n; i++)
        finish(r, tile / cuts * r->plan.run + from + i, sum[i]);
}

static void reduce(Team *team, Reduce *r)
{
    const int64_t outs = r->plan.kept.count;
    if (r->plan.across) {
        r->columns = int_min(COLUMNS, r->plan.run);
        while (r->columns > 64 && outs * int_ceil_div(r->plan.run, r->columns) < 8 &&
               r->plan.reduced.count * r->plan.run > GRAIN)
            r->columns /= 2;
        team_run(team, outs * int_ceil_div(r->plan.run, r->columns), reduce_across, r);
        return;
    }
    if (outs <= FEW && r->plan.reduced.count == 1 && r->plan.run >= LONG) {
        team_run(team, outs * PARTS, reduce_part, r);
        for (int64_t i = 0; i < outs; i++) {
            real most = r->partial[i * PARTS];
            double sum = 0;
            for (int64_t p = i * PARTS; p < (i + 1) * PARTS; p++) {
                most = larger(most, r->partial[p]);
                sum += (double)r->partial[p];
            }
            finish(r, i, r->max ? (double)most : sum);
        }
        return;
    }
    const int64_t each = int_max(1, r->plan.run * r->plan.reduced.count);
    team_range(team, outs, int_max(1, GRAIN / each), reduce_along, r);
}

void reduce_sum(Team *team, real *y, const real *x, int rank, const int64_t *dim, unsigned mask,
                double scale, bool accumulate)
{
    Reduce r = {.y = y, .x = x, .scale = scale, .accumulate = accumulate};
    if (reduce_is_empty(rank, dim))
        return;
    reduce_plan(&r.plan, rank, dim, mask);
    reduce(team, &r);
}

void reduce_max(Team *team, real *y, const real *x, int rank, const int64_t *dim, unsigned mask)
{
    Reduce r = {.y = y, .x = x, .scale = 1, .max = true};
    if (reduce_is_empty(rank, dim))
        return;
    reduce_plan(&r.plan, rank, dim, mask);
    reduce(team, &r);
}

typedef struct {
    Reduce shape;
    real *dx;
    const real *dy, *y;
} MaxBack;

/* Output elements [from, to); dx was zeroed. */
static void max_back(void *ctx, int64_t from, int64_t to)
{
    const MaxBack *b = ctx;
    const Reduce *r = &b->shape;
    for (int64_t i = from; i < to; i++) {
        const int64_t row = r->plan.across ? i / r->plan.run : i,
                      column = r->plan.across ? i % r->plan.run : 0;
        const int64_t start = walk_offset(&r->plan.kept, row) + column,
                      n = r->plan.across ? 1 : r->plan.run;
        bool found = false;
        for (int64_t k = 0; k < r->plan.reduced.count && !found; k++) {
            const int64_t at = start + walk_offset(&r->plan.reduced, k);
            for (int64_t j = 0; j < n && !found; j++) {
                const real x = r->x[at + j];
                found = x == b->y[i] || x != x;
                if (found)
                    b->dx[at + j] = b->dy[i];
            }
        }
    }
}

void reduce_max_backward(Team *team, real *dx, const real *dy, const real *x, const real *y,
                         int rank, const int64_t *dim, unsigned mask)
{
    MaxBack b = {.shape = {.x = x}, .dx = dx, .dy = dy, .y = y};
    int64_t total = 1;
    if (reduce_is_empty(rank, dim))
        return;
    for (int d = 0; d < rank; d++)
        total *= dim[d];
    reduce_plan(&b.shape.plan, rank, dim, mask);
    fill(team, dx, 0, total);
    const int64_t outs = b.shape.plan.kept.count * (b.shape.plan.across ? b.shape.plan.run : 1);
    team_range(team, outs, int_max(1, GRAIN / int_max(1, total / outs)), max_back, &b);
}
