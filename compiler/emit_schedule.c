/* emit_schedule.c - a device's ordered actions as the loops a person would write.
 *
 * In:  the list of actions: runs, sends, receives, each with a micro-batch.
 * Out: statements; wherever a block of statements repeats with the micro-batches one
 *      further on, a loop. The longest repetition that starts at a place is taken, of
 *      equally long ones the one with the shortest block.
 *
 *     F0 F1 F2  F3 B0 F4 B1 F5 B2  B3 B4 B5
 *     \_ 3xF _/ \___ 3x(F B) ___/  \_ 3xB _/       warm-up, steady, drain
 *
 * No loop crosses the beginning of the steady state: the forward run before the first
 * backward run belongs to that one.
 *
 * Where a step may be captured as a CUDA graph, its list is printed in two parts: the passes with
 * their messages, and from the update on. Nothing in the second part waits for an event of the
 * first, which outside of a capture would be none: such waits stand at the end of the first.
 */
#include <stdio.h>
#include <string.h>

#include "emit.h"

typedef enum {
    ITEM_RUN,
    ITEM_POST,
    ITEM_SEND,
    ITEM_WAIT,   /* for a message */
    ITEM_AWAIT,  /* GPUs: a stream waits for an event */
    ITEM_RECORD, /* GPUs: of an event */
    ITEM_COPY,
    ITEM_OTHER,
    ITEM_STEADY
} ItemKind;

typedef struct {
    ItemKind kind;
    int id; /* run: chunk * RUN_KINDS + run; links: the link; copies: 2 * chunk, and 1 back; other:
               the action's kind; events: STREAMS * the action's key + the stream */
    int m;
} Item;
typedef VEC(Item) Items;

enum { LONGEST_BLOCK = 64 };

/* The forward run that comes right before the first backward run; NONE: there is none. */
static int find_steady(const ActionList *list)
{
    int forward = NONE;
    for (int i = 0; i < list->actions.n; i++) {
        const Action *a = &list->actions.at[i];
        if (a->kind == ACT_RUN && run_goes_back(a->run))
            return forward;
        if (a->kind == ACT_RUN && a->run == RUN_F)
            forward = i;
    }
    return NONE;
}

/* The first action that is no pass and no message of one. The message of an updated weight is
 * none on either side: NCCL wants both sides of a message captured, or neither. */
static int find_update(const Emit *e, const ActionList *list)
{
    for (int i = 0; i < list->actions.n; i++) {
        const Action *a = &list->actions.at[i];
        bool message = a->kind == ACT_SEND || a->kind == ACT_RECV;
        if (a->kind == ACT_REDUCE || a->kind == ACT_CLIP || a->kind == ACT_UPDATE ||
            (message && e->p->links.at[a->link].kind == LINK_WEIGHT))
            return i;
    }
    return list->actions.n;
}

/* Before an action on a GPU: messages that it is the first to need, and events of the other
 * stream, of actions that are numbered from `from` to `to`. */
static void add_gpu_waits(Emit *e, Items *items, const ActionList *list, const Action *a, int from,
                          int to)
{
    for (int t = 0; t < a->ntakes; t++) {
        const Action *on = &list->actions.at[list->takes.at[a->first_take + t]];
        VEC_PUSH(e->arena, items, (Item){ITEM_WAIT, on->link, on->m});
    }
    for (int w = 0; w < a->nwaits; w++) {
        int number = list->waits.at[a->first_wait + w];
        const Action *on = &list->actions.at[number];
        if (number < from || number >= to)
            continue;
        Item wait = {ITEM_AWAIT, STREAMS * emit_event_key(on) + (int)action_stream(a), on->m};
        if (on->kind != ACT_RECV || e->p->transfer == TRANSFER_NCCL)
            VEC_PUSH(e->arena, items, wait);
    }
}

/* [actions]: whether an event is to be recorded after it. */
static const bool *find_records(Emit *e, const ActionList *list)
{
    bool *record = ARENA_ARRAY(e->arena, bool, list->actions.n + 1);
    for (int i = 0; e->gpu && i < list->waits.n; i++) {
        const Action *on = &list->actions.at[list->waits.at[i]];
        record[list->waits.at[i]] = on->kind != ACT_RECV || e->p->transfer == TRANSFER_NCCL;
    }
    return record;
}

static void add_action(Emit *e, Items *items, const Action *a)
{
    switch (a->kind) {
    case ACT_RUN:
        VEC_PUSH(e->arena, items, (Item){ITEM_RUN, a->chunk * RUN_KINDS + (int)a->run, a->m});
        break;
    case ACT_SEND:
        VEC_PUSH(e->arena, items, (Item){ITEM_SEND, a->link, a->m});
        break;
    case ACT_RECV:
        VEC_PUSH(e->arena, items, (Item){ITEM_POST, a->link, a->m});
        break;
    case ACT_COPY_OUT:
    case ACT_COPY_IN:
        VEC_PUSH(e->arena, items, (Item){ITEM_COPY, 2 * a->chunk + (a->kind == ACT_COPY_IN), a->m});
        break;
    case ACT_JOIN:
        break;
    default:
        VEC_PUSH(e->arena, items, (Item){ITEM_OTHER, (int)a->kind, 0});
        break;
    }
}

static Items make_items(Emit *e, const ActionList *list, SchedulePart part)
{
    Items items = {0};
    int steady = find_steady(list), n = list->actions.n;
    int from = part == SCHEDULE_UPDATE ? find_update(e, list) : 0;
    int to = part == SCHEDULE_PASSES ? find_update(e, list) : n;
    const bool *record = find_records(e, list);
    for (int i = from; i < to; i++) {
        const Action *a = &list->actions.at[i];
        if (i == steady && e->p->model->settings.parallel.schedule != SCHEDULE_GPIPE)
            VEC_PUSH(e->arena, &items, (Item){ITEM_STEADY, 0, 0});
        if (e->gpu)
            add_gpu_waits(e, &items, list, a, from, to);
        for (int w = 0; w < a->nwaits && !e->gpu; w++) {
            const Action *on = &list->actions.at[list->waits.at[a->first_wait + w]];
            if (on->kind == ACT_RECV && action_stream(a) == STREAM_COMPUTE)
                VEC_PUSH(e->arena, &items, (Item){ITEM_WAIT, on->link, on->m});
        }
        add_action(e, &items, a);
        Item event = {ITEM_RECORD, STREAMS * emit_event_key(a) + (int)action_stream(a), a->m};
        if (record[i])
            VEC_PUSH(e->arena, &items, event);
    }
    for (int i = to; i < n; i++)
        add_gpu_waits(e, &items, list, &list->actions.at[i], 0, to);
    return items;
}

/* How often the block of `length` items at `at` repeats, micro-batches counting up. */
static int repeats(const Items *items, int at, int length)
{
    int n = 1;
    for (;; n++)
        for (int j = 0; j < length; j++) {
            int k = at + n * length + j;
            if (k >= items->n)
                return n;
            const Item *x = &items->at[at + j], *y = &items->at[k];
            if (x->kind >= ITEM_OTHER || x->kind != y->kind || x->id != y->id || y->m != x->m + n)
                return n;
        }
}

enum { LINK_NAME = 128 };

static void plain_link_name(const Emit *e, const Link *l, char name[LINK_NAME])
{
    bool in = l->to == e->stage;
    const Ref *r = in ? &l->target : &l->source;
    const char *what = l->kind == LINK_WEIGHT ? "W_" : l->kind == LINK_ACTIVATION ? "" : "D_";
    int n = snprintf(name, LINK_NAME, "%s_%d_%s%s", in ? "FROM" : "TO", in ? l->from : l->to, what,
                     e->d->buffers.at[r->buffer].name);
    if (r->at && n < LINK_NAME)
        snprintf(name + n, (size_t)(LINK_NAME - n), "_%d", r->at);
}

/* A value called h_2 and the third turn of h have one plain name, as have D_h and the gradient
 * of h; the later link's gets its number, after the two underscores that no plain name holds. */
const char *emit_link_name(Emit *e, int link)
{
    char name[LINK_NAME], other[LINK_NAME];
    const Link *l = &e->p->links.at[link];
    plain_link_name(e, l, name);
    for (int i = 0; i < link; i++) {
        const Link *x = &e->p->links.at[i];
        if (x->from != l->from || x->to != l->to)
            continue;
        plain_link_name(e, x, other);
        if (strcmp(name, other) == 0)
            return arena_printf(e->arena, "%s__%d", name, link);
    }
    return arena_strndup(e->arena, name, strlen(name));
}

/* The link's name without its direction, which the function's name says at its end. */
const char *emit_link_function(Emit *e, const char *verb, int link)
{
    const Link *l = &e->p->links.at[link];
    bool in = l->to == e->stage;
    int other = in ? l->from : l->to;
    const char *name = emit_link_name(e, link);
    size_t head = strlen(arena_printf(e->arena, "%s_%d_", in ? "FROM" : "TO", other));
    return arena_printf(e->arena, "%s_%s_%s_%d", verb, name + head, in ? "from" : "to", other);
}

const char *emit_run_function(Emit *e, RunKind run, int chunk)
{
    static const char *const names[RUN_KINDS] = {"forward", "evaluate", "backward",
                                                 "backward_input", "backward_weight"};
    if (e->d->chunks.n == 1)
        return names[run];
    return arena_printf(e->arena, "%s_%d", names[run], chunk);
}

static void print_item(Emit *e, const Item *x, const char *m)
{
    static const char *const streams[STREAMS] = {"compute", "transfer", "copy_out", "copy_in"};
    switch (x->kind) {
    case ITEM_RUN:
        emit_line(e, "TRY(%s(s, %s));",
                  emit_run_function(e, (RunKind)(x->id % RUN_KINDS), x->id / RUN_KINDS), m);
        break;
    case ITEM_AWAIT:
        emit_line(e, "CUDA(cudaStreamWaitEvent(s->%s, %s, 0));", streams[x->id % STREAMS],
                  emit_event(e, x->id / STREAMS, m));
        break;
    case ITEM_RECORD:
        emit_line(e, "CUDA(cudaEventRecord(%s, s->%s));", emit_event(e, x->id / STREAMS, m),
                  streams[x->id % STREAMS]);
        break;
    case ITEM_COPY:
        emit_line(e, "TRY(%s(s, %s));", emit_copy_function(e, x->id % 2, x->id / 2), m);
        break;
    case ITEM_POST:
    case ITEM_SEND: {
        if (e->gpu) {
            const char *post = e->p->transfer == TRANSFER_NCCL ? "receive" : "post";
            emit_line(e, "TRY(%s(s, %s));",
                      emit_link_function(e, x->kind == ITEM_SEND ? "send" : post, x->id), m);
            break;
        }
        const Link *l = &e->p->links.at[x->id];
        const Ref *r = x->kind == ITEM_POST ? &l->target : &l->source;
        emit_call(e, x->kind == ITEM_POST ? "link_post" : "link_send");
        emit_arg(e, "s");
        emit_arg(e, "%s", emit_link_name(e, x->id));
        emit_arg(e, "%s", m);
        emit_arg(e, "%s", emit_buffer_member(e, r->buffer, m, arena_printf(e->arena, "%d", r->at)));
        emit_end(e, "TRY(", ");");
        break;
    }
    case ITEM_WAIT:
        if (e->gpu)
            emit_line(e, "TRY(%s(s, %s));", emit_link_function(e, "take", x->id), m);
        else
            emit_line(e, "TRY(link_wait(s, %s, %s));", emit_link_name(e, x->id), m);
        break;
    case ITEM_STEADY:
        break;
    case ITEM_OTHER:
        emit_line(e, "TRY(%s(s));",
                  x->id == ACT_ROUND    ? "round_weights"
                  : x->id == ACT_REDUCE ? "reduce_tied"
                  : x->id == ACT_CLIP   ? "clip"
                  : x->id == ACT_UPDATE ? "update"
                                        : "unknown");
        break;
    }
}

/* warm-up, steady or drain, by what the block runs */
static const char *describe(const Items *items, int at, int length)
{
    bool f = false, b = false;
    for (int j = at; j < at + length; j++) {
        if (items->at[j].kind != ITEM_RUN)
            continue;
        RunKind run = (RunKind)(items->at[j].id % RUN_KINDS);
        f = f || run == RUN_F;
        b = b || run_goes_back(run);
    }
    return f && b ? "steady" : f ? "warm-up" : b ? "drain" : NULL;
}

static void print_loop(Emit *e, const Items *items, int at, int length, int turns, bool eval)
{
    int base = items->at[at].m;
    bool run = false;
    for (int j = at; j < at + length; j++)
        if (items->at[j].kind == ITEM_RUN && (!run || items->at[j].m < base)) {
            base = items->at[j].m;
            run = true;
        }
    const char *what = describe(items, at, length);
    if (what && !eval)
        emit_line(e, "/* %s */", what);
    emit_line(e, "for (int m = %d; m < %d; m++) {", base, base + turns);
    e->indent++;
    for (int j = at; j < at + length; j++) {
        int d = items->at[j].m - base;
        print_item(e, &items->at[j],
                   d == 0 ? "m"
                          : arena_printf(e->arena, "m %c %d", d < 0 ? '-' : '+', d < 0 ? -d : d));
    }
    emit_close(e);
}

void emit_schedule(Emit *e, const ActionList *list, SchedulePart part, bool eval)
{
    Items items = make_items(e, list, part);
    for (int i = 0; i < items.n;) {
        int best = 0, best_turns = 1, best_cover = 0;
        for (int length = 1; length <= LONGEST_BLOCK && i + 2 * length <= items.n; length++) {
            int turns = repeats(&items, i, length);
            int cover = turns * length;
            if (turns < 2 || (turns - 1) * length < 2 || cover <= best_cover)
                continue;
            /* a longer block must save more lines, not only reach further */
            if (best && cover - length <= best_cover - best)
                continue;
            best = length, best_turns = turns, best_cover = cover;
        }
        if (best) {
            print_loop(e, &items, i, best, best_turns, eval);
            i += best_cover;
        } else {
            print_item(e, &items.at[i], arena_printf(e->arena, "%d", items.at[i].m));
            i++;
        }
    }
}
