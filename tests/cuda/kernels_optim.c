/* Optimizers on a GPU against the host's kernels: two steps in a row; and all weights of a stage
 * at once against one after the other.
 */
#include "gpu_tensor.h"
#include "host/half_convert.h"

static const int64_t SIZES[] = {1, 3, 4, 127, 1000, 4096, 4099, 20000, 40001};
enum { COUNT = sizeof SIZES / sizeof *SIZES };

static void check_squares(double want, const double *squares, const char *what)
{
    double got;
    gpu_download(&got, squares, sizeof got);
    if (!(fabs(got - want) <= 1e-13 * want))
        fail_msg("%s: the sum of squares is %.17g, not %.17g", what, got, want);
}

static double *new_squares(void)
{
    void *squares = NULL;
    GPU_OK(cudaMalloc(&squares, sizeof(double)));
    return squares;
}

static void check_sgd(int64_t n, double momentum, bool nesterov)
{
    const Tensor w = tensor_numbers(n, 1), velocity = tensor_empty(n);
    double *squares = new_squares();
    Hyper h = {.lr = 0.1, .momentum = momentum, .weight_decay = 0.01, .grad_scale = 0.7};
    h.nesterov = nesterov;
    for (h.step = 1; h.step <= 2; h.step++) {
        const Tensor g = tensor_numbers(n, (uint64_t)h.step + 1);
        real *host_velocity = momentum != 0 ? velocity.host : NULL;
        const double want = sgd_update(the_team, w.host, g.host, host_velocity, n, &h);
        GPU_OK(gpu_sgd_update(&the_gpu, squares, w.gpu, g.gpu, momentum != 0 ? velocity.gpu : NULL,
                              n, &h));
        check_squares(want, squares, "sgd_update");
        tensor_check(w, 1e-6, "sgd_update");
        if (momentum != 0)
            tensor_check(velocity, 1e-6, "sgd_update velocity");
    }
    gpu_free(squares);
    tensors_free();
}

static void check_adam(int64_t n, bool decoupled)
{
    const Tensor w = tensor_numbers(n, 1);
    const Tensor m = tensor_of(new_numbers(n, 7), n), v = tensor_of(new_numbers(n, 8), n);
    double *squares = new_squares();
    Hyper h = {.lr = 1e-2, .weight_decay = 0.1, .beta1 = 0.9, .beta2 = 0.99, .eps = 1e-8};
    h.grad_scale = 0.7;
    for (int64_t i = 0; i < n; i++) {
        m.host[i] = 0;
        v.host[i] = 0;
    }
    tensor_upload(m);
    tensor_upload(v);
    for (h.step = 1; h.step <= 2; h.step++) {
        const Tensor g = tensor_numbers(n, (uint64_t)h.step + 1);
        const double want = decoupled
                                ? adamw_update(the_team, w.host, g.host, m.host, v.host, n, &h)
                                : adam_update(the_team, w.host, g.host, m.host, v.host, n, &h);
        GPU_OK(decoupled ? gpu_adamw_update(&the_gpu, squares, w.gpu, g.gpu, m.gpu, v.gpu, n, &h)
                         : gpu_adam_update(&the_gpu, squares, w.gpu, g.gpu, m.gpu, v.gpu, n, &h));
        check_squares(want, squares, "adam_update");
        tensor_check(w, 1e-6, "adam_update");
        tensor_check(m, 1e-6, "adam_update m");
        tensor_check(v, 1e-6, "adam_update v");
    }
    gpu_free(squares);
    tensors_free();
}

static void test_updates(void **state)
{
    (void)state;
    for (tensor_shift = 0; tensor_shift < 2; tensor_shift++) {
        for (int i = 0; i < COUNT; i++) {
            check_sgd(SIZES[i], 0, false);
            check_sgd(SIZES[i], 0.9, false);
            check_sgd(SIZES[i], 0.9, true);
            check_adam(SIZES[i], false);
            check_adam(SIZES[i], true);
        }
    }
    tensor_shift = 0;
}

/* In many tiles; in none. */
static void test_sum_squares(void **state)
{
    (void)state;
    static const int64_t sizes[] = {1, 5, 4097, 300001};
    double *squares = new_squares();
    for (int i = 0; i < 4; i++) {
        const Tensor g = tensor_numbers(sizes[i], 3);
        GPU_OK(gpu_sum_squares(&the_gpu, squares, g.gpu, sizes[i]));
        check_squares(sum_squares(the_team, g.host, sizes[i]), squares, "sum_squares");
        tensors_free();
    }
    GPU_OK(gpu_sum_squares(&the_gpu, squares, NULL, 0));
    check_squares(0, squares, "sum_squares of nothing");
    gpu_free(squares);
}

/* -------------------------------------------------------- all weights of a stage */

/* More than a launch takes; some of one tile, some of several, some of nothing, some that cannot
 * be read 16 bytes at a time, some without a copy in 16 bits. */
enum { WEIGHTS = 75 };

typedef enum { SGD, MOMENTUM, ADAM, ADAMW } Optimizer;

/* A stage's tensors, each for all weights; [0] for the GPU's calls for all, [1] for one at a time
 */
typedef struct {
    Tensor w[2], m[2], v[2], g;
    half16 *half;
    double *squares[2];
    GpuWeight weights[2][WEIGHTS];
    int64_t size;
} Stage;

static void stage_open(Stage *s)
{
    int64_t place[WEIGHTS], n[WEIGHTS];
    s->size = 0;
    for (int i = 0; i < WEIGHTS; i++) {
        n[i] = i % 11 == 10 ? 0 : SIZES[i * 7 % COUNT];
        place[i] = s->size + (i % 5 == 0 ? 1 : 0);
        s->size = (place[i] + n[i] + 15) / 16 * 16;
    }
    s->g = tensor_empty(s->size);
    void *half = NULL;
    GPU_OK(cudaMalloc(&half, (size_t)s->size * sizeof *s->half));
    GPU_OK(cudaMemsetAsync(half, 0, (size_t)s->size * sizeof *s->half, the_gpu.compute));
    s->half = half;
    for (int one = 0; one < 2; one++) {
        real *zeros[2];
        for (int k = 0; k < 2; k++) {
            zeros[k] = calloc((size_t)s->size, sizeof *zeros[k]);
            assert_non_null(zeros[k]);
        }
        s->w[one] = tensor_numbers(s->size, 1);
        s->m[one] = tensor_of(zeros[0], s->size);
        s->v[one] = tensor_of(zeros[1], s->size);
        s->squares[one] = gpu_upload(zeros[0], WEIGHTS * sizeof(double));
        for (int i = 0; i < WEIGHTS; i++)
            s->weights[one][i] = (GpuWeight){.w = s->w[one].gpu + place[i],
                                             .g = s->g.gpu + place[i],
                                             .m = s->m[one].gpu + place[i],
                                             .v = s->v[one].gpu + place[i],
                                             .half = i % 4 < 3 && !one ? s->half + place[i] : NULL,
                                             .n = n[i],
                                             .square = WEIGHTS - 1 - i};
    }
}

static void update_one(Optimizer optimizer, double *squares, const GpuWeight *w, const Hyper *h)
{
    const Gpu *g = &the_gpu;
    if (optimizer == ADAM)
        GPU_OK(gpu_adam_update(g, squares, w->w, w->g, w->m, w->v, w->n, h));
    else if (optimizer == ADAMW)
        GPU_OK(gpu_adamw_update(g, squares, w->w, w->g, w->m, w->v, w->n, h));
    else
        GPU_OK(gpu_sgd_update(g, squares, w->w, w->g, optimizer == SGD ? NULL : w->m, w->n, h));
}

static void update_all(Optimizer optimizer, Stage *s, HalfKind kind, const Hyper *h)
{
    const Gpu *g = &the_gpu;
    const GpuWeight *all = s->weights[0];
    if (optimizer == ADAM)
        GPU_OK(gpu_adam_update_all(g, s->squares[0], all, WEIGHTS, kind, h));
    else if (optimizer == ADAMW)
        GPU_OK(gpu_adamw_update_all(g, s->squares[0], all, WEIGHTS, kind, h));
    else
        GPU_OK(gpu_sgd_update_all(g, s->squares[0], all, WEIGHTS, kind, h));
}

static double update_host(Optimizer optimizer, const Stage *s, int i, const Hyper *h)
{
    const GpuWeight *one = &s->weights[0][i];
    const int64_t at = one->w - s->w[0].gpu;
    real *w = s->w[0].host + at, *m = s->m[0].host + at, *v = s->v[0].host + at;
    const real *g = s->g.host + at;
    if (optimizer == ADAM)
        return adam_update(the_team, w, g, m, v, one->n, h);
    if (optimizer == ADAMW)
        return adamw_update(the_team, w, g, m, v, one->n, h);
    return sgd_update(the_team, w, g, optimizer == SGD ? NULL : m, one->n, h);
}

/* The copies are the updated weights, rounded. */
static void check_copies(const Stage *s, HalfKind kind)
{
    real *w = new_numbers(s->size, 0);
    half16 *half = malloc((size_t)s->size * sizeof *half);
    assert_non_null(half);
    gpu_download(w, s->w[0].gpu, (size_t)s->size * sizeof *w);
    gpu_download(half, s->half, (size_t)s->size * sizeof *half);
    for (int i = 0; i < WEIGHTS; i++) {
        const GpuWeight *one = &s->weights[0][i];
        const int64_t at = one->w - s->w[0].gpu;
        for (int64_t k = at; k < at + one->n; k++) {
            const half16 want = one->half ? half_round_one(kind, w[k]) : 0;
            if (half[k] != want)
                fail_msg("weight %d: the copy of element %lld is %04x, not %04x", i,
                         (long long)(k - at), half[k], want);
        }
    }
    free(w);
    free(half);
}

/* The same copies, of weights that are not updated. */
static void check_rounding(const Stage *s, HalfKind kind)
{
    GpuWeight rounded[WEIGHTS];
    int count = 0;
    for (int i = 0; i < WEIGHTS; i++) {
        const GpuWeight *one = &s->weights[0][i];
        if (one->half)
            rounded[count++] = gpu_rounded(one->w, one->half, one->n);
    }
    GPU_OK(cudaMemsetAsync(s->half, 0, (size_t)s->size * sizeof *s->half, the_gpu.compute));
    GPU_OK(gpu_half_round_all(&the_gpu, rounded, count, kind));
    check_copies(s, kind);
}

static void check_stage(Optimizer optimizer, HalfKind kind)
{
    Stage s;
    Hyper h = {.lr = 1e-2, .weight_decay = 0.1, .beta1 = 0.9, .beta2 = 0.99, .eps = 1e-8};
    h.grad_scale = 0.7;
    h.momentum = optimizer == MOMENTUM ? 0.9 : 0;
    stage_open(&s);
    for (h.step = 1; h.step <= 2; h.step++) {
        set_numbers(s.g.host, s.size, (uint64_t)h.step + 1);
        tensor_upload(s.g);
        update_all(optimizer, &s, kind, &h);
        for (int i = 0; i < WEIGHTS; i++) {
            const GpuWeight *one = &s.weights[1][i];
            const double want = update_host(optimizer, &s, i, &h);
            update_one(optimizer, s.squares[1] + one->square, one, &h);
            check_squares(want, s.squares[0] + one->square, "update_all");
        }
        double squares[2][WEIGHTS];
        for (int one = 0; one < 2; one++)
            gpu_download(squares[one], s.squares[one], sizeof squares[one]);
        assert_memory_equal(squares[0], squares[1], sizeof squares[0]);
        tensor_check(s.w[0], 1e-6, "update_all");
        tensor_check(s.m[0], 1e-6, "update_all m");
        tensor_check(s.v[0], 1e-6, "update_all v");
        tensor_check_part(s.w[0], s.w[1], 0, "update_all as one by one");
        tensor_check_part(s.m[0], s.m[1], 0, "update_all as one by one, m");
        tensor_check_part(s.v[0], s.v[1], 0, "update_all as one by one, v");
        check_copies(&s, kind);
        check_rounding(&s, kind);
    }
    GPU_OK(gpu_sum_squares_all(&the_gpu, s.squares[1], s.weights[1], WEIGHTS));
    for (int i = 0; i < WEIGHTS; i++) {
        const GpuWeight *one = &s.weights[1][i];
        const real *g = s.g.host + (one->g - s.g.gpu);
        check_squares(sum_squares(the_team, g, one->n), s.squares[1] + one->square,
                      "sum_squares_all");
    }
    gpu_free(s.half);
    gpu_free(s.squares[0]);
    gpu_free(s.squares[1]);
    tensors_free();
}

static void test_stages(void **state)
{
    (void)state;
    check_stage(SGD, HALF_F16);
    check_stage(MOMENTUM, HALF_BF16);
    check_stage(ADAM, HALF_F16);
    check_stage(ADAMW, HALF_BF16);
}

/* More weights of several tiles than one launch combines. */
static void test_many_sums(void **state)
{
    (void)state;
    enum { MANY = 700, SHORTEST = 4090 };
    static GpuWeight weights[MANY];
    static double got[MANY];
    const Tensor g = tensor_numbers(SHORTEST + MANY, 3);
    double *squares = gpu_upload(got, sizeof got);
    for (int i = 0; i < MANY; i++)
        weights[i] = (GpuWeight){.g = g.gpu, .n = SHORTEST + i, .square = i};
    GPU_OK(gpu_sum_squares_all(&the_gpu, squares, weights, MANY));
    for (int i = 0; i < MANY; i++)
        check_squares(sum_squares(the_team, g.host, SHORTEST + i), squares + i, "many sums");
    GPU_OK(gpu_sum_squares_all(&the_gpu, squares, NULL, 0));
    gpu_free(squares);
    tensors_free();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_updates),
        cmocka_unit_test(test_sum_squares),
        cmocka_unit_test(test_stages),
        cmocka_unit_test(test_many_sums),
    };
    return cmocka_run_group_tests(tests, gpu_open, gpu_close);
}
