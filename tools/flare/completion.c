#include "tools/flare/completion.h"

#include <assert.h>
#include <string.h>

#include "broker/base/buf.h"
#include "tools/flare/commands.h"

enum { TEXT_MAX = 1024 };

void completion_print_quoted(FILE *file, const char *text, const char *end)
{
    (void)fputc('\'', file);
    for (; *text != '\0'; text++) {
        if (*text == '\'') {
            (void)fputs(end, file);
        } else {
            (void)fputc(*text, file);
        }
    }
    (void)fputc('\'', file);
}

/* One branch: the option of one command (NULL: of every one), by both of its names. */
static void print_value(FILE *file, const char *command, const struct option_row *row)
{
    if (row->kind == OPTION_FLAG) {
        return;
    }
    const char *before = command == NULL ? "*" : "";
    command = command == NULL ? "" : command;
    (void)fprintf(file, "    %s'%s --%s'", before, command, row->name);
    if (row->letter != '\0') {
        (void)fprintf(file, " | %s'%s -%c'", before, command, row->letter);
    }
    (void)fprintf(file, ") value='%s' ;;\n", row->value);
}

static void print_values(FILE *file)
{
    size_t position = 0;
    const struct cli_command *command = NULL;
    (void)fputs("_flare_value() {\n    value=\n    case \"$1 $2\" in\n", file);
    while ((command = commands_next(&position)) != NULL) {
        for (const struct option_row *row = command->options; row != NULL && row->name != NULL;
             row++) {
            print_value(file, command->name, row);
        }
    }
    for (const struct option_row *row = options_globals(); row->name != NULL; row++) {
        print_value(file, NULL, row);
    }
    (void)fputs("    esac\n}\n\n", file);
}

static void print_operands(FILE *file)
{
    size_t position = 0;
    const struct cli_command *command = NULL;
    (void)fputs("_flare_operands() {\n    kinds=()\n    case $1 in\n", file);
    while ((command = commands_next(&position)) != NULL) {
        if (command->operands[0] == '\0') {
            continue;
        }
        (void)fprintf(file, "    '%s') kinds=('", command->name);
        for (const char *at = command->operands; *at != '\0'; at++) {
            if (*at == ' ') {
                (void)fputs("' '", file);
            } else if (strchr("[]", *at) == NULL) {
                (void)fputc(*at, file);
            }
        }
        (void)fputs("') ;;\n", file);
    }
    (void)fputs("    esac\n}\n\n", file);
}

static void print_option_items(FILE *file, const struct option_row *row, completion_item_t *item)
{
    for (; row != NULL && row->name != NULL; row++) {
        char word[TEXT_MAX];
        (void)snprintf(word, sizeof word, "--%s", row->name);
        item(file, word, row->help);
    }
}

static void print_options(FILE *file, completion_item_t *item)
{
    size_t position = 0;
    const struct cli_command *command = NULL;
    (void)fputs("_flare_options() {\n    options=(", file);
    print_option_items(file, options_globals(), item);
    (void)fputs(")\n    case $1 in\n", file);
    while ((command = commands_next(&position)) != NULL) {
        if (command->options != NULL && command->options->name != NULL) {
            (void)fprintf(file, "    '%s') options+=(", command->name);
            print_option_items(file, command->options, item);
            (void)fputs(") ;;\n", file);
        }
    }
    (void)fputs("    esac\n}\n\n", file);
}

/* The second words of a noun: with what each does, or as one text in `out`. */
static void print_verbs(FILE *file, const char *noun, completion_item_t *item, struct buf *out)
{
    size_t position = 0;
    const struct cli_command *row = NULL;
    while ((row = commands_next(&position)) != NULL) {
        if (commands_has_noun(row, noun) && item != NULL) {
            item(file, row->name + strlen(noun) + 1, row->summary);
        } else if (commands_has_noun(row, noun)) {
            buf_printf(out, "%s%s", out->size == 0 ? "" : ", ", row->name + strlen(noun) + 1);
        }
    }
}

/* First words: those of one word with what they do, a noun with its verbs. */
static void print_first_words(FILE *file, completion_item_t *item)
{
    char noun[COMMANDS_NAME_MAX];
    size_t position = 0;
    const struct cli_command *row = NULL;
    while ((row = commands_next_noun(&position, noun)) != NULL) {
        struct buf verbs;
        buf_init(&verbs, TEXT_MAX);
        print_verbs(file, noun, NULL, &verbs);
        buf_append_byte(&verbs, '\0');
        assert(!verbs.failed);
        item(file, noun, verbs.size > 1 ? (const char *)verbs.data : row->summary);
        buf_deinit(&verbs);
    }
}

static void print_commands(FILE *file, completion_item_t *item)
{
    char noun[COMMANDS_NAME_MAX];
    size_t position = 0;
    const struct cli_command *row = NULL;
    (void)fputs("_flare_commands() {\n    commands=()\n    case $1 in\n    '') commands=(", file);
    print_first_words(file, item);
    (void)fputs(") ;;\n", file);
    while ((row = commands_next_noun(&position, noun)) != NULL) {
        if (strcmp(row->name, noun) != 0) {
            (void)fprintf(file, "    '%s') commands=(", noun);
            print_verbs(file, noun, item, NULL);
            (void)fputs(") ;;\n", file);
        }
    }
    (void)fputs("    esac\n}\n\n", file);
}

void completion_print_tables(FILE *file, completion_item_t *item)
{
    print_values(file);
    print_operands(file);
    print_options(file, item);
    print_commands(file, item);
}

const struct completion_shell completion_shells[] = {
    {"bash", "flare.bash", completion_print_bash},
    {"zsh", "_flare", completion_print_zsh},
    {"fish", "flare.fish", completion_print_fish},
    {.name = NULL},
};

static const char walk_head[] =
    "# Reads the words before the current one: which command it is, its operands, and the option\n"
    "# that waits for its value. What says where the broker is goes to `flare __complete` too.\n"
    "_flare_walk() {\n";

static const char walk_body[] =
    "        if [[ -n $awaiting ]]; then\n"
    "            [[ $awaiting == --url || $awaiting == --context ]] &&\n"
    "                connection+=(\"$awaiting\" \"$word\")\n"
    "            awaiting=\n"
    "        elif [[ $word == --url=* || $word == --context=* ]]; then\n"
    "            connection+=(\"$word\")\n"
    "        elif [[ $word == -?* ]]; then\n"
    "            _flare_value \"$command\" \"$word\"\n"
    "            [[ -n $value ]] && awaiting=$word\n"
    "        else\n"
    "            _flare_commands \"$command\"\n"
    "            if ((${#commands[@]} > 0)); then\n"
    "                command+=${command:+ }$word\n"
    "            else\n"
    "                operands+=(\"$word\")\n"
    "            fi\n"
    "        fi\n"
    "    done\n"
    "}\n"
    "\n";

void completion_print_walk(FILE *file, const char *loop)
{
    (void)fputs(walk_head, file);
    (void)fputs(loop, file);
    (void)fputs(walk_body, file);
}
