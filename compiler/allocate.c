/* allocate.c - every buffer gets its place in its device's one allocation.
 *
 * In:  buffers with sizes, rings and slots.
 * Out: offsets; the bytes of each device, by kind.
 *
 *     | weights | gradients | optimizer | kept, slots x ring each | scratch |
 *
 * What is offloaded has slots in an allocation of the host's memory, one after the other.
 *
 * Scratch is shared by all phases of the device, which run one at a time. Inside a phase two
 * tensors may overlap when one is dead before the other is made: buffers in order of falling
 * size, each at the lowest offset that is free during its life (greedy by size, Pisarchyk and
 * Lee 2020). An element-wise result takes the place of an operand that dies there. In a loop,
 * what is handed from turn to turn lives through the whole loop.
 */
#include <stdlib.h>
#include <string.h>

#include "program.h"

/* A life: from the first to the last call that touches it, both included. */
typedef struct {
    int buffer; /* NONE: merged into another */
    int from, to;
    int64_t bytes, offset;
    int into; /* the life whose place it shares, or NONE */
} Life;

typedef struct {
    Arena *arena;
    Program *p;
    Device *d;
    const Run *run;
    Life *lives;
    int n;
    int *life_of; /* [buffers]: NONE where the phase does not touch it */
} PhaseLives;

/* by_turn: every turn has a tensor of its own, as only the loop that makes it sees a ring of 1. */
static void extend(PhaseLives *x, int buffer, bool by_turn, const Step *step, int call)
{
    Buffer *b = buffer == NONE ? NULL : &x->d->buffers.at[buffer];
    if (!b || b->class != BUFFER_SCRATCH)
        return;
    int from = call, to = call;
    bool local = by_turn && b->ring == 1;
    if (step->turns > 1 && !local) {
        from = step->first;
        to = step->first + step->ncalls - 1;
    }
    if (x->life_of[buffer] == NONE) {
        x->life_of[buffer] = x->n;
        x->lives[x->n++] = (Life){buffer, from, to, buffer_bytes(b), 0, NONE};
        return;
    }
    Life *life = &x->lives[x->life_of[buffer]];
    life->from = from < life->from ? from : life->from;
    life->to = to > life->to ? to : life->to;
}

static void find_lives(PhaseLives *x)
{
    for (int s = 0; s < x->run->steps.n; s++) {
        const Step *step = &x->run->steps.at[s];
        for (int n = step->first; n < step->first + step->ncalls; n++) {
            const Call *c = &x->run->calls.at[n];
            for (int i = 0; i < c->nin + c->nout; i++) {
                const Ref *r = i < c->nin ? &c->in[i] : &c->out[i - c->nin];
                extend(x, r->buffer, r->by_turn, step, n);
                extend(x, r->entry, false, step, n);
            }
        }
    }
}

static bool same_elements(const Program *p, ValueId a, ValueId b)
{
    const Value *x = &p->graph->values.at[a], *y = &p->graph->values.at[b];
    return x->type == y->type && x->batched == y->batched && shape_equal(&x->shape, &y->shape);
}

static int place_of(const PhaseLives *x, int buffer)
{
    int i = x->life_of[buffer];
    while (i != NONE && x->lives[i].into != NONE)
        i = x->lives[i].into;
    return i;
}

/* Element-wise results in the place of an operand whose life ends there. */
static void find_in_place(PhaseLives *x)
{
    for (int n = 0, s = 0; n < x->run->calls.n; n++) {
        const Call *c = &x->run->calls.at[n];
        while (n >= x->run->steps.at[s].first + x->run->steps.at[s].ncalls)
            s++;
        bool loop = x->run->steps.at[s].turns > 1;
        if (c->kind != CALL_OP || x->p->graph->ops.at[c->op].kind != OP_FUSED)
            continue;
        const Ref *out = &c->out[0];
        const Buffer *b = &x->d->buffers.at[out->buffer];
        if (x->life_of[out->buffer] == NONE || b->ring != 1)
            continue;
        Life *to = &x->lives[x->life_of[out->buffer]];
        for (int i = 0; i < c->nin && to->into == NONE; i++) {
            const Ref *in = &c->in[i];
            int at = in->buffer == NONE || in->entry != NONE ? NONE : place_of(x, in->buffer);
            if (at == NONE || !same_elements(x->p, in->value, out->value) || &x->lives[at] == to)
                continue;
            Life *from = &x->lives[at];
            if (loop && !in->by_turn) /* later turns read it, too */
                continue;
            if (from->to != n || to->from != n || from->bytes != to->bytes ||
                x->d->buffers.at[in->buffer].ring != 1)
                continue;
            to->into = at;
            from->to = to->to;
        }
    }
}

static int by_size(const void *a, const void *b)
{
    const Life *const *x = a, *const *y = b;
    if ((*x)->bytes != (*y)->bytes)
        return (*x)->bytes > (*y)->bytes ? -1 : 1;
    return (*x)->buffer < (*y)->buffer ? -1 : 1;
}

static int by_offset(const void *a, const void *b)
{
    const Life *const *x = a, *const *y = b;
    return (*x)->offset < (*y)->offset ? -1 : (*x)->offset > (*y)->offset;
}

/* Lowest offset that no life overlapping in time uses. */
static int64_t lowest_free(Life *const *placed, int n, const Life *life, Life **scratch)
{
    int k = 0;
    for (int i = 0; i < n; i++)
        if (placed[i]->from <= life->to && life->from <= placed[i]->to)
            scratch[k++] = placed[i];
    qsort(scratch, (size_t)k, sizeof *scratch, by_offset);
    int64_t at = 0;
    for (int i = 0; i < k && scratch[i]->offset < at + life->bytes; i++)
        if (scratch[i]->offset + scratch[i]->bytes > at)
            at = scratch[i]->offset + scratch[i]->bytes;
    return at;
}

/* Offsets of one phase's scratch from 0; the bytes it needs. */
static int64_t place_scratch(Program *p, Device *d, const Run *run)
{
    Arena *a = p->graph->arena;
    PhaseLives x = {.arena = a,
                    .p = p,
                    .d = d,
                    .run = run,
                    .lives = ARENA_ARRAY(a, Life, d->buffers.n + 1),
                    .life_of = ARENA_ARRAY(a, int, d->buffers.n + 1)};
    for (int b = 0; b < d->buffers.n; b++)
        x.life_of[b] = NONE;
    find_lives(&x);
    find_in_place(&x);
    Life **sorted = ARENA_ARRAY(a, Life *, x.n + 1), **scratch = ARENA_ARRAY(a, Life *, x.n + 1);
    int n = 0;
    for (int i = 0; i < x.n; i++)
        if (x.lives[i].into == NONE)
            sorted[n++] = &x.lives[i];
    qsort(sorted, (size_t)n, sizeof *sorted, by_size);
    int64_t total = 0;
    for (int i = 0; i < n; i++) {
        sorted[i]->offset = lowest_free(sorted, i, sorted[i], scratch);
        if (sorted[i]->offset + sorted[i]->bytes > total)
            total = sorted[i]->offset + sorted[i]->bytes;
    }
    for (int i = 0; i < x.n; i++) {
        int root = i;
        while (x.lives[root].into != NONE)
            root = x.lives[root].into;
        d->buffers.at[x.lives[i].buffer].offset = x.lives[root].offset;
    }
    return total;
}

static int largest_first(const void *a, const void *b)
{
    const Buffer *const *x = a, *const *y = b;
    int64_t p = buffer_bytes(*x), q = buffer_bytes(*y);
    return p > q ? -1 : p < q;
}

/* Why no smaller change helps, where that is so. */
static void suggest(const Program *p, const Device *d, Diag *diag)
{
    Arena *a = p->graph->arena;
    int64_t limit = p->model->settings.devices.memory, all = 0, largest = 0;
    const int64_t kernels = d->class_bytes[BUFFER_KERNELS]; /* the same on every device */
    int64_t fixed = d->bytes - d->class_bytes[BUFFER_KEPT] - d->class_bytes[BUFFER_SCRATCH];
    for (int i = 0; i < p->devices.n; i++) {
        const Device *x = &p->devices.at[i];
        all += x->bytes - x->class_bytes[BUFFER_KEPT] - x->class_bytes[BUFFER_SCRATCH] -
               x->class_bytes[BUFFER_KERNELS];
        for (int b = 0; b < x->buffers.n; b++)
            if (x->buffers.at[b].class == BUFFER_WEIGHT && x->buffers.at[b].size > largest)
                largest = x->buffers.at[b].size;
    }
    const char *state = d->class_bytes[BUFFER_STATE] ? ", or an optimizer with less state" : "";
    if (largest > limit) {
        diag_help(diag, "one weight alone has %s: it has to be made smaller",
                  show_bytes(a, largest));
    } else if (kernels >= limit) {
        diag_help(diag, "the kernels and libraries alone need %s, on every GPU",
                  show_bytes(a, kernels));
    } else if (fixed > limit) {
        int64_t stages = (all + limit - kernels - 1) / (limit - kernels);
        diag_help(diag, "weights, gradients and optimizer alone need %s: at least %lld devices%s",
                  show_bytes(a, fixed),
                  (long long)(stages > p->devices.n ? stages : p->devices.n + 1), state);
    }
}

/* The device's largest things, and what would make the plan fit; others: devices that need too
 * much, too. */
static void report_limit(const Program *p, Device *d, int others, Diag *diag)
{
    Arena *a = p->graph->arena;
    const Devices *limit = &p->model->settings.devices;
    diag_error(diag, limit->at, "%s needs %s, more than its memory of %s", d->name,
               show_bytes(a, d->bytes), show_bytes(a, limit->memory));
    const Buffer **sorted = ARENA_ARRAY(a, const Buffer *, d->buffers.n + 1);
    int nsorted = 0;
    for (int b = 0; b < d->buffers.n; b++)
        if (d->buffers.at[b].class != BUFFER_HOST)
            sorted[nsorted++] = &d->buffers.at[b];
    if (others)
        diag_help(diag, "%d other device%s need%s too much as well; %s most", others,
                  others == 1 ? "" : "s", others == 1 ? "s" : "", d->name);
    qsort(sorted, (size_t)nsorted, sizeof *sorted, largest_first);
    Text t = {.arena = a};
    for (int b = 0; b < nsorted && b < 3; b++)
        text_printf(&t, "%s%s (%s, %s)", b ? ", " : "", sorted[b]->name,
                    buffer_class_name(sorted[b]->class), show_bytes(a, buffer_bytes(sorted[b])));
    diag_help(diag, "the largest: %s", t.at);
    suggest(p, d, diag);
}

/* What GPUs need besides the model's tensors, behind them. */
static void place_kernels(const Program *p, Device *d)
{
    int64_t end = d->bytes;
    d->squares = round_up(d->bytes, GPU_ALIGN);
    d->kernel_scratch =
        round_up(d->squares + (int64_t)sizeof(double) * p->graph->weights.n, GPU_ALIGN);
    d->workspace = d->kernel_scratch + GPU_KERNEL_SCRATCH;
    d->bytes = d->workspace + GPU_LIBRARY_WORKSPACE;
    d->class_bytes[BUFFER_KERNELS] = d->bytes - end;
}

bool allocate(Program *p, Diag *diag)
{
    for (int i = 0; i < p->devices.n; i++) {
        Device *d = &p->devices.at[i];
        int64_t at = 0;
        for (int kind = 0; kind < BUFFER_SCRATCH; kind++) {
            int64_t begin = at;
            for (int b = 0; b < d->buffers.n; b++) {
                Buffer *x = &d->buffers.at[b];
                if ((int)x->class != kind)
                    continue;
                x->offset = at;
                if (!add_i64(at, buffer_bytes(x), &at)) {
                    diag_error(diag, p->model->settings.devices.at, "%s needs more than 2^63 bytes",
                               d->name);
                    return false;
                }
            }
            d->class_bytes[kind] = at - begin;
        }
        int64_t most = 0;
        for (int c = 0; c < d->chunks.n; c++)
            for (int k = 0; k < RUN_KINDS; k++) {
                int64_t n = place_scratch(p, d, &p->chunks.at[d->chunks.at[c]].run[k]);
                most = n > most ? n : most;
            }
        for (int b = 0; b < d->buffers.n; b++)
            if (d->buffers.at[b].class == BUFFER_SCRATCH)
                d->buffers.at[b].offset += at;
        d->class_bytes[BUFFER_SCRATCH] = most;
        d->class_bytes[BUFFER_HOST] = 0;
        for (int b = 0; b < d->buffers.n; b++)
            if (d->buffers.at[b].class == BUFFER_HOST) {
                d->buffers.at[b].offset = d->class_bytes[BUFFER_HOST];
                d->class_bytes[BUFFER_HOST] += buffer_bytes(&d->buffers.at[b]);
            }
        d->bytes = at + most;
        if (p->transfer != TRANSFER_LINKS)
            place_kernels(p, d);
    }
    const int64_t limit = p->model->settings.devices.memory;
    Device *largest = &p->devices.at[0];
    int over = 0;
    for (int i = 0; i < p->devices.n; i++) {
        Device *d = &p->devices.at[i];
        largest = d->bytes > largest->bytes ? d : largest;
        over += limit > 0 && d->bytes > limit;
    }
    if (over)
        report_limit(p, largest, over - 1, diag);
    return diag_errors(diag) == 0;
}
