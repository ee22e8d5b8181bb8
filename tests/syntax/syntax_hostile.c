/* syntax_hostile.c - texts that nobody writes by accident. Each must give its message, and soon. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include "ast.h"
#include "parse.h"
#include "syntax_run.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int failures;

static void expect(const char *what, const char *got, const char *wanted)
{
    if (strstr(got, wanted))
        return;
    printf("%s: expected \"%s\" in:\n%.2000s\n", what, wanted, got);
    failures++;
}

/* The text must be refused with this in the messages; NULL: must parse. */
static void check(const char *what, const char *text, size_t size, const char *wanted)
{
    Arena *a = arena_new();
    bool ok;
    const char *got = run_text(a, text, size, &ok);
    if (ok != !wanted) {
        printf("%s: %s\n%.2000s\n", what, ok ? "is accepted" : "is refused", got);
        failures++;
    } else if (wanted) {
        expect(what, got, wanted);
    }
    run_format(a, "t.mdl", text, size, &ok);
    if (ok != !wanted) {
        printf("%s: the formatter %s it\n", what, ok ? "accepts" : "refuses");
        failures++;
    }
    arena_free(a);
}

static void check_text(const char *what, const char *text, const char *wanted)
{
    check(what, text, strlen(text), wanted);
}

/* before, n times the middle, after. */
static void check_repeated(const char *what, const char *before, const char *middle, int n,
                           const char *after, const char *wanted)
{
    Arena *a = arena_new();
    Text t = {.arena = a};
    text_add(&t, before);
    for (int i = 0; i < n; i++)
        text_add(&t, middle);
    text_add(&t, after);
    check(what, t.at, t.n, wanted);
    arena_free(a);
}

static void check_depth(void)
{
    static const char deep[] = "nested too deeply";
    check_repeated("parentheses", "const a = ", "(", 100000, "", deep);
    check_repeated("brackets", "const a = ", "[", 257, "", deep);
    check_repeated("calls", "const a = ", "f(", 5000, "", deep);
    check_repeated("minus", "const a = ", "-", 200000, "1;", deep);
    check_repeated("not", "const a = ", "!", 1001, "1;", deep);
    check_repeated("sum", "const a = 1", " + 1", 100000, ";", deep);
    check_repeated("a sum that is just short enough", "const a = 1", " + 1", 998, ";", NULL);
    check_repeated("choices", "const a = ", "1 ? 1 : ", 50000, "1;", deep);
    check_repeated("members", "const a = a", ".b", 50000, ";", deep);
    check_repeated("indices", "const a = a", "[0]", 50000, ";", deep);
    check_repeated("statements", "model m { ", "if (a) { ", 300, "", deep);
    check_repeated("loops", "model m { ", "for i in 0 .. 2 { ", 254, "x = 1;", "expected '}'");
    check_repeated("else if", "model m { if (a) { }", " else if (a) { x = 1; }", 20000, " }", NULL);
    check_repeated("closers", "", "}", 100000, "", "expected an item");
    check_repeated("list", "const a = [1", ", 1", 1000000, "];", NULL);
    check_repeated("arguments", "const a = f(b = 1", ", b = 1", 100000, ");", NULL);
}

static void check_bytes(void)
{
    check("NUL", "const a = 1;\0", 13, "1:13: error: the file holds a NUL byte");
    check("NUL in a string", "const a = \"\0\";", 14, "NUL byte");
    check_text("escape", "# \033[31m", "1:3: error: the control character 0x1b");
    check_text("C1 control", "# \xc2\x9b", "control character 0x9b");
    check_text("vertical tab", "const\va = 1;", "control character 0x0b");
    check_text("lone return", "const a = 1;\rconst b = 2;", "a carriage return that does not end");
    check_text("right-to-left override", "# \xe2\x80\xae", "the invisible character U+202E");
    check_text("isolate in a string", "const a = \"\xe2\x81\xa6\";", "U+2066");
    check_text("Arabic mark", "# \xd8\x9c", "U+061C");
    check_text("line separator", "const a = \"\xe2\x80\xa8\";", "U+2028");
    check_text("tag", "# \xf3\xa0\x81\x81", "U+E0041");
    check_text("stray continuation", "# \x80", "byte 0x80 is not UTF-8");
    check_text("overlong", "# \xc0\xaf", "byte 0xc0 is not UTF-8");
    check_text("overlong of three", "# \xe0\x80\xaf", "byte 0xe0 is not UTF-8");
    check_text("surrogate", "# \xed\xa0\x80", "byte 0xed is not UTF-8");
    check_text("too large", "# \xf4\x90\x80\x80", "byte 0xf4 is not UTF-8");
    check_text("cut off", "# \xe2\x80", "byte 0xe2 is not UTF-8");
    check_text("other letters in comments", "# \xc3\xbc \xe4\xb8\xad \xf0\x9f\x9a\x80\n", NULL);
}

static void check_words(void)
{
    check_repeated("long name", "const ", "a", 1 << 20, " = 1;", "a name of 1048576 characters");
    check_repeated("long integer", "const a = ", "9", 1 << 20, ";", "too large");
    check_repeated("long real", "const a = 0.", "1", 1 << 20, ";", NULL);
    check_repeated("long string", "const a = \"", "x", 1 << 20, "\";", NULL);
    check_repeated("open string", "const a = \"", "x", 1 << 20, "", "this string has no end");
    check_repeated("long comment", "#", "x", 1 << 20, "", NULL);
    check_repeated("strays", "const a = ", "$", 1 << 20, ";", "'$' is not part of the language");
    check_repeated("spaces", "const a =", " ", 1 << 20, "1;", NULL);
    check_repeated("one line of a megabyte", "", "const a = 1; ", 80000, "b", "...");
    check_repeated("many errors", "", "const = 1;\n", 100000, "", "99980 more errors not shown");
    check_repeated("bad escapes", "const a = \"", "\\q", 100000, "\";", "'\\q' is not an escape");
    check_text("backslash at the end", "const a = \"\\", "this string has no end");
    check_text("quote at the end", "const a = \"", "this string has no end");
    check_text("import of nothing", "import ;", "expected a string");
    check_text("percent signs", "const a = %n%s%n;", "expected an expression");
}

static void write_file(const char *path, const char *text, size_t size)
{
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(text, 1, size, f) != size || fclose(f)) {
        perror(path);
        exit(2);
    }
}

static void check_file(const char *what, const char *path, const char *wanted)
{
    Arena *a = arena_new();
    bool ok;
    expect(what, run_parse(a, path, &ok), wanted);
    if (ok) {
        printf("%s: is accepted\n", what);
        failures++;
    }
    arena_free(a);
}

/* Seventy files, each importing the next, and one that is too large; in a directory of its own. */
static void check_files(void)
{
    char directory[] = "syntax_hostile_XXXXXX";
    Arena *a = arena_new();
    if (!mkdtemp(directory) || chdir(directory)) {
        perror(directory);
        exit(2);
    }
    for (int i = 0; i < 70; i++) {
        const char *text = arena_printf(a, "import \"%d.mdl\";\n", i + 1);
        write_file(arena_printf(a, "%d.mdl", i), text, strlen(text));
    }
    write_file("70.mdl", "", 0);
    check_file("chain of imports", "0.mdl",
               "63.mdl:1:8: error: imports are more than 64 files deep");

    char *large = arena_alloc(a, AST_MAX_FILE + 2);
    memset(large, '#', AST_MAX_FILE + 1);
    write_file("large.mdl", large, AST_MAX_FILE + 1);
    check_file("large file", "large.mdl", "cannot read large.mdl: it is larger than 16 MiB");
    memcpy(large, "const a = 1;", 12);
    memset(large + 12, '(', AST_MAX_FILE - 12);
    write_file("large.mdl", large, AST_MAX_FILE);
    check_file("largest file", "large.mdl", "nested too deeply");
    int errors = 500000;
    for (int i = 0; i < errors; i++)
        memcpy(large + i * 8, "const=;\n", 8);
    write_file("large.mdl", large, (size_t)errors * 8);
    check_file("half a million errors", "large.mdl", "499980 more errors not shown");

    mkdir("directory.mdl", 0700);
    mkfifo("pipe.mdl", 0600);
    write_file("pipe_import.mdl", "import \"pipe.mdl\";\nmodel m {}", 29);
    check_file("missing file", "missing.mdl", "cannot read missing.mdl: No such file");
    check_file("directory", "directory.mdl", "it is a directory");
    check_file("pipe that nobody writes", "pipe_import.mdl", "cannot find \"pipe.mdl\"");
    arena_free(a);
    for (int i = 0; i <= 70; i++) {
        char name[32];
        snprintf(name, sizeof name, "%d.mdl", i);
        unlink(name);
    }
    unlink("large.mdl");
    unlink("pipe.mdl");
    unlink("pipe_import.mdl");
    rmdir("directory.mdl");
    if (chdir("..") || rmdir(directory))
        perror(directory);
}

int main(void)
{
    check_depth();
    check_bytes();
    check_words();
    check_files();
    printf("%d failed\n", failures);
    return failures != 0;
}
