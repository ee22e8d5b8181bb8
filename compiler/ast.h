/* ast.h - what was written, with its place in the file.
 *
 * A tree of arena nodes, made by the grammar through the builders of parse.h and never
 * changed afterwards. Parentheses that only group leave no node. Every name is
 * a terminated string of [A-Za-z0-9_], every string value is free of NUL and valid UTF-8.
 *
 * The depth of an expression tree is at most AST_MAX_DEPTH, braces nest at most AST_MAX_NESTING
 * deep: passes may recurse over the tree.
 */
#ifndef MDLC_AST_H
#define MDLC_AST_H

#include "base.h"
#include "diag.h"

enum {
    AST_MAX_NESTING = 256, /* of ( [ { in the text */
    AST_MAX_DEPTH = 1000,  /* of operators in one expression */
    AST_MAX_IMPORTS = 64,  /* files that wait for one another */
    AST_MAX_FILE = 16 << 20
};

typedef struct Expr Expr;
typedef struct Stmt Stmt;
typedef VEC(Expr *) ExprList;
typedef VEC(Stmt *) StmtList;

typedef struct {
    const char *text;
    Place at;
} Name;
typedef VEC(Name) NameList;

/* What a quantity measures; its value is in the unit named here. */
typedef enum { UNIT_BYTES, UNIT_FLOPS, UNIT_BYTES_PER_S, UNIT_SECONDS } Unit;

typedef enum {
    EXPR_INT,      /* integer: 0 … INT64_MAX */
    EXPR_REAL,     /* real: finite, not negative */
    EXPR_QUANTITY, /* quantity */
    EXPR_STRING,   /* text, escapes replaced */
    EXPR_BOOL,     /* truth */
    EXPR_NAME,     /* text; as the value of a setting also a word such as "1f1b" */
    EXPR_LIST,     /* list: [a, b], or (a, b) with list.round */
    EXPR_UNARY,    /* op, a */
    EXPR_BINARY,   /* op, a, b */
    EXPR_TERNARY,  /* a ? b : c */
    EXPR_CALL,     /* call */
    EXPR_MEMBER,   /* member: wte.weight; the base is a NAME, MEMBER or INDEX */
    EXPR_INDEX     /* index: h[0]; the base is a NAME, MEMBER or INDEX */
} ExprKind;

/* clang-format off */
typedef enum {
    AST_NEG, AST_NOT,
    AST_MUL, AST_DIV, AST_MOD, AST_ADD, AST_SUB,
    AST_LT, AST_LE, AST_GT, AST_GE, AST_EQ, AST_NE,
    AST_AND, AST_OR
} AstOp;
/* clang-format on */

typedef struct {
    const char *name; /* NULL: positional; these come first */
    Place at;         /* of the name, or of the value */
    Expr *value;
} Arg;
typedef VEC(Arg) ArgList;

struct Expr {
    ExprKind kind;
    Place at;  /* BINARY, UNARY, TERNARY: the operator; CALL: the callee's name; else all of it
                  that stands on one line */
    int depth; /* 1 for a leaf */
    union {
        int64_t integer;
        double real;
        bool truth;
        const char *text;
        struct {
            double value; /* in base units: bytes, FLOP/s, bytes/s, seconds */
            Unit unit;
            const char *text; /* as written: "80 GiB" */
        } quantity;
        struct {
            ExprList of;
            bool round;
        } list;
        struct {
            AstOp op;
            Expr *a, *b, *c;
        };
        struct {
            Name callee;
            ArgList args;
            Expr *as; /* the layer's path: NAME, MEMBER or INDEX; NULL: none */
        } call;
        struct {
            Expr *base;
            Name name;
        } member;
        struct {
            Expr *base, *index;
        } index;
    };
};

/* @gpu[k] and on gpu[k]. */
typedef struct {
    Name device;
    Expr *index;
    Place at; /* "gpu[k]" */
} DeviceRef;

/* f32[3, 32]: dims is empty for a scalar. The element's name is not checked here. */
typedef struct {
    Name element;
    ExprList dims;
    Place at; /* all of it */
} TypeExpr;

/* One condition of if … else if …, with what it guards. */
typedef struct {
    Expr *condition;
    StmtList body;
} IfArm;

typedef enum {
    STMT_INPUT,     /* input:  input name : type; */
    STMT_TARGET,    /* input:  target name : type; */
    STMT_WEIGHT,    /* input:  weight name : type = init; init may be NULL */
    STMT_BIND,      /* bind:   x = value; (q, k, v) = value; */
    STMT_FOR,       /* loop */
    STMT_IF,        /* branch */
    STMT_ON,        /* on */
    STMT_RECOMPUTE, /* body */
    STMT_FREEZE,    /* body */
    STMT_LOSS,      /* value */
    STMT_METRIC,    /* value */
    STMT_RETURN     /* value; an EXPR_LIST with list.round for return (a, b); */
} StmtKind;

struct Stmt {
    StmtKind kind;
    Place at;          /* the keyword; BIND: the name, or "(q, k, v)" */
    DeviceRef *device; /* the annotation, NULL: none; only where the statement ends in ; */
    union {
        struct {
            Name name;
            TypeExpr type;
            Expr *init;
        } input;
        struct {
            NameList names; /* at least one */
            bool tuple;     /* written in parentheses */
            Expr *value;
        } bind;
        struct {
            Name counter;
            Expr *from, *to;
            StmtList body;
        } loop;
        struct {
            VEC(IfArm) arms; /* at least one; the first that holds is taken */
            StmtList otherwise;
            bool has_else;
        } branch;
        struct {
            DeviceRef device;
            StmtList body;
        } on;
        StmtList body;
        Expr *value;
    };
};

/* key = value; of devices, parallel and train. Keys and values are not checked here. */
typedef struct {
    Name key;
    Expr *value;
} Setting;
typedef VEC(Setting) SettingList;

typedef struct {
    Name name;
    Expr *value; /* a parameter's default, NULL: none; a const's value, never NULL */
} Binding;
typedef VEC(Binding) BindingList;

typedef enum {
    ITEM_CONST,    /* consts: const a = 1, b = a * 2; */
    ITEM_IMPORT,   /* import_path */
    ITEM_BLOCK,    /* block */
    ITEM_MODEL,    /* model */
    ITEM_DEVICES,  /* devices */
    ITEM_PARALLEL, /* settings */
    ITEM_TRAIN,    /* settings */
    ITEM_DATA      /* data */
} ItemKind;

typedef struct {
    ItemKind kind;
    int file; /* in Sources */
    Place at; /* the name where the item has one, else the keyword */
    union {
        BindingList consts;
        Name import_path; /* the string as written */
        struct {
            Name name;
            BindingList params;
            StmtList body;
        } block;
        struct {
            Name name;
            StmtList body;
        } model;
        struct {
            Name name;
            Expr *count;
            Expr *catalogue; /* a NAME: devices gpu[8] = h100_80g; NULL: the block form */
            SettingList settings;
        } devices;
        SettingList settings;
        struct {
            Name name; /* "train", "eval"; not checked here */
            Expr *value;
        } data;
    };
} Item;

/* Items in the order of the text; in place of an import stand the consts and blocks of the
 * imported file (each file once), after the ITEM_IMPORT itself. Nothing else of an imported
 * file is kept. That there is a model has been checked; that items are not
 * repeated has not. */
typedef struct Ast {
    Arena *arena;
    int file; /* the file that was asked for */
    VEC(Item *) items;
} Ast;

const char *ast_op_text(AstOp op); /* "+", "&&" */
/* The expression on one line, in the language's own spelling. In the arena. */
const char *ast_show_expr(Arena *a, const Expr *e);

#endif
