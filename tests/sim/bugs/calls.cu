/* calls.cu - calls that fail unnoticed, destroyed handles, and what is left at the end. */
#include "bug.h"

__global__ void produce(float *out, float start)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    out[i] = i + start;
}

__global__ void reverse_much(float *out, int n)
{
    extern __shared__ float much[];
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        much[i] = i;
    __syncthreads();
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        out[i] = much[n - 1 - i];
}

__global__ void check_positive(float *out, const float *in)
{
    int i = threadIdx.x;
    if (in[i] < 0)
        __trap(); /* here: trap */
    out[i] = in[i];
}

// case: launch_of_many_threads - 2048 threads in a block, and nobody looks at the error
// expect: after-failure  produce  here:many_threads
CASE(launch_of_many_threads)
{
    float *out = device_zeros<float>(2048);
    produce<<<BUG ? 1 : 2, BUG ? 2048 : 1024>>>(out, 1); /* here: many_threads */
    CHECK(cudaDeviceSynchronize());
    expect_line(out, 2048, 1, 1);
    CHECK(cudaFree(out));
}

// case: launch_of_no_blocks - a grid of 0 blocks is an error, not nothing
// expect: after-failure  produce
CASE(launch_of_no_blocks)
{
    float *out = device_numbers(N);
    int elements = BUG ? 0 : N;
    produce<<<elements / THREADS, THREADS>>>(out, 0);
    CHECK(cudaDeviceSynchronize());
    expect_line(out, N, 1, 0);
    CHECK(cudaFree(out));
}

// case: launch_with_much_shared - 64 KiB of shared memory that nobody asked for first
// expect: after-failure  reverse_much
CASE(launch_with_much_shared)
{
    enum { MUCH = 16384 };
    float *out = device_zeros<float>(MUCH);
    int bytes = MUCH * static_cast<int>(sizeof(float));
    if (!BUG)
        CHECK(
            cudaFuncSetAttribute(reverse_much, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    reverse_much<<<1, THREADS, static_cast<size_t>(bytes)>>>(out, MUCH);
    CHECK(cudaDeviceSynchronize());
    expect_line(out, MUCH, -1, MUCH - 1);
    CHECK(cudaFree(out));
}

// case: memory_exhausted - cudaMalloc of more than there is fails, and the program goes on
// expect: after-failure  cudaMalloc  here:malloc_fails
CASE(memory_exhausted)
{
    void *huge = nullptr;
    float *out = device_zeros<float>(N);
    cudaError_t status = cudaMalloc(&huge, size_t(1) << 46); /* here: malloc_fails */
    if (!BUG) {
        EXPECT(status == cudaErrorMemoryAllocation);
        EXPECT(cudaGetLastError() == cudaErrorMemoryAllocation);
        EXPECT(cudaGetLastError() == cudaSuccess);
    }
    produce<<<BLOCKS, THREADS>>>(out, 1);
    CHECK(cudaDeviceSynchronize());
    expect_line(out, N, 1, 1);
    CHECK(cudaFree(out));
}

// case: kernel_traps - a kernel stops itself
// expect: misuse  kernel check_positive  here:trap
CASE(kernel_traps)
{
    float *in = device_numbers(N), *out = device_zeros<float>(THREADS);
    if (BUG)
        CHECK(cudaMemset(in + 9, 0xbf, sizeof(float)));
    check_positive<<<1, THREADS>>>(out, in);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    expect_line(out, THREADS, 1, 0);
    CHECK(cudaFree(in));
    CHECK(cudaFree(out));
}

// case: stream_destroyed - a launch into a stream that was destroyed
// expect: misuse  produce  stream
CASE(stream_destroyed)
{
    float *out = device_zeros<float>(N);
    cudaStream_t stream = new_stream();
    if (BUG)
        CHECK(cudaStreamDestroy(stream));
    produce<<<BLOCKS, THREADS, 0, stream>>>(out, 1);
    if (!BUG)
        CHECK(cudaStreamDestroy(stream));
    CHECK(cudaDeviceSynchronize());
    expect_line(out, N, 1, 1);
    CHECK(cudaFree(out));
}

// case: stream_destroyed_twice - the same handle
// expect: misuse  cudaStreamDestroy
CASE(stream_destroyed_twice)
{
    cudaStream_t stream = new_stream();
    EXPECT(stream != nullptr);
    CHECK(cudaStreamDestroy(stream));
    if (BUG)
        CHECK(cudaStreamDestroy(stream));
}

// case: event_destroyed - a record of an event that was destroyed
// expect: misuse  cudaEventRecord  here:dead_record
CASE(event_destroyed)
{
    cudaStream_t stream = new_stream();
    cudaEvent_t event = new_event();
    if (BUG)
        CHECK(cudaEventDestroy(event));
    CHECK(cudaEventRecord(event, stream)); /* here: dead_record */
    CHECK(cudaEventSynchronize(event));
    EXPECT(cudaEventQuery(event) == cudaSuccess);
    CHECK(cudaEventDestroy(event));
    CHECK(cudaStreamDestroy(stream));
}

// case: leak_memory - device memory is never freed
// expect: leak  4096 bytes  here:leak_memory  gpu 1
CASE(leak_memory)
{
    CHECK(cudaSetDevice(1));
    void *memory;
    CHECK(cudaMalloc(&memory, 4096)); /* here: leak_memory */
    EXPECT(memory != nullptr);
    if (!BUG)
        CHECK(cudaFree(memory));
}

// case: leak_pinned_memory - pinned memory is never freed
// expect: leak  pinned  2048 bytes
CASE(leak_pinned_memory)
{
    void *host;
    CHECK(cudaMallocHost(&host, 2048));
    EXPECT(host != nullptr);
    if (!BUG)
        CHECK(cudaFreeHost(host));
}

// case: leak_stream - a stream is never destroyed
// expect: leak  stream  gpu 1
CASE(leak_stream)
{
    CHECK(cudaSetDevice(1));
    cudaStream_t stream = new_stream();
    CHECK(cudaStreamSynchronize(stream));
    EXPECT(cudaStreamQuery(stream) == cudaSuccess);
    if (!BUG)
        CHECK(cudaStreamDestroy(stream));
}

// case: leak_event - an event is never destroyed
// expect: leak  event  gpu 0
CASE(leak_event)
{
    cudaEvent_t event = new_event();
    CHECK(cudaEventRecord(event, 0));
    CHECK(cudaDeviceSynchronize());
    EXPECT(cudaEventQuery(event) == cudaSuccess);
    if (!BUG)
        CHECK(cudaEventDestroy(event));
}

static void CUDART_CB add_one(void *counter)
{
    *static_cast<int *>(counter) += 1;
}

static void CUDART_CB allocate(void *counter)
{
    void *memory;
    CHECK(cudaMalloc(&memory, 64));
    add_one(counter);
}

// case: host_function_calls_cuda - a host function in a stream allocates memory
// expect: misuse  cudaMalloc  host function
CASE(host_function_calls_cuda)
{
    int counter = 0;
    cudaStream_t stream = new_stream();
    CHECK(cudaLaunchHostFunc(stream, add_one, &counter));
    CHECK(cudaLaunchHostFunc(stream, BUG ? allocate : add_one, &counter));
    CHECK(cudaStreamSynchronize(stream));
    EXPECT(counter == 2);
    CHECK(cudaStreamDestroy(stream));
}
