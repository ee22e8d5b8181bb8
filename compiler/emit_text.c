/* emit_text.c - lines, calls and names of generated C.
 *
 * Everything that comes out of a model's text goes through emit_comment_text,
 * emit_string, or was made an identifier by lower.c; nothing else is printed. */
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "emit.h"

enum { COLUMNS = 100 };

static void indent(Emit *e)
{
    for (int i = 0; i < e->indent; i++)
        text_add(e->out, "    ");
}

static const char *format_all(Arena *a, const char *format, va_list args)
{
    va_list again;
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, again);
    va_end(again);
    char *s = arena_alloc(a, (size_t)(n < 0 ? 0 : n) + 1);
    vsnprintf(s, (size_t)(n < 0 ? 0 : n) + 1, format, args);
    return s;
}

void emit_line(Emit *e, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    const char *line = format_all(e->arena, format, args);
    va_end(args);
    indent(e);
    text_printf(e->out, "%s\n", line);
}

void emit_blank(Emit *e)
{
    text_add(e->out, "\n");
}

void emit_open(Emit *e, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    emit_line(e, "%s", format_all(e->arena, format, args));
    va_end(args);
    emit_line(e, "{");
    e->indent++;
}

void emit_close(Emit *e)
{
    e->indent--;
    emit_line(e, "}");
}

const char *emit_comment_text(Arena *a, const char *s)
{
    Text t = {.arena = a};
    text_add(&t, "");
    for (; *s && t.n < 76; s++) {
        unsigned char c = (unsigned char)*s;
        char before = t.n ? t.at[t.n - 1] : ' ';
        if ((before == '*' && c == '/') || (before == '/' && c == '*') ||
            (before == '?' && c == '?'))
            text_add(&t, " ");
        char safe = (char)(c == '\t' ? ' ' : c < 32 || c > 126 || c == '\\' ? '?' : c);
        if (safe == '?' && t.n && t.at[t.n - 1] == '?')
            text_add(&t, " ");
        text_add_n(&t, &safe, 1);
    }
    if (*s)
        text_add(&t, " ...");
    return t.at;
}

const char *emit_string(Arena *a, const char *s)
{
    Text t = {.arena = a};
    text_add(&t, "\"");
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\' || c == '?')
            text_printf(&t, "\\%c", c);
        else if (c < 32 || c > 126)
            text_printf(&t, "\\%03o", c);
        else
            text_add_n(&t, s, 1);
    }
    text_add(&t, "\"");
    return t.at;
}

void emit_source_comment(Emit *e, Place at)
{
    const Source *s = at.file >= 0 ? diag_source(e->diag, at.file) : NULL;
    if (!s || (at.file == e->last_file && at.line == e->last_line))
        return;
    e->last_file = at.file;
    e->last_line = at.line;
    const char *line = s->text;
    for (int n = 1; n < at.line; n++) {
        const char *next = strchr(line, '\n');
        if (!next)
            return;
        line = next + 1;
    }
    while (*line == ' ' || *line == '\t')
        line++;
    size_t n = strcspn(line, "\r\n");
    while (n > 0 && isspace((unsigned char)line[n - 1]))
        n--;
    const char *slash = strrchr(s->name, '/');
    const char *text = emit_comment_text(e->arena, arena_strndup(e->arena, line, n));
    const char *name = emit_comment_text(e->arena, slash ? slash + 1 : s->name);
    const char *head = arena_printf(e->arena, "%.40s:%d", name, at.line);
    int room = COLUMNS - 4 * e->indent - (int)strlen(head) - 8;
    bool cut = (int)strlen(text) > room;
    emit_line(e, "/* %s  %.*s%s */", head, cut ? room - 4 : room, text, cut ? " ..." : "");
}

/* ----------------------------------------------------------------------- calls */

void emit_call(Emit *e, const char *name)
{
    e->call = (Text){.arena = e->arena};
    text_printf(&e->call, "%s(", name);
    e->args = 0;
}

void emit_arg(Emit *e, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    const char *arg = format_all(e->arena, format, args);
    va_end(args);
    /* a newline separates arguments until the call is wrapped */
    text_printf(&e->call, "%s%s", e->args++ ? ",\n" : "", arg);
}

void emit_arg_ref(Emit *e, const Ref *r)
{
    emit_arg(e, "%s", emit_ref(e, r));
}

void emit_arg_count(Emit *e, bool batched, int64_t each)
{
    emit_arg(e, "%s", emit_count(e, batched, each));
}

void emit_end(Emit *e, const char *before, const char *after)
{
    const char *s = e->call.at, *paren = strchr(s, '(');
    size_t hang = (size_t)e->indent * 4 + strlen(before) + (size_t)(paren - s) + 1;
    size_t column = hang, longest = 0;
    for (const char *arg = paren + 1; *arg; arg += strcspn(arg, "\n") + (strchr(arg, '\n') != NULL))
        longest = strcspn(arg, "\n") > longest ? strcspn(arg, "\n") : longest;
    indent(e);
    text_printf(e->out, "%s%.*s", before, (int)(paren - s) + 1, s);
    if (hang + longest + strlen(after) + 1 > COLUMNS) { /* no room behind the parenthesis */
        hang = column = (size_t)e->indent * 4 + 8;
        text_printf(e->out, "\n%*s", (int)hang, "");
    }
    for (s = paren + 1; *s;) {
        size_t n = strcspn(s, "\n");
        bool last = s[n] == 0;
        size_t need = n + (last ? strlen(after) + 1 : 0);
        if (s != paren + 1) {
            if (column + 1 + need > COLUMNS) {
                text_printf(e->out, "\n%*s", (int)hang, "");
                column = hang;
            } else {
                text_add(e->out, " ");
                column++;
            }
        }
        text_add_n(e->out, s, n);
        column += n;
        s += n + !last;
    }
    text_printf(e->out, ")%s\n", after);
}

void emit_kernel(Emit *e, const char *name)
{
    emit_call(e, e->gpu ? arena_printf(e->arena, "gpu_%s", name) : name);
    emit_arg(e, e->gpu ? "s->gpu" : "s->team");
}

void emit_kernel_end(Emit *e)
{
    emit_end(e, e->gpu ? "KERNEL(" : "", e->gpu ? ");" : ";");
}

/* ----------------------------------------------------------------------- names */

const char *emit_ctype(const Emit *e, Dtype t)
{
    return t == DT_I32 ? "int32_t" : t == DT_U8 ? "uint8_t" : dtype_is_half(t) ? "half16" : e->real;
}

const char *emit_half_kind(Dtype t)
{
    return t == DT_BF16 ? "HALF_BF16" : "HALF_F16";
}

const char *emit_shortest(Emit *e, double x, int most)
{
    for (int digits = 1; digits < most; digits++) {
        char *s = arena_printf(e->arena, "%.*g", digits, x);
        double back = strtod(s, NULL);
        if (most <= 9 ? (float)back - (float)x == 0 : back - x == 0)
            return s;
    }
    return arena_printf(e->arena, "%.*g", most, x);
}

const char *emit_number(Emit *e, double x)
{
    bool is_float = e->p->real_size == 4;
    if (isinf(x))
        return x > 0 ? "INFINITY" : "-INFINITY";
    if (isnan(x))
        return "NAN";
    const char *s = emit_shortest(e, x, is_float ? 9 : 17);
    const char *point = strpbrk(s, ".e") ? "" : ".0";
    return arena_printf(e->arena, x < 0 ? "(%s%s%s)" : "%s%s%s", s, point, is_float ? "f" : "");
}

const char *emit_count(Emit *e, bool batched, int64_t each)
{
    if (!batched)
        return arena_printf(e->arena, "%lld", (long long)each);
    return each == 1 ? "B" : arena_printf(e->arena, "B * %lld", (long long)each);
}

/* v_: activations, d_: their gradients, w_: weights, g_: their gradients, o_: optimizer. */
static char letter(const Buffer *b)
{
    switch (b->class) {
    case BUFFER_WEIGHT:
        return 'w';
    case BUFFER_GRAD:
        return 'g';
    case BUFFER_STATE:
        return 'o';
    default:
        return b->gradient ? 'd' : 'v';
    }
}

const char *emit_buffer_member(Emit *e, int buffer, const char *m, const char *i)
{
    const Buffer *b = &e->d->buffers.at[buffer];
    Text t = {.arena = e->arena};
    text_printf(&t, "%c_%s(s", letter(b), b->name);
    if (b->slots > 1)
        text_printf(&t, ", %s", m);
    if (b->ring > 1)
        text_printf(&t, ", %s", i);
    text_add(&t, ")");
    return t.at;
}

static const char *member_of(Emit *e, int buffer, bool by_turn, int at)
{
    const Buffer *b = &e->d->buffers.at[buffer];
    const char *i = by_turn && at
                        ? arena_printf(e->arena, "i %c %d", at < 0 ? '-' : '+', at < 0 ? -at : at)
                    : by_turn ? "i"
                              : arena_printf(e->arena, "%d", at);
    e->used_m = e->used_m || b->slots > 1;
    e->used_i = e->used_i || (by_turn && b->ring > 1);
    return emit_buffer_member(e, buffer, "m", i);
}

const char *emit_ref(Emit *e, const Ref *r)
{
    if (r->buffer == NONE) {
        if (r->value != NONE && e->p->graph->values.at[r->value].kind == VALUE_CONST)
            return emit_number(e, e->p->graph->values.at[r->value].number);
        return "NULL";
    }
    const char *member = member_of(e, r->buffer, r->by_turn, r->at);
    if (r->entry == NONE)
        return member;
    const char *entry = member_of(e, r->entry, false, r->entry_at);
    e->used_i = true;
    int count = e->d->buffers.at[r->buffer].count;
    if (r->at < 0)
        return arena_printf(e->arena, "i > %d ? %s : %s", -r->at - 1, member, entry);
    return arena_printf(e->arena, "i < %d ? %s : %s", count - r->at, member, entry);
}

const char *emit_shape(Emit *e, ValueId v)
{
    const Value *x = &e->p->graph->values.at[v];
    Text t = {.arena = e->arena};
    text_add(&t, "[");
    if (x->batched)
        text_printf(&t, "%lld", (long long)e->p->microbatch);
    for (int i = 0; i < x->shape.rank; i++)
        text_printf(&t, "%s%lld", i || x->batched ? ", " : "", (long long)x->shape.dim[i]);
    text_add(&t, "]");
    return t.at;
}
