/* toolchain_gpu.c - how trainers for GPUs are compiled and linked: C by the C compiler, kernels by
 * nvcc.
 *
 * Everything of CUDA is found from nvcc's own place. The simulated GPU is no other program: it
 * wants what nvcc keeps out of a trainer otherwise, PTX as text and the lines of the source, and
 * its own libraries in the place of NVIDIA's. */
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "files_out.h"
#include "toolchain.h"

/* From Ampere to Blackwell. */
static const int default_archs[] = {80, 86, 89, 90, 100, 120};
enum { DEFAULT_ARCHS = sizeof default_archs / sizeof *default_archs };

/* ---------------------------------------------------------------------- finding */

const char *toolchain_cuda_root(Arena *a, const char *nvcc)
{
    const char *file = program_find(a, nvcc);
    return file ? folder_above(a, file) : NULL;
}

/* $NVCC split at spaces, or nvcc. */
static Words find_nvcc(Arena *a)
{
    Words words = {0};
    const char *given = getenv("NVCC");
    words_split(a, &words, given ? given : "");
    if (words.n == 0)
        VEC_PUSH(a, &words, "nvcc");
    return words;
}

static const char driver_file[] = "/proc/driver/nvidia/version";

bool driver_here(void)
{
    if (access(driver_file, R_OK) == 0)
        return true;
    /* the Linux of Windows has a driver, and no such file */
    void *library = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
    return library && dlclose(library) == 0;
}

bool gpu_here(void)
{
    Arena *a = arena_new();
    Words nvcc = find_nvcc(a);
    bool here = access(driver_file, R_OK) == 0 && program_find(a, nvcc.at[0]) != NULL;
    arena_free(a);
    return here;
}

/* The folder of a library below CUDA's; NULL: it is not there. */
static const char *library_dir(Arena *a, const char *root, const char *file)
{
    static const char *const dirs[] = {"lib64",
                                       "lib",
                                       "targets/x86_64-linux/lib",
                                       "targets/sbsa-linux/lib",
                                       "lib/x86_64-linux-gnu",
                                       "lib/aarch64-linux-gnu"};
    for (size_t i = 0; i < sizeof dirs / sizeof *dirs; i++)
        if (access(arena_printf(a, "%s/%s/%s", root, dirs[i], file), R_OK) == 0)
            return arena_printf(a, "%s/%s", root, dirs[i]);
    return NULL;
}

/* ----------------------------------------------------------------- architectures */

/* What a program prints; NULL where it does not end well. */
static char *ask(Arena *a, Interrupts *held, const char *dir, const char *const *words)
{
    Job j = {.log = arena_printf(a, "%s/ask.log", dir)};
    push_all(a, &j.words, words);
    jobs_run(a, held, &j, 1, 1, false);
    return j.end == JOB_DONE ? file_read(a, j.log, 64 << 10, NULL) : NULL;
}

static void add_arch(Arena *a, Toolchain *t, const char *name)
{
    VEC_PUSH(a, &t->nvcc_flags, "-gencode");
    VEC_PUSH(a, &t->nvcc_flags, arena_printf(a, "arch=compute_%s,code=sm_%s", name, name));
}

/* For GPUs that come later: the driver compiles it then. */
static void add_ptx(Arena *a, Toolchain *t, const char *name)
{
    VEC_PUSH(a, &t->nvcc_flags, "-gencode");
    VEC_PUSH(a, &t->nvcc_flags, arena_printf(a, "arch=compute_%s,code=compute_%s", name, name));
}

/* The GPUs of this machine, as "8.0" lines; false: there are none. */
static bool add_own_archs(Arena *a, Interrupts *held, Toolchain *t, const char *dir)
{
    static const char *const query[] = {"nvidia-smi", "--query-gpu=compute_cap",
                                        "--format=csv,noheader", NULL};
    char *text = program_find(a, query[0]) ? ask(a, held, dir, query) : NULL;
    const char *last = NULL;
    for (char *line = text; line && *line;) {
        size_t n = strcspn(line, "\n");
        int major, minor;
        if (sscanf(line, "%3d.%1d", &major, &minor) == 2 && major > 0) {
            const char *name = arena_printf(a, "%d%d", major, minor);
            if (!last || strcmp(last, name) != 0)
                add_arch(a, t, name);
            last = name;
        }
        line += n + (line[n] == '\n');
    }
    if (last)
        add_ptx(a, t, last);
    return last != NULL;
}

/* Of the default list what this nvcc knows. */
static void add_default_archs(Arena *a, Interrupts *held, Toolchain *t, const char *dir)
{
    const char *query[] = {t->nvcc.at[0], "--list-gpu-arch", NULL};
    const char *known = ask(a, held, dir, query), *last = NULL;
    for (int i = 0; i < DEFAULT_ARCHS; i++) {
        const char *name = arena_printf(a, "%d", default_archs[i]);
        if (known && !strstr(known, arena_printf(a, "compute_%s\n", name)))
            continue;
        add_arch(a, t, name);
        last = name;
    }
    if (last)
        add_ptx(a, t, last);
}

static void set_archs(Arena *a, Interrupts *held, Toolchain *t, const Options *o, const char *dir)
{
    if (o->target == TARGET_SIM) {
        add_ptx(a, t, "80");
        VEC_PUSH(a, &t->nvcc_flags, "-no-compress");
        return;
    }
    if (!o->gpu_arch) {
        if (!add_own_archs(a, held, t, dir))
            add_default_archs(a, held, t, dir);
        return;
    }
    const char *name = NULL;
    for (const char *p = o->gpu_arch; *p;) {
        size_t n = strcspn(p, ",");
        name = arena_strndup(a, p + 3, n - 3);
        add_arch(a, t, name);
        p += n + (p[n] == ',');
    }
    if (name)
        add_ptx(a, t, name);
}

/* ------------------------------------------------------------------------- flags */

static void set_compiling(Arena *a, Toolchain *t, const char *root, bool lineinfo, bool lines)
{
    static const char *const c_flags[] = {"-std=c17", "-O2", "-Wall", "-Wextra", "-isystem", NULL};
    static const char *const flags[] = {"-std=c++17", "-O3", "-Xcompiler", "-Wall,-Wextra", NULL};
    const char *include = arena_printf(a, "-I%s/include/mdl", t->home);
    t->flags = (Words){0};
    push_all(a, &t->flags, c_flags);
    VEC_PUSH(a, &t->flags, arena_printf(a, "%s/include", root));
    VEC_PUSH(a, &t->flags, include);
    push_all(a, &t->nvcc_flags, flags);
    VEC_PUSH(a, &t->nvcc_flags, include);
    VEC_PUSH(a, &t->nvcc_flags, arena_printf(a, "-I%s", t->kernels));
    if (lineinfo)
        VEC_PUSH(a, &t->nvcc_flags, "-lineinfo");
    if (lines) { /* of the host's calls, for reports */
        VEC_PUSH(a, &t->flags, "-g");
        VEC_PUSH(a, &t->nvcc_flags, "-g");
    }
}

/* NVIDIA's own libraries; the runtime goes into the trainer. NULL, or what is missing. */
static const char *add_cuda(Arena *a, Toolchain *t, const char *root, bool nccl)
{
    const char *dir = library_dir(a, root, "libcublas.so");
    if (!dir)
        return arena_printf(
            a, "cannot find libcublas.so below %s; the CUDA Toolkit is not complete", root);
    VEC_PUSH(a, &t->libraries, arena_printf(a, "-L%s", dir));
    VEC_PUSH(a, &t->libraries, arena_printf(a, "-Wl,-rpath,%s", dir));
    if (nccl)
        VEC_PUSH(a, &t->libraries, "-lnccl");
    bool runtime = library_dir(a, root, "libcudart_static.a") != NULL;
    VEC_PUSH(a, &t->libraries, "-lcublas");
    VEC_PUSH(a, &t->libraries, "-lcublasLt");
    VEC_PUSH(a, &t->libraries, runtime ? "-lcudart_static" : "-lcudart");
    VEC_PUSH(a, &t->libraries, "-ldl");
    VEC_PUSH(a, &t->libraries, "-lrt");
    return NULL;
}

static const char *add_simulator(Arena *a, Toolchain *t, bool nccl)
{
    const char *dir = arena_printf(a, "%s/lib/mdl/sim", t->home);
    if (access(arena_printf(a, "%s/libcudart.so.13", dir), R_OK) != 0)
        return arena_printf(a,
                            "there is no simulated GPU in %s; it is built where CMake finds the "
                            "CUDA Toolkit",
                            dir);
    VEC_PUSH(a, &t->libraries, arena_printf(a, "-L%s", dir));
    VEC_PUSH(a, &t->libraries, arena_printf(a, "-Wl,-rpath,%s", dir));
    if (nccl)
        VEC_PUSH(a, &t->libraries, "-l:libnccl.so.2");
    VEC_PUSH(a, &t->libraries, "-l:libcublas.so.13");
    VEC_PUSH(a, &t->libraries, "-l:libcublasLt.so.13");
    VEC_PUSH(a, &t->libraries, "-l:libcudart.so.13");
    VEC_PUSH(a, &t->libraries, "-ldl");
    return NULL;
}

const char *toolchain_find_gpu(Arena *a, Interrupts *held, Toolchain *t, const Options *o,
                               bool nccl, const char *dir)
{
    const char *problem = toolchain_find(a, t, false);
    if (problem)
        return problem;
    t->nvcc = find_nvcc(a);
    t->nccl = nccl;
    const char *root = toolchain_cuda_root(a, t->nvcc.at[0]);
    if (!root)
        return arena_printf(a,
                            "cannot find %s: install the CUDA Toolkit (nvcc on the PATH, or its "
                            "place in NVCC),\n  or build for this machine's processor with "
                            "--target host",
                            t->nvcc.at[0]);
    const char *runtime = arena_printf(a, "%s/lib/mdl/libmdl_rt_cuda.a", t->home);
    t->kernels = arena_printf(a, "%s/share/mdl/kernels", t->home);
    if (access(runtime, R_OK) != 0 || access(t->kernels, R_OK) != 0)
        return arena_printf(a,
                            "cannot find %s: mdlc was built without CUDA; build it where CMake "
                            "finds the CUDA Toolkit",
                            runtime);
    set_archs(a, held, t, o, dir);
    bool sim = o->target == TARGET_SIM;
    set_compiling(a, t, root, o->lineinfo || sim, sim);
    Words rest = t->libraries;
    t->libraries = (Words){0};
    VEC_PUSH(a, &t->libraries, rest.at[0]); /* -L of the runtime */
    VEC_PUSH(a, &t->libraries, "-lmdl_rt_cuda");
    VEC_PUSH(a, &t->libraries, KERNELS_LIBRARY);
    for (int i = 2; i < rest.n; i++)
        VEC_PUSH(a, &t->libraries, rest.at[i]);
    t->archives.n = 0;
    VEC_PUSH(a, &t->archives, runtime);
    VEC_PUSH(a, &t->archives, arena_printf(a, "%s/lib/mdl/libmdl_kernels.a", t->home));
    problem = o->target == TARGET_SIM ? add_simulator(a, t, nccl) : add_cuda(a, t, root, nccl);
    VEC_PUSH(a, &t->libraries, "-lstdc++");
    return problem;
}
