/* product.cu - matrix products by cuBLAS, in float32 throughout.
 *
 * Matrices here are row-major; cuBLAS's are column-major. A row-major C = op(A) op(B) is, read
 * by columns, C^T = op(B)^T op(A)^T: the operands change places and keep their own
 * transposition. The bias of a linear layer, one number per column of y, is then one per row
 * of what cuBLASLt computes, which is what its epilogue adds.
 *
 * A batched product becomes as few calls as possible: neighbouring dimensions that one stride
 * walks are merged, a dimension that only multiplies rows goes into m, one that only lengthens
 * sums goes into k, the largest that is left is cuBLAS's own batch, and the host loops over
 * the others.
 */
#include "gpu.h"

#include <limits.h>

static int blas_status(cublasStatus_t status)
{
    return status == CUBLAS_STATUS_SUCCESS ? 0 : GPU_BLAS + (int)status;
}

static bool fits_int(int64_t n)
{
    return n <= INT_MAX;
}

/* C[M,N] = op(A) op(B) + (accumulate ? C : 0), `count` times at constant strides. */
typedef struct {
    bool ta, tb;
    int64_t m, n, k;
    int64_t count, stride_a, stride_b, stride_c;
} Product;

static int multiply(const Gpu *gpu, const Product *p, float *c, const float *a, const float *b,
                    bool accumulate)
{
    if (p->m <= 0 || p->n <= 0 || p->count <= 0)
        return 0;
    if (!fits_int(p->m) || !fits_int(p->n) || !fits_int(p->k) || !fits_int(p->count))
        return blas_status(CUBLAS_STATUS_INVALID_VALUE);
    const float one = 1, beta = accumulate ? 1 : 0;
    const int m = (int)p->m, n = (int)p->n, k = (int)p->k;
    const int lda = p->ta ? m : k > 0 ? k : 1, ldb = !p->tb ? n : k > 0 ? k : 1;
    const cublasOperation_t op_a = p->ta ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasOperation_t op_b = p->tb ? CUBLAS_OP_T : CUBLAS_OP_N;
    if (p->count == 1)
        return blas_status(
            cublasSgemm(gpu->blas, op_b, op_a, n, m, k, &one, b, ldb, a, lda, &beta, c, n));
    return blas_status(cublasSgemmStridedBatched(gpu->blas, op_b, op_a, n, m, k, &one, b, ldb,
                                                 p->stride_b, a, lda, p->stride_a, &beta, c, n,
                                                 p->stride_c, (int)p->count));
}

/* ------------------------------------------------------------- linear layers */

/* What cublasLtMatmul wants to be told; none of it owns memory. */
typedef struct {
    cublasLtMatmulDescOpaque_t product;
    cublasLtMatrixLayoutOpaque_t w, x, y;
    cublasLtMatmulPreferenceOpaque_t preference;
    cublasLtMatmulHeuristicResult_t choice;
} BiasPlan;

static cublasStatus_t describe_product(BiasPlan *plan, const float *b, uint64_t rows, uint64_t k,
                                       uint64_t n, bool transposed)
{
    const cublasOperation_t op_w = transposed ? CUBLAS_OP_N : CUBLAS_OP_T;
    const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    const uint64_t w_rows = transposed ? n : k, w_columns = transposed ? k : n;
    cublasStatus_t status = cublasLtMatmulDescInit(&plan->product, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatmulDescSetAttribute(&plan->product, CUBLASLT_MATMUL_DESC_TRANSA, &op_w,
                                                sizeof op_w);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatmulDescSetAttribute(&plan->product, CUBLASLT_MATMUL_DESC_EPILOGUE,
                                                &epilogue, sizeof epilogue);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatmulDescSetAttribute(&plan->product, CUBLASLT_MATMUL_DESC_BIAS_POINTER,
                                                &b, sizeof b);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatrixLayoutInit(&plan->w, CUDA_R_32F, w_rows, w_columns, (int64_t)w_rows);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatrixLayoutInit(&plan->x, CUDA_R_32F, k, rows, (int64_t)k);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatrixLayoutInit(&plan->y, CUDA_R_32F, n, rows, (int64_t)n);
    return status;
}

/* Asked for explicitly: what cublasLtMatmul would choose by itself counts on no workspace and
 * on operands at multiples of 256 bytes. cuBLASLt remembers its answers. */
static cublasStatus_t choose_algorithm(const Gpu *gpu, BiasPlan *plan)
{
    static const cublasLtMatmulPreferenceAttributes_t OPERANDS[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    const uint64_t workspace = GPU_BLAS_WORKSPACE;
    const uint32_t alignment = 64;
    int found = 0;
    cublasStatus_t status = cublasLtMatmulPreferenceInit(&plan->preference);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatmulPreferenceSetAttribute(&plan->preference,
                                                      CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                      &workspace, sizeof workspace);
    for (int i = 0; i < 4 && status == CUBLAS_STATUS_SUCCESS; i++)
        status = cublasLtMatmulPreferenceSetAttribute(&plan->preference, OPERANDS[i], &alignment,
                                                      sizeof alignment);
    if (status == CUBLAS_STATUS_SUCCESS)
        status =
            cublasLtMatmulAlgoGetHeuristic(gpu->lt, &plan->product, &plan->w, &plan->x, &plan->y,
                                           &plan->y, &plan->preference, 1, &plan->choice, &found);
    return status == CUBLAS_STATUS_SUCCESS && found == 0 ? CUBLAS_STATUS_NOT_SUPPORTED : status;
}

int gpu_linear_forward(const Gpu *gpu, float *y, const float *x, const float *w, const float *b,
                       int64_t rows, int64_t k, int64_t n, bool transposed)
{
    if (rows <= 0 || n <= 0)
        return 0;
    if (!b) {
        const Product p = {false, !transposed, rows, n, k, 1, 0, 0, 0};
        return multiply(gpu, &p, y, x, w, false);
    }
    if (k <= 0) {
        const int64_t dim[] = {rows, n}, ystride[] = {n, 1}, bstride[] = {0, 1};
        return gpu_copy_strided(gpu, y, b, 2, dim, ystride, bstride, sizeof *y);
    }
    BiasPlan plan;
    const float one = 1, zero = 0;
    cublasStatus_t status =
        describe_product(&plan, b, (uint64_t)rows, (uint64_t)k, (uint64_t)n, transposed);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = choose_algorithm(gpu, &plan);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatmul(gpu->lt, &plan.product, &one, w, &plan.w, x, &plan.x, &zero, y,
                                &plan.y, y, &plan.y, &plan.choice.algo, gpu->workspace,
                                GPU_BLAS_WORKSPACE, gpu->compute);
    return blas_status(status);
}

int gpu_linear_backward_input(const Gpu *gpu, float *dx, const float *dy, const float *w,
                              int64_t rows, int64_t k, int64_t n, bool transposed)
{
    const Product p = {false, transposed, rows, k, n, 1, 0, 0, 0};
    return multiply(gpu, &p, dx, dy, w, false);
}

int gpu_linear_backward_weight(const Gpu *gpu, float *dw, const float *dy, const float *x,
                               int64_t rows, int64_t k, int64_t n, bool transposed, bool accumulate)
{
    const Product p = {true, false, transposed ? k : n, transposed ? n : k, rows, 1, 0, 0, 0};
    return transposed ? multiply(gpu, &p, dw, x, dy, accumulate)
                      : multiply(gpu, &p, dw, dy, x, accumulate);
}

/* ---------------------------------------------------------- batched products */

enum { RANK = 8 };

typedef struct {
    int rank;
    int64_t count;
    int64_t dim[RANK], a[RANK], b[RANK], c[RANK];
} Dims;

/* Appends a dimension, inside the others; merged with its neighbour where one stride walks
 * both. */
static void dims_add(Dims *d, int64_t dim, int64_t a, int64_t b, int64_t c)
{
    const int last = d->rank - 1;
    d->count *= dim;
    if (dim == 1)
        return;
    if (last >= 0 && d->a[last] == a * dim && d->b[last] == b * dim && d->c[last] == c * dim)
        dim *= d->dim[last];
    else
        d->rank++;
    const int i = d->rank - 1;
    d->dim[i] = dim;
    d->a[i] = a;
    d->b[i] = b;
    d->c[i] = c;
}

static void dims_remove(Dims *d, int at)
{
    d->count /= d->dim[at];
    d->rank--;
    for (int i = at; i < d->rank; i++) {
        d->dim[i] = d->dim[i + 1];
        d->a[i] = d->a[i + 1];
        d->b[i] = d->b[i + 1];
        d->c[i] = d->c[i + 1];
    }
}

static void offsets(const Dims *d, int64_t index, int64_t *a, int64_t *b, int64_t *c)
{
    for (int i = d->rank - 1; i >= 0; i--) {
        const int64_t at = index % d->dim[i];
        index /= d->dim[i];
        *a += at * d->a[i];
        *b += at * d->b[i];
        *c += at * d->c[i];
    }
}

/* Batches of rows that meet the same B are one longer A. */
static void fold_rows(Product *p, Dims *kept)
{
    for (int i = kept->rank - 1; i >= 0 && !p->ta; i--) {
        if (kept->a[i] == p->m * p->k && kept->b[i] == 0 && kept->c[i] == p->m * p->n &&
            fits_int(p->m * kept->dim[i])) {
            p->m *= kept->dim[i];
            dims_remove(kept, i);
        }
    }
}

/* A sum of products of matrices stacked along k is one product. Only the innermost: the order
 * of the sum stays that of the indices. */
static void fold_sums(Product *p, Dims *summed)
{
    while (summed->rank > 0 && p->ta && !p->tb) {
        const int i = summed->rank - 1;
        if (summed->a[i] != p->k * p->m || summed->b[i] != p->k * p->n ||
            !fits_int(p->k * summed->dim[i]))
            return;
        p->k *= summed->dim[i];
        dims_remove(summed, i);
    }
}

/* Gives cuBLAS the longest dimension as its batch. */
static void choose_batch(Product *p, Dims *kept)
{
    int longest = -1;
    for (int i = 0; i < kept->rank; i++)
        if (fits_int(kept->dim[i]) && (longest < 0 || kept->dim[i] >= kept->dim[longest]))
            longest = i;
    if (longest < 0)
        return;
    p->count = kept->dim[longest];
    p->stride_a = kept->a[longest];
    p->stride_b = kept->b[longest];
    p->stride_c = kept->c[longest];
    dims_remove(kept, longest);
}

int gpu_matmul(const Gpu *gpu, float *c, const float *a, const float *b, bool ta, bool tb,
               int64_t m, int64_t n, int64_t k, const MatmulBatch *batch, bool accumulate)
{
    Dims kept = {}, summed = {};
    kept.count = summed.count = 1;
    for (int d = 0; d < batch->rank; d++)
        dims_add(batch->stride_c[d] != 0 ? &kept : &summed, batch->dim[d], batch->stride_a[d],
                 batch->stride_b[d], batch->stride_c[d]);
    if (kept.count <= 0 || summed.count <= 0 || m <= 0 || n <= 0)
        return 0;
    Product p = {ta, tb, m, n, k, 1, 0, 0, 0};
    fold_rows(&p, &kept);
    fold_sums(&p, &summed);
    choose_batch(&p, &kept);
    for (int64_t i = 0; i < kept.count; i++) {
        int64_t a0 = 0, b0 = 0, c0 = 0;
        offsets(&kept, i, &a0, &b0, &c0);
        for (int64_t s = 0; s < summed.count; s++) {
            int64_t a1 = a0, b1 = b0, none = 0;
            offsets(&summed, s, &a1, &b1, &none);
            const int status = multiply(gpu, &p, c + c0, a + a1, b + b1, accumulate || s > 0);
            if (status)
                return status;
        }
    }
    return 0;
}
