/* test_sim_epilogues.c - cuBLASLt: every epilogue against its formula in double, batches, both
 * orders of storage, workspaces, and the statuses of what does not fit together. */
#include "library_test.h"

#include <cublasLt.h>
#include <cublas_v2.h>

static cublasLtHandle_t handle;
static cudaStream_t stream;

enum { M = 72, N = 21, K = 34, AUX_LD = 128 };

typedef struct {
    cublasLtEpilogue_t epilogue;
    cudaDataType in, type; /* of A and B; of all else */
    int batch;
    bool ta, tb, by_rows;
    double beta;
} Case;

/* What one product needs, in host memory and on the device. */
typedef struct {
    size_t a, b, d, bias, aux; /* elements of one matrix of the batch; aux: bytes */
    void *host[6], *device[6]; /* A, B, C, D, bias, aux */
    size_t bytes[6];
} Data;

static double gelu(double x)
{
    return 0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
}

static double gelu_slope(double x)
{
    double h = 1e-5;
    return (gelu(x + h) - gelu(x - h)) / (2 * h);
}

static bool is_relu(cublasLtEpilogue_t e)
{
    return e == CUBLASLT_EPILOGUE_RELU || e == CUBLASLT_EPILOGUE_RELU_BIAS ||
           e == CUBLASLT_EPILOGUE_RELU_AUX || e == CUBLASLT_EPILOGUE_RELU_AUX_BIAS;
}

static bool is_gelu(cublasLtEpilogue_t e)
{
    return e == CUBLASLT_EPILOGUE_GELU || e == CUBLASLT_EPILOGUE_GELU_BIAS ||
           e == CUBLASLT_EPILOGUE_GELU_AUX || e == CUBLASLT_EPILOGUE_GELU_AUX_BIAS;
}

static bool adds_bias(cublasLtEpilogue_t e)
{
    return e == CUBLASLT_EPILOGUE_BIAS || e == CUBLASLT_EPILOGUE_RELU_BIAS ||
           e == CUBLASLT_EPILOGUE_GELU_BIAS || e == CUBLASLT_EPILOGUE_RELU_AUX_BIAS ||
           e == CUBLASLT_EPILOGUE_GELU_AUX_BIAS;
}

static bool is_drelu(cublasLtEpilogue_t e)
{
    return e == CUBLASLT_EPILOGUE_DRELU || e == CUBLASLT_EPILOGUE_DRELU_BGRAD;
}

static bool is_dgelu(cublasLtEpilogue_t e)
{
    return e == CUBLASLT_EPILOGUE_DGELU || e == CUBLASLT_EPILOGUE_DGELU_BGRAD;
}

static Data data_new(const Case *t)
{
    size_t wide = bytes_of(t->type), narrow = bytes_of(t->in), batch = (size_t)t->batch;
    bool bits = is_relu(t->epilogue) || is_drelu(t->epilogue);
    Data d = {.a = M * K, .b = K * N, .d = M * N, .bias = M};
    d.aux = bits ? AUX_LD / 8 * N : AUX_LD * N * wide;
    size_t elements[6] = {d.a, d.b, d.d, d.d, M > N ? M : N, 0};
    for (int i = 0; i < 6; i++) {
        d.bytes[i] = batch * (i < 2 ? elements[i] * narrow : i < 5 ? elements[i] * wide : d.aux);
        d.host[i] =
            i < 2 ? numbers(t->in, d.bytes[i] / narrow) : numbers(t->type, d.bytes[i] / wide + 1);
        d.device[i] = device_copy(d.host[i], d.bytes[i]);
    }
    return d;
}

static void data_free(Data *d)
{
    for (int i = 0; i < 6; i++) {
        FINE(cudaFree(d->device[i]));
        free(d->host[i]);
    }
}

static cublasLtMatrixLayout_t layout(const Case *t, cudaDataType type, int rows, int cols,
                                     size_t stride)
{
    cublasLtMatrixLayout_t made;
    int32_t order = t->by_rows ? CUBLASLT_ORDER_ROW : CUBLASLT_ORDER_COL, batch = t->batch;
    int64_t offset = (int64_t)stride;
    FINE(cublasLtMatrixLayoutCreate(&made, type, (uint64_t)rows, (uint64_t)cols,
                                    t->by_rows ? cols : rows));
    FINE(
        cublasLtMatrixLayoutSetAttribute(made, CUBLASLT_MATRIX_LAYOUT_ORDER, &order, sizeof order));
    FINE(cublasLtMatrixLayoutSetAttribute(made, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &batch,
                                          sizeof batch));
    FINE(cublasLtMatrixLayoutSetAttribute(made, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
                                          &offset, sizeof offset));
    return made;
}

static void set(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t attribute,
                const void *value, size_t size)
{
    FINE(cublasLtMatmulDescSetAttribute(desc, attribute, value, size));
}

static cublasLtMatmulDesc_t description(const Case *t, const Data *d)
{
    cublasLtMatmulDesc_t desc;
    cublasOperation_t ta = t->ta ? CUBLAS_OP_T : CUBLAS_OP_N,
                      tb = t->tb ? CUBLAS_OP_T : CUBLAS_OP_N;
    uint32_t epilogue = t->epilogue;
    bool bits = is_relu(t->epilogue) || is_drelu(t->epilogue);
    int64_t ld = AUX_LD, bias = M > N ? M : N;
    int64_t aux = (int64_t)(bits ? d->aux * 8 : d->aux / bytes_of(t->type));
    FINE(cublasLtMatmulDescCreate(&desc, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    set(desc, CUBLASLT_MATMUL_DESC_TRANSA, &ta, sizeof ta);
    set(desc, CUBLASLT_MATMUL_DESC_TRANSB, &tb, sizeof tb);
    set(desc, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue);
    set(desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &d->device[4], sizeof d->device[4]);
    set(desc, CUBLASLT_MATMUL_DESC_BIAS_BATCH_STRIDE, &bias, sizeof bias);
    set(desc, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, &d->device[5], sizeof d->device[5]);
    set(desc, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, &ld, sizeof ld);
    set(desc, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_BATCH_STRIDE, &aux, sizeof aux);
    return desc;
}

static void multiply(const Case *t, Data *d)
{
    float one = 1, beta = (float)t->beta;
    size_t most = 1 << 20;
    void *workspace = NULL;
    int returned = 0;
    cublasLtMatmulHeuristicResult_t result;
    cublasLtMatmulPreference_t preference;
    cublasLtMatmulDesc_t desc = description(t, d);
    cublasLtMatrixLayout_t a = layout(t, t->in, t->ta ? K : M, t->ta ? M : K, d->a);
    cublasLtMatrixLayout_t b = layout(t, t->in, t->tb ? N : K, t->tb ? K : N, d->b);
    cublasLtMatrixLayout_t c = layout(t, t->type, M, N, d->d);
    FINE(cublasLtMatmulPreferenceCreate(&preference));
    FINE(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                              &most, sizeof most));
    FINE(cublasLtMatmulAlgoGetHeuristic(handle, desc, a, b, c, c, preference, 1, &result,
                                        &returned));
    assert_int_equal(returned, 1);
    assert_int_equal((int)result.state, (int)CUBLAS_STATUS_SUCCESS);
    assert_true(result.workspaceSize <= most);
    FINE(cudaMalloc(&workspace, most));
    FINE(cublasLtMatmul(handle, desc, &one, d->device[0], a, d->device[1], b, &beta, d->device[2],
                        c, d->device[3], c, &result.algo, workspace, most, stream));
    FINE(cudaStreamSynchronize(stream));
    FINE(cudaFree(workspace));
    FINE(cublasLtMatmulPreferenceDestroy(preference));
    FINE(cublasLtMatmulDescDestroy(desc));
    FINE(cublasLtMatrixLayoutDestroy(a));
    FINE(cublasLtMatrixLayoutDestroy(b));
    FINE(cublasLtMatrixLayoutDestroy(c));
}

static size_t at(const Case *t, int row, int column, int rows, int columns)
{
    return (size_t)(t->by_rows ? row * columns + column : row + column * rows);
}

static double left(const Case *t, const Data *d, int q, int i, int p)
{
    size_t place = t->ta ? at(t, p, i, K, M) : at(t, i, p, M, K);
    return element(d->host[0], t->in, (size_t)q * d->a + place);
}

static double right(const Case *t, const Data *d, int q, int p, int j)
{
    size_t place = t->tb ? at(t, j, p, N, K) : at(t, p, j, K, N);
    return element(d->host[1], t->in, (size_t)q * d->b + place);
}

static bool mask_bit(const Data *d, int q, int i, int j)
{
    const uint8_t *bits = d->host[5];
    return bits[(size_t)q * d->aux + (size_t)(j * AUX_LD / 8 + i / 8)] >> i % 8 & 1;
}

static double aux_value(const Case *t, const Data *d, int q, int i, int j)
{
    size_t start = (size_t)q * d->aux / bytes_of(t->type);
    return element(d->host[5], t->type, start + (size_t)(j * AUX_LD + i));
}

static void near(const Case *t, double got, double want, double bound, const char *what, int i,
                 int j)
{
    if (!(fabs(got - want) <= bound))
        fail_msg("epilogue %d, type %d: %s at (%d, %d): %.9g, not %.9g", (int)t->epilogue,
                 (int)t->type, what, i, j, got, want);
}

/* Brings results to the host over what they came from, where that is no input any more. */
static void check(const Case *t, Data *d)
{
    cublasLtEpilogue_t e = t->epilogue;
    double unit = tolerance(t->type, K) * 12, *sums = calloc(M, sizeof *sums);
    bool writes_aux = is_relu(e) || is_gelu(e);
    void *grad = calloc(1, d->bytes[4]);
    host_copy(d->host[3], d->device[3], d->bytes[3]);
    host_copy(grad, d->device[4], d->bytes[4]);
    if (writes_aux)
        host_copy(d->host[5], d->device[5], d->bytes[5]);
    size_t bias_step = M > N ? M : N;
    for (int q = 0; q < t->batch; q++) {
        memset(sums, 0, M * sizeof *sums);
        for (int j = 0; j < N; j++)
            for (int i = 0; i < M; i++) {
                size_t place = (size_t)q * d->d + at(t, i, j, M, N);
                double v = t->beta == 0 ? 0 : t->beta * element(d->host[2], t->type, place);
                for (int p = 0; p < K; p++)
                    v += left(t, d, q, i, p) * right(t, d, q, p, j);
                if (adds_bias(e))
                    v += element(d->host[4], t->type, (size_t)q * bias_step + (size_t)i);
                if (e == CUBLASLT_EPILOGUE_GELU_AUX || e == CUBLASLT_EPILOGUE_GELU_AUX_BIAS)
                    near(t, aux_value(t, d, q, i, j), v, unit, "input", i, j);
                bool masked =
                    e == CUBLASLT_EPILOGUE_RELU_AUX || e == CUBLASLT_EPILOGUE_RELU_AUX_BIAS;
                if (masked && fabs(v) > 1e-4)
                    assert_int_equal(mask_bit(d, q, i, j), v > 0);
                if (is_relu(e))
                    v = v > 0 ? v : 0;
                else if (is_gelu(e))
                    v = gelu(v);
                else if (is_drelu(e))
                    v = mask_bit(d, q, i, j) ? v : 0;
                else if (is_dgelu(e))
                    v *= gelu_slope(aux_value(t, d, q, i, j));
                sums[i] += v;
                near(t, element(d->host[3], t->type, place), v, unit, "D", i, j);
            }
        for (int i = 0; i < (e == CUBLASLT_EPILOGUE_BGRADB ? N : M); i++) {
            double want = sums[i];
            if (e == CUBLASLT_EPILOGUE_BGRADA || e == CUBLASLT_EPILOGUE_BGRADB) {
                want = 0;
                for (int p = 0; p < K; p++)
                    want +=
                        e == CUBLASLT_EPILOGUE_BGRADA ? left(t, d, q, i, p) : right(t, d, q, p, i);
            } else if (e != CUBLASLT_EPILOGUE_DRELU_BGRAD && e != CUBLASLT_EPILOGUE_DGELU_BGRAD) {
                want = element(d->host[4], t->type, (size_t)q * bias_step + (size_t)i);
            }
            near(t, element(grad, t->type, (size_t)q * bias_step + (size_t)i), want, unit * N,
                 "bias", i, 0);
        }
    }
    free(grad);
    free(sums);
}

static void run(Case t)
{
    Data d = data_new(&t);
    multiply(&t, &d);
    check(&t, &d);
    data_free(&d);
}

static void test_formulas(void **state)
{
    static const cublasLtEpilogue_t epilogues[] = {
        CUBLASLT_EPILOGUE_DEFAULT,  CUBLASLT_EPILOGUE_BIAS,
        CUBLASLT_EPILOGUE_RELU,     CUBLASLT_EPILOGUE_RELU_BIAS,
        CUBLASLT_EPILOGUE_GELU,     CUBLASLT_EPILOGUE_GELU_BIAS,
        CUBLASLT_EPILOGUE_RELU_AUX, CUBLASLT_EPILOGUE_RELU_AUX_BIAS,
        CUBLASLT_EPILOGUE_GELU_AUX, CUBLASLT_EPILOGUE_GELU_AUX_BIAS,
        CUBLASLT_EPILOGUE_DRELU,    CUBLASLT_EPILOGUE_DRELU_BGRAD,
        CUBLASLT_EPILOGUE_DGELU,    CUBLASLT_EPILOGUE_DGELU_BGRAD,
        CUBLASLT_EPILOGUE_BGRADA,   CUBLASLT_EPILOGUE_BGRADB};
    static const cudaDataType types[][2] = {{CUDA_R_32F, CUDA_R_32F},
                                            {CUDA_R_16BF, CUDA_R_16BF},
                                            {CUDA_R_16F, CUDA_R_16F},
                                            {CUDA_R_16BF, CUDA_R_32F},
                                            {CUDA_R_16F, CUDA_R_32F}};
    enum { TYPES = sizeof types / sizeof types[0] };
    (void)state;
    for (size_t i = 0; i < sizeof epilogues / sizeof epilogues[0]; i++)
        for (int v = 0; v < 2 * TYPES; v++)
            run((Case){.epilogue = epilogues[i],
                       .in = types[v % TYPES][0],
                       .type = types[v % TYPES][1],
                       .batch = v < TYPES ? 1 : 2,
                       .ta = v & 1,
                       .tb = v & 2,
                       .beta = v < TYPES ? 0 : 0.5});
}

static void test_rows(void **state)
{
    (void)state;
    for (int v = 0; v < 4; v++)
        run((Case){.epilogue = CUBLASLT_EPILOGUE_DEFAULT,
                   .in = CUDA_R_32F,
                   .type = CUDA_R_32F,
                   .batch = v < 2 ? 1 : 2,
                   .ta = v & 1,
                   .tb = v & 2,
                   .by_rows = true,
                   .beta = -1});
}

/* Descriptors that the caller keeps himself, and a handle of cuBLAS. */
static void test_own_descriptors(void **state)
{
    cublasLtMatrixLayoutOpaque_t square;
    cublasLtMatmulDescOpaque_t desc;
    cublasHandle_t other;
    float one = 1, zero = 0, a[4] = {1, 2, 3, 4}, d[4] = {0};
    (void)state;
    FINE(cublasLtMatrixLayoutInit(&square, CUDA_R_32F, 2, 2, 2));
    FINE(cublasLtMatmulDescInit(&desc, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    float *da = device_copy(a, sizeof a), *dd = device_copy(d, sizeof d);
    FINE(cublasCreate_v2(&other));
    FINE(cublasLtMatmul((cublasLtHandle_t)(void *)other, &desc, &one, da, &square, da, &square,
                        &zero, NULL, &square, dd, &square, NULL, NULL, 0, stream));
    FINE(cudaStreamSynchronize(stream));
    host_copy(d, dd, sizeof d);
    assert_true(d[0] == 7 && d[1] == 10 && d[2] == 15 && d[3] == 22);
    FINE(cublasDestroy_v2(other));
    FINE(cudaFree(da));
    FINE(cudaFree(dd));
}

static void refused(cublasStatus_t status, cublasStatus_t want)
{
    assert_int_equal((int)status, (int)want);
    assert_non_null(cublasLtGetStatusName(status)); /* looked at */
}

static void test_statuses(void **state)
{
    Case t = {.epilogue = CUBLASLT_EPILOGUE_GELU_AUX, .type = CUDA_R_32F, .batch = 1};
    Data d = data_new(&t);
    float one = 1, zero = 0;
    int64_t ld = M + 1;
    void *none = NULL;
    cublasLtMatmulDesc_t desc = description(&t, &d);
    cublasLtMatrixLayout_t a = layout(&t, t.type, M, K, d.a), b = layout(&t, t.type, K, N, d.b);
    cublasLtMatrixLayout_t c = layout(&t, t.type, M, N, d.d),
                           wrong = layout(&t, t.type, M, N - 1, d.d);
    cublasLtMatmulAlgo_t algorithm = {{0}};
    (void)state;
#define MATMUL(c_layout, algo)                                                                     \
    cublasLtMatmul(handle, desc, &one, d.device[0], a, d.device[1], b, &zero, d.device[2],         \
                   c_layout, d.device[3], c_layout, algo, NULL, 0, stream)
    refused(MATMUL(wrong, NULL), CUBLAS_STATUS_INVALID_VALUE);
    refused(MATMUL(c, &algorithm), CUBLAS_STATUS_INVALID_VALUE);
    refused(cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, &ld, 4),
            CUBLAS_STATUS_INVALID_VALUE);
    set(desc, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, &ld, sizeof ld); /* no multiple of 8 */
    refused(MATMUL(c, NULL), CUBLAS_STATUS_INVALID_VALUE);
    ld = AUX_LD;
    set(desc, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, &ld, sizeof ld);
    set(desc, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, &none, sizeof none);
    refused(MATMUL(c, NULL), CUBLAS_STATUS_INVALID_VALUE);
    FINE(cublasLtMatmulDescDestroy(desc));
    FINE(cublasLtMatrixLayoutDestroy(a));
    FINE(cublasLtMatrixLayoutDestroy(b));
    FINE(cublasLtMatrixLayoutDestroy(c));
    FINE(cublasLtMatrixLayoutDestroy(wrong));
    data_free(&d);
}

static int begin(void **state)
{
    (void)state;
    FINE(cublasLtCreate(&handle));
    stream = new_stream();
    return 0;
}

static int end(void **state)
{
    (void)state;
    FINE(cublasLtDestroy(handle));
    FINE(cudaStreamDestroy(stream));
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_formulas), cmocka_unit_test(test_rows),
                                       cmocka_unit_test(test_own_descriptors),
                                       cmocka_unit_test(test_statuses)};
    return cmocka_run_group_tests(tests, begin, end);
}
