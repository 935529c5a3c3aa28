/* Pulls that wait in the router: what wakes them, and many of them. */
#include "broker/volume/router.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/lib/pulls.h"

enum { MANY = 1000 };

/* ---- what wakes a waiting pull -------------------------------------------------------------- */

static struct receipt lease_one(struct volumes *volumes)
{
    struct volumes_pull pull;
    pulls_publish(volumes);
    pulls_start(volumes, &pull, 0);
    return pulls_expect_one(volumes, &pull);
}

static void settle_one(struct volumes *volumes, struct receipt receipt,
                       enum router_settle_kind kind, bool reject, uint64_t delay_ms)
{
    enum err_code result = ERR_UNKNOWN;
    struct router_settle settle = {.topic = span_text("t"),
                                   .sub = span_text("s"),
                                   .kind = kind,
                                   .receipts = &receipt,
                                   .count = 1,
                                   .results = &result,
                                   .reject = reject,
                                   .has_delay = delay_ms > 0,
                                   .delay_ms = delay_ms};
    bool done = false;
    volumes_prepare(volumes, &settle.operation, &done);
    router_start_settle(volumes->router, &settle);
    volumes_await(volumes, &done);
    assert_int_equal(result, ERR_NONE);
    router_release(&settle.operation);
}

static void change(struct volumes *volumes, struct command command)
{
    struct router_change operation = {.topic = span_text("t"),
                                      .sub = span_text("s"),
                                      .command = command,
                                      .shard_number = UINT32_MAX};
    bool done = false;
    volumes_prepare(volumes, &operation.operation, &done);
    router_start_change(volumes->router, &operation);
    volumes_await(volumes, &done);
    assert_int_equal(operation.operation.result.code, ERR_NONE);
    assert_int_equal(operation.count, 1);
    router_release(&operation.operation);
}

/* Each has a part before the pull waits, which leaves nothing to be pulled, and one that wakes. */
struct cause {
    const char *name;
    void (*before)(struct volumes *volumes, struct receipt *receipt);
    void (*wake)(struct volumes *volumes, const struct receipt *receipt);
};

static void before_nothing(struct volumes *volumes, struct receipt *receipt)
{
    (void)volumes;
    (void)receipt;
}

static void before_lease(struct volumes *volumes, struct receipt *receipt)
{
    *receipt = lease_one(volumes);
}

static void before_delay(struct volumes *volumes, struct receipt *receipt)
{
    struct message_in message = volumes_message("", "body");
    (void)receipt;
    message.delay_ms = 5000;
    (void)volumes_publish(volumes, "t", message);
}

static void before_pause(struct volumes *volumes, struct receipt *receipt)
{
    struct sub_settings paused = pulls_usual;
    (void)receipt;
    paused.paused = true;
    pulls_publish(volumes);
    assert_int_equal(volumes_put_sub(volumes, "t", "s", &paused), ERR_NONE);
}

static void before_dead(struct volumes *volumes, struct receipt *receipt)
{
    *receipt = lease_one(volumes);
    settle_one(volumes, *receipt, ROUTER_NACK, true, 0);
}

static void before_skip(struct volumes *volumes, struct receipt *receipt)
{
    (void)receipt;
    assert_int_equal(volumes_put_sub(volumes, "t", "other", &pulls_usual), ERR_NONE); /* keeps it */
    pulls_publish(volumes);
    change(volumes, (struct command){.type = COMMAND_SEEK, .seek = {.to = START_LATEST}});
}

static void before_in_flight(struct volumes *volumes, struct receipt *receipt)
{
    struct sub_settings one = pulls_usual;
    one.max_in_flight = 1;
    assert_int_equal(volumes_put_sub(volumes, "t", "s", &one), ERR_NONE);
    const char *key = volumes_key_on(volumes, "t", 1, 0);
    struct volumes_pull pull;
    (void)volumes_publish(volumes, "t", volumes_message(key, "first"));
    (void)volumes_publish(volumes, "t", volumes_message(key, "second"));
    pulls_start(volumes, &pull, 0);
    *receipt = pulls_expect_one(volumes, &pull);
}

static void wake_publish(struct volumes *volumes, const struct receipt *receipt)
{
    (void)receipt;
    pulls_publish(volumes);
}

static void wake_nack(struct volumes *volumes, const struct receipt *receipt)
{
    settle_one(volumes, *receipt, ROUTER_NACK, false, 0);
}

static void wake_nack_delay(struct volumes *volumes, const struct receipt *receipt)
{
    settle_one(volumes, *receipt, ROUTER_NACK, false, 1000);
}

static void wake_nack_later(struct volumes *volumes, const struct receipt *receipt)
{
    settle_one(volumes, *receipt, ROUTER_NACK, false, 1000);
    volumes_advance(volumes, 1000);
}

static void wake_reject(struct volumes *volumes, const struct receipt *receipt)
{
    settle_one(volumes, *receipt, ROUTER_NACK, true, 0);
}

static void wake_ack(struct volumes *volumes, const struct receipt *receipt)
{
    settle_one(volumes, *receipt, ROUTER_ACK, false, 0);
}

static void wake_expiry(struct volumes *volumes, const struct receipt *receipt)
{
    (void)receipt;
    volumes_advance(volumes, pulls_usual.lease_ms);
}

static void wake_due(struct volumes *volumes, const struct receipt *receipt)
{
    (void)receipt;
    volumes_advance(volumes, 5000);
}

static void wake_resume(struct volumes *volumes, const struct receipt *receipt)
{
    (void)receipt;
    assert_int_equal(volumes_put_sub(volumes, "t", "s", &pulls_usual), ERR_NONE);
}

static void wake_redrive(struct volumes *volumes, const struct receipt *receipt)
{
    (void)receipt;
    change(volumes, (struct command){.type = COMMAND_REDRIVE, .redrive = {.max = 10}});
}

static void wake_seek(struct volumes *volumes, const struct receipt *receipt)
{
    (void)receipt;
    change(volumes, (struct command){.type = COMMAND_SEEK, .seek = {.to = START_EARLIEST}});
}

static void wake_purge(struct volumes *volumes, const struct receipt *receipt)
{
    (void)receipt;
    change(volumes, (struct command){.type = COMMAND_PURGE, .purge = {.delivery = true}});
}

static const struct cause causes[] = {
    {"publish", before_nothing, wake_publish},
    {"nack", before_lease, wake_nack},
    {"nack with a delay", before_lease, wake_nack_later},
    {"lease expiry", before_lease, wake_expiry},
    {"delay due", before_delay, wake_due},
    {"resume", before_pause, wake_resume},
    {"redrive", before_dead, wake_redrive},
    {"seek", before_skip, wake_seek},
    {"room in flight by ack", before_in_flight, wake_ack},
    {"room in flight by nack", before_in_flight, wake_nack},
    {"room in flight by nack with a delay", before_in_flight, wake_nack_delay},
    {"room in flight by reject", before_in_flight, wake_reject},
    {"room in flight by expiry", before_in_flight, wake_expiry},
    {"room in flight by purge", before_in_flight, wake_purge},
    {"room in flight by settings", before_in_flight, wake_resume},
};

/* A waiting pull gets a message as soon as there is one for it, whatever brings it about. */
static void test_wakes(void **state)
{
    (void)state;
    for (size_t index = 0; index < sizeof causes / sizeof *causes; index++) {
        const struct cause *cause = &causes[index];
        struct volumes volumes;
        struct volumes_pull pull;
        struct receipt receipt = {0};
        pulls_open(&volumes, 2);
        cause->before(&volumes, &receipt);
        pulls_start_waiting(&volumes, &pull);
        if (pull.done) {
            fail_msg("%s: there was a message before", cause->name);
        }
        cause->wake(&volumes, &receipt);
        (void)pulls_expect_one(&volumes, &pull);
        assert_int_equal(router_waiting(volumes.router), 0);
        volumes_close(&volumes);
    }
}

/* ---- many ----------------------------------------------------------------------------------- */

static void check_many(uint32_t volume_count, bool at_once)
{
    struct volumes volumes;
    struct volumes_pull *pulls = calloc(MANY, sizeof *pulls);
    assert_non_null(pulls);
    pulls_open(&volumes, volume_count);
    for (uint32_t index = 0; index < MANY; index++) {
        pulls_start(&volumes, &pulls[index], PULLS_WAIT_MS);
    }
    volumes_quiesce(&volumes);
    assert_int_equal(router_waiting(volumes.router), MANY);
    if (at_once) {
        volumes_publish_many(&volumes, "t", MANY);
    }
    for (uint32_t index = 0; index < MANY && !at_once; index++) {
        pulls_publish(&volumes);
    }
    pulls_expect_each_one(&volumes, pulls, MANY);
    assert_int_equal(router_waiting(volumes.router), 0);
    free(pulls);
    volumes_close(&volumes);
}

/* A thousand waiting pulls and a thousand messages: each gets one, none is lost or doubled. */
static void test_many(void **state)
{
    (void)state;
    check_many(1, true);
    check_many(2, true);
    check_many(4, false);
}

/* The first that finds many messages makes as many others ask at the same time, not one after the
 * other, and no more than there are messages for. */
static void test_burst(void **state)
{
    (void)state;
    enum { WAITING = 100, MESSAGES = 40 };
    static struct volumes_pull pulls[WAITING];
    struct volumes volumes;
    pulls_open(&volumes, 1);
    for (size_t index = 0; index < WAITING; index++) {
        pulls_start_waiting(&volumes, &pulls[index]);
    }
    volumes_publish_many(&volumes, "t", MESSAGES);
    while (!pulls[0].done) {
        volumes_turn(&volumes);
    }
    assert_int_equal(router_waiting(volumes.router), WAITING - MESSAGES);
    for (size_t index = 0; index < MESSAGES; index++) {
        (void)pulls_expect_one(&volumes, &pulls[index]);
    }
    volumes_quiesce(&volumes);
    assert_int_equal(router_waiting(volumes.router), WAITING - MESSAGES);
    router_drain(volumes.router);
    for (size_t index = MESSAGES; index < WAITING; index++) {
        pulls_expect_code(&volumes, &pulls[index], ERR_UNAVAILABLE);
    }
    volumes_close(&volumes);
}

/* Pulls that begin while messages come meet them all: no wake-up falls between asking and waiting.
 */
static void test_race(void **state)
{
    (void)state;
    enum { ROUNDS = 300 };
    struct volumes volumes;
    pulls_open(&volumes, 2);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        struct volumes_pull pulls[3];
        struct router_publish publish[3];
        struct publish_result results[3];
        struct message_in messages[3];
        bool done[3];
        for (uint32_t index = 0; index < 3; index++) {
            messages[index] = volumes_message("", "body");
            publish[index] = (struct router_publish){.topic = span_text("t"),
                                                     .messages = &messages[index],
                                                     .count = 1,
                                                     .results = &results[index]};
            volumes_prepare(&volumes, &publish[index].operation, &done[index]);
            if ((round >> index & 1) == 0) {
                pulls_start(&volumes, &pulls[index], PULLS_WAIT_MS);
                router_start_publish(volumes.router, &publish[index]);
            } else {
                router_start_publish(volumes.router, &publish[index]);
                router_poll(volumes.router);
                pulls_start(&volumes, &pulls[index], PULLS_WAIT_MS);
            }
        }
        for (uint32_t index = 0; index < 3; index++) {
            (void)pulls_expect_one(&volumes, &pulls[index]);
            volumes_await(&volumes, &done[index]);
            router_release(&publish[index].operation);
        }
    }
    volumes_close(&volumes);
}

/* The one that has waited longest is served first, also when it was woken for nothing before. */
static void test_in_line(void **state)
{
    (void)state;
    struct volumes volumes;
    struct volumes_pull pulls[3];
    pulls_open(&volumes, 1);
    for (size_t index = 0; index < 3; index++) {
        pulls_start_waiting(&volumes, &pulls[index]);
    }
    /* A message that cannot be delivered yet wakes the first for nothing. */
    struct message_in delayed = volumes_message("", "body");
    delayed.delay_ms = PULLS_WAIT_MS / 2;
    (void)volumes_publish(&volumes, "t", delayed);
    volumes_quiesce(&volumes);
    assert_int_equal(router_waiting(volumes.router), 3);
    for (size_t index = 0; index < 3; index++) {
        pulls_publish(&volumes);
        (void)pulls_expect_one(&volumes, &pulls[index]);
        volumes_quiesce(&volumes);
        assert_int_equal(router_waiting(volumes.router), 2 - index);
    }
    volumes_close(&volumes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wakes), cmocka_unit_test(test_many),    cmocka_unit_test(test_burst),
        cmocka_unit_test(test_race),  cmocka_unit_test(test_in_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
