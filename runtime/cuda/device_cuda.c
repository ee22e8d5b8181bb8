/* device_cuda.c - a device that is an NVIDIA GPU: from its memory to its end.
 *
 * The device's own thread makes everything that belongs to the GPU, once: the one allocation,
 * which the stage's plan lays out, two streams, events, handles of cuBLAS, pinned memory, a
 * communicator. The main thread frees it when no thread works any more, because what one GPU
 * still copies may be another's memory.
 */
#include <stdlib.h>
#include <time.h>

#include "device_cuda.h"

enum { POLL_NANOSECONDS = 20000 };

#define OPEN_BLAS(call)                                                                            \
    do {                                                                                           \
        int blas_status_ = (int)(call);                                                            \
        if (blas_status_ != 0)                                                                     \
            return gpu_open_check(d, GPU_BLAS + blas_status_, #call);                              \
    } while (0)

int device_allocate(Device *d, Problem *p)
{
    d->own = calloc(1, sizeof *d->own);
    if (d->own)
        d->stage.event = calloc((size_t)d->plan->events + 1, sizeof *d->stage.event);
    if (!d->own || !d->stage.event)
        return problem_no_memory(p, "the devices");
    const MdlNccl *nccl = d->stage.trainer->model->nccl;
    return nccl && d->stage.index == 0
               ? gpu_problem(d, nccl->identify(d->own->nccl_id), "ncclGetUniqueId", p)
               : MDL_OK;
}

/* Where it can be, copies between two GPUs go from one to the other. */
static int peers_open(Device *d)
{
    Stage *s = &d->stage;
    const MdlModel *model = s->trainer->model;
    for (int i = 0; i < model->nlinks; i++) {
        const MdlLink *l = &model->links[i];
        if (l->from != s->index && l->to != s->index)
            continue;
        int other = model->stages[l->from == s->index ? l->to : l->from]->gpu, can = 0;
        if (other == d->plan->gpu)
            continue;
        OPEN(cudaDeviceCanAccessPeer(&can, d->plan->gpu, other));
        /* Enabled before, or impossible after all: then copies go through the host. */
        if (can)
            gpu_note((int)cudaDeviceEnablePeerAccess(other, 0));
    }
    return MDL_OK;
}

static int memory_open(Device *d)
{
    Stage *s = &d->stage;
    void *memory = NULL;
    OPEN(cudaMalloc(&memory, (size_t)d->plan->bytes));
    s->memory = memory;
    s->squares = (double *)(void *)(s->memory + d->plan->squares);
    void *host = NULL;
    if (d->plan->host_bytes > 0)
        OPEN(cudaMallocHost(&host, (size_t)d->plan->host_bytes));
    s->host = host;
    return MDL_OK;
}

static int streams_open(Device *d)
{
    Stage *s = &d->stage;
    OPEN(cudaStreamCreateWithFlags(&s->compute, cudaStreamNonBlocking));
    OPEN(cudaStreamCreateWithFlags(&s->transfer, cudaStreamNonBlocking));
    if (s->host) {
        OPEN(cudaStreamCreateWithFlags(&s->copy_out, cudaStreamNonBlocking));
        OPEN(cudaStreamCreateWithFlags(&s->copy_in, cudaStreamNonBlocking));
    }
    for (; d->own->events < d->plan->events; d->own->events++)
        OPEN(cudaEventCreateWithFlags(&s->event[d->own->events], cudaEventDisableTiming));
    return MDL_OK;
}

static int libraries_open(Device *d)
{
    Stage *s = &d->stage;
    Gpu *gpu = &d->own->gpu;
    gpu->device = d->plan->gpu;
    gpu->compute = s->compute;
    gpu->scratch = s->memory + d->plan->scratch;
    gpu->workspace = s->memory + d->plan->workspace;
    OPEN_BLAS(cublasCreate(&gpu->blas));
    OPEN_BLAS(cublasSetStream(gpu->blas, gpu->compute));
    /* After the stream, which takes cuBLAS back to a workspace of its own. */
    OPEN_BLAS(cublasSetWorkspace(gpu->blas, gpu->workspace, GPU_BLAS_WORKSPACE));
    /* No TF32; parts of sums in f32, whatever the operands are. */
    OPEN_BLAS(cublasSetMathMode(gpu->blas, CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION));
    OPEN_BLAS(cublasLtCreate(&gpu->lt));
    s->gpu = gpu;
    return MDL_OK;
}

/* Sums begin at zero, and so does the optimizer's state; all else is written before it is
 * read. */
static int memory_clear(Device *d)
{
    Stage *s = &d->stage;
    const Weights *weights = &s->trainer->weights;
    size_t nweights = (size_t)s->trainer->model->nweights;
    if (nweights > 0)
        OPEN(cudaMemsetAsync(s->squares, 0, nweights * sizeof *s->squares, s->compute));
    for (int64_t i = 0; i < weights->n; i++) {
        const Weight *w = &weights->all[i];
        for (int k = 0; k < 2; k++)
            if (w->stage == s->index && w->run->state[k] >= 0)
                OPEN(cudaMemsetAsync(s->memory + w->run->state[k] + w->turn * w->run->state_stride,
                                     0, (size_t)w->count * sizeof(real), s->compute));
    }
    OPEN(cudaStreamSynchronize(s->compute));
    return MDL_OK;
}

/* Called by the last stage of a meeting, for all. */
static void nothing(Stage *s)
{
    (void)s;
}

int stages_gather(Stage *s, const char *what)
{
    return stages_meet(s, nothing, what);
}

/* NCCL connects two ranks when one first sends to the other: it takes memory then, and where
 * several GPUs are of one process that may wait for a kernel of NCCL's which waits for this very
 * rank. So all ranks send to their neighbours before anything else runs. */
static int nccl_greet(Device *d)
{
    Stage *s = &d->stage;
    const MdlModel *model = s->trainer->model;
    char *place = d->own->gpu.workspace;
    int most = GPU_BLAS_WORKSPACE / MDL_NCCL_GREETING;
    int n = model->nlinks < most ? model->nlinks : most;
    if (n == 0)
        return MDL_OK;
    const char *call = "";
    OPEN(cudaMemsetAsync(place, 0, (size_t)n * MDL_NCCL_GREETING, s->transfer));
    int status = model->nccl->greet(s->nccl, model->links, n, s->index, place, s->transfer, &call);
    TRY(gpu_open_check(d, status, call));
    return gpu_wait(s, s->transfer);
}

/* Connecting waits for all ranks and could not be ended, so all come to it or none. */
static int nccl_open(Device *d)
{
    Stage *s = &d->stage;
    const Trainer *t = s->trainer;
    const MdlNccl *nccl = t->model->nccl;
    if (!nccl)
        return MDL_OK;
    TRY(stages_gather(s, "connecting"));
    TRY(gpu_open_check(
        d, nccl->connect(&s->nccl, t->model->nstages, s->index, t->devices[0].own->nccl_id),
        "ncclCommInitRank"));
    return nccl_greet(d);
}

int device_open(Device *d)
{
    Stage *s = &d->stage;
    const Trainer *t = s->trainer;
    d->team = team_new(t->threads, t->spin);
    if (!d->team)
        return stage_fail(s, "stage %d (%s): cannot start %d threads", s->index, d->plan->device,
                          t->threads);
    OPEN(cudaSetDevice(d->plan->gpu));
    TRY(peers_open(d));
    TRY(memory_open(d));
    TRY(streams_open(d));
    TRY(libraries_open(d));
    TRY(memory_clear(d));
    TRY(reports_open(d));
    TRY(clock_open(d));
    TRY(graphs_open(d));
    return nccl_open(d);
}

/* ------------------------------------------------------------------ at work */

/* An operation of NCCL never ends where another rank has failed, so it is looked at. */
static int poll_wait(Stage *s, cudaStream_t stream)
{
    const Trainer *t = s->trainer;
    int64_t begun = time_now();
    char place[TEXT_PLACE];
    for (cudaError_t status; (status = cudaStreamQuery(stream)) != cudaSuccess;) {
        gpu_note((int)status);
        if (status != cudaErrorNotReady)
            return gpu_check(s, (int)status, "cudaStreamQuery");
        if (atomic_load(&t->aborted))
            return MDL_STOPPED;
        TRY(gpu_check(s, t->model->nccl->failed(s->nccl), "ncclCommGetAsyncError"));
        if (t->options.timeout > 0 && (double)(time_now() - begun) > t->options.timeout * 1e9)
            return stage_fail(s, "%s: the GPU has not ended its work within %g s (--timeout)",
                              stage_place(s, place), t->options.timeout);
        nanosleep(&(struct timespec){.tv_nsec = POLL_NANOSECONDS}, NULL);
    }
    return MDL_OK;
}

int gpu_wait(Stage *s, cudaStream_t stream)
{
    if (s->nccl)
        return poll_wait(s, stream);
    return gpu_check(s, (int)cudaStreamSynchronize(stream), "cudaStreamSynchronize");
}

int device_collect(Device *d)
{
    Stage *s = &d->stage;
    TRY(clock_mark(d));
    TRY(squares_fetch(d));
    samples_prepare(d);
    TRY(gpu_wait(s, s->compute));
    TRY(gpu_wait(s, s->transfer));
    if (s->copy_out)
        TRY(gpu_wait(s, s->copy_out));
    if (s->copy_in)
        TRY(gpu_wait(s, s->copy_in));
    TRY(clock_resolve(d));
    return reports_collect(d);
}

/* ------------------------------------------------------------------- the end */

/* Other devices may still copy: nothing is freed here. */
void device_close(Device *d)
{
    Stage *s = &d->stage;
    const Trainer *t = s->trainer;
    bool aborted = atomic_load(&t->aborted);
    graphs_close(d); /* NCCL does not end before the graphs that it is in */
    if (s->nccl)
        gpu_note(t->model->nccl->close(s->nccl, aborted));
    s->nccl = NULL;
    if (s->compute)
        gpu_note((int)cudaStreamSynchronize(s->compute));
    const cudaStream_t streams[] = {s->transfer, s->copy_out, s->copy_in};
    for (int i = 0; i < 3; i++)
        if (streams[i])
            gpu_note((int)cudaStreamSynchronize(streams[i]));
    team_free(d->team);
}

void device_free(Device *d)
{
    Stage *s = &d->stage;
    struct DeviceOwn *own = d->own;
    if (!own)
        return;
    if (s->compute || s->memory)
        gpu_note((int)cudaSetDevice(d->plan->gpu));
    clock_close(d);
    reports_close(d);
    if (own->gpu.lt)
        (void)cublasLtDestroy(own->gpu.lt);
    if (own->gpu.blas)
        (void)cublasDestroy(own->gpu.blas);
    for (int i = 0; i < own->events; i++)
        gpu_note((int)cudaEventDestroy(s->event[i]));
    const cudaStream_t streams[] = {s->transfer, s->copy_out, s->copy_in};
    for (int i = 0; i < 3; i++)
        if (streams[i])
            gpu_note((int)cudaStreamDestroy(streams[i]));
    if (s->host)
        gpu_note((int)cudaFreeHost(s->host));
    if (s->compute)
        gpu_note((int)cudaStreamDestroy(s->compute));
    if (s->memory)
        gpu_note((int)cudaFree(s->memory));
    free(s->event);
    free(own);
}
