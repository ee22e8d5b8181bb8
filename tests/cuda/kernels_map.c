/* The functions of generated element-wise kernels on a GPU against vmath.h: over numbers of every
 * size, both infinities, NaN, both zeros and subnormal numbers.
 */
#include "gpu_tensor.h"
#include "map_functions.h"
#include "vmath.h"

enum { N = 6000 };

static const char *const NAMES[] = {
#define NAME(name) #name,
    MAP_ONE(NAME) MAP_TWO(NAME)};

static real host_function(MapFunction f, real a, real b)
{
    switch (f) {
#define CASE_ONE(name)                                                                             \
    case MAP_##name:                                                                               \
        return mdl_##name(a);
#define CASE_TWO(name)                                                                             \
    case MAP_##name:                                                                               \
        return mdl_##name(a, b);
        MAP_ONE(CASE_ONE)
        MAP_TWO(CASE_TWO)
    case MAP_FUNCTIONS:
        break;
    }
    return 0;
}

static void set_special(real *x, uint64_t seed)
{
    static const real special[] = {
        0,        -(real)0, 1,          -1,          (real)1e-40,    (real)1e-8,
        20,       -20,      88,         -88,         (real)88.8,     -104,
        -110,     100,      (real)3e38, -(real)3e38, (real)INFINITY, -(real)INFINITY,
        (real)NAN};
    enum { SPECIAL = sizeof special / sizeof *special };
    for (int64_t i = 0; i < N; i++)
        x[i] = i < SPECIAL * SPECIAL ? special[seed == 1 ? i % SPECIAL : i / SPECIAL]
                                     : x[i] * (real)exp(30 * number_at(seed + 2, i));
}

/* Relative to the number, but for tiny ones: log1p_unit is for numbers of [0, 1]. */
static void test_functions(void **state)
{
    (void)state;
    real *numbers = new_numbers(N, 1), *others = new_numbers(N, 2);
    set_special(numbers, 1);
    set_special(others, 2);
    const Tensor a = tensor_of(numbers, N), b = tensor_of(others, N), y = tensor_empty(N);
    for (MapFunction f = 0; f < MAP_FUNCTIONS; f++) {
        GPU_OK(gpu_map_function(&the_gpu, f, y.gpu, a.gpu, b.gpu, N));
        gpu_download(y.host, y.gpu, N * sizeof *y.host);
        for (int64_t i = 0; i < N; i++) {
            if (f == MAP_log1p_unit && !(a.host[i] >= 0 && a.host[i] <= 1))
                continue;
            const real want = host_function(f, a.host[i], b.host[i]), got = y.host[i];
            const double error = fabs((double)got - (double)want);
            const bool same = got == want || (isnan(got) && isnan(want));
            if (!same && !(error <= 3e-6 * fmax(fabs((double)want), 1e-30)))
                fail_msg("%s(%.9g, %.9g) is %.9g, not %.9g", NAMES[f], (double)a.host[i],
                         (double)b.host[i], (double)got, (double)want);
        }
    }
    tensors_free();
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_functions)};
    return cmocka_run_group_tests(tests, gpu_open, gpu_close);
}
