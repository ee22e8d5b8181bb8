/* driver.c - runs the records of one golden file through the front end.
 *
 *   driver FILE.golden            compares; prints what differs; exit code 1
 *   driver --update FILE.golden   writes what the compiler says now
 *
 * A record is a model and what comes of it: the messages, then the graph (and, with
 * --settings, the settings):
 *
 *   === name  [-D name=value] [--set key=value] [--settings]
 *   model m { … }
 *   ---
 *   v3 f32[500] = linear …
 *
 * Every model is read as m.mdl in a directory of its own, which is removed at the end. */
#include "base.h"
#include "diag.h"
#include "graph.h"
#include "settings.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_OPTIONS = 16 };

typedef struct {
    const char *head; /* "name  -D …" */
    const char *model;
    size_t model_size;
    const char *expected;
    size_t expected_size;
} Record;

typedef VEC(Record) Records;

static char *read_all(Arena *a, const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        return NULL;
    Text t = {.arena = a};
    char buffer[4096];
    size_t n;
    text_add(&t, "");
    while ((n = fread(buffer, 1, sizeof buffer, f)) > 0)
        text_add_n(&t, buffer, n);
    fclose(f);
    return t.at;
}

/* The start of the next line that begins with the mark, or the end of the text. */
static const char *find_mark(const char *s, const char *mark)
{
    size_t n = strlen(mark);
    while (*s && strncmp(s, mark, n) != 0) {
        s += strcspn(s, "\n");
        s += *s == '\n';
    }
    return s;
}

static Records split_records(Arena *a, const char *text)
{
    Records all = {0};
    for (const char *s = find_mark(text, "=== "); *s; s = find_mark(s, "=== ")) {
        const char *head = s + 4, *line = head + strcspn(head, "\n");
        Record r = {.head = arena_strndup(a, head, (size_t)(line - head))};
        r.model = line + (*line == '\n');
        const char *middle = find_mark(r.model, "---\n");
        r.model_size = (size_t)(middle - r.model);
        r.expected = middle + (*middle ? 4 : 0);
        s = find_mark(r.expected, "=== ");
        r.expected_size = (size_t)(s - r.expected);
        VEC_PUSH(a, &all, r);
    }
    return all;
}

typedef struct {
    const char *defines[MAX_OPTIONS], *sets[MAX_OPTIONS];
    FrontOptions front;
    bool settings;
} Options;

static void read_options(Arena *a, const char *head, Options *o)
{
    char *copy = arena_strndup(a, head, strlen(head)), *rest = NULL;
    const char *flag = strtok_r(copy, " ", &rest); /* the name */
    while ((flag = strtok_r(NULL, " ", &rest))) {
        if (!strcmp(flag, "--settings")) {
            o->settings = true;
            continue;
        }
        /* A value stands in quotes where it has spaces. */
        const char *value;
        rest += strspn(rest, " ");
        if (*rest == '\'') {
            rest++;
            value = strtok_r(NULL, "'", &rest);
        } else
            value = strtok_r(NULL, " ", &rest);
        if (!strcmp(flag, "-D") && o->front.ndefines < MAX_OPTIONS)
            o->defines[o->front.ndefines++] = value;
        else if (!strcmp(flag, "--set") && o->front.nsets < MAX_OPTIONS)
            o->sets[o->front.nsets++] = value;
    }
    o->front.defines = o->defines;
    o->front.sets = o->sets;
}

static void print_settings(const Settings *s, FILE *to)
{
    const Devices *d = &s->devices;
    const Parallel *p = &s->parallel;
    const Train *t = &s->train;
    fprintf(to,
            "devices %s count %d memory %lld compute %g bandwidth %g link %g latency %g per_node "
            "%d node_link %g\n",
            d->name, d->count, (long long)d->memory, d->compute, d->bandwidth, d->link, d->latency,
            d->per_node, d->node_link);
    fprintf(to, "parallel schedule %d microbatch %lld split %d\n", (int)p->schedule,
            (long long)p->microbatch, (int)p->split);
    fprintf(to,
            "train batch %lld steps %lld optimizer %d lr %g momentum %g nesterov %d weight_decay "
            "%g betas %g %g eps %g schedule %d warmup %lld min %g clip_norm %g precision %d seed "
            "%llu\n",
            (long long)t->batch, (long long)t->steps, (int)t->optimizer, t->lr, t->momentum,
            t->nesterov, t->weight_decay, t->beta1, t->beta2, t->eps, (int)t->schedule,
            (long long)t->warmup, t->min, t->clip_norm, (int)t->precision,
            (unsigned long long)t->seed);
    for (int i = 0; i < s->data.n; i++) {
        const DataItem *item = &s->data.at[i];
        fprintf(to, "data %s %s shuffle %d take %lld skip %lld\n", item->which, item->kind,
                item->shuffle, (long long)item->take, (long long)item->skip);
        for (int k = 0; k < item->files.n; k++)
            fprintf(to, "  %s = %s\n", item->files.at[k].key ? item->files.at[k].key : "-",
                    item->files.at[k].path);
    }
}

/* What the front end says about the record's model; NULL where that cannot be told. */
static char *run_record(Arena *a, const Record *r)
{
    FILE *f = fopen("m.mdl", "wb");
    if (!f || fwrite(r->model, 1, r->model_size, f) != r->model_size || fclose(f) != 0)
        return NULL;
    Options o = {0};
    read_options(a, r->head, &o);
    char *said = NULL;
    size_t size = 0;
    FILE *to = open_memstream(&said, &size);
    if (!to)
        return NULL;
    Diag *d = diag_new(a);
    struct Ast *ast = parse_file(a, d, "m.mdl", &o.front);
    Model *m = ast ? elaborate(a, d, ast, &o.front) : NULL;
    diag_flush(d, to, false);
    if (!m && !diag_errors(d))
        fprintf(to, "no model and no error\n");
    if (m && graph_check(m->graph, to)) {
        graph_dump(m->graph, d, to);
        if (o.settings)
            print_settings(&m->settings, to);
    }
    if (fclose(to) != 0)
        return NULL;
    char *copy = arena_strndup(a, said, size);
    free(said);
    return copy;
}

static bool same(const Record *r, const char *got)
{
    return strlen(got) == r->expected_size && !memcmp(got, r->expected, r->expected_size);
}

static int fail(const char *what)
{
    fprintf(stderr, "driver: %s\n", what);
    return 2;
}

/* In the directory of the models: compares all, and collects the file as it is now. */
static int run_all(Arena *a, const Records *all, Text *now)
{
    int wrong = 0;
    for (int i = 0; i < all->n; i++) {
        const Record *r = &all->at[i];
        char *got = run_record(a, r);
        if (!got)
            return -1;
        text_printf(now, "=== %s\n", r->head);
        text_add_n(now, r->model, r->model_size);
        text_printf(now, "---\n%s", got);
        if (same(r, got))
            continue;
        wrong++;
        fprintf(stderr, "--- %s: expected\n%.*s--- got\n%s", r->head, (int)r->expected_size,
                r->expected, got);
    }
    return wrong;
}

static int write_all(const char *path, const char *text)
{
    FILE *f = fopen(path, "wb");
    if (!f)
        return -1;
    int bad = fputs(text, f) < 0;
    return fclose(f) != 0 || bad ? -1 : 0;
}

int main(int argc, char **argv)
{
    bool update = argc == 3 && !strcmp(argv[1], "--update");
    if (argc != 2 && !update)
        return fail("usage: driver [--update] FILE.golden");
    Arena *a = arena_new();
    char *path = realpath(argv[argc - 1], NULL), *text = path ? read_all(a, path) : NULL;
    char directory[] = "/tmp/elaborate.XXXXXX";
    if (!text || !mkdtemp(directory) || chdir(directory) != 0)
        return fail("cannot read the file, or make a directory");
    Records all = split_records(a, text);
    const char *first = find_mark(text, "=== ");
    Text now = {.arena = a};
    text_add_n(&now, text, (size_t)(first - text));
    int wrong = run_all(a, &all, &now);
    unlink("m.mdl");
    rmdir(directory);
    if (wrong > 0 && update)
        wrong = write_all(path, now.at);
    fprintf(stderr, "%d records, %d wrong\n", all.n, wrong);
    free(path);
    arena_free(a);
    if (wrong < 0)
        return fail("a file could not be written");
    return wrong || !all.n ? 1 : 0;
}
