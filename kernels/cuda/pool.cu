/* pool.cu - pooling over windows of image planes.
 *
 *   forward         one thread per window; one warp where windows are large
 *   halving         2 x 2 windows side by side: two windows a thread, 16-byte accesses
 *   backward, max   the place of each window's maximum goes to scratch, then every input pixel
 *                   gathers the gradients of the windows that it won, in row-major order
 *   backward, mean  every input pixel gathers its share of each window over it
 *
 * Launches take as many planes as 31-bit indices, and the scratch, have room for.
 */
#include "common.cuh"

enum { BLOCK = 256, WARP_WINDOW = 32 /* elements from which a warp takes a window */ };

typedef struct {
    int H, W, OH, OW, kernel, stride, pad;
    Divider in_plane, in_row, out_plane, out_row, by_kernel, by_stride;
} Shape;

typedef enum { POOL_MAX, POOL_MEAN, POOL_PLACE } PoolKind;

/* The part of an output pixel's window that is inside the plane. */
typedef struct {
    int top, left; /* of the whole window */
    int from_h, to_h, from_w, to_w;
} Window;

MDL_DEVICE Window window_at(const Shape &s, int oh, int ow)
{
    Window v;
    v.top = oh * s.stride - s.pad;
    v.left = ow * s.stride - s.pad;
    v.from_h = max(0, v.top);
    v.to_h = min(s.H, v.top + s.kernel);
    v.from_w = max(0, v.left);
    v.to_w = min(s.W, v.left + s.kernel);
    return v;
}

MDL_DEVICE int window_count(const Window &v)
{
    return max(1, (v.to_h - v.from_h) * (v.to_w - v.from_w));
}

MDL_DEVICE bool is_larger(float x, float best)
{
    return x > best || x != x;
}

/* Place in the window, kh * kernel + kw, of the first maximum or the last NaN; -1: none. */
MDL_DEVICE int find_place(const Shape &s, const float *plane, const Window &v)
{
    float best = -INFINITY;
    int place = -1;
    for (int h = v.from_h; h < v.to_h; h++) {
        for (int w = v.from_w; w < v.to_w; w++) {
            const float e = plane[h * s.W + w];
            if (place < 0 || is_larger(e, best)) {
                best = e;
                place = (h - v.top) * s.kernel + w - v.left;
            }
        }
    }
    return place;
}

/* ------------------------------------------------------------------ forward */

/* y: float, or int where places are asked for */
template <PoolKind KIND>
static __global__ void __launch_bounds__(BLOCK, 4)
    pool_windows(void *__restrict__ y, const float *__restrict__ x, Shape s, int n)
{
    const int i = (int)(blockIdx.x * BLOCK + threadIdx.x);
    if (i >= n)
        return;
    int pixel, ow;
    const int plane = divide_rest(i, s.out_plane, &pixel);
    const int oh = divide_rest(pixel, s.out_row, &ow);
    const Window v = window_at(s, oh, ow);
    x += (int64_t)plane * s.H * s.W;
    if (KIND == POOL_PLACE) {
        ((int *)y)[i] = find_place(s, x, v);
        return;
    }
    float value = KIND == POOL_MAX ? -INFINITY : 0;
    for (int h = v.from_h; h < v.to_h; h++) {
        for (int w = v.from_w; w < v.to_w; w++) {
            const float e = x[h * s.W + w];
            if (KIND == POOL_MEAN)
                value += e;
            else if (is_larger(e, value))
                value = e;
        }
    }
    ((float *)y)[i] = KIND == POOL_MEAN ? value / (float)window_count(v) : value;
}

/* Whether place q with value b goes before place p with value a. */
MDL_DEVICE bool is_winner(float b, int q, float a, int p)
{
    if (p < 0 || q < 0)
        return p < 0;
    if (a != a || b != b)
        return b != b && (a == a || q > p);
    return b > a || (b == a && q < p);
}

template <PoolKind KIND>
static __global__ void __launch_bounds__(BLOCK, 4)
    pool_windows_by_warp(void *__restrict__ y, const float *__restrict__ x, Shape s, int n)
{
    const int lane = (int)threadIdx.x % WARP;
    const int i = (int)(blockIdx.x * (BLOCK / WARP) + threadIdx.x / WARP);
    if (i >= n)
        return;
    int pixel, ow;
    const int plane = divide_rest(i, s.out_plane, &pixel);
    const int oh = divide_rest(pixel, s.out_row, &ow);
    const Window v = window_at(s, oh, ow);
    x += (int64_t)plane * s.H * s.W;
    float value = KIND == POOL_MEAN ? 0 : -INFINITY;
    int place = -1;
    for (int p = lane; p < s.kernel * s.kernel; p += WARP) {
        int w;
        const int h = divide_rest(p, s.by_kernel, &w) + v.top;
        w += v.left;
        if (h < 0 || h >= s.H || w < 0 || w >= s.W)
            continue;
        const float e = x[h * s.W + w];
        if (KIND == POOL_MEAN) {
            value += e;
        } else if (place < 0 || is_larger(e, value)) {
            value = e;
            place = p;
        }
    }
    for (int step = WARP / 2; step > 0; step /= 2) {
        const float other = __shfl_xor_sync(ALL_LANES, value, step);
        if (KIND == POOL_MEAN) {
            value += other;
            continue;
        }
        const int at = __shfl_xor_sync(ALL_LANES, place, step);
        if (is_winner(other, at, value, place)) {
            value = other;
            place = at;
        }
    }
    if (lane != 0)
        return;
    if (KIND == POOL_PLACE)
        ((int *)y)[i] = place;
    else
        ((float *)y)[i] = KIND == POOL_MEAN ? value / (float)window_count(v) : value;
}

/* n: pairs of windows; W is a multiple of 4. */
template <PoolKind KIND>
static __global__ void __launch_bounds__(BLOCK, 4)
    pool_halves(float2 *__restrict__ y, const float4 *__restrict__ x, Shape s, int n)
{
    const int i = (int)(blockIdx.x * BLOCK + threadIdx.x);
    if (i >= n)
        return;
    int pair, column;
    const int plane = divide_rest(i, s.out_plane, &pair);
    const int oh = divide_rest(pair, s.out_row, &column);
    x += ((int64_t)plane * s.H + 2 * oh) * (s.W / 4) + column;
    const float4 a = x[0], b = x[s.W / 4];
    if (KIND == POOL_MEAN)
        y[i] = make_float2((a.x + a.y + b.x + b.y) / 4, (a.z + a.w + b.z + b.w) / 4);
    else
        y[i] = make_float2(larger(larger(larger(a.x, a.y), b.x), b.y),
                           larger(larger(larger(a.z, a.w), b.z), b.w));
}

/* ----------------------------------------------------------------- backward */

/* Output rows or columns whose window covers input row or column `at`. */
MDL_DEVICE int first_over(const Shape &s, int at)
{
    const int past = at + s.pad - s.kernel + 1;
    return past <= 0 ? 0 : divide(past + s.stride - 1, s.by_stride);
}

MDL_DEVICE int last_over(const Shape &s, int at, int end)
{
    return min(end - 1, divide(at + s.pad, s.by_stride));
}

/* MAX: `from` is x, whose windows are searched once more; PLACE: the places found before. */
template <PoolKind KIND>
static __global__ void __launch_bounds__(BLOCK, 4)
    pool_gather(float *__restrict__ dx, const float *__restrict__ dy, const void *__restrict__ from,
                Shape s, int n)
{
    const int i = (int)(blockIdx.x * BLOCK + threadIdx.x);
    if (i >= n)
        return;
    int pixel, w;
    const int plane = divide_rest(i, s.in_plane, &pixel);
    const int h = divide_rest(pixel, s.in_row, &w);
    const int64_t outs = (int64_t)plane * s.OH * s.OW;
    const int end_h = last_over(s, h, s.OH), end_w = last_over(s, w, s.OW);
    float sum = 0;
    for (int oh = first_over(s, h); oh <= end_h; oh++) {
        for (int ow = first_over(s, w); ow <= end_w; ow++) {
            const int64_t o = outs + oh * s.OW + ow;
            const Window v = window_at(s, oh, ow);
            if (KIND == POOL_MEAN) {
                sum += dy[o] / (float)window_count(v);
                continue;
            }
            const int place =
                KIND == POOL_PLACE
                    ? ((const int *)from)[o]
                    : find_place(s, (const float *)from + (int64_t)plane * s.H * s.W, v);
            if (place == (h - v.top) * s.kernel + w - v.left)
                sum += dy[o];
        }
    }
    dx[i] = sum;
}

/* The gradient g of the window {v0, v1; v2, v3}, to its winner. */
MDL_DEVICE void split_window(float *top0, float *top1, float *low0, float *low1, float g, float v0,
                             float v1, float v2, float v3)
{
    const float m1 = larger(v0, v1), m2 = larger(m1, v2);
    const bool at3 = is_larger(v3, m2), at2 = !at3 && is_larger(v2, m1);
    const bool at1 = !at3 && !at2 && is_larger(v1, v0);
    *top0 = at1 || at2 || at3 ? 0 : g;
    *top1 = at1 ? g : 0;
    *low0 = at2 ? g : 0;
    *low1 = at3 ? g : 0;
}

static __global__ void __launch_bounds__(BLOCK, 4)
    pool_split_halves(float4 *__restrict__ dx, const float2 *__restrict__ dy,
                      const float4 *__restrict__ x, Shape s, int n)
{
    const int i = (int)(blockIdx.x * BLOCK + threadIdx.x);
    if (i >= n)
        return;
    int pair, column;
    const int plane = divide_rest(i, s.out_plane, &pair);
    const int oh = divide_rest(pair, s.out_row, &column);
    const int64_t at = ((int64_t)plane * s.H + 2 * oh) * (s.W / 4) + column;
    const float4 a = x[at], b = x[at + s.W / 4];
    const float2 g = dy[i];
    float4 top, low;
    split_window(&top.x, &top.y, &low.x, &low.y, g.x, a.x, a.y, b.x, b.y);
    split_window(&top.z, &top.w, &low.z, &low.w, g.y, a.z, a.w, b.z, b.w);
    dx[at] = top;
    dx[at + s.W / 4] = low;
}

/* ----------------------------------------------------------------- launches */

/* false: an index of one plane would not fit. */
static bool shape_of(Shape *s, const Conv2d *c)
{
    const int64_t most = INDEX_MOST / 2;
    if (c->H > most || c->W > most || c->kernel > 32767 || c->stride > most || c->pad > most / 2 ||
        c->H * c->W > most || c->OH * c->OW > most || c->OH * c->stride > most ||
        c->OW * c->stride > most)
        return false;
    s->H = (int)c->H;
    s->W = (int)c->W;
    s->OH = (int)c->OH;
    s->OW = (int)c->OW;
    s->kernel = (int)c->kernel;
    s->stride = (int)c->stride;
    s->pad = (int)c->pad;
    s->in_plane = divider_new(c->H * c->W);
    s->in_row = divider_new(c->W);
    s->out_plane = divider_new(c->OH * c->OW);
    s->out_row = divider_new(c->OW);
    s->by_kernel = divider_new(c->kernel);
    s->by_stride = divider_new(c->stride);
    return true;
}

/* 2 x 2 windows that tile the plane, in rows of whole 16 bytes. */
static bool is_halving(const Conv2d *c)
{
    return c->kernel == 2 && c->stride == 2 && c->pad == 0 && c->W % 4 == 0 && c->H % 2 == 0;
}

static unsigned blocks_for(int64_t threads)
{
    return (unsigned)ceil_div(threads, BLOCK);
}

/* Counts pairs of windows instead of windows. */
static void count_pairs(Shape *s)
{
    s->out_plane = divider_new((int64_t)s->OH * (s->OW / 2));
    s->out_row = divider_new(s->OW / 2);
}

template <PoolKind KIND>
static int launch_windows(const Gpu *gpu, void *y, const float *x, const Shape *s, int64_t n)
{
    if (s->kernel * s->kernel >= WARP_WINDOW)
        pool_windows_by_warp<KIND>
            <<<blocks_for(n * WARP), BLOCK, 0, gpu->compute>>>(y, x, *s, (int)n);
    else
        pool_windows<KIND><<<blocks_for(n), BLOCK, 0, gpu->compute>>>(y, x, *s, (int)n);
    return launch_status();
}

template <PoolKind KIND>
static int pool_forward(const Gpu *gpu, float *y, const float *x, const Conv2d *c)
{
    const int64_t planes = c->B * c->C, in = c->H * c->W, out = c->OH * c->OW;
    Shape s;
    if (planes <= 0 || out <= 0)
        return 0;
    if (!shape_of(&s, c))
        return (int)cudaErrorInvalidValue;
    const bool halves = is_halving(c);
    if (halves)
        count_pairs(&s);
    const int64_t most = INDEX_MOST / out;
    for (int64_t from = 0; from < planes; from += most) {
        const int64_t n = int_min(most, planes - from) * out;
        float *to = y + from * out;
        const float *at = x + from * in;
        int status;
        if (halves) {
            pool_halves<KIND><<<blocks_for(n / 2), BLOCK, 0, gpu->compute>>>(
                (float2 *)to, (const float4 *)at, s, (int)(n / 2));
            status = launch_status();
        } else {
            status = launch_windows<KIND>(gpu, to, at, &s, n);
        }
        if (status)
            return status;
    }
    return 0;
}

int gpu_maxpool2d_forward(const Gpu *gpu, float *y, const float *x, const Conv2d *s)
{
    return pool_forward<POOL_MAX>(gpu, y, x, s);
}

int gpu_avgpool2d_forward(const Gpu *gpu, float *y, const float *x, const Conv2d *s)
{
    return pool_forward<POOL_MEAN>(gpu, y, x, s);
}

template <PoolKind KIND>
static int launch_gather(const Gpu *gpu, float *dx, const float *dy, const void *from,
                         const Shape *s, int64_t n)
{
    pool_gather<KIND><<<blocks_for(n), BLOCK, 0, gpu->compute>>>(dx, dy, from, *s, (int)n);
    return launch_status();
}

int gpu_maxpool2d_backward(const Gpu *gpu, float *dx, const float *dy, const float *x,
                           const Conv2d *c)
{
    const int64_t planes = c->B * c->C, in = c->H * c->W, out = c->OH * c->OW;
    const int64_t places = GPU_SCRATCH / (int64_t)sizeof(int);
    Shape s;
    if (planes <= 0 || in <= 0)
        return 0;
    if (!shape_of(&s, c))
        return (int)cudaErrorInvalidValue;
    const bool halves = is_halving(c), find = !halves && out > 0 && out <= places;
    if (halves)
        count_pairs(&s);
    int64_t most = INDEX_MOST / in;
    if (find)
        most = int_min(most, places / out);
    for (int64_t from = 0; from < planes; from += most) {
        const int64_t n = int_min(most, planes - from);
        float *to = dx + from * in;
        const float *gradient = dy + from * out, *at = x + from * in;
        int status = 0;
        if (halves) {
            pool_split_halves<<<blocks_for(n * out / 2), BLOCK, 0, gpu->compute>>>(
                (float4 *)to, (const float2 *)gradient, (const float4 *)at, s, (int)(n * out / 2));
            status = launch_status();
        } else if (find) {
            status = launch_windows<POOL_PLACE>(gpu, gpu->scratch, at, &s, n * out);
            if (!status)
                status = launch_gather<POOL_PLACE>(gpu, to, gradient, gpu->scratch, &s, n * in);
        } else {
            status = launch_gather<POOL_MAX>(gpu, to, gradient, at, &s, n * in);
        }
        if (status)
            return status;
    }
    return 0;
}

int gpu_avgpool2d_backward(const Gpu *gpu, float *dx, const float *dy, const Conv2d *c)
{
    const int64_t planes = c->B * c->C, in = c->H * c->W, out = c->OH * c->OW;
    Shape s;
    if (planes <= 0 || in <= 0)
        return 0;
    if (!shape_of(&s, c))
        return (int)cudaErrorInvalidValue;
    const int64_t most = INDEX_MOST / in;
    for (int64_t from = 0; from < planes; from += most) {
        const int64_t n = int_min(most, planes - from) * in;
        const int status =
            launch_gather<POOL_MEAN>(gpu, dx + from * in, dy + from * out, NULL, &s, n);
        if (status)
            return status;
    }
    return 0;
}
