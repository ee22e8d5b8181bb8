/* pool.c - pooling over windows of an image plane. One tile is some planes. */
#include "vec.h"

#include <string.h>

typedef struct {
    real *out;
    const real *in, *x;
    const Conv2d *s;
} Pool;

enum { GRAIN = 1 << 14 }; /* input elements of a tile */

static void run_planes(Team *team, Pool *p, RangeFn *fn)
{
    const int64_t plane = int_max(1, p->s->H * p->s->W);
    team_range(team, p->s->B * p->s->C, int_max(1, GRAIN / plane), fn, p);
}

/* The part of output pixel o's window that is inside the plane. */
typedef struct {
    int64_t top, bottom, left, right;
} Window;

static Window window_at(const Conv2d *s, int64_t oh, int64_t ow)
{
    const int64_t h = oh * s->stride - s->pad, w = ow * s->stride - s->pad;
    return (Window){int_max(0, h), int_min(s->H, h + s->kernel), int_max(0, w),
                    int_min(s->W, w + s->kernel)};
}

/* Windows of 2 x 2 that do not overlap, the usual case. */
static bool is_halving(const Conv2d *s)
{
    return s->kernel == 2 && s->stride == 2 && s->pad == 0;
}

static inline real larger(real best, real x)
{
    return x > best || x != x ? x : best;
}

static void max_plane(real *restrict y, const real *restrict x, const Conv2d *s)
{
    if (is_halving(s)) {
        for (int64_t oh = 0; oh < s->OH; oh++) {
            const real *a = x + 2 * oh * s->W, *b = a + s->W;
            for (int64_t i = 0; i < s->OW; i++)
                y[oh * s->OW + i] =
                    larger(larger(larger(a[2 * i], a[2 * i + 1]), b[2 * i]), b[2 * i + 1]);
        }
        return;
    }
    for (int64_t o = 0; o < s->OH * s->OW; o++) {
        const Window v = window_at(s, o / s->OW, o % s->OW);
        real best = -(real)__builtin_inf();
        for (int64_t h = v.top; h < v.bottom; h++)
            for (int64_t w = v.left; w < v.right; w++)
                best = larger(best, x[h * s->W + w]);
        y[o] = best;
    }
}

static void max_forward(void *ctx, int64_t from, int64_t to)
{
    const Pool *p = ctx;
    for (int64_t i = from; i < to; i++)
        max_plane(p->out + i * p->s->OH * p->s->OW, p->in + i * p->s->H * p->s->W, p->s);
}

void maxpool2d_forward(Team *team, real *y, const real *x, const Conv2d *s)
{
    run_planes(team, &(Pool){y, x, NULL, s}, max_forward);
}

/* The gradient of a halving plane; rows and columns without a window were zeroed. */
static void max_back_halving(real *restrict dx, const real *restrict dy, const real *restrict x,
                             const Conv2d *s)
{
    for (int64_t oh = 0; oh < s->OH; oh++) {
        const real *a = x + 2 * oh * s->W, *b = a + s->W;
        real *da = dx + 2 * oh * s->W, *db = da + s->W;
        for (int64_t i = 0; i < s->OW; i++) {
            const real g = dy[oh * s->OW + i];
            const real v0 = a[2 * i], v1 = a[2 * i + 1], v2 = b[2 * i], v3 = b[2 * i + 1];
            const real m1 = larger(v0, v1), m2 = larger(m1, v2);
            const bool at3 = (v3 > m2) | (v3 != v3), at2 = (v2 > m1) | (v2 != v2),
                       at1 = (v1 > v0) | (v1 != v1);
            da[2 * i] = at1 | at2 | at3 ? 0 : g;
            da[2 * i + 1] = at1 & !at2 & !at3 ? g : 0;
            db[2 * i] = at2 & !at3 ? g : 0;
            db[2 * i + 1] = at3 ? g : 0;
        }
    }
}

static void max_back_plane(real *dx, const real *dy, const real *x, const Conv2d *s)
{
    if (is_halving(s)) {
        if (s->W % 2 != 0 || s->H % 2 != 0)
            memset(dx, 0, (size_t)(s->H * s->W) * sizeof *dx);
        max_back_halving(dx, dy, x, s);
        return;
    }
    memset(dx, 0, (size_t)(s->H * s->W) * sizeof *dx);
    for (int64_t o = 0; o < s->OH * s->OW; o++) {
        const Window v = window_at(s, o / s->OW, o % s->OW);
        int64_t at = -1;
        real best = -(real)__builtin_inf();
        for (int64_t h = v.top; h < v.bottom; h++) {
            for (int64_t w = v.left; w < v.right; w++) {
                const real e = x[h * s->W + w];
                if (at < 0 || e > best || e != e) {
                    best = e;
                    at = h * s->W + w;
                }
            }
        }
        if (at >= 0)
            dx[at] += dy[o];
    }
}

static void max_backward(void *ctx, int64_t from, int64_t to)
{
    const Pool *p = ctx;
    const int64_t in = p->s->H * p->s->W, out = p->s->OH * p->s->OW;
    for (int64_t i = from; i < to; i++)
        max_back_plane(p->out + i * in, p->in + i * out, p->x + i * in, p->s);
}

void maxpool2d_backward(Team *team, real *dx, const real *dy, const real *x, const Conv2d *s)
{
    run_planes(team, &(Pool){dx, dy, x, s}, max_backward);
}

static void avg_forward(void *ctx, int64_t from, int64_t to)
{
    const Pool *p = ctx;
    const Conv2d *s = p->s;
    for (int64_t i = from; i < to; i++) {
        const real *x = p->in + i * s->H * s->W;
        for (int64_t o = 0; o < s->OH * s->OW; o++) {
            const Window v = window_at(s, o / s->OW, o % s->OW);
            const int64_t count = int_max(1, (v.bottom - v.top) * (v.right - v.left));
            real sum = 0;
            for (int64_t h = v.top; h < v.bottom; h++)
                for (int64_t w = v.left; w < v.right; w++)
                    sum += x[h * s->W + w];
            p->out[i * s->OH * s->OW + o] = sum / (real)count;
        }
    }
}

void avgpool2d_forward(Team *team, real *y, const real *x, const Conv2d *s)
{
    run_planes(team, &(Pool){y, x, NULL, s}, avg_forward);
}

static void avg_backward(void *ctx, int64_t from, int64_t to)
{
    const Pool *p = ctx;
    const Conv2d *s = p->s;
    for (int64_t i = from; i < to; i++) {
        real *dx = p->out + i * s->H * s->W;
        memset(dx, 0, (size_t)(s->H * s->W) * sizeof *dx);
        for (int64_t o = 0; o < s->OH * s->OW; o++) {
            const Window v = window_at(s, o / s->OW, o % s->OW);
            const int64_t count = int_max(1, (v.bottom - v.top) * (v.right - v.left));
            const real g = p->in[i * s->OH * s->OW + o] / (real)count;
            for (int64_t h = v.top; h < v.bottom; h++)
                for (int64_t w = v.left; w < v.right; w++)
                    dx[h * s->W + w] += g;
        }
    }
}

void avgpool2d_backward(Team *team, real *dx, const real *dy, const Conv2d *s)
{
    run_planes(team, &(Pool){dx, dy, NULL, s}, avg_backward);
}
