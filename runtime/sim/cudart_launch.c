/* cudart_launch.c - images, functions and launches of kernels.
 *
 * nvcc's host code registers every image with its kernels and variables before main. A kernel
 * is translated when it is first launched. Its arguments are packed into the operation's data.
 */
#include <stdlib.h>
#include <string.h>

#include "functions.h"
#include "host.h"

enum { SHARED_DEFAULT = 48 * 1024, CONFIGURATIONS = 64, ARGUMENTS_MAX = 32764 };

/* ----------------------------------------------------- registration by nvcc's code */

typedef struct {
    SimModule *module;
    bool refused;
} Image;

static Function *functions;
static Variable *variables;

/* What nvcc's code hands over for an image. */
typedef struct {
    int magic, version;
    const void *data;
    void *names;
} Wrapper;
enum { WRAPPER_MAGIC = 0x466243b1 };

void **__cudaRegisterFatBinary(void *wrapper);
void __cudaRegisterFatBinaryEnd(void **handle);
void __cudaUnregisterFatBinary(void **handle);
char __cudaInitModule(void **handle);
void __cudaRegisterFunction(void **handle, const char *host, char *device, const char *name,
                            int limit, void *tid, void *bid, dim3 *block, dim3 *grid, int *warp);
void __cudaRegisterVar(void **handle, char *host, char *device, const char *name, int ext,
                       size_t size, int constant, int global);
void __cudaRegisterManagedVar(void **handle, void **host, char *device, const char *name, int ext,
                              size_t size, int constant, int global);
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, void *stream);
cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, void *stream);
cudaError_t __cudaGetKernel(cudaKernel_t *kernel, const void *host);
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void **args,
                               size_t shared, cudaStream_t stream);

void **__cudaRegisterFatBinary(void *wrapper)
{
    const Wrapper *w = wrapper;
    Image *image = calloc(1, sizeof *image);
    if (!image)
        abort();
    sim_lock();
    if (w->magic == WRAPPER_MAGIC)
        image->module = sim_module_new(w->data);
    else
        sim_report(SIM_UNKNOWN, "an image of unknown kind is registered (0x%x)",
                   (unsigned)w->magic);
    image->refused = !image->module;
    sim_unlock();
    return (void **)image;
}

void __cudaRegisterFatBinaryEnd(void **handle)
{
    (void)handle;
}

/* The process is about to end: kernels that nobody waited for run while their code is there. */
void __cudaUnregisterFatBinary(void **handle)
{
    (void)handle;
    sim_lock();
    if (!host_failed())
        scheduler_drain();
    sim_unlock();
}

char __cudaInitModule(void **handle)
{
    (void)handle;
    return 1;
}

void __cudaRegisterFunction(void **handle, const char *host, char *device, const char *name,
                            int limit, void *tid, void *bid, dim3 *block, dim3 *grid, int *warp)
{
    (void)device, (void)limit, (void)tid, (void)bid, (void)block, (void)grid, (void)warp;
    Function *f = calloc(1, sizeof *f);
    if (!f)
        abort();
    f->host = host;
    f->name = name;
    f->module = ((Image *)(void *)handle)->module;
    f->shared_dynamic = -1;
    sim_lock();
    f->next = functions;
    functions = f;
    sim_unlock();
}

void __cudaRegisterVar(void **handle, char *host, char *device, const char *name, int ext,
                       size_t size, int constant, int global)
{
    (void)device, (void)ext, (void)constant, (void)global;
    Variable *v = calloc(1, sizeof *v);
    if (!v)
        abort();
    v->host = host;
    v->name = name;
    v->size = size;
    v->module = ((Image *)(void *)handle)->module;
    sim_lock();
    v->next = variables;
    variables = v;
    sim_unlock();
}

void __cudaRegisterManagedVar(void **handle, void **host, char *device, const char *name, int ext,
                              size_t size, int constant, int global)
{
    (void)handle, (void)host, (void)device, (void)ext, (void)size, (void)constant, (void)global;
    sim_lock();
    sim_report(SIM_UNKNOWN, "the __managed__ variable %s: managed memory is not simulated", name);
    sim_unlock();
}

Function *function_find(const void *host)
{
    for (Function *f = functions; f; f = f->next)
        if (f->host == host || f == host)
            return f;
    return NULL;
}

Variable *variable_find(const void *host)
{
    for (Variable *v = variables; v; v = v->next)
        if (v->host == host)
            return v;
    return NULL;
}

cudaError_t function_load(Function *f)
{
    if (!f->module)
        return cudaErrorInvalidKernelImage;
    if (!sim_module_runs_here(f->module))
        return cudaErrorNoKernelImageForDevice;
    if (!f->kernel)
        f->kernel = sim_module_kernel(f->module, f->name);
    return f->kernel ? cudaSuccess : cudaErrorInvalidKernelImage;
}

uint32_t function_shared_limit(const Function *f)
{
    uint32_t fixed = sim_kernel_static_shared(f->kernel);
    if (f->shared_dynamic >= 0)
        return (uint32_t)f->shared_dynamic;
    return fixed < SHARED_DEFAULT ? SHARED_DEFAULT - fixed : 0;
}

/* ---------------------------------------------------------------------- launching */

static _Thread_local struct {
    dim3 grid, block;
    size_t shared;
    void *stream, *caller;
} configurations[CONFIGURATIONS];
static _Thread_local int nconfigurations;

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, void *stream)
{
    if (nconfigurations == CONFIGURATIONS)
        return 1;
    configurations[nconfigurations].grid = grid;
    configurations[nconfigurations].block = block;
    configurations[nconfigurations].shared = shared;
    configurations[nconfigurations].stream = stream;
    configurations[nconfigurations++].caller = __builtin_return_address(0);
    return 0;
}

cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, void *stream)
{
    if (nconfigurations == 0)
        return cudaErrorMissingConfiguration;
    nconfigurations--;
    *grid = configurations[nconfigurations].grid;
    *block = configurations[nconfigurations].block;
    *shared = configurations[nconfigurations].shared;
    memcpy(stream, &configurations[nconfigurations].stream, sizeof(void *));
    host_thread()->launch = configurations[nconfigurations].caller;
    return cudaSuccess;
}

typedef struct {
    SimKernel *kernel;
    SimLaunch launch;
    uint64_t params[];
} KernelData;

static void kernel_run(SimOp *op)
{
    KernelData *data = op->data;
    data->launch.params = data->params;
    sim_kernel_run(op, data->kernel, &data->launch);
}

static SimOp *kernel_op(const Function *f, const SimLaunch *launch, void **args)
{
    const uint32_t *offsets, *sizes;
    uint32_t total;
    int n = sim_kernel_params(f->kernel, &offsets, &sizes, &total);
    SimOp *op = sim_op_new(SIM_OP_RUN, sizeof(KernelData) + (total + 15) / 16 * 16, "kernel %s",
                           sim_kernel_name(f->kernel));
    KernelData *data = op->data;
    data->kernel = f->kernel;
    data->launch = *launch;
    for (int i = 0; i < n; i++)
        memcpy((char *)data->params + offsets[i], args[i], sizes[i]);
    op->run = kernel_run;
    return op;
}

static cudaError_t launch_refused(SimLaunchFault fault)
{
    static const cudaError_t ERRORS[] = {
        [SIM_LAUNCH_CONFIGURATION] = cudaErrorInvalidConfiguration,
        [SIM_LAUNCH_SHARED] = cudaErrorInvalidValue,
        [SIM_LAUNCH_RESOURCES] = cudaErrorLaunchOutOfResources,
    };
    return ERRORS[fault];
}

static cudaError_t launch(Function *f, dim3 grid, dim3 block, void **args, size_t shared,
                          cudaStream_t handle)
{
    char why[256], place[96], *detail = host_thread()->detail;
    if (!f)
        return cudaErrorInvalidDeviceFunction;
    cudaError_t error = function_load(f);
    if (error != cudaSuccess)
        return error;
    snprintf(detail, sizeof host_thread()->detail, "launch of kernel %s",
             sim_kernel_name(f->kernel));
    SimStream *s = stream_of_handle(handle, detail);
    if (!s)
        return cudaErrorInvalidResourceHandle;
    if (s->device != sim_current_device()) {
        sim_report(SIM_WRONG_DEVICE, "%s in %s while gpu %d is current", detail,
                   sim_stream_describe(s, place, sizeof place), sim_current_device());
        return cudaErrorInvalidResourceHandle;
    }
    SimLaunch l = {.grid = {grid.x, grid.y, grid.z},
                   .block = {block.x, block.y, block.z},
                   .dynamic_shared = shared > UINT32_MAX ? UINT32_MAX : (unsigned)shared};
    SimLaunchFault fault =
        sim_launch_check(f->kernel, &l, function_shared_limit(f), why, sizeof why);
    if (fault != SIM_LAUNCH_OK) {
        size_t n = strlen(detail);
        snprintf(detail + n, sizeof host_thread()->detail - n, " (%s)", why);
        return launch_refused(fault);
    }
    sim_enqueue(s, kernel_op(f, &l, args));
    return cudaSuccess;
}

cudaError_t __cudaGetKernel(cudaKernel_t *kernel, const void *host)
{
    sim_lock();
    *kernel = (cudaKernel_t)(void *)function_find(host);
    sim_unlock();
    return *kernel ? cudaSuccess : cudaErrorInvalidDeviceFunction;
}

cudaError_t cudaGetKernel(cudaKernel_t *kernel, const void *host)
{
    API(SIM_CALL_WORK, cudaErrorUnknown);
    *kernel = (cudaKernel_t)(void *)function_find(host);
    API_RETURN(*kernel ? cudaSuccess : cudaErrorInvalidDeviceFunction);
}

/* The launch is where <<<>>> stands, not in nvcc's stub. */
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void **args,
                               size_t shared, cudaStream_t stream)
{
    sim_enter("cudaLaunchKernel", SIM_CALL_WORK, host_thread()->launch);
    cudaError_t error = sim_fail_now("cudaLaunchKernel")
                            ? cudaErrorUnknown
                            : launch((Function *)(void *)kernel, grid, block, args, shared, stream);
    api_end("cudaLaunchKernel", error);
    if (error != cudaSuccess)
        call_launch_failed();
    return error;
}

cudaError_t cudaLaunchKernel(const void *host, dim3 grid, dim3 block, void **args, size_t shared,
                             cudaStream_t stream)
{
    API(SIM_CALL_WORK, cudaErrorUnknown);
    API_RETURN(launch(function_find(host), grid, block, args, shared, stream));
}

cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *config, const void *host, void **args)
{
    API(SIM_CALL_WORK, cudaErrorUnknown);
    for (unsigned i = 0; i < config->numAttrs; i++)
        if (config->attrs[i].id != cudaLaunchAttributeIgnore) {
            sim_report(SIM_UNKNOWN, "cudaLaunchKernelExC: launch attribute %d",
                       (int)config->attrs[i].id);
            API_RETURN(cudaErrorNotSupported);
        }
    API_RETURN(launch(function_find(host), config->gridDim, config->blockDim, args,
                      config->dynamicSmemBytes, config->stream));
}
