/* What a stream does at which time, and before the broker has seen it. The test takes the client's
 * turns, on a clock of its own. */
#include "tests/unit/client_turns.h"

#include "client/await.h"

enum { LEASE_MS = 400 }; /* what the fake broker says */

static const struct flare_options options = {.give_up_ms = 1000};

static const struct flare_stream_options holding = {
    .concurrency = 3, .bytes = 1000, .lease_ms = LEASE_MS};

/* Opens it; the id of its consume. */
static uint64_t open_stream(struct client_turns *turns)
{
    struct wire_frame frame;
    engine_turn(turns->client);
    fake_broker_expect(&turns->fake, WIRE_consume, &frame);
    return frame.id;
}

static void deliver(struct client_turns *turns, uint64_t id, uint32_t first, uint32_t count)
{
    fake_broker_deliver(&turns->fake, WIRE_deliver, id, first, count);
    client_turns_read(turns);
}

static void send_ended(struct client_turns *turns, uint64_t id)
{
    const struct wire_ended ended = {.id = id, .slug = span_text("none"), .detail = span_text("")};
    fake_broker_send(&turns->fake, WIRE_ended, &ended);
}

/* One that is closed and has nothing left to do. */
static void expect_closed(struct client_turns *turns, struct flare_stream *stream)
{
    assert_true(stream->is_detached);
    intake_destroy(stream);
    client_turns_deinit(turns);
}

/* Gives back what waits, and ends. */
static void close_stream(struct client_turns *turns, struct flare_stream *stream, uint64_t id)
{
    struct wire_frame frame = {0};
    fake_broker_drain(&turns->fake);
    stream->is_closing = true;
    engine_turn(turns->client);
    while (frame.type != WIRE_cancel) {
        fake_broker_expect_any(&turns->fake, &frame);
        if (frame.type == WIRE_nack) {
            fake_broker_settle(&turns->fake, &frame, FLARE_OK);
        }
    }
    send_ended(turns, id);
    client_turns_read(turns);
    expect_closed(turns, stream);
}

/* ---- leases -----------------------------------------------------------------------------------
 */

/* The one lease of several that a part of the broker could not extend is extended again soon, and
 * not when it has run out. */
static void test_one_extension_is_refused(void **state)
{
    (void)state;
    struct client_turns turns;
    struct wire_frame frame;
    client_turns_init(&turns, &options, 64);
    struct flare_stream *stream = client_turns_stream(&turns, &holding);
    uint64_t id = open_stream(&turns);
    deliver(&turns, id, 0, 2);
    client_turns_advance(&turns, LEASE_MS / 2);
    fake_broker_expect(&turns.fake, WIRE_extend, &frame);
    assert_int_equal(frame.extend.receipts.count, 2);
    fake_broker_settle_but(&turns.fake, &frame, "m0", FLARE_ERR_BUSY);
    client_turns_read(&turns);
    assert_true(intake_due_us(turns.client) == turns.client->now_us + 100000);
    client_turns_advance(&turns, 100);
    fake_broker_expect(&turns.fake, WIRE_extend, &frame);
    assert_int_equal(frame.extend.receipts.count, 1);
    assert_true(fake_broker_has_receipt(&frame, 0, "m0"));
    fake_broker_settle(&turns.fake, &frame, FLARE_OK);
    client_turns_read(&turns);
    close_stream(&turns, stream, id);
}

/* A refused extension is not kept waiting by messages that came later. */
static void test_refused_extension_comes_first(void **state)
{
    (void)state;
    struct client_turns turns;
    struct wire_frame frame;
    client_turns_init(&turns, &options, 64);
    struct flare_stream *stream = client_turns_stream(&turns, &holding);
    uint64_t id = open_stream(&turns);
    deliver(&turns, id, 0, 1);
    client_turns_advance(&turns, LEASE_MS / 2 - 10);
    deliver(&turns, id, 1, 1);
    clock_advance(&turns.client->clock, 5);
    deliver(&turns, id, 2, 1);
    client_turns_advance(&turns, 5);
    fake_broker_expect(&turns.fake, WIRE_extend, &frame);
    assert_int_equal(frame.extend.receipts.count, 1);
    fake_broker_fail(&turns.fake, frame.id, FLARE_ERR_BUSY);
    client_turns_read(&turns);
    client_turns_advance(&turns, 100);
    fake_broker_expect(&turns.fake, WIRE_extend, &frame);
    assert_true(fake_broker_has_receipt(&frame, 0, "m0"));
    fake_broker_settle(&turns.fake, &frame, FLARE_OK);
    client_turns_read(&turns);
    close_stream(&turns, stream, id);
}

/* ---- verdicts ---------------------------------------------------------------------------------
 */

/* A part of the broker that has failed does not keep a stream from being closed for ever: its
 * verdicts are sent again for a while and then given up. */
static void test_verdicts_are_given_up(void **state)
{
    (void)state;
    struct client_turns turns;
    struct wire_frame frame;
    uint32_t tries = 0;
    client_turns_init(&turns, &options, 64);
    struct flare_stream *stream = client_turns_stream(&turns, &holding);
    uint64_t id = open_stream(&turns);
    deliver(&turns, id, 0, 2);
    stream->is_closing = true;
    engine_turn(turns.client);
    for (uint32_t ms = 0; ms < 900; ms += 50) {
        fake_broker_expect(&turns.fake, WIRE_nack, &frame);
        assert_int_equal(frame.nack.receipts.count, tries == 0 ? 2 : 1);
        if (tries % 2 == 0) {
            fake_broker_settle_but(&turns.fake, &frame, "m1", FLARE_ERR_UNAVAILABLE);
        } else {
            fake_broker_fail(&turns.fake, frame.id, FLARE_ERR_UNAVAILABLE);
        }
        if (tries == 0) {
            fake_broker_expect(&turns.fake, WIRE_cancel, &frame);
            send_ended(&turns, id);
        }
        client_turns_read(&turns);
        assert_false(stream->is_detached);
        client_turns_advance(&turns, 50);
        tries++;
    }
    client_turns_advance(&turns, 100);
    fake_broker_expect(&turns.fake, WIRE_nack, &frame);
    fake_broker_fail(&turns.fake, frame.id, FLARE_ERR_UNAVAILABLE);
    client_turns_read(&turns);
    assert_int_equal(stream->counts.nacked, 1);
    assert_int_equal(stream->counts.lost, 1);
    expect_closed(&turns, stream);
}

/* Refusals that go on do not put off the next try. */
static void test_refusals_do_not_wait_for_each_other(void **state)
{
    (void)state;
    struct client_turns turns;
    struct wire_frame frame;
    client_turns_init(&turns, &options, 64);
    struct flare_stream *stream = client_turns_stream(&turns, &holding);
    uint64_t id = open_stream(&turns);
    stream->is_closing = true;
    engine_turn(turns.client);
    fake_broker_expect(&turns.fake, WIRE_cancel, &frame);
    deliver(&turns, id, 0, 1);
    fake_broker_expect(&turns.fake, WIRE_nack, &frame);
    fake_broker_fail(&turns.fake, frame.id, FLARE_ERR_BUSY);
    client_turns_read(&turns);
    uint64_t due_us = intake_due_us(turns.client);
    client_turns_advance(&turns, 30);
    deliver(&turns, id, 1, 1);
    fake_broker_expect(&turns.fake, WIRE_nack, &frame);
    fake_broker_fail(&turns.fake, frame.id, FLARE_ERR_BUSY);
    client_turns_read(&turns);
    assert_true(intake_due_us(turns.client) == due_us);
    client_turns_advance(&turns, 20);
    for (uint32_t index = 0; index < 2; index++) {
        fake_broker_expect(&turns.fake, WIRE_nack, &frame);
        fake_broker_settle(&turns.fake, &frame, FLARE_OK);
    }
    send_ended(&turns, id);
    client_turns_read(&turns);
    expect_closed(&turns, stream);
}

/* ---- before the broker has seen it ------------------------------------------------------------
 */

static void on_pulled(void *user, struct flare_batch *batch, const struct flare_error *error)
{
    (void)user;
    (void)error;
    flare_batch_free(batch);
}

/* A pull takes all the room that there is for what waits in the broker. */
static uint64_t fill_window(struct client_turns *turns)
{
    static const struct flare_source source = {"t", "s"};
    static const struct flare_pull waiting = {.wait_ms = 10000};
    struct wire_frame frame;
    assert_int_equal(flare_pull_async(turns->client, &source, &waiting, on_pulled, NULL, NULL),
                     FLARE_OK);
    engine_turn(turns->client);
    fake_broker_expect(&turns->fake, WIRE_pull, &frame);
    return frame.id;
}

static void on_opened(struct flare_stream *stream, struct await *opening)
{
    assert_null(stream->opening);
    struct flare_error error;
    assert_true(await_wait(opening, 1, &error));
    assert_int_equal(opening->error.code, FLARE_OK);
    await_destroy(opening);
}

/* Whoever opens a stream learns what the broker says of it, and not of what was sent before. */
static void test_opened_when_it_is_sent(void **state)
{
    (void)state;
    struct client_turns turns;
    struct wire_frame frame;
    client_turns_init(&turns, &options, 2);
    uint64_t pull = fill_window(&turns);
    struct flare_stream *stream = client_turns_stream(&turns, &holding);
    struct await *opening = await_create(0, NULL);
    stream->opening = opening;
    engine_turn(turns.client);
    assert_true(fake_broker_is_quiet(&turns.fake, 0));
    fake_broker_deliver(&turns.fake, WIRE_pulled, pull, 0, 1);
    client_turns_read(&turns);
    fake_broker_expect(&turns.fake, WIRE_consume, &frame);
    uint64_t id = frame.id;
    assert_ptr_equal(stream->opening, opening);
    fake_broker_expect(&turns.fake, WIRE_ping, &frame);
    const struct wire_pong pong = {.id = frame.id};
    fake_broker_send(&turns.fake, WIRE_pong, &pong);
    client_turns_read(&turns);
    on_opened(stream, opening);
    close_stream(&turns, stream, id);
}

/* A stream that the broker has never heard of has nothing to wait for when it is closed. */
static void test_closed_before_it_is_sent(void **state)
{
    (void)state;
    struct client_turns turns;
    client_turns_init(&turns, &options, 2);
    (void)fill_window(&turns);
    struct flare_stream *stream = client_turns_stream(&turns, &holding);
    engine_turn(turns.client);
    assert_non_null(stream->consume);
    stream->is_closing = true;
    engine_turn(turns.client);
    assert_true(fake_broker_is_quiet(&turns.fake, 0));
    expect_closed(&turns, stream);
}

/* The room that was kept for it is the next one's. */
static void test_closed_when_there_is_room(void **state)
{
    (void)state;
    static const struct flare_source other = {"t", "other"};
    struct client_turns turns;
    struct wire_frame frame;
    client_turns_init(&turns, &options, 2);
    uint64_t pull = fill_window(&turns);
    struct flare_stream *stream = client_turns_stream(&turns, &holding);
    engine_turn(turns.client);
    assert_int_equal(flare_pull_async(turns.client, &other, NULL, on_pulled, NULL, NULL), FLARE_OK);
    engine_turn(turns.client);
    assert_true(fake_broker_is_quiet(&turns.fake, 0));
    stream->is_closing = true;
    fake_broker_deliver(&turns.fake, WIRE_pulled, pull, 0, 1);
    client_turns_read(&turns);
    fake_broker_expect(&turns.fake, WIRE_pull, &frame);
    assert_true(span_is(frame.pull.subscription, "other"));
    expect_closed(&turns, stream);
}

/* So it is when the consume waits behind other requests, and then the connection breaks. */
static void test_closed_while_the_window_is_full(void **state)
{
    (void)state;
    struct client_turns turns;
    const struct flare_message message = {.body = "x", .body_size = 1};
    client_turns_init(&turns, &options, 1);
    assert_int_equal(flare_publish_async(turns.client, "t", &message, NULL, NULL, NULL), FLARE_OK);
    engine_turn(turns.client);
    struct flare_stream *stream = client_turns_stream(&turns, &holding);
    engine_turn(turns.client);
    assert_non_null(stream->consume);
    stream->is_closing = true;
    engine_turn(turns.client);
    peer_lose(turns.client, &(struct flare_error){.code = FLARE_ERR_UNAVAILABLE});
    expect_closed(&turns, stream);
}

static enum flare_verdict handle(void *user, const struct flare_delivery *delivery)
{
    (void)user;
    (void)delivery;
    return FLARE_ACK;
}

/* Nobody waits any more for a stream that comes too late. */
static void test_opened_when_the_client_is_closed(void **state)
{
    (void)state;
    static const struct flare_source source = {"t", "s"};
    static const struct flare_stream_options handling = {.handler = handle};
    struct client_turns turns;
    struct flare_stream *stream = NULL;
    client_turns_init(&turns, &options, 64);
    turns.client->is_stopping = true;
    assert_int_equal(flare_stream_open(turns.client, &source, &handling, &stream, NULL),
                     FLARE_ERR_UNAVAILABLE);
    assert_null(stream);
    client_turns_deinit(&turns);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_extension_is_refused),
        cmocka_unit_test(test_refused_extension_comes_first),
        cmocka_unit_test(test_verdicts_are_given_up),
        cmocka_unit_test(test_refusals_do_not_wait_for_each_other),
        cmocka_unit_test(test_opened_when_it_is_sent),
        cmocka_unit_test(test_closed_before_it_is_sent),
        cmocka_unit_test(test_closed_when_there_is_room),
        cmocka_unit_test(test_closed_while_the_window_is_full),
        cmocka_unit_test(test_opened_when_the_client_is_closed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
