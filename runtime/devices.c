/* devices.c - one thread per stage.
 *
 * A device's thread opens the device, fills its weights and then takes commands: a run of
 * optimizer steps, an evaluation, one batch for checking gradients, the end. In a run of steps
 * no device waits for another but in links, in clipping and when it is STEP_SLOTS steps ahead.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "trainer.h"

enum { UNWIND_SECONDS = 10 };

int64_t time_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

struct timespec time_after(double seconds)
{
    int64_t at = time_now() + (int64_t)(seconds * 1e9);
    return (struct timespec){.tv_sec = at / 1000000000, .tv_nsec = at % 1000000000};
}

Device *device_of(const Stage *s)
{
    return &s->trainer->devices[s->index];
}

/* ----------------------------------------------------------------- failures */

char *stage_place(const Stage *s, char *out)
{
    const Device *d = device_of(s);
    int n = snprintf(out, TEXT_PLACE, "stage %d (%.40s), step %lld", s->index, d->plan->device,
                     (long long)s->step);
    if (d->phase && d->m >= 0)
        snprintf(out + n, (size_t)(TEXT_PLACE - n), ", in %c%d m%d", d->phase, d->chunk, d->m);
    else if (d->phase)
        snprintf(out + n, (size_t)(TEXT_PLACE - n), ", in %c%d", d->phase, d->chunk);
    return out;
}

void trainer_abort(Trainer *t, const Problem *p)
{
    pthread_mutex_lock(&t->lock);
    if (p && t->problem.exit_code == 0)
        t->problem = *p;
    atomic_store(&t->aborted, true);
    pthread_cond_broadcast(&t->changed);
    pthread_cond_broadcast(&t->report);
    pthread_mutex_unlock(&t->lock);
    links_wake(t);
}

int stage_fail(Stage *s, const char *format, ...)
{
    Problem p = {.exit_code = EXIT_RUN};
    va_list args;
    va_start(args, format);
    vsnprintf(p.text, sizeof p.text, format, args);
    va_end(args);
    trainer_abort(s->trainer, &p);
    return MDL_FAILED;
}

/* ------------------------------------------------------------------- threads */

static int device_prepare(Device *d)
{
    Problem p = {0};
    TRY(device_open(d));
    if (weights_fill(d, &p) != MDL_OK) {
        trainer_abort(d->stage.trainer, &p);
        return MDL_FAILED;
    }
    if (d->plan->start)
        TRY(d->plan->start(&d->stage));
    return device_collect(d);
}

static int device_steps(Device *d)
{
    Stage *s = &d->stage;
    for (int64_t step = s->step + 1; step_begin(s, step); step++) {
        TRY(d->plan->step(s));
        TRY(device_collect(d));
        step_end(s, step);
    }
    return MDL_OK;
}

static int device_eval(Device *d)
{
    Trainer *t = d->stage.trainer;
    d->mode = MODE_EVAL;
    d->stage.training = false;
    for (d->base = 0; d->base < t->eval_end && !atomic_load(&t->aborted);
         d->base += t->model->batch) {
        TRY(d->plan->eval(&d->stage));
        TRY(device_collect(d));
    }
    return MDL_OK;
}

static int device_run(Device *d, Command command)
{
    if (command == COMMAND_EVAL)
        return device_eval(d);
    d->stage.training = true;
    if (command == COMMAND_STEPS) {
        d->mode = MODE_TRAIN;
        return device_steps(d);
    }
    d->mode = MODE_CHECK;
    d->base = 0;
    TRY(d->plan->eval(&d->stage));
    return device_collect(d);
}

/* Says that the last command is done and waits for another than *seen. */
static Command command_next(Trainer *t, int64_t *seen)
{
    pthread_mutex_lock(&t->lock);
    if (++t->idle == t->model->nstages)
        pthread_cond_signal(&t->report);
    while (t->command_number == *seen)
        pthread_cond_wait(&t->changed, &t->lock);
    *seen = t->command_number;
    Command command = t->command;
    pthread_mutex_unlock(&t->lock);
    return command;
}

static void *device_main(void *arg)
{
    Device *d = arg;
    Trainer *t = d->stage.trainer;
    char place[TEXT_PLACE];
    int64_t seen = 0;
    int status = device_prepare(d);
    for (;;) {
        /* The first failure is kept, so this one shows only where nothing was said. */
        if (status == MDL_FAILED)
            stage_fail(&d->stage, "%s: failed", stage_place(&d->stage, place));
        Command command = command_next(t, &seen);
        if (command == COMMAND_EXIT)
            break;
        status = atomic_load(&t->aborted) ? MDL_STOPPED : device_run(d, command);
    }
    device_close(d);
    return NULL;
}

/* ---------------------------------------------------------- the main thread's */

void devices_command(Trainer *t, Command command)
{
    pthread_mutex_lock(&t->lock);
    t->command = command;
    t->command_number++;
    t->idle = 0;
    pthread_cond_broadcast(&t->changed);
    pthread_mutex_unlock(&t->lock);
}

/* After a failure the others unwind at their next link or step; one that computes for
 * ever cannot be ended without the process. */
static void devices_wait_unwound(Trainer *t)
{
    struct timespec until = time_after(UNWIND_SECONDS);
    while (t->idle < t->model->nstages)
        if (pthread_cond_timedwait(&t->report, &t->lock, &until) == ETIMEDOUT &&
            t->idle < t->model->nstages) {
            fprintf(stderr, "error: %s\nerror: a stage did not stop within %d s\n", t->problem.text,
                    UNWIND_SECONDS);
            _exit(EXIT_RUN);
        }
}

int devices_wait(Trainer *t, Problem *p)
{
    pthread_mutex_lock(&t->lock);
    while (t->idle < t->model->nstages && !atomic_load(&t->aborted))
        pthread_cond_wait(&t->report, &t->lock);
    if (atomic_load(&t->aborted)) {
        devices_wait_unwound(t);
        *p = t->problem;
    }
    pthread_mutex_unlock(&t->lock);
    return atomic_load(&t->aborted) ? MDL_FAILED : MDL_OK;
}

static int device_make(Trainer *t, int i, Problem *p)
{
    const MdlStage *plan = t->model->stages[i];
    Device *d = &t->devices[i];
    d->plan = plan;
    d->stage =
        (Stage){.index = i, .trainer = t, .training = true, .norm = t->norms, .step = t->reported};
    d->stage.hyper = t->model->hyper;
    d->m = -1;
    if (t->model->planned[i] != plan->bytes)
        return problem_set(p, EXIT_RUN, "%s: needs %lld bytes and was planned with %lld",
                           plan->device, (long long)plan->bytes, (long long)t->model->planned[i]);
    const int64_t sizes[2] = {plan->bytes, plan->host_bytes};
    for (int k = 0; k < 2; k++)
        if (sizes[k] < 0 || (uint64_t)sizes[k] > SIZE_MAX / 2)
            return problem_set(p, EXIT_RUN, "%s: %lld bytes are no size", plan->device,
                               (long long)sizes[k]);
    if (t->options.trace && !trace_new(&d->trace, 200000 / t->model->nstages))
        return problem_no_memory(p, "the trace");
    return device_allocate(d, p);
}

static void devices_tell(const Trainer *t)
{
    int device = 0, layers = 0;
    char number[32], what[TEXT_DEVICE];
    for (int i = 0; i < t->model->nstages; i++) {
        const MdlStage *plan = t->model->stages[i];
        device = (int)strlen(plan->device) > device ? (int)strlen(plan->device) : device;
        layers = (int)strlen(plan->layers) > layers ? (int)strlen(plan->layers) : layers;
    }
    for (int i = 0; i < t->model->nstages; i++) {
        const MdlStage *plan = t->model->stages[i];
        printf("%-*s  %-*s  %15s bytes, as planned%s\n", device, plan->device, layers, plan->layers,
               text_number(number, plan->bytes), device_describe(&t->devices[i], what));
    }
    target_tell(t);
    fflush(stdout);
}

int devices_start(Trainer *t, Problem *p)
{
    int n = t->model->nstages;
    for (int i = 0; i < n; i++)
        TRY(device_make(t, i, p));
    if (!t->options.quiet)
        devices_tell(t);
    for (int i = 0; i < n; i++) {
        Device *d = &t->devices[i];
        if (pthread_create(&d->thread, NULL, device_main, d) != 0)
            return problem_set(p, EXIT_RUN, "%s: cannot start a thread", d->plan->device);
        t->running++;
    }
    return devices_wait(t, p);
}

void devices_stop(Trainer *t)
{
    devices_command(t, COMMAND_EXIT);
    for (int i = 0; i < t->running; i++)
        pthread_join(t->devices[i].thread, NULL);
    for (int i = 0; t->devices && i < t->model->nstages; i++) {
        device_free(&t->devices[i]);
        free(t->devices[i].trace.events);
    }
    free(t->devices);
    t->devices = NULL;
}
