/* recompute.c - which layers run again in the backward pass, and what of them.
 *
 * In:  a Graph without its backward pass; settings.
 * Out: Op.remat of its operations.
 *
 * For auto, three outlines (outline.h) tell what every layer takes and keeps at each level: kept
 * whole, without what is cheap to make again, or run again. A split says which layers a device
 * has and how many micro-batches it holds; a knapsack then takes the levels of least time whose
 * bytes fit. The plan that comes of it shows what only a plan knows, as the memory that the
 * layer under way needs, and the next round allows for that. The best plan is then made better one
 * and two layers at a time. Where there are few choices, each is made into a plan instead.
 */
#include "recompute.h"

#include <math.h>
#include <string.h>

#include "attempt.h"
#include "outline.h"

enum {
    MOST_ROUNDS = 10,
    FEW_CHOICES = 100,    /* all are tried */
    MOST_TRIES = 400,     /* to make the best plan better */
    MOST_EFFORT = 400000, /* steps of a plan (Split.effort), for as many rounds as above */
    MOST_SPENT = 4000000, /* steps of all plans to make the best one better */
    ORDERS = 50,          /* plans that one with a searched order takes, about */
    BUCKETS = 1024        /* of the bytes that are to be saved */
};

typedef struct {
    double seconds, bytes;
    int64_t *of_device; /* [devices] bytes */
    int *piece;         /* [units] */
    double effort;
} Plan;

typedef struct {
    Arena *arena;
    const Model *model;
    bool gpus;
    int nforward, nlayers;
    int *layer_of; /* [forward operations], or NONE */
    bool *cheap;   /* [forward operations]: runs again at level CHEAP */
    Outline *outline[RECOMPUTE_LEVELS];
    int *layer_of_unit;
    double *slack;         /* [devices]: bytes that plans need and outlines do not show */
    unsigned char *levels; /* [layers]: of the best plan that fits */
    Plan best;
    bool found;
    int tries;
    double spent;
} Chooser;

/* ----------------------------------------------------------------------------- layers */

static void find_layers(Chooser *c, const Graph *g)
{
    int *number = ARENA_ARRAY(c->arena, int, g->frames.n + 1);
    c->layer_of = ARENA_ARRAY(c->arena, int, g->ops.n + 1);
    for (OpId o = 0; o < g->ops.n; o++) {
        const FrameId f = graph_layer_of(g, g->ops.at[o].frame);
        if (f > 0 && !number[f])
            number[f] = ++c->nlayers;
        c->layer_of[o] = f > 0 ? number[f] - 1 : NONE;
    }
}

static void set_all(unsigned char *levels, const Chooser *c, int level)
{
    for (int l = 0; l < c->nlayers; l++)
        levels[l] = (unsigned char)level;
}

static void set_levels(const Chooser *c, Graph *g, const unsigned char *levels)
{
    g->remade = (Remade){.layers = c->nlayers};
    for (int l = 0; l < c->nlayers; l++) {
        g->remade.all += levels[l] == RECOMPUTE_ALL;
        g->remade.cheap += levels[l] == RECOMPUTE_CHEAP;
    }
    for (OpId o = 0; o < c->nforward; o++) {
        const int l = c->layer_of[o];
        const int level = l == NONE ? RECOMPUTE_KEEP : levels[l];
        g->ops.at[o].remat = level == RECOMPUTE_ALL                    ? REMAT_LAYER
                             : level == RECOMPUTE_CHEAP && c->cheap[o] ? REMAT_ALONE
                                                                       : REMAT_NONE;
    }
}

static Model *with_levels(const Chooser *c, Arena *a, const unsigned char *levels)
{
    Model *m = arena_copy(a, c->model, sizeof *m);
    m->graph = attempt_copy_graph(a, m->graph);
    m->profile = NULL;
    set_levels(c, m->graph, levels);
    return differentiate(m->graph, &m->settings, diag_new(a)) ? m : NULL;
}

/* ------------------------------------------------------------------------------ cheap */

/* Which values the backward pass reads; a reshaped tensor is the tensor that it is made of. */
typedef struct {
    const Chooser *c;
    const Graph *g; /* with its backward pass */
    bool *kept;     /* [values] */
    OpId *again;    /* stack: operations that would have to run again as well */
    int nagain;
    ValueId *leaves; /* and what would have to be kept for them */
    int nleaves;
} Cheap;

static double size_of(const Cheap *k, ValueId v)
{
    return (double)outline_bytes(k->c->outline[RECOMPUTE_KEEP], v);
}

static bool is_cheap_kind(const Chooser *c, const Graph *g, OpId o)
{
    const Op *op = &g->ops.at[o];
    return c->layer_of[o] != NONE && !op->recompute && op->kind != OP_RESHAPE &&
           op->kind != OP_LINEAR && op->kind != OP_CONV2D && op->kind != OP_MATMUL &&
           op->kind != OP_ATTENTION && op->kind != OP_CROSS_ENTROPY && op->kind != OP_ACCURACY;
}

/* Bytes that must be kept besides, for operation o to run again. */
static double needs_besides(Cheap *k, OpId o)
{
    const Op *op = &k->g->ops.at[o];
    double bytes = 0;
    for (int i = 0; i < k->nagain; i++)
        if (k->again[i] == o)
            return 0;
    k->again[k->nagain++] = o;
    for (int i = 0; i < op->nin; i++) {
        const ValueId v = op->in[i] == NONE ? NONE : outline_root(k->g, op->in[i]);
        const OpId def = v == NONE ? NONE : k->g->values.at[v].def;
        if (def == NONE || k->kept[v] || k->c->cheap[def])
            continue;
        if (is_cheap_kind(k->c, k->g, def) && k->c->layer_of[def] == k->c->layer_of[o]) {
            bytes += needs_besides(k, def);
            continue;
        }
        bool known = false;
        for (int n = 0; n < k->nleaves; n++)
            known = known || k->leaves[n] == v;
        if (!known) {
            k->leaves[k->nleaves++] = v;
            bytes += size_of(k, v);
        }
    }
    return bytes;
}

/* From the first to the last: an operation runs again if that keeps fewer bytes in all. */
static void find_cheap(Chooser *c, const Graph *g)
{
    Cheap k = {.c = c,
               .g = g,
               .kept = ARENA_ARRAY(c->arena, bool, g->values.n + 1),
               .again = ARENA_ARRAY(c->arena, OpId, g->ops.n + 1),
               .leaves = ARENA_ARRAY(c->arena, ValueId, g->values.n + 1)};
    for (OpId o = c->nforward; o < g->ops.n; o++)
        for (int i = 0; i < g->ops.at[o].nin; i++)
            if (g->ops.at[o].in[i] != NONE)
                k.kept[outline_root(g, g->ops.at[o].in[i])] = true;
    for (OpId o = 0; o < c->nforward; o++) {
        const Op *op = &g->ops.at[o];
        double saved = 0;
        for (int i = 0; i < op->nout; i++)
            saved += op->out[i] != NONE && k.kept[op->out[i]] ? size_of(&k, op->out[i]) : 0;
        if (saved <= 0 || !is_cheap_kind(c, g, o))
            continue;
        k.nagain = k.nleaves = 0;
        if (needs_besides(&k, o) >= saved)
            continue;
        for (int i = 0; i < k.nagain; i++)
            c->cheap[k.again[i]] = true;
        for (int i = 0; i < k.nleaves; i++)
            k.kept[k.leaves[i]] = true;
        for (int i = 0; i < op->nout; i++)
            if (op->out[i] != NONE)
                k.kept[op->out[i]] = false;
    }
    /* a reshaped tensor that is kept keeps what it is made of */
    for (OpId o = 0; o < c->nforward; o++) {
        const Op *op = &g->ops.at[o];
        const OpId def = op->kind == OP_RESHAPE ? g->values.at[op->in[0]].def : NONE;
        if (def != NONE && c->cheap[def] && c->layer_of[def] == c->layer_of[o] && !op->recompute)
            c->cheap[o] = true;
    }
}

/* --------------------------------------------------------------------------- outlines */

static bool make_outlines(Chooser *c, Model *m)
{
    unsigned char *levels = ARENA_ARRAY(c->arena, unsigned char, c->nlayers + 1);
    for (int k = 0; k < RECOMPUTE_LEVELS; k++) {
        set_all(levels, c, k);
        Model *with = with_levels(c, c->arena, levels);
        if (!with)
            return false;
        c->outline[k] = outline_make(c->arena, with);
        if (k == RECOMPUTE_KEEP) {
            m->settings.parallel.microbatch = with->settings.parallel.microbatch;
            find_cheap(c, with->graph);
        }
    }
    const Outline *o = c->outline[RECOMPUTE_KEEP];
    c->slack = ARENA_ARRAY(c->arena, double, o->ndevices);
    c->layer_of_unit = ARENA_ARRAY(c->arena, int, o->units.n + 1);
    for (int u = 0; u < o->units.n; u++) {
        c->layer_of_unit[u] = NONE;
        for (OpId i = o->units.at[u].first; i < o->units.at[u].end; i++)
            if (c->layer_of[i] != NONE)
                c->layer_of_unit[u] = c->layer_of[i];
    }
    return true;
}

/* ------------------------------------------------------------------------------ plans */

/* The plan of a choice; false where there is none. */
static bool plan(const Chooser *c, const unsigned char *levels, bool limited, Plan *out)
{
    const Outline *o = c->outline[RECOMPUTE_KEEP];
    Arena *scratch = arena_new();
    Model *m = with_levels(c, scratch, levels);
    bool made = false;
    if (m) {
        if (!limited)
            m->settings.devices.memory = 0;
        const Split *s = split(m, c->gpus);
        Attempt a = {.of_device = ARENA_ARRAY(c->arena, int64_t, s->ndevices)};
        made = attempt(m, s, c->gpus, &a);
        *out = (Plan){.seconds = a.seconds,
                      .bytes = (double)a.bytes,
                      .of_device = a.of_device,
                      .piece = ARENA_ARRAY(c->arena, int, o->units.n + 1),
                      .effort = s->effort};
        for (int u = 0; u < o->units.n; u++)
            out->piece[u] = s->piece[o->units.at[u].first];
    }
    arena_free(scratch);
    return made;
}

static bool fits(const Chooser *c, const Plan *p)
{
    return p->bytes <= (double)c->model->settings.devices.memory;
}

/* Plans a choice and remembers it where it is the best that fits. */
static bool consider(Chooser *c, const unsigned char *levels, Plan *p)
{
    if (!plan(c, levels, true, p))
        return false;
    const bool better = p->seconds < c->best.seconds * (1 - 1e-9) ||
                        (p->seconds <= c->best.seconds * (1 + 1e-9) && p->bytes < c->best.bytes);
    if (fits(c, p) && (!c->found || better)) {
        c->best = *p;
        c->found = true;
        memcpy(c->levels, levels, (size_t)c->nlayers);
    }
    return true;
}

/* --------------------------------------------------------------------------- knapsack */

typedef struct {
    double seconds[RECOMPUTE_LEVELS],
        saved[RECOMPUTE_LEVELS]; /* more, and fewer bytes, than with RECOMPUTE_KEEP */
} Item;

/* Takes for each item the level so that what is saved is at least `need`, in least time; the
 * highest of all where that is not enough. level: at first the least that may be taken. */
static void knapsack(Arena *a, const Item *items, int n, double need, unsigned char *level)
{
    const int width = BUCKETS + 1;
    if (need <= 0 || n == 0)
        return;
    double *cost = ARENA_ARRAY(a, double, width), *next = ARENA_ARRAY(a, double, width);
    unsigned char *taken = ARENA_ARRAY(a, unsigned char, n *width);
    short *from = ARENA_ARRAY(a, short, n *width);
    for (int b = 1; b < width; b++)
        cost[b] = INFINITY;
    for (int i = 0; i < n; i++) {
        for (int b = 0; b < width; b++)
            next[b] = INFINITY;
        for (int k = level[i]; k < RECOMPUTE_LEVELS; k++) {
            const double gain = floor(fmax(items[i].saved[k], 0) / need * BUCKETS);
            for (int b = 0; b < width; b++) {
                const int to = b + gain < BUCKETS ? b + (int)gain : BUCKETS;
                if (cost[b] + items[i].seconds[k] >= next[to])
                    continue;
                next[to] = cost[b] + items[i].seconds[k];
                taken[i * width + to] = (unsigned char)k;
                from[i * width + to] = (short)b;
            }
        }
        memcpy(cost, next, sizeof *cost * (size_t)width);
    }
    if (isinf(cost[BUCKETS])) {
        for (int i = 0; i < n; i++)
            level[i] = RECOMPUTE_ALL;
        return;
    }
    for (int i = n - 1, b = BUCKETS; i >= 0; i--) {
        level[i] = taken[i * width + b];
        b = from[i * width + b];
    }
}

/* What a unit keeps on its device at a level. */
static double held_by(const Chooser *c, const OutlineHeld *held, int unit, int level)
{
    const Unit *u = &c->outline[level]->units.at[unit];
    return (double)u->kept * held->kept[unit] + (double)u->late * held->late[unit];
}

/* Bytes of every device, as the outlines show them. */
static double *estimate(const Chooser *c, Arena *a, const Plan *p, const OutlineHeld *held,
                        const unsigned char *levels)
{
    const Outline *o = c->outline[RECOMPUTE_KEEP];
    double *bytes = ARENA_ARRAY(a, double, o->ndevices);
    for (int u = 0; u < o->units.n; u++) {
        const int l = c->layer_of_unit[u];
        bytes[o->device_of[p->piece[u]]] +=
            (double)o->units.at[u].fixed +
            held_by(c, held, u, l == NONE ? RECOMPUTE_KEEP : levels[l]);
    }
    return bytes;
}

/* What a plan with these levels showed beyond the outlines counts from now on. */
static void learn(Chooser *c, const Plan *p, const unsigned char *levels)
{
    Arena *scratch = arena_new();
    const OutlineHeld held = outline_held(c->outline[RECOMPUTE_KEEP], p->piece, scratch);
    const double *shown = estimate(c, scratch, p, &held, levels);
    for (int d = 0; d < c->outline[RECOMPUTE_KEEP]->ndevices; d++)
        c->slack[d] = fmax(c->slack[d], (double)p->of_device[d] - shown[d]);
    arena_free(scratch);
}

/* The levels of least time with which every device of a split fits. A layer on several devices is
 * at the highest level that one of them wants. */
static void choose(const Chooser *c, const Plan *p, unsigned char *levels)
{
    const Outline *o = c->outline[RECOMPUTE_KEEP];
    Arena *scratch = arena_new();
    const OutlineHeld held = outline_held(o, p->piece, scratch);
    set_all(levels, c, RECOMPUTE_KEEP);
    const double *whole = estimate(c, scratch, p, &held, levels);
    int *layer = ARENA_ARRAY(scratch, int, c->nlayers + 1),
        *item = ARENA_ARRAY(scratch, int, c->nlayers + 1);
    for (int d = 0; d < o->ndevices; d++) {
        Item *items = ARENA_ARRAY(scratch, Item, c->nlayers + 1);
        int n = 0;
        for (int l = 0; l < c->nlayers; l++)
            item[l] = NONE;
        for (int u = 0; u < o->units.n; u++) {
            const int l = c->layer_of_unit[u];
            if (l == NONE || o->device_of[p->piece[u]] != d)
                continue;
            if (item[l] == NONE) {
                layer[n] = l;
                item[l] = n++;
            }
            for (int k = RECOMPUTE_CHEAP; k < RECOMPUTE_LEVELS; k++) {
                items[item[l]].seconds[k] +=
                    fmax(0, unit_work(&c->outline[k]->units.at[u]) - unit_work(&o->units.at[u]));
                items[item[l]].saved[k] +=
                    held_by(c, &held, u, RECOMPUTE_KEEP) - held_by(c, &held, u, k);
            }
        }
        unsigned char *level = ARENA_ARRAY(scratch, unsigned char, n + 1);
        for (int i = 0; i < n; i++)
            level[i] = levels[layer[i]];
        knapsack(scratch, items, n,
                 whole[d] + c->slack[d] - (double)c->model->settings.devices.memory, level);
        for (int i = 0; i < n; i++)
            levels[layer[i]] = level[i];
    }
    arena_free(scratch);
}

/* ------------------------------------------------------------------------------- pass */

/* What a layer takes and keeps at every level, and where: layers that are alike in the best plan
 * need not all be tried. */
typedef struct {
    int device, level;
    double seconds[RECOMPUTE_LEVELS], kept[RECOMPUTE_LEVELS];
} Kind;

static Kind kind_of(const Chooser *c, int layer)
{
    Kind k = {.device = NONE, .level = c->levels[layer]};
    for (int u = 0; u < c->outline[0]->units.n; u++) {
        if (c->layer_of_unit[u] != layer)
            continue;
        k.device = c->outline[0]->device_of[c->best.piece[u]];
        for (int l = 0; l < RECOMPUTE_LEVELS; l++) {
            const Unit *x = &c->outline[l]->units.at[u];
            k.seconds[l] += unit_work(x);
            k.kept[l] += (double)(x->kept + x->late);
        }
    }
    return k;
}

/* One layer of each kind. */
static int find_kinds(const Chooser *c, Arena *a, int *layer)
{
    Kind *kinds = ARENA_ARRAY(a, Kind, c->nlayers + 1);
    int n = 0;
    for (int l = 0; l < c->nlayers; l++) {
        const Kind k = kind_of(c, l);
        int i = 0;
        while (i < n && memcmp(&kinds[i], &k, sizeof k) != 0)
            i++;
        if (i == n) {
            kinds[n] = k;
            layer[n++] = l;
        }
    }
    return n;
}

static bool is_searched(const Chooser *c)
{
    return c->model->settings.parallel.schedule == SCHEDULE_SEARCHED;
}

/* Sets layers i and j (which may be one) to levels; true where that is the best plan now. */
static bool try_levels(Chooser *c, int i, int level_i, int j, int level_j)
{
    unsigned char *levels = ARENA_ARRAY(c->arena, unsigned char, c->nlayers + 1);
    Plan p;
    memcpy(levels, c->levels, (size_t)c->nlayers);
    levels[i] = (unsigned char)level_i;
    levels[j] = (unsigned char)level_j;
    c->tries++;
    c->spent += c->best.effort * (is_searched(c) ? ORDERS : 1);
    return consider(c, levels, &p) && memcmp(levels, c->levels, (size_t)c->nlayers) == 0;
}

static bool may_try(const Chooser *c)
{
    return c->tries < MOST_TRIES && c->spent < MOST_SPENT;
}

/* The first change of one layer, or of two, that makes the best plan better. */
static bool improve(Chooser *c)
{
    Arena *scratch = arena_new();
    int *layer = ARENA_ARRAY(scratch, int, c->nlayers + 1);
    const int n = find_kinds(c, scratch, layer);
    bool better = false;
    for (int i = 0; i < n && !better; i++)
        for (int k = 0; k < RECOMPUTE_LEVELS && !better && may_try(c); k++)
            if (k != c->levels[layer[i]])
                better = try_levels(c, layer[i], k, layer[i], k);
    for (int i = 0; i < n && !better; i++)
        for (int j = i + 1; j < n && !better; j++)
            for (int k = 0; k < RECOMPUTE_LEVELS * RECOMPUTE_LEVELS && !better; k++) {
                const int a = k / RECOMPUTE_LEVELS, b = k % RECOMPUTE_LEVELS;
                if (may_try(c) && a != c->levels[layer[i]] && b != c->levels[layer[j]])
                    better = try_levels(c, layer[i], a, layer[j], b);
            }
    arena_free(scratch);
    return better && may_try(c);
}

/* How many choices there are, as far as they are few. */
static int count_choices(const Chooser *c)
{
    int n = 1;
    for (int l = 0; l < c->nlayers && n <= FEW_CHOICES; l++)
        n *= RECOMPUTE_LEVELS;
    return n;
}

static void try_all(Chooser *c)
{
    unsigned char *levels = ARENA_ARRAY(c->arena, unsigned char, c->nlayers + 1);
    for (int n = 0, all = count_choices(c); n < all; n++) {
        Plan p;
        for (int l = 0, rest = n; l < c->nlayers; l++, rest /= RECOMPUTE_LEVELS)
            levels[l] = (unsigned char)(rest % RECOMPUTE_LEVELS);
        consider(c, levels, &p);
    }
}

static void choose_levels(Chooser *c)
{
    unsigned char *levels = ARENA_ARRAY(c->arena, unsigned char, c->nlayers + 1);
    unsigned char *before = ARENA_ARRAY(c->arena, unsigned char, c->nlayers + 1);
    Plan kept, free;
    if (!consider(c, levels, &kept) || !plan(c, levels, false, &free) ||
        (c->found && c->best.seconds <= free.seconds * (1 + 1e-9)))
        return;
    if (free.effort <= MOST_EFFORT / 10 && count_choices(c) <= FEW_CHOICES) {
        try_all(c);
        if (!c->found)
            set_all(c->levels, c, RECOMPUTE_ALL);
        return;
    }
    const int rounds = free.effort * (is_searched(c) ? ORDERS : 1) > MOST_EFFORT ? 3 : MOST_ROUNDS;
    learn(c, &free, levels);
    for (int i = 0; i < rounds; i++) {
        memcpy(before, levels, (size_t)c->nlayers);
        choose(c, &free, levels);
        if (i && memcmp(before, levels, (size_t)c->nlayers) == 0)
            break;
        if (!consider(c, levels, &free))
            break;
        learn(c, &free, levels);
    }
    for (int k = RECOMPUTE_CHEAP; k < RECOMPUTE_LEVELS && !c->found; k++) {
        set_all(levels, c, k);
        consider(c, levels, &free);
    }
    if (!c->found)
        set_all(c->levels, c, RECOMPUTE_ALL);
    else if (free.effort <= MOST_EFFORT)
        while (improve(c))
            ;
}

static void warn_no_layers(const Model *m, Diag *d)
{
    const Parallel *p = &m->settings.parallel;
    diag_warning(d, p->recompute_at, "recompute = %s finds no layers to compute again",
                 p->recompute == RECOMPUTE_FULL ? "full" : "auto");
    diag_help(d, "layers are the turns of a for statement, or calls of blocks");
}

static Chooser chooser_new(const Model *m, bool gpus)
{
    Chooser c = {.arena = arena_new(), .model = m, .gpus = gpus, .nforward = m->graph->ops.n};
    find_layers(&c, m->graph);
    c.cheap = ARENA_ARRAY(c.arena, bool, c.nforward + 1);
    c.levels = ARENA_ARRAY(c.arena, unsigned char, c.nlayers + 1);
    return c;
}

void recompute(Model *m, bool gpus, Diag *d)
{
    const RecomputeKind kind = m->settings.parallel.recompute;
    if (kind == RECOMPUTE_NONE)
        return;
    Chooser c = chooser_new(m, gpus);
    if (c.nlayers == 0)
        warn_no_layers(m, d);
    else if (kind == RECOMPUTE_FULL)
        set_all(c.levels, &c, RECOMPUTE_ALL);
    else if (m->settings.devices.memory > 0 && make_outlines(&c, m))
        choose_levels(&c);
    set_levels(&c, m->graph, c.levels);
    arena_free(c.arena);
}

void recompute_levels(Model *m, const unsigned char *levels)
{
    Chooser c = chooser_new(m, false);
    if (make_outlines(&c, m))
        set_levels(&c, m->graph, levels);
    arena_free(c.arena);
}
