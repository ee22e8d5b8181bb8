/* map_functions.cu - a kernel that calls the functions of map.cuh by number. */
#include "map_functions.h"
#include "map.cuh"

static __global__ void map_function(MapFunction f, float *y, const float *a, const float *b,
                                    int64_t n)
{
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n;
         i += (int64_t)gridDim.x * blockDim.x) {
        switch (f) {
#define CASE_ONE(name)                                                                             \
    case MAP_##name:                                                                               \
        y[i] = mdl_##name(a[i]);                                                                   \
        break;
#define CASE_TWO(name)                                                                             \
    case MAP_##name:                                                                               \
        y[i] = mdl_##name(a[i], b[i]);                                                             \
        break;
            MAP_ONE(CASE_ONE)
            MAP_TWO(CASE_TWO)
        case MAP_FUNCTIONS:
            break;
        }
    }
}

extern "C" int gpu_map_function(const Gpu *gpu, MapFunction f, float *y, const float *a,
                                const float *b, int64_t n)
{
    map_function<<<gpu_blocks(n, 256), 256, 0, gpu->compute>>>(f, y, a, b, n);
    return (int)cudaGetLastError();
}
