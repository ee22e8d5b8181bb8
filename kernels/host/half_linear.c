/* half_linear.c - the three products of a linear layer on 16-bit numbers: tiles of C, which the
 * team shares; they depend on (M, N, K) alone. */
#include "half_product.h"

typedef struct {
    Team *team;
    HalfFactors factors;
    HalfTile c;
    int64_t M, N, K;
    bool add;         /* to what C holds */
    const Tail *tail; /* NULL: none */
    Tiles tiles;
    int64_t columns; /* tiles side by side */
} Product;

static void product_tile(void *ctx, int64_t tile)
{
    const Product *p = ctx;
    const int64_t i = tile / p->columns * p->tiles.m, j = tile % p->columns * p->tiles.n;
    const int64_t m = int_min(p->tiles.m, p->M - i), n = int_min(p->tiles.n, p->N - j);
    HalfFactors f = p->factors;
    HalfTile c = p->c;
    f.A += f.ta ? i : i * f.lda;
    f.B += f.tb ? j * f.ldb : j;
    if (c.wide)
        c.wide += i * c.ld + j;
    if (c.half)
        c.half += i * c.ld + j;
    if (c.col_bias)
        c.col_bias += j;
    half_tile_product(team_scratch(p->team), &f, m, n, p->K, &c, !p->add, true);
    for (int64_t r = i; r < i + m && p->tail; r++)
        p->tail->fn(p->tail->args, r, j, j + n);
}

static void run_product(Product *p, const Tail *tail)
{
    if (p->M <= 0 || p->N <= 0)
        return;
    p->tail = tail && tail->fn ? tail : NULL;
    p->tiles = half_tiles(&p->factors, p->M, p->N, p->K);
    p->columns = int_ceil_div(p->N, p->tiles.n);
    team_run(p->team, p->tiles.count, product_tile, p);
}

void linear_forward_half(Team *team, HalfKind kind, half16 *y, const half16 *x, const half16 *w,
                         const float *b, int64_t rows, int64_t k, int64_t n, bool transposed,
                         const Tail *tail)
{
    Product p = {team,
                 {kind, false, !transposed, x, k, w, transposed ? n : k},
                 {NULL, y, n, b},
                 rows,
                 n,
                 k,
                 .add = false};
    run_product(&p, tail);
}

void linear_backward_input_half(Team *team, HalfKind kind, half16 *dx, const half16 *dy,
                                const half16 *w, int64_t rows, int64_t k, int64_t n,
                                bool transposed, const Tail *tail)
{
    Product p = {team,
                 {kind, false, transposed, dy, n, w, transposed ? n : k},
                 {NULL, dx, k, NULL},
                 rows,
                 k,
                 n,
                 .add = false};
    run_product(&p, tail);
}

void linear_backward_weight_half(Team *team, HalfKind kind, float *dw, const half16 *dy,
                                 const half16 *x, int64_t rows, int64_t k, int64_t n,
                                 bool transposed, bool accumulate)
{
    Product p = {
        team, {kind, true, false, dy, n, x, k}, {dw, NULL, k, NULL}, n, k, rows, .add = accumulate};
    if (transposed)
        p = (Product){team,
                      {kind, true, false, x, k, dy, n},
                      {dw, NULL, n, NULL},
                      k,
                      n,
                      rows,
                      .add = accumulate};
    run_product(&p, NULL);
}
