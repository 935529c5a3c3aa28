/* Reads commands, runs them, and prints their results. */
#include "tests/interop/driver.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAMED_MAX = 64, NAME_SIZE = 32 };

/* What a command has named, for later commands: a request under way, or a stream. */
struct named {
    char name[NAME_SIZE]; /* empty: free */
    struct reply *reply;
    json_t *command; /* of the reply */
    struct stream *stream;
};

struct driver {
    struct reply *(*begin)(struct flare_client *client, json_t *command);
    struct flare_client *client;
    struct flare_broker *broker; /* in this process; NULL: none */
    struct named named[NAMED_MAX];
};

static struct named *named_add(struct driver *driver, const json_t *command)
{
    for (size_t index = 0; index < NAMED_MAX; index++) {
        struct named *named = &driver->named[index];
        if (named->name[0] == '\0') {
            strncpy(named->name, field_text(command, "as", "?"), NAME_SIZE - 1);
            return named;
        }
    }
    assert(false && "too many requests and streams");
    return NULL;
}

static struct named *named_find(struct driver *driver, const json_t *command)
{
    for (size_t index = 0; index < NAMED_MAX; index++) {
        if (strcmp(driver->named[index].name, field_text(command, "as", "?")) == 0) {
            return &driver->named[index];
        }
    }
    assert(false && "nothing has this name");
    return NULL;
}

/* ---- commands ------------------------------------------------------------------------------- */

static json_t *do_connect(struct driver *driver, json_t *command)
{
    struct flare_error error = {.code = FLARE_OK};
    struct flare_options options = {.url = field_text(command, "url", NULL),
                                    .name = "flare-driver",
                                    .reconnect_min_ms = 1,
                                    .reconnect_max_ms = 100};
    enum flare_code code = flare_connect(&options, &driver->client, &error);
    return result_make(code, &error);
}

static json_t *do_disconnect(struct driver *driver, json_t *command)
{
    (void)command;
    flare_close(driver->client);
    driver->client = NULL;
    return result_make(FLARE_OK, NULL);
}

static json_t *do_ping(struct driver *driver, json_t *command)
{
    struct flare_error error = {.code = FLARE_OK};
    (void)command;
    enum flare_code code = flare_ping(driver->client, &error);
    return result_make(code, &error);
}

static json_t *configured(enum flare_code code, bool created, const struct flare_error *error)
{
    json_t *result = result_make(code, error);
    json_object_set_new(result, "created", json_boolean(created));
    return result;
}

/* A number that 0 means something for in the scenarios, where the library's 0 is the default. */
static uint64_t number_or_none(const json_t *command, const char *name, uint64_t none)
{
    uint64_t value = field_number(command, name, UINT64_MAX);
    return value == UINT64_MAX ? 0 : value == 0 ? none : value;
}

static json_t *do_topic_put(struct driver *driver, json_t *command)
{
    struct flare_error error = {.code = FLARE_OK};
    bool created = false;
    struct flare_topic settings = {.shards = (uint32_t)field_number(command, "shards", 0),
                                   .retention_ms = field_number(command, "retention_ms", 0),
                                   .retention_bytes = field_number(command, "retention_bytes", 0),
                                   .idempotency_window_ms =
                                       number_or_none(command, "idempotency_window_ms", FLARE_NONE),
                                   .relaxed = field_true(command, "relaxed")};
    enum flare_code code = flare_topic_put(driver->client, field_text(command, "topic", ""),
                                           &settings, &created, &error);
    return configured(code, created, &error);
}

static json_t *do_sub_put(struct driver *driver, json_t *command)
{
    struct flare_error error = {.code = FLARE_OK};
    bool created = false;
    struct flare_source source = source_decode(command);
    struct flare_subscription settings = {
        .lease_ms = field_number(command, "lease_ms", 0),
        .max_attempts = (uint32_t)number_or_none(command, "max_attempts", FLARE_NONE_U32),
        .retry_delay_ms = field_number(command, "retry_delay_ms", 0),
        .max_in_flight = (uint32_t)field_number(command, "max_in_flight", 0),
        .start = strcmp(field_text(command, "start", "latest"), "earliest") == 0
                     ? FLARE_START_EARLIEST
                     : FLARE_START_LATEST};
    enum flare_code code =
        flare_subscription_put(driver->client, &source, &settings, &created, &error);
    return configured(code, created, &error);
}

static json_t *do_request(struct driver *driver, json_t *command)
{
    return reply_wait(driver->begin(driver->client, command));
}

static json_t *do_start(struct driver *driver, json_t *command)
{
    struct named *named = named_add(driver, command);
    named->command = json_incref(json_object_get(command, "command"));
    named->reply = driver->begin(driver->client, named->command);
    return result_make(FLARE_OK, NULL);
}

static json_t *do_finish(struct driver *driver, json_t *command)
{
    struct named *named = named_find(driver, command);
    json_t *result = reply_wait(named->reply);
    json_decref(named->command);
    *named = (struct named){.reply = NULL};
    return result;
}

static json_t *do_stream(struct driver *driver, json_t *command)
{
    json_t *result;
    struct stream *stream = stream_open(driver->client, command, &result);
    if (stream != NULL) {
        named_add(driver, command)->stream = stream;
    }
    return result;
}

static json_t *do_take(struct driver *driver, json_t *command)
{
    return stream_take(named_find(driver, command)->stream, field_number(command, "count", 1));
}

static json_t *do_verdict(struct driver *driver, json_t *command)
{
    return stream_verdict(named_find(driver, command)->stream, field_text(command, "receipt", ""),
                          field_text(command, "verdict", ""));
}

static json_t *do_end(struct driver *driver, json_t *command)
{
    return stream_end(named_find(driver, command)->stream);
}

static json_t *do_close_stream(struct driver *driver, json_t *command)
{
    struct named *named = named_find(driver, command);
    stream_close(named->stream);
    *named = (struct named){.reply = NULL};
    return result_make(FLARE_OK, NULL);
}

static json_t *do_open(struct driver *driver, json_t *command)
{
    return embedded_open(command, &driver->broker);
}

static json_t *do_shut(struct driver *driver, json_t *command)
{
    (void)command;
    embedded_shut(driver->broker);
    driver->broker = NULL;
    return result_make(FLARE_OK, NULL);
}

static const struct {
    const char *name;
    json_t *(*run)(struct driver *driver, json_t *command);
} commands[] = {
    {"connect", do_connect},
    {"disconnect", do_disconnect},
    {"ping", do_ping},
    {"topic_put", do_topic_put},
    {"sub_put", do_sub_put},
    {"publish", do_request},
    {"pull", do_request},
    {"settle", do_request},
    {"start", do_start},
    {"finish", do_finish},
    {"stream", do_stream},
    {"take", do_take},
    {"verdict", do_verdict},
    {"end", do_end},
    {"close_stream", do_close_stream},
    {"open", do_open},
    {"shut", do_shut},
};

static json_t *run(struct driver *driver, json_t *command)
{
    for (size_t index = 0; index < sizeof commands / sizeof commands[0]; index++) {
        if (strcmp(commands[index].name, field_text(command, "do", "")) == 0) {
            return commands[index].run(driver, command);
        }
    }
    assert(false && "no such command");
    return NULL;
}

/* ---- program --------------------------------------------------------------------------------- */

/* What a scenario that failed has left open. */
static void close_all(struct driver *driver)
{
    for (size_t index = 0; index < NAMED_MAX; index++) {
        if (driver->named[index].stream != NULL) {
            stream_close(driver->named[index].stream);
        }
    }
    flare_close(driver->client);
    embedded_shut(driver->broker);
}

int main(int argc, char **argv)
{
    struct driver driver = {.begin = blocking_begin};
    char *line = NULL;
    size_t size = 0;
    if (argc != 2 || (strcmp(argv[1], "blocking") != 0 && strcmp(argv[1], "async") != 0)) {
        fprintf(stderr, "usage: driver blocking|async\n");
        return 64;
    }
    if (strcmp(argv[1], "async") == 0) {
        driver.begin = async_begin;
    }
    while (getline(&line, &size, stdin) > 0) {
        json_error_t error;
        json_t *command = json_loads(line, 0, &error);
        assert(command != NULL);
        json_t *result = run(&driver, command);
        char *text = json_dumps(result, JSON_COMPACT);
        assert(text != NULL);
        printf("%s\n", text);
        (void)fflush(stdout);
        free(text);
        json_decref(result);
        json_decref(command);
    }
    free(line);
    close_all(&driver);
    return 0;
}
