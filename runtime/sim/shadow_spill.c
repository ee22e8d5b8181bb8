/* shadow_spill.c - accesses that do not fit into their cell.
 *
 * In: the slots of a cell beyond its own. Out: them again. They are rare: words that four or
 * more streams read with nothing between, or threads that write the bytes of a word one by
 * one. A cell says by SLOT_MORE that it has some; what is left here of cells that were
 * cleared since is not looked at.
 */
#include <stdlib.h>

#include "shadow.h"

typedef struct Spill {
    struct Spill *next;
    const ShadowCell *cell;
    int n;
    ShadowSlot slot[SHADOW_SPILL];
} Spill;

enum { BUCKETS = 1 << 14 };
static Spill *spills[BUCKETS];

static Spill **spill_place(const ShadowCell *cell)
{
    uint64_t hash = (uintptr_t)cell / sizeof *cell * UINT64_C(0x9e3779b97f4a7c15);
    Spill **place = &spills[hash >> 50];
    while (*place && (*place)->cell != cell)
        place = &(*place)->next;
    return place;
}

int shadow_spill_take(const ShadowCell *cell, ShadowSlot *slots)
{
    Spill **place = spill_place(cell), *s = *place;
    int n = s ? s->n : 0;
    for (int i = 0; i < n; i++)
        slots[i] = s->slot[i];
    if (s)
        *place = s->next;
    free(s);
    return n;
}

bool shadow_spill_put(const ShadowCell *cell, const ShadowSlot *slots, int n)
{
    Spill **place = spill_place(cell);
    if (!*place)
        *place = calloc(1, sizeof **place);
    if (!*place)
        return false;
    (*place)->cell = cell;
    (*place)->n = n;
    for (int i = 0; i < n; i++)
        (*place)->slot[i] = slots[i];
    return true;
}
