/* order_waits.c - the fewest waits, and the rules by which messages between peers are waited for.
 *
 * In:  lists with all the waits that communicate() asked for.
 * Out: the same with those that are needed; for peers Action.after_post, the takes, Link.post_from
 *      and Link.take_from.
 *
 * What is printed for messages between peers are rules by micro-batch: from a number on each is
 * waited for. A link whose needs follow no such rule waits for all of them, which may make waits of
 * others needless; so all are looked at again until every link has its rules. */
#include "order.h"

/* The waits of a list with all their reasons. */
typedef struct {
    int *first, *n; /* [actions] */
    VEC(int) waits;
} Asked;

static Asked note_asked(Arena *a, const ActionList *list)
{
    const int n = list->actions.n;
    Asked x = {.first = ARENA_ARRAY(a, int, n + 1),
               .n = ARENA_ARRAY(a, int, n + 1),
               .waits = {.at = list->waits.at, .n = list->waits.n, .cap = list->waits.cap}};
    for (int i = 0; i < n; i++) {
        x.first[i] = list->actions.at[i].first_wait;
        x.n[i] = list->actions.at[i].nwaits;
    }
    return x;
}

static void ask_again(ActionList *list, const Asked *asked)
{
    for (int i = 0; i < list->actions.n; i++) {
        list->actions.at[i].first_wait = asked->first[i];
        list->actions.at[i].nwaits = asked->n[i];
        list->actions.at[i].after_post = false;
    }
    list->waits.at = asked->waits.at;
    list->waits.n = asked->waits.n;
    list->waits.cap = asked->waits.cap;
}

/* Whether message m of each link is waited for: by the sender for its post, by the receiver's
 * runs for its arrival. [links][micro-batches] */
enum { NOT_THERE, NOT_NEEDED, NEEDED };
typedef unsigned char Need;
typedef struct {
    Need **post, **take;
} Needs;

static void note_needs(Needs *n, const ActionList *list, const int *waits, int count, Need need)
{
    for (int k = 0; k < count; k++) {
        const Action *on = &list->actions.at[waits[k]];
        if (on->kind == ACT_RECV)
            n->take[on->link][on->m] = need;
    }
}

static Needs find_needs(Arena *a, Program *p, bool eval, const Asked *asked)
{
    Needs n = {ARENA_ARRAY(a, Need *, p->links.n + 1), ARENA_ARRAY(a, Need *, p->links.n + 1)};
    for (int l = 0; l < p->links.n; l++) {
        n.post[l] = ARENA_ARRAY(a, Need, p->microbatches);
        n.take[l] = ARENA_ARRAY(a, Need, p->microbatches);
    }
    for (int d = 0; d < p->devices.n; d++) {
        const ActionList *list = program_list(p, d, eval);
        const Asked *x = &asked[d];
        for (int i = 0; i < list->actions.n; i++)
            note_needs(&n, list, x->waits.at + x->first[i], x->n[i], NOT_NEEDED);
        for (int i = 0; i < list->actions.n; i++) {
            const Action *y = &list->actions.at[i];
            if (y->kind == ACT_SEND)
                n.post[y->link][y->m] = y->after_post ? NEEDED : NOT_NEEDED;
            note_needs(&n, list, list->waits.at + y->first_wait, y->nwaits, NEEDED);
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

static void note_takes(Arena *a, ActionList *list, const Asked *asked)
{
    for (int i = 0; i < list->actions.n; i++) {
        Action *x = &list->actions.at[i];
        x->first_take = list->takes.n;
        for (int k = 0; k < asked->n[i] && action_stream(x) == STREAM_COMPUTE; k++) {
            const int on = asked->waits.at[asked->first[i] + k];
            if (list->actions.at[on].kind == ACT_RECV)
                VEC_PUSH(a, &list->takes, on);
        }
        x->ntakes = list->takes.n - x->first_take;
    }
}

/* Whether every link has its rules; else it waits for all its messages from now on. */
static bool find_rules(Program *p, const Needs *train, const Needs *eval, bool *post, bool *take)
{
    bool settled = true;
    for (int l = 0; l < p->links.n; l++) {
        Link *k = &p->links.at[l];
        const int n = p->microbatches;
        settled = settle(&k->post_from, &post[l], train->post[l], eval->post[l], n) && settled;
        settled = settle(&k->take_from, &take[l], train->take[l], eval->take[l], n) && settled;
    }
    return settled;
}

void order_waits(Program *p)
{
    Arena *a = arena_new();
    const int n = p->devices.n;
    const bool peer = p->transfer == TRANSFER_PEER;
    Asked *asked[2] = {ARENA_ARRAY(a, Asked, n), ARENA_ARRAY(a, Asked, n)};
    bool *post = ARENA_ARRAY(a, bool, p->links.n + 1), *take = ARENA_ARRAY(a, bool, p->links.n + 1);
    for (int d = 0; d < n; d++)
        for (int eval = 0; eval < 2; eval++)
            asked[eval][d] = note_asked(a, program_list(p, d, eval));
    for (bool settled = false; !settled;) {
        Arena *scratch = arena_new();
        Needs needs[2];
        for (int eval = 0; eval < 2; eval++) {
            for (int d = 0; d < n; d++)
                ask_again(program_list(p, d, eval), &asked[eval][d]);
            const bool ended = order_reduce(p, eval, post, take);
            for (int d = 0; d < n && !ended; d++) /* the verifier will say where they are stuck */
                ask_again(program_list(p, d, eval), &asked[eval][d]);
            if (peer)
                needs[eval] = find_needs(scratch, p, eval, asked[eval]);
        }
        settled = !peer || find_rules(p, &needs[0], &needs[1], post, take);
        arena_free(scratch);
    }
    for (int d = 0; d < n && peer; d++)
        for (int eval = 0; eval < 2; eval++)
            note_takes(p->graph->arena, program_list(p, d, eval), &asked[eval][d]);
    arena_free(a);
}
