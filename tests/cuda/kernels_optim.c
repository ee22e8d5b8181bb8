/* Optimizers on a GPU against the host's kernels: two steps in a row. */
#include "gpu_tensor.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_updates),
        cmocka_unit_test(test_sum_squares),
    };
    return cmocka_run_group_tests(tests, gpu_open, gpu_close);
}
