/* gpu_check.h - what the tests of the CUDA kernels share: a GPU, memory on it, and comparison
 * with what the host's kernels compute. Includes tests/kernels/check.h.
 */
#ifndef GPU_CHECK_H
#define GPU_CHECK_H

#include "check.h"
#include "gpu.h"

#include <stdio.h>

static Gpu the_gpu;
static Team *the_team;

/* A status of 0, or the test fails with its text. */
static inline void check_status(int status, const char *call, const char *file, int line)
{
    if (status) {
        print_error("%s: %s\n", call, gpu_status_text(status));
        _fail(file, line);
    }
}
#define GPU_OK(call) check_status((int)(call), #call, __FILE__, __LINE__)
#define BLAS_OK(call)                                                                              \
    do {                                                                                           \
        const int blas_ = (int)(call);                                                             \
        check_status(blas_ ? GPU_BLAS + blas_ : 0, #call, __FILE__, __LINE__);                     \
    } while (0)

/* For cmocka_run_group_tests. */
static inline int gpu_open(void **state)
{
    (void)state;
    Gpu *g = &the_gpu;
    the_team = team_new(2, false);
    assert_non_null(the_team);
    GPU_OK(cudaSetDevice(0));
    GPU_OK(cudaStreamCreateWithFlags(&g->compute, cudaStreamNonBlocking));
    GPU_OK(cudaMalloc((void **)&g->scratch, GPU_SCRATCH));
    GPU_OK(cudaMalloc((void **)&g->workspace, GPU_BLAS_WORKSPACE));
    BLAS_OK(cublasCreate(&g->blas));
    BLAS_OK(cublasSetStream(g->blas, g->compute));
    BLAS_OK(cublasSetWorkspace(g->blas, g->workspace, GPU_BLAS_WORKSPACE));
    BLAS_OK(cublasLtCreate(&g->lt));
    return 0;
}

static inline int gpu_close(void **state)
{
    (void)state;
    Gpu *g = &the_gpu;
    BLAS_OK(cublasLtDestroy(g->lt));
    BLAS_OK(cublasDestroy(g->blas));
    GPU_OK(cudaFree(g->workspace));
    GPU_OK(cudaFree(g->scratch));
    GPU_OK(cudaStreamDestroy(g->compute));
    team_free(the_team);
    return 0;
}

/* A copy of host memory on the GPU; NULL of NULL. */
static inline void *gpu_upload(const void *from, size_t bytes)
{
    void *to = NULL;
    if (!from)
        return NULL;
    GPU_OK(cudaMalloc(&to, bytes ? bytes : 1));
    GPU_OK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, the_gpu.compute));
    GPU_OK(cudaStreamSynchronize(the_gpu.compute));
    return to;
}

static inline float *gpu_numbers(const real *from, int64_t n)
{
    return gpu_upload(from, (size_t)n * sizeof *from);
}

/* n floats on the GPU that were never written. */
static inline float *gpu_floats(int64_t n)
{
    void *to = NULL;
    GPU_OK(cudaMalloc(&to, (size_t)(n ? n : 1) * sizeof(float)));
    return to;
}

static inline void gpu_download(void *to, const void *from, size_t bytes)
{
    GPU_OK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, the_gpu.compute));
    GPU_OK(cudaStreamSynchronize(the_gpu.compute));
}

static inline void gpu_free(void *memory)
{
    GPU_OK(cudaFree(memory));
}

/* The n floats at `got` on the GPU are those of `want`, to `tolerance` times the largest of
 * them and of 1e-3; to the bit where tolerance is 0. */
static inline void gpu_check(const float *got, const real *want, int64_t n, double tolerance,
                             const char *what)
{
    float *host = malloc((size_t)(n ? n : 1) * sizeof *host);
    assert_non_null(host);
    gpu_download(host, got, (size_t)n * sizeof *host);
    double scale = 1e-3;
    for (int64_t i = 0; i < n; i++)
        scale = isfinite(want[i]) ? fmax(scale, fabs((double)want[i])) : scale;
    for (int64_t i = 0; i < n; i++) {
        const double error = fabs((double)host[i] - (double)want[i]);
        const bool same = host[i] == want[i] || (isnan(host[i]) && isnan(want[i]));
        if (!same && !(error <= tolerance * scale))
            fail_msg("%s: element %lld is %.9g, not %.9g (scale %.3g)", what, (long long)i,
                     (double)host[i], (double)want[i], scale);
    }
    free(host);
}

#endif
