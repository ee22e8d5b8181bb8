/* svg.c - the schedule as a picture: a row for every device, time to the right.
 *
 * In:  the Plan with its estimated times.
 * Out: one self-contained SVG: title, legend, for every device a lane of runs with the
 *      kept memory under it, transfers between the lanes, an axis of time.
 *
 *     gpu[0]  |0|1|2|3|   |  0  |  1  |…     idle 20 %
 *     h.0 …    ▁▂▃▄▄▄▄▄▄▃▃▂▂                 kept 12 MiB
 *
 * Blue and orange of like saturation and unlike lightness can be told apart with any colour
 * vision and in grey. The size of the file is bounded: see svg_rows.c. */
#include <math.h>

#include "svg.h"

enum { FEW_RUNS = 600, MOST_RUNS = 5000, MOST_TRANSFERS = 1600, MERGED_BYTES = 1000000 };

static const char *const paint_colours[PAINTS][SHADES] = {
    [PAINT_F] = {"#2c6cb0", "#5b91c9", "#8ab4dc", "#b5d0ea"},
    [PAINT_B] = {"#e8912d", "#efab5c", "#f4c48b", "#f8dab5"},
    [PAINT_I] = {"#f2b544", "#f5c66f", "#f8d799", "#fbe7c2"},
    [PAINT_W] = {"#7d4f9e", "#9a76b4", "#b69cca", "#d3c3df"},
    [PAINT_UPDATE] = {"#23876a", "#23876a", "#23876a", "#23876a"},
};

static void add_style(const Sheet *s)
{
    Text *o = s->out;
    text_add(
        o, "<style>\n"
           "text{font-family:Inter,'Helvetica Neue',Arial,'DejaVu Sans',sans-serif;fill:#1f2933}\n"
           ".t{font-size:22px;font-weight:700}.s{font-size:13px;fill:#52606d}\n"
           ".d{font-weight:700}.l{fill:#7b8794}.e{text-anchor:end}\n"
           ".a{font-size:11px;fill:#7b8794;text-anchor:middle}\n"
           ".n{text-anchor:middle;fill:#fff}.k{fill:#3b2506}\n"
           ".z{fill:#eceff3}.g{stroke:#d9dfe6;stroke-width:1;fill:none}\n"
           ".m{fill:#c3ccd6;stroke:#8593a2;stroke-width:.6}\n"
           ".t0,.t1,.t2,.t3{fill:none;stroke-width:.9;opacity:.75}.h0,.h1,.h2,.h3{opacity:.9}\n"
           ".o0,.o1{fill:none;stroke-width:2.4;stroke:#6b2fa0}.o1{stroke:#0b7a75}\n"
           ".t0{stroke:#2c6cb0}.h0{fill:#2c6cb0}.t1{stroke:#c9741a}.h1{fill:#c9741a}\n"
           ".t2,.t3{stroke:#23876a;stroke-dasharray:3 2}.h2,.h3{fill:#23876a}\n");
    static const char letters[] = "fbiwu";
    for (int k = 0; k < PAINTS; k++)
        for (int i = 0; i < SHADES; i++)
            text_printf(o, ".%c%d{fill:%s}%s", letters[k], i, paint_colours[k][i],
                        i + 1 < SHADES ? "" : "\n");
    text_add(o, "</style>\n");
}

/* -------------------------------------------------------------------------- legend */

static double legend_word(const Sheet *s, double x, double y, const char *word)
{
    text_printf(s->out, "<text class=\"s\" font-size=\"12\" x=\"%.1f\" y=\"%.1f\">%s</text>\n", x,
                y, word);
    return x + svg_length(word) * 7.1 + 22;
}

static double legend_box(const Sheet *s, double x, double y, const char *class, const char *word)
{
    text_printf(s->out,
                "<rect class=\"%s\" x=\"%.1f\" y=\"%.1f\" width=\"16\" height=\"12\" rx=\"2\"/>",
                class, x, y - 10);
    return legend_word(s, x + 22, y, word);
}

static double legend_line(const Sheet *s, double x, double y, int kind, const char *word)
{
    text_printf(s->out,
                "<path class=\"t%d\" d=\"M%.1f %.1fl10 9\"/><path class=\"h%d\" d=\"M%.1f %.1fl-2 "
                "-4h4z\"/>",
                kind, x, y - 9, kind, x + 10, y);
    return legend_word(s, x + 18, y, word);
}

static double legend_copy(const Sheet *s, double x, double y, int kind, const char *word)
{
    text_printf(s->out, "<path class=\"o%d\" d=\"M%.1f %.1fh14\"/>", kind, x, y - 4);
    return legend_word(s, x + 20, y, word);
}

/* What the program's actions are painted as. */
static void find_painted(const Program *p, bool *painted)
{
    for (int d = 0; d < p->devices.n; d++)
        for (int i = 0; i < p->devices.at[d].train.actions.n; i++) {
            Paint paint;
            if (svg_paint(&p->devices.at[d].train.actions.at[i], &paint))
                painted[paint] = true;
        }
}

/* Gives the x where it ends. */
static double add_legend(const Sheet *s, double x, double y, bool transfers)
{
    static const char *const words[PAINTS] = {"F forward", "B backward", "I backward, inputs",
                                              "W backward, weights", "U update"};
    static const char *const classes[PAINTS] = {"f0", "b0", "i0", "w0", "u0"};
    const Program *p = s->plan->p;
    bool painted[PAINTS] = {false}, links[LINK_WEIGHT + 1] = {false};
    find_painted(p, painted);
    for (int k = 0; k < PAINTS; k++)
        if (painted[k])
            x = legend_box(s, x, y, classes[k], words[k]);
    x = legend_box(s, x, y, "z", "idle");
    if (s->curve > 0)
        x = legend_box(s, x, y, "m", "kept memory in use");
    for (int l = 0; l < p->links.n; l++)
        links[p->links.at[l].kind] = true;
    if (transfers && links[LINK_ACTIVATION])
        x = legend_line(s, x, y, 0, "activations");
    if (transfers && links[LINK_GRADIENT])
        x = legend_line(s, x, y, 1, "gradients");
    if (transfers && (links[LINK_WEIGHT_GRADIENT] || links[LINK_WEIGHT]))
        x = legend_line(s, x, y, 2, "tied weights");
    bool copies = false;
    for (int d = 0; d < p->devices.n; d++)
        copies = copies || (p->devices.at[d].offloads.n && !s->merged);
    if (copies) {
        x = legend_copy(s, x, y, 0, "to the host");
        x = legend_copy(s, x, y, 1, "and back");
    }
    const char *note = s->merged                    ? "each column: how its time is shared"
                       : p->chunks.n > p->devices.n ? "lighter: later chunks"
                                                    : "numbers: micro-batches";
    return legend_word(s, x, y, note);
}

static void add_title(const Sheet *s, double x)
{
    const Plan *plan = s->plan;
    const Program *p = plan->p;
    Arena *a = s->arena;
    text_printf(s->out, "<text class=\"t\" x=\"%.1f\" y=\"40\">%s</text>\n", x,
                svg_escape(a, svg_shorten(a, p->model->name, 70)));
    const char *step = plan_show_seconds(a, plan->seconds->period);
    text_printf(
        s->out,
        "<text class=\"s\" x=\"%.1f\" y=\"64\">%s \xC2\xB7 %d stage%s \xC2\xB7 %d "
        "micro-batch%s of %lld sample%s \xC2\xB7 step %s (estimated) \xC2\xB7 bubble %.1f %%"
        " (with %s: %.1f %%)</text>\n",
        x, svg_escape(a, svg_shorten(a, program_schedule_name(a, p), 40)), p->devices.n,
        p->devices.n == 1 ? "" : "s", p->microbatches, p->microbatches == 1 ? "" : "es",
        (long long)p->microbatch, p->microbatch == 1 ? "" : "s", step, 100 * plan->seconds->bubble,
        plan->lengths, 100 * plan->units->bubble);
}

/* ---------------------------------------------------------------------------- axis */

/* 1, 2 or 5 times a power of ten, so that about `n` ticks fit. */
static double tick_step(double range, int n)
{
    double raw = range / n, power = pow(10, floor(log10(raw))), lead = raw / power;
    return power * (lead <= 1 ? 1 : lead <= 2 ? 2 : lead <= 5 ? 5 : 10);
}

static void add_axis(const Sheet *s, double bottom)
{
    static const struct {
        double scale;
        const char *name;
    } units[] = {{1, "s"}, {1e3, "ms"}, {1e6, "us"}, {1e9, "ns"}};
    double step = s->plan->seconds->step;
    if (step <= 0)
        return;
    double tick = tick_step(step, (int)(s->width / 90));
    int u = 0;
    while (u < 3 && step * units[u].scale < 1)
        u++;
    for (int i = 0; i * tick <= step * 1.0000001; i++) {
        double x = svg_x(s, i * tick);
        text_printf(s->out, "<path class=\"g\" d=\"M%.1f %.1fV%.1f\"/>", x, s->y - 6, bottom);
        text_printf(s->out, "<text class=\"a\" x=\"%.1f\" y=\"%.1f\">%.4g%s%s</text>\n", x,
                    bottom + 15, i * tick * units[u].scale, i ? "" : " ", i ? "" : units[u].name);
    }
}

/* ---------------------------------------------------------------------------- rows */

static void add_names(const Sheet *s, int device, double x, int room)
{
    Arena *a = s->arena;
    const Device *d = &s->plan->p->devices.at[device];
    const char *layers = s->plan->stages[device].layers;
    double y = svg_row(s, device);
    if (s->lane >= 20) {
        text_printf(s->out,
                    "<text class=\"d\" font-size=\"13\" x=\"%.1f\" y=\"%.1f\">%s</text>"
                    "<text class=\"l\" font-size=\"11\" x=\"%.1f\" y=\"%.1f\">%s</text>\n",
                    x, y + 13, svg_escape(a, svg_shorten(a, d->name, room)), x, y + 28,
                    svg_escape(a, svg_shorten(a, layers, room)));
        return;
    }
    int every = (int)ceil(11 / s->pitch); /* names stand at least 11 pixels apart */
    if (device % every)
        return;
    int used = svg_length(d->name);
    text_printf(s->out,
                "<text font-size=\"10\" x=\"%.1f\" y=\"%.1f\"><tspan class=\"d\">%s</tspan>"
                "<tspan class=\"l\" dx=\"6\">%s</tspan></text>\n",
                x, y + s->lane / 2 + 3.6, svg_escape(a, svg_shorten(a, d->name, room)),
                svg_escape(a, svg_shorten(a, layers, room - used > 3 ? room - used : 3)));
}

/* What is set aside, as the tables have it, beside the curve of what is in use. */
static void add_kept(const Sheet *s, double font, double x, double y, const char *word,
                     int64_t bytes, int64_t peak)
{
    text_printf(s->out,
                "<text class=\"l\" font-size=\"%g\" x=\"%.1f\" y=\"%.1f\"><title>kept %s, at most "
                "%s of it in "
                "use at a time</title>%s%s</text>",
                font, x, y, show_bytes(s->arena, bytes), show_bytes(s->arena, peak), word,
                show_bytes(s->arena, bytes));
}

static void add_numbers(const Sheet *s, int device, int64_t peak)
{
    double step = s->plan->seconds->period, x = s->x + s->width + 14, y = svg_row(s, device);
    double idle = step > 0 ? 1 - s->plan->seconds->devices[device].busy / step : 0;
    int every = (int)ceil(11 / s->pitch);
    if (device % every)
        return;
    double font = s->lane >= 20 ? 12 : 10, middle = y + s->lane / 2 + font * 0.36;
    text_printf(s->out, "<text font-size=\"%g\" x=\"%.1f\" y=\"%.1f\">idle %.0f %%</text>", font, x,
                middle, 100 * idle);
    int64_t bytes = s->plan->p->devices.at[device].class_bytes[BUFFER_KEPT];
    if (s->curve >= 12)
        add_kept(s, 11, x, y + s->lane + 2 + s->curve - 2, "kept ", bytes, peak);
    else if (s->curve > 0)
        add_kept(s, 10, x + 62, middle, "", bytes, peak);
    text_add(s->out, "\n");
}

/* What a device's memory leaves for kept tensors; INT64_MAX: there is no limit. */
static int64_t kept_limit(const Program *p, int device)
{
    const int64_t memory = p->model->settings.devices.memory;
    const Device *d = &p->devices.at[device];
    return memory ? memory - (d->bytes - d->class_bytes[BUFFER_KEPT]) : INT64_MAX;
}

/* A line over the curve, where it is on its scale. */
static void add_limit(const Sheet *s, int device, int64_t most)
{
    const int64_t limit = kept_limit(s->plan->p, device);
    if (s->curve <= 0 || most <= 0 || limit > most)
        return;
    const double bottom = svg_row(s, device) + s->lane + 2 + s->curve;
    text_printf(s->out,
                "<path d=\"M%.1f %.1fH%.1f\" stroke=\"#b3261e\" stroke-dasharray=\"4 3\">"
                "<title>limit: %s are left for what is kept</title></path>\n",
                s->x, bottom - s->curve * (double)limit / (double)most, s->x + s->width,
                show_bytes(s->arena, limit));
}

static void add_rows(const Sheet *s, double x, int room, bool transfers)
{
    const Program *p = s->plan->p;
    Arena *a = s->arena;
    int64_t most = 0;
    KeptSteps *kept = ARENA_ARRAY(a, KeptSteps, p->devices.n);
    int64_t *peak = ARENA_ARRAY(a, int64_t, p->devices.n);
    for (int d = 0; d < p->devices.n && s->curve > 0; d++) {
        kept[d] = timeline_kept(a, p, s->plan->seconds, d);
        for (int i = 0; i < kept[d].n; i++)
            peak[d] = kept[d].at[i].bytes > peak[d] ? kept[d].at[i].bytes : peak[d];
        most = peak[d] > most ? peak[d] : most;
    }
    const int64_t highest = most;
    for (int d = 0; d < p->devices.n && s->curve > 0; d++) {
        const int64_t room_left = kept_limit(p, d);
        most = room_left > most && room_left <= 2 * highest ? room_left : most;
    }
    for (int d = 0; d < p->devices.n; d++) {
        text_printf(s->out,
                    "<rect class=\"z\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"%s/>\n",
                    s->x, svg_row(s, d), s->width, s->lane, s->lane >= 12 ? " rx=\"2\"" : "");
        svg_kept(s, d, &kept[d], most);
        add_limit(s, d, most);
        add_names(s, d, x, room);
        add_numbers(s, d, peak[d]);
    }
    if (transfers)
        svg_transfers(s); /* under the runs, over the idle */
    for (int d = 0; d < p->devices.n; d++) {
        if (s->merged)
            svg_merged_runs(s, d);
        else
            svg_runs(s, d);
        svg_copies(s, d);
    }
}

/* ------------------------------------------------------------------------ the sheet */

static void choose_heights(Sheet *s)
{
    static const struct {
        int devices;
        double lane, curve, gap;
    } sizes[] = {{8, 30, 20, 14}, {16, 22, 13, 10}, {32, 16, 8, 5},
                 {128, 13, 6, 3}, {256, 9, 0, 1},   {1 << 30, 3, 0, 0.5}};
    int i = 0;
    while (s->plan->p->devices.n > sizes[i].devices)
        i++;
    s->lane = sizes[i].lane;
    s->curve = sizes[i].curve;
    s->pitch = s->lane + s->curve + (s->curve > 0 ? 2 : 0) + sizes[i].gap;
}

/* As wide as the runs need to hold their numbers, within what a screen shows. */
static void choose_width(Sheet *s, int *transfers)
{
    const Program *p = s->plan->p;
    int64_t runs = 0, sends = 0;
    double busy = 0;
    for (int d = 0; d < p->devices.n; d++) {
        const ActionList *list = &p->devices.at[d].train;
        for (int i = 0; i < list->actions.n; i++) {
            const Action *a = &list->actions.at[i];
            Span span = s->plan->seconds->devices[d].spans[i];
            runs += a->kind == ACT_RUN;
            sends += a->kind == ACT_SEND;
            busy += a->kind == ACT_RUN ? span.end - span.start : 0;
        }
    }
    double mean = runs ? busy / (double)runs : 0, step = s->plan->seconds->step;
    double wish = mean > 0 ? step / mean * 24 : 0;
    s->width = wish < 880 ? 880 : wish > 1500 ? 1500 : wish;
    s->merged = runs > MOST_RUNS || (runs > FEW_RUNS && mean / step * s->width < 3);
    double columns = MERGED_BYTES / (44.0 * p->devices.n);
    /* several runs in each, or the shares would flicker */
    double most = (double)runs / p->devices.n / 4;
    columns = columns > most ? most : columns;
    s->columns = (int)(columns > s->width / 2 ? s->width / 2 : columns < 40 ? 40 : columns);
    *transfers = sends <= MOST_TRANSFERS && !s->merged;
}

/* The plan with another timeline, on a time axis as long as the longer one. */
static const Plan *with_timeline(const Plan *plan, const Timeline *t)
{
    Plan *copy = arena_copy(plan->arena, plan, sizeof *plan);
    copy->seconds = arena_copy(plan->arena, t, sizeof *t);
    if (plan->measured && plan->measured->step > copy->seconds->step)
        copy->seconds->step = plan->measured->step;
    if (plan->seconds->step > copy->seconds->step)
        copy->seconds->step = plan->seconds->step;
    return copy;
}

/* The measured step under the planned one. Where the sheet ends. */
static double add_measured(const Sheet *planned, double x, double bottom, int room, bool transfers)
{
    enum { HEAD = 54 };
    const Plan *plan = planned->plan;
    Sheet s = *planned;
    s.plan = with_timeline(plan, plan->measured);
    s.y = bottom + HEAD + 14;
    text_printf(s.out,
                "<text class=\"s\" x=\"%.1f\" y=\"%.1f\">measured \xC2\xB7 step %s \xC2\xB7 idle "
                "%.1f %%</text>\n",
                x, bottom + HEAD - 8, plan_show_seconds(s.arena, plan->measured->period),
                100 * plan->measured->bubble);
    const double end = svg_row(&s, plan->p->devices.n) + 2;
    add_axis(&s, end);
    add_rows(&s, x, room, transfers);
    return end;
}

void plan_svg(const Plan *plan, Text *out)
{
    enum { LEFT = 28, LEGEND = 94, ROOM = 26 };
    Sheet s = {.plan = plan, .arena = plan->arena, .out = out, .y = 122};
    int transfers, room = 0;
    choose_heights(&s);
    choose_width(&s, &transfers);
    for (int d = 0; d < plan->p->devices.n; d++) {
        int name = svg_length(plan->p->devices.at[d].name),
            layers = svg_length(plan->stages[d].layers);
        int n = s.lane >= 20 ? (name > layers ? name : layers) : name + layers + 1;
        room = n > room ? n : room;
    }
    room = room > ROOM ? ROOM : room < 8 ? 8 : room;
    s.x = LEFT + room * 6.6 + 14;
    double right = s.x + s.width + 132, bottom = svg_row(&s, plan->p->devices.n) + 2;
    Text legend = {.arena = plan->arena};
    s.out = &legend;
    const double end = add_legend(&s, LEFT, LEGEND, transfers);
    right = right < end ? end : right;
    Text rows = {.arena = plan->arena};
    text_add(&rows, "");
    s.out = &rows;
    add_title(&s, LEFT);
    text_add(&rows, legend.at);
    if (plan->measured)
        s.plan = with_timeline(plan, plan->seconds);
    add_axis(&s, bottom);
    add_rows(&s, LEFT, room, transfers);
    if (plan->measured) {
        s.plan = plan;
        bottom = add_measured(&s, LEFT, bottom, room, transfers);
    }
    s.out = out;
    text_printf(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" width=\"%.0f\" "
        "height=\"%.0f\">\n",
        right, bottom + 36, right, bottom + 36);
    add_style(&s);
    text_printf(out, "<rect width=\"%.0f\" height=\"%.0f\" fill=\"#fff\"/>\n", right, bottom + 36);
    text_add(out, rows.at);
    text_add(out, "</svg>\n");
}
