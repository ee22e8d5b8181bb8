/* peers.cu - copies between devices, and things given to the wrong device. */
#include <condition_variable>
#include <mutex>
#include <thread>

#include "bug.h"

__global__ void produce(float *out, float start)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    out[i] = i + start; /* here: produce */
}

__global__ void accumulate(float *sum, const float *in)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    sum[i] += in[i]; /* here: accumulate */
}

enum Missing { NO_WAIT, COPY_WAIT, CONSUMER_WAIT, PRODUCER_WAIT, NEXT_COPY_WAIT };

static void wait_unless(bool missing, cudaStream_t stream, cudaEvent_t event)
{
    if (!missing)
        CHECK(cudaStreamWaitEvent(stream, event, 0));
}

/* Three turns of: gpu 0 makes, its transfer stream copies to gpu 1, which adds up. One of
 * the waits may be missing. */
static void relay(Missing missing)
{
    float *source = device_zeros<float>(N);
    cudaStream_t maker = new_stream(), transfer = new_stream();
    cudaEvent_t made = new_event(), copied = new_event();
    CHECK(cudaSetDevice(1));
    float *target = device_zeros<float>(N), *sum = device_zeros<float>(N);
    cudaStream_t adder = new_stream();
    cudaEvent_t added = new_event();
    for (int turn = 0; turn < 3; ++turn) {
        CHECK(cudaSetDevice(0));
        wait_unless(turn == 0 || missing == PRODUCER_WAIT, maker, copied);
        produce<<<BLOCKS, THREADS, 0, maker>>>(source, turn);
        CHECK(cudaEventRecord(made, maker));
        wait_unless(missing == COPY_WAIT, transfer, made);
        wait_unless(turn == 0 || missing == NEXT_COPY_WAIT, transfer, added);
        CHECK(cudaMemcpyPeerAsync(target, 1, source, 0, N * sizeof(float), transfer));
        CHECK(cudaEventRecord(copied, transfer));
        CHECK(cudaSetDevice(1));
        wait_unless(missing == CONSUMER_WAIT, adder, copied);
        accumulate<<<BLOCKS, THREADS, 0, adder>>>(sum, target);
        CHECK(cudaEventRecord(added, adder));
        CHECK(cudaGetLastError());
    }
    CHECK(cudaStreamSynchronize(adder));
    expect_line(sum, N, 3, 3);
    CHECK(cudaEventDestroy(added));
    CHECK(cudaStreamDestroy(adder));
    CHECK(cudaFree(sum));
    CHECK(cudaFree(target));
    CHECK(cudaEventDestroy(copied));
    CHECK(cudaEventDestroy(made));
    CHECK(cudaStreamDestroy(transfer));
    CHECK(cudaStreamDestroy(maker));
    CHECK(cudaFree(source));
}

// case: peer_copy_too_early - the copy to the peer does not wait for the producer
// expect: race  cudaMemcpyPeerAsync  kernel produce  here:produce  gpu 0
CASE(peer_copy_too_early)
{
    relay(BUG ? COPY_WAIT : NO_WAIT);
}

// case: peer_copy_not_awaited - the consumer does not wait for the copy to arrive
// expect: race  cudaMemcpyPeerAsync  kernel accumulate  here:accumulate  gpu 0  gpu 1
CASE(peer_copy_not_awaited)
{
    relay(BUG ? CONSUMER_WAIT : NO_WAIT);
}

// case: peer_source_overwritten - the producer's next turn does not wait for the copy
// expect: race  cudaMemcpyPeerAsync  kernel produce  here:produce  gpu 0
CASE(peer_source_overwritten)
{
    relay(BUG ? PRODUCER_WAIT : NO_WAIT);
}

// case: peer_target_overwritten - the next copy does not wait for the consumer
// expect: race  cudaMemcpyPeerAsync  kernel accumulate  here:accumulate  gpu 0  gpu 1
CASE(peer_target_overwritten)
{
    relay(BUG ? NEXT_COPY_WAIT : NO_WAIT);
}

// case: threads_without_wait - a host thread per device; they agree, but their streams do not
// expect: race  kernel produce  here:produce  kernel accumulate  here:accumulate  gpu 0  gpu 1
CASE(threads_without_wait)
{
    std::mutex lock;
    std::condition_variable told;
    bool recorded = false;
    float *shared = device_zeros<float>(N);
    cudaEvent_t made = new_event();
    std::thread consumer([&] {
        CHECK(cudaSetDevice(1));
        CHECK(cudaDeviceEnablePeerAccess(0, 0));
        float *sum = device_zeros<float>(N);
        cudaStream_t stream = new_stream();
        {
            std::unique_lock<std::mutex> held(lock);
            told.wait(held, [&] { return recorded; });
        }
        if (!BUG)
            CHECK(cudaStreamWaitEvent(stream, made, 0));
        accumulate<<<BLOCKS, THREADS, 0, stream>>>(sum, shared);
        CHECK(cudaGetLastError());
        CHECK(cudaStreamSynchronize(stream));
        expect_line(sum, N, 1, 5);
        CHECK(cudaStreamDestroy(stream));
        CHECK(cudaFree(sum));
    });
    cudaStream_t stream = new_stream();
    produce<<<BLOCKS, THREADS, 0, stream>>>(shared, 5);
    CHECK(cudaGetLastError());
    CHECK(cudaEventRecord(made, stream));
    {
        std::lock_guard<std::mutex> held(lock);
        recorded = true;
    }
    told.notify_one();
    consumer.join();
    CHECK(cudaStreamDestroy(stream));
    CHECK(cudaEventDestroy(made));
    CHECK(cudaFree(shared));
}

// case: memory_of_other_device - a kernel reads a peer's memory without peer access
// expect: wrong-device  kernel accumulate  here:accumulate  gpu 0  gpu 1
CASE(memory_of_other_device)
{
    float *far = device_numbers(N);
    CHECK(cudaSetDevice(1));
    if (!BUG) {
        int possible = 0;
        CHECK(cudaDeviceCanAccessPeer(&possible, 1, 0));
        EXPECT(possible);
        CHECK(cudaDeviceEnablePeerAccess(0, 0));
    }
    float *sum = device_zeros<float>(N);
    accumulate<<<BLOCKS, THREADS>>>(sum, far);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    expect_line(sum, N, 1, 0);
    CHECK(cudaFree(sum));
    CHECK(cudaFree(far));
}

// case: peer_access_one_way - gpu 0 may access gpu 1, which does not let gpu 1 access gpu 0
// expect: wrong-device  kernel produce  here:produce  gpu 0  gpu 1
CASE(peer_access_one_way)
{
    float *far = device_zeros<float>(N);
    CHECK(cudaSetDevice(BUG ? 0 : 1));
    CHECK(cudaDeviceEnablePeerAccess(BUG ? 1 : 0, 0));
    CHECK(cudaSetDevice(1));
    produce<<<BLOCKS, THREADS>>>(far, 3);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    expect_line(far, N, 1, 3);
    CHECK(cudaFree(far));
}

// case: stream_of_other_device - a launch into a stream that is not the current device's
// expect: wrong-device  produce  gpu 0  gpu 1
CASE(stream_of_other_device)
{
    float *a = device_zeros<float>(N);
    cudaStream_t stream = new_stream();
    CHECK(cudaSetDevice(BUG ? 1 : 0));
    produce<<<BLOCKS, THREADS, 0, stream>>>(a, 1);
    CHECK(cudaGetLastError());
    CHECK(cudaStreamSynchronize(stream));
    expect_line(a, N, 1, 1);
    CHECK(cudaSetDevice(1));
    CHECK(cudaStreamDestroy(stream));
    CHECK(cudaFree(a));
}

// case: event_of_other_device - an event is recorded in a stream of another device
// expect: wrong-device  cudaEventRecord  gpu 0  gpu 1
CASE(event_of_other_device)
{
    float *a = device_zeros<float>(N);
    cudaStream_t stream = new_stream();
    CHECK(cudaSetDevice(BUG ? 1 : 0));
    cudaEvent_t event = new_event();
    CHECK(cudaSetDevice(0));
    produce<<<BLOCKS, THREADS, 0, stream>>>(a, 1);
    CHECK(cudaGetLastError());
    CHECK(cudaEventRecord(event, stream));
    CHECK(cudaSetDevice(1));
    CHECK(cudaEventSynchronize(event));
    expect_line(a, N, 1, 1);
    CHECK(cudaEventDestroy(event));
    CHECK(cudaStreamDestroy(stream));
    CHECK(cudaFree(a));
}

// case: peer_numbers_swapped - cudaMemcpyPeerAsync is told the wrong device of each side
// expect: wrong-device  cudaMemcpyPeerAsync  gpu 0  gpu 1
CASE(peer_numbers_swapped)
{
    float *source = device_numbers(N);
    cudaStream_t stream = new_stream();
    CHECK(cudaSetDevice(1));
    float *target = device_zeros<float>(N);
    CHECK(cudaSetDevice(0));
    CHECK(cudaMemcpyPeerAsync(target, BUG ? 0 : 1, source, BUG ? 1 : 0, N * sizeof(float), stream));
    CHECK(cudaStreamSynchronize(stream));
    expect_line(target, N, 1, 0);
    CHECK(cudaStreamDestroy(stream));
    CHECK(cudaFree(target));
    CHECK(cudaFree(source));
}
