/* verify_races.c - the proof that no buffer is read before it is written or written over
 * before it was read, by the order of the streams and the explicit waits alone.
 *
 * A device's streams run on their own; only a wait orders an action of one after an action
 * of another. For every action the verifier knows the last action of each other stream that
 * is certainly done (a vector clock). Walking the list, each access to a
 * buffer's slot is checked against the accesses before it:
 *
 *     read   the slot must hold this micro-batch, and its writer must be certainly done
 *     write  the writer and all readers of what the slot held must be certainly done
 *
 * A run that writes a slot in place, or before it has written all it reads of it, does both.
 *
 * Where links are between threads nothing orders the transfers of several peers, so what a
 * receive brings may only be read after a wait for that very receive. On GPUs the order of all
 * devices' streams counts (order.h), and what a receive writes is written when its message
 * comes: what the sender knows to be done is done then, too.
 *
 * The memory between the streams is that of one device: links copy between devices, and the
 * two ends of a transfer are one action of each device.
 */
#include <stdlib.h>
#include <string.h>

#include "order.h"
#include "verify.h"

/* A run may do both: what it reads before it writes comes from an earlier one. */
typedef struct {
    int buffer;
    bool read, write;
} Access;
typedef VEC(Access) Accesses;

/* What is known of one slot of one buffer. */
typedef struct {
    int m;               /* micro-batch that it holds; -1: nothing */
    int writer;          /* action */
    int reader[STREAMS]; /* last reader on each stream, or NONE */
} Cell;

typedef struct {
    const Program *p;
    Arena *arena; /* of this list */
    int device;
    const Device *d;
    const ActionList *list;
    FILE *to;
    Accesses *of_run;      /* [chunk index on the device * RUN_KINDS + kind] */
    bool *watched;         /* [buffers]: filled or read by a link, kept, or of the host */
    Cell **cells;          /* [buffers][slots] */
    int *certain[STREAMS]; /* [actions]: last action of each other stream that is done */
    int *waited_by;        /* [actions]: first run that waits for this receive, or NONE */
    const Order *order;    /* GPUs: of this device; NULL: links between threads */
    int errors;
} Races;

/* A slot for each micro-batch that is in it at a time. */
static bool holds_microbatches(const Buffer *b)
{
    return b->class == BUFFER_KEPT || b->class == BUFFER_HOST;
}

/* What the run that is gone through has touched so far. */
typedef struct {
    int run;      /* from 1 */
    int *at;      /* [buffers]: of its accesses, the buffer's */
    int *touched; /* [buffers]: the last run that did */
    int **wrote;  /* [buffers][members]: the last run that did */
} Touch;

static void add_access(Races *r, Touch *t, const Ref *ref, int turn, bool write)
{
    Accesses *list = &r->of_run[t->run - 1];
    int b, member;
    ref_resolve(r->d, ref, turn, &b, &member);
    if (b == NONE || !r->watched[b] || member < 0 || member >= r->d->buffers.at[b].count)
        return;
    if (t->touched[b] != t->run) {
        t->touched[b] = t->run;
        t->at[b] = list->n;
        VEC_PUSH(r->arena, list, (Access){.buffer = b});
    }
    Access *x = &list->at[t->at[b]];
    x->write = x->write || write;
    x->read = x->read || (!write && t->wrote[b][member] != t->run);
    if (write)
        t->wrote[b][member] = t->run;
}

/* Turn by turn: a loop may hand a buffer's tensors from each turn to the next. */
static void find_run(Races *r, Touch *t, const Run *run)
{
    for (int s = 0; s < run->steps.n; s++) {
        const Step *step = &run->steps.at[s];
        for (int done = 0; done < step->turns; done++)
            for (int n = step->first; n < step->first + step->ncalls; n++) {
                const Call *c = &run->calls.at[n];
                int turn = step->down ? step->turns - 1 - done : done;
                for (int k = 0; k < c->nin; k++)
                    add_access(r, t, &c->in[k], turn, false);
                for (int k = 0; k < c->nout; k++)
                    add_access(r, t, &c->out[k], turn, true);
            }
    }
}

static void find_accesses(Races *r)
{
    const Program *p = r->p;
    Arena *a = r->arena;
    const int nbuffers = r->d->buffers.n;
    Touch t = {.at = ARENA_ARRAY(a, int, nbuffers + 1),
               .touched = ARENA_ARRAY(a, int, nbuffers + 1),
               .wrote = ARENA_ARRAY(a, int *, nbuffers + 1)};
    for (int b = 0; b < nbuffers; b++)
        r->watched[b] = holds_microbatches(&r->d->buffers.at[b]);
    for (int l = 0; l < p->links.n; l++) {
        if (p->links.at[l].from == r->device)
            r->watched[p->links.at[l].source.buffer] = true;
        if (p->links.at[l].to == r->device)
            r->watched[p->links.at[l].target.buffer] = true;
    }
    for (int b = 0; b < nbuffers; b++)
        if (r->watched[b])
            t.wrote[b] = ARENA_ARRAY(a, int, r->d->buffers.at[b].count);
    for (int i = 0; i < r->d->chunks.n * RUN_KINDS; i++) {
        t.run = i + 1;
        find_run(r, &t, &p->chunks.at[r->d->chunks.at[i / RUN_KINDS]].run[i % RUN_KINDS]);
    }
}

/* On GPUs: a receive writes when its message comes, and a peer's copy is what it brings. */
static bool ordered_gpu(const Races *r, int before, int now)
{
    const Action *b = &r->list->actions.at[before], *n = &r->list->actions.at[now];
    bool peer = r->p->transfer == TRANSFER_PEER;
    if (n->kind == ACT_RECV && action_copies(b))
        return false;
    if (n->kind == ACT_RECV && action_stream(b) == STREAM_COMPUTE)
        return r->order->free[0][now] >= before;
    if (peer && n->kind == ACT_RECV)
        return b->kind == ACT_RECV ? b->link == n->link : r->order->free[1][now] >= before;
    if (peer && b->kind == ACT_RECV) {
        int arrived = r->order->arrived[before];
        return action_stream(n) == STREAM_COMPUTE && arrived != NONE && arrived <= now;
    }
    const StreamKind stream = action_stream(b);
    return stream == action_stream(n) || r->order->certain[stream][now] >= before;
}

/* Is action `before` certainly done when action `now` begins? */
static bool ordered(const Races *r, int before, int now)
{
    const Action *a = r->list->actions.at;
    if (before == NONE)
        return true;
    if (r->order)
        return ordered_gpu(r, before, now);
    const StreamKind stream = action_stream(&a[before]);
    return stream == action_stream(&a[now]) || r->certain[stream][now] >= before;
}

static void complain(Races *r, int buffer, int now, const char *what, int other)
{
    if (r->errors++ >= 10)
        return;
    fprintf(r->to, "race: %s %s %s", verify_where(r->p, r->device, r->list, now), what,
            r->d->buffers.at[buffer].name);
    if (other != NONE)
        fprintf(r->to, ", unordered with %s", verify_where(r->p, r->device, r->list, other));
    fputc('\n', r->to);
}

static void access_slot(Races *r, int buffer, int m, bool write, int now)
{
    const Buffer *b = &r->d->buffers.at[buffer];
    bool per_batch = holds_microbatches(b);
    Cell *cell = &r->cells[buffer][per_batch ? m % b->slots : 0];
    const StreamKind stream = action_stream(&r->list->actions.at[now]);
    if (!write) {
        if (per_batch && cell->m != m)
            complain(r, buffer, now, "reads a slot that does not hold this micro-batch:", NONE);
        bool received =
            !r->order && cell->writer != NONE && r->list->actions.at[cell->writer].kind == ACT_RECV;
        bool arrived =
            !received || (r->waited_by[cell->writer] != NONE && r->waited_by[cell->writer] <= now);
        if (!arrived || !ordered(r, cell->writer, now))
            complain(r, buffer, now, "reads", cell->writer);
        cell->reader[stream] = now;
        return;
    }
    if (!ordered(r, cell->writer, now))
        complain(r, buffer, now, "writes", cell->writer);
    for (int s = 0; s < STREAMS; s++)
        if (!ordered(r, cell->reader[s], now))
            complain(r, buffer, now, "writes over", cell->reader[s]);
    *cell = (Cell){.m = m, .writer = now, .reader = {NONE, NONE, NONE, NONE}};
    cell->reader[stream] = now;
}

/* A sum is put where the first of its terms is; clipping reads, and scales on update. */
static void access_weights(Races *r, int now, ActionKind kind)
{
    bool update = kind == ACT_UPDATE;
    for (int i = 0; i < r->d->weights.n; i++) {
        const WeightRun *w = &r->d->weights.at[i];
        for (int k = 0; k < w->ngrads; k++)
            if (r->watched[w->grad[k]])
                access_slot(r, w->grad[k], 0, k == 0 && kind == ACT_REDUCE, now);
        if (update && w->ngrads && r->watched[w->buffer])
            access_slot(r, w->buffer, 0, true, now);
    }
}

static void access_halves(Races *r, int now)
{
    for (int i = 0; i < r->d->weights.n; i++) {
        const WeightRun *w = &r->d->weights.at[i];
        if (w->half != NONE && r->watched[w->buffer])
            access_slot(r, w->buffer, 0, false, now);
        if (w->half != NONE && r->watched[w->half])
            access_slot(r, w->half, 0, true, now);
    }
}

static void access_copies(Races *r, int now)
{
    const Action *a = &r->list->actions.at[now];
    for (int i = 0; i < r->d->offloads.n; i++) {
        const Offload *o = &r->d->offloads.at[i];
        if (o->chunk != a->chunk)
            continue;
        const bool in = a->kind == ACT_COPY_IN;
        access_slot(r, in ? o->host : o->buffer, a->m, false, now);
        access_slot(r, in ? o->back : o->host, a->m, true, now);
    }
}

/* The last action of each other stream that is done before each action: what it waits for,
 * and what those before it on its stream waited for. */
static bool find_certain(Races *r)
{
    int latest[STREAMS][STREAMS];
    memset(latest, 0xff, sizeof latest);
    for (int i = 0; i < r->list->actions.n; i++) {
        const Action *a = &r->list->actions.at[i];
        int *known = latest[action_stream(a)];
        for (int w = 0; w < a->nwaits; w++) {
            int on = r->list->waits.at[a->first_wait + w];
            if (on < 0 || on >= i) {
                fprintf(r->to, "race: %s waits for a later action\n",
                        verify_where(r->p, r->device, r->list, i));
                return false;
            }
            int *last = &known[action_stream(&r->list->actions.at[on])];
            *last = on > *last ? on : *last;
            if (r->waited_by[on] == NONE)
                r->waited_by[on] = i;
        }
        for (int s = 0; s < STREAMS && r->certain[s]; s++)
            r->certain[s][i] = known[s];
    }
    return true;
}

static int chunk_index(const Device *d, int chunk)
{
    for (int i = 0; i < d->chunks.n; i++)
        if (d->chunks.at[i] == chunk)
            return i;
    return NONE;
}

/* The host synchronises both streams at the end of a list, but not the peers' that copy. */
static void end_gpu(Races *r, int now)
{
    if (r->p->transfer != TRANSFER_PEER)
        return;
    for (int k = 0; k < now; k++) {
        const Action *a = &r->list->actions.at[k];
        if (a->kind == ACT_RECV && r->order->arrived[k] == NONE && !r->order->next_step[k])
            complain(r, r->p->links.at[a->link].target.buffer, now,
                     "ends the step before a message is there:", k);
    }
}

static void walk(Races *r)
{
    int last[STREAMS] = {NONE, NONE, NONE, NONE};
    for (int i = 0; i < r->list->actions.n; i++) {
        const Action *a = &r->list->actions.at[i];
        switch (a->kind) {
        case ACT_RUN: {
            int at = chunk_index(r->d, a->chunk) * RUN_KINDS + (int)a->run;
            for (int k = 0; k < r->of_run[at].n; k++) {
                const Access *x = &r->of_run[at].at[k];
                const BufferClass class = r->d->buffers.at[x->buffer].class;
                if (x->read || class == BUFFER_WEIGHT)
                    access_slot(r, x->buffer, a->m, false, i);
                if (x->write && class != BUFFER_WEIGHT)
                    access_slot(r, x->buffer, a->m, true, i);
            }
            break;
        }
        case ACT_SEND:
            access_slot(r, r->p->links.at[a->link].source.buffer, a->m, false, i);
            break;
        case ACT_RECV:
            access_slot(r, r->p->links.at[a->link].target.buffer, a->m, true, i);
            break;
        case ACT_COPY_OUT:
        case ACT_COPY_IN:
            access_copies(r, i);
            break;
        case ACT_ROUND:
            access_halves(r, i);
            break;
        case ACT_REDUCE:
        case ACT_CLIP:
        case ACT_UPDATE:
            access_weights(r, i, a->kind);
            break;
        case ACT_JOIN:
            if (r->order) {
                end_gpu(r, i);
                break;
            }
            if (r->certain[STREAM_TRANSFER][i] < last[STREAM_TRANSFER])
                complain(r, 0, i, "ends the step before a transfer is complete;",
                         last[STREAM_TRANSFER]);
            for (int k = 0; k < i; k++)
                if (r->list->actions.at[k].kind == ACT_RECV && r->waited_by[k] == NONE)
                    complain(r, 0, i, "ends the step before a transfer is complete;", k);
            break;
        default:
            break;
        }
        last[action_stream(a)] = i;
    }
}

static bool verify_list(const Program *p, int device, const ActionList *list, const Order *order,
                        FILE *to)
{
    Arena *a = arena_new();
    const Device *d = &p->devices.at[device];
    Races r = {.p = p,
               .arena = a,
               .device = device,
               .d = d,
               .list = list,
               .to = to,
               .order = order,
               .of_run = ARENA_ARRAY(a, Accesses, d->chunks.n * RUN_KINDS),
               .watched = ARENA_ARRAY(a, bool, d->buffers.n + 1),
               .cells = ARENA_ARRAY(a, Cell *, d->buffers.n + 1),
               .waited_by = ARENA_ARRAY(a, int, list->actions.n + 1)};
    const int streams = d->offloads.n ? STREAMS : STREAM_TRANSFER + 1;
    for (int s = 0; s < streams; s++)
        r.certain[s] = ARENA_ARRAY(a, int, list->actions.n + 1);
    for (int i = 0; i < list->actions.n; i++)
        r.waited_by[i] = NONE;
    find_accesses(&r);
    for (int b = 0; b < d->buffers.n; b++) {
        int slots = d->buffers.at[b].slots;
        r.cells[b] = r.watched[b] ? ARENA_ARRAY(a, Cell, slots) : NULL;
        for (int s = 0; r.watched[b] && s < slots; s++)
            r.cells[b][s] = (Cell){.m = -1, .writer = NONE, .reader = {NONE, NONE, NONE, NONE}};
    }
    const bool ok = find_certain(&r);
    if (ok)
        walk(&r);
    arena_free(a);
    return ok && r.errors == 0;
}

/* Between peers what is printed are rules by micro-batch, of links: the actions have to follow
 * them. And an event of a message is waited for where the message is taken, nowhere else. */
static bool follows_rules(const Program *p, int device, const ActionList *list, FILE *to)
{
    Arena *arena = arena_new();
    int *taken_by = ARENA_ARRAY(arena, int, list->actions.n + 1);
    bool ok = true;
    for (int i = 0; i < list->actions.n; i++) {
        const Action *a = &list->actions.at[i];
        bool right =
            a->kind != ACT_SEND || a->after_post == (a->m >= p->links.at[a->link].post_from);
        for (int t = 0; t < a->ntakes; t++)
            taken_by[list->takes.at[a->first_take + t]] = i;
        for (int w = 0; w < a->nwaits; w++) {
            int on = list->waits.at[a->first_wait + w];
            const Action *b = &list->actions.at[on];
            if (b->kind == ACT_RECV)
                right = right && taken_by[on] == i && b->m >= p->links.at[b->link].take_from;
        }
        if (!right)
            fprintf(to, "race: %s waits for a message that its link has no event of\n",
                    verify_where(p, device, list, i));
        ok = ok && right;
    }
    arena_free(arena);
    return ok;
}

/* Of the lists of a step, or of an evaluation. */
static bool verify_lists(const Program *p, bool eval, FILE *to)
{
    Arena *a = arena_new();
    const bool gpus = p->transfer != TRANSFER_LINKS;
    const Order *order = gpus ? order_find(a, p, eval) : NULL;
    bool ok = !gpus || order;
    if (!ok)
        fprintf(to, "race: the lists cannot be gone through to their end\n");
    for (int d = 0; d < p->devices.n && (!gpus || order); d++) {
        const ActionList *list = program_list(p, d, eval);
        if (p->transfer == TRANSFER_PEER)
            ok = follows_rules(p, d, list, to) && ok;
        ok = verify_list(p, d, list, order ? &order[d] : NULL, to) && ok;
    }
    arena_free(a);
    return ok;
}

bool verify_races(const Program *p, FILE *to)
{
    if (!verify_shape(p, "race", to))
        return false;
    const bool train = verify_lists(p, false, to);
    return verify_lists(p, true, to) && train;
}
