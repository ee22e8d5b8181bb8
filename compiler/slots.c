/* slots.c - how many micro-batches each buffer holds at a time.
 *
 * In:  the lists of one device's actions.
 * Out: slots of its kept buffers. A buffer holds every micro-batch between its first and its last
 *      access. Buffers that the same runs and links touch are counted as one group; a list
 *      is walked twice for all groups together. */
#include <string.h>

#include "communicate.h"

typedef VEC(int) IntList;

typedef struct {
    IntList touchers; /* chunk * RUN_KINDS + kind, behind the runs the links, then copies */
    IntList buffers;
    int slots;
} Group;

typedef struct {
    Arena *arena;
    const Program *p;
    VEC(Group) groups;
    IntList *groups_of; /* [touchers] */
} Slots;

static void touch(Slots *s, IntList *of, int buffer, int toucher)
{
    IntList *list = buffer == NONE ? NULL : &of[buffer];
    if (list && (list->n == 0 || list->at[list->n - 1] != toucher))
        VEC_PUSH(s->arena, list, toucher);
}

static void add_to_group(Slots *s, const IntList *touchers, int buffer)
{
    for (int i = 0; i < s->groups.n; i++) {
        Group *x = &s->groups.at[i];
        if (x->touchers.n != touchers->n ||
            (touchers->n &&
             memcmp(x->touchers.at, touchers->at, sizeof *touchers->at * (size_t)touchers->n) != 0))
            continue;
        VEC_PUSH(s->arena, &x->buffers, buffer);
        return;
    }
    Group g = {.touchers = *touchers, .slots = 1};
    VEC_PUSH(s->arena, &g.buffers, buffer);
    for (int i = 0; i < touchers->n; i++)
        VEC_PUSH(s->arena, &s->groups_of[touchers->at[i]], s->groups.n);
    VEC_PUSH(s->arena, &s->groups, g);
}

static void find_groups(Slots *s, int device)
{
    const Program *p = s->p;
    const Device *d = &p->devices.at[device];
    const int runs = p->chunks.n * RUN_KINDS;
    IntList *of = ARENA_ARRAY(s->arena, IntList, d->buffers.n + 1);
    s->groups_of = ARENA_ARRAY(s->arena, IntList, runs + p->links.n + 2 * p->chunks.n);
    for (int i = 0; i < d->chunks.n * RUN_KINDS; i++) {
        const int chunk = d->chunks.at[i / RUN_KINDS], kind = i % RUN_KINDS;
        const Run *run = &p->chunks.at[chunk].run[kind];
        for (int n = 0; n < run->calls.n; n++) {
            const Call *call = &run->calls.at[n];
            for (int r = 0; r < call->nin + call->nout; r++) {
                const Ref *ref = r < call->nin ? &call->in[r] : &call->out[r - call->nin];
                touch(s, of, ref->buffer, chunk * RUN_KINDS + kind);
                touch(s, of, ref->entry, chunk * RUN_KINDS + kind);
            }
        }
    }
    for (int l = 0; l < p->links.n; l++) {
        const Link *link = &p->links.at[l];
        if (link->from == device)
            touch(s, of, link->source.buffer, runs + l);
        if (link->to == device)
            touch(s, of, link->target.buffer, runs + l);
    }
    for (int i = 0; i < d->offloads.n; i++) {
        const Offload *o = &d->offloads.at[i];
        const int copies = runs + p->links.n + 2 * o->chunk;
        touch(s, of, o->buffer, copies);
        touch(s, of, o->host, copies);
        touch(s, of, o->host, copies + 1);
        touch(s, of, o->back, copies + 1);
    }
    for (int b = 0; b < d->buffers.n; b++)
        if (d->buffers.at[b].class == BUFFER_KEPT || d->buffers.at[b].class == BUFFER_HOST)
            add_to_group(s, &of[b], b);
}

/* The groups that an action touches. */
static const IntList *touched(const Slots *s, const Action *a)
{
    static const IntList none = {0};
    if (a->kind == ACT_RUN)
        return &s->groups_of[a->chunk * RUN_KINDS + (int)a->run];
    if (a->kind == ACT_SEND || a->kind == ACT_RECV)
        return &s->groups_of[s->p->chunks.n * RUN_KINDS + a->link];
    if (action_copies(a))
        return &s->groups_of[s->p->chunks.n * RUN_KINDS + s->p->links.n + 2 * a->chunk +
                             (a->kind == ACT_COPY_IN)];
    return &none;
}

/* The most micro-batches between first and last access at one time. A buffer whose last
 * access is a send gets one more, so that the next micro-batch need not wait for it. */
static void count(Slots *s, const ActionList *list)
{
    const int M = s->p->microbatches, n = s->groups.n;
    int *last = ARENA_ARRAY(s->arena, int, n *M + 1);
    int *oldest = ARENA_ARRAY(s->arena, int, n + 1), *newest = ARENA_ARRAY(s->arena, int, n + 1);
    int *most = ARENA_ARRAY(s->arena, int, n + 1);
    for (int i = 0; i < n * M; i++)
        last[i] = NONE;
    for (int g = 0; g < n; g++)
        newest[g] = NONE, most[g] = 1;
    for (int i = 0; i < list->actions.n; i++) {
        const Action *a = &list->actions.at[i];
        const IntList *groups = touched(s, a);
        for (int k = 0; k < groups->n; k++)
            last[groups->at[k] * M + a->m] = i;
    }
    for (int i = 0; i < list->actions.n; i++) {
        const Action *a = &list->actions.at[i];
        const IntList *groups = touched(s, a);
        for (int k = 0; k < groups->n; k++) {
            const int g = groups->at[k];
            if (a->m <= newest[g])
                continue;
            newest[g] = a->m;
            while (oldest[g] < newest[g] && last[g * M + oldest[g]] < i)
                oldest[g]++;
            most[g] = newest[g] - oldest[g] + 1 > most[g] ? newest[g] - oldest[g] + 1 : most[g];
        }
    }
    for (int g = 0; g < n; g++) {
        const int end = last[g * M];
        if (end != NONE && list->actions.at[end].kind == ACT_SEND && most[g] < M)
            most[g]++;
        s->groups.at[g].slots = most[g] > s->groups.at[g].slots ? most[g] : s->groups.at[g].slots;
    }
}

void count_slots(Program *p, int device, const ActionList *train, const ActionList *eval)
{
    Slots s = {.arena = arena_new(), .p = p};
    find_groups(&s, device);
    count(&s, train);
    count(&s, eval);
    for (int g = 0; g < s.groups.n; g++)
        for (int b = 0; b < s.groups.at[g].buffers.n; b++)
            p->devices.at[device].buffers.at[s.groups.at[g].buffers.at[b]].slots =
                s.groups.at[g].slots;
    arena_free(s.arena);
}
