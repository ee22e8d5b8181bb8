/* attention_tile.c - the inner loops of attention.
 *
 * Products keep TILE_ROWS x 2 vectors of the result in registers and walk along the summed
 * dimension: two vectors of b times one word of a for each row. Compiled with
 * -ffp-contract=fast, as micro.c: a * b + c is one fused operation.
 */
#include "attention_tile.h"

#include <string.h>

#ifndef MDL_F64
#include "half_convert.h"
#endif

typedef uint32_t HalfPair __attribute__((may_alias));

/* The accumulators have names of their own, not indices: so they stay in registers. */
#ifdef __AVX512F__
#define EACH_ROW(one) one(0) one(1) one(2) one(3) one(4) one(5) one(6) one(7)
#else
#define EACH_ROW(one) one(0) one(1) one(2) one(3)
#endif

VEC_INLINE Vec multiply_add(const bool pairs, Vec sum, Vec y, Vec x)
{
#if TILE_PAIRS
    if (pairs)
        return (Vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)x, (__m512bh)y);
#else
    (void)pairs;
#endif
    return sum + y * x;
}

/* A word in every lane. */
VEC_INLINE Vec word_all(const bool pairs, const real *a)
{
#if TILE_PAIRS
    if (pairs)
        return (Vec)_mm512_set1_epi32((int)*(const HalfPair *)(const void *)a);
#else
    (void)pairs;
#endif
    return vec_all(*a);
}

/* What a block is: TILE_ROWS rows of two vectors or of one, or twice the rows of one. */
typedef enum { WIDE, NARROW, TALL } BlockKind;

VEC_INLINE Vec start(bool add, const real *c, Vec fading)
{
    Vec sum = {0};
    if (add)
        sum = vec_load(c) * fading;
    return sum;
}

#define SECOND(i) (kind == TALL ? (i + TILE_ROWS) * ldc : i * ldc + VL)
#define START(i)                                                                                   \
    Vec sum##i##0 = start(add, c + i * ldc, fading0);                                              \
    Vec sum##i##1 = start(add && kind != NARROW, c + SECOND(i), fading1);
#define STEP(i)                                                                                    \
    {                                                                                              \
        const Vec y = word_all(pairs, a + i * next);                                               \
        sum##i##0 = multiply_add(pairs, sum##i##0, y, x0);                                         \
        if (kind == WIDE)                                                                          \
            sum##i##1 = multiply_add(pairs, sum##i##1, y, x1);                                     \
        if (kind == TALL)                                                                          \
            sum##i##1 =                                                                            \
                multiply_add(pairs, sum##i##1, word_all(pairs, a + (i + TILE_ROWS) * next), x0);   \
    }
#define STORE(i)                                                                                   \
    vec_store(c + i * ldc, sum##i##0);                                                             \
    if (kind != NARROW)                                                                            \
        vec_store(c + SECOND(i), sum##i##1);

VEC_INLINE void block(const bool pairs, const bool along, const BlockKind kind,
                      const TileProduct *p, int64_t K, const real *a, const real *b, int64_t column,
                      real *c)
{
    const int64_t lda = p->lda, ldb = p->ldb, ldc = p->ldc, next = along ? lda : 1;
    const bool add = p->add;
    Vec fading0 = vec_all(1), fading1 = fading0;
    if (p->fading) {
        fading0 = vec_load(p->fading + column);
        fading1 = kind == WIDE ? vec_load(p->fading + column + VL) : fading0;
    }
    b += column;
    c += column;
    EACH_ROW(START)
#pragma GCC unroll 4
    for (int64_t k = 0; k < K; k++) {
        const Vec x0 = vec_load(b), x1 = kind == WIDE ? vec_load(b + VL) : x0;
        EACH_ROW(STEP)
        a += along ? 1 : lda;
        b += ldb;
    }
    EACH_ROW(STORE)
}

VEC_INLINE void fetch_ahead(Ahead *ahead)
{
    for (int64_t n = ahead->share; n > 0 && ahead->now < ahead->parts; n--) {
        AheadRows *part = &ahead->part[ahead->now];
        for (int64_t i = 0; i < part->bytes; i += 64)
            __builtin_prefetch(part->at + i, 0, 2);
        part->at += part->stride;
        if (--part->rows == 0)
            ahead->now++;
    }
}

VEC_INLINE void blocks(const bool pairs, const bool along, const TileProduct *p, int64_t m,
                       int64_t vectors, int64_t K, const real *a, const real *b, real *c)
{
    const int64_t step = along ? p->lda : 1;
    int64_t v = 0;
    for (; v + 2 <= vectors; v += 2)
        for (int64_t i = 0; i < m; i += TILE_ROWS) {
            block(pairs, along, WIDE, p, K, a + i * step, b, v * VL, c + i * p->ldc);
            fetch_ahead(p->ahead);
        }
    if (v == vectors)
        return;
    int64_t i = 0;
    for (; i + 2 * TILE_ROWS <= m; i += 2 * TILE_ROWS) {
        block(pairs, along, TALL, p, K, a + i * step, b, v * VL, c + i * p->ldc);
        fetch_ahead(p->ahead);
    }
    if (i < m)
        block(pairs, along, NARROW, p, K, a + i * step, b, v * VL, c + i * p->ldc);
}

void tile_product(const TileProduct *p, int64_t m, int64_t vectors, int64_t K, const real *a,
                  const real *b, real *c)
{
    if (TILE_PAIRS && p->pairs && p->along)
        blocks(true, true, p, m, vectors, K, a, b, c);
    else if (TILE_PAIRS && p->pairs)
        blocks(true, false, p, m, vectors, K, a, b, c);
    else if (p->along)
        blocks(false, true, p, m, vectors, K, a, b, c);
    else
        blocks(false, false, p, m, vectors, K, a, b, c);
}

/* Lanes of two vectors by turns: of their lower halves, of their upper halves. */
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

/* log2(VL) rounds of interleaving halves; integers, so that pairs of bf16 pass unchanged. */
static void turn_square(real *out, int64_t ldo, const real *in, int64_t ldi)
{
    VecInt v[2][VL];
    for (int i = 0; i < VL; i++)
        v[0][i] = (VecInt)vec_load(in + i * ldi);
    int now = 0;
#pragma GCC unroll 4
    for (int round = 1; round < VL; round *= 2, now = !now)
        for (int i = 0; i < VL / 2; i++) {
            v[!now][2 * i] = __builtin_shuffle(v[now][i], v[now][i + VL / 2], LOWER);
            v[!now][2 * i + 1] = __builtin_shuffle(v[now][i], v[now][i + VL / 2], UPPER);
        }
    for (int i = 0; i < VL; i++)
        vec_store(out + i * ldo, (Vec)v[now][i]);
}

void tile_turn(real *out, int64_t ldo, const real *in, int64_t ldi, int64_t rows, int64_t columns)
{
    for (int64_t i = 0; i < rows; i += VL)
        for (int64_t j = 0; j < columns; j += VL)
            turn_square(out + j * ldo + i, ldo, in + i * ldi + j, ldi);
}

void tile_pair_rows(real *out, const real *in, int64_t ldi, int64_t rows, int64_t columns)
{
    const HalfPair *from = (const void *)in;
    HalfPair *to = (void *)out;
    for (int64_t i = 0; i < rows; i += 2, to += 2 * columns) {
        const HalfPair *restrict x = from + i * ldi, *restrict y = x + ldi;
        for (int64_t j = 0; j < columns; j++) {
            to[2 * j] = (x[j] & 0xffff) | y[j] << 16;
            to[2 * j + 1] = x[j] >> 16 | (y[j] & 0xffff0000);
        }
    }
}

typedef uint8_t Bytes __attribute__((vector_size(MDL_VECTOR_BYTES), aligned(1), may_alias));

static void copy_row(char *y, const char *x, int64_t bytes)
{
    int64_t i = 0;
    for (; i + MDL_VECTOR_BYTES <= bytes; i += MDL_VECTOR_BYTES)
        *(Bytes *)(y + i) = *(const Bytes *)(x + i);
    if (i < bytes)
        memcpy(y + i, x + i, (size_t)(bytes - i));
}

void tile_read_rows(TileFormat format, bool pairs, real *y, int64_t words, const void *x,
                    int64_t stride, int64_t rows, int64_t n)
{
    const int64_t element = tile_element_bytes(format);
    const bool copied = pairs || format == TILE_REAL;
    const int64_t bytes = n * (copied ? element : (int64_t)sizeof *y);
    const int64_t rest = words * (int64_t)sizeof *y - bytes;
    for (int64_t i = 0; i < rows; i++, y += words) {
        const char *from = (const char *)x + i * stride * element;
        if (copied)
            copy_row((char *)y, from, bytes);
#ifndef MDL_F64
        else
            half_widen_row(format == TILE_BF16 ? HALF_BF16 : HALF_F16, y, (const void *)from, n);
#endif
        if (rest > 0)
            memset((char *)y + bytes, 0, (size_t)rest);
    }
}

/* VL elements of a tensor. */
VEC_INLINE Vec load_of(const TileFormat format, const char *x)
{
#if !defined(MDL_F64) && MDL_HALF_VECTORS
    if (format != TILE_REAL)
        return half_widen_vector(format == TILE_BF16 ? HALF_BF16 : HALF_F16, (const void *)x);
#elif !defined(MDL_F64)
    if (format != TILE_REAL) {
        real wide[VL];
        half_widen_row(format == TILE_BF16 ? HALF_BF16 : HALF_F16, wide, (const void *)x, VL);
        return vec_load(wide);
    }
#endif
    (void)format;
    return vec_load((const void *)x);
}

VEC_INLINE void store_of(const TileFormat format, char *y, Vec x)
{
#if !defined(MDL_F64) && MDL_HALF_VECTORS
    if (format != TILE_REAL) {
        half_round_vector(format == TILE_BF16 ? HALF_BF16 : HALF_F16, (void *)y, x);
        return;
    }
#elif !defined(MDL_F64)
    if (format != TILE_REAL) {
        real wide[VL];
        vec_store(wide, x);
        half_round_row(format == TILE_BF16 ? HALF_BF16 : HALF_F16, (void *)y, wide, VL);
        return;
    }
#endif
    (void)format;
    vec_store((void *)y, x);
}

/* n elements, less than VL, filled up with zeros; and back. */
static Vec load_end(TileFormat format, const char *x, int64_t n)
{
    real end[VL] = {0};
    memcpy(end, x, (size_t)(n * tile_element_bytes(format)));
    return load_of(format, (const char *)end);
}

static void store_end(TileFormat format, char *y, Vec x, int64_t n)
{
    real end[VL];
    store_of(format, (char *)end, x);
    memcpy(y, end, (size_t)(n * tile_element_bytes(format)));
}

VEC_INLINE void dot_rows(const TileFormat format, real *part, const char *x, const char *y,
                         int64_t stride, int64_t rows, int64_t n)
{
    const int64_t element = tile_element_bytes(format);
    for (int64_t i = 0; i < VL; i++) {
        Vec sum = {0};
        for (int64_t c = 0; c < n && i < rows; c += VL)
            sum += load_of(format, x + (i * stride + c) * element) *
                   load_of(format, y + (i * stride + c) * element);
        vec_store(part + i * VL, sum);
    }
}

void tile_dot_rows(TileFormat format, real *part, const void *x, const void *y, int64_t stride,
                   int64_t rows, int64_t n)
{
    if (format == TILE_REAL)
        dot_rows(TILE_REAL, part, x, y, stride, rows, n);
    else if (format == TILE_BF16)
        dot_rows(TILE_BF16, part, x, y, stride, rows, n);
    else
        dot_rows(TILE_F16, part, x, y, stride, rows, n);
}

VEC_INLINE void write_rows(const TileFormat format, char *y, int64_t stride, const real *x,
                           int64_t words, int64_t rows, int64_t n, real scale, bool add)
{
    const int64_t element = tile_element_bytes(format), whole = n / VL * VL;
    const Vec factor = vec_all(scale);
    for (int64_t i = 0; i < rows; i++, x += words, y += stride * element) {
        for (int64_t c = 0; c < whole; c += VL) {
            Vec out = vec_load(x + c) * factor;
            if (add)
                out += load_of(format, y + c * element);
            store_of(format, y + c * element, out);
        }
        if (whole < n) {
            char *end = y + whole * element;
            Vec out = vec_load(x + whole) * factor;
            if (add)
                out += load_end(format, end, n - whole);
            store_end(format, end, out, n - whole);
        }
    }
}

void tile_write_rows(TileFormat format, void *y, int64_t stride, const real *x, int64_t words,
                     int64_t rows, int64_t n, real scale, bool add)
{
    if (format == TILE_REAL)
        write_rows(TILE_REAL, y, stride, x, words, rows, n, scale, add);
    else if (format == TILE_BF16)
        write_rows(TILE_BF16, y, stride, x, words, rows, n, scale, add);
    else
        write_rows(TILE_F16, y, stride, x, words, rows, n, scale, add);
}
