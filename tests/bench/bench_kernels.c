/* bench_kernels.c - what each kernel reaches on this machine.
 *
 *   bench_kernels [threads ...]       (default: 1 2)
 *
 * Prints one line per kernel and shape: GFLOP/s where arithmetic bounds it, GB/s (bytes read
 * and written once) where memory does; the best of several runs, one column per team.
 */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "half.h"

enum { TEAMS_MOST = 8, POOL = 1 << 25 };

typedef struct {
    Team *team;
    real *a, *b, *c, *d;
    int32_t *ids;
    int64_t m, n, k;
    Conv2d conv;
} Case;

static Team *teams[TEAMS_MOST];
static int team_count;
static real *pool[4];

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

typedef void BenchFn(const Case *c);

static void measure(const char *name, const char *unit, double work, BenchFn *fn, Case c)
{
    printf("%-44s", name);
    for (int t = 0; t < team_count; t++) {
        c.team = teams[t];
        fn(&c);
        double start = seconds();
        fn(&c);
        const double once = seconds() - start;
        const int times = once > 5e-3 ? 1 : (int)(5e-3 / (once + 1e-7)) + 1;
        double best = 1e9;
        for (int round = 0; round < 9; round++) {
            start = seconds();
            for (int i = 0; i < times; i++)
                fn(&c);
            const double took = (seconds() - start) / times;
            best = took < best ? took : best;
        }
        printf(" %8.1f", work / best * 1e-9);
    }
    printf("  %s\n", unit);
}

static void nothing_tile(void *ctx, int64_t tile)
{
    (void)ctx;
    (void)tile;
}

static void bench_dispatch(const Case *c)
{
    for (int i = 0; i < 1000; i++)
        team_run(c->team, 8, nothing_tile, NULL);
}

static half16 *halves(real *x)
{
    return (half16 *)(void *)x;
}

static void bench_forward(const Case *c)
{
    linear_forward(c->team, c->a, c->b, c->c, c->d, c->m, c->k, c->n, false);
}

static void bench_input(const Case *c)
{
    linear_backward_input(c->team, c->a, c->b, c->c, c->m, c->k, c->n, false);
}

static void bench_weight(const Case *c)
{
    linear_backward_weight(c->team, c->a, c->b, c->c, c->m, c->k, c->n, false, false);
}

static void bench_conv_forward(const Case *c)
{
    conv2d_forward(c->team, c->a, c->b, c->c, c->d, &c->conv, true);
}

static void bench_conv_input(const Case *c)
{
    conv2d_backward_input(c->team, c->a, c->b, c->c, &c->conv);
}

static void bench_conv_weight(const Case *c)
{
    conv2d_backward_weight(c->team, c->a, c->b, c->c, &c->conv, false);
}

static void bench_maxpool(const Case *c)
{
    maxpool2d_forward(c->team, c->a, c->b, &c->conv);
}

static void bench_maxpool_back(const Case *c)
{
    maxpool2d_backward(c->team, c->a, c->b, c->c, &c->conv);
}

static void bench_layernorm(const Case *c)
{
    layernorm_forward(c->team, c->a, c->d, c->d + c->m, c->b, c->c, c->c + c->n, c->m, c->n,
                      (real)1e-5);
}

static void bench_layernorm_back(const Case *c)
{
    layernorm_backward_input(c->team, c->a, c->b, c->c, c->d, c->d + c->n, c->d + c->n + c->m, c->m,
                             c->n);
}

static void bench_softmax(const Case *c)
{
    softmax_forward(c->team, c->a, c->b, c->m, c->n);
}

static void bench_loss(const Case *c)
{
    cross_entropy_forward(c->team, c->a, c->c, c->b, c->ids, c->m, 1, c->n);
}

static void bench_loss_back(const Case *c)
{
    cross_entropy_backward(c->team, c->a, c->b, c->c, c->ids, c->d, c->m, 1, c->n);
}

static void bench_layernorm_half(const Case *c)
{
    layernorm_forward_half(c->team, HALF_BF16, halves(c->a), c->d, c->d + c->m, c->b, c->c,
                           c->c + c->n, c->m, c->n, 1e-5F);
}

static void bench_loss_half(const Case *c)
{
    cross_entropy_forward_half(c->team, HALF_BF16, c->a, c->c, halves(c->b), c->ids, c->m, 1, c->n);
}

static void bench_round(const Case *c)
{
    half_round(c->team, HALF_BF16, halves(c->a), c->b, c->m * c->n);
}

static void bench_dropout(const Case *c)
{
    dropout(c->team, c->a, c->b, 0.1, 7, 0, c->m, c->n);
}

static void bench_reduce_rows(const Case *c)
{
    reduce_sum(c->team, c->a, c->b, 2, (const int64_t[]){c->m, c->n}, 1, 1, false);
}

static void bench_reduce_columns(const Case *c)
{
    reduce_sum(c->team, c->a, c->b, 2, (const int64_t[]){c->m, c->n}, 2, 1, false);
}

static void bench_transpose(const Case *c)
{
    copy_strided(c->team, c->a, c->b, 2, (const int64_t[]){c->m, c->n}, (const int64_t[]){c->n, 1},
                 (const int64_t[]){1, c->m}, sizeof(real));
}

static void bench_sgd(const Case *c)
{
    const Hyper h = {.lr = 1e-9, .grad_scale = 1, .step = 2};
    (void)sgd_update(c->team, c->a, c->b, NULL, c->n, &h);
}

static void bench_adamw(const Case *c)
{
    const Hyper h = {
        .lr = 1e-9, .beta1 = 0.9, .beta2 = 0.99, .eps = 1e-8, .grad_scale = 1, .step = 2};
    (void)adamw_update(c->team, c->a, c->b, c->c, c->d, c->n, &h);
}

static void bench_forward_half(const Case *c)
{
    linear_forward_half(c->team, HALF_BF16, halves(c->a), halves(c->b), halves(c->c), c->d, c->m,
                        c->k, c->n, false, NULL);
}

static void bench_input_half(const Case *c)
{
    linear_backward_input_half(c->team, HALF_BF16, halves(c->a), halves(c->b), halves(c->c), c->m,
                               c->k, c->n, false, NULL);
}

static void bench_weight_half(const Case *c)
{
    linear_backward_weight_half(c->team, HALF_BF16, c->a, halves(c->b), halves(c->c), c->m, c->k,
                                c->n, false, false);
}

static void bench_linears(Case c)
{
    /* ... and of transformers of width 128, 384 and 768 */
    static const int64_t shapes[][3] = {{8, 1000, 500},    {8, 500, 100},     {64, 1000, 500},
                                        {8, 1024, 1024},   {16, 512, 512},    {32, 1024, 1024},
                                        {64, 1024, 1024},  {256, 1024, 1024}, {1024, 1024, 1024},
                                        {4096, 128, 384},  {4096, 128, 128},  {4096, 512, 128},
                                        {2048, 384, 1152}, {2048, 384, 384},  {2048, 1536, 384},
                                        {1024, 768, 2304}, {1024, 768, 768},  {1024, 3072, 768}};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        char name[80];
        c.m = shapes[i][0];
        c.k = shapes[i][1];
        c.n = shapes[i][2];
        const double work = 2.0 * (double)c.m * (double)c.k * (double)c.n;
        BenchFn *const passes[] = {bench_forward,      bench_input,      bench_weight,
                                   bench_forward_half, bench_input_half, bench_weight_half};
        static const char *const names[] = {
            "forward",      "backward input",      "backward weight",
            "forward bf16", "backward input bf16", "backward weight bf16"};
        for (int p = 0; p < 6; p++) {
            snprintf(name, sizeof name, "linear %d x %d -> %d %s", (int)c.m, (int)c.k, (int)c.n,
                     names[p]);
            measure(name, "GFLOP/s", work, passes[p], c);
        }
    }
}

static void bench_convolutions(Case c)
{
    /* B C H K kernel pad stride */
    static const int64_t shapes[][7] = {
        {16, 1, 28, 32, 3, 1, 1},  {16, 1, 28, 32, 5, 2, 1},  {64, 1, 28, 32, 3, 1, 1},
        {16, 32, 28, 64, 3, 1, 1}, {16, 32, 14, 64, 3, 1, 1}, {64, 32, 14, 64, 3, 1, 1},
        {16, 64, 14, 64, 1, 0, 1}, {16, 64, 7, 128, 3, 1, 1}, {16, 32, 28, 64, 3, 1, 2}};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        char name[80];
        const int64_t *s = shapes[i], out = (s[2] + 2 * s[5] - s[4]) / s[6] + 1;
        c.conv = (Conv2d){s[0], s[1], s[2], s[2], s[3], out, out, s[4], s[6], s[5], 1};
        const double work = 2.0 * (double)(s[0] * s[1] * s[3] * s[4] * s[4] * out * out);
        BenchFn *const passes[] = {bench_conv_forward, bench_conv_input, bench_conv_weight};
        static const char *const names[] = {"forward", "backward input", "backward weight"};
        for (int p = 0; p < 3; p++) {
            snprintf(name, sizeof name, "conv %dx%d -> %d, %dx%d k%d s%d %s", (int)s[0], (int)s[1],
                     (int)s[3], (int)s[2], (int)s[2], (int)s[4], (int)s[6], names[p]);
            measure(name, "GFLOP/s", work, passes[p], c);
        }
    }
    const int64_t image = 16 * 64 * 28 * 28;
    c.conv = (Conv2d){16, 64, 28, 28, 64, 14, 14, 2, 2, 0, 64};
    measure("maxpool 16x64 28x28 k2", "GB/s", (double)image * 1.25 * sizeof(real), bench_maxpool,
            c);
    measure("maxpool 16x64 28x28 k2 backward", "GB/s", (double)image * 2.25 * sizeof(real),
            bench_maxpool_back, c);
}

static void bench_memory(Case c)
{
    c.m = 512;
    c.n = 1024;
    const double once = (double)(c.m * c.n) * sizeof(real);
    measure("layernorm 512 x 1024", "GB/s", 2 * once, bench_layernorm, c);
    measure("layernorm 512 x 1024 backward input", "GB/s", 3 * once, bench_layernorm_back, c);
    measure("softmax 512 x 1024", "GB/s", 2 * once, bench_softmax, c);
    measure("cross entropy 512 x 1024", "GB/s", once, bench_loss, c);
    measure("cross entropy 512 x 1024 backward", "GB/s", 2 * once, bench_loss_back, c);
    measure("layernorm 512 x 1024 bf16", "GB/s", 1.5 * once, bench_layernorm_half, c);
    measure("cross entropy 512 x 1024 bf16", "GB/s", 0.5 * once, bench_loss_half, c);
    measure("round 512 x 1024 to bf16", "GB/s", 1.5 * once, bench_round, c);
    measure("dropout 512 x 1024", "GB/s", 2 * once, bench_dropout, c);
    measure("reduce rows 512 x 1024", "GB/s", once, bench_reduce_rows, c);
    measure("reduce columns 512 x 1024", "GB/s", once, bench_reduce_columns, c);
    measure("transpose 512 x 1024", "GB/s", 2 * once, bench_transpose, c);
    c.n = 1 << 20;
    measure("sgd 1 Mi", "GB/s", 3.0 * (double)c.n * sizeof(real), bench_sgd, c);
    measure("adamw 1 Mi", "GB/s", 7.0 * (double)c.n * sizeof(real), bench_adamw, c);
}

static int run_all(void)
{
    Case c = {.a = pool[0], .b = pool[1], .c = pool[2], .d = pool[3]};
    c.ids = calloc(1 << 16, sizeof *c.ids);
    if (!c.ids)
        return 1;
    measure("dispatch of 8 empty tiles", "million/s", 1e6, bench_dispatch, c);
    bench_linears(c);
    bench_convolutions(c);
    bench_memory(c);
    free(c.ids);
    return 0;
}

int main(int argc, char **argv)
{
    static char *const usual[] = {NULL, "1", "2"};
    char *const *given = argc > 1 ? argv : usual;
    const int count = argc > 1 ? argc : 3;
    for (int i = 1; i < count && team_count < TEAMS_MOST; i++) {
        teams[team_count] = team_new(atoi(given[i]), true);
        if (!teams[team_count++]) {
            fprintf(stderr, "bench_kernels: cannot start a team of '%s' threads\n", given[i]);
            return 2;
        }
    }
    for (int i = 0; i < 4; i++) {
        pool[i] = aligned_alloc(64, POOL * sizeof(real));
        if (!pool[i]) {
            fprintf(stderr, "bench_kernels: out of memory\n");
            return 2;
        }
        for (int64_t k = 0; k < POOL; k++)
            pool[i][k] = (real)(k * 37 % 101) / 101 + (real)0.01;
    }
    const int status = run_all();
    for (int i = 0; i < team_count; i++)
        team_free(teams[i]);
    for (int i = 0; i < 4; i++)
        free(pool[i]);
    return status;
}
