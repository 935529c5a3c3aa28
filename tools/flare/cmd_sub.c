/* flare sub put|create|get|ls|rm|pause|resume|seek|purge. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/flare/output.h"

enum { SUB_LEASE, SUB_ATTEMPTS, SUB_RETRY_DELAY, SUB_IN_FLIGHT, SUB_START };
enum { PURGE_WHAT, PURGE_YES };
enum { SEEK_TO, SEEK_SHARD, SEEK_SEQUENCE, SEEK_DRY_RUN };

static const struct option_row put_options[] = {
    [SUB_LEASE] = {.name = "lease",
                   .kind = OPTION_DURATION,
                   .min = 100,
                   .max = 43200000,
                   .value = "TIME",
                   .help = "how long a pulled message is the consumer's; default 30s"},
    [SUB_ATTEMPTS] = {.name = "max-attempts",
                      .kind = OPTION_NUMBER,
                      .max = 65535,
                      .value = "N",
                      .help = "deliveries before it is a dead letter; default 16, 0 no bound"},
    [SUB_RETRY_DELAY] = {.name = "retry-delay",
                         .kind = OPTION_DURATION,
                         .max = 2592000000,
                         .value = "TIME",
                         .help = "from a failed delivery to the next; default 0"},
    [SUB_IN_FLIGHT] = {.name = "max-in-flight",
                       .kind = OPTION_NUMBER,
                       .max = 1000000,
                       .value = "N",
                       .help = "leased messages of each shard at most; default 0, no bound"},
    [SUB_START] = {.name = "start",
                   .kind = OPTION_TEXT,
                   .value = "WHERE",
                   .help = "latest (default), earliest, or a time (ISO-8601 or ms since 1970)"},
    {.name = NULL},
};

static const struct option_row purge_options[] = {
    [PURGE_WHAT] = {.name = "what",
                    .kind = OPTION_CHOICE,
                    .value = "all|enqueued|delivery|dead",
                    .help = "which messages; may repeat; default all"},
    [PURGE_YES] = {.name = "yes", .letter = 'y', .kind = OPTION_FLAG, .help = "do not ask"},
    {.name = NULL},
};

static const struct option_row seek_options[] = {
    [SEEK_TO] = {.name = "to",
                 .kind = OPTION_TEXT,
                 .value = "WHERE",
                 .help = "earliest, latest, or a time (ISO-8601 or ms since 1970)"},
    [SEEK_SHARD] = {.name = "shard",
                    .kind = OPTION_NUMBER,
                    .max = UINT32_MAX,
                    .value = "N",
                    .help = "only this shard, to --sequence"},
    [SEEK_SEQUENCE] = {.name = "sequence",
                       .kind = OPTION_NUMBER,
                       .max = INT64_MAX,
                       .value = "N",
                       .help = "the next message to deliver of --shard"},
    [SEEK_DRY_RUN] = {.name = "dry-run", .kind = OPTION_FLAG, .help = "only count"},
    {.name = NULL},
};

static const struct field sub_fields[] = {
    {"NAME", "name", FIELD_TEXT},
    {"STATE", "state", FIELD_TEXT},
    {"MODE", "mode", FIELD_TEXT},
    {"ORDERING", "ordering", FIELD_TEXT},
    {"ENQUEUED", "enqueue_queue.depth", FIELD_NUMBER},
    {"LEASED", "delivery_queue.leased", FIELD_NUMBER},
    {"SCHEDULED", "delivery_queue.scheduled", FIELD_NUMBER},
    {"BLOCKED", "delivery_queue.blocked", FIELD_NUMBER},
    {"DEAD", "delivery_queue.dead", FIELD_NUMBER},
    {"OLDEST", "oldest_unacknowledged_age_ms", FIELD_DURATION},
    {"LEASE", "lease_ms", FIELD_DURATION},
    {"ATTEMPTS", "max_attempts", FIELD_NUMBER},
    {"RETRY-DELAY", "retry.delay_ms", FIELD_DURATION},
    {"MAX-IN-FLIGHT", "max_in_flight", FIELD_NUMBER},
    {"CREATED", "created_at", FIELD_TEXT},
    {.title = NULL},
};

static const struct field purged_fields[] = {{"PURGED", "purged", FIELD_NUMBER}, {.title = NULL}};
static const struct field moved_fields[] = {
    {"MOVED", "moved", FIELD_NUMBER}, {"DRY-RUN", "dry_run", FIELD_TEXT}, {.title = NULL}};

static json_t *json_place(const char *text)
{
    size_t digits = strspn(text, "0123456789");
    bool number = text[digits] == '\0' && digits > 0 && digits <= 15;
    return number ? json_integer(strtoll(text, NULL, 10)) : json_string(text);
}

/* Sends the request and prints the subscription it answers with. */
static err_t call_and_print(struct cli *cli, struct request *request, const struct field *fields)
{
    json_t *reply = NULL;
    TRY(client_call(cli->client, request, &reply));
    output_object(cli, fields, reply);
    json_decref(reply);
    return NULL;
}

static err_t sub_write(struct cli *cli, const struct arguments *arguments, bool only_new)
{
    struct request request;
    json_t *document = json_object();
    cli_set_number(document, "lease", arguments, SUB_LEASE);
    cli_set_number(document, "max_attempts", arguments, SUB_ATTEMPTS);
    cli_set_number(document, "max_in_flight", arguments, SUB_IN_FLIGHT);
    if (arguments->values[SUB_RETRY_DELAY].set) {
        json_t *retry = json_object();
        cli_set_number(retry, "delay", arguments, SUB_RETRY_DELAY);
        (void)json_object_set_new(document, "retry", retry);
    }
    if (arguments->values[SUB_START].set) {
        (void)json_object_set_new(document, "start", json_place(arguments->values[SUB_START].text));
    }
    request_init(&request, "PUT", CLIENT_SUB_PATH, arguments->operands[0], arguments->operands[1]);
    if (only_new) {
        request_header(&request, "If-None-Match", "*");
    }
    request_json(&request, document);
    return call_and_print(cli, &request, sub_fields);
}

static err_t sub_put(struct cli *cli, const struct arguments *arguments)
{
    return sub_write(cli, arguments, false);
}

static err_t sub_create(struct cli *cli, const struct arguments *arguments)
{
    return sub_write(cli, arguments, true);
}

static err_t sub_get(struct cli *cli, const struct arguments *arguments)
{
    struct request request;
    request_init(&request, "GET", CLIENT_SUB_PATH, arguments->operands[0], arguments->operands[1]);
    return call_and_print(cli, &request, sub_fields);
}

static err_t sub_list(struct cli *cli, const struct arguments *arguments)
{
    struct request request;
    request_init(&request, "GET", "/v1/topics/{}/subscriptions", arguments->operands[0]);
    return output_pages(cli, &request, sub_fields, 0);
}

static err_t sub_remove(struct cli *cli, const struct arguments *arguments)
{
    struct request request;
    const char *name = arguments->operands[1];
    TRY(cli_confirm(cli, arguments->values[CLI_REMOVE_YES].set,
                    "delete, with its queues and dead letters, the subscription", name));
    request_init(&request, "DELETE", CLIENT_SUB_PATH, arguments->operands[0], name);
    TRY(client_call(cli->client, &request, NULL));
    cli_note(cli, "subscription %s deleted", name);
    return NULL;
}

static err_t sub_pause(struct cli *cli, const struct arguments *arguments)
{
    struct request request;
    request_init(&request, "POST", CLIENT_SUB_PATH "/pause", arguments->operands[0],
                 arguments->operands[1]);
    return call_and_print(cli, &request, sub_fields);
}

static err_t sub_resume(struct cli *cli, const struct arguments *arguments)
{
    struct request request;
    request_init(&request, "POST", CLIENT_SUB_PATH "/resume", arguments->operands[0],
                 arguments->operands[1]);
    return call_and_print(cli, &request, sub_fields);
}

static err_t sub_seek(struct cli *cli, const struct arguments *arguments)
{
    struct request request;
    const struct option_value *values = arguments->values;
    if (values[SEEK_SHARD].set != values[SEEK_SEQUENCE].set ||
        values[SEEK_TO].set == values[SEEK_SHARD].set) {
        return USAGE(cli, "say either --to WHERE or --shard N --sequence M");
    }
    json_t *to = NULL;
    if (values[SEEK_TO].set) {
        to = json_place(values[SEEK_TO].text);
    } else {
        to = json_object();
        cli_set_number(to, "shard", arguments, SEEK_SHARD);
        cli_set_number(to, "sequence", arguments, SEEK_SEQUENCE);
    }
    json_t *document = json_object();
    (void)json_object_set_new(document, "to", to);
    (void)json_object_set_new(document, "dry_run", json_boolean(values[SEEK_DRY_RUN].set));
    request_init(&request, "POST", CLIENT_SUB_PATH "/seek", arguments->operands[0],
                 arguments->operands[1]);
    request_json(&request, document);
    return call_and_print(cli, &request, moved_fields);
}

/* "all", or an array of the states given. */
static json_t *purge_what(const struct arguments *arguments)
{
    size_t position = 0;
    const char *what = NULL;
    json_t *list = json_array();
    while ((what = arguments_next(arguments, PURGE_WHAT, &position)) != NULL) {
        if (strcmp(what, "all") == 0) {
            json_decref(list);
            return json_string("all");
        }
        (void)json_array_append_new(list, json_string(what));
    }
    if (json_array_size(list) == 0) {
        json_decref(list);
        return json_string("all");
    }
    return list;
}

static err_t sub_purge(struct cli *cli, const struct arguments *arguments)
{
    struct request request;
    TRY(cli_confirm(cli, arguments->values[PURGE_YES].set, "drop messages of the subscription",
                    arguments->operands[1]));
    json_t *document = json_object();
    (void)json_object_set_new(document, "what", purge_what(arguments));
    request_init(&request, "POST", CLIENT_SUB_PATH "/purge", arguments->operands[0],
                 arguments->operands[1]);
    request_json(&request, document);
    return call_and_print(cli, &request, purged_fields);
}

#define TOPIC_SUB .operands = "TOPIC SUBSCRIPTION", .operands_min = 2, .operands_max = 2

const struct cli_command sub_commands[] = {
    {.name = "sub put",
     TOPIC_SUB,
     .summary = "Create a subscription or replace its configuration",
     .details = "It replaces the whole configuration: an option that is not given takes its\n"
                "default. --start counts only when the subscription is new.",
     .examples = "  flare sub put orders billing\n"
                 "  flare sub put orders audit --start earliest --lease 2m --max-attempts 5\n",
     .options = put_options,
     .run = sub_put},
    {.name = "sub create",
     TOPIC_SUB,
     .summary = "Create a subscription; an error when it exists",
     .examples = "  flare sub create orders billing\n",
     .options = put_options,
     .run = sub_create},
    {.name = "sub get",
     TOPIC_SUB,
     .summary = "Show one subscription with the depths of its queues",
     .examples = "  flare sub get orders billing\n"
                 "  flare sub get orders billing --json | jq .enqueue_queue.depth\n",
     .run = sub_get},
    {.name = "sub ls",
     .operands = "TOPIC",
     .operands_min = 1,
     .operands_max = 1,
     .summary = "List the subscriptions of a topic",
     .examples = "  flare sub ls orders\n",
     .run = sub_list},
    {.name = "sub rm",
     TOPIC_SUB,
     .summary = "Delete a subscription with its queues and dead letters",
     .examples = "  flare sub rm orders billing\n  flare sub rm orders billing --yes\n",
     .options = cli_remove_options,
     .run = sub_remove},
    {.name = "sub pause",
     TOPIC_SUB,
     .summary = "Stop deliveries; messages keep collecting",
     .examples = "  flare sub pause orders billing\n",
     .run = sub_pause},
    {.name = "sub resume",
     TOPIC_SUB,
     .summary = "Let deliveries go on",
     .examples = "  flare sub resume orders billing\n",
     .run = sub_resume},
    {.name = "sub seek",
     TOPIC_SUB,
     .summary = "Move the cursor back over what is still kept, or forward",
     .examples = "  flare sub seek orders audit --to earliest --dry-run\n"
                 "  flare sub seek orders audit --to 2026-01-02T03:04:05Z\n"
                 "  flare sub seek orders audit --shard 3 --sequence 1200\n",
     .options = seek_options,
     .run = sub_seek},
    {.name = "sub purge",
     TOPIC_SUB,
     .summary = "Drop messages of a subscription for good",
     .examples = "  flare sub purge orders billing\n"
                 "  flare sub purge orders billing --what dead --yes\n",
     .options = purge_options,
     .run = sub_purge},
    {.name = NULL},
};
