/* products.cu - cuBLAS and cuBLASLt: their operands are memory like any other. */
#include <cublasLt.h>
#include <cublas_v2.h>
#include <cuda_bf16.h>

#include "bug.h"

enum { M = 24, K = 16, COLUMNS = 20 };

/* Column i of a matrix of `rows` rows is full of i + start. */
__global__ void fill_columns(float *out, int rows, float start)
{
    int i = blockIdx.x * rows + threadIdx.x;
    out[i] = blockIdx.x + start; /* here: fill_columns */
}

/* a (M x K), b (K x COLUMNS), c (M x COLUMNS), by columns. The columns of a and b hold their
 * numbers, so column j of c = ab holds j * (0 + 1 + ... + K - 1). */
struct Setting {
    int device;
    float *a, *b, *c;
    cudaStream_t stream, other;
    cudaEvent_t event;
    cublasHandle_t handle;

    explicit Setting(int device = 0) : device(device)
    {
        CHECK(cudaSetDevice(device));
        a = device_zeros<float>(M * K);
        b = device_zeros<float>(K * COLUMNS);
        c = device_zeros<float>(M * COLUMNS);
        stream = new_stream();
        other = new_stream();
        event = new_event();
        fill_columns<<<K, M, 0, stream>>>(a, M, 0);
        fill_columns<<<COLUMNS, K, 0, stream>>>(b, K, 0);
        CHECK(cudaGetLastError());
        CHECK(cudaStreamSynchronize(stream));
        CHECK(cublasCreate(&handle));
    }
    void multiply(const float *left, int left_rows)
    {
        const float one = 1, zero = 0;
        CHECK(cublasSgemm(handle, CUBLAS_OP_N, CUBLAS_OP_N, M, COLUMNS, K, &one, left, left_rows, b,
                          K, &zero, c, M));
    }
    void expect_product(float factor = 1)
    {
        CHECK(cudaDeviceSynchronize());
        std::vector<float> product(M * COLUMNS);
        CHECK(
            cudaMemcpy(product.data(), c, sizeof(float) * product.size(), cudaMemcpyDeviceToHost));
        for (int j = 0; j < COLUMNS; ++j)
            for (int i = 0; i < M; ++i)
                EXPECT(product[static_cast<size_t>(j * M + i)] == factor * j * (K * (K - 1) / 2));
    }
    ~Setting()
    {
        CHECK(cublasDestroy(handle));
        CHECK(cudaEventDestroy(event));
        CHECK(cudaStreamDestroy(other));
        CHECK(cudaStreamDestroy(stream));
        CHECK(cudaFree(c));
        CHECK(cudaFree(b));
        CHECK(cudaFree(a));
    }
};

// case: product_reads_too_early - cuBLAS reads what another stream writes
// expect: race  cublasSgemm  kernel fill_columns  here:fill_columns  gpu 0
CASE(product_reads_too_early)
{
    Setting s;
    CHECK(cublasSetStream(s.handle, s.stream));
    fill_columns<<<K, M, 0, s.other>>>(s.a, M, 0);
    CHECK(cudaGetLastError());
    CHECK(cudaEventRecord(s.event, s.other));
    if (!BUG)
        CHECK(cudaStreamWaitEvent(s.stream, s.event, 0));
    s.multiply(s.a, M);
    s.expect_product();
}

// case: product_overwritten_too_early - an operand is overwritten while cuBLAS reads it
// expect: race  cublasSgemm  kernel fill_columns  here:fill_columns
CASE(product_overwritten_too_early)
{
    Setting s;
    CHECK(cublasSetStream(s.handle, s.stream));
    s.multiply(s.a, M);
    CHECK(cudaEventRecord(s.event, s.stream));
    if (!BUG)
        CHECK(cudaStreamWaitEvent(s.other, s.event, 0));
    fill_columns<<<K, M, 0, s.other>>>(s.a, M, 5);
    CHECK(cudaGetLastError());
    s.expect_product();
}

// case: product_in_null_stream - cublasSetStream is forgotten, so a product runs elsewhere
// expect: race  cublasSgemm  kernel fill_columns  here:fill_columns
CASE(product_in_null_stream)
{
    Setting s;
    if (!BUG)
        CHECK(cublasSetStream(s.handle, s.stream));
    fill_columns<<<K, M, 0, s.stream>>>(s.a, M, 0);
    CHECK(cudaGetLastError());
    s.multiply(s.a, M);
    s.expect_product();
}

// case: product_leading_dimension - a leading dimension that goes past the end of the matrix
// expect: out-of-bounds  cublasSgemm  A  gpu 1
CASE(product_leading_dimension)
{
    Setting s(1);
    CHECK(cublasSetStream(s.handle, s.stream));
    s.multiply(s.a, BUG ? M + 8 : M);
    s.expect_product();
}

// case: product_batch_too_large - one matrix more than there are
// expect: out-of-bounds  cublasSgemmStridedBatched
CASE(product_batch_too_large)
{
    Setting s;
    const float one = 1, zero = 0;
    CHECK(cublasSetStream(s.handle, s.stream));
    CHECK(cublasSgemmStridedBatched(s.handle, CUBLAS_OP_N, CUBLAS_OP_N, M, COLUMNS / 2, K, &one,
                                    s.a, M, 0, s.b, K, K * COLUMNS / 2, &zero, s.c, M,
                                    M * COLUMNS / 2, BUG ? 3 : 2));
    s.expect_product();
}

__global__ void fill_columns_bf16(__nv_bfloat16 *out, int rows)
{
    out[blockIdx.x * rows + threadIdx.x] = __float2bfloat16(blockIdx.x);
}

// case: product_type_too_wide - cuBLAS is told that a matrix of bfloat16 is one of float
// expect: out-of-bounds  cublasGemmEx
CASE(product_type_too_wide)
{
    Setting s;
    const float one = 1, zero = 0;
    __nv_bfloat16 *a = device_memory<__nv_bfloat16>(M * K);
    __nv_bfloat16 *b = device_memory<__nv_bfloat16>(K * COLUMNS);
    CHECK(cublasSetStream(s.handle, s.stream));
    fill_columns_bf16<<<K, M, 0, s.stream>>>(a, M);
    fill_columns_bf16<<<COLUMNS, K, 0, s.stream>>>(b, K);
    CHECK(cudaGetLastError());
    cudaDataType_t type = BUG ? CUDA_R_32F : CUDA_R_16BF;
    CHECK(cublasGemmEx(s.handle, CUBLAS_OP_N, CUBLAS_OP_N, M, COLUMNS, K, &one, a, type, M, b, type,
                       K, &zero, s.c, CUDA_R_32F, M, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT));
    s.expect_product();
    CHECK(cudaFree(b));
    CHECK(cudaFree(a));
}

// case: product_of_nothing - a matrix that was never written
// expect: uninitialised  cublasSgemm
CASE(product_of_nothing)
{
    Setting s;
    float *a = device_memory<float>(M * K);
    CHECK(cublasSetStream(s.handle, s.stream));
    s.multiply(BUG ? a : s.a, M);
    s.expect_product();
    CHECK(cudaFree(a));
}

// case: product_of_pageable - a matrix in memory of malloc
// expect: host-pointer  cublasSgemm
CASE(product_of_pageable)
{
    Setting s;
    std::vector<float> a(M * K);
    CHECK(cudaMemcpy(a.data(), s.a, sizeof(float) * a.size(), cudaMemcpyDeviceToHost));
    CHECK(cublasSetStream(s.handle, s.stream));
    s.multiply(BUG ? a.data() : s.a, M);
    s.expect_product();
}

// case: product_of_freed - a matrix that was freed
// expect: use-after-free  cublasSgemm
CASE(product_of_freed)
{
    Setting s;
    float *a = device_numbers(M * K);
    CHECK(cudaFree(a));
    CHECK(cublasSetStream(s.handle, s.stream));
    s.multiply(BUG ? a : s.a, M);
    s.expect_product();
}

// case: handle_of_other_device - a handle of gpu 0 is given a stream of gpu 1
// expect: wrong-device  cublas  gpu 0  gpu 1
CASE(handle_of_other_device)
{
    cublasHandle_t wrong;
    CHECK(cudaSetDevice(0));
    CHECK(cublasCreate(&wrong));
    {
        Setting s(1);
        cublasHandle_t right = s.handle;
        s.handle = BUG ? wrong : right;
        CHECK(cublasSetStream(s.handle, s.stream));
        s.multiply(s.a, M);
        s.expect_product();
        s.handle = right;
    }
    CHECK(cublasDestroy(wrong));
}

// case: product_of_other_device - a matrix of gpu 0 in a product on gpu 1
// expect: wrong-device  cublasSgemm  gpu 0  gpu 1
CASE(product_of_other_device)
{
    Setting far(0), s(1);
    CHECK(cublasSetStream(s.handle, s.stream));
    s.multiply(BUG ? far.a : s.a, M);
    s.expect_product();
    CHECK(cudaSetDevice(0));
}

// case: handle_destroyed - a product with a handle that was destroyed
// expect: misuse  cublasSgemm
CASE(handle_destroyed)
{
    Setting s;
    cublasHandle_t old;
    CHECK(cublasCreate(&old));
    CHECK(cublasDestroy(old));
    CHECK(cublasSetStream(s.handle, s.stream));
    cublasHandle_t right = s.handle;
    s.handle = BUG ? old : right;
    s.multiply(s.a, M);
    s.handle = right;
    s.expect_product();
}

// case: leak_handle - a handle of cuBLAS is never destroyed
// expect: leak  cuBLAS  gpu 1
CASE(leak_handle)
{
    cublasHandle_t handle;
    CHECK(cudaSetDevice(1));
    CHECK(cublasCreate(&handle));
    EXPECT(handle != nullptr);
    if (!BUG)
        CHECK(cublasDestroy(handle));
}

/* c = relu(ab + bias) through cuBLASLt. */
static void multiply_with_bias(Setting &s, const float *bias)
{
    const float one = 1, zero = 0;
    cublasLtHandle_t light;
    cublasLtMatmulDesc_t product;
    cublasLtMatrixLayout_t a, b, c;
    cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_RELU_BIAS;
    CHECK(cublasLtCreate(&light));
    CHECK(cublasLtMatmulDescCreate(&product, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    CHECK(cublasLtMatmulDescSetAttribute(product, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue,
                                         sizeof epilogue));
    CHECK(cublasLtMatmulDescSetAttribute(product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias,
                                         sizeof bias));
    CHECK(cublasLtMatrixLayoutCreate(&a, CUDA_R_32F, M, K, M));
    CHECK(cublasLtMatrixLayoutCreate(&b, CUDA_R_32F, K, COLUMNS, K));
    CHECK(cublasLtMatrixLayoutCreate(&c, CUDA_R_32F, M, COLUMNS, M));
    CHECK(cublasLtMatmul(light, product, &one, s.a, a, s.b, b, &zero, s.c, c, s.c, c, nullptr,
                         nullptr, 0, s.stream));
    CHECK(cublasLtMatrixLayoutDestroy(c));
    CHECK(cublasLtMatrixLayoutDestroy(b));
    CHECK(cublasLtMatrixLayoutDestroy(a));
    CHECK(cublasLtMatmulDescDestroy(product));
    CHECK(cublasLtDestroy(light));
}

// case: light_bias_too_short - cuBLASLt's epilogue reads past the end of the bias
// expect: out-of-bounds  cublasLtMatmul
CASE(light_bias_too_short)
{
    Setting s;
    float *bias = device_zeros<float>(BUG ? M - 1 : M);
    multiply_with_bias(s, bias);
    s.expect_product();
    CHECK(cudaFree(bias));
}

// case: light_reads_too_early - cuBLASLt reads a bias that another stream writes
// expect: race  cublasLtMatmul  kernel fill_columns  here:fill_columns
CASE(light_reads_too_early)
{
    Setting s;
    float *bias = device_zeros<float>(M);
    fill_columns<<<1, M, 0, BUG ? s.other : s.stream>>>(bias, M, 0);
    CHECK(cudaGetLastError());
    multiply_with_bias(s, bias);
    s.expect_product();
    CHECK(cudaFree(bias));
}

// case: leak_descriptor - a matrix layout of cuBLASLt is never destroyed
// expect: leak  cuBLASLt
CASE(leak_descriptor)
{
    cublasLtMatrixLayout_t layout;
    CHECK(cublasLtMatrixLayoutCreate(&layout, CUDA_R_32F, M, K, M));
    EXPECT(layout != nullptr);
    if (!BUG)
        CHECK(cublasLtMatrixLayoutDestroy(layout));
}
