/* test_broken.c - the proofs, put to the proof: Programs broken by lot, and a judge that executes
 * them.
 *
 * In:  valid Programs under all schedules, for the host and for GPUs, in f32, bf16 and f16.
 * Out: none of them goes wrong in any interleaving tried; and every mutation of them that
 * executor.c can make go wrong is refused by at least one of the four proofs.
 *
 * The judge looks at results alone: weights, optimizer state and reports of two steps and an
 * evaluation against those of the graph. So a mutation that it calls wrong is wrong. One that it
 * does not may be harmless (an action moved past one that it has nothing to do with), or need an
 * interleaving that was not drawn; the proofs may say of these what they like. */
#include <stdlib.h>
#include <string.h>

#include "executor.h"
#include "mutations.h"
#include "passes.h"

enum { RUNS_VALID = 200, RUNS_PROVED = 200, RUNS_REFUSED = 40, MOST_KINDS = 40 };

typedef struct {
    int tried, refused, wrong, both;
} Tally;

typedef struct {
    Tally kind[MOST_KINDS];
    int valid, holes, offloads;
} Count;

static bool all_proved(const Program *p, FILE *to)
{
    bool ok = verify_coverage(p, to);
    ok = verify_deadlock(p, to) && ok;
    ok = verify_races(p, to) && ok;
    return verify_memory(p, to) && ok;
}

static void try_mutation(const Compiled *c, const Results *r, const char *name, int kind,
                         uint64_t seed, Count *count)
{
    enum { TRIES = 8 };
    Arena *a = arena_new();
    Mutation u = {.arena = a};
    bool done = false;
    for (uint64_t i = 0; i < TRIES && !done; i++) {
        u.p = program_copy(a, c->program);
        u.chance = seed * TRIES + i;
        done = mutation_do(&u, kind);
    }
    if (done) {
        const bool proved = all_proved(u.p, c->sink);
        const char *wrong = execute_many(a, u.p, r, proved ? RUNS_PROVED : RUNS_REFUSED, seed);
        Tally *t = &count->kind[kind];
        t->tried++;
        t->refused += !proved;
        t->wrong += wrong != NULL;
        t->both += !proved && wrong;
        if (wrong && proved) {
            count->holes++;
            print_error("%s, seed %llu: %s (%s) is proved, but %s\n", name,
                        (unsigned long long)seed, mutation_name(kind), u.what, wrong);
        }
    }
    arena_free(a);
}

/* One valid Program and `each` mutations of it, the kinds in turn. */
static void try_program(Compiled *c, const char *name, int each, uint64_t seed, Count *count)
{
    assert_non_null(c->program);
    Arena *a = arena_new();
    Results r = expect_results(a, c->program);
    const char *wrong = execute_many(a, c->program, &r, RUNS_VALID, seed);
    const bool proved = all_proved(c->program, stderr);
    if (wrong || !proved)
        print_error("%s is valid, but %s\n", name, wrong ? wrong : "not proved");
    count->holes += wrong || !proved;
    count->valid++;
    for (int n = 0; n < each; n++)
        try_mutation(c, &r, name, (int)((seed + (uint64_t)n) % (uint64_t)mutation_kinds()),
                     seed * 1000 + (uint64_t)n, count);
    arena_free(a);
    compiled_free(c);
}

enum { SCHEDULES = 7 };
static const char *const schedules[SCHEDULES] = {
    "parallel.schedule=1f1b",        "parallel.schedule=gpipe", "parallel.schedule=interleaved",
    "parallel.schedule=zero_bubble", "parallel.schedule=zb_h2", "parallel.schedule=zb_v",
    "parallel.schedule=searched"};
static const char *const transfers[] = {NULL, "parallel.transfer=peer", "parallel.transfer=nccl"};

/* Tied weights, chunks that come back to a device, loops, clipping: see random_model.c. */
static void try_random(int from, int models, int each, Count *count)
{
    for (int i = from; i < from + models; i++)
        for (int k = 0; k < 3; k++) {
            Arena *a = arena_new();
            const char *sets[] = {schedules[i % SCHEDULES], transfers[k], NULL};
            Compiled c = compile_text_for(k > 0, random_model(a, (uint64_t)i), sets);
            const char *name =
                arena_printf(a, "random model %d, %s, %s", i, sets[0], k ? transfers[k] : "links");
            try_program(&c, name, each, (uint64_t)(3 * i + k), count);
            arena_free(a);
        }
}

/* Skips over stages, tied weights, a weight on a device that does not use it; four stages, and two
 * devices that have two chunks each. */
static void try_models(int each, Count *count)
{
    static const char *const models[] = {
        RUN_MODELS "/mlp.mdl", RUN_MODELS "/unet.mdl", RUN_MODELS "/tied.mdl",
        RUN_MODELS "/strange/four_uses.mdl", RUN_MODELS "/strange/weight_elsewhere.mdl"};
    static const char *const splits[][3] = {{"parts=4", "gpus=4", NULL},
                                            {"parts=4", "gpus=2", NULL}};
    static const char *const none[] = {NULL};
    uint64_t seed = 1000000;
    for (int m = 0; m < 5; m++)
        for (int s = 0; s < SCHEDULES; s++)
            for (int k = 0; k < 3; k++) {
                const char *sets[] = {schedules[s], transfers[k], NULL};
                Compiled c =
                    compile_for(k > 0, models[m], m == 4 ? none : splits[(s + k) % 2], sets);
                char name[256];
                snprintf(name, sizeof name, "%s, %s, %s", models[m], sets[0],
                         k ? transfers[k] : "links");
                try_program(&c, name, each, seed++, count);
            }
}

/* What is kept is in the host's memory meanwhile. */
static void try_offloads(int each, Count *count)
{
    static const char *const models[] = {RUN_MODELS "/mlp.mdl", RUN_MODELS "/unet.mdl",
                                         RUN_MODELS "/tied.mdl"};
    static const char *const splits[][3] = {{"parts=4", "gpus=4", NULL},
                                            {"parts=4", "gpus=2", NULL}};
    static const char *const orders[] = {"parallel.schedule=gpipe", "parallel.schedule=zb_h2",
                                         "parallel.schedule=interleaved"};
    uint64_t seed = 2000000;
    for (int m = 0; m < 3; m++)
        for (int s = 0; s < 3; s++)
            for (int k = 0; k < 3; k++) {
                const char *sets[] = {orders[s], "parallel.offload=activations",
                                      "devices.host_link=1 GB/s", transfers[k], NULL};
                Compiled c = compile_for(k > 0, models[m], splits[(s + k) % 2], sets);
                char name[256];
                snprintf(name, sizeof name, "%s, offloaded, %s, %s", models[m], sets[0],
                         k ? transfers[k] : "links");
                assert_non_null(c.program);
                for (int d = 0; d < c.program->devices.n; d++)
                    count->offloads += c.program->devices.at[d].offloads.n;
                try_program(&c, name, each, seed++, count);
            }
}

static int print_count(const Count *count, bool all)
{
    Tally sum = {0};
    for (int k = 0; k < mutation_kinds(); k++) {
        const Tally *t = &count->kind[k];
        sum.tried += t->tried, sum.wrong += t->wrong;
        sum.refused += t->refused, sum.both += t->both;
        if (all)
            print_message("%-26s %7d, wrong %7d, refused %7d, both %7d\n", mutation_name(k),
                          t->tried, t->wrong, t->refused, t->both);
    }
    print_message("%d programs; %d mutations, wrong %d, refused %d, both %d\n", count->valid,
                  sum.tried, sum.wrong, sum.refused, sum.both);
    return sum.wrong;
}

static void test_what_goes_wrong_is_refused(void **state)
{
    (void)state;
    Count count = {0};
    try_random(0, 35, 40, &count);
    try_models(12, &count);
    try_offloads(50, &count);
    assert_in_range(count.offloads, 50, 1000000);
    assert_in_range(print_count(&count, false), 1000, 1000000);
    for (int k = 0; k < mutation_kinds(); k++) {
        if (count.kind[k].wrong == 0)
            print_error("%s never goes wrong: the judge sees nothing of it\n", mutation_name(k));
        assert_in_range(count.kind[k].wrong, 1, 1000000);
    }
    assert_int_equal(count.holes, 0);
}

/* -------------------------------------------------------------- numbers of nothing */

static void refuse_all(const Program *p, FILE *to)
{
    assert_false(verify_coverage(p, to));
    assert_false(verify_deadlock(p, to));
    assert_false(verify_races(p, to));
    assert_false(verify_memory(p, to));
}

/* A number that is of nothing is refused by each proof, before it is followed. */
static void refuse_number(const Compiled *c, int *at)
{
    static const int wrong[] = {-2, -1000000, 1000000, INT32_MAX, INT32_MIN};
    const int kept = *at;
    for (int i = 0; i < 5; i++) {
        *at = wrong[i];
        refuse_all(c->program, c->sink);
    }
    *at = kept;
}

static void refuse_in_list(const Compiled *c, ActionList *list)
{
    for (int i = 0; i < list->actions.n; i++) {
        Action *a = &list->actions.at[i];
        if (a->kind == ACT_RUN)
            refuse_number(c, &a->chunk);
        if (action_stream(a) == STREAM_TRANSFER)
            refuse_number(c, &a->link);
        if (action_copies(a))
            refuse_number(c, &a->chunk);
        if (a->kind == ACT_RUN || action_stream(a) != STREAM_COMPUTE)
            refuse_number(c, &a->m);
        if (a->nwaits)
            refuse_number(c, &list->waits.at[a->first_wait]);
        if (a->ntakes)
            refuse_number(c, &list->takes.at[a->first_take]);
        refuse_number(c, &a->nwaits);
        refuse_number(c, &a->ntakes);
    }
}

static void refuse_in_device(const Compiled *c, Device *d)
{
    refuse_number(c, &d->chunks.at[0]);
    for (int i = 0; i < d->buffers.n; i++) {
        refuse_number(c, &d->buffers.at[i].ring);
        d->buffers.at[i].slots *= -1;
        refuse_all(c->program, c->sink);
        d->buffers.at[i].slots *= -1;
    }
    for (int i = 0; i < d->weights.n; i++) {
        WeightRun *r = &d->weights.at[i];
        refuse_number(c, &r->weight);
        refuse_number(c, &r->buffer);
        if (r->ngrads)
            refuse_number(c, &r->grad[0]);
        refuse_number(c, &r->nstates);
    }
    refuse_in_list(c, &d->train);
    refuse_in_list(c, &d->eval);
}

static void test_numbers_of_nothing(void **state)
{
    (void)state;
    static const char *const defines[] = {"parts=2", "gpus=2", NULL};
    static const char *const sets[] = {"train.batch=8", NULL};
    Compiled c = compile_for(true, RUN_MODELS "/tied.mdl", defines, sets);
    assert_non_null(c.program);
    assert_true(all_proved(c.program, stderr));
    Program *p = c.program;
    for (int d = 0; d < p->devices.n; d++)
        refuse_in_device(&c, &p->devices.at[d]);
    for (int l = 0; l < p->links.n; l++) {
        refuse_number(&c, &p->links.at[l].from);
        refuse_number(&c, &p->links.at[l].to);
        refuse_number(&c, &p->links.at[l].source.buffer);
        refuse_number(&c, &p->links.at[l].target.buffer);
        refuse_number(&c, &p->links.at[l].target.at);
    }
    for (int k = 0; k < p->chunks.n; k++) {
        Chunk *chunk = &p->chunks.at[k];
        refuse_number(&c, &chunk->device);
        for (int i = 0; i < chunk->run[RUN_F].steps.n; i++) {
            refuse_number(&c, &chunk->run[RUN_F].steps.at[i].first);
            refuse_number(&c, &chunk->run[RUN_F].steps.at[i].ncalls);
        }
        for (int i = 0; i < chunk->run[RUN_F].calls.n; i++)
            if (chunk->run[RUN_F].calls.at[i].nin)
                refuse_number(&c, &chunk->run[RUN_F].calls.at[i].in[0].buffer);
    }
    assert_true(all_proved(c.program, stderr));
    compiled_free(&c);
}

/* No argument: the tests. Else: FROM MODELS EACH, a longer search. */
int main(int argc, char **argv)
{
    if (argc == 4) {
        Count count = {0};
        try_random(atoi(argv[1]), atoi(argv[2]), atoi(argv[3]), &count);
        print_count(&count, true);
        return count.holes > 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_goes_wrong_is_refused),
        cmocka_unit_test(test_numbers_of_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
