/* test_gpu_training.c - runs of a model of two stages on two GPUs.
 *
 * They give what the same model gives on the host, stop and go on with the same bits, and fail
 * with one line that says where. TWO_STAGES_HOST names the trainer of the host.
 */
#include "workshop.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "safetensors.h"
#include "two_stages.h"
#include "two_stages_failures.h"

static const char *host_trainer;

static void runs_well(const MdlModel *m, const char *line)
{
    int code = run(m, line);
    if (code != 0)
        print_message("%s\n%s", line, run_err);
    assert_int_equal(code, 0);
    assert_string_equal(run_err, "");
}

static void host_runs(const char *line)
{
    char command[1000];
    snprintf(command, sizeof command, "%s %s >host.out", host_trainer, line);
    assert_int_equal(system(command), 0);
}

static void numbers_near(const char *what, double a, double b)
{
    if (!(fabs(a - b) <= 1e-5 * fmax(1, fabs(a))))
        print_message("%s: %.9g on the host, %.9g on the GPUs\n", what, a, b);
    assert_true(fabs(a - b) <= 1e-5 * fmax(1, fabs(a)));
}

static void weights_near(const char *host, const char *gpu)
{
    static const char *const names[] = {"in.weight", "in.bias", "shared.7.scale", "out.weight",
                                        "out.bias"};
    Problem p = {0};
    TensorFile *a, *b;
    assert_int_equal(tensors_open(&a, host, false, &p), MDL_OK);
    assert_int_equal(tensors_open(&b, gpu, false, &p), MDL_OK);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        real x[HIDDEN * FEATURES], y[HIDDEN * FEATURES];
        const Tensor *t = tensors_find(a, names[i]), *u = tensors_find(b, names[i]);
        assert_true(t && u && t->count == u->count && t->count <= HIDDEN * FEATURES);
        assert_int_equal(tensors_read(a, t, x, &p), MDL_OK);
        assert_int_equal(tensors_read(b, u, y, &p), MDL_OK);
        for (int64_t k = 0; k < t->count; k++)
            numbers_near(names[i], (double)x[k], (double)y[k]);
    }
    tensors_close(a);
    tensors_close(b);
}

/* Every number of every line but times. */
static void logs_near(const char *host, const char *gpu)
{
    static const char *const keys[] = {"step", "loss", "grad_norm", "eval_loss", "near", "lr"};
    FILE *a = fopen(host, "r"), *b = fopen(gpu, "r");
    int lines = 0, numbers = 0;
    assert_true(a && b);
    for (json_error_t error;; lines++) {
        json_t *x = json_loadf(a, JSON_DISABLE_EOF_CHECK, &error);
        json_t *y = json_loadf(b, JSON_DISABLE_EOF_CHECK, &error);
        assert_true((x != NULL) == (y != NULL));
        if (!x)
            break;
        for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
            const json_t *n = json_object_get(x, keys[i]), *k = json_object_get(y, keys[i]);
            assert_true((n != NULL) == (k != NULL));
            if (n)
                numbers_near(keys[i], json_number_value(n), json_number_value(k));
            numbers += n != NULL;
        }
        json_decref(x);
        json_decref(y);
    }
    assert_true(lines >= 12 && numbers >= 3 * 12);
    fclose(a);
    fclose(b);
}

static void as_on_the_host(void **state)
{
    (void)state;
    MdlModel m = two_stages();
    /* The evaluation has 11 samples, so its second batch is padded. */
    float x[11 * FEATURES], y[11];
    for (int i = 0; i < 11 * FEATURES; i++)
        x[i] = (float)(i % 7) / 7 - 0.4f;
    for (int i = 0; i < 11; i++)
        y[i] = (float)(i % 3) / 3;
    npy_put("x.npy", "<f4", "(11, 3)", x, sizeof x);
    npy_put("y.npy", "<f4", "(11,)", y, sizeof y);
    static const char line[] = "-q --steps 12 --data synthetic --eval-data x=x.npy --eval-data "
                               "y=y.npy --eval-every 5 --export %s.st --log %s.jsonl";
    char text[500];
    for (int clip = 0; clip < 2; clip++) {
        char host[600];
        snprintf(text, sizeof text, line, "host", "host");
        snprintf(host, sizeof host, "%s %s", clip ? "clip" : "", text);
        host_runs(host);
        if (clip) {
            m.hyper.beta1 = 1;
            m.clip_norm = 0.05;
        }
        snprintf(text, sizeof text, line, "gpu", "gpu");
        runs_well(&m, text);
        weights_near("host.st", "gpu.st");
        logs_near("host.jsonl", "gpu.jsonl");
    }
}

static void goes_on_with_the_same_bits(void **state)
{
    (void)state;
    MdlModel m = two_stages();
    m.warmup = 0;
    m.lr_schedule = MDL_LR_CONSTANT;
    runs_well(&m, "-q --data synthetic --steps 8 --export whole.st");
    runs_well(&m, "-q --data synthetic --steps 5 --save parts");
    runs_well(&m, "-q --data synthetic --steps 8 --resume parts --export parts.st");
    files_assert_equal("whole.st", "parts.st");
    runs_well(&m, "-q --data synthetic --steps 0 --load whole.st --export again.st");
    files_assert_equal("whole.st", "again.st");
}

/* Weights begin as on the host, to the bit. */
static void begins_as_on_the_host(void **state)
{
    (void)state;
    MdlModel m = two_stages();
    host_runs("-q --data synthetic --steps 0 --seed 5 --export host.st");
    runs_well(&m, "-q --data synthetic --steps 0 --seed 5 --export gpu.st");
    files_assert_equal("host.st", "gpu.st");
}

static void tells_of_its_devices(void **state)
{
    (void)state;
    MdlModel m = two_stages();
    runs_well(&m, "--data synthetic --steps 1");
    const char *line = strstr(run_out, "gpu[1]");
    assert_non_null(line);
    assert_non_null(strstr(line, "bytes, as planned, on "));
    assert_null(strstr(run_out, "threads"));
    runs_well(&m, "--help");
    assert_null(strstr(run_out, "--threads"));
    assert_null(strstr(run_out, "--check-gradients"));
}

static void traces_phases_of_the_gpu(void **state)
{
    (void)state;
    MdlModel m = two_stages();
    runs_well(&m, "-q --data synthetic --steps 20 --trace t.json");
    json_t *trace = json_load_file("t.json", JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(trace);
    const json_t *events = json_object_get(trace, "traceEvents"), *event;
    size_t i;
    int phases = 0;
    double end[2] = {0};
    json_array_foreach(events, i, event)
    {
        if (strcmp(json_string_value(json_object_get(event, "ph")), "X") != 0)
            continue;
        int64_t device = json_integer_value(json_object_get(event, "tid"));
        double ts = json_number_value(json_object_get(event, "ts"));
        double duration = json_number_value(json_object_get(event, "dur"));
        assert_true(device >= 0 && device < 2 && duration >= 0);
        /* One stream: no phase begins before the last has ended. */
        assert_true(ts >= end[device] - 1);
        end[device] = ts + duration;
        phases++;
    }
    assert_int_equal(phases, 20 * 2 * (2 * MICROBATCHES + 1));
    json_decref(trace);
}

static void wrong_use_is_named(void **state)
{
    (void)state;
    MdlModel m = two_stages();
    assert_int_equal(run(&m, "-q --data synthetic --threads 2"), 2);
    error_is("--threads is for devices on the host's processor");
    assert_int_equal(run(&m, "-q --data synthetic --check-gradients"), 2);
    error_is("--target host --set train.precision=f64");
    assert_int_equal(run(&m, "-q"), 2);
    error_is("no data to train on");
}

int main(void)
{
    host_trainer = getenv("TWO_STAGES_HOST");
    if (!host_trainer) {
        fprintf(stderr, "TWO_STAGES_HOST is to name the host's trainer of two stages\n");
        return 2;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(begins_as_on_the_host),
        cmocka_unit_test(as_on_the_host),
        cmocka_unit_test(goes_on_with_the_same_bits),
        cmocka_unit_test(tells_of_its_devices),
        cmocka_unit_test(traces_phases_of_the_gpu),
        cmocka_unit_test(wrong_use_is_named),
        cmocka_unit_test_teardown(deadlock_times_out, fault_clear),
        cmocka_unit_test_teardown(loss_that_is_no_number_stops, fault_clear),
        cmocka_unit_test_teardown(gradient_that_is_no_number_stops, fault_clear),
        cmocka_unit_test(unplanned_memory_is_an_error),
        cmocka_unit_test(bad_sample_is_named),
    };
    return cmocka_run_group_tests(tests, workshop_open, workshop_close);
}
