/* test_failures.c - runs that must end with one clear line and the right exit code. */
#include "workshop.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "training.h"
#include "two_stages.h"
#include "two_stages_failures.h"

static void wrong_use_is_named(void **state)
{
    (void)state;
    static const struct {
        const char *line, *error;
    } uses[] = {
        {"", "no data to train on"},
        {"--frobnicate", "'--frobnicate'"},
        {"--steps", "--steps needs a value"},
        {"--steps -1", "--steps takes a whole number"},
        {"--steps 1x", "'1x'"},
        {"--steps 99999999999999999999", "--steps takes"},
        {"--lr nan", "--lr takes a number"},
        {"--lr ten", "--lr takes a number"},
        {"--threads 0", "--threads takes"},
        {"--seed -3", "--seed takes"},
        {"--time-limit 5y", "90s, 10m or 2h"},
        {"--timeout 0", "--timeout takes"},
        {"--save-every 5 --data synthetic", "--save-every needs --save"},
        {"--load a --resume b", "exclude each other"},
        {"--help=3", "takes no value"},
        {"stray", "'stray' is not an option"},
        {"-xq", "option '-x'"},
        {"--lr -1", "at least 0, not '-1'"},
        {"--data nowhere.npy", "give it as --data NAME=nowhere.npy"},
        {"--data x=nowhere.npy --data y=nowhere.npy", "nowhere.npy: No such file"},
        {"--data x=what.dat", "cannot tell the kind"},
        {"--data z=x.npy", "no input 'z'"},
        {"--eval-every 3 --data synthetic", "needs --eval-data"},
        {"--data synthetic --load nowhere.st", "nowhere.st: No such file"},
        {"--data synthetic --export no/where/w.st", "--export no/where/w.st"},
        {"--data synthetic --log no/where/log", "--log no/where/log"},
        {"--data synthetic --export /dev/null", "--export /dev/null: is no regular file"},
        {"--data synthetic --plot .", "--plot .: is a directory"},
        {"--check-gradients --data synthetic", "train.precision=f64"},
    };
    MdlModel m = two_stages();
    for (size_t i = 0; i < sizeof uses / sizeof *uses; i++) {
        assert_int_equal(run(&m, uses[i].line), 2);
        error_is(uses[i].error);
    }
    assert_int_equal(run(&m, "--help"), 0);
    assert_non_null(strstr(run_out, "--eval-data"));
    assert_non_null(strstr(run_out, "--check-gradients"));
    assert_string_equal(run_err, "");
}

static void diverging_stops(void **state)
{
    (void)state;
    MdlModel m = two_stages();
    m.warmup = 0;
    assert_int_equal(run(&m, "-q --data synthetic --lr 1e30"), 1);
    error_is("step ");
}

/* What was trained is on the disk before it is evaluated. */
static void bad_evaluation_costs_no_training(void **state)
{
    (void)state;
    MdlModel m = two_stages();
    float x[3 * FEATURES] = {0}, y[3] = {0};
    npy_put("ex.npy", "<f4", "(3, 3)", x, sizeof x);
    y[2] = 1.0f / 0.0f;
    npy_put("ey.npy", "<f4", "(3,)", y, sizeof y);
    assert_int_equal(run(&m,
                         "-q --data synthetic --steps 4 --eval-every 2 --save kept --save-every "
                         "2 --eval-data x=ex.npy --eval-data y=ey.npy"),
                     1);
    error_is("ey.npy: sample 2, element 0");
    assert_int_equal(access("kept/step-00000002.safetensors", R_OK), 0);
    assert_int_equal(run(&m, "-q --data synthetic --steps 3 --save kept --export kept.st "
                             "--eval-data x=ex.npy --eval-data y=ey.npy"),
                     1);
    assert_int_equal(access("kept/step-00000003.safetensors", R_OK), 0);
    assert_int_equal(access("kept.st", R_OK), 0);
}

/* A mapped file that is cut off meanwhile ends the process, with a message. */
static void file_cut_while_read_is_an_error(void **state)
{
    (void)state;
    static const char bytes[8192] = {1};
    file_put("cut", bytes, sizeof bytes);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct sigaction old[SIGNALS];
        FileBytes file;
        Problem p = {0};
        interrupt_watch(old);
        if (!freopen("cut.err", "w", stderr) || file_map(&file, "cut", &p) != MDL_OK ||
            truncate("cut", 0) != 0)
            _exit(9);
        _exit(*(const volatile unsigned char *)file.bytes + 8);
    }
    int status;
    assert_true(waitpid(child, &status, 0) == child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == EXIT_RUN);
    char *text = file_get("cut.err", &(size_t){0});
    assert_non_null(strstr(text, "became shorter"));
    free(text);
}

static void other_weights_are_refused(void **state)
{
    (void)state;
    MdlModel m = two_stages();
    static const char header[] =
        "{\"in.weight\":{\"dtype\":\"F32\",\"shape\":[3,4],\"data_offsets\":[0,48]}}";
    char file[8 + sizeof header - 1 + 48] = {sizeof header - 1};
    memcpy(file + 8, header, sizeof header - 1);
    file_put("w.st", file, sizeof file);
    assert_int_equal(run(&m, "-q --data synthetic --load w.st"), 1);
    error_is("tensor 'in.weight' has the shape [3,4]; the model needs [4,3]");
    file[8 + 4] = 'X';
    file_put("w.st", file, sizeof file);
    assert_int_equal(run(&m, "-q --data synthetic --load w.st"), 1);
    error_is("has no tensor 'in.weight'");
}

static void full_disk_is_an_error(void **state)
{
    (void)state;
    MdlModel m = two_stages();
    assert_int_equal(run(&m, "-q --data synthetic --log /dev/full"), 1);
    error_is("--log /dev/full: No space left");
}

static void tokens_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    MdlModel m = two_stages();
    const MdlFile file = {NULL, "shards/*.bin"};
    const MdlData data = {.which = "train", .kind = "tokens", .files = &file, .nfiles = 1};
    m.data = &data;
    m.ndata = 1;
    assert_int_equal(run(&m, "-q"), 2);
    error_is("shards/*.bin: tokens data fits a model with one input i32[n]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wrong_use_is_named),
        cmocka_unit_test_teardown(deadlock_times_out, fault_clear),
        cmocka_unit_test_teardown(loss_that_is_no_number_stops, fault_clear),
        cmocka_unit_test_teardown(gradient_that_is_no_number_stops, fault_clear),
        cmocka_unit_test(diverging_stops),
        cmocka_unit_test(bad_sample_is_named),
        cmocka_unit_test(bad_evaluation_costs_no_training),
        cmocka_unit_test(file_cut_while_read_is_an_error),
        cmocka_unit_test(unplanned_memory_is_an_error),
        cmocka_unit_test(other_weights_are_refused),
        cmocka_unit_test(full_disk_is_an_error),
        cmocka_unit_test(tokens_that_do_not_fit_are_refused),
    };
    return cmocka_run_group_tests(tests, workshop_open, workshop_close);
}
