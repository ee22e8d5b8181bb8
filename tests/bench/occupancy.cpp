/* occupancy.cpp - how many blocks of each kernel a multiprocessor holds, as a table.
 *
 * In:  a line for every kernel:  FILE MAJOR MINOR THREADS REGISTERS BARRIERS SHARED STACK SPILLS
 * NAME (bytes; NAME, the last, may have spaces). Out: the table, by NVIDIA's own calculator; exit
 * code 1 where a kernel has a stack frame or spills registers, 2 where a line cannot be understood.
 */
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include <cuda_occupancy.h>

struct Kernel {
    int major, minor, threads, registers, barriers, shared, stack, spills;
    std::string file, name;
};

/* Of A100, H100 and B200, as cudaGetDeviceProperties() says on them. */
static bool describe_device(int major, int minor, cudaOccDeviceProp *device)
{
    if (minor != 0 || (major != 8 && major != 9 && major != 10))
        return false;
    *device = cudaOccDeviceProp();
    device->computeMajor = major;
    device->computeMinor = minor;
    device->maxThreadsPerBlock = 1024;
    device->maxThreadsPerMultiprocessor = 2048;
    device->regsPerBlock = device->regsPerMultiprocessor = 65536;
    device->warpSize = 32;
    device->reservedSharedMemPerBlock = 1024;
    device->sharedMemPerBlock = 48 * 1024;
    device->sharedMemPerMultiprocessor = (major == 8 ? 164 : 228) * 1024;
    device->sharedMemPerBlockOptin =
        device->sharedMemPerMultiprocessor - device->reservedSharedMemPerBlock;
    device->numSms = major == 8 ? 108 : major == 9 ? 132 : 148;
    return true;
}

static bool count_blocks(const Kernel &k, int *blocks)
{
    cudaOccDeviceProp device;
    cudaOccFuncAttributes attributes;
    cudaOccDeviceState state;
    cudaOccResult result;
    if (!describe_device(k.major, k.minor, &device))
        return false;
    attributes.maxThreadsPerBlock = k.threads;
    attributes.numRegs = k.registers;
    attributes.sharedSizeBytes = (size_t)k.shared;
    attributes.numBlockBarriers = k.barriers;
    if (cudaOccMaxActiveBlocksPerMultiprocessor(&result, &device, &attributes, &state, k.threads,
                                                0) != CUDA_OCC_SUCCESS)
        return false;
    *blocks = result.activeBlocksPerMultiprocessor;
    return true;
}

static bool read_kernel(const char *line, Kernel *k)
{
    char file[256];
    int at = 0;
    if (std::sscanf(line, "%255s %d %d %d %d %d %d %d %d %n", file, &k->major, &k->minor,
                    &k->threads, &k->registers, &k->barriers, &k->shared, &k->stack, &k->spills,
                    &at) != 9 ||
        at == 0)
        return false;
    k->file = file;
    k->name = line + at;
    k->name.erase(k->name.find_last_not_of("\n") + 1);
    return !k->name.empty() && k->threads > 0;
}

int main(void)
{
    std::vector<Kernel> kernels;
    char line[8192];
    size_t file = std::strlen("file"), name = std::strlen("kernel");
    while (std::fgets(line, sizeof line, stdin)) {
        Kernel k;
        if (!read_kernel(line, &k)) {
            std::fprintf(stderr, "occupancy: not understood: %s", line);
            return 2;
        }
        file = k.file.size() > file ? k.file.size() : file;
        name = k.name.size() > name ? k.name.size() : name;
        kernels.push_back(k);
    }
    std::printf("%-*s  %-*s  %-6s  registers  spills  shared  threads  blocks  occupancy\n",
                (int)file, "file", (int)name, "kernel", "for");
    bool bad = false;
    for (const Kernel &k : kernels) {
        int blocks;
        if (!count_blocks(k, &blocks)) {
            std::fprintf(stderr, "occupancy: sm_%d%d: no numbers for %s\n", k.major, k.minor,
                         k.name.c_str());
            return 2;
        }
        const std::string arch = "sm_" + std::to_string(k.major) + std::to_string(k.minor);
        std::printf("%-*s  %-*s  %-6s  %9d  %6d  %6d  %7d  %6d  %7.0f %%\n", (int)file,
                    k.file.c_str(), (int)name, k.name.c_str(), arch.c_str(), k.registers,
                    k.spills + k.stack, k.shared, k.threads, blocks,
                    100.0 * blocks * k.threads / 2048);
        bad = bad || k.spills + k.stack > 0;
    }
    return bad;
}
