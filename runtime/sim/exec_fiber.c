/* exec_fiber.c - stacks of waiting threads.
 *
 * Out: stacks, each with a guard below it, made when first needed and used again by all
 * kernels; and the switch from one to another, which on x86-64 saves what a call must keep
 * and nothing else. Elsewhere, and under the address sanitizer, which has to know of stacks,
 * it is the C library's.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "exec.h"

#if defined __x86_64__ && !defined __SANITIZE_ADDRESS__
#define OWN_SWITCH 1
#endif

enum {
    STACK_BYTES = 256 << 10,
    STACK_GUARD = 64 << 10,
    STACKS = EXEC_THREADS + 1,
    COLOURS = 64, /* tops differ, so that threads do not fight for the same cache lines */
};

struct ExecStack {
#if OWN_SWITCH
    void *pointer;
#else
    ucontext_t context;
#endif
    char *bytes;
    uint32_t colour;
};

static ExecStack host, stacks[STACKS];
static ExecStack *unused[STACKS];
static uint32_t nunused, nmade;
static char *region;

#if OWN_SWITCH
void exec_switch(void **save, void *to) __attribute__((visibility("hidden")));
__asm__(".text\n"
        ".p2align 4\n"
        ".globl exec_switch\n"
        ".hidden exec_switch\n"
        ".type exec_switch, @function\n"
        "exec_switch:\n"
        "    pushq %rbp\n"
        "    pushq %rbx\n"
        "    pushq %r12\n"
        "    pushq %r13\n"
        "    pushq %r14\n"
        "    pushq %r15\n"
        "    movq %rsp, (%rdi)\n"
        "    movq %rsi, %rsp\n"
        "    popq %r15\n"
        "    popq %r14\n"
        "    popq %r13\n"
        "    popq %r12\n"
        "    popq %rbx\n"
        "    popq %rbp\n"
        "    ret\n"
        ".size exec_switch, .-exec_switch\n");

/* A stack on which exec_fiber_main seems to have been called and to have switched away. */
static void stack_begin(ExecStack *s)
{
    void **top = (void **)(void *)(s->bytes + STACK_BYTES - 64 - s->colour * 64);
    void (*entry)(void) = exec_fiber_main;
    *--top = NULL; /* where it would return to */
    --top;
    memcpy(top, &entry, sizeof entry);
    for (int i = 0; i < 6; i++)
        *--top = NULL;
    s->pointer = top;
}

void exec_stack_switch(ExecStack *from, ExecStack *to)
{
    exec_switch(&from->pointer, to->pointer);
}
#else
static void stack_begin(ExecStack *s)
{
    getcontext(&s->context);
    s->context.uc_stack.ss_sp = s->bytes;
    s->context.uc_stack.ss_size = STACK_BYTES;
    s->context.uc_link = NULL;
    makecontext(&s->context, exec_fiber_main, 0);
}

void exec_stack_switch(ExecStack *from, ExecStack *to)
{
    swapcontext(&from->context, &to->context);
}
#endif

static _Noreturn void stacks_failed(void)
{
    fprintf(stderr, "mdl-sim: no address space left for the stacks of a block's threads\n");
    _Exit(SIM_EXIT);
}

static ExecStack *stack_make(void)
{
    const size_t each = STACK_BYTES + STACK_GUARD;
    if (!region) {
        void *p = mmap(NULL, STACKS * each, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                       -1, 0);
        if (p == MAP_FAILED)
            stacks_failed();
        region = p;
    }
    ExecStack *s = &stacks[nmade];
    s->bytes = region + nmade * each + STACK_GUARD;
    s->colour = nmade * 7 % COLOURS;
    if (mprotect(s->bytes, STACK_BYTES, PROT_READ | PROT_WRITE) != 0)
        stacks_failed();
    nmade++;
    return s;
}

ExecStack *exec_stack_take(void)
{
    ExecStack *s = nunused ? unused[--nunused] : stack_make();
    stack_begin(s);
    return s;
}

void exec_stack_give(ExecStack *stack)
{
    unused[nunused++] = stack;
}

void exec_stacks_reset(void)
{
    nunused = 0;
    for (uint32_t i = nmade; i > 0; i--)
        unused[nunused++] = &stacks[i - 1];
}

ExecStack *exec_stack_host(void)
{
    return &host;
}
