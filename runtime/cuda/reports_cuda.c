/* reports_cuda.c - samples to a GPU, numbers from it.
 *
 * Both go through pinned memory on the stream `compute`. Samples are converted on the host
 * and copied; each micro-batch of each input has a place of its own, which is free again when
 * the step has ended. While a GPU works on a batch, those of the next one are converted to a
 * second set of places. Losses, metrics and squares are copied to the host, and counted in the
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
    for (int i = 0; i < 2 * model->ninputs; i++) {
        int input = i / 2;
        if (!input_loaded(d, input))
            continue;
        if (pinned)
            own->staging[i % 2].samples[input] = pinned + at;
        at += samples_bytes(model, input) * model->microbatches;
    }
    return at;
}

int reports_open(Device *d)
{
    Stage *s = &d->stage;
    const MdlModel *model = s->trainer->model;
    struct DeviceOwn *own = d->own;
    void *pinned = NULL;
    size_t inputs = (size_t)model->ninputs;
    own->room = model->microbatches * (1 + model->nmetrics);
    own->numbers = calloc((size_t)own->room, sizeof *own->numbers);
    bool made = own->numbers != NULL;
    for (int i = 0; i < 2; i++) {
        Staging *to = &own->staging[i];
        to->base = -1;
        to->samples = calloc(inputs, sizeof *to->samples);
        to->there = calloc(inputs * (size_t)model->microbatches, sizeof *to->there);
        made = made && to->samples && to->there;
    }
    if (!made)
        return stage_fail(s, "stage %d (%s): out of memory", s->index, d->plan->device);
    size_t bytes = (size_t)pinned_cut(d, NULL);
    OPEN(cudaHostAlloc(&pinned, bytes, cudaHostAllocDefault));
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
    for (int i = 0; i < 2; i++) {
        free(own->staging[i].samples);
        free(own->staging[i].there);
    }
}

/* Makes it the staging of the batch at `base`; what it held of another is gone. */
static void staging_begin(Staging *to, const MdlModel *model, Mode mode, int64_t base)
{
    if (to->mode == mode && to->base == base)
        return;
    to->mode = mode;
    to->base = base;
    memset(to->there, 0, (size_t)model->ninputs * (size_t)model->microbatches * sizeof *to->there);
}

/* Converts the samples of the batch under way to their place, where they are not there yet. */
static int sample_place_fill(Device *d, int input, int m)
{
    const MdlModel *model = d->stage.trainer->model;
    Staging *to = &d->own->staging[d->own->current];
    staging_begin(to, model, d->mode, d->base);
    bool *there = &to->there[(int64_t)input * model->microbatches + m];
    if (!*there)
        TRY(samples_load(&d->stage, input, m,
                         to->samples[input] + samples_bytes(model, input) * m));
    *there = true;
    return MDL_OK;
}

int samples_complete(Device *d, const bool *loads)
{
    const MdlModel *model = d->stage.trainer->model;
    for (int m = 0; m < model->microbatches; m++)
        for (int i = 0; i < model->ninputs; i++)
            if (loads[(int64_t)i * model->microbatches + m])
                TRY(sample_place_fill(d, i, m));
    return MDL_OK;
}

int data_load(Stage *s, int input, int m, void *buffer)
{
    Device *d = device_of(s);
    const MdlModel *model = s->trainer->model;
    const Staging *from = &d->own->staging[d->own->current];
    char place[TEXT_PLACE];
    if (!from->samples[input])
        return stage_fail(s, "%s: input '%s' is none that the stage is to load",
                          stage_place(s, place), model->inputs[input].name);
    if (!d->own->graphs.capturing)
        TRY(sample_place_fill(d, input, m));
    const char *samples = from->samples[input] + samples_bytes(model, input) * m;
    size_t bytes = (size_t)(model->microbatch * sample_bytes(&model->inputs[input]));
    CUDA(cudaMemcpyAsync(buffer, samples, bytes, cudaMemcpyHostToDevice, s->compute));
    return MDL_OK;
}

/* A bad sample is reported when its own step asks for it, so here it is only left out. */
void samples_prepare(Device *d)
{
    const Trainer *t = d->stage.trainer;
    const MdlModel *model = t->model;
    const Staging *now = &d->own->staging[d->own->current];
    Staging *next = &d->own->staging[!d->own->current];
    int64_t base = d->base + model->batch;
    bool more = d->mode == MODE_TRAIN  ? d->stage.step < t->steps
                : d->mode == MODE_EVAL ? base < t->eval_end
                                       : false;
    if (!more || now->mode != d->mode || now->base != d->base)
        return;
    staging_begin(next, model, d->mode, base);
    for (int i = 0; i < model->ninputs; i++)
        for (int m = 0; m < model->microbatches; m++) {
            int64_t at = (int64_t)i * model->microbatches + m;
            Problem p = {0};
            if (now->there[at] && !next->there[at])
                next->there[at] =
                    samples_read(d, i, base + m * model->microbatch,
                                 next->samples[i] + samples_bytes(model, i) * m, &p) == MDL_OK;
        }
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
    d->own->current = !d->own->current;
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
