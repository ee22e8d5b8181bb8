/* two_stages.c - a model as the compiler would write it, by hand.
 *
 *     hidden = dropout(linear(x, 4), 0.25) * shared     stage 0, owns `shared`
 *     out    = linear(hidden * shared, 1)               stage 1, has a copy
 *     loss     (out - y)^2
 *
 * Both stages run all forward passes, then all backward passes. After them stage 1
 * sends its part of shared's gradient to stage 0, which updates and sends it back.
 */
#include "two_stages.h"

#include <math.h>
#include <signal.h>
#include <unistd.h>

/* What stage 0 holds. */
typedef struct {
    real w[HIDDEN * FEATURES], b[HIDDEN], shared[HIDDEN];
    real dw[HIDDEN * FEATURES], db[HIDDEN], dshared[HIDDEN];
    real vw[HIDDEN * FEATURES], vb[HIDDEN], vshared[HIDDEN];
    real theirs[HIDDEN];
    real x[MICROBATCHES][MICROBATCH * FEATURES];
    real linear[MICROBATCHES][MICROBATCH * HIDDEN], hidden[MICROBATCH * HIDDEN];
    real dhidden[2][MICROBATCH * HIDDEN], dlinear[MICROBATCH * HIDDEN];
} Memory0;

/* What stage 1 holds. */
typedef struct {
    real w[HIDDEN], b[1], shared[HIDDEN];
    real dw[HIDDEN], db[1], dshared[HIDDEN];
    real vw[HIDDEN], vb[1];
    real hidden[MICROBATCHES][MICROBATCH * HIDDEN], product[MICROBATCHES][MICROBATCH * HIDDEN];
    real out[MICROBATCHES][MICROBATCH], y[MICROBATCHES][MICROBATCH], loss[MICROBATCH];
    real near[MICROBATCH], dout[MICROBATCH], dproduct[MICROBATCH * HIDDEN];
    real dhidden[MICROBATCH * HIDDEN];
} Memory1;

/* ------------------------------------------------------------------- stage 0 */

static int forward_0(Stage *s, int m)
{
    Memory0 *a = (void *)s->memory;
    phase_begin(s, 'F', 0, m);
    TRY(data_load(s, INPUT_X, m, a->x[m]));
    linear_forward(s->team, a->linear[m], a->x[m], a->w, a->b, MICROBATCH, FEATURES, HIDDEN, false);
    if (s->training)
        dropout(s->team, a->linear[m], a->linear[m], 0.25, dropout_key(s, "drop", -1, ""),
                (int64_t)m * MICROBATCH, MICROBATCH, HIDDEN);
    for (int i = 0; i < MICROBATCH * HIDDEN; i++)
        a->hidden[i] = a->linear[m][i] * a->shared[i % HIDDEN];
    TRY(link_send(s, LINK_HIDDEN, m, a->hidden));
    phase_end(s);
    return MDL_OK;
}

static int backward_0(Stage *s, int m)
{
    Memory0 *a = (void *)s->memory;
    TRY(link_wait(s, LINK_DHIDDEN, m));
    phase_begin(s, 'B', 0, m);
    const real *dhidden = a->dhidden[m % 2];
    for (int i = 0; i < MICROBATCH * HIDDEN; i++) {
        a->dshared[i % HIDDEN] += dhidden[i] * a->linear[m][i];
        a->dlinear[i] = dhidden[i] * a->shared[i % HIDDEN];
    }
    dropout(s->team, a->dlinear, a->dlinear, 0.25, dropout_key(s, "drop", -1, ""),
            (int64_t)m * MICROBATCH, MICROBATCH, HIDDEN);
    linear_backward_weight(s->team, a->dw, a->dlinear, a->x[m], MICROBATCH, FEATURES, HIDDEN, false,
                           m > 0);
    for (int i = 0; i < MICROBATCH * HIDDEN; i++)
        a->db[i % HIDDEN] += a->dlinear[i];
    phase_end(s);
    return MDL_OK;
}

static int update_0(Stage *s)
{
    Memory0 *a = (void *)s->memory;
    TRY(link_wait(s, LINK_DSHARED, 0));
    phase_begin(s, 'U', 0, -1);
    for (int i = 0; i < HIDDEN; i++)
        a->dshared[i] += a->theirs[i];
    s->norm[0] = sum_squares(s->team, a->dw, HIDDEN * FEATURES);
    s->norm[1] = sum_squares(s->team, a->db, HIDDEN);
    s->norm[2] = sum_squares(s->team, a->dshared, HIDDEN);
    if (s->hyper.beta1 > 0)
        TRY(clip_gradients(s));
    sgd_update(s->team, a->w, a->dw, a->vw, HIDDEN * FEATURES, &s->hyper);
    sgd_update(s->team, a->b, a->db, a->vb, HIDDEN, &s->hyper);
    sgd_update(s->team, a->shared, a->dshared, a->vshared, HIDDEN, &s->hyper);
    phase_end(s);
    return link_send(s, LINK_SHARED, 0, a->shared);
}

static int step_0(Stage *s)
{
    Memory0 *a = (void *)s->memory;
    fill(s->team, a->db, 0, HIDDEN);
    fill(s->team, a->dshared, 0, HIDDEN);
    if (fault_now(s, FAULT_INTERRUPT))
        kill(getpid(), SIGINT);
    TRY(link_post(s, LINK_DSHARED, 0, a->theirs));
    TRY(link_post(s, LINK_DHIDDEN, 0, a->dhidden[0]));
    for (int m = 0; m < MICROBATCHES; m++)
        TRY(forward_0(s, m));
    for (int m = 0; m < MICROBATCHES; m++) {
        if (m + 1 < MICROBATCHES)
            TRY(link_post(s, LINK_DHIDDEN, m + 1, a->dhidden[(m + 1) % 2]));
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
    TRY(link_post(s, LINK_HIDDEN, m, a->hidden[m]));
    TRY(link_wait(s, LINK_HIDDEN, m));
    phase_begin(s, 'F', 1, m);
    TRY(data_load(s, INPUT_Y, m, a->y[m]));
    for (int i = 0; i < MICROBATCH * HIDDEN; i++)
        a->product[m][i] = a->hidden[m][i] * a->shared[i % HIDDEN];
    linear_forward(s->team, a->out[m], a->product[m], a->w, a->b, MICROBATCH, HIDDEN, 1, false);
    for (int i = 0; i < MICROBATCH; i++) {
        real wrong = a->out[m][i] - a->y[m][i];
        a->loss[i] = fault_now(s, FAULT_NAN) && m == 2 ? (real)NAN : wrong * wrong;
        a->near[i] = fabs((double)wrong) < 0.5;
    }
    TRY(report_loss(s, m, a->loss));
    TRY(report_metric(s, 0, m, a->near));
    phase_end(s);
    return MDL_OK;
}

static int backward_1(Stage *s, int m)
{
    Memory1 *a = (void *)s->memory;
    phase_begin(s, 'B', 1, m);
    for (int i = 0; i < MICROBATCH; i++) {
        a->dout[i] = 2 * (a->out[m][i] - a->y[m][i]) / BATCH;
        a->db[0] += a->dout[i];
    }
    linear_backward_input(s->team, a->dproduct, a->dout, a->w, MICROBATCH, HIDDEN, 1, false);
    linear_backward_weight(s->team, a->dw, a->dout, a->product[m], MICROBATCH, HIDDEN, 1, false,
                           m > 0);
    for (int i = 0; i < MICROBATCH * HIDDEN; i++) {
        a->dshared[i % HIDDEN] += a->dproduct[i] * a->hidden[m][i];
        a->dhidden[i] = a->dproduct[i] * a->shared[i % HIDDEN];
    }
    TRY(link_send(s, LINK_DHIDDEN, m, a->dhidden));
    phase_end(s);
    return MDL_OK;
}

static int update_1(Stage *s)
{
    Memory1 *a = (void *)s->memory;
    if (fault_now(s, FAULT_GRADIENT))
        a->dw[1] *= (real)1.01;
    if (fault_now(s, FAULT_INFINITE))
        a->dw[1] = (real)INFINITY;
    TRY(link_post(s, LINK_SHARED, 0, a->shared));
    TRY(link_send(s, LINK_DSHARED, 0, a->dshared));
    phase_begin(s, 'U', 1, -1);
    s->norm[3] = sum_squares(s->team, a->dw, HIDDEN);
    s->norm[4] = sum_squares(s->team, a->db, 1);
    if (s->hyper.beta1 > 0)
        TRY(clip_gradients(s));
    sgd_update(s->team, a->w, a->dw, a->vw, HIDDEN, &s->hyper);
    sgd_update(s->team, a->b, a->db, a->vb, 1, &s->hyper);
    phase_end(s);
    return link_wait(s, LINK_SHARED, 0);
}

static int step_1(Stage *s)
{
    Memory1 *a = (void *)s->memory;
    fill(s->team, a->db, 0, 1);
    fill(s->team, a->dshared, 0, HIDDEN);
    for (int m = 0; m < MICROBATCHES; m++)
        TRY(forward_1(s, m));
    if (fault_now(s, FAULT_DEADLOCK)) {
        TRY(link_post(s, LINK_NEVER, 0, a->dhidden));
        TRY(link_wait(s, LINK_NEVER, 0));
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
