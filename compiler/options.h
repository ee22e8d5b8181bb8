/* options.h - the table of commands and options, shared by options.c and help.c. */
#ifndef MDLC_OPTIONS_H
#define MDLC_OPTIONS_H

#include "driver.h"

enum { COMMANDS = COMMAND_DOCTOR + 1 };

typedef struct {
    const char *name, *operands, *summary;
    const char *text; /* paragraphs and examples for `mdlc NAME --help` */
} CommandText;

typedef struct {
    int key;              /* what getopt_long returns */
    const char *name;     /* long name */
    char letter;          /* short name, 0: none */
    const char *argument; /* as help shows it; NULL: takes none */
    unsigned commands;    /* bits 1 << Command that take it */
    const char *summary;
} OptionText;

extern const CommandText command_texts[COMMANDS];
extern const OptionText option_texts[];
extern const int option_count;

enum {
    OPTION_DEFINE = 'D',
    OPTION_INCLUDE = 'I',
    OPTION_OUTPUT = 'o',
    OPTION_VERBOSE = 'v',
    OPTION_QUIET = 'q',
    OPTION_HELP = 'h',
    OPTION_SET = 256,
    OPTION_SCHEDULE_FILE,
    OPTION_TARGET,
    OPTION_GPU_ARCH,
    OPTION_LINEINFO,
    OPTION_DUMP,
    OPTION_DIAGNOSTICS,
    OPTION_VERSION,
    OPTION_CHECK,
    OPTION_JSON,
    OPTION_SVG,
    OPTION_DOT,
    OPTION_CSV,
    OPTION_TRACE,
    OPTION_PROFILE,
    OPTION_SEARCH,
    OPTION_APPLY,
    OPTION_COMPARE
};

void help_overview(FILE *to);
void help_command(Command command, FILE *to);

#endif
