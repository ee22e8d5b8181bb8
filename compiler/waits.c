/* waits.c - what orders the streams of a device.
 *
 * In:  the list of one device's actions, and how many slots its buffers have.
 * Out: the same with waits: where one stream reads what the other wrote, and where one writes
 *      over what the other has read. For links between threads none is there that another one
 *      of the device implies; for GPUs order_waits() sees to that. */
#include <string.h>

#include "communicate.h"

/* Tables by [link of this device * micro-batches]. */
typedef struct {
    Program *p;
    Arena *arena; /* of the tables */
    Device *d;
    ActionList *list;
    const RunLinks *run_links;
    int *local;      /* [links]: number among the links of this device */
    int *transfer;   /* its action, or NONE */
    int *last_touch; /* last run that reads what the link brought, or NONE */
    int *made;       /* the run that makes what the link takes away */
    bool *waited;    /* [actions]: some run waits for this receive */
    /* [chunks * micro-batches], of chunks that offload: */
    int *forward, *backward;       /* the run of F; the last so far of the backward pass */
    int *out, *in;                 /* the copies */
    int certain[STREAMS][STREAMS]; /* the last action of each other stream known to be done */
} Waits;

static int entry_of(const Waits *t, int link, int m)
{
    return t->local[link] * t->p->microbatches + m;
}

/* Adds a wait, unless what was waited for before on this stream implies it. For a receive the
 * wait is always there: transfers from several devices end in any order where nothing but
 * the links orders them. On GPUs order_waits() decides, which sees all devices. */
static void add_wait(Waits *t, int action, int on)
{
    ActionList *list = t->list;
    Action *a = &list->actions.at[action];
    int *known = &t->certain[action_stream(a)][action_stream(&list->actions.at[on])];
    bool implied = list->actions.at[on].kind != ACT_RECV && on <= *known;
    if (implied && t->p->transfer == TRANSFER_LINKS)
        return;
    if (on > *known)
        *known = on;
    if (a->nwaits == 0)
        a->first_wait = list->waits.n;
    VEC_PUSH(t->p->graph->arena, &list->waits, on);
    a->nwaits++;
}

static int *new_table(Arena *a, int n)
{
    int *table = ARENA_ARRAY(a, int, n + 1);
    for (int i = 0; i < n; i++)
        table[i] = NONE;
    return table;
}

static Waits make_tables(Program *p, const RunLinks *run_links, ActionList *list, int device)
{
    Arena *a = arena_new();
    Waits t = {.p = p,
               .arena = a,
               .d = &p->devices.at[device],
               .list = list,
               .run_links = run_links,
               .local = ARENA_ARRAY(a, int, p->links.n + 1),
               .waited = ARENA_ARRAY(a, bool, list->actions.n + 1)};
    memset(t.certain, 0xff, sizeof t.certain);
    const int copies = t.d->offloads.n ? p->chunks.n * p->microbatches : 0;
    t.forward = new_table(a, copies);
    t.backward = new_table(a, copies);
    t.out = new_table(a, copies);
    t.in = new_table(a, copies);
    int n = 0;
    for (int l = 0; l < p->links.n; l++)
        if (p->links.at[l].from == device || p->links.at[l].to == device)
            t.local[l] = n++;
    VEC_RESERVE(p->graph->arena, &list->waits, list->actions.n);
    t.transfer = new_table(a, n * p->microbatches);
    t.last_touch = new_table(a, n * p->microbatches);
    t.made = new_table(a, n * p->microbatches);
    for (int i = 0; i < list->actions.n; i++) {
        const Action *x = &list->actions.at[i];
        if (x->kind == ACT_SEND || x->kind == ACT_RECV)
            t.transfer[entry_of(&t, x->link, x->m)] = i;
    }
    return t;
}

/* A run waits for what it is the first to read, and for the sends of what it writes over. */
static void wait_run(Waits *t, int i)
{
    const Action a = t->list->actions.at[i];
    const RunLinks *rl = &t->run_links[a.chunk * RUN_KINDS + (int)a.run];
    for (int k = 0; k < rl->reads.n; k++) {
        int x = entry_of(t, rl->reads.at[k], a.m), on = t->transfer[x];
        if (on != NONE && !t->waited[on]) {
            add_wait(t, i, on);
            t->waited[on] = true;
        }
        t->last_touch[x] = i;
    }
    int send = NONE;
    for (int k = 0; k < rl->writes.n; k++) {
        int link = rl->writes.at[k];
        int slots = t->d->buffers.at[t->p->links.at[link].source.buffer].slots;
        t->made[entry_of(t, link, a.m)] = i;
        int before = a.m >= slots ? t->transfer[entry_of(t, link, a.m - slots)] : NONE;
        send = before > send ? before : send;
    }
    if (send != NONE)
        add_wait(t, i, send);
}

static void add_known_wait(Waits *t, int action, int on)
{
    if (on != NONE)
        add_wait(t, action, on);
}

/* F writes over what is copied out; the backward pass reads what comes back. */
static void wait_for_copies(Waits *t, int i)
{
    if (t->d->offloads.n == 0)
        return;
    const Action a = t->list->actions.at[i];
    const OffloadSlots slots = offload_slots(t->d, a.chunk);
    const int at = a.chunk * t->p->microbatches + a.m;
    if (slots.out == 0)
        return;
    if (a.run == RUN_F) {
        t->forward[at] = i;
        add_known_wait(t, i, a.m >= slots.out ? t->out[at - slots.out] : NONE);
    } else if (run_goes_back(a.run)) {
        if (t->backward[at] == NONE)
            add_known_wait(t, i, t->in[at]);
        t->backward[at] = i;
    }
}

static void wait_copy(Waits *t, int i)
{
    const Action a = t->list->actions.at[i];
    const OffloadSlots slots = offload_slots(t->d, a.chunk);
    const int at = a.chunk * t->p->microbatches + a.m;
    if (a.kind == ACT_COPY_OUT) {
        t->out[at] = i;
        add_known_wait(t, i, t->forward[at]);
        add_known_wait(t, i, a.m >= slots.host ? t->in[at - slots.host] : NONE);
    } else {
        t->in[at] = i;
        add_known_wait(t, i, t->out[at]);
        add_known_wait(t, i, a.m >= slots.back ? t->backward[at - slots.back] : NONE);
    }
}

void add_waits(Program *p, const RunLinks *run_links, ActionList *list, int device)
{
    Waits t = make_tables(p, run_links, list, device);
    int last_run = NONE, update = NONE, last_send = NONE;
    for (int i = 0; i < list->actions.n; i++) {
        const Action a = list->actions.at[i];
        switch (a.kind) {
        case ACT_RUN:
            wait_run(&t, i);
            wait_for_copies(&t, i);
            last_run = i;
            break;
        case ACT_COPY_OUT:
        case ACT_COPY_IN:
            wait_copy(&t, i);
            break;
        case ACT_SEND: {
            LinkKind kind = p->links.at[a.link].kind;
            add_wait(&t, i,
                     kind == LINK_WEIGHT_GRADIENT ? last_run
                     : kind == LINK_WEIGHT        ? update
                                                  : t.made[entry_of(&t, a.link, a.m)]);
            last_send = i;
            break;
        }
        case ACT_RECV: {
            const Buffer *b = &t.d->buffers.at[p->links.at[a.link].target.buffer];
            /* runs read weights; nobody reads a received gradient before it is there */
            int before = b->class == BUFFER_WEIGHT ? last_run
                         : a.m >= b->slots ? t.last_touch[entry_of(&t, a.link, a.m - b->slots)]
                                           : NONE;
            if (before != NONE)
                add_wait(&t, i, before);
            break;
        }
        case ACT_REDUCE:
        case ACT_CLIP:
        case ACT_UPDATE:
        case ACT_JOIN:
            for (int k = 0; k < i; k++)
                if (list->actions.at[k].kind == ACT_RECV && !t.waited[k]) {
                    add_wait(&t, i, k);
                    t.waited[k] = true;
                }
            if (a.kind == ACT_UPDATE)
                update = i;
            if (a.kind == ACT_JOIN && last_send != NONE)
                add_wait(&t, i, last_send);
            break;
        default:
            break;
        }
    }
    arena_free(t.arena);
}
