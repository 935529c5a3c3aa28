/* flare peek, dead, redrive: looking at messages without touching them, and repairing. */
#include <inttypes.h>
#include <stdio.h>

#include "tools/flare/output.h"
#include "tools/flare/progress.h"

enum { PEEK_STATE, PEEK_LIMIT, PEEK_NO_BODY };
enum { DEAD_LIMIT, DEAD_NO_BODY };
enum { REDRIVE_REASON, REDRIVE_ID, REDRIVE_SHARD, REDRIVE_LIMIT, REDRIVE_DRY_RUN };
enum { LIMIT_DEFAULT = 30, REDRIVE_STEP = 1000, REDRIVE_LIMIT_MAX = 100000 };

#define LIMIT_ROW                                                                                  \
    {                                                                                              \
        .name = "limit", .letter = 'n', .kind = OPTION_NUMBER, .min = 1, .value = "N",             \
        .help = "messages at most; default 30"                                                     \
    }
#define NO_BODY_ROW                                                                                \
    {                                                                                              \
        .name = "no-body", .kind = OPTION_FLAG, .help = "leave the bodies out"                     \
    }

static const struct option_row peek_options[] = {
    [PEEK_STATE] = {.name = "state",
                    .letter = 's',
                    .kind = OPTION_CHOICE,
                    .value = "enqueued|leased|scheduled|blocked|dead",
                    .help = "which messages; default enqueued"},
    [PEEK_LIMIT] = LIMIT_ROW,
    [PEEK_NO_BODY] = NO_BODY_ROW,
    {.name = NULL},
};

static const struct option_row dead_options[] = {
    [DEAD_LIMIT] = LIMIT_ROW, [DEAD_NO_BODY] = NO_BODY_ROW, {.name = NULL}};

static const struct option_row redrive_options[] = {
    [REDRIVE_REASON] = {.name = "reason",
                        .kind = OPTION_CHOICE,
                        .value = "attempts|expired|rejected|corrupt",
                        .help = "only those dead for this reason"},
    [REDRIVE_ID] = {.name = "id", .kind = OPTION_TEXT, .value = "ID", .help = "only this message"},
    [REDRIVE_SHARD] = {.name = "shard",
                       .kind = OPTION_NUMBER,
                       .max = UINT32_MAX,
                       .value = "N",
                       .help = "only those of this shard"},
    [REDRIVE_LIMIT] = {.name = "limit",
                       .letter = 'n',
                       .kind = OPTION_NUMBER,
                       .min = 1,
                       .max = REDRIVE_LIMIT_MAX,
                       .value = "N",
                       .help = "at most so many on each volume; default all"},
    [REDRIVE_DRY_RUN] = {.name = "dry-run", .kind = OPTION_FLAG, .help = "only count"},
    {.name = NULL},
};

static const struct field peek_fields[] = {
    {"ID", "id", FIELD_TEXT},
    {"SHARD", "shard", FIELD_NUMBER},
    {"SEQUENCE", "sequence", FIELD_NUMBER},
    {"ATTEMPTS", "attempts", FIELD_NUMBER},
    {"KEY", "key", FIELD_TEXT},
    {"PUBLISHED", "published_at", FIELD_TEXT},
    {"LEASE-UNTIL", "lease_until", FIELD_TEXT},
    {"DUE", "due_at", FIELD_TEXT},
    {"SIZE", "size", FIELD_SIZE},
    {"BODY", "", FIELD_BODY},
    {.title = NULL},
};

static const struct field dead_fields[] = {
    {"ID", "id", FIELD_TEXT},
    {"SHARD", "shard", FIELD_NUMBER},
    {"SEQUENCE", "sequence", FIELD_NUMBER},
    {"ATTEMPTS", "attempts", FIELD_NUMBER},
    {"REASON", "reason", FIELD_TEXT},
    {"NOTE", "note", FIELD_TEXT},
    {"DIED", "dead_at", FIELD_TEXT},
    {"KEY", "key", FIELD_TEXT},
    {"SIZE", "size", FIELD_SIZE},
    {"BODY", "", FIELD_BODY},
    {.title = NULL},
};

static const struct field redriven_fields[] = {{"REDRIVEN", "redriven", FIELD_NUMBER},
                                               {"MORE", "more", FIELD_TEXT},
                                               {"DRY-RUN", "dry_run", FIELD_TEXT},
                                               {.title = NULL}};

static void list_request(struct request *request, const struct arguments *arguments,
                         const char *state, bool body)
{
    request_init(request, "GET", CLIENT_SUB_PATH "/messages", arguments->operands[0],
                 arguments->operands[1]);
    request_query(request, "state", state);
    if (!body) {
        request_query(request, "body", "false");
    }
}

static err_t peek_run(struct cli *cli, const struct arguments *arguments)
{
    struct request request;
    const struct option_value *values = arguments->values;
    list_request(&request, arguments, values[PEEK_STATE].set ? values[PEEK_STATE].text : "enqueued",
                 !values[PEEK_NO_BODY].set);
    return output_pages(cli, &request, peek_fields,
                        arguments_number(arguments, PEEK_LIMIT, LIMIT_DEFAULT));
}

static err_t dead_run(struct cli *cli, const struct arguments *arguments)
{
    struct request request;
    list_request(&request, arguments, "dead", !arguments->values[DEAD_NO_BODY].set);
    return output_pages(cli, &request, dead_fields,
                        arguments_number(arguments, DEAD_LIMIT, LIMIT_DEFAULT));
}

static err_t redrive_step(struct cli *cli, const struct arguments *arguments, json_t **out)
{
    struct request request;
    const struct option_value *values = arguments->values;
    uint64_t limit = values[REDRIVE_DRY_RUN].set ? REDRIVE_LIMIT_MAX : REDRIVE_STEP;
    json_t *document = json_object();
    limit = arguments_number(arguments, REDRIVE_LIMIT, limit);
    (void)json_object_set_new(document, "limit", json_integer((json_int_t)limit));
    (void)json_object_set_new(document, "dry_run", json_boolean(values[REDRIVE_DRY_RUN].set));
    cli_set_number(document, "shard", arguments, REDRIVE_SHARD);
    if (values[REDRIVE_REASON].set) {
        (void)json_object_set_new(document, "reason", json_string(values[REDRIVE_REASON].text));
    }
    if (values[REDRIVE_ID].set) {
        (void)json_object_set_new(document, "id", json_string(values[REDRIVE_ID].text));
    }
    request_init(&request, "POST", CLIENT_SUB_PATH "/redrive", arguments->operands[0],
                 arguments->operands[1]);
    request_json(&request, document);
    return client_call(cli->client, &request, out);
}

/* Without a limit, in steps until none is left: a step is one short command of the broker. */
static err_t redrive_run(struct cli *cli, const struct arguments *arguments)
{
    const struct option_value *values = arguments->values;
    bool once = values[REDRIVE_LIMIT].set || values[REDRIVE_DRY_RUN].set || values[REDRIVE_ID].set;
    struct progress progress;
    uint64_t total = 0;
    json_t *reply = NULL;
    progress_init(&progress, cli->quiet);
    progress_begin(&progress, "redriving", 0);
    for (;;) {
        json_decref(reply);
        reply = NULL;
        err_t err = redrive_step(cli, arguments, &reply);
        if (err != NULL) {
            progress_done(&progress);
            return err_passed(err, __func__);
        }
        uint64_t count = (uint64_t)json_integer_value(json_object_get(reply, "redriven"));
        total += count;
        if (once || count == 0 || !json_is_true(json_object_get(reply, "more"))) {
            break;
        }
        progress_step(&progress, total);
    }
    progress_done(&progress);
    (void)json_object_set_new(reply, "redriven", json_integer((json_int_t)total));
    output_object(cli, redriven_fields, reply);
    json_decref(reply);
    return NULL;
}

#define TOPIC_SUB .operands = "TOPIC SUBSCRIPTION", .operands_min = 2, .operands_max = 2

const struct cli_command peek_commands[] = {
    {.name = "peek",
     TOPIC_SUB,
     .summary = "List messages by state without touching them",
     .examples = "  flare peek orders billing\n"
                 "  flare peek orders billing --state leased --limit 100\n",
     .options = peek_options,
     .run = peek_run},
    {.name = "dead",
     TOPIC_SUB,
     .summary = "List the dead letters with why and when they died",
     .examples = "  flare dead orders billing\n"
                 "  flare dead orders billing --json | jq -r .id\n",
     .options = dead_options,
     .run = dead_run},
    {.name = "redrive",
     TOPIC_SUB,
     .summary = "Put dead letters back to work",
     .examples = "  flare redrive orders billing --dry-run\n"
                 "  flare redrive orders billing --reason expired\n"
                 "  flare redrive orders billing --id 000000010000000000000011\n",
     .options = redrive_options,
     .run = redrive_run},
    {.name = NULL},
};
