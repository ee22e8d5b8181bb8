/* block.c - block_product by our own kernels: one tile of a matrix product, on one thread.
 *
 * In: op(A)[M,K], op(B)[K,N]. Out: C[M,N]. K is walked in blocks that keep a panel of B and a
 * strip of A in the caches (Goto and van de Geijn's scheme with the panel as the outer loop,
 * since M is small here):
 *
 *     for every block of K:  copy A
 *         for every panel of MICRO_N columns:  pack B
 *             for every strip of MICRO_M rows:  micro_rows
 *
 * Where few rows meet a B that is stored [N,K], packing would cost as much as the
 * product, and micro_dots reads it as it lies.
 */
#include "micro.h"

#include <string.h>

enum {
    BLOCK_K = sizeof(real) == 4
                  ? 384
                  : 192,    /* of a packed panel: MICRO_N x BLOCK_K fits the L2 cache well */
    STRIP_K = BLOCK_K + VL, /* row stride of a copied strip of A: no power of two, no aliasing */
    BLOCK_M = 128,          /* rows copied at a time */
    DOTS_ROWS = 16,         /* up to so many rows B is not turned round */
    DOTS_K = 192,           /* below this the sums over lanes cost too much */
    UNPACKED_ROWS = 16      /* up to so many rows a row-major B is read where it lies */
};

_Static_assert((MICRO_N * BLOCK_K + BLOCK_M * STRIP_K) * sizeof(real) <= BLOCK_SCRATCH,
               "a panel and the rows of A fit the scratch");

/* Rows [i, i + m) and columns [k, k + kc) of op(A), copied so that rows do not alias. */
static void copy_strip(real *strip, bool ta, const real *A, int64_t lda, int64_t i, int64_t k,
                       int m, int64_t kc)
{
    if (!ta) {
        for (int r = 0; r < m; r++)
            memcpy(strip + r * STRIP_K, A + (i + r) * lda + k, (size_t)kc * sizeof *A);
        return;
    }
    for (int64_t p = 0; p < kc; p++) {
        const real *from = A + (k + p) * lda + i;
        if (m == MICRO_M)
            memcpy(strip + p * MICRO_M, from, MICRO_M * sizeof *A);
        else
            for (int r = 0; r < m; r++)
                strip[p * MICRO_M + r] = from[r];
    }
}

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

/* One block of at most BLOCK_M rows and kc of K. */
static void product_of_block(real *scratch, bool ta, bool tb, int64_t M, int64_t N, int64_t kc,
                             const real *A, int64_t lda, const real *B, int64_t ldb, real *C,
                             int64_t ldc, const Finish *finish)
{
    real *const panel = scratch, *const strips = panel + MICRO_N * kc;
    for (int64_t i = 0; i < M; i += MICRO_M)
        copy_strip(strips + i * STRIP_K, ta, A, lda, i, 0, (int)int_min(MICRO_M, M - i), kc);
    for (int64_t j = 0; j < N; j += MICRO_N) {
        const int n = (int)int_min(MICRO_N, N - j);
        const bool packed = tb || M > UNPACKED_ROWS || n % VL != 0;
        const real *b = tb ? B + j * ldb : B + j;
        if (packed)
            micro_pack(panel, tb, kc, n, b, ldb);
        for (int64_t i = 0; i < M; i += MICRO_M) {
            const int m = (int)int_min(MICRO_M, M - i);
            const real *strip = strips + i * STRIP_K;
            const MicroA a = {strip, ta ? 1 : STRIP_K, 0, ta ? MICRO_M : 1};
            const Finish here = finish_from(finish, i, j);
            micro_rows(m, n, 1, kc, a, packed ? panel : b, packed ? MICRO_N : ldb, C + i * ldc + j,
                       ldc, &here);
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
    const int64_t most = BLOCK_K;
    const int64_t block = int_max(1, int_ceil_div(K, int_max(1, int_ceil_div(K, most))));
    for (int64_t i = 0; i < M; i += BLOCK_M) {
        for (int64_t k = 0; k < K || k == 0; k += block) {
            const int64_t kc = int_min(block, K - k);
            Finish f = k + kc >= K ? finish_from(finish, i, 0) : (Finish){0};
            f.accumulate = k > 0 || finish->accumulate;
            product_of_block(scratch, ta, tb, int_min(BLOCK_M, M - i), N, kc,
                             A + (ta ? k * lda + i : i * lda + k), lda, B + (tb ? k : k * ldb), ldb,
                             C + i * ldc, ldc, &f);
        }
    }
}
