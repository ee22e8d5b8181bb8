/* gpu_half_tensor.h - the same tensor of 16-bit numbers in host memory and on a GPU, and as the
 * floats that they are: what the host's kernels for float are given, whose results, rounded, are
 * what a kernel in mixed precision has to make.
 */
#ifndef GPU_HALF_TENSOR_H
#define GPU_HALF_TENSOR_H

#include "gpu_tensor.h"
#include "host/half_convert.h"

typedef struct {
    real *wide; /* exactly the 16-bit numbers; of a result: what the host computes */
    half16 *host, *gpu;
    int64_t n;
} Half;

enum { HALVES = 16 };

static HalfKind half_kind;
static Half half_made[HALVES];
static int half_count;

/* Rounds t->wide, in place and to 16 bits. */
static inline void half_narrow(const Half *t)
{
    for (int64_t i = 0; i < t->n; i++) {
        t->host[i] = half_round_one(half_kind, t->wide[i]);
        t->wide[i] = half_widen_one(half_kind, t->host[i]);
    }
}

/* Of host memory from malloc, which the tensor takes; begins tensor_shift elements after a
 * multiple of 64 bytes. */
static inline Half half_of(real *wide, int64_t n, bool upload)
{
    Half *t = &half_made[half_count++];
    const size_t bytes = (size_t)(n ? n : 1) * sizeof *t->host;
    assert_true(half_count <= HALVES);
    *t = (Half){wide, malloc(bytes), NULL, n};
    assert_non_null(t->host);
    half_narrow(t);
    void *memory = NULL;
    GPU_OK(cudaMalloc(&memory, bytes + (size_t)tensor_shift * sizeof *t->gpu));
    t->gpu = (half16 *)memory + tensor_shift;
    if (upload && n > 0)
        GPU_OK(cudaMemcpyAsync(t->gpu, t->host, bytes, cudaMemcpyHostToDevice, the_gpu.compute));
    GPU_OK(cudaStreamSynchronize(the_gpu.compute));
    return *t;
}

/* n numbers in [-1, 1), the same on both sides. */
static inline Half half_numbers(int64_t n, uint64_t seed)
{
    return half_of(new_numbers(n, seed), n, true);
}

/* For a result: never written on the GPU. */
static inline Half half_empty(int64_t n)
{
    return half_of(new_numbers(n, 0), n, false);
}

static inline void halves_free(void)
{
    while (half_count > 0) {
        const Half *t = &half_made[--half_count];
        gpu_free(t->gpu - tensor_shift);
        free(t->wide);
        free(t->host);
    }
    tensors_free();
}

/* The number that is rounded may be off by `tolerance` times the largest; the rounding must be
 * right. To the bit, but for NaN, where tolerance is 0. */
static inline void half_check(Half t, double tolerance, const char *what)
{
    half16 *got = malloc((size_t)(t.n ? t.n : 1) * sizeof *got);
    assert_non_null(got);
    gpu_download(got, t.gpu, (size_t)t.n * sizeof *got);
    double scale = 1e-3;
    for (int64_t i = 0; i < t.n; i++)
        scale = isfinite(t.wide[i]) ? fmax(scale, fabs((double)t.wide[i])) : scale;
    for (int64_t i = 0; i < t.n; i++) {
        const double want = (double)t.wide[i];
        const float is = half_widen_one(half_kind, got[i]);
        const float least =
            half_widen_one(half_kind, half_round_one(half_kind, (float)(want - tolerance * scale)));
        const float most =
            half_widen_one(half_kind, half_round_one(half_kind, (float)(want + tolerance * scale)));
        const bool same = isnan(want) ? isnan(is) : is >= least && is <= most;
        if (!same || (tolerance == 0 && !signbit(is) != !signbit(want) && !isnan(want)))
            fail_msg("%s: element %lld is %.9g (%04x), not %.9g (scale %.3g)", what, (long long)i,
                     (double)is, got[i], want, scale);
    }
    free(got);
}

/* The GPU's elements from ... on are to the bit those of `part`. */
static inline void half_check_part(Half t, Half part, int64_t from, const char *what)
{
    const size_t bytes = (size_t)part.n * sizeof *part.host;
    half16 *whole = malloc(bytes ? bytes : 1);
    assert_non_null(whole);
    gpu_download(whole, t.gpu + from, bytes);
    gpu_download(part.host, part.gpu, bytes);
    if (memcmp(whole, part.host, bytes) != 0)
        fail_msg("%s: other bits", what);
    free(whole);
}

/* Makes the call twice: the `bytes` of its result `out` on the GPU are the same. */
#define TWICE(out, bytes, call)                                                                    \
    do {                                                                                           \
        void *first_ = malloc(bytes), *second_ = malloc(bytes);                                    \
        assert_true(first_ &&second_);                                                             \
        GPU_OK(call);                                                                              \
        gpu_download(first_, out, bytes);                                                          \
        GPU_OK(call);                                                                              \
        gpu_download(second_, out, bytes);                                                         \
        assert_memory_equal(first_, second_, bytes);                                               \
        free(first_);                                                                              \
        free(second_);                                                                             \
    } while (0)

#endif
