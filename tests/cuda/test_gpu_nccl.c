/* test_gpu_nccl.c - stages that meet in NCCL: a communicator is made, used and ended, also when a
 * rank fails while the other waits for it.
 *
 * Stage 0 loads samples and sends them; stage 1 receives them and calls them losses.
 */
#include "workshop.h"

#include <nccl.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "rt_cuda.h"

enum { SAMPLES = 4, MICROBATCHES = 2, FAIL_NEVER = -1 };

typedef struct {
    _Alignas(256) float w[4];
    _Alignas(256) float values[MICROBATCHES][64];
    _Alignas(256) double squares[2];
    _Alignas(256) char scratch[GPU_SCRATCH];
    _Alignas(256) char workspace[GPU_BLAS_WORKSPACE];
} Memory;

static int64_t fail_step = FAIL_NEVER;
static int fail_stage;

static int order(Stage *s, int event, cudaStream_t earlier, cudaStream_t later)
{
    CUDA(cudaEventRecord(s->event[event], earlier));
    CUDA(cudaStreamWaitEvent(later, s->event[event], 0));
    return MDL_OK;
}

static int sender(Stage *s)
{
    Memory *a = (void *)s->memory;
    for (int m = 0; m < MICROBATCHES; m++) {
        TRY(data_load(s, 0, m, a->values[m]));
        TRY(order(s, 0, s->compute, s->transfer));
        if (s->step == fail_step && fail_stage == 0 && m == 1)
            return gpu_failed(s, cudaErrorIllegalAddress, "planned()", "here.c", 1);
        NCCL(ncclSend(a->values[m], SAMPLES, ncclFloat, 1, s->nccl, s->transfer));
    }
    return MDL_OK;
}

static int receiver(Stage *s)
{
    Memory *a = (void *)s->memory;
    for (int m = 0; m < MICROBATCHES; m++) {
        if (s->step == fail_step && fail_stage == 1 && m == 1)
            return gpu_failed(s, cudaErrorIllegalAddress, "planned()", "here.c", 1);
        NCCL(ncclRecv(a->values[m], SAMPLES, ncclFloat, 0, s->nccl, s->transfer));
        TRY(order(s, 0, s->transfer, s->compute));
        TRY(report_loss(s, m, a->values[m]));
    }
    return MDL_OK;
}

static const MdlWeight weights[2] = {{.prefix = "a",
                                      .suffix = "",
                                      .first = -1,
                                      .count = 1,
                                      .rank = 1,
                                      .dim = {4},
                                      .owner = true,
                                      .weight = offsetof(Memory, w),
                                      .grad = -1,
                                      .state = {-1, -1}},
                                     {.prefix = "b",
                                      .suffix = "",
                                      .first = -1,
                                      .count = 1,
                                      .index = 1,
                                      .rank = 1,
                                      .dim = {4},
                                      .owner = true,
                                      .weight = offsetof(Memory, w),
                                      .grad = -1,
                                      .state = {-1, -1}}};
#define STAGE(name, i, code)                                                                       \
    {                                                                                              \
        .device = name, .layers = name, .bytes = sizeof(Memory), .gpu = i, .events = 1,            \
        .squares = offsetof(Memory, squares), .scratch = offsetof(Memory, scratch),                \
        .workspace = offsetof(Memory, workspace), .weights = &weights[i], .nweights = 1,           \
        .step = code, .eval = code                                                                 \
    }
static const MdlStage stage_0 = STAGE("gpu[0]", 0, sender), stage_1 = STAGE("gpu[1]", 1, receiver);
static const MdlStage *const stages[] = {&stage_0, &stage_1};
static const int64_t planned[] = {sizeof(Memory), sizeof(Memory)};
static const MdlInput inputs[] = {{.name = "x", .type = MDL_REAL}};

static const MdlModel model = {.name = "messages",
                               .fingerprint = "messages-1",
                               .stages = stages,
                               .planned = planned,
                               .nstages = 2,
                               .inputs = inputs,
                               .ninputs = 1,
                               .nweights = 2,
                               .batch = SAMPLES * MICROBATCHES,
                               .microbatch = SAMPLES,
                               .microbatches = MICROBATCHES,
                               .steps = 4,
                               .hyper = {.lr = 0.1},
                               .nccl = &mdl_nccl};

static void samples_put(void)
{
    float x[SAMPLES * MICROBATCHES];
    for (int i = 0; i < SAMPLES * MICROBATCHES; i++)
        x[i] = (float)i;
    npy_put("x.npy", "<f4", "(8,)", x, sizeof x);
}

static void messages_arrive(void **state)
{
    (void)state;
    samples_put();
    int code = run(&model, "--data x=x.npy --steps 4");
    if (code != 0)
        print_message("%s", run_err);
    assert_int_equal(code, 0);
    assert_string_equal(run_err, "");
    assert_non_null(strstr(run_out, "loss 3.5 at first, 3.5 at last"));
}

/* The other rank waits for a message that never comes, and is not to wait long. */
static void failure_ends_all_ranks(void **state)
{
    (void)state;
    samples_put();
    for (fail_stage = 0; fail_stage < 2; fail_stage++) {
        fail_step = 2;
        time_t begun = time(NULL);
        assert_int_equal(run(&model, "-q --data x=x.npy"), 1);
        fail_step = FAIL_NEVER;
        const char *end = strchr(run_err, '\n');
        char wanted[100];
        snprintf(wanted, sizeof wanted, "error: stage %d (gpu[%d]), step 2: planned: ", fail_stage,
                 fail_stage);
        if (!strstr(run_err, wanted) || !end || end[1])
            print_message("%s", run_err);
        assert_non_null(strstr(run_err, wanted));
        assert_true(end && end[1] == '\0');
        assert_true(time(NULL) - begun < 8);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_arrive),
        cmocka_unit_test(failure_ends_all_ranks),
    };
    return cmocka_run_group_tests(tests, workshop_open, workshop_close);
}
