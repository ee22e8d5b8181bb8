/* elaborate.h - what the files of the elaborator share.
 *
 * The elaborator runs the program that a model is: expressions are evaluated to Terms,
 * statements are executed, and every call on tensors leaves operations in the Graph.
 *
 *   elaborate.c   items, the whole       scope.c     names and constants
 *   statements.c  statements, blocks     layers.c    layer paths
 *   eval.c        expressions            arith.c     constants and tensors with + - * /
 *   match.c       arguments of calls     calls_*.c   the calls
 *   prune.c       what reaches no loss   settings*.c devices, parallel, train, data
 *
 * After an error a Term is TERM_ERROR and everything that it touches becomes
 * TERM_ERROR in silence: one mistake, one message. */
#ifndef MDLC_ELABORATE_H
#define MDLC_ELABORATE_H

#include "ast.h"
#include "graph.h"
#include "settings.h"
#include "table.h"

enum {
    ELAB_MAX_OPS = 4000000,
    ELAB_MAX_TURNS = 1000000, /* loop turns, and block calls, in total */
    ELAB_MAX_WORK = 50000000, /* expressions evaluated, statements executed */
    ELAB_MAX_NESTING = 1500,  /* of these in one another: bounds the stack */
    ELAB_MAX_METRICS = 64,
    ELAB_MAX_INPUTS = 1000,
    ELAB_MAX_PARAMS = 256, /* of a block */
    ELAB_MAX_DEPTH = 256,  /* of frames */
    ELAB_MAX_PATH = 1000,  /* bytes of a layer's path */
    ELAB_MAX_DEVICES = MOST_DEVICES
};
#define ELAB_MAX_COUNT ((int64_t)1 << 59) /* elements of a tensor */

typedef enum {
    TERM_ERROR,  /* said already */
    TERM_ABSENT, /* an optional argument that was not given */
    TERM_INT,
    TERM_REAL,
    TERM_BOOL,
    TERM_QUANTITY,
    TERM_STRING,
    TERM_LIST,
    TERM_TENSOR,
    TERM_INIT
} TermKind;

typedef enum { RULE_NORMAL, RULE_UNIFORM, RULE_CONSTANT, RULE_KAIMING, RULE_XAVIER } InitRule;

/* How a weight starts, before its shape is known. */
typedef struct {
    InitRule rule;
    double value; /* standard deviation, limit, constant, gain */
} Initial;

typedef struct Term Term;
struct Term {
    TermKind kind;
    Place at; /* of the expression it is the value of */
    union {
        int64_t integer;
        double real;
        bool truth;
        const char *text;
        struct {
            double value;
            Unit unit;
        } quantity;
        struct {
            Term *of;
            int n;
        } list;
        ValueId tensor;
        Initial init;
    };
};

typedef struct {
    const char *name;
    Term term;
    Place at;
} Bound;

/* The names of the model, or of one call of a block. */
typedef struct Scope Scope;
struct Scope {
    Scope *parent; /* the model's, for a block; read only */
    Table index;
    VEC(Bound) bound;
};

typedef struct {
    const char *name; /* "weight", "bias", or that of a free weight */
    ValueId value;
    Place at;
} Param;

/* A named call: its weights, and the layers inside it where it is a block. */
typedef struct Layer Layer;
struct Layer {
    Layer *parent;
    const char *key;  /* within the parent: "attn", "h.0"; "" for the model */
    const char *path; /* "h.0.attn"; "" for the model */
    Place at;
    bool soft;   /* named without being asked; another layer may take the name */
    bool broken; /* its call had an error: asking for its weights says nothing */
    Table child_index, param_index, count_index;
    VEC(Layer *) children;
    VEC(Param) params;
    VEC(int) counts; /* of automatic names by kind */
};

typedef struct {
    Name name;
    const Expr *expr;
    enum { CONST_WAITING, CONST_UNDER_WAY, CONST_KNOWN } state;
    Term value;
} Const;

/* A block's call that is under way. */
typedef struct Calling Calling;
struct Calling {
    const Calling *outer;
    const Item *block;
    Place at;
};

/* What an operation asks of the integers that it is given. */
typedef struct {
    ValueId value;
    int64_t count;
    const char *call;
    Place at;
} Limit;

typedef struct {
    Arena *arena;
    Diag *diag;
    const Ast *ast;
    const FrontOptions *options;
    Graph *graph;
    Settings settings;

    Table const_index, block_index, input_index;
    Table said; /* places of errors */
    VEC(Const) consts;
    VEC(const Item *) blocks;
    VEC(Limit) limits;

    struct Signature **signatures; /* of the rows of ops.def, as they come into use */

    Scope *scope, *model_scope; /* NULL: only constants are visible */
    Layer *layer;
    FrameId frame;
    int depth;                 /* of frames */
    int statement, statements; /* the one that is executed; executions so far */
    const Calling *calling;
    int device;
    bool recompute, frozen;
    int turns; /* loop turns and block calls so far */
    int work;  /* expressions evaluated and statements executed so far */
    int nesting;
    bool has_loss;

    const Calling *pending; /* around the last error; its notes are still to come */
    int errors;             /* so far, repetitions too */
    bool muted;             /* the last error was a repetition: so are its notes */
    bool cut;               /* something was left out after an error: layers may be missing */
    bool stop;              /* no more is to be done */
} Elab;

/* ---- messages (elaborate.c): an error is said once per place, with the calls around it */
void elab_error(Elab *e, Place at, const char *format, ...) __attribute__((format(printf, 3, 4)));
void elab_note(Elab *e, Place at, const char *format, ...) __attribute__((format(printf, 3, 4)));
void elab_help(Elab *e, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A help with the nearest candidate, where there is one. */
void elab_help_nearest(Elab *e, const char *word, const char *const *candidates, int n);
/* Adds the notes about the block calls around the last error. */
void elab_end_error(Elab *e);

/* ---- terms (eval.c) */
Term term_error(Place at);
Term term_tensor(ValueId v, Place at);
bool term_is_number(Term t);
double term_number(Term t); /* of TERM_INT and TERM_REAL */
/* "f32[3, 4]", "the number 5", "a string". */
const char *term_describe(Elab *e, Term t);
/* Before anything that recurses; false (with an error) at the limits. Undone by nesting--. */
bool elab_enter(Elab *e, Place at);
Term eval(Elab *e, const Expr *x);
/* hint: the variable that a statement binds to this very call; NULL: none. */
Term eval_hinted(Elab *e, const Expr *x, const Name *hint);
/* An integer constant in [min, max]; false after an error. `what`: "a dimension". */
bool eval_int(Elab *e, const Expr *x, const char *what, int64_t min, int64_t max, int64_t *out);
Term eval_call(Elab *e, const Expr *x, const Name *hint);

/* ---- arithmetic (arith.c) */
Term arith_unary(Elab *e, const Expr *x, Term a);
Term arith_binary(Elab *e, const Expr *x, Term a, Term b);

/* ---- operations (emit_op.c) */
/* An operation of this place, frame, device and layer (NULL: none). */
Op elab_op(const Elab *e, OpKind kind, Place at, const Layer *layer);
/* Adds it; batched where an operand is. NONE after an error (a shape too large). */
OpId elab_add(Elab *e, Op op, const ValueId *in, int nin, int nout, Dtype type, Shape shape);
ValueId elab_add1(Elab *e, Op op, const ValueId *in, int nin, Dtype type, Shape shape);
/* The value itself, or cast where it is integer. */
ValueId elab_float(Elab *e, ValueId v, Place at);
bool elab_check_shape(Elab *e, Place at, const Shape *s);
const char *show_shape(Elab *e, ValueId v);
/* "x is f32[3]", or "this is f32[3]" where it has no name. */
const char *show_is(Elab *e, ValueId v);
/* Notes where a tensor of a failed operation comes from. */
void note_value(Elab *e, ValueId v);

/* ---- names (scope.c) */
Term scope_get(Elab *e, const Expr *x);
const Bound *scope_find(const Scope *s, const char *name);
void scope_bind(Elab *e, Name name, Term t);
void consts_collect(Elab *e);
void consts_check(Elab *e); /* evaluates those that nobody asked for */

/* ---- layers (layers.c) */
typedef enum { NAME_OWNER, NAME_SOFT, NAME_PLAIN } Naming;
/* The layer of a call: from `as`, the hint, or kind_0 … NAME_PLAIN: NULL without `as`;
 * NAME_SOFT: never clashes. NULL also after an error. */
Layer *layer_claim(Elab *e, const Expr *call, const Name *hint, const char *kind, Naming naming);
/* After an error in the call: its layer is there, but asking for its weights says nothing. */
void layer_break(Elab *e, const Expr *call, const Name *hint);
void layer_add_param(Elab *e, Layer *l, const char *name, ValueId v, Place at);
const char *layer_weight_name(Elab *e, const Layer *l, const char *name);
/* wte.weight, h[0].attn.c_attn.weight. */
Term layer_resolve(Elab *e, const Expr *x);
bool layer_exists(const Elab *e, const char *name);

/* ---- statements and blocks (statements.c, blocks.c) */
/* Where `return` leaves its value. */
typedef struct {
    const Item *block; /* NULL: the model */
    bool returned;
    Term value;
} Run;

void run_model(Elab *e, const Item *model);
void run_list(Elab *e, Run *r, const StmtList *list);
/* false after an error: too deep, or too many. */
bool enter_frame(Elab *e, Frame f);
void leave_frame(Elab *e);
Term run_block(Elab *e, const Item *block, const Expr *call, const Name *hint);

/* ---- what integers may be (limits.c) */
/* Every element of v must be in [0, count) for the call of this name. */
void limit_integers(Elab *e, ValueId v, int64_t count, const char *call, Place at);
/* Gives the inputs the limits that were asked for, once the graph is complete. */
void limits_settle(Elab *e);

/* ---- the rest */
void prune(Elab *e);            /* prune.c */
void settings_devices(Elab *e); /* settings.c */
void settings_others(Elab *e);  /* settings.c: after the model */
void data_items(Elab *e);       /* settings_data.c */
/* The one item that `text` is, which shows as the line of `label` in messages; NULL after
 * errors, also where it is not one item of this kind. (command_text.c) */
const Item *command_item(Elab *e, const char *label, const char *text, ItemKind kind);

#endif
