/* verify.c - the proofs of coverage and of freedom from deadlock.
 *
 * The verifier reads the Program that is emitted and trusts none of the passes that made it.
 *
 * Coverage: every operation of the graph is executed by exactly one call of one chunk (a call
 * in a loop stands for one operation per turn), on the tensors that the graph names
 * (verify_values.c); every chunk runs F, and B where it has one, exactly once for every
 * micro-batch, B after F, B in the order of the micro-batches; every trained weight is updated
 * once, by its owner, after all of that, from the gradients of all its uses.
 *
 * No deadlock: the lists are executed under the rules of NCCL at their strictest. A device has
 * streams, each in order. A send and its receive complete together, when both are the
 * next on their streams and all that they wait for is done; nothing is buffered. Then again
 * under the rules of the host's links, which hosts of GPUs follow between peers: one thread per
 * device, in the order of the list; a receive posts its buffer, in a free slot, and goes on; a send
 * waits for the post; a run takes the messages that it reads, each once and in order, when they
 * have been sent. If everything is executed, no order of events can hang, since neither rule ever
 * lets a choice be made: what can go on stays able to go on.
 */
#include "verify.h"

#include <stdlib.h>
#include <string.h>

const char *verify_where(const Program *p, int device, const ActionList *list, int action)
{
    Arena *a = p->graph->arena;
    const Action *x = &list->actions.at[action];
    const char *name = p->devices.at[device].name;
    switch (x->kind) {
    case ACT_RUN:
        return arena_printf(a, "%s, action %d (%d%s%d)", name, action, x->chunk, run_name(x->run),
                            x->m);
    case ACT_SEND:
    case ACT_RECV:
        return arena_printf(a, "%s, action %d (%s of %s, micro-batch %d)", name, action,
                            x->kind == ACT_SEND ? "send" : "receive", p->links.at[x->link].name,
                            x->m);
    case ACT_COPY_OUT:
    case ACT_COPY_IN:
        return arena_printf(a, "%s, action %d (copy %s of chunk %d, micro-batch %d)", name, action,
                            x->kind == ACT_COPY_OUT ? "out" : "in", x->chunk, x->m);
    default:
        return arena_printf(a, "%s, action %d", name, action);
    }
}

/* -------------------------------------------------------------------- coverage */

static void cover_op(const Program *p, int *runs, int *reports, const Call *c, int done)
{
    if (c->kind == CALL_OP)
        runs[c->ops[done]]++;
    else if (c->kind == CALL_LOSS)
        reports[0]++;
    else if (c->kind == CALL_METRIC && c->input < p->graph->metrics.n)
        reports[1 + c->input]++;
}

/* Every operation in one place, the loss and each metric reported once. */
static bool cover_ops(const Program *p, FILE *to)
{
    const Graph *g = p->graph;
    int *runs = ARENA_ARRAY(g->arena, int, g->ops.n + 1);
    int *reports = ARENA_ARRAY(g->arena, int, g->metrics.n + 1);
    for (int c = 0; c < p->chunks.n; c++)
        for (int k = 0; k < RUN_KINDS; k++) {
            const Run *run = &p->chunks.at[c].run[k];
            for (int s = 0; s < run->steps.n; s++) {
                const Step *step = &run->steps.at[s];
                for (int i = step->first; i < step->first + step->ncalls; i++)
                    for (int done = 0; done < step->turns; done++)
                        cover_op(p, runs, reports, &run->calls.at[i], done);
            }
        }
    bool ok = true;
    for (OpId o = 0; o < g->ops.n; o++)
        if (runs[o] != (g->ops.at[o].kind != OP_RESHAPE)) {
            fprintf(to, "coverage: operation %d (%s) is in %d places\n", o,
                    op_name(g->ops.at[o].kind), runs[o]);
            ok = false;
        }
    for (int i = 0; i < g->metrics.n + 1; i++)
        if (reports[i] != 1) {
            fprintf(to, "coverage: %s is reported %d times\n",
                    i ? g->metrics.at[i - 1].name : "the loss", reports[i]);
            ok = false;
        }
    return ok;
}

static bool cover_runs(const Program *p, const ActionList *list, int device, bool eval, FILE *to)
{
    bool ok = true;
    const Device *d = &p->devices.at[device];
    for (int i = 0; i < d->chunks.n; i++) {
        const Chunk *c = &p->chunks.at[d->chunks.at[i]];
        int next[RUN_KINDS] = {0};
        for (int n = 0; n < list->actions.n; n++) {
            const Action *a = &list->actions.at[n];
            if (a->kind != ACT_RUN || a->chunk != c->number)
                continue;
            bool after_f = a->run == RUN_F || next[RUN_F] > a->m;
            if (a->m != next[a->run] || !after_f || !c->has[a->run]) {
                fprintf(to, "coverage: %s is out of order\n", verify_where(p, device, list, n));
                ok = false;
            }
            next[a->run]++;
        }
        for (int k = 0; k < RUN_KINDS; k++) {
            bool wanted = c->has[k] && (eval ? k == RUN_F || k == RUN_E : k != RUN_E);
            if (next[k] != (wanted ? p->microbatches : 0)) {
                fprintf(to, "coverage: %s runs %d%s %d times, not %d\n", d->name, c->number,
                        run_name((RunKind)k), next[k], wanted ? p->microbatches : 0);
                ok = false;
            }
        }
    }
    return ok;
}

/* What is offloaded goes out once and comes back once, in training, in the order of the
 * micro-batches. */
static bool cover_copies(const Program *p, const ActionList *list, int device, bool eval, FILE *to)
{
    bool ok = true;
    const Device *d = &p->devices.at[device];
    for (int i = 0; i < d->chunks.n; i++) {
        const int chunk = d->chunks.at[i];
        const int wanted = offload_slots(d, chunk).out && !eval ? p->microbatches : 0;
        int next[2] = {0};
        for (int n = 0; n < list->actions.n; n++) {
            const Action *a = &list->actions.at[n];
            if (!action_copies(a) || a->chunk != chunk)
                continue;
            const bool in = a->kind == ACT_COPY_IN;
            if (a->m != next[in]++ || (in && next[0] < next[1])) {
                fprintf(to, "coverage: %s is out of order\n", verify_where(p, device, list, n));
                ok = false;
            }
        }
        if (next[0] != wanted || next[1] != wanted) {
            fprintf(to, "coverage: %s copies chunk %d %d times out and %d times in, not %d\n",
                    d->name, chunk, next[0], next[1], wanted);
            ok = false;
        }
    }
    return ok;
}

static int count_actions(const ActionList *list, ActionKind kind)
{
    int n = 0;
    for (int i = 0; i < list->actions.n; i++)
        n += list->actions.at[i].kind == kind;
    return n;
}

/* Uses of each weight that have a gradient, from the graph itself. */
static bool cover_weights(const Program *p, FILE *to)
{
    const Graph *g = p->graph;
    int *uses = calloc((size_t)g->weights.n + 1, sizeof *uses);
    int *updated = calloc((size_t)g->weights.n + 1, sizeof *updated);
    if (!uses || !updated)
        exit(2);
    for (OpId o = 0; o < g->ops.n; o++)
        for (int i = 0; i < g->ops.at[o].nout; i++) {
            ValueId v = g->ops.at[o].out[i];
            if (v != NONE && g->values.at[v].kind == VALUE_GRAD)
                uses[g->values.at[v].index]++;
        }
    bool ok = true;
    for (int d = 0; d < p->devices.n; d++) {
        const Device *dev = &p->devices.at[d];
        bool trains = false, tied = false;
        for (int i = 0; i < dev->weights.n; i++) {
            const WeightRun *r = &dev->weights.at[i];
            for (int k = 0; k < r->count && r->owner && r->ngrads; k++) {
                WeightId w = r->weight + k * r->step;
                updated[w]++;
                trains = true;
                tied = tied || r->ngrads > 1;
                if (r->ngrads != uses[w]) {
                    fprintf(to, "coverage: %s has %d uses, but %d are summed\n",
                            g->weights.at[w].name, uses[w], r->ngrads);
                    ok = false;
                }
            }
        }
        if (count_actions(&dev->train, ACT_UPDATE) != (trains ? 1 : 0) ||
            count_actions(&dev->train, ACT_REDUCE) != (tied ? 1 : 0)) {
            fprintf(to, "coverage: %s does not update its weights exactly once\n", dev->name);
            ok = false;
        }
    }
    for (int w = 0; w < g->weights.n; w++)
        if (updated[w] != (uses[w] > 0 ? 1 : 0)) {
            fprintf(to, "coverage: %s is updated %d times\n", g->weights.at[w].name, updated[w]);
            ok = false;
        }
    free(uses);
    free(updated);
    return ok;
}

/* The place of an action in a step: what comes before the sums of tied weights' gradients, and
 * then one thing after the other. */
static int rank_of(const Program *p, const Action *a)
{
    bool crosses = a->kind == ACT_SEND || a->kind == ACT_RECV;
    LinkKind link = crosses ? p->links.at[a->link].kind : LINK_ACTIVATION;
    return a->kind == ACT_ROUND           ? -1
           : link == LINK_WEIGHT_GRADIENT ? 1
           : a->kind == ACT_REDUCE        ? 2
           : a->kind == ACT_CLIP          ? 3
           : a->kind == ACT_UPDATE        ? 4
           : link == LINK_WEIGHT          ? 5
           : a->kind == ACT_JOIN          ? 6
                                          : 0;
}

/* Gradients are complete before they are summed, then clipped, then used; new weights go out
 * after that; and nothing is under way when the next step begins. Evaluation leaves weights as
 * they are. */
static bool cover_end(const Program *p, const ActionList *list, int device, bool eval, FILE *to)
{
    const char *name = p->devices.at[device].name;
    bool ok = true, clips = program_clips(p) && !eval;
    for (int i = 1; i < list->actions.n; i++)
        if (rank_of(p, &list->actions.at[i]) < rank_of(p, &list->actions.at[i - 1])) {
            fprintf(to, "coverage: %s comes too late\n", verify_where(p, device, list, i));
            ok = false;
        }
    if (count_actions(list, ACT_ROUND) != device_rounds(&p->devices.at[device])) {
        fprintf(to, "coverage: %s does not round its weights once\n", name);
        ok = false;
    }
    if (count_actions(list, ACT_CLIP) != clips || count_actions(list, ACT_JOIN) != 1 ||
        (eval && count_actions(list, ACT_UPDATE) + count_actions(list, ACT_REDUCE) > 0)) {
        fprintf(to, "coverage: %s does not end its step\n", name);
        ok = false;
    }
    for (int l = 0; l < p->links.n; l++) {
        const Link *k = &p->links.at[l];
        int n = 0;
        if ((k->kind != LINK_WEIGHT && k->kind != LINK_WEIGHT_GRADIENT) ||
            (k->from != device && k->to != device))
            continue;
        for (int i = 0; i < list->actions.n; i++)
            n += action_stream(&list->actions.at[i]) == STREAM_TRANSFER &&
                 list->actions.at[i].link == l;
        if (n != (eval ? 0 : 1)) {
            fprintf(to, "coverage: %s carries %s %d times\n", name, k->name, n);
            ok = false;
        }
    }
    return ok;
}

bool verify_coverage(const Program *p, FILE *to)
{
    if (!verify_shape(p, "coverage", to))
        return false;
    bool ok = cover_ops(p, to);
    for (int d = 0; d < p->devices.n; d++) {
        ok = cover_runs(p, &p->devices.at[d].train, d, false, to) && ok;
        ok = cover_runs(p, &p->devices.at[d].eval, d, true, to) && ok;
        ok = cover_copies(p, &p->devices.at[d].train, d, false, to) && ok;
        ok = cover_copies(p, &p->devices.at[d].eval, d, true, to) && ok;
        ok = cover_end(p, &p->devices.at[d].train, d, false, to) && ok;
        ok = cover_end(p, &p->devices.at[d].eval, d, true, to) && ok;
    }
    ok = cover_weights(p, to) && ok;
    return verify_values(p, to) && ok;
}

/* -------------------------------------------------------------------- deadlock */

/* Execution of all lists at once. Under NCCL's rules a device has two heads, under the
 * host's one. */
typedef struct {
    const Program *p;
    const ActionList **list; /* [devices] */
    bool host;
    int streams;
    int *head[STREAMS];         /* [devices]: next action of each stream */
    bool **done;                /* [devices][actions] */
    int *posted, *sent, *taken; /* [links] */
    int *clips;                 /* [devices]: whether it has reached the exchange */
    int waiting_clip;
} Machine;

static int next_on_stream(const Machine *m, int d, int stream, int from)
{
    const ActionList *list = m->list[d];
    while (from < list->actions.n && !m->host &&
           (int)action_stream(&list->actions.at[from]) != stream)
        from++;
    return from;
}

/* Everything that the action waits for is done. A receive that was only posted counts as
 * done when its message has been sent. */
static bool waits_done(const Machine *m, int d, const Action *a)
{
    const ActionList *list = m->list[d];
    for (int w = 0; w < a->nwaits; w++) {
        int on = list->waits.at[a->first_wait + w];
        if (on < 0 || on >= list->actions.n)
            return false;
        const Action *x = &list->actions.at[on];
        if (m->host && x->kind == ACT_RECV) {
            if (m->sent[x->link] <= x->m)
                return false;
        } else if (!m->done[d][on]) {
            return false;
        }
    }
    return true;
}

/* Between threads and between peers the hosts count messages. The receiver takes each of them once,
 * in order, and posts no more than it has slots for before it does. A host that takes blocks until
 * the message has been sent, whether or not a stream waits for it. */
typedef struct {
    int n;
    const int *at; /* numbers of actions; not all of them receives */
} Takes;

static Takes takes_of(const Machine *m, int d, const Action *a)
{
    const ActionList *list = m->list[d];
    if (m->p->transfer == TRANSFER_PEER)
        return (Takes){a->ntakes, list->takes.at + a->first_take};
    bool waits = m->p->transfer == TRANSFER_LINKS && action_stream(a) == STREAM_COMPUTE;
    return waits ? (Takes){a->nwaits, list->waits.at + a->first_wait} : (Takes){0, NULL};
}

/* Takes what the action has to take; false, and nothing is taken, where it must wait. */
static bool take_messages(Machine *m, int d, const Action *a)
{
    Takes t = m->host ? takes_of(m, d, a) : (Takes){0, NULL};
    int i = 0;
    for (; i < t.n; i++) {
        const Action *x = &m->list[d]->actions.at[t.at[i]];
        if (x->kind != ACT_RECV)
            continue;
        if (m->taken[x->link] != x->m || m->sent[x->link] <= x->m)
            break;
        m->taken[x->link]++;
    }
    bool all = i == t.n;
    while (!all && i-- > 0) {
        const Action *x = &m->list[d]->actions.at[t.at[i]];
        m->taken[x->link] -= x->kind == ACT_RECV;
    }
    return all;
}

static bool slot_free(const Machine *m, int d, const Action *a)
{
    const int buffer = m->p->links.at[a->link].target.buffer;
    return m->p->transfer == TRANSFER_NCCL ||
           m->posted[a->link] - m->taken[a->link] < m->p->devices.at[d].buffers.at[buffer].slots;
}

static void finish(Machine *m, int d, int stream)
{
    int at = m->head[stream][d];
    m->done[d][at] = true;
    m->head[stream][d] = next_on_stream(m, d, stream, at + 1);
}

/* A send at the head of its stream and its receive at the head of the peer's. */
static bool try_send(Machine *m, int d, int stream)
{
    const ActionList *list = m->list[d];
    const Action *a = &list->actions.at[m->head[stream][d]];
    if (a->m != m->sent[a->link])
        return false;
    if (m->host) {
        if (m->posted[a->link] <= a->m)
            return false;
        m->sent[a->link]++;
        finish(m, d, stream);
        return true;
    }
    int peer = m->p->links.at[a->link].to, at = m->head[1][peer];
    if (at >= m->list[peer]->actions.n)
        return false;
    const Action *b = &m->list[peer]->actions.at[at];
    if (b->kind != ACT_RECV || b->link != a->link || b->m != a->m || !waits_done(m, peer, b))
        return false;
    m->sent[a->link]++;
    finish(m, d, 1);
    finish(m, peer, 1);
    return true;
}

/* Executes the head of one stream if it can be; false when it must wait. */
static bool advance(Machine *m, int d, int stream)
{
    int at = m->head[stream][d];
    if (at >= m->list[d]->actions.n)
        return false;
    const Action *a = &m->list[d]->actions.at[at];
    if (!waits_done(m, d, a))
        return false;
    switch (a->kind) {
    case ACT_SEND:
        return try_send(m, d, stream);
    case ACT_RECV:
        if (!m->host || a->m != m->posted[a->link] || !slot_free(m, d, a))
            return false; /* done together with its send */
        m->posted[a->link]++;
        finish(m, d, stream);
        return true;
    case ACT_CLIP:
        if (!m->clips[d] && take_messages(m, d, a)) {
            m->clips[d] = 1;
            m->waiting_clip++;
        }
        if (m->waiting_clip < m->p->devices.n)
            return false;
        finish(m, d, stream);
        return true;
    default:
        if (!take_messages(m, d, a))
            return false;
        finish(m, d, stream);
        return true;
    }
}

static bool run_machine(Machine *m, const char *what, FILE *to)
{
    const Program *p = m->p;
    int streams = m->host ? 1 : m->streams;
    for (int d = 0; d < p->devices.n; d++)
        for (int s = 0; s < streams; s++)
            m->head[s][d] = next_on_stream(m, d, s, 0);
    bool moved = true;
    while (moved) {
        moved = false;
        for (int d = 0; d < p->devices.n; d++)
            for (int s = 0; s < streams; s++)
                while (advance(m, d, s))
                    moved = true;
    }
    bool ok = true;
    for (int d = 0; d < p->devices.n; d++)
        for (int s = 0; s < streams; s++)
            if (m->head[s][d] < m->list[d]->actions.n) {
                fprintf(to, "deadlock (%s): %s never goes on\n", what,
                        verify_where(p, d, m->list[d], m->head[s][d]));
                ok = false;
            }
    for (int l = 0; l < p->links.n && m->host && p->transfer != TRANSFER_NCCL; l++)
        if (m->posted[l] != m->sent[l] || m->sent[l] != m->taken[l]) {
            fprintf(to, "deadlock (%s): a message of %s is never taken\n", what,
                    p->links.at[l].name);
            ok = false;
        }
    return ok;
}

static bool execute(const Program *p, bool eval, bool host, FILE *to)
{
    Arena *a = arena_new();
    int n = p->devices.n;
    Machine m = {.p = p,
                 .host = host,
                 .streams = program_streams(p),
                 .list = ARENA_ARRAY(a, const ActionList *, n),
                 .done = ARENA_ARRAY(a, bool *, n),
                 .posted = ARENA_ARRAY(a, int, p->links.n + 1),
                 .sent = ARENA_ARRAY(a, int, p->links.n + 1),
                 .taken = ARENA_ARRAY(a, int, p->links.n + 1),
                 .clips = ARENA_ARRAY(a, int, n)};
    for (int s = 0; s < STREAMS; s++)
        m.head[s] = ARENA_ARRAY(a, int, n);
    for (int d = 0; d < n; d++) {
        m.list[d] = program_list(p, d, eval);
        m.done[d] = ARENA_ARRAY(a, bool, m.list[d]->actions.n + 1);
    }
    const bool ended = run_machine(&m, host ? "links between threads" : "rendezvous", to);
    arena_free(a);
    return ended;
}

bool verify_deadlock(const Program *p, FILE *to)
{
    if (!verify_shape(p, "deadlock", to))
        return false;
    bool ok = true;
    for (int eval = 0; eval < 2; eval++)
        for (int host = 0; host < 2; host++)
            ok = execute(p, eval, host, to) && ok;
    return ok;
}
