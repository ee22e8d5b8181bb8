/* blocks.c - calls of blocks: arguments become names of a new scope, under a new layer.
 *
 * The body sees its parameters and, read only, what the model has bound at the time of the
 * call; never the names of another block that calls it. */
#include "elaborate.h"

#include <string.h>

static const char *signature_of(Elab *e, const Item *block)
{
    Text t = {.arena = e->arena};
    text_printf(&t, "%s(", block->block.name.text);
    for (int i = 0; i < block->block.params.n; i++) {
        const Binding *p = &block->block.params.at[i];
        text_printf(&t, "%s%s", i ? ", " : "", p->name.text);
        if (p->value)
            text_printf(&t, " = %s", ast_show_expr(e->arena, p->value));
    }
    text_add(&t, ")");
    return t.at;
}

static int find_param(const Item *block, const char *name)
{
    for (int i = 0; i < block->block.params.n; i++)
        if (!strcmp(block->block.params.at[i].name.text, name))
            return i;
    return -1;
}

static bool unknown_param(Elab *e, const Item *block, const Arg *arg)
{
    VEC(const char *) names = {0};
    for (int i = 0; i < block->block.params.n; i++)
        VEC_PUSH(e->arena, &names, block->block.params.at[i].name.text);
    elab_error(e, arg->at, "the block %s has no parameter %s", block->block.name.text, arg->name);
    elab_note(e, block->at, "the block is %s", signature_of(e, block));
    elab_help_nearest(e, arg->name, names.at, names.n);
    return false;
}

/* The argument of each parameter, evaluated where the call stands; TERM_ABSENT: none. */
static bool read_args(Elab *e, const Item *block, const Expr *call, Term *out)
{
    const ArgList *args = &call->call.args;
    const BindingList *params = &block->block.params;
    bool good = true;
    for (int i = 0; i < params->n; i++)
        out[i] = (Term){.kind = TERM_ABSENT};
    for (int i = 0; i < args->n && !e->stop; i++) {
        const Arg *arg = &args->at[i];
        int p = arg->name ? find_param(block, arg->name) : i;
        if (p < 0) {
            good = unknown_param(e, block, arg);
        } else if (p >= params->n) {
            elab_error(e, arg->at, "the block %s takes %d arguments, not %d",
                       block->block.name.text, params->n, args->n);
            elab_note(e, block->at, "the block is %s", signature_of(e, block));
            return false;
        } else if (out[p].kind != TERM_ABSENT) {
            elab_error(e, arg->at, "%s is given %s twice", block->block.name.text,
                       params->at[p].name.text);
            good = false;
        } else {
            out[p] = eval(e, arg->value);
            good &= out[p].kind != TERM_ERROR;
        }
    }
    for (int i = 0; i < params->n && good; i++)
        if (out[i].kind == TERM_ABSENT && !params->at[i].value) {
            elab_error(e, call->at, "the block %s is not given %s", block->block.name.text,
                       params->at[i].name.text);
            elab_note(e, block->at, "the block is %s", signature_of(e, block));
            good = false;
        }
    return good;
}

/* Binds the parameters in the block's own scope, where a default may use those before it. */
static bool bind_params(Elab *e, const Item *block, const Term *args)
{
    const BindingList *params = &block->block.params;
    for (int i = 0; i < params->n; i++) {
        const Binding *p = &params->at[i];
        Term t = args[i];
        if (t.kind == TERM_ABSENT)
            t = eval(e, p->value);
        if (t.kind == TERM_ERROR)
            return false;
        scope_bind(e, p->name, t);
    }
    return true;
}

static bool check_recursion(Elab *e, const Item *block, const Expr *call)
{
    for (const Calling *c = e->calling; c; c = c->outer)
        if (c->block == block) {
            elab_error(e, call->at, "the block %s calls itself", block->block.name.text);
            elab_note(e, block->at, "blocks are put in place at compile time, so this has no end");
            return false;
        }
    return true;
}

static Term run_body(Elab *e, const Item *block, const Expr *call, const Term *args)
{
    Run r = {.block = block, .value = term_error(call->at)};
    Scope *outer = e->scope;
    Calling *calling = ARENA_NEW(e->arena, Calling);
    *calling = (Calling){e->calling, block, call->at};
    e->calling = calling;
    e->scope = ARENA_NEW(e->arena, Scope);
    e->scope->parent = e->model_scope;
    int errors = e->errors;
    if (bind_params(e, block, args)) {
        run_list(e, &r, &block->block.body);
        if (!r.returned && e->errors == errors) {
            elab_error(e, block->at, "the block %s has no return", block->block.name.text);
            elab_help(e, "end it with return name;");
        }
    }
    e->scope = outer;
    e->calling = calling->outer;
    r.value.at = call->at;
    return r.value;
}

Term run_block(Elab *e, const Item *block, const Expr *call, const Name *hint)
{
    Term *args = ARENA_ARRAY(e->arena, Term, block->block.params.n + 1);
    Layer *outer = e->layer, *layer = NULL;
    Term result = term_error(call->at);
    int errors = e->errors;
    if (!check_recursion(e, block, call) || !read_args(e, block, call, args) ||
        !(layer = layer_claim(e, call, hint, block->block.name.text, NAME_OWNER))) {
        layer_break(e, call, hint);
        e->cut = true;
        return result;
    }
    Frame f = {
        .kind = FRAME_BLOCK, .name = block->block.name.text, .path = layer->path, .at = call->at};
    e->layer = layer;
    if (enter_frame(e, f)) {
        result = run_body(e, block, call, args);
        leave_frame(e);
    }
    e->layer = outer;
    layer->broken = e->errors > errors;
    return result;
}
