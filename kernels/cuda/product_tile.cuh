/* product_tile.cuh - a tile of a matrix product, held in the registers of a block.
 *
 * C[BM,BN] += A[BK,BM]^T B[BK,BN], both operands in shared memory with the depth outermost.
 * A warp is 4 lanes high and 8 wide; a lane owns TM x TN elements, as squares of 4 x 4 that
 * lie 16 rows and 32 columns apart: eight lanes read 128 bytes in a row, and nothing
 * conflicts. Every element is one chain of fused multiply-adds in the order of the depth, so
 * its bits do not depend on which tile it is in, or of what size.
 */
#ifndef MDL_PRODUCT_TILE_CUH
#define MDL_PRODUCT_TILE_CUH

#include "common.cuh"

/* MINIMUM: blocks that should fit a multiprocessor at a time. */
template <int BM_, int BN_, int BK_, int TM_, int TN_, int MINIMUM_> struct ProductTile {
    enum {
        BM = BM_,
        BN = BN_,
        BK = BK_,
        TM = TM_,
        TN = TN_,
        MINIMUM = MINIMUM_,
        WARPS_N = BN / (8 * TN),
        THREADS = BM * BN / TM / TN
    };
    float c[TM][TN];
    int row, column; /* of c[0][0] in the tile */

    __device__ __forceinline__ ProductTile(void)
    {
        const int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
        row = warp / WARPS_N * (4 * TM) + lane / 8 * 4;
        column = warp % WARPS_N * (8 * TN) + lane % 8 * 4;
#pragma unroll
        for (int i = 0; i < TM; i++)
#pragma unroll
            for (int j = 0; j < TN; j++)
                c[i][j] = 0;
    }

    /* How far c[i][] and c[][j] are from c[0][0]. */
    static __device__ __forceinline__ int below(int i)
    {
        return i / 4 * 16 + i % 4;
    }
    static __device__ __forceinline__ int beside(int j)
    {
        return j / 4 * 32 + j % 4;
    }

    template <int PITCH_A, int PITCH_B>
    __device__ __forceinline__ void multiply(const float (*a)[PITCH_A], const float (*b)[PITCH_B])
    {
#pragma unroll
        for (int k = 0; k < BK; k++) {
            Floats<4> part_a[TM / 4], part_b[TN / 4];
#pragma unroll
            for (int i = 0; i < TM / 4; i++)
                part_a[i] = load_floats<4>(&a[k][row + 16 * i]);
#pragma unroll
            for (int j = 0; j < TN / 4; j++)
                part_b[j] = load_floats<4>(&b[k][column + 32 * j]);
#pragma unroll
            for (int i = 0; i < TM; i++)
#pragma unroll
                for (int j = 0; j < TN; j++)
                    c[i][j] = fmaf(part_a[i / 4].at[i % 4], part_b[j / 4].at[j % 4], c[i][j]);
        }
    }
};

#endif
