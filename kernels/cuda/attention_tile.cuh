/* attention_tile.cuh - products of tiles of 64 x 64 in float, for attention.
 *
 * Operands come in panels by asynchronous copies, one panel ahead of the one at work: 16 columns of
 * two tiles, to be multiplied with each other (a b^T), or some whole rows of one, to be added up
 * with weights that lie in shared memory. Both are read row by row 16 bytes at a time; rows are
 * PITCH floats apart, so that neighbouring rows lie in different banks. What is outside of a tensor
 * is filled with zeros.
 *
 * A thread has ROWS rows of a tile, TILE / ROWS apart, and of scores 4 columns, 16 apart; of a
 * result groups of neighbouring columns. 16 threads share a row: half of a warp.
 */
#ifndef MDL_ATTENTION_TILE_CUH
#define MDL_ATTENTION_TILE_CUH

#include "attention.cuh"

enum { PANEL_COLUMNS = 16, PITCH = PANEL_COLUMNS + 4, PANEL = TILE * PITCH };
enum { WEIGHT_PITCH = TILE + 4, ROW_THREADS = 16, COLUMNS = TILE / ROW_THREADS };

static __host__ __device__ constexpr int tile_threads(int rows)
{
    return TILE / rows * ROW_THREADS;
}

/* Rows of a panel of whole rows, D columns wide. */
static __host__ __device__ constexpr int panel_rows(int d)
{
    return 2048 / d;
}

/* ------------------------------------------------------------------------ copies */

template <int THREADS, int ROWS, int WIDE, int V>
MDL_DEVICE void copy_rows_by(float *to, int pitch, const float *from, int64_t ld, int rows,
                             int columns)
{
#pragma unroll 1
    for (int i = threadIdx.x; i < ROWS * WIDE / V; i += THREADS) {
        const int row = i / (WIDE / V), column = i % (WIDE / V) * V;
        const bool there = row < rows && column < columns;
        copy_async<V *(int)sizeof(float)>(to + row * pitch + column,
                                          there ? from + row * ld + column : from, there);
    }
}

/* ROWS x WIDE floats to rows that are `pitch` apart; of the source `rows` x `columns` exist. */
template <int THREADS, int ROWS, int WIDE>
MDL_DEVICE void copy_rows(float *to, int pitch, const float *from, int64_t ld, int rows,
                          int columns, bool vector)
{
    if (vector)
        copy_rows_by<THREADS, ROWS, WIDE, 4>(to, pitch, from, ld, rows, columns);
    else
        copy_rows_by<THREADS, ROWS, WIDE, 1>(to, pitch, from, ld, rows, columns);
}

/* ------------------------------------------------------------------ what is whose */

template <int ROWS> MDL_DEVICE int row_of(int i)
{
    return i * (TILE / ROWS) + (int)threadIdx.x / ROW_THREADS;
}

/* Of scores. */
MDL_DEVICE int column_of(int j)
{
    return j * ROW_THREADS + (int)threadIdx.x % ROW_THREADS;
}

/* Neighbouring columns of a result that are a thread's. */
static __host__ __device__ constexpr int run_of(int d)
{
    return d == 32 ? 2 : 4;
}

/* ----------------------------------------------------------------------- products */

/* s[row][column] += a[row][.] b[column][.] over the columns of two panels */
template <int ROWS> MDL_DEVICE void dot_panel(float (&s)[ROWS][COLUMNS], const float *panel)
{
    const float *const a = panel, *const b = panel + PANEL;
#pragma unroll 1
    for (int c = 0; c < PANEL_COLUMNS; c += 4) {
        Floats<4> y[COLUMNS];
#pragma unroll
        for (int j = 0; j < COLUMNS; j++)
            y[j] = load_floats<4>(b + column_of(j) * PITCH + c);
#pragma unroll
        for (int i = 0; i < ROWS; i++) {
            const Floats<4> x = load_floats<4>(a + row_of<ROWS>(i) * PITCH + c);
#pragma unroll
            for (int j = 0; j < COLUMNS; j++)
#pragma unroll
                for (int e = 0; e < 4; e++)
                    s[i][j] = fmaf(x.at[e], y[j].at[e], s[i][j]);
        }
    }
}

/* out[row][.] += weights[row][k] rows[k][.] over the rows of a panel */
template <int D, int ROWS>
MDL_DEVICE void add_weighted(float (&out)[ROWS][D / ROW_THREADS], const float *weights,
                             const float *rows)
{
    enum { RUN = run_of(D), MINE = D / ROW_THREADS, AT_ONCE = D == 256 ? 2 : 4 };
    const float *const mine = rows + threadIdx.x % ROW_THREADS * RUN;
#pragma unroll(D == 32 ? 2 : 1)
    for (int k = 0; k < panel_rows(D); k += AT_ONCE) {
        Floats<RUN> y[AT_ONCE][MINE / RUN];
#pragma unroll
        for (int e = 0; e < AT_ONCE; e++)
#pragma unroll
            for (int j = 0; j < MINE / RUN; j++)
                y[e][j] = load_floats<RUN>(mine + (k + e) * D + j * ROW_THREADS * RUN);
#pragma unroll
        for (int i = 0; i < ROWS; i++) {
            const Floats<AT_ONCE> x =
                load_floats<AT_ONCE>(weights + row_of<ROWS>(i) * WEIGHT_PITCH + k);
#pragma unroll
            for (int e = 0; e < AT_ONCE; e++)
#pragma unroll
                for (int j = 0; j < MINE; j++)
                    out[i][j] = fmaf(x.at[e], y[e][j / RUN].at[j % RUN], out[i][j]);
        }
    }
}

/* A result's rows, times `scale`, to `to`, where `rows` x `columns` exist. */
template <int D, int ROWS>
MDL_DEVICE void store_rows(float *to, int64_t ld, const float (&out)[ROWS][D / ROW_THREADS],
                           const float (&scale)[ROWS], int rows, int columns, bool vector)
{
    enum { RUN = run_of(D), MINE = D / ROW_THREADS };
#pragma unroll
    for (int i = 0; i < ROWS; i++)
#pragma unroll
        for (int j = 0; j < MINE; j += RUN) {
            const int column = j * ROW_THREADS + (int)threadIdx.x % ROW_THREADS * RUN;
            float *const at = to + row_of<ROWS>(i) * ld + column;
            if (row_of<ROWS>(i) >= rows || column >= columns)
                continue;
            Floats<RUN> v;
#pragma unroll
            for (int e = 0; e < RUN; e++)
                v.at[e] = out[i][j + e] * scale[i];
            if (vector)
                store_floats(at, v);
            else
#pragma unroll
                for (int e = 0; e < RUN; e++)
                    if (column + e < columns)
                        at[e] = v.at[e];
        }
}

#endif
