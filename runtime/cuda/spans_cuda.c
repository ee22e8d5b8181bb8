/* spans_cuda.c - a GPU's memory as the host sees it outside of steps: copies.
 *
 * Copies go through the stage's own stream: the default stream is not ordered with it.
 */
#include <stdlib.h>

#include "device_cuda.h"

static int span_copy(const Span *span, bool to_host, Problem *p)
{
    const Device *d = span->device;
    void *gpu = d->stage.memory + span->offset;
    TRY(gpu_problem(d, (int)cudaSetDevice(d->plan->gpu), "cudaSetDevice", p));
    TRY(gpu_problem(d,
                    (int)cudaMemcpyAsync(to_host ? span->at : gpu, to_host ? gpu : span->at,
                                         (size_t)span->bytes,
                                         to_host ? cudaMemcpyDeviceToHost : cudaMemcpyHostToDevice,
                                         d->stage.compute),
                    "cudaMemcpyAsync", p));
    return gpu_problem(d, (int)cudaStreamSynchronize(d->stage.compute), "cudaStreamSynchronize", p);
}

int span_open(Span *span, Device *d, int64_t offset, int64_t bytes, unsigned use, Problem *p)
{
    *span = (Span){d, offset, bytes, malloc((size_t)bytes)};
    if (!span->at)
        return problem_no_memory(p, d->plan->device);
    int status = use & SPAN_READ ? span_copy(span, true, p) : MDL_OK;
    if (status != MDL_OK) {
        free(span->at);
        span->at = NULL;
    }
    return status;
}

int span_close(Span *span, unsigned use, Problem *p)
{
    int status = span->at && use & SPAN_WRITE ? span_copy(span, false, p) : MDL_OK;
    free(span->at);
    span->at = NULL;
    return status;
}
