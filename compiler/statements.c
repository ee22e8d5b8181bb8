/* statements.c - executes the statements of the model, and of blocks as they are called.
 *
 * A for runs at compile time, an if takes one branch, a block's call runs its body in a
 * scope of its own. What surrounds a statement (device, recompute, freeze, frame) is kept in
 * the Elab and put back after it. */
#include "calls.h"

#include <string.h>

bool enter_frame(Elab *e, Frame f)
{
    if (e->depth >= ELAB_MAX_DEPTH) {
        elab_error(e, f.at, "blocks and loops are nested more than %d deep", ELAB_MAX_DEPTH);
        return false;
    }
    if (++e->turns > ELAB_MAX_TURNS) {
        elab_error(e, f.at, "the model makes more than %d turns of loops and calls of blocks",
                   ELAB_MAX_TURNS);
        e->stop = true;
        return false;
    }
    f.parent = e->frame;
    e->frame = graph_add_frame(e->graph, f);
    e->depth++;
    return true;
}

void leave_frame(Elab *e)
{
    e->frame = e->graph->frames.at[e->frame].parent;
    e->depth--;
}

/* ---- inputs and weights ---- */

static bool read_type(Elab *e, const TypeExpr *type, Dtype *out, Shape *shape)
{
    static const char *const names[] = {"f32", "bf16", "f16", "i32", "u8"};
    int kind = -1;
    for (int i = 0; i <= DT_U8; i++)
        if (!strcmp(type->element.text, names[i]))
            kind = i;
    if (kind < 0) {
        elab_error(e, type->element.at, "there is no element type %s", type->element.text);
        elab_help(e, "the types are f32, bf16, f16, i32 and u8");
        return false;
    }
    *out = (Dtype)kind;
    *shape = (Shape){.rank = type->dims.n};
    if (type->dims.n > MAX_RANK) {
        elab_error(e, type->at, "a tensor has at most %d dimensions, not %d", MAX_RANK,
                   type->dims.n);
        return false;
    }
    for (int i = 0; i < type->dims.n; i++)
        if (!eval_int(e, type->dims.at[i], "a dimension", 1, MAX_DIM, &shape->dim[i]))
            return false;
    return elab_check_shape(e, type->at, shape);
}

static void run_input(Elab *e, const Run *r, const Stmt *s)
{
    Graph *g = e->graph;
    Name name = s->input.name;
    Input in = {.name = name.text, .target = s->kind == STMT_TARGET, .at = name.at};
    scope_bind(e, name, term_error(name.at));
    if (r->block) {
        elab_error(e, s->at, "%s belongs in the model, not in a block",
                   in.target ? "a target" : "an input");
        elab_help(e, "give it to the block as an argument");
        return;
    }
    int old = table_find(&e->input_index, in.name);
    if (old >= 0) {
        elab_error(e, name.at, "there is an input %s already", in.name);
        elab_note(e, g->inputs.at[old].at, "the first is here");
        return;
    }
    if (g->inputs.n >= ELAB_MAX_INPUTS) {
        elab_error(e, name.at, "a model has at most %d inputs", ELAB_MAX_INPUTS);
        e->stop = true;
        return;
    }
    if (!read_type(e, &s->input.type, &in.type, &in.shape))
        return;
    Value v = {.kind = VALUE_INPUT,
               .type = in.type,
               .shape = in.shape,
               .batched = true,
               .index = g->inputs.n,
               .def = NONE,
               .name = in.name,
               .at = name.at};
    table_set(e->arena, &e->input_index, in.name, g->inputs.n);
    in.value = graph_add_value(g, v);
    VEC_PUSH(e->arena, &g->inputs, in);
    scope_bind(e, name, term_tensor(in.value, name.at));
}

static bool weight_init(Elab *e, const Expr *x, Shape shape, Weight *w)
{
    if (!x)
        return true;
    Term t = eval(e, x);
    if (t.kind == TERM_ERROR)
        return false;
    if (t.kind != TERM_INIT) {
        elab_error(e, x->at, "a weight starts from an initial value, not %s", term_describe(e, t));
        elab_help(e, "normal(std), uniform(limit), zeros, ones, constant(v), kaiming_uniform or "
                     "xavier_uniform");
        return false;
    }
    return initial_apply(e, t, shape, false, w);
}

static void run_weight(Elab *e, const Stmt *s)
{
    Name name = s->input.name;
    Dtype type;
    Weight w = {.init = INIT_CONSTANT,
                .frozen = e->frozen,
                .device = e->device,
                .frame = e->frame,
                .at = name.at};
    scope_bind(e, name, term_error(name.at));
    int old = table_find(&e->layer->param_index, name.text);
    if (old >= 0) {
        elab_error(e, name.at, "there is a weight %s already",
                   layer_weight_name(e, e->layer, name.text));
        elab_note(e, e->layer->params.at[old].at, "the first is here");
        if (e->graph->frames.at[e->frame].kind == FRAME_TURN)
            elab_help(e, "inside a for, put it into a block and call that with as name[%s]",
                      e->graph->frames.at[e->frame].name);
        return;
    }
    if (!read_type(e, &s->input.type, &type, &w.shape))
        return;
    if (type != DT_F32) {
        elab_error(e, s->input.type.at, "a weight is f32, not %s", dtype_name(type));
        if (dtype_is_half(type))
            elab_help(e,
                      "what is trained is f32; precision = %s in train makes products read it "
                      "rounded to %s",
                      dtype_name(type), dtype_name(type));
        return;
    }
    if (!weight_init(e, s->input.init, w.shape, &w))
        return;
    w.name = layer_weight_name(e, e->layer, name.text);
    WeightId id = graph_add_weight(e->graph, w);
    ValueId v = e->graph->weights.at[id].value;
    layer_add_param(e, e->layer, name.text, v, name.at);
    scope_bind(e, name, term_tensor(v, name.at));
}

/* ---- names, losses ---- */

static void bind_one(Elab *e, Name name, Term t)
{
    if (t.kind == TERM_TENSOR) {
        Value *v = &e->graph->values.at[t.tensor];
        if (v->kind == VALUE_OP && !v->name) {
            v->name = name.text;
            v->at = name.at;
        }
    }
    scope_bind(e, name, t);
}

static void run_bind(Elab *e, const Stmt *s)
{
    const NameList *names = &s->bind.names;
    const Expr *x = s->bind.value;
    bool alone = !s->bind.tuple;
    Term t = eval_hinted(e, x, alone ? &names->at[0] : NULL);
    if (alone) {
        bind_one(e, names->at[0], t);
        return;
    }
    if (t.kind != TERM_ERROR && (t.kind != TERM_LIST || t.list.n != names->n)) {
        elab_error(e, s->at, "%d names for %s", names->n, term_describe(e, t));
        elab_note(e, x->at, "this is %s", term_describe(e, t));
        t = term_error(x->at);
    }
    for (int i = 0; i < names->n; i++)
        bind_one(e, names->at[i], t.kind == TERM_ERROR ? t : t.list.of[i]);
}

/* A tensor that is a scalar per sample; NONE after an error. */
static ValueId scalar_of(Elab *e, const Expr *x, const char *what)
{
    Term t = eval(e, x);
    if (t.kind == TERM_ERROR)
        return NONE;
    if (t.kind != TERM_TENSOR) {
        elab_error(e, x->at, "%s is a tensor made from the inputs, not %s", what,
                   term_describe(e, t));
        return NONE;
    }
    Value v = e->graph->values.at[t.tensor];
    if (v.shape.rank) {
        elab_error(e, x->at, "%s is one number per sample, but this is %s", what,
                   show_shape(e, t.tensor));
        Text dims = {.arena = e->arena};
        for (int i = 0; i < v.shape.rank; i++)
            text_printf(&dims, "%s%d", i ? ", " : "", i);
        elab_help(e, "mean(x, dims = [%s]) makes it one number", dims.at);
        return NONE;
    }
    if (!v.batched) {
        elab_error(e, x->at, "%s does not depend on any input", what);
        return NONE;
    }
    return elab_float(e, t.tensor, x->at);
}

static void run_loss(Elab *e, const Stmt *s)
{
    Graph *g = e->graph;
    if (e->has_loss) {
        elab_error(e, s->at, "a model has one loss");
        elab_note(e, g->loss_at, "the first is here");
        elab_help(e, "add them up: loss a + b;");
        return;
    }
    e->has_loss = true;
    g->loss_at = s->at;
    g->loss = scalar_of(e, s->value, "the loss");
}

static const char *metric_name(Elab *e, const Expr *x)
{
    const char *base = x->kind == EXPR_NAME ? x->text : "metric";
    if (x->kind == EXPR_CALL)
        base = x->call.as && x->call.as->kind == EXPR_NAME ? x->call.as->text : x->call.callee.text;
    const char *name = base;
    for (int k = 2;; k++) {
        bool taken = false;
        for (int i = 0; i < e->graph->metrics.n; i++)
            taken |= !strcmp(e->graph->metrics.at[i].name, name);
        if (!taken)
            return name;
        name = arena_printf(e->arena, "%s_%d", base, k);
    }
}

static void run_metric(Elab *e, const Stmt *s)
{
    ValueId v = scalar_of(e, s->value, "the metric");
    if (v == NONE)
        return;
    if (e->graph->metrics.n >= ELAB_MAX_METRICS) {
        elab_error(e, s->at, "a model has at most %d metrics", ELAB_MAX_METRICS);
        return;
    }
    Metric m = {metric_name(e, s->value), v, s->at};
    VEC_PUSH(e->arena, &e->graph->metrics, m);
}

/* ---- control ---- */

static void run_for(Elab *e, Run *r, const Stmt *s)
{
    int64_t from, to;
    if (!eval_int(e, s->loop.from, "the start of a for", INT64_MIN, INT64_MAX, &from) ||
        !eval_int(e, s->loop.to, "the end of a for", INT64_MIN, INT64_MAX, &to)) {
        e->cut = true;
        return;
    }
    int errors = e->errors, loop = ++e->graph->loops;
    for (int64_t i = from; i < to && !e->stop; i++) {
        Frame f = {.kind = FRAME_TURN,
                   .loop = loop,
                   .turn = i - from,
                   .counter = i,
                   .name = s->loop.counter.text,
                   .path = e->layer->path,
                   .at = s->at};
        if (!enter_frame(e, f))
            return;
        scope_bind(e, s->loop.counter,
                   (Term){.kind = TERM_INT, .at = s->loop.counter.at, .integer = i});
        run_list(e, r, &s->loop.body);
        leave_frame(e);
        /* The next turns would say the same again. */
        if (e->errors > errors) {
            e->cut = true;
            return;
        }
    }
}

static void run_if(Elab *e, Run *r, const Stmt *s)
{
    for (int i = 0; i < s->branch.arms.n; i++) {
        const IfArm *arm = &s->branch.arms.at[i];
        Term t = eval(e, arm->condition);
        if (t.kind != TERM_BOOL) {
            if (t.kind != TERM_ERROR) {
                elab_error(e, arm->condition->at,
                           "the condition of an if is true or false at compile time, not %s",
                           term_describe(e, t));
                elab_help(e, "compare it: if (n > 0)");
            }
            e->cut = true;
            return;
        }
        if (t.truth) {
            run_list(e, r, &arm->body);
            return;
        }
    }
    run_list(e, r, &s->branch.otherwise);
}

/* The number of the device; NONE after an error. */
static int device_of(Elab *e, const DeviceRef *ref)
{
    const Devices *d = &e->settings.devices;
    int64_t k, count = d->count ? d->count : ELAB_MAX_DEVICES;
    if (strcmp(ref->device.text, d->name) != 0) {
        elab_error(e, ref->device.at, "the devices are called %s, not %s", d->name,
                   ref->device.text);
        if (d->count)
            elab_note(e, d->at, "they are given here");
        else
            elab_help(e, "without a devices item the device is gpu; or say devices %s[n] = …;",
                      ref->device.text);
        return NONE;
    }
    Term t = eval(e, ref->index);
    if (t.kind == TERM_ERROR)
        return NONE;
    k = t.integer;
    if (t.kind != TERM_INT) {
        elab_error(e, ref->index->at, "the number of a device is an integer, not %s",
                   term_describe(e, t));
        return NONE;
    }
    if (k >= 0 && k < count)
        return (int)k;
    elab_error(e, ref->at, "there is no %s[%lld]: the %lld devices are %s[0] to %s[%lld]", d->name,
               (long long)k, (long long)count, d->name, d->name, (long long)count - 1);
    if (d->count)
        elab_note(e, d->at, "they are given here");
    return NONE;
}

static void run_return(Elab *e, Run *r, const Stmt *s)
{
    if (!r->block) {
        elab_error(e, s->at, "return is for blocks, not for the model");
        return;
    }
    if (e->graph->frames.at[e->frame].kind == FRAME_TURN) {
        elab_error(e, s->at, "return cannot stand inside a for: it is the end of its block");
        r->returned = true;
        return;
    }
    r->value = eval(e, s->value);
    r->returned = true;
}

static void run_group(Elab *e, Run *r, const Stmt *s)
{
    bool recompute = e->recompute, frozen = e->frozen;
    e->recompute |= s->kind == STMT_RECOMPUTE;
    e->frozen |= s->kind == STMT_FREEZE;
    run_list(e, r, &s->body);
    e->recompute = recompute;
    e->frozen = frozen;
}

static void run_statement(Elab *e, Run *r, const Stmt *s)
{
    switch (s->kind) {
    case STMT_INPUT:
    case STMT_TARGET:
        run_input(e, r, s);
        break;
    case STMT_WEIGHT:
        run_weight(e, s);
        break;
    case STMT_BIND:
        run_bind(e, s);
        break;
    case STMT_FOR:
        run_for(e, r, s);
        break;
    case STMT_IF:
        run_if(e, r, s);
        break;
    case STMT_ON:
        run_list(e, r, &s->on.body);
        break;
    case STMT_RECOMPUTE:
    case STMT_FREEZE:
        run_group(e, r, s);
        break;
    case STMT_LOSS:
        run_loss(e, s);
        break;
    case STMT_METRIC:
        run_metric(e, s);
        break;
    case STMT_RETURN:
        run_return(e, r, s);
        break;
    }
}

void run_list(Elab *e, Run *r, const StmtList *list)
{
    for (int i = 0; i < list->n && !e->stop; i++) {
        const Stmt *s = list->at[i];
        if (!elab_enter(e, s->at))
            return;
        if (r->returned) {
            elab_error(e, s->at, "this comes after the return of %s", r->block->block.name.text);
            e->nesting--;
            return;
        }
        const int device = e->device, statement = e->statement;
        const DeviceRef *ref = s->kind == STMT_ON ? &s->on.device : s->device;
        if (ref)
            e->device = device_of(e, ref);
        e->statement = ++e->statements;
        run_statement(e, r, s);
        e->statement = statement;
        e->device = device;
        e->nesting--;
    }
}

void run_model(Elab *e, const Item *model)
{
    Run r = {0};
    e->scope = e->model_scope = ARENA_NEW(e->arena, Scope);
    e->frame = graph_add_frame(
        e->graph, (Frame){.kind = FRAME_MODEL, .parent = NONE, .path = "", .at = model->at});
    run_list(e, &r, &model->model.body);
    e->scope = NULL;
}
