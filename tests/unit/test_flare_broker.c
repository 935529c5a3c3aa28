#include <flare/broker.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>
#include <uv.h>

#include "tests/lib/fault.h"
#include "tests/lib/fds.h"
#include "tests/lib/http_client.h"
#include "tests/lib/tmpdir.h"

enum { START_MS = 1000000, LEASE_MS = 30000, RETRY_MS = 5000, PULLS_MAX_MS = 30000 };
#define SUB "/v1/topics/orders/subscriptions/mail"

static const struct flare_source mail_source = {.topic = "orders", .subscription = "mail"};
static struct flare_error error;

static void must(enum flare_code code)
{
    if (code != FLARE_OK) {
        print_error("%s: %s\n", flare_code_name(code), error.message);
    }
    assert_int_equal(code, FLARE_OK);
}

static struct flare_broker *open_broker(const struct flare_broker_options *options)
{
    struct flare_broker *broker = NULL;
    must(flare_broker_open(options, &broker, &error));
    assert_non_null(broker);
    return broker;
}

/* With a topic of one shard and a subscription to it. */
static void put_orders(struct flare_broker *broker)
{
    struct flare_topic topic = {0};
    struct flare_subscription sub = {0};
    topic.shards = 1;
    sub.lease_ms = LEASE_MS;
    sub.retry_delay_ms = RETRY_MS;
    sub.max_attempts = 2;
    must(flare_broker_topic_put(broker, "orders", &topic, &error));
    must(flare_broker_subscription_put(broker, &mail_source, &sub, &error));
}

static struct flare_broker *open_orders(void)
{
    struct flare_broker *broker = open_broker(
        &(struct flare_broker_options){.http = "127.0.0.1:0", .simulated_ms = START_MS});
    put_orders(broker);
    return broker;
}

/* The connection is closed after its broker, or nothing is opened between the two: TSan does not
 * see libuv close files, and takes a new one of the same number for the old. */
static void connect_to(const struct flare_broker *broker, struct http_client *client)
{
    const char *address = flare_broker_http_address(broker);
    assert_non_null(address);
    http_client_init(client, (uint16_t)strtoul(strrchr(address, ':') + 1, NULL, 10));
}

static void publish(struct http_client *client, const char *body)
{
    const struct http_client_request request = {
        .method = "POST", .path = "/v1/topics/orders/messages", .body = span_text(body)};
    assert_int_equal(http_client_request(client, &request), 201);
}

static size_t pull(struct http_client *client)
{
    assert_int_equal(http_client_json(client, "POST", SUB "/pull", "{\"max\":10}"), 200);
    json_t *document = http_client_document(client);
    size_t count = json_array_size(json_object_get(document, "messages"));
    json_decref(document);
    return count;
}

static void check_depths(struct flare_broker *broker, struct flare_depths expected)
{
    struct flare_depths depths;
    must(flare_broker_depths(broker, &mail_source, &depths, &error));
    assert_int_equal(depths.enqueued, expected.enqueued);
    assert_int_equal(depths.leased, expected.leased);
    assert_int_equal(depths.scheduled, expected.scheduled);
    assert_int_equal(depths.dead, expected.dead);
}

/* Without options there is no socket, no file, and the time is now. */
static void test_defaults(void **state)
{
    (void)state;
    struct flare_broker *broker = open_broker(NULL);
    assert_null(flare_broker_http_address(broker));
    assert_true(flare_broker_now_ms(broker) > UINT64_C(1700000000000));
    assert_int_equal(flare_broker_advance(broker, 1, &error), FLARE_ERR_CONFLICT);
    assert_string_equal(error.message, "the broker runs by the real clock");
    put_orders(broker);
    check_depths(broker, (struct flare_depths){0});
    flare_broker_close(broker);
    flare_broker_close(NULL);
}

/* A lease runs out when the clock is moved there and not before; what follows from it counts from
 * its own time, so that one long step is the same as many short ones. */
static void test_advance(void **state)
{
    (void)state;
    struct http_client client;
    struct flare_broker *broker = open_orders();
    connect_to(broker, &client);
    publish(&client, "one");
    check_depths(broker, (struct flare_depths){.enqueued = 1});
    assert_int_equal(pull(&client), 1);
    check_depths(broker, (struct flare_depths){.leased = 1});
    must(flare_broker_advance(broker, LEASE_MS - 1, &error));
    check_depths(broker, (struct flare_depths){.leased = 1});
    must(flare_broker_advance(broker, 1, &error));
    assert_int_equal(flare_broker_now_ms(broker), START_MS + LEASE_MS);
    check_depths(broker, (struct flare_depths){.scheduled = 1});
    assert_int_equal(pull(&client), 0);
    must(flare_broker_advance(broker, RETRY_MS, &error));
    assert_int_equal(pull(&client), 1);
    must(flare_broker_advance(broker, 10 * LEASE_MS, &error));
    check_depths(broker, (struct flare_depths){.dead = 1});
    assert_int_equal(pull(&client), 0);
    http_client_deinit(&client);
    flare_broker_close(broker);
}

static void test_advance_in_one_step(void **state)
{
    (void)state;
    struct http_client client;
    struct flare_broker *broker = open_orders();
    connect_to(broker, &client);
    publish(&client, "one");
    assert_int_equal(pull(&client), 1);
    must(flare_broker_advance(broker, LEASE_MS + RETRY_MS, &error));
    assert_int_equal(pull(&client), 1); /* its retry was counted from the end of the lease */
    http_client_deinit(&client);
    flare_broker_close(broker);
}

/* Simulated time ends waits and delays, and leaves connections alone. */
static void test_advance_ends_waits(void **state)
{
    (void)state;
    struct http_client waiter;
    struct http_client client;
    struct flare_broker *broker = open_orders();
    connect_to(broker, &waiter);
    connect_to(broker, &client);
    const struct http_client_request pull_request = {
        .method = "POST", .path = SUB "/pull", .body = span_text("{\"wait\":\"10s\"}")};
    const struct http_client_request delayed = {.method = "POST",
                                                .path = "/v1/topics/orders/messages",
                                                .headers = "Flare-Delay: 1h\r\n",
                                                .body = span_text("later")};
    assert_true(http_client_send(&waiter, &pull_request));
    must(flare_broker_await_pulls(broker, 1, PULLS_MAX_MS, &error));
    must(flare_broker_advance(broker, 9999, &error));
    assert_int_equal(flare_broker_await_pulls(broker, 2, 1, &error), FLARE_ERR_TIMEOUT);
    assert_string_equal(error.message, "1 of 2 pulls wait after 1 ms");
    assert_false(http_client_readable(&waiter, 0));
    must(flare_broker_advance(broker, 1, &error));
    assert_int_equal(http_client_receive(&waiter), 200);
    assert_non_null(strstr(waiter.body, "\"messages\":[]"));
    assert_int_equal(http_client_request(&client, &delayed), 201);
    assert_true(http_client_send(&waiter, &pull_request));
    must(flare_broker_await_pulls(broker, 1, PULLS_MAX_MS, &error));
    must(flare_broker_advance(broker, 5000, &error));
    assert_int_equal(pull(&client), 0);
    must(flare_broker_advance(broker, 3600000 - 5000, &error));
    assert_int_equal(http_client_receive(&waiter), 200);
    assert_int_equal(pull(&client), 1);
    http_client_deinit(&waiter);
    http_client_deinit(&client);
    flare_broker_close(broker);
}

struct seen {
    size_t count;
    char text[512];
};

static void note_listed(void *user, const struct flare_listed *message)
{
    struct seen *seen = user;
    size_t size = strlen(seen->text);
    (void)snprintf(seen->text + size, sizeof seen->text - size, "%s(%s%u%.*s%.*s)",
                   flare_message_state_name(message->state), message->reason, message->attempts,
                   (int)message->key_size, (const char *)message->key, (int)message->body_size,
                   (const char *)message->body);
    assert_true(message->published_ms >= START_MS);
    assert_int_equal(strlen(message->id), 24);
    seen->count++;
}

static struct seen list(struct flare_broker *broker, enum flare_message_state state, uint32_t max)
{
    struct seen seen = {0};
    const struct flare_list_options options = {.source = {"orders", "mail"},
                                               .state = state,
                                               .max = max,
                                               .visit = note_listed,
                                               .user = &seen};
    must(flare_broker_list(broker, &options, &error));
    return seen;
}

/* Messages are listed by state, all of them or so many, and none is disturbed. */
static void test_list(void **state)
{
    (void)state;
    struct http_client client;
    struct flare_broker *broker = open_orders();
    connect_to(broker, &client);
    const struct http_client_request keyed = {.method = "POST",
                                              .path = "/v1/topics/orders/messages",
                                              .headers = "Flare-Key: k\r\n",
                                              .body = span_text("a")};
    assert_int_equal(http_client_request(&client, &keyed), 201);
    assert_int_equal(pull(&client), 1);
    publish(&client, "b");
    publish(&client, "");
    assert_string_equal(list(broker, FLARE_MESSAGE_LEASED, 0).text, "leased(1ka)");
    assert_string_equal(list(broker, FLARE_MESSAGE_ENQUEUED, 0).text, "enqueued(0b)enqueued(0)");
    assert_string_equal(list(broker, FLARE_MESSAGE_ENQUEUED, 1).text, "enqueued(0b)");
    must(flare_broker_advance(broker, LEASE_MS, &error));
    assert_string_equal(list(broker, FLARE_MESSAGE_SCHEDULED, 0).text, "scheduled(1ka)");
    must(flare_broker_advance(broker, RETRY_MS, &error));
    assert_int_equal(pull(&client), 3);
    must(flare_broker_advance(broker, LEASE_MS, &error));
    assert_string_equal(list(broker, FLARE_MESSAGE_DEAD, 0).text, "dead(attempts2ka)");
    check_depths(broker, (struct flare_depths){.scheduled = 2, .dead = 1});
    const struct flare_list_options wrong = {.source = {"orders", "none"},
                                             .state = FLARE_MESSAGE_DEAD};
    assert_int_equal(flare_broker_list(broker, &wrong, &error), FLARE_ERR_NOT_FOUND);
    struct flare_list_options worse = {.source = {"orders", "mail"}};
    assert_int_equal(flare_broker_list(broker, &worse, &error), FLARE_ERR_INVALID);
    worse.state = (enum flare_message_state)5;
    assert_int_equal(flare_broker_list(broker, &worse, &error), FLARE_ERR_INVALID);
    assert_string_equal(flare_message_state_name(worse.state), "unknown");
    http_client_deinit(&client);
    flare_broker_close(broker);
}

/* A list longer than one page of the broker's is put together from several. */
static void test_list_of_many(void **state)
{
    (void)state;
    enum { MANY = 9, BODY_SIZE = 200 << 10 };
    struct http_client client;
    struct flare_broker *broker = open_orders();
    char *body = malloc(BODY_SIZE + 1);
    assert_non_null(body);
    memset(body, 'x', BODY_SIZE);
    body[BODY_SIZE] = '\0';
    connect_to(broker, &client);
    for (int index = 0; index < MANY; index++) {
        publish(&client, body);
    }
    free(body);
    assert_int_equal(list(broker, FLARE_MESSAGE_ENQUEUED, 0).count, MANY);
    assert_int_equal(list(broker, FLARE_MESSAGE_ENQUEUED, MANY - 1).count, MANY - 1);
    http_client_deinit(&client);
    flare_broker_close(broker);
}

static void note_sub(void *user, const struct flare_source *source,
                     const struct flare_depths *depths)
{
    struct seen *seen = user;
    size_t size = strlen(seen->text);
    (void)snprintf(seen->text + size, sizeof seen->text - size, "%s/%s=%u ", source->topic,
                   source->subscription, (unsigned)depths->enqueued);
}

/* What is put is there, what is deleted is not; the bounds are those of the HTTP API. */
static void test_catalog(void **state)
{
    (void)state;
    struct http_client client;
    struct seen seen = {0};
    struct flare_broker *broker = open_orders();
    must(flare_broker_each_subscription(broker, note_sub, &seen, &error));
    assert_string_equal(seen.text, "orders/mail=0 ");
    must(flare_broker_subscription_put(broker, &(struct flare_source){"orders", "audit"}, NULL,
                                       &error));
    must(flare_broker_topic_put(broker, "a", NULL, &error));
    must(flare_broker_subscription_put(broker, &(struct flare_source){"a", "b"}, NULL, NULL));
    connect_to(broker, &client);
    publish(&client, "x");
    seen.text[0] = '\0';
    must(flare_broker_each_subscription(broker, note_sub, &seen, &error));
    assert_string_equal(seen.text, "a/b=0 orders/audit=1 orders/mail=1 ");
    must(flare_broker_subscription_delete(broker, &(struct flare_source){"orders", "audit"},
                                          &error));
    must(flare_broker_topic_delete(broker, "a", &error));
    seen.text[0] = '\0';
    must(flare_broker_each_subscription(broker, note_sub, &seen, &error));
    assert_string_equal(seen.text, "orders/mail=1 ");
    assert_int_equal(flare_broker_topic_delete(broker, "a", &error), FLARE_ERR_NOT_FOUND);
    assert_int_equal(
        flare_broker_subscription_delete(broker, &(struct flare_source){"orders", "audit"}, NULL),
        FLARE_ERR_NOT_FOUND);
    http_client_deinit(&client);
    flare_broker_close(broker);
}

static void test_wrong_settings(void **state)
{
    (void)state;
    struct flare_topic topic = {0};
    struct flare_subscription sub = {0};
    struct flare_depths depths;
    struct flare_broker *broker = open_orders();
    topic.shards = 4097;
    assert_int_equal(flare_broker_topic_put(broker, "t", &topic, &error), FLARE_ERR_INVALID);
    assert_string_equal(error.message, "shards: must be between 1 and 4096");
    assert_int_equal(error.code, FLARE_ERR_INVALID);
    topic.shards = 2;
    assert_int_equal(flare_broker_topic_put(broker, "orders", &topic, &error), FLARE_ERR_EXISTS);
    assert_string_equal(error.message, "shards: the topic has 1, which does not change");
    topic.retention_ms = 1;
    assert_int_equal(flare_broker_topic_put(broker, "t", &topic, &error), FLARE_ERR_INVALID);
    assert_int_equal(flare_broker_topic_put(broker, "t/t", NULL, &error), FLARE_ERR_INVALID);
    assert_int_equal(flare_broker_topic_put(broker, "..", NULL, &error), FLARE_ERR_INVALID);
    assert_int_equal(
        flare_broker_subscription_put(broker, &(struct flare_source){"orders", "."}, NULL, &error),
        FLARE_ERR_INVALID);
    sub.lease_ms = 99;
    assert_int_equal(
        flare_broker_subscription_put(broker, &(struct flare_source){"orders", "s"}, &sub, &error),
        FLARE_ERR_INVALID);
    assert_memory_equal(error.message, "lease_ms: ", 10);
    sub = (struct flare_subscription){.start = (enum flare_start)7};
    assert_int_equal(
        flare_broker_subscription_put(broker, &(struct flare_source){"orders", "s"}, &sub, &error),
        FLARE_ERR_INVALID);
    assert_int_equal(
        flare_broker_subscription_put(broker, &(struct flare_source){"none", "s"}, NULL, &error),
        FLARE_ERR_NOT_FOUND);
    assert_int_equal(
        flare_broker_depths(broker, &(struct flare_source){"orders", "none"}, &depths, &error),
        FLARE_ERR_NOT_FOUND);
    assert_int_equal(
        flare_broker_depths(broker, &(struct flare_source){"", "mail"}, &depths, &error),
        FLARE_ERR_INVALID);
    flare_broker_close(broker);
}

/* 0 stands for the default, or for as it is; what means none is said. */
static void test_defaults_of_settings(void **state)
{
    (void)state;
    struct http_client client;
    struct flare_topic topic = {.idempotency_window_ms = FLARE_NONE, .relaxed = true};
    struct flare_subscription sub = {.max_attempts = FLARE_NONE_U32};
    struct flare_broker *broker = open_orders();
    connect_to(broker, &client);
    must(flare_broker_topic_put(broker, "orders", &topic, &error));
    must(flare_broker_subscription_put(broker, &mail_source, &sub, &error));
    assert_int_equal(http_client_do(&client, "GET", "/v1/topics/orders"), 200);
    assert_non_null(strstr(client.body, "\"shards\":1,"));
    assert_non_null(strstr(client.body, "\"idempotency_window_ms\":0,"));
    assert_non_null(strstr(client.body, "\"durability\":\"relaxed\""));
    assert_int_equal(http_client_do(&client, "GET", SUB), 200);
    assert_non_null(strstr(client.body, "\"lease_ms\":30000,\"max_attempts\":0,"));
    must(flare_broker_topic_put(broker, "new", NULL, &error));
    must(flare_broker_subscription_put(broker, &mail_source, NULL, &error));
    assert_int_equal(http_client_do(&client, "GET", "/v1/topics/new"), 200);
    assert_non_null(strstr(client.body, "\"shards\":4,"));
    assert_non_null(strstr(client.body, "\"idempotency_window_ms\":300000,"));
    assert_non_null(strstr(client.body, "\"durability\":\"synced\""));
    assert_int_equal(http_client_do(&client, "GET", SUB), 200);
    assert_non_null(strstr(client.body, "\"max_attempts\":16,"));
    http_client_deinit(&client);
    flare_broker_close(broker);
}

/* A new subscription begins where it was told to; changing its settings leaves a pause alone. */
static void test_start_and_pause(void **state)
{
    (void)state;
    struct http_client client;
    struct flare_subscription sub = {0};
    struct flare_topic topic = {0};
    struct flare_broker *broker = open_orders();
    topic.shards = 1;
    topic.retention_ms = 3600000;
    must(flare_broker_topic_put(broker, "orders", &topic, &error));
    connect_to(broker, &client);
    publish(&client, "early");
    must(flare_broker_advance(broker, 1000, &error));
    publish(&client, "late");
    sub.start = FLARE_START_EARLIEST;
    must(flare_broker_subscription_put(broker, &(struct flare_source){"orders", "all"}, &sub,
                                       &error));
    sub.start = FLARE_START_TIME;
    sub.start_ms = START_MS + 500;
    must(flare_broker_subscription_put(broker, &(struct flare_source){"orders", "some"}, &sub,
                                       &error));
    must(flare_broker_subscription_put(broker, &(struct flare_source){"orders", "none"}, NULL,
                                       &error));
    struct seen seen = {0};
    must(flare_broker_each_subscription(broker, note_sub, &seen, &error));
    assert_string_equal(seen.text, "orders/all=2 orders/mail=2 orders/none=0 orders/some=1 ");
    assert_int_equal(http_client_do(&client, "POST", SUB "/pause"), 200);
    must(flare_broker_subscription_put(broker, &mail_source, NULL, &error));
    assert_int_equal(http_client_do(&client, "GET", SUB), 200);
    assert_non_null(strstr(client.body, "\"paused\""));
    http_client_deinit(&client);
    flare_broker_close(broker);
}

/* Lines of one broker, by as many of its threads as log. */
struct lines {
    pthread_mutex_t lock;
    char text[16384];
    size_t size;
};

static void keep_line(void *user, const char *line, size_t size)
{
    struct lines *lines = user;
    pthread_mutex_lock(&lines->lock);
    assert_true(lines->size + size < sizeof lines->text);
    memcpy(lines->text + lines->size, line, size);
    lines->size += size;
    pthread_mutex_unlock(&lines->lock);
}

/* Brokers of one process have messages, time and a log of their own. */
static void test_several(void **state)
{
    (void)state;
    enum { COUNT = 4 };
    struct flare_broker *brokers[COUNT];
    struct http_client clients[COUNT];
    static struct lines lines[COUNT];
    for (int index = 0; index < COUNT; index++) {
        char name[32];
        (void)snprintf(name, sizeof name, "number-%d", index);
        pthread_mutex_init(&lines[index].lock, NULL);
        brokers[index] =
            open_broker(&(struct flare_broker_options){.http = "127.0.0.1:0",
                                                       .simulated_ms = START_MS,
                                                       .settings = "log-level = debug\n",
                                                       .name = name,
                                                       .log = keep_line,
                                                       .log_user = &lines[index]});
        put_orders(brokers[index]);
    }
    for (int index = 0; index < COUNT; index++) {
        connect_to(brokers[index], &clients[index]);
        for (int count = 0; count < index; count++) {
            publish(&clients[index], "x");
        }
        must(flare_broker_advance(brokers[index], (uint64_t)index, &error));
    }
    for (int index = 0; index < COUNT; index++) {
        check_depths(brokers[index], (struct flare_depths){.enqueued = (uint64_t)index});
        assert_int_equal(flare_broker_now_ms(brokers[index]), START_MS + index);
        flare_broker_close(brokers[index]);
        http_client_deinit(&clients[index]);
        char name[32];
        (void)snprintf(name, sizeof name, "broker=number-%d", index);
        size_t count = 0;
        for (const char *line = lines[index].text; *line != '\0'; line = strchr(line, '\n') + 1) {
            const char *named = strstr(line, "broker=");
            assert_non_null(named);
            assert_memory_equal(named, name, strlen(name));
            count++;
        }
        assert_true(count >= 2); /* opened, closed */
        pthread_mutex_destroy(&lines[index].lock);
    }
}

/* What was confirmed is in the directory when it is opened again, and it has one owner at a time.
 */
static void test_directory(void **state)
{
    (void)state;
    struct tmpdir tmpdir;
    char path[TMPDIR_PATH_SIZE];
    struct http_client client;
    struct flare_broker *other = NULL;
    tmpdir_init(&tmpdir);
    const struct flare_broker_options options = {.data = tmpdir_file(&tmpdir, "data", path),
                                                 .http = "127.0.0.1:0",
                                                 .settings = "volumes = 1\n"};
    struct flare_broker *broker = open_broker(&options);
    put_orders(broker);
    connect_to(broker, &client);
    publish(&client, "kept");
    assert_int_equal(flare_broker_open(&options, &other, &error), FLARE_ERR_LOCKED);
    assert_null(other);
    flare_broker_close(broker);
    http_client_deinit(&client);
    broker = open_broker(&options);
    check_depths(broker, (struct flare_depths){.enqueued = 1});
    flare_broker_close(broker);
    tmpdir_deinit(&tmpdir);
}

/* What cannot be opened is refused with its reason, and leaves nothing behind. */
static void test_refused(void **state)
{
    (void)state;
    static const struct {
        struct flare_broker_options options;
        enum flare_code code;
        const char *message; /* its beginning */
    } cases[] = {
        {{.settings = "volumes = 65\n"}, FLARE_ERR_INVALID, "settings:1: volumes: "},
        {{.settings = "nonsense = 1\n"}, FLARE_ERR_INVALID, "settings:1: "},
        {{.settings = "data = /tmp\n"}, FLARE_ERR_INVALID, "settings: data, "},
        {{.settings = "http = 127.0.0.1:0\n"}, FLARE_ERR_INVALID, "settings: data, "},
        {{.http = "nowhere"}, FLARE_ERR_INVALID, "nowhere is not HOST:PORT"},
        {{.http = ""}, FLARE_ERR_INVALID, "http: "},
        {{.data = ""}, FLARE_ERR_INVALID, "data: "},
        {{.data = "/proc/none"}, FLARE_ERR_IO, "make the data directory /proc/none: "},
    };
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        struct flare_broker *broker = NULL;
        error = (struct flare_error){.code = FLARE_OK};
        enum flare_code code = flare_broker_open(&cases[index].options, &broker, &error);
        print_message("%s\n", error.message);
        assert_int_equal(code, cases[index].code);
        assert_int_equal(error.code, code);
        assert_memory_equal(error.message, cases[index].message, strlen(cases[index].message));
        assert_null(broker);
        assert_int_equal(flare_broker_open(&cases[index].options, &broker, NULL), code);
    }
}

/* The process is as it was: its files, its signals and the mask of its thread. */
static void test_leaves_process_alone(void **state)
{
    (void)state;
    struct sigaction before;
    struct sigaction after;
    sigset_t mask;
    size_t fds = fds_count();
    assert_int_equal(sigaction(SIGPIPE, NULL, &before), 0);
    struct flare_broker *broker = open_orders();
    assert_int_equal(sigaction(SIGPIPE, NULL, &after), 0);
    assert_true(after.sa_handler == before.sa_handler);
    assert_int_equal(pthread_sigmask(SIG_SETMASK, NULL, &mask), 0);
    assert_int_equal(sigismember(&mask, SIGINT), 0);
    flare_broker_close(broker);
    assert_int_equal(fds_count(), fds);
}

/* libuv ends the process when it finds no memory for a loop: its own is left out. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *data, size_t size);
void __libc_free(void *data);

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SANITIZED = 1 }; /* a sanitizer ends the process when it finds no memory for a thread */
#else
enum { SANITIZED = 0 };
#endif

/* Whichever allocation fails, opening fails as a whole or succeeds, and leaves nothing behind. */
static void test_open_without_memory(void **state)
{
    (void)state;
    if (SANITIZED) {
        skip();
    }
    const struct flare_broker_options options = {
        .http = "127.0.0.1:0", .settings = "log-level = error\n", .name = "small"};
    size_t fds = fds_count();
    size_t used = 0;
    assert_int_equal(
        uv_replace_allocator(__libc_malloc, __libc_realloc, __libc_calloc, __libc_free), 0);
    for (uint64_t nth = 1;; nth++) {
        struct flare_broker *broker = NULL;
        fault_alloc_nth(nth);
        enum flare_code code = flare_broker_open(&options, &broker, &error);
        bool failed = fault_alloc_stop();
        if (code == FLARE_OK) {
            flare_broker_close(broker);
        } else {
            assert_true(failed);
            assert_null(broker);
            assert_int_equal(error.code, code);
        }
        assert_int_equal(fds_count(), fds);
        used = nth == 1 ? mallinfo2().uordblks : used;
        assert_int_equal(mallinfo2().uordblks, used);
        if (!failed) {
            assert_int_equal(code, FLARE_OK);
            print_message("%u allocations\n", (unsigned)nth - 1);
            return;
        }
    }
}

static struct flare_client *connect_client(struct flare_broker *broker)
{
    struct flare_client *client = NULL;
    must(flare_broker_connect(broker, NULL, &client, &error));
    assert_non_null(client);
    return client;
}

static void client_publish(struct flare_client *client, const char *body)
{
    const struct flare_message message = {.body = body, .body_size = strlen(body)};
    must(flare_publish(client, "orders", &message, NULL, &error));
}

/* The client's whole way, without a socket of the network: publish, pull, lose the lease, ack. */
static void test_client_in_process(void **state)
{
    (void)state;
    struct flare_batch *batch = NULL;
    struct flare_broker *broker =
        open_broker(&(struct flare_broker_options){.simulated_ms = START_MS});
    struct flare_client *client = connect_client(broker);
    assert_null(flare_broker_http_address(broker));
    assert_null(flare_broker_wire_address(broker));
    put_orders(broker);
    client_publish(client, "one");
    must(flare_pull(client, &mail_source, NULL, &batch, &error));
    assert_int_equal(flare_batch_count(batch), 1);
    const struct flare_delivery *delivery = flare_batch_get(batch, 0);
    assert_memory_equal(delivery->body, "one", 3);
    assert_int_equal(delivery->published_ms, START_MS);
    assert_int_equal(delivery->lease_until_ms, START_MS + LEASE_MS);
    must(flare_broker_advance(broker, LEASE_MS, &error));
    assert_int_equal(flare_batch_ack(client, batch, &error), FLARE_ERR_LEASE_LOST);
    flare_batch_free(batch);
    must(flare_broker_advance(broker, RETRY_MS, &error));
    must(flare_pull(client, &mail_source, NULL, &batch, &error));
    assert_int_equal(flare_batch_get(batch, 0)->attempt, 2);
    must(flare_batch_ack(client, batch, &error));
    flare_batch_free(batch);
    check_depths(broker, (struct flare_depths){0});
    flare_close(client);
    flare_broker_close(broker);
}

/* Several clients of one broker, one of them over the network, see the same messages. */
static void test_clients_of_both_kinds(void **state)
{
    (void)state;
    char url[128];
    struct flare_client *far = NULL;
    struct flare_batch *batch = NULL;
    struct flare_broker *broker = open_broker(
        &(struct flare_broker_options){.wire = "127.0.0.1:0", .simulated_ms = START_MS});
    struct flare_client *near = connect_client(broker);
    assert_non_null(flare_broker_wire_address(broker));
    (void)snprintf(url, sizeof url, "flare://%s", flare_broker_wire_address(broker));
    must(flare_connect(&(struct flare_options){.url = url}, &far, &error));
    put_orders(broker);
    client_publish(far, "far");
    must(flare_pull(near, &mail_source, NULL, &batch, &error));
    assert_int_equal(flare_batch_count(batch), 1);
    must(flare_batch_ack(far, batch, &error));
    flare_batch_free(batch);
    check_depths(broker, (struct flare_depths){0});
    flare_close(near);
    flare_close(far);
    flare_broker_close(broker);
}

enum { STREAMED = 200 };

struct streamed {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned count;
};

static enum flare_verdict handle(void *user, const struct flare_delivery *delivery)
{
    struct streamed *streamed = user;
    assert_int_equal(delivery->attempt, 1);
    pthread_mutex_lock(&streamed->lock);
    streamed->count++;
    pthread_cond_signal(&streamed->changed);
    pthread_mutex_unlock(&streamed->lock);
    return FLARE_ACK;
}

/* A credit stream within the process gives every message once. */
static void test_stream_in_process(void **state)
{
    (void)state;
    struct streamed streamed = {.lock = PTHREAD_MUTEX_INITIALIZER,
                                .changed = PTHREAD_COND_INITIALIZER};
    struct flare_stream *stream = NULL;
    struct flare_broker *broker =
        open_broker(&(struct flare_broker_options){.simulated_ms = START_MS});
    struct flare_client *client = connect_client(broker);
    const struct flare_stream_options options = {
        .handler = handle, .user = &streamed, .concurrency = 4, .prefetch = 16};
    const struct flare_message message = {.body = "x", .body_size = 1};
    put_orders(broker);
    must(flare_stream_open(client, &mail_source, &options, &stream, &error));
    for (int index = 0; index < STREAMED; index++) {
        must(flare_publish_async(client, "orders", &message, NULL, NULL, &error));
    }
    pthread_mutex_lock(&streamed.lock);
    while (streamed.count < STREAMED) {
        pthread_cond_wait(&streamed.changed, &streamed.lock);
    }
    pthread_mutex_unlock(&streamed.lock);
    flare_stream_close(stream);
    check_depths(broker, (struct flare_depths){0});
    flare_close(client);
    flare_broker_close(broker);
}

struct waited {
    struct flare_client *client;
    size_t count;
};

static void *wait_for_one(void *user)
{
    struct waited *waited = user;
    struct flare_batch *batch = NULL;
    const struct flare_pull options = {.wait_ms = 10000};
    assert_int_equal(flare_pull(waited->client, &mail_source, &options, &batch, NULL), FLARE_OK);
    waited->count = flare_batch_count(batch);
    flare_batch_free(batch);
    return NULL;
}

/* A wait of a client ends by the broker's clock, whatever the client's; one beyond the broker's
 * bound is made of several. */
static void test_client_waits_by_simulated_clock(void **state)
{
    (void)state;
    pthread_t thread;
    struct flare_broker *broker = open_broker(
        &(struct flare_broker_options){.simulated_ms = START_MS, .settings = "wait-max = 4s\n"});
    struct waited waited = {.client = connect_client(broker), .count = 7};
    put_orders(broker);
    assert_int_equal(pthread_create(&thread, NULL, wait_for_one, &waited), 0);
    for (int part = 0; part < 2; part++) {
        must(flare_broker_await_pulls(broker, 1, PULLS_MAX_MS, &error));
        must(flare_broker_advance(broker, 4000, &error));
    }
    must(flare_broker_await_pulls(broker, 1, PULLS_MAX_MS, &error));
    must(flare_broker_advance(broker, 1999, &error));
    assert_int_equal(flare_broker_await_pulls(broker, 1, 0, &error), FLARE_OK);
    must(flare_broker_advance(broker, 1, &error));
    pthread_join(thread, NULL);
    assert_int_equal(waited.count, 0);
    flare_close(waited.client);
    flare_broker_close(broker);
}

/* Where nobody may wait a pull is answered at once. */
static void test_client_cannot_wait(void **state)
{
    (void)state;
    struct flare_broker *broker = open_broker(
        &(struct flare_broker_options){.simulated_ms = START_MS, .settings = "wait-max = 0\n"});
    struct waited waited = {.client = connect_client(broker), .count = 7};
    put_orders(broker);
    (void)wait_for_one(&waited);
    assert_int_equal(waited.count, 0);
    flare_close(waited.client);
    flare_broker_close(broker);
}

/* A pull that waits is answered when its broker closes. */
static void test_close_answers(void **state)
{
    (void)state;
    struct http_client client;
    struct flare_broker *broker = open_orders();
    connect_to(broker, &client);
    const struct http_client_request request = {
        .method = "POST", .path = SUB "/pull", .body = span_text("{\"wait\":\"10s\"}")};
    assert_true(http_client_send(&client, &request));
    must(flare_broker_await_pulls(broker, 1, PULLS_MAX_MS, &error));
    flare_broker_close(broker);
    assert_int_equal(http_client_receive(&client), 503);
    http_client_deinit(&client);
}

static void *ask_often(void *user)
{
    struct flare_broker *broker = user;
    for (int index = 0; index < 50; index++) {
        struct flare_depths depths;
        assert_int_equal(flare_broker_depths(broker, &mail_source, &depths, NULL), FLARE_OK);
        assert_int_equal(flare_broker_advance(broker, 10, NULL), FLARE_OK);
    }
    return NULL;
}

/* Any thread may ask at any time. */
static void test_threads(void **state)
{
    (void)state;
    enum { THREADS = 4 };
    pthread_t threads[THREADS];
    struct flare_broker *broker = open_orders();
    for (int index = 0; index < THREADS; index++) {
        assert_int_equal(pthread_create(&threads[index], NULL, ask_often, broker), 0);
    }
    for (int index = 0; index < THREADS; index++) {
        pthread_join(threads[index], NULL);
    }
    assert_int_equal(flare_broker_now_ms(broker), START_MS + THREADS * 500);
    flare_broker_close(broker);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_advance),
        cmocka_unit_test(test_advance_in_one_step),
        cmocka_unit_test(test_advance_ends_waits),
        cmocka_unit_test(test_list),
        cmocka_unit_test(test_list_of_many),
        cmocka_unit_test(test_catalog),
        cmocka_unit_test(test_wrong_settings),
        cmocka_unit_test(test_defaults_of_settings),
        cmocka_unit_test(test_start_and_pause),
        cmocka_unit_test(test_several),
        cmocka_unit_test(test_directory),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_leaves_process_alone),
        cmocka_unit_test(test_open_without_memory),
        cmocka_unit_test(test_client_in_process),
        cmocka_unit_test(test_clients_of_both_kinds),
        cmocka_unit_test(test_client_waits_by_simulated_clock),
        cmocka_unit_test(test_client_cannot_wait),
        cmocka_unit_test(test_stream_in_process),
        cmocka_unit_test(test_close_answers),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
