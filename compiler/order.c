/* order.c - vector clocks over the streams of all devices (order.h).
 *
 * In:  the lists of all devices, with their waits.
 * Out: what is certainly done before what; or the lists with only the waits that are needed. */
#include "order.h"

#include <stdlib.h>
#include <string.h>

/* A device's clocks tell of as many devices, and of all that it has links with. */
enum { HORIZON = 16 };

typedef VEC(int) Numbers;
typedef VEC(int *) Clocks;

/* Of an action that somebody waits for. */
typedef struct {
    int *clock; /* NULL: it is not done yet, or nobody waits any more */
    int users;  /* waits that still need the clock */
} Done;

typedef struct {
    Arena *arena; /* of the walk */
    const Program *p;
    bool reduce;
    int each;            /* streams of a device: STREAMS where something is offloaded, else two */
    ActionList **list;   /* [devices] */
    Numbers *horizon;    /* [devices]: the devices that its clocks tell of, in ascending order */
    int *own;            /* [devices]: place in its own horizon */
    int **there, **back; /* [links]: for the horizon of the receiver the places in that of the
                            sender, NONE: beyond it; and the other way round */
    int *head[STREAMS];  /* [devices]: next action of each stream */
    int **running;       /* [devices * each]: clock of what is done with the stream's last action */
    Done **done;         /* [devices][actions] */
    int *meeting;        /* [devices * each]: what is done with clipping; NULL: not yet */
    int *clip;           /* [devices]: its clip action, or NONE */
    Clocks *unused;      /* [devices] */
    bool *always_post, *always_take; /* [links]: where a rule by micro-batch would be irregular */
    int **send_at;                   /* [links][micro-batches]: action of the sender, or NONE */
    int **recv_at;                   /* the same of the receiver */
    Numbers *links_in;               /* [devices] */
    int *next_message; /* [links]: first message that the receiver's runs do not know */
    bool *begun;       /* [devices]: has read what the step before left */
    bool *next_step;   /* [links]: what the receiver reads first knows what came a step before */
    Order *order;      /* [devices]; NULL: reducing */
    Numbers *kept;     /* [devices], reducing: the new waits, in the order of finding */
} Walk;

/* ---------------------------------------------------------------------- clocks */

/* A clock of device d has `each` entries for every device of its horizon, in that order. */
static int clock_size(const Walk *w, int d)
{
    return w->horizon[d].n * w->each;
}

/* Where device `of` is in the horizon of d, or NONE. */
static int place_of(const Walk *w, int d, int of)
{
    int lo = 0, hi = w->horizon[d].n;
    if (of == d)
        return w->own[d];
    while (lo < hi) {
        const int mid = (lo + hi) / 2;
        if (w->horizon[d].at[mid] < of)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < w->horizon[d].n && w->horizon[d].at[lo] == of ? lo : NONE;
}

/* What a clock of device d says of a stream of device `of`. */
static int entry(const Walk *w, const int *clock, int d, int of, int stream)
{
    const int place = place_of(w, d, of);
    return place == NONE ? NONE : clock[place * w->each + stream];
}

static int *running(const Walk *w, int d, int stream)
{
    return w->running[w->each * d + stream];
}

/* Its own entry. */
static void set_done(const Walk *w, int *clock, int d, int stream, int at)
{
    clock[w->own[d] * w->each + stream] = at;
}

static int *clock_new(Walk *w, int d)
{
    Clocks *u = &w->unused[d];
    int *c = u->n ? u->at[--u->n] : ARENA_ARRAY(w->arena, int, clock_size(w, d));
    for (int i = 0; i < clock_size(w, d); i++)
        c[i] = NONE;
    return c;
}

/* Two clocks of one device. */
static void clock_join(const Walk *w, int d, int *into, const int *from)
{
    for (int i = 0; i < clock_size(w, d); i++)
        into[i] = from[i] > into[i] ? from[i] : into[i];
}

/* From a clock at the other end of a link; places: of each device of d's horizon there. */
static void clock_join_far(const Walk *w, int d, int *into, const int *from, const int *places)
{
    for (int i = 0; i < w->horizon[d].n; i++)
        for (int s = 0; s < w->each && places[i] != NONE; s++) {
            const int x = from[places[i] * w->each + s], at = i * w->each + s;
            into[at] = x > into[at] ? x : into[at];
        }
}

/* Joins the meeting's clock for what is enqueued after it. */
static void join_meeting(const Walk *w, int d, int at, int *into)
{
    for (int i = 0; i < w->horizon[d].n && w->meeting && at >= w->clip[d]; i++)
        for (int s = 0; s < w->each; s++) {
            const int x = w->meeting[w->horizon[d].at[i] * w->each + s], to = i * w->each + s;
            into[to] = x > into[to] ? x : into[to];
        }
}

/* Whose entry says that `on` is done: device, stream and action. */
static void identity(const Walk *w, int d, int on, int *device, int *stream, int *at)
{
    const Action *a = &w->list[d]->actions.at[on];
    if (a->kind == ACT_RECV && w->p->transfer == TRANSFER_PEER) {
        *device = w->p->links.at[a->link].from;
        *stream = STREAM_TRANSFER;
        *at = w->send_at[a->link][a->m];
    } else {
        *device = d;
        *stream = (int)action_stream(a);
        *at = on;
    }
}

/* A clock of device `whose` says that action `on` of device d is done. */
static bool covers(const Walk *w, const int *clock, int whose, int d, int on)
{
    int device, stream, at;
    identity(w, d, on, &device, &stream, &at);
    return entry(w, clock, whose, device, stream) >= at;
}

static void use(Walk *w, int d, int on)
{
    Done *x = &w->done[d][on];
    if (--x->users == 0) {
        VEC_PUSH(w->arena, &w->unused[d], x->clock);
        x->clock = NULL;
    }
}

/* Keeps a clock of the device for those that wait for the action. */
static void keep(Walk *w, int d, int at, const int *clock)
{
    Done *x = &w->done[d][at];
    if (x->users == 0)
        return;
    x->clock = clock_new(w, d);
    memcpy(x->clock, clock, sizeof(int) * (size_t)clock_size(w, d));
}

/* -------------------------------------------------------------------- the walk */

static bool waits_known(const Walk *w, int d, const Action *a)
{
    for (int i = 0; i < a->nwaits; i++) {
        int on = w->list[d]->waits.at[a->first_wait + i];
        if (!w->done[d][on].clock)
            return false;
    }
    return !(w->meeting == NULL && w->clip[d] != NONE && action_stream(a) != STREAM_COMPUTE &&
             a - w->list[d]->actions.at > w->clip[d]);
}

static bool is_peer_receive(const Walk *w, int d, int on)
{
    return w->p->transfer == TRANSFER_PEER && w->list[d]->actions.at[on].kind == ACT_RECV;
}

static bool take_always(const Walk *w, int d, int on)
{
    return is_peer_receive(w, d, on) && w->always_take[w->list[d]->actions.at[on].link];
}

/* What waits at the end of a list. There the host synchronises both streams of the device, but
 * not the peer's, which copies: that is waited for where the next step does not. */
static bool ended(const Walk *w, int d, int on)
{
    return !is_peer_receive(w, d, on) || w->next_step[w->list[d]->actions.at[on].link];
}

/* Whether neither `clock`, nor the sender's, nor another of its waits implies a wait. */
static bool is_needed(const Walk *w, int d, const Action *a, int on, const int *clock,
                      const int *sends, int sender)
{
    const int *waits = &w->list[d]->waits.at[a->first_wait];
    bool needed = !covers(w, clock, d, d, on) && !(sends && covers(w, sends, sender, d, on));
    for (int k = 0; k < a->nwaits && needed; k++)
        needed = waits[k] == on || !covers(w, w->done[d][waits[k]].clock, d, d, on);
    return needed || take_always(w, d, on);
}

/* Joins to `clock` what the action's waits give. Reducing: only the waits that are needed, which
 * become its waits. sends: for a receive the clock of its sender, else NULL. */
static void take_waits(Walk *w, int d, Action *a, int *clock, const int *sends, int sender)
{
    const int *waits = &w->list[d]->waits.at[a->first_wait];
    const int asked = a->nwaits, first = w->reduce ? w->kept[d].n : 0;
    for (int i = 0; i < asked && w->reduce; i++)
        if (!(a->kind == ACT_JOIN && ended(w, d, waits[i])) &&
            is_needed(w, d, a, waits[i], clock, sends, sender))
            VEC_PUSH(w->p->graph->arena, &w->kept[d], waits[i]);
    const int *kept = w->reduce ? &w->kept[d].at[first] : waits;
    const int n = w->reduce ? w->kept[d].n - first : asked;
    for (int i = 0; i < n; i++)
        if (w->reduce || !(a->kind == ACT_JOIN && ended(w, d, kept[i])))
            clock_join(w, d, clock, w->done[d][kept[i]].clock);
    for (int i = 0; i < asked; i++)
        use(w, d, waits[i]);
    if (w->reduce) {
        a->first_wait = first;
        a->nwaits = n;
    }
}

static void advance(Walk *w, int d, int stream)
{
    const ActionList *list = w->list[d];
    int *at = &w->head[stream][d];
    do
        (*at)++;
    while (*at < list->actions.n && (int)action_stream(&list->actions.at[*at]) != stream);
}

static bool at_end(const Walk *w, int d, int stream)
{
    return w->head[stream][d] >= w->list[d]->actions.n;
}

/* What the receiver's compute stream knows of messages to it from this action on. */
static void note_arrivals(Walk *w, int d, int at, const int *clock)
{
    for (int i = 0; i < w->links_in[d].n && w->order; i++) {
        const int l = w->links_in[d].at[i];
        int *m = &w->next_message[l];
        const int sent = entry(w, clock, d, w->p->links.at[l].from, STREAM_TRANSFER);
        for (; *m < w->p->microbatches && w->send_at[l][*m] != NONE && sent >= w->send_at[l][*m];
             ++*m)
            w->order[d].arrived[w->recv_at[l][*m]] = at;
    }
}

/* What the first run of a step, or the rounding of weights before it, waits for is done after all
 * that was sent in the step before. */
static void note_next_step(Walk *w, int d, const int *clock)
{
    for (int i = 0; i < w->links_in[d].n && !w->begun[d]; i++) {
        const int l = w->links_in[d].at[i];
        w->next_step[l] = entry(w, clock, d, w->p->links.at[l].from, STREAM_TRANSFER) != NONE;
        for (int m = 0; m < w->p->microbatches && w->order; m++)
            if (w->recv_at[l][m] != NONE)
                w->order[d].next_step[w->recv_at[l][m]] = w->next_step[l];
    }
    w->begun[d] = true;
}

static void note_certain(Walk *w, int d, int at, const int *clock)
{
    const int own = w->own[d] * w->each;
    for (int s = 0; s < w->each && w->order; s++)
        w->order[d].certain[s][at] = clock[own + s];
}

/* The meeting of all devices' hosts. */
static bool try_clip(Walk *w)
{
    int n = w->p->devices.n;
    for (int d = 0; d < n; d++) {
        if (at_end(w, d, 0))
            return false;
        const Action *a = &w->list[d]->actions.at[w->head[0][d]];
        if (a->kind != ACT_CLIP || !waits_known(w, d, a))
            return false;
    }
    int *all = ARENA_ARRAY(w->arena, int, n * w->each);
    for (int i = 0; i < n * w->each; i++)
        all[i] = NONE;
    for (int d = 0; d < n; d++) {
        const int at = w->head[0][d];
        int *own = running(w, d, STREAM_COMPUTE);
        take_waits(w, d, &w->list[d]->actions.at[at], own, NULL, NONE);
        note_certain(w, d, at, own);
        note_arrivals(w, d, at, own);
        set_done(w, own, d, STREAM_COMPUTE, at);
        for (int i = 0; i < clock_size(w, d); i++) {
            int *x = &all[w->horizon[d].at[i / w->each] * w->each + i % w->each];
            *x = own[i] > *x ? own[i] : *x;
        }
    }
    w->meeting = all;
    for (int d = 0; d < n; d++) {
        join_meeting(w, d, w->head[0][d], running(w, d, STREAM_COMPUTE));
        keep(w, d, w->head[0][d], running(w, d, STREAM_COMPUTE));
        advance(w, d, 0);
    }
    return true;
}

/* The next action of a stream that meets no other device, or all. */
static bool try_alone(Walk *w, int d, int stream)
{
    if (at_end(w, d, stream))
        return false;
    const int at = w->head[stream][d];
    int *own = running(w, d, stream);
    Action *a = &w->list[d]->actions.at[at];
    if (a->kind == ACT_CLIP)
        return try_clip(w);
    if (!waits_known(w, d, a))
        return false;
    take_waits(w, d, a, own, NULL, NONE);
    note_certain(w, d, at, own);
    if (stream == STREAM_COMPUTE)
        note_arrivals(w, d, at, own);
    if (a->kind == ACT_RUN || a->kind == ACT_ROUND)
        note_next_step(w, d, own);
    set_done(w, own, d, stream, at);
    keep(w, d, at, own);
    advance(w, d, stream);
    return true;
}

/* Whether something that the receiver (d) has to have done is not implied for the sender. */
static bool post_needed(const Walk *w, int d, const Action *r, const int *sends, int sender)
{
    for (int i = 0; i < r->nwaits; i++)
        if (!covers(w, sends, sender, d, w->list[d]->waits.at[r->first_wait + i]))
            return true;
    return false;
}

/* A send and its receive, both next on their streams. */
static bool try_message(Walk *w, int d)
{
    if (at_end(w, d, STREAM_TRANSFER))
        return false;
    const int at = w->head[STREAM_TRANSFER][d];
    Action *send = &w->list[d]->actions.at[at];
    if (send->kind != ACT_SEND || !waits_known(w, d, send))
        return false;
    const int l = send->link, e = w->p->links.at[l].to;
    if (at_end(w, e, STREAM_TRANSFER))
        return false;
    const int there = w->head[STREAM_TRANSFER][e];
    Action *recv = &w->list[e]->actions.at[there];
    if (recv->kind != ACT_RECV || recv->link != l || recv->m != send->m || !waits_known(w, e, recv))
        return false;
    const bool peer = w->p->transfer == TRANSFER_PEER;
    int *s = running(w, d, STREAM_TRANSFER), *r = running(w, e, STREAM_TRANSFER);
    join_meeting(w, d, at, s);
    join_meeting(w, e, there, r);
    take_waits(w, d, send, s, NULL, NONE);
    if (w->reduce && peer)
        send->after_post = post_needed(w, e, recv, s, d) || w->always_post[l];
    take_waits(w, e, recv, r, s, d);
    if (peer && send->after_post)
        clock_join_far(w, d, s, r, w->back[l]);
    for (int i = 0; i < 2 && w->order; i++) {
        const int known = entry(w, s, d, e, i), own = entry(w, r, e, e, i);
        w->order[e].free[i][there] = !peer && own > known ? own : known;
    }
    note_certain(w, d, at, s);
    note_certain(w, e, there, r);
    set_done(w, s, d, STREAM_TRANSFER, at);
    if (peer && w->done[e][there].users) {
        int *brought = clock_new(w, e);
        clock_join_far(w, e, brought, s, w->there[l]);
        w->done[e][there].clock = brought;
    } else if (!peer) {
        clock_join_far(w, e, r, s, w->there[l]);
    }
    set_done(w, r, e, STREAM_TRANSFER, there);
    if (!peer)
        keep(w, e, there, r);
    keep(w, d, at, s);
    advance(w, d, STREAM_TRANSFER);
    advance(w, e, STREAM_TRANSFER);
    return true;
}

/* ------------------------------------------------------------------ its beginning */

static int *new_numbers(Arena *a, int n)
{
    int *x = ARENA_ARRAY(a, int, n + 1);
    for (int i = 0; i <= n; i++)
        x[i] = NONE;
    return x;
}

static int ascending(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

/* The nearest devices, by links. */
static void find_horizons(Walk *w)
{
    const Program *p = w->p;
    const int n = p->devices.n;
    Numbers *near = ARENA_ARRAY(w->arena, Numbers, n);
    int *seen = new_numbers(w->arena, n); /* by whom last */
    for (int l = 0; l < p->links.n; l++) {
        VEC_PUSH(w->arena, &near[p->links.at[l].from], p->links.at[l].to);
        VEC_PUSH(w->arena, &near[p->links.at[l].to], p->links.at[l].from);
    }
    w->horizon = ARENA_ARRAY(w->arena, Numbers, n);
    w->own = ARENA_ARRAY(w->arena, int, n);
    for (int d = 0; d < n; d++) {
        Numbers *h = &w->horizon[d];
        VEC_PUSH(w->arena, h, d);
        seen[d] = d;
        for (int i = 0; i < h->n && (i == 0 || h->n < HORIZON); i++)
            for (int k = 0; k < near[h->at[i]].n && (i == 0 || h->n < HORIZON); k++) {
                const int other = near[h->at[i]].at[k];
                if (seen[other] == d)
                    continue;
                seen[other] = d;
                VEC_PUSH(w->arena, h, other);
            }
        qsort(h->at, (size_t)h->n, sizeof *h->at, ascending);
        while (h->at[w->own[d]] != d)
            w->own[d]++;
    }
}

static int *find_places(Walk *w, int d, int other)
{
    int *places = ARENA_ARRAY(w->arena, int, w->horizon[d].n);
    for (int i = 0; i < w->horizon[d].n; i++)
        places[i] = place_of(w, other, w->horizon[d].at[i]);
    return places;
}

static void find_messages(Walk *w)
{
    const Program *p = w->p;
    w->send_at = ARENA_ARRAY(w->arena, int *, p->links.n + 1);
    w->recv_at = ARENA_ARRAY(w->arena, int *, p->links.n + 1);
    w->there = ARENA_ARRAY(w->arena, int *, p->links.n + 1);
    w->back = ARENA_ARRAY(w->arena, int *, p->links.n + 1);
    w->next_message = ARENA_ARRAY(w->arena, int, p->links.n + 1);
    w->links_in = ARENA_ARRAY(w->arena, Numbers, p->devices.n);
    for (int l = 0; l < p->links.n; l++) {
        w->send_at[l] = new_numbers(w->arena, p->microbatches);
        w->recv_at[l] = new_numbers(w->arena, p->microbatches);
        w->there[l] = find_places(w, p->links.at[l].to, p->links.at[l].from);
        w->back[l] = find_places(w, p->links.at[l].from, p->links.at[l].to);
        VEC_PUSH(w->arena, &w->links_in[p->links.at[l].to], l);
    }
    for (int d = 0; d < p->devices.n; d++)
        for (int i = 0; i < w->list[d]->actions.n; i++) {
            const Action *a = &w->list[d]->actions.at[i];
            if (a->kind == ACT_SEND)
                w->send_at[a->link][a->m] = i;
            else if (a->kind == ACT_RECV)
                w->recv_at[a->link][a->m] = i;
            else if (a->kind == ACT_CLIP)
                w->clip[d] = i;
            for (int k = 0; k < a->nwaits; k++)
                w->done[d][w->list[d]->waits.at[a->first_wait + k]].users++;
        }
}

/* results: where the order is kept, in its arena; NULL: the waits are reduced. */
static Walk begin_walk(Arena *a, Program *p, bool eval, Arena *results)
{
    const int n = p->devices.n, each = program_streams(p);
    Walk w = {.arena = a,
              .p = p,
              .reduce = !results,
              .each = each,
              .list = ARENA_ARRAY(a, ActionList *, n),
              .running = ARENA_ARRAY(a, int *, each *n),
              .done = ARENA_ARRAY(a, Done *, n),
              .clip = new_numbers(a, n),
              .unused = ARENA_ARRAY(a, Clocks, n),
              .begun = ARENA_ARRAY(a, bool, n),
              .next_step = ARENA_ARRAY(a, bool, p->links.n + 1),
              .order = results ? ARENA_ARRAY(results, Order, n) : NULL,
              .kept = ARENA_ARRAY(a, Numbers, n)};
    find_horizons(&w);
    for (int s = 0; s < each; s++)
        w.head[s] = ARENA_ARRAY(a, int, n);
    for (int d = 0; d < n; d++) {
        w.list[d] = program_list(p, d, eval);
        const int actions = w.list[d]->actions.n;
        w.done[d] = ARENA_ARRAY(a, Done, actions + 1);
        if (results)
            w.order[d] =
                (Order){.free = {new_numbers(results, actions), new_numbers(results, actions)},
                        .arrived = new_numbers(results, actions),
                        .next_step = ARENA_ARRAY(results, bool, actions + 1)};
        else
            VEC_RESERVE(p->graph->arena, &w.kept[d], w.list[d]->waits.n);
        for (int s = 0; s < each; s++) {
            if (results)
                w.order[d].certain[s] = new_numbers(results, actions);
            w.running[each * d + s] = clock_new(&w, d);
            w.head[s][d] = -1;
            advance(&w, d, s);
        }
    }
    find_messages(&w);
    return w;
}

static bool try_copy(Walk *w, int d)
{
    return w->each > STREAM_OUT && (try_alone(w, d, STREAM_OUT) || try_alone(w, d, STREAM_IN));
}

/* false: the lists are stuck. */
static bool walk(Walk *w)
{
    bool more = true;
    while (more) {
        more = false;
        for (int d = 0; d < w->p->devices.n; d++)
            while (try_alone(w, d, STREAM_COMPUTE) || try_message(w, d) || try_copy(w, d))
                more = true;
    }
    for (int d = 0; d < w->p->devices.n; d++)
        for (int s = 0; s < w->each; s++)
            if (!at_end(w, d, s))
                return false;
    return true;
}

Order *order_find(Arena *a, const Program *p, bool eval)
{
    Arena *scratch = arena_new();
    Walk w = begin_walk(scratch, (Program *)p, eval, a); /* its lists are only read */
    const bool ended = walk(&w);
    arena_free(scratch);
    return ended ? w.order : NULL;
}

bool order_reduce(Program *p, bool eval, bool *always_post, bool *always_take)
{
    Arena *scratch = arena_new();
    Walk w = begin_walk(scratch, p, eval, NULL);
    w.always_post = always_post;
    w.always_take = always_take;
    const bool ended = walk(&w);
    for (int d = 0; d < p->devices.n && ended; d++) {
        w.list[d]->waits.at = w.kept[d].at;
        w.list[d]->waits.n = w.kept[d].n;
        w.list[d]->waits.cap = w.kept[d].cap;
    }
    arena_free(scratch);
    return ended;
}
