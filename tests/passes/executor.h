/* executor.h - a judge of Programs that knows nothing of the verifier: it executes them.
 *
 * Instead of numbers, memory holds names: a 64-bit hash of how a value came about, in cells of
 * BUFFER_ALIGN bytes. expect_results() derives from the graph alone what a step has to come to. A
 * Machine executes the Program's lists the way that its emitted trainer would run, one of the many
 * interleavings at a time, and compares. */
#ifndef TEST_EXECUTOR_H
#define TEST_EXECUTOR_H

#include "program.h"

typedef uint64_t Name;

static inline Name name_with(Name x, uint64_t part)
{
    x = (x ^ part) * 0x9e3779b97f4a7c15u;
    x ^= x >> 29;
    x *= 0xbf58476d1ce4e5b9u;
    return x ^ (x >> 32);
}

/* What a name begins with, by what made the value. */
enum {
    NAME_NOTHING = 1,
    NAME_ABSENT,
    NAME_CONST,
    NAME_INPUT,
    NAME_WEIGHT,
    NAME_STATE,
    NAME_OP,
    NAME_ROUND,
    NAME_SUM,
    NAME_SQUARES,
    NAME_SCALE,
    NAME_UPDATE,
    NAME_SPOILT
};

Name name_const(double number);
Name name_text(Name x, const char *text);
/* A name of a turn: prefix, number, suffix; prefix alone where first < 0. */
Name name_pattern(Arena *a, Name x, const char *prefix, const char *suffix, int64_t first,
                  int64_t number);
Name name_input(int input, int step, int m);
/* Result k of an operation whose operands have been hashed into `operands`; `before` is what a sum
 * over micro-batches holds already, 0 where it begins. */
Name name_result(Name operands, int k, Name before);

/* Two steps one after the other, and an evaluation. */
enum { STEPS = 3, STEP_EVAL = 2 };

typedef struct {
    Name *weight;     /* [weights] */
    Name (*state)[2]; /* [weights] */
    int *states;      /* [weights]: how many */
    Name *report;     /* the loss, then the metrics: of all micro-batches, in their order */
} Results;

/* Of the graph, in the order of its operations. The Program says only which operations are turns of
 * one loop and how many numbers of state the optimizer keeps. */
Results expect_results(Arena *a, const Program *p);

/* Who executes.
 *
 *   THREADS   links: a thread per device goes through its list. Of the waits those of runs for
 *             receives are made; the rest is the order of the list.
 *   STREAMS   links, as program.h promises no more: two streams per device, transfers and all else,
 *             each in its order; between them the waits alone. A receive posts and goes on.
 *   PEER      GPUs: a host thread per device, which blocks for the other's counters, and two
 *             streams; sends copy as soon as the sender's stream lets them.
 *   NCCL      GPUs: the k-th send of a device to another meets its k-th receive from it; a send
 * ends when it is received or, as the run of it has it, before. */
typedef enum { MACHINE_THREADS, MACHINE_STREAMS, MACHINE_PEER, MACHINE_NCCL } MachineKind;

typedef struct Machine Machine;
Machine *machine_new(Arena *a, const Program *p, const Results *wanted, MachineKind kind);
/* One interleaving. NULL: it came to the right results; else what went wrong. */
const char *machine_run(Machine *x, uint64_t seed);

/* The first of `runs` interleavings, on each machine that fits the Program, that goes wrong; NULL.
 */
const char *execute_many(Arena *a, const Program *p, const Results *wanted, int runs,
                         uint64_t seed);

#endif
