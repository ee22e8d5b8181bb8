/* Attention and rotary embedding against plain loops in double, in every format. */
#include "check.h"

#ifndef MDL_F64
#include "half.h"
#endif

/* A case in double: operands, results and gradients, each laid out as the tensors are. */
typedef struct {
    Attention a;
    int64_t nq, nk, nv, no, nl; /* elements of q, k, v, o, lse */
    double *q, *k, *v, *dout, *o, *lse, *dq, *dk, *dv;
} Problem;

static Problem new_problem(const Attention *a)
{
    Problem p = {.a = *a,
                 .nq = a->B * a->t * a->ldq,
                 .nk = a->B * a->s * a->ldk,
                 .nv = a->B * a->s * a->ldv,
                 .no = a->B * a->t * a->heads * a->width,
                 .nl = a->B * a->heads * a->t};
    double **part[] = {&p.q, &p.k, &p.v, &p.dout, &p.o, &p.lse, &p.dq, &p.dk, &p.dv};
    const int64_t n[] = {p.nq, p.nk, p.nv, p.no, p.no, p.nl, p.nq, p.nk, p.nv};
    for (int i = 0; i < 9; i++)
        *part[i] = new_doubles(n[i]);
    return p;
}

static void free_problem(Problem *p)
{
    double *part[] = {p->q, p->k, p->v, p->dout, p->o, p->lse, p->dq, p->dk, p->dv};
    for (int i = 0; i < 9; i++)
        free(part[i]);
}

/* Offsets of a head's row. */
static int64_t at_q(const Attention *a, int64_t b, int64_t i, int64_t h)
{
    return (b * a->t + i) * a->ldq + h * a->width;
}

static int64_t at_o(const Attention *a, int64_t b, int64_t i, int64_t h)
{
    return ((b * a->t + i) * a->heads + h) * a->width;
}

static double dot(const double *x, const double *y, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += x[i] * y[i];
    return sum;
}

static void add(double *y, double scale, const double *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] += scale * x[i];
}

/* One query: its weights p[s], then what they give and take. */
static void reference_query(Problem *r, int64_t b, int64_t h, int64_t i, double *p)
{
    const Attention *a = &r->a;
    const int64_t keys = a->causal && i + 1 < a->s ? i + 1 : a->s, w = a->width;
    const int64_t g = h / (a->heads / a->kv_heads), q = at_q(a, b, i, h), o = at_o(a, b, i, h);
    const double scale = 1 / sqrt((double)w);
    const double *k = r->k + b * a->s * a->ldk + g * w, *v = r->v + b * a->s * a->ldv + g * w;
    double *dk = r->dk + b * a->s * a->ldk + g * w, *dv = r->dv + b * a->s * a->ldv + g * w;
    double most = -INFINITY, sum = 0;
    for (int64_t j = 0; j < keys; j++) {
        p[j] = scale * dot(r->q + q, k + j * a->ldk, w);
        most = fmax(most, p[j]);
    }
    for (int64_t j = 0; j < keys; j++)
        sum += p[j] = exp(p[j] - most);
    r->lse[(b * a->heads + h) * a->t + i] = most + log(sum);
    for (int64_t j = 0; j < keys; j++)
        add(r->o + o, p[j] /= sum, v + j * a->ldv, w);
    const double delta = dot(r->dout + o, r->o + o, w);
    for (int64_t j = 0; j < keys; j++) {
        const double ds = p[j] * (dot(r->dout + o, v + j * a->ldv, w) - delta) * scale;
        add(dv + j * a->ldv, p[j], r->dout + o, w);
        add(dk + j * a->ldk, ds, r->q + q, w);
        add(r->dq + q, ds, k + j * a->ldk, w);
    }
}

static void reference(Problem *r)
{
    double *p = new_doubles(r->a.s);
    for (int64_t b = 0; b < r->a.B; b++)
        for (int64_t h = 0; h < r->a.heads; h++)
            for (int64_t i = 0; i < r->a.t; i++)
                reference_query(r, b, h, i, p);
    free(p);
}

/* Elements between the heads of a strided tensor belong to others: they keep their bits. */
static void expect_gaps(double *want, int64_t rows, int64_t ld, int64_t width, uint64_t seed)
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = width; i < ld; i++)
            want[r * ld + i] = (double)(real)number_at(seed, r * ld + i);
}

static real *rounded(const double *x, int64_t n)
{
    real *y = new_numbers(n, 0);
    for (int64_t i = 0; i < n; i++)
        y[i] = (real)x[i];
    return y;
}

static void set_inputs(Problem *p, double size)
{
    double *part[] = {p->q, p->k, p->v, p->dout};
    const int64_t n[] = {p->nq, p->nk, p->nv, p->no};
    for (int t = 0; t < 4; t++)
        for (int64_t i = 0; i < n[t]; i++)
            part[t][i] = (double)(real)((t < 2 ? size : 1) * number_at((uint64_t)t + 1, i));
}

static void check_attention(const Attention *a, double size)
{
    Problem p = new_problem(a);
    set_inputs(&p, size);
    reference(&p);
    expect_gaps(p.dq, a->B * a->t, a->ldq, a->heads * a->width, 9);
    expect_gaps(p.dk, a->B * a->s, a->ldk, a->kv_heads * a->width, 9);
    expect_gaps(p.dv, a->B * a->s, a->ldv, a->kv_heads * a->width, 9);
    real *q = rounded(p.q, p.nq), *k = rounded(p.k, p.nk), *v = rounded(p.v, p.nv);
    real *dout = rounded(p.dout, p.no), *o = new_numbers(p.no, 0), *lse = new_numbers(p.nl, 0);
    real *dq = new_numbers(p.nq, 9), *dk = new_numbers(p.nk, 9), *dv = new_numbers(p.nv, 9);
    /* errors grow with the scores, which are as large as size^2, and with the sums */
    const double tolerance = 32 + 16 * size * size + 2 * sqrt((double)a->t);
    ON_EVERY_TEAM(o, p.no, 9, attention_forward(team, o, lse, q, k, v, a));
    check_close(o, p.o, p.no, tolerance, "attention forward");
    check_close(lse, p.lse, p.nl, tolerance, "attention lse");
    ON_EVERY_TEAM(dq, p.nq, 9, attention_backward(team, dq, dk, dv, dout, q, k, v, o, lse, a));
    set_numbers(dv, p.nv, 9);
    ON_EVERY_TEAM(dk, p.nk, 9, attention_backward(team, dq, dk, dv, dout, q, k, v, o, lse, a));
    set_numbers(dq, p.nq, 9);
    ON_EVERY_TEAM(dv, p.nv, 9, attention_backward(team, dq, dk, dv, dout, q, k, v, o, lse, a));
    check_close(dq, p.dq, p.nq, tolerance * fmax(1, size), "attention dq");
    set_numbers(dk, p.nk, 9);
    Team *team = team_new(2, false);
    attention_backward(team, dq, dk, dv, dout, q, k, v, o, lse, a);
    team_free(team);
    check_close(dk, p.dk, p.nk, tolerance * fmax(1, size), "attention dk");
    check_close(dv, p.dv, p.nv, tolerance, "attention dv");
    real *all[] = {q, k, v, dout, o, lse, dq, dk, dv};
    for (int i = 0; i < 9; i++)
        free(all[i]);
    free_problem(&p);
}

/* {B, t, s, heads, kv_heads, width, ldq, ldk, ldv, causal}; ld 0: contiguous */
static const Attention SHAPES[] = {
    {2, 1, 1, 1, 1, 4, 0, 0, 0, true},       {1, 1, 77, 2, 1, 8, 0, 0, 0, false},
    {1, 64, 64, 1, 1, 32, 0, 0, 0, true},    {3, 37, 37, 2, 2, 16, 96, 96, 96, true},
    {1, 130, 130, 4, 2, 24, 0, 0, 0, true},  {1, 100, 67, 2, 1, 20, 50, 31, 25, false},
    {2, 67, 100, 2, 2, 33, 0, 0, 0, true},   {1, 100, 67, 3, 1, 7, 0, 0, 0, true},
    {2, 256, 256, 2, 2, 32, 0, 0, 0, true},  {1, 256, 256, 2, 1, 64, 320, 256, 256, true},
    {1, 197, 197, 3, 3, 64, 0, 0, 0, false}, {1, 700, 700, 2, 1, 12, 0, 0, 0, true},
    {1, 20, 530, 2, 2, 40, 0, 0, 0, false},  {1, 70, 90, 1, 1, 300, 0, 0, 0, true},
    {1, 40, 50, 2, 1, 1024, 0, 0, 0, false}, {1, 19, 300, 1, 1, 1, 0, 0, 0, true},
    {2, 20, 19, 1, 1, 1536, 0, 0, 0, true},  {1, 13, 11, 2, 1, 1537, 0, 0, 0, true},
    {1, 3, 2, 1, 1, 40000, 0, 0, 0, false},
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

static void test_attention(void **state)
{
    (void)state;
    for (int i = 0; i < SHAPES_COUNT; i++) {
        const Attention a = shape_at(i);
        check_attention(&a, 1);
    }
}

/* Scores of some hundreds: exp of them alone would overflow, most weights vanish. */
static void test_large_scores(void **state)
{
    (void)state;
    for (int i = 2; i < 6; i++) {
        const Attention a = shape_at(i);
        check_attention(&a, 16);
    }
}

/* The sum of all results times dout, whose gradients the kernel gives. */
#ifdef MDL_F64
static double weighed_result(Team *team, const Problem *p, const Attention *a)
{
    double *o = new_doubles(p->no), *lse = new_doubles(p->nl);
    attention_forward(team, o, lse, p->q, p->k, p->v, a);
    const double sum = dot(o, p->dout, p->no);
    free(o);
    free(lse);
    return sum;
}

static void check_differences(Team *team, const Problem *p, const Attention *a, double *x,
                              const double *gradient, int64_t n, const char *what)
{
    const double step = 1e-5;
    for (int64_t i = 0; i < n; i += 1 + n / 97) {
        const double kept = x[i];
        x[i] = kept + step;
        const double more = weighed_result(team, p, a);
        x[i] = kept - step;
        const double less = weighed_result(team, p, a);
        x[i] = kept;
        const double slope = (more - less) / (2 * step);
        if (!(fabs(slope - gradient[i]) <= 1e-7 * fmax(1, fabs(slope))))
            fail_msg("%s %lld is %.12g, not %.12g", what, (long long)i, gradient[i], slope);
    }
}

/* Gradients as differences of results, without the reference's formulas. */
static void test_differences(void **state)
{
    (void)state;
    const int shapes[] = {3, 4, 6, 7};
    Team *team = team_new(2, false);
    for (int i = 0; i < 4; i++) {
        Attention a = shape_at(shapes[i]);
        a.ldq = a.heads * a.width;
        a.ldk = a.ldv = a.kv_heads * a.width;
        Problem p = new_problem(&a);
        set_inputs(&p, 1);
        attention_forward(team, p.o, p.lse, p.q, p.k, p.v, &a);
        attention_backward(team, p.dq, p.dk, p.dv, p.dout, p.q, p.k, p.v, p.o, p.lse, &a);
        check_differences(team, &p, &a, p.q, p.dq, p.nq, "dq");
        check_differences(team, &p, &a, p.k, p.dk, p.nk, "dk");
        check_differences(team, &p, &a, p.v, p.dv, p.nv, "dv");
        free_problem(&p);
    }
    team_free(team);
}
#endif

/* A NaN reaches the queries that see it, and no others. */
static void test_nan(void **state)
{
    (void)state;
    const Attention a = {1, 70, 70, 1, 1, 8, 8, 8, 8, true};
    real *x = new_numbers(70 * 8, 1), *o = new_numbers(70 * 8, 0), *lse = new_numbers(70, 0);
    x[40 * 8 + 3] = (real)NAN;
    Team *team = team_new(1, false);
    attention_forward(team, o, lse, x, x, x, &a);
    team_free(team);
    for (int i = 0; i < 70; i++) {
        assert_true(isnan(lse[i]) == (i >= 40));
        assert_true(isnan(o[i * 8]) == (i >= 40));
    }
    free(x);
    free(o);
    free(lse);
}

static void rotate(double *y, const real *x, int64_t B, int64_t t, int64_t heads, int64_t width,
                   double base, bool inverse)
{
    const int64_t half = width / 2;
    for (int64_t r = 0; r < B * t * heads; r++)
        for (int64_t c = 0; c < half; c++) {
            const double position = (double)(r / heads % t);
            const double angle = position * pow(base, -2.0 * (double)c / (double)width);
            const double s = inverse ? -sin(angle) : sin(angle), k = cos(angle);
            const double a = (double)x[r * width + c], b = (double)x[r * width + c + half];
            y[r * width + c] = a * k - b * s;
            y[r * width + c + half] = b * k + a * s;
        }
}

/* {B, t, heads, width} */
static const int64_t ROPE[][4] = {{1, 1, 1, 2},    {2, 37, 3, 32},   {1, 300, 2, 70},
                                  {3, 5, 1, 6144}, {1, 8192, 1, 16}, {1, 3, 1, 20000}};

static void test_rope(void **state)
{
    (void)state;
    for (int i = 0; i < (int)(sizeof ROPE / sizeof *ROPE); i++) {
        const int64_t B = ROPE[i][0], t = ROPE[i][1], heads = ROPE[i][2], width = ROPE[i][3];
        const int64_t n = B * t * heads * width;
        real *x = new_numbers(n, 1), *y = new_numbers(n, 0);
        double *want = new_doubles(n);
        for (int inverse = 0; inverse < 2; inverse++) {
            rotate(want, x, B, t, heads, width, 10000, inverse);
            ON_EVERY_TEAM(y, n, 9, rope(team, y, x, B, t, heads, width, 10000, inverse));
            /* angles in double are off by units of the last place of the largest position */
            check_close(y, want, n, 4 + (sizeof(real) == 8 ? 4 * (double)t : 0), "rope");
        }
        Team *team = team_new(2, false); /* in place, and back */
        memcpy(y, x, (size_t)n * sizeof *x);
        rope(team, y, y, B, t, heads, width, 10000, false);
        rope(team, y, y, B, t, heads, width, 10000, true);
        team_free(team);
        for (int64_t k = 0; k < n; k++)
            want[k] = (double)x[k];
        check_close(y, want, n, 8, "rope there and back");
        free(x);
        free(y);
        free(want);
    }
}

#ifndef MDL_F64
/* Numbers of 16 bits exactly as they are in double. */
static double widened(HalfKind kind, half16 h)
{
    const double sign = h & 0x8000 ? -1 : 1;
    const int fraction = kind == HALF_BF16 ? 7 : 10, bias = kind == HALF_BF16 ? 127 : 15;
    const int exponent = (h & 0x7fff) >> fraction, rest = h & ((1 << fraction) - 1);
    if (exponent == 2 * bias + 1)
        return rest ? NAN : sign * INFINITY;
    return exponent ? sign * ldexp(rest + (1 << fraction), exponent - bias - fraction)
                    : sign * ldexp(rest, 1 - bias - fraction);
}

/* Inputs as 16-bit numbers, made by cutting the bits off; x becomes what they are. */
static half16 *halved(HalfKind kind, double *x, int64_t n)
{
    half16 *y = calloc((size_t)n, sizeof *y);
    assert_non_null(y);
    for (int64_t i = 0; i < n; i++) {
        const double size = fabs(x[i]), least = kind == HALF_BF16 ? 0x1p-126 : 0x1p-14;
        int exponent = 0;
        const double fraction = frexp(size, &exponent);
        const int digits = kind == HALF_BF16 ? 7 : 10, bias = kind == HALF_BF16 ? 127 : 15;
        if (size >= least)
            y[i] = (half16)(((exponent - 1 + bias) << digits) +
                            (int)((2 * fraction - 1) * (1 << digits)));
        if (x[i] < 0)
            y[i] |= 0x8000;
        x[i] = widened(kind, y[i]);
    }
    return y;
}

static void check_half(HalfKind kind, const half16 *got, const double *want, int64_t n,
                       double tolerance, const char *what)
{
    const double unit = kind == HALF_BF16 ? 0x1p-8 : 0x1p-11;
    for (int64_t i = 0; i < n; i++) {
        const double value = widened(kind, got[i]);
        if (!(fabs(value - want[i]) <= unit * (fabs(want[i]) + tolerance)))
            fail_msg("%s: element %lld is %.9g, not %.9g", what, (long long)i, value, want[i]);
    }
}

/* Weights of bf16 and their gradients may be rounded on the way: errors are relative to the size
 * of what is added up. The weights of f16 are float; o, which dS needs, is rounded in both. */
static void check_attention_half(HalfKind kind, const Attention *a, const int teams[2])
{
    Problem p = new_problem(a);
    set_inputs(&p, 1);
    half16 *q = halved(kind, p.q, p.nq), *k = halved(kind, p.k, p.nk), *v = halved(kind, p.v, p.nv);
    half16 *dout = halved(kind, p.dout, p.no);
    reference(&p);
    half16 *o[2], *dq[2], *dk[2], *dv[2];
    float *lse[2];
    for (int i = 0; i < 2; i++) {
        o[i] = calloc((size_t)p.no, 2);
        dq[i] = calloc((size_t)p.nq, 2);
        dk[i] = calloc((size_t)p.nk, 2);
        dv[i] = calloc((size_t)p.nv, 2);
        lse[i] = calloc((size_t)p.nl, sizeof **lse);
        Team *team = team_new(teams[i], false);
        attention_forward_half(team, kind, o[i], lse[i], q, k, v, a);
        attention_backward_half(team, kind, dq[i], dk[i], dv[i], dout, q, k, v, o[i], lse[i], a);
        team_free(team);
    }
    const double weights = kind == HALF_BF16 ? 1 : 1e-3;
    check_close(lse[0], p.lse, p.nl, 64, "half lse");
    check_half(kind, o[0], p.o, p.no, weights / 2, "half attention");
    check_half(kind, dq[0], p.dq, p.nq, 0.6, "half dq");
    check_half(kind, dk[0], p.dk, p.nk, 0.6, "half dk");
    check_half(kind, dv[0], p.dv, p.nv, 2 * weights, "half dv");
    assert_memory_equal(o[0], o[1], (size_t)p.no * 2);
    assert_memory_equal(dq[0], dq[1], (size_t)p.nq * 2);
    assert_memory_equal(dk[0], dk[1], (size_t)p.nk * 2);
    assert_memory_equal(dv[0], dv[1], (size_t)p.nv * 2);
    for (int i = 0; i < 2; i++) {
        void *all[] = {o[i], dq[i], dk[i], dv[i], lse[i]};
        for (int n = 0; n < 5; n++)
            free(all[n]);
    }
    half16 *inputs[] = {q, k, v, dout};
    for (int i = 0; i < 4; i++)
        free(inputs[i]);
    free_problem(&p);
}

static void test_attention_half(void **state)
{
    (void)state;
    for (int kind = 0; kind < 2; kind++)
        for (int i = 0; i < SHAPES_COUNT; i++) {
            const Attention a = shape_at(i);
            check_attention_half((HalfKind)kind, &a, (const int[]){1, 3});
        }
}

/* Keys that do not fit a thread's scratch at once. */
static void test_many_keys_half(void **state)
{
    (void)state;
    for (int kind = 0; kind < 2; kind++)
        for (int causal = 0; causal < 2; causal++) {
            const Attention a = {1, 700, 1300, 2, 1, 72, 144, 72, 72, causal};
            check_attention_half((HalfKind)kind, &a, (const int[]){2, 1});
        }
}

static void test_rope_half(void **state)
{
    (void)state;
    for (int kind = 0; kind < 2; kind++)
        for (int i = 0; i < (int)(sizeof ROPE / sizeof *ROPE); i++) {
            const int64_t B = ROPE[i][0], t = ROPE[i][1], heads = ROPE[i][2], width = ROPE[i][3];
            const int64_t n = B * t * heads * width;
            double *x = new_doubles(n), *want = new_doubles(n);
            for (int64_t k = 0; k < n; k++)
                x[k] = number_at(1, k);
            half16 *h = halved((HalfKind)kind, x, n);
            real *wide = rounded(x, n);
            rotate(want, wide, B, t, heads, width, 500, false);
            Team *team = team_new(2, false);
            rope_half(team, (HalfKind)kind, h, h, B, t, heads, width, 500, false);
            team_free(team);
            check_half((HalfKind)kind, h, want, n, 1e-3, "half rope");
            free(x);
            free(want);
            free(h);
            free(wide);
        }
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attention),   cmocka_unit_test(test_large_scores),
        cmocka_unit_test(test_nan),         cmocka_unit_test(test_rope),
#ifdef MDL_F64
        cmocka_unit_test(test_differences),
#else
        cmocka_unit_test(test_attention_half),
        cmocka_unit_test(test_many_keys_half),
        cmocka_unit_test(test_rope_half),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
