/* elaborate.c - from the AST to the Graph and the Settings.
 *
 * In: the items of a file and of what it imports. Out: a Model, or NULL with everything
 * that is wrong said. The order: constants, devices (placement needs their number), the model,
 * the other settings, the data; at last what has no effect is taken out. */
#include "elaborate.h"

#include <string.h>

/* ---- messages ---- */

enum { SHOWN_CALLS = 3 };

void elab_end_error(Elab *e)
{
    int n = 0;
    for (const Calling *c = e->pending; c && n < SHOWN_CALLS; c = c->outer, n++)
        diag_note(e->diag, c->at, "in this call of the block %s", c->block->block.name.text);
    e->pending = NULL;
}

void elab_error(Elab *e, Place at, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    char message[2000];
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    elab_end_error(e);
    e->errors++;
    const char *key = at.file < 0 ? arena_strndup(e->arena, message, strlen(message))
                                  : arena_printf(e->arena, "%d:%d:%d", at.file, at.line, at.col);
    e->muted = table_find(&e->said, key) >= 0;
    if (e->muted)
        return;
    table_set(e->arena, &e->said, key, 0);
    diag_error(e->diag, at, "%s", message);
    e->pending = e->calling;
    if (diag_errors(e->diag) >= DIAG_MAX_ERRORS)
        e->stop = true;
}

void elab_note(Elab *e, Place at, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    char message[2000];
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    if (!e->muted)
        diag_note(e->diag, at, "%s", message);
}

void elab_help(Elab *e, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    char message[2000];
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    if (!e->muted)
        diag_help(e->diag, "%s", message);
}

void elab_help_nearest(Elab *e, const char *word, const char *const *candidates, int n)
{
    const char *nearest = e->muted ? NULL : diag_nearest(word, candidates, n);
    if (nearest)
        elab_help(e, "did you mean %s?", nearest);
}

/* ---- items ---- */

static void check_params(Elab *e, const Item *block)
{
    const BindingList *params = &block->block.params;
    Table seen = {0};
    if (params->n > ELAB_MAX_PARAMS)
        elab_error(e, block->at, "a block has at most %d parameters", ELAB_MAX_PARAMS);
    for (int i = 0; i < params->n && !e->stop; i++) {
        Name name = params->at[i].name;
        int old = table_find(&seen, name.text);
        if (old < 0) {
            table_set(e->arena, &seen, name.text, i);
            continue;
        }
        elab_error(e, name.at, "the block %s has two parameters %s", block->block.name.text,
                   name.text);
        elab_note(e, params->at[old].name.at, "the first is here");
    }
}

static void collect_blocks(Elab *e)
{
    for (int i = 0; i < e->ast->items.n; i++) {
        const Item *item = e->ast->items.at[i];
        if (item->kind != ITEM_BLOCK)
            continue;
        int old = table_find(&e->block_index, item->block.name.text);
        if (old >= 0) {
            elab_error(e, item->at, "there is a block %s already", item->block.name.text);
            elab_note(e, e->blocks.at[old]->at, "the first is here");
            continue;
        }
        check_params(e, item);
        table_set(e->arena, &e->block_index, item->block.name.text, e->blocks.n);
        VEC_PUSH(e->arena, &e->blocks, item);
    }
}

static const Item *find_model(Elab *e)
{
    const Item *model = NULL;
    for (int i = 0; i < e->ast->items.n; i++) {
        const Item *item = e->ast->items.at[i];
        if (item->kind != ITEM_MODEL)
            continue;
        if (model) {
            elab_error(e, item->at, "there is a model already: a file has one");
            elab_note(e, model->at, "the first is here");
        } else
            model = item;
    }
    if (!model)
        elab_error(e, NO_PLACE, "%s has no model", diag_source(e->diag, e->ast->file)->name);
    return model;
}

static void check_loss(Elab *e, const Item *model)
{
    if (e->has_loss || e->cut || e->stop)
        return;
    elab_error(e, model->at, "the model %s has no loss", model->model.name.text);
    elab_help(e, "for example: loss cross_entropy(logits, y);");
}

Model *elaborate(Arena *a, Diag *d, Ast *ast, const FrontOptions *o)
{
    static const FrontOptions none;
    int errors = diag_errors(d);
    Elab *e = ARENA_NEW(a, Elab);
    e->arena = a;
    e->diag = d;
    e->ast = ast;
    e->options = o ? o : &none;
    e->graph = graph_new(a);
    e->layer = ARENA_NEW(a, Layer);
    e->layer->key = e->layer->path = "";
    e->device = NONE;
    consts_collect(e);
    consts_check(e);
    collect_blocks(e);
    settings_devices(e);
    const Item *model = find_model(e);
    if (model && !e->stop) {
        run_model(e, model);
        check_loss(e, model);
    }
    settings_others(e);
    data_items(e);
    if (diag_errors(d) == errors) {
        limits_settle(e);
        prune(e);
    }
    elab_end_error(e);
    if (diag_errors(d) > errors || !model)
        return NULL;
    Model *m = ARENA_NEW(a, Model);
    m->name = model->model.name.text;
    m->source = diag_source(d, ast->file)->name;
    m->graph = e->graph;
    m->settings = e->settings;
    return m;
}
