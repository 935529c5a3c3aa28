/* broker/session: requests, streams, windows and every way a connection can end, over real volumes
 * on memory stores and on simulated time. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "broker/base/random.h"
#include "broker/session/session_internal.h"
#include "tests/lib/sessions.h"

enum { SHARDS = 4, DELIVERIES = 1000 };

static struct sessions sessions;
static struct session_client client;
static struct wire_delivery deliveries[DELIVERIES];

static int setup(void **state)
{
    (void)state;
    sessions_open(&sessions, SHARDS, NULL);
    session_client_open(&client, &sessions, false);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    session_client_close(&client);
    sessions_close(&sessions);
    return 0;
}

static void send_pull(uint64_t id, uint32_t max, uint64_t wait_ms)
{
    const struct wire_pull pull = {.id = id,
                                   .topic = span_text("t"),
                                   .subscription = span_text("s"),
                                   .max = max,
                                   .wait_ms = wait_ms};
    session_client_send(&client, WIRE_pull, &pull);
}

static uint32_t pulled(uint64_t id)
{
    (void)session_client_expect(&client, WIRE_pulled, id);
    return session_client_deliveries(&client, deliveries, DELIVERIES);
}

static uint32_t delivered(uint64_t id)
{
    (void)session_client_expect(&client, WIRE_deliver, id);
    return session_client_deliveries(&client, deliveries, DELIVERIES);
}

/* The deliveries' receipts as a list. */
static void put_receipts(struct buf *items, uint32_t count)
{
    for (uint32_t index = 0; index < count; index++) {
        const struct wire_receipt receipt = {.receipt = deliveries[index].receipt};
        wire_put_record(items, WIRE_RECORD_receipt, &receipt);
    }
}

static void send_ack(uint64_t id, uint32_t count)
{
    struct wire_ack ack = {.id = id, .topic = span_text("t"), .subscription = span_text("s")};
    struct buf items;
    buf_init(&items, 1 << 20);
    put_receipts(&items, count);
    ack.receipts = (struct wire_list){.count = count, .items = buf_span(&items)};
    session_client_send(&client, WIRE_ack, &ack);
    buf_deinit(&items);
}

static void publish(uint64_t id, uint32_t count, size_t size)
{
    session_client_publish(&client, id, count, size);
    assert_int_equal(session_client_expect(&client, WIRE_published, id)->published.results.count,
                     count);
}

/* ---- the connection -------------------------------------------------------------------------- */

/* The welcome speaks the lower version and says the limits. */
static void welcome_says_the_limits(void **state)
{
    (void)state;
    const struct wire_welcome *welcome = &client.frame.welcome;
    assert_int_equal(welcome->version, 1);
    assert_true(span_is(welcome->broker, "flared 1.2.3"));
    assert_int_equal(welcome->frame_size_max, sessions_limits.frame_size_max);
    assert_int_equal(welcome->window_requests, sessions_limits.window_requests);
    assert_int_equal(welcome->window_size, sessions_limits.window_size);
    assert_int_equal(welcome->message_size_max, sessions_limits.message_size_max);
    assert_int_equal(welcome->batch_messages_max, sessions_limits.batch_count_max);
    assert_int_equal(welcome->pull_messages_max, sessions_limits.pull_count_max);
    assert_int_equal(welcome->pull_size_max, sessions_limits.pull_size_max);
    assert_int_equal(welcome->wait_max_ms, sessions_limits.wait_max_ms);
}

/* Whatever is not a hello at first ends the connection, and says why. */
static void first_frame_must_be_hello(void **state)
{
    (void)state;
    static const struct {
        struct span bytes;
        enum err_code code;
        const char *words;
    } cases[] = {
        {{(const uint8_t *)"\0\0\0\x03\x92\x04\x01", 7}, ERR_INVALID, "must be hello"},
        {{(const uint8_t *)"\0\0\0\x01\x05", 5}, ERR_INVALID, "a frame is an array"},
        {{(const uint8_t *)"\0\0\0\x00", 4}, ERR_INVALID, "a frame is an array"},
        {{(const uint8_t *)"\0\0\x10\x01", 4}, ERR_TOO_LARGE, "4096"},
        {{(const uint8_t *)"GET / HTTP/1.1\r\n\r\n", 18}, ERR_TOO_LARGE, "4096"},
        {{(const uint8_t *)"\0\0\0\x04\x93\x01\x00\x01", 8}, ERR_INVALID, "0 is not an id"},
        {{(const uint8_t *)"\0\0\0\x04\x93\x01\x01\x00", 8}, ERR_INVALID, "version"},
    };
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        struct session_client other;
        session_client_open(&other, &sessions, true);
        session_client_send_raw(&other, cases[index].bytes);
        session_client_expect_failure(&other, 0, cases[index].code, cases[index].words);
        session_client_expect_end(&other);
        session_client_close(&other);
    }
}

/* Who says nothing is cut after the hello timeout, and not before. */
static void silence_is_cut(void **state)
{
    (void)state;
    struct session_client other;
    session_client_open(&other, &sessions, true);
    session_client_send_raw(&other, span_of("\0\0\0", 3));
    volumes_advance(&sessions.volumes, sessions_limits.hello_timeout_ms - 1);
    assert_false(session_client_has_frame(&other));
    volumes_advance(&sessions.volumes, 1);
    session_client_expect_failure(&other, 0, ERR_TIMEOUT, "hello");
    session_client_expect_end(&other);
    session_client_close(&other);
    assert_int_equal(metrics_get(&sessions.metrics.wire_timeouts_total), 1);
}

/* Over the limit a connection is told so; when one ends another is let in. */
static void connections_are_bounded(void **state)
{
    (void)state;
    struct session_client others[8];
    uint32_t let_in = sessions_limits.connections_max - 1;
    for (uint32_t index = 0; index < let_in; index++) {
        session_client_open(&others[index], &sessions, false);
    }
    struct session_client over;
    session_client_open(&over, &sessions, true);
    session_client_expect_failure(&over, 0, ERR_BUSY, "too many connections");
    session_client_expect_end(&over);
    session_client_close(&over);
    session_client_close(&others[0]);
    while (metrics_get(&sessions.metrics.wire_connections_open) > let_in) {
        sessions_turn(&sessions);
    }
    session_client_open(&others[0], &sessions, false);
    for (uint32_t index = 0; index < let_in; index++) {
        session_client_close(&others[index]);
    }
}

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
        session_client_send_raw(&client, span_of(cases[index].bytes, cases[index].size));
        session_client_expect_failure(&client, 7, cases[index].code, cases[index].words);
    }
    session_client_send(&client, WIRE_ping, &(struct wire_ping){.id = 8});
    (void)session_client_expect(&client, WIRE_pong, 8);
}

/* Frames may come in any pieces. */
static void frames_come_in_pieces(void **state)
{
    (void)state;
    struct buf frames;
    buf_init(&frames, 1 << 20);
    for (uint64_t id = 2; id < 6; id++) {
        wire_encode(&frames, WIRE_ping, &(struct wire_ping){.id = id});
    }
    for (size_t at = 0; at < frames.size; at++) {
        session_client_send_raw(&client, span_of(frames.data + at, 1));
        sessions_turn(&sessions);
    }
    for (uint64_t id = 2; id < 6; id++) {
        (void)session_client_expect(&client, WIRE_pong, id);
    }
    buf_deinit(&frames);
}

/* Frames larger than what is read at once are put together, at every place in what is read; one
 * byte over the limit ends the connection. */
static void large_frames(void **state)
{
    (void)state;
    for (uint64_t id = 2; id < 40; id++) {
        publish(id, 1, (size_t)(id % 7) * 40000 + (size_t)id);
    }
    publish(40, 3, 300000);
    uint8_t size[4];
    wire_frame_put_size(size, sessions_limits.frame_size_max + 1);
    session_client_send_raw(&client, span_of(size, sizeof size));
    session_client_expect_failure(&client, 0, ERR_TOO_LARGE, "frame_size_max");
    session_client_expect_end(&client);
}

/* ---- requests -------------------------------------------------------------------------------- */

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
    session_client_send(&client, WIRE_publish, &wire);
    (void)session_client_expect(&client, WIRE_published, 2);
    send_pull(3, 10, 0);
    assert_int_equal(pulled(3), 1);
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
    send_ack(4, 1);
    const struct wire_settled *settled = &session_client_expect(&client, WIRE_settled, 4)->settled;
    assert_int_equal(settled->count, 1);
    assert_int_equal(settled->codes.count, 0);
    send_ack(5, 1);
    settled = &session_client_expect(&client, WIRE_settled, 5)->settled;
    assert_int_equal(settled->count, 0);
    assert_int_equal(settled->codes.count, 1);
    assert_true(span_equal(settled->codes.items, span_of("\x91\x05", 2))); /* lease_lost */
    assert_int_equal(metrics_get(&sessions.metrics.messages_published_total), 1);
    assert_int_equal(metrics_get(&sessions.metrics.messages_delivered_total), 1);
    assert_int_equal(metrics_get(&sessions.metrics.messages_acknowledged_total), 1);
    assert_int_equal(metrics_get(&sessions.metrics.receipts_refused_total), 1);
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
    session_client_open(&other, &sessions, false);
    uint64_t first = 0;
    for (int round = 0; round < 2; round++) {
        struct session_client *sender = round == 0 ? &client : &other;
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
    session_client_send(&client, WIRE_publish, &wire);
    session_client_expect_failure(&client, 2, ERR_IDEMPOTENCY_REUSED, "batch_key");
    send_pull(3, 10, 0);
    assert_int_equal(pulled(3), 3);
    session_client_close(&other);
    buf_deinit(&items);
}

/* What a request asks wrongly is named. */
static void requests_are_checked(void **state)
{
    (void)state;
    const struct span t = span_text("t");
    const struct span s = span_text("s");
    session_client_publish(&client, 2, 0, 0);
    session_client_expect_failure(&client, 2, ERR_INVALID, "messages: must be between 1 and 1000");
    session_client_publish(&client, 3, 1001, 0);
    session_client_expect_failure(&client, 3, ERR_INVALID, "messages: must be between 1 and 1000");
    session_client_publish(&client, 4, 2, 300001);
    session_client_expect_failure(&client, 4, ERR_TOO_LARGE, "messages[0].body");
    const struct wire_pull short_lease = {
        .id = 5, .topic = t, .subscription = s, .max = 1, .lease_ms = 99};
    session_client_send(&client, WIRE_pull, &short_lease);
    session_client_expect_failure(&client, 5, ERR_INVALID, "lease_ms");
    const struct wire_pull nowhere = {.id = 6, .topic = t, .subscription = t, .max = 1};
    session_client_send(&client, WIRE_pull, &nowhere);
    session_client_expect_failure(&client, 6, ERR_NOT_FOUND, "subscription");
    const struct wire_ack nothing = {.id = 7, .topic = t, .subscription = s};
    session_client_send(&client, WIRE_ack, &nothing);
    session_client_expect_failure(&client, 7, ERR_INVALID, "receipts: must be between 1");
    const struct wire_list forged = {.count = 1, .items = span_of("\x91\xc4\x01x", 4)};
    const struct wire_ack ack = {.id = 8, .topic = t, .subscription = s, .receipts = forged};
    session_client_send(&client, WIRE_ack, &ack);
    session_client_expect_failure(&client, 8, ERR_INVALID, "receipts[0]: is not a receipt");
    const struct wire_nack both = {
        .id = 9, .topic = t, .subscription = s, .delay_ms = 5, .reject = true, .receipts = forged};
    session_client_send(&client, WIRE_nack, &both);
    session_client_expect_failure(&client, 9, ERR_INVALID, "delay_ms");
    const struct wire_topic_put shards = {
        .id = 10, .topic = t, .shards = 5, .idempotency_window_ms = WIRE_NIL};
    session_client_send(&client, WIRE_topic_put, &shards);
    session_client_expect_failure(&client, 10, ERR_EXISTS, "shards: the topic has 4");
    const struct wire_topic_put age = {
        .id = 11, .topic = t, .retention_ms = 999, .idempotency_window_ms = WIRE_NIL};
    session_client_send(&client, WIRE_topic_put, &age);
    session_client_expect_failure(&client, 11, ERR_INVALID, "retention_ms");
}

/* A refused pull leaves nothing behind in what pulls of the connection share. */
static void refused_pulls_leave_nothing(void **state)
{
    (void)state;
    const struct wire_pull nowhere = {
        .id = 2, .topic = span_text("t"), .subscription = span_text("t"), .max = 1};
    session_client_send(&client, WIRE_pull, &nowhere);
    session_client_expect_failure(&client, 2, ERR_NOT_FOUND, "subscription");
    publish(3, 3, 300000);
    send_pull(4, 10, 0);
    assert_int_equal(pulled(4), 3);
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
        session_client_send(&client, WIRE_publish, &wire);
        if (id == 2) {
            (void)session_client_expect(&client, WIRE_published, id);
        }
    }
    session_client_expect_failure(&client, 3, ERR_IDEMPOTENCY_REUSED, "");
    assert_true(client.frame.failure.detail.size > 0);
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
        session_client_send(&client, WIRE_publish, &wire);
        session_client_expect_failure(&client, 2 + index, ERR_INVALID, "messages[0].attributes: ");
        assert_non_null(strstr((const char *)client.frame.failure.detail.data, cases[index].words));
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
    session_client_send(&client, WIRE_topic_put, &topic);
    assert_true(session_client_expect(&client, WIRE_configured, 2)->configured.created);
    session_client_send(&client, WIRE_sub_put, &sub);
    assert_true(session_client_expect(&client, WIRE_configured, 3)->configured.created);
    const struct catalog_topic *made = catalog_topic(sessions.volumes.catalog, span_text("new"));
    assert_non_null(made);
    assert_int_equal(made->shard_count, CATALOG_SHARDS_DEFAULT);
    assert_int_equal(made->settings.durability, DURABILITY_RELAXED);
    assert_int_equal(made->settings.dedup_window_ms, CATALOG_DEDUP_WINDOW_DEFAULT_MS);
    const struct catalog_sub *made_sub = catalog_sub(made, span_text("sub"));
    assert_non_null(made_sub);
    assert_int_equal(made_sub->settings.lease_ms, CATALOG_LEASE_DEFAULT_MS);
    assert_int_equal(made_sub->settings.max_attempts, CATALOG_ATTEMPTS_DEFAULT);
    session_client_send(&client, WIRE_topic_put, &topic);
    const struct wire_configured *again =
        &session_client_expect(&client, WIRE_configured, 2)->configured;
    assert_false(again->created);
    assert_int_equal(again->version, made->version);
    const struct sub_settings paused = {.lease_ms = 1000, .paused = true};
    assert_int_equal(volumes_put_sub(&sessions.volumes, "new", "sub", &paused), ERR_NONE);
    session_client_send(&client, WIRE_sub_put, &sub);
    assert_false(session_client_expect(&client, WIRE_configured, 3)->configured.created);
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
    session_client_send_raw(&client, buf_span(&frames));
    for (uint32_t count = 0; count < 3; count++) {
        const struct wire_frame *frame = session_client_take(&client);
        assert_int_equal(frame->type, frame->id == 4 ? WIRE_failure : WIRE_configured);
        if (frame->id == 4) {
            assert_int_equal(frame->failure.code, ERR_EXISTS);
            assert_true(
                span_is(frame->failure.detail, "shards: the topic has 8, which does not change"));
        }
    }
    assert_int_equal(catalog_topic(sessions.volumes.catalog, span_text("new"))->shard_count, 8);
    buf_deinit(&frames);
}

/* An id is used until it is answered; then it is free. */
static void ids_are_used_once_at_a_time(void **state)
{
    (void)state;
    send_pull(2, 1, 10000);
    session_client_send(&client, WIRE_ping, &(struct wire_ping){.id = 2});
    session_client_expect_failure(&client, 2, ERR_CONFLICT, "under way");
    volumes_advance(&sessions.volumes, 10000);
    assert_int_equal(pulled(2), 0);
    session_client_send(&client, WIRE_ping, &(struct wire_ping){.id = 2});
    (void)session_client_expect(&client, WIRE_pong, 2);
}

/* A pull waits for a message; other requests of the connection go on meanwhile. */
static void a_pull_waits(void **state)
{
    (void)state;
    send_pull(2, 5, 10000);
    publish(3, 1, 10);
    assert_int_equal(pulled(2), 1);
}

/* A pull that waits does not hold the 128 KiB that its frame was read into. */
static void waiting_pulls_hold_no_input(void **state)
{
    (void)state;
    for (uint64_t id = 2; id < 8; id++) {
        send_pull(id, 1, 10000);
        while (router_waiting(sessions.volumes.router) < id - 1) {
            sessions_turn(&sessions);
        }
    }
    assert_int_equal(sessions.server->chunk_count, 1);
}

/* Beyond its window a connection is not read; it goes on when something is answered. */
static void windows_hold_back(void **state)
{
    (void)state;
    volumes_hold(&sessions.volumes, 0);
    volumes_hold(&sessions.volumes, 1);
    for (uint64_t id = 1; id <= sessions_limits.window_requests; id++) {
        session_client_publish(&client, id + 1, 1, 10);
    }
    session_client_send(&client, WIRE_ping, &(struct wire_ping){.id = 100});
    for (uint64_t wanted = 1 + sessions_limits.window_requests;
         metrics_get(&sessions.metrics.wire_requests_total) < wanted;) {
        sessions_turn(&sessions);
    }
    for (int turn = 0; turn < 50; turn++) {
        sessions_turn(&sessions);
    }
    assert_int_equal(metrics_get(&sessions.metrics.wire_requests_total),
                     1 + sessions_limits.window_requests);
    volumes_unhold(&sessions.volumes, 0);
    volumes_unhold(&sessions.volumes, 1);
    /* The ping comes in as soon as one of them is answered. */
    uint32_t count = 0;
    bool pong = false;
    while (count < sessions_limits.window_requests || !pong) {
        const struct wire_frame *frame = session_client_take(&client);
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
    volumes_hold(&sessions.volumes, 0);
    volumes_hold(&sessions.volumes, 1);
    uint64_t before = metrics_get(&sessions.metrics.wire_requests_total);
    for (uint64_t id = 2; id < 2 + REQUESTS; id++) {
        session_client_publish(&client, id, BATCH, 0);
        sessions_turn(&sessions);
    }
    assert_in_range(metrics_get(&sessions.metrics.wire_requests_total) - before, 1, REQUESTS / 2);
    volumes_unhold(&sessions.volumes, 0);
    volumes_unhold(&sessions.volumes, 1);
    for (uint32_t count = 0; count < REQUESTS; count++) {
        assert_int_equal(session_client_take(&client)->type, WIRE_published);
    }
}

/* When the client is gone, what it waited for goes to others at once, with the attempt not
 * counted. */
static void the_vanished_get_nothing(void **state)
{
    (void)state;
    struct session_client other;
    session_client_open(&other, &sessions, false);
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
    publish(2, 2, 10);
    send_pull(3, 10, 0);
    uint32_t count = pulled(3);
    if (count < 2) {
        send_pull(4, 10, 10000); /* the other half was on its way to the one that is gone */
        count += pulled(4);
    }
    assert_int_equal(count, 2);
    assert_int_equal(deliveries[0].attempt, 1);
    assert_int_equal(metrics_get(&sessions.metrics.wire_streams_open), 0);
}

/* ---- streams --------------------------------------------------------------------------------- */

static void open_stream(uint64_t id, uint32_t messages, uint32_t bytes)
{
    const struct wire_consume consume = {.id = id,
                                         .topic = span_text("t"),
                                         .subscription = span_text("s"),
                                         .messages = messages,
                                         .bytes = bytes};
    session_client_send(&client, WIRE_consume, &consume);
}

static void grant(uint64_t id, uint32_t messages, uint32_t bytes)
{
    const struct wire_credit credit = {.id = id, .messages = messages, .bytes = bytes};
    session_client_send(&client, WIRE_credit, &credit);
}

/* What streams bring within a while. */
static uint32_t deliveries_until_quiet(uint64_t id)
{
    uint32_t count = 0;
    while (session_client_has_frame(&client)) {
        count += delivered(id);
    }
    return count;
}

/* By another client: what a stream is given of a batch may come before the batch is answered, as it
 * may lie on two volumes. */
static void publish_aside(uint32_t count, size_t size)
{
    struct session_client other;
    session_client_open(&other, &sessions, false);
    session_client_publish(&other, 2, count, size);
    (void)session_client_expect(&other, WIRE_published, 2);
    session_client_close(&other);
}

/* A stream brings as many messages as it was granted and no more. */
static void streams_keep_to_messages(void **state)
{
    (void)state;
    publish_aside(50, 10);
    open_stream(3, 7, 100000);
    assert_int_equal(deliveries_until_quiet(3), 7);
    grant(3, 0, 1000);
    assert_int_equal(deliveries_until_quiet(3), 0);
    grant(3, 5, 0);
    assert_int_equal(deliveries_until_quiet(3), 5);
    grant(3, 100, 0);
    assert_int_equal(deliveries_until_quiet(3), 38);
    publish_aside(1, 10);
    assert_int_equal(deliveries_until_quiet(3), 1);
    assert_int_equal(metrics_get(&sessions.metrics.wire_streams_open), 1);
}

/* Bytes likewise; the last message may overdraw them, and the debt is paid first. */
static void streams_keep_to_bytes(void **state)
{
    (void)state;
    publish_aside(10, 100);
    open_stream(3, 100, 250);
    assert_in_range(deliveries_until_quiet(3), 2, 3);
    grant(3, 0, 1 << 20);
    uint32_t rest = deliveries_until_quiet(3);
    assert_in_range(rest, 7, 8);
    publish_aside(2, 5000);
    (void)deliveries_until_quiet(3);
    session_client_send(&client, WIRE_cancel, &(struct wire_cancel){.id = 3});
    assert_int_equal(session_client_expect(&client, WIRE_ended, 3)->ended.code, 0);
    publish_aside(3, 5000);
    open_stream(6, 100, 1);
    assert_int_equal(deliveries_until_quiet(6), 1);
    grant(6, 0, 4999);
    assert_int_equal(deliveries_until_quiet(6), 0);
    grant(6, 0, 1);
    assert_int_equal(deliveries_until_quiet(6), 1);
}

/* After ended nothing comes, and its credit is gone; what it had stays leased. Credit and a cancel
 * that have crossed with it are passed over. */
static void streams_are_cancelled(void **state)
{
    (void)state;
    open_stream(2, 10, 1000);
    assert_false(session_client_has_frame(&client));
    session_client_send(&client, WIRE_cancel, &(struct wire_cancel){.id = 2});
    assert_int_equal(session_client_expect(&client, WIRE_ended, 2)->ended.code, 0);
    publish(3, 2, 10);
    assert_false(session_client_has_frame(&client));
    open_stream(2, 0, 0);
    session_client_send(&client, WIRE_cancel, &(struct wire_cancel){.id = 2});
    assert_int_equal(session_client_expect(&client, WIRE_ended, 2)->ended.code, 0);
    grant(2, 1, 1);
    session_client_send(&client, WIRE_cancel, &(struct wire_cancel){.id = 2});
    assert_false(session_client_has_frame(&client));
    send_pull(4, 10, 0);
    assert_int_equal(pulled(4), 2);
}

/* A stream ends with its subscription; one of what does not exist does not begin. */
static void streams_end_with_their_subscription(void **state)
{
    (void)state;
    open_stream(2, 10, 1000);
    assert_false(session_client_has_frame(&client));
    assert_int_equal(volumes_drop_sub(&sessions.volumes, "t", "s"), ERR_NONE);
    assert_int_equal(session_client_expect(&client, WIRE_ended, 2)->ended.code, ERR_NOT_FOUND);
    open_stream(3, 10, 1000);
    session_client_expect_failure(&client, 3, ERR_NOT_FOUND, "subscription");
}

/* A stream without credit does not go over to another subscription of the same name, whose receipts
 * would be refused: it ends when it would ask. */
static void streams_end_before_their_namesake(void **state)
{
    (void)state;
    open_stream(2, 0, 0);
    assert_false(session_client_has_frame(&client));
    assert_int_equal(volumes_drop_sub(&sessions.volumes, "t", "s"), ERR_NONE);
    assert_int_equal(volumes_put_sub(&sessions.volumes, "t", "s", NULL), ERR_NONE);
    publish(3, 1, 10);
    grant(2, 10, 1000);
    assert_int_equal(session_client_expect(&client, WIRE_ended, 2)->ended.code, ERR_NOT_FOUND);
    assert_int_equal(metrics_get(&sessions.metrics.wire_streams_open), 0);
}

/* Streams cannot fill the window, or their credit could never be read. */
static void streams_leave_a_place(void **state)
{
    (void)state;
    uint32_t count = sessions_limits.window_requests;
    publish(100, count, 10);
    for (uint64_t id = 1; id <= count; id++) {
        open_stream(id, 0, 0);
    }
    session_client_expect_failure(&client, count, ERR_BUSY, "window");
    for (uint64_t id = 1; id < count; id++) {
        grant(id, 1, 1000);
        (void)session_client_expect(&client, WIRE_deliver, id);
    }
}

/* A lease that runs out is delivered again over the stream, as the next attempt. */
static void streams_bring_what_comes_back(void **state)
{
    (void)state;
    publish(2, 1, 10);
    open_stream(3, 10, 1000);
    assert_int_equal(delivered(3), 1);
    assert_int_equal(deliveries[0].attempt, 1);
    volumes_advance(&sessions.volumes, 30000);
    assert_int_equal(delivered(3), 1);
    assert_int_equal(deliveries[0].attempt, 2);
}

/* A client that does not read is not given more than a bound, however much credit it has, and
 * others go on; when it reads it gets the rest. */
static void stalled_readers_are_bounded(void **state)
{
    (void)state;
    enum { COUNT = 100, SIZE = 100000 };
    struct session_client other;
    for (uint64_t id = 2; id < 2 + COUNT / 5; id++) {
        publish(id, 5, SIZE);
    }
    session_client_open(&other, &sessions, false);
    const struct wire_consume consume = {.id = 2,
                                         .topic = span_text("t"),
                                         .subscription = span_text("s"),
                                         .messages = 1 << 20,
                                         .bytes = 1 << 30};
    wire_encode(&other.out, WIRE_consume, &consume);
    (void)!write(other.fd, other.out.data, other.out.size);
    buf_reset(&other.out);
    for (int turn = 0; turn < 50; turn++) {
        sessions_turn(&sessions);
        volumes_quiesce(&sessions.volumes);
    }
    /* About two frames of a megabyte in memory, and what the socket holds. */
    uint64_t given = metrics_get(&sessions.metrics.messages_delivered_total);
    assert_in_range(given, 10, 40);
    session_client_send(&client, WIRE_ping, &(struct wire_ping){.id = 100});
    (void)session_client_expect(&client, WIRE_pong, 100);
    uint64_t count = 0;
    while (count < COUNT) {
        (void)session_client_expect(&other, WIRE_deliver, 2);
        count += other.frame.deliver.deliveries.count;
    }
    assert_int_equal(count, COUNT);
    session_client_close(&other);
}

/* Pulls and streams that waited may all be given something at once. For a client that does not read
 * it has a bound: what is over it goes back as it was, and is there for who asks again. */
static void waiting_pulls_are_bounded(void **state)
{
    (void)state;
    enum { PULLS = 150, STREAMS = 100, MESSAGES = PULLS + STREAMS, SIZE = 300000 };
    struct session_limits limits = sessions_limits;
    struct sessions wide;
    struct session_client reader;
    struct session_client publisher;
    limits.window_requests = MESSAGES + 50;
    limits.waiters_max = MESSAGES;
    sessions_open(&wide, SHARDS, &limits);
    session_client_open(&reader, &wide, false);
    session_client_open(&publisher, &wide, false);
    const struct span t = span_text("t");
    const struct span s = span_text("s");
    for (uint64_t id = 1; id <= MESSAGES; id++) {
        const struct wire_pull pull = {
            .id = id, .topic = t, .subscription = s, .max = 1, .wait_ms = 10000};
        const struct wire_consume consume = {
            .id = id, .topic = t, .subscription = s, .messages = 1, .bytes = 1 << 30};
        session_client_send(&reader, id <= PULLS ? WIRE_pull : WIRE_consume,
                            id <= PULLS ? (const void *)&pull : (const void *)&consume);
    }
    while (router_waiting(wide.volumes.router) < MESSAGES) {
        sessions_turn(&wide);
    }
    for (uint64_t id = 1; id <= MESSAGES / 2; id++) {
        session_client_publish(&publisher, id, 2, SIZE);
        (void)session_client_expect(&publisher, WIRE_published, id);
    }
    volumes_quiesce(&wide.volumes);
    assert_in_range(metrics_get(&wide.metrics.messages_delivered_total), (64 << 20) / SIZE,
                    (70 << 20) / SIZE);
    uint32_t count = 0;
    uint32_t busy = 0;
    while (count + busy < MESSAGES) {
        const struct wire_frame *frame = session_client_take(&reader);
        if (frame->type == WIRE_failure) {
            assert_int_equal(frame->failure.code, ERR_BUSY);
            busy++;
            continue;
        }
        assert_int_equal(session_client_deliveries(&reader, deliveries, DELIVERIES), 1);
        assert_int_equal(deliveries[0].attempt, 1);
        count++;
    }
    session_client_close(&publisher);
    session_client_close(&reader);
    sessions_close(&wide);
}

/* No frame of deliveries is larger than the welcome says, however small the messages are. */
static void deliveries_fit_their_frame(void **state)
{
    (void)state;
    enum { MESSAGES = 4000, BATCH = 1000 };
    struct session_limits limits = sessions_limits;
    struct sessions narrow;
    struct session_client reader;
    limits.frame_size_max = 128 * 1024;
    limits.message_size_max = 1000;
    sessions_open(&narrow, SHARDS, &limits);
    session_client_open(&reader, &narrow, false);
    for (uint64_t id = 1; id <= MESSAGES / BATCH; id++) {
        session_client_publish(&reader, id, BATCH, 100);
        (void)session_client_expect(&reader, WIRE_published, id);
    }
    const struct wire_pull pull = {
        .id = 1, .topic = span_text("t"), .subscription = span_text("s"), .max = 10000};
    const struct wire_consume consume = {.id = 2,
                                         .topic = pull.topic,
                                         .subscription = pull.subscription,
                                         .messages = MESSAGES,
                                         .bytes = 1 << 30};
    session_client_send(&reader, WIRE_pull, &pull);
    uint32_t count = session_client_expect(&reader, WIRE_pulled, 1)->pulled.deliveries.count;
    assert_in_range(reader.used, limits.frame_size_max / 2, limits.frame_size_max);
    session_client_send(&reader, WIRE_consume, &consume);
    while (count < MESSAGES) {
        count += session_client_expect(&reader, WIRE_deliver, 2)->deliver.deliveries.count;
        assert_in_range(reader.used, 1, limits.frame_size_max);
    }
    session_client_close(&reader);
    sessions_close(&narrow);
}

/* A client that reads nothing for too long is cut. */
static void stuck_writes_are_cut(void **state)
{
    (void)state;
    for (uint64_t id = 2; id < 22; id++) {
        publish(id, 5, 100000);
    }
    open_stream(30, 1 << 20, 1 << 30);
    while (metrics_get(&sessions.metrics.messages_delivered_total) < 10) {
        sessions_turn(&sessions);
    }
    uint64_t open = metrics_get(&sessions.metrics.wire_connections_open);
    for (int round = 0; round < 3 && open > 0; round++) {
        volumes_advance(&sessions.volumes, sessions_limits.write_timeout_ms);
        for (int turn = 0; turn < 4 && open > 0; turn++) {
            uv_run(&sessions.loop, UV_RUN_ONCE); /* until its timer looks at deadlines */
            open = metrics_get(&sessions.metrics.wire_connections_open);
        }
    }
    assert_int_equal(open, 0);
    assert_int_equal(metrics_get(&sessions.metrics.wire_timeouts_total), 1);
}

/* ---- disorder -------------------------------------------------------------------------------- */

enum { CLIENTS = 4, IDS = 6, STEPS = 4000 };

/* Sends one request at random; few ids, so that they collide, and streams are granted and cancelled
 * that have ended. */
static void send_any(struct session_client *sender, struct random *random)
{
    const struct span t = span_text("t");
    const struct span s = span_text("s");
    uint64_t id = 1 + random_below(random, IDS);
    uint32_t count = 1 + (uint32_t)random_below(random, 4);
    switch (random_below(random, 6)) {
    case 0: {
        const struct wire_pull pull = {
            .id = id, .topic = t, .subscription = s, .max = count, .wait_ms = count % 2 * 10000};
        session_client_send(sender, WIRE_pull, &pull);
        return;
    }
    case 1: {
        const struct wire_consume consume = {
            .id = id, .topic = t, .subscription = s, .messages = count, .bytes = count * 50};
        session_client_send(sender, WIRE_consume, &consume);
        return;
    }
    case 2:
        session_client_send(
            sender, WIRE_credit,
            &(struct wire_credit){.id = id, .messages = count, .bytes = count * 50});
        return;
    case 3:
        session_client_send(sender, WIRE_cancel, &(struct wire_cancel){.id = id});
        return;
    default:
        session_client_publish(sender, id + 100, count, 30);
        return;
    }
}

/* Whatever clients ask for, in whatever order, and wherever they vanish: nothing stays open, and
 * what they were given comes back. */
static void disorder_leaves_nothing(void **state)
{
    (void)state;
    struct session_client clients[CLIENTS];
    struct random random;
    const struct sub_settings settings = {.lease_ms = 1000};
    random_init(&random, 7);
    assert_int_equal(volumes_put_sub(&sessions.volumes, "t", "s", &settings), ERR_NONE);
    for (uint32_t index = 0; index < CLIENTS; index++) {
        session_client_open(&clients[index], &sessions, false);
    }
    for (uint32_t step = 0; step < STEPS; step++) {
        struct session_client *one = &clients[random_below(&random, CLIENTS)];
        send_any(one, &random);
        uint64_t chance = random_below(&random, 40);
        if (chance == 0) {
            session_client_send_raw(one, span_of("\0\0\0\x09\x93", 5)); /* part of a frame */
            session_client_close(one);
            session_client_open(one, &sessions, false);
        } else if (chance == 1) {
            volumes_hold(&sessions.volumes, step % 2);
        } else if (chance < 6) {
            volumes_unhold(&sessions.volumes, 0);
            volumes_unhold(&sessions.volumes, 1);
        } else if (chance == 6) {
            volumes_advance(&sessions.volumes, 1000);
        } else if (chance < 25) {
            sessions_turn(&sessions);
        }
    }
    volumes_unhold(&sessions.volumes, 0);
    volumes_unhold(&sessions.volumes, 1);
    for (uint32_t index = 0; index < CLIENTS; index++) {
        session_client_close(&clients[index]);
    }
    while (metrics_get(&sessions.metrics.wire_connections_open) > 1 ||
           router_pending(sessions.volumes.router) > 0) {
        sessions_turn(&sessions);
    }
    assert_int_equal(metrics_get(&sessions.metrics.wire_streams_open), 0);
    assert_int_equal(router_waiting(sessions.volumes.router), 0);
    volumes_advance(&sessions.volumes, 1000);
    uint64_t published = metrics_get(&sessions.metrics.messages_published_total);
    assert_true(published > 0);
    uint64_t left = 0;
    for (uint32_t count = 1; count > 0; left += count) {
        send_pull(2, 1000, 0);
        count = pulled(2);
    }
    assert_int_equal(left, published);
}

/* ---- the end --------------------------------------------------------------------------------- */

/* A stopping broker says goodbye, ends what waits with `unavailable`, and closes. */
static void drain_answers_all(void **state)
{
    (void)state;
    open_stream(2, 10, 1000);
    open_stream(3, 0, 0);
    send_pull(4, 1, 10000);
    assert_false(session_client_has_frame(&client));
    assert_int_equal(session_server_pending(sessions.server), 1);
    router_drain(sessions.volumes.router);
    session_server_drain(sessions.server);
    (void)session_client_expect(&client, WIRE_goodbye, 0);
    bool ended[5] = {false};
    for (int count = 0; count < 3; count++) {
        const struct wire_frame *frame = session_client_take(&client);
        assert_in_range(frame->id, 2, 4);
        assert_int_equal(frame->type, frame->id == 4 ? WIRE_failure : WIRE_ended);
        assert_int_equal(frame->id == 4 ? frame->failure.code : frame->ended.code, ERR_UNAVAILABLE);
        assert_false(ended[frame->id]);
        ended[frame->id] = true;
    }
    session_client_expect_end(&client);
    assert_int_equal(session_server_pending(sessions.server), 0);
    err_t err = session_server_adopt(sessions.server, -1);
    assert_int_equal(err_code(err), ERR_UNAVAILABLE);
    err_free(err);
}

/* A publish that both volumes have and do not answer. */
static void hold_publish(uint64_t id)
{
    volumes_hold(&sessions.volumes, 0);
    volumes_hold(&sessions.volumes, 1);
    session_client_publish(&client, id, SHARDS, 10);
    while (!volumes_is_held(&sessions.volumes, 0) || !volumes_is_held(&sessions.volumes, 1)) {
        sessions_turn(&sessions);
    }
}

/* A client that goes on sending while the broker stops is answered what was begun, once it has
 * been, and nothing else. */
static void drain_answers_who_goes_on_sending(void **state)
{
    (void)state;
    hold_publish(2);
    router_drain(sessions.volumes.router);
    session_server_drain(sessions.server);
    (void)session_client_expect(&client, WIRE_goodbye, 0);
    for (uint64_t id = 3; id < 10; id++) {
        session_client_publish(&client, id, 1, 60000);
        sessions_turn(&sessions);
    }
    volumes_unhold(&sessions.volumes, 0);
    volumes_unhold(&sessions.volumes, 1);
    (void)session_client_expect(&client, WIRE_published, 2);
    session_client_expect_end(&client);
    assert_int_equal(metrics_get(&sessions.metrics.messages_published_total), SHARDS);
}

/* What the volumes answer at the very end, when the time to drain is over, still leaves. */
static void late_answers_leave(void **state)
{
    (void)state;
    struct router *router = sessions.volumes.router;
    hold_publish(2);
    router_drain(router);
    session_server_drain(sessions.server);
    (void)session_client_expect(&client, WIRE_goodbye, 0);
    volumes_unhold(&sessions.volumes, 0);
    volumes_unhold(&sessions.volumes, 1);
    while (router_pending(router) > 0) {
        volumes_turn(&sessions.volumes);
    }
    sessions_destroy_server(&sessions);
    (void)session_client_expect(&client, WIRE_published, 2);
    session_client_expect_end(&client);
}

/* It listens on an address too, and says which; a bad one is refused. */
static void it_listens(void **state)
{
    (void)state;
    assert_string_equal(session_server_address(sessions.server), "");
    assert_null(session_server_listen(sessions.server, "127.0.0.1:0"));
    assert_non_null(strstr(session_server_address(sessions.server), "127.0.0.1:"));
    assert_null(strstr(session_server_address(sessions.server), ":0:"));
}

/* What is no socket is not adopted, and stays its owner's. */
static void only_sockets_are_adopted(void **state)
{
    (void)state;
    int file = open("/dev/null", O_RDWR | O_CLOEXEC);
    const int fds[] = {-1, file};
    assert_true(file >= 0);
    for (size_t index = 0; index < 2; index++) {
        err_t err = session_server_adopt(sessions.server, fds[index]);
        assert_int_equal(err_code(err), ERR_IO);
        err_free(err);
    }
    sessions_turn(&sessions);
    assert_int_equal(close(file), 0);
    assert_int_equal(metrics_get(&sessions.metrics.wire_connections_open), 1);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(welcome_says_the_limits),
        CASE(first_frame_must_be_hello),
        CASE(silence_is_cut),
        CASE(connections_are_bounded),
        CASE(wrong_requests_fail_alone),
        CASE(frames_come_in_pieces),
        CASE(large_frames),
        CASE(a_message_there_and_back),
        CASE(batch_keys),
        CASE(requests_are_checked),
        CASE(refused_pulls_leave_nothing),
        CASE(failures_have_a_detail),
        CASE(attributes_are_checked),
        CASE(things_are_put),
        CASE(shards_stay_as_they_are),
        CASE(ids_are_used_once_at_a_time),
        CASE(a_pull_waits),
        CASE(waiting_pulls_hold_no_input),
        CASE(windows_hold_back),
        CASE(windows_count_memory),
        CASE(the_vanished_get_nothing),
        CASE(streams_keep_to_messages),
        CASE(streams_keep_to_bytes),
        CASE(streams_are_cancelled),
        CASE(streams_end_with_their_subscription),
        CASE(streams_end_before_their_namesake),
        CASE(streams_leave_a_place),
        CASE(streams_bring_what_comes_back),
        CASE(stalled_readers_are_bounded),
        CASE(waiting_pulls_are_bounded),
        CASE(deliveries_fit_their_frame),
        CASE(stuck_writes_are_cut),
        CASE(disorder_leaves_nothing),
        CASE(drain_answers_all),
        CASE(drain_answers_who_goes_on_sending),
        CASE(late_answers_leave),
        CASE(it_listens),
        CASE(only_sockets_are_adopted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
