/* fuse.h - the program of a fused element-wise loop. */
#ifndef MDLC_FUSE_H
#define MDLC_FUSE_H

#include "graph.h"

enum { MAP_OPERANDS = 3, MAP_MAX_INSTRS = 24 };

/* operand >= 0: result of an earlier instruction; < 0: operand ~operand of the operation */
typedef struct {
    OpKind kind; /* a MAP or MAPGRAD row */
    int noperands;
    int operand[MAP_OPERANDS];
} MapInstr;

/* Executed for every element of the results, which have one shape. */
typedef struct {
    int n;
    MapInstr instr[MAP_MAX_INSTRS];
    int nout;
    int out[MAP_MAX_INSTRS]; /* instruction whose result is result i of the operation */
} MapProgram;

bool map_equal(const MapProgram *a, const MapProgram *b);

#endif
