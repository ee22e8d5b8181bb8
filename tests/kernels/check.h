/* check.h - what the kernel tests share: numbers to compute with, comparison with a
 * reference in double, and the same call on teams of several sizes.
 */
#ifndef CHECK_H
#define CHECK_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels.h"

static const int TEAM_SIZES[] = {1, 2, 3, 5};
enum { TEAMS = sizeof TEAM_SIZES / sizeof TEAM_SIZES[0] };

/* Numbers in [-1, 1) from a fixed stream (splitmix64). */
static inline double number_at(uint64_t seed, int64_t i)
{
    uint64_t z = seed * 0x9E3779B97F4A7C15u + (uint64_t)i * 0xD1342543DE82EF95u + 1;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return (double)(z >> 11) * 0x1p-52 - 1;
}

static inline void set_numbers(real *x, int64_t n, uint64_t seed)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = (real)number_at(seed, i);
}

/* n numbers in memory of their own, exactly as long: sanitizers see a step too far. */
static inline real *new_numbers(int64_t n, uint64_t seed)
{
    real *x = malloc((size_t)(n > 0 ? n : 1) * sizeof *x);
    assert_non_null(x);
    set_numbers(x, n, seed);
    return x;
}

static inline double *new_doubles(int64_t n)
{
    double *x = calloc((size_t)(n > 0 ? n : 1), sizeof *x);
    assert_non_null(x);
    return x;
}

/* |got - want| <= tolerance in units of the type's epsilon, relative to max(1, |want|). */
static inline void check_close(const real *got, const double *want, int64_t n, double tolerance,
                               const char *what)
{
    const double epsilon = sizeof(real) == 4 ? 0x1p-23 : 0x1p-52;
    for (int64_t i = 0; i < n; i++) {
        const double error = fabs((double)got[i] - want[i]);
        if (!(error <= tolerance * epsilon * fmax(1, fabs(want[i]))))
            fail_msg("%s: element %lld is %.17g, not %.17g", what, (long long)i, (double)got[i],
                     want[i]);
    }
}

/* Runs `call`, which uses `team`, on teams of every size, with out[n] set to numbers of
 * `seed` before each; the bytes of out must be the same every time. */
#define ON_EVERY_TEAM(out, n, seed, call)                                                          \
    do {                                                                                           \
        real *first_ = new_numbers(n, seed);                                                       \
        for (int t_ = 0; t_ < TEAMS; t_++) {                                                       \
            Team *team = team_new(TEAM_SIZES[t_], false);                                          \
            assert_non_null(team);                                                                 \
            set_numbers(out, n, seed);                                                             \
            call;                                                                                  \
            team_free(team);                                                                       \
            if (t_ == 0)                                                                           \
                memcpy(first_, out, (size_t)(n) * sizeof *first_);                                 \
            else                                                                                   \
                assert_memory_equal(first_, out, (size_t)(n) * sizeof *first_);                    \
        }                                                                                          \
        free(first_);                                                                              \
    } while (0)

#endif
