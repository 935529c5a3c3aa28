/* A broker in another program and those who use it: simulated time, and clients in its process. */
#include <flare/broker.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "tests/lib/orders.h"

/* A lease runs out when the clock is moved there and not before; what follows from it counts from
 * its own time, so that one long step is the same as many short ones. */
static void test_advance(void **state)
{
    (void)state;
    struct http_client client;
    struct flare_broker *broker = orders_open();
    orders_connect(broker, &client);
    orders_publish(&client, "one");
    orders_check_depths(broker, (struct flare_depths){.enqueued = 1});
    assert_int_equal(orders_pull(&client), 1);
    orders_check_depths(broker, (struct flare_depths){.leased = 1});
    orders_must(flare_broker_advance(broker, ORDERS_LEASE_MS - 1, &orders_error));
    orders_check_depths(broker, (struct flare_depths){.leased = 1});
    orders_must(flare_broker_advance(broker, 1, &orders_error));
    assert_int_equal(flare_broker_now_ms(broker), ORDERS_START_MS + ORDERS_LEASE_MS);
    orders_check_depths(broker, (struct flare_depths){.scheduled = 1});
    assert_int_equal(orders_pull(&client), 0);
    orders_must(flare_broker_advance(broker, ORDERS_RETRY_MS, &orders_error));
    assert_int_equal(orders_pull(&client), 1);
    orders_must(flare_broker_advance(broker, 10 * ORDERS_LEASE_MS, &orders_error));
    orders_check_depths(broker, (struct flare_depths){.dead = 1});
    assert_int_equal(orders_pull(&client), 0);
    http_client_deinit(&client);
    flare_broker_close(broker);
}

static void test_advance_in_one_step(void **state)
{
    (void)state;
    struct http_client client;
    struct flare_broker *broker = orders_open();
    orders_connect(broker, &client);
    orders_publish(&client, "one");
    assert_int_equal(orders_pull(&client), 1);
    orders_must(flare_broker_advance(broker, ORDERS_LEASE_MS + ORDERS_RETRY_MS, &orders_error));
    assert_int_equal(orders_pull(&client), 1); /* its retry was counted from the end of the lease */
    http_client_deinit(&client);
    flare_broker_close(broker);
}

/* Simulated time ends waits and delays, and leaves connections alone. */
static void test_advance_ends_waits(void **state)
{
    (void)state;
    struct http_client waiter;
    struct http_client client;
    struct flare_broker *broker = orders_open();
    orders_connect(broker, &waiter);
    orders_connect(broker, &client);
    const struct http_client_request pull_request = {
        .method = "POST", .path = ORDERS_SUB "/pull", .body = span_text("{\"wait\":\"10s\"}")};
    const struct http_client_request delayed = {.method = "POST",
                                                .path = "/v1/topics/orders/messages",
                                                .headers = "Flare-Delay: 1h\r\n",
                                                .body = span_text("later")};
    assert_true(http_client_send(&waiter, &pull_request));
    orders_must(flare_broker_await_pulls(broker, 1, ORDERS_PULLS_MAX_MS, &orders_error));
    orders_must(flare_broker_advance(broker, 9999, &orders_error));
    assert_int_equal(flare_broker_await_pulls(broker, 2, 1, &orders_error), FLARE_ERR_TIMEOUT);
    assert_string_equal(orders_error.message, "1 of 2 pulls wait after 1 ms");
    assert_false(http_client_readable(&waiter, 0));
    orders_must(flare_broker_advance(broker, 1, &orders_error));
    assert_int_equal(http_client_receive(&waiter), 200);
    assert_non_null(strstr(waiter.body, "\"messages\":[]"));
    assert_int_equal(http_client_request(&client, &delayed), 201);
    assert_true(http_client_send(&waiter, &pull_request));
    orders_must(flare_broker_await_pulls(broker, 1, ORDERS_PULLS_MAX_MS, &orders_error));
    orders_must(flare_broker_advance(broker, 5000, &orders_error));
    assert_int_equal(orders_pull(&client), 0);
    orders_must(flare_broker_advance(broker, 3600000 - 5000, &orders_error));
    assert_int_equal(http_client_receive(&waiter), 200);
    assert_int_equal(orders_pull(&client), 1);
    http_client_deinit(&waiter);
    http_client_deinit(&client);
    flare_broker_close(broker);
}

static struct flare_client *connect_client(struct flare_broker *broker)
{
    struct flare_client *client = NULL;
    orders_must(flare_broker_connect(broker, NULL, &client, &orders_error));
    assert_non_null(client);
    return client;
}

static void client_publish(struct flare_client *client, const char *body)
{
    const struct flare_message message = {.body = body, .body_size = strlen(body)};
    orders_must(flare_publish(client, "orders", &message, NULL, &orders_error));
}

/* The client's whole way, without a socket of the network: publish, pull, lose the lease, ack. */
static void test_client_in_process(void **state)
{
    (void)state;
    struct flare_batch *batch = NULL;
    struct flare_broker *broker =
        orders_open_broker(&(struct flare_broker_options){.simulated_ms = ORDERS_START_MS});
    struct flare_client *client = connect_client(broker);
    assert_null(flare_broker_http_address(broker));
    assert_null(flare_broker_wire_address(broker));
    orders_put(broker);
    client_publish(client, "one");
    orders_must(flare_pull(client, &orders_source, NULL, &batch, &orders_error));
    assert_int_equal(flare_batch_count(batch), 1);
    const struct flare_delivery *delivery = flare_batch_get(batch, 0);
    assert_memory_equal(delivery->body, "one", 3);
    assert_int_equal(delivery->published_ms, ORDERS_START_MS);
    assert_int_equal(delivery->lease_until_ms, ORDERS_START_MS + ORDERS_LEASE_MS);
    orders_must(flare_broker_advance(broker, ORDERS_LEASE_MS, &orders_error));
    assert_int_equal(flare_batch_ack(client, batch, &orders_error), FLARE_ERR_LEASE_LOST);
    flare_batch_free(batch);
    orders_must(flare_broker_advance(broker, ORDERS_RETRY_MS, &orders_error));
    orders_must(flare_pull(client, &orders_source, NULL, &batch, &orders_error));
    assert_int_equal(flare_batch_get(batch, 0)->attempt, 2);
    orders_must(flare_batch_ack(client, batch, &orders_error));
    flare_batch_free(batch);
    orders_check_depths(broker, (struct flare_depths){0});
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
    struct flare_broker *broker = orders_open_broker(
        &(struct flare_broker_options){.wire = "127.0.0.1:0", .simulated_ms = ORDERS_START_MS});
    struct flare_client *near = connect_client(broker);
    assert_non_null(flare_broker_wire_address(broker));
    (void)snprintf(url, sizeof url, "flare://%s", flare_broker_wire_address(broker));
    orders_must(flare_connect(&(struct flare_options){.url = url}, &far, &orders_error));
    orders_put(broker);
    client_publish(far, "far");
    orders_must(flare_pull(near, &orders_source, NULL, &batch, &orders_error));
    assert_int_equal(flare_batch_count(batch), 1);
    orders_must(flare_batch_ack(far, batch, &orders_error));
    flare_batch_free(batch);
    orders_check_depths(broker, (struct flare_depths){0});
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
        orders_open_broker(&(struct flare_broker_options){.simulated_ms = ORDERS_START_MS});
    struct flare_client *client = connect_client(broker);
    const struct flare_stream_options options = {
        .handler = handle, .user = &streamed, .concurrency = 4, .prefetch = 16};
    const struct flare_message message = {.body = "x", .body_size = 1};
    orders_put(broker);
    orders_must(flare_stream_open(client, &orders_source, &options, &stream, &orders_error));
    for (int index = 0; index < STREAMED; index++) {
        orders_must(flare_publish_async(client, "orders", &message, NULL, NULL, &orders_error));
    }
    pthread_mutex_lock(&streamed.lock);
    while (streamed.count < STREAMED) {
        pthread_cond_wait(&streamed.changed, &streamed.lock);
    }
    pthread_mutex_unlock(&streamed.lock);
    flare_stream_close(stream);
    orders_check_depths(broker, (struct flare_depths){0});
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
    assert_int_equal(flare_pull(waited->client, &orders_source, &options, &batch, NULL), FLARE_OK);
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
    struct flare_broker *broker = orders_open_broker(&(struct flare_broker_options){
        .simulated_ms = ORDERS_START_MS, .settings = "wait-max = 4s\n"});
    struct waited waited = {.client = connect_client(broker), .count = 7};
    orders_put(broker);
    assert_int_equal(pthread_create(&thread, NULL, wait_for_one, &waited), 0);
    for (int part = 0; part < 2; part++) {
        orders_must(flare_broker_await_pulls(broker, 1, ORDERS_PULLS_MAX_MS, &orders_error));
        orders_must(flare_broker_advance(broker, 4000, &orders_error));
    }
    orders_must(flare_broker_await_pulls(broker, 1, ORDERS_PULLS_MAX_MS, &orders_error));
    orders_must(flare_broker_advance(broker, 1999, &orders_error));
    assert_int_equal(flare_broker_await_pulls(broker, 1, 0, &orders_error), FLARE_OK);
    orders_must(flare_broker_advance(broker, 1, &orders_error));
    pthread_join(thread, NULL);
    assert_int_equal(waited.count, 0);
    flare_close(waited.client);
    flare_broker_close(broker);
}

/* Where nobody may wait a pull is answered at once. */
static void test_client_cannot_wait(void **state)
{
    (void)state;
    struct flare_broker *broker = orders_open_broker(&(struct flare_broker_options){
        .simulated_ms = ORDERS_START_MS, .settings = "wait-max = 0\n"});
    struct waited waited = {.client = connect_client(broker), .count = 7};
    orders_put(broker);
    (void)wait_for_one(&waited);
    assert_int_equal(waited.count, 0);
    flare_close(waited.client);
    flare_broker_close(broker);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_advance),
        cmocka_unit_test(test_advance_in_one_step),
        cmocka_unit_test(test_advance_ends_waits),
        cmocka_unit_test(test_client_in_process),
        cmocka_unit_test(test_clients_of_both_kinds),
        cmocka_unit_test(test_stream_in_process),
        cmocka_unit_test(test_client_waits_by_simulated_clock),
        cmocka_unit_test(test_client_cannot_wait),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
