/* attention_mma.cuh - products of tiles of 16-bit numbers by tensor cores, for attention.
 *
 * A block has 64 rows of a result, each of its four warps 16 of them; the rows' own operand is kept
 * in registers as fragments of mma.m16n8k16, whole heads wide (D columns, filled up with zeros).
 * The other sequence comes in panels of N rows by asynchronous copies, PITCH apart in shared
 * memory, so that the 8 rows that ldmatrix reads at a time lie in different banks. A panel is read
 * both ways: as columns that the rows are multiplied with, and as rows that are added up with
 * weights, which are the results of the former, rounded, in the registers where they are.
 *
 * In a fragment of results [8 columns][4], lane l has rows l / 4 (elements 0 and 1) and l / 4 + 8,
 * columns l % 4 * 2 and the next one.
 */
#ifndef MDL_ATTENTION_MMA_CUH
#define MDL_ATTENTION_MMA_CUH

#include "attention.cuh"
#include "gpu_half.h"

enum { MMA_ROWS = 16, MMA_THREADS = TILE / MMA_ROWS * WARP, DEPTH = 16, GAP = 8 };

/* Positions of the other sequence at a time where not TILE; of wide heads, the columns of operands
 * at a time, and those of a result in one block. */
enum { STEP = 32, CHUNK = 64, WIDE = 128 };

static __host__ __device__ constexpr int pitch_of(int d)
{
    return d + GAP;
}

/* Row `half` (0 or 1) of a lane's two, within the tile. */
MDL_DEVICE int mma_row(int half)
{
    return (int)threadIdx.x / WARP * MMA_ROWS + half * 8 + (int)threadIdx.x % WARP / 4;
}

/* The first of its two columns of a fragment of 8. */
MDL_DEVICE int mma_column(int fragment)
{
    return fragment * 8 + (int)threadIdx.x % 4 * 2;
}

/* ------------------------------------------------------------------ instructions */

template <HalfKind KIND>
MDL_DEVICE void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
    if (KIND == HALF_BF16)
        asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, "
            "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    else
        asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, "
            "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

template <HalfKind KIND> MDL_DEVICE uint32_t round_two(float first, float second)
{
    uint32_t word;
    if (KIND == HALF_BF16)
        asm("cvt.rn.bf16x2.f32 %0, %2, %1;" : "=r"(word) : "f"(first), "f"(second));
    else
        asm("cvt.rn.f16x2.f32 %0, %2, %1;" : "=r"(word) : "f"(first), "f"(second));
    return word;
}

/* Four matrices of 8 x 8; lane l has the address of row l % 8 of matrix l / 8. */
template <bool TURNED> MDL_DEVICE void load_matrices(uint32_t (&to)[4], const half16 *row)
{
    const unsigned address = (unsigned)__cvta_generic_to_shared(row);
    if (TURNED)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                     : "r"(address));
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                     : "r"(address));
}

/* ------------------------------------------------------------------------- panels */

/* ROWS x D numbers, of which `rows` x `columns` exist. */
template <int ROWS, int D>
MDL_DEVICE void copy_halves(half16 *to, const half16 *from, int64_t ld, int rows, int columns,
                            bool vector)
{
    enum { V = 8, PITCH = pitch_of(D) };
    if (vector) {
#pragma unroll 1
        for (int i = threadIdx.x; i < ROWS * D / V; i += MMA_THREADS) {
            const int row = i / (D / V), column = i % (D / V) * V;
            const bool there = row < rows && column < columns;
            copy_async<16>(to + row * PITCH + column, there ? from + row * ld + column : from,
                           there);
        }
        return;
    }
#pragma unroll 1
    for (int i = threadIdx.x; i < ROWS * D / 2; i += MMA_THREADS) {
        const int row = i / (D / 2), column = i % (D / 2) * 2;
        const half16 *const at = from + row * ld + column;
        uint32_t word = row < rows && column < columns ? at[0] : 0;
        if (row < rows && column + 1 < columns)
            word |= (uint32_t)at[1] << 16;
        *reinterpret_cast<uint32_t *>(to + row * PITCH + column) = word;
    }
}

/* A warp's 16 rows of a tile in shared memory. */
template <int D> MDL_DEVICE void load_rows(uint32_t (&rows)[D / DEPTH][4], const half16 *tile)
{
    const int lane = threadIdx.x % WARP;
    const half16 *const at =
        tile + (threadIdx.x / WARP * MMA_ROWS + lane % 16) * pitch_of(D) + lane / 16 * 8;
#pragma unroll
    for (int k = 0; k < D / DEPTH; k++)
        load_matrices<false>(rows[k], at + k * DEPTH);
}

/* s[row][n] += row . panel[n] */
template <HalfKind KIND, int D, int N>
MDL_DEVICE void dot_rows(float (&s)[N / 8][4], const uint32_t (&rows)[D / DEPTH][4],
                         const half16 *panel)
{
    const int lane = threadIdx.x % WARP;
    const half16 *const at = panel + (lane % 8 + lane / 16 * 8) * pitch_of(D) + lane / 8 % 2 * 8;
#pragma unroll
    for (int k = 0; k < D / DEPTH; k++)
#pragma unroll
        for (int n = 0; n < N / 8; n += 2) {
            uint32_t b[4];
            load_matrices<false>(b, at + n * 8 * pitch_of(D) + k * DEPTH);
            multiply_add<KIND>(s[n], rows[k], b[0], b[1]);
            multiply_add<KIND>(s[n + 1], rows[k], b[2], b[3]);
        }
}

/* out[row][.] += sum over n of weights[row][n], rounded, panel[n][.] */
template <HalfKind KIND, int D, int N>
MDL_DEVICE void add_rows(float (&out)[D / 8][4], const float (&weights)[N / 8][4],
                         const half16 *panel)
{
    const int lane = threadIdx.x % WARP;
    const half16 *const at = panel + lane % 16 * pitch_of(D) + lane / 16 * 8;
#pragma unroll
    for (int k = 0; k < N / DEPTH; k++) {
        const float(&low)[4] = weights[2 * k], (&high)[4] = weights[2 * k + 1];
        const uint32_t a[4] = {round_two<KIND>(low[0], low[1]), round_two<KIND>(low[2], low[3]),
                               round_two<KIND>(high[0], high[1]),
                               round_two<KIND>(high[2], high[3])};
#pragma unroll
        for (int n = 0; n < D / 8; n += 2) {
            uint32_t b[4];
            load_matrices<true>(b, at + k * DEPTH * pitch_of(D) + n * 8);
            multiply_add<KIND>(out[n], a, b[0], b[1]);
            multiply_add<KIND>(out[n + 1], a, b[2], b[3]);
        }
    }
}

/* Rows of a tensor's head, from some position and column on. */
typedef struct {
    const half16 *at;
    int64_t ld;
} Rows;

enum { CHUNK_PANEL = (TILE + STEP) * (CHUNK + GAP) };

/* CHUNK columns of both operands of a product, of which `columns` exist. */
MDL_DEVICE void copy_chunks(half16 *to, Rows tile, int rows, Rows step, int step_rows, int columns,
                            bool vector)
{
    copy_halves<TILE, CHUNK>(to, tile.at, tile.ld, rows, columns, vector);
    copy_halves<STEP, CHUNK>(to + TILE * pitch_of(CHUNK), step.at, step.ld, step_rows, columns,
                             vector);
}

/* s[row][n] += row . n over these columns */
template <HalfKind KIND> MDL_DEVICE void dot_chunks(float (&s)[STEP / 8][4], const half16 *panel)
{
    uint32_t rows[CHUNK / DEPTH][4];
    load_rows<CHUNK>(rows, panel);
    dot_rows<KIND, CHUNK, STEP>(s, rows, panel + TILE * pitch_of(CHUNK));
}

/* A result's rows, times `scale`, to `to`, where `rows` x `columns` exist. */
template <HalfKind KIND, int D>
MDL_DEVICE void store_halves(half16 *to, int64_t ld, const float (&out)[D / 8][4],
                             const float (&scale)[2], int rows, int columns, bool vector)
{
#pragma unroll
    for (int half = 0; half < 2; half++)
#pragma unroll
        for (int n = 0; n < D / 8; n++) {
            const int column = mma_column(n);
            half16 *const at = to + mma_row(half) * ld + column;
            if (mma_row(half) >= rows || column >= columns)
                continue;
            const uint32_t word =
                round_two<KIND>(out[n][2 * half] * scale[half], out[n][2 * half + 1] * scale[half]);
            if (vector) {
                *reinterpret_cast<uint32_t *>(at) = word;
                continue;
            }
            at[0] = (half16)word;
            if (column + 1 < columns)
                at[1] = (half16)(word >> 16);
        }
}

#endif
