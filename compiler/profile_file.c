/* profile_file.c - profiles as JSON.
 *
 * In:  a file, hostile until it is checked: types, ranges, names that can be shown.
 * Out: a Profile; and the other way round.
 *
 *     {"mdlc_profile": 1,
 *      "model": "two_gpu", "graph": "91d5…", "precision": "f32", "microbatch": 8,
 *      "measured": {"processor": "AMD EPYC", "cores": 2, "devices": 2, "threads": 1,
 *                   "schedule": "1f1b", "steps": 400, "step_seconds": 0.0014},
 *      "link": {"bytes_per_second": 9.1e9, "latency": 1.2e-05},        or null
 *      "bytes_per_second": {"round": null, "reduce": null, "clip": null, "update": 1.1e10},
 *      "layers": [{"layer": "layer1", "F": 1.9e-05, "I": 0, "W": 2.6e-05}, …]} */
#include "profile.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "files_out.h"
#include "plan.h"

enum { FORMAT = 1, LIMIT = 64 << 20, MOST_ROWS = 1 << 22 };

static const char *const work_names[WEIGHT_WORKS] = {"round", "reduce", "clip", "update"};
static const char *const part_names[PARTS] = {"F", "I", "W"};

typedef struct {
    Arena *arena;
    Diag *diag;
    const char *path;
    bool bad; /* an error has been said */
} Reader;

static void wrong(Reader *r, const char *where, const char *key, const char *want)
{
    if (!r->bad)
        diag_error(r->diag, NO_PLACE, "%s: %s%s\"%s\" is not %s", r->path, where,
                   where[0] ? ": " : "", key, want);
    r->bad = true;
}

static const char *read_text(Reader *r, const json_t *object, const char *where, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    if (text && strlen(text) <= 1000)
        return svg_escape_plain(r->arena, text);
    wrong(r, where, key, "a text of at most 1000 bytes");
    return "";
}

static int64_t read_whole(Reader *r, const json_t *object, const char *where, const char *key)
{
    const json_t *x = json_object_get(object, key);
    const json_int_t n = json_integer_value(x);
    if (json_is_integer(x) && n >= 1 && n <= INT32_MAX)
        return n;
    wrong(r, where, key, "a whole number from 1 on");
    return 1;
}

static double read_number(Reader *r, const json_t *object, const char *where, const char *key,
                          double low, const char *want)
{
    const json_t *x = json_object_get(object, key);
    const double n = json_number_value(x);
    if (json_is_number(x) && isfinite(n) && n >= low && n <= 1e18)
        return n;
    wrong(r, where, key, want);
    return 1;
}

static double read_seconds(Reader *r, const json_t *object, const char *where, const char *key)
{
    return read_number(r, object, where, key, 0, "a number of seconds");
}

/* 0 where it is null. */
static double read_rate(Reader *r, const json_t *object, const char *where, const char *key)
{
    if (json_is_null(json_object_get(object, key)))
        return 0;
    return read_number(r, object, where, key, 1, "null or a rate of at least 1 byte/s");
}

static const json_t *read_object(Reader *r, const json_t *root, const char *key)
{
    const json_t *x = json_object_get(root, key);
    if (!json_is_object(x))
        wrong(r, "", key, "an object");
    return x;
}

static void read_rows(Reader *r, const json_t *root, Profile *p)
{
    const json_t *rows = json_object_get(root, "layers");
    if (!json_is_array(rows) || json_array_size(rows) > MOST_ROWS) {
        wrong(r, "", "layers", "a list of layers");
        return;
    }
    p->nrows = (int)json_array_size(rows);
    p->rows = ARENA_ARRAY(r->arena, ProfileRow, p->nrows + 1);
    for (int i = 0; i < p->nrows && !r->bad; i++) {
        const json_t *row = json_array_get(rows, (size_t)i);
        const char *where = arena_printf(r->arena, "layer %d", i);
        p->rows[i].layer = read_text(r, row, where, "layer");
        for (int k = 0; k < PARTS; k++)
            p->rows[i].seconds[k] = read_seconds(r, row, where, part_names[k]);
    }
}

static void read_root(Reader *r, const json_t *root, Profile *p)
{
    const json_t *format = json_object_get(root, "mdlc_profile");
    if (!json_is_integer(format)) {
        diag_error(r->diag, NO_PLACE, "%s is not a profile as mdlc profile writes it", r->path);
        r->bad = true;
        return;
    }
    if (json_integer_value(format) != FORMAT) {
        diag_error(r->diag, NO_PLACE, "%s is a profile of format %lld, and this mdlc reads %d",
                   r->path, (long long)json_integer_value(format), FORMAT);
        r->bad = true;
        return;
    }
    p->model = read_text(r, root, "", "model");
    p->graph = read_text(r, root, "", "graph");
    p->precision = read_text(r, root, "", "precision");
    p->microbatch = read_whole(r, root, "", "microbatch");
    const json_t *how = read_object(r, root, "measured");
    p->processor = read_text(r, how, "measured", "processor");
    p->schedule = read_text(r, how, "measured", "schedule");
    p->cores = (int)read_whole(r, how, "measured", "cores");
    p->devices = (int)read_whole(r, how, "measured", "devices");
    p->threads = (int)read_whole(r, how, "measured", "threads");
    p->steps = (int)read_whole(r, how, "measured", "steps");
    p->step = read_seconds(r, how, "measured", "step_seconds");
    if (!json_is_null(json_object_get(root, "link"))) {
        const json_t *link = read_object(r, root, "link");
        p->link =
            read_number(r, link, "link", "bytes_per_second", 1, "a rate of at least 1 byte/s");
        p->latency = read_seconds(r, link, "link", "latency");
    }
    const json_t *rates = read_object(r, root, "bytes_per_second");
    for (int i = 0; i < WEIGHT_WORKS; i++)
        p->work[i] = read_rate(r, rates, "bytes_per_second", work_names[i]);
    read_rows(r, root, p);
}

Profile *profile_read(Arena *a, const char *path, Diag *d)
{
    Reader r = {.arena = a, .diag = d, .path = path};
    Profile *p = ARENA_NEW(a, Profile);
    size_t size = 0;
    const char *text = file_read(a, path, LIMIT, &size);
    if (!text) {
        diag_error(d, NO_PLACE, "cannot read the profile %s: %s", path, strerror(errno));
        return NULL;
    }
    json_error_t error;
    json_t *root = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);
    if (!root) {
        diag_error(d, NO_PLACE, "%s:%d:%d: it is not JSON: %s", path, error.line, error.column,
                   svg_escape_plain(a, error.text));
        return NULL;
    }
    read_root(&r, root, p);
    json_decref(root);
    p->path = path;
    return r.bad ? NULL : p;
}

/* -------------------------------------------------------------------------- writing */

/* Three digits count, and what is written is what is read. */
static json_t *number(double x)
{
    char text[40];
    snprintf(text, sizeof text, "%.4g", x);
    return json_real(strtod(text, NULL));
}

static json_t *rate(double x)
{
    return x > 0 ? number(x) : json_null();
}

static json_t *row(Arena *a, const ProfileRow *r)
{
    return json_pack("{s:s, s:o, s:o, s:o}", "layer", svg_escape_plain(a, r->layer), part_names[0],
                     number(r->seconds[0]), part_names[1], number(r->seconds[1]), part_names[2],
                     number(r->seconds[2]));
}

/* A line for each layer: jansson itself has one line for all, or one for each number. */
static bool add_json(Text *out, const char *before, json_t *x, const char *after)
{
    char *text =
        x ? json_dumps(x, JSON_ENCODE_ANY | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(6)) : NULL;
    json_decref(x);
    if (!text)
        return false;
    text_printf(out, "%s%s%s", before, text, after);
    free(text);
    return true;
}

bool profile_write(const Profile *p, Text *out)
{
    Arena *a = out->arena;
    text_printf(out, "{\"mdlc_profile\": %d,\n", FORMAT);
    bool ok = add_json(out, " \"model\": ", json_string(svg_escape_plain(a, p->model)), ",\n") &&
              add_json(out, " \"graph\": ", json_string(p->graph), ",\n") &&
              add_json(out, " \"precision\": ", json_string(p->precision), ",\n");
    text_printf(out, " \"microbatch\": %lld,\n", (long long)p->microbatch);
    ok = ok &&
         add_json(out, " \"measured\": ",
                  json_pack("{s:s, s:i, s:i, s:i, s:s, s:i, s:o}", "processor",
                            svg_escape_plain(a, p->processor), "cores", p->cores, "devices",
                            p->devices, "threads", p->threads, "schedule", p->schedule, "steps",
                            p->steps, "step_seconds", number(p->step)),
                  ",\n") &&
         add_json(out, " \"link\": ",
                  p->link > 0 ? json_pack("{s:o, s:o}", "bytes_per_second", number(p->link),
                                          "latency", number(p->latency))
                              : json_null(),
                  ",\n") &&
         add_json(out, " \"bytes_per_second\": ",
                  json_pack("{s:o, s:o, s:o, s:o}", work_names[0], rate(p->work[0]), work_names[1],
                            rate(p->work[1]), work_names[2], rate(p->work[2]), work_names[3],
                            rate(p->work[3])),
                  ",\n");
    text_add(out, " \"layers\": [");
    for (int i = 0; ok && i < p->nrows; i++)
        ok = add_json(out, i ? ",\n  " : "\n  ", row(a, &p->rows[i]), "");
    text_add(out, "]}\n");
    return ok;
}
