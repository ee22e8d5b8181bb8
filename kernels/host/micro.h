/* micro.h - matrix products small enough to stay in registers and caches; what gemm,
 * linear, matmul and convolution are made of. One thread, no allocation.
 */
#ifndef MDL_MICRO_H
#define MDL_MICRO_H

#include "kernels.h"
#include "vec.h"

/* A product is computed MICRO_M rows by MICRO_N columns at a time: 24 accumulators, which
 * fills a 32-register file with the operands; half the rows where there are 16. */
#ifdef __AVX512F__
enum { MICRO_M = 8 };
#else
enum { MICRO_M = 4 };
#endif
enum { MICRO_V = 3, MICRO_N = MICRO_V * VL };

/* What an element is besides its sum of products. */
typedef struct {
    const real *row_bias; /* added to row i; may be NULL */
    const real *col_bias; /* added to column j; may be NULL; not both */
    bool accumulate;      /* add to what C holds */
    bool relu;            /* last of all: max(0, element) */
} Finish;

/* The finish of a part of C that begins at row i and column j. */
static inline Finish finish_from(const Finish *finish, int64_t i, int64_t j)
{
    Finish f = *finish;
    if (f.row_bias)
        f.row_bias += i;
    if (f.col_bias)
        f.col_bias += j;
    return f;
}

/* Element (i, p, k) of A is at a[i * row + p * outer + k * inner]. */
typedef struct {
    const real *a;
    int64_t row, outer, inner;
} MicroA;

/* c[m,n] = sum over p < P, k < K of A(i, p, k) * b[(p K + k) ldb + j], m <= MICRO_M,
 * n <= MICRO_N. Whole vectors of b are read: up to VL - 1 elements after the n-th of a row
 * must be readable. The order of the sum is that of (p, k) whatever m and n are. */
void micro_rows(int m, int n, int64_t P, int64_t K, MicroA A, const real *b, int64_t ldb, real *c,
                int64_t ldc, const Finish *finish);

/* Memory that will be read soon: `rows` stretches of `run` bytes, `step` bytes apart. */
typedef struct {
    const char *at;
    int64_t rows, run, step;
    int64_t done; /* bytes of the first stretch that were asked for */
} Stretches;

/* What to bring nearer meanwhile: `lines` cache lines in every MICRO_CHUNK steps along K. */
typedef struct {
    Stretches first, then;
    int64_t lines;
} Ahead;

enum { MICRO_CHUNK = 16 };

/* Asks for one line of s; false when there are none left. */
static inline bool fetch_line(Stretches *s)
{
    if (s->rows <= 0)
        return false;
    __builtin_prefetch(s->at + s->done, 0, 2);
    s->done += 64;
    if (s->done >= s->run) {
        s->done = 0;
        s->at += s->step;
        s->rows--;
    }
    return true;
}

static inline void fetch_ahead(Ahead *ahead)
{
    for (int64_t i = 0; i < ahead->lines; i++)
        if (!fetch_line(&ahead->first) && !fetch_line(&ahead->then))
            return;
}

/* A part of a product that packs one panel of B at a time: M rows, N columns and kc of K, with
 * `next` of K to follow. Strides in bytes. */
typedef struct {
    bool ta, tb;
    int64_t M, N, kc, next;
    const char *A;
    int64_t lda;
    const char *B;
    int64_t ldb;
    int64_t size; /* of an element */
} Walk;

/* What will be read after the panel of column j. */
Ahead walk_ahead(const Walk *w, int64_t j);

/* The same as micro_rows; `ahead` may be NULL. */
void micro_rows_ahead(int m, int n, int64_t P, int64_t K, MicroA A, const real *b, int64_t ldb,
                      real *c, int64_t ldc, const Finish *finish, Ahead *ahead);

/* c[i,j] = sum over s < S, k < K of a[i lda + s step_a + k] * b[j][s step_b + k],
 * m <= MICRO_M, n <= MICRO_V: dot products along memory. */
void micro_dots(int m, int n, int64_t S, int64_t K, const real *a, int64_t lda, int64_t step_a,
                const real *const *b, int64_t step_b, real *c, int64_t ldc, const Finish *finish);

/* panel[K][MICRO_N] = columns [0, n) of op(B), zeros after them. */
void micro_pack(real *panel, bool tb, int64_t K, int64_t n, const real *b, int64_t ldb);

/* The same for VL columns and VL of K, numbers of sizeof(real) bytes whatever they are:
 * out[k ldo + j] = the k-th at b + j step. */
void micro_turn(real *out, int64_t ldo, const char *b, int64_t step);

/* Bytes of scratch that block_product needs. */
enum { BLOCK_SCRATCH = 8 << 16 };

/* C[M,N] = finish(op(A) op(B)) on the calling thread, as in gemm(). `scratch` holds
 * BLOCK_SCRATCH bytes, aligned to 64. */
void block_product(void *scratch, bool ta, bool tb, int64_t M, int64_t N, int64_t K, const real *A,
                   int64_t lda, const real *B, int64_t ldb, real *C, int64_t ldc,
                   const Finish *finish);

/* The same shared by a team, in tiles that depend on (M, N, K) alone; a tile's rows go to the
 * tail, which may be NULL, when the tile is complete. */
void tiled_product(Team *team, bool ta, bool tb, int64_t M, int64_t N, int64_t K, const real *A,
                   int64_t lda, const real *B, int64_t ldb, real *C, int64_t ldc,
                   const Finish *finish, const Tail *tail);

/* Tiles of about equal size, m x n, in rows of tiles. */
typedef struct {
    int64_t m, n, count;
} Tiles;

enum { TILE_M = 256 /* rows that share a packed panel of B */, TILE_N = 8 * MICRO_N };

/* A product to cut; pack_a and pack_b are what it costs to bring an element of a tile near, in
 * multiplications. */
typedef struct {
    int64_t M, N, K;
    double pack_a, pack_b;
    int64_t most_rows; /* of a tile */
} Cut;

/* How a product is cut, by its shape alone. */
Tiles product_tiles(const Cut *cut);
/* The most rows of a tile of A, `depth` elements of `size` bytes each. */
int64_t product_rows(int64_t depth, int64_t size);

#endif
