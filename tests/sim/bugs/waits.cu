/* waits.cu - work of several streams of one device that nothing orders, and the host. */
#include "bug.h"

#include <atomic>
#include <semaphore.h>

__global__ void produce(float *out, float start)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    out[i] = i + start; /* here: produce */
}

__global__ void consume(float *out, const float *in)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    out[i] = 2 * in[i]; /* here: consume */
}

__global__ void overwrite(float *out)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    out[i] = -i; /* here: overwrite */
}

__global__ void write_halves(unsigned short *out, int odd)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    out[2 * i + odd] = i; /* here: write_halves */
}

/* Two arrays of zeros, two streams, two events. */
struct Setting {
    float *a, *b;
    cudaStream_t first, second;
    cudaEvent_t event, other;

    Setting()
        : a(device_zeros<float>(N)), b(device_zeros<float>(N)), first(new_stream()),
          second(new_stream()), event(new_event()), other(new_event())
    {
    }
    ~Setting()
    {
        CHECK(cudaEventDestroy(other));
        CHECK(cudaEventDestroy(event));
        CHECK(cudaStreamDestroy(second));
        CHECK(cudaStreamDestroy(first));
        CHECK(cudaFree(b));
        CHECK(cudaFree(a));
    }
};

static float *pinned_numbers()
{
    void *memory;
    CHECK(cudaMallocHost(&memory, N * sizeof(float)));
    float *numbers = static_cast<float *>(memory);
    for (int i = 0; i < N; ++i)
        numbers[i] = static_cast<float>(i);
    return numbers;
}

// case: wait_read_after_write - the reader's stream does not wait for the writer's
// expect: race  kernel consume  here:consume  kernel produce  here:produce  gpu 0
CASE(wait_read_after_write)
{
    Setting s;
    produce<<<BLOCKS, THREADS, 0, s.first>>>(s.a, 1);
    CHECK(cudaEventRecord(s.event, s.first));
    if (!BUG)
        CHECK(cudaStreamWaitEvent(s.second, s.event, 0));
    consume<<<BLOCKS, THREADS, 0, s.second>>>(s.b, s.a);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    expect_line(s.b, N, 2, 2);
}

// case: wait_write_after_read - what a stream still reads is overwritten by another
// expect: race  kernel consume  here:consume  kernel overwrite  here:overwrite  gpu 0
CASE(wait_write_after_read)
{
    Setting s;
    consume<<<BLOCKS, THREADS, 0, s.first>>>(s.b, s.a);
    CHECK(cudaEventRecord(s.event, s.first));
    if (!BUG)
        CHECK(cudaStreamWaitEvent(s.second, s.event, 0));
    overwrite<<<BLOCKS, THREADS, 0, s.second>>>(s.a);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    expect_line(s.b, N, 0, 0);
    expect_line(s.a, N, -1, 0);
}

// case: wait_write_after_write - two streams write the same
// expect: race  kernel produce  here:produce  kernel overwrite  here:overwrite  gpu 0
CASE(wait_write_after_write)
{
    Setting s;
    produce<<<BLOCKS, THREADS, 0, s.first>>>(s.a, 1);
    CHECK(cudaEventRecord(s.event, s.first));
    if (!BUG)
        CHECK(cudaStreamWaitEvent(s.second, s.event, 0));
    overwrite<<<BLOCKS, THREADS, 0, s.second>>>(s.a);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    expect_line(s.a, N, -1, 0);
}

// case: wait_in_wrong_stream - the producer's stream waits for its own event
// expect: race  kernel consume  here:consume  kernel produce  here:produce
CASE(wait_in_wrong_stream)
{
    Setting s;
    produce<<<BLOCKS, THREADS, 0, s.first>>>(s.a, 1);
    CHECK(cudaEventRecord(s.event, s.first));
    CHECK(cudaStreamWaitEvent(BUG ? s.first : s.second, s.event, 0));
    consume<<<BLOCKS, THREADS, 0, s.second>>>(s.b, s.a);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    expect_line(s.b, N, 2, 2);
}

// case: record_too_early - the event is recorded before the work it stands for
// expect: race  kernel consume  here:consume  kernel produce  here:produce
CASE(record_too_early)
{
    Setting s;
    if (BUG)
        CHECK(cudaEventRecord(s.event, s.first));
    produce<<<BLOCKS, THREADS, 0, s.first>>>(s.a, 1);
    if (!BUG)
        CHECK(cudaEventRecord(s.event, s.first));
    CHECK(cudaStreamWaitEvent(s.second, s.event, 0));
    consume<<<BLOCKS, THREADS, 0, s.second>>>(s.b, s.a);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    expect_line(s.b, N, 2, 2);
}

// case: record_missing - the second turn waits for the first turn's record
// expect: race  kernel consume  here:consume  kernel produce  here:produce
CASE(record_missing)
{
    Setting s;
    for (int turn = 0; turn < 2; ++turn) {
        if (turn > 0)
            CHECK(cudaStreamWaitEvent(s.first, s.other, 0));
        produce<<<BLOCKS, THREADS, 0, s.first>>>(s.a, turn);
        if (!BUG || turn == 0)
            CHECK(cudaEventRecord(s.event, s.first));
        CHECK(cudaStreamWaitEvent(s.second, s.event, 0));
        consume<<<BLOCKS, THREADS, 0, s.second>>>(s.b, s.a);
        CHECK(cudaEventRecord(s.other, s.second));
        CHECK(cudaGetLastError());
    }
    CHECK(cudaDeviceSynchronize());
    expect_line(s.b, N, 2, 2);
}

// case: event_never_recorded - a wait for an event that nobody has recorded
// expect: misuse  cudaStreamWaitEvent  event
CASE(event_never_recorded)
{
    Setting s;
    produce<<<BLOCKS, THREADS, 0, s.first>>>(s.a, 1);
    if (!BUG)
        CHECK(cudaEventRecord(s.event, s.first));
    CHECK(cudaStreamWaitEvent(s.second, s.event, 0));
    consume<<<BLOCKS, THREADS, 0, s.second>>>(s.b, s.a);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    expect_line(s.b, N, 2, 2);
}

// case: chain_broken - of three streams in a row the middle one passes on too little
// expect: race  kernel consume  here:consume  kernel produce  here:produce
CASE(chain_broken)
{
    Setting s;
    cudaStream_t third = new_stream();
    produce<<<BLOCKS, THREADS, 0, s.first>>>(s.a, 1);
    CHECK(cudaEventRecord(s.event, s.first));
    if (!BUG)
        CHECK(cudaStreamWaitEvent(s.second, s.event, 0));
    CHECK(cudaEventRecord(s.other, s.second));
    if (BUG)
        CHECK(cudaStreamWaitEvent(s.second, s.event, 0));
    CHECK(cudaStreamWaitEvent(third, s.other, 0));
    consume<<<BLOCKS, THREADS, 0, third>>>(s.b, s.a);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    expect_line(s.b, N, 2, 2);
    CHECK(cudaStreamDestroy(third));
}

// case: ring_reused_early - a slot of a ring is filled again before it was consumed
// expect: race  kernel consume  here:consume  kernel produce  here:produce
CASE(ring_reused_early)
{
    enum { SLOTS = 2, TURNS = 6 };
    Setting s;
    float *out = device_zeros<float>(TURNS * N);
    float *slots[SLOTS] = {s.a, s.b};
    cudaEvent_t filled[SLOTS] = {new_event(), new_event()};
    cudaEvent_t emptied[SLOTS] = {new_event(), new_event()};
    for (int turn = 0; turn < TURNS; ++turn) {
        int slot = turn % SLOTS;
        if (!BUG && turn >= SLOTS)
            CHECK(cudaStreamWaitEvent(s.first, emptied[slot], 0));
        produce<<<BLOCKS, THREADS, 0, s.first>>>(slots[slot], turn);
        CHECK(cudaEventRecord(filled[slot], s.first));
        CHECK(cudaStreamWaitEvent(s.second, filled[slot], 0));
        consume<<<BLOCKS, THREADS, 0, s.second>>>(out + turn * N, slots[slot]);
        CHECK(cudaEventRecord(emptied[slot], s.second));
        CHECK(cudaGetLastError());
    }
    CHECK(cudaDeviceSynchronize());
    for (int turn = 0; turn < TURNS; ++turn)
        expect_line(out + turn * N, N, 2, 2.0f * static_cast<float>(turn));
    for (int slot = 0; slot < SLOTS; ++slot) {
        CHECK(cudaEventDestroy(filled[slot]));
        CHECK(cudaEventDestroy(emptied[slot]));
    }
    CHECK(cudaFree(out));
}

// case: fill_in_other_stream - cudaMemsetAsync in a stream that the reader does not wait for
// expect: race  cudaMemsetAsync  kernel consume  here:consume
CASE(fill_in_other_stream)
{
    Setting s;
    CHECK(cudaMemsetAsync(s.a, 0, N * sizeof(float), BUG ? s.first : s.second));
    consume<<<BLOCKS, THREADS, 0, s.second>>>(s.b, s.a);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    expect_line(s.b, N, 0, 0);
}

// case: fill_in_null_stream - cudaMemset does not wait, nor do non-blocking streams for it
// expect: race  cudaMemset  kernel consume  here:consume
CASE(fill_in_null_stream)
{
    Setting s;
    CHECK(cudaMemset(s.a, 0, N * sizeof(float)));
    if (!BUG)
        CHECK(cudaDeviceSynchronize());
    consume<<<BLOCKS, THREADS, 0, s.second>>>(s.b, s.a);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    expect_line(s.b, N, 0, 0);
}

// case: null_stream_not_awaited - a non-blocking stream is not ordered with the NULL stream
// expect: race  kernel consume  here:consume  kernel produce  here:produce
CASE(null_stream_not_awaited)
{
    Setting s;
    cudaStream_t stream;
    if (BUG)
        CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    else
        CHECK(cudaStreamCreate(&stream));
    produce<<<BLOCKS, THREADS>>>(s.a, 1);
    consume<<<BLOCKS, THREADS, 0, stream>>>(s.b, s.a);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    expect_line(s.b, N, 2, 2);
    CHECK(cudaStreamDestroy(stream));
}

// case: upload_not_awaited - the kernel's stream does not wait for the copy to the device
// expect: race  cudaMemcpyAsync  kernel consume  here:consume
CASE(upload_not_awaited)
{
    Setting s;
    float *host = pinned_numbers();
    CHECK(cudaMemcpyAsync(s.a, host, N * sizeof(float), cudaMemcpyHostToDevice, s.first));
    CHECK(cudaEventRecord(s.event, s.first));
    if (!BUG)
        CHECK(cudaStreamWaitEvent(s.second, s.event, 0));
    consume<<<BLOCKS, THREADS, 0, s.second>>>(s.b, s.a);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    expect_line(s.b, N, 2, 0);
    CHECK(cudaFreeHost(host));
}

// case: upload_source_changed - the host changes the source of a copy that is pending
// expect: host-race  cudaMemcpyAsync  here:upload  gpu 0
CASE(upload_source_changed)
{
    Setting s;
    float *host = pinned_numbers();
    CHECK(cudaMemcpyAsync(s.a, host, 4 * N, cudaMemcpyHostToDevice, s.first)); /* here: upload */
    if (!BUG)
        CHECK(cudaStreamSynchronize(s.first));
    host[7] = -1;
    CHECK(cudaStreamSynchronize(s.first));
    expect_line(s.a, N, 1, 0);
    CHECK(cudaFreeHost(host));
}

// case: download_not_awaited - a kernel reads from the host what another stream copies there
// expect: race  cudaMemcpyAsync  kernel consume  here:consume
CASE(download_not_awaited)
{
    Setting s;
    float *host = pinned_numbers();
    CHECK(cudaMemcpyAsync(host, s.a, N * sizeof(float), cudaMemcpyDeviceToHost, s.first));
    CHECK(cudaEventRecord(s.event, s.first));
    if (!BUG)
        CHECK(cudaStreamWaitEvent(s.second, s.event, 0));
    consume<<<BLOCKS, THREADS, 0, s.second>>>(s.b, host);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    expect_line(s.b, N, 0, 0);
    EXPECT(host[N - 1] == 0);
    CHECK(cudaFreeHost(host));
}

// case: copy_not_awaited - a copy within the device reads what another stream writes
// expect: race  cudaMemcpyAsync  kernel produce  here:produce
CASE(copy_not_awaited)
{
    Setting s;
    produce<<<BLOCKS, THREADS, 0, s.first>>>(s.a, 1);
    CHECK(cudaMemcpyAsync(s.b, s.a, N * sizeof(float), cudaMemcpyDeviceToDevice,
                          BUG ? s.second : s.first));
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    expect_line(s.b, N, 1, 1);
}

// case: copies_overlap - two copies, of which nothing orders one that reads the other's target
// expect: race  cudaMemcpyAsync  here:copy_up  here:copy_along
CASE(copies_overlap)
{
    Setting s;
    float *host = pinned_numbers(), *from = s.a + N / 2;
    CHECK(cudaMemcpyAsync(s.a, host, 4 * N, cudaMemcpyHostToDevice, s.first)); /* here: copy_up */
    CHECK(cudaEventRecord(s.event, s.first));
    if (!BUG)
        CHECK(cudaStreamWaitEvent(s.second, s.event, 0));
    cudaMemcpyKind kind = cudaMemcpyDeviceToDevice;
    CHECK(cudaMemcpyAsync(s.b, from, 2 * N, kind, s.second)); /* here: copy_along */
    CHECK(cudaDeviceSynchronize());
    expect_line(s.b, N / 2, 1, N / 2);
    CHECK(cudaFreeHost(host));
}

// case: host_waits_for_wrong_stream - the host waits, but not for the producer
// expect: race  kernel consume  here:consume  kernel produce  here:produce
CASE(host_waits_for_wrong_stream)
{
    Setting s;
    produce<<<BLOCKS, THREADS, 0, s.first>>>(s.a, 1);
    CHECK(cudaStreamSynchronize(BUG ? s.second : s.first));
    consume<<<BLOCKS, THREADS, 0, s.second>>>(s.b, s.a);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    expect_line(s.b, N, 2, 2);
}

// case: host_polls_wrong_event - the host polls an event, but one that says nothing
// expect: race  kernel consume  here:consume  kernel produce  here:produce
CASE(host_polls_wrong_event)
{
    Setting s;
    CHECK(cudaEventRecord(s.other, s.first));
    produce<<<BLOCKS, THREADS, 0, s.first>>>(s.a, 1);
    CHECK(cudaEventRecord(s.event, s.first));
    cudaError_t status;
    while ((status = cudaEventQuery(BUG ? s.other : s.event)) == cudaErrorNotReady)
        continue;
    CHECK(status);
    consume<<<BLOCKS, THREADS, 0, s.second>>>(s.b, s.a);
    CHECK(cudaGetLastError());
    CHECK(cudaEventSynchronize(s.event));
    CHECK(cudaStreamSynchronize(s.second));
    expect_line(s.b, N, 2, 2);
}

// case: halves_of_a_word - two streams write different 16-bit halves, or the same ones
// expect: race  kernel write_halves  here:write_halves
CASE(halves_of_a_word)
{
    Setting s;
    unsigned short *halves = device_zeros<unsigned short>(2 * N);
    write_halves<<<BLOCKS, THREADS, 0, s.first>>>(halves, 0);
    write_halves<<<BLOCKS, THREADS, 0, s.second>>>(halves, BUG ? 0 : 1);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    EXPECT(device_value(halves + 2 * N - 2) == N - 1);
    EXPECT(device_value(halves + 2 * N - 1) == N - 1);
    CHECK(cudaFree(halves));
}

// case: freed_too_early - a stream frees what another stream still reads
// expect: race|use-after-free  kernel consume  here:consume
CASE(freed_too_early)
{
    Setting s;
    void *memory;
    CHECK(cudaMallocAsync(&memory, N * sizeof(float), s.first));
    float *scratch = static_cast<float *>(memory);
    produce<<<BLOCKS, THREADS, 0, s.first>>>(scratch, 1);
    CHECK(cudaEventRecord(s.event, s.first));
    CHECK(cudaStreamWaitEvent(s.second, s.event, 0));
    consume<<<BLOCKS, THREADS, 0, s.second>>>(s.b, scratch);
    CHECK(cudaGetLastError());
    CHECK(cudaEventRecord(s.other, s.second));
    if (!BUG)
        CHECK(cudaStreamWaitEvent(s.first, s.other, 0));
    CHECK(cudaFreeAsync(scratch, s.first));
    CHECK(cudaDeviceSynchronize());
    expect_line(s.b, N, 2, 2);
}

// case: upload_of_pageable - a copy from memory of malloc may go on after its call has returned
// expect: race  cudaMemcpy  here:plain  kernel consume  here:consume
CASE(upload_of_pageable)
{
    Setting s;
    std::vector<float> numbers(N);
    for (int i = 0; i < N; ++i)
        numbers[i] = static_cast<float>(i);
    CHECK(cudaMemcpy(s.a, numbers.data(), N * sizeof(float), cudaMemcpyDefault)); /* here: plain */
    if (!BUG)
        CHECK(cudaStreamSynchronize(nullptr));
    consume<<<BLOCKS, THREADS, 0, s.second>>>(s.b, s.a);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    expect_line(s.b, N, 2, 0);
}

// case: download_to_pageable - an asynchronous copy to memory of malloc need not be over either
// expect: race  cudaMemcpyAsync  kernel overwrite  here:overwrite
CASE(download_to_pageable)
{
    Setting s;
    std::vector<float> numbers(N, 1);
    CHECK(cudaMemcpyAsync(numbers.data(), s.a, N * sizeof(float), cudaMemcpyDeviceToHost, s.first));
    if (!BUG)
        CHECK(cudaStreamSynchronize(s.first));
    overwrite<<<BLOCKS, THREADS, 0, s.second>>>(s.a);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    EXPECT(numbers[7] == 0);
}

// case: allocated_in_other_stream - memory is used before the stream that allocates it has it
// expect: race  kernel produce  here:produce  cudaMallocAsync  here:allocation
CASE(allocated_in_other_stream)
{
    Setting s;
    void *memory;
    CHECK(cudaMallocAsync(&memory, N * sizeof(float), s.first)); /* here: allocation */
    float *scratch = static_cast<float *>(memory);
    CHECK(cudaEventRecord(s.event, s.first));
    if (!BUG)
        CHECK(cudaStreamWaitEvent(s.second, s.event, 0));
    produce<<<BLOCKS, THREADS, 0, s.second>>>(scratch, 1);
    CHECK(cudaGetLastError());
    CHECK(cudaStreamSynchronize(s.second));
    expect_line(scratch, N, 1, 1);
    CHECK(cudaFreeAsync(scratch, s.second));
}

// case: allocated_before_fill - the same, where the first use is no kernel
// expect: race  cudaMemsetAsync  here:early_fill  cudaMallocAsync
CASE(allocated_before_fill)
{
    Setting s;
    void *memory;
    CHECK(cudaMallocAsync(&memory, N * sizeof(float), s.first));
    if (!BUG)
        CHECK(cudaStreamSynchronize(s.first));
    CHECK(cudaMemsetAsync(memory, 0, N * sizeof(float), s.second)); /* here: early_fill */
    CHECK(cudaStreamSynchronize(s.second));
    expect_line(static_cast<float *>(memory), N, 0, 0);
    CHECK(cudaFree(memory));
}

static void CUDART_CB post(void *semaphore)
{
    sem_post(static_cast<sem_t *>(semaphore));
}

// case: host_function_not_awaited - the host does not wait for what a host function says
// expect: race  kernel produce  here:produce  kernel consume  here:consume
CASE(host_function_not_awaited)
{
    Setting s;
    sem_t done;
    sem_init(&done, 0, 0);
    produce<<<BLOCKS, THREADS, 0, s.first>>>(s.a, 1);
    CHECK(cudaGetLastError());
    CHECK(cudaLaunchHostFunc(s.first, post, &done));
    if (!BUG)
        sem_wait(&done);
    consume<<<BLOCKS, THREADS, 0, s.second>>>(s.b, s.a);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    expect_line(s.b, N, 2, 2);
    sem_destroy(&done);
}

static void CUDART_CB raise_flag(void *flag)
{
    static_cast<std::atomic<bool> *>(flag)->store(true);
}

// case: host_function_not_polled - the same with a flag, for which the host spins
// expect: race  kernel produce  here:produce  kernel consume  here:consume
CASE(host_function_not_polled)
{
    Setting s;
    std::atomic<bool> done(false);
    produce<<<BLOCKS, THREADS, 0, s.first>>>(s.a, 1);
    CHECK(cudaGetLastError());
    CHECK(cudaLaunchHostFunc(s.first, raise_flag, &done));
    while (!BUG && !done)
        continue;
    consume<<<BLOCKS, THREADS, 0, s.second>>>(s.b, s.a);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    expect_line(s.b, N, 2, 2);
}
