/* profile.c - which operations a row of a profile is of, and how its times become theirs.
 *
 * In:  the Graph after differentiate, the estimated seconds of its operations, a Profile.
 * Out: seconds that add up to the measured ones in every unit and part.
 *
 * Units are told by Op.statement. A profile knows its model by a hash of the operations, so rows
 * are found by their number; their names are for people. */
#include "profile.h"

#include <inttypes.h>
#include <string.h>
#include <xxhash.h>

Part profile_part(const Op *op)
{
    return op->phase == PHASE_F ? PART_F : op->phase == PHASE_B ? PART_I : PART_W;
}

const char *profile_precision_name(Precision p)
{
    static const char *const names[] = {"f32", "bf16", "f16", "f64"};
    return names[p];
}

int *profile_units(const Graph *g, int *n)
{
    int *units = ARENA_ARRAY(g->arena, int, g->ops.n + 1), last = 0;
    for (OpId o = 0; o < g->ops.n; o++)
        last = g->ops.at[o].statement > last ? g->ops.at[o].statement : last;
    int *unit_of = ARENA_ARRAY(g->arena, int, last + 1); /* from 1; 0: not met yet */
    *n = 0;
    for (OpId o = 0; o < g->ops.n; o++) {
        int *unit = &unit_of[g->ops.at[o].statement];
        if (*unit == 0)
            *unit = ++*n;
        units[o] = *unit - 1;
    }
    return units;
}

const char *profile_graph_key(const Graph *g)
{
    Text text = {.arena = g->arena};
    text_add(&text, "");
    for (OpId o = 0; o < g->ops.n; o++) {
        const Op *op = &g->ops.at[o];
        text_printf(&text, "%s %d %d", op_name(op->kind), (int)op->phase, op->again);
        for (int i = 0; i < op->nin + op->nout; i++) {
            ValueId v = i < op->nin ? op->in[i] : op->out[i - op->nin];
            if (v == NONE)
                continue;
            const Value *x = &g->values.at[v];
            text_printf(&text, " %d%s", (int)x->type, x->batched ? "b" : "");
            for (int k = 0; k < x->shape.rank; k++)
                text_printf(&text, ".%lld", (long long)x->shape.dim[k]);
        }
        text_printf(&text, " %lld %lld %lld;", (long long)op->attr.kernel,
                    (long long)op->attr.stride, (long long)op->attr.groups);
    }
    return arena_printf(g->arena, "%016" PRIx64, (uint64_t)XXH64(text.at, text.n, 0));
}

static const char *row_name(const Graph *g, const Op *op)
{
    if (op->path)
        return op->path;
    const char *path = g->frames.at[op->frame].path;
    return arena_printf(g->arena, "%s%sline %d: %s", path ? path : "", path && path[0] ? " " : "",
                        op->at.line, op_name(op->kind));
}

ProfileRow *profile_rows(const Graph *g, int *n)
{
    const int *units = profile_units(g, n);
    ProfileRow *rows = ARENA_ARRAY(g->arena, ProfileRow, *n + 1);
    bool *has_path = ARENA_ARRAY(g->arena, bool, *n + 1);
    for (OpId o = 0; o < g->ops.n; o++) {
        ProfileRow *row = &rows[units[o]];
        const Op *op = &g->ops.at[o];
        if (row->layer && (has_path[units[o]] || !op->path))
            continue;
        row->layer = row_name(g, op);
        has_path[units[o]] = op->path != NULL;
    }
    return rows;
}

/* ------------------------------------------------------------------------- applying */

static bool differs(const Profile *p, const char *what, const char *profiles, const char *models,
                    Diag *d)
{
    if (strcmp(profiles, models) == 0)
        return false;
    diag_error(d, NO_PLACE, "%s is a profile of the %s %s, and the %s is %s", p->path, what,
               profiles, what, models);
    diag_help(d, "mdlc profile measures another");
    return true;
}

bool profile_take(const Profile *p, Model *m, Diag *d)
{
    int units = 0;
    profile_units(m->graph, &units);
    if (differs(p, "model", p->model, m->name, d) ||
        differs(p, "precision", p->precision, profile_precision_name(m->settings.train.precision),
                d))
        return false;
    if (strcmp(p->graph, profile_graph_key(m->graph)) != 0 || p->nrows != units) {
        diag_error(d, NO_PLACE,
                   "%s is a profile of %s with other layers: a const, an import, recompute or the "
                   "model itself is not what it was",
                   p->path, m->name);
        diag_help(d, "measure again with the same -D and --set");
        return false;
    }
    Devices *devices = &m->settings.devices;
    if (p->link > 0) {
        devices->link = devices->node_link = p->link;
        devices->latency = p->latency;
    }
    memcpy(devices->work, p->work, sizeof devices->work);
    return true;
}

bool profile_fits(const Profile *p, const Model *m, int devices, Diag *d)
{
    const Parallel *parallel = &m->settings.parallel;
    if (p->microbatch != parallel->microbatch) {
        diag_error(d, parallel->microbatch_at.line ? parallel->microbatch_at : NO_PLACE,
                   "%s was measured with micro-batches of %lld, and the model has micro-batches of "
                   "%lld: times do not scale",
                   p->path, (long long)p->microbatch, (long long)parallel->microbatch);
        diag_help(d, "--set parallel.microbatch=%lld, or measure again", (long long)p->microbatch);
        return false;
    }
    const int share = p->cores / devices;
    if (share == 0)
        diag_warning(d, NO_PLACE,
                     "%d devices share the %d cores that %s was measured on: they take turns, and "
                     "a step takes longer than these times say",
                     devices, p->cores, p->path);
    else if (devices != p->devices && share != p->threads)
        diag_warning(d, NO_PLACE,
                     "%s was measured with %d thread%s for each device; on %d device%s a trainer "
                     "has %d for each, unless --threads says otherwise",
                     p->path, p->threads, p->threads == 1 ? "" : "s", devices,
                     devices == 1 ? "" : "s", share);
    return true;
}

void profile_apply(const Profile *p, const Graph *g, double *seconds)
{
    int n = 0;
    const int *units = profile_units(g, &n);
    if (n != p->nrows)
        return; /* profile_take has said so */
    double *sums = ARENA_ARRAY(g->arena, double, PARTS *n + 1);
    int *counts = ARENA_ARRAY(g->arena, int, PARTS *n + 1);
    for (OpId o = 0; o < g->ops.n; o++) {
        const int at = PARTS * units[o] + (int)profile_part(&g->ops.at[o]);
        sums[at] += seconds[o];
        counts[at]++;
    }
    for (OpId o = 0; o < g->ops.n; o++) {
        const Part part = profile_part(&g->ops.at[o]);
        const int at = PARTS * units[o] + (int)part;
        const double share = sums[at] > 0 ? seconds[o] / sums[at] : 1.0 / counts[at];
        seconds[o] = p->rows[units[o]].seconds[part] * share;
    }
}
