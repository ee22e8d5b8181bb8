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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
