/* attention_tile.h - what tiled attention is made of: products of operands in scratch, and the
 * ways there and back. One thread, no allocation.
 *
 * A tile holds queries side by side in the lanes of vectors: scores, weights and their gradients
 * are [keys][queries], so that softmax over the keys works on whole vectors. Operands are made of
 * words, the units that a product multiplies: one `real`; or, where `pairs` is set, two bf16
 * numbers that are neighbours along the summed dimension, multiplied by the processor's own
 * instruction and added in float.
 */
#ifndef MDL_ATTENTION_TILE_H
#define MDL_ATTENTION_TILE_H

#include <math.h>

#include "kernels.h"
#include "vec.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#if !defined(MDL_F64) && defined(__AVX512BF16__) && defined(__AVX512BW__)
#define TILE_PAIRS 1
#else
#define TILE_PAIRS 0
#endif

/* Rows computed together: with two vectors each they fill half of the register file. */
#ifdef __AVX512F__
enum { TILE_ROWS = 8 };
#else
enum { TILE_ROWS = 4 };
#endif

/* What the elements of a tensor are. */
typedef enum { TILE_REAL, TILE_BF16, TILE_F16 } TileFormat;

static inline int64_t tile_element_bytes(TileFormat format)
{
    return format == TILE_REAL ? (int64_t)sizeof(real) : 2;
}

/* Rows in memory that are needed soon: products fetch some of them after every block they
 * compute. More at once than a core can wait for would be dropped. */
typedef struct {
    const char *at;
    int64_t stride, bytes, rows;
} AheadRows;
typedef struct {
    AheadRows part[8];
    int parts, now;
    int64_t share; /* rows at a time */
} Ahead;

/* c[m][n] = sum over k < K of a(i, k) b(k, j), added to c where `add`; n = vectors x VL, m is a
 * multiple of TILE_ROWS. a(i, k) is the word at a[i lda + k] where `along`, otherwise at
 * a[k lda + i]; b(k, j) is the word at b[k ldb + j]. */
typedef struct {
    bool pairs, along, add;
    int64_t lda, ldb, ldc;
    Ahead *ahead;
    const real *fading; /* n factors of the columns of c before it is added to; may be NULL */
} TileProduct;
void tile_product(const TileProduct *p, int64_t m, int64_t vectors, int64_t K, const real *a,
                  const real *b, real *c);

/* out[columns][rows] = in[rows][columns], in words; both numbers are multiples of VL. */
void tile_turn(real *out, int64_t ldo, const real *in, int64_t ldi, int64_t rows, int64_t columns);

/* out[i][j] = the pair of elements in[2 i][j] and in[2 i + 1][j]; columns and ldi count words
 * of `in`, which are pairs along its rows: out has rows / 2 rows of 2 x columns words. */
void tile_pair_rows(real *out, const real *in, int64_t ldi, int64_t rows, int64_t columns);

/* Rows of tensors, `stride` elements apart in `x` or `y`, `words` apart in scratch. Reading: n
 * elements of each, widened unless `pairs`, then zeros up to `words` words. */
void tile_read_rows(TileFormat format, bool pairs, real *y, int64_t words, const void *x,
                    int64_t stride, int64_t rows, int64_t n);
/* part[i][VL]: sums of products of the elements of row i of x and y, in lanes that are left to
 * add up; zeros from `rows` on to VL. n is a multiple of VL. */
void tile_dot_rows(TileFormat format, real *part, const void *x, const void *y, int64_t stride,
                   int64_t rows, int64_t n);
/* Writing: times scale, rounded; where `add`, added to y, which is TILE_REAL. */
void tile_write_rows(TileFormat format, void *y, int64_t stride, const real *x, int64_t words,
                     int64_t rows, int64_t n, real scale, bool add);

typedef uint32_t VecBits __attribute__((vector_size(MDL_VECTOR_BYTES), may_alias));

VEC_INLINE Vec tile_max(Vec a, Vec b)
{
#if defined(__AVX512F__) && defined(MDL_F64)
    return (Vec)_mm512_max_pd((__m512d)a, (__m512d)b);
#elif defined(__AVX512F__)
    return (Vec)_mm512_max_ps((__m512)a, (__m512)b);
#else
    return vec_choose(a > b, a, b);
#endif
}

#if TILE_PAIRS
/* The lanes of a row and of the next as bf16, each side by side. */
VEC_INLINE Vec tile_round_rows(Vec row, Vec next)
{
    return (Vec)_mm512_cvtne2ps_pbh((__m512)next, (__m512)row);
}

VEC_INLINE void tile_store_rows(real *row, real *next, Vec rows)
{
    _mm256_storeu_si256((void *)row, _mm512_castsi512_si256((__m512i)rows));
    _mm256_storeu_si256((void *)next, _mm512_extracti64x4_epi64((__m512i)rows, 1));
}

/* The same by turns: pairs of one lane. */
VEC_INLINE Vec tile_pair_lanes(Vec rows)
{
    static const int16_t turns[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                      8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    return (Vec)_mm512_permutexvar_epi16(_mm512_loadu_si512(turns), (__m512i)rows);
}
#endif

/* Vectors that are computed side by side, step by step: alone, each step would wait for the one
 * before. */
enum { TILE_SIDE = 4 };
#define TILE_EACH _Pragma("GCC unroll 4") for (int k = 0; k < TILE_SIDE; k++)

/* 2^x of TILE_SIDE vectors within 2 units in the last place, for x < 127; 2^-126 for all x below
 * -126. */
VEC_INLINE void tile_exp2(Vec *x)
{
#ifdef MDL_F64
    real lane[VL];
    for (int k = 0; k < TILE_SIDE; k++) {
        vec_store(lane, x[k]);
        for (int i = 0; i < VL; i++)
            lane[i] = exp2(lane[i]);
        x[k] = vec_load(lane);
    }
#else
    /* x = n + r, |r| <= 1/2: a polynomial in r that is 1 at 0; n goes to its exponent */
    const Vec shift = vec_all(12582912); /* 1.5 * 2^23: adding it rounds to an integer */
    Vec shifted[TILE_SIDE], r[TILE_SIDE], p[TILE_SIDE];
    TILE_EACH x[k] = tile_max(vec_all(-126), x[k]);
    TILE_EACH shifted[k] = x[k] + shift;
    TILE_EACH r[k] = shifted[k] - shift;
    TILE_EACH r[k] = x[k] - r[k];
    TILE_EACH p[k] = r[k] * 0x1.5bba14p-10f + 0x1.3cea88p-7f;
    TILE_EACH p[k] = p[k] * r[k] + 0x1.c6b752p-5f;
    TILE_EACH p[k] = p[k] * r[k] + 0x1.ebf9bcp-3f;
    TILE_EACH p[k] = p[k] * r[k] + 0x1.62e42ap-1f;
    TILE_EACH p[k] = p[k] * r[k] + 1.0f;
    TILE_EACH x[k] = (Vec)((VecBits)p[k] + ((VecBits)shifted[k] << 23));
#endif
}

#endif
