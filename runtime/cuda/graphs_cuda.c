/* graphs_cuda.c - the passes of a step as a CUDA graph, for --cuda-graph.
 *
 * In:  the function that puts a step's forward and backward passes with their messages into the
 *      streams; what it puts there is the same in every step but for the samples.
 * Out: after the first step, one launch in its place.
 *
 * The first step is put into the streams as always, which loads kernels, things that a capture
 * does not allow. When the GPUs have done it the passes are captured, once for each of the two sets
 * of places that samples take turns in, and everything that launches need is made ready on the
 * GPU. From then on a step is: samples to their places in pinned memory,
 * the launch, and then as always what differs from step to step: clipping and the update.
 *
 *     compute   ──┬── F0 ── F1 ── B0 ── ... ──┬──     captured; the transfer stream is in the
 *     transfer    └── receive ── send ── ... ─┘       capture between fork and join
 */
#include <stdlib.h>
#include <string.h>

#include "device_cuda.h"

int graphs_open(Device *d)
{
    Stage *s = &d->stage;
    const MdlModel *model = s->trainer->model;
    StepGraphs *g = &d->own->graphs;
    if (!s->trainer->options.cuda_graph)
        return MDL_OK;
    g->loads = calloc((size_t)model->ninputs * (size_t)model->microbatches, sizeof *g->loads);
    g->numbers = calloc((size_t)d->own->room, sizeof *g->numbers);
    if (!g->loads || !g->numbers)
        return stage_fail(s, "stage %d (%s): out of memory", s->index, d->plan->device);
    OPEN(cudaEventCreateWithFlags(&g->fork, cudaEventDisableTiming));
    OPEN(cudaEventCreateWithFlags(&g->join, cudaEventDisableTiming));
    return MDL_OK;
}

void graphs_close(Device *d)
{
    StepGraphs *g = &d->own->graphs;
    for (int i = 0; i < 2; i++)
        if (g->exec[i])
            gpu_note((int)cudaGraphExecDestroy(g->exec[i]));
    if (g->fork)
        gpu_note((int)cudaEventDestroy(g->fork));
    if (g->join)
        gpu_note((int)cudaEventDestroy(g->join));
    free(g->loads);
    free(g->numbers);
    *g = (StepGraphs){0};
}

/* What is put into `later` from now on comes after all that is in `earlier`. */
static int stream_follow(Stage *s, cudaStream_t later, cudaStream_t earlier, cudaEvent_t event)
{
    CUDA(cudaEventRecord(event, earlier));
    CUDA(cudaStreamWaitEvent(later, event, 0));
    return MDL_OK;
}

/* Without messages the transfer stream stays outside. */
static int passes_joined(Device *d, int (*passes)(Stage *s))
{
    Stage *s = &d->stage;
    const StepGraphs *g = &d->own->graphs;
    if (!s->nccl)
        return passes(s);
    TRY(stream_follow(s, s->transfer, s->compute, g->fork));
    TRY(passes(s));
    return stream_follow(s, s->compute, s->transfer, g->join);
}

static int passes_capture(Device *d, int set, int (*passes)(Stage *s))
{
    Stage *s = &d->stage;
    struct DeviceOwn *own = d->own;
    cudaGraph_t graph = NULL;
    int current = own->current;
    CUDA(cudaStreamBeginCapture(s->compute, cudaStreamCaptureModeThreadLocal));
    own->graphs.capturing = true;
    own->current = set;
    own->nnumbers = 0;
    int status = passes_joined(d, passes);
    /* Also after a failure: the streams must not stay in a capture. */
    cudaError_t ended = cudaStreamEndCapture(s->compute, &graph);
    own->current = current;
    own->graphs.capturing = false;
    gpu_note((int)ended);
    if (status == MDL_OK)
        status = gpu_check(s, (int)ended, "cudaStreamEndCapture");
    if (status == MDL_OK)
        status = gpu_check(s, (int)cudaGraphInstantiate(&own->graphs.exec[set], graph, 0),
                           "cudaGraphInstantiate");
    if (graph)
        gpu_note((int)cudaGraphDestroy(graph));
    if (status != MDL_OK)
        return status;
    return gpu_check(s, (int)cudaGraphUpload(own->graphs.exec[set], s->compute), "cudaGraphUpload");
}

/* Graphs take memory of the driver's. Where several GPUs are of one process that may wait for a
 * kernel of NCCL's which waits for this very stage: none runs while graphs are made. */
static int passes_rest(Device *d)
{
    Stage *s = &d->stage;
    if (!s->nccl)
        return MDL_OK;
    TRY(gpu_wait(s, s->compute));
    TRY(gpu_wait(s, s->transfer));
    return stages_gather(s, "making graphs");
}

/* Both captures send the numbers that the passes have sent in this step. */
static int passes_begin(Device *d, int (*passes)(Stage *s))
{
    struct DeviceOwn *own = d->own;
    const MdlModel *model = d->stage.trainer->model;
    StepGraphs *g = &own->graphs;
    TRY(passes(&d->stage));
    memcpy(g->loads, own->staging[own->current].there,
           (size_t)model->ninputs * (size_t)model->microbatches * sizeof *g->loads);
    TRY(passes_rest(d));
    for (int set = 0; set < 2; set++)
        TRY(passes_capture(d, set, passes));
    TRY(passes_rest(d));
    g->nnumbers = own->nnumbers;
    memcpy(g->numbers, own->numbers, (size_t)g->nnumbers * sizeof *g->numbers);
    return MDL_OK;
}

static int passes_launch(Device *d)
{
    Stage *s = &d->stage;
    struct DeviceOwn *own = d->own;
    const StepGraphs *g = &own->graphs;
    TRY(samples_complete(d, g->loads));
    memcpy(own->numbers, g->numbers, (size_t)g->nnumbers * sizeof *g->numbers);
    own->nnumbers = g->nnumbers;
    CUDA(cudaGraphLaunch(g->exec[own->current], s->compute));
    /* Messages after the update count on the transfer stream having sent those before. */
    return s->nccl ? stream_follow(s, s->transfer, s->compute, g->fork) : MDL_OK;
}

int step_passes(Stage *s, int (*passes)(Stage *s))
{
    Device *d = device_of(s);
    if (!s->trainer->options.cuda_graph)
        return passes(s);
    return d->own->graphs.exec[d->own->current] ? passes_launch(d) : passes_begin(d, passes);
}
