/* attempt.c - what a way of cutting really comes to: the passes behind it, on a copy.
 *
 * In:  a Model with its backward pass, and a Split.
 * Out: the Program that it would become, in an arena of its own. The model is as it was.
 */
#include <string.h>

#include "attempt.h"
#include "order.h"
#include "schedule_file.h"
#include "timeline.h"

Graph *attempt_copy_graph(Arena *a, const Graph *g)
{
    Graph *c = ARENA_NEW(a, Graph);
    *c = *g;
    c->arena = a;
    c->values.at = arena_copy(a, g->values.at, sizeof *g->values.at * (size_t)g->values.n);
    c->values.cap = g->values.n;
    c->ops.at = arena_copy(a, g->ops.at, sizeof *g->ops.at * (size_t)g->ops.n);
    c->ops.cap = g->ops.n;
    for (OpId o = 0; o < c->ops.n; o++) {
        Op *op = &c->ops.at[o];
        op->in = arena_copy(a, op->in, sizeof *op->in * (size_t)op->nin);
        op->out = arena_copy(a, op->out, sizeof *op->out * (size_t)op->nout);
    }
    return c;
}

bool attempt(const Model *m, const Split *s, bool gpus, Attempt *out)
{
    Arena *a = arena_new();
    Diag *quiet = diag_new(a);
    Model *copy = arena_copy(a, m, sizeof *m);
    copy->graph = attempt_copy_graph(a, m->graph);
    Placement *pl = place(copy, s, quiet);
    Program *p = NULL;
    if (pl) {
        fuse(copy->graph, pl);
        p = lower(copy, pl, quiet);
    }
    const ScheduleFile *file = copy->settings.parallel.file;
    if (p && file && !schedule_file_ends(file, p, quiet))
        p = NULL;
    if (p && gpus && !program_for_gpus(p, quiet))
        p = NULL;
    if (p) {
        offload(p, quiet);
        const ScheduleKind kind = copy->settings.parallel.schedule;
        const SlotList *eval = schedule(p, kind, true);
        communicate(p, schedule_train(p, eval), eval);
        if (p->transfer != TRANSFER_LINKS)
            order_waits(p);
        copy->settings.devices.memory = 0; /* whether it fits is for the caller to say */
        if (!allocate(p, quiet))
            p = NULL;
    }
    if (p) {
        const Timeline *t = timeline_make(a, p, TIMELINE_SECONDS);
        out->seconds = t->period;
        out->bubble = t->bubble;
        out->bytes = 0;
        out->chunks = 0;
        for (int d = 0; d < p->devices.n; d++)
            out->chunks =
                p->devices.at[d].chunks.n > out->chunks ? p->devices.at[d].chunks.n : out->chunks;
        for (int d = 0; d < p->devices.n; d++)
            out->bytes = p->devices.at[d].bytes > out->bytes ? p->devices.at[d].bytes : out->bytes;
        for (int d = 0; out->of_device && d < p->devices.n; d++)
            out->of_device[p->devices.at[d].number] = p->devices.at[d].bytes;
    }
    arena_free(a);
    return p != NULL;
}
