/* nccl_connect.c - the communicator of a trainer whose stages meet in NCCL.
 *
 * A file of its own, and called through a table: only trainers that name mdl_nccl link NCCL.
 */
#include <nccl.h>
#include <string.h>

#include "rt_cuda.h"

_Static_assert((int)MDL_NCCL_ID == (int)NCCL_UNIQUE_ID_BYTES, "the size of an identity");

static int nccl_status(ncclResult_t result)
{
    return result == ncclSuccess ? 0 : GPU_NCCL + (int)result;
}

static int nccl_identify(void *id)
{
    ncclUniqueId made;
    ncclResult_t result = ncclGetUniqueId(&made);
    if (result == ncclSuccess)
        memcpy(id, &made, sizeof made);
    return nccl_status(result);
}

static int nccl_join(struct ncclComm **comm, int ranks, int rank, const void *id)
{
    ncclUniqueId all;
    memcpy(&all, id, sizeof all);
    return nccl_status(ncclCommInitRank(comm, ranks, all, rank));
}

/* All of a rank's at once, so that none waits for another. */
static int nccl_greet(struct ncclComm *comm, const MdlLink *links, int nlinks, int rank,
                      char *place, cudaStream_t stream, const char **call)
{
    enum { RECEIVED = MDL_NCCL_GREETING / 2 };
    *call = "ncclGroupStart";
    ncclResult_t result = ncclGroupStart();
    if (result != ncclSuccess)
        return nccl_status(result);
    for (int i = 0; i < nlinks && result == ncclSuccess; i++) {
        char *at = place + (size_t)i * MDL_NCCL_GREETING;
        if (links[i].from == rank) {
            *call = "ncclSend";
            result = ncclSend(at, 1, ncclFloat, links[i].to, comm, stream);
        } else if (links[i].to == rank) {
            *call = "ncclRecv";
            result = ncclRecv(at + RECEIVED, 1, ncclFloat, links[i].from, comm, stream);
        }
    }
    if (result != ncclSuccess) /* known; the group has to be ended all the same */
        (void)ncclGetLastError(comm);
    ncclResult_t ended = ncclGroupEnd();
    if (result == ncclSuccess)
        *call = "ncclGroupEnd";
    return nccl_status(result != ncclSuccess ? result : ended);
}

static int nccl_failed(struct ncclComm *comm)
{
    ncclResult_t found = ncclSuccess, result = ncclCommGetAsyncError(comm, &found);
    return nccl_status(result != ncclSuccess ? result : found);
}

static int nccl_close(struct ncclComm *comm, bool abort)
{
    return nccl_status(abort ? ncclCommAbort(comm) : ncclCommDestroy(comm));
}

const MdlNccl mdl_nccl = {nccl_identify, nccl_join, nccl_greet, nccl_failed, nccl_close};
