/* block.c - block_product by our own kernels: one tile of a matrix product, on one thread.
 *
 * In: op(A)[M,K], op(B)[K,N]. Out: C[M,N]. K is walked in blocks that keep a panel of B and the
 * rows of A in the caches (Goto and van de Geijn's scheme with the panel as the outer loop):
 *
 *     for every block of K:  copy A, unless it can be read where it lies
 *         for every panel of MICRO_N columns:  pack B
 *             for every strip of MICRO_M rows:  micro_rows, which fetches what comes next
 *
 * The panel streams from the second cache, which is fast enough: a strip's product takes four
 * times as long as that. What costs is packing; so B is packed once for all rows of a tile.
 *
 * Where few rows meet a B that is stored [N,K], packing would cost as much as the
 * product, and micro_dots reads it as it lies.
 */
#include "micro.h"

#include <string.h>

enum {
    BLOCK_K = sizeof(real) == 4 ? 384 : 192,
    STRIP_K = BLOCK_K + VL, /* row stride of copied rows of A: no power of two, no aliasing */
    BLOCK_M = 256,          /* rows of A copied at a time */
    DOTS_ROWS = 16,         /* up to so many rows B is not turned round */
    DOTS_K = 192,           /* below this the sums over lanes cost too much */
    UNPACKED_ROWS = 16,     /* up to so many rows a row-major B is read where it lies */
    ALIASING = 4096,        /* bytes; a page */
    LINE = (int)(64 / sizeof(real))
};

_Static_assert((MICRO_N * BLOCK_K + BLOCK_M * STRIP_K) * sizeof(real) <= BLOCK_SCRATCH,
               "a panel and the rows of A fit the scratch");

static void product_by_dots(int64_t M, int64_t N, int64_t K, const real *A, int64_t lda,
                            const real *B, int64_t ldb, real *C, int64_t ldc, const Finish *finish)
{
    for (int64_t i = 0; i < M; i += MICRO_M) {
        const int m = (int)int_min(MICRO_M, M - i);
        for (int64_t j = 0; j < N; j += MICRO_V) {
            const int n = (int)int_min(MICRO_V, N - j);
            const real *rows[MICRO_V] = {B + j * ldb, B + int_min(j + 1, N - 1) * ldb,
                                         B + int_min(j + 2, N - 1) * ldb};
            const Finish f = finish_from(finish, i, j);
            micro_dots(m, n, 1, K, A + i * lda, lda, 0, rows, 0, C + i * ldc + j, ldc, &f);
        }
    }
}

/* From one row of copied strips to the next: strips of any depth lie in different sets. */
static int64_t strip_step(int64_t kc)
{
    return kc + 2;
}

/* Columns [0, M) of A[kc, ...] as strips [kc][MICRO_M], read along memory. */
static void copy_columns(real *strips, int64_t M, int64_t kc, const real *A, int64_t lda)
{
    const int64_t whole = M / MICRO_M * MICRO_M;
    for (int64_t k = 0; k < kc; k++) {
        const real *from = A + k * lda;
        real *to = strips + k * MICRO_M;
        for (int64_t i = 0; i < whole; i += MICRO_M, to += MICRO_M * strip_step(kc))
            memcpy(to, from + i, MICRO_M * sizeof *to);
        for (int64_t i = whole; i < M; i++)
            to[i - whole] = from[i];
    }
}

/* Rows so far apart meet in few sets of the caches. */
static bool is_aliasing(int64_t ld)
{
    return (uint64_t)ld * sizeof(real) % ALIASING == 0;
}

static bool is_copied(int64_t M, int64_t lda)
{
    return M > MICRO_M && is_aliasing(lda);
}

/* Where micro_rows finds the rows of A: copied if need be. */
static MicroA rows_of(real *strips, bool ta, int64_t M, int64_t kc, const real *A, int64_t lda)
{
    if (!is_copied(M, lda))
        return ta ? (MicroA){A, 1, 0, lda} : (MicroA){A, lda, 0, 1};
    if (ta) {
        copy_columns(strips, M, kc, A, lda);
        return (MicroA){strips, 1, 0, MICRO_M};
    }
    for (int64_t i = 0; i < M; i++)
        memcpy(strips + i * STRIP_K, A + i * lda, (size_t)kc * sizeof *A);
    return (MicroA){strips, STRIP_K, 0, 1};
}

typedef struct {
    bool ta, tb;
    int64_t M, N, kc; /* at most BLOCK_K of K, and BLOCK_M rows if they are copied */
    int64_t next;     /* of K in the block that follows; 0 after the last */
    const real *A;
    int64_t lda;
    const real *B;
    int64_t ldb;
    real *C;
    int64_t ldc;
} Block;

static Walk walk_of(const Block *b)
{
    const int64_t size = sizeof(real);
    return (Walk){.ta = b->ta,
                  .tb = b->tb,
                  .M = b->M,
                  .N = b->N,
                  .kc = b->kc,
                  .next = b->next,
                  .A = (const char *)b->A,
                  .lda = b->lda * size,
                  .B = (const char *)b->B,
                  .ldb = b->ldb * size,
                  .size = size};
}

static void product_of_block(real *scratch, const Block *b, const Finish *finish)
{
    real *const panel = scratch;
    const Walk walk = walk_of(b);
    const MicroA rows = rows_of(panel + MICRO_N * b->kc, b->ta, b->M, b->kc, b->A, b->lda);
    /* from one row's elements to the next's */
    const int64_t step = b->ta && rows.a != b->A ? strip_step(b->kc) : rows.row;
    for (int64_t j = 0; j < b->N; j += MICRO_N) {
        const int n = (int)int_min(MICRO_N, b->N - j);
        const bool packed = b->tb || n % VL != 0 || (b->M > UNPACKED_ROWS && is_aliasing(b->ldb));
        const real *from = b->B + (b->tb ? j * b->ldb : j);
        if (packed)
            micro_pack(panel, b->tb, b->kc, n, from, b->ldb);
        Ahead ahead = walk_ahead(&walk, j);
        for (int64_t i = 0; i < b->M; i += MICRO_M) {
            MicroA a = rows;
            a.a += i * step;
            const Finish here = finish_from(finish, i, j);
            micro_rows_ahead((int)int_min(MICRO_M, b->M - i), n, 1, b->kc, a, packed ? panel : from,
                             packed ? MICRO_N : b->ldb, b->C + i * b->ldc + j, b->ldc, &here,
                             &ahead);
        }
    }
}

void block_product(void *scratch, bool ta, bool tb, int64_t M, int64_t N, int64_t K, const real *A,
                   int64_t lda, const real *B, int64_t ldb, real *C, int64_t ldc,
                   const Finish *finish)
{
    if (!ta && tb && M <= DOTS_ROWS && K >= DOTS_K) {
        product_by_dots(M, N, K, A, lda, B, ldb, C, ldc, finish);
        return;
    }
    const int64_t most = BLOCK_K, rows = is_copied(M, lda) ? BLOCK_M : int_max(1, M);
    const int64_t block = int_max(1, int_ceil_div(K, int_max(1, int_ceil_div(K, most))));
    for (int64_t i = 0; i < M; i += rows) {
        for (int64_t k = 0; k < K || k == 0; k += block) {
            const int64_t kc = int_min(block, K - k);
            Finish f = k + kc >= K ? finish_from(finish, i, 0) : (Finish){0};
            f.accumulate = k > 0 || finish->accumulate;
            const Block b = {ta,
                             tb,
                             int_min(rows, M - i),
                             N,
                             kc,
                             int_min(block, K - k - kc),
                             A + (ta ? k * lda + i : i * lda + k),
                             lda,
                             B + (tb ? k : k * ldb),
                             ldb,
                             C + i * ldc,
                             ldc};
            product_of_block(scratch, &b, &f);
        }
    }
}
