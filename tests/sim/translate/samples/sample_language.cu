/* sample_language.cu - what C++ makes of PTX: switch, local arrays, recursion, structures by
 * value, pointers to functions, virtual functions, tables, templates, cooperative groups,
 * asynchronous copies, printf, assert.
 */
#include "sample.h"

#include <assert.h>
#include <cooperative_groups.h>
#include <cooperative_groups/reduce.h>
#include <cuda_pipeline.h>

namespace cg = cooperative_groups;

struct Shape {
    float scale;
    int sizes[9];
    double offset;
    const float *weights;
};

__constant__ float table[4] = {1, 2, 3, 4};
__device__ float steps[3] = {0.5f, -1, 2};
__device__ float *into_steps = steps + 1;
__device__ int counter = 5;

__global__ void by_value(Shape s, float *out)
{
    const int i = threadIdx.x;
    out[i] = s.scale * s.sizes[i % 9] + (float)s.offset + s.weights[i] + table[i & 3] +
             steps[i % 3] + *into_steps;
}

__global__ void by_constant_reference(const __grid_constant__ Shape s, int *out)
{
    const int *sizes = s.sizes;
    out[threadIdx.x] = sizes[threadIdx.x % 9];
}

__global__ void branches(int *a, int n)
{
    int local[20], sum = 0;
    for (int i = 0; i < 20; i++)
        local[i] = i * n;
    for (int i = 0; i < n; i++)
        local[i * 7 % 20] += local[(i + threadIdx.x) % 20];
    switch (a[threadIdx.x] % 9) {
    case 0:
        sum = n;
        break;
    case 1:
        sum = n * 2;
        break;
    case 2:
        sum = n - 7;
        break;
    case 3:
        sum = n ^ 8;
        break;
    case 4:
        sum = n / 3;
        break;
    case 5:
        sum = n % 5;
    case 6:
        sum += n << 2;
        break;
    default:
        sum = -1;
    }
    a[threadIdx.x] = sum + local[threadIdx.x % 20];
}

static int branches_of(int a, int t, int n)
{
    int local[20], sum = 0;
    for (int i = 0; i < 20; i++)
        local[i] = i * n;
    for (int i = 0; i < n; i++)
        local[i * 7 % 20] += local[(i + t) % 20];
    const int of[] = {n, n * 2, n - 7, n ^ 8, n / 3, n % 5 + (n << 2), n << 2};
    sum = a % 9 < 7 ? of[a % 9] : -1;
    return sum + local[t % 20];
}

__device__ __noinline__ int picked(Shape s, int i)
{
    return s.sizes[i];
}

__device__ __noinline__ Shape doubled(const Shape *s)
{
    Shape r = *s;
    for (int i = 0; i < 9; i++)
        r.sizes[i] *= 2;
    return r;
}

__device__ __noinline__ unsigned ackermann(unsigned m, unsigned n)
{
    return m == 0 ? n + 1 : n == 0 ? ackermann(m - 1, 1) : ackermann(m - 1, ackermann(m, n - 1));
}

__device__ __noinline__ int plus_one(int x)
{
    return x + 1;
}

__device__ __noinline__ int times_two(int x)
{
    return x * 2;
}

struct Base {
    int x;
    __device__ Base(int x_) : x(x_)
    {
    }
    virtual __device__ int value()
    {
        return x;
    }
};

struct Derived : Base {
    __device__ Derived(int x_) : Base(x_)
    {
    }
    __device__ int value() override
    {
        return 3 * x;
    }
};

__global__ void functions(int *out, Shape s)
{
    int (*f)(int) = out[0] == 0 ? plus_one : times_two;
    Base base(5);
    Derived derived(5);
    Base *object = out[1] == 0 ? &base : &derived;
    const Shape twice = doubled(&s);
    out[2] = picked(s, out[4]);
    out[3] = picked(twice, out[4]);
    out[5] = (int)ackermann(2, 3);
    out[6] = f(20);
    out[7] = object->value();
}

template <int N, typename T> __global__ void tile_sums(T *out, const T *in)
{
    __shared__ T tile[N];
    extern __shared__ char dynamic[];
    T *more = (T *)dynamic;
    tile[threadIdx.x] = in[blockIdx.x * N + threadIdx.x];
    more[threadIdx.x] = 1;
    __syncthreads();
    for (int half = N / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) {
            tile[threadIdx.x] += tile[threadIdx.x + half];
            more[threadIdx.x] += more[threadIdx.x + half];
        }
        __syncthreads();
    }
    if (threadIdx.x == 0)
        out[blockIdx.x] = tile[0] + 1000 * more[0];
}

__global__ void groups(float *x)
{
    const cg::thread_block block = cg::this_thread_block();
    const auto warp = cg::tiled_partition<32>(block);
    const auto eight = cg::tiled_partition<8>(warp);
    const float mine = x[block.thread_rank()];
    const float all = cg::reduce(warp, mine, cg::plus<float>());
    const float next = eight.shfl_down(mine, 1);
    const int above = __popc(__ballot_sync(~0u, mine > 10));
    block.sync();
    x[block.thread_rank()] = all + next + above + eight.meta_group_rank();
}

__global__ void pipeline(float *out, const float *in)
{
    __shared__ __align__(16) float tile[2][256];
    for (int k = 0; k < 2; k++) {
        __pipeline_memcpy_async(&tile[k][4 * threadIdx.x], in + 256 * k + 4 * threadIdx.x, 16);
        __pipeline_commit();
    }
    __pipeline_wait_prior(1);
    __syncthreads();
    out[threadIdx.x] = tile[0][255 - threadIdx.x];
    __pipeline_wait_prior(0);
    __syncthreads();
    out[64 + threadIdx.x] = tile[1][255 - threadIdx.x];
}

__global__ void speaks(int x)
{
    assert(x > 0);
    if (threadIdx.x == 1)
        printf("thread %d says %s %.2f %lld\n", threadIdx.x, "half", 0.5, (long long)x << 40);
    atomicAdd(&counter, 1);
}

static void run_language(const float *weights)
{
    Shape s = {2.5f, {0, 1, 2, 3, 4, 5, 6, 7, 8}, -3, NULL};
    float out[64] = {0};
    int numbers[64] = {0};
    float *gweights = to_device(weights, 64), *gout = to_device(out, 64);
    int *gnumbers = to_device(numbers, 64);
    s.weights = gweights;
    by_value<<<1, 64>>>(s, gout);
    to_host(out, gout, 64);
    const float t[] = {1, 2, 3, 4}, st[] = {0.5f, -1, 2};
    for (int i = 0; i < 64; i++)
        expect_near("by_value", i, out[i],
                    2.5 * (i % 9) - 3 + weights[i] + t[i & 3] + st[i % 3] - 1, 1e-6);
    by_constant_reference<<<1, 64>>>(s, gnumbers);
    to_host(numbers, gnumbers, 64);
    for (int i = 0; i < 64; i++)
        expect_equal("by_constant_reference", i, numbers[i], i % 9);
    branches<<<1, 64>>>(gnumbers, 23);
    int before[64];
    memcpy(before, numbers, sizeof before);
    to_host(numbers, gnumbers, 64);
    for (int i = 0; i < 64; i++)
        expect_equal("branches", i, numbers[i], branches_of(before[i], i, 23));
    for (int k = 0; k < 2; k++) {
        int w[8] = {k, k, 0, 0, 6, 0, 0, 0};
        CHECK(cudaMemcpy(gnumbers, w, sizeof w, cudaMemcpyHostToDevice));
        functions<<<1, 1>>>(gnumbers, s);
        to_host(w, gnumbers, 8);
        const int want[8] = {k, k, 6, 12, 6, 9, k ? 40 : 21, k ? 15 : 5};
        for (int i = 0; i < 8; i++)
            expect_equal("functions", i, w[i], want[i]);
    }
    CHECK(cudaFree(gweights));
    CHECK(cudaFree(gout));
    CHECK(cudaFree(gnumbers));
}

static void run_together(void)
{
    float x[512], out[512];
    for (int i = 0; i < 512; i++)
        x[i] = (float)(i % 37);
    float *gx = to_device(x, 512), *gout = to_device(x, 512);
    tile_sums<128, float><<<4, 128, 128 * sizeof(float)>>>(gout, gx);
    to_host(out, gout, 4);
    for (int b = 0; b < 4; b++) {
        double want = 128000;
        for (int i = 0; i < 128; i++)
            want += x[128 * b + i];
        expect_near("tile_sums", b, out[b], want, 0);
    }
    pipeline<<<1, 64>>>(gout, gx);
    to_host(out, gout, 128);
    for (int i = 0; i < 128; i++)
        expect_near("pipeline", i, out[i], x[i < 64 ? 255 - i : 511 - (i - 64)], 0);
    groups<<<1, 64>>>(gx);
    to_host(out, gx, 64);
    for (int i = 0; i < 64; i++) {
        double all = 0, above = 0;
        for (int k = i / 32 * 32; k < i / 32 * 32 + 32; k++) {
            all += x[k];
            above += x[k] > 10;
        }
        expect_near("groups", i, out[i], all + x[i % 8 == 7 ? i : i + 1] + above + i % 32 / 8, 0);
    }
    CHECK(cudaFree(gx));
    CHECK(cudaFree(gout));
}

int main(void)
{
    float weights[64];
    int count = 0;
    for (int i = 0; i < 64; i++)
        weights[i] = (float)i / 8;
    run_language(weights);
    run_together();
    speaks<<<2, 32>>>(7);
    CHECK(cudaDeviceSynchronize());
    CHECK(cudaMemcpyFromSymbol(&count, counter, sizeof count));
    expect_equal("counter", 0, count, 5 + 64);
    count = 100;
    CHECK(cudaMemcpyToSymbol(counter, &count, sizeof count));
    speaks<<<1, 1>>>(7);
    CHECK(cudaMemcpyFromSymbol(&count, counter, sizeof count));
    expect_equal("counter", 1, count, 101);
    return sample_wrong != 0;
}
