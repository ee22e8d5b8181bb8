/* test_gradients.c - --check-gradients finds right gradients right and wrong ones wrong. */
#include "workshop.h"

#include <string.h>

#include "two_stages.h"

static int fault_clear(void **state)
{
    (void)state;
    fault = FAULT_NONE;
    return 0;
}

static void right_gradients_pass(void **state)
{
    (void)state;
    MdlModel m = two_stages();
    assert_int_equal(run(&m, "--data synthetic --check-gradients"), 0);
    static const char *const names[] = {"in.weight [4,3]", "in.bias [4]", "shared.7.scale [4]",
                                        "out.weight [1,4]", "out.bias [1]"};
    for (int i = 0; i < 5; i++)
        assert_non_null(strstr(run_out, names[i]));
    assert_null(strstr(run_out, "BAD"));
}

static void wrong_gradients_fail(void **state)
{
    (void)state;
    MdlModel m = two_stages();
    fault = FAULT_GRADIENT;
    fault_step = 1;
    assert_int_equal(run(&m, "--data synthetic --check-gradients"), 1);
    assert_non_null(strstr(run_out, "BAD"));
    assert_non_null(strstr(run_err, "the gradients of 1 weights are wrong; the worst is "
                                    "'out.weight'"));
}

/* The first step's momentum must not move the weights either. */
static void checking_leaves_the_model_trainable(void **state)
{
    (void)state;
    MdlModel m = two_stages();
    assert_int_equal(run(&m, "-q --data synthetic --export f64.st"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(right_gradients_pass),
        cmocka_unit_test_teardown(wrong_gradients_fail, fault_clear),
        cmocka_unit_test(checking_leaves_the_model_trainable),
    };
    return cmocka_run_group_tests(tests, workshop_open, workshop_close);
}
