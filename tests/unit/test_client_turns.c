/* When the client's thread has something to do: it takes a turn then, and sleeps otherwise. The
 * test takes the turns, on a clock of its own. */
#include "tests/unit/client_fixture.h"

#include <sys/socket.h>
#include <unistd.h>

#include "client/engine.h"
#include "client/intake.h"

struct turns {
    struct flare_client *client;
    int broker; /* the other end of its connection */
};

static void turns_init(struct turns *turns)
{
    static const struct flare_options options = {.url = "localhost:1", .linger_us = 5000};
    int pair[2];
    assert_null(engine_create(&options, &turns->client));
    assert_null(engine_open_loop(turns->client));
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
    turns->broker = pair[1];
    clock_init_simulated(&turns->client->clock, 1000);
    turns->client->peer.socket = pair[0];
    turns->client->peer.step = PEER_READY;
    turns->client->has_greeted = true;
    turns->client->welcome =
        (struct wire_welcome){.frame_size_max = 1 << 20, .window_requests = 64};
    engine_turn(turns->client);
}

static void turns_deinit(struct turns *turns)
{
    const struct flare_error closed = {.code = FLARE_ERR_UNAVAILABLE};
    peer_stop(turns->client);
    peer_fail_all(turns->client, &closed);
    outbox_fail_all(turns->client, &closed);
    engine_close_loop(turns->client);
    engine_destroy(turns->client);
    (void)close(turns->broker);
}

/* An idle client has nothing to do. */
static void test_idle(void **state)
{
    (void)state;
    struct turns turns;
    turns_init(&turns);
    assert_true(turns.client->timer_due_us == UINT64_MAX);
    turns_deinit(&turns);
}

/* One that waits for an answer looks after it at half of the time, one with a batch that lingers
 * when that is over. */
static void test_lingering(void **state)
{
    (void)state;
    struct turns turns;
    const struct flare_message message = {.body = "x", .body_size = 1};
    turns_init(&turns);
    struct flare_client *client = turns.client;
    assert_int_equal(flare_publish_async(client, "t", &message, NULL, NULL, NULL), FLARE_OK);
    engine_turn(client);
    assert_true(client->timer_due_us == client->now_us + 15000000);
    assert_int_equal(flare_publish_async(client, "t", &message, NULL, NULL, NULL), FLARE_OK);
    engine_turn(client);
    assert_true(client->timer_due_us == client->now_us + 5000);
    assert_int_equal(client->peer.by_id.count, 1);
    clock_advance(&client->clock, 5);
    engine_turn(client);
    assert_int_equal(client->peer.by_id.count, 2);
    assert_true(client->outbox.due_us == UINT64_MAX);
    turns_deinit(&turns);
}

/* A stream that is being closed is not about to be opened again: its client used to take one turn
 * after the other until its last handler had returned. */
static void test_closing_stream_is_not_due(void **state)
{
    (void)state;
    static const struct flare_source source = {"t", "s"};
    static const struct flare_stream_options options = {.concurrency = 1, .bytes = 1000};
    struct turns turns;
    turns_init(&turns);
    struct flare_client *client = turns.client;
    struct flare_stream *stream = intake_create(client, &source, &options);
    assert_non_null(stream);
    stream->is_detached = false;
    list_append(&client->joining, &stream->link);
    stream->is_closing = true;
    stream->counts.running = 1;
    clock_advance(&client->clock, 1000);
    engine_turn(client);
    assert_false(stream->is_detached);
    assert_true(intake_due_us(client) == UINT64_MAX);
    stream->counts.running = 0;
    engine_turn(client);
    assert_true(stream->is_detached);
    intake_destroy(stream);
    turns_deinit(&turns);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_idle),
        cmocka_unit_test(test_lingering),
        cmocka_unit_test(test_closing_stream_is_not_due),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
