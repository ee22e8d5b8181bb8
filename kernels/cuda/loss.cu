/* loss.cu - cross entropy and accuracy of rows of logits.
 *
 * Every row is scanned once (rows.cuh), by as many warps as its length asks for. A sample's loss
 * is the mean over its rows: where it has more than one, the rows' losses go to scratch and are
 * added up in double, in an order that their number alone decides. Logits are float or of 16 bits.
 */
#include "gpu_half.h"
#include "rows.cuh"

enum { SHORT = 1024 /* elements of a row that a warp takes */, FEW = 256 /* rows, likewise */ };
enum { ROOM = (int)(GPU_SCRATCH / sizeof(float)) };

/* out[row] = -log softmax(logits)[y]; lse[row] */
template <int WARPS, int V, class Row>
static __global__ void __launch_bounds__(row_threads(WARPS))
    loss_rows(float *__restrict__ out, float *__restrict__ lse, Row logits,
              const int32_t *__restrict__ y, int64_t rows, int64_t n)
{
    __shared__ float part_most[WARPS], part_sum[WARPS];
    const int64_t row = row_here<WARPS>();
    if (row >= rows)
        return;
    const Row x = logits + row * n;
    const float target = load_floats<1>(x + y[row]).at[0];
    const Online o = online_row<WARPS, V>(x, n, part_most, part_sum);
    if (threadIdx.x != 0)
        return;
    const float over = mdl_log(o.sum);
    lse[row] = o.most + over;
    /* not lse - x: what all logits have in common would round it */
    out[row] = (o.most - target) + over;
}

/* out[row] = 1 where no other logit comes before the one at y, else 0 */
template <int WARPS, int V, class Row>
static __global__ void __launch_bounds__(row_threads(WARPS))
    accuracy_rows(float *__restrict__ out, Row logits, const int32_t *__restrict__ y, int64_t rows,
                  int64_t n)
{
    __shared__ int part[WARPS];
    const int64_t row = row_here<WARPS>();
    if (row >= rows)
        return;
    const Row x = logits + row * n;
    const int at = y[row];
    const float target = load_floats<1>(x + at).at[0];
    int before = target != target;
    for (int64_t from = 0; from < n; from += loads(V) * V * WARP * WARPS) {
        Floats<V> v[loads(V)];
        load_row<WARPS>(v, x, from, n, -INFINITY);
#pragma unroll
        for (int u = 0; u < loads(V); u++)
#pragma unroll
            for (int e = 0; e < V; e++) {
                const int64_t i = from + (u * WARP * WARPS + (int)threadIdx.x) * V + e;
                const float other = v[u].at[e];
                before |= other > target || other != other || (other == target && i < at);
            }
    }
    before = block_sum<WARPS>(before, part);
    if (threadIdx.x == 0)
        out[row] = before == 0 ? 1 : 0;
}

/* out[s] (+)= scale x the sum of value[s, 0] ... value[s, n - 1] */
template <int WARPS>
static __global__ void __launch_bounds__(row_threads(WARPS))
    mean_rows(float *__restrict__ out, const float *__restrict__ value, int64_t samples, int n,
              double scale, bool add)
{
    __shared__ double part[WARPS];
    const int64_t sample = row_here<WARPS>();
    if (sample >= samples)
        return;
    double sum = 0;
    for (int i = threadIdx.x; i < n; i += WARP * WARPS)
        sum += (double)value[sample * n + i];
    sum = block_sum<WARPS>(sum, part) * scale;
    if (threadIdx.x == 0)
        out[sample] = (float)(add ? (double)out[sample] + sum : sum);
}

/* launch_rows(to, first, rows) writes the values of rows first, ... to `to`. */
template <class LaunchRows>
static int mean_of_samples(const Gpu *gpu, float *out, int64_t samples, int64_t inner,
                           LaunchRows launch_rows)
{
    if (inner == 1)
        return launch_rows(out, 0, samples);
    float *const value = reinterpret_cast<float *>(gpu->scratch);
    const int64_t piece = int_min(inner, ROOM), several = ROOM / piece;
    for (int64_t s = 0; s < samples; s += several) {
        const int64_t count = int_min(several, samples - s);
        for (int64_t from = 0; from < inner; from += piece) {
            const int n = (int)int_min(piece, inner - from);
            int status = launch_rows(value, s * inner + from, count * n);
            if (status != 0)
                return status;
            if (n <= FEW)
                mean_rows<1><<<row_blocks<1>(count), row_block<1>(), 0, gpu->compute>>>(
                    out + s, value, count, n, 1.0 / (double)inner, from > 0);
            else
                mean_rows<8><<<row_blocks<8>(count), row_block<8>(), 0, gpu->compute>>>(
                    out + s, value, count, n, 1.0 / (double)inner, from > 0);
            status = launch_status();
            if (status != 0)
                return status;
        }
    }
    return 0;
}

/* Floats that no kernel writes. */
typedef const float *__restrict__ Floats32;

template <class Row>
static int cross_entropy_forward(const Gpu *gpu, float *loss, float *lse, Row logits,
                                 const int32_t *y, int64_t samples, int64_t inner, int64_t n)
{
    enum { V = VECTOR<Row> };
    if (samples <= 0 || inner <= 0 || n <= 0)
        return 0;
    const bool vector = is_vector<V>(n, logits);
    const auto launch = [=](float *to, int64_t first, int64_t rows) {
        const auto kernel = n <= SHORT ? vector ? loss_rows<1, V, Row> : loss_rows<1, 1, Row>
                            : vector ? loss_rows<8, V, Row>
                                       : loss_rows<8, 1, Row>;
        const unsigned blocks = n <= SHORT ? row_blocks<1>(rows) : row_blocks<8>(rows);
        const dim3 block = n <= SHORT ? row_block<1>() : row_block<8>();
        kernel<<<blocks, block, 0, gpu->compute>>>(to, lse + first, logits + first * n, y + first,
                                                   rows, n);
        return launch_status();
    };
    return mean_of_samples(gpu, loss, samples, inner, launch);
}

extern "C" int gpu_cross_entropy_forward(const Gpu *gpu, float *loss, float *lse,
                                         const float *logits, const int32_t *y, int64_t samples,
                                         int64_t inner, int64_t n)
{
    return cross_entropy_forward<Floats32>(gpu, loss, lse, logits, y, samples, inner, n);
}

extern "C" int gpu_cross_entropy_forward_half(const Gpu *gpu, HalfKind kind, float *loss,
                                              float *lse, const half16 *logits, const int32_t *y,
                                              int64_t samples, int64_t inner, int64_t n)
{
    const ConstHalves x = {logits, kind};
    return cross_entropy_forward(gpu, loss, lse, x, y, samples, inner, n);
}

template <class Row>
static int accuracy_forward(const Gpu *gpu, float *acc, Row logits, const int32_t *y,
                            int64_t samples, int64_t inner, int64_t n)
{
    enum { V = VECTOR<Row> };
    if (samples <= 0 || inner <= 0 || n <= 0)
        return 0;
    const bool vector = is_vector<V>(n, logits);
    const auto launch = [=](float *to, int64_t first, int64_t rows) {
        const auto kernel = n <= SHORT
                                ? vector ? accuracy_rows<1, V, Row> : accuracy_rows<1, 1, Row>
                            : vector ? accuracy_rows<8, V, Row>
                                     : accuracy_rows<8, 1, Row>;
        const unsigned blocks = n <= SHORT ? row_blocks<1>(rows) : row_blocks<8>(rows);
        const dim3 block = n <= SHORT ? row_block<1>() : row_block<8>();
        kernel<<<blocks, block, 0, gpu->compute>>>(to, logits + first * n, y + first, rows, n);
        return launch_status();
    };
    return mean_of_samples(gpu, acc, samples, inner, launch);
}

extern "C" int gpu_accuracy_forward(const Gpu *gpu, float *acc, const float *logits,
                                    const int32_t *y, int64_t samples, int64_t inner, int64_t n)
{
    return accuracy_forward<Floats32>(gpu, acc, logits, y, samples, inner, n);
}

extern "C" int gpu_accuracy_forward_half(const Gpu *gpu, HalfKind kind, float *acc,
                                         const half16 *logits, const int32_t *y, int64_t samples,
                                         int64_t inner, int64_t n)
{
    return accuracy_forward(gpu, acc, ConstHalves{logits, kind}, y, samples, inner, n);
}

/* A warp takes loads(V) x V x WARP elements of a row; dlogits may be logits. */
template <int V, class Out, class Row>
static __global__ void __launch_bounds__(row_threads(1))
    loss_back(Out dlogits, Row logits, const float *__restrict__ lse, const int32_t *__restrict__ y,
              const float *__restrict__ dloss, int64_t pieces, int64_t n, Divider cuts,
              Divider inner)
{
    const int64_t piece = row_here<1>();
    if (piece >= pieces)
        return;
    const int64_t row = divide_large(piece, cuts);
    const int64_t from = (piece - row * cuts.by) * loads(V) * V * WARP;
    const float scale = dloss[divide_large(row, inner)] / (float)inner.by, log_sum = lse[row];
    const int64_t target = y[row];
    Floats<V> v[loads(V)];
    load_row<1>(v, logits + row * n, from, n, 0);
#pragma unroll
    for (int u = 0; u < loads(V); u++)
#pragma unroll
        for (int e = 0; e < V; e++) {
            const int64_t i = from + (u * WARP + (int)threadIdx.x) * V + e;
            v[u].at[e] = mdl_exp(v[u].at[e] - log_sum) * scale - (i == target ? scale : 0);
        }
    store_row<1>(dlogits + row * n, v, from, n);
}

template <class Out, class Row>
static int cross_entropy_backward(const Gpu *gpu, Out dlogits, Row logits, const float *lse,
                                  const int32_t *y, const float *dloss, int64_t samples,
                                  int64_t inner, int64_t n)
{
    enum { V = VECTOR<Row> };
    if (samples <= 0 || inner <= 0 || n <= 0)
        return 0;
    const bool vector = is_vector<V>(n, dlogits, logits);
    const int64_t cuts = ceil_div(n, WARP * (vector ? loads(V) * V : LOADS));
    const int64_t pieces = samples * inner * cuts;
    const auto kernel = vector ? loss_back<V, Out, Row> : loss_back<1, Out, Row>;
    kernel<<<row_blocks<1>(pieces), row_block<1>(), 0, gpu->compute>>>(
        dlogits, logits, lse, y, dloss, pieces, n, divider_new(cuts), divider_new(inner));
    return launch_status();
}

extern "C" int gpu_cross_entropy_backward(const Gpu *gpu, float *dlogits, const float *logits,
                                          const float *lse, const int32_t *y, const float *dloss,
                                          int64_t samples, int64_t inner, int64_t n)
{
    return cross_entropy_backward(gpu, dlogits, logits, lse, y, dloss, samples, inner, n);
}

extern "C" int gpu_cross_entropy_backward_half(const Gpu *gpu, HalfKind kind, half16 *dlogits,
                                               const half16 *logits, const float *lse,
                                               const int32_t *y, const float *dloss,
                                               int64_t samples, int64_t inner, int64_t n)
{
    const Halves to = {dlogits, kind};
    const ConstHalves from = {logits, kind};
    return cross_entropy_backward(gpu, to, from, lse, y, dloss, samples, inner, n);
}
