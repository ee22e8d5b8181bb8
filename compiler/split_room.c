/* split_room.c - the cut with the smallest bottleneck of which every device has room.
 *
 * In:  an outline; what every device holds at once, and may hold.
 * Out: for every unit its device.
 *
 * Dynamic programming over prefixes of the row: best[k][j] is the smallest bottleneck of the first
 * j units on the first k devices, each of which has something and room for it. That is
 *
 *     min over i < j of  max(best[k - 1][i], work of units [i, j))   where [i, j) has room on k
 *
 * and takes devices * units² steps, fewer where a device soon has no room for more. */
#include "split.h"

#include <math.h>
#include <string.h>

enum { MOST_STEPS = 100000000 };

double split_bytes(const Outline *o, const SplitRoom *r, int unit, int device)
{
    const Unit *u = &o->units.at[unit];
    return (double)u->fixed + (double)u->kept * r->held[device] + (double)u->late * r->late[device];
}

double split_edge(const Outline *o, int unit)
{
    return unit > 0 && unit < o->units.n ? CROSSING_SLOTS * o->units.at[unit].crossing : 0;
}

bool split_within(const Outline *o, const SplitRoom *r, int *piece)
{
    const int n = o->units.n, p = o->ndevices;
    if (n < p || (double)n * n * p > MOST_STEPS)
        return false;
    Arena *a = arena_new();
    double *best = ARENA_ARRAY(a, double, (p + 1) * (n + 1));
    int *from = ARENA_ARRAY(a, int, (p + 1) * (n + 1));
    for (int i = 0; i < (p + 1) * (n + 1); i++)
        best[i] = INFINITY;
    best[0] = 0;
    for (int k = 1; k <= p; k++) {
        const double *before = &best[(k - 1) * (n + 1)];
        double *here = &best[k * (n + 1)];
        for (int i = k - 1; i < n; i++) {
            double load = 0, bytes = r->slack[k - 1] + split_edge(o, i);
            for (int j = i + 1; j <= n && !isinf(before[i]); j++) {
                load += unit_work(&o->units.at[j - 1]);
                bytes += split_bytes(o, r, j - 1, k - 1);
                if (bytes > r->memory)
                    break;
                if (bytes + split_edge(o, j) > r->memory)
                    continue;
                const double bottleneck = fmax(before[i], load);
                if (bottleneck < here[j]) {
                    here[j] = bottleneck;
                    from[k * (n + 1) + j] = i;
                }
            }
        }
    }
    const bool found = !isinf(best[p * (n + 1) + n]);
    for (int k = p, j = n; found && k > 0; k--) {
        const int i = from[k * (n + 1) + j];
        for (int u = i; u < j; u++)
            piece[u] = k - 1;
        j = i;
    }
    arena_free(a);
    return found;
}
