/* reports_cuda.c - samples to a GPU, numbers from it.
 *
 * Both go through pinned memory on the stream `compute`. Samples are converted on the host
 * and copied; each micro-batch of each input has a place of its own, which is free again when
 * the step has ended. Losses, metrics and squares are copied to the host, and counted in the
 * order of the calls when the stream has been waited for.
 */
#include <stdlib.h>
#include <string.h>

#include "device_cuda.h"

enum { PART_ALIGNMENT = 64 };

static int64_t part_bytes(int64_t bytes)
{
    return (bytes + PART_ALIGNMENT - 1) / PART_ALIGNMENT * PART_ALIGNMENT;
}

static bool input_loaded(const Device *d, int input)
{
    return !d->plan->loads || d->plan->loads[input];
}

static int64_t samples_bytes(const MdlModel *model, int input)
{
    return part_bytes(model->microbatch * sample_bytes(&model->inputs[input]));
}

/* Cuts the pinned memory into its parts; NULL: only counts its bytes. */
static int64_t pinned_cut(Device *d, char *pinned)
{
    const MdlModel *model = d->stage.trainer->model;
    struct DeviceOwn *own = d->own;
    int64_t at = part_bytes(model->nweights * (int64_t)sizeof(double));
    if (pinned) {
        own->squares = (double *)(void *)pinned;
        own->values = (float *)(void *)(pinned + at);
    }
    at += part_bytes(own->room * model->microbatch * (int64_t)sizeof(float));
    for (int i = 0; i < model->ninputs; i++) {
        if (!input_loaded(d, i))
            continue;
        if (pinned)
            own->samples[i] = pinned + at;
        at += samples_bytes(model, i) * model->microbatches;
    }
    return at;
}

int reports_open(Device *d)
{
    Stage *s = &d->stage;
    const MdlModel *model = s->trainer->model;
    struct DeviceOwn *own = d->own;
    void *pinned = NULL;
    own->batch = 1;
    own->room = model->microbatches * (1 + model->nmetrics);
    own->numbers = calloc((size_t)own->room, sizeof *own->numbers);
    own->samples = calloc((size_t)model->ninputs, sizeof *own->samples);
    own->loaded = calloc((size_t)model->ninputs * (size_t)model->microbatches, sizeof(int64_t));
    if (!own->numbers || !own->samples || !own->loaded)
        return stage_fail(s, "stage %d (%s): out of memory", s->index, d->plan->device);
    size_t bytes = (size_t)pinned_cut(d, NULL);
    TRY(gpu_check(s, (int)cudaHostAlloc(&pinned, bytes, cudaHostAllocDefault), "cudaHostAlloc"));
    own->pinned = pinned;
    pinned_cut(d, own->pinned);
    return MDL_OK;
}

void reports_close(Device *d)
{
    struct DeviceOwn *own = d->own;
    if (own->pinned)
        gpu_note((int)cudaFreeHost(own->pinned));
    free(own->numbers);
    free(own->samples);
    free(own->loaded);
}

int data_load(Stage *s, int input, int m, void *buffer)
{
    Device *d = device_of(s);
    struct DeviceOwn *own = d->own;
    const MdlModel *model = s->trainer->model;
    char place[TEXT_PLACE];
    if (!own->samples[input])
        return stage_fail(s, "%s: input '%s' is none that the stage is to load",
                          stage_place(s, place), model->inputs[input].name);
    char *from = own->samples[input] + samples_bytes(model, input) * m;
    int64_t *loaded = &own->loaded[(int64_t)input * model->microbatches + m];
    /* Two parts of a stage may load the same samples: these are on their way already. */
    if (*loaded != own->batch)
        TRY(samples_load(s, input, m, from));
    *loaded = own->batch;
    size_t bytes = (size_t)(model->microbatch * sample_bytes(&model->inputs[input]));
    CUDA(cudaMemcpyAsync(buffer, from, bytes, cudaMemcpyHostToDevice, s->compute));
    return MDL_OK;
}

static int numbers_send(Stage *s, int metric, int m, const real *from)
{
    Device *d = device_of(s);
    struct DeviceOwn *own = d->own;
    int64_t n = s->trainer->model->microbatch;
    char place[TEXT_PLACE];
    if (own->nnumbers == own->room)
        return stage_fail(s, "%s: more losses or metrics than micro-batches have",
                          stage_place(s, place));
    float *to = own->values + own->nnumbers * n;
    own->numbers[own->nnumbers++] = (Numbers){metric, m, d->chunk, d->phase, to};
    CUDA(cudaMemcpyAsync(to, from, (size_t)n * sizeof *to, cudaMemcpyDeviceToHost, s->compute));
    return MDL_OK;
}

int report_loss(Stage *s, int m, const real *loss)
{
    return numbers_send(s, -1, m, loss);
}

int report_metric(Stage *s, int metric, int m, const real *value)
{
    return device_of(s)->mode == MODE_EVAL ? numbers_send(s, metric, m, value) : MDL_OK;
}

/* In messages the numbers' phase is the place, not the one that is counted in. */
static int numbers_count(Device *d)
{
    struct DeviceOwn *own = d->own;
    char phase = d->phase;
    int chunk = d->chunk, m = d->m, status = MDL_OK;
    for (int i = 0; i < own->nnumbers && status == MDL_OK; i++) {
        const Numbers *n = &own->numbers[i];
        d->phase = n->phase;
        d->chunk = n->chunk;
        d->m = n->m;
        status = n->metric < 0 ? loss_count(&d->stage, n->m, n->value)
                               : metric_count(&d->stage, n->metric, n->m, n->value);
    }
    own->nnumbers = 0;
    d->phase = phase;
    d->chunk = chunk;
    d->m = m;
    return status;
}

int squares_fetch(Device *d)
{
    Stage *s = &d->stage;
    size_t n = (size_t)s->trainer->model->nweights;
    if (d->mode == MODE_TRAIN && n > 0)
        CUDA(cudaMemcpyAsync(d->own->squares, s->squares, n * sizeof(double),
                             cudaMemcpyDeviceToHost, s->compute));
    return MDL_OK;
}

/* Each weight has one writer: the stage that updates it. */
static void squares_merge(Device *d)
{
    const Weights *weights = &d->stage.trainer->weights;
    for (int64_t i = 0; i < weights->n; i++) {
        const Weight *w = &weights->all[i];
        if (w->stage == d->stage.index && w->run->owner && !w->run->frozen)
            d->stage.norm[w->index] = d->own->squares[w->index];
    }
}

int reports_collect(Device *d)
{
    if (d->mode == MODE_TRAIN)
        squares_merge(d);
    d->own->batch++;
    return numbers_count(d);
}

int clip_gradients(Stage *s)
{
    Device *d = device_of(s);
    TRY(squares_fetch(d));
    TRY(gpu_wait(s, s->compute));
    squares_merge(d);
    TRY(numbers_count(d));
    return clip_exchange(s);
}
