/* matmul.c - batched products with broadcasting.
 *
 * A tile is a block of one output matrix; the dimensions over which products are summed
 * are walked inside it, in index order.
 */
#include "matmul_batch.h"
#include "micro.h"

typedef struct {
    Team *team;
    real *c;
    const real *a, *b;
    bool ta, tb, accumulate;
    int64_t m, n, k;
    int64_t tile_m, tile_n, rows, columns;
    BatchDims kept, summed;
} Matmul;

static void matmul_tile(void *ctx, int64_t tile)
{
    const Matmul *v = ctx;
    const int64_t per = v->rows * v->columns;
    const int64_t i = tile % per / v->columns * v->tile_m, j = tile % v->columns * v->tile_n;
    const int64_t M = int_min(v->tile_m, v->m - i), N = int_min(v->tile_n, v->n - j);
    const int64_t lda = v->ta ? v->m : v->k, ldb = v->tb ? v->k : v->n;
    int64_t a0 = 0, b0 = 0, c0 = 0;
    batch_offsets(&v->kept, tile / per, &a0, &b0, &c0);
    real *c = v->c + c0 + i * v->n + j;
    Finish finish = {.accumulate = v->accumulate};
    for (int64_t s = 0; s < v->summed.count; s++) {
        int64_t a = a0, b = b0, none = 0;
        batch_offsets(&v->summed, s, &a, &b, &none);
        block_product(team_scratch(v->team), v->ta, v->tb, M, N, v->k,
                      v->a + a + (v->ta ? i : i * lda), lda, v->b + b + (v->tb ? j * ldb : j), ldb,
                      c, v->n, &finish);
        finish.accumulate = true;
    }
}

void matmul(Team *team, real *c, const real *a, const real *b, bool ta, bool tb, int64_t m,
            int64_t n, int64_t k, const MatmulBatch *batch, bool accumulate)
{
    Matmul v = {.team = team, .c = c, .a = a, .b = b, .ta = ta, .tb = tb, .accumulate = accumulate};
    v.m = m;
    v.n = n;
    v.k = k;
    if (!batch_split(batch, &v.kept, &v.summed) || m <= 0 || n <= 0)
        return;
    v.tile_m = int_min(m, 128);
    v.tile_n = n;
    while (v.tile_n > 5 * MICRO_N ||
           (v.tile_n > MICRO_N &&
            v.kept.count * int_ceil_div(m, v.tile_m) * int_ceil_div(n, v.tile_n) < 8))
        v.tile_n = int_ceil_div(int_ceil_div(v.tile_n, 2), MICRO_N) * MICRO_N;
    v.rows = int_ceil_div(m, v.tile_m);
    v.columns = int_ceil_div(n, v.tile_n);
    team_run(team, v.kept.count * v.rows * v.columns, matmul_tile, &v);
}
