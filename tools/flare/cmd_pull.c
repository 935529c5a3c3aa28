/* flare pull, ack, nack, extend: what a consumer does. */
#include <stdio.h>
#include <string.h>

#include "tools/flare/output.h"

enum {
    PULL_MAX,
    PULL_WAIT,
    PULL_ACK,
    PULL_FOLLOW,
    PULL_DRAIN,
    PULL_BODY,
    PULL_LEASE,
    PULL_BYTES,
    PULL_CONSUMER
};
enum { NACK_DELAY, NACK_REJECT, NACK_REASON };
enum { EXTEND_LEASE };
enum { BODY_MAX = 64 * 1024 * 1024, FOLLOW_WAIT_MS = 20000 };

static const struct option_row pull_options[] = {
    [PULL_MAX] = {.name = "max",
                  .letter = 'n',
                  .kind = OPTION_NUMBER,
                  .min = 1,
                  .max = 10000,
                  .value = "N",
                  .help = "messages of one pull at most; default 1, with --follow or --drain 100"},
    [PULL_WAIT] = {.name = "wait",
                   .letter = 'w',
                   .kind = OPTION_DURATION,
                   .max = 300000,
                   .value = "TIME",
                   .help = "wait so long for a first message; default 0, with --follow 20s"},
    [PULL_ACK] = {.name = "ack",
                  .kind = OPTION_FLAG,
                  .help = "acknowledge each batch once it is written to standard output"},
    [PULL_FOLLOW] = {.name = "follow",
                     .letter = 'f',
                     .kind = OPTION_FLAG,
                     .help = "go on until interrupted; needs --ack"},
    [PULL_DRAIN] = {.name = "drain",
                    .letter = 'e',
                    .kind = OPTION_FLAG,
                    .help = "go on until nothing is left; needs --ack"},
    [PULL_BODY] = {.name = "body",
                   .letter = 'b',
                   .kind = OPTION_FLAG,
                   .help = "print only the bodies, each as it is and followed by a new line"},
    [PULL_LEASE] = {.name = "lease",
                    .kind = OPTION_DURATION,
                    .min = 100,
                    .max = 43200000,
                    .value = "TIME",
                    .help = "how long they are yours; default the subscription's"},
    [PULL_BYTES] = {.name = "max-bytes",
                    .kind = OPTION_SIZE,
                    .min = 1,
                    .max = 16777216,
                    .value = "SIZE",
                    .help = "of one pull; default 1MiB"},
    [PULL_CONSUMER] = {.name = "consumer",
                       .kind = OPTION_TEXT,
                       .value = "NAME",
                       .help = "who asks, for the broker's log"},
    {.name = NULL},
};

static const struct option_row nack_options[] = {
    [NACK_DELAY] = {.name = "delay",
                    .kind = OPTION_DURATION,
                    .max = 2592000000,
                    .value = "TIME",
                    .help = "not delivered again before; default the subscription's"},
    [NACK_REJECT] = {.name = "reject", .kind = OPTION_FLAG, .help = "make it a dead letter now"},
    [NACK_REASON] = {.name = "reason",
                     .kind = OPTION_TEXT,
                     .value = "TEXT",
                     .help = "kept with a dead letter"},
    {.name = NULL},
};

static const struct option_row extend_options[] = {
    [EXTEND_LEASE] = {.name = "lease",
                      .kind = OPTION_DURATION,
                      .min = 100,
                      .max = 43200000,
                      .value = "TIME",
                      .help = "from now; default the subscription's"},
    {.name = NULL},
};

static const struct field message_fields[] = {
    {"ID", "id", FIELD_TEXT},
    {"SHARD", "shard", FIELD_NUMBER},
    {"ATTEMPT", "attempt", FIELD_NUMBER},
    {"KEY", "key", FIELD_TEXT},
    {"RECEIPT", "receipt", FIELD_TEXT},
    {"BODY", "", FIELD_BODY},
    {.title = NULL},
};

/* With --ack the receipts are used up when the row is printed. */
static const struct field acked_fields[] = {
    {"ID", "id", FIELD_TEXT},
    {"SHARD", "shard", FIELD_NUMBER},
    {"ATTEMPT", "attempt", FIELD_NUMBER},
    {"KEY", "key", FIELD_TEXT},
    {"BODY", "", FIELD_BODY},
    {.title = NULL},
};

#define SUB_PATH "/v1/topics/{}/subscriptions/{}"

static err_t pull_once(struct cli *cli, const struct arguments *arguments, json_t **out)
{
    struct request request;
    const struct option_value *values = arguments->values;
    bool loops = values[PULL_FOLLOW].set || values[PULL_DRAIN].set;
    uint64_t wait_ms =
        arguments_number(arguments, PULL_WAIT, values[PULL_FOLLOW].set ? FOLLOW_WAIT_MS : 0);
    uint64_t max = arguments_number(arguments, PULL_MAX, loops ? 100 : 1);
    json_t *document = json_object();
    (void)json_object_set_new(document, "max", json_integer((json_int_t)max));
    if (wait_ms > 0) {
        (void)json_object_set_new(document, "wait", json_integer((json_int_t)wait_ms));
    }
    cli_set_number(document, "lease", arguments, PULL_LEASE);
    cli_set_number(document, "max_bytes", arguments, PULL_BYTES);
    if (values[PULL_CONSUMER].set) {
        (void)json_object_set_new(document, "consumer", json_string(values[PULL_CONSUMER].text));
    }
    request_init(&request, "POST", SUB_PATH "/pull", arguments->operands[0],
                 arguments->operands[1]);
    request_json(&request, document);
    request.wait_ms = wait_ms;
    return client_call(cli->client, &request, out);
}

/* Takes `document`, which has the receipts. A lost lease is reported with the receipts it concerns.
 */
static err_t settle(struct cli *cli, const struct arguments *arguments, const char *verb,
                    json_t *document, json_t **out)
{
    struct request request;
    request_init(&request, "POST", SUB_PATH "/{}", arguments->operands[0], arguments->operands[1],
                 verb);
    request_json(&request, document);
    err_t err = client_call(cli->client, &request, out);
    if (err_code(err) == ERR_LEASE_LOST) {
        const json_t *results = json_object_get(client_problem(cli->client), "results");
        for (size_t i = 0; i < json_array_size(results); i++) {
            const json_t *result = json_array_get(results, i);
            const char *code = json_string_value(json_object_get(result, "code"));
            const char *receipt = json_string_value(json_object_get(result, "receipt"));
            if (code != NULL && receipt != NULL && strcmp(code, "ok") != 0) {
                cli_note(cli, "%s: %s", code, receipt);
            }
        }
    }
    return err;
}

static err_t print_bodies(const json_t *messages)
{
    struct buf body;
    err_t err = NULL;
    buf_init(&body, BODY_MAX);
    for (size_t i = 0; i < json_array_size(messages); i++) {
        buf_reset(&body);
        TRY_OUT(output_body(json_array_get(messages, i), &body));
        (void)fwrite(body.data, 1, body.size, stdout);
        (void)putchar('\n');
    }
out:
    buf_deinit(&body);
    return err;
}

/* Acknowledges what was printed: only when it has left this process. */
static err_t ack_messages(struct cli *cli, const struct arguments *arguments,
                          const json_t *messages)
{
    if (fflush(stdout) != 0 || ferror(stdout) != 0) {
        return ERR(IO, "writing to standard output failed: nothing of this batch acknowledged");
    }
    json_t *receipts = json_array();
    for (size_t i = 0; i < json_array_size(messages); i++) {
        (void)json_array_append(receipts, json_object_get(json_array_get(messages, i), "receipt"));
    }
    json_t *document = json_object();
    (void)json_object_set_new(document, "receipts", receipts);
    return settle(cli, arguments, "ack", document, NULL);
}

/* One pull, printed and, if wished, acknowledged; `count` is how many messages came. */
static err_t pull_batch(struct cli *cli, const struct arguments *arguments, struct output *output,
                        size_t *count)
{
    json_t *reply = NULL;
    err_t err = NULL;
    TRY(pull_once(cli, arguments, &reply));
    const json_t *messages = json_object_get(reply, "messages");
    *count = json_array_size(messages);
    if (*count == 0) {
        goto out;
    }
    if (arguments->values[PULL_BODY].set) {
        TRY_OUT(print_bodies(messages));
    } else {
        output_items(output, messages);
    }
    if (arguments->values[PULL_ACK].set) {
        TRY_OUT(ack_messages(cli, arguments, messages));
    }
out:
    json_decref(reply);
    return err;
}

static err_t pull_run(struct cli *cli, const struct arguments *arguments)
{
    struct output output;
    const struct option_value *values = arguments->values;
    bool ack = values[PULL_ACK].set;
    bool follow = values[PULL_FOLLOW].set;
    size_t count = 0;
    if ((follow || values[PULL_DRAIN].set) && !ack) {
        return USAGE(cli, "--follow and --drain need --ack: unacknowledged messages come again");
    }
    if (follow && values[PULL_DRAIN].set) {
        return USAGE(cli, "--follow and --drain exclude each other");
    }
    output_init(&output, cli, ack ? acked_fields : message_fields);
    do {
        TRY(pull_batch(cli, arguments, &output, &count));
    } while (follow || (values[PULL_DRAIN].set && count > 0));
    if (count == 0 && !values[PULL_DRAIN].set) {
        cli_note(cli, "no message");
    }
    return NULL;
}

static json_t *given_receipts(const struct arguments *arguments)
{
    json_t *document = json_object();
    json_t *receipts = json_array();
    for (size_t i = 2; i < arguments->operand_count; i++) {
        (void)json_array_append_new(receipts, json_string(arguments->operands[i]));
    }
    (void)json_object_set_new(document, "receipts", receipts);
    return document;
}

static err_t settle_and_print(struct cli *cli, const struct arguments *arguments, const char *verb,
                              json_t *document, const struct field *fields)
{
    json_t *reply = NULL;
    TRY(settle(cli, arguments, verb, document, &reply));
    output_object(cli, fields, reply);
    json_decref(reply);
    return NULL;
}

static err_t ack_run(struct cli *cli, const struct arguments *arguments)
{
    static const struct field fields[] = {{"ACKED", "acked", FIELD_NUMBER}, {.title = NULL}};
    return settle_and_print(cli, arguments, "ack", given_receipts(arguments), fields);
}

static err_t nack_run(struct cli *cli, const struct arguments *arguments)
{
    static const struct field fields[] = {{"NACKED", "nacked", FIELD_NUMBER}, {.title = NULL}};
    const struct option_value *values = arguments->values;
    if (values[NACK_DELAY].set && values[NACK_REJECT].set) {
        return USAGE(cli, "--delay and --reject exclude each other");
    }
    json_t *document = given_receipts(arguments);
    cli_set_number(document, "delay", arguments, NACK_DELAY);
    if (values[NACK_REJECT].set) {
        (void)json_object_set_new(document, "reject", json_true());
    }
    if (values[NACK_REASON].set) {
        (void)json_object_set_new(document, "reason", json_string(values[NACK_REASON].text));
    }
    return settle_and_print(cli, arguments, "nack", document, fields);
}

static err_t extend_run(struct cli *cli, const struct arguments *arguments)
{
    static const struct field fields[] = {{"EXTENDED", "extended", FIELD_NUMBER},
                                          {"LEASE", "lease_ms", FIELD_DURATION},
                                          {.title = NULL}};
    json_t *document = given_receipts(arguments);
    cli_set_number(document, "lease", arguments, EXTEND_LEASE);
    return settle_and_print(cli, arguments, "extend", document, fields);
}

#define RECEIPTS                                                                                   \
    .operands = "TOPIC SUBSCRIPTION RECEIPT...", .operands_min = 3, .operands_max = 10002

const struct cli_command pull_commands[] = {
    {.name = "pull",
     .operands = "TOPIC SUBSCRIPTION",
     .operands_min = 2,
     .operands_max = 2,
     .summary = "Take messages of a subscription, and with --ack finish them",
     .details =
         "Without --ack the messages are leased: finish them with flare ack before the lease\n"
         "ends, or they are delivered again.",
     .examples = "  flare pull orders billing\n"
                 "  flare pull orders billing --max 10 --ack --wait 20s\n"
                 "  flare pull orders billing --ack --drain --body > orders.txt\n"
                 "  flare pull orders billing --ack --follow --json | jq .body\n",
     .options = pull_options,
     .run = pull_run},
    {.name = "ack",
     RECEIPTS,
     .summary = "Finish messages",
     .examples = "  flare ack orders billing AQAAAA...\n",
     .run = ack_run},
    {.name = "nack",
     RECEIPTS,
     .summary = "Give messages back, to be delivered again or as dead letters",
     .examples = "  flare nack orders billing AQAAAA... --delay 1m\n"
                 "  flare nack orders billing AQAAAA... --reject --reason 'no such customer'\n",
     .options = nack_options,
     .run = nack_run},
    {.name = "extend",
     RECEIPTS,
     .summary = "Keep messages for longer",
     .examples = "  flare extend orders billing AQAAAA... --lease 5m\n",
     .options = extend_options,
     .run = extend_run},
    {.name = NULL},
};
