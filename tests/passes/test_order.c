/* test_order.c - waits between the streams of GPUs: what is left of them is enough, and every one
 * that is left is needed: without it the proof of freedom from races fails. */
#include "passes.h"

#include <string.h>

static const char *const models[] = {RUN_MODELS "/mlp.mdl", RUN_MODELS "/unet.mdl",
                                     RUN_MODELS "/tied.mdl"};
static const char *const splits[][3] = {{"parts=1", "gpus=1", NULL},
                                        {"parts=2", "gpus=2", NULL},
                                        {"parts=4", "gpus=4", NULL},
                                        {"parts=4", "gpus=2", NULL}};
static const char *const transfers[] = {"parallel.transfer=peer", "parallel.transfer=nccl"};
static const char *const schedules[] = {"parallel.schedule=gpipe", "parallel.schedule=1f1b",
                                        "parallel.schedule=zero_bubble"};

static ActionList *list_of(const Compiled *c, int device, int eval)
{
    Device *d = &c->program->devices.at[device];
    return eval ? &d->eval : &d->train;
}

/* Takes away one wait of one action after the other. Returns how many there are. */
static int each_wait_is_needed(const Compiled *c, int device, int eval)
{
    ActionList *list = list_of(c, device, eval);
    int n = 0;
    for (int i = 0; i < list->actions.n; i++) {
        Action *a = &list->actions.at[i];
        for (int k = 0; k < a->nwaits; k++) {
            int *at = &list->waits.at[a->first_wait + k], kept = *at;
            const Action *on = &list->actions.at[kept];
            /* what is said of a whole link is tried by links */
            if (c->program->transfer == TRANSFER_PEER && on->kind == ACT_RECV)
                continue;
            int last = list->waits.at[a->first_wait + a->nwaits - 1];
            *at = last;
            list->waits.at[a->first_wait + a->nwaits - 1] = kept;
            a->nwaits--;
            if (verify_races(c->program, c->sink))
                print_error("gpu %d, %s, action %d: its wait for action %d is not needed\n", device,
                            eval ? "evaluation" : "step", i, kept);
            assert_false(verify_races(c->program, c->sink));
            a->nwaits++;
            list->waits.at[a->first_wait + a->nwaits - 1] = last;
            *at = kept;
            n++;
        }
    }
    return n;
}

/* Takes away, in steps and evaluations, that sends over the link wait for the post. */
static bool posts_are_needed(const Compiled *c, int link, int *n)
{
    for (int round = 0; round < 2; round++) {
        int found = 0;
        for (int d = 0; d < c->program->devices.n; d++)
            for (int eval = 0; eval < 2; eval++) {
                ActionList *list = list_of(c, d, eval);
                for (int i = 0; i < list->actions.n; i++) {
                    Action *a = &list->actions.at[i];
                    if (a->kind != ACT_SEND || a->link != link)
                        continue;
                    bool rule = a->m >= c->program->links.at[link].post_from;
                    if (round == 0) {
                        assert_int_equal(a->after_post, rule);
                        found += rule;
                        a->after_post = false;
                    } else {
                        a->after_post = rule;
                    }
                }
            }
        if (round == 0 && found > 0) {
            *n += 1;
            if (verify_races(c->program, c->sink))
                return false;
        }
    }
    return true;
}

/* The same for the runs that wait for what comes over the link. */
static bool takes_are_needed(const Compiled *c, int link, int *n)
{
    bool needed = true;
    int found = 0;
    Arena *a = c->arena;
    VEC(Action *) who = {0};
    VEC(int) before = {0};
    for (int d = 0; d < c->program->devices.n; d++)
        for (int eval = 0; eval < 2; eval++) {
            ActionList *list = list_of(c, d, eval);
            for (int i = 0; i < list->actions.n; i++) {
                Action *x = &list->actions.at[i];
                VEC_PUSH(a, &who, x);
                VEC_PUSH(a, &before, x->nwaits);
                for (int k = 0; k < x->nwaits; k++) {
                    int *at = &list->waits.at[x->first_wait + k];
                    const Action *on = &list->actions.at[*at];
                    if (on->kind != ACT_RECV || on->link != link)
                        continue;
                    int *last = &list->waits.at[x->first_wait + x->nwaits - 1], t = *at;
                    *at = *last;
                    *last = t;
                    x->nwaits--;
                    k--;
                    found++;
                }
            }
        }
    if (found > 0) {
        *n += 1;
        needed = !verify_races(c->program, c->sink);
    }
    for (int i = 0; i < who.n; i++)
        who.at[i]->nwaits = before.at[i];
    return needed;
}

static int try_model(const char *path, const char *const *defines, const char *const *sets)
{
    Compiled c = compile_for(true, path, defines, sets);
    assert_non_null(c.program);
    assert_true(proved(&c));
    int n = 0;
    for (int d = 0; d < c.program->devices.n; d++)
        for (int eval = 0; eval < 2; eval++)
            n += each_wait_is_needed(&c, d, eval);
    for (int l = 0; l < c.program->links.n && c.program->transfer == TRANSFER_PEER; l++) {
        assert_true(posts_are_needed(&c, l, &n));
        assert_true(takes_are_needed(&c, l, &n));
    }
    assert_true(proved(&c));
    compiled_free(&c);
    return n;
}

static void test_every_wait_is_needed(void **state)
{
    (void)state;
    int n = 0;
    for (int m = 0; m < 3; m++)
        for (int s = 0; s < 4; s++)
            for (int t = 0; t < 2; t++)
                for (int k = 0; k < 3; k++) {
                    const char *const sets[] = {transfers[t], schedules[k], "parallel.microbatch=2",
                                                NULL};
                    n += try_model(models[m], splits[s], sets);
                }
    assert_true(n > 500);
}

static void test_any_number_of_micro_batches(void **state)
{
    (void)state;
    for (int batch = 1; batch <= 9; batch++)
        for (int t = 0; t < 2; t++)
            for (int k = 0; k < 3; k++) {
                char text[32];
                snprintf(text, sizeof text, "train.batch=%d", batch);
                const char *const sets[] = {transfers[t], schedules[k], text,
                                            "parallel.microbatch=1", NULL};
                try_model(models[0], splits[2], sets);
                try_model(models[1], splits[3], sets);
            }
}

/* A copy of a weight ends when its owner has updated it, in the middle of the next step of a device
 * that hears nothing else of the owner: that device waits at the end of its step. */
static void test_weights_come_before_the_next_step(void **state)
{
    (void)state;
    const char *const path = RUN_MODELS "/strange/weight_elsewhere.mdl", *const none[] = {NULL};
    for (int t = 0; t < 2; t++)
        for (int k = 0; k < 3; k++) {
            const char *const sets[] = {transfers[t], schedules[k], NULL};
            try_model(path, none, sets);
            Compiled c = compile_for(true, path, none, sets);
            assert_non_null(c.program);
            int n = 0;
            for (int d = 0; d < c.program->devices.n; d++) {
                const ActionList *list = list_of(&c, d, 0);
                for (int i = 0; i < list->actions.n; i++)
                    n += list->actions.at[i].kind == ACT_JOIN ? list->actions.at[i].nwaits : 0;
            }
            assert_int_equal(n > 0, c.program->transfer == TRANSFER_PEER);
            compiled_free(&c);
        }
}

/* What lies behind the buffers is part of what is planned and proved. */
static void test_kernels_have_their_place(void **state)
{
    (void)state;
    Compiled c = compile_for(true, models[0], splits[1], NULL);
    assert_non_null(c.program);
    Device *d = &c.program->devices.at[1];
    assert_true(verify_memory(c.program, c.sink));
    assert_true(d->class_bytes[BUFFER_KERNELS] > GPU_KERNEL_SCRATCH + GPU_LIBRARY_WORKSPACE);
    int64_t *const places[] = {&d->squares, &d->kernel_scratch, &d->workspace};
    for (int i = 0; i < 3; i++) {
        *places[i] -= GPU_ALIGN; /* into what lies before it */
        assert_false(verify_memory(c.program, c.sink));
        *places[i] += GPU_ALIGN;
    }
    d->workspace += GPU_ALIGN; /* past the end */
    assert_false(verify_memory(c.program, c.sink));
    compiled_free(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_wait_is_needed),
        cmocka_unit_test(test_any_number_of_micro_batches),
        cmocka_unit_test(test_weights_come_before_the_next_step),
        cmocka_unit_test(test_kernels_have_their_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
