/* machine_begin.c - a Machine's tables, and its state at the beginning of an execution
 * (executor.h). */
#include <string.h>

#include "machine.h"

static Turns flatten(Arena *a, const Run *run)
{
    Turns t = {0};
    for (int s = 0; s < run->steps.n; s++) {
        const Step *step = &run->steps.at[s];
        for (int i = 0; i < step->turns; i++)
            for (int n = step->first; n < step->first + step->ncalls; n++) {
                int turn = step->down ? step->turns - 1 - i : i;
                VEC_PUSH(a, &t, (Turn){&run->calls.at[n], turn});
            }
    }
    return t;
}

static void make_tables(Machine *x)
{
    const Program *p = x->p;
    Arena *a = x->arena;
    x->turns = ARENA_ARRAY(a, Turns, p->chunks.n * RUN_KINDS);
    for (int i = 0; i < p->chunks.n * RUN_KINDS; i++)
        x->turns[i] = flatten(a, &p->chunks.at[i / RUN_KINDS].run[i % RUN_KINDS]);
    x->memory = ARENA_ARRAY(a, Cell *, x->D);
    x->fresh = ARENA_ARRAY(a, Cell *, x->D);
    x->cells = ARENA_ARRAY(a, int64_t, x->D);
    x->away = ARENA_ARRAY(a, Cell *, x->D);
    x->away_cells = ARENA_ARRAY(a, int64_t, x->D);
    for (int d = 0; d < x->D; d++) {
        const Device *dev = &p->devices.at[d];
        bool gpu = p->transfer != TRANSFER_LINKS;
        int64_t bytes = gpu && dev->squares < dev->bytes ? dev->squares : dev->bytes;
        x->cells[d] = bytes > 0 ? bytes / CELL : 0;
        x->memory[d] = ARENA_ARRAY(a, Cell, x->cells[d] + 1);
        x->away_cells[d] = dev->class_bytes[BUFFER_HOST] / CELL;
        x->away[d] = ARENA_ARRAY(a, Cell, x->away_cells[d] + 1);
        for (int step = 0; step < STEPS; step++) {
            const ActionList *list = machine_list(x, d, step);
            x->longest = list->actions.n > x->longest ? list->actions.n : x->longest;
            x->most_takes = list->takes.n > x->most_takes ? list->takes.n : x->most_takes;
        }
    }
    x->messages = STEPS * (x->longest + 1);
    x->links = ARENA_ARRAY(a, LinkState, p->links.n + 1);
    for (int l = 0; l < p->links.n; l++)
        x->links[l] = (LinkState){.m = ARENA_ARRAY(a, int, x->messages),
                                  .place = ARENA_ARRAY(a, int64_t, x->messages),
                                  .there = ARENA_ARRAY(a, bool, x->messages),
                                  .open = ARENA_ARRAY(a, bool, x->messages)};
}

Machine *machine_new(Arena *a, const Program *p, const Results *wanted, MachineKind kind)
{
    Machine *x = ARENA_NEW(a, Machine);
    *x = (Machine){.arena = a, .p = p, .wanted = wanted, .kind = kind, .D = p->devices.n};
    make_tables(x);
    x->host = ARENA_ARRAY(a, Head, x->D);
    x->clips = ARENA_ARRAY(a, int, x->D);
    x->device_scale = ARENA_ARRAY(a, Name, x->D);
    x->squares = ARENA_ARRAY(a, Name, p->graph->weights.n + 1);
    x->report = ARENA_ARRAY(a, Name, p->graph->metrics.n + 1);
    x->parcels = arena_alloc(a, sizeof *x->parcels * (size_t)(x->D * x->D));
    x->parcel = ARENA_ARRAY(a, int, x->D * x->D);
    for (int s = 0; s < STREAMS; s++) {
        x->stream[s] = ARENA_ARRAY(a, Head, x->D);
        x->queued[s] = ARENA_ARRAY(a, int, x->D);
        x->ended[s] = ARENA_ARRAY(a, int, x->D);
    }
    for (int step = 0; step < STEPS; step++) {
        x->done[step] = ARENA_ARRAY(a, bool, x->D * x->longest + 1);
        x->message[step] = ARENA_ARRAY(a, int, x->D * x->longest + 1);
        x->taken[step] = ARENA_ARRAY(a, int, x->D * x->most_takes + 1);
    }
    machine_fill(x);
    x->unfit = x->wrong;
    return x;
}

void machine_begin(Machine *x, uint64_t seed)
{
    size_t D = (size_t)x->D;
    x->chance = seed * 2862933555777941757u + 3037000493u;
    x->lot = x->chance;
    x->wrong = x->unfit;
    x->buffered = x->kind == MACHINE_NCCL && machine_draw(x, 2);
    memset(x->host, 0, sizeof *x->host * D);
    memset(x->clips, 0, sizeof *x->clips * D);
    memset(x->device_scale, 0, sizeof *x->device_scale * D);
    memset(x->scale, 0, sizeof x->scale);
    memset(x->squares, 0, sizeof *x->squares * (size_t)x->p->graph->weights.n);
    memset(x->report, 0, sizeof *x->report * (size_t)(x->p->graph->metrics.n + 1));
    for (int s = 0; s < STREAMS; s++) {
        memset(x->stream[s], 0, sizeof *x->stream[s] * D);
        memset(x->queued[s], 0, sizeof *x->queued[s] * D);
        memset(x->ended[s], 0, sizeof *x->ended[s] * D);
    }
    for (int step = 0; step < STEPS; step++)
        memset(x->done[step], 0, sizeof(bool) * D * (size_t)x->longest);
    for (int l = 0; l < x->p->links.n; l++)
        x->links[l].posted = x->links[l].sent = x->links[l].waited = 0;
    for (int i = 0; i < x->D * x->D; i++)
        x->parcel[i] = x->parcels[i].n = 0;
    for (int d = 0; d < x->D; d++) {
        memcpy(x->memory[d], x->fresh[d], sizeof(Cell) * (size_t)x->cells[d]);
        memset(x->away[d], 0, sizeof(Cell) * (size_t)x->away_cells[d]);
    }
}
