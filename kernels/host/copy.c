/* copy.c - moving elements: strided copies, fills, sums in place.
 *
 * copy_strided merges neighbouring dimensions that lie one after the other in both
 * tensors; then the last dimension is a memcpy, a fill, or element by element, and a
 * transpose goes in small squares so that both sides use whole cache lines.
 */
#include <string.h>

#include "vec.h"

enum { RANK = 8, GRAIN = 1 << 14, SQUARE = 16 };

typedef struct {
    char *y;
    const char *x;
    int rank; /* of the outer dimensions */
    int64_t dim[RANK], ys[RANK], xs[RANK];
    int64_t n, yn, xn; /* the last dimension */
    int64_t m, ym;     /* transposes: the dimension along which x is contiguous; else 1 */
    int64_t row_cuts;  /* transposes: blocks of m */
    int size;
} Copy;

#define COPY_RUN(Type)                                                                             \
    do {                                                                                           \
        Type *to = (Type *)(void *)y;                                                              \
        const Type *from = (const Type *)(const void *)x;                                          \
        if (xn == 0)                                                                               \
            for (int64_t i = 0; i < n; i++)                                                        \
                to[i * yn] = *from;                                                                \
        else if (yn == 1)                                                                          \
            for (int64_t i = 0; i < n; i++)                                                        \
                to[i] = from[i * xn];                                                              \
        else                                                                                       \
            for (int64_t i = 0; i < n; i++)                                                        \
                to[i * yn] = from[i * xn];                                                         \
    } while (0)

/* n elements of `size` bytes with strides in elements. */
static void copy_run(char *y, const char *x, int64_t n, int64_t yn, int64_t xn, int size)
{
    if (yn == 1 && xn == 1)
        memcpy(y, x, (size_t)(n * size));
    else if (size == 4)
        COPY_RUN(uint32_t);
    else if (size == 8)
        COPY_RUN(uint64_t);
    else if (size == 2)
        COPY_RUN(uint16_t);
    else
        COPY_RUN(uint8_t);
}

static void outer_offsets(const Copy *c, int64_t index, int64_t *y, int64_t *x)
{
    for (int d = c->rank - 1; d >= 0; d--) {
        *y += index % c->dim[d] * c->ys[d];
        *x += index % c->dim[d] * c->xs[d];
        index /= c->dim[d];
    }
}

static void copy_rows(void *ctx, int64_t from, int64_t to)
{
    const Copy *c = ctx;
    for (int64_t r = from; r < to; r++) {
        int64_t y = 0, x = 0;
        outer_offsets(c, r, &y, &x);
        copy_run(c->y + y * c->size, c->x + x * c->size, c->n, c->yn, c->xn, c->size);
    }
}

/* Part of one long row. */
static void copy_part(void *ctx, int64_t from, int64_t to)
{
    const Copy *c = ctx;
    copy_run(c->y + from * c->yn * c->size, c->x + from * c->xn * c->size, to - from, c->yn, c->xn,
             c->size);
}

#define TURN_SQUARE(Type)                                                                          \
    do {                                                                                           \
        Type *to = (Type *)(void *)y;                                                              \
        const Type *from = (const Type *)(const void *)x;                                          \
        for (int64_t r = 0; r < m; r++)                                                            \
            for (int64_t j = 0; j < n; j++)                                                        \
                to[r * c->ym + j] = from[r + j * c->xn];                                           \
    } while (0)

/* A strip of SQUARE rows of y (columns of x), one outer index. */
static void copy_turned(void *ctx, int64_t tile)
{
    const Copy *c = ctx;
    int64_t y0 = 0, x0 = 0;
    outer_offsets(c, tile / c->row_cuts, &y0, &x0);
    const int64_t i = tile % c->row_cuts * SQUARE, m = int_min(SQUARE, c->m - i);
    for (int64_t j0 = 0; j0 < c->n; j0 += SQUARE) {
        const int64_t n = int_min(SQUARE, c->n - j0);
        char *y = c->y + (y0 + i * c->ym + j0) * c->size;
        const char *x = c->x + (x0 + i + j0 * c->xn) * c->size;
        if (c->size == 4)
            TURN_SQUARE(uint32_t);
        else
            TURN_SQUARE(uint64_t);
    }
}

/* Drops dimensions of 1 and merges neighbours. False when there is nothing to copy. */
static bool plan(Copy *c, int rank, const int64_t *dim, const int64_t *ystride,
                 const int64_t *xstride)
{
    for (int d = 0; d < rank; d++) {
        if (dim[d] <= 0)
            return false;
        if (dim[d] == 1)
            continue;
        const int last = c->rank - 1;
        if (last >= 0 && c->ys[last] == ystride[d] * dim[d] && c->xs[last] == xstride[d] * dim[d]) {
            c->dim[last] *= dim[d];
            c->ys[last] = ystride[d];
            c->xs[last] = xstride[d];
            continue;
        }
        c->dim[c->rank] = dim[d];
        c->ys[c->rank] = ystride[d];
        c->xs[c->rank++] = xstride[d];
    }
    c->n = c->m = c->yn = c->xn = 1;
    if (c->rank > 0) {
        c->n = c->dim[--c->rank];
        c->yn = c->ys[c->rank];
        c->xn = c->xs[c->rank];
    }
    return true;
}

/* Takes the dimension along which x is contiguous out of the outer ones. */
static bool find_transpose(Copy *c)
{
    if (c->yn != 1 || c->xn <= 1 || c->n < 4 || c->size < 4)
        return false;
    for (int d = 0; d < c->rank; d++) {
        if (c->xs[d] != 1 || c->dim[d] < 4)
            continue;
        c->m = c->dim[d];
        c->ym = c->ys[d];
        c->rank--;
        for (int e = d; e < c->rank; e++) {
            c->dim[e] = c->dim[e + 1];
            c->ys[e] = c->ys[e + 1];
            c->xs[e] = c->xs[e + 1];
        }
        return true;
    }
    return false;
}

static void copy_strips(void *ctx, int64_t from, int64_t to)
{
    for (int64_t tile = from; tile < to; tile++)
        copy_turned(ctx, tile);
}

void copy_strided(Team *team, void *y, const void *x, int rank, const int64_t *dim,
                  const int64_t *ystride, const int64_t *xstride, int size)
{
    Copy c = {.y = y, .x = x, .size = size};
    if (!plan(&c, rank, dim, ystride, xstride))
        return;
    const bool turned = find_transpose(&c);
    int64_t rows = 1;
    for (int d = 0; d < c.rank; d++)
        rows *= c.dim[d];
    if (turned) {
        c.row_cuts = int_ceil_div(c.m, SQUARE);
        team_range(team, rows * c.row_cuts, int_max(1, GRAIN / (SQUARE * c.n)), copy_strips, &c);
    } else if (rows == 1) {
        team_range(team, c.n, GRAIN, copy_part, &c);
    } else {
        team_range(team, rows, int_max(1, GRAIN / c.n), copy_rows, &c);
    }
}

typedef struct {
    real *y;
    const real *x;
    real value;
} Flat;

static void fill_part(void *ctx, int64_t from, int64_t to)
{
    const Flat *f = ctx;
    for (int64_t i = from; i < to; i++)
        f->y[i] = f->value;
}

void fill(Team *team, real *y, real value, int64_t n)
{
    team_range(team, n, GRAIN, fill_part, &(Flat){y, NULL, value});
}

void arange_fill(int32_t *y, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = (int32_t)i;
}

static void add_part(void *ctx, int64_t from, int64_t to)
{
    const Flat *f = ctx;
    real *restrict y = f->y;
    const real *restrict x = f->x;
    for (int64_t i = from; i < to; i++)
        y[i] += x[i];
}

void accumulate_into(Team *team, real *y, const real *x, int64_t n)
{
    team_range(team, n, GRAIN, add_part, &(Flat){y, x, 0});
}
