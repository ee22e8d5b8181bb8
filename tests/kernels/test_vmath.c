/* The functions of vmath.h: error bounds against the C library in double, special values, and
 * the same bits from a vectorised loop and one element at a time.
 */
#include "check.h"

#include "vmath.h"

#ifdef MDL_F64
enum { BITS = 52 };
#else
enum { BITS = 23 };
#endif

static double relu_double(double x)
{
    return x > 0 ? x : 0;
}

static double sigmoid_double(double x)
{
    return 1 / (1 + exp(-x));
}

static double silu_double(double x)
{
    return x * sigmoid_double(x);
}

static double gelu_double(double x)
{
    return 0.5 * x * (1 + tanh(sqrt(2 / acos(-1.0)) * (x + 0.044715 * x * x * x)));
}

static double slope(double (*f)(double), double x)
{
    const double h = 1e-5;
    return (f(x + h) - f(x - h)) / (2 * h);
}

/* Distance in units in the last place of the wanted value; results below the normal range
 * count in units of the smallest normal's. */
static double ulps(real got, double want)
{
    int exponent;
    frexp(want, &exponent);
    const int least = sizeof(real) == 4 ? -125 : -1021;
    const double ulp = ldexp(1, (exponent < least ? least : exponent) - 1 - BITS);
    return fabs((double)got - want) / ulp;
}

typedef real RealFn(real x);
typedef double DoubleFn(double x);

#define WRAP(name)                                                                                 \
    static real call_##name(real x)                                                                \
    {                                                                                              \
        return mdl_##name(x);                                                                      \
    }
WRAP(exp)
WRAP(log)
WRAP(tanh)
WRAP(sigmoid)

static void check_ulps(RealFn *f, DoubleFn *want, double from, double to, double bound,
                       const char *name)
{
    double worst = 0, at = 0;
    for (int i = 0; i <= 1000000; i++) {
        const real x = (real)(from + (to - from) * i / 1000000);
        const double error = ulps(f(x), want((double)x));
        if (!(error <= worst)) {
            worst = error;
            at = (double)x;
        }
    }
    if (!(worst <= bound))
        fail_msg("%s: %.2f ulp at %.9g, more than %.2f", name, worst, at, bound);
}

static void test_errors(void **state)
{
    (void)state;
    check_ulps(call_exp, exp, -87, 88.7, 2, "exp");
    check_ulps(call_exp, exp, -1, 1, 2, "exp");
    check_ulps(call_log, log, 1e-3, 2, 2, "log");
    check_ulps(call_log, log, 0.99, 1.01, 2, "log");
    check_ulps(call_log, log, 1, 1e30, 2, "log");
    check_ulps(call_log, log, 1e-38, 1e-36, 2, "log");
    check_ulps(call_tanh, tanh, -1, 1, 3, "tanh");
    check_ulps(call_tanh, tanh, -12, 12, 3, "tanh");
    check_ulps(call_tanh, tanh, -1e-3, 1e-3, 3, "tanh");
    check_ulps(call_sigmoid, sigmoid_double, -80, 20, 4, "sigmoid");
}

/* Every power of two, and its neighbours, of either sign. */
static void test_all_exponents(void **state)
{
    (void)state;
    for (int e = -148; e < 128; e++) {
        for (int i = 0; i < 64; i++) {
            const real x = (real)ldexp(1 + i / 64.0, e);
            assert_true(ulps(mdl_log(x), log((double)x)) <= 2);
            assert_true(ulps(mdl_tanh(-x), tanh(-(double)x)) <= 3);
            if (x < 88)
                assert_true(ulps(mdl_exp(x), exp((double)x)) <= 2);
            if (x < 87)
                assert_true(ulps(mdl_exp(-x), exp(-(double)x)) <= 2);
        }
    }
}

static void test_special_values(void **state)
{
    (void)state;
    const real inf = (real)HUGE_VAL, nan = (real)NAN;
    assert_true(mdl_exp(0) == 1 && mdl_exp(inf) == inf && mdl_exp(-inf) == 0);
    assert_true(mdl_exp(1000) == inf && mdl_exp(-1000) == 0 && isnan(mdl_exp(nan)));
    assert_true(mdl_log(1) == 0 && mdl_log(inf) == inf && mdl_log(0) == -inf);
    assert_true(isnan(mdl_log(-1)) && isnan(mdl_log(nan)) && isnan(mdl_log(-inf)));
    assert_true(mdl_tanh(0) == 0 && mdl_tanh(inf) == 1 && mdl_tanh(-inf) == -1);
    assert_true(isnan(mdl_tanh(nan)) && signbit(mdl_tanh((real)-0.0)));
    assert_true(mdl_sigmoid(0) == (real)0.5 && mdl_sigmoid(inf) == 1 && mdl_sigmoid(-inf) == 0);
    assert_true(isnan(mdl_sigmoid(nan)) && isnan(mdl_relu(nan)) && isnan(mdl_gelu(nan)));
    assert_true(mdl_gelu(100) == 100 && mdl_gelu(-100) == 0 && mdl_gelu_grad(100) == 1);
    assert_true(fabs((double)mdl_gelu_grad((real)-1e30)) < 1e-99 && mdl_gelu_grad((real)1e30) == 1);
    assert_true(mdl_bce(200, 1) < (real)1e-30 && mdl_bce(-200, 1) == 200 && mdl_bce(200, 0) == 200);
    assert_true(mdl_abs((real)-0.0) == 0 && !signbit(mdl_abs((real)-0.0)) && mdl_abs(-2) == 2);
}

static void test_compositions(void **state)
{
    (void)state;
    const double epsilon = sizeof(real) == 4 ? 4e-7 : 1e-9;
    for (double x = -9; x < 9; x += 0.013) {
        const real r = (real)x;
        const double d = (double)r, size = fmax(1, fabs(d));
        assert_true(fabs((double)mdl_gelu(r) - gelu_double(d)) < 2 * epsilon * size);
        assert_true(fabs((double)mdl_silu(r) - silu_double(d)) < 2 * epsilon * size);
        assert_true(fabs((double)mdl_gelu_grad(r) - slope(gelu_double, d)) < 4 * epsilon * size);
        assert_true(fabs((double)mdl_silu_grad(r) - slope(silu_double, d)) < 4 * epsilon * size);
        assert_true((double)mdl_relu(r) == relu_double(d));
        const double bce = fmax(d, 0) - d * 0.25 + log1p(exp(-fabs(d)));
        assert_true(fabs((double)mdl_bce(r, (real)0.25) - bce) < 2 * epsilon * size);
        assert_true(fabs((double)mdl_bce_grad(r, (real)0.25) - sigmoid_double(d) + 0.25) < epsilon);
    }
}

/* A loop that the compiler vectorises, with a remainder, against single calls. */
static void test_same_bits_alone_and_in_loops(void **state)
{
    (void)state;
    enum { N = 1003 };
    static real x[N], y[5][N];
    for (int i = 0; i < N; i++)
        x[i] = (real)(number_at(1, i) * 20);
    for (int i = 0; i < N; i++) {
        y[0][i] = mdl_exp(x[i]);
        y[1][i] = mdl_log(mdl_abs(x[i]));
        y[2][i] = mdl_tanh(x[i]);
        y[3][i] = mdl_gelu_grad(x[i]);
        y[4][i] = mdl_bce(x[i], x[N - 1 - i]);
    }
    for (int i = 0; i < N; i++) {
        volatile real v = x[i], u = x[N - 1 - i];
        const real one[5] = {mdl_exp(v), mdl_log(mdl_abs(v)), mdl_tanh(v), mdl_gelu_grad(v),
                             mdl_bce(v, u)};
        for (int f = 0; f < 5; f++)
            assert_memory_equal(&one[f], &y[f][i], sizeof(real));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_all_exponents),
        cmocka_unit_test(test_special_values),
        cmocka_unit_test(test_compositions),
        cmocka_unit_test(test_same_bits_alone_and_in_loops),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
