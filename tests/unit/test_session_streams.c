/* broker/session: streams and their credit, clients that do not read what they asked for, and
 * requests in any order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "broker/base/random.h"
#include "tests/lib/session_scene.h"

static struct sessions *const sessions = &session_scene.sessions;
static struct session_client *const client = &session_scene.client;
static struct wire_delivery *const deliveries = session_scene.deliveries;

/* ---- streams --------------------------------------------------------------------------------- */

/* What streams bring within a while. */
static uint32_t deliveries_until_quiet(uint64_t id)
{
    uint32_t count = 0;
    while (session_client_has_frame(client)) {
        count += session_scene_delivered(id);
    }
    return count;
}

/* By another client: what a stream is given of a batch may come before the batch is answered, as it
 * may lie on two volumes. */
static void publish_aside(uint32_t count, size_t size)
{
    struct session_client other;
    session_client_open(&other, sessions, false);
    session_client_publish(&other, 2, count, size);
    (void)session_client_expect(&other, WIRE_published, 2);
    session_client_close(&other);
}

/* A stream brings as many messages as it was granted and no more. */
static void streams_keep_to_messages(void **state)
{
    (void)state;
    publish_aside(50, 10);
    session_scene_open_stream(3, 7, 100000);
    assert_int_equal(deliveries_until_quiet(3), 7);
    session_scene_grant(3, 0, 1000);
    assert_int_equal(deliveries_until_quiet(3), 0);
    session_scene_grant(3, 5, 0);
    assert_int_equal(deliveries_until_quiet(3), 5);
    session_scene_grant(3, 100, 0);
    assert_int_equal(deliveries_until_quiet(3), 38);
    publish_aside(1, 10);
    assert_int_equal(deliveries_until_quiet(3), 1);
    assert_int_equal(metrics_get(&sessions->metrics.wire_streams_open), 1);
}

/* Bytes likewise; the last message may overdraw them, and the debt is paid first. */
static void streams_keep_to_bytes(void **state)
{
    (void)state;
    publish_aside(10, 100);
    session_scene_open_stream(3, 100, 250);
    assert_in_range(deliveries_until_quiet(3), 2, 3);
    session_scene_grant(3, 0, 1 << 20);
    uint32_t rest = deliveries_until_quiet(3);
    assert_in_range(rest, 7, 8);
    publish_aside(2, 5000);
    (void)deliveries_until_quiet(3);
    session_client_send(client, WIRE_cancel, &(struct wire_cancel){.id = 3});
    assert_int_equal(session_client_expect(client, WIRE_ended, 3)->ended.code, 0);
    publish_aside(3, 5000);
    session_scene_open_stream(6, 100, 1);
    assert_int_equal(deliveries_until_quiet(6), 1);
    session_scene_grant(6, 0, 4999);
    assert_int_equal(deliveries_until_quiet(6), 0);
    session_scene_grant(6, 0, 1);
    assert_int_equal(deliveries_until_quiet(6), 1);
}

/* After ended nothing comes, and its credit is gone; what it had stays leased. Credit and a cancel
 * that have crossed with it are passed over. */
static void streams_are_cancelled(void **state)
{
    (void)state;
    session_scene_open_stream(2, 10, 1000);
    assert_false(session_client_has_frame(client));
    session_client_send(client, WIRE_cancel, &(struct wire_cancel){.id = 2});
    assert_int_equal(session_client_expect(client, WIRE_ended, 2)->ended.code, 0);
    session_scene_publish(3, 2, 10);
    assert_false(session_client_has_frame(client));
    session_scene_open_stream(2, 0, 0);
    session_client_send(client, WIRE_cancel, &(struct wire_cancel){.id = 2});
    assert_int_equal(session_client_expect(client, WIRE_ended, 2)->ended.code, 0);
    session_scene_grant(2, 1, 1);
    session_client_send(client, WIRE_cancel, &(struct wire_cancel){.id = 2});
    assert_false(session_client_has_frame(client));
    session_scene_send_pull(4, 10, 0);
    assert_int_equal(session_scene_pulled(4), 2);
}

/* A stream ends with its subscription; one of what does not exist does not begin. */
static void streams_end_with_their_subscription(void **state)
{
    (void)state;
    session_scene_open_stream(2, 10, 1000);
    assert_false(session_client_has_frame(client));
    assert_int_equal(volumes_drop_sub(&sessions->volumes, "t", "s"), ERR_NONE);
    assert_int_equal(session_client_expect(client, WIRE_ended, 2)->ended.code, ERR_NOT_FOUND);
    session_scene_open_stream(3, 10, 1000);
    session_client_expect_failure(client, 3, ERR_NOT_FOUND, "subscription");
}

/* A stream without credit does not go over to another subscription of the same name, whose receipts
 * would be refused: it ends when it would ask. */
static void streams_end_before_their_namesake(void **state)
{
    (void)state;
    session_scene_open_stream(2, 0, 0);
    assert_false(session_client_has_frame(client));
    assert_int_equal(volumes_drop_sub(&sessions->volumes, "t", "s"), ERR_NONE);
    assert_int_equal(volumes_put_sub(&sessions->volumes, "t", "s", NULL), ERR_NONE);
    session_scene_publish(3, 1, 10);
    session_scene_grant(2, 10, 1000);
    assert_int_equal(session_client_expect(client, WIRE_ended, 2)->ended.code, ERR_NOT_FOUND);
    assert_int_equal(metrics_get(&sessions->metrics.wire_streams_open), 0);
}

/* Streams cannot fill the window, or their credit could never be read. */
static void streams_leave_a_place(void **state)
{
    (void)state;
    uint32_t count = sessions_limits.window_requests;
    session_scene_publish(100, count, 10);
    for (uint64_t id = 1; id <= count; id++) {
        session_scene_open_stream(id, 0, 0);
    }
    session_client_expect_failure(client, count, ERR_BUSY, "window");
    for (uint64_t id = 1; id < count; id++) {
        session_scene_grant(id, 1, 1000);
        (void)session_client_expect(client, WIRE_deliver, id);
    }
}

/* A lease that runs out is delivered again over the stream, as the next attempt. */
static void streams_bring_what_comes_back(void **state)
{
    (void)state;
    session_scene_publish(2, 1, 10);
    session_scene_open_stream(3, 10, 1000);
    assert_int_equal(session_scene_delivered(3), 1);
    assert_int_equal(deliveries[0].attempt, 1);
    volumes_advance(&sessions->volumes, 30000);
    assert_int_equal(session_scene_delivered(3), 1);
    assert_int_equal(deliveries[0].attempt, 2);
}

/* ---- slow readers ---------------------------------------------------------------------------- */

/* A client that does not read is not given more than a bound, however much credit it has, and
 * others go on; when it reads it gets the rest. */
static void stalled_readers_are_bounded(void **state)
{
    (void)state;
    enum { COUNT = 100, SIZE = 100000 };
    struct session_client other;
    for (uint64_t id = 2; id < 2 + COUNT / 5; id++) {
        session_scene_publish(id, 5, SIZE);
    }
    session_client_open(&other, sessions, false);
    const struct wire_consume consume = {.id = 2,
                                         .topic = span_text("t"),
                                         .subscription = span_text("s"),
                                         .messages = 1 << 20,
                                         .bytes = 1 << 30};
    wire_encode(&other.out, WIRE_consume, &consume);
    (void)!write(other.fd, other.out.data, other.out.size);
    buf_reset(&other.out);
    for (int turn = 0; turn < 50; turn++) {
        sessions_turn(sessions);
        volumes_quiesce(&sessions->volumes);
    }
    /* About two frames of a megabyte in memory, and what the socket holds. */
    uint64_t given = metrics_get(&sessions->metrics.messages_delivered_total);
    assert_in_range(given, 10, 40);
    session_client_send(client, WIRE_ping, &(struct wire_ping){.id = 100});
    (void)session_client_expect(client, WIRE_pong, 100);
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
    sessions_open(&wide, SESSION_SCENE_SHARDS, &limits);
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
        assert_int_equal(session_client_deliveries(&reader, deliveries, SESSION_SCENE_DELIVERIES),
                         1);
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
    sessions_open(&narrow, SESSION_SCENE_SHARDS, &limits);
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
        session_scene_publish(id, 5, 100000);
    }
    session_scene_open_stream(30, 1 << 20, 1 << 30);
    while (metrics_get(&sessions->metrics.messages_delivered_total) < 10) {
        sessions_turn(sessions);
    }
    uint64_t open = metrics_get(&sessions->metrics.wire_connections_open);
    for (int round = 0; round < 3 && open > 0; round++) {
        session_scene_pass_time(sessions_limits.write_timeout_ms);
        sessions_turn(sessions);
        open = metrics_get(&sessions->metrics.wire_connections_open);
    }
    assert_int_equal(open, 0);
    assert_int_equal(metrics_get(&sessions->metrics.wire_timeouts_total), 1);
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
    assert_int_equal(volumes_put_sub(&sessions->volumes, "t", "s", &settings), ERR_NONE);
    for (uint32_t index = 0; index < CLIENTS; index++) {
        session_client_open(&clients[index], sessions, false);
    }
    for (uint32_t step = 0; step < STEPS; step++) {
        struct session_client *one = &clients[random_below(&random, CLIENTS)];
        send_any(one, &random);
        uint64_t chance = random_below(&random, 40);
        if (chance == 0) {
            session_client_send_raw(one, span_of("\0\0\0\x09\x93", 5)); /* part of a frame */
            session_client_close(one);
            session_client_open(one, sessions, false);
        } else if (chance == 1) {
            volumes_hold(&sessions->volumes, step % 2);
        } else if (chance < 6) {
            session_scene_unhold();
        } else if (chance == 6) {
            volumes_advance(&sessions->volumes, 1000);
        } else if (chance < 25) {
            sessions_turn(sessions);
        }
    }
    session_scene_unhold();
    for (uint32_t index = 0; index < CLIENTS; index++) {
        session_client_close(&clients[index]);
    }
    while (metrics_get(&sessions->metrics.wire_connections_open) > 1 ||
           router_pending(sessions->volumes.router) > 0) {
        sessions_turn(sessions);
    }
    assert_int_equal(metrics_get(&sessions->metrics.wire_streams_open), 0);
    assert_int_equal(router_waiting(sessions->volumes.router), 0);
    volumes_advance(&sessions->volumes, 1000);
    uint64_t published = metrics_get(&sessions->metrics.messages_published_total);
    assert_true(published > 0);
    uint64_t left = 0;
    for (uint32_t count = 1; count > 0; left += count) {
        session_scene_send_pull(2, 1000, 0);
        count = session_scene_pulled(2);
    }
    assert_int_equal(left, published);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SESSION_SCENE_TEST(streams_keep_to_messages),
        SESSION_SCENE_TEST(streams_keep_to_bytes),
        SESSION_SCENE_TEST(streams_are_cancelled),
        SESSION_SCENE_TEST(streams_end_with_their_subscription),
        SESSION_SCENE_TEST(streams_end_before_their_namesake),
        SESSION_SCENE_TEST(streams_leave_a_place),
        SESSION_SCENE_TEST(streams_bring_what_comes_back),
        SESSION_SCENE_TEST(stalled_readers_are_bounded),
        SESSION_SCENE_TEST(waiting_pulls_are_bounded),
        SESSION_SCENE_TEST(deliveries_fit_their_frame),
        SESSION_SCENE_TEST(stuck_writes_are_cut),
        SESSION_SCENE_TEST(disorder_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
