/* graphs.cu - streams captured as CUDA graphs, and graphs run. */
#include "bug.h"

__global__ void produce(float *out, const float *start)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    out[i] = i + *start; /* here: produce */
}

__global__ void consume(float *out, const float *in)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    out[i] = 2 * in[i]; /* here: consume */
}

__global__ void advance(float *start)
{
    *start += 1;
}

/* Two captured streams; and the graph that comes of them. */
struct Setting {
    float *a, *b, *c, *start;
    cudaStream_t first, second;
    cudaEvent_t fork, join;
    cudaGraph_t graph;
    cudaGraphExec_t run;

    Setting()
        : a(device_zeros<float>(N)), b(device_zeros<float>(N)), c(device_zeros<float>(N)),
          start(device_zeros<float>(1)), first(new_stream()), second(new_stream()),
          fork(new_event()), join(new_event()), graph(nullptr), run(nullptr)
    {
        CHECK(cudaStreamBeginCapture(first, cudaStreamCaptureModeThreadLocal));
    }
    void end_capture(bool careful = true)
    {
        cudaError_t status = cudaStreamEndCapture(first, &graph);
        if (careful)
            CHECK(status);
        CHECK(cudaGraphInstantiate(&run, graph, 0));
        CHECK(cudaGraphDestroy(graph));
    }
    ~Setting()
    {
        CHECK(cudaGraphExecDestroy(run));
        CHECK(cudaEventDestroy(join));
        CHECK(cudaEventDestroy(fork));
        CHECK(cudaStreamDestroy(second));
        CHECK(cudaStreamDestroy(first));
        CHECK(cudaFree(start));
        CHECK(cudaFree(c));
        CHECK(cudaFree(b));
        CHECK(cudaFree(a));
    }
};

// case: graph_branches_race - one branch reads what the other writes
// expect: race  kernel consume  here:consume  kernel produce  here:produce
CASE(graph_branches_race)
{
    Setting s;
    if (BUG)
        CHECK(cudaEventRecord(s.fork, s.first));
    produce<<<BLOCKS, THREADS, 0, s.first>>>(s.a, s.start);
    if (!BUG)
        CHECK(cudaEventRecord(s.fork, s.first));
    CHECK(cudaStreamWaitEvent(s.second, s.fork, 0));
    consume<<<BLOCKS, THREADS, 0, s.second>>>(s.b, s.a);
    consume<<<BLOCKS, THREADS, 0, s.first>>>(s.c, s.a);
    CHECK(cudaEventRecord(s.join, s.second));
    CHECK(cudaStreamWaitEvent(s.first, s.join, 0));
    advance<<<1, 1, 0, s.first>>>(s.start);
    CHECK(cudaGetLastError());
    s.end_capture();
    for (int turn = 0; turn < 3; ++turn)
        CHECK(cudaGraphLaunch(s.run, s.first));
    CHECK(cudaStreamSynchronize(s.first));
    expect_line(s.a, N, 1, 2);
    expect_line(s.b, N, 2, 4);
    expect_line(s.c, N, 2, 4);
    EXPECT(device_value(s.start) == 3);
}

// case: graph_not_awaited - a stream reads what a running graph writes
// expect: race  kernel consume  here:consume  kernel produce  here:produce
CASE(graph_not_awaited)
{
    Setting s;
    produce<<<BLOCKS, THREADS, 0, s.first>>>(s.a, s.start);
    CHECK(cudaGetLastError());
    s.end_capture();
    CHECK(cudaGraphLaunch(s.run, s.first));
    CHECK(cudaEventRecord(s.join, s.first));
    if (!BUG)
        CHECK(cudaStreamWaitEvent(s.second, s.join, 0));
    consume<<<BLOCKS, THREADS, 0, s.second>>>(s.b, s.a);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    expect_line(s.b, N, 2, 0);
}

// case: graph_does_not_wait - a graph reads what a stream that it is not ordered with writes
// expect: race  kernel consume  here:consume  kernel produce  here:produce
CASE(graph_does_not_wait)
{
    Setting s;
    consume<<<BLOCKS, THREADS, 0, s.first>>>(s.b, s.a);
    CHECK(cudaGetLastError());
    s.end_capture();
    produce<<<BLOCKS, THREADS, 0, BUG ? s.second : s.first>>>(s.a, s.start);
    CHECK(cudaGetLastError());
    CHECK(cudaGraphLaunch(s.run, s.first));
    CHECK(cudaDeviceSynchronize());
    expect_line(s.b, N, 2, 0);
}

// case: graph_unjoined - a captured stream's work is not joined, and nobody looks at the error
// expect: after-failure  cudaStreamEndCapture  cudaErrorStreamCaptureUnjoined
CASE(graph_unjoined)
{
    Setting s;
    CHECK(cudaEventRecord(s.fork, s.first));
    CHECK(cudaStreamWaitEvent(s.second, s.fork, 0));
    produce<<<BLOCKS, THREADS, 0, s.second>>>(s.a, s.start);
    CHECK(cudaGetLastError());
    CHECK(cudaEventRecord(s.join, s.second));
    if (!BUG)
        CHECK(cudaStreamWaitEvent(s.first, s.join, 0));
    s.end_capture(!BUG);
    CHECK(cudaGraphLaunch(s.run, s.first));
    CHECK(cudaStreamSynchronize(s.first));
    expect_line(s.a, N, 1, 0);
}

// case: graph_synchronised - the host waits for a stream that is being captured, carelessly
// expect: after-failure  cudaStreamSynchronize  cudaErrorStreamCaptureUnsupported
CASE(graph_synchronised)
{
    Setting s;
    produce<<<BLOCKS, THREADS, 0, s.first>>>(s.a, s.start);
    CHECK(cudaGetLastError());
    if (BUG)
        cudaStreamSynchronize(s.first);
    s.end_capture();
    CHECK(cudaGraphLaunch(s.run, s.first));
    CHECK(cudaStreamSynchronize(s.first));
    expect_line(s.a, N, 1, 0);
}

// case: graph_memory_freed - memory that a graph uses is freed before the graph runs
// expect: use-after-free  kernel produce  here:produce
CASE(graph_memory_freed)
{
    Setting s;
    float *start = s.start;
    produce<<<BLOCKS, THREADS, 0, s.first>>>(s.a, start);
    CHECK(cudaGetLastError());
    s.end_capture();
    if (BUG) {
        CHECK(cudaFree(start));
        s.start = nullptr;
    }
    CHECK(cudaGraphLaunch(s.run, s.first));
    CHECK(cudaStreamSynchronize(s.first));
    expect_line(s.a, N, 1, 0);
}

// case: leak_graph - an instantiated graph is never destroyed
// expect: leak  graph
CASE(leak_graph)
{
    cudaGraphExec_t kept;
    {
        Setting s;
        produce<<<BLOCKS, THREADS, 0, s.first>>>(s.a, s.start);
        CHECK(cudaGetLastError());
        s.end_capture();
        CHECK(cudaStreamBeginCapture(s.first, cudaStreamCaptureModeGlobal));
        CHECK(cudaStreamEndCapture(s.first, &s.graph));
        CHECK(cudaGraphInstantiate(&kept, s.graph, 0));
        CHECK(cudaGraphDestroy(s.graph));
        CHECK(cudaGraphLaunch(s.run, s.first));
        CHECK(cudaGraphLaunch(kept, s.first));
        CHECK(cudaStreamSynchronize(s.first));
        expect_line(s.a, N, 1, 0);
    }
    if (!BUG)
        CHECK(cudaGraphExecDestroy(kept));
}
