/* broker/session: what a connection reads into, when it is read and when it is cut for what does
 * not come, over real volumes on memory stores and on simulated time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "broker/session/session_internal.h"
#include "broker/wire/writer.h"
#include "tests/lib/session_scene.h"

static struct sessions *const sessions = &session_scene.sessions;
static struct session_client *const client = &session_scene.client;

/* The client's connection, the only one that is open. */
static struct session_conn *connection(void)
{
    return container_of(list_first(&sessions->server->steps[SESSION_OPEN]), struct session_conn,
                        link);
}

/* Has the server read what is sent, however many turns it takes. */
static void send_and_turn(struct span bytes)
{
    uint64_t wanted = metrics_get(&sessions->metrics.wire_received_bytes_total) + bytes.size;
    session_client_send_raw(client, bytes);
    while (metrics_get(&sessions->metrics.wire_received_bytes_total) < wanted) {
        sessions_turn(sessions);
    }
}

/* A publish of one message of `size` bytes as one frame. */
static void put_publish(struct buf *out, uint64_t id, size_t size)
{
    struct wire_publish publish = {.id = id, .topic = span_text("t"), .messages.count = 1};
    uint8_t *body = calloc(1, size + 1);
    assert_non_null(body);
    const struct wire_message message = {.body = span_of(body, size)};
    buf_init(out, 1 << 20);
    size_t start = wire_begin(out, WIRE_publish, &publish);
    wire_put_record(out, WIRE_RECORD_message, &message);
    wire_end(out, start, WIRE_publish, &publish);
    assert_false(out->failed);
    free(body);
}

/* A frame larger than what is read at once is moved a few times, not with each piece of it. */
static void large_frames_are_copied_about_once(void **state)
{
    (void)state;
    enum { PIECE = 1024, SIZE = 290 * PIECE };
    struct buf frame;
    put_publish(&frame, 2, SIZE);
    const struct session_chunk *before = NULL;
    uint32_t chunks = 0;
    for (size_t at = 0; at < frame.size; at += PIECE) {
        size_t size = frame.size - at < PIECE ? frame.size - at : PIECE;
        send_and_turn(span_of(frame.data + at, size));
        chunks += at + size < frame.size && connection()->chunk != before;
        before = connection()->chunk;
    }
    assert_in_range(chunks, 1, 3); /* of 128 KiB, of 256 KiB and of the frame */
    (void)session_client_expect(client, WIRE_published, 2);
    buf_deinit(&frame);
}

/* Requests that come one by one and are not answered share what they were read into; once they are,
 * the connection holds nothing. */
static void small_requests_share_a_chunk(void **state)
{
    (void)state;
    uint32_t count = sessions_limits.window_requests - 1;
    session_scene_hold();
    for (uint64_t id = 2; id < 2 + count; id++) {
        struct buf frame;
        put_publish(&frame, id, 10);
        send_and_turn(buf_span(&frame));
        buf_deinit(&frame);
    }
    const struct session_conn *conn = connection();
    assert_int_equal(conn->request_count, count);
    assert_non_null(conn->chunk);
    assert_int_equal(conn->chunk->refs, 1 + count);
    session_scene_unhold();
    for (uint32_t index = 0; index < count; index++) {
        assert_int_equal(session_client_take(client)->type, WIRE_published);
    }
    assert_null(conn->chunk);
    assert_int_equal(sessions->server->chunk_count, 1);
}

/* A chunk that is full while requests refer to it is left to them, and reading goes on in another.
 */
static void a_full_chunk_is_left(void **state)
{
    (void)state;
    enum { COUNT = 6, SIZE = 50000 };
    session_scene_hold();
    for (uint64_t id = 2; id < 2 + COUNT; id++) {
        struct buf frame;
        put_publish(&frame, id, SIZE);
        send_and_turn(buf_span(&frame));
        buf_deinit(&frame);
    }
    assert_int_equal(connection()->request_count, COUNT);
    session_scene_unhold();
    for (uint32_t index = 0; index < COUNT; index++) {
        assert_int_equal(session_client_take(client)->type, WIRE_published);
    }
    assert_null(connection()->chunk);
    assert_in_range(sessions->server->chunk_count, 2, COUNT / 2);
}

/* Who stops in the middle of a frame is cut after the timeout, and not before; with every byte it
 * begins anew, so that a slow one is not. */
static void unfinished_frames_are_cut(void **state)
{
    (void)state;
    struct buf frame;
    put_publish(&frame, 2, 10);
    for (size_t at = 0; at < 3; at++) {
        send_and_turn(span_of(frame.data + at, 1));
        session_scene_pass_time(sessions_limits.write_timeout_ms - 1);
        assert_int_equal(metrics_get(&sessions->metrics.wire_timeouts_total), 0);
    }
    session_scene_pass_time(1);
    session_client_expect_failure(client, 0, ERR_TIMEOUT, "the rest of a frame");
    session_client_expect_end(client);
    assert_int_equal(metrics_get(&sessions->metrics.wire_timeouts_total), 1);
    buf_deinit(&frame);
}

/* Nothing is expected of a client that is between two frames, or that is not read. */
static void who_owes_nothing_is_not_cut(void **state)
{
    (void)state;
    session_scene_pass_time(2 * (uint64_t)sessions_limits.write_timeout_ms);
    session_scene_hold();
    for (uint64_t id = 2; id < 2 + sessions_limits.window_requests; id++) {
        session_client_publish(client, id, 1, 10);
    }
    session_client_send_raw(client, span_of("\0\0", 2));
    while (connection()->is_reading) {
        sessions_turn(sessions);
    }
    session_scene_pass_time(2 * (uint64_t)sessions_limits.write_timeout_ms);
    session_scene_unhold();
    for (uint32_t index = 0; index < sessions_limits.window_requests; index++) {
        assert_int_equal(session_client_take(client)->type, WIRE_published);
    }
    assert_true(connection()->is_reading);
    session_server_tick(sessions->server);
    assert_int_equal(metrics_get(&sessions->metrics.wire_timeouts_total), 0);
    session_client_send_raw(client, span_of("\0\x03\x92\x04\x07", 5)); /* the rest of a ping */
    (void)session_client_expect(client, WIRE_pong, 7);
}

/* Pulls that wait cannot fill the window, alone or with streams: the last one is answered at once,
 * and the connection is read on. */
static void waiting_pulls_leave_a_place(void **state)
{
    (void)state;
    uint32_t count = sessions_limits.window_requests;
    session_scene_open_stream(1, 0, 0);
    for (uint64_t id = 2; id <= count; id++) {
        session_scene_send_pull(id, 1, 10000);
    }
    (void)session_client_expect(client, WIRE_pulled, count);
    assert_int_equal(client->frame.pulled.deliveries.count, 0);
    session_scene_open_stream(count, 0, 0);
    session_client_expect_failure(client, count, ERR_BUSY, "window");
    session_client_send(client, WIRE_cancel, &(struct wire_cancel){.id = 1});
    (void)session_client_expect(client, WIRE_ended, 1);
    session_scene_send_pull(1, 1, 10000);
    assert_false(session_client_has_frame(client));
    assert_int_equal(router_waiting(sessions->volumes.router), count - 1);
}

/* Nor can they fill it by their bytes, however long their frames are. */
static void waiting_pulls_take_no_bytes(void **state)
{
    (void)state;
    enum { FRAME = 200000, PULLS = 8 };
    struct buf frame;
    const struct wire_pull pull = {.id = 2,
                                   .topic = span_text("t"),
                                   .subscription = span_text("s"),
                                   .max = 1,
                                   .wait_ms = 10000,
                                   .consumer = span_text("c")};
    buf_init(&frame, FRAME + 1000);
    wire_encode(&frame, WIRE_pull, &pull);
    /* A later version's field: one item more in the array, which is passed over. */
    assert_in_range(frame.data[WIRE_SIZE_BYTES], 0x90, 0x9e);
    frame.data[WIRE_SIZE_BYTES]++;
    uint8_t *bytes = calloc(1, FRAME);
    assert_non_null(bytes);
    writer_bin(&frame, span_of(bytes, FRAME));
    wire_frame_put_size(frame.data, (uint32_t)(frame.size - WIRE_SIZE_BYTES));
    free(bytes);
    for (uint8_t id = 2; id < 2 + PULLS; id++) {
        frame.data[WIRE_SIZE_BYTES + 2] = id;
        session_client_send_raw(client, buf_span(&frame));
    }
    session_client_send(client, WIRE_ping, &(struct wire_ping){.id = 100});
    (void)session_client_expect(client, WIRE_pong, 100);
    while (router_waiting(sessions->volumes.router) < PULLS) {
        sessions_turn(sessions);
    }
    assert_int_equal(connection()->request_size, 0);
    buf_deinit(&frame);
}

/* So the end of a client that waits with all its pulls is seen, and a message goes to another. */
static void waiting_pulls_end_with_their_client(void **state)
{
    (void)state;
    for (uint64_t id = 1; id <= sessions_limits.window_requests; id++) {
        session_scene_send_pull(id, 1, 10000);
    }
    (void)session_client_expect(client, WIRE_pulled, sessions_limits.window_requests);
    session_client_close(client);
    for (int turn = 0; turn < 1000 && router_waiting(sessions->volumes.router) > 0; turn++) {
        sessions_turn(sessions);
    }
    assert_int_equal(router_waiting(sessions->volumes.router), 0);
    session_client_open(client, sessions, false);
    session_client_publish(client, 2, 1, 10);
    (void)session_client_expect(client, WIRE_published, 2);
    session_scene_send_pull(3, 1, 10000);
    assert_int_equal(session_client_expect(client, WIRE_pulled, 3)->pulled.deliveries.count, 1);
}

/* The answer to a batch of the most messages fits in a frame, however small the messages, and with
 * them the greatest frame, may be. */
static void answers_to_batches_fit(void **state)
{
    (void)state;
    enum { MESSAGES = 10000 };
    struct session_limits limits = sessions_limits;
    struct sessions narrow;
    struct session_client publisher;
    limits.frame_size_max = 64 * 1024;
    limits.message_size_max = 1000;
    limits.batch_count_max = MESSAGES;
    sessions_open(&narrow, SESSION_SCENE_SHARDS, &limits);
    session_client_open(&publisher, &narrow, false);
    size_t frame_size_max = publisher.frame.welcome.frame_size_max;
    session_client_publish(&publisher, 2, MESSAGES, 1);
    const struct wire_frame *frame = session_client_expect(&publisher, WIRE_published, 2);
    assert_int_equal(frame->published.results.count, MESSAGES);
    assert_in_range(publisher.used, 0, WIRE_SIZE_BYTES + frame_size_max);
    session_client_close(&publisher);
    sessions_close(&narrow);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SESSION_SCENE_TEST(large_frames_are_copied_about_once),
        SESSION_SCENE_TEST(small_requests_share_a_chunk),
        SESSION_SCENE_TEST(a_full_chunk_is_left),
        SESSION_SCENE_TEST(unfinished_frames_are_cut),
        SESSION_SCENE_TEST(who_owes_nothing_is_not_cut),
        SESSION_SCENE_TEST(waiting_pulls_leave_a_place),
        SESSION_SCENE_TEST(waiting_pulls_take_no_bytes),
        SESSION_SCENE_TEST(waiting_pulls_end_with_their_client),
        SESSION_SCENE_TEST(answers_to_batches_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
