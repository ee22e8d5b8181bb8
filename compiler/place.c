/* place.c - which chunk and which device every operation is on.
 *
 * In:  the Graph with its backward operations; the piece of the model that each forward operation
 *      is in (split.c).
 * Out: Placement. Chunks are numbered in the order of the data; activations flow from lower
 *      to higher chunks only, gradients from higher to lower only.
 *
 * A piece whose operations are contiguous in the order of the data is one chunk; where the data
 * comes back to it, there is another one.
 */
#include "schedule_file.h"

typedef struct {
    Graph *g;
    int nforward; /* forward operations come first */
    int ndevices;
    int *piece;           /* [forward ops] */
    const int *device_of; /* [pieces] */
} Placer;

static void follow_operands(Placer *p, const bool *metric_only)
{
    const Graph *g = p->g;
    for (OpId o = 0; o < p->nforward; o++) {
        const Op *op = &g->ops.at[o];
        OpId latest = NONE;
        for (int i = 0; i < op->nin; i++)
            if (op->in[i] != NONE && g->values.at[op->in[i]].def > latest)
                latest = g->values.at[op->in[i]].def;
        if (metric_only[o] && op->device == NONE && latest != NONE)
            p->piece[o] = p->piece[latest];
    }
}

/* Groups the forward operations into chunks: from the first that is left, every
 * operation of its piece whose operands are in chunks already. */
static void make_chunks(const Placer *p, Placement *pl, int *chunk_device)
{
    const Graph *g = p->g;
    int left = p->nforward, first = 0;
    for (OpId o = 0; o < p->nforward; o++)
        pl->chunk_of[o] = NONE;
    while (left > 0) {
        while (pl->chunk_of[first] != NONE)
            first++;
        int chunk = pl->nchunks++, piece = p->piece[first];
        chunk_device[chunk] = p->device_of[piece];
        for (OpId o = first; o < p->nforward; o++) {
            if (pl->chunk_of[o] != NONE || p->piece[o] != piece)
                continue;
            bool ready = true;
            const Op *op = &g->ops.at[o];
            for (int i = 0; i < op->nin && ready; i++) {
                OpId def = op->in[i] == NONE ? NONE : g->values.at[op->in[i]].def;
                ready = def == NONE || pl->chunk_of[def] != NONE;
            }
            if (ready)
                pl->chunk_of[o] = chunk, left--;
        }
    }
}

/* A backward operation is where its forward operation is, or where the latest of its
 * operands is made (backward runs from the last chunk to the first). */
static void place_backward(const Placer *p, Placement *pl)
{
    const Graph *g = p->g;
    for (OpId o = p->nforward; o < g->ops.n; o++) {
        const Op *op = &g->ops.at[o];
        int chunk = pl->chunk_of[op->forward];
        for (int i = 0; i < op->nin; i++) { /* a recompute region that is cut */
            ValueId was = op->in[i] == NONE ? NONE : g->original[op->in[i]];
            if (was != NONE && pl->chunk_of[g->values.at[was].def] != chunk)
                op->in[i] = was;
        }
        for (int i = 0; i < op->nin; i++) {
            OpId def = op->in[i] == NONE ? NONE : g->values.at[op->in[i]].def;
            if (def != NONE && def >= p->nforward && pl->chunk_of[def] < chunk)
                chunk = pl->chunk_of[def];
        }
        pl->chunk_of[o] = chunk;
    }
}

/* Numbers the devices that have work, in the order of their names. */
static void number_devices(const Placer *p, Placement *pl, const int *chunk_device, const Model *m,
                           Diag *d)
{
    Arena *a = p->g->arena;
    int *index = ARENA_ARRAY(a, int, p->ndevices);
    for (int c = 0; c < pl->nchunks; c++)
        index[chunk_device[c]] = 1;
    pl->device_number = ARENA_ARRAY(a, int, p->ndevices);
    for (int k = 0; k < p->ndevices; k++) {
        if (index[k]) {
            index[k] = pl->ndevices;
            pl->device_number[pl->ndevices++] = k;
        } else {
            diag_warning(d, m->settings.devices.at, "%s[%d] has nothing to do",
                         m->settings.devices.name, k);
            index[k] = NONE;
        }
    }
    pl->device_of = ARENA_ARRAY(a, int, pl->nchunks);
    for (int c = 0; c < pl->nchunks; c++)
        pl->device_of[c] = index[chunk_device[c]];
    /* a weight lives where it was put, or with its first use */
    const Graph *g = p->g;
    pl->weight_owner = ARENA_ARRAY(a, int, g->weights.n + 1);
    for (int w = 0; w < g->weights.n; w++) {
        int k = g->weights.at[w].device;
        pl->weight_owner[w] = k != NONE && k < p->ndevices ? index[k] : NONE;
    }
    for (OpId o = 0; o < g->ops.n; o++)
        for (int i = 0; i < g->ops.at[o].nin; i++) {
            ValueId v = g->ops.at[o].in[i];
            if (v == NONE || g->values.at[v].kind != VALUE_WEIGHT)
                continue;
            int w = g->values.at[v].index;
            if (pl->weight_owner[w] == NONE)
                pl->weight_owner[w] = pl->device_of[pl->chunk_of[o]];
        }
}

static void find_roots(const Graph *g, Placement *pl)
{
    pl->root = ARENA_ARRAY(g->arena, ValueId, g->values.n);
    for (ValueId v = 0; v < g->values.n; v++)
        pl->root[v] = v;
    for (OpId o = 0; o < g->ops.n; o++) {
        const Op *op = &g->ops.at[o];
        if (op->kind == OP_RESHAPE)
            pl->root[op->out[0]] = pl->root[op->in[0]];
    }
}

Placement *place(Model *m, const Split *s, Diag *d)
{
    Graph *g = m->graph;
    Arena *a = g->arena;
    Placer p = {.g = g,
                .nforward = s->nforward,
                .ndevices = s->ndevices,
                .device_of = s->device_of,
                .piece = arena_copy(a, s->piece, sizeof *s->piece * (size_t)(s->nforward + 1))};
    Placement *pl = ARENA_NEW(a, Placement);
    pl->chunk_of = ARENA_ARRAY(a, int, g->ops.n + 1);
    pl->metric_only = arena_copy(a, s->metric_only, sizeof(bool) * (size_t)(g->ops.n + 1));
    pl->seconds = arena_copy(a, s->seconds, sizeof(double) * (size_t)(g->ops.n + 1));
    follow_operands(&p, pl->metric_only);
    int *chunk_device = ARENA_ARRAY(a, int, s->nforward + 1);
    make_chunks(&p, pl, chunk_device);
    place_backward(&p, pl);
    number_devices(&p, pl, chunk_device, m, d);
    find_roots(g, pl);
    const ScheduleFile *file = m->settings.parallel.file;
    return diag_errors(d) || (file && !schedule_file_fits(file, m, pl, d)) ? NULL : pl;
}
