/* threads.cu - threads of one kernel: barriers, fences, atomics, warps. */
#include "bug.h"

/* Runs a kernel of one block of THREADS threads on 0, 1, 2, ... and checks the line that
 * comes out. */
template <typename Kernel>
static void run_block(Kernel kernel, float slope, float start, int threads = THREADS)
{
    float *in = device_numbers(N), *out = device_zeros<float>(threads);
    kernel<<<1, threads>>>(out, in);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    expect_line(out, threads, slope, start);
    CHECK(cudaFree(out));
    CHECK(cudaFree(in));
}

template <bool BUG> __global__ void reverse(float *out, const float *in)
{
    __shared__ float tile[THREADS];
    int t = threadIdx.x;
    tile[t] = in[t]; /* here: reverse_write */
    if (!BUG)
        __syncthreads();
    out[t] = tile[THREADS - 1 - t]; /* here: reverse_read */
}

// case: barrier_read_after_write - a thread reads what another has just written
// expect: race-in-kernel  kernel reverse  here:reverse_read  here:reverse_write  gpu 0
CASE(barrier_read_after_write)
{
    run_block(reverse<BUG>, -1, THREADS - 1);
}

template <bool BUG> __global__ void reverse_turns(float *out, const float *in)
{
    __shared__ float tile[THREADS];
    int t = threadIdx.x;
    float sum = 0;
    for (int turn = 0; turn < 3; ++turn) {
        tile[t] = in[turn * THREADS + t]; /* here: turns_write */
        __syncthreads();
        sum += tile[THREADS - 1 - t]; /* here: turns_read */
        if (!BUG)
            __syncthreads();
    }
    out[t] = sum;
}

// case: barrier_write_after_read - the next turn overwrites what others still read
// expect: race-in-kernel  kernel reverse_turns  here:turns_write  here:turns_read
CASE(barrier_write_after_read)
{
    run_block(reverse_turns<BUG>, -3, 3 * (THREADS - 1) + 3 * THREADS);
}

template <bool BUG> __global__ void write_twice(float *out, const float *in)
{
    __shared__ float tile[THREADS];
    int t = threadIdx.x;
    tile[t] = -1; /* here: twice_first */
    if (!BUG)
        __syncthreads();
    tile[THREADS - 1 - t] = in[t]; /* here: twice_second */
    __syncthreads();
    out[t] = tile[t];
}

// case: barrier_write_after_write - two threads write the same word
// expect: race-in-kernel  kernel write_twice  here:twice_first  here:twice_second
CASE(barrier_write_after_write)
{
    run_block(write_twice<BUG>, -1, THREADS - 1);
}

template <bool BUG> __global__ void global_exchange(float *out, const float *in)
{
    int t = threadIdx.x;
    out[t] = in[t]; /* here: exchange_write */
    __syncthreads();
    float other = out[THREADS - 1 - t]; /* here: exchange_read */
    if (!BUG)
        __syncthreads();
    out[t] = other; /* here: exchange_rewrite */
}

// case: barrier_global_memory - the same in global memory
// expect: race-in-kernel  kernel global_exchange  here:exchange_read  here:exchange_rewrite
CASE(barrier_global_memory)
{
    run_block(global_exchange<BUG>, -1, THREADS - 1);
}

template <bool BUG> __global__ void halve(float *out, const float *in)
{
    __shared__ float tile[THREADS];
    int t = threadIdx.x;
    tile[t] = in[t];
    __syncthreads();
    for (int half = THREADS / 2; half > 0; half /= 2) {
        if (t < half)
            tile[t] += tile[t + half]; /* here: halve */
        if (!BUG)
            __syncthreads();
    }
    if (BUG)
        __syncthreads();
    out[t] = tile[0] + t;
}

// case: barrier_in_reduction - a sum of a block whose steps no barrier parts
// expect: race-in-kernel  kernel halve  here:halve
CASE(barrier_in_reduction)
{
    run_block(halve<BUG>, 1, THREADS * (THREADS - 1) / 2);
}

template <bool BUG> __global__ void swap_lanes(float *out, const float *in)
{
    __shared__ float tile[32];
    int t = threadIdx.x;
    tile[t] = in[t]; /* here: swap_write */
    if (!BUG)
        __syncwarp();
    out[t] = tile[31 - t]; /* here: swap_read */
}

// case: syncwarp_missing - lanes of a warp exchange through shared memory without __syncwarp
// expect: race-in-kernel  kernel swap_lanes  here:swap_read  here:swap_write
CASE(syncwarp_missing)
{
    run_block(swap_lanes<BUG>, -1, 31, 32);
}

template <bool BUG> __global__ void sum_lanes(float *out, const float *in)
{
    __shared__ float tile[64];
    int t = threadIdx.x;
    tile[t] = in[t];
    tile[t + 32] = 0;
    __syncwarp();
    for (int half = 16; half > 0; half /= 2) {
        float other = tile[t + half]; /* here: lanes_read */
        if (!BUG)
            __syncwarp();
        tile[t] += other; /* here: lanes_write */
        __syncwarp();
    }
    out[t] = tile[0] + t;
}

// case: syncwarp_write_after_read - a lane overwrites what another lane still reads
// expect: race-in-kernel  kernel sum_lanes  here:lanes_read  here:lanes_write
CASE(syncwarp_write_after_read)
{
    run_block(sum_lanes<BUG>, 1, 31 * 32 / 2, 32);
}

template <bool BUG> __global__ void swap_warps(float *out, const float *in)
{
    __shared__ float tile[THREADS];
    int t = threadIdx.x;
    tile[t] = in[t]; /* here: warps_write */
    if (BUG)
        __syncwarp();
    else
        __syncthreads();
    out[t] = tile[t ^ 32]; /* here: warps_read */
}

// case: syncwarp_not_enough - __syncwarp where several warps exchange
// expect: race-in-kernel  kernel swap_warps  here:warps_read  here:warps_write
CASE(syncwarp_not_enough)
{
    float *in = device_numbers(N), *out = device_zeros<float>(THREADS);
    swap_warps<BUG><<<1, THREADS>>>(out, in);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    expect_line(out, 32, 1, 32);
    expect_line(out + 32, 32, 1, 0);
    CHECK(cudaFree(out));
    CHECK(cudaFree(in));
}

template <bool BUG> __global__ void next_edge(float *out, float *edge, const float *old_edge)
{
    int b = blockIdx.x;
    if (threadIdx.x == 0) {
        edge[b + 1] = b;                          /* here: edge_write */
        out[b] = BUG ? edge[b] : old_edge[b + 1]; /* here: edge_read */
    }
}

// case: blocks_exchange - a block reads what its neighbour writes in the same launch
// expect: race-in-kernel  kernel next_edge  here:edge_read  here:edge_write
CASE(blocks_exchange)
{
    float *edge = device_zeros<float>(N), *old_edge = device_numbers(N);
    float *out = device_zeros<float>(BLOCKS);
    next_edge<BUG><<<BLOCKS, THREADS>>>(out, edge, old_edge);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    expect_line(out, BLOCKS, 1, 1);
    CHECK(cudaFree(out));
    CHECK(cudaFree(old_edge));
    CHECK(cudaFree(edge));
}

template <bool BUG> __global__ void count(unsigned *counter)
{
    if (BUG)
        *counter = *counter + 1; /* here: count */
    else
        atomicAdd(counter, 1);
}

// case: counter_not_atomic - all threads add to one word
// expect: race-in-kernel  kernel count  here:count
CASE(counter_not_atomic)
{
    unsigned *counter = device_zeros<unsigned>(1);
    count<BUG><<<BLOCKS, THREADS>>>(counter);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    EXPECT(device_value(counter) == N);
    CHECK(cudaFree(counter));
}

template <bool BUG> __global__ void count_block(float *out, const float *in)
{
    __shared__ unsigned counter;
    int t = threadIdx.x;
    if (t == 0)
        counter = 0;
    __syncthreads();
    if (in[t] < 100)
        atomicAdd(&counter, 1); /* here: counter_add */
    if (!BUG)
        __syncthreads();
    out[t] = counter + t; /* here: counter_read */
}

// case: counter_read_early - a plain read of a counter to which others still add
// expect: race-in-kernel  kernel count_block  here:counter_read  here:counter_add
CASE(counter_read_early)
{
    run_block(count_block<BUG>, 1, 100);
}

/* The last block to finish adds up what all have written. */
template <bool BUG>
__global__ void sum_of_blocks(float *total, float *partial, unsigned *done, const float *in)
{
    __shared__ bool last;
    if (threadIdx.x == 0) {
        float sum = 0;
        for (int i = 0; i < THREADS; ++i)
            sum += in[blockIdx.x * THREADS + i];
        partial[blockIdx.x] = sum; /* here: partial_write */
        if (!BUG)
            __threadfence();
        last = atomicAdd(done, 1) == gridDim.x - 1;
        __threadfence();
    }
    __syncthreads();
    if (last && threadIdx.x == 1) {
        float sum = 0;
        for (int b = 0; b < BLOCKS; ++b)
            sum += partial[b]; /* here: partial_read */
        *total = sum;
    }
}

/* The same as the programming guide has it: volatile, and one fence. Or neither. */
template <typename Partial, bool BUG>
__global__ void sum_by_guide(float *total, Partial *partial, unsigned *done, const float *in)
{
    __shared__ bool last;
    if (threadIdx.x == 0) {
        float sum = 0;
        for (int i = 0; i < THREADS; ++i)
            sum += in[blockIdx.x * THREADS + i];
        partial[blockIdx.x] = sum; /* here: guide_write */
        if (!BUG)
            __threadfence();
        last = atomicInc(done, gridDim.x) == gridDim.x - 1;
    }
    __syncthreads();
    if (last && threadIdx.x == 0) {
        float sum = 0;
        for (int b = 0; b < BLOCKS; ++b)
            sum += partial[b]; /* here: guide_read */
        *total = sum;
    }
}

template <typename Partial>
static void expect_sum(void (*kernel)(float *, Partial *, unsigned *, const float *))
{
    float *in = device_numbers(N), *partial = device_memory<float>(BLOCKS);
    float *total = device_memory<float>(1);
    unsigned *done = device_zeros<unsigned>(1);
    kernel<<<BLOCKS, THREADS>>>(total, partial, done, in);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    EXPECT(device_value(total) == N * (N - 1) / 2);
    CHECK(cudaFree(done));
    CHECK(cudaFree(total));
    CHECK(cudaFree(partial));
    CHECK(cudaFree(in));
}

// case: last_block_without_fence - the last block reads results that no fence has published
// expect: race-in-kernel  kernel sum_of_blocks  here:partial_read  here:partial_write
CASE(last_block_without_fence)
{
    expect_sum<float>(sum_of_blocks<BUG>);
}

// case: last_block_without_volatile - the guide's example without its volatile and its fence
// expect: race-in-kernel  kernel sum_by_guide  here:guide_read  here:guide_write
CASE(last_block_without_volatile)
{
    if (BUG)
        expect_sum<float>(sum_by_guide<float, true>);
    else
        expect_sum<volatile float>(sum_by_guide<volatile float, false>);
}

template <bool BUG> __global__ void write_bytes(unsigned char *out)
{
    out[BUG ? threadIdx.x / 2 : threadIdx.x] = threadIdx.x; /* here: write_bytes */
}

// case: bytes_of_a_word - threads write neighbouring bytes, or the same ones
// expect: race-in-kernel  kernel write_bytes  here:write_bytes
CASE(bytes_of_a_word)
{
    unsigned char *bytes = device_memory<unsigned char>(THREADS);
    write_bytes<BUG><<<1, THREADS>>>(bytes);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    EXPECT(device_value(bytes + 77) == 77);
    CHECK(cudaFree(bytes));
}

template <bool BUG> __global__ void half_waits(float *out, const float *in)
{
    __shared__ float tile[THREADS];
    int t = threadIdx.x;
    tile[t] = in[t];
    if (!BUG)
        __syncthreads();
    if (t < THREADS / 2) {
        if (BUG)
            __syncthreads(); /* here: half_waits */
        out[t] = tile[THREADS - 1 - t];
    } else {
        out[t] = THREADS - 1 - in[t];
    }
}

// case: barrier_in_branch - half of the block comes to a barrier, the others end
// expect: barrier  kernel half_waits  here:half_waits
CASE(barrier_in_branch)
{
    run_block(half_waits<BUG>, -1, THREADS - 1);
}

template <bool BUG> __global__ void some_return(float *out, const float *in, int n)
{
    __shared__ float tile[THREADS];
    int t = threadIdx.x;
    tile[t] = 0;
    if (BUG && t >= n)
        return;
    if (t < n)
        tile[t] = in[t];
    __syncthreads(); /* here: some_return */
    if (t < n)
        out[t] = tile[n - 1 - t];
}

// case: return_before_barrier - threads beyond the end return before a barrier
// expect: barrier  kernel some_return  here:some_return
CASE(return_before_barrier)
{
    enum { SOME = 100 };
    float *in = device_numbers(SOME), *out = device_zeros<float>(SOME);
    some_return<BUG><<<1, THREADS>>>(out, in, SOME);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    expect_line(out, SOME, -1, SOME - 1);
    CHECK(cudaFree(out));
    CHECK(cudaFree(in));
}

template <bool BUG> __global__ void two_barriers(float *out, const float *in)
{
    __shared__ float tile[THREADS];
    int t = threadIdx.x;
    if (!BUG) {
        tile[t] = in[t];
        __syncthreads();
    } else if (t < THREADS / 2) {
        tile[t] = in[t];
        __syncthreads(); /* here: low_barrier */
        tile[t] += 0.5f;
    } else {
        tile[t] = in[t] * in[1];
        __syncthreads(); /* here: high_barrier */
    }
    out[t] = tile[t];
}

// case: barriers_differ - the two halves of a block come to different barriers
// expect: barrier  kernel two_barriers  here:low_barrier  here:high_barrier
CASE(barriers_differ)
{
    run_block(two_barriers<BUG>, 1, 0);
}

template <bool BUG> __global__ void uneven_turns(float *out, const float *in, int n)
{
    __shared__ float tile[THREADS];
    int t = threadIdx.x;
    float sum = 0;
    int end = BUG ? n : (n + THREADS - 1) / THREADS * THREADS;
    for (int i = t; i < end; i += THREADS) {
        tile[t] = i < n ? in[i] : 0;
        __syncthreads(); /* here: uneven_turns */
        sum += tile[t];
    }
    out[t] = sum;
}

// case: barrier_in_uneven_loop - some threads have one turn with a barrier more
// expect: barrier  kernel uneven_turns  here:uneven_turns
CASE(barrier_in_uneven_loop)
{
    enum { SOME = THREADS + 40 };
    float *in = device_numbers(SOME), *out = device_zeros<float>(THREADS);
    uneven_turns<BUG><<<1, THREADS>>>(out, in, SOME);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    expect_line(out, 40, 2, THREADS);
    expect_line(out + 40, THREADS - 40, 1, 40);
    CHECK(cudaFree(out));
    CHECK(cudaFree(in));
}

template <bool BUG> __global__ void half_shuffles(float *out, const float *in)
{
    int t = threadIdx.x;
    float value = in[t];
    if (BUG) {
        if (t < 16)
            value = __shfl_xor_sync(0xffffffffu, value, 1); /* here: half_shuffles */
    } else {
        float other = __shfl_xor_sync(0xffffffffu, value, 1);
        value = t < 16 ? other : value;
    }
    __syncthreads();
    out[t] = t < 16 ? t + value - (t ^ 1) : value;
}

// case: shuffle_in_branch - lanes that a shuffle's mask names do not come
// expect: warp  kernel half_shuffles  here:half_shuffles
CASE(shuffle_in_branch)
{
    run_block(half_shuffles<BUG>, 1, 0, 32);
}

template <bool BUG> __global__ void shuffle_from(float *out, const float *in, int lane)
{
    int t = threadIdx.x;
    float value = 0;
    if (t < 16)
        value = __shfl_sync(0x0000ffffu, in[t], lane); /* here: shuffle_from */
    out[t] = value + t;
}

// case: shuffle_outside_of_mask - a lane reads from a lane that the mask does not name
// expect: warp  kernel shuffle_from  here:shuffle_from
CASE(shuffle_outside_of_mask)
{
    float *in = device_numbers(32), *out = device_zeros<float>(32);
    shuffle_from<BUG><<<1, 32>>>(out, in, BUG ? 20 : 5);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    expect_line(out, 16, 1, 5);
    expect_line(out + 16, 16, 1, 16);
    CHECK(cudaFree(out));
    CHECK(cudaFree(in));
}

template <bool BUG> __global__ void vote_of_some(float *out, const float *in)
{
    int t = threadIdx.x;
    unsigned mask = BUG ? 0x0000ffffu : 0xffffffffu;
    unsigned votes = __ballot_sync(mask, in[t] < 8); /* here: vote_of_some */
    out[t] = __popc(votes) + t;
}

// case: lane_outside_of_own_mask - a lane calls with a mask that does not name it
// expect: warp  kernel vote_of_some  here:vote_of_some
CASE(lane_outside_of_own_mask)
{
    run_block(vote_of_some<BUG>, 1, 8, 32);
}

template <bool BUG> __global__ void rest_after_return(float *out, const float *in)
{
    int t = threadIdx.x;
    out[t] = in[t];
    if (t >= 16)
        return;
    __syncwarp();
    float other;
    if (BUG)
        other = __shfl_down_sync(0xffffffffu, in[t], 8); /* here: shuffle_from_ended */
    else
        other = __shfl_xor_sync(0x0000ffffu, in[t], 8);
    out[t] = in[t] + 0 * other;
}

// case: shuffle_from_ended_lane - a lane reads from one that has returned; those that have may
//       well be named by a mask
// expect: warp  kernel rest_after_return  here:shuffle_from_ended
CASE(shuffle_from_ended_lane)
{
    run_block(rest_after_return<BUG>, 1, 0, 32);
}

template <bool BUG> __global__ void syncwarp_of_half(float *out, const float *in)
{
    __shared__ float tile[32];
    int t = threadIdx.x;
    tile[t] = in[t];
    if (t < 16) {
        __syncwarp(BUG ? 0xffffffffu : 0x0000ffffu); /* here: syncwarp_of_half */
        out[t] = tile[15 - t];
    }
    __syncthreads();
    if (t >= 16)
        out[t] = 15 - tile[t];
}

// case: syncwarp_in_branch - half of a warp comes to a __syncwarp that names all
// expect: warp  kernel syncwarp_of_half  here:syncwarp_of_half
CASE(syncwarp_in_branch)
{
    run_block(syncwarp_of_half<BUG>, -1, 15, 32);
}
