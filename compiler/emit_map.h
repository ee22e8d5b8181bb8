/* emit_map.h - what the two spellings of fused loops share (emit_map.c, emit_fused.c). */
#ifndef MDLC_EMIT_MAP_H
#define MDLC_EMIT_MAP_H

#include "emit.h"
#include "fuse.h"

/* The iteration space: dim[0 … rank-1] with strides per operand; the last is the inner one. */
typedef struct {
    int rank;
    int64_t dim[MAX_RANK + 1];
    int64_t stride[2 * MAP_MAX_INSTRS][MAX_RANK + 1];
    bool flat; /* every operand is whole or one number */
} Space;

/* The loop of a call as a call of its own: of a tail, operand 0 is where the kernel's own result
 * is. */
Call map_call(const Emit *e, const Call *c);
/* Neighbouring dimensions become one where every operand walks them as one. */
Space map_space(const Emit *e, const Call *c);
/* Whether numbers of elements, and of threads past the last, fit 32 bits. */
bool map_is_short(const Space *s);
/* Computes t0, t1 … of the operands a0, a1 …; rounded to r0, r1 … where results have 16 bits. */
void map_values(Emit *e, const MapProgram *map, const Call *c);
const char *map_result(const Emit *e, const MapProgram *map, int result); /* "t3", "r3" */
/* Offset of row r for strides over the outer dimensions. */
const char *map_row_offset(Emit *e, const Space *s, const int64_t *stride);
/* Gives every fused loop of the device that is not in e->maps yet a name, and prints it. */
void map_collect(Emit *e, void (*print)(Emit *e, const Call *c, const char *name));

#endif
