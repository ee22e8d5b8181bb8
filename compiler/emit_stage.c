/* emit_stage.c - one device's program as a C file.
 *
 * In:  the Program.
 * Out: stage_K.c, in this order: what the stage is; its buffers by the model's names; fused
 *      loops; forward, backward and update as lists of calls under the source lines they come
 *      from; the schedule as loops; the description that the runtime reads. */
#include <string.h>

#include "emit.h"
#include "schedule_file.h"

/* "1f1b"; "from FILE", without its folder. */
static const char *schedule_text(const Emit *e)
{
    const ScheduleFile *f = e->p->model->settings.parallel.file;
    const char *slash = f ? strrchr(f->name, '/') : NULL;
    return slash ? arena_printf(e->arena, "from %s", slash + 1)
                 : program_schedule_name(e->arena, e->p);
}

/* "h.3 ... h.5": the paths of the device's layers. */
static const char *layers_of(Emit *e)
{
    const Graph *g = e->p->graph;
    const char *first = NULL, *last = NULL;
    for (int i = 0; i < e->d->chunks.n; i++) {
        const Run *run = &e->p->chunks.at[e->d->chunks.at[i]].run[RUN_F];
        for (int n = 0; n < run->calls.n; n++) {
            if (run->calls.at[n].kind != CALL_OP)
                continue;
            const char *path = g->ops.at[run->calls.at[n].op].path;
            if (path && !first)
                first = path;
            if (path)
                last = path;
        }
    }
    for (int i = 0; i < e->d->weights.n; i++) {
        const WeightRun *r = &e->d->weights.at[i];
        if (r->count > 1 && last) {
            /* the last turn of a loop */
            WeightId w = r->weight + r->step * (r->count - 1);
            const char *name = g->weights.at[w].name;
            const char *dot = strrchr(name, '.');
            if (dot && strncmp(r->prefix, last, strlen(r->prefix)) == 0)
                last = arena_strndup(e->arena, name, (size_t)(dot - name));
        }
    }
    if (!first)
        return "";
    if (strcmp(first, last) == 0)
        return first;
    return arena_printf(e->arena, "%s ... %s", first, last);
}

/* Has the device tensors of 16-bit numbers? Inputs may be such in every precision. */
static bool holds_halves(const Emit *e)
{
    for (int i = 0; i < e->d->buffers.n; i++)
        if (dtype_is_half(e->p->graph->values.at[e->d->buffers.at[i].value].type))
            return true;
    return false;
}

static void print_header(Emit *e)
{
    const Program *p = e->p;
    Arena *a = e->arena;
    const char *slash = strrchr(p->model->source, '/');
    emit_line(e, "/* stage_%d.c: stage %d of %d of the model %s, on %s", e->stage, e->stage,
              p->devices.n, p->model->name, e->d->name);
    emit_line(e, " *");
    emit_line(e, " *   source       %s",
              emit_comment_text(a, slash ? slash + 1 : p->model->source));
    emit_line(e, " *   layers       %s", emit_comment_text(a, layers_of(e)));
    emit_line(e, " *   schedule     %s, %d micro-batch%s of %lld sample%s, at most %d in flight",
              emit_comment_text(a, schedule_text(e)), p->microbatches,
              p->microbatches == 1 ? "" : "es", (long long)p->microbatch,
              p->microbatch == 1 ? "" : "s", e->d->in_flight);
    emit_line(e, " *   memory       %s bytes in one allocation:", show_count(a, e->d->bytes));
    for (int c = 0; c < BUFFER_HOST; c++)
        if (e->d->class_bytes[c])
            emit_line(e, " *                %15s  %s", show_count(a, e->d->class_bytes[c]),
                      buffer_class_name((BufferClass)c));
    if (e->d->class_bytes[BUFFER_HOST])
        emit_line(e, " *   on the host  %s bytes of what is kept",
                  show_count(a, e->d->class_bytes[BUFFER_HOST]));
    for (int l = 0; l < p->links.n; l++) {
        const Link *k = &p->links.at[l];
        bool in = k->to == e->stage;
        if (k->from != e->stage && !in)
            continue;
        const char *grad =
            k->kind == LINK_ACTIVATION || k->kind == LINK_WEIGHT ? "" : "gradient of ";
        const char *text = emit_comment_text(
            a, arena_printf(a, "%s%s %s %s %s", grad, k->name, emit_shape(e, k->value),
                            in ? "from" : "to", p->devices.at[in ? k->from : k->to].name));
        emit_line(e, " *   %-12s %s", in ? "receives" : "sends", text);
    }
    emit_line(e, " */");
    emit_line(e, e->gpu ? "#include <rt_cuda.h>" : "#include <rt.h>");
    if (holds_halves(e))
        emit_line(e, e->gpu ? "#include <gpu_half.h>" : "#include <half.h>");
    if (!e->gpu && e->d->offloads.n)
        emit_line(e, "#include <string.h>");
    if (!e->gpu)
        emit_line(e, "#include <vmath.h>");
    else if (p->transfer == TRANSFER_NCCL && p->links.n)
        emit_line(e, "#include <nccl.h>");
    emit_blank(e);
    if (e->gpu && e->maps->n) {
        emit_line(e, "#include \"fused.h\"");
        emit_blank(e);
    }
    emit_line(e, "#define B INT64_C(%lld) /* samples in a micro-batch */",
              (long long)p->microbatch);
    emit_blank(e);
}

/* ----------------------------------------------------------------------- buffers */

/* The line of the model that an activation or its gradient comes from, and who sends it. */
static const char *where_made(Emit *e, const Buffer *b)
{
    const Graph *g = e->p->graph;
    const Value *v = &g->values.at[b->value];
    Place at = v->def == NONE ? v->at : g->ops.at[v->def].at;
    const Source *s = at.file >= 0 ? diag_source(e->diag, at.file) : NULL;
    const char *slash = s ? strrchr(s->name, '/') : NULL;
    const char *from = b->link == NONE
                           ? ""
                           : arena_printf(e->arena, ", from %s",
                                          e->p->devices.at[e->p->links.at[b->link].from].name);
    return s ? arena_printf(e->arena, "%s:%d%s", slash ? slash + 1 : s->name, at.line, from) : from;
}

static const char *member_names(Emit *e, const Buffer *b)
{
    const Graph *g = e->p->graph;
    const Value *v = &g->values.at[b->value];
    if (b->class > BUFFER_STATE)
        return where_made(e, b);
    for (int i = 0; i < e->d->weights.n; i++) {
        const WeightRun *r = &e->d->weights.at[i];
        if (g->values.at[b->value].kind != VALUE_WEIGHT || r->weight != v->index)
            continue;
        const char *as = dtype_is_half(v->type)
                             ? arena_printf(e->arena, ", rounded to %s", dtype_name(v->type))
                             : "";
        if (r->count == 1)
            return arena_printf(e->arena, "%s%s", r->prefix, as);
        long long last = r->first + r->number_step * (r->count - 1);
        return arena_printf(e->arena, "%s{%lld..%lld}%s%s", r->prefix, (long long)r->first, last,
                            r->suffix, as);
    }
    return g->weights.at[v->index].name;
}

static void print_buffer(Emit *e, int number)
{
    const Buffer *b = &e->d->buffers.at[number];
    Text t = {.arena = e->arena};
    text_printf(&t, "%lld", (long long)b->offset);
    const char *macro = emit_buffer_member(e, number, "m", "i");
    if (b->slots > 1 && b->ring > 1) {
        bool all = b->ring == b->count;
        text_printf(&t,
                    all ? " + INT64_C(%lld) * ((m) %% %d * %d + (i))"
                        : " + INT64_C(%lld) * ((m) %% %d * %d + (i) %% %d)",
                    (long long)b->stride, b->slots, b->ring, b->ring);
    } else if (b->slots > 1) {
        text_printf(&t, " + INT64_C(%lld) * ((m) %% %d)", (long long)b->stride, b->slots);
    } else if (b->ring > 1 && b->ring == b->count) {
        text_printf(&t, " + INT64_C(%lld) * (i)", (long long)b->stride);
    } else if (b->ring > 1) {
        text_printf(&t, " + INT64_C(%lld) * ((i) %% %d)", (long long)b->stride, b->ring);
    }
    const char *type = emit_ctype(e, e->p->graph->values.at[b->value].type);
    const char *what = arena_printf(e->arena, "/* %s  %s */", emit_shape(e, b->value),
                                    emit_comment_text(e->arena, member_names(e, b)));
    const char *at = b->class == BUFFER_HOST ? "ON_HOST" : "AT";
    const char *line = arena_printf(e->arena, "#define %s %s(s, %s, %s)", macro, at, type, t.at);
    if (strlen(line) + strlen(what) + 1 <= 100) {
        emit_line(e, "%s %s", line, what);
    } else {
        emit_line(e, "%s", what);
        if (strlen(line) <= 100)
            emit_line(e, "%s", line);
        else
            emit_line(e, "#define %s \\\n    %s(s, %s, %s)", macro, at, type, t.at);
    }
}

static void print_buffers(Emit *e)
{
    static const char *const titles[BUFFER_CLASSES] = {
        "weights",
        "gradients of the weights, summed over the micro-batches",
        "optimizer state",
        "kept while their micro-batch is in flight",
        "scratch: inside one phase, places are shared",
        "",
        "on the host: kept there between the forward and the backward pass"};
    emit_line(e, "/* Where every tensor is. m: micro-batch, i: turn of the loop that made it. */");
    emit_line(e, "#define AT(s, type, offset) ((type *)(void *)((s)->memory + (offset)))");
    if (e->d->offloads.n)
        emit_line(e, "#define ON_HOST(s, type, offset) ((type *)(void *)((s)->host + (offset)))");
    for (int kind = 0; kind < BUFFER_CLASSES; kind++) {
        bool any = false;
        for (int b = 0; b < e->d->buffers.n; b++) {
            if ((int)e->d->buffers.at[b].class != kind)
                continue;
            if (!any) {
                emit_blank(e);
                emit_line(e, "/* %s */", titles[kind]);
            }
            any = true;
            print_buffer(e, b);
        }
    }
    emit_blank(e);
}

static void print_links(Emit *e)
{
    bool any = false;
    for (int l = 0; l < e->p->links.n; l++) {
        const Link *k = &e->p->links.at[l];
        if (k->from != e->stage && k->to != e->stage)
            continue;
        if (!any)
            emit_line(e, "enum {");
        any = true;
        emit_line(e, "    %s = %d,", emit_link_name(e, l), l);
    }
    if (any) {
        emit_line(e, "};");
        emit_blank(e);
    }
}

/* ------------------------------------------------------------------------ phases */

static void print_statement(Emit *e, const Call *c)
{
    const Graph *g = e->p->graph;
    switch (c->kind) {
    case CALL_LOAD:
        e->used_m = true;
        emit_call(e, "data_load");
        emit_arg(e, "s");
        emit_arg(e, "%d", c->input);
        emit_arg(e, "m");
        emit_arg_ref(e, &c->out[0]);
        emit_end(e, "TRY(", ");");
        break;
    case CALL_LOSS:
    case CALL_METRIC:
        e->used_m = true;
        emit_call(e, c->kind == CALL_LOSS ? "report_loss" : "report_metric");
        emit_arg(e, "s");
        if (c->kind == CALL_METRIC)
            emit_arg(e, "%d", c->input);
        emit_arg(e, "m");
        emit_arg_ref(e, &c->in[0]);
        emit_end(e, "TRY(", ");");
        break;
    case CALL_OP:
        emit_source_comment(e, g->ops.at[c->op].at);
        emit_op(e, c);
        break;
    }
}

/* Call n of a chunk's run. */
static void print_call(Emit *e, RunKind kind, int chunk, int n)
{
    const Call *c = &e->p->chunks.at[chunk].run[kind].calls.at[n];
    if (!e->p->by_call) {
        print_statement(e, c);
        return;
    }
    e->used_m = true;
    emit_line(e, "phase_begin(s, '%s', %d, m);", run_name(kind),
              program_first_call(e->p, chunk, kind) + n);
    print_statement(e, c);
    emit_line(e, "phase_end(s);");
}

static const char *body_function(Emit *e, RunKind kind, int chunk, int step, const Step *s)
{
    Text name = {.arena = e->arena};
    text_printf(&name, "%s_", emit_run_function(e, kind, chunk));
    size_t before = name.n;
    for (const char *c = s->name; *c && name.n - before < 40; c++) {
        bool word =
            (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9');
        if (word)
            text_add_n(&name, c, 1);
        else if (name.n > before && name.at[name.n - 1] != '_' && c[1])
            text_add(&name, "_");
    }
    const Run *run = &e->p->chunks.at[chunk].run[kind];
    int same = 0;
    for (int i = 0; i < step; i++)
        same += run->steps.at[i].turns > 1 && strcmp(run->steps.at[i].name, s->name) == 0;
    if (same)
        text_printf(&name, "_%d", same + 1);
    return name.at;
}

/* The body of a function, printed aside so that its head knows what it uses. */
static Text begin_aside(Emit *e, Text **saved)
{
    Text aside = {.arena = e->arena};
    text_add(&aside, "");
    *saved = e->out;
    e->used_m = e->used_i = false;
    e->last_line = 0;
    e->indent = 1;
    return aside;
}

static void print_body(Emit *e, RunKind kind, int chunk, int step, const Step *s)
{
    Text *saved, body = begin_aside(e, &saved);
    e->out = &body;
    for (int n = s->first; n < s->first + s->ncalls; n++)
        print_call(e, kind, chunk, n);
    e->out = saved;
    e->indent = 0;
    emit_open(e, "static %s %s(Stage *s, int m, int i)", e->gpu ? "int" : "void",
              body_function(e, kind, chunk, step, s));
    if (!e->used_m)
        emit_line(e, "(void)m;");
    if (!e->used_i)
        emit_line(e, "(void)i;");
    text_add(e->out, body.at);
    if (e->gpu)
        emit_line(e, "return MDL_OK;");
    emit_close(e);
    emit_blank(e);
}

static void print_run(Emit *e, RunKind kind, int chunk)
{
    const Run *run = &e->p->chunks.at[chunk].run[kind];
    for (int i = 0; i < run->steps.n; i++)
        if (run->steps.at[i].turns > 1)
            print_body(e, kind, chunk, i, &run->steps.at[i]);
    emit_open(e, "static int %s(Stage *s, int m)", emit_run_function(e, kind, chunk));
    e->last_line = 0;
    if (!e->p->by_call)
        emit_line(e, "phase_begin(s, '%s', %d, m);", run_name(kind), chunk);
    for (int i = 0; i < run->steps.n; i++) {
        const Step *s = &run->steps.at[i];
        if (s->turns == 1) {
            for (int n = s->first; n < s->first + s->ncalls; n++)
                print_call(e, kind, chunk, n);
            continue;
        }
        emit_source_comment(e, e->p->graph->frames.at[s->frame].at);
        if (s->down)
            emit_line(e, "for (int i = %d; i >= 0; i--)", s->turns - 1);
        else
            emit_line(e, "for (int i = 0; i < %d; i++)", s->turns);
        emit_line(e, e->gpu ? "    TRY(%s(s, m, i));" : "    %s(s, m, i);",
                  body_function(e, kind, chunk, i, s));
    }
    if (!e->p->by_call)
        emit_line(e, "phase_end(s);");
    emit_line(e, "return MDL_OK;");
    emit_close(e);
    emit_blank(e);
}

/* ------------------------------------------------------------------ description */

static const char *strided(Emit *e, int buffer)
{
    if (buffer == NONE)
        return "-1";
    return arena_printf(e->arena, "%lld", (long long)e->d->buffers.at[buffer].offset);
}

static void print_weight_row(Emit *e, const WeightRun *r)
{
    static const char *const inits[] = {"MDL_CONSTANT", "MDL_UNIFORM", "MDL_NORMAL"};
    const Weight *w = &e->p->graph->weights.at[r->weight];
    Text dims = {.arena = e->arena};
    text_add(&dims, "");
    for (int i = 0; i < w->shape.rank; i++)
        text_printf(&dims, "%s%lld", i ? ", " : "", (long long)w->shape.dim[i]);
    int64_t stride = e->d->buffers.at[r->buffer].stride;
    int grad = r->ngrads ? r->grad[0] : NONE;
    emit_line(e, "    {%s, %s, %lld, %lld, %d, %d, %d, %d, {%s},", emit_string(e->arena, r->prefix),
              emit_string(e->arena, r->suffix), (long long)r->first, (long long)r->number_step,
              r->count, r->weight, r->step, w->shape.rank, w->shape.rank ? dims.at : "0");
    emit_line(e, "     %s, %.17g, %s, %s,", inits[w->init], w->init_value,
              w->frozen ? "true" : "false", r->owner ? "true" : "false");
    emit_line(e, "     %s, %lld, %s, %lld, {%s, %s}, %lld},", strided(e, r->buffer),
              (long long)stride, strided(e, grad), (long long)stride,
              strided(e, r->nstates > 0 ? r->state[0] : NONE),
              strided(e, r->nstates > 1 ? r->state[1] : NONE), (long long)stride);
}

static void print_description(Emit *e)
{
    if (e->d->weights.n) {
        emit_line(e, "/* prefix, suffix, first, step, count, index, index step, rank, shape,");
        emit_line(e, " * initial values, frozen, owner, places of weight, gradient, state */");
        emit_line(e, "static const MdlWeight weights[] = {");
        for (int i = 0; i < e->d->weights.n; i++)
            print_weight_row(e, &e->d->weights.at[i]);
        emit_line(e, "};");
        emit_blank(e);
    }
    emit_line(e, "extern const MdlStage stage_%d;", e->stage);
    emit_line(e, "const MdlStage stage_%d = {", e->stage);
    emit_line(e, "    .device = %s,", emit_string(e->arena, e->d->name));
    emit_line(e, "    .layers = %s,", emit_string(e->arena, layers_of(e)));
    emit_line(e, "    .bytes = %lld,", (long long)e->d->bytes);
    if (e->d->offloads.n)
        emit_line(e, "    .host_bytes = %lld,", (long long)e->d->class_bytes[BUFFER_HOST]);
    if (e->gpu)
        emit_gpu_description(e);
    if (e->d->weights.n) {
        emit_line(e, "    .weights = weights,");
        emit_line(e, "    .nweights = (int)(sizeof weights / sizeof *weights),");
    }
    emit_line(e, "    .step = stage_%d_step,", e->stage);
    emit_line(e, "    .eval = stage_%d_eval,", e->stage);
    emit_line(e, "};");
}

/* In two functions where the first may be captured. */
static void print_step(Emit *e)
{
    bool graph = e->gpu && !emit_no_graph(e->p);
    if (graph) {
        emit_line(e, "/* What --cuda-graph captures of a step. */");
        emit_open(e, "static int stage_%d_passes(Stage *s)", e->stage);
        emit_schedule(e, &e->d->train, SCHEDULE_PASSES, false);
        emit_line(e, "return MDL_OK;");
        emit_close(e);
        emit_blank(e);
    }
    emit_line(e, "/* One step. */");
    emit_open(e, "static int stage_%d_step(Stage *s)", e->stage);
    if (graph)
        emit_line(e, "TRY(step_passes(s, stage_%d_passes));", e->stage);
    emit_schedule(e, &e->d->train, graph ? SCHEDULE_UPDATE : SCHEDULE_ALL, false);
    emit_line(e, "return MDL_OK;");
    emit_close(e);
    emit_blank(e);
}

static EmittedFile emit_stage(const Program *p, const Diag *diag, int stage, MapList *maps)
{
    Arena *a = p->graph->arena;
    Text out = {.arena = a};
    Emit e = {.p = p,
              .diag = diag,
              .d = &p->devices.at[stage],
              .stage = stage,
              .arena = a,
              .out = &out,
              .real = p->real_name,
              .maps = maps,
              .gpu = p->transfer != TRANSFER_LINKS,
              .last_file = NONE};
    print_header(&e);
    print_buffers(&e);
    if (p->transfer != TRANSFER_NCCL)
        print_links(&e);
    if (e.gpu) {
        emit_find_events(&e);
        emit_events(&e);
        emit_link_functions(&e);
    } else {
        emit_maps(&e);
    }
    for (int c = 0; c < e.d->chunks.n; c++)
        for (int k = 0; k < RUN_KINDS; k++)
            if (p->chunks.at[e.d->chunks.at[c]].has[k])
                print_run(&e, (RunKind)k, e.d->chunks.at[c]);
    emit_copies(&e);
    emit_update(&e);
    print_step(&e);
    emit_line(&e, "/* Evaluation: forward only. */");
    emit_open(&e, "static int stage_%d_eval(Stage *s)", stage);
    emit_schedule(&e, &e.d->eval, SCHEDULE_ALL, true);
    emit_line(&e, "return MDL_OK;");
    emit_close(&e);
    emit_blank(&e);
    print_description(&e);
    return (EmittedFile){arena_printf(a, "stage_%d.c", stage), out.at};
}

EmittedFiles emit_files(const Program *p, const Diag *d)
{
    Arena *a = p->graph->arena;
    EmittedFiles files = {0}, fused = {0};
    MapList all = {0};
    bool gpu = p->transfer != TRANSFER_LINKS;
    if (gpu)
        emit_fused_files(p, d, &all, &fused);
    for (int i = 0; i < p->devices.n; i++) {
        MapList own = {0};
        VEC_PUSH(a, &files, emit_stage(p, d, i, gpu ? &all : &own));
    }
    for (int i = 0; i < fused.n; i++)
        VEC_PUSH(a, &files, fused.at[i]);
    Text out = {.arena = a};
    emit_trainer(p, d, &out);
    VEC_PUSH(a, &files, (EmittedFile){"trainer.c", out.at});
    VEC_PUSH(a, &files, emit_cmake(p));
    return files;
}
