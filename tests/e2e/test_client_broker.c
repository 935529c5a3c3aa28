/* The C library against the real broker. */
#include <netdb.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/client_scene.h"

static const struct flare_source *const source = &client_scene_source;

static struct flare_batch *pull(struct client_scene *scene, const struct flare_pull *options)
{
    struct flare_batch *batch = NULL;
    struct flare_error error = {0};
    if (flare_pull(scene->client, source, options, &batch, &error) != FLARE_OK) {
        fail_msg("cannot pull: %s", error.message);
    }
    return batch;
}

/* ---- requests ---------------------------------------------------------------------------------
 */

static void test_addresses(void **state)
{
    (void)state;
    struct client_scene scene;
    struct flare_error error = {0};
    char url[64];
    client_scene_init(&scene, NULL, NULL, NULL);
    static const char *const forms[] = {"127.0.0.1:%u", "flare://127.0.0.1:%u", "localhost:%u"};
    struct addrinfo *found = NULL;
    /* A minimal system knows no names, not even its own. */
    size_t count = getaddrinfo("localhost", NULL, NULL, &found) == 0 ? 3 : 2;
    if (found != NULL) {
        freeaddrinfo(found);
    }
    for (size_t index = 0; index < count; index++) {
        struct flare_client *client = NULL;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        (void)snprintf(url, sizeof url, forms[index], scene.scene.broker.wire_port);
#pragma GCC diagnostic pop
        const struct flare_options options = {.url = url, .name = "test"};
        if (flare_connect(&options, &client, &error) != FLARE_OK) {
            fail_msg("%s: %s", url, error.message);
        }
        assert_int_equal(flare_ping(client, &error), FLARE_OK);
        flare_close(client);
    }
    const struct flare_options nowhere = {.url = "no-such-host.invalid:1"};
    struct flare_client *client = NULL;
    assert_int_equal(flare_connect(&nowhere, &client, &error), FLARE_ERR_UNAVAILABLE);
    assert_non_null(strstr(error.message, "no-such-host.invalid"));
    client_scene_deinit(&scene);
}

static void test_configure(void **state)
{
    (void)state;
    struct client_scene scene;
    struct flare_error error;
    bool created = false;
    const struct flare_source other = {"orders", "billing"};
    const struct flare_topic topic = {.shards = 3, .idempotency_window_ms = FLARE_NONE};
    const struct flare_topic regrown = {.shards = 4};
    const struct flare_subscription sub = {
        .lease_ms = 5000, .max_attempts = FLARE_NONE_U32, .retry_delay_ms = 7};
    client_scene_init(&scene, NULL, NULL, NULL);
    assert_int_equal(flare_subscription_put(scene.client, &other, NULL, NULL, &error),
                     FLARE_ERR_NOT_FOUND);
    assert_int_equal(flare_topic_put(scene.client, "orders", &topic, &created, &error), FLARE_OK);
    assert_true(created);
    assert_int_equal(flare_topic_put(scene.client, "orders", &topic, &created, &error), FLARE_OK);
    assert_false(created);
    assert_int_not_equal(flare_topic_put(scene.client, "orders", &regrown, NULL, &error), FLARE_OK);
    assert_int_equal(flare_subscription_put(scene.client, &other, &sub, &created, &error),
                     FLARE_OK);
    assert_true(created);
    scene_expect(&scene.scene.client, 200, "GET", "/v1/topics/orders", NULL);
    assert_int_equal(scene_number(&scene.scene.client, "shards"), 3);
    assert_int_equal(scene_number(&scene.scene.client, "idempotency_window_ms"), 0);
    scene_expect(&scene.scene.client, 200, "GET", "/v1/topics/orders/subscriptions/billing", NULL);
    assert_int_equal(scene_number(&scene.scene.client, "lease_ms"), 5000);
    assert_int_equal(scene_number(&scene.scene.client, "max_attempts"), 0);
    assert_int_equal(scene_number(&scene.scene.client, "retry.delay_ms"), 7);
    client_scene_deinit(&scene);
}

/* What is published comes out as it went in. */
static void test_message(void **state)
{
    (void)state;
    struct client_scene scene;
    struct flare_error error;
    struct flare_result result;
    char value[32];
    const struct flare_attribute attributes[] = {{"color", "red"}, {"n", "1"}};
    const struct flare_message message = {.body = "hello",
                                          .body_size = 5,
                                          .key = "customer-7",
                                          .idempotency_key = "once",
                                          .attributes = attributes,
                                          .attribute_count = 2};
    client_scene_init(&scene, NULL, NULL, NULL);
    assert_int_equal(flare_publish(scene.client, "t", &message, &result, &error), FLARE_OK);
    assert_false(result.replayed);
    assert_false(result.relaxed);
    assert_int_equal(strlen(result.id), 24);
    char id[FLARE_ID_SIZE];
    memcpy(id, result.id, sizeof id);
    assert_int_equal(flare_publish(scene.client, "t", &message, &result, &error), FLARE_OK);
    assert_true(result.replayed);
    assert_string_equal(result.id, id);
    struct flare_batch *batch = pull(&scene, &(struct flare_pull){.max = 10});
    assert_int_equal(flare_batch_count(batch), 1);
    const struct flare_delivery *delivery = flare_batch_get(batch, 0);
    assert_string_equal(delivery->id, id);
    assert_int_equal(delivery->body_size, 5);
    assert_memory_equal(delivery->body, "hello", 5);
    assert_int_equal(delivery->key_size, 10);
    assert_memory_equal(delivery->key, "customer-7", 10);
    assert_int_equal(delivery->attempt, 1);
    assert_int_equal(delivery->sequence, result.sequence);
    assert_int_equal(delivery->shard, result.shard);
    assert_true(flare_delivery_attribute(delivery, "color", value, sizeof value));
    assert_string_equal(value, "red");
    assert_int_equal(flare_extend(scene.client, source, 1000, &delivery->receipt, 1, &error),
                     FLARE_OK);
    assert_int_equal(flare_batch_ack(scene.client, batch, &error), FLARE_OK);
    assert_int_equal(flare_batch_ack(scene.client, batch, &error), FLARE_ERR_LEASE_LOST);
    flare_batch_free(batch);
    client_scene_deinit(&scene);
}

static void test_nack_and_reject(void **state)
{
    (void)state;
    struct client_scene scene;
    struct flare_error error;
    const struct flare_message message = {.body = "job", .body_size = 3};
    const struct flare_nack now = {.has_delay = true, .delay_ms = 0};
    const struct flare_nack reject = {.reject = true, .reason = "no good"};
    client_scene_init(&scene, NULL, NULL, NULL);
    assert_int_equal(flare_publish(scene.client, "t", &message, NULL, &error), FLARE_OK);
    for (uint32_t attempt = 1; attempt <= 3; attempt++) {
        struct flare_batch *batch = pull(&scene, &(struct flare_pull){.wait_ms = 5000});
        assert_int_equal(flare_batch_count(batch), 1);
        const struct flare_delivery *delivery = flare_batch_get(batch, 0);
        assert_int_equal(delivery->attempt, attempt);
        assert_int_equal(flare_nack(scene.client, &delivery->source, attempt < 3 ? &now : &reject,
                                    &delivery->receipt, 1, &error),
                         FLARE_OK);
        flare_batch_free(batch);
    }
    scene_expect(&scene.scene.client, 200, "GET", SCENE_SUB "/messages?state=dead", NULL);
    assert_non_null(strstr(scene.scene.client.body, "\"no good\""));
    client_scene_deinit(&scene);
}

static void test_limits(void **state)
{
    (void)state;
    struct client_scene scene;
    struct flare_error error;
    struct flare_limits limits;
    struct flare_batch *batch = NULL;
    struct flare_result results[2];
    const struct flare_source nobody = {"t", "nobody"};
    const struct flare_message message = {.body = "x", .body_size = 1};
    const struct flare_message twins[] = {{.body = "x", .body_size = 1, .idempotency_key = "twin"},
                                          {.body = "y", .body_size = 1, .idempotency_key = "twin"}};
    const struct flare_messages messages = {.items = twins, .count = 2};
    client_scene_init(&scene, NULL, NULL, NULL);
    flare_get_limits(scene.client, &limits);
    assert_int_equal(limits.message_size_max, 1 << 20);
    char *large = calloc(1, limits.message_size_max + 1);
    assert_non_null(large);
    const struct flare_message huge = {.body = large, .body_size = limits.message_size_max};
    const struct flare_message over = {.body = large, .body_size = limits.message_size_max + 1};
    assert_int_equal(flare_publish(scene.client, "t", &huge, NULL, &error), FLARE_OK);
    assert_int_equal(flare_publish(scene.client, "t", &over, NULL, &error), FLARE_ERR_TOO_LARGE);
    free(large);
    assert_int_equal(flare_publish(scene.client, "nothing", &message, NULL, &error),
                     FLARE_ERR_NOT_FOUND);
    assert_true(strlen(error.message) > 0);
    assert_int_equal(flare_pull(scene.client, &nobody, NULL, &batch, &error), FLARE_ERR_NOT_FOUND);
    assert_int_equal(flare_publish_batch(scene.client, "t", &messages, results, &error),
                     FLARE_ERR_IDEMPOTENCY_REUSED);
    assert_int_equal(results[0].code, FLARE_OK);
    assert_int_equal(results[1].code, FLARE_ERR_IDEMPOTENCY_REUSED);
    client_scene_deinit(&scene);
}

/* A pull waits as long as it is told, and is woken by a message. */
static void test_waiting_pull(void **state)
{
    (void)state;
    struct client_scene scene;
    struct flare_error error;
    const struct flare_message message = {.body = "x", .body_size = 1};
    client_scene_init(&scene, NULL, NULL, NULL);
    struct flare_batch *batch = pull(&scene, &(struct flare_pull){.wait_ms = 50});
    assert_int_equal(flare_batch_count(batch), 0);
    flare_batch_free(batch);
    struct flare_client *other = client_scene_connect(&scene);
    assert_int_equal(flare_publish_async(other, "t", &message, NULL, NULL, &error), FLARE_OK);
    batch = pull(&scene, &(struct flare_pull){.wait_ms = 60000});
    assert_int_equal(flare_batch_count(batch), 1);
    flare_batch_free(batch);
    flare_close(other);
    client_scene_deinit(&scene);
}

/* ---- streams ----------------------------------------------------------------------------------
 */

enum { STREAM_COUNT = 5000 };

/* Its tally counts messages seen for the first time. */
struct consumer {
    pthread_mutex_t lock;
    struct client_census census;
    struct client_tally tally;
};

static void consumer_init(struct consumer *consumer, uint32_t count)
{
    assert_int_equal(pthread_mutex_init(&consumer->lock, NULL), 0);
    client_census_init(&consumer->census, count);
    client_tally_init(&consumer->tally);
}

static void consumer_deinit(struct consumer *consumer)
{
    (void)pthread_mutex_destroy(&consumer->lock);
    client_census_deinit(&consumer->census);
    client_tally_deinit(&consumer->tally);
}

static enum flare_verdict consume(void *user, const struct flare_delivery *delivery)
{
    struct consumer *consumer = user;
    (void)pthread_mutex_lock(&consumer->lock);
    bool is_new = client_census_add(&consumer->census, delivery);
    (void)pthread_mutex_unlock(&consumer->lock);
    if (is_new || consumer->census.count == 0) {
        client_tally_add(&consumer->tally);
    }
    return FLARE_ACK;
}

static struct flare_stream *open_stream(struct flare_client *client,
                                        const struct flare_stream_options *options)
{
    struct flare_stream *stream = NULL;
    struct flare_error error = {0};
    if (flare_stream_open(client, source, options, &stream, &error) != FLARE_OK) {
        fail_msg("cannot open a stream: %s", error.message);
    }
    return stream;
}

/* Two streams with several handlers each share the messages: every one comes once. */
static void test_streams_share(void **state)
{
    (void)state;
    struct client_scene scene;
    struct consumer consumer;
    struct client_tally published;
    struct flare_stream *streams[2];
    client_scene_init(&scene, NULL, NULL, NULL);
    struct flare_client *other = client_scene_connect(&scene);
    consumer_init(&consumer, STREAM_COUNT);
    client_tally_init(&published);
    const struct flare_stream_options options = {.handler = consume,
                                                 .user = &consumer,
                                                 .concurrency = 3,
                                                 .prefetch = 100,
                                                 .consumer = "worker"};
    streams[0] = open_stream(scene.client, &options);
    streams[1] = open_stream(other, &options);
    client_scene_publish_numbers(&scene, &published, 0, STREAM_COUNT);
    client_tally_wait(&consumer.tally, STREAM_COUNT);
    client_tally_wait(&published, STREAM_COUNT);
    flare_stream_close(streams[0]);
    flare_close(other); /* closes the second */
    client_census_expect_once(&consumer.census);
    struct flare_batch *batch = pull(&scene, NULL);
    assert_int_equal(flare_batch_count(batch), 0);
    flare_batch_free(batch);
    scene_expect(&scene.scene.client, 200, "GET", SCENE_SUB, NULL);
    assert_int_equal(scene_number(&scene.scene.client, "enqueue_queue.depth"), 0);
    assert_int_equal(scene_number(&scene.scene.client, "delivery_queue.leased"), 0);
    client_tally_deinit(&published);
    consumer_deinit(&consumer);
    client_scene_deinit(&scene);
}

/* Attributes count against the byte credit as the broker counts them, or it would run dry. */
static void test_byte_credit(void **state)
{
    (void)state;
    struct client_scene scene;
    struct consumer consumer;
    struct client_tally published;
    static char body[3000];
    static const struct flare_attribute attributes[] = {
        {"a", "b"}, {"c", "d"}, {"e", "f"}, {"long-name-of-an-attribute", "value"}};
    const struct flare_message message = {.body = body,
                                          .body_size = sizeof body,
                                          .key = "key",
                                          .attributes = attributes,
                                          .attribute_count = 4};
    client_scene_init(&scene, NULL, NULL, NULL);
    consumer_init(&consumer, 0);
    client_tally_init(&published);
    const struct flare_stream_options options = {
        .handler = consume, .user = &consumer, .prefetch = 20, .bytes = 4096};
    struct flare_stream *stream = open_stream(scene.client, &options);
    for (uint32_t index = 0; index < 2000; index++) {
        struct flare_error error;
        assert_int_equal(flare_publish_async(scene.client, "t", &message, client_tally_on_published,
                                             &published, &error),
                         FLARE_OK);
    }
    client_tally_wait(&consumer.tally, 2000);
    flare_stream_close(stream);
    client_tally_wait(&published, 2000);
    client_tally_deinit(&published);
    consumer_deinit(&consumer);
    client_scene_deinit(&scene);
}

struct slow {
    struct client_tally extended; /* counts frames */
    struct client_tally handled;
    _Atomic bool is_lost;
};

static void on_trace(void *user, bool is_sent, const char *line)
{
    struct slow *slow = user;
    if (is_sent && strncmp(line, "extend ", 7) == 0) {
        client_tally_add(&slow->extended);
    }
}

/* Takes longer than a lease, which is extended when half of it is over. */
static enum flare_verdict handle_slowly(void *user, const struct flare_delivery *delivery)
{
    struct slow *slow = user;
    client_tally_wait(&slow->extended, 3);
    atomic_store(&slow->is_lost, flare_delivery_lost(delivery));
    client_tally_add(&slow->handled);
    return FLARE_ACK;
}

static void test_long_handlers(void **state)
{
    (void)state;
    struct client_scene scene;
    struct slow slow = {0};
    struct flare_error error;
    struct flare_stream_counts counts;
    const struct flare_message message = {.body = "x", .body_size = 1};
    const struct flare_options options = {.trace = on_trace, .user = &slow};
    client_tally_init(&slow.extended);
    client_tally_init(&slow.handled);
    client_scene_init(&scene, NULL, "{\"lease\":\"4s\"}", &options);
    const struct flare_stream_options stream_options = {.handler = handle_slowly, .user = &slow};
    struct flare_stream *stream = open_stream(scene.client, &stream_options);
    assert_int_equal(flare_publish(scene.client, "t", &message, NULL, &error), FLARE_OK);
    client_tally_wait(&slow.handled, 1);
    do {
        flare_stream_get_counts(stream, &counts);
    } while (counts.acked + counts.lost == 0);
    assert_int_equal(counts.acked, 1);
    assert_int_equal(counts.delivered, 1);
    assert_false(atomic_load(&slow.is_lost));
    flare_stream_close(stream);
    client_scene_deinit(&scene);
    client_tally_deinit(&slow.extended);
    client_tally_deinit(&slow.handled);
}

struct ending {
    struct client_tally tally;
    enum flare_code code;
};

static void on_end(void *user, const struct flare_error *error)
{
    struct ending *ending = user;
    ending->code = error->code;
    client_tally_add(&ending->tally);
}

/* A stream of nothing is refused, and one whose subscription goes says so. */
static void test_stream_ends(void **state)
{
    (void)state;
    struct client_scene scene;
    struct ending ending = {0};
    struct flare_stream *stream = NULL;
    struct flare_error error;
    const struct flare_source nobody = {"t", "nobody"};
    const struct flare_stream_options options = {
        .handler = consume, .user = &ending, .on_end = on_end};
    client_tally_init(&ending.tally);
    client_scene_init(&scene, NULL, NULL, NULL);
    assert_int_equal(flare_stream_open(scene.client, &nobody, &options, &stream, &error),
                     FLARE_ERR_NOT_FOUND);
    stream = open_stream(scene.client, &options);
    scene_expect(&scene.scene.client, 204, "DELETE", SCENE_SUB, NULL);
    client_tally_wait(&ending.tally, 1);
    assert_int_equal(ending.code, FLARE_ERR_NOT_FOUND);
    flare_stream_close(stream);
    client_scene_deinit(&scene);
    client_tally_deinit(&ending.tally);
}

/* ---- restarts ---------------------------------------------------------------------------------
 */

/* The broker stops and starts in the middle of publishing and consuming: every message is there
 * once, and the stream goes on by itself. */
static void test_restarts(void **state)
{
    (void)state;
    enum { ROUNDS = 6, ROUND = 2000, COUNT = ROUNDS * ROUND };
    struct client_scene scene;
    struct consumer consumer;
    struct client_tally published;
    client_scene_init(&scene, NULL, "{\"lease\":\"1s\"}", NULL);
    consumer_init(&consumer, COUNT);
    client_tally_init(&published);
    const struct flare_stream_options options = {
        .handler = consume, .user = &consumer, .concurrency = 2, .prefetch = 50};
    struct flare_stream *stream = open_stream(scene.client, &options);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        client_scene_publish_numbers(&scene, &published, round * ROUND, (round + 1) * ROUND);
        client_tally_wait(&published, round * ROUND + 300 * round);
        client_scene_restart(&scene, round % 2 == 1);
    }
    client_tally_wait(&published, COUNT);
    assert_int_equal(published.failed, 0);
    client_tally_wait(&consumer.tally, COUNT);
    flare_stream_close(stream);
    /* Deliveries may repeat, as always; what is in the log does not. */
    assert_int_equal(consumer.census.others, 0);
    scene_expect(&scene.scene.client, 200, "GET", SCENE_TOPIC "/shards", NULL);
    json_t *shards = http_client_document(&scene.scene.client);
    json_int_t sequences = 0;
    for (size_t index = 0; index < json_array_size(json_object_get(shards, "items")); index++) {
        json_t *shard = json_array_get(json_object_get(shards, "items"), index);
        sequences += json_integer_value(json_object_get(shard, "next_sequence"));
    }
    json_decref(shards);
    assert_int_equal(sequences, COUNT);
    client_tally_deinit(&published);
    consumer_deinit(&consumer);
    client_scene_deinit(&scene);
}

/* ---- threads ----------------------------------------------------------------------------------
 */

enum { THREADS = 8, THREAD_COUNT = 150 };

struct worker {
    struct client_scene *scene;
    struct client_tally *tally;
    uint32_t index;
    uint32_t failures;
    pthread_t thread;
};

/* Everything that the library has, from one of many threads, with one client. */
static void *work(void *context)
{
    struct worker *worker = context;
    struct flare_client *client = worker->scene->client;
    uint32_t first = worker->index * THREAD_COUNT;
    for (uint32_t number = first; number < first + THREAD_COUNT; number++) {
        char body[16];
        struct flare_limits limits;
        struct flare_batch *batch = NULL;
        int size = snprintf(body, sizeof body, "%u", number);
        const struct flare_message message = {.body = body, .body_size = (size_t)size};
        enum flare_code code = FLARE_OK;
        if (number % 5 == 0) {
            code = flare_publish(client, "t", &message, NULL, NULL);
            client_tally_add(worker->tally);
        } else {
            code = flare_publish_async(client, "t", &message, client_tally_on_published,
                                       worker->tally, NULL);
        }
        worker->failures += code != FLARE_OK;
        if (number % 16 == 0) {
            flare_get_limits(client, &limits);
            worker->failures += flare_ping(client, NULL) != FLARE_OK;
            worker->failures += flare_flush(client, 0, NULL) != FLARE_OK;
            worker->failures += flare_topic_put(client, "u", NULL, NULL, NULL) != FLARE_OK;
            code =
                flare_pull(client, &(const struct flare_source){"t", "other"}, NULL, &batch, NULL);
            worker->failures += code != FLARE_OK;
            if (batch != NULL) {
                worker->failures += flare_batch_ack(client, batch, NULL) != FLARE_OK;
            }
            flare_batch_free(batch);
        }
    }
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    struct client_scene scene;
    struct consumer consumer;
    struct client_tally published;
    struct worker workers[THREADS];
    client_scene_init(&scene, NULL, NULL, NULL);
    scene_expect(&scene.scene.client, 201, "PUT", SCENE_TOPIC "/subscriptions/other", "{}");
    consumer_init(&consumer, THREADS * THREAD_COUNT);
    client_tally_init(&published);
    const struct flare_stream_options options = {
        .handler = consume, .user = &consumer, .concurrency = 4, .prefetch = 10};
    struct flare_stream *stream = open_stream(scene.client, &options);
    for (uint32_t index = 0; index < THREADS; index++) {
        workers[index] = (struct worker){.scene = &scene, .tally = &published, .index = index};
        assert_int_equal(pthread_create(&workers[index].thread, NULL, work, &workers[index]), 0);
    }
    for (uint32_t index = 0; index < THREADS; index++) {
        assert_int_equal(pthread_join(workers[index].thread, NULL), 0);
        assert_int_equal(workers[index].failures, 0);
    }
    client_tally_wait(&published, THREADS * THREAD_COUNT);
    client_tally_wait(&consumer.tally, THREADS * THREAD_COUNT);
    assert_int_equal(published.failed, 0);
    flare_stream_close(stream);
    client_census_expect_once(&consumer.census);
    client_tally_deinit(&published);
    consumer_deinit(&consumer);
    client_scene_deinit(&scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_addresses),     cmocka_unit_test(test_configure),
        cmocka_unit_test(test_message),       cmocka_unit_test(test_nack_and_reject),
        cmocka_unit_test(test_limits),        cmocka_unit_test(test_waiting_pull),
        cmocka_unit_test(test_streams_share), cmocka_unit_test(test_byte_credit),
        cmocka_unit_test(test_long_handlers), cmocka_unit_test(test_stream_ends),
        cmocka_unit_test(test_restarts),      cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
