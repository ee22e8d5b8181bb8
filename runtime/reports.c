/* reports.c - what stages take and report: steps, samples, sums.
 *
 * What stages report of step n goes to slot n % STEP_SLOTS: the sum of the losses, and
 * the squares of the gradients by weight. A slot is used again when the main thread has
 * read it, so stages run free from step to step but never overwrite a report.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#define XXH_STATIC_LINKING_ONLY /* for the size of XXH64_state_t */
#include <xxhash.h>

#include "trainer.h"

enum { TEAM_FROM = 128 << 10 }; /* bytes of samples that threads are worth waking for */

int reports_new(Trainer *t, Problem *p)
{
    size_t nweights = (size_t)t->model->nweights + 1;
    t->norms = calloc(STEP_SLOTS * nweights, sizeof *t->norms);
    t->eval_metrics = calloc((size_t)t->model->nmetrics + 1, sizeof *t->eval_metrics);
    if (!t->norms || !t->eval_metrics)
        return problem_no_memory(p, "the reports");
    for (int i = 0; i < STEP_SLOTS; i++)
        t->slots[i] = (StepSlot){.step = -1, .norm = t->norms + (size_t)i * nweights};
    return MDL_OK;
}

void reports_free(Trainer *t)
{
    free(t->norms);
    free(t->eval_metrics);
}

StepSlot *slot_of(Trainer *t, int64_t step)
{
    return &t->slots[step % STEP_SLOTS];
}

double norm_of(const Trainer *t, const double *squares)
{
    double sum = 0;
    for (int64_t i = 0; i < t->model->nweights; i++)
        sum += squares[i];
    return sqrt(sum);
}

const char *norm_culprit(const Trainer *t, const double *squares)
{
    int64_t i = 0;
    while (i < t->model->nweights && isfinite(squares[i]))
        i++;
    return i < t->model->nweights ? t->weights.owner[i]->name : "all weights together";
}

/* --------------------------------------------------------------------- steps */

/* The first stage to begin a step makes its slot ready; none begins one whose slot still
 * holds a report, nor one after the last, which may have been moved meanwhile. */
bool step_begin(Stage *s, int64_t step)
{
    Trainer *t = s->trainer;
    StepSlot *slot = slot_of(t, step);
    pthread_mutex_lock(&t->lock);
    while (step <= t->last && step > t->reported + STEP_SLOTS && !atomic_load(&t->aborted))
        pthread_cond_wait(&t->changed, &t->lock);
    bool go = step <= t->last && !atomic_load(&t->aborted);
    if (go && step > t->begun)
        t->begun = step;
    if (go && slot->step != step) {
        slot->step = step;
        slot->loss = 0;
        slot->finished = 0;
        slot->scale = 1;
        slot->skipped = false;
        memset(slot->norm, 0, (size_t)t->model->nweights * sizeof *slot->norm);
    }
    pthread_mutex_unlock(&t->lock);
    if (!go)
        return false;
    const MdlModel *model = t->model;
    s->step = step;
    s->norm = slot->norm;
    s->hyper = model->hyper;
    s->hyper.step = model->loss_scaled ? t->scale.updates + 1 : step;
    s->loss_scale = (real)t->scale.factor;
    s->skip = false;
    s->hyper.grad_scale = 1;
    /* Checking gradients must leave the weights as they are. */
    s->hyper.lr = t->options.check_gradients ? 0
                                             : learning_rate(model->lr_schedule, t->lr, model->min,
                                                             model->warmup, step, t->steps);
    device_of(s)->base = (step - 1) * model->batch;
    return true;
}

void step_end(Stage *s, int64_t step)
{
    Trainer *t = s->trainer;
    pthread_mutex_lock(&t->lock);
    if (++slot_of(t, step)->finished == t->model->nstages)
        pthread_cond_signal(&t->report);
    pthread_mutex_unlock(&t->lock);
}

int stages_meet(Stage *s, void (*last)(Stage *s), const char *what)
{
    Trainer *t = s->trainer;
    struct timespec until = time_after(t->options.timeout);
    bool late = false;
    pthread_mutex_lock(&t->lock);
    int64_t meeting = t->meets;
    if (++t->met == t->model->nstages) {
        last(s);
        t->met = 0;
        t->meets++;
        pthread_cond_broadcast(&t->changed);
    }
    while (t->meets == meeting && !atomic_load(&t->aborted) && !late) {
        if (t->options.timeout > 0)
            late = pthread_cond_timedwait(&t->changed, &t->lock, &until) == ETIMEDOUT;
        else
            pthread_cond_wait(&t->changed, &t->lock);
    }
    bool done = t->meets != meeting;
    pthread_mutex_unlock(&t->lock);
    if (done)
        return MDL_OK;
    if (atomic_load(&t->aborted))
        return MDL_STOPPED;
    char place[TEXT_PLACE];
    return stage_fail(s, "%s: %s has waited for %g s for the other stages (--timeout)",
                      stage_place(s, place), what, t->options.timeout);
}

static void clip_scale_set(Stage *s)
{
    Trainer *t = s->trainer;
    StepSlot *slot = slot_of(t, s->step);
    slot->scale = t->scale.factor;
    const double norm = norm_of(t, s->norm) / slot->scale, most = t->model->clip_norm;
    const double clip = most > 0 ? fmin(1, most / (norm + 1e-6)) : 1;
    const bool goes_on = loss_scale_decide(t, isfinite(norm));
    t->skip = slot->skipped = goes_on && !isfinite(norm);
    t->clip_scale = goes_on ? clip / slot->scale : NAN;
}

/* The last to come sums for all, so every stage scales by one number and nobody reads the
 * squares while updates write them again. */
int clip_exchange(Stage *s)
{
    Trainer *t = s->trainer;
    TRY(stages_meet(s, clip_scale_set, "clipping"));
    /* No other meeting begins without this stage. */
    if (isnan(t->clip_scale)) {
        char place[TEXT_PLACE];
        return stage_fail(s,
                          "%s: the gradient of %s is not finite; nothing was updated; a lower "
                          "learning rate may help",
                          stage_place(s, place), norm_culprit(t, s->norm));
    }
    s->hyper.grad_scale = t->clip_scale;
    s->skip = t->skip;
    return MDL_OK;
}

/* ------------------------------------------------------- samples and numbers */

static int64_t first_sample(const Stage *s, int m)
{
    return device_of(s)->base + (int64_t)m * s->trainer->model->microbatch;
}

int64_t sample_bytes(const MdlInput *input)
{
    static const int8_t size[] = {[MDL_REAL] = sizeof(real),
                                  [MDL_I32] = sizeof(int32_t),
                                  [MDL_U8] = 1,
                                  [MDL_BF16] = 2,
                                  [MDL_F16] = 2};
    int64_t bytes = size[input->type];
    for (int i = 0; i < input->rank; i++)
        bytes *= input->dim[i];
    return bytes;
}

typedef struct {
    const DataSet *set;
    int input;
    int64_t first, bytes; /* of one sample */
    char *out;
    pthread_mutex_t lock;
    int64_t bad;     /* the first sample that is wrong */
    Problem problem; /* what is wrong with it */
} Loading;

static void sample_read(void *ctx, int64_t i)
{
    Loading *l = ctx;
    Problem p = {0};
    if (dataset_load(l->set, l->input, l->first + i, l->out + i * l->bytes, &p) == MDL_OK)
        return;
    pthread_mutex_lock(&l->lock);
    if (l->problem.exit_code == 0 || i < l->bad) {
        l->problem = p;
        l->bad = i;
    }
    pthread_mutex_unlock(&l->lock);
}

int samples_read(Device *d, int input, int64_t first, void *out, Problem *p)
{
    const Trainer *t = d->stage.trainer;
    int64_t n = t->model->microbatch;
    Loading l = {.set = d->mode == MODE_EVAL ? t->eval : t->train,
                 .input = input,
                 .first = first,
                 .bytes = sample_bytes(&t->model->inputs[input]),
                 .out = out,
                 .lock = PTHREAD_MUTEX_INITIALIZER};
    if (l.bytes * n >= TEAM_FROM)
        team_run(d->team, n, sample_read, &l);
    else
        for (int64_t i = 0; i < n && l.problem.exit_code == 0; i++)
            sample_read(&l, i);
    pthread_mutex_destroy(&l.lock);
    if (l.problem.exit_code == 0)
        return MDL_OK;
    *p = l.problem;
    return MDL_FAILED;
}

int samples_load(Stage *s, int input, int m, void *out)
{
    Problem p = {0};
    char place[TEXT_PLACE];
    if (samples_read(device_of(s), input, first_sample(s, m), out, &p) == MDL_OK)
        return MDL_OK;
    return stage_fail(s, "%s (%s)", p.text, stage_place(s, place));
}

/* Adds those of a micro-batch's numbers that are of samples, not of padding. */
static int numbers_add(Stage *s, int m, const real *value, double *sum, const char *what)
{
    const Trainer *t = s->trainer;
    bool eval = device_of(s)->mode == MODE_EVAL;
    int64_t first = first_sample(s, m), n = t->model->microbatch;
    if (eval && n > t->eval_end - first)
        n = t->eval_end - first;
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(value[i])) {
            char place[TEXT_PLACE];
            return stage_fail(
                s, "%s: the %s%s of sample %lld of micro-batch %d is %g; %s", stage_place(s, place),
                eval ? "evaluation's " : "", what, (long long)i, m, (double)value[i],
                eval                 ? "the weights are damaged"
                : target_traits.late ? "a lower learning rate or clip_norm may help"
                                     : "nothing was updated; a lower learning rate or clip_norm "
                                       "may help");
        }
        *sum += (double)value[i];
    }
    return MDL_OK;
}

int loss_count(Stage *s, int m, const real *loss)
{
    Trainer *t = s->trainer;
    bool train = device_of(s)->mode == MODE_TRAIN;
    return numbers_add(s, m, loss, train ? &slot_of(t, s->step)->loss : &t->eval_loss, "loss");
}

int metric_count(Stage *s, int metric, int m, const real *value)
{
    Trainer *t = s->trainer;
    return numbers_add(s, m, value, &t->eval_metrics[metric], t->model->metrics[metric]);
}

uint64_t dropout_key(const Stage *s, const char *prefix, int64_t number, const char *suffix)
{
    char digits[24];
    uint64_t step = (uint64_t)s->step;
    XXH64_state_t state;
    XXH64_reset(&state, XXH64(&step, sizeof step, s->trainer->seed));
    XXH64_update(&state, prefix, strlen(prefix));
    if (number >= 0) {
        int n = snprintf(digits, sizeof digits, "%lld", (long long)number);
        XXH64_update(&state, digits, (size_t)n);
        XXH64_update(&state, suffix, strlen(suffix));
    }
    return XXH64_digest(&state);
}
