/* options.c - the command line: argv in, a checked Options out.
 *
 * Operands and options may stand in any order; what follows "--" is operands, or for `run`
 * the trainer's. Whatever is wrong is said in one line, with the nearest right word. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "options.h"
#include "toolchain.h"

/* What plans for GPUs are counted with where the model does not say. */
#define ASSUMED_GPU "a100_80g"

typedef struct {
    Arena *arena;
    Options *o;
    VEC(const char *) operands; /* the first is the command */
    VEC(const OptionText *) given;
    VEC(const char *) defines, sets, include_dirs;
    bool help, version;
} CommandLine;

static bool __attribute__((format(printf, 1, 2))) wrong(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("mdlc: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    return false;
}

/* "; did you mean X?", or nothing. */
static const char *slip(Arena *a, const char *word, const char *const *words, int n)
{
    const char *near = diag_nearest(word, words, n);
    return near ? arena_printf(a, "; did you mean %s?", near) : "";
}

static const char *list(Arena *a, const char *const *words, int n)
{
    Text t = {.arena = a};
    for (int i = 0; i < n; i++)
        text_printf(&t, "%s%s", i == 0 ? "" : i + 1 < n ? ", " : " or ", words[i]);
    return t.at;
}

/* Which of the words it is; -1, with a message, when it is none. */
static int choice(Arena *a, const char *option, const char *word, const char *const *words, int n)
{
    for (int i = 0; i < n; i++)
        if (strcmp(word, words[i]) == 0)
            return i;
    wrong("--%s=%s: it is one of %s%s", option, word, list(a, words, n), slip(a, word, words, n));
    return -1;
}

/* ---------------------------------------------------------------------- options */

static bool take_target(CommandLine *l, const char *word)
{
    static const char *const targets[] = {"host", "cuda", "sim"};
    int target = choice(l->arena, "target", word, targets, 3);
    if (target < 0)
        return false;
    l->o->target = (Target)target;
    l->o->target_given = true;
    return true;
}

/* sm_80,sm_90a: names of architectures, separated by commas. */
static bool take_gpu_arch(CommandLine *l, const char *text)
{
    const char *p = text;
    while (true) {
        size_t digits = strncmp(p, "sm_", 3) == 0 ? strspn(p + 3, "0123456789") : 0;
        if (digits < 2 || digits > 3)
            break;
        p += 3 + digits;
        p += *p == 'a' || *p == 'f';
        if (*p == '\0') {
            l->o->gpu_arch = text;
            return true;
        }
        if (*p++ != ',')
            break;
    }
    return wrong("--gpu-arch %s: it takes names such as sm_80 or sm_80,sm_90", text);
}

static bool take_dump(CommandLine *l, const char *word)
{
    static const char *const passes[] = {"parse", "elaborate", "simplify", "precision",
                                         "differentiate", "place", "fuse", "lower", "schedule",
                                         "communicate", "order", "allocate",
                                         /* by what they make */
                                         "ast", "graph", "gradients", "program"};
    int n = (int)(sizeof passes / sizeof *passes);
    if (choice(l->arena, "dump", word, passes, n) < 0)
        return false;
    VEC_PUSH(l->arena, &l->o->dumps, word);
    return true;
}

static bool take_diagnostics(CommandLine *l, const char *word)
{
    static const char *const forms[] = {"text", "json"};
    int form = choice(l->arena, "diagnostics", word, forms, 2);
    l->o->json_diagnostics = form == 1;
    return form >= 0;
}

/* NAME=VALUE with both there. */
static bool assigns(const char *option, const char *want, const char *text)
{
    const char *equals = strchr(text, '=');
    return (equals && equals != text && equals[1]) ||
           wrong("%s %s: it takes %s, without spaces around the =", option, text, want);
}

static bool take_file(const char *option, const char **file, const char *path)
{
    *file = path;
    return path[0] || wrong("--%s needs the name of a file, or - for the standard output", option);
}

static bool take_text(CommandLine *l, int key, const char *text)
{
    Options *o = l->o;
    switch (key) {
    case OPTION_DEFINE:
        VEC_PUSH(l->arena, &l->defines, text);
        return assigns("-D", "NAME=VALUE", text);
    case OPTION_SET:
        VEC_PUSH(l->arena, &l->sets, text);
        return assigns("--set", "BLOCK.KEY=VALUE", text);
    case OPTION_INCLUDE:
        VEC_PUSH(l->arena, &l->include_dirs, text);
        return text[0] || wrong("-I needs the name of a directory");
    case OPTION_OUTPUT:
        o->output = text;
        return text[0] || wrong("-o needs a name");
    case OPTION_SCHEDULE_FILE:
        o->schedule_file = text;
        return text[0] || wrong("--schedule-file needs the name of a file");
    case OPTION_JSON:
        return take_file("json", &o->json, text);
    case OPTION_SVG:
        return take_file("svg", &o->svg, text);
    case OPTION_COMPARE:
        return take_file("compare", &o->compare, text);
    case OPTION_APPLY:
        o->search = true;
        o->apply = text;
        return text[0] || wrong("--apply needs the name of a file");
    case OPTION_DOT:
        return take_file("dot", &o->dot, text);
    case OPTION_CSV:
        return take_file("csv", &o->csv, text);
    case OPTION_PROFILE:
        o->profile = text;
        return text[0] || wrong("--profile needs the name of a file");
    default:
        return take_file("trace", &o->trace, text);
    }
}

static bool take_option(CommandLine *l, int key)
{
    Options *o = l->o;
    switch (key) {
    case OPTION_VERBOSE:
    case OPTION_QUIET: /* the last one counts */
        o->verbose = key == OPTION_VERBOSE;
        o->quiet = key == OPTION_QUIET;
        return true;
    case OPTION_HELP:
        return l->help = true;
    case OPTION_VERSION:
        return l->version = true;
    case OPTION_CHECK:
        return o->fmt_check = true;
    case OPTION_SEARCH:
        return o->search = true;
    case OPTION_TARGET:
        return take_target(l, optarg);
    case OPTION_GPU_ARCH:
        return take_gpu_arch(l, optarg);
    case OPTION_LINEINFO:
        return l->o->lineinfo = true;
    case OPTION_DUMP:
        return take_dump(l, optarg);
    case OPTION_DIAGNOSTICS:
        return take_diagnostics(l, optarg);
    default:
        return take_text(l, key, optarg);
    }
}

static const OptionText *option_find(int key)
{
    for (int i = 0; i < option_count; i++)
        if (option_texts[i].key == key)
            return &option_texts[i];
    return NULL;
}

/* Commands that run the trainer: what follows -- is for it. */
static bool has_trainer(const CommandLine *l)
{
    const char *word = l->operands.n ? l->operands.at[0] : "";
    return strcmp(word, command_texts[COMMAND_RUN].name) == 0 ||
           strcmp(word, command_texts[COMMAND_PROFILE].name) == 0;
}

static bool unknown_option(const CommandLine *l, char **argv)
{
    Arena *a = l->arena;
    const char *word = arena_printf(a, "-%c", optopt);
    if (optopt == 0) /* a long one */
        word = arena_strndup(a, argv[optind - 1], strcspn(argv[optind - 1], "="));
    const OptionText *known = optopt ? option_find(optopt) : NULL;
    if (known && !known->argument)
        return wrong("--%s takes no value", known->name);
    if (has_trainer(l))
        return wrong("unknown option %s; options of the trainer go after --: mdlc %s m.mdl -- %s",
                     word, l->operands.at[0], word);
    VEC(const char *) names = {0};
    for (int i = 0; i < option_count; i++)
        VEC_PUSH(a, &names, arena_printf(a, "--%s", option_texts[i].name));
    return wrong("unknown option %s%s (mdlc --help lists them)", word,
                 slip(a, word, names.at, names.n));
}

/* Reads options and operands; the tables that getopt wants are made from ours. */
static bool read_words(CommandLine *l, int argc, char **argv)
{
    Arena *a = l->arena;
    struct option *longs = ARENA_ARRAY(a, struct option, option_count + 1);
    Text letters = {.arena = a};
    text_add(&letters, "-:"); /* operands in their places, messages ours */
    for (int i = 0; i < option_count; i++) {
        const OptionText *t = &option_texts[i];
        longs[i] =
            (struct option){t->name, t->argument ? required_argument : no_argument, NULL, t->key};
        if (t->letter)
            text_printf(&letters, "%c%s", t->letter, t->argument ? ":" : "");
    }
    opterr = 0;
    for (int key; (key = getopt_long(argc, argv, letters.at, longs, NULL)) != -1;) {
        if (key == 1)
            VEC_PUSH(a, &l->operands, optarg);
        else if (key == ':')
            return wrong("%s needs a value", argv[optind - 1]);
        else if (key == '?')
            return unknown_option(l, argv);
        else {
            VEC_PUSH(a, &l->given, option_find(key));
            if (!take_option(l, key))
                return false;
        }
    }
    l->o->run_args = argv + argc;
    if (has_trainer(l))
        l->o->run_args = argv + optind;
    else
        for (int i = optind; i < argc; i++)
            VEC_PUSH(a, &l->operands, argv[i]);
    return true;
}

/* --------------------------------------------------------------------- commands */

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && strcmp(s + n - m, end) == 0;
}

static bool find_command(CommandLine *l)
{
    const char *word = l->operands.at[0], *names[COMMANDS];
    for (int i = 0; i < COMMANDS; i++) {
        names[i] = command_texts[i].name;
        if (strcmp(word, names[i]) == 0) {
            l->o->command = (Command)i;
            return true;
        }
    }
    if (ends_with(word, ".mdl"))
        return wrong("which command? For instance: mdlc build %s", word);
    const char *near = diag_nearest(word, names, COMMANDS);
    if (near)
        return wrong("unknown command %s; did you mean %s?", word, near);
    return wrong("unknown command %s; it is one of %s", word, list(l->arena, names, COMMANDS));
}

static bool options_fit(const CommandLine *l)
{
    for (int i = 0; i < l->given.n; i++) {
        const OptionText *t = l->given.at[i];
        if (t->commands & (1u << l->o->command))
            continue;
        Text where = {.arena = l->arena};
        for (int c = 0; c < COMMANDS; c++)
            if (t->commands & (1u << c))
                text_printf(&where, "%s%s", where.n ? ", " : "", command_texts[c].name);
        return wrong("mdlc %s does not take --%s, which is for %s",
                     command_texts[l->o->command].name, t->name, where.at);
    }
    return true;
}

/* Options that would do nothing for this target. The simulated GPU has one architecture, and its
 * kernels know their lines in any case. */
static bool target_fits(const Options *o)
{
    static const char *const names[] = {"host", "cuda", "sim"};
    const char *option = o->gpu_arch && o->target != TARGET_CUDA   ? "gpu-arch"
                         : o->lineinfo && o->target == TARGET_HOST ? "lineinfo"
                                                                   : NULL;
    if (o->target != TARGET_HOST && (o->profile || o->command == COMMAND_PROFILE))
        return wrong("a profile is of the host's processor; the target is %s", names[o->target]);
    return !option || wrong("--%s is for --target cuda%s; the target is %s%s", option,
                            strcmp(option, "lineinfo") == 0 ? " or sim" : "", names[o->target],
                            o->target_given ? "" : ", as none is given");
}

static bool operands_fit(CommandLine *l)
{
    const CommandText *c = &command_texts[l->o->command];
    int want = l->o->command == COMMAND_DOCTOR ? 1 : 2;
    if (l->operands.n < want)
        return wrong("mdlc %s needs a model: mdlc %s MODEL.mdl", c->name, c->name);
    if (l->operands.n > want && has_trainer(l))
        return wrong("%s is one operand too many; those of the trainer go after --",
                     l->operands.at[want]);
    if (l->operands.n > want)
        return wrong("%s is one operand too many; mdlc %s takes %s", l->operands.at[want], c->name,
                     want == 1 ? "none" : "one model");
    l->o->input = want == 2 ? l->operands.at[1] : NULL;
    return true;
}

/* ------------------------------------------------------------------------ files */

static bool input_opens(const CommandLine *l)
{
    const char *path = l->o->input;
    if (!path || strcmp(path, "-") == 0)
        return true;
    struct stat st;
    if (stat(path, &st) != 0) {
        int error = errno;
        const char *longer = arena_printf(l->arena, "%s.mdl", path);
        if (error == ENOENT && path[0] && stat(longer, &st) == 0)
            return wrong("cannot open %s: %s; did you mean %s?", path, strerror(error), longer);
        return wrong("cannot open %s: %s", path[0] ? path : "\"\"", strerror(error));
    }
    if (S_ISDIR(st.st_mode))
        return wrong("%s is a directory, not a model", path);
    if (!S_ISREG(st.st_mode)) /* opening a pipe twice would lose what is in it */
        return true;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return wrong("cannot open %s: %s", path, strerror(errno));
    close(fd);
    return true;
}

static bool same_file(const char *a, const char *b)
{
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

/* No output is the model itself, or another output. */
static bool outputs_apart(const Options *o)
{
    if (o->search && o->schedule_file)
        return wrong("--search looks for a schedule; it does not go with --schedule-file");
    const char *out[] = {o->output, o->json, o->svg, o->dot, o->csv, o->trace, o->apply};
    for (int i = 0; i < (int)(sizeof out / sizeof *out); i++) {
        if (!out[i])
            continue;
        if (o->profile && same_file(o->profile, out[i]))
            return wrong("%s is the profile itself; name another file for the output", out[i]);
        if (strcmp(o->input, "-") != 0 && same_file(o->input, out[i]))
            return wrong("%s is the model itself; name another file for the output", out[i]);
        if (o->compare && same_file(o->compare, out[i]))
            return wrong("%s is the trace itself; name another file for the output", out[i]);
        if (o->schedule_file && same_file(o->schedule_file, out[i]))
            return wrong("%s is the schedule itself; name another file for the output", out[i]);
        for (int k = 0; k < i; k++)
            if (out[k] && strcmp(out[i], out[k]) == 0)
                return wrong("two outputs to the same file, %s", out[i]);
    }
    return true;
}

/* ------------------------------------------------------------------------- all */

/* --help, --version and `mdlc help`: true when that was all. */
static bool informed(CommandLine *l, int *exit_code)
{
    bool word = l->operands.n && strcmp(l->operands.at[0], "help") == 0;
    if (l->version) {
        printf("mdlc %s\n", MDLC_VERSION);
    } else if (!l->help && !word) {
        return false;
    } else {
        if (word) {
            l->operands.at++;
            l->operands.n--;
        }
        if (l->operands.n == 0)
            help_overview(stdout);
        else if (find_command(l))
            help_command(l->o->command, stdout);
        else
            return true;
    }
    if (fflush(stdout) == 0 && !ferror(stdout))
        *exit_code = EXIT_DONE;
    return true;
}

bool options_parse(Arena *a, int argc, char **argv, Options *o, int *exit_code)
{
    *o = (Options){.target = TARGET_HOST};
    *exit_code = EXIT_USE;
    CommandLine l = {.arena = a, .o = o};
    if (argc < 1 || !read_words(&l, argc, argv) || informed(&l, exit_code))
        return false;
    if (l.operands.n == 0) {
        help_overview(stderr);
        return false;
    }
    if (!find_command(&l))
        return false;
    if (!o->target_given && gpu_here() && o->command != COMMAND_PROFILE && !o->profile)
        o->target = TARGET_CUDA;
    if (!options_fit(&l) || !target_fits(o) || !operands_fit(&l) || !input_opens(&l))
        return false;
    if (o->input && !outputs_apart(o))
        return false;
    o->front = (FrontOptions){l.defines.at,
                              l.defines.n,
                              l.sets.at,
                              l.sets.n,
                              l.include_dirs.at,
                              l.include_dirs.n,
                              o->target == TARGET_HOST ? NULL : ASSUMED_GPU};
    return true;
}
