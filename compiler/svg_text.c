/* svg_text.c - text from a model inside XML and Graphviz.
 *
 * Names come from files that nobody has checked: every character that means something to
 * the reader of the output is spelled, and what is no character is replaced. */
#include <string.h>

#include "plan.h"

static const char replacement[] = "\xEF\xBF\xBD";

/* Bytes of the well-formed UTF-8 character at s; 0: there is none. */
static int utf8_length(const char *s)
{
    const unsigned char *u = (const unsigned char *)s;
    int n = u[0] < 0x80                   ? 1
            : u[0] >= 0xC2 && u[0] < 0xE0 ? 2
            : u[0] >= 0xE0 && u[0] < 0xF0 ? 3
            : u[0] >= 0xF0 && u[0] < 0xF5 ? 4
                                          : 0;
    for (int i = 1; i < n; i++)
        if ((u[i] & 0xC0) != 0x80)
            return 0;
    bool overlong = (u[0] == 0xE0 && u[1] < 0xA0) || (u[0] == 0xF0 && u[1] < 0x90);
    bool surrogate = u[0] == 0xED && u[1] >= 0xA0;
    bool beyond = u[0] == 0xF4 && u[1] >= 0x90;
    bool noncharacter = u[0] == 0xEF && u[1] == 0xBF && u[2] >= 0xBE;
    return overlong || surrogate || beyond || noncharacter ? 0 : n;
}

/* Directional marks could make a name read as another; they are shown as replaced. */
static bool is_hidden(const char *s, int n)
{
    const unsigned char *u = (const unsigned char *)s;
    if (n == 1)
        return u[0] < 0x20 || u[0] == 0x7F;
    if (n == 2)
        return u[0] == 0xC2 && u[1] < 0xA0;
    return n == 3 && u[0] == 0xE2 &&
           ((u[1] == 0x80 && ((u[2] >= 0x8E && u[2] <= 0x8F) || (u[2] >= 0xAA && u[2] <= 0xAE))) ||
            (u[1] == 0x81 && u[2] >= 0xA6 && u[2] <= 0xA9));
}

/* Adds one character or its replacement; returns the bytes it took from s. */
static int add_character(Text *t, const char *s)
{
    int n = utf8_length(s);
    if (n == 0 || is_hidden(s, n)) {
        text_add(t, replacement);
        return n ? n : 1;
    }
    text_add_n(t, s, (size_t)n);
    return n;
}

const char *svg_escape(Arena *a, const char *s)
{
    Text t = {.arena = a};
    text_add(&t, "");
    while (*s) {
        const char *spelled = *s == '&'    ? "&amp;"
                              : *s == '<'  ? "&lt;"
                              : *s == '>'  ? "&gt;"
                              : *s == '"'  ? "&quot;"
                              : *s == '\'' ? "&#39;"
                                           : NULL;
        if (spelled)
            text_add(&t, spelled);
        s += spelled ? 1 : add_character(&t, s);
    }
    return t.at;
}

const char *svg_escape_plain(Arena *a, const char *s)
{
    Text t = {.arena = a};
    text_add(&t, "");
    while (*s)
        s += add_character(&t, s);
    return t.at;
}

const char *dot_quote(Arena *a, const char *s)
{
    Text t = {.arena = a};
    text_add(&t, "\"");
    while (*s) {
        bool special = *s == '"' || *s == '\\';
        if (special) {
            text_add(&t, "\\");
            text_add_n(&t, s, 1);
        }
        s += special ? 1 : add_character(&t, s);
    }
    text_add(&t, "\"");
    return t.at;
}

int svg_length(const char *s)
{
    int n = 0;
    for (; *s; n++) {
        int bytes = utf8_length(s);
        s += bytes ? bytes : 1;
    }
    return n;
}

const char *svg_shorten(Arena *a, const char *s, int n)
{
    int length = svg_length(s);
    if (length <= n || n < 3)
        return s;
    int head = n / 2, tail = n - head - 1, i = 0;
    const char *from = s;
    Text t = {.arena = a};
    for (; *s; i++) {
        int bytes = utf8_length(s);
        s += bytes ? bytes : 1;
        if (i + 1 == head) {
            text_add_n(&t, from, (size_t)(s - from));
            text_add(&t, "\xE2\x80\xA6");
        }
        if (i + 1 == length - tail)
            from = s;
    }
    text_add(&t, from);
    return t.at;
}
