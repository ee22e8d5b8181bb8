/* probe.cu - whether the program holds code for the current GPU.
 *
 * All kernels are compiled for the same architectures, so one of them, an empty one, tells.
 */
#include <cuda_runtime_api.h>

#include "gpu.h"

__global__ void probe_kernel()
{
}

int gpu_probe(void)
{
    cudaFuncAttributes attributes;
    cudaError_t status = cudaFuncGetAttributes(&attributes, (const void *)probe_kernel);
    (void)cudaGetLastError();
    return (int)status;
}
