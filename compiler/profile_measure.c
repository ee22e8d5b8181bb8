/* profile_measure.c - mdlc profile: how long every layer takes on this machine.
 *
 * In:  the Program, as it would be built: its own split, schedule and threads, so that layers are
 *      measured beside those that they will run beside.
 * Out: FILE.profile.json.
 *
 * The trainer is built with a bracket around every call, and trains: two steps to learn how long
 * one takes, then as many as fill some seconds. A call's time is the typical one over steps,
 * micro-batches and the turns of its loop; it goes to the rows of the operations that the call
 * does, and where several were fused into one, to each in proportion to its estimate. */
#include <errno.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "build.h"
#include "files_out.h"
#include "profile_trace.h"
#include "timeline.h"

enum { TRIAL_STEPS = 3, LEAST_STEPS = 4, MOST_STEPS = 2000, MOST_EVENTS = 100000 };
static const double seconds_to_measure = 8;

/* ---------------------------------------------------------------------- the trainer */

static int say_failed(Workshop *w, const Job *j)
{
    if (interrupts_came(&w->interrupts))
        return EXIT_USE;
    const char *log = file_read(w->arena, j->log, 1 << 16, NULL);
    fprintf(stderr,
            "%smdlc: the trainer failed, and nothing was measured; options for it go after --\n",
            log ? log : "");
    return EXIT_USE;
}

/* Trains for some steps; NULL and *code after a message. */
static ProfileSamples *train(Workshop *w, const Options *o, const Program *p, const char *program,
                             int64_t steps, int *code)
{
    Arena *a = w->arena;
    const char *trace = arena_printf(a, "%s/trace.json", w->dir);
    Job job = {.log = arena_printf(a, "%s/trainer.log", w->dir)};
    VEC_PUSH(a, &job.words, program);
    for (char **arg = o->run_args; *arg; arg++)
        VEC_PUSH(a, &job.words, *arg);
    const char *const own[] = {"-q",      "--steps", arena_printf(a, "%lld", (long long)steps),
                               "--trace", trace,     NULL};
    push_all(a, &job.words, own);
    jobs_run(a, &w->interrupts, &job, 1, 1, w->verbose);
    if (job.end != JOB_DONE) {
        *code = say_failed(w, &job);
        return NULL;
    }
    ProfileSamples *s = profile_trace_read(a, p, trace);
    *code = s ? EXIT_DONE : EXIT_BUG;
    return s;
}

static int64_t choose_steps(double step, int events_per_step)
{
    double n = step > 0 ? seconds_to_measure / step : MOST_STEPS;
    const double most = (double)MOST_EVENTS / (events_per_step > 0 ? events_per_step : 1);
    n = n > most ? most : n;
    n = n > MOST_STEPS ? MOST_STEPS : n;
    return n > LEAST_STEPS ? (int64_t)n : LEAST_STEPS;
}

/* ------------------------------------------------------------------------ what it took */

/* [ops of the Graph]: seconds of each as a call; those that load and report go to the operation
 * beside them. */
static double *find_op_seconds(Arena *a, const Program *p, ProfileSamples *s)
{
    double *seconds = ARENA_ARRAY(a, double, p->graph->ops.n + 1);
    for (int c = 0; c < p->chunks.n; c++)
        for (int k = 0; k < RUN_KINDS; k++) {
            const Run *run = &p->chunks.at[c].run[k];
            const int first = k == RUN_E ? 0 : program_first_call(p, c, (RunKind)k);
            double rest = 0;
            OpId last = NONE;
            for (int i = 0; i < run->steps.n && k != RUN_E; i++)
                for (int n = 0; n < run->steps.at[i].ncalls; n++) {
                    const int at = run->steps.at[i].first + n;
                    const Call *call = &run->calls.at[at];
                    double t =
                        samples_typical(&s->devices[p->chunks.at[c].device].calls[k][first + at]);
                    if (call->kind != CALL_OP) {
                        rest += t;
                        continue;
                    }
                    for (int turn = 0; turn < run->steps.at[i].turns; turn++)
                        seconds[call->ops[turn]] += t;
                    last = call->ops[0];
                    seconds[last] += rest;
                    rest = 0;
                }
            if (last != NONE)
                seconds[last] += rest;
        }
    return seconds;
}

static void fill_rows(const Compilation *c, const double *seconds, Profile *profile)
{
    const ProfileParts *parts = &c->parts;
    const Graph *g = c->model->graph;
    double *sums = ARENA_ARRAY(c->arena, double, g->ops.n + 1);
    int *counts = ARENA_ARRAY(c->arena, int, g->ops.n + 1);
    for (int i = 0; i < parts->nops; i++) {
        sums[parts->fused[i]] += parts->seconds[i];
        counts[parts->fused[i]]++;
    }
    profile->nrows = parts->nrows;
    profile->rows = parts->rows;
    for (int i = 0; i < parts->nops; i++) {
        const OpId o = parts->fused[i];
        const double share = sums[o] > 0 ? parts->seconds[i] / sums[o] : 1.0 / counts[o];
        const Part part = profile_part(&g->ops.at[o]);
        profile->rows[parts->row[i]].seconds[part] += seconds[o] * share;
    }
}

static void find_rates(const Program *p, ProfileSamples *s, Profile *profile)
{
    static const ActionKind kinds[WEIGHT_WORKS] = {[WORK_ROUND] = ACT_ROUND,
                                                   [WORK_REDUCE] = ACT_REDUCE,
                                                   [WORK_CLIP] = ACT_CLIP,
                                                   [WORK_UPDATE] = ACT_UPDATE};
    for (int k = 0; k < WEIGHT_WORKS; k++) {
        double bytes = 0, seconds = 0;
        for (int d = 0; d < p->devices.n; d++) {
            if (s->devices[d].work[k].n == 0)
                continue;
            bytes += timeline_weight_bytes(&p->devices.at[d], kinds[k]);
            seconds += samples_typical(&s->devices[d].work[k]);
        }
        profile->work[k] = seconds > 0 && bytes >= 1 ? bytes / seconds : 0;
    }
    double bytes = 0, seconds = 0;
    for (int l = 0; l < p->links.n; l++) {
        bytes += (double)p->links.at[l].bytes * s->copies[l].n;
        /* a send that waits for its buffer is slow: that is no copying */
        seconds += samples_mean(&s->copies[l], 0, 0.25) * s->copies[l].n;
    }
    profile->link = seconds > 0 ? bytes / seconds : 0;
    profile->latency = samples_mean(&s->wakes, 0.5, 0.5);
}

/* What the step takes when it is put together from these times again. */
static double planned_step(const Compilation *c, const Profile *profile, const double *seconds)
{
    Program *p = c->program;
    Devices *d = &c->model->settings.devices;
    for (int i = 0; i < p->chunks.n; i++)
        for (int k = 0; k < RUN_KINDS; k++) {
            const Run *run = &p->chunks.at[i].run[k];
            double sum = 0;
            for (int s = 0; s < run->steps.n; s++)
                for (int n = 0; n < run->steps.at[s].ncalls; n++)
                    for (int turn = 0; turn < run->steps.at[s].turns; turn++) {
                        const Call *call = &run->calls.at[run->steps.at[s].first + n];
                        sum += call->kind == CALL_OP ? seconds[call->ops[turn]] : 0;
                    }
            p->chunks.at[i].seconds[k] = sum;
        }
    if (profile->link > 0) {
        d->link = d->node_link = profile->link;
        d->latency = profile->latency;
    }
    memcpy(d->work, profile->work, sizeof d->work);
    c->model->profile = profile;
    return timeline_make(c->arena, p, TIMELINE_SECONDS)->period;
}

static const char *processor_name(Arena *a)
{
    const char *info = file_read(a, "/proc/cpuinfo", 64 << 10, NULL),
               *at = info ? strstr(info, "\nmodel name") : NULL;
    at = at ? strchr(at, ':') : NULL;
    if (!at)
        return "unknown";
    at += 1 + strspn(at + 1, " \t");
    return arena_strndup(a, at, strcspn(at, "\n"));
}

/* ----------------------------------------------------------------------- the command */

static bool calls_fit(const Program *p)
{
    for (int d = 0; d < p->devices.n; d++) {
        const Device *device = &p->devices.at[d];
        const int last = device->chunks.at[device->chunks.n - 1];
        for (int k = 0; k < RUN_KINDS; k++)
            if (program_first_call(p, last, (RunKind)k) + p->chunks.at[last].run[k].calls.n >
                INT16_MAX)
                return false;
    }
    return true;
}

/* Said before the work, not after it. */
static bool may_write(Arena *a, const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *dir = slash ? arena_strndup(a, path, (size_t)(slash - path) + 1) : ".";
    if (access(dir, W_OK | X_OK) == 0)
        return true;
    fprintf(stderr, "mdlc: cannot write into %s: %s\n", dir, strerror(errno));
    return false;
}

static int write_profile(const Compilation *c, Profile *profile)
{
    Text text = {.arena = c->arena};
    if (!profile_write(profile, &text)) {
        fprintf(stderr, "mdlc: no memory for the profile\n");
        return EXIT_USE;
    }
    return build_replace_file(profile->path, text.at) ? EXIT_DONE : EXIT_USE;
}

static int measure(Workshop *w, const Options *o, const Compilation *c, Profile *profile)
{
    Arena *a = c->arena;
    Program *p = c->program;
    const char *program;
    EmittedFiles files = emit_files(p, c->diag);
    int code = workshop_build(w, &files, &program);
    if (code != EXIT_DONE)
        return code;
    ProfileSamples *s = train(w, o, p, program, TRIAL_STEPS, &code);
    if (!s)
        return code;
    const double step = samples_typical(&s->steps);
    const int64_t steps = choose_steps(step, s->events / TRIAL_STEPS);
    if (!o->quiet)
        fprintf(stderr, "measuring %lld steps, about %.0f s\n", (long long)steps,
                ceil(step * (double)steps));
    s = train(w, o, p, program, steps, &code);
    if (!s)
        return code;
    const double *seconds = find_op_seconds(a, p, s);
    fill_rows(c, seconds, profile);
    find_rates(p, s, profile);
    profile->steps = (int)s->nsteps;
    profile->step = samples_typical(&s->steps);
    profile->threads = s->threads;
    code = write_profile(c, profile);
    if (code != EXIT_DONE || o->quiet)
        return code;
    const double planned = planned_step(c, profile, seconds);
    fprintf(stderr, "wrote %s: %d layers; a step takes %.4g ms, and %.4g ms by these times\n",
            profile->path, profile->nrows, 1e3 * profile->step, 1e3 * planned);
    const bool alone = profile->devices * profile->threads <= profile->cores;
    if (alone && fabs(planned - profile->step) > 0.15 * profile->step)
        fprintf(stderr, "mdlc: the two should be closer: something else may have run meanwhile\n");
    return code;
}

int profile_measure(const Options *o, const Compilation *c)
{
    Arena *a = c->arena;
    const Program *p = c->program;
    const Settings *settings = &c->model->settings;
    Profile profile = {
        .path = o->output ? o->output : arena_printf(a, "%s.profile.json", build_stem(a, o->input)),
        .model = c->model->name,
        .graph = c->parts.key,
        .precision = profile_precision_name(settings->train.precision),
        .microbatch = p->microbatch,
        .processor = processor_name(a),
        .cores = cores_online(),
        .devices = p->devices.n,
        .schedule = schedule_kind_name(settings->parallel.schedule)};
    if (!calls_fit(p)) {
        fprintf(stderr, "mdlc: the model has more calls than a trace can number\n");
        return EXIT_USE;
    }
    Workshop w;
    if (!may_write(a, profile.path) || !workshop_open(&w, o, c))
        return EXIT_USE;
    if (!o->quiet) {
        fprintf(stderr, "building %s to measure it: %d stage%s\n", c->model->name, p->devices.n,
                p->devices.n == 1 ? "" : "s");
        if (p->devices.n > profile.cores)
            fprintf(stderr, "mdlc: %d stages share %d cores; times will be as if they did not\n",
                    p->devices.n, profile.cores);
    }
    const int code = measure(&w, o, c, &profile);
    workshop_close(&w);
    return code;
}
