/* order.c - vector clocks over the streams of all devices; the fewest waits (order.h). */
#include "order.h"

#include <string.h>

typedef VEC(int) Numbers;

typedef struct {
    Arena *arena;
    const Program *p;
    bool eval, reduce;
    int streams;        /* of all devices */
    int each;           /* of a device: STREAMS where something is offloaded, else two */
    ActionList **list;  /* [devices] */
    int *head[STREAMS]; /* [devices]: next action of each stream */
    int **running;      /* [streams]: clock of what is done with the stream's last action */
    int ***done;        /* [devices][actions]: clock, of those that somebody waits for */
    int **users;        /* [devices][actions]: waits that still need `done` */
    int **meeting;      /* [devices]: clock after clipping, for what is enqueued later */
    int *clip;          /* [devices]: its clip action, or NONE */
    VEC(int *) unused;  /* clocks */
    bool *always_post, *always_take; /* [links]: where a rule by micro-batch would be irregular */
    int **send_at;                   /* [links][micro-batches]: action of the sender, or NONE */
    int **recv_at;                   /* the same of the receiver */
    Numbers *links_in;               /* [devices] */
    int *next_message; /* [links]: first message that the receiver's runs do not know */
    bool *begun;       /* [devices]: has read what the step before left */
    bool *next_step;   /* [links]: what the receiver reads first knows what came a step before */
    Order *order;      /* [devices] */
    Numbers *kept;     /* [devices]: the new waits, in the order of finding */
} Walk;

static int stream_of(const Walk *w, int device, int stream)
{
    return w->each * device + stream;
}

static int *clock_new(Walk *w)
{
    int *c = w->unused.n ? w->unused.at[--w->unused.n] : ARENA_ARRAY(w->arena, int, w->streams);
    for (int i = 0; i < w->streams; i++)
        c[i] = NONE;
    return c;
}

static void clock_join(const Walk *w, int *into, const int *from)
{
    for (int i = 0; i < w->streams; i++)
        into[i] = from[i] > into[i] ? from[i] : into[i];
}

/* The clock that waiting for action `on` of device d gives: for peers' receives the send's. */
static const int *done_clock(const Walk *w, int d, int on)
{
    return w->done[d][on];
}

/* Whose entry says that `on` is done: stream and action. */
static void identity(const Walk *w, int d, int on, int *stream, int *at)
{
    const Action *a = &w->list[d]->actions.at[on];
    if (a->kind == ACT_RECV && w->p->transfer == TRANSFER_PEER) {
        const Link *l = &w->p->links.at[a->link];
        *stream = stream_of(w, l->from, 1);
        *at = w->send_at[a->link][a->m];
    } else {
        *stream = stream_of(w, d, (int)action_stream(a));
        *at = on;
    }
}

static bool covers(const Walk *w, const int *clock, int d, int on)
{
    int stream, at;
    identity(w, d, on, &stream, &at);
    return clock[stream] >= at;
}

static void use(Walk *w, int d, int on)
{
    if (--w->users[d][on] == 0) {
        VEC_PUSH(w->arena, &w->unused, w->done[d][on]);
        w->done[d][on] = NULL;
    }
}

/* Keeps the clock of an action for those that wait for it. */
static void keep(Walk *w, int d, int at, const int *clock)
{
    if (w->users[d][at] == 0)
        return;
    w->done[d][at] = clock_new(w);
    memcpy(w->done[d][at], clock, sizeof(int) * (size_t)w->streams);
}

static bool waits_known(const Walk *w, int d, const Action *a)
{
    for (int i = 0; i < a->nwaits; i++) {
        int on = w->list[d]->waits.at[a->first_wait + i];
        if (!w->done[d][on])
            return false;
    }
    return !(w->meeting[d] == NULL && w->clip[d] != NONE && action_stream(a) != STREAM_COMPUTE &&
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

/* Joins to `clock` what the action's waits give. Reducing: only the waits that neither `clock`,
 * `other` (may be NULL) nor another of its waits implies, which become its waits. */
static void take_waits(Walk *w, int d, Action *a, int *clock, const int *other)
{
    ActionList *list = w->list[d];
    int first = w->kept[d].n, kept = 0;
    for (int i = 0; i < a->nwaits; i++) {
        int on = list->waits.at[a->first_wait + i];
        bool needed = !covers(w, clock, d, on) && !(other && covers(w, other, d, on));
        for (int k = 0; k < a->nwaits && needed; k++) {
            int than = list->waits.at[a->first_wait + k];
            needed = than == on || !covers(w, done_clock(w, d, than), d, on);
        }
        if (a->kind == ACT_JOIN && ended(w, d, on))
            continue;
        if (!w->reduce || needed || take_always(w, d, on)) {
            VEC_PUSH(w->arena, &w->kept[d], on);
            kept++;
        }
    }
    for (int i = 0; i < kept; i++)
        clock_join(w, clock, done_clock(w, d, w->kept[d].at[first + i]));
    for (int i = 0; i < a->nwaits; i++)
        use(w, d, list->waits.at[a->first_wait + i]);
    if (w->reduce) {
        a->first_wait = first;
        a->nwaits = kept;
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
    for (int i = 0; i < w->links_in[d].n; i++) {
        int l = w->links_in[d].at[i], *m = &w->next_message[l];
        int sender = stream_of(w, w->p->links.at[l].from, 1);
        for (; *m < w->p->microbatches && w->send_at[l][*m] != NONE &&
               clock[sender] >= w->send_at[l][*m];
             ++*m)
            w->order[d].arrived[w->recv_at[l][*m]] = at;
    }
}

/* What the first run of a step, or the rounding of weights before it, waits for is done after all
 * that was sent in the step before. */
static void note_next_step(Walk *w, int d, const int *clock)
{
    for (int i = 0; i < w->links_in[d].n && !w->begun[d]; i++) {
        int l = w->links_in[d].at[i];
        w->next_step[l] = clock[stream_of(w, w->p->links.at[l].from, 1)] != NONE;
        for (int m = 0; m < w->p->microbatches; m++)
            if (w->recv_at[l][m] != NONE)
                w->order[d].next_step[w->recv_at[l][m]] = w->next_step[l];
    }
    w->begun[d] = true;
}

static void note_certain(Walk *w, int d, int at, const int *clock)
{
    for (int s = 0; s < w->each; s++)
        w->order[d].certain[s][at] = clock[stream_of(w, d, s)];
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
    int *all = clock_new(w);
    for (int d = 0; d < n; d++) {
        int s = stream_of(w, d, 0), at = w->head[0][d];
        take_waits(w, d, &w->list[d]->actions.at[at], w->running[s], NULL);
        note_certain(w, d, at, w->running[s]);
        note_arrivals(w, d, at, w->running[s]);
        w->running[s][s] = at;
        clock_join(w, all, w->running[s]);
    }
    for (int d = 0; d < n; d++) {
        clock_join(w, w->running[stream_of(w, d, 0)], all);
        w->meeting[d] = all;
        keep(w, d, w->head[0][d], all);
        advance(w, d, 0);
    }
    return true;
}

/* The next action of a stream that meets no other device, or all. */
static bool try_alone(Walk *w, int d, int stream)
{
    if (at_end(w, d, stream))
        return false;
    int at = w->head[stream][d], s = stream_of(w, d, stream);
    Action *a = &w->list[d]->actions.at[at];
    if (a->kind == ACT_CLIP)
        return try_clip(w);
    if (!waits_known(w, d, a))
        return false;
    take_waits(w, d, a, w->running[s], NULL);
    note_certain(w, d, at, w->running[s]);
    if (stream == STREAM_COMPUTE)
        note_arrivals(w, d, at, w->running[s]);
    if (a->kind == ACT_RUN || a->kind == ACT_ROUND)
        note_next_step(w, d, w->running[s]);
    w->running[s][s] = at;
    keep(w, d, at, w->running[s]);
    advance(w, d, stream);
    return true;
}

/* Joins the meeting's clock for what is enqueued after it. */
static void join_meeting(Walk *w, int d, int at, int *clock)
{
    if (w->meeting[d] && at > w->clip[d])
        clock_join(w, clock, w->meeting[d]);
}

/* Whether something that the receiver has to have done is not implied for the sender. */
static bool post_needed(const Walk *w, int d, const Action *r, const int *sender)
{
    for (int i = 0; i < r->nwaits; i++)
        if (!covers(w, sender, d, w->list[d]->waits.at[r->first_wait + i]))
            return true;
    return false;
}

/* A send and its receive, both next on their streams. */
static bool try_message(Walk *w, int d)
{
    if (at_end(w, d, 1))
        return false;
    int at = w->head[1][d], from = stream_of(w, d, 1);
    Action *send = &w->list[d]->actions.at[at];
    if (send->kind != ACT_SEND || !waits_known(w, d, send))
        return false;
    int e = w->p->links.at[send->link].to, to = stream_of(w, e, 1);
    if (at_end(w, e, 1))
        return false;
    int there = w->head[1][e];
    Action *recv = &w->list[e]->actions.at[there];
    if (recv->kind != ACT_RECV || recv->link != send->link || recv->m != send->m ||
        !waits_known(w, e, recv))
        return false;
    bool peer = w->p->transfer == TRANSFER_PEER;
    int *s = w->running[from], *r = w->running[to];
    join_meeting(w, d, at, s);
    join_meeting(w, e, there, r);
    take_waits(w, d, send, s, NULL);
    if (w->reduce && peer)
        send->after_post = post_needed(w, e, recv, s) || w->always_post[send->link];
    take_waits(w, e, recv, r, s);
    if (peer && send->after_post)
        clock_join(w, s, r);
    Order *x = &w->order[e];
    for (int i = 0; i < 2; i++) {
        int known = s[stream_of(w, e, i)], own = r[stream_of(w, e, i)];
        x->free[i][there] = !peer && own > known ? own : known;
    }
    note_certain(w, d, at, s);
    note_certain(w, e, there, r);
    s[from] = at;
    if (peer) {
        r[to] = there;
        keep(w, e, there, s);
    } else {
        clock_join(w, r, s);
        r[to] = there;
        keep(w, e, there, r);
    }
    keep(w, d, at, s);
    advance(w, d, 1);
    advance(w, e, 1);
    return true;
}

/* ------------------------------------------------------------------- the walk */

static ActionList *list_of(Program *p, int device, bool eval)
{
    return eval ? &p->devices.at[device].eval : &p->devices.at[device].train;
}

static int *new_numbers(Arena *a, int n)
{
    int *x = ARENA_ARRAY(a, int, n + 1);
    for (int i = 0; i <= n; i++)
        x[i] = NONE;
    return x;
}

static void find_messages(Walk *w)
{
    const Program *p = w->p;
    w->send_at = ARENA_ARRAY(w->arena, int *, p->links.n + 1);
    w->recv_at = ARENA_ARRAY(w->arena, int *, p->links.n + 1);
    w->next_message = ARENA_ARRAY(w->arena, int, p->links.n + 1);
    w->links_in = ARENA_ARRAY(w->arena, Numbers, p->devices.n);
    for (int l = 0; l < p->links.n; l++) {
        w->send_at[l] = new_numbers(w->arena, p->microbatches);
        w->recv_at[l] = new_numbers(w->arena, p->microbatches);
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
                w->users[d][w->list[d]->waits.at[a->first_wait + k]]++;
        }
}

static Walk begin_walk(Program *p, bool eval, bool reduce)
{
    Arena *a = p->graph->arena;
    int n = p->devices.n, each = STREAM_TRANSFER + 1;
    for (int d = 0; d < n; d++)
        each = p->devices.at[d].offloads.n ? STREAMS : each;
    Walk w = {.arena = a,
              .p = p,
              .eval = eval,
              .reduce = reduce,
              .streams = each * n,
              .each = each,
              .list = ARENA_ARRAY(a, ActionList *, n),
              .running = ARENA_ARRAY(a, int *, each *n),
              .done = ARENA_ARRAY(a, int **, n),
              .users = ARENA_ARRAY(a, int *, n),
              .meeting = ARENA_ARRAY(a, int *, n),
              .clip = new_numbers(a, n),
              .begun = ARENA_ARRAY(a, bool, n),
              .next_step = ARENA_ARRAY(a, bool, p->links.n + 1),
              .order = ARENA_ARRAY(a, Order, n),
              .kept = ARENA_ARRAY(a, Numbers, n)};
    for (int s = 0; s < each; s++)
        w.head[s] = ARENA_ARRAY(a, int, n);
    for (int d = 0; d < n; d++) {
        w.list[d] = list_of(p, d, eval);
        int actions = w.list[d]->actions.n;
        w.done[d] = ARENA_ARRAY(a, int *, actions + 1);
        w.users[d] = ARENA_ARRAY(a, int, actions + 1);
        w.order[d] = (Order){.free = {new_numbers(a, actions), new_numbers(a, actions)},
                             .arrived = new_numbers(a, actions),
                             .next_step = ARENA_ARRAY(a, bool, actions + 1)};
        for (int s = 0; s < each; s++) {
            w.order[d].certain[s] = new_numbers(a, actions);
            w.running[stream_of(&w, d, s)] = clock_new(&w);
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

Order *order_find(const Program *p, bool eval)
{
    Walk w = begin_walk((Program *)p, eval, false); /* its lists are only read */
    return walk(&w) ? w.order : NULL;
}

/* --------------------------------------------------------------- the fewest waits */

static ActionList copy_list(Arena *a, const ActionList *from)
{
    ActionList to = {0};
    for (int i = 0; i < from->actions.n; i++)
        VEC_PUSH(a, &to.actions, from->actions.at[i]);
    for (int i = 0; i < from->waits.n; i++)
        VEC_PUSH(a, &to.waits, from->waits.at[i]);
    return to;
}

/* Whether message m of each link is waited for: by the sender for its post, by the receiver's
 * runs for its arrival. [links][micro-batches] */
typedef enum { NOT_THERE, NOT_NEEDED, NEEDED } Need;
typedef struct {
    Need **post, **take;
} Needs;

static Needs find_needs(Program *p, bool eval, const ActionList *full)
{
    Arena *a = p->graph->arena;
    Needs n = {ARENA_ARRAY(a, Need *, p->links.n + 1), ARENA_ARRAY(a, Need *, p->links.n + 1)};
    for (int l = 0; l < p->links.n; l++) {
        n.post[l] = ARENA_ARRAY(a, Need, p->microbatches);
        n.take[l] = ARENA_ARRAY(a, Need, p->microbatches);
    }
    for (int d = 0; d < p->devices.n; d++)
        for (int asked = 1; asked >= 0; asked--) {
            const ActionList *list = asked ? &full[d] : list_of(p, d, eval);
            for (int i = 0; i < list->actions.n; i++) {
                const Action *x = &list->actions.at[i];
                if (x->kind == ACT_SEND)
                    n.post[x->link][x->m] = x->after_post ? NEEDED : NOT_NEEDED;
                for (int k = 0; k < x->nwaits; k++) {
                    const Action *on = &list->actions.at[list->waits.at[x->first_wait + k]];
                    if (on->kind == ACT_RECV)
                        n.take[on->link][on->m] = asked ? NOT_NEEDED : NEEDED;
                }
            }
        }
    return n;
}

/* The m from which on messages are waited for, the same for a step and an evaluation; NONE:
 * there is no such rule. */
static int rule_of(const Need *train, const Need *eval, int n)
{
    const Need *both[2] = {train, eval};
    int from = n;
    for (int k = 0; k < 2; k++)
        for (int m = 0; m < n; m++)
            if (both[k][m] == NEEDED && m < from)
                from = m;
    for (int k = 0; k < 2; k++)
        for (int m = 0; m < n; m++)
            if (both[k][m] != NOT_THERE && (both[k][m] == NEEDED) != (m >= from))
                return NONE;
    return from;
}

/* false: no rule; *always has been set. */
static bool settle(int *from, bool *always, const Need *train, const Need *eval, int n)
{
    int rule = rule_of(train, eval, n);
    *from = rule == NONE ? 0 : rule;
    *always = *always || rule == NONE;
    return rule != NONE;
}

static void reduce(Program *p, bool eval, bool *always_post, bool *always_take)
{
    Walk w = begin_walk(p, eval, true);
    w.always_post = always_post;
    w.always_take = always_take;
    if (!walk(&w))
        return; /* the verifier will say where it is stuck */
    for (int d = 0; d < p->devices.n; d++) {
        w.list[d]->waits.at = w.kept[d].at;
        w.list[d]->waits.n = w.kept[d].n;
        w.list[d]->waits.cap = w.kept[d].cap;
    }
}

static void note_takes(Arena *a, ActionList *list, const ActionList *full)
{
    for (int i = 0; i < list->actions.n; i++) {
        const Action *x = &full->actions.at[i];
        list->actions.at[i].first_take = list->takes.n;
        for (int k = 0; k < x->nwaits; k++) {
            int on = full->waits.at[x->first_wait + k];
            if (full->actions.at[on].kind == ACT_RECV && action_stream(x) == STREAM_COMPUTE)
                VEC_PUSH(a, &list->takes, on);
        }
        list->actions.at[i].ntakes = list->takes.n - list->actions.at[i].first_take;
    }
}

void order_waits(Program *p)
{
    Arena *a = p->graph->arena;
    ActionList *full[2] = {ARENA_ARRAY(a, ActionList, p->devices.n),
                           ARENA_ARRAY(a, ActionList, p->devices.n)};
    bool *post = ARENA_ARRAY(a, bool, p->links.n + 1), *take = ARENA_ARRAY(a, bool, p->links.n + 1);
    for (int d = 0; d < p->devices.n; d++)
        for (int eval = 0; eval < 2; eval++)
            full[eval][d] = copy_list(a, list_of(p, d, eval));
    for (bool settled = false; !settled;) {
        Needs needs[2];
        for (int eval = 0; eval < 2; eval++) {
            for (int d = 0; d < p->devices.n; d++)
                *list_of(p, d, eval) = copy_list(a, &full[eval][d]);
            reduce(p, eval, post, take);
            needs[eval] = find_needs(p, eval, full[eval]);
        }
        settled = true;
        for (int l = 0; l < p->links.n && p->transfer == TRANSFER_PEER; l++) {
            Link *k = &p->links.at[l];
            const Needs *t = &needs[0], *e = &needs[1];
            int n = p->microbatches;
            settled = settle(&k->post_from, &post[l], t->post[l], e->post[l], n) && settled;
            settled = settle(&k->take_from, &take[l], t->take[l], e->take[l], n) && settled;
        }
    }
    for (int d = 0; d < p->devices.n && p->transfer == TRANSFER_PEER; d++)
        for (int eval = 0; eval < 2; eval++)
            note_takes(a, list_of(p, d, eval), &full[eval][d]);
}
