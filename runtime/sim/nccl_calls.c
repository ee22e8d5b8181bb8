/* nccl_calls.c - the functions of NCCL: their arguments, and what they return.
 *
 * In: the program's calls. Out: parts of groups (nccl_group.c), or a code as the real library
 * gives it, with its reason for ncclGetLastError.
 */
#include <stdarg.h>
#include <string.h>

#include "nccl_world.h"

static char last_error[256];

ncclResult_t nccl_leave(const char *call, ncclResult_t result)
{
    sim_leave(call, result == ncclSuccess ? NULL : nccl_result_name(result));
    return result;
}

ncclResult_t nccl_fail(ncclResult_t error, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(last_error, sizeof last_error, format, args);
    va_end(args);
    return error;
}

const char *nccl_last_error(void)
{
    return last_error;
}

/* -------------------------------------------------------------------------- names */

const char *nccl_result_name(ncclResult_t result)
{
    static const char *const names[] = {
        "ncclSuccess",         "ncclUnhandledCudaError", "ncclSystemError", "ncclInternalError",
        "ncclInvalidArgument", "ncclInvalidUsage",       "ncclRemoteError", "ncclInProgress"};
    return (unsigned)result < ncclNumResults ? names[result] : "an unknown ncclResult_t";
}

size_t nccl_size_of(ncclDataType_t type)
{
    static const size_t sizes[ncclNumTypes] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2, 1, 1};
    return (unsigned)type < ncclNumTypes ? sizes[type] : 0;
}

const char *nccl_type_name(ncclDataType_t type)
{
    static const char *const names[ncclNumTypes] = {
        "int8",    "uint8",   "int32",   "uint32",   "int64",      "uint64",
        "float16", "float32", "float64", "bfloat16", "float8e4m3", "float8e5m2"};
    return (unsigned)type < ncclNumTypes ? names[type] : "unknown";
}

const char *part_name(PartKind kind)
{
    static const char *const names[] = {
        "ncclSend",      "ncclRecv",          "ncclAllReduce", "ncclReduce", "ncclBroadcast",
        "ncclAllGather", "ncclReduceScatter", "ncclAlltoAll",  "ncclGather", "ncclScatter"};
    return names[kind];
}

bool part_has_root(PartKind kind)
{
    return kind == PART_REDUCE || kind == PART_BROADCAST || kind == PART_GATHER ||
           kind == PART_SCATTER;
}

bool part_reduces(PartKind kind)
{
    return kind == PART_ALL_REDUCE || kind == PART_REDUCE || kind == PART_REDUCE_SCATTER;
}

bool part_is_message(const Part *part)
{
    return part->kind == PART_SEND || part->kind == PART_RECEIVE;
}

size_t part_sent(const Part *p)
{
    bool root = p->comm->rank == p->peer;
    size_t n = (size_t)p->comm->clique->nranks;
    switch (p->kind) {
    case PART_RECEIVE:
        return 0;
    case PART_BROADCAST:
        return root ? p->count : 0;
    case PART_SCATTER:
        return root ? n * p->count : 0;
    case PART_REDUCE_SCATTER:
    case PART_ALL_TO_ALL:
        return n * p->count;
    default:
        return p->count;
    }
}

size_t part_received(const Part *p)
{
    bool root = p->comm->rank == p->peer;
    size_t n = (size_t)p->comm->clique->nranks;
    switch (p->kind) {
    case PART_SEND:
        return 0;
    case PART_BROADCAST: /* in place, the root writes nothing */
        return root && p->send == p->receive ? 0 : p->count;
    case PART_REDUCE:
        return root ? p->count : 0;
    case PART_GATHER:
        return root ? n * p->count : 0;
    case PART_ALL_GATHER:
    case PART_ALL_TO_ALL:
        return n * p->count;
    default:
        return p->count;
    }
}

char *part_describe(const Part *p, char *out, size_t size)
{
    int at = snprintf(out, size, "%s %zu %s, rank %d", part_name(p->kind), p->count,
                      nccl_type_name(p->type), p->comm->rank);
    size_t n = at < 0 ? 0 : (size_t)at < size ? (size_t)at : size - 1;
    const char *relation = p->kind == PART_SEND      ? " to"
                           : p->kind == PART_RECEIVE ? " from"
                                                     : ", root";
    if (part_is_message(p) || part_has_root(p->kind))
        n += (size_t)snprintf(out + n, size - n, "%s %d", relation, p->peer);
    if (n < size)
        snprintf(out + n, size - n, " (communicator %u)", p->comm->clique->number);
    return out;
}

/* ---------------------------------------------------------------------- operations */

/* Where a call may work in place, its receive buffer is here; 0: nowhere. */
static uint64_t in_place(const Part *p)
{
    uint64_t block = (uint64_t)p->comm->rank * p->count * nccl_size_of(p->type);
    switch (p->kind) {
    case PART_ALL_REDUCE:
    case PART_REDUCE:
    case PART_BROADCAST:
        return p->send;
    case PART_ALL_GATHER:
    case PART_GATHER:
        return p->send - block;
    case PART_REDUCE_SCATTER:
    case PART_SCATTER:
        return p->send + block;
    default:
        return 0;
    }
}

static void in_place_check(const Part *p)
{
    uint64_t wide = nccl_size_of(p->type), sent = part_sent(p) * wide;
    uint64_t received = part_received(p) * wide;
    char text[160];
    bool apart = p->send + sent <= p->receive || p->receive + received <= p->send;
    if (sent == 0 || received == 0 || apart || p->receive == in_place(p))
        return;
    sim_report(SIM_MISUSE, "%s: the buffers overlap, and not as its in-place form wants",
               part_describe(p, text, sizeof text));
}

static ncclResult_t stream_check(const Part *p, const char *call)
{
    char text[96];
    int current = sim_current_device();
    if (!p->stream && current != p->comm->device)
        cudaSetDevice(p->comm->device); /* whose NULL stream is meant */
    const SimStream *stream = sim_stream_of(p->stream, call);
    if (sim_current_device() != current)
        cudaSetDevice(current);
    if (!stream)
        return nccl_fail(ncclInvalidArgument, "%s: no stream", call);
    if (sim_stream_device(stream) == p->comm->device)
        return ncclSuccess;
    sim_report(SIM_WRONG_DEVICE, "%s: rank %d of communicator %u is on gpu %d, its stream is %s",
               call, p->comm->rank, p->comm->clique->number, p->comm->device,
               sim_stream_describe(stream, text, sizeof text));
    return nccl_fail(ncclUnhandledCudaError, "%s: a stream of another gpu", call);
}

static ncclResult_t part_check(const Part *p, const char *call)
{
    bool peer = part_is_message(p) || part_has_root(p->kind);
    if (peer && (p->peer < 0 || p->peer >= p->comm->clique->nranks))
        return nccl_fail(ncclInvalidArgument, "%s: rank %d of %d", call, p->peer,
                         p->comm->clique->nranks);
    if (nccl_size_of(p->type) == 0)
        return nccl_fail(ncclInvalidArgument, "%s: type %d", call, (int)p->type);
    if (p->count > (size_t)1 << 48)
        return nccl_fail(ncclInvalidArgument, "%s: a count of %zu", call, p->count);
    if ((!p->send && part_sent(p) > 0) || (!p->receive && part_received(p) > 0))
        return nccl_fail(ncclInvalidArgument, "%s: a buffer is NULL", call);
    if (part_reduces(p->kind) && (unsigned)p->op >= ncclNumOps)
        return nccl_fail(ncclInvalidArgument, "%s: reduction %d", call, (int)p->op);
    if (part_reduces(p->kind) && (p->type == ncclFloat8e4m3 || p->type == ncclFloat8e5m2)) {
        sim_report(SIM_UNKNOWN, "%s: reductions of %s are not simulated", call,
                   nccl_type_name(p->type));
        return nccl_fail(ncclInvalidArgument, "%s: not simulated", call);
    }
    if (p->send % nccl_size_of(p->type) || p->receive % nccl_size_of(p->type)) {
        sim_report(SIM_MISALIGNED, "%s: a buffer is not a multiple of the %zu bytes of a %s", call,
                   nccl_size_of(p->type), nccl_type_name(p->type));
        return nccl_fail(ncclInvalidArgument, "%s: misaligned", call);
    }
    in_place_check(p);
    return stream_check(p, call);
}

static ncclResult_t operation(Part p, const char *call)
{
    ncclResult_t result;
    p.caller = sim_caller();
    if (!comm_of(p.comm, call, &result))
        return group_refuse(result);
    if (p.comm->finalized) {
        sim_report(SIM_MISUSE, "%s: rank %d of communicator %u was finalized", call, p.comm->rank,
                   p.comm->clique->number);
        return group_refuse(nccl_fail(ncclInvalidUsage, "%s: finalized", call));
    }
    if ((result = part_check(&p, call)) != ncclSuccess)
        return group_refuse(result);
    group_start();
    result = group_refuse(group_add(&p));
    ncclResult_t ended = group_end(call);
    return result != ncclSuccess ? result : ended;
}

#define FROM .send = (uint64_t)(uintptr_t)sendbuff
#define TO .receive = (uint64_t)(uintptr_t)recvbuff
#define REST .count = count, .type = datatype, .comm = comm, .stream = stream
#define OPERATION(part, ...)                                                                       \
    NCCL_CALL(SIM_CALL_WORK, operation((Part){.kind = part, __VA_ARGS__, REST}, __func__))

ncclResult_t ncclSend(const void *sendbuff, size_t count, ncclDataType_t datatype, int peer,
                      ncclComm_t comm, cudaStream_t stream)
{
    OPERATION(PART_SEND, FROM, .peer = peer);
}
ALSO_P(ncclSend);

ncclResult_t ncclRecv(void *recvbuff, size_t count, ncclDataType_t datatype, int peer,
                      ncclComm_t comm, cudaStream_t stream)
{
    OPERATION(PART_RECEIVE, TO, .peer = peer);
}
ALSO_P(ncclRecv);

ncclResult_t ncclAllReduce(const void *sendbuff, void *recvbuff, size_t count,
                           ncclDataType_t datatype, ncclRedOp_t op, ncclComm_t comm,
                           cudaStream_t stream)
{
    OPERATION(PART_ALL_REDUCE, FROM, TO, .op = op);
}
ALSO_P(ncclAllReduce);

ncclResult_t ncclReduce(const void *sendbuff, void *recvbuff, size_t count, ncclDataType_t datatype,
                        ncclRedOp_t op, int root, ncclComm_t comm, cudaStream_t stream)
{
    OPERATION(PART_REDUCE, FROM, TO, .op = op, .peer = root);
}
ALSO_P(ncclReduce);

ncclResult_t ncclBroadcast(const void *sendbuff, void *recvbuff, size_t count,
                           ncclDataType_t datatype, int root, ncclComm_t comm, cudaStream_t stream)
{
    OPERATION(PART_BROADCAST, FROM, TO, .peer = root);
}
ALSO_P(ncclBroadcast);

ncclResult_t ncclBcast(void *buff, size_t count, ncclDataType_t datatype, int root, ncclComm_t comm,
                       cudaStream_t stream)
{
    const void *sendbuff = buff;
    void *recvbuff = buff;
    OPERATION(PART_BROADCAST, FROM, TO, .peer = root);
}
ALSO_P(ncclBcast);

ncclResult_t ncclAllGather(const void *sendbuff, void *recvbuff, size_t count,
                           ncclDataType_t datatype, ncclComm_t comm, cudaStream_t stream)
{
    OPERATION(PART_ALL_GATHER, FROM, TO);
}
ALSO_P(ncclAllGather);

ncclResult_t ncclReduceScatter(const void *sendbuff, void *recvbuff, size_t count,
                               ncclDataType_t datatype, ncclRedOp_t op, ncclComm_t comm,
                               cudaStream_t stream)
{
    OPERATION(PART_REDUCE_SCATTER, FROM, TO, .op = op);
}
ALSO_P(ncclReduceScatter);

ncclResult_t ncclAlltoAll(const void *sendbuff, void *recvbuff, size_t count,
                          ncclDataType_t datatype, ncclComm_t comm, cudaStream_t stream)
{
    OPERATION(PART_ALL_TO_ALL, FROM, TO);
}
ALSO_P(ncclAlltoAll);

ncclResult_t ncclGather(const void *sendbuff, void *recvbuff, size_t count, ncclDataType_t datatype,
                        int root, ncclComm_t comm, cudaStream_t stream)
{
    OPERATION(PART_GATHER, FROM, TO, .peer = root);
}
ALSO_P(ncclGather);

ncclResult_t ncclScatter(const void *sendbuff, void *recvbuff, size_t count,
                         ncclDataType_t datatype, int root, ncclComm_t comm, cudaStream_t stream)
{
    OPERATION(PART_SCATTER, FROM, TO, .peer = root);
}
ALSO_P(ncclScatter);

/* -------------------------------------------------------------------------- groups */

static ncclResult_t begin_group(void)
{
    group_start();
    return ncclSuccess;
}

ncclResult_t ncclGroupStart(void)
{
    NCCL_CALL(SIM_CALL_WORK, begin_group());
}
ALSO_P(ncclGroupStart);

ncclResult_t ncclGroupEnd(void)
{
    NCCL_CALL(SIM_CALL_WORK, group_end(__func__));
}
ALSO_P(ncclGroupEnd);
