/* check_half.h - 16-bit numbers for the kernel tests: plain conversions of their own, and
 * comparison with a reference in double.
 */
#ifndef CHECK_HALF_H
#define CHECK_HALF_H

#include "check.h"
#include "half.h"

static const HalfKind KINDS[] = {HALF_BF16, HALF_F16};
enum { KIND_COUNT = sizeof KINDS / sizeof KINDS[0] };

/* Bits of fraction, and the exponent of the smallest normal number. */
static inline int fraction_bits(HalfKind kind)
{
    return kind == HALF_BF16 ? 7 : 10;
}

static inline int least_exponent(HalfKind kind)
{
    return kind == HALF_BF16 ? -126 : -14;
}

static inline double half_value(HalfKind kind, half16 h)
{
    const int bits = fraction_bits(kind), top = (1 << (15 - bits)) - 1;
    const int exponent = h >> bits & top, fraction = h & ((1 << bits) - 1);
    const double sign = h >> 15 ? -1 : 1;
    if (exponent == top)
        return fraction ? NAN : sign * INFINITY;
    if (exponent == 0)
        return sign * ldexp(fraction, least_exponent(kind) - bits);
    return sign * ldexp(fraction + (1 << bits), least_exponent(kind) - bits + exponent - 1);
}

/* The nearest, of two the even one. x is finite. */
static inline half16 half_nearest(HalfKind kind, double x)
{
    const int bits = fraction_bits(kind), top = (1 << (15 - bits)) - 1;
    const unsigned sign = signbit(x) ? 0x8000 : 0;
    int exponent = 0;
    (void)frexp(fabs(x), &exponent);
    exponent = (int)fmax(exponent - 1, least_exponent(kind));
    const double steps = nearbyint(ldexp(fabs(x), bits - exponent));
    const unsigned size = (unsigned)steps + ((unsigned)(exponent - least_exponent(kind)) << bits);
    return (half16)(sign | (size > (unsigned)top << bits ? (unsigned)top << bits : size));
}

static inline half16 *new_halves(HalfKind kind, int64_t n, uint64_t seed)
{
    half16 *x = malloc((size_t)(n > 0 ? n : 1) * sizeof *x);
    assert_non_null(x);
    for (int64_t i = 0; i < n; i++)
        x[i] = half_nearest(kind, number_at(seed, i));
    return x;
}

static inline real *widened(HalfKind kind, const half16 *x, int64_t n)
{
    real *y = malloc((size_t)(n > 0 ? n : 1) * sizeof *y);
    assert_non_null(y);
    for (int64_t i = 0; i < n; i++)
        y[i] = (real)half_value(kind, x[i]);
    return y;
}

/* got is want, but for `tolerance` units of float, and then rounded once. */
static inline void check_rounded(HalfKind kind, const half16 *got, const double *want, int64_t n,
                                 double tolerance, const char *what)
{
    for (int64_t i = 0; i < n; i++) {
        const double slack = tolerance * 0x1p-23 * fmax(1, fabs(want[i]));
        const double low = half_value(kind, half_nearest(kind, want[i] - slack));
        const double high = half_value(kind, half_nearest(kind, want[i] + slack));
        const double value = half_value(kind, got[i]);
        if (!(value >= low && value <= high))
            fail_msg("%s: element %lld is %.9g, not %.9g (%.9g rounded)", what, (long long)i, value,
                     half_value(kind, half_nearest(kind, want[i])), want[i]);
    }
}

/* Runs `call`, which uses `team`, on teams of every size, with the `size` bytes at out set to
 * `fill` before each; they must be the same every time. */
#define SAME_ON_EVERY_TEAM(out, size, fill, call)                                                  \
    do {                                                                                           \
        char *first_ = malloc((size_t)(size) + 1);                                                 \
        assert_non_null(first_);                                                                   \
        for (int t_ = 0; t_ < TEAMS; t_++) {                                                       \
            Team *team = team_new(TEAM_SIZES[t_], false);                                          \
            assert_non_null(team);                                                                 \
            memset(out, fill, (size_t)(size));                                                     \
            call;                                                                                  \
            team_free(team);                                                                       \
            if (t_ == 0)                                                                           \
                memcpy(first_, out, (size_t)(size));                                               \
            else                                                                                   \
                assert_memory_equal(first_, out, (size_t)(size));                                  \
        }                                                                                          \
        free(first_);                                                                              \
    } while (0)

#endif
