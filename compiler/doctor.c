/* doctor.c - mdlc doctor: what this machine has, each part tried by compiling and running a
 * small program that uses it. One line of what the program prints is shown. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "driver.h"
#include "files_out.h"
#include "toolchain.h"

typedef struct {
    Arena *arena;
    Toolchain tools;
    const char *problem; /* with mdlc's own files; NULL: none */
    const char *dir;
    bool verbose, quiet;
    Interrupts interrupts;
    int missing;         /* parts that the host target needs */
    bool simulated, gpu; /* where a kernel has run */
    int probes;          /* tried so far, for file names */
} Doctor;

typedef struct {
    const char *part, *package, *library, *source;
} Probe;

static const Probe c_probe = {"C compiler", "gcc libc6-dev", NULL,
                              "#include <stdio.h>\n"
                              "_Static_assert(__STDC_VERSION__ >= 201710L, \"C17\");\n"
                              "int main(void)\n"
                              "{\n"
                              "#if defined __AVX512F__\n"
                              "    puts(\"AVX-512\");\n"
                              "#elif defined __AVX2__\n"
                              "    puts(\"AVX2\");\n"
                              "#elif defined __AVX__\n"
                              "    puts(\"AVX\");\n"
                              "#elif defined __SSE2__\n"
                              "    puts(\"SSE2\");\n"
                              "#elif defined __ARM_FEATURE_SVE\n"
                              "    puts(\"SVE\");\n"
                              "#elif defined __ARM_NEON\n"
                              "    puts(\"NEON\");\n"
                              "#else\n"
                              "    puts(\"none that is known here\");\n"
                              "#endif\n"
                              "    return 0;\n"
                              "}\n"};

static const Probe library_probes[] = {
    {"jansson", "libjansson-dev", "-ljansson",
     "#include <jansson.h>\n#include <stdio.h>\n"
     "int main(void)\n"
     "{\n"
     "    json_t *j = json_loads(\"[1, 2]\", 0, NULL);\n"
     "    puts(JANSSON_VERSION);\n"
     "    int wrong = json_array_size(j) != 2;\n"
     "    json_decref(j);\n"
     "    return wrong;\n"
     "}\n"},
    {"xxhash", "libxxhash-dev", "-lxxhash",
     "#include <stdio.h>\n#include <xxhash.h>\n"
     "int main(void)\n"
     "{\n"
     "    unsigned v = XXH_versionNumber();\n"
     "    printf(\"%u.%u.%u\\n\", v / 10000, v / 100 % 100, v % 100);\n"
     "    return XXH64(\"a\", 1, 0) == 0xd24ec4f1a98c6e5bULL ? 0 : 1;\n"
     "}\n"},
    {"zlib", "zlib1g-dev", "-lz",
     "#include <stdio.h>\n#include <zlib.h>\n"
     "int main(void)\n"
     "{\n"
     "    puts(zlibVersion());\n"
     "    return crc32(0, (const Bytef *)\"123456789\", 9) == 0xcbf43926UL ? 0 : 1;\n"
     "}\n"},
};

/* Both runtimes: a product of 2 x 2 matrices on a team of one. */
static const char runtime_source[] =
    "#include <rt.h>\n"
    "int main(void)\n"
    "{\n"
    "    real a[] = {1, 2, 3, 4}, b[] = {5, 6, 7, 8}, c[4];\n"
    "    Team *team = team_new(1, false);\n"
    "    if (!team)\n"
    "        return 1;\n"
    "    gemm(team, false, false, 2, 2, 2, a, 2, b, 2, false, c, 2);\n"
    "    team_free(team);\n"
    "    int ok = c[0] == 19 && c[1] == 22 && c[2] == 43 && c[3] == 50;\n"
    "    return ok && mdl_main ? 0 : 1;\n"
    "}\n";

/* ------------------------------------------------------------------------ running */

/* The first line that a command printed; NULL when it did not end well. */
static const char *first_line(Doctor *d, Job *j, const char *holding)
{
    jobs_run(d->arena, &d->interrupts, j, 1, 1, d->verbose);
    char *text = j->end == JOB_NOT_BEGUN ? NULL : file_read(d->arena, j->log, 64 << 10, NULL);
    if (j->end != JOB_DONE || !text) {
        if (d->verbose && text)
            fputs(text, stderr);
        return NULL;
    }
    char *line = holding ? strstr(text, holding) : text;
    if (!line)
        return "";
    line[strcspn(line, "\n")] = '\0';
    return line;
}

/* Runs a program with up to two arguments. */
static const char *ask(Doctor *d, const char *program, const char *argument, const char *more,
                       const char *holding)
{
    Job j = {.log = arena_printf(d->arena, "%s/ask.log", d->dir)};
    words_split(d->arena, &j.words, program);
    if (argument)
        VEC_PUSH(d->arena, &j.words, argument);
    if (more)
        VEC_PUSH(d->arena, &j.words, more);
    return first_line(d, &j, holding);
}

typedef enum { WORKS, MISSING, WRONG } Finding;

/* Compiles, links and runs; *said: the first line that the program printed. */
static Finding try_program(Doctor *d, const Toolchain *t, const char *source, const char *library,
                           const char **said)
{
    Arena *a = d->arena;
    const char *base = arena_printf(a, "%s/probe%d", d->dir, d->probes++);
    const char *file = arena_printf(a, "%s.c", base), *object = arena_printf(a, "%s.o", base);
    Toolchain with = *t;
    if (library) {
        with.libraries = (Words){0};
        if (library[0])
            VEC_PUSH(a, &with.libraries, library);
    }
    if (!build_replace_file(file, source))
        return MISSING;
    Job compile = toolchain_compile(a, &with, file, object);
    Job link = toolchain_link(a, &with, &object, 1, base);
    if (!first_line(d, &compile, NULL) || !first_line(d, &link, NULL))
        return MISSING;
    Job run = {.log = arena_printf(a, "%s.out", base)};
    VEC_PUSH(a, &run.words, base);
    *said = first_line(d, &run, NULL);
    return *said ? WORKS : WRONG;
}

/* ----------------------------------------------------------------------- the table */

static void row(const Doctor *d, const char *part, const char *state, const char *detail)
{
    const bool good = state[0] == 'o' || state[0] == '-'; /* "ok", "-"; else "missing", "fails" */
    if (!d->quiet || !good)
        printf("%-16s %-8s %s\n", part, state, detail);
}

static void row_found(Doctor *d, const char *part, Finding f, const char *detail,
                      const char *package)
{
    if (f == WORKS) {
        row(d, part, "ok", detail);
        return;
    }
    d->missing++;
    row(d, part, f == MISSING ? "missing" : "fails",
        f == MISSING
            ? arena_printf(d->arena, "on Debian and Ubuntu: apt install %s", package)
            : arena_printf(d->arena, "compiles, but gives wrong results; reinstall %s", package));
}

static bool check_compiler(Doctor *d)
{
    const char *vector = "", *name = words_show(d->arena, &d->tools.cc);
    const char *version = ask(d, name, "--version", NULL, NULL);
    Finding f = try_program(d, &d->tools, c_probe.source, "", &vector);
    if (version && f == MISSING) {
        d->missing++;
        row(d, c_probe.part, "fails",
            arena_printf(d->arena,
                         "%s does not compile and link C17 with the flags of a build; "
                         "-v shows why",
                         name));
        return false;
    }
    row_found(d, c_probe.part, f, arena_printf(d->arena, "%s: %s", name, version ? version : "C17"),
              c_probe.package);
    if (f == WORKS)
        row(d, "vectors", "ok", vector);
    return f == WORKS;
}

static void check_libraries(Doctor *d)
{
    for (size_t i = 0; i < sizeof library_probes / sizeof *library_probes; i++) {
        const Probe *p = &library_probes[i];
        const char *said = "";
        Finding f = try_program(d, &d->tools, p->source, p->library, &said);
        row_found(d, p->part, f, said, p->package);
    }
}

static void check_runtime(Doctor *d, bool f64)
{
    const char *part = f64 ? "runtime, f64" : "runtime", *said = "";
    Toolchain t;
    const char *problem = toolchain_find(d->arena, &t, f64);
    Finding f = problem ? MISSING : try_program(d, &t, runtime_source, NULL, &said);
    if (f == WORKS) {
        row(d, part, "ok", t.home);
        return;
    }
    d->missing++;
    row(d, part, problem ? "missing" : "fails",
        problem ? problem : arena_printf(d->arena, "%s/lib/mdl does not link and run", t.home));
}

static void show_machine(Doctor *d)
{
    int cores = cores_online();
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    row(d, "cores", "ok", arena_printf(d->arena, "%d", cores));
    if (pages > 0 && page > 0)
        row(d, "memory", "ok", show_bytes(d->arena, (int64_t)pages * page));
}

/* A kernel on a GPU, real or simulated; prints the GPU's name. */
static const char kernel_source[] =
    "#include <cstdio>\n"
    "#include <cuda_runtime.h>\n"
    "static __global__ void add(int *x)\n"
    "{\n"
    "    x[threadIdx.x] += (int)threadIdx.x;\n"
    "}\n"
    "int main()\n"
    "{\n"
    "    int *x, y[32], wrong = 0;\n"
    "    cudaDeviceProp p;\n"
    "    if (cudaMalloc(&x, sizeof y) || cudaMemset(x, 0, sizeof y) ||\n"
    "        cudaGetDeviceProperties(&p, 0))\n"
    "        return 1;\n"
    "    add<<<1, 32>>>(x);\n"
    "    if (cudaMemcpy(y, x, sizeof y, cudaMemcpyDeviceToHost) || cudaFree(x))\n"
    "        return 1;\n"
    "    for (int i = 0; i < 32; i++)\n"
    "        wrong += y[i] != i;\n"
    "    std::puts(p.name);\n"
    "    return wrong;\n"
    "}\n";

/* The name of the GPU that ran a kernel; NULL: none did, and *why. */
static const char *try_kernel(Doctor *d, Target target, const char **why)
{
    Arena *a = d->arena;
    Options o = {.target = target};
    Toolchain t;
    const char *said = NULL;
    *why = toolchain_find_gpu(a, &d->interrupts, &t, &o, false, d->dir);
    if (*why)
        return NULL;
    Words libraries = {0}; /* those of CUDA, without the trainer's own */
    for (int i = 0; i < t.libraries.n; i++)
        if (strncmp(t.libraries.at[i], "-lmdl_", 6) != 0)
            VEC_PUSH(a, &libraries, t.libraries.at[i]);
    t.libraries = libraries;
    const char *base = arena_printf(a, "%s/kernel%d", d->dir, (int)target);
    const char *file = arena_printf(a, "%s.cu", base), *object = arena_printf(a, "%s.o", base);
    *why = "nvcc compiles and links no kernel; -v shows why";
    if (!build_replace_file(file, kernel_source))
        return NULL;
    Job compile = toolchain_compile(a, &t, file, object);
    Job link = toolchain_link(a, &t, &object, 1, base);
    if (!first_line(d, &compile, NULL) || !first_line(d, &link, NULL))
        return NULL;
    Job run = {.log = arena_printf(a, "%s.out", base)};
    VEC_PUSH(a, &run.words, base);
    said = first_line(d, &run, NULL);
    *why = "a kernel does not run; -v shows why";
    return said;
}

static void show_gpu(Doctor *d)
{
    const char *given = getenv("NVCC"), *nvcc = given && given[0] ? given : "nvcc", *why;
    const char *version = ask(d, nvcc, "--version", NULL, "release");
    bool driver = driver_here();
    if (!version) {
        row(d, "nvcc", "-", "not found: the targets cuda and sim are not available");
        row(d, "GPU", "-",
            driver ? "there is a driver; nvcc is missing" : "none, or no driver for it");
        return;
    }
    row(d, "nvcc", "ok", version);
    const char *simulated = try_kernel(d, TARGET_SIM, &why);
    row(d, "simulated GPU", simulated ? "ok" : "-", simulated ? simulated : why);
    const char *gpu = driver ? try_kernel(d, TARGET_CUDA, &why) : NULL;
    row(d, "GPU", gpu ? "ok" : "-", gpu ? gpu : driver ? why : "none, or no driver for it");
    d->simulated = simulated != NULL;
    d->gpu = gpu != NULL;
}

/* The last line: which targets work. */
static void conclude(const Doctor *d)
{
    if (d->missing) {
        printf("\nThe host target does not work here: see above what is missing.\n");
        return;
    }
    if (d->quiet)
        return;
    printf("\nThe host target works here.");
    if (d->simulated)
        printf(" The target sim does, too.");
    if (d->gpu)
        printf(" The target cuda does, too.");
    else if (d->simulated)
        printf(" Trainers for cuda can be built, but no GPU is here to run them.");
    else
        printf(" The targets cuda and sim do not.");
    printf("\n");
}

static void examine(Doctor *d)
{
    if (check_compiler(d)) {
        check_libraries(d);
        check_runtime(d, false);
        check_runtime(d, true);
    } else if (d->problem) {
        row(d, "runtime", "missing", d->problem);
    }
    show_machine(d);
    show_gpu(d);
    conclude(d);
}

int doctor(const Options *o)
{
    Doctor d = {.arena = arena_new(), .verbose = o->verbose, .quiet = o->quiet};
    d.problem = toolchain_find(d.arena, &d.tools, false);
    interrupts_hold(&d.interrupts);
    d.dir = scratch_make(d.arena);
    if (d.dir)
        examine(&d);
    fflush(stdout);
    scratch_remove(d.arena, d.dir);
    interrupts_release(&d.interrupts);
    int code = d.dir && !d.missing && !ferror(stdout) ? EXIT_DONE : EXIT_USE;
    arena_free(d.arena);
    return code;
}
