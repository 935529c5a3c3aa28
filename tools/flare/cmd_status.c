/* flare status. */
#include "tools/flare/output.h"

static const struct field status_fields[] = {
    {"STATE", "state", FIELD_TEXT},
    {"VERSION", "version", FIELD_TEXT},
    {"STARTED", "started_at", FIELD_TEXT},
    {"UPTIME", "uptime_ms", FIELD_DURATION},
    {"DURABILITY", "durability", FIELD_TEXT},
    {"TOPICS", "topics", FIELD_NUMBER},
    {"SUBSCRIPTIONS", "subscriptions", FIELD_NUMBER},
    {"WAITING-PULLS", "waiting_pulls", FIELD_NUMBER},
    {"CONNECTIONS", "connections", FIELD_NUMBER},
    {"LOG-LEVEL", "log_level", FIELD_TEXT},
    {.title = NULL},
};

static const struct field volume_fields[] = {
    {"VOLUME", "name", FIELD_TEXT},
    {"STATE", "state", FIELD_TEXT},
    {"USED", "used_bytes", FIELD_SIZE},
    {"FILE", "file_bytes", FIELD_SIZE},
    {"OLDEST-READER", "reader_age_ms", FIELD_DURATION},
    {"MAILBOX", "mailbox", FIELD_NUMBER},
    {"COMMANDS", "commands_total", FIELD_NUMBER},
    {"COMMITS", "commits_total", FIELD_NUMBER},
    {"FAILURE", "failure", FIELD_TEXT},
    {.title = NULL},
};

static err_t status_run(struct cli *cli, const struct arguments *arguments)
{
    struct request request;
    struct output output;
    json_t *status = NULL;
    (void)arguments;
    request_init(&request, "GET", "/v1/status");
    TRY(client_call(cli->client, &request, &status));
    output_object(cli, status_fields, status);
    if (cli->format == CLI_TABLE) {
        (void)putchar('\n');
        output_init(&output, cli, volume_fields);
        output_items(&output, json_object_get(status, "volumes"));
    }
    json_decref(status);
    return NULL;
}

const struct command status_commands[] = {
    {.name = "status",
     .operands = "",
     .summary = "Show the broker: version, uptime, volumes",
     .examples = "  flare status\n  flare status --json | jq .volumes\n",
     .run = status_run},
    {.name = NULL},
};
