/* check_gradients.c - derivatives against differences.
 *
 * In: a model built with real = double. Out: per weight the largest disagreement between
 * the gradient of step 1 and (loss(w + h) - loss(w - h)) / 2h on the same batch, for up
 * to 24 of its elements; an error when one exceeds LIMIT. Every element is tried with
 * two h and the better is taken: the smaller is nearer to the derivative, the larger less
 * hurt by rounding. What the rounding of the loss itself explains is no disagreement.
 */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "trainer.h"

enum { ELEMENTS = 24 };
static const double LIMIT = 1e-5;

typedef struct {
    const Weight *weight;
    double *gradient; /* a copy: evaluating may use the memory that holds it */
    double largest;
} Checked;

/* The weight and its tied copies. */
static int element_set(const Trainer *t, int64_t index, int64_t e, double value, Problem *p)
{
    for (int64_t i = 0; i < t->weights.n; i++) {
        Span span;
        if (t->weights.all[i].index != index)
            continue;
        TRY(weight_open(&span, t, &t->weights.all[i], PART_WEIGHT, SPAN_READ | SPAN_WRITE, p));
        ((real *)span.at)[e] = (real)value;
        TRY(span_close(&span, SPAN_READ | SPAN_WRITE, p));
    }
    return MDL_OK;
}

static int element_get(const Trainer *t, const Weight *w, int64_t e, double *value, Problem *p)
{
    Span span;
    TRY(weight_open(&span, t, w, PART_WEIGHT, SPAN_READ, p));
    *value = (double)((const real *)span.at)[e];
    return span_close(&span, SPAN_READ, p);
}

static int element_error(Trainer *t, const Checked *c, int64_t e, double h, double *error,
                         Problem *p)
{
    double w, up, down;
    TRY(element_get(t, c->weight, e, &w, p));
    double step = h * fmax(1, fabs(w)), above = w + step, below = w - step;
    TRY(element_set(t, c->weight->index, e, above, p));
    TRY(run_check(t, &up, p));
    TRY(element_set(t, c->weight->index, e, below, p));
    TRY(run_check(t, &down, p));
    TRY(element_set(t, c->weight->index, e, w, p));

    double found = (up - down) / (above - below), wanted = c->gradient[e];
    double rounding = 4 * DBL_EPSILON * fmax(1, fmax(fabs(up), fabs(down))) / step;
    double scale = fmax(fmax(fabs(found), fabs(wanted)), 1e-3 * c->largest);
    double wrong = fabs(found - wanted);
    *error = wrong <= rounding ? 0 : wrong / scale;
    return MDL_OK;
}

static int weight_check(Trainer *t, const Checked *c, double *worst, Problem *p)
{
    int64_t count = c->weight->count, n = count < ELEMENTS ? count : ELEMENTS;
    *worst = 0;
    for (int64_t k = 0; k < n; k++) {
        int64_t e = n == 1 ? 0 : k * (count - 1) / (n - 1);
        double near, far;
        TRY(element_error(t, c, e, 1e-6, &near, p));
        TRY(element_error(t, c, e, 1e-5, &far, p));
        *worst = fmax(*worst, fmin(near, far));
    }
    return MDL_OK;
}

static int gradients_copy(const Trainer *t, Checked *checked, Problem *p)
{
    for (int64_t i = 0; i < t->model->nweights; i++) {
        const Weight *w = t->weights.owner[i];
        if (w->run->frozen)
            continue;
        Checked *c = &checked[i];
        c->gradient = calloc((size_t)w->count, sizeof *c->gradient);
        if (!c->gradient)
            return problem_no_memory(p, "the gradients");
        c->weight = w;
        if (w->run->grad < 0)
            continue; /* only metrics use it: the loss must not change with it */
        Span span;
        TRY(weight_open(&span, t, w, PART_GRADIENT, SPAN_READ, p));
        const real *g = span.at;
        for (int64_t e = 0; e < w->count; e++) {
            c->gradient[e] = (double)g[e];
            c->largest = fmax(c->largest, fabs(c->gradient[e]));
        }
        TRY(span_close(&span, SPAN_READ, p));
    }
    return MDL_OK;
}

static int all_check(Trainer *t, Checked *checked, Problem *p)
{
    int64_t done, bad = 0;
    const char *worst_name = "";
    double worst = 0;
    TRY(run_steps(t, 1, 1, &done, p));
    TRY(gradients_copy(t, checked, p));
    for (int64_t i = 0; i < t->model->nweights; i++) {
        const Checked *c = &checked[i];
        double error;
        char shape[TEXT_SHAPE];
        if (!c->weight)
            continue;
        TRY(weight_check(t, c, &error, p));
        bad += !(error <= LIMIT);
        if (!(error <= worst)) {
            worst = error;
            worst_name = c->weight->name;
        }
        if (!t->options.quiet || !(error <= LIMIT))
            printf("%-4s %.1e  %s %s\n", error <= LIMIT ? "ok" : "BAD", error, c->weight->name,
                   text_shape(shape, c->weight->run->dim, c->weight->run->rank));
    }
    if (bad > 0)
        return problem_set(p, EXIT_RUN,
                           "the gradients of %lld weights are wrong; the worst is '%s', off by "
                           "%.1e of its size (limit %.0e)",
                           (long long)bad, worst_name, worst, LIMIT);
    if (!t->options.quiet)
        printf("all gradients agree with the differences; the worst is off by %.1e (limit %.0e)\n",
               worst > 0 ? worst : 0, LIMIT);
    return MDL_OK;
}

int check_gradients(Trainer *t, Problem *p)
{
    Checked *checked = calloc((size_t)t->model->nweights + 1, sizeof *checked);
    int status = checked ? all_check(t, checked, p) : problem_no_memory(p, "the gradients");
    for (int64_t i = 0; checked && i < t->model->nweights; i++)
        free(checked[i].gradient);
    free(checked);
    return status;
}
