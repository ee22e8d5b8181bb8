/* diag_print.c - messages as people read them: the place, the line, a caret under it.
 *
 * Tabs become spaces up to the next multiple of 4, characters that a terminal would obey become
 * escapes, and of a long line only the surroundings of the caret are shown. The underline counts
 * what is printed, so it stays under the text that it means. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include "diag_list.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TAB = 4, MAX_SHOWN = 96, CONTEXT = 40, MAX_MESSAGE = 4000 };

typedef struct {
    FILE *to;
    bool color;
} Printer;

const char *severity_name(Severity s)
{
    static const char *const names[] = {"error", "warning", "note", "help"};
    return names[s];
}

static const char *color_of(const Printer *p, Severity s)
{
    static const char *const colors[] = {"\033[1;31m", "\033[1;35m", "\033[1;36m", "\033[1;32m"};
    return p->color ? colors[s] : "";
}

/* The character at s as printed; its bytes in *length, its columns as the result. */
static int add_char(Text *t, const char *s, size_t left, int *length)
{
    int32_t c = utf8_decode(s, left, length);
    size_t before = t->n;
    if (c < 0)
        text_printf(t, "\\x%02x", (unsigned char)*s);
    else if (c < 0x80 && char_is_unsafe(c))
        text_printf(t, "\\x%02x", (unsigned)c);
    else if (char_is_unsafe(c))
        text_printf(t, "\\u{%04x}", (unsigned)c);
    else {
        text_add_n(t, s, (size_t)*length);
        return 1;
    }
    return (int)(t->n - before);
}

void text_add_safe(Text *t, const char *s, size_t n)
{
    text_add(t, "");
    for (size_t i = 0; i < n;) {
        int length = 1;
        if (s[i] == '\n')
            text_add(t, "\n");
        else
            add_char(t, s + i, n - i, &length);
        i += (size_t)length;
    }
}

static const char *safe(Diag *d, const char *s)
{
    Text t = {.arena = d->arena};
    size_t n = strlen(s);
    text_add_safe(&t, s, n > MAX_MESSAGE ? MAX_MESSAGE : n);
    if (n > MAX_MESSAGE)
        text_add(&t, "...");
    return t.at;
}

/* Line number `line` of the file; NULL where there is none. */
static const char *find_line(const Source *source, int line, size_t *length)
{
    const char *s = source->text, *end = source->text + source->size;
    for (int i = 1; i < line; i++) {
        s = memchr(s, '\n', (size_t)(end - s));
        if (!s)
            return NULL;
        s++;
    }
    const char *stop = memchr(s, '\n', (size_t)(end - s));
    *length = (size_t)((stop ? stop : end) - s);
    if (*length && s[*length - 1] == '\r')
        --*length;
    return s;
}

static bool inside_char(const char *s, size_t i, size_t length)
{
    return i < length && ((unsigned char)s[i] & 0xc0) == 0x80;
}

typedef struct {
    Text text;
    int columns;
    int from, to; /* columns of the underline */
} Shown;

/* line[start … stop) as printed, and where the bytes [from, to) of the line come to stand. */
static void render(Shown *out, const char *line, size_t start, size_t stop, size_t from, size_t to)
{
    out->from = out->to = -1;
    for (size_t i = start; i < stop;) {
        int length = 1;
        if (i >= from && out->from < 0)
            out->from = out->columns;
        if (i >= to && out->to < 0)
            out->to = out->columns;
        if (line[i] == '\t') {
            int spaces = TAB - out->columns % TAB;
            text_printf(&out->text, "%*s", spaces, "");
            out->columns += spaces;
        } else {
            out->columns += add_char(&out->text, line + i, stop - i, &length);
        }
        i += (size_t)length;
    }
    if (out->from < 0)
        out->from = out->columns;
    if (out->to < 0)
        out->to = out->columns;
}

static void print_snippet(const Printer *p, Diag *d, Place at)
{
    const Source *source = diag_source(d, at.file);
    size_t length;
    const char *line = source && at.line > 0 ? find_line(source, at.line, &length) : NULL;
    if (!line || !length)
        return;
    size_t from = at.col > 0 ? (size_t)at.col - 1 : 0;
    from = from > length ? length : from;
    size_t to = at.len > 0 ? from + (size_t)at.len : from + 1;
    size_t start = 0, stop = length;
    if (length > MAX_SHOWN) {
        start = from > CONTEXT ? from - CONTEXT : 0;
        stop = start + MAX_SHOWN < length ? start + MAX_SHOWN : length;
        while (start && inside_char(line, start, length))
            start--;
        while (inside_char(line, stop, length))
            stop++;
    }
    Shown shown = {.text = {.arena = d->arena}};
    text_add(&shown.text, "");
    if (start) {
        text_add(&shown.text, "...");
        shown.columns = 3;
    }
    render(&shown, line, start, stop, from, to);
    int gutter = fprintf(p->to, "%5d ", at.line);
    fprintf(p->to, "| %s%s\n", shown.text.at, stop < length ? "..." : "");
    fprintf(p->to, "%*s| %*s%s^", gutter, "", shown.from, "", color_of(p, SEVERITY_HELP));
    for (int i = shown.from + 1; i < shown.to; i++)
        fputc('~', p->to);
    fprintf(p->to, "%s\n", p->color ? "\033[0m" : "");
}

static void print_message(const Printer *p, Diag *d, const Message *m)
{
    const Source *source = diag_source(d, m->at.file);
    const char *bold = p->color ? "\033[1m" : "", *plain = p->color ? "\033[0m" : "";
    if (source)
        fprintf(p->to, "%s%s:%d:%d: ", bold, safe(d, source->name), m->at.line, m->at.col);
    else if (m->severity < SEVERITY_NOTE)
        fprintf(p->to, "%smdlc: ", bold);
    bool strong = m->severity < SEVERITY_NOTE;
    fprintf(p->to, "%s%s:%s %s%s%s\n", color_of(p, m->severity), severity_name(m->severity), plain,
            strong ? bold : "", safe(d, m->text), strong ? plain : "");
    if (source)
        print_snippet(p, d, m->at);
}

const char *diag_closing_line(Diag *d, Severity s)
{
    int more = d->count[s] - DIAG_MAX_ERRORS - d->told[s];
    if (more <= 0)
        return NULL;
    d->told[s] += more;
    return arena_printf(d->arena, "%d more %s%s not shown", more, severity_name(s),
                        more == 1 ? "" : "s");
}

void diag_flush(Diag *d, FILE *to, bool json)
{
    if (json) {
        diag_write_json(d, to);
        return;
    }
    int fd = fileno(to);
    Printer p = {.to = to, .color = fd >= 0 && isatty(fd) && !getenv("NO_COLOR")};
    for (; d->flushed < d->messages.n; d->flushed++)
        print_message(&p, d, &d->messages.at[d->flushed]);
    for (Severity s = SEVERITY_ERROR; s <= SEVERITY_WARNING; s++) {
        const char *closing = diag_closing_line(d, s);
        if (closing)
            fprintf(to, "%s\n", closing);
    }
    fflush(to);
}
