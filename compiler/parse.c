/* parse.c - a file and what it imports, as one tree.
 *
 * In: a path. Out: the Ast. Files are loaded depth first in the order of their imports, each
 * once (known by its real path); the files that wait for one another are a chain, in which
 * a second appearance is a cycle. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include "parse.h"
#include "front.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

typedef struct {
    const char *real; /* its one true path */
    const char *name; /* as shown */
    bool open;        /* on the chain */
} File;

typedef struct {
    Arena *arena;
    Diag *diag;
    const FrontOptions *options;
    Ast *ast;
    VEC(File) files;
    struct {
        int file; /* of files */
        Place at; /* the import that brought it in */
    } chain[AST_MAX_IMPORTS];
    int nchain;
} Loader;

static void load(Loader *l, const char *path, Place at);

static const char *real_path(Arena *a, const char *path)
{
    char *real = strcmp(path, "-") ? realpath(path, NULL) : NULL;
    if (!real)
        return path;
    const char *kept = arena_strndup(a, real, strlen(real));
    free(real);
    return kept;
}

static bool is_file(const char *path)
{
    struct stat st;
    return !stat(path, &st) && S_ISREG(st.st_mode);
}

static const char *join_path(Arena *a, const char *directory, size_t n, const char *path)
{
    if (!n)
        return path;
    return arena_printf(a, "%.*s%s%s", (int)n, directory, directory[n - 1] == '/' ? "" : "/", path);
}

/* Beside the importing file, then along -I. NULL after an error that lists these places. */
static const char *find_import(Loader *l, const char *importer, const char *path, Place at)
{
    Text looked = {.arena = l->arena};
    const char *slash = strrchr(importer, '/');
    for (int i = -1; i < l->options->ninclude_dirs; i++) {
        const char *directory = i < 0 ? importer : l->options->include_dirs[i];
        size_t n = i >= 0 ? strlen(directory) : slash ? (size_t)(slash - importer) + 1 : 0;
        const char *full = *path == '/' ? path : join_path(l->arena, directory, n, path);
        if (*path && is_file(full))
            return full;
        text_printf(&looked, "%s%s", i < 0 ? "" : ", ", full);
        if (*path == '/')
            break;
    }
    diag_error(l->diag, at, "cannot find \"%s\"", path);
    if (*path)
        diag_help(l->diag, "looked for %s; -I adds a directory", looked.at);
    return NULL;
}

static void report_cycle(Loader *l, int file, Place at)
{
    int first = 0;
    while (l->chain[first].file != file)
        first++;
    Text chain = {.arena = l->arena};
    for (int i = first; i < l->nchain; i++)
        text_printf(&chain, "%s imports ", l->files.at[l->chain[i].file].name);
    text_add(&chain, l->files.at[file].name);
    diag_error(l->diag, at, "import cycle: %s", chain.at);
    for (int i = l->nchain - 1; i > first; i--)
        diag_note(l->diag, l->chain[i].at, "%s is imported here",
                  l->files.at[l->chain[i].file].name);
}

static void load_import(Loader *l, const char *importer, const Item *item)
{
    if (diag_errors(l->diag) >= DIAG_MAX_ERRORS)
        return; /* enough is wrong; looking on could take long */
    const char *path = find_import(l, importer, item->import_path.text, item->at);
    if (!path)
        return;
    if (l->nchain == AST_MAX_IMPORTS)
        diag_error(l->diag, item->at, "imports are more than %d files deep", AST_MAX_IMPORTS);
    else
        load(l, path, item->at);
}

/* Everything of the first file; of the others consts and blocks alone. */
static void keep_items(Loader *l, const Parser *p, const char *path)
{
    for (int i = 0; i < p->items.n; i++) {
        Item *item = p->items.at[i];
        if (l->nchain == 1 || item->kind == ITEM_CONST || item->kind == ITEM_BLOCK)
            VEC_PUSH(l->arena, &l->ast->items, item);
        if (item->kind == ITEM_IMPORT)
            load_import(l, path, item);
    }
}

static void read_and_parse(Loader *l, const char *path, const char *name, Place at)
{
    size_t size;
    const char *why;
    const char *text = source_read(l->arena, path, &size, &why);
    if (!text) {
        diag_error(l->diag, at, "cannot read %s: %s", name, why);
        return;
    }
    int file = diag_add_source(l->diag, name, text, size);
    if (l->nchain == 1)
        l->ast->file = file;
    if (!source_check(l->diag, file, text, size))
        return;
    Parser p = {.arena = l->arena, .diag = l->diag, .file = file, .text = text, .size = size};
    parse_text(&p);
    keep_items(l, &p, path); /* even after errors: those of the imports belong to the same run */
}

static void load(Loader *l, const char *path, Place at)
{
    const char *real = real_path(l->arena, path);
    for (int i = 0; i < l->files.n; i++) {
        if (strcmp(l->files.at[i].real, real))
            continue;
        if (l->files.at[i].open)
            report_cycle(l, i, at);
        return;
    }
    const char *name = strcmp(path, "-") ? path : "<stdin>";
    int number = l->files.n;
    VEC_PUSH(l->arena, &l->files, (File){.real = real, .name = name, .open = true});
    l->chain[l->nchain].file = number;
    l->chain[l->nchain++].at = at;
    read_and_parse(l, path, name, at);
    l->nchain--;
    l->files.at[number].open = false;
}

static bool has_model(const Ast *ast)
{
    for (int i = 0; i < ast->items.n; i++)
        if (ast->items.at[i]->kind == ITEM_MODEL)
            return true;
    return false;
}

struct Ast *parse_file(Arena *a, Diag *d, const char *path, const FrontOptions *o)
{
    static const FrontOptions none = {0};
    int errors = diag_errors(d);
    Loader *l = ARENA_NEW(a, Loader);
    *l = (Loader){.arena = a, .diag = d, .options = o ? o : &none, .ast = ARENA_NEW(a, Ast)};
    l->ast->arena = a;
    load(l, path, NO_PLACE);
    if (diag_errors(d) == errors && !has_model(l->ast)) {
        Place at = {.file = l->ast->file, .line = 1, .col = 1, .len = 1};
        diag_error(d, at, "no model in this file");
        diag_help(d, "what is to be compiled holds one 'model name { ... }'");
    }
    return diag_errors(d) == errors ? l->ast : NULL;
}
