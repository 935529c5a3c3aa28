/* When the client's thread has something to do: it takes a turn then, and sleeps otherwise. The
 * test takes the turns, on a clock of its own. */
#include "tests/unit/client_turns.h"

#include <stdio.h>

static const struct flare_options options = {.linger_us = 5000};

/* An idle client has nothing to do. */
static void test_idle(void **state)
{
    (void)state;
    struct client_turns turns;
    client_turns_init(&turns, &options, 64);
    assert_true(turns.client->timer_due_us == UINT64_MAX);
    client_turns_deinit(&turns);
}

/* One that waits for an answer looks after it at half of the time, one with a batch that lingers
 * when that is over. */
static void test_lingering(void **state)
{
    (void)state;
    struct client_turns turns;
    const struct flare_message message = {.body = "x", .body_size = 1};
    client_turns_init(&turns, &options, 64);
    struct flare_client *client = turns.client;
    assert_int_equal(flare_publish_async(client, "t", &message, NULL, NULL, NULL), FLARE_OK);
    engine_turn(client);
    assert_true(client->timer_due_us == client->now_us + 15000000);
    assert_int_equal(flare_publish_async(client, "t", &message, NULL, NULL, NULL), FLARE_OK);
    engine_turn(client);
    assert_true(client->timer_due_us == client->now_us + 5000);
    assert_int_equal(client->peer.by_id.count, 1);
    client_turns_advance(&turns, 5);
    assert_int_equal(client->peer.by_id.count, 2);
    assert_true(client->outbox.due_us == UINT64_MAX);
    client_turns_deinit(&turns);
}

static size_t memory_of(const struct outbox *outbox)
{
    size_t size = 0;
    for (struct list_link *link = list_first(&outbox->all); link != NULL;
         link = list_next(&outbox->all, link)) {
        const struct outbox_batch *batch = container_of(link, struct outbox_batch, all_link);
        size += sizeof *batch + batch->records.capacity +
                batch->entries_capacity * sizeof batch->entries[0];
    }
    return size;
}

/* `unconfirmed_size` bounds what publishes take, also when each small one has a batch of its own:
 * of memory that grows by doubling it counts a half at least. */
static void test_memory_is_counted(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 500, 3000, 40000};
    static const char body[40000];
    struct client_turns turns;
    client_turns_init(&turns, &options, 64);
    const struct outbox *outbox = &turns.client->outbox;
    for (uint32_t index = 0; index < 200; index++) {
        const struct flare_message message = {.body = body, .body_size = sizes[index % 5]};
        char topic[16];
        (void)snprintf(topic, sizeof topic, "topic-%u", index % 150);
        assert_int_equal(flare_publish_async(turns.client, topic, &message, NULL, NULL, NULL),
                         FLARE_OK);
        assert_true(memory_of(outbox) <= 2 * outbox->unconfirmed_size);
    }
    engine_turn(turns.client);
    client_turns_deinit(&turns);
}

/* More than the socket takes. */
static void publish_large(struct flare_client *client)
{
    static char body[1 << 20];
    const struct flare_message message = {.body = body, .body_size = sizeof body};
    assert_int_equal(flare_publish_async(client, "t", &message, NULL, NULL, NULL), FLARE_OK);
    engine_turn(client);
}

/* A broker that has died while the very first frame was being written owes no answer yet, but is to
 * read on. */
static void test_death_within_a_frame(void **state)
{
    (void)state;
    struct client_turns turns;
    client_turns_init(&turns, &options, 64);
    struct flare_client *client = turns.client;
    client_turns_advance(&turns, 100000);
    publish_large(client);
    assert_true(client->peer.written > 0 && list_empty(&client->peer.sent));
    assert_true(client->timer_due_us == client->now_us + 15000000);
    client_turns_advance(&turns, 15000);
    assert_int_equal(client->peer.step, PEER_READY);
    client_turns_advance(&turns, 15000);
    assert_int_equal(client->peer.step, PEER_PAUSING);
    client_turns_deinit(&turns);
}

/* What waits for the broker's window is not woken because the socket has room: the client's thread
 * used to take one turn after the other. */
static void test_full_window_is_not_room(void **state)
{
    (void)state;
    struct client_turns turns;
    struct wire_frame frame;
    const struct wire_goodbye goodbye = {0};
    client_turns_init(&turns, &options, 1);
    struct flare_client *client = turns.client;
    assert_int_equal(client->peer.events, UV_READABLE);
    publish_large(client);
    assert_int_equal(client->peer.events, UV_READABLE | UV_WRITABLE);
    const struct flare_message message = {.body = "x", .body_size = 1};
    assert_int_equal(flare_publish_async(client, "u", &message, NULL, NULL, NULL), FLARE_OK);
    while (list_empty(&client->peer.sent)) {
        fake_broker_take(&turns.fake);
        engine_turn(client);
    }
    fake_broker_expect(&turns.fake, WIRE_publish, &frame);
    assert_false(list_empty(&client->peer.pending));
    assert_int_equal(client->peer.events, UV_READABLE);
    fake_broker_publish(&turns.fake, &frame, FLARE_OK, 1);
    client_turns_read(&turns);
    fake_broker_expect(&turns.fake, WIRE_publish, &frame);
    fake_broker_publish(&turns.fake, &frame, FLARE_OK, 2);
    client_turns_read(&turns);
    publish_large(client);
    assert_int_equal(client->peer.events, UV_READABLE | UV_WRITABLE);
    fake_broker_send(&turns.fake, WIRE_goodbye, &goodbye);
    client_turns_read(&turns);
    assert_int_equal(client->peer.step, PEER_LEAVING);
    assert_int_equal(client->peer.events, UV_READABLE);
    client_turns_deinit(&turns);
}

/* A stream that is being closed is not about to be opened again: its client used to take one turn
 * after the other until its last handler had returned. */
static void test_closing_stream_is_not_due(void **state)
{
    (void)state;
    static const struct flare_stream_options small = {.concurrency = 1, .bytes = 1000};
    struct client_turns turns;
    client_turns_init(&turns, &options, 64);
    struct flare_client *client = turns.client;
    struct flare_stream *stream = client_turns_stream(&turns, &small);
    stream->is_closing = true;
    stream->counts.running = 1;
    client_turns_advance(&turns, 1000);
    assert_false(stream->is_detached);
    assert_true(intake_due_us(client) == UINT64_MAX);
    stream->counts.running = 0;
    engine_turn(client);
    assert_true(stream->is_detached);
    intake_destroy(stream);
    client_turns_deinit(&turns);
}

/* A broker that answers wrongly whenever it is asked is left for a while, although it answers. */
static void test_pause_after_a_wrong_answer(void **state)
{
    (void)state;
    struct client_turns turns;
    struct wire_frame frame;
    const struct flare_message message = {.body = "x", .body_size = 1};
    client_turns_init(&turns, &options, 64);
    struct flare_client *client = turns.client;
    client->peer.tries = 1;
    assert_int_equal(flare_publish_async(client, "t", &message, NULL, NULL, NULL), FLARE_OK);
    engine_turn(client);
    fake_broker_expect(&turns.fake, WIRE_publish, &frame);
    frame.publish.messages.count = 2;
    fake_broker_publish(&turns.fake, &frame, FLARE_OK, 1);
    client_turns_read(&turns);
    assert_int_equal(client->peer.step, PEER_PAUSING);
    assert_true(client->peer.step_due_us == client->now_us + 50000);
    client_turns_deinit(&turns);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_idle),
        cmocka_unit_test(test_lingering),
        cmocka_unit_test(test_memory_is_counted),
        cmocka_unit_test(test_death_within_a_frame),
        cmocka_unit_test(test_full_window_is_not_room),
        cmocka_unit_test(test_closing_stream_is_not_due),
        cmocka_unit_test(test_pause_after_a_wrong_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
