/* plan_gpus.c - what a plan says that GPUs launch and move: against counts by hand, and that all
 * views show the same. Whether the kernels do so is for tests/cuda/counts.sh. */
#include "fuse.h"
#include "plan_workshop.h"

#include <jansson.h>
#include <math.h>
#include <string.h>

#define TRAINING                                                                                   \
    "train { batch = 2; optimizer = sgd(lr = 0.1); steps = 1; } parallel { microbatch = 2; }"

static json_t *json_of(const Plan *plan)
{
    Text t = {.arena = plan->arena};
    assert_true(plan_json(plan, &t));
    json_t *root = json_loads(t.at, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(root);
    return root;
}

static const char *text_of(const Plan *plan)
{
    Text t = {.arena = plan->arena};
    plan_text(plan, &t);
    return t.at;
}

static json_int_t integer(const json_t *o, const char *key)
{
    const json_t *x = json_object_get(o, key);
    assert_true(json_is_integer(x));
    return json_integer_value(x);
}

static bool near(double a, double b)
{
    return fabs(a - b) < 0.5;
}

/* ------------------------------------------------------------------------- by hand */

static GpuWork work_of(const Work *w, RunKind kind, OpKind op, bool first)
{
    const Program *p = w->program;
    for (int i = 0; i < p->chunks.n; i++) {
        const Run *run = &p->chunks.at[i].run[kind];
        for (int n = 0; n < run->calls.n; n++) {
            const Call *c = &run->calls.at[n];
            if (c->kind == CALL_OP && p->graph->ops.at[c->op].kind == op)
                return cost_gpu_call(w->arena, p, &p->devices.at[p->chunks.at[i].device], c, first);
        }
    }
    fail_msg("the model has no call of %s", op_name(op));
    return (GpuWork){0};
}

static void check_work(GpuWork w, int64_t kernels, int64_t products, double moved, double least)
{
    assert_int_equal(w.kernels, kernels);
    assert_int_equal(w.products, products);
    assert_true(near(w.moved, moved));
    assert_true(near(w.least, least));
}

static void test_calls(void **state)
{
    (void)state;
    Work w = work_compile_gpus(
        "model m { input x : f32[8]; input r : f32[20000];"
        "input z : f32[16, 8, 8]; target y : f32[5]; input ids : i32[3];"
        "weight scale : f32 = normal(1); h = linear(x, 5) as fc; s = softmax(r * scale);"
        "e = embedding(ids, 9, 4) as table;"
        "c = conv2d(z, 8, 1, pad = 0, bias = false) as conv;"
        "loss mse(h, y) + mean(s * s) + mean(flatten(slice(e, 1, 1, 3)))"
        "+ mean(flatten(c)); }" TRAINING,
        2);
    /* x, w, b, h; the difference and its square are a kernel behind it: h, y, both results */
    check_work(work_of(&w, RUN_F, OP_LINEAR, true), 1, 1,
               4 * (16 + 40 + 5 + 10) + 4 * (10 + 10 + 20), 4 * (16 + 40 + 5) + 4 * (10 + 20));
    /* dy, x, dw; which is read, too, once it holds something */
    check_work(work_of(&w, RUN_B, OP_LINEAR_DW, true), 0, 1, 4 * (10 + 16 + 40),
               4 * (10 + 16 + 40));
    check_work(work_of(&w, RUN_B, OP_LINEAR_DW, false), 0, 1, 4 * (10 + 16 + 80),
               4 * (10 + 16 + 80));
    /* a row of 20,000 is read twice, and in its gradient both operands are */
    check_work(work_of(&w, RUN_F, OP_SOFTMAX, true), 1, 0, 3 * 160000, 2 * 160000);
    check_work(work_of(&w, RUN_B, OP_SOFTMAX_DX, true), 1, 0, 5 * 160000, 3 * 160000);
    /* 6 ids, 6 of the table's rows, 6 rows of y */
    check_work(work_of(&w, RUN_F, OP_EMBEDDING, true), 1, 0, 4 * (6 + 24 + 24), 4 * (6 + 24 + 24));
    /* two of four columns; x is not read but for them */
    check_work(work_of(&w, RUN_F, OP_SLICE, true), 1, 0, 4 * 24, 4 * 24);
    /* zeros, then sort, then sums: keys of 8 bytes are written and read */
    check_work(work_of(&w, RUN_B, OP_EMBEDDING_DW, true), 3, 0,
               4 * 36 + 6 * (4 + 8) + 6 * 8 + 4 * (24 + 48), 4 * (24 + 6 + 36));
    /* weights are turned in scratch: read and written, read again */
    check_work(work_of(&w, RUN_F, OP_CONV2D, true), 2, 0, 4 * (3 * 128 + 2048 + 1024),
               4 * (128 + 2048 + 1024));
    GpuWork conv = work_of(&w, RUN_F, OP_CONV2D, true);
    assert_int_equal(conv.gemms.n, 1);
    GpuGemm g = conv.gemms.at[0];
    assert_true(g.by == GEMM_KERNEL && g.m == 8 && g.n == 128 && g.k == 16 && g.batch == 1);
    assert_true(near(cost_gpu_gemm_flops(&g), 2 * 8 * 128 * 16));
    work_free(&w);
}

/* Launches that are cut in two where shapes grow. */
static void test_thresholds(void **state)
{
    (void)state;
    static const struct {
        int n, kernels;
    } updates[] = {{4096, 1}, {4097, 2}};
    for (int i = 0; i < 2; i++) {
        char text[400];
        snprintf(text, sizeof text,
                 "model m { weight w : f32[%d] = normal(1); input x : f32; target y : f32;"
                 "freeze { z = linear(reshape(x, [1]), 1); } loss mse(sum(w) * x, y) + mean(z); "
                 "}" TRAINING,
                 updates[i].n);
        Work w = work_compile_gpus(text, 1);
        Plan *plan = plan_make(w.arena, w.program);
        int64_t calls = 0;
        const Device *d = &w.program->devices.at[0];
        for (int c = 0; c < w.program->chunks.n; c++)
            for (int k = 0; k < RUN_KINDS; k++) {
                const Run *run = &w.program->chunks.at[c].run[k];
                for (int n = 0; k != RUN_E && n < run->calls.n; n++)
                    calls += cost_gpu_call(w.arena, w.program, d, &run->calls.at[n], true).kernels;
            }
        assert_int_equal(plan->gpu[0].kernels, calls + updates[i].kernels);
        work_free(&w);
    }
}

/* ----------------------------------------------------------------------- all views */

static const char *const CHAIN =
    "model chain { input x : f32[32]; target y : f32[32];"
    "for i in 0 .. 6 { x = relu(linear(x, 32) as fc[i]) @gpu[i / 2]; } loss mse(x, y); }"
    "train { batch = 2; optimizer = adam(lr = 1e-3); clip_norm = 1; steps = 10; }"
    "parallel { microbatch = 2; }";

/* What the tails of a device's products cost a micro-batch on a GPU, where they are kernels of
 * their own: the product's result is written and read once more than it has to be. */
static json_int_t tail_bytes(const Program *p, int device)
{
    json_int_t bytes = 0;
    for (int c = 0; c < p->chunks.n; c++)
        for (int k = 0; k < RUN_KINDS && p->chunks.at[c].device == device; k++) {
            const Run *run = &p->chunks.at[c].run[k];
            for (int s = 0; s < run->steps.n; s++)
                for (int n = run->steps.at[s].first;
                     n < run->steps.at[s].first + run->steps.at[s].ncalls; n++) {
                    const Call *call = &run->calls.at[n];
                    if (call->kind == CALL_OP && has_tail(&p->graph->ops.at[call->op]))
                        bytes += 2 * value_bytes(p, call->out[0].value) * run->steps.at[s].turns;
                }
        }
    return bytes;
}

static void test_chain(void **state)
{
    (void)state;
    enum { M = 4 };
    Work w = work_compile_gpus(CHAIN, M);
    Plan *plan = plan_make(w.arena, w.program);
    json_t *root = json_of(plan), *stage, *gemm, *message;
    size_t i, k;
    json_array_foreach(json_object_get(root, "stages"), i, stage)
    {
        const json_t *gpu = json_object_get(stage, "gpu");
        /* forward, dw and dx of two layers; the first layer needs no dx */
        int products = i == 0 ? 5 : 6;
        json_int_t calls = 0;
        json_array_foreach(json_object_get(gpu, "gemms"), k, gemm)
        {
            calls += integer(gemm, "calls");
            bool lt = strcmp(json_string_value(json_object_get(gemm, "by")), "cuBLASLt") == 0;
            bool forward = strcmp(json_string_value(json_object_get(gemm, "op")), "linear") == 0;
            assert_int_equal(lt, forward);
            assert_true(near(json_number_value(json_object_get(gemm, "flops")),
                             2.0 * 2 * 32 * 32 * (double)integer(gemm, "calls")));
        }
        assert_int_equal(integer(gpu, "products"), products * M);
        assert_int_equal(calls, products * M);
        /* squares before clipping and at the end; samples of x or y, losses */
        assert_int_equal(integer(gpu, "copies"), 2 + (i == 0 ? M : i == 2 ? 2 * M : 0));
        assert_int_equal(integer(gpu, "moved_bytes"),
                         integer(gpu, "least_bytes") + M * tail_bytes(w.program, (int)i));
        assert_int_equal(integer(gpu, "moved_bytes"), (json_int_t)plan->gpu[i].moved);
    }
    assert_int_equal(json_array_size(json_object_get(root, "messages")), 4);
    double sent[3] = {0};
    json_array_foreach(json_object_get(root, "messages"), i, message)
    {
        assert_int_equal(integer(message, "count"), M);
        assert_int_equal(integer(message, "bytes"), M * 2 * 32 * 4);
        sent[integer(message, "from")] += (double)integer(message, "bytes");
    }
    for (int d = 0; d < 3; d++)
        assert_true(near(sent[d], (double)plan->stages[d].sent));
    assert_string_equal(json_string_value(json_object_get(root, "transfer")), "peer");
    json_decref(root);
    const char *text = text_of(plan);
    assert_non_null(strstr(text, "stage  a step  kernels  products  copies"));
    assert_non_null(strstr(text, "linear     cuBLASLt  2 x 32 x 32      -      24"));
    assert_non_null(strstr(text, "gpu[1]  gpu[2]         4  1.0 KiB\n"));
    work_free(&w);
}

/* The host's plan speaks of no GPU. */
static void test_host(void **state)
{
    (void)state;
    Work w = work_compile(CHAIN, SCHEDULE_1F1B, 4);
    Plan *plan = plan_make(w.arena, w.program);
    json_t *root = json_of(plan);
    assert_null(plan->gpu);
    assert_null(json_object_get(root, "messages"));
    assert_null(json_object_get(root, "transfer"));
    assert_null(json_object_get(json_array_get(json_object_get(root, "stages"), 0), "gpu"));
    assert_null(strstr(text_of(plan), "moved"));
    json_decref(root);
    work_free(&w);
}

/* No call moves less than it must; numbers of models that no GPU holds come to an end. */
static void test_extremes(void **state)
{
    (void)state;
    static const char *const models[] = {
        "model images { input x : f32[16, 33, 31]; weight w : f32[16, 33, 31] = normal(1);"
        "u = x * w; a = relu(conv2d(u, 12, 5, stride = 3, pad = 2, groups = 2));"
        "b = maxpool2d(u, 3, stride = 2); c = avgpool2d(u, 9); d = groupnorm(u, 4);"
        "e = conv2d(u, 16, 3, groups = 16); f = conv2d(d, 160, 1, stride = 7);"
        "loss mean(flatten(a)) + mean(flatten(b)) + mean(flatten(c)) + mean(flatten(d * d))"
        "+ mean(flatten(e)) + mean(flatten(f)); }" TRAINING,
        "model rows { input x : f32[300, 70]; input y : i32[300]; weight w : f32[300, 70] = "
        "normal(1);"
        "u = x * w; a = layernorm(u); b = rmsnorm(u, eps = 1e-3); c = matmul(a, b, transpose_b = "
        "true);"
        "d = concat(a, dropout(b, 0.5), dim = 1); e = max(d, dims = [0]); f = transpose(d, 0, 1);"
        "loss cross_entropy(linear(a, 9, bias = false), slice(y, 0, 0, 300)) + mean(flatten(c))"
        "+ mean(e) + mean(flatten(softmax(f))); }" TRAINING,
        "model vast { input x : f32[64, 1000000, 2000]; weight w : f32[64, 1000000, 2000] = "
        "normal(1);"
        "u = x * w; a = maxpool2d(u, 2, stride = 3000); b = linear(u, 2000000); c = layernorm(u);"
        "d = transpose(u, 0, 2); loss mean(flatten(a)) + mean(b, dims = [0, 1, 2])"
        "+ mean(c, dims = [0, 1, 2]) + mean(d, dims = [0, 1, 2]); }" TRAINING,
        "model strides { input x : f32[8, 20000, 20000]; weight w : f32[8, 20000, 20000] = "
        "normal(1);"
        "loss mean(flatten(conv2d(x * w, 9, 15000, stride = 19999, pad = 9000))); }" TRAINING,
    };
    for (int m = 0; m < 4; m++) {
        Work w = work_compile_gpus(models[m], 3);
        const Program *p = w.program;
        int calls = 0;
        for (int c = 0; m < 2 && c < p->chunks.n; c++)
            for (int k = 0; k < RUN_KINDS; k++)
                for (int n = 0; n < p->chunks.at[c].run[k].calls.n; n++)
                    for (int first = 0; first < 2; first++) {
                        const Device *d = &p->devices.at[p->chunks.at[c].device];
                        GpuWork x = cost_gpu_call(w.arena, p, d,
                                                  &p->chunks.at[c].run[k].calls.at[n], first);
                        assert_true(x.kernels + x.products + x.copies > 0 || k == RUN_E);
                        assert_true(x.moved >= x.least && x.least >= 0);
                        calls++;
                    }
        assert_true(m >= 2 || calls > 40);
        Plan *plan = plan_make(w.arena, p);
        assert_true(plan->gpu[0].kernels > 0 && plan->gpu[0].moved > 0);
        json_decref(json_of(plan));
        assert_non_null(strstr(text_of(plan), "moved = "));
        work_free(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_calls),    cmocka_unit_test(test_thresholds),
        cmocka_unit_test(test_chain),    cmocka_unit_test(test_host),
        cmocka_unit_test(test_extremes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
