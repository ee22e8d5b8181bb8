/* ast_show.h - pieces of the tree as text, for messages and dumps. */
#ifndef MDLC_AST_SHOW_H
#define MDLC_AST_SHOW_H

#include "ast.h"

/* all: parentheses around every operand that is an operation, not only where needed. */
void text_add_expr(Text *t, const Expr *e, bool all);
void text_add_exprs(Text *t, const ExprList *list, bool all);
/* In double quotes, with the escapes of the language. */
void text_add_quoted(Text *t, const char *s);

#endif
