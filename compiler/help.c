/* help.c - what --help prints: the table of commands, the table of options, and the text
 * of each command with its examples. */
#include <string.h>

#include "options.h"

const CommandText command_texts[COMMANDS] = {
    [COMMAND_BUILD] =
        {"build", "MODEL.mdl", "compile a model to an executable trainer",
         "Compiles the model to C, one file per stage, and that to one executable. It is named\n"
         "after the model's file unless -o says otherwise. The C compiler is $CC, or cc;\n"
         "$MDL_CFLAGS holds extra flags for it.\n"
         "\n"
         "Examples:\n"
         "  mdlc build two_gpu.mdl                        makes ./two_gpu\n"
         "  mdlc build gpt2.mdl -D gpus=2 -o gpt2_2       another value of a const\n"
         "  mdlc build two_gpu.mdl --set train.batch=32   another setting\n"
         "  ./two_gpu --help                              what a trainer takes\n"},
    [COMMAND_RUN] =
        {"run", "MODEL.mdl [-- TRAINER OPTIONS]", "build a model and train it",
         "Builds the trainer, unless the cache ($XDG_CACHE_HOME/mdlc or ~/.cache/mdlc) has it\n"
         "already, and runs it here. What follows -- goes to the trainer.\n"
         "\n"
         "Examples:\n"
         "  mdlc run two_gpu.mdl\n"
         "  mdlc run two_gpu.mdl -- --steps 10 --log run.jsonl\n"
         "  mdlc run two_gpu.mdl -- --help                what a trainer takes\n"},
    [COMMAND_EMIT] =
        {"emit", "MODEL.mdl", "write the C source, stage by stage",
         "Writes stage_0.c, stage_1.c, ..., trainer.c and a CMakeLists.txt into a directory,\n"
         "which is made when it is not there: -o, or the model's name with _src. Files of an\n"
         "earlier emit are replaced; files that mdlc has not written are left alone.\n"
         "\n"
         "Examples:\n"
         "  mdlc emit two_gpu.mdl                         writes two_gpu_src/\n"
         "  mdlc emit gpt2.mdl -o gpt2_source\n"},
    [COMMAND_PLAN] =
        {"plan", "MODEL.mdl", "show stages, memory, schedule, bubble and traffic",
         "Prints what each device will hold and do, without building anything. The options\n"
         "write the same plan in other forms to a FILE; - is the standard output.\n"
         "\n"
         "Examples:\n"
         "  mdlc plan gpt2.mdl\n"
         "  mdlc plan gpt2.mdl --set parallel.schedule=gpipe --svg schedule.svg\n"
         "  mdlc plan gpt2.mdl --json - | python3 -m json.tool\n"
         "  mdlc plan gpt2.mdl --search --apply best.mdl\n"
         "  mdlc plan gpt2.mdl --csv order.csv            the order of the runs, and\n"
         "  mdlc plan gpt2.mdl --schedule-file order.csv  a plan from such a file\n"},
    [COMMAND_PROFILE] =
        {"profile", "MODEL.mdl [-- TRAINER OPTIONS]", "measure what every layer takes here",
         "Builds the trainer, trains with it for some seconds, and writes how long every layer\n"
         "took, forward and backward, with the update and the messages: for --profile FILE of\n"
         "other commands, which then count with these times in place of estimates. The file is\n"
         "named after the model's, with .profile.json, unless -o says otherwise. It is good for\n"
         "every split and schedule of the model, at its precision and micro-batch. What follows\n"
         "-- goes to the trainer. Nothing else should run meanwhile.\n"
         "\n"
         "Examples:\n"
         "  mdlc profile nanogpt.mdl                      writes nanogpt.profile.json\n"
         "  mdlc plan nanogpt.mdl --profile nanogpt.profile.json\n"
         "  mdlc profile nanogpt.mdl -o p.json -- --threads 1 --data synthetic\n"},
    [COMMAND_CHECK] =
        {"check", "MODEL.mdl", "analyse a model and write nothing",
         "Runs every analysis: syntax, names, shapes, settings, placement, schedule, memory.\n"
         "\n"
         "Examples:\n"
         "  mdlc check two_gpu.mdl\n"
         "  mdlc check two_gpu.mdl --diagnostics=json     for editors\n"
         "  mdlc check two_gpu.mdl --dump=allocate        what every device does\n"},
    [COMMAND_FMT] =
        {"fmt", "MODEL.mdl", "rewrite a file in the canonical layout",
         "Rewrites the file in place, comments kept; - reads the standard input and writes the\n"
         "standard output. With --check nothing is written, and the exit code is 1 when the\n"
         "layout differs.\n"
         "\n"
         "Examples:\n"
         "  mdlc fmt two_gpu.mdl\n"
         "  mdlc fmt --check two_gpu.mdl\n"
         "  mdlc fmt - < two_gpu.mdl\n"},
    [COMMAND_DOCTOR] =
        {"doctor", "", "try each part that this machine needs",
         "Compiles and runs a small program for each part that a build uses: C compiler,\n"
         "libraries, the runtime of mdlc; and shows processor, memory and GPU. The exit code\n"
         "is 2 when something is missing that the host target needs.\n"
         "\n"
         "Example:\n"
         "  mdlc doctor\n"},
};

#define BIT(c) (1u << (c))
#define MODEL_COMMANDS                                                                             \
    (BIT(COMMAND_BUILD) | BIT(COMMAND_RUN) | BIT(COMMAND_EMIT) | BIT(COMMAND_PLAN) |               \
     BIT(COMMAND_CHECK) | BIT(COMMAND_PROFILE))
#define TRAINER_COMMANDS (BIT(COMMAND_BUILD) | BIT(COMMAND_RUN))
#define ALL_COMMANDS (BIT(COMMANDS) - 1)

const OptionText option_texts[] = {
    {OPTION_OUTPUT, "output", 'o', "PATH",
     BIT(COMMAND_BUILD) | BIT(COMMAND_EMIT) | BIT(COMMAND_PROFILE), "where the result goes"},
    {OPTION_DEFINE, "define", 'D', "NAME=VALUE", MODEL_COMMANDS, "replaces the value of a const"},
    {OPTION_SET, "set", 0, "BLOCK.KEY=VALUE", MODEL_COMMANDS,
     "replaces a setting of devices, parallel or train"},
    {OPTION_SCHEDULE_FILE, "schedule-file", 0, "FILE", MODEL_COMMANDS,
     "what each device runs, one line each, as --csv\n"
     "                              of plan and PyTorch write it"},
    {OPTION_INCLUDE, "include", 'I', "DIR", MODEL_COMMANDS, "looks for imports in DIR, too"},
    {OPTION_PROFILE, "profile", 0, "FILE", MODEL_COMMANDS & ~BIT(COMMAND_PROFILE),
     "counts with times that mdlc profile measured"},
    {OPTION_TARGET, "target", 0, "host|cuda|sim", MODEL_COMMANDS, "what to build for"},
    {OPTION_GPU_ARCH, "gpu-arch", 0, "sm_NN,...", TRAINER_COMMANDS,
     "the GPUs that a trainer is for: this machine's,\n"
     "                              or all from Ampere to Blackwell"},
    {OPTION_LINEINFO, "lineinfo", 0, NULL, TRAINER_COMMANDS,
     "kernels know their source lines, for profilers"},
    {OPTION_DUMP, "dump", 0, "PASS", MODEL_COMMANDS,
     "prints what a pass made: parse, elaborate,\n"
     "                              differentiate, place, fuse, lower, schedule,\n"
     "                              communicate, order or allocate"},
    {OPTION_JSON, "json", 0, "FILE", BIT(COMMAND_PLAN), "the plan as JSON"},
    {OPTION_SVG, "svg", 0, "FILE", BIT(COMMAND_PLAN), "a drawing of the schedule"},
    {OPTION_DOT, "dot", 0, "FILE", BIT(COMMAND_PLAN), "the graph for Graphviz"},
    {OPTION_CSV, "csv", 0, "FILE", BIT(COMMAND_PLAN), "the schedule, one line per device"},
    {OPTION_SEARCH, "search", 0, NULL, BIT(COMMAND_PLAN),
     "tries schedules, chunks, micro-batches, depths and\n"
     "                              recomputation, and plans with the best"},
    {OPTION_APPLY, "apply", 0, "FILE", BIT(COMMAND_PLAN),
     "writes a copy of the model with what --search found"},
    {OPTION_COMPARE, "compare", 0, "FILE", BIT(COMMAND_PLAN),
     "puts a step of a trainer's --trace beside the plan,\n"
     "                              in the text and in --svg"},
    {OPTION_TRACE, "trace", 0, "FILE", BIT(COMMAND_PLAN),
     "the expected course of a step for chrome://tracing"},
    {OPTION_CHECK, "check", 0, NULL, BIT(COMMAND_FMT), "only says whether the layout differs"},
    {OPTION_DIAGNOSTICS, "diagnostics", 0, "text|json", MODEL_COMMANDS | BIT(COMMAND_FMT),
     "how messages about the model are written"},
    {OPTION_VERBOSE, "verbose", 'v', NULL, ALL_COMMANDS, "shows the commands that are run"},
    {OPTION_QUIET, "quiet", 'q', NULL, ALL_COMMANDS, "prints errors only"},
    {OPTION_HELP, "help", 'h', NULL, ALL_COMMANDS, "this text"},
    {OPTION_VERSION, "version", 0, NULL, ALL_COMMANDS, "the version of mdlc"},
};
const int option_count = (int)(sizeof option_texts / sizeof *option_texts);

static void print_option(const OptionText *o, FILE *to)
{
    char left[80];
    const char *argument = o->argument ? o->argument : "";
    const char *between = !o->argument ? "" : strchr(argument, '=') ? " " : "=";
    if (o->letter && o->argument)
        snprintf(left, sizeof left, "-%c %s", o->letter, argument);
    else if (o->letter)
        snprintf(left, sizeof left, "-%c, --%s", o->letter, o->name);
    else
        snprintf(left, sizeof left, "--%s%s%s", o->name, between, argument);
    fprintf(to, "  %-26s  %s\n", left, o->summary);
}

void help_overview(FILE *to)
{
    fputs("mdlc compiles a model (.mdl) to a trainer: one program for each device.\n"
          "\n"
          "Usage: mdlc COMMAND [OPTIONS] MODEL.mdl\n"
          "\n"
          "Commands:\n",
          to);
    for (int i = 0; i < COMMANDS; i++)
        fprintf(to, "  %-8s  %s\n", command_texts[i].name, command_texts[i].summary);
    fputs("\nOptions that most commands take:\n", to);
    for (int i = 0; i < option_count; i++)
        if (option_texts[i].commands & BIT(COMMAND_CHECK))
            print_option(&option_texts[i], to);
    fputs("\n"
          "mdlc COMMAND --help tells more of a command.\n"
          "Exit codes: 0 done, 1 the model is wrong, 2 wrong use or a file problem, 3 a bug in\n"
          "mdlc.\n"
          "\n"
          "Examples:\n"
          "  mdlc run two_gpu.mdl -- --steps 10\n"
          "  mdlc build two_gpu.mdl -o trainer\n"
          "  mdlc plan two_gpu.mdl --set parallel.microbatch=16\n",
          to);
}

void help_command(Command command, FILE *to)
{
    const CommandText *c = &command_texts[command];
    fprintf(to, "mdlc %s - %s\n\nUsage: mdlc %s [OPTIONS]%s%s\n\n%s\nOptions:\n", c->name,
            c->summary, c->name, c->operands[0] ? " " : "", c->operands, c->text);
    for (int i = 0; i < option_count; i++)
        if (option_texts[i].commands & BIT(command))
            print_option(&option_texts[i], to);
}
