/* two_stages_failures.c - how runs of the model of two stages end that meet a fault, the same
 * whatever the devices are.
 */
#include "two_stages_failures.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "two_stages.h"

int fault_clear(void **state)
{
    (void)state;
    fault = FAULT_NONE;
    return 0;
}

void error_is(const char *part)
{
    const char *end = strchr(run_err, '\n');
    if (!strstr(run_err, part))
        print_message("got: %swanted: %s\n", run_err, part);
    assert_non_null(strstr(run_err, part));
    assert_int_equal(strncmp(run_err, "error: ", 7), 0);
    assert_true(end && end[1] == '\0');
}

void deadlock_times_out(void **state)
{
    (void)state;
    MdlModel m = two_stages();
    fault = FAULT_DEADLOCK;
    fault_step = 3;
    assert_int_equal(run(&m, "-q --data synthetic --timeout 0.5"), 1);
    error_is("step 3");
    error_is("micro-batch 0 on link ");
    error_is("stage ");
    error_is("--timeout");
}

void loss_that_is_no_number_stops(void **state)
{
    (void)state;
    MdlModel m = two_stages();
    fault = FAULT_NAN;
    fault_step = 4;
    assert_int_equal(run(&m, "-q --data synthetic --export never.st --save kept --save-every 2"),
                     1);
    error_is("stage 1 (gpu[1]), step 4, in F1 m2: the loss of sample 0 of micro-batch 2 is ");
    assert_int_not_equal(access("never.st", F_OK), 0);
    assert_int_equal(access("kept/step-00000002.safetensors", F_OK), 0);
}

void gradient_that_is_no_number_stops(void **state)
{
    (void)state;
    MdlModel m = two_stages();
    fault = FAULT_INFINITE;
    fault_step = 4;
    for (int clip = 0; clip < 2; clip++) {
        if (clip) {
            m.hyper.beta1 = 1; /* the model's sign to clip */
            m.clip_norm = 1;
        }
        assert_int_equal(run(&m, "-q --data synthetic --lr 0.001 --save never --save-every 4"), 1);
        error_is("step 4");
        error_is("the gradient of out.weight is not finite");
        assert_int_not_equal(access("never/step-00000004.safetensors", F_OK), 0);
    }
}

void bad_sample_is_named(void **state)
{
    (void)state;
    MdlModel m = two_stages();
    float x[30] = {0}, y[10] = {0};
    npy_put("x.npy", "<f4", "(10, 3)", x, sizeof x);
    y[7] = -1.0f / 0.0f;
    npy_put("y.npy", "<f4", "(10,)", y, sizeof y);
    assert_int_equal(run(&m, "-q --data x=x.npy --data y=y.npy"), 1);
    error_is("y.npy: sample 7, element 0: -inf");
    npy_put("y.npy", "<f4", "(9,)", y, 36);
    assert_int_equal(run(&m, "-q --data x=x.npy --data y=y.npy"), 1);
    error_is("x.npy holds 10 samples and y.npy holds 9");
    npy_put("y.npy", "<f4", "(10, 2)", y, 36);
    assert_int_equal(run(&m, "-q --data x=x.npy --data y=y.npy"), 1);
    error_is("y.npy: cut off");
    npy_put("y.npy", "<f4", "(10, 0)", y, 0);
    assert_int_equal(run(&m, "-q --data x=x.npy --data y=y.npy"), 1);
    error_is("samples have the shape [0]");
    assert_int_equal(run(&m, "-q --data x=x.npy"), 2);
    error_is("no train data for input 'y'");
}

void unplanned_memory_is_an_error(void **state)
{
    (void)state;
    MdlModel m = two_stages();
    const int64_t planned[] = {m.planned[0] + 4, m.planned[1]};
    m.planned = planned;
    assert_int_equal(run(&m, "-q --data synthetic"), 1);
    error_is("was planned with");
    m = two_stages();
    m.nweights = 4;
    assert_int_equal(run(&m, "-q --data synthetic"), 1);
    error_is("index");
    m = two_stages();
    m.microbatches = 3;
    assert_int_equal(run(&m, "-q --data synthetic"), 1);
    error_is("description is wrong");
}
