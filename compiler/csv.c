/* csv.c - the compute schedule in the form of torch.distributed.pipelining: a line for every
 * device, its runs in order, each with stage (chunk), phase and micro-batch.
 *
 *     0F0,0F1,0B0,0F2,0B1,0B2
 *     1F0,1B0,1F1,1B1,1F2,1B2
 *
 * PyTorch wants F, and B or I and W, of every chunk for every micro-batch. A chunk that has I
 * or W alone therefore has B in its place; one that has no backward pass, because nothing in it or
 * before it is trained, has B as soon as the chunk behind it has done its own. A device that is
 * not used has an empty line.
 */
#include "plan.h"
#include "schedule.h"

typedef struct {
    const Program *p;
    Arena *arena;
    SlotList *runs; /* [devices] */
    Text *lines;    /* [devices] */
    int *at;        /* [devices]: of runs */
    int *backless;  /* [chunks]: micro-batches with a B that is none */
    bool *done;     /* as schedule_walk() has it */
} Writer;

static bool has_back(const Chunk *c)
{
    return c->has[RUN_B] || c->has[RUN_I] || c->has[RUN_W];
}

static void write_run(Writer *w, Slot s)
{
    const Chunk *c = &w->p->chunks.at[s.chunk];
    Text *line = &w->lines[c->device];
    const bool alone = run_goes_back(s.run) && !(c->has[RUN_I] && c->has[RUN_W]);
    text_printf(line, "%s%d%s%d", line->n ? "," : "", s.chunk, alone ? "B" : run_name(s.run), s.m);
    w->done[(2 * s.chunk + run_goes_back(s.run)) * w->p->microbatches + s.m] = true;
}

/* The B of chunks that have none, as far as they could be done by now. */
static bool write_backless(Writer *w)
{
    const int C = w->p->chunks.n, M = w->p->microbatches;
    bool moved = false;
    for (int c = C - 1; c >= 0; c--)
        for (int *m = &w->backless[c]; *m < M && !has_back(&w->p->chunks.at[c]); ++*m) {
            if (!w->done[2 * c * M + *m] || (c + 1 < C && !w->done[(2 * c + 3) * M + *m]))
                break;
            write_run(w, (Slot){RUN_B, c, *m});
            moved = true;
        }
    return moved;
}

/* In an order in which all devices can go through their lists. */
static void write_runs(Writer *w)
{
    const Program *p = w->p;
    bool backless = false;
    for (int c = 0; c < p->chunks.n; c++)
        backless = backless || !has_back(&p->chunks.at[c]);
    for (bool moved = true; moved;) {
        moved = false;
        for (int d = 0; d < p->devices.n; d++)
            for (; w->at[d] < w->runs[d].n; w->at[d]++, moved = true) {
                const Slot s = w->runs[d].at[w->at[d]];
                if (backless && schedule_waits_for(p, w->done, s) != NONE)
                    break;
                write_run(w, s);
            }
        moved = (backless && write_backless(w)) || moved;
    }
}

void plan_csv(const Program *p, Text *out)
{
    Arena *a = out->arena;
    Writer w = {.p = p,
                .arena = a,
                .runs = ARENA_ARRAY(a, SlotList, p->devices.n),
                .lines = ARENA_ARRAY(a, Text, p->devices.n),
                .at = ARENA_ARRAY(a, int, p->devices.n),
                .backless = ARENA_ARRAY(a, int, p->chunks.n),
                .done = ARENA_ARRAY(a, bool, 2 * p->chunks.n * p->microbatches)};
    int used = 0; /* devices of the pipeline, up to the last that is used */
    for (int d = 0; d < p->devices.n; d++) {
        const ActionList *list = &p->devices.at[d].train;
        w.lines[d].arena = a;
        text_add(&w.lines[d], "");
        used = p->devices.at[d].number + 1 > used ? p->devices.at[d].number + 1 : used;
        for (int i = 0; i < list->actions.n; i++) {
            const Action *x = &list->actions.at[i];
            if (x->kind == ACT_RUN)
                VEC_PUSH(a, &w.runs[d], (Slot){x->run, x->chunk, x->m});
        }
    }
    write_runs(&w);
    const int count = p->model->settings.devices.count;
    for (int k = 0, d = 0; k < (count > used ? count : used); k++) {
        if (d < p->devices.n && p->devices.at[d].number == k)
            text_add(out, w.lines[d++].at);
        text_add(out, "\n");
    }
}
