/* emit_update.c - what a stage does with whole weights: their 16-bit copies, sums over the uses
 * of a tied weight, sums of squares for clipping, and the optimizer.
 *
 * In:  the stage's runs of weights with the places of their gradients and optimizer state.
 * Out: the functions round_weights, reduce_tied, clip and update, as far as the stage needs them.
 *
 * The host has a call for each weight, in a loop for a run of several. On a GPU each function is
 * one call with a table of all weights:
 *
 *     static int list_trained(Stage *s, GpuWeight *to)   weight, gradient, state, elements, number
 *     static int update(Stage *s)                        fills the table, hands it over */
#include "emit.h"

static int64_t weight_count(const Emit *e, const WeightRun *r)
{
    return shape_count(&e->p->graph->weights.at[r->weight].shape);
}

static bool is_trained(const WeightRun *r)
{
    return r->ngrads > 0;
}

static bool is_rounded(const WeightRun *r)
{
    return r->half != NONE;
}

/* Weights, not runs. */
static int count_weights(const Emit *e, bool (*is)(const WeightRun *r))
{
    int n = 0;
    for (int i = 0; i < e->d->weights.n; i++)
        n += is(&e->d->weights.at[i]) ? e->d->weights.at[i].count : 0;
    return n;
}

/* A loop over the weights of a run, around the next statement. */
static void open_run(Emit *e, const WeightRun *r)
{
    if (r->count == 1)
        return;
    emit_line(e, "for (int i = 0; i < %d; i++)", r->count);
    e->indent++;
}

static void close_run(Emit *e, const WeightRun *r)
{
    e->indent -= r->count > 1;
}

/* Of weight i of the run among all of the model. */
static const char *norm_index(Emit *e, const WeightRun *r)
{
    if (r->count == 1)
        return arena_printf(e->arena, "%d", r->weight);
    if (r->step == 1)
        return arena_printf(e->arena, "%d + i", r->weight);
    return arena_printf(e->arena, "%d + %d * i", r->weight, r->step);
}

static const char *member(Emit *e, int buffer)
{
    return emit_buffer_member(e, buffer, "0", "i");
}

static void close_function(Emit *e)
{
    emit_line(e, "return MDL_OK;");
    emit_close(e);
    emit_blank(e);
}

/* ---------------------------------------------------------------- tables for a GPU */

static void print_row(Emit *e, const WeightRun *r, bool trained)
{
    open_run(e, r);
    emit_call(e, trained ? "gpu_weight" : "gpu_rounded");
    emit_arg(e, "%s", member(e, r->buffer));
    emit_arg(e, "%s", member(e, trained ? r->grad[0] : r->half));
    for (int k = 0; trained && k < 2; k++)
        emit_arg(e, "%s", k < r->nstates ? member(e, r->state[k]) : "NULL");
    emit_arg(e, "%lld", (long long)weight_count(e, r));
    if (trained)
        emit_arg(e, "%s", norm_index(e, r));
    emit_end(e, "*to++ = ", ";");
    close_run(e, r);
}

static void print_table(Emit *e, bool trained, const char *what)
{
    bool (*is)(const WeightRun *r) = trained ? is_trained : is_rounded;
    const char *name = trained ? "trained" : "rounded";
    emit_line(e, "/* %s */", what);
    emit_line(e, "static GpuWeight %s[%d];", name, count_weights(e, is));
    emit_blank(e);
    emit_open(e, "static void list_%s(Stage *s, GpuWeight *to)", name);
    for (int i = 0; i < e->d->weights.n; i++)
        if (is(&e->d->weights.at[i]))
            print_row(e, &e->d->weights.at[i], trained);
    emit_close(e);
    emit_blank(e);
}

/* ----------------------------------------------------------------------- functions */

/* Around what a trainer of `mdlc profile` has in its trace besides the calls. */
static void begin_work(Emit *e, char phase)
{
    if (e->p->by_call)
        emit_line(e, "phase_begin(s, '%c', 0, -1);", phase);
}

static void end_work(Emit *e)
{
    if (e->p->by_call)
        emit_line(e, "phase_end(s);");
}

static Dtype half_type(const Emit *e)
{
    return e->p->model->settings.train.precision == PRECISION_F16 ? DT_F16 : DT_BF16;
}

static void print_round(Emit *e)
{
    if (!device_rounds(e->d))
        return;
    static const char what[] = "The weights that products read as 16-bit copies.";
    if (e->gpu) {
        print_table(e, false, what);
        emit_open(e, "static int round_weights(Stage *s)");
        emit_line(e, "list_rounded(s, rounded);");
        emit_line(e, "KERNEL(gpu_half_round_all(s->gpu, rounded, %d, %s));",
                  count_weights(e, is_rounded), emit_half_kind(half_type(e)));
        close_function(e);
        return;
    }
    emit_line(e, "/* %s */", what);
    emit_open(e, "static int round_weights(Stage *s)");
    begin_work(e, 'R');
    for (int i = 0; i < e->d->weights.n; i++) {
        const WeightRun *r = &e->d->weights.at[i];
        if (!is_rounded(r))
            continue;
        open_run(e, r);
        emit_kernel(e, "half_round");
        emit_arg(e, "%s", emit_half_kind(half_type(e)));
        emit_arg(e, "%s", member(e, r->half));
        emit_arg(e, "%s", member(e, r->buffer));
        emit_arg(e, "%lld", (long long)weight_count(e, r));
        emit_kernel_end(e);
        close_run(e, r);
    }
    end_work(e);
    close_function(e);
}

static void print_reduce(Emit *e)
{
    bool tied = false;
    for (int i = 0; i < e->d->weights.n; i++)
        tied = tied || e->d->weights.at[i].ngrads > 1;
    if (!tied)
        return;
    emit_line(e, "/* A weight with several uses: the sum of their gradients. */");
    emit_open(e, "static int reduce_tied(Stage *s)");
    begin_work(e, 'A');
    for (int i = 0; i < e->d->weights.n; i++) {
        const WeightRun *r = &e->d->weights.at[i];
        for (int k = 1; k < r->ngrads; k++) {
            open_run(e, r);
            emit_kernel(e, "accumulate_into");
            emit_arg(e, "%s", member(e, r->grad[0]));
            emit_arg(e, "%s", member(e, r->grad[k]));
            emit_arg(e, "%lld", (long long)weight_count(e, r));
            emit_kernel_end(e);
            close_run(e, r);
        }
    }
    end_work(e);
    close_function(e);
}

/* Calls `name` for all trained weights; on the host each gives its sum of squares where `norm`. */
static void print_trained(Emit *e, const char *name, bool norm, bool update)
{
    if (e->gpu) {
        emit_line(e, "list_trained(s, trained);");
        emit_kernel(e, arena_printf(e->arena, "%s_all", name));
        emit_arg(e, "s->squares");
        emit_arg(e, "trained");
        emit_arg(e, "%d", count_weights(e, is_trained));
        if (update) {
            emit_arg(e, "%s", emit_half_kind(half_type(e)));
            emit_arg(e, "&s->hyper");
        }
        emit_kernel_end(e);
        return;
    }
    for (int i = 0; i < e->d->weights.n; i++) {
        const WeightRun *r = &e->d->weights.at[i];
        if (!is_trained(r))
            continue;
        open_run(e, r);
        emit_kernel(e, name);
        if (update)
            emit_arg(e, "%s", member(e, r->buffer));
        emit_arg(e, "%s", member(e, r->grad[0]));
        for (int k = 0; update && k < r->nstates; k++)
            emit_arg(e, "%s", member(e, r->state[k]));
        if (update && r->nstates == 0)
            emit_arg(e, "NULL");
        emit_arg(e, "%lld", (long long)weight_count(e, r));
        if (update)
            emit_arg(e, "&s->hyper");
        emit_end(e, norm ? arena_printf(e->arena, "s->norm[%s] = ", norm_index(e, r)) : "", ";");
        close_run(e, r);
    }
}

void emit_update(Emit *e)
{
    static const char *const names[] = {"sgd_update", "adam_update", "adamw_update"};
    const Train *t = &e->p->model->settings.train;
    const bool clip = program_clips(e->p), any = count_weights(e, is_trained) > 0;
    print_round(e);
    print_reduce(e);
    if (any && e->gpu)
        print_table(e, true, "The weights that the stage updates.");
    if (clip) {
        emit_open(e, "static int clip(Stage *s)");
        begin_work(e, 'C');
        if (any)
            print_trained(e, "sum_squares", true, false);
        end_work(e);
        emit_line(e, "return clip_gradients(s);");
        emit_close(e);
        emit_blank(e);
    }
    if (!any)
        return;
    emit_open(e, "static int update(Stage *s)");
    if (t->precision == PRECISION_F16) {
        emit_line(e, "if (s->skip)");
        emit_line(e, "    return MDL_OK;");
    }
    emit_line(e, "phase_begin(s, 'U', 0, -1);");
    print_trained(e, names[t->optimizer], !clip, true);
    emit_line(e, "phase_end(s);");
    close_function(e);
}
