/* Reductions, strided copies and whole tensors on a GPU against the host's kernels. */
#include "gpu_tensor.h"

typedef struct {
    int rank;
    int64_t dim[8];
} Dims;

static const Dims REDUCED[] = {
    {1, {1}},
    {1, {5}},
    {1, {50001}},
    {2, {7, 501}},
    {2, {300, 70}},
    {2, {2100, 12}},
    {2, {3, 20000}},
    {2, {9000, 1}},
    {3, {5, 33, 9}},
    {3, {33, 5, 8}},
    {3, {40, 3, 49}},
    {3, {2, 300, 36}},
    {3, {70, 2, 260}},
    {4, {3, 1, 40, 65}},
    {8, {2, 3, 1, 2, 5, 2, 3, 2}},
    {8, {2, 3, 2, 3, 2, 3, 2, 8}},
    {3, {2, 17000, 1}},
};

static int64_t count_of(const Dims *d)
{
    int64_t n = 1;
    for (int i = 0; i < d->rank; i++)
        n *= d->dim[i];
    return n;
}

static void check_reduce(const Dims *d, unsigned mask)
{
    const Gpu *g = &the_gpu;
    const int64_t n = count_of(d);
    int64_t outs = 1;
    for (int k = 0; k < d->rank; k++)
        outs *= mask >> k & 1 ? 1 : d->dim[k];
    real *numbers = new_numbers(n, 1);
    for (int64_t i = 0; i < n; i++)
        numbers[i] = (real)((int)(numbers[i] * 64)) / 64; /* ties happen */
    const Tensor x = tensor_of(numbers, n), y = tensor_empty(outs), dx = tensor_empty(n);
    const Tensor dy = tensor_numbers(outs, 2);
    for (int accumulate = 0; accumulate < 2; accumulate++) {
        reduce_sum(the_team, y.host, x.host, d->rank, d->dim, mask, 0.3, accumulate);
        GPU_OK(gpu_reduce_sum(g, y.gpu, x.gpu, d->rank, d->dim, mask, 0.3, accumulate));
        tensor_check(y, 1e-5, "reduce_sum");
    }
    reduce_max(the_team, y.host, x.host, d->rank, d->dim, mask);
    GPU_OK(gpu_reduce_max(g, y.gpu, x.gpu, d->rank, d->dim, mask));
    tensor_check(y, 0, "reduce_max");
    reduce_max_backward(the_team, dx.host, dy.host, x.host, y.host, d->rank, d->dim, mask);
    GPU_OK(gpu_reduce_max_backward(g, dx.gpu, dy.gpu, x.gpu, y.gpu, d->rank, d->dim, mask));
    tensor_check(dx, 0, "reduce_max_backward");
    tensors_free();
}

/* The last of the samples alone gets what it got among them. */
static void check_reduce_of_one(const Dims *d, unsigned mask)
{
    const int64_t n = count_of(d), sample = n / d->dim[0], last = n - sample;
    Dims one = *d;
    int64_t outs = 1;
    one.dim[0] = 1;
    for (int k = 1; k < d->rank; k++)
        outs *= mask >> k & 1 ? 1 : d->dim[k];
    const Tensor x = tensor_numbers(n, 1), y = tensor_empty(outs * d->dim[0]);
    const Tensor part = tensor_empty(outs);
    GPU_OK(gpu_reduce_sum(&the_gpu, y.gpu, x.gpu, d->rank, d->dim, mask, 0.3, false));
    GPU_OK(gpu_reduce_sum(&the_gpu, part.gpu, x.gpu + last, d->rank, one.dim, mask, 0.3, false));
    tensor_check_part(y, part, outs * (d->dim[0] - 1), "reduce_sum of one sample");
    tensors_free();
}

static void test_reductions(void **state)
{
    (void)state;
    for (tensor_shift = 0; tensor_shift < 2; tensor_shift++)
        for (size_t i = 0; i < sizeof REDUCED / sizeof REDUCED[0]; i++)
            for (unsigned mask = 0; mask < 1u << REDUCED[i].rank; mask++)
                if (REDUCED[i].rank < 8 || mask % 5 == 0 || mask == 0x55 || mask == 0xaa)
                    check_reduce(&REDUCED[i], mask);
    tensor_shift = 0;
    check_reduce_of_one(&(Dims){2, {9, 3000}}, 2);
    check_reduce_of_one(&(Dims){2, {3, 40000}}, 2);
    check_reduce_of_one(&(Dims){3, {5, 20, 36}}, 2);
    check_reduce_of_one(&(Dims){3, {3, 700, 36}}, 2);
    check_reduce_of_one(&(Dims){4, {4, 30, 3, 50}}, 10);
}

/* Many numbers of one sign: errors must not grow with how many there are. */
static void test_long_sums_stay_exact(void **state)
{
    (void)state;
    enum { ROWS = 1 << 18, N = 4 };
    const int64_t dim[] = {ROWS, N};
    real *same = new_numbers(ROWS * N, 0);
    for (int64_t i = 0; i < ROWS * N; i++)
        same[i] = (real)0.1;
    const Tensor x = tensor_of(same, ROWS * N), y = tensor_empty(N), dw = tensor_empty(N);
    for (unsigned mask = 1; mask <= 3; mask += 2) {
        const int64_t outs = mask == 1 ? N : 1;
        GPU_OK(gpu_reduce_sum(&the_gpu, y.gpu, x.gpu, 2, dim, mask, 1, false));
        for (int i = 0; i < N; i++)
            y.host[i] = (real)((double)same[0] * (double)(ROWS * N / outs));
        gpu_check(y.gpu, y.host, outs, 1e-6, "long reduce_sum");
    }
    for (int i = 0; i < N; i++)
        y.host[i] = (real)((double)same[0] * ROWS);
    GPU_OK(gpu_layernorm_backward_weight(&the_gpu, dw.gpu, y.gpu, x.gpu, x.gpu, x.gpu, x.gpu, ROWS,
                                         N, false));
    tensor_check(y, 1e-6, "long bias gradient");
    tensors_free();
}

static void test_maxima_of_special_numbers(void **state)
{
    (void)state;
    static const int64_t n[] = {7, 100, 5000, 40000};
    for (int k = 0; k < 4; k++) {
        const int64_t dim[] = {4, n[k]};
        real *numbers = new_numbers(4 * n[k], 1);
        numbers[n[k] - 2] = (real)NAN;
        for (int64_t i = n[k]; i < 2 * n[k]; i++)
            numbers[i] = -(real)INFINITY;
        numbers[2 * n[k] + 3] = (real)INFINITY;
        const Tensor x = tensor_of(numbers, 4 * n[k]), y = tensor_empty(4);
        const Tensor dy = tensor_numbers(4, 2), dx = tensor_empty(4 * n[k]);
        reduce_max(the_team, y.host, x.host, 2, dim, 2);
        GPU_OK(gpu_reduce_max(&the_gpu, y.gpu, x.gpu, 2, dim, 2));
        tensor_check(y, 0, "reduce_max of special numbers");
        reduce_max_backward(the_team, dx.host, dy.host, x.host, y.host, 2, dim, 2);
        GPU_OK(gpu_reduce_max_backward(&the_gpu, dx.gpu, dy.gpu, x.gpu, y.gpu, 2, dim, 2));
        tensor_check(dx, 0, "reduce_max_backward of special numbers");
        tensors_free();
    }
}

/* --------------------------------------------------------------------- copies */

/* y has its dimensions in the order given, `gap` elements after each row; x is read through
 * `order`. Where `still` >= 0 that dimension of x is repeated. */
static void check_copy(int rank, const int64_t *dim, const int *order, int size, int64_t gap,
                       int still)
{
    int64_t ystride[8], xstride[8], nx = 1, ny = 1;
    for (int k = rank - 1; k >= 0; k--) {
        ystride[k] = ny;
        ny *= dim[k] + (k == rank - 1 ? gap : 0);
    }
    for (int k = rank - 1; k >= 0; k--) {
        xstride[order[k]] = order[k] == still ? 0 : nx;
        nx *= order[k] == still ? 1 : dim[order[k]] + (k == rank - 1 ? gap : 0);
    }
    uint8_t *x = malloc((size_t)(nx * size)), *y = calloc((size_t)ny, (size_t)size);
    uint8_t *got = malloc((size_t)(ny * size));
    assert_true(x && y && got);
    for (int64_t i = 0; i < nx * size; i++)
        x[i] = (uint8_t)(i * 7 + i / 251);
    void *gx = gpu_upload(x, (size_t)(nx * size)), *gy = gpu_upload(y, (size_t)(ny * size));
    copy_strided(the_team, y, x, rank, dim, ystride, xstride, size);
    GPU_OK(gpu_copy_strided(&the_gpu, gy, gx, rank, dim, ystride, xstride, size));
    gpu_download(got, gy, (size_t)(ny * size));
    assert_memory_equal(got, y, (size_t)(ny * size));
    gpu_free(gx);
    gpu_free(gy);
    free(x);
    free(y);
    free(got);
}

static void test_copies(void **state)
{
    (void)state;
    static const Dims shapes[] = {
        {1, {5003}}, {2, {37, 65}}, {3, {5, 33, 34}}, {3, {64, 2, 96}}, {4, {3, 8, 1, 48}},
    };
    static const int orders[][4] = {{0, 1, 2, 3}, {1, 0, 3, 2}, {2, 0, 1, 3}, {3, 2, 1, 0}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        for (int o = 0; o < 4; o++) {
            bool fits = true;
            for (int k = 0; k < shapes[s].rank; k++)
                fits = fits && orders[o][k] < shapes[s].rank;
            for (int size = 1; fits && size <= 8; size *= 2)
                for (int gap = 0; gap <= 4; gap += size == 1 ? 1 : 2)
                    for (int still = -1; still < shapes[s].rank; still++)
                        check_copy(shapes[s].rank, shapes[s].dim, orders[o], size, gap, still);
        }
    }
    const int64_t dim[8] = {2, 3, 2, 3, 2, 1, 3, 5};
    const int order[8] = {7, 2, 4, 0, 6, 1, 3, 5};
    check_copy(8, dim, order, 4, 1, -1);
    check_copy(8, dim, order, 2, 0, 3);
    const int64_t none[2] = {0, 4}, stride[2] = {4, 1};
    GPU_OK(gpu_copy_strided(&the_gpu, NULL, NULL, 2, none, stride, stride, 4));
}

/* A slice, and a tensor into the middle of a wider one. */
static void test_slices(void **state)
{
    (void)state;
    static const int64_t offset[] = {0, 1, 2, 4};
    for (int i = 0; i < 4; i++) {
        const int64_t dim[] = {9, 64}, wide[] = {80 + i, 1}, narrow[] = {64, 1};
        const Tensor x = tensor_numbers(9 * wide[0], 1), y = tensor_numbers(9 * 64, 2);
        copy_strided(the_team, y.host, x.host + offset[i], 2, dim, narrow, wide, 4);
        GPU_OK(gpu_copy_strided(&the_gpu, y.gpu, x.gpu + offset[i], 2, dim, narrow, wide, 4));
        tensor_check(y, 0, "a slice");
        copy_strided(the_team, x.host + 16 - offset[i], y.host, 2, dim, wide, narrow, 4);
        GPU_OK(gpu_copy_strided(&the_gpu, x.gpu + 16 - offset[i], y.gpu, 2, dim, wide, narrow, 4));
        tensor_check(x, 0, "into a slice");
        tensors_free();
    }
}

static void test_whole_tensors(void **state)
{
    (void)state;
    static const int64_t sizes[] = {1, 3, 4, 127, 1000, 4099};
    for (tensor_shift = 0; tensor_shift < 2; tensor_shift++) {
        for (int i = 0; i < 6; i++) {
            const int64_t n = sizes[i];
            const Tensor y = tensor_empty(n), x = tensor_numbers(n, 1);
            fill(the_team, y.host, (real)-1.25, n);
            GPU_OK(gpu_fill(&the_gpu, y.gpu, -1.25f, n));
            tensor_check(y, 0, "fill");
            accumulate_into(the_team, y.host, x.host, n);
            GPU_OK(gpu_accumulate_into(&the_gpu, y.gpu, x.gpu, n));
            tensor_check(y, 0, "accumulate_into");

            int32_t *want = malloc((size_t)n * sizeof *want), *got = malloc((size_t)n * 4);
            assert_true(want && got);
            int32_t *numbers = gpu_upload(x.host, (size_t)n * 4);
            arange_fill(want, n);
            GPU_OK(gpu_arange_fill(&the_gpu, numbers, n));
            gpu_download(got, numbers, (size_t)n * 4);
            assert_memory_equal(got, want, (size_t)n * 4);
            gpu_free(numbers);
            free(want);
            free(got);
            tensors_free();
        }
    }
    tensor_shift = 0;
    GPU_OK(gpu_fill(&the_gpu, NULL, 1, 0));
    GPU_OK(gpu_accumulate_into(&the_gpu, NULL, NULL, 0));
    GPU_OK(gpu_arange_fill(&the_gpu, NULL, 0));
}

/* Of no elements the sum is 0. */
static void test_empty_sums(void **state)
{
    (void)state;
    const int64_t dim[] = {3, 0};
    const Tensor y = tensor_numbers(3, 1);
    GPU_OK(gpu_reduce_sum(&the_gpu, y.gpu, NULL, 2, dim, 2, 1, true));
    tensor_check(y, 0, "reduce_sum of nothing, added");
    GPU_OK(gpu_reduce_sum(&the_gpu, y.gpu, NULL, 2, dim, 2, 1, false));
    for (int i = 0; i < 3; i++)
        y.host[i] = 0;
    tensor_check(y, 0, "reduce_sum of nothing");
    GPU_OK(gpu_reduce_sum(&the_gpu, NULL, NULL, 2, dim, 1, 1, false));
    tensors_free();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reductions),
        cmocka_unit_test(test_long_sums_stay_exact),
        cmocka_unit_test(test_maxima_of_special_numbers),
        cmocka_unit_test(test_copies),
        cmocka_unit_test(test_slices),
        cmocka_unit_test(test_whole_tensors),
        cmocka_unit_test(test_empty_sums),
    };
    return cmocka_run_group_tests(tests, gpu_open, gpu_close);
}
