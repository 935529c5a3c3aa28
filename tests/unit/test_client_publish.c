/* Publishing while all goes well: batches, and room for what is not confirmed yet. What becomes of
 * it when the broker is lost, busy or silent is in test_client_resend.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "tests/lib/client_fixture.h"

/* ---- batches ----------------------------------------------------------------------------------
 */

static void test_results(void **state)
{
    (void)state;
    struct client_fixture fixture;
    struct wire_frame frame;
    client_fixture_init(&fixture);
    client_fixture_connect(&fixture);
    client_fixture_publish(&fixture, "t", NULL, "x");
    client_fixture_expect_publish(&fixture, &frame, "t", 1);
    assert_int_equal(frame.publish.batch_key.size, 16);
    fake_broker_publish(&fixture.fake, &frame, FLARE_OK, 17);
    client_box_wait(&fixture.box, 1);
    assert_int_equal(fixture.box.results[0].code, FLARE_OK);
    assert_string_equal(fixture.box.results[0].id, "ab0102030405060708090aff");
    assert_int_equal(fixture.box.results[0].shard, 3);
    assert_int_equal(fixture.box.results[0].sequence, 17);
    assert_false(fixture.box.results[0].replayed);
    assert_false(fixture.box.results[0].relaxed);
    client_fixture_publish(&fixture, "t", NULL, "y");
    client_fixture_expect_publish(&fixture, &frame, "t", 1);
    fake_broker_publish(&fixture.fake, &frame, FLARE_ERR_QUOTA, 0);
    client_box_wait(&fixture.box, 2);
    assert_int_equal(fixture.box.codes[1], FLARE_ERR_QUOTA);
    assert_string_equal(fixture.box.message, "The topic is over its quota");
    assert_string_equal(fixture.box.results[1].id, "");
    client_fixture_publish(&fixture, "t", NULL, "z");
    client_fixture_expect_publish(&fixture, &frame, "t", 1);
    fake_broker_fail(&fixture.fake, frame.id, FLARE_ERR_NOT_FOUND);
    client_box_wait(&fixture.box, 3);
    assert_int_equal(fixture.box.codes[2], FLARE_ERR_NOT_FOUND);
    assert_string_equal(fixture.box.message, "said by the fake");
    client_fixture_deinit(&fixture);
}

/* The first goes at once; what comes while it is under way goes together when it is answered. */
static void test_batches_by_confirmation(void **state)
{
    (void)state;
    struct client_fixture fixture;
    struct wire_frame first;
    struct wire_frame frame;
    client_fixture_init(&fixture);
    fixture.options.linger_us = 60000000;
    client_fixture_connect(&fixture);
    client_fixture_publish(&fixture, "t", NULL, "m0");
    client_fixture_expect_publish(&fixture, &first, "t", 1);
    for (uint32_t index = 1; index < 100; index++) {
        char body[16];
        (void)snprintf(body, sizeof body, "m%u", index);
        client_fixture_publish(&fixture, "t", NULL, body);
    }
    assert_true(fake_broker_is_quiet(&fixture.fake, 30));
    fake_broker_publish(&fixture.fake, &first, FLARE_OK, 1);
    client_fixture_expect_publish(&fixture, &frame, "t", 99);
    client_fixture_expect_body(&frame, 0, "m1");
    client_fixture_expect_body(&frame, 98, "m99");
    fake_broker_publish(&fixture.fake, &frame, FLARE_OK, 2);
    client_box_wait(&fixture.box, 100);
    for (uint32_t index = 0; index < 100; index++) {
        assert_int_equal(fixture.box.results[index].sequence, 1 + index);
    }
    client_fixture_deinit(&fixture);
}

struct client_echo {
    struct client_fixture *fixture;
    uint32_t left;
};

static void on_published_again(void *user, const struct flare_result *result,
                               const struct flare_error *error)
{
    struct client_echo *echo = user;
    const struct flare_message message = {.body = "again", .body_size = 5};
    (void)error;
    client_box_put(&echo->fixture->box, result->code, NULL);
    if (echo->left > 0) {
        echo->left--;
        (void)flare_publish_async(echo->fixture->client, "t", &message, on_published_again, echo,
                                  NULL);
    }
}

/* What the callbacks of one answer publish leaves in one frame. */
static void test_batches_from_callbacks(void **state)
{
    (void)state;
    struct client_fixture fixture;
    struct client_echo echo = {.fixture = &fixture, .left = 120};
    struct flare_message messages[40];
    struct wire_frame frame;
    client_fixture_init(&fixture);
    fixture.options.linger_us = 60000000;
    client_fixture_connect(&fixture);
    client_fixture_publish(&fixture, "t", NULL, "m0");
    client_fixture_expect_publish(&fixture, &frame, "t", 1);
    for (uint32_t index = 0; index < 40; index++) {
        messages[index] = (struct flare_message){.body = "x", .body_size = 1};
        assert_int_equal(flare_publish_async(fixture.client, "t", &messages[index],
                                             on_published_again, &echo, NULL),
                         FLARE_OK);
    }
    fake_broker_publish(&fixture.fake, &frame, FLARE_OK, 1);
    for (uint32_t round = 0; round < 4; round++) {
        client_fixture_expect_publish(&fixture, &frame, "t", 40);
        fake_broker_publish(&fixture.fake, &frame, FLARE_OK, 1);
    }
    client_box_wait(&fixture.box, 161);
    client_fixture_deinit(&fixture);
}

/* Full by count, and full by size: both go without waiting. */
static void test_full_batches(void **state)
{
    (void)state;
    struct client_fixture fixture;
    struct wire_frame frame;
    char body[1001];
    memset(body, 'x', 1000);
    body[1000] = '\0';
    client_fixture_init(&fixture);
    fixture.options.linger_us = UINT32_MAX;
    fixture.options.batch_messages = 10;
    fixture.options.batch_size = 5000;
    client_fixture_connect(&fixture);
    for (uint32_t index = 0; index < 10; index++) {
        client_fixture_publish(&fixture, "count", NULL, "x");
    }
    client_fixture_expect_publish(&fixture, &frame, "count", 10);
    for (uint32_t index = 0; index < 5; index++) {
        client_fixture_publish(&fixture, "size", NULL, body);
    }
    client_fixture_expect_publish(&fixture, &frame, "size", 4);
    client_fixture_publish(&fixture, "count", NULL, "lingers");
    assert_true(fake_broker_is_quiet(&fixture.fake, 30));
    client_fixture_deinit(&fixture);
    assert_int_equal(fixture.box.count, 16);
}

static void test_broker_bounds_batches(void **state)
{
    (void)state;
    struct client_fixture fixture;
    struct wire_frame frame;
    client_fixture_init(&fixture);
    fixture.options.linger_us = UINT32_MAX;
    fixture.fake.welcome.batch_messages_max = 3;
    client_fixture_connect(&fixture);
    for (uint32_t index = 0; index < 3; index++) {
        client_fixture_publish(&fixture, "t", NULL, "x");
    }
    client_fixture_expect_publish(&fixture, &frame, "t", 3);
    client_fixture_deinit(&fixture);
}

/* Lingering ends by itself while earlier ones are under way. */
static void test_linger(void **state)
{
    (void)state;
    struct client_fixture fixture;
    struct wire_frame frame;
    client_fixture_init(&fixture);
    fixture.options.linger_us = 5000;
    client_fixture_connect(&fixture);
    client_fixture_publish(&fixture, "t", NULL, "a");
    client_fixture_expect_publish(&fixture, &frame, "t", 1);
    client_fixture_publish(&fixture, "t", NULL, "b");
    client_fixture_expect_publish(&fixture, &frame, "t", 1);
    client_fixture_expect_body(&frame, 0, "b");
    client_fixture_deinit(&fixture);
}

/* A batch with keys waits for the one before, which the broker might refuse. */
static void test_keys_keep_order(void **state)
{
    (void)state;
    struct client_fixture fixture;
    struct wire_frame first;
    struct wire_frame frame;
    client_fixture_init(&fixture);
    fixture.options.linger_us = 60000000;
    fixture.options.batch_messages = 2;
    client_fixture_connect(&fixture);
    client_fixture_publish(&fixture, "t", "k", "a");
    client_fixture_expect_publish(&fixture, &first, "t", 1);
    for (uint32_t index = 0; index < 4; index++) {
        client_fixture_publish(&fixture, "t", "k", "b");
    }
    assert_true(fake_broker_is_quiet(&fixture.fake, 30));
    fake_broker_fail(&fixture.fake, first.id, FLARE_ERR_BUSY);
    client_fixture_expect_publish(&fixture, &frame, "t", 1);
    client_fixture_expect_body(&frame, 0, "a");
    fake_broker_publish(&fixture.fake, &frame, FLARE_OK, 1);
    client_fixture_expect_publish(&fixture, &frame, "t", 2);
    assert_true(fake_broker_is_quiet(&fixture.fake, 30));
    fake_broker_publish(&fixture.fake, &frame, FLARE_OK, 2);
    client_fixture_expect_publish(&fixture, &frame, "t", 2);
    fake_broker_publish(&fixture.fake, &frame, FLARE_OK, 4);
    client_box_wait(&fixture.box, 5);
    client_fixture_deinit(&fixture);
}

/* More topics than are remembered, and each gets its own frames. */
static void test_many_topics(void **state)
{
    (void)state;
    struct client_fixture fixture;
    struct wire_frame frame;
    client_fixture_init(&fixture);
    client_fixture_connect(&fixture);
    for (uint32_t round = 0; round < 2; round++) {
        for (uint32_t index = 0; index < 600; index++) {
            char topic[16];
            (void)snprintf(topic, sizeof topic, "topic-%u", index);
            client_fixture_publish(&fixture, topic, NULL, "x");
            client_fixture_expect_publish(&fixture, &frame, topic, 1);
            fake_broker_publish(&fixture.fake, &frame, FLARE_OK, 1);
        }
        client_box_wait(&fixture.box, 600 * (round + 1));
    }
    client_fixture_deinit(&fixture);
}

/* A topic is remembered as long as anything of it waits. */
static void test_many_topics_fail(void **state)
{
    (void)state;
    struct client_fixture fixture;
    client_fixture_init(&fixture);
    fixture.options.batch_messages = 1;
    client_fixture_connect(&fixture);
    fake_broker_refuse(&fixture.fake, UINT32_MAX);
    fake_broker_cut(&fixture.fake);
    for (uint32_t index = 0; index < 1200; index++) {
        char topic[16];
        (void)snprintf(topic, sizeof topic, "topic-%u", index % 400);
        client_fixture_publish(&fixture, topic, "k", "x");
    }
    client_fixture_deinit(&fixture);
    assert_int_equal(fixture.box.count, 1200);
    for (uint32_t index = 0; index < 1200; index++) {
        assert_int_not_equal(fixture.box.codes[index], FLARE_OK);
    }
}

/* ---- room -------------------------------------------------------------------------------------
 */

static void on_published_and_fill(void *user, const struct flare_result *result,
                                  const struct flare_error *error)
{
    struct client_fixture *fixture = user;
    static char body[4000];
    const struct flare_message message = {.body = body, .body_size = sizeof body};
    enum flare_code code = FLARE_OK;
    (void)result;
    (void)error;
    for (uint32_t index = 0; index < 10 && code == FLARE_OK; index++) {
        code = flare_publish_async(fixture->client, "t", &message, NULL, NULL, NULL);
    }
    client_box_put(&fixture->box, code, NULL);
}

/* In a callback nothing can wait for room, so it is refused. */
static void test_room_in_a_callback(void **state)
{
    (void)state;
    struct client_fixture fixture;
    struct wire_frame frame;
    const struct flare_message message = {.body = "x", .body_size = 1};
    client_fixture_init(&fixture);
    fixture.options.unconfirmed_size = 10000;
    client_fixture_connect(&fixture);
    assert_int_equal(
        flare_publish_async(fixture.client, "t", &message, on_published_and_fill, &fixture, NULL),
        FLARE_OK);
    client_fixture_expect_publish(&fixture, &frame, "t", 1);
    fake_broker_publish(&fixture.fake, &frame, FLARE_OK, 1);
    client_box_wait(&fixture.box, 1);
    assert_int_equal(fixture.box.codes[0], FLARE_ERR_BUSY);
    client_fixture_expect_publish(&fixture, &frame, "t", 2);
    client_fixture_deinit(&fixture);
}

static void *publish_ten(void *context)
{
    struct client_fixture *fixture = context;
    static char body[4000];
    const struct flare_message message = {.body = body, .body_size = sizeof body};
    for (uint32_t index = 0; index < 10; index++) {
        (void)flare_publish_async(fixture->client, "t", &message, client_box_on_published,
                                  &fixture->box, NULL);
    }
    return NULL;
}

/* A thread waits for room, also for that of what would linger. */
static void test_room_in_a_thread(void **state)
{
    (void)state;
    struct client_fixture fixture;
    struct wire_frame frame;
    pthread_t thread;
    client_fixture_init(&fixture);
    fixture.options.unconfirmed_size = 10000;
    fixture.options.linger_us = UINT32_MAX;
    client_fixture_connect(&fixture);
    assert_int_equal(pthread_create(&thread, NULL, publish_ten, &fixture), 0);
    for (uint32_t index = 0; index < 4; index++) {
        client_fixture_expect_publish(&fixture, &frame, "t", 2);
        fake_broker_publish(&fixture.fake, &frame, FLARE_OK, 1);
    }
    assert_int_equal(pthread_join(thread, NULL), 0);
    client_box_wait(&fixture.box, 8);
    client_fixture_deinit(&fixture);
}

/* What blocks does not wait for room for ever. */
static void test_no_room_in_time(void **state)
{
    (void)state;
    struct client_fixture fixture;
    struct flare_error error;
    static const char body[4000];
    const struct flare_message message = {.body = body, .body_size = sizeof body};
    client_fixture_init(&fixture);
    fixture.options.unconfirmed_size = 6000;
    fixture.options.request_timeout_ms = 50;
    client_fixture_connect(&fixture);
    client_fixture_publish(&fixture, "t", NULL, "x");
    assert_int_equal(flare_publish(fixture.client, "t", &message, NULL, &error), FLARE_ERR_TIMEOUT);
    assert_int_equal(flare_publish(fixture.client, "t", &message, NULL, &error), FLARE_ERR_TIMEOUT);
    assert_non_null(strstr(error.message, "unconfirmed"));
    client_fixture_deinit(&fixture);
}

/* The broker reads no more than its window: the rest waits here. */
static void test_window(void **state)
{
    (void)state;
    struct client_fixture fixture;
    struct wire_frame first;
    struct wire_frame frame;
    client_fixture_init(&fixture);
    fixture.fake.welcome.window_requests = 2;
    fixture.options.batch_messages = 1;
    client_fixture_connect(&fixture);
    for (uint32_t index = 0; index < 4; index++) {
        client_fixture_publish(&fixture, "t", NULL, "x");
    }
    client_fixture_expect_publish(&fixture, &first, "t", 1);
    uint64_t first_id = first.id;
    client_fixture_expect_publish(&fixture, &frame, "t", 1);
    assert_true(fake_broker_is_quiet(&fixture.fake, 30));
    fake_broker_publish(&fixture.fake, &frame, FLARE_OK, 1);
    client_fixture_expect_publish(&fixture, &frame, "t", 1);
    assert_true(fake_broker_is_quiet(&fixture.fake, 30));
    frame.id = first_id;
    fake_broker_publish(&fixture.fake, &frame, FLARE_OK, 1);
    client_fixture_expect_publish(&fixture, &frame, "t", 1);
    client_fixture_deinit(&fixture);
}

/* ---- blocking ---------------------------------------------------------------------------------
 */

static void *answer_publishes(void *context)
{
    struct fake_broker *fake = context;
    struct wire_frame frame;
    for (uint32_t index = 0; index < 4; index++) {
        fake_broker_expect(fake, WIRE_publish, &frame);
        enum flare_code code = index == 1 ? FLARE_ERR_QUOTA : FLARE_OK;
        fake_broker_publish(fake, &frame, code, 10 * index);
    }
    return NULL;
}

static void test_blocking(void **state)
{
    (void)state;
    struct client_fixture fixture;
    struct flare_result results[3];
    struct flare_error error;
    pthread_t thread;
    const struct flare_message items[] = {{.body = "a", .body_size = 1},
                                          {.body = "b", .body_size = 1},
                                          {.body = "c", .body_size = 1}};
    const struct flare_messages messages = {.items = items, .count = 3, .atomic = true};
    const struct flare_messages none = {0};
    const struct flare_messages many = {.items = items, .count = 10001};
    client_fixture_init(&fixture);
    fixture.options.linger_us = UINT32_MAX;
    client_fixture_connect(&fixture);
    assert_int_equal(pthread_create(&thread, NULL, answer_publishes, &fixture.fake), 0);
    assert_int_equal(flare_publish(fixture.client, "t", &items[0], &results[0], &error), FLARE_OK);
    assert_int_equal(results[0].sequence, 0);
    assert_int_equal(flare_publish(fixture.client, "t", &items[0], NULL, &error), FLARE_ERR_QUOTA);
    assert_int_equal(error.code, FLARE_ERR_QUOTA);
    assert_int_equal(flare_publish_batch(fixture.client, "t", &messages, results, &error),
                     FLARE_OK);
    assert_int_equal(results[2].sequence, 22);
    assert_int_equal(flare_publish_batch(fixture.client, "t", &none, NULL, &error), FLARE_OK);
    assert_int_equal(flare_publish_batch(fixture.client, "t", &many, NULL, &error),
                     FLARE_ERR_INVALID);
    client_fixture_publish(&fixture, "t", NULL, "lingers");
    assert_int_equal(flare_flush(fixture.client, 0, &error), FLARE_OK);
    assert_int_equal(client_box_count(&fixture.box), 1);
    assert_int_equal(pthread_join(thread, NULL), 0);
    client_fixture_deinit(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_results),
        cmocka_unit_test(test_batches_by_confirmation),
        cmocka_unit_test(test_batches_from_callbacks),
        cmocka_unit_test(test_full_batches),
        cmocka_unit_test(test_broker_bounds_batches),
        cmocka_unit_test(test_linger),
        cmocka_unit_test(test_keys_keep_order),
        cmocka_unit_test(test_many_topics),
        cmocka_unit_test(test_many_topics_fail),
        cmocka_unit_test(test_room_in_a_callback),
        cmocka_unit_test(test_room_in_a_thread),
        cmocka_unit_test(test_no_room_in_time),
        cmocka_unit_test(test_window),
        cmocka_unit_test(test_blocking),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
