#define _GNU_SOURCE /* memmem */
/* flare pub: one message, or one message for each line of a file or of standard input. */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tools/flare/lines.h"
#include "tools/flare/output.h"
#include "tools/flare/progress.h"
#include "tools/flare/publish_wire.h"
#include "tools/flare/transport.h"

enum {
    PUB_FILE,
    PUB_KEY,
    PUB_SEPARATOR,
    PUB_ATTR,
    PUB_DELAY,
    PUB_TTL,
    PUB_IDEMPOTENCY,
    PUB_BATCH,
    PUB_TYPE
};

enum { ATTRIBUTES_MAX = 64, IDEMPOTENCY_KEY_MAX = 255 };

static const struct option_row pub_options[] = {
    [PUB_FILE] = {.name = "file",
                  .letter = 'f',
                  .kind = OPTION_TEXT,
                  .value = "FILE",
                  .help = "a message for each line of FILE; - is standard input"},
    [PUB_KEY] = {.name = "key",
                 .letter = 'k',
                 .kind = OPTION_TEXT,
                 .value = "KEY",
                 .help = "messages of one key go to one shard, in order"},
    [PUB_SEPARATOR] = {.name = "key-separator",
                       .letter = 'K',
                       .kind = OPTION_TEXT,
                       .value = "TEXT",
                       .help = "each line is its key, TEXT, its body"},
    [PUB_ATTR] = {.name = "attr",
                  .letter = 'a',
                  .kind = OPTION_TEXT,
                  .value = "NAME=VALUE",
                  .help = "an attribute; may repeat"},
    [PUB_DELAY] = {.name = "delay",
                   .kind = OPTION_DURATION,
                   .max = 2592000000,
                   .value = "TIME",
                   .help = "not delivered before"},
    [PUB_TTL] = {.name = "ttl",
                 .kind = OPTION_DURATION,
                 .min = 1,
                 .max = 31536000000,
                 .value = "TIME",
                 .help = "not delivered after: a dead letter then"},
    [PUB_IDEMPOTENCY] = {.name = "idempotency-key",
                         .kind = OPTION_TEXT,
                         .value = "TEXT",
                         .help = "published once however often it is sent; lines get TEXT-1, "
                                 "TEXT-2, ..."},
    [PUB_BATCH] = {.name = "batch",
                   .kind = OPTION_NUMBER,
                   .min = 1,
                   .max = PUBLISH_BATCH_MAX,
                   .value = "N",
                   .help = "lines in one request; default 500"},
    [PUB_TYPE] = {.name = "content-type",
                  .kind = OPTION_TEXT,
                  .value = "TYPE",
                  .help = "of the bodies; kept as attribute content-type"},
    {.name = NULL},
};

static const struct field result_fields[] = {
    {"ID", "id", FIELD_TEXT},
    {"SHARD", "shard", FIELD_NUMBER},
    {"SEQUENCE", "sequence", FIELD_NUMBER},
    {.title = NULL},
};

/* What the messages of one command have in common. */
struct pub {
    struct cli *cli;
    const struct arguments *arguments;
    struct publisher publisher;
    struct publish_message message;
    struct publish_attribute attributes[ATTRIBUTES_MAX];
    struct output output;
};

static void pub_on_result(void *user, const json_t *result)
{
    struct pub *pub = user;
    if (pub->cli->format != CLI_TABLE) { /* a table of a million lines helps nobody */
        output_item(&pub->output, result);
    }
}

static err_t read_attributes(struct pub *pub)
{
    size_t position = 0;
    const char *text = NULL;
    uint32_t count = 0;
    if (pub->arguments->values[PUB_TYPE].set) {
        pub->attributes[count].name = span_text("content-type");
        pub->attributes[count].value = span_text(pub->arguments->values[PUB_TYPE].text);
        count++;
    }
    while ((text = arguments_next(pub->arguments, PUB_ATTR, &position)) != NULL) {
        const char *equals = strchr(text, '=');
        if (equals == NULL || equals == text) {
            return USAGE(pub->cli, "--attr '%s': expected NAME=VALUE", text);
        }
        if (count == ATTRIBUTES_MAX) {
            return USAGE(pub->cli, "--attr: at most %d", ATTRIBUTES_MAX);
        }
        pub->attributes[count].name = span_of(text, (size_t)(equals - text));
        pub->attributes[count].value = span_text(equals + 1);
        count++;
    }
    pub->message.attributes = pub->attributes;
    pub->message.attribute_count = count;
    return NULL;
}

static err_t read_options(struct pub *pub)
{
    const struct option_value *values = pub->arguments->values;
    if (values[PUB_KEY].set && values[PUB_SEPARATOR].set) {
        return USAGE(pub->cli, "--key and --key-separator exclude each other");
    }
    if (values[PUB_SEPARATOR].set && values[PUB_SEPARATOR].text[0] == '\0') {
        return USAGE(pub->cli, "--key-separator is empty");
    }
    if (values[PUB_IDEMPOTENCY].set &&
        (values[PUB_IDEMPOTENCY].text[0] == '\0' || strlen(values[PUB_IDEMPOTENCY].text) > 230)) {
        return USAGE(pub->cli, "--idempotency-key has 1 to 230 characters");
    }
    pub->message.delay_ms = values[PUB_DELAY].number;
    pub->message.ttl_ms = values[PUB_TTL].number;
    if (values[PUB_KEY].set) {
        pub->message.key = span_text(values[PUB_KEY].text);
    }
    return read_attributes(pub);
}

static void header_number(struct request *request, const char *name, uint64_t number)
{
    char text[24];
    (void)snprintf(text, sizeof text, "%" PRIu64, number);
    if (number > 0) {
        request_header(request, name, text);
    }
}

/* One message: the request that people would write with curl. */
static err_t post_one(struct pub *pub, const char *body)
{
    struct request request;
    const struct option_value *values = pub->arguments->values;
    json_t *result = NULL;
    size_t position = 0;
    const char *text = NULL;
    request_init(&request, "POST", "/v1/topics/{}/messages", pub->arguments->operands[0]);
    request.body = span_text(body);
    request.content_type = values[PUB_TYPE].set ? values[PUB_TYPE].text : "text/plain";
    if (values[PUB_KEY].set) {
        request_header(&request, "Flare-Key", values[PUB_KEY].text);
    }
    header_number(&request, "Flare-Delay", values[PUB_DELAY].number);
    header_number(&request, "Flare-TTL", values[PUB_TTL].number);
    if (values[PUB_IDEMPOTENCY].set) {
        request_header(&request, "Idempotency-Key", values[PUB_IDEMPOTENCY].text);
    }
    while ((text = arguments_next(pub->arguments, PUB_ATTR, &position)) != NULL) {
        char name[300];
        const char *equals = strchr(text, '=');
        (void)snprintf(name, sizeof name, "Flare-Attr-%.*s", (int)(equals - text), text);
        request_header(&request, name, equals + 1);
    }
    TRY(client_call(pub->cli->client, &request, &result));
    output_object(pub->cli, result_fields, result);
    json_decref(result);
    return NULL;
}

/* A publisher for the way that the settings say. */
static err_t open_publisher(struct pub *pub, uint32_t batch)
{
    char address[TRANSPORT_ADDRESS_SIZE];
    TRY(transport_find(pub->cli, address));
    publisher_init(&pub->publisher, pub->cli->client, pub->arguments->operands[0], batch);
    pub->publisher.user = pub;
    if (address[0] == '\0') {
        return NULL;
    }
    return publish_wire_open(pub->cli, address, &pub->publisher, &pub->publisher.wire);
}

static void pub_on_only_result(void *user, const json_t *result)
{
    struct pub *pub = user;
    output_object(pub->cli, result_fields, result);
}

static err_t publish_one(struct pub *pub, const char *body)
{
    struct publish_message message = pub->message;
    err_t err = NULL;
    TRY_OUT(open_publisher(pub, 1));
    if (pub->publisher.wire == NULL) {
        TRY_OUT(post_one(pub, body));
        goto out;
    }
    pub->publisher.on_result = pub_on_only_result;
    message.body = span_text(body);
    if (pub->arguments->values[PUB_IDEMPOTENCY].set) {
        message.idempotency_key = span_text(pub->arguments->values[PUB_IDEMPOTENCY].text);
    }
    TRY_OUT(publisher_add(&pub->publisher, &message));
    TRY_OUT(publisher_flush(&pub->publisher));
out:
    publisher_deinit(&pub->publisher);
    return err;
}

/* What a line says, in `message`; `idempotency_key` is room for its key. */
static err_t read_line(const struct pub *pub, struct span line, uint64_t number,
                       struct publish_message *message,
                       char idempotency_key[IDEMPOTENCY_KEY_MAX + 1])
{
    const struct option_value *values = pub->arguments->values;
    *message = pub->message;
    message->body = line;
    if (values[PUB_SEPARATOR].set) {
        struct span separator = span_text(values[PUB_SEPARATOR].text);
        const uint8_t *at =
            line.size == 0 ? NULL : memmem(line.data, line.size, separator.data, separator.size);
        if (at == NULL) {
            return ERR(INVALID, "line %" PRIu64 " has no '%s' after a key", number,
                       values[PUB_SEPARATOR].text);
        }
        message->key = span_of(line.data, (size_t)(at - line.data));
        message->body =
            span_of(at + separator.size, line.size - message->key.size - separator.size);
    }
    if (values[PUB_IDEMPOTENCY].set) {
        (void)snprintf(idempotency_key, IDEMPOTENCY_KEY_MAX + 1, "%s-%" PRIu64,
                       values[PUB_IDEMPOTENCY].text, number);
        message->idempotency_key = span_text(idempotency_key);
    }
    return NULL;
}

/* What there is to read; 0 for what is no regular file. */
static uint64_t size_of(FILE *file)
{
    struct stat status;
    bool known = fstat(fileno(file), &status) == 0 && S_ISREG(status.st_mode);
    return known ? (uint64_t)status.st_size : 0;
}

/* The end of the lines, or the line that fails with `err`: what came before is published all the
 * same, and when that fails it is the error. */
static err_t finish_lines(struct pub *pub, err_t err)
{
    err_t earlier = publisher_flush(&pub->publisher);
    if (earlier == NULL) {
        return err;
    }
    err_free(err);
    return err_passed(earlier, __func__);
}

/* A line is sent on before the next one is waited for: who writes slowly is not kept waiting for a
 * batch to fill. */
static err_t publish_lines(struct pub *pub, struct lines *lines, struct progress *progress)
{
    for (uint64_t number = 1;; number++) {
        struct span line;
        struct publish_message message;
        char idempotency_key[IDEMPOTENCY_KEY_MAX + 1];
        bool found = false;
        if (lines_would_wait(lines)) {
            TRY(publisher_flush(&pub->publisher));
            (void)fflush(stdout);
        }
        err_t err = lines_next(lines, &line, &found);
        if (err == NULL && found) {
            err = read_line(pub, line, number, &message, idempotency_key);
        }
        if (err != NULL || !found) {
            return finish_lines(pub, err);
        }
        TRY(publisher_add(&pub->publisher, &message));
        progress_step_items(progress, lines->read, pub->publisher.published);
    }
}

static err_t publish_stream(struct pub *pub, FILE *file)
{
    struct progress progress;
    struct lines lines;
    lines_init(&lines, fileno(file));
    progress_init(&progress, pub->cli->quiet);
    progress_begin(&progress, "publishing", size_of(file));
    err_t err = publish_lines(pub, &lines, &progress);
    progress_done(&progress);
    lines_deinit(&lines);
    if (err == NULL || pub->publisher.published > 0) {
        cli_note(pub->cli, "%" PRIu64 " published, %.0f/s", pub->publisher.published,
                 progress_rate(&progress, pub->publisher.published));
    }
    return err;
}

static err_t publish_file(struct pub *pub, const char *name)
{
    uint64_t batch = arguments_number(pub->arguments, PUB_BATCH, PUBLISH_BATCH_DEFAULT);
    bool standard_input = strcmp(name, "-") == 0;
    FILE *file = standard_input ? stdin : fopen(name, "re");
    if (file == NULL) {
        return ERR(NOT_FOUND, "open %s: %s", name, strerror(errno));
    }
    err_t err = open_publisher(pub, (uint32_t)batch);
    if (err == NULL) {
        pub->publisher.on_result = pub_on_result;
        err = publish_stream(pub, file);
    }
    publisher_deinit(&pub->publisher);
    if (!standard_input) {
        (void)fclose(file);
    }
    return err;
}

static err_t pub_run(struct cli *cli, const struct arguments *arguments)
{
    struct pub pub = {.cli = cli, .arguments = arguments};
    bool has_file = arguments->values[PUB_FILE].set;
    bool has_message = arguments->operand_count == 2;
    output_init(&pub.output, cli, result_fields);
    TRY(read_options(&pub));
    if (has_file && has_message) {
        return USAGE(cli, "either a MESSAGE or --file, not both");
    }
    if (has_message && strcmp(arguments->operands[1], "-") != 0) {
        if (arguments->values[PUB_SEPARATOR].set) {
            return USAGE(cli, "--key-separator is for lines; a MESSAGE takes --key");
        }
        return publish_one(&pub, arguments->operands[1]);
    }
    return publish_file(&pub, has_file ? arguments->values[PUB_FILE].text : "-");
}

const struct cli_command pub_commands[] = {
    {.name = "pub",
     .operands = "TOPIC [MESSAGE]",
     .operands_min = 1,
     .operands_max = 2,
     .summary = "Publish one message, or one for each line of a file or standard input",
     .details =
         "Without MESSAGE, or with -, lines are read from standard input. A message counts as\n"
         "published when the broker has confirmed it. When a line fails the command stops, once\n"
         "those before it are published, and says how many that were; with --idempotency-key it\n"
         "can be run again and publishes only what is missing.",
     .examples = "  flare pub orders 'hello' --key customer-7 --attr source=shop\n"
                 "  flare pub orders --file orders.txt --key-separator :\n"
                 "  seq 1000 | flare pub orders --idempotency-key import-42\n"
                 "  flare pub orders 'later' --delay 10m --ttl 1h\n",
     .options = pub_options,
     .run = pub_run},
    {.name = NULL},
};
