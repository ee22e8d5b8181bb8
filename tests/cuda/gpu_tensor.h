/* gpu_tensor.h - the same tensor in host memory and on a GPU, for tests that give it to a
 * kernel of either and compare what they made of it.
 */
#ifndef GPU_TENSOR_H
#define GPU_TENSOR_H

#include "gpu_check.h"

typedef struct {
    real *host;
    float *gpu;
    int64_t n;
} Tensor;

enum { TENSORS = 32 };

/* Elements that tensors on the GPU begin after a multiple of 64 bytes: with 0 kernels may take
 * 16 bytes at a time. */
static int64_t tensor_shift;
static Tensor tensor_made[TENSORS];
static int tensor_count;

static inline Tensor tensor_add(real *host, int64_t n, bool upload)
{
    Tensor *t = &tensor_made[tensor_count++];
    assert_true(tensor_count <= TENSORS);
    *t = (Tensor){host, gpu_floats(n + tensor_shift), n};
    t->gpu += tensor_shift;
    if (upload && n > 0)
        GPU_OK(cudaMemcpyAsync(t->gpu, host, (size_t)n * sizeof *host, cudaMemcpyHostToDevice,
                               the_gpu.compute));
    GPU_OK(cudaStreamSynchronize(the_gpu.compute));
    return *t;
}

/* n numbers in [-1, 1), the same on both sides. */
static inline Tensor tensor_numbers(int64_t n, uint64_t seed)
{
    return tensor_add(new_numbers(n, seed), n, true);
}

/* Of host memory from malloc, which the tensor takes. */
static inline Tensor tensor_of(real *host, int64_t n)
{
    return tensor_add(host, n, true);
}

/* For a result: never written on the GPU. */
static inline Tensor tensor_empty(int64_t n)
{
    return tensor_add(new_numbers(n, 0), n, false);
}

static inline void tensor_check(Tensor t, double tolerance, const char *what)
{
    gpu_check(t.gpu, t.host, t.n, tolerance, what);
}

/* What the host has is put on the GPU again. */
static inline void tensor_upload(Tensor t)
{
    GPU_OK(cudaMemcpyAsync(t.gpu, t.host, (size_t)t.n * sizeof *t.host, cudaMemcpyHostToDevice,
                           the_gpu.compute));
    GPU_OK(cudaStreamSynchronize(the_gpu.compute));
}

/* The GPU's elements from ... on are to the bit those of `part`, which a call on them alone
 * made. */
static inline void tensor_check_part(Tensor t, Tensor part, int64_t from, const char *what)
{
    real *whole = new_numbers(part.n, 0);
    gpu_download(whole, t.gpu + from, (size_t)part.n * sizeof *whole);
    gpu_check(part.gpu, whole, part.n, 0, what);
    free(whole);
}

static inline void tensors_free(void)
{
    while (tensor_count > 0) {
        const Tensor *t = &tensor_made[--tensor_count];
        gpu_free(t->gpu - tensor_shift);
        free(t->host);
    }
}

#endif
