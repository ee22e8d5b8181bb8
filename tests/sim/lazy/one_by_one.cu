/* one_by_one.cu - a program whose kernels share variables, for one_by_one.sh.
 *
 *     one_by_one CASE [WORD...]   prints numbers; exit code 0
 */
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>

#include <cuda_runtime.h>
#include <nccl.h>

#define CHECK(CALL)                                                                                \
    do {                                                                                           \
        if ((int)(CALL) != 0) {                                                                    \
            fprintf(stderr, "%s failed\n", #CALL);                                                 \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

__device__ int total = 3;
__constant__ int step = 4;
__device__ int *const of_total = &total;

__global__ void add()
{
    total += step;
}

__global__ void twice()
{
    *of_total = 2 * total;
}

/* Of shared memory, threads of the block see what the other one stored. */
__global__ void swapped(int *out)
{
    __shared__ int pair[2];
    pair[threadIdx.x] = total + (int)threadIdx.x;
    __syncthreads();
    out[threadIdx.x] = pair[1 - threadIdx.x];
}

template <int N> __global__ void numbered(int *out)
{
    out[threadIdx.x] = N * (int)threadIdx.x;
}

/* A product of doubles by tensor cores, which are not simulated. */
__global__ void not_simulated(float *out)
{
    double c[2] = {0, 0};
    asm volatile("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0, %1}, {%2}, {%2}, {%0, %1};"
                 : "+d"(c[0]), "+d"(c[1])
                 : "d"(1.0));
    out[threadIdx.x] = (float)(c[0] + c[1]);
}

/* Kernels in the order of the words, in which "set" is a copy to the constant. */
static void in_order(int n, char **words)
{
    int *out, numbers[2], sum = 0;
    CHECK(cudaMalloc(&out, sizeof numbers));
    for (int i = 0; i < n; ++i) {
        const int ten = 10;
        if (strcmp(words[i], "set") == 0)
            CHECK(cudaMemcpyToSymbol(step, &ten, sizeof ten));
        else if (strcmp(words[i], "add") == 0)
            add<<<1, 1>>>();
        else if (strcmp(words[i], "twice") == 0)
            twice<<<1, 1>>>();
        else
            swapped<<<1, 2>>>(out);
        CHECK(cudaGetLastError());
    }
    CHECK(cudaMemcpyFromSymbol(&sum, total, sizeof sum));
    CHECK(cudaMemcpy(numbers, out, sizeof numbers, cudaMemcpyDeviceToHost));
    printf("%d %d %d\n", sum, numbers[0], numbers[1]);
    CHECK(cudaFree(out));
}

static void unknown()
{
    float *out;
    CHECK(cudaMalloc(&out, 32 * sizeof *out));
    not_simulated<<<1, 32>>>(out);
    CHECK(cudaGetLastError());
}

static void attributes()
{
    cudaFuncAttributes of;
    CHECK(cudaFuncGetAttributes(&of, (const void *)swapped));
    printf("%zu\n", of.sharedSizeBytes);
}

static int last;
template <int N> static void launch()
{
    int *out, numbers[8];
    CHECK(cudaSetDevice(0));
    CHECK(cudaMalloc(&out, sizeof numbers));
    numbered<N><<<1, 8>>>(out);
    CHECK(cudaGetLastError());
    CHECK(cudaMemcpy(numbers, out, sizeof numbers, cudaMemcpyDeviceToHost));
    __atomic_fetch_add(&last, numbers[7], __ATOMIC_SEQ_CST);
    CHECK(cudaFree(out));
}

/* Two kernels, by three threads each. */
static void threads()
{
    std::thread all[6];
    for (int i = 0; i < 6; ++i)
        all[i] = std::thread(i < 3 ? launch<3> : launch<5>);
    for (std::thread &t : all)
        t.join();
    printf("%d\n", last);
}

/* Two threads, of which one receives what the other sends once its kernel has run. */
static void late()
{
    int devices[2] = {0, 1};
    ncclComm_t ranks[2];
    CHECK(ncclCommInitAll(ranks, 2, devices));
    std::thread all[2];
    for (int rank = 0; rank < 2; ++rank)
        all[rank] = std::thread([rank, &ranks] {
            int *data, numbers[8];
            CHECK(cudaSetDevice(rank));
            CHECK(cudaMalloc(&data, sizeof numbers));
            if (rank == 0) {
                numbered<3><<<1, 8>>>(data);
                CHECK(cudaGetLastError());
                CHECK(ncclSend(data, 8, ncclInt, 1, ranks[0], 0));
                CHECK(cudaDeviceSynchronize());
            } else {
                CHECK(ncclRecv(data, 8, ncclInt, 0, ranks[1], 0));
                CHECK(cudaMemcpy(numbers, data, sizeof numbers, cudaMemcpyDeviceToHost));
                printf("%d\n", numbers[7]);
            }
            CHECK(cudaFree(data));
        });
    for (std::thread &t : all)
        t.join();
    for (ncclComm_t rank : ranks)
        CHECK(ncclCommDestroy(rank));
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";
    if (strcmp(name, "order") == 0)
        in_order(argc - 2, argv + 2);
    else if (strcmp(name, "unknown") == 0)
        unknown();
    else if (strcmp(name, "attributes") == 0)
        attributes();
    else if (strcmp(name, "threads") == 0)
        threads();
    else if (strcmp(name, "late") == 0)
        late();
    else
        return 2;
    return 0;
}
