/* messages.cu - NCCL between two ranks, each with a host thread and a device of its own. */
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

#include <nccl.h>

#include "bug.h"

__global__ void produce(float *out, float start)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    out[i] = i + start; /* here: produce */
}

__global__ void consume(float *out, const float *in)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    out[i] = 2 * in[i]; /* here: consume */
}

/* What a rank has: two streams, two arrays of zeros, an event. */
struct Rank {
    int rank, peer;
    ncclComm_t comm;
    cudaStream_t compute, transfer;
    cudaEvent_t event;
    float *a, *b;

    Rank(int number, ncclComm_t communicator) : rank(number), peer(1 - number), comm(communicator)
    {
        CHECK(cudaSetDevice(rank));
        compute = new_stream();
        transfer = new_stream();
        event = new_event();
        a = device_zeros<float>(N);
        b = device_zeros<float>(N);
    }
    ~Rank()
    {
        CHECK(cudaFree(b));
        CHECK(cudaFree(a));
        CHECK(cudaEventDestroy(event));
        CHECK(cudaStreamDestroy(transfer));
        CHECK(cudaStreamDestroy(compute));
    }
    void order(cudaStream_t before, cudaStream_t after)
    {
        CHECK(cudaEventRecord(event, before));
        CHECK(cudaStreamWaitEvent(after, event, 0));
    }
    void finish()
    {
        CHECK(cudaStreamSynchronize(compute));
        CHECK(cudaStreamSynchronize(transfer));
    }
};

/* Runs `work` in two threads, as rank 0 and as rank 1. */
static void on_two_ranks(const std::function<void(Rank &)> &work)
{
    int devices[2] = {0, 1};
    ncclComm_t comms[2];
    CHECK(ncclCommInitAll(comms, 2, devices));
    auto run = [&](int number) {
        Rank rank(number, comms[number]);
        work(rank);
    };
    std::thread other(run, 1);
    run(0);
    other.join();
    for (ncclComm_t comm : comms)
        CHECK(ncclCommDestroy(comm));
}

/* For threads that must call in a certain order. */
struct Signal {
    std::mutex lock;
    std::condition_variable told;
    bool given = false;

    void give()
    {
        {
            std::lock_guard<std::mutex> held(lock);
            given = true;
        }
        told.notify_all();
    }
    void await()
    {
        std::unique_lock<std::mutex> held(lock);
        told.wait(held, [&] { return given; });
    }
};

// case: send_too_early - a send does not wait for what it sends
// expect: race  ncclSend  kernel produce  here:produce  gpu 0
CASE(send_too_early)
{
    on_two_ranks([](Rank &r) {
        if (r.rank == 0) {
            produce<<<BLOCKS, THREADS, 0, r.compute>>>(r.a, 1);
            CHECK(cudaGetLastError());
            if (!BUG)
                r.order(r.compute, r.transfer);
            CHECK(ncclSend(r.a, N, ncclFloat, 1, r.comm, r.transfer));
        } else {
            CHECK(ncclRecv(r.a, N, ncclFloat, 0, r.comm, r.transfer));
        }
        r.finish();
        expect_line(r.a, N, 1, 1);
    });
}

// case: send_overwritten - a buffer is overwritten while its send is pending
// expect: race  ncclSend  kernel produce  here:produce  gpu 0
CASE(send_overwritten)
{
    on_two_ranks([](Rank &r) {
        if (r.rank == 0) {
            CHECK(ncclSend(r.a, N, ncclFloat, 1, r.comm, r.transfer));
            if (!BUG)
                r.order(r.transfer, r.compute);
            produce<<<BLOCKS, THREADS, 0, r.compute>>>(r.a, 1);
            CHECK(cudaGetLastError());
        } else {
            CHECK(ncclRecv(r.b, N, ncclFloat, 0, r.comm, r.transfer));
        }
        r.finish();
        expect_line(r.a, N, r.rank == 0, r.rank == 0);
        expect_line(r.b, N, 0, 0);
    });
}

// case: receive_not_awaited - a kernel reads before the message has arrived
// expect: race  ncclRecv  kernel consume  here:consume  gpu 1
CASE(receive_not_awaited)
{
    on_two_ranks([](Rank &r) {
        if (r.rank == 0) {
            produce<<<BLOCKS, THREADS, 0, r.transfer>>>(r.b, 1);
            CHECK(ncclSend(r.b, N, ncclFloat, 1, r.comm, r.transfer));
        } else {
            CHECK(ncclRecv(r.a, N, ncclFloat, 0, r.comm, r.transfer));
            if (!BUG)
                r.order(r.transfer, r.compute);
            consume<<<BLOCKS, THREADS, 0, r.compute>>>(r.b, r.a);
        }
        CHECK(cudaGetLastError());
        r.finish();
        expect_line(r.b, N, r.rank == 0 ? 1 : 2, r.rank == 0 ? 1 : 2);
    });
}

// case: receive_too_early - a message overwrites what a kernel still reads
// expect: race  ncclRecv  kernel consume  here:consume  gpu 1
CASE(receive_too_early)
{
    on_two_ranks([](Rank &r) {
        if (r.rank == 0) {
            CHECK(ncclSend(r.a, N, ncclFloat, 1, r.comm, r.transfer));
        } else {
            consume<<<BLOCKS, THREADS, 0, r.compute>>>(r.b, r.a);
            CHECK(cudaGetLastError());
            if (!BUG)
                r.order(r.compute, r.transfer);
            CHECK(ncclRecv(r.a, N, ncclFloat, 0, r.comm, r.transfer));
        }
        r.finish();
        expect_line(r.b, N, 0, 0);
    });
}

// case: reduction_not_awaited - a kernel reads an ncclAllReduce's result too early
// expect: race  ncclAllReduce  kernel consume  here:consume
CASE(reduction_not_awaited)
{
    on_two_ranks([](Rank &r) {
        produce<<<BLOCKS, THREADS, 0, r.transfer>>>(r.a, r.rank);
        r.order(r.transfer, r.compute);
        CHECK(ncclAllReduce(r.a, r.a, N, ncclFloat, ncclSum, r.comm, r.transfer));
        if (!BUG)
            r.order(r.transfer, r.compute);
        consume<<<BLOCKS, THREADS, 0, r.compute>>>(r.b, r.a);
        CHECK(cudaGetLastError());
        r.finish();
        expect_line(r.b, N, 4, 2);
    });
}

// case: receive_aborted - a kernel is launched on what an aborted communicator never received
// expect: uninitialised  kernel consume  here:consume  gpu 1
CASE(receive_aborted)
{
    int devices[2] = {0, 1};
    ncclComm_t comms[2];
    CHECK(ncclCommInitAll(comms, 2, devices));
    CHECK(cudaSetDevice(1));
    cudaStream_t compute = new_stream(), transfer = new_stream();
    cudaEvent_t event = new_event();
    float *from = device_memory<float>(N), *to = device_zeros<float>(N);
    CHECK(ncclRecv(from, N, ncclFloat, 0, comms[1], transfer));
    CHECK(cudaEventRecord(event, transfer));
    CHECK(cudaStreamWaitEvent(compute, event, 0));
    consume<<<BLOCKS, THREADS, 0, compute>>>(to, from); /* cannot know, and is no bug */
    CHECK(cudaGetLastError());
    for (ncclComm_t comm : comms)
        CHECK(ncclCommAbort(comm));
    CHECK(cudaDeviceSynchronize());
    if (!BUG)
        produce<<<BLOCKS, THREADS, 0, compute>>>(from, 1);
    consume<<<BLOCKS, THREADS, 0, compute>>>(to, from);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    expect_line(to, N, 2, 2);
    CHECK(cudaFree(to));
    CHECK(cudaFree(from));
    CHECK(cudaEventDestroy(event));
    CHECK(cudaStreamDestroy(transfer));
    CHECK(cudaStreamDestroy(compute));
}

// case: message_counts_differ - a receive expects fewer elements than are sent
// expect: nccl-mismatch  ncclSend  ncclRecv  512  256  gpu 0  gpu 1
CASE(message_counts_differ)
{
    on_two_ranks([](Rank &r) {
        if (r.rank == 0) {
            produce<<<BLOCKS, THREADS, 0, r.transfer>>>(r.a, 1);
            CHECK(ncclSend(r.a, N, ncclFloat, 1, r.comm, r.transfer));
        } else {
            CHECK(ncclRecv(r.a, BUG ? N / 2 : N, ncclFloat, 0, r.comm, r.transfer));
        }
        r.finish();
        expect_line(r.a, N, 1, 1);
    });
}

// case: message_types_differ - a receive expects integers where floats are sent
// expect: nccl-mismatch  ncclSend  ncclRecv  gpu 0  gpu 1
CASE(message_types_differ)
{
    on_two_ranks([](Rank &r) {
        if (r.rank == 0) {
            produce<<<BLOCKS, THREADS, 0, r.transfer>>>(r.a, 1);
            CHECK(ncclSend(r.a, N, ncclFloat, 1, r.comm, r.transfer));
        } else {
            CHECK(ncclRecv(r.a, N, BUG ? ncclInt32 : ncclFloat, 0, r.comm, r.transfer));
        }
        r.finish();
        expect_line(r.a, N, 1, 1);
    });
}

// case: collective_counts_differ - the ranks of an ncclAllReduce disagree on the count
// expect: nccl-mismatch  ncclAllReduce  512  511  gpu 0  gpu 1
CASE(collective_counts_differ)
{
    on_two_ranks([](Rank &r) {
        produce<<<BLOCKS, THREADS, 0, r.transfer>>>(r.a, r.rank);
        size_t elements = BUG && r.rank == 1 ? N - 1 : N;
        CHECK(ncclAllReduce(r.a, r.b, elements, ncclFloat, ncclSum, r.comm, r.transfer));
        r.finish();
        expect_line(r.b, N, 2, 1);
    });
}

// case: collective_types_differ - the ranks of an ncclAllReduce disagree on the type
// expect: nccl-mismatch  ncclAllReduce  gpu 0  gpu 1
CASE(collective_types_differ)
{
    on_two_ranks([](Rank &r) {
        produce<<<BLOCKS, THREADS, 0, r.transfer>>>(r.a, r.rank);
        ncclDataType_t type = BUG && r.rank == 1 ? ncclInt32 : ncclFloat;
        CHECK(ncclAllReduce(r.a, r.b, N, type, ncclSum, r.comm, r.transfer));
        r.finish();
        expect_line(r.b, N, 2, 1);
    });
}

// case: collective_kinds_differ - one rank reduces while the other broadcasts
// expect: nccl-mismatch  ncclAllReduce  ncclBroadcast  gpu 0  gpu 1
CASE(collective_kinds_differ)
{
    on_two_ranks([](Rank &r) {
        produce<<<BLOCKS, THREADS, 0, r.transfer>>>(r.a, r.rank);
        if (BUG && r.rank == 1)
            CHECK(ncclBroadcast(r.a, r.b, N, ncclFloat, 0, r.comm, r.transfer));
        else
            CHECK(ncclAllReduce(r.a, r.b, N, ncclFloat, ncclSum, r.comm, r.transfer));
        r.finish();
        expect_line(r.b, N, 2, 1);
    });
}

// case: collective_roots_differ - the ranks of an ncclBroadcast disagree on who sends
// expect: nccl-mismatch  ncclBroadcast  gpu 0  gpu 1
CASE(collective_roots_differ)
{
    on_two_ranks([](Rank &r) {
        produce<<<BLOCKS, THREADS, 0, r.transfer>>>(r.a, r.rank);
        int root = BUG ? r.rank : 1;
        CHECK(ncclBroadcast(r.a, r.b, N, ncclFloat, root, r.comm, r.transfer));
        r.finish();
        expect_line(r.b, N, 1, 1);
    });
}

// case: message_out_of_bounds - a send of more elements than its buffer has
// expect: out-of-bounds  ncclSend  gpu 0
CASE(message_out_of_bounds)
{
    on_two_ranks([](Rank &r) {
        float *large = device_zeros<float>(2 * N);
        size_t elements = BUG ? N + 1 : N;
        if (r.rank == 0)
            CHECK(ncclSend(r.a, elements, ncclFloat, 1, r.comm, r.transfer));
        else
            CHECK(ncclRecv(large, elements, ncclFloat, 0, r.comm, r.transfer));
        r.finish();
        expect_line(large, N, 0, 0);
        CHECK(cudaFree(large));
    });
}

// case: collective_out_of_bounds - an ncclAllGather into memory for one rank's part
// expect: out-of-bounds  ncclAllGather
CASE(collective_out_of_bounds)
{
    on_two_ranks([](Rank &r) {
        float *gathered = device_zeros<float>(BUG ? N : 2 * N);
        produce<<<BLOCKS, THREADS, 0, r.transfer>>>(r.a, N * r.rank);
        CHECK(ncclAllGather(r.a, gathered, N, ncclFloat, r.comm, r.transfer));
        r.finish();
        expect_line(gathered, 2 * N, 1, 0);
        CHECK(cudaFree(gathered));
    });
}

// case: message_from_wrong_device - rank 1 receives into memory of gpu 0
// expect: wrong-device  ncclRecv  gpu 0  gpu 1
CASE(message_from_wrong_device)
{
    float *far = device_zeros<float>(N);
    on_two_ranks([far](Rank &r) {
        if (r.rank == 0)
            CHECK(ncclSend(r.a, N, ncclFloat, 1, r.comm, r.transfer));
        else
            CHECK(ncclRecv(BUG ? far : r.a, N, ncclFloat, 0, r.comm, r.transfer));
        r.finish();
        expect_line(r.a, N, 0, 0);
    });
    CHECK(cudaFree(far));
}

// case: communicator_of_other_device - rank 1's stream is given to rank 0's communicator
// expect: wrong-device  ncclSend  gpu 0  gpu 1
CASE(communicator_of_other_device)
{
    Signal made, done;
    cudaStream_t streams[2];
    on_two_ranks([&](Rank &r) {
        streams[r.rank] = r.transfer;
        if (r.rank == 1)
            made.give();
        else
            made.await();
        if (r.rank == 0)
            CHECK(ncclSend(r.a, N, ncclFloat, 1, r.comm, streams[BUG ? 1 : 0]));
        else
            CHECK(ncclRecv(r.a, N, ncclFloat, 0, r.comm, r.transfer));
        r.finish();
        if (r.rank == 0)
            done.give();
        else
            done.await();
        expect_line(r.a, N, 0, 0);
    });
}

// case: deadlock_send_send - both ranks send first and receive then
// expect: deadlock  ncclSend  gpu 0  gpu 1
// with: MDL_SIM_TIMEOUT=1
CASE(deadlock_send_send)
{
    on_two_ranks([](Rank &r) {
        produce<<<BLOCKS, THREADS, 0, r.transfer>>>(r.a, r.rank);
        CHECK(cudaGetLastError());
        bool sends_first = BUG || r.rank == 0;
        if (sends_first)
            CHECK(ncclSend(r.a, N, ncclFloat, r.peer, r.comm, r.transfer));
        CHECK(ncclRecv(r.b, N, ncclFloat, r.peer, r.comm, r.transfer));
        if (!sends_first)
            CHECK(ncclSend(r.a, N, ncclFloat, r.peer, r.comm, r.transfer));
        r.finish();
        expect_line(r.b, N, 1, static_cast<float>(r.peer));
    });
}

// case: deadlock_without_group - an exchange that should be one group
// expect: deadlock  ncclRecv  gpu 0  gpu 1
// with: MDL_SIM_TIMEOUT=1
CASE(deadlock_without_group)
{
    on_two_ranks([](Rank &r) {
        produce<<<BLOCKS, THREADS, 0, r.transfer>>>(r.a, r.rank);
        CHECK(cudaGetLastError());
        if (!BUG)
            CHECK(ncclGroupStart());
        CHECK(ncclRecv(r.b, N, ncclFloat, r.peer, r.comm, r.transfer));
        CHECK(ncclSend(r.a, N, ncclFloat, r.peer, r.comm, r.transfer));
        if (!BUG)
            CHECK(ncclGroupEnd());
        r.finish();
        expect_line(r.b, N, 1, static_cast<float>(r.peer));
    });
}

// case: deadlock_nobody_sends - a receive to which no send ever comes
// expect: deadlock  ncclRecv  here:lone_receive  gpu 1
// with: MDL_SIM_TIMEOUT=1
CASE(deadlock_nobody_sends)
{
    on_two_ranks([](Rank &r) {
        if (r.rank == 1)
            CHECK(ncclRecv(r.a, N, ncclFloat, 0, r.comm, r.transfer)); /* here: lone_receive */
        else if (!BUG)
            CHECK(ncclSend(r.a, N, ncclFloat, 1, r.comm, r.transfer));
        r.finish();
        expect_line(r.a, N, 0, 0);
    });
}

static void CUDART_CB give(void *signal)
{
    static_cast<Signal *>(signal)->give();
}

// case: deadlock_of_host_function - the host sleeps until a host function is called, which waits
// expect: deadlock  ncclRecv  gpu 1
// with: MDL_SIM_TIMEOUT=20
CASE(deadlock_of_host_function)
{
    on_two_ranks([](Rank &r) {
        Signal arrived;
        if (r.rank == 1)
            CHECK(ncclRecv(r.a, N, ncclFloat, 0, r.comm, r.transfer));
        else if (!BUG)
            CHECK(ncclSend(r.a, N, ncclFloat, 1, r.comm, r.transfer));
        CHECK(cudaLaunchHostFunc(r.transfer, give, &arrived));
        arrived.await();
        r.finish();
        expect_line(r.a, N, 0, 0);
    });
}

// case: deadlock_rank_missing - one rank takes no part in a second ncclAllReduce
// expect: deadlock  ncclAllReduce  gpu 0
// with: MDL_SIM_TIMEOUT=1
CASE(deadlock_rank_missing)
{
    on_two_ranks([](Rank &r) {
        produce<<<BLOCKS, THREADS, 0, r.transfer>>>(r.a, 0);
        CHECK(ncclAllReduce(r.a, r.b, N, ncclFloat, ncclSum, r.comm, r.transfer));
        if (!BUG || r.rank == 0)
            CHECK(ncclAllReduce(r.b, r.a, N, ncclFloat, ncclSum, r.comm, r.transfer));
        r.finish();
        if (!BUG)
            expect_line(r.a, N, 4, 0);
    });
}

// case: deadlock_event - a send waits for an event that comes after its own receive
// expect: deadlock  ncclRecv  gpu 0  gpu 1
// with: MDL_SIM_TIMEOUT=1
CASE(deadlock_event)
{
    Signal recorded, waited;
    cudaEvent_t event = nullptr;
    on_two_ranks([&](Rank &r) {
        if (r.rank == 1) {
            if (BUG)
                CHECK(ncclRecv(r.a, N, ncclFloat, 0, r.comm, r.transfer));
            CHECK(cudaEventRecord(r.event, r.transfer));
            event = r.event;
            recorded.give();
            if (!BUG)
                CHECK(ncclRecv(r.a, N, ncclFloat, 0, r.comm, r.transfer));
            waited.await();
        } else {
            recorded.await();
            CHECK(cudaStreamWaitEvent(r.transfer, event, 0));
            waited.give();
            CHECK(ncclSend(r.a, N, ncclFloat, 1, r.comm, r.transfer));
        }
        r.finish();
        expect_line(r.a, N, 0, 0);
    });
}

/* Ten turns of two sums, which the ranks put into two streams with a communicator each: in
 * opposite orders, or both into one stream in the same order. */
static void two_communicators(bool opposite)
{
    enum { TURNS = 10 };
    int devices[2] = {0, 1};
    ncclComm_t second[2];
    CHECK(ncclCommInitAll(second, 2, devices));
    on_two_ranks([&](Rank &r) {
        for (int turn = 0; turn < TURNS; ++turn) {
            bool swapped = opposite && r.rank == 1;
            ncclComm_t comms[2] = {r.comm, second[r.rank]};
            cudaStream_t streams[2] = {r.transfer, opposite ? r.compute : r.transfer};
            float *sums[2] = {r.a, r.b};
            for (int i = 0; i < 2; ++i) {
                int k = swapped ? 1 - i : i;
                CHECK(ncclAllReduce(sums[k], sums[k], N, ncclFloat, ncclSum, comms[k], streams[k]));
            }
        }
        r.finish();
        expect_line(r.a, N, 0, 0);
        expect_line(r.b, N, 0, 0);
    });
    for (ncclComm_t comm : second)
        CHECK(ncclCommDestroy(comm));
}

// case: deadlock_two_communicators - two ranks use two communicators in opposite orders
// expect: deadlock  ncclAllReduce  gpu 0  gpu 1
// with: MDL_SIM_TIMEOUT=1 MDL_SIM_NCCL=pessimistic
CASE(deadlock_two_communicators)
{
    two_communicators(BUG);
}

// case: group_of_one_thread - one thread for both ranks, which needs a group
// expect: nccl-mismatch  ncclSend  ncclRecv  gpu 0  gpu 1
CASE(group_of_one_thread)
{
    int devices[2] = {0, 1};
    ncclComm_t comms[2];
    CHECK(ncclCommInitAll(comms, 2, devices));
    {
        Rank zero(0, comms[0]), one(1, comms[1]);
        produce<<<BLOCKS, THREADS, 0, one.transfer>>>(one.a, 3);
        CHECK(cudaGetLastError());
        CHECK(ncclGroupStart());
        CHECK(ncclSend(one.a, N, ncclFloat, 0, one.comm, one.transfer));
        CHECK(ncclRecv(zero.a, BUG ? N - 8 : N, ncclFloat, 1, zero.comm, zero.transfer));
        CHECK(ncclGroupEnd());
        zero.finish();
        one.finish();
        expect_line(zero.a, N, 1, 3);
    }
    for (ncclComm_t comm : comms)
        CHECK(ncclCommDestroy(comm));
}

// case: communicator_destroyed - a send through a communicator that was destroyed
// expect: misuse  ncclAllReduce
CASE(communicator_destroyed)
{
    int devices[1] = {0};
    ncclComm_t comm;
    CHECK(ncclCommInitAll(&comm, 1, devices));
    {
        Rank rank(0, comm);
        if (BUG)
            CHECK(ncclCommDestroy(comm));
        produce<<<BLOCKS, THREADS, 0, rank.transfer>>>(rank.a, 3);
        CHECK(cudaGetLastError());
        CHECK(ncclAllReduce(rank.a, rank.b, N, ncclFloat, ncclSum, comm, rank.transfer));
        rank.finish();
        expect_line(rank.b, N, 1, 3);
    }
    CHECK(ncclCommDestroy(comm));
}

// case: leak_communicator - communicators made by each rank's thread are never destroyed
// expect: leak  communicator
CASE(leak_communicator)
{
    ncclUniqueId id;
    CHECK(ncclGetUniqueId(&id));
    auto run = [&](int number) {
        ncclComm_t comm;
        CHECK(cudaSetDevice(number));
        CHECK(ncclCommInitRank(&comm, 2, id, number));
        {
            Rank rank(number, comm);
            CHECK(ncclAllReduce(rank.a, rank.b, N, ncclFloat, ncclSum, comm, rank.transfer));
            rank.finish();
            expect_line(rank.b, N, 0, 0);
        }
        if (!BUG)
            CHECK(ncclCommDestroy(comm));
    };
    std::thread other(run, 1);
    run(0);
    other.join();
}
