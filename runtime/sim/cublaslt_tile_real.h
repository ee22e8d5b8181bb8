/* cublaslt_tile_real.h - the body of cublaslt_tile_f32.c and cublaslt_tile_f64.c, which
 * define REAL and TILE(name) before. The algorithm is told in cublaslt_tile.h. */
#include <string.h>

#include "cublaslt_tile.h"
#include "half_numbers.h"

enum {
    LANES = TILE_VECTOR_BYTES / (int)sizeof(REAL),
    TILE_ROWS = 2 * LANES,
    DEPTH = 256, /* of k that stays in the caches */
};
typedef REAL Lane __attribute__((vector_size(TILE_VECTOR_BYTES), aligned(sizeof(REAL)), may_alias));

int64_t TILE(tile_height)(int64_t m)
{
    return (m + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS;
}

/* Packs `lines` lines (rows of A, columns of B) of length k, `width` of them a panel. */
#define PACK(name, type, widen)                                                                    \
    static void name(int64_t lines, int64_t width, int64_t k, const type *from, int64_t line,      \
                     int64_t along, REAL *to)                                                      \
    {                                                                                              \
        for (int64_t first = 0; first < lines; first += width, to += width * k) {                  \
            int64_t n = lines - first < width ? lines - first : width;                             \
            if (n < width)                                                                         \
                memset(to, 0, (size_t)(width * k) * sizeof(REAL));                                 \
            const type *source = from + first * line;                                              \
            if (line == 1)                                                                         \
                for (int64_t p = 0; p < k; p++)                                                    \
                    for (int64_t i = 0; i < n; i++)                                                \
                        to[p * width + i] = (REAL)widen(source[p * along + i]);                    \
            else                                                                                   \
                for (int64_t i = 0; i < n; i++)                                                    \
                    for (int64_t p = 0; p < k; p++)                                                \
                        to[p * width + i] = (REAL)widen(source[i * line + p * along]);             \
        }                                                                                          \
    }

PACK(pack_plain, REAL, )
#ifdef TILE_HALVES
PACK(pack_half, uint16_t, float_of_half)
PACK(pack_bfloat, uint16_t, float_of_bfloat)
#endif

static void pack(int64_t lines, int64_t width, int64_t k, const TileMatrix *m, int64_t from,
                 int64_t line, int64_t along, REAL *to)
{
#ifdef TILE_HALVES
    if (m->type == TILE_HALF)
        pack_half(lines, width, k, (const uint16_t *)m->data + from * line, line, along, to);
    else if (m->type == TILE_BFLOAT)
        pack_bfloat(lines, width, k, (const uint16_t *)m->data + from * line, line, along, to);
    else
#endif
        pack_plain(lines, width, k, (const REAL *)m->data + from * line, line, along, to);
}

void TILE(tile_pack)(int64_t m, int64_t k, const TileMatrix *a, REAL *packed)
{
    pack(m, TILE_ROWS, k, a, 0, a->row, a->column, packed);
}

/* One tile: c = a b, or c += a b where it is not the first part of k. */
static void tile_kernel(int64_t k, const REAL *restrict a, const REAL *restrict b, REAL *restrict c,
                        int64_t height, int go_on)
{
    Lane sum[TILE_COLUMNS][2] = {0};
    if (go_on)
        for (int j = 0; j < TILE_COLUMNS; j++) {
            sum[j][0] = *(const Lane *)(c + j * height);
            sum[j][1] = *(const Lane *)(c + j * height + LANES);
        }
    for (int64_t p = 0; p < k; p++, a += TILE_ROWS, b += TILE_COLUMNS) {
        Lane upper = *(const Lane *)a, lower = *(const Lane *)(a + LANES);
#pragma GCC unroll 12
        for (int j = 0; j < TILE_COLUMNS; j++) {
            sum[j][0] += upper * b[j];
            sum[j][1] += lower * b[j];
        }
    }
    for (int j = 0; j < TILE_COLUMNS; j++) {
        *(Lane *)(c + j * height) = sum[j][0];
        *(Lane *)(c + j * height + LANES) = sum[j][1];
    }
}

void TILE(tile_panel)(int64_t m, int64_t n, int64_t k, const REAL *packed_a, const TileMatrix *b,
                      int64_t from, REAL *scratch, REAL *out)
{
    int64_t height = TILE(tile_height)(m);
    pack(n, TILE_COLUMNS, k, b, from, b->column, b->row, scratch);
    for (int64_t p = 0; p < k || p == 0; p += DEPTH) {
        int64_t depth = k - p < DEPTH ? k - p : DEPTH;
        for (int64_t i = 0; i < m; i += TILE_ROWS)
            for (int64_t j = 0; j < n; j += TILE_COLUMNS)
                tile_kernel(depth, packed_a + i * k + p * TILE_ROWS,
                            scratch + j * k + p * TILE_COLUMNS, out + j * height + i, height,
                            p > 0);
    }
}
