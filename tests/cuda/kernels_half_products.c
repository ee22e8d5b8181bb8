/* Matrix products of 16-bit numbers on a GPU against the host's of the same numbers as floats. */
#include "gpu_half.h"
#include "gpu_half_tensor.h"

typedef struct {
    int64_t m, n, k;
} Shape;

static const Shape SHAPES[] = {
    {1, 1, 1},   {3, 5, 7},   {8, 48, 16},   {31, 33, 127}, {17, 97, 401}, {64, 100, 70},
    {33, 1, 80}, {1, 77, 50}, {140, 64, 13}, {5, 130, 1},   {7, 3, 0},
};
enum { SHAPE_COUNT = sizeof SHAPES / sizeof SHAPES[0] };

static const double TOLERANCE = 1e-5;

static size_t bytes_of(int64_t n)
{
    return (size_t)(n ? n : 1) * sizeof(half16);
}

static void check_linear(Shape s, bool transposed, bool bias)
{
    const Gpu *g = &the_gpu;
    const HalfKind kind = half_kind;
    const int64_t rows = s.m, n = s.n, k = s.k;
    const Half x = half_numbers(rows * k, 1), w = half_numbers(n * k, 2);
    const Half dy = half_numbers(rows * n, 4), y = half_empty(rows * n), dx = half_empty(rows * k);
    const Tensor b = tensor_numbers(n, 3), dw = tensor_numbers(n * k, 5);
    for (int64_t i = 0; i < n; i++) /* the GPU rounds it */
        b.host[i] = half_widen_one(kind, half_round_one(kind, b.host[i]));

    linear_forward(the_team, y.wide, x.wide, w.wide, bias ? b.host : NULL, rows, k, n, transposed);
    TWICE(y.gpu, bytes_of(y.n),
          gpu_linear_forward_half(g, kind, y.gpu, x.gpu, w.gpu, bias ? b.gpu : NULL, rows, k, n,
                                  transposed));
    half_check(y, TOLERANCE, "linear_forward_half");

    linear_backward_input(the_team, dx.wide, dy.wide, w.wide, rows, k, n, transposed);
    if (k > 0)
        TWICE(
            dx.gpu, bytes_of(dx.n),
            gpu_linear_backward_input_half(g, kind, dx.gpu, dy.gpu, w.gpu, rows, k, n, transposed));
    half_check(dx, TOLERANCE, "linear_backward_input_half");

    linear_backward_weight(the_team, dw.host, dy.wide, x.wide, rows, k, n, transposed, bias);
    GPU_OK(gpu_linear_backward_weight_half(g, kind, dw.gpu, dy.gpu, x.gpu, rows, k, n, transposed,
                                           bias));
    tensor_check(dw, TOLERANCE, "linear_backward_weight_half");
    halves_free();
}

static void test_linear(void **state)
{
    (void)state;
    for (int i = 0; i < SHAPE_COUNT; i++)
        for (int kind = 0; kind < 8; kind++) {
            half_kind = kind & 4 ? HALF_F16 : HALF_BF16;
            check_linear(SHAPES[i], kind & 1, kind & 2);
        }
}

/* More rows than cuBLASLt is asked for. */
static void test_many_rows(void **state)
{
    (void)state;
    const int64_t rows = 65535 * 32 + 1;
    const Half x = half_numbers(rows, 1), w = half_numbers(1, 2), y = half_empty(rows);
    const Tensor b = tensor_numbers(1, 3);
    b.host[0] = half_widen_one(half_kind, half_round_one(half_kind, b.host[0]));
    linear_forward(the_team, y.wide, x.wide, w.wide, b.host, rows, 1, 1, false);
    GPU_OK(gpu_linear_forward_half(&the_gpu, half_kind, y.gpu, x.gpu, w.gpu, b.gpu, rows, 1, 1,
                                   false));
    half_check(y, TOLERANCE, "linear_forward_half of many rows");
    halves_free();
}

/* Elements that the strides of an operand reach over. */
static int64_t reach(const MatmulBatch *batch, const int64_t *stride, int64_t matrix)
{
    int64_t last = 0;
    for (int d = 0; d < batch->rank; d++)
        last += (batch->dim[d] - 1) * stride[d];
    return last + matrix;
}

/* has_gaps: the products do not write all that lies between c's first and last element. */
static void check_matmul(Shape s, const MatmulBatch *batch, bool ta, bool tb, bool has_gaps)
{
    const Gpu *g = &the_gpu;
    const HalfKind kind = half_kind;
    const int64_t nc = reach(batch, batch->stride_c, s.m * s.n);
    const Half a = half_numbers(reach(batch, batch->stride_a, s.m * s.k), 1);
    const Half b = half_numbers(reach(batch, batch->stride_b, s.k * s.n), 2);
    const Half c = half_of(new_numbers(nc, 3), nc, has_gaps);
    const Tensor wide = tensor_numbers(nc, 3);
    matmul(the_team, c.wide, a.wide, b.wide, ta, tb, s.m, s.n, s.k, batch, false);
    TWICE(
        c.gpu, bytes_of(nc),
        gpu_matmul_half(g, kind, c.gpu, false, a.gpu, b.gpu, ta, tb, s.m, s.n, s.k, batch, false));
    half_check(c, TOLERANCE, "matmul_half");
    for (int accumulate = 1; accumulate >= 0; accumulate--) {
        matmul(the_team, wide.host, a.wide, b.wide, ta, tb, s.m, s.n, s.k, batch, accumulate);
        GPU_OK(gpu_matmul_half(g, kind, wide.gpu, true, a.gpu, b.gpu, ta, tb, s.m, s.n, s.k, batch,
                               accumulate));
        tensor_check(wide, TOLERANCE, "matmul_half into float");
    }
    halves_free();
}

/* Batches of several kinds: what may be merged, folded into m or into k, summed, or none. */
static void check_batches(Shape s, bool ta, bool tb)
{
    const int64_t A = s.m * s.k, B = s.k * s.n, C = s.m * s.n;
    const MatmulBatch batches[] = {
        {.rank = 0},
        {2, {3, 4}, {4 * A, A}, {4 * B, B}, {4 * C, C}}, /* one dimension of 12 */
        {2, {3, 4}, {A, 0}, {0, B}, {4 * C, C}},         /* each broadcast once */
        {2, {3, 4}, {4 * A, A}, {0, 0}, {4 * C, C}},     /* rows, where A is plain */
        {2, {3, 4}, {4 * A, A}, {4 * B, B}, {0, 0}},     /* a sum of 12 */
        {2, {3, 4}, {A, 0}, {0, B}, {0, C}},             /* summed and kept */
        {3, {2, 3, 2}, {A, 2 * A, 0}, {0, 2 * B, B}, {6 * C, 2 * C, C}},
        {4, {2, 1, 2, 3}, {6 * A, 6 * A, 3 * A, A}, {0, 0, 3 * B, B}, {0, 0, 0, C}},
        {2, {2, 3}, {3 * A, A}, {B, 0}, {0, 2 * C}}, /* summed; kept with room between */
    };
    const size_t GAPS = sizeof batches / sizeof batches[0] - 1;
    for (size_t i = 0; i < sizeof batches / sizeof batches[0]; i++)
        check_matmul(s, &batches[i], ta, tb, i == GAPS);
}

static void test_matmul(void **state)
{
    (void)state;
    const Shape shapes[] = {{1, 1, 1}, {3, 5, 7}, {8, 12, 16}, {33, 1, 40}, {1, 31, 65}, {4, 3, 0}};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        for (int kind = 0; kind < 8; kind++) {
            half_kind = kind & 4 ? HALF_F16 : HALF_BF16;
            check_batches(shapes[i], kind & 1, kind & 2);
        }
}

/* Sums that do not fit scratch at once: matrices of a batch, and rows of one matrix. */
static void test_large_sums(void **state)
{
    (void)state;
    for (int ta = 0; ta < 2; ta++) {
        const Shape batch = {700, 2100, 1}, rows = {2099, 2003, 2};
        const int64_t A = batch.m, B = batch.n, C = batch.m * batch.n;
        const MatmulBatch matrices = {2, {2, 4}, {4 * A, A}, {0, B}, {0, C}};
        const MatmulBatch one = {1, {2}, {rows.m * rows.k}, {rows.k * rows.n}, {0}};
        half_kind = ta ? HALF_F16 : HALF_BF16;
        check_matmul(batch, &matrices, ta, !ta, false);
        check_matmul(rows, &one, ta, true, false);
    }
}

static void test_nothing(void **state)
{
    (void)state;
    const Gpu *g = &the_gpu;
    const MatmulBatch batch = {1, {0}, {1}, {1}, {1}};
    GPU_OK(gpu_linear_forward_half(g, HALF_BF16, NULL, NULL, NULL, NULL, 0, 3, 4, false));
    GPU_OK(gpu_linear_backward_input_half(g, HALF_BF16, NULL, NULL, NULL, 0, 3, 4, false));
    GPU_OK(gpu_matmul_half(g, HALF_BF16, NULL, false, NULL, NULL, false, false, 2, 2, 2, &batch,
                           false));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_linear),  cmocka_unit_test(test_many_rows),
        cmocka_unit_test(test_matmul),  cmocka_unit_test(test_large_sums),
        cmocka_unit_test(test_nothing),
    };
    return cmocka_run_group_tests(tests, gpu_open, gpu_close);
}
