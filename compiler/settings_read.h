/* settings_read.h - reading one value of a setting: shared by the settings*.c files. */
#ifndef MDLC_SETTINGS_READ_H
#define MDLC_SETTINGS_READ_H

#include "match.h"

enum { SETTING_MAX_ROWS = 10 }; /* keys of one block */

typedef struct {
    const char *block; /* "train" */
    Name key;
    const Expr *value;
} Given;

/* One key of a block: what it wants is in the function. */
typedef struct {
    const char *key;
    void (*read)(Elab *e, const Given *g);
} SettingRow;

/* A word of a fixed set; later: bit i: words[i] is not available yet. -1 after an error. */
int read_word(Elab *e, const Given *g, const char *const *words, int n, unsigned later);
bool read_int(Elab *e, const Given *g, int64_t min, int64_t max, int64_t *out);
bool read_real(Elab *e, const Given *g, double min, double *out);
/* A positive quantity of this unit. */
bool read_quantity(Elab *e, const Given *g, Unit unit, double *out);
/* "1f1b", "sgd": the word that a value is, or the callee of a call; NULL: neither. */
const char *word_of(const Expr *x);
/* The arguments of `sgd(lr = 0.1)`, or of the bare word; false after errors. */
bool read_call(Elab *e, const Given *g, const char *signature, Term *args);

extern const SettingRow devices_rows[], parallel_rows[], train_rows[];
extern const int devices_nrows, parallel_nrows, train_nrows;

#endif
