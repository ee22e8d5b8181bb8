/* wrong_library_calls.c CASE - mistakes with cuBLAS, cuBLASLt and NCCL that must be reported.
 *
 * wrong_library_calls.sh says what each report must hold. A program that gets past its mistake
 * ends with 0, which is wrong, too; one whose other calls fail, with 3.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cublasLt.h>
#include <cublas_v2.h>
#include <cuda_runtime_api.h>
#include <nccl.h>

static void fine_at(int status, int line)
{
    if (status == 0)
        return;
    fprintf(stderr, "line %d: error %d\n", line, status);
    exit(3);
}
#define FINE(call) fine_at((int)(call), __LINE__)

enum { N = 16 };
static const float one = 1, zero = 0;

static float *memory(size_t n)
{
    void *p = NULL;
    FINE(cudaMalloc(&p, n * sizeof(float)));
    FINE(cudaMemset(p, 0, n * sizeof(float)));
    FINE(cudaDeviceSynchronize());
    return p;
}

static cudaStream_t stream_new(void)
{
    cudaStream_t stream;
    FINE(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    return stream;
}

static cublasHandle_t handle_new(cudaStream_t stream)
{
    cublasHandle_t handle;
    FINE(cublasCreate(&handle));
    FINE(cublasSetStream(handle, stream));
    return handle;
}

static void multiply(cublasHandle_t handle, const float *a, const float *b, float *c)
{
    FINE(cublasSgemm(handle, CUBLAS_OP_N, CUBLAS_OP_N, N, N, N, &one, a, N, b, N, &zero, c, N));
}

/* ------------------------------------------------------------------------- cuBLAS */

static void workspace_shared(void)
{
    float *a = memory(N * N), *c = memory(N * N), *d = memory(N * N), *workspace = memory(4096);
    cublasHandle_t first = handle_new(stream_new()), second = handle_new(stream_new());
    FINE(cublasSetWorkspace(first, workspace, 16384));
    FINE(cublasSetWorkspace(second, workspace, 16384));
    multiply(first, a, a, c);
    multiply(second, a, a, d);
    FINE(cudaDeviceSynchronize());
}

static void workspace_too_large(void)
{
    cublasHandle_t handle = handle_new(stream_new());
    FINE(cublasSetWorkspace(handle, memory(4096), 16385));
}

static void workspace_of_other_device(void)
{
    cublasHandle_t handle = handle_new(stream_new());
    FINE(cudaSetDevice(1));
    FINE(cublasSetWorkspace(handle, memory(4096), 4096));
}

static void result_over_operand(void)
{
    float *a = memory(2 * N * N);
    multiply(handle_new(stream_new()), a, a + N * N, a + N);
    FINE(cudaDeviceSynchronize());
}

static void results_of_batch_overlap(void)
{
    float *a = memory(N * N), *c = memory(N * N);
    FINE(cublasSgemmStridedBatched(handle_new(stream_new()), CUBLAS_OP_N, CUBLAS_OP_N, N, 1, N,
                                   &one, a, N, 0, a, N, 0, &zero, c, N, N - 1, 2));
}

static void matrix_misaligned(void)
{
    float *a = memory(N * N + 1), *c = memory(N * N);
    multiply(handle_new(stream_new()), (const float *)(const void *)((const char *)a + 2), a, c);
    FINE(cudaDeviceSynchronize());
}

static void scalar_on_device(void)
{
    float *a = memory(N * N), *c = memory(N * N);
    FINE(cublasSgemm(handle_new(stream_new()), CUBLAS_OP_N, CUBLAS_OP_N, N, N, N, a, a, N, a, N,
                     &zero, c, N));
}

static void scalar_on_host(void)
{
    float *a = memory(N * N), *c = memory(N * N);
    cublasHandle_t handle = handle_new(stream_new());
    FINE(cublasSetPointerMode(handle, CUBLAS_POINTER_MODE_DEVICE));
    multiply(handle, a, a, c);
    FINE(cudaDeviceSynchronize());
}

static void handle_on_other_device(void)
{
    float *a = memory(N * N), *c = memory(N * N);
    cublasHandle_t handle = handle_new(stream_new());
    FINE(cudaSetDevice(1));
    multiply(handle, a, a, c);
}

static void vector_out_of_bounds(void)
{
    float *x = memory(N);
    FINE(cublasSscal(handle_new(stream_new()), N / 2 + 1, &one, x, 2));
    FINE(cudaDeviceSynchronize());
}

static void failure_unnoticed(void)
{
    float *a = memory(N * N);
    cublasHandle_t handle = handle_new(stream_new());
    (void)cublasSgemm(handle, CUBLAS_OP_N, CUBLAS_OP_N, N, N, N, &one, a, N - 1, a, N, &zero, a, N);
    multiply(handle, a, a, a);
}

static void failure_asked_for(void)
{
    float *a = memory(N * N), *c = memory(N * N);
    cublasHandle_t handle = handle_new(stream_new());
    multiply(handle, a, a, c);
    multiply(handle, a, a, c); /* MDL_SIM_FAIL=cublasSgemm:2 */
}

static void unknown_product(void)
{
    float *a = memory(N * N), *c = memory(N * N);
    FINE(cublasSsymm(handle_new(stream_new()), CUBLAS_SIDE_LEFT, CUBLAS_FILL_MODE_LOWER, N, N, &one,
                     a, N, a, N, &zero, c, N));
}

/* ----------------------------------------------------------------------- cuBLASLt */

static void descriptor_destroyed(void)
{
    cublasLtMatmulDesc_t desc;
    int32_t transpose = CUBLAS_OP_T;
    FINE(cublasLtMatmulDescCreate(&desc, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    FINE(cublasLtMatmulDescDestroy(desc));
    FINE(cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_TRANSA, &transpose,
                                        sizeof transpose));
}

static void descriptor_leak(void)
{
    cublasLtMatrixLayout_t layout;
    FINE(cublasLtMatrixLayoutCreate(&layout, CUDA_R_32F, N, N, N));
}

static void unknown_attribute(void)
{
    cublasLtMatmulDesc_t desc;
    void *scale = NULL;
    FINE(cublasLtMatmulDescCreate(&desc, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    FINE(cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, &scale,
                                        sizeof scale));
}

static void unknown_transform(void)
{
    FINE(
        cublasLtMatrixTransform(NULL, NULL, &one, NULL, NULL, &zero, NULL, NULL, NULL, NULL, NULL));
}

static void bias_out_of_bounds(void)
{
    cublasLtHandle_t handle;
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t square;
    float *a = memory(N * N), *d = memory(N * N), *bias = memory(N - 1);
    uint32_t epilogue = CUBLASLT_EPILOGUE_RELU_BIAS;
    FINE(cublasLtCreate(&handle));
    FINE(cublasLtMatmulDescCreate(&desc, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    FINE(cublasLtMatrixLayoutCreate(&square, CUDA_R_32F, N, N, N));
    FINE(cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue,
                                        sizeof epilogue));
    FINE(cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias,
                                        sizeof bias));
    FINE(cublasLtMatmul(handle, desc, &one, a, square, a, square, &zero, d, square, d, square, NULL,
                        NULL, 0, stream_new()));
    FINE(cudaDeviceSynchronize());
}

/* --------------------------------------------------------------------------- NCCL */

typedef struct {
    ncclComm_t comm, second;
    cudaStream_t stream, other;
    float *a, *b;
} Rank;

static Rank ranks[2];

static void join(void)
{
    ncclComm_t comms[2], second[2];
    FINE(ncclCommInitAll(comms, 2, NULL));
    FINE(ncclCommInitAll(second, 2, NULL));
    for (int i = 0; i < 2; i++) {
        FINE(cudaSetDevice(i));
        ranks[i] =
            (Rank){comms[i], second[i], stream_new(), stream_new(), memory(2 * N), memory(2 * N)};
    }
}

static void finish(void)
{
    for (int i = 0; i < 2; i++) {
        FINE(cudaStreamSynchronize(ranks[i].stream));
        FINE(cudaStreamSynchronize(ranks[i].other));
    }
}

static void send(int from, float *data, size_t n, ncclDataType_t type, ncclComm_t comm)
{
    FINE(ncclSend(data, n, type, 1 - from, comm, ranks[from].stream));
}

static void receive(int to, float *data, size_t n, ncclDataType_t type, ncclComm_t comm)
{
    FINE(ncclRecv(data, n, type, 1 - to, comm, ranks[to].stream));
}

/* Each rank has one stream for two communicators, and uses them in different orders. */
static void two_communicators(void)
{
    join();
    for (int i = 0; i < 2; i++) {
        Rank *r = &ranks[i];
        ncclComm_t order[2] = {i ? r->second : r->comm, i ? r->comm : r->second};
        for (int c = 0; c < 2; c++)
            FINE(ncclAllReduce(r->a, r->b, N, ncclFloat, ncclSum, order[c], r->stream));
    }
    finish();
}

/* The later call's stream is ready first, but NCCL keeps the order of the calls. */
static void calls_out_of_order(void)
{
    cudaEvent_t event;
    join();
    Rank *r = &ranks[0];
    FINE(cudaSetDevice(0));
    FINE(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    receive(0, r->a, N, ncclFloat, r->comm);
    FINE(ncclSend(r->b, N, ncclFloat, 1, r->comm, r->other));
    FINE(cudaSetDevice(1));
    receive(1, ranks[1].a, N, ncclFloat, ranks[1].comm);
    send(1, ranks[1].a, N, ncclFloat, ranks[1].comm);
    finish();
}

static void second_message_differs(void)
{
    join();
    for (int m = 0; m < 2; m++) {
        send(0, ranks[0].a, N, ncclFloat, ranks[0].comm);
        receive(1, ranks[1].a, m ? N / 2 : N, m ? ncclFloat64 : ncclFloat, ranks[1].comm);
    }
    finish();
}

static void message_counts_differ(void)
{
    join();
    receive(1, ranks[1].a, N - 1, ncclFloat, ranks[1].comm);
    send(0, ranks[0].a, N, ncclFloat, ranks[0].comm);
    finish();
}

/* A send may end before its data is received, so it tells nothing of the receiver's work. */
static void send_tells_nothing(void)
{
    Rank *r = ranks;
    join();
    FINE(cudaMemsetAsync(r[1].b, 1, N, r[1].stream));
    receive(1, r[1].a, N, ncclFloat, r[1].comm);
    FINE(cudaSetDevice(0));
    send(0, r[0].a, N, ncclFloat, r[0].comm);
    FINE(cudaMemcpyPeerAsync(r[0].b, 0, r[1].b, 1, N, r[0].stream));
    finish();
}

/* Nor does a root learn anything from those that it sends to. */
static void root_learns_nothing(void)
{
    Rank *r = ranks;
    join();
    FINE(cudaMemsetAsync(r[1].b, 1, N, r[1].stream));
    for (int i = 0; i < 2; i++)
        FINE(ncclBroadcast(r[i].a, r[i].a, N, ncclFloat, 0, r[i].comm, r[i].stream));
    FINE(cudaSetDevice(0));
    FINE(cudaMemcpyPeerAsync(r[0].b, 0, r[1].b, 1, N, r[0].stream));
    finish();
}

static void reductions_differ(void)
{
    join();
    for (int i = 0; i < 2; i++)
        FINE(ncclAllReduce(ranks[i].a, ranks[i].b, N, ncclFloat, i ? ncclSum : ncclAvg,
                           ranks[i].comm, ranks[i].stream));
    finish();
}

static void group_writes_what_it_sends(void)
{
    join();
    for (int i = 0; i < 2; i++) {
        FINE(ncclGroupStart());
        send(i, ranks[i].a, N, ncclFloat, ranks[i].comm);
        receive(i, ranks[i].a + N - 1, N, ncclFloat, ranks[i].comm);
        FINE(ncclGroupEnd());
    }
    finish();
}

static void not_in_place(void)
{
    join();
    FINE(ncclAllReduce(ranks[0].a, ranks[0].a + 1, N, ncclFloat, ncclSum, ranks[0].comm,
                       ranks[0].stream));
}

static void message_never_received(void)
{
    join();
    send(0, ranks[0].a, N, ncclFloat, ranks[0].comm);
    FINE(ncclCommDestroy(ranks[0].comm));
}

static void rank_never_joins(void)
{
    ncclUniqueId id;
    ncclComm_t comm;
    FINE(ncclGetUniqueId(&id));
    FINE(ncclCommInitRank(&comm, 2, id, 0));
}

static void rank_joins_twice(void)
{
    ncclUniqueId id;
    ncclComm_t comms[2];
    FINE(ncclGetUniqueId(&id));
    FINE(ncclGroupStart());
    FINE(ncclCommInitRank(&comms[0], 2, id, 0));
    FINE(cudaSetDevice(1));
    FINE(ncclCommInitRank(&comms[1], 2, id, 0));
}

static void sizes_of_communicator_differ(void)
{
    ncclUniqueId id;
    ncclComm_t comms[2];
    FINE(ncclGetUniqueId(&id));
    FINE(ncclGroupStart());
    FINE(ncclCommInitRank(&comms[0], 2, id, 0));
    FINE(cudaSetDevice(1));
    FINE(ncclCommInitRank(&comms[1], 3, id, 1));
}

static void communicator_destroyed(void)
{
    join();
    FINE(ncclCommDestroy(ranks[0].comm));
    send(0, ranks[0].a, N, ncclFloat, ranks[0].comm);
}

static void communicator_aborted(void)
{
    join();
    send(0, ranks[0].a, N, ncclFloat, ranks[0].comm);
    FINE(ncclCommAbort(ranks[0].comm));
    FINE(cudaStreamSynchronize(ranks[0].stream)); /* gets through */
    FINE(ncclAllReduce(ranks[0].a, ranks[0].b, N, ncclFloat, ncclSum, ranks[0].comm,
                       ranks[0].stream));
}

static void communicator_finalized(void)
{
    join();
    FINE(ncclCommFinalize(ranks[1].comm));
    send(1, ranks[1].a, N, ncclFloat, ranks[1].comm);
}

static void communicator_leak(void)
{
    ncclComm_t comms[2];
    FINE(ncclCommInitAll(comms, 2, NULL));
    FINE(ncclCommDestroy(comms[0]));
}

static void unknown_reduction(void)
{
    join();
    FINE(ncclAllReduce(ranks[0].a, ranks[0].b, N, ncclFloat8e4m3, ncclSum, ranks[0].comm,
                       ranks[0].stream));
}

static void unknown_split(void)
{
    ncclComm_t made;
    join();
    FINE(ncclCommSplit(ranks[0].comm, 0, 0, &made, NULL));
}

#define CASE(name)                                                                                 \
    {                                                                                              \
#name, name                                                                                \
    }
static const struct {
    const char *name;
    void (*run)(void);
} cases[] = {CASE(workspace_shared),
             CASE(workspace_too_large),
             CASE(workspace_of_other_device),
             CASE(result_over_operand),
             CASE(results_of_batch_overlap),
             CASE(matrix_misaligned),
             CASE(scalar_on_device),
             CASE(scalar_on_host),
             CASE(handle_on_other_device),
             CASE(vector_out_of_bounds),
             CASE(failure_unnoticed),
             CASE(failure_asked_for),
             CASE(unknown_product),
             CASE(descriptor_destroyed),
             CASE(descriptor_leak),
             CASE(unknown_attribute),
             CASE(unknown_transform),
             CASE(bias_out_of_bounds),
             CASE(two_communicators),
             CASE(calls_out_of_order),
             CASE(second_message_differs),
             CASE(message_counts_differ),
             CASE(send_tells_nothing),
             CASE(root_learns_nothing),
             CASE(reductions_differ),
             CASE(group_writes_what_it_sends),
             CASE(not_in_place),
             CASE(message_never_received),
             CASE(rank_never_joins),
             CASE(rank_joins_twice),
             CASE(sizes_of_communicator_differ),
             CASE(communicator_destroyed),
             CASE(communicator_aborted),
             CASE(communicator_finalized),
             CASE(communicator_leak),
             CASE(unknown_reduction),
             CASE(unknown_split)};

int main(int argc, char **argv)
{
    for (size_t i = 0; argc == 2 && i < sizeof cases / sizeof cases[0]; i++)
        if (strcmp(argv[1], cases[i].name) == 0) {
            cases[i].run();
            return 0;
        }
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        puts(cases[i].name);
    return argc == 1 ? 0 : 2;
}
