/* plot.c - a run's loss, drawn as SVG.
 *
 * In: the losses of all steps and what the evaluations found. Out: the losses thin, a
 * smoothed line over them, evaluations as points, the first metric on an axis of its own
 * at the right. A million steps become one vertical stroke per column of the picture,
 * from the least to the greatest loss in it. Rare spikes do not set the scale.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "trainer.h"

enum { WIDTH = 960, HEIGHT = 540, LEFT = 78, RIGHT = 900, TOP = 64, BOTTOM = 478 };

/* A linear axis: values low ... high lie at from ... to on the picture. */
typedef struct {
    double low, high, step, from, to;
} Axis;

typedef struct {
    FILE *out;
    const Trainer *t;
    Axis x, y, metric;
    bool has_metric;
} Plot;

static double axis_at(const Axis *a, double value)
{
    return a->from + (value - a->low) / (a->high - a->low) * (a->to - a->from);
}

/* 1, 2 or 5 times a power of ten that cuts the range into about n parts. */
static double nice_step(double range, int n)
{
    double raw = range / n, power = pow(10, floor(log10(raw))), part = raw / power;
    return power * (part <= 1 ? 1 : part <= 2 ? 2 : part <= 5 ? 5 : 10);
}

/* A range of a few units in the last place has no step that changes the values: it is none. */
static Axis axis_new(double low, double high, double from, double to, int parts)
{
    if (!(high - low > 1e-9 * fmax(fabs(low), fabs(high)))) {
        double room = fmax(fabs(low) * 0.1, 1e-3);
        low -= room;
        high += room;
    }
    double step = nice_step(high - low, parts);
    low = floor(low / step + 1e-9) * step;
    high = ceil(high / step - 1e-9) * step;
    return (Axis){low, high, step, from, to};
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The range of losses that is shown. */
static bool loss_range(const Journal *j, double *low, double *high)
{
    int64_t n = 0;
    double *all = malloc((size_t)(j->nlosses + j->nevals) * sizeof *all);
    if (!all)
        return false;
    for (int64_t i = 0; i < j->nlosses; i++)
        all[n++] = j->losses[i].loss;
    for (int64_t i = 0; i < j->nevals; i++)
        all[n++] = j->evals[i].loss;
    qsort(all, (size_t)n, sizeof *all, by_value);
    *low = all[0];
    *high = all[n - 1];
    double usual = all[(int64_t)((double)(n - 1) * 0.995)];
    if (n >= 200 && *high - *low > 1.5 * (usual - *low))
        *high = usual + 0.1 * (usual - *low);
    if (*low > 0 && *low < 0.4 * *high)
        *low = 0;
    free(all);
    return true;
}

static void text_print(Plot *plot, double x, double y, const char *class, const char *text)
{
    fprintf(plot->out, "<text x=\"%.1f\" y=\"%.1f\" class=\"%s\">", x, y, class);
    for (const char *c = text; *c; c++)
        if (*c == '<' || *c == '>' || *c == '&' || *c < ' ')
            fprintf(plot->out, "&#%d;", *c < ' ' ? '?' : *c);
        else
            fputc(*c, plot->out);
    fputs("</text>\n", plot->out);
}

static void line_print(Plot *plot, double x1, double y1, double x2, double y2, const char *class)
{
    fprintf(plot->out, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" class=\"%s\"/>\n", x1,
            y1, x2, y2, class);
}

static void head_print(Plot *plot)
{
    fprintf(plot->out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" "
            "height=\"%d\">\n",
            WIDTH, HEIGHT, WIDTH, HEIGHT);
    fputs("<style>\n"
          "text { font: 13px system-ui, 'DejaVu Sans', sans-serif; fill: #52606d }\n"
          ".title { font-size: 19px; font-weight: 600; fill: #1f2933 }\n"
          ".right { text-anchor: end } .middle { text-anchor: middle }\n"
          ".metric { fill: #1b7f5c }\n"
          ".grid { stroke: #e4e7eb; stroke-width: 1 } .axis { stroke: #9aa5b1 }\n"
          "path { fill: none; stroke-linejoin: round; stroke-linecap: round }\n"
          ".raw { stroke: #2f6fbb; stroke-opacity: .33; stroke-width: 1 }\n"
          ".smooth { stroke: #174a8b; stroke-width: 2.2 }\n"
          ".eval { stroke: #d9480f; stroke-width: 1.6 } .evaldot { fill: #d9480f }\n"
          ".measure { stroke: #1b7f5c; stroke-width: 1.6; stroke-dasharray: 5 4 }\n"
          ".measuredot { fill: #1b7f5c }\n"
          "</style>\n",
          plot->out);
    fprintf(plot->out,
            "<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n<clipPath id=\"inside\">"
            "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\"/></clipPath>\n",
            LEFT, TOP - 3, RIGHT - LEFT + 4, BOTTOM - TOP + 6);
    text_print(plot, LEFT, 34, "title", plot->t->model->name);
}

static void number_print(Plot *plot, double x, double y, const char *class, double value,
                         double step)
{
    char text[48];
    if (fabs(value) < step / 1e6)
        value = 0;
    if (fabs(value) >= 1e15)
        snprintf(text, sizeof text, "%.4g", value);
    else if (step >= 1)
        text_number(text, llround(value));
    else
        snprintf(text, sizeof text, "%.*f", step < 1e-9 ? 9 : (int)ceil(-log10(step) - 1e-9),
                 value);
    text_print(plot, x, y, class, text);
}

static void axes_print(Plot *plot)
{
    const Axis *x = &plot->x, *y = &plot->y, *m = &plot->metric;
    for (double v = y->low; v <= y->high + y->step / 2; v += y->step) {
        line_print(plot, LEFT, axis_at(y, v), RIGHT, axis_at(y, v), "grid");
        number_print(plot, LEFT - 10, axis_at(y, v) + 4.5, "right", v, y->step);
    }
    for (double v = ceil(x->low / x->step) * x->step; v <= x->high; v += x->step) {
        line_print(plot, axis_at(x, v), TOP, axis_at(x, v), BOTTOM, "grid");
        number_print(plot, axis_at(x, v), BOTTOM + 20, "middle", v, x->step);
    }
    if (plot->has_metric)
        for (double v = m->low; v <= m->high + m->step / 2; v += m->step)
            number_print(plot, RIGHT + 10, axis_at(m, v) + 4.5, "metric", v, m->step);
    line_print(plot, LEFT, BOTTOM, RIGHT, BOTTOM, "axis");
    text_print(plot, (LEFT + RIGHT) / 2.0, BOTTOM + 44, "middle", "step");
}

static void point_print(Plot *plot, bool first, double x, double y)
{
    fprintf(plot->out, "%c%.1f %.1f", first ? 'M' : 'L', axis_at(&plot->x, x),
            axis_at(&plot->y, y));
}

/* Every loss where there is room, else the least and the greatest of each column. */
static void raw_print(Plot *plot)
{
    const Journal *j = &plot->t->journal;
    int64_t n = j->nlosses, columns = RIGHT - LEFT;
    fputs("<path class=\"raw\" clip-path=\"url(#inside)\" d=\"", plot->out);
    for (int64_t i = 0; i < n && n <= 2 * columns; i++)
        point_print(plot, i == 0, (double)j->losses[i].step, j->losses[i].loss);
    for (int64_t c = 0; c < columns && n > 2 * columns; c++) {
        int64_t from = c * n / columns, to = (c + 1) * n / columns;
        double low = j->losses[from].loss, high = low, at = (double)j->losses[from].step;
        for (int64_t i = from; i < to; i++) {
            low = fmin(low, j->losses[i].loss);
            high = fmax(high, j->losses[i].loss);
        }
        point_print(plot, c == 0, at, c % 2 ? low : high);
        point_print(plot, false, at, c % 2 ? high : low);
    }
    fputs("\"/>\n", plot->out);
}

/* The exponentially weighted mean over about a fortieth of the run, corrected for its
 * beginning. */
static void smooth_print(Plot *plot)
{
    const Journal *j = &plot->t->journal;
    int64_t n = j->nlosses, columns = RIGHT - LEFT;
    double keep = 1 - 1 / fmax(2, (double)n / 40), mean = 0, weight = 0;
    fputs("<path class=\"smooth\" clip-path=\"url(#inside)\" d=\"", plot->out);
    for (int64_t i = 0, drawn = -1; i < n; i++) {
        mean = keep * mean + (1 - keep) * j->losses[i].loss;
        weight = keep * weight + (1 - keep);
        int64_t column = n <= columns ? i : i * columns / n;
        if (column != drawn || i == n - 1)
            point_print(plot, i == 0, (double)j->losses[i].step, mean / weight);
        drawn = column;
    }
    fputs("\"/>\n", plot->out);
}

static void evals_print(Plot *plot, bool metric)
{
    const Journal *j = &plot->t->journal;
    const Axis *y = metric ? &plot->metric : &plot->y;
    const char *class = metric ? "measure" : "eval";
    int64_t stride = j->nevals / 400 + 1; /* dots that still can be told apart */
    fprintf(plot->out, "<path class=\"%s\" clip-path=\"url(#inside)\" d=\"", class);
    for (int64_t i = 0; i < j->nevals; i += stride)
        fprintf(plot->out, "%c%.1f %.1f", i ? 'L' : 'M',
                axis_at(&plot->x, (double)j->evals[i].step),
                axis_at(y, metric ? j->evals[i].metric : j->evals[i].loss));
    fputs("\"/>\n", plot->out);
    for (int64_t i = 0; i < j->nevals; i += stride)
        fprintf(plot->out,
                "<circle class=\"%sdot\" clip-path=\"url(#inside)\" cx=\"%.1f\" cy=\"%.1f\" "
                "r=\"3\"/>\n",
                class, axis_at(&plot->x, (double)j->evals[i].step),
                axis_at(y, metric ? j->evals[i].metric : j->evals[i].loss));
}

static double legend_print(Plot *plot, double x, const char *class, const char *text)
{
    double left = x - 7.2 * (double)strlen(text) - 34;
    fprintf(plot->out, "<path class=\"%s\" d=\"M%.1f 30L%.1f 30\"/>\n", class, left, left + 22);
    text_print(plot, left + 28, 34.5, "", text);
    return left - 10;
}

static void legends_print(Plot *plot)
{
    const Journal *j = &plot->t->journal;
    double x = RIGHT;
    if (plot->has_metric)
        x = legend_print(plot, x, "measure", plot->t->model->metrics[0]);
    if (j->nevals > 0)
        x = legend_print(plot, x, "eval", "evaluation loss");
    if (j->nlosses > 0) {
        x = legend_print(plot, x, "smooth", "smoothed");
        legend_print(plot, x, "raw", "loss");
    }
}

static bool axes_choose(Plot *plot)
{
    const Journal *j = &plot->t->journal;
    double low, high, first = 1, last = 1, best = -INFINITY, worst = INFINITY;
    if (!loss_range(j, &low, &high))
        return false;
    first = (double)(j->nlosses > 0 ? j->losses[0].step : j->evals[0].step);
    last = (double)(j->nlosses > 0 ? j->losses[j->nlosses - 1].step : j->evals[0].step);
    for (int64_t i = 0; i < j->nevals; i++) {
        first = fmin(first, (double)j->evals[i].step);
        last = fmax(last, (double)j->evals[i].step);
        best = fmax(best, j->evals[i].metric);
        worst = fmin(worst, j->evals[i].metric);
    }
    first = first <= 0.05 * last ? 0 : first;
    plot->x = (Axis){first, last > first ? last : first + 1, 1, LEFT, RIGHT};
    plot->x.step = fmax(1, nice_step(plot->x.high - plot->x.low, 8));
    plot->y = axis_new(low, high, BOTTOM, TOP, 6);
    plot->has_metric = isfinite(best) && isfinite(worst);
    if (plot->has_metric && worst >= 0 && best <= 1)
        plot->metric = axis_new(worst > 0.9 ? 0.9 : 0, 1, BOTTOM, TOP, 5);
    else if (plot->has_metric)
        plot->metric = axis_new(worst, best, BOTTOM, TOP, 5);
    return true;
}

int plot_write(const Trainer *t, const char *path, Problem *p)
{
    Plot plot = {.t = t};
    if (!axes_choose(&plot))
        return problem_no_memory(p, "the plot");
    plot.out = fopen(path, "w");
    if (!plot.out)
        return problem_set(p, EXIT_RUN, "--plot %s: %s", path, strerror(errno));
    head_print(&plot);
    axes_print(&plot);
    if (t->journal.nlosses > 0) {
        raw_print(&plot);
        smooth_print(&plot);
    }
    if (t->journal.nevals > 0)
        evals_print(&plot, false);
    if (plot.has_metric)
        evals_print(&plot, true);
    legends_print(&plot);
    fputs("</svg>\n", plot.out);
    bool failed = ferror(plot.out) != 0;
    if (fclose(plot.out) != 0 || failed)
        return problem_set(p, EXIT_RUN, "--plot %s: %s", path, strerror(errno));
    return MDL_OK;
}
