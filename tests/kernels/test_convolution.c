/* Convolution and pooling against their definitions, in double. */
#include "check.h"

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

typedef struct {
    double *y, *dx, *dw;
} Reference;

/* All three passes at once: every product of the definition is visited. */
static void reference(Reference *r, const Conv2d *s, const real *x, const real *w, const real *dy)
{
    const int64_t per = s->K / s->groups, depth = s->C / s->groups;
    for (int64_t i = 0; i < s->B * s->K * s->OH * s->OW; i++) {
        const int64_t ow = i % s->OW, oh = i / s->OW % s->OH, k = i / s->OW / s->OH % s->K;
        const int64_t b = i / s->OW / s->OH / s->K;
        for (int64_t j = 0; j < depth * s->kernel * s->kernel; j++) {
            const int64_t c = k / per * depth + j / s->kernel / s->kernel;
            const int64_t h = oh * s->stride - s->pad + j / s->kernel % s->kernel;
            const int64_t v = ow * s->stride - s->pad + j % s->kernel;
            if (h < 0 || h >= s->H || v < 0 || v >= s->W)
                continue;
            const int64_t at = ((b * s->C + c) * s->H + h) * s->W + v;
            const int64_t weight = k * depth * s->kernel * s->kernel + j;
            r->y[i] += (double)x[at] * (double)w[weight];
            r->dx[at] += (double)dy[i] * (double)w[weight];
            r->dw[weight] += (double)dy[i] * (double)x[at];
        }
    }
}

static void check_conv(Conv2d s, bool relu)
{
    const int64_t in = s.B * s.C * s.H * s.W, pixels = s.OH * s.OW, out = s.B * s.K * pixels;
    const int64_t weights = s.K * (s.C / s.groups) * s.kernel * s.kernel;
    real *x = new_numbers(in, 1), *w = new_numbers(weights, 2), *b = new_numbers(s.K, 3);
    real *dy = new_numbers(out, 4), *y = new_numbers(out, 0), *dx = new_numbers(in, 0);
    real *dw = new_numbers(weights, 0);
    Reference r = {new_doubles(out), new_doubles(in), new_doubles(weights)};
    reference(&r, &s, x, w, dy);
    for (int64_t i = 0; i < out && relu; i++)
        r.y[i] = fmax(0, r.y[i] + (double)b[i / pixels % s.K]);
    for (int64_t i = 0; i < weights && relu; i++)
        r.dw[i] += number_at(9, i);
    const double depth = (double)(s.C / s.groups * s.kernel * s.kernel);
    ON_EVERY_TEAM(y, out, 9, conv2d_forward(team, y, x, w, relu ? b : NULL, &s, relu));
    check_close(y, r.y, out, 10 + 10 * sqrt(depth), "conv2d_forward");
    ON_EVERY_TEAM(dx, in, 9, conv2d_backward_input(team, dx, dy, w, &s));
    check_close(dx, r.dx, in, 10 + 10 * sqrt((double)s.K * (double)(s.kernel * s.kernel)),
                "conv2d_backward_input");
    ON_EVERY_TEAM(dw, weights, 9, conv2d_backward_weight(team, dw, dy, x, &s, relu));
    /* many terms: the reference's own partial sums are large, and rounded each time */
    const double terms = (double)(s.B * pixels);
    check_close(dw, r.dw, weights, 10 + 10 * sqrt(terms) + terms / 5, "conv2d_backward_weight");
    free(x);
    free(w);
    free(b);
    free(dy);
    free(y);
    free(dx);
    free(dw);
    free(r.y);
    free(r.dx);
    free(r.dw);
}

static void test_convolutions(void **state)
{
    (void)state;
    const Conv2d shapes[] = {
        shape(1, 1, 1, 1, 1, 1, 1, 0, 1),    shape(3, 1, 28, 28, 9, 5, 1, 2, 1),
        shape(5, 3, 14, 13, 17, 3, 1, 1, 1), shape(2, 4, 9, 11, 6, 3, 2, 1, 2),
        shape(9, 6, 5, 5, 8, 3, 1, 0, 2),    shape(17, 8, 4, 3, 10, 3, 1, 1, 1),
        shape(2, 12, 7, 9, 12, 3, 1, 1, 12), shape(3, 5, 8, 8, 33, 1, 1, 0, 1),
        shape(10, 6, 7, 5, 9, 1, 1, 0, 3),   shape(3, 4, 8, 8, 5, 1, 2, 0, 1),
        shape(2, 3, 20, 6, 4, 2, 3, 1, 1),   shape(2, 2, 6, 7, 3, 1, 1, 2, 1),
        shape(1, 2, 60, 61, 70, 7, 2, 3, 1), shape(1, 90, 9, 10, 11, 3, 1, 1, 1),
        shape(2, 70, 12, 5, 66, 4, 1, 1, 1), shape(1, 2, 90, 200, 3, 3, 1, 1, 1),
        shape(2, 2, 4, 4, 3, 4, 1, 0, 1),    shape(2, 1, 3, 2, 2, 3, 2, 2, 1),
        shape(25, 2, 2, 2, 3, 2, 2, 0, 1),   shape(2, 1, 5, 5, 1, 4, 3, 0, 1),
    };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        check_conv(shapes[i], false);
        check_conv(shapes[i], true);
    }
}

/* Images that must be cut to fit the scratch, and rows that do not fit however cut. */
static void test_large_images(void **state)
{
    (void)state;
    check_conv(shape(1, 3, 300, 500, 9, 3, 1, 1, 1), true);
    check_conv(shape(1, 2, 260, 400, 2, 5, 2, 2, 1), true);
    check_conv(shape(1, 1, 2, 300000, 1, 3, 1, 1, 1), true);
    check_conv(shape(1, 1, 3, 300001, 1, 3, 2, 1, 1), true);
}

static void test_sample_is_independent(void **state)
{
    (void)state;
    const Conv2d s = shape(17, 3, 5, 5, 7, 3, 1, 1, 1);
    const int64_t in = 3 * 25, out = 7 * 25;
    real *x = new_numbers(17 * in, 1), *other = new_numbers(17 * in, 2), *w = new_numbers(189, 3);
    real *y = new_numbers(17 * out, 0), *z = new_numbers(17 * out, 0);
    memcpy(other + 4 * in, x + 4 * in, (size_t)in * sizeof *x);
    Team *team = team_new(2, false);
    conv2d_forward(team, y, x, w, NULL, &s, false);
    conv2d_forward(team, z, other, w, NULL, &s, false);
    assert_memory_equal(y + 4 * out, z + 4 * out, (size_t)out * sizeof *y);
    assert_memory_not_equal(y, z, (size_t)out * sizeof *y);
    team_free(team);
    free(x);
    free(other);
    free(w);
    free(y);
    free(z);
}

/* Maximum and mean of every window; gradients to the first maximum, or shared. */
static void check_pool(Conv2d s, bool ties)
{
    const int64_t in = s.B * s.C * s.H * s.W, out = s.B * s.C * s.OH * s.OW;
    real *x = new_numbers(in, 1), *dy = new_numbers(out, 2), *y = new_numbers(out, 0);
    real *dx = new_numbers(in, 0);
    for (int64_t i = 0; i < in && ties; i++)
        x[i] = (real)(int)(x[i] * 2);
    double *most = new_doubles(out), *mean = new_doubles(out);
    double *dmost = new_doubles(in), *dmean = new_doubles(in);
    for (int64_t o = 0; o < out; o++) {
        const int64_t plane = o / (s.OH * s.OW), oh = o / s.OW % s.OH, ow = o % s.OW;
        int64_t at = -1, count = 0, inside[64];
        for (int64_t p = 0; p < s.kernel * s.kernel; p++) {
            const int64_t h = oh * s.stride - s.pad + p / s.kernel;
            const int64_t v = ow * s.stride - s.pad + p % s.kernel;
            if (h < 0 || h >= s.H || v < 0 || v >= s.W)
                continue;
            inside[count] = plane * s.H * s.W + h * s.W + v;
            if (at < 0 || x[inside[count]] > x[at])
                at = inside[count];
            mean[o] += (double)x[inside[count++]];
        }
        mean[o] /= (double)count;
        most[o] = (double)x[at];
        dmost[at] += (double)dy[o];
        for (int64_t i = 0; i < count; i++)
            dmean[inside[i]] += (double)dy[o] / (double)count;
    }
    ON_EVERY_TEAM(y, out, 9, maxpool2d_forward(team, y, x, &s));
    check_close(y, most, out, 0, "maxpool2d_forward");
    ON_EVERY_TEAM(dx, in, 9, maxpool2d_backward(team, dx, dy, x, &s));
    check_close(dx, dmost, in, 8, "maxpool2d_backward");
    ON_EVERY_TEAM(y, out, 9, avgpool2d_forward(team, y, x, &s));
    check_close(y, mean, out, 8, "avgpool2d_forward");
    ON_EVERY_TEAM(dx, in, 9, avgpool2d_backward(team, dx, dy, &s));
    check_close(dx, dmean, in, 16, "avgpool2d_backward");
    free(x);
    free(dy);
    free(y);
    free(dx);
    free(most);
    free(mean);
    free(dmost);
    free(dmean);
}

static void test_pools(void **state)
{
    (void)state;
    const Conv2d shapes[] = {
        shape(3, 5, 28, 28, 5, 2, 2, 0, 5), shape(2, 3, 9, 11, 3, 2, 2, 0, 3),
        shape(2, 3, 9, 11, 3, 3, 2, 1, 3),  shape(40, 3, 13, 7, 3, 3, 1, 1, 3),
        shape(1, 1, 5, 5, 1, 5, 5, 0, 1),   shape(2, 2, 8, 6, 2, 2, 3, 1, 2),
    };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        check_pool(shapes[i], false);
        check_pool(shapes[i], true);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_convolutions),
        cmocka_unit_test(test_large_images),
        cmocka_unit_test(test_sample_is_independent),
        cmocka_unit_test(test_pools),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
