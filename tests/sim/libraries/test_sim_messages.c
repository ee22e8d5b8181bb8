/* test_sim_messages.c - NCCL: messages and collective calls bring the right data, from one
 * thread and from one per rank, in groups, on several streams, and in captured graphs. */
#include <pthread.h>

#include "library_test.h"

#include <nccl.h>

enum { RANKS = 4, COUNT = 300 };

typedef struct {
    int rank;
    ncclComm_t comm;
    cudaStream_t stream, other;
    float *send, *receive; /* RANKS * COUNT each */
    cudaEvent_t event;
} Rank;

/* What rank r sends at element i. */
static float sent(int r, int i)
{
    return (float)(r * 1000 + i);
}

static void rank_begin(Rank *r)
{
    float data[RANKS * COUNT];
    FINE(cudaSetDevice(r->rank));
    r->stream = new_stream();
    r->other = new_stream();
    FINE(cudaEventCreateWithFlags(&r->event, cudaEventDisableTiming));
    for (int i = 0; i < RANKS * COUNT; i++)
        data[i] = sent(r->rank, i);
    r->send = device_copy(data, sizeof data);
    memset(data, 0, sizeof data);
    r->receive = device_copy(data, sizeof data);
}

static void rank_end(Rank *r)
{
    FINE(cudaSetDevice(r->rank));
    FINE(cudaStreamSynchronize(r->stream));
    FINE(cudaStreamSynchronize(r->other));
    FINE(cudaEventDestroy(r->event));
    FINE(cudaStreamDestroy(r->stream));
    FINE(cudaStreamDestroy(r->other));
    FINE(cudaFree(r->send));
    FINE(cudaFree(r->receive));
}

static void received(const Rank *r, float *data)
{
    FINE(cudaStreamSynchronize(r->stream));
    FINE(cudaStreamSynchronize(r->other));
    host_copy(data, r->receive, RANKS * COUNT * sizeof *data);
}

static void order(const Rank *r, cudaStream_t before, cudaStream_t after)
{
    FINE(cudaEventRecord(r->event, before));
    FINE(cudaStreamWaitEvent(after, r->event, 0));
}

/* ------------------------------------------------------------------ a thread per rank */

static ncclUniqueId id;
static void (*work_of_rank)(Rank *);

static void *rank_thread(void *data)
{
    Rank r = {.rank = *(int *)data};
    FINE(cudaSetDevice(r.rank));
    FINE(ncclCommInitRank(&r.comm, RANKS, id, r.rank));
    rank_begin(&r);
    work_of_rank(&r);
    rank_end(&r);
    FINE(ncclCommDestroy(r.comm));
    return NULL;
}

static void in_threads(void (*work)(Rank *))
{
    pthread_t threads[RANKS];
    int ranks[RANKS];
    work_of_rank = work;
    FINE(ncclGetUniqueId(&id));
    for (int i = 0; i < RANKS; i++) {
        ranks[i] = i;
        FINE(pthread_create(&threads[i], NULL, rank_thread, &ranks[i]));
    }
    for (int i = 0; i < RANKS; i++)
        FINE(pthread_join(threads[i], NULL));
}

static void ring(Rank *r)
{
    int next = (r->rank + 1) % RANKS, before = (r->rank + RANKS - 1) % RANKS;
    float got[RANKS * COUNT];
    for (int round = 1; round < 4; round++) {
        FINE(ncclGroupStart());
        FINE(ncclSend(r->send, (size_t)(COUNT * round), ncclFloat, next, r->comm, r->stream));
        FINE(ncclRecv(r->receive, (size_t)(COUNT * round), ncclFloat, before, r->comm, r->stream));
        FINE(ncclGroupEnd());
    }
    received(r, got);
    for (int i = 0; i < RANKS * COUNT; i++)
        assert_true(got[i] == (i < 3 * COUNT ? sent(before, i) : 0));
}

static void test_ring(void **state)
{
    (void)state;
    in_threads(ring);
}

/* Down a line of stages and back, without groups, two messages on their way at a time. */
static void pipeline(Rank *r)
{
    float got[RANKS * COUNT];
    int up = r->rank + 1, down = r->rank - 1;
    for (int m = 0; m < 6; m++) {
        float *part = r->receive + m % 2 * COUNT;
        if (down >= 0)
            FINE(ncclRecv(part, COUNT, ncclFloat, down, r->comm, r->stream));
        if (up < RANKS)
            FINE(ncclSend(down >= 0 ? part : r->send, COUNT, ncclFloat, up, r->comm, r->stream));
        if (up < RANKS)
            FINE(ncclRecv(r->receive + 2 * COUNT, COUNT, ncclFloat, up, r->comm, r->stream));
        if (down >= 0)
            FINE(ncclSend(up < RANKS ? r->receive + 2 * COUNT : r->send, COUNT, ncclFloat, down,
                          r->comm, r->stream));
    }
    received(r, got);
    for (int i = 0; i < COUNT; i++) {
        assert_true(got[i] == (down >= 0 ? sent(0, i) : 0));
        assert_true(got[2 * COUNT + i] == (up < RANKS ? sent(RANKS - 1, i) : 0));
    }
}

static void test_pipeline(void **state)
{
    (void)state;
    in_threads(pipeline);
}

/* Every rank to every other, itself too, parts in a shuffled order, over two streams. */
static void exchange(Rank *r)
{
    float got[RANKS * COUNT];
    /* the group comes after the work of either stream */
    FINE(cudaMemsetAsync(r->receive, 1, RANKS * COUNT * sizeof(float), r->other));
    FINE(ncclGroupStart());
    for (int i = 0; i < RANKS; i++) {
        int to = (r->rank * 3 + i) % RANKS, from = (i * 3 + 1) % RANKS;
        FINE(ncclRecv(r->receive + from * COUNT, COUNT, ncclFloat, from, r->comm, r->stream));
        FINE(ncclSend(r->send + to * COUNT, COUNT, ncclFloat, to, r->comm,
                      i % 2 ? r->stream : r->other));
    }
    FINE(ncclGroupEnd());
    /* after the group in either of its streams: all of it is done */
    FINE(cudaMemsetAsync(r->send, 0, RANKS * COUNT * sizeof(float), r->other));
    received(r, got);
    for (int i = 0; i < RANKS * COUNT; i++)
        assert_true(got[i] == sent(i / COUNT, r->rank * COUNT + i % COUNT));
}

static void test_exchange(void **state)
{
    (void)state;
    in_threads(exchange);
}

/* Messages on a stream of their own, work on another, ordered by events. */
static void transfers(Rank *r)
{
    float got[RANKS * COUNT];
    bool sends = r->rank % 2 == 0;
    int peer = r->rank ^ 1;
    for (int m = 0; m < 5; m++) {
        if (sends) {
            FINE(cudaMemsetAsync(r->send, m, COUNT * sizeof(float), r->other));
            order(r, r->other, r->stream);
            FINE(ncclSend(r->send, COUNT, ncclFloat, peer, r->comm, r->stream));
            order(r, r->stream, r->other);
        } else {
            FINE(ncclRecv(r->receive, COUNT, ncclFloat, peer, r->comm, r->stream));
            order(r, r->stream, r->other);
            FINE(cudaMemcpyAsync(r->receive + (m % 3 + 1) * COUNT, r->receive,
                                 COUNT * sizeof(float), cudaMemcpyDeviceToDevice, r->other));
            order(r, r->other, r->stream);
        }
    }
    received(r, got);
    const unsigned char *bytes = (const unsigned char *)(got + 2 * COUNT);
    for (size_t i = 0; i < COUNT * sizeof(float); i++)
        assert_int_equal(bytes[i], sends ? 0 : 4);
}

static void test_transfers(void **state)
{
    (void)state;
    in_threads(transfers);
}

/* A buffer is used again once its receiver has said that it has the data. */
static void acknowledged(Rank *r)
{
    float got[RANKS * COUNT];
    int peer = r->rank ^ 1;
    if (r->rank % 2 == 0) {
        FINE(ncclSend(r->send, COUNT, ncclFloat, peer, r->comm, r->stream));
        FINE(ncclRecv(r->receive, 1, ncclFloat, peer, r->comm, r->other));
        FINE(cudaMemsetAsync(r->send, 0, COUNT * sizeof(float), r->other));
    } else {
        FINE(ncclRecv(r->receive, COUNT, ncclFloat, peer, r->comm, r->stream));
        FINE(ncclSend(r->send, 1, ncclFloat, peer, r->comm, r->stream));
    }
    received(r, got);
    for (int i = 0; i < COUNT; i++)
        assert_true(got[i] == (r->rank % 2 || i == 0 ? sent(peer, i) : 0));
}

static void test_acknowledged(void **state)
{
    (void)state;
    in_threads(acknowledged);
}

/* ---------------------------------------------------------- all ranks in one thread */

static Rank ranks[RANKS];

static int begin_all(void **state)
{
    ncclComm_t comms[RANKS];
    (void)state;
    FINE(ncclCommInitAll(comms, RANKS, NULL));
    for (int i = 0; i < RANKS; i++) {
        ranks[i] = (Rank){.rank = i, .comm = comms[i]};
        rank_begin(&ranks[i]);
    }
    return 0;
}

static int end_all(void **state)
{
    (void)state;
    for (int i = 0; i < RANKS; i++)
        rank_end(&ranks[i]);
    for (int i = 0; i < RANKS; i++)
        FINE(ncclCommDestroy(ranks[i].comm));
    return 0;
}

typedef enum {
    ALL_REDUCE,
    REDUCE,
    BROADCAST,
    ALL_GATHER,
    REDUCE_SCATTER,
    ALL_TO_ALL,
    GATHER,
    SCATTER,
    KINDS
} Kind;

static ncclResult_t call(Kind kind, Rank *r, int root, size_t n)
{
    const float *from = r->send;
    float *to = r->receive;
    switch (kind) {
    case ALL_REDUCE:
        return ncclAllReduce(from, to, n, ncclFloat, ncclSum, r->comm, r->stream);
    case REDUCE:
        return ncclReduce(from, r->rank == root ? to : NULL, n, ncclFloat, ncclMax, root, r->comm,
                          r->stream);
    case BROADCAST:
        return ncclBroadcast(from, to, n, ncclFloat, root, r->comm, r->stream);
    case ALL_GATHER:
        return ncclAllGather(from, to, n, ncclFloat, r->comm, r->stream);
    case REDUCE_SCATTER:
        return ncclReduceScatter(from, to, n, ncclFloat, ncclAvg, r->comm, r->stream);
    case ALL_TO_ALL:
        return ncclAlltoAll(from, to, n, ncclFloat, r->comm, r->stream);
    case GATHER:
        return ncclGather(from, to, n, ncclFloat, root, r->comm, r->stream);
    default:
        return ncclScatter(from, to, n, ncclFloat, root, r->comm, r->stream);
    }
}

/* Element i of what rank r must have got; 0 where nothing comes. */
static float wanted(Kind kind, int r, int root, int i)
{
    float sum = 0;
    int block = i / COUNT, offset = i % COUNT;
    for (int q = 0; q < RANKS; q++)
        sum += sent(q, kind == REDUCE_SCATTER ? r * COUNT + i : i);
    switch (kind) {
    case ALL_REDUCE:
        return block == 0 ? sum : 0;
    case REDUCE:
        return block == 0 && r == root ? sent(RANKS - 1, i) : 0;
    case BROADCAST:
        return block == 0 ? sent(root, i) : 0;
    case ALL_GATHER:
        return sent(block, offset);
    case REDUCE_SCATTER:
        return block == 0 ? sum / RANKS : 0;
    case ALL_TO_ALL:
        return sent(block, r * COUNT + offset);
    case GATHER:
        return r == root ? sent(block, offset) : 0;
    default:
        return block == 0 ? sent(root, r * COUNT + i) : 0;
    }
}

static void test_collective_calls(void **state)
{
    float got[RANKS * COUNT];
    (void)state;
    for (int kind = 0; kind < KINDS; kind++)
        for (int root = 0; root < RANKS; root += 3) {
            for (int i = 0; i < RANKS; i++)
                FINE(cudaMemsetAsync(ranks[i].receive, 0, sizeof got, ranks[i].stream));
            FINE(ncclGroupStart());
            for (int i = 0; i < RANKS; i++)
                FINE(call((Kind)kind, &ranks[i], root, COUNT));
            FINE(ncclGroupEnd());
            for (int r = 0; r < RANKS; r++) {
                received(&ranks[r], got);
                for (int i = 0; i < RANKS * COUNT; i++)
                    if (got[i] != wanted((Kind)kind, r, root, i))
                        fail_msg("call %d, root %d, rank %d, element %d: %g, not %g", kind, root, r,
                                 i, (double)got[i], (double)wanted((Kind)kind, r, root, i));
            }
        }
}

/* What a rank did before a collective call happens before what others do after it. */
static void test_collective_orders(void **state)
{
    float got[RANKS * COUNT];
    (void)state;
    for (int i = 0; i < RANKS; i++) {
        Rank *r = &ranks[i];
        FINE(cudaSetDevice(i));
        FINE(cudaMemsetAsync(r->receive, i, COUNT * sizeof(float), r->stream));
        FINE(ncclAllReduce(r->send, r->send, 1, ncclFloat, ncclSum, r->comm, r->stream));
        FINE(ncclAllGather(r->send, r->send + COUNT, 1, ncclFloat, r->comm, r->stream));
    }
    for (int i = 0; i < RANKS; i++) {
        Rank *r = &ranks[i], *next = &ranks[(i + 1) % RANKS];
        FINE(cudaSetDevice(i));
        FINE(cudaMemcpyPeerAsync(r->receive + COUNT, i, next->receive, next->rank,
                                 COUNT * sizeof(float), r->stream));
    }
    for (int i = 0; i < RANKS; i++) {
        const unsigned char *bytes = (const unsigned char *)(got + COUNT);
        received(&ranks[i], got);
        for (size_t b = 0; b < COUNT * sizeof(float); b++)
            assert_int_equal(bytes[b], (i + 1) % RANKS);
    }
}

/* In place: each kind's own rule where the result goes. */
static void test_in_place(void **state)
{
    float got[RANKS * COUNT];
    (void)state;
    FINE(ncclGroupStart());
    for (int i = 0; i < RANKS; i++) {
        Rank *r = &ranks[i];
        FINE(ncclAllReduce(r->send, r->send, COUNT, ncclFloat, ncclSum, r->comm, r->stream));
    }
    FINE(ncclGroupEnd());
    FINE(ncclGroupStart());
    for (int i = 0; i < RANKS; i++) {
        Rank *r = &ranks[i];
        FINE(ncclReduceScatter(r->send, r->send + i * COUNT, COUNT, ncclFloat, ncclSum, r->comm,
                               r->stream));
    }
    FINE(ncclGroupEnd());
    FINE(ncclGroupStart());
    for (int i = 0; i < RANKS; i++) {
        Rank *r = &ranks[i];
        FINE(ncclAllGather(r->send + i * COUNT, r->send, COUNT, ncclFloat, r->comm, r->stream));
        FINE(ncclBcast(r->receive, COUNT, ncclFloat, 2, r->comm, r->stream));
    }
    FINE(ncclGroupEnd());
    for (int i = 0; i < RANKS; i++) {
        FINE(cudaStreamSynchronize(ranks[i].stream));
        host_copy(got, ranks[i].send, sizeof got);
        for (int e = 0; e < RANKS * COUNT; e++) {
            float sum = 0;
            for (int q = 0; q < RANKS; q++)
                sum += sent(q, e);
            assert_true(got[e] == (e < COUNT ? RANKS * sum : sum));
        }
    }
}

/* A step that was captured on every rank and is launched again and again. */
static void test_captured(void **state)
{
    cudaGraph_t graph[RANKS];
    cudaGraphExec_t executable[RANKS];
    float got[RANKS * COUNT];
    (void)state;
    for (int i = 0; i < RANKS; i++) {
        Rank *r = &ranks[i];
        FINE(cudaSetDevice(i));
        FINE(cudaStreamBeginCapture(r->stream, cudaStreamCaptureModeThreadLocal));
        FINE(ncclAllReduce(r->send, r->send, COUNT, ncclFloat, ncclSum, r->comm, r->stream));
        FINE(ncclGroupStart());
        FINE(ncclSend(r->send, COUNT, ncclFloat, (i + 1) % RANKS, r->comm, r->stream));
        FINE(ncclRecv(r->receive, COUNT, ncclFloat, (i + RANKS - 1) % RANKS, r->comm, r->stream));
        FINE(ncclGroupEnd());
        FINE(cudaStreamEndCapture(r->stream, &graph[i]));
        FINE(cudaGraphInstantiate(&executable[i], graph[i], 0));
    }
    for (int step = 0; step < 3; step++)
        for (int i = 0; i < RANKS; i++)
            FINE(cudaGraphLaunch(executable[i], ranks[i].stream));
    for (int i = 0; i < RANKS; i++) {
        received(&ranks[i], got);
        for (int e = 0; e < COUNT; e++) {
            float sum = 0;
            for (int q = 0; q < RANKS; q++)
                sum += sent(q, e);
            assert_true(got[e] == RANKS * RANKS * sum);
        }
    }
    for (int i = 0; i < RANKS; i++) {
        FINE(cudaGraphExecDestroy(executable[i]));
        FINE(cudaGraphDestroy(graph[i]));
    }
}

/* Launches of one communicator run in the order of their calls, whatever their streams. */
static void test_streams_in_order(void **state)
{
    float got[RANKS * COUNT];
    (void)state;
    for (int i = 0; i < 2; i++) {
        Rank *r = &ranks[i];
        const float *from = r->send;
        float *to = r->receive;
        for (int m = 0; m < 4; m++) {
            cudaStream_t stream = (m + i) % 2 ? r->stream : r->other;
            if (i == 0)
                FINE(ncclSend(from + m * COUNT, COUNT, ncclFloat, 1, r->comm, stream));
            else
                FINE(ncclRecv(to + m * COUNT, COUNT, ncclFloat, 0, r->comm, stream));
        }
    }
    received(&ranks[1], got);
    for (int i = 0; i < RANKS * COUNT; i++)
        assert_true(got[i] == sent(0, i));
}

static void refused(ncclResult_t got, ncclResult_t want)
{
    assert_int_equal((int)got, (int)want);
    assert_non_null(ncclGetErrorString(got)); /* looked at */
}

static void test_codes(void **state)
{
    Rank *r = &ranks[1];
    int answer = 0, twice[2] = {1, 1};
    ncclComm_t comms[2], comm;
    ncclResult_t asynchronous = ncclInternalError;
    (void)state;
    FINE(ncclGetVersion(&answer));
    assert_int_equal(answer, NCCL_VERSION_CODE);
    FINE(ncclCommCount(r->comm, &answer));
    assert_int_equal(answer, RANKS);
    FINE(ncclCommUserRank(r->comm, &answer));
    assert_int_equal(answer, 1);
    FINE(ncclCommCuDevice(r->comm, &answer));
    assert_int_equal(answer, 1);
    FINE(ncclCommGetAsyncError(r->comm, &asynchronous));
    assert_int_equal((int)asynchronous, (int)ncclSuccess);
    refused(ncclSend(r->send, 1, ncclFloat, RANKS, r->comm, r->stream), ncclInvalidArgument);
    refused(ncclSend(r->send, 1, (ncclDataType_t)99, 0, r->comm, r->stream), ncclInvalidArgument);
    refused(ncclSend(NULL, 1, ncclFloat, 0, r->comm, r->stream), ncclInvalidArgument);
    refused(ncclSend(r->send, 1, ncclFloat, 0, NULL, r->stream), ncclInvalidArgument);
    refused(ncclAllReduce(r->send, r->receive, 1, ncclFloat, (ncclRedOp_t)77, r->comm, r->stream),
            ncclInvalidArgument);
    assert_non_null(strstr(ncclGetLastError(NULL), "ncclAllReduce"));
    refused(ncclGroupEnd(), ncclInvalidUsage);
    refused(ncclCommInitAll(comms, 2, twice), ncclInvalidUsage);
    refused(ncclCommInitRank(&comm, 2, (ncclUniqueId){{0}}, 0), ncclInvalidArgument);
    FINE(ncclGetUniqueId(&id));
    refused(ncclCommInitRank(&comm, 2, id, 2), ncclInvalidArgument);
    /* a call that fails makes its group fail */
    FINE(ncclGroupStart());
    refused(ncclRecv(r->receive, 1, ncclFloat, -1, r->comm, r->stream), ncclInvalidArgument);
    refused(ncclGroupEnd(), ncclInvalidArgument);
}

/* One thread joins for several devices in a group; two ranks on one device are refused. */
static void test_joining_in_group(void **state)
{
    ncclComm_t comms[2] = {NULL, NULL};
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER, empty = {0};
    (void)state;
    FINE(ncclGetUniqueId(&id));
    FINE(ncclGroupStart());
    for (int i = 0; i < 2; i++) {
        FINE(cudaSetDevice(3 - i));
        FINE(ncclCommInitRankConfig(&comms[i], 2, id, i, &config));
    }
    FINE(ncclGroupEnd());
    for (int i = 0; i < 2; i++) {
        int device = -1;
        FINE(ncclCommCuDevice(comms[i], &device));
        assert_int_equal(device, 3 - i);
        FINE(ncclCommFinalize(comms[i]));
        FINE(ncclCommDestroy(comms[i]));
    }
    FINE(ncclGetUniqueId(&id));
    refused(ncclCommInitRankConfig(&comms[0], 1, id, 0, &empty), ncclInvalidArgument);
    FINE(ncclGroupStart());
    for (int i = 0; i < 2; i++)
        FINE(ncclCommInitRank(&comms[i], 2, id, i));
    refused(ncclGroupEnd(), ncclInvalidUsage);
    /* alone */
    FINE(ncclGetUniqueId(&id));
    FINE(ncclCommInitRank(&comms[0], 1, id, 0));
    FINE(ncclCommDestroy(comms[0]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ring),
        cmocka_unit_test(test_pipeline),
        cmocka_unit_test(test_exchange),
        cmocka_unit_test(test_transfers),
        cmocka_unit_test(test_acknowledged),
        cmocka_unit_test_setup_teardown(test_collective_calls, begin_all, end_all),
        cmocka_unit_test_setup_teardown(test_collective_orders, begin_all, end_all),
        cmocka_unit_test_setup_teardown(test_in_place, begin_all, end_all),
        cmocka_unit_test_setup_teardown(test_captured, begin_all, end_all),
        cmocka_unit_test_setup_teardown(test_streams_in_order, begin_all, end_all),
        cmocka_unit_test_setup_teardown(test_codes, begin_all, end_all),
        cmocka_unit_test(test_joining_in_group)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
