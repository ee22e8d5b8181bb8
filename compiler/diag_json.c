/* diag_json.c - the same messages for programs: one array of objects for each flush. */
#include "diag_list.h"

#include <jansson.h>
#include <string.h>

static json_t *json_text(Diag *d, const char *s)
{
    Text t = {.arena = d->arena};
    text_add_safe(&t, s, strlen(s));
    return json_string(t.at);
}

static json_t *json_message(Diag *d, const Message *m)
{
    const Source *source = diag_source(d, m->at.file);
    json_t *o = json_object();
    if (m->severity < SEVERITY_NOTE)
        json_object_set_new(o, "severity", json_string(severity_name(m->severity)));
    json_object_set_new(o, "message", json_text(d, m->text));
    json_object_set_new(o, "file", source ? json_text(d, source->name) : json_null());
    json_object_set_new(o, "line", json_integer(source ? m->at.line : 0));
    json_object_set_new(o, "column", json_integer(source ? m->at.col : 0));
    json_object_set_new(o, "length", json_integer(source ? m->at.len : 0));
    if (m->severity < SEVERITY_NOTE) {
        json_object_set_new(o, "notes", json_array());
        json_object_set_new(o, "help", json_array());
    }
    return o;
}

void diag_write_json(Diag *d, FILE *to)
{
    json_t *all = json_array(), *last = NULL;
    for (; d->flushed < d->messages.n; d->flushed++) {
        const Message *m = &d->messages.at[d->flushed];
        if (m->severity == SEVERITY_HELP) {
            json_array_append_new(json_object_get(last, "help"), json_text(d, m->text));
        } else if (m->severity == SEVERITY_NOTE) {
            json_array_append_new(json_object_get(last, "notes"), json_message(d, m));
        } else {
            last = json_message(d, m);
            json_array_append_new(all, last);
        }
    }
    for (Severity s = SEVERITY_ERROR; s <= SEVERITY_WARNING; s++) {
        const char *text = diag_closing_line(d, s);
        if (text)
            json_array_append_new(all, json_message(d, &(Message){s, NO_PLACE, text}));
    }
    json_dumpf(all, to, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
    fputc('\n', to);
    fflush(to);
    json_decref(all);
}
