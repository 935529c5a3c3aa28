/* flare job: a file through two subscriptions, checked record by record.
 *
 * Every record is published with its number as an attribute while consumers of both subscriptions
 * pull and acknowledge. A record is finished for a subscription when its acknowledgement was
 * confirmed; receiving it once more after that is a double. At the end every record must be
 * finished by both, with the bytes that were published. */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tools/flare/deliveries.h"
#include "tools/flare/output.h"
#include "tools/flare/progress.h"
#include "tools/flare/publish_wire.h"
#include "tools/flare/records.h"
#include "tools/flare/transport.h"

enum { JOB_FILE, JOB_PARAGRAPHS, JOB_SHARDS, JOB_CONSUMERS, JOB_BATCH };
enum {
    SUBSCRIPTION_COUNT = 2,
    CONSUMERS_MAX = 16,
    PULL_MAX = 200,
    PULL_WAIT_MS = 200,
    BODY_MAX = 64 * 1024 * 1024
};

static const struct option_row job_options[] = {
    [JOB_FILE] = {.name = "file",
                  .letter = 'f',
                  .kind = OPTION_TEXT,
                  .value = "FILE",
                  .help = "the records; default /var/lib/dpkg/status, by paragraphs"},
    [JOB_PARAGRAPHS] = {.name = "paragraphs",
                        .kind = OPTION_FLAG,
                        .help = "FILE is a Debian control file: a record is a paragraph, keyed by "
                                "its source package"},
    [JOB_SHARDS] = {.name = "shards",
                    .letter = 's',
                    .kind = OPTION_NUMBER,
                    .min = 1,
                    .max = 4096,
                    .value = "N",
                    .help = "of the topic; default 8"},
    [JOB_CONSUMERS] = {.name = "consumers",
                       .kind = OPTION_NUMBER,
                       .min = 1,
                       .max = CONSUMERS_MAX,
                       .value = "N",
                       .help = "of each subscription; default 2"},
    [JOB_BATCH] = {.name = "batch",
                   .kind = OPTION_NUMBER,
                   .min = 1,
                   .max = PUBLISH_BATCH_MAX,
                   .value = "N",
                   .help = "records in one publish request; default 100"},
    {.name = NULL},
};

static const struct field job_fields[] = {
    {"TOPIC", "topic", FIELD_TEXT},
    {"TRANSPORT", "transport", FIELD_TEXT},
    {"RECORDS", "records", FIELD_NUMBER},
    {"BYTES", "bytes", FIELD_SIZE},
    {"SHARDS", "shards", FIELD_NUMBER},
    {"PUBLISHED", "published", FIELD_NUMBER},
    {"PUBLISHED/S", "publish_rate", FIELD_NUMBER},
    {"DURATION", "duration_ms", FIELD_DURATION},
    {.title = NULL},
};

static const struct field delivery_fields[] = {
    {"SUBSCRIPTION", "name", FIELD_TEXT},
    {"CONSUMERS", "consumers", FIELD_NUMBER},
    {"FINISHED", "finished", FIELD_NUMBER},
    {"MISSING", "missing", FIELD_NUMBER},
    {"DOUBLED", "doubled", FIELD_NUMBER},
    {"ALTERED", "altered", FIELD_NUMBER},
    {"LEFT", "left", FIELD_NUMBER},
    {"FINISHED/S", "rate", FIELD_NUMBER},
    {.title = NULL},
};

struct job_subscription {
    const char *name;
    _Atomic uint8_t *finished; /* of each record */
    _Atomic uint64_t finished_count;
    _Atomic uint64_t doubled_count;
    _Atomic uint64_t altered_count;
    _Atomic uint64_t heard_us; /* when a message came last */
    _Atomic uint64_t done_us;  /* when the last record was finished */
    uint64_t left;             /* in its queues, at the end */
};

struct job {
    struct cli *cli;
    const char *topic;
    char address[TRANSPORT_ADDRESS_SIZE]; /* of the wire protocol; empty: HTTP */
    struct records records;
    uint32_t shards;
    uint32_t consumers;
    struct progress progress;
    uint64_t published;
    uint64_t publish_us;
    _Atomic bool publishing;
    _Atomic bool stopping;
    struct job_subscription subscriptions[SUBSCRIPTION_COUNT];
};

struct consumer {
    struct job *job;
    struct job_subscription *subscription;
    struct cli cli;            /* a copy: errors are blamed in each thread by itself */
    struct client *client;     /* HTTP, or: */
    struct flare_client *link; /* the wire protocol */
    pthread_t thread;
    bool started;
    err_t err; /* read after the thread is joined */
};

static void *consumer_main(void *user);

/* The record a message says it is; SIZE_MAX when its bytes are not that record's. */
static size_t check_record(const struct job *job, const char *text, struct span body)
{
    uint64_t index = text == NULL ? UINT64_MAX : strtoull(text, NULL, 10);
    if (index >= job->records.count || !span_equal(body, job->records.items[index].body)) {
        return SIZE_MAX;
    }
    return (size_t)index;
}

static size_t check_message(const struct job *job, const json_t *message, struct buf *body)
{
    const char *text =
        json_string_value(json_object_get(json_object_get(message, "attributes"), "record"));
    buf_reset(body);
    err_t err = output_body(message, body);
    bool readable = err == NULL;
    err_free(err);
    return readable ? check_record(job, text, buf_span(body)) : SIZE_MAX;
}

/* Whether one that came is to be acknowledged: it is what was published. */
static bool count_record(struct job_subscription *subscription, size_t index)
{
    if (index == SIZE_MAX) {
        atomic_fetch_add(&subscription->altered_count, 1);
        return false;
    }
    if (atomic_load(&subscription->finished[index]) != 0) {
        atomic_fetch_add(&subscription->doubled_count, 1);
    }
    return true;
}

static void finish_record(struct consumer *consumer, size_t index)
{
    struct job_subscription *subscription = consumer->subscription;
    if (atomic_exchange(&subscription->finished[index], 1) != 0) {
        return;
    }
    uint64_t count = atomic_fetch_add(&subscription->finished_count, 1) + 1;
    if (count == consumer->job->records.count) {
        atomic_store(&subscription->done_us, progress_now_us());
    }
}

/* Acknowledges; a lost lease is no failure, since the message will come again. */
static err_t ack_batch(struct consumer *consumer, json_t *receipts, const size_t *indexes,
                       size_t count)
{
    const struct flare_source source = {consumer->job->topic, consumer->subscription->name};
    err_t err = deliveries_settle(consumer->client, &source, "ack",
                                  json_pack("{s:o}", "receipts", receipts), NULL);
    const json_t *results = NULL;
    if (err_code(err) == ERR_LEASE_LOST) {
        err_free(err);
        err = NULL;
        results = json_object_get(client_problem(consumer->client), "results");
    }
    TRY(err);
    for (size_t i = 0; i < count; i++) {
        const json_t *code = json_object_get(json_array_get(results, i), "code");
        if (results == NULL || (code != NULL && strcmp(json_string_value(code), "ok") == 0)) {
            finish_record(consumer, indexes[i]);
        }
    }
    return NULL;
}

/* Checks and acknowledges what one pull brought. */
static err_t take_messages(struct consumer *consumer, const json_t *messages)
{
    struct job_subscription *subscription = consumer->subscription;
    size_t indexes[PULL_MAX];
    size_t count = 0;
    struct buf body;
    json_t *receipts = json_array();
    buf_init(&body, BODY_MAX);
    atomic_store(&subscription->heard_us, progress_now_us());
    for (size_t i = 0; i < json_array_size(messages) && count < PULL_MAX; i++) {
        const json_t *message = json_array_get(messages, i);
        size_t index = check_message(consumer->job, message, &body);
        if (!count_record(subscription, index)) {
            continue;
        }
        (void)json_array_append(receipts, json_object_get(message, "receipt"));
        indexes[count] = index;
        count++;
    }
    buf_deinit(&body);
    if (count == 0) {
        json_decref(receipts);
        return NULL;
    }
    return ack_batch(consumer, receipts, indexes, count);
}

static const struct flare_pull pull_options = {.max = PULL_MAX, .wait_ms = PULL_WAIT_MS};

static err_t consume_once(struct consumer *consumer)
{
    json_t *reply = NULL;
    const struct flare_source source = {consumer->job->topic, consumer->subscription->name};
    TRY(deliveries_pull(consumer->client, &source, &pull_options, &reply));
    const json_t *messages = json_object_get(reply, "messages");
    err_t err = json_array_size(messages) == 0 ? NULL : take_messages(consumer, messages);
    json_decref(reply);
    TRY(err);
    return NULL;
}

/* ---- over the wire ---- */

static err_t ack_wire(struct consumer *consumer, const struct flare_source *source,
                      const struct flare_receipt *receipts, const size_t *indexes, size_t count)
{
    enum flare_code codes[PULL_MAX];
    struct flare_error error;
    const struct flare_settle settle = {
        .kind = FLARE_SETTLE_ACK, .receipts = receipts, .count = count};
    enum flare_code code = flare_settle(consumer->link, source, &settle, codes, &error);
    if (code != FLARE_OK && code != FLARE_ERR_LEASE_LOST) {
        return link_error(&consumer->cli, code, &error);
    }
    for (size_t i = 0; i < count; i++) {
        if (codes[i] == FLARE_OK) {
            finish_record(consumer, indexes[i]);
        }
    }
    return NULL;
}

static err_t take_batch(struct consumer *consumer, const struct flare_source *source,
                        const struct flare_batch *batch)
{
    struct flare_receipt receipts[PULL_MAX];
    size_t indexes[PULL_MAX];
    size_t count = 0;
    atomic_store(&consumer->subscription->heard_us, progress_now_us());
    for (size_t i = 0; i < flare_batch_count(batch) && count < PULL_MAX; i++) {
        const struct flare_delivery *delivery = flare_batch_get(batch, i);
        char text[24] = "";
        bool named = flare_delivery_attribute(delivery, "record", text, sizeof text);
        size_t index = check_record(consumer->job, named ? text : NULL,
                                    span_of(delivery->body, delivery->body_size));
        if (count_record(consumer->subscription, index)) {
            receipts[count] = delivery->receipt;
            indexes[count] = index;
            count++;
        }
    }
    return count == 0 ? NULL : ack_wire(consumer, source, receipts, indexes, count);
}

static err_t consume_wire(struct consumer *consumer)
{
    struct flare_error error;
    struct flare_batch *batch = NULL;
    const struct flare_source source = {consumer->job->topic, consumer->subscription->name};
    TRY(link_error(&consumer->cli,
                   flare_pull(consumer->link, &source, &pull_options, &batch, &error), &error));
    err_t err = flare_batch_count(batch) == 0 ? NULL : take_batch(consumer, &source, batch);
    flare_batch_free(batch);
    return err;
}

/* ---- consumers ---- */

/* Whether a consumer may end: everything is finished, or nothing comes any more. */
static bool consumer_done(const struct consumer *consumer)
{
    const struct job *job = consumer->job;
    struct job_subscription *subscription = consumer->subscription;
    if (atomic_load(&job->stopping)) {
        return true;
    }
    if (atomic_load(&job->publishing)) {
        return false;
    }
    uint64_t silent_us = progress_now_us() - atomic_load(&subscription->heard_us);
    return atomic_load(&subscription->finished_count) == job->records.count ||
           silent_us > job->cli->timeout_ms * 1000;
}

static void *consumer_main(void *user)
{
    struct consumer *consumer = user;
    while (consumer->err == NULL && !consumer_done(consumer)) {
        consumer->err = consumer->link == NULL ? consume_once(consumer) : consume_wire(consumer);
    }
    if (consumer->err != NULL) {
        atomic_store(&consumer->job->stopping, true);
    }
    return NULL;
}

/* A record counts once when it is published and once for each subscription that finished it. */
static void show_progress(struct job *job)
{
    uint64_t done = job->published;
    for (size_t i = 0; i < SUBSCRIPTION_COUNT; i++) {
        done += atomic_load(&job->subscriptions[i].finished_count);
    }
    progress_step(&job->progress, done);
}

static err_t put(struct job *job, const char *subscription, json_t *document)
{
    struct request request;
    if (subscription == NULL) {
        request_init(&request, "PUT", "/v1/topics/{}", job->topic);
        request_header(&request, "If-None-Match", "*");
    } else {
        request_init(&request, "PUT", CLIENT_SUB_PATH, job->topic, subscription);
    }
    request_json(&request, document);
    return client_call(job->cli->client, &request, NULL);
}

static err_t set_up(struct job *job)
{
    json_t *document = json_object();
    (void)json_object_set_new(document, "shards", json_integer((json_int_t)job->shards));
    TRY(put(job, NULL, document));
    for (size_t i = 0; i < SUBSCRIPTION_COUNT; i++) {
        struct job_subscription *subscription = &job->subscriptions[i];
        TRY(put(job, subscription->name, json_object()));
        subscription->finished = calloc(job->records.count, sizeof *subscription->finished);
        if (subscription->finished == NULL) {
            return ERR(MEMORY, "no memory to follow %zu records", job->records.count);
        }
        atomic_store(&subscription->heard_us, progress_now_us());
    }
    return NULL;
}

static err_t publish_all(struct job *job, uint32_t batch)
{
    struct publisher publisher;
    err_t err = NULL;
    publisher_init(&publisher, job->cli->client, job->topic, batch);
    if (job->address[0] != '\0') {
        TRY_OUT(publish_wire_open(job->cli, job->address, &publisher, &publisher.wire));
    }
    for (size_t i = 0; i < job->records.count && !atomic_load(&job->stopping); i++) {
        char number[24];
        (void)snprintf(number, sizeof number, "%zu", i);
        struct publish_attribute attribute = {span_text("record"), span_text(number)};
        struct publish_message message = {.body = job->records.items[i].body,
                                          .key = job->records.items[i].key,
                                          .attributes = &attribute,
                                          .attribute_count = 1};
        TRY_OUT(publisher_add(&publisher, &message));
        job->published = publisher.published;
        show_progress(job);
    }
    TRY_OUT(publisher_flush(&publisher));
    job->published = publisher.published;
    job->publish_us = progress_now_us() - job->progress.started_us;
out:
    publisher_deinit(&publisher);
    return err;
}

static err_t start_consumer(struct job *job, struct consumer *consumer, size_t index)
{
    struct client_options options = {.url = job->cli->url, .timeout_ms = job->cli->timeout_ms};
    consumer->job = job;
    consumer->subscription = &job->subscriptions[index % SUBSCRIPTION_COUNT];
    consumer->cli = *job->cli;
    if (job->address[0] == '\0') {
        TRY(client_create(&options, &consumer->client));
    } else {
        TRY(link_open(&consumer->cli, job->address, NULL, &consumer->link));
    }
    int rc = pthread_create(&consumer->thread, NULL, consumer_main, consumer);
    if (rc != 0) {
        return ERR(MEMORY, "start a consumer: %s", strerror(rc));
    }
    consumer->started = true;
    return NULL;
}

/* Waits for a consumer's end, showing progress meanwhile; hands on its error. */
static err_t join_consumer(struct job *job, struct consumer *consumer)
{
    while (consumer->started) {
        consumer->started = !progress_join(consumer->thread);
        show_progress(job);
    }
    client_destroy(consumer->client);
    flare_close(consumer->link);
    if (consumer->err != NULL) {
        job->cli->blame = consumer->cli.blame;
    }
    return consumer->err;
}

static err_t run_consumers_and_publish(struct job *job, uint32_t batch)
{
    struct consumer consumers[CONSUMERS_MAX * SUBSCRIPTION_COUNT] = {0};
    size_t count = (size_t)job->consumers * SUBSCRIPTION_COUNT;
    err_t err = NULL;
    atomic_store(&job->publishing, true);
    for (size_t i = 0; i < count && err == NULL; i++) {
        err = start_consumer(job, &consumers[i], i);
    }
    if (err == NULL) {
        err = publish_all(job, batch);
    }
    if (err != NULL) {
        atomic_store(&job->stopping, true);
    }
    for (size_t i = 0; i < SUBSCRIPTION_COUNT; i++) {
        atomic_store(&job->subscriptions[i].heard_us, progress_now_us());
    }
    atomic_store(&job->publishing, false);
    for (size_t i = 0; i < count; i++) {
        err_t joined = join_consumer(job, &consumers[i]);
        if (err == NULL) {
            err = joined;
        } else {
            err_free(joined); /* the first one explains the others */
        }
    }
    progress_done(&job->progress);
    return err;
}

/* What the broker says is still in a subscription's queues: nothing, when all went well. */
static err_t count_left(struct job *job, struct job_subscription *subscription)
{
    struct request request;
    json_t *reply = NULL;
    request_init(&request, "GET", CLIENT_SUB_PATH, job->topic, subscription->name);
    TRY(client_call(job->cli->client, &request, &reply));
    const json_t *queue = json_object_get(reply, "delivery_queue");
    const json_t *depths[] = {json_object_get(json_object_get(reply, "enqueue_queue"), "depth"),
                              json_object_get(queue, "leased"), json_object_get(queue, "scheduled"),
                              json_object_get(queue, "blocked"), json_object_get(queue, "dead")};
    for (size_t i = 0; i < sizeof depths / sizeof depths[0]; i++) {
        subscription->left += (uint64_t)json_integer_value(depths[i]);
    }
    json_decref(reply);
    return NULL;
}

static json_int_t rate(uint64_t count, uint64_t us)
{
    return us == 0 ? 0 : (json_int_t)((double)count * 1e6 / (double)us);
}

static json_t *describe_subscription(const struct job *job, struct job_subscription *subscription)
{
    uint64_t finished = atomic_load(&subscription->finished_count);
    uint64_t done_us = atomic_load(&subscription->done_us);
    uint64_t duration_us = done_us == 0 ? 0 : done_us - job->progress.started_us;
    return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "name", subscription->name,
                     "consumers", (json_int_t)job->consumers, "finished", (json_int_t)finished,
                     "missing", (json_int_t)(job->records.count - finished), "doubled",
                     (json_int_t)atomic_load(&subscription->doubled_count), "altered",
                     (json_int_t)atomic_load(&subscription->altered_count), "left",
                     (json_int_t)subscription->left, "rate", rate(finished, duration_us));
}

/* Prints the result; an error when any record is missing, doubled, altered or left behind. */
static err_t report(struct job *job)
{
    struct output output;
    uint64_t faults = 0;
    json_t *list = json_array();
    for (size_t i = 0; i < SUBSCRIPTION_COUNT; i++) {
        struct job_subscription *subscription = &job->subscriptions[i];
        faults += job->records.count - atomic_load(&subscription->finished_count) +
                  atomic_load(&subscription->doubled_count) +
                  atomic_load(&subscription->altered_count) + subscription->left;
        (void)json_array_append_new(list, describe_subscription(job, subscription));
    }
    uint64_t duration_us = progress_now_us() - job->progress.started_us;
    json_t *result = json_pack(
        "{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:O}", "topic", job->topic, "transport",
        job->address[0] == '\0' ? "http" : "wire", "records", (json_int_t)job->records.count,
        "bytes", (json_int_t)job->records.file.size, "shards", (json_int_t)job->shards, "published",
        (json_int_t)job->published, "publish_rate", rate(job->published, job->publish_us),
        "duration_ms", (json_int_t)(duration_us / 1000), "subscriptions", list);
    output_object(job->cli, job_fields, result);
    if (job->cli->format == CLI_TABLE) {
        (void)putchar('\n');
        output_init(&output, job->cli, delivery_fields);
        output_items(&output, list);
    }
    json_decref(result);
    json_decref(list);
    if (faults > 0) {
        return ERR(INTERNAL, "%" PRIu64 " records are missing, doubled, altered or left behind",
                   faults);
    }
    return NULL;
}

static err_t job_run(struct cli *cli, const struct arguments *arguments)
{
    bool has_file = arguments->values[JOB_FILE].set;
    const char *path = has_file ? arguments->values[JOB_FILE].text : "/var/lib/dpkg/status";
    bool paragraphs = !has_file || arguments->values[JOB_PARAGRAPHS].set;
    struct job job = {.cli = cli,
                      .topic = arguments->operands[0],
                      .shards = (uint32_t)arguments_number(arguments, JOB_SHARDS, 8),
                      .consumers = (uint32_t)arguments_number(arguments, JOB_CONSUMERS, 2),
                      .subscriptions = {{.name = "audit"}, {.name = "index"}}};
    err_t err = NULL;
    TRY(transport_find(cli, job.address));
    TRY(records_open(path, paragraphs, &job.records));
    TRY_OUT(set_up(&job));
    progress_init(&job.progress, cli->quiet);
    progress_begin(&job.progress, "publishing and finishing",
                   (uint64_t)job.records.count * (1 + SUBSCRIPTION_COUNT));
    job.progress.silent_us = 0; /* to be watched, however short */
    TRY_OUT(run_consumers_and_publish(&job, (uint32_t)arguments_number(arguments, JOB_BATCH, 100)));
    for (size_t i = 0; i < SUBSCRIPTION_COUNT; i++) {
        TRY_OUT(count_left(&job, &job.subscriptions[i]));
    }
    TRY_OUT(report(&job));
out:
    for (size_t i = 0; i < SUBSCRIPTION_COUNT; i++) {
        free(job.subscriptions[i].finished);
    }
    records_close(&job.records);
    return err;
}

const struct cli_command job_commands[] = {
    {.name = "job",
     .operands = "TOPIC",
     .operands_min = 1,
     .operands_max = 1,
     .summary = "Send a file through two subscriptions and check every record",
     .details =
         "Creates TOPIC, which must be new, with the subscriptions audit and index; publishes\n"
         "every record while consumers of both pull and acknowledge; checks that each\n"
         "subscription got every record, unaltered, and none again after its acknowledgement.\n"
         "The topic stays.",
     .examples = "  flare job packages\n"
                 "  flare job lines --file /usr/share/dict/words --shards 16 --consumers 4\n",
     .options = job_options,
     .run = job_run},
    {.name = NULL},
};
