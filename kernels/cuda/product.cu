/* product.cu - matrix products by cuBLAS, in float32 throughout, or of 16-bit operands with sums
 * in float32.
 *
 * Matrices here are row-major; cuBLAS's are column-major. A row-major C = op(A) op(B) is, read
 * by columns, C^T = op(B)^T op(A)^T: the operands change places and keep their own
 * transposition. The bias of a linear layer, one number per column of y, is then one per row
 * of what cuBLASLt computes, which is what its epilogue adds.
 *
 * A batched product becomes as few calls as possible: neighbouring dimensions that one stride
 * walks are merged, a dimension that only multiplies rows goes into m, one that only lengthens
 * sums goes into k, the largest that is left is cuBLAS's own batch, and the host loops over
 * the others. Where several products are added up and the result has 16 bits, the sum is made in
 * scratch and rounded at the end.
 */
#include "gpu_half.h"

#include <limits.h>

static int blas_status(cublasStatus_t status)
{
    return status == CUBLAS_STATUS_SUCCESS ? 0 : GPU_BLAS + (int)status;
}

static bool fits_int(int64_t n)
{
    return n <= INT_MAX;
}

/* Of operands and of the result. */
typedef struct {
    cudaDataType in, out;
} Types;

static const Types FLOATS = {CUDA_R_32F, CUDA_R_32F};

static Types half_types(HalfKind kind, bool wide)
{
    const cudaDataType half = kind == HALF_BF16 ? CUDA_R_16BF : CUDA_R_16F;
    return {half, wide ? CUDA_R_32F : half};
}

/* Element i of a tensor whose elements are of a type. */
static void *element(void *tensor, cudaDataType type, int64_t i)
{
    return (char *)tensor + i * (type == CUDA_R_32F ? 4 : 2);
}

static const void *element(const void *tensor, cudaDataType type, int64_t i)
{
    return (const char *)tensor + i * (type == CUDA_R_32F ? 4 : 2);
}

/* C[M,N] = op(A) op(B) + (accumulate ? C : 0), `count` times at constant strides. */
typedef struct {
    Types types;
    bool ta, tb;
    int64_t m, n, k;
    int64_t lda; /* elements from one row of A, as it is stored, to the next */
    int64_t count, stride_a, stride_b, stride_c;
} Product;

static Product product_new(Types types, bool ta, bool tb, int64_t m, int64_t n, int64_t k)
{
    return {types, ta, tb, m, n, k, ta ? m : k > 0 ? k : 1, 1, 0, 0, 0};
}

static int multiply(const Gpu *gpu, const Product *p, void *c, const void *a, const void *b,
                    bool accumulate)
{
    if (p->m <= 0 || p->n <= 0 || p->count <= 0)
        return 0;
    if (!fits_int(p->m) || !fits_int(p->n) || !fits_int(p->k) || !fits_int(p->count) ||
        !fits_int(p->lda))
        return blas_status(CUBLAS_STATUS_INVALID_VALUE);
    const float one = 1, beta = accumulate ? 1 : 0;
    const int m = (int)p->m, n = (int)p->n, k = (int)p->k, count = (int)p->count;
    const int lda = (int)p->lda, ldb = !p->tb ? n : k > 0 ? k : 1;
    const cublasOperation_t op_a = p->ta ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasOperation_t op_b = p->tb ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cudaDataType in = p->types.in, out = p->types.out;
    if (in == CUDA_R_32F && count == 1)
        return blas_status(cublasSgemm(gpu->blas, op_b, op_a, n, m, k, &one, (const float *)b, ldb,
                                       (const float *)a, lda, &beta, (float *)c, n));
    if (in == CUDA_R_32F)
        return blas_status(cublasSgemmStridedBatched(
            gpu->blas, op_b, op_a, n, m, k, &one, (const float *)b, ldb, p->stride_b,
            (const float *)a, lda, p->stride_a, &beta, (float *)c, n, p->stride_c, count));
    if (count == 1)
        return blas_status(cublasGemmEx(gpu->blas, op_b, op_a, n, m, k, &one, b, in, ldb, a, in,
                                        lda, &beta, c, out, n, CUBLAS_COMPUTE_32F,
                                        CUBLAS_GEMM_DEFAULT));
    return blas_status(cublasGemmStridedBatchedEx(
        gpu->blas, op_b, op_a, n, m, k, &one, b, in, ldb, p->stride_b, a, in, lda, p->stride_a,
        &beta, c, out, n, p->stride_c, count, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT));
}

/* ------------------------------------------------------------- linear layers */

/* From here on cuBLASLt's epilogues are not trusted: 65535 blocks of 32 rows are one grid. */
enum { LT_MOST = 65535 * 32 };

/* What cublasLtMatmul wants to be told; none of it owns memory. */
typedef struct {
    cublasLtMatmulDescOpaque_t product;
    cublasLtMatrixLayoutOpaque_t w, x, y;
    cublasLtMatmulPreferenceOpaque_t preference;
    cublasLtMatmulHeuristicResult_t choice;
} BiasPlan;

/* b is of the result's type: cuBLASLt wants it so, unless operands have 8 bits. */
static cublasStatus_t describe_product(BiasPlan *plan, Types types, const void *b, uint64_t rows,
                                       uint64_t k, uint64_t n, bool transposed)
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
        status = cublasLtMatrixLayoutInit(&plan->w, types.in, w_rows, w_columns, (int64_t)w_rows);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatrixLayoutInit(&plan->x, types.in, k, rows, (int64_t)k);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatrixLayoutInit(&plan->y, types.out, n, rows, (int64_t)n);
    return status;
}

/* Asked for explicitly: what cublasLtMatmul would choose by itself counts on no workspace and
 * on operands at multiples of 256 bytes. cuBLASLt remembers its answers. */
static cublasStatus_t choose_algorithm(const Gpu *gpu, BiasPlan *plan, Types types)
{
    static const cublasLtMatmulPreferenceAttributes_t OPERANDS[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    const uint64_t workspace = GPU_BLAS_WORKSPACE;
    const uint32_t alignment = 64;
    /* parts of a sum are never rounded */
    const uint32_t exact = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    int found = 0;
    cublasStatus_t status = cublasLtMatmulPreferenceInit(&plan->preference);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatmulPreferenceSetAttribute(&plan->preference,
                                                      CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                      &workspace, sizeof workspace);
    if (status == CUBLAS_STATUS_SUCCESS && types.out != CUDA_R_32F)
        status = cublasLtMatmulPreferenceSetAttribute(
            &plan->preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &exact, sizeof exact);
    for (int i = 0; i < 4 && status == CUBLAS_STATUS_SUCCESS; i++)
        status = cublasLtMatmulPreferenceSetAttribute(&plan->preference, OPERANDS[i], &alignment,
                                                      sizeof alignment);
    if (status == CUBLAS_STATUS_SUCCESS)
        status =
            cublasLtMatmulAlgoGetHeuristic(gpu->lt, &plan->product, &plan->w, &plan->x, &plan->y,
                                           &plan->y, &plan->preference, 1, &plan->choice, &found);
    return status == CUBLAS_STATUS_SUCCESS && found == 0 ? CUBLAS_STATUS_NOT_SUPPORTED : status;
}

/* y = op(x) w + b, the bias by cuBLASLt; CUBLAS_STATUS_NOT_SUPPORTED where it cannot. */
static cublasStatus_t multiply_biased(const Gpu *gpu, const Product *p, void *y, const void *x,
                                      const void *w, const void *b)
{
    BiasPlan plan;
    const float one = 1, zero = 0;
    if (p->m >= LT_MOST || p->k >= LT_MOST || p->n >= LT_MOST)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    cublasStatus_t status = describe_product(&plan, p->types, b, (uint64_t)p->m, (uint64_t)p->k,
                                             (uint64_t)p->n, !p->tb);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = choose_algorithm(gpu, &plan, p->types);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatmul(gpu->lt, &plan.product, &one, w, &plan.w, x, &plan.x, &zero, y,
                                &plan.y, y, &plan.y, &plan.choice.algo, gpu->workspace,
                                GPU_BLAS_WORKSPACE, gpu->compute);
    return status;
}

/* y = b in every row from `first` on */
static int repeat_bias(const Gpu *gpu, const Product *p, void *y, const void *b, int64_t first)
{
    const int64_t dim[] = {p->m - first, p->n}, ystride[] = {p->n, 1}, bstride[] = {0, 1};
    void *const to = element(y, p->types.out, first * p->n);
    return gpu_copy_strided(gpu, to, b, 2, dim, ystride, bstride,
                            p->types.out == CUDA_R_32F ? 4 : 2);
}

int gpu_linear_forward(const Gpu *gpu, float *y, const float *x, const float *w, const float *b,
                       int64_t rows, int64_t k, int64_t n, bool transposed)
{
    if (rows <= 0 || n <= 0)
        return 0;
    const Product p = product_new(FLOATS, false, !transposed, rows, n, k);
    if (!b)
        return multiply(gpu, &p, y, x, w, false);
    if (k <= 0)
        return repeat_bias(gpu, &p, y, b, 0);
    const cublasStatus_t status = multiply_biased(gpu, &p, y, x, w, b);
    if (status != CUBLAS_STATUS_NOT_SUPPORTED)
        return blas_status(status);
    const int repeated = repeat_bias(gpu, &p, y, b, 0);
    return repeated ? repeated : multiply(gpu, &p, y, x, w, true);
}

/* The bias is rounded to scratch or, where cuBLASLt cannot add it, to y's first row. */
int gpu_linear_forward_half(const Gpu *gpu, HalfKind kind, half16 *y, const half16 *x,
                            const half16 *w, const float *b, int64_t rows, int64_t k, int64_t n,
                            bool transposed)
{
    if (rows <= 0 || n <= 0)
        return 0;
    const Product p = product_new(half_types(kind, false), false, !transposed, rows, n, k);
    if (!b)
        return multiply(gpu, &p, y, x, w, false);
    const bool lt = k > 0 && rows < LT_MOST && k < LT_MOST && n < LT_MOST;
    half16 *const bias = lt ? (half16 *)(void *)gpu->scratch : y;
    int status = gpu_half_round(gpu, kind, bias, b, n);
    if (status != 0)
        return status;
    if (lt) {
        const cublasStatus_t biased = multiply_biased(gpu, &p, y, x, w, bias);
        if (biased != CUBLAS_STATUS_NOT_SUPPORTED)
            return blas_status(biased);
    }
    status = repeat_bias(gpu, &p, y, bias, lt ? 0 : 1);
    return status != 0 || k <= 0 ? status : multiply(gpu, &p, y, x, w, true);
}

static int backward_input(const Gpu *gpu, Types types, void *dx, const void *dy, const void *w,
                          int64_t rows, int64_t k, int64_t n, bool transposed)
{
    const Product p = product_new(types, false, transposed, rows, k, n);
    return multiply(gpu, &p, dx, dy, w, false);
}

int gpu_linear_backward_input(const Gpu *gpu, float *dx, const float *dy, const float *w,
                              int64_t rows, int64_t k, int64_t n, bool transposed)
{
    return backward_input(gpu, FLOATS, dx, dy, w, rows, k, n, transposed);
}

int gpu_linear_backward_input_half(const Gpu *gpu, HalfKind kind, half16 *dx, const half16 *dy,
                                   const half16 *w, int64_t rows, int64_t k, int64_t n,
                                   bool transposed)
{
    return backward_input(gpu, half_types(kind, false), dx, dy, w, rows, k, n, transposed);
}

static int backward_weight(const Gpu *gpu, Types types, float *dw, const void *dy, const void *x,
                           int64_t rows, int64_t k, int64_t n, bool transposed, bool accumulate)
{
    const Product p = product_new(types, true, false, transposed ? k : n, transposed ? n : k, rows);
    return transposed ? multiply(gpu, &p, dw, x, dy, accumulate)
                      : multiply(gpu, &p, dw, dy, x, accumulate);
}

int gpu_linear_backward_weight(const Gpu *gpu, float *dw, const float *dy, const float *x,
                               int64_t rows, int64_t k, int64_t n, bool transposed, bool accumulate)
{
    return backward_weight(gpu, FLOATS, dw, dy, x, rows, k, n, transposed, accumulate);
}

int gpu_linear_backward_weight_half(const Gpu *gpu, HalfKind kind, float *dw, const half16 *dy,
                                    const half16 *x, int64_t rows, int64_t k, int64_t n,
                                    bool transposed, bool accumulate)
{
    return backward_weight(gpu, half_types(kind, true), dw, dy, x, rows, k, n, transposed,
                           accumulate);
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

/* c (+)= the sum over `summed` of the products that begin at a and b. */
static int multiply_sums(const Gpu *gpu, const Product *p, const Dims *summed, void *c,
                         const void *a, const void *b, bool accumulate)
{
    for (int64_t s = 0; s < summed->count; s++) {
        int64_t at_a = 0, at_b = 0, none = 0;
        offsets(summed, s, &at_a, &at_b, &none);
        const int status = multiply(gpu, p, c, element(a, p->types.in, at_a),
                                    element(b, p->types.in, at_b), accumulate || s > 0);
        if (status)
            return status;
    }
    return 0;
}

/* The same for results of 16 bits, some of cuBLAS's batch or some rows at a time, as scratch has
 * room. */
static int round_sums(const Gpu *gpu, const Product *p, const Dims *summed, half16 *c,
                      const half16 *a, const half16 *b)
{
    const HalfKind kind = p->types.out == CUDA_R_16BF ? HALF_BF16 : HALF_F16;
    const int64_t room = GPU_SCRATCH / (int64_t)sizeof(float), matrix = p->m * p->n;
    const int64_t rows = matrix <= room ? p->m : room / p->n;
    const int64_t some = matrix <= room ? room / matrix : 1;
    float *const sums = (float *)(void *)gpu->scratch;
    if (rows <= 0)
        return (int)cudaErrorInvalidValue; /* a row of more than 2^22 elements */
    for (int64_t i = 0; i < p->count; i += some) {
        for (int64_t row = 0; row < p->m; row += rows) {
            Product part = *p;
            part.types.out = CUDA_R_32F;
            part.count = p->count - i < some ? p->count - i : some;
            part.m = p->m - row < rows ? p->m - row : rows;
            part.stride_c = part.m * p->n;
            const int64_t all = part.count * part.stride_c;
            const int64_t run = p->stride_c == part.stride_c ? all : part.stride_c;
            half16 *const to = c + i * p->stride_c + row * p->n;
            int status = multiply_sums(gpu, &part, summed, sums,
                                       a + i * p->stride_a + row * (p->ta ? 1 : p->lda),
                                       b + i * p->stride_b, false);
            for (int64_t at = 0; at < all && status == 0; at += run)
                status = gpu_half_round(gpu, kind, to + at / part.stride_c * p->stride_c, sums + at,
                                        run);
            if (status)
                return status;
        }
    }
    return 0;
}

static int multiply_batch(const Gpu *gpu, Product p, void *c, const void *a, const void *b,
                          const MatmulBatch *batch, bool accumulate)
{
    Dims kept = {}, summed = {};
    kept.count = summed.count = 1;
    for (int d = 0; d < batch->rank; d++)
        dims_add(batch->stride_c[d] != 0 ? &kept : &summed, batch->dim[d], batch->stride_a[d],
                 batch->stride_b[d], batch->stride_c[d]);
    if (kept.count <= 0 || summed.count <= 0 || p.m <= 0 || p.n <= 0)
        return 0;
    fold_rows(&p, &kept);
    fold_sums(&p, &summed);
    choose_batch(&p, &kept);
    for (int64_t i = 0; i < kept.count; i++) {
        int64_t at_a = 0, at_b = 0, at_c = 0;
        offsets(&kept, i, &at_a, &at_b, &at_c);
        const void *const from_a = element(a, p.types.in, at_a);
        const void *const from_b = element(b, p.types.in, at_b);
        void *const to = element(c, p.types.out, at_c);
        int status;
        if (p.types.out != CUDA_R_32F && summed.count > 1)
            status = round_sums(gpu, &p, &summed, (half16 *)to, (const half16 *)from_a,
                                (const half16 *)from_b);
        else
            status = multiply_sums(gpu, &p, &summed, to, from_a, from_b, accumulate);
        if (status)
            return status;
    }
    return 0;
}

int gpu_matmul(const Gpu *gpu, float *c, const float *a, const float *b, bool ta, bool tb,
               int64_t m, int64_t n, int64_t k, const MatmulBatch *batch, bool accumulate)
{
    const Product p = product_new(FLOATS, ta, tb, m, n, k);
    return multiply_batch(gpu, p, c, a, b, batch, accumulate);
}

int gpu_matmul_half(const Gpu *gpu, HalfKind kind, void *c, bool wide, const half16 *a,
                    const half16 *b, bool ta, bool tb, int64_t m, int64_t n, int64_t k,
                    const MatmulBatch *batch, bool accumulate)
{
    const Product p = product_new(half_types(kind, wide), ta, tb, m, n, k);
    return multiply_batch(gpu, p, c, a, b, batch, accumulate);
}
