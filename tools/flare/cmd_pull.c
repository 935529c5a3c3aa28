/* flare pull, ack, nack, extend: what a consumer does. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/flare/deliveries.h"
#include "tools/flare/link.h"
#include "tools/flare/output.h"
#include "tools/flare/transport.h"

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
enum { BYTES_DEFAULT = 1024 * 1024, RECEIPT_MAX = 128, FOLLOW_WAIT_MS = 20000 };

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
    [PULL_BODY] = DELIVERIES_BODY_ROW,
    [PULL_LEASE] = DELIVERIES_LEASE_ROW("how long they are yours; default the subscription's"),
    [PULL_BYTES] = {.name = "max-bytes",
                    .kind = OPTION_SIZE,
                    .min = 1,
                    .max = 16777216,
                    .value = "SIZE",
                    .help = "of one pull; default 1MiB"},
    [PULL_CONSUMER] = DELIVERIES_CONSUMER_ROW,
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
    [EXTEND_LEASE] = DELIVERIES_LEASE_ROW("from now; default the subscription's"),
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

struct pull {
    struct cli *cli;
    const struct arguments *arguments;
    struct flare_client *link; /* NULL: HTTP */
    struct output output;
    struct flare_source source;
    struct flare_pull options;
};

/* Takes `document`, which has the receipts. A lost lease is reported with the receipts it concerns.
 */
static err_t settle(struct cli *cli, const struct arguments *arguments, const char *verb,
                    json_t *document, json_t **out)
{
    const struct flare_source source = {arguments->operands[0], arguments->operands[1]};
    err_t err = deliveries_settle(cli->client, &source, verb, document, out);
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
    for (size_t i = 0; i < json_array_size(messages); i++) {
        TRY(deliveries_print_document(json_array_get(messages, i)));
    }
    return NULL;
}

/* What was printed may be acknowledged only when it has left this process. */
static err_t flush_output(void)
{
    if (fflush(stdout) != 0 || ferror(stdout) != 0) {
        return ERR(IO, "writing to standard output failed: nothing of this batch acknowledged");
    }
    return NULL;
}

static err_t ack_messages(struct cli *cli, const struct arguments *arguments,
                          const json_t *messages)
{
    TRY(flush_output());
    json_t *receipts = json_array();
    for (size_t i = 0; i < json_array_size(messages); i++) {
        (void)json_array_append(receipts, json_object_get(json_array_get(messages, i), "receipt"));
    }
    json_t *document = json_object();
    (void)json_object_set_new(document, "receipts", receipts);
    return settle(cli, arguments, "ack", document, NULL);
}

/* One pull, printed and, if wished, acknowledged; `count` is how many messages came. */
static err_t pull_http(struct pull *pull, size_t *count)
{
    json_t *reply = NULL;
    err_t err = NULL;
    const struct option_value *values = pull->arguments->values;
    TRY(deliveries_pull(pull->cli->client, &pull->source, &pull->options, &reply));
    const json_t *messages = json_object_get(reply, "messages");
    *count = json_array_size(messages);
    if (*count == 0) {
        goto out;
    }
    if (values[PULL_BODY].set) {
        TRY_OUT(print_bodies(messages));
    } else {
        output_items(&pull->output, messages);
    }
    if (values[PULL_ACK].set) {
        TRY_OUT(ack_messages(pull->cli, pull->arguments, messages));
    }
out:
    json_decref(reply);
    return err;
}

/* ---- over the wire ---- */

static void print_batch(struct pull *pull, const struct flare_batch *batch)
{
    if (pull->arguments->values[PULL_BODY].set) {
        for (size_t i = 0; i < flare_batch_count(batch); i++) {
            const struct flare_delivery *delivery = flare_batch_get(batch, i);
            deliveries_print_body(span_of(delivery->body, delivery->body_size));
        }
        return;
    }
    json_t *messages = json_array();
    for (size_t i = 0; i < flare_batch_count(batch); i++) {
        (void)json_array_append_new(messages, link_delivery(flare_batch_get(batch, i)));
    }
    output_items(&pull->output, messages);
    json_decref(messages);
}

/* Names the receipts that no longer held a lease, as over HTTP. */
static void note_lost(const struct cli *cli, const struct flare_receipt *receipts,
                      const enum flare_code *codes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct buf text;
        buf_init(&text, RECEIPT_MAX);
        link_receipt(&receipts[i], &text);
        if (codes[i] != FLARE_OK) {
            cli_note(cli, "%s: %.*s", flare_code_name(codes[i]), (int)text.size,
                     (const char *)text.data);
        }
        buf_deinit(&text);
    }
}

static err_t ack_batch(struct pull *pull, const struct flare_batch *batch)
{
    struct flare_error error;
    size_t count = flare_batch_count(batch);
    struct flare_receipt *receipts = calloc(count, sizeof *receipts);
    enum flare_code *codes = calloc(count, sizeof *codes);
    err_t err = NULL;
    if (receipts == NULL || codes == NULL) {
        err = ERR(MEMORY, "no memory for %zu receipts", count);
        goto out;
    }
    for (size_t i = 0; i < count; i++) {
        receipts[i] = flare_batch_get(batch, i)->receipt;
    }
    const struct flare_settle settle = {
        .kind = FLARE_SETTLE_ACK, .receipts = receipts, .count = count};
    enum flare_code code = flare_settle(pull->link, &pull->source, &settle, codes, &error);
    if (code == FLARE_ERR_LEASE_LOST) {
        note_lost(pull->cli, receipts, codes, count);
    }
    err = link_error(pull->cli, code, &error);
out:
    free(receipts);
    free(codes);
    return err;
}

static err_t pull_wire(struct pull *pull, size_t *count)
{
    struct flare_error error;
    struct flare_batch *batch = NULL;
    err_t err = NULL;
    const struct option_value *values = pull->arguments->values;
    struct flare_pull options = pull->options;
    if (options.max_bytes == 0) {
        options.max_bytes = BYTES_DEFAULT;
    }
    TRY(link_error(pull->cli, flare_pull(pull->link, &pull->source, &options, &batch, &error),
                   &error));
    *count = flare_batch_count(batch);
    if (*count > 0) {
        print_batch(pull, batch);
    }
    if (*count > 0 && values[PULL_ACK].set) {
        TRY_OUT(flush_output());
        TRY_OUT(ack_batch(pull, batch));
    }
out:
    flare_batch_free(batch);
    return err;
}

/* ---- the command ---- */

static err_t pull_all(struct pull *pull)
{
    const struct option_value *values = pull->arguments->values;
    bool drain = values[PULL_DRAIN].set;
    size_t count = 0;
    do {
        TRY(pull->link == NULL ? pull_http(pull, &count) : pull_wire(pull, &count));
    } while (values[PULL_FOLLOW].set || (drain && count > 0));
    if (count == 0 && !drain) {
        cli_note(pull->cli, "no message");
    }
    return NULL;
}

static err_t pull_run(struct cli *cli, const struct arguments *arguments)
{
    const struct option_value *values = arguments->values;
    bool follow = values[PULL_FOLLOW].set;
    bool loops = follow || values[PULL_DRAIN].set;
    char address[TRANSPORT_ADDRESS_SIZE];
    struct pull pull = {
        .cli = cli,
        .arguments = arguments,
        .source = {arguments->operands[0], arguments->operands[1]},
        .options = {.max = (uint32_t)arguments_number(arguments, PULL_MAX, loops ? 100 : 1),
                    .max_bytes = (uint32_t)values[PULL_BYTES].number,
                    .wait_ms = arguments_number(arguments, PULL_WAIT, follow ? FOLLOW_WAIT_MS : 0),
                    .lease_ms = values[PULL_LEASE].number,
                    .consumer = values[PULL_CONSUMER].text}};
    if (loops && !values[PULL_ACK].set) {
        return USAGE(cli, "--follow and --drain need --ack: unacknowledged messages come again");
    }
    if (follow && values[PULL_DRAIN].set) {
        return USAGE(cli, "--follow and --drain exclude each other");
    }
    output_init(&pull.output, cli, values[PULL_ACK].set ? deliveries_fields : message_fields);
    TRY(transport_find(cli, address));
    if (address[0] != '\0') {
        TRY(link_open(cli, address, NULL, &pull.link));
    }
    err_t err = pull_all(&pull);
    flare_close(pull.link);
    return err;
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
