/* passes.c - see passes.h */
#include "passes.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int count(const char *const *list)
{
    int n = 0;
    while (list && list[n])
        n++;
    return n;
}

static Compiled compile(bool gpu, const char *path, const char *const *defines,
                        const char *const *sets, const unsigned char *levels)
{
    Compiled c = {.arena = arena_new(), .sink = fopen("/dev/null", "w")};
    c.diag = diag_new(c.arena);
    FrontOptions o = {
        .defines = defines, .ndefines = count(defines), .sets = sets, .nsets = count(sets)};
    struct Ast *ast = parse_file(c.arena, c.diag, path, &o);
    c.model = ast ? elaborate(c.arena, c.diag, ast, &o) : NULL;
    if (!c.model)
        return c;
    Graph *g = c.model->graph;
    simplify(g);
    mix_precision(g, c.model->settings.train.precision);
    if (levels)
        recompute_levels(c.model, levels);
    else
        recompute(c.model, gpu, c.diag);
    if (!differentiate(g, &c.model->settings, c.diag))
        return c;
    Placement *pl = place(c.model, split(c.model, gpu), c.diag);
    if (!pl)
        return c;
    fuse(g, pl);
    if (!graph_check(g, stderr))
        abort();
    Program *p = lower(c.model, pl, c.diag);
    if (gpu && !program_for_gpus(p, c.diag))
        return c;
    ScheduleKind kind = c.model->settings.parallel.schedule;
    offload(p, c.diag);
    const SlotList *eval = schedule(p, kind, true);
    communicate(p, schedule_train(p, eval), eval);
    if (gpu)
        order_waits(p);
    if (allocate(p, c.diag))
        c.program = p;
    return c;
}

Compiled compile_for(bool gpu, const char *path, const char *const *defines,
                     const char *const *sets)
{
    return compile(gpu, path, defines, sets, NULL);
}

Compiled compile_file(const char *path, const char *const *defines, const char *const *sets)
{
    return compile_for(false, path, defines, sets);
}

Compiled compile_text(const char *text, const char *const *sets)
{
    return compile_text_for(false, text, sets);
}

static Compiled compile_written(bool gpu, const char *text, const char *const *sets,
                                const unsigned char *levels)
{
    static char path[32]; /* messages name it for as long as the test runs */
    strcpy(path, "/tmp/passes-XXXXXX.mdl");
    int fd = mkstemps(path, 4);
    if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
        abort();
    close(fd);
    Compiled c = compile(gpu, path, NULL, sets, levels);
    unlink(path);
    return c;
}

Compiled compile_text_for(bool gpu, const char *text, const char *const *sets)
{
    return compile_written(gpu, text, sets, NULL);
}

Compiled compile_levels(const char *text, const unsigned char *levels)
{
    return compile_written(false, text, NULL, levels);
}

void compiled_free(Compiled *c)
{
    fclose(c->sink);
    arena_free(c->arena);
}

bool proved(const Compiled *c)
{
    bool ok = verify_coverage(c->program, c->sink);
    ok = verify_deadlock(c->program, c->sink) && ok;
    ok = verify_races(c->program, c->sink) && ok;
    return verify_memory(c->program, c->sink) && ok;
}
