/* rope.c - rotary position embedding (Su et al. 2021): pairs of elements turn by angles that grow
 * with the position.
 *
 * A tile is some positions of all samples, which share the sines and cosines: those are computed
 * once for a tile, into scratch, then every head's row is turned.
 */
#include <math.h>

#include "vec.h"
#include "vmath.h"

#ifndef MDL_F64
#include "half_convert.h"
#endif

/* Positions of a tile, and elements of their tables at most (one position always fits). */
enum { POSITIONS = 16, TABLE = 1 << 15 };

typedef enum { ROPE_REAL, ROPE_BF16, ROPE_F16 } RopeFormat;

typedef struct {
    Team *team;
    RopeFormat format;
    void *y;
    const void *x;
    int64_t B, t, heads, width, positions;
    double base;
    bool inverse;
} Rope;

/* cosine and sine of angle[n], n <= the elements of a row's half; the angles are used up. */
static void turns_of(real *restrict cosine, real *restrict sine, double *restrict angle, int64_t n)
{
#ifdef MDL_F64
    for (int64_t i = 0; i < n; i++) {
        cosine[i] = cos(angle[i]);
        sine[i] = sin(angle[i]);
    }
#else
    /* angle = quarter pi / 2 + r, |r| <= pi / 4: reduced in double, polynomials in float */
    for (int64_t i = 0; i < n; i++) {
        const double shift = 0x1.8p52; /* adding it rounds to an integer, in the lowest bits */
        const double shifted = angle[i] * 0x1.45f306dc9c883p-1 + shift;
        int64_t bits;
        memcpy(&bits, &shifted, sizeof bits);
        const float r = (float)(angle[i] - (shifted - shift) * 0x1.921fb54442d18p0), z = r * r;
        float s = mdl_fma(-0x1.994e4ep-13f, z, 0x1.11076p-7f);
        s = mdl_fma(s, z, -0x1.555546p-3f);
        s = mdl_fma(s * z, r, r);
        float c = mdl_fma(0x1.99eb42p-16f, z, -0x1.6c0c32p-10f);
        c = mdl_fma(c, z, 0x1.55554ap-5f);
        c = mdl_fma(c * z, z, mdl_fma(z, -0.5f, 1.0f));
        const bool odd = bits & 1;
        const float cos_size = odd ? s : c, sin_size = odd ? c : s;
        cosine[i] = (bits + 1) & 2 ? -cos_size : cos_size;
        sine[i] = bits & 2 ? -sin_size : sin_size;
    }
#endif
}

/* One head's row, turned; y == x is allowed. */
static void turn_row(real *y, const real *x, const real *cosine, const real *sine, int64_t half)
{
    int64_t c = 0;
    for (; c + VL <= half; c += VL) {
        const Vec a = vec_load(x + c), b = vec_load(x + c + half);
        const Vec s = vec_load(sine + c), k = vec_load(cosine + c);
        vec_store(y + c, a * k - b * s);
        vec_store(y + c + half, b * k + a * s);
    }
    for (; c < half; c++) {
        const real a = x[c], b = x[c + half];
        y[c] = a * cosine[c] - b * sine[c];
        y[c + half] = b * cosine[c] + a * sine[c];
    }
}

#ifndef MDL_F64
static void turn_half_row(HalfKind kind, half16 *y, const half16 *x, const real *cosine,
                          const real *sine, int64_t half, real *row)
{
#if MDL_HALF_VECTORS
    if (half % VL == 0) {
        for (int64_t c = 0; c < half; c += VL) {
            const Vec a = half_widen_vector(kind, x + c), b = half_widen_vector(kind, x + c + half);
            const Vec s = vec_load(sine + c), k = vec_load(cosine + c);
            half_round_vector(kind, y + c, a * k - b * s);
            half_round_vector(kind, y + c + half, b * k + a * s);
        }
        return;
    }
#endif
    half_widen_row(kind, row, x, 2 * half);
    turn_row(row, row, cosine, sine, half);
    half_round_row(kind, y, row, 2 * half);
}
#endif

static void turn_heads(const Rope *r, int64_t at, const real *cosine, const real *sine, real *row)
{
    const int64_t w = r->width;
    for (int64_t h = 0; h < r->heads; h++, at += w) {
        if (r->format == ROPE_REAL) {
            turn_row((real *)r->y + at, (const real *)r->x + at, cosine, sine, w / 2);
            continue;
        }
#ifndef MDL_F64
        turn_half_row(r->format == ROPE_BF16 ? HALF_BF16 : HALF_F16, (half16 *)r->y + at,
                      (const half16 *)r->x + at, cosine, sine, w / 2, row);
#else
        (void)row;
#endif
    }
}

static void rope_tile(void *ctx, int64_t tile)
{
    const Rope *r = ctx;
    const int64_t half = r->width / 2, first = tile * r->positions;
    const int64_t positions = int_min(r->positions, r->t - first);
    double *frequency = team_scratch(r->team), *angle = frequency + half;
    real *table = (real *)(void *)(angle + half), *row = table + positions * r->width;
    for (int64_t c = 0; c < half; c++)
        frequency[c] = pow(r->base, -2.0 * (double)c / (double)r->width);
    for (int64_t i = 0; i < positions; i++) {
        const double position = (double)(r->inverse ? -(first + i) : first + i);
        for (int64_t c = 0; c < half; c++)
            angle[c] = position * frequency[c];
        turns_of(table + i * r->width, table + i * r->width + half, angle, half);
    }
    for (int64_t b = 0; b < r->B; b++)
        for (int64_t i = 0; i < positions; i++)
            turn_heads(r, (b * r->t + first + i) * r->heads * r->width, table + i * r->width,
                       table + i * r->width + half, row);
}

static void rope_of(Rope *r)
{
    if (r->B <= 0 || r->t <= 0 || r->heads <= 0 || r->width <= 0)
        return;
    r->positions = int_max(1, int_min(POSITIONS, TABLE / r->width));
    team_run(r->team, int_ceil_div(r->t, r->positions), rope_tile, r);
}

void rope(Team *team, real *y, const real *x, int64_t B, int64_t t, int64_t heads, int64_t width,
          double base, bool inverse)
{
    rope_of(&(Rope){team, ROPE_REAL, y, x, B, t, heads, width, 0, base, inverse});
}

#ifndef MDL_F64
void rope_half(Team *team, HalfKind kind, half16 *y, const half16 *x, int64_t B, int64_t t,
               int64_t heads, int64_t width, double base, bool inverse)
{
    const RopeFormat format = kind == HALF_BF16 ? ROPE_BF16 : ROPE_F16;
    rope_of(&(Rope){team, format, y, x, B, t, heads, width, 0, base, inverse});
}
#endif
