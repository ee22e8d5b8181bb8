/* syntax_fuzz.c - valid files, damaged at random (always the same way), parsed and formatted.
 *
 * What must hold: nothing crashes; a text that parses also formats, formatting keeps its tree, and
 * formatting again changes nothing; a text that is refused is refused by both, with a
 * message. Arguments: the files; FUZZ_ROUNDS in the environment sets how often. */
#include "syntax_run.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_SIZE = 1 << 16 };

static uint64_t random_state = 0x9e3779b97f4a7c15u;

static size_t random_below(size_t n)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return n ? (size_t)(random_state % n) : 0;
}

/* A piece that is likely one token, or a few. */
static size_t random_piece(const char *text, size_t size, size_t *start)
{
    *start = random_below(size);
    size_t n = 1 + random_below(3) * random_below(12);
    while (*start > 0 && text[*start] != ' ' && text[*start - 1] != ' ' && n < 30) {
        --*start;
        n++;
    }
    return *start + n > size ? size - *start : n;
}

static size_t splice(char *text, size_t size, size_t at, size_t removed, const char *with, size_t n)
{
    if (size - removed + n > MAX_SIZE)
        return size;
    memmove(text + at + n, text + at + removed, size - at - removed);
    memcpy(text + at, with, n);
    return size - removed + n;
}

static size_t mutate(char *text, size_t size)
{
    static const char *const words[] = {
        "{",    "}",    "(",      ")",      "[",  "]",   ";",  ",",       "=",   "-",
        "!",    "?",    ":",      "..",     ".",  "@",   "as", "in",      "for", "if",
        "else", "loss", "1f1b",   "80 GiB", "0",  "1e9", "\"", "\\",      "#",   "\n",
        "\r\n", "\t",   "import", "weight", "==", "&&",  "% ", "\xc3\xbc"};
    size_t start, n = random_piece(text, size, &start);
    char copy[64];
    const char *word = words[random_below(sizeof words / sizeof *words)];
    switch (random_below(5)) {
    case 0:
        if (size)
            text[start] = (char)(text[start] ^ (char)(1 << random_below(8)));
        return size;
    case 1:
        return splice(text, size, start, n, "", 0);
    case 2:
        n = n > sizeof copy ? sizeof copy : n;
        memcpy(copy, text + start, n);
        return splice(text, size, random_below(size + 1), 0, copy, n);
    case 3:
        return splice(text, size, start, n, word, strlen(word));
    default:
        return splice(text, size, start, 0, word, strlen(word));
    }
}

static const char *check(const char *text, size_t size, int *accepted)
{
    Arena *a = arena_new();
    const char *wrong = NULL;
    bool parsed, formatted, again;
    const char *tree = run_text(a, text, size, &parsed);
    const char *once = run_format(a, "t.mdl", text, size, &formatted);
    if (parsed != formatted)
        wrong = "parser and formatter disagree";
    else if (!parsed && (!strstr(tree, "error: ") || !strstr(once, "error: ")))
        wrong = "refused without a message";
    if (parsed && formatted) {
        ++*accepted;
        const char *twice = run_format(a, "t.mdl", once, strlen(once), &again);
        const char *kept = run_dump(a, once, strlen(once));
        if (!again || strcmp(once, twice))
            wrong = "formatting again changes the text";
        else if (!kept || strcmp(kept, tree))
            wrong = "formatting changes the tree";
    }
    arena_free(a);
    return wrong;
}

int main(int argc, char **argv)
{
    const char *wanted = getenv("FUZZ_ROUNDS");
    int rounds = wanted ? atoi(wanted) : 6000, accepted = 0;
    Arena *a = arena_new();
    char *text = arena_alloc(a, MAX_SIZE + 64);
    for (int i = 0; i < rounds; i++) {
        size_t size;
        const char *original = argc > 1 ? run_slurp(a, argv[1 + i % (argc - 1)], &size) : NULL;
        if (!original || size > MAX_SIZE) {
            printf("no usable file to start from\n");
            return 2;
        }
        memcpy(text, original, size);
        for (size_t n = random_below(6); n > 0 && size > 0; n--)
            size = mutate(text, size);
        const char *wrong = check(text, size, &accepted);
        if (wrong) {
            printf("round %d: %s:\n%.*s\n", i, wrong, (int)size, text);
            return 1;
        }
    }
    arena_free(a);
    printf("%d rounds, %d accepted\n", rounds, accepted);
    return accepted < rounds / 20; /* damage that nothing survives tests nothing */
}
