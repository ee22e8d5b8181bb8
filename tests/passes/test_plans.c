/* test_plans.c - plans are as they should be: memory of the schedules, placement, loops. */
#include "passes.h"

#include <string.h>

static const char *const mlp = RUN_MODELS "/mlp.mdl";

static int64_t kept_bytes(const Compiled *c, int device)
{
    return c->program->devices.at[device].class_bytes[BUFFER_KEPT];
}

/* GPipe keeps every micro-batch; 1F1B at most as many as there are stages from here on. */
static void test_1f1b_keeps_less(void **state)
{
    (void)state;
    const char *const defines[] = {"parts=4", "gpus=4", NULL};
    const char *const gpipe[] = {"parallel.schedule=gpipe", "parallel.microbatch=2", NULL};
    const char *const f1b1[] = {"parallel.schedule=1f1b", "parallel.microbatch=2", NULL};
    Compiled a = compile_file(mlp, defines, gpipe), b = compile_file(mlp, defines, f1b1);
    for (int d = 0; d < 4; d++) {
        assert_int_equal(a.program->devices.at[d].in_flight, 12);
        assert_int_equal(b.program->devices.at[d].in_flight, 4 - d);
        /* received and sent tensors have a slot more than is in flight */
        assert_true(kept_bytes(&b, d) * 12 <= kept_bytes(&a, d) * (4 - d + 1));
    }
    compiled_free(&a);
    compiled_free(&b);
}

static int slots_of(const Compiled *c, int device, const char *name)
{
    const Device *d = &c->program->devices.at[device];
    for (int b = 0; b < d->buffers.n; b++)
        if (d->buffers.at[b].class == BUFFER_KEPT && strcmp(d->buffers.at[b].name, name) == 0)
            return d->buffers.at[b].slots;
    return 0;
}

/* What is computed and used on one device is kept for exactly the micro-batches in flight. */
static void test_slots_are_exact(void **state)
{
    (void)state;
    const char *const defines[] = {"parts=4", "gpus=4", NULL};
    const char *const sets[] = {"parallel.microbatch=2", NULL};
    Compiled c = compile_file(mlp, defines, sets);
    for (int d = 0; d < 4; d++)
        assert_int_equal(slots_of(&c, d, "h_norm"), 4 - d);
    compiled_free(&c);
}

/* ------------------------------------------------------------------- placement */

static const char chain[] = "model m { input x : f32[64]; target y : i32;\n"
                            "for i in 0 .. 12 { x = relu(linear(x, 64) as fc[i]); }\n"
                            "loss cross_entropy(x, y); }\n"
                            "train { batch = 32; }\n";

/* Equal layers are shared out evenly, and cut between turns. */
static void test_balanced_split(void **state)
{
    (void)state;
    char text[1024];
    snprintf(text, sizeof text, "%sdevices gpu[4] { compute = 1 GFLOPS; latency = 1 ns; }\n",
             chain);
    Compiled c = compile_text(text, NULL);
    assert_non_null(c.program);
    assert_int_equal(c.program->devices.n, 4);
    assert_int_equal(c.program->chunks.n, 4);
    for (int d = 0; d < 4; d++) {
        int layers = 0;
        for (int i = 0; i < c.program->devices.at[d].weights.n; i++)
            layers += c.program->devices.at[d].weights.at[i].count;
        assert_int_equal(layers, 2 * 3); /* weight and bias of three layers */
    }
    assert_true(proved(&c));
    compiled_free(&c);
}

/* Annotations hold; what is between goes to the devices between, in the order of the data. */
static void test_annotations_hold(void **state)
{
    (void)state;
    const char *text = "model m { input x : f32[8]; target y : i32;\n"
                       "a = linear(x, 8) @gpu[0]; b = linear(a, 8); c = linear(b, 8);\n"
                       "d = linear(c, 8) @gpu[2]; e = linear(d, 8) @gpu[1];\n"
                       "loss cross_entropy(e, y); }\n"
                       "train { batch = 8; }\n";
    Compiled c = compile_text(text, NULL);
    assert_non_null(c.program);
    const Graph *g = c.program->graph;
    int on[5] = {-1, -1, -1, -1, -1};
    for (int d = 0; d < c.program->devices.n; d++)
        for (int i = 0; i < c.program->devices.at[d].weights.n; i++) {
            const WeightRun *r = &c.program->devices.at[d].weights.at[i];
            for (int k = 0; k < r->count; k++)
                on[g->weights.at[r->weight + k * r->step].name[0] - 'a'] =
                    c.program->devices.at[d].number;
        }
    assert_int_equal(on[0], 0);
    assert_int_equal(on[3], 2);
    assert_int_equal(on[4], 1);
    assert_true(on[1] >= 0 && on[2] >= on[1] && on[2] <= 2);
    assert_true(proved(&c));
    compiled_free(&c);
}

/* By hand: device 0 holds the first and the third quarter. */
static void test_interleaved_by_hand(void **state)
{
    (void)state;
    const char *const defines[] = {"parts=4", "gpus=2", NULL};
    Compiled c = compile_file(mlp, defines, NULL);
    assert_int_equal(c.program->devices.n, 2);
    assert_int_equal(c.program->chunks.n, 4);
    for (int k = 0; k < 4; k++)
        assert_int_equal(c.program->chunks.at[k].device, k % 2);
    compiled_free(&c);
}

static void test_memory_limit(void **state)
{
    (void)state;
    char text[1024];
    snprintf(text, sizeof text, "%sdevices gpu[1] { memory = 100 KiB; }\n", chain);
    Compiled c = compile_text(text, NULL);
    assert_null(c.program);
    assert_true(diag_errors(c.diag) > 0);
    compiled_free(&c);
}

/* ----------------------------------------------------------------------- loops */

static int total_calls(const Compiled *c)
{
    int n = 0;
    for (int k = 0; k < c->program->chunks.n; k++)
        for (int r = 0; r < RUN_KINDS; r++)
            n += c->program->chunks.at[k].run[r].calls.n;
    return n;
}

/* The Program of many layers is as long as that of few. */
static void test_loops_stay_loops(void **state)
{
    (void)state;
    int few = 0;
    for (int layers = 8; layers <= 512; layers *= 4) {
        char define[32];
        snprintf(define, sizeof define, "layers=%d", layers);
        const char *const defines[] = {define, "parts=2", "gpus=2", NULL};
        Compiled c = compile_file(mlp, defines, NULL);
        assert_non_null(c.program);
        assert_true(proved(&c));
        if (few == 0)
            few = total_calls(&c);
        assert_int_equal(total_calls(&c), few);
        compiled_free(&c);
    }
}

/* The same weights of a loop that is unrolled by hand, of nested loops, of turns that differ. */
static void test_strange_loops(void **state)
{
    (void)state;
    static const char *const bodies[] = {
        "for i in 0 .. 3 { for j in 0 .. 2 { x = tanh(linear(x, 8) as a[i * 2 + j]); } }",
        "for i in 0 .. 2 { for j in 0 .. 9 { x = tanh(linear(x, 8) as a[i][j]); } }",
        "for i in 0 .. 6 { if (i % 2 == 0) { x = tanh(linear(x, 8) as a[i]); } else "
        "{ x = x + relu(linear(x, 8) as b[i]); } }",
        "z = x; for i in 0 .. 4 { t = z; z = linear(x, 8) as a[i]; x = t + relu(z); }",
        "k = x; for i in 0 .. 5 { x = x + k * (linear(x, 8, bias = false) as a[i]); }",
        "weight w : f32[8, 8] = normal(0.1); for i in 0 .. 5 { x = tanh(matmul(x, w) + x); }",
        "for i in 0 .. 5 { weight s : f32[8] = ones; x = x * s; }",
        "for i in 0 .. 4 { (p, q) = split(linear(x, 16) as a[i], 2); x = p * sigmoid(q); }",
    };
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++)
        for (int gpus = 1; gpus <= 3; gpus++) {
            bool rows = strstr(bodies[i], "matmul"); /* a matrix per sample */
            char text[2048];
            snprintf(text, sizeof text,
                     "model m { input x : f32[%s]; target y : i32; %s\n"
                     "loss cross_entropy(%s, y); }\ntrain { batch = 12; }\n"
                     "devices gpu[%d] { memory = 1 GiB; }\n",
                     rows ? "2, 8" : "8", bodies[i], rows ? "mean(x, dims = [0])" : "x", gpus);
            Compiled c = compile_text(text, NULL);
            if (!c.program)
                diag_flush(c.diag, stderr, false);
            if (strstr(bodies[i], "weight s")) { /* one name, several weights: an error */
                assert_null(c.program);
                compiled_free(&c);
                continue;
            }
            assert_non_null(c.program);
            assert_true(proved(&c));
            compiled_free(&c);
        }
}

/* A region keeps only what comes into it, also where the split cuts it. */
static void test_recompute_keeps_less(void **state)
{
    (void)state;
    for (int gpus = 1; gpus <= 4; gpus *= 2) {
        char parts[32], devices[32];
        snprintf(parts, sizeof parts, "parts=%d", gpus);
        snprintf(devices, sizeof devices, "gpus=%d", gpus);
        const char *const keep[] = {parts, devices, "again=0", NULL};
        const char *const again[] = {parts, devices, "again=1", NULL};
        Compiled a = compile_file(mlp, keep, NULL), b = compile_file(mlp, again, NULL);
        assert_true(proved(&a) && proved(&b));
        for (int d = 0; d < gpus; d++)
            assert_true(kept_bytes(&b, d) < kept_bytes(&a, d));
        compiled_free(&a);
        compiled_free(&b);
    }
    static const char cut[] =
        "model m { input x : f32[8]; target y : i32; recompute {\n"
        "a = gelu(linear(x, 8) as p) @gpu[0]; b = gelu(linear(a, 8) as q) @gpu[0];\n"
        "c = gelu(linear(b + a, 8) as r) @gpu[1]; }\n"
        "loss cross_entropy(c, y); }\ntrain { batch = 8; }\n";
    Compiled c = compile_text(cut, NULL);
    assert_non_null(c.program);
    assert_true(proved(&c));
    compiled_free(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_1f1b_keeps_less),      cmocka_unit_test(test_slots_are_exact),
        cmocka_unit_test(test_balanced_split),       cmocka_unit_test(test_annotations_hold),
        cmocka_unit_test(test_interleaved_by_hand),  cmocka_unit_test(test_memory_limit),
        cmocka_unit_test(test_loops_stay_loops),     cmocka_unit_test(test_strange_loops),
        cmocka_unit_test(test_recompute_keeps_less),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
