/* plan_views.c - text, JSON, CSV and trace of a plan: their form, and that their numbers
 * agree with each other and with the Program. */
#include "plan_workshop.h"

#include <ctype.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef void View(const Plan *plan, Text *out);

static const char *shown(const Plan *plan, View *view)
{
    Text t = {.arena = plan->arena};
    view(plan, &t);
    return t.at;
}

static json_t *parsed(const char *text)
{
    json_error_t error;
    json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, &error);
    if (!root)
        print_error("line %d: %s\n", error.line, error.text);
    assert_non_null(root);
    return root;
}

static double number(const json_t *o, const char *key)
{
    const json_t *x = json_object_get(o, key);
    assert_true(json_is_number(x));
    return json_number_value(x);
}

static json_t *json_of(const Plan *plan)
{
    Text t = {.arena = plan->arena};
    assert_true(plan_json(plan, &t));
    return parsed(t.at);
}

/* --------------------------------------------------------------------------- JSON */

static void check_stage(const json_t *stage, double step)
{
    const json_t *memory = json_object_get(stage, "memory"), *buffer;
    static const char *const classes[] = {"weights", "gradients", "optimizer", "kept", "scratch"};
    double sum = 0, buffers = 0, scratch = 0;
    for (int c = 0; c < 5; c++)
        sum += number(memory, classes[c]);
    assert_true(sum > 0 && fabs(sum - number(memory, "total")) < 0.5);
    size_t i;
    json_array_foreach(json_object_get(stage, "buffers"), i, buffer)
    {
        bool is_scratch =
            strcmp(json_string_value(json_object_get(buffer, "class")), "scratch") == 0;
        *(is_scratch ? &scratch : &buffers) += number(buffer, "bytes");
        assert_true(number(buffer, "offset") + number(buffer, "bytes") <= sum);
    }
    assert_true(fabs(buffers + number(memory, "scratch") - sum) < 0.5);
    assert_true(scratch >= number(memory, "scratch"));
    assert_true(fabs(number(stage, "idle") - (1 - number(stage, "busy_seconds") / step)) < 1e-9);
}

static void check_json(const Plan *plan)
{
    const Program *p = plan->p;
    json_t *root = json_of(plan), *stages = json_object_get(root, "stages"), *stage, *link;
    double step = number(root, "step_seconds"), idle = 0, sent = 0, received = 0, moved = 0;
    double parameters = 0;
    size_t i;
    assert_int_equal(json_array_size(stages), p->devices.n);
    json_array_foreach(stages, i, stage)
    {
        check_stage(stage, step);
        idle += number(stage, "idle") / p->devices.n;
        sent += number(stage, "sent_bytes");
        received += number(stage, "received_bytes");
        parameters += number(stage, "parameters");
        assert_string_equal(json_string_value(json_object_get(stage, "device")),
                            p->devices.at[i].name);
    }
    json_array_foreach(json_object_get(root, "links"), i, link) moved +=
        number(link, "bytes") * number(link, "messages");
    assert_true(fabs(sent - received) < 0.5 && fabs(sent - moved) < 0.5);
    int64_t elements = 0;
    for (int w = 0; w < p->graph->weights.n; w++)
        elements += shape_count(&p->graph->weights.at[w].shape);
    assert_true(fabs(parameters - (double)elements) < 0.5);
    assert_true(fabs(number(json_object_get(root, "bubble"), "from_estimated_times") - idle) <
                1e-9);
    /* the order is what the CSV says */
    Text csv = {.arena = plan->arena}, order = {.arena = plan->arena};
    plan_csv(p, &csv);
    json_t *row, *run;
    json_array_foreach(json_object_get(root, "order"), i, row)
    {
        size_t k;
        json_array_foreach(row, k, run)
            text_printf(&order, "%s%s", k ? "," : "", json_string_value(run));
        text_add(&order, "\n");
    }
    assert_string_equal(order.at, csv.at);
    json_decref(root);
}

static void test_json_numbers_agree(void **state)
{
    (void)state;
    Work works[] = {work_chain(4, 3, 8, SCHEDULE_1F1B), work_chain(1, 2, 1, SCHEDULE_GPIPE),
                    work_interleaved(4)};
    for (int i = 0; i < 3; i++) {
        check_json(plan_make(works[i].arena, works[i].program));
        work_free(&works[i]);
    }
}

/* What nobody has said about the machine is told apart from what was. */
static void test_rates_tell_defaults(void **state)
{
    (void)state;
    static const char *const keys[] = {"compute", "bandwidth", "link", "latency"};
    static const char *const machines[] = {
        "", "devices gpu[1] { compute = 82 TFLOPS; link = 32 GB/s; }"};
    for (int i = 0; i < 2; i++) {
        char text[400];
        snprintf(text, sizeof text,
                 "model m { input x : f32[8]; target y : f32[8]; loss mse(linear(x, 8), y); }"
                 "train { batch = 2; } parallel { microbatch = 2; } %s",
                 machines[i]);
        Work w = work_compile(text, SCHEDULE_1F1B, 1);
        json_t *root = json_of(plan_make(w.arena, w.program));
        for (int k = 0; k < 4; k++) {
            const json_t *rate = json_object_get(json_object_get(root, "rates"), keys[k]);
            assert_int_equal(json_is_true(json_object_get(rate, "default")), i == 0 || k % 2 == 1);
            if (i == 1 && k == 0)
                assert_true(fabs(number(rate, "value") / 82e12 - 1) < 1e-9);
        }
        json_decref(root);
        work_free(&w);
    }
}

static void test_json_of_hostile_names(void **state)
{
    (void)state;
    Work w = work_chain(2, 1, 2, SCHEDULE_1F1B);
    w.program->model->name = "a\"b\\c\n\xff</script>";
    w.program->devices.at[0].name = "\xc0\xaf[0]";
    Plan *plan = plan_make(w.arena, w.program);
    json_t *root = json_of(plan);
    assert_string_equal(json_string_value(json_object_get(root, "model")),
                        "a\"b\\c\xEF\xBF\xBD\xEF\xBF\xBD</script>");
    json_decref(root);
    json_decref(parsed(shown(plan, plan_trace)));
    work_free(&w);
}

/* ---------------------------------------------------------------------------- CSV */

static void test_csv_form(void **state)
{
    (void)state;
    Work w = work_chain(2, 1, 4, SCHEDULE_GPIPE);
    Text t = {.arena = w.arena};
    plan_csv(w.program, &t);
    assert_string_equal(t.at, "0F0,0F1,0F2,0F3,0B0,0B1,0B2,0B3\n1F0,1F1,1F2,1F3,1B0,1B1,1B2,1B3\n");
    work_free(&w);

    /* chunks are the stages' numbers, and a device's line has those of all its chunks */
    w = work_interleaved(3);
    Text csv = {.arena = w.arena};
    plan_csv(w.program, &csv);
    int lines = 0, seen[4][2][3] = {0};
    for (char *s = csv.at; *s; s++) {
        char *end;
        long chunk = strtol(s, &end, 10);
        assert_true(end > s && chunk >= 0 && chunk < 4 && (*end == 'F' || *end == 'B'));
        bool backward = *end == 'B';
        s = end + 1;
        assert_true(isdigit((unsigned char)*s));
        long m = strtol(s, &end, 10);
        assert_true(m >= 0 && m < 3);
        assert_int_equal(w.program->chunks.at[chunk].device, lines);
        seen[chunk][backward][m]++;
        s = end;
        assert_true(*s == ',' || *s == '\n');
        lines += *s == '\n';
    }
    assert_int_equal(lines, 2);
    for (int i = 0; i < 4 * 2 * 3; i++)
        assert_int_equal(seen[i / 6][i / 3 % 2][i % 3], 1);
    work_free(&w);
}

/* -------------------------------------------------------------------------- trace */

static void test_trace_rows(void **state)
{
    (void)state;
    Work w = work_chain(3, 1, 4, SCHEDULE_1F1B);
    json_t *root = parsed(shown(plan_make(w.arena, w.program), plan_trace)), *event;
    size_t i;
    double end[6] = {0};
    int named = 0, runs = 0, first = 0;
    json_array_foreach(json_object_get(root, "traceEvents"), i, event)
    {
        const char *ph = json_string_value(json_object_get(event, "ph"));
        const char *name = json_string_value(json_object_get(event, "name"));
        assert_int_equal((int)number(event, "pid"), 1);
        named += strcmp(name, "thread_name") == 0;
        if (strcmp(ph, "X") != 0)
            continue;
        int row = (int)number(event, "tid");
        assert_true(row >= 0 && row < 6);
        assert_true(number(event, "ts") >= end[row] - 0.002); /* events of a row do not overlap */
        end[row] = number(event, "ts") + number(event, "dur");
        runs += strcmp(json_string_value(json_object_get(event, "cat")), "phase") == 0;
        first += strcmp(name, "F0 m0") == 0 || strcmp(name, "B2 m3") == 0;
    }
    assert_int_equal(named, 6);
    assert_int_equal(first, 2);
    assert_int_equal(runs, 3 * (4 * 2 + 2)); /* F, B; clip and update */
    json_decref(root);
    work_free(&w);
}

/* --------------------------------------------------------------------------- text */

static int count_lines(const char *s, const char *with)
{
    int n = 0;
    for (; (s = strstr(s, with)); s += strlen(with))
        n++;
    return n;
}

static void test_text(void **state)
{
    (void)state;
    Work w = work_chain(3, 4, 4, SCHEDULE_1F1B);
    w.program->model->settings.devices.memory = (int64_t)1 << 30;
    const char *text = shown(plan_make(w.arena, w.program), plan_text);
    assert_non_null(strstr(text, "1f1b, batch 8: 4 micro-batches of 2 samples on 3 stages\n"));
    assert_non_null(strstr(text, "gpu[0]  fc.0 ... fc.3 "));
    assert_non_null(strstr(text, "gpu[2]  fc.8 ... fc.11 "));
    assert_non_null(strstr(text, "of 1.0 GiB"));
    assert_non_null(strstr(text, "(p-1)/(m+p-1) = 33.3 %"));
    assert_non_null(strstr(text, "proved  coverage, no deadlock, no race, memory\n"));
    assert_non_null(strstr(text,
                           "  gpu[0]  F0 F1 F2 .  .  .  .  B0--- F3 B1--- .  B2--- .  B3---\n"
                           "  gpu[1]  .  F0 F1 .  .  B0--- F2 B1--- F3 B2--- .  B3---"
                           " .  .\n"
                           "  gpu[2]  .  .  F0 B0--- F1 B1--- F2 B2--- F3 B3--- .  .  .  .\n"));
    work_free(&w);

    /* a tied weight is counted once, its copy apart */
    w = work_interleaved(2);
    text = shown(plan_make(w.arena, w.program), plan_text);
    assert_non_null(strstr(text, "copies"));
    assert_non_null(strstr(text, "with F = 1 and B = 2 for every chunk"));
    assert_non_null(strstr(text, "with 4 chunks"));
    work_free(&w);
}

static void test_text_of_many_stages(void **state)
{
    (void)state;
    Work w = work_chain(64, 2, 8, SCHEDULE_1F1B);
    const char *text = shown(plan_make(w.arena, w.program), plan_text);
    assert_int_equal(count_lines(text, "gpu["), 2 * 64 + 1); /* two tables; the hint */
    assert_null(strstr(text, "schedule, with"));
    for (const char *line = text; *line; line = strchr(line, '\n') + 1)
        assert_true(strcspn(line, "\n") < 160);
    work_free(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_json_numbers_agree),
        cmocka_unit_test(test_rates_tell_defaults),
        cmocka_unit_test(test_json_of_hostile_names),
        cmocka_unit_test(test_csv_form),
        cmocka_unit_test(test_trace_rows),
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_text_of_many_stages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
