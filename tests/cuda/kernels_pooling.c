/* Pooling on a GPU against the host's kernels. */
#include "gpu_check.h"

static Conv2d shape(int64_t B, int64_t C, int64_t H, int64_t W, int64_t kernel, int64_t stride,
                    int64_t pad)
{
    return (Conv2d){B,
                    C,
                    H,
                    W,
                    C,
                    (H + 2 * pad - kernel) / stride + 1,
                    (W + 2 * pad - kernel) / stride + 1,
                    kernel,
                    stride,
                    pad,
                    C};
}

typedef enum { PLAIN, TIES, SPECIAL, KINDS } Numbers;

/* x in place: few different numbers; or infinities and NaN among them. */
static void set_kind(real *x, int64_t n, Numbers kind)
{
    for (int64_t i = 0; i < n && kind != PLAIN; i++)
        x[i] = (real)(int)(x[i] * 2);
    for (int64_t i = 0; i < n && kind == SPECIAL; i += 7)
        x[i] = i % 3 == 0 ? (real)NAN : -(real)INFINITY;
}

static void check_pool(Conv2d s, Numbers kind)
{
    const int64_t in = s.B * s.C * s.H * s.W, out = s.B * s.C * s.OH * s.OW;
    real *x = new_numbers(in, 1), *dy = new_numbers(out, 2), *y = new_numbers(out, 0);
    real *dx = new_numbers(in, 0);
    set_kind(x, in, kind);
    float *gx = gpu_numbers(x, in), *gdy = gpu_numbers(dy, out);
    float *gy = gpu_floats(out), *gdx = gpu_floats(in);

    maxpool2d_forward(the_team, y, x, &s);
    GPU_OK(gpu_maxpool2d_forward(&the_gpu, gy, gx, &s));
    gpu_check(gy, y, out, 0, "maxpool2d_forward");
    maxpool2d_backward(the_team, dx, dy, x, &s);
    GPU_OK(gpu_maxpool2d_backward(&the_gpu, gdx, gdy, gx, &s));
    gpu_check(gdx, dx, in, 1e-6, "maxpool2d_backward");

    if (kind != SPECIAL) {
        avgpool2d_forward(the_team, y, x, &s);
        GPU_OK(gpu_avgpool2d_forward(&the_gpu, gy, gx, &s));
        gpu_check(gy, y, out, 1e-5, "avgpool2d_forward");
        avgpool2d_backward(the_team, dx, dy, &s);
        GPU_OK(gpu_avgpool2d_backward(&the_gpu, gdx, gdy, &s));
        gpu_check(gdx, dx, in, 1e-5, "avgpool2d_backward");
    }
    free(x);
    free(dy);
    free(y);
    free(dx);
    gpu_free(gx);
    gpu_free(gdy);
    gpu_free(gy);
    gpu_free(gdx);
}

static void test_pools(void **state)
{
    (void)state;
    const Conv2d shapes[] = {
        shape(3, 5, 28, 28, 2, 2, 0), shape(2, 3, 9, 11, 2, 2, 0),  shape(2, 3, 9, 12, 2, 2, 0),
        shape(2, 3, 6, 10, 2, 2, 0),  shape(1, 1, 2, 4, 2, 2, 0),   shape(2, 3, 9, 11, 3, 2, 1),
        shape(40, 3, 13, 7, 3, 1, 1), shape(1, 1, 5, 5, 5, 5, 0),   shape(2, 2, 8, 6, 2, 3, 1),
        shape(7, 3, 7, 7, 7, 7, 0),   shape(2, 3, 13, 11, 6, 2, 3), shape(5, 1, 9, 8, 8, 1, 0),
        shape(1, 1, 1, 1, 1, 1, 0),   shape(2, 2, 6, 6, 1, 2, 0),   shape(1, 2, 33, 31, 31, 1, 0),
    };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        for (int kind = 0; kind < KINDS; kind++)
            check_pool(shapes[i], (Numbers)kind);
}

/* More windows than the scratch has room for: in one plane, and in two. */
static void test_scratch_runs_out(void **state)
{
    (void)state;
    enum { PLACES = GPU_SCRATCH / 4 };
    const Conv2d shapes[] = {shape(1, 1, 2, PLACES / 2 + 1, 1, 1, 0),
                             shape(2, 1, 4, PLACES / 8 + 1, 1, 1, 0)};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        const Conv2d s = shapes[i];
        const int64_t n = s.B * s.H * s.W;
        real *x = new_numbers(n, 1);
        float *gx = gpu_numbers(x, n), *gdx = gpu_floats(n);
        GPU_OK(gpu_maxpool2d_backward(&the_gpu, gdx, gx, gx, &s)); /* every pixel wins */
        gpu_check(gdx, x, n, 0, "maxpool2d_backward");
        free(x);
        gpu_free(gx);
        gpu_free(gdx);
    }
}

static void test_nothing(void **state)
{
    (void)state;
    const Conv2d s = shape(0, 3, 4, 4, 2, 2, 0);
    GPU_OK(gpu_maxpool2d_forward(&the_gpu, NULL, NULL, &s));
    GPU_OK(gpu_maxpool2d_backward(&the_gpu, NULL, NULL, NULL, &s));
    GPU_OK(gpu_avgpool2d_forward(&the_gpu, NULL, NULL, &s));
    GPU_OK(gpu_avgpool2d_backward(&the_gpu, NULL, NULL, &s));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pools),
        cmocka_unit_test(test_scratch_runs_out),
        cmocka_unit_test(test_nothing),
    };
    return cmocka_run_group_tests(tests, gpu_open, gpu_close);
}
