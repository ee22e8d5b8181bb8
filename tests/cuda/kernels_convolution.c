/* Convolution on a GPU against the host's kernels. */
#include "gpu_check.h"

static Conv2d shape(int64_t B, int64_t C, int64_t H, int64_t W, int64_t K, int64_t kernel,
                    int64_t stride, int64_t pad, int64_t groups)
{
    return (Conv2d){B,
                    C,
                    H,
                    W,
                    K,
                    (H + 2 * pad - kernel) / stride + 1,
                    (W + 2 * pad - kernel) / stride + 1,
                    kernel,
                    stride,
                    pad,
                    groups};
}

static const double TOLERANCE = 1e-5;

static int64_t count_in(const Conv2d *s)
{
    return s->B * s->C * s->H * s->W;
}

static int64_t count_out(const Conv2d *s)
{
    return s->B * s->K * s->OH * s->OW;
}

static int64_t count_weights(const Conv2d *s)
{
    return s->K * (s->C / s->groups) * s->kernel * s->kernel;
}

/* extras: with a bias and relu; added to what the gradient holds. */
static void check_conv(Conv2d s, bool extras)
{
    const int64_t in = count_in(&s), out = count_out(&s), weights = count_weights(&s);
    real *x = new_numbers(in, 1), *w = new_numbers(weights, 2), *b = new_numbers(s.K, 3);
    real *dy = new_numbers(out, 4), *y = new_numbers(out, 0), *dx = new_numbers(in, 0);
    real *dw = new_numbers(weights, 5);
    float *gx = gpu_numbers(x, in), *gw = gpu_numbers(w, weights), *gb = gpu_numbers(b, s.K);
    float *gdy = gpu_numbers(dy, out), *gdw = gpu_numbers(dw, weights);
    float *gy = gpu_floats(out), *gdx = gpu_floats(in);

    conv2d_forward(the_team, y, x, w, extras ? b : NULL, &s, extras);
    GPU_OK(gpu_conv2d_forward(&the_gpu, gy, gx, gw, extras ? gb : NULL, &s, extras));
    gpu_check(gy, y, out, TOLERANCE, "conv2d_forward");

    conv2d_backward_input(the_team, dx, dy, w, &s);
    GPU_OK(gpu_conv2d_backward_input(&the_gpu, gdx, gdy, gw, &s));
    gpu_check(gdx, dx, in, TOLERANCE, "conv2d_backward_input");

    conv2d_backward_weight(the_team, dw, dy, x, &s, extras);
    GPU_OK(gpu_conv2d_backward_weight(&the_gpu, gdw, gdy, gx, &s, extras));
    gpu_check(gdw, dw, weights, TOLERANCE, "conv2d_backward_weight");

    real *const host[] = {x, w, b, dy, y, dx, dw};
    float *const device[] = {gx, gw, gb, gdy, gdw, gy, gdx};
    for (int i = 0; i < 7; i++) {
        free(host[i]);
        gpu_free(device[i]);
    }
}

static void check_both(const Conv2d *shapes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        check_conv(shapes[i], false);
        check_conv(shapes[i], true);
    }
}
#define CHECK_ALL(shapes) check_both(shapes, sizeof(shapes) / sizeof(shapes)[0])

/* Groups of few output channels: no tiles. */
static void test_direct(void **state)
{
    (void)state;
    const Conv2d shapes[] = {
        shape(1, 1, 1, 1, 1, 1, 1, 0, 1),   shape(2, 12, 7, 9, 12, 3, 1, 1, 12),
        shape(2, 6, 9, 11, 12, 3, 2, 1, 6), shape(3, 4, 8, 8, 5, 1, 2, 0, 1),
        shape(2, 3, 20, 6, 4, 2, 3, 1, 1),  shape(2, 2, 6, 7, 3, 1, 1, 2, 1),
        shape(2, 1, 3, 2, 2, 3, 2, 2, 1),   shape(25, 2, 2, 2, 3, 2, 2, 0, 1),
        shape(2, 1, 5, 5, 1, 4, 3, 0, 1),   shape(10, 6, 7, 5, 9, 1, 1, 0, 3),
        shape(17, 5, 8, 8, 5, 5, 1, 2, 5),  shape(2, 7, 6, 5, 7, 3, 1, 0, 1),
    };
    CHECK_ALL(shapes);
}

/* Channels that fill tiles, and that do not; planes of a multiple of four, and others. */
static void test_tiles(void **state)
{
    (void)state;
    const Conv2d shapes[] = {
        shape(3, 1, 28, 28, 9, 5, 1, 2, 1),  shape(5, 3, 14, 13, 17, 3, 1, 1, 1),
        shape(9, 16, 5, 5, 24, 3, 1, 0, 2),  shape(17, 8, 4, 3, 10, 3, 1, 1, 1),
        shape(3, 16, 8, 8, 33, 1, 1, 0, 1),  shape(1, 90, 9, 10, 11, 3, 1, 1, 1),
        shape(2, 64, 8, 6, 64, 3, 1, 1, 1),  shape(2, 70, 12, 5, 66, 4, 1, 1, 1),
        shape(2, 32, 7, 9, 40, 1, 1, 0, 1),  shape(2, 30, 4, 4, 70, 3, 1, 1, 2),
        shape(1, 96, 4, 4, 160, 3, 1, 1, 1),
    };
    CHECK_ALL(shapes);
}

/* Phases: strides below, at and above the filter's size; taps and pixels that miss. */
static void test_strides(void **state)
{
    (void)state;
    const Conv2d shapes[] = {
        shape(2, 16, 9, 11, 12, 3, 2, 1, 1), shape(2, 16, 8, 8, 32, 3, 2, 1, 2),
        shape(2, 24, 9, 9, 16, 1, 2, 0, 1),  shape(1, 16, 12, 12, 16, 4, 4, 0, 1),
        shape(2, 9, 11, 7, 8, 2, 3, 0, 1),   shape(1, 16, 13, 14, 10, 7, 2, 3, 1),
        shape(3, 8, 5, 5, 9, 3, 3, 2, 1),    shape(2, 10, 6, 7, 11, 1, 1, 2, 1),
        shape(1, 8, 4, 4, 8, 4, 1, 3, 1),
    };
    CHECK_ALL(shapes);
}

/* Many tiles of the largest size, and sums of many slices. */
static void test_large(void **state)
{
    (void)state;
    const Conv2d shapes[] = {
        shape(11, 8, 31, 31, 72, 1, 1, 0, 1),
        shape(40, 3, 23, 20, 9, 3, 1, 1, 1),
        shape(30, 4, 24, 24, 4, 3, 1, 1, 4),
    };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        check_conv(shapes[i], i % 2);
}

/* Weights that do not fit the scratch at once: channels by parts, and groups by parts. */
static void test_many_weights(void **state)
{
    (void)state;
    check_conv(shape(1, 700, 1, 1, 700, 3, 1, 1, 1), true);
    check_conv(shape(1, 1200, 1, 1, 1200, 3, 1, 1, 3), false);
}

/* Small planes and long sums, cut into segments; in the last one, with scratch for the sums of
 * three samples beside the weights. */
static void test_segments(void **state)
{
    (void)state;
    const Conv2d shapes[] = {
        shape(3, 128, 5, 5, 40, 3, 1, 1, 1),    shape(2, 40, 4, 4, 128, 3, 1, 1, 1),
        shape(2, 230, 9, 8, 9, 3, 1, 1, 1),     shape(2, 24, 9, 7, 300, 3, 2, 1, 1),
        shape(2, 1040, 3, 3, 2080, 1, 1, 0, 2),
    };
    CHECK_ALL(shapes);
    check_conv(shape(4, 2048, 2, 2, 2000, 1, 1, 0, 1), true);
}

/* Sums of which scratch has no room for the weights of four channels: `many` products for each of
 * 9 results of a convolution, and likewise of its gradient. */
static void test_long_sums(void **state)
{
    (void)state;
    const int64_t many = GPU_SCRATCH / 16 + 7, weights = 9 * many;
    const Conv2d narrow = shape(1, many, 1, 1, 9, 1, 1, 0, 1);
    const Conv2d wide = shape(1, 9, 1, 1, many, 1, 1, 0, 1);
    real *x = new_numbers(many, 1), *w = new_numbers(weights, 2), result[9];
    float *gx = gpu_numbers(x, many), *gw = gpu_numbers(w, weights), *to = gpu_floats(9);
    conv2d_forward(the_team, result, x, w, NULL, &narrow, false);
    GPU_OK(gpu_conv2d_forward(&the_gpu, to, gx, gw, NULL, &narrow, false));
    gpu_check(to, result, 9, 1e-4, "conv2d_forward");
    conv2d_backward_input(the_team, result, x, w, &wide);
    GPU_OK(gpu_conv2d_backward_input(&the_gpu, to, gx, gw, &wide));
    gpu_check(to, result, 9, 1e-4, "conv2d_backward_input");
    free(x);
    free(w);
    gpu_free(gx);
    gpu_free(gw);
    gpu_free(to);
}

/* A sample alone gives the bits that it gives among others. */
static void test_sample_is_independent(void **state)
{
    (void)state;
    const Conv2d shapes[] = {shape(30, 8, 30, 30, 80, 3, 1, 1, 1), shape(5, 6, 9, 9, 6, 3, 2, 1, 6),
                             shape(30, 128, 4, 4, 130, 3, 1, 1, 1)};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        Conv2d s = shapes[i];
        const int64_t in = count_in(&s), out = count_out(&s), weights = count_weights(&s);
        const int64_t at = s.B - 2, per_in = in / s.B, per_out = out / s.B;
        real *x = new_numbers(in, 1), *w = new_numbers(weights, 2), *dy = new_numbers(out, 4);
        real *y = new_numbers(per_out, 0), *dx = new_numbers(per_in, 0);
        float *gx = gpu_numbers(x, in), *gw = gpu_numbers(w, weights), *gdy = gpu_numbers(dy, out);
        float *gy = gpu_floats(out), *gdx = gpu_floats(in);
        GPU_OK(gpu_conv2d_forward(&the_gpu, gy, gx, gw, NULL, &s, false));
        GPU_OK(gpu_conv2d_backward_input(&the_gpu, gdx, gdy, gw, &s));
        gpu_download(y, gy + at * per_out, (size_t)per_out * sizeof *y);
        gpu_download(dx, gdx + at * per_in, (size_t)per_in * sizeof *dx);
        s.B = 1;
        GPU_OK(gpu_conv2d_forward(&the_gpu, gy, gx + at * per_in, gw, NULL, &s, false));
        GPU_OK(gpu_conv2d_backward_input(&the_gpu, gdx, gdy + at * per_out, gw, &s));
        gpu_check(gy, y, per_out, 0, "conv2d_forward of one sample");
        gpu_check(gdx, dx, per_in, 0, "conv2d_backward_input of one sample");
        real *const host[] = {x, w, dy, y, dx};
        float *const device[] = {gx, gw, gdy, gy, gdx};
        for (int j = 0; j < 5; j++) {
            free(host[j]);
            gpu_free(device[j]);
        }
    }
}

static void test_nothing(void **state)
{
    (void)state;
    const Conv2d s = shape(0, 3, 5, 5, 7, 3, 1, 1, 1);
    real zeros[7 * 3 * 9] = {0};
    real *dw = new_numbers(7 * 3 * 9, 1);
    float *gdw = gpu_numbers(dw, 7 * 3 * 9);
    GPU_OK(gpu_conv2d_forward(&the_gpu, NULL, NULL, NULL, NULL, &s, false));
    GPU_OK(gpu_conv2d_backward_input(&the_gpu, NULL, NULL, NULL, &s));
    GPU_OK(gpu_conv2d_backward_weight(&the_gpu, gdw, NULL, NULL, &s, true));
    gpu_check(gdw, dw, 7 * 3 * 9, 0, "nothing added");
    GPU_OK(gpu_conv2d_backward_weight(&the_gpu, gdw, NULL, NULL, &s, false));
    gpu_check(gdw, zeros, 7 * 3 * 9, 0, "the sum of nothing");
    free(dw);
    gpu_free(gdw);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_direct),       cmocka_unit_test(test_tiles),
        cmocka_unit_test(test_strides),      cmocka_unit_test(test_large),
        cmocka_unit_test(test_many_weights), cmocka_unit_test(test_segments),
        cmocka_unit_test(test_nothing),      cmocka_unit_test(test_sample_is_independent),
        cmocka_unit_test(test_long_sums),
    };
    return cmocka_run_group_tests(tests, gpu_open, gpu_close);
}
