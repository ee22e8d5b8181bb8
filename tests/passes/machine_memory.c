/* machine_memory.c - a device's memory as names of values, and what calls do to it (executor.h).
 *
 * A tensor is whole if all its cells have its name, in order. What reads anything else gets a name
 * that nothing else has, which ends up in the results if they depend on it. A call that is not
 * element by element spoils its results before it reads, so it finds out where they lie over its
 * operands. */
#include "machine.h"

#include <string.h>

void machine_fail(Machine *x, int device, const char *what)
{
    if (!x->wrong)
        x->wrong = arena_printf(x->arena, "%s: %s", x->p->devices.at[device].name, what);
}

/* The cells of a range of bytes; NULL where it leaves the device's tensors. */
Cell *machine_cells(Machine *x, int device, int64_t at, int64_t bytes)
{
    if (at < 0 || at % CELL || bytes <= 0 ||
        at / CELL + (bytes + CELL - 1) / CELL > x->cells[device]) {
        machine_fail(x, device, "touches what is no memory of tensors");
        return NULL;
    }
    return x->memory[device] + at / CELL;
}

static int parts_of(int64_t bytes)
{
    return (int)((bytes + CELL - 1) / CELL);
}

static Name read_cells(const Cell *c, int parts)
{
    bool whole = true;
    for (int i = 0; i < parts; i++)
        whole = whole && c[i].what == c[0].what && c[i].part == i && c[i].parts == parts;
    if (whole)
        return c[0].what;
    Name x = NAME_SPOILT;
    for (int i = 0; i < parts; i++)
        x = name_with(name_with(name_with(x, c[i].what), (uint64_t)c[i].part),
                      (uint64_t)c[i].parts);
    return x;
}

static void write_cells(Cell *c, int parts, Name what)
{
    for (int i = 0; i < parts; i++)
        c[i] = (Cell){what, i, parts};
}

/* ----------------------------------------------------------------------- calls */

typedef struct {
    Cell *at; /* NULL: absent, or nowhere */
    int parts;
    bool sums;
} Operand;

static Operand find_operand(Machine *x, int device, const Ref *r, int turn, int m)
{
    const Device *d = &x->p->devices.at[device];
    int buffer, member;
    ref_resolve(d, r, turn, &buffer, &member);
    if (buffer == NONE || r->value == NONE)
        return (Operand){0};
    const Buffer *b = &d->buffers.at[buffer];
    const int64_t bytes = value_bytes(x->p, r->value);
    return (Operand){machine_cells(x, device, buffer_address(b, m, member), bytes), parts_of(bytes),
                     b->class == BUFFER_GRAD};
}

static Name read_ref(Machine *x, int device, const Ref *r, int turn, int m)
{
    if (r->buffer == NONE) {
        const Value *v = r->value == NONE ? NULL : &x->p->graph->values.at[r->value];
        return v && v->kind == VALUE_CONST ? name_const(v->number) : NAME_ABSENT;
    }
    Operand o = find_operand(x, device, r, turn, m);
    return o.at ? read_cells(o.at, o.parts) : NAME_ABSENT;
}

/* Whether the result takes exactly the place of an operand, element by element. */
static bool in_place(Machine *x, int device, const Turn *t, const Operand *out, int m)
{
    const OpKind kind = x->p->graph->ops.at[t->call->op].kind;
    for (int i = 0; i < t->call->nin; i++) {
        const Ref *r = &t->call->in[i];
        Operand in = find_operand(x, device, r, t->turn, m);
        if (in.at == out->at && in.parts == out->parts)
            return kind == OP_FUSED || kind == OP_CROSS_ENTROPY_DX;
    }
    return false;
}

static void call_op(Machine *x, int device, const Turn *t, int m)
{
    enum { MOST = 64 };
    const Call *c = t->call;
    Operand out[MOST];
    Name before[MOST];
    for (int i = 0; i < c->nout && i < MOST; i++) {
        out[i] = find_operand(x, device, &c->out[i], t->turn, m);
        before[i] = out[i].at && out[i].sums && m > 0 ? read_cells(out[i].at, out[i].parts) : 0;
    }
    for (int i = 0; i < c->nout && i < MOST; i++)
        if (out[i].at && !in_place(x, device, t, &out[i], m))
            write_cells(out[i].at, out[i].parts, name_with(NAME_SPOILT, (uint64_t)c->op));
    Name operands = name_with(NAME_OP, (uint64_t)c->op);
    for (int i = 0; i < c->nin; i++)
        operands = name_with(operands, read_ref(x, device, &c->in[i], t->turn, m));
    if (x->p->graph->ops.at[c->op].kind == OP_DROPOUT)
        operands = name_pattern(x->arena, operands, c->prefix, c->suffix, c->first,
                                c->first + t->turn * c->number_step);
    for (int i = 0; i < c->nout && i < MOST; i++)
        if (out[i].at)
            write_cells(out[i].at, out[i].parts, name_result(operands, i, before[i]));
}

void machine_call(Machine *x, int device, const Turn *t, int step, int m)
{
    const Call *c = t->call;
    if (c->kind == CALL_OP) {
        call_op(x, device, t, m);
    } else if (c->kind == CALL_LOAD) {
        Operand o = find_operand(x, device, &c->out[0], t->turn, m);
        if (o.at)
            write_cells(o.at, o.parts, name_input(c->input, step, m));
    } else {
        int which = c->kind == CALL_LOSS ? 0 : 1 + c->input;
        if (which <= x->p->graph->metrics.n)
            x->report[which] = name_with(name_with(x->report[which], (uint64_t)m),
                                         read_ref(x, device, &c->in[0], t->turn, m));
    }
}

/* --------------------------------------------------------------------- weights */

static int64_t weight_bytes(const Machine *x, WeightId w, bool half)
{
    const Weight *weight = &x->p->graph->weights.at[w];
    return value_bytes(x->p, half ? weight->half : weight->value);
}

static Operand find_member(Machine *x, int device, int buffer, int member, int64_t bytes)
{
    const Buffer *b = &x->p->devices.at[device].buffers.at[buffer];
    return (Operand){machine_cells(x, device, buffer_address(b, 0, member), bytes), parts_of(bytes),
                     false};
}

static Name read_member(Machine *x, int device, int buffer, int member, int64_t bytes)
{
    Operand o = find_member(x, device, buffer, member, bytes);
    return o.at ? read_cells(o.at, o.parts) : NAME_NOTHING;
}

static void write_member(Machine *x, int device, int buffer, int member, int64_t bytes, Name what)
{
    Operand o = find_member(x, device, buffer, member, bytes);
    if (o.at)
        write_cells(o.at, o.parts, what);
}

static void update_weight(Machine *x, int device, const WeightRun *r, int k, int step)
{
    const int64_t bytes = weight_bytes(x, r->weight, false);
    Name w = name_with(NAME_UPDATE, read_member(x, device, r->buffer, k, bytes));
    w = name_with(w, read_member(x, device, r->grad[0], k, bytes));
    w = name_with(w, program_clips(x->p) ? x->device_scale[device] : 0);
    for (int i = 0; i < r->nstates; i++)
        w = name_with(w, read_member(x, device, r->state[i], k, bytes));
    w = name_with(w, (uint64_t)step);
    write_member(x, device, r->buffer, k, bytes, w);
    for (int i = 0; i < r->nstates; i++)
        write_member(x, device, r->state[i], k, bytes, name_with(w, (uint64_t)i + 1));
}

static void whole_weight(Machine *x, int device, const WeightRun *r, int k, ActionKind kind,
                         int step)
{
    const WeightId w = r->weight + k * r->step;
    const int64_t bytes = weight_bytes(x, w, false);
    if (kind == ACT_ROUND && r->half != NONE)
        write_member(x, device, r->half, k, weight_bytes(x, w, true),
                     name_with(NAME_ROUND, read_member(x, device, r->buffer, k, bytes)));
    if (kind == ACT_REDUCE)
        for (int i = 1; i < r->ngrads; i++) {
            Name sum = name_with(NAME_SUM, read_member(x, device, r->grad[0], k, bytes));
            sum = name_with(sum, read_member(x, device, r->grad[i], k, bytes));
            write_member(x, device, r->grad[0], k, bytes, sum);
        }
    if (kind == ACT_CLIP && r->ngrads)
        x->squares[w] = name_with(NAME_SQUARES, read_member(x, device, r->grad[0], k, bytes));
    if (kind == ACT_UPDATE && r->ngrads)
        update_weight(x, device, r, k, step);
}

void machine_whole(Machine *x, int device, ActionKind kind, int step)
{
    const Device *d = &x->p->devices.at[device];
    for (int i = 0; i < d->weights.n; i++)
        for (int k = 0; k < d->weights.at[i].count; k++)
            whole_weight(x, device, &d->weights.at[i], k, kind, step);
}

/* -------------------------------------------------------------------- messages */

bool machine_place(Machine *x, int device, const Ref *r, int m, int64_t *at)
{
    const Device *d = &x->p->devices.at[device];
    if (r->buffer < 0 || r->buffer >= d->buffers.n) {
        machine_fail(x, device, "a message has no place");
        return false;
    }
    *at = buffer_address(&d->buffers.at[r->buffer], m, r->at);
    return true;
}

void machine_copy(Machine *x, int from, int64_t source, int to, int64_t target, int64_t bytes)
{
    const Cell *s = machine_cells(x, from, source, bytes);
    Cell *t = machine_cells(x, to, target, bytes);
    if (s && t)
        memmove(t, s, sizeof *t * (size_t)parts_of(bytes));
}

void machine_offload(Machine *x, int device, const Action *a)
{
    const Device *d = &x->p->devices.at[device];
    bool any = false;
    for (int i = 0; i < d->offloads.n; i++) {
        const Offload *o = &d->offloads.at[i];
        if (o->chunk != a->chunk)
            continue;
        const bool in = a->kind == ACT_COPY_IN;
        const Buffer *here = &d->buffers.at[in ? o->back : o->buffer];
        const int64_t bytes = here->stride * here->ring;
        const int64_t far = buffer_address(&d->buffers.at[o->host], a->m, 0);
        Cell *near = machine_cells(x, device, buffer_address(here, a->m, 0), bytes);
        any = true;
        if (far < 0 || far / CELL + parts_of(bytes) > x->away_cells[device])
            machine_fail(x, device, "offloads to where the host has no memory");
        else if (near && in)
            memcpy(near, x->away[device] + far / CELL, sizeof *near * (size_t)parts_of(bytes));
        else if (near)
            memcpy(x->away[device] + far / CELL, near, sizeof *near * (size_t)parts_of(bytes));
    }
    if (!any)
        machine_fail(x, device, "copies what no chunk of its own offloads");
}

/* ------------------------------------------------------------- beginning and end */

/* Weights and state have their initial values, by their names; nothing else is anything. */
void machine_fill(Machine *x)
{
    for (int d = 0; d < x->D; d++) {
        for (int64_t i = 0; i < x->cells[d]; i++)
            x->memory[d][i] = (Cell){name_with(NAME_NOTHING, (uint64_t)i), 0, 0};
        const Device *dev = &x->p->devices.at[d];
        for (int i = 0; i < dev->weights.n; i++)
            for (int k = 0; k < dev->weights.at[i].count; k++) {
                const WeightRun *r = &dev->weights.at[i];
                const WeightId w = r->weight + k * r->step;
                write_member(x, d, r->buffer, k, weight_bytes(x, w, false),
                             name_pattern(x->arena, NAME_WEIGHT, r->prefix, r->suffix, r->first,
                                          r->first + k * r->number_step));
                for (int s = 0; s < r->nstates; s++)
                    write_member(x, d, r->state[s], k, weight_bytes(x, w, false), NAME_STATE);
            }
        x->fresh[d] = arena_copy(x->arena, x->memory[d], sizeof(Cell) * (size_t)x->cells[d]);
    }
}

static void compare_weight(Machine *x, int d, const WeightRun *r, int k)
{
    const WeightId w = r->weight + k * r->step;
    const int64_t bytes = weight_bytes(x, w, false);
    if (read_member(x, d, r->buffer, k, bytes) != x->wanted->weight[w])
        machine_fail(x, d, "a weight is wrong in the end");
    for (int s = 0; s < r->nstates && r->ngrads; s++)
        if (read_member(x, d, r->state[s], k, bytes) != x->wanted->state[w][s])
            machine_fail(x, d, "the state of the optimizer is wrong in the end");
}

void machine_compare(Machine *x)
{
    for (int d = 0; d < x->D; d++) {
        const Device *dev = &x->p->devices.at[d];
        for (int i = 0; i < dev->weights.n; i++)
            for (int k = 0; k < dev->weights.at[i].count; k++)
                compare_weight(x, d, &dev->weights.at[i], k);
    }
    for (int i = 0; i <= x->p->graph->metrics.n; i++)
        if (x->report[i] != x->wanted->report[i])
            machine_fail(x, 0, "a number is reported wrong");
}
