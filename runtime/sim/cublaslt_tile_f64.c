/* cublaslt_tile_f64.c - products of matrices in double. */
#define REAL double
#define TILE(name) name##_f64
#include "cublaslt_tile_real.h"
