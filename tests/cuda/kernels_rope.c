/* Rotary embedding on a GPU against a plain loop in double, in float and in 16-bit numbers. */
#include "gpu_half.h"
#include "gpu_half_tensor.h"

static void reference_rope(real *y, const real *x, int64_t B, int64_t t, int64_t heads,
                           int64_t width, double base, bool inverse)
{
    for (int64_t row = 0; row < B * t * heads; row++)
        for (int64_t c = 0; c < width / 2; c++) {
            const int64_t i = row / heads % t, at = row * width + c, to = at + width / 2;
            const double angle = (double)i * pow(base, -2 * (double)c / (double)width);
            const double k = cos(angle), s = inverse ? -sin(angle) : sin(angle);
            const double a = (double)x[at], b = (double)x[to];
            y[at] = (real)(a * k - b * s);
            y[to] = (real)(b * k + a * s);
        }
}

typedef struct {
    int64_t B, t, heads, width;
    double base;
} RopeShape;

static const RopeShape ROPE_SHAPES[] = {
    {1, 1, 1, 2, 10000},      {2, 5, 3, 8, 10000},    {3, 37, 5, 64, 10000},
    {1, 7000, 1, 2, 10000},   {40, 2, 7, 22, 500000}, {1, 9, 2, 2 * 1032, 1e4},
    {1, 3, 1, 2 * 2051, 1e4},
};
enum { ROPE_SHAPES_COUNT = sizeof ROPE_SHAPES / sizeof *ROPE_SHAPES };

static void check_rope(const RopeShape *r, bool inverse)
{
    const Gpu *g = &the_gpu;
    const int64_t n = r->B * r->t * r->heads * r->width;
    const Tensor x = tensor_numbers(n, 1), y = tensor_empty(n);
    reference_rope(y.host, x.host, r->B, r->t, r->heads, r->width, r->base, inverse);
    GPU_OK(gpu_rope(g, y.gpu, x.gpu, r->B, r->t, r->heads, r->width, r->base, inverse));
    tensor_check(y, 1e-6, "rope");
    GPU_OK(gpu_rope(g, x.gpu, x.gpu, r->B, r->t, r->heads, r->width, r->base, inverse));
    tensor_check_part(y, x, 0, "rope in place");
    tensors_free();
}

static void check_rope_half(const RopeShape *r, bool inverse)
{
    const Gpu *g = &the_gpu;
    const int64_t n = r->B * r->t * r->heads * r->width;
    const Half x = half_numbers(n, 1), y = half_empty(n);
    reference_rope(y.wide, x.wide, r->B, r->t, r->heads, r->width, r->base, inverse);
    GPU_OK(gpu_rope_half(g, half_kind, y.gpu, x.gpu, r->B, r->t, r->heads, r->width, r->base,
                         inverse));
    half_check(y, 1e-6, "rope_half");
    GPU_OK(gpu_rope_half(g, half_kind, x.gpu, x.gpu, r->B, r->t, r->heads, r->width, r->base,
                         inverse));
    half_check_part(y, x, 0, "rope_half in place");
    halves_free();
}

static void test_rope(void **state)
{
    (void)state;
    for (int i = 0; i < ROPE_SHAPES_COUNT; i++)
        for (tensor_shift = 0; tensor_shift < 2; tensor_shift++)
            check_rope(&ROPE_SHAPES[i], tensor_shift);
    for (int i = 0; i < ROPE_SHAPES_COUNT; i++)
        for (tensor_shift = 0; tensor_shift < 2; tensor_shift++) {
            half_kind = (i + tensor_shift) % 2 ? HALF_F16 : HALF_BF16;
            check_rope_half(&ROPE_SHAPES[i], tensor_shift);
        }
    tensor_shift = 0;
}

static void test_nothing(void **state)
{
    (void)state;
    GPU_OK(gpu_rope(&the_gpu, NULL, NULL, 0, 3, 2, 8, 10000, false));
    GPU_OK(gpu_rope_half(&the_gpu, HALF_BF16, NULL, NULL, 0, 3, 2, 8, 10000, false));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rope),
        cmocka_unit_test(test_nothing),
    };
    return cmocka_run_group_tests(tests, gpu_open, gpu_close);
}
