/* verify_values.c - the proof that every call works on the tensors that the graph names.
 *
 * The graph says what each operation reads and makes; a Program says where. One micro-batch is
 * executed on names alone, device by device, training and evaluation: every place of every buffer
 * holds the name of a value. A call puts the names of its results where it writes, and what it
 * reads must have the name of its operand; a receive brings the name of what the link carries, a
 * send must find it. In a loop the call is compared with the operation of each turn: same kind,
 * same attributes, same shapes, for only that of the first turn is printed. In the end the
 * gradient of every use of a weight must be where the update sums it, and every copy of a
 * trained weight must be sent its new value.
 *
 * When a place is free to be written is for the proofs of memory and of races to say. */
#include <string.h>

#include "fuse.h"
#include "verify.h"

/* Where the gradient of one use of a weight is summed. */
typedef struct {
    int device, buffer, member;
} Sum;

typedef struct {
    const Program *p;
    const Graph *g;
    int device;
    const Device *d;
    FILE *to;
    const ValueId *root; /* [values]: whose storage it shares */
    ValueId **holds;     /* [buffers][members]: name, or NONE */
    Sum *sum;            /* [values]: of gradients of weights; device NONE: nowhere */
    const char *phase;
    int errors;
} Names;

static void complain(Names *n, int call, const char *what, ValueId v)
{
    if (n->errors++ >= 10)
        return;
    fprintf(n->to, "values: %s, phase %s, call %d %s", n->d->name, n->phase, call, what);
    if (v != NONE)
        fprintf(n->to, " (value %d%s%s)", v, n->g->values.at[v].name ? ", " : "",
                n->g->values.at[v].name ? n->g->values.at[v].name : "");
    fputc('\n', n->to);
}

/* The place of a reference, or NULL where there is no such place. */
static ValueId *place_at(const Names *n, int buffer, int member)
{
    if (buffer < 0 || buffer >= n->d->buffers.n || member < 0 ||
        member >= n->d->buffers.at[buffer].count)
        return NULL;
    return &n->holds[buffer][member];
}

static bool shaped_alike(const Graph *g, ValueId x, ValueId y)
{
    if (x == NONE || y == NONE)
        return x == y;
    const Value *a = &g->values.at[x], *b = &g->values.at[y];
    return a->type == b->type && a->batched == b->batched && shape_equal(&a->shape, &b->shape) &&
           (a->kind == VALUE_CONST) == (b->kind == VALUE_CONST) &&
           (a->kind != VALUE_CONST || memcmp(&a->number, &b->number, sizeof a->number) == 0);
}

/* Does the text that is printed for the first turn fit this operation, too? */
static bool spelled_alike(const Call *c, const Op *first, const Op *op)
{
    return op->kind == first->kind && op->nin == c->nin && op->nout == c->nout &&
           attr_equal(&op->attr, &first->attr) && maps_alike(op, first);
}

static bool is_name(const Names *n, const char *prefix, const char *suffix, int64_t number,
                    const char *name)
{
    const char *x = number < 0
                        ? prefix
                        : arena_printf(n->g->arena, "%s%lld%s", prefix, (long long)number, suffix);
    return name && x && strcmp(name, x) == 0;
}

static bool same_path(const Names *n, const Call *c, int turn, const char *path)
{
    return is_name(n, c->prefix, c->suffix, c->first < 0 ? NONE : c->first + turn * c->number_step,
                   path);
}

static void check_read(Names *n, int call, const Ref *r, int turn, ValueId v)
{
    int buffer, member;
    ref_resolve(n->d, r, turn, &buffer, &member);
    bool nowhere = v == NONE || n->g->values.at[v].kind == VALUE_CONST;
    const ValueId *at = place_at(n, buffer, member);
    if (!shaped_alike(n->g, r->value, v))
        complain(n, call, "reads an operand of another shape", v);
    else if (nowhere ? buffer != NONE : !at || *at != n->root[v])
        complain(n, call, "does not read its operand", v);
}

static void check_write(Names *n, int call, const Ref *r, int turn, ValueId v)
{
    int buffer, member;
    ref_resolve(n->d, r, turn, &buffer, &member);
    if (v == NONE && buffer == NONE)
        return;
    ValueId *at = place_at(n, buffer, member);
    bool sums = v != NONE && n->g->values.at[v].kind == VALUE_GRAD;
    if (v == NONE || !at || !shaped_alike(n->g, r->value, v) ||
        value_bytes(n->p, v) != n->d->buffers.at[buffer].size ||
        sums != (n->d->buffers.at[buffer].class == BUFFER_GRAD)) {
        complain(n, call, "has no place for its result", v);
        return;
    }
    *at = n->root[v];
    if (sums)
        n->sum[v] = (Sum){n->device, buffer, member};
}

static void execute(Names *n, const Call *c, int call, int done, int turn)
{
    const Graph *g = n->g;
    if (c->kind == CALL_OP) {
        const Op *first = &g->ops.at[c->op], *op = &g->ops.at[c->ops[done]];
        if (!spelled_alike(c, first, op)) {
            complain(n, call, "is not its operation", NONE);
            return;
        }
        if (op->kind == OP_DROPOUT && !same_path(n, c, turn, op->path))
            complain(n, call, "drops by the name of another layer", NONE);
        for (int i = 0; i < c->nin; i++)
            check_read(n, call, &c->in[i], turn, op->in[i]);
        for (int i = 0; i < c->nout; i++)
            check_write(n, call, &c->out[i], turn, op->out[i]);
    } else if (c->kind == CALL_LOAD) {
        check_write(n, call, &c->out[0], turn, g->inputs.at[c->input].value);
    } else {
        ValueId v = c->kind == CALL_LOSS ? g->loss : g->metrics.at[c->input].value;
        check_read(n, call, &c->in[0], turn, v);
    }
}

static void execute_run(Names *n, const Run *run)
{
    for (int s = 0; s < run->steps.n; s++) {
        const Step *step = &run->steps.at[s];
        for (int done = 0; done < step->turns; done++) {
            int turn = step->down ? step->turns - 1 - done : done;
            for (int k = step->first; k < step->first + step->ncalls; k++)
                execute(n, &run->calls.at[k], k, done, turn);
        }
    }
}

/* Weights and their gradients are looked at in the end. */
static void cross_link(Names *n, const Action *a, int call)
{
    const Link *l = &n->p->links.at[a->link];
    if (l->kind != LINK_ACTIVATION && l->kind != LINK_GRADIENT)
        return;
    bool out = a->kind == ACT_SEND;
    const Ref *r = out ? &l->source : &l->target;
    ValueId *at = place_at(n, r->buffer, r->at);
    n->phase = out ? "send" : "receive";
    if (!at || r->by_turn || r->entry != NONE || l->bytes != value_bytes(n->p, l->value) ||
        l->bytes != n->d->buffers.at[r->buffer].size)
        complain(n, call, "has no place for what the link carries", l->value);
    else if (!out)
        *at = n->root[l->value];
    else if (*at != n->root[l->value])
        complain(n, call, "does not send what the link carries", l->value);
}

/* All tensors of a chunk's that are offloaded. */
static void copy(Names *n, const Action *a)
{
    for (int i = 0; i < n->d->offloads.n; i++) {
        const Offload *o = &n->d->offloads.at[i];
        const bool in = a->kind == ACT_COPY_IN;
        const int from = in ? o->host : o->buffer, to = in ? o->back : o->host;
        for (int k = 0; k < n->d->buffers.at[from].count && o->chunk == a->chunk; k++)
            n->holds[to][k] = n->holds[from][k];
    }
}

/* Every rounded copy beside its weight, of one size. */
static void round_weights(Names *n)
{
    for (int i = 0; i < n->d->weights.n; i++) {
        const WeightRun *r = &n->d->weights.at[i];
        for (int k = 0; k < r->count && r->half != NONE; k++) {
            const WeightId w = r->weight + k * r->step;
            const ValueId half = n->g->weights.at[w].half;
            const ValueId *from = place_at(n, r->buffer, k);
            ValueId *to = place_at(n, r->half, k);
            if (!from || *from != n->g->weights.at[w].value || !to || half == NONE ||
                value_bytes(n->p, half) != n->d->buffers.at[r->half].size)
                complain(n, i, "cannot round a weight", n->g->weights.at[w].value);
            else
                *to = half;
        }
    }
}

static void execute_list(Names *n, const ActionList *list)
{
    for (int b = 0; b < n->d->buffers.n; b++)
        for (int i = 0; i < n->d->buffers.at[b].count; i++)
            n->holds[b][i] = NONE;
    for (int i = 0; i < n->d->weights.n; i++) {
        const WeightRun *r = &n->d->weights.at[i];
        for (int k = 0; k < r->count; k++) {
            ValueId *at = place_at(n, r->buffer, k);
            if (at)
                *at = n->g->weights.at[r->weight + k * r->step].value;
        }
    }
    for (int i = 0; i < list->actions.n; i++) {
        const Action *a = &list->actions.at[i];
        if (a->m != 0)
            continue;
        if (a->kind == ACT_ROUND)
            round_weights(n);
        if (a->kind == ACT_SEND || a->kind == ACT_RECV)
            cross_link(n, a, i);
        if (action_copies(a))
            copy(n, a);
        if (a->kind != ACT_RUN)
            continue;
        n->phase = arena_printf(n->g->arena, "%d%s", a->chunk, run_name(a->run));
        execute_run(n, &n->p->chunks.at[a->chunk].run[a->run]);
    }
}

/* ------------------------------------------------------------------- weights */

static bool is_linked(const Program *p, LinkKind kind, Sum from, Sum to)
{
    for (int l = 0; l < p->links.n; l++) {
        const Link *k = &p->links.at[l];
        if (k->kind == kind && k->from == from.device && k->to == to.device &&
            k->source.buffer == from.buffer && k->source.at == from.member &&
            k->target.buffer == to.buffer && k->target.at == to.member)
            return true;
    }
    return false;
}

/* The gradients of each weight, use by use, in `grads` from first[weight] on. */
static ValueId *list_grads(const Graph *g, int *first)
{
    int n = 0;
    for (ValueId v = 0; v < g->values.n; v++)
        if (g->values.at[v].kind == VALUE_GRAD)
            n++, first[g->values.at[v].index + 1]++;
    for (WeightId w = 0; w < g->weights.n; w++)
        first[w + 1] += first[w];
    ValueId *grads = ARENA_ARRAY(g->arena, ValueId, n + 1);
    for (ValueId v = 0; v < g->values.n; v++) {
        const Value *x = &g->values.at[v];
        if (x->kind == VALUE_GRAD && x->use < first[x->index + 1] - first[x->index])
            grads[first[x->index] + x->use] = v;
    }
    return grads;
}

/* Every term of every sum is there; every copy gets the new weight. */
static bool check_weights(const Names *n, FILE *to)
{
    const Program *p = n->p;
    const Graph *g = n->g;
    int *first = ARENA_ARRAY(g->arena, int, g->weights.n + 2);
    const ValueId *grads = list_grads(g, first);
    Sum *owner = ARENA_ARRAY(g->arena, Sum, g->weights.n + 1);
    bool ok = true;
    for (int turn = 0; turn < 2; turn++) /* owners, then copies */
        for (int d = 0; d < p->devices.n; d++)
            for (int i = 0; i < p->devices.at[d].weights.n; i++) {
                const WeightRun *r = &p->devices.at[d].weights.at[i];
                for (int k = 0; k < r->count && r->owner == (turn == 0); k++) {
                    WeightId w = r->weight + k * r->step;
                    int uses = first[w + 1] - first[w];
                    Sum here = {d, r->buffer, k};
                    bool right = is_name(n, r->prefix, r->suffix,
                                         r->first < 0 ? NONE : r->first + k * r->number_step,
                                         g->weights.at[w].name);
                    if (!right)
                        fprintf(to, "values: %s of %s has another name\n", g->weights.at[w].name,
                                p->devices.at[d].name);
                    right = right &&
                            (turn == 0 || uses == 0 || is_linked(p, LINK_WEIGHT, owner[w], here));
                    if (turn == 0)
                        owner[w] = here;
                    for (int u = 0; turn == 0 && u < r->ngrads && u < uses; u++) {
                        Sum at = n->sum[grads[first[w] + u]], wanted = {d, r->grad[u], k};
                        right = right && (memcmp(&at, &wanted, sizeof at) == 0 ||
                                          is_linked(p, LINK_WEIGHT_GRADIENT, at, wanted));
                    }
                    if (!right)
                        fprintf(to, "values: %s of %s %s\n", g->weights.at[w].name,
                                p->devices.at[d].name,
                                turn ? "never gets its new value" : "misses a gradient");
                    ok = ok && right;
                }
            }
    return ok;
}

bool verify_values(const Program *p, FILE *to)
{
    const Graph *g = p->graph;
    Arena *a = g->arena;
    ValueId *root = ARENA_ARRAY(a, ValueId, g->values.n + 1);
    for (ValueId v = 0; v < g->values.n; v++)
        root[v] = v;
    for (OpId o = 0; o < g->ops.n; o++)
        if (g->ops.at[o].kind == OP_RESHAPE)
            root[g->ops.at[o].out[0]] = root[g->ops.at[o].in[0]];
    Names n = {.p = p, .g = g, .to = to, .root = root, .sum = ARENA_ARRAY(a, Sum, g->values.n + 1)};
    for (ValueId v = 0; v < g->values.n; v++)
        n.sum[v].device = NONE;
    for (int d = 0; d < p->devices.n; d++) {
        n.device = d;
        n.d = &p->devices.at[d];
        n.holds = ARENA_ARRAY(a, ValueId *, n.d->buffers.n + 1);
        for (int b = 0; b < n.d->buffers.n; b++)
            n.holds[b] = ARENA_ARRAY(a, ValueId, n.d->buffers.at[b].count);
        execute_list(&n, &n.d->train);
        execute_list(&n, &n.d->eval);
    }
    return check_weights(&n, to) && n.errors == 0;
}
