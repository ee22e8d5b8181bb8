/* test_hostile.c - PTX that is cut off or damaged: an error or a translation, nothing else.
 *
 *     test_hostile CUTS CHANGES FILE ...
 *
 * Long chains come first. Then each file is cut at CUTS places and changed CHANGES times: bytes,
 * tokens, whole lines. The copies are exactly as long as they say. This program is always built
 * with sanitizers, which end it at the first step outside of memory; alarm() ends it when something
 * does not return.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ptx.h"
#include "translate.h"

static uint64_t state = 0x9E3779B97F4A7C15u;
static uint64_t random_below(uint64_t n)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state % n;
}

static int parsed, refused;

static void translate(const char *text, size_t size)
{
    PtxModule module;
    alarm(20);
    if (ptx_parse(&module, text, size)) {
        for (uint32_t i = 0; i < module.nfunctions; i++) {
            TranslatedKernel kernel;
            if (!module.functions[i].entry || !module.functions[i].defined)
                continue;
            if (!translate_kernel(&module, i, &kernel)) {
                printf("a kernel is not translated\n");
                exit(1);
            }
            translate_free(&kernel);
        }
        parsed++;
    } else {
        if (strncmp(module.error, "line ", 5) != 0) {
            printf("an error without a line: \"%s\"\n", module.error);
            exit(1);
        }
        refused++;
    }
    ptx_free(&module);
}

static void translate_copy(const char *text, size_t size)
{
    char *copy = malloc(size ? size : 1);
    if (!copy)
        exit(1);
    memcpy(copy, text, size);
    translate(copy, size);
    free(copy);
}

/* Long chains: what a thing that calls itself for each of them would not survive. */
static void translate_deep(int pointers, int calls)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        exit(1);
    fputs(".version 9.0\n.target sm_80\n.address_size 64\n.visible .entry p(.param .u64", out);
    for (int i = 0; i < pointers; i++)
        fputs(".ptr", out);
    fputs(" p_p)\n{ ret; }\n.func f0()\n{ ret; }\n", out);
    for (int i = 1; i < calls; i++)
        fprintf(out, ".func f%d()\n{ call f%d; ret; }\n", i, i - 1);
    fprintf(out, ".visible .entry k()\n{ call f%d; ret; }\n", calls - 1);
    if (fclose(out) != 0)
        exit(1);
    const int before = parsed;
    translate(text, size);
    free(text);
    if (parsed == before) {
        printf("chains of %d and %d are refused\n", pointers, calls);
        exit(1);
    }
}

/* Numbers, words and marks that mean something, where they do not belong. */
static const char *const WORDS[] = {"4294967295", "18446744073709551615",
                                    "-1",         "0",
                                    "{",          "}",
                                    "(",          ")",
                                    "[",          "]",
                                    ";",          ",",
                                    "|",          "<",
                                    ">",          ":",
                                    "%r1",        "%p1",
                                    "%rd1",       "%f1",
                                    ".reg",       ".param",
                                    ".b8",        ".align",
                                    ".shared",    ".f32",
                                    ".v4",        ".u64",
                                    "call",       "bra",
                                    "ret",        "@%p1",
                                    "!",          "0f3F800000",
                                    "\"",         "/*",
                                    "_",          ".branchtargets",
                                    ".entry",     ".func",
                                    ".loc",       ".file",
                                    "1048577",    ".local",
                                    "cp.async",   "%r",
                                    ".m16n8k16",  ".x4",
                                    ".bf16",      ".tf32"};

static void change(char *text, size_t *size, size_t room)
{
    const size_t at = random_below(*size);
    const uint64_t kind = random_below(4);
    if (kind == 0) {
        text[at] = (char)random_below(256);
    } else if (kind == 1) {
        const size_t other = random_below(*size), n = random_below(40);
        if (at + n < *size && other + n < *size)
            memmove(text + at, text + other, n);
    } else if (kind == 2) {
        const char *word = WORDS[random_below(sizeof WORDS / sizeof *WORDS)];
        const size_t n = strlen(word);
        if (*size + n + 2 < room) {
            memmove(text + at + n + 2, text + at, *size - at);
            text[at] = ' ';
            memcpy(text + at + 1, word, n);
            text[at + n + 1] = ' ';
            *size += n + 2;
        }
    } else {
        const size_t n = random_below(60);
        if (at + n < *size) {
            memmove(text + at, text + at + n, *size - at - n);
            *size -= n;
        }
    }
}

static char *read_file(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    char *text = malloc(1 << 22);
    if (!file || !text) {
        perror(path);
        exit(1);
    }
    *size = fread(text, 1, 1 << 22, file);
    fclose(file);
    return text;
}

int main(int argc, char **argv)
{
    if (argc < 4)
        return 2;
    const size_t cuts = strtoul(argv[1], NULL, 10), changes = strtoul(argv[2], NULL, 10);
    translate_deep(1000000, 2000);
    for (int i = 3; i < argc; i++) {
        size_t size;
        char *text = read_file(argv[i], &size);
        for (size_t k = 0; k <= cuts; k++)
            translate_copy(text, size * k / cuts);
        const size_t room = size + 4096;
        char *copy = malloc(room);
        if (!copy)
            return 1;
        for (size_t k = 0; k < changes; k++) {
            size_t length = size;
            memcpy(copy, text, size);
            for (uint64_t n = 1 + random_below(4); n > 0; n--)
                change(copy, &length, room);
            translate_copy(copy, length);
        }
        free(copy);
        free(text);
    }
    printf("%d translated, %d refused\n", parsed, refused);
    return parsed == 0 || refused == 0;
}
