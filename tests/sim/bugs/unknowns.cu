/* unknowns.cu - calls and an instruction that are not simulated, and what can be instead. */
#include <cublas_v2.h>
#include <nccl.h>

#include "bug.h"

__global__ void scale(float *out, const float *in, float factor)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    out[i] = factor * in[i];
}

/* out (8 x 8) = a (8 x 4) times b (4 x 8), all of it ones, in double, by a warp. */
__global__ void product_of_ones(float *out)
{
    double c[2] = {0, 0};
    asm volatile("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0, %1}, {%2}, {%2}, {%0, %1};"
                 : "+d"(c[0]), "+d"(c[1])
                 : "d"(1.0)); /* here: mma */
    for (int i = 0; i < 2; ++i)
        out[threadIdx.x * 2 + i] = (float)c[i];
}

__global__ void sum_of_ones(float *out)
{
    for (int i = 0; i < 2; ++i)
        out[threadIdx.x * 2 + i] = 4;
}

// case: unknown_instruction - tensor cores, in double
// expect: unknown  mma.sync  kernel product_of_ones
CASE(unknown_instruction)
{
    float *out = device_zeros<float>(64);
    if (BUG)
        product_of_ones<<<1, 32>>>(out);
    else
        sum_of_ones<<<1, 32>>>(out);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    expect_line(out, 64, 0, 4);
    CHECK(cudaFree(out));
}

// case: unknown_runtime_call - an array for textures
// expect: unknown  cudaMallocArray
CASE(unknown_runtime_call)
{
    float *in = device_numbers(N), *out = device_zeros<float>(N);
    if (BUG) {
        cudaArray_t array;
        cudaChannelFormatDesc format = cudaCreateChannelDesc<float>();
        CHECK(cudaMallocArray(&array, &format, N, 0, 0));
        CHECK(cudaFreeArray(array));
    }
    scale<<<BLOCKS, THREADS>>>(out, in, 1);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    expect_line(out, N, 1, 0);
    CHECK(cudaFree(out));
    CHECK(cudaFree(in));
}

// case: unknown_product - a function of cuBLAS that is not there
// expect: unknown  cublasSsyrk
CASE(unknown_product)
{
    enum { ROWS = 8 };
    float *a = device_zeros<float>(ROWS * ROWS), *c = device_zeros<float>(ROWS * ROWS);
    const float one = 1, zero = 0;
    cublasHandle_t handle;
    CHECK(cublasCreate(&handle));
    if (BUG)
        CHECK(cublasSsyrk(handle, CUBLAS_FILL_MODE_LOWER, CUBLAS_OP_N, ROWS, ROWS, &one, a, ROWS,
                          &zero, c, ROWS));
    else
        CHECK(cublasSgemm(handle, CUBLAS_OP_N, CUBLAS_OP_T, ROWS, ROWS, ROWS, &one, a, ROWS, a,
                          ROWS, &zero, c, ROWS));
    CHECK(cudaDeviceSynchronize());
    expect_line(c, ROWS * ROWS, 0, 0);
    CHECK(cublasDestroy(handle));
    CHECK(cudaFree(c));
    CHECK(cudaFree(a));
}

// case: unknown_message - a function of NCCL that is not there
// expect: unknown  ncclRedOpCreatePreMulSum
CASE(unknown_message)
{
    int devices[1] = {0};
    ncclComm_t comm;
    float factor = 0.5f, *a = device_numbers(N);
    ncclRedOp_t operation = ncclSum;
    CHECK(ncclCommInitAll(&comm, 1, devices));
    if (BUG)
        CHECK(ncclRedOpCreatePreMulSum(&operation, &factor, ncclFloat, ncclScalarHostImmediate,
                                       comm));
    CHECK(ncclAllReduce(a, a, N, ncclFloat, operation, comm, 0));
    CHECK(cudaDeviceSynchronize());
    expect_line(a, N, 1, 0);
    if (BUG)
        CHECK(ncclRedOpDestroy(operation, comm));
    CHECK(ncclCommDestroy(comm));
    CHECK(cudaFree(a));
}
