/* patterns.cu - what careful kernels do, which must stay silent, and each with one thing
 * forgotten. */
#include <cooperative_groups.h>

#include "bug.h"

/* Sum over a block: shuffles within warps, shared memory between them. */
template <bool BUG> __device__ float sum_of_block(float value)
{
    __shared__ float sums[32];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    for (int step = 16; step > 0; step /= 2)
        value += __shfl_xor_sync(0xffffffffu, value, step);
    if (lane == 0)
        sums[warp] = value; /* here: sums_write */
    __syncthreads();
    value = lane < blockDim.x / 32 ? sums[lane] : 0; /* here: sums_read */
    for (int step = 16; step > 0; step /= 2)
        value += __shfl_xor_sync(0xffffffffu, value, step);
    if (!BUG)
        __syncthreads();
    return value;
}

template <bool BUG> __global__ void mean_and_spread(float *out, const float *in)
{
    float value = in[threadIdx.x];
    float mean = sum_of_block<BUG>(value) / blockDim.x;
    float spread = sum_of_block<BUG>((value - mean) * (value - mean));
    if (threadIdx.x == 0) {
        out[0] = mean;
        out[1] = spread;
    }
}

// case: sums_used_twice - a sum over a block is taken again before all have read the first
// expect: race-in-kernel  kernel mean_and_spread  here:sums_write  here:sums_read
CASE(sums_used_twice)
{
    float *in = device_numbers(THREADS), *out = device_memory<float>(2);
    mean_and_spread<BUG><<<1, THREADS>>>(out, in);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    EXPECT(device_value(out) == 63.5f);
    EXPECT(device_value(out + 1) == THREADS * (THREADS * THREADS - 1) / 12.0f);
    CHECK(cudaFree(out));
    CHECK(cudaFree(in));
}

/* Two tiles in turn, so that one barrier for each turn is enough. */
template <bool BUG> __global__ void sum_of_tiles(float *out, const float *in, int turns)
{
    __shared__ float tiles[2][THREADS];
    int t = threadIdx.x;
    float sum = 0;
    for (int turn = 0; turn < turns; ++turn) {
        float *tile = tiles[BUG ? 0 : turn % 2];
        tile[t] = in[turn * THREADS + t]; /* here: tile_write */
        __syncthreads();
        sum += tile[THREADS - 1 - t]; /* here: tile_read */
    }
    out[t] = sum;
}

// case: tiles_not_alternating - one barrier for each turn, but only one tile
// expect: race-in-kernel  kernel sum_of_tiles  here:tile_write  here:tile_read
CASE(tiles_not_alternating)
{
    float *in = device_numbers(N), *out = device_memory<float>(THREADS);
    sum_of_tiles<BUG><<<1, THREADS>>>(out, in, BLOCKS);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    expect_line(out, THREADS, -BLOCKS, BLOCKS * (THREADS - 1) + 6 * THREADS);
    CHECK(cudaFree(out));
    CHECK(cudaFree(in));
}

template <bool BUG> __global__ void reverse_eights(float *out, const float *in)
{
    namespace cg = cooperative_groups;
    __shared__ float tile[THREADS];
    cg::thread_block_tile<8> eight = cg::tiled_partition<8>(cg::this_thread_block());
    int t = threadIdx.x, rank = static_cast<int>(eight.thread_rank());
    tile[t] = in[t]; /* here: eights_write */
    if (!BUG)
        eight.sync();
    out[t] = tile[t - rank + 7 - rank] + 2 * rank; /* here: eights_read */
}

// case: group_sync_missing - a tile of eight lanes exchanges without its sync()
// expect: race-in-kernel  kernel reverse_eights  here:eights_write  here:eights_read
CASE(group_sync_missing)
{
    float *in = device_numbers(THREADS), *out = device_memory<float>(THREADS);
    reverse_eights<BUG><<<1, THREADS>>>(out, in);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    EXPECT(device_value(out + 3) == 10);
    EXPECT(device_value(out + 77) == 84);
    CHECK(cudaFree(out));
    CHECK(cudaFree(in));
}

/* The halves of a block have a barrier each. */
template <bool BUG> __global__ void halves_apart(float *out, const float *in)
{
    __shared__ float tile[THREADS];
    int t = threadIdx.x, half = THREADS / 2, id = 1 + t / half;
    tile[t] = in[t]; /* here: apart_write */
    asm volatile("bar.sync %0, 64;" ::"r"(id) : "memory");
    int other = BUG ? THREADS - 1 - t : t / half * half + (half - 1 - t % half);
    out[t] = tile[other]; /* here: apart_read */
}

// case: named_barrier_of_half - a barrier of half a block, and a read of the other half's part
// expect: race-in-kernel  kernel halves_apart  here:apart_write  here:apart_read
CASE(named_barrier_of_half)
{
    float *in = device_numbers(THREADS), *out = device_memory<float>(THREADS);
    halves_apart<BUG><<<1, THREADS>>>(out, in);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    expect_line(out, THREADS / 2, -1, THREADS / 2 - 1);
    expect_line(out + THREADS / 2, THREADS / 2, -1, THREADS - 1);
    CHECK(cudaFree(out));
    CHECK(cudaFree(in));
}

/* Running sums: each block waits for the sum of the block before it. Blocks take numbers, so
 * that a block only waits for blocks that have started. */
template <bool BUG>
__global__ void running_sums(float *sums, unsigned *ready, unsigned *started, const float *in)
{
    __shared__ unsigned block;
    if (threadIdx.x != 0)
        return;
    block = atomicAdd(started, 1);
    float sum = in[block];
    if (block > 0) {
        while (atomicAdd(&ready[block - 1], 0) == 0)
            continue;
        __threadfence();
        sum += sums[block - 1]; /* here: running_read */
    }
    sums[block] = sum; /* here: running_write */
    if (!BUG)
        __threadfence();
    atomicExch(&ready[block], 1);
}

// case: flag_without_fence - a block sets a flag for another without publishing its data
// expect: race-in-kernel  kernel running_sums  here:running_read  here:running_write
CASE(flag_without_fence)
{
    float *in = device_numbers(THREADS), *sums = device_memory<float>(THREADS);
    unsigned *ready = device_zeros<unsigned>(THREADS), *started = device_zeros<unsigned>(1);
    running_sums<BUG><<<THREADS, 32>>>(sums, ready, started, in);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    EXPECT(device_value(sums + THREADS - 1) == THREADS * (THREADS - 1) / 2);
    CHECK(cudaFree(started));
    CHECK(cudaFree(ready));
    CHECK(cudaFree(sums));
    CHECK(cudaFree(in));
}

template <bool BUG> __global__ void add_locked(float *sum, int *lock, const float *in)
{
    if (threadIdx.x != 0)
        return;
    if (!BUG)
        while (atomicCAS(lock, 0, 1) != 0)
            continue;
    __threadfence();
    *sum += in[blockIdx.x]; /* here: add_locked */
    __threadfence();
    if (!BUG)
        atomicExch(lock, 0);
}

// case: lock_not_taken - blocks change what a lock guards, without the lock
// expect: race-in-kernel  kernel add_locked  here:add_locked
CASE(lock_not_taken)
{
    float *in = device_numbers(THREADS), *sum = device_zeros<float>(1);
    int *lock = device_zeros<int>(1);
    add_locked<BUG><<<THREADS, 32>>>(sum, lock, in);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    EXPECT(device_value(sum) == THREADS * (THREADS - 1) / 2);
    CHECK(cudaFree(lock));
    CHECK(cudaFree(sum));
    CHECK(cudaFree(in));
}

/* Sums of columns by atomics of floats, into a result that all blocks share. */
__global__ void add_columns(float *sums, const float4 *in, int rows, int stride)
{
    for (int r = blockIdx.x; r < rows; r += gridDim.x) {
        float4 four = in[r * stride + threadIdx.x];
        atomicAdd(&sums[4 * threadIdx.x + 0], four.x);
        atomicAdd(&sums[4 * threadIdx.x + 1], four.y);
        atomicAdd(&sums[4 * threadIdx.x + 2], four.z);
        atomicAdd(&sums[4 * threadIdx.x + 3], four.w);
    }
}

__global__ void double_all(float *out, const float *in, int n)
{
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
        out[i] = 2 * in[i]; /* here: double_all */
}

// case: sums_read_too_early - the sums of one kernel, read by another beside it
// expect: race  kernel double_all  here:double_all  kernel add_columns
CASE(sums_read_too_early)
{
    enum { ROWS = 8, COLUMNS = N / ROWS };
    float *in = device_numbers(N), *sums = device_zeros<float>(COLUMNS);
    float *out = device_memory<float>(COLUMNS);
    cudaStream_t first = new_stream(), second = new_stream();
    add_columns<<<3, COLUMNS / 4, 0, first>>>(sums, reinterpret_cast<float4 *>(in), ROWS,
                                              COLUMNS / 4);
    double_all<<<2, 16, 0, BUG ? second : first>>>(out, sums, COLUMNS);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    expect_line(out, COLUMNS, 2 * ROWS, 2 * COLUMNS * ROWS * (ROWS - 1) / 2);
    CHECK(cudaStreamDestroy(first));
    CHECK(cudaStreamDestroy(second));
    CHECK(cudaFree(out));
    CHECK(cudaFree(sums));
    CHECK(cudaFree(in));
}

// case: memory_used_anew - memory that is freed (which waits for the device) and given out again
// expect: race  kernel double_all  here:double_all
CASE(memory_used_anew)
{
    float *in = device_numbers(N), *out = device_memory<float>(N);
    cudaStream_t first = new_stream(), second = new_stream();
    double_all<<<2, 64, 0, first>>>(out, in, N);
    CHECK(cudaGetLastError());
    if (!BUG) {
        CHECK(cudaFree(out));
        out = device_memory<float>(N);
    }
    double_all<<<2, 64, 0, second>>>(out, in, N);
    CHECK(cudaGetLastError());
    CHECK(cudaStreamSynchronize(first));
    CHECK(cudaStreamSynchronize(second));
    expect_line(out, N, 2, 0);
    CHECK(cudaStreamDestroy(first));
    CHECK(cudaStreamDestroy(second));
    CHECK(cudaFree(out));
    CHECK(cudaFree(in));
}

__device__ unsigned blocks_counted;

template <bool BUG> __global__ void sum_of_blocks(float *sum, float *parts)
{
    __shared__ unsigned counted;
    if (threadIdx.x == 0) {
        counted = 0;
        parts[blockIdx.x] = 1; /* here: part_write */
        __threadfence();
        unsigned before = atomicAdd(BUG ? &counted : &blocks_counted, 1u);
        __threadfence();
        if (before == (BUG ? 0 : gridDim.x - 1))
            for (unsigned i = 0; i < gridDim.x && i <= (BUG ? blockIdx.x : i); ++i)
                sum[BUG ? blockIdx.x : 0] += parts[i]; /* here: part_read */
    }
}

// case: counter_in_shared - blocks count in shared memory, where every block counts for itself
// expect: race-in-kernel  kernel sum_of_blocks  here:part_write  here:part_read
// with: MDL_SIM_SCHEDULE=fifo
CASE(counter_in_shared)
{
    float *sum = device_zeros<float>(BLOCKS), *parts = device_zeros<float>(BLOCKS);
    sum_of_blocks<BUG><<<BLOCKS, 1>>>(sum, parts);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    EXPECT(device_value(sum) == BLOCKS);
    CHECK(cudaFree(parts));
    CHECK(cudaFree(sum));
}

__device__ unsigned parts_done;

/* Whoever is the last of `n` adds up all numbers. */
static __device__ void add_if_last(float *sum, const float *numbers, unsigned n, int count)
{
    __threadfence();
    unsigned before = atomicAdd(&parts_done, 1u);
    __threadfence();
    for (int i = 0; before == n - 1 && i < count; ++i)
        *sum += numbers[i]; /* here: all_read */
}

template <bool BUG> __global__ void sum_of_eights(float *sum, float *numbers)
{
    auto eight = cooperative_groups::tiled_partition<8>(cooperative_groups::this_thread_block());
    numbers[blockIdx.x * blockDim.x + threadIdx.x] = 1; /* here: eights_part */
    if (!BUG)
        eight.sync();
    if (eight.thread_rank() == 0)
        add_if_last(sum, numbers, gridDim.x * blockDim.x / 8, N);
}

// case: tile_released - a tile's first lane publishes what all of the tile have written
// expect: race-in-kernel  kernel sum_of_eights  here:eights_part  here:all_read
CASE(tile_released)
{
    float *sum = device_zeros<float>(1), *numbers = device_zeros<float>(N);
    sum_of_eights<BUG><<<BLOCKS, THREADS>>>(sum, numbers);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    EXPECT(device_value(sum) == N);
    CHECK(cudaFree(numbers));
    CHECK(cudaFree(sum));
}

template <bool BUG> __global__ void sum_of_twenties(float *sum, float *numbers)
{
    if (threadIdx.x >= 20)
        return;
    numbers[blockIdx.x * 20 + threadIdx.x] = 1; /* here: twenties_part */
    if (!BUG)
        __syncwarp(0xfffff);
    if (threadIdx.x == 0)
        add_if_last(sum, numbers, gridDim.x, BLOCKS * 20);
}

// case: ended_lanes_released - the same for the lanes of a warp that have not ended
// expect: race-in-kernel  kernel sum_of_twenties  here:twenties_part  here:all_read
CASE(ended_lanes_released)
{
    float *sum = device_zeros<float>(1), *numbers = device_zeros<float>(N);
    sum_of_twenties<BUG><<<BLOCKS, 32>>>(sum, numbers);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    EXPECT(device_value(sum) == BLOCKS * 20);
    CHECK(cudaFree(numbers));
    CHECK(cudaFree(sum));
}

__device__ unsigned turn_of_warps;

template <bool BUG> __global__ void take_turns(float *sum)
{
    if (threadIdx.x % 32 != 0)
        return;
    for (unsigned turn = threadIdx.x / 32; turn < 100; turn += 2) {
        while (atomicAdd(&turn_of_warps, 0u) != turn)
            continue;
        if (!BUG)
            __threadfence();
        *sum += 1; /* here: turn_adds */
        if (!BUG)
            __threadfence();
        atomicExch(&turn_of_warps, turn + 1);
    }
}

// case: turns_of_warps - two warps spin for each other's turns, without fences
// expect: race-in-kernel  kernel take_turns  here:turn_adds
CASE(turns_of_warps)
{
    float *sum = device_zeros<float>(1);
    take_turns<BUG><<<1, 64>>>(sum);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    EXPECT(device_value(sum) == 100);
    CHECK(cudaFree(sum));
}
