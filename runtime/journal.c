/* journal.c - what is said of a run while it goes on.
 *
 * In: one call per step and per evaluation, from the main thread. Out: a line of JSON
 * each in --log, flushed at once; a progress line on a terminal, or a line for every
 * tenth of the run; and the points that are drawn at the end.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "trainer.h"

int journal_open(Trainer *t, Problem *p)
{
    Journal *j = &t->journal;
    j->terminal = isatty(STDOUT_FILENO) == 1;
    j->begun = j->last = time_now();
    if (!t->options.log)
        return MDL_OK;
    j->log = fopen(t->options.log, t->resumed ? "a" : "w");
    if (!j->log)
        return problem_set(p, EXIT_USE, "--log %s: %s", t->options.log, strerror(errno));
    return MDL_OK;
}

void journal_close(Trainer *t)
{
    Journal *j = &t->journal;
    if (j->log)
        fclose(j->log);
    free(j->losses);
    free(j->evals);
    j->log = NULL;
}

static int log_flush(Trainer *t, Problem *p)
{
    if (fflush(t->journal.log) != 0 || ferror(t->journal.log))
        return problem_set(p, EXIT_RUN, "--log %s: %s", t->options.log, strerror(errno));
    return MDL_OK;
}

/* Makes room for one more element in a list that doubles. */
static int list_grow(void *list, int64_t n, int64_t *room, size_t size, Problem *p)
{
    void **at = list;
    if (n < *room)
        return MDL_OK;
    int64_t more = *room > 0 ? *room * 2 : 256;
    void *grown = realloc(*at, (size_t)more * size);
    if (!grown)
        return problem_no_memory(p, "the points of the plot");
    *at = grown;
    *room = more;
    return MDL_OK;
}

static void time_text(char *out, size_t size, double seconds)
{
    int64_t s = (int64_t)(seconds + 0.5);
    if (seconds < 10)
        snprintf(out, size, "%.1f s", seconds);
    else if (s < 3600)
        snprintf(out, size, "%d:%02d", (int)(s / 60), (int)(s % 60));
    else
        snprintf(out, size, "%lld:%02d:%02d", (long long)(s / 3600), (int)(s / 60 % 60),
                 (int)(s % 60));
}

/* Samples a second since `from`, over `steps` steps. */
static double rate_since(const Trainer *t, int64_t from, int64_t steps)
{
    double seconds = (double)(time_now() - from) / 1e9;
    return (double)(steps * t->model->batch) / fmax(seconds, 1e-9);
}

static void progress_show(Trainer *t, int64_t step, double loss, double lr)
{
    Journal *j = &t->journal;
    int64_t now = time_now();
    int tenth = (int)((double)step / (double)t->steps * 10);
    bool due = j->terminal ? now - j->drawn > 100000000 || step == t->steps : tenth > j->tenth;
    if (!due || t->options.quiet || t->options.check_gradients)
        return;
    j->drawn = now;
    j->tenth = tenth;
    int64_t run = step - t->first + 1;
    double seconds = (double)(now - j->begun) / 1e9;
    char left[32];
    time_text(left, sizeof left, seconds / (double)run * (double)(t->steps - step));
    printf("%sstep %lld/%lld  %3d%%  loss %.5g  lr %.3g  %.4g samples/s  %s left%s",
           j->terminal ? "\r\033[K" : "", (long long)step, (long long)t->steps,
           (int)(100 * (double)step / (double)t->steps), loss, lr, rate_since(t, j->begun, run),
           left, j->terminal ? "" : "\n");
    fflush(stdout);
}

/* Leaves the progress line standing and goes below it. */
static void progress_end(Trainer *t)
{
    if (t->journal.terminal && !t->options.quiet && t->journal.drawn > 0)
        printf("\n");
    t->journal.drawn = 0;
}

int journal_step(Trainer *t, int64_t step, double loss, double lr, double norm, double scale,
                 Problem *p)
{
    Journal *j = &t->journal;
    double rate = rate_since(t, j->last, 1);
    j->last = time_now();
    if (step == t->first)
        j->first_loss = loss;
    j->last_loss = loss;
    if (j->log) {
        char norm_text[32] = "null", scale_text[64] = ""; /* not finite: the step was skipped */
        if (isfinite(norm))
            snprintf(norm_text, sizeof norm_text, "%.9g", norm);
        if (t->model->loss_scaled)
            snprintf(scale_text, sizeof scale_text, ", \"loss_scale\": %.9g", scale);
        fprintf(j->log,
                "{\"step\": %lld, \"loss\": %.9g, \"lr\": %.9g, \"grad_norm\": %s, "
                "\"samples_per_s\": %.9g%s}\n",
                (long long)step, loss, lr, norm_text, rate, scale_text);
        TRY(log_flush(t, p));
    }
    if (t->options.plot) {
        TRY(list_grow(&j->losses, j->nlosses, &j->room_losses, sizeof *j->losses, p));
        j->losses[j->nlosses++] = (LossPoint){step, loss};
    }
    progress_show(t, step, loss, lr);
    return MDL_OK;
}

int journal_eval(Trainer *t, int64_t step, double loss, const double *metrics, Problem *p)
{
    Journal *j = &t->journal;
    int n = t->model->nmetrics;
    if (j->log) {
        fprintf(j->log, "{\"step\": %lld, \"eval_loss\": %.9g", (long long)step, loss);
        for (int i = 0; i < n; i++)
            fprintf(j->log, ", \"%s\": %.9g", t->model->metrics[i], metrics[i]);
        fprintf(j->log, "}\n");
        TRY(log_flush(t, p));
    }
    if (t->options.plot) {
        TRY(list_grow(&j->evals, j->nevals, &j->room_evals, sizeof *j->evals, p));
        j->evals[j->nevals++] = (EvalPoint){step, loss, n > 0 ? metrics[0] : NAN};
    }
    if (t->options.quiet)
        return MDL_OK;
    progress_end(t);
    printf("evaluation after step %lld: loss %.5g", (long long)step, loss);
    for (int i = 0; i < n; i++)
        printf(", %s %.4f", t->model->metrics[i], metrics[i]);
    printf("\n");
    fflush(stdout);
    return MDL_OK;
}

void journal_summary(Trainer *t, int64_t last, const char *why)
{
    if (t->options.quiet)
        return;
    progress_end(t);
    int64_t run = last - t->first + 1;
    if (run <= 0) {
        printf("no steps were run%s%s\n", why ? ": " : "", why ? why : "");
        return;
    }
    char took[32];
    double seconds = (double)(time_now() - t->journal.begun) / 1e9;
    time_text(took, sizeof took, seconds);
    printf("%s%s%lld steps in %s, %.4g samples/s; loss %.5g at first, %.5g at last\n",
           why ? why : "done", why ? ", stopped early: " : ": ", (long long)run, took,
           rate_since(t, t->journal.begun, run), t->journal.first_loss, t->journal.last_loss);
    fflush(stdout);
}
