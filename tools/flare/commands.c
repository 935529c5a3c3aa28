#include "tools/flare/commands.h"

#include <assert.h>
#include <string.h>

#include "tools/flare/cli.h"

static const struct cli_command *const groups[] = {
    topic_commands, sub_commands,    pub_commands,        pull_commands, tail_commands,
    peek_commands,  status_commands, top_commands,        data_commands, job_commands,
    bench_commands, ctx_commands,    completion_commands,
};

const struct cli_command *commands_at(size_t index)
{
    for (size_t i = 0; i < sizeof groups / sizeof groups[0]; i++) {
        for (const struct cli_command *row = groups[i]; row->name != NULL; row++) {
            if (index == 0) {
                return row;
            }
            index--;
        }
    }
    return NULL;
}

const struct cli_command *commands_next(size_t *position)
{
    const struct cli_command *row = NULL;
    do {
        row = commands_at(*position);
        (*position)++;
    } while (row != NULL && row->hidden);
    return row;
}

bool commands_has_noun(const struct cli_command *command, const char *noun)
{
    size_t size = strlen(noun);
    return strncmp(command->name, noun, size) == 0 && command->name[size] == ' ';
}

static bool same_noun(const struct cli_command *a, const struct cli_command *b)
{
    size_t size = strcspn(a->name, " ");
    return size == strcspn(b->name, " ") && memcmp(a->name, b->name, size) == 0;
}

static bool is_first_of_noun(size_t index)
{
    const struct cli_command *row = commands_at(index);
    for (size_t i = 0; i < index; i++) {
        if (same_noun(commands_at(i), row)) {
            return false;
        }
    }
    return true;
}

const struct cli_command *commands_next_noun(size_t *position, char noun[COMMANDS_NAME_MAX])
{
    const struct cli_command *row = NULL;
    while ((row = commands_next(position)) != NULL) {
        if (is_first_of_noun(*position - 1)) {
            size_t size = strcspn(row->name, " ");
            assert(size < COMMANDS_NAME_MAX);
            memcpy(noun, row->name, size);
            noun[size] = '\0';
            return row;
        }
    }
    return NULL;
}

const struct cli_command *commands_find(char *const *words, size_t count, size_t *taken)
{
    const struct cli_command *row = NULL;
    for (size_t i = 0; count > 0 && (row = commands_at(i)) != NULL; i++) {
        size_t size = strcspn(row->name, " ");
        bool alone = row->name[size] == '\0';
        bool first = strlen(words[0]) == size && memcmp(words[0], row->name, size) == 0;
        if (first && (alone || (count > 1 && strcmp(words[1], row->name + size + 1) == 0))) {
            *taken = alone ? 1 : 2;
            return row;
        }
    }
    return NULL;
}
