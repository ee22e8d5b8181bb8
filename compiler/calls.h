/* calls.h - what a rule of a call is given, and the rules' common parts. */
#ifndef MDLC_CALLS_H
#define MDLC_CALLS_H

#include "match.h"

typedef struct {
    Elab *e;
    OpKind kind;      /* of the row; OP_NONE for SUGAR */
    const char *name; /* "linear" */
    const Expr *expr;
    const Name *hint;
    Place at;
    const Signature *sig;
    Term arg[MATCH_MAX_PARAMS];
    Term *more; /* further tensors */
    int nmore;
    Layer *layer; /* NULL: has no name */
    Term result;  /* filled by the rule */
} Call;

/* One rule per row: makes the operations and fills result; false after an error. */
#define OP(ID, name, sig) bool call_##name(Call *c);
#define SUGAR(name, sig) bool call_##name(Call *c);
#include "ops.def"
bool call_map(Call *c);

/* ---- arguments, by the names of the signature */
Term call_arg(const Call *c, const char *name);
bool call_has(const Call *c, const char *name);
ValueId call_tensor(const Call *c, const char *name);
/* The tensor cast to f32 where it is integer; NONE after an error. */
ValueId call_float(Call *c, const char *name);
bool call_bool(const Call *c, const char *name);
double call_real(const Call *c, const char *name);
/* An integer argument that is given, within [min, max]; false after an error. */
bool call_int(Call *c, const char *name, int64_t min, int64_t max, int64_t *out);
/* A dimension of a tensor of this rank; `otherwise` where the argument is absent. */
bool call_dim(Call *c, const char *name, ValueId of, int otherwise, int *out);
/* At least `rank` dimensions (exactly, where exact). */
bool call_rank(Call *c, ValueId v, int rank, bool exact, const char *like);

Shape value_shape(const Call *c, ValueId v); /* a copy: the array moves as values are added */
/* The call's only operation, or its last: sets result. */
bool call_finish(Call *c, ValueId v);
bool call_emit(Call *c, Op op, const ValueId *in, int nin, Dtype type, Shape shape);

/* ---- weights (calls_weights.c) */
Shape shape_of(int rank, int64_t a, int64_t b, int64_t c, int64_t d);
/* Makes the call's layer its name; before any weight. false after an error. */
bool call_name_layer(Call *c, Naming naming);
ValueId call_weight(Call *c, const char *name, Shape shape, Weight init);
/* The weight of linear, embedding, conv2d: tied, given init, or the default. */
ValueId call_main_weight(Call *c, Shape shape, bool transposed, Weight init);
/* The initial values of a weight of this shape; false after an error. */
bool initial_apply(Elab *e, Term init, Shape shape, bool transposed, Weight *w);
/* normal(0.02) and its like as an expression: is the callee one of them? */
bool initial_is_call(const char *name);
Term initial_call(Elab *e, const Expr *x);

/* Sum over the dimensions of mask, times scale; v itself where there are none. */
ValueId emit_sum(Call *c, ValueId v, unsigned mask, double scale);
unsigned all_dims(const Shape *s);

#endif
