/* diag.c - collects what the compiler has to say.
 *
 * In: errors, warnings, and the notes and helps that belong to them. Out: a list of messages that
 * diag_print.c writes. Nothing is sorted. Past the limit messages are counted, with what belongs
 * to them, and not even formatted: hostile input makes millions. */
#include "diag_list.h"

#include <string.h>

Diag *diag_new(Arena *a)
{
    Diag *d = ARENA_NEW(a, Diag);
    d->arena = a;
    return d;
}

int diag_add_source(Diag *d, const char *name, const char *text, size_t size)
{
    VEC_PUSH(d->arena, &d->sources, (Source){.name = name, .text = text, .size = size});
    return d->sources.n - 1;
}

const Source *diag_source(const Diag *d, int file)
{
    return file >= 0 && file < d->sources.n ? &d->sources.at[file] : NULL;
}

static const char *format_text(Diag *d, const char *format, va_list args)
{
    va_list again;
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, again);
    va_end(again);
    char *text = ARENA_ARRAY(d->arena, char, (n < 0 ? 0 : n) + 1);
    vsnprintf(text, (size_t)(n < 0 ? 0 : n) + 1, format, args);
    return text;
}

static void head(Diag *d, Severity severity, Place at, const char *format, va_list args)
{
    int *count = &d->count[severity];
    d->dropping = *count >= DIAG_MAX_ERRORS;
    if (*count < INT32_MAX)
        ++*count;
    if (!d->dropping)
        VEC_PUSH(d->arena, &d->messages,
                 (Message){.severity = severity, .at = at, .text = format_text(d, format, args)});
}

static void part(Diag *d, Severity severity, Place at, const char *format, va_list args)
{
    if (!d->dropping)
        VEC_PUSH(d->arena, &d->messages,
                 (Message){.severity = severity, .at = at, .text = format_text(d, format, args)});
}

void diag_error(Diag *d, Place at, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    head(d, SEVERITY_ERROR, at, format, args);
    va_end(args);
}

void diag_warning(Diag *d, Place at, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    head(d, SEVERITY_WARNING, at, format, args);
    va_end(args);
}

void diag_note(Diag *d, Place at, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    part(d, SEVERITY_NOTE, at, format, args);
    va_end(args);
}

void diag_help(Diag *d, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    part(d, SEVERITY_HELP, NO_PLACE, format, args);
    va_end(args);
}

int diag_errors(const Diag *d)
{
    return d->count[SEVERITY_ERROR];
}

/* Nearest word */

enum { MAX_WORD = 64 };

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static int least(int a, int b)
{
    return a < b ? a : b;
}

/* Damerau-Levenshtein, each pair of letters swapped at most once; letter case is free. */
static int edit_distance(const char *a, const char *b)
{
    int na = (int)strlen(a), nb = (int)strlen(b);
    int rows[3][MAX_WORD + 1];
    for (int j = 0; j <= nb; j++)
        rows[0][j] = j;
    for (int i = 1; i <= na; i++) {
        const int *above = rows[(i - 1) % 3], *above2 = rows[(i + 1) % 3];
        int *row = rows[i % 3];
        row[0] = i;
        for (int j = 1; j <= nb; j++) {
            char x = lower(a[i - 1]), y = lower(b[j - 1]);
            row[j] = least(least(above[j], row[j - 1]) + 1, above[j - 1] + (x != y));
            if (i > 1 && j > 1 && x == lower(b[j - 2]) && lower(a[i - 2]) == y)
                row[j] = least(row[j], above2[j - 2] + 1);
        }
    }
    return rows[na % 3][nb];
}

const char *diag_nearest(const char *word, const char *const *candidates, int n)
{
    size_t length = strlen(word);
    const char *best = NULL;
    if (length > MAX_WORD)
        return NULL;
    int limit = (int)(length + 1) / 3 + 1; /* the first distance that is too far */
    for (int i = 0; i < n; i++) {
        if (strlen(candidates[i]) > MAX_WORD)
            continue;
        int distance = edit_distance(word, candidates[i]);
        if (distance < limit) {
            limit = distance;
            best = candidates[i];
        }
    }
    return best;
}
