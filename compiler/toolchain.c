/* toolchain.c - how the C compiler is called.
 *
 * mdlc finds its runtime from its own place (bin/mdlc beside include/mdl and lib/mdl), in
 * a build tree as in an installation; $MDL_HOME names another. */
#include "toolchain.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "driver.h"
#include "files_out.h"

/* NULL, or what is wrong. */
static const char *find_home(Arena *a, Toolchain *t)
{
    const char *given = getenv("MDL_HOME");
    t->home = given && given[0] ? given : folder_above(a, "/proc/self/exe");
    const char *header = arena_printf(a, "%s/include/mdl/rt.h", t->home ? t->home : "");
    if (t->home && access(header, R_OK) == 0)
        return NULL;
    return arena_printf(a, "cannot find the runtime, %s; %s", header,
                        given && given[0]
                            ? "MDL_HOME names the wrong directory"
                            : "set MDL_HOME to the directory that mdlc is installed in");
}

static void set_flags(Arena *a, Toolchain *t, bool f64)
{
    /* Where a vectorised loop and its scalar rest must give the same bits, a product and a
     * sum are not to become one operation in the one and two in the other. */
    static const char *const flags[] = {"-std=c17",
                                        "-O3",
                                        "-march=native",
#ifdef __x86_64__
                                        "-mprefer-vector-width=512",
#endif
                                        "-ffp-contract=off",
                                        "-fno-math-errno",
                                        "-fno-trapping-math",
                                        "-Wall",
                                        "-Wextra",
                                        NULL};
    push_all(a, &t->flags, flags);
    if (f64)
        VEC_PUSH(a, &t->flags, "-DMDL_F64");
}

/* What the kernels were configured to need besides: words of lib/mdl/libraries. */
static void add_configured(Arena *a, Toolchain *t)
{
    char line[256] = "";
    FILE *f = fopen(arena_printf(a, "%s/lib/mdl/libraries", t->home), "r");
    if (f && fgets(line, sizeof line, f))
        words_split(a, &t->libraries, line);
    if (f)
        fclose(f);
}

static void set_libraries(Arena *a, Toolchain *t, bool f64)
{
    VEC_PUSH(a, &t->flags, arena_printf(a, "-I%s/include/mdl", t->home));
    const char *f = f64 ? "_f64" : "";
    VEC_PUSH(a, &t->libraries, arena_printf(a, "-L%s/lib/mdl", t->home));
    VEC_PUSH(a, &t->libraries, arena_printf(a, "-lmdl_rt%s", f));
    VEC_PUSH(a, &t->libraries, arena_printf(a, "-lmdl_kernels%s", f));
    static const char *const system[] = {"-ljansson", "-lxxhash", "-lz", "-lpthread", "-lm", NULL};
    push_all(a, &t->libraries, system);
    add_configured(a, t);
    VEC_PUSH(a, &t->archives, arena_printf(a, "%s/lib/mdl/libmdl_rt%s.a", t->home, f));
    VEC_PUSH(a, &t->archives, arena_printf(a, "%s/lib/mdl/libmdl_kernels%s.a", t->home, f));
}

const char *toolchain_find(Arena *a, Toolchain *t, bool f64)
{
    *t = (Toolchain){0};
    const char *cc = getenv("CC"), *extra = getenv("MDL_CFLAGS");
    words_split(a, &t->cc, cc ? cc : "");
    if (t->cc.n == 0)
        VEC_PUSH(a, &t->cc, "cc");
    words_split(a, &t->extra, extra ? extra : "");
    set_flags(a, t, f64);
    const char *problem = find_home(a, t);
    if (problem)
        return problem;
    set_libraries(a, t, f64);
    for (int i = 0; i < t->archives.n; i++)
        if (access(t->archives.at[i], R_OK) != 0)
            return arena_printf(a, "cannot read %s: %s; the installation is not complete",
                                t->archives.at[i], strerror(errno));
    return NULL;
}

Job toolchain_compile(Arena *a, const Toolchain *t, const char *source, const char *object)
{
    Job j = {.log = arena_printf(a, "%s.log", object)};
    size_t n = strlen(source);
    bool kernels = n > 3 && strcmp(source + n - 3, ".cu") == 0;
    push_words(a, &j.words, kernels ? &t->nvcc : &t->cc);
    push_words(a, &j.words, kernels ? &t->nvcc_flags : &t->flags);
    if (!kernels)
        push_words(a, &j.words, &t->extra);
    else if (n > 9 && strcmp(source + n - 9, "/fused.cu") == 0)
        VEC_PUSH(a, &j.words, "-fmad=false"); /* the same bits, fused or not */
    const char *const rest[] = {"-c", source, "-o", object, NULL};
    push_all(a, &j.words, rest);
    return j;
}

Job toolchain_link(Arena *a, const Toolchain *t, const char *const *objects, int n,
                   const char *program)
{
    Job j = {.log = arena_printf(a, "%s.log", program)};
    push_words(a, &j.words, &t->cc);
    push_words(a, &j.words, &t->extra);
    for (int i = 0; i < n; i++)
        VEC_PUSH(a, &j.words, objects[i]);
    VEC_PUSH(a, &j.words, "-o");
    VEC_PUSH(a, &j.words, program);
    push_words(a, &j.words, &t->libraries);
    return j;
}

bool toolchain_works(Arena *a, Interrupts *held, const Toolchain *t, bool nvcc, const char *dir)
{
    const char *source = arena_printf(a, "%s/probe.%s", dir, nvcc ? "cu" : "c");
    const char *text = arena_printf(a, "#include <rt.h>\n%sint main(void)\n{\n    return 0;\n}\n",
                                    t->nccl ? "#include <nccl.h>\n" : "");
    if (!build_replace_file(source, nvcc ? "__global__ void probe()\n{\n}\n" : text))
        return false;
    Job j = toolchain_compile(a, t, source, arena_printf(a, "%s/probe.o", dir));
    jobs_run(a, held, &j, 1, 1, false);
    return j.end == JOB_DONE;
}

bool toolchain_is_nvcc(const Toolchain *t, const Job *j)
{
    return t->nvcc.n && strcmp(j->words.at[0], t->nvcc.at[0]) == 0;
}

const char *toolchain_program(const Toolchain *t, const Job *j)
{
    return toolchain_is_nvcc(t, j)                    ? "nvcc"
           : strcmp(j->words.at[0], t->cc.at[0]) == 0 ? "the C compiler"
                                                      : j->words.at[0];
}

void toolchain_say_missing(const Toolchain *t, const Job *j)
{
    if (toolchain_is_nvcc(t, j)) {
        fprintf(
            stderr,
            "mdlc: cannot run %s: %s\n"
            "  install the CUDA Toolkit (nvcc on the PATH, or its place in $NVCC), or build for "
            "this\n  machine's processor with --target host\n",
            t->nvcc.at[0], strerror(j->number));
        return;
    }
    if (strcmp(j->words.at[0], t->cc.at[0]) != 0) {
        fprintf(stderr,
                "mdlc: cannot run %s: %s\n"
                "  install it (on Debian and Ubuntu: apt install binutils)\n",
                j->words.at[0], strerror(j->number));
        return;
    }
    fprintf(stderr,
            "mdlc: cannot run the C compiler, %s: %s\n"
            "  install one (on Debian and Ubuntu: apt install gcc libc6-dev), or set CC\n",
            t->cc.at[0], strerror(j->number));
}
