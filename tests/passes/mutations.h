/* mutations.h - Programs broken by lot. */
#ifndef TEST_MUTATIONS_H
#define TEST_MUTATIONS_H

#include "program.h"

/* A copy in `a` of all that a mutation may change; the model and the graph's tables are shared. The
 * copy's graph allocates in `a` as well, so that what verifiers need goes with the copy. */
Program *program_copy(Arena *a, const Program *p);

typedef struct {
    Arena *arena;
    Program *p;
    uint64_t chance;
    const char *what; /* what was done, for people */
} Mutation;

int mutation_draw(Mutation *u, int n); /* 0 … n-1 */

/* Does one mutation of the kind; false where the Program has nothing that it could be done to. */
int mutation_kinds(void);
const char *mutation_name(int kind);
bool mutation_do(Mutation *u, int kind);

/* Of a list; mutations_lists.c. */
bool move_action(Mutation *u);
bool drop_action(Mutation *u);
bool double_action(Mutation *u);
bool swap_actions(Mutation *u);
bool drop_wait(Mutation *u);
bool turn_wait(Mutation *u);
bool add_wait(Mutation *u);
bool add_take(Mutation *u);
bool drop_take(Mutation *u);
bool move_take(Mutation *u);
bool change_message(Mutation *u);
bool change_run(Mutation *u);

#endif
