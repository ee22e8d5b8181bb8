/* cudart_error.c - error codes: their names and texts, and the last one of a thread. */
#include "host.h"

static const struct {
    cudaError_t error;
    const char *name, *text;
} ERRORS[] = {
#define E(name, text) {name, #name, text},
    E(cudaSuccess, "no error")
#include "cudart_errors.def"
#undef E
};

static int error_find(cudaError_t error)
{
    for (int i = 0; i < (int)(sizeof ERRORS / sizeof *ERRORS); i++)
        if (ERRORS[i].error == error)
            return i;
    return -1;
}

const char *error_name(cudaError_t error)
{
    int i = error_find(error);
    return i < 0 ? "unrecognized error code" : ERRORS[i].name;
}

const char *cudaGetErrorName(cudaError_t error)
{
    sim_noticed();
    return error_name(error);
}

const char *cudaGetErrorString(cudaError_t error)
{
    int i = error_find(error);
    sim_noticed();
    return i < 0 ? "unrecognized error code" : ERRORS[i].text;
}

cudaError_t cudaGetLastError(void)
{
    HostThread *t = host_thread();
    cudaError_t last = t->last;
    t->last = cudaSuccess;
    sim_noticed();
    return last;
}

cudaError_t cudaPeekAtLastError(void)
{
    sim_noticed();
    return host_thread()->last;
}
