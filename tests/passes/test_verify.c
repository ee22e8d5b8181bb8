/* test_verify.c - the proofs: they hold for every model here under every schedule, and each
 * fails on a Program that is broken by hand in the way that it is there to find. */
#include "passes.h"

#include <string.h>

#include "fuse.h"

static const char *const mlp = RUN_MODELS "/mlp.mdl";
static const char *const unet = RUN_MODELS "/unet.mdl";
static const char *const tied = RUN_MODELS "/tied.mdl";

static Compiled four_stages(const char *path)
{
    const char *const defines[] = {"parts=4", "gpus=4", NULL};
    Compiled c = compile_file(path, defines, NULL);
    assert_non_null(c.program);
    return c;
}

static const char *const schedules[] = {"parallel.schedule=gpipe", "parallel.schedule=1f1b",
                                        "parallel.schedule=zero_bubble"};

static void test_everything_is_proved(void **state)
{
    (void)state;
    const char *const models[] = {mlp, unet, tied};
    const char *const splits[][3] = {{"parts=1", "gpus=1", NULL},
                                     {"parts=2", "gpus=2", NULL},
                                     {"parts=4", "gpus=4", NULL},
                                     {"parts=4", "gpus=2", NULL}};
    const char *const batches[] = {"parallel.microbatch=1", "parallel.microbatch=2", NULL};
    for (int m = 0; m < 3; m++)
        for (int s = 0; s < 4; s++)
            for (int k = 0; k < 3; k++)
                for (int b = 0; b < 3; b++) {
                    const char *const sets[] = {schedules[k], batches[b], NULL};
                    Compiled c = compile_file(models[m], splits[s], sets);
                    assert_non_null(c.program);
                    assert_true(proved(&c));
                    compiled_free(&c);
                }
}

/* One micro-batch, fewer than stages, not a multiple. */
static void test_any_number_of_micro_batches(void **state)
{
    (void)state;
    static const char *const defines[] = {"parts=4", "gpus=4", NULL};
    for (int n = 1; n <= 13; n++)
        for (int k = 0; k < 3; k++) {
            char batch[64];
            snprintf(batch, sizeof batch, "train.batch=%d", n);
            const char *const sets[] = {batch, "parallel.microbatch=1", schedules[k], NULL};
            Compiled c = compile_file(mlp, defines, sets);
            assert_non_null(c.program);
            assert_int_equal(c.program->microbatches, n);
            assert_true(proved(&c));
            compiled_free(&c);
        }
}

/* -------------------------------------------------------------------- coverage */

static void test_coverage_fails(void **state)
{
    (void)state;
    Compiled c = four_stages(mlp);
    Program *p = c.program;
    Run *run = &p->chunks.at[1].run[RUN_F];
    Call kept = run->calls.at[1];
    run->calls.at[1] = run->calls.at[0]; /* one operation twice, another never */
    assert_false(verify_coverage(p, c.sink));
    run->calls.at[1] = kept;
    assert_true(verify_coverage(p, c.sink));

    int turns = 0;
    for (int i = 0; i < run->steps.n; i++)
        if (run->steps.at[i].turns > 1) {
            turns = run->steps.at[i].turns--; /* a loop that ends one layer early */
            assert_false(verify_coverage(p, c.sink));
            run->steps.at[i].turns = turns;
        }
    assert_true(turns > 1);

    ActionList *list = &p->devices.at[2].train;
    for (int i = 0; i < list->actions.n; i++) {
        Action *a = &list->actions.at[i];
        if (a->kind != ACT_RUN)
            continue;
        int m = a->m;
        a->m = (m + 1) % p->microbatches; /* one micro-batch twice, another never */
        assert_false(verify_coverage(p, c.sink));
        a->m = m;
    }
    p->devices.at[0].weights.at[0].ngrads = 0; /* never updated */
    assert_false(verify_coverage(p, c.sink));
    compiled_free(&c);

    c = four_stages(tied);
    WeightRun *wte = NULL;
    for (int i = 0; i < c.program->devices.at[0].weights.n; i++)
        if (c.program->devices.at[0].weights.at[i].ngrads == 2)
            wte = &c.program->devices.at[0].weights.at[i];
    assert_non_null(wte);
    wte->ngrads = 1; /* one of its two uses forgotten */
    assert_false(verify_coverage(c.program, c.sink));
    compiled_free(&c);
}

/* The calls are all there, but one of them is on the wrong tensor. */
static void test_wrong_tensors_fail(void **state)
{
    (void)state;
    Compiled c = four_stages(unet);
    assert_true(verify_coverage(c.program, c.sink));
    int tried = 0;
    for (int k = 0; k < c.program->chunks.n; k++)
        for (int kind = 0; kind < RUN_KINDS; kind++) {
            Chunk *chunk = &c.program->chunks.at[k];
            const Device *dev = &c.program->devices.at[chunk->device];
            for (int i = 0; i < chunk->run[kind].calls.n; i++) {
                Call *call = &chunk->run[kind].calls.at[i];
                for (int r = 0; r < call->nin + call->nout; r++) {
                    Ref *ref = r < call->nin ? &call->in[r] : &call->out[r - call->nin];
                    if (ref->buffer == NONE)
                        continue;
                    Ref kept = *ref;
                    ref->buffer = (kept.buffer + 1) % dev->buffers.n;
                    assert_false(verify_coverage(c.program, c.sink));
                    *ref = kept;
                    tried++;
                    if (dev->buffers.at[kept.buffer].count == 1)
                        continue;
                    ref->at++; /* the tensor of the turn after */
                    assert_false(verify_coverage(c.program, c.sink));
                    *ref = kept;
                }
            }
        }
    assert_true(tried > 50);
    for (int l = 0; l < c.program->links.n; l++) {
        Link *link = &c.program->links.at[l], kept = *link;
        link->value = c.program->graph->inputs.at[0].value;
        assert_false(verify_coverage(c.program, c.sink));
        *link = kept;
    }
    assert_true(verify_coverage(c.program, c.sink));
    compiled_free(&c);
}

/* The end of a step, action by action, in the wrong order or left out. */
static void test_wrong_end_fails(void **state)
{
    (void)state;
    Compiled c = four_stages(tied); /* which clips, too */
    int tried = 0;
    for (int d = 0; d < 4; d++) {
        ActionList *list = &c.program->devices.at[d].train;
        for (int i = 0; i < list->actions.n; i++) {
            Action a = list->actions.at[i];
            bool weight = action_stream(&a) == 1 &&
                          (c.program->links.at[a.link].kind == LINK_WEIGHT ||
                           c.program->links.at[a.link].kind == LINK_WEIGHT_GRADIENT);
            if (!weight && (a.kind == ACT_RUN || action_stream(&a) == 1))
                continue;
            list->actions.at[i].kind = ACT_ALL_REDUCE; /* left out */
            assert_false(verify_coverage(c.program, c.sink));
            list->actions.at[i] = list->actions.at[0]; /* before the last run */
            list->actions.at[0] = a;
            assert_false(verify_coverage(c.program, c.sink));
            list->actions.at[0] = list->actions.at[i];
            list->actions.at[i] = a;
            tried++;
        }
    }
    assert_true(tried > 10);
    assert_true(verify_coverage(c.program, c.sink));
    compiled_free(&c);
}

/* -------------------------------------------------------------------- deadlock */

static void swap_actions(ActionList *list, int i, int j)
{
    Action a = list->actions.at[i];
    list->actions.at[i] = list->actions.at[j];
    list->actions.at[j] = a;
    for (int w = 0; w < list->waits.n; w++)
        list->waits.at[w] = list->waits.at[w] == i   ? j
                            : list->waits.at[w] == j ? i
                                                     : list->waits.at[w];
}

static int peer_of(const Program *p, const Action *a)
{
    return a->kind == ACT_SEND ? p->links.at[a->link].to : p->links.at[a->link].from;
}

/* Two transfers with one peer, in the order opposite to the peer's. */
static void test_deadlock_fails(void **state)
{
    (void)state;
    Compiled c = four_stages(mlp);
    assert_true(verify_deadlock(c.program, c.sink));
    int tried = 0;
    for (int d = 0; d < 4; d++) {
        ActionList *list = &c.program->devices.at[d].train;
        for (int peer = 0; peer < 4; peer++) {
            int before = -1;
            for (int i = 0; i < list->actions.n; i++) {
                Action *a = &list->actions.at[i];
                if (!action_stream(a) || peer_of(c.program, a) != peer)
                    continue;
                if (before >= 0) {
                    swap_actions(list, before, i);
                    assert_false(verify_deadlock(c.program, c.sink));
                    swap_actions(list, before, i);
                    tried++;
                }
                before = i;
            }
        }
    }
    assert_true(tried > 10);
    assert_true(verify_deadlock(c.program, c.sink));
    compiled_free(&c);
}

/* Both ends send first: the classic. */
static void test_deadlock_of_two_sends(void **state)
{
    (void)state;
    const char *const defines[] = {"parts=2", "gpus=2", NULL};
    Compiled c = compile_file(mlp, defines, NULL);
    ActionList *list = &c.program->devices.at[1].train;
    int send = -1, recv = -1;
    for (int i = 0; i < list->actions.n; i++) {
        if (list->actions.at[i].kind == ACT_SEND && send < 0)
            send = i;
        if (list->actions.at[i].kind == ACT_RECV && send < 0)
            recv = i;
    }
    assert_true(send > 0 && recv >= 0);
    swap_actions(list, send, recv);
    assert_false(verify_deadlock(c.program, c.sink));
    compiled_free(&c);
}

static void test_dropped_transfer_deadlocks(void **state)
{
    (void)state;
    Compiled c = four_stages(unet);
    for (int d = 0; d < 4; d++) {
        ActionList *list = &c.program->devices.at[d].train;
        for (int i = 0; i < list->actions.n; i++) {
            Action a = list->actions.at[i];
            if (a.kind != ACT_SEND && a.kind != ACT_RECV)
                continue;
            list->actions.at[i].kind = ACT_ALL_REDUCE; /* neither sends nor receives */
            assert_false(verify_deadlock(c.program, c.sink));
            list->actions.at[i] = a;
        }
    }
    compiled_free(&c);
}

/* ----------------------------------------------------------------------- races */

/* Every single wait is needed: without it the proof of races fails. */
static void test_every_wait_is_needed(void **state)
{
    (void)state;
    const char *const models[] = {mlp, unet, tied};
    for (int m = 0; m < 3; m++) {
        Compiled c = four_stages(models[m]);
        assert_true(verify_races(c.program, c.sink));
        int removed = 0;
        for (int d = 0; d < 4; d++)
            for (int eval = 0; eval < 2; eval++) {
                Device *dev = &c.program->devices.at[d];
                ActionList *list = eval ? &dev->eval : &dev->train;
                for (int i = 0; i < list->actions.n; i++) {
                    Action kept = list->actions.at[i];
                    for (int w = 0; w < kept.nwaits; w++) {
                        int *slot = &list->waits.at[kept.first_wait + w], on = *slot;
                        *slot = list->waits.at[kept.first_wait + kept.nwaits - 1];
                        list->actions.at[i].nwaits--;
                        if (verify_races(c.program, c.sink)) {
                            print_error("%s: wait of %s action %d on %d is not needed\n", models[m],
                                        dev->name, i, on);
                            assert_true(false);
                        }
                        *slot = on;
                        list->actions.at[i] = kept;
                        removed++;
                    }
                }
            }
        assert_true(removed > 20);
        compiled_free(&c);
    }
}

static void test_too_few_slots(void **state)
{
    (void)state;
    Compiled c = four_stages(mlp);
    int tried = 0;
    for (int d = 0; d < 4; d++)
        for (int b = 0; b < c.program->devices.at[d].buffers.n; b++) {
            Buffer *x = &c.program->devices.at[d].buffers.at[b];
            if (x->class != BUFFER_KEPT || x->slots < 3)
                continue;
            x->slots--;
            assert_false(verify_races(c.program, c.sink));
            x->slots++;
            tried++;
        }
    assert_true(tried > 3);
    compiled_free(&c);
}

/* ---------------------------------------------------------------------- memory */

static void test_memory_fails(void **state)
{
    (void)state;
    Compiled c = four_stages(unet);
    assert_true(verify_memory(c.program, c.sink));
    int tried = 0;
    for (int d = 0; d < 4; d++) {
        Device *dev = &c.program->devices.at[d];
        for (int b = 0; b < dev->buffers.n; b++) {
            Buffer *x = &dev->buffers.at[b];
            if (x->class == BUFFER_SCRATCH)
                continue;
            int64_t offset = x->offset;
            for (int other = 0; other < dev->buffers.n; other++) {
                if (other == b || dev->buffers.at[other].class == BUFFER_SCRATCH)
                    continue;
                x->offset = dev->buffers.at[other].offset; /* two tensors in one place */
                assert_false(verify_memory(c.program, c.sink));
                tried++;
                break;
            }
            x->offset = dev->bytes; /* outside */
            assert_false(verify_memory(c.program, c.sink));
            x->offset = offset;
        }
        dev->bytes -= 64; /* less than what it needs */
        assert_false(verify_memory(c.program, c.sink));
        dev->bytes += 64;
    }
    assert_true(tried > 10);
    assert_true(verify_memory(c.program, c.sink));
    compiled_free(&c);
}

/* A scratch tensor put over one that is still to be read. */
static void test_scratch_overlap_fails(void **state)
{
    (void)state;
    Compiled c = four_stages(unet);
    int found = 0;
    for (int k = 0; k < c.program->chunks.n; k++) {
        Chunk *chunk = &c.program->chunks.at[k];
        Device *dev = &c.program->devices.at[chunk->device];
        Run *run = &chunk->run[RUN_B];
        for (int n = 0; n + 1 < run->calls.n; n++) {
            Call *x = &run->calls.at[n], *y = &run->calls.at[n + 1];
            for (int i = 0; i < y->nin; i++)
                for (int o = 0; o < y->nout && x->nout; o++) {
                    int a = y->in[i].buffer, b = y->out[o].buffer;
                    if (a == NONE || b == NONE || a == b ||
                        dev->buffers.at[a].class != BUFFER_SCRATCH ||
                        dev->buffers.at[b].class != BUFFER_SCRATCH)
                        continue;
                    const Op *op = &c.program->graph->ops.at[y->op];
                    if (op->kind == OP_FUSED && dev->buffers.at[a].size == dev->buffers.at[b].size)
                        continue; /* may be in place */
                    int64_t offset = dev->buffers.at[b].offset;
                    dev->buffers.at[b].offset = dev->buffers.at[a].offset;
                    assert_false(verify_memory(c.program, c.sink));
                    dev->buffers.at[b].offset = offset;
                    found++;
                }
        }
    }
    assert_true(found > 3);
    compiled_free(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_everything_is_proved),
        cmocka_unit_test(test_any_number_of_micro_batches),
        cmocka_unit_test(test_coverage_fails),
        cmocka_unit_test(test_wrong_tensors_fail),
        cmocka_unit_test(test_wrong_end_fails),
        cmocka_unit_test(test_deadlock_fails),
        cmocka_unit_test(test_deadlock_of_two_sends),
        cmocka_unit_test(test_dropped_transfer_deadlocks),
        cmocka_unit_test(test_every_wait_is_needed),
        cmocka_unit_test(test_too_few_slots),
        cmocka_unit_test(test_memory_fails),
        cmocka_unit_test(test_scratch_overlap_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
