/* initial_values.c - what weights start from.
 *
 * In: a seed, a weight's name and its kind of distribution. Out: its elements. Element e
 * is a function of (seed, name, e) alone, through Philox4x32-10 with the key
 * XXH64(name, seed) and the counter e; so it does not matter on which device, or with how
 * many threads, or in which order the weights are filled.
 */
#include <math.h>
#include <string.h>
#include <xxhash.h>

#include "trainer.h"

enum { GRAIN = 1 << 14 };

typedef struct {
    real *w;
    uint32_t key[2];
    MdlInit init;
    double value;
} Filling;

static void fill_range(void *ctx, int64_t from, int64_t to)
{
    const Filling *f = ctx;
    for (int64_t e = from; e < to; e++) {
        uint32_t r[4], counter[4] = {(uint32_t)e, (uint32_t)((uint64_t)e >> 32), 0, 0};
        philox(r, counter, f->key);
        if (f->init == MDL_UNIFORM) {
            f->w[e] = (real)(f->value * ((double)(r[0] >> 8) * 0x1p-23 - 1.0));
            continue;
        }
        /* Box-Muller; the half keeps the logarithm's argument above 0 and at most 1. */
        double u = ((double)r[0] + 0.5) * 0x1p-32, angle = (double)r[1] * 0x1p-32;
        f->w[e] = (real)(f->value * sqrt(-2 * log(u)) * cos(2 * acos(-1.0) * angle));
    }
}

void weight_initialise(Team *team, real *w, int64_t count, const char *name, uint64_t seed,
                       MdlInit init, double value)
{
    if (init == MDL_CONSTANT) {
        fill(team, w, (real)value, count);
        return;
    }
    uint64_t key = XXH64(name, strlen(name), seed);
    Filling f = {w, {(uint32_t)key, (uint32_t)(key >> 32)}, init, value};
    team_range(team, count, GRAIN, fill_range, &f);
}
