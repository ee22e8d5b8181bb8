/* trainer_options.c - the trainer's command line.
 *
 * In: argv. Out: Options, every number checked. Errors name the option and what it takes.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "trainer.h"

enum {
    OPT_STEPS = 256,
    OPT_SEED,
    OPT_LR,
    OPT_THREADS,
    OPT_DATA,
    OPT_EVAL_DATA,
    OPT_EVAL_EVERY,
    OPT_LOG,
    OPT_TRACE,
    OPT_PLOT,
    OPT_SAVE,
    OPT_SAVE_EVERY,
    OPT_RESUME,
    OPT_LOAD,
    OPT_EXPORT,
    OPT_TIME_LIMIT,
    OPT_TIMEOUT,
    OPT_CHECK_GRADIENTS,
    OPT_CUDA_GRAPH,
    OPT_HELP,
};

static const struct option long_options[] = {
    {"steps", required_argument, NULL, OPT_STEPS},
    {"seed", required_argument, NULL, OPT_SEED},
    {"lr", required_argument, NULL, OPT_LR},
    {"threads", required_argument, NULL, OPT_THREADS},
    {"data", required_argument, NULL, OPT_DATA},
    {"eval-data", required_argument, NULL, OPT_EVAL_DATA},
    {"eval-every", required_argument, NULL, OPT_EVAL_EVERY},
    {"log", required_argument, NULL, OPT_LOG},
    {"trace", required_argument, NULL, OPT_TRACE},
    {"plot", required_argument, NULL, OPT_PLOT},
    {"save", required_argument, NULL, OPT_SAVE},
    {"save-every", required_argument, NULL, OPT_SAVE_EVERY},
    {"resume", required_argument, NULL, OPT_RESUME},
    {"load", required_argument, NULL, OPT_LOAD},
    {"export", required_argument, NULL, OPT_EXPORT},
    {"time-limit", required_argument, NULL, OPT_TIME_LIMIT},
    {"timeout", required_argument, NULL, OPT_TIMEOUT},
    {"check-gradients", no_argument, NULL, OPT_CHECK_GRADIENTS},
    {"cuda-graph", no_argument, NULL, OPT_CUDA_GRAPH},
    {"help", no_argument, NULL, OPT_HELP},
    {NULL, 0, NULL, 0}};

void options_help(const MdlModel *model, const char *program)
{
    printf("usage: %s [options]\n\nTrains %s on %d %s.\n\n", program, model->name, model->nstages,
           model->nstages == 1 ? "device" : "devices");
    printf("  --steps N            optimizer steps in all (%" PRId64 ")\n", model->steps);
    printf("  --seed N             of initial values, sample order and dropout (%" PRIu64 ")\n",
           model->seed);
    printf("  --lr X               learning rate (%g)\n", model->hyper.lr);
    if (target_traits.teams)
        puts("  --threads N          per device; the default shares the cores");
    else
        puts("  --cuda-graph         launch each step's passes as one CUDA graph");
    puts("  --data NAME=PATH     samples of one input: .npy, .idx, -ubyte, .gz or .csv\n"
         "  --data PATH          one file for all inputs: .csv, .txt or .bin\n"
         "  --data synthetic     made-up samples\n"
         "  --eval-data ...      likewise, to evaluate on\n"
         "  --eval-every N       evaluate every N steps, not only at the end\n"
         "  --log FILE.jsonl     a line of JSON for each step\n"
         "  --trace FILE.json    where the time went, for Perfetto or chrome://tracing\n"
         "  --plot FILE.svg      the loss, drawn\n"
         "  --save DIR           write a checkpoint at the end\n"
         "  --save-every N       and every N steps\n"
         "  --resume DIR         go on from the newest checkpoint\n"
         "  --load FILE          start from the weights of a safetensors file\n"
         "  --export FILE        write the weights to a safetensors file at the end\n"
         "  --time-limit T       stop after T, such as 90s, 10m or 2h\n"
         "  --timeout S          fail when a device waits for another for S seconds");
    if (target_traits.teams)
        puts("  --check-gradients    compare gradients with differences of the loss");
    puts("  -q                   say nothing but errors\n"
         "  --help               this\n\n"
         "Exit codes: 0 done, 1 the run failed, 2 wrong use or no such file.");
    if (model->ninputs > 0)
        printf("Data:");
    for (int i = 0; i < model->ninputs; i++) {
        char shape[TEXT_SHAPE];
        const MdlInput *input = &model->inputs[i];
        printf("%s %s %s%s%s", i ? "," : "", input->target ? "target" : "input", input->name,
               input->rank > 0 ? " " : "",
               input->rank > 0 ? text_shape(shape, input->dim, input->rank) : "");
    }
    putchar('\n');
}

static int value_bad(const char *option, const char *text, const char *what, Problem *p)
{
    char shown[80];
    return problem_set(p, EXIT_USE, "--%s takes %s, not '%s'", option, what,
                       text_printable(shown, sizeof shown, text, strlen(text)));
}

static int integer_read(int64_t *value, const char *option, const char *text, int64_t low,
                        int64_t high, Problem *p)
{
    char *end, what[80];
    errno = 0;
    long long n = strtoll(text, &end, 10);
    bool number = *text == '-' || *text == '+' || (*text >= '0' && *text <= '9');
    if (number && errno == 0 && *end == '\0' && n >= low && n <= high) {
        *value = n;
        return MDL_OK;
    }
    snprintf(what, sizeof what, "a whole number from %" PRId64 "%s%" PRId64, low, " to ", high);
    if (high == INT64_MAX)
        snprintf(what, sizeof what, "a whole number, at least %" PRId64, low);
    return value_bad(option, text, what, p);
}

static int seed_read(Options *o, const char *text, Problem *p)
{
    char *end;
    errno = 0;
    o->seed = strtoull(text, &end, 10);
    o->has_seed = true;
    if (*text < '0' || *text > '9' || errno != 0 || *end != '\0')
        return value_bad("seed", text, "a whole number, at least 0", p);
    return MDL_OK;
}

/* A number with, where `units` allows it, s, m or h after it. */
static int real_read(double *value, const char *option, const char *text, double low, bool units,
                     Problem *p)
{
    char *end;
    double x = strtod(text, &end), unit = 1;
    if (units && end != text && *end) {
        unit = *end == 's' ? 1 : *end == 'm' ? 60 : *end == 'h' ? 3600 : 0;
        end++;
    }
    *value = x * unit;
    if (end == text || *end != '\0' || unit == 0 || !isfinite(x) || x < low ||
        (units && *value > 1e9))
        return value_bad(option, text,
                         units ? "a time such as 90s, 10m or 2h" : "a number, at least 0", p);
    return MDL_OK;
}

static int option_take(Options *o, int code, const char *text, Problem *p)
{
    int64_t threads = 0;
    int status = MDL_OK;
    switch (code) {
    case OPT_STEPS:
        return integer_read(&o->steps, "steps", text, 0, INT64_C(1) << 40, p);
    case OPT_SEED:
        return seed_read(o, text, p);
    case OPT_LR:
        return real_read(&o->lr, "lr", text, 0, false, p);
    case OPT_THREADS:
        if (!target_traits.teams)
            return problem_set(p, EXIT_USE,
                               "--threads is for devices on the host's processor; this "
                               "trainer computes on GPUs");
        status = integer_read(&threads, "threads", text, 1, 1024, p);
        o->threads = (int)threads;
        return status;
    case OPT_DATA:
        o->data[o->ndata++] = text;
        return MDL_OK;
    case OPT_EVAL_DATA:
        o->eval[o->neval++] = text;
        return MDL_OK;
    case OPT_EVAL_EVERY:
        return integer_read(&o->eval_every, "eval-every", text, 1, INT64_MAX / 4, p);
    case OPT_SAVE_EVERY:
        return integer_read(&o->save_every, "save-every", text, 1, INT64_MAX / 4, p);
    case OPT_TIME_LIMIT:
        return real_read(&o->time_limit, "time-limit", text, 1e-9, true, p);
    case OPT_TIMEOUT:
        return real_read(&o->timeout, "timeout", text, 1e-9, true, p);
    case OPT_LOG:
        o->log = text;
        return MDL_OK;
    case OPT_TRACE:
        o->trace = text;
        return MDL_OK;
    case OPT_PLOT:
        o->plot = text;
        return MDL_OK;
    case OPT_SAVE:
        o->save = text;
        return MDL_OK;
    case OPT_RESUME:
        o->resume = text;
        return MDL_OK;
    case OPT_LOAD:
        o->load = text;
        return MDL_OK;
    case OPT_EXPORT:
        o->export = text;
        return MDL_OK;
    case OPT_CHECK_GRADIENTS:
        o->check_gradients = true;
        return MDL_OK;
    case OPT_CUDA_GRAPH:
        if (target_traits.teams)
            return problem_set(p, EXIT_USE,
                               "--cuda-graph is for GPUs; this trainer computes on the host's "
                               "processor");
        o->cuda_graph = true;
        return MDL_OK;
    case OPT_HELP:
        o->help = true;
        return MDL_OK;
    case 'q':
        o->quiet = true;
        return MDL_OK;
    default:
        return MDL_FAILED;
    }
}

/* What getopt found wrong: an unknown option or a value that is not there. */
static int option_unknown(int code, char **argv, Problem *p)
{
    char shown[80];
    /* Among letters behind one dash, getopt is not done with the word yet. */
    const char letter[] = {'-', (char)optopt, '\0'};
    const char *arg = optopt > 0 && optopt < OPT_STEPS ? letter : argv[optind - 1];
    text_printable(shown, sizeof shown, arg, strlen(arg));
    if (code == ':')
        return problem_set(p, EXIT_USE, "%s needs a value; see --help", shown);
    if (optopt >= OPT_STEPS)
        return problem_set(p, EXIT_USE, "%s takes no value; see --help", shown);
    return problem_set(p, EXIT_USE, "unknown or ambiguous option '%s'; see --help", shown);
}

static int options_agree(const Options *o, Problem *p)
{
    if (o->load && o->resume)
        return problem_set(p, EXIT_USE, "--load and --resume exclude each other");
    if (o->check_gradients && o->resume)
        return problem_set(p, EXIT_USE, "--check-gradients starts at step 1; use --load");
    if (o->cuda_graph && o->trace)
        return problem_set(p, EXIT_USE,
                           "--cuda-graph and --trace exclude each other: the phases in a graph "
                           "cannot be timed");
    if (o->save_every > 0 && !o->save)
        return problem_set(p, EXIT_USE, "--save-every needs --save DIR");
    if (o->export)
        TRY(file_check_target("--export", o->export, true, p));
    if (o->trace)
        TRY(file_check_target("--trace", o->trace, false, p));
    return o->plot ? file_check_target("--plot", o->plot, false, p) : MDL_OK;
}

int options_parse(Options *o, int argc, char **argv, Problem *p)
{
    *o = (Options){.steps = -1, .lr = -1};
    o->data = calloc((size_t)argc + 1, sizeof *o->data);
    o->eval = calloc((size_t)argc + 1, sizeof *o->eval);
    if (!o->data || !o->eval)
        return problem_no_memory(p, "the options");
    optind = 0; /* glibc: start over, for a process that parses more than once */
    opterr = 0;
    for (int code; (code = getopt_long(argc, argv, "+:q", long_options, NULL)) != -1;) {
        if (code == '?' || code == ':')
            return option_unknown(code, argv, p);
        TRY(option_take(o, code, optarg, p));
    }
    if (optind < argc) {
        char shown[80];
        return problem_set(p, EXIT_USE, "'%s' is not an option; see --help",
                           text_printable(shown, sizeof shown, argv[optind], strlen(argv[optind])));
    }
    return o->help ? MDL_OK : options_agree(o, p);
}

void options_free(Options *o)
{
    free(o->data);
    free(o->eval);
}
