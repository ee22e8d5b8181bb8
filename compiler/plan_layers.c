/* plan_layers.c - the names of the layers of each chunk, repeated ones taken together.
 *
 * In:  the phases of the chunks: calls, and loops whose calls stand for their first turn.
 * Out: the chunk of every forward operation; for every chunk its layers in order.
 *
 * A layer is named as far out as it is whole: the path of the outermost block all of whose
 * operations are on one chunk, else the path of the operation. Neighbours whose names
 * count up become one run:
 *
 *     wte  h.0 h.1 h.2 h.3  ln_f         wte | h.0 … h.3 ×4 | ln_f
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "plan.h"

typedef struct {
    const Program *p;
    const Graph *g;
    Arena *arena;
    int *frame_chunk; /* [frames]: of the turns of a chunk's loops; NONE */
    int *low, *high;  /* [frames]: least and greatest chunk of the operations inside */
} Finder;

static bool is_forward(const Op *op)
{
    return op->forward == NONE && op->phase == PHASE_F;
}

/* The frames of all turns of every execution of a for statement, as chains. */
typedef struct {
    int *head, *turns; /* [loops + 1]: newest turn or NONE; how many */
    int *next;         /* [frames] */
} Turns;

static Turns find_turns(const Finder *f)
{
    const Graph *g = f->g;
    Turns t = {ARENA_ARRAY(f->arena, int, g->loops + 1), ARENA_ARRAY(f->arena, int, g->loops + 1),
               ARENA_ARRAY(f->arena, int, g->frames.n + 1)};
    for (int i = 0; i <= g->loops; i++)
        t.head[i] = NONE;
    for (int i = 0; i < g->frames.n; i++) {
        int loop = g->frames.at[i].loop;
        if (g->frames.at[i].kind != FRAME_TURN || loop < 0 || loop > g->loops)
            continue;
        t.next[i] = t.head[loop];
        t.head[loop] = i;
        t.turns[loop]++;
    }
    return t;
}

static FrameId common_frame(const Graph *g, FrameId a, FrameId b)
{
    while (a != b && (a > 0 || b > 0)) /* a parent's number is less than its child's */
        *(a > b ? &a : &b) = g->frames.at[a > b ? a : b].parent;
    return a;
}

/* The turn that a loop's calls stand for: the innermost one around all of them, of a for
 * statement with as many turns. */
static FrameId turn_of(const Finder *f, const Run *run, const Step *step, const Turns *t)
{
    const Graph *g = f->g;
    FrameId x = NONE;
    for (int i = step->first; i < step->first + step->ncalls; i++) {
        if (run->calls.at[i].kind != CALL_OP)
            continue;
        FrameId of = g->ops.at[run->calls.at[i].op].frame;
        x = x == NONE ? of : common_frame(g, x, of);
    }
    while (x > 0) {
        const Frame *frame = &g->frames.at[x];
        if (frame->kind == FRAME_TURN && frame->loop >= 0 && frame->loop <= g->loops &&
            t->turns[frame->loop] >= step->turns)
            return x;
        x = frame->parent;
    }
    return NONE;
}

/* Marks the frames of the turns of every loop in a chunk's forward phases. */
static void mark_loops(Finder *f)
{
    const Graph *g = f->g;
    Turns t = find_turns(f);
    for (int i = 0; i < g->frames.n; i++)
        f->frame_chunk[i] = NONE;
    for (int c = 0; c < f->p->chunks.n; c++)
        for (int k = RUN_F; k <= RUN_E; k++) {
            const Run *run = &f->p->chunks.at[c].run[k];
            for (int s = 0; s < run->steps.n; s++) {
                const Step *step = &run->steps.at[s];
                FrameId turn = step->turns < 2 ? NONE : turn_of(f, run, step, &t);
                if (turn == NONE)
                    continue;
                const Frame *first = &g->frames.at[turn];
                int64_t from = step->down ? first->turn - step->turns + 1 : first->turn;
                for (int i = t.head[first->loop]; i != NONE; i = t.next[i])
                    if (g->frames.at[i].turn >= from && g->frames.at[i].turn < from + step->turns)
                        f->frame_chunk[i] = c;
            }
        }
}

/* Operations that stand in a phase are where that is; the others are the later turns of
 * a loop and are where their turn is. */
static void find_chunks(Finder *f, int *chunk_of)
{
    const Graph *g = f->g;
    for (OpId o = 0; o < g->ops.n; o++)
        chunk_of[o] = NONE;
    for (int c = 0; c < f->p->chunks.n; c++)
        for (int k = RUN_F; k <= RUN_E; k++) {
            const Run *run = &f->p->chunks.at[c].run[k];
            for (int i = 0; i < run->calls.n; i++)
                if (run->calls.at[i].kind == CALL_OP)
                    chunk_of[run->calls.at[i].op] = c;
        }
    for (OpId o = 0; o < g->ops.n; o++) {
        if (!is_forward(&g->ops.at[o]))
            continue;
        for (FrameId x = g->ops.at[o].frame; x > 0 && chunk_of[o] == NONE;
             x = g->frames.at[x].parent)
            chunk_of[o] = f->frame_chunk[x];
    }
}

static void find_spread(Finder *f, const int *chunk_of)
{
    const Graph *g = f->g;
    for (int i = 0; i < g->frames.n; i++) {
        f->low[i] = f->p->chunks.n;
        f->high[i] = NONE;
    }
    for (OpId o = 0; o < g->ops.n; o++) {
        int c = chunk_of[o];
        for (FrameId x = g->ops.at[o].frame; c != NONE && x > 0; x = g->frames.at[x].parent) {
            f->low[x] = c < f->low[x] ? c : f->low[x];
            f->high[x] = c > f->high[x] ? c : f->high[x];
        }
    }
}

static const char *layer_of(const Finder *f, const Op *op)
{
    const char *name = op->path;
    for (FrameId x = op->frame; x > 0; x = f->g->frames.at[x].parent) {
        const Frame *frame = &f->g->frames.at[x];
        if (frame->kind == FRAME_BLOCK && f->low[x] == f->high[x] && frame->path && *frame->path)
            name = frame->path;
    }
    return name;
}

/* "h.9" and "h.10": the same but for one number, which counts up by one. */
static bool follows(const char *x, const char *y)
{
    size_t i = 0;
    while (x[i] && x[i] == y[i])
        i++;
    while (i > 0 && isdigit((unsigned char)x[i - 1]))
        i--;
    char *after_x, *after_y;
    if (!isdigit((unsigned char)x[i]) || !isdigit((unsigned char)y[i]))
        return false;
    unsigned long long p = strtoull(x + i, &after_x, 10), q = strtoull(y + i, &after_y, 10);
    return q == p + 1 && strcmp(after_x, after_y) == 0;
}

static void add_layer(Finder *f, LayerRuns *runs, const char *name)
{
    LayerRun *last = runs->n ? &runs->at[runs->n - 1] : NULL;
    if (last && strcmp(last->last, name) == 0)
        return;
    if (last && follows(last->last, name)) {
        last->last = name;
        last->count++;
        return;
    }
    VEC_PUSH(f->arena, runs, (LayerRun){name, name, 1});
}

PlanLayers plan_layers(Arena *a, const Program *p)
{
    const Graph *g = p->graph;
    Finder f = {.p = p,
                .g = g,
                .arena = a,
                .frame_chunk = ARENA_ARRAY(a, int, g->frames.n + 1),
                .low = ARENA_ARRAY(a, int, g->frames.n + 1),
                .high = ARENA_ARRAY(a, int, g->frames.n + 1)};
    PlanLayers l = {.runs = ARENA_ARRAY(a, LayerRuns, p->chunks.n),
                    .chunk_of = ARENA_ARRAY(a, int, g->ops.n + 1),
                    .run_of = ARENA_ARRAY(a, int, g->ops.n + 1)};
    mark_loops(&f);
    find_chunks(&f, l.chunk_of);
    find_spread(&f, l.chunk_of);
    for (OpId o = 0; o < g->ops.n; o++) {
        l.run_of[o] = NONE;
        if (l.chunk_of[o] == NONE)
            continue;
        LayerRuns *runs = &l.runs[l.chunk_of[o]];
        const char *name = layer_of(&f, &g->ops.at[o]);
        if (name)
            add_layer(&f, runs, name);
        l.run_of[o] = runs->n - 1;
    }
    return l;
}

const char *plan_layers_text(Arena *a, const Program *p, const PlanLayers *l, int device)
{
    const Device *d = &p->devices.at[device];
    Text t = {.arena = a};
    text_add(&t, "");
    for (int i = 0; i < d->chunks.n; i++) {
        const LayerRuns *runs = &l->runs[d->chunks.at[i]];
        if (!runs->n)
            continue;
        const char *first = runs->at[0].first, *last = runs->at[runs->n - 1].last;
        text_printf(&t, "%s%s", t.n ? ", " : "", first);
        if (strcmp(first, last) != 0)
            text_printf(&t, " ... %s", last);
    }
    return t.at;
}
