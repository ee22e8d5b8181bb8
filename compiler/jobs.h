/* jobs.h - running other programs, and the signals that stop mdlc meanwhile. */
#ifndef MDLC_JOBS_H
#define MDLC_JOBS_H

#include <signal.h>
#include <sys/types.h>

#include "base.h"

typedef VEC(const char *) Words;

/* Splits at spaces; no quoting. */
void words_split(Arena *a, Words *to, const char *text);
/* The words with spaces between, for messages. */
const char *words_show(Arena *a, const Words *w);

/* Appends words; `from` of push_all ends with NULL. */
void push_all(Arena *a, Words *to, const char *const *from);
void push_words(Arena *a, Words *to, const Words *from);

typedef enum {
    JOB_DONE,      /* exit code 0 */
    JOB_FAILED,    /* number: exit code */
    JOB_KILLED,    /* number: signal */
    JOB_NOT_BEGUN, /* number: errno; there is no such program */
    JOB_STOPPED    /* mdlc was interrupted before it ended */
} JobEnd;

typedef struct {
    Words words;     /* program, found along PATH, and arguments */
    const char *log; /* file that gets what it prints */
    JobEnd end;      /* filled by jobs_run */
    int number;
    pid_t pid;
} Job;

/* SIGINT, SIGTERM and SIGHUP while they are held; zeroed before interrupts_hold. */
typedef struct {
    bool held;
    int came;        /* the signal that came first; 0: none */
    sigset_t stops;  /* those of the three that are not ignored */
    sigset_t before; /* mask to go back to */
} Interrupts;

/* Runs all jobs, at most at_once at a time, no new one after a failure; never by a shell.
 * verbose: shows each command on stderr. Between interrupts_hold and interrupts_release. */
void jobs_run(Arena *a, Interrupts *held, Job *jobs, int n, int at_once, bool verbose);

/* From hold to release the signals only end the jobs under way; release
 * then lets them do what they would have done, so temporary files are removed between. */
void interrupts_hold(Interrupts *x);
bool interrupts_came(Interrupts *x);
void interrupts_release(Interrupts *x);

/* The file that a program of this name is, found along PATH; NULL: there is none. */
const char *program_find(Arena *a, const char *name);

int cores_online(void); /* that this process may use; at least 1 */

#endif
