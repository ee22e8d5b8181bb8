/* cublaslt_tile_f32.c - products of matrices in float; halves are widened while packing. */
#define REAL float
#define TILE(name) name##_f32
#define TILE_HALVES
#include "cublaslt_tile_real.h"
