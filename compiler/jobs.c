/* jobs.c - running other programs.
 *
 * Signals are blocked while jobs run and are waited for together with the ends of jobs
 * (sigtimedwait), so no handler runs and none is lost. */
#include "jobs.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

void words_split(Arena *a, Words *to, const char *text)
{
    while (*(text += strspn(text, " \t\n"))) {
        size_t n = strcspn(text, " \t\n");
        VEC_PUSH(a, to, arena_strndup(a, text, n));
        text += n;
    }
}

const char *words_show(Arena *a, const Words *w)
{
    Text t = {.arena = a};
    text_add(&t, "");
    for (int i = 0; i < w->n; i++)
        text_printf(&t, "%s%s", i ? " " : "", w->at[i]);
    return t.at;
}

void push_all(Arena *a, Words *to, const char *const *from)
{
    for (; *from; from++)
        VEC_PUSH(a, to, *from);
}

void push_words(Arena *a, Words *to, const Words *from)
{
    for (int i = 0; i < from->n; i++)
        VEC_PUSH(a, to, from->at[i]);
}

int cores_online(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    return n < 1 ? 1 : n;
}

const char *program_find(Arena *a, const char *name)
{
    if (strchr(name, '/'))
        return access(name, X_OK) == 0 ? name : NULL;
    const char *path = getenv("PATH");
    for (const char *p = path ? path : ""; *p;) {
        size_t n = strcspn(p, ":");
        const char *file = arena_printf(a, "%.*s/%s", (int)n, p, name);
        if (n > 0 && access(file, X_OK) == 0)
            return file;
        p += n + (p[n] == ':');
    }
    return NULL;
}

/* ---------------------------------------------------------------------- signals */

void interrupts_hold(Interrupts *x)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    sigemptyset(&x->stops);
    for (int i = 0; i < 3; i++) {
        struct sigaction now;
        if (sigaction(numbers[i], NULL, &now) == 0 && now.sa_handler != SIG_IGN)
            sigaddset(&x->stops, numbers[i]);
    }
    signal(SIGCHLD, SIG_DFL); /* a parent may have left it ignored: waitpid needs it */
    sigset_t all = x->stops;
    sigaddset(&all, SIGCHLD);
    sigprocmask(SIG_BLOCK, &all, &x->before);
    x->came = 0;
    x->held = true;
}

bool interrupts_came(Interrupts *x)
{
    static const struct timespec now = {0};
    int number;
    while (x->held && (number = sigtimedwait(&x->stops, NULL, &now)) > 0)
        x->came = number;
    return x->came != 0;
}

void interrupts_release(Interrupts *x)
{
    if (!x->held)
        return;
    interrupts_came(x);
    x->held = false;
    sigprocmask(SIG_SETMASK, &x->before, NULL);
    if (x->came)
        raise(x->came);
}

/* Until a job may have ended or a signal came; a second at most. */
static void wait_for_change(Interrupts *x)
{
    static const struct timespec second = {.tv_sec = 1};
    sigset_t all = x->stops;
    sigaddset(&all, SIGCHLD);
    int number = sigtimedwait(&all, NULL, &second);
    if (number > 0 && number != SIGCHLD)
        x->came = number;
}

/* ------------------------------------------------------------------------- jobs */

/* 0, or an errno. */
static int begin(Arena *a, const Interrupts *x, Job *j)
{
    Words w = {0};
    for (int i = 0; i < j->words.n; i++)
        VEC_PUSH(a, &w, j->words.at[i]);
    VEC_PUSH(a, &w, NULL);

    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    int error = posix_spawn_file_actions_init(&files);
    if (error)
        return error;
    error = posix_spawnattr_init(&attributes);
    if (error) {
        posix_spawn_file_actions_destroy(&files);
        return error;
    }
    error = posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
    if (!error)
        error =
            posix_spawn_file_actions_addopen(&files, 1, j->log, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (!error)
        error = posix_spawn_file_actions_adddup2(&files, 1, 2);
    if (!error)
        error = posix_spawnattr_setsigmask(&attributes, &x->before);
    if (!error)
        error = posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
    if (!error) /* argv of exec is char *const * for history's sake alone */
        error = posix_spawnp(&j->pid, w.at[0], &files, &attributes, (char *const *)(void *)w.at,
                             environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&files);
    return error;
}

/* Takes note of one job that has ended; false when none has. */
static bool collect(Job *jobs, int n)
{
    int status;
    pid_t pid = waitpid(-1, &status, WNOHANG);
    if (pid <= 0)
        return false;
    for (int i = 0; i < n; i++) {
        if (jobs[i].pid != pid)
            continue;
        jobs[i].pid = 0;
        jobs[i].end = WIFSIGNALED(status)   ? JOB_KILLED
                      : WEXITSTATUS(status) ? JOB_FAILED
                                            : JOB_DONE;
        jobs[i].number = WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status);
    }
    return true;
}

static int running(const Job *jobs, int n)
{
    int count = 0;
    for (int i = 0; i < n; i++)
        count += jobs[i].pid > 0;
    return count;
}

static bool any_failed(const Job *jobs, int n)
{
    for (int i = 0; i < n; i++)
        if (jobs[i].pid == 0 && jobs[i].end != JOB_DONE && jobs[i].end != JOB_STOPPED)
            return true;
    return false;
}

void jobs_run(Arena *a, Interrupts *held, Job *jobs, int n, int at_once, bool verbose)
{
    int next = 0;
    bool killed = false;
    for (int i = 0; i < n; i++) {
        jobs[i].end = JOB_STOPPED;
        jobs[i].pid = 0;
    }
    for (;;) {
        bool stop = interrupts_came(held) || any_failed(jobs, n);
        while (!stop && next < n && running(jobs, n) < at_once) {
            Job *j = &jobs[next++];
            if (verbose)
                fprintf(stderr, "%s\n", words_show(a, &j->words));
            j->number = begin(a, held, j);
            if (j->number != 0) {
                j->end = JOB_NOT_BEGUN;
                j->pid = 0;
                stop = true;
            }
        }
        if (running(jobs, n) == 0)
            return;
        if (held->came && !killed) {
            killed = true;
            for (int i = 0; i < n; i++)
                if (jobs[i].pid > 0)
                    kill(jobs[i].pid, SIGTERM);
        }
        if (!collect(jobs, n))
            wait_for_change(held);
    }
}
