/* calls.c - the program's calls: entering and leaving, failures, handles.
 *
 * A call that fails makes its thread's next work suspicious until the program has looked at
 * the error. Handles are numbers outside of everything that is mapped: a kind and an index.
 */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "findings.h"
#include "host.h"

#define HANDLES UINT64_C(0x510000000000)

static _Thread_local HostThread thread;
static atomic_bool any_failed;
static atomic_long fail_count;

HostThread *host_thread(void)
{
    return &thread;
}

bool host_failed(void)
{
    return atomic_load(&any_failed);
}

int sim_current_device(void)
{
    return thread.device;
}

void *sim_caller(void)
{
    return thread.caller;
}

void sim_enter(const char *call, SimCallKind kind, void *caller)
{
    sim_lock();
    if (thread.depth > 1)
        return; /* one library calls another */
    clock_host_begin();
    thread.call = call;
    thread.caller = caller_note(caller);
    thread.detail[0] = 0;
    if (thread.in_callback && kind != SIM_CALL_QUERY)
        sim_report(SIM_MISUSE, "%s: a host function in a stream must not call CUDA", call);
    if (kind != SIM_CALL_WORK || !thread.unnoticed)
        return;
    char where[256];
    thread.unnoticed = false;
    caller_describe(thread.caller, where, sizeof where);
    sim_report(SIM_AFTER_FAILURE, "%s%s%s goes on after %s, which nobody looked at", call,
               *where ? " at " : "", where, thread.failed);
}

/* A launch by <<<>>> that failed: no value told the program. */
static char failed_launch[sizeof thread.failed];
static const HostThread *failed_thread;

void sim_noticed(void)
{
    thread.unnoticed = false;
    if (failed_thread == &thread)
        failed_thread = NULL;
}

void call_launch_failed(void)
{
    snprintf(failed_launch, sizeof failed_launch, "%s", thread.failed);
    failed_thread = &thread;
}

void calls_end(void)
{
    if (failed_thread)
        sim_report(SIM_AFTER_FAILURE, "the program ends after %s, which nobody looked at",
                   failed_launch);
}

static void call_failed(const char *call, const char *error)
{
    char where[200];
    caller_describe(thread.caller, where, sizeof where);
    const char *name = *thread.detail ? thread.detail : call;
    snprintf(thread.failed, sizeof thread.failed, "%s%s%s failed with %s", name,
             *where ? " at " : "", where, error);
    thread.unnoticed = true;
    atomic_store(&any_failed, true);
}

void sim_leave(const char *call, const char *error)
{
    if (error)
        call_failed(call, error);
    if (thread.depth == 1) {
        scheduler_after_call();
        thread.call = NULL;
    }
    sim_unlock();
}

bool sim_fail_now(const char *call)
{
    const SimConfig *config = sim_config();
    return config->fail_call && strcmp(config->fail_call, call) == 0 &&
           atomic_fetch_add(&fail_count, 1) + 1 == config->fail_number;
}

cudaError_t api_end(const char *call, cudaError_t error)
{
    bool failed = error != cudaSuccess && error != cudaErrorNotReady;
    if (failed)
        thread.last = error;
    sim_leave(call, failed ? error_name(error) : NULL);
    return error;
}

void *handle_make(HandleKind kind, size_t index)
{
    return (void *)(uintptr_t)(HANDLES + ((uint64_t)kind << 36) + (index << 4));
}

size_t handle_index(const void *handle, HandleKind kind)
{
    uint64_t base = HANDLES + ((uint64_t)kind << 36), value = (uint64_t)(uintptr_t)handle;
    if (value < base || value - base >= UINT64_C(1) << 36 || (value & 15))
        return SIZE_MAX;
    return (size_t)(value - base) >> 4;
}
