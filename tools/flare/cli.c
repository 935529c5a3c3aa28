#include "tools/flare/cli.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const struct option_row cli_remove_options[] = {
    [CLI_REMOVE_YES] = {.name = "yes", .letter = 'y', .kind = OPTION_FLAG, .help = "do not ask"},
    {.name = NULL},
};

void cli_note(const struct cli *cli, const char *format, ...)
{
    if (cli->quiet) {
        return;
    }
    va_list arguments;
    va_start(arguments, format);
    (void)vfprintf(stderr, format, arguments);
    va_end(arguments);
    (void)fputc('\n', stderr);
}

err_t cli_confirm(struct cli *cli, bool yes, const char *deed, const char *name)
{
    char line[512];
    if (yes) {
        return NULL;
    }
    if (!isatty(STDIN_FILENO) || !isatty(STDERR_FILENO)) {
        return USAGE(cli, "this would %s %s for good: add --yes", deed, name);
    }
    (void)fprintf(stderr, "This will %s %s for good. Type its name to go on: ", deed, name);
    if (fgets(line, sizeof line, stdin) == NULL) {
        line[0] = '\0';
    }
    line[strcspn(line, "\n")] = '\0';
    return strcmp(line, name) == 0 ? NULL : USAGE(cli, "not confirmed: nothing was done");
}

void cli_set_number(json_t *document, const char *name, const struct arguments *arguments,
                    uint32_t option)
{
    if (arguments->values[option].set) {
        (void)json_object_set_new(document, name,
                                  json_integer((json_int_t)arguments->values[option].number));
    }
}

static void take_format(struct cli *cli)
{
    const char *format = cli->settings.values[SETTING_FORMAT].text;
    const char *no_color = getenv("NO_COLOR");
    cli->format = strcmp(format, "json") == 0    ? CLI_JSON
                  : strcmp(format, "plain") == 0 ? CLI_PLAIN
                                                 : CLI_TABLE;
    cli->color = cli->format == CLI_TABLE && isatty(STDOUT_FILENO) != 0 &&
                 (no_color == NULL || no_color[0] == '\0');
}

err_t cli_configure(struct cli *cli, const struct arguments *arguments)
{
    const struct option_value *globals = arguments->globals;
    enum cli_scope scope = arguments->command->scope;
    cli->blame = EX_USAGE;
    TRY(settings_check_given(arguments));
    cli->blame = EX_CONFIG;
    if (scope != CLI_CONTEXTLESS) {
        TRY(contexts_open(&cli->contexts));
    }
    TRY(settings_resolve(arguments, scope == CLI_CONTEXTLESS ? NULL : &cli->contexts,
                         &cli->settings));
    cli->blame = EX_OK;
    cli->url = cli->settings.values[SETTING_URL].text;
    cli->timeout_ms = cli->settings.values[SETTING_TIMEOUT].number;
    cli->quiet = globals[GLOBAL_QUIET].set;
    cli->print = globals[GLOBAL_CURL].set;
    cli->trace = globals[GLOBAL_TRACE].set;
    take_format(cli);
    if (scope != CLI_BROKER) {
        return NULL;
    }
    struct client_options options = {
        .url = cli->url, .timeout_ms = cli->timeout_ms, .print = cli->print, .trace = cli->trace};
    return client_create(&options, &cli->client);
}
