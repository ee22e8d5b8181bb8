/* apply.h - writing settings into a copy of a model's text. */
#ifndef MDLC_APPLY_H
#define MDLC_APPLY_H

#include "ast.h"
#include "search.h"

/* The text of the model's own file with the row's settings; in the arena. */
const char *apply_settings(Arena *a, const Source *source, const Ast *ast, const SearchRow *row);

#endif
