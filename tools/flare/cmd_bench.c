/* flare bench publish|consume|redis: sets up, measures, checks that everything arrived, prints
 * JSON. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "broker/base/random.h"
#include "broker/base/version.h"
#include "tools/flare/bench.h"
#include "tools/flare/progress.h"
#include "tools/flare/transport.h"

enum {
    BENCH_CONNECTIONS,
    BENCH_SIZE,
    BENCH_COUNT,
    BENCH_BATCH,
    BENCH_SHARDS,
    BENCH_BACKLOG,
    BENCH_KEEP,
    BENCH_DURABILITY,
    BENCH_OUTSTANDING,
    BENCH_LIBRARY,
    BENCH_PULL
};
enum { REDIS_WORK, REDIS_CONNECTIONS, REDIS_SIZE, REDIS_COUNT, REDIS_BATCH, REDIS_ADDRESS };
enum {
    CORE_BATCH,
    CORE_SHARDS,
    CORE_VOLUMES,
    CORE_COUNT,
    CORE_SIZE,
    CORE_COMMAND,
    CORE_RANDOM,
    CORE_NO_JOURNAL,
    CORE_IN_FLIGHT,
    CORE_DIRECTORY
};
enum {
    FILL_BATCH = 500,
    FILL_CONNECTIONS = 4,
    FILL_OUTSTANDING = 4,
    FILL_SIZE = 4 << 20,
    TIMEOUT_MS = 60000,
    NAME_SIZE = 32,
    OUTSTANDING_MAX = 100000
};

#define CONNECTIONS_ROW(default_text)                                                              \
    {                                                                                              \
        .name = "connections", .letter = 'c', .kind = OPTION_NUMBER, .min = 1,                     \
        .max = LOAD_CONNECTIONS_MAX, .value = "N", .help = "connections; default " default_text    \
    }
#define SIZE_ROW                                                                                   \
    {                                                                                              \
        .name = "size", .letter = 's', .kind = OPTION_SIZE, .max = 1 << 20, .value = "SIZE",       \
        .help = "of a body; default 1024"                                                          \
    }
#define COUNT_ROW                                                                                  \
    {                                                                                              \
        .name = "count", .letter = 'n', .kind = OPTION_NUMBER, .min = 1, .max = 1000000000,        \
        .value = "N",                                                                              \
        .help = "messages; when publishing, rounded up to whole batches; default 200000"           \
    }
#define BATCH_ROW(default_text)                                                                    \
    {                                                                                              \
        .name = "batch", .letter = 'b', .kind = OPTION_NUMBER, .min = 1, .max = 10000,             \
        .value = "N", .help = "messages in one request; default " default_text                     \
    }
#define SHARDS_ROW                                                                                 \
    {                                                                                              \
        .name = "shards", .kind = OPTION_NUMBER, .min = 1, .max = 4096, .value = "N",              \
        .help = "of the topic; default 4"                                                          \
    }
#define BACKLOG_ROW                                                                                \
    {                                                                                              \
        .name = "backlog", .kind = OPTION_NUMBER, .max = 1000000000, .value = "N",                 \
        .help = "messages that lie there besides, published beforehand; default 0"                 \
    }
#define LIBRARY_ROW                                                                                \
    {                                                                                              \
        .name = "library", .kind = OPTION_FLAG,                                                    \
        .help = "over the wire through libflare, not with frames prepared beforehand"              \
    }
#define KEEP_ROW                                                                                   \
    {                                                                                              \
        .name = "keep", .kind = OPTION_FLAG, .help = "do not delete the topic afterwards"          \
    }

#define DURABILITY_ROW                                                                             \
    {                                                                                              \
        .name = "durability", .kind = OPTION_CHOICE, .value = "synced|relaxed",                    \
        .help = "of the topic; default synced"                                                     \
    }

static const struct option_row publish_options[] = {
    [BENCH_CONNECTIONS] = CONNECTIONS_ROW("4, over HTTP 64"),
    [BENCH_SIZE] = SIZE_ROW,
    [BENCH_COUNT] = COUNT_ROW,
    [BENCH_BATCH] = BATCH_ROW("1"),
    [BENCH_SHARDS] = SHARDS_ROW,
    [BENCH_BACKLOG] = BACKLOG_ROW,
    [BENCH_KEEP] = KEEP_ROW,
    [BENCH_DURABILITY] = DURABILITY_ROW,
    [BENCH_OUTSTANDING] = {.name = "outstanding",
                           .letter = 'o',
                           .kind = OPTION_NUMBER,
                           .min = 1,
                           .max = OUTSTANDING_MAX,
                           .value = "N",
                           .help = "requests of a connection at the same time, over the wire only; "
                                   "default 64"},
    [BENCH_LIBRARY] = LIBRARY_ROW,
    {.name = NULL},
};

static const struct option_row consume_options[] = {
    [BENCH_CONNECTIONS] = CONNECTIONS_ROW("4"),
    [BENCH_SIZE] = SIZE_ROW,
    [BENCH_COUNT] = COUNT_ROW,
    [BENCH_BATCH] = BATCH_ROW("100"),
    [BENCH_SHARDS] = SHARDS_ROW,
    [BENCH_BACKLOG] = BACKLOG_ROW,
    [BENCH_KEEP] = KEEP_ROW,
    [BENCH_DURABILITY] = DURABILITY_ROW,
    [BENCH_OUTSTANDING] = {.name = "outstanding",
                           .letter = 'o',
                           .kind = OPTION_NUMBER,
                           .min = 1,
                           .max = OUTSTANDING_MAX,
                           .value = "N",
                           .help = "credit of a connection in messages, over the wire only; "
                                   "default 1000"},
    [BENCH_LIBRARY] = LIBRARY_ROW,
    [BENCH_PULL] = {.name = "pull",
                    .kind = OPTION_FLAG,
                    .help = "over the wire: pull one batch after the other, no credit stream"},
    {.name = NULL},
};

static const struct option_row redis_options[] = {
    [REDIS_WORK] = {.name = "work",
                    .kind = OPTION_CHOICE,
                    .value = "publish|consume",
                    .help = "XADD, or XREADGROUP and XACK; default publish"},
    [REDIS_CONNECTIONS] = CONNECTIONS_ROW("64"),
    [REDIS_SIZE] = SIZE_ROW,
    [REDIS_COUNT] = COUNT_ROW,
    [REDIS_BATCH] = BATCH_ROW("1; of commands in one pipeline, or entries in one read"),
    [REDIS_ADDRESS] = {.name = "address",
                       .kind = OPTION_TEXT,
                       .value = "HOST:PORT",
                       .help = "of the server; default 127.0.0.1:6379"},
    {.name = NULL},
};

static const struct option_row core_options[] = {
    [CORE_BATCH] = {.name = "batch",
                    .letter = 'b',
                    .kind = OPTION_NUMBER,
                    .min = 3,
                    .max = 100000,
                    .value = "N",
                    .help = "state changes in one commit, a third of each kind; default 1024"},
    [CORE_SHARDS] = {.name = "shards",
                     .kind = OPTION_NUMBER,
                     .min = 1,
                     .max = 4096,
                     .value = "N",
                     .help = "of each volume; default 16"},
    [CORE_VOLUMES] = {.name = "volumes",
                      .kind = OPTION_NUMBER,
                      .min = 1,
                      .max = BENCH_VOLUMES_MAX,
                      .value = "N",
                      .help = "each with a thread and a file; default 1"},
    [CORE_COUNT] = {.name = "count",
                    .letter = 'n',
                    .kind = OPTION_NUMBER,
                    .min = 1,
                    .max = 10000000000,
                    .value = "N",
                    .help = "state changes in all; default 3000000"},
    [CORE_SIZE] = {.name = "size",
                   .letter = 's',
                   .kind = OPTION_SIZE,
                   .max = 1 << 20,
                   .value = "SIZE",
                   .help = "of a body; default 128"},
    [CORE_COMMAND] = {.name = "command",
                      .kind = OPTION_NUMBER,
                      .min = 1,
                      .max = 10000,
                      .value = "N",
                      .help = "messages in one command; default 100"},
    [CORE_RANDOM] = {.name = "random-acks",
                     .kind = OPTION_FLAG,
                     .help = "finish leased messages in random order, not the oldest first"},
    [CORE_NO_JOURNAL] = {.name = "no-journal",
                         .kind = OPTION_FLAG,
                         .help = "commit every batch, instead of many after each other at once"},
    [CORE_IN_FLIGHT] = {.name = "in-flight",
                        .kind = OPTION_NUMBER,
                        .max = 1000000,
                        .value = "N",
                        .help = "leased messages of each volume, all the time; default 0"},
    [CORE_DIRECTORY] = {.name = "dir",
                        .kind = OPTION_TEXT,
                        .value = "DIR",
                        .help = "where a temporary directory is made; default $TMPDIR or /tmp"},
    {.name = NULL},
};

#define SUB_PATH "/v1/topics/{}/subscriptions/bench"

/* Where to measure, and how: over the wire protocol unless HTTP was chosen. */
static err_t read_address(struct cli *cli, struct bench_settings *settings)
{
    char address[TRANSPORT_ADDRESS_SIZE];
    TRY(transport_find(cli, address));
    settings->wire = address[0] != '\0';
    if (settings->wire) {
        return transport_split_address(address, settings->host, sizeof settings->host,
                                       settings->port, sizeof settings->port);
    }
    if (strncasecmp(cli->url, "http://", 7) != 0) {
        return ERR(INVALID, "'%s' is not an http URL", cli->url);
    }
    return transport_split_url(cli->url, settings->host, sizeof settings->host, settings->port,
                               sizeof settings->port);
}

static uint64_t round_up(uint64_t count, uint64_t batch)
{
    return (count + batch - 1) / batch * batch;
}

static void read_settings(struct bench_settings *settings, const struct arguments *arguments,
                          uint64_t connections, uint64_t batch)
{
    settings->connections = (uint32_t)arguments_number(arguments, BENCH_CONNECTIONS, connections);
    settings->batch = (uint32_t)arguments_number(arguments, BENCH_BATCH, batch);
    settings->size = (uint32_t)arguments_number(arguments, BENCH_SIZE, 1024);
    settings->shards = (uint32_t)arguments_number(arguments, BENCH_SHARDS, 4);
    settings->count = arguments_number(arguments, BENCH_COUNT, 200000);
    settings->backlog = arguments_number(arguments, BENCH_BACKLOG, 0);
    settings->timeout_ms = TIMEOUT_MS;
    const struct option_value *durability = &arguments->values[BENCH_DURABILITY];
    settings->durability = durability->set ? durability->text : "synced";
}

/* Over HTTP and with --pull a connection has one request at a time: nothing else may seem to have
 * been measured. */
static err_t check_window(struct cli *cli, struct bench_settings *settings,
                          const struct arguments *arguments)
{
    settings->library = arguments->values[BENCH_LIBRARY].set;
    settings->library_batch = (uint32_t)arguments_number(arguments, BENCH_BATCH, 0);
    settings->pull = arguments->values[BENCH_PULL].set;
    if (settings->pull && settings->library) {
        return USAGE(cli, "--pull is not for --library, which consumes by a credit stream");
    }
    if (settings->pull && arguments->values[BENCH_OUTSTANDING].set) {
        return USAGE(cli, "--outstanding is the credit of a stream, and --pull has none");
    }
    if (!settings->wire && settings->library) {
        return USAGE(cli, "--library is for the wire protocol, which is not used here");
    }
    if (!settings->wire && arguments->values[BENCH_OUTSTANDING].set) {
        return USAGE(cli, "--outstanding is for the wire protocol, which is not used here");
    }
    return NULL;
}

static err_t create_topic(struct cli *cli, const struct bench_settings *settings)
{
    struct request request;
    json_t *document = json_pack("{s:I, s:s}", "shards", (json_int_t)settings->shards, "durability",
                                 settings->durability);
    request_init(&request, "PUT", "/v1/topics/{}", settings->topic);
    request_header(&request, "If-None-Match", "*");
    request_json(&request, document);
    TRY(client_call(cli->client, &request, NULL));
    /* A lease that runs out while the machine is busy would count as a double. */
    request_init(&request, "PUT", SUB_PATH, settings->topic);
    request_json(&request, json_pack("{s:s}", "lease", "1h"));
    return client_call(cli->client, &request, NULL);
}

static err_t remove_topic(struct cli *cli, const struct bench_settings *settings, bool keep)
{
    struct request request;
    if (keep) {
        return NULL;
    }
    request_init(&request, "DELETE", "/v1/topics/{}", settings->topic);
    return client_call(cli->client, &request, NULL);
}

/* The broker must now hold `wanted` messages for the subscription and none in delivery. */
static err_t check_depth(struct cli *cli, const struct bench_settings *settings, uint64_t wanted)
{
    struct request request;
    json_t *reply = NULL;
    request_init(&request, "GET", SUB_PATH, settings->topic);
    TRY(client_call(cli->client, &request, &reply));
    const json_t *queue = json_object_get(reply, "delivery_queue");
    json_int_t enqueued =
        json_integer_value(json_object_get(json_object_get(reply, "enqueue_queue"), "depth"));
    json_int_t leased = json_integer_value(json_object_get(queue, "leased"));
    json_int_t scheduled = json_integer_value(json_object_get(queue, "scheduled"));
    json_int_t dead = json_integer_value(json_object_get(queue, "dead"));
    json_decref(reply);
    if ((uint64_t)(enqueued + leased + scheduled + dead) != wanted) {
        return ERR(INTERNAL,
                   "the broker holds %lld messages enqueued, %lld leased, %lld scheduled and %lld "
                   "dead; %llu were expected",
                   (long long)enqueued, (long long)leased, (long long)scheduled, (long long)dead,
                   (unsigned long long)wanted);
    }
    return NULL;
}

static json_t *describe_latency(const struct histogram *histogram)
{
    json_int_t mean = histogram->count == 0 ? 0 : (json_int_t)(histogram->sum / histogram->count);
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "count", (json_int_t)histogram->count,
                     "mean", mean, "p50", (json_int_t)histogram_quantile(histogram, 0.5), "p90",
                     (json_int_t)histogram_quantile(histogram, 0.9), "p99",
                     (json_int_t)histogram_quantile(histogram, 0.99), "p99.9",
                     (json_int_t)histogram_quantile(histogram, 0.999), "max",
                     (json_int_t)histogram->max);
}

static const char *transport_name(const struct bench_settings *settings)
{
    return settings->library ? "libflare"
           : settings->wire  ? "wire"
           : settings->redis ? "redis"
                             : "http";
}

/* Prints the document every benchmark prints; `first` and `second` name the kinds of requests. */
static void print_result(const struct bench_settings *settings, const char *name,
                         const char *durability, const struct load_result *result,
                         const char *const kinds[LOAD_KINDS])
{
    double seconds = (double)result->duration_us / 1e6;
    double count = (double)settings->count;
    json_t *latency = json_object();
    for (size_t i = 0; i < LOAD_KINDS && kinds[i] != NULL; i++) {
        if (result->latencies[i].count > 0) { /* a stream has no pulls */
            (void)json_object_set_new(latency, kinds[i], describe_latency(&result->latencies[i]));
        }
    }
    json_t *document = json_pack(
        "{s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:I, s:f, s:f, s:o}", "bench",
        name, "version", FLARE_VERSION, "durability", durability, "transport",
        transport_name(settings), "connections", (json_int_t)settings->connections, "outstanding",
        (json_int_t)(settings->wire ? settings->outstanding : 1), "batch",
        (json_int_t)settings->batch, "size", (json_int_t)settings->size, "shards",
        (json_int_t)settings->shards, "count", (json_int_t)settings->count, "backlog",
        (json_int_t)settings->backlog, "seconds", seconds, "throughput",
        (json_int_t)(seconds > 0 ? count / seconds : 0), "mib_per_second",
        seconds > 0 ? count * settings->size / seconds / (1 << 20) : 0.0,
        "client_cpu_us_per_message", (double)result->cpu_us / count, "latency_us", latency);
    (void)json_dumpf(document, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6));
    (void)putchar('\n');
    json_decref(document);
}

static void new_name(char name[NAME_SIZE])
{
    (void)snprintf(name, NAME_SIZE, "bench-%016llx", (unsigned long long)random_seed());
}

static err_t publish_load(const struct bench_settings *settings, uint64_t count,
                          struct load_result *result)
{
    return settings->wire
               ? bench_wire_publish_run(settings, count, settings->batch, result)
               : bench_publish_run(settings, count, settings->connections, settings->batch, result);
}

/* Publishes without measuring: whole batches, then what is left as one more. */
static err_t fill(const struct bench_settings *settings, uint64_t count)
{
    struct load_result result;
    uint32_t fitting = FILL_SIZE / (settings->size + 1) + 1;
    uint32_t batch = fitting < FILL_BATCH ? fitting : FILL_BATCH;
    uint64_t rest = count % batch;
    struct bench_settings filling = *settings;
    filling.connections = FILL_CONNECTIONS;
    filling.outstanding = FILL_OUTSTANDING;
    filling.batch = batch;
    progress_begin(settings->progress, "filling", count - rest);
    TRY(publish_load(&filling, count - rest, &result));
    filling.connections = 1;
    filling.batch = (uint32_t)rest;
    return rest == 0 ? NULL : publish_load(&filling, rest, &result);
}

static err_t publish_measured(struct cli *cli, const struct bench_settings *settings,
                              struct load_result *result)
{
    TRY(create_topic(cli, settings));
    TRY(fill(settings, settings->backlog));
    progress_begin(settings->progress, "publishing", settings->count);
    TRY(settings->library ? bench_library_publish_run(cli, settings, result)
                          : publish_load(settings, settings->count, result));
    return check_depth(cli, settings, settings->count + settings->backlog);
}

static err_t publish_run(struct cli *cli, const struct arguments *arguments)
{
    struct progress progress;
    struct bench_settings settings = {.progress = &progress};
    struct load_result result;
    char name[NAME_SIZE];
    progress_init(&progress, cli->quiet);
    new_name(name);
    settings.topic = name;
    TRY(read_address(cli, &settings));
    TRY(check_window(cli, &settings, arguments));
    read_settings(&settings, arguments, settings.wire ? 4 : 64, 1);
    settings.outstanding = (uint32_t)arguments_number(arguments, BENCH_OUTSTANDING, 64);
    settings.count = round_up(settings.count, settings.batch);
    err_t err = publish_measured(cli, &settings, &result);
    progress_done(&progress);
    TRY(err);
    print_result(&settings, "publish", settings.durability, &result,
                 (const char *const[LOAD_KINDS]){"publish", NULL});
    return remove_topic(cli, &settings, arguments->values[BENCH_KEEP].set);
}

static err_t consume_measured(struct cli *cli, const struct bench_settings *settings,
                              struct load_result *result)
{
    TRY(create_topic(cli, settings));
    TRY(fill(settings, settings->count + settings->backlog));
    progress_begin(settings->progress, "consuming", settings->count);
    TRY(settings->library ? bench_library_consume_run(cli, settings, result)
        : settings->wire  ? bench_wire_consume_run(settings, result)
                          : bench_consume_run(settings, result));
    return settings->backlog == 0 ? check_depth(cli, settings, 0) : NULL;
}

static err_t consume_run(struct cli *cli, const struct arguments *arguments)
{
    struct progress progress;
    struct bench_settings settings = {.progress = &progress};
    struct load_result result;
    char name[NAME_SIZE];
    progress_init(&progress, cli->quiet);
    new_name(name);
    settings.topic = name;
    TRY(read_address(cli, &settings));
    TRY(check_window(cli, &settings, arguments));
    read_settings(&settings, arguments, 4, 100);
    settings.outstanding =
        (uint32_t)arguments_number(arguments, BENCH_OUTSTANDING, settings.pull ? 1 : 1000);
    err_t err = consume_measured(cli, &settings, &result);
    progress_done(&progress);
    TRY(err);
    print_result(&settings, "consume", settings.durability, &result,
                 (const char *const[LOAD_KINDS]){"pull", "ack"});
    return remove_topic(cli, &settings, arguments->values[BENCH_KEEP].set);
}

static err_t redis_measured(const struct bench_settings *settings, bool consume, bool *synced,
                            struct load_result *result)
{
    TRY(bench_redis_prepare(settings, synced));
    progress_begin(settings->progress, "publishing", settings->count);
    TRY(bench_redis_publish_run(settings, settings->count, result));
    if (consume) {
        progress_begin(settings->progress, "consuming", settings->count);
        TRY(bench_redis_consume_run(settings, result));
    }
    return NULL;
}

static err_t redis_run(struct cli *cli, const struct arguments *arguments)
{
    struct progress progress;
    struct bench_settings settings = {
        .timeout_ms = TIMEOUT_MS, .topic = "flare-bench", .redis = true, .progress = &progress};
    struct load_result result;
    bool synced = false;
    const struct option_value *values = arguments->values;
    bool consume = values[REDIS_WORK].set && strcmp(values[REDIS_WORK].text, "consume") == 0;
    const char *address = values[REDIS_ADDRESS].set ? values[REDIS_ADDRESS].text : "127.0.0.1:6379";
    settings.connections = (uint32_t)arguments_number(arguments, REDIS_CONNECTIONS, 64);
    settings.batch = (uint32_t)arguments_number(arguments, REDIS_BATCH, 1);
    settings.size = (uint32_t)arguments_number(arguments, REDIS_SIZE, 1024);
    settings.count = round_up(arguments_number(arguments, REDIS_COUNT, 200000), settings.batch);
    settings.shards = 1;
    progress_init(&progress, cli->quiet);
    TRY(transport_split_address(address, settings.host, sizeof settings.host, settings.port,
                                sizeof settings.port));
    err_t err = redis_measured(&settings, consume, &synced, &result);
    progress_done(&progress);
    TRY(err);
    print_result(
        &settings, consume ? "redis consume" : "redis publish", synced ? "synced" : "not synced",
        &result,
        (const char *const[LOAD_KINDS]){consume ? "pull" : "publish", consume ? "ack" : NULL});
    return NULL;
}

static void print_core(const struct bench_core_settings *settings,
                       const struct bench_core_result *result)
{
    double seconds = (double)result->duration_us / 1e6;
    json_t *document = json_pack(
        "{s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:b, s:I, s:f, s:I, s:I, s:I, s:o}",
        "bench", "core", "version", FLARE_VERSION, "durability", "synced", "volumes",
        (json_int_t)settings->volumes, "shards", (json_int_t)settings->shards, "size",
        (json_int_t)settings->size, "batch", (json_int_t)settings->batch, "command",
        (json_int_t)settings->command_max, "in_flight", (json_int_t)settings->in_flight,
        "random_acks", (int)settings->random_acks, "journal", (int)!settings->no_journal, "count",
        (json_int_t)result->changes, "seconds", seconds, "throughput",
        (json_int_t)(seconds > 0 ? (double)result->changes / seconds : 0), "used_bytes",
        (json_int_t)result->used_size, "file_bytes", (json_int_t)result->file_size, "latency_us",
        json_pack("{s:o}", "commit", describe_latency(&result->commits)));
    (void)json_dumpf(document, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6));
    (void)putchar('\n');
    json_decref(document);
}

static err_t core_run(struct cli *cli, const struct arguments *arguments)
{
    struct bench_core_result result;
    struct progress progress;
    const char *directory = getenv("TMPDIR");
    const struct option_value *values = arguments->values;
    progress_init(&progress, cli->quiet);
    directory = directory == NULL || directory[0] == '\0' ? "/tmp" : directory;
    const struct bench_core_settings settings = {
        .directory = values[CORE_DIRECTORY].set ? values[CORE_DIRECTORY].text : directory,
        .volumes = (uint32_t)arguments_number(arguments, CORE_VOLUMES, 1),
        .shards = (uint32_t)arguments_number(arguments, CORE_SHARDS, 16),
        .size = (uint32_t)arguments_number(arguments, CORE_SIZE, 128),
        .batch = (uint32_t)arguments_number(arguments, CORE_BATCH, 1024),
        .command_max = (uint32_t)arguments_number(arguments, CORE_COMMAND, 100),
        .count = arguments_number(arguments, CORE_COUNT, 3000000),
        .in_flight = arguments_number(arguments, CORE_IN_FLIGHT, 0),
        .random_acks = values[CORE_RANDOM].set,
        .no_journal = values[CORE_NO_JOURNAL].set,
        .progress = &progress};
    progress_begin(&progress, "changing", settings.count);
    err_t err = bench_core_run(&settings, &result);
    progress_done(&progress);
    TRY(err);
    print_core(&settings, &result);
    return NULL;
}

const struct cli_command bench_commands[] = {
    {.name = "bench core",
     .scope = CLI_LOCAL,
     .operands = "",
     .summary = "Measure core and storage in this process, without network; prints JSON",
     .details = "A state change is a message published, leased or finished; each is flushed.",
     .examples = "  flare bench core --shards 256\n"
                 "  flare bench core --shards 1 --random-acks --in-flight 50000\n"
                 "  flare bench core --volumes 2\n",
     .options = core_options,
     .run = core_run},
    {.name = "bench publish",
     .operands = "",
     .summary = "Measure publishing; prints JSON",
     .details =
         "Creates a topic of its own, and checks that the broker holds every message. Frames\n"
         "are prepared beforehand, so that the broker is what is measured; with --library the\n"
         "library is measured too, --outstanding counts messages, and --batch bounds what it\n"
         "puts together.",
     .examples = "  flare bench publish --connections 4 --outstanding 256 --size 128\n"
                 "  flare bench publish --http --connections 64 --size 1024\n"
                 "  flare bench publish --connections 4 --batch 100 --count 1000000\n"
                 "  flare bench publish --durability relaxed\n",
     .options = publish_options,
     .run = publish_run},
    {.name = "bench consume",
     .operands = "",
     .summary = "Measure consuming and acknowledging; prints JSON",
     .details = "Fills a topic of its own first, and checks that each message comes exactly once.",
     .examples = "  flare bench consume --connections 4 --outstanding 1000 --batch 100\n"
                 "  flare bench consume --pull --batch 100\n"
                 "  flare bench consume --backlog 3000000\n",
     .options = consume_options,
     .run = consume_run},
    {.name = "bench redis",
     .scope = CLI_LOCAL,
     .operands = "",
     .summary = "Measure the same on a Redis stream, for comparison; prints JSON",
     .details = "The stream flare-bench of that server is deleted and written anew.",
     .examples = "  flare bench redis --address 127.0.0.1:6379 --connections 64\n"
                 "  flare bench redis --work consume --batch 100 --connections 4\n",
     .options = redis_options,
     .run = redis_run},
    {.name = NULL},
};
