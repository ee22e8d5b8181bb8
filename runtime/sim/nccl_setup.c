/* nccl_setup.c - the functions of NCCL about communicators, versions, errors and memory. */
#include <string.h>

#include "nccl_world.h"

enum { CONFIG_MAGIC = (int)0xcafebeef };

ncclResult_t ncclGetVersion(int *version)
{
    if (!version)
        return ncclInvalidArgument;
    *version = NCCL_VERSION_CODE;
    return ncclSuccess;
}
ALSO_P(ncclGetVersion);

const char *ncclGetErrorString(ncclResult_t result)
{
    static const char *const texts[] = {"no error",
                                        "unhandled CUDA error",
                                        "unhandled system error",
                                        "internal error",
                                        "invalid argument",
                                        "invalid usage",
                                        "remote process exited or there was a network error",
                                        "NCCL operation in progress"};
    sim_noticed();
    return (unsigned)result < ncclNumResults ? texts[result] : "unknown result code";
}
ALSO_P(ncclGetErrorString);

const char *ncclGetLastError(ncclComm_t comm)
{
    (void)comm;
    sim_noticed();
    return nccl_last_error();
}
ALSO_P(ncclGetLastError);

/* --------------------------------------------------------------------- communicators */

ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
    NCCL_CALL(SIM_CALL_WORK,
              id ? comm_unique_id(id) : nccl_fail(ncclInvalidArgument, "%s: id is NULL", __func__));
}
ALSO_P(ncclGetUniqueId);

static ncclResult_t join(ncclComm_t *comm, int nranks, const ncclUniqueId *id, int rank,
                         const ncclConfig_t *config, void *caller, const char *call)
{
    if (config && (config->magic != (unsigned)CONFIG_MAGIC || config->size > sizeof *config))
        return group_refuse(nccl_fail(ncclInvalidArgument,
                                      "%s: config was not set to NCCL_CONFIG_INITIALIZER", call));
    ncclResult_t result = comm_join(comm, nranks, id, rank, caller, call);
    if (result != ncclSuccess)
        return group_refuse(result);
    return group_open() ? group_add_comm(comm) : comm_meet(comm, call);
}

ncclResult_t ncclCommInitRank(ncclComm_t *comm, int nranks, ncclUniqueId id, int rank)
{
    NCCL_CALL(SIM_CALL_WORK,
              join(comm, nranks, &id, rank, NULL, __builtin_return_address(0), __func__));
}
ALSO_P(ncclCommInitRank);

ncclResult_t ncclCommInitRankConfig(ncclComm_t *comm, int nranks, ncclUniqueId id, int rank,
                                    ncclConfig_t *config)
{
    NCCL_CALL(SIM_CALL_WORK,
              join(comm, nranks, &id, rank, config, __builtin_return_address(0), __func__));
}
ALSO_P(ncclCommInitRankConfig);

ncclResult_t ncclCommInitAll(ncclComm_t *comms, int n, const int *devices)
{
    NCCL_CALL(SIM_CALL_WORK,
              comm_join_all(comms, n, devices, __builtin_return_address(0), __func__));
}
ALSO_P(ncclCommInitAll);

static ncclResult_t finalize(ncclComm_t comm, const char *call)
{
    ncclResult_t why;
    return comm_of(comm, call, &why) ? comm_finish(comm, call) : why;
}

ncclResult_t ncclCommFinalize(ncclComm_t comm)
{
    NCCL_CALL(SIM_CALL_FREE, finalize(comm, __func__));
}
ALSO_P(ncclCommFinalize);

ncclResult_t ncclCommDestroy(ncclComm_t comm)
{
    NCCL_CALL(SIM_CALL_FREE, comm_end(comm, false, __func__));
}
ALSO_P(ncclCommDestroy);

ncclResult_t ncclCommAbort(ncclComm_t comm)
{
    NCCL_CALL(SIM_CALL_FREE, comm_end(comm, true, __func__));
}
ALSO_P(ncclCommAbort);

typedef enum { ASK_COUNT, ASK_DEVICE, ASK_RANK } Question;

static ncclResult_t ask(ncclComm_t comm, Question question, int *answer, const char *call)
{
    ncclResult_t why;
    const struct ncclComm *c = comm_of(comm, call, &why);
    if (!c)
        return why;
    if (!answer)
        return nccl_fail(ncclInvalidArgument, "%s: no place for the answer", call);
    *answer = question == ASK_COUNT    ? c->clique->nranks
              : question == ASK_DEVICE ? c->device
                                       : c->rank;
    return ncclSuccess;
}

ncclResult_t ncclCommCount(const ncclComm_t comm, int *count)
{
    NCCL_CALL(SIM_CALL_QUERY, ask(comm, ASK_COUNT, count, __func__));
}
ALSO_P(ncclCommCount);

ncclResult_t ncclCommCuDevice(const ncclComm_t comm, int *device)
{
    NCCL_CALL(SIM_CALL_QUERY, ask(comm, ASK_DEVICE, device, __func__));
}
ALSO_P(ncclCommCuDevice);

ncclResult_t ncclCommUserRank(const ncclComm_t comm, int *rank)
{
    NCCL_CALL(SIM_CALL_QUERY, ask(comm, ASK_RANK, rank, __func__));
}
ALSO_P(ncclCommUserRank);

static ncclResult_t asynchronous_error(ncclComm_t comm, ncclResult_t *error, const char *call)
{
    ncclResult_t why;
    if (!comm_of(comm, call, &why))
        return why;
    if (!error)
        return nccl_fail(ncclInvalidArgument, "%s: no place for the answer", call);
    *error = ncclSuccess;
    return ncclSuccess;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *error)
{
    NCCL_CALL(SIM_CALL_QUERY, asynchronous_error(comm, error, __func__));
}
ALSO_P(ncclCommGetAsyncError);

/* ---------------------------------------------------------------------------- memory */

ncclResult_t ncclMemAlloc(void **pointer, size_t size)
{
    NCCL_CALL(SIM_CALL_WORK, cudaMalloc(pointer, size) == cudaSuccess
                                 ? ncclSuccess
                                 : nccl_fail(ncclUnhandledCudaError, "%s: cudaMalloc", __func__));
}
ALSO_P(ncclMemAlloc);

ncclResult_t ncclMemFree(void *pointer)
{
    NCCL_CALL(SIM_CALL_FREE, cudaFree(pointer) == cudaSuccess
                                 ? ncclSuccess
                                 : nccl_fail(ncclUnhandledCudaError, "%s: cudaFree", __func__));
}
ALSO_P(ncclMemFree);
