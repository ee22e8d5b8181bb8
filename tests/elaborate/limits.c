/* limits.c - models that would take for ever, or all of the stack, end with a message.
 *
 * Each case is a generated text and words that its first error must hold. */
#include "base.h"
#include "diag.h"
#include "settings.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char tail[] = "model m {\n    input x : f32[4];\n    target y : f32[4];\n"
                           "    a = linear(%s, 4);\n    loss mse(a, y);\n}\n";

/* const c0 = c1 + 1, c1 = c2 + 1, … */
static void long_chain_of_constants(Text *t, int n)
{
    for (int i = 0; i < n; i++)
        text_printf(t, "const c%d = c%d + 1;\n", i, i + 1);
    text_printf(t, "const c%d = 1;\n", n);
    text_printf(t, tail, "x * c0");
}

/* block b0(x) { return b1(x); } … */
static void deep_blocks(Text *t, int n)
{
    for (int i = 0; i < n; i++)
        text_printf(t, "block b%d(x) { return b%d(x) as l; }\n", i, i + 1);
    text_printf(t, "block b%d(x) { return relu(x); }\n", n);
    text_printf(t, tail, "b0(x)");
}

/* As deep_blocks, each call inside as many brackets as the grammar takes. */
static void deep_blocks_of_deep_calls(Text *t, int n)
{
    for (int i = 0; i < n; i++) {
        text_printf(t, "block b%d(x) { return ", i);
        for (int k = 0; k < 200; k++)
            text_add(t, "relu(");
        text_printf(t, "b%d(x)", i + 1);
        for (int k = 0; k < 200; k++)
            text_add(t, ")");
        text_add(t, "; }\n");
    }
    text_printf(t, "block b%d(x) { return relu(x); }\n", n);
    text_printf(t, tail, "b0(x)");
}

/* Each block calls the next twice: 2^n calls. */
static void doubling_blocks(Text *t, int n)
{
    for (int i = 0; i < n; i++)
        text_printf(t, "block b%d(x) { return b%d(x) + b%d(x); }\n", i, i + 1, i + 1);
    text_printf(t, "block b%d(x) { return x; }\n", n);
    text_printf(t, tail, "b0(x)");
}

/* A layer's path grows with every block around it. */
static void long_paths(Text *t, int n)
{
    char name[101];
    memset(name, 'n', 100);
    name[100] = 0;
    for (int i = 0; i < n; i++)
        text_printf(t, "block b%d(x) { return b%d(x) as %s; }\n", i, i + 1, name);
    text_printf(t, "block b%d(x) { return linear(x, 4); }\n", n);
    text_printf(t, tail, "b0(x)");
}

/* reshape of reshape of …, as ids of an embedding: limits walk back through them all. */
static void long_chain_of_integers(Text *t, int n)
{
    text_add(t, "model m {\n    input x : i32[4];\n    target y : f32[4, 3];\n");
    text_printf(t, "    for i in 0 .. %d { x = concat(x, x); x = slice(x, 0, 0, 4); }\n", n);
    text_add(t, "    a = embedding(x, 7, 3);\n    loss mse(a, y);\n}\n");
}

/* The words of the first error; "" where the model is right; NULL after an I/O error. */
static const char *first_error(Arena *a, const char *text)
{
    FILE *f = fopen("limits.mdl", "wb");
    if (!f || fputs(text, f) < 0 || fclose(f) != 0)
        return NULL;
    Diag *d = diag_new(a);
    FrontOptions o = {0};
    struct Ast *ast = parse_file(a, d, "limits.mdl", &o);
    Model *m = ast ? elaborate(a, d, ast, &o) : NULL;
    char *said = NULL;
    size_t size = 0;
    FILE *to = open_memstream(&said, &size);
    if (!to)
        return NULL;
    diag_flush(d, to, false);
    if (fclose(to) != 0)
        return NULL;
    char *line = arena_strndup(a, said, strcspn(said, "\n"));
    free(said);
    return m ? "" : line;
}

typedef struct {
    const char *name;
    void (*make)(Text *t, int n);
    int n;
    const char *words; /* "": the model is right */
} Case;

static const Case cases[] = {
    {"constants", long_chain_of_constants, 300, ""},
    {"long chain of constants", long_chain_of_constants, 100000, "nested too deep"},
    {"blocks", deep_blocks, 200, ""},
    {"deep blocks", deep_blocks, 300, "nested more than 256 deep"},
    {"deep blocks of deep calls", deep_blocks_of_deep_calls, 100, "nested too deep"},
    {"doubling blocks", doubling_blocks, 60, "more than 1000000 turns"},
    {"long paths", long_paths, 20, "path is longer than 1000 bytes"},
    {"long chain of integers", long_chain_of_integers, 20000, ""},
};

int main(void)
{
    char directory[] = "/tmp/elaborate.XXXXXX";
    if (!mkdtemp(directory) || chdir(directory) != 0)
        return 2;
    int wrong = 0;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const Case *c = &cases[i];
        Arena *a = arena_new();
        Text t = {.arena = a};
        c->make(&t, c->n);
        const char *said = first_error(a, t.at);
        if (!said || (*c->words ? !strstr(said, c->words) : *said)) {
            fprintf(stderr, "%s: expected \"%s\", got \"%s\"\n", c->name, c->words,
                    said ? said : "an I/O error");
            wrong++;
        }
        arena_free(a);
    }
    unlink("limits.mdl");
    rmdir(directory);
    return wrong ? 1 : 0;
}
