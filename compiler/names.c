/* names.c - what tensors are called, and names that count up.
 *
 * In:  names of layers, weights and variables.
 * Out: patterns "h.{0, 1, 2 …}.weight" of names that differ in one number; for every buffer
 *      a part of a C identifier that is its own on its device. */
#include <ctype.h>
#include <string.h>

#include "fuse.h"
#include "lower.h"

/* ------------------------------------------------------------------- patterns */

NamePattern pattern_single(const char *name)
{
    return (NamePattern){.prefix = name, .suffix = "", .first = -1};
}

/* The number at the start of s, at most 9 digits without leading zeros; -1: none. */
static int64_t leading_number(const char *s, size_t *digits)
{
    size_t n = 0;
    int64_t value = 0;
    while (isdigit((unsigned char)s[n]) && n < 9)
        value = value * 10 + (s[n++] - '0');
    *digits = n;
    if (n == 0 || isdigit((unsigned char)s[n]) || (n > 1 && s[0] == '0'))
        return -1;
    return value;
}

bool pattern_pair(Arena *a, const char *x, const char *y, NamePattern *out)
{
    if (strcmp(x, y) == 0) {
        *out = pattern_single(x);
        return false;
    }
    size_t i = 0;
    while (x[i] && x[i] == y[i])
        i++;
    while (i > 0 && isdigit((unsigned char)x[i - 1]))
        i--;
    size_t nx, ny;
    int64_t p = leading_number(x + i, &nx), q = leading_number(y + i, &ny);
    if (p < 0 || q < 0 || strcmp(x + i + nx, y + i + ny) != 0)
        return false;
    *out = (NamePattern){.prefix = arena_strndup(a, x, i),
                         .suffix = arena_strndup(a, x + i + nx, strlen(x + i + nx)),
                         .first = p,
                         .step = q - p};
    return true;
}

bool pattern_matches(const NamePattern *p, int64_t i, const char *name)
{
    size_t n = strlen(p->prefix), digits;
    if (strncmp(name, p->prefix, n) != 0)
        return false;
    return leading_number(name + n, &digits) == p->first + i * p->step &&
           strcmp(name + n + digits, p->suffix) == 0;
}

/* --------------------------------------------------------------------- buffers */

/* What the results after the first are called; NULL: they have names of their own. */
static const char *result_word(OpKind kind, int result)
{
    if (kind == OP_CROSS_ENTROPY || kind == OP_ATTENTION)
        return "lse";
    if (kind == OP_LAYERNORM || kind == OP_GROUPNORM)
        return result == 1 ? "mean" : "rstd";
    return kind == OP_RMSNORM ? "rstd" : NULL;
}

const char *lower_label(const Lower *l, ValueId v)
{
    const Graph *g = l->g;
    const Value *x = &g->values.at[v];
    if (x->kind == VALUE_WEIGHT || x->kind == VALUE_GRAD)
        return g->weights.at[x->index].name;
    if (x->kind == VALUE_INPUT)
        return g->inputs.at[x->index].name;
    if (x->def == NONE)
        return "constant";
    const Op *op = &g->ops.at[x->def];
    if (op->again && g->original[v] != NONE)
        return arena_printf(l->arena, "%s.again", lower_label(l, g->original[v]));
    for (int i = 1; i < op->nout; i++)
        if (op->out[i] == v && op->out[0] != NONE && result_word(op->kind, i))
            return arena_printf(l->arena, "%s.%s", lower_label(l, op->out[0]),
                                result_word(op->kind, i));
    if (x->name && strchr(x->name, '.'))
        return x->name;
    const MapProgram *m = op->map;
    const char *last = x->name ? x->name : op_name(op->kind);
    for (int i = 0; !x->name && m && i < m->nout; i++)
        if (op->out[i] == v)
            last = op_name(m->instr[m->out[i]].kind);
    if (op->path && op->forward == NONE && !x->name && !m)
        return op->path;
    const char *scope = g->frames.at[op->frame].path;
    return scope && scope[0] ? arena_printf(l->arena, "%s.%s", scope, last) : last;
}

/* A part of a C identifier: letters, digits and single underscores. */
static char *identifier(Arena *a, const char *label)
{
    size_t n = strlen(label), k = 0;
    char *s = arena_alloc(a, n + 2);
    for (size_t i = 0; i < n && k < 40; i++) {
        char c = isalnum((unsigned char)label[i]) ? label[i] : '_';
        if (c == '_' && k > 0 && s[k - 1] == '_')
            continue;
        s[k++] = c;
    }
    while (k > 1 && s[k - 1] == '_')
        k--;
    s[k] = 0;
    if (k == 0)
        s[k++] = 'x';
    return s;
}

/* The slot of a key, in a table that grows before it is half full. */
static NameSlot *find_name(Lower *l, const char *key)
{
    if (2 * l->names_used >= l->names_cap) {
        NameSlot *old = l->names;
        int cap = l->names_cap;
        l->names_cap = cap ? 2 * cap : 1024;
        l->names = ARENA_ARRAY(l->arena, NameSlot, l->names_cap);
        l->names_used = 0;
        for (int i = 0; i < cap; i++)
            if (old[i].key)
                *find_name(l, old[i].key) = old[i], l->names_used++;
    }
    uint64_t h = 1469598103934665603u; /* FNV-1a */
    for (const char *c = key; *c; c++)
        h = (h ^ (unsigned char)*c) * 1099511628211u;
    int i = (int)(h % (uint64_t)l->names_cap);
    while (l->names[i].key && strcmp(l->names[i].key, key) != 0)
        i = (i + 1) % l->names_cap;
    return &l->names[i];
}

/* The identifier, with a number where it is taken on this device. */
const char *lower_unique_name(Lower *l, const char *label, const char *kind)
{
    char *name = identifier(l->arena, label);
    for (;;) {
        char *key = arena_printf(l->arena, "%d:%s:%s", l->device, kind, name);
        NameSlot *slot = find_name(l, key);
        if (!slot->key) {
            slot->key = key;
            slot->count = 1;
            l->names_used++;
            return name;
        }
        name = arena_printf(l->arena, "%s_%d", identifier(l->arena, label), ++slot->count);
    }
}
