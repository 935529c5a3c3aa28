#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <string.h>

#include "tests/lib/client_fixture.h"

static const struct flare_source source = {"t", "s"};

static void on_pulled(void *user, struct flare_batch *batch, const struct flare_error *error)
{
    struct client_box *box = user;
    (void)pthread_mutex_lock(&box->lock);
    box->batch = batch;
    (void)pthread_mutex_unlock(&box->lock);
    client_box_put(box, error == NULL ? FLARE_OK : error->code, error);
}

static void on_settled(void *user, const enum flare_code *codes, size_t count,
                       const struct flare_error *error)
{
    if (codes == NULL) {
        client_box_put(user, error->code, error);
    }
    for (size_t index = 0; index < count && codes != NULL; index++) {
        client_box_put(user, codes[index], NULL);
    }
}

static void begin_pull(struct client_fixture *fixture, const struct flare_pull *options)
{
    assert_int_equal(
        flare_pull_async(fixture->client, &source, options, on_pulled, &fixture->box, NULL),
        FLARE_OK);
}

static void expect_pull(struct client_fixture *fixture, struct wire_frame *frame)
{
    fake_broker_expect(&fixture->fake, WIRE_pull, frame);
    assert_true(span_is(frame->pull.topic, "t"));
    assert_true(span_is(frame->pull.subscription, "s"));
}

/* ---- pulling ----------------------------------------------------------------------------------
 */

static void test_pull(void **state)
{
    (void)state;
    struct client_fixture fixture;
    struct wire_frame frame;
    const struct flare_pull options = {.max = 3, .max_bytes = 4, .lease_ms = 500, .consumer = "me"};
    client_fixture_init(&fixture);
    client_fixture_connect(&fixture);
    begin_pull(&fixture, &options);
    expect_pull(&fixture, &frame);
    assert_int_equal(frame.pull.max, 3);
    assert_int_equal(frame.pull.max_bytes, 4);
    assert_int_equal(frame.pull.wait_ms, 0);
    assert_int_equal(frame.pull.lease_ms, 500);
    assert_true(span_is(frame.pull.consumer, "me"));
    fake_broker_deliver(&fixture.fake, WIRE_pulled, frame.id, 0, 2);
    client_box_wait(&fixture.box, 1);
    assert_int_equal(flare_batch_count(fixture.box.batch), 2);
    const struct flare_delivery *delivery = flare_batch_get(fixture.box.batch, 1);
    assert_int_equal(delivery->body_size, 2);
    assert_memory_equal(delivery->body, "m1", 2);
    assert_string_equal(delivery->source.topic, "t");
    assert_string_equal(delivery->source.subscription, "s");
    assert_int_equal(delivery->shard, 3);
    assert_int_equal(delivery->sequence, 1);
    assert_int_equal(delivery->attempt, 1);
    assert_int_equal(delivery->epoch, 7);
    assert_int_equal(delivery->receipt.size, 2);
    assert_false(flare_delivery_lost(delivery));
    assert_null(flare_batch_get(fixture.box.batch, 2));
    flare_batch_free(fixture.box.batch);
    flare_batch_free(NULL);
    client_fixture_deinit(&fixture);
}

static void test_attributes(void **state)
{
    (void)state;
    char value[8] = "unset";
    const struct flare_delivery delivery = {.attributes = "\xa1"
                                                          "a\xa3"
                                                          "one\xa2"
                                                          "bb\xa5"
                                                          "three",
                                            .attributes_size = 15,
                                            .attribute_count = 2};
    assert_false(flare_delivery_attribute(&delivery, "b", value, sizeof value));
    assert_string_equal(value, "unset");
    assert_true(flare_delivery_attribute(&delivery, "bb", value, sizeof value));
    assert_string_equal(value, "three");
    assert_true(flare_delivery_attribute(&delivery, "a", value, 3));
    assert_string_equal(value, "on");
    assert_true(flare_delivery_attribute(&delivery, "a", NULL, 0));
}

static void *answer_pull(void *context)
{
    struct fake_broker *fake = context;
    struct wire_frame frame;
    fake_broker_expect(fake, WIRE_pull, &frame);
    fake_broker_deliver(fake, WIRE_pulled, frame.id, 0, 1);
    return NULL;
}

/* A wait that knows no end has one no sooner than the others: its message is not given to somebody
 * who has left. */
static void test_endless_wait(void **state)
{
    (void)state;
    static const uint64_t waits_ms[] = {UINT64_MAX, UINT64_MAX - 29999};
    struct client_fixture fixture;
    client_fixture_init(&fixture);
    client_fixture_connect(&fixture);
    for (size_t index = 0; index < 2; index++) {
        const struct flare_pull options = {.wait_ms = waits_ms[index]};
        struct flare_batch *batch = NULL;
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, answer_pull, &fixture.fake), 0);
        assert_int_equal(flare_pull(fixture.client, &source, &options, &batch, NULL), FLARE_OK);
        assert_int_equal(pthread_join(thread, NULL), 0);
        assert_int_equal(flare_batch_count(batch), 1);
        flare_batch_free(batch);
    }
    client_fixture_deinit(&fixture);
}

/* A wait that the broker cuts is asked for again, for what is left of it. */
static void test_long_wait(void **state)
{
    (void)state;
    struct client_fixture fixture;
    struct wire_frame frame;
    const struct flare_pull options = {.wait_ms = 100000};
    client_fixture_init(&fixture);
    client_fixture_connect(&fixture);
    begin_pull(&fixture, &options);
    for (uint32_t round = 0; round < 3; round++) {
        expect_pull(&fixture, &frame);
        assert_int_equal(frame.pull.max, 1);
        assert_true(frame.pull.wait_ms > 50000 && frame.pull.wait_ms <= 100000);
        if (round < 2) {
            fake_broker_deliver(&fixture.fake, WIRE_pulled, frame.id, 0, 0);
        }
    }
    fake_broker_deliver(&fixture.fake, WIRE_pulled, frame.id, 0, 1);
    client_box_wait(&fixture.box, 1);
    assert_int_equal(flare_batch_count(fixture.box.batch), 1);
    flare_batch_free(fixture.box.batch);
    client_fixture_deinit(&fixture);
}

/* Over a connection that breaks, and a broker that stops, it asks again. */
static void test_pull_survives(void **state)
{
    (void)state;
    struct client_fixture fixture;
    struct wire_frame frame;
    const struct wire_goodbye goodbye = {0};
    const struct flare_pull options = {.wait_ms = 100000};
    client_fixture_init(&fixture);
    client_fixture_connect(&fixture);
    begin_pull(&fixture, &options);
    expect_pull(&fixture, &frame);
    fake_broker_cut(&fixture.fake);
    fake_broker_accept(&fixture.fake);
    expect_pull(&fixture, &frame);
    fake_broker_send(&fixture.fake, WIRE_goodbye, &goodbye);
    fake_broker_fail(&fixture.fake, frame.id, FLARE_ERR_UNAVAILABLE);
    fake_broker_cut(&fixture.fake);
    fake_broker_accept(&fixture.fake);
    expect_pull(&fixture, &frame);
    fake_broker_fail(&fixture.fake, frame.id, FLARE_ERR_NOT_FOUND);
    client_box_wait(&fixture.box, 1);
    assert_int_equal(fixture.box.codes[0], FLARE_ERR_NOT_FOUND);
    assert_null(fixture.box.batch);
    client_fixture_deinit(&fixture);
}

/* Pulls that wait leave half of the broker's window to the rest. */
static void test_waiting_pulls_leave_room(void **state)
{
    (void)state;
    struct client_fixture fixture;
    struct wire_frame first;
    struct wire_frame frame;
    const struct flare_pull options = {.wait_ms = 100000};
    client_fixture_init(&fixture);
    fixture.fake.welcome.window_requests = 4;
    client_fixture_connect(&fixture);
    for (uint32_t index = 0; index < 4; index++) {
        begin_pull(&fixture, &options);
    }
    expect_pull(&fixture, &first);
    expect_pull(&fixture, &frame);
    assert_true(fake_broker_is_quiet(&fixture.fake, 30));
    client_fixture_publish(&fixture, "t", NULL, "x");
    fake_broker_expect(&fixture.fake, WIRE_publish, &frame);
    fake_broker_fail(&fixture.fake, first.id, FLARE_ERR_NOT_FOUND);
    expect_pull(&fixture, &frame);
    fake_broker_cut(&fixture.fake);
    fake_broker_accept(&fixture.fake);
    for (uint32_t seen = 0; seen < 3; seen++) {
        struct wire_frame any;
        fake_broker_expect_any(&fixture.fake, &any);
        assert_true(any.type == WIRE_publish || any.type == WIRE_pull);
    }
    assert_true(fake_broker_is_quiet(&fixture.fake, 30));
    client_fixture_deinit(&fixture);
    assert_int_equal(fixture.box.count, 5);
}

static void test_wrong_pull_options(void **state)
{
    (void)state;
    struct client_fixture fixture;
    struct flare_error error;
    const struct flare_source bad = {"t", "a/b"};
    const struct flare_source missing = {"t", NULL};
    const struct flare_pull options = {.consumer = "\x01"};
    client_fixture_init(&fixture);
    client_fixture_connect(&fixture);
    assert_int_equal(flare_pull_async(fixture.client, &bad, NULL, on_pulled, NULL, &error),
                     FLARE_ERR_INVALID);
    assert_int_equal(flare_pull_async(fixture.client, &missing, NULL, on_pulled, NULL, &error),
                     FLARE_ERR_INVALID);
    assert_int_equal(flare_pull_async(fixture.client, &source, &options, on_pulled, NULL, &error),
                     FLARE_ERR_INVALID);
    client_fixture_deinit(&fixture);
}

/* ---- settling ---------------------------------------------------------------------------------
 */

static void test_settle(void **state)
{
    (void)state;
    struct client_fixture fixture;
    struct wire_frame frame;
    const struct flare_receipt receipts[] = {{1, {7}}, {64, {8}}};
    struct flare_settle settle = {
        .kind = FLARE_SETTLE_NACK, .receipts = receipts, .count = 2, .lease_ms = 900};
    settle.nack = (struct flare_nack){.has_delay = true, .delay_ms = 0, .reason = "a\nb"};
    client_fixture_init(&fixture);
    client_fixture_connect(&fixture);
    assert_int_equal(
        flare_settle_async(fixture.client, &source, &settle, on_settled, &fixture.box, NULL),
        FLARE_OK);
    fake_broker_expect(&fixture.fake, WIRE_nack, &frame);
    assert_int_equal(frame.nack.delay_ms, 0);
    assert_false(frame.nack.reject);
    assert_true(span_is(frame.nack.reason, "a\nb"));
    assert_int_equal(frame.nack.receipts.count, 2);
    fake_broker_settle(&fixture.fake, &frame, FLARE_OK);
    client_box_wait(&fixture.box, 2);
    settle.nack = (struct flare_nack){.reject = true};
    assert_int_equal(
        flare_settle_async(fixture.client, &source, &settle, on_settled, &fixture.box, NULL),
        FLARE_OK);
    fake_broker_expect(&fixture.fake, WIRE_nack, &frame);
    assert_true(frame.nack.delay_ms == WIRE_NIL);
    assert_true(frame.nack.reject);
    fake_broker_settle(&fixture.fake, &frame, FLARE_ERR_LEASE_LOST);
    client_box_wait(&fixture.box, 4);
    assert_int_equal(fixture.box.codes[1], FLARE_OK);
    assert_int_equal(fixture.box.codes[3], FLARE_ERR_LEASE_LOST);
    settle.kind = FLARE_SETTLE_EXTEND;
    assert_int_equal(
        flare_settle_async(fixture.client, &source, &settle, on_settled, &fixture.box, NULL),
        FLARE_OK);
    fake_broker_expect(&fixture.fake, WIRE_extend, &frame);
    assert_int_equal(frame.extend.lease_ms, 900);
    /* Whether it took effect is not known: it is not sent again. */
    fake_broker_cut(&fixture.fake);
    fake_broker_accept(&fixture.fake);
    client_box_wait(&fixture.box, 5);
    assert_int_equal(fixture.box.codes[4], FLARE_ERR_UNKNOWN);
    assert_true(fake_broker_is_quiet(&fixture.fake, 30));
    client_fixture_deinit(&fixture);
}

static void test_wrong_settles(void **state)
{
    (void)state;
    struct client_fixture fixture;
    struct flare_error error;
    static const struct flare_receipt good = {1, {7}};
    static const struct flare_receipt empty = {0, {0}};
    static const struct flare_receipt huge = {65, {0}};
    static char reason[1026];
    memset(reason, 'r', 1025);
    const struct flare_settle cases[] = {
        {.kind = FLARE_SETTLE_ACK, .receipts = &empty, .count = 1},
        {.kind = FLARE_SETTLE_ACK, .receipts = &huge, .count = 1},
        {.kind = FLARE_SETTLE_ACK, .receipts = &good, .count = 10001},
        {.kind = (enum flare_settle_kind)9, .receipts = &good, .count = 1},
        {.kind = FLARE_SETTLE_NACK,
         .receipts = &good,
         .count = 1,
         .nack = {.reject = true, .has_delay = true}},
        {.kind = FLARE_SETTLE_NACK, .receipts = &good, .count = 1, .nack = {.reason = reason}},
        {.kind = FLARE_SETTLE_NACK, .receipts = &good, .count = 1, .nack = {.reason = "\x01"}},
    };
    client_fixture_init(&fixture);
    client_fixture_connect(&fixture);
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        assert_int_equal(
            flare_settle_async(fixture.client, &source, &cases[index], on_settled, NULL, &error),
            FLARE_ERR_INVALID);
    }
    client_fixture_deinit(&fixture);
}

/* ---- blocking ---------------------------------------------------------------------------------
 */

static void *answer_requests(void *context)
{
    struct fake_broker *fake = context;
    struct wire_frame frame;
    struct wire_configured configured = {.created = true, .version = 1};
    fake_broker_expect(fake, WIRE_ping, &frame);
    const struct wire_pong pong = {.id = frame.id};
    fake_broker_send(fake, WIRE_pong, &pong);
    fake_broker_expect(fake, WIRE_topic_put, &frame);
    assert_int_equal(frame.topic_put.shards, 5);
    assert_int_equal(frame.topic_put.idempotency_window_ms, 0);
    assert_int_equal(frame.topic_put.durability, 1);
    /* What does no harm when it is done twice is sent again. */
    fake_broker_cut(fake);
    fake_broker_accept(fake);
    fake_broker_expect(fake, WIRE_topic_put, &frame);
    configured.id = frame.id;
    fake_broker_send(fake, WIRE_configured, &configured);
    fake_broker_expect(fake, WIRE_sub_put, &frame);
    assert_true(frame.sub_put.max_attempts == WIRE_NIL);
    assert_int_equal(frame.sub_put.start, 1);
    fake_broker_fail(fake, frame.id, FLARE_ERR_NOT_FOUND);
    fake_broker_expect(fake, WIRE_pull, &frame);
    fake_broker_deliver(fake, WIRE_pulled, frame.id, 0, 3);
    fake_broker_expect(fake, WIRE_ack, &frame);
    fake_broker_settle(fake, &frame, FLARE_OK);
    fake_broker_expect(fake, WIRE_nack, &frame);
    fake_broker_settle(fake, &frame, FLARE_ERR_LEASE_LOST);
    fake_broker_expect(fake, WIRE_extend, &frame);
    fake_broker_fail(fake, frame.id, FLARE_ERR_NOT_FOUND);
    return NULL;
}

static void test_blocking(void **state)
{
    (void)state;
    struct client_fixture fixture;
    struct flare_error error;
    struct flare_batch *batch = NULL;
    bool created = false;
    pthread_t thread;
    const struct flare_topic topic = {
        .shards = 5, .idempotency_window_ms = FLARE_NONE, .relaxed = true};
    const struct flare_subscription subscription = {.start = FLARE_START_EARLIEST};
    enum flare_code codes[3];
    client_fixture_init(&fixture);
    client_fixture_connect(&fixture);
    struct flare_client *client = fixture.client;
    assert_int_equal(pthread_create(&thread, NULL, answer_requests, &fixture.fake), 0);
    assert_int_equal(flare_ping(client, &error), FLARE_OK);
    assert_int_equal(flare_topic_put(client, "t", &topic, &created, &error), FLARE_OK);
    assert_true(created);
    assert_int_equal(flare_subscription_put(client, &source, &subscription, &created, &error),
                     FLARE_ERR_NOT_FOUND);
    assert_string_equal(error.message, "said by the fake");
    assert_int_equal(flare_pull(client, &source, NULL, &batch, &error), FLARE_OK);
    assert_int_equal(flare_batch_ack(client, batch, &error), FLARE_OK);
    const struct flare_receipt *receipt = &flare_batch_get(batch, 0)->receipt;
    const struct flare_settle settle = {.kind = FLARE_SETTLE_NACK, .receipts = receipt, .count = 1};
    assert_int_equal(flare_settle(client, &source, &settle, codes, &error), FLARE_ERR_LEASE_LOST);
    assert_int_equal(codes[0], FLARE_ERR_LEASE_LOST);
    assert_int_equal(flare_extend(client, &source, 0, receipt, 1, &error), FLARE_ERR_NOT_FOUND);
    assert_int_equal(flare_ack(client, &source, receipt, 0, &error), FLARE_OK);
    assert_int_equal(pthread_join(thread, NULL), 0);
    flare_batch_free(batch);
    client_fixture_deinit(&fixture);
}

/* A late answer to a pull that nobody waits for any more is freed. */
static void test_time_outs(void **state)
{
    (void)state;
    struct client_fixture fixture;
    struct flare_error error;
    struct flare_batch *batch = NULL;
    struct wire_frame frame;
    client_fixture_init(&fixture);
    fixture.options.request_timeout_ms = 500;
    client_fixture_connect(&fixture);
    assert_int_equal(flare_topic_put(fixture.client, "bad name", NULL, NULL, &error),
                     FLARE_ERR_INVALID);
    assert_int_equal(flare_pull(fixture.client, &source, NULL, &batch, &error), FLARE_ERR_TIMEOUT);
    fake_broker_accept(&fixture.fake);
    expect_pull(&fixture, &frame);
    fake_broker_deliver(&fixture.fake, WIRE_pulled, frame.id, 0, 1);
    client_fixture_publish(&fixture, "t", NULL, "after");
    client_fixture_serve(&fixture, 1);
    client_fixture_deinit(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pull),
        cmocka_unit_test(test_attributes),
        cmocka_unit_test(test_endless_wait),
        cmocka_unit_test(test_long_wait),
        cmocka_unit_test(test_pull_survives),
        cmocka_unit_test(test_waiting_pulls_leave_room),
        cmocka_unit_test(test_wrong_pull_options),
        cmocka_unit_test(test_settle),
        cmocka_unit_test(test_wrong_settles),
        cmocka_unit_test(test_blocking),
        cmocka_unit_test(test_time_outs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
