/* plan_workshop.c - see plan_workshop.h */
#include "plan_workshop.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static Model *read_model(Arena *a, Diag *d, const char *text)
{
    char path[] = "plan_model_XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    size_t n = strlen(text);
    assert_int_equal(write(fd, text, n), n);
    close(fd);
    FrontOptions o = {0};
    struct Ast *ast = parse_file(a, d, path, &o);
    unlink(path);
    return ast ? elaborate(a, d, ast, &o) : NULL;
}

static Work compile(const char *text, ScheduleKind kind, int64_t microbatches, bool gpus)
{
    Work w = {.arena = arena_new()};
    Diag *d = diag_new(w.arena);
    Model *m = read_model(w.arena, d, text);
    diag_flush(d, stderr, false);
    assert_non_null(m);
    m->source = "model.mdl";
    m->settings.parallel.schedule = kind;
    m->settings.train.batch = microbatches * m->settings.parallel.microbatch;
    simplify(m->graph);
    mix_precision(m->graph, m->settings.train.precision);
    recompute(m, false, d);
    assert_true(differentiate(m->graph, &m->settings, d));
    Placement *pl = place(m, split(m, gpus), d);
    assert_non_null(pl);
    fuse(m->graph, pl);
    w.program = lower(m, pl, d);
    assert_non_null(w.program);
    if (gpus)
        assert_true(program_for_gpus(w.program, d));
    communicate(w.program, schedule(w.program, kind, false), schedule(w.program, kind, true));
    assert_true(allocate(w.program, d));
    return w;
}

Work work_compile(const char *text, ScheduleKind kind, int64_t microbatches)
{
    return compile(text, kind, microbatches, false);
}

Work work_compile_gpus(const char *text, int64_t microbatches)
{
    return compile(text, SCHEDULE_1F1B, microbatches, true);
}

Work work_chain(int stages, int each, int microbatches, ScheduleKind kind)
{
    char text[1000];
    snprintf(text, sizeof text,
             "model chain { input x : f32[32]; target y : f32[32];"
             "for i in 0 .. %d { x = relu(linear(x, 32) as fc[i]) @gpu[i / %d]; }"
             "loss mse(x, y); }"
             "train { batch = 2; optimizer = adam(lr = 1e-3); clip_norm = 1; steps = 10; }"
             "parallel { microbatch = 2; }",
             stages * each, each);
    return work_compile(text, kind, microbatches);
}

Work work_looped(int stages, int turns, int microbatches)
{
    char text[1000];
    snprintf(text, sizeof text,
             "model looped { input x : f32[32]; target y : f32[32];"
             "for i in 0 .. %d { x = relu(linear(x, 32) as fc[i]) @gpu[i %% %d]; }"
             "loss mse(x, y); }"
             "train { batch = 2; optimizer = sgd(lr = 0.1); steps = 1; }"
             "parallel { microbatch = 2; }",
             stages * turns, stages);
    return work_compile(text, SCHEDULE_INTERLEAVED, microbatches);
}

Work work_apart(int stages, int microbatches, ScheduleKind kind)
{
    char text[1000];
    const int chunks = kind == SCHEDULE_ZB_V ? 2 * stages : stages;
    snprintf(text, sizeof text,
             "model apart { input x : f32[32]; target y : f32[32];"
             "for i in 0 .. %d { x = relu(linear(x, 32) as fc[i]); } loss mse(x, y); }"
             "train { batch = 2; optimizer = sgd(lr = 0.1); steps = 1; }"
             "parallel { microbatch = 2; schedule = %s; }"
             "devices gpu[%d] { compute = 10 MFLOPS; }",
             chunks, schedule_kind_name(kind), stages);
    return work_compile(text, kind, microbatches);
}

Work work_interleaved(int microbatches)
{
    return work_compile("model two_turns { input x : f32[32]; target y : f32[32];"
                        "a = linear(x, 32) as first @gpu[0];"
                        "b = relu(linear(a, 32) as b) @gpu[0]; c = linear(b, 32) @gpu[1];"
                        "e = linear(c, 32) @gpu[0];"
                        "f = linear(e, 32, weight = first.weight) @gpu[1];"
                        "loss mse(f, y); }"
                        "train { batch = 2; optimizer = sgd(lr = 0.1); steps = 1; }"
                        "parallel { microbatch = 2; }",
                        SCHEDULE_1F1B, microbatches);
}

void work_free(Work *w)
{
    arena_free(w->arena);
    w->arena = NULL;
}
