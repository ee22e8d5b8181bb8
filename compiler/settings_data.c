/* settings_data.c - `data train = npy(x = "x.npy", y = "y.npy");`, checked against the model's
 * inputs: every file belongs to an input, and every input has its file. */
#include "settings_read.h"

#include <string.h>

typedef enum {
    FILES_NAMED,
    FILES_WINDOWS, /* one path, whose tokens are cut into windows */
    FILES_EITHER,
    FILES_NONE
} FilesWanted;

static const struct {
    const char *kind;
    FilesWanted files;
} kinds[] = {{"npy", FILES_NAMED},    {"idx", FILES_NAMED},      {"csv", FILES_EITHER},
             {"text", FILES_WINDOWS}, {"tokens", FILES_WINDOWS}, {"synthetic", FILES_NONE}};
enum { NKINDS = sizeof kinds / sizeof *kinds };

static int find_input(const Graph *g, const char *name)
{
    for (int i = 0; i < g->inputs.n; i++)
        if (!strcmp(g->inputs.at[i].name, name))
            return i;
    return -1;
}

static void read_option(Elab *e, DataItem *d, const Arg *arg)
{
    Given g = {"data", {arg->name, arg->at}, arg->value};
    if (!strcmp(arg->name, "take")) {
        read_int(e, &g, 1, INT64_MAX, &d->take);
    } else if (!strcmp(arg->name, "skip")) {
        read_int(e, &g, 0, INT64_MAX, &d->skip);
    } else {
        Term t = eval(e, arg->value);
        if (t.kind == TERM_BOOL)
            d->shuffle = t.truth;
        else if (t.kind != TERM_ERROR)
            elab_error(e, arg->value->at, "shuffle of data is true or false, not %s",
                       term_describe(e, t));
    }
}

static bool is_option(const char *name)
{
    return !strcmp(name, "take") || !strcmp(name, "skip") || !strcmp(name, "shuffle");
}

static void read_file(Elab *e, DataItem *d, const Arg *arg)
{
    Term t = eval(e, arg->value);
    if (t.kind == TERM_ERROR)
        return;
    if (t.kind != TERM_STRING || !*t.text) {
        elab_error(e, arg->value->at, "a file is given as \"path\", not %s",
                   t.kind == TERM_STRING ? "an empty string" : term_describe(e, t));
        return;
    }
    VEC_PUSH(e->arena, &d->files, (DataFile){arg->name, t.text});
}

static bool known_key(Elab *e, const Arg *arg)
{
    const Graph *g = e->graph;
    if (find_input(g, arg->name) >= 0)
        return true;
    VEC(const char *) names = {0};
    for (int i = 0; i < g->inputs.n; i++)
        VEC_PUSH(e->arena, &names, g->inputs.at[i].name);
    VEC_PUSH(e->arena, &names, "shuffle");
    VEC_PUSH(e->arena, &names, "take");
    VEC_PUSH(e->arena, &names, "skip");
    elab_error(e, arg->at, "the model has no input %s", arg->name);
    elab_help_nearest(e, arg->name, names.at, names.n);
    return false;
}

static bool given_already(Elab *e, const ArgList *args, int i)
{
    for (int k = 0; k < i; k++)
        if (args->at[k].name && !strcmp(args->at[k].name, args->at[i].name)) {
            elab_error(e, args->at[i].at, "%s is given twice", args->at[i].name);
            elab_note(e, args->at[k].at, "the first is here");
            return true;
        }
    return false;
}

static void check_files(Elab *e, const DataItem *d, FilesWanted wanted, const Expr *x)
{
    const Graph *g = e->graph;
    int named = 0;
    for (int i = 0; i < d->files.n; i++)
        named += d->files.at[i].key != NULL;
    int alone = d->files.n - named;
    if (wanted == FILES_NONE && d->files.n) {
        elab_error(e, x->at, "%s data has no files", d->kind);
    } else if (wanted == FILES_WINDOWS && (alone != 1 || named)) {
        elab_error(e, x->at, "%s data is one path, for all inputs: %s(\"path\")", d->kind, d->kind);
    } else if (wanted == FILES_NAMED && alone) {
        elab_error(e, x->at, "%s data names the input of each file", d->kind);
        if (g->inputs.n)
            elab_help(e, "%s(%s = \"path\")", d->kind, g->inputs.at[0].name);
    } else if (wanted == FILES_EITHER && (alone > 1 || (alone && named))) {
        elab_error(e, x->at, "%s data is one file, or one for each input", d->kind);
    } else if (wanted == FILES_NAMED || (wanted == FILES_EITHER && !alone)) {
        for (int i = 0; i < g->inputs.n; i++) {
            bool found = false;
            for (int k = 0; k < d->files.n; k++)
                found |= !strcmp(d->files.at[k].key, g->inputs.at[i].name);
            if (!found) {
                elab_error(e, x->at, "%s data %s has no file for %s", d->kind, d->which,
                           g->inputs.at[i].name);
                elab_note(e, g->inputs.at[i].at, "the %s is here",
                          g->inputs.at[i].target ? "target" : "input");
            }
        }
    }
}

static bool is_integer(Dtype type)
{
    return type == DT_I32 || type == DT_U8;
}

/* Windows of tokens, and the same one token on. */
static void check_windows(Elab *e, const DataItem *d, const Expr *x)
{
    const Graph *g = e->graph;
    const Input *in = NULL, *target = NULL;
    int inputs = 0;
    for (int i = 0; i < g->inputs.n; i++) {
        inputs += !g->inputs.at[i].target;
        *(g->inputs.at[i].target ? &target : &in) = &g->inputs.at[i];
    }
    if (inputs == 1 && g->inputs.n <= 2 && in->shape.rank == 1 && is_integer(in->type) &&
        (!target || (is_integer(target->type) && shape_equal(&in->shape, &target->shape))))
        return;
    elab_error(e, x->at, "%s data fits one input i32[n] and a target of the same shape", d->kind);
    for (int i = 0; i < g->inputs.n; i++)
        elab_note(e, g->inputs.at[i].at, "%s is %s", g->inputs.at[i].name,
                  shape_show(e->arena, g->inputs.at[i].type, &g->inputs.at[i].shape));
}

static int find_kind(Elab *e, const Expr *x)
{
    const char *names[NKINDS], *word = x->kind == EXPR_CALL ? x->call.callee.text : NULL;
    for (int i = 0; i < NKINDS; i++) {
        names[i] = kinds[i].kind;
        if (word && !strcmp(word, kinds[i].kind))
            return i;
    }
    elab_error(e, x->at, "there is no data %s", ast_show_expr(e->arena, x));
    if (word)
        elab_help_nearest(e, word, names, NKINDS);
    elab_help(e, "it is npy(…), idx(…), csv(…), text(\"file\"), tokens(\"files\") or synthetic()");
    return -1;
}

static void read_item(Elab *e, const Item *item)
{
    const Expr *x = item->data.value;
    DataItem d = {.which = item->data.name.text, .at = item->at};
    if (strcmp(d.which, "train") != 0 && strcmp(d.which, "eval") != 0) {
        elab_error(e, item->data.name.at, "data is train or eval, not %s", d.which);
        return;
    }
    for (int i = 0; i < e->settings.data.n; i++)
        if (!strcmp(e->settings.data.at[i].which, d.which)) {
            elab_error(e, item->at, "data %s is given twice", d.which);
            elab_note(e, e->settings.data.at[i].at, "the first is here");
            return;
        }
    int kind = find_kind(e, x);
    if (kind < 0)
        return;
    int errors = e->errors;
    d.kind = kinds[kind].kind;
    d.shuffle = !strcmp(d.which, "train");
    for (int i = 0; i < x->call.args.n && !e->stop; i++) {
        const Arg *arg = &x->call.args.at[i];
        if (arg->name && given_already(e, &x->call.args, i))
            continue;
        if (arg->name && is_option(arg->name))
            read_option(e, &d, arg);
        else if (!arg->name || known_key(e, arg))
            read_file(e, &d, arg);
    }
    if (e->errors == errors)
        check_files(e, &d, kinds[kind].files, x);
    if (kinds[kind].files == FILES_WINDOWS && e->errors == errors)
        check_windows(e, &d, x);
    VEC_PUSH(e->arena, &e->settings.data, d);
}

void data_items(Elab *e)
{
    for (int i = 0; i < e->ast->items.n; i++)
        if (e->ast->items.at[i]->kind == ITEM_DATA)
            read_item(e, e->ast->items.at[i]);
}
