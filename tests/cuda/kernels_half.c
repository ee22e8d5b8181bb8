/* The kernels of mixed precision on a GPU against the host's for float: their operands are the
 * 16-bit numbers as floats, and their results are rounded. Every call is made twice, for the same
 * bits; and a batch's last samples are computed alone, for the same bits as in the batch.
 */
#include "gpu_half.h"
#include "gpu_half_tensor.h"

static const int64_t ROWS[] = {1, 3, 37};
/* at both sides of what a warp, a block, and blocks in pieces take; multiples of 8, 4 and nothing
 */
static const int64_t COLUMNS[] = {1, 5, 31, 64, 129, 260, 1000, 1036, 1333, 2056};
static const int64_t LONG_COLUMNS[] = {2500, 8192, 8200, 16388};

typedef void RowsFn(int64_t rows, int64_t n);

/* Every shape, with and without loads of 16 bytes; both kinds take turns. */
static void over_shapes(RowsFn *fn)
{
    int turn = 0;
    for (tensor_shift = 0; tensor_shift < 2; tensor_shift++) {
        for (size_t c = 0; c < sizeof COLUMNS / sizeof *COLUMNS; c++)
            for (size_t r = 0; r < sizeof ROWS / sizeof *ROWS; r++) {
                half_kind = turn++ % 2 ? HALF_F16 : HALF_BF16;
                fn(ROWS[r], COLUMNS[c]);
            }
        for (size_t c = 0; c < sizeof LONG_COLUMNS / sizeof *LONG_COLUMNS; c++) {
            half_kind = (c + (size_t)tensor_shift) % 2 ? HALF_F16 : HALF_BF16;
            fn(2, LONG_COLUMNS[c]);
        }
    }
    tensor_shift = 0;
}

static size_t floats(int64_t n)
{
    return (size_t)n * sizeof(float);
}

static size_t halves(int64_t n)
{
    return (size_t)n * sizeof(half16);
}

/* ------------------------------------------------------------------ conversions */

/* Every 16-bit number is read exactly. */
static void check_reading(void)
{
    enum { ALL = 65536 };
    const int64_t dim[] = {ALL, 1};
    const Half x = half_numbers(ALL, 1);
    const Tensor y = tensor_empty(ALL);
    for (int i = 0; i < ALL; i++) {
        x.host[i] = (half16)i;
        y.host[i] = half_widen_one(half_kind, (half16)i);
    }
    GPU_OK(cudaMemcpyAsync(x.gpu, x.host, halves(ALL), cudaMemcpyHostToDevice, the_gpu.compute));
    GPU_OK(gpu_reduce_sum_half(&the_gpu, half_kind, y.gpu, x.gpu, 2, dim, 2, 1, false));
    tensor_check(y, 0, "every 16-bit number");
    halves_free();
}

/* Numbers of every exponent, in the middle between two neighbours and beside it; all kinds of
 * special ones. */
static void check_writing(void)
{
    static const uint32_t ends[] = {0,      1,      0xfff,  0x1000, 0x1001, 0x2fff,
                                    0x3000, 0x3001, 0x7fff, 0x8000, 0x8001, 0x1ffff};
    enum { ENDS = sizeof ends / sizeof *ends, TIMES = 16, COUNT = 512 * ENDS * TIMES + 3 };
    const Half y = half_empty(COUNT);
    const Tensor x = tensor_empty(COUNT);
    for (int i = 0; i < COUNT; i++) {
        const uint32_t middle = (uint32_t)i / 512 / ENDS * 0x85000u & 0x7fffffu;
        const uint32_t bits = (uint32_t)(i % 512) << 23 | (middle ^ ends[i / 512 % ENDS]);
        x.host[i] = y.wide[i] = half_float_of(bits);
    }
    half_narrow(&y);
    tensor_upload(x);
    TWICE(y.gpu, halves(COUNT), gpu_half_round(&the_gpu, half_kind, y.gpu, x.gpu, COUNT));
    half_check(y, 0, "half_round");
    halves_free();
}

static void check_fill(int64_t n, float value)
{
    const Half y = half_empty(n);
    for (int64_t i = 0; i < n; i++)
        y.wide[i] = value;
    half_narrow(&y);
    GPU_OK(gpu_fill_half(&the_gpu, half_kind, y.gpu, value, n));
    half_check(y, 0, "fill_half");
    halves_free();
}

static void test_conversions(void **state)
{
    (void)state;
    for (int kind = 0; kind < 2; kind++) {
        half_kind = kind ? HALF_F16 : HALF_BF16;
        for (tensor_shift = 0; tensor_shift < 2; tensor_shift++) {
            check_reading();
            check_writing();
            check_fill(1, 1.5f);
            check_fill(4103, 0.1f);
            check_fill(8, -(float)INFINITY);
        }
        tensor_shift = 0;
    }
}

/* --------------------------------------------------------------- normalisation */

static void check_layernorm(int64_t rows, int64_t n)
{
    const Gpu *g = &the_gpu;
    const HalfKind kind = half_kind;
    const float eps = 1e-3f;
    const int64_t size = rows * n, last = size - n;
    const Tensor x = tensor_numbers(size, 1), w = tensor_numbers(n, 2), b = tensor_numbers(n, 3);
    const Half dy = half_numbers(size, 4), y = half_empty(size), part = half_empty(n);
    const Tensor mean = tensor_empty(rows), rstd = tensor_empty(rows), dx = tensor_empty(size);
    const Tensor one = tensor_empty(1), two = tensor_empty(1), row = tensor_empty(n);
    const Tensor dw = tensor_numbers(n, 5), db = tensor_numbers(n, 6);

    layernorm_forward(the_team, y.wide, mean.host, rstd.host, x.host, w.host, b.host, rows, n, eps);
    TWICE(y.gpu, halves(size),
          gpu_layernorm_forward_half(g, kind, y.gpu, mean.gpu, rstd.gpu, x.gpu, w.gpu, b.gpu, rows,
                                     n, eps));
    half_check(y, 1e-5, "layernorm_forward_half");
    tensor_check(mean, 1e-5, "layernorm mean");
    tensor_check(rstd, 1e-5, "layernorm rstd");
    GPU_OK(gpu_layernorm_forward_half(g, kind, part.gpu, one.gpu, two.gpu, x.gpu + last, w.gpu,
                                      b.gpu, 1, n, eps));
    half_check_part(y, part, last, "layernorm_forward_half of one row");
    layernorm_forward(the_team, y.wide, mean.host, rstd.host, x.host, w.host, NULL, rows, n, eps);
    GPU_OK(gpu_layernorm_forward_half(g, kind, y.gpu, mean.gpu, rstd.gpu, x.gpu, w.gpu, NULL, rows,
                                      n, eps));
    half_check(y, 1e-5, "layernorm_forward_half without bias");

    layernorm_backward_input(the_team, dx.host, dy.wide, x.host, w.host, mean.host, rstd.host, rows,
                             n);
    TWICE(dx.gpu, floats(size),
          gpu_layernorm_backward_input_half(g, kind, dx.gpu, dy.gpu, x.gpu, w.gpu, mean.gpu,
                                            rstd.gpu, rows, n));
    tensor_check(dx, 2e-5, "layernorm_backward_input_half");
    GPU_OK(gpu_layernorm_backward_input_half(g, kind, row.gpu, dy.gpu + last, x.gpu + last, w.gpu,
                                             mean.gpu + rows - 1, rstd.gpu + rows - 1, 1, n));
    tensor_check_part(dx, row, last, "layernorm_backward_input_half of one row");

    layernorm_backward_weight(the_team, dw.host, db.host, dy.wide, x.host, mean.host, rstd.host,
                              rows, n, true);
    GPU_OK(gpu_layernorm_backward_weight_half(g, kind, dw.gpu, db.gpu, dy.gpu, x.gpu, mean.gpu,
                                              rstd.gpu, rows, n, true));
    tensor_check(dw, 1e-5, "layernorm_backward_weight_half, added");
    tensor_check(db, 1e-5, "layernorm_backward_weight_half bias, added");
    layernorm_backward_weight(the_team, dw.host, NULL, dy.wide, x.host, mean.host, rstd.host, rows,
                              n, false);
    TWICE(dw.gpu, floats(n),
          gpu_layernorm_backward_weight_half(g, kind, dw.gpu, NULL, dy.gpu, x.gpu, mean.gpu,
                                             rstd.gpu, rows, n, false));
    tensor_check(dw, 1e-5, "layernorm_backward_weight_half");
    halves_free();
}

static void check_rmsnorm(int64_t rows, int64_t n)
{
    const Gpu *g = &the_gpu;
    const HalfKind kind = half_kind;
    const float eps = 1e-3f;
    const int64_t size = rows * n;
    const Tensor x = tensor_numbers(size, 1), w = tensor_numbers(n, 2), dw = tensor_numbers(n, 5);
    const Half dy = half_numbers(size, 4), y = half_empty(size);
    const Tensor dx = tensor_empty(size), rstd = tensor_empty(rows);

    rmsnorm_forward(the_team, y.wide, rstd.host, x.host, w.host, rows, n, eps);
    GPU_OK(gpu_rmsnorm_forward_half(g, kind, y.gpu, rstd.gpu, x.gpu, w.gpu, rows, n, eps));
    half_check(y, 1e-5, "rmsnorm_forward_half");
    tensor_check(rstd, 1e-5, "rmsnorm rstd");
    rmsnorm_backward_input(the_team, dx.host, dy.wide, x.host, w.host, rstd.host, rows, n);
    GPU_OK(
        gpu_rmsnorm_backward_input_half(g, kind, dx.gpu, dy.gpu, x.gpu, w.gpu, rstd.gpu, rows, n));
    tensor_check(dx, 2e-5, "rmsnorm_backward_input_half");
    for (int accumulate = 1; accumulate >= 0; accumulate--) {
        rmsnorm_backward_weight(the_team, dw.host, dy.wide, x.host, rstd.host, rows, n, accumulate);
        GPU_OK(gpu_rmsnorm_backward_weight_half(g, kind, dw.gpu, dy.gpu, x.gpu, rstd.gpu, rows, n,
                                                accumulate));
        tensor_check(dw, 1e-5, "rmsnorm_backward_weight_half");
    }
    halves_free();
}

static void test_row_norms(void **state)
{
    (void)state;
    over_shapes(check_layernorm);
    over_shapes(check_rmsnorm);
    /* rows in many parts, columns in few */
    check_layernorm(3001, 3);
    check_layernorm(1500, 40);
}

/* ---------------------------------------------------------------------- losses */

/* A loss is the logarithm of a sum of at least 1, and no finer than that. */
static void check_losses(Tensor loss, const char *what)
{
    real *got = new_numbers(loss.n, 0);
    double *want = new_doubles(loss.n);
    gpu_download(got, loss.gpu, floats(loss.n));
    for (int64_t i = 0; i < loss.n; i++)
        want[i] = (double)loss.host[i];
    check_close(got, want, loss.n, 16, what);
    free(got);
    free(want);
}

/* Of numbers with ties; every third row's y is its first largest. */
static int32_t *new_targets(const real *logits, int64_t rows, int64_t n)
{
    int32_t *y = malloc((size_t)rows * sizeof *y);
    assert_non_null(y);
    for (int64_t r = 0; r < rows; r++) {
        int64_t first = 0;
        for (int64_t i = 0; i < n; i++)
            first = logits[r * n + i] > logits[r * n + first] ? i : first;
        y[r] = (int32_t)(r % 3 == 0 ? first : r * 7 % n);
    }
    return y;
}

static void check_loss(int64_t samples, int64_t inner, int64_t n)
{
    const Gpu *g = &the_gpu;
    const HalfKind kind = half_kind;
    const int64_t rows = samples * inner, size = rows * n, last = (samples - 1) * inner;
    real *logits = new_numbers(size, 1);
    for (int64_t i = 0; i < size; i++)
        logits[i] = (real)(int)(logits[i] * 40) / 4;
    int32_t *y = new_targets(logits, rows, n);
    const Half x = half_of(logits, size, true), dx = half_empty(size);
    const Tensor loss = tensor_empty(samples), lse = tensor_empty(rows);
    const Tensor dloss = tensor_numbers(samples, 2);
    const Tensor one = tensor_empty(1), some = tensor_empty(inner);
    int32_t *gy = gpu_upload(y, (size_t)rows * sizeof *y);

    cross_entropy_forward(the_team, loss.host, lse.host, x.wide, y, samples, inner, n);
    TWICE(loss.gpu, floats(samples),
          gpu_cross_entropy_forward_half(g, kind, loss.gpu, lse.gpu, x.gpu, gy, samples, inner, n));
    check_losses(loss, "cross_entropy_forward_half");
    tensor_check(lse, 1e-5, "cross_entropy lse");
    GPU_OK(gpu_cross_entropy_forward_half(g, kind, one.gpu, some.gpu, x.gpu + last * n, gy + last,
                                          1, inner, n));
    tensor_check_part(loss, one, samples - 1, "cross_entropy_forward_half of one sample");

    accuracy_forward(the_team, loss.host, x.wide, y, samples, inner, n);
    GPU_OK(gpu_accuracy_forward_half(g, kind, loss.gpu, x.gpu, gy, samples, inner, n));
    tensor_check(loss, 1e-7, "accuracy_forward_half");

    cross_entropy_backward(the_team, dx.wide, x.wide, lse.host, y, dloss.host, samples, inner, n);
    TWICE(dx.gpu, halves(size),
          gpu_cross_entropy_backward_half(g, kind, dx.gpu, x.gpu, lse.gpu, gy, dloss.gpu, samples,
                                          inner, n));
    half_check(dx, 1e-5, "cross_entropy_backward_half");
    GPU_OK(gpu_cross_entropy_backward_half(g, kind, x.gpu, x.gpu, lse.gpu, gy, dloss.gpu, samples,
                                           inner, n));
    half_check_part(x, dx, 0, "cross_entropy_backward_half in place");
    gpu_free(gy);
    free(y);
    halves_free();
}

/* One logit is larger than all others, wherever it is. */
static void check_lone_largest(int64_t n)
{
    enum { PLACES = 41 };
    const Half x = half_of(calloc((size_t)(PLACES * n), sizeof(real)), PLACES * n, false);
    const Tensor acc = tensor_empty(PLACES);
    int32_t y[PLACES];
    for (int64_t r = 0; r < PLACES; r++) {
        const int64_t place = (r * n / PLACES + r) % n;
        x.wide[r * n + place] = 1;
        x.wide[r * n + (place + 1) % n] = 0.5f;
        y[r] = (int32_t)(r % 2 ? place : (place + 1) % n);
        acc.host[r] = (real)(r % 2);
    }
    half_narrow(&x);
    GPU_OK(cudaMemcpyAsync(x.gpu, x.host, halves(x.n), cudaMemcpyHostToDevice, the_gpu.compute));
    int32_t *gy = gpu_upload(y, sizeof y);
    GPU_OK(gpu_accuracy_forward_half(&the_gpu, half_kind, acc.gpu, x.gpu, gy, PLACES, 1, n));
    tensor_check(acc, 0, "accuracy_forward_half with one large logit");
    gpu_free(gy);
    halves_free();
}

static void check_loss_of_rows(int64_t rows, int64_t n)
{
    check_loss(rows, 1, n);
}

static void test_losses(void **state)
{
    (void)state;
    over_shapes(check_loss_of_rows);
    check_loss(5, 3, 1500);
    check_loss(100, 7, 32);
    check_loss(3, 300, 12);
    static const int64_t n[] = {64, 333, 1000, 1333, 2056, 8200};
    for (int i = 0; i < 6; i++) {
        half_kind = i % 2 ? HALF_F16 : HALF_BF16;
        check_lone_largest(n[i]);
    }
}

/* What makes NaN on the host makes NaN on the GPU, and nothing else does. */
static void test_special_logits(void **state)
{
    (void)state;
    static const int64_t n[] = {7, 64, 1100, 9000};
    for (int k = 0; k < 8; k++) {
        enum { SPECIAL = 4 };
        const int64_t width = n[k / 2], size = SPECIAL * width;
        real *logits = new_numbers(size, 1);
        int32_t y[SPECIAL];
        half_kind = k % 2 ? HALF_F16 : HALF_BF16;
        for (int r = 0; r < SPECIAL; r++)
            y[r] = (int32_t)(width / 2);
        for (int64_t i = 0; i < width; i++)
            logits[i] = -(real)INFINITY;
        logits[width + 3] = (real)NAN;
        logits[2 * width + width - 1] = (real)INFINITY;
        logits[3 * width + y[3]] = -(real)INFINITY;
        const Half x = half_of(logits, size, true);
        const Tensor loss = tensor_empty(SPECIAL), lse = tensor_empty(SPECIAL);
        int32_t *gy = gpu_upload(y, sizeof y);
        cross_entropy_forward(the_team, loss.host, lse.host, x.wide, y, SPECIAL, 1, width);
        GPU_OK(gpu_cross_entropy_forward_half(&the_gpu, half_kind, loss.gpu, lse.gpu, x.gpu, gy,
                                              SPECIAL, 1, width));
        tensor_check(loss, 1e-5, "cross_entropy_forward_half of special numbers");
        tensor_check(lse, 1e-6, "cross_entropy lse of special numbers");
        accuracy_forward(the_team, loss.host, x.wide, y, SPECIAL, 1, width);
        GPU_OK(
            gpu_accuracy_forward_half(&the_gpu, half_kind, loss.gpu, x.gpu, gy, SPECIAL, 1, width));
        tensor_check(loss, 0, "accuracy_forward_half of special numbers");
        gpu_free(gy);
        halves_free();
    }
}

/* ------------------------------------------------------- dropout and reductions */

static void check_dropout(int64_t samples, int64_t n, double p)
{
    const uint64_t key = 0x123456789abcdef0;
    const int64_t first = ((int64_t)1 << 33) + 40, last = (samples - 1) * n;
    const Half x = half_numbers(samples * n, 1), y = half_empty(samples * n), part = half_empty(n);
    dropout(the_team, y.wide, x.wide, p, key, first, samples, n);
    half_narrow(&y);
    TWICE(y.gpu, halves(samples * n),
          gpu_dropout_half(&the_gpu, half_kind, y.gpu, x.gpu, p, key, first, samples, n));
    half_check(y, 0, "dropout_half");
    /* the last sample alone, in place, gets what it got in the batch */
    GPU_OK(gpu_dropout_half(&the_gpu, half_kind, x.gpu + last, x.gpu + last, p, key,
                            first + samples - 1, 1, n));
    GPU_OK(cudaMemcpyAsync(part.gpu, x.gpu + last, halves(n), cudaMemcpyDeviceToDevice,
                           the_gpu.compute));
    half_check_part(y, part, last, "dropout_half in place");
    halves_free();
}

static void test_dropout(void **state)
{
    (void)state;
    static const int64_t n[] = {1, 15, 16, 24, 64, 65, 127, 1000, 1004, 4104};
    for (tensor_shift = 0; tensor_shift < 2; tensor_shift++)
        for (int i = 0; i < 10; i++) {
            half_kind = (i + tensor_shift) % 2 ? HALF_F16 : HALF_BF16;
            check_dropout(1 + 13 * (i % 3), n[i], 0.25);
        }
    tensor_shift = 0;
    check_dropout(3, 100, 0);
    check_dropout(3, 104, 1);
    check_dropout(3, 104, 0.75);
}

static void check_reduce(int rank, const int64_t *dim, unsigned mask)
{
    int64_t size = 1, outs = 1;
    for (int d = 0; d < rank; d++) {
        size *= dim[d];
        outs *= mask >> d & 1 ? 1 : dim[d];
    }
    const Half x = half_numbers(size, 1);
    const Tensor y = tensor_numbers(outs, 2);
    for (int accumulate = 1; accumulate >= 0; accumulate--) {
        reduce_sum(the_team, y.host, x.wide, rank, dim, mask, 0.3, accumulate);
        GPU_OK(gpu_reduce_sum_half(&the_gpu, half_kind, y.gpu, x.gpu, rank, dim, mask, 0.3,
                                   accumulate));
        tensor_check(y, 1e-5, "reduce_sum_half");
    }
    TWICE(y.gpu, floats(outs),
          gpu_reduce_sum_half(&the_gpu, half_kind, y.gpu, x.gpu, rank, dim, mask, 0.3, false));
    halves_free();
}

static void test_reductions(void **state)
{
    (void)state;
    /* few and many elements to an output, along and across, in one part and in several */
    static const struct {
        int rank;
        int64_t dim[4];
    } shapes[] = {{1, {1}},         {1, {3001}},       {2, {7, 40}},        {2, {9, 3000}},
                  {2, {3, 40000}},  {2, {2000, 72}},   {2, {5000, 13}},     {2, {30, 301}},
                  {3, {5, 20, 36}}, {3, {3, 700, 24}}, {4, {4, 30, 3, 48}}, {4, {3, 5, 2, 7}}};
    int turn = 0;
    for (tensor_shift = 0; tensor_shift < 2; tensor_shift++)
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
            for (unsigned mask = 0; mask < 1u << shapes[i].rank; mask++) {
                half_kind = turn++ % 2 ? HALF_F16 : HALF_BF16;
                check_reduce(shapes[i].rank, shapes[i].dim, mask);
            }
    tensor_shift = 0;
}

static void test_nothing(void **state)
{
    (void)state;
    const Gpu *g = &the_gpu;
    float *f = gpu_floats(4);
    half16 *h = (half16 *)(void *)f;
    const int32_t *ids = (const int32_t *)(const void *)f;
    const HalfKind kind = HALF_BF16;
    const int64_t dim[] = {4, 0};
    const real zeros[4] = {0};
    GPU_OK(gpu_fill_half(g, kind, h, 0, 0));
    GPU_OK(gpu_half_round(g, kind, h, f, 0));
    GPU_OK(gpu_layernorm_forward_half(g, kind, h, f, f, f, f, f, 0, 4, 0));
    GPU_OK(gpu_rmsnorm_backward_input_half(g, kind, f, h, f, f, f, 0, 4));
    GPU_OK(gpu_cross_entropy_forward_half(g, kind, f, f, h, ids, 0, 1, 4));
    GPU_OK(gpu_cross_entropy_backward_half(g, kind, h, h, f, ids, f, 0, 1, 4));
    GPU_OK(gpu_accuracy_forward_half(g, kind, f, h, ids, 0, 1, 4));
    GPU_OK(gpu_dropout_half(g, kind, h, h, 0.5, 1, 0, 0, 4));
    GPU_OK(gpu_reduce_sum_half(g, kind, f, h, 2, dim, 2, 1, false));
    gpu_check(f, zeros, 4, 0, "reduce_sum_half of nothing");
    gpu_free(f);
    f = gpu_floats(4);
    GPU_OK(gpu_layernorm_backward_weight_half(g, kind, f, NULL, h, f, f, f, 0, 4, false));
    gpu_check(f, zeros, 4, 0, "layernorm_backward_weight_half of no rows");
    gpu_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conversions), cmocka_unit_test(test_row_norms),
        cmocka_unit_test(test_losses),      cmocka_unit_test(test_special_logits),
        cmocka_unit_test(test_dropout),     cmocka_unit_test(test_reductions),
        cmocka_unit_test(test_nothing),
    };
    return cmocka_run_group_tests(tests, gpu_open, gpu_close);
}
