/* table.h - a map from names to small numbers. An empty Table is all zeros; keys are kept
 * by pointer and must live as long as the table. */
#ifndef MDLC_TABLE_H
#define MDLC_TABLE_H

#include "base.h"

typedef struct {
    const char **keys; /* NULL: free; `cap` is zero or a power of two */
    int *values;
    int n, cap;
} Table;

int table_find(const Table *t, const char *key); /* -1: not there */
/* Adds the key, or gives it another value. */
void table_set(Arena *a, Table *t, const char *key, int value);

#endif
