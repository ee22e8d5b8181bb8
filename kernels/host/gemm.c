/* gemm.c - matrix products of any shape: tiles of C, which the team shares.
 *
 * The tiles depend on (M, N, K) alone; each is one block_product, by our own kernels (block.c)
 * or by a BLAS (blas.c), as the library was configured. */
#include <math.h>

#include "micro.h"

enum {
    CHOICES = 11,       /* cuts tried in either direction beyond the coarsest */
    NEAR = 4,           /* bringing an element near, in multiplications */
    TURNED = 10,        /* and when it is turned round */
    TILE_COST = 100000, /* starting a tile */
    TILE_M_MOST = 1024,
    SHALLOW = 96,
    NEAR_BYTES = 400 << 10 /* of a tile's A: stays in the second cache beside the rest */
};

typedef struct {
    Team *team;
    bool ta, tb;
    int64_t M, N, K;
    const real *A;
    int64_t lda;
    const real *B;
    int64_t ldb;
    real *C;
    int64_t ldc;
    const Finish *finish;
    const Tail *tail;                /* NULL: none */
    int64_t tile_m, tile_n, columns; /* tiles of C, and how many lie side by side */
} Product;

static void product_tile(void *ctx, int64_t tile)
{
    const Product *p = ctx;
    const int64_t i = tile / p->columns * p->tile_m, j = tile % p->columns * p->tile_n;
    const int64_t m = int_min(p->tile_m, p->M - i), n = int_min(p->tile_n, p->N - j);
    const Finish finish = finish_from(p->finish, i, j);
    block_product(team_scratch(p->team), p->ta, p->tb, m, n, p->K, p->A + (p->ta ? i : i * p->lda),
                  p->lda, p->B + (p->tb ? j * p->ldb : j), p->ldb, p->C + i * p->ldc + j, p->ldc,
                  &finish);
    for (int64_t r = i; r < i + m && p->tail; r++)
        p->tail->fn(p->tail->args, r, j, j + n);
}

static Tiles tiles_of(int64_t M, int64_t N, int64_t rows, int64_t columns)
{
    Tiles t;
    t.m = int_ceil_div(int_ceil_div(M, MICRO_M), rows) * MICRO_M;
    t.n = int_ceil_div(int_ceil_div(N, MICRO_N), columns) * MICRO_N;
    t.count = int_ceil_div(M, t.m) * int_ceil_div(N, t.n);
    return t;
}

/* What a cut costs, for teams of several sizes alike, in multiplications: the product, packing,
 * and what idle threads wait for the last tiles. */
static double cost_of(Tiles t, const Cut *c)
{
    static const int64_t teams[] = {1, 2, 2, 2, 4};
    const double M = (double)c->M, N = (double)c->N, K = (double)c->K;
    const double m = (double)t.m, n = (double)t.n;
    const double tile = (m * n + n * c->pack_b + m * c->pack_a) * K + TILE_COST;
    const double all = (M * N + N * c->pack_b * (double)int_ceil_div(c->M, t.m) +
                        M * c->pack_a * (double)int_ceil_div(c->N, t.n)) *
                           K +
                       TILE_COST * (double)t.count;
    double sum = 0;
    for (size_t i = 0; i < sizeof teams / sizeof teams[0]; i++) {
        const double threads = (double)teams[i];
        const double equal = (double)int_ceil_div(t.count, teams[i]) * tile * threads;
        sum += fmin(equal, all + (threads - 1) * tile); /* tiles at the edges are smaller */
    }
    return sum;
}

Tiles product_tiles(const Cut *c)
{
    const int64_t strips = int_ceil_div(c->M, MICRO_M), panels = int_ceil_div(c->N, MICRO_N);
    const int64_t rows = int_ceil_div(c->M, c->most_rows), columns = int_ceil_div(c->N, TILE_N);
    Tiles best = tiles_of(c->M, c->N, rows, columns);
    double least = HUGE_VAL;
    if (2.0 * (double)c->M * (double)c->N * (double)c->K < 2e5) /* not worth sharing */
        return best;
    for (int64_t r = rows; r <= int_min(strips, rows + CHOICES); r++)
        for (int64_t p = columns; p <= int_min(panels, columns + CHOICES); p++) {
            const Tiles t = tiles_of(c->M, c->N, r, p);
            const double cost = cost_of(t, c);
            if (cost < least) {
                least = cost;
                best = t;
            }
        }
    return best;
}

int64_t product_rows(int64_t depth, int64_t size)
{
    const int64_t rows = NEAR_BYTES / int_max(1, depth * size) / MICRO_M * MICRO_M;
    /* a shallow product is bound by storing C, which prefers few rows at a time */
    return depth < SHALLOW ? TILE_M / 2 : int_max(TILE_M, int_min(TILE_M_MOST, rows));
}

void tiled_product(Team *team, bool ta, bool tb, int64_t M, int64_t N, int64_t K, const real *A,
                   int64_t lda, const real *B, int64_t ldb, real *C, int64_t ldc,
                   const Finish *finish, const Tail *tail)
{
    if (M <= 0 || N <= 0)
        return;
    Product p = {team, ta, tb, M, N, K, A, lda, B, ldb, C, ldc, finish, NULL, 0, 0, 0};
    if (tail && tail->fn)
        p.tail = tail;
    const Cut cut = {M, N, K, NEAR, tb ? TURNED : NEAR, product_rows(K, sizeof(real))};
    const Tiles tiles = product_tiles(&cut);
    p.tile_m = tiles.m;
    p.tile_n = tiles.n;
    p.columns = int_ceil_div(N, p.tile_n);
    team_run(team, tiles.count, product_tile, &p);
}

void gemm(Team *team, bool ta, bool tb, int64_t M, int64_t N, int64_t K, const real *A, int64_t lda,
          const real *B, int64_t ldb, bool accumulate, real *C, int64_t ldc)
{
    const Finish finish = {.accumulate = accumulate};
    tiled_product(team, ta, tb, M, N, K, A, lda, B, ldb, C, ldc, &finish, NULL);
}
