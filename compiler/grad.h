/* grad.h - what a gradient rule works with: see grad_rules.c for the rules. */
#ifndef MDLC_GRAD_H
#define MDLC_GRAD_H

#include "graph.h"

typedef struct {
    Graph *g;
    ValueId *grad;  /* [values of the forward pass]: its gradient so far, or NONE */
    bool *needs;    /* [values of the forward pass]: depends on a trained weight */
    int *uses;      /* [weights]: uses that have a gradient so far */
    int nvalues;    /* of the forward pass */
    ValueId *again; /* [values of the forward pass]: the same made again in the backward pass,
                       or NONE */
    int *region;    /* [forward operations]: which recompute region, or NONE */
    OpId forward;   /* the operation being differentiated */
    ValueId dy;     /* gradient of its first output */
} Grad;

typedef void GradRule(Grad *c);

#define OP(ID, name, sig) GradRule grad_##name;
#define PART(ID, name) GradRule grad_##name;
#define MAP(ID, name, sig, expr) GradRule grad_##name;
#include "ops.def"

/* Operands and results of the operation being differentiated, as the backward pass reads
 * them: those that are to be made again are, where that has not happened yet. */
ValueId grad_in(Grad *c, int i);
ValueId grad_out(Grad *c, int i);
ValueId grad_of_result(const Grad *c, int i); /* gradient of result i so far, or NONE */
bool grad_wanted(const Grad *c, int i);       /* does operand i want a gradient? */

/* A backward operation with one output shaped as `like`. */
ValueId grad_op(Grad *c, OpKind kind, const Attr *attr, const ValueId *in, int nin, ValueId like);
ValueId grad_op1(Grad *c, OpKind kind, ValueId like, ValueId a);
ValueId grad_op2(Grad *c, OpKind kind, ValueId like, ValueId a, ValueId b);
ValueId grad_op3(Grad *c, OpKind kind, ValueId like, ValueId a, ValueId b, ValueId d);

/* One more output, shaped as `like`, of the operation that makes v. */
ValueId grad_result(Grad *c, ValueId v, ValueId like);

/* Hands a contribution to operand i: summed over broadcast dimensions, added to what is
 * there, or collected as a weight's gradient. */
void grad_give(Grad *c, int i, ValueId d);

/* Adds a backward operation whose outputs are gradients of the weights at operands
 * `first` … first + n - 1 (absent and frozen ones become NONE). */
void grad_give_weights(Grad *c, OpKind kind, const Attr *attr, const ValueId *in, int nin,
                       int first, int n);

#endif
