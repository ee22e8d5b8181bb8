/* emit_trainer.c - trainer.c: the description of the whole model, and main.
 *
 * The fingerprint tells a checkpoint's model from another: a hash of what shapes a run's
 * numbers (weights, batch, optimizer), and of nothing that does not (the split). */
#include <inttypes.h>
#include <string.h>
#include <xxhash.h>

#include "emit.h"

static const char *fingerprint(const Program *p)
{
    const Graph *g = p->graph;
    const Train *t = &p->model->settings.train;
    Text text = {.arena = g->arena};
    for (int i = 0; i < g->weights.n; i++) {
        const Weight *w = &g->weights.at[i];
        text_printf(&text, "%s %s %d;", w->name, shape_show(g->arena, DT_F32, &w->shape),
                    w->frozen);
    }
    text_printf(&text, "%lld %lld %d", (long long)t->batch, (long long)p->microbatch,
                (int)t->optimizer);
    if (t->precision == PRECISION_BF16 || t->precision == PRECISION_F16)
        text_printf(&text, " %d", (int)t->precision);
    return arena_printf(g->arena, "%016" PRIx64, (uint64_t)XXH64(text.at, text.n, 0));
}

static const char *input_type(Dtype t)
{
    switch (t) {
    case DT_I32:
        return "MDL_I32";
    case DT_U8:
        return "MDL_U8";
    case DT_BF16:
        return "MDL_BF16";
    case DT_F16:
        return "MDL_F16";
    default:
        return "MDL_REAL";
    }
}

static void print_inputs(Emit *e)
{
    const Graph *g = e->p->graph;
    if (g->inputs.n == 0)
        return;
    emit_line(e, "static const MdlInput inputs[] = {");
    for (int i = 0; i < g->inputs.n; i++) {
        const Input *x = &g->inputs.at[i];
        Text dims = {.arena = e->arena};
        text_add(&dims, x->shape.rank ? "" : "0");
        for (int k = 0; k < x->shape.rank; k++)
            text_printf(&dims, "%s%lld", k ? ", " : "", (long long)x->shape.dim[k]);
        emit_line(e, "    {%s, %s, %s, %d, {%s}, %lld},", emit_string(e->arena, x->name),
                  input_type(x->type), x->target ? "true" : "false", x->shape.rank, dims.at,
                  (long long)x->limit);
    }
    emit_line(e, "};");
    emit_blank(e);
}

static void print_data(Emit *e)
{
    const Settings *s = &e->p->model->settings;
    for (int i = 0; i < s->data.n; i++) {
        const DataItem *d = &s->data.at[i];
        if (d->files.n == 0)
            continue;
        emit_line(e, "static const MdlFile files_%d[] = {", i);
        for (int k = 0; k < d->files.n; k++)
            emit_line(e, "    {%s, %s},",
                      d->files.at[k].key ? emit_string(e->arena, d->files.at[k].key) : "NULL",
                      emit_string(e->arena, d->files.at[k].path));
        emit_line(e, "};");
    }
    if (s->data.n == 0)
        return;
    emit_line(e, "static const MdlData data[] = {");
    for (int i = 0; i < s->data.n; i++) {
        const DataItem *d = &s->data.at[i];
        emit_line(e, "    {%s, %s, %s, %d, %s, %lld, %lld},", emit_string(e->arena, d->which),
                  emit_string(e->arena, d->kind),
                  d->files.n ? arena_printf(e->arena, "files_%d", i) : "NULL", d->files.n,
                  d->shuffle ? "true" : "false", (long long)d->take, (long long)d->skip);
    }
    emit_line(e, "};");
    emit_blank(e);
}

static void print_links(Emit *e)
{
    const Program *p = e->p;
    if (p->links.n == 0)
        return;
    emit_line(e, "/* from, to, bytes of a message, most that are under way, name */");
    emit_line(e, "static const MdlLink links[] = {");
    for (int i = 0; i < p->links.n; i++) {
        const Link *l = &p->links.at[i];
        const Buffer *b = &p->devices.at[l->to].buffers.at[l->target.buffer];
        const char *grad = l->kind == LINK_GRADIENT || l->kind == LINK_WEIGHT_GRADIENT
                               ? arena_printf(e->arena, "gradient of %s", l->name)
                               : l->name;
        emit_line(e, "    {%d, %d, %lld, %d, %s},", l->from, l->to, (long long)l->bytes, b->slots,
                  emit_string(e->arena, grad));
    }
    emit_line(e, "};");
    emit_blank(e);
}

static void print_stages(Emit *e)
{
    const Program *p = e->p;
    emit_line(e, "extern const MdlStage");
    for (int i = 0; i < p->devices.n; i++)
        emit_line(e, "    stage_%d%s", i, i + 1 < p->devices.n ? "," : ";");
    emit_line(e, "static const MdlStage *const stages[] = {");
    for (int i = 0; i < p->devices.n; i++)
        emit_line(e, "    &stage_%d,", i);
    emit_line(e, "};");
    emit_line(e, "/* bytes of each stage, as planned */");
    emit_line(e, "static const int64_t planned[] = {");
    for (int i = 0; i < p->devices.n; i++)
        emit_line(e, "    %lld,", (long long)p->devices.at[i].bytes);
    emit_line(e, "};");
    emit_blank(e);
    if (p->graph->metrics.n) {
        emit_line(e, "static const char *const metrics[] = {");
        for (int i = 0; i < p->graph->metrics.n; i++)
            emit_line(e, "    %s,", emit_string(e->arena, p->graph->metrics.at[i].name));
        emit_line(e, "};");
        emit_blank(e);
    }
}

static void print_model(Emit *e)
{
    static const char *const optimizers[] = {"MDL_SGD", "MDL_ADAM", "MDL_ADAMW"};
    static const char *const schedules[] = {"MDL_LR_CONSTANT", "MDL_LR_COSINE", "MDL_LR_LINEAR"};
    const Program *p = e->p;
    const Train *t = &p->model->settings.train;
    emit_line(e, "static const MdlModel model = {");
    emit_line(e, "    .name = %s,", emit_string(e->arena, p->model->name));
    emit_line(e, "    .fingerprint = \"%s\",", fingerprint(p));
    emit_line(e, "    .stages = stages,");
    emit_line(e, "    .planned = planned,");
    emit_line(e, "    .nstages = %d,", p->devices.n);
    if (p->links.n)
        emit_line(e, "    .links = links,");
    emit_line(e, "    .nlinks = %d,", p->links.n);
    if (p->graph->inputs.n)
        emit_line(e, "    .inputs = inputs,");
    emit_line(e, "    .ninputs = %d,", p->graph->inputs.n);
    if (p->model->settings.data.n)
        emit_line(e, "    .data = data,");
    emit_line(e, "    .ndata = %d,", p->model->settings.data.n);
    if (p->graph->metrics.n)
        emit_line(e, "    .metrics = metrics,");
    emit_line(e, "    .nmetrics = %d,", p->graph->metrics.n);
    emit_line(e, "    .nweights = %d,", p->graph->weights.n);
    emit_line(e, "    .batch = %lld,", (long long)t->batch);
    emit_line(e, "    .microbatch = %lld,", (long long)p->microbatch);
    emit_line(e, "    .microbatches = %d,", p->microbatches);
    emit_line(e, "    .steps = %lld,", (long long)t->steps);
    emit_line(e, "    .seed = UINT64_C(%" PRIu64 "),", t->seed);
    emit_line(e, "    .optimizer = %s,", optimizers[t->optimizer]);
    emit_line(e, "    .hyper = {");
    emit_line(e, "        .lr = %.17g,", t->lr);
    emit_line(e, "        .momentum = %.17g,", t->momentum);
    emit_line(e, "        .weight_decay = %.17g,", t->weight_decay);
    emit_line(e, "        .beta1 = %.17g,", t->beta1);
    emit_line(e, "        .beta2 = %.17g,", t->beta2);
    emit_line(e, "        .eps = %.17g,", t->eps);
    emit_line(e, "        .grad_scale = 1,");
    emit_line(e, "        .nesterov = %s,", t->nesterov ? "true" : "false");
    emit_line(e, "    },");
    emit_line(e, "    .lr_schedule = %s,", schedules[t->schedule]);
    emit_line(e, "    .warmup = %lld,", (long long)t->warmup);
    emit_line(e, "    .min = %.17g,", t->min);
    emit_line(e, "    .clip_norm = %.17g,", t->clip_norm);
    if (t->precision == PRECISION_F16)
        emit_line(e, "    .loss_scaled = true,");
    if (p->transfer == TRANSFER_NCCL && p->links.n)
        emit_line(e, "    .nccl = &mdl_nccl,");
    if (p->transfer != TRANSFER_LINKS && emit_no_graph(p))
        emit_line(e, "    .no_graph = %s,", emit_string(e->arena, emit_no_graph(p)));
    emit_line(e, "};");
    emit_blank(e);
}

void emit_trainer(const Program *p, const Diag *d, Text *out)
{
    Emit e = {.p = p, .diag = d, .arena = p->graph->arena, .out = out, .real = p->real_name};
    emit_line(&e, "/* trainer.c: the model %s as a whole, on %d device%s. */", p->model->name,
              p->devices.n, p->devices.n == 1 ? "" : "s");
    emit_line(&e, p->transfer == TRANSFER_LINKS ? "#include <rt.h>" : "#include <rt_cuda.h>");
    emit_blank(&e);
    print_stages(&e);
    print_links(&e);
    print_inputs(&e);
    print_data(&e);
    print_model(&e);
    emit_open(&e, "int main(int argc, char **argv)");
    emit_line(&e, "return mdl_main(&model, argc, argv);");
    emit_close(&e);
}
