/* addresses.cu - memory that is not there, not yet written, no longer there, or elsewhere. */
#include "bug.h"

__global__ void copy(float *out, const float *in, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        out[i] = in[i]; /* here: copy */
}

__global__ void store(float *out, int first, int step, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        out[first + step * i] = i; /* here: store */
}

/* Copies n elements in a kernel, of `in` or what is given as such. */
static void copy_elements(float *out, const float *in, int n)
{
    copy<<<(n + THREADS - 1) / THREADS, THREADS>>>(out, in, n);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
}

/* A kernel that reads `in`: right where that is 0, 1, 2, ... on the device. */
static void copy_and_expect(const float *in, int n)
{
    float *out = device_zeros<float>(n);
    copy_elements(out, in, n);
    expect_line(out, n, 1, 0);
    CHECK(cudaFree(out));
}

/* A kernel that writes i to out[first + step * i], i < n. */
static void store_and_expect(float *out, int first, int step, int n)
{
    store<<<(n + THREADS - 1) / THREADS, THREADS>>>(out, first, step, n);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    EXPECT(device_value(out + first + step * (n - 1)) == n - 1);
}

// case: bounds_read - a kernel reads one element past the end
// expect: out-of-bounds  kernel copy  here:copy  gpu 0
CASE(bounds_read)
{
    float *in = device_numbers(N), *out = device_zeros<float>(2 * N);
    copy_elements(out, in, BUG ? N + 1 : N);
    expect_line(out, N, 1, 0);
    CHECK(cudaFree(in));
    CHECK(cudaFree(out));
}

// case: bounds_write - a kernel writes one element past the end
// expect: out-of-bounds  kernel store  here:store  gpu 0
CASE(bounds_write)
{
    float *out = device_memory<float>(300);
    store_and_expect(out, 0, 1, BUG ? 301 : 300);
    CHECK(cudaFree(out));
}

// case: bounds_before_start - a kernel writes before the first element
// expect: out-of-bounds  kernel store  here:store
CASE(bounds_before_start)
{
    float *out = device_memory<float>(N);
    store_and_expect(out, BUG ? N - 2 : N - 1, -1, N);
    CHECK(cudaFree(out));
}

// case: bounds_next_allocation - a kernel writes between two allocations
// expect: out-of-bounds  kernel store  here:store
CASE(bounds_next_allocation)
{
    float *first = device_memory<float>(64), *second = device_memory<float>(64);
    int gap = static_cast<int>(second - first);
    store_and_expect(first, BUG ? gap / 2 : 0, 1, BUG ? 1 : 64);
    store_and_expect(second, 0, 1, 64);
    CHECK(cudaFree(first));
    CHECK(cudaFree(second));
}

// case: pointer_wild - an address that was never anybody's
// expect: out-of-bounds  kernel copy  here:copy
CASE(pointer_wild)
{
    float *in = device_numbers(N);
    copy_and_expect(BUG ? reinterpret_cast<float *>(0xdead0000100) : in, N);
    CHECK(cudaFree(in));
}

// case: pointer_far - an element so far away that it lies in no allocation
// expect: out-of-bounds  kernel store  here:store
CASE(pointer_far)
{
    float *out = device_memory<float>(N);
    store_and_expect(out, 0, BUG ? 1 << 20 : 1, N);
    CHECK(cudaFree(out));
}

// case: pointer_null - a kernel is given a null pointer
// expect: out-of-bounds  kernel copy  here:copy
CASE(pointer_null)
{
    float *in = device_numbers(N);
    copy_and_expect(BUG ? nullptr : in, N);
    CHECK(cudaFree(in));
}

__global__ void shift_static(float *out, const float *in, int shift)
{
    __shared__ float tile[THREADS];
    int t = threadIdx.x;
    tile[t] = in[t];
    __syncthreads();
    out[t] = tile[t + shift]; /* here: shift_static */
}

// case: bounds_shared_read - a read past the end of shared memory
// expect: out-of-bounds  kernel shift_static  here:shift_static
CASE(bounds_shared_read)
{
    float *in = device_numbers(THREADS), *out = device_zeros<float>(THREADS);
    shift_static<<<1, THREADS>>>(out, in, BUG ? 1 : 0);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    expect_line(out, THREADS, 1, 0);
    CHECK(cudaFree(in));
    CHECK(cudaFree(out));
}

__global__ void through_dynamic(float *out, const float *in)
{
    extern __shared__ float dynamic_tile[];
    int t = threadIdx.x;
    dynamic_tile[t] = in[t]; /* here: through_dynamic */
    __syncthreads();
    out[t] = dynamic_tile[THREADS - 1 - t];
}

// case: bounds_shared_dynamic - a launch gives less dynamic shared memory than is used
// expect: out-of-bounds  kernel through_dynamic  here:through_dynamic
CASE(bounds_shared_dynamic)
{
    float *in = device_numbers(THREADS), *out = device_zeros<float>(THREADS);
    size_t bytes = (BUG ? THREADS - 1 : THREADS) * sizeof(float);
    through_dynamic<<<1, THREADS, bytes>>>(out, in);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    expect_line(out, THREADS, -1, THREADS - 1);
    CHECK(cudaFree(in));
    CHECK(cudaFree(out));
}

__global__ void count_kinds(int *out, const int *kinds, int n)
{
    int counts[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    for (int i = 0; i < n; ++i)
        counts[kinds[i]] += 1; /* here: count_kinds */
    for (int k = 0; k < 8; ++k)
        out[k] = counts[k];
}

// case: bounds_local - an index past the end of a thread's own array
// expect: out-of-bounds  kernel count_kinds  here:count_kinds
CASE(bounds_local)
{
    int host[4] = {3, 7, 7, BUG ? 8 : 0};
    int *kinds = device_memory<int>(4), *out = device_memory<int>(8);
    CHECK(cudaMemcpy(kinds, host, sizeof host, cudaMemcpyHostToDevice));
    count_kinds<<<1, 1>>>(out, kinds, 4);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    EXPECT(device_value(out + 7) == 2);
    EXPECT(device_value(out + 0) == 1);
    CHECK(cudaFree(kinds));
    CHECK(cudaFree(out));
}

__device__ float squares[64];

__global__ void fill_squares(int n)
{
    int t = threadIdx.x;
    if (t < n)
        squares[t] = t * t; /* here: fill_squares */
}

__global__ void read_square(float *out)
{
    *out = squares[*out > 0 ? 63 : 8];
}

// case: bounds_device_variable - a kernel writes past the end of a __device__ array
// expect: out-of-bounds  kernel fill_squares  here:fill_squares
CASE(bounds_device_variable)
{
    float *out = device_zeros<float>(1);
    fill_squares<<<1, THREADS>>>(BUG ? 65 : 64);
    read_square<<<1, 1>>>(out);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    EXPECT(device_value(out) == 64);
    CHECK(cudaFree(out));
}

// case: bounds_copy - an asynchronous copy of more bytes than its source has
// expect: out-of-bounds  cudaMemcpyAsync  source  gpu 0
CASE(bounds_copy)
{
    float *in = device_numbers(N), *out = device_zeros<float>(2 * N);
    cudaStream_t stream = new_stream();
    size_t count = BUG ? N + 1 : N;
    CHECK(cudaMemcpyAsync(out, in, count * sizeof(float), cudaMemcpyDeviceToDevice, stream));
    CHECK(cudaStreamSynchronize(stream));
    expect_line(out, N, 1, 0);
    CHECK(cudaStreamDestroy(stream));
    CHECK(cudaFree(in));
    CHECK(cudaFree(out));
}

// case: bounds_copy_pinned - a copy to the device reads past the end of pinned memory
// expect: out-of-bounds  cudaMemcpyAsync  source
CASE(bounds_copy_pinned)
{
    void *host;
    CHECK(cudaMallocHost(&host, N * sizeof(float)));
    std::memset(host, 0, N * sizeof(float));
    float *out = device_zeros<float>(2 * N);
    cudaStream_t stream = new_stream();
    size_t count = BUG ? N + 1 : N;
    CHECK(cudaMemcpyAsync(out, host, count * sizeof(float), cudaMemcpyHostToDevice, stream));
    CHECK(cudaStreamSynchronize(stream));
    expect_line(out, N, 0, 0);
    CHECK(cudaStreamDestroy(stream));
    CHECK(cudaFree(out));
    CHECK(cudaFreeHost(host));
}

// case: bounds_fill - cudaMemsetAsync of more bytes than there are
// expect: out-of-bounds  cudaMemsetAsync  here:fill  gpu 0
CASE(bounds_fill)
{
    float *out = device_numbers(N);
    cudaStream_t stream = new_stream();
    CHECK(cudaMemsetAsync(out, 0, (BUG ? N * 2 : N) * 4, stream)); /* here: fill */
    CHECK(cudaStreamSynchronize(stream));
    expect_line(out, N, 0, 0);
    CHECK(cudaStreamDestroy(stream));
    CHECK(cudaFree(out));
}

// case: bounds_fill_pinned - cudaMemset past pinned memory; a fill that is over at its return
// expect: out-of-bounds  cudaMemset  pinned
CASE(bounds_fill_pinned)
{
    void *memory;
    CHECK(cudaMallocHost(&memory, N * sizeof(float)));
    CHECK(cudaMemset(memory, 0, (BUG ? N + 1 : N) * sizeof(float)));
    EXPECT(static_cast<float *>(memory)[N - 1] == 0);
    CHECK(cudaFreeHost(memory));
}

// case: bounds_copy_host - a copy within pinned memory, which is over when the call returns
// expect: out-of-bounds  cudaMemcpyAsync  destination  pinned
CASE(bounds_copy_host)
{
    void *from, *to;
    CHECK(cudaMallocHost(&from, 2 * N * sizeof(float)));
    CHECK(cudaMallocHost(&to, N * sizeof(float)));
    std::memset(from, 0, 2 * N * sizeof(float));
    cudaStream_t stream = new_stream();
    size_t count = BUG ? N + 1 : N;
    CHECK(cudaMemcpyAsync(to, from, count * sizeof(float), cudaMemcpyHostToHost, stream));
    EXPECT(static_cast<float *>(to)[N - 1] == 0);
    CHECK(cudaStreamDestroy(stream));
    CHECK(cudaFreeHost(to));
    CHECK(cudaFreeHost(from));
}

// case: copy_onto_itself - a copy whose source and destination overlap
// expect: misuse  cudaMemcpyAsync  overlap  here:overlapping  gpu 0
CASE(copy_onto_itself)
{
    enum { ROWS = 8, PITCH = N / ROWS, HALF = PITCH / 2 };
    float *numbers = device_numbers(N);
    cudaStream_t stream = new_stream();
    /* The left half of every row to its right half: rows between each other, but apart. */
    CHECK(cudaMemcpy2DAsync(numbers + HALF, PITCH * 4, numbers, PITCH * 4, HALF * 4, ROWS,
                            cudaMemcpyDeviceToDevice, stream));
    float *to = numbers + (BUG ? N / 2 - 1 : N / 2);
    CHECK(cudaMemcpyAsync(to, numbers, N * 2, cudaMemcpyDefault, stream)); /* here: overlapping */
    CHECK(cudaStreamSynchronize(stream));
    EXPECT(device_value(numbers + HALF + 5) == 5);
    EXPECT(device_value(numbers + N / 2 + PITCH + HALF + 5) == PITCH + 5);
    CHECK(cudaStreamDestroy(stream));
    CHECK(cudaFree(numbers));
}

// case: bounds_copy_rows - the rows of a copy lie further apart than those of its target
// expect: out-of-bounds  cudaMemcpy2DAsync  gpu 0
CASE(bounds_copy_rows)
{
    enum { ROWS = 8, WIDE = 24, NARROW = 16 };
    float *in = device_numbers(ROWS * WIDE), *out = device_zeros<float>(ROWS * NARROW);
    cudaStream_t stream = new_stream();
    size_t row = NARROW * sizeof(float), wide = WIDE * sizeof(float);
    CHECK(cudaMemcpy2DAsync(out, BUG ? wide : row, in, wide, row, ROWS, cudaMemcpyDeviceToDevice,
                            stream));
    CHECK(cudaStreamSynchronize(stream));
    EXPECT(device_value(out + ROWS * NARROW - 1) == (ROWS - 1) * WIDE + NARROW - 1);
    CHECK(cudaStreamDestroy(stream));
    CHECK(cudaFree(in));
    CHECK(cudaFree(out));
}

// case: freed_in_kernel - a kernel reads memory that was freed
// expect: use-after-free  kernel copy  here:copy  gpu 0
CASE(freed_in_kernel)
{
    float *in = device_numbers(N), *out = device_zeros<float>(N);
    if (BUG)
        CHECK(cudaFree(in));
    copy_elements(out, in, N);
    expect_line(out, N, 1, 0);
    if (!BUG)
        CHECK(cudaFree(in));
    CHECK(cudaFree(out));
}

// case: freed_and_allocated_again - a stale pointer, while others have the memory or could
// expect: use-after-free  kernel copy  here:copy
CASE(freed_and_allocated_again)
{
    float *stale = device_numbers(N), *out = device_zeros<float>(N);
    CHECK(cudaFree(stale));
    float *in = device_numbers(N);
    copy_elements(out, BUG ? stale : in, N);
    expect_line(out, N, 1, 0);
    CHECK(cudaFree(in));
    CHECK(cudaFree(out));
}

// case: freed_in_copy - a copy to memory that was freed
// expect: use-after-free  cudaMemcpyAsync  gpu 0
CASE(freed_in_copy)
{
    float *in = device_numbers(N), *out = device_zeros<float>(N);
    cudaStream_t stream = new_stream();
    if (BUG)
        CHECK(cudaFree(out));
    CHECK(cudaMemcpyAsync(out, in, N * sizeof(float), cudaMemcpyDeviceToDevice, stream));
    CHECK(cudaStreamSynchronize(stream));
    expect_line(out, N, 1, 0);
    CHECK(cudaStreamDestroy(stream));
    CHECK(cudaFree(in));
    CHECK(cudaFree(out));
}

// case: freed_twice - cudaFree of what was freed
// expect: double-free  cudaFree  here:second_free
CASE(freed_twice)
{
    float *in = device_numbers(N);
    expect_line(in, N, 1, 0);
    CHECK(cudaFree(in));
    if (BUG)
        CHECK(cudaFree(in)); /* here: second_free */
    CHECK(cudaFree(nullptr));
}

// case: freed_inside - cudaFree of an address within an allocation
// expect: double-free  cudaFree
CASE(freed_inside)
{
    float *in = device_numbers(N);
    expect_line(in, N, 1, 0);
    CHECK(cudaFree(BUG ? in + 64 : in));
}

// case: freed_as_other_kind - cudaFree of pinned memory
// expect: double-free  cudaFree
CASE(freed_as_other_kind)
{
    void *host;
    CHECK(cudaMallocHost(&host, N * sizeof(float)));
    std::memset(host, 0, N * sizeof(float));
    EXPECT(*static_cast<float *>(host) == 0);
    if (BUG)
        CHECK(cudaFree(host));
    else
        CHECK(cudaFreeHost(host));
}

// case: freed_from_malloc - cudaFreeHost of memory of malloc
// expect: double-free  cudaFreeHost
CASE(freed_from_malloc)
{
    void *pageable = std::malloc(64), *pinned;
    CHECK(cudaMallocHost(&pinned, 64));
    CHECK(cudaFreeHost(BUG ? pageable : pinned));
    EXPECT(pageable != nullptr);
    std::free(pageable);
}

// case: host_reads_device - the host dereferences a device pointer
// expect: host-access  here:host_read  gpu 0
CASE(host_reads_device)
{
    float *in = device_numbers(N);
    float value = BUG ? in[5] : device_value(in + 5); /* here: host_read */
    EXPECT(value == 5);
    CHECK(cudaFree(in));
}

// case: host_writes_device - the host fills device memory with memset
// expect: host-access  gpu 1
CASE(host_writes_device)
{
    CHECK(cudaSetDevice(1));
    float *in = device_numbers(N);
    if (BUG)
        std::memset(in, 0, N * sizeof(float));
    else
        CHECK(cudaMemset(in, 0, N * sizeof(float)));
    CHECK(cudaDeviceSynchronize());
    EXPECT(device_value(in + 5) == 0);
    CHECK(cudaFree(in));
}

// case: kernel_reads_pageable - a kernel is given a pointer of malloc
// expect: host-pointer  kernel copy  here:copy
CASE(kernel_reads_pageable)
{
    float *pageable = static_cast<float *>(std::malloc(N * sizeof(float)));
    void *pinned;
    CHECK(cudaMallocHost(&pinned, N * sizeof(float)));
    float *numbers = BUG ? pageable : static_cast<float *>(pinned);
    for (int i = 0; i < N; ++i)
        numbers[i] = static_cast<float>(i);
    copy_and_expect(numbers, N);
    CHECK(cudaFreeHost(pinned));
    std::free(pageable);
}

__global__ void copy_vectors(float4 *out, const float4 *in)
{
    out[threadIdx.x] = in[threadIdx.x]; /* here: copy_vectors */
}

// case: misaligned_vector - a float4 is read at an address that 16 does not divide
// expect: misaligned  kernel copy_vectors  here:copy_vectors
CASE(misaligned_vector)
{
    float *in = device_numbers(N), *out = device_zeros<float>(N);
    const float *from = in + (BUG ? 1 : 4);
    copy_vectors<<<1, 32>>>(reinterpret_cast<float4 *>(out),
                            reinterpret_cast<const float4 *>(from));
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    expect_line(out, 128, 1, 4);
    CHECK(cudaFree(in));
    CHECK(cudaFree(out));
}

__global__ void store_double(double *out)
{
    out[threadIdx.x] = threadIdx.x; /* here: store_double */
}

// case: misaligned_double - a double is written at an address that 8 does not divide
// expect: misaligned  kernel store_double  here:store_double
CASE(misaligned_double)
{
    float *out = device_zeros<float>(N);
    store_double<<<1, 32>>>(reinterpret_cast<double *>(out + (BUG ? 3 : 2)));
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    EXPECT(device_value(reinterpret_cast<double *>(out + 2) + 31) == 31);
    CHECK(cudaFree(out));
}

// case: uninitialised_global - a kernel reads what was never written
// expect: uninitialised  kernel copy  here:copy  gpu 0
CASE(uninitialised_global)
{
    float *in = BUG ? device_memory<float>(N) : device_numbers(N);
    copy_and_expect(in, N);
    CHECK(cudaFree(in));
}

// case: uninitialised_tail - a copy has filled all but the last element
// expect: uninitialised  kernel copy  here:copy
CASE(uninitialised_tail)
{
    float *numbers = device_numbers(N), *in = device_memory<float>(N);
    size_t count = BUG ? N - 1 : N;
    CHECK(cudaMemcpyAsync(in, numbers, count * sizeof(float), cudaMemcpyDeviceToDevice, 0));
    copy_and_expect(in, N);
    CHECK(cudaFree(in));
    CHECK(cudaFree(numbers));
}

__global__ void half_filled(float *out, const float *in, int filled)
{
    __shared__ float tile[THREADS];
    int t = threadIdx.x;
    if (t < filled)
        tile[t] = in[t];
    __syncthreads();
    out[t] = tile[THREADS - 1 - t]; /* here: half_filled */
}

// case: uninitialised_shared - a kernel reads shared memory that no thread has written
// expect: uninitialised  kernel half_filled  here:half_filled
CASE(uninitialised_shared)
{
    float *in = device_numbers(THREADS), *out = device_zeros<float>(THREADS);
    half_filled<<<1, THREADS>>>(out, in, THREADS);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    half_filled<<<1, THREADS>>>(out, in, BUG ? THREADS / 2 : THREADS);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    expect_line(out, THREADS, -1, THREADS - 1);
    CHECK(cudaFree(in));
    CHECK(cudaFree(out));
}

// case: uninitialised_copy - a copy to the host of what was never written
// expect: uninitialised  cudaMemcpy  gpu 0
CASE(uninitialised_copy)
{
    float *in = BUG ? device_memory<float>(N) : device_numbers(N);
    expect_line(in, N, 1, 0);
    CHECK(cudaFree(in));
}

// case: uninitialised_again - memory freed and allocated again holds nothing
// expect: uninitialised  kernel copy  here:copy
CASE(uninitialised_again)
{
    float *in = device_numbers(N);
    expect_line(in, N, 1, 0);
    if (BUG) {
        CHECK(cudaFree(in));
        in = device_memory<float>(N);
    }
    copy_and_expect(in, N);
    CHECK(cudaFree(in));
}
