/* settings.c - the items devices, parallel and train, with --set over them, become Settings.
 *
 * In: the items' keys and values, unchecked. Out: every field filled, from the file, the
 * command line or the defaults. Each key has a row with a function that checks its value. */
#include "settings_read.h"

#include "catalogue.h"

#include <string.h>

/* ---- reading one value ---- */

const char *word_of(const Expr *x)
{
    if (x->kind == EXPR_NAME)
        return x->text;
    return x->kind == EXPR_CALL ? x->call.callee.text : NULL;
}

static void list_words(Elab *e, const char *const *words, int n)
{
    Text t = {.arena = e->arena};
    for (int i = 0; i < n; i++)
        text_printf(&t, "%s%s", !i ? "" : i + 1 < n ? ", " : " or ", words[i]);
    elab_help(e, "it is %s", t.at);
}

int read_word(Elab *e, const Given *g, const char *const *words, int n, unsigned later)
{
    const char *word = word_of(g->value);
    for (int i = 0; word && i < n; i++)
        if (!strcmp(word, words[i])) {
            if (!(later >> i & 1))
                return i;
            elab_error(e, g->value->at, "%s = %s is not available yet", g->key.text, word);
            return -1;
        }
    elab_error(e, g->value->at, "%s of %s cannot be %s", g->key.text, g->block,
               ast_show_expr(e->arena, g->value));
    if (word)
        elab_help_nearest(e, word, words, n);
    list_words(e, words, n);
    return -1;
}

static void wants(Elab *e, const Given *g, const char *what, Term t)
{
    elab_error(e, g->value->at, "%s of %s wants %s, not %s", g->key.text, g->block, what,
               term_describe(e, t));
}

bool read_int(Elab *e, const Given *g, int64_t min, int64_t max, int64_t *out)
{
    Term t = eval(e, g->value);
    if (t.kind == TERM_ERROR)
        return false;
    if (t.kind != TERM_INT) {
        wants(e, g, "an integer", t);
        return false;
    }
    if (t.integer < min || t.integer > max) {
        if (t.integer < min)
            elab_error(e, g->value->at, "%s of %s is at least %lld, not %lld", g->key.text,
                       g->block, (long long)min, (long long)t.integer);
        else
            elab_error(e, g->value->at, "%s of %s is at most %lld, not %lld", g->key.text, g->block,
                       (long long)max, (long long)t.integer);
        return false;
    }
    *out = t.integer;
    return true;
}

bool read_real(Elab *e, const Given *g, double min, double *out)
{
    Term t = eval(e, g->value);
    if (t.kind == TERM_ERROR)
        return false;
    if (!term_is_number(t)) {
        wants(e, g, "a number", t);
        return false;
    }
    if (term_number(t) < min) {
        elab_error(e, g->value->at, "%s of %s is at least %g, not %g", g->key.text, g->block, min,
                   term_number(t));
        return false;
    }
    *out = term_number(t);
    return true;
}

bool read_quantity(Elab *e, const Given *g, Unit unit, double *out)
{
    static const char *const examples[] = {"a size such as 80 GiB", "a speed such as 312 TFLOPS",
                                           "a rate such as 600 GB/s", "a time such as 5 us"};
    Term t = eval(e, g->value);
    if (t.kind == TERM_ERROR)
        return false;
    if (t.kind != TERM_QUANTITY || t.quantity.unit != unit) {
        wants(e, g, examples[unit], t);
        return false;
    }
    if (!(t.quantity.value > 0)) {
        elab_error(e, g->value->at, "%s of %s is more than nothing", g->key.text, g->block);
        return false;
    }
    *out = t.quantity.value;
    return true;
}

bool read_call(Elab *e, const Given *g, const char *signature, Term *args)
{
    Signature sig;
    Expr bare = {.kind = EXPR_CALL, .at = g->value->at, .depth = 1};
    signature_parse(e->arena, &sig, word_of(g->value), signature);
    return match_args(e, &sig, g->value->kind == EXPR_CALL ? g->value : &bare, args, NULL, NULL);
}

/* ---- the items ---- */

typedef struct {
    const char *name;
    ItemKind kind;
    const SettingRow *rows;
    const int *nrows;
} Block;

static const Block blocks[] = {{"devices", ITEM_DEVICES, devices_rows, &devices_nrows},
                               {"parallel", ITEM_PARALLEL, parallel_rows, &parallel_nrows},
                               {"train", ITEM_TRAIN, train_rows, &train_nrows}};
enum { NBLOCKS = sizeof blocks / sizeof *blocks };

static void unknown_key(Elab *e, const Block *b, Name key)
{
    VEC(const char *) names = {0};
    for (int i = 0; i < *b->nrows; i++)
        VEC_PUSH(e->arena, &names, b->rows[i].key);
    elab_error(e, key.at, "%s has no %s", b->name, key.text);
    elab_help_nearest(e, key.text, names.at, names.n);
    list_words(e, names.at, names.n);
}

/* block.key=value as a Setting; false: another block's, or an error. */
static bool set_option(Elab *e, const Block *b, const char *set, Setting *out)
{
    size_t n = strlen(b->name);
    const char *equals = strchr(set, '=');
    if (strncmp(set, b->name, n) != 0 || set[n] != '.' || !equals)
        return false;
    const char *text = arena_printf(e->arena, "%s%s { %.*s = %s; }", b->name,
                                    b->kind == ITEM_DEVICES ? " gpu[1]" : "",
                                    (int)(equals - (set + n + 1)), set + n + 1, equals + 1);
    const Item *item = command_item(e, "--set", text, b->kind);
    if (!item)
        return false;
    const SettingList *list = b->kind == ITEM_DEVICES ? &item->devices.settings : &item->settings;
    if (list->n != 1) {
        elab_error(e, item->at, "--set wants one value");
        return false;
    }
    *out = list->at[0];
    return true;
}

static int row_find(const Block *b, const char *key)
{
    for (int i = 0; i < *b->nrows; i++)
        if (!strcmp(b->rows[i].key, key))
            return i;
    return -1;
}

/* Reads what the file says, once for each key, but --set where that speaks of the key. */
static void read_block(Elab *e, const Block *b, const SettingList *file)
{
    const Setting *given[SETTING_MAX_ROWS] = {0};
    for (int i = 0; file && i < file->n && !e->stop; i++) {
        const Setting *s = &file->at[i];
        int row = row_find(b, s->key.text);
        if (row < 0) {
            unknown_key(e, b, s->key);
        } else if (given[row]) {
            elab_error(e, s->key.at, "%s is given twice", s->key.text);
            elab_note(e, given[row]->key.at, "the first is here");
        } else
            given[row] = s;
    }
    for (int i = 0; i < e->options->nsets; i++) {
        Setting *s = ARENA_NEW(e->arena, Setting);
        if (!set_option(e, b, e->options->sets[i], s))
            continue;
        int row = row_find(b, s->key.text);
        if (row < 0)
            unknown_key(e, b, s->key);
        else
            given[row] = s;
    }
    for (int row = 0; row < *b->nrows; row++)
        if (given[row]) {
            Given g = {b->name, given[row]->key, given[row]->value};
            b->rows[row].read(e, &g);
        }
}

/* The one item of this kind; NULL: none. */
static const Item *only_item(Elab *e, const Block *b)
{
    const Item *first = NULL;
    for (int i = 0; i < e->ast->items.n; i++) {
        const Item *item = e->ast->items.at[i];
        if (item->kind != b->kind)
            continue;
        if (first) {
            elab_error(e, item->at, "%s is given twice", b->name);
            elab_note(e, first->at, "the first is here");
        } else
            first = item;
    }
    return first;
}

static void check_sets(Elab *e)
{
    static const char *const names[] = {"devices", "parallel", "train"};
    for (int i = 0; i < e->options->nsets; i++) {
        const char *set = e->options->sets[i], *dot = strchr(set, '.'), *equals = strchr(set, '=');
        if (!dot || !equals || dot > equals || dot + 1 == equals || !equals[1]) {
            elab_error(e, NO_PLACE, "--set %s: wants block.key=value", set);
            elab_help(e, "for example --set train.batch=64");
            continue;
        }
        char *block = arena_strndup(e->arena, set, (size_t)(dot - set));
        bool known = false;
        for (int k = 0; k < NBLOCKS; k++)
            known |= !strcmp(block, names[k]);
        if (known)
            continue;
        elab_error(e, NO_PLACE, "--set %s: there are no settings %s", set, block);
        elab_help_nearest(e, block, names, NBLOCKS);
        elab_help(e, "it is devices, parallel or train");
    }
}

static void use_catalogue(Elab *e, const Expr *x)
{
    Devices *d = &e->settings.devices;
    const DeviceType *type = x->kind == EXPR_NAME ? catalogue_find(x->text) : NULL;
    if (type) {
        d->memory = type->memory;
        d->compute = type->compute;
        d->half = type->half;
        d->bandwidth = type->bandwidth;
        d->link = type->link;
        d->latency = type->latency;
        d->call = type->call;
        d->host_link = type->host_link;
        return;
    }
    VEC(const char *) names = {0};
    for (int i = 0; i < catalogue_size; i++)
        VEC_PUSH(e->arena, &names, catalogue[i].name);
    elab_error(e, x->at, "the catalogue has no device %s", ast_show_expr(e->arena, x));
    if (x->kind == EXPR_NAME)
        elab_help_nearest(e, x->text, names.at, names.n);
    list_words(e, names.at, names.n);
}

void settings_devices(Elab *e)
{
    Devices *d = &e->settings.devices;
    const DeviceType *type = e->options->device ? catalogue_find(e->options->device) : NULL;
    if (!type)
        type = &catalogue_core;
    /* its memory is not assumed: the machine's may be larger */
    *d = (Devices){.name = "gpu",
                   .compute = type->compute,
                   .half = type->half,
                   .bandwidth = type->bandwidth,
                   .link = type->link,
                   .latency = type->latency,
                   .call = type->call,
                   .host_link = type->host_link,
                   .node_link = 12.5e9,
                   .standard = type,
                   .at = NO_PLACE};
    check_sets(e);
    const Item *item = only_item(e, &blocks[0]);
    if (item) {
        int64_t count = 1;
        d->name = item->devices.name.text;
        d->at = item->at;
        eval_int(e, item->devices.count, "the number of devices", 1, ELAB_MAX_DEVICES, &count);
        d->count = (int)count;
        if (item->devices.catalogue)
            use_catalogue(e, item->devices.catalogue);
    }
    read_block(e, &blocks[0], item ? &item->devices.settings : NULL);
}

/* The divisors of n around m, as help: "4 and 8 divide 64". */
static void help_divisors(Elab *e, int64_t n, int64_t m)
{
    int64_t below = 1, above = n;
    for (int64_t i = 1; i <= n / i && i < 100000000; i++)
        if (n % i == 0) {
            int64_t pair[2] = {i, n / i};
            for (int k = 0; k < 2; k++) {
                if (pair[k] < m && pair[k] > below)
                    below = pair[k];
                if (pair[k] > m && pair[k] < above)
                    above = pair[k];
            }
        }
    if (m > n)
        elab_help(e, "the largest micro-batch of this batch is %lld", (long long)n);
    else
        elab_help(e, "microbatch = %lld or %lld divides it", (long long)below, (long long)above);
}

/* The V of two chunks on each device has no other form. */
static void check_chunks(Elab *e)
{
    const Parallel *p = &e->settings.parallel;
    if (p->schedule == SCHEDULE_ZB_V && p->chunks && p->chunks != 2)
        elab_error(e, p->chunks_at, "schedule = zb_v has 2 chunks on each device, not %d",
                   p->chunks);
}

static void check_batches(Elab *e)
{
    const Train *t = &e->settings.train;
    const Parallel *p = &e->settings.parallel;
    if (!p->microbatch || t->batch % p->microbatch == 0)
        return;
    elab_error(e, p->microbatch_at, "a batch of %lld is no whole number of micro-batches of %lld",
               (long long)t->batch, (long long)p->microbatch);
    if (t->batch_at.file >= 0)
        elab_note(e, t->batch_at, "the batch is given here");
    else
        elab_help(e, "no batch is given: it is %lld", (long long)t->batch);
    help_divisors(e, t->batch, p->microbatch);
}

void settings_others(Elab *e)
{
    e->settings.parallel = (Parallel){
        .at = NO_PLACE, .schedule_at = NO_PLACE, .microbatch_at = NO_PLACE, .chunks_at = NO_PLACE};
    e->settings.train = (Train){.batch = 32,
                                .steps = 100,
                                .optimizer = OPTIMIZER_SGD,
                                .lr = 0.01,
                                .beta1 = 0.9,
                                .beta2 = 0.999,
                                .eps = 1e-8,
                                .seed = 1,
                                .at = NO_PLACE,
                                .batch_at = NO_PLACE};
    int errors = e->errors;
    for (int i = 1; i < NBLOCKS; i++) {
        const Item *item = only_item(e, &blocks[i]);
        if (item && blocks[i].kind == ITEM_PARALLEL)
            e->settings.parallel.at = item->at;
        if (item && blocks[i].kind == ITEM_TRAIN)
            e->settings.train.at = item->at;
        read_block(e, &blocks[i], item ? &item->settings : NULL);
    }
    if (e->settings.train.precision == PRECISION_BF16 ||
        e->settings.train.precision == PRECISION_F16)
        e->settings.devices.compute = e->settings.devices.half;
    if (e->errors == errors)
        check_batches(e);
    check_chunks(e);
}
