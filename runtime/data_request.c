/* data_request.c - which files a data set is made of.
 *
 * In: the model's `data` items and the arguments of --data or --eval-data. Out: a
 * DataRequest, every file with its kind. Arguments come after the item: NAME=PATH
 * replaces one input's file, PATH replaces all, "synthetic" needs none. A file given as
 * an argument is of the kind its name says, else of the item's kind.
 */
#include <stdlib.h>
#include <string.h>

#include "data.h"

static bool name_ends(const char *name, const char *end)
{
    size_t n = strlen(name), k = strlen(end);
    return n >= k && strcmp(name + n - k, end) == 0;
}

/* NULL when the name says nothing. */
static const char *kind_from_name(const char *path)
{
    static const char *const kinds[][2] = {
        {".npy", "npy"},   {".csv", "csv"}, {".txt", "text"}, {".bin", "tokens"}, {"-ubyte", "idx"},
        {".ubyte", "idx"}, {".idx", "idx"}, {".idx1", "idx"}, {".idx3", "idx"},   {".gz", "idx"}};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (name_ends(path, kinds[i][0]))
            return kinds[i][1];
    return NULL;
}

static bool kind_is(const char *kind, const char *which)
{
    return kind && strcmp(kind, which) == 0;
}

static const MdlData *item_find(const MdlModel *model, const char *which)
{
    for (int i = 0; i < model->ndata; i++)
        if (strcmp(model->data[i].which, which) == 0)
            return &model->data[i];
    return NULL;
}

/* The number of the input called name[length]; -1: none. */
static int input_find(const MdlModel *model, const char *name, size_t length)
{
    for (int i = 0; i < model->ninputs; i++)
        if (strlen(model->inputs[i].name) == length &&
            memcmp(model->inputs[i].name, name, length) == 0)
            return i;
    return -1;
}

static void files_add(DataRequest *r, const char *input, const char *path, const char *kind)
{
    for (int i = 0; i < r->nfiles; i++)
        if (input && r->files[i].input && strcmp(r->files[i].input, input) == 0) {
            r->files[i] = (DataFile){input, path, kind};
            return;
        }
    r->files[r->nfiles++] = (DataFile){input, path, kind};
}

/* Text and tokens are what the item says, because their names say little: an item of either
 * makes such of any sole path, another item never does. Else a name is believed. */
static int argument_add(DataRequest *r, const MdlModel *model, const char *arg,
                        const char *item_kind, Problem *p)
{
    if (strcmp(arg, "synthetic") == 0) {
        r->synthetic = true;
        r->nfiles = 0;
        return MDL_OK;
    }
    r->synthetic = false;
    const char *equals = strchr(arg, '=');
    int input = equals ? input_find(model, arg, (size_t)(equals - arg)) : -1;
    if (equals && input < 0)
        return problem_set(p, EXIT_USE, "%s %s: the model has no input '%.*s'", r->option, arg,
                           (int)(equals - arg), arg);
    const char *path = equals ? equals + 1 : arg;
    const char *kind = kind_from_name(path);
    bool item_decides =
        (input < 0 && kind_has_windows(item_kind)) || (kind_has_windows(kind) && item_kind);
    if (item_decides || !kind)
        kind = item_kind;
    if (!kind)
        return problem_set(p, EXIT_USE,
                           "%s %s: cannot tell the kind of the file; its name should end in .npy, "
                           ".csv, .txt, .bin, .idx, -ubyte or .gz",
                           r->option, arg);
    /* One file for everything and files for each input do not go together: the last wins. */
    if (input < 0 || (r->nfiles > 0 && !r->files[0].input))
        r->nfiles = 0;
    files_add(r, input < 0 ? NULL : model->inputs[input].name, path, kind);
    return MDL_OK;
}

static int item_add(DataRequest *r, const MdlModel *model, const MdlData *item, Problem *p)
{
    r->synthetic = kind_is(item->kind, "synthetic");
    for (int i = 0; i < item->nfiles; i++) {
        const MdlFile *f = &item->files[i];
        if (f->name && input_find(model, f->name, strlen(f->name)) < 0)
            return problem_set(p, EXIT_USE, "data %s: the model has no input '%s'", r->which,
                               f->name);
        files_add(r, f->name, f->path, item->kind);
    }
    return MDL_OK;
}

int request_data(DataRequest *r, bool *found, const MdlModel *model, const char *which,
                 const char *const *args, int nargs, Problem *p)
{
    bool train = strcmp(which, "train") == 0;
    const MdlData *item = item_find(model, which);
    const MdlData *like = item ? item : item_find(model, "train");
    const char *kind = like ? like->kind : NULL;
    if (kind_is(kind, "synthetic"))
        kind = NULL;

    *r = (DataRequest){.which = which, .option = train ? "--data" : "--eval-data"};
    r->shuffle = train && (!item || item->shuffle);
    r->synthetic_all = train ? 65536 : 4 * model->batch;
    *found = item || nargs > 0;
    size_t most = (item ? (size_t)item->nfiles : 0) + (size_t)nargs + 1;
    r->files = calloc(most, sizeof *r->files);
    if (!r->files)
        return problem_no_memory(p, "the list of data files");
    if (item) {
        r->take = item->take;
        r->skip = item->skip;
        /* An item that arguments replace as a whole is not looked at. */
        if (nargs == 0 || kind)
            TRY(item_add(r, model, item, p));
    }
    for (int i = 0; i < nargs; i++)
        TRY(argument_add(r, model, args[i], kind, p));
    return MDL_OK;
}
