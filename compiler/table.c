/* table.c - a map from names to small numbers.
 *
 * Open addressing with linear probing over FNV-1a, at most half full; nothing is ever
 * removed. */
#include "table.h"

#include <string.h>

static unsigned table_hash(const char *s)
{
    uint32_t h = 2166136261u;
    for (; *s; s++)
        h = (h ^ (unsigned char)*s) * 16777619u;
    return h ^ h >> 15;
}

/* Where the key is, or where it would go. */
static int table_slot(const Table *t, const char *key)
{
    unsigned mask = (unsigned)t->cap - 1, i = table_hash(key) & mask;
    while (t->keys[i] && strcmp(t->keys[i], key))
        i = (i + 1) & mask;
    return (int)i;
}

int table_find(const Table *t, const char *key)
{
    if (!t->cap)
        return -1;
    int i = table_slot(t, key);
    return t->keys[i] ? t->values[i] : -1;
}

static void table_grow(Arena *a, Table *t)
{
    Table old = *t;
    t->cap = old.cap ? old.cap * 2 : 8;
    t->keys = ARENA_ARRAY(a, const char *, t->cap);
    t->values = ARENA_ARRAY(a, int, t->cap);
    for (int i = 0; i < old.cap; i++)
        if (old.keys[i]) {
            int to = table_slot(t, old.keys[i]);
            t->keys[to] = old.keys[i];
            t->values[to] = old.values[i];
        }
}

void table_set(Arena *a, Table *t, const char *key, int value)
{
    if (2 * (t->n + 1) > t->cap)
        table_grow(a, t);
    int i = table_slot(t, key);
    if (!t->keys[i]) {
        t->keys[i] = key;
        t->n++;
    }
    t->values[i] = value;
}
