/* apply.c - a copy of a model's text with other settings of `parallel`.
 *
 * In:  the text and where its items and settings stand.
 * Out: the text with the values of some keys replaced, keys added where they were not, and the
 *      number of devices. All else, comments too, is as it was. */
#include <string.h>

#include "apply.h"

typedef struct {
    size_t from, to; /* bytes of the text that go */
    const char *text;
} Change;

typedef struct {
    Arena *arena;
    const Source *source;
    VEC(Change) changes;
} Edit;

/* The byte at which a place begins. */
static size_t offset_of(const Edit *e, Place at)
{
    const char *p = e->source->text;
    for (int line = 1; line < at.line; line++) {
        const char *end = strchr(p, '\n');
        if (!end)
            return e->source->size;
        p = end + 1;
    }
    return (size_t)(p - e->source->text) + (size_t)(at.col - 1);
}

static void change(Edit *e, size_t from, size_t to, const char *text)
{
    VEC_PUSH(e->arena, &e->changes, (Change){from, to, text});
}

/* The end of a setting's value: before a comment, or the ; behind it. Values of these keys are
 * words and numbers. */
static size_t end_of_value(const Edit *e, size_t from)
{
    const char *text = e->source->text;
    size_t end = from + strcspn(text + from, "#;");
    while (end > from && strchr(" \t\r\n", text[end - 1]))
        end--;
    return end;
}

static void set_key(Edit *e, const SettingList *list, const char *key, const char *value,
                    Text *missing)
{
    for (int i = 0; i < list->n; i++)
        if (strcmp(list->at[i].key.text, key) == 0) {
            const char *text = e->source->text; /* an expression's place may be its operator */
            size_t from = offset_of(e, list->at[i].key.at);
            from += strcspn(text + from, "=") + 1;
            from += strspn(text + from, " \t\r\n");
            change(e, from, end_of_value(e, from), value);
            return;
        }
    text_printf(missing, "%s = %s; ", key, value);
}

/* The number between the brackets of devices NAME[…]. */
static void set_count(Edit *e, const Item *devices, int count)
{
    const char *text = e->source->text;
    const char *open = strchr(text + offset_of(e, devices->devices.name.at), '[');
    int depth = 0;
    for (const char *p = open; p && *p; p++) {
        depth += (*p == '[') - (*p == ']');
        if (depth == 0) {
            change(e, (size_t)(open + 1 - text), (size_t)(p - text),
                   arena_printf(e->arena, "%d", count));
            return;
        }
    }
}

static const char *carry_out(Edit *e, const char *tail)
{
    Text out = {.arena = e->arena};
    size_t at = 0;
    text_add(&out, "");
    while (true) { /* from the front; there are a handful */
        const Change *next = NULL;
        for (int i = 0; i < e->changes.n; i++)
            if (e->changes.at[i].from >= at && (!next || e->changes.at[i].from < next->from))
                next = &e->changes.at[i];
        if (!next)
            break;
        text_add_n(&out, e->source->text + at, next->from - at);
        text_add(&out, next->text);
        at = next->to > next->from ? next->to : next->from;
        e->changes.at[next - e->changes.at].from = 0;
        if (at == 0)
            break;
    }
    text_add_n(&out, e->source->text + at, e->source->size - at);
    text_add(&out, tail);
    return out.at;
}

const char *apply_settings(Arena *a, const Source *source, const Ast *ast, const SearchRow *row)
{
    Edit e = {.arena = a, .source = source};
    const Item *parallel = NULL, *devices = NULL;
    Text missing = {.arena = a};
    text_add(&missing, "");
    for (int i = 0; i < ast->items.n; i++) {
        const Item *item = ast->items.at[i];
        parallel = item->kind == ITEM_PARALLEL && !parallel ? item : parallel;
        devices = item->kind == ITEM_DEVICES && !devices ? item : devices;
    }
    static const SettingList none = {0};
    const SettingList *list = parallel ? &parallel->settings : &none;
    set_key(&e, list, "schedule", schedule_kind_name(row->schedule), &missing);
    set_key(&e, list, "microbatch", arena_printf(a, "%lld", (long long)row->microbatch), &missing);
    set_key(&e, list, "recompute", recompute_kind_name(row->recompute), &missing);
    if (row->chunks)
        set_key(&e, list, "chunks", arena_printf(a, "%d", row->chunks), &missing);
    if (devices)
        set_count(&e, devices, row->devices);
    const char *tail = "";
    if (missing.n && list->n) {
        const size_t at = offset_of(&e, list->at[0].key.at);
        change(&e, at, at, missing.at);
    } else if (missing.n && parallel) {
        const char *open = strchr(source->text + offset_of(&e, parallel->at), '{');
        const size_t at = open ? (size_t)(open + 1 - source->text) : source->size;
        change(&e, at, at, arena_printf(a, " %s", missing.at));
    } else if (missing.n) {
        tail = arena_printf(a, "\nparallel { %s}\n", missing.at);
    }
    return carry_out(&e, tail);
}
