/* Attention on a GPU against plain loops in double; and a batch's last sample
 * alone against the same sample in the batch, to the bit. In float, then in 16-bit numbers.
 */
#include "gpu_half.h"
#include "gpu_half_tensor.h"

/* {B, t, s, heads, kv_heads, width, ldq, ldk, ldv, causal}; ld 0: contiguous. On both sides of a
 * tile's 64 positions, of what a block takes of a head's width, and of 16 columns of it. */
static const Attention SHAPES[] = {
    {2, 1, 1, 1, 1, 4, 0, 0, 0, true},          {1, 1, 77, 2, 1, 8, 0, 0, 0, false},
    {1, 64, 64, 1, 1, 32, 0, 0, 0, true},       {3, 37, 37, 2, 2, 16, 96, 96, 96, true},
    {2, 130, 130, 4, 2, 24, 0, 0, 0, true},     {1, 100, 67, 2, 1, 20, 52, 36, 28, false},
    {2, 67, 100, 2, 2, 33, 0, 0, 0, true},      {1, 100, 67, 3, 1, 7, 23, 0, 0, true},
    {1, 129, 200, 2, 1, 64, 320, 64, 68, true}, {1, 197, 65, 1, 1, 64, 0, 0, 0, false},
    {2, 70, 140, 2, 1, 80, 0, 0, 0, true},      {1, 140, 70, 1, 1, 128, 0, 0, 0, false},
    {1, 66, 66, 2, 1, 160, 0, 0, 0, true},      {1, 20, 70, 1, 1, 256, 0, 0, 0, false},
    {1, 70, 90, 1, 1, 300, 0, 0, 0, true},      {1, 3, 5, 2, 1, 1, 0, 0, 0, true},
};
enum { SHAPES_COUNT = sizeof SHAPES / sizeof *SHAPES };

static Attention shape_at(int i)
{
    Attention a = SHAPES[i];
    a.ldq = a.ldq ? a.ldq : a.heads * a.width;
    a.ldk = a.ldk ? a.ldk : a.kv_heads * a.width;
    a.ldv = a.ldv ? a.ldv : a.kv_heads * a.width;
    return a;
}

/* ------------------------------------------------------------------- in double */

/* q, k, v, dout and results, laid out as the tensors are; gaps between rows are 0. */
typedef struct {
    const Attention *a;
    const real *q, *k, *v, *dout;
    double *o, *lse, *dq, *dk, *dv;
} Reference;

static int64_t size_q(const Attention *a)
{
    return a->B * a->t * a->ldq;
}

static int64_t size_k(const Attention *a)
{
    return a->B * a->s * a->ldk;
}

static int64_t size_v(const Attention *a)
{
    return a->B * a->s * a->ldv;
}

static int64_t size_o(const Attention *a)
{
    return a->B * a->t * a->heads * a->width;
}

static int64_t size_lse(const Attention *a)
{
    return a->B * a->heads * a->t;
}

static double dot(const real *x, const real *y, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)y[i];
    return sum;
}

static void add(double *y, double scale, const real *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] += scale * (double)x[i];
}

/* One query: its weights p[s], then what they give and take. */
static void reference_query(const Reference *r, int64_t b, int64_t h, int64_t i, double *p)
{
    const Attention *a = r->a;
    const int64_t keys = a->causal && i + 1 < a->s ? i + 1 : a->s, w = a->width;
    const int64_t g = h / (a->heads / a->kv_heads), q = (b * a->t + i) * a->ldq + h * w;
    const int64_t o = ((b * a->t + i) * a->heads + h) * w;
    const int64_t k = b * a->s * a->ldk + g * w, v = b * a->s * a->ldv + g * w;
    const double scale = 1 / sqrt((double)w);
    double most = -INFINITY, sum = 0, delta = 0;
    for (int64_t j = 0; j < keys; j++)
        most = fmax(most, p[j] = scale * dot(r->q + q, r->k + k + j * a->ldk, w));
    for (int64_t j = 0; j < keys; j++)
        sum += p[j] = exp(p[j] - most);
    r->lse[(b * a->heads + h) * a->t + i] = most + log(sum);
    for (int64_t j = 0; j < keys; j++)
        add(r->o + o, p[j] /= sum, r->v + v + j * a->ldv, w);
    for (int64_t c = 0; c < w; c++)
        delta += (double)r->dout[o + c] * r->o[o + c];
    for (int64_t j = 0; j < keys; j++) {
        const double ds = p[j] * (dot(r->dout + o, r->v + v + j * a->ldv, w) - delta) * scale;
        add(r->dv + v + j * a->ldv, p[j], r->dout + o, w);
        add(r->dk + k + j * a->ldk, ds, r->q + q, w);
        add(r->dq + q, ds, r->k + k + j * a->ldk, w);
    }
}

static Reference reference_new(const Attention *a, const real *q, const real *k, const real *v,
                               const real *dout)
{
    const Reference r = {a,
                         q,
                         k,
                         v,
                         dout,
                         new_doubles(size_o(a)),
                         new_doubles(size_lse(a)),
                         new_doubles(size_q(a)),
                         new_doubles(size_k(a)),
                         new_doubles(size_v(a))};
    double *p = new_doubles(a->s);
    for (int64_t b = 0; b < a->B; b++)
        for (int64_t h = 0; h < a->heads; h++)
            for (int64_t i = 0; i < a->t; i++)
                reference_query(&r, b, h, i, p);
    free(p);
    return r;
}

static void reference_free(const Reference *r)
{
    double *all[] = {r->o, r->lse, r->dq, r->dk, r->dv};
    for (int i = 0; i < 5; i++)
        free(all[i]);
}

/* What a result is to be: `width` elements of each row from the reference, the rest kept. */
static void expect(real *host, const double *want, int64_t n, int64_t ld, int64_t width)
{
    for (int64_t i = 0; i < n; i++)
        host[i] = i % ld < width ? (real)want[i] : host[i];
}

/* Rows of a result, `width` of `ld` elements each, that were computed with others and are computed
 * again without: the bits are the same. */
typedef struct {
    char *gpu, *kept;
    int64_t n, ld, width;
    size_t size; /* of an element */
    const char *what;
} Again;

/* Keeps them, and spoils them on the GPU. */
static Again again_begin(void *gpu, size_t size, int64_t from, int64_t n, int64_t ld, int64_t width,
                         const char *what)
{
    const size_t bytes = (size_t)n * size;
    const Again a = {(char *)gpu + (size_t)from * size, malloc(bytes), n, ld, width, size, what};
    assert_non_null(a.kept);
    gpu_download(a.kept, a.gpu, bytes);
    GPU_OK(cudaMemsetAsync(a.gpu, 0xff, bytes, the_gpu.compute));
    return a;
}

static void again_end(const Again *a)
{
    char *got = malloc((size_t)a->n * a->size);
    assert_non_null(got);
    gpu_download(got, a->gpu, (size_t)a->n * a->size);
    for (int64_t i = 0; i < a->n; i++)
        if (i % a->ld < a->width &&
            memcmp(got + (size_t)i * a->size, a->kept + (size_t)i * a->size, a->size) != 0)
            fail_msg("%s of one sample: element %lld has other bits", a->what, (long long)i);
    free(got);
    free(a->kept);
}

/* ------------------------------------------------------------------ in float */

typedef int AttentionBackFn(const Gpu *gpu, float *dq, float *dk, float *dv, const float *dout,
                            const float *q, const float *k, const float *v, const float *o,
                            const float *lse, const Attention *a);

/* gpu_attention_backward() with room in scratch for 200 numbers. */
AttentionBackFn gpu_attention_backward_cut;

static Tensor sized_numbers(int64_t n, uint64_t seed, double size)
{
    real *x = new_numbers(n, seed);
    for (int64_t i = 0; i < n; i++)
        x[i] = (real)(size * (double)x[i]);
    return tensor_of(x, n);
}

typedef struct {
    Tensor q, k, v, dout, o, lse, dq, dk, dv;
} Problem;

/* The last sample alone. */
static void check_sample(const Attention *a, const Problem *p, AttentionBackFn *backward)
{
    Attention one = *a;
    one.B = 1;
    const int64_t last = a->B - 1, q = last * size_q(&one), k = last * size_k(&one);
    const int64_t v = last * size_v(&one), o = last * size_o(&one), lse = last * size_lse(&one);
    const int64_t wide = a->heads * a->width, wide_kv = a->kv_heads * a->width;
    const size_t size = sizeof(float);
    const Again parts[] = {
        again_begin(p->o.gpu, size, o, size_o(&one), 1, 1, "attention_forward"),
        again_begin(p->lse.gpu, size, lse, size_lse(&one), 1, 1, "attention lse"),
        again_begin(p->dq.gpu, size, q, size_q(&one), a->ldq, wide, "attention dq"),
        again_begin(p->dk.gpu, size, k, size_k(&one), a->ldk, wide_kv, "attention dk"),
        again_begin(p->dv.gpu, size, v, size_v(&one), a->ldv, wide_kv, "attention dv"),
    };
    GPU_OK(gpu_attention_forward(&the_gpu, p->o.gpu + o, p->lse.gpu + lse, p->q.gpu + q,
                                 p->k.gpu + k, p->v.gpu + v, &one));
    GPU_OK(backward(&the_gpu, p->dq.gpu + q, p->dk.gpu + k, p->dv.gpu + v, p->dout.gpu + o,
                    p->q.gpu + q, p->k.gpu + k, p->v.gpu + v, p->o.gpu + o, p->lse.gpu + lse,
                    &one));
    for (int i = 0; i < 5; i++)
        again_end(&parts[i]);
}

/* q and k are `size` times numbers below 1. */
static void check_attention(const Attention *a, double size, AttentionBackFn *backward)
{
    const Gpu *g = &the_gpu;
    const Problem p = {.q = sized_numbers(size_q(a), 1, size),
                       .k = sized_numbers(size_k(a), 2, size),
                       .v = tensor_numbers(size_v(a), 3),
                       .dout = tensor_numbers(size_o(a), 4),
                       .o = tensor_empty(size_o(a)),
                       .lse = tensor_empty(size_lse(a)),
                       .dq = tensor_numbers(size_q(a), 5),
                       .dk = tensor_numbers(size_k(a), 6),
                       .dv = tensor_numbers(size_v(a), 7)};
    const Reference r = reference_new(a, p.q.host, p.k.host, p.v.host, p.dout.host);
    const double tolerance = 1e-5 * fmax(1, size);
    const double cancelled = a->s == 1 ? 1e-4 : tolerance; /* of nothing but 0 */
    expect(p.o.host, r.o, p.o.n, 1, 1);
    expect(p.lse.host, r.lse, p.lse.n, 1, 1);
    expect(p.dq.host, r.dq, p.dq.n, a->ldq, a->heads * a->width);
    expect(p.dk.host, r.dk, p.dk.n, a->ldk, a->kv_heads * a->width);
    expect(p.dv.host, r.dv, p.dv.n, a->ldv, a->kv_heads * a->width);
    GPU_OK(gpu_attention_forward(g, p.o.gpu, p.lse.gpu, p.q.gpu, p.k.gpu, p.v.gpu, a));
    tensor_check(p.o, tolerance, "attention_forward");
    tensor_check(p.lse, tolerance, "attention lse");
    GPU_OK(backward(g, p.dq.gpu, p.dk.gpu, p.dv.gpu, p.dout.gpu, p.q.gpu, p.k.gpu, p.v.gpu, p.o.gpu,
                    p.lse.gpu, a));
    tensor_check(p.dq, cancelled, "attention dq");
    tensor_check(p.dk, cancelled, "attention dk");
    tensor_check(p.dv, tolerance, "attention dv");
    check_sample(a, &p, backward);
    reference_free(&r);
    tensors_free();
}

static void test_attention(void **state)
{
    (void)state;
    for (int i = 0; i < SHAPES_COUNT; i++) {
        const Attention a = shape_at(i);
        for (tensor_shift = 0; tensor_shift < (i % 3 == 2 ? 2 : 1); tensor_shift++)
            check_attention(&a, 1, gpu_attention_backward);
    }
    tensor_shift = 0;
}

/* Scores of some hundreds: exp of them alone would overflow, most weights vanish. */
static void test_large_scores(void **state)
{
    (void)state;
    for (int i = 2; i < 6; i++) {
        const Attention a = shape_at(i);
        check_attention(&a, 16, gpu_attention_backward);
    }
}

/* Scratch that has room for some of the heads, and for not even one. */
static void test_little_scratch(void **state)
{
    (void)state;
    for (int i = 3; i < 8; i++) {
        const Attention a = shape_at(i);
        check_attention(&a, 1, gpu_attention_backward_cut);
    }
}

/* ------------------------------------------------------------ of 16-bit numbers */

typedef int AttentionBackHalfFn(const Gpu *gpu, HalfKind kind, half16 *dq, half16 *dk, half16 *dv,
                                const half16 *dout, const half16 *q, const half16 *k,
                                const half16 *v, const half16 *o, const float *lse,
                                const Attention *a);

/* gpu_attention_backward_half() with room in scratch for 200 numbers, in bf16. */
AttentionBackHalfFn gpu_attention_backward_half_cut;

typedef struct {
    Half q, k, v, dout, o, dq, dk, dv;
    Tensor lse;
} HalfProblem;

static void check_half_sample(const Attention *a, const HalfProblem *p,
                              AttentionBackHalfFn *backward)
{
    Attention one = *a;
    one.B = 1;
    const int64_t last = a->B - 1, q = last * size_q(&one), k = last * size_k(&one);
    const int64_t v = last * size_v(&one), o = last * size_o(&one), lse = last * size_lse(&one);
    const int64_t wide = a->heads * a->width, wide_kv = a->kv_heads * a->width;
    const size_t size = sizeof(half16);
    const Again parts[] = {
        again_begin(p->o.gpu, size, o, size_o(&one), 1, 1, "attention_forward_half"),
        again_begin(p->lse.gpu, sizeof(float), lse, size_lse(&one), 1, 1, "attention lse"),
        again_begin(p->dq.gpu, size, q, size_q(&one), a->ldq, wide, "attention dq"),
        again_begin(p->dk.gpu, size, k, size_k(&one), a->ldk, wide_kv, "attention dk"),
        again_begin(p->dv.gpu, size, v, size_v(&one), a->ldv, wide_kv, "attention dv"),
    };
    GPU_OK(gpu_attention_forward_half(&the_gpu, half_kind, p->o.gpu + o, p->lse.gpu + lse,
                                      p->q.gpu + q, p->k.gpu + k, p->v.gpu + v, &one));
    GPU_OK(backward(&the_gpu, half_kind, p->dq.gpu + q, p->dk.gpu + k, p->dv.gpu + v,
                    p->dout.gpu + o, p->q.gpu + q, p->k.gpu + k, p->v.gpu + v, p->o.gpu + o,
                    p->lse.gpu + lse, &one));
    for (int i = 0; i < 5; i++)
        again_end(&parts[i]);
}

/* Weights and ds are rounded on their way into products, and so is o, of which deltas are made:
 * errors of half a unit in the last place, of either sign, in sums. */
static void check_attention_half(const Attention *a, AttentionBackHalfFn *backward)
{
    const Gpu *g = &the_gpu;
    const HalfProblem p = {.q = half_numbers(size_q(a), 1),
                           .k = half_numbers(size_k(a), 2),
                           .v = half_numbers(size_v(a), 3),
                           .dout = half_numbers(size_o(a), 4),
                           .o = half_empty(size_o(a)),
                           .dq = half_numbers(size_q(a), 5),
                           .dk = half_numbers(size_k(a), 6),
                           .dv = half_numbers(size_v(a), 7),
                           .lse = tensor_empty(size_lse(a))};
    const Reference r = reference_new(a, p.q.wide, p.k.wide, p.v.wide, p.dout.wide);
    const double unit = half_kind == HALF_BF16 ? 0x1p-8 : 0x1p-11;
    expect(p.o.wide, r.o, p.o.n, 1, 1);
    expect(p.lse.host, r.lse, p.lse.n, 1, 1);
    expect(p.dq.wide, r.dq, p.dq.n, a->ldq, a->heads * a->width);
    expect(p.dk.wide, r.dk, p.dk.n, a->ldk, a->kv_heads * a->width);
    expect(p.dv.wide, r.dv, p.dv.n, a->ldv, a->kv_heads * a->width);
    GPU_OK(
        gpu_attention_forward_half(g, half_kind, p.o.gpu, p.lse.gpu, p.q.gpu, p.k.gpu, p.v.gpu, a));
    half_check(p.o, unit, "attention_forward_half");
    tensor_check(p.lse, 1e-5, "attention_half lse");
    GPU_OK(backward(g, half_kind, p.dq.gpu, p.dk.gpu, p.dv.gpu, p.dout.gpu, p.q.gpu, p.k.gpu,
                    p.v.gpu, p.o.gpu, p.lse.gpu, a));
    half_check(p.dq, a->s == 1 ? 1 : unit, "attention_half dq");
    half_check(p.dk, a->s == 1 ? 1 : unit, "attention_half dk");
    half_check(p.dv, unit, "attention_half dv");
    check_half_sample(a, &p, backward);
    reference_free(&r);
    halves_free();
}

static void test_attention_half(void **state)
{
    (void)state;
    for (int i = 0; i < SHAPES_COUNT; i++) {
        Attention a = shape_at(i);
        half_kind = i % 2 ? HALF_F16 : HALF_BF16;
        check_attention_half(&a, gpu_attention_backward_half);
        tensor_shift = 1;
        half_kind = i % 2 ? HALF_BF16 : HALF_F16;
        if (i % 3 == 2)
            check_attention_half(&a, gpu_attention_backward_half);
        tensor_shift = 0;
    }
}

static void test_little_scratch_half(void **state)
{
    (void)state;
    for (int i = 3; i < 8; i++) {
        const Attention a = shape_at(i);
        half_kind = HALF_BF16;
        check_attention_half(&a, gpu_attention_backward_half_cut);
    }
}

static void test_nothing(void **state)
{
    (void)state;
    const Attention none = {0, 3, 4, 2, 1, 8, 16, 8, 8, true};
    float *const f = NULL;
    half16 *const h = NULL;
    GPU_OK(gpu_attention_forward(&the_gpu, f, f, f, f, f, &none));
    GPU_OK(gpu_attention_backward(&the_gpu, f, f, f, f, f, f, f, f, f, &none));
    GPU_OK(gpu_attention_forward_half(&the_gpu, HALF_BF16, h, f, h, h, h, &none));
    GPU_OK(gpu_attention_backward_half(&the_gpu, HALF_F16, h, h, h, h, h, h, h, h, f, &none));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attention),
        cmocka_unit_test(test_large_scores),
        cmocka_unit_test(test_little_scratch),
        cmocka_unit_test(test_attention_half),
        cmocka_unit_test(test_little_scratch_half),
        cmocka_unit_test(test_nothing),
    };
    return cmocka_run_group_tests(tests, gpu_open, gpu_close);
}
