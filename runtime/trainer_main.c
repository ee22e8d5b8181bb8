/* trainer_main.c - a trainer from beginning to end.
 *
 * In: the model's description and the command line. Out: an exit code. This is the one
 * place that prints an error, and the one that decides the order of things: options,
 * checkpoint, weights, data, devices, steps, files.
 */
#include <math.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "training.h"

/* A description that does not hold together would only fail later, and worse. */
static int model_check(const MdlModel *m, Problem *p)
{
    bool ok = m->nstages > 0 && m->batch > 0 && m->microbatch > 0 && m->microbatches > 0 &&
              m->microbatch * m->microbatches == m->batch && m->nweights >= 0 && m->ninputs > 0;
    for (int i = 0; ok && i < m->nlinks; i++) {
        const MdlLink *l = &m->links[i];
        ok = l->from >= 0 && l->from < m->nstages && l->to >= 0 && l->to < m->nstages &&
             l->bytes > 0 && l->slots > 0;
    }
    return ok ? MDL_OK : problem_set(p, EXIT_RUN, "the model's description is wrong");
}

static void threads_choose(Trainer *t)
{
    cpu_set_t set;
    int cores = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set)
                                                            : (int)sysconf(_SC_NPROCESSORS_ONLN);
    int share = cores / t->model->nstages;
    t->threads = t->options.threads > 0 ? t->options.threads : share > 0 ? share : 1;
    t->spin = (int64_t)t->model->nstages * t->threads <= cores;
}

static void locks_new(Trainer *t)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->changed, &monotonic);
    pthread_cond_init(&t->report, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

static int resume_open(Trainer *t, int64_t *done, Problem *p)
{
    const Options *o = &t->options;
    uint64_t seed;
    TRY(checkpoint_open(&t->initial, t->model, o->resume, done, &seed, p));
    t->resumed = true;
    if (o->has_seed && o->seed != seed)
        return problem_set(p, EXIT_USE,
                           "--seed %llu: the checkpoint in %s was trained with --seed %llu",
                           (unsigned long long)o->seed, o->resume, (unsigned long long)seed);
    t->seed = seed;
    const char *noted = tensors_metadata(t->initial, "lr");
    double lr = noted ? strtod(noted, NULL) : -1;
    if (o->lr < 0 && isfinite(lr) && lr >= 0)
        t->lr = lr; /* of the run that wrote the checkpoint */
    TRY(loss_scale_resume(t, t->initial, *done, p));
    if (!o->quiet)
        printf("going on after step %lld of %s\n", (long long)*done, o->resume);
    return MDL_OK;
}

/* Where the weights come from, and which step is the last one done. */
static int weights_prepare(Trainer *t, int64_t *done, Problem *p)
{
    *done = 0;
    loss_scale_start(t);
    TRY(weights_list(&t->weights, t->model, p));
    if (t->options.resume)
        TRY(resume_open(t, done, p));
    else if (t->options.load)
        TRY(tensors_open(&t->initial, t->options.load, false, p));
    return t->initial ? weights_check(t, t->initial, t->resumed, p) : MDL_OK;
}

static int data_prepare(Trainer *t, bool train, Problem *p)
{
    const Options *o = &t->options;
    DataRequest request = {0};
    bool found = false;
    int status = MDL_OK;
    if (train) {
        status = request_data(&request, &found, t->model, "train", o->data, o->ndata, p);
        if (status == MDL_OK && !found)
            status = problem_set(p, EXIT_USE,
                                 "no data to train on: give --data NAME=PATH or --data synthetic, "
                                 "or write `data train = ...;` in the model");
        if (status == MDL_OK)
            status = dataset_open(&t->train, &request, t->model, t->seed, p);
        free(request.files);
        TRY(status);
    }
    /* Made-up samples are for trying a model out, often without any of its files. */
    if (o->neval == 0 && o->ndata > 0 && strcmp(o->data[o->ndata - 1], "synthetic") == 0) {
        if (o->eval_every == 0)
            return MDL_OK;
        return problem_set(p, EXIT_USE, "--eval-every with --data synthetic needs --eval-data");
    }
    status = request_data(&request, &found, t->model, "eval", o->eval, o->neval, p);
    if (status == MDL_OK && found && !o->check_gradients)
        status = dataset_open(&t->eval, &request, t->model, t->seed, p);
    free(request.files);
    if (status == MDL_OK && o->eval_every > 0 && !found)
        status = problem_set(p, EXIT_USE,
                             "--eval-every needs data: give --eval-data, or write "
                             "`data eval = ...;` in the model");
    return status;
}

/* What is only wrong use is found before any thread starts or any step is lost. */
static int trainer_run(Trainer *t, Problem *p)
{
    int64_t done;
    const Options *o = &t->options;
    TRY(model_check(t->model, p));
    if (o->check_gradients && sizeof(real) != 8)
        return problem_set(p, EXIT_USE,
                           "--check-gradients needs a trainer that computes in double: build it "
                           "with `mdlc build --target host --set train.precision=f64`");
    TRY(target_check(t, p));
    threads_choose(t);
    TRY(weights_prepare(t, &done, p));
    TRY(data_prepare(t, done < t->steps || o->check_gradients, p));
    TRY(checkpoint_folder(t, done, p));
    TRY(journal_open(t, p));
    TRY(reports_new(t, p));
    TRY(links_new(t, p));
    t->reported = done;
    t->devices = calloc((size_t)t->model->nstages, sizeof *t->devices);
    if (!t->devices)
        return problem_no_memory(p, "the devices");
    TRY(devices_start(t, p));
    return o->check_gradients ? check_gradients(t, p) : run_train(t, done, p);
}

/* Drawings are made of a failed run too: that is when they are looked at most. */
static int drawings_write(Trainer *t, Problem *p)
{
    int status = MDL_OK;
    if (t->options.trace && t->devices && t->reported > 0)
        status = trace_write(t, t->options.trace, p);
    if (t->options.plot && t->journal.nlosses + t->journal.nevals > 0) {
        int plotted = plot_write(t, t->options.plot, p);
        status = status == MDL_OK ? plotted : status;
    }
    return status;
}

static void trainer_free(Trainer *t)
{
    devices_stop(t);
    links_free(t);
    reports_free(t);
    journal_close(t);
    dataset_close(t->train);
    dataset_close(t->eval);
    tensors_close(t->initial);
    weights_free(&t->weights);
    pthread_mutex_destroy(&t->lock);
    pthread_cond_destroy(&t->changed);
    pthread_cond_destroy(&t->report);
}

static int trainer_main(Trainer *t, Problem *p)
{
    struct sigaction old[SIGNALS];
    const Options *o = &t->options;
    t->seed = o->has_seed ? o->seed : t->model->seed;
    t->steps = o->steps >= 0 ? o->steps : t->model->steps;
    t->lr = o->lr >= 0 ? o->lr : t->model->hyper.lr;
    t->started = time_now();
    locks_new(t);
    interrupt_watch(old);
    int status = trainer_run(t, p);
    bool line_open = status != MDL_OK && t->journal.terminal && t->journal.drawn > 0;
    if (line_open)
        putchar('\n');
    if (drawings_write(t, p) != MDL_OK)
        status = MDL_FAILED;
    trainer_free(t);
    interrupt_unwatch(old);
    return status;
}

int mdl_main(const MdlModel *model, int argc, char **argv)
{
    Problem p = {0};
    Trainer *t = calloc(1, sizeof *t);
    if (!t) {
        fprintf(stderr, "error: out of memory\n");
        return EXIT_RUN;
    }
    t->model = model;
    int status = options_parse(&t->options, argc, argv, &p);
    if (status == MDL_OK && t->options.help)
        options_help(model, argc > 0 ? argv[0] : model->name);
    else if (status == MDL_OK)
        status = trainer_main(t, &p);
    fflush(stdout);
    if (status != MDL_OK)
        fprintf(stderr, "error: %s\n", p.text);
    options_free(&t->options);
    free(t);
    return status == MDL_OK ? 0 : p.exit_code != 0 ? p.exit_code : EXIT_RUN;
}
