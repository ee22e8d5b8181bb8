/* cublas_gemm.c - cuBLAS: products of matrices.
 *
 * In: the arguments of cublas?gemm and its relatives. Out: a status as the real library gives
 * it, and a Product (cublaslt_product.h) in the handle's stream.
 */
#include <stdlib.h>
#include <string.h>

#include "cublaslt_product.h"

#include <cublas_v2.h>

/* Arguments as all of the functions have them; where they have none: 1 matrix, stride 0. */
typedef struct {
    cublasOperation_t transa, transb;
    int64_t m, n, k;
    const void *alpha, *beta;
    const void *a, *b;
    void *c;
    cudaDataType type_a, type_b, type_c;
    int64_t lda, ldb, ldc;
    int64_t stride_a, stride_b, stride_c;
    int batch;
    bool pointers;
    cublasComputeType_t compute;
} GemmCall;

static bool is_operation(cublasOperation_t op)
{
    return op == CUBLAS_OP_N || op == CUBLAS_OP_T || op == CUBLAS_OP_C;
}

static int64_t at_least_1(int64_t n)
{
    return n > 1 ? n : 1;
}

static bool arguments_valid(const GemmCall *g)
{
    int64_t rows_a = g->transa == CUBLAS_OP_N ? g->m : g->k;
    int64_t rows_b = g->transb == CUBLAS_OP_N ? g->k : g->n;
    return is_operation(g->transa) && is_operation(g->transb) && g->m >= 0 && g->n >= 0 &&
           g->k >= 0 && g->batch >= 0 && g->lda >= at_least_1(rows_a) &&
           g->ldb >= at_least_1(rows_b) && g->ldc >= at_least_1(g->m);
}

static bool results_apart(const GemmCall *g, const char *call)
{
    int64_t apart = g->stride_c < 0 ? -g->stride_c : g->stride_c;
    if (g->pointers || g->batch < 2 || apart >= g->m)
        return true;
    sim_report(SIM_RACE, "%s: results of a batch overlap: they have %lld rows and are %lld apart",
               call, (long long)g->m, (long long)g->stride_c);
    return false;
}

static ProductMatrix matrix(const GemmCall *g, const void *data, cudaDataType type, int64_t rows,
                            int64_t cols, int64_t ld, int64_t stride)
{
    return (ProductMatrix){.address = (uint64_t)(uintptr_t)data,
                           .type = type,
                           .rows = rows,
                           .cols = cols,
                           .ld = ld,
                           .stride = stride,
                           .pointers = g->pointers};
}

static Product product_of(const BlasHandle *h, const GemmCall *g, const char *call)
{
    bool ta = g->transa != CUBLAS_OP_N, tb = g->transb != CUBLAS_OP_N;
    Product p = {.m = g->m,
                 .n = g->n,
                 .k = g->k,
                 .batch = g->batch,
                 .transpose_a = ta,
                 .transpose_b = tb,
                 .epilogue = CUBLASLT_EPILOGUE_DEFAULT,
                 .workspace = h->workspace,
                 .workspace_bytes = h->workspace_bytes};
    snprintf(p.call, sizeof p.call, "%s", call);
    p.a = matrix(g, g->a, g->type_a, ta ? g->k : g->m, ta ? g->m : g->k, g->lda, g->stride_a);
    p.b = matrix(g, g->b, g->type_b, tb ? g->n : g->k, tb ? g->k : g->n, g->ldb, g->stride_b);
    p.c = matrix(g, g->c, g->type_c, g->m, g->n, g->ldc, g->stride_c);
    p.d = p.c;
    return p;
}

static cublasStatus_t gemm(cublasHandle_t handle, const GemmCall *g, const char *call)
{
    cublasStatus_t status;
    bool in_double, unknown;
    const BlasHandle *h = sim_blas_handle(handle, call, &status);
    if (!h)
        return status;
    if (!arguments_valid(g) || !g->alpha || !g->beta)
        return CUBLAS_STATUS_INVALID_VALUE;
    status = sim_product_types(g->compute, g->type_a, g->type_b, g->type_c, &in_double, &unknown);
    if (unknown) {
        sim_report(SIM_UNKNOWN,
                   "%s: compute type %d with data of types %d, %d, %d is not simulated", call,
                   (int)g->compute, (int)g->type_a, (int)g->type_b, (int)g->type_c);
        return CUBLAS_STATUS_NOT_SUPPORTED;
    }
    if (status != CUBLAS_STATUS_SUCCESS)
        return status;
    if (g->m == 0 || g->n == 0 || g->batch == 0)
        return CUBLAS_STATUS_SUCCESS;
    if (!g->c || (g->k > 0 && (!g->a || !g->b)))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (!results_apart(g, call))
        return CUBLAS_STATUS_EXECUTION_FAILED;
    Product p = product_of(h, g, call);
    bool on_device = h->pointer_mode == CUBLAS_POINTER_MODE_DEVICE;
    p.in_double = in_double;
    if (!sim_product_scalar(&p.alpha, g->alpha, on_device, in_double, call, "alpha") ||
        !sim_product_scalar(&p.beta, g->beta, on_device, in_double, call, "beta"))
        return CUBLAS_STATUS_EXECUTION_FAILED;
    return sim_product_enqueue(h, h->stream, &p);
}

#define COMMON                                                                                     \
    .transa = transa, .transb = transb, .m = m, .n = n, .k = k, .alpha = alpha, .beta = beta,      \
    .a = A, .b = B, .c = C, .lda = lda, .ldb = ldb, .ldc = ldc
#define ONE .batch = 1
#define STRIDED .stride_a = strideA, .stride_b = strideB, .stride_c = strideC, .batch = batch
#define TYPES(t, c) .type_a = t, .type_b = t, .type_c = t, .compute = c

/* The functions of one type, with sizes of 32 and of 64 bits. */
#define GEMM(name, name_64, real, types)                                                           \
    cublasStatus_t name(cublasHandle_t handle, cublasOperation_t transa, cublasOperation_t transb, \
                        int m, int n, int k, const real *alpha, const real *A, int lda,            \
                        const real *B, int ldb, const real *beta, real *C, int ldc)                \
    {                                                                                              \
        BLAS_CALL(SIM_CALL_WORK, gemm(handle, &(GemmCall){COMMON, ONE, types}, __func__));         \
    }                                                                                              \
    cublasStatus_t name_64(cublasHandle_t handle, cublasOperation_t transa,                        \
                           cublasOperation_t transb, int64_t m, int64_t n, int64_t k,              \
                           const real *alpha, const real *A, int64_t lda, const real *B,           \
                           int64_t ldb, const real *beta, real *C, int64_t ldc)                    \
    {                                                                                              \
        BLAS_CALL(SIM_CALL_WORK, gemm(handle, &(GemmCall){COMMON, ONE, types}, __func__));         \
    }

#define GEMM_BATCHED(name, real, types)                                                            \
    cublasStatus_t name(cublasHandle_t handle, cublasOperation_t transa, cublasOperation_t transb, \
                        int m, int n, int k, const real *alpha, const real *const A[], int lda,    \
                        const real *const B[], int ldb, const real *beta, real *const C[],         \
                        int ldc, int batch)                                                        \
    {                                                                                              \
        BLAS_CALL(SIM_CALL_WORK, gemm(handle,                                                      \
                                      &(GemmCall){.transa = transa,                                \
                                                  .transb = transb,                                \
                                                  .m = m,                                          \
                                                  .n = n,                                          \
                                                  .k = k,                                          \
                                                  .alpha = alpha,                                  \
                                                  .beta = beta,                                    \
                                                  .a = A,                                          \
                                                  .b = B,                                          \
                                                  .c = (void *)(uintptr_t)C,                       \
                                                  .lda = lda,                                      \
                                                  .ldb = ldb,                                      \
                                                  .ldc = ldc,                                      \
                                                  .batch = batch,                                  \
                                                  .pointers = true,                                \
                                                  types},                                          \
                                      __func__));                                                  \
    }

#define GEMM_STRIDED(name, real, types)                                                            \
    cublasStatus_t name(cublasHandle_t handle, cublasOperation_t transa, cublasOperation_t transb, \
                        int m, int n, int k, const real *alpha, const real *A, int lda,            \
                        long long strideA, const real *B, int ldb, long long strideB,              \
                        const real *beta, real *C, int ldc, long long strideC, int batch)          \
    {                                                                                              \
        BLAS_CALL(SIM_CALL_WORK, gemm(handle, &(GemmCall){COMMON, STRIDED, types}, __func__));     \
    }

#define FLOATS TYPES(CUDA_R_32F, CUBLAS_COMPUTE_32F)
#define DOUBLES TYPES(CUDA_R_64F, CUBLAS_COMPUTE_64F)
GEMM(cublasSgemm_v2, cublasSgemm_v2_64, float, FLOATS)
GEMM(cublasDgemm_v2, cublasDgemm_v2_64, double, DOUBLES)
GEMM_BATCHED(cublasSgemmBatched, float, FLOATS)
GEMM_BATCHED(cublasDgemmBatched, double, DOUBLES)
GEMM_STRIDED(cublasSgemmStridedBatched, float, FLOATS)
GEMM_STRIDED(cublasDgemmStridedBatched, double, DOUBLES)

#define EX_TYPES .type_a = Atype, .type_b = Btype, .type_c = Ctype, .compute = compute

cublasStatus_t cublasGemmEx(cublasHandle_t handle, cublasOperation_t transa,
                            cublasOperation_t transb, int m, int n, int k, const void *alpha,
                            const void *A, cudaDataType Atype, int lda, const void *B,
                            cudaDataType Btype, int ldb, const void *beta, void *C,
                            cudaDataType Ctype, int ldc, cublasComputeType_t compute,
                            cublasGemmAlgo_t algo)
{
    (void)algo;
    BLAS_CALL(SIM_CALL_WORK, gemm(handle, &(GemmCall){COMMON, ONE, EX_TYPES}, __func__));
}

cublasStatus_t cublasGemmStridedBatchedEx(
    cublasHandle_t handle, cublasOperation_t transa, cublasOperation_t transb, int m, int n, int k,
    const void *alpha, const void *A, cudaDataType Atype, int lda, long long strideA, const void *B,
    cudaDataType Btype, int ldb, long long strideB, const void *beta, void *C, cudaDataType Ctype,
    int ldc, long long strideC, int batch, cublasComputeType_t compute, cublasGemmAlgo_t algo)
{
    (void)algo;
    BLAS_CALL(SIM_CALL_WORK, gemm(handle, &(GemmCall){COMMON, STRIDED, EX_TYPES}, __func__));
}

cublasStatus_t cublasGemmBatchedEx(cublasHandle_t handle, cublasOperation_t transa,
                                   cublasOperation_t transb, int m, int n, int k, const void *alpha,
                                   const void *const A[], cudaDataType Atype, int lda,
                                   const void *const B[], cudaDataType Btype, int ldb,
                                   const void *beta, void *const Carray[], cudaDataType Ctype,
                                   int ldc, int batch, cublasComputeType_t compute,
                                   cublasGemmAlgo_t algo)
{
    void *C = (void *)(uintptr_t)Carray;
    (void)algo;
    BLAS_CALL(
        SIM_CALL_WORK,
        gemm(handle, &(GemmCall){COMMON, .batch = batch, .pointers = true, EX_TYPES}, __func__));
}
