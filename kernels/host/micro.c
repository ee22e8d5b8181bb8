/* micro.c - the innermost loops of every matrix product.
 *
 * Both kernels keep an m x n block of C in registers. micro_rows walks down the rows of
 * B and multiplies each with single elements of A (outer products); micro_dots walks
 * along the rows of both operands and adds up the lanes at the end (inner products),
 * which saves turning round a B that is stored [N,K]. The compiler makes one variant
 * for every m and n. Compiled with -ffp-contract=fast: a * b + c is one fused operation
 * in every variant, or in none.
 */
#include "micro.h"

#include <string.h>

/* Lanes of a and b by turns: of their lower halves, of their upper halves. */
#ifdef MDL_F64
#define VECTOR_LANES (MDL_VECTOR_BYTES / 8)
#else
#define VECTOR_LANES (MDL_VECTOR_BYTES / 4)
#endif
#if VECTOR_LANES == 16
static const VecInt LOWER = {0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23};
static const VecInt UPPER = {8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
#elif VECTOR_LANES == 8
static const VecInt LOWER = {0, 8, 1, 9, 2, 10, 3, 11};
static const VecInt UPPER = {4, 12, 5, 13, 6, 14, 7, 15};
#elif VECTOR_LANES == 4
static const VecInt LOWER = {0, 4, 1, 5};
static const VecInt UPPER = {2, 6, 3, 7};
#else
static const VecInt LOWER = {0, 2};
static const VecInt UPPER = {1, 3};
#endif

VEC_INLINE Vec lower_by_turns(Vec a, Vec b)
{
    return __builtin_shuffle(a, b, LOWER);
}

VEC_INLINE Vec upper_by_turns(Vec a, Vec b)
{
    return __builtin_shuffle(a, b, UPPER);
}

/* total[i] = the sum of the lanes of v[i]; count is a multiple of VL. v is used up. */
static void sum_each(real *total, Vec *v, int count)
{
    for (int g = 0; g < count; g += VL) {
        for (int half = VL / 2; half > 0; half /= 2)
            for (int i = g; i < g + half; i++)
                v[i] = lower_by_turns(v[i], v[i + half]) + upper_by_turns(v[i], v[i + half]);
        vec_store(total + g, v[g]);
    }
}

static real finish_one(real sum, const real *c, const Finish *finish)
{
    if (finish->accumulate)
        sum += *c;
    return finish->relu && sum <= 0 ? 0 : sum;
}

/* The accumulators have names of their own, not indices: so they stay in registers. */
#define EACH_ROW(one) one(0) one(1) one(2) one(3) one(4) one(5) one(6) one(7)
#define ZERO(i) Vec sum##i##0 = {0}, sum##i##1 = {0}, sum##i##2 = {0};
/* sums start from the biases, of rows or of columns */
#define START(i)                                                                                   \
    const Vec start##i = vec_all(row_bias && m > i ? row_bias[i] : 0);                             \
    Vec sum##i##0 = col_bias ? vec_load(col_bias) : start##i,                                      \
        sum##i##1 = col_bias && vectors > 1 ? vec_load(col_bias + VL) : start##i,                  \
        sum##i##2 = col_bias && vectors > 2 ? vec_load(col_bias + 2 * VL) : start##i;
#define MULTIPLY(i, y)                                                                             \
    sum##i##0 += (y)*x0;                                                                           \
    if (vectors > 1)                                                                               \
        sum##i##1 += (y)*x1;                                                                       \
    if (vectors > 2)                                                                               \
        sum##i##2 += (y)*x2;

#define ROW_STEP(i)                                                                                \
    if (m > i) {                                                                                   \
        const Vec y = vec_all(a[i * A.row]);                                                       \
        MULTIPLY(i, y)                                                                             \
    }
/* What is left to do with the complete sums, and where they go. */
typedef struct {
    const real *row_bias, *col_bias;
    real *out;
    int64_t ldo;
    bool add, relu;
} Ending;

VEC_INLINE void leave(const Ending *e, int64_t i, int v, Vec sum)
{
    real *to = e->out + i * e->ldo + v * VL;
    if (e->add)
        sum += vec_load(to);
    if (e->relu)
        sum = vec_choose(sum <= 0, (Vec){0}, sum);
    vec_store(to, sum);
}

#define ROW_STORE(i)                                                                               \
    if (m > i) {                                                                                   \
        leave(e, i, 0, sum##i##0);                                                                 \
        if (vectors > 1)                                                                           \
            leave(e, i, 1, sum##i##1);                                                             \
        if (vectors > 2)                                                                           \
            leave(e, i, 2, sum##i##2);                                                             \
    }

enum { FEW_STRIPS = 4, DEEP = 48 /* enough steps to fetch C meanwhile */ };

static Stretches part_of(const char *at, int64_t rows, int64_t run, int64_t step)
{
    return (Stretches){at, rows, run, step, 0};
}

static int64_t lines_of(const Stretches *s)
{
    return s->rows * int_ceil_div(s->run, 64);
}

/* The next panel of B, of this block of K or the next, and a share of the next block's A. */
Ahead walk_ahead(const Walk *w, int64_t j)
{
    Ahead a = {0};
    const int64_t panels = int_ceil_div(w->N, MICRO_N), p = j / MICRO_N, size = w->size;
    const bool last = p + 1 == panels;
    if (w->M < FEW_STRIPS * MICRO_M)
        return a; /* asking would take as long as reading */
    if (!last || w->next > 0) {
        const int64_t at = last ? 0 : j + MICRO_N, k = last ? w->kc : 0;
        const int64_t n = int_min(MICRO_N, w->N - at), depth = last ? w->next : w->kc;
        a.first = w->tb ? part_of(w->B + at * w->ldb + k * size, n, depth * size, w->ldb)
                        : part_of(w->B + at * size + k * w->ldb, depth, n * size, w->ldb);
    }
    if (w->next > 0) {
        const int64_t rows = w->ta ? w->next : w->M;
        const int64_t from = rows * p / panels, to = rows * (p + 1) / panels;
        a.then =
            w->ta ? part_of(w->A + (w->kc + from) * w->lda, to - from, w->M * size, w->lda)
                  : part_of(w->A + from * w->lda + w->kc * size, to - from, w->next * size, w->lda);
    }
    const int64_t chunks = int_ceil_div(w->M, MICRO_M) * int_ceil_div(w->kc, MICRO_CHUNK);
    a.lines = int_ceil_div(lines_of(&a.first) + lines_of(&a.then), int_max(1, chunks));
    return a;
}

VEC_INLINE void rows(const int m, const int vectors, int64_t P, int64_t K, MicroA A, const real *b,
                     int64_t ldb, const Ending *e, Ahead *ahead)
{
    const real *row_bias = e->row_bias, *col_bias = e->col_bias;
    for (int i = 0; i < m && P * K >= DEEP; i++) /* by when the sums are complete, it is near */
        for (int v = 0; v < vectors; v++)
            __builtin_prefetch(e->out + i * e->ldo + v * VL, 1);
    EACH_ROW(START)
    for (int64_t p = 0; p < P; p++) {
        const real *a = A.a + p * A.outer;
        for (int64_t k = 0; k < K;) {
            for (const int64_t end = int_min(k + MICRO_CHUNK, K); k < end; k++) {
                const Vec x0 = vec_load(b), x1 = vectors > 1 ? vec_load(b + VL) : x0,
                          x2 = vectors > 2 ? vec_load(b + 2 * VL) : x0;
                EACH_ROW(ROW_STEP)
                a += A.inner;
                b += ldb;
            }
            if (ahead)
                fetch_ahead(ahead);
        }
    }
    EACH_ROW(ROW_STORE)
}

#define DOT_STEP(i)                                                                                \
    if (m > i) {                                                                                   \
        const Vec y = vec_load(a + s * step_a + i * lda + k);                                      \
        MULTIPLY(i, y)                                                                             \
    }
#define DOT_ADD(i)                                                                                 \
    if (m > i) {                                                                                   \
        sums[i] += sum##i##0;                                                                      \
        if (vectors > 1)                                                                           \
            sums[m + i] += sum##i##1;                                                              \
        if (vectors > 2)                                                                           \
            sums[2 * m + i] += sum##i##2;                                                          \
    }

/* K is a multiple of VL; adds to sums[j m + i]. */
VEC_INLINE void dots(const int m, const int vectors, int64_t S, int64_t K, const real *a,
                     int64_t lda, int64_t step_a, const real *const *b, int64_t step_b, Vec *sums)
{
    EACH_ROW(ZERO)
    for (int64_t s = 0; s < S; s++) {
        const real *b0 = b[0] + s * step_b, *b1 = b[vectors > 1] + s * step_b,
                   *b2 = b[vectors > 2 ? 2 : 0] + s * step_b;
        for (int64_t k = 0; k < K; k += VL) {
            const Vec x0 = vec_load(b0 + k), x1 = vectors > 1 ? vec_load(b1 + k) : x0,
                      x2 = vectors > 2 ? vec_load(b2 + k) : x0;
            EACH_ROW(DOT_STEP)
        }
    }
    EACH_ROW(DOT_ADD)
}

/* One case for every number of rows; `n` variants within each. */
#define CASES_OF(m, one)                                                                           \
    case m * 4 + 1:                                                                                \
        one(m, 1);                                                                                 \
        break;                                                                                     \
    case m * 4 + 2:                                                                                \
        one(m, 2);                                                                                 \
        break;                                                                                     \
    case m * 4 + 3:                                                                                \
        one(m, 3);                                                                                 \
        break;
#ifdef __AVX512F__
#define ALL_CASES(one)                                                                             \
    CASES_OF(1, one)                                                                               \
    CASES_OF(2, one)                                                                               \
    CASES_OF(3, one)                                                                               \
    CASES_OF(4, one)                                                                               \
    CASES_OF(5, one)                                                                               \
    CASES_OF(6, one)                                                                               \
    CASES_OF(7, one)                                                                               \
    CASES_OF(8, one)
#else
#define ALL_CASES(one)                                                                             \
    CASES_OF(1, one)                                                                               \
    CASES_OF(2, one)                                                                               \
    CASES_OF(3, one)                                                                               \
    CASES_OF(4, one)
#endif

void micro_rows(int m, int n, int64_t P, int64_t K, MicroA A, const real *b, int64_t ldb, real *c,
                int64_t ldc, const Finish *finish)
{
    micro_rows_ahead(m, n, P, K, A, b, ldb, c, ldc, finish, NULL);
}

void micro_rows_ahead(int m, int n, int64_t P, int64_t K, MicroA A, const real *b, int64_t ldb,
                      real *c, int64_t ldc, const Finish *finish, Ahead *ahead)
{
    _Alignas(64) real sums[MICRO_M * MICRO_N], bias[MICRO_N];
    const bool whole = n % VL == 0;
    Ending e = {finish->row_bias, finish->col_bias, c, ldc, finish->accumulate, finish->relu};
    if (!whole) {
        e = (Ending){finish->row_bias, finish->col_bias, sums, MICRO_N, false, false};
        if (finish->col_bias)
            e.col_bias = memcpy(bias, finish->col_bias, (size_t)n * sizeof *bias);
    }
#define ROWS(m, v) rows(m, v, P, K, A, b, ldb, &e, ahead)
    switch (m * 4 + (n + VL - 1) / VL) {
        ALL_CASES(ROWS)
    default:
        return;
    }
    for (int i = 0; i < m && !whole; i++)
        for (int j = 0; j < n; j++)
            c[i * ldc + j] = finish_one(sums[i * MICRO_N + j], c + i * ldc + j, finish);
}

static void dots_of(int m, int n, int64_t S, int64_t K, const real *a, int64_t lda, int64_t step_a,
                    const real *const *b, int64_t step_b, Vec *sums)
{
#define DOTS(m, n) dots(m, n, S, K, a, lda, step_a, b, step_b, sums)
    switch (m * 4 + n) {
        ALL_CASES(DOTS)
    default:
        break;
    }
}

/* The last, incomplete vector of every row, filled up with zeros. */
static void dots_of_ends(int m, int n, int64_t S, int64_t from, int64_t K, const real *a,
                         int64_t lda, int64_t step_a, const real *const *b, int64_t step_b,
                         Vec *sums)
{
    _Alignas(64) real end_a[MICRO_M * VL] = {0}, end_b[MICRO_V * VL] = {0};
    const real *const rows_b[MICRO_V] = {end_b, end_b + VL, end_b + 2 * VL};
    for (int64_t s = 0; s < S; s++) {
        for (int64_t k = from; k < K; k++) {
            for (int i = 0; i < m; i++)
                end_a[i * VL + k - from] = a[s * step_a + i * lda + k];
            for (int j = 0; j < n; j++)
                end_b[j * VL + k - from] = b[j][s * step_b + k];
        }
        dots_of(m, n, 1, VL, end_a, VL, 0, rows_b, 0, sums);
    }
}

void micro_dots(int m, int n, int64_t S, int64_t K, const real *a, int64_t lda, int64_t step_a,
                const real *const *b, int64_t step_b, real *c, int64_t ldc, const Finish *finish)
{
    enum { LISTED = (MICRO_M * MICRO_V + VL - 1) / VL * VL };
    Vec sums[LISTED] = {{0}};
    _Alignas(64) real total[LISTED];
    const int64_t whole = K / VL * VL;
    dots_of(m, n, S, whole, a, lda, step_a, b, step_b, sums);
    if (whole < K)
        dots_of_ends(m, n, S, whole, K, a, lda, step_a, b, step_b, sums);
    sum_each(total, sums, (m * n + VL - 1) / VL * VL);
    for (int j = 0; j < n; j++) {
        const real bias = finish->col_bias ? finish->col_bias[j] : 0;
        for (int i = 0; i < m; i++)
            total[j * m + i] += finish->row_bias ? finish->row_bias[i] : bias;
    }
    if (finish->accumulate || finish->relu) {
        for (int i = 0; i < m; i++)
            for (int j = 0; j < n; j++)
                c[i * ldc + j] = finish_one(total[j * m + i], c + i * ldc + j, finish);
        return;
    }
    for (int j = 0; j < n; j++)
        for (int i = 0; i < m; i++)
            c[i * ldc + j] = total[j * m + i];
}

/* log2(VL) rounds of shuffling halves. */
void micro_turn(real *out, int64_t ldo, const char *b, int64_t step)
{
    Vec v[2][VL];
    for (int i = 0; i < VL; i++)
        v[0][i] = *(const VecAnywhere *)(const void *)(b + i * step);
    int now = 0;
    for (int round = 1; round < VL; round *= 2, now = !now)
        for (int i = 0; i < VL / 2; i++) {
            v[!now][2 * i] = lower_by_turns(v[now][i], v[now][i + VL / 2]);
            v[!now][2 * i + 1] = upper_by_turns(v[now][i], v[now][i + VL / 2]);
        }
    for (int i = 0; i < VL; i++)
        vec_store(out + i * ldo, v[now][i]);
}

static void pack_turned(real *panel, int64_t K, int64_t n, const real *b, int64_t ldb)
{
    const int64_t whole_k = K / VL * VL, whole_n = n / VL * VL;
    for (int64_t j = 0; j < whole_n; j += VL)
        for (int64_t k = 0; k < whole_k; k += VL)
            micro_turn(panel + k * MICRO_N + j, MICRO_N, (const char *)(b + j * ldb + k),
                       ldb * (int64_t)sizeof *b);
    for (int64_t k = whole_k; k < K; k++)
        for (int64_t j = 0; j < whole_n; j++)
            panel[k * MICRO_N + j] = b[j * ldb + k];
    for (int64_t k = 0; k < K; k++) {
        for (int64_t j = whole_n; j < n; j++)
            panel[k * MICRO_N + j] = b[j * ldb + k];
        for (int64_t j = n; j < MICRO_N; j++)
            panel[k * MICRO_N + j] = 0;
    }
}

void micro_pack(real *panel, bool tb, int64_t K, int64_t n, const real *b, int64_t ldb)
{
    if (tb) {
        pack_turned(panel, K, n, b, ldb);
        return;
    }
    for (int64_t k = 0; k < K; k++) {
        real *row = panel + k * MICRO_N;
        const real *from = b + k * ldb;
        if (n == MICRO_N) {
            for (int v = 0; v < MICRO_V; v++)
                vec_store(row + v * VL, vec_load(from + v * VL));
            continue;
        }
        for (int64_t j = 0; j < n; j++)
            row[j] = from[j];
        for (int64_t j = n; j < MICRO_N; j++)
            row[j] = 0;
    }
}
