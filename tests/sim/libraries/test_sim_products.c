/* test_sim_products.c - cuBLAS's products against plain loops in double: every transposition,
 * type and shape, batches, scalars in device memory, and the statuses of wrong arguments. */
#include "library_test.h"

#include <cublas_v2.h>

static cublasHandle_t handle;
static cudaStream_t stream;

typedef struct {
    bool ta, tb;
    int m, n, k, batch;
    int extra; /* that leading dimensions are larger than they must be */
    double alpha, beta;
    cudaDataType in, out;
    cublasComputeType_t compute;
} Case;

typedef struct {
    int lda, ldb, ldc;
    size_t a, b, c; /* elements from one matrix to the next */
    void *host_a, *host_b, *host_c, *result;
    void *device_a, *device_b, *device_c;
} Data;

static Data data_new(const Case *t)
{
    int rows_a = t->ta ? t->k : t->m, rows_b = t->tb ? t->n : t->k;
    Data d = {.lda = (rows_a ? rows_a : 1) + t->extra,
              .ldb = (rows_b ? rows_b : 1) + t->extra,
              .ldc = t->m + t->extra};
    d.a = (size_t)d.lda * (size_t)(t->ta ? t->m : t->k) + (size_t)t->extra;
    d.b = (size_t)d.ldb * (size_t)(t->tb ? t->k : t->n) + (size_t)t->extra;
    d.c = (size_t)d.ldc * (size_t)t->n + (size_t)t->extra;
    size_t n = (size_t)t->batch, in = bytes_of(t->in), out = bytes_of(t->out);
    d.host_a = numbers(t->in, n * d.a);
    d.host_b = numbers(t->in, n * d.b);
    d.host_c = numbers(t->out, n * d.c);
    d.result = numbers(t->out, n * d.c);
    for (size_t i = 0; t->beta == 0 && i < n * d.c; i++)
        memset((char *)d.host_c + i * out, 0xff, out); /* NaN: must not matter */
    d.device_a = device_copy(d.host_a, n * d.a * in);
    d.device_b = device_copy(d.host_b, n * d.b * in);
    d.device_c = device_copy(d.host_c, n * d.c * out);
    return d;
}

static void data_free(Data *d)
{
    FINE(cudaFree(d->device_a));
    FINE(cudaFree(d->device_b));
    FINE(cudaFree(d->device_c));
    free(d->host_a);
    free(d->host_b);
    free(d->host_c);
    free(d->result);
}

/* Compares the results, and what lies between their columns with what was there. */
static void data_check(const Case *t, Data *d)
{
    size_t out = bytes_of(t->out);
    FINE(cudaStreamSynchronize(stream));
    host_copy(d->result, d->device_c, (size_t)t->batch * d->c * out);
    for (int q = 0; q < t->batch; q++)
        for (int j = 0; j < t->n; j++)
            for (int i = 0; i < d->ldc; i++) {
                size_t at = (size_t)q * d->c + (size_t)j * (size_t)d->ldc + (size_t)i;
                if (i >= t->m) {
                    assert_memory_equal((char *)d->result + at * out, (char *)d->host_c + at * out,
                                        out);
                    continue;
                }
                double sum = 0, size = 0;
                for (int p = 0; p < t->k; p++) {
                    size_t a = (size_t)(t->ta ? p + i * d->lda : i + p * d->lda);
                    size_t b = (size_t)(t->tb ? j + p * d->ldb : p + j * d->ldb);
                    double product = element(d->host_a, t->in, (size_t)q * d->a + a) *
                                     element(d->host_b, t->in, (size_t)q * d->b + b);
                    sum += product;
                    size += fabs(product);
                }
                double c = t->beta == 0 ? 0 : element(d->host_c, t->out, at);
                double want = t->alpha * sum + t->beta * c;
                double bound = fabs(t->alpha) * size + fabs(t->beta * c) + 1e-3;
                double got = element(d->result, t->out, at);
                if (!(fabs(got - want) <= bound * tolerance(t->out, t->k)))
                    fail_msg("%c%c %dx%dx%d, (%d, %d) of %d: %.9g, not %.9g", t->ta ? 'T' : 'N',
                             t->tb ? 'T' : 'N', t->m, t->n, t->k, i, j, q, got, want);
            }
}

static const int shapes[][3] = {{1, 1, 1},    {2, 3, 4},    {7, 5, 3},      {33, 13, 65},
                                {64, 64, 64}, {31, 250, 2}, {100, 11, 300}, {5, 4, 0}};
enum { SHAPES = sizeof shapes / sizeof shapes[0] };

static cublasOperation_t op(bool transposed)
{
    return transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
}

static void gemm_strided(const Case *t, const Data *d)
{
    float alpha = (float)t->alpha, beta = (float)t->beta;
    bool in_double = t->in == CUDA_R_64F;
    const void *scale = in_double ? (const void *)&t->alpha : &alpha;
    const void *keep = in_double ? (const void *)&t->beta : &beta;
    if (t->batch == 1)
        FINE(cublasGemmEx(handle, op(t->ta), op(t->tb), t->m, t->n, t->k, scale, d->device_a, t->in,
                          d->lda, d->device_b, t->in, d->ldb, keep, d->device_c, t->out, d->ldc,
                          t->compute, CUBLAS_GEMM_DEFAULT));
    else
        FINE(cublasGemmStridedBatchedEx(
            handle, op(t->ta), op(t->tb), t->m, t->n, t->k, scale, d->device_a, t->in, d->lda,
            (long long)d->a, d->device_b, t->in, d->ldb, (long long)d->b, keep, d->device_c, t->out,
            d->ldc, (long long)d->c, t->batch, t->compute, CUBLAS_GEMM_DEFAULT));
}

static void test_types_and_shapes(void **state)
{
    static const struct {
        cudaDataType in, out;
        cublasComputeType_t compute;
    } types[] = {{CUDA_R_32F, CUDA_R_32F, CUBLAS_COMPUTE_32F},
                 {CUDA_R_32F, CUDA_R_32F, CUBLAS_COMPUTE_32F_FAST_TF32},
                 {CUDA_R_16BF, CUDA_R_16BF, CUBLAS_COMPUTE_32F},
                 {CUDA_R_16BF, CUDA_R_32F, CUBLAS_COMPUTE_32F},
                 {CUDA_R_16F, CUDA_R_16F, CUBLAS_COMPUTE_32F_PEDANTIC},
                 {CUDA_R_16F, CUDA_R_32F, CUBLAS_COMPUTE_32F},
                 {CUDA_R_64F, CUDA_R_64F, CUBLAS_COMPUTE_64F}};
    (void)state;
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        for (int s = 0; s < SHAPES; s++)
            for (int v = 0; v < 8; v++) {
                Case t = {.ta = v & 1,
                          .tb = v & 2,
                          .m = shapes[s][0],
                          .n = shapes[s][1],
                          .k = shapes[s][2],
                          .batch = v & 4 ? 3 : 1,
                          .extra = v & 4 ? 3 : 0,
                          .alpha = v & 1 ? 1 : -0.5,
                          .beta = v & 2 ? 0 : 0.75,
                          .in = types[i].in,
                          .out = types[i].out,
                          .compute = types[i].compute};
                Data d = data_new(&t);
                gemm_strided(&t, &d);
                data_check(&t, &d);
                data_free(&d);
            }
}

/* The functions with the type in their name, on the same data. */
static void test_names(void **state)
{
    Case t = {.ta = true, .m = 9, .n = 6, .k = 17, .batch = 2, .alpha = 2, .beta = -1};
    float alpha = 2, beta = -1;
    (void)state;
    for (int which = 0; which < 6; which++) {
        bool wide = which >= 3;
        t.in = t.out = wide ? CUDA_R_64F : CUDA_R_32F;
        t.batch = which % 3 == 0 ? 1 : 2;
        Data d = data_new(&t);
        void *arrays[3] = {NULL, NULL, NULL};
        const char *bases[3] = {d.device_a, d.device_b, d.device_c};
        size_t steps[3] = {d.a, d.b, d.c};
        for (int i = 0; i < 3; i++) {
            const char *pointers[2] = {bases[i], bases[i] + steps[i] * bytes_of(t.in)};
            arrays[i] = device_copy(pointers, sizeof pointers);
        }
        switch (which) {
        case 0:
            FINE(cublasSgemm(handle, CUBLAS_OP_C, CUBLAS_OP_N, 9, 6, 17, &alpha, d.device_a, d.lda,
                             d.device_b, d.ldb, &beta, d.device_c, d.ldc));
            break;
        case 1:
            FINE(cublasSgemmStridedBatched(handle, CUBLAS_OP_T, CUBLAS_OP_N, 9, 6, 17, &alpha,
                                           d.device_a, d.lda, (long long)d.a, d.device_b, d.ldb,
                                           (long long)d.b, &beta, d.device_c, d.ldc, (long long)d.c,
                                           2));
            break;
        case 2:
            FINE(cublasSgemmBatched(handle, CUBLAS_OP_T, CUBLAS_OP_N, 9, 6, 17, &alpha,
                                    (const float *const *)arrays[0], d.lda,
                                    (const float *const *)arrays[1], d.ldb, &beta,
                                    (float *const *)arrays[2], d.ldc, 2));
            break;
        case 3:
            FINE(cublasDgemm(handle, CUBLAS_OP_T, CUBLAS_OP_N, 9, 6, 17, &t.alpha, d.device_a,
                             d.lda, d.device_b, d.ldb, &t.beta, d.device_c, d.ldc));
            break;
        case 4:
            FINE(cublasDgemmStridedBatched(handle, CUBLAS_OP_T, CUBLAS_OP_N, 9, 6, 17, &t.alpha,
                                           d.device_a, d.lda, (long long)d.a, d.device_b, d.ldb,
                                           (long long)d.b, &t.beta, d.device_c, d.ldc,
                                           (long long)d.c, 2));
            break;
        default:
            FINE(cublasDgemmBatched(handle, CUBLAS_OP_T, CUBLAS_OP_N, 9, 6, 17, &t.alpha,
                                    (const double *const *)arrays[0], d.lda,
                                    (const double *const *)arrays[1], d.ldb, &t.beta,
                                    (double *const *)arrays[2], d.ldc, 2));
        }
        data_check(&t, &d);
        for (int i = 0; i < 3; i++)
            FINE(cudaFree(arrays[i]));
        data_free(&d);
    }
}

/* Scalars in device memory are read when the product runs, not at the call. */
static void test_device_scalars(void **state)
{
    Case t = {.m = 12,
              .n = 10,
              .k = 8,
              .batch = 1,
              .alpha = 3,
              .beta = 0.5,
              .in = CUDA_R_32F,
              .out = CUDA_R_32F};
    float scalars[2] = {3, 0.5f}, other[2] = {100, 100};
    (void)state;
    Data d = data_new(&t);
    float *on_device = device_copy(other, sizeof other);
    FINE(cudaMemcpyAsync(on_device, scalars, sizeof scalars, cudaMemcpyHostToDevice, stream));
    FINE(cublasSetPointerMode(handle, CUBLAS_POINTER_MODE_DEVICE));
    FINE(cublasSgemm(handle, CUBLAS_OP_N, CUBLAS_OP_N, 12, 10, 8, on_device, d.device_a, d.lda,
                     d.device_b, d.ldb, on_device + 1, d.device_c, d.ldc));
    FINE(cublasSetPointerMode(handle, CUBLAS_POINTER_MODE_HOST));
    data_check(&t, &d);
    FINE(cudaFree(on_device));
    data_free(&d);
}

/* Parts of a product by rows, by columns, and in another place are bit-equal to the whole. */
static void test_parts_equal_whole(void **state)
{
    enum { M = 97, N = 53, K = 301 };
    const float one = 1, zero = 0;
    (void)state;
    float *a = numbers(CUDA_R_32F, M * K), *b = numbers(CUDA_R_32F, K * N), whole[N][M], part[N][M];
    for (int i = 0; i < M * K; i++)
        a[i] *= 1.1f;
    for (int i = 0; i < K * N; i++)
        b[i] *= 0.7f;
    float *da = device_copy(a, M * K * sizeof *a), *db = device_copy(b, K * N * sizeof *b);
    float *dc = device_copy(whole, sizeof whole);
    FINE(cublasSgemm(handle, CUBLAS_OP_N, CUBLAS_OP_N, M, N, K, &one, da, M, db, K, &zero, dc, M));
    FINE(cudaStreamSynchronize(stream));
    host_copy(whole, dc, sizeof whole);
    for (int row = 0; row < M; row += 10)
        for (int column = 0; column < N; column += 27) {
            int m = M - row < 10 ? M - row : 10, n = N - column < 27 ? N - column : 27;
            FINE(cublasSgemm(handle, CUBLAS_OP_N, CUBLAS_OP_N, m, n, K, &one, da + row, M,
                             db + column * K, K, &zero, dc + column * M + row, M));
        }
    FINE(cudaStreamSynchronize(stream));
    host_copy(part, dc, sizeof part);
    assert_memory_equal(whole, part, sizeof whole);
    FINE(cudaFree(da));
    FINE(cudaFree(db));
    FINE(cudaFree(dc));
    free(a);
    free(b);
}

#define REFUSED(want, ...) assert_int_equal((int)(__VA_ARGS__), (int)(want))

static void test_statuses(void **state)
{
    const float one = 1, zero = 0;
    float values[64] = {0};
    (void)state;
    float *d = device_copy(values, sizeof values), *e = device_copy(values, sizeof values);
    const cublasStatus_t invalid = CUBLAS_STATUS_INVALID_VALUE;
    const cublasOperation_t n = CUBLAS_OP_N, t = CUBLAS_OP_T;
    REFUSED(CUBLAS_STATUS_NOT_INITIALIZED,
            cublasSgemm(NULL, n, n, 2, 2, 2, &one, d, 2, d, 2, &zero, e, 2));
    cublasGetStatusString(invalid); /* looked at */
    REFUSED(invalid, cublasSgemm(handle, n, n, -1, 2, 2, &one, d, 2, d, 2, &zero, e, 2));
    cublasGetStatusString(invalid);
    REFUSED(invalid, cublasSgemm(handle, n, n, 4, 2, 3, &one, d, 3, d, 3, &zero, e, 4));
    cublasGetStatusString(invalid);
    REFUSED(invalid, cublasSgemm(handle, t, n, 4, 2, 3, &one, d, 2, d, 3, &zero, e, 4));
    cublasGetStatusString(invalid);
    REFUSED(invalid, cublasSgemm(handle, n, n, 4, 2, 3, &one, d, 4, d, 2, &zero, e, 4));
    cublasGetStatusString(invalid);
    REFUSED(invalid, cublasSgemm(handle, n, t, 4, 2, 3, &one, d, 4, d, 1, &zero, e, 4));
    cublasGetStatusString(invalid);
    REFUSED(invalid, cublasSgemm(handle, n, n, 4, 2, 3, &one, d, 4, d, 3, &zero, e, 3));
    cublasGetStatusString(invalid);
    REFUSED(invalid, cublasSgemm(handle, n, n, 0, 2, 3, &one, d, 0, d, 3, &zero, e, 1));
    cublasGetStatusString(invalid);
    REFUSED(invalid,
            cublasSgemm(handle, (cublasOperation_t)7, n, 1, 1, 1, &one, d, 1, d, 1, &zero, e, 1));
    cublasGetStatusString(invalid);
    REFUSED(invalid, cublasSgemm(handle, n, n, 2, 2, 2, NULL, d, 2, d, 2, &zero, e, 2));
    cublasGetStatusString(invalid);
    REFUSED(CUBLAS_STATUS_NOT_SUPPORTED,
            cublasGemmEx(handle, n, n, 2, 2, 2, &one, d, CUDA_R_16BF, 2, d, CUDA_R_16F, 2, &zero, e,
                         CUDA_R_16BF, 2, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT));
    cublasGetStatusString(invalid);
    REFUSED(CUBLAS_STATUS_NOT_SUPPORTED,
            cublasGemmEx(handle, n, n, 2, 2, 2, &one, d, CUDA_R_16BF, 2, d, CUDA_R_16BF, 2, &zero,
                         e, CUDA_R_32F, 2, CUBLAS_COMPUTE_32F_FAST_TF32, CUBLAS_GEMM_DEFAULT));
    cublasGetStatusString(invalid);
    REFUSED(invalid, cublasSetWorkspace(handle, (char *)d + 16, 64));
    cublasGetStatusString(invalid);
    FINE(cublasSgemm(handle, n, n, 0, 2, 3, &one, NULL, 1, NULL, 3, &zero, NULL, 1)); /* empty */
    FINE(cudaStreamSynchronize(stream));
    FINE(cudaFree(d));
    FINE(cudaFree(e));
}

static void test_settings(void **state)
{
    cublasHandle_t other;
    cudaStream_t got;
    int version = 0;
    cublasPointerMode_t pointer_mode;
    cublasMath_t math;
    void *workspace = NULL;
    (void)state;
    FINE(cublasCreate(&other));
    FINE(cublasSetStream(other, stream));
    FINE(cublasGetStream(other, &got));
    assert_ptr_equal(got, stream);
    FINE(cublasGetVersion(other, &version));
    assert_int_equal(version, CUBLAS_VERSION);
    FINE(cublasSetMathMode(other, CUBLAS_TF32_TENSOR_OP_MATH));
    FINE(cublasGetMathMode(other, &math));
    assert_int_equal((int)math, CUBLAS_TF32_TENSOR_OP_MATH);
    FINE(cublasGetPointerMode(other, &pointer_mode));
    assert_int_equal((int)pointer_mode, CUBLAS_POINTER_MODE_HOST);
    FINE(cudaMalloc(&workspace, 1 << 20));
    FINE(cublasSetWorkspace(other, workspace, 1 << 20));
    FINE(cublasSetAtomicsMode(other, CUBLAS_ATOMICS_NOT_ALLOWED));
    assert_string_equal(cublasGetStatusName(CUBLAS_STATUS_NOT_SUPPORTED),
                        "CUBLAS_STATUS_NOT_SUPPORTED");
    FINE(cublasDestroy(other));
    FINE(cudaFree(workspace));
}

/* A product that was captured runs anew with what its operands then hold. */
static void test_captured(void **state)
{
    const float one = 1, zero = 0;
    float two[1] = {2}, three[1] = {3}, got[1];
    cudaGraph_t graph;
    cudaGraphExec_t executable;
    (void)state;
    float *a = device_copy(two, sizeof two), *b = device_copy(three, sizeof three);
    float *c = device_copy(two, sizeof two);
    FINE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    FINE(cublasSgemm(handle, CUBLAS_OP_N, CUBLAS_OP_N, 1, 1, 1, &one, a, 1, b, 1, &zero, c, 1));
    FINE(cudaStreamEndCapture(stream, &graph));
    FINE(cudaGraphInstantiate(&executable, graph, 0));
    for (int i = 0; i < 3; i++) {
        FINE(cudaGraphLaunch(executable, stream));
        FINE(cudaMemcpyAsync(a, c, sizeof got, cudaMemcpyDeviceToDevice, stream));
    }
    FINE(cudaStreamSynchronize(stream));
    host_copy(got, c, sizeof got);
    assert_true(got[0] == 54);
    FINE(cudaGraphExecDestroy(executable));
    FINE(cudaGraphDestroy(graph));
    FINE(cudaFree(a));
    FINE(cudaFree(b));
    FINE(cudaFree(c));
}

static int begin(void **state)
{
    (void)state;
    FINE(cublasCreate(&handle));
    stream = new_stream();
    FINE(cublasSetStream(handle, stream));
    return 0;
}

static int end(void **state)
{
    (void)state;
    FINE(cublasDestroy(handle));
    FINE(cudaStreamDestroy(stream));
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_types_and_shapes), cmocka_unit_test(test_names),
        cmocka_unit_test(test_device_scalars),   cmocka_unit_test(test_parts_equal_whole),
        cmocka_unit_test(test_statuses),         cmocka_unit_test(test_settings),
        cmocka_unit_test(test_captured)};
    return cmocka_run_group_tests(tests, begin, end);
}
