/* Publishes whose broker is lost, busy or silent. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <string.h>

#include "tests/lib/client_fixture.h"

/* ---- losing the connection --------------------------------------------------------------------
 */

/* What was not answered is sent again, the same bytes in the same order, before anything new. */
static void test_resend(void **state)
{
    (void)state;
    struct client_fixture fixture;
    struct wire_frame frame;
    struct buf sent[2];
    client_fixture_init(&fixture);
    fixture.options.linger_us = UINT32_MAX;
    fixture.options.batch_messages = 2;
    client_fixture_connect(&fixture);
    client_fixture_publish(&fixture, "t", NULL, "a0");
    client_fixture_publish(&fixture, "t", NULL, "a1");
    for (uint32_t index = 0; index < 2; index++) {
        buf_init(&sent[index], 4096);
        client_fixture_expect_publish(&fixture, &frame, "t", 2);
        buf_append_span(&sent[index], fake_broker_bytes(&fixture.fake));
        if (index == 0) {
            client_fixture_publish(&fixture, "t", NULL, "b0");
            client_fixture_publish(&fixture, "t", NULL, "b1");
        }
    }
    for (uint32_t round = 0; round < 3; round++) {
        fake_broker_refuse(&fixture.fake, 2);
        fake_broker_cut(&fixture.fake);
        if (round == 0) {
            client_fixture_publish(&fixture, "t", NULL, "c0");
            client_fixture_publish(&fixture, "t", NULL, "c1");
        }
        fake_broker_accept(&fixture.fake);
        for (uint32_t index = 0; index < 2; index++) {
            client_fixture_expect_publish(&fixture, &frame, "t", 2);
            assert_true(span_equal(fake_broker_bytes(&fixture.fake), buf_span(&sent[index])));
            if (round == 2) {
                fake_broker_publish(&fixture.fake, &frame, FLARE_OK, 1);
            }
        }
        if (round == 1) {
            client_fixture_expect_publish(&fixture, &frame, "t", 2);
        }
    }
    client_fixture_expect_publish(&fixture, &frame, "t", 2);
    client_fixture_expect_body(&frame, 0, "c0");
    fake_broker_publish(&fixture.fake, &frame, FLARE_OK, 4);
    client_box_wait(&fixture.box, 6);
    buf_deinit(&sent[0]);
    buf_deinit(&sent[1]);
    client_fixture_deinit(&fixture);
}

enum { SLOW_COUNT = 2000, SLOW_SIZE = 4000 };

/* Reads publishes until so many messages have come, and that their bodies count on. */
static void read_numbered(struct client_fixture *fixture, uint32_t count)
{
    struct wire_frame frame;
    struct wire_items items;
    struct wire_message message;
    uint32_t number = 0;
    while (number < count) {
        fake_broker_expect(&fixture->fake, WIRE_publish, &frame);
        wire_items_begin(&items, "messages", WIRE_RECORD_message, &frame.publish.messages);
        while (wire_items_next(&items, &message)) {
            uint32_t found = 0;
            assert_int_equal(message.body.size, SLOW_SIZE);
            memcpy(&found, message.body.data, sizeof found);
            assert_int_equal(found, number);
            number++;
        }
        assert_null(wire_items_finish(&items));
        fake_broker_publish(&fixture->fake, &frame, FLARE_OK, number);
    }
}

static void publish_numbered(struct client_fixture *fixture, uint32_t count)
{
    static char body[SLOW_SIZE];
    const struct flare_message message = {.body = body, .body_size = sizeof body};
    for (uint32_t number = 0; number < count; number++) {
        memcpy(body, &number, sizeof number);
        assert_int_equal(flare_publish_async(fixture->client, "t", &message,
                                             client_box_on_published, &fixture->box, NULL),
                         FLARE_OK);
    }
}

/* A broker that does not read holds nothing up but its own messages, and gets each when it reads
 * again; one that breaks off in the middle of a frame gets that again from its begin. */
static void test_slow_broker(void **state)
{
    (void)state;
    struct client_fixture fixture;
    struct wire_frame frame;
    client_fixture_init(&fixture);
    client_fixture_connect(&fixture);
    publish_numbered(&fixture, SLOW_COUNT);
    /* Some of it is in the socket by now, and the rest is not. */
    fake_broker_expect(&fixture.fake, WIRE_publish, &frame);
    fake_broker_cut(&fixture.fake);
    fake_broker_accept(&fixture.fake);
    read_numbered(&fixture, SLOW_COUNT);
    client_box_wait(&fixture.box, SLOW_COUNT);
    for (uint32_t index = 0; index < SLOW_COUNT; index++) {
        assert_int_equal(fixture.box.codes[index], FLARE_OK);
    }
    client_fixture_deinit(&fixture);
}

/* Once an answer was lost, a refusal of the next try does not say that nothing was published. */
static void test_refused_when_sent_again(void **state)
{
    (void)state;
    struct client_fixture fixture;
    struct wire_frame frame;
    client_fixture_init(&fixture);
    client_fixture_connect(&fixture);
    for (uint32_t round = 0; round < 4; round++) {
        bool is_doubtful = round < 2;
        client_fixture_publish(&fixture, "t", NULL, "a");
        client_fixture_expect_publish(&fixture, &frame, "t", 1);
        if (is_doubtful) {
            fake_broker_cut(&fixture.fake);
            fake_broker_accept(&fixture.fake);
            client_fixture_expect_publish(&fixture, &frame, "t", 1);
        }
        if (round % 2 == 0) {
            fake_broker_fail(&fixture.fake, frame.id, FLARE_ERR_NO_SPACE);
        } else {
            fake_broker_publish(&fixture.fake, &frame, FLARE_ERR_NO_SPACE, 0);
        }
        client_box_wait(&fixture.box, round + 1);
        assert_int_equal(fixture.box.codes[round],
                         is_doubtful ? FLARE_ERR_UNKNOWN : FLARE_ERR_NO_SPACE);
    }
    client_fixture_publish(&fixture, "t", NULL, "a");
    client_fixture_expect_publish(&fixture, &frame, "t", 1);
    fake_broker_cut(&fixture.fake);
    fake_broker_accept(&fixture.fake);
    client_fixture_expect_publish(&fixture, &frame, "t", 1);
    fake_broker_publish(&fixture.fake, &frame, FLARE_ERR_INVALID, 0);
    client_box_wait(&fixture.box, 5);
    assert_int_equal(fixture.box.codes[4], FLARE_ERR_INVALID);
    client_fixture_deinit(&fixture);
}

/* Without batch keys what may have been published is not known, and the rest is sent later. */
static void test_no_resend(void **state)
{
    (void)state;
    struct client_fixture fixture;
    struct wire_frame frame;
    client_fixture_init(&fixture);
    fixture.options.no_resend = true;
    client_fixture_connect(&fixture);
    client_fixture_publish(&fixture, "t", NULL, "a");
    client_fixture_expect_publish(&fixture, &frame, "t", 1);
    assert_int_equal(frame.publish.batch_key.size, 0);
    fake_broker_cut(&fixture.fake);
    client_box_wait(&fixture.box, 1);
    assert_int_equal(fixture.box.codes[0], FLARE_ERR_UNKNOWN);
    client_fixture_publish(&fixture, "t", NULL, "b");
    fake_broker_accept(&fixture.fake);
    client_fixture_expect_publish(&fixture, &frame, "t", 1);
    fake_broker_fail(&fixture.fake, frame.id, FLARE_ERR_BUSY);
    client_box_wait(&fixture.box, 2);
    assert_int_equal(fixture.box.codes[1], FLARE_ERR_BUSY);
    client_fixture_deinit(&fixture);
}

/* An answer with the wrong number of results is none: the batch is sent again. */
static void test_wrong_answer(void **state)
{
    (void)state;
    struct client_fixture fixture;
    struct wire_frame frame;
    client_fixture_init(&fixture);
    client_fixture_connect(&fixture);
    client_fixture_publish(&fixture, "t", NULL, "a");
    client_fixture_expect_publish(&fixture, &frame, "t", 1);
    frame.publish.messages.count = 2;
    fake_broker_publish(&fixture.fake, &frame, FLARE_OK, 1);
    fake_broker_accept(&fixture.fake);
    client_fixture_expect_publish(&fixture, &frame, "t", 1);
    const struct wire_pong pong = {.id = frame.id};
    fake_broker_send(&fixture.fake, WIRE_pong, &pong);
    fake_broker_accept(&fixture.fake);
    client_fixture_expect_publish(&fixture, &frame, "t", 1);
    fake_broker_publish(&fixture.fake, &frame, FLARE_OK, 1);
    client_box_wait(&fixture.box, 1);
    assert_int_equal(fixture.box.codes[0], FLARE_OK);
    client_fixture_deinit(&fixture);
}

/* True: another frame has come before the first callback was called. */
static bool comes_again(struct client_fixture *fixture)
{
    bool has_come = false;
    while (!has_come && client_box_count(&fixture->box) == 0) {
        has_come = !fake_broker_is_quiet(&fixture->fake, 10);
    }
    return has_come;
}

/* A busy broker is asked again, whatever form its answer has, and for a while only. */
static void test_busy(void **state)
{
    (void)state;
    struct client_fixture fixture;
    struct wire_frame frame;
    client_fixture_init(&fixture);
    client_fixture_connect(&fixture);
    client_fixture_publish(&fixture, "t", NULL, "a");
    client_fixture_expect_publish(&fixture, &frame, "t", 1);
    fake_broker_fail(&fixture.fake, frame.id, FLARE_ERR_UNAVAILABLE);
    client_fixture_expect_publish(&fixture, &frame, "t", 1);
    fake_broker_publish(&fixture.fake, &frame, FLARE_ERR_BUSY, 0);
    client_fixture_expect_publish(&fixture, &frame, "t", 1);
    fake_broker_publish(&fixture.fake, &frame, FLARE_OK, 9);
    client_box_wait(&fixture.box, 1);
    assert_int_equal(fixture.box.codes[0], FLARE_OK);
    client_fixture_deinit(&fixture);
    client_fixture_init(&fixture);
    fixture.options.give_up_ms = 300;
    client_fixture_connect(&fixture);
    client_fixture_publish(&fixture, "t", NULL, "b");
    uint32_t tries = 0;
    do {
        client_fixture_expect_publish(&fixture, &frame, "t", 1);
        fake_broker_fail(&fixture.fake, frame.id, FLARE_ERR_BUSY);
        tries++;
    } while (comes_again(&fixture));
    /* The first refusal never is the last; each pause is twice the one before. */
    assert_true(tries >= 2 && tries < 20);
    assert_int_equal(fixture.box.codes[0], FLARE_ERR_BUSY);
    client_fixture_deinit(&fixture);
}

/* A part of the broker that has failed holds up only the order of keys. */
static void test_unavailable(void **state)
{
    (void)state;
    struct client_fixture fixture;
    struct wire_frame frame;
    client_fixture_init(&fixture);
    fixture.options.linger_us = 1000;
    client_fixture_connect(&fixture);
    client_fixture_publish(&fixture, "t", NULL, "a");
    /* Its pauses grow until the other comes through between two tries. */
    bool has_come = false;
    for (uint32_t tries = 0; !has_come; tries++) {
        client_fixture_expect_publish(&fixture, &frame, "t", 1);
        has_come = frame.publish.messages.items.data[frame.publish.messages.items.size - 1] == 'b';
        enum flare_code code = has_come ? FLARE_OK : FLARE_ERR_UNAVAILABLE;
        fake_broker_publish(&fixture.fake, &frame, code, 1);
        if (tries == 2) {
            client_fixture_publish(&fixture, "t", NULL, "b");
        }
    }
    client_box_wait(&fixture.box, 1);
    assert_int_equal(fixture.box.codes[0], FLARE_OK);
    client_fixture_publish(&fixture, "t", "key", "c");
    client_fixture_expect_publish(&fixture, &frame, "t", 1);
    client_fixture_expect_body(&frame, 0, "a");
    fake_broker_publish(&fixture.fake, &frame, FLARE_OK, 1);
    client_fixture_expect_publish(&fixture, &frame, "t", 1);
    client_fixture_expect_body(&frame, 0, "c");
    client_fixture_deinit(&fixture);
}

static void on_state(void *user, enum flare_state to, const char *detail)
{
    struct client_box *box = user;
    (void)detail;
    if (to == FLARE_STATE_CONNECTED) {
        client_box_put(box, FLARE_OK, NULL);
    }
}

/* Without a connection for long, what waits is told so, and what had been sent is not known. */
static void test_give_up(void **state)
{
    (void)state;
    struct client_fixture fixture;
    struct wire_frame frame;
    static struct client_box states = {.lock = PTHREAD_MUTEX_INITIALIZER,
                                       .changed = PTHREAD_COND_INITIALIZER};
    client_fixture_init(&fixture);
    fixture.options.give_up_ms = 100;
    fixture.options.reconnect_max_ms = 20;
    fixture.options.on_state = on_state;
    fixture.options.user = &states;
    client_fixture_connect(&fixture);
    client_fixture_publish(&fixture, "t", NULL, "sent");
    client_fixture_expect_publish(&fixture, &frame, "t", 1);
    fake_broker_refuse(&fixture.fake, UINT32_MAX);
    fake_broker_cut(&fixture.fake);
    client_fixture_publish(&fixture, "t", NULL, "waits");
    client_box_wait(&fixture.box, 2);
    assert_int_equal(fixture.box.codes[0], FLARE_ERR_UNKNOWN);
    assert_int_equal(fixture.box.codes[1], FLARE_ERR_UNAVAILABLE);
    client_fixture_publish(&fixture, "t", NULL, "later");
    client_box_wait(&fixture.box, 3);
    assert_int_equal(fixture.box.codes[2], FLARE_ERR_UNAVAILABLE);
    fake_broker_refuse(&fixture.fake, 0);
    fake_broker_accept(&fixture.fake);
    client_box_wait(&states, 2);
    client_fixture_publish(&fixture, "t", NULL, "again");
    client_fixture_expect_publish(&fixture, &frame, "t", 1);
    client_fixture_expect_body(&frame, 0, "again");
    client_fixture_deinit(&fixture);
    assert_int_equal(fixture.box.count, 4);
    assert_int_equal(fixture.box.codes[3], FLARE_ERR_UNKNOWN);
}

/* After goodbye nothing is sent, answers are still taken, and the rest goes to the next broker. */
static void test_goodbye(void **state)
{
    (void)state;
    struct client_fixture fixture;
    struct wire_frame frame;
    struct wire_goodbye goodbye = {0};
    client_fixture_init(&fixture);
    client_fixture_connect(&fixture);
    client_fixture_publish(&fixture, "t", NULL, "a");
    client_fixture_expect_publish(&fixture, &frame, "t", 1);
    fake_broker_send(&fixture.fake, WIRE_goodbye, &goodbye);
    fake_broker_publish(&fixture.fake, &frame, FLARE_OK, 1);
    client_box_wait(&fixture.box, 1);
    client_fixture_publish(&fixture, "t", NULL, "b");
    assert_true(fake_broker_is_quiet(&fixture.fake, 30));
    fake_broker_accept(&fixture.fake);
    client_fixture_expect_publish(&fixture, &frame, "t", 1);
    client_fixture_expect_body(&frame, 0, "b");
    fake_broker_publish(&fixture.fake, &frame, FLARE_OK, 2);
    client_box_wait(&fixture.box, 2);
    client_fixture_deinit(&fixture);
}

/* A broker that takes less than before is not sent what it would hang up for; the one before may
 * have taken it. */
static void test_too_large_for_the_next_broker(void **state)
{
    (void)state;
    struct client_fixture fixture;
    struct wire_frame frame;
    static char body[100001];
    memset(body, 'x', 100000);
    client_fixture_init(&fixture);
    client_fixture_connect(&fixture);
    client_fixture_publish(&fixture, "t", NULL, body);
    client_fixture_expect_publish(&fixture, &frame, "t", 1);
    (void)pthread_mutex_lock(&fixture.fake.lock);
    fixture.fake.welcome.frame_size_max = 65536;
    (void)pthread_mutex_unlock(&fixture.fake.lock);
    fake_broker_cut(&fixture.fake);
    client_box_wait(&fixture.box, 1);
    assert_int_equal(fixture.box.codes[0], FLARE_ERR_UNKNOWN);
    assert_non_null(strstr(fixture.box.message, "65536 bytes"));
    client_fixture_deinit(&fixture);
}

/* Nobody answers: whoever waits gets his thread back, and a late answer does no harm. */
static void test_time_outs(void **state)
{
    (void)state;
    struct client_fixture fixture;
    struct flare_error error;
    struct wire_frame frame;
    const struct flare_message message = {.body = "a", .body_size = 1};
    client_fixture_init(&fixture);
    fixture.options.request_timeout_ms = 100;
    client_fixture_connect(&fixture);
    assert_int_equal(flare_publish(fixture.client, "t", &message, NULL, &error), FLARE_ERR_TIMEOUT);
    assert_int_equal(flare_flush(fixture.client, 1, &error), FLARE_ERR_TIMEOUT);
    fake_broker_accept(&fixture.fake);
    client_fixture_expect_publish(&fixture, &frame, "t", 1);
    fake_broker_publish(&fixture.fake, &frame, FLARE_OK, 1);
    client_fixture_publish(&fixture, "t", NULL, "after");
    client_fixture_serve(&fixture, 1);
    assert_int_equal(flare_flush(fixture.client, 20000, &error), FLARE_OK);
    client_fixture_deinit(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_resend),
        cmocka_unit_test(test_slow_broker),
        cmocka_unit_test(test_refused_when_sent_again),
        cmocka_unit_test(test_no_resend),
        cmocka_unit_test(test_wrong_answer),
        cmocka_unit_test(test_busy),
        cmocka_unit_test(test_unavailable),
        cmocka_unit_test(test_give_up),
        cmocka_unit_test(test_goodbye),
        cmocka_unit_test(test_too_large_for_the_next_broker),
        cmocka_unit_test(test_time_outs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
