/* The list of commands: what finds them for the program, and what walks them for help, completions
 * and pages. */
#ifndef FLARE_COMMANDS_H
#define FLARE_COMMANDS_H

#include <stdbool.h>
#include <stddef.h>

#include "tools/flare/options.h"

enum { COMMANDS_NAME_MAX = 32 };

/* Every command in the order of the help, the hidden ones too; NULL past the last. */
const struct cli_command *commands_at(size_t index);
/* The next one that is not hidden: start with *position = 0; NULL past the last. */
const struct cli_command *commands_next(size_t *position);

/* The command that the first one or two of `words` name; `taken` is how many. NULL: none. */
const struct cli_command *commands_find(char *const *words, size_t count, size_t *taken);

/* Whether `command` belongs to `noun` ("topic" of "topic put"). */
bool commands_has_noun(const struct cli_command *command, const char *noun);
/* The first words of all commands, each once, in `noun`; the first command that has it. */
const struct cli_command *commands_next_noun(size_t *position, char noun[COMMANDS_NAME_MAX]);

#endif
