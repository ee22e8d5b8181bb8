/* mutations.c - one thing of a Program is made another, by lot.
 *
 * In:  a copy of a valid Program; a kind of mutation; a seed.
 * Out: the copy, changed in one place; what was done.
 *
 * Whether that does any harm is not known here: moving an action past one that it has nothing to do
 * with is as good a list. Numbers stay within their tables, since what reads past a table is no
 * order or place that could be judged (a test of its own asks the verifier for those). */
#include "mutations.h"

#include <string.h>

int mutation_draw(Mutation *u, int n)
{
    u->chance = u->chance * 6364136223846793005u + 1442695040888963407u;
    return n > 0 ? (int)((u->chance >> 33) % (uint64_t)n) : 0;
}

/* ---------------------------------------------------------------------- copies */

#define COPY(a, v)                                                                                 \
    ((v)->at = arena_copy((a), (v)->at, sizeof *(v)->at * (size_t)(v)->n), (v)->cap = (v)->n)

static void copy_list(Arena *a, ActionList *list)
{
    COPY(a, &list->actions);
    COPY(a, &list->waits);
    COPY(a, &list->takes);
}

static void copy_run(Arena *a, Run *run)
{
    COPY(a, &run->calls);
    COPY(a, &run->steps);
    for (int i = 0; i < run->calls.n; i++) {
        Call *c = &run->calls.at[i];
        c->in = arena_copy(a, c->in, sizeof *c->in * (size_t)c->nin);
        c->out = arena_copy(a, c->out, sizeof *c->out * (size_t)c->nout);
    }
}

Program *program_copy(Arena *a, const Program *p)
{
    Program *q = arena_copy(a, p, sizeof *p);
    q->graph = arena_copy(a, p->graph, sizeof *p->graph);
    q->graph->arena = a;
    COPY(a, &q->chunks);
    COPY(a, &q->devices);
    COPY(a, &q->links);
    for (int c = 0; c < q->chunks.n; c++)
        for (int k = 0; k < RUN_KINDS; k++)
            copy_run(a, &q->chunks.at[c].run[k]);
    for (int i = 0; i < q->devices.n; i++) {
        Device *d = &q->devices.at[i];
        COPY(a, &d->buffers);
        COPY(a, &d->weights);
        COPY(a, &d->offloads);
        copy_list(a, &d->train);
        copy_list(a, &d->eval);
        for (int w = 0; w < d->weights.n; w++) {
            WeightRun *r = &d->weights.at[w];
            r->grad = arena_copy(a, r->grad, sizeof *r->grad * (size_t)r->ngrads);
        }
    }
    return q;
}

/* --------------------------------------------------------------------- buffers */

static Buffer *draw_buffer(Mutation *u, Device **d)
{
    *d = &u->p->devices.at[mutation_draw(u, u->p->devices.n)];
    Buffer *b = &(*d)->buffers.at[mutation_draw(u, (*d)->buffers.n)];
    u->what = arena_printf(u->arena, "%s of %s", b->name, (*d)->name);
    return b;
}

static bool move_buffer(Mutation *u)
{
    Device *d;
    Buffer *b = draw_buffer(u, &d);
    const int64_t before = b->offset;
    const Buffer *other = &d->buffers.at[mutation_draw(u, d->buffers.n)];
    if (mutation_draw(u, 2))
        b->offset = other->offset + (int64_t)BUFFER_ALIGN * mutation_draw(u, 3);
    else
        b->offset += (int64_t)BUFFER_ALIGN * (mutation_draw(u, 17) - 8);
    u->what = arena_printf(u->arena, "%s: from %lld to %lld", u->what, (long long)before,
                           (long long)b->offset);
    return b->offset != before;
}

static bool change_slots(Mutation *u)
{
    Device *d;
    Buffer *b = draw_buffer(u, &d);
    const int before = b->slots;
    b->slots = mutation_draw(u, 4) ? 1 + mutation_draw(u, before) : before + 1;
    u->what = arena_printf(u->arena, "%s: slots %d to %d", u->what, before, b->slots);
    return b->slots != before;
}

static bool change_ring(Mutation *u)
{
    Device *d;
    Buffer *b = draw_buffer(u, &d);
    const int before = b->ring;
    if (b->count == 1)
        return false;
    b->ring = mutation_draw(u, 4) ? 1 + mutation_draw(u, before) : before + 1;
    u->what = arena_printf(u->arena, "%s: ring %d to %d", u->what, before, b->ring);
    return b->ring != before;
}

static bool change_stride(Mutation *u)
{
    Device *d;
    Buffer *b = draw_buffer(u, &d);
    b->stride += mutation_draw(u, 2) ? BUFFER_ALIGN : -BUFFER_ALIGN;
    u->what = arena_printf(u->arena, "%s: stride %lld", u->what, (long long)b->stride);
    return b->ring * b->slots > 1;
}

static bool shrink_device(Mutation *u)
{
    Device *d = &u->p->devices.at[mutation_draw(u, u->p->devices.n)];
    u->what = arena_printf(u->arena, "bytes or regions of %s", d->name);
    const int64_t by = GPU_ALIGN * (1 + mutation_draw(u, 4));
    int64_t *const places[] = {&d->bytes, &d->squares, &d->kernel_scratch, &d->workspace};
    const int k = u->p->transfer == TRANSFER_LINKS ? 0 : mutation_draw(u, 4);
    if (*places[k] <= by)
        return false;
    *places[k] += k > 0 && mutation_draw(u, 2) ? by : -by;
    return true;
}

/* ----------------------------------------------------------------------- calls */

static Run *draw_run(Mutation *u, int *device)
{
    const Chunk *c = &u->p->chunks.at[mutation_draw(u, u->p->chunks.n)];
    const int k = mutation_draw(u, RUN_KINDS);
    u->what = arena_printf(u->arena, "phase %d%s", c->number, run_name((RunKind)k));
    *device = c->device;
    return c->has[k] && c->run[k].calls.n ? (Run *)&c->run[k] : NULL;
}

static bool change_operand(Mutation *u)
{
    int device;
    Run *run = draw_run(u, &device);
    if (!run)
        return false;
    const Device *d = &u->p->devices.at[device];
    const int call = mutation_draw(u, run->calls.n);
    Call *c = &run->calls.at[call];
    const int i = mutation_draw(u, c->nin + c->nout);
    if (c->nin + c->nout == 0)
        return false;
    Ref *r = i < c->nin ? &c->in[i] : &c->out[i - c->nin];
    const Ref before = *r;
    if (r->buffer == NONE)
        return false;
    switch (mutation_draw(u, 4)) {
    case 0:
        r->by_turn = !r->by_turn;
        break;
    case 1:
        r->at = mutation_draw(u, d->buffers.at[r->buffer].count);
        break;
    case 2:
        r->entry = r->entry == NONE ? NONE : mutation_draw(u, d->buffers.n);
        r->entry_at = 0;
        break;
    default:
        r->buffer = mutation_draw(u, d->buffers.n);
        break;
    }
    u->what = arena_printf(u->arena, "%s, call %d: operand %d of %d is %s %d", u->what, call, i,
                           c->nin, d->buffers.at[r->buffer].name, r->at);
    return r->by_turn != before.by_turn || r->at != before.at || r->buffer != before.buffer ||
           r->entry != before.entry;
}

/* Where a loop's turns end, which is where operands are other buffers' tensors. */
static bool change_count(Mutation *u)
{
    int device;
    const Run *run = draw_run(u, &device);
    Buffer *b = NULL;
    for (int i = 0; run && i < run->calls.n; i++)
        for (int k = 0; k < run->calls.at[i].nin; k++)
            if (run->calls.at[i].in[k].entry != NONE && (!b || mutation_draw(u, 2)))
                b = &u->p->devices.at[device].buffers.at[run->calls.at[i].in[k].buffer];
    if (!b)
        return false;
    b->count += mutation_draw(u, 2) && b->count > 1 ? -1 : 1;
    u->what = arena_printf(u->arena, "%s: %s has %d tensors", u->what, b->name, b->count);
    return true;
}

/* The path by which dropout draws, or a weight is initialised and saved. */
static bool change_name(Mutation *u)
{
    int device;
    Run *run = draw_run(u, &device);
    int64_t *first = NULL, *step = NULL;
    for (int i = 0; run && i < run->calls.n; i++)
        if (run->calls.at[i].prefix && mutation_draw(u, 2)) {
            first = &run->calls.at[i].first;
            step = &run->calls.at[i].number_step;
        }
    Device *d = &u->p->devices.at[mutation_draw(u, u->p->devices.n)];
    WeightRun *r = d->weights.n ? &d->weights.at[mutation_draw(u, d->weights.n)] : NULL;
    if (!first && r) {
        first = &r->first;
        step = &r->number_step;
    }
    if (!first || *first < 0)
        return false;
    u->what =
        arena_printf(u->arena, "names from %lld by %lld", (long long)*first, (long long)*step);
    *(mutation_draw(u, 2) ? first : step) += 1;
    return true;
}

static bool change_calls(Mutation *u)
{
    int device;
    Run *run = draw_run(u, &device);
    if (!run)
        return false;
    Step *step = &run->steps.at[mutation_draw(u, run->steps.n)];
    const int how = mutation_draw(u, 5), i = step->first + mutation_draw(u, step->ncalls),
              j = step->first + mutation_draw(u, step->ncalls);
    const Call x = run->calls.at[i];
    u->what = arena_printf(u->arena, "%s, calls %d and %d, way %d", u->what, i, j, how);
    if (how < 2) {
        run->calls.at[i] = run->calls.at[j];
        run->calls.at[j] = x;
        return i != j;
    }
    if (how == 2) { /* the last one is not called */
        step->ncalls--;
        return true;
    }
    if (how == 3) {
        step->down = !step->down;
        return step->turns > 1;
    }
    step->turns -= step->turns > 1;
    return step->turns > 1;
}

/* ----------------------------------------------------------------------- links */

static bool change_link(Mutation *u)
{
    Program *p = u->p;
    if (p->links.n == 0)
        return false;
    const int n = mutation_draw(u, p->links.n);
    Link *l = &p->links.at[n];
    const Link before = *l;
    const int how = mutation_draw(u, p->transfer == TRANSFER_PEER ? 10 : 8);
    switch (how) {
    case 0:
        l->from = before.to;
        l->to = before.from;
        break;
    case 1:
        l->to = mutation_draw(u, p->devices.n);
        break;
    case 2:
        l->source.buffer = mutation_draw(u, p->devices.at[l->from].buffers.n);
        break;
    case 3:
        l->target.buffer = mutation_draw(u, p->devices.at[l->to].buffers.n);
        break;
    case 4:
        l->bytes += l->bytes > BUFFER_ALIGN && mutation_draw(u, 2) ? -BUFFER_ALIGN : BUFFER_ALIGN;
        break;
    case 5:
        l->source.at = mutation_draw(u, p->devices.at[l->from].buffers.at[l->source.buffer].count);
        l->target.at = mutation_draw(u, p->devices.at[l->to].buffers.at[l->target.buffer].count);
        break;
    case 6:
        l->value = mutation_draw(u, p->graph->values.n);
        break;
    case 7:
        l->kind = (LinkKind)mutation_draw(u, LINK_WEIGHT + 1);
        break;
    case 8:
        l->post_from = mutation_draw(u, p->microbatches + 1);
        break;
    default:
        l->take_from = mutation_draw(u, p->microbatches + 1);
        break;
    }
    u->what = arena_printf(u->arena, "link %d, way %d", n, how);
    return memcmp(l, &before, sizeof before) != 0;
}

/* --------------------------------------------------------------------- weights */

static int draw_of_class(Mutation *u, const Device *d, BufferClass class)
{
    for (int tries = 0; tries < 40; tries++) {
        const int b = mutation_draw(u, d->buffers.n);
        if (d->buffers.at[b].class == class)
            return b;
    }
    return NONE;
}

static bool set_buffer(int *at, int to)
{
    const bool other = to != NONE && to != *at;
    *at = other ? to : *at;
    return other;
}

static bool change_weight(Mutation *u)
{
    Device *d = &u->p->devices.at[mutation_draw(u, u->p->devices.n)];
    if (d->weights.n == 0)
        return false;
    const int n = mutation_draw(u, d->weights.n), how = mutation_draw(u, 9);
    WeightRun *r = &d->weights.at[n];
    u->what = arena_printf(u->arena, "weights %d of %s, way %d", n, d->name, how);
    switch (how) {
    case 0:
        r->ngrads -= r->ngrads > 0;
        return r->ngrads > 0 || r->owner;
    case 1:
        return r->ngrads > 0 &&
               set_buffer(&r->grad[mutation_draw(u, r->ngrads)], draw_of_class(u, d, BUFFER_GRAD));
    case 2:
        return r->ngrads > 0 && r->nstates > 0 &&
               set_buffer(&r->state[mutation_draw(u, r->nstates)],
                          draw_of_class(u, d, BUFFER_STATE));
    case 3:
        return r->half != NONE && set_buffer(&r->half, draw_of_class(u, d, BUFFER_WEIGHT));
    case 4:
        return set_buffer(&r->buffer, draw_of_class(u, d, BUFFER_WEIGHT));
    case 5: /* updated in two places */
        VEC_PUSH(u->arena, &d->weights, d->weights.at[n]);
        return d->weights.at[n].ngrads > 0;
    case 6: /* keeps less of what it did */
        r->nstates -= r->nstates > 0;
        return r->ngrads > 0;
    case 7: /* a copy that is updated from what is there */
        r->grad = ARENA_ARRAY(u->arena, int, 1);
        r->grad[0] = draw_of_class(u, d, BUFFER_GRAD);
        r->ngrads = 1;
        return !r->owner && r->grad[0] != NONE;
    default:
        r->half = NONE;
        return d->weights.at[n].half == NONE && d->weights.at[n].ngrads > 0 && r->count > 1 &&
               r->count-- > 0;
    }
}

/* --------------------------------------------------------------------- offloads */

/* What a copy is of, or which it is. */
static bool change_copy(Mutation *u)
{
    Device *d = &u->p->devices.at[mutation_draw(u, u->p->devices.n)];
    if (d->offloads.n == 0)
        return false;
    const int n = mutation_draw(u, d->offloads.n), how = mutation_draw(u, 7);
    Offload *o = &d->offloads.at[n];
    u->what = arena_printf(u->arena, "offload %d of %s, way %d", n, d->name, how);
    switch (how) {
    case 0:
        return set_buffer(&o->buffer, draw_of_class(u, d, BUFFER_KEPT));
    case 1:
        return set_buffer(&o->host, draw_of_class(u, d, BUFFER_HOST));
    case 2:
        return set_buffer(&o->back, draw_of_class(u, d, BUFFER_KEPT));
    case 3:
        d->offloads.at[n] = d->offloads.at[--d->offloads.n];
        return true;
    case 4:
        return set_buffer(&o->chunk, d->chunks.at[mutation_draw(u, d->chunks.n)]);
    default:
        break;
    }
    for (int tries = 0; tries < 40; tries++) {
        Action *a = &d->train.actions.at[mutation_draw(u, d->train.actions.n)];
        if (!action_copies(a))
            continue;
        const int m = mutation_draw(u, u->p->microbatches);
        if (how == 5)
            a->kind = a->kind == ACT_COPY_OUT ? ACT_COPY_IN : ACT_COPY_OUT;
        else if (m == a->m)
            continue;
        else
            a->m = m;
        return true;
    }
    return false;
}

/* ------------------------------------------------------------------------ kinds */

static bool do_two(Mutation *u);

static const struct {
    const char *name;
    bool (*mutate)(Mutation *u);
} kinds[] = {{"an action moved", move_action},
             {"an action dropped", drop_action},
             {"an action doubled", double_action},
             {"two actions swapped", swap_actions},
             {"a wait dropped", drop_wait},
             {"a wait for another action", turn_wait},
             {"a wait more", add_wait},
             {"a take dropped", drop_take},
             {"a take moved", move_take},
             {"a take more", add_take},
             {"another message", change_message},
             {"another run", change_run},
             {"a buffer moved", move_buffer},
             {"other slots", change_slots},
             {"another ring", change_ring},
             {"another stride", change_stride},
             {"another count", change_count},
             {"a smaller device", shrink_device},
             {"another operand", change_operand},
             {"other calls", change_calls},
             {"another name", change_name},
             {"another link", change_link},
             {"another weight", change_weight},
             {"another copy", change_copy},
             {"two of these", do_two}};

int mutation_kinds(void)
{
    return (int)(sizeof kinds / sizeof kinds[0]);
}

const char *mutation_name(int kind)
{
    return kinds[kind].name;
}

bool mutation_do(Mutation *u, int kind)
{
    return kinds[kind].mutate(u);
}

/* One may hide the other. */
static bool do_two(Mutation *u)
{
    const int others = mutation_kinds() - 1;
    int done = 0;
    const char *first = "";
    for (int tries = 0; tries < 20 && done < 2; tries++) {
        const int kind = mutation_draw(u, others);
        const char *before = u->what;
        if (!mutation_do(u, kind)) {
            u->what = before;
            continue;
        }
        done++;
        first = done == 1 ? u->what : first;
    }
    u->what = arena_printf(u->arena, "%s; %s", first, u->what);
    return done == 2;
}
