/* verify_shape.c - what every proof stands on: all that is referred to is there.
 *
 * The proofs follow numbers: of buffers, chunks, links, actions, operations. Here each of them is
 * within its table and means a thing of the right sort on the right device, in time linear in the
 * Program. A proof asks this first, so it never looks past the end of anything, and says what is
 * wrong where a pass has broken the Program in that way. */
#include "verify.h"

typedef struct {
    const Program *p;
    const char *proof;
    FILE *to;
    int errors;
} Ground;

static bool within(int i, int n)
{
    return i >= 0 && i < n;
}

static void require(Ground *s, bool ok, const char *where, const char *what)
{
    if (!ok && s->errors++ < 10)
        fprintf(s->to, "%s: %s %s\n", s->proof, where, what);
}

/* ------------------------------------------------------------- buffers, weights */

static bool lies_inside(const Device *d, const Buffer *b)
{
    int64_t end;
    return b->size > 0 && b->stride >= b->size && b->offset >= 0 && b->ring > 0 && b->slots > 0 &&
           mul_i64(b->stride, b->ring, &end) && mul_i64(end, b->slots, &end) &&
           add_i64(end, b->offset, &end) &&
           end <= (b->class == BUFFER_HOST ? d->class_bytes[BUFFER_HOST] : d->bytes);
}

static void check_buffers(Ground *s, const Device *d)
{
    int64_t bytes = 0;
    bool areas = true;
    for (int k = 0; k < BUFFER_HOST; k++) {
        areas = areas && d->class_bytes[k] >= 0;
        areas = areas && add_i64(bytes, d->class_bytes[k], &bytes);
    }
    require(s, areas && bytes == d->bytes, d->name, "is not of the bytes of its areas");
    for (int b = 0; b < d->buffers.n; b++) {
        const Buffer *x = &d->buffers.at[b];
        require(s, within((int)x->class, BUFFER_KERNELS) || x->class == BUFFER_HOST, d->name,
                "has a buffer of no class");
        require(s,
                x->count >= 1 && x->count <= s->p->graph->values.n && x->ring >= 1 &&
                    x->ring <= x->count && x->slots >= 1,
                d->name, "has a buffer without a place for its tensors");
        require(s, lies_inside(d, x), d->name, "has a buffer that is not inside of it");
        require(s, x->offset % BUFFER_ALIGN == 0 && x->stride % BUFFER_ALIGN == 0, d->name,
                "has a buffer that is not aligned");
        require(s, x->class == BUFFER_KEPT || x->class == BUFFER_HOST || x->slots == 1, d->name,
                "has slots for what is of no micro-batch");
        require(s, x->class >= BUFFER_KEPT || x->ring == x->count, d->name,
                "has weights, gradients or state that share a place");
    }
}

/* A buffer for all weights of the run, which no other has: `owned` says which are taken. */
static bool owns(const Device *d, bool *owned, int b, BufferClass class, const WeightRun *r)
{
    bool ok = within(b, d->buffers.n) && !owned[b] && d->buffers.at[b].class == class &&
              d->buffers.at[b].count == r->count;
    if (ok)
        owned[b] = true;
    return ok;
}

/* How many numbers of state the optimizer keeps for each weight. */
static int count_states(const Train *t)
{
    return t->optimizer != OPTIMIZER_SGD ? 2 : t->momentum == 0 ? 0 : 1;
}

/* Only owners update: a copy has neither gradients nor state. */
static bool has_buffers(const Ground *s, const Device *d, bool *owned, const WeightRun *r)
{
    const int n = s->p->graph->weights.n;
    const int64_t last = r->weight + ((int64_t)r->count - 1) * r->step;
    bool ok = r->count >= 1 && within(r->weight, n) && last >= 0 && last < n && r->ngrads >= 0 &&
              r->nstates == (r->ngrads ? count_states(&s->p->model->settings.train) : 0) &&
              (r->owner || r->ngrads == 0) && owns(d, owned, r->buffer, BUFFER_WEIGHT, r) &&
              (r->half == NONE || owns(d, owned, r->half, BUFFER_WEIGHT, r));
    for (int k = 0; ok && k < r->ngrads; k++)
        ok = owns(d, owned, r->grad[k], BUFFER_GRAD, r);
    for (int k = 0; ok && k < r->nstates; k++)
        ok = owns(d, owned, r->state[k], BUFFER_STATE, r) &&
             d->buffers.at[r->state[k]].state == k &&
             d->buffers.at[r->state[k]].size == d->buffers.at[r->buffer].size;
    return ok;
}

static void check_weights(Ground *s, const Device *d)
{
    bool *owned = ARENA_ARRAY(s->p->graph->arena, bool, d->buffers.n + 1);
    for (int i = 0; i < d->weights.n; i++)
        require(s, has_buffers(s, d, owned, &d->weights.at[i]), d->name,
                "has a weight without buffers of its own");
}

static bool is_offload(const Ground *s, const Device *d, const Offload *o)
{
    if (!within(o->chunk, s->p->chunks.n) || !within(o->buffer, d->buffers.n) ||
        !within(o->host, d->buffers.n) || !within(o->back, d->buffers.n))
        return false;
    const Buffer *x = &d->buffers.at[o->buffer], *host = &d->buffers.at[o->host],
                 *back = &d->buffers.at[o->back];
    return s->p->chunks.at[o->chunk].device == d - s->p->devices.at && o->buffer != o->back &&
           x->class == BUFFER_KEPT && host->class == BUFFER_HOST && back->class == BUFFER_KEPT &&
           x->size == host->size && x->size == back->size && x->stride == host->stride &&
           x->stride == back->stride && x->count == host->count && x->count == back->count &&
           x->ring == x->count && host->ring == x->ring && back->ring == x->ring;
}

static void check_offloads(Ground *s, const Device *d)
{
    for (int i = 0; i < d->offloads.n; i++)
        require(s, is_offload(s, d, &d->offloads.at[i]), d->name,
                "offloads between buffers that are not alike");
}

/* ----------------------------------------------------------------------- phases */

static void check_ref(Ground *s, const Device *d, const Ref *r)
{
    const int n = d->buffers.n;
    bool ok = (r->buffer == NONE || within(r->buffer, n)) &&
              (r->entry == NONE || within(r->entry, n)) &&
              (r->value == NONE || within(r->value, s->p->graph->values.n));
    require(s, ok, d->name, "has a call on no tensor");
}

static void check_call(Ground *s, const Device *d, const Call *c, int turns)
{
    const Graph *g = s->p->graph;
    for (int i = 0; i < c->nin; i++)
        check_ref(s, d, &c->in[i]);
    for (int i = 0; i < c->nout; i++)
        check_ref(s, d, &c->out[i]);
    bool ok = c->nin >= 0 && c->nout >= 0;
    for (int i = 0; i < c->nout; i++)
        ok = ok && c->out[i].entry == NONE;
    if (c->kind == CALL_LOAD)
        ok = ok && within(c->input, g->inputs.n) && c->nout == 1;
    else if (c->kind == CALL_METRIC)
        ok = ok && within(c->input, g->metrics.n) && c->nin == 1;
    else if (c->kind == CALL_LOSS)
        ok = ok && c->nin == 1;
    else
        ok = ok && within(c->op, g->ops.n);
    for (int t = 0; ok && c->kind == CALL_OP && t < turns; t++)
        ok = within(c->ops[t], g->ops.n);
    require(s, ok, d->name, "has a call of nothing");
}

/* Steps are the calls in their order, each once. */
static void check_run(Ground *s, const Device *d, const Run *run)
{
    int at = 0;
    for (int i = 0; i < run->steps.n; i++) {
        const Step *step = &run->steps.at[i];
        bool ok = step->first == at && step->turns >= 1 && step->ncalls >= 0 &&
                  step->ncalls <= run->calls.n - at;
        require(s, ok, d->name, "has a phase that is not all of its calls");
        if (!ok)
            return;
        for (int n = at; n < at + step->ncalls; n++)
            check_call(s, d, &run->calls.at[n], step->turns);
        at += step->ncalls;
    }
    require(s, at == run->calls.n, d->name, "has a phase that is not all of its calls");
}

static void check_chunks(Ground *s)
{
    const Program *p = s->p;
    int *places = ARENA_ARRAY(p->graph->arena, int, p->chunks.n + 1);
    for (int d = 0; d < p->devices.n; d++)
        for (int i = 0; i < p->devices.at[d].chunks.n; i++) {
            const int c = p->devices.at[d].chunks.at[i];
            bool ok = within(c, p->chunks.n) && p->chunks.at[c].device == d &&
                      p->chunks.at[c].number == c && places[c]++ == 0;
            require(s, ok, p->devices.at[d].name, "has a chunk that is not its own");
        }
    for (int c = 0; c < p->chunks.n; c++) {
        require(s, places[c] == 1, "a chunk", "is on no device");
        for (int k = 0; k < RUN_KINDS && places[c] == 1; k++)
            check_run(s, &p->devices.at[p->chunks.at[c].device], &p->chunks.at[c].run[k]);
    }
}

/* ------------------------------------------------------------------------ links */

static bool is_end(const Device *d, const Ref *r, int64_t bytes)
{
    if (r->by_turn || r->entry != NONE || !within(r->buffer, d->buffers.n))
        return false;
    const Buffer *b = &d->buffers.at[r->buffer];
    return within(r->at, b->count) && b->size == bytes;
}

static void check_links(Ground *s)
{
    const Program *p = s->p;
    for (int i = 0; i < p->links.n; i++) {
        const Link *l = &p->links.at[i];
        bool ok = within(l->from, p->devices.n) && within(l->to, p->devices.n) &&
                  l->from != l->to && within((int)l->kind, LINK_WEIGHT + 1) &&
                  within(l->value, p->graph->values.n);
        ok = ok && l->bytes == value_bytes(p, l->value) &&
             is_end(&p->devices.at[l->from], &l->source, l->bytes) &&
             is_end(&p->devices.at[l->to], &l->target, l->bytes);
        require(s, ok, l->name, "goes from nowhere or to nowhere, or is of another size there");
    }
}

/* ----------------------------------------------------------------------- actions */

static bool is_action(const Program *p, int device, const Action *a)
{
    if (a->kind == ACT_RUN)
        return within(a->chunk, p->chunks.n) && p->chunks.at[a->chunk].device == device &&
               within((int)a->run, RUN_KINDS) && within(a->m, p->microbatches);
    if (a->kind == ACT_SEND || a->kind == ACT_RECV) {
        const Link *l = within(a->link, p->links.n) ? &p->links.at[a->link] : NULL;
        return l && (a->kind == ACT_SEND ? l->from : l->to) == device &&
               within(a->m, p->microbatches) && (a->m == 0 || l->kind <= LINK_GRADIENT);
    }
    if (action_copies(a))
        return within(a->chunk, p->chunks.n) && p->chunks.at[a->chunk].device == device &&
               within(a->m, p->microbatches) &&
               offload_slots(&p->devices.at[device], a->chunk).out > 0;
    return within((int)a->kind, ACT_JOIN + 1);
}

/* `n` numbers of a table from `first` on, of actions before action i, on the other stream. */
static bool are_earlier(const ActionList *list, const int *table, int size, int first, int n, int i)
{
    const Action *a = list->actions.at;
    bool ok = n >= 0 && (n == 0 || (first >= 0 && first <= size - n));
    for (int k = 0; ok && k < n; k++)
        ok = within(table[first + k], i) &&
             action_stream(&a[table[first + k]]) != action_stream(&a[i]);
    return ok;
}

static void check_list(Ground *s, int device, const ActionList *list)
{
    const Program *p = s->p;
    const char *name = p->devices.at[device].name;
    for (int i = 0; i < list->actions.n; i++) {
        const Action *a = &list->actions.at[i];
        bool takes = are_earlier(list, list->takes.at, list->takes.n, a->first_take, a->ntakes, i);
        for (int t = 0; takes && t < a->ntakes; t++)
            takes = list->actions.at[list->takes.at[a->first_take + t]].kind == ACT_RECV;
        require(s, is_action(p, device, a), name, "has an action that it cannot do");
        require(s, are_earlier(list, list->waits.at, list->waits.n, a->first_wait, a->nwaits, i),
                name, "has an action that waits for a later one, or one of its own stream");
        require(s, takes && (a->ntakes == 0 || p->transfer == TRANSFER_PEER), name,
                "has an action that takes what is no message");
    }
}

bool verify_shape(const Program *p, const char *proof, FILE *to)
{
    Ground s = {.p = p, .proof = proof, .to = to};
    require(&s, p->microbatches >= 1 && p->devices.n >= 1, "the program", "is empty");
    for (int d = 0; d < p->devices.n; d++) {
        const Device *x = &p->devices.at[d];
        check_buffers(&s, x);
        check_weights(&s, x);
        check_offloads(&s, x);
        check_list(&s, d, &x->train);
        check_list(&s, d, &x->eval);
    }
    check_chunks(&s);
    check_links(&s);
    return s.errors == 0;
}
