/* front.h - reading models: from a file to its tree, and the canonical layout. */
#ifndef MDLC_FRONT_H
#define MDLC_FRONT_H

#include "diag.h"

typedef struct {
    const char *const *defines; /* -D name=value */
    int ndefines;
    const char *const *sets; /* --set block.key=value */
    int nsets;
    const char *const *include_dirs; /* -I */
    int ninclude_dirs;
    const char *device; /* of the catalogue, for models that say nothing of devices; NULL: a core */
} FrontOptions;

struct Ast;
/* Reads and parses path ("-": standard input) and what it imports. NULL after errors. */
struct Ast *parse_file(Arena *a, Diag *d, const char *path, const FrontOptions *o);
void ast_dump(const struct Ast *ast, FILE *to);
/* The canonical layout of one file's text, comments kept; NULL after errors. */
char *format_source(Arena *a, Diag *d, const char *name, const char *text, size_t size);

#endif
