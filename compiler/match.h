/* match.h - signatures of calls, and fitting arguments to them. */
#ifndef MDLC_MATCH_H
#define MDLC_MATCH_H

#include "elaborate.h"

enum { MATCH_MAX_PARAMS = 12 };

typedef enum {
    PARAM_TENSOR,
    PARAM_INT,
    PARAM_REAL,
    PARAM_BOOL,
    PARAM_INIT,
    PARAM_WEIGHT,
    PARAM_LIST,
    PARAM_PAIR /* a list of anything; the caller looks */
} ParamKind;

typedef struct {
    const char *name;
    ParamKind kind;
    bool optional;
    Term value; /* where it is not given */
} SigParam;

typedef struct Signature {
    const char *name; /* of the call */
    const char *text; /* as in ops.def */
    int n;
    bool variadic; /* further tensors follow the first */
    bool numbers;  /* a number will do where a tensor is wanted */
    SigParam param[MATCH_MAX_PARAMS];
} Signature;

void signature_parse(Arena *a, Signature *sig, const char *name, const char *text);
/* out: one Term per parameter. more: room for as many as the call has arguments; may be
 * NULL where the signature is not variadic. false after errors. */
bool match_args(Elab *e, const Signature *sig, const Expr *call, Term *out, Term *more, int *nmore);

#endif
