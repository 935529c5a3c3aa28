/* flare completion, and the hidden command that its scripts ask for names. */
#include <stdio.h>
#include <string.h>

#include "tools/flare/cli.h"
#include "tools/flare/completion.h"

enum { NAMES_MAX = 1000, NAMES_TIMEOUT_MS = 700 };

static err_t completion_run(struct cli *cli, const struct arguments *arguments)
{
    for (const struct completion_shell *shell = completion_shells; shell->name != NULL; shell++) {
        if (strcmp(arguments->operands[0], shell->name) == 0) {
            shell->print(stdout);
            return NULL;
        }
    }
    return USAGE(cli, "'%s' is none of bash, zsh and fish", arguments->operands[0]);
}

/* Only what is a name by the rules: a shell may evaluate what it is offered. */
static void print_name(const char *name)
{
    static const char allowed[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    if (name != NULL && name[0] != '\0' && name[strspn(name, allowed)] == '\0') {
        (void)puts(name);
    }
}

static void print_contexts(struct cli *cli)
{
    const char *name = NULL;
    json_t *fields = NULL;
    json_object_foreach(contexts_all(&cli->contexts), name, fields)
    {
        print_name(name);
    }
}

/* Names of topics, or of the subscriptions of one. */
static err_t print_names(struct cli *cli, const char *topic)
{
    struct request request;
    json_t *reply = NULL;
    struct client_options options = {.url = cli->settings.values[SETTING_URL].text,
                                     .timeout_ms = NAMES_TIMEOUT_MS};
    char limit[16];
    TRY(client_create(&options, &cli->client));
    (void)snprintf(limit, sizeof limit, "%d", NAMES_MAX);
    if (topic == NULL) {
        request_init(&request, "GET", "/v1/topics");
    } else {
        request_init(&request, "GET", "/v1/topics/{}/subscriptions", topic);
    }
    request_query(&request, "limit", limit);
    TRY(client_call(cli->client, &request, &reply));
    const json_t *items = json_object_get(reply, "items");
    for (size_t i = 0; i < json_array_size(items); i++) {
        print_name(json_string_value(json_object_get(json_array_get(items, i), "name")));
    }
    json_decref(reply);
    return NULL;
}

static err_t complete_names(struct cli *cli, const struct arguments *arguments)
{
    const char *what = arguments->operands[0];
    bool topics = strcmp(what, "topics") == 0;
    TRY(contexts_open(&cli->contexts));
    if (strcmp(what, "contexts") == 0) {
        print_contexts(cli);
        return NULL;
    }
    TRY(settings_resolve(arguments, &cli->contexts, &cli->settings));
    if (topics || (strcmp(what, "subscriptions") == 0 && arguments->operand_count == 2)) {
        return print_names(cli, topics ? NULL : arguments->operands[1]);
    }
    return NULL;
}

/* Whatever goes wrong, the person in front of the shell has not asked for it: nothing is offered.
 */
static err_t complete_run(struct cli *cli, const struct arguments *arguments)
{
    err_free(complete_names(cli, arguments));
    return NULL;
}

const struct cli_command completion_commands[] = {
    {.name = "completion",
     .operands = "bash|zsh|fish",
     .operands_min = 1,
     .operands_max = 1,
     .scope = CLI_CONTEXTLESS,
     .summary = "Print the script that completes flare's commands in a shell",
     .details =
         "Names of topics, subscriptions and contexts are completed too, as the broker knows\n"
         "them at that moment.",
     .examples = "  flare completion bash > /etc/bash_completion.d/flare\n"
                 "  flare completion zsh > ~/.zfunc/_flare\n"
                 "  flare completion fish > ~/.config/fish/completions/flare.fish\n",
     .run = completion_run},
    {.name = "__complete",
     .operands = "WHAT [TOPIC]",
     .operands_min = 1,
     .operands_max = 2,
     .scope = CLI_CONTEXTLESS,
     .hidden = true,
     .summary = "Print names for a completion: topics, subscriptions or contexts",
     .examples = "  flare __complete subscriptions orders\n",
     .run = complete_run},
    {.name = NULL},
};
