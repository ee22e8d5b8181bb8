/* gemm.c - matrix products of any shape: tiles of C, which the team shares.
 *
 * The tiles depend on (M, N, K) alone; each is one block_product, by our own kernels (block.c)
 * or by a BLAS (blas.c), as the library was configured. */
#include "micro.h"

enum { TILE_N = 5 }; /* panels of MICRO_N columns at most in a tile */

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
    int64_t tile_m, tile_n, columns; /* tiles of C, and how many lie side by side */
} Product;

static void product_tile(void *ctx, int64_t tile)
{
    const Product *p = ctx;
    const int64_t i = tile / p->columns * p->tile_m, j = tile % p->columns * p->tile_n;
    const Finish finish = finish_from(p->finish, i, j);
    block_product(team_scratch(p->team), p->ta, p->tb, int_min(p->tile_m, p->M - i),
                  int_min(p->tile_n, p->N - j), p->K, p->A + (p->ta ? i : i * p->lda), p->lda,
                  p->B + (p->tb ? j * p->ldb : j), p->ldb, p->C + i * p->ldc + j, p->ldc, &finish);
}

/* n cut into equal parts of about `most`, each a multiple of `unit`. */
static int64_t even_part(int64_t n, int64_t most, int64_t unit)
{
    const int64_t parts = int_ceil_div(n, most);
    return int_ceil_div(int_ceil_div(n, parts), unit) * unit;
}

void tiled_product(Team *team, bool ta, bool tb, int64_t M, int64_t N, int64_t K, const real *A,
                   int64_t lda, const real *B, int64_t ldb, real *C, int64_t ldc,
                   const Finish *finish)
{
    if (M <= 0 || N <= 0)
        return;
    Product p = {team, ta, tb, M, N, K, A, lda, B, ldb, C, ldc, finish, 0, 0, 0};
    const double work = 2.0 * (double)M * (double)N * (double)K;
    if (work < 2e5) {
        p.tile_m = M;
        p.tile_n = N;
    } else {
        p.tile_m = even_part(M, 128, MICRO_M);
        /* some eight tiles, so that a team of any size shares them evenly */
        const int64_t rows = int_ceil_div(M, p.tile_m);
        const int64_t wanted = int_ceil_div(N * rows, 8 * MICRO_N);
        p.tile_n = MICRO_N * int_max(1, int_min(TILE_N, wanted));
    }
    p.columns = int_ceil_div(N, p.tile_n);
    team_run(team, int_ceil_div(M, p.tile_m) * p.columns, product_tile, &p);
}

void gemm(Team *team, bool ta, bool tb, int64_t M, int64_t N, int64_t K, const real *A, int64_t lda,
          const real *B, int64_t ldb, bool accumulate, real *C, int64_t ldc)
{
    const Finish finish = {.accumulate = accumulate};
    tiled_product(team, ta, tb, M, N, K, A, lda, B, ldb, C, ldc, &finish);
}
