/* half_matmul.c - batched products with broadcasting of 16-bit matrices. A tile is a block of one
 * output matrix; the dimensions over which products are summed are walked inside it, in index
 * order. */
#include "half_product.h"
#include "matmul_batch.h"

typedef struct {
    Team *team;
    HalfFactors factors;
    HalfTile c;
    int64_t m, n, k;
    bool add;
    Tiles tiles;
    int64_t columns, per; /* tiles of a matrix: side by side, and all */
    BatchDims kept, summed;
} Matmul;

static void matmul_tile(void *ctx, int64_t tile)
{
    const Matmul *v = ctx;
    const int64_t i = tile % v->per / v->columns * v->tiles.m;
    const int64_t j = tile % v->per % v->columns * v->tiles.n;
    const int64_t m = int_min(v->tiles.m, v->m - i), n = int_min(v->tiles.n, v->n - j);
    int64_t a0 = 0, b0 = 0, c0 = i * v->n + j;
    batch_offsets(&v->kept, tile / v->per, &a0, &b0, &c0);
    HalfTile c = v->c;
    if (c.wide)
        c.wide += c0;
    else
        c.half += c0;
    for (int64_t s = 0; s < v->summed.count; s++) {
        HalfFactors f = v->factors;
        int64_t a = a0, b = b0, none = 0;
        batch_offsets(&v->summed, s, &a, &b, &none);
        f.A += a + (f.ta ? i : i * f.lda);
        f.B += b + (f.tb ? j * f.ldb : j);
        half_tile_product(team_scratch(v->team), &f, m, n, v->k, &c, s == 0 && !v->add,
                          s + 1 == v->summed.count);
    }
}

void matmul_half(Team *team, HalfKind kind, void *c, bool wide, const half16 *a, const half16 *b,
                 bool ta, bool tb, int64_t m, int64_t n, int64_t k, const MatmulBatch *batch,
                 bool accumulate)
{
    Matmul v = {.team = team, .m = m, .n = n, .k = k, .add = wide && accumulate};
    v.factors = (HalfFactors){kind, ta, tb, a, ta ? m : k, b, tb ? k : n};
    v.c = (HalfTile){wide ? c : NULL, wide ? NULL : c, n, NULL};
    if (!batch_split(batch, &v.kept, &v.summed) || m <= 0 || n <= 0)
        return;
    v.tiles = half_tiles(&v.factors, m, n, k);
    if (v.kept.count >= 8 || v.summed.count > 1) { /* enough to share, or sums that wait */
        v.tiles.m = int_min(TILE_M, m);
        v.tiles.n = int_min(TILE_N, n);
    }
    v.columns = int_ceil_div(n, v.tiles.n);
    v.per = v.columns * int_ceil_div(m, v.tiles.m);
    team_run(team, v.kept.count * v.per, matmul_tile, &v);
}
