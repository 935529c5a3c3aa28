/* broker/session: requests and their answers, their ids, and the window they have to fit in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "broker/session/session_internal.h"
#include "tests/lib/session_scene.h"

static struct sessions *const sessions = &session_scene.sessions;
static struct session_client *const client = &session_scene.client;
static struct wire_delivery *const deliveries = session_scene.deliveries;

/* A second hello, a message of the broker's, an unknown one: the request fails, not the
 * connection. */
static void wrong_requests_fail_alone(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t size;
        enum err_code code;
        const char *words;
    } cases[] = {
        {"\0\0\0\x04\x93\x01\x07\x01", 8, ERR_INVALID, "hello has been said"},
        {"\0\0\0\x03\x92\x05\x07", 7, ERR_INVALID, "the broker's"},
        {"\0\0\0\x03\x92\x1f\x07", 7, ERR_NOT_IMPLEMENTED, "number 31"},
    };
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        session_client_send_raw(client, span_of(cases[index].bytes, cases[index].size));
        session_client_expect_failure(client, 7, cases[index].code, cases[index].words);
    }
    session_client_send(client, WIRE_ping, &(struct wire_ping){.id = 8});
    (void)session_client_expect(client, WIRE_pong, 8);
}

/* What is published comes back as it was, once; an ack finishes it, a second one is too late. */
static void a_message_there_and_back(void **state)
{
    (void)state;
    struct buf pairs;
    struct buf items;
    buf_init(&pairs, 1000);
    buf_init(&items, 1000);
    wire_put_text(&pairs, span_text("color"));
    wire_put_text(&pairs, span_text("red"));
    const struct wire_message message = {.body = span_of("\0body", 5),
                                         .key = span_text("k"),
                                         .attributes = {.count = 1, .items = buf_span(&pairs)}};
    wire_put_record(&items, WIRE_RECORD_message, &message);
    const struct wire_publish wire = {
        .id = 2, .topic = span_text("t"), .messages = {.count = 1, .items = buf_span(&items)}};
    session_client_send(client, WIRE_publish, &wire);
    (void)session_client_expect(client, WIRE_published, 2);
    session_scene_send_pull(3, 10, 0);
    assert_int_equal(session_scene_pulled(3), 1);
    assert_true(span_equal(deliveries[0].body, message.body));
    assert_true(span_is(deliveries[0].key, "k"));
    assert_int_equal(deliveries[0].attempt, 1);
    assert_int_equal(deliveries[0].lease_until_ms, VOLUMES_START_MS + 30000);
    struct span name;
    struct span value;
    assert_true(wire_map_next(&deliveries[0].attributes, &name, &value));
    assert_true(span_is(name, "color"));
    assert_true(span_is(value, "red"));
    uint8_t receipt[64];
    size_t receipt_size = deliveries[0].receipt.size;
    memcpy(receipt, deliveries[0].receipt.data, receipt_size);
    deliveries[0].receipt = span_of(receipt, receipt_size);
    session_scene_send_ack(4, 1);
    const struct wire_settled *settled = &session_client_expect(client, WIRE_settled, 4)->settled;
    assert_int_equal(settled->count, 1);
    assert_int_equal(settled->codes.count, 0);
    session_scene_send_ack(5, 1);
    settled = &session_client_expect(client, WIRE_settled, 5)->settled;
    assert_int_equal(settled->count, 0);
    assert_int_equal(settled->codes.count, 1);
    assert_true(span_equal(settled->codes.items, span_of("\x91\x05", 2))); /* lease_lost */
    assert_int_equal(metrics_get(&sessions->metrics.messages_published_total), 1);
    assert_int_equal(metrics_get(&sessions->metrics.messages_delivered_total), 1);
    assert_int_equal(metrics_get(&sessions->metrics.messages_acknowledged_total), 1);
    assert_int_equal(metrics_get(&sessions->metrics.receipts_refused_total), 1);
    buf_deinit(&pairs);
    buf_deinit(&items);
}

/* A batch under its key is published once, over another connection too; its messages lie in one
 * shard. */
static void batch_keys(void **state)
{
    (void)state;
    struct session_client other;
    struct buf items;
    buf_init(&items, 1000);
    for (int index = 0; index < 3; index++) {
        const struct wire_message message = {.body = span_text("b")};
        wire_put_record(&items, WIRE_RECORD_message, &message);
    }
    struct wire_publish wire = {.id = 2,
                                .topic = span_text("t"),
                                .batch_key = span_text("key"),
                                .messages = {.count = 3, .items = buf_span(&items)}};
    session_client_open(&other, sessions, false);
    uint64_t first = 0;
    for (int round = 0; round < 2; round++) {
        struct session_client *sender = round == 0 ? client : &other;
        struct wire_items walk;
        struct wire_result results[3];
        session_client_send(sender, WIRE_publish, &wire);
        const struct wire_frame *frame = session_client_expect(sender, WIRE_published, 2);
        wire_items_begin(&walk, "results", WIRE_RECORD_result, &frame->published.results);
        for (uint32_t index = 0; index < 3; index++) {
            assert_true(wire_items_next(&walk, &results[index]));
            first = round == 0 && index == 0 ? results[0].sequence : first;
            assert_int_equal(results[index].shard, results[0].shard);
            assert_int_equal(results[index].sequence, first + index);
            assert_int_equal(results[index].replayed, round);
        }
        assert_null(wire_items_finish(&walk));
    }
    wire.messages.count = 2;
    wire.messages.items.size = items.size / 3 * 2;
    session_client_send(client, WIRE_publish, &wire);
    session_client_expect_failure(client, 2, ERR_IDEMPOTENCY_REUSED, "batch_key");
    session_scene_send_pull(3, 10, 0);
    assert_int_equal(session_scene_pulled(3), 3);
    session_client_close(&other);
    buf_deinit(&items);
}

/* What a request asks wrongly is named. */
static void requests_are_checked(void **state)
{
    (void)state;
    const struct span t = span_text("t");
    const struct span s = span_text("s");
    session_client_publish(client, 2, 0, 0);
    session_client_expect_failure(client, 2, ERR_INVALID, "messages: must be between 1 and 1000");
    session_client_publish(client, 3, 1001, 0);
    session_client_expect_failure(client, 3, ERR_INVALID, "messages: must be between 1 and 1000");
    session_client_publish(client, 4, 2, 300001);
    session_client_expect_failure(client, 4, ERR_TOO_LARGE, "messages[0].body");
    const struct wire_pull short_lease = {
        .id = 5, .topic = t, .subscription = s, .max = 1, .lease_ms = 99};
    session_client_send(client, WIRE_pull, &short_lease);
    session_client_expect_failure(client, 5, ERR_INVALID, "lease_ms");
    const struct wire_pull nowhere = {.id = 6, .topic = t, .subscription = t, .max = 1};
    session_client_send(client, WIRE_pull, &nowhere);
    session_client_expect_failure(client, 6, ERR_NOT_FOUND, "subscription");
    const struct wire_ack nothing = {.id = 7, .topic = t, .subscription = s};
    session_client_send(client, WIRE_ack, &nothing);
    session_client_expect_failure(client, 7, ERR_INVALID, "receipts: must be between 1");
    const struct wire_list forged = {.count = 1, .items = span_of("\x91\xc4\x01x", 4)};
    const struct wire_ack ack = {.id = 8, .topic = t, .subscription = s, .receipts = forged};
    session_client_send(client, WIRE_ack, &ack);
    session_client_expect_failure(client, 8, ERR_INVALID, "receipts[0]: is not a receipt");
    const struct wire_nack both = {
        .id = 9, .topic = t, .subscription = s, .delay_ms = 5, .reject = true, .receipts = forged};
    session_client_send(client, WIRE_nack, &both);
    session_client_expect_failure(client, 9, ERR_INVALID, "delay_ms");
    const struct wire_topic_put shards = {
        .id = 10, .topic = t, .shards = 5, .idempotency_window_ms = WIRE_NIL};
    session_client_send(client, WIRE_topic_put, &shards);
    session_client_expect_failure(client, 10, ERR_EXISTS, "shards: the topic has 4");
    const struct wire_topic_put age = {
        .id = 11, .topic = t, .retention_ms = 999, .idempotency_window_ms = WIRE_NIL};
    session_client_send(client, WIRE_topic_put, &age);
    session_client_expect_failure(client, 11, ERR_INVALID, "retention_ms");
}

/* A refused pull leaves nothing behind in what pulls of the connection share. */
static void refused_pulls_leave_nothing(void **state)
{
    (void)state;
    const struct wire_pull nowhere = {
        .id = 2, .topic = span_text("t"), .subscription = span_text("t"), .max = 1};
    session_client_send(client, WIRE_pull, &nowhere);
    session_client_expect_failure(client, 2, ERR_NOT_FOUND, "subscription");
    session_scene_publish(3, 3, 300000);
    session_scene_send_pull(4, 10, 0);
    assert_int_equal(session_scene_pulled(4), 3);
}

/* A failure always says something, also when all messages failed alike and no more is known. */
static void failures_have_a_detail(void **state)
{
    (void)state;
    struct buf items;
    buf_init(&items, 1000);
    for (uint64_t id = 2; id < 4; id++) {
        const struct wire_message message = {.body = span_text(id == 2 ? "one" : "other"),
                                             .idempotency_key = span_text("key")};
        buf_reset(&items);
        wire_put_record(&items, WIRE_RECORD_message, &message);
        const struct wire_publish wire = {
            .id = id, .topic = span_text("t"), .messages = {.count = 1, .items = buf_span(&items)}};
        session_client_send(client, WIRE_publish, &wire);
        if (id == 2) {
            (void)session_client_expect(client, WIRE_published, id);
        }
    }
    session_client_expect_failure(client, 3, ERR_IDEMPOTENCY_REUSED, "");
    assert_true(client->frame.failure.detail.size > 0);
    buf_deinit(&items);
}

/* Bad attributes are named with their message. */
static void attributes_are_checked(void **state)
{
    (void)state;
    static const struct {
        const char *pairs;
        size_t size;
        uint32_t count;
        const char *words;
    } cases[] = {
        {"\xa1X\xa1v", 4, 1, "attribute names"},
        {"\xa1x\xa1\n", 4, 1, "attribute values"},
        {"\xa1x\xa1v\xa1x\xa1w", 8, 2, "given twice"},
        {"\xa1x\x05", 3, 1, "strings to strings"},
    };
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        struct buf items;
        buf_init(&items, 1000);
        const struct wire_message message = {
            .attributes = {.count = cases[index].count,
                           .items = span_of(cases[index].pairs, cases[index].size)}};
        wire_put_record(&items, WIRE_RECORD_message, &message);
        const struct wire_publish wire = {.id = 2 + index,
                                          .topic = span_text("t"),
                                          .messages = {.count = 1, .items = buf_span(&items)}};
        session_client_send(client, WIRE_publish, &wire);
        session_client_expect_failure(client, 2 + index, ERR_INVALID, "messages[0].attributes: ");
        assert_non_null(
            strstr((const char *)client->frame.failure.detail.data, cases[index].words));
        buf_deinit(&items);
    }
}

/* Topics and subscriptions are made, and made again; a paused one stays paused. */
static void things_are_put(void **state)
{
    (void)state;
    const struct wire_topic_put topic = {
        .id = 2, .topic = span_text("new"), .durability = 1, .idempotency_window_ms = WIRE_NIL};
    const struct wire_sub_put sub = {.id = 3,
                                     .topic = span_text("new"),
                                     .subscription = span_text("sub"),
                                     .max_attempts = WIRE_NIL};
    session_client_send(client, WIRE_topic_put, &topic);
    assert_true(session_client_expect(client, WIRE_configured, 2)->configured.created);
    session_client_send(client, WIRE_sub_put, &sub);
    assert_true(session_client_expect(client, WIRE_configured, 3)->configured.created);
    const struct catalog_topic *made = catalog_topic(sessions->volumes.catalog, span_text("new"));
    assert_non_null(made);
    assert_int_equal(made->shard_count, CATALOG_SHARDS_DEFAULT);
    assert_int_equal(made->settings.durability, DURABILITY_RELAXED);
    assert_int_equal(made->settings.dedup_window_ms, CATALOG_DEDUP_WINDOW_DEFAULT_MS);
    const struct catalog_sub *made_sub = catalog_sub(made, span_text("sub"));
    assert_non_null(made_sub);
    assert_int_equal(made_sub->settings.lease_ms, CATALOG_LEASE_DEFAULT_MS);
    assert_int_equal(made_sub->settings.max_attempts, CATALOG_ATTEMPTS_DEFAULT);
    session_client_send(client, WIRE_topic_put, &topic);
    const struct wire_configured *again =
        &session_client_expect(client, WIRE_configured, 2)->configured;
    assert_false(again->created);
    assert_int_equal(again->version, made->version);
    const struct sub_settings paused = {.lease_ms = 1000, .paused = true};
    assert_int_equal(volumes_put_sub(&sessions->volumes, "new", "sub", &paused), ERR_NONE);
    session_client_send(client, WIRE_sub_put, &sub);
    assert_false(session_client_expect(client, WIRE_configured, 3)->configured.created);
    assert_int_equal(made_sub->settings.lease_ms, CATALOG_LEASE_DEFAULT_MS);
    assert_true(made_sub->settings.paused);
}

/* Where the number of shards is not given it stays as it is, also when the topic is only being made
 * by what was sent just before. */
static void shards_stay_as_they_are(void **state)
{
    (void)state;
    struct buf frames;
    buf_init(&frames, 1000);
    for (uint64_t id = 2; id < 5; id++) {
        const struct wire_topic_put put = {.id = id,
                                           .topic = span_text("new"),
                                           .shards = id == 2   ? 8
                                                     : id == 3 ? 0
                                                               : 4,
                                           .idempotency_window_ms = WIRE_NIL};
        wire_encode(&frames, WIRE_topic_put, &put);
    }
    session_client_send_raw(client, buf_span(&frames));
    for (uint32_t count = 0; count < 3; count++) {
        const struct wire_frame *frame = session_client_take(client);
        assert_int_equal(frame->type, frame->id == 4 ? WIRE_failure : WIRE_configured);
        if (frame->id == 4) {
            assert_int_equal(frame->failure.code, ERR_EXISTS);
            assert_true(
                span_is(frame->failure.detail, "shards: the topic has 8, which does not change"));
        }
    }
    assert_int_equal(catalog_topic(sessions->volumes.catalog, span_text("new"))->shard_count, 8);
    buf_deinit(&frames);
}

/* An id is used until it is answered; then it is free. */
static void ids_are_used_once_at_a_time(void **state)
{
    (void)state;
    session_scene_send_pull(2, 1, 10000);
    session_client_send(client, WIRE_ping, &(struct wire_ping){.id = 2});
    session_client_expect_failure(client, 2, ERR_CONFLICT, "under way");
    volumes_advance(&sessions->volumes, 10000);
    assert_int_equal(session_scene_pulled(2), 0);
    session_client_send(client, WIRE_ping, &(struct wire_ping){.id = 2});
    (void)session_client_expect(client, WIRE_pong, 2);
}

/* A pull waits for a message; other requests of the connection go on meanwhile. */
static void a_pull_waits(void **state)
{
    (void)state;
    session_scene_send_pull(2, 5, 10000);
    session_scene_publish(3, 1, 10);
    assert_int_equal(session_scene_pulled(2), 1);
}

/* A pull that waits does not hold the 128 KiB that its frame was read into. */
static void waiting_pulls_hold_no_input(void **state)
{
    (void)state;
    for (uint64_t id = 2; id < 8; id++) {
        session_scene_send_pull(id, 1, 10000);
        while (router_waiting(sessions->volumes.router) < id - 1) {
            sessions_turn(sessions);
        }
    }
    assert_int_equal(sessions->server->chunk_count, 1);
}

/* Beyond its window a connection is not read; it goes on when something is answered. */
static void windows_hold_back(void **state)
{
    (void)state;
    session_scene_hold();
    for (uint64_t id = 1; id <= sessions_limits.window_requests; id++) {
        session_client_publish(client, id + 1, 1, 10);
    }
    session_client_send(client, WIRE_ping, &(struct wire_ping){.id = 100});
    for (uint64_t wanted = 1 + sessions_limits.window_requests;
         metrics_get(&sessions->metrics.wire_requests_total) < wanted;) {
        sessions_turn(sessions);
    }
    for (int turn = 0; turn < 50; turn++) {
        sessions_turn(sessions);
    }
    assert_int_equal(metrics_get(&sessions->metrics.wire_requests_total),
                     1 + sessions_limits.window_requests);
    session_scene_unhold();
    /* The ping comes in as soon as one of them is answered. */
    uint32_t count = 0;
    bool pong = false;
    while (count < sessions_limits.window_requests || !pong) {
        const struct wire_frame *frame = session_client_take(client);
        pong = pong || frame->type == WIRE_pong;
        count += frame->type == WIRE_published;
    }
}

/* What a request takes in memory counts too: many small messages are held back like few large ones.
 */
static void windows_count_memory(void **state)
{
    (void)state;
    enum { REQUESTS = 12, BATCH = 1000 };
    session_scene_hold();
    uint64_t before = metrics_get(&sessions->metrics.wire_requests_total);
    for (uint64_t id = 2; id < 2 + REQUESTS; id++) {
        session_client_publish(client, id, BATCH, 0);
        sessions_turn(sessions);
    }
    assert_in_range(metrics_get(&sessions->metrics.wire_requests_total) - before, 1, REQUESTS / 2);
    session_scene_unhold();
    for (uint32_t count = 0; count < REQUESTS; count++) {
        assert_int_equal(session_client_take(client)->type, WIRE_published);
    }
}

/* When the client is gone, what it waited for goes to others at once, with the attempt not
 * counted. */
static void the_vanished_get_nothing(void **state)
{
    (void)state;
    struct session_client other;
    session_client_open(&other, sessions, false);
    const struct wire_consume consume = {.id = 2,
                                         .topic = span_text("t"),
                                         .subscription = span_text("s"),
                                         .messages = 10,
                                         .bytes = 1000};
    const struct wire_pull pull = {.id = 3,
                                   .topic = span_text("t"),
                                   .subscription = span_text("s"),
                                   .max = 1,
                                   .wait_ms = 10000};
    session_client_send(&other, WIRE_consume, &consume);
    session_client_send(&other, WIRE_pull, &pull);
    assert_false(session_client_has_frame(&other));
    session_client_close(&other);
    session_scene_publish(2, 2, 10);
    session_scene_send_pull(3, 10, 0);
    uint32_t count = session_scene_pulled(3);
    if (count < 2) {
        session_scene_send_pull(4, 10,
                                10000); /* the other half was on its way to the one that is gone */
        count += session_scene_pulled(4);
    }
    assert_int_equal(count, 2);
    assert_int_equal(deliveries[0].attempt, 1);
    assert_int_equal(metrics_get(&sessions->metrics.wire_streams_open), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SESSION_SCENE_TEST(wrong_requests_fail_alone),
        SESSION_SCENE_TEST(a_message_there_and_back),
        SESSION_SCENE_TEST(batch_keys),
        SESSION_SCENE_TEST(requests_are_checked),
        SESSION_SCENE_TEST(refused_pulls_leave_nothing),
        SESSION_SCENE_TEST(failures_have_a_detail),
        SESSION_SCENE_TEST(attributes_are_checked),
        SESSION_SCENE_TEST(things_are_put),
        SESSION_SCENE_TEST(shards_stay_as_they_are),
        SESSION_SCENE_TEST(ids_are_used_once_at_a_time),
        SESSION_SCENE_TEST(a_pull_waits),
        SESSION_SCENE_TEST(waiting_pulls_hold_no_input),
        SESSION_SCENE_TEST(windows_hold_back),
        SESSION_SCENE_TEST(windows_count_memory),
        SESSION_SCENE_TEST(the_vanished_get_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
