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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_opened_when_it_is_sent),
        cmocka_unit_test(test_closed_before_it_is_sent),
        cmocka_unit_test(test_closed_while_the_window_is_full),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
