/* communicate.c - transfers and waits around the runs, and slots for the micro-batches.
 *
 * In:  phases, links, and the compute order of every device.
 * Out: the ordered actions of each device; how many micro-batches each buffer holds.
 *
 * A device has two streams, and two more where something is offloaded: runs on one, transfers on
 * another, copies to the host and from it on one each, each in its own order. For
 * links that hold nothing (a send completes only when its receive has started) no order of
 * transfers deadlocks if all devices take theirs from one global order that respects the
 * computation. That order comes from a simulation with the estimated times and instant transfers:
 * micro-batch m crosses a link at
 *
 *     max(its producer has finished, the consumer of micro-batch m - 1 starts)
 *
 * so that one message is under way while the one before is computed on, and no more memory
 * is held than that. Ties: activations before gradients, activations from the front,
 * gradients from the back.
 *
 * A device's list puts each transfer as early as the global order allows. Slots are then read
 * off the lists (slots.c), and waits order the two streams (waits.c).
 */
#include <stdlib.h>
#include "communicate.h"

typedef VEC(int) IntList;

/* What the simulation knows about one link: for each micro-batch. */
typedef struct {
    bool used;
    int *made, *taken; /* slots of the producer's and first consumer's lists; NONE */
} Crossing;

typedef struct {
    double at;
    int order; /* ties: activations from the front, then gradients from the back */
    int link, m;
} Transfer;

typedef struct {
    Program *p;
    Arena *arena;
    Arena *scratch; /* for what the lists are made from */
    const SlotList *slots;
    ActionList *lists;        /* [devices] */
    RunLinks *run_links;      /* [chunks * RUN_KINDS] */
    Crossing *crossing;       /* [links] */
    double **start, **finish; /* [devices][slots] */
    double shortest;          /* seconds of a run at least */
    int M;
    int weight_links; /* that carry one message per step */
} Comm;

/* ------------------------------------------------------------ what runs touch */

static bool run_writes(const Run *run, int buffer)
{
    for (int i = 0; i < run->calls.n; i++)
        for (int k = 0; k < run->calls.at[i].nout; k++)
            if (run->calls.at[i].out[k].buffer == buffer)
                return true;
    return false;
}

static void find_run_links(Comm *c)
{
    Program *p = c->p;
    for (int i = 0; i < p->devices.n; i++) {
        Device *d = &p->devices.at[i];
        int *fills = ARENA_ARRAY(c->arena, int, d->buffers.n + 1);
        for (int b = 0; b < d->buffers.n; b++)
            fills[b] = d->buffers.at[b].class == BUFFER_KEPT ? d->buffers.at[b].link : NONE;
        for (int k = 0; k < d->chunks.n * RUN_KINDS; k++) {
            int chunk = d->chunks.at[k / RUN_KINDS];
            const Run *run = &p->chunks.at[chunk].run[k % RUN_KINDS];
            RunLinks *rl = &c->run_links[chunk * RUN_KINDS + k % RUN_KINDS];
            for (int n = 0; n < run->calls.n; n++)
                for (int r = 0; r < run->calls.at[n].nin; r++) {
                    const Ref *ref = &run->calls.at[n].in[r];
                    int seen[2] = {ref->buffer, ref->entry};
                    for (int s = 0; s < 2; s++) {
                        int link = seen[s] == NONE ? NONE : fills[seen[s]];
                        bool known = link == NONE;
                        for (int x = 0; x < rl->reads.n && !known; x++)
                            known = rl->reads.at[x] == link;
                        if (!known)
                            VEC_PUSH(c->arena, &rl->reads, link);
                    }
                }
        }
    }
    for (int l = 0; l < p->links.n; l++) {
        const Link *link = &p->links.at[l];
        if (link->kind != LINK_ACTIVATION && link->kind != LINK_GRADIENT)
            continue;
        for (int k = 0; k < RUN_KINDS; k++)
            if (run_writes(&p->chunks.at[link->from_chunk].run[k], link->source.buffer))
                VEC_PUSH(c->arena, &c->run_links[link->from_chunk * RUN_KINDS + k].writes, l);
    }
}

/* ----------------------------------------------------------------- simulation */

/* Can the run start at `*at` or later, by the runs done[chunk][kind][m] of other chunks? What
 * a metric reads may come from another chunk's E. */
static bool can_start(const Comm *c, Slot s, const double *done, double *at)
{
    const Chunk *chunk = &c->p->chunks.at[s.chunk];
    for (int i = 0; i < chunk->after[s.run].n; i++) {
        int other = chunk->after[s.run].at[i];
        const RunKind kinds[2] = {!run_goes_back(s.run)               ? RUN_F
                                  : c->p->chunks.at[other].has[RUN_I] ? RUN_I
                                                                      : RUN_B,
                                  RUN_E};
        int n = s.run == RUN_E && c->p->chunks.at[other].has[RUN_E] ? 2 : 1;
        for (int k = 0; k < n; k++) {
            double x = done[(other * RUN_KINDS + (int)kinds[k]) * c->M + s.m];
            if (x < 0)
                return false;
            *at = x > *at ? x : *at;
        }
    }
    return true;
}

/* No run takes no time: what it reads would not be sure to come before what follows it. */
static double shortest_run(const Program *p)
{
    double sum = 0;
    for (int c = 0; c < p->chunks.n; c++)
        sum += p->chunks.at[c].seconds[RUN_F];
    return sum > 0 ? sum / p->chunks.n / 1000 : 1;
}

static double duration(const Comm *c, Slot s)
{
    const double seconds = c->p->chunks.at[s.chunk].seconds[s.run];
    return seconds > c->shortest ? seconds : c->shortest;
}

/* Times of every run, in whatever order the devices can go on. */
static void simulate(Comm *c)
{
    Program *p = c->p;
    int C = p->chunks.n, M = c->M, D = p->devices.n;
    int n = C * RUN_KINDS * M;
    double *done = ARENA_ARRAY(c->scratch, double, n);
    for (int i = 0; i < n; i++)
        done[i] = -1;
    int *next = ARENA_ARRAY(c->scratch, int, D);
    bool moved = true;
    while (moved) {
        moved = false;
        for (int d = 0; d < D; d++)
            for (; next[d] < c->slots[d].n; next[d]++) {
                Slot s = c->slots[d].at[next[d]];
                double t = next[d] ? c->finish[d][next[d] - 1] : 0;
                if (!can_start(c, s, done, &t))
                    break;
                c->start[d][next[d]] = t;
                t += duration(c, s);
                c->finish[d][next[d]] = t;
                done[(s.chunk * RUN_KINDS + (int)s.run) * M + s.m] = t;
                moved = true;
            }
    }
}

static void find_crossings(Comm *c)
{
    Program *p = c->p;
    for (int l = 0; l < p->links.n; l++) {
        Crossing *x = &c->crossing[l];
        x->made = ARENA_ARRAY(c->scratch, int, 2 * c->M);
        x->taken = x->made + c->M;
        for (int m = 0; m < 2 * c->M; m++)
            x->made[m] = NONE;
    }
    for (int d = 0; d < p->devices.n; d++)
        for (int j = 0; j < c->slots[d].n; j++) {
            Slot s = c->slots[d].at[j];
            const RunLinks *rl = &c->run_links[s.chunk * RUN_KINDS + (int)s.run];
            for (int i = 0; i < rl->writes.n; i++)
                c->crossing[rl->writes.at[i]].made[s.m] = j;
            for (int i = 0; i < rl->reads.n; i++) {
                Crossing *x = &c->crossing[rl->reads.at[i]];
                if (x->taken[s.m] == NONE)
                    x->taken[s.m] = j;
            }
        }
    for (int l = 0; l < p->links.n; l++) {
        Crossing *x = &c->crossing[l];
        x->used = true;
        for (int m = 0; m < c->M; m++)
            x->used = x->used && x->made[m] != NONE && x->taken[m] != NONE;
    }
}

static int by_time(const void *a, const void *b)
{
    const Transfer *x = a, *y = b;
    if (x->at < y->at || x->at > y->at)
        return x->at < y->at ? -1 : 1;
    if (x->order != y->order)
        return x->order < y->order ? -1 : 1;
    if (x->m != y->m)
        return x->m < y->m ? -1 : 1;
    return x->link < y->link ? -1 : x->link > y->link;
}

/* The transfers of one device, in the global order. `links`: those that begin or end there. */
static Transfer *order_transfers(Comm *c, Arena *a, const IntList *links, int *count)
{
    const Program *p = c->p;
    Transfer *t = ARENA_ARRAY(a, Transfer, (links->n * c->M + 1));
    *count = 0;
    for (int i = 0; i < links->n; i++) {
        const Crossing *x = &c->crossing[links->at[i]];
        const Link *link = &p->links.at[links->at[i]];
        const bool forward = link->kind == LINK_ACTIVATION;
        for (int m = 0; x->used && m < c->M; m++) {
            double at = c->finish[link->from][x->made[m]];
            if (m > 0 && c->start[link->to][x->taken[m - 1]] > at)
                at = c->start[link->to][x->taken[m - 1]];
            const int order = forward ? link->from_chunk : 2 * p->chunks.n - link->from_chunk;
            t[(*count)++] = (Transfer){at, order, links->at[i], m};
        }
    }
    qsort(t, (size_t)*count, sizeof *t, by_time);
    return t;
}

/* ---------------------------------------------------------------------- lists */

static void push_action(Comm *c, int device, ActionKind kind, int link)
{
    Action a = {.kind = kind, .chunk = NONE, .link = link};
    VEC_PUSH(c->arena, &c->lists[device].actions, a);
}

/* Before which slot a transfer stands at its end on the device. */
static int anchor_of(const Comm *c, const Transfer *t, bool sends)
{
    const Crossing *x = &c->crossing[t->link];
    return sends ? x->made[t->m] + 1 : t->m > 0 ? x->taken[t->m - 1] : 0;
}

/* The copies that stand before a slot of a device. */
typedef struct {
    IntList *out, *in; /* [slots + 1] of chunk * micro-batches + m; NULL: nothing is offloaded */
} Copies;

/* A copy out stands behind the forward pass of the next micro-batch, as that may have begun, and a
 * copy in before the backward pass of the one before, or the run before the first one; but each
 * before what needs it. */
static Copies place_copies(Comm *c, Arena *a, int device)
{
    const Device *d = &c->p->devices.at[device];
    const SlotList *slots = &c->slots[device];
    const int M = c->M, C = c->p->chunks.n;
    if (d->offloads.n == 0)
        return (Copies){0};
    Copies x = {ARENA_ARRAY(a, IntList, slots->n + 1), ARENA_ARRAY(a, IntList, slots->n + 1)};
    int *f = ARENA_ARRAY(a, int, C *M), *b = ARENA_ARRAY(a, int, C *M); /* 1 + first slot */
    for (int j = 0; j < slots->n; j++) {
        const Slot s = slots->at[j];
        int *at = s.run == RUN_F ? f : run_goes_back(s.run) ? b : NULL;
        if (at && !at[s.chunk * M + s.m])
            at[s.chunk * M + s.m] = j + 1;
    }
    for (int i = 0; i < d->offloads.n; i++) {
        const int chunk = d->offloads.at[i].chunk;
        if (i && d->offloads.at[i - 1].chunk == chunk)
            continue;
        for (int n = chunk * M, m = 0; m < M; n++, m++) {
            if (!f[n] || !b[n])
                continue;
            int out = m + 1 < M && f[n + 1] && f[n + 1] < b[n] ? f[n + 1] : f[n];
            int in = m > 0 && b[n - 1] ? b[n - 1] - 1 : b[n] - 2;
            in = in < out ? out : in;
            VEC_PUSH(a, &x.out[out], n);
            VEC_PUSH(a, &x.in[in], n);
        }
    }
    return x;
}

static void push_copies(Comm *c, int device, const IntList *copies, ActionKind kind)
{
    for (int i = 0; i < copies->n; i++) {
        const int n = copies->at[i];
        VEC_PUSH(c->arena, &c->lists[device].actions,
                 (Action){.kind = kind, .chunk = n / c->M, .m = n % c->M, .link = NONE});
    }
}

/* Each transfer as early as it can be, but never before one that the global order has earlier. */
static void merge_list(Comm *c, int device, const IntList *links)
{
    Arena *a = arena_new();
    ActionList *list = &c->lists[device];
    const SlotList *slots = &c->slots[device];
    int n, e = 0, latest = 0;
    const Transfer *t = order_transfers(c, a, links, &n);
    const Copies copies = place_copies(c, a, device);
    VEC_RESERVE(c->arena, &list->actions, slots->n + n + 8 + 2 * c->weight_links);
    if (device_rounds(&c->p->devices.at[device]))
        push_action(c, device, ACT_ROUND, NONE);
    for (int j = 0; j <= slots->n; j++) {
        for (; e < n; e++) {
            const bool sends = c->p->links.at[t[e].link].from == device;
            const int anchor = anchor_of(c, &t[e], sends);
            latest = anchor > latest ? anchor : latest;
            if (latest > j)
                break;
            VEC_PUSH(c->arena, &list->actions,
                     (Action){.kind = sends ? ACT_SEND : ACT_RECV,
                              .link = t[e].link,
                              .m = t[e].m,
                              .chunk = NONE});
        }
        if (copies.out) {
            push_copies(c, device, &copies.out[j], ACT_COPY_OUT);
            push_copies(c, device, &copies.in[j], ACT_COPY_IN);
        }
        if (j == slots->n)
            break;
        const Slot s = slots->at[j];
        VEC_PUSH(c->arena, &list->actions,
                 (Action){.kind = ACT_RUN, .run = s.run, .chunk = s.chunk, .m = s.m, .link = NONE});
    }
    arena_free(a);
}

static void merge_lists(Comm *c)
{
    const Program *p = c->p;
    IntList *links = ARENA_ARRAY(c->scratch, IntList, p->devices.n);
    for (int l = 0; l < p->links.n; l++) {
        VEC_PUSH(c->scratch, &links[p->links.at[l].from], l);
        VEC_PUSH(c->scratch, &links[p->links.at[l].to], l);
    }
    for (int d = 0; d < p->devices.n; d++)
        merge_list(c, d, &links[d]);
}

/* Tied weights, clipping and the update, after the last run. */
static void end_step(Comm *c)
{
    Program *p = c->p;
    static const LinkKind kinds[2] = {LINK_WEIGHT_GRADIENT, LINK_WEIGHT};
    for (int turn = 0; turn < 2; turn++) {
        for (int l = 0; l < p->links.n; l++) {
            const Link *link = &p->links.at[l];
            if (link->kind != kinds[turn])
                continue;
            push_action(c, link->from, ACT_SEND, l);
            push_action(c, link->to, ACT_RECV, l);
        }
        for (int d = 0; d < p->devices.n && turn == 0; d++) {
            bool tied = false, any = false;
            for (int i = 0; i < p->devices.at[d].weights.n; i++) {
                tied = tied || p->devices.at[d].weights.at[i].ngrads > 1;
                any = any || p->devices.at[d].weights.at[i].ngrads > 0;
            }
            if (tied)
                push_action(c, d, ACT_REDUCE, NONE);
            if (program_clips(p))
                push_action(c, d, ACT_CLIP, NONE);
            if (any)
                push_action(c, d, ACT_UPDATE, NONE);
        }
    }
}

/* ------------------------------------------------------------------- the pass */

static void make_lists(Comm *c, bool eval)
{
    Program *p = c->p;
    c->lists = ARENA_ARRAY(c->arena, ActionList, p->devices.n);
    c->scratch = arena_new();
    c->crossing = ARENA_ARRAY(c->scratch, Crossing, p->links.n + 1);
    c->start = ARENA_ARRAY(c->scratch, double *, p->devices.n);
    c->finish = ARENA_ARRAY(c->scratch, double *, p->devices.n);
    for (int d = 0; d < p->devices.n; d++) {
        c->start[d] = ARENA_ARRAY(c->scratch, double, c->slots[d].n + 1);
        c->finish[d] = ARENA_ARRAY(c->scratch, double, c->slots[d].n + 1);
    }
    simulate(c);
    find_crossings(c);
    merge_lists(c);
    if (!eval)
        end_step(c);
    for (int d = 0; d < p->devices.n; d++)
        push_action(c, d, ACT_JOIN, NONE);
    arena_free(c->scratch);
    c->scratch = NULL;
}

static int count_in_flight(const Program *p, const Device *d, const ActionList *list)
{
    const Chunk *front = &p->chunks.at[d->chunks.at[0]];
    const RunKind last = front->has[RUN_W] ? RUN_W : front->has[RUN_I] ? RUN_I : RUN_B;
    int n = 0, most = 0;
    for (int i = 0; i < list->actions.n; i++) {
        const Action *a = &list->actions.at[i];
        if (a->kind != ACT_RUN || a->chunk != d->chunks.at[0] || !front->has[last])
            continue;
        n += a->run == RUN_F ? 1 : a->run == last ? -1 : 0;
        most = n > most ? n : most;
    }
    return most > 0 ? most : 1;
}

void communicate(Program *p, const SlotList *train, const SlotList *eval)
{
    Arena *a = p->graph->arena;
    Comm c = {.p = p, .arena = a, .shortest = shortest_run(p), .M = p->microbatches};
    c.run_links = ARENA_ARRAY(a, RunLinks, p->chunks.n * RUN_KINDS);
    find_run_links(&c);
    for (int l = 0; l < p->links.n; l++)
        c.weight_links +=
            p->links.at[l].kind == LINK_WEIGHT || p->links.at[l].kind == LINK_WEIGHT_GRADIENT;
    Comm e = c;
    c.slots = train;
    e.slots = eval;
    make_lists(&c, false);
    make_lists(&e, true);
    for (int d = 0; d < p->devices.n; d++) {
        count_slots(p, d, &c.lists[d], &e.lists[d]);
        add_waits(p, c.run_links, &c.lists[d], d);
        add_waits(p, e.run_links, &e.lists[d], d);
        p->devices.at[d].train = c.lists[d];
        p->devices.at[d].eval = e.lists[d];
        p->devices.at[d].in_flight = count_in_flight(p, &p->devices.at[d], &c.lists[d]);
    }
}
