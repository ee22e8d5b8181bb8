/* syntax_golden.c - golden files: what stands beside a case says what must come out.
 *
 *   syntax_golden parse a.mdl …   a.ast: the tree; a.err: all that is printed about it
 *   syntax_golden fmt a.mdl …     a.fmt: the layout, which must itself be left alone, and
 *                                 mean the same as before
 * With UPDATE_GOLDEN set, the files are written instead of compared. */
#include "syntax_run.h"

#include <stdlib.h>
#include <string.h>

static const char *beside(Arena *a, const char *path, const char *extension)
{
    size_t n = strlen(path) - strlen(".mdl");
    return arena_printf(a, "%.*s.%s", (int)n, path, extension);
}

/* Where the two differ first, as a line number. */
static int first_difference(const char *a, const char *b)
{
    int line = 1;
    for (; *a && *a == *b; a++, b++)
        line += *a == '\n';
    return line;
}

static bool compare(Arena *a, const char *golden, const char *got)
{
    size_t size;
    if (getenv("UPDATE_GOLDEN")) {
        FILE *f = fopen(golden, "wb");
        if (!f || fputs(got, f) < 0 || fclose(f)) {
            printf("%s: cannot be written\n", golden);
            return false;
        }
        return true;
    }
    const char *want = run_slurp(a, golden, &size);
    if (!want) {
        printf("%s: is missing; this came out:\n%s", golden, got);
        return false;
    }
    if (!strcmp(want, got))
        return true;
    printf("%s:%d: differs; this came out:\n%s", golden, first_difference(want, got), got);
    return false;
}

static bool check_parse(Arena *a, const char *path)
{
    bool ok;
    const char *got = run_parse(a, path, &ok);
    size_t size;
    if (run_slurp(a, beside(a, path, ok ? "err" : "ast"), &size)) {
        printf("%s: %s\n%s", path, ok ? "was to fail" : "was to parse", got);
        return false;
    }
    return compare(a, beside(a, path, ok ? "ast" : "err"), got);
}

static bool check_format(Arena *a, const char *path)
{
    size_t size;
    const char *text = run_slurp(a, path, &size);
    bool ok = false;
    const char *once = text ? run_format(a, path, text, size, &ok) : "no such file\n";
    if (!ok) {
        printf("%s: does not format\n%s", path, once);
        return false;
    }
    const char *twice = run_format(a, path, once, strlen(once), &ok);
    if (!ok || strcmp(once, twice)) {
        printf("%s: line %d changes when it is formatted again\n%s", path,
               first_difference(once, twice), twice);
        return false;
    }
    const char *meant = run_dump(a, text, size), *means = run_dump(a, once, strlen(once));
    if (!meant || !means || strcmp(meant, means)) {
        printf("%s: formatting changes the meaning\n", path);
        return false;
    }
    return compare(a, beside(a, path, "fmt"), once);
}

int main(int argc, char **argv)
{
    int failed = 0;
    bool format = argc > 1 && !strcmp(argv[1], "fmt");
    for (int i = 2; i < argc; i++) {
        Arena *a = arena_new();
        if (!(format ? check_format(a, argv[i]) : check_parse(a, argv[i])))
            failed++;
        arena_free(a);
    }
    printf("%d of %d cases failed\n", failed, argc - 2);
    return failed || argc < 3;
}
