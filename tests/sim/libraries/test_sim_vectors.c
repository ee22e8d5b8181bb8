/* test_sim_vectors.c - cuBLAS's functions of vectors, matrices times vectors, and sums of
 * matrices, against plain loops. */
#include "library_test.h"

#include <cublas_v2.h>

static cublasHandle_t handle;
static cudaStream_t stream;

enum { COUNT = 500 };

static void near(double got, double want, double size)
{
    if (!(fabs(got - want) <= size * 1e-5))
        fail_msg("%.9g, not %.9g", got, want);
}

static void test_vectors(void **state)
{
    float *x = numbers(CUDA_R_32F, 3 * COUNT), *y = numbers(CUDA_R_32F, 2 * COUNT);
    float alpha = 0.3f, result = 0, got[3 * COUNT];
    double dot = 0, norm = 0;
    (void)state;
    float *dx = device_copy(x, 3 * COUNT * sizeof *x), *dy = device_copy(y, 2 * COUNT * sizeof *y);
    for (int i = 0; i < COUNT; i++) {
        dot += (double)x[3 * i] * (double)y[2 * i];
        norm += (double)x[3 * i] * (double)x[3 * i];
    }
    FINE(cublasSdot(handle, COUNT, dx, 3, dy, 2, &result));
    near((double)result, dot, 100);
    FINE(cublasSnrm2(handle, COUNT, dx, 3, &result));
    near((double)result, sqrt(norm), 10);
    FINE(cublasSnrm2(handle, 0, dx, 3, &result));
    assert_true(result == 0);
    FINE(cublasSaxpy(handle, COUNT, &alpha, dx, 3, dy, 2));
    FINE(cublasSscal(handle, COUNT, &alpha, dx, 3));
    FINE(cudaStreamSynchronize(stream));
    host_copy(got, dy, 2 * COUNT * sizeof *got);
    for (int i = 0; i < 2 * COUNT; i++)
        near((double)got[i], (double)y[i] + (i % 2 ? 0 : (double)alpha * (double)x[i / 2 * 3]), 1);
    host_copy(got, dx, 3 * COUNT * sizeof *got);
    for (int i = 0; i < 3 * COUNT; i++)
        near((double)got[i], (i % 3 ? 1 : (double)alpha) * (double)x[i], 1);

    float *place = device_copy(&result, sizeof result);
    FINE(cublasSetPointerMode(handle, CUBLAS_POINTER_MODE_DEVICE));
    FINE(cublasSnrm2(handle, COUNT, dy, 2, place));
    FINE(cublasSscal(handle, COUNT, place, dx, 3)); /* by what the call before it gives */
    FINE(cublasSetPointerMode(handle, CUBLAS_POINTER_MODE_HOST));
    FINE(cudaStreamSynchronize(stream));
    host_copy(&result, place, sizeof result);
    float before = got[0];
    host_copy(got, dx, sizeof *got);
    near((double)got[0], (double)before * (double)result, 10);
    FINE(cudaFree(place));
    FINE(cudaFree(dx));
    FINE(cudaFree(dy));
    free(x);
    free(y);
}

static void test_matrix_times_vector(void **state)
{
    enum { M = 37, N = 23, LD = 40 };
    float *a = numbers(CUDA_R_32F, LD * N), *x = numbers(CUDA_R_32F, 2 * M);
    float *y = numbers(CUDA_R_32F, 3 * M), got[3 * M], alpha = -2, beta = 0.5f;
    (void)state;
    float *da = device_copy(a, LD * N * sizeof *a), *dx = device_copy(x, 2 * M * sizeof *x);
    for (int t = 0; t < 2; t++) {
        float *dy = device_copy(y, sizeof got);
        FINE(cublasSgemv(handle, t ? CUBLAS_OP_T : CUBLAS_OP_N, M, N, &alpha, da, LD, dx, 2, &beta,
                         dy, 3));
        FINE(cudaStreamSynchronize(stream));
        host_copy(got, dy, sizeof got);
        for (int i = 0; i < (t ? N : M); i++) {
            double sum = 0;
            for (int p = 0; p < (t ? M : N); p++)
                sum += (double)a[t ? p + i * LD : i + p * LD] * (double)x[2 * p];
            near((double)got[3 * i], -2 * sum + 0.5 * (double)y[3 * i], 20);
            assert_true(got[3 * i + 1] == y[3 * i + 1]);
        }
        FINE(cudaFree(dy));
    }
    FINE(cudaFree(da));
    FINE(cudaFree(dx));
    free(a);
    free(x);
    free(y);
}

static void test_sums_of_matrices(void **state)
{
    enum { M = 13, N = 8, LD = 15 };
    float *a = numbers(CUDA_R_32F, LD * M), *b = numbers(CUDA_R_32F, LD * M), got[LD * N];
    (void)state;
    float *da = device_copy(a, LD * M * sizeof *a), *db = device_copy(b, LD * M * sizeof *b);
    for (int v = 0; v < 8; v++) {
        float alpha = 2, beta = v & 4 ? 0 : -1;
        bool ta = v & 1, tb = v & 2;
        memset(got, 0, sizeof got);
        float *dc = device_copy(got, sizeof got);
        FINE(cublasSgeam(handle, ta ? CUBLAS_OP_T : CUBLAS_OP_N, tb ? CUBLAS_OP_T : CUBLAS_OP_N, M,
                         N, &alpha, da, LD, &beta, v & 4 ? NULL : db, LD, dc, LD));
        FINE(cudaStreamSynchronize(stream));
        host_copy(got, dc, sizeof got);
        for (int j = 0; j < N; j++)
            for (int i = 0; i < M; i++)
                assert_true(got[i + j * LD] == 2 * a[ta ? j + i * LD : i + j * LD] +
                                                   beta * b[tb ? j + i * LD : i + j * LD]);
        FINE(cudaFree(dc));
    }
    FINE(cudaFree(da));
    FINE(cudaFree(db));
    free(a);
    free(b);
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
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_vectors),
                                       cmocka_unit_test(test_matrix_times_vector),
                                       cmocka_unit_test(test_sums_of_matrices)};
    return cmocka_run_group_tests(tests, begin, end);
}
