/* Completion for fish: a row of `complete` for each command, option and operand. */
#include <string.h>

#include "tools/flare/commands.h"
#include "tools/flare/completion.h"

static const char head[] =
    "# Completion of flare for fish, made from its tables by: flare completion fish\n"
    "# Try it with: flare completion fish | source\n"
    "\n";

/* The command line so far is read once for each condition: fish has no other place for it. */
static const char functions[] =
    "# The words before the current one without options and their values.\n"
    "function __flare_words\n"
    "    set -l awaiting\n"
    "    set -l command\n"
    "    for word in (commandline -opc)[2..-1]\n"
    "        if test -n \"$awaiting\"\n"
    "            set awaiting\n"
    "        else if string match -q -- '-?*' $word\n"
    "            set -l own \"$command $word\"\n"
    "            if contains -- $word $__flare_valued; or contains -- $own $__flare_valued\n"
    "                set awaiting $word\n"
    "            end\n"
    "        else\n"
    "            if test -z \"$command\"\n"
    "                set command $word\n"
    "            else if contains -- $command $__flare_nouns\n"
    "                set command \"$command $word\"\n"
    "            end\n"
    "            echo $word\n"
    "        end\n"
    "    end\n"
    "end\n"
    "\n"
    "# Whether the words so far are exactly these.\n"
    "function __flare_at\n"
    "    set -l words (__flare_words)\n"
    "    test \"$words\" = \"$argv\"\n"
    "end\n"
    "\n"
    "# Whether the command is $argv[1]; with $argv[2], whether so many operands have been given;\n"
    "# with a third word, so many or more.\n"
    "function __flare_in\n"
    "    set -l words (__flare_words)\n"
    "    set -l name (string split ' ' -- $argv[1])\n"
    "    set -l size (count $name)\n"
    "    test (count $words) -ge $size; or return 1\n"
    "    test \"$words[1..$size]\" = \"$argv[1]\"; or return 1\n"
    "    set -q argv[2]; or return 0\n"
    "    set -l given (math (count $words) - $size)\n"
    "    if set -q argv[3]\n"
    "        test $given -ge $argv[2]\n"
    "    else\n"
    "        test $given -eq $argv[2]\n"
    "    end\n"
    "end\n"
    "\n"
    "# Names that the broker or the file of contexts knows; nothing when they cannot be had.\n"
    "function __flare_names\n"
    "    set -l connection\n"
    "    set -l awaiting\n"
    "    set -l words (commandline -opc)\n"
    "    for word in $words\n"
    "        if test -n \"$awaiting\"\n"
    "            set -a connection $awaiting $word\n"
    "            set awaiting\n"
    "        else if contains -- $word --url --context\n"
    "            set awaiting $word\n"
    "        else if string match -qr -- '^--(url|context)=' $word\n"
    "            set -a connection $word\n"
    "        end\n"
    "    end\n"
    "    set -l topic\n"
    "    if test $argv[1] = subscriptions\n"
    "        set -l plain (__flare_words)\n"
    "        set topic $plain[-1]\n"
    "    end\n"
    "    $words[1] __complete $argv[1] $topic $connection 2>/dev/null\n"
    "end\n"
    "\n"
    "complete -c flare -f\n";

static void print_lists(FILE *file)
{
    char noun[COMMANDS_NAME_MAX];
    size_t position = 0;
    const struct cli_command *row = NULL;
    (void)fputs("set -g __flare_nouns", file);
    while ((row = commands_next_noun(&position, noun)) != NULL) {
        (void)fprintf(file, "%s%s", strcmp(row->name, noun) == 0 ? "" : " ",
                      strcmp(row->name, noun) == 0 ? "" : noun);
    }
    (void)fputs("\nset -g __flare_valued", file);
    for (const struct option_row *option = options_globals(); option->name != NULL; option++) {
        if (option->kind != OPTION_FLAG) {
            (void)fprintf(file, " --%s", option->name);
        }
    }
    position = 0;
    while ((row = commands_next(&position)) != NULL) {
        for (const struct option_row *option = row->options; option != NULL && option->name != NULL;
             option++) {
            if (option->kind != OPTION_FLAG) {
                (void)fprintf(file, " '%s --%s'", row->name, option->name);
            }
            if (option->kind != OPTION_FLAG && option->letter != '\0') {
                (void)fprintf(file, " '%s -%c'", row->name, option->letter);
            }
        }
    }
    (void)fputs("\n\n", file);
}

/* What may stand for a word of this kind: the arguments of `complete`. */
static void print_kind(FILE *file, const char *kind, size_t size)
{
    if (memchr(kind, '|', size) != NULL) {
        (void)fputs(" -xa '", file);
        for (size_t i = 0; i < size; i++) {
            (void)fputc(kind[i] == '|' ? ' ' : kind[i], file);
        }
        (void)fputc('\'', file);
    } else if (size == 5 && memcmp(kind, "TOPIC", size) == 0) {
        (void)fputs(" -xa '(__flare_names topics)'", file);
    } else if (size == 12 && memcmp(kind, "SUBSCRIPTION", size) == 0) {
        (void)fputs(" -xa '(__flare_names subscriptions)'", file);
    } else if (size == 7 && memcmp(kind, "CONTEXT", size) == 0) {
        (void)fputs(" -xa '(__flare_names contexts)'", file);
    } else if ((size == 4 && memcmp(kind, "FILE", size) == 0) ||
               (size == 6 && memcmp(kind, "TARGET", size) == 0)) {
        (void)fputs(" -F", file);
    } else if (size == 3 && memcmp(kind, "DIR", size) == 0) {
        (void)fputs(" -xa '(__fish_complete_directories)'", file);
    } else {
        (void)fputs(" -x", file);
    }
}

static void print_option(FILE *file, const char *command, const struct option_row *row)
{
    (void)fputs("complete -c flare", file);
    if (command != NULL) {
        (void)fprintf(file, " -n '__flare_in \"%s\"'", command);
    }
    (void)fprintf(file, " -l %s", row->name);
    if (row->letter != '\0') {
        (void)fprintf(file, " -s %c", row->letter);
    }
    if (row->kind != OPTION_FLAG) {
        print_kind(file, row->value, strlen(row->value));
    }
    (void)fputs(" -d ", file);
    completion_print_quoted(file, row->help, "\\'");
    (void)fputc('\n', file);
}

static void print_operands(FILE *file, const struct cli_command *command)
{
    const char *at = command->operands;
    for (unsigned place = 0; *at != '\0'; place++) {
        size_t size = strcspn(at, " ");
        const char *word = at + (at[0] == '[');
        size_t length = strcspn(word, " ].");
        (void)fprintf(file, "complete -c flare -n '__flare_in \"%s\" %u%s'", command->name, place,
                      memchr(at, '.', size) != NULL ? " more" : "");
        print_kind(file, word, length);
        (void)fputc('\n', file);
        at += size + (at[size] == ' ');
    }
}

static void print_words(FILE *file)
{
    char noun[COMMANDS_NAME_MAX];
    size_t position = 0;
    const struct cli_command *row = NULL;
    while ((row = commands_next_noun(&position, noun)) != NULL) {
        (void)fprintf(file, "complete -c flare -n '__flare_at' -xa %s", noun);
        if (strcmp(row->name, noun) == 0) {
            (void)fputs(" -d ", file);
            completion_print_quoted(file, row->summary, "\\'");
        }
        (void)fputc('\n', file);
    }
    position = 0;
    while ((row = commands_next(&position)) != NULL) {
        size_t size = strcspn(row->name, " ");
        if (row->name[size] == ' ') {
            (void)fprintf(file, "complete -c flare -n '__flare_at %.*s' -xa %s -d ", (int)size,
                          row->name, row->name + size + 1);
            completion_print_quoted(file, row->summary, "\\'");
            (void)fputc('\n', file);
        }
    }
}

void completion_print_fish(FILE *file)
{
    size_t position = 0;
    const struct cli_command *row = NULL;
    (void)fputs(head, file);
    print_lists(file);
    (void)fputs(functions, file);
    print_words(file);
    for (const struct option_row *option = options_globals(); option->name != NULL; option++) {
        print_option(file, NULL, option);
    }
    while ((row = commands_next(&position)) != NULL) {
        for (const struct option_row *option = row->options; option != NULL && option->name != NULL;
             option++) {
            print_option(file, row->name, option);
        }
        print_operands(file, row);
    }
}
