/* syntax_run.h - what the tests of the syntax share. */
#ifndef MDLC_SYNTAX_RUN_H
#define MDLC_SYNTAX_RUN_H

#include "settings.h"

/* All results end up in the arena. */

/* What --dump=ast prints for the file; after errors, the messages. */
const char *run_parse(Arena *a, const char *path, bool *ok);
/* The same for a text without its imports; messages call it "t.mdl". Needs no model. */
const char *run_text(Arena *a, const char *text, size_t size, bool *ok);
/* The canonical layout; after errors, the messages. */
const char *run_format(Arena *a, const char *name, const char *text, size_t size, bool *ok);
/* As run_text, but NULL after errors. */
const char *run_dump(Arena *a, const char *text, size_t size);
/* Messages kept in d, as printed. */
const char *run_messages(Arena *a, Diag *d, bool json);
/* A file as it is; NULL where there is none. */
char *run_slurp(Arena *a, const char *path, size_t *size);

#endif
