/* test_sim_memory.c - a device whose addresses are spent: allocations get freed ones again. */
#include "library_test.h"

enum { SMALL = 200, ROUNDS = 8 };

/* Addresses are handed out upwards; a size that still fits is taken until the end is reached. */
static void test_addresses_spent(void **state)
{
    size_t size = (size_t)100 << 30;
    void *memory, *last = NULL;
    (void)state;
    for (; size >= SMALL; size /= 2)
        for (int i = 0; i < 3; i++) {
            FINE(cudaMalloc(&memory, size));
            FINE(cudaFree(memory));
        }
    for (int i = 0; i < ROUNDS; i++) {
        char values[SMALL] = "";
        FINE(cudaMalloc(&memory, SMALL));
        FINE(cudaMemset(memory, i, SMALL));
        host_copy(values, memory, SMALL);
        assert_int_equal(values[SMALL - 1], i);
        FINE(cudaFree(last));
        last = memory;
    }
    FINE(cudaFree(last));
}

int main(void)
{
    /* Only race checking leaves most of a large allocation untouched. */
    setenv("MDL_SIM_MEMORY", "128GiB", 1);
    setenv("MDL_SIM_CHECK", "race", 1);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_addresses_spent)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
