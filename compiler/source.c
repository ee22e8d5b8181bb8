/* source.c - reads a source file and refuses text that is not what it seems.
 *
 * Accepted: UTF-8 with \n or \r\n line ends; a byte order mark in front is dropped. Refused: NUL
 * and other control bytes, malformed UTF-8, and the invisible characters with which text can be
 * made to look different from what the compiler reads. */
#include "parse.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static char *read_stream(Arena *a, FILE *f, size_t *size, const char **why)
{
    Text t = {.arena = a};
    char buffer[1 << 14];
    size_t n;
    text_add(&t, "");
    while ((n = fread(buffer, 1, sizeof buffer, f)) > 0) {
        if (t.n + n > AST_MAX_FILE) {
            *why = "it is larger than 16 MiB";
            return NULL;
        }
        text_add_n(&t, buffer, n);
    }
    if (ferror(f)) {
        *why = strerror(errno);
        return NULL;
    }
    if (t.n >= 3 && !memcmp(t.at, "\xef\xbb\xbf", 3)) {
        t.at += 3;
        t.n -= 3;
    }
    *size = t.n;
    return t.at;
}

char *source_read(Arena *a, const char *path, size_t *size, const char **why)
{
    if (!strcmp(path, "-"))
        return read_stream(a, stdin, size, why);
    struct stat st;
    FILE *f = NULL;
    if (stat(path, &st) || (!S_ISDIR(st.st_mode) && !(f = fopen(path, "rb")))) {
        *why = strerror(errno);
        return NULL;
    }
    if (!f) {
        *why = "it is a directory";
        return NULL;
    }
    char *text = read_stream(a, f, size, why);
    fclose(f);
    return text;
}

static void report(Diag *d, Place at, int32_t c, unsigned char byte)
{
    if (c < 0) {
        diag_error(d, at, "byte 0x%02x is not UTF-8 text", byte);
        diag_help(d, "save the file as UTF-8");
    } else if (c == 0) {
        diag_error(d, at, "the file holds a NUL byte");
        diag_help(d, "this does not look like a text file");
    } else if (c == '\r') {
        diag_error(d, at, "a carriage return that does not end a line");
    } else if (c < 0xa0) {
        diag_error(d, at, "the control character 0x%02x is not allowed", (unsigned)c);
    } else {
        diag_error(d, at, "the invisible character U+%04X is not allowed", (unsigned)c);
        diag_help(d, "such characters can make a file look different from what it says");
    }
}

bool source_check(Diag *d, int file, const char *text, size_t size)
{
    int errors = diag_errors(d);
    Place at = {.file = file, .line = 1, .col = 1, .len = 1};
    for (size_t i = 0; i < size;) {
        int length;
        int32_t c = utf8_decode(text + i, size - i, &length);
        bool line_end = c == '\r' && i + 1 < size && text[i + 1] == '\n';
        if (c != '\n' && c != '\t' && !line_end && (c < 0 || char_is_unsafe(c))) {
            at.len = length;
            report(d, at, c, (unsigned char)text[i]);
            if (diag_errors(d) - errors >= 3)
                return false; /* more of the same helps nobody */
        }
        i += (size_t)length;
        at.col += length;
        if (c == '\n') {
            at.line++;
            at.col = 1;
        }
    }
    return diag_errors(d) == errors;
}
