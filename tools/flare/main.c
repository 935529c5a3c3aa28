/* flare: the command-line tool. Finds the command, parses its line, runs it, reports its error
 * once. */
#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>

#include "broker/base/version.h"
#include "tools/flare/cli.h"
#include "tools/flare/commands.h"

/* Exit codes for the errors that are not EX_SOFTWARE; the first row that fits counts. */
struct exit_row {
    enum err_code code;
    int exit_code;
};

static const struct exit_row exit_rows[] = {
    {ERR_INVALID, EX_DATAERR},
    {ERR_TOO_LARGE, EX_DATAERR},
    {ERR_EXISTS, EX_DATAERR},
    {ERR_CONFLICT, EX_DATAERR},
    {ERR_LEASE_LOST, EX_DATAERR},
    {ERR_PRECONDITION, EX_DATAERR},
    {ERR_NOT_ATOMIC, EX_DATAERR},
    {ERR_IDEMPOTENCY_REUSED, EX_DATAERR},
    {ERR_CORRUPT, EX_DATAERR},
    {ERR_ABORTED, EX_DATAERR},
    {ERR_HEADERS_TOO_LARGE, EX_DATAERR},
    {ERR_NOT_FOUND, EX_NOINPUT},
    {ERR_UNAVAILABLE, EX_UNAVAILABLE},
    {ERR_NOT_IMPLEMENTED, EX_UNAVAILABLE},
    {ERR_BUSY, EX_TEMPFAIL},
    {ERR_QUOTA, EX_TEMPFAIL},
    {ERR_TIMEOUT, EX_TEMPFAIL},
    {ERR_NO_SPACE, EX_TEMPFAIL},
    {ERR_MAP_FULL, EX_TEMPFAIL},
    {ERR_LOCKED, EX_TEMPFAIL},
    {ERR_UNKNOWN, EX_TEMPFAIL},
    {ERR_MOVED, EX_TEMPFAIL},
    {ERR_FORMAT, EX_PROTOCOL},
    {ERR_IO, EX_IOERR},
};

static int exit_code_of(const struct cli *cli, err_t err)
{
    long status = cli->client == NULL ? 0 : client_status(cli->client);
    if (cli->blame != EX_OK) {
        return cli->blame;
    }
    if (status == 401 || status == 403) {
        return EX_NOPERM;
    }
    if (status == 503) { /* it answered: it is there, but not now */
        return EX_TEMPFAIL;
    }
    for (size_t i = 0; i < sizeof exit_rows / sizeof exit_rows[0]; i++) {
        if (exit_rows[i].code == err_code(err)) {
            return exit_rows[i].exit_code;
        }
    }
    return EX_SOFTWARE;
}

/* Of one noun ("topic" of "topic put"), or all for NULL. */
static size_t print_commands(FILE *file, const char *noun)
{
    size_t count = 0;
    size_t position = 0;
    const struct cli_command *row = NULL;
    while ((row = commands_next(&position)) != NULL) {
        if (noun == NULL || commands_has_noun(row, noun)) {
            (void)fprintf(file, "  %-16s %s\n", row->name, row->summary);
            count++;
        }
    }
    return count;
}

static void print_overview(FILE *file)
{
    (void)fputs(
        "Usage: flare COMMAND [options]\n\nThe command-line tool of the Flare queue broker.\n"
        "\nCommands:\n",
        file);
    (void)print_commands(file, NULL);
    (void)fputs("\n", file);
    options_print_globals(file);
    (void)fputs("\nExamples:\n"
                "  flare topic put orders --shards 8\n"
                "  flare sub put orders billing\n"
                "  flare pub orders 'hello' --key customer-7\n"
                "  flare pull orders billing --max 10 --ack\n"
                "  flare COMMAND --help\n",
                file);
}

/* A line without a whole command: help when it was asked for, otherwise an error that helps. */
static err_t without_command(struct cli *cli, struct arguments *arguments)
{
    bool help = arguments->globals[GLOBAL_HELP].set;
    const char *noun = NULL;
    for (; arguments->next < arguments->argc; arguments->next++) {
        const char *word = arguments->argv[arguments->next];
        help |= strcmp(word, "help") == 0 || strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0;
        if (noun == NULL && word[0] != '-' && strcmp(word, "help") != 0) {
            noun = word;
        }
    }
    if (arguments->globals[GLOBAL_VERSION].set) {
        (void)printf("flare %s\n", FLARE_VERSION);
        return NULL;
    }
    if (noun == NULL) {
        print_overview(help ? stdout : stderr);
        return help ? NULL : USAGE(cli, "no command given");
    }
    if (print_commands(help ? stdout : stderr, noun) == 0) {
        return USAGE(cli, "unknown command '%s' (see flare --help)", noun);
    }
    return help ? NULL : USAGE(cli, "what about %s? The commands are above", noun);
}

static err_t run(struct cli *cli, struct arguments *arguments)
{
    err_t err = options_parse_globals(arguments);
    cli->blame = err == NULL ? EX_OK : EX_USAGE;
    TRY(err);
    if (arguments->next < arguments->argc &&
        strcmp(arguments->argv[arguments->next], "help") == 0) {
        arguments->globals[GLOBAL_HELP].set = true;
        arguments->next++;
    }
    size_t taken = 0;
    const struct cli_command *command = commands_find(
        arguments->argv + arguments->next, (size_t)(arguments->argc - arguments->next), &taken);
    if (command == NULL || arguments->globals[GLOBAL_VERSION].set) {
        return without_command(cli, arguments);
    }
    arguments->next += (int)taken;
    err = options_parse_command(arguments, command);
    cli->blame = err == NULL ? EX_OK : EX_USAGE;
    TRY(err);
    if (arguments->globals[GLOBAL_HELP].set) {
        options_print_help(stdout, command);
        return NULL;
    }
    TRY(cli_configure(cli, arguments));
    TRY(command->run(cli, arguments));
    if (arguments->globals[GLOBAL_CURL].set &&
        (cli->client == NULL || !client_printed(cli->client))) {
        return USAGE(cli, "flare %s sends no request that --curl could print", command->name);
    }
    return NULL;
}

static int report(const struct cli *cli, const struct arguments *arguments, err_t err)
{
    bool printed = cli->client != NULL && client_printed(cli->client);
    if (err == NULL || (printed && err_code(err) == ERR_ABORTED)) {
        return err == NULL ? cli->exit_code : EX_OK;
    }
    bool verbose = arguments->globals[GLOBAL_VERBOSE].set;
    (void)fprintf(stderr, "flare: %s\n", verbose ? err_describe(err) : err_message(err));
    if (cli->blame == EX_USAGE && arguments->command != NULL) {
        (void)fprintf(stderr, "Try: flare %s --help\n", arguments->command->name);
    }
    return exit_code_of(cli, err);
}

int main(int argc, char **argv)
{
    struct cli cli = {0};
    struct arguments arguments;
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        (void)fputs("flare: libcurl does not start\n", stderr);
        return EX_SOFTWARE;
    }
    err_t err = arguments_init(&arguments, argc - 1, argv + 1);
    if (err == NULL) {
        err = run(&cli, &arguments);
    }
    int exit_code = report(&cli, &arguments, err);
    if (fflush(stdout) != 0 || ferror(stdout) != 0) {
        (void)fprintf(stderr, "flare: cannot write to standard output: %s\n", strerror(errno));
        exit_code = EX_IOERR;
    }
    err_free(err);
    arguments_deinit(&arguments);
    client_destroy(cli.client);
    contexts_close(&cli.contexts);
    curl_global_cleanup();
    return exit_code;
}
