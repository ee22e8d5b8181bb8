/* plan_timeline.c - the simulation in time: against the pipelines' formulas, and against
 * the rules that the actions live by. */
#include "plan_workshop.h"

#include <math.h>

static const ScheduleKind kinds[] = {SCHEDULE_GPIPE, SCHEDULE_1F1B};

/* With equal stages both schedules idle (p-1)/(m+p-1) of the time and take 3(m+p-1). */
static void test_bubble_is_the_formula(void **state)
{
    (void)state;
    static const int ps[] = {1, 2, 3, 4, 7}, ms[] = {1, 2, 3, 8, 21};
    for (int k = 0; k < 2; k++)
        for (int i = 0; i < 5; i++)
            for (int j = 0; j < 5; j++) {
                int p = ps[i], m = ms[j];
                Work w = work_chain(p, 1, m, kinds[k]);
                Plan *plan = plan_make(w.arena, w.program);
                assert_true(plan->units->complete);
                assert_true(fabs(plan->units->bubble - (p - 1.0) / (m + p - 1)) < 1e-12);
                assert_true(fabs(plan->units->step - 3.0 * (m + p - 1)) < 1e-9);
                assert_non_null(plan->formula);
                work_free(&w);
            }
}

/* Micro-batches of all chunks of a device between F and the end of the backward pass. */
static int most_in_flight(const Program *p, int device)
{
    const ActionList *list = &p->devices.at[device].train;
    int n = 0, most = 0;
    for (int i = 0; i < list->actions.n; i++) {
        const Action *a = &list->actions.at[i];
        if (a->kind != ACT_RUN)
            continue;
        const RunKind last = p->chunks.at[a->chunk].has[RUN_W] ? RUN_W : RUN_I;
        n += a->run == RUN_F ? 1 : a->run == last ? -1 : 0;
        most = n > most ? n : most;
    }
    return most;
}

/* Zero bubble idles as long as p - 1 forwards, and no stage holds more than 1F1B's first. */
static void test_zero_bubble(void **state)
{
    (void)state;
    for (int p = 2; p <= 16; p++)
        for (int m = p; m <= 64; m += m < 20 ? 1 : 11) {
            Work w = work_chain(p, 1, m, SCHEDULE_ZERO_BUBBLE);
            Plan *plan = plan_make(w.arena, w.program);
            assert_true(plan->units->complete);
            assert_true(fabs(plan->units->step - (3.0 * m + p - 1)) < 1e-9);
            assert_true(fabs(plan->units->bubble - (p - 1.0) / (3.0 * m + p - 1)) < 1e-12);
            assert_string_equal(plan->formula, "(p-1)/(3m+p-1)");
            for (int d = 0; d < p; d++)
                assert_true(w.program->devices.at[d].in_flight <= p);
            work_free(&w);
        }
}

/* With room for 2 p - 1 micro-batches nothing idles between a device's first run and its last. ZB-V
 * does so with no more than 1F1B's first stage holds: p micro-batches, in halves. */
static void test_no_bubble(void **state)
{
    (void)state;
    static const ScheduleKind tried[] = {SCHEDULE_ZB_H2, SCHEDULE_ZB_V};
    for (int k = 0; k < 2; k++)
        for (int p = 2; p <= 16; p++)
            for (int m = 1; m <= 64; m += m < 2 * p + 3 ? 1 : 9) {
                Work w = work_apart(p, m, tried[k]);
                Plan *plan = plan_make(w.arena, w.program);
                assert_true(plan->units->complete);
                if (m >= 2 * p - 1) {
                    assert_true(plan->units->bubble < 1e-12);
                    assert_string_equal(plan->formula, "0");
                    assert_true(fabs(plan->units->period - 3.0 * m * (k + 1)) < 1e-9);
                }
                for (int d = 0; d < p; d++)
                    assert_true(most_in_flight(w.program, d) <= (k == 0 ? 2 * p - 1 : 2 * p));
                work_free(&w);
            }
}

/* Interleaved, in a group or several of as many micro-batches as there are devices: the bubble is
 * that of p - 1 runs of a chunk. Else all is done as well. */
static void test_interleaved(void **state)
{
    (void)state;
    for (int p = 2; p <= 16; p++)
        for (int v = 1; v <= 4; v++)
            for (int m = 1; m <= 64; m += p > 5 && m % p ? p - m % p : p > 5 ? p + 1 : 1) {
                if (p <= 5 && m > 3 * p)
                    break;
                Work w = work_looped(p, v, m);
                Plan *plan = plan_make(w.arena, w.program);
                assert_int_equal(w.program->chunks.n, p * v);
                assert_true(plan->units->complete);
                if (m % p == 0 || v == 1)
                    assert_true(fabs(plan->units->step - 3.0 * (v * m + p - 1)) < 1e-9);
                if (m % p == 0 && v > 1)
                    assert_string_equal(plan->formula, "(p-1)/(vm+p-1)");
                work_free(&w);
            }
}

/* Estimated times that are 1 and 2 seconds lead to the same, but for transfers. */
static void test_seconds_agree_with_units(void **state)
{
    (void)state;
    for (int k = 0; k < 2; k++) {
        Work w = work_chain(4, 2, 8, kinds[k]);
        for (int c = 0; c < 4; c++) {
            w.program->chunks.at[c].seconds[RUN_F] = 1;
            w.program->chunks.at[c].seconds[RUN_B] = 2;
        }
        communicate(w.program, schedule(w.program, kinds[k], false),
                    schedule(w.program, kinds[k], true)); /* for these times */
        Timeline *t = timeline_make(w.arena, w.program, TIMELINE_SECONDS);
        assert_true(t->step > 33 && t->step < 33.01);
        assert_true(fabs(t->bubble - 3.0 / 11) < 1e-3);
        for (int d = 0; d < 4; d++)
            assert_true(t->devices[d].busy >= 24 && t->devices[d].busy < 24.001);
        work_free(&w);
    }
}

/* A transfer that takes as long as a run shows in the step's time: each is in the open. */
static void test_transfers_take_time(void **state)
{
    (void)state;
    Work w = work_chain(2, 1, 1, SCHEDULE_GPIPE);
    for (int c = 0; c < 2; c++) {
        w.program->chunks.at[c].seconds[RUN_F] = 1;
        w.program->chunks.at[c].seconds[RUN_B] = 2;
    }
    w.program->model->settings.devices.latency = 5;
    Timeline *t = timeline_make(w.arena, w.program, TIMELINE_SECONDS);
    /* F, transfer, F, B, transfer, B */
    assert_true(fabs(t->step - (1 + 5 + 1 + 2 + 5 + 2)) < 1e-3);
    work_free(&w);
}

/* Streams run in order, waits are kept, both ends of a transfer are one event, and no
 * device is over before all have clipped. */
static void check_rules(const Program *p, const Timeline *t)
{
    double clipped = 0;
    for (int d = 0; d < p->devices.n; d++) {
        const ActionList *list = &p->devices.at[d].train;
        double end[2] = {0, 0};
        for (int i = 0; i < list->actions.n; i++) {
            const Action *a = &list->actions.at[i];
            Span x = t->devices[d].spans[i];
            int stream = action_stream(a);
            assert_true(x.start >= end[stream] - 1e-12 * t->step && x.end >= x.start &&
                        x.end <= t->step);
            for (int k = 0; k < a->nwaits; k++) {
                int on = list->waits.at[a->first_wait + k];
                assert_true(on < i && t->devices[d].spans[on].end <= x.start);
            }
            end[stream] = x.end;
            if (a->kind == ACT_CLIP && clipped > 0)
                assert_true(fabs(x.end - clipped) < 1e-15);
            clipped = a->kind == ACT_CLIP ? x.end : clipped;
            if (a->kind != ACT_SEND)
                continue;
            int to = p->links.at[a->link].to, met = 0;
            const ActionList *other = &p->devices.at[to].train;
            for (int k = 0; k < other->actions.n; k++) {
                const Action *b = &other->actions.at[k];
                if (b->kind != ACT_RECV || b->link != a->link || b->m != a->m)
                    continue;
                assert_true(t->devices[to].spans[k].start <= x.start &&
                            t->devices[to].spans[k].start >= x.start);
                assert_true(t->devices[to].spans[k].end >= x.end);
                met++;
            }
            assert_int_equal(met, 1);
        }
    }
}

static void test_rules_are_kept(void **state)
{
    (void)state;
    Work works[] = {work_chain(4, 2, 6, SCHEDULE_1F1B), work_chain(3, 1, 5, SCHEDULE_GPIPE),
                    work_interleaved(5), work_chain(1, 1, 3, SCHEDULE_1F1B)};
    for (int i = 0; i < 4; i++)
        for (int k = TIMELINE_SECONDS; k <= TIMELINE_UNITS; k++) {
            Timeline *t = timeline_make(works[i].arena, works[i].program, (TimelineKind)k);
            assert_true(t->complete);
            assert_true(t->bubble >= 0 && t->bubble < 1);
            check_rules(works[i].program, t);
        }
    for (int i = 0; i < 4; i++)
        work_free(&works[i]);
}

/* Kept memory begins and ends at nothing and stays within its slots; 1F1B keeps less. */
static void test_kept_memory(void **state)
{
    (void)state;
    int64_t peak[2] = {0, 0};
    for (int k = 0; k < 2; k++) {
        Work w = work_chain(4, 2, 12, kinds[k]);
        Timeline *t = timeline_make(w.arena, w.program, TIMELINE_SECONDS);
        for (int d = 0; d < 4; d++) {
            KeptSteps kept = timeline_kept(w.arena, w.program, t, d);
            int64_t most = 0;
            for (int i = 0; i < kept.n; i++) {
                assert_true(kept.at[i].bytes >= 0);
                assert_true(i == 0 || kept.at[i].at > kept.at[i - 1].at);
                most = kept.at[i].bytes > most ? kept.at[i].bytes : most;
            }
            assert_int_equal(kept.at[kept.n - 1].bytes, 0);
            assert_true(most > 0 && most <= w.program->devices.at[d].class_bytes[BUFFER_KEPT]);
            peak[k] = d == 3 ? most : peak[k];
        }
        work_free(&w);
    }
    /* the last stage holds 12 micro-batches, or one and what comes and goes */
    assert_true(peak[0] > 4 * peak[1]);
}

/* Two transfers in the wrong order never meet: said, not waited for. */
static void test_deadlock_ends(void **state)
{
    (void)state;
    Work w = work_chain(2, 1, 4, SCHEDULE_1F1B);
    ActionList *list = &w.program->devices.at[1].train;
    int first = NONE, second = NONE;
    for (int i = 0; i < list->actions.n && second == NONE; i++)
        if (list->actions.at[i].kind == ACT_RECV)
            *(first == NONE ? &first : &second) = i;
    assert_true(second != NONE);
    list->actions.at[first].m = 1;
    list->actions.at[second].m = 0;
    Timeline *t = timeline_make(w.arena, w.program, TIMELINE_UNITS);
    assert_false(t->complete);
    work_free(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bubble_is_the_formula),
        cmocka_unit_test(test_zero_bubble),
        cmocka_unit_test(test_no_bubble),
        cmocka_unit_test(test_interleaved),
        cmocka_unit_test(test_seconds_agree_with_units),
        cmocka_unit_test(test_transfers_take_time),
        cmocka_unit_test(test_rules_are_kept),
        cmocka_unit_test(test_kept_memory),
        cmocka_unit_test(test_deadlock_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
