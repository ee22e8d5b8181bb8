/* test_split.c - the compiler's own split is the best there is.
 *
 * Small random models that place nothing, or a part; every way to place the rest by hand is
 * compiled, too. The plan of the compiler's split takes no longer than the best of them (split =
 * time), or needs no more memory on the largest device (split = memory); and what is annotated
 * stays where it is. The sequence is fixed. */
#include "passes.h"

#include "timeline.h"

#include <stdlib.h>
#include <string.h>

enum { SAMPLES = 500, MOST = 9 };

typedef struct {
    Arena *arena;
    uint64_t state;
    int n, gpus;            /* statements, the loss among them */
    int pieces;             /* piece k is on gpu[k % gpus] */
    const char *text[MOST]; /* without their ends */
    int fixed[MOST];        /* annotation, or NONE */
    const char *rest;
} Sample;

static int draw(Sample *s, int n)
{
    s->state = s->state * 6364136223846793005u + 1442695040888963407u;
    return (int)((s->state >> 33) % (uint64_t)n);
}

static const char *pick(Sample *s, const char *const *from, int n)
{
    return from[draw(s, n)];
}

/* A chain with skips, of layers that differ in work, weights and width. */
static Sample random_sample(Arena *a, uint64_t seed, bool memory)
{
    static const char *const links[] = {"100 MB/s", "1 GB/s", "20 GB/s"};
    static const char *const latencies[] = {"1 us", "10 us", "0.1 us"};
    static const char *const schedules[] = {"1f1b", "gpipe", "zero_bubble", "zb_h2", "interleaved"};
    static const char *const optimizers[] = {"sgd(lr = 0.1)", "adam(lr = 0.1)"};
    Sample s = {.arena = a, .state = seed * 7919 + 11};
    draw(&s, 2);
    s.gpus = 2 + draw(&s, 3);
    const char *schedule = pick(&s, schedules, s.gpus == 2 ? 5 : 4);
    s.pieces = strcmp(schedule, "interleaved") == 0 ? 2 * s.gpus : s.gpus;
    s.n = s.pieces + 2 + draw(&s, 3);
    s.n = s.n > MOST - 1 ? MOST - 1 : s.n;
    int width = 8 << draw(&s, 4), widths[MOST] = {0};
    for (int i = 0; i < s.n - 1; i++) {
        const char *x = i ? arena_printf(a, "t%d", i - 1) : "x";
        const int skip = i > 1 ? draw(&s, i - 1) : 0;
        const int before = width;
        switch (i ? draw(&s, 6) : 0) {
        case 0:
        case 1:
        case 2:
            width = 8 << draw(&s, 6);
            s.text[i] = arena_printf(a, "t%d = linear(%s, %d)", i, x, width);
            break;
        case 3:
            s.text[i] =
                i > 1 && widths[skip] == before
                    ? arena_printf(a, "t%d = %s + t%d", i, x, skip)
                    : arena_printf(a, "t%d = gelu(linear(%s, %d) as fc%d)", i, x, before, i);
            break;
        case 4:
            s.text[i] = arena_printf(a, "t%d = layernorm(%s)", i, x);
            break;
        default:
            s.text[i] = arena_printf(a, "t%d = tanh(%s)", i, x);
        }
        widths[i] = width;
        s.fixed[i] = NONE;
    }
    s.text[s.n - 1] = arena_printf(a, "loss cross_entropy(t%d, y)", s.n - 2);
    s.fixed[s.n - 1] = NONE;
    if (s.pieces == s.gpus &&
        draw(&s, 4) == 0) { /* one statement is annotated, with room on both sides */
        const int k = draw(&s, s.gpus), at = k + draw(&s, s.n - s.gpus + 1);
        s.fixed[at] = k;
    }
    s.rest = arena_printf(
        a,
        "train { batch = %d; optimizer = %s; }\n"
        "parallel { microbatch = 2; schedule = %s; split = %s; }\n"
        "devices gpu[%d] { compute = %d GFLOPS; bandwidth = 10 GB/s; link = %s; latency = %s; }\n",
        2 << draw(&s, 4), pick(&s, optimizers, 2), schedule, memory ? "memory" : "time", s.gpus,
        1 + draw(&s, 50), pick(&s, links, 3), pick(&s, latencies, 3));
    return s;
}

/* The model with statement i on gpu[place[i]]; NONE: not annotated. */
static const char *write_model(const Sample *s, const int *place)
{
    Text t = {.arena = s->arena};
    text_add(&t, "model random {\ninput x : f32[16];\ntarget y : i32;\n");
    for (int i = 0; i < s->n; i++) {
        text_add(&t, s->text[i]);
        if (place[i] != NONE)
            text_printf(&t, " @gpu[%d]", place[i] % s->gpus);
        text_add(&t, ";\n");
    }
    text_add(&t, "}\n");
    text_add(&t, s->rest);
    return t.at;
}

typedef struct {
    double seconds;
    int64_t bytes;
} Result;

static Result measure(const Sample *s, const int *place)
{
    Compiled c = compile_text(write_model(s, place), NULL);
    if (!c.program)
        print_error("%s\n", write_model(s, place));
    assert_non_null(c.program);
    Result r = {.seconds = timeline_make(c.arena, c.program, TIMELINE_SECONDS)->period};
    assert_int_equal(c.program->devices.n, s->gpus);
    for (int d = 0; d < c.program->devices.n; d++)
        r.bytes =
            c.program->devices.at[d].bytes > r.bytes ? c.program->devices.at[d].bytes : r.bytes;
    compiled_free(&c);
    return r;
}

/* All ways to place statements from i on; `before`: the piece of the one before, NONE at first. */
static void enumerate(const Sample *s, int *place, int i, int before, Result *best)
{
    if (i == s->n) {
        if (before != s->pieces - 1)
            return;
        const Result r = measure(s, place);
        best->seconds = best->bytes < 0 || r.seconds < best->seconds ? r.seconds : best->seconds;
        best->bytes = best->bytes < 0 || r.bytes < best->bytes ? r.bytes : best->bytes;
        return;
    }
    for (int k = before == NONE ? 0 : before; k <= before + 1 && k < s->pieces; k++) {
        if (s->fixed[i] != NONE && s->fixed[i] != k)
            continue;
        place[i] = k;
        enumerate(s, place, i + 1, k, best);
    }
}

static void try_goal(bool memory)
{
    for (uint64_t seed = 0; seed < SAMPLES; seed++) {
        Arena *a = arena_new();
        Sample s = random_sample(a, seed, memory);
        int place[MOST];
        Result best = {0, -1};
        enumerate(&s, place, 0, NONE, &best);
        const Result own = measure(&s, s.fixed);
        if (memory ? own.bytes != best.bytes : own.seconds > best.seconds * (1 + 1e-9))
            print_error("model %d: %.9g s, %lld bytes; best %.9g s, %lld bytes\n%s\n", (int)seed,
                        own.seconds, (long long)own.bytes, best.seconds, (long long)best.bytes,
                        write_model(&s, s.fixed));
        if (memory)
            assert_int_equal(own.bytes, best.bytes);
        else
            assert_true(own.seconds <= best.seconds * (1 + 1e-9));
        arena_free(a);
    }
}

typedef VEC(Result) Results;

/* As enumerate(), and keeps them all. */
static void collect(const Sample *s, int *place, int i, int before, Results *all)
{
    if (i == s->n) {
        if (before == s->pieces - 1)
            VEC_PUSH(s->arena, all, measure(s, place));
        return;
    }
    for (int k = before == NONE ? 0 : before; k <= before + 1 && k < s->pieces; k++)
        if (s->fixed[i] == NONE || s->fixed[i] == k) {
            place[i] = k;
            collect(s, place, i + 1, k, all);
        }
}

/* Within a limit of memory that some of the splits keep: the plan keeps it, too, and of those that
 * do takes the shortest step, or nearly. */
static void test_within_memory(void **state)
{
    (void)state;
    int exact = 0, tried = 0;
    for (uint64_t seed = 0; seed < SAMPLES / 4; seed++) {
        Arena *a = arena_new();
        Sample s = random_sample(a, seed, false);
        int place[MOST];
        Results all = {0};
        collect(&s, place, 0, NONE, &all);
        const int64_t limit = all.at[draw(&s, all.n)].bytes;
        double best = 0;
        for (int i = 0; i < all.n; i++)
            if (all.at[i].bytes <= limit && (best <= 0 || all.at[i].seconds < best))
                best = all.at[i].seconds;
        const char *sets[] = {arena_printf(a, "devices.memory=%lld B", (long long)limit), NULL};
        Compiled c = compile_text(write_model(&s, s.fixed), sets);
        if (!c.program)
            print_error("model %d does not fit into %lld bytes, where it could\n", (int)seed,
                        (long long)limit);
        assert_non_null(c.program);
        const double step = timeline_make(c.arena, c.program, TIMELINE_SECONDS)->period;
        if (step > best * 1.1)
            print_error("model %d: %.9g s, best %.9g s\n", (int)seed, step, best);
        assert_true(step <= best * 1.1);
        tried++;
        exact += step <= best * (1 + 1e-9);
        compiled_free(&c);
        arena_free(a);
    }
    print_message("%d of %d are the shortest\n", exact, tried);
    assert_true(exact >= tried * 9 / 10);
}

/* A searched order is no worse than the best named one that fits. */
static void test_searched_is_best(void **state)
{
    (void)state;
    static const char *const named[] = {"parallel.schedule=1f1b",        "parallel.schedule=gpipe",
                                        "parallel.schedule=interleaved", "parallel.schedule=zb_v",
                                        "parallel.schedule=zero_bubble", "parallel.schedule=zb_h2"};
    int fitting = 0;
    for (uint64_t seed = 0; seed < SAMPLES / 8; seed++) {
        Arena *a = arena_new();
        Sample s = random_sample(a, seed, false);
        for (int i = 0; i < s.n; i++)
            s.fixed[i] = NONE;
        Compiled free = compile_text(write_model(&s, s.fixed), NULL);
        assert_non_null(free.program);
        const int64_t bytes = free.program->devices.at[0].bytes;
        const char *memory =
            arena_printf(a, "devices.memory=%lld B", (long long)bytes * (90 + draw(&s, 60)) / 100);
        compiled_free(&free);
        double best = 0, found = 0;
        for (int k = 0; k < 7; k++) {
            const char *sets[] = {k < 6 ? named[k] : "parallel.schedule=searched", memory, NULL};
            Compiled c = compile_text(write_model(&s, s.fixed), sets);
            double *step = k < 6 ? &best : &found;
            const double now =
                c.program ? timeline_make(c.arena, c.program, TIMELINE_SECONDS)->period : 0;
            *step = now > 0 && (*step <= 0 || now < *step) ? now : *step;
            compiled_free(&c);
        }
        if (best > 0 && !(found > 0 && found <= best * (1 + 1e-9)))
            print_error("model %d within %s: searched %.9g s, named %.9g s\n", (int)seed, memory,
                        found, best);
        assert_true(best <= 0 || (found > 0 && found <= best * (1 + 1e-9)));
        fitting += best > 0;
        arena_free(a);
    }
    assert_true(fitting > 10);
}

static void test_shortest_step(void **state)
{
    (void)state;
    try_goal(false);
}

static void test_least_memory(void **state)
{
    (void)state;
    try_goal(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shortest_step),
        cmocka_unit_test(test_least_memory),
        cmocka_unit_test(test_within_memory),
        cmocka_unit_test(test_searched_is_best),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
