/* syntax_run.c - runs the syntax half of the compiler over a text and keeps what it prints. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include "syntax_run.h"
#include "parse.h"

#include <stdlib.h>
#include <string.h>

static const char *kept(Arena *a, char *buffer, size_t size)
{
    const char *text = arena_strndup(a, buffer, size);
    free(buffer);
    return text;
}

static const char *dump(Arena *a, const Ast *ast)
{
    char *buffer = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&buffer, &size);
    ast_dump(ast, f);
    fclose(f);
    return kept(a, buffer, size);
}

const char *run_messages(Arena *a, Diag *d, bool json)
{
    char *buffer = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&buffer, &size);
    diag_flush(d, f, json);
    fclose(f);
    return kept(a, buffer, size);
}

const char *run_parse(Arena *a, const char *path, bool *ok)
{
    static const char *const include[] = {"include"};
    FrontOptions options = {.include_dirs = include, .ninclude_dirs = 1};
    Diag *d = diag_new(a);
    Ast *ast = parse_file(a, d, path, &options);
    *ok = ast != NULL;
    return ast ? dump(a, ast) : run_messages(a, d, false);
}

static Ast *parse_alone(Arena *a, Diag *d, const char *text, size_t size)
{
    Parser p = {.arena = a, .diag = d, .text = text, .size = size};
    p.file = diag_add_source(d, "t.mdl", text, size);
    if (!source_check(d, p.file, text, size) || !parse_text(&p))
        return NULL;
    Ast *ast = ARENA_NEW(a, Ast);
    ast->arena = a;
    for (int i = 0; i < p.items.n; i++)
        VEC_PUSH(a, &ast->items, p.items.at[i]);
    return ast;
}

const char *run_text(Arena *a, const char *text, size_t size, bool *ok)
{
    Diag *d = diag_new(a);
    Ast *ast = parse_alone(a, d, arena_strndup(a, text, size), size);
    *ok = ast != NULL;
    return ast ? dump(a, ast) : run_messages(a, d, false);
}

const char *run_dump(Arena *a, const char *text, size_t size)
{
    Ast *ast = parse_alone(a, diag_new(a), arena_strndup(a, text, size), size);
    return ast ? dump(a, ast) : NULL;
}

const char *run_format(Arena *a, const char *name, const char *text, size_t size, bool *ok)
{
    Diag *d = diag_new(a);
    const char *out = format_source(a, d, name, arena_strndup(a, text, size), size);
    *ok = out != NULL;
    return out ? out : run_messages(a, d, false);
}

char *run_slurp(Arena *a, const char *path, size_t *size)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        return NULL;
    Text t = {.arena = a};
    char buffer[4096];
    size_t n;
    text_add(&t, "");
    while ((n = fread(buffer, 1, sizeof buffer, f)) > 0)
        text_add_n(&t, buffer, n);
    fclose(f);
    *size = t.n;
    return t.at;
}
