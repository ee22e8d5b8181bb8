/* half_product.c - one tile of a product of 16-bit matrices.
 *
 * In: op(A)[M,K], op(B)[K,N]. Out: C[M,N], in float or rounded once.
 *
 *     for every block of K:  pack A, unless its rows hold what the inner loop reads
 *         for every panel of MICRO_N columns:  pack B
 *             for every strip of MICRO_M rows:  the inner loop
 *
 * bf16 runs on half_rows where the processor has its instructions; a block of K is so deep that
 * sums rarely leave the registers before they are rounded. Otherwise operands are widened
 * while they are packed, for micro_rows.
 */
#include "half_product.h"

#include "half_convert.h"
#include "half_micro.h"

enum {
    WHOLE_K = 1024, /* up to here K is one block of pairs */
    PAIRS_K = 768,  /* and beyond, the blocks are at most so deep; even */
    WIDE_K = 384,   /* of a block that is widened */
    WIDE_ROW = WIDE_K + VL,
    NEAR = 3,    /* bringing an element near, in multiplications */
    PAIRED = 8,  /* and when rows are paired */
    TURNED = 14, /* and when it is turned round */
};

_Static_assert(
    (MICRO_N * WHOLE_K / 2 + TILE_M / MICRO_M * HALF_STRIP(WHOLE_K / 2) + TILE_M * TILE_N) * 4 <=
        TEAM_SCRATCH,
    "a panel, the rows of A and the sums fit the scratch");
_Static_assert((2 * MICRO_N * WIDE_ROW + TILE_M * WIDE_ROW + TILE_M * TILE_N) * 4 <= TEAM_SCRATCH,
               "and widened");

typedef struct {
    const HalfFactors *f;
    int64_t M, N, k, kc, next; /* `next` of K come after the kc at k */
    float *sums;               /* of a tile that is rounded, [M][ld] */
    int64_t ld;
    void *room; /* for packing */
    const HalfTile *c;
    bool add, last; /* to the sums before; the sums are complete */
} Part;

static bool is_paired(HalfKind kind)
{
    return MDL_HALF_DOT && kind == HALF_BF16;
}

/* Neither A nor sums need room in the scratch. */
static bool is_direct(const HalfFactors *f, int64_t K)
{
    return is_paired(f->kind) && !f->ta && K <= WHOLE_K;
}

Tiles half_tiles(const HalfFactors *f, int64_t M, int64_t N, int64_t K)
{
    const Cut cut = {M,
                     N,
                     K,
                     f->ta ? PAIRED : NEAR,
                     f->tb ? TURNED : PAIRED,
                     is_direct(f, K) ? product_rows(K, sizeof(half16)) : TILE_M};
    return product_tiles(&cut);
}

static const half16 *part_of_a(const Part *p)
{
    return p->f->A + (p->f->ta ? p->k * p->f->lda : p->k);
}

static const half16 *panel_of_b(const Part *p, int64_t j)
{
    const HalfFactors *f = p->f;
    return f->B + (f->tb ? j * f->ldb + p->k : p->k * f->ldb + j);
}

#if MDL_HALF_DOT
static Walk walk_of(const Part *p)
{
    const HalfFactors *f = p->f;
    const int64_t size = sizeof(half16);
    return (Walk){.ta = f->ta,
                  .tb = f->tb,
                  .M = p->M,
                  .N = p->N,
                  .kc = p->kc,
                  .next = p->next,
                  .A = (const char *)part_of_a(p),
                  .lda = f->lda * size,
                  .B = (const char *)panel_of_b(p, 0),
                  .ldb = f->ldb * size,
                  .size = size};
}

static HalfEnd end_of(const Part *p)
{
    const bool rounded = p->c->half && p->last;
    HalfEnd e = {.col_bias = p->last ? p->c->col_bias : NULL};
    if (p->add) {
        e.add = p->c->half ? p->sums : p->c->wide;
        e.ldadd = p->c->half ? p->ld : p->c->ld;
    }
    if (rounded)
        e.half = p->c->half;
    else
        e.wide = p->c->half ? p->sums : p->c->wide;
    e.ldo = rounded || !p->c->half ? p->c->ld : p->ld;
    return e;
}

static void product_of_pairs(const Part *p)
{
    const HalfFactors *f = p->f;
    const int64_t words = (p->kc + 1) / 2;
    uint32_t *const panel = p->room, *const strips = panel + MICRO_N * words;
    const Walk walk = walk_of(p);
    const HalfEnd end = end_of(p);
    HalfA rows = {(const char *)part_of_a(p), f->lda * 2, 4};
    int64_t kc = p->kc;
    if (f->ta) {
        half_pack_strips(strips, p->M, p->kc, part_of_a(p), f->lda);
        rows = (HalfA){(const char *)strips, 4, 4 * MICRO_M};
        kc = 2 * words;
    }
    const int64_t step = f->ta ? HALF_STRIP(words) * 4 / MICRO_M : rows.row;
    for (int64_t j = 0; j < p->N; j += MICRO_N) {
        const int n = (int)int_min(MICRO_N, p->N - j);
        half_pack_panel(panel, f->tb, p->kc, n, panel_of_b(p, j), f->ldb);
        Ahead ahead = walk_ahead(&walk, j);
        ahead.lines *= 2; /* a chunk is twice as deep */
        for (int64_t i = 0; i < p->M; i += MICRO_M) {
            HalfA a = rows;
            a.a += i * step;
            const HalfEnd here = half_end_from(end, i, j);
            half_rows((int)int_min(MICRO_M, p->M - i), n, kc, a, panel, &here, &ahead);
        }
    }
}
#endif

/* Widens `rows` rows of n elements. */
static void widen(HalfKind kind, float *to, int64_t ldto, const half16 *from, int64_t ld,
                  int64_t rows, int64_t n)
{
    for (int64_t r = 0; r < rows; r++)
        half_widen_row(kind, to + r * ldto, from + r * ld, n);
}

/* op(A) as rows, or, where it is stored [K,M], as strips [kc][MICRO_M]. */
static MicroA widened_rows(const Part *p, float *room)
{
    const HalfFactors *f = p->f;
    if (!f->ta) {
        widen(f->kind, room, WIDE_ROW, part_of_a(p), f->lda, p->M, p->kc);
        return (MicroA){room, WIDE_ROW, 0, 1};
    }
    for (int64_t i = 0; i < p->M; i += MICRO_M)
        widen(f->kind, room + i * p->kc, MICRO_M, part_of_a(p) + i, f->lda, p->kc,
              int_min(MICRO_M, p->M - i));
    return (MicroA){room, 1, 0, MICRO_M};
}

static void product_widened(const Part *p)
{
    const HalfFactors *f = p->f;
    float *const panel = p->room, *const turn = panel + MICRO_N * WIDE_ROW;
    const MicroA rows = widened_rows(p, turn + MICRO_N * WIDE_ROW);
    const int64_t step = f->ta ? p->kc : rows.row;
    float *const to = p->c->half ? p->sums : p->c->wide;
    const int64_t ld = p->c->half ? p->ld : p->c->ld;
    const Finish finish = {.accumulate = p->add};
    for (int64_t j = 0; j < p->N; j += MICRO_N) {
        const int n = (int)int_min(MICRO_N, p->N - j);
        if (f->tb) {
            widen(f->kind, turn, WIDE_ROW, panel_of_b(p, j), f->ldb, n, p->kc);
            micro_pack(panel, true, p->kc, n, turn, WIDE_ROW);
        } else {
            widen(f->kind, panel, MICRO_N, panel_of_b(p, j), f->ldb, p->kc, n);
        }
        for (int64_t i = 0; i < p->M; i += MICRO_M) {
            MicroA a = rows;
            a.a += i * step;
            micro_rows((int)int_min(MICRO_M, p->M - i), n, 1, p->kc, a, panel, MICRO_N,
                       to + i * ld + j, ld, &finish);
        }
    }
}

/* C = the complete sums and the bias, rounded. */
static void round_sums(const Part *p)
{
    const float *bias = p->c->col_bias;
    for (int64_t i = 0; i < p->M; i++) {
        float *restrict row = p->sums + i * p->ld;
        for (int64_t j = 0; j < p->N && bias; j++)
            row[j] += bias[j];
        half_round_row(p->f->kind, p->c->half + i * p->c->ld, row, p->N);
    }
}

static void product_of_part(const Part *p)
{
#if MDL_HALF_DOT
    if (is_paired(p->f->kind)) {
        product_of_pairs(p);
        return;
    }
#endif
    product_widened(p);
    if (p->last && p->c->half)
        round_sums(p);
}

static int64_t block_of(HalfKind kind, int64_t K)
{
    const bool pairs = is_paired(kind);
    const int64_t most = !pairs ? WIDE_K : K <= WHOLE_K ? WHOLE_K : PAIRS_K;
    const int64_t even = int_ceil_div(K, int_max(1, int_ceil_div(K, most)));
    return int_max(2, (even + 1) / 2 * 2);
}

void half_tile_product(void *scratch, const HalfFactors *f, int64_t M, int64_t N, int64_t K,
                       const HalfTile *c, bool first, bool last)
{
    const int64_t block = block_of(f->kind, K);
    Part p = {.f = f, .M = M, .N = N, .c = c, .sums = scratch};
    p.ld = int_ceil_div(N, VL) * VL;
    p.room = c->half && !(first && last && is_direct(f, K)) ? p.sums + M * p.ld : p.sums;
    for (int64_t k = 0; k < K || k == 0; k += block) {
        p.k = k;
        p.kc = int_min(block, K - k);
        p.next = int_min(block, K - k - p.kc);
        p.add = !first || k > 0;
        p.last = last && k + p.kc >= K;
        product_of_part(&p);
    }
}
