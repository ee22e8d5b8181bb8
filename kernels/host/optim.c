/* optim.c - one step of an optimizer over the n elements of a weight, in one pass.
 *
 * A tile also sums the squares of its unscaled gradient in double; there are at most
 * PARTS tiles, whose size depends on n alone, and their sums are added in order.
 */
#include <math.h>

#include "vec.h"
#include "vmath.h"

enum { PARTS = 256, LEAST = 1 << 13, BLOCK = 512 };

typedef struct {
    real *restrict w, *restrict m, *restrict v;
    const real *restrict g;
    int64_t n, part;
    double sum[PARTS];
    real scale, lr, decay, momentum, keep2, take1, take2, root, eps, step;
    bool first, nesterov;
} Update;

/* Squares of n <= BLOCK elements in eight partial sums. */
static double block_squares(const real *g, int64_t n)
{
    enum { SUMS = 8 };
    double sum[SUMS] = {0};
    int64_t i = 0;
    for (; i + SUMS <= n; i += SUMS)
        for (int s = 0; s < SUMS; s++)
            sum[s] += (double)g[i + s] * (double)g[i + s];
    for (int s = 0; i < n; i++, s++)
        sum[s] += (double)g[i] * (double)g[i];
    return ((sum[0] + sum[4]) + (sum[1] + sum[5])) + ((sum[2] + sum[6]) + (sum[3] + sum[7]));
}

static double run(Team *team, Update *u, TeamFn *fn)
{
    u->part = int_max(LEAST, int_ceil_div(int_ceil_div(u->n, PARTS), BLOCK) * BLOCK);
    const int64_t parts = int_ceil_div(u->n, u->part);
    team_run(team, parts, fn, u);
    double sum = 0;
    for (int64_t i = 0; i < parts; i++)
        sum += u->sum[i];
    return sum;
}

/* Runs `one` over the tile, block by block, adding up the squares of the gradient. */
typedef void BlockFn(const Update *u, int64_t from, int64_t to);

VEC_INLINE void update_tile(Update *u, int64_t tile, BlockFn *one)
{
    const int64_t end = int_min(u->n, (tile + 1) * u->part);
    double sum = 0;
    for (int64_t i = tile * u->part; i < end; i += BLOCK) {
        const int64_t to = int_min(end, i + BLOCK);
        sum += block_squares(u->g + i, to - i);
        if (one)
            one(u, i, to);
    }
    u->sum[tile] = sum;
}

static void sgd_block(const Update *u, int64_t from, int64_t to)
{
    real *restrict w = u->w, *restrict buffer = u->m;
    const real *restrict g = u->g;
    const real scale = u->scale, lr = u->lr, decay = u->decay, momentum = u->momentum;
    if (!buffer) {
        for (int64_t i = from; i < to; i++)
            w[i] -= lr * (g[i] * scale + decay * w[i]);
        return;
    }
    const real keep = u->first ? 0 : momentum;
    if (u->first)
        for (int64_t i = from; i < to; i++)
            buffer[i] = 0;
    for (int64_t i = from; i < to; i++) {
        const real d = g[i] * scale + decay * w[i];
        buffer[i] = keep * buffer[i] + d;
        w[i] -= lr * (u->nesterov ? d + momentum * buffer[i] : buffer[i]);
    }
}

static void sgd_tile(void *ctx, int64_t tile)
{
    update_tile(ctx, tile, sgd_block);
}

double sgd_update(Team *team, real *w, const real *g, real *velocity, int64_t n, const Hyper *h)
{
    Update u = {.w = w, .m = h->momentum != 0 ? velocity : NULL, .g = g, .n = n};
    u.scale = (real)h->grad_scale;
    u.lr = (real)h->lr;
    u.decay = (real)h->weight_decay;
    u.momentum = (real)h->momentum;
    u.first = h->step <= 1;
    u.nesterov = h->nesterov;
    return run(team, &u, sgd_tile);
}

static void adam_block(const Update *u, int64_t from, int64_t to)
{
    real *restrict w = u->w, *restrict m = u->m, *restrict v = u->v;
    const real *restrict g = u->g;
    const real scale = u->scale, keep2 = u->keep2, take1 = u->take1, take2 = u->take2;
    const real root = u->root, eps = u->eps, step = u->step, decay = u->decay;
    for (int64_t i = from; i < to; i++) {
        const real d = g[i] * scale;
        m[i] += (d - m[i]) * take1;
        v[i] = v[i] * keep2 + take2 * d * d;
        w[i] = w[i] * decay - step * (m[i] / (mdl_sqrt(v[i]) / root + eps));
    }
}

static void adam_tile(void *ctx, int64_t tile)
{
    update_tile(ctx, tile, adam_block);
}

static double adam(Team *team, real *w, const real *g, real *m, real *v, int64_t n, const Hyper *h,
                   double decay)
{
    Update u = {.w = w, .m = m, .v = v, .g = g, .n = n};
    const double step = (double)h->step;
    u.scale = (real)h->grad_scale;
    u.take1 = (real)(1 - h->beta1);
    u.keep2 = (real)h->beta2;
    u.take2 = (real)(1 - h->beta2);
    u.root = (real)sqrt(1 - pow(h->beta2, step));
    u.step = (real)(h->lr / (1 - pow(h->beta1, step)));
    u.eps = (real)h->eps;
    u.decay = (real)decay;
    return run(team, &u, adam_tile);
}

double adam_update(Team *team, real *w, const real *g, real *m, real *v, int64_t n, const Hyper *h)
{
    return adam(team, w, g, m, v, n, h, 1);
}

double adamw_update(Team *team, real *w, const real *g, real *m, real *v, int64_t n, const Hyper *h)
{
    return adam(team, w, g, m, v, n, h, 1 - h->lr * h->weight_decay);
}

static void squares_tile(void *ctx, int64_t tile)
{
    update_tile(ctx, tile, NULL);
}

double sum_squares(Team *team, const real *g, int64_t n)
{
    Update u = {.g = g, .n = n};
    return run(team, &u, squares_tile);
}
