/* graph.h - the model as tensors and operations, flat.
 *
 * Arrays with typed indices: what a pass learns about an operation lives in a side table
 * of that pass. Every operation keeps its place in the source and its frame (which
 * block call, which turn of which loop made it) to the very end; that is what makes
 * messages and generated code readable, and what lets repeated layers be found again.
 *
 * Operations stand in the order of evaluation: inputs of an operation come before it.
 */
#ifndef MDLC_GRAPH_H
#define MDLC_GRAPH_H

#include "base.h"
#include "diag.h"

typedef int ValueId;
typedef int OpId;
typedef int WeightId;
typedef int FrameId;
enum { NONE = -1 };

typedef enum { DT_F32, DT_BF16, DT_F16, DT_I32, DT_U8 } Dtype;

static inline bool dtype_is_half(Dtype t)
{
    return t == DT_BF16 || t == DT_F16;
}
static inline bool dtype_is_float(Dtype t)
{
    return t == DT_F32 || dtype_is_half(t);
}

enum { MAX_RANK = 8 };
#define MAX_DIM ((int64_t)1 << 40)

/* Per sample: the batch never appears. */
typedef struct {
    int rank;
    int64_t dim[MAX_RANK];
} Shape;

typedef enum {
    OP_NONE,
#define OP(ID, name, sig) OP_##ID,
#define PART(ID, name) OP_##ID,
#define MAP(ID, name, sig, expr) OP_##ID,
#define MAPGRAD(ID, name, expr) OP_##ID,
#define INNER(ID, name) OP_##ID,
#include "ops.def"
    OP_COUNT
} OpKind;

typedef enum { VALUE_INPUT, VALUE_WEIGHT, VALUE_CONST, VALUE_OP, VALUE_GRAD } ValueKind;

typedef struct {
    ValueKind kind;
    Dtype type;
    Shape shape;
    bool batched;     /* has a leading batch dimension of one micro-batch */
    int index;        /* VALUE_INPUT: of inputs; VALUE_WEIGHT, VALUE_GRAD: of weights */
    int use;          /* VALUE_GRAD: which use of the weight (tied weights have several) */
    double number;    /* VALUE_CONST: a scalar, rank 0, not batched */
    OpId def;         /* VALUE_OP, VALUE_GRAD: who makes it; else NONE */
    const char *name; /* the variable, or the layer's path; NULL where nobody named it */
    Place at;
} Value;

/* Only those that the operation's row speaks of are set. Dimensions are per sample. */
typedef struct {
    bool ta, tb, transposed;
    int64_t kernel, stride, pad, groups;
    int a, b;         /* TRANSPOSE: the two; SPLIT, CONCAT, SLICE: a is the dimension */
    int64_t from, to; /* SLICE */
    unsigned dims;    /* SUM, MAX: bit d: dimension d is reduced */
    bool batch;       /* SUM: reduces the batch as well */
    double scale;     /* SUM */
    bool scaled;      /* FILL: times the loss scale */
    double eps, p;
    bool relu;               /* CONV2D: fused into its end */
    int64_t heads, kv_heads; /* ATTENTION; ROPE: heads */
    bool causal;             /* ATTENTION */
    double base;             /* ROPE */
    bool inverse;            /* ROPE: turns back */
} Attr;

typedef enum { PHASE_F, PHASE_B, PHASE_W } Phase;

/* Rematerialization: how the backward pass comes by what a forward operation made. */
typedef enum {
    REMAT_NONE,  /* it was kept; or the operation is inside recompute { } */
    REMAT_ALONE, /* the operation runs again where its result is read */
    REMAT_LAYER, /* its layer runs again, from what came into it */
} Remat;

typedef struct {
    OpKind kind;
    Phase phase;
    int nin, nout;
    ValueId *in; /* NONE: absent (a missing bias) */
    ValueId *out;
    Attr attr;
    Place at;         /* the call */
    const char *path; /* the layer's path, "h.3.attn.c_attn"; NULL: has no name */
    FrameId frame;
    int statement;   /* which execution of which statement made it */
    int device;      /* annotated device, or NONE */
    bool recompute;  /* inside recompute { }, or of a layer that runs again */
    Remat remat;     /* of a forward operation: recompute.h */
    bool again;      /* of the backward pass: computes what `forward` computed once more */
    OpId forward;    /* backward operations: whose gradient; else NONE */
    const void *map; /* OP_FUSED: the program of the loop; others: of a tail (fuse.h) */
} Op;

typedef enum { FRAME_MODEL, FRAME_BLOCK, FRAME_TURN } FrameKind;

/* The dynamic nesting of block calls and loop turns. Frame 0 is the model. */
typedef struct {
    FrameKind kind;
    FrameId parent;
    int loop;         /* FRAME_TURN: number of this execution of a for statement */
    int64_t turn;     /* FRAME_TURN: 0, 1, 2, … */
    int64_t counter;  /* FRAME_TURN: the value of the loop's variable */
    const char *name; /* FRAME_BLOCK: the block; FRAME_TURN: the variable */
    const char *path; /* layer path of the enclosing block, "" for the model */
    Place at;         /* the call, or the for statement */
} Frame;

typedef enum { INIT_CONSTANT, INIT_UNIFORM, INIT_NORMAL } InitKind;

typedef struct {
    const char *name; /* "h.0.attn.c_attn.weight" */
    Shape shape;
    InitKind init;
    double init_value; /* constant; limit of [-limit, limit); standard deviation */
    bool frozen;
    int device; /* annotation of a free weight; NONE otherwise */
    ValueId value;
    ValueId half; /* the copy rounded to 16 bits that products read, or NONE */
    FrameId frame;
    Place at;
} Weight;

typedef struct {
    const char *name;
    Dtype type;
    Shape shape;
    bool target;
    int64_t limit; /* integers must be below it (vocabulary, classes); 0: none */
    ValueId value;
    Place at;
} Input;

typedef struct {
    const char *name; /* unique: "accuracy", "accuracy_2" */
    ValueId value;    /* scalar per sample */
    Place at;
} Metric;

/* How many layers run again in the backward pass, for reports. */
typedef struct {
    int layers; /* there are */
    int cheap;  /* of them run again but for products and attention */
    int all;    /* run again whole */
} Remade;

typedef struct {
    Arena *arena;
    VEC(Value) values;
    VEC(Op) ops;
    VEC(Weight) weights;
    VEC(Input) inputs;
    VEC(Metric) metrics;
    VEC(Frame) frames;
    int loops;         /* executions of for statements so far */
    ValueId *original; /* [values]: what a value made again is the same as, or NONE; NULL when
                          nothing is recomputed */
    Remade remade;
    ValueId loss; /* scalar per sample, batched */
    Place loss_at;
} Graph;

Graph *graph_new(Arena *a);
ValueId graph_add_value(Graph *g, Value v);
ValueId graph_add_const(Graph *g, double number, Place at);
/* Adds an operation with `nout` fresh VALUE_OP outputs of the given shape (change them
 * through g->values.at[]); `in` is copied. */
OpId graph_add_op(Graph *g, Op op, const ValueId *in, int nin, int nout, Dtype type, Shape shape,
                  bool batched);
WeightId graph_add_weight(Graph *g, Weight w);
FrameId graph_add_frame(Graph *g, Frame f);
/* The innermost turn of a loop around a frame; 0, the model, where there is none. */
FrameId graph_turn_of(const Graph *g, FrameId f);
/* The layer that a frame is in: of the loops around it the innermost that no block lies around,
 * or without loops the outermost block; 0, the model, where there is none. */
FrameId graph_layer_of(const Graph *g, FrameId f);

const char *op_name(OpKind kind); /* "linear", "relu_grad" */
bool op_is_map(OpKind kind);
const char *op_map_expression(OpKind kind);

int64_t shape_count(const Shape *s); /* elements; the front end has checked the product */
bool shape_equal(const Shape *a, const Shape *b);
bool attr_equal(const Attr *a, const Attr *b);
/* Trailing-dimension broadcasting; false when they do not fit. */
bool shape_broadcast(const Shape *a, const Shape *b, Shape *out);
/* "f32[3, 32, 32]" in the arena. */
const char *shape_show(Arena *a, Dtype type, const Shape *s);
const char *dtype_name(Dtype t);

/* The invariants above; says what is broken and returns false (a compiler bug). */
bool graph_check(const Graph *g, FILE *to);
void graph_dump(const Graph *g, const Diag *d, FILE *to);

#endif
