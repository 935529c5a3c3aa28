/* Completions for bash, zsh and fish, printed from the tables of commands and options.
 *
 * A script holds what is fixed: commands, options, choices. Names that only a broker or the file of
 * contexts knows it gets from `flare __complete` when it needs them. What an operand or a value is
 * is told by the word the help has for it: TOPIC, SUBSCRIPTION, CONTEXT, FILE, DIR, "a|b". */
#ifndef FLARE_COMPLETION_H
#define FLARE_COMPLETION_H

#include <stdio.h>

#include "tools/flare/options.h"

void completion_print_bash(FILE *file);
void completion_print_zsh(FILE *file);
void completion_print_fish(FILE *file);

struct completion_shell {
    const char *name;
    const char *file; /* as which its script is installed */
    void (*print)(FILE *file);
};

/* Ended by one without a name. */
extern const struct completion_shell completion_shells[];

/* Prints one element of a shell's array: a word with what it means. */
typedef void completion_item_t(FILE *file, const char *word, const char *text);

/* The functions that bash and zsh have in common, which know the tables:
 *   _flare_value COMMAND OPTION   sets `value` to the kind of the option's value; empty: none
 *   _flare_operands COMMAND       sets `kinds` to its operands
 *   _flare_options COMMAND        sets `options` to its options
 *   _flare_commands WORD          sets `commands` to the words that may follow; empty: none */
void completion_print_tables(FILE *file, completion_item_t *item);

/* The function _flare_walk of bash and zsh, with what each loops over the words with. */
void completion_print_walk(FILE *file, const char *loop);

/* `text` in single quotes, so that a shell sees it as it is; `end` is what stands there for a
 * quote: "'\\''" for bash and zsh, "\\'" for fish. */
void completion_print_quoted(FILE *file, const char *text, const char *end);

#endif
