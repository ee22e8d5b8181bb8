/* gpus.c - the machine's GPUs before a run: whether they are those that the model needs.
 *
 * In: the model. Out: nothing, or one line that says what is missing and the ways out. Nothing
 * is allocated here, so a run that cannot be says so at once and not after minutes.
 */
#include <dlfcn.h>
#include <stdlib.h>

#include "device_cuda.h"

const TargetTraits target_traits = {.late = true};

/* Whether the CUDA that this program runs on is the simulator's. */
static bool simulated(void)
{
    return dlsym(RTLD_DEFAULT, "sim_config") != NULL;
}

static const char *ways_out(void)
{
    return simulated() ? "build with --target host to train on this machine's processor"
                       : "build with --target host to train on this machine's processor, or "
                         "with --target sim for a simulated GPU";
}

static int count_problem(int needed, int found, Problem *p)
{
    if (simulated())
        return problem_set(p, EXIT_RUN,
                           "the model is placed on %d GPUs and the simulator has %d; set "
                           "MDL_SIM_DEVICES=%d",
                           needed, found, needed);
    return problem_set(
        p, EXIT_RUN,
        "the model is placed on %d GPUs and %s %d; place it on fewer devices (-D "
        "where the model has a constant for them), or %s",
        needed, getenv("CUDA_VISIBLE_DEVICES") ? "CUDA_VISIBLE_DEVICES shows" : "this machine has",
        found, ways_out());
}

static int count_check(const MdlModel *model, Problem *p)
{
    int found = 0, needed = 0;
    for (int i = 0; i < model->nstages; i++)
        needed = model->stages[i]->gpu >= needed ? model->stages[i]->gpu + 1 : needed;
    /* Before CUDA is first called. A kernel that is loaded when it is first launched may wait for
     * those that run, and one of NCCL's runs until another GPU has come as far. */
    if (model->nccl && setenv("CUDA_MODULE_LOADING", "EAGER", 0) != 0)
        return problem_no_memory(p, "the environment");
    cudaError_t status = cudaGetDeviceCount(&found);
    gpu_note((int)status);
    if (status == cudaErrorNoDevice || status == cudaErrorInsufficientDriver)
        return problem_set(p, EXIT_RUN, "no NVIDIA GPU: %s; %s", cudaGetErrorString(status),
                           ways_out());
    if (status != cudaSuccess)
        return problem_set(p, EXIT_RUN, "the NVIDIA GPUs cannot be used: %s; %s",
                           cudaGetErrorString(status), ways_out());
    return found < needed ? count_problem(needed, found, p) : MDL_OK;
}

/* Whether the binary holds code for the current device. */
static int code_check(const Device *d, Problem *p)
{
    int status = gpu_probe(), major = 0, minor = 0, gpu = d->plan->gpu;
    gpu_note((int)status);
    if (status != cudaErrorNoKernelImageForDevice && status != cudaErrorInvalidDeviceFunction &&
        status != cudaErrorUnsupportedPtxVersion)
        return gpu_problem(d, status, "cudaFuncGetAttributes", p);
    TRY(gpu_problem(d, (int)cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, gpu),
                    "cudaDeviceGetAttribute", p));
    TRY(gpu_problem(d, (int)cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, gpu),
                    "cudaDeviceGetAttribute", p));
    const char *hint = simulated() ? "set MDL_SIM_ARCH to 8.0 or a later one; on such a GPU, "
                                     "build it"
                                   : "build it";
    return problem_set(p, EXIT_RUN,
                       "%s has compute capability %d.%d, for which this trainer holds no code; "
                       "%s with --gpu-arch sm_%d%d",
                       d->plan->device, major, minor, hint, major, minor);
}

static int memory_check(const MdlModel *model, const Device *d, Problem *p)
{
    size_t unused, all;
    int64_t needed = 0;
    char have[32], want[32];
    for (int i = 0; i < model->nstages; i++)
        if (model->stages[i]->gpu == d->plan->gpu)
            needed += model->stages[i]->bytes;
    TRY(gpu_problem(d, (int)cudaMemGetInfo(&unused, &all), "cudaMemGetInfo", p));
    if ((uint64_t)needed <= unused)
        return MDL_OK;
    return problem_set(p, EXIT_RUN,
                       "%s needs %s bytes and %s are free; a smaller parallel.microbatch or more "
                       "devices need less on each%s",
                       d->plan->device, text_number(want, needed),
                       text_number(have, (int64_t)unused),
                       simulated() ? ", and MDL_SIM_MEMORY is what each has" : "");
}

int target_check(const Trainer *t, Problem *p)
{
    const MdlModel *model = t->model;
    if (t->options.cuda_graph && model->no_graph)
        return problem_set(p, EXIT_USE, "--cuda-graph: %s", model->no_graph);
    TRY(count_check(model, p));
    for (int i = 0; i < model->nstages; i++) {
        const Device d = {.plan = model->stages[i]};
        TRY(gpu_problem(&d, (int)cudaSetDevice(d.plan->gpu), "cudaSetDevice", p));
        TRY(code_check(&d, p));
        TRY(memory_check(model, &d, p));
    }
    return MDL_OK;
}

char *device_describe(const Device *d, char *out)
{
    struct cudaDeviceProp properties;
    cudaError_t status = cudaGetDeviceProperties(&properties, d->plan->gpu);
    gpu_note((int)status);
    out[0] = '\0';
    if (status == cudaSuccess)
        snprintf(out, TEXT_DEVICE, ", on %s", properties.name);
    return out;
}

/* Messages between GPUs that cannot reach each other's memory go through the host's. */
void target_tell(const Trainer *t)
{
    const MdlModel *model = t->model;
    for (int i = 0; !model->nccl && i < model->nlinks; i++) {
        const MdlLink *l = &model->links[i];
        const MdlStage *from = model->stages[l->from], *to = model->stages[l->to];
        int can = 1;
        if (from->gpu == to->gpu)
            continue;
        gpu_note((int)cudaDeviceCanAccessPeer(&can, from->gpu, to->gpu));
        if (!can)
            printf("%s: %s and %s have no access to each other; messages go through the host's "
                   "memory\n",
                   l->name, from->device, to->device);
    }
}
