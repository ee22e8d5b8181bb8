/* command_text.c - what -D and --set say, read by the grammar of the language itself: the
 * caller spells it as an item, so messages can show a line with a caret as for a file. */
#include "elaborate.h"
#include "parse.h"

#include <string.h>

const Item *command_item(Elab *e, const char *label, const char *text, ItemKind kind)
{
    size_t size = strlen(text);
    int file = diag_add_source(e->diag, label, text, size);
    if (!source_check(e->diag, file, text, size))
        return NULL;
    Parser *p = ARENA_NEW(e->arena, Parser);
    p->arena = e->arena;
    p->diag = e->diag;
    p->file = file;
    p->text = text;
    p->size = size;
    p->line = p->col = 1;
    if (!parse_text(p))
        return NULL;
    if (p->items.n == 1 && p->items.at[0]->kind == kind)
        return p->items.at[0];
    elab_error(e, (Place){file, 1, 1, (int)size}, "%s wants one value", label);
    return NULL;
}
