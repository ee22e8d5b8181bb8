/* fuse.h - the program of a fused element-wise loop. */
#ifndef MDLC_FUSE_H
#define MDLC_FUSE_H

#include "graph.h"

enum { MAP_OPERANDS = 3, MAP_MAX_INSTRS = 24 };

/* operand >= 0: result of an earlier instruction; < 0: operand ~operand of the operation */
typedef struct {
    OpKind kind; /* a MAP or MAPGRAD row */
    Dtype type;  /* of the result: 16 bits are rounded to at once */
    int noperands;
    int operand[MAP_OPERANDS];
} MapInstr;

/* Executed for every element of the results, which have one shape.
 *
 * An operation of another kind that has a program has it as its tail: its own result is the
 * program's operand 0, its operands from the tail_operands-th on are the program's 1, 2, …, and
 * its results are those of the program, then its own where that is needed besides. Otherwise its
 * own result has the place of one of the program's, which has its type. */
typedef struct {
    Place at;
    int n;
    MapInstr instr[MAP_MAX_INSTRS];
    int nout;
    int out[MAP_MAX_INSTRS]; /* instruction whose result is result i of the operation */
    int own;                 /* of a tail: result of the operation that its own is put in */
} MapProgram;

bool map_equal(const MapProgram *a, const MapProgram *b);
/* Both without, or both with equal programs. */
bool maps_alike(const Op *a, const Op *b);

/* How many operands an operation of this kind has before those of a tail; 0: it has no tail. */
int tail_operands(OpKind kind);
static inline bool has_tail(const Op *op)
{
    return op->map && op->kind != OP_FUSED;
}
/* Which result an operation with a tail computes into. */
static inline int tail_result(const Op *op)
{
    return ((const MapProgram *)op->map)->own;
}

#endif
