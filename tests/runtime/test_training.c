/* test_training.c - the two-stage model trained from end to end. */
#include "workshop.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "trainer.h"
#include "two_stages.h"

enum { SAMPLES = 37 };
#define DATA "-q --data x=x.npy --data y=y.npy "

static int folder_fill(void **state)
{
    float x[SAMPLES * FEATURES], y[SAMPLES];
    if (workshop_open(state) != 0)
        return -1;
    for (int i = 0; i < SAMPLES; i++) {
        for (int k = 0; k < FEATURES; k++)
            x[i * FEATURES + k] = sinf((float)(i * 7 + k * 3));
        y[i] = 0.5f * x[i * FEATURES] - x[i * FEATURES + 1] + 0.25f;
    }
    npy_put("x.npy", "<f4", "(37, 3)", x, sizeof x);
    npy_put("y.npy", "<f4", "(37, 1)", y, sizeof y);
    return 0;
}

static int fault_clear(void **state)
{
    (void)state;
    fault = FAULT_NONE;
    return 0;
}

/* The lines of a log, as a JSON array. */
static json_t *log_read(const char *path)
{
    size_t size;
    char *text = file_get(path, &size), *rest = text;
    json_t *lines = json_array();
    for (char *line; (line = strtok_r(rest, "\n", &rest)) != NULL;) {
        json_t *object = json_loads(line, 0, NULL);
        assert_non_null(object);
        json_array_append_new(lines, object);
    }
    free(text);
    return lines;
}

static double log_number(const json_t *lines, size_t line, const char *key)
{
    const json_t *value = json_object_get(json_array_get(lines, line), key);
    assert_true(json_is_number(value));
    return json_number_value(value);
}

static void loss_falls(void **state)
{
    (void)state;
    MdlModel m = two_stages();
    assert_int_equal(run(&m, DATA "--steps 300 --log log --export w.st"), 0);
    assert_string_equal(run_out, "");
    json_t *log = log_read("log");
    assert_int_equal(json_array_size(log), 300);
    double early = 0, late = 0;
    for (size_t i = 0; i < 300; i++) {
        assert_true(log_number(log, i, "step") == (double)i + 1);
        assert_true(log_number(log, i, "grad_norm") > 0);
        assert_true(log_number(log, i, "samples_per_s") > 0);
        early += i < 30 ? log_number(log, i, "loss") : 0;
        late += i >= 270 ? log_number(log, i, "loss") : 0;
    }
    assert_true(fabs(log_number(log, 0, "lr") - 0.01) < 1e-9);
    assert_true(fabs(log_number(log, 4, "lr") - 0.05) < 1e-9);
    assert_true(fabs(log_number(log, 5, "lr") - 0.05) < 1e-9);
    double last = 0.001 + 0.049 * 0.5 * (1 + cos(acos(-1.0) * 294 / 295));
    assert_true(fabs(log_number(log, 299, "lr") - last) < 1e-9);
    assert_true(late < 0.7 * early);
    json_decref(log);
}

static void threads_change_nothing(void **state)
{
    (void)state;
    MdlModel m = two_stages();
    assert_int_equal(run(&m, DATA "--threads 1 --export one.st"), 0);
    assert_int_equal(run(&m, DATA "--threads 3 --export three.st"), 0);
    files_assert_equal("one.st", "three.st");
    assert_int_equal(run(&m, DATA "--seed 2 --export two.st"), 0);
    size_t n, k;
    char *a = file_get("one.st", &n), *b = file_get("two.st", &k);
    assert_true(n == k && memcmp(a, b, n) != 0);
    free(a);
    free(b);
}

static void resumed_is_uninterrupted(void **state)
{
    (void)state;
    MdlModel m = two_stages();
    assert_int_equal(run(&m, DATA "--save whole --export whole.st --log whole.log"), 0);
    assert_int_equal(run(&m, DATA "--save-every 7 --save parts --time-limit 100h"), 0);
    files_assert_equal("whole/step-00000060.safetensors", "parts/step-00000060.safetensors");
    for (int64_t step = 60; step > 21; step--) {
        char path[64];
        snprintf(path, sizeof path, "parts/step-%08d.safetensors", (int)step);
        unlink(path);
    }
    assert_int_equal(access("parts/step-00000021.safetensors", R_OK), 0);
    assert_int_equal(run(&m, DATA "--resume parts --save parts --export part.st --log p.log"), 0);
    files_assert_equal("whole.st", "part.st");
    files_assert_equal("whole/step-00000060.safetensors", "parts/step-00000060.safetensors");
    json_t *whole = log_read("whole.log"), *part = log_read("p.log");
    assert_int_equal(json_array_size(part), 39);
    for (size_t i = 0; i < 39; i++)
        assert_true(log_number(part, i, "loss") == log_number(whole, i + 21, "loss") &&
                    log_number(part, i, "step") == (double)i + 22);
    json_decref(whole);
    json_decref(part);
}

/* A rate given once holds until another is given. */
static void resume_keeps_the_rate(void **state)
{
    (void)state;
    MdlModel m = two_stages();
    assert_int_equal(run(&m, DATA "--lr 0.02 --steps 60 --export whole.st"), 0);
    assert_int_equal(run(&m, DATA "--lr 0.02 --steps 60 --save rated --save-every 30"), 0);
    unlink("rated/step-00000060.safetensors");
    assert_int_equal(run(&m, DATA "--resume rated --steps 60 --export part.st"), 0);
    files_assert_equal("whole.st", "part.st");
    assert_int_equal(run(&m, DATA "--resume rated --steps 60 --lr 0.01 --log other.log"), 0);
    json_t *log = log_read("other.log");
    assert_true(log_number(log, 0, "lr") < 0.01);
    json_decref(log);
}

static void resume_refuses(void **state)
{
    (void)state;
    MdlModel m = two_stages();
    assert_int_equal(run(&m, DATA "--steps 3 --save ck"), 0);
    m.fingerprint = "another";
    assert_int_equal(run(&m, DATA "--resume ck"), 1);
    assert_non_null(strstr(run_err, "another model"));
    m.fingerprint = "two-stages-1";
    assert_int_equal(run(&m, DATA "--resume ck --seed 9"), 2);
    assert_int_equal(run(&m, DATA "--resume nowhere"), 2);
    size_t size;
    char *bytes = file_get("ck/step-00000003.safetensors", &size);
    /* Any byte that changes is found: by the checksum where nothing else finds it. */
    for (size_t at = 0; at < size; at += size / 61 + 1) {
        bytes[at] ^= 4;
        file_put("ck/step-00000003.safetensors", bytes, size);
        assert_int_equal(run(&m, DATA "--resume ck --steps 4"), 1);
        bytes[at] ^= 4;
    }
    file_put("ck/step-00000003.safetensors", bytes, size - 1);
    assert_int_equal(run(&m, DATA "--resume ck --steps 4"), 1);
    file_put("ck/step-00000003.safetensors", bytes, size);
    assert_int_equal(run(&m, DATA "--resume ck --steps 4"), 0);
    free(bytes);
}

static void exported_is_loaded(void **state)
{
    (void)state;
    MdlModel m = two_stages();
    assert_int_equal(run(&m, DATA "--export a.st"), 0);
    assert_int_equal(run(&m, "-q --steps 0 --load a.st --export b.st"), 0);
    files_assert_equal("a.st", "b.st");
    Problem p = {0};
    TensorFile *f;
    assert_int_equal(tensors_open(&f, "a.st", false, &p), 0);
    assert_int_equal(tensors_count(f), 5);
    assert_non_null(tensors_find(f, "shared.7.scale"));
    assert_string_equal(tensors_metadata(f, "format"), "pt");
    tensors_close(f);
    /* A checkpoint holds more than the model; that is said in one line. */
    assert_int_equal(run(&m, DATA "--steps 1 --save c"), 0);
    assert_int_equal(run(&m, "--steps 0 --load c/step-00000001.safetensors --export c.st"), 0);
    assert_non_null(strstr(run_out, "5 tensors more"));
}

/* With lr = 1 and no momentum a clipped step moves the weights by clip_norm. */
static void clipping_limits_a_step(void **state)
{
    (void)state;
    MdlModel m = two_stages();
    m.hyper = (Hyper){.lr = 1, .beta1 = 1 /* the model's sign to clip */};
    m.warmup = 0;
    m.lr_schedule = MDL_LR_CONSTANT;
    m.clip_norm = 0.01;
    assert_int_equal(run(&m, DATA "--steps 0 --export before.st"), 0);
    assert_int_equal(run(&m, DATA "--steps 1 --export after.st --log log"), 0);
    Problem p = {0};
    TensorFile *a, *b;
    assert_int_equal(tensors_open(&a, "before.st", false, &p), 0);
    assert_int_equal(tensors_open(&b, "after.st", false, &p), 0);
    static const char *const names[] = {"in.weight", "in.bias", "shared.7.scale", "out.weight",
                                        "out.bias"};
    double squares = 0;
    for (int i = 0; i < 5; i++) {
        real x[HIDDEN * FEATURES], y[HIDDEN * FEATURES];
        const Tensor *t = tensors_find(a, names[i]);
        assert_int_equal(tensors_read(a, t, x, &p), 0);
        assert_int_equal(tensors_read(b, tensors_find(b, names[i]), y, &p), 0);
        for (int64_t e = 0; e < t->count; e++)
            squares += ((double)x[e] - (double)y[e]) * ((double)x[e] - (double)y[e]);
    }
    tensors_close(a);
    tensors_close(b);
    assert_true(fabs(sqrt(squares) / 0.01 - 1) < 1e-3);
    json_t *log = log_read("log");
    assert_true(log_number(log, 0, "grad_norm") > 0.01);
    json_decref(log);
}

/* The mean over all samples does not depend on how many fill a round. */
static void evaluation_counts_each_sample_once(void **state)
{
    (void)state;
    MdlModel m = two_stages();
    double mean[2], near[2];
    for (int i = 0; i < 2; i++) {
        /* 37 samples in rounds of 8 leave 5 for the last; the file doubled leaves 2. */
        if (i == 1) {
            size_t n;
            char *x = file_get("x.npy", &n), *y;
            char *twice = malloc(2 * SAMPLES * FEATURES * 4);
            size_t bytes = SAMPLES * FEATURES * 4;
            memcpy(twice, x + n - bytes, bytes);
            memcpy(twice + bytes, x + n - bytes, bytes);
            npy_put("xx.npy", "<f4", "(74, 3)", twice, 2 * bytes);
            free(x);
            y = file_get("y.npy", &n);
            bytes = SAMPLES * 4;
            memcpy(twice, y + n - bytes, bytes);
            memcpy(twice + bytes, y + n - bytes, bytes);
            npy_put("yy.npy", "<f4", "(74,)", twice, 2 * bytes);
            free(y);
            free(twice);
        }
        assert_int_equal(run(&m, i ? "-q --steps 0 --log log --eval-data x=xx.npy --eval-data "
                                     "y=yy.npy"
                                   : "-q --steps 0 --log log --eval-data x=x.npy --eval-data "
                                     "y=y.npy"),
                         0);
        json_t *log = log_read("log");
        assert_int_equal(json_array_size(log), 1);
        mean[i] = log_number(log, 0, "eval_loss");
        near[i] = log_number(log, 0, "near");
        json_decref(log);
    }
    assert_true(fabs(mean[0] / mean[1] - 1) < 1e-6 && fabs(near[0] - near[1]) < 1e-6);
    assert_true(mean[0] > 0 && near[0] >= 0 && near[0] <= 1);
}

static void evaluation_changes_nothing(void **state)
{
    (void)state;
    MdlModel m = two_stages();
    assert_int_equal(run(&m, DATA "--export a.st"), 0);
    assert_int_equal(run(&m, DATA "--eval-data x=x.npy --eval-data y=y.npy --eval-every 9 "
                                  "--export b.st --log log"),
                     0);
    files_assert_equal("a.st", "b.st");
    json_t *log = log_read("log");
    assert_int_equal(json_array_size(log), 60 + 7);
    assert_true(log_number(log, 9, "step") == 9);
    log_number(log, 9, "eval_loss");
    assert_true(log_number(log, 66, "step") == 60);
    json_decref(log);
}

static void early_stop_is_orderly(void **state)
{
    (void)state;
    MdlModel m = two_stages();
    m.lr_schedule = MDL_LR_CONSTANT;
    assert_int_equal(run(&m, "--data x=x.npy --data y=y.npy --steps 1000000000 --time-limit 0.2s "
                             "--log log --save stop --export stop.st"),
                     0);
    assert_non_null(strstr(run_out, "out of time, stopped early"));
    json_t *log = log_read("log");
    size_t n = json_array_size(log);
    assert_true(n > 1);
    for (size_t i = 0; i < n; i++)
        assert_true(log_number(log, i, "step") == (double)i + 1);
    json_decref(log);
    /* What was saved is the end of that step on every stage: a run of n steps has it too. */
    char line[200];
    snprintf(line, sizeof line, DATA "--steps %zu --export same.st", n);
    assert_int_equal(run(&m, line), 0);
    files_assert_equal("stop.st", "same.st");
    snprintf(line, sizeof line, "stop/step-%08zu.safetensors", n);
    assert_int_equal(access(line, R_OK), 0);
}

static void interrupt_is_orderly(void **state)
{
    (void)state;
    MdlModel m = two_stages();
    fault = FAULT_INTERRUPT;
    fault_step = 50;
    assert_int_equal(run(&m, "--data x=x.npy --data y=y.npy --steps 1000000000 --save int"), 0);
    assert_non_null(strstr(run_out, "interrupted, stopped early"));
    fault = FAULT_NONE;
    assert_int_equal(run(&m, "--data x=x.npy --data y=y.npy --resume int --steps 1"), 0);
    assert_non_null(strstr(run_out, "no steps were run"));
    assert_int_equal(run(&m, "--data synthetic --steps 1 --save int"), 0);
    assert_non_null(strstr(run_out, "int: holds a checkpoint of step "));
}

static void trace_and_plot_are_drawn(void **state)
{
    (void)state;
    MdlModel m = two_stages();
    assert_int_equal(run(&m, "--data x=x.npy --data y=y.npy --steps 400 --trace t.json --plot "
                             "p.svg --eval-data synthetic --eval-every 50"),
                     0);
    assert_non_null(strstr(run_out, "gpu[0]  in "));
    assert_non_null(strstr(run_out, "bytes, as planned"));
    assert_non_null(strstr(run_out, "step 40/400   10%"));
    json_t *trace = json_load_file("t.json", JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(trace);
    const json_t *events = json_object_get(trace, "traceEvents"), *event;
    size_t i, rows = 0, phases = 0, messages = 0;
    json_array_foreach(events, i, event)
    {
        const char *name = json_string_value(json_object_get(event, "name"));
        const char *kind = json_string_value(json_object_get(event, "cat"));
        rows += strcmp(name, "thread_name") == 0;
        phases += kind && strcmp(kind, "phase") == 0;
        messages += kind && strcmp(kind, "link") == 0;
        assert_true(!kind || json_number_value(json_object_get(event, "dur")) >= 0);
    }
    assert_int_equal(rows, 2);
    /* 9 phases a step and stage, and 4 more in each round of each evaluation. */
    assert_int_equal(phases, 2 * (400 * 9 + 8 * 4 * 4));
    assert_true(messages > 400 * 2 * 10);
    json_decref(trace);
    size_t size;
    char *svg = file_get("p.svg", &size);
    assert_non_null(strstr(svg, "two stages &#38; &#60;more&#62;"));
    assert_non_null(strstr(svg, "near"));
    assert_string_equal(svg + size - 7, "</svg>\n");
    assert_null(strstr(svg, "nan"));
    free(svg);
}

static void one_step_is_drawn(void **state)
{
    (void)state;
    MdlModel m = two_stages();
    assert_int_equal(run(&m, DATA "--steps 1 --plot one.svg"), 0);
    size_t size;
    char *svg = file_get("one.svg", &size);
    assert_null(strstr(svg, "nan"));
    assert_null(strstr(svg, "inf"));
    free(svg);
}

/* Losses that differ in their last bit have no step between them: an axis must end. */
static void nearly_equal_losses_are_drawn(void **state)
{
    (void)state;
    const MdlModel m = two_stages();
    LossPoint close[] = {{1, 1}, {2, nextafter(1, 2)}, {3, 1}}, huge[] = {{1, 1e30}, {2, 2e30}};
    Trainer *t = calloc(1, sizeof *t);
    Problem p = {0};
    t->model = &m;
    t->journal.losses = close;
    t->journal.nlosses = 3;
    assert_int_equal(plot_write(t, "close.svg", &p), MDL_OK);
    t->journal.losses = huge;
    t->journal.nlosses = 2;
    assert_int_equal(plot_write(t, "huge.svg", &p), MDL_OK);
    size_t size;
    char *svg = file_get("huge.svg", &size);
    assert_non_null(strstr(svg, ">2e+30</text>"));
    free(svg);
    free(t);
}

static void text_and_csv_train(void **state)
{
    (void)state;
    MdlModel m = two_stages();
    char csv[4000] = "a,b,c,target\r\n";
    for (int i = 0; i < 20; i++)
        snprintf(csv + strlen(csv), sizeof csv - strlen(csv), "%d,%g, \"%d\",-1e-1\r\n", i % 3,
                 i * 0.5, -i);
    file_put("all.csv", csv, strlen(csv));
    assert_int_equal(run(&m, "-q --data all.csv --lr 0.001"), 0);
    const MdlFile file = {NULL, "all.csv"};
    const MdlData data = {
        .which = "train", .kind = "csv", .files = &file, .nfiles = 1, .take = 5, .skip = 3};
    m.data = &data;
    m.ndata = 1;
    assert_int_equal(run(&m, "-q --lr 0.001 --eval-data all.csv"), 0);
    assert_int_equal(run(&m, "-q --data synthetic"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loss_falls),
        cmocka_unit_test(threads_change_nothing),
        cmocka_unit_test(resumed_is_uninterrupted),
        cmocka_unit_test(resume_keeps_the_rate),
        cmocka_unit_test(resume_refuses),
        cmocka_unit_test(exported_is_loaded),
        cmocka_unit_test(clipping_limits_a_step),
        cmocka_unit_test(evaluation_counts_each_sample_once),
        cmocka_unit_test(evaluation_changes_nothing),
        cmocka_unit_test(early_stop_is_orderly),
        cmocka_unit_test_teardown(interrupt_is_orderly, fault_clear),
        cmocka_unit_test(trace_and_plot_are_drawn),
        cmocka_unit_test(one_step_is_drawn),
        cmocka_unit_test(nearly_equal_losses_are_drawn),
        cmocka_unit_test(text_and_csv_train),
    };
    return cmocka_run_group_tests(tests, folder_fill, workshop_close);
}
