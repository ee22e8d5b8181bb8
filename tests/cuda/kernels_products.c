/* Matrix products on a GPU against the host's kernels. */
#include "gpu_check.h"

typedef struct {
    int64_t m, n, k;
} Shape;

static const Shape SHAPES[] = {
    {1, 1, 1},     {3, 5, 7},      {8, 48, 16},  {31, 33, 127}, {17, 97, 401},
    {64, 100, 70}, {129, 51, 8},   {33, 1, 800}, {1, 77, 500},  {5, 130, 1},
    {140, 64, 13}, {16, 100, 193}, {7, 3, 0},
};
enum { SHAPE_COUNT = sizeof SHAPES / sizeof SHAPES[0] };

static const double TOLERANCE = 1e-5;

static void check_linear(Shape s, bool transposed, bool bias)
{
    const int64_t rows = s.m, n = s.n, k = s.k;
    real *x = new_numbers(rows * k, 1), *w = new_numbers(n * k, 2), *b = new_numbers(n, 3);
    real *dy = new_numbers(rows * n, 4), *y = new_numbers(rows * n, 0);
    real *dx = new_numbers(rows * k, 0), *dw = new_numbers(n * k, 5);
    float *gx = gpu_numbers(x, rows * k), *gw = gpu_numbers(w, n * k), *gb = gpu_numbers(b, n);
    float *gdy = gpu_numbers(dy, rows * n), *gdw = gpu_numbers(dw, n * k);
    float *gy = gpu_floats(rows * n), *gdx = gpu_floats(rows * k);

    linear_forward(the_team, y, x, w, bias ? b : NULL, rows, k, n, transposed);
    GPU_OK(gpu_linear_forward(&the_gpu, gy, gx, gw, bias ? gb : NULL, rows, k, n, transposed));
    gpu_check(gy, y, rows * n, TOLERANCE, "linear_forward");

    linear_backward_input(the_team, dx, dy, w, rows, k, n, transposed);
    GPU_OK(gpu_linear_backward_input(&the_gpu, gdx, gdy, gw, rows, k, n, transposed));
    gpu_check(gdx, dx, rows * k, TOLERANCE, "linear_backward_input");

    linear_backward_weight(the_team, dw, dy, x, rows, k, n, transposed, bias);
    GPU_OK(gpu_linear_backward_weight(&the_gpu, gdw, gdy, gx, rows, k, n, transposed, bias));
    gpu_check(gdw, dw, n * k, TOLERANCE, "linear_backward_weight");

    real *const host[] = {x, w, b, dy, y, dx, dw};
    float *const device[] = {gx, gw, gb, gdy, gdw, gy, gdx};
    for (int i = 0; i < 7; i++) {
        free(host[i]);
        gpu_free(device[i]);
    }
}

static void test_linear(void **state)
{
    (void)state;
    for (int i = 0; i < SHAPE_COUNT; i++)
        for (int kind = 0; kind < 4; kind++)
            check_linear(SHAPES[i], kind & 1, kind & 2);
}

/* More rows than cuBLASLt is asked for. */
static void test_many_rows(void **state)
{
    (void)state;
    const int64_t rows = 65535 * 32 + 1;
    real *x = new_numbers(rows, 1), *y = new_numbers(rows, 0), w = 0.75f, b = -2;
    float *gx = gpu_numbers(x, rows), *gw = gpu_numbers(&w, 1), *gb = gpu_numbers(&b, 1);
    float *gy = gpu_floats(rows);
    linear_forward(the_team, y, x, &w, &b, rows, 1, 1, false);
    GPU_OK(gpu_linear_forward(&the_gpu, gy, gx, gw, gb, rows, 1, 1, false));
    gpu_check(gy, y, rows, TOLERANCE, "linear_forward of many rows");
    float *const device[] = {gx, gw, gb, gy};
    for (int i = 0; i < 4; i++)
        gpu_free(device[i]);
    free(x);
    free(y);
}

/* Elements that the strides of an operand reach over. */
static int64_t reach(const MatmulBatch *batch, const int64_t *stride, int64_t matrix)
{
    int64_t last = 0;
    for (int d = 0; d < batch->rank; d++)
        last += (batch->dim[d] - 1) * stride[d];
    return last + matrix;
}

static void check_matmul(Shape s, const MatmulBatch *batch, bool ta, bool tb, bool accumulate)
{
    const int64_t na = reach(batch, batch->stride_a, s.m * s.k);
    const int64_t nb = reach(batch, batch->stride_b, s.k * s.n);
    const int64_t nc = reach(batch, batch->stride_c, s.m * s.n);
    real *a = new_numbers(na, 1), *b = new_numbers(nb, 2), *c = new_numbers(nc, 3);
    float *ga = gpu_numbers(a, na), *gb = gpu_numbers(b, nb), *gc = gpu_numbers(c, nc);
    matmul(the_team, c, a, b, ta, tb, s.m, s.n, s.k, batch, accumulate);
    GPU_OK(gpu_matmul(&the_gpu, gc, ga, gb, ta, tb, s.m, s.n, s.k, batch, accumulate));
    gpu_check(gc, c, nc, TOLERANCE, "matmul");
    free(a);
    free(b);
    free(c);
    gpu_free(ga);
    gpu_free(gb);
    gpu_free(gc);
}

/* Batches of several kinds: what may be merged, folded into m or into k, or neither. */
static void check_batches(Shape s, bool ta, bool tb, bool accumulate)
{
    const int64_t A = s.m * s.k, B = s.k * s.n, C = s.m * s.n;
    const MatmulBatch batches[] = {
        {.rank = 0},
        {1, {3}, {A}, {B}, {C}},
        {2, {3, 4}, {4 * A, A}, {4 * B, B}, {4 * C, C}}, /* one dimension of 12 */
        {2, {3, 4}, {A, 0}, {0, B}, {4 * C, C}},         /* each broadcast once */
        {2, {3, 4}, {4 * A, A}, {0, 0}, {4 * C, C}},     /* rows, where A is plain */
        {2, {3, 4}, {4 * A, A}, {4 * B, B}, {0, 0}},     /* a sum of 12 */
        {2, {3, 4}, {A, 0}, {0, B}, {0, C}},             /* summed and kept */
        {3, {2, 3, 2}, {6 * A, 2 * A, A}, {2 * B, 0, B}, {2 * C, 0, C}},
        {3, {2, 3, 2}, {A, 2 * A, 0}, {0, 2 * B, B}, {6 * C, 2 * C, C}},
        {4, {2, 1, 2, 3}, {6 * A, 6 * A, 3 * A, A}, {0, 0, 3 * B, B}, {0, 0, 0, C}},
        {3, {1, 2, 1}, {0, A, 0}, {0, B, 0}, {0, C, 0}},
    };
    for (size_t i = 0; i < sizeof batches / sizeof batches[0]; i++)
        check_matmul(s, &batches[i], ta, tb, accumulate);
}

static void test_matmul(void **state)
{
    (void)state;
    const Shape shapes[] = {{1, 1, 1}, {3, 5, 7}, {8, 12, 16}, {33, 1, 40}, {1, 31, 65}, {4, 3, 0}};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        for (int kind = 0; kind < 8; kind++)
            check_batches(shapes[i], kind & 1, kind & 2, kind & 4);
}

static void test_nothing(void **state)
{
    (void)state;
    const MatmulBatch batch = {1, {0}, {1}, {1}, {1}};
    GPU_OK(gpu_linear_forward(&the_gpu, NULL, NULL, NULL, NULL, 0, 3, 4, false));
    GPU_OK(gpu_linear_backward_input(&the_gpu, NULL, NULL, NULL, 0, 3, 4, false));
    GPU_OK(gpu_matmul(&the_gpu, NULL, NULL, NULL, false, false, 2, 2, 2, &batch, false));
}

static void test_status_texts(void **state)
{
    (void)state;
    assert_string_equal(gpu_status_text(0), cudaGetErrorString(cudaSuccess));
    assert_string_equal(gpu_status_text(cudaErrorMemoryAllocation),
                        cudaGetErrorString(cudaErrorMemoryAllocation));
    assert_string_equal(gpu_status_text(GPU_BLAS + CUBLAS_STATUS_ALLOC_FAILED),
                        cublasGetStatusString(CUBLAS_STATUS_ALLOC_FAILED));
    assert_non_null(strstr(gpu_status_text(GPU_NCCL + 5), "NCCL"));
    assert_string_equal(gpu_status_text(GPU_NCCL + 999), "unknown status");
    assert_string_equal(gpu_status_text(-1), "unknown status");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_linear),       cmocka_unit_test(test_many_rows),
        cmocka_unit_test(test_matmul),       cmocka_unit_test(test_nothing),
        cmocka_unit_test(test_status_texts),
    };
    return cmocka_run_group_tests(tests, gpu_open, gpu_close);
}
