/* roll.c - finds repeated layers again and keeps them as loops.
 *
 * In:  the operations of one phase of one chunk, in their order.
 * Out: calls and steps: straight lines, and loops over turns that are alike.
 *
 * The turns of one for statement are alike when they are the same operations with the same
 * shapes and attributes, and every operand of turn t + 1 stands to turn t + 1 as that of turn t
 * stands to turn t:
 *
 *     local      made by the same operation of the own turn
 *     carried    made by the same operation of the turn before (the first turn: from outside)
 *     member     tensors k, k + 1, … of a buffer that an earlier loop made (backward: k, k - 1)
 *     weight     two weights of one shape, whose names count up
 *     same       one tensor, the same in every turn
 *
 *     for i in 0 .. 12 { x = relu(linear(x, n) as fc[i]); }
 *
 *     turn i:   y_i = linear(relu_(i-1), fc.i.weight, fc.i.bias)      carried, weight, weight
 *               relu_i = relu(y_i)                                    local
 *
 * Then the n turns become one body, every tensor of it a buffer with n members. Where loops
 * are nested the level is taken that leaves fewer calls.
 */
#include <string.h>

#include "fuse.h"
#include "lower.h"

typedef enum {
    REL_ABSENT,
    REL_CONST,
    REL_SAME,
    REL_LOCAL,
    REL_CARRIED,
    REL_MEMBER,
    REL_WEIGHT
} RelKind;

/* How one operand relates to its turn. */
typedef struct {
    RelKind kind;
    int pos, out;        /* LOCAL, CARRIED: which result of the body */
    int buffer;          /* MEMBER: which the turn before reads */
    NamePattern pattern; /* WEIGHT */
    int id_step;         /* WEIGHT: from turn to turn */
} Rel;

typedef struct {
    Lower *l;
    Run *run;
    const OpId *ops;
    bool down;
} Roller;

/* A stretch of the list: one turn. */
typedef struct {
    int from, n;
} Turn;

static const Op *op_at(const Roller *r, int pos)
{
    return &r->l->g->ops.at[r->ops[pos]];
}

/* The frame of the turn at nesting depth `depth` that the operation is in, or NONE. */
static FrameId turn_frame(const Graph *g, FrameId f, int depth)
{
    int n = 0;
    for (FrameId x = f; x > 0; x = g->frames.at[x].parent)
        n += g->frames.at[x].kind == FRAME_TURN;
    if (depth >= n)
        return NONE;
    for (FrameId x = f; x > 0; x = g->frames.at[x].parent)
        if (g->frames.at[x].kind == FRAME_TURN && --n == depth)
            return x;
    return NONE;
}

/* Position in the list of the operation that makes v, and which result it is. */
static bool made_at(const Roller *r, ValueId root, int *pos, int *out)
{
    OpId def = r->l->g->values.at[root].def;
    if (def == NONE || r->l->position[def] == NONE)
        return false;
    *pos = r->l->position[def];
    const Op *op = &r->l->g->ops.at[def];
    for (int i = 0; i < op->nout; i++)
        if (op->out[i] != NONE && lower_root(r->l, op->out[i]) == root) {
            *out = i;
            return true;
        }
    return false;
}

static bool value_alike(const Graph *g, ValueId x, ValueId y)
{
    if (x == NONE || y == NONE)
        return x == y;
    const Value *a = &g->values.at[x], *b = &g->values.at[y];
    return a->kind == b->kind && a->type == b->type && a->batched == b->batched &&
           shape_equal(&a->shape, &b->shape);
}

/* Weights of two consecutive turns, not yet at home anywhere. */
static bool weights_alike(const Roller *r, ValueId x, ValueId y, Rel *rel)
{
    const Lower *l = r->l;
    const Value *a = &l->g->values.at[x], *b = &l->g->values.at[y];
    const Weight *u = &l->g->weights.at[a->index], *w = &l->g->weights.at[b->index];
    if (l->shared[a->index] || l->shared[b->index] || l->uses[a->index] != l->uses[b->index] ||
        l->pl->weight_owner[a->index] != l->pl->weight_owner[b->index])
        return false;
    if (x == u->half && (l->home[u->value].buffer != NONE || l->home[w->value].buffer != NONE))
        return false;
    if (u->frozen != w->frozen || u->init != w->init ||
        memcmp(&u->init_value, &w->init_value, sizeof u->init_value) != 0)
        return false;
    rel->id_step = b->index - a->index;
    return pattern_pair(l->arena, u->name, w->name, &rel->pattern);
}

/* Relation of operand x of turn a to operand y of the next turn b. */
static bool relate(const Roller *r, Turn a, Turn b, ValueId x, ValueId y, Rel *rel)
{
    Lower *l = r->l;
    const Graph *g = l->g;
    memset(rel, 0, sizeof *rel);
    if (x == NONE || y == NONE)
        return x == y;
    const Value *vx = &g->values.at[x], *vy = &g->values.at[y];
    if (vx->kind == VALUE_CONST && vy->kind == VALUE_CONST) {
        rel->kind = REL_CONST;
        return memcmp(&vx->number, &vy->number, sizeof vx->number) == 0;
    }
    if (!shape_equal(&vx->shape, &vy->shape) || vx->batched != vy->batched || vx->type != vy->type)
        return false;
    ValueId rx = lower_root(l, x), ry = lower_root(l, y);
    if (rx == ry) {
        rel->kind = REL_SAME;
        return true;
    }
    int px = NONE, ox = 0, py = NONE, oy = 0;
    bool made_x = made_at(r, rx, &px, &ox), made_y = made_at(r, ry, &py, &oy);
    if (made_y && py >= b.from && py < b.from + b.n) {
        *rel = (Rel){.kind = REL_LOCAL, .pos = py - b.from, .out = oy};
        return made_x && px == a.from + rel->pos && ox == oy;
    }
    if (made_y && py >= a.from && py < a.from + a.n) {
        *rel = (Rel){.kind = REL_CARRIED, .pos = py - a.from, .out = oy};
        /* the turn before must have done the same, or a is the first and takes it from outside */
        return !made_x || px < a.from;
    }
    Home hx = l->home[rx], hy = l->home[ry];
    if (g->values.at[rx].kind == VALUE_WEIGHT && g->values.at[ry].kind == VALUE_WEIGHT &&
        hx.buffer == NONE && hy.buffer == NONE) {
        rel->kind = REL_WEIGHT;
        return weights_alike(r, rx, ry, rel);
    }
    rel->kind = REL_MEMBER;
    rel->buffer = hx.buffer;
    if (hx.buffer == NONE || l->p->devices.at[l->device].buffers.at[hx.buffer].count == 1)
        return false;
    int step = r->down ? -1 : 1;
    if (hy.buffer == hx.buffer)
        return hy.member == hx.member + step;
    int last = r->down ? 0 : l->p->devices.at[l->device].buffers.at[hx.buffer].count - 1;
    return hx.member == last && l->entry[hx.buffer] == ry;
}

/* Do the turns match, in every operation? Fills rel[] (operand by operand) for the first
 * pair; for later pairs requires the same relations. */
static bool alike(const Roller *r, Turn a, Turn b, Rel *rels, bool first)
{
    const Graph *g = r->l->g;
    if (a.n != b.n)
        return false;
    Rel *rel = rels;
    for (int p = 0; p < a.n; p++) {
        const Op *x = op_at(r, a.from + p), *y = op_at(r, b.from + p);
        if (x->kind != y->kind || x->phase != y->phase || x->nin != y->nin || x->nout != y->nout ||
            !attr_equal(&x->attr, &y->attr))
            return false;
        if (!maps_alike(x, y))
            return false;
        if (x->kind == OP_DROPOUT) {
            NamePattern pattern;
            if (!x->path || !y->path || !pattern_pair(r->l->arena, x->path, y->path, &pattern))
                return false;
        }
        for (int i = 0; i < x->nout; i++) {
            if (!value_alike(g, x->out[i], y->out[i]))
                return false;
            if (x->out[i] == NONE || g->values.at[x->out[i]].kind != VALUE_GRAD)
                continue;
            const Value *u = &g->values.at[x->out[i]], *v = &g->values.at[y->out[i]];
            Home hu = r->l->home[g->weights.at[u->index].value];
            Home hv = r->l->home[g->weights.at[v->index].value];
            if (u->use != v->use || hu.buffer != hv.buffer ||
                hv.member != hu.member + (r->down ? -1 : 1))
                return false;
        }
        for (int i = 0; i < x->nin; i++, rel++) {
            Rel now;
            if (!relate(r, a, b, x->in[i], y->in[i], &now))
                return false;
            if (first)
                *rel = now;
            else if (now.kind != rel->kind || now.pos != rel->pos || now.out != rel->out ||
                     now.buffer != rel->buffer || now.id_step != rel->id_step ||
                     now.pattern.step != rel->pattern.step)
                return false;
        }
    }
    return true;
}

/* A pattern found from one pair must hold for every turn. */
static bool patterns_hold(const Roller *r, const Turn *turns, int n, const Rel *rels)
{
    const Rel *rel = rels;
    for (int p = 0; p < turns[0].n; p++) {
        const Op *first = op_at(r, turns[0].from + p);
        NamePattern path;
        if (first->kind == OP_DROPOUT &&
            pattern_pair(r->l->arena, first->path, op_at(r, turns[1].from + p)->path, &path))
            for (int t = 0; t < n; t++)
                if (!pattern_matches(&path, t, op_at(r, turns[t].from + p)->path))
                    return false;
        for (int i = 0; i < first->nin; i++, rel++) {
            if (rel->kind != REL_WEIGHT)
                continue;
            for (int t = 0; t < n; t++) {
                ValueId v = op_at(r, turns[t].from + p)->in[i];
                const char *name = r->l->g->weights.at[r->l->g->values.at[v].index].name;
                if (!pattern_matches(&rel->pattern, t, name))
                    return false;
            }
        }
    }
    return true;
}

static void push_call(Roller *r, Call call)
{
    VEC_PUSH(r->l->arena, &r->run->calls, call);
}

static Call make_call(Lower *l, OpId o)
{
    const Op *op = &l->g->ops.at[o];
    return (Call){.kind = CALL_OP,
                  .op = o,
                  .prefix = op->path,
                  .suffix = "",
                  .first = -1,
                  .nin = op->nin,
                  .nout = op->nout,
                  .in = ARENA_ARRAY(l->arena, Ref, op->nin + 1),
                  .out = ARENA_ARRAY(l->arena, Ref, op->nout + 1)};
}

static void straight(Roller *r, int pos)
{
    Lower *l = r->l;
    const Op *op = op_at(r, pos);
    Call call = make_call(l, r->ops[pos]);
    call.ops = &r->ops[pos];
    for (int i = 0; i < op->nin; i++)
        call.in[i] = lower_ref(l, op->in[i]);
    for (int i = 0; i < op->nout; i++) {
        ValueId v = op->out[i];
        /* what shares the place of another is at home there */
        if (v != NONE && l->g->values.at[v].kind != VALUE_GRAD && lower_root(l, v) == v) {
            int b = lower_add_buffer(l, v, 1, BUFFER_SCRATCH, lower_label(l, v));
            lower_set_home(l, v, b, 0);
        }
        call.out[i] = lower_ref(l, v);
    }
    Run *run = r->run;
    Step *last = run->steps.n ? &run->steps.at[run->steps.n - 1] : NULL;
    if (!last || last->turns > 1) {
        VEC_PUSH(l->arena, &run->steps, (Step){.first = run->calls.n, .turns = 1});
        last = &run->steps.at[run->steps.n - 1];
    }
    push_call(r, call);
    last->ncalls++;
}

/* "h.0.mlp" and "h.1.mlp" name one buffer "h.mlp". */
static const char *common_label(Lower *l, ValueId x, ValueId y)
{
    const char *a = lower_label(l, x), *b = lower_label(l, y);
    NamePattern p;
    if (strcmp(a, b) == 0 || !pattern_pair(l->arena, a, b, &p))
        return a;
    return arena_printf(l->arena, "%s%s", p.prefix, p.suffix);
}

/* n weights from `first` on, rel->id_step apart, each member of one buffer. */
static void add_whole_weights(Roller *r, int n, WeightId first, const Rel *rel)
{
    Lower *l = r->l;
    const char *label = arena_printf(l->arena, "%s%s", rel->pattern.prefix, rel->pattern.suffix);
    int b = lower_add_buffer(l, l->g->weights.at[first].value, n, BUFFER_WEIGHT, label);
    for (int t = 0; t < n; t++)
        lower_set_home(l, l->g->weights.at[first + t * rel->id_step].value, b, t);
    WeightRun run = {.weight = first,
                     .step = rel->id_step,
                     .count = n,
                     .buffer = b,
                     .half = NONE,
                     .prefix = rel->pattern.prefix,
                     .suffix = rel->pattern.suffix,
                     .first = rel->pattern.first,
                     .number_step = rel->pattern.step};
    lower_add_weights(l, run);
}

static void add_weight_run(Roller *r, const Turn *turns, int n, int p, int i, const Rel *rel)
{
    Lower *l = r->l;
    ValueId v = op_at(r, turns[0].from + p)->in[i];
    ValueId root = lower_root(l, v);
    if (l->home[root].buffer != NONE)
        return; /* a second operand of the body, already there */
    const Value *w = &l->g->values.at[root];
    const Weight *weights = l->g->weights.at;
    const Home whole = l->home[weights[w->index].value];
    if (whole.buffer == NONE)
        add_whole_weights(r, n, w->index, rel);
    if (root != weights[w->index].half)
        return;
    WeightRun *run = lower_run_of(l, l->home[weights[w->index].value].buffer);
    int b = lower_add_halves(l, run);
    for (int t = 0; t < n; t++)
        lower_set_home(l, weights[w->index + t * rel->id_step].half, b, t);
}

/* The operand of the first turn, as every turn finds it. */
static Ref operand(Roller *r, int n, ValueId v, const Rel *rel, int *const *made)
{
    Lower *l = r->l;
    int first = r->down ? n - 1 : 0;
    Ref ref = {.buffer = NONE, .entry = NONE, .value = v};
    switch (rel->kind) {
    case REL_ABSENT:
    case REL_CONST:
        return ref;
    case REL_SAME:
        return lower_ref(l, v);
    case REL_LOCAL:
        ref.buffer = made[rel->pos][rel->out];
        ref.by_turn = true;
        return ref;
    case REL_CARRIED: {
        Home outside = lower_home(l, v);
        ref.buffer = made[rel->pos][rel->out];
        ref.by_turn = true;
        ref.at = r->down ? 1 : -1;
        ref.entry = outside.buffer;
        ref.entry_at = outside.member;
        l->entry[ref.buffer] = lower_root(l, v);
        return ref;
    }
    case REL_MEMBER:
    case REL_WEIGHT: {
        Home h = lower_home(l, v);
        ref.buffer = h.buffer;
        ref.by_turn = true;
        ref.at = h.member - first;
        int last = (r->down ? 0 : n - 1) + ref.at;
        int count = l->p->devices.at[l->device].buffers.at[h.buffer].count;
        if (last < 0 || last >= count) {
            Home e = lower_home(l, l->entry[h.buffer]);
            ref.entry = e.buffer;
            ref.entry_at = e.member;
        }
        return ref;
    }
    }
    return ref;
}

/* What a loop's body is called: the block it is, or the words that its paths share. */
static const char *body_name(Roller *r, const Turn *turns)
{
    const Graph *g = r->l->g;
    FrameId block = NONE;
    bool one = true;
    for (int p = 0; p < turns[0].n; p++) {
        FrameId below = NONE;
        FrameId f = op_at(r, turns[0].from + p)->frame;
        while (f > 0 && g->frames.at[f].kind != FRAME_TURN) {
            below = f;
            f = g->frames.at[f].parent;
        }
        if (p == 0)
            block = below;
        one = one && block == below;
    }
    if (one && block != NONE)
        return g->frames.at[block].name;
    for (int p = 0; p < turns[0].n; p++) {
        const Op *x = op_at(r, turns[0].from + p), *y = op_at(r, turns[1].from + p);
        NamePattern pattern;
        if (x->path && y->path && pattern_pair(r->l->arena, x->path, y->path, &pattern) &&
            pattern.prefix[0])
            return pattern.prefix;
    }
    return "turn";
}

static void commit(Roller *r, const Turn *turns, int n, const Rel *rels, int depth)
{
    Lower *l = r->l;
    int body = turns[0].n, first = r->down ? n - 1 : 0, dir = r->down ? -1 : 1;
    int **made = ARENA_ARRAY(l->arena, int *, body); /* buffers of the body's results */
    const Rel *rel = rels;
    for (int p = 0; p < body; p++) {
        const Op *op = op_at(r, turns[0].from + p);
        for (int i = 0; i < op->nin; i++, rel++)
            if (rel->kind == REL_WEIGHT)
                add_weight_run(r, turns, n, p, i, rel);
    }
    for (int p = 0; p < body; p++) {
        const Op *op = op_at(r, turns[0].from + p), *next = op_at(r, turns[1].from + p);
        made[p] = ARENA_ARRAY(l->arena, int, op->nout + 1);
        for (int i = 0; i < op->nout; i++) {
            ValueId v = op->out[i];
            if (v == NONE || l->g->values.at[v].kind == VALUE_GRAD)
                continue;
            int b = lower_add_buffer(l, v, n, BUFFER_SCRATCH, common_label(l, v, next->out[i]));
            made[p][i] = b;
            for (int t = 0; t < n; t++)
                lower_set_home(l, op_at(r, turns[t].from + p)->out[i], b, first + dir * t);
        }
    }
    Step step = {.first = r->run->calls.n,
                 .ncalls = body,
                 .turns = n,
                 .down = r->down,
                 .frame = turn_frame(l->g, op_at(r, turns[0].from)->frame, depth),
                 .name = body_name(r, turns)};
    rel = rels;
    for (int p = 0; p < body; p++) {
        const Op *op = op_at(r, turns[0].from + p);
        Call call = make_call(l, r->ops[turns[0].from + p]);
        OpId *ops = ARENA_ARRAY(l->arena, OpId, n);
        for (int t = 0; t < n; t++)
            ops[t] = r->ops[turns[t].from + p];
        call.ops = ops;
        NamePattern path;
        if (op->kind == OP_DROPOUT &&
            pattern_pair(l->arena, op->path, op_at(r, turns[1].from + p)->path, &path)) {
            call.prefix = path.prefix;
            call.suffix = path.suffix;
            call.first = path.first + first * path.step;
            call.number_step = dir * path.step;
        }
        for (int i = 0; i < op->nin; i++, rel++)
            call.in[i] = operand(r, n, op->in[i], rel, made);
        for (int i = 0; i < op->nout; i++) {
            call.out[i] = lower_ref(l, op->out[i]);
            if (op->out[i] != NONE) {
                call.out[i].by_turn = true;
                call.out[i].at -= first;
            }
        }
        push_call(r, call);
    }
    VEC_PUSH(l->arena, &r->run->steps, step);
}

static void roll_range(Roller *r, int from, int to, int depth);

/* The most turns of a loop that is nested directly inside this turn. */
static int inner_turns(const Roller *r, Turn t, int depth)
{
    const Graph *g = r->l->g;
    int most = 0, now = 0, loop = NONE;
    FrameId before = NONE;
    for (int p = t.from; p < t.from + t.n; p++) {
        FrameId f = turn_frame(g, op_at(r, p)->frame, depth + 1);
        if (f != NONE && f != before) {
            now = g->frames.at[f].loop == loop ? now + 1 : 1;
            loop = g->frames.at[f].loop;
            most = now > most ? now : most;
        }
        before = f;
    }
    return most;
}

static void roll_loop(Roller *r, const Turn *turns, int n, int depth)
{
    Lower *l = r->l;
    for (int t = 0; t < n;) {
        int operands = 0;
        for (int p = 0; p < turns[t].n; p++)
            operands += op_at(r, turns[t].from + p)->nin;
        Rel *rels = ARENA_ARRAY(l->arena, Rel, operands + 1);
        int same = 1;
        while (t + same < n && alike(r, turns[t + same - 1], turns[t + same], rels, same == 1))
            same++;
        while (same > 1 && !patterns_hold(r, turns + t, same, rels))
            same--;
        if (same > 1 && inner_turns(r, turns[t], depth) <= same) {
            commit(r, turns + t, same, rels, depth);
            t += same;
        } else {
            roll_range(r, turns[t].from, turns[t].from + turns[t].n, depth + 1);
            t++;
        }
    }
}

static void roll_range(Roller *r, int from, int to, int depth)
{
    const Graph *g = r->l->g;
    for (int p = from; p < to;) {
        FrameId f = turn_frame(g, op_at(r, p)->frame, depth);
        if (f == NONE) {
            straight(r, p++);
            continue;
        }
        int loop = g->frames.at[f].loop;
        VEC(Turn) turns = {0};
        FrameId before = NONE;
        for (; p < to; p++) {
            FrameId now = turn_frame(g, op_at(r, p)->frame, depth);
            if (now == NONE || g->frames.at[now].loop != loop)
                break;
            if (now != before)
                VEC_PUSH(r->l->arena, &turns, (Turn){.from = p});
            turns.at[turns.n - 1].n++;
            before = now;
        }
        roll_loop(r, turns.at, turns.n, depth);
    }
}

void roll(Lower *l, Run *run, const OpId *ops, int n, bool down)
{
    for (int i = 0; i < n; i++)
        l->position[ops[i]] = i;
    Roller r = {.l = l, .run = run, .ops = ops, .down = down};
    roll_range(&r, 0, n, 0);
    for (int i = 0; i < n; i++)
        l->position[ops[i]] = NONE;
}
