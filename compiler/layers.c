/* layers.c - the paths of layers: giving a call its name, and finding a weight by its path.
 *
 * Layers form a tree: the model, the calls of blocks in it, the calls in these. A key such
 * as "h.0" (of `as h[0]`) is one step of the tree. Words are looked for from the layer that
 * is being elaborated outwards. */
#include "elaborate.h"

#include <string.h>

static Layer *layer_child(const Layer *l, const char *key)
{
    int i = table_find(&l->child_index, key);
    return i < 0 ? NULL : l->children.at[i];
}

static Layer *layer_add(Elab *e, const char *key, Place at, bool soft)
{
    Layer *parent = e->layer;
    Layer *l = ARENA_NEW(e->arena, Layer);
    l->parent = parent;
    l->key = key;
    l->path = *parent->path ? arena_printf(e->arena, "%s.%s", parent->path, key) : key;
    l->at = at;
    l->soft = soft;
    if (strlen(l->path) > ELAB_MAX_PATH) {
        elab_error(e, at, "the layer's path is longer than %d bytes", ELAB_MAX_PATH);
        return NULL;
    }
    int i = table_find(&parent->child_index, key);
    if (i >= 0) {
        parent->children.at[i] = l;
        return l;
    }
    table_set(e->arena, &parent->child_index, key, parent->children.n);
    VEC_PUSH(e->arena, &parent->children, l);
    return l;
}

/* The key of `as h[i]`, and of the steps of a path: "h.0". NULL after an error. */
static const char *key_of(Elab *e, const Expr *x)
{
    if (x->kind == EXPR_NAME)
        return x->text;
    if (x->kind == EXPR_MEMBER) {
        elab_error(e, x->at, "a layer is named by one name, with or without [index]");
        elab_help(e, "the path before it comes from the blocks around it");
        return NULL;
    }
    const char *base = key_of(e, x->index.base);
    int64_t i;
    if (!base || !eval_int(e, x->index.index, "the index of a layer", 0, INT64_MAX, &i))
        return NULL;
    if (strlen(base) > ELAB_MAX_PATH) {
        elab_error(e, x->at, "the layer's path is longer than %d bytes", ELAB_MAX_PATH);
        return NULL;
    }
    return arena_printf(e->arena, "%s.%lld", base, (long long)i);
}

/* kind_0, kind_1, … : the next that nobody has. */
static const char *automatic_key(Elab *e, const char *kind)
{
    Layer *l = e->layer;
    int i = table_find(&l->count_index, kind);
    if (i < 0) {
        i = l->counts.n;
        table_set(e->arena, &l->count_index, kind, i);
        VEC_PUSH(e->arena, &l->counts, 0);
    }
    const char *key;
    do
        key = arena_printf(e->arena, "%s_%d", kind, l->counts.at[i]++);
    while (layer_child(l, key));
    return key;
}

static bool in_loop(const Elab *e)
{
    return e->graph->frames.at[e->frame].kind == FRAME_TURN;
}

static Layer *claim_hard(Elab *e, const char *key, Place at, const Expr *call)
{
    const Layer *old = layer_child(e->layer, key);
    if (!old || old->soft)
        return layer_add(e, key, at, false);
    if (old->broken && e->cut)
        return NULL;
    const char *path = *e->layer->path ? arena_printf(e->arena, "%s.%s", e->layer->path, key) : key;
    elab_error(e, at, "there is a layer %s already", path);
    if (memcmp(&old->at, &at, sizeof at) != 0)
        elab_note(e, old->at, "the first is here");
    if (in_loop(e) && !(call->call.as && call->call.as->kind == EXPR_INDEX))
        elab_help(e, "inside a for, number them: %s(…) as %s[%s]", call->call.callee.text, key,
                  e->graph->frames.at[e->frame].name);
    else
        elab_help(e, "give one of them another name: %s(…) as name", call->call.callee.text);
    return NULL;
}

Layer *layer_claim(Elab *e, const Expr *call, const Name *hint, const char *kind, Naming naming)
{
    const Expr *as = call->call.as;
    if (as) {
        const char *key = key_of(e, as);
        return key ? claim_hard(e, key, as->at, call) : NULL;
    }
    if (naming == NAME_PLAIN)
        return NULL;
    if (hint && naming == NAME_OWNER)
        return claim_hard(e, hint->text, hint->at, call);
    if (hint && !layer_child(e->layer, hint->text))
        return layer_add(e, hint->text, hint->at, true);
    return layer_add(e, automatic_key(e, kind), call->at, naming == NAME_SOFT);
}

void layer_break(Elab *e, const Expr *call, const Name *hint)
{
    const Expr *as = call->call.as;
    const char *key = as     ? (as->kind == EXPR_MEMBER ? NULL : key_of(e, as))
                      : hint ? hint->text
                             : NULL;
    if (!key)
        return;
    Layer *l = layer_child(e->layer, key);
    if (!l)
        l = layer_add(e, key, as ? as->at : hint->at, !as);
    if (l)
        l->broken = true;
}

void layer_add_param(Elab *e, Layer *l, const char *name, ValueId v, Place at)
{
    table_set(e->arena, &l->param_index, name, l->params.n);
    VEC_PUSH(e->arena, &l->params, (Param){name, v, at});
}

const char *layer_weight_name(Elab *e, const Layer *l, const char *name)
{
    return *l->path ? arena_printf(e->arena, "%s.%s", l->path, name) : name;
}

bool layer_exists(const Elab *e, const char *name)
{
    for (const Layer *l = e->layer; l; l = l->parent)
        for (int i = 0; i < l->children.n; i++) {
            const char *key = l->children.at[i]->key;
            size_t n = strlen(name);
            if (!strncmp(key, name, n) && (!key[n] || key[n] == '.'))
                return true;
        }
    return false;
}

/* ---- finding ---- */

typedef VEC(const char *) Keys;

/* The steps of a path, in order; false after an error. */
static bool path_keys(Elab *e, const Expr *x, Keys *keys)
{
    VEC(const Expr *) chain = {0};
    for (; x->kind != EXPR_NAME; x = x->kind == EXPR_MEMBER ? x->member.base : x->index.base)
        VEC_PUSH(e->arena, &chain, x);
    VEC_PUSH(e->arena, keys, x->text);
    for (int i = chain.n - 1; i >= 0; i--) {
        x = chain.at[i];
        if (x->kind == EXPR_MEMBER) {
            VEC_PUSH(e->arena, keys, x->member.name.text);
            continue;
        }
        int64_t n;
        if (!eval_int(e, x->index.index, "the index of a layer", 0, INT64_MAX, &n))
            return false;
        keys->at[keys->n - 1] =
            arena_printf(e->arena, "%s.%lld", keys->at[keys->n - 1], (long long)n);
    }
    return true;
}

static Term not_found(Elab *e, const Expr *x, const Layer *in, const char *key, bool outwards)
{
    if (e->cut)
        return term_error(x->at);
    VEC(const char *) names = {0};
    for (const Layer *l = in; l; l = outwards ? l->parent : NULL) {
        for (int i = 0; i < l->children.n; i++)
            VEC_PUSH(e->arena, &names, l->children.at[i]->key);
        for (int i = 0; i < l->params.n && !outwards; i++)
            VEC_PUSH(e->arena, &names, l->params.at[i].name);
    }
    if (*in->path && !outwards)
        elab_error(e, x->at, "the layer %s has no %s", in->path, key);
    else
        elab_error(e, x->at, "there is no layer %s before this", key);
    if (!outwards && in->params.n)
        elab_note(e, in->at, "%s is made here", in->path);
    elab_help_nearest(e, key, names.at, names.n);
    return term_error(x->at);
}

static Term is_layer(Elab *e, const Expr *x, const Layer *l)
{
    elab_error(e, x->at, "%s is a layer, not a value", l->path);
    elab_note(e, l->at, "it is made here");
    if (l->params.n)
        elab_help(e, "%s.%s is its %s", ast_show_expr(e->arena, x), l->params.at[0].name,
                  l->params.at[0].name);
    return term_error(x->at);
}

Term layer_resolve(Elab *e, const Expr *x)
{
    Keys keys = {0};
    if (!path_keys(e, x, &keys))
        return term_error(x->at);
    const Layer *from = e->scope ? e->layer : NULL;
    if (!from) {
        elab_error(e, x->at, "only constants can be used here, not the weight of a layer");
        return term_error(x->at);
    }
    while (from && !layer_child(from, keys.at[0]))
        from = from->parent;
    if (!from)
        return not_found(e, x, e->layer, keys.at[0], true);
    const Layer *l = from;
    for (int i = 0; i < keys.n; i++) {
        const Layer *child = layer_child(l, keys.at[i]);
        if (child) {
            l = child;
            continue;
        }
        if (l->broken)
            return term_error(x->at);
        int p = table_find(&l->param_index, keys.at[i]);
        if (p < 0 || i + 1 < keys.n)
            return not_found(e, x, l, keys.at[i], false);
        return term_tensor(l->params.at[p].value, x->at);
    }
    return l->broken ? term_error(x->at) : is_layer(e, x, l);
}
