/* flare status. */
#include <stdio.h>
#include <time.h>

#include "tools/flare/output.h"
#include "tools/flare/progress.h"

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
    {"WIRE", "wire", FIELD_TEXT},
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

enum { STATUS_WAIT };
enum { POLL_MS = 50 };

static const struct option_row status_options[] = {
    [STATUS_WAIT] = {.name = "wait",
                     .letter = 'w',
                     .kind = OPTION_DURATION,
                     .max = 3600000,
                     .value = "TIME",
                     .help = "wait so long for the broker to be there and ready"},
    {.name = NULL},
};

/* Asks again and again: a broker that is not there yet cannot tell when it will be. */
static err_t wait_until_ready(struct cli *cli, uint64_t limit_ms)
{
    uint64_t started_us = progress_now_us();
    for (;;) {
        struct request request;
        struct span reply;
        request_init(&request, "GET", "/readyz");
        err_t err = client_call_text(cli->client, &request, &reply);
        if (err == NULL || client_printed(cli->client) ||
            progress_now_us() - started_us >= limit_ms * 1000) {
            return err;
        }
        err_free(err);
        struct timespec pause = {.tv_nsec = POLL_MS * 1000000L};
        (void)nanosleep(&pause, NULL);
    }
}

static err_t status_run(struct cli *cli, const struct arguments *arguments)
{
    struct request request;
    struct output output;
    json_t *status = NULL;
    if (arguments->values[STATUS_WAIT].set) {
        TRY(wait_until_ready(cli, arguments->values[STATUS_WAIT].number));
    }
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

const struct cli_command status_commands[] = {
    {.name = "status",
     .operands = "",
     .summary = "Show the broker: version, uptime, volumes",
     .examples = "  flare status\n"
                 "  flare status --json | jq .volumes\n"
                 "  flare status --wait 30s --quiet\n",
     .options = status_options,
     .run = status_run},
    {.name = NULL},
};
