/* flare topic put|create|get|ls|rm, and the shards of a topic. */
#include <string.h>

#include "tools/flare/output.h"

enum { TOPIC_SHARDS, TOPIC_RETENTION, TOPIC_RETENTION_BYTES, TOPIC_WINDOW, TOPIC_DURABILITY };

static const struct option_row put_options[] = {
    [TOPIC_SHARDS] = {.name = "shards",
                      .letter = 's',
                      .kind = OPTION_NUMBER,
                      .min = 1,
                      .max = 4096,
                      .value = "N",
                      .help = "shards, fixed at creation; default 4"},
    [TOPIC_RETENTION] = {.name = "retention",
                         .kind = OPTION_DURATION,
                         .min = 1000,
                         .value = "TIME",
                         .help = "also keep finished messages so long, for replay"},
    [TOPIC_RETENTION_BYTES] = {.name = "retention-bytes",
                               .kind = OPTION_SIZE,
                               .min = 1,
                               .value = "SIZE",
                               .help = "at most so many bytes of each shard are kept for replay"},
    [TOPIC_WINDOW] = {.name = "idempotency-window",
                      .kind = OPTION_DURATION,
                      .max = 604800000,
                      .value = "TIME",
                      .help = "how long idempotency keys are remembered; default 5m, 0 never"},
    [TOPIC_DURABILITY] = {.name = "durability",
                          .kind = OPTION_CHOICE,
                          .value = "synced|relaxed",
                          .help =
                              "a publish is answered after its flush, or before; default synced"},
    {.name = NULL},
};

static const struct field topic_fields[] = {
    {"NAME", "name", FIELD_TEXT},
    {"STATE", "state", FIELD_TEXT},
    {"SHARDS", "shards", FIELD_NUMBER},
    {"SUBSCRIPTIONS", "subscriptions", FIELD_NUMBER},
    {"RETENTION", "retention.age_ms", FIELD_DURATION},
    {"RETENTION-SIZE", "retention.bytes", FIELD_SIZE},
    {"IDEMPOTENCY", "idempotency_window_ms", FIELD_DURATION},
    {"CREATED", "created_at", FIELD_TEXT},
    {"DURABILITY", "durability", FIELD_TEXT},
    {.title = NULL},
};

static err_t topic_write(struct cli *cli, const struct arguments *arguments, bool only_new)
{
    struct request request;
    json_t *topic = NULL;
    json_t *document = json_object();
    cli_set_number(document, "shards", arguments, TOPIC_SHARDS);
    cli_set_number(document, "idempotency_window", arguments, TOPIC_WINDOW);
    if (arguments->values[TOPIC_DURABILITY].set) {
        (void)json_object_set_new(document, "durability",
                                  json_string(arguments->values[TOPIC_DURABILITY].text));
    }
    if (arguments->values[TOPIC_RETENTION].set || arguments->values[TOPIC_RETENTION_BYTES].set) {
        json_t *retention = json_object();
        cli_set_number(retention, "age", arguments, TOPIC_RETENTION);
        cli_set_number(retention, "bytes", arguments, TOPIC_RETENTION_BYTES);
        (void)json_object_set_new(document, "retention", retention);
    }
    request_init(&request, "PUT", "/v1/topics/{}", arguments->operands[0]);
    if (only_new) {
        request_header(&request, "If-None-Match", "*");
    }
    request_json(&request, document);
    TRY(client_call(cli->client, &request, &topic));
    output_object(cli, topic_fields, topic);
    json_decref(topic);
    return NULL;
}

static err_t topic_put(struct cli *cli, const struct arguments *arguments)
{
    return topic_write(cli, arguments, false);
}

static err_t topic_create(struct cli *cli, const struct arguments *arguments)
{
    return topic_write(cli, arguments, true);
}

static err_t topic_get(struct cli *cli, const struct arguments *arguments)
{
    struct request request;
    json_t *topic = NULL;
    request_init(&request, "GET", "/v1/topics/{}", arguments->operands[0]);
    TRY(client_call(cli->client, &request, &topic));
    output_object(cli, topic_fields, topic);
    json_decref(topic);
    return NULL;
}

static err_t topic_list(struct cli *cli, const struct arguments *arguments)
{
    struct request request;
    (void)arguments;
    request_init(&request, "GET", "/v1/topics");
    return output_pages(cli, &request, topic_fields, 0);
}

static err_t topic_remove(struct cli *cli, const struct arguments *arguments)
{
    struct request request;
    const char *name = arguments->operands[0];
    TRY(cli_confirm(cli, arguments->values[CLI_REMOVE_YES].set,
                    "delete, with its subscriptions and messages, the topic", name));
    request_init(&request, "DELETE", "/v1/topics/{}", name);
    TRY(client_call(cli->client, &request, NULL));
    cli_note(cli, "topic %s deleted", name);
    return NULL;
}

static const struct field shard_fields[] = {
    {"SHARD", "shard", FIELD_NUMBER},
    {"STATE", "state", FIELD_TEXT},
    {"FROM", "hash_first", FIELD_TEXT},
    {"TO", "hash_last", FIELD_TEXT},
    {"VOLUME", "volume", FIELD_NUMBER},
    {"RETAINED", "retained_from", FIELD_NUMBER},
    {"NEXT", "next_sequence", FIELD_NUMBER},
    {"SUBSCRIPTION", "s.name", FIELD_TEXT},
    {"CURSOR", "s.cursor", FIELD_NUMBER},
    {"ENQUEUED", "s.enqueued", FIELD_NUMBER},
    {"LEASED", "s.leased", FIELD_NUMBER},
    {"SCHEDULED", "s.scheduled", FIELD_NUMBER},
    {"DEAD", "s.dead", FIELD_NUMBER},
    {"OLDEST", "s.oldest_unacknowledged_age_ms", FIELD_DURATION},
    {.title = NULL},
};

/* A row for each shard and subscription: what a person compares is in one column. */
static json_t *shard_rows(const json_t *items)
{
    json_t *rows = json_array();
    for (size_t i = 0; i < json_array_size(items); i++) {
        json_t *shard = json_array_get(items, i);
        const json_t *subscriptions = json_object_get(shard, "subscriptions");
        size_t count = json_array_size(subscriptions);
        for (size_t j = 0; j < (count == 0 ? 1 : count); j++) {
            json_t *row = json_copy(shard);
            (void)json_object_del(row, "subscriptions");
            (void)json_object_set(row, "s", json_array_get(subscriptions, j));
            (void)json_array_append_new(rows, row);
        }
    }
    return rows;
}

static err_t shard_list(struct cli *cli, const struct arguments *arguments)
{
    struct request request;
    struct output output;
    json_t *page = NULL;
    output_init(&output, cli, shard_fields);
    request_init(&request, "GET", "/v1/topics/{}/shards", arguments->operands[0]);
    if (cli->format == CLI_JSON) {
        return output_pages(cli, &request, shard_fields, 0);
    }
    request_query(&request, "limit", "1000");
    TRY(client_call(cli->client, &request, &page));
    for (;;) {
        const char *cursor = json_string_value(json_object_get(page, "next"));
        json_t *rows = shard_rows(json_object_get(page, "items"));
        output_items(&output, rows);
        json_decref(rows);
        if (cursor == NULL) {
            json_decref(page);
            return NULL;
        }
        request_init(&request, "GET", "/v1/topics/{}/shards", arguments->operands[0]);
        request_query(&request, "limit", "1000");
        request_query(&request, "cursor", cursor);
        json_decref(page);
        TRY(client_call(cli->client, &request, &page));
    }
}

#define PUT_DETAILS                                                                                \
    "It replaces the whole configuration: an option that is not given takes its default.\n"        \
    "Without --retention and --retention-bytes a message is kept until every subscription\n"       \
    "has finished it. With --durability relaxed publishing is faster, and a crash of the\n"        \
    "broker or the machine may lose the last messages that were published."

const struct cli_command topic_commands[] = {
    {.name = "topic put",
     .operands = "TOPIC",
     .summary = "Create a topic or replace its configuration",
     .details = PUT_DETAILS,
     .examples = "  flare topic put orders\n"
                 "  flare topic put orders --shards 8 --retention 24h\n"
                 "  flare topic put clicks --durability relaxed\n",
     .options = put_options,
     .operands_min = 1,
     .operands_max = 1,
     .run = topic_put},
    {.name = "topic create",
     .operands = "TOPIC",
     .summary = "Create a topic; an error when it exists",
     .details = NULL,
     .examples = "  flare topic create orders --shards 8\n",
     .options = put_options,
     .operands_min = 1,
     .operands_max = 1,
     .run = topic_create},
    {.name = "topic get",
     .operands = "TOPIC",
     .summary = "Show one topic",
     .examples = "  flare topic get orders\n  flare topic get orders --json\n",
     .operands_min = 1,
     .operands_max = 1,
     .run = topic_get},
    {.name = "topic ls",
     .operands = "",
     .summary = "List the topics",
     .examples = "  flare topic ls\n  flare topic ls --plain | cut -f 1\n",
     .run = topic_list},
    {.name = "topic rm",
     .operands = "TOPIC",
     .summary = "Delete a topic with its subscriptions and messages",
     .examples = "  flare topic rm orders\n  flare topic rm orders --yes\n",
     .options = cli_remove_options,
     .operands_min = 1,
     .operands_max = 1,
     .run = topic_remove},
    {.name = "shard ls",
     .operands = "TOPIC",
     .summary = "List the shards of a topic with the queues of each subscription",
     .examples = "  flare shard ls orders\n  flare shard ls orders --json\n",
     .operands_min = 1,
     .operands_max = 1,
     .run = shard_list},
    {.name = NULL},
};
