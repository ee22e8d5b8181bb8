/* executor.c - the actions of a Program under random interleavings (executor.h).
 *
 * In:  a Program; what it has to come to; a machine; a seed.
 * Out: whether this interleaving comes to that, or hangs, or goes wrong.
 *
 * A device has a host thread and its streams for agents. Whoever can go on by one call,
 * copy or wait may be the next to do so. Half of the interleavings draw lots every time. The others
 * give every agent a rank, and the first in rank that can go on does; now and then one gets a new
 * rank. So the last in rank lags behind as far as waits allow, which finds what lots seldom find
 * (Burckhardt et al. 2010). */
#include "machine.h"

#include <string.h>

int machine_draw(Machine *x, int n)
{
    x->chance = x->chance * 6364136223846793005u + 1442695040888963407u;
    return (int)((x->chance >> 33) % (uint64_t)n);
}

static const ActionList *list_at(const Machine *x, int d, const Head *h)
{
    return machine_list(x, d, h->step);
}

static bool *done_at(Machine *x, int d, int step, int action)
{
    return &x->done[step][d * x->longest + action];
}

static int *message_at(Machine *x, int d, int step, int action)
{
    return &x->message[step][d * x->longest + action];
}

/* --------------------------------------------------------------------- links */

/* The receiver's buffer for its next message; NO_MESSAGE after errors. */
static int post(Machine *x, int d, const Action *a, bool count_slots)
{
    const Link *l = &x->p->links.at[a->link];
    LinkState *s = &x->links[a->link];
    int64_t place;
    if (l->to != d)
        machine_fail(x, d, "posts a buffer of a link that does not come here");
    else if (count_slots &&
             s->posted - s->waited >= x->p->devices.at[d].buffers.at[l->target.buffer].slots)
        machine_fail(x, d, "posts more buffers than there are slots");
    else if (s->posted >= x->messages)
        machine_fail(x, d, "posts too many buffers");
    else if (machine_place(x, d, &l->target, a->m, &place)) {
        s->m[s->posted] = a->m;
        s->place[s->posted] = place;
        s->there[s->posted] = s->open[s->posted] = false;
        return s->posted++;
    }
    return NO_MESSAGE;
}

/* Whether the next message of the link may be sent, as far as hosts can tell. */
static bool may_send(Machine *x, int d, const Action *a)
{
    const LinkState *s = &x->links[a->link];
    if (x->p->links.at[a->link].from != d)
        machine_fail(x, d, "sends over a link that does not begin here");
    else if (s->posted > s->sent && s->m[s->sent] != a->m)
        machine_fail(x, d, "sends another micro-batch than was posted");
    else
        return s->posted > s->sent;
    return false;
}

static void copy_message(Machine *x, int d, const Action *a, int n)
{
    const Link *l = &x->p->links.at[a->link];
    LinkState *s = &x->links[a->link];
    int64_t source;
    if (machine_place(x, d, &l->source, a->m, &source))
        machine_copy(x, d, source, l->to, s->place[n], l->bytes);
    s->there[n] = true;
}

/* The host waits for its next message, which has to be this one. false: not yet, or wrong. */
static bool take(Machine *x, int d, const Action *recv, int *message)
{
    LinkState *s = &x->links[recv->link];
    if (x->p->links.at[recv->link].to != d || s->posted <= s->waited)
        machine_fail(x, d, "waits for a message that was not posted");
    else if (s->m[s->waited] != recv->m)
        machine_fail(x, d, "waits for another micro-batch than was posted");
    else if (s->sent > s->waited) {
        *message = s->waited++;
        return true;
    }
    return false;
}

/* ---------------------------------------------------------------------- runs */

/* The next call; true: it was the last. */
static bool run_on(Machine *x, int d, const Action *a, Head *h)
{
    const Chunk *c = &x->p->chunks.at[a->chunk];
    if (c->device != d || !c->has[a->run]) {
        machine_fail(x, d, "runs what it does not have");
        return true;
    }
    const Turns *t = &x->turns[a->chunk * RUN_KINDS + (int)a->run];
    if (h->part < t->n)
        machine_call(x, d, &t->at[h->part++], h->step, a->m);
    return h->part >= t->n;
}

/* What needs no other device: true when it is done. */
static bool compute_on(Machine *x, int d, const Action *a, Head *h)
{
    if (a->kind == ACT_RUN)
        return run_on(x, d, a, h);
    if (action_copies(a)) {
        machine_offload(x, d, a);
        return true;
    }
    if (a->kind >= ACT_ALL_REDUCE)
        machine_fail(x, d, "does what nobody prints");
    machine_whole(x, d, a->kind, h->step);
    return true;
}

/* All devices' hosts: the last to come computes the scale. */
static bool meet(Machine *x, int d, Head *h)
{
    if (!h->met)
        x->clips[d]++;
    h->met = true;
    for (int e = 0; e < x->D; e++)
        if (x->clips[e] < x->clips[d])
            return false;
    if (x->clips[d] > STEPS) {
        machine_fail(x, d, "meets the others too often");
        return false;
    }
    Name *scale = &x->scale[x->clips[d] - 1];
    if (!*scale) {
        *scale = NAME_SCALE;
        for (int w = 0; w < x->p->graph->weights.n; w++)
            *scale = name_with(*scale, x->squares[w]);
    }
    x->device_scale[d] = *scale;
    return true;
}

static bool is_idle(const Machine *x, int d)
{
    bool idle = true;
    for (int s = 0; s < STREAMS; s++)
        idle = idle && x->ended[s][d] == x->queued[s][d];
    return idle;
}

/* May a device begin the step? Training steps follow each other without a meeting; a command ends
 * for all devices together. */
static bool may_begin(const Machine *x, const Head *heads, int step)
{
    for (int e = 0; e < x->D && step == STEP_EVAL; e++) {
        bool idle = is_idle(x, e);
        bool through = heads[e].at >= machine_list(x, e, heads[e].step)->actions.n;
        bool ended = through && (idle || x->kind == MACHINE_STREAMS);
        if (heads[e].step < step - 1 || (heads[e].step == step - 1 && !ended))
            return false;
    }
    return true;
}

static void next_action(Head *h)
{
    *h = (Head){.step = h->step, .at = h->at + 1};
}

/* At the end of a list: the next one. true: there is one and it may begin. */
static bool next_step(Machine *x, Head *heads, int d)
{
    if (heads[d].step + 1 >= STEPS || !may_begin(x, heads, heads[d].step + 1))
        return false;
    heads[d] = (Head){.step = heads[d].step + 1};
    return true;
}

/* ------------------------------------------------------------------- THREADS */

/* The next wait of an action for a message. 0: not yet; 1: done; 2: there is none left. */
static int await_next(Machine *x, int d, const ActionList *list, const Action *a, Head *h)
{
    while (action_stream(a) == STREAM_COMPUTE && !h->begun && h->part < a->nwaits) {
        int on = list->waits.at[a->first_wait + h->part], n;
        if (on < 0 || on >= list->actions.n || list->actions.at[on].kind != ACT_RECV) {
            h->part++;
            continue;
        }
        if (!take(x, d, &list->actions.at[on], &n))
            return 0;
        h->part++;
        return 1;
    }
    return 2;
}

static bool thread_on(Machine *x, int d)
{
    Head *h = &x->host[d];
    const ActionList *list = list_at(x, d, h);
    if (h->at >= list->actions.n)
        return next_step(x, x->host, d);
    const Action *a = &list->actions.at[h->at];
    int awaited = await_next(x, d, list, a, h);
    if (awaited < 2)
        return awaited;
    if (!h->begun)
        h->part = 0;
    h->begun = true;
    if (a->kind == ACT_SEND) {
        if (!may_send(x, d, a))
            return false;
        copy_message(x, d, a, x->links[a->link].sent++);
    } else if (a->kind == ACT_RECV) {
        if (post(x, d, a, true) == NO_MESSAGE)
            return false;
    } else if (a->kind == ACT_CLIP) {
        if (!h->met)
            machine_whole(x, d, ACT_CLIP, h->step);
        if (!meet(x, d, h))
            return false;
    } else if (!compute_on(x, d, a, h)) {
        return true;
    }
    next_action(h);
    return true;
}

/* ------------------------------------------------------------------- streams */

/* What an action waits for that is not on its own stream. */
static bool waits_over(Machine *x, int d, const Head *h, const Action *a)
{
    const ActionList *list = list_at(x, d, h);
    for (int w = 0; w < a->nwaits; w++) {
        int on = list->waits.at[a->first_wait + w];
        if (on < 0 || on >= h->at) /* an event of nothing */
            continue;
        const bool receive = list->actions.at[on].kind == ACT_RECV;
        if (receive && x->kind == MACHINE_PEER)
            continue;
        if (!*done_at(x, d, h->step, on))
            return false;
        if (receive && x->kind == MACHINE_STREAMS &&
            !x->links[list->actions.at[on].link].there[*message_at(x, d, h->step, on)])
            return false;
    }
    for (int t = 0; t < a->ntakes && x->kind == MACHINE_PEER; t++) {
        const Action *on = &list->actions.at[list->takes.at[a->first_take + t]];
        int n = x->taken[h->step][d * x->most_takes + a->first_take + t];
        if (on->m >= x->p->links.at[on->link].take_from && !x->links[on->link].there[n])
            return false;
    }
    return true;
}

/* A device's stream goes to its next action: false where there is none that it may do. */
static bool head_ready(Machine *x, int d, int s)
{
    Head *h = &x->stream[s][d];
    for (;;) {
        const ActionList *list = list_at(x, d, h);
        while (h->at < list->actions.n && (int)action_stream(&list->actions.at[h->at]) != s)
            next_action(h);
        if (h->at < list->actions.n)
            break;
        if (h->step + 1 >= STEPS)
            return false;
        if (x->kind == MACHINE_STREAMS) { /* all begin when the list has been joined */
            if (s == 0 ? !next_step(x, x->stream[0], d) : x->stream[0][d].step == h->step)
                return false;
            *h = (Head){.step = s == 0 ? h->step : h->step + 1};
            x->moved = true;
        } else {
            *h = (Head){.step = h->step + 1};
        }
    }
    if (x->kind != MACHINE_STREAMS && x->ended[s][d] >= x->queued[s][d])
        return false;
    return h->begun || waits_over(x, d, h, &list_at(x, d, h)->actions.at[h->at]);
}

static void finish(Machine *x, int d, int s)
{
    Head *h = &x->stream[s][d];
    *done_at(x, d, h->step, h->at) = true;
    x->ended[s][d]++;
    next_action(h);
}

static bool compute_stream(Machine *x, int d)
{
    if (!head_ready(x, d, 0))
        return false;
    Head *h = &x->stream[0][d];
    const Action *a = &list_at(x, d, h)->actions.at[h->at];
    const bool meets = a->kind == ACT_CLIP && x->kind == MACHINE_STREAMS;
    h->begun = true;
    if (meets && !h->met)
        machine_whole(x, d, ACT_CLIP, h->step);
    if (meets && !meet(x, d, h))
        return false;
    if (!meets && !compute_on(x, d, a, h))
        return true;
    finish(x, d, 0);
    return true;
}

static bool copy_stream(Machine *x, int d, int s)
{
    if (!head_ready(x, d, s))
        return false;
    const Head *h = &x->stream[s][d];
    machine_offload(x, d, &list_at(x, d, h)->actions.at[h->at]);
    finish(x, d, s);
    return true;
}

/* ------------------------------------------------------------------------ NCCL */

static bool same_bytes(Machine *x, int d, int64_t sent, int64_t received)
{
    if (sent != received)
        machine_fail(x, d, "receives a message of another size");
    return sent == received;
}

static bool send_nccl(Machine *x, int d, const Action *a)
{
    const Link *l = &x->p->links.at[a->link];
    const int e = l->to, pair = d * x->D + e;
    const Head *h = &x->stream[1][d];
    const int64_t bytes = value_bytes(x->p, l->value);
    int64_t source, target;
    if (l->from != d)
        machine_fail(x, d, "sends over a link that does not begin here");
    if (x->wrong || !machine_place(x, d, &l->source, a->m, &source))
        return false;
    if (x->buffered && name_with(x->lot, (uint64_t)(h->step * x->longest + h->at)) % 2) {
        const Cell *c = machine_cells(x, d, source, bytes);
        size_t size = sizeof *c * (size_t)((bytes + CELL - 1) / CELL);
        if (!c)
            return false;
        VEC_PUSH(x->arena, &x->parcels[pair], (Parcel){arena_copy(x->arena, c, size), bytes});
        finish(x, d, 1);
        return true;
    }
    if (x->parcels[pair].n > x->parcel[pair] || !head_ready(x, e, 1))
        return false;
    Head *there = &x->stream[1][e];
    const Action *b = &list_at(x, e, there)->actions.at[there->at];
    const Link *k = &x->p->links.at[b->link];
    if (b->kind != ACT_RECV || k->from != d || k->to != e || e == d ||
        !machine_place(x, e, &k->target, b->m, &target) ||
        !same_bytes(x, e, bytes, value_bytes(x->p, k->value)))
        return false;
    machine_copy(x, d, source, e, target, bytes);
    finish(x, d, 1);
    finish(x, e, 1);
    return true;
}

/* What was sent already. */
static bool receive_nccl(Machine *x, int d, const Action *a)
{
    const Link *l = &x->p->links.at[a->link];
    if (l->to != d) {
        machine_fail(x, d, "receives over a link that does not come here");
        return false;
    }
    const int pair = l->from * x->D + d;
    const int64_t bytes = value_bytes(x->p, l->value);
    int64_t target;
    if (x->parcel[pair] >= x->parcels[pair].n || !machine_place(x, d, &l->target, a->m, &target))
        return false;
    const Parcel *parcel = &x->parcels[pair].at[x->parcel[pair]];
    Cell *c = machine_cells(x, d, target, bytes);
    if (!same_bytes(x, d, parcel->bytes, bytes) || !c)
        return false;
    memcpy(c, parcel->cells, sizeof *c * (size_t)((bytes + CELL - 1) / CELL));
    x->parcel[pair]++;
    finish(x, d, 1);
    return true;
}

/* ------------------------------------------------------------- transfer streams */

static bool transfer_stream(Machine *x, int d)
{
    if (!head_ready(x, d, 1))
        return false;
    const Head *h = &x->stream[1][d];
    const Action *a = &list_at(x, d, h)->actions.at[h->at];
    LinkState *s = &x->links[a->link];
    if (x->kind == MACHINE_NCCL)
        return a->kind == ACT_SEND ? send_nccl(x, d, a) : receive_nccl(x, d, a);
    int *message = message_at(x, d, h->step, h->at);
    if (x->kind == MACHINE_STREAMS) {
        if (a->kind == ACT_RECV && (*message = post(x, d, a, false)) == NO_MESSAGE)
            return false;
        if (a->kind == ACT_SEND) {
            if (!may_send(x, d, a))
                return false;
            copy_message(x, d, a, s->sent++);
        }
    } else if (a->kind == ACT_RECV) {
        s->open[*message] = true;
    } else {
        if (a->m >= x->p->links.at[a->link].post_from && !s->open[*message])
            return false;
        copy_message(x, d, a, *message);
    }
    finish(x, d, 1);
    return true;
}

/* ----------------------------------------------------------------- hosts of GPUs */

/* What the host itself waits for before it puts the action into a stream. */
static bool enqueue(Machine *x, int d, Head *h, const Action *a)
{
    const ActionList *list = list_at(x, d, h);
    for (; x->kind == MACHINE_PEER && h->part < a->ntakes; h->part++) {
        int t = a->first_take + h->part;
        if (!take(x, d, &list->actions.at[list->takes.at[t]],
                  &x->taken[h->step][d * x->most_takes + t]))
            return false;
    }
    int *message = message_at(x, d, h->step, h->at);
    if (x->kind == MACHINE_PEER && a->kind == ACT_RECV)
        return (*message = post(x, d, a, true)) != NO_MESSAGE;
    if (x->kind == MACHINE_PEER && a->kind == ACT_SEND) {
        if (!may_send(x, d, a))
            return false;
        *message = x->links[a->link].sent++;
    }
    return true;
}

static bool host_on(Machine *x, int d)
{
    Head *h = &x->host[d];
    const ActionList *list = list_at(x, d, h);
    if (h->at >= list->actions.n) {
        return is_idle(x, d) && next_step(x, x->host, d);
    }
    const Action *a = &list->actions.at[h->at];
    if (!h->begun) {
        if (!enqueue(x, d, h, a))
            return false;
        x->queued[action_stream(a)][d]++;
        h->begun = x->moved = true;
    }
    if (a->kind == ACT_CLIP && (x->ended[0][d] < x->queued[0][d] || !meet(x, d, h)))
        return false;
    next_action(h);
    return true;
}

/* -------------------------------------------------------------------- scheduling */

static bool agent_on(Machine *x, int agent)
{
    int d = agent / (1 + STREAMS), role = agent % (1 + STREAMS);
    if (x->kind == MACHINE_THREADS)
        return role == 0 && thread_on(x, d);
    if (role == 0)
        return x->kind != MACHINE_STREAMS && host_on(x, d);
    return role == 1 + STREAM_COMPUTE    ? compute_stream(x, d)
           : role == 1 + STREAM_TRANSFER ? transfer_stream(x, d)
                                         : copy_stream(x, d, role - 1);
}

/* All lists have been gone through, and no message is left over. */
static void check_end(Machine *x)
{
    for (int d = 0; d < x->D; d++) {
        bool ended = true;
        for (int s = 0; s < STREAMS; s++) {
            const Head *h = x->kind == MACHINE_THREADS ? &x->host[d] : &x->stream[s][d];
            const ActionList *list = list_at(x, d, h);
            int at = h->at;
            while (x->kind != MACHINE_THREADS && at < list->actions.n &&
                   (int)action_stream(&list->actions.at[at]) != s)
                at++;
            ended = ended && h->step + 1 == STEPS && at >= list->actions.n;
        }
        const Head *host = x->kind == MACHINE_STREAMS ? &x->stream[0][d] : &x->host[d];
        if (!ended || host->step + 1 < STEPS)
            machine_fail(x, d, "hangs");
    }
    for (int l = 0; l < x->p->links.n; l++) {
        const LinkState *s = &x->links[l];
        bool hosts = x->kind == MACHINE_THREADS || x->kind == MACHINE_PEER;
        if (s->posted != s->sent || (hosts && s->sent != s->waited))
            machine_fail(x, x->p->links.at[l].from, "leaves a message behind");
    }
    for (int i = 0; i < x->D * x->D; i++)
        if (x->parcel[i] < x->parcels[i].n)
            machine_fail(x, i / x->D, "leaves a message behind");
}

static void execute(Machine *x)
{
    enum { MOST = 160 };
    int rank[MOST], n = (1 + STREAMS) * x->D;
    bool lots = machine_draw(x, 2);
    for (int i = 0; i < n; i++) {
        int k = machine_draw(x, i + 1);
        rank[i] = rank[k];
        rank[k] = i;
    }
    while (!x->wrong) {
        int from = lots ? machine_draw(x, n) : 0, i = 0;
        x->moved = false;
        while (i < n && !x->wrong && !agent_on(x, rank[(from + i) % n]))
            i++;
        if (i == n && !x->moved)
            break;
        if (!lots && machine_draw(x, 64) == 0) {
            int a = machine_draw(x, n), b = machine_draw(x, n), kept = rank[a];
            rank[a] = rank[b];
            rank[b] = kept;
        }
    }
    if (!x->wrong)
        check_end(x);
    if (!x->wrong)
        machine_compare(x);
}

const char *machine_run(Machine *x, uint64_t seed)
{
    machine_begin(x, seed);
    if (!x->wrong)
        execute(x);
    return x->wrong;
}

/* The regions of a GPU's memory that are no tensors. */
static const char *check_kernels(const Program *p)
{
    for (int d = 0; d < p->devices.n; d++) {
        const Device *x = &p->devices.at[d];
        int64_t squares = (int64_t)sizeof(double) * p->graph->weights.n;
        if (x->squares + squares > x->kernel_scratch ||
            x->kernel_scratch + GPU_KERNEL_SCRATCH > x->workspace ||
            x->workspace + GPU_LIBRARY_WORKSPACE > x->bytes)
            return "the memory of the kernels is not theirs alone";
    }
    return NULL;
}

const char *execute_many(Arena *a, const Program *p, const Results *wanted, int runs, uint64_t seed)
{
    static const MachineKind kinds[3][2] = {[TRANSFER_LINKS] = {MACHINE_THREADS, MACHINE_STREAMS},
                                            [TRANSFER_PEER] = {MACHINE_PEER, MACHINE_PEER},
                                            [TRANSFER_NCCL] = {MACHINE_NCCL, MACHINE_NCCL}};
    const char *wrong = p->transfer == TRANSFER_LINKS ? NULL : check_kernels(p);
    Machine *machine[2];
    for (int k = 0; k < 2; k++)
        machine[k] = machine_new(a, p, wanted, kinds[p->transfer][k]);
    for (int i = 0; i < runs && !wrong; i++)
        wrong = machine_run(machine[i % 2], seed + (uint64_t)i);
    return wrong;
}
