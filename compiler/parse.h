/* parse.h - what the scanner, the grammar and the formatter share.
 *
 * One Parser reads one file. The grammar's actions call the ast_* builders, the scanner
 * the scan_* functions; both report through the Parser's Diag. After an error the tree
 * may have holes, so whoever started the Parser asks diag_errors() before using it. */
#ifndef MDLC_PARSE_H
#define MDLC_PARSE_H

#include "ast.h"

/* For the formatter: where a token or comment stands. */
typedef struct {
    int kind; /* of the grammar, or TOKEN_COMMENT */
    int line;
    size_t offset;
    int length;
} Token;
enum { TOKEN_COMMENT = -1 };
typedef VEC(Token) TokenList;

typedef struct {
    Arena *arena;
    Diag *diag;
    int file;
    const char *text;
    size_t size;

    /* The scanner's position: of the byte after the current token. */
    size_t offset;
    int line, col;
    Place previous, current; /* the last two tokens */
    int previous_kind, current_kind;
    struct {
        char closer;
        size_t offset;
        Place at;
    } open[AST_MAX_NESTING]; /* brackets not closed yet */
    int nopen;
    bool stopped;     /* gave up: nothing more is reported */
    int damaged_line; /* the scanner has complained about it: the grammar need not */
    bool skipping;    /* an item broke off somewhere: what follows may be the rest of it */

    VEC(Item *) items;
    TokenList *tokens; /* NULL: not wanted */
} Parser;

/* Reads what stands at text[0 … size) into items; text is terminated and has passed
 * source_check. false after errors. */
bool parse_text(Parser *p);

/* The whole file, terminated; NULL with a reason in *why. path "-": standard input. */
char *source_read(Arena *a, const char *path, size_t *size, const char **why);
/* Refuses NUL, control bytes, bad UTF-8 and invisible characters that change the order of text. */
bool source_check(Diag *d, int file, const char *text, size_t size);

/* Scanner. */
int scan_token(Parser *p, int kind, size_t length, Place *at);
int scan_open(Parser *p, int kind, Place *at);
int scan_close(Parser *p, int kind, Place *at);
void scan_comment(Parser *p, size_t length);
void scan_newline(Parser *p);
void scan_stray(Parser *p, const char *s, size_t n);
void scan_advance(Parser *p, size_t length);
Place scan_place(const Parser *p, size_t length);
Name scan_name(Parser *p, const char *s, size_t n);
/* s[0 … n) is a string with its quotes, or without the last one. */
const char *scan_string(Parser *p, const char *s, size_t n);

/* Syntax errors. expected: what may stand here, in the words of the grammar's tokens. */
void syntax_report(Parser *p, const char *const *expected, int n);
void syntax_too_deep(Parser *p, Place at);
/* An item was left at a ; or } that may be inside it. */
void syntax_skip(Parser *p);

/* Builders of expressions. */
Expr *ast_int(Parser *p, Place at, int64_t n);
Expr *ast_real(Parser *p, Place at, double n);
Expr *ast_string(Parser *p, Place at, const char *text);
Expr *ast_bool(Parser *p, Place at, bool truth);
Expr *ast_name(Parser *p, Name name);
Expr *ast_list(Parser *p, Place at, ExprList of, bool round);
Expr *ast_tuple(Parser *p, Place at, Expr *first, ExprList rest);
Expr *ast_unary(Parser *p, Place at, AstOp op, Expr *a);
Expr *ast_binary(Parser *p, Place at, AstOp op, Expr *a, Expr *b);
Expr *ast_ternary(Parser *p, Place at, Expr *a, Expr *b, Expr *c);
Expr *ast_call(Parser *p, Name callee, ArgList args, Expr *as);
Expr *ast_member(Parser *p, Place at, Expr *base, Name name);
Expr *ast_index(Parser *p, Place at, Expr *base, Expr *index);
Arg ast_arg(Expr *value);
Arg ast_named_arg(Name name, Expr *value);

/* Lists: a new one, or one longer. Builders that are given NULL add nothing. */
ExprList ast_exprs(Parser *p, ExprList list, Expr *e);
ArgList ast_args(Parser *p, ArgList list, Arg arg);
NameList ast_names(Parser *p, NameList list, Name name);
BindingList ast_bindings(Parser *p, BindingList list, Name name, Expr *value);
SettingList ast_settings(Parser *p, SettingList list, Name key, Expr *value);
StmtList ast_stmts(Parser *p, StmtList list, Stmt *s);

/* Builders of statements. */
DeviceRef *ast_device(Parser *p, Place at, Name device, Expr *index);
TypeExpr ast_type(Place at, Name element, ExprList dims);
Stmt *ast_input(Parser *p, StmtKind kind, Place at, Name name, TypeExpr type, Expr *init);
Stmt *ast_bind(Parser *p, Place at, NameList names, bool tuple, Expr *value);
Stmt *ast_for(Parser *p, Place at, Name counter, Expr *from, Expr *to, StmtList body);
Stmt *ast_if(Parser *p, Place at, Expr *condition, StmtList body);
Stmt *ast_else_if(Parser *p, Stmt *branch, Expr *condition, StmtList body);
Stmt *ast_else(Stmt *branch, StmtList body);
Stmt *ast_on(Parser *p, Place at, DeviceRef *device, StmtList body);
Stmt *ast_group(Parser *p, StmtKind kind, Place at, StmtList body);
Stmt *ast_value(Parser *p, StmtKind kind, Place at, Expr *value);
Stmt *ast_placed(Stmt *s, DeviceRef *device);

/* Builders of items; they join p->items. */
void ast_add_consts(Parser *p, Place at, BindingList consts);
void ast_add_import(Parser *p, Place at, const char *path);
void ast_add_block(Parser *p, Name name, BindingList params, StmtList body);
void ast_add_model(Parser *p, Name name, StmtList body);
void ast_add_devices(Parser *p, Name name, Expr *count, Expr *catalogue, SettingList settings);
void ast_add_settings(Parser *p, ItemKind kind, Place at, SettingList settings);
void ast_add_data(Parser *p, Name name, Expr *value);

#endif
