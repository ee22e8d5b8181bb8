/* lifetimes.c - what lives for how long.
 *
 * In:  the phases and buffers of a device, and the links.
 * Out: which buffers outlive their phase, and how many turns' tensors of the others have to
 *      have a place at the same time. */
#include "lower.h"

/* Which phase touches each buffer: 1 + chunk * RUN_KINDS + kind; 0: none, -1: several. */
static int *find_touchers(const Program *p, const Device *d)
{
    int *toucher = ARENA_ARRAY(p->graph->arena, int, d->buffers.n + 1);
    for (int i = 0; i < d->chunks.n; i++) {
        const Chunk *c = &p->chunks.at[d->chunks.at[i]];
        for (int k = 0; k < RUN_KINDS; k++) {
            int id = 1 + c->number * RUN_KINDS + k;
            for (int n = 0; n < c->run[k].calls.n; n++) {
                const Call *call = &c->run[k].calls.at[n];
                for (int r = 0; r < call->nin + call->nout; r++) {
                    const Ref *ref = r < call->nin ? &call->in[r] : &call->out[r - call->nin];
                    int seen[2] = {ref->buffer, ref->entry};
                    for (int s = 0; s < 2; s++)
                        if (seen[s] != NONE)
                            toucher[seen[s]] = toucher[seen[s]] && toucher[seen[s]] != id ? -1 : id;
                }
            }
        }
    }
    return toucher;
}

/* How many turns' tensors of a buffer have to live at once, by what the calls of its own
 * phase read: all; two, where each turn hands one to the next; one, where none leaves its
 * turn. `last` is the member that the loop makes last, the only one that may be read later. */
static int find_ring(const Run *run, const Step *step, int buffer, int last, int count)
{
    int ring = 1;
    for (int k = 0; k < run->calls.n; k++) {
        const Call *user = &run->calls.at[k];
        bool inside = k >= step->first && k < step->first + step->ncalls;
        for (int r = 0; r < user->nin; r++) {
            const Ref *in = &user->in[r];
            if (in->entry == buffer && in->entry_at != last)
                return count;
            if (in->buffer != buffer)
                continue;
            if (!inside && (in->by_turn || in->at != last))
                return count;
            if (inside && !in->by_turn)
                return count;
            if (inside && in->at != 0)
                ring = 2;
        }
    }
    return ring < count ? ring : count;
}

/* Rings of what the loops of one phase make and no other phase touches. */
static void find_rings(const Program *p, Device *d, int device, const Run *run, const int *toucher)
{
    for (int s = 0; s < run->steps.n; s++) {
        const Step *step = &run->steps.at[s];
        for (int n = step->first; step->turns > 1 && n < step->first + step->ncalls; n++)
            for (int i = 0; i < run->calls.at[n].nout; i++) {
                int out = run->calls.at[n].out[i].buffer;
                Buffer *b = out == NONE ? NULL : &d->buffers.at[out];
                if (!b || b->count == 1 || toucher[out] == -1 || b->class == BUFFER_GRAD)
                    continue;
                int last = step->down ? 0 : b->count - 1;
                b->ring = find_ring(run, step, out, last, b->count);
                for (int l = 0; l < p->links.n; l++)
                    if (p->links.at[l].from == device && p->links.at[l].source.buffer == out &&
                        p->links.at[l].source.at != last)
                        b->ring = b->count;
            }
    }
}

/* A tensor that only one phase touches is scratch of that phase; others, and what a link
 * takes away, are kept. */
void lower_classify(Program *p, int device)
{
    Device *d = &p->devices.at[device];
    int *toucher = find_touchers(p, d);
    for (int i = 0; i < d->buffers.n; i++)
        if (d->buffers.at[i].class == BUFFER_SCRATCH && toucher[i] == -1)
            d->buffers.at[i].class = BUFFER_KEPT;
    for (int i = 0; i < p->links.n; i++)
        if (p->links.at[i].from == device &&
            d->buffers.at[p->links.at[i].source.buffer].class == BUFFER_SCRATCH)
            d->buffers.at[p->links.at[i].source.buffer].class = BUFFER_KEPT;
    for (int c = 0; c < d->chunks.n; c++)
        for (int k = 0; k < RUN_KINDS; k++)
            find_rings(p, d, device, &p->chunks.at[d->chunks.at[c]].run[k], toucher);
}
