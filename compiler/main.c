/* main.c - mdlc: the passes, in their order. Reading compile() is reading the compiler.
 *
 *     parse          the file and what it imports
 *     elaborate      names, shapes, blocks, loops, settings: a Graph; a schedule from a file
 *     simplify       the same in fewer operations
 *     precision      which tensors are 16 bits wide
 *     differentiate  gradients; B and W apart
 *     place          chunks and devices
 *     fuse           element-wise chains
 *     lower          phases, loops, buffers, links: a Program
 *     schedule       the order of the runs
 *     communicate    transfers and waits
 *     allocate       a place for every buffer
 *     verify         coverage, deadlock, races, memory
 *     emit           C
 *
 * --dump=PASS prints what a pass made.
 */
#include <stdlib.h>
#include <string.h>

#include "apply.h"
#include "driver.h"
#include "order.h"
#include "parse.h"
#include "recompute.h"
#include "schedule_file.h"

/* A dump is asked for by the pass, or by what the pass makes. */
static bool wants(const Options *o, const char *pass, const char *made)
{
    for (int i = 0; i < o->dumps.n; i++)
        if (strcmp(o->dumps.at[i], pass) == 0 || (made && strcmp(o->dumps.at[i], made) == 0))
            return true;
    return false;
}

static void dump_graph(const Options *o, const Compilation *c, const char *pass, const char *made)
{
    if (wants(o, pass, made))
        graph_dump(c->model->graph, c->diag, stdout);
}

static void dump_program(const Options *o, const Program *p, const char *pass, const char *made)
{
    if (wants(o, pass, made))
        program_dump(p, stdout);
}

/* The runs of every device, in their order: 0F0,0F1,0B0. */
static void dump_schedule(const Options *o, const Program *p, const SlotList *lists)
{
    for (int d = 0; d < p->devices.n && wants(o, "schedule", NULL); d++)
        for (int i = 0; i < lists[d].n; i++)
            printf("%d%s%d%s", lists[d].at[i].chunk, run_name(lists[d].at[i].run), lists[d].at[i].m,
                   i + 1 < lists[d].n ? "," : "\n");
}

static void dump_placement(const Options *o, const Compilation *c, const Placement *pl)
{
    if (!wants(o, "place", NULL))
        return;
    const Graph *g = c->model->graph;
    for (OpId i = 0; i < g->ops.n; i++)
        printf("chunk %d  device %d  %s%s%s\n", pl->chunk_of[i], pl->device_of[pl->chunk_of[i]],
               op_name(g->ops.at[i].kind), g->ops.at[i].path ? "  " : "",
               g->ops.at[i].path ? g->ops.at[i].path : "");
}

static bool verified(const Program *p)
{
    bool ok = verify_coverage(p, stderr);
    ok = verify_deadlock(p, stderr) && ok;
    ok = verify_races(p, stderr) && ok;
    return verify_memory(p, stderr) && ok;
}

static ProfileParts keep_parts(const Compilation *c, const Placement *pl)
{
    const Graph *g = c->model->graph;
    ProfileParts parts = {.key = profile_graph_key(g), .nops = g->ops.n};
    parts.row = profile_units(g, &parts.nrows);
    parts.rows = profile_rows(g, &parts.nrows);
    parts.seconds = arena_copy(c->arena, pl->seconds, sizeof *pl->seconds * (size_t)(g->ops.n + 1));
    return parts;
}

/* The file that says what the devices run. */
static int read_schedule(const Options *o, Compilation *c)
{
    const char *why = NULL;
    size_t size = 0;
    const char *text = source_read(c->arena, o->schedule_file, &size, &why);
    if (!text) {
        fprintf(stderr, "mdlc: cannot read %s: %s\n", o->schedule_file, why);
        return EXIT_USE;
    }
    return schedule_file_read(c->model, o->schedule_file, text, size, c->diag) ? EXIT_DONE
                                                                               : EXIT_MODEL;
}

/* Behind the error that a device needs too much. */
static void say_what_fits(Compilation *c, Model *before, bool gpus)
{
    if (!before)
        return;
    before->settings.parallel.microbatch = c->model->settings.parallel.microbatch;
    const char *list = search_fits(c->arena, before, gpus);
    if (list)
        diag_help(c->diag, "what fits, each alone: %s", list);
    else
        diag_help(c->diag, "no single change fits; mdlc plan --search tries all together");
}

/* Finds the best settings for what follows. */
static bool search(const Options *o, Compilation *c, const struct Ast *ast, const Profile *profile,
                   bool gpus)
{
    if (!search_settings(c->model, profile, gpus, &c->search)) {
        diag_error(c->diag, c->model->settings.devices.at,
                   "of %d settings of parallel none fits into the memory of the devices",
                   c->search.tried);
        diag_help(c->diag, "more devices, or an optimizer with less state");
        return false;
    }
    if (o->apply)
        c->applied =
            apply_settings(c->arena, diag_source(c->diag, ast->file), ast, &c->search.rows.at[0]);
    return true;
}

/* EXIT_DONE, or what stopped it; messages are in c->diag. */
static int compile(const Options *o, Compilation *c)
{
    struct Ast *ast = parse_file(c->arena, c->diag, o->input, &o->front);
    if (!ast)
        return EXIT_MODEL;
    if (wants(o, "parse", "ast"))
        ast_dump(ast, stdout);

    c->model = elaborate(c->arena, c->diag, ast, &o->front);
    if (!c->model)
        return EXIT_MODEL;
    const Profile *profile = o->profile ? profile_read(c->arena, o->profile, c->diag) : NULL;
    if (o->profile && !profile)
        return EXIT_USE;
    Graph *g = c->model->graph;
    if (!graph_check(g, stderr))
        return EXIT_BUG;
    dump_graph(o, c, "elaborate", "graph");
    const int code = o->schedule_file ? read_schedule(o, c) : EXIT_DONE;
    if (code != EXIT_DONE)
        return code;

    simplify(g);
    if (!graph_check(g, stderr))
        return EXIT_BUG;
    dump_graph(o, c, "simplify", NULL);

    mix_precision(g, c->model->settings.train.precision);
    if (!graph_check(g, stderr))
        return EXIT_BUG;
    dump_graph(o, c, "precision", NULL);

    const bool gpus = o->target != TARGET_HOST;
    if (o->search && !search(o, c, ast, profile, gpus))
        return EXIT_MODEL;

    Model *before = c->model->settings.devices.memory > 0 ? search_before(c->model) : NULL;
    recompute(c->model, gpus, c->diag);
    if (!differentiate(g, &c->model->settings, c->diag))
        return EXIT_MODEL;
    if (!graph_check(g, stderr))
        return EXIT_BUG;
    dump_graph(o, c, "differentiate", "gradients");
    c->model->profile = profile;
    if (profile && !profile_take(profile, c->model, c->diag))
        return EXIT_MODEL;

    Placement *pl = place(c->model, split(c->model, gpus), c->diag);
    if (!pl)
        return EXIT_MODEL;
    dump_placement(o, c, pl);
    if (profile && !profile_fits(profile, c->model, pl->ndevices, c->diag))
        return EXIT_MODEL;

    if (o->command == COMMAND_PROFILE)
        c->parts = keep_parts(c, pl);
    fuse(g, pl);
    c->parts.fused = pl->fused;
    if (!graph_check(g, stderr))
        return EXIT_BUG;
    dump_graph(o, c, "fuse", NULL);

    Program *p = lower(c->model, pl, c->diag);
    if (!p)
        return EXIT_MODEL;
    p->by_call = o->command == COMMAND_PROFILE;
    dump_program(o, p, "lower", NULL);

    ScheduleKind kind = c->model->settings.parallel.schedule;
    if (gpus && !program_for_gpus(p, c->diag))
        return EXIT_MODEL;
    const ScheduleFile *file = c->model->settings.parallel.file;
    if (file && !schedule_file_ends(file, p, c->diag))
        return EXIT_MODEL;
    offload(p, c->diag);
    SlotList *eval = schedule(p, kind, true), *train = schedule_train(p, eval);
    dump_schedule(o, p, train);

    communicate(p, train, eval);
    dump_program(o, p, "communicate", NULL);

    if (p->transfer != TRANSFER_LINKS)
        order_waits(p);
    dump_program(o, p, "order", NULL);

    c->program = p;
    if (!allocate(p, c->diag)) {
        say_what_fits(c, before, gpus);
        return EXIT_MODEL;
    }
    dump_program(o, p, "allocate", "program");

    return verified(p) ? EXIT_DONE : EXIT_BUG;
}

static int carry_out(const Options *o, const Compilation *c)
{
    switch (o->command) {
    case COMMAND_BUILD:
        return build_trainer(o, c);
    case COMMAND_RUN:
        return build_run(o, c);
    case COMMAND_EMIT:
        return build_emit(o, c);
    case COMMAND_PLAN:
        return report_plan(o, c);
    case COMMAND_PROFILE:
        return profile_measure(o, c);
    default:
        return EXIT_DONE;
    }
}

/* The whole of a file or of standard input, at most 16 MiB; NULL when it cannot be read. */
static char *read_all(Arena *a, const char *path, size_t *size)
{
    enum { LIMIT = 16 << 20 };
    FILE *f = strcmp(path, "-") == 0 ? stdin : fopen(path, "rb");
    if (!f)
        return NULL;
    char *text = arena_alloc(a, LIMIT + 2);
    *size = fread(text, 1, LIMIT + 1, f);
    bool bad = ferror(f) || *size > LIMIT;
    if (f != stdin)
        fclose(f);
    return bad ? NULL : text;
}

static int format(const Options *o, Compilation *c)
{
    size_t size = 0;
    char *text = read_all(c->arena, o->input, &size);
    if (!text) {
        fprintf(stderr, "mdlc: cannot read %s (at most 16 MiB)\n", o->input);
        return EXIT_USE;
    }
    char *neat = format_source(c->arena, c->diag, o->input, text, size);
    if (!neat)
        return EXIT_MODEL;
    bool same = strlen(neat) == size && memcmp(neat, text, size) == 0;
    if (o->fmt_check) {
        if (!same)
            fprintf(stderr, "%s is not in the canonical layout; mdlc fmt %s writes it\n", o->input,
                    o->input);
        return same ? EXIT_DONE : EXIT_MODEL;
    }
    if (strcmp(o->input, "-") == 0)
        return fputs(neat, stdout) < 0 ? EXIT_USE : EXIT_DONE;
    if (same)
        return EXIT_DONE;
    return build_replace_file(o->input, neat) ? EXIT_DONE : EXIT_USE;
}

int main(int argc, char **argv)
{
    Compilation c = {.arena = arena_new()};
    c.diag = diag_new(c.arena);
    Options o;
    int code = EXIT_DONE;
    if (options_parse(c.arena, argc, argv, &o, &code)) {
        if (o.command == COMMAND_DOCTOR)
            code = doctor(&o);
        else if (o.command == COMMAND_FMT)
            code = format(&o, &c);
        else
            code = compile(&o, &c);
        diag_flush(c.diag, stderr, o.json_diagnostics);
        if (code == EXIT_DONE && o.command != COMMAND_FMT && o.command != COMMAND_DOCTOR)
            code = carry_out(&o, &c);
        if (code == EXIT_BUG)
            fprintf(stderr, "mdlc: this is a bug in the compiler, not in the model\n");
    }
    arena_free(c.arena);
    return code;
}
