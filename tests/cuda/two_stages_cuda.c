/* two_stages_cuda.c - the model of two_stages.c as the compiler would write it for two GPUs.
 *
 *     hidden = dropout(linear(x, 4), 0.25) * shared     stage 0, owns `shared`
 *     out    = linear(hidden * shared, 1)               stage 1, has a copy
 *     loss     (out - y)^2
 *
 * The same names, weights and faults as on the host, so that the same run can be compared.
 * Everything but messages goes into the stream `compute`; a message waits for what it sends by
 * an event, and what overwrites a buffer waits for the message.
 */
#include <signal.h>
#include <unistd.h>

#include "rt_cuda.h"
#include "two_stages.h"
#include "two_stages_cuda.h"

/* Which event orders what. */
enum { EVENT_FILLED, EVENT_COPIED, EVENT_READ, NEVENTS };

#define TENSOR _Alignas(256) float
#define COMMON                                                                                     \
    _Alignas(256) double squares[NWEIGHTS];                                                        \
    _Alignas(256) char scratch[GPU_SCRATCH];                                                       \
    _Alignas(256) char workspace[GPU_BLAS_WORKSPACE]

/* What stage 0 holds. */
typedef struct {
    TENSOR w[HIDDEN * FEATURES];
    TENSOR b[HIDDEN];
    TENSOR shared[HIDDEN];
    TENSOR dw[HIDDEN * FEATURES];
    TENSOR db[HIDDEN];
    TENSOR dshared[HIDDEN];
    TENSOR vw[HIDDEN * FEATURES];
    TENSOR vb[HIDDEN];
    TENSOR vshared[HIDDEN];
    TENSOR theirs[HIDDEN];
    struct {
        TENSOR x[MICROBATCH * FEATURES];
        TENSOR linear[MICROBATCH * HIDDEN];
    } at[MICROBATCHES];
    TENSOR hidden[MICROBATCH * HIDDEN];
    struct {
        TENSOR dhidden[MICROBATCH * HIDDEN];
    } slot[2];
    TENSOR dlinear[MICROBATCH * HIDDEN];
    COMMON;
} Memory0;

/* What stage 1 holds. */
typedef struct {
    TENSOR w[HIDDEN];
    TENSOR b[1];
    TENSOR shared[HIDDEN];
    TENSOR dw[HIDDEN];
    TENSOR db[1];
    TENSOR dshared[HIDDEN];
    TENSOR vw[HIDDEN];
    TENSOR vb[1];
    struct {
        TENSOR hidden[MICROBATCH * HIDDEN];
        TENSOR product[MICROBATCH * HIDDEN];
        TENSOR out[MICROBATCH];
        TENSOR dout[MICROBATCH];
        TENSOR y[MICROBATCH];
    } at[MICROBATCHES];
    TENSOR loss[MICROBATCH];
    TENSOR near[MICROBATCH];
    TENSOR dproduct[MICROBATCH * HIDDEN];
    TENSOR dhidden[MICROBATCH * HIDDEN];
    COMMON;
} Memory1;

/* ------------------------------------------------------------------- streams */

/* `later` goes on when `earlier` has got here. */
static int order(Stage *s, int event, cudaStream_t earlier, cudaStream_t later)
{
    CUDA(cudaEventRecord(s->event[event], earlier));
    CUDA(cudaStreamWaitEvent(later, s->event[event], 0));
    return MDL_OK;
}

/* Sends what compute has filled; EVENT_COPIED is recorded when it may be filled again. */
static int message_send(Stage *s, int link, int m, const float *buffer, size_t bytes)
{
    LinkSlot *slot;
    TRY(order(s, EVENT_FILLED, s->compute, s->transfer));
    TRY(link_ready(s, link, m, &slot));
    CUDA(cudaStreamWaitEvent(s->transfer, slot->posted, 0));
    CUDA(cudaMemcpyPeerAsync(slot->buffer, slot->device, buffer, s->gpu->device, bytes,
                             s->transfer));
    CUDA(cudaEventRecord(slot->arrived, s->transfer));
    CUDA(cudaEventRecord(s->event[EVENT_COPIED], s->transfer));
    return link_sent(s, link, m);
}

/* Posts a buffer that compute may still read. */
static int message_post(Stage *s, int link, int m, float *buffer)
{
    TRY(order(s, EVENT_READ, s->compute, s->transfer));
    return link_post(s, link, m, buffer);
}

static int message_wait(Stage *s, int link, int m)
{
    LinkSlot *slot;
    TRY(link_arrived(s, link, m, &slot));
    CUDA(cudaStreamWaitEvent(s->compute, slot->arrived, 0));
    return MDL_OK;
}

/* ------------------------------------------------------------------- stage 0 */

static int forward_0(Stage *s, int m)
{
    Memory0 *a = (void *)s->memory;
    float *linear = a->at[m].linear;
    phase_begin(s, 'F', 0, m);
    TRY(data_load(s, INPUT_X, m, a->at[m].x));
    KERNEL(gpu_linear_forward(s->gpu, linear, a->at[m].x, a->w, a->b, MICROBATCH, FEATURES, HIDDEN,
                              false));
    if (s->training)
        KERNEL(gpu_dropout(s->gpu, linear, linear, 0.25, dropout_key(s, "drop", -1, ""),
                           (int64_t)m * MICROBATCH, MICROBATCH, HIDDEN));
    if (m > 0)
        CUDA(cudaStreamWaitEvent(s->compute, s->event[EVENT_COPIED], 0));
    KERNEL(two_scale(s->gpu, a->hidden, linear, a->shared, MICROBATCH * HIDDEN, HIDDEN));
    phase_end(s);
    return message_send(s, LINK_HIDDEN, m, a->hidden, sizeof a->hidden);
}

static int backward_0(Stage *s, int m)
{
    Memory0 *a = (void *)s->memory;
    const float *dhidden = a->slot[m % 2].dhidden;
    TRY(message_wait(s, LINK_DHIDDEN, m));
    phase_begin(s, 'B', 0, m);
    KERNEL(two_columns(s->gpu, a->dshared, dhidden, a->at[m].linear, MICROBATCH, HIDDEN));
    KERNEL(two_scale(s->gpu, a->dlinear, dhidden, a->shared, MICROBATCH * HIDDEN, HIDDEN));
    KERNEL(gpu_dropout(s->gpu, a->dlinear, a->dlinear, 0.25, dropout_key(s, "drop", -1, ""),
                       (int64_t)m * MICROBATCH, MICROBATCH, HIDDEN));
    KERNEL(gpu_linear_backward_weight(s->gpu, a->dw, a->dlinear, a->at[m].x, MICROBATCH, FEATURES,
                                      HIDDEN, false, m > 0));
    KERNEL(two_columns(s->gpu, a->db, a->dlinear, NULL, MICROBATCH, HIDDEN));
    phase_end(s);
    return MDL_OK;
}

static int clip_0(Stage *s)
{
    Memory0 *a = (void *)s->memory;
    KERNEL(gpu_sum_squares(s->gpu, &s->squares[0], a->dw, HIDDEN * FEATURES));
    KERNEL(gpu_sum_squares(s->gpu, &s->squares[1], a->db, HIDDEN));
    KERNEL(gpu_sum_squares(s->gpu, &s->squares[2], a->dshared, HIDDEN));
    return clip_gradients(s);
}

static int update_0(Stage *s)
{
    Memory0 *a = (void *)s->memory;
    TRY(message_wait(s, LINK_DSHARED, 0));
    phase_begin(s, 'U', 0, -1);
    KERNEL(gpu_accumulate_into(s->gpu, a->dshared, a->theirs, HIDDEN));
    if (s->hyper.beta1 > 0)
        TRY(clip_0(s));
    KERNEL(
        gpu_sgd_update(s->gpu, &s->squares[0], a->w, a->dw, a->vw, HIDDEN * FEATURES, &s->hyper));
    KERNEL(gpu_sgd_update(s->gpu, &s->squares[1], a->b, a->db, a->vb, HIDDEN, &s->hyper));
    KERNEL(gpu_sgd_update(s->gpu, &s->squares[2], a->shared, a->dshared, a->vshared, HIDDEN,
                          &s->hyper));
    phase_end(s);
    return message_send(s, LINK_SHARED, 0, a->shared, sizeof a->shared);
}

static int step_0(Stage *s)
{
    Memory0 *a = (void *)s->memory;
    KERNEL(gpu_fill(s->gpu, a->db, 0, HIDDEN));
    KERNEL(gpu_fill(s->gpu, a->dshared, 0, HIDDEN));
    if (fault_now(s, FAULT_INTERRUPT))
        kill(getpid(), SIGINT);
    TRY(message_post(s, LINK_DSHARED, 0, a->theirs));
    TRY(message_post(s, LINK_DHIDDEN, 0, a->slot[0].dhidden));
    for (int m = 0; m < MICROBATCHES; m++)
        TRY(forward_0(s, m));
    for (int m = 0; m < MICROBATCHES; m++) {
        if (m + 1 < MICROBATCHES)
            TRY(message_post(s, LINK_DHIDDEN, m + 1, a->slot[(m + 1) % 2].dhidden));
        TRY(backward_0(s, m));
    }
    return update_0(s);
}

static int eval_0(Stage *s)
{
    for (int m = 0; m < MICROBATCHES; m++)
        TRY(forward_0(s, m));
    return MDL_OK;
}

/* ------------------------------------------------------------------- stage 1 */

static int forward_1(Stage *s, int m)
{
    Memory1 *a = (void *)s->memory;
    TRY(message_post(s, LINK_HIDDEN, m, a->at[m].hidden));
    TRY(message_wait(s, LINK_HIDDEN, m));
    phase_begin(s, 'F', 1, m);
    TRY(data_load(s, INPUT_Y, m, a->at[m].y));
    KERNEL(two_scale(s->gpu, a->at[m].product, a->at[m].hidden, a->shared, MICROBATCH * HIDDEN,
                     HIDDEN));
    KERNEL(gpu_linear_forward(s->gpu, a->at[m].out, a->at[m].product, a->w, a->b, MICROBATCH,
                              HIDDEN, 1, false));
    KERNEL(two_loss(s->gpu, a->loss, a->near, a->at[m].dout, a->at[m].out, a->at[m].y, MICROBATCH,
                    BATCH, fault_now(s, FAULT_NAN) && m == 2));
    TRY(report_loss(s, m, a->loss));
    TRY(report_metric(s, 0, m, a->near));
    phase_end(s);
    return MDL_OK;
}

static int backward_1(Stage *s, int m)
{
    Memory1 *a = (void *)s->memory;
    phase_begin(s, 'B', 1, m);
    KERNEL(two_columns(s->gpu, a->db, a->at[m].dout, NULL, MICROBATCH, 1));
    KERNEL(gpu_linear_backward_input(s->gpu, a->dproduct, a->at[m].dout, a->w, MICROBATCH, HIDDEN,
                                     1, false));
    KERNEL(gpu_linear_backward_weight(s->gpu, a->dw, a->at[m].dout, a->at[m].product, MICROBATCH,
                                      HIDDEN, 1, false, m > 0));
    KERNEL(two_columns(s->gpu, a->dshared, a->dproduct, a->at[m].hidden, MICROBATCH, HIDDEN));
    if (m > 0)
        CUDA(cudaStreamWaitEvent(s->compute, s->event[EVENT_COPIED], 0));
    KERNEL(two_scale(s->gpu, a->dhidden, a->dproduct, a->shared, MICROBATCH * HIDDEN, HIDDEN));
    phase_end(s);
    return message_send(s, LINK_DHIDDEN, m, a->dhidden, sizeof a->dhidden);
}

static int clip_1(Stage *s)
{
    Memory1 *a = (void *)s->memory;
    KERNEL(gpu_sum_squares(s->gpu, &s->squares[3], a->dw, HIDDEN));
    KERNEL(gpu_sum_squares(s->gpu, &s->squares[4], a->db, 1));
    return clip_gradients(s);
}

static int update_1(Stage *s)
{
    Memory1 *a = (void *)s->memory;
    if (fault_now(s, FAULT_GRADIENT))
        KERNEL(gpu_fill(s->gpu, a->dw + 1, 1.01f, 1));
    if (fault_now(s, FAULT_INFINITE))
        KERNEL(gpu_fill(s->gpu, a->dw + 1, 1.0f / 0.0f, 1));
    TRY(message_post(s, LINK_SHARED, 0, a->shared));
    TRY(message_send(s, LINK_DSHARED, 0, a->dshared, sizeof a->dshared));
    phase_begin(s, 'U', 1, -1);
    if (s->hyper.beta1 > 0)
        TRY(clip_1(s));
    KERNEL(gpu_sgd_update(s->gpu, &s->squares[3], a->w, a->dw, a->vw, HIDDEN, &s->hyper));
    KERNEL(gpu_sgd_update(s->gpu, &s->squares[4], a->b, a->db, a->vb, 1, &s->hyper));
    phase_end(s);
    return message_wait(s, LINK_SHARED, 0);
}

static int step_1(Stage *s)
{
    Memory1 *a = (void *)s->memory;
    KERNEL(gpu_fill(s->gpu, a->db, 0, 1));
    KERNEL(gpu_fill(s->gpu, a->dshared, 0, HIDDEN));
    for (int m = 0; m < MICROBATCHES; m++)
        TRY(forward_1(s, m));
    if (fault_now(s, FAULT_DEADLOCK)) {
        TRY(message_post(s, LINK_NEVER, 0, a->dhidden));
        TRY(message_wait(s, LINK_NEVER, 0));
    }
    for (int m = 0; m < MICROBATCHES; m++)
        TRY(backward_1(s, m));
    return update_1(s);
}

static int eval_1(Stage *s)
{
    for (int m = 0; m < MICROBATCHES; m++)
        TRY(forward_1(s, m));
    return MDL_OK;
}

#include "two_stages_model.h"
