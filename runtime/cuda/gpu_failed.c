/* gpu_failed.c - what a failed call of CUDA becomes: one line that says where.
 *
 *     stage 1 (gpu[1]), step 3, in F0 m2: cudaMemcpyPeerAsync: an illegal memory access was
 *     encountered (stage_1.c:412)
 */
#include <string.h>

#include "device_cuda.h"

void gpu_note(int status)
{
    if (status != 0)
        (void)cudaGetLastError();
}

static int name_length(const char *call)
{
    return (int)strcspn(call, "( ");
}

int gpu_failed(Stage *s, int status, const char *call, const char *file, int line)
{
    char place[TEXT_PLACE];
    const char *slash = strrchr(file, '/');
    gpu_note(status);
    return stage_fail(s, "%s: %.*s: %s (%s:%d)", stage_place(s, place), name_length(call), call,
                      gpu_status_text(status), slash ? slash + 1 : file, line);
}

int gpu_check(Stage *s, int status, const char *call)
{
    char place[TEXT_PLACE];
    if (status == 0)
        return MDL_OK;
    gpu_note(status);
    return stage_fail(s, "%s: %.*s: %s", stage_place(s, place), name_length(call), call,
                      gpu_status_text(status));
}

int gpu_problem(const Device *d, int status, const char *call, Problem *p)
{
    if (status == 0)
        return MDL_OK;
    gpu_note(status);
    return problem_set(p, EXIT_RUN, "%s: %.*s: %s", d->plan->device, name_length(call), call,
                       gpu_status_text(status));
}

int gpu_open_check(Device *d, int status, const char *call)
{
    Problem p = {0};
    if (gpu_problem(d, status, call, &p) == MDL_OK)
        return MDL_OK;
    trainer_abort(d->stage.trainer, &p);
    return MDL_FAILED;
}
