/* exec_block.c - the threads of one block.
 *
 * In: a block whose threads are put in order. Out: all have run, or the kernel is given up.
 *
 * What runs next: a thread that became ready, the last one first, so that a warp goes on
 * where its shuffle is done before another warp begins; else a thread that has not begun;
 * else nobody can, and exec_stall() looks into it.
 */
#include "exec.h"

static ExecStack *fresh; /* the stack on which exec_fiber_main begins */
static Exec *running;

void exec_ready(ExecThread *th)
{
    Exec *e = th->exec;
    th->state = EXEC_READY;
    e->ready[e->nready++] = th;
}

/* Leaves the stack `from` for whatever runs next. */
static void go_on(Exec *e, ExecStack *from)
{
    if (e->nready) {
        ExecThread *th = e->ready[--e->nready];
        th->state = EXEC_RUNS;
        if (th->stack != from)
            exec_stack_switch(from, th->stack);
    } else if (e->started < e->nthreads) {
        fresh = exec_stack_take();
        exec_stack_switch(from, fresh);
    } else {
        exec_stack_switch(from, exec_stack_host());
    }
}

void exec_wait(ExecThread *th)
{
    go_on(th->exec, th->stack);
}

static void thread_run(Exec *e, ExecStack *stack)
{
    ExecThread *th = e->order[e->started++];
    for (int i = 0; i < 3; i++)
        th->simt.ctaid[i] = e->block[i];
    th->stack = stack;
    th->state = EXEC_RUNS;
    th->spins = 0;
    th->fenced = false;
    e->table->run(&th->simt);
    th->state = EXEC_EXITED;
    ExecWarp *w = &e->warps[th->simt.warp];
    w->exited |= 1u << th->simt.lane;
    if (w->ngroups)
        exec_warp_leave(th);
    e->exited++;
    e->progress++;
}

void exec_fiber_main(void)
{
    Exec *e = running;
    ExecStack *mine = fresh;
    while (e->nready == 0 && e->started < e->nthreads)
        thread_run(e, mine);
    exec_stack_give(mine);
    go_on(e, mine);
    __builtin_unreachable();
}

void exec_stop(ExecThread *th)
{
    th->exec->stopped = true;
    exec_stack_switch(th->stack, exec_stack_host());
    __builtin_unreachable();
}

bool exec_block_run(Exec *e)
{
    running = e;
    e->started = e->exited = e->nready = 0;
    do {
        go_on(e, exec_stack_host());
    } while (!e->stopped && e->exited < e->nthreads && exec_stall(e));
    if (e->nunwritten)
        exec_report_unwritten(e, false);
    if (e->stopped || e->exited < e->nthreads) {
        exec_stacks_reset();
        return false;
    }
    return true;
}
