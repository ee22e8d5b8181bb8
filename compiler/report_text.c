/* report_text.c - a plan as people read it.
 *
 * In:  the Plan.
 * Out: what is trained; a table of the stages' work and one of their memory, a line for
 *      every stage; for GPUs what they launch and move, their products and messages; the
 *      step's time, the bubble, what the verifier proved; for small schedules a picture in
 *      letters.
 *
 *     gpu[0]  F0 F1 .  .  .  B0--- F2 B1---        B takes twice the time of F
 *     gpu[1]  .  F0 B0--- F1 B1---
 */
#include <stdlib.h>
#include <string.h>

#include "plan.h"
#include "profile.h"

enum { LAYERS_WIDTH = 44, PICTURE_STAGES = 8, PICTURE_MICROBATCHES = 12, PICTURE_WIDTH = 200 };

/* ------------------------------------------------------------------------- tables */

enum { MAX_COLUMNS = 16 };

/* Columns are as wide as their widest cell; the first `left` columns are aligned to the left. */
typedef struct {
    Arena *arena;
    int columns, left;
    VEC(const char *) cells;
} Table;

static void cell(Table *t, const char *text)
{
    VEC_PUSH(t->arena, &t->cells, text);
}

static void pad(Text *out, int n)
{
    for (; n > 0; n--)
        text_add(out, " ");
}

static void table_print(const Table *t, Text *out)
{
    int width[MAX_COLUMNS] = {0};
    for (int i = 0; i < t->cells.n; i++) {
        int n = svg_length(t->cells.at[i]), c = i % t->columns;
        width[c] = n > width[c] ? n : width[c];
    }
    for (int i = 0; i < t->cells.n; i++) {
        int c = i % t->columns, room = width[c] - svg_length(t->cells.at[i]);
        bool last = c == t->columns - 1;
        if (c)
            text_add(out, "  ");
        pad(out, c < t->left ? 0 : room);
        text_add(out, t->cells.at[i]);
        pad(out, c < t->left && !last ? room : 0);
        if (last)
            text_add(out, "\n");
    }
}

static const char *percent(Arena *a, double share)
{
    return arena_printf(a, "%.1f %%", 100 * share);
}

static const char *bytes(Arena *a, int64_t n)
{
    return n ? show_bytes(a, n) : "-";
}

static const char *flops(Arena *a, double n)
{
    return n > 0 ? show_quantity(a, n, "FLOP") : "-";
}

static void work_row(const Plan *plan, Table *t, int i, bool copies)
{
    Arena *a = plan->arena;
    const StageFacts *s = &plan->stages[i];
    const Device *d = &plan->p->devices.at[i];
    const DeviceTime *time = &plan->seconds->devices[i];
    double step = plan->seconds->period;
    cell(t, arena_printf(a, "%d", i));
    cell(t, svg_escape_plain(a, d->name));
    cell(t, svg_shorten(a, svg_escape_plain(a, s->layers), LAYERS_WIDTH));
    cell(t, show_count(a, s->parameters));
    if (copies)
        cell(t, s->copies ? show_count(a, s->copies) : "-");
    cell(t, flops(a, s->forward));
    cell(t, flops(a, s->backward));
    cell(t, bytes(a, s->sent));
    cell(t, bytes(a, s->received));
    cell(t, arena_printf(a, "%d", d->in_flight));
    cell(t, plan_show_seconds(a, time->busy));
    cell(t, percent(a, step > 0 ? 1 - time->busy / step : 0));
}

static void print_work(const Plan *plan, Text *out)
{
    Arena *a = plan->arena;
    int n = plan->p->devices.n;
    StageFacts sum = {0};
    double busy = 0;
    for (int i = 0; i < n; i++) {
        const StageFacts *s = &plan->stages[i];
        sum.parameters += s->parameters, sum.copies += s->copies;
        sum.forward += s->forward, sum.backward += s->backward;
        sum.sent += s->sent, sum.received += s->received;
        busy += plan->seconds->devices[i].busy;
    }
    bool copies = sum.copies > 0;
    Table t = {.arena = a, .columns = copies ? 12 : 11, .left = 3};
    static const char *const heads[] = {"stage",    "device",    "layers",   "parameters",
                                        "copies",   "forward",   "backward", "sent",
                                        "received", "in flight", "busy",     "idle"};
    for (int i = 0; i < 12; i++)
        if (copies || i != 4)
            cell(&t, heads[i]);
    for (int i = 0; i < n; i++)
        work_row(plan, &t, i, copies);
    cell(&t, "total");
    cell(&t, "");
    cell(&t, "");
    cell(&t, show_count(a, sum.parameters));
    if (copies)
        cell(&t, show_count(a, sum.copies));
    cell(&t, flops(a, sum.forward));
    cell(&t, flops(a, sum.backward));
    cell(&t, bytes(a, sum.sent));
    cell(&t, bytes(a, sum.received));
    cell(&t, "");
    cell(&t, plan_show_seconds(a, busy));
    cell(&t, percent(a, plan->seconds->bubble));
    table_print(&t, out);
}

static void print_memory(const Plan *plan, Text *out)
{
    Arena *a = plan->arena;
    const Program *p = plan->p;
    int64_t limit = p->model->settings.devices.memory, sum[BUFFER_CLASSES + 1] = {0};
    /* what kernels need besides is planned on GPUs alone */
    int classes = p->transfer == TRANSFER_LINKS ? BUFFER_KERNELS : BUFFER_HOST;
    bool host = false;
    for (int i = 0; i < p->devices.n; i++)
        host = host || p->devices.at[i].offloads.n;
    Table t = {.arena = a, .columns = 3 + classes + (limit ? 1 : 0) + host, .left = 2};
    cell(&t, "stage");
    cell(&t, "memory");
    for (int c = 0; c < classes; c++)
        cell(&t, buffer_class_name((BufferClass)c));
    cell(&t, "total");
    if (limit)
        cell(&t, arena_printf(a, "of %s", show_bytes(a, limit)));
    if (host)
        cell(&t, "on the host");
    for (int i = 0; i < p->devices.n; i++) {
        const Device *d = &p->devices.at[i];
        cell(&t, arena_printf(a, "%d", i));
        cell(&t, svg_escape_plain(a, d->name));
        for (int c = 0; c < classes; c++) {
            cell(&t, bytes(a, d->class_bytes[c]));
            sum[c] += d->class_bytes[c];
        }
        cell(&t, show_bytes(a, d->bytes));
        sum[BUFFER_CLASSES] += d->bytes;
        if (limit)
            cell(&t, percent(a, (double)d->bytes / (double)limit));
        if (host)
            cell(&t, bytes(a, d->class_bytes[BUFFER_HOST]));
        sum[BUFFER_HOST] += d->class_bytes[BUFFER_HOST];
    }
    cell(&t, "total");
    cell(&t, "");
    for (int c = 0; c < classes; c++)
        cell(&t, bytes(a, sum[c]));
    cell(&t, bytes(a, sum[BUFFER_CLASSES]));
    if (limit)
        cell(&t, "");
    if (host)
        cell(&t, bytes(a, sum[BUFFER_HOST]));
    table_print(&t, out);
}

/* ---------------------------------------------------------------------------- GPUs */

enum { PRODUCTS_SHOWN = 20 };

static void gpu_row(const Plan *plan, Table *t, const GpuWork *w)
{
    Arena *a = plan->arena;
    cell(t, show_count(a, w->kernels));
    cell(t, show_count(a, w->products));
    cell(t, show_count(a, w->copies));
    cell(t, bytes(a, cost_gpu_bytes(w->moved)));
    cell(t, bytes(a, cost_gpu_bytes(w->least)));
    cell(t, w->least > 0 ? arena_printf(a, "%.2f", w->moved / w->least) : "-");
}

static int by_flops(const void *a, const void *b)
{
    const GpuGemm *x = a, *y = b;
    double p = cost_gpu_gemm_flops(x), q = cost_gpu_gemm_flops(y);
    if (p > q || p < q)
        return p > q ? -1 : 1;
    return x->op != y->op ? (x->op < y->op ? -1 : 1) : x->m != y->m ? (x->m < y->m ? -1 : 1) : 0;
}

/* Those of all stages, the longest first. */
static void print_products(const Plan *plan, const GpuGemms *gemms, Text *out)
{
    Arena *a = plan->arena;
    GpuGemm *sorted = arena_copy(a, gemms->at, sizeof *gemms->at * (size_t)gemms->n);
    qsort(sorted, (size_t)gemms->n, sizeof *sorted, by_flops);
    Table t = {.arena = a, .columns = 6, .left = 2};
    static const char *const heads[] = {"product", "by", "M x N x K", "batch", "a step", "FLOPs"};
    for (int i = 0; i < 6; i++)
        cell(&t, heads[i]);
    double rest = 0;
    for (int i = 0; i < gemms->n; i++) {
        const GpuGemm *g = &sorted[i];
        double n = cost_gpu_gemm_flops(g);
        if (i >= PRODUCTS_SHOWN) {
            rest += n;
            continue;
        }
        cell(&t, op_name(g->op));
        cell(&t, cost_gpu_gemm_by(g->by));
        cell(&t, arena_printf(a, "%lld x %lld x %lld", (long long)g->m, (long long)g->n,
                              (long long)g->k));
        cell(&t, g->batch > 1 ? show_count(a, g->batch) : "-");
        cell(&t, show_count(a, g->calls));
        cell(&t, flops(a, n));
    }
    text_add(out, "\n");
    table_print(&t, out);
    if (gemms->n > PRODUCTS_SHOWN)
        text_printf(out, "and %d shapes more, %s; --json has all\n", gemms->n - PRODUCTS_SHOWN,
                    flops(a, rest));
}

static void print_messages(const Plan *plan, Text *out)
{
    const Program *p = plan->p;
    Arena *a = plan->arena;
    Table t = {.arena = a, .columns = 4, .left = 2};
    cell(&t, "from");
    cell(&t, "to");
    cell(&t, "messages");
    cell(&t, "bytes");
    for (int from = 0; from < p->devices.n; from++)
        for (int to = 0; to < p->devices.n; to++) {
            Traffic sum = plan_traffic(plan, from, to);
            if (sum.messages == 0)
                continue;
            cell(&t, svg_escape_plain(a, p->devices.at[from].name));
            cell(&t, svg_escape_plain(a, p->devices.at[to].name));
            cell(&t, show_count(a, sum.messages));
            cell(&t, show_bytes(a, sum.bytes));
        }
    text_add(out, "\n");
    table_print(&t, out);
}

/* What a step launches and moves. */
static void print_gpus(const Plan *plan, Text *out)
{
    const Program *p = plan->p;
    Arena *a = plan->arena;
    GpuWork sum = {0};
    Table t = {.arena = a, .columns = 8, .left = 2};
    static const char *const heads[] = {"stage",  "a step", "kernels", "products",
                                        "copies", "moved",  "least",   "ratio"};
    for (int i = 0; i < 8; i++)
        cell(&t, heads[i]);
    for (int i = 0; i < p->devices.n; i++) {
        cell(&t, arena_printf(a, "%d", i));
        cell(&t, svg_escape_plain(a, p->devices.at[i].name));
        gpu_row(plan, &t, &plan->gpu[i]);
        cost_gpu_add(a, &sum, &plan->gpu[i]);
    }
    cell(&t, "total");
    cell(&t, "");
    gpu_row(plan, &t, &sum);
    text_add(out, "\n");
    table_print(&t, out);
    text_add(out, "moved = device memory that the kernels read and write, each pass over a tensor "
                  "once;\nleast = with one pass: every operand of every call once, no scratch\n");
    if (sum.gemms.n)
        print_products(plan, &sum.gemms, out);
    if (p->links.n)
        print_messages(plan, out);
}

/* ------------------------------------------------------------------------ picture */

static void put_run(char *row, const Action *a, Span span, int width, bool chunks)
{
    char label[40];
    int at = (int)span.start * width, room = (int)(span.end - span.start) * width;
    int n = chunks ? snprintf(label, sizeof label, "%d%s%d", a->chunk, run_name(a->run), a->m)
                   : snprintf(label, sizeof label, "%s%d", run_name(a->run), a->m);
    for (int i = 0; i < room; i++)
        row[at + i] = i < n ? label[i] : i < room - 1 && room > width ? '-' : ' ';
}

void plan_picture(const Plan *plan, Text *out)
{
    const Program *p = plan->p;
    bool chunks = p->chunks.n > p->devices.n;
    int width = (chunks ? 4 : 3) + (p->microbatches > 10), cells = (int)plan->units->step;
    size_t length = (size_t)cells * (size_t)width;
    if (p->devices.n > PICTURE_STAGES || p->microbatches > PICTURE_MICROBATCHES ||
        p->chunks.n > 9 * 9 || length > PICTURE_WIDTH || !plan->units->complete || cells == 0)
        return;
    int label = 0;
    for (int d = 0; d < p->devices.n; d++) {
        int n = svg_length(p->devices.at[d].name);
        label = n > label ? n : label;
    }
    const Timeline *t = timeline_shape(plan->arena, p, true);
    text_printf(out, "\nschedule, with %s:\n", plan->lengths);
    char *row = arena_alloc(plan->arena, length + 1);
    for (int d = 0; d < p->devices.n; d++) {
        const ActionList *list = &p->devices.at[d].train;
        memset(row, ' ', length);
        for (int c = 0; c < cells; c++)
            row[c * width] = '.';
        for (int i = 0; i < list->actions.n; i++)
            if (list->actions.at[i].kind == ACT_RUN)
                put_run(row, &list->actions.at[i], t->devices[d].spans[i], width, chunks);
        size_t end = length;
        while (end > 0 && row[end - 1] == ' ')
            end--;
        text_printf(out, "  %s", p->devices.at[d].name);
        pad(out, label - svg_length(p->devices.at[d].name) + 2);
        text_add_n(out, row, end);
        text_add(out, "\n");
    }
}

/* ------------------------------------------------------------------------ summary */

static const char *plural(int64_t n, const char *many)
{
    return n == 1 ? "" : many;
}

/* Which layers run again in the backward pass. */
static void print_remade(const Plan *plan, Text *out)
{
    const Remade *r = &plan->p->graph->remade;
    if (plan->p->model->settings.parallel.recompute == RECOMPUTE_NONE)
        return;
    text_add(out, "recomputed: ");
    if (r->all + r->cheap == 0)
        text_printf(out, "nothing of %d layer%s\n", r->layers, plural(r->layers, "s"));
    else if (r->cheap == 0)
        text_printf(out, "%d of %d layer%s\n", r->all, r->layers, plural(r->layers, "s"));
    else
        text_printf(out, "%d of %d layer%s, and all but products and attention of %d\n", r->all,
                    r->layers, plural(r->layers, "s"), r->cheap);
}

/* What is offloaded has a column in the table of memory; that nothing is shows nowhere else. */
static void print_offloaded(const Plan *plan, Text *out)
{
    const Settings *s = &plan->p->model->settings;
    int n = 0;
    for (int i = 0; i < plan->p->devices.n; i++)
        n += plan->p->devices.at[i].offloads.n;
    if (s->parallel.offload != OFFLOAD_NONE && s->devices.host_link > 0 && n == 0)
        text_add(out, "offloaded: nothing, as no chunk holds enough micro-batches to gain by it\n");
}

static void print_head(const Plan *plan, Text *out)
{
    const Program *p = plan->p;
    Arena *a = plan->arena;
    const Settings *s = &p->model->settings;
    text_printf(out, "%s (%s)\n", svg_escape_plain(a, p->model->name),
                svg_escape_plain(a, p->model->source));
    text_printf(out, "%s%s, batch %lld: %d micro-batch%s of %lld sample%s on %d stage%s",
                s->parallel.file ? "schedule " : "",
                svg_escape_plain(a, program_schedule_name(a, p)), (long long)s->train.batch,
                p->microbatches, plural(p->microbatches, "es"), (long long)p->microbatch,
                plural(p->microbatch, "s"), p->devices.n, plural(p->devices.n, "s"));
    if (p->chunks.n > p->devices.n)
        text_printf(out, " with %d chunks", p->chunks.n);
    text_add(out, "\n");
    print_remade(plan, out);
    print_offloaded(plan, out);
    text_add(out, "\n");
}

/* Whole from a hundred on, else three digits that count. */
static const char *samples_per_second(Arena *a, double n)
{
    return n >= 100 ? show_count(a, (int64_t)n) : arena_printf(a, "%.3g", n);
}

/* What to do about rates that nobody has given. */
static void print_assumption(const Plan *plan, Text *out)
{
    if (plan->rates.device)
        text_printf(
            out,
            "\n        counted with %s: devices gpu[n] = NAME; or devices gpu[n] { compute = "
            "...; bandwidth = ...; } says otherwise\n",
            plan->rates.device);
    else
        text_add(out, "\n        a default is a guess at the machine: devices gpu[n] { compute = "
                      "...; bandwidth = ...; } says better\n");
}

/* Where measured times come from. */
static void print_profile(const Plan *plan, const Profile *profile, Text *out)
{
    Arena *a = plan->arena;
    text_printf(out,
                "\n        from %s: %d step%s under %s on %d device%s with %d thread%s each, %s",
                svg_escape_plain(a, profile->path), profile->steps, plural(profile->steps, "s"),
                profile->schedule, profile->devices, plural(profile->devices, "s"),
                profile->threads, plural(profile->threads, "s"), profile->processor);
    if (profile->link > 0)
        text_printf(out, "; link %s, latency %s", show_quantity(a, profile->link, "B/s"),
                    plan_show_seconds(a, profile->latency));
    text_add(out, "\n");
}

static void print_estimate(const Plan *plan, Text *out)
{
    Arena *a = plan->arena;
    const Profile *profile = plan->p->model->profile;
    const Rates *r = &plan->rates;
    const char *standard = arena_printf(a, " (%s)", r->device ? r->device : "default");
    double step = plan->seconds->period;
    text_printf(out, "step    %s, %s", plan_show_seconds(a, step),
                profile ? "from measured times" : "estimated");
    if (plan->seconds->step > 1.001 * step)
        text_printf(out, " (%s long: the next one begins while the last stages end it)",
                    plan_show_seconds(a, plan->seconds->step));
    if (step > 0)
        text_printf(out, "; %s samples/s",
                    samples_per_second(a, (double)plan->p->model->settings.train.batch / step));
    if (profile) {
        print_profile(plan, profile, out);
        return;
    }
    const struct {
        const char *name, *value;
        bool standard;
    } rates[] = {
        {"compute", show_quantity(a, r->compute.value, "FLOP/s"), r->compute.standard},
        {"memory", show_quantity(a, r->bandwidth.value, "B/s"), r->bandwidth.standard},
        {"link", show_quantity(a, r->link.value, "B/s"), r->link.standard},
        {"latency", plan_show_seconds(a, r->latency.value), r->latency.standard},
    };
    int n = plan->p->links.n > 0 ? 4 : 2;
    bool any = false;
    for (int i = 0; i < n; i++) {
        text_printf(out, "%s%s %s%s", i ? ", " : "\n        from ", rates[i].name, rates[i].value,
                    rates[i].standard ? standard : "");
        any = any || rates[i].standard;
    }
    if (any)
        print_assumption(plan, out);
    else
        text_add(out, "\n");
}

static void print_bubble(const Plan *plan, Text *out)
{
    Arena *a = plan->arena;
    text_printf(out,
                "bubble  %s = idle time of the devices over devices x step time, from the "
                "%s times\n",
                percent(a, plan->seconds->bubble),
                plan->p->model->profile ? "measured" : "estimated");
    const char *units = percent(a, plan->units->bubble);
    if (plan->formula)
        text_printf(out, "        with equal stages, %s: %s = %s\n", plan->lengths, plan->formula,
                    units);
    else
        text_printf(out, "        with %s for every chunk that has them: %s\n", plan->lengths,
                    units);
}

void plan_text(const Plan *plan, Text *out)
{
    print_head(plan, out);
    print_work(plan, out);
    text_add(out, "\n");
    print_memory(plan, out);
    if (plan->gpu)
        print_gpus(plan, out);
    plan_picture(plan, out);
    text_add(out, "\n");
    print_estimate(plan, out);
    print_bubble(plan, out);
    text_add(out, "proved  coverage, no deadlock, no race, memory\n");
}
