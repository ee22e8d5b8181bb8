/* svg_rows.c - what stands in and between the rows of the schedule's picture: runs, transfers,
 * kept memory.
 *
 * Where there are too many runs to be seen one by one, the time axis is cut into columns and
 * every column shows how its time is shared, from the top: F, B, W, update, idle. */
#include <math.h>
#include <string.h>

#include "svg.h"

static const char paint_letters[PAINTS] = {'f', 'b', 'i', 'w', 'u'};

bool svg_paint(const Action *a, Paint *paint)
{
    static const Paint of_run[RUN_KINDS] = {PAINT_F, PAINT_F, PAINT_B, PAINT_I, PAINT_W};
    if (a->kind == ACT_RUN)
        *paint = of_run[a->run];
    else
        *paint = PAINT_UPDATE;
    return a->kind == ACT_RUN || a->kind == ACT_ROUND || a->kind == ACT_UPDATE ||
           a->kind == ACT_REDUCE || a->kind == ACT_CLIP;
}

/* Where an action is at work: a clip waits for the others' as well. */
static Span work_of(const Sheet *s, int device, int action)
{
    const DeviceTime *t = &s->plan->seconds->devices[device];
    Span span = t->spans[action];
    if (s->plan->p->devices.at[device].train.actions.at[action].kind == ACT_CLIP)
        span.end = span.start + t->clipping;
    return span;
}

double svg_x(const Sheet *s, double seconds)
{
    double step = s->plan->seconds->step;
    return s->x + (step > 0 ? seconds / step * s->width : 0);
}

double svg_row(const Sheet *s, int device)
{
    return s->y + device * s->pitch;
}

/* Which of its device's chunks it is, as a shade. */
static int shade_of(const Program *p, int device, int chunk)
{
    const Device *d = &p->devices.at[device];
    int k = 0;
    while (chunk != NONE && k + 1 < d->chunks.n && d->chunks.at[k] != chunk)
        k++;
    return k < SHADES ? k : SHADES - 1;
}

/* --------------------------------------------------------------------------- runs */

static const char *describe(const Sheet *s, const Action *a, Span span)
{
    Arena *arena = s->arena;
    const char *from = plan_show_seconds(arena, span.start),
               *to = plan_show_seconds(arena, span.end);
    if (a->kind == ACT_RUN)
        return arena_printf(arena, "%s of chunk %d, micro-batch %d: %s to %s", run_name(a->run),
                            a->chunk, a->m, from, to);
    return arena_printf(arena, "%s: %s to %s",
                        a->kind == ACT_UPDATE  ? "update"
                        : a->kind == ACT_CLIP  ? "clip"
                        : a->kind == ACT_ROUND ? "rounding of weights"
                                               : "sum of tied gradients",
                        from, to);
}

static void add_label(const Sheet *s, const Action *a, double x, double y, double w, int shade)
{
    double font = s->lane >= 28 ? 12 : s->lane >= 20 ? 10 : 8;
    char label[16];
    snprintf(label, sizeof label, "%d", a->m);
    if (a->kind != ACT_RUN || s->lane < 12 || (double)strlen(label) * font * 0.64 + 2 > w)
        return;
    bool dark = a->run != RUN_F && a->run != RUN_W;
    text_printf(s->out, "<text class=\"n%s\" x=\"%.1f\" y=\"%.1f\" font-size=\"%g\">%s</text>",
                dark || shade > 1 ? " k" : "", x + w / 2, y + s->lane / 2 + font * 0.36, font,
                label);
}

void svg_runs(const Sheet *s, int device)
{
    const Program *p = s->plan->p;
    const ActionList *list = &p->devices.at[device].train;
    double y = svg_row(s, device);
    for (int i = 0; i < list->actions.n; i++) {
        const Action *a = &list->actions.at[i];
        Span span = work_of(s, device, i);
        Paint paint;
        if (!svg_paint(a, &paint) || span.end <= span.start)
            continue;
        double x = svg_x(s, span.start), w = svg_x(s, span.end) - x;
        double seam = w > 6 ? 1 : w > 2 ? 0.5 : 0; /* between neighbours */
        int shade = a->kind == ACT_RUN ? shade_of(p, device, a->chunk) : 0;
        text_printf(s->out,
                    "<g><title>%s</title><rect class=\"%c%d\" x=\"%.2f\" y=\"%.1f\" width=\"%.2f\" "
                    "height=\"%.1f\"%s/>",
                    describe(s, a, span), paint_letters[paint], shade, x, y,
                    w - seam > 0.2 ? w - seam : 0.2, s->lane, w > 8 ? " rx=\"2\"" : "");
        add_label(s, a, x, y, w - seam, shade);
        text_add(s->out, "</g>\n");
    }
}

/* How the time of each column is shared. */
static double *find_shares(const Sheet *s, int device)
{
    const ActionList *list = &s->plan->p->devices.at[device].train;
    double *share = ARENA_ARRAY(s->arena, double, s->columns *PAINTS);
    double scale = s->columns / s->plan->seconds->step;
    for (int i = 0; i < list->actions.n; i++) {
        Span span = work_of(s, device, i);
        Paint paint;
        if (!svg_paint(&list->actions.at[i], &paint) || span.end <= span.start)
            continue;
        double from = span.start * scale, to = span.end * scale;
        for (int c = (int)from; c < s->columns && c < to; c++) {
            double begin = c > from ? c : from, end = c + 1 < to ? c + 1 : to;
            share[c * PAINTS + (int)paint] += end - begin;
        }
    }
    return share;
}

static bool is_steady(const double *column)
{
    return column[PAINT_F] > 0 && (column[PAINT_B] > 0 || column[PAINT_I] > 0);
}

/* Where F and B take turns a column holds a little more of one or of the other as it happens
 * to fall: there, and only there, neighbours are averaged, so that warm-up and drain keep
 * their edges. */
static const double *smooth_shares(const Sheet *s, const double *share)
{
    enum { REACH = 4 };
    double *smooth = ARENA_ARRAY(s->arena, double, s->columns *PAINTS);
    for (int c = 0; c < s->columns; c++) {
        int from = c, to = c, steady = is_steady(share + c * PAINTS);
        while (steady && from > 0 && c - from < REACH && is_steady(share + (from - 1) * PAINTS))
            from--;
        while (steady && to + 1 < s->columns && to - c < REACH &&
               is_steady(share + (to + 1) * PAINTS))
            to++;
        for (int k = 0; k < PAINTS; k++) {
            for (int n = from; n <= to; n++)
                smooth[c * PAINTS + k] += share[n * PAINTS + k] / (to - from + 1);
        }
    }
    return smooth;
}

/* Tops of the stacked shares, in half pixels. */
static void stack(const Sheet *s, const double *share, int column, int *tops)
{
    double sum = 0;
    tops[0] = 0;
    for (int k = 0; k < PAINTS; k++) {
        sum += share[column * PAINTS + k];
        double height = (sum < 1 ? sum : 1) * s->lane * 2;
        tops[k + 1] = (int)(height + 0.5);
    }
}

void svg_merged_runs(const Sheet *s, int device)
{
    const double *share = smooth_shares(s, find_shares(s, device));
    double y = svg_row(s, device), w = s->width / s->columns;
    int *tops = ARENA_ARRAY(s->arena, int, s->columns *(PAINTS + 1));
    for (int c = 0; c < s->columns; c++)
        stack(s, share, c, tops + c * (PAINTS + 1));
    for (int k = 0; k < PAINTS; k++) {
        bool open = false;
        for (int c = 0; c < s->columns;) {
            int top = tops[c * (PAINTS + 1) + k], end = tops[c * (PAINTS + 1) + k + 1], from = c;
            while (c < s->columns && tops[c * (PAINTS + 1) + k] == top &&
                   tops[c * (PAINTS + 1) + k + 1] == end)
                c++;
            if (end == top)
                continue;
            if (!open)
                text_printf(s->out, "<path class=\"%c0\" d=\"", paint_letters[k]);
            open = true;
            text_printf(s->out, "M%.1f %.1fh%.1fv%.1fh%.1fz", s->x + from * w, y + top * 0.5,
                        (c - from) * w, (end - top) * 0.5, (from - c) * w);
        }
        text_add(s->out, open ? "\"/>\n" : "");
    }
}

/* ---------------------------------------------------------------------- transfers */

/* The lines of one kind of link, then the heads of their arrows. */
static void transfers_of(const Sheet *s, LinkKind kind, bool heads)
{
    const Program *p = s->plan->p;
    bool open = false;
    for (int d = 0; d < p->devices.n; d++) {
        const ActionList *list = &p->devices.at[d].train;
        for (int i = 0; i < list->actions.n; i++) {
            const Action *a = &list->actions.at[i];
            if (a->kind != ACT_SEND || p->links.at[a->link].kind != kind)
                continue;
            int to = p->links.at[a->link].to;
            Span span = s->plan->seconds->devices[d].spans[i];
            double x1 = svg_x(s, span.start), x2 = svg_x(s, span.end), arrow = to > d ? -4 : 4;
            double y1 = svg_row(s, d) + (to > d ? s->lane : 0);
            double y2 = svg_row(s, to) + (to > d ? 0 : s->lane);
            if (!open)
                text_printf(s->out, "<path class=\"%c%d\" d=\"", heads ? 'h' : 't', (int)kind);
            open = true;
            if (heads)
                text_printf(s->out, "M%.1f %.1fl-2 %.0fh4z", x2, y2, arrow);
            else
                text_printf(s->out, "M%.1f %.1fL%.1f %.1f", x1, y1, x2, y2);
        }
    }
    text_add(s->out, open ? "\"/>\n" : "");
}

void svg_transfers(const Sheet *s)
{
    for (int kind = LINK_ACTIVATION; kind <= LINK_WEIGHT; kind++) {
        transfers_of(s, (LinkKind)kind, false);
        transfers_of(s, (LinkKind)kind, true);
    }
}

/* Copies to the host and back, as two thin lines at the lower edge of the lane. */
void svg_copies(const Sheet *s, int device)
{
    const Device *d = &s->plan->p->devices.at[device];
    for (int in = 0; in < 2 && d->offloads.n && !s->merged; in++) {
        const double y = svg_row(s, device) + s->lane - (in ? 1 : 4);
        text_printf(s->out, "<path class=\"o%d\" d=\"", in);
        for (int i = 0; i < d->train.actions.n; i++) {
            const Span span = s->plan->seconds->devices[device].spans[i];
            if (d->train.actions.at[i].kind == (in ? ACT_COPY_IN : ACT_COPY_OUT) && span.end >= 0)
                text_printf(s->out, "M%.1f %.1fH%.1f", svg_x(s, span.start), y,
                            svg_x(s, span.end) - 0.4);
        }
        text_add(s->out, "\"/>\n");
    }
}

/* ------------------------------------------------------------------------- memory */

/* A stair that rises and falls with the bytes; of the changes inside one piece of the axis
 * the highest is drawn. */
void svg_kept(const Sheet *s, int device, const KeptSteps *kept, int64_t most)
{
    if (most <= 0 || s->curve <= 0)
        return;
    double base = svg_row(s, device) + s->lane + 2 + s->curve,
           piece = s->merged ? s->width / s->columns : 0.5;
    double drawn = base;
    text_printf(s->out, "<path class=\"m\" d=\"M%.1f %.1f", s->x, base);
    for (int i = 0; i < kept->n;) {
        double x = svg_x(s, kept->at[i].at);
        int64_t high = kept->at[i].bytes;
        for (i++; i < kept->n && svg_x(s, kept->at[i].at) < x + piece; i++)
            if (kept->at[i].bytes > high)
                high = kept->at[i].bytes;
        /* what the piece ends with counts from its end on */
        double y = base - (double)high / (double)most * s->curve;
        if (fabs(y - drawn) < 0.05)
            continue;
        text_printf(s->out, "H%.1fV%.1f", x, y);
        drawn = y;
    }
    text_printf(s->out, "H%.1fV%.1fz\"/>\n", s->x + s->width, base);
}
