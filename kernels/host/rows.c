/* rows.c - sums along memory: four vectors of partial sums, combined as a tree, so that
 * the order is fixed by the length and the loop is not bound by the latency of one sum.
 * Long rows are summed in parts, and the parts in double: the error does not grow with n.
 */
#include "vec.h"

enum { LANES = 4 * VL, PART = 1 << 13 };

VEC_INLINE real sum_four(const Vec v[4], real rest)
{
    return vec_sum((v[0] + v[1]) + (v[2] + v[3])) + rest;
}

static real part_sum(const real *x, int64_t n)
{
    Vec sum[4] = {{0}};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int v = 0; v < 4; v++)
            sum[v] += vec_load(x + i + v * VL);
    for (; i + VL <= n; i += VL)
        sum[0] += vec_load(x + i);
    real rest = 0;
    for (; i < n; i++)
        rest += x[i];
    return sum_four(sum, rest);
}

static real part_dot(const real *x, const real *y, int64_t n)
{
    Vec sum[4] = {{0}};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int v = 0; v < 4; v++)
            sum[v] += vec_load(x + i + v * VL) * vec_load(y + i + v * VL);
    for (; i + VL <= n; i += VL)
        sum[0] += vec_load(x + i) * vec_load(y + i);
    real rest = 0;
    for (; i < n; i++)
        rest += x[i] * y[i];
    return sum_four(sum, rest);
}

static real part_square_distance(const real *x, real mean, int64_t n)
{
    Vec sum[4] = {{0}};
    const Vec middle = vec_all(mean);
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (int v = 0; v < 4; v++) {
            const Vec d = vec_load(x + i + v * VL) - middle;
            sum[v] += d * d;
        }
    }
    for (; i + VL <= n; i += VL) {
        const Vec d = vec_load(x + i) - middle;
        sum[0] += d * d;
    }
    real rest = 0;
    for (; i < n; i++)
        rest += (x[i] - mean) * (x[i] - mean);
    return sum_four(sum, rest);
}

/* The sum of `part` over parts of the row. */
#define IN_PARTS(n, part)                                                                          \
    do {                                                                                           \
        double sum_ = 0;                                                                           \
        for (int64_t i = 0; i < (n); i += PART) {                                                  \
            const int64_t m = int_min(PART, (n)-i);                                                \
            sum_ += (double)(part);                                                                \
        }                                                                                          \
        return (real)sum_;                                                                         \
    } while (0)

real row_sum(const real *x, int64_t n)
{
    IN_PARTS(n, part_sum(x + i, m));
}

real row_dot(const real *x, const real *y, int64_t n)
{
    IN_PARTS(n, part_dot(x + i, y + i, m));
}

real row_square_distance(const real *x, real mean, int64_t n)
{
    IN_PARTS(n, part_square_distance(x + i, mean, m));
}

real row_max(const real *x, int64_t n)
{
    real best = x[0];
    int64_t i = 0;
    if (n >= VL) {
        Vec most = vec_load(x);
        VecInt bad = most != most;
        for (i = VL; i + VL <= n; i += VL) {
            const Vec v = vec_load(x + i);
            bad |= v != v;
            most = vec_choose(v > most, v, most);
        }
        real lane[VL];
        vec_store(lane, most);
        best = lane[0];
        for (int l = 0; l < VL; l++) {
            if (bad[l])
                return (real)__builtin_nan("");
            best = lane[l] > best ? lane[l] : best;
        }
    }
    for (; i < n; i++)
        best = x[i] > best || x[i] != x[i] ? x[i] : best;
    return best;
}
