/* cublaslt_tile.h - products of matrices on the processor, in float and in double.
 *
 * Every element of a product is one chain of fused multiply-adds over k = 0, 1, ..., from 0,
 * so its bits depend on its row of op(A), its column of op(B) and k, and on nothing else: a
 * product that is computed in parts is bit-equal to the whole.
 *
 * A is repacked into panels of TILE_ROWS rows, B into panels of TILE_COLUMNS columns, both
 * with k as the slow index and padded with zeros; a tile of the result is kept in registers
 * while the kernel runs along k.
 */
#ifndef MDL_SIM_TILE_H
#define MDL_SIM_TILE_H

#include <stdint.h>

#ifdef __AVX512F__
#define TILE_VECTOR_BYTES 64
#define TILE_COLUMNS 12
#else
#define TILE_VECTOR_BYTES 32
#define TILE_COLUMNS 6
#endif
#define TILE_PANEL (TILE_COLUMNS * 20) /* columns of the result made at a time */

typedef enum { TILE_FLOAT, TILE_DOUBLE, TILE_HALF, TILE_BFLOAT } TileType;

/* Element (i, j) lies at index i * row + j * column. */
typedef struct {
    const void *data;
    TileType type;
    int64_t row, column;
} TileMatrix;

/* Elements of the packed A, of B's packed columns, and of a panel of the result, whose
 * columns lie tile_height apart. */
int64_t tile_height_f32(int64_t m);
int64_t tile_height_f64(int64_t m);
void tile_pack_f32(int64_t m, int64_t k, const TileMatrix *a, float *packed);
void tile_pack_f64(int64_t m, int64_t k, const TileMatrix *a, double *packed);
/* Columns [from, from + n) of A B, n <= TILE_PANEL, into out; scratch holds TILE_PANEL * k. */
void tile_panel_f32(int64_t m, int64_t n, int64_t k, const float *packed_a, const TileMatrix *b,
                    int64_t from, float *scratch, float *out);
void tile_panel_f64(int64_t m, int64_t n, int64_t k, const double *packed_a, const TileMatrix *b,
                    int64_t from, double *scratch, double *out);

#endif
