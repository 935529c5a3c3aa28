/* broker/session: how a connection begins, what it takes for a frame, and how it ends. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/lib/session_scene.h"

static struct sessions *const sessions = &session_scene.sessions;
static struct session_client *const client = &session_scene.client;

/* ---- the connection -------------------------------------------------------------------------- */

/* The welcome speaks the lower version and says the limits. */
static void welcome_says_the_limits(void **state)
{
    (void)state;
    const struct wire_welcome *welcome = &client->frame.welcome;
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
        session_client_open(&other, sessions, true);
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
    session_client_open(&other, sessions, true);
    session_client_send_raw(&other, span_of("\0\0\0", 3));
    session_scene_pass_time(sessions_limits.hello_timeout_ms - 1);
    assert_false(session_client_has_frame(&other));
    session_scene_pass_time(1);
    session_client_expect_failure(&other, 0, ERR_TIMEOUT, "hello");
    session_client_expect_end(&other);
    session_client_close(&other);
    assert_int_equal(metrics_get(&sessions->metrics.wire_timeouts_total), 1);
}

/* Over the limit a connection is told so; when one ends another is let in. */
static void connections_are_bounded(void **state)
{
    (void)state;
    struct session_client others[8];
    uint32_t let_in = sessions_limits.connections_max - 1;
    for (uint32_t index = 0; index < let_in; index++) {
        session_client_open(&others[index], sessions, false);
    }
    struct session_client over;
    session_client_open(&over, sessions, true);
    session_client_expect_failure(&over, 0, ERR_BUSY, "too many connections");
    session_client_expect_end(&over);
    session_client_close(&over);
    session_client_close(&others[0]);
    while (metrics_get(&sessions->metrics.wire_connections_open) > let_in) {
        sessions_turn(sessions);
    }
    session_client_open(&others[0], sessions, false);
    for (uint32_t index = 0; index < let_in; index++) {
        session_client_close(&others[index]);
    }
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
        session_client_send_raw(client, span_of(frames.data + at, 1));
        sessions_turn(sessions);
    }
    for (uint64_t id = 2; id < 6; id++) {
        (void)session_client_expect(client, WIRE_pong, id);
    }
    buf_deinit(&frames);
}

/* Frames larger than what is read at once are put together, at every place in what is read; one
 * byte over the limit ends the connection. */
static void large_frames(void **state)
{
    (void)state;
    for (uint64_t id = 2; id < 40; id++) {
        session_scene_publish(id, 1, (size_t)(id % 7) * 40000 + (size_t)id);
    }
    session_scene_publish(40, 3, 300000);
    uint8_t size[4];
    wire_frame_put_size(size, sessions_limits.frame_size_max + 1);
    session_client_send_raw(client, span_of(size, sizeof size));
    session_client_expect_failure(client, 0, ERR_TOO_LARGE, "frame_size_max");
    session_client_expect_end(client);
}

/* ---- the end --------------------------------------------------------------------------------- */

/* A stopping broker says goodbye, ends what waits with `unavailable`, and closes. */
static void drain_answers_all(void **state)
{
    (void)state;
    session_scene_open_stream(2, 10, 1000);
    session_scene_open_stream(3, 0, 0);
    session_scene_send_pull(4, 1, 10000);
    assert_false(session_client_has_frame(client));
    assert_int_equal(session_server_pending(sessions->server), 1);
    router_drain(sessions->volumes.router);
    session_server_drain(sessions->server);
    (void)session_client_expect(client, WIRE_goodbye, 0);
    bool ended[5] = {false};
    for (int count = 0; count < 3; count++) {
        const struct wire_frame *frame = session_client_take(client);
        assert_in_range(frame->id, 2, 4);
        assert_int_equal(frame->type, frame->id == 4 ? WIRE_failure : WIRE_ended);
        assert_int_equal(frame->id == 4 ? frame->failure.code : frame->ended.code, ERR_UNAVAILABLE);
        assert_false(ended[frame->id]);
        ended[frame->id] = true;
    }
    session_client_expect_end(client);
    assert_int_equal(session_server_pending(sessions->server), 0);
    err_t err = session_server_adopt(sessions->server, -1);
    assert_int_equal(err_code(err), ERR_UNAVAILABLE);
    err_free(err);
}

/* A publish that both volumes have and do not answer. */
static void hold_publish(uint64_t id)
{
    session_scene_hold();
    session_client_publish(client, id, SESSION_SCENE_SHARDS, 10);
    while (!volumes_is_held(&sessions->volumes, 0) || !volumes_is_held(&sessions->volumes, 1)) {
        sessions_turn(sessions);
    }
}

/* A client that goes on sending while the broker stops is answered what was begun, once it has
 * been, and nothing else. */
static void drain_answers_who_goes_on_sending(void **state)
{
    (void)state;
    hold_publish(2);
    router_drain(sessions->volumes.router);
    session_server_drain(sessions->server);
    (void)session_client_expect(client, WIRE_goodbye, 0);
    for (uint64_t id = 3; id < 10; id++) {
        session_client_publish(client, id, 1, 60000);
        sessions_turn(sessions);
    }
    session_scene_unhold();
    (void)session_client_expect(client, WIRE_published, 2);
    session_client_expect_end(client);
    assert_int_equal(metrics_get(&sessions->metrics.messages_published_total),
                     SESSION_SCENE_SHARDS);
}

/* What the volumes answer at the very end, when the time to drain is over, still leaves. */
static void late_answers_leave(void **state)
{
    (void)state;
    struct router *router = sessions->volumes.router;
    hold_publish(2);
    router_drain(router);
    session_server_drain(sessions->server);
    (void)session_client_expect(client, WIRE_goodbye, 0);
    session_scene_unhold();
    while (router_pending(router) > 0) {
        volumes_turn(&sessions->volumes);
    }
    sessions_destroy_server(sessions);
    (void)session_client_expect(client, WIRE_published, 2);
    session_client_expect_end(client);
}

/* It listens on an address too, and says which; a bad one is refused. */
static void it_listens(void **state)
{
    (void)state;
    assert_string_equal(session_server_address(sessions->server), "");
    assert_null(session_server_listen(sessions->server, "127.0.0.1:0"));
    assert_non_null(strstr(session_server_address(sessions->server), "127.0.0.1:"));
    assert_null(strstr(session_server_address(sessions->server), ":0:"));
}

/* What is no socket is not adopted, and stays its owner's. */
static void only_sockets_are_adopted(void **state)
{
    (void)state;
    int file = open("/dev/null", O_RDWR | O_CLOEXEC);
    const int fds[] = {-1, file};
    assert_true(file >= 0);
    for (size_t index = 0; index < 2; index++) {
        err_t err = session_server_adopt(sessions->server, fds[index]);
        assert_int_equal(err_code(err), ERR_IO);
        err_free(err);
    }
    sessions_turn(sessions);
    assert_int_equal(close(file), 0);
    assert_int_equal(metrics_get(&sessions->metrics.wire_connections_open), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SESSION_SCENE_TEST(welcome_says_the_limits),
        SESSION_SCENE_TEST(first_frame_must_be_hello),
        SESSION_SCENE_TEST(silence_is_cut),
        SESSION_SCENE_TEST(connections_are_bounded),
        SESSION_SCENE_TEST(frames_come_in_pieces),
        SESSION_SCENE_TEST(large_frames),
        SESSION_SCENE_TEST(drain_answers_all),
        SESSION_SCENE_TEST(drain_answers_who_goes_on_sending),
        SESSION_SCENE_TEST(late_answers_leave),
        SESSION_SCENE_TEST(it_listens),
        SESSION_SCENE_TEST(only_sockets_are_adopted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
