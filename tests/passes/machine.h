/* machine.h - what executor.c, machine_begin.c and machine_memory.c share: the state of an
 * execution. */
#ifndef TEST_MACHINE_H
#define TEST_MACHINE_H

#include "executor.h"

enum { CELL = BUFFER_ALIGN, NO_MESSAGE = -1 };

/* 64 bytes of a device: part `part` of `parts` of the tensor called `what`. */
typedef struct {
    Name what;
    int part, parts;
} Cell;

/* A call of a phase, turn by turn. */
typedef struct {
    const Call *call;
    int turn;
} Turn;
typedef VEC(Turn) Turns;

/* A message that is on its way between two GPUs. */
typedef struct {
    Cell *cells;
    int64_t bytes;
} Parcel;

typedef struct {
    int posted, sent, waited; /* as the hosts count */
    int *m;                   /* [messages]: micro-batch that was posted */
    int64_t *place;           /* [messages]: where to */
    bool *there, *open;       /* [messages]: copied; its buffer may be filled */
} LinkState;

/* Next action: of a step, of a list; calls or waits of it that are done. */
typedef struct {
    int step, at, part;
    bool begun, met;
} Head;

struct Machine {
    Arena *arena;
    const Program *p;
    const Results *wanted;
    MachineKind kind;
    int D, messages;        /* devices; most messages of a link */
    Turns *turns;           /* [chunks * RUN_KINDS] */
    Cell **memory, **fresh; /* [devices][cells]; what is there at the beginning */
    int64_t *cells;         /* [devices] */
    Cell **away;            /* [devices][away_cells]: what is offloaded */
    int64_t *away_cells;    /* [devices] */
    LinkState *links;
    Head *host, *stream[STREAMS];          /* [devices] */
    int *queued[STREAMS], *ended[STREAMS]; /* [devices]: actions of each stream, of all steps */
    bool *done[STEPS];                     /* [devices * longest] */
    int *message[STEPS]; /* [devices * longest]: of a send or receive, or NO_MESSAGE */
    int *taken[STEPS];   /* [devices * takes]: message that a take waits for */
    int longest, most_takes;
    int *clips;                                 /* [devices]: meetings that it has come to */
    Name *squares, scale[STEPS], *device_scale; /* [weights]; of each meeting; [devices] */
    Name *report;
    VEC(Parcel) * parcels; /* [devices * devices]: sent, not received; from parcel[] on */
    int *parcel;
    bool moved;    /* since the last look at all agents */
    bool buffered; /* NCCL: by lot, sends end before they are received */
    uint64_t chance, lot;
    const char *unfit; /* what is wrong with the memory to begin with, or NULL */
    const char *wrong; /* the first thing that went wrong */
};

static inline const ActionList *machine_list(const Machine *x, int device, int step)
{
    const Device *d = &x->p->devices.at[device];
    return step == STEP_EVAL ? &d->eval : &d->train;
}

void machine_fail(Machine *x, int device, const char *what);

int machine_draw(Machine *x, int n); /* 0 … n-1 */
void machine_begin(Machine *x, uint64_t seed);

/* One call of a run; a ROUND, REDUCE, CLIP or UPDATE. */
void machine_call(Machine *x, int device, const Turn *t, int step, int m);
void machine_whole(Machine *x, int device, ActionKind kind, int step);
/* Where a link's tensor is for micro-batch m; false: nowhere. */
bool machine_place(Machine *x, int device, const Ref *r, int m, int64_t *at);
void machine_copy(Machine *x, int from, int64_t source, int to, int64_t target, int64_t bytes);
/* All that a chunk offloads, one way. */
void machine_offload(Machine *x, int device, const Action *a);
Cell *machine_cells(Machine *x, int device, int64_t at, int64_t bytes);

/* What is in memory at the beginning, and in the end. */
void machine_fill(Machine *x);
void machine_compare(Machine *x);

#endif
