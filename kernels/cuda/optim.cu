/* optim.cu - one step of an optimizer over the n elements of a weight, in one pass.
 *
 * A tile is some elements and one block. Besides updating them it adds up the squares of their
 * unscaled gradients in double; there are at most PARTS tiles, whose size depends on n alone,
 * and one block adds up their sums in order. The numbers of the step come from the host as the
 * host's own optimizers compute them.
 */
#include "common.cuh"

#include <math.h>

enum { BLOCK = 256, WARPS = BLOCK / WARP, PARTS = 2048, LEAST = 4096 };

typedef enum { NOTHING, SGD, ADAM } Rule;

typedef struct {
    float *w, *m, *v;
    const float *g;
    double *part_sum;
    int64_t n, part; /* elements of a tile: a multiple of LEAST */
    float scale, lr, decay, momentum, keep2, take1, take2, root, eps, step;
    bool first, nesterov;
} Update;

MDL_DEVICE void sgd_element(const Update &u, float &w, float g, float &buffer)
{
    const float d = g * u.scale + u.decay * w;
    buffer = u.momentum * buffer + d;
    w -= u.lr * (u.nesterov ? d + u.momentum * buffer : buffer);
}

MDL_DEVICE void adam_element(const Update &u, float &w, float g, float &m, float &v)
{
    const float d = g * u.scale;
    m += (d - m) * u.take1;
    v = v * u.keep2 + u.take2 * d * d;
    w = w * u.decay - u.step * (m / (mdl_sqrt(v) / u.root + u.eps));
}

/* Elements i ... i + V - 1; returns the sum of their squares. */
template <Rule RULE, int V> MDL_DEVICE double update_elements(const Update &u, int64_t i)
{
    const Floats<V> g = load_floats<V>(u.g + i);
    double sum = 0;
#pragma unroll
    for (int e = 0; e < V; e++)
        sum += (double)g.at[e] * (double)g.at[e];
    if (RULE == NOTHING)
        return sum;
    Floats<V> w = load_floats<V>(u.w + i), m = {}, v = {};
    if (RULE == ADAM || (u.m && !u.first)) /* nobody has written the buffer of a first step */
        m = load_floats<V>(u.m + i);
    if (RULE == ADAM)
        v = load_floats<V>(u.v + i);
#pragma unroll
    for (int e = 0; e < V; e++) {
        if (RULE == ADAM)
            adam_element(u, w.at[e], g.at[e], m.at[e], v.at[e]);
        else if (u.m)
            sgd_element(u, w.at[e], g.at[e], m.at[e]);
        else
            w.at[e] -= u.lr * (g.at[e] * u.scale + u.decay * w.at[e]);
    }
    store_floats(u.w + i, w);
    if (RULE == ADAM || u.m)
        store_floats(u.m + i, m);
    if (RULE == ADAM)
        store_floats(u.v + i, v);
    return sum;
}

template <Rule RULE, int V>
static __global__ void __launch_bounds__(BLOCK) update_tile(const Update u)
{
    __shared__ double part[WARPS];
    const int64_t from = blockIdx.x * u.part;
    const int64_t end = from + u.part < u.n ? from + u.part : u.n;
    double sum = 0;
    int64_t i = from + threadIdx.x * V;
    for (; i + V <= end; i += BLOCK * V)
        sum += update_elements<RULE, V>(u, i);
    if (V > 1) /* at most one element is left to a thread */
        for (i = end - end % V + threadIdx.x; i < end; i += BLOCK)
            sum += update_elements<RULE, 1>(u, i);
    sum = block_sum<WARPS>(sum, part);
    if (threadIdx.x == 0)
        u.part_sum[blockIdx.x] = sum;
}

static __global__ void __launch_bounds__(BLOCK)
    combine_squares(double *squares, const double *part_sum, int parts)
{
    __shared__ double part[WARPS];
    double sum = 0;
    for (int i = threadIdx.x; i < parts; i += BLOCK)
        sum += part_sum[i];
    sum = block_sum<WARPS>(sum, part);
    if (threadIdx.x == 0)
        *squares = sum;
}

template <Rule RULE> static int run(const Gpu *gpu, double *squares, Update *u)
{
    if (u->n <= 0)
        return (int)cudaMemsetAsync(squares, 0, sizeof *squares, gpu->compute);
    u->part = int_max(LEAST, ceil_div(ceil_div(u->n, PARTS), LEAST) * LEAST);
    const int parts = (int)ceil_div(u->n, u->part);
    u->part_sum = parts > 1 ? reinterpret_cast<double *>(gpu->scratch) : squares;
    if (is_vector(0, u->w, u->m, u->v, u->g))
        update_tile<RULE, 4><<<parts, BLOCK, 0, gpu->compute>>>(*u);
    else
        update_tile<RULE, 1><<<parts, BLOCK, 0, gpu->compute>>>(*u);
    const int status = launch_status();
    if (status != 0 || parts == 1)
        return status;
    combine_squares<<<1, BLOCK, 0, gpu->compute>>>(squares, u->part_sum, parts);
    return launch_status();
}

static Update update_new(float *w, const float *g, int64_t n)
{
    Update u = {};
    u.w = w;
    u.g = g;
    u.n = n;
    return u;
}

extern "C" int gpu_sgd_update(const Gpu *gpu, double *squares, float *w, const float *g,
                              float *velocity, int64_t n, const Hyper *h)
{
    Update u = update_new(w, g, n);
    u.m = h->momentum != 0 ? velocity : NULL;
    u.scale = (float)h->grad_scale;
    u.lr = (float)h->lr;
    u.decay = (float)h->weight_decay;
    u.momentum = (float)h->momentum;
    u.first = h->step <= 1;
    u.nesterov = h->nesterov;
    return run<SGD>(gpu, squares, &u);
}

static int adam(const Gpu *gpu, double *squares, float *w, const float *g, float *m, float *v,
                int64_t n, const Hyper *h, double decay)
{
    Update u = update_new(w, g, n);
    const double step = (double)h->step;
    u.m = m;
    u.v = v;
    u.scale = (float)h->grad_scale;
    u.take1 = (float)(1 - h->beta1);
    u.keep2 = (float)h->beta2;
    u.take2 = (float)(1 - h->beta2);
    u.root = (float)sqrt(1 - pow(h->beta2, step));
    u.step = (float)(h->lr / (1 - pow(h->beta1, step)));
    u.eps = (float)h->eps;
    u.decay = (float)decay;
    return run<ADAM>(gpu, squares, &u);
}

extern "C" int gpu_adam_update(const Gpu *gpu, double *squares, float *w, const float *g, float *m,
                               float *v, int64_t n, const Hyper *h)
{
    return adam(gpu, squares, w, g, m, v, n, h, 1);
}

extern "C" int gpu_adamw_update(const Gpu *gpu, double *squares, float *w, const float *g, float *m,
                                float *v, int64_t n, const Hyper *h)
{
    return adam(gpu, squares, w, g, m, v, n, h, 1 - h->lr * h->weight_decay);
}

extern "C" int gpu_sum_squares(const Gpu *gpu, double *squares, const float *g, int64_t n)
{
    Update u = update_new(NULL, g, n);
    return run<NOTHING>(gpu, squares, &u);
}
