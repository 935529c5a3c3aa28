/* Pulls that wait when something is published ask right behind it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/lib/pulls.h"

enum { PULLS = 4, DELAY_MS = 1000 };

static uint64_t commands_total(struct volumes *volumes)
{
    struct router_volume_status status;
    uint64_t total = 0;
    volumes_quiesce(volumes);
    for (uint32_t index = 0; index < router_volume_count(volumes->router); index++) {
        volumes_await_idle(volumes, index);
        router_volume_status(volumes->router, index, &status);
        total += status.commands_total;
    }
    return total;
}

/* What `act` has the volumes do. */
static uint64_t commands_of(struct volumes *volumes, void (*act)(struct volumes *))
{
    uint64_t first = commands_total(volumes);
    uint64_t second = commands_total(volumes);
    act(volumes);
    return commands_total(volumes) - second - (second - first);
}

static void start_all(struct volumes *volumes, struct volumes_pull pulls[PULLS])
{
    for (size_t index = 0; index < PULLS; index++) {
        pulls_start_waiting(volumes, &pulls[index]);
    }
    volumes_quiesce(volumes);
}

static void cancel_all(struct volumes *volumes, struct volumes_pull *pulls, size_t count)
{
    assert_int_equal(router_waiting(volumes->router), count);
    for (size_t index = 0; index < count; index++) {
        router_cancel_pull(volumes->router, &pulls[index].pull);
        pulls_expect_code(volumes, &pulls[index], ERR_UNAVAILABLE);
    }
}

static void publish_on_first(struct volumes *volumes)
{
    pulls_publish_on(volumes, 0);
}

/* One message is one publish and one pull, in one commit; the others go on waiting, and so it is
 * with the next. */
static void test_one_asks(void **state)
{
    (void)state;
    for (uint32_t count = 1; count <= 2; count++) {
        struct volumes volumes;
        struct volumes_pull pulls[PULLS];
        pulls_open(&volumes, count);
        start_all(&volumes, pulls);
        for (size_t index = 0; index < 2; index++) {
            uint64_t commits = volumes_commits(&volumes, 0);
            assert_int_equal(commands_of(&volumes, publish_on_first), 2);
            assert_int_equal(volumes_commits(&volumes, 0), commits + 1);
            assert_int_equal(pulls_expect_one(&volumes, &pulls[index]).attempt, 1);
        }
        cancel_all(&volumes, pulls + 2, PULLS - 2);
        volumes_close(&volumes);
    }
}

static void publish_three(struct volumes *volumes)
{
    volumes_publish_many(volumes, "t", 3);
}

/* As many ask as there are messages for. */
static void test_as_many_ask(void **state)
{
    (void)state;
    struct volumes volumes;
    struct volumes_pull pulls[PULLS];
    pulls_open(&volumes, 1);
    start_all(&volumes, pulls);
    uint64_t commits = volumes_commits(&volumes, 0);
    assert_int_equal(commands_of(&volumes, publish_three), 1 + 3);
    assert_int_equal(volumes_commits(&volumes, 0), commits + 1);
    for (size_t index = 0; index < 3; index++) {
        (void)pulls_expect_one(&volumes, &pulls[index]);
    }
    cancel_all(&volumes, pulls + 3, 1);
    volumes_close(&volumes);
}

static void publish_later(struct volumes *volumes)
{
    struct message_in message = volumes_message("", "body");
    message.delay_ms = DELAY_MS;
    (void)volumes_publish(volumes, "t", message);
}

static void set_paused(struct volumes *volumes, bool paused)
{
    struct sub_settings settings = pulls_usual;
    settings.paused = paused;
    assert_int_equal(volumes_put_sub(volumes, "t", "s", &settings), ERR_NONE);
    volumes_quiesce(volumes);
}

/* One looks at what cannot be had yet, and goes on waiting for it; where nothing can be had, none
 * does. */
static void test_nothing_to_have(void **state)
{
    (void)state;
    struct volumes volumes;
    struct volumes_pull pulls[PULLS];
    pulls_open(&volumes, 1);
    start_all(&volumes, pulls);
    assert_int_equal(commands_of(&volumes, publish_later), 2);
    assert_int_equal(router_waiting(volumes.router), PULLS);
    volumes_advance(&volumes, DELAY_MS);
    (void)pulls_expect_one(&volumes, &pulls[0]);
    set_paused(&volumes, true);
    assert_int_equal(commands_of(&volumes, publish_on_first), 1);
    assert_int_equal(router_waiting(volumes.router), PULLS - 1);
    set_paused(&volumes, false);
    (void)pulls_expect_one(&volumes, &pulls[1]);
    cancel_all(&volumes, pulls + 2, PULLS - 2);
    volumes_close(&volumes);
}

/* Every subscription of the topic is asked for, each by its own. */
static void test_each_subscription(void **state)
{
    (void)state;
    struct volumes volumes;
    struct volumes_pull pulls[2];
    pulls_open(&volumes, 1);
    assert_int_equal(volumes_put_sub(&volumes, "t", "other", &pulls_usual), ERR_NONE);
    pulls_start_waiting(&volumes, &pulls[0]);
    volumes_pull_start(&volumes, &pulls[1], "t", "other", 10, PULLS_WAIT_MS);
    volumes_quiesce(&volumes);
    assert_int_equal(router_waiting(volumes.router), 2);
    uint64_t commits = volumes_commits(&volumes, 0);
    assert_int_equal(commands_of(&volumes, publish_on_first), 3);
    assert_int_equal(volumes_commits(&volumes, 0), commits + 1);
    (void)pulls_expect_one(&volumes, &pulls[0]);
    (void)pulls_expect_one(&volumes, &pulls[1]);
    volumes_close(&volumes);
}

/* One whose client goes while it asks leaves the message to the next. */
static void test_cancelled(void **state)
{
    (void)state;
    struct volumes volumes;
    struct volumes_pull pulls[2];
    struct router_publish publish;
    struct publish_result result;
    bool done = false;
    pulls_open(&volumes, 1);
    pulls_start_waiting(&volumes, &pulls[0]);
    pulls_start_waiting(&volumes, &pulls[1]);
    volumes_quiesce(&volumes);
    struct message_in message = volumes_message("", "body");
    publish = (struct router_publish){
        .topic = span_text("t"), .messages = &message, .count = 1, .results = &result};
    volumes_prepare(&volumes, &publish.operation, &done);
    volumes_hold(&volumes, 0);
    router_start_publish(volumes.router, &publish);
    assert_int_equal(router_waiting(volumes.router), 1);
    volumes_await_held(&volumes, 0);
    router_cancel_pull(volumes.router, &pulls[0].pull);
    volumes_unhold(&volumes, 0);
    pulls_expect_code(&volumes, &pulls[0], ERR_UNAVAILABLE);
    assert_int_equal(pulls_expect_one(&volumes, &pulls[1]).attempt, 1);
    volumes_await(&volumes, &done);
    router_release(&publish.operation);
    volumes_close(&volumes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_asks),        cmocka_unit_test(test_as_many_ask),
        cmocka_unit_test(test_nothing_to_have), cmocka_unit_test(test_each_subscription),
        cmocka_unit_test(test_cancelled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
