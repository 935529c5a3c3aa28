/* Command lines: tables of options, one parser, and the help texts printed from the same tables.
 *
 * A command is a row: its name ("topic put"), what follows it, its options, examples and function.
 * Options may stand anywhere after the command; global ones also before it. An option that is in no
 * table is an error, and so is a value outside its bounds. */
#ifndef FLARE_OPTIONS_H
#define FLARE_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "broker/base/err.h"

struct cli;
struct arguments;

enum option_kind {
    OPTION_FLAG = 1,
    OPTION_TEXT,
    OPTION_NUMBER,
    OPTION_SIZE,     /* bytes: 4096, 16K, 1MiB */
    OPTION_DURATION, /* milliseconds: 1500, 500ms, 30s, 5m, 1h, 7d */
    OPTION_CHOICE    /* one of `value`, which reads "a|b|c" */
};

struct option_row {
    const char *name;
    const char *value; /* what the help calls the value */
    const char *help;
    uint64_t min; /* of NUMBER, SIZE, DURATION */
    uint64_t max; /* 0: no bound */
    enum option_kind kind;
    char letter; /* '\0': none */
};

struct option_value {
    const char *text; /* as given last; NULL when it was not given */
    uint64_t number;  /* of NUMBER, SIZE, DURATION */
    bool set;
};

/* What a command needs before it runs. */
enum cli_scope {
    CLI_BROKER = 0, /* a client for the broker that the settings name */
    CLI_LOCAL,      /* the settings, but no broker */
    CLI_CONTEXTLESS /* only what the line and the environment say: contexts may be broken */
};

struct cli_command {
    const char *name;
    const char *operands; /* "TOPIC [MESSAGE]" */
    const char *summary;
    const char *details; /* NULL or whole sentences for the help */
    const char *examples;
    const struct option_row *options; /* indexed by the command's own enum, ended by a NULL name */
    uint32_t operands_min;
    uint32_t operands_max;
    enum cli_scope scope;
    bool hidden; /* for programs: in no list, help or page */
    err_t (*run)(struct cli *cli, const struct arguments *arguments);
};

enum { OPTIONS_MAX = 24 };

enum global_option {
    GLOBAL_URL,
    GLOBAL_WIRE,
    GLOBAL_HTTP,
    GLOBAL_CONTEXT,
    GLOBAL_TIMEOUT,
    GLOBAL_JSON,
    GLOBAL_PLAIN,
    GLOBAL_TABLE,
    GLOBAL_CURL,
    GLOBAL_TRACE,
    GLOBAL_QUIET,
    GLOBAL_VERBOSE,
    GLOBAL_HELP,
    GLOBAL_VERSION,
    GLOBAL_COUNT
};

/* One parsed command line. Texts point into argv. */
struct arguments {
    const struct cli_command *command; /* NULL until options_command */
    const char **operands;
    size_t operand_count;
    struct option_value values[OPTIONS_MAX];
    struct option_value globals[GLOBAL_COUNT];
    struct option_given {
        uint32_t index; /* of the command's table */
        const char *text;
    } * given; /* every option of the command, in order, for those that repeat */
    size_t given_count;
    int argc;
    char **argv;
    int next; /* of argv */
};

/* `argv` without the program's name. ERR_MEMORY. */
err_t arguments_init(struct arguments *arguments, int argc, char **argv) MUST_CHECK;
void arguments_deinit(struct arguments *arguments);

/* Parses global options up to the first other word. ERR_INVALID. */
err_t options_parse_globals(struct arguments *arguments) MUST_CHECK;
/* Parses the rest for `command`. ERR_INVALID; counts the operands only when --help is not given. */
err_t options_parse_command(struct arguments *arguments,
                            const struct cli_command *command) MUST_CHECK;

/* The values of an option that may repeat: start with *position = 0; NULL ends. */
const char *arguments_next(const struct arguments *arguments, uint32_t index, size_t *position);

/* The value, or `fallback` when it was not given. */
uint64_t arguments_number(const struct arguments *arguments, uint32_t index, uint64_t fallback);

/* Reads `text` by the row's kind and bounds. ERR_INVALID, which names `place`: "--timeout". */
err_t options_read(const struct option_row *row, const char *place, const char *text,
                   struct option_value *value) MUST_CHECK;

/* The options of every command, ended by a NULL name, in the order of enum global_option. */
const struct option_row *options_globals(void);

/* Help of one command, from its row. */
void options_print_help(FILE *file, const struct cli_command *command);
void options_print_globals(FILE *file);

#endif
