/* Clients that go while they pull: what was theirs is the next one's. */
#include "broker/volume/router.h"

#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "tests/lib/deadline.h"
#include "tests/lib/pulls.h"

enum { DELAY_MS = 1000 };

/* A pull whose client goes while it waits is gone: the next message is another's. */
static void test_cancel_waiting(void **state)
{
    (void)state;
    struct volumes volumes;
    struct volumes_pull pulls[2];
    pulls_open(&volumes, 2);
    pulls_start_waiting(&volumes, &pulls[0]);
    pulls_start_waiting(&volumes, &pulls[1]);
    router_cancel_pull(volumes.router, &pulls[0].pull);
    pulls_expect_code(&volumes, &pulls[0], ERR_UNAVAILABLE);
    pulls_publish(&volumes);
    assert_int_equal(pulls_expect_one(&volumes, &pulls[1]).attempt, 1);
    volumes_close(&volumes);
}

/* What a volume gives to a pull whose client has gone meanwhile goes back at once, does not count
 * as an attempt, and is the next one's. */
static void test_cancel_asking(void **state)
{
    (void)state;
    for (uint32_t volume = 0; volume < 2; volume++) {
        struct volumes volumes;
        struct volumes_pull pulls[2];
        pulls_open(&volumes, 2);
        pulls_publish_on(&volumes, volume);
        pulls_start_held(&volumes, &pulls[0], volume);
        router_cancel_pull(volumes.router, &pulls[0].pull);
        pulls_start(&volumes, &pulls[1], PULLS_WAIT_MS);
        volumes_unhold(&volumes, volume);
        pulls_expect_code(&volumes, &pulls[0], ERR_UNAVAILABLE);
        assert_int_equal(pulls_expect_one(&volumes, &pulls[1]).attempt, 1);
        volumes_close(&volumes);
    }
}

/* One that had found nothing when it went leaves nothing behind. */
static void test_cancel_empty(void **state)
{
    (void)state;
    struct volumes volumes;
    struct volumes_pull pulls[2];
    pulls_open(&volumes, 2);
    pulls_start_held(&volumes, &pulls[0], 1);
    router_cancel_pull(volumes.router, &pulls[0].pull);
    volumes_unhold(&volumes, 1);
    pulls_expect_code(&volumes, &pulls[0], ERR_UNAVAILABLE);
    pulls_start_waiting(&volumes, &pulls[1]);
    volumes_quiesce(&volumes);
    assert_int_equal(router_waiting(volumes.router), 1);
    pulls_publish(&volumes);
    assert_int_equal(pulls_expect_one(&volumes, &pulls[1]).attempt, 1);
    volumes_close(&volumes);
}

/* The same for one that was woken for it: the volume has told once and will not again, and another
 * one waits. */
static void test_cancel_woken(void **state)
{
    (void)state;
    struct volumes volumes;
    struct volumes_pull pulls[2];
    pulls_open(&volumes, 1);
    pulls_start_waiting(&volumes, &pulls[0]);
    pulls_start_waiting(&volumes, &pulls[1]);
    struct message_in message = volumes_message("", "body");
    message.delay_ms = DELAY_MS;
    (void)volumes_publish(&volumes, "t", message);
    volumes_quiesce(&volumes);
    uint64_t commits = volumes_commits(&volumes, 0);
    volumes_advance(&volumes, DELAY_MS);
    const struct deadline deadline = deadline_in(VOLUMES_WAIT_MS);
    while (volumes_commits(&volumes, 0) == commits) { /* until it has told */
        assert_false(deadline_passed(&deadline));
        sched_yield();
    }
    volumes_hold(&volumes, 0);
    router_poll(volumes.router); /* the first one asks */
    volumes_await_held(&volumes, 0);
    router_cancel_pull(volumes.router, &pulls[0].pull);
    volumes_unhold(&volumes, 0);
    pulls_expect_code(&volumes, &pulls[0], ERR_UNAVAILABLE);
    assert_int_equal(pulls_expect_one(&volumes, &pulls[1]).attempt, 1);
    volumes_close(&volumes);
}

/* The same for what it has got from one volume while the next one is asked. */
static void test_cancel_partly_filled(void **state)
{
    (void)state;
    uint32_t partly = 0;
    for (uint32_t volume = 0; volume < 2; volume++) {
        struct volumes volumes;
        struct volumes_pull pulls[3];
        pulls_open(&volumes, 2);
        pulls_publish_on(&volumes, 0);
        pulls_publish_on(&volumes, 1);
        pulls_start_held(&volumes, &pulls[0], volume);
        partly += pulls[0].pull.taken > 0;
        router_cancel_pull(volumes.router, &pulls[0].pull);
        pulls_start(&volumes, &pulls[1], PULLS_WAIT_MS);
        pulls_start(&volumes, &pulls[2], PULLS_WAIT_MS);
        volumes_unhold(&volumes, volume);
        pulls_expect_code(&volumes, &pulls[0], ERR_UNAVAILABLE);
        assert_int_equal(pulls_expect_one(&volumes, &pulls[1]).attempt, 1);
        assert_int_equal(pulls_expect_one(&volumes, &pulls[2]).attempt, 1);
        volumes_close(&volumes);
    }
    assert_int_equal(partly, 1); /* the other one began with the volume that was held */
}

struct canceller {
    struct router_stats stats;
    struct volumes *volumes;
    struct volumes_pull *victim;
};

static void cancel_victim(struct router_operation *operation)
{
    struct canceller *canceller = operation->user;
    assert_false(canceller->victim->done);
    router_cancel_pull(canceller->volumes->router, &canceller->victim->pull);
}

/* The same for one that has all it wants but has not been told so yet. */
static void test_cancel_finished(void **state)
{
    (void)state;
    struct volumes volumes;
    struct volumes_pull pulls[2];
    struct canceller canceller = {.volumes = &volumes, .victim = &pulls[0]};
    pulls_open(&volumes, 1);
    pulls_publish(&volumes);
    volumes_quiesce(&volumes);
    volumes.woken = false;
    pulls_start(&volumes, &pulls[0], PULLS_WAIT_MS);
    volumes_await_wake(&volumes); /* its reply is there */
    bool unused;
    volumes_prepare(&volumes, &canceller.stats.operation, &unused);
    canceller.stats.operation.done = cancel_victim;
    canceller.stats.operation.user = &canceller;
    canceller.stats.topic = span_text("unknown");
    router_start_stats(volumes.router, &canceller.stats); /* it is done first in the next poll */
    router_poll(volumes.router);
    pulls_expect_code(&volumes, &pulls[0], ERR_UNAVAILABLE);
    pulls_start(&volumes, &pulls[1], PULLS_WAIT_MS);
    assert_int_equal(pulls_expect_one(&volumes, &pulls[1]).attempt, 1);
    volumes_close(&volumes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cancel_waiting),       cmocka_unit_test(test_cancel_asking),
        cmocka_unit_test(test_cancel_empty),         cmocka_unit_test(test_cancel_woken),
        cmocka_unit_test(test_cancel_partly_filled), cmocka_unit_test(test_cancel_finished),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
