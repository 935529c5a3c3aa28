#include "tests/lib/orders.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

const struct flare_source orders_source = {.topic = "orders", .subscription = "mail"};
struct flare_error orders_error;

void orders_must(enum flare_code code)
{
    if (code != FLARE_OK) {
        print_error("%s: %s\n", flare_code_name(code), orders_error.message);
    }
    assert_int_equal(code, FLARE_OK);
}

struct flare_broker *orders_open_broker(const struct flare_broker_options *options)
{
    struct flare_broker *broker = NULL;
    orders_must(flare_broker_open(options, &broker, &orders_error));
    assert_non_null(broker);
    return broker;
}

void orders_put(struct flare_broker *broker)
{
    struct flare_topic topic = {0};
    struct flare_subscription sub = {0};
    topic.shards = 1;
    sub.lease_ms = ORDERS_LEASE_MS;
    sub.retry_delay_ms = ORDERS_RETRY_MS;
    sub.max_attempts = 2;
    orders_must(flare_broker_topic_put(broker, "orders", &topic, &orders_error));
    orders_must(flare_broker_subscription_put(broker, &orders_source, &sub, &orders_error));
}

struct flare_broker *orders_open(void)
{
    struct flare_broker *broker = orders_open_broker(
        &(struct flare_broker_options){.http = "127.0.0.1:0", .simulated_ms = ORDERS_START_MS});
    orders_put(broker);
    return broker;
}

void orders_connect(const struct flare_broker *broker, struct http_client *client)
{
    const char *address = flare_broker_http_address(broker);
    assert_non_null(address);
    http_client_init(client, (uint16_t)strtoul(strrchr(address, ':') + 1, NULL, 10));
}

void orders_publish(struct http_client *client, const char *body)
{
    const struct http_client_request request = {
        .method = "POST", .path = "/v1/topics/orders/messages", .body = span_text(body)};
    assert_int_equal(http_client_request(client, &request), 201);
}

size_t orders_pull(struct http_client *client)
{
    assert_int_equal(http_client_json(client, "POST", ORDERS_SUB "/pull", "{\"max\":10}"), 200);
    json_t *document = http_client_document(client);
    size_t count = json_array_size(json_object_get(document, "messages"));
    json_decref(document);
    return count;
}

void orders_check_depths(struct flare_broker *broker, struct flare_depths expected)
{
    struct flare_depths depths;
    orders_must(flare_broker_depths(broker, &orders_source, &depths, &orders_error));
    assert_int_equal(depths.enqueued, expected.enqueued);
    assert_int_equal(depths.leased, expected.leased);
    assert_int_equal(depths.scheduled, expected.scheduled);
    assert_int_equal(depths.dead, expected.dead);
}
