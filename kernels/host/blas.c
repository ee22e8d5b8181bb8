/* blas.c - block_product by OpenBLAS, where the kernels were configured with
 * -DMDL_BLAS=openblas; everything above it, the tiles included, stays as it is.
 *
 * A tile is one single-threaded call of sgemm or dgemm over the whole of K. The bits are those
 * of the BLAS, and still independent of the number of threads.
 */
#include <cblas.h>
#include <pthread.h>

#include "micro.h"

static pthread_once_t once = PTHREAD_ONCE_INIT;

static void one_thread(void)
{
    openblas_set_num_threads(1);
}

static void product(bool ta, bool tb, int64_t M, int64_t N, int64_t K, const real *A, int64_t lda,
                    const real *B, int64_t ldb, real beta, real *C, int64_t ldc)
{
    const enum CBLAS_TRANSPOSE a = ta ? CblasTrans : CblasNoTrans,
                               b = tb ? CblasTrans : CblasNoTrans;
#ifdef MDL_F64
    cblas_dgemm(CblasRowMajor, a, b, (int)M, (int)N, (int)K, 1, A, (int)lda, B, (int)ldb, beta, C,
                (int)ldc);
#else
    cblas_sgemm(CblasRowMajor, a, b, (int)M, (int)N, (int)K, 1, A, (int)lda, B, (int)ldb, beta, C,
                (int)ldc);
#endif
}

void block_product(void *scratch, bool ta, bool tb, int64_t M, int64_t N, int64_t K, const real *A,
                   int64_t lda, const real *B, int64_t ldb, real *C, int64_t ldc,
                   const Finish *finish)
{
    (void)scratch;
    pthread_once(&once, one_thread);
    product(ta, tb, M, N, K, A, lda, B, ldb, finish->accumulate ? 1 : 0, C, ldc);
    if (!finish->row_bias && !finish->col_bias && !finish->relu)
        return;
    for (int64_t i = 0; i < M; i++)
        for (int64_t j = 0; j < N; j++) {
            real x = C[i * ldc + j];
            if (finish->row_bias)
                x += finish->row_bias[i];
            if (finish->col_bias)
                x += finish->col_bias[j];
            C[i * ldc + j] = finish->relu && x <= 0 ? 0 : x;
        }
}
