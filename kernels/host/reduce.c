/* reduce.c - sums and maxima over any set of dimensions.
 *
 * Dimensions of 1 are dropped and neighbours of one kind merged, so that kept and
 * reduced dimensions alternate. What is left is walked in one of two ways:
 *
 *   last dimension reduced: an output element is the combination of contiguous runs
 *   last dimension kept:    a run of output elements is the combination of such runs
 *
 * A tile is some output elements. Where one long run makes few elements, it is cut into
 * PARTS fixed parts first, and their results are combined in order.
 */
#include <string.h>

#include "vec.h"

enum { RANK = 9 /* eight and the batch */, GRAIN = 1 << 14, COLUMNS = 512 };
enum { PARTS = 64, LONG = 1 << 16, FEW = 8 };
enum { BLOCK = 128 /* runs added up in real; blocks are added up in double */ };

typedef struct {
    int rank;
    int64_t count;
    int64_t dim[RANK], stride[RANK];
} Walk;

typedef struct {
    real *y;
    const real *x;
    double scale;
    bool accumulate, max;
    bool across; /* the last dimension is kept */
    int64_t run; /* elements of the last dimension */
    int64_t columns;
    Walk kept, reduced; /* without the last dimension */
    real partial[FEW * PARTS];
} Reduce;

static int64_t walk_offset(const Walk *w, int64_t index)
{
    int64_t offset = 0;
    for (int d = w->rank - 1; d >= 0; d--) {
        offset += index % w->dim[d] * w->stride[d];
        index /= w->dim[d];
    }
    return offset;
}

static void plan(Reduce *r, int rank, const int64_t *dim, unsigned mask)
{
    int64_t size[RANK], total = 0;
    bool cut[RANK];
    int n = 0;
    for (int d = 0; d < rank; d++) {
        const bool reduced = mask >> d & 1;
        if (dim[d] == 1)
            continue;
        if (n > 0 && cut[n - 1] == reduced) {
            size[n - 1] *= dim[d];
            continue;
        }
        size[n] = dim[d];
        cut[n++] = reduced;
    }
    if (n == 0) {
        size[0] = 1;
        cut[n++] = false;
    }
    r->kept = r->reduced = (Walk){.count = 1};
    r->run = size[n - 1];
    r->across = !cut[n - 1];
    total = r->run;
    for (int d = n - 2; d >= 0; d--) {
        Walk *w = cut[d] ? &r->reduced : &r->kept;
        memmove(w->dim + 1, w->dim, (RANK - 1) * sizeof *w->dim);
        memmove(w->stride + 1, w->stride, (RANK - 1) * sizeof *w->stride);
        w->dim[0] = size[d];
        w->stride[0] = total;
        w->rank++;
        w->count *= size[d];
        total *= size[d];
    }
}

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
        const real *x = r->x + walk_offset(&r->kept, i);
        real most = r->max ? row_max(x, r->run) : 0;
        double sum = r->max ? 0 : (double)row_sum(x, r->run);
        for (int64_t k = 1; k < r->reduced.count; k++) {
            const real *next = x + walk_offset(&r->reduced, k);
            if (r->max)
                most = larger(most, row_max(next, r->run));
            else
                sum += (double)row_sum(next, r->run);
        }
        finish(r, i, r->max ? (double)most : sum);
    }
}

static int64_t part_start(const Reduce *r, int64_t part)
{
    return r->run / PARTS * part + int_min(part, r->run % PARTS);
}

static void reduce_part(void *ctx, int64_t tile)
{
    Reduce *r = ctx;
    const int64_t from = part_start(r, tile % PARTS), n = part_start(r, tile % PARTS + 1) - from;
    const real *x = r->x + walk_offset(&r->kept, tile / PARTS) + from;
    r->partial[tile] = r->max ? row_max(x, n) : row_sum(x, n);
}

/* The elements of runs [from, to) of the reduced dimensions, combined. */
static void combine_runs(const Reduce *r, real *restrict value, const real *x, int64_t n,
                         int64_t from, int64_t to)
{
    memcpy(value, x + walk_offset(&r->reduced, from), (size_t)n * sizeof *value);
    for (int64_t k = from + 1; k < to; k++) {
        const real *next = x + walk_offset(&r->reduced, k);
        if (r->max)
            for (int64_t i = 0; i < n; i++)
                value[i] = larger(value[i], next[i]);
        else
            for (int64_t i = 0; i < n; i++)
                value[i] += next[i];
    }
}

/* A tile: `columns` neighbouring output elements of one run. */
static void reduce_across(void *ctx, int64_t tile)
{
    const Reduce *r = ctx;
    const int64_t cuts = int_ceil_div(r->run, r->columns);
    const int64_t from = tile % cuts * r->columns, n = int_min(r->columns, r->run - from);
    const real *x = r->x + walk_offset(&r->kept, tile / cuts) + from;
    const int64_t block = r->max ? r->reduced.count : BLOCK;
    real value[COLUMNS];
    double sum[COLUMNS] = {0};
    for (int64_t k = 0; k < r->reduced.count; k += block) {
        combine_runs(r, value, x, n, k, int_min(r->reduced.count, k + block));
        for (int64_t i = 0; i < n; i++)
            sum[i] += (double)value[i];
    }
    for (int64_t i = 0; i < n; i++)
        finish(r, tile / cuts * r->run + from + i, sum[i]);
}

static void reduce(Team *team, Reduce *r)
{
    const int64_t outs = r->kept.count;
    if (r->across) {
        r->columns = int_min(COLUMNS, r->run);
        while (r->columns > 64 && outs * int_ceil_div(r->run, r->columns) < 8 &&
               r->reduced.count * r->run > GRAIN)
            r->columns /= 2;
        team_run(team, outs * int_ceil_div(r->run, r->columns), reduce_across, r);
        return;
    }
    if (outs <= FEW && r->reduced.count == 1 && r->run >= LONG) {
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
    const int64_t each = int_max(1, r->run * r->reduced.count);
    team_range(team, outs, int_max(1, GRAIN / each), reduce_along, r);
}

static bool is_empty(int rank, const int64_t *dim)
{
    for (int d = 0; d < rank; d++)
        if (dim[d] <= 0)
            return true;
    return false;
}

void reduce_sum(Team *team, real *y, const real *x, int rank, const int64_t *dim, unsigned mask,
                double scale, bool accumulate)
{
    Reduce r = {.y = y, .x = x, .scale = scale, .accumulate = accumulate};
    if (is_empty(rank, dim))
        return;
    plan(&r, rank, dim, mask);
    reduce(team, &r);
}

void reduce_max(Team *team, real *y, const real *x, int rank, const int64_t *dim, unsigned mask)
{
    Reduce r = {.y = y, .x = x, .scale = 1, .max = true};
    if (is_empty(rank, dim))
        return;
    plan(&r, rank, dim, mask);
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
        const int64_t row = r->across ? i / r->run : i, column = r->across ? i % r->run : 0;
        const int64_t start = walk_offset(&r->kept, row) + column, n = r->across ? 1 : r->run;
        bool found = false;
        for (int64_t k = 0; k < r->reduced.count && !found; k++) {
            const int64_t at = start + walk_offset(&r->reduced, k);
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
    if (is_empty(rank, dim))
        return;
    for (int d = 0; d < rank; d++)
        total *= dim[d];
    plan(&b.shape, rank, dim, mask);
    fill(team, dx, 0, total);
    const int64_t outs = b.shape.kept.count * (b.shape.across ? b.shape.run : 1);
    team_range(team, outs, int_max(1, GRAIN / int_max(1, total / outs)), max_back, &b);
}
