/* diag_list.h - the messages as kept between reporting (diag.c) and printing (diag_print.c,
 * diag_json.c). */
#ifndef MDLC_DIAG_LIST_H
#define MDLC_DIAG_LIST_H

#include "diag.h"

typedef enum { SEVERITY_ERROR, SEVERITY_WARNING, SEVERITY_NOTE, SEVERITY_HELP } Severity;

typedef struct {
    Severity severity; /* notes and helps belong to the error or warning before them */
    Place at;
    const char *text;
} Message;

struct Diag {
    Arena *arena;
    VEC(Source) sources;
    VEC(Message) messages;
    int flushed;  /* messages written so far */
    int count[2]; /* errors, warnings; kept or not */
    int told[2];  /* of those not kept, how many a closing line has named */
    bool dropping;
};

const char *severity_name(Severity s);
/* "3 more errors not shown", NULL when there is nothing to say; says it once. */
const char *diag_closing_line(Diag *d, Severity s);
void diag_write_json(Diag *d, FILE *to);
/* Copies text, bytes that a terminal would obey or that are not UTF-8 as \xhh or \u{hhhh}. */
void text_add_safe(Text *t, const char *s, size_t n);

#endif
