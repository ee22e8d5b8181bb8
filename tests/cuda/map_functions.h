/* map_functions.h - every function of map.cuh over arrays on a GPU: y = f(a, b). */
#ifndef MAP_FUNCTIONS_H
#define MAP_FUNCTIONS_H

#include "gpu.h"

#ifdef __cplusplus
extern "C" {
#endif

/* X(function) of one argument, and of two */
#define MAP_ONE(X)                                                                                 \
    X(exp)                                                                                         \
    X(log)                                                                                         \
    X(log1p_unit)                                                                                  \
    X(tanh) X(sqrt) X(abs) X(sigmoid) X(relu) X(silu) X(silu_grad) X(gelu) X(gelu_grad)
#define MAP_TWO(X) X(bce) X(bce_grad) X(relu_grad) X(sign_of)

#define MAP_ID(name) MAP_##name,
typedef enum { MAP_ONE(MAP_ID) MAP_TWO(MAP_ID) MAP_FUNCTIONS } MapFunction;
#undef MAP_ID

int gpu_map_function(const Gpu *gpu, MapFunction f, float *y, const float *a, const float *b,
                     int64_t n);

#ifdef __cplusplus
}
#endif

#endif
