/* Normalisation, softmax, losses, embedding and dropout on a GPU against the host's kernels;
 * and a batch's last samples alone against the same samples in the batch, to the bit.
 */
#include "gpu_tensor.h"

static const int64_t ROWS[] = {1, 3, 37};
/* at both sides of what a warp, a block, and blocks in pieces take; multiples of 4 and not */
static const int64_t COLUMNS[] = {1, 2, 5, 31, 64, 129, 260, 1000, 1030, 1333, 2051};
static const int64_t LONG_COLUMNS[] = {2500, 8192, 8196, 16388, 20000};

typedef void RowsFn(int64_t rows, int64_t n);

/* Every shape, with and without loads of 16 bytes. */
static void over_shapes(RowsFn *fn)
{
    for (tensor_shift = 0; tensor_shift < 2; tensor_shift++) {
        for (size_t c = 0; c < sizeof COLUMNS / sizeof *COLUMNS; c++)
            for (size_t r = 0; r < sizeof ROWS / sizeof *ROWS; r++)
                fn(ROWS[r], COLUMNS[c]);
        for (size_t c = 0; c < sizeof LONG_COLUMNS / sizeof *LONG_COLUMNS; c++)
            fn(2, LONG_COLUMNS[c]);
    }
    tensor_shift = 0;
}

/* ------------------------------------------------------------- normalisation */

static void check_layernorm(int64_t rows, int64_t n)
{
    const Gpu *g = &the_gpu;
    const float eps = 1e-3f;
    const int64_t size = rows * n, last = (rows - 1) * n;
    const Tensor x = tensor_numbers(size, 1), w = tensor_numbers(n, 2), b = tensor_numbers(n, 3);
    const Tensor dy = tensor_numbers(size, 4), y = tensor_empty(size), dx = tensor_empty(size);
    const Tensor mean = tensor_empty(rows), rstd = tensor_empty(rows), part = tensor_empty(n);
    const Tensor one = tensor_empty(1), two = tensor_empty(1);
    const Tensor dw = tensor_numbers(n, 5), db = tensor_numbers(n, 6);

    layernorm_forward(the_team, y.host, mean.host, rstd.host, x.host, w.host, b.host, rows, n, eps);
    GPU_OK(gpu_layernorm_forward(g, y.gpu, mean.gpu, rstd.gpu, x.gpu, w.gpu, b.gpu, rows, n, eps));
    tensor_check(y, 1e-5, "layernorm_forward");
    tensor_check(mean, 1e-5, "layernorm mean");
    tensor_check(rstd, 1e-5, "layernorm rstd");
    GPU_OK(gpu_layernorm_forward(g, part.gpu, one.gpu, two.gpu, x.gpu + last, w.gpu, b.gpu, 1, n,
                                 eps));
    tensor_check_part(y, part, last, "layernorm_forward of one row");
    layernorm_forward(the_team, y.host, mean.host, rstd.host, x.host, w.host, NULL, rows, n, eps);
    GPU_OK(gpu_layernorm_forward(g, y.gpu, mean.gpu, rstd.gpu, x.gpu, w.gpu, NULL, rows, n, eps));
    tensor_check(y, 1e-5, "layernorm_forward without bias");

    layernorm_backward_input(the_team, dx.host, dy.host, x.host, w.host, mean.host, rstd.host, rows,
                             n);
    GPU_OK(
        gpu_layernorm_backward_input(g, dx.gpu, dy.gpu, x.gpu, w.gpu, mean.gpu, rstd.gpu, rows, n));
    tensor_check(dx, 2e-5, "layernorm_backward_input");
    GPU_OK(gpu_layernorm_backward_input(g, part.gpu, dy.gpu + last, x.gpu + last, w.gpu,
                                        mean.gpu + rows - 1, rstd.gpu + rows - 1, 1, n));
    tensor_check_part(dx, part, last, "layernorm_backward_input of one row");

    for (int accumulate = 1; accumulate >= 0; accumulate--) {
        layernorm_backward_weight(the_team, dw.host, db.host, dy.host, x.host, mean.host, rstd.host,
                                  rows, n, accumulate);
        GPU_OK(gpu_layernorm_backward_weight(g, dw.gpu, db.gpu, dy.gpu, x.gpu, mean.gpu, rstd.gpu,
                                             rows, n, accumulate));
        tensor_check(dw, 1e-5, "layernorm_backward_weight");
        tensor_check(db, 1e-5, "layernorm_backward_weight bias");
    }
    GPU_OK(gpu_layernorm_backward_weight(g, dw.gpu, NULL, dy.gpu, x.gpu, mean.gpu, rstd.gpu, rows,
                                         n, false));
    tensor_check(dw, 1e-5, "layernorm_backward_weight without bias");
    tensors_free();
}

static void check_rmsnorm(int64_t rows, int64_t n)
{
    const Gpu *g = &the_gpu;
    const float eps = 1e-3f;
    const int64_t size = rows * n;
    const Tensor x = tensor_numbers(size, 1), w = tensor_numbers(n, 2),
                 dy = tensor_numbers(size, 4);
    const Tensor y = tensor_empty(size), dx = tensor_empty(size), rstd = tensor_empty(rows);
    const Tensor dw = tensor_numbers(n, 5);

    rmsnorm_forward(the_team, y.host, rstd.host, x.host, w.host, rows, n, eps);
    GPU_OK(gpu_rmsnorm_forward(g, y.gpu, rstd.gpu, x.gpu, w.gpu, rows, n, eps));
    tensor_check(y, 1e-5, "rmsnorm_forward");
    tensor_check(rstd, 1e-5, "rmsnorm rstd");
    rmsnorm_backward_input(the_team, dx.host, dy.host, x.host, w.host, rstd.host, rows, n);
    GPU_OK(gpu_rmsnorm_backward_input(g, dx.gpu, dy.gpu, x.gpu, w.gpu, rstd.gpu, rows, n));
    tensor_check(dx, 2e-5, "rmsnorm_backward_input");
    for (int accumulate = 1; accumulate >= 0; accumulate--) {
        rmsnorm_backward_weight(the_team, dw.host, dy.host, x.host, rstd.host, rows, n, accumulate);
        GPU_OK(
            gpu_rmsnorm_backward_weight(g, dw.gpu, dy.gpu, x.gpu, rstd.gpu, rows, n, accumulate));
        tensor_check(dw, 1e-5, "rmsnorm_backward_weight");
    }
    tensors_free();
}

static void test_row_norms(void **state)
{
    (void)state;
    over_shapes(check_layernorm);
    over_shapes(check_rmsnorm);
    /* rows in many parts, columns in few */
    check_layernorm(3001, 3);
    check_layernorm(1500, 40);
    check_rmsnorm(700, 132);
}

static void check_groupnorm(int64_t B, int64_t C, int64_t inner, int64_t groups, bool bias)
{
    const Gpu *g = &the_gpu;
    const float eps = 1e-3f;
    const int64_t size = B * C * inner, rows = B * groups, sample = C * inner;
    const Tensor x = tensor_numbers(size, 1), w = tensor_numbers(C, 2), b = tensor_numbers(C, 3);
    const Tensor dy = tensor_numbers(size, 4), y = tensor_empty(size), dx = tensor_empty(size);
    const Tensor mean = tensor_empty(rows), rstd = tensor_empty(rows), part = tensor_empty(sample);
    const Tensor one = tensor_empty(groups), two = tensor_empty(groups);
    const Tensor dw = tensor_numbers(C, 5), db = tensor_numbers(C, 6);
    const int64_t last = size - sample;

    groupnorm_forward(the_team, y.host, mean.host, rstd.host, x.host, w.host, bias ? b.host : NULL,
                      B, C, inner, groups, eps);
    GPU_OK(gpu_groupnorm_forward(g, y.gpu, mean.gpu, rstd.gpu, x.gpu, w.gpu, bias ? b.gpu : NULL, B,
                                 C, inner, groups, eps));
    tensor_check(y, 1e-5, "groupnorm_forward");
    tensor_check(mean, 1e-5, "groupnorm mean");
    tensor_check(rstd, 1e-5, "groupnorm rstd");
    GPU_OK(gpu_groupnorm_forward(g, part.gpu, one.gpu, two.gpu, x.gpu + last, w.gpu,
                                 bias ? b.gpu : NULL, 1, C, inner, groups, eps));
    tensor_check_part(y, part, last, "groupnorm_forward of one sample");

    groupnorm_backward_input(the_team, dx.host, dy.host, x.host, w.host, mean.host, rstd.host, B, C,
                             inner, groups);
    GPU_OK(gpu_groupnorm_backward_input(g, dx.gpu, dy.gpu, x.gpu, w.gpu, mean.gpu, rstd.gpu, B, C,
                                        inner, groups));
    tensor_check(dx, 2e-5, "groupnorm_backward_input");
    for (int accumulate = 1; accumulate >= 0; accumulate--) {
        groupnorm_backward_weight(the_team, dw.host, bias ? db.host : NULL, dy.host, x.host,
                                  mean.host, rstd.host, B, C, inner, groups, accumulate);
        GPU_OK(gpu_groupnorm_backward_weight(g, dw.gpu, bias ? db.gpu : NULL, dy.gpu, x.gpu,
                                             mean.gpu, rstd.gpu, B, C, inner, groups, accumulate));
        tensor_check(dw, 1e-5, "groupnorm_backward_weight");
        tensor_check(db, 1e-5, "groupnorm_backward_weight bias");
    }
    tensors_free();
}

static void test_groupnorm(void **state)
{
    (void)state;
    for (tensor_shift = 0; tensor_shift < 2; tensor_shift++) {
        check_groupnorm(5, 6, 49, 3, true);
        check_groupnorm(7, 5, 333, 1, false);
        check_groupnorm(3, 8, 17, 8, true);
        check_groupnorm(2, 12, 64, 4, true);
        check_groupnorm(1, 1, 1, 1, false);
        check_groupnorm(40, 4, 4, 2, true);
        check_groupnorm(2, 6, 1540, 2, true); /* 4620 a group: a block */
        check_groupnorm(2, 4, 5000, 1, true); /* 20000 a group: pieces */
        check_groupnorm(2, 3, 1001, 1, false);
    }
    tensor_shift = 0;
}

/* A large mean and a small deviation: what a sum of squares would lose. */
static void test_norm_of_large_means(void **state)
{
    (void)state;
    static const int64_t n[] = {300, 2000, 20000};
    for (int i = 0; i < 3; i++) {
        real *numbers = new_numbers(n[i], 1);
        for (int64_t k = 0; k < n[i]; k++)
            numbers[k] = 1000 + numbers[k];
        const Tensor x = tensor_of(numbers, n[i]), w = tensor_numbers(n[i], 2);
        const Tensor y = tensor_empty(n[i]), mean = tensor_empty(1), rstd = tensor_empty(1);
        layernorm_forward(the_team, y.host, mean.host, rstd.host, x.host, w.host, NULL, 1, n[i],
                          1e-5f);
        GPU_OK(gpu_layernorm_forward(&the_gpu, y.gpu, mean.gpu, rstd.gpu, x.gpu, w.gpu, NULL, 1,
                                     n[i], 1e-5f));
        tensor_check(rstd, 2e-4, "rstd of a large mean");
        tensor_check(y, 3e-4, "layernorm of a large mean");
        tensors_free();
    }
}

/* ------------------------------------------------------------- softmax and losses */

static void check_softmax(int64_t rows, int64_t n)
{
    const Gpu *g = &the_gpu;
    const int64_t size = rows * n, last = size - n;
    real *logits = new_numbers(size, 1);
    for (int64_t i = 0; i < size; i++)
        logits[i] = logits[i] * 20 + 90;
    if (n > 4) /* masked */
        logits[last + n / 2] = logits[n / 3] = -(real)INFINITY;
    const Tensor x = tensor_of(logits, size), dy = tensor_numbers(size, 2);
    const Tensor y = tensor_empty(size), dx = tensor_empty(size), part = tensor_empty(n);

    softmax_forward(the_team, y.host, x.host, rows, n);
    GPU_OK(gpu_softmax_forward(g, y.gpu, x.gpu, rows, n));
    tensor_check(y, 1e-5, "softmax_forward");
    GPU_OK(gpu_softmax_forward(g, part.gpu, x.gpu + last, 1, n));
    tensor_check_part(y, part, last, "softmax_forward of one row");
    softmax_backward(the_team, dx.host, dy.host, y.host, rows, n);
    GPU_OK(gpu_softmax_backward(g, dx.gpu, dy.gpu, y.gpu, rows, n));
    tensor_check(dx, 1e-5, "softmax_backward");
    GPU_OK(gpu_softmax_backward(g, part.gpu, dy.gpu + last, y.gpu + last, 1, n));
    tensor_check_part(dx, part, last, "softmax_backward of one row");
    tensors_free();
}

static int32_t *gpu_ids(const int32_t *ids, int64_t n)
{
    return gpu_upload(ids, (size_t)n * sizeof *ids);
}

/* A loss is the logarithm of a sum of at least 1, and no finer than that. */
static void check_losses(Tensor loss, const char *what)
{
    real *got = new_numbers(loss.n, 0);
    double *want = new_doubles(loss.n);
    gpu_download(got, loss.gpu, (size_t)loss.n * sizeof *got);
    for (int64_t i = 0; i < loss.n; i++)
        want[i] = (double)loss.host[i];
    check_close(got, want, loss.n, 16, what);
    free(got);
    free(want);
}

static void check_loss(int64_t samples, int64_t inner, int64_t n)
{
    const Gpu *g = &the_gpu;
    const int64_t rows = samples * inner, size = rows * n, last = (samples - 1) * inner;
    real *logits = new_numbers(size, 1);
    int32_t *y = malloc((size_t)rows * sizeof *y);
    assert_non_null(y);
    for (int64_t i = 0; i < size; i++) /* ties happen */
        logits[i] = (real)(int)(logits[i] * 40) / 4;
    for (int64_t r = 0; r < rows; r++) {
        int64_t first = 0;
        for (int64_t i = 0; i < n; i++)
            first = logits[r * n + i] > logits[r * n + first] ? i : first;
        y[r] = (int32_t)(r % 3 == 0 ? first : r * 7 % n);
    }
    const Tensor x = tensor_of(logits, size), loss = tensor_empty(samples),
                 lse = tensor_empty(rows);
    const Tensor dx = tensor_empty(size), dloss = tensor_numbers(samples, 2);
    const Tensor one = tensor_empty(1), some = tensor_empty(inner);
    int32_t *gy = gpu_ids(y, rows);

    cross_entropy_forward(the_team, loss.host, lse.host, x.host, y, samples, inner, n);
    GPU_OK(gpu_cross_entropy_forward(g, loss.gpu, lse.gpu, x.gpu, gy, samples, inner, n));
    check_losses(loss, "cross_entropy_forward");
    tensor_check(lse, 1e-5, "cross_entropy lse");
    GPU_OK(
        gpu_cross_entropy_forward(g, one.gpu, some.gpu, x.gpu + last * n, gy + last, 1, inner, n));
    tensor_check_part(loss, one, samples - 1, "cross_entropy_forward of one sample");

    accuracy_forward(the_team, loss.host, x.host, y, samples, inner, n);
    GPU_OK(gpu_accuracy_forward(g, loss.gpu, x.gpu, gy, samples, inner, n));
    tensor_check(loss, 1e-7, "accuracy_forward");

    cross_entropy_backward(the_team, dx.host, x.host, lse.host, y, dloss.host, samples, inner, n);
    GPU_OK(gpu_cross_entropy_backward(g, dx.gpu, x.gpu, lse.gpu, gy, dloss.gpu, samples, inner, n));
    tensor_check(dx, 1e-5, "cross_entropy_backward");
    GPU_OK(gpu_cross_entropy_backward(g, x.gpu, x.gpu, lse.gpu, gy, dloss.gpu, samples, inner, n));
    tensor_check_part(x, dx, 0, "cross_entropy_backward in place");
    gpu_free(gy);
    free(y);
    tensors_free();
}

static void check_loss_of_rows(int64_t rows, int64_t n)
{
    check_loss(rows, 1, n);
}

static void test_softmax_and_losses(void **state)
{
    (void)state;
    over_shapes(check_softmax);
    over_shapes(check_loss_of_rows);
    check_loss(5, 3, 1500);
    check_loss(100, 7, 33);
    check_loss(3, 300, 12);
    check_loss(1, 1000, 2);
}

/* What makes NaN on the host makes NaN on the GPU, and nothing else does. */
static void test_special_logits(void **state)
{
    (void)state;
    static const int64_t n[] = {7, 64, 1100, 9000};
    for (int k = 0; k < 4; k++) {
        enum { ROWS_ = 5 };
        const int64_t size = ROWS_ * n[k];
        real *logits = new_numbers(size, 1);
        int32_t y[ROWS_];
        for (int r = 0; r < ROWS_; r++)
            y[r] = (int32_t)(n[k] / 2);
        for (int64_t i = 0; i < n[k]; i++)
            logits[i] = -(real)INFINITY;
        logits[n[k] + 3] = (real)NAN;
        logits[2 * n[k] + n[k] - 1] = (real)INFINITY;
        logits[3 * n[k] + y[3]] = -(real)INFINITY;
        for (int64_t i = 4 * n[k]; i < size; i++)
            logits[i] = 10000 + logits[i];
        const Tensor x = tensor_of(logits, size), probability = tensor_empty(size);
        const Tensor loss = tensor_empty(ROWS_), lse = tensor_empty(ROWS_);
        int32_t *gy = gpu_ids(y, ROWS_);
        softmax_forward(the_team, probability.host, x.host, ROWS_, n[k]);
        GPU_OK(gpu_softmax_forward(&the_gpu, probability.gpu, x.gpu, ROWS_, n[k]));
        tensor_check(probability, 1e-5, "softmax_forward of special numbers");
        cross_entropy_forward(the_team, loss.host, lse.host, x.host, y, ROWS_, 1, n[k]);
        GPU_OK(gpu_cross_entropy_forward(&the_gpu, loss.gpu, lse.gpu, x.gpu, gy, ROWS_, 1, n[k]));
        tensor_check(loss, 1e-5, "cross_entropy_forward of special numbers");
        tensor_check(lse, 1e-6, "cross_entropy lse of special numbers");
        accuracy_forward(the_team, loss.host, x.host, y, ROWS_, 1, n[k]);
        GPU_OK(gpu_accuracy_forward(&the_gpu, loss.gpu, x.gpu, gy, ROWS_, 1, n[k]));
        tensor_check(loss, 0, "accuracy_forward of special numbers");
        gpu_free(gy);
        tensors_free();
    }
}

/* ----------------------------------------------------------- embedding and dropout */

static void check_embedding(int64_t rows, int64_t count, int64_t n, int kind)
{
    const Gpu *g = &the_gpu;
    const Tensor w = tensor_numbers(count * n, 1), dy = tensor_numbers(rows * n, 2);
    const Tensor y = tensor_empty(rows * n), dw = tensor_empty(count * n);
    int32_t *ids = malloc((size_t)rows * sizeof *ids);
    assert_non_null(ids);
    for (int64_t r = 0; r < rows; r++) /* spread; in descending order; nearly all the same */
        ids[r] = (int32_t)(kind == 0   ? r * r % count
                           : kind == 1 ? count - 1 - r * count / rows
                                       : (r % 50 == 7 ? r % count : 0));
    int32_t *gids = gpu_ids(ids, rows);
    embedding_forward(the_team, y.host, ids, w.host, rows, n);
    GPU_OK(gpu_embedding_forward(g, y.gpu, gids, w.gpu, rows, n));
    tensor_check(y, 0, "embedding_forward");
    for (int accumulate = 0; accumulate < 2; accumulate++) {
        embedding_backward_weight(the_team, dw.host, dy.host, ids, rows, count, n, accumulate);
        GPU_OK(gpu_embedding_backward_weight(g, dw.gpu, dy.gpu, gids, rows, count, n, accumulate));
        tensor_check(dw, 0, "embedding_backward_weight");
    }
    gpu_free(gids);
    free(ids);
    tensors_free();
}

static void test_embedding(void **state)
{
    (void)state;
    for (tensor_shift = 0; tensor_shift < 2; tensor_shift++) {
        for (int kind = 0; kind < 3; kind++) {
            check_embedding(1, 1, 1, kind);
            check_embedding(95, 23, 301, kind);
            check_embedding(129, 1000, 12, kind);
            check_embedding(1000, 7, 36, kind);
        }
    }
    tensor_shift = 0;
    check_embedding(3000, 500, 4, 0);
    check_embedding(9000, 300, 4, 0); /* tiles that are merged */
    check_embedding(9000, 300, 3, 1);
    check_embedding(70000, 50, 1, 0);         /* two segments */
    check_embedding(2, 2, 65535 * 32 + 5, 0); /* more columns than a grid has blocks for */
}

static void check_dropout(int64_t samples, int64_t n, double p)
{
    const uint64_t key = 0x123456789abcdef0;
    const int64_t first = ((int64_t)1 << 33) + 40;
    const Tensor x = tensor_numbers(samples * n, 1), y = tensor_empty(samples * n);
    dropout(the_team, y.host, x.host, p, key, first, samples, n);
    GPU_OK(gpu_dropout(&the_gpu, y.gpu, x.gpu, p, key, first, samples, n));
    tensor_check(y, 0, "dropout");
    /* the last sample alone, in place, gets what it got in the batch */
    const int64_t last = (samples - 1) * n;
    GPU_OK(gpu_dropout(&the_gpu, x.gpu + last, x.gpu + last, p, key, first + samples - 1, 1, n));
    gpu_check(x.gpu + last, y.host + last, n, 0, "dropout in place");
    tensors_free();
}

static void test_dropout(void **state)
{
    (void)state;
    static const int64_t n[] = {1, 15, 16, 20, 64, 65, 127, 1000, 1003, 4100};
    for (tensor_shift = 0; tensor_shift < 2; tensor_shift++)
        for (int i = 0; i < 10; i++)
            check_dropout(1 + 13 * (i % 2), n[i], 0.25);
    tensor_shift = 0;
    check_dropout(3, 100, 0);
    check_dropout(3, 100, 1);
    check_dropout(3, 100, 0.999);
}

static void test_nothing(void **state)
{
    (void)state;
    const Gpu *g = &the_gpu;
    float *f = gpu_floats(4);
    const int32_t *ids = (const int32_t *)(const void *)f;
    GPU_OK(gpu_layernorm_forward(g, f, f, f, f, f, f, 0, 4, 0));
    GPU_OK(gpu_rmsnorm_backward_input(g, f, f, f, f, f, 0, 4));
    GPU_OK(gpu_groupnorm_forward(g, f, f, f, f, f, f, 0, 4, 1, 2, 0));
    GPU_OK(gpu_softmax_forward(g, f, f, 0, 4));
    GPU_OK(gpu_softmax_backward(g, f, f, f, 4, 0));
    GPU_OK(gpu_cross_entropy_forward(g, f, f, f, ids, 0, 1, 4));
    GPU_OK(gpu_cross_entropy_backward(g, f, f, f, ids, f, 0, 1, 4));
    GPU_OK(gpu_accuracy_forward(g, f, f, ids, 0, 1, 4));
    GPU_OK(gpu_embedding_forward(g, f, ids, f, 0, 4));
    GPU_OK(gpu_dropout(g, f, f, 0.5, 1, 0, 0, 4));
    /* the sum of no rows */
    const real zeros[4] = {0};
    GPU_OK(gpu_embedding_backward_weight(g, f, f, ids, 0, 1, 4, false));
    gpu_check(f, zeros, 4, 0, "embedding_backward_weight of no rows");
    gpu_free(f);
    f = gpu_floats(4);
    GPU_OK(gpu_layernorm_backward_weight(g, f, NULL, f, f, f, f, 0, 4, false));
    gpu_check(f, zeros, 4, 0, "layernorm_backward_weight of no rows");
    gpu_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_row_norms),
        cmocka_unit_test(test_groupnorm),
        cmocka_unit_test(test_norm_of_large_means),
        cmocka_unit_test(test_softmax_and_losses),
        cmocka_unit_test(test_special_logits),
        cmocka_unit_test(test_embedding),
        cmocka_unit_test(test_dropout),
        cmocka_unit_test(test_nothing),
    };
    return cmocka_run_group_tests(tests, gpu_open, gpu_close);
}
