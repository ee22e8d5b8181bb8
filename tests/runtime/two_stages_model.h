/* two_stages_model.h - the description of the model of two stages, for all targets.
 *
 * In:  Memory0, Memory1 and the functions of the two stages, which a target's own file has
 *      defined before it includes this one, last.
 * Out: two_stages() and the faults.
 */
#ifndef TWO_STAGES_MODEL_H
#define TWO_STAGES_MODEL_H

#include <stddef.h>

#include "two_stages.h"

Fault fault;
int64_t fault_step;

#define AT(type, field) (int64_t) offsetof(type, field)
static const MdlWeight weights_0[] = {{.prefix = "in.weight",
                                       .suffix = "",
                                       .first = -1,
                                       .count = 1,
                                       .index = 0,
                                       .rank = 2,
                                       .dim = {HIDDEN, FEATURES},
                                       .init = MDL_UNIFORM,
                                       .value = 0.5,
                                       .owner = true,
                                       .weight = AT(Memory0, w),
                                       .grad = AT(Memory0, dw),
                                       .state = {AT(Memory0, vw), -1}},
                                      {.prefix = "in.bias",
                                       .suffix = "",
                                       .first = -1,
                                       .count = 1,
                                       .index = 1,
                                       .rank = 1,
                                       .dim = {HIDDEN},
                                       .init = MDL_CONSTANT,
                                       .value = 0.1,
                                       .owner = true,
                                       .weight = AT(Memory0, b),
                                       .grad = AT(Memory0, db),
                                       .state = {AT(Memory0, vb), -1}},
                                      {.prefix = "shared.",
                                       .suffix = ".scale",
                                       .first = 7,
                                       .step = 1,
                                       .count = 1,
                                       .index = 2,
                                       .rank = 1,
                                       .dim = {HIDDEN},
                                       .init = MDL_NORMAL,
                                       .value = 1,
                                       .owner = true,
                                       .weight = AT(Memory0, shared),
                                       .grad = AT(Memory0, dshared),
                                       .state = {AT(Memory0, vshared), -1}}};
static const MdlWeight weights_1[] = {{.prefix = "shared.",
                                       .suffix = ".scale",
                                       .first = 7,
                                       .step = 1,
                                       .count = 1,
                                       .index = 2,
                                       .rank = 1,
                                       .dim = {HIDDEN},
                                       .init = MDL_NORMAL,
                                       .value = 1,
                                       .owner = false,
                                       .weight = AT(Memory1, shared),
                                       .grad = AT(Memory1, dshared),
                                       .state = {-1, -1}},
                                      {.prefix = "out.weight",
                                       .suffix = "",
                                       .first = -1,
                                       .count = 1,
                                       .index = 3,
                                       .rank = 2,
                                       .dim = {1, HIDDEN},
                                       .init = MDL_UNIFORM,
                                       .value = 0.5,
                                       .owner = true,
                                       .weight = AT(Memory1, w),
                                       .grad = AT(Memory1, dw),
                                       .state = {AT(Memory1, vw), -1}},
                                      {.prefix = "out.bias",
                                       .suffix = "",
                                       .first = -1,
                                       .count = 1,
                                       .index = 4,
                                       .rank = 1,
                                       .dim = {1},
                                       .init = MDL_CONSTANT,
                                       .value = 0,
                                       .owner = true,
                                       .weight = AT(Memory1, b),
                                       .grad = AT(Memory1, db),
                                       .state = {AT(Memory1, vb), -1}}};

#ifdef MDL_CUDA
static const bool loads[2][2] = {{true, false}, {false, true}};
#define OF_TARGET(number, Memory)                                                                  \
    .gpu = (number), .events = NEVENTS, .squares = AT(Memory, squares),                            \
    .scratch = AT(Memory, scratch), .workspace = AT(Memory, workspace), .loads = loads[number]
#else
#define OF_TARGET(number, Memory) .start = NULL
#endif

static const MdlStage stage_0 = {.device = "gpu[0]",
                                 .layers = "in",
                                 .bytes = sizeof(Memory0),
                                 .weights = weights_0,
                                 .nweights = 3,
                                 .step = step_0,
                                 .eval = eval_0,
                                 OF_TARGET(0, Memory0)};
static const MdlStage stage_1 = {.device = "gpu[1]",
                                 .layers = "out",
                                 .bytes = sizeof(Memory1),
                                 .weights = weights_1,
                                 .nweights = 3,
                                 .step = step_1,
                                 .eval = eval_1,
                                 OF_TARGET(1, Memory1)};
static const MdlStage *const stages[] = {&stage_0, &stage_1};
static const int64_t planned[] = {sizeof(Memory0), sizeof(Memory1)};
static const MdlLink links[NLINKS] = {{0, 1, MICROBATCH *HIDDEN * sizeof(real), 1, "hidden"},
                                      {1, 0, MICROBATCH *HIDDEN * sizeof(real), 2, "dhidden"},
                                      {1, 0, HIDDEN * sizeof(real), 1, "dshared"},
                                      {0, 1, HIDDEN * sizeof(real), 1, "shared"},
                                      {0, 1, MICROBATCH *HIDDEN * sizeof(real), 1, "never"}};
static const MdlInput inputs[] = {{.name = "x", .type = MDL_REAL, .rank = 1, .dim = {FEATURES}},
                                  {.name = "y", .type = MDL_REAL, .target = true}};
static const char *const metrics[] = {"near"};

MdlModel two_stages(void)
{
    return (MdlModel){.name = "two stages & <more>",
                      .fingerprint = "two-stages-1",
                      .stages = stages,
                      .planned = planned,
                      .nstages = 2,
                      .links = links,
                      .nlinks = NLINKS,
                      .inputs = inputs,
                      .ninputs = 2,
                      .metrics = metrics,
                      .nmetrics = 1,
                      .nweights = NWEIGHTS,
                      .batch = BATCH,
                      .microbatch = MICROBATCH,
                      .microbatches = MICROBATCHES,
                      .steps = 60,
                      .seed = 1,
                      .optimizer = MDL_SGD,
                      .hyper = {.lr = 0.05, .momentum = 0.5},
                      .lr_schedule = MDL_LR_COSINE,
                      .warmup = 5,
                      .min = 0.001};
}

#endif
