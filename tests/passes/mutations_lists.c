/* mutations_lists.c - mutations of a list of actions: their order, waits, takes, messages and runs.
 *
 * A list is taken apart into actions that carry their waits and takes along, changed, and put
 * together again: what waited for an action still does, wherever that has gone. */
#include "mutations.h"

/* An action with its waits and takes, which name others by what their numbers were. */
typedef struct {
    Action action;
    int was;
    VEC(int) waits, takes;
} Item;

typedef struct {
    Mutation *u;
    Device *d;
    ActionList *list;
    VEC(Item) items;
} Edit;

static Edit open_list(Mutation *u)
{
    Edit e = {.u = u, .d = &u->p->devices.at[mutation_draw(u, u->p->devices.n)]};
    const bool eval = mutation_draw(u, 5) == 0;
    e.list = eval ? &e.d->eval : &e.d->train;
    for (int i = 0; i < e.list->actions.n; i++) {
        Item x = {.action = e.list->actions.at[i], .was = i};
        for (int k = 0; k < x.action.nwaits; k++)
            VEC_PUSH(u->arena, &x.waits, e.list->waits.at[x.action.first_wait + k]);
        for (int k = 0; k < x.action.ntakes; k++)
            VEC_PUSH(u->arena, &x.takes, e.list->takes.at[x.action.first_take + k]);
        VEC_PUSH(u->arena, &e.items, x);
    }
    u->what = arena_printf(u->arena, "%s of %s", eval ? "evaluation" : "step", e.d->name);
    return e;
}

/* The list anew. Waits go with what they were for; those for what is gone are gone. */
static bool close_list(Edit *e)
{
    Arena *a = e->u->arena;
    int *now = ARENA_ARRAY(a, int, e->list->actions.n + 1);
    for (int i = 0; i < e->list->actions.n; i++)
        now[i] = NONE;
    for (int i = e->items.n - 1; i >= 0; i--)
        now[e->items.at[i].was] = i;
    *e->list = (ActionList){0};
    for (int i = 0; i < e->items.n; i++) {
        const Item *x = &e->items.at[i];
        Action y = x->action;
        y.first_wait = e->list->waits.n;
        y.first_take = e->list->takes.n;
        for (int k = 0; k < x->waits.n; k++)
            if (now[x->waits.at[k]] != NONE)
                VEC_PUSH(a, &e->list->waits, now[x->waits.at[k]]);
        for (int k = 0; k < x->takes.n; k++)
            if (now[x->takes.at[k]] != NONE)
                VEC_PUSH(a, &e->list->takes, now[x->takes.at[k]]);
        y.nwaits = e->list->waits.n - y.first_wait;
        y.ntakes = e->list->takes.n - y.first_take;
        VEC_PUSH(a, &e->list->actions, y);
    }
    return true;
}

static void insert_item(Edit *e, Item x, int at)
{
    VEC_PUSH(e->u->arena, &e->items, x);
    for (int i = e->items.n - 1; i > at; i--)
        e->items.at[i] = e->items.at[i - 1];
    e->items.at[at] = x;
}

static Item remove_item(Edit *e, int at)
{
    Item x = e->items.at[at];
    for (int i = at; i + 1 < e->items.n; i++)
        e->items.at[i] = e->items.at[i + 1];
    e->items.n--;
    return x;
}

/* Somewhere, more often near. */
static int draw_place(Edit *e, int near)
{
    const int far = mutation_draw(e->u, e->items.n);
    if (mutation_draw(e->u, 3) == 0)
        return far;
    int at = near - 6 + mutation_draw(e->u, 13);
    return at < 0 || at >= e->items.n ? far : at;
}

static void say_places(Edit *e, const char *how, int i, int j)
{
    e->u->what = arena_printf(e->u->arena, "%s: action %d %s %d", e->u->what, i, how, j);
}

bool move_action(Mutation *u)
{
    Edit e = open_list(u);
    int i = mutation_draw(u, e.items.n), j = draw_place(&e, i);
    say_places(&e, "moved to", i, j);
    insert_item(&e, remove_item(&e, i), j);
    return i != j && close_list(&e);
}

bool drop_action(Mutation *u)
{
    Edit e = open_list(u);
    int i = mutation_draw(u, e.items.n);
    say_places(&e, "dropped of", i, e.items.n);
    remove_item(&e, i);
    return close_list(&e);
}

bool double_action(Mutation *u)
{
    Edit e = open_list(u);
    int i = mutation_draw(u, e.items.n), j = draw_place(&e, i);
    say_places(&e, "again at", i, j);
    insert_item(&e, e.items.at[i], j);
    return close_list(&e);
}

bool swap_actions(Mutation *u)
{
    Edit e = open_list(u);
    int i = mutation_draw(u, e.items.n), j = draw_place(&e, i);
    say_places(&e, "swapped with", i, j);
    Item x = e.items.at[i];
    e.items.at[i] = e.items.at[j];
    e.items.at[j] = x;
    return i != j && close_list(&e);
}

/* The k-th of all waits (takes) of a list; NULL where there are none. */
static int *draw_wait(Edit *e, bool takes, int *action)
{
    int n = 0;
    for (int i = 0; i < e->items.n; i++)
        n += takes ? e->items.at[i].takes.n : e->items.at[i].waits.n;
    int k = mutation_draw(e->u, n);
    for (int i = 0; i < e->items.n && n > 0; i++) {
        Item *x = &e->items.at[i];
        int here = takes ? x->takes.n : x->waits.n;
        *action = i;
        if (k < here)
            return takes ? &x->takes.at[k] : &x->waits.at[k];
        k -= here;
    }
    return NULL;
}

static void drop_wait_of(Edit *e, int action, bool takes, const int *at)
{
    Item *x = &e->items.at[action];
    int *first = takes ? x->takes.at : x->waits.at, n = takes ? x->takes.n-- : x->waits.n--;
    for (int i = (int)(at - first); i + 1 < n; i++)
        first[i] = first[i + 1];
}

bool drop_wait(Mutation *u)
{
    Edit e = open_list(u);
    int i = 0, *at = draw_wait(&e, false, &i);
    if (!at)
        return false;
    say_places(&e, "no longer waits for", i, *at);
    drop_wait_of(&e, i, false, at);
    return close_list(&e);
}

bool turn_wait(Mutation *u)
{
    Edit e = open_list(u);
    int i = 0, *at = draw_wait(&e, false, &i);
    if (!at)
        return false;
    *at = draw_place(&e, *at);
    say_places(&e, "waits for", i, *at);
    return close_list(&e);
}

bool add_wait(Mutation *u)
{
    Edit e = open_list(u);
    int i = mutation_draw(u, e.items.n), on = draw_place(&e, i);
    say_places(&e, "waits, too, for", i, on);
    VEC_PUSH(u->arena, &e.items.at[i].waits, on);
    return close_list(&e);
}

bool add_take(Mutation *u)
{
    Edit e = open_list(u);
    int i = mutation_draw(u, e.items.n), on = draw_place(&e, i);
    if (u->p->transfer != TRANSFER_PEER || e.items.at[on].action.kind != ACT_RECV ||
        action_stream(&e.items.at[i].action) != 0)
        return false;
    say_places(&e, "takes, too,", i, on);
    VEC_PUSH(u->arena, &e.items.at[i].takes, on);
    return close_list(&e);
}

bool drop_take(Mutation *u)
{
    Edit e = open_list(u);
    int i = 0, *at = draw_wait(&e, true, &i);
    if (!at)
        return false;
    say_places(&e, "no longer takes", i, *at);
    drop_wait_of(&e, i, true, at);
    return close_list(&e);
}

bool move_take(Mutation *u)
{
    Edit e = open_list(u);
    int i = 0, *at = draw_wait(&e, true, &i), j = draw_place(&e, i);
    if (!at || action_stream(&e.items.at[j].action) != 0 || i == j)
        return false;
    const int on = *at;
    say_places(&e, "has its take moved to", i, j);
    drop_wait_of(&e, i, true, at);
    VEC_PUSH(u->arena, &e.items.at[j].takes, on);
    return close_list(&e);
}

bool change_message(Mutation *u)
{
    Edit e = open_list(u);
    const int i = mutation_draw(u, e.items.n);
    Action *x = &e.items.at[i].action;
    const Action before = *x;
    if (action_stream(x) == 0)
        return false;
    switch (mutation_draw(u, 3)) {
    case 0:
        x->m = mutation_draw(u, u->p->microbatches);
        break;
    case 1:
        x->link = mutation_draw(u, u->p->links.n);
        break;
    default:
        x->kind = x->kind == ACT_SEND ? ACT_RECV : ACT_SEND;
        for (int k = 0; k < e.items.n; k++) /* a take is of a receive */
            e.items.at[k].takes.n = x->kind == ACT_SEND ? 0 : e.items.at[k].takes.n;
        break;
    }
    say_places(&e, "with micro-batch, link or direction changed, of", i, e.items.n);
    return (x->m != before.m || x->link != before.link || x->kind != before.kind) && close_list(&e);
}

bool change_run(Mutation *u)
{
    Edit e = open_list(u);
    const int i = mutation_draw(u, e.items.n);
    Action *x = &e.items.at[i].action;
    const Action before = *x;
    if (x->kind != ACT_RUN)
        return false;
    switch (mutation_draw(u, 3)) {
    case 0:
        x->m = mutation_draw(u, u->p->microbatches);
        break;
    case 1:
        x->chunk = mutation_draw(u, u->p->chunks.n);
        break;
    default:
        x->run = (RunKind)mutation_draw(u, RUN_KINDS);
        break;
    }
    say_places(&e, "with micro-batch, chunk or phase changed, of", i, e.items.n);
    return (x->m != before.m || x->chunk != before.chunk || x->run != before.run) && close_list(&e);
}
