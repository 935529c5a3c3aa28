#include "tools/flare/options.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "broker/config/units.h"

static const struct option_row global_rows[] = {
    [GLOBAL_URL] = {.name = "url",
                    .kind = OPTION_TEXT,
                    .value = "URL",
                    .help = "the broker's HTTP API; default http://127.0.0.1:8080"},
    [GLOBAL_WIRE] = {.name = "wire",
                     .kind = OPTION_TEXT,
                     .value = "HOST:PORT",
                     .help = "the broker's wire protocol; default 127.0.0.1:8089, with another URL "
                             "what its broker says"},
    [GLOBAL_HTTP] = {.name = "http",
                     .kind = OPTION_FLAG,
                     .help = "use HTTP where the wire protocol is the default"},
    [GLOBAL_CONTEXT] = {.name = "context",
                        .kind = OPTION_TEXT,
                        .value = "CONTEXT",
                        .help = "settings kept under this name (see flare ctx); '' for none"},
    [GLOBAL_TIMEOUT] = {.name = "timeout",
                        .kind = OPTION_DURATION,
                        .min = 1,
                        .max = 86400000,
                        .value = "TIME",
                        .help = "longest wait for a reply, beside any --wait; default 30s"},
    [GLOBAL_JSON] = {.name = "json", .kind = OPTION_FLAG, .help = "print JSON, one item per line"},
    [GLOBAL_PLAIN] = {.name = "plain",
                      .kind = OPTION_FLAG,
                      .help = "print tab-separated values without header, units or colour"},
    [GLOBAL_TABLE] = {.name = "table",
                      .kind = OPTION_FLAG,
                      .help = "print aligned columns, as without any setting"},
    [GLOBAL_CURL] = {.name = "curl",
                     .kind = OPTION_FLAG,
                     .help = "print the first request as a curl command; send nothing"},
    [GLOBAL_TRACE] = {.name = "trace",
                      .kind = OPTION_FLAG,
                      .help = "show what is sent and received on standard error"},
    [GLOBAL_QUIET] = {.name = "quiet",
                      .letter = 'q',
                      .kind = OPTION_FLAG,
                      .help = "no progress and no notes on standard error"},
    [GLOBAL_VERBOSE] = {.name = "verbose",
                        .letter = 'v',
                        .kind = OPTION_FLAG,
                        .help = "say where in the program an error arose"},
    [GLOBAL_HELP] = {.name = "help", .letter = 'h', .kind = OPTION_FLAG, .help = "print this"},
    [GLOBAL_VERSION] = {.name = "version", .kind = OPTION_FLAG, .help = "print the version"},
    [GLOBAL_COUNT] = {.name = NULL},
};

err_t arguments_init(struct arguments *arguments, int argc, char **argv)
{
    memset(arguments, 0, sizeof *arguments);
    arguments->argc = argc;
    arguments->argv = argv;
    arguments->operands = calloc((size_t)argc + 1, sizeof *arguments->operands);
    arguments->given = calloc((size_t)argc + 1, sizeof *arguments->given);
    if (arguments->operands == NULL || arguments->given == NULL) {
        arguments_deinit(arguments);
        return ERR(MEMORY, "no memory for %d arguments", argc);
    }
    return NULL;
}

void arguments_deinit(struct arguments *arguments)
{
    free(arguments->operands);
    free(arguments->given);
    arguments->operands = NULL;
    arguments->given = NULL;
}

static const struct option_row *find_name(const struct option_row *rows, const char *name,
                                          size_t size)
{
    for (; rows != NULL && rows->name != NULL; rows++) {
        if (strlen(rows->name) == size && memcmp(rows->name, name, size) == 0) {
            return rows;
        }
    }
    return NULL;
}

static const struct option_row *find_letter(const struct option_row *rows, char letter)
{
    for (; rows != NULL && rows->name != NULL; rows++) {
        if (rows->letter == letter) {
            return rows;
        }
    }
    return NULL;
}

static bool choice_listed(const char *choices, const char *text)
{
    size_t size = strlen(text);
    while (choices != NULL) {
        const char *end = strchr(choices, '|');
        size_t length = end == NULL ? strlen(choices) : (size_t)(end - choices);
        if (length == size && memcmp(choices, text, size) == 0) {
            return true;
        }
        choices = end == NULL ? NULL : end + 1;
    }
    return false;
}

static err_t check_bounds(const struct option_row *row, const char *place, const char *text,
                          uint64_t number)
{
    if (number < row->min || (row->max != 0 && number > row->max)) {
        const char *unit = row->kind == OPTION_DURATION ? " ms"
                           : row->kind == OPTION_SIZE   ? " bytes"
                                                        : "";
        if (row->max == 0) {
            return ERR(INVALID, "%s %s: must be at least %" PRIu64 "%s", place, text, row->min,
                       unit);
        }
        return ERR(INVALID, "%s %s: must be between %" PRIu64 " and %" PRIu64 "%s", place, text,
                   row->min, row->max, unit);
    }
    return NULL;
}

err_t options_read(const struct option_row *row, const char *place, const char *text,
                   struct option_value *value)
{
    struct option_value read = {.text = text, .set = true};
    switch (row->kind) {
    case OPTION_FLAG:
    case OPTION_TEXT:
        break;
    case OPTION_NUMBER:
        if (!units_parse(units_none, span_text(text), &read.number)) {
            return ERR(INVALID, "%s: '%s' is not a number", place, text);
        }
        TRY(check_bounds(row, place, text, read.number));
        break;
    case OPTION_SIZE:
        if (!units_parse(units_size, span_text(text), &read.number)) {
            return ERR(INVALID, "%s: '%s' is not a size such as 4096, 16K or 1MiB", place, text);
        }
        TRY(check_bounds(row, place, text, read.number));
        break;
    case OPTION_DURATION:
        if (!units_parse(units_duration, span_text(text), &read.number)) {
            return ERR(INVALID, "%s: '%s' is not a duration such as 500ms, 30s, 5m, 1h or 7d",
                       place, text);
        }
        TRY(check_bounds(row, place, text, read.number));
        break;
    case OPTION_CHOICE:
        if (!choice_listed(row->value, text)) {
            return ERR(INVALID, "%s: '%s' is not one of %s", place, text, row->value);
        }
        break;
    }
    *value = read;
    return NULL;
}

static err_t read_given(const struct option_row *row, const char *text, struct option_value *value)
{
    char place[64];
    (void)snprintf(place, sizeof place, "--%s", row->name);
    return options_read(row, place, text, value);
}

/* Takes the option at argv[next], with its value, from the command's table or the global one. */
static err_t parse_option(struct arguments *arguments, const struct option_row *rows)
{
    const char *word = arguments->argv[arguments->next];
    arguments->next++;
    bool is_long = word[1] == '-';
    const char *name = word + 1 + is_long;
    const char *equals = is_long ? strchr(name, '=') : NULL;
    size_t size = equals == NULL ? strlen(name) : (size_t)(equals - name);
    const struct option_row *row = is_long ? find_name(rows, name, size) : find_letter(rows, *name);
    bool global = row == NULL;
    if (global) {
        row = is_long ? find_name(global_rows, name, size) : find_letter(global_rows, *name);
    }
    if (row == NULL) {
        return ERR(INVALID, "unknown option %.*s", is_long ? (int)size + 2 : 2, word);
    }
    const char *text = equals != NULL ? equals + 1 : !is_long && name[1] != '\0' ? name + 1 : NULL;
    if (row->kind == OPTION_FLAG) {
        if (text != NULL) {
            return ERR(INVALID, "%s: --%s takes no value", word, row->name);
        }
        text = "";
    } else if (text == NULL) {
        if (arguments->next >= arguments->argc) {
            return ERR(INVALID, "%s needs a value: %s", word, row->value);
        }
        text = arguments->argv[arguments->next];
        arguments->next++;
    }
    if (global) {
        return read_given(row, text, &arguments->globals[row - global_rows]);
    }
    arguments->given[arguments->given_count].index = (uint32_t)(row - rows);
    arguments->given[arguments->given_count].text = text;
    arguments->given_count++;
    return read_given(row, text, &arguments->values[row - rows]);
}

/* "-" alone is an operand: standard input. */
static bool is_option(const char *word)
{
    return word[0] == '-' && word[1] != '\0';
}

err_t options_parse_globals(struct arguments *arguments)
{
    while (arguments->next < arguments->argc && is_option(arguments->argv[arguments->next])) {
        TRY(parse_option(arguments, NULL));
    }
    return NULL;
}

err_t options_parse_command(struct arguments *arguments, const struct cli_command *command)
{
    bool options_ended = false;
    arguments->command = command;
    while (arguments->next < arguments->argc) {
        const char *word = arguments->argv[arguments->next];
        if (!options_ended && strcmp(word, "--") == 0) {
            options_ended = true;
            arguments->next++;
        } else if (!options_ended && is_option(word)) {
            TRY(parse_option(arguments, command->options));
        } else {
            arguments->operands[arguments->operand_count] = word;
            arguments->operand_count++;
            arguments->next++;
        }
    }
    if (arguments->globals[GLOBAL_HELP].set) {
        return NULL;
    }
    if (arguments->operand_count < command->operands_min) {
        return ERR(INVALID, "missing: flare %s %s", command->name, command->operands);
    }
    if (arguments->operand_count > command->operands_max) {
        return ERR(INVALID, "'%s' is one word too many: flare %s %s",
                   arguments->operands[command->operands_max], command->name, command->operands);
    }
    return NULL;
}

const char *arguments_next(const struct arguments *arguments, uint32_t index, size_t *position)
{
    while (*position < arguments->given_count) {
        size_t at = *position;
        *position = at + 1;
        if (arguments->given[at].index == index) {
            return arguments->given[at].text;
        }
    }
    return NULL;
}

uint64_t arguments_number(const struct arguments *arguments, uint32_t index, uint64_t fallback)
{
    return arguments->values[index].set ? arguments->values[index].number : fallback;
}

static void print_rows(FILE *file, const struct option_row *rows)
{
    enum { COLUMN = 30 };
    for (; rows != NULL && rows->name != NULL; rows++) {
        char left[128];
        char letter[8] = "    ";
        if (rows->letter != '\0') {
            (void)snprintf(letter, sizeof letter, "-%c, ", rows->letter);
        }
        (void)snprintf(left, sizeof left, "%s--%s%s%s", letter, rows->name,
                       rows->value == NULL ? "" : " ", rows->value == NULL ? "" : rows->value);
        if (strlen(left) >= COLUMN) {
            (void)fprintf(file, "  %s\n  %*s%s\n", left, COLUMN, "", rows->help);
        } else {
            (void)fprintf(file, "  %-*s%s\n", COLUMN, left, rows->help);
        }
    }
}

const struct option_row *options_globals(void)
{
    return global_rows;
}

void options_print_globals(FILE *file)
{
    (void)fprintf(file, "Options of every command:\n");
    print_rows(file, global_rows);
}

void options_print_help(FILE *file, const struct cli_command *command)
{
    (void)fprintf(file, "Usage: flare %s%s%s [options]\n\n%s.\n", command->name,
                  command->operands[0] == '\0' ? "" : " ", command->operands, command->summary);
    if (command->details != NULL) {
        (void)fprintf(file, "%s\n", command->details);
    }
    if (command->options != NULL && command->options->name != NULL) {
        (void)fprintf(file, "\nOptions:\n");
        print_rows(file, command->options);
    }
    (void)fprintf(file, "\n");
    options_print_globals(file);
    (void)fprintf(file, "\nExamples:\n%s", command->examples);
}
