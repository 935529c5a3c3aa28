/* What a broker in another program is asked by its functions: its catalog, the settings of it, and
 * lists of messages. */
#include <flare/broker.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/orders.h"

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
    assert_true(message->published_ms >= ORDERS_START_MS);
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
    orders_must(flare_broker_list(broker, &options, &orders_error));
    return seen;
}

/* Messages are listed by state, all of them or so many, and none is disturbed. */
static void test_list(void **state)
{
    (void)state;
    struct http_client client;
    struct flare_broker *broker = orders_open();
    orders_connect(broker, &client);
    const struct http_client_request keyed = {.method = "POST",
                                              .path = "/v1/topics/orders/messages",
                                              .headers = "Flare-Key: k\r\n",
                                              .body = span_text("a")};
    assert_int_equal(http_client_request(&client, &keyed), 201);
    assert_int_equal(orders_pull(&client), 1);
    orders_publish(&client, "b");
    orders_publish(&client, "");
    assert_string_equal(list(broker, FLARE_MESSAGE_LEASED, 0).text, "leased(1ka)");
    assert_string_equal(list(broker, FLARE_MESSAGE_ENQUEUED, 0).text, "enqueued(0b)enqueued(0)");
    assert_string_equal(list(broker, FLARE_MESSAGE_ENQUEUED, 1).text, "enqueued(0b)");
    orders_must(flare_broker_advance(broker, ORDERS_LEASE_MS, &orders_error));
    assert_string_equal(list(broker, FLARE_MESSAGE_SCHEDULED, 0).text, "scheduled(1ka)");
    orders_must(flare_broker_advance(broker, ORDERS_RETRY_MS, &orders_error));
    assert_int_equal(orders_pull(&client), 3);
    orders_must(flare_broker_advance(broker, ORDERS_LEASE_MS, &orders_error));
    assert_string_equal(list(broker, FLARE_MESSAGE_DEAD, 0).text, "dead(attempts2ka)");
    orders_check_depths(broker, (struct flare_depths){.scheduled = 2, .dead = 1});
    const struct flare_list_options wrong = {.source = {"orders", "none"},
                                             .state = FLARE_MESSAGE_DEAD};
    assert_int_equal(flare_broker_list(broker, &wrong, &orders_error), FLARE_ERR_NOT_FOUND);
    struct flare_list_options worse = {.source = {"orders", "mail"}};
    assert_int_equal(flare_broker_list(broker, &worse, &orders_error), FLARE_ERR_INVALID);
    worse.state = (enum flare_message_state)5;
    assert_int_equal(flare_broker_list(broker, &worse, &orders_error), FLARE_ERR_INVALID);
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
    struct flare_broker *broker = orders_open();
    char *body = malloc(BODY_SIZE + 1);
    assert_non_null(body);
    memset(body, 'x', BODY_SIZE);
    body[BODY_SIZE] = '\0';
    orders_connect(broker, &client);
    for (int index = 0; index < MANY; index++) {
        orders_publish(&client, body);
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
    struct flare_broker *broker = orders_open();
    orders_must(flare_broker_each_subscription(broker, note_sub, &seen, &orders_error));
    assert_string_equal(seen.text, "orders/mail=0 ");
    orders_must(flare_broker_subscription_put(broker, &(struct flare_source){"orders", "audit"},
                                              NULL, &orders_error));
    orders_must(flare_broker_topic_put(broker, "a", NULL, &orders_error));
    orders_must(
        flare_broker_subscription_put(broker, &(struct flare_source){"a", "b"}, NULL, NULL));
    orders_connect(broker, &client);
    orders_publish(&client, "x");
    seen.text[0] = '\0';
    orders_must(flare_broker_each_subscription(broker, note_sub, &seen, &orders_error));
    assert_string_equal(seen.text, "a/b=0 orders/audit=1 orders/mail=1 ");
    orders_must(flare_broker_subscription_delete(broker, &(struct flare_source){"orders", "audit"},
                                                 &orders_error));
    orders_must(flare_broker_topic_delete(broker, "a", &orders_error));
    seen.text[0] = '\0';
    orders_must(flare_broker_each_subscription(broker, note_sub, &seen, &orders_error));
    assert_string_equal(seen.text, "orders/mail=1 ");
    assert_int_equal(flare_broker_topic_delete(broker, "a", &orders_error), FLARE_ERR_NOT_FOUND);
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
    struct flare_broker *broker = orders_open();
    topic.shards = 4097;
    assert_int_equal(flare_broker_topic_put(broker, "t", &topic, &orders_error), FLARE_ERR_INVALID);
    assert_string_equal(orders_error.message, "shards: must be between 1 and 4096");
    assert_int_equal(orders_error.code, FLARE_ERR_INVALID);
    topic.shards = 2;
    assert_int_equal(flare_broker_topic_put(broker, "orders", &topic, &orders_error),
                     FLARE_ERR_EXISTS);
    assert_string_equal(orders_error.message, "shards: the topic has 1, which does not change");
    topic.retention_ms = 1;
    assert_int_equal(flare_broker_topic_put(broker, "t", &topic, &orders_error), FLARE_ERR_INVALID);
    assert_int_equal(flare_broker_topic_put(broker, "t/t", NULL, &orders_error), FLARE_ERR_INVALID);
    assert_int_equal(flare_broker_topic_put(broker, "..", NULL, &orders_error), FLARE_ERR_INVALID);
    assert_int_equal(flare_broker_subscription_put(broker, &(struct flare_source){"orders", "."},
                                                   NULL, &orders_error),
                     FLARE_ERR_INVALID);
    sub.lease_ms = 99;
    assert_int_equal(flare_broker_subscription_put(broker, &(struct flare_source){"orders", "s"},
                                                   &sub, &orders_error),
                     FLARE_ERR_INVALID);
    assert_memory_equal(orders_error.message, "lease_ms: ", 10);
    sub = (struct flare_subscription){.start = (enum flare_start)7};
    assert_int_equal(flare_broker_subscription_put(broker, &(struct flare_source){"orders", "s"},
                                                   &sub, &orders_error),
                     FLARE_ERR_INVALID);
    assert_int_equal(flare_broker_subscription_put(broker, &(struct flare_source){"none", "s"},
                                                   NULL, &orders_error),
                     FLARE_ERR_NOT_FOUND);
    assert_int_equal(flare_broker_depths(broker, &(struct flare_source){"orders", "none"}, &depths,
                                         &orders_error),
                     FLARE_ERR_NOT_FOUND);
    assert_int_equal(
        flare_broker_depths(broker, &(struct flare_source){"", "mail"}, &depths, &orders_error),
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
    struct flare_broker *broker = orders_open();
    orders_connect(broker, &client);
    orders_must(flare_broker_topic_put(broker, "orders", &topic, &orders_error));
    orders_must(flare_broker_subscription_put(broker, &orders_source, &sub, &orders_error));
    assert_int_equal(http_client_do(&client, "GET", "/v1/topics/orders"), 200);
    assert_non_null(strstr(client.body, "\"shards\":1,"));
    assert_non_null(strstr(client.body, "\"idempotency_window_ms\":0,"));
    assert_non_null(strstr(client.body, "\"durability\":\"relaxed\""));
    assert_int_equal(http_client_do(&client, "GET", ORDERS_SUB), 200);
    assert_non_null(strstr(client.body, "\"lease_ms\":30000,\"max_attempts\":0,"));
    orders_must(flare_broker_topic_put(broker, "new", NULL, &orders_error));
    orders_must(flare_broker_subscription_put(broker, &orders_source, NULL, &orders_error));
    assert_int_equal(http_client_do(&client, "GET", "/v1/topics/new"), 200);
    assert_non_null(strstr(client.body, "\"shards\":4,"));
    assert_non_null(strstr(client.body, "\"idempotency_window_ms\":300000,"));
    assert_non_null(strstr(client.body, "\"durability\":\"synced\""));
    assert_int_equal(http_client_do(&client, "GET", ORDERS_SUB), 200);
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
    struct flare_broker *broker = orders_open();
    topic.shards = 1;
    topic.retention_ms = 3600000;
    orders_must(flare_broker_topic_put(broker, "orders", &topic, &orders_error));
    orders_connect(broker, &client);
    orders_publish(&client, "early");
    orders_must(flare_broker_advance(broker, 1000, &orders_error));
    orders_publish(&client, "late");
    sub.start = FLARE_START_EARLIEST;
    orders_must(flare_broker_subscription_put(broker, &(struct flare_source){"orders", "all"}, &sub,
                                              &orders_error));
    sub.start = FLARE_START_TIME;
    sub.start_ms = ORDERS_START_MS + 500;
    orders_must(flare_broker_subscription_put(broker, &(struct flare_source){"orders", "some"},
                                              &sub, &orders_error));
    orders_must(flare_broker_subscription_put(broker, &(struct flare_source){"orders", "none"},
                                              NULL, &orders_error));
    struct seen seen = {0};
    orders_must(flare_broker_each_subscription(broker, note_sub, &seen, &orders_error));
    assert_string_equal(seen.text, "orders/all=2 orders/mail=2 orders/none=0 orders/some=1 ");
    assert_int_equal(http_client_do(&client, "POST", ORDERS_SUB "/pause"), 200);
    orders_must(flare_broker_subscription_put(broker, &orders_source, NULL, &orders_error));
    assert_int_equal(http_client_do(&client, "GET", ORDERS_SUB), 200);
    assert_non_null(strstr(client.body, "\"paused\""));
    http_client_deinit(&client);
    flare_broker_close(broker);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_list),
        cmocka_unit_test(test_list_of_many),
        cmocka_unit_test(test_catalog),
        cmocka_unit_test(test_wrong_settings),
        cmocka_unit_test(test_defaults_of_settings),
        cmocka_unit_test(test_start_and_pause),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
