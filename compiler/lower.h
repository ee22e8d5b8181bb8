/* lower.h - what lower.c, roll.c, names.c and lifetimes.c share. */
#ifndef MDLC_LOWER_H
#define MDLC_LOWER_H

#include "program.h"

typedef struct {
    char *key;
    int count;
} NameSlot;

/* Where a value is on the device under way. */
typedef struct {
    int buffer; /* NONE: nowhere yet */
    int member;
} Home;

typedef struct {
    Arena *arena;
    Graph *g;
    Program *p;
    const Placement *pl;
    Home *home; /* [values]: on this device, by root; cleared between devices */
    VEC(ValueId) touched;
    Home *source;   /* [values]: on the device that makes it, for links */
    bool *travels;  /* [values]: some other device uses it */
    bool *shared;   /* [weights]: used on more than one device */
    bool *late;     /* [ops]: of W */
    int *uses;      /* [weights] */
    int *loader;    /* [inputs]: the chunk whose F loads it on this device, or NONE */
    int *position;  /* [ops]: in the list under way, or NONE */
    ValueId *entry; /* [buffers of the device]: the value at member -1 (or count), or NONE */
    int entry_cap;
    int device; /* under way */
    int chunk;
    RunKind kind;
    NameSlot *names; /* of buffers, hashed */
    int names_cap, names_used;
} Lower;

/* A name made of a prefix, a number that grows by `step` per turn, and a suffix. */
typedef struct {
    const char *prefix, *suffix;
    int64_t first, step; /* first < 0: no number; the name is prefix */
} NamePattern;

NamePattern pattern_single(const char *name);
/* The pattern of two names of consecutive turns; false when they are not alike. */
bool pattern_pair(Arena *a, const char *x, const char *y, NamePattern *out);
/* Does `name` follow the pattern at turn i? */
bool pattern_matches(const NamePattern *p, int64_t i, const char *name);

ValueId lower_root(const Lower *l, ValueId v);
/* The label as a part of a C identifier, with a number where it is taken on the device under way
 * by another buffer of its kind ("w", "g", "o", "d", "v"). */
const char *lower_unique_name(Lower *l, const char *label, const char *kind);
/* What a value is called by people: its layer's path, its variable, or its operation. */
const char *lower_label(const Lower *l, ValueId v);
/* A buffer for `count` tensors like v on the device under way; nothing is at home yet. */
int lower_add_buffer(Lower *l, ValueId v, int count, BufferClass class, const char *label);
void lower_set_home(Lower *l, ValueId v, int buffer, int member);
/* The home of an operand, made at its first use: weights, inputs, what other devices send. */
Home lower_home(Lower *l, ValueId v);
/* Adds a run of weights to the device under way; gradients get buffers at their first use. */
void lower_add_weights(Lower *l, WeightRun run);
/* The run of weights whose buffer this is on the device under way, or NULL. */
WeightRun *lower_run_of(Lower *l, int buffer);
/* Gives a run of weights its copies rounded to 16 bits: their buffer, nothing at home yet. */
int lower_add_halves(Lower *l, WeightRun *run);
Ref lower_ref(Lower *l, ValueId v);

/* A tensor that only one phase touches is scratch of that phase, with as many places as its
 * loop needs; others, and what a link takes away, are kept. */
void lower_classify(Program *p, int device);

/* Turns a list of operations into calls, with loops where consecutive turns of a for
 * statement are alike. */
void roll(Lower *l, Run *run, const OpId *ops, int n, bool down);

#endif
