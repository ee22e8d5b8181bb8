/* training.c - what the main thread does while the devices work.
 *
 * In: a range of steps. It gives the command, reads every step's slot in order, writes
 * the journal, and watches the clock and the interrupt key. Stopping early sets the last
 * step to the furthest that any stage has begun: all stages then end after that one.
 */
#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#include "trainer.h"
#include "training.h"

static volatile sig_atomic_t interrupted;

static void on_interrupt(int number)
{
    (void)number;
    interrupted = 1;
}

/* Nothing but the process can be ended: the thread cannot go on without the page. */
static void on_lost_page(int number)
{
    static const char text[] = "\nerror: a data file became shorter while it was read (SIGBUS); "
                               "leave it as it is while a trainer runs\n";
    (void)number;
    ssize_t written = write(STDERR_FILENO, text, sizeof text - 1);
    (void)written;
    _exit(EXIT_RUN);
}

static const int watched[SIGNALS] = {SIGINT, SIGTERM, SIGBUS};

void interrupt_watch(struct sigaction old[SIGNALS])
{
    /* Back to the default after the first, so that the second ends the process. */
    struct sigaction stop = {.sa_handler = on_interrupt,
                             .sa_flags = (int)SA_RESETHAND | SA_RESTART};
    struct sigaction end = {.sa_handler = on_lost_page};
    sigemptyset(&stop.sa_mask);
    sigemptyset(&end.sa_mask);
    interrupted = 0;
    for (int i = 0; i < SIGNALS; i++)
        sigaction(watched[i], watched[i] == SIGBUS ? &end : &stop, &old[i]);
}

void interrupt_unwatch(const struct sigaction old[SIGNALS])
{
    for (int i = 0; i < SIGNALS; i++)
        sigaction(watched[i], &old[i], NULL);
}

const char *stop_reason(const Trainer *t)
{
    if (interrupted)
        return "interrupted";
    double limit = t->options.time_limit;
    if (limit > 0 && (double)(time_now() - t->journal.begun) >= limit * 1e9)
        return "out of time";
    return NULL;
}

/* Reads the slot of the next step, which all stages have finished. Called with the lock,
 * which is given up while the journal is written. */
static int step_report(Trainer *t, Problem *p)
{
    int64_t step = t->reported + 1;
    const StepSlot *slot = slot_of(t, step);
    pthread_mutex_unlock(&t->lock);
    const MdlModel *model = t->model;
    double loss = slot->loss / (double)model->batch, norm = norm_of(t, slot->norm) / slot->scale;
    double lr = learning_rate(model->lr_schedule, t->lr, model->min, model->warmup, step, t->steps);
    int status;
    if (!isfinite(norm) && !slot->skipped)
        status = problem_set(p, EXIT_RUN,
                             "step %lld: the gradient of %s is not finite; a lower learning rate "
                             "or clip_norm may help",
                             (long long)step, norm_culprit(t, slot->norm));
    else
        status = journal_step(t, step, loss, lr, norm, slot->scale, p);
    pthread_mutex_lock(&t->lock);
    t->reported = step;
    pthread_cond_broadcast(&t->changed);
    return status;
}

/* Until all devices have done the run of steps and every slot has been read. Called with
 * the lock. The wait is short because signals do not wake it. */
static int steps_watch(Trainer *t, Problem *p)
{
    int n = t->model->nstages;
    while (!atomic_load(&t->aborted)) {
        const StepSlot *next = slot_of(t, t->reported + 1);
        if (t->reported < t->last && next->step == t->reported + 1 && next->finished == n) {
            TRY(step_report(t, p));
            continue;
        }
        if (t->reported >= t->last && t->idle == n)
            return MDL_OK;
        if (t->last > t->begun && stop_reason(t)) {
            t->last = t->begun;
            pthread_cond_broadcast(&t->changed);
            continue;
        }
        struct timespec until = time_after(0.1);
        pthread_cond_timedwait(&t->report, &t->lock, &until);
    }
    return MDL_FAILED;
}

int run_steps(Trainer *t, int64_t first, int64_t last, int64_t *done, Problem *p)
{
    pthread_mutex_lock(&t->lock);
    t->last = last;
    t->begun = first - 1;
    pthread_mutex_unlock(&t->lock);
    devices_command(t, COMMAND_STEPS);

    pthread_mutex_lock(&t->lock);
    int status = steps_watch(t, p);
    *done = t->reported;
    pthread_mutex_unlock(&t->lock);
    if (status != MDL_OK && p->exit_code != 0)
        trainer_abort(t, p);
    int waited = devices_wait(t, p);
    return status == MDL_OK ? waited : status;
}

int run_eval(Trainer *t, int64_t step, Problem *p)
{
    int64_t samples = dataset_samples(t->eval);
    t->eval_loss = 0;
    for (int i = 0; i < t->model->nmetrics; i++)
        t->eval_metrics[i] = 0;
    t->eval_end = samples;
    devices_command(t, COMMAND_EVAL);
    TRY(devices_wait(t, p));
    for (int i = 0; i < t->model->nmetrics; i++)
        t->eval_metrics[i] /= (double)samples;
    return journal_eval(t, step, t->eval_loss / (double)samples, t->eval_metrics, p);
}

int run_check(Trainer *t, double *loss, Problem *p)
{
    t->eval_loss = 0;
    devices_command(t, COMMAND_CHECK);
    TRY(devices_wait(t, p));
    *loss = t->eval_loss / (double)t->model->batch;
    return MDL_OK;
}

/* The step before which something is due: evaluation, a checkpoint or the end. */
static int64_t next_stop(const Trainer *t, int64_t done)
{
    const Options *o = &t->options;
    int64_t stop = t->steps;
    if (o->eval_every > 0 && done / o->eval_every * o->eval_every + o->eval_every < stop)
        stop = done / o->eval_every * o->eval_every + o->eval_every;
    if (o->save_every > 0 && done / o->save_every * o->save_every + o->save_every < stop)
        stop = done / o->save_every * o->save_every + o->save_every;
    return stop;
}

/* Evaluation and checkpoints need weights that stand still, so the run is cut where they
 * are due; between the cuts devices run free. What was trained is written before it is
 * evaluated: a bad sample of the evaluation must not cost the run. */
int run_train(Trainer *t, int64_t done, Problem *p)
{
    const Options *o = &t->options;
    int64_t evaluated = -1, saved = -1;
    t->first = done + 1;
    t->journal.begun = t->journal.last = time_now();
    while (done < t->steps) {
        int64_t stop = next_stop(t, done);
        TRY(run_steps(t, done + 1, stop, &done, p));
        if (done < stop || interrupted)
            break;
        if (o->save && o->save_every > 0 && done % o->save_every == 0) {
            TRY(checkpoint_write(t, o->save, done, p));
            saved = done;
        }
        if (t->eval && o->eval_every > 0 && done % o->eval_every == 0) {
            TRY(run_eval(t, done, p));
            evaluated = done;
        }
        t->journal.last = time_now();
    }
    journal_summary(t, done, done < t->steps ? stop_reason(t) : NULL);
    if (o->save && saved != done)
        TRY(checkpoint_write(t, o->save, done, p));
    if (o->export)
        TRY(weights_export(t, o->export, p));
    bool due = t->eval && evaluated != done && !interrupted;
    return due ? run_eval(t, done, p) : MDL_OK;
}
