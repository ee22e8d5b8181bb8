/* plan_profile.c - measured times: what is read and refused, and what they change. */
#include "plan_workshop.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "profile.h"

enum { LAYERS = 6 };

static const char model_text[] =
    "model chain { input x : f32[32]; target y : f32[32];"
    "for i in 0 .. 6 { x = relu(linear(x, 32) as fc[i]); }"
    "loss mse(x, y); }"
    "train { batch = 8; optimizer = adam(lr = 1e-3); clip_norm = 1; steps = 10; }"
    "parallel { microbatch = 2; }"
    "devices gpu[2] = cpu;";

typedef struct {
    Arena *arena;
    Diag *diag;
    Model *model;
} Bench;

/* A model after differentiate, as profiles are compared with it. */
static Bench bench_new(const char *text)
{
    Bench b = {.arena = arena_new()};
    b.diag = diag_new(b.arena);
    char path[] = "profile_model_XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
    FrontOptions o = {0};
    struct Ast *ast = parse_file(b.arena, b.diag, path, &o);
    unlink(path);
    b.model = ast ? elaborate(b.arena, b.diag, ast, &o) : NULL;
    assert_non_null(b.model);
    simplify(b.model->graph);
    mix_precision(b.model->graph, b.model->settings.train.precision);
    recompute(b.model, false, b.diag);
    assert_true(differentiate(b.model->graph, &b.model->settings, b.diag));
    return b;
}

static Profile *profile_of(const Bench *b)
{
    Profile *p = ARENA_NEW(b->arena, Profile);
    *p = (Profile){.path = "test.json",
                   .model = b->model->name,
                   .graph = profile_graph_key(b->model->graph),
                   .precision = "f32",
                   .microbatch = 2,
                   .processor = "a \"processor\"",
                   .cores = 2,
                   .devices = 2,
                   .threads = 1,
                   .schedule = "1f1b",
                   .steps = 7,
                   .step = 0.25,
                   .link = 1e9,
                   .latency = 2e-6,
                   .work = {0, 0, 3e9, 4e9}};
    p->rows = profile_rows(b->model->graph, &p->nrows);
    for (int i = 0; i < p->nrows; i++)
        for (int k = 0; k < PARTS; k++)
            p->rows[i].seconds[k] = 1e-3;
    return p;
}

static Profile *read_text(const Bench *b, const char *text, size_t size)
{
    char path[] = "profile_file_XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, size), size);
    close(fd);
    Profile *p = profile_read(b->arena, arena_printf(b->arena, "%s", path), b->diag);
    unlink(path);
    return p;
}

static const char *write_text(const Bench *b, const Profile *p)
{
    Text text = {.arena = b->arena};
    assert_true(profile_write(p, &text));
    return text.at;
}

static void test_round_trip(void **state)
{
    (void)state;
    Bench b = bench_new(model_text);
    Profile *p = profile_of(&b);
    p->rows[1].seconds[PART_W] = 0.001234;
    p->rows[2].seconds[PART_F] = 0;
    const char *text = write_text(&b, p);
    Profile *q = read_text(&b, text, strlen(text));
    assert_non_null(q);
    assert_string_equal(write_text(&b, q), text);
    assert_string_equal(q->model, "chain");
    assert_string_equal(q->processor, "a \"processor\"");
    assert_int_equal(q->nrows, p->nrows);
    assert_true(fabs(q->rows[1].seconds[PART_W] - 0.001234) < 1e-12);
    assert_true(q->rows[2].seconds[PART_F] <= 0);
    assert_true(q->work[WORK_ROUND] <= 0 && fabs(q->work[WORK_CLIP] - 3e9) < 1);
    p->link = 0;
    text = write_text(&b, p);
    q = read_text(&b, text, strlen(text));
    assert_true(q && q->link <= 0);
    arena_free(b.arena);
}

/* The first `old` of a good file replaced by `new`. */
static void refused(const Bench *b, const char *good, const char *old, const char *new)
{
    const char *at = strstr(good, old);
    assert_non_null(at);
    const char *bad =
        arena_printf(b->arena, "%.*s%s%s", (int)(at - good), good, new, at + strlen(old));
    Diag *d = diag_new(b->arena);
    Bench other = {b->arena, d, b->model};
    if (read_text(&other, bad, strlen(bad)))
        fail_msg("read with %s for %s", new, old);
    assert_int_equal(diag_errors(d), 1);
}

static void test_hostile(void **state)
{
    (void)state;
    Bench b = bench_new(model_text);
    const char *good = write_text(&b, profile_of(&b));
    const size_t n = strlen(good);
    static const char *const swaps[][2] = {
        {"\"mdlc_profile\": 1", "\"mdlc_profile\": 2"},
        {"\"mdlc_profile\": 1", "\"mdlc_profile\": \"1\""},
        {"\"mdlc_profile\": 1", "\"other\": 1"},
        {"\"microbatch\": 2", "\"microbatch\": 0"},
        {"\"microbatch\": 2", "\"microbatch\": 2.5"},
        {"\"microbatch\": 2", "\"microbatch\": 99999999999"},
        {"\"microbatch\": 2", "\"microbatch\": 2, \"microbatch\": 2"},
        {"\"model\": \"chain\"", "\"model\": 3"},
        {"\"model\": \"chain\"", "\"model\": \"\\u0000\""},
        {"\"cores\": 2", "\"cores\": -2"},
        {"\"cores\": 2", "\"cores\": null"},
        {"\"measured\": {", "\"measured\": 1, \"was\": {"},
        {"\"bytes_per_second\": {", "\"bytes_per_second\": [], \"was\": {"},
        {"\"clip\": ", "\"clip\": -"},
        {"\"clip\": ", "\"clip\": 0, \"was\": "},
        {"\"layers\": [", "\"layers\": 5, \"was\": ["},
        {"\"layers\": [", "\"layers\": [1, "},
        {"\"layers\": [", "\"layers\": [{}, "},
        {"\"F\": 0.001", "\"F\": -0.001"},
        {"\"F\": 0.001", "\"F\": 1e400"},
        {"\"F\": 0.001", "\"F\": 1e30"},
        {"\"F\": 0.001", "\"F\": \"0.001\""},
        {"\"F\": 0.001", "\"F\": NaN"},
        {"\"W\": 0.001", "\"w\": 0.001"},
    };
    for (size_t i = 0; i < sizeof swaps / sizeof *swaps; i++)
        refused(&b, good, swaps[i][0], swaps[i][1]);
    for (size_t cut = 0; cut < n - 2; cut += cut < 600 ? 1 : 97) {
        Bench other = {b.arena, diag_new(b.arena), b.model};
        assert_null(read_text(&other, good, cut));
        assert_int_equal(diag_errors(other.diag), 1);
    }
    assert_null(profile_read(b.arena, "no/such/file.json", b.diag));
    assert_null(profile_read(b.arena, ".", b.diag));
    arena_free(b.arena);
}

static bool taken(const Bench *b, const Profile *p)
{
    const int errors = diag_errors(b->diag);
    const bool ok = profile_take(p, b->model, b->diag);
    assert_int_equal(diag_errors(b->diag) - errors, !ok);
    return ok;
}

static void test_of_another_model(void **state)
{
    (void)state;
    Bench b = bench_new(model_text);
    Profile *p = profile_of(&b);
    assert_true(taken(&b, p));
    assert_true(fabs(b.model->settings.devices.link - 1e9) < 1);
    assert_true(fabs(b.model->settings.devices.work[WORK_UPDATE] - 4e9) < 1);
    assert_true(profile_fits(p, b.model, 2, b.diag));
    b.model->settings.parallel.microbatch = 4;
    assert_false(profile_fits(p, b.model, 2, b.diag));
    p->precision = "bf16";
    assert_false(taken(&b, p));
    p->precision = "f32";
    p->model = "other";
    assert_false(taken(&b, p));
    p->model = b.model->name;
    p->nrows--;
    assert_false(taken(&b, p));
    p->nrows++;
    p->graph = "0123456789abcdef";
    assert_false(taken(&b, p));
    arena_free(b.arena);
}

/* In every row and part the seconds of the operations add up to what was measured. */
static void test_apply_adds_up(void **state)
{
    (void)state;
    Bench b = bench_new(model_text);
    const Graph *g = b.model->graph;
    Profile *p = profile_of(&b);
    for (int i = 0; i < p->nrows; i++)
        for (int k = 0; k < PARTS; k++)
            p->rows[i].seconds[k] = 1 + i + 100 * k;
    double *seconds = ARENA_ARRAY(b.arena, double, g->ops.n);
    for (OpId o = 0; o < g->ops.n; o++)
        seconds[o] = o % 3; /* some operations are thought to take no time */
    for (int turn = 0; turn < 2; turn++) {
        profile_apply(p, g, seconds);
        int n = 0;
        const int *units = profile_units(g, &n);
        double *sums = ARENA_ARRAY(b.arena, double, PARTS *n);
        bool *any = ARENA_ARRAY(b.arena, bool, PARTS *n);
        for (OpId o = 0; o < g->ops.n; o++) {
            const int at = PARTS * units[o] + (int)profile_part(&g->ops.at[o]);
            sums[at] += seconds[o];
            any[at] = true;
        }
        int parts = 0;
        for (int i = 0; i < n; i++)
            for (int k = 0; k < PARTS; k++)
                if (any[PARTS * i + k]) {
                    assert_true(fabs(sums[PARTS * i + k] - (1 + i + 100 * k)) < 1e-9);
                    parts++;
                }
        assert_true(parts >= 2 * LAYERS);
    }
    arena_free(b.arena);
}

/* The piece of layer i's linear. */
static int piece_of(const Bench *b, const Split *s, int layer)
{
    const char *path = arena_printf(b->arena, "fc.%d", layer);
    for (OpId o = 0; o < s->nforward; o++)
        if (b->model->graph->ops.at[o].path && strcmp(b->model->graph->ops.at[o].path, path) == 0)
            return s->piece[o];
    fail_msg("no layer %s", path);
    return NONE;
}

static int layers_on_first(int heavy)
{
    Bench b = bench_new(model_text);
    Profile *p = profile_of(&b);
    for (int i = 0; heavy >= 0 && i < p->nrows; i++)
        if (strcmp(p->rows[i].layer, arena_printf(b.arena, "fc.%d", heavy)) == 0)
            for (int k = 0; k < PARTS; k++)
                p->rows[i].seconds[k] *= 10;
    assert_true(taken(&b, p));
    b.model->profile = p;
    const Split *s = split(b.model, false);
    int n = 0;
    for (int i = 0; i < LAYERS; i++)
        n += piece_of(&b, s, i) == 0;
    arena_free(b.arena);
    return n;
}

static void test_moves_the_cut(void **state)
{
    (void)state;
    const int even = layers_on_first(NONE);
    assert_in_range(even, 2, 4);
    assert_int_equal(layers_on_first(0), 1);
    assert_int_equal(layers_on_first(LAYERS - 1), LAYERS - 1);
}

/* What is done to weights takes as long as was measured, and only where it was. */
static void test_rates(void **state)
{
    (void)state;
    Work w = work_chain(2, 1, 4, SCHEDULE_1F1B);
    Devices *d = &w.program->model->settings.devices;
    const double step = timeline_make(w.arena, w.program, TIMELINE_SECONDS)->step;
    d->work[WORK_ROUND] = 1;
    assert_true(fabs(timeline_make(w.arena, w.program, TIMELINE_SECONDS)->step - step) < 1e-12);
    const double bytes = timeline_weight_bytes(&w.program->devices.at[0], ACT_UPDATE);
    d->work[WORK_UPDATE] = bytes / 100;
    const double slow = timeline_make(w.arena, w.program, TIMELINE_SECONDS)->step;
    assert_true(slow > 100 && slow < 100 + 2 * step);
    work_free(&w);
}

/* Runs, sends and waits of a device are one after the other; nothing starts before what it needs.
 */
static void check_order(const Work *w, const Timeline *t, int device)
{
    const Program *p = w->program;
    const ActionList *list = &p->devices.at[device].train;
    const Span *spans = t->devices[device].spans;
    double now = 0;
    for (int i = 0; i < list->actions.n; i++) {
        const Action *a = &list->actions.at[i];
        assert_true(spans[i].start >= 0 && spans[i].end >= spans[i].start);
        if (a->kind == ACT_RECV) { /* its span is the message's, which is not before the post */
            assert_true(spans[i].start >= now - 1e-12);
            continue;
        }
        assert_true(spans[i].start >= now - 1e-12);
        now = spans[i].end;
        for (int k = 0; k < a->nwaits && action_stream(a) == 0; k++)
            if (list->actions.at[list->waits.at[a->first_wait + k]].kind == ACT_RECV)
                assert_true(spans[i].start >= spans[list->waits.at[a->first_wait + k]].end - 1e-12);
    }
}

static void test_messages_of_threads(void **state)
{
    (void)state;
    static const ScheduleKind kinds[] = {SCHEDULE_1F1B, SCHEDULE_GPIPE, SCHEDULE_ZERO_BUBBLE};
    static const Profile measured = {.nrows = 0};
    for (int k = 0; k < 4; k++)
        for (int m = 1; m <= 9; m += 2) {
            Work w = k < 3 ? work_chain(3, 1, m, kinds[k]) : work_looped(3, 2, 3 * m);
            w.program->model->profile = &measured;
            const Timeline *t = timeline_make(w.arena, w.program, TIMELINE_SECONDS);
            assert_true(t->complete);
            for (int d = 0; d < 3; d++) {
                assert_true(t->devices[d].busy <= t->step);
                check_order(&w, t, d);
            }
            work_free(&w);
        }
}

/* One micro-batch on two stages: there and back, one after the other. */
static void test_there_and_back(void **state)
{
    (void)state;
    static const Profile measured = {.nrows = 0};
    Work w = work_chain(2, 1, 1, SCHEDULE_1F1B);
    Program *p = w.program;
    Devices *d = &p->model->settings.devices;
    p->model->profile = &measured;
    d->latency = 0.5;
    d->link = (double)p->links.at[0].bytes / 2;
    d->work[WORK_UPDATE] = d->work[WORK_CLIP] = 1e30;
    for (int c = 0; c < 2; c++) {
        p->chunks.at[c].seconds[RUN_F] = 10 + c;
        p->chunks.at[c].seconds[RUN_B] = 100 + c;
    }
    const Timeline *t = timeline_make(w.arena, p, TIMELINE_SECONDS);
    assert_true(fabs(t->step - (10 + 2.5 + 11 + 101 + 2.5 + 100)) < 1e-6);
    assert_true(fabs(t->devices[0].busy - 110) < 1e-6);
    work_free(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),          cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_of_another_model),    cmocka_unit_test(test_apply_adds_up),
        cmocka_unit_test(test_moves_the_cut),       cmocka_unit_test(test_rates),
        cmocka_unit_test(test_messages_of_threads), cmocka_unit_test(test_there_and_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
